"""A workspace that trains: AutoML jobs over the ARM stand-in, and their MLflow runs.

A job reads the data asset that it names and leaves an ONNX model that tells images by
their brightness where AutoML would: in ``train_artifacts`` of its best trial.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import mlflow
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.standins.arm import GROUP, SUBSCRIPTION, WORKSPACE, Answer, Arm, Asked, Fault
from tests.standins.identity import Identity
from tests.test_parameters import configured

from active_learning.pipelines.train.params import TrainParams
from active_learning.services.azure import credential

RESIZE, CROP = 8, 6
PLACE = {"subscription": SUBSCRIPTION, "resource_group": GROUP, "name": WORKSPACE}
SIZES = {"validation_resize_size": RESIZE, "validation_crop_size": CROP}


def network(
    n_labels: int,
    batch: int | None = None,
    ending: str | None = None,
    flat: bool = True,
    side: int | None = CROP,
    scale: float = 1.0,
) -> bytes:
    """An image classifier as AutoML exports one: later classes are brighter.

    Args:
        n_labels: Its classes.
        batch: Images at once; ``None`` for any number.
        ending: An operation behind the logits.
        flat: Whether a linear layer gives the logits.
        side: Of its input; ``None`` for any.
        scale: Of its weights.
    """
    steps = np.linspace(-1, 1, n_labels, dtype=np.float32)[:, None]
    weight = np.repeat(steps, 3, axis=1) * scale
    bias = (0.4 * np.abs(steps[:, 0]) * scale).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["input1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    logits = "output1" if ending is None else "logits"
    last = [
        helper.make_node("Gemm", ["features", "weight", "bias"], [logits], transB=1)
    ]
    if not flat:
        last = [
            helper.make_node(
                "Gemm", ["features", "weight", "bias"], ["linear"], transB=1
            ),
            helper.make_node("Tanh", ["linear"], [logits]),
        ]
    if ending is not None:
        last.append(helper.make_node(ending, [logits], ["output1"], axis=1))
    size = side if side is not None else "side"
    shape = [batch if batch is not None else "batch_size", 3, size, size]
    graph = helper.make_graph(
        [*nodes, *last],
        "torch_jit",
        [helper.make_tensor_value_info("input1", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(
                "output1", TensorProto.FLOAT, [shape[0], n_labels]
            )
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    opsets = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=7)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Cluster:
    """Trains what is submitted to a workspace.

    Args:
        arm: Whose jobs are trained.
        runs: A folder for the artifacts of their runs.

    Attributes:
        statuses: What the next looks at a job see; then it is completed.
        reason: What a job that failed says.
        network: Makes the model of a number of classes.
        artifacts: What a trial leaves; all that AutoML writes by default.
        names_best: Whether the job names its best trial.
        silences: What the first looks at a job that was submitted get instead.
    """

    def __init__(self, arm: Arm, runs: Path) -> None:
        """Answer for jobs and runs from now on."""
        self.arm = arm
        self.statuses: list[str] = []
        self.reason = ""
        self.network: Callable[[int], bytes] = network
        self.artifacts: Sequence[str] = ("model.onnx", "labels.json")
        self.names_best = True
        self.silences: list[Fault] = []
        self._runs = runs
        self._seen: dict[str, str] = {}
        arm.add("GET", r"/jobs/([^/]+)", self._look)
        arm.add("GET", r"/api/2\.0/mlflow/runs/get", self._run)
        arm.add("POST", r"/api/2\.0/mlflow/runs/search", self._search)

    @property
    def submitted(self) -> list[Any]:
        """The bodies of the jobs, in order."""
        return [asked.body for asked in self.arm.asked("PUT", r"/jobs/[^/]+")]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """What each job was to train by."""
        return [
            body["properties"]["taskDetails"]["modelSettings"]
            for body in self.submitted
        ]

    def _look(self, asked: Asked) -> Answer:
        name = asked.found[0]
        job = self.arm.workspace.jobs.get(name)
        if job is None:
            self.arm.faults.extend(self.silences)
            self.silences = []
            return Answer(404, {"error": {"code": "NotFound", "message": name}})
        if self._seen.get(name) not in ("Completed", "Failed", "Canceled"):
            self._seen[name] = self.statuses.pop(0) if self.statuses else "Completed"
            if self._seen[name] == "Completed":
                self._train(name, job)
        shown = {**job["properties"], "status": self._seen[name]}
        shown["services"] = {
            "Studio": {
                "jobServiceType": "Studio",
                "endpoint": f"https://ml.azure.com/runs/{name}",
            }
        }
        if self.reason:
            shown["properties"] = {"errors": self.reason}
        return Answer(200, {**job, "properties": shown})

    def _train(self, name: str, job: dict[str, Any]) -> None:
        uri = job["properties"]["taskDetails"]["trainingData"]["uri"]
        asset, version = uri.split("/data/")[1].split("/versions/")
        path = self.arm.workspace.assets["data", asset][version]["properties"][
            "dataUri"
        ]
        table = Path("/", path.split("/paths/")[1], "annotations.jsonl")
        lines = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
        labels = sorted({line["label"] for line in lines})
        folder = self._runs / _trial(name) / "train_artifacts"
        folder.mkdir(parents=True)
        left = {
            "model.onnx": self.network(len(labels)),
            "labels.json": json.dumps(labels).encode(),
        }
        for file in self.artifacts:
            (folder / file).write_bytes(left[file])

    def _run(self, asked: Asked) -> Answer:
        name = asked.query["run_id"]
        tags = {}
        if self.names_best and not name.endswith("_0"):
            tags = {"automl_best_child_run_id": _trial(name)}
        return Answer(200, {"run": self._shown(name, tags, {})})

    def _search(self, asked: Asked) -> Answer:
        job = asked.body["filter"].split("'")[1]
        known = (self._runs / _trial(job)).exists()
        metrics = {"accuracy": 0.9}
        runs = [self._shown(_trial(job), {}, metrics)] if known else []
        return Answer(200, {"runs": runs})

    def _shown(
        self, name: str, tags: dict[str, str], metrics: dict[str, float]
    ) -> dict[str, Any]:
        return {
            "info": {
                "run_id": name,
                "run_uuid": name,
                "experiment_id": "1",
                "status": "FINISHED",
                "lifecycle_stage": "active",
                "artifact_uri": (self._runs / name).as_uri(),
            },
            "data": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
                "metrics": [
                    {"key": key, "value": value, "timestamp": 0, "step": 0}
                    for key, value in metrics.items()
                ],
            },
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        mlflow.set_tracking_uri(None)


@pytest.fixture
def cluster(
    arm: Arm, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A workspace that the real clients of this process find by its variables."""
    for name, value in {**arm.environment(), **identity.environment()}.items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    mlflow.set_tracking_uri(arm.url)
    with Cluster(arm, tmp_path / "runs") as trains:
        yield trains
    credential.cache_clear()


def automl_params(**changes: Any) -> TrainParams:
    """What conf/base says, with a workspace and a job that is over in a moment."""
    train = configured("train")
    train["automl"] |= {"workspace": PLACE, "poll_s": 0.01, "timeout_minutes": 1}
    train["automl"]["hyperparameters"] |= {"model_name": "vitb16r224", **SIZES}
    train["automl"] |= changes.pop("automl", {})
    return TrainParams.model_validate({**train, "trainer": "automl", **changes})


def _trial(job: str) -> str:
    return f"{job}_0"
