"""The function's modules are imported by name, as a worker does in its folder."""

import sys

from tests.standins.function_host import FUNCTION

sys.path.insert(0, str(FUNCTION))
