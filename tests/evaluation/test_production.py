import math

import numpy as np
import pytest
from numpy.typing import NDArray

from active_learning.errors import DataError
from active_learning.evaluation.production import lure, wilson

FloatArray = NDArray[np.float64]

# Ten images, of which the model gets four wrong; doubt asks for these more often.
CORRECT = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
DOUBT = np.array([1, 1, 1, 1, 2, 3, 4, 4, 5, 5], dtype=float)


def draw(
    correct: NDArray[np.bool_], weight: FloatArray, n: int, seed: int
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Take n images one after another, each by its weight among those left."""
    generator = np.random.default_rng(seed)
    left, right, chances = weight.copy(), [], []
    for _ in range(n):
        q = left / left.sum()
        chosen = generator.choice(len(q), p=q)
        right.append(correct[chosen])
        chances.append(q[chosen])
        left[chosen] = 0
    return np.array(right), np.array(chances)


def off_by(estimates: list[float], truth: float) -> float:
    """How many standard errors the mean lies from the truth."""
    error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
    return float(abs(np.mean(estimates) - truth) / error)


def test_wilson_by_hand() -> None:
    # z = 1.96; 8 of 10: (0.8 + z2 / 20 +- z sqrt(0.016 + z2 / 400)) / (1 + z2 / 10).
    low, high = wilson(8, 10, 0.95)

    assert low == pytest.approx(0.4901625)
    assert high == pytest.approx(0.9433178)


def test_no_label_leaves_everything_possible() -> None:
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


def test_more_labels_and_less_certainty_narrow_the_interval() -> None:
    low, high = wilson(80, 100, 0.95)

    assert high - low < np.diff(wilson(8, 10, 0.95))
    assert high - low > np.diff(wilson(80, 100, 0.8))


def test_all_right_does_not_prove_perfection() -> None:
    low, high = wilson(20, 20, 0.95)

    assert high == 1
    assert low < 0.9


def test_more_right_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="11 of 10"):
        wilson(11, 10, 0.95)


def test_weights_undo_the_choice_and_the_plain_mean_does_not() -> None:
    drawn = [draw(CORRECT, DOUBT, 5, seed) for seed in range(3_000)]

    weighted = [lure(right, q, 10, 0.95).accuracy for right, q in drawn]
    plain = [float(right.mean()) for right, _ in drawn]

    assert off_by(weighted, CORRECT.mean()) < 3.5
    assert off_by(plain, CORRECT.mean()) > 20


def test_weights_by_hand() -> None:
    # N = 4, M = 2. v_1 = 1 + 2/3 (1 / (4 * 0.5) - 1) = 2/3,
    # v_2 = 1 + 2/2 (1 / (3 * 0.2) - 1) = 5/3; only the second is wrong.
    estimate = lure([True, False], [0.5, 0.2], 4, 0.95)

    assert estimate.accuracy == pytest.approx(1 - (5 / 3) / 2)
    assert estimate.n == 2


@pytest.mark.parametrize("n_right", [0, 3, 15, 20])
def test_blind_draws_give_the_plain_mean_and_its_wilson_interval(n_right: int) -> None:
    right = np.arange(20) < n_right

    estimate = lure(right, 1 / (100 - np.arange(20)), 100, 0.9)

    assert estimate.accuracy == pytest.approx(n_right / 20)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(n_right, 20, 0.9))


def test_whoever_drew_all_knows_the_accuracy() -> None:
    right, q = draw(CORRECT, DOUBT, 10, seed=0)

    assert lure(right, q, 10, 0.95).accuracy == pytest.approx(0.6)


def test_accuracy_never_exceeds_one() -> None:
    # Right answers that were unlikely to be drawn have weights of 5 and more.
    estimate = lure([True, True], [0.01, 0.01], 20, 0.95)

    assert estimate.accuracy == 1
    assert estimate.high == 1
    assert estimate.low < 0.6


def test_unequal_weights_say_less_where_all_were_right() -> None:
    # Weights 1 + 18/19 (1/(20 * 0.5) - 1) and 1 + 18/18 (1/(19 * 0.01) - 1).
    weights = np.array([1 - 0.9 * 18 / 19, 1 / 0.19])
    n_effective = weights.sum() ** 2 / (weights**2).sum()

    estimate = lure([True, True], [0.5, 0.01], 20, 0.95)

    # Wilson's lower bound where all are right: n / (n + z2).
    assert estimate.low == pytest.approx(n_effective / (n_effective + 1.959964**2))


def test_interval_stays_in_bounds_where_the_estimate_does_not() -> None:
    estimate = lure([False, False], [0.01, 0.01], 20, 0.95)

    assert estimate.accuracy < 0
    assert 0 <= estimate.low < estimate.high <= 1


@pytest.mark.parametrize("share_wrong", [0.05, 0.3])
def test_interval_holds_the_truth_about_as_often_as_it_says(share_wrong: float) -> None:
    generator = np.random.default_rng(0)
    correct = generator.random(300) >= share_wrong
    doubt = 0.1 + 0.4 * generator.random(300) + 0.5 * ~correct * generator.random(300)
    held = 0
    for seed in range(200):
        estimate = lure(*draw(correct, doubt, 60, seed), 300, 0.95)
        held += estimate.low <= correct.mean() <= estimate.high

    assert held >= 0.93 * 200


def test_doubt_that_finds_the_errors_never_claims_more_labels_than_there_are() -> None:
    generator = np.random.default_rng(0)
    correct = generator.random(300) >= 0.1
    doubt = np.where(correct, 0.1, 1.0)

    estimate = lure(*draw(correct, doubt, 60, seed=1), 300, 0.95)

    widest = estimate.high - estimate.low
    n_right = round(60 * estimate.accuracy)
    assert widest == pytest.approx(np.diff(wilson(n_right, 60, 0.95)).item(), rel=0.1)


@pytest.mark.parametrize(
    ("correct", "q", "population", "complaint"),
    [
        ([], [], 10, r"draws of shape \(0,\)"),
        ([True], [0.1, 0.2], 10, r"shape \(1,\) with probabilities of shape \(2,\)"),
        ([True, True], [0.5, 1.0], 1, "1 images cannot have given"),
        ([True, True], [0.5, 0.0], 10, "1 of 2 draws .* first is 0.0 at draw 2"),
        ([True, True], [math.nan, 0.5], 10, "first is nan at draw 1"),
        ([True, True], [0.5, 1.5], 10, "first is 1.5 at draw 2"),
        ([True, False], [0.5, 1.0], 10, "1 of 2 draws were certain .* draw 2"),
    ],
)
def test_draws_that_cannot_have_been_are_refused(
    correct: list[bool], q: list[float], population: int, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        lure(correct, q, population, 0.95)
