"""Azure Data Explorer away, throttled, silent or refusing: nothing is lost."""

# ruff: noqa: F811  # a fixture is asked for by the name it was imported by

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.services.telemetry.adx import (
    ROWS,
    SHORT,
    signed_in,  # noqa: F401
    telemetry,
)
from tests.standins import kusto_faults as faults
from tests.standins.azurite import azurite  # noqa: F401
from tests.standins.identity import identity  # noqa: F401
from tests.standins.kusto import Kusto, kusto, queued_kusto  # noqa: F401

from active_learning.errors import (
    SchemaError,
    SinkAwayError,
)
from active_learning.services.telemetry.collector import (
    Collector,
    CollectorSettings,
    Prediction,
)
from active_learning.services.telemetry.spool import Spool

pytestmark = pytest.mark.usefixtures("signed_in")

ROOT = Path(__file__).parents[3]
HURRIED = CollectorSettings(
    batch_rows=100,
    linger_s=0.05,
    back_off_min_s=0.05,
    back_off_max_s=0.2,
    part_rows=100,
)
PREDICTION = Prediction.of(
    image_id="late.png",
    probabilities=[0.75, 0.25],
    classes=["cat", "dog"],
    model_name="small_cnn",
    model_version=1,
    source="online",
    scored_at=datetime(2000, 1, 20, tzinfo=UTC),
)


# --- throttling, transient and permanent errors, and nothing at all ---


def transient(route: str) -> list[Any]:
    return [
        faults.throttled(route),
        faults.unavailable(route),
        faults.unavailable(route, status=504),
        faults.cut(route),
        faults.Fault(route, 502, "<html>a gateway</html>"),
        faults.Fault(route, 503, {"message": "a gateway"}),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_query_is_asked_again_while_that_is_worth_it(
    number: int, kusto: Kusto
) -> None:
    kusto.faults = [transient("query")[number]]

    answer = telemetry(kusto).query("print n = 1", {})

    assert answer["n"].tolist() == [1]
    assert len(kusto.asked("query")) == 2


@pytest.mark.parametrize("number", range(6))
def test_rows_are_streamed_again_while_that_is_worth_it(
    number: int, kusto: Kusto
) -> None:
    kusto.faults = [transient("streaming")[number]]

    telemetry(kusto).append("predictions", ROWS, "one")

    assert kusto.count("raw_predictions") == 2


@pytest.mark.parametrize("number", range(6))
def test_rows_are_queued_again_while_that_is_worth_it(
    number: int, queued_kusto: Kusto
) -> None:
    queued_kusto.faults = [transient("mgmt")[number]]

    telemetry(queued_kusto, streaming=False).append("predictions", ROWS, "one")

    assert queued_kusto.count("raw_predictions") == 2


def test_the_service_is_left_alone_as_long_as_it_asks(kusto: Kusto) -> None:
    kusto.faults = [faults.throttled("query", retry_after="3600")]

    # An hour is beyond what may be tried again, so that nothing is tried.
    with pytest.raises(SinkAwayError, match=r"after 1 attempts: it is throttled"):
        telemetry(kusto).query("print n = 1", {})

    assert len(kusto.asked("query")) == 1


def test_a_service_that_stays_away_is_said_to_be(kusto: Kusto) -> None:
    kusto.faults = [faults.unavailable("query", times=100)]

    with pytest.raises(SinkAwayError, match=r"cannot be asked now.*being moved"):
        telemetry(kusto, **SHORT).query("print n = 1", {})

    assert 2 <= len(kusto.asked("query")) <= 5


def test_a_service_that_says_nothing_is_not_waited_for(kusto: Kusto) -> None:
    kusto.faults = [faults.silent(times=100)]

    with pytest.raises(SinkAwayError, match="does not answer"):
        telemetry(kusto, **SHORT).query("print n = 1", {})
    with pytest.raises(SinkAwayError, match="does not answer"):
        telemetry(kusto, **SHORT).append("predictions", ROWS, "one")

    assert not kusto.outwaited


def test_a_service_that_falls_silent_is_not_waited_for(queued_kusto: Kusto) -> None:
    adx = telemetry(queued_kusto, streaming=False, **SHORT)
    adx.check("predictions")
    queued_kusto.faults = [faults.silent("mgmt", times=100)]

    with pytest.raises(SinkAwayError, match=r"'one' could not be added.*not answer"):
        adx.append("predictions", ROWS, "one")

    assert not queued_kusto.outwaited


def test_a_service_that_refuses_to_connect_is_away(kusto: Kusto) -> None:
    adx = telemetry(kusto, **SHORT)
    adx.append("predictions", ROWS, "one")
    kusto.close()

    with pytest.raises(SinkAwayError, match="does not answer"):
        adx.query("print n = 1", {})
    with pytest.raises(SinkAwayError, match="sent again and count once"):
        adx.append("predictions", ROWS, "one")

    kusto.start()
    adx.append("predictions", ROWS, "one")
    assert kusto.count("predictions") == 2


def test_rows_that_never_fit_are_told_apart_from_a_table_that_is_away(
    queued_kusto: Kusto,
) -> None:
    queued_kusto.faults = [faults.refused("A field is broken", "streaming")]
    adx = telemetry(queued_kusto)

    # The collector halves what it sent until it knows whose fault it is.
    with pytest.raises(SchemaError, match="A field is broken"):
        adx.append("predictions", ROWS, "one")

    assert len(queued_kusto.asked("streaming")) == 1
    assert queued_kusto.count("raw_predictions") == 0


@pytest.mark.parametrize("status", [401, 403])
def test_whoever_may_not_write_is_told_what_is_missing(
    status: int, kusto: Kusto
) -> None:
    said = faults.refused("No", "streaming", "Forbidden", status, times=100)
    kusto.faults = [said]

    with pytest.raises(SinkAwayError, match="az login"):
        telemetry(kusto).append("predictions", ROWS, "one")

    # A token is renewed once; a right that is missing does not come by itself.
    assert len(kusto.asked("streaming")) == (2 if status == 401 else 1)


def test_a_mapping_that_is_missing_says_how_to_make_it(kusto: Kusto) -> None:
    said = faults.refused(
        "Mapping reference was not found", "streaming", "BadRequest_Mapping"
    )
    kusto.faults = [said]

    with pytest.raises(SinkAwayError, match="make azure-tables ARGS=--apply"):
        telemetry(kusto).append("predictions", ROWS, "one")


# --- from streaming to the queue ---


def test_rows_are_queued_where_streaming_is_off(
    queued_kusto: Kusto, caplog: pytest.LogCaptureFixture
) -> None:
    queued_kusto.streaming = False

    telemetry(queued_kusto).append("predictions", ROWS, "one")

    assert queued_kusto.count("raw_predictions") == 2
    assert "2 rows for 'predictions' are queued" in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        faults.throttled("streaming", times=100),
        faults.unavailable("streaming", times=100),
        faults.refused("Too large", "streaming", "PayloadTooLarge", 413),
        faults.Fault("streaming", 404, {}),
    ],
    ids=["429", "503", "413", "404"],
)
def test_rows_are_queued_where_streaming_is_refused(
    fault: faults.Fault, queued_kusto: Kusto
) -> None:
    queued_kusto.faults = [fault]

    telemetry(queued_kusto, retry_s=3.0).append("predictions", ROWS, "one")

    assert queued_kusto.count("predictions") == 2


def test_rows_that_arrived_unsaid_count_once(queued_kusto: Kusto) -> None:
    # Taken in, and the answer was lost on its way.
    queued_kusto.faults = [faults.cut("streaming", times=2, after=True)]

    telemetry(queued_kusto).append("predictions", ROWS, "one")

    assert queued_kusto.count("raw_predictions") == 6
    assert queued_kusto.count("predictions") == 2


# --- between the queue and the table ---


def test_rows_that_are_not_seen_in_time_are_not_lost(queued_kusto: Kusto) -> None:
    queued_kusto.paused.set()
    adx = telemetry(queued_kusto, streaming=False, visible_s=0.2)

    with pytest.raises(SinkAwayError, match=r"batch 'one' were queued.*not lost"):
        adx.append("predictions", ROWS, "one")
    assert queued_kusto.count("raw_predictions") == 0

    queued_kusto.paused.clear()
    telemetry(queued_kusto, streaming=False).append("predictions", ROWS, "one")

    queued_kusto.until(lambda: queued_kusto.settled)
    assert queued_kusto.count("raw_predictions") == 2


def test_a_process_that_is_killed_after_the_queue_loses_nothing(
    queued_kusto: Kusto,
) -> None:
    queued_kusto.paused.set()
    code = (
        "from tests.services.telemetry.adx import ROWS\n"
        "from active_learning.services.telemetry import connect_adx\n"
        f"connect_adx({queued_kusto.database!r}).append('predictions', ROWS, 'one')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        queued_kusto.until(lambda: queued_kusto.n_queued > 0, 120)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    queued_kusto.paused.clear()
    telemetry(queued_kusto, streaming=False).append("predictions", ROWS, "one")

    queued_kusto.until(lambda: queued_kusto.settled)
    assert queued_kusto.count("raw_predictions") == 2


def test_two_who_append_the_same_count_once(queued_kusto: Kusto) -> None:
    queued_kusto.paused.set()
    both = [
        threading.Thread(
            target=telemetry(queued_kusto, streaming=False).append,
            args=("predictions", ROWS, "one"),
        )
        for _ in range(2)
    ]
    for each in both:
        each.start()
    queued_kusto.until(lambda: queued_kusto.n_queued == 2)
    queued_kusto.paused.clear()
    for each in both:
        each.join(60)

    queued_kusto.until(lambda: queued_kusto.settled)
    assert queued_kusto.count("raw_predictions") == 2


# --- the collector ---


def test_what_was_collected_waits_for_the_cluster(kusto: Kusto, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite", max_rows=1_000)
    sink = telemetry(kusto, retry_s=0.5, answer_s=2.0)
    kusto.faults = [faults.unavailable(times=5), faults.silent(times=1)]

    with Collector(spool, sink, HURRIED) as collector:
        said = [
            collector.collect(PREDICTION._replace(prediction_id=f"{n}"))
            for n in range(40)
        ]
        kusto.until(lambda: not kusto.faults[-1].times)
        kusto.close()
        said.append(collector.collect(PREDICTION))
        kusto.start()
        kusto.until(lambda: kusto.count("predictions") == len(said), 60)
        assert collector.status()["rejected"] == 0

    found = kusto.sql("SELECT prediction_id FROM predictions")
    assert {name for (name,) in found} == set(said)


def test_a_row_that_never_fits_does_not_keep_the_others(
    kusto: Kusto, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool.sqlite", max_rows=1_000)
    kusto.faults = [
        faults.refused("A field is broken", "streaming", times=100, body=b"bad.png")
    ]

    with Collector(spool, telemetry(kusto), HURRIED) as collector:
        for name in ("a.png", "bad.png", "b.png"):
            collector.collect(PREDICTION._replace(prediction_id=name, image_id=name))
        kusto.until(lambda: collector.status()["waiting"] == 0, 60)
        assert collector.status()["rejected"] == 1

    found = kusto.sql("SELECT image_id FROM predictions ORDER BY image_id")
    assert found == [("a.png",), ("b.png",)]
