"""Rows as the lines that are ingested, and answers as the frames that nodes take."""

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from azure.kusto.data.helpers import parse_timedelta

from active_learning.errors import SchemaError
from active_learning.schemas import TABLES

_TIME: Literal["datetime64[us, UTC]"] = "datetime64[us, UTC]"
# The elements of a list have a type in the schemas; in KQL they have none.
_LISTS = {
    field.name: field.type.value_type.to_pandas_dtype()
    for table in TABLES.values()
    for field in table.schema
    if pa.types.is_list(field.type)
}


class Answer(NamedTuple):
    """What came back: names and types of the columns, and the rows.

    Attributes:
        columns: Name and KQL type of each.
        rows: Values as JSON has them.
    """

    columns: list[tuple[str, str]]
    rows: Sequence[Sequence[Any]]


def check_numbers(rows: pa.Table) -> None:
    """Refuse what neither JSON nor a table of the service can hold.

    Raises:
        SchemaError: A number is infinite, or none.
    """
    strange = [
        field.name
        for field, column in zip(rows.schema, rows.columns, strict=True)
        if _is_strange(column)
    ]
    if strange:
        raise SchemaError(_about_strange(rows, strange))


def to_lines(rows: pa.Table) -> bytes:
    """Rows as JSON, one a line."""
    plain = rows
    for number, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            texts = pc.strftime(rows.column(number), "%Y-%m-%dT%H:%M:%SZ")
            plain = plain.set_column(number, field.name, texts)
    encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
    return ("\n".join(map(encode, plain.to_pylist())) + "\n").encode()


def compressed(lines: bytes) -> bytes:
    """As they are sent: the same lines give the same bytes."""
    return gzip.compress(lines, compresslevel=3, mtime=0)


def to_frame(answer: Answer) -> pd.DataFrame:
    """An answer with the dtypes that DuckDB gives for the same question."""
    columns = _transposed(answer)
    return pd.DataFrame(
        {
            name: _series(name, kind, values)
            for (name, kind), values in zip(answer.columns, columns, strict=True)
        },
        columns=[name for name, _ in answer.columns],
    )


def to_table(answer: Answer, schema: pa.Schema) -> pa.Table:
    """An answer in a table's columns and types.

    Raises:
        SchemaError: A column is missing, or a value does not fit its type.
    """
    names = [name for name, _ in answer.columns]
    missing = [name for name in schema.names if name not in names]
    if missing:
        raise SchemaError(
            f"The answer lacks {len(missing)} columns, the first {missing[0]!r}."
        )
    columns = _transposed(answer)
    try:
        return pa.table(
            [_array(columns[names.index(f.name)], f.type) for f in schema],
            schema=schema,
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as exc:
        raise SchemaError(f"A value does not fit its column: {exc}") from exc


def _transposed(answer: Answer) -> list[list[Any]]:
    if not answer.rows:
        return [[] for _ in answer.columns]
    return [list(column) for column in zip(*answer.rows, strict=True)]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(_times(values), type=kind)
    if pa.types.is_list(kind):
        return pa.array([_parsed(value) for value in values], type=kind)
    if pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    if pa.types.is_boolean(kind):
        values = [None if value is None else bool(value) for value in values]
    return pa.array(values, type=kind)


def _series(name: str, kind: str, values: list[Any]) -> pd.Series:
    if kind == "dynamic":
        made = np.empty(len(values), dtype=object)
        for number, value in enumerate(values):
            made[number] = _as_list(name, _parsed(value))
        return pd.Series(made, dtype=object)
    return _SERIES.get(kind, _objects)(values)


def _objects(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=object)


def _integers(values: list[Any], dtype: str = "int64") -> pd.Series:
    # Of numbers that may be null pandas' own type begins with a capital.
    return pd.Series(values, dtype=dtype.title() if None in values else dtype)


def _reals(values: list[Any]) -> pd.Series:
    # Not-a-number and the infinities come as words.
    return pd.Series(
        [np.nan if value is None else float(value) for value in values], dtype="float64"
    )


def _bools(values: list[Any]) -> pd.Series:
    made = [None if value is None else bool(value) for value in values]
    return pd.Series(made, dtype="boolean" if None in made else bool)


def _times(values: list[Any]) -> pd.Series:
    parsed = pd.to_datetime(pd.Series(values, dtype=object), utc=True, format="ISO8601")
    return parsed.astype(_TIME)


def _spans(values: list[Any]) -> pd.Series:
    parsed = [None if value is None else parse_timedelta(value) for value in values]
    return pd.Series(parsed, dtype="timedelta64[us]")


_SERIES: dict[str, Callable[[list[Any]], pd.Series]] = {
    "long": _integers,
    "int": lambda values: _integers(values, "int32"),
    "real": _reals,
    "decimal": _reals,
    "bool": _bools,
    "datetime": _times,
    "timespan": _spans,
}


def _parsed(value: Any) -> Any:
    # Some answers hold a list, others its text.
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _as_list(name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if name in _LISTS:
        return np.array(value, dtype=_LISTS[name])
    if value and all(type(each) is int for each in value):
        return np.array(value, dtype="int64")
    if value and all(type(each) in {int, float} for each in value):
        return np.array(value, dtype="float64")
    return np.array(value, dtype=object)


def _is_strange(column: pa.ChunkedArray) -> bool:
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    if not pa.types.is_floating(values.type):
        return False
    return not pc.all(pc.is_finite(values)).as_py() and len(values) > 0


def _about_strange(rows: pa.Table, names: list[str]) -> str:
    wrong = [
        (number, name, row[name])
        for number, row in enumerate(rows.select(names).to_pylist())
        for name in names
        if not np.isfinite(np.array(row[name], dtype="float64")).all()
    ]
    number, name, held = wrong[0]
    return (
        f"{len({each[0] for each in wrong})} of {rows.num_rows} rows hold a number "
        f"that no table can: the first, at position {number}, has {name}={held!r}. "
        "Nothing was added."
    )
