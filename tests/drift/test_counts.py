import math

import numpy as np
import pytest
from numpy.typing import NDArray

from active_learning.drift import Shift, compare_counts, verdict
from active_learning.errors import DataError

ZIPF = np.array([2.0**-k for k in range(1, 21)])  # 20 classes, half as frequent each
N_SEEDS = 200


def drifted(shift: Shift) -> bool:
    return verdict(shift, 0.2, 0.1, 0.01, min_rows=30) == "drift"


def test_stability_index_by_hand() -> None:
    # Half a count more in each class: 3/4 and 1/4 beside 1/4 and 3/4.
    shift = compare_counts([1, 0], [0, 1])

    assert shift.psi == pytest.approx(2 * (3 / 4 - 1 / 4) * math.log(3))


def test_half_a_count_weighs_nothing_among_many() -> None:
    shift = compare_counts([800_000, 200_000], [600_000, 400_000])

    by_hand = 0.2 * math.log(0.8 / 0.6) + 0.2 * math.log(0.4 / 0.2)
    assert shift.psi == pytest.approx(by_hand, rel=1e-4)


def test_jensen_shannon_distance_by_hand() -> None:
    # Beside the middle (3/4, 1/4), in bits: KL((1, 0)) = log2(4/3),
    # KL((1/2, 1/2)) = 1/2 log2(2/3) + 1/2 log2(2).
    shift = compare_counts([10, 0], [20, 20])

    divergence = (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5) / 2
    assert shift.js == pytest.approx(math.sqrt(divergence))


def test_chi_squared_by_hand() -> None:
    # Each cell of [[10, 20], [20, 10]] is 5 from the 15 expected: 4 * 25 / 15; with
    # one degree of freedom the p-value is erfc(sqrt(x / 2)).
    shift = compare_counts([10, 20], [20, 10])

    assert shift.statistic == pytest.approx(100 / 15)
    assert shift.p_value == pytest.approx(math.erfc(math.sqrt(100 / 30)))
    assert (shift.n_reference, shift.n_current) == (30, 30)


def test_windows_that_share_nothing_are_as_far_apart_as_can_be() -> None:
    shift = compare_counts([50, 50, 0, 0], [0, 0, 50, 50])

    assert shift.js == pytest.approx(1)
    assert math.isfinite(shift.psi)
    assert shift.psi > 5
    assert shift.p_value < 1e-20


def test_sparse_counts_are_tested_against_random_tables() -> None:
    # 3 and 0 beside 0 and 3: of the 20 ways to deal three of six, two are as extreme.
    shift = compare_counts([3, 0], [0, 3])

    assert shift.p_value == pytest.approx(0.1, abs=0.02)
    assert shift == compare_counts([3, 0], [0, 3])


def test_equal_shares_have_not_moved_whatever_the_sizes() -> None:
    shift = compare_counts([100, 200, 300], [1000, 2000, 3000])

    assert shift.psi == pytest.approx(0, abs=1e-4)
    assert shift.js == pytest.approx(0, abs=1e-7)
    assert shift.p_value == pytest.approx(1)


def test_shares_equal_but_for_their_last_bits_are_not_nan() -> None:
    # SciPy takes the root of a divergence that rounding has put below zero.
    shift = compare_counts([4 * 10**8, 10**8, 10**8], [4 * 10**8, 10**8, 10**8 + 1])

    assert np.isfinite(shift[:4]).all()
    assert shift.js == 0


def test_neither_measure_depends_on_which_window_came_first() -> None:
    one = compare_counts([5, 40, 0, 9], [60, 2, 8, 9])
    two = compare_counts([60, 2, 8, 9], [5, 40, 0, 9])

    assert one[:4] == pytest.approx(two[:4])


def test_classes_that_neither_window_has_change_nothing() -> None:
    bare = compare_counts([10, 30], [2, 2])
    padded = compare_counts([10, 0, 30, *[0] * 100], [2, 0, 2, *[0] * 100])

    assert padded == pytest.approx(bare)


@pytest.mark.parametrize(
    ("reference", "current"),
    [([], []), ([0, 0], [0, 0]), ([3, 4], [0, 0]), ([0, 0], [3, 4]), ([5], [9])],
    ids=["no class", "no row", "nothing current", "no reference", "one class"],
)
def test_nothing_to_compare_is_no_shift(
    reference: list[int], current: list[int]
) -> None:
    shift = compare_counts(reference, current)

    assert shift == Shift(0, 0, 0, 1, sum(reference), sum(current))


@pytest.mark.parametrize(
    "share", [ZIPF, np.ones(10), np.ones(2)], ids=["rare classes", "ten", "two"]
)
def test_one_source_raises_few_alarms(share: NDArray[np.float64]) -> None:
    alarms = 0
    for seed in range(N_SEEDS):
        generator = np.random.default_rng(seed)
        reference, current = (
            generator.multinomial(n, share / share.sum()) for n in (400, 60)
        )
        alarms += drifted(compare_counts(reference, current))

    # At a p-limit of 0.01 two are due; seven or more have a chance of 0.5%.
    assert alarms < 7


def test_p_values_of_one_source_are_spread_evenly() -> None:
    p_values = []
    for seed in range(N_SEEDS):
        generator = np.random.default_rng(seed)
        counts = [generator.multinomial(n, np.ones(5) / 5) for n in (500, 300)]
        p_values.append(compare_counts(*counts).p_value)

    # 100 are due; the standard deviation is 7.
    assert 75 < np.sum(np.array(p_values) < 0.5) < 125


def test_a_class_that_doubles_its_share_is_found() -> None:
    found = 0
    for seed in range(N_SEEDS):
        generator = np.random.default_rng(seed)
        reference = generator.multinomial(1000, [0.2, 0.2, 0.2, 0.2, 0.2])
        current = generator.multinomial(300, [0.5, 0.125, 0.125, 0.125, 0.125])
        found += drifted(compare_counts(reference, current))

    assert found >= 0.99 * N_SEEDS


def test_a_large_sample_of_a_tiny_change_is_no_alarm() -> None:
    shift = compare_counts([500_000, 500_000], [510_000, 490_000])

    assert shift.p_value < 1e-20
    assert not drifted(shift)


@pytest.mark.parametrize(
    ("reference", "current", "complaint"),
    [
        ([1, 2], [1, 2, 3], r"shape \(2,\) and \(3,\)"),
        ([[1, 2]], [[1, 2]], r"shape \(1, 2\)"),
        ([0.2, 0.8], [1, 4], "2 of 2 reference counts .* first is 0.2 at place 0"),
        ([1, 4], [1, -4], "1 of 2 current counts .* first is -4.0 at place 1"),
        ([1, math.nan], [1, 4], "first is nan at place 1"),
    ],
)
def test_what_is_no_count_is_refused(
    reference: list[float], current: list[float], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        compare_counts(reference, current)
