"""Which models answer: those of an endpoint that is watched, or one that is mounted."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from active_learning.errors import CheckpointError, EndpointError, RequestError
from active_learning.services.deployment.state import (
    RELEASES,
    STATE,
    EndpointState,
    Release,
    WorkerReport,
    read_state,
)
from active_learning.services.scoring.model import InferenceModel

logger = logging.getLogger(__name__)

_random = SystemRandom()


class Served(NamedTuple):
    """Who answers a request: a model, and the deployment it is up in, if it has one."""

    model: InferenceModel
    deployment: str | None


class Releases(Protocol):
    """Models that can answer."""

    def serving(self, deployment: str | None) -> Served:
        """The model for one request; it stays whole as long as it is held.

        Args:
            deployment: The color that the caller asks for; ``None`` goes by traffic.

        Raises:
            RequestError: 404 for a deployment that is not up, 503 when none answers.
        """

    def why_not_ready(self) -> str | None:
        """Why no request can be answered; ``None`` when one can."""

    def status(self) -> dict[str, Any]:
        """What is loaded, for a health check."""

    def close(self) -> None:
        """Stop watching."""


class MountedRelease:
    """One release that never changes, as a managed endpoint mounts it.

    Args:
        folder: The release's.
        threads: Of ONNX Runtime for one answer; 0 for all cores.

    Raises:
        CheckpointError: It cannot answer.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        """Load it."""
        self._model = _loaded(folder, threads)

    def serving(self, deployment: str | None) -> Served:
        """The one model: which deployment it is in, is decided before it."""
        return Served(self._model, None)

    def why_not_ready(self) -> str | None:
        """Never: without a model there is no such object."""
        return None

    def status(self) -> dict[str, Any]:
        """What is loaded."""
        return {"deployments": {}, "loaded": {"model": _named(self._model)}}

    def close(self) -> None:
        """Nothing is watched."""


class _Routes(NamedTuple):
    """A state of the endpoint and what of it can answer; replaced as a whole.

    Attributes:
        state: As the endpoint's file says.
        models: Loaded ones, by release name.
        failed: Why a release that is up could not be loaded, by its name.
        traffic: Who answers, and how much of the requests; empty when nobody can.
    """

    state: EndpointState
    models: Mapping[str, InferenceModel]
    failed: Mapping[str, str]
    traffic: tuple[tuple[Served, int], ...]


class EndpointReleases:
    """The releases of an endpoint, as its state changes.

    A thread looks at the state and loads what is up beside what answers; whatever
    cannot be loaded is said in the log and in this process's ``WorkerReport``, and
    what answered before goes on.

    Args:
        endpoint: The endpoint's folder.
        threads: Of ONNX Runtime for one answer; 0 for all cores.
        poll_s: Between looks.
        retry_s: A release that could not be loaded is tried again after so long.
        wait_s: So long a request waits for the deployment that it names; one request
            at a time, as each holds a thread of the server.
    """

    def __init__(
        self,
        endpoint: Path,
        threads: int,
        *,
        poll_s: float,
        retry_s: float,
        wait_s: float,
    ) -> None:
        """Load what is up now; ``watch`` goes on."""
        self._endpoint = endpoint
        self._threads = threads
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._wait_s = wait_s
        self._routes = _Routes(EndpointState(), {}, {}, ())
        self._unreadable: str | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._retry_at = 0.0
        self._waiting = threading.BoundedSemaphore(1)
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._report = WorkerReport(endpoint)
        self._reported: tuple[Mapping[str, str], Mapping[str, str]] | None = None
        self.look()

    def watch(self) -> Self:
        """Look for changes in the background from now on."""
        self._thread = threading.Thread(
            target=self._watch, name="releases", daemon=True
        )
        self._thread.start()
        return self

    def serving(self, deployment: str | None) -> Served:
        """The model for one request; see ``Releases``."""
        if deployment is not None:
            return self._deployment(deployment)
        traffic = self._routes.traffic
        if not traffic:
            raise RequestError(503, self.why_not_ready() or "No model is loaded.")
        if len(traffic) == 1:
            return traffic[0][0]
        served, shares = zip(*traffic, strict=True)
        chosen: Served = _random.choices(served, shares)[0]
        return chosen

    def why_not_ready(self) -> str | None:
        """Why no request can be answered; ``None`` when one can."""
        routes = self._routes
        if routes.traffic:
            return None
        if self._unreadable:
            return self._unreadable
        wanted = [name for name in _wanted(routes.state) if name in routes.failed]
        if wanted:
            return f"No model is loaded. {routes.failed[wanted[0]]}"
        if routes.state.deployments:
            return "No model is loaded yet: a release is being read."
        return (
            f"No model is in production at {str(self._endpoint)!r}. Train one and "
            "release it: 'kedro run --pipelines train,deploy'. It answers from then "
            "on, without a restart."
        )

    def status(self) -> dict[str, Any]:
        """What is up, what of it is loaded, and what could not be."""
        routes = self._routes
        return {
            "deployments": {
                color: {
                    "release": release.name,
                    "traffic": routes.state.traffic.get(color, 0),
                    "loaded": release.name in routes.models,
                }
                for color, release in routes.state.deployments.items()
            },
            "loaded": {name: _named(model) for name, model in routes.models.items()},
            "failed": dict(routes.failed),
            "endpoint_error": self._unreadable,
        }

    def look(self) -> None:
        """Take over what has changed; what answered before answers meanwhile."""
        stamp = _stamp(self._endpoint / STATE)
        retry = self._routes.failed and time.monotonic() >= self._retry_at
        if self._reported is not None and stamp == self._stamp and not retry:
            return
        try:
            state = read_state(self._endpoint)
        except (EndpointError, OSError) as exc:
            if str(exc) != self._unreadable:
                logger.error("What answered before goes on: %s", exc)
            self._unreadable = str(exc)
        else:
            self._unreadable = None
            self._stamp = stamp
            self._take_over(state)
        self._tell()

    def close(self) -> None:
        """Stop watching, and leave the endpoint's workers."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._report.close()

    def _watch(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            self.look()

    def _take_over(self, state: EndpointState) -> None:
        up = _wanted(state)
        old = self._routes
        self._replace(state, old.models, {})
        failed: dict[str, str] = {}
        for name, release in up.items():
            if name in self._routes.models or self._closing.is_set():
                continue
            try:
                model = self._load(release)
            except Exception as exc:  # noqa: BLE001  # whatever it is, the old goes on
                failed[name] = f"Release {name!r} cannot be loaded: {exc}"
                if failed[name] != old.failed.get(name):
                    logger.error("What answered before goes on. %s", failed[name])
                self._retry_at = time.monotonic() + self._retry_s
                self._replace(state, self._routes.models, failed)
            else:
                logger.info("Release %s is loaded", name)
                self._replace(state, {**self._routes.models, name: model}, failed)
        answering = {served.model.folder.name for served, _ in self._routes.traffic}
        kept = {
            name: model
            for name, model in self._routes.models.items()
            if name in up or name in answering
        }
        for name in self._routes.models.keys() - kept.keys():
            logger.info("Release %s is no longer up", name)
        self._replace(state, kept, failed)

    def _load(self, release: Release) -> InferenceModel:
        model = _loaded(self._endpoint / RELEASES / release.name, self._threads)
        if model.fingerprint != release.fingerprint:
            raise CheckpointError(
                f"its fingerprint is {model.fingerprint}, and the endpoint was given "
                f"{release.fingerprint}; another model lies in its place. Deploy again"
            )
        return model

    def _replace(
        self,
        state: EndpointState,
        models: Mapping[str, InferenceModel],
        failed: Mapping[str, str],
    ) -> None:
        traffic = tuple(
            (Served(models[release.name], color), state.traffic[color])
            for color, release in state.deployments.items()
            if state.traffic.get(color) and release.name in models
        )
        # Nobody of the new ones can answer yet, or nobody can at all: the old do.
        still = traffic if traffic or not state.traffic else self._routes.traffic
        with self._changed:
            self._routes = _Routes(state, models, failed, still)
            self._changed.notify_all()

    def _tell(self) -> None:
        routes = self._routes
        loaded = {name: model.fingerprint for name, model in routes.models.items()}
        said = (loaded, dict(routes.failed))
        if said == self._reported:
            return
        try:
            self._report.write(*said)
        except OSError as exc:
            # Said again at the next look, as it differs from what was reported.
            logger.error("What this process has loaded cannot be told: %s", exc)
            self._stamp = None
        else:
            self._reported = said

    def _deployment(self, color: str) -> Served:
        found = self._found(color)
        if found is not None:
            return found
        if not self._waiting.acquire(blocking=False):
            raise RequestError(503, f"The deployment {color[:50]!a} is being loaded.")
        try:
            self._check_up(color)
            self._wake.set()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._found(color) is not None, self._wait_s
                )
        finally:
            self._waiting.release()
        found = self._found(color)
        if found is None:
            raise RequestError(503, f"The deployment {color[:50]!a} is not loaded yet.")
        return found

    def _found(self, color: str) -> Served | None:
        routes = self._routes
        release = _at(routes.state, color)
        if release is None:
            return None
        if release.name in routes.failed:
            raise RequestError(503, routes.failed[release.name])
        model = routes.models.get(release.name)
        return None if model is None else Served(model, color)

    def _check_up(self, color: str) -> None:
        try:
            state = read_state(self._endpoint)
        except (EndpointError, OSError) as exc:
            raise RequestError(503, str(exc)) from exc
        if _at(state, color) is None:
            up = ", ".join(sorted(state.deployments)) or "none"
            raise RequestError(
                404, f"No deployment is called {color[:50]!a}; up are: {up}."
            )


def _loaded(folder: Path, threads: int) -> InferenceModel:
    """Read a model and have it answer once, which also makes its memory ready.

    Raises:
        CheckpointError: It cannot answer.
    """
    model = InferenceModel.load(folder, threads)
    shape = model.preprocessing
    blank = np.zeros((1, shape.height, shape.width, shape.channels), dtype=np.uint8)
    if not np.isfinite(model.answer(blank)).all():
        raise CheckpointError(
            f"The model in {str(folder)!r} answers a blank image with what is no "
            "number. Train and deploy again."
        )
    return model


def _wanted(state: EndpointState) -> dict[str, Release]:
    """Releases that are up by their names, those that have traffic first."""
    colors = sorted(state.deployments, key=lambda color: -state.traffic.get(color, 0))
    return {state.deployments[color].name: state.deployments[color] for color in colors}


def _at(state: EndpointState, color: str) -> Release | None:
    return next((r for name, r in state.deployments.items() if name == color), None)


def _named(model: InferenceModel) -> dict[str, Any]:
    return {
        "model_name": model.model_name,
        "model_version": model.version,
        "fingerprint": model.fingerprint,
    }


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
