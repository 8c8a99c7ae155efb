"""AutoML's ONNX image classifiers, made into the form that this package serves.

AutoML exports a network that takes images as its own loader makes them: RGB, stretched
to a square (256 pixels), its center cut out (224), scaled by ImageNet's mean and
standard deviation, channels first; it answers logits in the order of ``labels.json``.
The form here takes pixels as ``imaging`` decodes them, so that square is what the
``Preprocessing`` says, and the rest is put into the graph. What remains different is
the filter an image is scaled with: bilinear here.

Source:
    Microsoft, *Make predictions with ONNX on computer vision models from AutoML*,
    multi-class image classification.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from active_learning.acquisition import Float32Array, FloatArray
from active_learning.errors import CheckpointError
from active_learning.imaging import Preprocessing
from active_learning.imaging.pixels import UInt8Array
from active_learning.services.scoring.model import INPUT, OUTPUTS, TOLERANCE

if TYPE_CHECKING:
    from active_learning.imaging import PixelArray
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# A class that the network was not shown: its probability is 0 exactly.
_NEVER = -1e4
_PREFIX = "automl/"
_UNRUNNABLE = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    ValueError,
)


class Sizes(NamedTuple):
    """Pixels of a side.

    Attributes:
        resize: Of the square that an image is stretched to.
        crop: Of what is cut out of its middle; a network that says so itself counts.
    """

    resize: int
    crop: int


class Converted(NamedTuple):
    """A network in the form of a release.

    Attributes:
        content: The ONNX model.
        preprocessing: How an image becomes its input.
    """

    content: bytes
    preprocessing: Preprocessing


def read_labels(text: bytes, where: str) -> tuple[str, ...]:
    """The classes of ``labels.json``, in the order of the logits.

    Raises:
        CheckpointError: It is no list of different names.
    """
    try:
        labels = json.loads(text)
    except ValueError as exc:
        raise CheckpointError(f"labels.json of {where} is no JSON: {exc}") from exc
    names = labels if isinstance(labels, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"labels.json of {where} is no list of class names.")
    if len(set(names)) < len(names):
        raise CheckpointError(f"labels.json of {where} names a class twice: {names}")
    return tuple(names)


def converted(
    content: bytes,
    labels: Sequence[str],
    classes: Sequence[str],
    sizes: Sizes,
    where: str,
) -> Converted:
    """Make AutoML's network a release's.

    Args:
        content: ``model.onnx``; one that takes a single image at a time is asked
            image by image.
        labels: Its classes, in the order of its logits.
        classes: C names, in the order wanted; one that it does not know gets the
            probability 0.
        sizes: As the job was told, or AutoML's own.
        where: Names the model in an error.

    Raises:
        CheckpointError: It is no such network, or knows a class that nobody asked for.
    """
    strange = sorted(set(labels) - set(classes))
    if strange:
        raise CheckpointError(
            f"{where} has learned {len(strange)} classes that the training set does "
            f"not have; the first is {strange[0]!r}. Its data asset is another one's: "
            "check train.automl.data_asset."
        )
    model = _parsed(content, where)
    batch, side = _input_of(model, sizes.crop, where)
    if side > sizes.resize:
        raise CheckpointError(
            f"{where} takes images of {side} pixels, more than the {sizes.resize} that "
            "they are scaled to: set train.automl.hyperparameters."
            "validation_resize_size to what it was trained with."
        )
    logits = _without_softmax(model)
    embedding, width = _embedding(model, logits, len(labels))
    graph = _Graph(model, sizes.resize, side)
    if batch == 1:
        said, seen = graph.one_by_one(logits, embedding, len(labels), width)
    else:
        said, seen = graph.at_once(logits, embedding)
    graph.finish(said, seen, _order(labels, classes), width)
    preprocessing = Preprocessing(
        height=sizes.resize, width=sizes.resize, channels=3, mean=_MEAN, std=_STD
    )
    return Converted(graph.serialized(), preprocessing)


def prepared(pixels: UInt8Array, side: int) -> FloatArray:
    """What AutoML's own preprocessing makes of pixels, step by step.

    Args:
        pixels: (N, H, W, 3) uint8, stretched already.
        side: Of the center that is cut out.

    Returns:
        (N, 3, side, side).
    """
    top = (pixels.shape[1] - side) // 2
    left = (pixels.shape[2] - side) // 2
    center = pixels[:, top : top + side, left : left + side]
    scaled = (center / 255 - np.array(_MEAN)) / np.array(_STD)
    channels_first: FloatArray = scaled.transpose(0, 3, 1, 2)
    return channels_first


def refuse_another(
    challenger: OnnxClassifier,
    content: bytes,
    labels: Sequence[str],
    pixels: PixelArray,
    sizes: Sizes,
    where: str,
) -> None:
    """Ask a converted network and the one it was made from about the same images.

    Args:
        challenger: The converted one.
        content: ``model.onnx``, which is given what AutoML's own steps make.
        labels: Its classes, in the order of its logits.
        pixels: (N, H, W, 3), decoded by the challenger's preprocessing.
        sizes: As the job was told, or AutoML's own.
        where: Names the model in an error.

    Raises:
        CheckpointError: They answer otherwise, or the original does not run.
    """
    model = _parsed(content, where)
    _, side = _input_of(model, sizes.crop, where)
    last = _maker(model, str(model.graph.output[0].name))
    kind = "" if last is None else last.op_type
    said = challenger.probabilities(pixels, len(pixels) or 1, "cpu", "")
    shown = prepared(pixels.take(np.arange(len(pixels))), side).astype(np.float32)
    try:
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        (slot,) = session.get_inputs()
        # One at a time: an export may take no more.
        answers = [session.run(None, {slot.name: image[None]})[0] for image in shown]
    except _UNRUNNABLE as exc:
        raise CheckpointError(f"{where} does not run: {exc}.") from exc
    column = [challenger.classes.index(name) for name in labels]
    for number, answer in enumerate(answers):
        expected = _as_probabilities(answer[0].astype(np.float64), kind)
        difference = float(np.abs(said[number, column] - expected).max())
        if difference > TOLERANCE:
            raise CheckpointError(
                f"{where} answers otherwise in the form that is served: for image "
                f"{number} of {len(shown)} a probability differs by {difference:.3g}, "
                f"where {TOLERANCE} is allowed. Choose another "
                "train.automl.hyperparameters.model_name."
            )


def _as_probabilities(answer: FloatArray, kind: str) -> FloatArray:
    if kind == "Softmax":
        return answer
    exact = np.exp(answer - answer.max())
    shares: FloatArray = exact / exact.sum()
    return shares


def _parsed(content: bytes, where: str) -> ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as exc:
        raise CheckpointError(f"{where} is no ONNX model: {exc}.") from exc
    outside = [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    if outside:
        raise CheckpointError(
            f"{where} keeps {len(outside)} of its weights in other files; the first is "
            f"{outside[0]!r}. Only a model that holds them itself is taken."
        )
    # Names of its own and of what is put around it must not meet.
    prefixed: ModelProto = onnx.compose.add_prefix(model, _PREFIX)
    return prefixed


def _input_of(model: ModelProto, crop: int, where: str) -> tuple[int | None, int]:
    """How many images it takes at once, ``None`` for any number, and their side."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [slot for slot in model.graph.input if slot.name not in weights]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"{where} has {len(inputs)} inputs and {len(outputs)} outputs; one image "
            "classifier with one of each was expected."
        )
    shape = _shape(inputs[0])
    kind = inputs[0].type.tensor_type.elem_type
    height, width = (shape[2] or crop, shape[3] or crop) if len(shape) == 4 else (0, 1)
    fits = kind == TensorProto.FLOAT and height == width and shape[1] in (3, None)
    if not fits or shape[0] not in (1, None):
        raise CheckpointError(
            f"{where} takes {TensorProto.DataType.Name(kind)} {shape}; float32 "
            "(N, 3, side, side) with any N, or 1, was expected."
        )
    return shape[0], height


def _shape(slot: ValueInfoProto) -> list[int | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in slot.type.tensor_type.shape.dim
    ]


def _without_softmax(model: ModelProto) -> str:
    """The logits: what AutoML answers, or what it would turn into probabilities."""
    name = str(model.graph.output[0].name)
    last = _maker(model, name)
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        return str(last.input[0])
    return name


def _embedding(model: ModelProto, logits: str, n_labels: int) -> tuple[str, int]:
    """What the last linear layer is given, and its width; the logits if none is."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    node = _maker(model, logits)
    if node is not None and node.op_type == "Add":
        made = [_maker(model, name) for name in node.input]
        node = next((m for m in made if m is not None and m.op_type == "MatMul"), None)
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        return logits, n_labels
    flipped = any(a.name in ("transA",) and a.i for a in node.attribute)
    weight = weights.get(node.input[1])
    if weight is None or len(weight.dims) != 2 or flipped:
        return logits, n_labels
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    out, width = weight.dims if transposed else reversed(weight.dims)
    return (str(node.input[0]), int(width)) if out == n_labels else (logits, n_labels)


def _maker(model: ModelProto, name: str) -> NodeProto | None:
    return next((node for node in model.graph.node if name in node.output), None)


def _order(
    labels: Sequence[str], classes: Sequence[str]
) -> tuple[Float32Array, Float32Array]:
    """(labels, C) zeros and ones, and (C,) what is added: logits into their places."""
    place = np.zeros((len(labels), len(classes)), dtype=np.float32)
    offset = np.full(len(classes), _NEVER, dtype=np.float32)
    for row, name in enumerate(labels):
        place[row, classes.index(name)] = 1
        offset[classes.index(name)] = 0
    return place, offset


class _Graph:
    """A network with its preparation before it and the order of classes behind it."""

    def __init__(self, model: ModelProto, resize: int, side: int) -> None:
        self._model = model
        self._resize = resize
        self._side = side
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        first = (resize - side) // 2
        center = np.arange(first, first + side, dtype=np.int64)
        mean = np.array(_MEAN, dtype=np.float32) * 255
        std = np.array(_STD, dtype=np.float32) * 255
        rows = self._add("Gather", [INPUT, self._constant("center", center)], axis=1)
        cut = self._add("Gather", [rows, "center"], axis=2)
        numbers = self._add("Cast", [cut], to=TensorProto.FLOAT)
        shifted = self._add("Sub", [numbers, self._constant("mean", mean)])
        scaled = self._add("Div", [shifted, self._constant("std", std)])
        self._prepared = self._add("Transpose", [scaled], perm=[0, 3, 1, 2])
        weights = {tensor.name for tensor in model.graph.initializer}
        (slot,) = [s for s in model.graph.input if s.name not in weights]
        self._slot = str(slot.name)

    def at_once(self, logits: str, embedding: str) -> tuple[str, str]:
        self._nodes.append(helper.make_node("Identity", [self._prepared], [self._slot]))
        self._nodes.extend(self._model.graph.node)
        return logits, embedding

    def one_by_one(
        self, logits: str, embedding: str, n_labels: int, width: int
    ) -> tuple[str, str]:
        shape = np.array([1, 3, self._side, self._side], dtype=np.int64)
        self._constant("one", shape)
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, [3, self._side, self._side]
        )
        answers = {"logits_1": (logits, n_labels), "embedding_1": (embedding, width)}
        body = helper.make_graph(
            [
                helper.make_node("Reshape", ["image", "one"], [self._slot]),
                *self._model.graph.node,
                *(
                    helper.make_node("Identity", [made], [name])
                    for name, (made, _) in answers.items()
                ),
            ],
            "one_image",
            [image],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                for name in answers
            ],
        )
        names = [f"{name}s" for name in answers]
        self._nodes.append(
            helper.make_node(
                "Scan", [self._prepared], names, body=body, num_scan_inputs=1
            )
        )
        return (
            self._rows(names[0], n_labels),
            self._rows(names[1], width),
        )

    def finish(
        self,
        logits: str,
        embedding: str,
        order: tuple[Float32Array, Float32Array],
        d: int,
    ) -> None:
        place, offset = order
        moved = self._add("MatMul", [logits, self._constant("place", place)])
        added = [moved, self._constant("offset", offset)]
        self._nodes.append(helper.make_node("Add", added, [OUTPUTS[0]]))
        rows = self._rows(embedding, d)
        self._nodes.append(helper.make_node("Identity", [rows], [OUTPUTS[1]]))
        float32, size = TensorProto.FLOAT, self._resize
        graph = helper.make_graph(
            self._nodes,
            "image_classifier",
            [
                helper.make_tensor_value_info(
                    INPUT, TensorProto.UINT8, ["n", size, size, 3]
                )
            ],
            [
                helper.make_tensor_value_info(OUTPUTS[0], float32, ["n", len(offset)]),
                helper.make_tensor_value_info(OUTPUTS[1], float32, ["n", d]),
            ],
            [*self._constants, *self._model.graph.initializer],
        )
        self._made = helper.make_model(
            graph,
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
            functions=self._model.functions,
        )

    def serialized(self) -> bytes:
        return bytes(self._made.SerializeToString(deterministic=True))

    def _rows(self, name: str, width: int) -> str:
        shape = self._constant(f"rows_{name}", np.array([-1, width], dtype=np.int64))
        return self._add("Reshape", [name, shape])

    def _add(self, operation: str, inputs: list[str], **attributes: Any) -> str:
        name = f"step_{len(self._nodes)}"
        node = helper.make_node(operation, inputs, [name], **attributes)
        self._nodes.append(node)
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(values, name))
        return name
