"""Labelers who err as often as they are told, and the same way at every look."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from active_learning.errors import SettingsError
from active_learning.schemas import ANSWERS, to_arrow
from active_learning.services.labeling.oracle import OracleParams, answer

CLASSES = ["cat", "cow", "dog", "owl"]
N = 4000


def params(**changes: Any) -> OracleParams:
    right: dict[str, Any] = {"noise": 0.0, "labelers": 1, "abstain": 0.0, "seed": 0}
    return OracleParams.model_validate(right | changes)


def requests(n: int = N, n_before: int = 0) -> pd.DataFrame:
    names = [f"{number}.png" for number in range(n)]
    return pd.DataFrame(
        {
            "image_id": names,
            "request_id": [f"r{number}" for number in range(n)],
            "label": [CLASSES[number % 4] for number in range(n)],
            "labeled_at": pd.Timestamp("2000-01-05", tz="UTC"),
            "n_before": n_before,
        }
    )


def truth_of(answers: pd.DataFrame) -> pd.Series:
    numbers = answers["reference"].str.removesuffix(".png").astype(int)
    return numbers.map(lambda number: CLASSES[number % 4])


def test_without_noise_every_request_has_its_true_class() -> None:
    answers = answer(requests(3), CLASSES, params())

    assert answers["label"].tolist() == ["cat", "cow", "dog"]
    assert answers["request_id"].tolist() == ["r0", "r1", "r2"]
    assert set(answers["labeler"]) == {"oracle"}
    assert set(answers["answer"]) == {"label"}


@pytest.mark.parametrize("n", [0, 3])
def test_answers_are_what_a_reader_of_exports_returns(n: int) -> None:
    answers = answer(requests(n), CLASSES, params(noise=0.5, labelers=2, abstain=0.5))

    assert len(to_arrow(answers, ANSWERS)) == 2 * n
    assert str(answers["labeled_at"].dtype) == "datetime64[us, UTC]"
    assert str(answers["line"].dtype) == "int64"
    assert not answers.isna().any(axis=None)


@pytest.mark.parametrize("abstain", [0.0, 0.4])
def test_as_many_labels_are_wrong_as_was_asked_for(abstain: float) -> None:
    answers = answer(requests(), CLASSES, params(noise=0.2, abstain=abstain))

    given = answers[answers["answer"] == "label"]
    # Five standard deviations of a share of at least 2,000.
    assert (given["label"] != truth_of(given)).mean() == pytest.approx(0.2, abs=0.045)


def test_a_wrong_class_is_any_other_alike() -> None:
    answers = answer(requests(), CLASSES, params(noise=1.0))

    pairs = pd.crosstab(truth_of(answers), answers["label"]).to_numpy()
    assert (np.diag(pairs) == 0).all()
    assert pairs[~np.eye(4, dtype=bool)] == pytest.approx(N / 12, abs=75)


def test_who_abstains_gives_no_class() -> None:
    answers = answer(requests(), CLASSES, params(noise=0.5, abstain=0.3))

    shares = answers["answer"].value_counts(normalize=True)
    assert shares["skipped"] == pytest.approx(0.15, abs=0.03)
    assert shares["unclear"] == pytest.approx(0.15, abs=0.03)
    silent = answers["answer"] != "label"
    assert (answers["label"] == "").tolist() == silent.tolist()


def test_labelers_err_independently_of_each_other() -> None:
    answers = answer(requests(), CLASSES, params(noise=0.5, labelers=3))

    wrong = (answers["label"] != truth_of(answers)).to_numpy().reshape(N, 3)
    apart = np.corrcoef(wrong.T)[~np.eye(3, dtype=bool)]
    assert np.abs(apart).max() < 5 / np.sqrt(N)
    assert answers["labeler"].head(3).tolist() == ["oracle", "oracle-2", "oracle-3"]
    assert answers["reference"].head(3).tolist() == ["0.png"] * 3


def test_an_answer_depends_on_no_other() -> None:
    sloppy = params(noise=0.5, labelers=2, abstain=0.2)
    every = answer(requests(), CLASSES, sloppy)

    some = answer(requests().iloc[::-7], CLASSES, sloppy)

    both = every.merge(some, on=["reference", "labeler"])
    assert len(both) == len(some)
    assert both["label_x"].tolist() == both["label_y"].tolist()
    assert both["answer_x"].tolist() == both["answer_y"].tolist()


def test_a_second_opinion_is_another_labelers_own() -> None:
    both = answer(requests(), CLASSES, params(noise=0.5, labelers=2))

    later = answer(requests(n_before=1), CLASSES, params(noise=0.5))

    second = both[both["labeler"] == "oracle-2"].reset_index(drop=True)
    pd.testing.assert_frame_equal(later, second)


def test_another_seed_errs_elsewhere() -> None:
    one, two = (
        answer(requests(), CLASSES, params(noise=0.5, seed=seed))["label"]
        for seed in (0, 1)
    )

    assert (one == two).mean() < 0.5


def test_who_errs_at_little_noise_errs_the_same_at_more() -> None:
    little, more = (
        answer(requests(), CLASSES, params(noise=noise)) for noise in (0.1, 0.3)
    )

    wrong = little["label"] != truth_of(little)
    assert wrong.any()
    assert (little["label"][wrong] == more["label"][wrong]).all()


def test_nothing_can_be_mistaken_where_there_is_one_class() -> None:
    lone = requests(3).assign(label="cat")

    assert answer(lone, ["cat"], params())["label"].tolist() == ["cat"] * 3
    with pytest.raises(SettingsError, match=r"Set oracle\.noise to 0"):
        answer(lone, ["cat"], params(noise=0.1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"noise": 1.1}, "less than or equal to 1"),
        ({"noise": -0.1}, "greater than or equal to 0"),
        ({"abstain": 1}, "less than 1"),
        ({"labelers": 0}, "greater than 0"),
        ({"nois": 0.1}, "did you mean 'noise'"),
    ],
)
def test_labelers_that_cannot_be_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        params(**changes)
