"""The service under gunicorn: several processes, killed and told to end."""

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.services.scoring.serving import (
    LIMITS,
    make_release,
    picture,
    put_up,
    table,
    told,
)

from active_learning.services.scoring.settings import SETTINGS

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a promise; the time is there to fail and not to measure."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


class Server:
    """A gunicorn on the loopback."""

    def __init__(self, folder: Path, settings: str, workers: int) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
                    *("--bind", f"127.0.0.1:{self.port}", "--workers", str(workers)),
                    *("--worker-class", "gthread", "--threads", "4"),
                    *("--graceful-timeout", "20"),
                    "active_learning.services.scoring.wsgi:create_app()",
                ],
                cwd=ROOT,
                env={**os.environ, SETTINGS: settings},
                stdout=log,
                stderr=log,
            )

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def score(self, number: int = 0) -> dict[str, Any]:
        status, said = self.ask(
            "POST", "/score", picture(number), **{"Content-Type": "image/png"}
        )
        assert status == 200, said
        answer: dict[str, Any] = said
        return answer

    def status(self, path: str = "/") -> int:
        """Of a GET; 0 while nobody listens."""
        try:
            return self.ask("GET", path)[0]
        except OSError:
            return 0

    def workers(self) -> set[int]:
        children = psutil.Process(self.process.pid).children()
        return {child.pid for child in children}


@contextmanager
def serving(folder: Path, workers: int = 2, **changes: Any) -> Iterator[Server]:
    server = Server(folder, told(folder, **changes), workers)
    try:
        until(lambda: server.status() in (200, 503) or server.process.poll())
        assert server.process.poll() is None, server.log.read_text()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


def test_two_processes_answer_and_take_over_a_release_without_a_restart(
    tmp_path: Path,
) -> None:
    endpoint = tmp_path / "endpoint"
    with serving(tmp_path) as server:
        assert server.status("/ready") == 503

        put_up(endpoint, make_release(endpoint, 1))
        until(lambda: all(server.status("/ready") == 200 for _ in range(20)))
        pids: set[int] = set()
        until(
            lambda: pids.add(server.ask("GET", "/health")[1]["pid"]) or len(pids) == 2
        )  # type: ignore[func-returns-value]
        assert pids == server.workers()
        said = [server.score(number) for number in range(10)]

        put_up(endpoint, make_release(endpoint, 2))
        until(lambda: {server.score()["model_version"] for _ in range(20)} == {2})
        assert server.workers() == pids

    assert {one["model_version"] for one in said} == {1}
    rows = table(tmp_path).to_pylist()
    assert {row["prediction_id"] for row in rows} >= {s["prediction_id"] for s in said}
    assert (endpoint / "workers").exists()
    assert not list((endpoint / "workers").glob("*.json"))


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    endpoint = tmp_path / "endpoint"
    put_up(endpoint, make_release(endpoint, 1))
    acknowledged: list[str] = []
    images: dict[str, int] = {}
    cut_off: list[Exception] = []
    done = threading.Event()
    numbers = itertools.count()

    with serving(tmp_path) as server:
        until(lambda: len(server.workers()) == 2)
        until(lambda: all(server.status() == 200 for _ in range(20)))

        def ask() -> None:
            while not done.is_set():
                number = next(numbers)
                try:
                    said = server.score(number)
                except (OSError, http.client.HTTPException) as exc:
                    cut_off.append(exc)
                else:
                    assert said["collected"]
                    images[said["image_id"]] = number
                    acknowledged.append(said["prediction_id"])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) > 50)
        victim = min(server.workers())
        os.kill(victim, signal.SIGKILL)
        answered = len(acknowledged)
        until(lambda: len(acknowledged) > answered + 100)
        until(lambda: len(server.workers() - {victim}) == 2)
        done.set()
        for thread in threads:
            thread.join()

    # At most one request a thread of the killed process was under way, and another
    # waited for each in its queue.
    assert len(cut_off) <= 8
    arrived = table(tmp_path)["prediction_id"].to_pylist()
    assert set(arrived) >= set(acknowledged)
    assert len(set(arrived)) <= len(acknowledged) + len(cut_off)
    for image_id, number in images.items():
        assert (tmp_path / "images" / image_id).read_bytes() == picture(number)


def test_the_end_delivers_what_was_collected(tmp_path: Path) -> None:
    endpoint = tmp_path / "endpoint"
    put_up(endpoint, make_release(endpoint, 1))
    # So long a pause between deliveries that only the end can be one.
    slow = {"linger_s": 3600.0}
    with serving(tmp_path, workers=1, collector=slow) as server:
        until(lambda: server.status() == 200)
        # The first look at the spool is behind the delivering thread.
        until(lambda: server.ask("GET", "/health")[1]["collector"]["running"])
        said = [server.score(number)["prediction_id"] for number in range(20)]
        waiting = server.ask("GET", "/health")[1]["collector"]["waiting"]

    assert waiting >= 19
    assert server.process.returncode == 0
    assert sorted(table(tmp_path)["prediction_id"].to_pylist()) == sorted(said)


def test_a_body_without_a_length_is_bounded_too(tmp_path: Path) -> None:
    endpoint = tmp_path / "endpoint"
    put_up(endpoint, make_release(endpoint, 1))

    def chunked(port: int, chunks: list[bytes]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(
            "POST",
            "/score",
            iter(chunks),
            {"Content-Type": "image/png"},
            encode_chunked=True,
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    with serving(tmp_path, workers=1) as server:
        until(lambda: server.status() == 200)
        content = picture()
        whole = chunked(server.port, [content[:10], content[10:]])
        endless = chunked(server.port, [b"x" * 1_000] * 300)
        assert server.score()

    assert LIMITS["body_bytes"] < 300_000
    assert whole[0] == 200
    assert (endless[0], set(endless[1])) == (413, {"error"})


def test_processes_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    server = Server(tmp_path, "{}", workers=1)

    assert server.process.wait(60) != 0
    assert "AL_SERVING cannot be used" in server.log.read_text()


@pytest.mark.slow
def test_nothing_fails_while_releases_change_under_load(tmp_path: Path) -> None:
    endpoint = tmp_path / "endpoint"
    one, two = make_release(endpoint, 1), make_release(endpoint, 2)
    put_up(endpoint, one)
    said: dict[str, int] = {}
    failed: list[Any] = []
    done = threading.Event()

    with serving(tmp_path) as server:
        until(lambda: len(server.workers()) == 2)
        until(lambda: all(server.status() == 200 for _ in range(20)))

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            while not done.is_set():
                headers = {"Content-Type": "image/png"}
                connection.request("POST", "/score", picture(), headers)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status == 200 and body["collected"]:
                    said[body["prediction_id"]] = body["model_version"]
                else:
                    failed.append(body)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for share in (100, 90, 50, 10, 0, 50, 100):
            put_up(endpoint, one, two, traffic=share)
            n = len(said)
            until(lambda before=n: len(said) > before + 200)
        done.set()
        for thread in threads:
            thread.join()

    assert not failed
    assert set(said.values()) == {1, 2}
    rows = table(tmp_path).to_pylist()
    assert len(rows) == len(said)
    assert {row["prediction_id"]: row["model_version"] for row in rows} == said
