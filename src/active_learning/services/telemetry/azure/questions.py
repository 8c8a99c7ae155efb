"""The KQL that the tables themselves are asked, whatever they are called."""

import json
from hashlib import md5
from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from active_learning.schemas import TABLES

# Where rows stay until a run has passed them on.
PASSED_ON_TO = "predictions"
_AT_MOST = 1_000
_SEPARATOR = "|"


class Question(NamedTuple):
    """A query and its values."""

    text: str
    values: dict[str, str | int]


def columns_of(table: str) -> str:
    """Asks for a table's or a view's columns and types."""
    return f"{table}\n| getschema\n| project ColumnName, ColumnType"


def rows_of(table: str, inbox: bool) -> str:
    """All rows of a table; of an inbox, those that were not passed on yet."""
    if not inbox:
        return table
    (key,) = TABLES[table].key
    taken = f"({PASSED_ON_TO} | project {key})"
    return f"{table}\n| join kind=leftanti {taken} on {key}"


def page_of(table: str, inbox: bool, digits: str) -> str:
    """Those rows whose name's hash begins so: parts of a table, each row in one."""
    name = TABLES[table].schema.names[0]
    begins = f"substring(hash_md5({name}), 0, {len(digits)})"
    where = f'| where {begins} == "{digits}"'
    rows, _, rest = rows_of(table, inbox).partition("\n")
    return "\n".join(part for part in (rows, where, rest) if part)


def pages(n_rows: int, page_rows: int) -> list[str]:
    """What the hashes of each page begin with; a single empty one is all rows."""
    digits = 0
    while n_rows > page_rows * 16**digits:
        digits += 1
    if digits == 0:
        return [""]
    return [f"{number:0{digits}x}" for number in range(16**digits)]


def missing_of(table: str, rows: pa.Table) -> tuple[Question, int]:
    """Asks how many of these rows can be read, by their names.

    Of many rows a thousand are looked for, evenly spread: a batch comes as a whole.

    Returns:
        The question, and the answer when all are there.
    """
    step = -(-rows.num_rows // _AT_MOST)
    sample = rows.take(pa.array(range(0, rows.num_rows, step)))
    names = identity(table)
    columns = [sample.column(name).to_pylist() for name in names]
    whole = [
        _SEPARATOR.join("" if part is None else str(part) for part in row)
        for row in zip(*columns, strict=True)
    ]
    parts = ", ".join(f"tostring({name})" for name in names)
    text = (
        "declare query_parameters(firsts: string, names: string);\n"
        "let first_parts = parse_json(firsts);\n"
        "let wanted = parse_json(names);\n"
        f"{table}\n"
        f"| where {names[0]} in (first_parts)\n"
        f'| extend row_name = strcat_delim("{_SEPARATOR}", {parts}, "")\n'
        "| where row_name in (wanted)\n"
        "| distinct row_name\n"
        "| count"
    )
    wanted = sorted({f"{name}{_SEPARATOR}" for name in whole})
    values: dict[str, str | int] = {
        "firsts": json.dumps(sorted({str(first) for first in columns[0]})),
        "names": json.dumps(wanted),
    }
    return Question(text, values), len(wanted)


def identity(table: str) -> list[str]:
    """The key; without one, every column of text."""
    schema, key = TABLES[table]
    return list(key) or [field.name for field in schema if pt.is_string(field.type)]


def batch_of(rows: pa.Table, lines: bytes) -> str:
    """A name for rows by all that they hold."""
    return f"rows-{rows.num_rows}-{md5(lines, usedforsecurity=False).hexdigest()}"
