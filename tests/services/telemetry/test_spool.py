"""What was put is there, whatever happens to the process, the disk or the file."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.services.telemetry.workers import ROOT, spool

from active_learning.errors import SpoolFullError, TelemetryError
from active_learning.services.telemetry.spool import Spool


def worker(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.services.telemetry.workers", name]
    return subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def rows_of(waiting: Spool) -> list[str]:
    claim = waiting.claim(1_000_000)
    waiting.release()
    return list(claim.rows) if claim else []


def test_rows_are_claimed_in_the_order_they_came(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a", "b"])
    waiting.put(["c"])

    first = waiting.claim(2)
    assert first is not None
    waiting.done(first)
    second = waiting.claim(2)
    assert second is not None

    assert (first.rows, second.rows) == (("a", "b"), ("c",))
    assert len(waiting) == 1


def test_a_claim_that_was_not_done_is_given_again_under_its_name(
    tmp_path: Path,
) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a", "b"])
    first = waiting.claim(2)
    waiting.release()
    waiting.put(["c"])

    assert spool(tmp_path).claim(100) == first


def test_no_two_batches_bear_one_name(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        waiting = spool(tmp_path)
        waiting.put(["a"])
        claim = waiting.claim(1)
        assert claim is not None
        names.add(claim.batch)
        waiting.done(claim)
        waiting.close()

    assert len(names) == 3


def test_one_drains_at_a_time(tmp_path: Path) -> None:
    one, other = spool(tmp_path), spool(tmp_path)
    one.put(["a", "b"])

    claim = one.claim(1)
    assert claim is not None
    assert other.claim(1) is None
    one.done(claim)

    assert other.claim(1) is not None


def test_a_killed_drainer_gives_its_place_back_though_its_child_lives(
    tmp_path: Path,
) -> None:
    child = int(worker("fork_while_draining", tmp_path).stdout)
    try:
        os.kill(child, 0)
        assert spool(tmp_path).claim(1) is not None
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_goes_on_when_its_parent_closes(tmp_path: Path) -> None:
    worker("fork_and_close", tmp_path)

    assert rows_of(spool(tmp_path)) == ["parent", "child", "child, later"]


def test_a_full_spool_says_so_and_takes_again_what_it_has_room_for(
    tmp_path: Path,
) -> None:
    waiting = spool(tmp_path, max_rows=3)
    waiting.put(["a", "b"])

    with pytest.raises(SpoolFullError, match="holds 2 of at most 3"):
        waiting.put(["c", "d"])
    assert rows_of(waiting) == ["a", "b"]
    claim = waiting.claim(10)
    assert claim is not None
    waiting.done(claim)
    waiting.put(["c", "d", "e"])

    assert rows_of(waiting) == ["c", "d", "e"]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    ran = worker("fill_the_disk", tmp_path)

    *acknowledged, told, last = ran.stdout.splitlines()
    assert "disk is full or failing" in told
    assert last == "last"
    assert len(acknowledged) > 10
    expected = [row for n in acknowledged[1:] for row in (n, "x" * 1000)]
    assert rows_of(spool(tmp_path)) == ["0", *expected, "last"]


def test_threads_share_a_spool(tmp_path: Path) -> None:
    waiting = spool(tmp_path)

    def put(thread: int) -> None:
        for number in range(100):
            waiting.put([f"{thread}-{number}"])

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    expected = [f"{thread}-{number}" for thread in range(4) for number in range(100)]
    assert sorted(rows_of(waiting)) == sorted(expected)


def test_the_log_of_a_busy_spool_does_not_grow_for_ever(tmp_path: Path) -> None:
    waiting = spool(tmp_path)

    for number in range(3000):
        waiting.put([f"{number}"])

    assert waiting.path.with_name(f"{waiting.path.name}-wal").stat().st_size < 2**23


def test_a_damaged_file_is_set_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = spool(tmp_path)
    waiting.put(["lost"])
    waiting.close()
    waiting.path.write_bytes(b"no database" * 1000)

    waiting.put(["kept"])

    assert rows_of(waiting) == ["kept"]
    [aside] = waiting.damaged()
    assert aside.read_bytes().startswith(b"no database")
    assert aside.name in caplog.text
    assert "not delivered" in caplog.text


def test_a_damaged_page_is_found_when_it_is_read(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    waiting.put(["x" * 1000] * 100)
    waiting.close()
    with waiting.path.open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096 * 15)

    assert rows_of(waiting) == []
    waiting.put(["kept"])

    assert rows_of(waiting) == ["kept"]
    assert len(waiting.damaged()) == 1


def test_a_file_that_another_process_set_aside_is_not_written_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = spool(tmp_path), spool(tmp_path)
    one.put(["before"])
    claim = one.claim(1)
    assert claim is not None
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{one.path}{suffix}", f"{one.path}.damaged-1{suffix}")

    one.put(["after"])
    other.put(["too"])
    one.done(claim)

    assert rows_of(other) == ["after", "too"]
    assert "taken away" in caplog.text


def test_a_spool_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(TelemetryError, match="cannot be opened"):
        Spool(tmp_path / "file" / "spool.db", 10).put(["a"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(TelemetryError, match="cannot be used"):
        Spool(tmp_path / "folder", 10).put(["a"])


def test_rejected_rows_stay_with_their_reason(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a", "b", "c"])
    claim = waiting.claim(3)
    assert claim is not None

    waiting.done(claim, {1: "it does not fit"})

    assert waiting.rejected() == [("b", "it does not fit")]
    assert len(waiting) == 0


def test_a_stranger_that_holds_the_file_does_not_lose_a_row(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a"])
    stranger = sqlite3.connect(waiting.path, check_same_thread=False)
    stranger.execute("BEGIN IMMEDIATE")
    gone = threading.Event()

    def leave() -> None:
        gone.set()
        stranger.rollback()

    threading.Timer(0.2, leave).start()

    waiting.put(["b"])

    assert gone.is_set()
    assert rows_of(waiting) == ["a", "b"]
    stranger.close()


def test_a_spool_that_waits_for_the_disk_keeps_the_same_rows(tmp_path: Path) -> None:
    waiting = Spool(tmp_path / "spool.db", 10, power_cut_safe=True)

    waiting.put(["a", "b"])

    assert rows_of(waiting) == ["a", "b"]
