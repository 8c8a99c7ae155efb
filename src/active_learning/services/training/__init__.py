"""Training: a challenger from labeled images, by Lightning, AutoML or code of yours.

``Trainer`` is what the ``train`` pipeline relies on. ``lightning`` trains in this
process, ``automl`` has Azure Machine Learning do it. A function of yours is used by
its dotted path and needs no change here::

    $ kedro run --pipelines train --params train.trainer=my_package.my_trainer
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from active_learning.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

    from active_learning.imaging import ImageStore
    from active_learning.learning.protocol import Classifier
    from active_learning.services.training.settings import TrainingSettings


class Trainer(Protocol):
    """A function that trains a challenger."""

    def __call__(
        self,
        *,
        training_set: pd.DataFrame,
        images: ImageStore,
        champion: Classifier | None,
        classes: list[str],
        lineage: dict[str, Any],
        settings: TrainingSettings,
        seed: int,
    ) -> Classifier:
        """Train.

        Args:
            training_set: ``image_id``, ``label``, ``content`` and the lineage of each
                label; no test image is among them.
            images: Where the images are.
            champion: The model in production; ``None`` before the first.
            classes: C names, two or more; the champion's come first, in its order.
            lineage: ``version``, ``parent``, ``training_set`` and what else decides a
                challenger.
            settings: The parameters ``train``.
            seed: In [0, 2**32); another one for each version.

        Returns:
            A challenger that knows exactly these classes, in this order, and keeps
            the lineage; it may add to it. ``deploy`` takes an ``ImageClassifier``, or
            an ``OnnxClassifier`` from any other library.
        """


# By name, where the function is: what one of them imports, the others need not.
TRAINERS: Mapping[str, str] = MappingProxyType(
    {
        "lightning": "active_learning.services.training.lightning.train",
        "automl": "active_learning.services.training.automl.train",
    }
)


def trainer_named(name: str) -> Trainer:
    """Look a trainer up by its name, or import it by its dotted path.

    Raises:
        UnknownNameError: No trainer has that name, or the path leads to nothing that
            can be called; the nearest names are given.
    """
    module, _, function = TRAINERS.get(name, name).rpartition(".")
    try:
        found = getattr(import_module(module), function) if module else None
    except (ImportError, AttributeError) as exc:
        raise UnknownNameError("trainer", name, TRAINERS) from exc
    if not callable(found):
        raise UnknownNameError("trainer", name, TRAINERS)
    trainer: Trainer = found
    return trainer
