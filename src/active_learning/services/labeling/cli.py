"""``kedro label``: requests go to Label Studio, answers come back."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from kedro.framework.startup import ProjectMetadata

    from active_learning.services.labeling.label_studio.client import LabelStudio
    from active_learning.services.labeling.label_studio.settings import LabelSettings


@click.command()
@click.option("--once", is_flag=True, help="One turn with a server that runs, no more.")
@click.option("--url", help="A Label Studio that runs elsewhere.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the one started here.")
@click.option("--project", help="The project's title.")
@click.option("--classes", help="To choose from, joined by +: before the first label.")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    callback=_split_params,
    help="label.images=uploaded and the like.",
)
@env_option
@click.pass_obj
def label(
    metadata: ProjectMetadata,
    once: bool,
    url: str | None,
    port: int | None,
    project: str | None,
    classes: str | None,
    params: dict[str, Any],
    env: str | None,
) -> None:
    """Bring label requests to Label Studio, and finished annotations back.

    Starts a Label Studio on this machine when none runs, in an environment of its own;
    then a turn every label.interval_s until Ctrl-C. What is not given here says
    conf/base/label/labeling.yml.
    """
    from pydantic import ValidationError

    from active_learning.errors import ActiveLearningError
    from active_learning.imaging.places import LocalPlace, place_at
    from active_learning.services.labeling.label_studio.client import LabelStudio
    from active_learning.services.labeling.label_studio.server import (
        HOST,
        login_file,
        running,
        token_of,
    )
    from active_learning.services.labeling.label_studio.settings import (
        LabelSettings,
        ServerSettings,
    )

    # Paths in conf are relative to the project.
    os.chdir(metadata.project_path)
    said, choices = _configuration(metadata, env, params)
    if classes is not None:
        choices = [name.strip() for name in classes.split("+") if name.strip()]
    given: dict[str, dict[str, Any]] = {
        "label": {"project": project},
        "label_studio": {"port": port},
    }
    for section, options in given.items():
        told = {name: value for name, value in options.items() if value is not None}
        said[section] = {**said.get(section, {}), **told}
    try:
        settings = LabelSettings.model_validate(said["label"])
        server = ServerSettings.model_validate(said["label_studio"])
    except ValidationError as exc:
        raise click.ClickException(f"conf/base/label/labeling.yml: {exc}") from exc

    queue = place_at(settings.queue, None)

    def connect(token: str) -> LabelStudio:
        place = url or f"http://{HOST}:{server.port}"
        return LabelStudio(place, token, settings.timeout_s, settings.retries)

    enough = threading.Event()

    def end(number: int, _: object) -> None:
        # A turn comes to its end; the second signal does not wait for that.
        signal.signal(number, signal.default_int_handler)
        enough.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        with ExitStack() as stack:
            check = _nothing
            if not (once or url or connect("").healthy()):
                click.echo("Starting Label Studio; at first it is installed", err=True)
                check = stack.enter_context(
                    running(
                        server,
                        Path(
                            queue.root if isinstance(queue, LocalPlace) else server.data
                        ),
                        os.environ,
                        lambda: enough.is_set() or connect("").healthy(),
                    )
                )
                click.echo(f"The login is in {login_file(server)}", err=True)
            if not enough.is_set():
                studio = connect(token_of(server, url))
                _take_turns(studio, settings, choices, None if once else enough, check)
    except ActiveLearningError as exc:
        raise click.ClickException(str(exc)) from exc


def _take_turns(
    studio: LabelStudio,
    settings: LabelSettings,
    classes: list[str] | None,
    enough: threading.Event | None,
    check: Callable[[], None],
) -> None:
    from active_learning.errors import LabelingAwayError
    from active_learning.services.labeling.label_studio.sync import take_turn

    while True:
        try:
            turn = take_turn(studio, settings, classes)
        except LabelingAwayError as exc:
            if enough is None:
                raise
            check()
            click.echo(f"{exc} Trying again.", err=True)
        else:
            answers = f" in {turn.export}" if turn.export else ""
            click.echo(
                f"{turn.project}: {turn.n_added} new requests, {turn.n_waiting} wait, "
                f"{turn.n_answers} new answers{answers}"
            )
        if enough is None or enough.wait(settings.interval_s):
            return


def _configuration(
    metadata: ProjectMetadata, env: str | None, params: dict[str, Any]
) -> tuple[dict[str, Any], list[str] | None]:
    """What this command is told, and the classes that ``label-ingest`` takes."""
    from active_learning.configuration import configuration_of

    loader = configuration_of(Path(metadata.project_path), env, params)
    said = {
        section: {**options, **params.get(section, {})}
        for section, options in loader["labeling"].items()
    }
    choices: list[str] | None = loader["parameters"]["label_ingest"]["classes"]
    return said, choices


def _nothing() -> None:
    """There is no server of ours to look after."""
