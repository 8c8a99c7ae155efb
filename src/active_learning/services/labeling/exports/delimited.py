"""Rows of a CSV file, each with the line it begins on."""

import csv
import re
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from active_learning.services.labeling.exports.rows import Broken, excerpt

DELIMITERS = ",;\t|"

# A quoted field of more lines is a quote that somebody forgot to close.
_MOST_LINES = 100

_LONGEST_HEADER = 100_000

_LINE = re.compile(r"[^\r\n]+")
# A quote amid a field, which Arrow takes for a part of it.
_STRAY = r'[^%s\r\n"]"[^%s\r\n"]'
_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


class Rows(NamedTuple):
    """The columns that were asked for; ``broken`` are the lines that are no row."""

    columns: dict[str, pa.Array]
    line: np.ndarray[Any, np.dtype[np.int64]]
    broken: list[Broken]


def first_line(text: str) -> str:
    """The first line that is not empty."""
    line = _LINE.search(text)
    return line[0] if line else ""


def header(text: str, delimiter: str) -> list[str]:
    """The column names of the first line that is not empty, without space around."""
    # No header is longer, and the reader takes no longer field.
    first = first_line(text)[:_LONGEST_HEADER]
    cells = next(csv.reader([first], delimiter=delimiter), [])
    return [cell.strip() for cell in cells]


def rows(text: str, delimiter: str, wanted: Sequence[int]) -> Rows:
    """Read the rows below the header.

    A row of more or fewer fields than the header, or whose quote is never closed, is
    broken; the rows after it are read.

    Args:
        text: The file; lines end in LF or CRLF, and a quoted field may span some.
        delimiter: What parts the fields.
        wanted: Positions of the columns to read.

    Returns:
        Columns by their position, as text.
    """
    data = text.encode()
    content = np.frombuffer(data, dtype=np.uint8)
    ends = np.append(np.flatnonzero(content == _NEWLINE), len(content))
    starts = np.append(0, ends[:-1] + 1)
    length = ends - starts
    lone = content[np.minimum(starts, len(content) - 1)] == _RETURN
    empty = (length == 0) | ((length == 1) & lone)
    line = np.flatnonzero(~empty) + 1
    names = header(text, delimiter)
    quotes = np.flatnonzero(content == _QUOTE)
    # Without a quote that is still open at a line's end, a line is a row.
    open_at_end = (np.searchsorted(quotes, ends) % 2).any()
    stray = len(quotes) and re.search(_STRAY.replace("%s", delimiter), text)
    if len(line) > 1 and not open_at_end and not stray:
        found = _fast(data, delimiter, len(names), wanted, line)
        if found is not None:
            return found
    return _careful(text, delimiter, len(names), wanted)


def _fast(
    data: bytes,
    delimiter: str,
    width: int,
    wanted: Sequence[int],
    line: np.ndarray[Any, np.dtype[np.int64]],
) -> Rows | None:
    """Read with Arrow; ``None`` where it sees other rows than there are lines."""
    bad: dict[int, str] = {}

    def set_aside(row: pyarrow.csv.InvalidRow) -> str:
        bad[row.number - 1] = _width_reason(row.actual_columns, width, row.text)
        return "skip"

    names = [str(position) for position in range(width)]
    try:
        table = pyarrow.csv.read_csv(
            BytesIO(data),
            # One block: a row of any length fits, and rows are numbered.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=names,
                skip_rows_after_names=1,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, invalid_row_handler=set_aside
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[names[position] for position in wanted],
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows + len(bad) + 1 != len(line):
        return None
    broken = [Broken(int(line[row]), reason) for row, reason in bad.items()]
    return Rows(
        {name: table[name].combine_chunks() for name in table.column_names},
        np.delete(line, [0, *bad]),
        broken,
    )


def _careful(text: str, delimiter: str, width: int, wanted: Sequence[int]) -> Rows:
    """Read row by row, so that a quote that is never closed costs its own line."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    cells: list[list[str]] = []
    line: list[int] = []
    broken: list[Broken] = []
    at, header_seen = 0, False
    while at < len(lines):
        begins, row, reason, at = at, *_row(lines, at, delimiter, width)
        if row == [] and not reason:
            continue
        if not header_seen:
            header_seen = True
        elif reason:
            broken.append(Broken(begins + 1, reason))
        else:
            cells.append(row)
            line.append(begins + 1)
    columns = {
        str(position): pa.array([row[position] for row in cells], pa.string())
        for position in wanted
    }
    return Rows(columns, np.array(line, dtype=np.int64), broken)


def _row(
    lines: list[str], at: int, delimiter: str, width: int
) -> tuple[list[str], str, int]:
    """The row that begins at a line, why it is none, and where the next begins."""
    first = lines[at]
    if not first:
        return [], "", at + 1
    row, reason = _cells(first, delimiter, width)
    if not reason or first.count('"') % 2 == 0:
        return row, reason, at + 1
    joined = first
    for end in range(at + 1, min(at + _MOST_LINES, len(lines))):
        joined = f"{joined}\n{lines[end]}"
        if lines[end].count('"') % 2:
            row, why = _cells(joined, delimiter, width)
            if not why:
                return row, "", end + 1
    return [], reason, at + 1


def _cells(text: str, delimiter: str, width: int) -> tuple[list[str], str]:
    try:
        # A field may hold line ends; the reader wants them as one string.
        row = next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error as exc:
        return [], f"it is no row of CSV ({exc}): {excerpt(text)}"
    if len(row) != width:
        return [], _width_reason(len(row), width, text)
    return row, ""


def _width_reason(fields: int, width: int, text: str) -> str:
    return f"it has {fields} fields where the header has {width}: {excerpt(text)}"
