"""What stands behind the cache: where a digest is, among many."""

import numpy as np
import pytest

from active_learning.imaging.cache import DigestIndex, Stack

ALIKE = b"the same"


def digests(numbers: list[int], start: bytes) -> np.ndarray:
    """One of 16 bytes for each number; ``start`` is eight of them."""
    joined = b"".join(start + number.to_bytes(8) for number in numbers)
    return np.frombuffer(joined, dtype="S16")


def spread(numbers: list[int]) -> np.ndarray:
    """Digests of which no two begin alike."""
    joined = b"".join(number.to_bytes(8) * 2 for number in numbers)
    return np.frombuffer(joined, dtype="S16")


def filled(*portions: np.ndarray) -> DigestIndex:
    stack = Stack(np.dtype("S16"))
    index = DigestIndex(stack.take)
    for portion in portions:
        stack.append(portion)
        index.extend(portion)
    return index


@pytest.mark.parametrize("sizes", [[1], [1] * 40, [100, 1, 50, 1], [3, 9, 27, 81]])
def test_each_digest_is_found_where_it_came(sizes: list[int]) -> None:
    numbers = np.random.default_rng(0).permutation(sum(sizes)).tolist()
    portions = np.split(spread(numbers), np.cumsum(sizes)[:-1])

    index = filled(*portions)

    assert index.find(spread(numbers)).tolist() == list(range(len(numbers)))
    assert index.find(spread([len(numbers), 10**9])).tolist() == [-1, -1]


def test_digests_that_begin_alike_are_told_apart() -> None:
    index = filled(digests([5, 1], ALIKE), digests([7], ALIKE), digests([3], ALIKE))

    found = index.find(digests([1, 3, 5, 7, 2], ALIKE))

    assert found.tolist() == [1, 3, 0, 2, -1]


def test_of_equal_digests_the_first_counts() -> None:
    index = filled(spread([1, 2, 1]), spread([2, 3, 3]), spread([1] * 50))

    assert index.find(spread([1, 2, 3])).tolist() == [0, 1, 4]


def test_nothing_is_found_in_nothing() -> None:
    assert filled().find(spread([1, 2])).tolist() == [-1, -1]
    assert filled(spread([1])).find(spread([])).tolist() == []
