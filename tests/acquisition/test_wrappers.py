"""What wraps a strategy: draws by weight, and batches of all classes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from active_learning.acquisition import (
    FloatArray,
    Pool,
    Strategy,
    find_strategy,
    rank,
    sampling_keys,
)
from active_learning.acquisition.wrappers import (
    FLOOR,
    class_balanced,
    gumbel,
    power,
    propensities,
    weights,
)
from active_learning.errors import PredictionsError, UnknownNameError


def pool_of(*probabilities: list[float], names: str | None = None) -> Pool:
    """Images called a, b, c ... unless named."""
    image_ids = tuple(names or "abcdefghijklmnop"[: len(probabilities)])
    rows = np.array(probabilities, dtype=float)
    return Pool(image_ids, rows, sampling_keys(image_ids, 1))


def giving(*utilities: float) -> Strategy:
    return lambda pool: np.array(utilities)


def asked(pool: Pool, strategy: Strategy) -> str:
    order, _ = rank(pool, strategy)
    return "".join(pool.image_ids[row] for row in order)


def draws(pool: Pool, base: Strategy, exponent: float, n: int) -> list[str]:
    """The whole ranking, under n model versions."""
    rankings = []
    for version in range(n):
        keys = sampling_keys(pool.image_ids, version)
        again = replace(pool, sampling_keys=keys)
        rankings.append(asked(again, lambda p: power(p, base, exponent)))
    return rankings


def test_power_draws_first_in_proportion_to_the_weight() -> None:
    three = pool_of([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])

    first = Counter(r[0] for r in draws(three, giving(0.1, 0.2, 0.7), 1, 5000))

    # Expected with a standard deviation of at most 0.0065.
    np.testing.assert_allclose(
        [first[name] / 5000 for name in "abc"], [0.1, 0.2, 0.7], atol=0.03
    )


def test_power_draws_next_in_proportion_to_the_weights_that_are_left() -> None:
    three = pool_of([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    rankings = draws(three, giving(0.1, 0.2, 0.7), 1, 5000)

    after_c = [ranking[1] for ranking in rankings if ranking[0] == "c"]

    assert abs(after_c.count("b") / len(after_c) - 2 / 3) < 0.04


def test_an_exponent_of_zero_draws_blindly_and_a_large_one_takes_the_best() -> None:
    three = pool_of([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    base = giving(0.1, 0.2, 0.7)

    blind = Counter(r[0] for r in draws(three, base, 0, 3000))

    assert min(blind.values()) > 850
    assert set(draws(three, base, 200, 50)) == {"cba"}


def test_what_has_no_utility_can_still_be_drawn() -> None:
    two = pool_of([0.5, 0.5], [0.5, 0.5])

    utilities = power(two, giving(0.0, 0.0))

    assert np.isfinite(utilities).all()
    assert weights(np.array([0.0, 0.5]), 2).tolist() == [FLOOR**2, 0.25]


def test_gumbel_is_worked_out_from_the_lower_bits_of_a_key() -> None:
    key = (12345 + 0.25) / 2**26

    np.testing.assert_allclose(gumbel(np.array([key])), -np.log(-np.log(0.25)))


def test_gumbel_noise_is_finite_and_says_nothing_of_the_key() -> None:
    keys = sampling_keys((f"{n}" for n in range(20_000)), 1)

    noise = gumbel(keys)

    # The Gumbel distribution has this mean and variance.
    assert abs(noise.mean() - 0.5772) < 0.04
    assert abs(noise.var() - np.pi**2 / 6) < 0.1
    assert abs(np.corrcoef(keys, noise)[0, 1]) < 0.03
    assert np.isfinite(gumbel(np.array([0.0, 0.5, 1 - 2.0**-53]))).all()


def test_propensities_are_each_draws_share_of_what_was_left() -> None:
    drawn = np.array([3.0, 1.0, 4.0])

    np.testing.assert_allclose(propensities(drawn, 10), [3 / 10, 1 / 7, 4 / 6])
    np.testing.assert_allclose(propensities(drawn, 8), [3 / 8, 1 / 5, 1])


def test_propensities_of_a_first_draw_sum_to_one() -> None:
    population = np.array([0.5, 0.25, 1e-9, 2.0])

    first = [propensities(population[[n]], population.sum())[0] for n in range(4)]

    assert sum(first) == pytest.approx(1)


def test_propensities_match_how_often_a_batch_is_drawn() -> None:
    three = pool_of([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    rankings = draws(three, giving(0.1, 0.2, 0.7), 1, 5000)

    expected = propensities(np.array([0.7, 0.1]), 1.0).prod()

    assert abs(sum(r[:2] == "ca" for r in rankings) / 5000 - expected) < 0.03


def test_a_small_weight_beside_a_large_one_keeps_its_digits() -> None:
    np.testing.assert_allclose(
        propensities(np.array([1e12, 1e-9, 1e-9]), 1e12), [1, 0.5, 1]
    )


def test_a_population_lighter_than_its_sample_is_an_error() -> None:
    with pytest.raises(PredictionsError, match="2 images drawn weigh 3"):
        propensities(np.array([1.0, 2.0]), 2.5)


def test_class_balanced_serves_the_class_with_the_fewest_labels() -> None:
    four = pool_of([0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.3, 0.7, 0])
    base = giving(0.9, 0.8, 0.1, 0.2)
    labeled = replace(four, labeled_counts=np.array([1, 0, 0]))

    assert asked(four, lambda p: class_balanced(p, base)) == "adbc"
    assert asked(labeled, lambda p: class_balanced(p, base)) == "dacb"


def test_class_balanced_goes_on_when_a_class_is_used_up() -> None:
    four = pool_of([0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9])
    many = replace(four, labeled_counts=np.array([7, 0]))

    result = asked(many, lambda p: class_balanced(p, giving(1, 2, 3, 0)))

    assert result == "dcba"


def test_class_balanced_breaks_ties_by_image_id() -> None:
    tied = pool_of([0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], names="dbca")

    result = asked(tied, lambda p: class_balanced(p, giving(1, 1, 1, 1)))

    assert result == "abcd"


@pytest.mark.parametrize("name", ["power", "class_balanced"])
def test_a_wrapper_takes_the_strategy_it_is_given(name: str) -> None:
    three = pool_of([0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3])
    by_margin = find_strategy(name, exponent=100)
    by_entropy = find_strategy(name, over="entropy", exponent=100)

    assert asked(three, by_margin) == "bca"
    assert asked(three, by_entropy) == "cab"


@pytest.mark.parametrize("over", ["power", "class_balanced", "margn", "no.where"])
def test_what_cannot_be_wrapped_is_told_what_can(over: str) -> None:
    with pytest.raises(UnknownNameError, match="strategy to wrap") as caught:
        find_strategy("power", over=over)

    assert "Known: badge, cluster_margin, coreset" in str(caught.value)


def test_a_wrapper_takes_a_function_by_its_path() -> None:
    path = "active_learning.acquisition.strategies.random"
    two = pool_of([0.9, 0.1], [0.8, 0.2])
    expected: FloatArray = two.sampling_keys

    result = asked(two, find_strategy("class_balanced", over=path))

    assert result == "".join(np.array(["a", "b"])[np.argsort(-expected)])
