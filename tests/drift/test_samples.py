import math

import numpy as np
import pytest
from numpy.typing import NDArray

from active_learning.drift import Shift, compare_samples, verdict
from active_learning.errors import DataError

FloatArray = NDArray[np.float64]
N_SEEDS = 200


def drifted(shift: Shift) -> bool:
    return verdict(shift, 0.2, 0.1, 0.01, min_rows=30) == "drift"


def normal(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=shape)


def test_kolmogorov_smirnov_by_hand() -> None:
    # All 5 current values lie above 8 of the 10 reference values.
    reference = np.arange(10.0)[:, None]
    current = np.full((5, 1), 7.5)

    assert compare_samples(reference, current).statistic == pytest.approx(0.8)


def test_one_column_is_compared_on_the_deciles_of_the_reference() -> None:
    # 100 reference values, ten to a decile, beside 100 in the lowest: half a count
    # more in each of ten, 10.5 / 105 beside 100.5 / 105 and nine times 0.5 / 105.
    reference = np.arange(100.0)[:, None]
    current = np.full((100, 1), 0.5)

    shift = compare_samples(reference, current)

    p, high, low = 10.5 / 105, 100.5 / 105, 0.5 / 105
    by_hand = (high - p) * math.log(high / p) + 9 * (p - low) * math.log(p / low)
    assert shift.psi == pytest.approx(by_hand)
    assert shift.statistic == pytest.approx(0.99)
    assert (shift.n_reference, shift.n_current) == (100, 100)


def test_p_value_is_of_all_components_together() -> None:
    rows = np.zeros((200, 2))
    rows[:, 0] = np.arange(200.0)
    current = rows[::2] + np.array([40, 0])
    alone = compare_samples(rows[1::2, :1], current[:, :1])
    # A second direction that has not moved doubles what chance may do.
    rows[:, 1] = np.tile([-1.0, -1.0, 1.0, 1.0], 50)
    current[:, 1] = np.tile([-1.0, 1.0], 50)

    both = compare_samples(rows, current)

    assert both.statistic == pytest.approx(alone.statistic, abs=0.02)
    assert both.p_value == pytest.approx(2 * alone.p_value, rel=0.25)


@pytest.mark.parametrize(
    ("rows", "width"), [(120, 48), (100, 8), (400, 1), (60, 3)], ids=str
)
def test_one_source_raises_few_alarms(rows: int, width: int) -> None:
    alarms = sum(
        drifted(
            compare_samples(
                normal(seed, rows, width), normal(10_000 + seed, 100, width)
            )
        )
        for seed in range(N_SEEDS)
    )

    # At a p-limit of 0.01 two are due; seven or more have a chance of 0.5%.
    assert alarms < 7


def test_p_values_do_not_shrink_where_there_are_more_columns_than_rows() -> None:
    p_values = [
        compare_samples(normal(seed, 60, 80), normal(10_000 + seed, 60, 80)).p_value
        for seed in range(N_SEEDS)
    ]

    assert np.mean(np.array(p_values) < 0.05) < 0.1


def test_a_direction_that_moves_by_one_deviation_is_found() -> None:
    scale = np.r_[3.0, 2.0, np.ones(30)]
    moved = np.r_[3.0, np.zeros(31)]

    found = sum(
        drifted(
            compare_samples(
                normal(seed, 400, 32) * scale,
                normal(10_000 + seed, 200, 32) * scale + moved,
            )
        )
        for seed in range(50)
    )

    assert found == 50


def test_images_of_another_kind_are_found_where_the_mean_has_not_moved() -> None:
    reference = normal(0, 400, 2) * [5, 1]
    current = normal(1, 200, 2) * [1, 1]

    assert drifted(compare_samples(reference, current))


def test_what_moves_outside_the_main_directions_goes_unseen() -> None:
    scale = np.r_[np.full(8, 10.0), np.full(8, 0.01)]
    reference, current = normal(0, 400, 16) * scale, normal(1, 200, 16) * scale
    current[:, 12] += 1

    assert not drifted(compare_samples(reference, current))


def test_directions_without_spread_are_no_directions() -> None:
    flat = normal(0, 100, 2) @ normal(1, 2, 50)
    same = normal(2, 100, 2) @ normal(1, 2, 50) + 1e-14 * normal(3, 100, 50)

    assert compare_samples(flat + 1, same + 1).p_value > 0.01


def test_a_long_reference_is_compared_whole_but_for_the_fitted_rows() -> None:
    # 5,000 rows give 1,667 to the fit. The other two thirds are compared.
    reference = normal(0, 5_000, 4)
    shift = compare_samples(reference, reference[::3] + np.array([1, 0, 0, 0]))

    assert (shift.n_reference, shift.n_current) == (5_000, 1_667)
    assert shift.p_value < 1e-6


def test_the_same_samples_give_the_same_shift() -> None:
    samples = normal(0, 100, 5), normal(1, 50, 5)

    assert compare_samples(*samples) == compare_samples(*samples)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        (np.empty((0, 4)), normal(0, 9, 4)),
        (normal(0, 9, 4), np.empty((0, 4))),
        (np.empty((0, 1)), np.empty((0, 1))),
        (normal(0, 1, 4), normal(1, 9, 4)),
        (np.ones((9, 4)), normal(1, 9, 4)),
        (np.zeros((9, 4)), np.zeros((9, 4))),
    ],
    ids=["no reference", "nothing current", "nothing", "one row", "ones", "zeros"],
)
def test_nothing_to_compare_is_no_shift(
    reference: FloatArray, current: FloatArray
) -> None:
    shift = compare_samples(reference, current)

    assert shift == Shift(0, 0, 0, 1, len(reference), len(current))


def test_samples_of_two_models_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(9, 4\) and \(9, 5\)"):
        compare_samples(normal(0, 9, 4), normal(1, 9, 5))


def test_a_value_that_is_not_finite_is_refused() -> None:
    current = normal(1, 9, 4)
    current[[3, 5], 2] = np.nan

    with pytest.raises(DataError, match=r"2 of 9 current rows .* first is row 3"):
        compare_samples(normal(0, 9, 4), current)


def test_samples_are_left_as_they_were() -> None:
    reference, current = normal(0, 50, 3), normal(1, 50, 3)
    before = reference.copy(), current.copy()

    compare_samples(reference, current)

    np.testing.assert_array_equal(reference, before[0])
    np.testing.assert_array_equal(current, before[1])
