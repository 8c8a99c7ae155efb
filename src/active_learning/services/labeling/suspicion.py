"""Labels that are probably wrong, by what a model said before they were known."""

from active_learning.acquisition import FloatArray, IntArray
from active_learning.services.labeling.consensus import BoolArray


def suspect(
    labels: IntArray, probabilities: FloatArray, min_confidence: float
) -> tuple[BoolArray, FloatArray]:
    """Find the labels that contradict a model which had not seen them.

    A label is suspected when confident learning finds it off the diagonal: the model
    gives another class more than it gives that class on average where it is the
    label. What a strategy asked for is hard, so those averages are low and many good
    labels lie off the diagonal: the model must besides be as sure of the other class
    as ``min_confidence``.

    Args:
        labels: (N,) numbers below C.
        probabilities: (N, C) out of sample: no row's model was trained on its label.
        min_confidence: In [0, 1].

    Returns:
        (N,) whether each is suspected, and (N,) the probability that the model gave
        to each label.

    Source:
        Northcutt, Jiang, Chuang, *Confident Learning*, JAIR 2021, as cleanlab has it.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    # On one core: these are thousands of rows, and processes would cost more.
    off_diagonal = find_label_issues(
        labels, probabilities, filter_by="confident_learning", n_jobs=1
    )
    quality: FloatArray = get_label_quality_scores(labels, probabilities)
    sure = probabilities.max(axis=1) >= min_confidence
    return off_diagonal & sure & (probabilities.argmax(axis=1) != labels), quality
