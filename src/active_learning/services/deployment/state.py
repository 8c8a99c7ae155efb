"""What is in production, as files that deploying and serving processes share.

::

    <endpoint>/
        state.json                 which releases are up, and who gets the traffic
        releases/<name>/           models, each written once
        workers/<pid>-<id>.json    what each serving process has loaded

``state.json`` is replaced as a whole, by whoever holds the endpoint's lock; a reader
sees the old state or the new one.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from active_learning.errors import EndpointError
from active_learning.files import alone, replacing

Color = Literal["blue", "green"]

STATE = "state.json"
RELEASES = "releases"
WORKERS = "workers"


class Release(BaseModel):
    """A model that was, is or may be in production.

    Attributes:
        name: Its folder below ``releases``.
        model_name: The network's name.
        model_version: As its predictions bear it.
        fingerprint: Of the inference model's file.
        registry_version: Of the model registry; ``None`` where it was not registered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str
    model_name: str
    model_version: int
    fingerprint: str
    registry_version: str | None = None


class EndpointState(BaseModel):
    """Which releases are up and who answers.

    Attributes:
        deployments: The release behind each color.
        traffic: Percent of the requests for each color that is up; 100 together, or
            no color at all.
        live: The color of the champion; ``None`` before the first.
        history: Earlier champions, the latest last: where a rollback goes.
        rolled_back: What a rollback took out of production.
        last_version: The highest model version that was up; predictions bear it, so
            that no other model may have it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    deployments: Mapping[Color, Release] = {}
    traffic: Mapping[Color, NonNegativeInt] = {}
    live: Color | None = None
    history: tuple[Release, ...] = ()
    rolled_back: tuple[Release, ...] = ()
    last_version: NonNegativeInt = 0

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        strange = set(self.traffic) - set(self.deployments)
        if strange:
            raise ValueError(f"traffic goes to {sorted(strange)}, which is not up")
        total = sum(self.traffic.values())
        if self.traffic and total != 100:
            raise ValueError(f"traffic adds up to {total}, not 100")
        if self.live is not None and self.live not in self.deployments:
            raise ValueError(f"the live color {self.live!r} is not up")
        return self

    @property
    def champion(self) -> Release | None:
        """The release in production; none before the first."""
        return None if self.live is None else self.deployments[self.live]

    @property
    def free(self) -> Color:
        """The color that a new release goes to."""
        return "green" if self.live == "blue" else "blue"

    @property
    def names(self) -> frozenset[str]:
        """The releases that are up or were."""
        known = (*self.deployments.values(), *self.history, *self.rolled_back)
        return frozenset(release.name for release in known)

    def promoted(self, color: Color, back: bool) -> Self:
        """The state when a color is the champion and the old one is down.

        Args:
            color: Is up.
            back: It was champion before; see ``Endpoint.promote``.
        """
        return self.changed(
            deployments={color: self.deployments[color]},
            traffic={color: 100},
            live=color,
            **self.succession(self.deployments[color], back),
        )

    def succession(
        self, release: Release, back: bool
    ) -> dict[str, tuple[Release, ...]]:
        """``history`` and ``rolled_back`` when a release has become the champion."""
        old = (self.champion,) if self.champion else ()
        if back:
            return {
                "history": self.history[:-1],
                "rolled_back": (*self.rolled_back, *old),
            }
        return {
            "history": (*self.history, *old),
            "rolled_back": tuple(r for r in self.rolled_back if r.name != release.name),
        }

    def pruned(self, keep: int) -> Self:
        """The state that remembers so many releases of each kind."""
        return self.changed(
            history=self.history[-keep:], rolled_back=self.rolled_back[-keep:]
        )

    def changed(self, **changes: Any) -> Self:
        """A copy that is validated, which one by ``model_copy`` would not be."""
        return type(self)(**{**dict(self), **changes})


def read_state(endpoint: Path) -> EndpointState:
    """The state of an endpoint; one that nobody released to is empty.

    Raises:
        EndpointError: The file is no state.
    """
    path = endpoint / STATE
    try:
        return parse_state(path.read_bytes(), str(path))
    except FileNotFoundError:
        return EndpointState()


def parse_state(text: bytes, where: str) -> EndpointState:
    """The state that a file holds.

    Raises:
        EndpointError: It is no state.
    """
    try:
        return EndpointState.model_validate_json(text)
    except ValidationError as exc:
        raise EndpointError(
            f"{where!r} does not say what is in production: {exc}. Bring back the "
            "file, or remove it and deploy again."
        ) from exc


def write_state(endpoint: Path, state: EndpointState) -> None:
    """Replace the state of an endpoint; whoever calls it holds ``locked``."""
    with replacing(endpoint / STATE) as temporary:
        temporary.write_text(state.model_dump_json(indent=2), encoding="utf-8")


@contextmanager
def locked(endpoint: Path) -> Iterator[None]:
    """Keep others from changing the state meanwhile; a killed process gives it back.

    Raises:
        EndpointError: Somebody else changes it now.
    """
    with alone(endpoint / ".lock") as lock:
        if lock is None:
            raise EndpointError(
                f"Another process deploys to {str(endpoint)!r} now; wait for its end."
            )
        yield


class WorkerReport:
    """A serving process's word on what it has loaded; ends with the process.

    Args:
        endpoint: The endpoint's folder.
    """

    def __init__(self, endpoint: Path) -> None:
        """Take the place of this process among the workers."""
        # A process id alone comes again, at the latest in another container.
        name = f"{os.getpid()}-{uuid4().hex[:8]}.json"
        self._path = endpoint / WORKERS / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = self._path.with_suffix(".lock")
        # Held as long as the process lives: the kernel tells the dead from the living.
        self._descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        flock(self._descriptor, LOCK_EX)

    def write(self, loaded: Mapping[str, str], failed: Mapping[str, str]) -> None:
        """Say what is loaded.

        Args:
            loaded: Fingerprints of the models that can answer, by release name.
            failed: Why a release cannot, by its name.
        """
        said = {"pid": os.getpid(), "loaded": dict(loaded), "failed": dict(failed)}
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(said), encoding="utf-8")

    def close(self) -> None:
        """Leave."""
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self._descriptor)


def live_workers(endpoint: Path) -> list[dict[str, Any]]:
    """What each serving process that lives has said; the dead are swept away."""
    said = []
    for path in sorted((endpoint / WORKERS).glob("*.json")):
        lock = path.with_suffix(".lock")
        try:
            text = path.read_text(encoding="utf-8")
            descriptor = os.open(lock, os.O_RDWR)
        except FileNotFoundError:  # it has just left
            continue
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            said.append(json.loads(text))
        else:
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
            flock(descriptor, LOCK_UN)
        finally:
            os.close(descriptor)
    return said
