"""An endpoint on this machine: files, and the processes that watch them."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from active_learning.acquisition import FloatArray
from active_learning.errors import EndpointError, ImageError
from active_learning.services.deployment import Example
from active_learning.services.deployment.answers import (
    check,
    compare,
    is_same,
    named,
    read_answer,
)
from active_learning.services.deployment.state import (
    RELEASES,
    Color,
    EndpointState,
    Release,
    live_workers,
    locked,
    read_state,
    write_state,
)
from active_learning.services.scoring import COLLECT_HEADER, DEPLOYMENT_HEADER
from active_learning.services.scoring.model import InferenceModel

_POLL_S = 0.05
_ANSWER_TIMEOUT_S = 30.0
# A smoke test decodes images that the store has decoded before.
_MAX_PIXELS = 1_000_000_000


class LocalEndpoint:
    """Blue and green deployments on files; see ``Endpoint``.

    Serving processes watch the state; where none lives, a release is tried in this
    process.

    Args:
        root: The endpoint's folder.
        service_url: Where requests are answered when serving processes live.
        load_timeout_s: So long may they take to load a release.
    """

    def __init__(self, root: Path, service_url: str, load_timeout_s: float) -> None:
        """Describe the endpoint; nothing is read or made yet."""
        self._root = root
        self._service_url = service_url
        self._load_timeout_s = load_timeout_s

    @property
    def state(self) -> EndpointState:
        """Which releases are up and who answers, as it is now."""
        return read_state(self._root)

    @property
    def serving(self) -> bool:
        """Whether a serving process lives."""
        return bool(live_workers(self._root))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep others from changing the endpoint meanwhile."""
        with locked(self._root):
            yield

    def folder(self, release: Release) -> Path:
        """Where a release's files are."""
        return self._root / RELEASES / release.name

    def exports(self, version: int) -> list[Path]:
        """The folders of releases of a model version, up or not."""
        return sorted((self._root / RELEASES).glob(f"{version:06d}-*"))

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder's name, to write a release to; what is left there is removed."""
        folder = self._root / RELEASES / f".incoming-{uuid4().hex}"
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
        place = self.folder(release)
        if folder != place and not is_same(place, folder, self.state):
            shutil.rmtree(place, ignore_errors=True)
            folder.rename(place)
        return release

    def stage(self, release: Release) -> Color:
        """Bring a release up without traffic; see ``Endpoint``."""
        check(self.folder(release), release)
        state = self.state
        color = state.free
        self._write(
            state,
            deployments={**state.deployments, color: release},
            last_version=max(state.last_version, release.model_version),
        )
        self._await_loaded(release)
        return color

    def smoke_test(self, color: Color, examples: Sequence[Example]) -> None:
        """Ask over HTTP where processes serve, in this process where none does."""
        release = self.state.deployments[color]
        self._await_loaded(release)
        over_http = self.serving
        model = check(self.folder(release), release)
        for example in examples:
            if over_http:
                said = self._ask(color, release, model.classes, example)
            else:
                said = _answer(model, example)
            compare(release, example, said)

    def shift(self, color: Color, percent: int) -> None:
        """Send a part of the requests to a color, the rest to the champion."""
        state = self.state
        rest = {} if state.live is None else {state.live: 100 - percent}
        self._write(state, traffic={**rest, color: percent if rest else 100})

    def watch(self, color: Color, examples: Sequence[Example], step_s: float) -> None:
        """Let a step last; nobody counts what callers are answered."""
        time.sleep(step_s)

    def promote(self, color: Color, back: bool) -> None:
        """Make a color the champion, in one step; see ``Endpoint``."""
        state = self.state
        self._write(state.promoted(color, back))

    def settle(self) -> None:
        """Take down whatever is not the champion."""
        state = self.state
        settled = {} if state.live is None else {state.live: 100}
        up = {color: state.deployments[color] for color in settled}
        if dict(state.deployments) != up or dict(state.traffic) != settled:
            self._write(state, deployments=up, traffic=settled)

    def prune(self, keep: int) -> None:
        """Forget all but the latest releases; see ``Endpoint``."""
        state = self.state.pruned(keep)
        self._write(state)
        folders = (self._root / RELEASES).glob("[0-9]*")
        latest_last = sorted(folders, key=lambda folder: folder.stat().st_mtime)
        for folder in latest_last[:-keep]:
            if folder.name not in state.names:
                shutil.rmtree(folder)

    def _write(self, state: EndpointState, **changes: Any) -> None:
        write_state(self._root, state.changed(**changes))

    def _await_loaded(self, release: Release) -> None:
        """Wait until every serving process that lives has loaded a release.

        Raises:
            EndpointError: One could not, or did not in time.
        """
        deadline = time.monotonic() + self._load_timeout_s
        while True:
            workers = live_workers(self._root)
            for worker in workers:
                if release.name in worker["failed"]:
                    raise EndpointError(
                        f"The serving process {worker['pid']} cannot load "
                        f"{release.name!r}: {worker['failed'][release.name]}"
                    )
            waiting = [
                worker["pid"]
                for worker in workers
                if worker["loaded"].get(release.name) != release.fingerprint
            ]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise EndpointError(
                    f"{len(waiting)} of {len(workers)} serving processes have not "
                    f"loaded {release.name!r} after {self._load_timeout_s:g} s; the "
                    f"first is process {waiting[0]}. See its log, or give them longer "
                    "in deploy.load_timeout_s."
                )
            time.sleep(_POLL_S)

    def _ask(
        self, color: Color, release: Release, classes: Sequence[str], example: Example
    ) -> FloatArray:
        """What the service says of an image when it is asked for a color."""
        status, text = self._post(color, example.content)
        return read_answer(
            self._service_url,
            status,
            text,
            color,
            release,
            classes,
            example,
            "Set deploy.service_url",
        )

    def _post(self, color: Color, content: bytes) -> tuple[int, str]:
        parts = urlsplit(self._service_url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = connect(parts.netloc, timeout=_ANSWER_TIMEOUT_S)
        headers = {
            "Content-Type": "application/octet-stream",
            DEPLOYMENT_HEADER: color,
            COLLECT_HEADER: "false",
        }
        try:
            connection.request("POST", parts.path or "/", content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        except (OSError, HTTPException) as exc:
            raise EndpointError(
                f"Serving processes live, but {self._service_url} does not answer: "
                f"{exc}. Set deploy.service_url to where they listen."
            ) from exc
        finally:
            connection.close()


def _answer(model: InferenceModel, example: Example) -> FloatArray:
    """What a model says of an image's file, decoded as a service decodes it."""
    from active_learning.imaging.decode import decode

    try:
        pixels = decode(example.content, model.preprocessing, _MAX_PIXELS)
    except ImageError as exc:
        raise EndpointError(
            f"{example.image_id!r} cannot be used for a smoke test: {exc}"
        ) from exc
    said: FloatArray = model.answer(pixels[None])[0]
    return said
