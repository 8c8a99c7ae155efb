"""Near-duplicates: who of a ranking stays when twins are asked about once."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from active_learning.acquisition.pool import Float32Array, FloatArray, IntArray

UInt64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

# Which of (A,) rows and (B,) rows are twins: (A, B).
_Alike = Callable[[IntArray, IntArray], BoolArray]

_BLOCK = 512

# Twins have a cosine of 1, which rounding may leave a little short of it.
_ROUNDING = 1e-12


def distinct(order_vectors: Float32Array, budget: int, similarity: float) -> IntArray:
    """Walk down a ranking and pass over what looks like an image already kept.

    Args:
        order_vectors: (N, D) embeddings, most useful first. A vector of zeros has no
            direction and is like no other.
        budget: Stop when so many are kept.
        similarity: Of cosine, from which on two images are twins.

    Returns:
        (up to budget,) rows, in the order of the ranking.
    """

    def directions(rows: IntArray) -> FloatArray:
        vectors = order_vectors[rows].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: FloatArray = vectors / np.where(norms > 0, norms, 1.0)
        return unit

    def alike(some: IntArray, others: IntArray) -> BoolArray:
        cosines = directions(some) @ directions(others).T
        twins: BoolArray = cosines >= similarity - _ROUNDING
        return twins

    return _walk(len(order_vectors), budget, alike)


def distinct_hashes(
    order_hashes: UInt64Array, budget: int, max_distance: int
) -> IntArray:
    """Walk down a ranking and pass over a perceptual hash near one already kept.

    Args:
        order_hashes: (N,) of 64 bits, most useful first.
        budget: Stop when so many are kept.
        max_distance: In bits, up to which two images are twins.

    Returns:
        (up to budget,) rows, in the order of the ranking.
    """

    def alike(some: IntArray, others: IntArray) -> BoolArray:
        differing = order_hashes[some][:, None] ^ order_hashes[others][None, :]
        twins: BoolArray = np.bitwise_count(differing) <= max_distance
        return twins

    return _walk(len(order_hashes), budget, alike)


def _walk(n: int, budget: int, alike: _Alike) -> IntArray:
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, n, _BLOCK):
        if len(kept) >= budget:
            break
        rows = np.arange(start, min(start + _BLOCK, n))
        for first in range(0, len(kept), _BLOCK):
            rows = rows[~alike(rows, kept[first : first + _BLOCK]).any(axis=1)]
        fresh = _walk_block(alike(rows, rows), budget - len(kept))
        kept = np.concatenate([kept, rows[fresh]])
    return kept


def _walk_block(twins: BoolArray, budget: int) -> list[int]:
    free = np.ones(len(twins), dtype=bool)
    kept: list[int] = []
    while len(kept) < budget and free.any():
        row = int(free.argmax())
        kept.append(row)
        free &= ~twins[row]
        free[row] = False
    return kept
