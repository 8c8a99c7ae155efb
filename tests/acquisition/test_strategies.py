"""One contract over every strategy, and worked examples of each formula."""

import math
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from active_learning.acquisition import (
    STRATEGIES,
    FloatArray,
    Pool,
    Strategy,
    find_strategy,
    rank,
    sampling_keys,
    uncertainty,
)
from active_learning.acquisition.strategies import candidate_order, needs_embeddings
from active_learning.errors import PredictionsError, SettingsError, UnknownNameError

every_strategy = pytest.mark.parametrize(
    "strategy", STRATEGIES.values(), ids=list(STRATEGIES)
)
UNCERTAIN = ["least_confidence", "margin", "entropy"]
informed = pytest.mark.parametrize(
    "name", [*UNCERTAIN, "cluster_margin", "class_balanced"]
)


def pool(*rows: list[float], names: list[str] | None = None) -> Pool:
    """A pool of the given probabilities, called a, b, c ... unless named."""
    names = names or [chr(ord("a") + n) for n in range(len(rows))]
    return Pool(
        tuple(names),
        np.array(rows, dtype=float),
        sampling_keys(names, 1),
        embeddings=np.ones((len(rows), 2), dtype=np.float32),
    )


def random_pool(n: int, n_classes: int, seed: int = 0) -> Pool:
    generator = np.random.default_rng(seed)
    names = [f"{number:05d}.png" for number in generator.permutation(n)]
    probabilities = generator.dirichlet(np.ones(n_classes), size=n)
    return Pool(
        tuple(names),
        probabilities,
        sampling_keys(names, 1),
        embeddings=generator.normal(size=(n, 6)).astype(np.float32),
        labeled_embeddings=generator.normal(size=(5, 6)).astype(np.float32),
        labeled_counts=np.arange(n_classes),
        budget=n // 3,
    )


@every_strategy
def test_a_strategy_gives_each_image_one_finite_utility(strategy: Strategy) -> None:
    utilities = strategy(random_pool(50, 4))

    assert utilities.shape == (50,)
    assert np.isfinite(utilities).all()


@every_strategy
def test_a_strategy_leaves_the_pool_as_it_was(strategy: Strategy) -> None:
    asked = random_pool(20, 3)
    before = asked.probabilities.copy()

    strategy(asked)

    np.testing.assert_array_equal(asked.probabilities, before)


@every_strategy
def test_a_ranking_does_not_depend_on_row_order(strategy: Strategy) -> None:
    one = random_pool(40, 3)
    shuffled = np.random.default_rng(1).permutation(40)
    assert one.embeddings is not None
    two = replace(
        one,
        image_ids=tuple(one.image_ids[n] for n in shuffled),
        probabilities=one.probabilities[shuffled],
        sampling_keys=one.sampling_keys[shuffled],
        embeddings=one.embeddings[shuffled],
    )

    first, _ = rank(one, strategy)
    second, _ = rank(two, strategy)

    assert [one.image_ids[n] for n in first] == [two.image_ids[n] for n in second]


@every_strategy
def test_zero_probabilities_and_a_single_class_are_ranked(strategy: Strategy) -> None:
    order, utilities = rank(pool([1.0], [1.0]), strategy)
    assert sorted(order) == [0, 1]
    assert np.isfinite(utilities).all()

    order, utilities = rank(pool([1.0, 0.0, 0.0], [0.0, 0.5, 0.5]), strategy)
    assert sorted(order) == [0, 1]
    assert np.isfinite(utilities).all()


@every_strategy
def test_an_empty_pool_gives_an_empty_ranking(strategy: Strategy) -> None:
    nothing = Pool(
        (), np.empty((0, 3)), np.empty(0), embeddings=np.empty((0, 2), np.float32)
    )

    order, utilities = rank(nothing, strategy)

    assert order.shape == utilities.shape == (0,)


@informed
def test_doubt_is_preferred_to_certainty(name: str) -> None:
    asked = pool([1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1])

    order, _ = rank(asked, STRATEGIES[name])

    assert order.tolist() == [1, 2, 0]


def test_ties_go_by_image_id() -> None:
    tied = pool([0.5, 0.5], [0.5, 0.5], [0.5, 0.5], names=["c", "a", "b"])

    order, _ = rank(tied, STRATEGIES["margin"])

    assert [tied.image_ids[n] for n in order] == ["a", "b", "c"]


def test_the_formulas_give_what_can_be_worked_out_by_hand() -> None:
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])

    np.testing.assert_allclose(uncertainty.least_confidence(p), [0.5, 0.0, 0.5])
    np.testing.assert_allclose(uncertainty.margin(p), [0.2, 1.0, 0.25])
    np.testing.assert_allclose(
        uncertainty.entropy(p),
        [
            -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)),
            0.0,
            1.5 * math.log(2),
        ],
    )


def test_a_uniform_row_has_the_entropy_of_its_number_of_classes() -> None:
    np.testing.assert_allclose(uncertainty.entropy(np.full((1, 7), 1 / 7)), math.log(7))


def test_with_two_classes_all_informed_strategies_agree() -> None:
    # LC, margin and entropy are then monotone in the same number.
    asked = random_pool(200, 2)

    orders = [rank(asked, STRATEGIES[name])[0].tolist() for name in UNCERTAIN]

    assert orders[0] == orders[1] == orders[2]
    assert orders[0] != rank(asked, STRATEGIES["random"])[0].tolist()


def test_a_nan_is_an_error_that_names_the_image() -> None:
    with pytest.raises(PredictionsError, match=r"1 of 2 .*image_id='b'"):
        pool([0.5, 0.5], [math.nan, 1.0])


def test_a_strategy_that_gives_nan_is_an_error_that_names_the_image() -> None:
    def broken(asked: Pool) -> FloatArray:
        return np.array([0.0, math.nan])

    with pytest.raises(PredictionsError, match="image_id='b'"):
        rank(pool([0.5, 0.5], [0.5, 0.5]), broken)


def test_a_strategy_of_the_wrong_shape_is_told_the_right_one() -> None:
    with pytest.raises(PredictionsError, match=r"expected \(2,\)"):
        rank(pool([0.5, 0.5], [0.5, 0.5]), lambda asked: asked.probabilities)


def test_a_pool_of_unequal_parts_is_refused() -> None:
    with pytest.raises(PredictionsError, match="2 images"):
        Pool(("a", "b"), np.array([[1.0]]), np.zeros(2))
    with pytest.raises(PredictionsError, match="sampling keys"):
        Pool(("a", "b"), np.array([[1.0], [1.0]]), np.zeros(3))
    with pytest.raises(SettingsError, match="-1"):
        Pool(("a",), np.array([[1.0]]), np.zeros(1), budget=-1)


def test_a_function_of_ones_own_is_found_by_its_dotted_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("somebodys_module")
    module.always = lambda asked: np.ones(len(asked))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_module", module)

    assert find_strategy("somebodys_module.always") is module.always


@pytest.mark.parametrize(
    "name", ["margn", "nowhere.to_be_found", "math.pi", "active_learning.nothing"]
)
def test_an_unknown_strategy_is_told_what_there_is(name: str) -> None:
    with pytest.raises(UnknownNameError, match="Known: badge, class_balanced"):
        find_strategy(name)


def test_a_misspelled_strategy_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'margin'"):
        find_strategy("margn")


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_needs_embeddings_says_so(name: str) -> None:
    bare = replace(random_pool(9, 3), embeddings=None, labeled_embeddings=None)

    if needs_embeddings(name):
        with pytest.raises(PredictionsError, match=f"{name!r} compares embeddings"):
            find_strategy(name)(bare)
    else:
        assert len(find_strategy(name)(bare)) == 9


def test_a_wrapper_needs_what_it_wraps_needs() -> None:
    assert needs_embeddings("power", "coreset")
    assert not needs_embeddings("power", "entropy")
    assert not needs_embeddings("margin", "coreset")


@pytest.mark.parametrize(
    ("name", "over", "order"),
    [
        ("random", "margin", "random"),
        ("margin", "entropy", "margin"),
        ("entropy", "margin", "entropy"),
        ("least_confidence", "margin", "least_confidence"),
        ("cluster_margin", "entropy", "margin"),
        ("coreset", "margin", "random"),
        ("typiclust", "margin", "random"),
        ("badge", "margin", "random"),
        ("power", "entropy", "power"),
        ("class_balanced", "entropy", "entropy"),
        ("class_balanced", "badge", "random"),
        ("my_package.my_strategy", "margin", "random"),
    ],
)
def test_candidates_are_ordered_by_what_a_database_knows(
    name: str, over: str, order: str
) -> None:
    assert candidate_order(name, over) == order


def test_strategies_are_listed_without_importing_what_they_compute_with() -> None:
    listed = (
        "import sys, active_learning.acquisition as a; list(a.STRATEGIES);"
        "print({'sklearn', 'scipy', 'torch', 'pandas'} & set(sys.modules))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "set()"


def test_sampling_keys_belong_to_image_and_version_alone() -> None:
    forwards = sampling_keys(["a", "b"], 1)
    backwards = sampling_keys(["b", "a"], 1)

    np.testing.assert_array_equal(forwards, backwards[::-1])
    assert (forwards != sampling_keys(["a", "b"], 2)).all()


def test_sampling_keys_are_uniform() -> None:
    keys = sampling_keys((f"{n}.png" for n in range(20_000)), 3)

    assert keys.min() >= 0
    assert keys.max() < 1
    counts, _ = np.histogram(keys, bins=20, range=(0, 1))
    # 1,000 expected in each bin with a standard deviation of 31.
    assert np.abs(counts - 1000).max() < 160
