"""What a release must be and say before any request goes to it, wherever it is up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from active_learning.acquisition import FloatArray
from active_learning.errors import CheckpointError, EndpointError
from active_learning.services.deployment import Example
from active_learning.services.deployment.state import Color, EndpointState, Release
from active_learning.services.scoring.model import (
    CARD,
    TOLERANCE,
    InferenceModel,
    ModelCard,
)


def named(model: InferenceModel) -> Release:
    """A release's name and what it is, from its files."""
    return Release(
        name=f"{model.version:06d}-{model.fingerprint[:12]}",
        model_name=model.model_name,
        model_version=model.version,
        fingerprint=model.fingerprint,
    )


def check(folder: Path, release: Release) -> InferenceModel:
    """Load a release.

    Raises:
        EndpointError: It is damaged, or another than it is said to be.
    """
    try:
        model = InferenceModel.load(folder)
    except CheckpointError as exc:
        raise EndpointError(f"{release.name!r} cannot be brought up: {exc}") from exc
    if model.fingerprint != release.fingerprint:
        raise EndpointError(
            f"{str(folder)!r} holds a model of the fingerprint {model.fingerprint}, "
            f"not {release.fingerprint}. Remove the folder and deploy again."
        )
    return model


def is_same(place: Path, folder: Path, state: EndpointState) -> bool:
    """Whether a release lies at a place already, whole.

    Raises:
        EndpointError: Another of the same weights and version does, and is up or was.
    """
    try:
        InferenceModel.load(place)
    except CheckpointError:
        return False
    one, other = _said_of(place), _said_of(folder)
    known = (*state.deployments.values(), *state.history, *state.rolled_back)
    if one != other and place.name in {release.name for release in known}:
        differing = [key for key, value in one.items() if other[key] != value]
        raise EndpointError(
            f"{place.name!r} is another release with the same weights and version; "
            f"they differ in {differing}. Train again."
        )
    return one == other


def read_answer(
    service: str,
    status: int,
    text: str,
    color: Color,
    release: Release,
    classes: Sequence[str],
    example: Example,
    way_out: str,
) -> FloatArray:
    """The probabilities in a service's answer.

    Args:
        service: Where it was asked.
        status: Of HTTP.
        text: Of the answer.
        color: That was asked for.
        release: That must have answered.
        classes: K, in the release's order.
        example: What was asked about.
        way_out: What to set where another service answers.

    Returns:
        (K,) float64.

    Raises:
        EndpointError: It is no answer, or not that of the release.
    """
    if status != 200:
        raise EndpointError(
            f"{service} answers {status} to {example.image_id!r} for "
            f"{release.name!r}: {text[:500]}"
        )
    try:
        said = json.loads(text)
        version = said["model_version"]
        values = [float(said["probabilities"][name]) for name in classes]
    except (ValueError, KeyError, TypeError) as exc:
        raise EndpointError(
            f"{service} is no scoring service of this project: its "
            f"answer to {example.image_id!r} was {text[:200]!r}. {way_out}."
        ) from exc
    if version != release.model_version:
        raise EndpointError(
            f"{service} answered as version {version} when it was asked "
            f"for {color!r}, which is version {release.model_version}. Another "
            f"endpoint is served there. {way_out}."
        )
    return np.array(values)


def compare(release: Release, example: Example, said: FloatArray) -> None:
    """Hold what a release says of an image against what it must.

    Raises:
        EndpointError: It says something else.
    """
    expected = example.probabilities
    same = said.shape == expected.shape
    if not same or not np.allclose(said, expected, rtol=0, atol=TOLERANCE):
        raise EndpointError(
            f"{release.name!r} says {said.round(5).tolist()} of {example.image_id!r}, "
            f"and {expected.round(5).tolist()} was expected: it does not answer as it "
            "did when it was compared. See the log of the serving processes."
        )


def _said_of(folder: Path) -> dict[str, Any]:
    """What a release's card says, but for how it was measured."""
    said = ModelCard.model_validate_json((folder / CARD).read_bytes())
    return said.model_dump(exclude={"parity"})
