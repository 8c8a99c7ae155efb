"""An export that comes in is trained on, once."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import mlflow
import pandas as pd
import pytest

from active_learning.services.deployment.state import read_state
from active_learning.services.triggers.ledger import read_ledger

PROJECT = Path(__file__).parents[1]
SMALL = (
    "train.preprocessing.height=8,train.preprocessing.width=8,train.network.width=8,"
    "train.recipe.min_steps=60,train.recipe.augmentation.flip=false,"
    "train.recipe.augmentation.crop=1,train.recipe.augmentation.erase=0"
)


def kedro(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )


class Watched:
    """A ``kedro watch`` that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, what: Callable[[], bool], described: str) -> None:
        end = time.monotonic() + 900
        while not what():
            assert self.process.poll() is None, f"it ended\n{self.log[-3000:]}"
            assert time.monotonic() < end, f"no {described}\n{self.log[-3000:]}"
            time.sleep(0.05)

    def wait_for_words(self, text: str) -> None:
        self.wait_for(lambda: text in self.log, f"{text!r}")


@contextmanager
def watching(data: Path, params: str, log: IO[bytes]) -> Iterator[Watched]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kedro", "watch", "--params", params],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield Watched(process, Path(log.name))
    finally:
        process.terminate()
        process.wait(120)


def answers(data: Path, digits: Path, every: int) -> str:
    """What a labeler says of some images, as the text of a CSV file."""
    frozen = pd.read_parquet(data / "05_model_input/test_sets/digits.parquet")
    held_out = set(frozen["image_id"])
    pool = sorted(p.relative_to(digits).as_posix() for p in digits.glob("*/*.png"))
    asked = [image for image in pool if image not in held_out][::every]
    labels = pd.DataFrame({"image_id": asked, "label": [n[0] for n in asked]})
    return str(labels.to_csv(index=False))


@pytest.mark.slow
def test_an_export_is_trained_on_once(digits: Path, tmp_path: Path) -> None:
    params = f"images={digits},{SMALL},watch.settle_s=1,watch.poll_s=0.2"
    exports = tmp_path / "01_raw" / "label_exports"
    exports.mkdir(parents=True)
    ran = kedro(
        tmp_path, "run", "--pipelines", "test-set", "--params", f"images={digits}"
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    monday = answers(tmp_path, digits, every=15)
    log = tmp_path / "watch.log"
    ledger = tmp_path / "02_intermediate/watch/exports.json"

    with log.open("wb") as stream, watching(tmp_path, params, stream) as watched:
        watched.wait_for_words("Ctrl-C ends it")
        second = kedro(tmp_path, "watch", "--once", "--params", params)
        assert second.returncode == 1
        assert "Another process keeps" in second.stderr

        (exports / "monday.csv").write_text(monday)
        watched.wait_for_words("Took in monday.csv")
        champion = read_state(tmp_path / "06_models/endpoint").champion
        assert champion is not None
        assert champion.model_version == 1

        # The same again, under the same name and under another one.
        (exports / "monday.csv").write_text(monday)
        (exports / "again.csv").write_text(monday)
        watched.wait_for_words("again.csv holds the same as monday.csv")
        watched.process.send_signal(signal.SIGINT)
        assert watched.process.wait(60) == 0
        assert "No longer watching" in watched.log

    assert set(read_ledger(ledger).taken_in) == {"monday.csv", "again.csv"}
    assert log.read_text().count("Trained version") == 1
    assert runs(tmp_path) == 1

    # Another watcher, which is told to look once, knows it too.
    nothing = kedro(tmp_path, "watch", "--once", "--params", params)
    assert nothing.returncode == 0
    assert "There is no new export" in nothing.stderr
    assert runs(tmp_path) == 1
    with ledger.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
def test_a_run_that_fails_is_told_by_the_exit_code(
    digits: Path, tmp_path: Path
) -> None:
    exports = tmp_path / "01_raw" / "label_exports"
    exports.mkdir(parents=True)
    (exports / "early.csv").write_text("image_id,label\n0/0000.png,0\n")

    # There is no test set yet.
    ran = kedro(
        tmp_path,
        *("watch", "--once"),
        *("--params", f"images={digits},watch.settle_s=0,watch.attempts=1"),
    )

    assert ran.returncode == 1
    assert "early.csv set aside: 1 runs have failed with it" in ran.stderr
    assert "The pipeline 'test-set' freezes a test set" in ran.stdout + ran.stderr


def runs(data: Path) -> int:
    """How many runs of the three pipelines are in the books."""
    client = mlflow.MlflowClient(f"sqlite:///{data}/mlflow.db")
    experiment = client.get_experiment_by_name("active-learning-loop")
    found = client.search_runs([experiment.experiment_id])
    return sum("deploy.decision" in run.data.tags for run in found)
