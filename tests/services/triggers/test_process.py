"""A run ends by itself, or when a person has asked twice, or a supervisor once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# A run that says when it has begun, and goes on until it may end.
RUN = """
import sys, time
from pathlib import Path
here = Path(sys.argv[1])
(here / "begun").touch()
try:
    while not (here / "go").exists():
        time.sleep(0.01)
except KeyboardInterrupt:
    (here / "interrupted").touch()
    raise
(here / "ended").touch()
"""
# A watcher that starts it, tells how it ended and then waits for a signal.
WATCHER = """
import logging, os, sys
from pathlib import Path
from active_learning.services.triggers.process import Interrupts
logging.basicConfig(level=logging.INFO)
signals = Interrupts()
signals.listen()
here = Path(sys.argv[1])
lock = os.open(here / "lock", os.O_CREAT | os.O_RDWR)
code = signals.run([sys.executable, here / "run.py", here], here, os.environ, lock)
(here / "code").write_text(str(code))
sys.exit(0 if signals.wait(60) else 1)
"""


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.01)


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "run.py").write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    wait_for(tmp_path / "begun", process)
    yield process
    process.kill()
    process.wait()


def said(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"it did not say {text!r}")


def test_one_ctrl_c_lets_the_run_come_to_its_end(
    watcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    watcher.send_signal(signal.SIGINT)
    said(watcher, "goes on to its end")
    (tmp_path / "go").touch()

    assert watcher.wait(60) == 0
    assert (tmp_path / "code").read_text() == "0"
    assert (tmp_path / "ended").exists()


def test_a_second_ctrl_c_interrupts_it(
    watcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    watcher.send_signal(signal.SIGINT)
    said(watcher, "goes on to its end")
    watcher.send_signal(signal.SIGINT)

    assert watcher.wait(60) == 0
    assert (tmp_path / "code").read_text() == "None"
    assert (tmp_path / "interrupted").exists()


def test_a_supervisor_asks_once(watcher: subprocess.Popen[str], tmp_path: Path) -> None:
    watcher.terminate()

    assert watcher.wait(60) == 0
    assert (tmp_path / "code").read_text() == "None"
    assert (tmp_path / "interrupted").exists()


def test_a_waiting_watcher_ends_at_the_first(
    watcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    wait_for(tmp_path / "code", watcher)
    watcher.send_signal(signal.SIGINT)

    assert watcher.wait(60) == 0
    assert (tmp_path / "code").read_text() == "0"
