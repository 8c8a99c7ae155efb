"""What several labelers say of one image, taken together: NumPy in, NumPy out.

Images, labelers and labels are numbers from 0; the tables keep their names.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from active_learning.acquisition import FloatArray, IntArray

BoolArray = NDArray[np.bool_]


class Votes(NamedTuple):
    """The votes for each of N images.

    Attributes:
        label: With the most votes, the lowest of equals; -1 without a vote.
        n_votes: All of them.
        n_top: Those for ``label``.
        tied: Whether another label has as many.
    """

    label: IntArray
    n_votes: IntArray
    n_top: IntArray
    tied: BoolArray


def in_turn(image: IntArray, *then: IntArray) -> IntArray:
    """Rows by image, then by what else is given; equal ones in the order they stand.

    Args:
        image: (M,) what was answered; mostly each once, and then by its number.
        then: (M,) each, in the order in which they count.
    """
    if (image[1:] > image[:-1]).all():
        return np.arange(len(image))
    return np.lexsort((*reversed(then), image))


def latest(image: IntArray, labeler: IntArray, time: IntArray) -> IntArray:
    """Rows of the last answer of each labeler for each image.

    Args:
        image: (M,) what was answered.
        labeler: (M,) by whom.
        time: (M,) when; of equal times the later row counts.

    Returns:
        (K,) rows, by image, then labeler.
    """
    order = in_turn(image, labeler, time)
    ordered_image, ordered_labeler = image[order], labeler[order]
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = (ordered_image[1:] != ordered_image[:-1]) | (
        ordered_labeler[1:] != ordered_labeler[:-1]
    )
    return order[last]


def distinct(image: IntArray, labeler: IntArray, time: IntArray) -> bool:
    """Whether no labeler answered twice for one image at one time."""
    order = in_turn(image, labeler, time)
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for column in (image, labeler, time):
        same &= np.diff(column[order]) == 0
    return not same.any()


def count_votes(image: IntArray, label: IntArray, n_images: int) -> Votes:
    """Count the votes for each image.

    Args:
        image: (M,) what each vote is for.
        label: (M,) what it says.
        n_images: N, those without a vote included.
    """
    n_votes = np.bincount(image, minlength=n_images)
    if not len(image) or n_votes.max() == 1:
        only = np.full(n_images, -1, dtype=np.int64)
        only[image] = label
        return Votes(only, n_votes, n_votes, np.zeros(n_images, dtype=np.bool_))
    n_labels = int(label.max()) + 1
    pairs, counts = np.unique(image * n_labels + label, return_counts=True)
    voted, said = pairs // n_labels, pairs % n_labels
    # The winner stands first in its image; the lowest label of equals.
    order = np.lexsort((said, -counts, voted))
    voted, said, counts = voted[order], said[order], counts[order]
    winners = np.flatnonzero(np.r_[True, voted[1:] != voted[:-1]])
    top = np.full(n_images, -1, dtype=np.int64)
    n_top = np.zeros(n_images, dtype=np.int64)
    tied = np.zeros(n_images, dtype=np.bool_)
    top[voted[winners]] = said[winners]
    n_top[voted[winners]] = counts[winners]
    second = np.setdiff1d(winners + 1, np.r_[winners, len(voted)])
    tied[voted[second]] = counts[second] == n_top[voted[second]]
    return Votes(top, n_votes, n_top, tied)


def weigh_labelers(
    image: IntArray, labeler: IntArray, label: IntArray, probabilities: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Settle votes by how far each labeler, and the model, was right elsewhere.

    Args:
        image: (M,) what each vote is for, a number below N; each has two or more.
        labeler: (M,) whose vote it is; one for each image.
        label: (M,) what it says, a number below C.
        probabilities: (N, C) what a model said that had seen none of the votes.

    Returns:
        (N,) labels and (N,) the probability that each is right.

    Source:
        Goh, Tkachenko, Mueller, *CROWDLAB*, 2022, as cleanlab has it.
    """
    from cleanlab.multiannotator import get_label_quality_multiannotator

    _, column = np.unique(labeler, return_inverse=True)
    votes = np.full((len(probabilities), column.max() + 1), np.nan)
    votes[image, column] = label
    # cleanlab breaks a tie by the model, and one of the model by chance: leave it none.
    n_classes = probabilities.shape[1]
    probabilities = probabilities - 1e-9 * np.arange(n_classes) / n_classes
    with warnings.catch_warnings():
        # Labelers who never agree are told by the low quality that it comes to.
        warnings.filterwarnings("ignore", "Annotators do not agree", UserWarning)
        found = get_label_quality_multiannotator(
            votes,
            probabilities,
            return_detailed_quality=False,
            return_annotator_stats=False,
            verbose=False,
        )["label_quality"]
    labels = found["consensus_label"].to_numpy(dtype=np.int64)
    quality = found["consensus_quality_score"].to_numpy(dtype=np.float64)
    return labels, quality
