"""Microsoft's own KQL parser, which knows a schema and runs no query."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from active_learning.schemas import TABLES
from active_learning.services.adx_tables.commands import (
    BROKEN,
    BROKEN_BODY,
    INVALID,
    INVALID_COLUMNS,
    landing,
)
from active_learning.services.adx_tables.names import columns

_NODE = Path(__file__).parent / "node"
_PARSER = _NODE / "node_modules" / "@kusto" / "language-service-next"

Columns = Mapping[str, str]


class Diagnostic(NamedTuple):
    """What the parser says of one place of a text."""

    code: str
    severity: str
    message: str
    line: int
    column: int


@dataclass(frozen=True)
class Schema:
    """What a text may name: columns by table or view, and the bodies of functions."""

    tables: Mapping[str, Columns] = field(default_factory=dict)
    views: Mapping[str, Columns] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)


def declared() -> Schema:
    """Everything that the commands make, as ``schemas.TABLES`` declares it."""
    every = {name: columns(table.schema) for name, table in TABLES.items()}
    tables = {landing(name, TABLES[name]): every[name] for name in every}
    return Schema(
        tables={**tables, INVALID: INVALID_COLUMNS},
        views={name: every[name] for name in every if TABLES[name].key},
        functions={BROKEN: f"{{ {BROKEN_BODY} }}"},
    )


def check(schema: Schema, texts: Mapping[str, str]) -> dict[str, list[Diagnostic]]:
    """What the parser says of each text; one process for all of them."""
    asked = {
        "schema": {
            "tables": schema.tables,
            "views": schema.views,
            "functions": schema.functions,
        },
        "texts": texts,
    }
    node = shutil.which("node")
    assert node is not None, "skip with `kql_parser` where there is no node"
    done = subprocess.run(
        [node, str(_NODE / "kqlcheck.cjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: [Diagnostic(**each) for each in found]
        for name, found in json.loads(done.stdout).items()
    }


def faults(schema: Schema, texts: Mapping[str, str]) -> dict[str, list[str]]:
    """What is wrong with each text, where something is."""
    return {
        name: [f"{each.line}:{each.column} {each.message}" for each in found]
        for name, found in check(schema, texts).items()
        if any(each.severity == "Error" for each in found)
    }


@pytest.fixture(scope="session")
def kql_parser() -> None:
    """Skip where there is no parser, and say what is missing."""
    if shutil.which("node") is None:
        pytest.skip("Microsoft's KQL parser needs node.")
    if not _PARSER.is_dir():
        pytest.skip(f"Microsoft's KQL parser needs: npm ci --prefix {_NODE}")
