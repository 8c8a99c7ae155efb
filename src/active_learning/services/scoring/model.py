"""An exported model: read without torch, and without running code from its files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_serializer,
    model_validator,
)
from tqdm import tqdm

from active_learning.errors import CheckpointError, SettingsError
from active_learning.imaging import Preprocessing
from active_learning.learning.progress import person_watches

if TYPE_CHECKING:
    from active_learning.acquisition import Float32Array, FloatArray
    from active_learning.imaging import IntArray, PixelArray, UInt8Array

NETWORK = "model.onnx"
CARD = "model.json"
CHECKPOINT = "checkpoint.ckpt"
FORMAT = 1

INPUT = "pixels"
OUTPUTS = ("logits", "embedding")
_KINDS = [
    (INPUT, "tensor(uint8)"),
    (OUTPUTS[0], "tensor(float)"),
    (OUTPUTS[1], "tensor(float)"),
]

# Where no configuration reaches: an image of more is not unpacked.
MAX_PIXELS = 100_000_000

# More says nothing more, and less is what an export is refused for.
TOLERANCE = 1e-4


# What ONNX Runtime raises at a file that is no model, or none that it can run.
_UNLOADABLE = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelRequiresCompilation,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotFound,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)


class Parity(NamedTuple):
    """How an exported model answers beside the model that it was made from.

    Attributes:
        n: Images that both were asked about.
        max_difference: The largest between two probabilities.
        same_top: Whether both name the same class first for every image; where the
            two classes' own probabilities are within the tolerance, either will do.
    """

    n: int
    max_difference: float
    same_top: bool

    @property
    def passed(self) -> bool:
        """Whether the one may stand for the other."""
        return self.n > 0 and self.max_difference <= TOLERANCE and self.same_top


class ModelCard(BaseModel):
    """What ``model.json`` says of the network beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1]
    model_name: str
    version: PositiveInt
    classes: tuple[str, ...] = Field(min_length=1)
    preprocessing: Preprocessing
    lineage: dict[str, Any]
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    parity: Parity

    @model_validator(mode="after")
    def _name_each_class_once(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes name one twice: {list(self.classes)}")
        return self

    @field_serializer("parity")
    def _by_name(self, parity: Parity) -> dict[str, Any]:
        return parity._asdict()


class Network:
    """A network in ONNX Runtime, on the CPU. It may be used by several threads.

    Args:
        content: An ONNX model with its weights in it.
        where: Names it in an error.
        preprocessing: Gives the shape of its input.
        n_classes: Logits that it must have.
        threads: That compute one answer; 0 is one a core.

    Raises:
        CheckpointError: It does not load, or has other inputs and outputs.
    """

    def __init__(
        self,
        content: bytes,
        where: str,
        preprocessing: Preprocessing,
        n_classes: int,
        threads: int,
    ) -> None:
        """Load the network and look at its inputs and outputs."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # A thread that spins while it waits takes a core from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights outside of the file would escape its fingerprint: nothing is there.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.devnull
        )
        try:
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except _UNLOADABLE as exc:
            raise CheckpointError(
                f"{where!r} cannot be loaded as an ONNX model: {exc}. Export it again "
                "from its checkpoint: 'kedro run --pipelines deploy'."
            ) from exc
        shape = (preprocessing.height, preprocessing.width, preprocessing.channels)
        self._image_shape = shape
        self._n_classes = n_classes
        self._check_interface(where)
        self.n_features = int(self._session.get_outputs()[1].shape[1])

    def ask(self, pixels: UInt8Array) -> FloatArray:
        """(N, K) float64 probabilities of (N, H, W, C) uint8 pixels."""
        if not len(pixels):
            return np.empty((0, self._n_classes))
        (logits,) = self._session.run([OUTPUTS[0]], {INPUT: pixels})
        return _softmax(logits)

    def look(self, pixels: UInt8Array) -> tuple[FloatArray, Float32Array]:
        """Probabilities, and the (N, D) float32 input of the last layer."""
        if not len(pixels):
            nothing = np.empty((0, self.n_features), dtype=np.float32)
            return np.empty((0, self._n_classes)), nothing
        logits, embedding = self._session.run(list(OUTPUTS), {INPUT: pixels})
        return _softmax(logits), embedding

    def _check_interface(self, where: str) -> None:
        slots = [*self._session.get_inputs(), *self._session.get_outputs()]
        kinds = [(slot.name, slot.type) for slot in slots]
        shapes = [list(slot.shape) for slot in slots]
        fits = (
            kinds == _KINDS
            and all(shape and not isinstance(shape[0], int) for shape in shapes)
            and shapes[0][1:] == list(self._image_shape)
            and shapes[1][1:] == [self._n_classes]
            and len(shapes[2]) == 2
            and isinstance(shapes[2][1], int)
        )
        if not fits:
            found = [f"{slot.name} {slot.type} {slot.shape}" for slot in slots]
            raise CheckpointError(
                f"{where!r} is not the network that {CARD} describes: it has {found} "
                f"where {INPUT} uint8 (N, *{self._image_shape}), logits float32 "
                f"(N, {self._n_classes}) and embedding float32 (N, D) were expected."
            )


class Carded:
    """What a model's card says of it; see ``protocol.Classifier``."""

    _card: ModelCard

    @property
    def model_name(self) -> str:
        """The network's name."""
        return self._card.model_name

    @property
    def version(self) -> int:
        """1 for the first model; a challenger is one more than its champion."""
        return self._card.version

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names, in the order of the probabilities."""
        return self._card.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the network's input."""
        return self._card.preprocessing

    @property
    def lineage(self) -> dict[str, object]:
        """Where it came from: parent version, training set, number of labels."""
        return dict(self._card.lineage)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network's file, in hex."""
        return self._card.fingerprint


class InferenceModel(Carded):
    """A release that answers; see ``protocol.Classifier``.

    Loading it imports neither torch nor anything that unpickles. One may be asked by
    several threads at once.
    """

    def __init__(
        self, card: ModelCard, network: Network, folder: Path, threads: int | None
    ) -> None:
        """Hold what ``load`` read."""
        self._card = card
        self._network = network
        self._folder = folder
        self._threads = threads

    @classmethod
    def load(cls, folder: Path, threads: int | None = None) -> Self:
        """Read a release.

        Args:
            folder: Holds ``model.onnx`` and ``model.json``.
            threads: That compute one answer together; 0 is one a core. ``None`` is for
                many images: each answer takes one thread, and ``probabilities`` and
                ``look`` have parts of a batch answered at once, one on each core.

        Raises:
            CheckpointError: A file is missing or damaged, of an unknown format, or
                not what the other one describes; it is named.
        """
        card = _read_card(folder / CARD)
        path = folder / NETWORK
        content = _read(path)
        found = sha256(content).hexdigest()
        if found != card.fingerprint:
            raise CheckpointError(
                f"{str(path)!r} is not the file that {CARD} describes: its SHA-256 is "
                f"{found}, not {card.fingerprint}. It is damaged or another model's; "
                "bring the release back from the model registry, or deploy again."
            )
        network = Network(
            content,
            str(path),
            card.preprocessing,
            len(card.classes),
            1 if threads is None else threads,
        )
        return cls(card, network, folder, threads)

    @property
    def folder(self) -> Path:
        """Where the release lies."""
        return self._folder

    def answer(self, pixels: UInt8Array) -> FloatArray:
        """Class probabilities of images that are in memory, in one call.

        Args:
            pixels: (N, H, W, C) uint8, decoded by this model's preprocessing.

        Returns:
            (N, K) float64; each row sums to 1.
        """
        return self._network.ask(pixels)

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        """Class probabilities, (N, K) float64; see ``protocol.Classifier``."""
        said = np.empty((len(pixels), len(self.classes)))

        def ask(rows: IntArray) -> None:
            said[rows] = self._network.ask(pixels.take(rows))

        self._share(ask, len(pixels), batch_size, accelerator, title)
        return said

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        """Class probabilities and embeddings; see ``protocol.Classifier``."""
        n = len(pixels)
        said = np.empty((n, len(self.classes)))
        seen = np.empty((n, self._network.n_features), dtype=np.float32)

        def look(rows: IntArray) -> None:
            said[rows], seen[rows] = self._network.look(pixels.take(rows))

        self._share(look, n, batch_size, accelerator, title)
        return said, seen

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a folder, which is read there."""
        return type(self).load, (self._folder, self._threads)

    def _share(
        self,
        work: Callable[[IntArray], None],
        n: int,
        batch_size: int,
        accelerator: str,
        title: str,
    ) -> None:
        """Work on all of n rows, no more than a batch of them in memory at once."""
        if accelerator not in ("auto", "cpu"):
            raise SettingsError(
                f"accelerator is {accelerator!r}, and an exported model computes on "
                "the CPU: set it to 'auto' or 'cpu'."
            )
        # Several threads for each answer wait for one another at every layer.
        at_once = min(os.cpu_count() or 1, batch_size) if self._threads is None else 1
        size = batch_size // at_once
        parts = [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
        hidden = not title or not person_watches()
        with (
            ThreadPoolExecutor(at_once) as pool,
            tqdm(total=n, desc=title, unit="image", disable=hidden, leave=False) as bar,
        ):
            for part, _ in zip(parts, pool.map(work, parts), strict=True):
                bar.update(len(part))


def find_release(folder: Path) -> Path:
    """The release that a folder is, or holds: registries put one a folder deeper.

    Raises:
        CheckpointError: There is none, or there are several.
    """
    if (folder / CARD).is_file():
        return folder
    inner = sorted(path.parent for path in folder.glob(f"*/{CARD}"))
    if len(inner) != 1:
        raise CheckpointError(
            f"{str(folder)!r} holds {len(inner)} releases in its folders and none "
            f"itself; one folder with {NETWORK} and {CARD} was expected."
        )
    return inner[0]


def _read_card(path: Path) -> ModelCard:
    try:
        said = json.loads(_read(path))
        found = said.get("format") if isinstance(said, dict) else None
        if found != FORMAT:
            raise CheckpointError(
                f"{str(path)!r} is of format {found!r}, and this version of the "
                f"package reads {FORMAT}. Read it with the version that wrote it, or "
                "export the checkpoint again."
            )
        return ModelCard.model_validate_json(json.dumps(said))
    except (ValueError, ValidationError, RecursionError) as exc:
        raise CheckpointError(
            f"{str(path)!r} does not describe a model: {exc}. Bring the release back "
            "from the model registry, or deploy again."
        ) from exc


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise CheckpointError(
            f"{str(path)!r} cannot be read ({exc.strerror}); a release is a folder "
            f"with {NETWORK} and {CARD}."
        ) from exc


def _softmax(logits: Float32Array) -> FloatArray:
    """As torch does it, in float64."""
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    np.exp(exact, out=exact)
    exact /= exact.sum(axis=1, keepdims=True)
    return exact
