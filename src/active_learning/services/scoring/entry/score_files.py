"""The entry script of Azure Machine Learning's batch endpoints.

``init()`` is called once in each process, ``run()`` for some files at a time.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

# Whoever loads a script by its path need not look beside it for what it imports.
if find_spec("active_learning") is None:
    sys.path.insert(0, str(Path(__file__).parent))

from active_learning.services.scoring.batch import init, run

__all__ = ["init", "run"]
