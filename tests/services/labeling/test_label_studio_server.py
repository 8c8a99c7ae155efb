"""A Label Studio of this machine: installed apart, told no secret of ours."""

import json
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from active_learning.errors import LabelingError
from active_learning.services.labeling.label_studio.client import LabelStudio
from active_learning.services.labeling.label_studio.server import (
    installed,
    running,
    token_of,
)
from active_learning.services.labeling.label_studio.settings import ServerSettings

# It says it is up, writes down what it was told, and ends when it is asked to.
PROGRAM = f"""#!{sys.executable}
import http.server, json, os, sys
data = os.environ["LABEL_STUDIO_BASE_DATA_DIR"]
if os.path.exists(data + "/broken"):
    sys.exit("the database is broken")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = b'{{"status": "UP"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
with open(data + "/told.json", "w") as file:
    json.dump({{"env": dict(os.environ), "argv": sys.argv}}, file)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def _no_token_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    """Of an environment in which a program like Label Studio is installed."""
    environment = tmp_path / "environment"
    packages = environment / "lib/python3.11/site-packages"
    whole = packages / "label_studio-1.23.2.dist-info"
    whole.mkdir(parents=True)
    (whole / "METADATA").write_text("Name: label-studio\nVersion: 1.23.2\n")
    program = environment / "bin/label-studio"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return ServerSettings(
        environment=str(environment),
        version="1.23.2",
        data=str(tmp_path / "data"),
        port=free_port(),
        start_timeout_s=60,
        stop_timeout_s=20,
    )


def start(settings: ServerSettings, tmp_path: Path, **environment: str) -> Any:
    client = LabelStudio(f"http://127.0.0.1:{settings.port}", "", 5, 0)
    told = {"PATH": os.environ["PATH"], **environment}
    return running(settings, tmp_path / "queue", told, client.healthy)


def told(settings: ServerSettings) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(Path(settings.data, "told.json").read_text())
    return said


def test_it_runs_as_long_as_the_block_and_for_this_machine_alone(
    settings: ServerSettings, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{settings.port}/health"
    with start(settings, tmp_path) as check:
        check()
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.status == 200
        argv = told(settings)["argv"]
        assert argv[argv.index("--internal-host") + 1] == "127.0.0.1"

    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=30)


def test_nothing_of_ours_is_seen_by_the_server(
    settings: ServerSettings, tmp_path: Path
) -> None:
    secrets = {"AZURE_CLIENT_SECRET": "s", "PYTHONPATH": "src", "VIRTUAL_ENV": "x"}
    with start(settings, tmp_path, **secrets):
        environment = told(settings)["env"]

    assert not secrets.keys() & environment.keys()
    assert environment["HOME"] == settings.data
    assert environment["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] == str(
        tmp_path / "queue"
    )


def test_a_token_is_made_once_and_kept_for_its_owner_alone(
    settings: ServerSettings, tmp_path: Path
) -> None:
    tokens = []
    for _ in range(2):
        with start(settings, tmp_path):
            tokens.append(told(settings)["env"]["LABEL_STUDIO_USER_TOKEN"])

    login = Path(settings.data, "login.json")
    assert len(tokens[0]) == 40
    assert tokens == [token_of(settings, None)] * 2
    assert stat.S_IMODE(login.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(settings.data, "server.log").stat().st_mode) == 0o600


def test_the_environments_token_goes_before_that(
    settings: ServerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"LABEL_STUDIO_API_KEY": "f" * 40}
    with start(settings, tmp_path, **mine):
        assert told(settings)["env"]["LABEL_STUDIO_USER_TOKEN"] == "f" * 40

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "other")
    assert token_of(settings, None) == "other"


def test_without_a_token_it_says_where_one_comes_from(tmp_path: Path) -> None:
    nowhere = ServerSettings(
        environment="x",
        version="1",
        data=str(tmp_path),
        port=1,
        start_timeout_s=1,
        stop_timeout_s=1,
    )
    with pytest.raises(LabelingError, match=r"LABEL_STUDIO_API_KEY.*kedro label"):
        token_of(nowhere, None)
    (tmp_path / "login.json").write_text("{")
    with pytest.raises(LabelingError, match="damaged"):
        token_of(nowhere, None)
    with pytest.raises(LabelingError, match=r"a token that http://there shows"):
        token_of(nowhere, "http://there")


def test_a_server_that_ends_at_once_shows_its_last_words(
    settings: ServerSettings, tmp_path: Path
) -> None:
    Path(settings.data).mkdir()
    Path(settings.data, "broken").touch()

    with (
        pytest.raises(LabelingError, match=r"ended with 1.*the database is broken"),
        start(settings, tmp_path),
    ):
        pass


def test_a_port_that_is_taken_is_not_exchanged_for_another(
    settings: ServerSettings, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        with (
            pytest.raises(LabelingError, match=rf"{settings.port} is taken.*--port"),
            start(settings, tmp_path),
        ):
            pass


def test_half_an_installation_is_done_again_and_says_what_fails(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed(settings).name == "label-studio"
    environment = Path(settings.environment)
    environment.with_name("environment.lock").write_text("installing")
    _without_index(monkeypatch)

    with pytest.raises(
        LabelingError, match=r"(?s)label-studio==1\.23\.2.*answers\.csv"
    ):
        installed(settings)

    assert not (environment / "bin/label-studio").exists()


def test_an_environment_of_somebody_else_is_not_emptied(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Path(settings.environment)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    _without_index(monkeypatch)

    with pytest.raises(LabelingError, match="could not be installed"):
        installed(settings.model_copy(update={"version": "1.24.0"}))

    assert installed(settings).exists()


def _without_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
