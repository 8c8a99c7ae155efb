"""Strategies that ask where the model doubts, on (N, C) class probabilities."""

import numpy as np

from active_learning.acquisition.pool import FloatArray


def confidence(p: FloatArray) -> FloatArray:
    """Probability of the predicted class.

    Args:
        p: (N, C) class probabilities; each row sums to 1.

    Returns:
        (N,) in [1 / C, 1].
    """
    top: FloatArray = p.max(axis=1)
    return top


def least_confidence(p: FloatArray) -> FloatArray:
    """How much is missing from certainty about the predicted class.

    Args:
        p: (N, C) class probabilities; each row sums to 1.

    Returns:
        (N,) in [0, 1 - 1 / C]: 0 for a certain row. Higher asks sooner.

    Source:
        Lewis and Gale, *A Sequential Algorithm for Training Text Classifiers*, 1994.
    """
    return 1.0 - confidence(p)


def margin(p: FloatArray) -> FloatArray:
    """Lead of the predicted class over the runner-up.

    Args:
        p: (N, C) class probabilities; each row sums to 1.

    Returns:
        (N,) in [0, 1]: 1 for a certain row, 0 for a tie at the top. With one class
        there is no runner-up, so its whole probability is the lead.

    Source:
        Scheffer, Decomain and Wrobel, *Active Hidden Markov Models for Information
        Extraction*, 2001.
    """
    if p.shape[1] == 1:
        return p[:, 0].copy()
    # A partial sort: the full order of a thousand classes is nobody's question.
    top_two = np.partition(p, -2, axis=1)[:, -2:]
    lead: FloatArray = top_two[:, 1] - top_two[:, 0]
    return lead


def entropy(p: FloatArray) -> FloatArray:
    """Shannon entropy of each row.

    Args:
        p: (N, C) class probabilities; each row sums to 1.

    Returns:
        (N,) in nats: 0 for a certain row, ln C for a uniform one. Higher asks sooner.

    Source:
        Settles, *Active Learning Literature Survey*, 2009, section 3.1.
    """
    # 0 log 0 is 0 by continuity; NumPy says NaN, and a NaN has no place in a ranking.
    logs = np.log(p, where=p > 0, out=np.zeros_like(p))
    nats: FloatArray = -(p * logs).sum(axis=1)
    return nats
