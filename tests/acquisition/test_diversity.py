"""Batches of the diverse: worked examples, known optima and slow, plain oracles."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from active_learning.acquisition import (
    STRATEGIES,
    FloatArray,
    Pool,
    rank,
    sampling_keys,
)
from active_learning.acquisition.diversity import (
    _gradient_distances,
    _squares,
    badge,
    cluster_margin,
    coreset,
    typiclust,
)
from active_learning.errors import PredictionsError

DIVERSE = ["cluster_margin", "typiclust", "coreset", "badge"]


def pool_of(
    embeddings: ArrayLike,
    names: str | list[str] | None = None,
    margins: ArrayLike | None = None,
    labeled: ArrayLike | None = None,
    budget: int = 0,
) -> Pool:
    """Images of two classes; a margin of 0.2 is a lead of the first by 0.2."""
    vectors = np.asarray(embeddings, dtype=np.float32)
    n = len(vectors)
    image_ids = list(names) if names else [f"{number:05d}" for number in range(n)]
    lead = np.full(n, 0.5) if margins is None else np.asarray(margins, dtype=float)
    return Pool(
        tuple(image_ids),
        np.stack([(1 + lead) / 2, (1 - lead) / 2], axis=1),
        sampling_keys(image_ids, 1),
        embeddings=vectors,
        labeled_embeddings=(
            None if labeled is None else np.asarray(labeled, dtype=np.float32)
        ),
        budget=budget,
    )


def on_a_line(*places: float) -> list[list[float]]:
    return [[place] for place in places]


def batch(pool: Pool, name: str) -> list[str]:
    """The names of the images that a strategy asks for, first pick first."""
    order, _ = rank(pool, STRATEGIES[name])
    return [pool.image_ids[row] for row in order[: pool.n_asked]]


def shuffled(pool: Pool, seed: int) -> Pool:
    rows = np.random.default_rng(seed).permutation(len(pool))
    assert pool.embeddings is not None
    return replace(
        pool,
        image_ids=tuple(pool.image_ids[row] for row in rows),
        probabilities=pool.probabilities[rows],
        sampling_keys=pool.sampling_keys[rows],
        embeddings=pool.embeddings[rows],
    )


def blobs(n_each: int, *centers: tuple[float, float]) -> FloatArray:
    generator = np.random.default_rng(0)
    return np.concatenate(
        [center + generator.normal(0, 0.1, (n_each, 2)) for center in centers]
    )


def naive_k_centers(
    vectors: FloatArray, labeled: FloatArray | None, n: int
) -> list[int]:
    """Every distance at every pick, in float64."""
    picks: list[int] = []
    if labeled is None:
        picks.append(int(_squares(vectors - vectors.mean(axis=0)).argmin()))
        nearest = _squares(vectors - vectors[picks[0]])
    else:
        nearest = np.min([_squares(vectors - center) for center in labeled], axis=0)
    nearest[picks] = -1
    while len(picks) < n:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _squares(vectors - vectors[picks[-1]]))
        nearest[picks] = -1
    return picks


def random_pool(n: int = 60) -> Pool:
    generator = np.random.default_rng(3)
    return pool_of(
        generator.normal(size=(n, 5)),
        margins=generator.random(n),
        labeled=generator.normal(size=(4, 5)),
        budget=10,
    )


@pytest.mark.parametrize("name", DIVERSE)
def test_a_batch_does_not_depend_on_row_order(name: str) -> None:
    one, two = shuffled(random_pool(), 1), shuffled(random_pool(), 2)

    first, _ = rank(one, STRATEGIES[name])
    second, _ = rank(two, STRATEGIES[name])

    assert [one.image_ids[n] for n in first] == [two.image_ids[n] for n in second]


@pytest.mark.parametrize("name", DIVERSE)
def test_copies_of_an_image_tie_and_go_by_image_id(name: str) -> None:
    copies = pool_of(np.ones((3, 2)), names="cab", budget=3)

    assert batch(copies, name) == ["a", "b", "c"]


@pytest.mark.parametrize("budget", [0, 1, 9])
@pytest.mark.parametrize("name", DIVERSE)
def test_a_budget_of_any_size_ranks_all(name: str, budget: int) -> None:
    asked = pool_of(blobs(2, (0, 0), (5, 5)), budget=budget)

    order, utilities = rank(asked, STRATEGIES[name])

    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert np.isfinite(utilities).all()


@pytest.mark.parametrize("name", DIVERSE)
@pytest.mark.parametrize("n", [0, 1])
def test_no_image_and_one_image_are_ranked(name: str, n: int) -> None:
    asked = pool_of(np.ones((n, 3)), labeled=np.zeros((2, 3)), budget=5)

    assert rank(asked, STRATEGIES[name])[0].tolist() == list(range(n))


@pytest.mark.parametrize("name", DIVERSE)
def test_without_embeddings_one_is_told_how_to_get_some(name: str) -> None:
    without = replace(pool_of(np.ones((2, 3))), embeddings=None)

    with pytest.raises(PredictionsError, match=r"score\.embeddings to true"):
        STRATEGIES[name](without)


def test_coreset_goes_to_the_ends_and_then_between() -> None:
    line = pool_of(on_a_line(0, 1, 2, 3, 4, 5, 6, 7, 8), names="abcdefghi", budget=5)

    # The mean is e; a is as far as i; then c, g are as far from all as any.
    assert batch(line, "coreset") == ["e", "a", "i", "c", "g"]


def test_coreset_starts_from_what_has_a_label() -> None:
    line = pool_of(
        on_a_line(0, 1, 2, 3, 4), names="abcde", labeled=on_a_line(0.5), budget=2
    )

    assert batch(line, "coreset") == ["e", "c"]


def test_coreset_ranks_the_others_by_their_distance() -> None:
    line = pool_of(on_a_line(0, 10, 7, 1), names="abcd", labeled=[[0.0]], budget=1)

    order, utilities = rank(line, coreset)

    assert [line.image_ids[row] for row in order] == ["b", "c", "d", "a"]
    assert (utilities >= 1).tolist() == [True, False, False, False]


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("shift", [0, 1000])
@pytest.mark.parametrize("n_labeled", [1, 37])
def test_coreset_picks_as_if_every_distance_were_worked_out(
    with_labels: bool, shift: float, n_labeled: int
) -> None:
    generator = np.random.default_rng(4)
    vectors = (generator.normal(size=(3000, 16)) + shift).astype(np.float32)
    labeled = None
    if with_labels:
        labeled = (generator.normal(size=(n_labeled, 16)) + shift).astype(np.float32)
    asked = pool_of(vectors, labeled=labeled, budget=200)

    expected = naive_k_centers(
        vectors.astype(np.float64),
        None if labeled is None else labeled.astype(np.float64),
        200,
    )

    assert batch(asked, "coreset") == [asked.image_ids[row] for row in expected]


def test_coreset_tells_apart_what_float32_cannot() -> None:
    # Of products of float32, |x|^2 + |c|^2 - 2 x c is off by more than this lead.
    vectors = np.zeros((400, 64), dtype=np.float32)
    vectors[:, 0] = 100
    vectors[np.arange(400), 1 + np.arange(400) % 63] = 100
    vectors[277, 1 + 277 % 63] = np.nextafter(np.float32(100), np.float32(101))
    labeled = np.zeros((1, 64), dtype=np.float32)

    asked = pool_of(vectors, labeled=labeled, budget=1)

    assert batch(asked, "coreset") == ["00277"]


def test_coreset_ends_when_all_that_is_left_are_copies() -> None:
    twice = pool_of(on_a_line(0, 4, 0, 4, 0), names="edcba", budget=4)

    # The mean is 1.6, so a at 0 is closest; b is at 4; c, d and e are copies.
    assert batch(twice, "coreset") == ["a", "b", "c", "d"]
    assert (coreset(twice) >= 1).sum() == 2


def test_typiclust_asks_for_the_middle_of_each_blob() -> None:
    vectors = blobs(20, (0, 0), (10, 0), (0, 10))
    vectors[[0, 20, 40]] = [(0, 0), (10, 0), (0, 10)]

    asked = batch(pool_of(vectors, budget=3), "typiclust")

    assert sorted(int(name) // 20 for name in asked) == [0, 1, 2]
    offsets = vectors[[int(name) for name in asked]]
    np.testing.assert_allclose(offsets, np.round(offsets, -1), atol=0.1)


def test_typiclust_passes_over_blobs_that_hold_a_label() -> None:
    vectors = blobs(20, (0, 0), (10, 0), (0, 10))

    asked = pool_of(vectors, labeled=[(10.0, 0.1)], budget=2)

    assert sorted(int(name) // 20 for name in batch(asked, "typiclust")) == [0, 2]


def test_typiclust_serves_the_larger_cluster_first_and_tiny_ones_last() -> None:
    generator = np.random.default_rng(0)
    sizes = {0.0: 6, 50.0: 30, 100.0: 2}
    vectors = np.concatenate(
        [center + generator.normal(0, 0.1, (n, 1)) for center, n in sizes.items()]
    )

    asked = batch(pool_of(vectors, budget=3), "typiclust")

    places = [round(float(vectors[int(name), 0]) / 50) * 50 for name in asked]
    assert places == [50, 0, 50]


@pytest.mark.parametrize("budget", [5, 60])
def test_typiclust_clusters_copies_without_a_warning(budget: int) -> None:
    asked = pool_of(np.repeat(blobs(1, (0, 0), (9, 9)), 40, axis=0), budget=budget)

    assert len(set(batch(asked, "typiclust"))) == budget


def test_cluster_margin_covers_the_clusters_of_least_margin() -> None:
    # By margin alone, all would be asked in the first blob.
    vectors = blobs(10, (0, 0), (10, 0), (0, 10))
    margins = np.concatenate([np.full(10, 0.1), np.full(20, 0.2)])
    margins[[4, 17, 29]] -= 0.05

    asked = pool_of(vectors, margins=margins, budget=3)

    assert sorted(batch(asked, "cluster_margin")) == ["00004", "00017", "00029"]


def test_cluster_margin_goes_from_the_smallest_cluster_to_the_largest() -> None:
    line = pool_of(
        on_a_line(0, 0.1, 0.2, 50, 50.1, 90),
        names="abcdef",
        margins=[0.1, 0.2, 0.3, 0.2, 0.1, 0.9],
        budget=3,
    )

    order, _ = rank(line, cluster_margin)

    assert [line.image_ids[row] for row in order] == ["f", "e", "a", "d", "b", "c"]


def test_cluster_margin_leaves_alone_what_is_sure() -> None:
    generator = np.random.default_rng(0)
    margins = np.linspace(0, 1, 50)

    asked = pool_of(generator.normal(size=(50, 4)), margins=margins, budget=2)
    order, utilities = rank(asked, cluster_margin)

    assert set(order[:20].tolist()) == set(range(20))
    assert order[20:].tolist() == list(range(20, 50))
    assert (utilities >= 1).sum() == 20


def test_badge_measures_distances_between_gradients() -> None:
    generator = np.random.default_rng(5)
    errors = generator.dirichlet(np.ones(4), 30)
    errors[np.arange(30), errors.argmax(axis=1)] -= 1
    vectors = generator.normal(size=(30, 6)).astype(np.float32)
    gradients = np.stack(
        [np.outer(e, v).ravel() for e, v in zip(errors, vectors, strict=True)]
    )

    squares = _squares(errors) * _squares(vectors)
    factorized = _gradient_distances(errors, vectors, squares, 7)

    np.testing.assert_allclose(squares, _squares(gradients))
    expected = _squares(gradients - gradients[7])
    np.testing.assert_allclose(factorized, expected, rtol=1e-4, atol=1e-9)


def test_badge_starts_with_the_longest_gradient_and_asks_no_copy() -> None:
    vectors = np.repeat([[1.0, 0], [0, 3], [2, 0]], 4, axis=0)
    asked = pool_of(vectors, margins=np.full(12, 0.2), budget=3)

    names = batch(asked, "badge")

    assert names[0] == "00004"
    assert sorted(int(name) // 4 for name in names) == [0, 1, 2]


def test_badge_draws_in_proportion_to_the_squared_distance() -> None:
    # From the longest at 3, the others are at 1 and 2: drawn 1 in 5 and 4 in 5 times.
    line = pool_of(on_a_line(3, 2, 1), names="abc", margins=[0.2] * 3, budget=2)
    second = []
    for version in range(2000):
        keys = sampling_keys(line.image_ids, version)
        second.append(batch(replace(line, sampling_keys=keys), "badge")[1])

    # 400 expected, with a standard deviation of 18.
    assert abs(second.count("b") - 400) < 90


def test_badge_falls_back_on_the_margin_when_gradients_are_used_up() -> None:
    sure = pool_of(np.ones((3, 2)), margins=[1.0, 1.0, 1.0], budget=3)

    utilities = badge(sure)

    assert (utilities >= 1).sum() == 1


def test_an_embedding_that_is_not_finite_is_an_error_that_names_the_image() -> None:
    with pytest.raises(PredictionsError, match=r"1 of 2 .*image_id='b'"):
        pool_of([[0.0], [np.inf]], names="ab")
    with pytest.raises(PredictionsError, match=r"1 of 2 labeled .* row 1"):
        pool_of([[0.0]], labeled=[[0.0], [np.nan]])


def test_embeddings_of_another_shape_are_refused() -> None:
    one = pool_of([[0.0, 1.0]])

    with pytest.raises(PredictionsError, match=r"expected \(1, D\)"):
        replace(one, embeddings=np.zeros((2, 2), np.float32))
    with pytest.raises(PredictionsError, match=r"expected \(L, 2\)"):
        replace(one, labeled_embeddings=np.zeros((2, 3), np.float32))
    with pytest.raises(PredictionsError, match=r"expected \(2,\)"):
        replace(one, labeled_counts=np.zeros(3, np.int64))


def test_a_seed_belongs_to_images_and_version_in_any_order() -> None:
    asked = random_pool()

    assert asked.seed == shuffled(asked, 1).seed
    keys = sampling_keys(asked.image_ids, 2)
    assert asked.seed != replace(asked, sampling_keys=keys).seed
    assert 0 <= asked.seed < 2**32


def test_diverse_strategies_leave_the_pool_as_it_was() -> None:
    asked = random_pool()
    assert asked.embeddings is not None
    before = asked.embeddings.copy(), asked.probabilities.copy()

    for strategy in (coreset, typiclust, cluster_margin, badge):
        strategy(asked)

    np.testing.assert_array_equal(asked.embeddings, before[0])
    np.testing.assert_array_equal(asked.probabilities, before[1])
