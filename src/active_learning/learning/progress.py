"""Whether anybody would see a progress bar."""

import multiprocessing
import sys


def person_watches() -> bool:
    """True in a terminal; not in a log, and not in one of several workers."""
    return sys.stderr.isatty() and multiprocessing.parent_process() is None
