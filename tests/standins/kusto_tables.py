"""The tables of a cluster: KQL and management commands over DuckDB."""

import json
import re
import threading
from typing import Any

import duckdb
import pyarrow as pa
from duckdb_kql import KqlError, kql, query_parameters
from duckdb_kql.server import RestColumn, Result
from duckdb_kql.types import kusto_type
from tests.standins.kusto_faults import RefusedError

from active_learning.schemas import TABLES

DATABASE = "loop"

_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "int": "INTEGER",
    "real": "DOUBLE",
    "bool": "BOOLEAN",
    "datetime": "TIMESTAMP WITH TIME ZONE",
    "dynamic": "JSON",
}
_NAME = r"""(?:\[\s*["'])?([A-Za-z_][\w-]*)(?:["']\s*\])?"""
_MAKE_TABLE = re.compile(
    rf"\.create(?:-merge)?\s+table\s+{_NAME}\s*\((.*?)\)\s*(?:with\b.*)?$", re.DOTALL
)
_MAKE_MAPPING = re.compile(
    rf"\.create(?:-or-alter)?\s+table\s+{_NAME}\s+ingestion\s+json\s+mapping\s+"
    r"""["']([^"']+)["'](.*)$""",
    re.DOTALL,
)
_MAKE_VIEW = re.compile(
    r"\.create(?:-or-alter)?\s+(?:ifnotexists\s+)?(?:async\s+)?"
    r"(?:ifnotexists\s+)?materialized-view\s+(?:with\s*\(.*?\)\s*)?"
    rf"{_NAME}\s+on\s+table\s+{_NAME}\s*\{{(.*)\}}\s*$",
    re.DOTALL,
)
_SHOW_SCHEMA = re.compile(rf"\.show\s+table\s+{_NAME}\s+cslschema\s*$")
_SHOW_MAPPING = re.compile(
    rf"\.show\s+table\s+{_NAME}\s+ingestion\s+json\s+mapping(?:s|\s+[\"']([^\"']+)[\"'])"
)
# What may be said again and again, and changes nothing that is looked at here.
_IDEMPOTENT = re.compile(
    r"\.(alter|alter-merge|create-merge|create-or-alter|create\s+ifnotexists|"
    r"add|set|enable|clear\s+database\s+cache)\b"
)


class Tables:
    """The tables of one database, their mappings and their materialized views.

    Attributes:
        lock: Held while the database is used.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._mappings: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def forget(self) -> None:
        """Give the tables up."""
        self._connection.close()

    def make_tables(self) -> None:
        """Make every table of ``schemas.TABLES`` with its mapping and its view."""
        for name, table in TABLES.items():
            raw = f"raw_{name}" if table.key else name
            columns = ", ".join(
                f"{each.name}:{kusto_name(each.type)}" for each in table.schema
            )
            paths = [
                {"column": column, "Properties": {"Path": f"$['{column}']"}}
                for column in table.schema.names
            ]
            self.command(f".create-merge table {raw} ({columns})")
            self.command(
                f".create-or-alter table {raw} ingestion json mapping "
                f"\"{name}_json\" '{json.dumps(paths)}'"
            )
            if table.key:
                self.command(
                    f".create-or-alter materialized-view {name} on table {raw} "
                    f"{{ {raw} | summarize take_any(*) by {', '.join(table.key)} }}"
                )

    def sql(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the tables, past the API."""
        with self.lock:
            return self._connection.execute(text, values).fetchall()

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self.sql(f'SELECT count(*) FROM "{table}"')[0][0])

    def query(self, text: str, parameters: dict[str, Any]) -> Result:
        """Run KQL.

        Raises:
            RefusedError: It is wrong.
        """
        text = re.sub(r"^\s*set\s+notruncation\s*;", "", text)
        try:
            kinds = {each.name: each.type for each in query_parameters(text)}
            values = {
                name: int(value) if kinds.get(name) == "long" else value
                for name, value in parameters.items()
            }
            with self.lock:
                answer = kql(self._connection, text, values or None, None, False)
                columns = [
                    RestColumn.derived(name, kusto_type(kind))
                    for name, kind in zip(answer.columns, answer.types, strict=True)
                ]
                return Result(columns, answer.fetchall())
        except (KqlError, duckdb.Error, ValueError) as exc:
            message = f"Semantic error: {exc}"
            raise RefusedError(message, "General_BadRequest") from exc

    def command(self, text: str) -> Result:  # noqa: PLR0911
        """Run a management command.

        Raises:
            RefusedError: It is not understood here.
        """
        text = "\n".join(
            line for line in text.splitlines() if not line.lstrip().startswith("//")
        ).strip()
        if found := _MAKE_TABLE.match(text):
            return self._make_table(found[1], _columns(found[2]))
        if found := _MAKE_MAPPING.match(text):
            return self._make_mapping(found[1], found[2], found[3])
        if found := _MAKE_VIEW.match(text):
            return self._make_view(found[1], found[2], found[3])
        if found := _SHOW_SCHEMA.match(text):
            columns = self._columns(found[1])
            said = ",".join(f"{name}:{kind}" for name, kind in columns.items())
            cells = (found[1], said, DATABASE, "", "")
            return texts("TableName Schema DatabaseName Folder DocString", [cells])
        if found := _SHOW_MAPPING.match(text):
            return self._show_mappings(found[1], found[2])
        if text.startswith(".get ingestion resources"):
            return self.resources()
        if text.startswith(".get kusto identity token"):
            return texts("AuthorizationContext", [("identity-token",)])
        if text.startswith(".show version"):
            return texts("ServiceType", [("Engine",)])
        if text.startswith(".show tables"):
            cells_of = [(name, DATABASE, "", "") for name in self._raw_tables()]
            return texts("TableName DatabaseName Folder DocString", cells_of)
        if _IDEMPOTENT.match(text):
            return texts("Result", [("Completed",)])
        raise RefusedError(f"Syntax error: not understood here: {text[:80]}")

    def resources(self) -> Result:
        """Where clients put what is to be queued."""
        raise RefusedError("This cluster ingests nothing that is queued")

    def insert(self, table: str, lines: bytes, mapping: str | None) -> int:
        """Add JSON lines to a table.

        Returns:
            How many rows there were.

        Raises:
            RefusedError: There is no such table or mapping.
        """
        columns = self._columns(table)
        names = list(columns)
        if mapping is not None:
            if (table, mapping) not in self._mappings:
                message = f"Mapping reference {mapping!r} of {table!r} was not found"
                raise RefusedError(message, "BadRequest_MappingReferenceWasNotFound")
            mapped = {each["column"] for each in self._mappings[table, mapping]}
            names = [name for name in names if name in mapped]
        rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
        kinds = [_TYPES[columns[name]] for name in names]
        taken = pa.table(
            {
                name: pa.array([_cell(row.get(name), columns[name]) for row in rows])
                for name in names
            }
        )
        casts = ", ".join(
            f'CAST("{name}" AS {kind})' for name, kind in zip(names, kinds, strict=True)
        )
        into = ", ".join(f'"{name}"' for name in names)
        with self.lock:
            self._connection.register("taken", taken)
            self._connection.execute(
                f'INSERT INTO "{table}" ({into}) SELECT {casts} FROM taken'
            )
            self._connection.unregister("taken")
        return len(rows)

    def _make_table(self, name: str, columns: dict[str, str]) -> Result:
        with self.lock:
            known = self._tables_columns(name)
            if not known:
                self._connection.execute(
                    f'CREATE TABLE "{name}" ('
                    + ", ".join(f'"{c}" {_TYPES[k]}' for c, k in columns.items())
                    + ")"
                )
            for column, kind in columns.items():
                if known and column not in known:
                    self._connection.execute(
                        f'ALTER TABLE "{name}" ADD COLUMN "{column}" {_TYPES[kind]}'
                    )
                elif known and known[column] != kind:
                    raise RefusedError(
                        f"Column {column!r} has type {known[column]}, not {kind}"
                    )
        schema = ",".join(f"{column}:{kind}" for column, kind in columns.items())
        return texts("TableName Schema", [(name, schema)])

    def _make_mapping(self, table: str, name: str, text: str) -> Result:
        self._columns(table)
        listed = json.loads(text[text.index("[") : text.rindex("]") + 1])
        for each in listed:
            each["column"] = each.get("column") or each.get("Column")
        self._mappings[table, name] = listed
        return self._show_mappings(table, name)

    def _show_mappings(self, table: str, name: str | None) -> Result:
        self._columns(table)
        found = [
            (of, "Json", json.dumps(mapping), DATABASE, table)
            for (whose, of), mapping in self._mappings.items()
            if whose == table and name in {None, of}
        ]
        if name is not None and not found:
            message = f"Mapping reference {name!r} of {table!r} was not found"
            raise RefusedError(message, "BadRequest_MappingReferenceWasNotFound")
        return texts("Name Kind Mapping Database Table", found)

    def _make_view(self, name: str, table: str, text: str) -> Result:
        self._columns(table)
        key = re.search(r"\btake_any\(\*\)\s+by\s+([\w\s,]+)$", text.strip())
        if key is None:
            message = f"The view {name!r} is not of the kind that is known here"
            raise RefusedError(message)
        by = ", ".join(f'"{each.strip()}"' for each in key[1].split(","))
        with self.lock:
            # A view knows the columns that the table had when it was made.
            self._connection.execute(
                f'CREATE OR REPLACE VIEW "{name}" AS '
                f'SELECT DISTINCT ON ({by}) * FROM "{table}"'
            )
        return texts("Name SourceTable", [(name, table)])

    def _columns(self, table: str) -> dict[str, str]:
        found = self._tables_columns(table)
        if not found:
            message = f"Entity ID {table!r} of kind 'Table' was not found."
            raise RefusedError(message, "BadRequest_EntityNotFound")
        return found

    def _tables_columns(self, table: str) -> dict[str, str]:
        found = self.sql(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? "
            "ORDER BY column_index",
            table,
        )
        return {name: kusto_type(kind) for name, kind in found}

    def _raw_tables(self) -> list[str]:
        return [name for (name,) in self.sql("SELECT table_name FROM duckdb_tables()")]


def kusto_name(kind: pa.DataType) -> str:
    """An Arrow type's name in KQL."""
    if pa.types.is_timestamp(kind):
        return "datetime"
    if pa.types.is_list(kind):
        return "dynamic"
    names = {"string": "string", "double": "real", "int64": "long", "bool": "bool"}
    return names[str(kind)]


def texts(names: str, rows: list[Any]) -> Result:
    """An answer of strings: the names of its columns, and its rows."""
    return Result([RestColumn.derived(name, "string") for name in names.split()], rows)


def _cell(value: Any, kind: str) -> Any:
    if kind == "string":
        # A string is never null in Azure Data Explorer.
        return "" if value is None else value
    return json.dumps(value) if kind == "dynamic" and value is not None else value


def _columns(text: str) -> dict[str, str]:
    found = re.findall(rf"{_NAME}\s*:\s*(\w+)", text)
    return dict(found)
