"""One export, one run: whatever is touched, copied, repeated, killed or failing."""

import logging
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.services.triggers.builders import Day, put, touch

from active_learning.services.triggers.ledger import read_ledger


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "exports"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "watch" / "exports.json"


def write(
    place: Path, name: str, content: str = "image_id,label\n"
) -> Callable[[], object]:
    return lambda: put(place, name, content)


def test_a_new_export_starts_one_run_once_it_has_settled(
    place: Path, ledger: Path
) -> None:
    day = Day(place, ledger, {5: write(place, "a.csv")})

    assert len(day.until(100)) == 1
    seen = next(second for second in day.looks if second >= 5)
    assert day.runs[0] >= seen + 3
    assert set(read_ledger(ledger).taken_in) == {"a.csv"}


def test_there_may_be_no_place_yet(place: Path, ledger: Path) -> None:
    assert Day(place, ledger).until(20) == []


def test_exports_that_come_together_start_one_run(place: Path, ledger: Path) -> None:
    day = Day(
        place,
        ledger,
        {
            0: write(place, "a.csv", "1"),
            2: write(place, "coco/labels.json", "2"),
            4: write(place, "b.csv", "3"),
        },
    )

    assert len(day.until(60)) == 1
    assert day.runs[0] >= 7
    assert len(read_ledger(ledger).taken_in) == 3


def test_an_export_that_grows_is_waited_for(place: Path, ledger: Path) -> None:
    grows = {second: write(place, "a.csv", "x" * second) for second in range(1, 13)}
    day = Day(place, ledger, dict(grows))

    (began,) = day.until(60)

    assert began >= 15


def test_what_changes_while_it_is_read_has_not_settled(
    place: Path, ledger: Path
) -> None:
    put(place, "a.csv", "half")
    day = Day(place, ledger)
    writes = [(place / "a.csv").unlink, write(place, "a.csv", "whole")]

    def meanwhile() -> None:
        if writes:
            writes.pop()()

    day.reading = meanwhile

    # It is taken away while it is read for the second time.
    assert day.until(30) == []

    put(place, "a.csv", "whole")
    (began,) = day.until(60)
    assert began >= 33


def test_one_that_never_settles_does_not_hold_up_the_others_for_ever(
    place: Path, ledger: Path
) -> None:
    grows = {
        float(second): write(place, "log.csv", "x" * second) for second in range(1, 41)
    }
    day = Day(place, ledger, {**grows, 0: write(place, "a.csv", "whole")})

    first, last = day.until(100)

    assert 20 <= first <= 21
    assert last >= 43
    assert set(read_ledger(ledger).taken_in) == {"a.csv", "log.csv"}


def test_the_same_again_starts_nothing(place: Path, ledger: Path) -> None:
    day = Day(
        place,
        ledger,
        {
            0: write(place, "a.csv", "monday"),
            20: lambda: touch(place / "a.csv"),
            40: write(place, "again.csv", "monday"),
            60: (place / "a.csv").unlink,
            80: write(place, "a.csv", "monday"),
            100: write(place, "old/a.csv", "monday"),
        },
    )

    assert len(day.until(200)) == 1


def test_why_nothing_starts_is_said(
    place: Path, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    happens = {
        0: write(place, "a.csv", "monday"),
        20: lambda: touch(place / "a.csv"),
        40: write(place, "b.csv", "monday"),
    }

    with caplog.at_level(logging.INFO, "active_learning"):
        Day(place, ledger, happens).until(80)

    assert "A run takes in a.csv" in caplog.text
    assert caplog.text.count("a.csv was written again with what it held: no run") == 1
    assert caplog.text.count("b.csv holds the same as a.csv") == 1


def test_a_changed_export_starts_another_run(place: Path, ledger: Path) -> None:
    day = Day(
        place,
        ledger,
        {
            0: write(place, "a.csv", "cat"),
            20: write(place, "a.csv", "dog"),
            40: write(place, "a.csv", "cat"),
        },
    )

    assert len(day.until(80)) == 3


def test_an_image_in_another_class_folder_is_another_label(
    place: Path, ledger: Path
) -> None:
    day = Day(
        place,
        ledger,
        {
            0: write(place, "sorted/cat/1.png", "image"),
            20: write(place, "sorted/dog/1.png", "image"),
            40: write(place, "cat/1.png", "image"),
            60: write(place, "dog/1.png", "image"),
        },
    )

    assert len(day.until(100)) == 4
    assert set(read_ledger(ledger).taken_in) == {"sorted", "cat", "dog"}


def test_hidden_files_are_no_exports(place: Path, ledger: Path) -> None:
    put(place, ".gitkeep")
    put(place, ".tmp/a.csv")

    assert Day(place, ledger).until(30) == []


def test_a_watcher_that_starts_again_knows_what_was_taken_in(
    place: Path, ledger: Path
) -> None:
    put(place, "a.csv", "monday")
    assert len(Day(place, ledger).until(30)) == 1

    assert Day(place, ledger).until(30) == []

    put(place, "b.csv", "tuesday")
    assert len(Day(place, ledger).until(30)) == 1


def test_a_run_that_was_killed_is_run_again(place: Path, ledger: Path) -> None:
    put(place, "a.csv")
    day = Day(place, ledger)

    def die() -> None:
        raise SystemExit(9)

    day.during = die
    with pytest.raises(SystemExit):
        day.until(30)

    assert len(Day(place, ledger).until(30)) == 1
    assert Day(place, ledger).until(30) == []


def test_a_run_that_was_interrupted_is_not_held_against_it(
    place: Path, ledger: Path
) -> None:
    put(place, "a.csv")
    for _ in range(5):
        assert len(Day(place, ledger, codes=(None,)).until(30)) == 1

    assert len(Day(place, ledger).until(30)) == 1


def test_what_changes_during_a_run_starts_another(place: Path, ledger: Path) -> None:
    put(place, "a.csv", "half")
    day = Day(place, ledger)

    def finish() -> None:
        if len(day.runs) == 1:
            put(place, "a.csv", "half and half")
            put(place, "b.csv", "more")

    day.during = finish

    assert len(day.until(60)) == 2


def test_a_failed_run_is_tried_again_ever_later_and_then_set_aside(
    place: Path, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(place, "bad.csv")
    day = Day(place, ledger, codes=(1, 1, 7), poll_max_s=1)

    assert len(day.until(300)) == 3

    first, second, third = day.runs
    assert (second - first, third - second) == (10, 15)
    assert (
        "exit code 1; what was wrong is above. bad.csv will be tried again in 10 s"
        in (caplog.text)
    )
    (said,) = [r.getMessage() for r in caplog.records if "set aside" in r.getMessage()]
    assert said.startswith("bad.csv set aside: 3 runs have failed with it")
    assert "exit code 7" in said
    assert "kedro run --pipelines label-ingest,train,deploy" in said
    # Nor is it tried when a watcher starts again, or when it is touched.
    touch(place / "bad.csv")
    assert Day(place, ledger).until(60) == []


def test_what_was_set_aside_is_taken_in_when_it_is_changed(
    place: Path, ledger: Path
) -> None:
    put(place, "bad.csv", "bad")
    Day(place, ledger, codes=(1, 1, 1)).until(60)
    put(place, "bad.csv", "mended")

    assert len(Day(place, ledger, codes=(1,)).until(60)) == 2
    assert not read_ledger(ledger).failed


def test_what_was_set_aside_is_taken_in_with_the_next(
    place: Path, ledger: Path
) -> None:
    put(place, "bad.csv", "bad")
    Day(place, ledger, codes=(1, 1, 1)).until(60)
    put(place, "good.csv", "good")

    assert len(Day(place, ledger).until(30)) == 1
    assert set(read_ledger(ledger).taken_in) == {"bad.csv", "good.csv"}
    assert not read_ledger(ledger).failed


def test_a_new_export_does_not_wait_for_another_try(place: Path, ledger: Path) -> None:
    put(place, "bad.csv", "bad")
    happens = {8: write(place, "good.csv", "good")}
    day = Day(
        place, ledger, happens, codes=(1,), retry_s=1000, retry_max_s=1000, poll_max_s=1
    )

    assert len(day.until(40)) == 2
    assert day.runs[1] < 20


def test_looks_become_rare_while_nothing_comes(place: Path, ledger: Path) -> None:
    day = Day(place, ledger, {50: write(place, "a.csv")})
    day.until(100)

    quiet = [b - a for a, b in zip(day.looks, day.looks[1:], strict=False) if b < 50]
    assert quiet[0] == 1
    assert max(quiet) == quiet[-1] == 4
    assert quiet == sorted(quiet)
    came = next(second for second in day.looks if second >= 50)
    assert came + 1 in day.looks


@pytest.mark.parametrize("codes", [(), (3,)])
def test_once_runs_and_ends_with_the_runs_code(
    place: Path, ledger: Path, codes: tuple[int, ...]
) -> None:
    put(place, "a.csv")
    day = Day(place, ledger, codes=codes)
    day._end = 100

    assert day.watcher.once() == (codes[0] if codes else 0)
    assert len(day.runs) == 1
    assert day.now >= 3


def test_once_ends_well_where_there_is_nothing(place: Path, ledger: Path) -> None:
    day = Day(place, ledger)

    assert day.watcher.once() == 0
    assert (day.runs, day.now) == ([], 0)


def test_once_says_when_it_was_ended_before(place: Path, ledger: Path) -> None:
    put(place, "a.csv")

    assert Day(place, ledger).watcher.once() == 130


class Moody(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that cannot be reached at times."""

    protocol = "moody"
    away = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("moody://")))

    def info(self, path: str, **kwargs: object) -> object:
        self._answer()
        return super().info(path, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: object) -> object:
        self._answer()
        return super().ls(path, detail, **kwargs)

    def _answer(self) -> None:
        if Moody.away:
            raise OSError("no route to host")


def test_any_store_is_a_place_and_one_that_is_away_is_waited_for(
    ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.register_implementation("moody", Moody, clobber=True)
    store = Moody()

    def come(away: bool) -> Callable[[], object]:
        return lambda: setattr(Moody, "away", away)

    happens = {
        0: lambda: store.pipe_file("/exports/a.csv", b"monday"),
        10: come(True),
        30: come(False),
        32: lambda: store.pipe_file("/exports/b.csv", b"monday"),
        50: lambda: store.pipe_file("/exports/a.csv", b"tuesday"),
    }
    try:
        with caplog.at_level(logging.INFO, "active_learning"):
            runs = Day("moody://exports", ledger, happens).until(100)
    finally:
        Moody.away = False
        store.store.clear()

    assert len(runs) == 2
    assert caplog.text.count("cannot be reached") == 1
    assert caplog.text.count("can be reached again") == 1
