from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from active_learning.errors import DataError, SchemaError, SettingsError
from active_learning.evaluation.curves import (
    CURVE_COLUMNS,
    area_under_budget_curve,
    check_curves,
    compare_with_random,
    final_accuracy,
    labels_to_target,
    mean_curve,
    summarize,
)


def curves(
    n_labels: list[int] | None = None, **seeds: list[list[float]]
) -> pd.DataFrame:
    """One list of accuracies per seed and strategy; 100 labels, then 100 a round."""
    rows = []
    for strategy, runs in seeds.items():
        for seed, accuracies in enumerate(runs):
            for number, accuracy in enumerate(accuracies):
                count = n_labels[number] if n_labels else 100 * (number + 1)
                stream = np.nan if number == 0 else 0.5
                took = np.nan if number == 0 else 0.1
                scores = (accuracy, accuracy, stream)
                rows.append((seed, strategy, number, count, *scores, 1.0, took, took))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def line(*accuracies: float) -> pd.DataFrame:
    counts = 100 * (1 + np.arange(len(accuracies)))
    return pd.DataFrame({"n_labels": counts, "accuracy_mean": accuracies})


RANDOM = [0.5, 0.6, 0.7, 0.8, 0.8, 0.8]  # final accuracy 0.8, 600 labels
QUICK = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9]  # there with 300 labels: half of them saved
SLOW = [0.5, 0.5, 0.6, 0.6, 0.7, 0.7]


def test_area_of_a_flat_curve_is_its_height() -> None:
    assert area_under_budget_curve([200, 250, 1700], [0.8, 0.8, 0.8]) == pytest.approx(
        0.8
    )


def test_area_weighs_each_stretch_by_its_labels() -> None:
    # 100 labels at 0.5 on average, then 300 at 0.9.
    area = area_under_budget_curve([0, 100, 400], [0.1, 0.9, 0.9])

    assert area == pytest.approx((100 * 0.5 + 300 * 0.9) / 400)


@pytest.mark.parametrize(
    ("n_labels", "accuracy", "complaint"),
    [
        ([100], [0.5], "of two points or more"),
        ([100, 200], [0.5], "of one dimension and length"),
        ([100, 200, 150], [0.5, 0.6, 0.7], "200 is followed by 150"),
        ([100, 100], [0.5, 0.6], "100 is followed by 100"),
    ],
)
def test_what_has_no_area_is_refused(
    n_labels: list[int], accuracy: list[float], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        area_under_budget_curve(n_labels, accuracy)


def test_mean_curve_averages_over_seeds_by_labels() -> None:
    mean = mean_curve(curves(random=[[0.5, 0.6], [0.5, 0.8]]), "random")

    assert mean["n_labels"].tolist() == [100, 200]
    assert mean["accuracy_mean"].tolist() == pytest.approx([0.5, 0.7])
    assert mean["accuracy_std"].tolist() == pytest.approx([0, np.sqrt(0.02)])
    assert mean["accuracy_min"].tolist() == [0.5, 0.6]
    assert mean["accuracy_max"].tolist() == [0.5, 0.8]


def test_interval_of_the_mean_is_students() -> None:
    # Mean 0.7, deviation 0.1, three seeds; t is 4.303 with two degrees of freedom.
    mean = mean_curve(curves(random=[[0.5, 0.6], [0.5, 0.7], [0.5, 0.8]]), "random")

    half = 4.303 * 0.1 / np.sqrt(3)
    assert mean["ci_low"].iloc[1] == pytest.approx(0.7 - half, abs=1e-4)
    assert mean["ci_high"].iloc[1] == pytest.approx(0.7 + half, abs=1e-4)


def test_one_seed_has_no_spread_rather_than_none_at_all() -> None:
    one = curves(random=[RANDOM], margin=[QUICK])

    assert (
        mean_curve(one, "margin")[["accuracy_std", "ci_low", "ci_high"]]
        .isna()
        .all(axis=None)
    )
    assert summarize(one)["aubc_std"].isna().all()
    assert compare_with_random(one)[["gain_low", "gain_high"]].isna().all(axis=None)


def test_mean_curve_does_not_depend_on_row_order() -> None:
    table = curves(random=[RANDOM, SLOW], margin=[QUICK, QUICK])

    pd.testing.assert_frame_equal(
        mean_curve(table, "random"), mean_curve(table.iloc[::-1], "random")
    )


def test_seeds_with_other_counts_meet_on_the_straight_lines_between() -> None:
    early = curves([100, 200, 300], random=[[0.5, 0.6, 0.7]])
    late = curves([150, 250, 350], random=[[0.5, 0.6, 0.7]]).assign(seed=1)

    mean = mean_curve(pd.concat([early, late]), "random")

    assert mean["n_labels"].tolist() == [150, 200, 250, 300]
    assert mean["accuracy_mean"].tolist() == pytest.approx([0.525, 0.575, 0.625, 0.675])


def test_a_strategy_without_a_curve_is_named_beside_those_that_have_one() -> None:
    with pytest.raises(SettingsError, match=r"'entropy'; there are: margin, random"):
        mean_curve(curves(random=[RANDOM], margin=[QUICK]), "entropy")


def test_target_counts_only_where_the_curve_stays() -> None:
    assert labels_to_target(line(0.5, 0.8, 0.7, 0.8, 0.9), 0.8) == 400


def test_reaching_the_target_exactly_counts() -> None:
    assert labels_to_target(line(0.5, 0.8, 0.8), 0.8) == 200


def test_a_curve_that_ends_below_the_target_never_reached_it() -> None:
    assert labels_to_target(line(0.5, 0.9, 0.79), 0.8) is None


def test_a_curve_above_the_target_throughout_needs_its_first_labels() -> None:
    assert labels_to_target(line(0.8, 0.9), 0.8) == 100


def test_a_flat_curve_reaches_its_own_mean_in_spite_of_rounding() -> None:
    target = sum([0.1, 0.2, 0.3]) / 3  # 0.20000000000000004

    assert labels_to_target(line(0.2, 0.2, 0.2), target) == 100


def test_final_accuracy_is_the_mean_of_the_last_three_rounds() -> None:
    table = curves(random=[[0.1, 0.1, 0.6, 0.7, 0.8], [0.1, 0.1, 0.8, 0.9, 1.0]])

    assert final_accuracy(table, "random") == pytest.approx(0.8)


def test_final_accuracy_of_a_short_run_leaves_the_first_model_out() -> None:
    assert final_accuracy(curves(random=[[0.1, 0.6, 0.8]]), "random") == pytest.approx(
        0.7
    )


def test_summary_says_what_was_saved_against_all_of_randoms_labels() -> None:
    summary = summarize(curves(random=[RANDOM], slow=[SLOW], quick=[QUICK]))

    assert summary.columns.tolist() == [
        "strategy",
        "n_seeds",
        "aubc_mean",
        "aubc_std",
        "final_accuracy_mean",
        "labels_to_random_final",
        "labels_saved_pct",
    ]
    assert summary["strategy"].tolist() == ["quick", "random", "slow"]
    assert summary["final_accuracy_mean"].tolist() == pytest.approx([0.9, 0.8, 2 / 3])
    assert summary["labels_to_random_final"].tolist() == [300, 400, pd.NA]
    assert summary["labels_saved_pct"].tolist()[:2] == pytest.approx([50, 100 / 3])
    assert np.isnan(summary["labels_saved_pct"].iloc[2])


def test_summary_gives_area_and_its_spread_over_seeds() -> None:
    flat = curves(random=[[0.6, 0.6], [0.8, 0.8]])

    summary = summarize(flat)

    assert summary["n_seeds"].tolist() == [2]
    assert summary["aubc_mean"].tolist() == pytest.approx([0.7])
    assert summary["aubc_std"].tolist() == pytest.approx([np.sqrt(0.02)])


def test_labels_of_a_summary_stay_whole_in_a_file() -> None:
    csv = summarize(curves(random=[RANDOM], slow=[SLOW])).to_csv(index=False)

    assert ",400," in csv
    assert csv.splitlines()[2].endswith(",,")


@pytest.mark.parametrize("compare", [summarize, compare_with_random])
def test_without_random_there_is_nothing_to_save(
    compare: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    with pytest.raises(SettingsError, match=r"(?s)\(margin\).*always runs beside"):
        compare(curves(margin=[QUICK]))


def test_comparison_pairs_each_seed_with_its_own_random() -> None:
    # Seeds differ by 20 points, the strategies by 2, 4 and -1 within a seed.
    table = curves(
        random=[[0.5, 0.5], [0.7, 0.7], [0.9, 0.9]],
        margin=[[0.52, 0.52], [0.74, 0.74], [0.89, 0.89]],
    )

    (row,) = compare_with_random(table).to_dict("records")

    half = 4.303 * np.std([2, 4, -1], ddof=1) / np.sqrt(3)
    assert row["strategy"] == "margin"
    assert row["n_seeds"] == 3
    assert row["seeds_won"] == 2
    assert row["gain_points"] == pytest.approx(5 / 3)
    assert row["gain_low"] == pytest.approx(5 / 3 - half, abs=1e-3)
    assert row["gain_high"] == pytest.approx(5 / 3 + half, abs=1e-3)


def test_a_tie_with_random_is_not_a_seed_won() -> None:
    assert compare_with_random(curves(random=[RANDOM], same=[RANDOM]))[
        "seeds_won"
    ].tolist() == [0]


def test_an_unfinished_run_says_how_many_rounds_lack_and_the_first() -> None:
    table = curves(random=[RANDOM, RANDOM], margin=[QUICK, QUICK])
    going_on = table.query("not (seed == 1 and round > 3)")

    with pytest.raises(DataError) as caught:
        summarize(going_on)
    assert str(caught.value) == (
        "4 of 24 rounds are missing from the learning curves; the first is seed 1, "
        "strategy 'margin', round 4. Finish the run first: "
        "kedro run --pipelines simulate --only-missing-outputs"
    )


def test_a_strategy_that_lacks_a_seed_is_incomplete() -> None:
    table = curves(random=[RANDOM, RANDOM], margin=[QUICK])

    with pytest.raises(DataError, match=r"6 of 24 rounds .* seed 1, strategy 'margin'"):
        check_curves(table)


def test_the_first_model_alone_is_no_comparison() -> None:
    with pytest.raises(DataError, match="round 0 alone"):
        check_curves(curves(random=[[0.5]]))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda t: t.drop(columns="train_s"), r"missing: \['train_s'\]"),
        (lambda t: t.assign(note="x"), r"unknown: \['note'\]"),
        (lambda t: t.head(0), "no row"),
        (lambda t: pd.concat([t, t.tail(1)]), "1 of 7 rows .* come twice"),
        (lambda t: t.assign(test_accuracy=84.5), "6 of 6 rows .* from 0 to 1"),
        (lambda t: t.assign(test_accuracy=np.nan), "6 of 6 rows .* from 0 to 1"),
        (lambda t: t.assign(n_labels=200), "5 of 6 rows .* no more labels"),
    ],
)
def test_curves_that_break_their_promise_are_refused(
    spoil: Callable[[pd.DataFrame], pd.DataFrame], complaint: str
) -> None:
    with pytest.raises(SchemaError, match=complaint):
        check_curves(spoil(curves(random=[RANDOM])))


def test_inputs_are_left_as_they_were() -> None:
    table = curves(random=[RANDOM, RANDOM], margin=[QUICK, SLOW]).iloc[::-1]
    before = table.copy()

    summarize(table)
    compare_with_random(table)

    pd.testing.assert_frame_equal(table, before)
