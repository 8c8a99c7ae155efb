"""A run as a process of its own, and what the signals of a terminal mean to it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

_LOOK_S = 0.2
_GRACE_S = 30.0


class Interrupts:
    """Ends a watcher, and the run it waits for, by the signals of a terminal.

    Ctrl-C (SIGINT) ends a waiting watcher at once. A run that is under way is waited
    for; a second Ctrl-C, or SIGTERM at any time, interrupts it. All that a run writes
    is whole or not there, and the next start runs it again.
    """

    def __init__(self) -> None:
        """No signal has come yet."""
        self._end = threading.Event()
        self._hurry = threading.Event()

    def listen(self) -> None:
        """Take SIGINT and SIGTERM from now on; the main thread alone may."""
        signal.signal(signal.SIGINT, self._hear)
        signal.signal(signal.SIGTERM, self._hear)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until a signal comes; whether one has."""
        return self._end.wait(seconds)

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        lock: int,
    ) -> int | None:
        """Run a command to its end.

        Args:
            command: And its arguments.
            folder: That it works in.
            environment: Its variables.
            lock: A file descriptor that it inherits, so that its lock outlives a
                watcher that was killed.

        Returns:
            Its exit code, negative for the signal that killed it; ``None`` when it was
            interrupted before it had ended well, or not started after a signal.
        """
        if self._end.is_set():
            return None
        # A session of its own: a terminal's Ctrl-C comes to the watcher alone.
        process = subprocess.Popen(  # noqa: S603
            list(command),
            cwd=folder,
            env=dict(environment),
            pass_fds=(lock,),
            start_new_session=True,
        )
        told = False
        while not self._hurry.is_set():
            try:
                return process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                if self._end.is_set() and not told:
                    told = True
                    logger.info(
                        "The run goes on to its end, then the watcher ends; Ctrl-C "
                        "once more interrupts the run"
                    )
        return 0 if _interrupt(process) == 0 else None

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM or self._end.is_set():
            self._hurry.set()
        self._end.set()


def _interrupt(process: subprocess.Popen[bytes]) -> int:
    logger.info("Interrupting the run")
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # it has just ended
            break
        try:
            return process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            logger.warning("It does not end; it is killed")
    return process.wait()
