"""A process of its own archives images, and ends with whoever asked it to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.services.telemetry.workers import ROOT, png

from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.archivist import Archivist
from active_learning.imaging.waiting import Archived, WaitingImages

N = 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Images that wait for their archive."""
    archive = ImageArchive(str(tmp_path / "images"))
    waiting = WaitingImages(tmp_path / "spool.db", 10**6)
    for number in range(N):
        waiting.append(0, archive.named(png(number)), power_cut_safe=False)
    waiting.close()
    [path] = waiting.before(1)
    return path


def archived(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.png")}


def children() -> list[psutil.Process]:
    me = psutil.Process()
    return [one for one in me.children() if "imaging.archivist" in str(one.cmdline())]


def test_a_process_of_its_own_archives_every_image(tmp_path: Path, file: Path) -> None:
    archivist = Archivist(power_cut_safe=True)

    said = archivist.archive(file)
    again = archivist.archive(file)

    assert archived(tmp_path / "images") == {png(number) for number in range(N)}
    assert said == again == Archived(refused=[], n_cut_off=0)
    assert file.exists()
    assert len(children()) == 1
    archivist.close()
    assert children() == []


def test_one_that_was_killed_is_started_again(tmp_path: Path, file: Path) -> None:
    archivist = Archivist(power_cut_safe=False)
    archivist.archive(file)
    [process] = children()
    process.kill()

    with pytest.raises(OSError, match="has ended"):
        archivist.archive(file)
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    archivist.archive(file)

    assert len(archived(tmp_path / "images")) == N
    archivist.close()


def test_a_store_that_takes_nothing_is_told_by_its_name(
    tmp_path: Path, file: Path
) -> None:
    (tmp_path / "images").write_text("in the way")
    archivist = Archivist(power_cut_safe=False)

    with pytest.raises(NotADirectoryError, match="images"):
        archivist.archive(file)

    (tmp_path / "images").unlink()
    archivist.archive(file)
    assert len(archived(tmp_path / "images")) == N
    archivist.close()


def test_it_ends_when_whoever_asked_is_killed(file: Path) -> None:
    asking = f"""
from pathlib import Path
from active_learning.imaging.archivist import Archivist
archivist = Archivist(power_cut_safe=False)
archivist.archive(Path({str(file)!r}))
print("archived", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", asking],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "archived\n"
        [archivist] = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while archivist.is_running() and archivist.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
