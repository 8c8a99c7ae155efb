"""Nothing acknowledged is lost, nothing is counted twice: the tests count rows."""

import json
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.services.telemetry.workers import (
    NOON,
    ROOT,
    SETTINGS,
    FolderSink,
    collector,
    delivered,
    prediction,
    spool,
)

from active_learning.errors import (
    DataError,
    ImageError,
    ImageIdError,
    PredictionsError,
    SchemaError,
    SettingsError,
    SinkAwayError,
    SpoolFullError,
)
from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.writing import png_bytes
from active_learning.services.telemetry.collector import (
    Collector,
    CollectorSettings,
    Prediction,
)
from active_learning.services.telemetry.parts import Parts
from active_learning.services.telemetry.rows import predictions_table

PNG = png_bytes(np.zeros((4, 4), dtype=np.uint8), 1)


STARTED: list[subprocess.Popen[str]] = []


def worker(name: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.services.telemetry.workers", name]
    started = subprocess.Popen(
        [*command, str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    STARTED.append(started)
    return started


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen in 60 s"
        time.sleep(0.005)


def drain(folder: Path) -> None:
    with collector(folder) as collecting:
        while collecting.drain_once():
            pass


def answer(**changed: Any) -> Prediction:
    arguments: dict[str, Any] = {
        "image_id": "a.png",
        "probabilities": [0.25, 0.75],
        "classes": ["cat", "dog"],
        "model_name": "small_cnn",
        "model_version": 1,
        "source": "online",
        "scored_at": NOON,
    }
    return Prediction.of(**{**arguments, **changed})


def frame(n: int, **changed: Any) -> pa.Table:
    arguments: dict[str, Any] = {
        "image_ids": [f"{row:04}.png" for row in range(n)],
        "probabilities": np.tile([0.25, 0.75], (n, 1)),
        "classes": ["cat", "dog"],
        "model_name": "small_cnn",
        "model_version": 1,
        "source": "batch",
        "scored_at": NOON,
        "prediction_ids": [f"{row:04}" for row in range(n)],
    }
    return predictions_table(**{**arguments, **changed})


def slow(**changed: float) -> CollectorSettings:
    """The thread does not get to a second batch by itself."""
    return CollectorSettings(**{**SETTINGS.model_dump(), "linger_s": 3600, **changed})


# --- a killed process ---


def test_what_a_killed_process_acknowledged_is_in_the_table_once(
    tmp_path: Path,
) -> None:
    moments = random.Random(0)
    acknowledged: list[str] = []
    n_kills = 6
    for kill in range(n_kills):
        process = worker("collect", tmp_path, f"run-{kill}", "1000000")
        assert process.stdout is not None
        lines = range(1 + moments.randrange(400))
        acknowledged += [process.stdout.readline().strip() for _ in lines]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.read().splitlines()
        process.wait()

    drain(tmp_path)

    found = delivered(tmp_path)
    assert len(acknowledged) > 10 * n_kills
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    # One may have been kept and its acknowledgement killed.
    assert len(found) <= len(acknowledged) + n_kills


def test_a_batch_that_was_appended_and_not_noted_down_counts_once(
    tmp_path: Path,
) -> None:
    waiting = spool(tmp_path)
    waiting.put([prediction(f"{n:02}").to_json() for n in range(30)])

    for _ in range(3):
        assert worker("die_after_append", tmp_path).wait() == -signal.SIGKILL
        waiting.put([prediction(f"later-{len(waiting)}").to_json()])
    drain(tmp_path)

    first = [f"{n:02}" for n in range(30)]
    assert delivered(tmp_path) == [*first, "later-30", "later-31", "later-32"]


def test_four_processes_share_a_spool(tmp_path: Path) -> None:
    processes = [worker("collect", tmp_path, f"{n}", "300") for n in range(4)]

    acknowledged = [
        name for process in processes for name in process.communicate()[0].split()
    ]
    drain(tmp_path)

    assert [process.returncode for process in processes] == [0] * 4
    assert len(acknowledged) == 1200
    assert delivered(tmp_path) == sorted(acknowledged)


def test_forked_workers_and_their_parent_lose_nothing(tmp_path: Path) -> None:
    said, _ = worker("fork", tmp_path).communicate()

    drain(tmp_path)

    assert sorted(said.splitlines()) == ["0: True", "1: True", "2: True"]
    of_children = {f"child-{child}-{n}" for child in range(3) for n in range(100)}
    of_parent = {"before", *(f"parent-{n}" for n in range(100))}
    found = delivered(tmp_path)
    assert len(found) == len(set(found))
    assert set(found) == of_children | of_parent


def test_a_delivery_imports_nothing_that_a_fork_would_cut_in_two(
    tmp_path: Path,
) -> None:
    said, _ = worker("deliver", tmp_path).communicate(timeout=120)

    assert said == "imported: []\n"


def test_a_fork_under_load_leaves_no_lock_behind(tmp_path: Path) -> None:
    said, _ = worker("fork_under_load", tmp_path).communicate(timeout=120)

    drain(tmp_path)

    assert said.split() == [f"child-{n}" for n in range(20)]
    assert set(said.split()) <= set(delivered(tmp_path))


def test_a_child_delivers_what_its_killed_parent_was_delivering(
    tmp_path: Path,
) -> None:
    said, _ = worker("fork_while_delivering", tmp_path).communicate(timeout=120)

    assert said == "delivered\n"
    assert delivered(tmp_path) == ["a"]


# --- the table is away, the spool is full, the clock jumps ---


def test_a_table_that_was_away_gets_every_row_in_order(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    names = [f"{n:03}" for n in range(100)]
    with collector(tmp_path, sink) as collecting:
        for name in names:
            collecting.collect(prediction(name))
        wait_for(lambda: sink.attempts >= 3)
        assert collecting.status()["waiting"] == 100

        sink.away = False
        wait_for(lambda: not collecting.status()["waiting"])

        assert collecting.status()["delivered"] == 100
    assert sink.ids == names
    assert delivered(tmp_path) == names


def test_a_table_that_is_away_is_asked_ever_less_often(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    with collector(tmp_path, sink) as collecting:
        began = time.monotonic()
        collecting.collect(prediction("a"))
        wait_for(lambda: sink.attempts > 8)

        # From 10 ms up to 100 ms, never more than twice as soon.
        at_least_s = 0.005 + 0.01 + 0.02 + 0.04 + 4 * 0.05
        assert time.monotonic() - began >= at_least_s


def test_no_secret_gets_into_a_health_check(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    with collector(tmp_path, sink) as collecting:
        collecting.collect(prediction("a"))
        wait_for(lambda: collecting.status()["last_error"])

        assert collecting.status()["last_error"] == "SinkAwayError"
        assert "secret" not in json.dumps(collecting.status())


def test_a_full_spool_is_told_and_collects_again_when_it_was_drained(
    tmp_path: Path,
) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    collecting = Collector(spool(tmp_path, max_rows=2), sink, SETTINGS)
    collecting.collect(prediction("a"))
    collecting.collect(prediction("b"))
    with pytest.raises(SpoolFullError, match="holds 2 of at most 2"):
        collecting.collect(prediction("c"))

    sink.away = False
    wait_for(lambda: not collecting.status()["waiting"])
    collecting.collect(prediction("d"))
    collecting.close(10)

    assert delivered(tmp_path) == ["a", "b", "d"]


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path) -> None:
    process = worker("jump_back", tmp_path)

    names, closed = process.communicate(timeout=120)[0].splitlines()

    assert names.split(",") == [f"{n:02}" for n in range(50)]
    assert closed == "in time"


def test_closing_delivers_what_waits(tmp_path: Path) -> None:
    collecting = Collector(spool(tmp_path), FolderSink(tmp_path), slow())
    for n in range(50):
        collecting.collect(prediction(f"{n:02}"))

    assert collecting.close(timeout_s=60) == 0

    assert len(delivered(tmp_path)) == 50


def test_closing_says_how_many_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FolderSink(tmp_path)
    sink.away = True
    collecting = Collector(spool(tmp_path), sink, slow(back_off_max_s=3600))
    for name in "abc":
        collecting.collect(prediction(name))

    assert collecting.close(timeout_s=60) == 3

    assert "3 predictions stay" in caplog.text
    drain(tmp_path)
    assert delivered(tmp_path) == ["a", "b", "c"]


def test_a_sink_that_hangs_does_not_hold_up_closing(tmp_path: Path) -> None:
    closed = threading.Event()

    class Hanging(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            assert closed.wait(60), "closing waited for the sink"
            raise SinkAwayError("It took too long.")

    collecting = collector(tmp_path, Hanging(tmp_path))
    collecting.collect(prediction("a"))

    assert collecting.close(timeout_s=0.2) == 1

    closed.set()


def test_another_process_delivers_what_a_dead_one_left(tmp_path: Path) -> None:
    spool(tmp_path).put([prediction(f"{n:02}").to_json() for n in range(50)])

    with collector(tmp_path) as collecting:
        sizes = [collecting.drain_once() for _ in range(4)]

    assert sizes == [20, 20, 10, 0]
    assert len(delivered(tmp_path)) == 50


# --- rows that do not fit ---


def test_a_spooled_row_that_is_no_prediction_does_not_hold_up_the_rest(
    tmp_path: Path,
) -> None:
    good = prediction("good").to_json()
    poison = {
        "no json": "damaged",
        "a stranger": json.dumps({**json.loads(good), "extra": 1}),
        "NaN": good.replace("0.25", "NaN"),
        "no sum": good.replace("0.25", "0.5"),
        "two in one": f"{good}\n{good}",
        "climbing": good.replace("good.png", "../good.png"),
        "empty": "",
    }
    waiting = spool(tmp_path)
    waiting.put([good, *poison.values(), prediction("too").to_json()])

    with collector(tmp_path) as collecting:
        assert collecting.drain_once() == len(poison) + 2

        assert collecting.status()["rejected"] == len(poison)
        assert collecting.status()["delivered"] == 2
    assert [row for row, _ in waiting.rejected()] == list(poison.values())
    assert all(reason for _, reason in waiting.rejected())
    assert delivered(tmp_path) == ["good", "too"]


def test_answers_of_several_models_become_the_rows_that_batches_make_of_them(
    tmp_path: Path,
) -> None:
    three = {
        "classes": ["cat", "dog", "owl"],
        "probabilities": [0.1, 0.2, 0.7],
        "model_version": 2,
    }
    with collector(tmp_path) as collecting:
        collecting.collect(answer(prediction_id="0000"))
        collecting.collect(answer(**three, prediction_id="0001"))
        collecting.collect(answer(prediction_id="0002"))
        collecting.drain_once()

    of_two = frame(1, image_ids=["a.png"], source="online")
    probabilities = np.array([three.pop("probabilities")])
    of_three = frame(
        1,
        **three,
        image_ids=["a.png"],
        probabilities=probabilities,
        prediction_ids=["0001"],
        source="online",
    )
    read = Parts(tmp_path / "predictions", "predictions").read()
    read = read.sort_by("prediction_id")
    assert read.slice(0, 1) == of_two
    assert read.slice(1, 1) == of_three
    assert read.slice(2).drop_columns("prediction_id") == of_two.drop_columns(
        "prediction_id"
    )


def test_a_row_that_an_earlier_version_spooled_is_delivered(tmp_path: Path) -> None:
    [row] = frame(1).to_pylist()
    row["scored_at"] = row["scored_at"].isoformat().replace("+00:00", "Z")
    spool(tmp_path).put([json.dumps(row)])

    drain(tmp_path)

    assert Parts(tmp_path / "predictions", "predictions").read() == frame(1)


def test_two_rows_in_one_text_are_not_taken_for_two_texts(tmp_path: Path) -> None:
    good = prediction("good").to_json()
    waiting = spool(tmp_path)
    waiting.put(["", f"{good}\n{good.replace('good', 'too')}"])

    drain(tmp_path)

    assert len(waiting.rejected()) == 2


def test_a_row_that_the_table_refuses_does_not_hold_up_the_rest(
    tmp_path: Path,
) -> None:
    class Choosy(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            wrong = [n for n in rows["prediction_id"].to_pylist() if n in "cf"]
            if wrong:
                raise SchemaError(f"no {wrong}")
            super().append(table, rows, batch)

    waiting = spool(tmp_path)
    waiting.put([prediction(name).to_json() for name in "abcdefg"])

    with Collector(waiting, Choosy(tmp_path), SETTINGS) as collecting:
        collecting.drain_once()

    assert [reason for _, reason in waiting.rejected()] == ["no ['c']", "no ['f']"]
    assert delivered(tmp_path) == list("abdeg")


def test_a_retry_counts_once(tmp_path: Path) -> None:
    with collector(tmp_path) as collecting:
        for _ in range(3):
            assert collecting.collect(prediction("a")) == "a"

    table = Parts(tmp_path / "predictions", "predictions").read()
    assert table["prediction_id"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("changed", "error", "told"),
    [
        ({"probabilities": [math.nan, 1.0]}, PredictionsError, "sum to nan"),
        ({"probabilities": [0.5, 0.6]}, PredictionsError, "sum to 1.100.*softmax"),
        ({"probabilities": [-0.1, 1.1]}, PredictionsError, "lowest value is -0.1"),
        ({"probabilities": [1.0]}, PredictionsError, "1 probabilities for 2 classes"),
        ({"probabilities": [], "classes": []}, PredictionsError, "for 0 classes"),
        ({"image_id": "../a.png"}, ImageIdError, "climbs"),
        ({"image_id": ""}, ImageIdError, "empty"),
        ({"prediction_id": ""}, SchemaError, "empty prediction_id"),
        ({"scored_at": datetime(2000, 1, 1)}, SchemaError, "time zone"),
    ],
)
def test_an_answer_that_is_none_is_refused(
    changed: dict[str, Any], error: type[DataError], told: str
) -> None:
    with pytest.raises(error, match=told):
        answer(**changed)


def test_an_answer_becomes_the_row_that_a_batch_makes_of_it(tmp_path: Path) -> None:
    odd = {
        "image_id": 'it\'s a "b"/日.png',
        "model_name": 'x" | take 0 //',
        "classes": ["'; drop table predictions", "hund\n"],
        "probabilities": [0.1 + 0.2, 1 - (0.1 + 0.2)],
    }
    with collector(tmp_path) as collecting:
        collecting.collect(answer(**odd, prediction_id="0000"))

    del odd["image_id"], odd["probabilities"]
    expected = frame(
        1,
        **odd,
        image_ids=['it\'s a "b"/日.png'],
        probabilities=np.array([[0.1 + 0.2, 1 - (0.1 + 0.2)]]),
        source="online",
    )
    assert Parts(tmp_path / "predictions", "predictions").read() == expected


# --- images ---


def test_an_image_is_archived_before_its_row_is_delivered(tmp_path: Path) -> None:
    seen: list[bytes] = []

    class Looking(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            names = rows["image_id"].to_pylist()
            seen.extend((tmp_path / "images" / name).read_bytes() for name in names)
            super().append(table, rows, batch)

    archive = ImageArchive(str(tmp_path / "images"))
    with Collector(spool(tmp_path), Looking(tmp_path), SETTINGS, archive) as collecting:
        collecting.collect(answer(image_id=None), image=PNG)

    assert seen == [PNG]


def test_the_row_of_an_archived_image_draws_by_its_own_name(tmp_path: Path) -> None:
    archive = ImageArchive(str(tmp_path / "images"))
    waiting = spool(tmp_path)
    with Collector(waiting, FolderSink(tmp_path), SETTINGS, archive) as collecting:
        collecting.collect(answer(image_id="a.png", prediction_id="a"), image=PNG)

    row = Parts(tmp_path / "predictions", "predictions").read().to_pylist()[0]
    [expected] = frame(1, image_ids=[row["image_id"]])["sampling_key"].to_pylist()
    assert row["image_id"].startswith("archive/")
    assert row["sampling_key"] == expected


@pytest.mark.parametrize(
    ("image", "root", "error"),
    [
        (b"no image", "images", ImageError),
        (PNG, None, SettingsError),
        (None, "images", ImageIdError),
    ],
    ids=["no image", "no archive", "no name"],
)
def test_a_prediction_whose_image_cannot_be_kept_is_not_acknowledged(
    tmp_path: Path,
    image: bytes | None,
    root: str | None,
    error: type[Exception],
) -> None:
    archive = ImageArchive(str(tmp_path / root)) if root else None
    waiting = spool(tmp_path)
    collecting = Collector(waiting, FolderSink(tmp_path), SETTINGS, archive)

    with pytest.raises(error):
        collecting.collect(answer(image_id=None), image)

    assert len(waiting) == 0


# --- many at once ---


@pytest.mark.parametrize(
    "form", [lambda t: t, pa.Table.to_pandas], ids=["Arrow", "pandas"]
)
def test_a_frame_that_is_sent_twice_counts_once(
    tmp_path: Path, form: Callable[[pa.Table], pa.Table | pd.DataFrame]
) -> None:
    rows = frame(250)
    with collector(tmp_path) as collecting:
        assert collecting.collect_batch(form(rows)) == 250
        assert collecting.collect_batch(form(rows)) == 250

    assert len(Parts(tmp_path / "predictions", "predictions").current()) == 3
    assert delivered(tmp_path) == rows["prediction_id"].to_pylist()
    read = Parts(tmp_path / "predictions", "predictions").read()
    assert read.sort_by("prediction_id") == rows


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"probabilities": np.tile([0.5, 0.6], (150, 1))}, PredictionsError),
        ({"image_ids": ["../a.png"] * 150}, ImageIdError),
        ({"prediction_ids": ["a"] * 150}, SchemaError),
    ],
)
def test_a_frame_with_a_wrong_row_is_not_appended_at_all(
    tmp_path: Path, changed: dict[str, Any], error: type[DataError]
) -> None:
    with collector(tmp_path) as collecting, pytest.raises(error):
        collecting.collect_batch(frame(150, **changed))

    assert delivered(tmp_path) == []


def test_a_frame_goes_past_a_spool_that_is_full(tmp_path: Path) -> None:
    waiting = spool(tmp_path, max_rows=1)
    waiting.put(["{}"])

    Collector(waiting, FolderSink(tmp_path), SETTINGS).collect_batch(frame(10))

    assert len(delivered(tmp_path)) == 10


def test_settings_that_cannot_hold_together_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        slow(back_off_min_s=2, back_off_max_s=1)


def test_no_process_is_left_behind() -> None:
    assert [each.args for each in STARTED if each.returncode is None] == []
