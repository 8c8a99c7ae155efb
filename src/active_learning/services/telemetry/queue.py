"""The tables of a spool's SQLite file: rows in their order, and whose turn they are."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

# AUTOINCREMENT: a number that was used once names no other row, or two batches would
# bear one name and the sink would take the second for the first.
TABLES = """
CREATE TABLE IF NOT EXISTS spool (only INTEGER PRIMARY KEY CHECK (only = 1), uuid TEXT);
CREATE TABLE IF NOT EXISTS queue (seq INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT);
CREATE TABLE IF NOT EXISTS journal
    (only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT, read INTEGER);
CREATE TABLE IF NOT EXISTS claimed
    (only INTEGER PRIMARY KEY CHECK (only = 1), first INTEGER, last INTEGER);
CREATE TABLE IF NOT EXISTS rejected (seq INTEGER PRIMARY KEY, row TEXT, reason TEXT);
"""
# Two questions: SQLite finds one end of a table at once, but scans for both.
_ENDS = "SELECT (SELECT min(seq) FROM queue), (SELECT max(seq) FROM queue)"

# So many rows go in and out by one step. Each step gives Python's lock away and asks
# for it again, which holds up the requests that are being answered.
_AT_ONCE = 1000


class Claim(NamedTuple):
    """Rows that one drainer is to deliver.

    Attributes:
        batch: The same for the same rows, also after a crash.
        first: Number of the first row.
        last: Number of the last row; none between is missing.
        rows: As they were put, in their order.
    """

    batch: str
    first: int
    last: int
    rows: tuple[str, ...]


def insert(connection: sqlite3.Connection, rows: Sequence[str]) -> None:
    """Add rows behind all others."""
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(
            "INSERT INTO queue (row) SELECT value FROM json_each(?) ORDER BY id",
            [json.dumps(rows[start : start + _AT_ONCE])],
        )


def _rows(connection: sqlite3.Connection, first: int, last: int) -> Iterator[str]:
    for start in range(first, last + 1, _AT_ONCE):
        (found,) = connection.execute(
            "SELECT json_group_array(row) FROM "
            "(SELECT row FROM queue WHERE seq BETWEEN ? AND ? ORDER BY seq)",
            (start, min(start + _AT_ONCE - 1, last)),
        ).fetchone()
        yield from json.loads(found)


def waiting(connection: sqlite3.Connection) -> int:
    """How many rows there are."""
    # Rows come and go at the ends alone, so that their numbers have no gaps.
    first, last = connection.execute(_ENDS).fetchone()
    return 0 if first is None else int(last - first + 1)


def _uuid(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT uuid FROM spool").fetchone()[0])


def claimed(connection: sqlite3.Connection, limit: int) -> Claim | None:
    """The rows that are claimed, or else the oldest, which are claimed from now on."""
    ends = connection.execute("SELECT first, last FROM claimed").fetchone()
    if ends is None:
        ends = connection.execute(
            "SELECT min(seq), max(seq) FROM "
            "(SELECT seq FROM queue ORDER BY seq LIMIT ?)",
            (limit,),
        ).fetchone()
        if ends[0] is None:
            return None
        connection.execute("INSERT INTO claimed VALUES (1, ?, ?)", ends)
    first, last = ends
    batch = f"{_uuid(connection)}-{first:012d}-{last:012d}"
    return Claim(batch, first, last, tuple(_rows(connection, first, last)))


def forget(
    connection: sqlite3.Connection, claim: Claim, rejected: Mapping[int, str]
) -> None:
    """Remove the rows of a claim; those rejected, by their place in it, move."""
    if not claim.batch.startswith(_uuid(connection)):
        return  # The file was set aside since; these are another's numbers.
    connection.executemany(
        "INSERT INTO rejected (seq, row, reason) VALUES (?, ?, ?)",
        [
            (claim.first + place, claim.rows[place], reason)
            for place, reason in rejected.items()
        ],
    )
    connection.execute(
        "DELETE FROM queue WHERE seq BETWEEN ? AND ?", (claim.first, claim.last)
    )
    connection.execute("DELETE FROM claimed WHERE first = ?", (claim.first,))
