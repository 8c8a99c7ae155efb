"""Files that are whole or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes ``path`` when all went well.

    A reader sees the old file or the new one. A failed or killed writer, or a full
    disk, leaves ``path`` as it was; the temporary name starts with a dot and does not
    keep the suffix, so that no glob over the folder takes it for a part.

    Args:
        path: Where the file shall be; its folder is made.

    Yields:
        A name in the same folder, since only a rename within one is atomic.
    """
    with _beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, as ``replacing`` does; the first one stays.

    Of several processes that make the same file at once, one is right, and the others
    take what it made.
    """
    with _beside(path) as temporary:
        yield temporary
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()


@contextmanager
def alone(lock: Path) -> Iterator[int | None]:
    """Hold a lock, without waiting for it; a killed process gives it back.

    Args:
        lock: A file; it is made, and stays.

    Yields:
        A descriptor, which a process that inherits it holds the lock by as well;
        ``None`` where somebody else has the lock.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
