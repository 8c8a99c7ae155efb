"""The same books on Azure ML's MLflow: its plugin, its limits, its failures."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient
from tests.standins.identity import Identity, identity
from tests.standins.mlflow_workspace import (
    SAS_SECRET,
    Fault,
    MlflowWorkspace,
    claims,
    mlflow_workspace,
    workspace,
)
from tests.standins.tls import tls
from tests.test_parameters import configured

from active_learning import tracking
from active_learning.pipelines.simulate.params import SimulateParams
from active_learning.pipelines.simulate.plan import Plan

__all__ = ["identity", "mlflow_workspace", "tls", "workspace"]

pytestmark = pytest.mark.azure

PROJECT = Path(__file__).parents[1]

# What a team's conf/azure holds of it.
MLFLOW_YML = """
server:
  mlflow_tracking_uri: ${oc.env:MLFLOW_TRACKING_URI}
tracking:
  experiment:
    name: ${oc.env:MLFLOW_EXPERIMENT_NAME, active-learning-loop}
  run:
    id: ${oc.env:MLFLOW_RUN_ID, null}
  disable_tracking:
    pipelines: [simulate]
  params:
    long_params_strategy: truncate
"""

EVALUATION = {
    "accuracy": 0.9,
    "macro_f1": 0.8,
    "n_labels": 40,
    "version": 3,
    "training_set": "a" * 64,
    "test_set": "b" * 64,
}
RELEASE: dict[str, Any] = {
    "accuracy": {"challenger": 0.9, "champion": 0.8, "difference": 0.1},
    "decision": "rejected",
    "challenger": {"name": "000003-abc", "model_version": 3},
    "champion": None,
    "reasons": ["It is worse on the class 'shoe', and on many others."] * 100,
}


@pytest.fixture
def experiment(workspace: MlflowWorkspace) -> str:
    """The id of an experiment of the test's own, which is active."""
    made = mlflow.set_experiment(f"loop-{uuid4().hex}")
    workspace.log.clear()
    return str(made.experiment_id)


def logged(run_id: str) -> mlflow.entities.Run:
    return MlflowClient().get_run(run_id)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said not to be recorded."""
    ours = [each for each in caplog.records if each.name == tracking.__name__]
    return [each.getMessage() for each in ours]


@pytest.mark.usefixtures("experiment")
def test_a_model_and_its_figures_are_recorded(
    workspace: MlflowWorkspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "challenger.ckpt"
    model.write_bytes(b"weights" * 1000)

    with mlflow.start_run() as run:
        tracking.log_evaluation(EVALUATION, str(model))
        tracking.log_release(RELEASE)

    made = logged(run.info.run_id).data
    assert made.metrics["test/accuracy"] == 0.9
    assert made.metrics["deploy/difference"] == 0.1
    assert made.tags["model.version"] == "3"
    assert workspace.blobs[run.info.run_id, "challenger.ckpt"] == model.read_bytes()
    kept = json.loads(workspace.blobs[run.info.run_id, "release.json"])
    assert kept == RELEASE
    # A tag's value has 1,000 characters at most: the rest is in the file.
    assert made.tags["deploy.reasons"] == " ".join(RELEASE["reasons"])[:1000]
    assert not complaints(caplog)


def plan() -> Plan:
    some = {"rounds": 2, "strategies": ("margin", "random"), "seeds": (0,)}
    params = SimulateParams.model_validate(configured("simulate", **some))
    return Plan(params, uuid4().hex)


def test_a_simulation_keeps_a_parent_and_a_run_for_each_branch(
    workspace: MlflowWorkspace, experiment: str, tmp_path: Path
) -> None:
    simulation = plan()
    report = tmp_path / "report"
    report.mkdir()
    (report / "summary.csv").write_text("strategy\nmargin\n")
    point = dict.fromkeys(
        ("n_labels", "test_accuracy", "test_macro_f1", "train_s", "score_s"), 0.5
    )
    point |= {"stream_accuracy": None, "select_s": None, "round": 1}

    for resume in (False, True):
        tracking.open_runs(simulation, experiment, workspace.url, resume)
        tracking.log_point(point, "seed_0.margin")
        tracking.close_runs("FINISHED", None if resume else report)

    runs = MlflowClient().search_runs([experiment])
    by_name = {run.info.run_name: run for run in runs}
    # What is resumed goes on in the runs it had.
    assert len(runs) == 3
    parent = by_name[f"simulate {simulation.experiment}"]
    margin = by_name["seed_0.margin"]
    assert margin.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert margin.data.metrics["test/accuracy"] == 0.5
    assert margin.data.params["strategy"] == "margin"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert (parent.info.run_id, "report/summary.csv") in workspace.blobs


@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("status", [429, 503, 0])
def test_what_fails_for_a_moment_is_sent_again(
    workspace: MlflowWorkspace, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow.start_run() as run:
        workspace.faults.append(Fault(status, "/runs/log-batch", times=2))
        tracking.log_release({**RELEASE, "reasons": []})

    assert logged(run.info.run_id).data.metrics["deploy/challenger"] == 0.9
    assert workspace.requests("/runs/log-batch", status) == 2
    assert not complaints(caplog)


@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize(
    ("status", "path"),
    [
        (503, "/runs/log-batch"),
        (401, "/runs/log-batch"),
        (403, "/account.blob"),
        (403, "/history/"),
    ],
)
def test_what_is_not_recorded_is_said_and_the_run_goes_on(
    workspace: MlflowWorkspace,
    identity: Identity,
    status: int,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with mlflow.start_run() as run:
        workspace.faults.append(Fault(status, path, times=100))
        tracking.log_release({**RELEASE, "reasons": []})
        workspace.faults.clear()
        tracking.log_drift(
            {"current": {"n": 7}, "signals": [], "verdict": "no drift"},
        )

    (complaint,) = complaints(caplog)
    assert complaint.startswith("MLflow did not record this: ")
    secrets = [SAS_SECRET, identity.secret, *identity.issued]
    assert not [secret for secret in secrets if secret in caplog.text]
    assert logged(run.info.run_id).data.metrics["volume/current"] == 7


@pytest.mark.usefixtures("experiment")
def test_a_file_that_is_there_already_is_kept_and_said(
    workspace: MlflowWorkspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "challenger.ckpt"
    with mlflow.start_run() as run:
        for content in (b"first", b"second"):
            model.write_bytes(content)
            tracking.log_evaluation(EVALUATION, str(model))

    assert workspace.blobs[run.info.run_id, "challenger.ckpt"] == b"first"
    (complaint,) = complaints(caplog)
    assert "challenger.ckpt already exists" in complaint


def test_a_token_that_expires_is_replaced(
    workspace: MlflowWorkspace, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "lifetime_s", 1.0)
    # By another name, it is a server of which no token is known yet.
    mlflow.set_tracking_uri(workspace.url.replace("127.0.0.1", "localhost"))
    mlflow.set_experiment(f"loop-{uuid4().hex}")
    with mlflow.start_run() as run:
        first = workspace.tokens[-1]
        while time.time() < claims(first)["exp"] + 1:
            time.sleep(0.05)
        tracking.log_release({**RELEASE, "reasons": []})

    assert workspace.tokens[-1] != first
    assert logged(run.info.run_id).data.metrics["deploy/challenger"] == 0.9


@pytest.mark.parametrize("token", ["", "no-token", "e30.eyJleHAiOiAxfQ.c2ln"])
def test_the_stand_in_refuses_who_has_no_token(
    workspace: MlflowWorkspace, token: str
) -> None:
    url = workspace.url.replace("azureml://", "https://")
    asked = Request(f"{url}/api/2.0/mlflow/experiments/search", method="POST")
    asked.add_header("Authorization", f"Bearer {token}")

    answer = workspace.answer("POST", asked.selector, dict(asked.headers), b"{}")

    assert answer.status == 401


def kedro_run(
    workspace: MlflowWorkspace, folder: Path, images: Path, **variables: str
) -> str:
    """A run of one small pipeline whose books are on Azure ML.

    Returns:
        What it wrote.
    """
    conf = folder / "conf"
    if not conf.exists():
        leave = shutil.ignore_patterns("azure", "local")
        shutil.copytree(PROJECT / "conf", conf, ignore=leave)
        (conf / "local").mkdir()
        (conf / "cloud").mkdir()
        (conf / "cloud" / "mlflow.yml").write_text(MLFLOW_YML)
    options = ["--conf-source", str(conf), "--env", "cloud", "--pipelines", "test-set"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kedro", "run", *options),
            *("--params", f"images={images}"),
        ],
        cwd=PROJECT,
        env={
            **os.environ,
            **workspace.environment(),
            "AL_DATA": str(folder / "data"),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_run_and_its_parameters_are_recorded(
    workspace: MlflowWorkspace, identity: Identity, digits: Path, tmp_path: Path
) -> None:
    name = f"loop-{uuid4().hex}"

    said = kedro_run(workspace, tmp_path, digits, MLFLOW_EXPERIMENT_NAME=name)

    experiment = MlflowClient().get_experiment_by_name(name)
    (run,) = MlflowClient().search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert "share=0.2" in run.data.params["test_set"]
    assert run.data.tags["kedro_command"] == "kedro run --pipeline=test-set"
    secrets = [identity.secret, *identity.issued]
    assert not [secret for secret in secrets if secret in said]


def test_a_job_goes_on_in_the_run_that_azure_ml_started(
    workspace: MlflowWorkspace, identity: Identity, digits: Path, tmp_path: Path
) -> None:
    name = f"job-{uuid4().hex}"
    experiment = MlflowClient().create_experiment(name)
    job = MlflowClient().create_run(experiment).info.run_id
    token = identity_token(identity)

    kedro_run(
        workspace,
        tmp_path,
        digits,
        MLFLOW_RUN_ID=job,
        MLFLOW_EXPERIMENT_ID=experiment,
        MLFLOW_EXPERIMENT_NAME=name,
        MLFLOW_TRACKING_TOKEN=token,
        AZUREML_RUN_ID=job,
    )

    (run,) = MlflowClient().search_runs([experiment])
    assert run.info.run_id == job
    assert "share=0.2" in run.data.params["test_set"]
    # The job ends with its process, and Azure ML says so.
    assert run.info.status == "RUNNING"
    assert token in workspace.tokens


def identity_token(identity: Identity) -> str:
    asked = Request(
        f"{identity.url}?resource=https://management.azure.com&api-version=1"
    )
    asked.add_header("X-IDENTITY-HEADER", identity.secret)
    try:
        with urlopen(asked) as answer:
            return str(json.load(answer)["access_token"])
    except HTTPError as exc:
        pytest.fail(str(exc))
