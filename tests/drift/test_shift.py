import pytest

from active_learning.drift import Shift, Verdict, verdict, worst


def shift(
    psi: float = 0.0, js: float = 0.0, p_value: float = 0.0, n: int = 1000
) -> Shift:
    return Shift(psi, js, 1.0, p_value, n, n)


def judge(measured: Shift) -> Verdict:
    return verdict(measured, psi_limit=0.2, js_limit=0.1, p_limit=0.01, min_rows=50)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (shift(psi=0.2, p_value=0.01), "drift"),
        (shift(js=0.1, p_value=0.01), "drift"),
        (shift(psi=9, js=1, p_value=0.02), "stable"),
        (shift(psi=0.19, js=0.09, p_value=0), "stable"),
        (shift(), "stable"),
    ],
    ids=["index", "distance", "chance", "small", "nothing"],
)
def test_drift_is_both_large_and_no_chance(measured: Shift, expected: Verdict) -> None:
    assert judge(measured) == expected


@pytest.mark.parametrize(("n_reference", "n_current"), [(49, 1000), (1000, 49)])
def test_a_window_of_few_rows_says_nothing(n_reference: int, n_current: int) -> None:
    measured = Shift(9.0, 1.0, 1.0, 0.0, n_reference, n_current)

    assert judge(measured) == "too_few"
    assert judge(measured._replace(n_reference=50, n_current=50)) == "drift"


def test_the_worst_verdict_is_the_one_to_act_on() -> None:
    assert worst(["stable", "drift", "too_few"]) == "drift"
    assert worst(["stable", "too_few", "stable"]) == "too_few"
    assert worst(["stable", "stable"]) == "stable"


def test_no_signal_is_too_few() -> None:
    assert worst([]) == "too_few"
