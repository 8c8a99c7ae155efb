"""What the stopping report asks the engine, with answers to check by eye."""

from pathlib import Path

import numpy as np
import pytest
from tests.test_queries import (
    UNTIL,
    Asking,
    Row,
    embedded,
    in_test_set,
    labeled,
    noon,
    predicted,
    requested,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("translations")


@pytest.fixture
def ask(tmp_path: Path, cache: Path) -> Asking:
    return Asking(tmp_path, cache)


def unanswered(image_id: str, answer: str, day: int) -> Row:
    row = labeled(image_id, label="", day=day)
    return {**row, "label_id": f"{image_id} {answer}", "answer": answer}


# --- the history of versions ---


def test_a_version_learned_from_the_labels_before_it_first_scored(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", version=1, day=10),
            predicted("b", version=1, day=25),
            predicted("a", version=2, day=20),
            predicted("a", version=7, day=30),
            predicted("a", version=8, day=32),  # after the question
        ],
        labels=[
            labeled("x", day=9),
            labeled("y", day=10),  # at the very moment is too late
            labeled("z", day=29),
            labeled("w", day=31),
        ],
    )

    told = ask.rows("version_history", "model_name model_version began n_labels")

    assert told == [
        ("small_cnn", 1, noon(10), 1),
        ("small_cnn", 2, noon(20), 2),
        ("small_cnn", 7, noon(30), 3),
    ]


def test_an_image_is_labeled_once_however_many_answered(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("a", version=1, day=20)],
        labels=[
            labeled("x", day=5),
            labeled("x", label="dog", day=6),
            {**labeled("y", day=7), "answer": None},  # as older parts have it
            {**labeled("z", day=8), "answer": "label"},
            unanswered("skipped", "skipped", day=5),
            unanswered("unclear", "unclear", day=5),
        ],
    )

    assert ask.rows("version_history", "n_labels") == [3]


def test_the_first_version_may_have_learned_elsewhere(ask: Asking) -> None:
    ask.add(predictions=[predicted("a", version=1)])

    assert ask.rows("version_history", "model_version n_labels") == [(1, 0)]


# --- what versions agree on ---


def agreement(ask: Asking, **changed: str | int) -> list[tuple[object, ...]]:
    columns = "previous_version model_version was said n"
    table = ask("version_agreement", **changed)
    table["was"] = table["was"].fillna("")
    rows = table[columns.split()].itertuples(index=False, name=None)
    return sorted(rows)


def test_successive_versions_are_counted_on_the_images_of_both(ask: Asking) -> None:
    ask.add(
        predictions=[
            # Version 2 was never in production: 3 comes after 1.
            *(predicted(name, version=1, day=10) for name in "abcd"),
            predicted("a", version=3),
            predicted("b", version=3),
            predicted("c", version=3, label="dog"),
            predicted("new", version=3, label="dog"),
            predicted("a", version=4, label="dog", day=28),
        ]
    )

    assert agreement(ask) == [
        (1, 3, "", "dog", 1),
        (1, 3, "cat", "cat", 2),
        (1, 3, "cat", "dog", 1),
        (3, 4, "cat", "dog", 1),
    ]


def test_what_was_labeled_says_nothing_of_stability(ask: Asking) -> None:
    # The newer version has been told what it shows.
    ask.add(
        predictions=[predicted(n, version=v) for n in "ab" for v in (1, 2)],
        labels=[labeled("a")],
    )

    assert agreement(ask) == [(1, 2, "cat", "cat", 1)]


def test_a_version_outside_the_window_is_not_compared(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", version=1, day=5),
            predicted("a", version=2, day=20),
            predicted("a", version=3, day=33),
        ]
    )

    assert agreement(ask) == [(1, 2, "cat", "cat", 1)]
    assert agreement(ask, window_days=20) == []


def test_scoring_an_image_again_counts_it_once(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", version=1, day=10),
            *(predicted("a", version=2, day=day) for day in (20, 21, 22)),
        ]
    )

    assert agreement(ask) == [(1, 2, "cat", "cat", 1)]


def test_ten_pairs_come_back_the_newest(ask: Asking) -> None:
    ask.add(predictions=[predicted("a", version=v) for v in range(1, 15)])

    pairs = [row[:2] for row in agreement(ask)]

    assert pairs == [(version - 1, version) for version in range(5, 15)]


def test_a_large_project_is_asked_about_a_blind_part(ask: Asking) -> None:
    names = [f"{n:05}" for n in range(12_000)]
    keys = np.arange(len(names)) / len(names)
    ask.add(
        predictions=[
            predicted(name, version=version, sampling_key=key if version == 2 else 0.9)
            for version in (1, 2)
            for name, key in zip(names, keys, strict=True)
        ]
    )

    ((*_, n),) = agreement(ask)

    # An engine may estimate how many images there are.
    assert 9_000 <= n <= 11_000


# --- what is left in doubt ---


def test_doubt_is_measured_over_all_that_nobody_has_labeled(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", entropy=0.2),
            predicted("b", entropy=0.6),
            predicted("asked for", entropy=0.7),
            predicted("labeled", entropy=0.0),
            predicted("test", entropy=0.0),
            predicted("another's", version=1, day=12, entropy=0.0),
            predicted("too early", day=1, entropy=0.0),
        ],
        labels=[labeled("labeled")],
        test_set=[in_test_set("test")],
        label_requests=[requested("asked for")],
        embeddings=[embedded("a")],
    )

    (row,) = ask("overall_uncertainty").to_dict("records")

    assert row["n_images"] == 3
    assert row["mean_entropy"] == pytest.approx(0.5)
    assert row["max_entropy"] == pytest.approx(0.7)
    assert row["n_classes"] == 2
    assert (row["model_name"], row["model_version"]) == ("small_cnn", 2)


def test_an_image_that_was_scored_twice_counts_once(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", entropy=0.6, day=20),
            predicted("a", entropy=0.6, day=21),
            predicted("b", entropy=0.0),
        ]
    )

    (row,) = ask("overall_uncertainty").to_dict("records")

    assert (row["n_images"], row["mean_entropy"]) == (2, pytest.approx(0.3))


def test_nothing_left_to_label_leaves_no_doubt_to_measure(ask: Asking) -> None:
    ask.add(predictions=[predicted("a")], labels=[labeled("a")])

    assert ask("overall_uncertainty").empty
    assert ask("overall_uncertainty", until=UNTIL).empty
