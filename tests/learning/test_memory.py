import platform
import subprocess
import sys

import pytest

# Twenty times 16 MB, written and freed: with fresh pages each time 4,096 faults a turn.
TURNS = """
import ctypes, resource
from active_learning.learning.memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def turn():
    block = libc.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    libc.free(ctypes.c_void_p(block))
keep_freed_memory()
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc")
def test_freed_memory_is_used_again_without_asking_the_kernel() -> None:
    said = subprocess.check_output([sys.executable, "-c", TURNS])

    assert int(said) < 100
