"""Texts in tables, held by Arrow.

A hundred thousand of them cost milliseconds there, where Python's own would take longer
than reading their file.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

TEXT = pd.StringDtype("pyarrow", na_value=np.nan)

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
