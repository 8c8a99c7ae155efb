"""MLflow loads and serves a release, without a pickle."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.learning.builders import noise, untrained

from active_learning.errors import CheckpointError, ImageError
from active_learning.services.scoring.export import export
from active_learning.services.scoring.mlflow_model import save_mlflow_model
from active_learning.services.scoring.model import InferenceModel

IMAGES = noise(4)
CLASSES = ["a", "b", "Größe"]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


FILES = [png(image) for image in IMAGES]
TABLE = pd.DataFrame({"image": [base64.b64encode(file).decode() for file in FILES]})


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint") / "release"
    export(untrained(CLASSES), IMAGES, folder)
    return folder


@pytest.fixture(scope="module")
def saved(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    save_mlflow_model(release, folder, FILES[0])
    return folder


def test_a_loaded_model_answers_as_the_release(release: Path, saved: Path) -> None:
    answer = mlflow.pyfunc.load_model(str(saved)).predict(TABLE)

    expected = InferenceModel.load(release).answer(IMAGES)
    said = np.array(answer["probabilities"].tolist())
    np.testing.assert_array_equal(said, expected)
    assert answer["label"].tolist() == [CLASSES[n] for n in expected.argmax(axis=1)]
    assert answer["classes"].tolist() == [CLASSES] * 4


def test_nothing_in_it_is_pickled(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file()]

    assert not [path for path in files if path.suffix in (".pkl", ".pickle")]
    # A checkpoint's tensors are a zip file, which is read as tensors alone.
    assert {
        path.name for path in files if path.read_bytes()[:2] == b"\x80\x04"
    } == set()


def test_it_says_what_it_takes_and_gives(saved: Path) -> None:
    model = mlflow.models.Model.load(str(saved))

    assert model.signature.inputs.input_names() == ["image"]
    outputs = model.signature.outputs.input_names()
    assert outputs == ["label", "classes", "probabilities"]
    example = model.load_input_example(str(saved))
    answer = mlflow.pyfunc.load_model(str(saved)).predict(example)
    assert answer["label"].item() in CLASSES


def test_images_that_cannot_be_used_are_counted_and_the_first_is_named(
    saved: Path,
) -> None:
    model = mlflow.pyfunc.load_model(str(saved))
    bad = base64.b64encode(b"no image").decode()
    table = pd.DataFrame({"image": [TABLE["image"][0], "%%%", bad]})

    with pytest.raises(ImageError, match=r"2 of 3 .* number 1: it is not base64"):
        model.predict(table)


def test_a_damaged_release_is_not_saved(release: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        save_mlflow_model(tmp_path / "nowhere", tmp_path / "model", FILES[0])

    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_mlflow_serves_it_without_a_network(
    release: Path, saved: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved)]
    options = ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    # A proxy that nobody answers at: whatever asks the network fails.
    offline = dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **offline, "PATH": path, "no_proxy": "127.0.0.1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"{url}/ping", server)
        body = {"dataframe_split": TABLE.to_dict(orient="split", index=False)}
        request = urllib.request.Request(
            f"{url}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            rows = json.load(response)["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)

    expected = InferenceModel.load(release).answer(IMAGES)
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected)
    assert [row["label"] for row in rows] == [
        CLASSES[n] for n in expected.argmax(axis=1)
    ]


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=5)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(url)
