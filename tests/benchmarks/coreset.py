"""Greedy coreset of a large pool, against other libraries' own, on the same vectors.

500 of 50,000 x 512 float32 (quick: 100 of 10,000) from a start of 100 labels. The
vectors are made up as a classifier's features are: a hundred classes, within a class a
few dozen directions of which some matter most, negative parts cut off, length 1 - at
which cosines, by which small-text goes, and Euclidean distances pick the same. Each
library is called as its own users call it, with the data in memory and the import
done, in turns with ours. A library that is not there is left out, and the way to
install it is told: into a folder of its own, as small-text brings a package ``tests``
that would hide this one. Then the picks are compared, and the peak of memory, with the
pool itself, is told for a pool and one twice as large.
"""

import os
import sys
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from tests.benchmarks.stage import Ran, interleave, ratios, tell, tell_ratio

from active_learning.acquisition import Pool, rank, sampling_keys
from active_learning.acquisition.diversity import coreset

GOAL = 1 / 5
N_LABELED = 100
NAMES = {"skactiveml": "scikit-activeml", "small_text": "small-text"}
FOLDER = "AL_BENCHMARKED"

Picker = Callable[[Pool], list[int]]


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    # At the end, so that nothing of ours is hidden.
    sys.path += filter(None, [os.environ.get(FOLDER)])
    n, budget = (10_000, 100) if quick else (50_000, 500)
    pool = make_pool(n, budget)
    tell(f"coreset: {budget} of {n:,} x 512 / other libraries' own")
    theirs: dict[str, Picker] = {"skactiveml": skactiveml, "small_text": small_text}
    for name, picker in theirs.items():
        if find_spec(name) is None:
            tell(
                f"  {NAMES[name]} is not there: pip install --target FOLDER "
                f"{NAMES[name]}, then run again with {FOLDER}=FOLDER"
            )
            continue
        our, their = Timed(ours, pool), Timed(picker, pool)
        # The time of small-text grows with the square of the picks: minutes.
        pairs = interleave(1 if name == "small_text" else repetitions, our, their)
        tell_ratio(f"wall time / {NAMES[name]}", ratios(pairs), GOAL)
        tell_ratio("  processor time", ratios(pairs, "cpu_s"), None)
        same = sum(np.equal(our.picks, their.picks))
        verdict = "the same" if same == budget else "NOT THE SAME"
        tell(f"    {same} of {budget} picks in the same place: {verdict}")
    tell_memory(n, budget)


def make_pool(n: int, budget: int) -> Pool:
    """Made-up features of n images without a label and a few with one."""
    generator = np.random.default_rng(0)
    total = n + N_LABELED
    weights = (generator.standard_normal((64, 512)) / 8).astype(np.float32)
    scale = np.linspace(2, 0.2, 64, dtype=np.float32)
    classes = generator.standard_normal((100, 64), dtype=np.float32)
    latent = generator.standard_normal((total, 64), dtype=np.float32) * scale
    latent += 2 * classes[generator.integers(0, 100, total)]
    vectors = latent @ weights
    vectors += 0.1 * generator.standard_normal((total, 512), dtype=np.float32)
    np.maximum(vectors, 0, out=vectors)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"{number:06d}.png" for number in range(n))
    return Pool(
        names,
        np.full((n, 2), 0.5),
        sampling_keys(names, 1),
        embeddings=vectors[:n],
        labeled_embeddings=vectors[n:],
        budget=budget,
    )


def ours(pool: Pool) -> list[int]:
    """As ``select`` does: rank all, take the budget."""
    order, _ = rank(pool, coreset)
    return [int(row) for row in order[: pool.budget]]


def skactiveml(pool: Pool) -> list[int]:
    """CoreSet of scikit-activeml."""
    from skactiveml.pool import CoreSet

    vectors, targets = together(pool)
    query = CoreSet(random_state=0)
    return [int(row) for row in query.query(vectors, targets, batch_size=pool.budget)]


def small_text(pool: Pool) -> list[int]:
    """The greedy coreset of small-text; it wants those without a label first."""
    from small_text.query_strategies.coresets import greedy_coreset

    vectors, targets = together(pool)
    unlabeled = np.flatnonzero(np.isnan(targets))
    labeled = np.flatnonzero(~np.isnan(targets))
    picks = greedy_coreset(vectors, unlabeled, labeled, pool.budget, normalized=True)
    return [int(row) for row in picks]


def together(pool: Pool) -> tuple[Any, Any]:
    """All vectors, those without a label first, and targets that are NaN for them."""
    assert pool.embeddings is not None
    base = pool.embeddings.base
    assert base is not None
    targets = np.full(len(base), np.nan)
    targets[len(pool) :] = 0
    return base, targets


class Timed:
    """A picker whose time is taken and whose picks are kept."""

    def __init__(self, picker: Picker, pool: Pool) -> None:
        self._picker, self._pool = picker, pool
        self.picks: list[int] = []

    def __call__(self) -> Ran:
        wall, cpu = perf_counter(), process_time()
        self.picks = self._picker(self._pool)
        return Ran(perf_counter() - wall, process_time() - cpu, "")


def tell_memory(n: int, budget: int) -> None:
    """Print how the peak, of what NumPy asks for, grows with the pool."""
    peaks = []
    for size in (n, 2 * n):
        tracemalloc.start()
        pool = make_pool(size, budget)
        tracemalloc.reset_peak()
        ours(pool)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pool.embeddings is not None
        times = peaks[-1] / pool.embeddings.nbytes
        tell(f"  peak of memory / the {size:,} vectors alone: {times:.2f}")
    tell_ratio("peak of memory, twice the pool", [peaks[1] / peaks[0]], 2.0)
