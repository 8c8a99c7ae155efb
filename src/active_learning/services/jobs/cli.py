"""``kedro azure-job`` and ``kedro azure-schedules``: pipelines on Azure ML."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from kedro.framework.cli.utils import _split_params

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.environments import EnvironmentSpec
    from active_learning.services.jobs.azure import AzureJobs
    from active_learning.services.jobs.entities import JobSpec
    from active_learning.services.jobs.settings import JobsSettings, ScheduleSettings

Definition = Mapping[str, Any]

_FILES = "jobs"
_WHERE = "conf/azure/jobs/jobs.yml"
# A package is looked for after the one that it is in.
_NEEDED = ("azure", "azure.ai", "azure.ai.ml")

azure_env = click.option(
    "--env",
    "-e",
    default="azure",
    show_default=True,
    help="Kedro configuration environment.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the checked YAML and submit nothing."
)
name_option = click.option(
    "--name", help="An id: the same one is the same job, however often submitted."
)
wait_option = click.option(
    "--wait", is_flag=True, help="Until the job has ended; 1 where it did not end well."
)
params_option = click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    help="Handed to the run; jobs.compute=big and the like are this command's own.",
)


@click.command("azure-job")
@click.option("--pipeline", "pipelines", required=True, help="One, or a,b in order.")
@click.option("--compute", help="A cluster in place of the configured one.")
@click.option(
    "--nodes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Machines that train one model.",
)
@name_option
@wait_option
@dry_run_option
@params_option
@azure_env
@click.pass_context
def azure_job(
    context: click.Context,
    pipelines: str,
    compute: str | None,
    nodes: int,
    name: str | None,
    wait: bool,
    dry_run: bool,
    params: str,
    env: str,
) -> None:
    """Run pipelines as a job on Azure Machine Learning.

    The job carries this folder's code and configuration, runs `kedro run --env azure`
    on the pipeline's cluster and opens what it needs by its identity. What is not given
    here says conf/azure/jobs/jobs.yml.
    """
    with explained(), job_spec(context, env, params, dry_run) as (spec, handed_on, _):
        from active_learning.services.jobs.entities import command_job, run_line

        line = run_line(_known(pipelines), env, handed_on, nodes)

        def define(spec: JobSpec) -> Definition:
            return command_job(
                spec, pipelines, line, compute=compute, nodes=nodes, name=name
            )

        submit(define, spec, dry_run=dry_run, wait=wait)


@click.command("azure-schedules")
@click.option("--apply", "what", flag_value="apply", help="Make them as configured.")
@click.option("--disable", "what", flag_value="disable", help="End all of ours.")
@click.option("--dry-run", "what", flag_value="dry-run", help="Print the checked YAML.")
@params_option
@azure_env
@click.pass_context
def azure_schedules(
    context: click.Context, what: str | None, params: str, env: str
) -> None:
    """Run pipelines on Azure Machine Learning again and again.

    conf/azure/jobs/jobs.yml says which and when; one that is not enabled there is ended
    where it is. To apply twice is to apply once.
    """
    if what is None:
        raise click.UsageError("Say one of --apply, --dry-run and --disable.")
    dry_run = what == "dry-run"
    with (
        explained(),
        job_spec(context, env, params, dry_run) as (
            spec,
            handed_on,
            said,
        ),
    ):
        if what == "disable":
            _report(connect(spec.settings).disable())
            return
        from active_learning.services.jobs.secrets import refuse_secrets

        chosen = {
            name: schedule
            for name, schedule in _schedules(said).items()
            if schedule.enabled
        }
        made = _defined(spec, chosen, env, handed_on)
        text = _documents(spec.environment, made)
        refuse_secrets(text, os.environ)
        if dry_run:
            from active_learning.services.jobs.azure import checked_schedule

            for file, (schedule, job) in made.items():
                checked_schedule(schedule, job, file)
            click.echo(text or "# No schedule is enabled.", nl=False)
            return
        _report(connect(spec.settings).apply(made, spec.environment))


@contextmanager
def explained() -> Iterator[None]:
    """Errors of ours as one line instead of a traceback."""
    from omegaconf.errors import OmegaConfBaseException

    from active_learning.errors import ActiveLearningError

    try:
        yield
    except ActiveLearningError as exc:
        raise click.ClickException(str(exc)) from exc
    except OmegaConfBaseException as exc:
        raise click.ClickException(f"{_WHERE}: {exc}") from exc


@contextmanager
def job_spec(
    context: click.Context, env: str, params: str, dry_run: bool
) -> Iterator[tuple[JobSpec, str, Mapping[str, Any]]]:
    """What all jobs of one command have in common.

    Args:
        context: Of the command.
        env: The environment whose configuration is read.
        params: As typed.
        dry_run: Whether nothing is uploaded.

    Yields:
        It; the parameters that are handed on to the run; and the sections of
        ``jobs.yml``. The code is there meanwhile.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise click.ClickException(
            "Jobs on Azure need azure-ai-ml: pip install 'active-learning-loop[azure]'"
        )
    from active_learning.services.environments import training_environment
    from active_learning.services.jobs.code import carried
    from active_learning.services.jobs.entities import JobSpec, variables_of
    from active_learning.services.jobs.settings import JobsSettings

    metadata: ProjectMetadata = context.obj
    project = Path(metadata.project_path)
    given = _split_params(context, None, params)
    own = given.pop(_FILES, {})
    said = _configuration(project, env, given)
    settings = validated(JobsSettings, {**said[_FILES], **own})
    with carried(project, settings.code) as code:
        spec = JobSpec(
            settings=settings,
            variables=variables_of(settings, os.environ),
            environment=training_environment(project),
            code=str(project if dry_run else code),
            tags=_tags(project),
        )
        kept = [item for item in params.split(",") if not _is_own(item)]
        yield spec, ",".join(kept), said


def submit(
    define: Callable[[JobSpec], Definition],
    spec: JobSpec,
    *,
    dry_run: bool,
    wait: bool,
) -> None:
    """Check a job, and print it or start it.

    Args:
        define: Makes it.
        spec: What it has in common with others.
        dry_run: Print it.
        wait: Until it has ended.

    Raises:
        JobError: It is wrong, cannot be started or does not end well.
    """
    from active_learning.services.jobs.secrets import refuse_secrets

    job = define(spec)
    text = _standing_alone(job, spec.environment)
    refuse_secrets(text, os.environ)
    if dry_run:
        from active_learning.services.jobs.azure import checked_job

        checked_job(job)
        click.echo(text, nl=False)
        return
    jobs = connect(spec.settings)
    submitted = jobs.submit(job, spec.environment)
    click.echo(f"{submitted.name}: {submitted.status}, {submitted.url}")
    if wait:
        ended = jobs.wait(submitted.name)
        click.echo(f"{ended.name}: {ended.status}")


def connect(settings: JobsSettings) -> AzureJobs:
    """The workspace's jobs; the libraries of Azure are imported now."""
    from active_learning.services.jobs.azure import AzureJobs

    return AzureJobs(settings)


def validated(kind: Callable[..., Any], said: Mapping[str, Any]) -> Any:
    """A section of ``jobs.yml`` as its type."""
    from pydantic import ValidationError

    try:
        return kind(**said)
    except ValidationError as exc:
        raise click.ClickException(f"{_WHERE}: {exc}") from exc


def _configuration(project: Path, env: str, params: dict[str, Any]) -> dict[str, Any]:
    from kedro.config import MissingConfigException

    from active_learning.configuration import configuration_of

    loader = configuration_of(project, env, params)
    said: dict[str, Any] = {}
    with suppress(MissingConfigException):
        said = loader[_FILES]
    if _FILES not in said:
        raise click.ClickException(
            f"conf/{env} says nothing about jobs: there is no {_WHERE} for it. Choose "
            "another environment with --env."
        )
    return said


def _schedules(said: Mapping[str, Any]) -> dict[str, ScheduleSettings]:
    from active_learning.services.jobs.settings import ScheduleSettings

    sections = said.get("schedules", {})
    return {name: validated(ScheduleSettings, told) for name, told in sections.items()}


def _defined(
    spec: JobSpec, chosen: Mapping[str, ScheduleSettings], env: str, params: str
) -> dict[str, tuple[Definition, Definition]]:
    """Schedule and job by the file that the job would be in."""
    from active_learning.services.jobs.entities import (
        job_schedule,
        run_line,
        scheduled_job,
    )

    made: dict[str, tuple[Definition, Definition]] = {}
    for name, schedule in chosen.items():
        line = run_line(_known(schedule.pipelines), env, params, nodes=1)
        job = scheduled_job(spec, schedule.pipelines, line)
        file = f"{name}.yml"
        made[file] = (job_schedule(name, schedule, file), job)
    return made


def _known(pipelines: str) -> str:
    from kedro.framework.project import pipelines as registered

    from active_learning.services.jobs.entities import known_pipelines

    return known_pipelines(pipelines, list(registered))


def _standing_alone(job: Definition, environment: EnvironmentSpec) -> str:
    """A job as YAML for a file in the project's folder, with its environment in it."""
    from active_learning.services.jobs.entities import inline

    written = inline(environment)

    def alone(step: Definition) -> dict[str, Any]:
        own = {"code": ".", "environment": written} if "code" in step else {}
        inner = step.get("jobs", {})
        steps = {"jobs": {name: alone(one) for name, one in inner.items()}}
        return {**step, **own, **(steps if inner else {})}

    return yaml.safe_dump(alone(job), sort_keys=False, width=88)


def _documents(
    environment: EnvironmentSpec, made: Mapping[str, tuple[Definition, Definition]]
) -> str:
    parts = []
    for file, (schedule, job) in made.items():
        parts.append(yaml.safe_dump(dict(schedule), sort_keys=False, width=88))
        parts.append(f"# {file}\n{_standing_alone(job, environment)}")
    return "---\n".join(parts)


def _report(done: Mapping[str, str]) -> None:
    for name, what in sorted(done.items()):
        click.echo(f"{name}: {what}")
    if not done:
        click.echo("No schedule of ours is enabled.")


def _tags(project: Path) -> dict[str, str]:
    """The commit that the code is of, where git knows it."""
    git = ["git", "-C", str(project), "rev-parse", "HEAD"]
    try:
        said = subprocess.run(  # noqa: S603
            git, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return {}
    return {"commit": said.stdout.strip()} if said.returncode == 0 else {}


def _is_own(param: str) -> bool:
    return param.strip().startswith(f"{_FILES}.") or not param.strip()
