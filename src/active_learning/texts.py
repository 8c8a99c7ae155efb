"""Texts in tables, held by Arrow.

A hundred thousand of them cost milliseconds there, where Python's own would take longer
than reading their file.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

TEXT = pd.StringDtype("pyarrow", na_value=np.nan)

_SPACE, _ASCII = 0x20, 0x7F
_HEAD = 8
_KEPT = np.array([2**64 - 256**lacking for lacking in range(_HEAD + 1)], np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_HELD = {pa.string(): TEXT, pa.large_string(): TEXT}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A frame whose texts stay where they are."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_HELD.get)
    return frame


def to_texts(column: pd.Series) -> pa.Array:
    """A column's texts as one array of Arrow's; what is missing is null."""
    texts = pa.array(column, from_pandas=True)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    return texts.cast(pa.large_string())


def among(column: pd.Series, others: pd.Series) -> NDArray[np.bool_]:
    """(N,) whether each text of a column is one of the others.

    For ``isin`` pandas makes an object of each of the others where Arrow holds the
    column.
    """
    found = pc.is_in(to_texts(column), value_set=to_texts(others))
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def in_order(texts: pa.Array) -> pa.Array:
    """Texts by their UTF-8 bytes, which is by their characters.

    The first bytes are sorted as numbers, in a fraction of the time, and only texts
    that share them are compared.
    """
    heads = _heads(texts)
    order = np.argsort(heads, kind="stable")
    heads = heads[order]
    equal = np.r_[False, heads[1:] == heads[:-1]][: len(heads)]
    tied = np.flatnonzero(equal | np.r_[equal[1:], False][: len(heads)])
    rows = order[tied]
    order[tied] = rows[pc.sort_indices(texts.take(pa.array(rows))).to_numpy()]
    return texts.take(pa.array(order))


def surely_unlike(texts: pa.Array) -> bool:
    """Whether no two texts are equal; of some that are not, it is not sure.

    Digests differ early, so that to sort their first digits as numbers tells, in a
    fraction of the time that a table of them takes.
    """
    first, second = _heads(texts, 0), _heads(texts, _HEAD)
    # Overflow is meant: equal texts have equal numbers, and few others do.
    numbers = np.sort(first * _ODD + second)
    return not (numbers[1:] == numbers[:-1]).any()


def n_unlike(texts: pa.Array) -> int:
    """How many different texts there are."""
    if surely_unlike(texts):
        return len(texts)
    return int(pc.count_distinct(texts).as_py())


def _heads(texts: pa.Array, start: int = 0) -> NDArray[np.uint64]:
    """(N,) eight bytes of each text as a number; 0 for those that a short one lacks."""
    ends, read = _held(texts)
    if len(read) < _HEAD:
        read = np.append(read, np.zeros(_HEAD, dtype=np.uint8))
    # A number begins at every byte; the last ones are moved up to where theirs begins.
    numbers = np.ndarray(len(read) - _HEAD + 1, ">u8", read, strides=(1,))
    starts = ends[:-1] + start
    places = np.minimum(starts, len(numbers) - 1)
    bits = 8 * np.minimum(starts - places, _HEAD - 1).astype(np.uint64)
    lacking = np.clip(start + _HEAD - np.diff(ends), 0, _HEAD)
    heads: NDArray[np.uint64] = numbers[places].astype(np.uint64) << bits
    heads &= _KEPT[lacking]
    return heads


def _held(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(N + 1,) where each text begins and the last one ends, and the bytes of all."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    return ends, np.frombuffer(data or b"", dtype=np.uint8)


def trimmed(texts: pa.Array) -> pa.Array:
    """Texts without space around them, which hardly any has.

    A look at the first and last byte of each is faster than to make all of them anew.
    """
    ends, read = _held(texts)
    filled = np.diff(ends) > 0
    edges = read[ends[:-1][filled]], read[ends[1:][filled] - 1]
    # Of what is not ASCII some is space too.
    if any(((edge <= _SPACE) | (edge > _ASCII)).any() for edge in edges):
        texts = pc.utf8_trim_whitespace(texts)
    return texts


def hexadecimal(digests: bytes, size: int) -> pa.Array:
    """The digits of digests of ``size`` bytes that stand one behind the other."""
    n = len(digests) // size
    ends = np.arange(n + 1, dtype=np.int64) * (2 * size)
    digits = digests.hex().encode()
    return pa.LargeStringArray.from_buffers(n, pa.py_buffer(ends), pa.py_buffer(digits))


def may_hold(texts: pa.Array, mark: str) -> bool:
    """Whether a mark is in any of the texts; now and then it is in none all the same.

    One look at all their bytes is much faster than one at each text, and mostly enough.
    """
    held = texts.buffers()[-1]
    return held is not None and mark.encode() in held.to_pybytes()
