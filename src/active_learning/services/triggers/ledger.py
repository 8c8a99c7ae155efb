"""Which exports finished runs have taken in: one export, one run.

It knows nothing of how an export was heard of: a watcher that polls and a function
that is called at least once for each event ask the same. An event's receiver looks at
what is there now and asks about that, not about what the event said, which may be old.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from active_learning.errors import DataError
from active_learning.files import alone, replacing


class Identity(NamedTuple):
    """An export as it is now.

    Attributes:
        name: Its place relative to the root of the exports.
        stamp: Equal as long as nothing is written to it: size and time, or an etag.
        digest: Of its content.
    """

    name: str
    stamp: str
    digest: str


class TakenIn(BaseModel):
    """An export that a finished run has taken in, or a copy of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: str
    digest: str
    taken_in_at: str


class Failed(BaseModel):
    """An export with which so many runs have failed since it was last changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: str
    digest: str
    n_runs: PositiveInt


class Ledger(BaseModel):
    """What became of each export, by its name.

    Attributes:
        taken_in: As it was last taken in, present or not.
        failed: As runs have last failed with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    taken_in: Mapping[str, TakenIn] = {}
    failed: Mapping[str, Failed] = {}

    def is_unchanged(self, name: str, stamp: str) -> bool:
        """Whether it was taken in and nothing was written since: no need to read it."""
        known = self.taken_in.get(name)
        return known is not None and known.stamp == stamp

    def original(self, digest: str) -> str | None:
        """The name of what was taken in with the same content, if anything was."""
        for name, known in self.taken_in.items():
            if known.digest == digest:
                return name
        return None

    def n_failed(self, export: Identity) -> int:
        """How many runs have failed with this very content of it."""
        known = self.failed.get(export.name)
        return known.n_runs if known and known.digest == export.digest else 0

    def after_success(self, exports: Iterable[Identity], at: datetime) -> Self:
        """What is known once a run has ended well.

        Args:
            exports: What was there, whole, when the run began.
            at: When it was taken in.
        """
        new = {
            each.name: TakenIn(
                stamp=each.stamp, digest=each.digest, taken_in_at=at.isoformat()
            )
            for each in exports
        }
        left = {name: known for name, known in self.failed.items() if name not in new}
        return self.model_copy(
            update={"taken_in": {**self.taken_in, **new}, "failed": left}
        )

    def after_failure(self, exports: Iterable[Identity]) -> Self:
        """What is known once a run has failed: which of them is to blame is not."""
        new = {
            each.name: Failed(
                stamp=each.stamp, digest=each.digest, n_runs=self.n_failed(each) + 1
            )
            for each in exports
        }
        return self.model_copy(update={"failed": {**self.failed, **new}})


def read_ledger(path: Path) -> Ledger:
    """The ledger in a file; before the first run it is empty.

    Raises:
        DataError: The file is no ledger.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Ledger()
    try:
        return Ledger.model_validate_json(text)
    except ValidationError as exc:
        raise DataError(
            f"{str(path)!r} does not say which exports were taken in: {exc}. "
            "Remove it: all exports then start a run once more, which finds nothing "
            "new in them."
        ) from exc


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Replace the ledger as a whole; a reader sees the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(ledger.model_dump(mode="json"), indent=2), encoding="utf-8"
        )


@contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Keep others from starting runs by the same ledger.

    Args:
        path: Of the ledger.

    Yields:
        A file descriptor. A process that inherits it keeps the others away too, as
        long as it lives: a run whose starter was killed is not run beside.

    Raises:
        DataError: Somebody else is at it.
    """
    with alone(path.with_suffix(".lock")) as lock:
        if lock is None:
            raise DataError(
                f"Another process keeps {str(path)!r}: a watcher of the same exports, "
                "or a run that a watcher has started. Wait for its end, or end it."
            )
        yield lock
