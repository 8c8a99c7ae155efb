"""KQL as SQL for DuckDB, made once for a text.

The grammar of all of KQL takes half a second to load, more than most of our questions
take to answer; so what a text becomes is kept, and the parser is imported by a text
that was never seen.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from active_learning.errors import QueryError
from active_learning.files import replacing
from active_learning.schemas import TABLES

# A query that says so is joined by plain equality, with which DuckDB skips rows before
# it unpacks them. KQL's matches a null with a null, which only the text can exclude.
_FILLED = "// Keys are never null."

# How the parser begins a table of a `let`.
_LET = re.compile(r'("_l\d+_\w*") AS \(')

_TYPES: dict[str, type] = {"string": str, "long": int}
# The parser's own distribution, whose every release may write other SQL.
_TRANSLATOR = "duckdb-kql"


@dataclass(frozen=True)
class Parameter:
    """A value that a query declares.

    Args:
        type: ``string`` or ``long``: what ADX and DuckDB bind alike.
        slot: Its name in the SQL.
        default: Taken without a value; ``None`` makes the value required.
    """

    type: str
    slot: str
    default: str | int | None


@dataclass(frozen=True)
class Translation:
    """A query as SQL; its values are bound, never pasted in."""

    sql: str
    parameters: dict[str, Parameter]

    def inlined(self) -> str:
        """The SQL with the tables of each ``let`` written out where they are used.

        DuckDB answers a table that is used twice by itself and first, even where
        nothing can come of it; written out, it is seen with the rest.
        """
        return _LET.sub(r"\1 AS NOT MATERIALIZED (", self.sql)

    def bind(self, values: Mapping[str, str | int]) -> dict[str, str | int]:
        """Put values into their slots.

        Raises:
            QueryError: A value is missing, unknown, or of another type.
        """
        unknown = sorted(set(values) - set(self.parameters))
        missing = [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is None and name not in values
        ]
        if unknown or missing:
            raise QueryError(
                f"Parameters missing: {missing}; parameters unknown: {unknown}. The "
                f"query declares {list(self.parameters)}."
            )
        bound: dict[str, str | int] = {}
        for name, parameter in self.parameters.items():
            value: str | int | None = values.get(name)
            value = parameter.default if value is None else value
            if value is None or type(value) is not _TYPES[parameter.type]:
                raise QueryError(
                    f"The parameter {name!r} is a {parameter.type} and was given "
                    f"{value!r}."
                )
            bound[parameter.slot] = value
        return bound


def translated(text: str, cache: Path | None) -> Translation:
    """Translate a query, or recall what it became.

    Args:
        text: KQL.
        cache: A folder for translations; ``None`` keeps nothing.

    Raises:
        QueryError: The text is not KQL, or more of it than DuckDB can be told.
    """
    if cache is None:
        return _translate(text)
    # Joins depend on the tables' columns, so what they are is part of the question.
    columns = {name: table.schema.names for name, table in TABLES.items()}
    question = json.dumps([text, columns, version(_TRANSLATOR)])
    kept = cache / f"{sha256(question.encode()).hexdigest()[:32]}.json"
    try:
        return _recalled(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        translation = _translate(text)
    with replacing(kept) as temporary:
        temporary.write_text(json.dumps(asdict(translation)), encoding="utf-8")
    return translation


def _translate(text: str) -> Translation:
    import duckdb_kql

    columns = {name: list(table.schema.names) for name, table in TABLES.items()}
    try:
        declared = duckdb_kql.query_parameters(text)
        sql = str(duckdb_kql.to_sql(text, schema=columns, allow_write=False))
    except duckdb_kql.KqlError as exc:
        raise QueryError(f"The query cannot be understood: {exc}") from exc
    if _FILLED in text:
        sql = sql.replace(" IS NOT DISTINCT FROM ", " = ")
    strange = [d.name for d in declared if d.type not in _TYPES]
    if strange:
        raise QueryError(
            f"{len(strange)} parameters are neither string nor long; the first is "
            f"{strange[0]!r}. Declare it string and convert it inside the query: "
            "Azure Data Explorer and DuckDB bind nothing else alike."
        )
    return Translation(
        sql, {d.name: Parameter(d.type, d.slot, d.default) for d in declared}
    )


def _recalled(kept: dict[str, Any]) -> Translation:
    parameters = {name: Parameter(**d) for name, d in kept["parameters"].items()}
    if not isinstance(kept["sql"], str):
        raise TypeError(f"What was kept is no SQL but {kept['sql']!r}.")
    return Translation(kept["sql"], parameters)
