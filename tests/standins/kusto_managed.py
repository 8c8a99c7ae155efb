"""A cluster whose tables are made by commands: it keeps policies and tells its schema.

As on a real one, ``ifnotexists`` leaves a view as it is, a view follows its table's
columns only where it was told to, and nothing is set on what is not there.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from duckdb_kql.server import Result
from tests.standins.azurite import Azurite
from tests.standins.kusto import Kusto
from tests.standins.kusto_faults import RefusedError
from tests.standins.kusto_tables import DATABASE, texts

_POLICY = re.compile(
    r"\.alter(?:-merge)?\s+(table|materialized-view)\s+(\w+)\s+"
    r"(?:policy\s+(\w+)|(docstring|column-docstrings))\s*(.*)$",
    re.DOTALL,
)
_VIEW = re.compile(
    r"\.create\s+(async\s+)?ifnotexists\s+materialized-view\s+with\s+\((.*?)\)\s+"
    r"(\w+)\s+on\s+table\s+(\w+)",
    re.DOTALL,
)
_FUNCTION = re.compile(
    r"\.create-or-alter\s+function\s+with\s+\(.*\)\s+(\w+)\(\)\s*\{(.*)\}\s*$",
    re.DOTALL,
)
_DOTNET = {
    "string": "System.String",
    "long": "System.Int64",
    "int": "System.Int32",
    "real": "System.Double",
    "bool": "System.SByte",
    "datetime": "System.DateTime",
    "dynamic": "System.Object",
}


class ManagedKusto(Kusto):
    """A cluster without a table, to which all management commands are told.

    Args:
        azurite: Where clients put blobs and messages; without it nothing is queued.
        check_tokens: Refuse a request whose bearer token is missing or has expired.

    Attributes:
        policies: What was said last, by entity and by what it is about.
        functions: Bodies by name.
        disabled: Views that the cluster has stopped to fill.
        operations: States that ``.show operations`` tells, one after the other; then
            Completed.
        says_kql_types: Whether a schema has ``CslType`` beside the type of .NET.
    """

    def __init__(
        self, azurite: Azurite | None = None, check_tokens: bool = False
    ) -> None:
        super().__init__(azurite, tables=False, check_tokens=check_tokens)
        self.policies: dict[tuple[str, str], str] = {}
        self.functions: dict[str, str] = {}
        self.disabled: set[str] = set()
        self.operations: list[str] = []
        self.says_kql_types = True
        self._views: dict[str, tuple[str, str, bool]] = {}

    def command(self, text: str) -> Result:  # noqa: PLR0911
        """Run a management command."""
        if re.match(r"\.show database \S+ schema as json$", text):
            return self._schema()
        if text == ".show materialized-views":
            said = [(name, str(name not in self.disabled)) for name in self._views]
            return texts("Name IsEnabled", said)
        if text.startswith(".show operations "):
            state = self.operations.pop(0) if self.operations else "Completed"
            return texts("OperationId State Status", [(text[17:], state, "as told")])
        if text == ".clear database cache streamingingestion schema":
            return texts("NodeId Status", [("1", "Succeeded")])
        if found := _POLICY.match(text):
            return self._keep(found)
        if found := _FUNCTION.match(text):
            self.functions[found[1]] = found[2]
            return texts("Name", [(found[1],)])
        if found := _VIEW.match(text):
            return self._view(text, found)
        answer = super().command(text)
        if text.startswith(".create-merge table"):
            self._follow()
        return answer

    def forget_view(self, name: str) -> None:
        """Drop a view, as somebody may by hand."""
        del self._views[name]
        self.sql(f'DROP VIEW "{name}"')

    def _keep(self, found: re.Match[str]) -> Result:
        kind, entity, policy, doc, said = found.groups()
        there = self._views if kind == "materialized-view" else self._raw_tables()
        if entity not in there:
            message = f"Entity ID '{entity}' of kind '{kind}' was not found."
            raise RefusedError(message, "BadRequest_EntityNotFound")
        self.policies[entity, policy or doc] = said.strip()
        return texts("PolicyName Policy", [(policy or doc, said)])

    def _view(self, text: str, found: re.Match[str]) -> Result:
        in_background, properties, name, table = found.groups()
        if name not in self._views:
            follows = "autoUpdateSchema = true" in properties
            query = text[text.index("{") :]
            self._views[name] = (table, query, follows)
            self._remake(name)
        if in_background:
            return texts("OperationId", [(str(uuid4()),)])
        return texts("Name SourceTable", [(name, table)])

    def _remake(self, name: str) -> None:
        table, query, _ = self._views[name]
        super().command(f".create materialized-view {name} on table {table} {query}")

    def _follow(self) -> None:
        for name, (_, _, follows) in self._views.items():
            if follows:
                self._remake(name)

    def _schema(self) -> Result:
        entities = {
            "Tables": self._raw_tables(),
            "MaterializedViews": list(self._views),
        }
        said: dict[str, Any] = {
            kind: {name: self._entity(name) for name in names}
            for kind, names in entities.items()
        }
        said |= {"Name": DATABASE, "Functions": {name: {} for name in self.functions}}
        return texts("DatabaseSchema", [(json.dumps({"Databases": {DATABASE: said}}),)])

    def _entity(self, name: str) -> dict[str, Any]:
        ordered = [
            {"Name": column, "Type": _DOTNET[kind]}
            | ({"CslType": kind} if self.says_kql_types else {})
            for column, kind in self._columns(name).items()
        ]
        return {"Name": name, "OrderedColumns": ordered}


@pytest.fixture
def managed_kusto() -> Iterator[ManagedKusto]:
    """A cluster without a table."""
    with ManagedKusto() as cluster:
        yield cluster
