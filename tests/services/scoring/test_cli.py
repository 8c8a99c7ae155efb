"""``kedro serve``: the service as a command of the project."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click import Context
from click.testing import CliRunner
from kedro.config import OmegaConfigLoader
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from tests.services.scoring.serving import make_release, picture, put_up, table

from active_learning.cli import cli
from active_learning.services.scoring.settings import ServerSettings, ServingSettings

ROOT = Path(__file__).parents[3]


def kedro(*arguments: str, data: Path) -> list[Any]:
    """A command line and the environment it needs."""
    return [
        [sys.executable, "-m", "kedro", *arguments],
        {**os.environ, "AL_DATA": str(data)},
    ]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def ask(
    port: int, path: str, body: bytes | None = None, mimetype: str = "image/png"
) -> tuple[int, Any]:
    """Of one request; 0 and nothing while nobody listens."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": mimetype}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())
    except OSError:
        return 0, None


@contextmanager
def serving(data: Path, *arguments: str) -> Iterator[int]:
    port = free_port()
    command, environment = kedro("serve", "--port", f"{port}", *arguments, data=data)
    environment["AZUREML_MODEL_DIR"] = str(data / "of-another")
    process = subprocess.Popen(command, cwd=ROOT / "tests", env=environment)
    try:
        end = time.monotonic() + 90
        while not ask(port, "/")[0]:
            assert process.poll() is None, "it ended"
            assert time.monotonic() < end, "it did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def test_kedro_serve_answers_with_the_champion_and_collects(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(picture())
    options = ("--workers", "1", "--params", f"images={images}")
    with serving(tmp_path, *options) as port:
        assert ask(port, "/")[0] == 503

        endpoint = tmp_path / "06_models" / "endpoint"
        put_up(endpoint, make_release(endpoint, 1))
        end = time.monotonic() + 60
        while ask(port, "/")[0] != 200:
            assert time.monotonic() < end, "it is not ready"
            time.sleep(0.1)

        body = b'{"image_id": "a.png"}'
        status, said = ask(port, "/score", body, "application/json")

    assert (status, said["model_version"]) == (200, 1)
    (tmp_path / "tables").symlink_to(tmp_path / "03_primary")
    assert table(tmp_path)["prediction_id"].to_pylist() == [said["prediction_id"]]


def test_kedro_keeps_its_own_commands() -> None:
    commands = KedroCLI(ROOT)

    names = set(commands.list_commands(Context(commands)))

    assert {"run", "registry", "catalog", "viz", "mlflow", "serve"} <= names


ADDED = """
import sys
import kedro.framework.cli.cli, kedro.framework.cli.utils
before = set(sys.modules)
import active_learning.cli
sys.stdout.write(" ".join(set(sys.modules) - before))
"""


def test_a_command_that_does_not_serve_pays_nothing_for_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ADDED], capture_output=True, text=True, check=True
    )

    added = set(ran.stdout.split())
    commands = {name for name in added if name.endswith("cli")}
    packages = {
        name.rsplit(".", n)[0]
        for name in commands
        for n in range(1, name.count(".") + 1)
    }
    assert added - commands - packages == {"active_learning.errors"}


@pytest.mark.parametrize(
    "arguments",
    [("--workers", "0"), ("--port", "70000"), ("--port", "http"), ("--worker", "2")],
)
def test_wrong_options_are_refused(arguments: tuple[str, str]) -> None:
    metadata = bootstrap_project(ROOT)

    ran = CliRunner().invoke(cli, ["serve", *arguments], obj=metadata)

    assert ran.exit_code == 2
    assert arguments[0] in ran.output


def configured(env: str | None = None, **params: str) -> Any:
    bootstrap_project(ROOT)
    loader = OmegaConfigLoader(
        conf_source=str(ROOT / settings.CONF_SOURCE),
        env=env,
        runtime_params=params,
        **settings.CONFIG_LOADER_ARGS,
    )
    return loader["serving"]


@pytest.mark.parametrize("env", [None, "simulation"])
def test_conf_says_all_that_a_service_is_told(env: str | None) -> None:
    said = configured(env)

    assert set(said) == {"serve", "server"}
    assert ServerSettings.model_validate(said["server"]).host == "127.0.0.1"
    assert ServingSettings.model_validate(said["serve"]).collect


def test_a_service_and_the_pipelines_share_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AL_DATA", "elsewhere")

    said = configured(images="my-images")["serve"]

    assert said["endpoint"] == "elsewhere/06_models/endpoint"
    assert said["spool"]["path"] == "elsewhere/02_intermediate/spool.sqlite"
    assert said["telemetry"]["database"] == "elsewhere/03_primary"
    assert said["images"] == "my-images"


def test_an_overlay_holds_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "mine" / "serve").mkdir(parents=True)
    (tmp_path / "base" / "globals.yml").write_text("images: x\n")
    (tmp_path / "base" / "serving.yml").write_text(
        "serve: {limits: {images: 1, body_bytes: 2}}\n"
    )
    (tmp_path / "mine" / "serve" / "serving.yml").write_text(
        "serve: {limits: {images: 3}}\n"
    )
    bootstrap_project(ROOT)
    loader = OmegaConfigLoader(
        conf_source=str(tmp_path), env="mine", **settings.CONFIG_LOADER_ARGS
    )

    assert loader["serving"]["serve"]["limits"] == {"images": 3, "body_bytes": 2}
