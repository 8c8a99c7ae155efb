"""Every row once, to every reader, whoever is killed: the tests count rows.

The processes that they kill are in this file too: it runs itself.
"""

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from active_learning.datasets import TableDataset
from active_learning.errors import QueryError, SchemaError, SinkAwayError
from active_learning.schemas import PREDICTIONS, REJECTED_LABELS, TABLES
from active_learning.services.telemetry.local import LocalTelemetry
from active_learning.services.telemetry.parts import Parts

ROOT = Path(__file__).parents[3]
NOON = pd.Timestamp("2000-01-01T12:00", tz="UTC")
TABLE = "predictions"
# What stands in the table, and how many rows it takes: equal if nothing is double.
COUNT = """
predictions
| summarize n = count() by prediction_id
| summarize ids = count(), n_rows = sum(n)
"""


def rows(*names: str) -> pa.Table:
    """One prediction for each name, which is its id."""
    one = {
        "source": "batch",
        "label": "cat",
        "confidence": 0.75,
        "margin": 0.5,
        "entropy": 0.56,
        "sampling_key": 0.5,
        "classes": ["cat", "dog"],
        "probabilities": [0.75, 0.25],
        "model_name": "small_cnn",
        "model_version": 1,
        "scored_at": NOON,
    }
    return pa.Table.from_pylist(
        [{"prediction_id": name, "image_id": f"{name}.png", **one} for name in names],
        schema=PREDICTIONS,
    )


def table(folder: Path) -> Parts:
    return Parts(folder / TABLE, TABLE)


def add(folder: Path, *names: str, of: int = 4) -> None:
    """A part for each name, of so many rows: a/0, a/1, ..."""
    for name in names:
        LocalTelemetry(folder).append(TABLE, rows(*ids(name, of=of)), name)


def ids(*names: str, of: int = 4) -> list[str]:
    return [f"{name}/{number}" for name in names for number in range(of)]


def found(folder: Path) -> list[str]:
    """Ids of all rows in all parts: one that lies there twice is told twice."""
    return sorted(
        name
        for part in table(folder).current()
        for name in pq.read_table(part)["prediction_id"].to_pylist()
    )


def read(folder: Path) -> list[str]:
    return sorted(table(folder).read()["prediction_id"].to_pylist())


def asked(folder: Path) -> tuple[int, int]:
    """How many rows stand in the table by KQL, and how many it took."""
    answer = LocalTelemetry(folder).query(COUNT, {})
    return int(answer["ids"].item()), int(answer["n_rows"].fillna(0).item())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / TABLE).iterdir())


def worker(
    name: str, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.services.telemetry.test_parts", name]
    return subprocess.run(
        [*command, str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# --- a killed writer ---


def test_a_writer_that_was_killed_before_its_rename_left_no_row(tmp_path: Path) -> None:
    add(tmp_path, "before")

    assert worker("die_at_append", tmp_path, "0").returncode == -signal.SIGKILL

    half = [name for name in files(tmp_path) if name.endswith(".tmp")]
    assert len(half) == 1
    assert found(tmp_path) == ids("before")
    assert asked(tmp_path) == (4, 4)
    dataset = TableDataset(table=TABLE, path=str(tmp_path / TABLE))
    assert sorted(dataset.load()["prediction_id"]) == ids("before")


@pytest.mark.parametrize("survived_renames", [0, 1])
def test_a_killed_writer_tries_again_and_counts_once(
    survived_renames: int, tmp_path: Path
) -> None:
    killed = worker("die_at_append", tmp_path, str(survived_renames))
    assert killed.returncode == -signal.SIGKILL

    LocalTelemetry(tmp_path).append(TABLE, rows(*ids("batch")), "batch")

    assert found(tmp_path) == ids("batch")
    assert asked(tmp_path) == (4, 4)


def test_what_a_killed_writer_left_is_swept_a_day_later(tmp_path: Path) -> None:
    add(tmp_path, "a")
    old, young = (tmp_path / TABLE / f".{name}.tmp" for name in ("old", "young"))
    old.write_bytes(b"half of a par")
    young.write_bytes(b"half of a par")
    os.utime(old, times=(time.time() - 90_000,) * 2)

    table(tmp_path).compact(at_least=2, target_rows=20, grace_s=0)

    assert young.exists()
    assert not old.exists()


# --- a killed compaction ---


def pile_up(folder: Path) -> list[str]:
    """A table in which the next compaction has all there is to do.

    Two compactions lie behind, the second of which merged the result of the first, and
    nothing is deleted yet: nine parts wait for that. Merging with a target of 20 rows
    makes two groups.
    """
    keep = {"at_least": 2, "target_rows": 20, "grace_s": 3600}
    add(folder, "a", "b", "c")
    table(folder).compact(**keep)
    add(folder, "d")
    table(folder).compact(**keep)
    add(folder, "e", "f", "g", "h")
    return ids(*"abcdefgh")


def finish(folder: Path) -> None:
    """Merge what there is and delete what was merged."""
    for _ in range(2):
        table(folder).compact(at_least=2, target_rows=1000, grace_s=0)


def test_a_compaction_killed_at_any_step_shows_every_row_once(tmp_path: Path) -> None:
    expected = pile_up(tmp_path / "table")

    ran = worker("die_at_every_step", tmp_path)

    # Step by step one more change of the folder was survived, until none was left.
    ends = [int(line) for line in ran.stdout.split()]
    assert ran.returncode == 0, ran.stderr
    assert ends == [-signal.SIGKILL] * (len(ends) - 1) + [0]
    assert len(ends) == 1 + 5 + 2  # a, b, c, d and their first merger; two groups
    for step in range(len(ends)):
        folder = tmp_path / f"{step}"
        assert found(folder) == expected, f"killed at step {step}"
        assert read(folder) == expected
        assert asked(folder) == (len(expected), len(expected))

        finish(folder)

        assert found(folder) == expected, f"finished after step {step}"
        assert len(list((folder / TABLE).glob("*.parquet"))) == 1


def test_what_was_merged_is_kept_until_no_query_can_hold_it(tmp_path: Path) -> None:
    expected = pile_up(tmp_path)
    before = set(files(tmp_path))

    merged = table(tmp_path).compact(at_least=2, target_rows=20, grace_s=3600)

    assert merged == (5, 32, 0, 0)
    assert before < set(files(tmp_path))
    assert found(tmp_path) == expected


def test_few_small_parts_and_all_large_ones_are_left_alone(tmp_path: Path) -> None:
    add(tmp_path, "a", "b", "c")
    add(tmp_path, "large", of=20)
    before = files(tmp_path)

    done = table(tmp_path).compact(at_least=4, target_rows=20, grace_s=0)

    assert done == (0, 0, 0, 0)
    assert files(tmp_path) == sorted([*before, ".compaction.lock"])


def test_a_table_without_a_folder_has_nothing_to_compact(tmp_path: Path) -> None:
    assert table(tmp_path).compact(1, 1, 0) == (0, 0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_of_two_compactions_at_once_one_does_the_work(tmp_path: Path) -> None:
    expected = pile_up(tmp_path)

    ran = worker("compact_in_another_midst", tmp_path)

    assert ran.stdout.splitlines() == ["0 merged by the second", "5 by the first"]
    assert found(tmp_path) == expected


# --- many at once ---


@pytest.mark.parametrize("grace_s", ["0", "1"])
def test_four_append_while_two_read_and_one_compacts(
    grace_s: str, tmp_path: Path
) -> None:
    ran = worker("crowd", tmp_path, grace_s)

    assert ran.returncode == 0, ran.stderr
    said = Counter(line.split()[0] for line in ran.stdout.splitlines())
    assert said["wrong"] == 0, ran.stdout
    assert said["compacted"] >= 2, said
    expected = sorted(ids(*(f"{w}-{n}" for w in range(4) for n in range(N_BATCHES))))
    assert found(tmp_path) == expected
    assert read(tmp_path) == expected
    assert asked(tmp_path) == (len(expected), len(expected))
    finish(tmp_path)
    assert found(tmp_path) == expected


class SweptBehind(Parts):
    """Parts that are merged and deleted once they are listed, before they are read."""

    n_listed = 0

    def current(self) -> list[Path]:
        listed = super().current()
        self.n_listed += 1
        if self.n_listed <= 3:
            Parts(self.folder, self.table).append(rows(f"late {self.n_listed}"))
            for _ in range(2):
                Parts(self.folder, self.table).compact(2, 1000, grace_s=0)
            assert not any(part.exists() for part in listed)
        return listed


def test_a_part_that_is_compacted_away_under_a_reader_is_no_loss(
    tmp_path: Path,
) -> None:
    add(tmp_path, "a", "b")
    parts = SweptBehind(tmp_path / TABLE, TABLE)

    names = parts.read()["prediction_id"].to_pylist()

    assert sorted(names) == [*ids("a", "b"), "late 1", "late 2", "late 3"]
    assert parts.n_listed == 4


def test_a_part_that_is_compacted_away_under_a_query_is_no_loss(
    tmp_path: Path,
) -> None:
    add(tmp_path, "a", "b")
    parts = SweptBehind(tmp_path / TABLE, TABLE)

    class Swept(LocalTelemetry):
        def parts(self, table: str) -> Parts:
            return parts

    assert Swept(tmp_path).query(COUNT, {}).to_numpy().tolist() == [[11, 11]]
    assert parts.n_listed == 4


def test_a_part_that_goes_away_while_footers_are_read_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "a", "b")
    scandir = os.scandir

    def swept_behind(folder: Path) -> list[os.DirEntry[str]]:
        listed = list(scandir(folder))
        monkeypatch.setattr(os, "scandir", scandir)
        finish(tmp_path)
        return listed

    monkeypatch.setattr(os, "scandir", swept_behind)

    assert found(tmp_path) == ids("a", "b")


# --- the same rows twice ---


def test_a_batch_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    add(tmp_path, "a", "b")
    add(tmp_path, "a")

    assert found(tmp_path) == ids("a", "b")


@pytest.mark.parametrize("grace_s", [0, 3600])
def test_a_batch_that_is_sent_again_after_it_was_merged_counts_once(
    grace_s: float, tmp_path: Path
) -> None:
    add(tmp_path, "a", "b")
    for _ in range(2):
        table(tmp_path).compact(at_least=2, target_rows=1000, grace_s=grace_s)

    add(tmp_path, "a")

    assert found(tmp_path) == ids("a", "b")
    assert asked(tmp_path) == (8, 8)
    add(tmp_path, "c")
    finish(tmp_path)
    assert found(tmp_path) == ids("a", "b", "c")


def test_a_row_in_two_parts_is_read_once_and_merged_into_one(tmp_path: Path) -> None:
    telemetry = LocalTelemetry(tmp_path)
    telemetry.append(TABLE, rows("a", "b"), "one")
    telemetry.append(TABLE, rows("b", "c"), "two")

    assert found(tmp_path) == ["a", "b", "b", "c"]
    assert read(tmp_path) == ["a", "b", "c"]
    assert asked(tmp_path) == (3, 4)

    assert table(tmp_path).compact(2, 1000, 0) == (2, 3, 1, 0)
    assert found(tmp_path) == ["a", "b", "c"]
    assert asked(tmp_path) == (3, 3)


def test_rows_without_a_key_are_all_kept(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "rejected_labels")
    twice = pa.Table.from_pylist([{"image_id": "a"}], schema=REJECTED_LABELS)

    parts.append(twice)
    parts.append(twice)
    parts.compact(at_least=2, target_rows=100, grace_s=0)

    assert parts.read().num_rows == 2


def test_an_image_that_is_set_aside_again_counts_once(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "set_aside")
    twice = pa.table({"image_id": ["a"], "reason": ["cut off"]})

    parts.append(twice)
    parts.append(twice)
    parts.compact(at_least=2, target_rows=100, grace_s=0)

    assert parts.read().num_rows == 1


# --- parts that are not as they should be ---


def test_a_truncated_part_is_named_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "a", "b", "c")
    part = tmp_path / TABLE / "b.parquet"
    part.write_bytes(part.read_bytes()[:-100])

    with caplog.at_level(logging.ERROR):
        assert asked(tmp_path) == (8, 8)

    assert "'b.parquet'" in caplog.text
    assert files(tmp_path) == ["a.parquet", "b.parquet.damaged", "c.parquet"]
    assert read(tmp_path) == ids("a", "c")
    finish(tmp_path)
    assert read(tmp_path) == ids("a", "c")
    assert "b.parquet.damaged" in files(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"?" * 40 + b" \0\0\0PAR1"]
)
def test_however_a_part_is_damaged_the_rest_answers(
    content: bytes, tmp_path: Path
) -> None:
    add(tmp_path, "a")
    (tmp_path / TABLE / "b.parquet").write_bytes(content)

    assert found(tmp_path) == ids("a")


def test_what_is_no_file_is_no_part(tmp_path: Path) -> None:
    add(tmp_path, "a")
    (tmp_path / TABLE / "folder.parquet").mkdir()
    (tmp_path / TABLE / "nowhere.parquet").symlink_to(tmp_path / "nowhere")

    assert found(tmp_path) == ids("a")
    assert asked(tmp_path) == (4, 4)


def test_a_part_that_cannot_be_opened_now_is_not_taken_for_a_damaged_one(
    tmp_path: Path,
) -> None:
    add(tmp_path, "a")

    ran = worker("open_too_many_files", tmp_path)

    assert ran.stdout == "Too many open files\n"
    assert files(tmp_path) == ["a.parquet"]


def put(folder: Path, name: str, content: pa.Table) -> None:
    """Write a part as another version of this package would."""
    pq.write_table(content, folder / TABLE / f"{name}.parquet")


def test_a_missing_column_is_null_and_an_extra_one_is_ignored(tmp_path: Path) -> None:
    add(tmp_path, "a", of=1)
    other = rows("b").drop_columns(["sampling_key", "classes"])
    put(tmp_path, "b", other.append_column("mood", pa.array(["good"])))
    question = "predictions | where prediction_id == 'b'"

    answer = LocalTelemetry(tmp_path).query(question, {})
    by_parts = table(tmp_path).read().to_pylist()
    finish(tmp_path)

    assert answer["sampling_key"].isna().all()
    assert list(answer.columns) == PREDICTIONS.names
    assert [row["sampling_key"] for row in by_parts] == [0.5, None]
    assert table(tmp_path).read().to_pylist() == by_parts


def test_a_part_without_the_key_is_named_to_every_reader(tmp_path: Path) -> None:
    add(tmp_path, "a")
    put(tmp_path, "b", rows("b").drop_columns("prediction_id"))
    named = r"b\.parquet.*lacks \['prediction_id'\]"

    with pytest.raises(SchemaError, match=named):
        table(tmp_path).read()
    with pytest.raises(SchemaError, match=named):
        asked(tmp_path)
    with pytest.raises(SchemaError, match=named):
        table(tmp_path).compact(2, 1000, 0)
    (tmp_path / TABLE / "b.parquet").unlink()
    assert read(tmp_path) == ids("a")


def with_versions(values: Sequence[Any], kind: pa.DataType) -> pa.Table:
    content = rows(*(f"other {n}" for n in range(len(values))))
    place = content.column_names.index("model_version")
    return content.set_column(place, "model_version", pa.array(values, kind))


@pytest.mark.parametrize("kind", [pa.int32(), pa.string()])
def test_a_type_that_becomes_ours_is_ours(kind: pa.DataType, tmp_path: Path) -> None:
    add(tmp_path, "a", of=1)
    put(tmp_path, "b", with_versions(pa.array([7]).cast(kind).to_pylist(), kind))
    question = "predictions | summarize highest = max(model_version)"

    assert table(tmp_path).read()["model_version"].to_pylist() == [1, 7]
    answer = LocalTelemetry(tmp_path).query(question, {})
    assert answer["highest"].tolist() == [7]
    assert answer["highest"].dtype == "int64"


def test_a_type_that_does_not_become_ours_stops_every_reader(tmp_path: Path) -> None:
    add(tmp_path, "a", of=1)
    put(tmp_path, "b", with_versions(["seven"], pa.string()))

    with pytest.raises(SchemaError, match=r"b\.parquet.*another type.*seven"):
        table(tmp_path).read()
    with pytest.raises(QueryError, match="seven"):
        LocalTelemetry(tmp_path).query("predictions | project model_version", {})


def test_rows_that_will_never_fit_are_refused(tmp_path: Path) -> None:
    wrong = rows("a").drop_columns("label")

    with pytest.raises(SchemaError, match=r"1 rows do not fit.*label: string"):
        LocalTelemetry(tmp_path).append(TABLE, wrong, "batch")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_part_is_empty_in_kql(name: str, tmp_path: Path) -> None:
    answer = LocalTelemetry(tmp_path).query(name, {})

    assert answer.empty
    assert list(answer.columns) == TABLES[name].schema.names


def test_a_full_disk_leaves_no_part_and_is_worth_another_try(tmp_path: Path) -> None:
    ran = worker("fill_the_disk", tmp_path)

    assert "20000 rows could not be added to 'predictions'" in ran.stdout, ran.stderr
    assert "File too large" in ran.stdout
    assert files(tmp_path) == ["after.parquet", "before.parquet"]
    assert found(tmp_path) == sorted(ids("after", "before"))


# --- the processes ---


def kill_at(step: int) -> None:
    """Die instead of making the change number ``step`` of a file system."""
    replace, unlink, n_made = os.replace, Path.unlink, 0

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def made(*arguments: Any, **options: Any) -> None:
            nonlocal n_made
            if n_made == step:
                os.kill(os.getpid(), signal.SIGKILL)
            n_made += 1
            change(*arguments, **options)

        return made

    os.replace = counted(replace)
    Path.unlink = counted(unlink)  # type: ignore[method-assign]


def say(text: str) -> None:
    """To the test, at once: nothing waits in a buffer that a SIGKILL takes."""
    os.write(1, f"{text}\n".encode())


def child(work: Callable[[], None]) -> int:
    """Run in a process of its own, which has imported everything already."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at_append(folder: Path, survived_renames: str) -> None:
    kill_at(int(survived_renames))
    LocalTelemetry(folder).append(TABLE, rows(*ids("batch")), "batch")
    LocalTelemetry(folder).append(TABLE, rows(*ids("other")), "other")


def die_at_every_step(folder: Path) -> None:
    """Compact a copy of the table and die at step 0, another at step 1, ..."""
    ending, step = -1, 0
    while ending:
        copy = folder / f"{step}"
        shutil.copytree(folder / "table", copy)

        def compact(copy: Path = copy, step: int = step) -> None:
            kill_at(step)
            table(copy).compact(at_least=2, target_rows=20, grace_s=0)

        ending = ended(child(compact))
        say(str(ending))
        step += 1


def compact_in_another_midst(folder: Path) -> None:
    """Compact while another has published a part and is about to publish the next."""
    replace = os.replace

    def interrupted(*arguments: Any) -> None:
        os.replace = replace
        second = table(folder).compact(at_least=2, target_rows=20, grace_s=0)
        say(f"{second.merged} merged by the second")
        replace(*arguments)

    os.replace = interrupted
    first = table(folder).compact(at_least=2, target_rows=20, grace_s=0)
    say(f"{first.merged} by the first")


N_BATCHES = 40


def crowd(folder: Path, grace_s: str) -> None:
    """Four append, two read, one compacts; each is a process."""
    acknowledged = folder / "acknowledged"
    finished = folder / "finished"
    (folder / TABLE).mkdir()
    acknowledged.touch()

    def append(writer: int) -> None:
        for number in range(N_BATCHES):
            add(folder, f"{writer}-{number}")
            # A byte a batch; a file that is only appended to mixes none up.
            with acknowledged.open("ab", buffering=0) as told:
                told.write(b".")
            time.sleep(0.05)

    def watch(name: str, count: Callable[[], tuple[int, int]]) -> None:
        seen, last = 0, False
        while not last:
            last = finished.exists()
            at_least = max(seen, 4 * acknowledged.stat().st_size)
            seen, n_rows = count()
            right = seen == n_rows and seen >= at_least
            say(f"{name if right else 'wrong'} {name} {seen} {n_rows} {at_least}")

    def by_parts() -> tuple[int, int]:
        names = table(folder).read()["prediction_id"].to_pylist()
        return len(set(names)), len(names)

    def compact() -> None:
        while not finished.exists():
            done = table(folder).compact(4, target_rows=200, grace_s=float(grace_s))
            if done.merged:
                say(f"compacted {done}")
            time.sleep(0.01)

    writers = [child(lambda writer=writer: append(writer)) for writer in range(4)]  # type: ignore[misc]
    others = [
        child(lambda: watch("parts", by_parts)),
        child(lambda: watch("kql", lambda: asked(folder))),
        child(compact),
    ]
    endings = [ended(writer) for writer in writers]
    finished.touch()
    endings += [ended(other) for other in others]
    sys.exit(any(endings))


def open_too_many_files(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)
    # One for the list of the folder, none for what stands in it.
    os.close(63)
    entries = list(os.scandir(folder / TABLE))
    os.open(os.devnull, os.O_RDONLY)
    os.scandir = lambda _: entries  # type: ignore[assignment]
    try:
        table(folder).current()
    except OSError as exc:
        say(str(exc.strerror or exc).rsplit("] ", 1)[-1])


def fill_the_disk(folder: Path) -> None:
    """A file may grow to 10 kB and then every write fails, as on a full disk."""
    add(folder, "before")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))
    try:
        LocalTelemetry(folder).append(TABLE, rows(*ids("large", of=20_000)), "large")
    except SinkAwayError as exc:
        say(str(exc))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    add(folder, "after")


WORKERS: dict[str, Callable[..., None]] = {
    work.__name__: work
    for work in (
        compact_in_another_midst,
        crowd,
        die_at_append,
        die_at_every_step,
        fill_the_disk,
        open_too_many_files,
    )
}

if __name__ == "__main__":
    WORKERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
