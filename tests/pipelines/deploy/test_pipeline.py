"""The pipeline is the last turn of the loop, and turns round when it is told to."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from kedro.pipeline import Pipeline
from tests.services.deployment.builders import PROJECT

from active_learning.parameters import announce_parameters
from active_learning.pipeline_registry import LOOP, register_pipelines
from active_learning.pipelines.deploy.pipeline import create_pipeline
from active_learning.services.deployment.state import read_state

SMALL = (
    "train.preprocessing.height=8,train.preprocessing.width=8,train.network.width=8,"
    "train.recipe.min_steps=60,train.recipe.augmentation.flip=false,"
    "train.recipe.augmentation.crop=1,train.recipe.augmentation.erase=0"
)


def names(pipeline: Pipeline) -> list[str]:
    return [node.short_name for node in pipeline.nodes]


@pytest.fixture
def told_to_roll_back() -> Iterator[None]:
    announce_parameters({"deploy": {"rollback": True}})
    yield
    announce_parameters({})


def test_it_goes_from_the_challenger_to_the_decision() -> None:
    announce_parameters({"deploy": {"rollback": False}})

    assert names(create_pipeline()) == [
        "export_challenger",
        "judge_challenger",
        "register_challenger",
        "roll_out_challenger",
        "record_release",
        "raise_failure",
    ]


@pytest.mark.usefixtures("told_to_roll_back")
def test_one_parameter_makes_it_the_way_back() -> None:
    pipeline = create_pipeline()

    assert names(pipeline) == ["roll_back_champion", "record_release", "raise_failure"]
    # A champion that is damaged can be taken back without being read.
    assert not {name for name in pipeline.inputs() if name.startswith("champion")}


def test_a_turn_of_the_loop_ends_with_it() -> None:
    announce_parameters({})
    turn = register_pipelines()["__default__"]
    order = [node.name for node in turn.nodes]

    assert list(LOOP)[-2:] == ["train", "deploy"]
    # Steps meet in these; what needs no other step may come earlier.
    meeting = [
        *("score.score_images", "monitor.ingest_predictions"),
        *("select.rank_candidates", "select.record_requests"),
        *("label_ingest.gather_answers", "label_ingest.build_training_set"),
        *("train.train_challenger", "deploy.export_challenger"),
        "deploy.raise_failure",
    ]
    assert sorted(meeting, key=order.index) == meeting
    assert order[-1] == "deploy.raise_failure"
    # What is in production is the endpoint's, and no node's output.
    written = {name.partition("@")[0] for name in turn.all_outputs()}
    assert "champion" not in written


def kedro(data: Path, pipelines: str, **params: object) -> str:
    """Type a kedro command.

    Returns:
        What it says in the log, after the command has ended well.
    """
    typed = ",".join([SMALL, *(f"{key}={value}" for key, value in params.items())])
    command = ["-m", "kedro", "run", "--pipelines", pipelines, "--params", typed]
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout + ran.stderr


def label(data: Path, digits: Path, name: str, every: int) -> None:
    """Put a labeler's answers to some images of the pool where they come in."""
    frozen = pd.read_parquet(data / "05_model_input/test_sets/digits.parquet")
    held_out = set(frozen["image_id"])
    pool = sorted(p.relative_to(digits).as_posix() for p in digits.glob("*/*.png"))
    asked = [image for image in pool if image not in held_out][::every]
    exports = data / "01_raw" / "label_exports"
    exports.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"image_id": asked, "label": [n[0] for n in asked]})
    table.to_csv(exports / f"{name}.csv", index=False)


def booked(data: Path) -> dict[str, int]:
    """How many runs in MLflow have measured and kept each version."""
    client = mlflow.MlflowClient(f"sqlite:///{data}/mlflow.db")
    experiment = client.get_experiment_by_name("active-learning-loop")
    measured = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if "test/accuracy" in run.data.metrics
    ]
    for run in measured:
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert "challenger.ckpt" in files
    return dict(Counter(run.data.tags["model.version"] for run in measured))


@pytest.mark.slow
def test_models_come_and_go_by_kedro_commands(digits: Path, tmp_path: Path) -> None:
    here = {"images": digits}

    def release() -> dict[str, Any]:
        said = (tmp_path / "08_reporting/release.json").read_text()
        return dict(json.loads(said))

    def live() -> int | None:
        champion = read_state(tmp_path / "06_models/endpoint").champion
        return champion and champion.model_version

    kedro(tmp_path, "test-set", **here)
    label(tmp_path, digits, "first", every=15)
    kedro(tmp_path, "label-ingest,train,deploy", **here)
    assert (release()["decision"], live()) == ("promoted", 1)

    # Killed before it was deployed, a challenger is deployed by the next run.
    label(tmp_path, digits, "second", every=4)
    kedro(tmp_path, "label-ingest,train", **here)
    said = kedro(tmp_path, "label-ingest,train,deploy", **here)
    assert "Nothing was trained: version 2 has learned" in said
    assert (release()["decision"], live()) == ("promoted", 2)
    assert release()["accuracy"]["difference"] > 0

    # Nothing new is neither trained nor released nor entered in the books.
    said = kedro(tmp_path, "label-ingest,train,deploy", **here)
    assert "Nothing was trained: since version 2, which is in production" in said
    assert "there is nothing new to release" in said
    assert (release()["decision"], live()) == ("unchanged", 2)
    assert booked(tmp_path) == {"1": 1, "2": 1}

    kedro(tmp_path, "deploy", **here, **{"deploy.rollback": "true"})
    assert (release()["decision"], live()) == ("rolled_back", 1)

    # What was taken back is trained no second time, and does not come again.
    said = kedro(tmp_path, "label-ingest,train,deploy", **here)
    assert "Nothing was trained: version 2 has learned" in said
    assert (release()["decision"], live()) == ("refused", 1)
    assert booked(tmp_path) == {"1": 1, "2": 1}

    # What scores is what is in production.
    kedro(tmp_path, "score", **here)
    scored = pd.read_parquet(tmp_path / "07_model_output/scored_batch")
    assert set(scored["model_version"]) == {1}
