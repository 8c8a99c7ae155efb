"""How good predictions are on images whose class is known."""

from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_recall,
)

from active_learning.acquisition import FloatArray


def measure(
    probabilities: FloatArray, actual: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Compare predictions with the truth.

    Args:
        probabilities: (N, C).
        actual: N class names; one the model does not know counts as missed.
        classes: C names in the order of the probabilities.

    Returns:
        ``n_test``, ``accuracy``, ``macro_f1`` (over the classes that were predicted
        or occur) and ``recall`` of each class that occurs.
    """
    every = [*classes, *sorted(set(actual) - set(classes))]
    number = {name: index for index, name in enumerate(every)}
    target = torch.tensor([number[name] for name in actual])
    predicted = torch.from_numpy(probabilities.argmax(axis=1))
    f1 = multiclass_f1_score(predicted, target, len(every), average="macro")
    recall = multiclass_recall(predicted, target, len(every), average="none")
    return {
        "n_test": len(target),
        "accuracy": float((predicted == target).double().mean()),
        "macro_f1": float(f1),
        "recall": {name: float(recall[number[name]]) for name in sorted(set(actual))},
    }
