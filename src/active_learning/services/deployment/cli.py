"""``kedro azure-batch``: the champion scores the image store on a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata
    from kedro.io import DataCatalog

    from active_learning.services.deployment.azure.batch import BatchScoring, Job

_FILES = "azure_batch"
_WHERE = "conf/azure/deploy/azure_batch.yml"


@click.command("azure-batch")
@click.argument("step", type=click.Choice(["deploy", "score", "collect"]))
@click.option("--output", help="What to collect; 'score' prints it.")
@click.option("--wait", is_flag=True, help="Collect what 'score' has started.")
@click.option("--env", "-e", default="azure", show_default=True)
@click.pass_obj
def azure_batch(
    metadata: ProjectMetadata, step: str, output: str | None, wait: bool, env: str
) -> None:
    """Score every image by a batch endpoint of Azure ML.

    'deploy' lets it score with the champion, 'score' starts a job, and 'collect' puts
    what the job has said where the pipeline 'score' would have put it.
    """
    from kedro.framework.session import KedroSession

    from active_learning.errors import ActiveLearningError

    if (step == "collect") != (output is not None):
        raise click.UsageError("--output is for 'collect', and 'collect' needs it.")
    with KedroSession.create(Path(metadata.project_path), env=env) as session:
        context = session.load_context()  # type: ignore[attr-defined]
        loader: Any = context.config_loader
        try:
            if step == "collect":
                _collect(context.catalog, str(output))
                return
            batch, settings = _batch(loader)
            if step == "deploy":
                click.echo(_deploy(context.catalog, batch))
                return
            job = batch.invoke()
            click.echo(f"{job.name} writes to {job.output}")
            if wait:
                _wait(batch, job, settings["poll_s"])
                _collect(context.catalog, job.output)
        except ActiveLearningError as exc:
            raise click.ClickException(str(exc)) from exc


def _batch(loader: Any) -> tuple[BatchScoring, dict[str, Any]]:
    from pydantic import ValidationError

    from active_learning.services.azure import Workspace
    from active_learning.services.deployment.azure.batch import (
        BatchScoring,
        BatchSettings,
    )

    said = loader[_FILES]
    try:
        settings = BatchSettings.model_validate(said["endpoint"])
        workspace = Workspace.model_validate(said["workspace"])
    except (ValidationError, KeyError) as exc:
        raise click.ClickException(f"{_WHERE}: {exc}") from exc
    return BatchScoring(workspace, settings), said


def _deploy(catalog: DataCatalog, batch: BatchScoring) -> str:
    champion = catalog.load("endpoint").state.champion
    if champion is None:
        raise click.ClickException(
            "There is no champion to score with: 'kedro run --pipelines train,deploy'."
        )
    return batch.deploy(champion)


def _wait(batch: BatchScoring, job: Job, poll_s: float) -> None:
    while batch.status(job.name) != "Completed":
        time.sleep(poll_s)


def _collect(catalog: DataCatalog, output: str) -> None:
    from active_learning.services.scoring.collected import read_job

    collected = read_job(output, catalog.load("images").image_ids())
    # The predictions last, since they are what counts as done.
    catalog.save("unreadable_images", collected.set_aside.to_pandas())
    catalog.save("scored_batch", collected.predictions.to_pandas())
    click.echo(
        f"{len(collected.predictions)} images are scored, "
        f"{len(collected.set_aside)} are set aside."
    )
