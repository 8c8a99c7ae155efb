"""A challenger that is an ONNX model from the start, whatever trained it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, ValidationError

from active_learning.errors import CheckpointError
from active_learning.imaging import Preprocessing
from active_learning.services.scoring.model import (
    CARD,
    FORMAT,
    NETWORK,
    Carded,
    InferenceModel,
    ModelCard,
    Network,
    Parity,
)

if TYPE_CHECKING:
    from active_learning.acquisition import Float32Array, FloatArray
    from active_learning.imaging import PixelArray

# In a lineage it says that there is no checkpoint, and that the parity on a release's
# card is that of the network with itself.
EXPORTED_FROM = "exported_from"
ITSELF = "itself"


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1]
    model_name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    lineage: dict[str, Any]
    fingerprint: str


class OnnxClassifier(Carded):
    """An ONNX network with its classes and its lineage; see ``protocol.Classifier``.

    ``deploy`` releases it as it is. There is nothing in it that Lightning could go on
    from.

    Args:
        content: An ONNX model with its weights in it: ``pixels``, uint8 (N, H, W,
            channels), in; ``logits``, float32 (N, C), and ``embedding``, float32
            (N, D), out.
        model_name: The network's name.
        classes: C names, in the order of the logits.
        preprocessing: How an image becomes ``pixels``.
        lineage: ``version`` and where it came from, as plain values.

    Raises:
        CheckpointError: The content is no such model.
    """

    def __init__(
        self,
        content: bytes,
        *,
        model_name: str,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        lineage: Mapping[str, Any],
    ) -> None:
        """Load the network."""
        name = f"{model_name} version {lineage['version']}"
        card = ModelCard(
            format=FORMAT,
            model_name=model_name,
            version=lineage["version"],
            classes=tuple(classes),
            preprocessing=preprocessing,
            lineage={**lineage, EXPORTED_FROM: ITSELF},
            fingerprint=sha256(content).hexdigest(),
            parity=Parity(0, 0.0, True),
        )
        network = Network(content, name, preprocessing, len(card.classes), 1)
        self._content = content
        self._card = card
        # It has no folder: only a release that travels between processes needs one.
        self._model = InferenceModel(card, network, Path(), None)

    @property
    def content(self) -> bytes:
        """The ONNX model."""
        return self._content

    def probabilities(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> FloatArray:
        """Class probabilities, (N, C) float64; see ``protocol.Classifier``."""
        return self._model.probabilities(pixels, batch_size, accelerator, title)

    def look(
        self, pixels: PixelArray, batch_size: int, accelerator: str, title: str
    ) -> tuple[FloatArray, Float32Array]:
        """Class probabilities and embeddings; see ``protocol.Classifier``."""
        return self._model.look(pixels, batch_size, accelerator, title)

    def renumbered(self, version: int) -> Self:
        """The same model under another version."""
        return type(self)(
            self._content,
            model_name=self.model_name,
            classes=self.classes,
            preprocessing=self.preprocessing,
            lineage={**self.lineage, "version": version},
        )

    def card(self, parity: Parity) -> ModelCard:
        """What a release says of it.

        Args:
            parity: How the network answered when it was asked twice.
        """
        return self._card.model_copy(update={"parity": parity})

    def to_bytes(self) -> bytes:
        """An archive of the model and its description; equal for equal models."""
        said = _Description(
            format=FORMAT,
            model_name=self.model_name,
            classes=self.classes,
            preprocessing=self.preprocessing,
            lineage=self.lineage,
            fingerprint=self.fingerprint,
        )
        file = io.BytesIO()
        with ZipFile(file, "w", ZIP_STORED) as archive:
            text = said.model_dump_json(indent=2)
            # Without a name alone, the time of day would be in the archive.
            archive.writestr(ZipInfo(CARD), text)
            archive.writestr(ZipInfo(NETWORK), self._content)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Read what ``to_bytes`` gave.

        Args:
            data: The archive.
            where: Names it in an error.

        Raises:
            CheckpointError: It is damaged, or another archive.
        """
        try:
            with ZipFile(io.BytesIO(data)) as archive:
                said = _Description.model_validate_json(archive.read(CARD))
                content = archive.read(NETWORK)
        except (BadZipFile, KeyError, NotImplementedError, ValidationError) as exc:
            raise CheckpointError(
                f"{where!r} is not an ONNX challenger: {exc}. 'kedro run --pipelines "
                "train' makes it again."
            ) from exc
        found = sha256(content).hexdigest()
        if found != said.fingerprint:
            raise CheckpointError(
                f"{where!r} is damaged: the SHA-256 of its network is {found}, not "
                f"{said.fingerprint}. 'kedro run --pipelines train' makes it again."
            )
        return cls(
            content,
            model_name=said.model_name,
            classes=said.classes,
            preprocessing=said.preprocessing,
            lineage=said.lineage,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as bytes, which are read there."""
        return type(self).from_bytes, (self.to_bytes(), "another process")


def holds_onnx(path: Path) -> bool:
    """Whether a file is an archive of ``OnnxClassifier.to_bytes``."""
    try:
        with ZipFile(path) as archive:
            return NETWORK in archive.namelist()
    except BadZipFile:
        return False
