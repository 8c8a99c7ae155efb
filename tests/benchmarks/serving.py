"""What the scoring service costs beside its server and its model.

One gunicorn worker of four threads with the small network on 28 x 28 images; a client
on the loopback. The same service runs twice, with collection and without, and is asked
in turns: the time that a request takes in a row of them and its 99th percentile, the
one by the other. A ratio of 1.11 is 0.9 of the throughput. A row of requests takes
longer than the pause between deliveries, so that deliveries fall into it at their own
rate, and the other service is asked when nothing waits any more, so that none falls on
it. It is told for images of the store, for images that come with the request and are
there already, and for such that are new each time: a file is written for each. Beside
them, without a goal: the processor time of a server, with all that it does behind its
answers, which what else the machine does hardly changes.

The service's own share is what ``run()`` takes without the model's answer, by what the
server and the model take together. Cold start is from the start of gunicorn to the
first 200 of ``GET /``, by ``import torch`` in a fresh interpreter: 3 s where that takes
2 is 1.5.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image
from tests.benchmarks.stage import ROOT, run, tell, tell_ratio

GOAL_TIME = 1 / 0.9
GOAL_P99 = 1.3
GOAL_SHARE = 1.0
GOAL_START = 1.5

_PNG = {"Content-Type": "image/png"}
_JSON = {"Content-Type": "application/json"}
_BLOCKS = 3
_LINGER_S = 2
_NAMES = {"mean": "time", "p99": "p99", "cpu": "processor time"}


class Server(NamedTuple):
    """One that is ready."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """Processor time of its workers so far, and of what they have started."""
        every = self.process.children(recursive=True)
        times = [worker.cpu_times() for worker in every]
        return sum(one.user + one.system for one in times)


class Asked(NamedTuple):
    """What some requests took, one after another."""

    mean_s: float
    p99_s: float
    median_s: float
    run_s: float  # in run(), the median
    cpu_s: float  # of the server, until nothing waits any more


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    n = 200 if quick else 3000
    release = prepare(folder)
    generator = np.random.default_rng(0)
    known = picture(generator)
    (folder / "images" / "a.png").write_bytes(known)
    stored = b'{"image_id": "a.png"}'
    cases = {
        "an image of the store": (_JSON, lambda: [stored] * n),
        "an image that was sent before": (_PNG, lambda: [known] * n),
        "a new image": (_PNG, lambda: [picture(generator) for _ in range(n)]),
    }
    starts = [cold_start(folder) for _ in range(repetitions)]
    shares = []
    tell("serving: one worker, one image, collected / not collected")
    with serving(folder, collect=True) as ours, serving(folder, collect=False) as bare:
        for what, (headers, bodies) in cases.items():
            for server in (ours, bare):
                ask(server, bodies()[:200], headers)
            pairs = []
            for number in range(repetitions * _BLOCKS):
                asked = bodies()
                if number % 2:
                    second = ask(bare, asked, headers)
                    pairs.append((ask(ours, asked, headers), second))
                else:
                    first = ask(ours, asked, headers)
                    pairs.append((first, ask(bare, asked, headers)))
            ours_s, bare_s = zip(*pairs, strict=True)
            for of, goal in (("mean", GOAL_TIME), ("p99", GOAL_P99), ("cpu", None)):
                values = [
                    getattr(a, f"{of}_s") / getattr(b, f"{of}_s") for a, b in pairs
                ]
                tell_ratio(f"{_NAMES[of]}, {what}", values, goal)
            model_s = answer_s(release, 200)
            shares.append((what, [own(one, model_s) for one in ours_s]))
            shares.append((f"{what}, bare", [own(one, model_s) for one in bare_s]))
    tell("serving: the service's own share / the server's and the model's")
    for what, values in shares:
        tell_ratio(what, values, GOAL_SHARE)
    tell("serving: cold start / import torch")
    tell_ratio("to ready", starts, GOAL_START)


def own(asked: Asked, model_s: float) -> float:
    """The service's share of a request by the rest of it."""
    service_s = asked.run_s - model_s
    return service_s / (asked.median_s - service_s)


def prepare(folder: Path) -> Path:
    """A network in production; its folder."""
    from tests.learning.builders import digits, untrained

    from active_learning.services.deployment.state import (
        EndpointState,
        Release,
        write_state,
    )
    from active_learning.services.scoring.export import export
    from active_learning.services.scoring.model import InferenceModel

    (folder / "images").mkdir()
    endpoint = folder / "endpoint"
    place = endpoint / "releases" / "one"
    examples, _ = digits(0, 8)
    export(untrained([f"class {n}" for n in range(10)]), examples, place)
    model = InferenceModel.load(place)
    release = Release(
        name="one",
        model_name=model.model_name,
        model_version=model.version,
        fingerprint=model.fingerprint,
    )
    state = EndpointState(
        deployments={"blue": release}, traffic={"blue": 100}, live="blue"
    )
    write_state(endpoint, state)
    return place


def told(folder: Path, collect: bool) -> str:
    """What a service is told, in the shape of ``conf/base/serve``."""
    return json.dumps(
        {
            "endpoint": str(folder / "endpoint"),
            "images": str(folder / "images"),
            "archive": ".online",
            "model_threads": 1,
            "poll_s": 0.2,
            "retry_s": 5,
            "deployment_wait_s": 10,
            "flush_s": 30,
            "limits": {"body_bytes": 10**7, "max_pixels": 10**8, "images": 32},
            "collect": collect,
            "spool": {
                "path": str(folder / "spool.sqlite"),
                "max_rows": 10**6,
                "power_cut_safe": False,
            },
            "telemetry": {"backend": "local", "database": str(folder / "tables")},
            "collector": {
                "batch_rows": 1000,
                "linger_s": _LINGER_S,
                "back_off_min_s": 1,
                "back_off_max_s": 60,
                "part_rows": 250_000,
            },
        }
    )


@contextmanager
def serving(folder: Path, collect: bool) -> Iterator[Server]:
    """A server that is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
            *("--bind", f"127.0.0.1:{port}", "--workers", "1"),
            *("--worker-class", "gthread", "--threads", "4"),
            "active_learning.services.scoring.wsgi:create_app()",
        ],
        cwd=ROOT,
        env={**os.environ, "AL_SERVING": told(folder, collect)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not ready(port):
            if process.poll() is not None:
                raise SystemExit("The server ended before it was ready.")
            time.sleep(0.01)
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def ready(port: int) -> bool:
    """Whether ``GET /`` is a 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(server: Server, bodies: Sequence[bytes], headers: dict[str, str]) -> Asked:
    """Requests on one connection, each when the one before is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    took_s, in_run_ms = [], []
    before_s = server.cpu_s()
    for body in bodies:
        began = time.perf_counter()
        connection.request("POST", "/score", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        took_s.append(time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(said.decode())
        in_run_ms.append(float(answer.headers["x-ms-run-fn-exec-ms"]))
    while waiting(connection):
        time.sleep(0.5)
    connection.close()
    cpu_s = server.cpu_s() - before_s
    p99 = sorted(took_s)[int(len(took_s) * 0.99) - 1]
    mean = sum(took_s) / len(took_s)
    return Asked(mean, p99, median(took_s), median(in_run_ms) / 1000, cpu_s)


def waiting(connection: http.client.HTTPConnection) -> int:
    """How many answers are collected and not delivered yet."""
    connection.request("GET", "/health")
    collector = json.loads(connection.getresponse().read())["collector"]
    return int(collector["waiting"]) if collector else 0


def answer_s(release: Path, n: int) -> float:
    """The median time of the model's answer to one image."""
    from active_learning.services.scoring.model import InferenceModel

    model = InferenceModel.load(release, threads=1)
    pixels = np.zeros((1, 28, 28, 1), dtype=np.uint8)
    took_s = []
    for _ in range(n):
        began = time.perf_counter()
        model.answer(pixels)
        took_s.append(time.perf_counter() - began)
    return median(took_s)


def cold_start(folder: Path) -> float:
    """From the start of gunicorn to ready, by ``import torch``."""
    began = time.perf_counter()
    with serving(folder, collect=True):
        took_s = time.perf_counter() - began
    torch = run([sys.executable, "-c", "import torch"], dict(os.environ))
    return took_s / torch.wall_s


def picture(generator: np.random.Generator) -> bytes:
    """A PNG file of noise, 28 x 28, another one at each call."""
    file = BytesIO()
    noise = generator.integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()
