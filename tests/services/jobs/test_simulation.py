"""The steps of a simulation, run one after another as Azure ML would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.services.jobs.builders import (
    AZURE_SIMULATE,
    PLACES,
    command,
    make_project,
)

pytest.importorskip("azure.ai.ml", reason="the extra 'azure' is not installed")

from active_learning.services.jobs.code import carried

pytestmark = [pytest.mark.azure, pytest.mark.slow]

TIMES = ["train_s", "score_s", "select_s"]
SMALL = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 4,
    "train.recipe.min_steps": 10,
    "train.recipe.min_epochs": 1,
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 2,
    "simulate.rounds": 1,
    "simulate.strategies": "random+margin",
    "simulate.seeds": "0",
    "simulate.pool_size": 100,
    "simulate.initial_labels": 40,
    "simulate.labels_per_round": 20,
    "simulate.stream_size": 100,
}
PARAMS = ",".join(f"{key}={value}" for key, value in SMALL.items())
# One thread in every process: two runs then add numbers in one order.
ALONE = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(line: str, folder: Path, **variables: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **ALONE, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_the_steps_together_are_a_simulation(digits: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    asked = command(
        project, AZURE_SIMULATE, "--dry-run", "--params", PARAMS, env=PLACES
    )
    assert asked.returncode == 0, asked.stderr[-2000:]
    job = yaml.safe_load(asked.stdout)
    shared = tmp_path / "shared"
    shared.mkdir()

    done: set[str] = set()
    for name, step in job["jobs"].items():
        # Each step on a node of its own: nothing but the folder goes on.
        before = {
            value.split(".")[2].removesuffix("}}")
            for key, value in step["inputs"].items()
            if key != "images"
        }
        assert before <= done
        line = step["command"].replace("${{outputs.data}}", str(shared))
        line = line.replace("${{inputs.images}}", str(digits))
        with carried(project, ("src", "conf", "pyproject.toml")) as node:
            run(line, node)
        done.add(name)

    plain = tmp_path / "plain"
    with carried(project, ("src", "conf", "pyproject.toml")) as node:
        told = f"{PARAMS},images={digits}"
        line = f"kedro run --pipelines simulate --env base --params '{told}'"
        run(line, node, AL_DATA=str(plain))
    curves = "08_reporting/simulation/learning_curves.csv"
    ours, theirs = pd.read_csv(shared / curves), pd.read_csv(plain / curves)
    assert len(ours) == 2 * 2
    pd.testing.assert_frame_equal(
        ours.drop(columns=TIMES), theirs.drop(columns=TIMES), check_exact=True
    )
    # What only a local disk can hold stays on the node's own.
    assert not list(shared.rglob("*.db"))
    assert not (shared / "02_intermediate").exists()
