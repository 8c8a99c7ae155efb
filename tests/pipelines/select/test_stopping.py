"""What a manager is told: figures, words, and no stop that nothing was measured for."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from tests.test_parameters import configured

from active_learning.evaluation.stopping import gain
from active_learning.pipelines.select.params import SelectParams
from active_learning.pipelines.select.report import render_stopping
from active_learning.pipelines.select.stopping import heed_advice, judge_stopping
from active_learning.schemas import LABELS, empty_frame

NOW = datetime(2000, 2, 1, tzinfo=UTC)
NO_AUDITS = pd.DataFrame(
    {"model_name": [], "model_version": [], "n_audited": [], "n_right": []}
)
NO_HISTORY = pd.DataFrame({"model_version": [], "n_labels": []})
NO_AGREEMENT = pd.DataFrame(
    {name: [] for name in ("previous_version", "model_version", "was", "said", "n")}
)
NO_DOUBT = pd.DataFrame({"n_images": [], "mean_entropy": []})
OFF: dict[str, Any] = {
    "max_labels": None,
    "max_cost": None,
    "plateau": {"versions": 3, "min_gain": None},
    "stability": {"pairs": 3, "min_images": 1000, "kappa": None},
    "uncertainty": {"over": "mean", "at_most": None},
}


def params(**stopping: Any) -> SelectParams:
    """As configured, every criterion off but those that are given."""
    section = configured("select")
    return SelectParams.model_validate(
        {**section, "stopping": {**section["stopping"], **OFF, **stopping}}
    )


def plateau(versions: int = 3, min_gain: float | None = 0.05) -> dict[str, Any]:
    return {"versions": versions, "min_gain": min_gain}


def stability(pairs: int = 2, kappa: float | None = 0.99) -> dict[str, Any]:
    return {"pairs": pairs, "min_images": 100, "kappa": kappa}


def uncertainty(over: str = "mean", at_most: float | None = 0.1) -> dict[str, Any]:
    return {"over": over, "at_most": at_most}


def answered(n: int, *more: dict[str, Any]) -> pd.DataFrame:
    """Labels of as many images by one labeler, and other answers."""
    rows = [{"image_id": f"{i}.png", "labeler": "ann"} for i in range(n)]
    usual = {"label": "cat", "answer": "label"}
    table = pd.DataFrame([usual | row for row in [*rows, *more]])
    return table.reindex(columns=LABELS.names)


def audited(*n_right: int, n: int = 2000) -> pd.DataFrame:
    """Versions 1, 2, ... with as many right of n audited images."""
    return pd.DataFrame(
        {
            "model_name": "small_cnn",
            "model_version": range(1, len(n_right) + 1),
            "n_audited": n,
            "n_right": n_right,
        }
    )


def taught(*n_labels: int) -> pd.DataFrame:
    versions = range(1, len(n_labels) + 1)
    return pd.DataFrame({"model_version": versions, "n_labels": n_labels})


def agreed(*changed: int, n: int = 1000) -> pd.DataFrame:
    """Of n images, half cats, as many changed between versions 1, 2, ..."""
    rows = [
        (version, version + 1, was, said, count)
        for version, changes in enumerate(changed, start=1)
        for was, said, count in (
            ("cat", "cat", n // 2 - changes),
            ("cat", "dog", changes),
            ("dog", "dog", n // 2),
            (None, "dog", 77),  # the older version never saw them
        )
    ]
    return pd.DataFrame(rows, columns=list(NO_AGREEMENT))


def doubted(mean: float, largest: float = 0.6) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "n_images": 5000,
                "mean_entropy": mean,
                "max_entropy": largest,
                "n_classes": 2,
            }
        ]
    )


def judged(
    own: SelectParams,
    labels: pd.DataFrame | None = None,
    audits: pd.DataFrame = NO_AUDITS,
    history: pd.DataFrame = NO_HISTORY,
    agreement: pd.DataFrame = NO_AGREEMENT,
    doubt: pd.DataFrame = NO_DOUBT,
) -> dict[str, Any]:
    known = empty_frame(LABELS) if labels is None else labels
    report = judge_stopping(known, audits, history, agreement, doubt, NOW, own)
    # It is for machines, and what a machine read back makes the same page.
    again = json.loads(json.dumps(report, allow_nan=False))
    assert render_stopping(again) == render_stopping(report)
    return report


def criterion(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in report["criteria"] if one["name"] == name]
    return dict(found)


# --- the criteria ---


def test_an_empty_project_is_told_to_go_on() -> None:
    own = params(
        max_labels=100,
        cost_per_label=0.1,
        max_cost=50.0,
        plateau=plateau(),
        stability=stability(),
        uncertainty=uncertainty(),
    )

    report = judged(own)

    assert report["advice"] == "go_on"
    assert {one["name"]: one["met"] for one in report["criteria"]} == {
        "max_labels": False,
        "max_cost": False,
        "plateau": None,
        "stability": None,
        "uncertainty": None,
    }
    assert report["price"]["labels"] is None


@pytest.mark.parametrize(("n", "spent"), [(9, False), (10, True), (11, True)])
def test_the_budget_of_labels_is_spent_when_it_is_reached(n: int, spent: bool) -> None:
    report = judged(params(max_labels=10), answered(n))

    assert criterion(report, "max_labels")["met"] is spent
    assert report["advice"] == ("stop" if spent else "go_on")


def test_every_answer_is_paid_for_and_a_correction_is_none() -> None:
    labels = answered(
        2,
        {"image_id": "0.png", "labeler": "bob"},  # a second labeler
        {"image_id": "0.png", "labeler": "ann", "label": "dog"},  # a correction
        {"image_id": "9.png", "labeler": "ann", "answer": "skipped", "label": ""},
    )

    report = judged(params(cost_per_label=0.25, max_cost=1.0), labels)

    assert report["spent"] == {
        "answers": 4,
        "labeled_images": 2,
        "answers_per_image": 2.0,
        "cost_per_label": 0.25,
        "cost": 1.0,
        "currency": "EUR",
    }
    assert report["headline"] == "Stop: the money that was planned is spent"
    assert "1.00 EUR were spent of 1.00 EUR" in criterion(report, "max_cost")["says"]


def test_answers_from_before_skipping_was_possible_are_labels() -> None:
    report = judged(params(), answered(3).assign(answer=None))

    assert report["spent"]["labeled_images"] == 3


def test_a_plateau_is_told_from_the_last_versions_alone() -> None:
    own = params(plateau=plateau(versions=2))

    # It rose by twenty points, and not at all since version 3.
    report = judged(own, audits=audited(1400, 1600, 1800, 1800, 1800))

    found = criterion(report, "plateau")
    assert found["met"] is True
    assert found["versions"] == [3, 4, 5]
    expected = gain((1800, 2000), (1800, 2000), 0.9)
    assert (found["value"], found["low"], found["high"]) == expected
    assert report["headline"] == "Stop: the accuracy has stopped rising"
    assert judged(params(plateau=plateau(4)), audits=audited(1400, 1600, 1800, 1800))[
        "headline"
    ] == ("Go on: too little was measured to tell whether to stop")


def test_a_rise_is_no_plateau() -> None:
    report = judged(
        params(plateau=plateau(versions=1)), audits=audited(1400, 1600, n=2000)
    )

    assert criterion(report, "plateau")["met"] is False
    assert report["headline"] == "Go on: nothing says that more labels are wasted"
    says = criterion(report, "plateau")["says"]
    assert says.startswith("From version 1 to version 2 the accuracy changed by +10.0")
    assert says.endswith("surely no less than the 5 asked for.")


def test_few_audits_are_not_known_yet_and_say_how_many_would_do() -> None:
    report = judged(params(plateau=plateau(versions=1)), audits=audited(4, 4, n=5))

    found = criterion(report, "plateau")
    assert found["met"] is None
    assert found["says"].startswith("Not known yet: from version 1 to version 2")
    # 2 x 1.645^2 x 0.8 x 0.2 / 0.05^2
    assert "about 347 audited labels" in found["says"]


def test_a_version_that_was_not_audited_is_passed_over() -> None:
    audits = audited(1800, 0, 1800).assign(n_audited=[2000, 0, 2000])

    report = judged(params(plateau=plateau(versions=1)), audits=audits)

    assert criterion(report, "plateau")["versions"] == [1, 3]
    assert report["advice"] == "stop"


def test_stability_is_the_mean_kappa_of_the_last_pairs() -> None:
    # 4 of 1000 changed, 2 of them expected by chance: kappa 0.992; then 0.996.
    report = judged(params(stability=stability()), agreement=agreed(200, 4, 2))

    found = criterion(report, "stability")
    assert [pair["kappa"] for pair in found["pairs"]] == pytest.approx([0.992, 0.996])
    assert [pair["n_images"] for pair in found["pairs"]] == [1000, 1000]
    assert found["value"] == pytest.approx(0.994)
    assert report["headline"] == "Stop: the predictions have stopped changing"
    assert "kappa of 0.994" in found["says"]


@pytest.mark.parametrize(
    ("agreement", "met"),
    [
        (agreed(4, 40), False),
        (agreed(2), None),
        (agreed(1, 1, n=98), None),  # fewer images than are asked for
        (NO_AGREEMENT, None),
    ],
    ids=["changing", "one pair", "few images", "nothing"],
)
def test_predictions_that_change_or_are_not_known_do_not_stop(
    agreement: pd.DataFrame, met: bool | None
) -> None:
    report = judged(params(stability=stability()), agreement=agreement)

    assert criterion(report, "stability")["met"] is met
    assert report["advice"] == "go_on"


def test_a_class_that_only_one_version_knows_counts_against_it() -> None:
    agreement = agreed(0, 0)
    agreement.loc[agreement["said"] == "dog", "said"] = "eel"

    report = judged(params(stability=stability()), agreement=agreement)

    assert criterion(report, "stability")["met"] is False


@pytest.mark.parametrize(
    ("over", "doubt", "met"),
    [
        ("mean", doubted(0.09), True),
        ("mean", doubted(0.11), False),
        ("max", doubted(0.05, largest=0.6), False),
        ("max", doubted(0.05, largest=0.1), True),
        ("mean", NO_DOUBT, None),
    ],
)
def test_little_doubt_stops(over: str, doubt: pd.DataFrame, met: bool | None) -> None:
    report = judged(params(uncertainty=uncertainty(over)), doubt=doubt)

    assert criterion(report, "uncertainty")["met"] is met
    assert (report["advice"] == "stop") is (met is True)


def test_doubt_is_told_beside_that_of_a_blind_guess() -> None:
    report = judged(params(uncertainty=uncertainty()), doubt=doubted(0.05))

    says = criterion(report, "uncertainty")["says"]
    assert "5,000 unlabeled images the mean doubt is 0.050 nats" in says
    assert "0.693 is a blind guess" in says


# --- together ---


@pytest.mark.parametrize(("combine", "advice"), [("any", "stop"), ("all", "go_on")])
def test_one_criterion_is_enough_for_any_and_not_for_all(
    combine: str, advice: str
) -> None:
    own = params(combine=combine, max_labels=5, uncertainty=uncertainty())

    report = judged(own, answered(5), doubt=doubted(0.5))

    assert report["advice"] == advice


def test_all_does_not_stop_while_one_is_unknown() -> None:
    own = params(combine="all", max_labels=5, uncertainty=uncertainty())

    report = judged(own, answered(5))

    assert report["headline"] == (
        "Go on: the labels that were planned are spent, but the others do not say stop "
        "yet"
    )
    assert judged(own, answered(5), doubt=doubted(0.05))["headline"] == (
        "Stop: the labels that were planned are spent and the model has little doubt "
        "left"
    )


def test_a_criterion_that_is_off_is_told_and_not_heard() -> None:
    report = judged(params(), answered(5), audited(900, 900), doubt=doubted(0.0))

    assert report["headline"] == "Go on: no criterion is switched on"
    assert not any(one["on"] for one in report["criteria"])
    assert criterion(report, "uncertainty")["value"] == 0.0


# --- the price of the next point ---


def curve_of(n_audited: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Audits of five versions that learned along 0.95 - 1.2 n ** -0.4."""
    n_labels = np.array([200, 400, 800, 1600, 3200])
    right = np.round((0.95 - 1.2 * n_labels**-0.4) * n_audited).astype(int)
    return audited(*right, n=n_audited), taught(*n_labels)


def test_the_next_point_has_a_price_in_labels_and_in_money() -> None:
    audits, history = curve_of(100_000)
    own = params(cost_per_label=0.5)

    # Every other image was labeled twice, so a label costs half as much again.
    twice = [{"image_id": f"{i}.png", "labeler": "bob"} for i in range(1600)]
    report = judged(own, answered(3200, *twice), audits, history)

    labels, cost = report["price"]["labels"], report["price"]["cost"]
    assert labels["value"] == pytest.approx(2575, rel=0.05)
    assert labels["low"] < 2575 < labels["high"]
    assert cost["value"] == pytest.approx(labels["value"] * 0.75)
    assert f"about {labels['value']:,.0f} labels (between" in report["price"]["says"]
    assert f"{cost['value']:,.2f} EUR (between" in report["price"]["says"]
    assert report["curve"]["ceiling"]["value"] == pytest.approx(0.95, abs=0.005)
    assert "does not exceed 9" in report["curve"]["says"]


def test_without_a_price_of_a_label_the_next_point_costs_labels() -> None:
    report = judged(params(), answered(3200), *curve_of(100_000))

    assert report["price"]["cost"] is None
    assert "EUR" not in report["price"]["says"]


def test_the_price_is_that_of_today_and_not_of_the_last_version() -> None:
    early, late = (
        judged(params(), answered(n), *curve_of(100_000))["price"]["labels"]["value"]
        for n in (1600, 3200)
    )

    assert early < late


def test_too_few_audits_have_no_price_and_say_so() -> None:
    report = judged(params(), answered(3200), *curve_of(20))

    assert report["price"]["labels"] is None
    assert report["price"]["says"].startswith("Not known yet:")
    assert report["curve"]["ceiling"] is None
    assert len(report["curve"]["points"]) == 5


def test_an_upper_end_that_cannot_be_told_is_none() -> None:
    report = judged(params(), answered(3200), *curve_of(1500))

    assert report["price"]["labels"]["high"] is None
    assert "at least" in report["price"]["says"]


def test_the_end_of_the_curve_makes_the_next_point_out_of_reach() -> None:
    audits, history = curve_of(100_000)

    report = judged(params(), answered(200_000), audits, history)

    assert report["price"]["labels"]["value"] is None
    assert "more labels are not expected to bring it" in report["price"]["says"]


# --- acting on it ---


@pytest.mark.parametrize(
    ("act", "n", "kept"), [(True, 5, 0), (True, 4, 2), (False, 5, 2), (False, 4, 2)]
)
def test_only_who_says_act_is_stopped(
    act: bool, n: int, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    own = params(act=act, max_labels=5)
    ranked = pd.DataFrame({"image_id": ["a", "b"], "utility": [0.9, 0.8]})

    wanted = heed_advice(ranked, judged(own, answered(n)), own)

    assert wanted["image_id"].tolist() == ["a", "b"][:kept]
    assert list(wanted.columns) == list(ranked.columns)
    assert ("asks for nothing" in caplog.text) is (kept == 0)


def test_a_bound_on_money_needs_a_price() -> None:
    with pytest.raises(ValidationError, match="cost_per_label does not say"):
        params(max_cost=100.0)


# --- the page ---


def test_the_page_says_what_the_report_says() -> None:
    own = params(
        cost_per_label=0.5,
        max_labels=3200,
        plateau=plateau(),
        stability=stability(),
        currency="<CHF>",
    )
    audits, history = curve_of(100_000)
    report = judged(own, answered(3200), audits, history, agreed(4, 40), doubted(0.2))

    html = render_stopping(report)

    assert "<h1>Stop: the labels that were planned are spent</h1>" in html
    assert "3,200 of 3,200 answers were given." in html
    assert html.count("■ says stop") == 1
    assert html.count("▶ says go on") == 2
    assert html.count("\N{EN DASH} switched off") == 2
    assert "1,600.00 &lt;CHF&gt;" in html
    assert "<CHF>" not in html
    assert "learning curve" in html
    assert "<svg" in html
    assert "http://" not in html
    assert "https://" not in html


def test_a_page_without_any_measurement_is_whole() -> None:
    html = render_stopping(judged(params(plateau=plateau())))

    assert "Go on: too little was measured" in html
    assert "<svg" not in html
    assert "there is no learning curve yet" in html
    assert "… not known yet" in html
