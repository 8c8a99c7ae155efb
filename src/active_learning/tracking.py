"""A simulation's books in MLflow: one parent run, a child for each branch.

The ids of the runs are in the environment, where worker processes find them too.
What cannot be recorded is said in the log and does not stop what is recorded.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from active_learning.files import making
from active_learning.pipelines.simulate.plan import START, Plan
from active_learning.services.redaction import redacted

logger = logging.getLogger(__name__)

_RUNS = "AL_SIMULATION_RUNS"
_PARENT = "parent"
# Of a tag's value on Azure ML; MLflow itself takes more.
_LONGEST = 1000
_EXPERIMENT_TAG = "simulation.experiment"
_METRICS = {
    "n_labels": "labels/total",
    "test_accuracy": "test/accuracy",
    "test_macro_f1": "test/macro_f1",
    "stream_accuracy": "stream/accuracy",
    "train_s": "time/train_s",
    "score_s": "time/score_s",
    "select_s": "time/select_s",
}


def make_database(path: Path) -> None:
    """Make MLflow's SQLite database, whole or not at all.

    MLflow makes it in some forty steps, and a database that a kill left between two of
    them can neither be used nor completed; nor may two processes take them at once.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with making(path) as temporary:
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{temporary}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
        )
        store.engine.dispose()


def open_runs(plan: Plan, experiment_id: str, tracking_uri: str, resume: bool) -> None:
    """Start the runs of a simulation, or go on in those it had.

    Args:
        plan: Its branches get a child run each.
        experiment_id: Of MLflow.
        tracking_uri: Of MLflow, for this process and its workers.
        resume: Go on in the runs of the same plan, where there are some.
    """
    with _recorded():
        client = MlflowClient(tracking_uri)
        known = _known_runs(client, experiment_id, plan) if resume else {}
        names = [_PARENT, *(branch.namespace for branch in plan.branches)]
        runs = {"uri": tracking_uri}
        for name in names:
            runs[name] = known.get(name) or _start(
                client, experiment_id, plan, name, runs.get(_PARENT)
            )
            client.update_run(runs[name], status="RUNNING")
        os.environ[_RUNS] = json.dumps(runs)


def log_evaluation(evaluation: dict[str, Any], model: str) -> None:
    """Write a challenger and its figures into the active run, its version as the step.

    Args:
        evaluation: Of the challenger, on the frozen test set.
        model: Its file.
    """
    if mlflow.active_run() is None:
        return
    figures = {
        "test/accuracy": evaluation["accuracy"],
        "test/macro_f1": evaluation["macro_f1"],
        "labels/total": evaluation["n_labels"],
    }
    with _recorded():
        mlflow.log_metrics(figures, step=evaluation["version"])
        mlflow.set_tags(
            {
                "model.version": evaluation["version"],
                "training_set": evaluation["training_set"],
                "test_set": evaluation["test_set"],
            }
        )
        mlflow.log_artifact(model)


def log_drift(report: dict[str, Any]) -> None:
    """Write the size and the p-value of each signal's shift into the active run."""
    if mlflow.active_run() is None:
        return
    figures = {"volume/current": float(report["current"]["n"])}
    for signal in report["signals"]:
        for size in ("psi", "js", "p_value"):
            figures[f"drift/{signal['signal']}_{size}"] = signal[size]
    with _recorded():
        mlflow.log_metrics(figures)
        mlflow.set_tag("drift.verdict", report["verdict"])


def log_accuracy(report: dict[str, Any]) -> None:
    """Write the audited accuracy into the active run, a version as the step."""
    if mlflow.active_run() is None:
        return
    with _recorded():
        for version in report["by_version"]:
            if version["accuracy"] is None:
                continue
            figures = {
                "production/accuracy": version["accuracy"],
                "production/accuracy_low": version["low"],
                "production/accuracy_high": version["high"],
                "production/audited": version["n_audited"],
            }
            if version["lure"] is not None:
                figures["production/accuracy_lure"] = version["lure"]["accuracy"]
            mlflow.log_metrics(figures, step=version["model_version"])


def log_stopping(report: dict[str, Any]) -> None:
    """Write the figures of the stopping criteria, and the advice, into the run."""
    if mlflow.active_run() is None:
        return
    figures = {
        f"stopping/{criterion['name']}": float(criterion["value"])
        for criterion in report["criteria"]
        if criterion["value"] is not None
    }
    labels = report["price"]["labels"]
    if labels is not None and labels["value"] is not None:
        figures["stopping/labels_to_next_point"] = labels["value"]
    with _recorded():
        mlflow.log_metrics(figures)
        mlflow.set_tag("stopping.advice", report["advice"])


def log_release(release: dict[str, Any]) -> None:
    """Write a decision's figures, and the decision itself, into the active run."""
    if mlflow.active_run() is None:
        return
    accuracy = release["accuracy"] or {}
    figures = {
        f"deploy/{name}": float(accuracy[name])
        for name in ("challenger", "champion", "difference", "low", "high")
        if accuracy.get(name) is not None
    }
    tags = {"deploy.decision": release["decision"]}
    for role in ("challenger", "champion"):
        if release[role] is not None:
            tags[f"deploy.{role}"] = release[role]["name"]
    if release["reasons"]:
        # All of them are in release.json.
        tags["deploy.reasons"] = " ".join(release["reasons"])[:_LONGEST]
    step = release["challenger"]["model_version"] if release["challenger"] else 0
    with _recorded():
        mlflow.log_metrics(figures, step=step)
        mlflow.set_tags(tags)
        mlflow.log_dict(release, "release.json")


def log_point(point: dict[str, Any], namespace: str) -> None:
    """Write a point of a learning curve into its branch's run.

    Args:
        point: A value for each column of ``learning_curves``; ``None`` is left out.
        namespace: Of the branch. The start belongs to every strategy of its seed and
            variant.
    """
    runs = _runs()
    seed, strategy = namespace.split(".")
    begins, _, variant = strategy.partition("--")
    names = [
        name
        for name in runs
        if name == namespace
        or (
            begins == START
            and name.startswith(f"{seed}.")
            and name.partition("--")[2] == variant
        )
    ]
    now = int(time.time() * 1000)
    metrics = [
        Metric(metric, float(point[column]), now, int(point["round"]))
        for column, metric in _METRICS.items()
        if point[column] is not None
    ]
    with _recorded():
        for name in names:
            MlflowClient(runs["uri"]).log_batch(runs[name], metrics=metrics)


def close_runs(status: str, report: Path | None = None) -> None:
    """End the runs of a simulation.

    Args:
        status: ``FINISHED`` or ``FAILED``.
        report: A folder whose files become artifacts of the parent run.
    """
    runs = _runs()
    os.environ.pop(_RUNS, None)
    with _recorded():
        client = MlflowClient(runs["uri"]) if runs else None
        for name, run_id in runs.items():
            if client is None or name == "uri":
                continue
            if name == _PARENT and report is not None and report.is_dir():
                client.log_artifacts(run_id, str(report), "report")
            client.set_terminated(run_id, status)


def _runs() -> dict[str, str]:
    runs: dict[str, str] = json.loads(os.environ.get(_RUNS, "{}"))
    return runs


def _start(
    client: MlflowClient, experiment_id: str, plan: Plan, name: str, parent: str | None
) -> str:
    title = f"simulate {plan.experiment}" if parent is None else name
    tags = {MLFLOW_RUN_NAME: title, _EXPERIMENT_TAG: plan.experiment}
    if parent is not None:
        tags[MLFLOW_PARENT_RUN_ID] = parent
    run_id: str = client.create_run(experiment_id, tags=tags).info.run_id
    params = plan.params.model_dump(mode="json")
    if parent is not None:
        seed, strategy = name.split(".")
        params |= {"seed": seed.removeprefix("seed_"), "strategy": strategy}
    told = params.items()
    client.log_batch(
        run_id,
        params=[Param(key, str(value)) for key, value in told],  # type: ignore[no-untyped-call]
    )
    return run_id


def _known_runs(client: MlflowClient, experiment_id: str, plan: Plan) -> dict[str, str]:
    """The runs of the same plan by name, of the latest parent alone."""
    found = client.search_runs(
        [experiment_id],
        f"tags.`{_EXPERIMENT_TAG}` = '{plan.experiment}'",
        order_by=["attributes.start_time DESC"],
        max_results=1000,
    )
    parents = [run for run in found if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    if not parents:
        return {}
    parent = parents[0].info.run_id
    children = {
        run.info.run_name: run.info.run_id
        for run in found
        if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent
    }
    return {_PARENT: parent, **children}


@contextmanager
def _recorded() -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # noqa: BLE001  # plugins raise what they like
        logger.warning("MLflow did not record this: %s", redacted(exc))
