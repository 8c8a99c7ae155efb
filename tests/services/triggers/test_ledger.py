"""Who tells of an export does not matter: the ledger knows what was taken in."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from active_learning.errors import DataError
from active_learning.services.triggers.ledger import (
    Identity,
    Ledger,
    exclusive,
    read_ledger,
    write_ledger,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BLOB = Identity("Labeling/export/labels.json", "0x8D", "digest of monday")


def test_an_event_that_comes_twice_is_known_the_second_time() -> None:
    ledger = Ledger()
    assert not ledger.is_unchanged(BLOB.name, BLOB.stamp)

    after = ledger.after_success([BLOB], NOW)

    assert after.is_unchanged(BLOB.name, BLOB.stamp)
    assert not after.is_unchanged(BLOB.name, "0x8E")
    assert after.original(BLOB.digest) == BLOB.name
    assert after.original("digest of tuesday") is None


def test_failures_count_for_the_content_they_were_met_with() -> None:
    touched = BLOB._replace(stamp="0x8E")
    changed = BLOB._replace(digest="digest of tuesday")

    ledger = Ledger().after_failure([BLOB]).after_failure([touched])

    assert ledger.n_failed(BLOB) == ledger.n_failed(touched) == 2
    assert ledger.n_failed(changed) == 0
    assert ledger.after_failure([changed]).n_failed(changed) == 1
    assert ledger.after_success([BLOB], NOW).n_failed(BLOB) == 0


def test_it_is_in_the_file_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "watch" / "exports.json"
    ledger = Ledger().after_success([BLOB], NOW).after_failure([BLOB])

    assert read_ledger(path) == Ledger()
    write_ledger(path, ledger)

    assert read_ledger(path) == ledger
    assert [file.name for file in path.parent.iterdir()] == ["exports.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"taken_in": {"a": 1}}'])
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    path = tmp_path / "exports.json"
    path.write_text(content)

    with pytest.raises(DataError, match=r"(?s)exports\.json.*Remove it"):
        read_ledger(path)


def test_two_do_not_keep_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "exports.json"

    with exclusive(path), pytest.raises(DataError, match="Another process"):
        exclusive(path).__enter__()

    with exclusive(path):
        pass


def test_a_run_keeps_others_away_after_its_starter_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "exports.json"
    with exclusive(path) as lock:
        run = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )

    with pytest.raises(DataError, match="Another process"):
        exclusive(path).__enter__()

    run.communicate(b"\n")
    with exclusive(path):
        pass
