"""The gate lets pass what is not worse, and says on which figures it stands."""

from typing import Any

import numpy as np
import pytest
from tests.test_parameters import configured

from active_learning.pipelines.deploy.gate import BoolArray, judge
from active_learning.pipelines.deploy.params import DeployParams


def params(**changes: Any) -> DeployParams:
    return DeployParams.model_validate(configured("deploy", **changes))


PARAMS = params()


def answers(n: int, wrong: range | list[int]) -> BoolArray:
    """N answers, right but for some."""
    right = np.ones(n, dtype=bool)
    right[list(wrong)] = False
    return right


def labels(n: int) -> list[str]:
    """Two classes that take turns."""
    return ["cat" if number % 2 == 0 else "dog" for number in range(n)]


def test_the_first_model_has_nobody_to_beat() -> None:
    verdict = judge(answers(10, [0]), None, labels(10), PARAMS)

    assert verdict.accepted
    assert verdict.accuracy.challenger == 0.9
    assert verdict.accuracy.champion is None
    assert verdict.recall["cat"].challenger == 0.8
    assert verdict.recall["dog"].challenger == 1.0


def test_an_equal_one_passes_on_enough_images() -> None:
    n = 10_000
    verdict = judge(
        answers(n, range(100)), answers(n, range(100, 200)), labels(n), PARAMS
    )

    assert verdict.accepted
    assert "not worse by more than 0.01" in verdict.reasons[0]
    assert verdict.accuracy.low is not None
    assert -0.01 < verdict.accuracy.low < 0


def test_one_that_may_be_worse_by_more_does_not_pass_on_enough_images() -> None:
    n = 10_000
    verdict = judge(
        answers(n, range(300)), answers(n, range(300, 500)), labels(n), PARAMS
    )

    # The estimate is within the tolerance, and the interval is not.
    assert verdict.accuracy.difference == pytest.approx(-0.01)
    assert not verdict.accepted
    assert "may be worse by more than 0.01" in verdict.reasons[0]
    assert "0.9700 against 0.9800" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("own", "others", "accepted"), [(4, 4, True), (3, 4, True), (5, 4, False)]
)
def test_too_few_images_do_not_block_for_ever(
    own: int, others: int, accepted: bool
) -> None:
    n = 100
    verdict = judge(
        answers(n, range(own)), answers(n, range(50, 50 + others)), labels(n), PARAMS
    )

    assert verdict.accepted is accepted
    assert "the estimate decides" in verdict.reasons[0]
    assert "could" in verdict.reasons[0]


def test_the_number_of_images_that_would_decide_is_enough() -> None:
    n = 100
    verdict = judge(answers(n, range(4)), answers(n, range(4, 8)), labels(n), PARAMS)
    needed = int(verdict.reasons[0].split("about ")[1].split()[0])

    factor = needed / n
    wrong = round(4 * factor)
    more = judge(
        answers(needed + 60, range(wrong)),
        answers(needed + 60, range(wrong, 2 * wrong)),
        labels(needed + 60),
        PARAMS,
    )

    assert more.accepted
    assert "the estimate decides" not in more.reasons[0]


def test_a_class_that_collapses_is_refused_however_good_the_rest_is() -> None:
    # 60 of 100 cats are lost, and 160 of 900 dogs are won.
    n = 1000
    kinds = ["cat"] * 100 + ["dog"] * 900
    verdict = judge(answers(n, range(60)), answers(n, range(100, 260)), kinds, PARAMS)

    assert verdict.accuracy.difference == pytest.approx(0.1)
    assert not verdict.accepted
    (collapse,) = verdict.reasons[1:]
    assert "'cat' falls from 1.0000 to 0.4000 on its 100 test images" in collapse


def test_a_drop_that_may_be_chance_is_no_collapse() -> None:
    # Two of ten cats, in a test set that is better by far.
    n = 1000
    kinds = ["cat"] * 10 + ["dog"] * 990
    verdict = judge(answers(n, range(2)), answers(n, range(100, 260)), kinds, PARAMS)

    assert verdict.accepted
    assert verdict.recall["cat"].difference == pytest.approx(-0.2)


def test_a_drop_within_the_bound_is_no_collapse() -> None:
    n = 10_000
    kinds = ["cat"] * 5000 + ["dog"] * 5000
    verdict = judge(
        answers(n, range(400)), answers(n, range(5000, 5600)), kinds, PARAMS
    )

    assert verdict.recall["cat"].high is not None
    assert verdict.recall["cat"].high < 0
    assert verdict.accepted


def test_more_classes_do_not_make_more_false_alarms() -> None:
    # Alike models on 36 images of each of ten classes. Ten intervals of the level by
    # itself would raise one in five times.
    generator = np.random.default_rng(0)
    kinds = [str(number % 10) for number in range(360)]
    alarms = 0
    for _ in range(200):
        own, others = generator.random((2, 360)) < 0.85
        alarms += bool(judge(own, others, kinds, PARAMS).reasons[1:])

    assert alarms <= 10


@pytest.mark.parametrize("steps", [[], [50], [50, 50, 100], [100, 50]])
def test_steps_that_do_not_rise_to_all_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise and end with 100"):
        params(traffic_steps=steps)


@pytest.mark.parametrize("typed", ["10+100", [10, 100]])
def test_steps_can_be_typed_with_a_plus(typed: Any) -> None:
    assert params(traffic_steps=typed).traffic_steps == (10, 100)
    assert params(traffic_steps=100).traffic_steps == (100,)
