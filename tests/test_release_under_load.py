"""Fifty clients ask while a new champion takes over and is taken back."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
from tests.test_loop import SMALL

from active_learning.services.telemetry.parts import Parts

PROJECT = Path(__file__).parents[1]
N_CLIENTS = 50
LOAD_S = 60
PAUSE_S = 0.25
PNG = {"Content-Type": "image/png"}
MOST_REQUESTS = 2000  # of each client, should a release never end
DIGITS = {
    **SMALL,
    "start.labels": 100,
    "deploy.step_s": 3,
    # The digits are few: what matters here is that both models serve.
    "deploy.tolerance": 0.99,
    "deploy.max_recall_drop": 0.99,
}


class Answer(NamedTuple):
    """What a client was told, by which version and whether it was collected."""

    status: int
    prediction_id: str
    version: int
    collected: bool


class Loop:
    """The project with a data folder of its own, on the digits, with the oracle."""

    def __init__(self, data: Path, images: Path) -> None:
        self.data = data
        self.environment = {**os.environ, "AL_DATA": str(data)}
        self.params = {"images": images, **DIGITS}

    def run(self, *arguments: str, **params: object) -> None:
        typed = ",".join(f"{k}={v}" for k, v in {**self.params, **params}.items())
        command = [sys.executable, "-m", "kedro", "run", "--env", "simulation"]
        ran = subprocess.run(
            [*command, *arguments, "--params", typed],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]

    @contextmanager
    def serve(self, port: int) -> Iterator[None]:
        command = [sys.executable, "-m", "kedro", "serve", "--env", "simulation"]
        typed = f"images={self.params['images']}"
        server = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "2", "--params", typed],
            cwd=PROJECT,
            env=self.environment,
        )
        try:
            until = time.monotonic() + 60
            while status(port) != 200:
                assert server.poll() is None, "the service has ended"
                assert time.monotonic() < until, "the service is not ready"
                time.sleep(0.1)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)

    def versions(self) -> list[int]:
        """The champion's version, and those before it."""
        state = json.loads((self.data / "06_models/endpoint/state.json").read_text())
        live = state["deployments"][state["live"]]["model_version"]
        return [live, *(release["model_version"] for release in state["history"])]


def status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(
    port: int, images: list[bytes], enough: threading.Event, answers: list[Answer]
) -> None:
    """One client: a request after the other on one connection, until it is enough."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for turn in range(MOST_REQUESTS):
        if enough.is_set():
            break
        connection.request("POST", "/score", images[turn % len(images)], PNG)
        response = connection.getresponse()
        said = json.loads(response.read())
        answers.append(
            Answer(
                response.status,
                said.get("prediction_id", ""),
                said.get("model_version", 0),
                said.get("collected", False),
            )
        )
        time.sleep(PAUSE_S)
    connection.close()


@pytest.mark.slow
def test_no_request_fails_and_no_prediction_is_lost_while_champions_change(
    digits: Path, tmp_path: Path
) -> None:
    loop = Loop(tmp_path, digits)
    loop.run("--pipelines", "test-set")
    loop.run("--pipelines", "start,label-ingest,train,deploy")
    loop.run("--pipelines", "score,monitor,select,label-ingest,train")
    assert loop.versions() == [1]
    images = [path.read_bytes() for path in sorted(digits.glob("*/*.png"))[::40]]
    port = free_port()
    url = {"deploy.service_url": f"http://127.0.0.1:{port}/score"}
    answers: list[Answer] = []

    with loop.serve(port):
        begun, enough = time.monotonic(), threading.Event()
        clients = [
            threading.Thread(target=ask, args=(port, images[n:], enough, answers))
            for n in range(N_CLIENTS // 2)
            for _ in range(2)
        ]
        for client in clients:
            client.start()
        loop.run("--pipelines", "deploy", **url)
        after_deploy = loop.versions()
        loop.run("--pipelines", "deploy", **url, **{"deploy.rollback": "true"})
        time.sleep(max(0.0, LOAD_S - (time.monotonic() - begun)))
        still_asking = sum(client.is_alive() for client in clients)
        enough.set()
        for client in clients:
            client.join()

    assert after_deploy == [2, 1]
    assert loop.versions() == [1]
    assert still_asking == N_CLIENTS
    assert len(answers) > 10 * N_CLIENTS
    assert Counter(answer.status for answer in answers) == {200: len(answers)}
    assert {answer.version for answer in answers} == {1, 2}
    assert all(answer.collected for answer in answers)
    loop.run("--pipelines", "monitor")
    # Not every file there is: what a compaction has replaced lies there for a while.
    parts = Parts(tmp_path / "03_primary" / "predictions", "predictions").current()
    rows = duckdb.sql(
        "SELECT prediction_id, model_version FROM read_parquet("
        f"{[str(part) for part in parts]}, union_by_name = true) "
        "WHERE source = 'online'"
    ).fetchall()
    assert len(rows) == len(set(rows)) == len(answers)
    assert set(rows) == {(answer.prediction_id, answer.version) for answer in answers}
