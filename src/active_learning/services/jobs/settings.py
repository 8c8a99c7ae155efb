"""What the commands that submit jobs are told."""

import re
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from active_learning.parameters import Parameters
from active_learning.services.jobs.secrets import sounds_secret

_CRON = re.compile(r"\s*\S+(\s+\S+){4}\s*")


class WorkspaceSettings(Parameters):
    """Where jobs are submitted to."""

    subscription: str = Field(min_length=1)
    resource_group: str = Field(min_length=1)
    name: str = Field(min_length=1)


class JobsSettings(Parameters):
    """How a pipeline becomes a job. No defaults here: ``conf/azure`` is their one home.

    ``compute`` is a cluster's name, ``computes`` those of pipelines that need another.
    ``identity`` is the cluster's (``managed``; ``client_id`` names one where it has
    several) or that of whoever submits (``user``). A job is given the values of
    ``variables``, which must be set, and of those ``variables_if_set`` that are:
    places, never a secret. ``timeout_s`` ends a job; ``poll_s`` is between two looks at
    one that is waited for. ``code`` is what it carries of the project's folder.
    """

    workspace: WorkspaceSettings
    experiment: str = Field(min_length=1)
    compute: str = Field(min_length=1)
    computes: dict[str, str]
    identity: Literal["managed", "user"]
    client_id: str | None
    timeout_s: PositiveInt
    poll_s: PositiveFloat
    variables: tuple[str, ...]
    variables_if_set: tuple[str, ...]
    code: tuple[str, ...]

    @field_validator("variables", "variables_if_set")
    @classmethod
    def _refuse_secrets(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        secret = [name for name in names if sounds_secret(name)]
        if secret:
            raise ValueError(
                f"{len(secret)} of {len(names)} variables sound like secrets; the "
                f"first is {secret[0]!r}. A job's definition can be read by everybody "
                "in the workspace: let the job's identity open what it needs"
            )
        return names

    @model_validator(mode="after")
    def _refuse_a_client_of_a_user(self) -> Self:
        if self.identity == "user" and self.client_id is not None:
            raise ValueError("client_id names a managed identity; identity is 'user'")
        return self

    def compute_of(self, pipeline: str) -> str:
        """The cluster that a pipeline runs on."""
        return self.computes.get(pipeline, self.compute)


class SimulationSettings(Parameters):
    """How ``simulate`` becomes a pipeline job.

    ``env`` is the environment that its steps run in, ``images`` the URL of a folder
    with a folder per class, ``data`` that of the folder the steps share, where a job
    that was stopped has left what it made.
    """

    env: str = Field(min_length=1)
    images: str = Field(min_length=1)
    data: str = Field(min_length=1)

    @field_validator("images", "data")
    @classmethod
    def _refuse_what_is_no_place(cls, url: str) -> str:
        if not re.match(r"(azureml|abfss|wasbs|https)://[^?]+$", url):
            raise ValueError(
                f"{url.partition('?')[0]!r} is no place that a job can mount: use "
                "azureml://datastores/<name>/paths/<folder>, without a signature"
            )
        return url


class ScheduleSettings(Parameters):
    """When a pipeline is run.

    ``cron`` has five fields, in ``time_zone`` as Windows names it, such as UTC.
    """

    enabled: bool
    pipelines: str = Field(min_length=1)
    cron: str
    time_zone: str

    @field_validator("cron")
    @classmethod
    def _refuse_other_fields(cls, cron: str) -> str:
        if not _CRON.fullmatch(cron):
            raise ValueError(
                f"{cron!r} is no cron expression: it takes minute, hour, day, month "
                "and weekday, such as '0 6 * * *'"
            )
        return cron
