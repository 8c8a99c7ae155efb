"""``kedro azure-tables``: the tables of Azure Data Explorer, as the code has them."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.adx_tables.azure import TablesDatabase
    from active_learning.services.adx_tables.settings import AdxTablesSettings

_FILE = "conf/base/azure_tables/azure_tables.yml"


@click.command(name="azure-tables")
@click.option("--apply", "applies", is_flag=True, help="Run the commands.")
@click.option("--check", "checks", is_flag=True, help="Exit 1 where they differ.")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    help="azure_tables.hot_days=7 and the like.",
)
@env_option
@click.pass_context
def azure_tables(
    context: click.Context, applies: bool, checks: bool, params: str, env: str | None
) -> None:
    """Print the commands that make the tables of Azure Data Explorer.

    Their text can be pasted into the web UI, or --apply runs them: first the tables
    that are there are compared with the code, and what cannot be changed in place is
    refused before anything is changed. They may be applied again and again. --check
    only compares. AL_ADX_CLUSTER and AL_ADX_DATABASE say where.
    """
    from active_learning.errors import ActiveLearningError
    from active_learning.services.adx_tables.commands import commands, script

    if applies and checks:
        raise click.UsageError("--apply and --check are two things; give one.")
    metadata: ProjectMetadata = context.obj
    settings = _settings(
        Path(metadata.project_path),
        env,
        _split_params(context, None, params),
    )
    if not applies and not checks:
        click.echo(script(commands(settings)), nl=False)
        return
    try:
        with closing(_database(settings)) as database:
            if checks:
                sys.exit(_check(database))
            _apply(database, settings)
    except ActiveLearningError as exc:
        raise click.ClickException(str(exc)) from exc


def _settings(
    project: Path, env: str | None, given: dict[str, Any]
) -> AdxTablesSettings:
    from omegaconf.errors import InterpolationResolutionError
    from pydantic import ValidationError

    from active_learning.configuration import configuration_of
    from active_learning.services.adx_tables.settings import AdxTablesSettings

    own = given.pop("azure_tables", {})
    try:
        said = configuration_of(project, env, given)["azure_tables"]["azure_tables"]
        return AdxTablesSettings.model_validate({**said, **own})
    except InterpolationResolutionError as exc:
        # An environment may ask for more variables than are needed here.
        raise click.ClickException(str(exc).splitlines()[0]) from exc
    except ValidationError as exc:
        raise click.ClickException(f"{_FILE}: {exc}") from exc


def _database(settings: AdxTablesSettings) -> TablesDatabase:
    variables = {
        "AL_ADX_CLUSTER": settings.cluster,
        "AL_ADX_DATABASE": settings.database,
    }
    missing = [name for name, value in variables.items() if not value]
    if missing or not settings.cluster or not settings.database:
        raise click.ClickException(
            f"{' and '.join(missing)} must say which database is meant, such as "
            "https://name.region.kusto.windows.net and loop."
        )
    try:
        from active_learning.services.adx_tables.azure import TablesDatabase
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"Azure Data Explorer needs {exc.name}: "
            "pip install 'active-learning-loop[azure]'"
        ) from exc
    return TablesDatabase(settings.cluster, settings.database, settings)


def _check(database: TablesDatabase) -> int:
    from active_learning.services.adx_tables.drift import differences

    every = differences(database.found())
    for difference in every:
        # What cannot be mended in place is marked.
        click.echo(f"{'  ' if difference.mends else '! '}{difference.said}")
    there = len(every) or "no"
    click.echo(f"There are {there} differences between the cluster and the code.")
    return 1 if every else 0


def _apply(database: TablesDatabase, settings: AdxTablesSettings) -> None:
    from active_learning.services.adx_tables.azure import apply
    from active_learning.services.adx_tables.commands import commands
    from active_learning.services.adx_tables.drift import (
        differences,
        refuse_conflicts,
        to_refill,
    )

    found = database.found()
    every = differences(found)
    refuse_conflicts(every)
    for difference in every:
        click.echo(f"found: {difference.said}")
    made = commands(settings, refill=to_refill(found))
    apply(database, made, lambda done: click.echo(f"done: {done}"))
    click.echo(f"{len(made)} commands were applied.")
