"""The tables are made on a cluster, by the real client and over the wire."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pytest
from tests.standins.identity import Identity, identity  # noqa: F401
from tests.standins.kusto_faults import cut, refused, throttled, unavailable
from tests.standins.kusto_managed import ManagedKusto, managed_kusto  # noqa: F401
from tests.test_queries import predicted

from active_learning.errors import (
    QueryError,
    SchemaError,
    SinkAwayError,
    TelemetryError,
)
from active_learning.schemas import TABLES, Table
from active_learning.services.adx_tables.azure import TablesDatabase, apply
from active_learning.services.adx_tables.commands import commands
from active_learning.services.adx_tables.drift import (
    differences,
    refuse_conflicts,
    to_refill,
)
from active_learning.services.adx_tables.settings import AdxTablesSettings
from active_learning.services.azure import credential
from active_learning.services.telemetry import connect_adx

SETTINGS = AdxTablesSettings(
    cluster=None,
    database=None,
    folder="loop",
    retention_days=dict.fromkeys(TABLES, 365) | {"scored_batch": 7},
    invalid_days=90,
    hot_days=31,
    batching_s=20,
    streaming=frozenset({"predictions"}),
    attempts=3,
    retry_s=0.001,
    wait_s=60,
)


@pytest.fixture(autouse=True)
def signed_in(
    identity: Identity,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    yield
    credential.cache_clear()


@pytest.fixture
def database(managed_kusto: ManagedKusto) -> Iterator[TablesDatabase]:  # noqa: F811
    made = TablesDatabase(managed_kusto.url, "loop", SETTINGS)
    yield made
    made.close()


def applied(database: TablesDatabase, tables: dict[str, Table] = TABLES) -> list[str]:
    """Make the tables as the command does; what was told."""
    found = database.found()
    refuse_conflicts(differences(found, tables))
    told: list[str] = []
    made = commands(SETTINGS, tables, refill=to_refill(found, tables))
    apply(database, made, told.append)
    return told


def with_columns(name: str, *columns: tuple[str, pa.DataType]) -> dict[str, Table]:
    """The tables, one of which has other columns: added, or in another's place."""
    table = TABLES[name]
    fields = {field.name: field.type for field in table.schema} | dict(columns)
    return {**TABLES, name: Table(pa.schema(list(fields.items())), table.key)}


def prediction(prediction_id: str, **changed: object) -> str:
    return json.dumps({"prediction_id": prediction_id, "image_id": "a", **changed})


def stream(cluster: ManagedKusto, *lines: str) -> None:
    from io import BytesIO

    from azure.kusto.data import DataFormat, KustoConnectionStringBuilder
    from azure.kusto.ingest import IngestionProperties, KustoStreamingIngestClient
    from azure.kusto.ingest.descriptors import StreamDescriptor

    place = KustoConnectionStringBuilder.with_azure_token_credential(
        cluster.url, credential()
    )
    with KustoStreamingIngestClient(place) as client:
        client.ingest_from_stream(
            StreamDescriptor(BytesIO("\n".join(lines).encode())),
            IngestionProperties(
                "loop",
                "raw_predictions",
                data_format=DataFormat.JSON,
                ingestion_mapping_reference="predictions_json",
            ),
        )


def test_applied_twice_the_tables_are_what_the_code_has(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    assert differences(database.found())

    first = applied(database)
    assert differences(database.found()) == []
    before = dict(managed_kusto.policies)
    stream(managed_kusto, prediction("1"), prediction("2"))
    second = applied(database)

    assert first == second
    assert differences(database.found()) == []
    assert managed_kusto.policies == before
    assert managed_kusto.count("predictions") == 2


def test_a_row_that_came_twice_counts_once(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)

    stream(managed_kusto, prediction("1"), prediction("1"), prediction("2"))

    assert managed_kusto.count("raw_predictions") == 3
    assert managed_kusto.count("predictions") == 2


def test_policies_are_those_of_the_settings(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)

    said = managed_kusto.policies
    kept = "softdelete = {}d recoverability = enabled"
    assert said["raw_scored_batch", "retention"] == kept.format(7)
    assert said["scored_batch", "retention"] == kept.format(7)
    assert said["raw_scored_batch", "caching"] == "hot = 7d"
    assert said["rejected_labels", "retention"] == kept.format(365)
    assert said["labels", "caching"] == "hot = 31d"
    assert said["raw_predictions", "streamingingestion"] == "enable"
    assert said["raw_labels", "streamingingestion"] == "disable"
    assert '"00:00:20"' in said["raw_labels", "ingestionbatching"]
    update = json.loads(said["invalid_predictions", "update"].strip("`\n"))
    assert update[0]["Source"] == "raw_predictions"
    assert update[0]["Query"] == "broken_predictions()"
    assert update[0]["IsTransactional"] is False


def test_a_new_column_is_added_to_table_view_and_mapping(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    stream(managed_kusto, prediction("1"))
    grown = with_columns("predictions", ("temperature", pa.float64()))
    assert {each.said for each in differences(database.found(), grown)} == {
        "raw_predictions.temperature is not there",
        "predictions.temperature is not there",
    }

    applied(database, grown)

    assert differences(database.found(), grown) == []
    stream(managed_kusto, prediction("2", temperature=1.5))
    rows = managed_kusto.sql("SELECT temperature FROM predictions ORDER BY ALL")
    assert rows == [(1.5,), (None,)]


def test_a_changed_type_is_refused_before_anything_is_applied(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    managed_kusto.requests.clear()
    changed = with_columns("labels", ("labeler", pa.int64()), ("note", pa.string()))

    with pytest.raises(SchemaError) as refusal:
        applied(database, changed)

    assert "2 differences cannot be mended in place" in str(refusal.value)
    assert "raw_labels.labeler is string, not long" in str(refusal.value)
    assert "labels.labeler is string, not long" in str(refusal.value)
    assert all(each.text.startswith(".show") for each in managed_kusto.requests)


def test_another_key_and_a_table_in_a_views_place_are_refused(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    managed_kusto.command(".create-merge table set_aside (image_id: string)")
    with pytest.raises(SchemaError, match="set_aside is a table where the code has a"):
        applied(database)
    managed_kusto.sql("DROP TABLE set_aside")
    applied(database)

    table = TABLES["labels"]
    moved = pa.schema([table.schema.field("request_id"), *table.schema])
    names = dict.fromkeys(moved.names)
    moved = pa.schema([table.schema.field(name) for name in names])
    other = {**TABLES, "labels": Table(moved, key=("request_id",))}
    with pytest.raises(SchemaError, match=r"once by \['label_id'\], not by"):
        applied(database, other)


def test_a_column_that_the_code_lacks_is_told_and_kept(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    managed_kusto.command(".create-merge table raw_labels (note: string)")

    assert [each.said for each in differences(database.found())] == [
        "raw_labels.note (string) is not in the code",
        "labels.note (string) is not in the code",
    ]
    applied(database)
    assert managed_kusto.sql("SELECT note FROM labels") == []


def test_a_view_that_was_dropped_is_filled_again_and_waited_for(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    stream(managed_kusto, prediction("1"))
    managed_kusto.forget_view("predictions")
    managed_kusto.operations = ["Scheduled", "InProgress"]
    managed_kusto.requests.clear()

    applied(database)

    texts = [each.text for each in managed_kusto.requests]
    (made,) = (n for n, text in enumerate(texts) if "backfill = true" in text)
    assert [text.split()[1] for text in texts[made + 1 : made + 4]] == [
        "operations"
    ] * 3
    # What is set on the view comes when it is there.
    assert texts[made + 4].startswith(".alter materialized-view predictions")
    assert managed_kusto.count("predictions") == 1


def test_a_view_that_cannot_be_filled_says_why(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    managed_kusto.forget_view("labels")
    managed_kusto.operations = ["InProgress", "Failed"]
    with pytest.raises(TelemetryError, match="ended as Failed: as told"):
        applied(database)

    managed_kusto.forget_view("labels")
    managed_kusto.operations = ["InProgress"] * 10_000
    impatient = SETTINGS.model_copy(update={"wait_s": 0.001})
    hasty = TablesDatabase(managed_kusto.url, "loop", impatient)
    with pytest.raises(SinkAwayError, match="still goes on after"):
        applied(hasty)
    hasty.close()


def test_a_disabled_view_is_told(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    managed_kusto.disabled.add("labels")

    assert [each.said for each in differences(database.found())] == [
        "the view labels is disabled: .enable materialized-view labels"
    ]


def test_a_schema_in_the_types_of_dotnet_is_understood(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    managed_kusto.says_kql_types = False
    applied(database)

    assert differences(database.found()) == []


FAULTS = {
    "throttled": throttled("mgmt"),
    "unavailable": unavailable("mgmt"),
    "bad gateway": unavailable("mgmt", status=502),
    "cut": cut("mgmt"),
    "cut after it was done": cut("mgmt", after=True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_tried_again(
    fault: str,
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    from dataclasses import replace

    here = replace(FAULTS[fault], times=2, text=".create-merge table raw_labels")
    managed_kusto.faults = [here]

    applied(database)

    assert here.times == 0
    assert differences(database.found()) == []


def test_what_does_not_pass_in_time_is_away_and_names_the_place(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    managed_kusto.faults = [unavailable("mgmt", times=3)]
    with pytest.raises(SinkAwayError, match="cannot be reached now") as away:
        applied(database)
    assert f"{managed_kusto.url}/loop" in str(away.value)
    assert len(managed_kusto.asked("mgmt")) == SETTINGS.attempts

    managed_kusto.close()
    with pytest.raises(SinkAwayError, match="again later: ConnectionError"):
        applied(database)
    managed_kusto.start()
    applied(database)


def test_what_is_refused_is_not_tried_again_and_says_what_was_refused(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    text = ".create-merge table raw_labels"
    managed_kusto.faults = [
        refused("Principal is not authorized", "mgmt", "Forbidden", 403, text=text)
    ]

    with pytest.raises(QueryError) as refusal:
        applied(database)

    assert f"refused '{text}': Principal is not authorized" in str(refusal.value)
    assert "has to be an admin of the database" in str(refusal.value)
    assert sum(each.text.startswith(text) for each in managed_kusto.requests) == 1
    applied(database)
    assert differences(database.found()) == []


def test_who_is_not_signed_in_is_told_so_without_a_secret(
    managed_kusto: ManagedKusto,  # noqa: F811
    identity: Identity,  # noqa: F811
) -> None:
    identity.faults.extend([(400, '{"message": "no identity"}')] * 20)
    database = TablesDatabase(managed_kusto.url, "loop", SETTINGS)
    try:
        with pytest.raises(TelemetryError, match="Nobody is signed in") as unknown:
            database.found()
    finally:
        identity.faults.clear()
        database.close()

    assert identity.secret not in str(unknown.value)


def test_no_token_is_in_what_is_said(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
    identity: Identity,  # noqa: F811
) -> None:
    told = "\n".join(applied(database))
    managed_kusto.faults = [refused("No", "mgmt")]
    with pytest.raises(QueryError) as refusal:
        database.found()

    assert identity.issued
    for token in identity.issued:
        assert token not in told + repr(database) + str(refusal.value)


def test_a_place_that_is_no_cluster_is_refused_before_it_gets_a_token(
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    # This machine by a name that the library does not trust.
    place = managed_kusto.url.replace("127.0.0.1", "0.0.0.0")
    database = TablesDatabase(place, "loop", SETTINGS)
    try:
        with pytest.raises(QueryError, match="is no cluster of Azure Data Explorer"):
            database.found()
    finally:
        database.close()

    assert all("authorization" not in each.headers for each in managed_kusto.requests)


def test_the_loop_writes_to_and_asks_what_the_commands_made(
    database: TablesDatabase,
    managed_kusto: ManagedKusto,  # noqa: F811
) -> None:
    applied(database)
    telemetry = connect_adx(managed_kusto.database, streaming=True)
    rows = pa.Table.from_pylist(
        [predicted(name) for name in "ab"], TABLES["predictions"].schema
    )

    telemetry.append("predictions", rows, "one batch")
    telemetry.append("predictions", rows, "the same again")

    answer = telemetry.query("predictions | summarize n = count()", {})
    assert answer["n"].tolist() == [2]
    assert managed_kusto.count("raw_predictions") >= 2
