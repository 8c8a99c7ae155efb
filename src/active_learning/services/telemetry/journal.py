"""A file that takes one row at a time, as fast as a file can be written.

Whoever uses it holds the spool's lock. A write that was cut off by a SIGKILL leaves a
line whose checksum does not fit; nobody was told that it is kept, and it is left out.
"""

import logging
import os
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4
from zlib import crc32

logger = logging.getLogger(__name__)

# More is moved on before another row comes: so much is read into memory at once.
_LONGEST = 1 << 20


class Mark(NamedTuple):
    """How far a journal was read.

    Attributes:
        journal: Its name, which it has until it is cleared.
        read: Bytes.
    """

    journal: str
    read: int


class Journal:
    """Rows in the order they came, each on a line with a checksum.

    Args:
        path: The file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        """Remember where; the file is made by the first use."""
        self._path = str(path)
        self._file: int | None = None
        self._identity = (0, 0)

    def append(self, row: str) -> bool:
        """Add a row; when this returns, no SIGKILL takes it back.

        Returns:
            Whether it was: not when it has several lines, or when the journal is to
            be read first.

        Raises:
            OSError: It could not be written; nothing of it was.
        """
        content = row.encode()
        file, size = self._opened()
        if size > _LONGEST or b"\n" in content:
            return False
        # A new line even where the one before was cut off in its middle.
        line = b"\n%08x%b" % (crc32(content), content)
        if not size:
            line = uuid4().hex.encode() + line
        try:
            written = os.write(file, line)
            if written < len(line):
                # Says why: the disk is full, or there is a bound for files.
                written += os.write(file, line[written:])
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
        except OSError:
            os.ftruncate(file, size)
            raise
        return True

    def read(self, mark: Mark | None) -> tuple[list[str], Mark | None]:
        """What came after a mark, and the mark that is behind it."""
        file, size = self._opened()
        if not size:
            return [], None
        content = os.pread(file, size, 0)
        name = content.partition(b"\n")[0].decode(errors="replace")
        known = mark is not None and mark.journal == name
        start = mark.read if mark is not None and known else len(name.encode())
        rows: list[str] = []
        n_cut_off = 0
        for line in content[start:].split(b"\n")[1:]:
            if line[:8] == b"%08x" % crc32(line[8:]):
                rows.append(line[8:].decode())
            else:
                n_cut_off += 1
        if n_cut_off:
            logger.warning(
                "%d rows in %s had been cut off while they were written, before "
                "anybody was told that they are kept, and are left out",
                n_cut_off,
                self._path,
            )
        return rows, Mark(name, len(content))

    def clear(self) -> None:
        """Forget all rows: they are safe elsewhere."""
        file, size = self._opened()
        if size:
            os.ftruncate(file, 0)

    def close(self) -> None:
        """Let go of the file; a later use opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> tuple[int, int]:
        """The file that lies in its place, and its size."""
        if self._file is not None:
            found = _found(self._path)
            if found is not None and (found.st_dev, found.st_ino) == self._identity:
                return self._file, found.st_size
            logger.error(
                "The journal %s was taken away while it was in use; a new one is begun",
                self._path,
            )
            self.close()
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        opened = os.fstat(self._file)
        self._identity = (opened.st_dev, opened.st_ino)
        return self._file, opened.st_size


def _found(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
