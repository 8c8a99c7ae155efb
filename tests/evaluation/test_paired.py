"""The paired interval is Tango's, and it tells a difference from chance."""

import numpy as np
import pytest

from active_learning.errors import DataError
from active_learning.evaluation.paired import compare, images_needed, tango


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "published"),
    [
        # Tango 1998, cross-over trial of two soft contact lens disinfections.
        (0, 1, 44, 0.90, (-0.096, 0.037)),
        # Fagerland, Lydersen and Laake 2014: airway hyper-responsiveness before and
        # after stem cell transplantation; response before and after consolidation.
        (1, 7, 21, 0.95, (-0.517, -0.026)),
        (6, 16, 161, 0.95, (-0.1240, -0.0054)),
    ],
)
def test_published_examples_are_met(
    b: int, c: int, n: int, level: float, published: tuple[float, float]
) -> None:
    digits = 4 if n == 161 else 3

    found = tango(b, c, n, level)

    assert tuple(round(end, digits) for end in found) == published


@pytest.mark.parametrize(
    ("b", "c", "n"), [(3, 1, 10), (0, 0, 5), (7, 0, 7), (2, 9, 40)]
)
def test_swapping_the_models_mirrors_the_interval(b: int, c: int, n: int) -> None:
    low, high = tango(b, c, n, 0.95)

    assert tango(c, b, n, 0.95) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 <= low < (b - c) / n + 1e-9
    assert (b - c) / n - 1e-9 < high <= 1


def test_equal_answers_are_no_proof_of_equality() -> None:
    # The closed form where nothing differs: z^2 / (n + z^2).
    z_squared = 1.959964**2

    low, high = tango(0, 0, 100, 0.95)

    assert high == pytest.approx(z_squared / (100 + z_squared), rel=1e-5)
    assert low == pytest.approx(-high)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    parts = [0.1, 0.15, 0.75]  # only the first right, only the second, alike
    drawn = generator.multinomial(100, parts, size=1000)
    held = [
        low <= -0.05 <= high
        for low, high in (tango(int(b), int(c), 100, 0.95) for b, c, _ in drawn)
    ]

    # Three standard errors of a share of 1000.
    assert np.mean(held) == pytest.approx(0.95, abs=0.021)


def test_a_comparison_counts_image_by_image() -> None:
    found = compare([1, 1, 0, 0, 1], [1, 0, 1, 0, 0], 0.95)

    assert (found.only_first, found.only_second, found.n) == (2, 1, 5)
    assert (found.first, found.second) == (0.6, 0.4)
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == tango(2, 1, 5, 0.95)


@pytest.mark.parametrize("differing", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("margin", [0.01, 0.1])
def test_the_images_needed_are_just_enough(differing: float, margin: float) -> None:
    n = images_needed(differing, margin, 0.95)
    each = differing * n / 2

    # Counts need not be whole for the formula, only for its users.
    assert tango(each, each, n, 0.95)[0] >= -margin - 1e-9  # type: ignore[arg-type]
    each = differing * (n - 1) / 2
    assert tango(each, each, n - 1, 0.95)[0] < -margin  # type: ignore[arg-type]


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(b: int, c: int, n: int) -> None:
    with pytest.raises(DataError, match=f"{b} and {c} of {n} pairs"):
        tango(b, c, n, 0.95)


@pytest.mark.parametrize("other", [[1], [], [[1, 0]]])
def test_answers_to_other_images_are_refused(other: list[int]) -> None:
    with pytest.raises(DataError, match="image by image"):
        compare([1, 0] if other else [], other, 0.95)
