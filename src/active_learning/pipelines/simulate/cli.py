"""``kedro azure-simulate``: a simulation as a pipeline job on Azure ML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from kedro.framework.cli.utils import _split_params

from active_learning.errors import SettingsError
from active_learning.services.jobs.cli import (
    azure_env,
    dry_run_option,
    explained,
    job_spec,
    name_option,
    params_option,
    submit,
    validated,
    wait_option,
)

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata

    from active_learning.pipelines.simulate.plan import Plan
    from active_learning.services.jobs.entities import Branch, JobSpec

# What is outside of every seed, and before all of them.
_COMMON = ("test_set", "prepare")


@click.command("azure-simulate")
@name_option
@wait_option
@dry_run_option
@params_option
@azure_env
@click.pass_context
def azure_simulate(
    context: click.Context,
    name: str | None,
    wait: bool,
    dry_run: bool,
    params: str,
    env: str,
) -> None:
    """Simulate on Azure Machine Learning, each seed and strategy on a node of its own.

    The steps share a folder in blob storage, where the report is in the end. Submitted
    again, it goes on where it stopped. The section simulation of
    conf/azure/jobs/jobs.yml says where images and folder are, and in which environment
    the steps run.
    """
    with (
        explained(),
        job_spec(context, env, params, dry_run) as (
            spec,
            handed_on,
            said,
        ),
    ):
        from active_learning.services.jobs.entities import simulation_job
        from active_learning.services.jobs.settings import SimulationSettings

        simulation = validated(SimulationSettings, said.get("simulation", {}))
        plan = _plan(context, simulation.env, simulation.images, handed_on)

        def define(spec: JobSpec) -> dict[str, object]:
            return simulation_job(
                spec, steps_of(plan), simulation=simulation, params=handed_on, name=name
            )

        submit(define, spec, dry_run=dry_run, wait=wait)


def steps_of(plan: Plan) -> dict[str, Branch]:
    """Cut a simulation into what runs side by side.

    Returns:
        What all share; the start of each seed; a step for each seed, strategy and
        variant, after the start it goes on from; and the report after all of them.

    Raises:
        SettingsError: Two steps would have one name.
    """
    from active_learning.services.jobs.entities import Branch

    steps = {"prepare": Branch(_COMMON, ())}
    for seed in plan.params.seeds:
        own = [start for start in plan.starts if start.seed == seed]
        # Every variant learns from one pool, which is drawn once.
        names = tuple(start.namespace for start in own)
        steps[_name(f"seed_{seed}.start")] = Branch(names, ("prepare",))
    for branch in plan.branches:
        before = _name(f"seed_{branch.seed}.start")
        steps[_name(branch.namespace)] = Branch((branch.namespace,), (before,))
    after = tuple(dict.fromkeys(_name(branch.namespace) for branch in plan.branches))
    if len(after) < len(plan.branches):
        raise SettingsError(
            f"{len(plan.branches)} branches make {len(after)} names of steps, which "
            "have neither capitals nor dots nor hyphens. Give two strategies or "
            "variants names that differ otherwise."
        )
    return {**steps, "report": Branch((), after)}


def _plan(context: click.Context, env: str, images: str, params: str) -> Plan:
    from pydantic import ValidationError

    from active_learning.configuration import configuration_of
    from active_learning.pipelines.simulate.plan import make_plan

    metadata: ProjectMetadata = context.obj
    given = _split_params(context, None, params)
    loader = configuration_of(Path(metadata.project_path), env, given)
    try:
        return make_plan(loader["parameters"], images)
    except ValidationError as exc:
        raise click.ClickException(f"simulate: {exc}") from exc


def _name(namespace: str) -> str:
    """A step's name: Azure ML takes small letters, digits and underscores."""
    return namespace.replace(".", "_").replace("-", "_").lower()
