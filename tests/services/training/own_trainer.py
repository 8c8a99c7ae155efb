"""A trainer as a user writes one: images by their brightness, and nothing to learn."""

from typing import Any

from tests.services.training.automl_cluster import CROP, RESIZE, network

from active_learning.learning.protocol import Classifier
from active_learning.services.scoring.onnx_classifier import OnnxClassifier
from active_learning.services.training.onnx_images import Sizes, converted

not_a_function = "a name that leads to no function"


def train(classes: list[str], lineage: dict[str, Any], **_: Any) -> Classifier:
    """Take no notice of the images."""
    labels = sorted(classes)
    made = converted(
        network(len(labels)), labels, classes, Sizes(RESIZE, CROP), "my model"
    )
    return OnnxClassifier(
        made.content,
        model_name="by_brightness",
        classes=classes,
        preprocessing=made.preprocessing,
        lineage=lineage,
    )


def sort_classes(**given: Any) -> Classifier:
    """Forget the champion's order."""
    return train(**{**given, "classes": sorted(given["classes"])})


def forget_lineage(**given: Any) -> Classifier:
    """Keep the version alone."""
    return train(**{**given, "lineage": {"version": given["lineage"]["version"]}})
