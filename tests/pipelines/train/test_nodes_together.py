"""Several machines train one model: each is a process here, on one port of loopback."""

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch

PROJECT = Path(__file__).parents[3]
PATIENCE_S = 300
SMALL = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 4,
    "train.recipe.min_steps": 20,
    "train.recipe.min_epochs": 1,
    "train.recipe.batch_size": 16,
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 2,
    "train.hardware.accelerator": "cpu",
    "train.hardware.strategy": "ddp",
}
# `kedro join-training`, whether or not Kedro lists it.
JOIN = """
from pathlib import Path
from kedro.framework.startup import bootstrap_project
from active_learning.pipelines.train.cli import join_training
if __name__ == "__main__":
    join_training(obj=bootstrap_project(Path.cwd()))
"""


class Node:
    """One machine: its own data folder, told where to meet the others as Azure ML does.

    Args:
        data: Its folder.
        images: The labeled images.
        rank: 0 is the first.
        port: Where the first listens.
    """

    def __init__(self, data: Path, images: Path, rank: int, port: int) -> None:
        self.data = data
        self.images = images
        meeting = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "NODE_RANK": rank,
            "RANK": rank,
            "LOCAL_RANK": 0,
            "WORLD_SIZE": 2,
        }
        self.meeting = {name: str(value) for name, value in meeting.items()}
        self.process: subprocess.Popen[str] | None = None

    def start(self, command: list[str], **params: object) -> "Node":
        typed = {"images": self.images, **SMALL, **params}
        told = ",".join(f"{key}={value}" for key, value in typed.items())
        with (self.data / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "--params", told],
                cwd=PROJECT,
                env={
                    **os.environ,
                    **self.meeting,
                    "AL_DATA": str(self.data),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self

    def train(self, **params: object) -> "Node":
        return self.start(["-m", "kedro", "run", "--pipelines", "train"], **params)

    def join(self, **params: object) -> "Node":
        script = self.data / "join.py"
        script.write_text(JOIN)
        return self.start([str(script)], **params)

    def finish(self) -> int:
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return (self.data / "log.txt").read_text()

    @property
    def challenger(self) -> Path:
        return self.data / "06_models" / "challenger.ckpt"

    def files(self) -> dict[str, bytes]:
        """What there is but for caches, logs and what starts the node itself."""
        return {
            path.relative_to(self.data).as_posix(): path.read_bytes()
            for path in self.data.rglob("*")
            if path.is_file()
            and path.name not in ("log.txt", "join.py")
            and "02_intermediate" not in path.parts
        }

    def weights(self) -> dict[str, torch.Tensor]:
        kept = torch.load(self.challenger, weights_only=True)
        weights: dict[str, torch.Tensor] = kept["state_dict"]
        return weights


@pytest.fixture(scope="module")
def labeled(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a training set of 120 digits and a test set."""
    data = tmp_path_factory.mktemp("labeled")
    first = Node(data, digits, 0, 1)
    run = ["-m", "kedro", "run", "--pipelines"]
    assert first.start([*run, "test-set"]).finish() == 0, first.log
    held_out = set(pd.read_parquet(next(data.rglob("test_sets/*.parquet")))["image_id"])
    names = sorted(
        path.relative_to(digits).as_posix() for path in digits.rglob("*.png")
    )
    chosen = [name for name in names if name not in held_out][::13]
    exports = data / "01_raw" / "label_exports"
    exports.mkdir(parents=True)
    labels = pd.DataFrame({"image_id": chosen, "label": [name[0] for name in chosen]})
    labels.to_csv(exports / "first.csv", index=False)
    assert first.start([*run, "label-ingest"]).finish() == 0, first.log
    return data


@pytest.fixture
def node(labeled: Path, digits: Path, tmp_path: Path) -> type[Node]:
    """Makes machines that see the same training set, each with files of its own."""
    port = free_port()

    class Prepared(Node):
        def __init__(self, name: str, rank: int) -> None:
            shutil.copytree(labeled, tmp_path / name)
            super().__init__(tmp_path / name, digits, rank, port)

    return Prepared  # type: ignore[return-value]  # it takes a name in place of a place


def free_port() -> int:
    # Below those that the system gives away by itself: it is taken a while later.
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("100 ports are taken")


def runs(node: Node) -> int:
    client = mlflow.MlflowClient(f"sqlite:///{node.data}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    return len(client.search_runs(experiments))


@pytest.mark.slow
def test_two_nodes_train_what_two_processes_of_one_node_train(
    node: type[Node],
) -> None:
    first, other, alone = node("first", 0), node("other", 1), node("alone", 0)
    before, n_runs = other.files(), runs(other)
    several = {"train.hardware.nodes": 2, "train.hardware.devices": 1}

    other.join(**several)
    first.train(**several)
    assert first.finish() == 0, first.log[-3000:]
    assert other.finish() == 0, other.log[-3000:]
    one_node = {"train.hardware.nodes": 1, "train.hardware.devices": 2}
    assert alone.train(**one_node).finish() == 0, alone.log[-3000:]

    # One model, of all images in the shares that two processes have.
    ours, theirs = first.weights(), alone.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[k].double(), theirs[k].double()) for k in ours)
    # One machine has written, the other nothing at all.
    assert (first.data / "08_reporting" / "evaluation.json").exists()
    assert other.files() == before
    assert runs(other) == n_runs
    assert runs(first) == n_runs + 1


@pytest.mark.slow
def test_nodes_that_would_train_on_other_labels_end_both(node: type[Node]) -> None:
    first, other = node("first", 0), node("other", 1)
    several = {"train.hardware.nodes": 2, "train.hardware.devices": 1}

    other.join(**several, **{"train.recipe.learning_rate": 0.001})
    first.train(**several)

    assert first.finish() != 0
    assert other.finish() != 0
    for one in (first, other):
        assert "other labels or by other settings" in one.log
        assert not one.challenger.exists()


def test_the_first_node_does_not_join(labeled: Path, digits: Path) -> None:
    first = Node(labeled, digits, 0, 1)

    assert first.join().finish() != 0
    assert "saves what was trained" in first.log


def test_only_lightning_trains_on_several_nodes(labeled: Path, digits: Path) -> None:
    other = Node(labeled, digits, 1, 1)

    # Another trainer would start a second job.
    assert other.join(**{"train.trainer": "automl"}).finish() != 0
    assert "nodes join the training of 'lightning' alone" in other.log


@pytest.mark.slow
def test_several_nodes_need_a_place_to_meet(node: type[Node]) -> None:
    lonely = node("lonely", 0)
    lonely.meeting = {}

    assert lonely.train(**{"train.hardware.nodes": 2}).finish() != 0
    assert "MASTER_ADDR, MASTER_PORT, NODE_RANK" in lonely.log
    assert "kedro azure-job --nodes" in lonely.log
