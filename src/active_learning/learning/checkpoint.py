"""Classifiers to and from Lightning checkpoints."""

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.seed import isolate_rng

from active_learning.errors import CheckpointError, SettingsError
from active_learning.learning.module import ImageClassifier
from active_learning.learning.networks import read_checkpoint
from active_learning.learning.training import without_small_talk


def save_classifier(classifier: ImageClassifier, path: Path) -> None:
    """Write a Lightning checkpoint: weights and plain values, no optimizer state."""
    with without_small_talk():
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.strategy.connect(classifier)
        trainer.save_checkpoint(path, weights_only=True)


def load_classifier(path: Path) -> ImageClassifier:
    """Read a checkpoint onto the CPU, as tensors and plain values alone.

    Raises:
        CheckpointError: The file is damaged, would run code, or is no checkpoint of
            this package.
    """
    content = read_checkpoint(path)
    missing = {"state_dict", "hyper_parameters"} - content.keys()
    if missing:
        raise CheckpointError(
            f"{str(path)!r} lacks {sorted(missing)}: it is no checkpoint of a "
            "classifier. 'network.weights' is the place for bare weights."
        )
    # Building a network draws random weights, which the next line replaces.
    with isolate_rng():
        try:
            classifier = ImageClassifier(**content["hyper_parameters"])
        except (TypeError, ValueError, SettingsError) as exc:
            raise CheckpointError(
                f"{str(path)!r} was not saved by an image classifier: {exc}"
            ) from exc
    try:
        classifier.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as exc:
        raise CheckpointError(
            f"{str(path)!r} holds weights of another network than it says: {exc}"
        ) from exc
    return classifier.eval()
