"""Rows on their way to Azure Data Explorer, and questions to it."""

# ruff: noqa: F811  # a fixture is asked for by the name it was imported by

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import pyarrow as pa
import pytest
from tests.services.telemetry.adx import (
    ROWS,
    SHORT,
    rows_of,
    signed_in,  # noqa: F401
    telemetry,
)
from tests.standins import kusto_faults as faults
from tests.standins.azurite import Azurite, azurite  # noqa: F401
from tests.standins.identity import Identity, identity  # noqa: F401
from tests.standins.kusto import Kusto, kusto, queued_kusto  # noqa: F401
from tests.test_queries import everything, predicted

from active_learning.errors import (
    QueryError,
    SchemaError,
    SettingsError,
    SinkAwayError,
    UnknownNameError,
)
from active_learning.schemas import TABLES
from active_learning.services.azure import credential
from active_learning.services.telemetry import connect, connect_adx, connect_sink

pytestmark = pytest.mark.usefixtures("signed_in")

TOKEN = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJrdXN0byJ9.c2lnbmF0dXJl"


@pytest.fixture
def empty_kusto() -> Iterator[Kusto]:
    """A cluster where no table was made."""
    with Kusto(tables=False) as cluster:
        yield cluster


def test_what_was_appended_can_be_read_at_once(kusto: Kusto) -> None:
    adx = telemetry(kusto)

    adx.append("predictions", ROWS, "one")

    assert adx.rows("predictions").sort_by("prediction_id").equals(ROWS)
    assert len(kusto.asked("streaming")) == 1


def test_what_was_queued_can_be_read_when_append_returns(queued_kusto: Kusto) -> None:
    adx = telemetry(queued_kusto, streaming=False)

    adx.append("predictions", ROWS, "one")

    assert adx.rows("predictions").sort_by("prediction_id").equals(ROWS)
    assert not queued_kusto.asked("streaming")


@pytest.mark.parametrize("streaming", [True, False])
def test_a_batch_sent_again_counts_once(streaming: bool, queued_kusto: Kusto) -> None:
    adx = telemetry(queued_kusto, streaming)

    for _ in range(3):
        adx.append("predictions", ROWS, "one")

    assert queued_kusto.count("predictions") == 2
    # What is queued is known by its tag; what is streamed, by its key alone.
    assert queued_kusto.count("raw_predictions") == (6 if streaming else 2)


def test_a_queued_batch_counts_once_without_a_key(queued_kusto: Kusto) -> None:
    rows = rows_of("rejected_labels", [{"image_id": "a", "reason": "unreadable"}])
    adx = telemetry(queued_kusto, streaming=False)

    adx.append("rejected_labels", rows, "one")
    adx.append("rejected_labels", rows, "one")

    assert queued_kusto.count("rejected_labels") == 1


def test_no_rows_are_no_request(kusto: Kusto) -> None:
    telemetry(kusto).append("predictions", ROWS.slice(0, 0), "none")

    assert not kusto.requests


def test_more_than_streaming_takes_is_queued(queued_kusto: Kusto) -> None:
    vector = [0.123456789] * 128
    rows = rows_of(
        "embeddings",
        [
            {"image_id": f"{n:04d}", "model_version": 1, "vector": vector}
            for n in range(3_000)
        ],
    )

    telemetry(queued_kusto).append("embeddings", rows, "large")

    assert not queued_kusto.asked("streaming")
    assert queued_kusto.count("embeddings") == 3_000


def test_a_large_batch_goes_in_parts_and_counts_once(queued_kusto: Kusto) -> None:
    rows = pa.table(
        {
            "image_id": [f"{n:06d}" for n in range(50_001)],
            "reason": ["cut off"] * 50_001,
        },
        schema=TABLES["set_aside"].schema,
    )
    adx = telemetry(queued_kusto, streaming=False)

    for _ in range(2):
        adx.append("set_aside", rows, "large")

    assert queued_kusto.count("raw_set_aside") == 50_001


def test_a_number_that_is_none_is_refused_before_it_is_sent(kusto: Kusto) -> None:
    strange = predicted("b", probabilities=[float("inf"), 0.0])
    rows = rows_of("predictions", [predicted("a"), strange])

    with pytest.raises(SchemaError, match=r"1 of 2 rows .*at position 1.*inf"):
        telemetry(kusto).append("predictions", rows, "strange")

    assert not kusto.requests


def test_rows_of_another_table_are_refused(kusto: Kusto) -> None:
    with pytest.raises(SchemaError, match="do not fit the table 'labels'"):
        telemetry(kusto).append("labels", ROWS, "one")

    assert not kusto.requests


# --- drift ---


def test_drift_is_found_before_anything_is_written(queued_kusto: Kusto) -> None:
    # A view stands on the table, which DuckDB does not let go.
    queued_kusto.sql("DROP VIEW predictions")
    queued_kusto.sql("ALTER TABLE raw_predictions DROP COLUMN margin")
    queued_kusto.sql("ALTER TABLE raw_predictions ADD COLUMN mood VARCHAR")
    queued_kusto.sql("ALTER TABLE raw_predictions ALTER entropy TYPE BIGINT")
    queued_kusto.sql("CREATE VIEW predictions AS FROM raw_predictions")

    with pytest.raises(SchemaError) as told:
        telemetry(queued_kusto, streaming=False).append("predictions", ROWS, "one")

    for place in ("raw_predictions", "predictions"):
        assert f"{place}.margin is missing" in str(told.value)
        assert f"{place}.mood (string) is not in the code" in str(told.value)
        assert f"{place}.entropy is long, not real" in str(told.value)
    assert "make azure-tables ARGS=--apply" in str(told.value)
    assert {each.route for each in queued_kusto.requests} == {"metadata", "query"}


def test_what_is_streamed_waits_while_the_table_differs(kusto: Kusto) -> None:
    kusto.sql("DROP VIEW predictions")
    kusto.sql("CREATE VIEW predictions AS SELECT *, 1 AS mood FROM raw_predictions")

    # A SchemaError would set every row aside as one that never fits.
    with pytest.raises(SinkAwayError, match=r"make azure-tables ARGS=--apply"):
        telemetry(kusto).append("predictions", ROWS, "one")

    assert kusto.count("raw_predictions") == 0


def test_a_table_that_was_mended_is_looked_at_again(kusto: Kusto) -> None:
    kusto.sql("DROP VIEW predictions")
    adx = telemetry(kusto)
    with pytest.raises(SinkAwayError):
        adx.append("predictions", ROWS, "one")

    kusto.make_tables()
    adx.append("predictions", ROWS, "one")

    assert kusto.count("predictions") == 2


def test_columns_are_compared_once_for_a_process(kusto: Kusto) -> None:
    adx = telemetry(kusto)

    adx.append("predictions", ROWS, "one")
    asked = len(kusto.asked("query"))
    adx.append("predictions", ROWS, "two")

    assert len(kusto.asked("query")) == asked


def test_a_cluster_without_tables_says_how_to_make_them(empty_kusto: Kusto) -> None:
    for streaming in (True, False):
        with pytest.raises(SinkAwayError, match="make azure-tables ARGS=--apply"):
            telemetry(empty_kusto, streaming).append("predictions", ROWS, "one")
    with pytest.raises(QueryError, match="raw_predictions"):
        telemetry(empty_kusto).check("predictions")


# --- who asks ---


def test_a_token_that_expires_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    with Identity(lifetime_s=1.0) as short, Kusto(check_tokens=True) as cluster:
        for name, value in short.environment().items():
            monkeypatch.setenv(name, value)
        credential.cache_clear()
        adx = telemetry(cluster)
        adx.append("predictions", ROWS, "one")
        first = set(short.issued)
        end = time.time() + 1.0
        cluster.until(lambda: time.time() > end)

        adx.append("predictions", ROWS, "two")
        assert adx.query("predictions | count", {})["Count"].tolist() == [2]

        assert set(short.issued) > first
    credential.cache_clear()


def test_a_token_that_was_refused_is_asked_for_again(kusto: Kusto) -> None:
    said = faults.refused("The token has expired", "query", "Unauthorized", 401)
    kusto.faults = [said]

    assert telemetry(kusto).query("print n = 1", {})["n"].tolist() == [1]


def test_nobody_signed_in_is_said_at_once(
    kusto: Kusto, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Identity() as closed:
        closed.faults.extend([(400, '{"error": "no such identity"}')] * 50)
        for name, value in closed.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", "")
        credential.cache_clear()

        with pytest.raises(SinkAwayError, match=r"az login|no token"):
            telemetry(kusto, **SHORT).query("print n = 1", {})

    assert not kusto.asked("query")
    credential.cache_clear()


def test_no_error_and_no_log_holds_a_secret(
    queued_kusto: Kusto,
    azurite: Azurite,
    signed_in: Identity,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    signed = "https://account.blob.core.windows.net/c/b?sv=2024&sig=c2VjcmV0"
    told: list[str] = []
    for fault in (
        faults.refused(f"Blob {signed} and Bearer {TOKEN}", times=10),
        faults.unavailable("mgmt", times=100),
        faults.cut("mgmt", times=100),
    ):
        queued_kusto.faults = []
        adx = telemetry(queued_kusto, streaming=False, **SHORT)
        adx.check("predictions")
        queued_kusto.faults = [fault]
        with pytest.raises((SinkAwayError, SchemaError)) as away:
            adx.append("predictions", ROWS, "one")
        told.append(chain(away.value))
    queued_kusto.faults = []
    queued_kusto.spoiled = True
    # Clients keep for an hour where they may upload: another time makes another one.
    adx = telemetry(queued_kusto, streaming=False, **{**SHORT, "answer_s": 2.0})
    with pytest.raises(SinkAwayError) as away:
        adx.append("predictions", ROWS, "one")
    told.append(chain(away.value))

    everything_said = "\n".join([*told, caplog.text])
    assert "could not be uploaded" in told[-1]
    assert queued_kusto.signatures
    signatures = [quote(each, safe="") for each in queued_kusto.signatures]
    secrets = ["c2VjcmV0", TOKEN, azurite.key, *queued_kusto.signatures]
    for secret in [*secrets, *signatures, *signed_in.issued]:
        assert secret not in everything_said


def chain(error: BaseException) -> str:
    """What a traceback shows."""
    shown, each = [], error
    while each is not None:
        shown.append(repr(each))
        hidden = each.__suppress_context__
        each = each.__cause__ or (None if hidden else each.__context__)
    return "\n".join(shown)


# --- queries ---


def test_an_answer_that_ends_in_an_error_is_none(kusto: Kusto) -> None:
    kusto.faults = [faults.partial("The query ran out of memory")]

    with pytest.raises(QueryError, match="ran out of memory"):
        telemetry(kusto).query("predictions | count", {})


def test_a_query_says_who_asks_and_how_long_it_waits(kusto: Kusto) -> None:
    telemetry(kusto, answer_s=90).query("print n = 1", {})

    (asked,) = kusto.asked("query")
    assert asked.headers["x-ms-app"] == "active-learning"
    assert asked.headers["x-ms-client-request-id"].startswith("active-learning;")
    assert asked.properties["Options"]["servertimeout"] == "0:01:30"
    assert asked.properties["Options"]["request_readonly"] is True


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, r"missing: \['n'\]"),
        ({"n": 1, "m": 2}, r"unknown: \['m'\]"),
        ({"n": "1"}, "'n' is a long and was given '1'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_here(
    values: dict[str, str | int], said: str, kusto: Kusto
) -> None:
    with pytest.raises(QueryError, match=said):
        telemetry(kusto).query("declare query_parameters(n: long); print n", values)

    assert not kusto.requests


def test_a_query_that_is_none_is_refused_once(kusto: Kusto) -> None:
    with pytest.raises(QueryError, match=r"refuses the query.*nobody"):
        telemetry(kusto).query("nobody | count", {})

    assert len(kusto.asked("query")) == 1


# --- doors ---


@pytest.mark.parametrize(
    "place",
    [
        "data/03_primary",
        "https://loop.westeurope.kusto.windows.net",
        "http://loop.westeurope.kusto.windows.net/loop",
        "https://loop.westeurope.kusto.windows.net/loop?sig=c2VjcmV0",
    ],
)
def test_a_place_that_is_no_database_is_refused(place: str) -> None:
    with pytest.raises(SettingsError, match="AL_ADX_CLUSTER") as told:
        connect("azure", place, tables={})

    assert "c2VjcmV0" not in str(told.value)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="retry=1"):
        connect_adx("https://a.b.kusto.windows.net/c", patience={"retry": 1})
    with pytest.raises(SettingsError, match="retry_s=0"):
        connect_adx("https://a.b.kusto.windows.net/c", patience={"retry_s": 0})


def test_an_unknown_backend_is_told_which_there_are() -> None:
    for connected in (
        lambda: connect("azur", "", tables={}),
        lambda: connect_sink("azur", ""),
    ):
        with pytest.raises(UnknownNameError, match="azure, local"):
            connected()


def test_a_service_streams(kusto: Kusto) -> None:
    connect_sink("azure", kusto.database).append("predictions", ROWS, "one")

    assert len(kusto.asked("streaming")) == 1
    assert kusto.count("predictions") == 2


@pytest.mark.parametrize("table", TABLES)
def test_every_table_takes_rows(table: str, queued_kusto: Kusto) -> None:
    rows = rows_of(table, list(everything().get(table, [{"image_id": "a"}])))

    telemetry(queued_kusto, streaming=False).append(table, rows)

    assert telemetry(queued_kusto).has(table, rows)
    assert queued_kusto.count(table) == rows.num_rows


def test_the_local_backend_imports_nothing_of_azure() -> None:
    code = (
        "import sys\n"
        "from active_learning.services.telemetry import connect, connect_sink\n"
        "from active_learning.datasets import KqlDataset, AdxTableDataset\n"
        "connect('local', 'nowhere', tables={}).query('print n = 1', {})\n"
        "connect_sink('local', 'nowhere')\n"
        "AdxTableDataset(table='labels', database='https://a/b')\n"
        "print([n for n in sys.modules if n == 'azure' or n.startswith('azure.')])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip().splitlines()[-1] == "[]"
