"""Texts stay with Arrow, whatever they came in as."""

import pandas as pd
import pyarrow as pa
import pytest

from active_learning.texts import TEXT, hexadecimal, may_hold, to_frame, to_texts


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", None], dtype=object),
        pd.Series(["a", None], dtype=TEXT),
        pd.Series(pd.Categorical(["a", None])),
        pd.concat([pd.Series(["a"], dtype=TEXT), pd.Series([None], dtype=TEXT)]),
    ],
    ids=["objects", "texts", "categories", "two pieces"],
)
def test_a_column_of_any_kind_becomes_one_array(column: pd.Series) -> None:
    texts = to_texts(column)

    assert texts.equals(pa.array(["a", None], pa.large_string()))


def test_a_frame_holds_its_texts_as_arrow_does() -> None:
    table = pa.table({"name": ["a"], "large": pa.array(["b"], pa.large_string())})

    assert to_frame(table).dtypes.tolist() == [TEXT, TEXT]


def test_digests_become_their_digits() -> None:
    digests = [bytes([0, 255]), bytes([16, 1])]

    assert hexadecimal(b"".join(digests), 2).to_pylist() == [d.hex() for d in digests]
    assert hexadecimal(b"", 2).to_pylist() == []


def test_a_mark_that_is_there_is_never_missed() -> None:
    texts = pa.array(["plain", "", None, "wh\ufffdre"])

    assert may_hold(texts, "\ufffd")
    assert not may_hold(texts, "?")
    assert not may_hold(pa.array([], pa.string()), "?")
