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
    log = waiting.path.with_name(f"{waiting.path.name}-wal")
    longest = 0

    for _ in range(6):
        waiting.put(["x" * 100_000] * 100)
        for _ in range(20):
            waiting.put(["a", "b"])
        longest = max(longest, log.stat().st_size)

    assert longest < 2**25 + 2**23
    assert waiting.path.stat().st_size > 2**25


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

    waiting.put(["b"])
    assert not gone.is_set()
    threading.Timer(0.2, leave).start()

    waiting.put(["c", "d"])

    assert gone.is_set()
    assert rows_of(waiting) == ["a", "b", "c", "d"]
    stranger.close()


def test_a_spool_that_waits_for_the_disk_keeps_the_same_rows(tmp_path: Path) -> None:
    waiting = Spool(tmp_path / "spool.db", 10, power_cut_safe=True)

    waiting.put(["a", "b"])

    assert rows_of(waiting) == ["a", "b"]


# --- the journal, which takes rows that come one at a time ---


def journal(waiting: Spool) -> Path:
    return waiting.path.with_name(f"{waiting.path.name}.journal")


def test_rows_that_came_alone_and_together_keep_their_order(tmp_path: Path) -> None:
    one, other = spool(tmp_path), spool(tmp_path)
    one.put(["a"])
    other.put(["b"])
    one.put(["c"])
    other.put(["d", "e"])
    one.put(["two\nlines"])
    other.put([""])

    assert rows_of(one) == ["a", "b", "c", "d", "e", "two\nlines", ""]


def test_a_journal_that_was_read_and_not_cleared_counts_once(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    for row in "abc":
        waiting.put([row])
    before = journal(waiting).read_bytes()
    assert len(waiting) == 3  # moves them
    # As a kill between the two steps leaves it.
    journal(waiting).write_bytes(before)
    waiting.put(["d"])

    assert rows_of(spool(tmp_path)) == ["a", "b", "c", "d"]


def test_a_row_that_was_cut_off_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = spool(tmp_path)
    for row in ("first", "a", "b"):
        waiting.put([row])
    whole = journal(waiting).read_bytes()
    journal(waiting).write_bytes(whole[:-5])
    waiting.put(["c"])

    assert rows_of(waiting) == ["first", "a", "c"]
    assert "1 rows" in caplog.text


def test_a_journal_that_was_cut_off_in_its_first_bytes_takes_rows(
    tmp_path: Path,
) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a"])
    journal(waiting).write_bytes(b"0123")
    waiting.put(["b"])

    assert rows_of(spool(tmp_path)) == ["a", "b"]


def test_a_journal_that_is_taken_away_is_begun_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = spool(tmp_path)
    waiting.put(["a"])
    waiting.put(["lost"])
    journal(waiting).unlink()
    waiting.put(["b"])

    assert rows_of(waiting) == ["a", "b"]
    assert "taken away" in caplog.text


def test_a_journal_does_not_grow_for_ever(tmp_path: Path) -> None:
    waiting = spool(tmp_path)
    rows = [f"{number}:{'x' * 10_000}" for number in range(500)]

    for row in rows:
        waiting.put([row])
        assert journal(waiting).stat().st_size < 2**21

    assert rows_of(waiting) == rows


def test_processes_count_what_waits_together(tmp_path: Path) -> None:
    one, other = spool(tmp_path, max_rows=4), spool(tmp_path, max_rows=4)
    one.put(["a"])
    other.put(["b"])
    one.put(["c"])
    other.put(["d"])
    for waiting in (one, other):
        with pytest.raises(SpoolFullError, match="holds 4 of at most 4"):
            waiting.put(["e"])

    claim = one.claim(2)
    assert claim is not None
    one.done(claim)
    other.put(["e"])
    other.put(["f"])
    with pytest.raises(SpoolFullError):
        one.put(["g"])
    assert rows_of(one) == ["c", "d", "e", "f"]


def test_a_full_disk_takes_no_part_of_a_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran = worker("fill_the_journal", tmp_path)

    *acknowledged, told, last = ran.stdout.splitlines()
    assert "disk is full or failing" in told
    assert last == "last"
    assert len(acknowledged) > 10
    assert rows_of(spool(tmp_path)) == [*acknowledged, "last"]
    assert "cut off" not in caplog.text
