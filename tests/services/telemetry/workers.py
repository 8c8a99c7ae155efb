"""What the tests of the collector are made of, and the processes that they kill."""

import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from active_learning.errors import FrozenError, SinkAwayError, SpoolFullError
from active_learning.imaging.archive import ImageArchive, NamedImage
from active_learning.imaging.writing import png_bytes
from active_learning.services.telemetry.collector import (
    Collector,
    CollectorSettings,
    Prediction,
)
from active_learning.services.telemetry.local import LocalTelemetry
from active_learning.services.telemetry.parts import Parts
from active_learning.services.telemetry.spool import Spool

ROOT = Path(__file__).parents[3]
SETTINGS = CollectorSettings(
    batch_rows=20,
    linger_s=0.005,
    back_off_min_s=0.01,
    back_off_max_s=0.1,
    part_rows=100,
)
NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


class FolderSink:
    """A table as Parquet parts; away as long as it is told to be.

    Attributes:
        ids: What was appended, in its order.
        attempts: How often somebody tried.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.away = False
        self.attempts = 0
        self.ids: list[str] = []

    def append(self, table: str, rows: pa.Table, batch: str) -> None:
        self.attempts += 1
        if self.away:
            raise SinkAwayError("The table at https://x?sig=secret cannot be reached.")
        Parts(self.folder / table, table).append(rows, batch)
        self.ids += rows.column("prediction_id").to_pylist()


def prediction(name: str, scored_at: datetime = NOON) -> Prediction:
    """Of the image ``<name>.png``; its id is the name."""
    return Prediction.of(
        f"{name}.png",
        [0.25, 0.75],
        ["cat", "dog"],
        model_name="small_cnn",
        model_version=1,
        source="online",
        scored_at=scored_at,
        prediction_id=name,
    )


def spool(folder: Path, max_rows: int = 100_000) -> Spool:
    return Spool(folder / "spool" / "predictions.db", max_rows)


def collector(folder: Path, sink: FolderSink | None = None) -> Collector:
    return Collector(spool(folder), sink or FolderSink(folder), SETTINGS)


def png(number: int) -> bytes:
    """A file of noise; each number is another one."""
    noise = np.random.default_rng(number).integers(0, 256, (20, 20), dtype=np.uint8)
    return png_bytes(noise, 1)


def archiving(
    folder: Path,
    archive: type[ImageArchive] = ImageArchive,
    sink: FolderSink | None = None,
    **changed: Any,
) -> Collector:
    """One that keeps images and delivers when it is told to; its thread has ended."""
    waiting = Spool(folder / "spool.db", **{"max_rows": 100_000, **changed})
    kept = archive(str(folder / "images"))
    collecting = Collector(waiting, sink or FolderSink(folder), SETTINGS, kept)
    collecting.close(0)
    return collecting


def delivered(folder: Path) -> list[str]:
    """Ids of all rows in all parts, sorted: one that lies there twice is told twice."""
    parts = Parts(folder / "predictions", "predictions").current()
    return sorted(
        name
        for part in parts
        for name in pq.read_table(part)["prediction_id"].to_pylist()
    )


def say(word: str) -> None:
    """To the test, at once: nothing waits in a buffer that a SIGKILL takes."""
    os.write(1, f"{word}\n".encode())


def collect(folder: Path, prefix: str, n: str) -> None:
    """Collect and tell each acknowledgement."""
    collecting = collector(folder)
    for number in range(int(n)):
        say(collecting.collect(prediction(f"{prefix}-{number}")))
    collecting.close(60)


def die_after_append(folder: Path) -> None:
    """Deliver a batch and be killed before that is noted down."""

    class Deadly(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            super().append(table, rows, batch)
            os.kill(os.getpid(), signal.SIGKILL)

    collector(folder, Deadly(folder)).drain_once()


def fill_the_disk(folder: Path) -> None:
    """Put until a file may not grow, then until it may."""
    waiting = spool(folder)
    waiting.put(["0"])
    say("0")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
    try:
        for number in range(1, 10_000):
            waiting.put([f"{number}", "x" * 1000])
            say(f"{number}")
    except SpoolFullError as exc:
        say(f"told: {exc}")
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    waiting.put(["last"])
    say("last")


def fill_the_journal(folder: Path) -> None:
    """Put row by row until no file may grow, then until it may."""
    waiting = spool(folder)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
    try:
        for number in range(10_000):
            row = f"{number}:{'x' * 1000}"
            waiting.put([row])
            say(row)
    except SpoolFullError as exc:
        say(f"told: {exc}")
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    waiting.put(["last"])
    say("last")


def collect_images(folder: Path, first: str) -> None:
    """Collect images for ever, and deliver."""
    kept = ImageArchive(str(folder / "images"))
    waiting = Spool(folder / "spool.db", 100_000)
    collecting = Collector(waiting, FolderSink(folder), SETTINGS, kept)
    for number in count(int(first)):
        say(collecting.collect(prediction(f"{number}"), png(number)))


def die_while_archiving(folder: Path) -> None:
    """Collect three images, and be killed when the first of them is archived."""

    class Deadly(ImageArchive):
        def keep(self, images: Sequence[NamedImage]) -> list[FrozenError]:
            super().keep(images[:1])
            os.kill(os.getpid(), signal.SIGKILL)
            return []

    collecting = archiving(folder, Deadly)
    for number in range(3):
        say(collecting.collect(prediction(f"{number}"), png(number)))
    collecting.drain_once()


def fill_the_images(folder: Path) -> None:
    """Collect images until no file may grow, then until it may."""
    collecting = archiving(folder)
    say(collecting.collect(prediction("first")))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        for number in range(10_000):
            say(collecting.collect(prediction(f"{number}"), png(number)))
    except SpoolFullError as exc:
        say(f"told: {exc}")
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    say(collecting.collect(prediction("99999"), png(99999)))


def jump_back(folder: Path) -> None:
    """Collect while every look at the clock finds it an hour earlier."""
    now_s = time.time()

    def earlier() -> float:
        nonlocal now_s
        now_s -= 3600
        return now_s

    time.time = earlier
    time.time_ns = lambda: int(earlier() * 1e9)
    sink = FolderSink(folder)
    sink.away = True
    with collector(folder, sink) as collecting:
        for number in range(50):
            moment = NOON - timedelta(hours=number)
            collecting.collect(prediction(f"{number:02}", moment))
        while sink.attempts < 3:
            time.sleep(0.001)
        sink.away = False
        while collecting.status()["waiting"]:
            time.sleep(0.001)
    say(",".join(sink.ids))

    class Slow(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            time.sleep(0.02)

    waiting = spool(folder)
    waiting.put([prediction(f"{n}").to_json() for n in range(2000)])
    stay = Collector(waiting, Slow(folder), SETTINGS).close(timeout_s=0.1)
    say("in time" if stay else "too late")


def fork(folder: Path) -> None:
    """Collect, fork while the thread is at it, and collect on both sides."""
    collecting = collector(folder)
    collecting.collect(prediction("before"))
    children = []
    for child in range(3):
        pid = os.fork()
        if not pid:
            for number in range(100):
                collecting.collect(prediction(f"child-{child}-{number}"))
            say(f"{child}: {collecting.status()['running']}")
            os.kill(os.getpid(), signal.SIGKILL)
        children.append(pid)
    collecting.close(60)
    for number in range(100):
        collecting.collect(prediction(f"parent-{number}"))
        collecting.close(10)
    for pid in children:
        os.waitpid(pid, 0)


def deliver(folder: Path) -> None:
    """Say what a delivery imports that its collector had not."""
    waiting, sink = spool(folder), LocalTelemetry(folder)
    collecting = Collector(waiting, sink, SETTINGS)
    waiting.put([prediction("a").to_json()])
    before = set(sys.modules)
    collecting.drain_once()
    say(f"imported: {sorted(set(sys.modules) - before)}")


def fork_and_close(folder: Path) -> None:
    """Put, fork, close in the parent while the child goes on, and kill the child."""
    waiting = spool(folder)
    waiting.put(["parent"])
    to_parent, of_child = os.pipe()
    to_child, of_parent = os.pipe()
    child = os.fork()
    if not child:
        waiting.put(["child"])
        os.write(of_child, b".")
        os.read(to_child, 1)
        waiting.put(["child, later"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.read(to_parent, 1)
    waiting.close()
    os.write(of_parent, b".")
    os.waitpid(child, 0)


def fork_under_load(folder: Path) -> None:
    """Fork again and again while other threads hold every lock there is."""
    collecting = collector(folder)

    def collect_for_ever(thread: int) -> None:
        for number in count():
            collecting.collect(prediction(f"thread-{thread}-{number}"))

    for thread in range(2):
        Thread(target=collect_for_ever, args=(thread,), daemon=True).start()
    for number in range(20):
        child = os.fork()
        if not child:
            signal.alarm(60)
            say(collecting.collect(prediction(f"child-{number}")))
            os._exit(0)
        os.waitpid(child, 0)
    os._exit(0)


def fork_while_delivering(folder: Path) -> None:
    """Fork while the thread is in the middle of a batch, and be killed."""
    parent, under_way = os.getpid(), Event()

    class Hanging(FolderSink):
        def append(self, table: str, rows: pa.Table, batch: str) -> None:
            if os.getpid() == parent:
                under_way.set()
                time.sleep(60)
            super().append(table, rows, batch)

    collecting = collector(folder, Hanging(folder))
    collecting.collect(prediction("a"))
    under_way.wait()
    if os.fork():
        os.kill(parent, signal.SIGKILL)
    signal.alarm(60)
    while not collecting.drain_once():
        time.sleep(0.001)
    say("delivered")


def fork_while_draining(folder: Path) -> None:
    """Claim, fork a child that lives on, and be killed."""
    waiting = spool(folder)
    waiting.put(["{}"])
    waiting.claim(1)
    child = os.fork()
    if not child:
        os.closerange(0, 3)  # or the test would wait for it
        time.sleep(60)
        os._exit(0)
    say(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


WORKERS = {
    worker.__name__: worker
    for worker in (
        collect,
        collect_images,
        deliver,
        die_after_append,
        die_while_archiving,
        fill_the_disk,
        fill_the_images,
        fill_the_journal,
        fork,
        fork_and_close,
        fork_under_load,
        fork_while_delivering,
        fork_while_draining,
        jump_back,
    )
}

if __name__ == "__main__":
    WORKERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
