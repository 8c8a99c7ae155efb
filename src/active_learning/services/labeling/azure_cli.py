"""``kedro azure-labeling``: a labeling project of Azure ML, and what it is to know."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader
    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.labeling.azure import LabelingProjects
    from active_learning.services.labeling.azureml import AzureLabelingSettings, Project

_SECTION = "azure_labeling"
_FILE = f"conf/azure/labeling/{_SECTION}.yml"


@click.command(name="azure-labeling")
@click.option("--asset", is_flag=True, help="Register the folder of staged images.")
@click.option("--check", is_flag=True, help="Compare the project's classes with ours.")
@click.option("--export", is_flag=True, help="Start an export, and wait for it.")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    callback=_split_params,
    help="azure_labeling.start_export=true and the like.",
)
@env_option
@click.pass_obj
def azure_labeling(
    metadata: ProjectMetadata,
    asset: bool,
    check: bool,
    export: bool,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Prepare and check a labeling project of Azure ML, and export its labels.

    Without an option it does all three, an export only where
    azure_labeling.start_export says so. Exports are written where label-ingest looks
    for them. What is not given here says conf/azure/labeling/azure_labeling.yml.
    """
    from active_learning.configuration import configuration_of
    from active_learning.errors import ActiveLearningError

    # Paths in conf are relative to the project.
    os.chdir(metadata.project_path)
    loader = configuration_of(Path(metadata.project_path), env, params)
    settings = _settings(loader, params)
    if export and not settings.start_export:
        raise click.ClickException(
            "Starting an export needs a preview API of Azure ML and is off: add "
            f"--params {_SECTION}.start_export=true, or set it in {_FILE}. The studio "
            "exports without it."
        )
    every = not (asset or check or export)
    steps: list[tuple[bool, Callable[..., None]]] = [
        (asset or every, _register),
        (check or every, _check),
        (export or (every and settings.start_export), _export),
    ]
    try:
        projects = _projects(loader, settings)
        for wanted, step in steps:
            if wanted:
                step(projects, settings, loader)
    except ActiveLearningError as exc:
        raise click.ClickException(str(exc)) from exc


def _settings(
    loader: AbstractConfigLoader, params: dict[str, Any]
) -> AzureLabelingSettings:
    from pydantic import ValidationError

    from active_learning.services.labeling.azureml import AzureLabelingSettings

    written = loader["labeling"].get(_SECTION)
    if written is None:
        raise click.ClickException(
            f"There is no {_FILE} in this environment: add --env azure."
        )
    try:
        return AzureLabelingSettings.model_validate(
            {**written, **params.get(_SECTION, {})}
        )
    except ValidationError as exc:
        raise click.ClickException(f"{_FILE}: {exc}") from exc


def _projects(
    loader: AbstractConfigLoader, settings: AzureLabelingSettings
) -> LabelingProjects:
    try:
        from active_learning.services.azure import Workspace
        from active_learning.services.labeling.azure import LabelingProjects
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"Labeling on Azure needs {exc.name}: "
            "pip install 'active-learning-loop[azure]'"
        ) from exc
    return LabelingProjects(
        Workspace.model_validate(loader["globals"]["workspace"]),
        timeout_s=settings.timeout_s,
        poll_s=settings.poll_s,
        retries=settings.retries,
    )


def _register(
    projects: LabelingProjects, settings: AzureLabelingSettings, _: object
) -> None:
    version = projects.watch(settings.asset, settings.folder)
    click.echo(f"{settings.asset}:{version} is {settings.folder}")


def _check(
    projects: LabelingProjects,
    settings: AzureLabelingSettings,
    loader: AbstractConfigLoader,
) -> None:
    from active_learning.services.labeling.azureml import compare

    project = projects.find(settings.project)
    known = _known_classes(loader)
    difference = compare(project, known)
    if difference.strange:
        click.echo(
            f"{project.title}: {len(difference.strange)} classes that no label has "
            f"yet: {', '.join(difference.strange)}. label_ingest.new_classes decides "
            "what becomes of them.",
            err=True,
        )
    if difference.missing:
        raise click.ClickException(
            f"{project.title}: labelers cannot choose {len(difference.missing)} of "
            f"{len(known)} known classes: {', '.join(difference.missing)}. Add them in "
            "the studio, under Label categories."
        )
    click.echo(f"{project.title}: labelers can choose all {len(known)} known classes")


def _export(
    projects: LabelingProjects, settings: AzureLabelingSettings, _: object
) -> None:
    project: Project = projects.find(settings.project)
    made = projects.export(project, settings.format)
    rows = "labels" if made.rows is None else f"{made.rows} labels"
    place = made.place or "the workspace's default container"
    click.echo(f"{project.title}: {rows} exported to {place}")


def _known_classes(loader: AbstractConfigLoader) -> list[str]:
    """The classes that ``label-ingest`` is told, or those of the labels so far."""
    from kedro.config import MissingConfigException
    from kedro.io import DataCatalog

    from active_learning.parameters import announce_parameters

    parameters = loader["parameters"]
    told: list[str] | str | None = parameters["label_ingest"]["classes"]
    if told is not None:
        # Several values of one parameter are joined by +.
        return told.split("+") if isinstance(told, str) else told
    announce_parameters(parameters)
    name = "known_labels"
    try:
        credentials = loader["credentials"]
    except MissingConfigException:
        credentials = None
    catalog = DataCatalog.from_config({name: loader["catalog"][name]}, credentials)
    return sorted(set(catalog.load(name)["label"]))
