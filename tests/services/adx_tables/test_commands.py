"""The commands: every table, column and policy, in the words of the cluster."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from duckdb_kql import kql
from pydantic import ValidationError

from active_learning.errors import SchemaError
from active_learning.schemas import PREDICTIONS, TABLES, Table
from active_learning.services.adx_tables import descriptions
from active_learning.services.adx_tables.commands import (
    BROKEN_BODY,
    INVALID_COLUMNS,
    commands,
)
from active_learning.services.adx_tables.names import columns, quoted
from active_learning.services.adx_tables.settings import AdxTablesSettings

SAID: dict[str, Any] = {
    "cluster": None,
    "database": None,
    "folder": "loop",
    "retention_days": dict.fromkeys(TABLES, 365),
    "invalid_days": 90,
    "hot_days": 31,
    "batching_s": 90,
    "streaming": {"predictions"},
    "attempts": 3,
    "retry_s": 1,
    "wait_s": 60,
}
SETTINGS = AdxTablesSettings(**SAID)


def command(*words: str) -> str:
    """The only command with all of these in it."""
    (found,) = (
        text for text in commands(SETTINGS) if all(word in text for word in words)
    )
    return found


def test_a_table_has_the_columns_of_its_schema_in_its_order() -> None:
    text = command(".create-merge table raw_embeddings ")

    assert text.splitlines()[1:4] == [
        "    image_id: string,",
        "    model_version: long,",
        "    vector: dynamic)",
    ]
    assert columns(PREDICTIONS)["scored_at"] == "datetime"
    assert columns(PREDICTIONS)["confidence"] == "real"


def test_rows_land_beside_the_view_where_a_key_makes_them_count_once() -> None:
    assert "summarize take_any(*) by image_id, model_version" in command(
        "materialized-view with", "embeddings on table raw_embeddings"
    )
    assert "raw_rejected_labels" not in " ".join(commands(SETTINGS))
    assert command(".create-merge table rejected_labels ")


@pytest.mark.parametrize("name", TABLES)
def test_the_key_stands_first_as_a_view_will_have_it(name: str) -> None:
    table = TABLES[name]

    assert tuple(table.schema.names[: len(table.key)]) == table.key


@pytest.mark.parametrize("name", TABLES)
def test_every_table_and_column_is_described(name: str) -> None:
    assert descriptions.TABLES[name]
    missing = set(TABLES[name].schema.names) - set(descriptions.COLUMNS)
    assert not missing, "tell descriptions.py what they hold"


def test_a_span_is_said_in_minutes_and_seconds() -> None:
    assert '"00:01:30"' in command("raw_labels policy ingestionbatching")


def test_a_name_is_in_brackets_only_where_it_needs_to_be() -> None:
    names = ["label", "round", "source", "kind", "a b", "1a"]

    assert [quoted(name) for name in names] == [
        "label",
        "round",
        "source",
        "['kind']",
        "['a b']",
        "['1a']",
    ]


@pytest.mark.parametrize("name", ["", "a'b", "a]", "a\nb", "x" * 1025])
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(SchemaError, match="is no name for Azure Data Explorer"):
        quoted(name)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.binary(), pa.int32()], ids=str)
def test_a_type_that_has_no_counterpart_is_refused(kind: pa.DataType) -> None:
    table = Table(pa.schema([("a", kind)]), key=())
    settings = SETTINGS.model_copy(update={"retention_days": {"t": 1}})

    with pytest.raises(SchemaError, match=f"for Arrow's {kind}".replace("[", r"\[")):
        commands(settings, {"t": table})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown table": (
        {"retention_days": {**SAID["retention_days"], "lables": 1}},
        r"retention_days names \['lables'\], which are no tables",
    ),
    "a table that is not kept": (
        {"retention_days": {"labels": 1}},
        "does not say how long .*'predictions'",
    ),
    "a stream into nothing": ({"streaming": ["x"]}, "streaming names"),
    "a short batch": ({"batching_s": 9}, "greater than or equal to 10"),
    "a typo": ({"hot_day": 3}, "did you mean 'hot_days'"),
    "no URL": ({"cluster": "loop.westeurope"}, "should match pattern"),
}


@pytest.mark.parametrize(("changed", "said"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AdxTablesSettings(**{**SAID, **changed})


GOOD: dict[str, Any] = {
    "prediction_id": "good",
    "image_id": "a",
    "confidence": 0.75,
    "classes": ["cat", "dog"],
    "probabilities": [0.75, 0.25],
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"prediction_id": ""}, "prediction_id is empty"),
    "no image": ({"image_id": None}, "image_id is empty"),
    "one probability": ({"probabilities": [1.0]}, "not of one length"),
    "no classes": ({"classes": None}, "not of one length"),
    "no confidence": ({"confidence": None}, "confidence is not within"),
    "not a number": ({"confidence": float("nan")}, "confidence is not within"),
    "too sure": ({"confidence": 1.01}, "confidence is not within"),
    "below nothing": ({"confidence": -0.01}, "confidence is not within"),
}


def broken(*rows: dict[str, Any]) -> pd.DataFrame:
    """What the function finds among rows, by the engine of a laptop."""
    import duckdb

    with duckdb.connect() as connection:
        table = pa.Table.from_pylist([{**GOOD, **row} for row in rows], PREDICTIONS)
        connection.register("raw_predictions", table)
        # The bag of the whole row is of the cluster alone.
        query = BROKEN_BODY.replace(", row = pack_all()", "")
        answer = kql(connection, query)
        return pd.DataFrame(answer.fetchall(), columns=answer.columns)


@pytest.mark.parametrize(("changed", "reason"), BAD.values(), ids=BAD)
def test_a_prediction_that_breaks_its_promise_is_found_and_says_why(
    changed: dict[str, Any], reason: str
) -> None:
    found = broken({}, {"prediction_id": "bad", **changed})

    assert len(found) == 1
    assert reason in found["reason"].item()
    assert found["prediction_id"].item() == changed.get("prediction_id", "bad")
    assert [*found.columns, "row"] == list(INVALID_COLUMNS)


def test_a_sure_prediction_and_an_unsure_one_break_nothing() -> None:
    assert broken({}, {"confidence": 1.0}, {"confidence": 0.0}).empty
