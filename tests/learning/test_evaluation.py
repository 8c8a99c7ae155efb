import numpy as np
import pytest

from active_learning.learning.evaluation import measure

CAT, DOG, EEL = np.eye(3)


def test_figures_of_an_example_that_can_be_checked_by_eye() -> None:
    #          hit  hit  dog  hit  cat
    guesses = [CAT, CAT, DOG, DOG, CAT]
    actual = ["cat", "cat", "cat", "dog", "dog"]

    figures = measure(np.stack(guesses), actual, ["cat", "dog", "eel"])

    assert figures["n_test"] == 5
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["recall"] == pytest.approx({"cat": 2 / 3, "dog": 1 / 2})
    # F1 is 2 * hits / (guesses + images): 4 / 6 for cat, 2 / 4 for dog; no eel at all.
    assert figures["macro_f1"] == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_a_class_unknown_to_the_model_counts_as_missed() -> None:
    guesses = np.stack([CAT, DOG, EEL, CAT])

    figures = measure(guesses, ["cat", "dog", "eel", "fox"], ["cat", "dog", "eel"])

    assert figures["accuracy"] == pytest.approx(3 / 4)
    assert figures["recall"] == {"cat": 1, "dog": 1, "eel": 1, "fox": 0}
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)


def test_a_class_that_is_guessed_but_never_occurs_lowers_the_mean() -> None:
    figures = measure(np.stack([CAT, EEL]), ["cat", "cat"], ["cat", "dog", "eel"])

    assert figures["recall"] == {"cat": 0.5}
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_classes_are_told_by_name_and_not_by_their_order() -> None:
    figures = measure(np.stack([CAT, DOG]), ["z", "a"], ["z", "a", "m"])

    assert figures["accuracy"] == 1
    assert figures["recall"] == {"a": 1, "z": 1}


def test_figures_are_plain_values_that_json_can_hold() -> None:
    figures = measure(np.stack([CAT]), ["cat"], ["cat", "dog", "eel"])

    assert type(figures["n_test"]) is int
    assert {type(figures["accuracy"]), type(figures["macro_f1"])} == {float}
    assert {type(value) for value in figures["recall"].values()} == {float}
