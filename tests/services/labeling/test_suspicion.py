"""A label is suspected when a model that had not seen it was sure of another."""

import numpy as np
import pytest

from active_learning.services.labeling.suspicion import suspect

SEED = 0


def answers(n_wrong: int, sure: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three hundred labels of four classes, some flipped, and what a model said."""
    draw = np.random.default_rng(SEED)
    truth = draw.integers(0, 4, 300)
    probabilities = np.full((300, 5), (1 - sure) / 4)
    probabilities[np.arange(300), truth] = sure
    wrong = np.zeros(300, dtype=bool)
    wrong[draw.choice(300, n_wrong, replace=False)] = True
    return np.where(wrong, (truth + 1) % 4, truth), probabilities, wrong


def test_flipped_labels_are_found_and_no_others() -> None:
    labels, probabilities, wrong = answers(n_wrong=20, sure=0.95)

    suspected, quality = suspect(labels, probabilities, 0.9)

    assert suspected.tolist() == wrong.tolist()
    assert quality[wrong].max() < quality[~wrong].min()


def test_good_labels_are_not_suspected() -> None:
    labels, probabilities, _ = answers(n_wrong=0, sure=0.95)

    assert not suspect(labels, probabilities, 0.0)[0].any()


@pytest.mark.parametrize(("at_least", "found"), [(0.5, 20), (0.7, 0)])
def test_a_model_must_be_as_sure_as_it_is_told(at_least: float, found: int) -> None:
    labels, probabilities, _ = answers(n_wrong=20, sure=0.6)

    assert suspect(labels, probabilities, at_least)[0].sum() == found


def test_hard_images_with_good_labels_are_not_suspected() -> None:
    # As a strategy picks them: the model hardly prefers one of two classes, and is
    # wrong as often as right.
    draw = np.random.default_rng(SEED)
    labels = draw.integers(0, 2, 300)
    margin = draw.uniform(-0.1, 0.1, 300)
    probabilities = np.stack([0.5 + margin, 0.5 - margin], axis=1)

    assert suspect(labels, probabilities, 0.0)[0].sum() > 100
    assert not suspect(labels, probabilities, 0.9)[0].any()


def test_the_quality_is_what_the_model_gave_to_the_label() -> None:
    probabilities = np.array([[0.75, 0.25], [0.125, 0.875]])

    _, quality = suspect(np.array([0, 0]), probabilities, 0.9)

    assert quality.tolist() == [0.75, 0.125]
