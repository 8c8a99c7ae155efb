"""Deployment: a release is brought into production beside the one that is there.

``Endpoint`` is what the rest relies on, ``roll_out`` the one way to a new champion;
``local`` gives an endpoint on the files of ``state``, which serving processes watch,
``azure`` a managed online endpoint of Azure Machine Learning.
``registry`` keeps the books on versions in MLflow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from active_learning.errors import EndpointError, UnknownNameError

if TYPE_CHECKING:
    from active_learning.acquisition import FloatArray
    from active_learning.services.deployment.state import Color, EndpointState, Release

logger = logging.getLogger(__name__)


class Example(NamedTuple):
    """An image, and what a release must say of it.

    Attributes:
        image_id: Names it in an error.
        content: The image's file.
        probabilities: (K,) in the order of the release's classes.
    """

    image_id: str
    content: bytes
    probabilities: FloatArray


class Endpoint(Protocol):
    """Where releases are in production.

    What changes it is called inside ``exclusive``.
    """

    @property
    def state(self) -> EndpointState:
        """Which releases are up and who answers, as it is now."""

    @property
    def serving(self) -> bool:
        """Whether requests are answered now."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep others from changing the endpoint meanwhile.

        Raises:
            EndpointError: Somebody else changes it now.
        """

    def folder(self, release: Release) -> Path:
        """Where a release's files are."""

    def exports(self, version: int) -> list[Path]:
        """The folders of releases of a model version, up or not."""

    def incoming(self) -> AbstractContextManager[Path]:
        """A new folder's name, to write a release to; what is left there is removed."""

    def add(self, folder: Path) -> Release:
        """Take a release in, which does not bring it up.

        Raises:
            CheckpointError: It is damaged.
        """

    def stage(self, release: Release) -> Color:
        """Bring a release up beside the others, without traffic.

        Returns:
            Its color, when every serving process has loaded it.

        Raises:
            EndpointError: One could not, or did not in time.
        """

    def smoke_test(self, color: Color, examples: Sequence[Example]) -> None:
        """Ask the release behind a color about real images.

        Raises:
            EndpointError: It does not answer, or otherwise than it must.
        """

    def shift(self, color: Color, percent: int) -> None:
        """Send a part of the requests to a color, the rest to the champion."""

    def watch(self, color: Color, examples: Sequence[Example], step_s: float) -> None:
        """Let a step last, and count meanwhile what callers are answered.

        Args:
            color: Has a part of the requests.
            examples: To ask about where nobody counts.
            step_s: Seconds.

        Raises:
            EndpointError: Too many requests failed.
        """

    def promote(self, color: Color, back: bool) -> None:
        """Make a color the champion and take the old one down.

        Args:
            color: Takes all requests.
            back: It was champion before: the history ends before it, and the old
                champion counts as rolled back.
        """

    def settle(self) -> None:
        """Take down whatever is not the champion, as after a run that was killed."""

    def prune(self, keep: int) -> None:
        """Forget old releases.

        Args:
            keep: So many exports, former champions and rolled back releases stay, and
                what is up.
        """


def connect(
    backend: str,
    place: str,
    *,
    service_url: str = "",
    load_timeout_s: float = 0,
    options: Mapping[str, Any] | None = None,
) -> Endpoint:
    """The endpoint at a place; nothing is asked yet.

    Args:
        backend: ``local`` or ``azure``.
        place: A folder; for ``azure`` the URL of one in blob storage.
        service_url: Where a release is asked, if serving processes of ``local`` live.
        load_timeout_s: So long may it take to bring a release up.
        options: Of ``azure``: see its ``EndpointSettings``.

    Raises:
        UnknownNameError: No backend has that name.
        SettingsError: The options do not hold together.
    """
    if backend == "local":
        from active_learning.services.deployment.local import LocalEndpoint

        return LocalEndpoint(Path(place), service_url, load_timeout_s)
    if backend == "azure":
        from active_learning.services.deployment.azure import (
            AzureEndpoint,
            read_settings,
        )

        return AzureEndpoint(place, read_settings(options or {}), load_timeout_s)
    raise UnknownNameError("deployment backend", backend, ["local", "azure"])


def roll_out(
    endpoint: Endpoint,
    release: Release,
    examples: Sequence[Example],
    steps: Sequence[int],
    step_s: float,
    back: bool = False,
) -> None:
    """Make a release the champion while requests go on.

    It is brought up without traffic and asked about the examples; then it takes its
    steps; each is watched, and it is asked again after it. Whatever goes wrong, the old
    champion has all requests again. Nobody waits for steps where nothing is served or
    was before.

    Args:
        endpoint: Changed; this is called inside its ``exclusive``.
        release: Taken in by ``add``.
        examples: What it must say.
        steps: Percent of the requests, rising.
        step_s: Seconds that each step lasts.
        back: It is a rollback; see ``Endpoint.promote``.

    Raises:
        EndpointError: Why it is not the champion; it is down again.
    """
    name = f"{release.model_name} version {release.model_version}"
    try:
        color = endpoint.stage(release)
        logger.info("%s is up as %s, without traffic", name, color)
        endpoint.smoke_test(color, examples)
        if endpoint.serving and endpoint.state.champion is not None:
            for percent in steps:
                endpoint.shift(color, percent)
                logger.info("%s takes %d%% of the requests", name, percent)
                endpoint.watch(color, examples, step_s)
                endpoint.smoke_test(color, examples)
        endpoint.promote(color, back)
    except BaseException as exc:
        try:
            endpoint.settle()
        except EndpointError as unsettled:
            raise EndpointError(
                f"{exc} It could not be taken down: {unsettled} The next 'kedro run "
                "--pipelines deploy' does that."
            ) from exc
        if isinstance(exc, EndpointError):
            logger.warning("%s is down again: %s", name, exc)
        raise
    logger.info("%s is the champion", name)
