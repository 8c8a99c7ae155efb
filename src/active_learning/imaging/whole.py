"""Files that say which one it was when a disk is full."""

from collections.abc import Iterable
from pathlib import Path

from active_learning.files import replacing


def write_whole(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file beside its place, then rename.

    Raises:
        OSError: With the file's own name; nothing of it is left behind.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb", buffering=0) as file:
            for chunk in chunks:
                rest = memoryview(chunk).cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
    except OSError as exc:
        # A full disk's own message does not say which file it was.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
