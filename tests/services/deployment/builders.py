"""Small releases that answer differently, and processes that serve them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image
from tests.learning.builders import noise, untrained

from active_learning.learning.checkpoint import save_classifier
from active_learning.learning.module import ImageClassifier
from active_learning.services.deployment import Example
from active_learning.services.deployment.local import LocalEndpoint
from active_learning.services.deployment.state import Release, live_workers
from active_learning.services.scoring.export import export
from active_learning.services.scoring.model import CARD, CHECKPOINT, InferenceModel

PROJECT = Path(__file__).parents[3]
SIDE = 8
NOWHERE = "http://127.0.0.1:9/score"


def classifier(version: int, weights: int = 0) -> ImageClassifier:
    """A small one; other ``weights``, other answers."""
    made = untrained(
        lineage={"version": version, "training_set": "0" * 64, "n_labels": 4},
        preprocessing={"height": SIDE, "width": SIDE},
    )
    generator = torch.Generator().manual_seed(weights)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return made


@cache
def _exported(weights: int) -> tuple[TemporaryDirectory[str], Path]:
    scratch = TemporaryDirectory()
    folder = Path(scratch.name) / "release"
    export(classifier(1, weights), noise(4, side=SIDE), folder)
    return scratch, folder


def write_release(folder: Path, version: int, weights: int = 0) -> Path:
    """A whole release; a model is exported once for all its versions."""
    shutil.copytree(_exported(weights)[1], folder)
    card = json.loads((folder / CARD).read_text())
    card["version"] = card["lineage"]["version"] = version
    (folder / CARD).write_text(json.dumps(card))
    save_classifier(classifier(version, weights), folder / CHECKPOINT)
    return folder


def local(root: Path, url: str = NOWHERE, load_timeout_s: float = 20) -> LocalEndpoint:
    return LocalEndpoint(root, url, load_timeout_s)


def taken_in(endpoint: LocalEndpoint, version: int, weights: int = 0) -> Release:
    with endpoint.incoming() as folder:
        return endpoint.add(write_release(folder, version, weights))


def live(endpoint: LocalEndpoint, version: int, weights: int = 0) -> Release:
    """Put a release in production without further ado."""
    release = taken_in(endpoint, version, weights)
    with endpoint.exclusive():
        endpoint.promote(endpoint.stage(release), back=False)
    return release


def examples(endpoint: LocalEndpoint, release: Release, n: int = 3) -> list[Example]:
    """PNG files, and what a release says of them."""
    pixels = noise(n, side=SIDE)
    said = InferenceModel.load(endpoint.folder(release)).answer(pixels)
    return [
        Example(f"{number}.png", png(image), row)
        for number, (image, row) in enumerate(zip(pixels, said, strict=True))
    ]


def png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


_WORKER = """
import json, sys, time
from pathlib import Path
from active_learning.services.deployment.state import WorkerReport, read_state

endpoint, failing = Path(sys.argv[1]), sys.argv[2:]
report = WorkerReport(endpoint)
said = None
while True:
    up = {r.name: r.fingerprint for r in read_state(endpoint).deployments.values()}
    failed = {name: "the disk is on fire" for name in up if name in failing}
    news = ({n: f for n, f in up.items() if n not in failed}, failed)
    if news != said:
        report.write(*news)
        said = news
        print("reported", flush=True)
    time.sleep(0.02)
"""


@contextmanager
def worker(root: Path, *failing: str) -> Iterator[int]:
    """A process that says that it loads what is up, and serves nothing.

    Yields:
        Its process id.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(root), *failing],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def service(data: Path, n_workers: int = 2) -> Iterator[str]:
    """The real scoring service of a data folder.

    Yields:
        Where it answers.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "kedro", "serve", "--port", str(port), "--workers", str(n_workers)]
    with (data / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env={**os.environ, "AL_DATA": str(data)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: len(live_workers(data / "06_models/endpoint")) == n_workers)
        wait_for(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}/score"
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/swagger.json", timeout=5):
            return True
    except (URLError, OSError):
        return False


def ask(url: str, content: bytes) -> tuple[int, int]:
    """Score an image as any caller does.

    Returns:
        The status and the version that answered; 0 where none did.
    """
    request = Request(url, content, {"Content-Type": "image/png"})
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)["model_version"]
    except HTTPError as exc:
        return exc.code, 0


def wait_for(happens: Callable[[], object], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
