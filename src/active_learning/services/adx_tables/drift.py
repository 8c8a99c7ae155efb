"""What a cluster has and the code does not, and the other way round."""

from collections.abc import Mapping
from typing import NamedTuple

from active_learning.errors import SchemaError
from active_learning.schemas import TABLES, Table
from active_learning.services.adx_tables.commands import (
    INVALID,
    INVALID_COLUMNS,
    landing,
)
from active_learning.services.adx_tables.names import columns

Columns = Mapping[str, str]


class Found(NamedTuple):
    """The tables and views of a database: columns and types by name, in their order.

    ``disabled`` are views that the service has stopped to fill.
    """

    tables: Mapping[str, Columns]
    views: Mapping[str, Columns]
    disabled: frozenset[str] = frozenset()


class Difference(NamedTuple):
    """One difference; what ``mends`` is whether the commands take it away."""

    said: str
    mends: bool


def differences(found: Found, tables: Mapping[str, Table] = TABLES) -> list[Difference]:
    """Every difference between a database and the code, in the order of the tables."""
    every: list[Difference] = []
    for name, table in tables.items():
        place = landing(name, table)
        every += _of_table(place, columns(table.schema), found)
        if table.key:
            every += _of_view(name, table, found)
    if "predictions" in tables:
        every += _of_table(INVALID, INVALID_COLUMNS, found)
    return every


def refuse_conflicts(every: list[Difference]) -> None:
    """Raise ``SchemaError`` where the commands could not make of it what the code has.

    Nothing has been applied then.
    """
    wrong = [difference.said for difference in every if not difference.mends]
    if wrong:
        raise SchemaError(
            f"{len(wrong)} differences cannot be mended in place; nothing was applied: "
            f"{'; '.join(wrong)}. Move the rows to another table (.set-or-append) and "
            "drop this one, or give the column another name in schemas.py."
        )


def to_refill(found: Found, tables: Mapping[str, Table] = TABLES) -> frozenset[str]:
    """Views that are not there although the table they read is."""
    return frozenset(
        name
        for name, table in tables.items()
        if table.key
        and name not in found.views
        and landing(name, table) in found.tables
    )


def _of_table(name: str, wanted: Columns, found: Found) -> list[Difference]:
    if name in found.views:
        return [Difference(f"{name} is a view where the code has a table", mends=False)]
    if name not in found.tables:
        return [Difference(f"the table {name} is not there", mends=True)]
    return _of_columns(name, wanted, found.tables[name])


def _of_view(name: str, table: Table, found: Found) -> list[Difference]:
    if name in found.tables:
        return [Difference(f"{name} is a table where the code has a view", mends=False)]
    if name not in found.views:
        return [Difference(f"the view {name} is not there", mends=True)]
    there = found.views[name]
    every = _of_columns(name, columns(table.schema), there)
    # summarize puts what it groups by first.
    by = tuple(there)[: len(table.key)]
    if by != table.key:
        said = f"the view {name} counts once by {list(by)}, not by {list(table.key)}"
        every.append(Difference(said, mends=False))
    if name in found.disabled:
        said = f"the view {name} is disabled: .enable materialized-view {name}"
        every.append(Difference(said, mends=True))
    return every


def _of_columns(name: str, wanted: Columns, there: Columns) -> list[Difference]:
    every = [
        Difference(f"{name}.{column} is not there", mends=True)
        if column not in there
        else Difference(f"{name}.{column} is {there[column]}, not {kind}", mends=False)
        for column, kind in wanted.items()
        if there.get(column) != kind
    ]
    every += [
        Difference(f"{name}.{column} ({kind}) is not in the code", mends=True)
        for column, kind in there.items()
        if column not in wanted
    ]
    return every
