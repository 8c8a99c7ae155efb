"""A table as a folder of Parquet parts: many append, many read, one compacts.

A part appears by a rename, whole or not at all. A compacted part names in its own
footer the parts it replaces, so that one rename both shows it and hides them; they are
deleted later, when no reader can still hold them in its list.
"""

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.acero  # or group_by imports it, in a thread amid a fork
import pyarrow.compute as pc
import pyarrow.parquet as pq

from active_learning.errors import SchemaError
from active_learning.files import alone, replacing
from active_learning.schemas import TABLES, UNLIKE
from active_learning.texts import surely_unlike

logger = logging.getLogger(__name__)

_REPLACES = b"replaces"
_COMPACTED = "compacted-"
# Beside the parts, under names that no glob over *.parquet takes for one.
_DAMAGED = ".damaged"
_LOCK = ".compaction.lock"
_ROW_GROUP = 122_880
# Worth a dictionary; one of values that hardly repeat takes time and saves nothing.
_REPEATING = {
    "batch_id",
    "label",
    "labeled_at",
    "labeler",
    "model_name",
    "model_version",
    "reason",
    "requested_at",
    "scored_at",
    "source",
    "strategy",
}


class Footer(NamedTuple):
    """What is known of a part without reading its rows."""

    n_rows: int
    columns: frozenset[str]
    replaces: frozenset[str]
    written_ns: int


class Compaction(NamedTuple):
    """What a compaction did."""

    merged: int
    n_rows: int
    doubles: int
    deleted: int


class Parts:
    """One table's parts.

    Args:
        folder: Holds them; made by the first append.
        table: A name in ``active_learning.schemas.TABLES``; gives columns, types and
            the key by which a row counts once.
    """

    def __init__(self, folder: Path, table: str) -> None:
        """Describe the folder; nothing is read yet."""
        self.folder = folder
        self.table = table
        self.schema, self.key = TABLES[table]
        self._repeating = [
            "classes.list.element" if name == "classes" else name
            for name in self.schema.names
            if name in {*_REPEATING, "classes"}
        ]
        self._compression = {
            f"{field.name}.list.element"
            if pa.types.is_list(field.type)
            else field.name: ("none" if field.name in UNLIKE else "snappy")
            for field in self.schema
        }
        self._footers: dict[tuple[str, int, int], Footer] = {}

    def append(self, rows: pa.Table, part: str | None = None) -> None:
        """Add rows as one part.

        Args:
            rows: In the table's columns and types.
            part: Its name. The same name twice is one part, so a batch that is sent
                again under its own name counts once. ``None`` takes it from the keys
                of the rows; rows without keys are a part of their own.

        Raises:
            SchemaError: The rows have other columns or types; nothing was added.
        """
        if not rows.schema.equals(self.schema):
            raise SchemaError(
                f"{rows.num_rows} rows do not fit the table {self.table!r}: it has "
                f"{_columns(self.schema)}, they have {_columns(rows.schema)}."
            )
        name = part or (batch_name(rows, self.key) if self.key else uuid4().hex)
        with replacing(self.folder / f"{name}.parquet") as temporary:
            pq.write_table(
                rows,
                temporary,
                row_group_size=_ROW_GROUP,
                use_dictionary=self._repeating,
                compression=self._compression,
            )

    def current(self) -> list[Path]:
        """The parts that make up the table now, by name.

        A part that was compacted away is not among them, whether it is deleted yet or
        not. A damaged one is named in the log and set aside under another suffix, so
        that the rest still answers.

        Raises:
            SchemaError: A part lacks a column of the key; it is named.
        """
        return sorted(self._current())

    def read(self, parts: Iterable[Path] | None = None) -> pa.Table:
        """All rows, once each: a row that was appended twice counts once.

        Args:
            parts: Some of ``current``; all without it.

        Raises:
            SchemaError: A part lacks a column or has another type in it; it is named.
        """
        while parts is None:
            chosen = self.current()
            try:
                return self.read(chosen)
            except SchemaError:
                if all(part.exists() for part in chosen):
                    raise
                logger.info(
                    "A part of %r was compacted away; reading again", self.table
                )
        tables = [self._rows(part) for part in parts]
        rows = pa.concat_tables([self.schema.empty_table(), *tables])
        return once(rows, self.key)

    def remove(self, parts: Iterable[Path]) -> None:
        """Delete parts whose rows are safe elsewhere."""
        for part in parts:
            part.unlink(missing_ok=True)

    def compact(self, at_least: int, target_rows: int, grace_s: float) -> Compaction:
        """Merge small parts into large ones, unless somebody else does so now.

        Args:
            at_least: So many small parts must have piled up.
            target_rows: A part of so many rows is large and is left alone.
            grace_s: Replaced parts are kept for so long: no query may take longer.

        Returns:
            What was done; zeros where there was nothing to do.
        """
        nothing = Compaction(0, 0, 0, 0)
        if not self.folder.is_dir():
            return nothing
        with alone(self.folder / _LOCK) as lock:
            if lock is None:
                return nothing
            deleted = self._sweep(grace_s)
            small = {
                part: footer
                for part, footer in self._current().items()
                if footer.n_rows < target_rows
            }
            if len(small) < at_least:
                return nothing._replace(deleted=deleted)
            merged = n_rows = doubles = 0
            for group in self._groups(small, target_rows):
                rows = self.read(group)
                before = sum(small[part].n_rows for part in group)
                self._publish(rows, group)
                merged += len(group)
                n_rows += rows.num_rows
                doubles += before - rows.num_rows
        logger.info(
            "Compacted %d parts of %r: %d rows, %d of them had been double",
            merged,
            self.table,
            n_rows,
            doubles,
        )
        return Compaction(merged, n_rows, doubles, deleted)

    def _publish(self, rows: pa.Table, group: list[Path]) -> None:
        if "scored_at" in rows.column_names:
            # In the order of time, so that a query for one window skips the rest.
            rows = rows.sort_by("scored_at")
        names = json.dumps([part.name for part in group]).encode()
        stamped = rows.replace_schema_metadata({_REPLACES: names})
        self.append(stamped, f"{_COMPACTED}{uuid4().hex}")

    def _groups(
        self, parts: dict[Path, Footer], target_rows: int
    ) -> Iterator[list[Path]]:
        """Neighbors that together hold about as many rows as a large part."""
        group: list[Path] = []
        n_rows = 0
        for part in sorted(parts, key=lambda part: (parts[part].written_ns, part)):
            group.append(part)
            n_rows += parts[part].n_rows
            if n_rows >= target_rows:
                yield group
                group, n_rows = [], 0
        if len(group) > 1:
            yield group

    def _sweep(self, grace_s: float) -> int:
        """Delete what was replaced, and what killed writers left, long enough ago."""
        now = time.time()
        swept = 0
        found = self._found()
        for footer in found.values():
            if now - footer.written_ns / 1e9 >= grace_s:
                for name in footer.replaces:
                    swept += self._delete_with_its_own(self.folder / name, found)
        for leftover in self.folder.glob(".*.tmp"):
            # Most belong to writers that live, and are gone a moment later.
            with suppress(FileNotFoundError):
                if now - leftover.stat().st_mtime >= max(grace_s, 86_400):
                    leftover.unlink()
        return swept

    def _delete_with_its_own(self, part: Path, found: dict[Path, Footer]) -> int:
        """Delete a replaced part after all that it had itself replaced.

        Were it deleted first, they would be rows again.
        """
        if not part.exists():
            return 0
        footer = found.get(part)
        deleted = sum(
            self._delete_with_its_own(self.folder / name, found)
            for name in (footer.replaces if footer else ())
        )
        part.unlink(missing_ok=True)
        return deleted + 1

    def _current(self) -> dict[Path, Footer]:
        found = self._found()
        replaced = {name for footer in found.values() for name in footer.replaces}
        current = {
            part: footer for part, footer in found.items() if part.name not in replaced
        }
        for part, footer in current.items():
            self._refuse_without_key(part, footer.columns)
        return current

    def _found(self) -> dict[Path, Footer]:
        """Every part that can be read, replaced or not.

        When one went away since it was listed, its rows may be in a part that was not
        there to be listed: then all are looked at again.
        """
        while True:
            try:
                found = {part: self._footer(part) for part in self._listed()}
            except FileNotFoundError:
                continue
            return {part: footer for part, footer in found.items() if footer}

    def _listed(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [
            Path(entry.path)
            for entry in os.scandir(self.folder)
            if entry.name.endswith(".parquet")
            and not entry.name.startswith(".")
            and entry.is_file()
        ]

    def _footer(self, part: Path) -> Footer | None:
        """Read a part's footer, once; ``None`` if it is damaged.

        Raises:
            OSError: The part cannot be opened now, which says nothing of what it holds.
        """
        stat = part.stat()
        known = (part.name, stat.st_mtime_ns, stat.st_size)
        if known not in self._footers:
            try:
                metadata = pq.read_metadata(part)
            except (pa.ArrowInvalid, OSError) as exc:
                if isinstance(exc, OSError) and exc.errno is not None:
                    raise
                self._set_aside(part, exc)
                return None
            columns = frozenset(metadata.schema.to_arrow_schema().names)
            stored = (metadata.metadata or {}).get(_REPLACES, b"[]")
            self._footers[known] = Footer(
                metadata.num_rows,
                columns,
                frozenset(json.loads(stored)),
                stat.st_mtime_ns,
            )
        return self._footers[known]

    def _set_aside(self, part: Path, why: Exception) -> None:
        aside = part.with_name(f"{part.name}{_DAMAGED}")
        logger.error(
            "The part %r of the table %r in %s cannot be read and is set aside as %r; "
            "its rows are missing from every answer: %s",
            part.name,
            self.table,
            self.folder,
            aside.name,
            why,
        )
        try:
            part.rename(aside)
        except OSError as exc:
            logger.warning("It could not be renamed and is passed over: %s", exc)

    def _rows(self, part: Path) -> pa.Table:
        try:
            rows = pq.read_table(part)
        except (pa.ArrowInvalid, OSError) as exc:
            raise SchemaError(
                f"The part {part.name!r} of the table {self.table!r} in {self.folder} "
                f"cannot be read: {exc}. Move it out of the folder; the other parts "
                "hold their own rows."
            ) from exc
        self._refuse_without_key(part, rows.column_names)
        return fit(rows, self.schema, f"The part {part.name!r} of {self.table!r}")

    def _refuse_without_key(self, part: Path, columns: Collection[str]) -> None:
        lost = [name for name in self.key if name not in columns]
        if lost:
            raise SchemaError(
                f"The part {part.name!r} of the table {self.table!r} in {self.folder} "
                f"lacks {lost}, by which its rows count once. Move it out of the "
                "folder; the other parts hold their own rows."
            )


def fit(rows: pa.Table, schema: pa.Schema, whose: str) -> pa.Table:
    """Bring rows of another time into today's columns.

    Args:
        rows: May have columns that are not asked for; they are left out.
        schema: A column that is missing becomes null.
        whose: Names the rows in an error.

    Raises:
        SchemaError: A column has a type that does not become the schema's.
    """
    columns = [
        rows.column(field.name)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    try:
        return pa.table(columns, names=schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise SchemaError(f"{whose} has a column of another type: {exc}") from exc


def batch_name(rows: pa.Table, key: Sequence[str]) -> str:
    """A name for a batch by the keys of its rows, the same whenever it is sent."""
    columns = [rows.column(name).cast(pa.string()).fill_null("None") for name in key]
    values = pa.concat_arrays([column.combine_chunks() for column in columns])
    # Joined inside Arrow: a million ids as Python texts would take a second.
    together = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    joined = pc.binary_join(together, "\0")
    return blake2b(joined[0].as_buffer(), digest_size=16).hexdigest()


def once(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Keep the first row of each key, in the order they stand; no key keeps all."""
    if not key or _surely_once(rows, key):
        return rows
    numbers = pa.array(np.arange(rows.num_rows))
    numbered = rows.select(key).append_column("_row", numbers)
    first = numbered.group_by(list(key)).aggregate([("_row", "min")])
    if first.num_rows == rows.num_rows:
        return rows
    return rows.take(first.column("_row_min").combine_chunks().sort())


def _surely_once(rows: pa.Table, key: Sequence[str]) -> bool:
    column = rows.column(key[0])
    if not pa.types.is_string(column.type) or column.null_count:
        return False
    # What differs in one part of the key differs in the key.
    return surely_unlike(column.cast(pa.large_string()).combine_chunks())


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
