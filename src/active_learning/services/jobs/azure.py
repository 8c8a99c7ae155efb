"""Jobs and schedules in an Azure Machine Learning workspace."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from azure.ai.ml import load_environment, load_job
from azure.ai.ml.entities._load_functions import load_schedule
from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from marshmallow import ValidationError

from active_learning.services.azure import Workspace, workspace_client
from active_learning.services.environments import EnvironmentSpec
from active_learning.services.jobs import JobError
from active_learning.services.jobs.entities import SCHEDULE_PREFIX, inline
from active_learning.services.jobs.secrets import without_secrets
from active_learning.services.jobs.settings import JobsSettings

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job, Schedule

logger = logging.getLogger(__name__)
# A line for each class that it may change some day.
logging.getLogger("azure.ai.ml._utils._experimental").setLevel(logging.ERROR)

_GOOD = "Completed"
_ENDED = {_GOOD, "Failed", "Canceled", "NotResponding"}
_LONGEST = 1500
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Submitted(NamedTuple):
    """A job in the workspace.

    Args:
        name: Its id.
        status: As Azure ML words it.
        url: Its page, with its log.
    """

    name: str
    status: str
    url: str


class AzureJobs:
    """The jobs and schedules of one workspace.

    What Azure answers with 429 or 5xx is asked again by its own client, ever later;
    what it refuses is a ``JobError``.
    """

    def __init__(self, settings: JobsSettings, **options: Any) -> None:
        """Take the workspace; nothing is asked yet.

        Args:
            settings: Uses ``workspace`` and ``poll_s``.
            options: Of ``MLClient``.
        """
        place = Workspace(**settings.workspace.model_dump())
        self._place = place
        self._poll_s = settings.poll_s
        with _explained("opened", place):
            self._client = workspace_client(place, **options)

    def submit(
        self, definition: Mapping[str, Any], environment: EnvironmentSpec
    ) -> Submitted:
        """Start a job, once.

        Args:
            definition: Of ``entities``; one with the name of a job that is there
                already starts nothing.
            environment: Registered where it is not yet.

        Raises:
            JobError: The job is wrong, a cluster is not there, or Azure refuses.
        """
        job = checked_job(definition)
        name = definition.get("name")
        there = self._find(name) if name else None
        if there is not None:
            logger.info("%s is there already: %s", name, there.status)
            return there
        self._require(_clusters(definition))
        self._register(environment)
        with _explained("submitted", self._place):
            return _submitted(self._client.jobs.create_or_update(job))

    def wait(self, name: str) -> Submitted:
        """Wait until a job has ended.

        Raises:
            JobError: It did not end well; the error says where its log is.
        """
        status = ""
        while True:
            with _explained("followed", self._place):
                job = _submitted(self._client.jobs.get(name))
            if job.status != status:
                status = job.status
                logger.info("%s: %s", name, status)
            if status in _ENDED:
                break
            time.sleep(self._poll_s)
        if status != _GOOD:
            raise JobError(
                f"The job {name} ended as {status}. Its log: {job.url}, or 'az ml job "
                f"download --name {name} --all --resource-group "
                f"{self._place.resource_group} --workspace-name {self._place.name}'."
            )
        return job

    def apply(
        self,
        schedules: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
        environment: EnvironmentSpec,
    ) -> dict[str, str]:
        """Make the workspace's schedules of ours those, and no other.

        Args:
            schedules: Schedule and job by the job's file name.
            environment: Registered where it is not yet.

        Returns:
            ``applied`` or ``disabled`` by the name of a schedule.

        Raises:
            JobError: A schedule is wrong, a cluster is not there, or Azure refuses.
        """
        made = [
            checked_schedule(schedule, job, file)
            for file, (schedule, job) in schedules.items()
        ]
        if made:
            self._require(
                [name for _, job in schedules.values() for name in _clusters(job)]
            )
            self._register(environment)
        done = {}
        for schedule in made:
            # One that was ended goes on.
            schedule._is_enabled = True
            with _explained(f"given the schedule {schedule.name}", self._place):
                self._client.schedules.begin_create_or_update(schedule).result()
            done[str(schedule.name)] = "applied"
        return done | self.disable(keep=set(done))

    def disable(self, keep: set[str] | frozenset[str] = frozenset()) -> dict[str, str]:
        """End the schedules of ours that are enabled; they stay, to be seen.

        Args:
            keep: Names of those that go on.

        Returns:
            ``disabled`` by name.

        Raises:
            JobError: Azure refuses.
        """
        with _explained("asked for its schedules", self._place):
            there = {
                str(one.name)
                for one in self._client.schedules.list()
                if one.is_enabled is not False
            }
        ended = sorted(n for n in there - keep if n.startswith(SCHEDULE_PREFIX))
        for name in ended:
            with _explained(f"made to end {name}", self._place):
                self._client.schedules.begin_disable(name).result()
        return dict.fromkeys(ended, "disabled")

    def _find(self, name: str) -> Submitted | None:
        try:
            with _explained("asked for a job", self._place):
                return _submitted(self._client.jobs.get(name))
        except JobError as exc:
            if isinstance(exc.__cause__, ResourceNotFoundError):
                return None
            raise

    def _require(self, clusters: Sequence[str]) -> None:
        """Look for clusters before anything is uploaded."""
        for name in sorted(set(clusters)):
            try:
                self._client.compute.get(name)
            except ResourceNotFoundError as exc:
                raise JobError(
                    f"The workspace {self._place.name} has no compute called {name!r}. "
                    "Name another in conf/azure/jobs/jobs.yml or with --compute, or "
                    f"make it: az ml compute create --name {name} --type amlcompute."
                ) from exc
            except (AzureError, MlException) as exc:
                raise _error(exc, "asked for a compute", self._place) from exc

    def _register(self, environment: EnvironmentSpec) -> None:
        name, version = environment.name, environment.version
        with _explained(f"given the environment {name}", self._place):
            try:
                self._client.environments.get(name, version)
            except ResourceNotFoundError:
                text = yaml.safe_dump(inline(environment))
                self._client.environments.create_or_update(
                    load_environment(io.StringIO(text))
                )


def checked_job(definition: Mapping[str, Any]) -> Job:
    """A job as the client library knows it.

    Raises:
        JobError: It does not follow the schema.
    """
    with _explained_schema():
        job = load_job(io.StringIO(yaml.safe_dump(dict(definition))))
        _refuse_wrong(job)
    return job


def checked_schedule(
    schedule: Mapping[str, Any], job: Mapping[str, Any], file: str
) -> Schedule:
    """A schedule with its job as the client library knows it.

    Args:
        schedule: Of ``entities.job_schedule``.
        job: Of ``entities.scheduled_job``.
        file: The name by which the schedule refers to the job.

    Raises:
        JobError: One of them does not follow the schema.
    """
    with TemporaryDirectory(prefix="schedule-") as folder, _explained_schema():
        (Path(folder) / file).write_text(yaml.safe_dump(dict(job)), encoding="utf-8")
        place = Path(folder) / "schedule.yml"
        place.write_text(yaml.safe_dump(dict(schedule)), encoding="utf-8")
        made = load_schedule(place)
        _refuse_wrong(made)
    return made


def _refuse_wrong(entity: Any) -> None:
    result = entity._validate()
    if not result.passed:
        wrong = result.error_messages
        field, reason = next(iter(wrong.items()))
        raise JobError(
            f"{len(wrong)} fields of the job are wrong; the first is {field}: {reason}"
        )


@contextmanager
def _explained_schema() -> Iterator[None]:
    try:
        yield
    except (MlException, ValidationError) as exc:
        raise JobError(f"Azure ML knows no such job: {_shortened(exc)}") from exc


@contextmanager
def _explained(what: str, place: Workspace) -> Iterator[None]:
    try:
        yield
    except (AzureError, MlException) as exc:
        raise _error(exc, what, place) from exc


def _error(exc: Exception, what: str, place: Workspace) -> JobError:
    start = f"The workspace {place.name} could not be {what}"
    if isinstance(exc, HttpResponseError) and exc.status_code:
        start = f"{start} (HTTP {exc.status_code})"
    return JobError(f"{start}: {_shortened(exc)} {_way_out(exc, place)}")


def _way_out(exc: Exception, place: Workspace) -> str:
    status = getattr(exc, "status_code", None)
    if isinstance(exc, ClientAuthenticationError) or status == 401:
        return "Sign in again: az login, or see to the identity this runs as."
    if status == 403:
        return (
            "Whoever runs this needs the role 'AzureML Data Scientist' on the "
            f"workspace in {place.resource_group}."
        )
    if status == 404:
        return (
            "See AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and "
            "AZUREML_WORKSPACE_NAME."
        )
    if status == 429 or (status is not None and status >= 500):
        return (
            "Azure was asked again before this; try later. With the same --name a job "
            "is never started twice."
        )
    return "Nothing that was there has been changed; the same command may be repeated."


def _shortened(exc: Exception) -> str:
    text = " ".join(_COLORS.sub("", without_secrets(str(exc))).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _clusters(definition: Mapping[str, Any]) -> list[str]:
    steps = [definition, *definition.get("jobs", {}).values()]
    named = [str(step["compute"]) for step in steps if "compute" in step]
    return [name.removeprefix("azureml:") for name in named]


def _submitted(job: Job) -> Submitted:
    # The library gives some states as members of an enumeration.
    status = getattr(job.status, "value", job.status)
    return Submitted(str(job.name), str(status), str(job.studio_url))
