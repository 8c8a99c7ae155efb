"""``kedro watch``: a new export of labels starts training."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

if TYPE_CHECKING:
    from kedro.config import AbstractConfigLoader
    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.triggers.exports import ExportsPlace
    from active_learning.services.triggers.settings import WatchSettings


@click.command()
@click.option("--once", is_flag=True, help="Look, run if there is something, and end.")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    help="watch.settle_s=60 and the like; the rest is handed to the runs.",
)
@env_option
@click.pass_context
def watch(context: click.Context, once: bool, params: str, env: str | None) -> None:
    """Start a run when there is a new export of labels, once for each.

    It looks where label_exports comes in and runs label-ingest, train and deploy. What
    is not given here says conf/base/watch/watch.yml. Ctrl-C ends it; a run that is
    under way is waited for, unless Ctrl-C is typed once more.
    """
    from active_learning.configuration import configuration_of
    from active_learning.errors import ActiveLearningError
    from active_learning.services.triggers.ledger import exclusive
    from active_learning.services.triggers.process import Interrupts
    from active_learning.services.triggers.watcher import Watcher

    metadata: ProjectMetadata = context.obj
    project = Path(metadata.project_path)
    given = _split_params(context, None, params)
    own = given.pop("watch", {})
    loader = configuration_of(project, env, given)
    settings, place = _settings(loader, own), _place(loader, env, project)
    handed_on = [item for item in params.split(",") if not _is_own(item)]
    command = _command(settings.pipelines, env, ",".join(handed_on))
    signals = Interrupts()
    signals.listen()
    try:
        ledger = project / settings.ledger
        with exclusive(ledger) as lock:
            run = partial(signals.run, command, project, os.environ, lock)
            watcher = Watcher(place, ledger, run, settings, signals)
            if once:
                sys.exit(watcher.once())
            watcher.watch()
    except (ActiveLearningError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _settings(loader: AbstractConfigLoader, given: dict[str, Any]) -> WatchSettings:
    from pydantic import ValidationError

    from active_learning.services.triggers.settings import WatchSettings

    try:
        return WatchSettings.model_validate({**loader["watch"]["watch"], **given})
    except ValidationError as exc:
        raise click.ClickException(f"conf/base/watch/watch.yml: {exc}") from exc


def _place(
    loader: AbstractConfigLoader, env: str | None, project: Path
) -> ExportsPlace:
    """Where the catalog of the environment says that exports come in."""
    from active_learning.parameters import announce_parameters
    from active_learning.services.triggers.exports import ExportsPlace

    # The catalog asks for parameters, as in every run.
    announce_parameters(loader["parameters"])
    entry = loader["catalog"]["label_exports"]
    kind = str(entry["type"]).rpartition(".")[2]
    if kind != "LabelExportsDataset":
        raise click.ClickException(
            f"label_exports of {f'--env {env}' if env else 'conf/base'} is of the type "
            f"{kind}: there is no place that exports come to. Watch an environment in "
            "which it is a LabelExportsDataset."
        )
    credentials = entry.get("credentials") or {}
    if isinstance(credentials, str):
        credentials = loader["credentials"][credentials]
    root = str(entry["path"])
    if "://" not in root and "::" not in root:
        root = str(project / root)
    return ExportsPlace(root, {**(entry.get("fs_args") or {}), **credentials})


def _is_own(param: str) -> bool:
    return param.strip().startswith("watch.")


def _command(pipelines: str, env: str | None, params: str) -> list[str]:
    options = [("--pipelines", pipelines), ("--env", env), ("--params", params)]
    listed = [part for option in options if option[1] for part in option]
    return [sys.executable, "-m", "kedro", "run", *map(str, listed)]
