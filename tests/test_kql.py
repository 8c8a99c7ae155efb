"""Every query and every management command, read by Microsoft's own parser."""

import random
import re
from pathlib import Path

import pyarrow as pa
import pytest
from tests.standins.kqlcheck import Schema, declared, faults, kql_parser  # noqa: F401

from active_learning.queries import names, query_text
from active_learning.schemas import TABLES, Table
from active_learning.services.adx_tables.commands import commands, landing, script
from active_learning.services.adx_tables.names import RESERVED, columns, quoted
from active_learning.services.adx_tables.settings import AdxTablesSettings

pytestmark = pytest.mark.usefixtures("kql_parser")

FEW_RESERVED = ("kind", "where", "real", "set", "title", "time")
TIME = pa.timestamp("us", tz="UTC")
TYPES = (
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    TIME,
    pa.list_(pa.string()),
    pa.list_(pa.float32()),
)


def settings(tables: dict[str, Table]) -> AdxTablesSettings:
    # Settings of other tables than the project's are not read from a file.
    return AdxTablesSettings.model_construct(
        folder='loop\'s "own"',
        retention_days=dict.fromkeys(tables, 30),
        invalid_days=90,
        hot_days=31,
        batching_s=20,
        streaming=frozenset({"predictions"}),
    )


def numbered(texts: list[str]) -> dict[str, str]:
    return {f"{n}: {text.splitlines()[0]}": text for n, text in enumerate(texts)}


def test_every_query_is_right_by_microsofts_parser() -> None:
    assert names()

    assert faults(declared(), {name: query_text(name) for name in names()}) == {}


BROKEN = {
    "unknown column": "predictions | where confidnce > 0.5",
    "unknown table": "prediction | count",
    "unknown function": "predictions | extend x = summ(margin)",
    "wrong operand": "predictions | where margin has 'a'",
    "wrong number of arguments": "predictions | extend x = pow(margin)",
    "syntax": "predictions | where (margin > 0.5",
    "unknown operator": "predictions | wherever margin > 0.5",
    "a reserved word": "let latest = labels; latest | count",
    "a column of a table that is not read": "labels | where margin > 0.5",
}


def test_a_broken_query_is_found() -> None:
    found = faults(declared(), {**BROKEN, "right": "predictions | count"})

    assert set(found) == set(BROKEN)
    assert "1:21 The name 'confidnce' does not refer" in found["unknown column"][0]


def test_a_query_that_names_what_the_code_lacks_is_found() -> None:
    schema = declared()
    views = {name: dict(typed) for name, typed in schema.views.items()}
    del views["predictions"]["sampling_key"]
    changed = Schema(schema.tables, views, schema.functions)

    found = faults(changed, {name: query_text(name) for name in names()})

    assert {name for name in names() if "sampling_key" in query_text(name)} == {*found}


def test_every_command_is_right_by_microsofts_parser() -> None:
    made = commands(settings(TABLES))
    refilled = commands(settings(TABLES), refill=tuple(TABLES))

    assert len(made) > len(TABLES)
    assert len({*refilled} - {*made}) == sum(bool(t.key) for t in TABLES.values())
    assert faults(declared(), numbered([*made, *({*refilled} - {*made})])) == {}


def test_the_script_parts_at_blank_lines_into_its_commands() -> None:
    made = commands(settings(TABLES))

    assert [part.strip() for part in re.split(r"\n\s*\n", script(made))] == made
    assert all(part.startswith(".") for part in made)


def test_a_broken_command_is_found() -> None:
    right = commands(settings(TABLES))
    broken = {
        "type": (": real", ": float64"),
        "verb": (".create-merge table", ".create-marge table"),
        "policy": ("policy caching hot", "policy caching warm"),
        "key": ("by prediction_id", "by predictionid"),
        "function": ("isempty(image_id)", "isempty(imageid)"),
        "table": (".alter table raw_labels", ".alter table row_labels"),
    }
    texts = {
        name: next(text for text in right if was in text).replace(was, becomes)
        for name, (was, becomes) in broken.items()
    }

    assert set(faults(declared(), texts)) == set(broken)


def some_table(chance: random.Random) -> Table:
    """Any columns of any names and types, and a key of some of them."""
    words = [*sorted(RESERVED), "label", "a b", "c-d", "e.f", "1g", "H", "_", "x" * 60]
    fields = [(name, chance.choice(TYPES)) for name in chance.sample(words, 12)]
    # A key is of what can be grouped by, and stands first.
    fields.sort(key=lambda each: pa.types.is_list(each[1]))
    n_plain = sum(not pa.types.is_list(kind) for _, kind in fields)
    n_key = chance.randint(0, min(2, n_plain))
    schema = pa.schema(fields)
    return Table(schema, key=tuple(schema.names[:n_key]))


def test_commands_of_any_table_are_right_whatever_its_columns_are_called() -> None:
    # The same tables in every run, so that a failure comes back.
    chance = random.Random(6)
    tables = {f"table_{n}": some_table(chance) for n in range(6)}
    schema = Schema(
        tables={
            landing(name, table): columns(table.schema)
            for name, table in tables.items()
        },
        views={
            name: columns(table.schema) for name, table in tables.items() if table.key
        },
    )

    made = commands(settings(tables), tables)

    assert faults(schema, numbered(made)) == {}


def test_a_reserved_word_is_a_name_in_brackets_alone() -> None:
    listed = ", ".join(f"{quoted(word)}: string" for word in sorted(RESERVED))
    bare = {word: f".create-merge table t ({word}: string)" for word in FEW_RESERVED}

    assert RESERVED.issuperset(FEW_RESERVED)
    assert faults(Schema(), {"every": f".create-merge table t ({listed})"}) == {}
    assert set(faults(Schema(), bare)) == set(FEW_RESERVED)


def test_the_lock_of_what_node_is_given_names_no_place() -> None:
    lock = Path(__file__).parent / "standins" / "node" / "package-lock.json"

    assert '"resolved"' not in lock.read_text()
