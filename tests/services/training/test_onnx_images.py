"""AutoML's networks answer the same in the form that is served."""

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.learning.builders import noise, pixels
from tests.services.training.automl_cluster import CROP, RESIZE, network

from active_learning.errors import CheckpointError
from active_learning.services.scoring.onnx_classifier import OnnxClassifier
from active_learning.services.training.onnx_images import (
    Sizes,
    converted,
    prepared,
    read_labels,
    refuse_another,
)

SIZES = Sizes(RESIZE, CROP)
LABELS = ("cat", "dog", "emu")
IMAGES = noise(5, RESIZE, 3)


def classifier(
    content: bytes, labels: tuple[str, ...] = LABELS, classes: tuple[str, ...] = LABELS
) -> OnnxClassifier:
    made = converted(content, labels, classes, SIZES, "the model")
    return OnnxClassifier(
        made.content,
        model_name="vit",
        classes=classes,
        preprocessing=made.preprocessing,
        lineage={"version": 1},
    )


def expected(content: bytes) -> Any:
    """What the network itself says of what AutoML's steps make of the images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content)
    shown = prepared(IMAGES, CROP).astype(np.float32)
    said = [session.run(None, {"input1": image[None]})[0][0] for image in shown]
    exact = np.exp(np.array(said, dtype=np.float64))
    return exact / exact.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("flat", [True, False])
def test_a_converted_network_answers_as_it_did(batch: int | None, flat: bool) -> None:
    content = network(3, batch=batch, flat=flat)

    said = classifier(content).probabilities(pixels(IMAGES), 2, "cpu", "")

    np.testing.assert_allclose(said, expected(content), atol=1e-6)


def test_the_steps_before_a_network_are_those_of_automl() -> None:
    image = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    image[0, 1, 1] = 255

    (shown,) = prepared(image, 6)

    assert shown.shape == (3, 6, 6)
    np.testing.assert_allclose(
        shown[:, 0, 0],
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225],
    )
    np.testing.assert_allclose(shown[0, 5, 5], -0.485 / 0.229)


def test_the_embedding_is_what_the_last_linear_layer_is_given() -> None:
    _, seen = classifier(network(3)).look(pixels(IMAGES), 2, "cpu", "")

    shown = prepared(IMAGES, CROP)
    np.testing.assert_allclose(seen, shown.mean(axis=(2, 3)), atol=1e-6)


def test_without_a_last_linear_layer_the_logits_stand_for_the_embedding() -> None:
    said, seen = classifier(network(3, flat=False)).look(pixels(IMAGES), 2, "cpu", "")

    exact = np.exp(seen.astype(np.float64))
    np.testing.assert_allclose(said, exact / exact.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("batch", [None, 1])
def test_a_softmax_at_the_end_is_not_taken_twice(batch: int | None) -> None:
    plain = classifier(network(3, batch=batch))
    soft = classifier(network(3, batch=batch, ending="Softmax"))

    np.testing.assert_allclose(
        soft.probabilities(pixels(IMAGES), 2, "cpu", ""),
        plain.probabilities(pixels(IMAGES), 2, "cpu", ""),
        atol=1e-7,
    )


def test_classes_stand_in_the_order_asked_for_and_an_unknown_one_is_never_said() -> (
    None
):
    content = network(3)
    classes = ("emu", "yak", "cat", "dog")

    said = classifier(content, classes=classes).probabilities(
        pixels(IMAGES), 5, "cpu", ""
    )

    as_labeled = expected(content)
    np.testing.assert_allclose(said[:, [2, 3, 0]], as_labeled, atol=1e-6)
    assert (said[:, 1] == 0).all()


def test_a_side_that_the_network_does_not_say_is_the_parameter() -> None:
    content = network(3, side=None)

    said = classifier(content).probabilities(pixels(IMAGES), 5, "cpu", "")

    np.testing.assert_allclose(said, expected(content), atol=1e-6)


def test_a_class_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"learned 1 classes .* 'emu'"):
        converted(network(3), LABELS, ("cat", "dog"), SIZES, "the model")


def _two_outputs() -> bytes:
    model = onnx.load_model_from_string(network(3))
    model.graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, None)
    )
    return bytes(model.SerializeToString())


def _outside() -> bytes:
    model = onnx.load_model_from_string(network(3))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04 a pickle", "no ONNX model"),
        (_two_outputs(), "1 inputs and 2 outputs"),
        (_outside(), "1 of its weights in other files; the first is 'weight'"),
        (network(3, batch=2), r"takes FLOAT \[2, 3, 6, 6\]"),
        (network(3, side=10), "10 pixels, more than the 8"),
    ],
    ids=["pickle", "outputs", "outside", "batch", "side"],
)
def test_what_is_no_image_classifier_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        converted(content, LABELS, LABELS, SIZES, "the model")


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b"[1]", b'["a", "a"]', b"\xff", b"model"]
)
def test_labels_are_a_list_of_different_names(text: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"labels\.json of it"):
        read_labels(text, "it")

    assert read_labels(json.dumps(LABELS).encode(), "it") == LABELS


def test_a_converted_network_that_answers_otherwise_is_refused() -> None:
    made = classifier(network(3))
    shown = pixels(IMAGES)

    refuse_another(made, network(3), LABELS, shown, SIZES, "the model")

    with pytest.raises(CheckpointError, match="answers otherwise"):
        refuse_another(made, network(3, scale=2), LABELS, shown, SIZES, "the model")
