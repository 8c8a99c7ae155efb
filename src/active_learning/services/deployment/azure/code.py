"""What a deployment is given to run: this package, and an entry script above it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import active_learning
from active_learning.services.scoring import entry

ONLINE = "score.py"
BATCH = "score_files.py"

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@contextmanager
def code_folder() -> Iterator[Path]:
    """A folder with the entry scripts on top and the package beside them.

    Equal files make equal folders, which Azure ML stores once. The server looks for its
    OpenAPI documents and its logging beside the entry script.
    """
    package = Path(active_learning.__file__).parent
    scripts = Path(entry.__file__).parent
    with TemporaryDirectory(prefix="code-") as scratch:
        folder = Path(scratch) / "code"
        shutil.copytree(package, folder / package.name, ignore=_LEFT_OUT)
        for path in sorted(scripts.iterdir()):
            if path.is_file() and path.name != "__init__.py":
                shutil.copyfile(path, folder / path.name)
        yield folder
