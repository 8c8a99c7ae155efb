"""Jobs and schedules as the YAML that Azure ML documents, without its library."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from active_learning.errors import SettingsError
from active_learning.services.environments import EnvironmentSpec
from active_learning.services.jobs import JobError
from active_learning.services.jobs.settings import (
    JobsSettings,
    ScheduleSettings,
    SimulationSettings,
)

# Of our schedules, so that no other one in the workspace is touched.
SCHEDULE_PREFIX = "active-learning-"
_TRAIN = "train"
# How several nodes are asked for; a job says it itself.
_NODES = "train.hardware.nodes"
_JOIN = "join-training"
# What a simulation's steps hand on. Images that were decoded, and MLflow's database,
# are each step's own.
_SHARED = ("05_model_input", "07_model_output", "08_reporting")


@dataclass(frozen=True)
class JobSpec:
    """What is the same in every job of one submission.

    Args:
        settings: How a pipeline becomes a job.
        variables: Names and values that it gets.
        environment: What it runs in.
        code: The folder that it carries.
        tags: By which it is found.
    """

    settings: JobsSettings
    variables: Mapping[str, str]
    environment: EnvironmentSpec
    code: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Branch:
    """A step of a simulation: a part of the pipeline and what it comes after.

    Args:
        namespaces: Of the part; none for all that is still missing.
        after: Names of the steps before it.
    """

    namespaces: tuple[str, ...]
    after: tuple[str, ...]


def variables_of(settings: JobsSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job gets, by name.

    Raises:
        JobError: One is not set here.
    """
    missing = [name for name in settings.variables if not environ.get(name)]
    if missing:
        raise JobError(
            f"{len(missing)} of {len(settings.variables)} variables that a job needs "
            f"are not set here: {', '.join(missing)}. conf/README.md says what each is."
        )
    names = (*settings.variables, *settings.variables_if_set)
    found = {name: environ[name] for name in names if environ.get(name)}
    own = {"MLFLOW_DISABLE_TELEMETRY": "true"}
    if settings.client_id is not None:
        own["AZURE_CLIENT_ID"] = settings.client_id
    return dict(sorted({**found, **own}.items()))


def run_line(pipelines: str, env: str, params: str, nodes: int) -> str:
    """The command of a job.

    Args:
        pipelines: Of the project, joined by commas.
        env: The environment.
        params: As typed after ``--params``.
        nodes: Machines; with several, the first runs the pipeline and the others join
            its training and write nothing.

    Raises:
        JobError: Several nodes are asked for other than ``train``.
    """
    if _NODES in params:
        raise JobError(f"--params names {_NODES}: say --nodes instead.")
    said = [*("--env", env), *_params(params)]
    run = ["kedro", "run", "--pipelines", pipelines]
    if nodes == 1:
        return shlex.join([*run, *said])
    if pipelines != _TRAIN:
        raise JobError(
            f"{nodes} nodes work together on 'train' alone, not on {pipelines!r}. "
            "Leave --nodes out, or submit train as a job of its own."
        )
    told = [*("--env", env), *_params(f"{params},{_NODES}={nodes}".lstrip(","))]
    first, other = shlex.join([*run, *told]), shlex.join(["kedro", _JOIN, *told])
    return f'if [ "$NODE_RANK" = 0 ]; then {first}; else {other}; fi'


def command_job(
    spec: JobSpec,
    pipelines: str,
    line: str,
    *,
    compute: str | None = None,
    nodes: int = 1,
    name: str | None = None,
) -> dict[str, Any]:
    """One job that runs one command, on one node or on several.

    Args:
        spec: What all jobs have in common.
        pipelines: What it is called by, and finds its cluster by.
        line: The command.
        compute: A cluster in place of the pipeline's own.
        nodes: One process is started on each, which starts one for each device.
        name: An id in the workspace; the same one is the same job.
    """
    job = {
        "$schema": _schema("commandJob"),
        "type": "command",
        "display_name": f"kedro {pipelines}",
        "experiment_name": spec.settings.experiment,
        **_step(spec, line, compute or spec.settings.compute_of(pipelines)),
        "identity": {"type": _IDENTITIES[spec.settings.identity]},
        "limits": {"timeout": spec.settings.timeout_s},
        "tags": {**spec.tags, "pipelines": pipelines},
    }
    if name is not None:
        job["name"] = name
    if nodes > 1:
        job["resources"] = {"instance_count": nodes}
        job["distribution"] = {"type": "pytorch", "process_count_per_instance": 1}
    return job


def simulation_job(
    spec: JobSpec,
    steps: Mapping[str, Branch],
    *,
    simulation: SimulationSettings,
    params: str,
    name: str | None = None,
) -> dict[str, Any]:
    """A simulation: its branches side by side, the report after them.

    A step is ``kedro run`` on a part of the pipeline, in a folder that all of them
    share. What is there already is not made again, so that the same job goes on where
    an earlier one has stopped. A branch that fails leaves the others at work.

    Args:
        spec: What all jobs have in common.
        steps: By name.
        simulation: Where its images and the folder are, and the environment.
        params: As typed after ``--params``.
        name: An id in the workspace.
    """
    compute = spec.settings.compute_of("simulate")
    images = simulation.images
    place = {"type": "uri_folder", "mode": "rw_mount", "path": simulation.data}
    given = {"type": "uri_folder", "mode": "ro_mount", "path": images}
    jobs = {}
    for step, branch in steps.items():
        before = {
            f"after_{number}": f"${{{{parent.jobs.{one}.outputs.data}}}}"
            for number, one in enumerate(branch.after)
        }
        line = step_line(branch.namespaces, simulation.env, params, images)
        jobs[step] = {
            **_inner(spec, step, line, compute),
            "inputs": {"images": given, **before},
            "outputs": {"data": place},
        }
    return _pipeline(spec, "simulate", jobs, name)


def step_line(namespaces: Sequence[str], env: str, params: str, images: str) -> str:
    """The command of a simulation's step.

    The folder that is shared is mounted, and so are the images, at places that change
    from job to job. Links give them the same names each time: a simulation's folder is
    named after what decides it, the images' place among it.

    Args:
        namespaces: The part; none for all that is missing.
        env: The environment.
        params: As typed after ``--params``.
        images: URL of the labeled images.
    """
    link = image_link(images)
    share = (
        f"mkdir -p data images && for part in {' '.join(_SHARED)}; do "
        'mkdir -p "${{outputs.data}}/$part" && '
        'ln -sfn "${{outputs.data}}/$part" "data/$part" || exit 1; done && '
        f'ln -sfn "${{{{inputs.images}}}}" {shlex.quote(link)}'
    )
    run = ["kedro", "run", "--pipelines", "simulate", "--env", env]
    part = ["--namespaces", ",".join(namespaces)] if namespaces else []
    told = _params(f"{params},images={link}".lstrip(","))
    return f"{share} && {shlex.join([*run, *part, '--only-missing-outputs', *told])}"


def image_link(images: str) -> str:
    """Where a step finds its images: the same name for the same URL."""
    last = re.sub(r"[^\w-]", "-", urlsplit(images).path.rstrip("/").rpartition("/")[2])
    return f"images/{last or 'images'}-{sha256(images.encode()).hexdigest()[:8]}"


def scheduled_job(spec: JobSpec, pipelines: str, line: str) -> dict[str, Any]:
    """A command as a pipeline job of one step: Azure ML schedules no other kind."""
    compute = spec.settings.compute_of(pipelines)
    step = _inner(spec, pipelines, line, compute)
    return _pipeline(spec, pipelines, {"run": step}, None)


def job_schedule(name: str, schedule: ScheduleSettings, job: str) -> dict[str, Any]:
    """A job that is submitted again and again.

    Args:
        name: Ours among the schedules of the workspace.
        schedule: When.
        job: The file of a ``scheduled_job``, beside that of the schedule.
    """
    return {
        "$schema": _schema("schedule"),
        "name": f"{SCHEDULE_PREFIX}{name}",
        "display_name": f"{schedule.pipelines}, {schedule.cron}",
        "trigger": {
            "type": "cron",
            "expression": schedule.cron,
            "time_zone": schedule.time_zone,
        },
        "create_job": job,
    }


def inline(environment: EnvironmentSpec) -> dict[str, Any]:
    """An environment as it is written into a job that stands by itself."""
    return {
        "name": environment.name,
        "version": environment.version,
        "image": environment.image,
        "conda_file": dict(environment.conda),
    }


def known_pipelines(pipelines: str, known: Sequence[str]) -> str:
    """Check the names of pipelines.

    Raises:
        SettingsError: One is unknown.
    """
    for name in pipelines.split(","):
        if name not in known:
            raise SettingsError(
                f"No pipeline is called {name!r}. Known: {', '.join(known)}; several "
                "are joined by commas."
            )
    return pipelines


_IDENTITIES = {"managed": "managed", "user": "user_identity"}


def _pipeline(
    spec: JobSpec, pipelines: str, jobs: Mapping[str, Any], name: str | None
) -> dict[str, Any]:
    job = {
        "$schema": _schema("pipelineJob"),
        "type": "pipeline",
        "display_name": f"kedro {pipelines}",
        "experiment_name": spec.settings.experiment,
        "tags": {**spec.tags, "pipelines": pipelines},
        # What a step reads is none of its inputs: one with equal inputs runs all the
        # same.
        "settings": {"force_rerun": True, "continue_on_step_failure": True},
        "jobs": dict(jobs),
    }
    return job if name is None else {**job, "name": name}


def _inner(spec: JobSpec, title: str, line: str, compute: str) -> dict[str, Any]:
    """A job inside of a pipeline job."""
    return {
        "type": "command",
        "display_name": title,
        **_step(spec, line, compute),
        "identity": {"type": _IDENTITIES[spec.settings.identity]},
        "limits": {"timeout": spec.settings.timeout_s},
    }


def _step(spec: JobSpec, line: str, compute: str) -> dict[str, Any]:
    return {
        "code": spec.code,
        "command": line,
        "environment": spec.environment.reference,
        "environment_variables": dict(spec.variables),
        "compute": f"azureml:{compute}",
    }


def _params(params: str) -> list[str]:
    return ["--params", params] if params else []


def _schema(kind: str) -> str:
    return f"https://azuremlschemas.azureedge.net/latest/{kind}.schema.json"
