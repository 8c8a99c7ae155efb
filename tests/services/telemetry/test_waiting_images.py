"""An image that came with a prediction is in its archive before the row is anywhere."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import psutil
import pytest
from tests.services.telemetry.workers import (
    ROOT,
    SETTINGS,
    FolderSink,
    archiving,
    delivered,
    png,
    prediction,
)

from active_learning.datasets import SpoolDataset
from active_learning.errors import SinkAwayError, SpoolFullError
from active_learning.imaging.archive import ImageArchive
from active_learning.services.telemetry.collector import Collector
from active_learning.services.telemetry.parts import Parts
from active_learning.services.telemetry.spool import Spool


def start(name: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.services.telemetry.workers", name]
    return subprocess.Popen(
        [*command, str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(name: str, folder: Path) -> list[str]:
    """What a worker said before its end."""
    with start(name, folder) as process:
        said, _ = process.communicate(timeout=60)
    return said.splitlines()


def deliver(folder: Path) -> None:
    """As the next process does: it was told of no archive."""
    waiting = Spool(folder / "spool.db", 100_000)
    collecting = Collector(waiting, FolderSink(folder), SETTINGS)
    while collecting.drain_once():
        pass
    waiting.close()


def named(folder: Path, number: int) -> str:
    """Where the image of a number is kept."""
    return ImageArchive(str(folder / "images")).named(png(number)).image_id


def waiting_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("spool.db.images-*"))


def archived(folder: Path) -> list[str]:
    images = folder / "images"
    return sorted(
        path.relative_to(images).as_posix()
        for path in images.rglob("*")
        if path.is_file()
    )


def check(folder: Path, numbers: list[int]) -> None:
    """Each number's row is there once and bears the name of its image, which is too."""
    rows = Parts(folder / "predictions", "predictions").read().to_pylist()
    found = {row["prediction_id"]: row["image_id"] for row in rows}
    assert delivered(folder) == sorted(str(number) for number in numbers)
    assert found == {str(number): named(folder, number) for number in numbers}
    for number in numbers:
        assert (folder / "images" / found[str(number)]).read_bytes() == png(number)
    assert waiting_files(folder) == []


def test_what_a_killed_process_acknowledged_arrives_with_its_images(
    tmp_path: Path,
) -> None:
    moments = random.Random(0)
    acknowledged: list[str] = []
    n_kills = 5
    for kill in range(n_kills):
        process = start("collect_images", tmp_path, str(kill * 100_000))
        assert process.stdout is not None
        lines = range(1 + moments.randrange(200))
        acknowledged += [process.stdout.readline().strip() for _ in lines]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()

    deliver(tmp_path)

    found = delivered(tmp_path)
    assert set(acknowledged) <= set(found)
    assert len(found) <= len(acknowledged) + n_kills
    check(tmp_path, [int(name) for name in found])


def test_an_archiving_that_was_killed_is_done_again(tmp_path: Path) -> None:
    said = run("die_while_archiving", tmp_path)
    assert len(archived(tmp_path)) == 1
    assert delivered(tmp_path) == []

    deliver(tmp_path)

    assert said == ["0", "1", "2"]
    check(tmp_path, [0, 1, 2])


def test_an_image_that_was_cut_off_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        archiving(tmp_path).collect(prediction(f"{number}"), png(number))
    [file] = waiting_files(tmp_path)
    whole = file.read_bytes()
    # As a kill in the middle of a write leaves it, in another process.
    file.write_bytes(whole + whole[: len(whole) // 3])
    archiving(tmp_path).collect(prediction("2"), png(2))
    file.write_bytes(file.read_bytes() + whole[:5])

    deliver(tmp_path)

    assert "2 images" in caplog.text
    check(tmp_path, [0, 1, 2])


def test_a_store_that_is_away_keeps_rows_and_images_waiting(tmp_path: Path) -> None:
    store = tmp_path / "images"
    store.write_text("no folder")
    sink = FolderSink(tmp_path)
    collecting = archiving(tmp_path, sink=sink)
    for number in range(3):
        collecting.collect(prediction(f"{number}"), png(number))
    for _ in range(2):
        with pytest.raises(NotADirectoryError):
            collecting.drain_once()
    assert sink.attempts == 0
    assert collecting.status()["waiting"] == 3

    store.unlink()

    assert collecting.drain_once() == 3
    check(tmp_path, [0, 1, 2])


def test_many_images_are_archived_by_a_process_of_their_own(tmp_path: Path) -> None:
    before = archiving(tmp_path)
    for number in range(200):
        before.collect(prediction(f"{number}"), png(number))
    before.close(0)
    waiting = Spool(tmp_path / "spool.db", 100_000)
    archive = ImageArchive(str(tmp_path / "images"))

    with Collector(waiting, FolderSink(tmp_path), SETTINGS, archive) as collecting:
        collecting.start()
        deadline = time.monotonic() + 60
        while collecting.status()["waiting"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        beside = [" ".join(child.cmdline()) for child in psutil.Process().children()]

    check(tmp_path, list(range(200)))
    assert sum("imaging.archivist" in command for command in beside) == 1
    after = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not any("imaging.archivist" in command for command in after)


def test_a_table_that_is_away_does_not_keep_images_waiting(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    collecting = archiving(tmp_path, sink=sink)
    for number in range(3):
        collecting.collect(prediction(f"{number}"), png(number))
    collecting.close(0)
    with pytest.raises(SinkAwayError):
        collecting.drain_once()

    assert archived(tmp_path) == sorted(named(tmp_path, n) for n in range(3))
    assert waiting_files(tmp_path) == []


def test_a_full_disk_takes_no_part_of_an_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, *acknowledged, told, last = run("fill_the_images", tmp_path)

    assert (first, last) == ("first", "99999")
    assert "disk is full or failing" in told
    assert len(acknowledged) > 10

    deliver(tmp_path)
    expected = [*map(int, acknowledged), 99999]
    assert delivered(tmp_path) == sorted([first, *map(str, expected)])
    names = {named(tmp_path, number) for number in expected}
    # There may have been room for an image and none for its row.
    assert names <= set(archived(tmp_path))
    assert len(archived(tmp_path)) <= len(names) + 1
    assert "cut off" not in caplog.text


def test_images_that_wait_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("no folder")
    collecting = archiving(tmp_path, max_image_bytes=100)
    collecting.collect(prediction("0"), png(0))
    with pytest.raises(NotADirectoryError):
        collecting.drain_once()

    with pytest.raises(SpoolFullError, match="more than the 100 that may"):
        collecting.collect(prediction("1"), png(1))
    collecting.collect(prediction("2"))

    (tmp_path / "images").unlink()
    assert collecting.drain_once() == 1
    collecting.collect(prediction("3"), png(3))
    assert collecting.drain_once() == 2
    assert delivered(tmp_path) == ["0", "2", "3"]
    assert archived(tmp_path) == sorted(named(tmp_path, n) for n in (0, 3))


def test_a_long_file_of_images_is_followed_by_another(tmp_path: Path) -> None:
    images = [png(0), *(png(0) + b"\0" * (6 << 20) + bytes([n]) for n in range(3))]
    collecting = archiving(tmp_path)
    for number, image in enumerate(images):
        collecting.collect(prediction(f"{number}"), image)

    sizes = [path.stat().st_size >> 20 for path in waiting_files(tmp_path)]
    assert sizes == [12, 6]
    assert collecting.drain_once() == 4
    assert len(archived(tmp_path)) == 4


def test_an_image_that_is_sent_again_is_there_once(tmp_path: Path) -> None:
    collecting = [archiving(tmp_path) for _ in range(2)]
    sizes = []
    for number, each in enumerate([collecting[0], collecting[0], collecting[1]]):
        each.collect(prediction(f"{number}"), png(0))
        [file] = waiting_files(tmp_path)
        sizes.append(file.stat().st_size)
    assert collecting[0].drain_once() == 3
    written = (tmp_path / "images" / named(tmp_path, 0)).stat().st_mtime_ns
    collecting[0].collect(prediction("3"), png(0))
    assert collecting[0].drain_once() == 1

    assert sizes[0] == sizes[1]
    assert archived(tmp_path) == [named(tmp_path, 0)]
    assert (tmp_path / "images" / named(tmp_path, 0)).stat().st_mtime_ns == written
    assert delivered(tmp_path) == ["0", "1", "2", "3"]


def test_an_image_that_was_deleted_from_its_archive_comes_back(tmp_path: Path) -> None:
    collecting = archiving(tmp_path)
    for number in range(2):
        collecting.collect(prediction(f"{number}"), png(0))
        assert collecting.drain_once() == 1
        assert archived(tmp_path) == [named(tmp_path, 0)]
        (tmp_path / "images" / named(tmp_path, 0)).unlink()


def test_images_that_are_taken_away_do_not_take_others_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collecting = archiving(tmp_path)
    collecting.collect(prediction("0"), png(0))
    [file] = waiting_files(tmp_path)
    file.unlink()
    collecting.collect(prediction("1"), png(1))

    assert collecting.drain_once() == 2
    assert "taken away" in caplog.text
    assert archived(tmp_path) == [named(tmp_path, 1)]


def test_a_spool_that_waits_for_the_disk_keeps_the_same_images(tmp_path: Path) -> None:
    collecting = archiving(tmp_path, power_cut_safe=True)
    for number in range(3):
        collecting.collect(prediction(f"{number}"), png(number))

    assert collecting.drain_once() == 3
    check(tmp_path, [0, 1, 2])


def test_a_spool_that_is_full_takes_no_image(tmp_path: Path) -> None:
    collecting = archiving(tmp_path, max_rows=1)
    collecting.collect(prediction("0"), png(0))
    with pytest.raises(SpoolFullError):
        collecting.collect(prediction("1"), png(1))

    assert collecting.drain_once() == 1
    check(tmp_path, [0])


def test_a_pipeline_that_takes_the_rows_archives_their_images(tmp_path: Path) -> None:
    collecting = archiving(tmp_path)
    for number in range(3):
        collecting.collect(prediction(f"{number}"), png(number))
    collecting.close(0)
    spooled = SpoolDataset(filepath=str(tmp_path / "spool.db"), limit=10)

    rows = spooled.load()

    assert sorted(rows["image_id"]) == archived(tmp_path)
    assert archived(tmp_path) == sorted(named(tmp_path, n) for n in range(3))
    spooled.confirm()
    assert len(Spool(tmp_path / "spool.db", 10)) == 0


def test_an_image_that_its_store_refuses_is_told_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = ImageArchive("memory://test_images/store")
    store = fsspec.filesystem("memory")
    names = [archive.named(png(number)).image_id for number in range(3)]
    store.pipe_file(f"/test_images/store/{names[1]}", b"another content")
    waiting = Spool(tmp_path / "spool.db", 10)
    collecting = Collector(waiting, FolderSink(tmp_path), SETTINGS, archive)
    collecting.close(0)
    for number in range(3):
        collecting.collect(prediction(f"{number}"), png(number))

    assert collecting.drain_once() == 3

    assert store.cat_file(f"/test_images/store/{names[0]}") == png(0)
    assert store.cat_file(f"/test_images/store/{names[2]}") == png(2)
    assert "another content" in caplog.text
    [kept] = waiting_files(tmp_path)
    assert png(1) in kept.read_bytes()
    assert delivered(tmp_path) == ["0", "1", "2"]
