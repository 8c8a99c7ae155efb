"""What a scoring service is told, through one variable of its environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from active_learning.errors import SettingsError
from active_learning.parameters import Parameters
from active_learning.services.telemetry.collector import CollectorSettings

SETTINGS = "AL_SERVING"
MODEL_FOLDER = "AZUREML_MODEL_DIR"


class Limits(Parameters):
    """What a request may ask for; more is refused before it costs anything.

    ``body_bytes`` of one request, base64 and all; ``max_pixels`` of an image before it
    is unpacked; ``images`` in one request.
    """

    body_bytes: PositiveInt
    max_pixels: PositiveInt
    images: PositiveInt


class SpoolSettings(Parameters):
    """Where predictions wait: an SQLite file, and how many rows it may hold."""

    path: str
    max_rows: PositiveInt
    power_cut_safe: bool


class TelemetrySettings(Parameters):
    """Where predictions go: a backend's name and its database."""

    backend: str
    database: str


class ServingSettings(Parameters):
    """How a scoring service works. No defaults here: ``conf/base`` is their one home.

    Releases are looked for in ``endpoint`` every ``poll_s``, and one that could not be
    loaded is tried again after ``retry_s``; a request that names a deployment by its
    color waits for it up to ``deployment_wait_s``. ``model_threads``
    of ONNX Runtime answer one request, 0 for all cores. Images that come with a request
    are kept in the folder ``archive`` of the store ``images``. A process that ends
    delivers what it has collected for up to ``flush_s``.
    """

    endpoint: str
    images: str
    archive: str
    model_threads: NonNegativeInt
    poll_s: PositiveFloat
    retry_s: PositiveFloat
    deployment_wait_s: NonNegativeFloat
    flush_s: NonNegativeFloat
    limits: Limits
    collect: bool
    spool: SpoolSettings
    telemetry: TelemetrySettings
    collector: CollectorSettings


class ServerSettings(Parameters):
    """How a server of ``kedro serve`` listens.

    ``workers`` are processes, each with a model of its own and ``threads`` requests at
    once. One that is silent for ``timeout_s`` is replaced; what is under way when the
    server ends has ``graceful_s`` to come to its end.
    """

    host: str
    port: int = Field(ge=0, le=65535)
    workers: PositiveInt
    threads: PositiveInt
    timeout_s: PositiveInt
    graceful_s: PositiveInt


def settings_from(environment: Mapping[str, str]) -> ServingSettings:
    """What this process was told.

    Raises:
        SettingsError: It was told nothing, or something else.
    """
    text = environment.get(SETTINGS)
    if text is None:
        raise SettingsError(
            f"{SETTINGS} is not set, so the service does not know where to look. Start "
            "it by `kedro serve`, or set the variable to what "
            "conf/base/serve/serving.yml says under 'serve', as JSON."
        )
    try:
        return ServingSettings.model_validate_json(text)
    except ValidationError as exc:
        raise SettingsError(f"{SETTINGS} cannot be used: {exc}") from exc


def model_folder(environment: Mapping[str, str]) -> Path | None:
    """The one release that a managed endpoint mounts; ``None`` where there is none.

    Azure mounts a registered model under its name and version, with the folder that
    was registered inside.

    Raises:
        SettingsError: Not exactly one folder there holds a release.
    """
    mounted = environment.get(MODEL_FOLDER)
    if not mounted:
        return None
    root = Path(mounted)
    found = [root] if (root / "model.json").is_file() else _releases_below(root)
    if len(found) != 1:
        raise SettingsError(
            f"{MODEL_FOLDER}={mounted!r} holds {len(found)} releases"
            + (f", the first {str(found[0])!r}" if found else "")
            + ". Mount one: a folder with model.json and model.onnx."
        )
    return found[0]


def _releases_below(root: Path) -> list[Path]:
    return [
        Path(folder)
        for folder, _, files in sorted(os.walk(root))
        if "model.json" in files
    ]
