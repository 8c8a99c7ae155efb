"""What a model learned from is remembered, and what is new since is counted."""

import pandas as pd
import pytest

from active_learning.pipelines.train.novelty import Novelty, memorize, novelty


def labels(**by_content: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"content": list(by_content), "label": list(by_content.values())}
    )


BEFORE = labels(a="cat", b="cat", c="dog")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (labels(c="dog", a="cat", b="cat"), Novelty(0, 0, 0)),
        (labels(a="cat", b="cat", c="dog", d="dog"), Novelty(1, 0, 0)),
        (labels(a="cat", b="dog", c="dog"), Novelty(0, 1, 0)),
        (labels(a="cat"), Novelty(0, 0, 2)),
        (labels(b="dog", c="dog", d="cat", e="cat"), Novelty(2, 1, 1)),
    ],
)
def test_each_image_counts_once(now: pd.DataFrame, expected: Novelty) -> None:
    assert novelty(now, memorize(BEFORE)) == expected
    assert novelty(now, memorize(BEFORE)).total == sum(expected)


def test_a_second_name_of_an_image_is_nothing_new() -> None:
    twice = pd.concat([BEFORE, BEFORE])

    assert novelty(twice, memorize(BEFORE)).total == 0


def test_nothing_was_learned_at_first() -> None:
    assert novelty(BEFORE, memorize(labels())) == Novelty(3, 0, 0)
    assert novelty(BEFORE, "") == Novelty(3, 0, 0)


def test_the_memory_is_sixteen_characters_a_label_in_any_order() -> None:
    assert len(memorize(BEFORE)) == 16 * len(BEFORE)
    assert memorize(BEFORE) == memorize(BEFORE[::-1])
