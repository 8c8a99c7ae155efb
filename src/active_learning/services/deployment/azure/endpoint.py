"""A managed online endpoint of Azure Machine Learning."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from active_learning.errors import CheckpointError, EndpointError, SettingsError
from active_learning.services.deployment import Example
from active_learning.services.deployment.answers import (
    check,
    compare,
    is_same,
    named,
    read_answer,
)
from active_learning.services.deployment.azure.books import reconciled
from active_learning.services.deployment.azure.control import (
    BACK,
    CHAMPION,
    ROLLING_OUT,
    ControlPlane,
    Deployed,
)
from active_learning.services.deployment.azure.data_plane import DataPlane
from active_learning.services.deployment.azure.lease import Lease
from active_learning.services.deployment.azure.metrics import answered
from active_learning.services.deployment.azure.releases import ReleaseStore
from active_learning.services.deployment.azure.settings import (
    DeploymentSettings,
    EndpointSettings,
)
from active_learning.services.deployment.state import Color, EndpointState, Release
from active_learning.services.scoring.model import InferenceModel

logger = logging.getLogger(__name__)

_WAY_OUT = "Let AL_ENDPOINT name an endpoint of this project"


class _Now(NamedTuple):
    """The endpoint, if there is one, and what is in production."""

    found: Deployed | None
    state: EndpointState


class AzureEndpoint:
    """Blue and green deployments of a managed online endpoint; see ``Endpoint``.

    Traffic and the champion's name are changed by one request, so that a run which is
    killed leaves one champion; what is not in the books then, the next run finds.

    Args:
        place: URL of a folder of blobs for releases and books.
        settings: Which endpoint, and how releases are brought up.
        timeout_s: So long may Azure take to bring one up.
    """

    def __init__(
        self, place: str, settings: EndpointSettings, timeout_s: float
    ) -> None:
        """Describe the endpoint; nothing is asked yet."""
        self._settings = settings
        self._store = ReleaseStore(place, Path(settings.cache))
        self._lease = Lease(self._store.lock)
        self._control = ControlPlane(settings, timeout_s)

    @property
    def state(self) -> EndpointState:
        """Which releases are up and who answers, as it is now."""
        return self._now().state

    @property
    def serving(self) -> bool:
        """Whether the endpoint is there and somebody has traffic."""
        found = self._control.look()
        return found is not None and bool(found.traffic)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep others, wherever they are, from changing the endpoint meanwhile."""
        with self._lease.held():
            yield

    def folder(self, release: Release) -> Path:
        """Where a release's files are on this machine; brought here if they are not.

        Raises:
            CheckpointError: They are gone, or not what they were.
        """
        return self._store.fetch(release.name)

    def exports(self, version: int) -> list[Path]:
        """The folders of releases of a model version, up or not."""
        folders = []
        for name in self._store.names(f"{version:06d}-"):
            try:
                folders.append(self._store.fetch(name))
            except CheckpointError as exc:
                logger.warning("%s is not used again: %s", name, exc)
        return folders

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder's name, to write a release to; what is left there is removed."""
        folder = self._store.incoming()
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, folder: Path) -> Release:
        """Give a release its name, and its place among the others.

        Raises:
            CheckpointError: It is damaged.
            EndpointError: Another of the same weights and version is up or was.
        """
        release = named(InferenceModel.load(folder))
        if folder == self._store.cached(release.name) or self._has(release, folder):
            return release
        self._store.put(release.name, folder)
        return release

    def stage(self, release: Release) -> Color:
        """Bring a release up without traffic; see ``Endpoint``."""
        self._lease.check()
        self._check(release)
        settings = self._deployment
        state = self.state
        color = state.free
        # First, so that no other model gets a version that was up.
        version = max(state.last_version, release.model_version)
        self._store.write_books(state.changed(last_version=version))
        self._control.ensure(settings)
        self._control.deploy(color, release, settings)
        return color

    def smoke_test(self, color: Color, examples: Sequence[Example]) -> None:
        """Ask the deployment itself about images, whatever its traffic is."""
        now = self._now()
        if now.found is None or color not in now.state.deployments:
            raise EndpointError(
                f"{self._settings.name!r} has no deployment {color!r} any more: "
                "somebody else has deleted it. Deploy again."
            )
        release = now.state.deployments[color]
        classes = self._check(release).classes
        service = DataPlane(now.found.url)
        for example in examples:
            status, text = service.ask(color, example.content)
            said = read_answer(
                service.url, status, text, color, release, classes, example, _WAY_OUT
            )
            compare(release, example, said)

    def shift(self, color: Color, percent: int) -> None:
        """Send a part of the requests to a color, the rest to the champion."""
        self._lease.check()
        live = self.state.live
        rest = {} if live is None else {live: 100 - percent}
        traffic = {**rest, color: percent if rest else 100}
        tags = {ROLLING_OUT: color} if live is None else _rolling(color, live)
        self._control.route({c: s for c, s in traffic.items() if s}, tags)

    def watch(self, color: Color, examples: Sequence[Example], step_s: float) -> None:
        """Let a step last, and count what callers are answered; see ``Endpoint``.

        Azure Monitor counts them, where the settings say so. Else the color is asked
        about the examples, and that is counted.
        """
        if self._deployment.watch.metrics:
            requests, failed = self._count_callers(color, step_s)
        else:
            requests, failed = self._count_examples(color, examples, step_s)
        logger.info("%s failed %g of %g requests", color, failed, requests)
        share = failed / requests if requests else 0.0
        if share > self._deployment.watch.max_failed:
            raise EndpointError(
                f"{color!r} failed {failed:g} of {requests:g} requests, more than the "
                f"share of {self._deployment.watch.max_failed:g} that "
                "deployment.watch.max_failed allows. See its log in the studio."
            )

    def promote(self, color: Color, back: bool) -> None:
        """Make a color the champion, in one step; see ``Endpoint``."""
        self._lease.check()
        state = self.state
        tags = {CHAMPION: color, BACK: "true" if back else "false"}
        try:
            self._control.route({color: 100}, tags)
        except EndpointError as exc:
            if not self._is_champion(color):
                raise
            # The answer was lost, and what was asked is done.
            logger.warning("%s is the champion all the same: %s", color, exc)
        # From here on it is the champion: what fails now, the next run makes up for.
        try:
            self._store.write_books(state.promoted(color, back))
            self._remove_but(color)
        except EndpointError as exc:
            logger.warning("%s is the champion, and not all is tidy: %s", color, exc)

    def settle(self) -> None:
        """Take down whatever is not the champion, and bring the books up to date."""
        self._lease.check()
        found, state = self._now()
        live = state.live
        if found is not None:
            up = live is not None and found.up.get(live) is not None
            self._settle_traffic(found, live if up else None)
            self._remove_but(live if up else None)
        kept = {} if live is None else {live: state.deployments[live]}
        settled = state.changed(deployments=kept, traffic=dict.fromkeys(kept, 100))
        if settled != self._store.read_books():
            self._store.write_books(settled)

    def prune(self, keep: int) -> None:
        """Forget all but the latest releases; see ``Endpoint``."""
        self._lease.check()
        try:
            state = self.state.pruned(keep)
            self._store.write_books(state)
            self._store.forget(keep, state.names)
        except EndpointError as exc:
            logger.warning("Old releases are still there: %s", exc)

    @property
    def _deployment(self) -> DeploymentSettings:
        if self._settings.deployment is None:
            raise SettingsError(
                "This endpoint is only read: options.deployment says how releases are "
                "brought up. See conf/azure/deploy/catalog.yml."
            )
        return self._settings.deployment

    @cached_property
    def _manager(self) -> str:
        """URL of Azure Resource Manager in the cloud that the client has found."""
        return str(self._control.client._base_url).rstrip("/")

    def _now(self) -> _Now:
        found = self._control.look()
        return _Now(found, reconciled(self._store.read_books(), found))

    def _check(self, release: Release) -> InferenceModel:
        try:
            folder = self.folder(release)
        except CheckpointError as exc:
            raise EndpointError(
                f"{release.name!r} cannot be brought up: {exc}"
            ) from exc
        return check(folder, release)

    def _has(self, release: Release, folder: Path) -> bool:
        if release.name not in self._store.names(release.name):
            return False
        try:
            place = self._store.fetch(release.name)
        except CheckpointError as exc:
            logger.warning("%s is written again: %s", release.name, exc)
            return False
        return is_same(place, folder, self.state)

    def _is_champion(self, color: Color) -> bool:
        found = self._control.look()
        return (
            found is not None
            and found.traffic == {color: 100}
            and found.tags.get(CHAMPION) == color
            and ROLLING_OUT not in found.tags
        )

    def _settle_traffic(self, found: Deployed, live: Color | None) -> None:
        traffic: dict[str, int] = {} if live is None else {live: 100}
        moved = found.traffic != traffic or found.tags.get(CHAMPION) != live
        if moved or ROLLING_OUT in found.tags:
            tags = {} if live is None else {CHAMPION: str(live)}
            self._control.route(traffic, tags)

    def _remove_but(self, live: Color | None) -> None:
        found = self._control.look()
        for color in ("blue", "green"):
            if found is not None and color in found.up and color != live:
                self._control.remove(color)

    def _count_callers(self, color: Color, step_s: float) -> tuple[float, float]:
        since = datetime.now(UTC)
        time.sleep(step_s)
        until = datetime.now(UTC)
        time.sleep(self._deployment.watch.delay_s)
        workspace, name = self._settings.workspace, self._settings.name
        counted = answered(self._manager, workspace, name, color, since, until)
        return counted.requests, counted.failed

    def _count_examples(
        self, color: Color, examples: Sequence[Example], step_s: float
    ) -> tuple[float, float]:
        found = self._control.look()
        if found is None:
            raise EndpointError(f"The endpoint {self._settings.name!r} is gone.")
        service = DataPlane(found.url)
        ends = time.monotonic() + step_s
        requests = failed = 0
        for example in cycle(examples):
            failed += service.failed(color, example.content)
            requests += 1
            left = ends - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, self._deployment.watch.every_s))
        return requests, failed


def _rolling(color: Color, live: Color) -> dict[str, str]:
    return {ROLLING_OUT: color, CHAMPION: live}
