"""AutoML jobs and data assets of an Azure Machine Learning workspace."""

from __future__ import annotations

import inspect
import logging
import tempfile
import time
from difflib import get_close_matches
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core import PipelineClient
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
from azure.core.rest import HttpRequest, HttpResponse

from active_learning.errors import CheckpointError, SettingsError, TrainingError
from active_learning.services.azure import Workspace, credential, workspace_client
from active_learning.services.redaction import cause, redacted
from active_learning.services.training.automl import Order, Trained

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Job
    from mlflow import MlflowClient

    from active_learning.services.training.settings import AutoMLWorkspace

logger = logging.getLogger(__name__)

# Of one request; what goes on for hours is asked about again and again.
_TIMEOUTS = {"connection_timeout": 20, "read_timeout": 120, "retry_total": 4}
_API = {"api-version": "2024-04-01"}
_DONE = ("Completed", "Failed", "Canceled")
_TARGET = "label"
_BEST = "automl_best_child_run_id"
_FOLDER = "train_artifacts"
_NETWORK = f"{_FOLDER}/model.onnx"
_LABELS = f"{_FOLDER}/labels.json"
# Where AutoML may say why it failed: none of it is in Microsoft's reference.
_REASONS = ("friendly_errors", "errors", "fatal_error", "error")
_ATTEMPTS = 50
_NOT_ALLOWED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_AWAY = (ServiceRequestError, ServiceResponseError)
_TOLD = 500


class AutoMLJobs:
    """The jobs of a workspace.

    Args:
        workspace: Which one.
        timeout_s: A job is waited for so long.
        poll_s: Between two looks at it.
        client: Of the workspace; a test may have its own way there.
    """

    def __init__(
        self,
        workspace: AutoMLWorkspace,
        *,
        timeout_s: float,
        poll_s: float,
        client: MLClient | None = None,
    ) -> None:
        """Describe the workspace; nothing is asked yet."""
        place = Workspace(**workspace.model_dump())
        self._client = client or workspace_client(place, **_TIMEOUTS)
        self._timeout_s = timeout_s
        self._poll_s = poll_s

    def trained(self, order: Order) -> Trained:
        """Have a model trained, or take the one that was.

        Raises:
            SettingsError: A hyper-parameter is none.
            CheckpointError: The job has no model that can be served.
            TrainingError: It failed, was canceled, or is not done in time; or Azure
                cannot be reached or refuses.
        """
        job = self._wait(self._found_or_submitted(order))
        if job.status != "Completed":
            raise TrainingError(
                f"The AutoML job {job.name!r} {_ended(job)}: {_reason(job)} Look at "
                f"{job.studio_url}; the next run of 'train' starts another job."
            )
        return _result(str(job.name), order.automl.primary_metric)

    def _found_or_submitted(self, order: Order) -> str:
        """The name of the job that makes this model; a failed one is let lie."""
        for attempt in range(1, _ATTEMPTS):
            name = order.name if attempt == 1 else f"{order.name}-{attempt}"
            try:
                job = self._client.jobs.get(name)
            except ResourceNotFoundError:
                self._submit(order, name)
                return name
            except AzureError as exc:
                raise _refused(f"ask for the job {name!r}", exc) from cause(exc)
            if job.status not in ("Failed", "Canceled"):
                logger.info("The AutoML job %s is there already: %s", name, job.status)
                return name
        raise TrainingError(
            f"{_ATTEMPTS - 1} AutoML jobs for the same labels and settings have "
            f"failed; the last is {name!r}. Look at why, and change train.automl."
        )

    def _submit(self, order: Order, name: str) -> None:
        job = _job(order, name)
        asset = f"{order.data_asset}:{order.version}"
        try:
            self._client.data.get(order.data_asset, order.version)
        except ResourceNotFoundError as exc:
            raise TrainingError(
                f"The workspace has no data asset {asset!r}, the training set that "
                "AutoML would learn from. 'kedro run --env azure --pipelines "
                "label-ingest' registers it; train.automl.data_asset is its name."
            ) from cause(exc)
        except AzureError as exc:
            raise _refused(f"ask for the data asset {asset!r}", exc) from cause(exc)
        try:
            made = self._client.jobs.create_or_update(job)
        except AzureError as exc:
            raise _refused(
                f"start the AutoML job {name!r} on {order.automl.compute!r}", exc
            ) from cause(exc)
        logger.info("Started the AutoML job %s: %s", made.name, made.studio_url)

    def _wait(self, name: str) -> Job:
        deadline = time.monotonic() + self._timeout_s
        status = ""
        while True:
            job = self._look(name)
            if job is not None and job.status in _DONE:
                return job
            if job is not None and job.status != status:
                status = str(job.status)
                logger.info("The AutoML job %s: %s", name, status)
            if time.monotonic() >= deadline:
                raise TrainingError(
                    f"The AutoML job {name!r} is not done after "
                    f"{self._timeout_s / 60:.0f} minutes: {status or 'no answer'}. It "
                    "goes on; run 'train' again to wait on for it, or raise "
                    "train.automl.timeout_minutes. A job that stays queued may lack "
                    "quota for its compute: "
                    f"{job.studio_url if job is not None else 'look at the workspace'}"
                )
            time.sleep(self._poll_s)

    def _look(self, name: str) -> Job | None:
        """The job as it is; ``None`` where Azure does not answer now."""
        try:
            job: Job = self._client.jobs.get(name)
        except ClientAuthenticationError as exc:
            raise _refused(f"look at the AutoML job {name!r}", exc) from cause(exc)
        except HttpResponseError as exc:
            if exc.status_code is not None and not _passes(exc.status_code):
                raise _refused(f"look at the AutoML job {name!r}", exc) from cause(exc)
            logger.warning("The AutoML job %s: no answer now: %s", name, _told(exc))
        except _AWAY as exc:
            logger.warning("The AutoML job %s: no answer now: %s", name, _told(exc))
        else:
            return job
        return None


def register_table(
    workspace: Workspace, name: str, version: str, path: str, description: str
) -> None:
    """Make a folder with an MLTable a version of a data asset, once.

    Args:
        workspace: Where.
        name: Of the data asset.
        version: One that is there already stays as it is.
        path: ``azureml://datastores/<name>/paths/<folder>/``.
        description: For people.

    Raises:
        TrainingError: Azure cannot be reached, or refuses.
    """
    asset = f"{name}:{version}"
    # Not by MLClient: it would first read the table from the datastore, to check it.
    base = str(workspace_client(workspace)._base_url).rstrip("/")
    url = (
        f"{base}/subscriptions/{workspace.subscription}/resourceGroups/"
        f"{workspace.resource_group}/providers/Microsoft.MachineLearningServices/"
        f"workspaces/{workspace.name}/data/{name}/versions/{version}"
    )
    said = {
        "dataType": "mltable",
        "dataUri": path,
        "description": description,
        "isAnonymous": False,
        "referencedUris": [],
    }
    try:
        with _arm(base) as arm:
            found = _send(arm, HttpRequest("GET", url, params=_API))
            if found.status_code == HTTPStatus.NOT_FOUND:
                body = {"properties": said}
                request = HttpRequest("PUT", url, params=_API, json=body)
                _send(arm, request).raise_for_status()
                logger.info("Registered the data asset %s", asset)
            else:
                found.raise_for_status()
    except AzureError as exc:
        raise _refused(f"register the data asset {asset!r}", exc) from cause(exc)


def _arm(base: str) -> PipelineClient[HttpRequest, HttpResponse]:
    scope = f"{base}/.default"
    return PipelineClient(
        base,
        policies=[
            RetryPolicy(retry_total=_TIMEOUTS["retry_total"]),
            BearerTokenCredentialPolicy(credential(), scope),
        ],
    )


def _send(
    arm: PipelineClient[HttpRequest, HttpResponse], request: HttpRequest
) -> HttpResponse:
    answer: HttpResponse = arm.send_request(
        request,
        connection_timeout=_TIMEOUTS["connection_timeout"],
        read_timeout=_TIMEOUTS["read_timeout"],
    )
    return answer


def _job(order: Order, name: str) -> Any:
    from azure.ai.ml import Input, ManagedIdentityConfiguration, automl

    job: Any = automl.image_classification(
        name=name,
        compute=order.automl.compute,
        experiment_name=order.automl.experiment,
        training_data=Input(
            type="mltable", path=f"azureml:{order.data_asset}:{order.version}"
        ),
        target_column_name=_TARGET,
        primary_metric=order.automl.primary_metric,
        identity=ManagedIdentityConfiguration(),
        tags={"model_version": str(order.model_version)},
    )
    known = sorted(inspect.signature(job.set_training_parameters).parameters)
    for key in order.hyperparameters:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SettingsError(
                f"train.automl.hyperparameters has {key!r}, which AutoML does not "
                f"know: {hint}there are {known}"
            )
    job.set_training_parameters(**order.hyperparameters)
    job.set_limits(**order.automl.limits.model_dump())
    return job


def _result(job: str, metric: str) -> Trained:
    """What a completed job has made, from the workspace's MLflow."""
    from mlflow import MlflowClient, MlflowException
    from mlflow.store.artifact.artifact_repository_registry import (
        get_artifact_repository,
    )

    client = MlflowClient()
    try:
        best = _best_run(client, job, metric)
        # The client would look for logged models as well, which Azure ML does not have.
        place = client.get_run(best).info.artifact_uri
        files: Any = get_artifact_repository(place)
        names = {file.path for file in files.list_artifacts(_FOLDER)}
        missing = sorted({_NETWORK, _LABELS} - names)
        if missing:
            raise CheckpointError(
                f"{best!r}, the best run of the AutoML job {job!r}, has no "
                f"{missing[0]}; {_FOLDER} holds {sorted(names)}. Without an ONNX "
                "model nothing can be served that does not run code from a pickle: "
                "choose another train.automl.hyperparameters.model_name."
            )
        with tempfile.TemporaryDirectory() as scratch:
            network, labels = (
                Path(files.download_artifacts(name, scratch)).read_bytes()
                for name in (_NETWORK, _LABELS)
            )
    except (MlflowException, OSError) as exc:
        raise TrainingError(
            f"The AutoML job {job!r} is done, and its model cannot be fetched: "
            f"{_told(exc)}. MLFLOW_TRACKING_URI must be the workspace's; run 'train' "
            "again: the job is found, and nothing is trained twice."
        ) from cause(exc)
    return Trained(job, best, network, labels)


def _best_run(client: MlflowClient, job: str, metric: str) -> str:
    """The best trial: AutoML's own word, else the one with the highest metric.

    Raises:
        TrainingError: There is none.
    """
    run = client.get_run(job)
    named = run.data.tags.get(_BEST)
    if named:
        return str(named)
    trials = client.search_runs(
        [run.info.experiment_id],
        f"tags.mlflow.parentRunId = '{job}'",
        order_by=[f"metrics.{metric} DESC"],
    )
    measured = [trial for trial in trials if metric in trial.data.metrics]
    if not measured:
        raise TrainingError(
            f"The AutoML job {job!r} is completed and names no best run: it has "
            f"neither the tag {_BEST} nor a run with the metric {metric!r}. Look at "
            "its trials, and at train.automl.primary_metric."
        )
    return str(measured[0].info.run_id)


def _ended(job: Job) -> str:
    return "was canceled" if job.status == "Canceled" else "failed"


def _reason(job: Job) -> str:
    said = {**(job.properties or {}), **(job.tags or {})}
    reasons = [str(said[name]) for name in _REASONS if said.get(name)]
    told = next((text for text in reasons if text not in ("{}", "[]")), None)
    return f"{_told(ValueError(told))}." if told else "it does not say why."


def _passes(status: int) -> bool:
    """Whether the same request may be answered a little later."""
    return status in (408, 429) or status >= 500


def _refused(what: str, exc: AzureError) -> TrainingError:
    status = getattr(exc, "status_code", None) or 0
    if isinstance(exc, ClientAuthenticationError) or status in _NOT_ALLOWED:
        way = (
            "Sign in with 'az login', or give this identity the role 'AzureML Data "
            "Scientist' on the workspace."
        )
    elif isinstance(exc, _AWAY) or _passes(status):
        way = "Run again when it answers: nothing is done twice."
    else:
        way = "Correct train.automl, or what the workspace has, and run again."
    return TrainingError(f"Azure Machine Learning did not {what}: {_told(exc)}. {way}")


def _told(exc: BaseException) -> str:
    return _shortened(redacted(exc))


def _shortened(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _TOLD else f"{line[:_TOLD]} ..."
