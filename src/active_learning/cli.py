"""Commands of this project beside Kedro's own."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import (
    CONTEXT_SETTINGS,
    _split_params,
    env_option,
)

from active_learning.pipelines.simulate.cli import azure_simulate
from active_learning.pipelines.train.cli import join_training
from active_learning.services.adx_tables.cli import azure_tables
from active_learning.services.deployment.cli import azure_batch
from active_learning.services.jobs.cli import azure_job, azure_schedules
from active_learning.services.labeling.azure_cli import azure_labeling
from active_learning.services.labeling.cli import label
from active_learning.services.triggers.cli import watch

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.scoring.settings import ServerSettings

_APPLICATION = "active_learning.services.scoring.wsgi:create_app()"
_NEEDED = ("azureml_inference_server_http", "gunicorn")


@click.group(context_settings=CONTEXT_SETTINGS, name=__name__)
def cli() -> None:
    """Commands that Kedro adds to its own."""


for command in (
    label,
    watch,
    azure_tables,
    azure_labeling,
    azure_batch,
    azure_job,
    azure_schedules,
    azure_simulate,
    join_training,
):
    cli.add_command(command)


@cli.command()
@click.option("--workers", type=click.IntRange(1), help="Processes that answer.")
@click.option("--port", type=click.IntRange(0, 65535), help="Where they are asked.")
@click.option("--host", help="Who may ask: 127.0.0.1 is this machine alone.")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    callback=_split_params,
    help="images=FOLDER is the image store, as for every pipeline.",
)
@env_option
@click.pass_obj
def serve(
    metadata: ProjectMetadata,
    workers: int | None,
    port: int | None,
    host: str | None,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Answer requests with the champion, and collect what was answered.

    What is not given here says conf/base/serve/serving.yml. A new champion takes over
    without a restart.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"Serving needs {' and '.join(missing)}: "
            "pip install 'active-learning-loop[serve]'"
        )
    from pydantic import ValidationError

    from active_learning.configuration import configuration_of
    from active_learning.services.scoring.settings import (
        MODEL_FOLDER,
        SETTINGS,
        ServerSettings,
        ServingSettings,
    )

    loader = configuration_of(Path(metadata.project_path), env, params)
    said: dict[str, Any] = loader["serving"]
    options = {"workers": workers, "port": port, "host": host}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        service = ServingSettings.model_validate(said.get("serve"))
        server = ServerSettings.model_validate({**said.get("server", {}), **given})
    except ValidationError as exc:
        raise click.ClickException(f"conf/base/serve/serving.yml: {exc}") from exc
    # A release that Azure mounts would go before the endpoint's.
    environment = {k: v for k, v in os.environ.items() if k != MODEL_FOLDER}
    environment[SETTINGS] = service.model_dump_json()
    click.echo(f"Scoring on http://{server.host}:{server.port}/score", err=True)
    # Paths in conf are relative to the project.
    os.chdir(metadata.project_path)
    os.execve(sys.executable, _command(server), environment)  # noqa: S606


def _command(server: ServerSettings) -> list[str]:
    options = {
        "--bind": f"{server.host}:{server.port}",
        "--workers": server.workers,
        "--worker-class": "gthread",
        "--threads": server.threads,
        "--timeout": server.timeout_s,
        "--graceful-timeout": server.graceful_s,
    }
    listed = [str(part) for option in options.items() for part in option]
    gunicorn = [sys.executable, "-m", "gunicorn"]
    return [*gunicorn, *listed, "--no-control-socket", _APPLICATION]
