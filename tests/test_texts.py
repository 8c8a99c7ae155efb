"""Texts stay with Arrow, whatever they came in as."""

from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from active_learning.texts import (
    TEXT,
    among,
    hexadecimal,
    in_order,
    may_hold,
    n_unlike,
    surely_unlike,
    to_frame,
    to_texts,
    trimmed,
)


def alike(seed: int) -> list[str]:
    """Texts that share their beginnings, some with a zero where another ends."""
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 20, size=random.integers(0, 12))
    return ["".join(random.choice(list("a\0é\U0001f600"), size)) for size in sizes]


LISTS = [[], [""], ["same", "same"], *(alike(seed) for seed in range(200))]


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


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["", None],
        ["a", " b", "c"],
        ["a", "b\n", ""],
        ["a b", "\u3000c"],
        ["a", None, "b\u00a0"],
        [" ", "\x1f", "\u2003"],
        ["é", "plain"],
    ],
)
def test_no_space_is_left_around_a_text(
    texts: list[str | None], kind: pa.DataType
) -> None:
    part = pa.array([" before", *texts], kind).slice(1)

    assert trimmed(part).equals(pc.utf8_trim_whitespace(part))
    assert trimmed(pa.array(texts, kind)).to_pylist() == [
        text and text.strip() for text in texts
    ]


def test_texts_in_order_have_the_order_of_their_characters() -> None:
    for texts in LISTS:
        array = pa.array(texts, pa.string())
        part = pa.array(["before", *texts], pa.large_string()).slice(1)

        assert in_order(array).to_pylist() == sorted(texts)
        assert in_order(part).to_pylist() == sorted(texts)


def test_equal_texts_are_never_taken_for_unlike() -> None:
    for texts in LISTS:
        array = pa.array(texts, pa.string())

        assert n_unlike(array) == len(set(texts))
        assert len(set(texts)) == len(texts) or not surely_unlike(array)


def test_digests_are_surely_unlike() -> None:
    digests = [sha256(bytes([n])).hexdigest() for n in range(200)]

    assert surely_unlike(pa.array(digests))
    assert not surely_unlike(pa.array([*digests, digests[7]]))


@pytest.mark.parametrize("dtype", [object, TEXT])
def test_texts_are_found_among_others_of_any_kind(dtype: Any) -> None:
    column = pd.Series(["a", "b", "", None]).astype(dtype)

    assert among(column, pd.Series(["b", "", "c"])).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert not among(column, pd.Series([], dtype=object)).any()
