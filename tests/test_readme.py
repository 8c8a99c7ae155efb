"""What the README says can be typed, and does what it says."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from active_learning.pipeline_registry import register_pipelines
from active_learning.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "conf/README.md"]
# What a fence opens with, such as "mermaid", and what stands between the fences.
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = [
    (page, line.partition(" # ")[0].strip())
    for page in PAGES
    for _, block in FENCED.findall((PROJECT / page).read_text())
    for line in block.splitlines()
    if line.startswith(("make ", "kedro "))
]


def table_under(mark: str) -> pd.DataFrame:
    """The table of strategies that follows a mark in the README, by strategy."""
    text = (PROJECT / "README.md").read_text().partition(f"<!-- {mark} -->")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return parsed(block[1])


def parsed(table: str) -> pd.DataFrame:
    """``render_table``'s columns as numbers: spreads and signs left out."""
    rows = [
        re.split(r"\s{2,}", line.strip())
        for line in table.strip().splitlines()[2:]
        if line.strip()
    ]
    frame = pd.DataFrame(
        rows, columns=["strategy", "seeds", "aubc", "final", "labels", "saved"]
    ).set_index("strategy")
    return frame.map(lambda text: float(re.match(r"[\d.]+", text.replace(",", ""))[0]))


def test_there_are_commands_to_type() -> None:
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_exists(page: str, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    if words[1] in ("serve", "label", "watch"):
        return
    assert words[1] == "run"
    if "--pipelines" in words:
        names = words[words.index("--pipelines") + 1].split(",")
        assert set(names) <= set(register_pipelines())
    if "--params" in words:
        loader = OmegaConfigLoader(
            str(PROJECT / "conf"), env="base", **CONFIG_LOADER_ARGS
        )
        for pair in words[words.index("--params") + 1].split(","):
            section, _, name = pair.partition("=")[0].partition(".")
            assert section == "images" or name in loader["parameters"][section]


def test_every_target_of_the_makefile_is_explained() -> None:
    ran = subprocess.run(
        ["make", "--silent", "help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    makefile = (PROJECT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert declared is not None
    assert {line.split()[0] for line in ran.stdout.splitlines()} == set(
        declared[1].split()
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that is empty at first."""
    return tmp_path_factory.mktemp("data")


def make(target: str, data: Path) -> str:
    """Type a command of the README; what it prints."""
    ran = subprocess.run(
        ["make", target],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
def test_the_quick_look_shows_what_the_readme_shows(data: Path) -> None:
    """The first command of the README, in an empty data folder."""
    printed = make("simulate", data)

    found = parsed(printed.partition("strategy")[2].partition("\n\n")[0])
    told = table_under("quick")

    assert list(found.index) == list(told.index)
    # Another processor rounds otherwise, and thirty rounds carry it on.
    assert (found[["aubc", "final"]] - told[["aubc", "final"]]).abs().max(None) < 1.5
    assert (found["saved"]["margin"] > found["saved"]["random"]) == (
        told["saved"]["margin"] > told["saved"]["random"]
    )
    assert (data / "08_reporting/simulation/report.html").exists()


@pytest.mark.slow
def test_the_loop_turns_twice_and_its_labels_rise(data: Path) -> None:
    """Start and first turn; then what MLflow tells of the champions they made."""
    make("loop", data)

    client = MlflowClient(f"sqlite:///{data}/mlflow.db")
    experiment = client.get_experiment_by_name("active-learning-loop")
    assert experiment is not None
    measured = client.search_runs(
        [experiment.experiment_id],
        "metrics.`labels/total` > 0",
        order_by=["attributes.start_time ASC"],
    )
    # The simulation before this has its runs below a parent.
    trained = [run for run in measured if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    labels = [run.data.metrics["labels/total"] for run in trained]
    accuracies = [run.data.metrics["test/accuracy"] for run in trained]
    assert labels[0] == 200
    # An audit may draw an image that is asked for anyway.
    assert 250 <= labels[1] <= 255
    assert len(labels) == 2
    assert all(0.5 < accuracy < 1 for accuracy in accuracies)
    # Each was decided on; whether the second is better, chance decides.
    assert (data / "06_models/endpoint/state.json").exists()
    assert (data / "08_reporting/release.json").exists()
