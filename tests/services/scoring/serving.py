"""What the tests of the scoring service are made of."""

import json
import shutil
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.learning.builders import digits, untrained

from active_learning.services.deployment.state import (
    RELEASES,
    EndpointState,
    Release,
    write_state,
)
from active_learning.services.scoring.export import export
from active_learning.services.telemetry.parts import Parts

CLASSES = tuple("0123456789")
LIMITS = {"body_bytes": 200_000, "max_pixels": 1_000_000, "images": 4}
COLLECTOR = {
    "batch_rows": 100,
    "linger_s": 0.02,
    "back_off_min_s": 0.02,
    "back_off_max_s": 0.2,
    "part_rows": 1000,
}


@cache
def _exported() -> "tempfile.TemporaryDirectory[str]":
    """One export for all tests: it takes seconds."""
    folder = tempfile.TemporaryDirectory(prefix="release-")
    examples, _ = digits(0, 8)
    export(untrained(CLASSES), examples, Path(folder.name, "release"))
    return folder


def make_release(endpoint: Path, version: int) -> Release:
    """A release of an untrained network; the versions differ by their numbers alone."""
    source = Path(_exported().name, "release")
    card = json.loads((source / "model.json").read_text())
    card["version"] = version
    name = f"{version:06d}-{card['fingerprint'][:12]}"
    folder = endpoint / RELEASES / name
    shutil.copytree(source, folder)
    (folder / "model.json").write_text(json.dumps(card))
    return Release(
        name=name,
        model_name=card["model_name"],
        model_version=version,
        fingerprint=card["fingerprint"],
    )


def put_up(
    endpoint: Path,
    blue: Release | None = None,
    green: Release | None = None,
    traffic: int = 100,
) -> None:
    """Write the endpoint's state; blue gets ``traffic`` percent, green the rest."""
    up = {"blue": blue, "green": green}
    shares = {"blue": traffic, "green": 100 - traffic}
    write_state(
        endpoint,
        EndpointState.model_validate(
            {
                "deployments": {c: r.model_dump() for c, r in up.items() if r},
                "traffic": {c: s for c, s in shares.items() if s and up[c]},
                "live": "blue" if blue else "green" if green else None,
            }
        ),
    )


def told(folder: Path, **changes: Any) -> str:
    """The settings of a service whose files all lie in one folder, as JSON."""
    images = folder / "images"
    images.mkdir(exist_ok=True, parents=True)
    settings = {
        "endpoint": str(folder / "endpoint"),
        "images": str(images),
        "archive": ".online",
        "model_threads": 1,
        "poll_s": 0.02,
        "retry_s": 0.05,
        "deployment_wait_s": 10,
        "flush_s": 10,
        "limits": LIMITS,
        "collect": True,
        "spool": {
            "path": str(folder / "spool.sqlite"),
            "max_rows": 100_000,
            "power_cut_safe": False,
        },
        "telemetry": {"backend": "local", "database": str(folder / "tables")},
        "collector": COLLECTOR,
    }
    for name, value in changes.items():
        nested = isinstance(value, dict) and isinstance(settings.get(name), dict)
        settings[name] = {**settings[name], **value} if nested else value  # type: ignore[dict-item]
    return json.dumps(settings)


def picture(number: int = 0, kind: str = "PNG") -> bytes:
    """A file of a gray 20 x 24 image; each number is another one."""
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 256, (20, 24), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def table(folder: Path) -> pa.Table:
    """All rows in all parts: one that lies there twice is there twice."""
    parts = Parts(folder / "tables" / "predictions", "predictions").current()
    return pa.concat_tables([pq.read_table(part) for part in parts])
