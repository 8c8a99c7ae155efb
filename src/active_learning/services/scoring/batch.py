"""The entry script of an Azure ML batch endpoint: ``init()`` once, ``run()`` for files.

Settings come from the environment: ``AZUREML_MODEL_DIR`` names a release, or a folder
with one in it; ``AL_IMAGE_ROOT`` the folder that every ``image_id`` is relative to, by
default ``/``; ``AL_MAX_PIXELS`` the size above which an image is not unpacked. Where
Azure ML sets ``AZUREML_BI_OUTPUT_PATH``, each call leaves its rows there as a Parquet
part, which says more exactly than text what was scored.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from active_learning.errors import SettingsError
from active_learning.imaging import ImageStore
from active_learning.imaging.ids import flaw
from active_learning.schemas import PREDICTIONS
from active_learning.services.scoring.model import (
    CARD,
    MAX_PIXELS,
    InferenceModel,
    find_release,
)
from active_learning.services.telemetry.rows import predictions_table

COLUMNS = (*PREDICTIONS.names, "reason")

_BATCH = 128
_OUTPUT = "AZUREML_BI_OUTPUT_PATH"

logger = logging.getLogger(__name__)


class _Ready(NamedTuple):
    model: InferenceModel
    root: Path
    max_pixels: int


_ready: _Ready | None = None


def init() -> None:
    """Load the model; called once in each process.

    Raises:
        CheckpointError: There is no release, or it is damaged.
        SettingsError: A variable is missing, or is no number.
    """
    global _ready  # noqa: PLW0603  # the endpoint calls two functions of a module
    folder = os.environ.get("AZUREML_MODEL_DIR")
    if not folder:
        raise SettingsError(
            "AZUREML_MODEL_DIR is not set; it names the folder with the release."
        )
    limit = os.environ.get("AL_MAX_PIXELS", str(MAX_PIXELS))
    if not limit.isdecimal() or not int(limit):
        raise SettingsError(f"AL_MAX_PIXELS is {limit!r}; it is a number of pixels.")
    root = Path(os.path.abspath(os.environ.get("AL_IMAGE_ROOT", "/")))
    model = InferenceModel.load(_release_in(Path(folder)))
    _ready = _Ready(model, root, int(limit))
    logger.info("Scoring with %s version %d", model.model_name, model.version)


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Score some files.

    Args:
        mini_batch: Their paths.

    Returns:
        One row a file, in their order: the columns of ``schemas.PREDICTIONS``, with
        ``classes`` and ``probabilities`` as JSON and ``scored_at`` as ISO 8601, since
        the endpoint writes them to a text file; and ``reason``, which is empty. An
        image that cannot be used has its ``image_id``, a ``reason`` and nothing else.

    Raises:
        SettingsError: ``init`` was not called.
    """
    if _ready is None:
        raise SettingsError("run() was called before init().")
    model, root, max_pixels = _ready
    names = [_image_id(path, root) for path in mini_batch]
    reasons = {name: f"its name: {why}" for name in names if (why := flaw(name))}
    # A store of its own, so that memory does not grow with the files of a job.
    store = ImageStore(str(root), cache=None, max_pixels=max_pixels)
    usable = list(dict.fromkeys(name for name in names if name not in reasons))
    decoded = store.pixels(usable, model.preprocessing)
    aside = decoded.set_aside
    reasons |= dict(zip(aside["image_id"], aside["reason"], strict=True))
    scored = predictions_table(
        decoded.image_ids,
        model.probabilities(decoded.pixels, _BATCH, "cpu", ""),
        model.classes,
        model.model_name,
        model.version,
        "batch",
        datetime.now(UTC),
    ).to_pylist()
    rows = {row["image_id"]: _as_text(row) for row in scored}
    rows |= {n: {"image_id": n, "reason": why} for n, why in reasons.items()}
    logger.info("Scored %d files; %d cannot be used", len(scored), len(reasons))
    said = pd.DataFrame([rows[name] for name in names], columns=list(COLUMNS))
    output = os.environ.get(_OUTPUT)
    if output:
        _leave(said, Path(output), names)
    return said


def _release_in(folder: Path) -> Path:
    """The one release in a folder, however deep a model registry has put it."""
    found = list(folder.rglob(CARD))
    return found[0].parent if len(found) == 1 else find_release(folder)


def _leave(rows: pd.DataFrame, folder: Path, names: list[str]) -> None:
    """Write a part that bears the files' own name: tried again, it replaces itself."""
    digest = sha256("\n".join(names).encode()).hexdigest()[:32]
    # A mounted folder knows no rename that is atomic; a part is written in one go.
    buffer = BytesIO()
    rows.astype({"model_version": "Int64"}).to_parquet(buffer, index=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest}.parquet").write_bytes(buffer.getvalue())


def _image_id(path: str, root: Path) -> str:
    # Outside of the root it climbs, which is no image_id.
    return os.path.relpath(os.path.abspath(path), root)


def _as_text(row: dict[str, object]) -> dict[str, object]:
    return {
        **row,
        "classes": json.dumps(row["classes"], ensure_ascii=False),
        "probabilities": json.dumps(row["probabilities"]),
        "scored_at": str(row["scored_at"]),
        "reason": "",
    }
