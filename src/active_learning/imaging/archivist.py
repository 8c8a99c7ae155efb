"""A process beside this one that archives images.

A file of its own for an image takes several calls of the system. Behind each of them a
thread must win the interpreter back from the threads that answer requests, and they
wait for it in turn; another process has an interpreter of its own.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.waiting import Archived, archive_images

_COMMAND = (sys.executable, "-m", "active_learning.imaging.archivist")
# Requests come first where cores are short.
_NICENESS = 5


class Archivist:
    """Archives the images of a file in a process that ends with this one.

    Args:
        power_cut_safe: Waits for the disk at every image.
    """

    def __init__(self, power_cut_safe: bool) -> None:
        """Start nothing yet; the first file does."""
        self._power_cut_safe = power_cut_safe
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def archive(self, path: Path) -> Archived:
        """Archive all images of a file; it stays.

        Raises:
            OSError: A store is away or full, or the process was killed: the next call
                starts another.
        """
        try:
            answer = self._ask({"path": str(path), "safe": self._power_cut_safe})
        except (BrokenPipeError, ValueError) as exc:
            self.close()
            raise OSError("The process that archives images has ended.") from exc
        if "error" in answer:
            raise OSError(*answer["error"])
        return Archived(**answer)

    def interrupt(self) -> None:
        """End the process from another thread: a call under way raises OSError."""
        process = self._running()
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._running(), None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self) -> subprocess.Popen[str] | None:
        """The process, if this one has started it: what a fork copied is another's."""
        return self._process if self._owner == os.getpid() else None

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        if process is None:
            self._owner = os.getpid()
            process = self._process = subprocess.Popen(  # noqa: S603  # our own command
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # What is importable here is importable there.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                # A Ctrl-C is for the process that knows when all is delivered.
                start_new_session=True,
            )
        asked, answers = process.stdin, process.stdout
        if asked is None or answers is None:
            raise ValueError("a process without pipes")
        asked.write(f"{json.dumps(question)}\n")
        asked.flush()
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer


def main() -> None:
    """Answer questions, a line each, until there is nobody to ask any."""
    os.nice(_NICENESS)
    for line in sys.stdin:
        question = json.loads(line)
        safe = question["safe"]
        answer: dict[str, Any]
        try:
            answer = archive_images(
                Path(question["path"]), partial(ImageArchive, power_cut_safe=safe)
            )._asdict()
        except OSError as exc:
            answer = {"error": [exc.errno, exc.strerror or str(exc), exc.filename]}
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
