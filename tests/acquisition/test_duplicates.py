"""Who of a ranking stays when twins are asked about once."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from active_learning.acquisition.duplicates import distinct, distinct_hashes


def keep(vectors: ArrayLike, budget: int, similarity: float) -> list[int]:
    rows = distinct(np.asarray(vectors, np.float32), budget, similarity)
    return [int(row) for row in rows]


def naive(vectors: np.ndarray, budget: int, similarity: float) -> list[int]:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept: list[int] = []
    for row, vector in enumerate(vectors):
        if len(kept) < budget and all(vector @ vectors[k] < similarity for k in kept):
            kept.append(row)
    return kept


def test_of_two_twins_the_more_useful_stays() -> None:
    angles = np.radians([0, 5, 90, 93, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    assert keep(vectors, 5, similarity=np.cos(np.radians(10))) == [0, 2, 4]


def test_a_twin_of_what_was_passed_over_may_stay() -> None:
    angles = np.radians([0, 8, 16])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    assert keep(vectors, 5, similarity=np.cos(np.radians(10))) == [0, 2]


def test_the_walk_stops_at_the_budget() -> None:
    assert keep(np.eye(5), 2, 0.9) == [0, 1]
    assert keep(np.eye(5), 9, 0.9) == [0, 1, 2, 3, 4]
    assert keep(np.eye(5), 0, 0.9) == []


def test_length_does_not_matter_and_copies_are_twins_at_one() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(50, 200))
    copies = np.concatenate([vectors, 3 * vectors])

    assert keep(copies, 100, similarity=1.0) == list(range(50))


def test_a_vector_of_zeros_is_like_no_other() -> None:
    assert keep([[0, 0], [1, 0], [0, 0]], 3, 0.5) == [0, 1, 2]


def test_nothing_gives_nothing() -> None:
    assert keep(np.empty((0, 4)), 3, 0.9) == []
    assert distinct_hashes(np.empty(0, np.uint64), 3, 4).tolist() == []


@pytest.mark.parametrize("budget", [40, 700, 5000])
def test_a_long_ranking_is_walked_as_image_by_image(budget: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(1500, 3))

    expected = naive(vectors.astype(np.float32), budget, 0.99)

    assert keep(vectors, budget, 0.99) == expected


def test_hashes_are_twins_up_to_a_number_of_bits() -> None:
    hashes = np.array([0b0000, 0b0001, 0b0111, 0b1111, 2**64 - 1], dtype=np.uint64)

    assert distinct_hashes(hashes, 5, max_distance=0).tolist() == [0, 1, 2, 3, 4]
    assert distinct_hashes(hashes, 5, max_distance=1).tolist() == [0, 2, 4]
    assert distinct_hashes(hashes, 5, max_distance=2).tolist() == [0, 2, 4]
    assert distinct_hashes(hashes, 5, max_distance=4).tolist() == [0, 4]
    assert distinct_hashes(hashes, 1, max_distance=0).tolist() == [0]


def test_many_hashes_are_walked_as_image_by_image() -> None:
    hashes = np.random.default_rng(2).integers(0, 2**14, 1500, dtype=np.uint64)
    kept: list[int] = []
    for row, value in enumerate(hashes):
        if all(int(value ^ hashes[other]).bit_count() > 2 for other in kept):
            kept.append(row)

    assert distinct_hashes(hashes, 5000, max_distance=2).tolist() == kept
