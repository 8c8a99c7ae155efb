"""What several labelers say together: votes, ties, and who is to be believed."""

import numpy as np
import pytest

from active_learning.services.labeling.consensus import (
    count_votes,
    distinct,
    in_turn,
    latest,
    weigh_labelers,
)

CAT, DOG, EEL = 0, 1, 2


def numbers(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def test_the_last_answer_of_each_labeler_counts() -> None:
    image = numbers(0, 0, 0, 1)
    labeler = numbers(5, 5, 6, 5)

    rows = latest(image, labeler, numbers(20, 10, 10, 10))

    assert rows.tolist() == [0, 2, 3]


def test_answers_in_turn_are_sorted_by_all_that_counts() -> None:
    draw = np.random.default_rng(0)
    for image in (draw.integers(0, 9, 50), np.arange(50), np.arange(50)[::-1]):
        labeler, time = draw.integers(0, 3, (2, 50))
        keys = list(zip(image, labeler, time, strict=True))

        assert in_turn(image, labeler, time).tolist() == sorted(
            range(50), key=keys.__getitem__
        )


def test_of_equal_times_the_later_row_counts() -> None:
    assert latest(numbers(0, 0), numbers(1, 1), numbers(7, 7)).tolist() == [1]
    assert not distinct(numbers(0, 0), numbers(1, 1), numbers(7, 7))
    assert distinct(numbers(0, 0), numbers(1, 2), numbers(7, 7))


def test_votes_are_counted_image_by_image() -> None:
    image = numbers(2, 0, 0, 0, 2, 2, 3)
    label = numbers(CAT, DOG, DOG, CAT, DOG, CAT, EEL)

    votes = count_votes(image, label, 5)

    assert votes.label.tolist() == [DOG, -1, CAT, EEL, -1]
    assert votes.n_votes.tolist() == [3, 0, 3, 1, 0]
    assert votes.n_top.tolist() == [2, 0, 2, 1, 0]
    assert not votes.tied.any()


@pytest.mark.parametrize(
    ("label", "top", "tied"),
    [
        ((DOG, CAT), CAT, True),
        ((EEL, CAT, DOG), CAT, True),
        ((EEL, EEL, CAT, CAT, DOG), CAT, True),
        ((EEL, EEL, EEL, CAT, CAT), EEL, False),
    ],
)
def test_a_tie_is_seen_and_its_lowest_label_told(
    label: tuple[int, ...], top: int, tied: bool
) -> None:
    votes = count_votes(numbers(*[0] * len(label)), numbers(*label), 1)

    assert votes.label.tolist() == [top]
    assert votes.tied.tolist() == [tied]


def test_votes_agree_with_counting_by_hand() -> None:
    draw = np.random.default_rng(0)
    image, label = draw.integers(0, 40, 150), draw.integers(0, 4, 150)

    votes = count_votes(image, label, 41)

    for number in range(41):
        counts = np.bincount(label[image == number], minlength=4)
        assert votes.n_votes[number] == counts.sum()
        assert votes.n_top[number] == counts.max()
        if counts.sum():
            assert votes.label[number] == counts.argmax()
            assert votes.tied[number] == ((counts == counts.max()).sum() > 1)


def test_no_vote_at_all_is_no_label() -> None:
    votes = count_votes(numbers(), numbers(), 2)

    assert votes.label.tolist() == [-1, -1]
    assert votes.n_votes.tolist() == [0, 0]


def test_a_labeler_who_is_often_wrong_weighs_less() -> None:
    # Ann and eve agree on forty images where bob is wrong as often as not; on the last
    # two it is ann against bob, and the model cannot tell.
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 40)
    image, labeler = np.repeat(np.arange(40), 3), np.tile(numbers(0, 1, 2), 40)
    wrong = (labeler == 1) & (draw.random(120) < 0.6)
    label = np.where(wrong, 1 - truth[image], truth[image])
    said = np.full((42, 2), 0.5)
    said[np.arange(40), truth], said[np.arange(40), 1 - truth] = 0.8, 0.2

    labels, quality = weigh_labelers(
        np.r_[image, 40, 40, 41, 41],
        np.r_[labeler, 0, 1, 0, 1],
        np.r_[label, DOG, CAT, CAT, DOG],
        said,
    )

    assert labels.tolist() == [*truth.tolist(), DOG, CAT]
    assert (quality[-2:] > 0.5).all()


def test_no_tie_is_broken_by_chance() -> None:
    # Nobody agrees with anybody, and the model has no opinion.
    label = np.tile(numbers(CAT, DOG), 6)
    image, labeler = np.repeat(np.arange(6), 2), np.tile(numbers(0, 1), 6)
    before = np.random.get_state()[1].tolist()  # what a library draws

    labels, quality = weigh_labelers(image, labeler, label, np.full((6, 2), 0.5))

    assert np.random.get_state()[1].tolist() == before
    assert len(set(labels.tolist())) == 1
    assert (quality < 0.8).all()
