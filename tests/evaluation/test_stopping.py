"""Each criterion is what its paper says, and nothing unknown is a reason to stop."""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit
from sklearn.metrics import cohen_kappa_score

from active_learning.errors import DataError
from active_learning.evaluation.production import wilson
from active_learning.evaluation.stopping import (
    Gain,
    accuracies_on,
    audits_to_tell,
    ceiling_of,
    fit_learning_curve,
    gain,
    has_plateaued,
    is_certain,
    is_stable,
    kappa,
    labels_to_gain,
    should_stop,
)

# --- stability ---


def test_kappa_is_what_it_is_by_hand() -> None:
    # 45 of 60 agree, 0.75; by chance (35 x 30 + 25 x 30) / 60^2 = 0.5 would.
    assert kappa([[25, 10], [5, 20]]) == pytest.approx((0.75 - 0.5) / (1 - 0.5))


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    was = rng.integers(0, 4, 300)
    said = np.where(rng.random(300) < 0.7, was, rng.integers(0, 4, 300))
    counts = np.zeros((4, 4))
    np.add.at(counts, (was, said), 1)

    assert kappa(counts) == pytest.approx(cohen_kappa_score(was, said))


@pytest.mark.parametrize("counts", [[[0, 0], [0, 0]], [[9, 0], [0, 0]]])
def test_kappa_is_unknown_where_nothing_tells_agreement_from_chance(
    counts: list[list[int]],
) -> None:
    assert math.isnan(kappa(counts))


def test_versions_that_always_agree_have_a_kappa_of_one() -> None:
    assert kappa([[5, 0, 0], [0, 3, 0], [0, 0, 9]]) == 1


@pytest.mark.parametrize(
    ("kappas", "stable"),
    [
        ([0.5, 0.985, 0.99, 0.995], True),  # the mean of the last three is 0.99
        ([1.0, 1.0, 0.98, 0.99, 0.99], False),
        ([0.999, 0.999], None),
        ([0.999, math.nan, 0.999], None),
        ([math.nan, 0.999, 0.999, 0.999], True),
        ([], None),
    ],
)
def test_predictions_are_stable_when_the_last_three_kappas_are_high(
    kappas: list[float], stable: bool | None
) -> None:
    assert is_stable(kappas, pairs=3, at_least=0.99) is stable


# --- plateau ---


def test_the_interval_of_a_gain_is_that_of_newcombes_own_example() -> None:
    # His table II, example (a), method 10: 56 of 70 against 48 of 80.
    found = gain((48, 80), (56, 70), level=0.95)

    assert found.gain == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-5)
    assert found.high == pytest.approx(0.3339, abs=5e-5)


@pytest.mark.parametrize("older", [(0, 10), (3, 10), (10, 10)])
@pytest.mark.parametrize("newer", [(0, 40), (29, 40), (40, 40)])
def test_a_gain_the_other_way_round_is_a_loss(
    older: tuple[int, int], newer: tuple[int, int]
) -> None:
    there, back = gain(older, newer, 0.9), gain(newer, older, 0.9)

    assert back.gain == pytest.approx(-there.gain)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert -1 <= there.low <= there.gain <= there.high <= 1


def test_more_audits_make_a_gain_surer() -> None:
    widths = [
        gained.high - gained.low
        for gained in (gain((8 * n, 10 * n), (9 * n, 10 * n), 0.95) for n in (1, 5, 50))
    ]

    assert widths == sorted(widths, reverse=True)


def test_a_version_without_audits_has_no_gain() -> None:
    with pytest.raises(DataError, match="there are 10 and 0"):
        gain((5, 10), (0, 0), 0.95)


@pytest.mark.parametrize(
    ("low", "high", "plateau"),
    [
        (-0.02, 0.009, True),
        (-0.02, 0.01, None),  # it may be the gain that is asked for
        (-0.3, 0.3, None),
        (0.01, 0.05, False),
        (-0.2, -0.1, True),  # falling is no rise either
    ],
)
def test_a_plateau_is_a_gain_that_is_surely_too_small(
    low: float, high: float, plateau: bool | None
) -> None:
    assert has_plateaued(Gain(0.0, low, high), min_gain=0.01) is plateau


def test_few_audits_never_tell_a_plateau() -> None:
    for right in range(6):
        assert has_plateaued(gain((right, 5), (right, 5), 0.9), 0.01) is not True


def test_as_many_audits_as_it_says_tell_a_plateau() -> None:
    n = audits_to_tell(0.8, min_gain=0.05, level=0.9)
    right = round(0.8 * n)

    # By the normal approximation 2 x 1.645^2 x 0.8 x 0.2 / 0.05^2.
    assert n == 347
    assert gain((right, n), (right, n), 0.9).high == pytest.approx(0.05, rel=0.02)


# --- uncertainty, and all together ---


@pytest.mark.parametrize(
    ("nats", "certain"), [(0.1, True), (0.05, True), (0.11, False), (math.nan, None)]
)
def test_a_model_is_certain_at_or_below_the_bound(
    nats: float, certain: bool | None
) -> None:
    assert is_certain(nats, at_most=0.1) is certain


@pytest.mark.parametrize(
    ("met", "by_any", "by_all"),
    [
        ([True, True], True, True),
        ([True, False], True, False),
        ([True, None], True, False),
        ([False, None], False, False),
        ([None, None], False, False),
        ([None], False, False),
        ([], False, False),
    ],
)
def test_what_is_unknown_is_passed_over_by_any_and_holds_back_all(
    met: list[bool | None], by_any: bool, by_all: bool
) -> None:
    assert should_stop(met, "any") is by_any
    assert should_stop(met, "all") is by_all


# --- the learning curve ---

LABELS = np.array([200, 400, 800, 1600, 3200])


def truth(n_labels: object) -> np.ndarray:
    return np.asarray(0.95 - 1.2 * np.asarray(n_labels, float) ** -0.4)


def audits(n_audited: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As many right as the true curve says, without any luck."""
    right = np.round(truth(LABELS) * n_audited)
    return LABELS, right, np.full(len(LABELS), n_audited)


def test_a_curve_that_is_a_power_law_is_found_again() -> None:
    curve = fit_learning_curve(*audits(1_000_000))

    assert curve.ceiling == pytest.approx(0.95, abs=0.002)
    assert curve.exponent == pytest.approx(0.4, rel=0.03)
    np.testing.assert_allclose(accuracies_on(curve, LABELS), truth(LABELS), atol=2e-4)
    assert accuracies_on(curve, [6400])[0] == pytest.approx(truth(6400), abs=0.001)


def test_the_fit_is_that_of_scipys_own_least_squares() -> None:
    rng = np.random.default_rng(3)
    n_audited = np.array([40_000, 50_000, 60_000, 70_000, 80_000])
    right = rng.binomial(n_audited, truth(LABELS))

    curve = fit_learning_curve(LABELS, right, n_audited)

    part = (right + 1) / (n_audited + 2)
    (ceiling, drop, exponent), _ = curve_fit(
        lambda n, a, b, c: a - b * (n / 800) ** -c,
        LABELS.astype(float),
        right / n_audited,
        p0=(0.95, 0.08, 0.4),
        sigma=np.sqrt(part * (1 - part) / n_audited),
        bounds=([0, 0, 0.05], [1, 1, 2]),
    )
    expected = ceiling - drop * (LABELS / 800) ** -exponent
    np.testing.assert_allclose(accuracies_on(curve, LABELS), expected, atol=2e-4)


def test_the_next_point_costs_what_the_curve_says() -> None:
    curve = fit_learning_curve(*audits(1_000_000))

    more = labels_to_gain(curve, 3200, points=0.01, level=0.9)

    # 0.95 - 1.2 n^-0.4 = 0.9124532 by n = (1.2 / 0.0375468)^2.5 = 5775.
    by_hand = (1.2 / (0.95 - truth(3200) - 0.01)) ** 2.5 - 3200
    assert by_hand == pytest.approx(2575, abs=1)
    assert more.value == pytest.approx(by_hand, rel=0.03)
    assert more.low < by_hand < more.high


def test_each_further_point_costs_more_than_the_one_before_it() -> None:
    curve = fit_learning_curve(*audits(10_000))

    prices = [labels_to_gain(curve, n, 0.01, 0.9).value for n in (200, 800, 3200)]

    assert prices == sorted(prices)
    assert prices[0] > 0


def test_a_point_above_the_ceiling_is_out_of_reach() -> None:
    curve = fit_learning_curve(*audits(100_000))

    assert labels_to_gain(curve, 3200, points=0.2, level=0.9) == (math.inf,) * 3


def test_fewer_audits_give_a_wider_interval() -> None:
    few, many = (fit_learning_curve(*audits(n)) for n in (1_000, 100_000))

    for interval in (ceiling_of, lambda c, level: labels_to_gain(c, 3200, 0.01, level)):
        wide, narrow = interval(few, 0.9), interval(many, 0.9)
        assert wide.high - wide.low > narrow.high - narrow.low


def test_a_ceiling_holds_the_truth_about_as_often_as_its_level() -> None:
    rng = np.random.default_rng(0)
    n_audited = np.full(len(LABELS), 2_000)

    held = []
    for _ in range(60):
        drawn = rng.binomial(n_audited, truth(LABELS))
        try:
            curve = fit_learning_curve(LABELS, drawn, n_audited)
        except DataError:
            continue
        low, high = ceiling_of(curve, 0.9)[1:]
        held.append(low <= 0.95 <= high)

    assert len(held) >= 50
    # Where it is only nine in ten, fewer than these are one run in a hundred.
    assert np.mean(held) >= 0.8


def test_no_accuracy_is_above_one_and_the_curve_does_not_fall() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        n_audited = rng.integers(20, 60, len(LABELS))
        right = rng.binomial(n_audited, truth(LABELS))
        try:
            curve = fit_learning_curve(LABELS, right, n_audited)
        except DataError:
            continue
        line = accuracies_on(curve, np.geomspace(200, 1e6, 50))
        assert curve.ceiling <= 1
        assert (curve.samples[:, 0] <= 1).all()
        assert (np.diff(line) >= 0).all()


def test_equal_points_give_equal_curves() -> None:
    one, two = fit_learning_curve(*audits(500)), fit_learning_curve(*audits(500))

    assert one[:4] == two[:4]
    np.testing.assert_array_equal(one.samples, two.samples)


@pytest.mark.parametrize(
    ("n_labels", "n_right", "n_audited", "why"),
    [
        ([100, 200, 300], [60, 70, 80], [100] * 3, "3 different numbers of labels"),
        ([100, 100, 200, 200], [60, 70, 80, 90], [100] * 4, "at 2 different numbers"),
        ([0, 100, 200, 300], [10, 60, 70, 80], [100] * 4, "at 3 different numbers"),
        ([100, 200, 300, 400], [60, 0, 70, 80], [100, 0, 100, 100], "at 3 different"),
        ([100, 200, 400, 800], [8, 8, 8, 9], [10] * 4, "do not rise"),
        ([100, 200, 400, 800], [90, 80, 70, 60], [100] * 4, "do not rise"),
        ([100, 200, 400, 800, 900], [600, 900, 600, 900, 900], [1000] * 5, "No power"),
    ],
    ids=["few", "same", "untaught", "unaudited", "level", "falling", "jumping"],
)
def test_what_is_no_learning_curve_is_refused_with_the_reason(
    n_labels: list[int], n_right: list[int], n_audited: list[int], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        fit_learning_curve(n_labels, n_right, n_audited)


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    # The gain is built on it: one of its ends lies at a version's own interval.
    low, high = wilson(5, 10, 0.95)
    found = gain((0, 10**9), (5, 10), 0.95)

    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
