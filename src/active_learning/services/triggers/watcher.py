"""Looks for exports again and again, and starts a run when there is a new one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from active_learning.services.triggers.exports import Export, ExportsPlace
from active_learning.services.triggers.ledger import (
    Identity,
    Ledger,
    read_ledger,
    write_ledger,
)
from active_learning.services.triggers.settings import WatchSettings

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # as a shell says it
_SLOWER = 1.5


class Signals(Protocol):
    """How a watcher waits, and learns that it shall end."""

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the watcher shall end; whether it shall."""
        ...


class Sight(NamedTuple):
    """What a look has found.

    Attributes:
        due: What a run shall take in now.
        beside: What runs have failed with and set aside; the next one takes it in too.
        unsettled: Whether something is still being written.
    """

    due: list[Identity]
    beside: list[Identity]
    unsettled: bool


class Watcher:
    """Starts one run for all exports that are new or changed, and whole.

    Args:
        place: Where exports come in.
        ledger: The file of what was taken in; this watcher alone writes it.
        run: Runs the pipelines and gives the exit code, or ``None`` for a run that was
            interrupted because the watcher shall end.
        settings: When.
        signals: Waits, and says when to end.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        place: ExportsPlace,
        ledger: Path,
        run: Callable[[], int | None],
        settings: WatchSettings,
        signals: Signals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember all of it; nothing is looked at yet."""
        self._place = place
        self._path = ledger
        self._run = run
        self._settings = settings
        self._signals = signals
        self._clock = clock
        # By export: its stamp, since when it has had it, and its digest once read.
        self._since: dict[str, tuple[str, float]] = {}
        self._digests: dict[str, Identity] = {}
        self._retry_at = clock()
        self._away = False

    def watch(self) -> None:
        """Look and run until the signals say to end.

        Raises:
            DataError: The ledger cannot be read.
        """
        settings = self._settings
        self._greet()
        pause = settings.poll_s
        while True:
            try:
                sight = self._look()
                self._say_back()
            except OSError as exc:
                self._say_away(exc)
                sight = Sight([], [], unsettled=False)
            if sight.due:
                self._take_in(sight)
            if sight.due or sight.unsettled:
                pause = settings.poll_s
            if self._signals.wait(pause):
                logger.info("No longer watching %s", self._place)
                return
            pause = min(pause * _SLOWER, settings.poll_max_s)

    def once(self) -> int:
        """Look, run if there is something, and end.

        An export that still changes is waited for.

        Returns:
            The run's exit code; 0 where nothing was to be done, 130 where the signals
            said to end before.

        Raises:
            OSError: The place cannot be reached.
            DataError: The ledger cannot be read.
        """
        while True:
            sight = self._look()
            if sight.due:
                code = self._take_in(sight)
                return INTERRUPTED if code is None else code
            if not sight.unsettled:
                logger.info("There is no new export in %s", self._place)
                return 0
            if self._signals.wait(self._settings.poll_s):
                return INTERRUPTED

    def _look(self) -> Sight:
        ledger, now = read_ledger(self._path), self._clock()
        there = self._place.look()
        fresh = {
            name: export
            for name, export in there.items()
            if not ledger.is_unchanged(name, export.stamp)
        }
        self._note_changes(fresh, now)
        ages = {name: now - self._since[name][1] for name in fresh}
        settled = [name for name in fresh if ages[name] >= self._settings.settle_s]
        unsettled = len(settled) < len(fresh)
        if not settled or (unsettled and self._may_wait(fresh, ages, ledger)):
            return Sight([], [], unsettled)
        exports = self._identify([fresh[name] for name in settled])
        return self._judge(exports, ledger, unsettled or len(exports) < len(settled))

    def _note_changes(self, fresh: dict[str, Export], now: float) -> None:
        for name, export in fresh.items():
            if self._since.get(name, ("",))[0] != export.stamp:
                self._since[name] = (export.stamp, now)
        for name in self._since.keys() - fresh.keys():
            del self._since[name]
            self._digests.pop(name, None)

    def _may_wait(
        self, fresh: dict[str, Export], ages: dict[str, float], ledger: Ledger
    ) -> bool:
        """Whether what has settled may still wait for what has not."""
        waiting = [
            ages[name]
            for name, export in fresh.items()
            if ledger.failed.get(name) is None
            or ledger.failed[name].stamp != export.stamp
        ]
        return max(waiting, default=0.0) < self._settings.settle_max_s

    def _identify(self, exports: Sequence[Export]) -> list[Identity]:
        """Read what was not read before; what changes meanwhile is left out."""
        unread = [
            export
            for export in exports
            if export.name not in self._digests
            or self._digests[export.name].stamp != export.stamp
        ]
        digests = [(export, self._place.digest(export)) for export in unread]
        there = self._place.look() if unread else {}
        for export, digest in digests:
            self._digests.pop(export.name, None)
            if digest is not None and there.get(export.name) == export:
                self._digests[export.name] = Identity(export.name, export.stamp, digest)
        return [
            self._digests[export.name]
            for export in exports
            if export.name in self._digests
        ]

    def _judge(
        self, exports: Sequence[Identity], ledger: Ledger, unsettled: bool
    ) -> Sight:
        """Leave out what was taken in under this name or another, and what fails."""
        copies = [each for each in exports if ledger.original(each.digest)]
        if copies:
            for each in copies:
                self._say_copy(each, ledger.original(each.digest))
            write_ledger(self._path, ledger.after_success(copies, datetime.now(UTC)))
        new = [each for each in exports if each not in copies]
        tried = {each: ledger.n_failed(each) for each in new}
        due = [each for each in new if tried[each] < self._settings.attempts]
        beside = [each for each in new if each not in due]
        untried = any(tried[each] == 0 for each in due)
        if not untried and self._clock() < self._retry_at:
            return Sight([], [], unsettled)
        return Sight(due, beside, unsettled)

    def _take_in(self, sight: Sight) -> int | None:
        names = _listed([each.name for each in sight.due])
        logger.info("A run takes in %s", names)
        began = self._clock()
        code = self._run()
        took = self._clock() - began
        ledger = read_ledger(self._path)
        if code is None:
            logger.info("The run was interrupted; the next start takes in %s", names)
        elif code == 0:
            write_ledger(
                self._path,
                ledger.after_success([*sight.due, *sight.beside], datetime.now(UTC)),
            )
            logger.info("Took in %s in %.0f s", names, took)
        else:
            ledger = ledger.after_failure(sight.due)
            write_ledger(self._path, ledger)
            self._say_failure(sight.due, ledger, code)
        return code

    def _say_failure(self, exports: list[Identity], ledger: Ledger, code: int) -> None:
        settings = self._settings
        tried = {each: ledger.n_failed(each) for each in exports}
        given_up = [each.name for each in exports if tried[each] >= settings.attempts]
        again = [each for each in exports if tried[each] < settings.attempts]
        if given_up:
            logger.error(
                "%s set aside: %d runs have failed with it, the last with exit code "
                "%d; what was wrong is above. It is taken in with the next export that "
                "comes, when it is changed, or by 'kedro run --pipelines %s'.",
                _listed(given_up),
                settings.attempts,
                code,
                settings.pipelines,
            )
        if again:
            n_runs = max(tried[each] for each in again)
            pause = min(settings.retry_s * 2 ** (n_runs - 1), settings.retry_max_s)
            self._retry_at = self._clock() + pause
            logger.warning(
                "The run has failed with exit code %d; what was wrong is above. %s "
                "will be tried again in %.0f s, %d of %d times so far.",
                code,
                _listed([each.name for each in again]),
                pause,
                n_runs,
                settings.attempts,
            )

    def _greet(self) -> None:
        ledger = read_ledger(self._path)
        logger.info(
            "Watching %s: %d exports were taken in so far; Ctrl-C ends it",
            self._place,
            len(ledger.taken_in),
        )
        given_up = [
            name
            for name, failed in ledger.failed.items()
            if failed.n_runs >= self._settings.attempts
        ]
        if given_up:
            logger.warning(
                "Still set aside, until it is changed: %s", _listed(given_up)
            )

    def _say_copy(self, export: Identity, original: str | None) -> None:
        if original == export.name:
            logger.info("%s was written again with what it held: no run", original)
        else:
            logger.info(
                "%s holds the same as %s, which was taken in: no run",
                export.name,
                original,
            )

    def _say_away(self, exc: OSError) -> None:
        if not self._away:
            logger.warning("%s cannot be reached; trying on: %s", self._place, exc)
        self._away = True

    def _say_back(self) -> None:
        if self._away:
            logger.info("%s can be reached again", self._place)
        self._away = False


def _listed(names: list[str], at_most: int = 5) -> str:
    more = len(names) - at_most
    shown = ", ".join(names[:at_most])
    return f"{shown} and {more} more" if more > 0 else shown
