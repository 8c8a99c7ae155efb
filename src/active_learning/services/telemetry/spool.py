"""A durable queue in one SQLite file, shared by the processes of a machine.

What ``put`` returned from is in a file, be it SQLite's write-ahead log: a SIGKILL
cannot take it back, and a power cut cannot either where that was asked for.

A row that comes alone, as in a server each does, is written to a journal beside the
SQLite file, which costs a caller a tenth of a transaction. Whoever asks the tables next
moves the journal's rows into them first, and notes in the same transaction how far it
read: killed before the journal is cleared, it is read on from there. An image that
comes with a row is kept beside them before the row is, see ``imaging.waiting``.

Whoever writes holds a file lock while it does. SQLite has a lock of its own, but waits
for it by sleeping and asking again, up to a tenth of a second late; the kernel wakes
the next in line at once. A killed process gives both back.

A file that SQLite finds damaged is set aside under another name, with an error in the
log, and a new one is begun: a service that can still collect goes on collecting.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from mmap import mmap
from pathlib import Path
from struct import Struct
from typing import TypeVar
from uuid import uuid4
from weakref import WeakSet

from active_learning.errors import SpoolFullError, TelemetryError
from active_learning.imaging.archive import NamedImage
from active_learning.imaging.waiting import Archived, WaitingImages, put_away
from active_learning.services.telemetry import queue
from active_learning.services.telemetry.journal import Journal, Mark

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

# Our own writers queue at the file lock; this is for strangers, such as a backup.
_STRANGER_S = 5.0

# A longer log is folded into the file. It waits for the disk, and others that use the
# disk wait with it, so not often; nor at each transaction while a reader prevents it.
_LONGEST_LOG = 1 << 24
_FOLD_EVERY = 20

# What the lock's file holds: rows that wait, those of the journal among them, and the
# number of the file that takes images.
_NOTES = Struct("<qq")
_NOTE = Struct("<q")
# More than may wait anywhere: the tables are asked.
_UNKNOWN = 1 << 62


class Spool:
    """Rows on their way to a table that may be away.

    Threads and processes may share it, forked ones too. Nothing is touched before it
    is first used.

    Args:
        path: The SQLite file; its folder is made. Two locks, a journal and files of
            images lie beside it.
        max_rows: So many may wait.
        power_cut_safe: Waits for the disk at every ``put``: a power cut then loses
            nothing either, and a ``put`` takes as long as the disk does.
        max_image_bytes: So many bytes of images may wait, and one file of them more.
    """

    def __init__(
        self,
        path: Path | str,
        max_rows: int,
        power_cut_safe: bool = False,
        max_image_bytes: int = 1 << 32,
    ) -> None:
        """Remember where; the file is made by the first use."""
        self.path = Path(path).absolute()
        self.max_rows = max_rows
        self.power_cut_safe = power_cut_safe
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._writing: int | None = None
        self._notes: mmap | None = None
        self._draining: int | None = None
        self._journal = Journal(Path(f"{self.path}.journal"))
        self._images = WaitingImages(self.path, max_image_bytes)
        self._transactions = 0
        _spools.add(self)

    def __len__(self) -> int:
        """Rows that wait, claimed ones among them."""
        return self._transact(queue.waiting)

    def put(self, rows: Sequence[str], image: NamedImage | None = None) -> None:
        """Keep rows; when this returns, they are safe.

        Args:
            rows: To be delivered in this order.
            image: Is archived before they are delivered.

        Raises:
            SpoolFullError: There is no room, in the spool or on the disk; none of the
                rows was kept.
            TelemetryError: The spool cannot be used; none of the rows was kept.
        """
        if len(rows) == 1 and self._append(rows[0], image):
            return

        def insert(connection: sqlite3.Connection) -> None:
            waiting = queue.waiting(connection)
            if waiting + len(rows) > self.max_rows:
                raise SpoolFullError(
                    f"The spool {self.path} holds {waiting} of at most {self.max_rows} "
                    f"predictions and has no room for {len(rows)} more: their table "
                    "is away, or slower than they come. Nothing more is collected "
                    "until it is back."
                )
            if image is not None:
                self._add_image(image, self._images_number())
            queue.insert(connection, rows)

        self._transact(insert)

    def claim(self, limit: int) -> queue.Claim | None:
        """Take the oldest rows to deliver them, unless somebody else does so now.

        What is claimed is written down: whoever claims after a crash is given the same
        rows under the same name. End it with ``done`` or ``release``.

        Args:
            limit: So many at most.

        Returns:
            ``None`` when nothing waits, or when another process is at it.
        """
        if not self._begin_to_drain():
            return None
        claim: queue.Claim | None = None

        def take(connection: sqlite3.Connection) -> queue.Claim | None:
            found = queue.claimed(connection, limit)
            if found is not None:
                self._end_images_file(self._images_number())
            return found

        try:
            claim = self._transact(take)
        finally:
            if claim is None:
                self.release()
        return claim

    def archive_images(self, archive: Callable[[Path], Archived]) -> None:
        """Archive every image that came with or before the rows of a claim.

        Args:
            archive: Archives the images of a file and leaves it.

        Raises:
            OSError: A store is away or full; its images go on waiting.
        """
        with self._mutex:
            number = self._images_number()
        for path in self._images.before(number):
            put_away(path, archive(path))

    def waiting_image(self, root: str, image_id: str) -> bytes | None:
        """An image that was put and is not archived yet, if there is one."""
        return self._images.find(root, image_id)

    def done(
        self, claim: queue.Claim, rejected: Mapping[int, str] | None = None
    ) -> None:
        """Forget rows that were delivered, and give the claim back.

        Args:
            claim: What ``claim`` gave.
            rejected: Rows that will never fit, by their place in ``claim.rows``, and
                why. They move to the table ``rejected`` of the spool's file, in the
                same step.
        """

        def forget(connection: sqlite3.Connection) -> None:
            queue.forget(connection, claim, rejected or {})

        try:
            self._transact(forget)
        finally:
            self.release()

    def release(self) -> None:
        """Let others drain; a claim that is not done is given to the next."""
        with self._mutex:
            if self._draining is not None:
                os.close(self._draining)
                self._draining = None

    def rejected(self) -> list[tuple[str, str]]:
        """Rows that will never fit, oldest first, each with the reason."""
        return self._transact(
            lambda connection: connection.execute(
                "SELECT row, reason FROM rejected ORDER BY seq"
            ).fetchall()
        )

    def damaged(self) -> list[Path]:
        """Files that were set aside; their rows were not delivered."""
        return sorted(
            path
            for path in self.path.parent.glob(f"{self.path.name}.damaged-*")
            if not path.name.endswith(("-wal", "-shm"))
        )

    def close(self) -> None:
        """Let go of the files; a later use opens them again."""
        self.release()
        with self._mutex:
            self._disconnect()
            self._journal.close()
            self._images.close()
            self._close_lock()

    def _append(self, row: str, image: NamedImage | None) -> bool:
        """Put one row into the journal: a tenth of what a transaction costs.

        Returns:
            Whether it is there: not when the tables are to be asked first.
        """
        if self.power_cut_safe:
            return False
        with self._mutex:
            # Whether the tables can be used at all is known once they are open.
            if self._connection is None or self._notes is None:
                return False
            lock = self._opened_lock()
            flock(lock, LOCK_EX)
            try:
                waiting, number = _NOTES.unpack_from(self._notes)
                if waiting >= self.max_rows:
                    return False
                if image is not None:
                    self._add_image(image, number)
                if not self._journal.append(row):
                    return False
                _NOTE.pack_into(self._notes, 0, waiting + 1)
            except OSError as exc:
                raise self._no_room(exc) from exc
            finally:
                flock(lock, LOCK_UN)
        return True

    def _add_image(self, image: NamedImage, number: int) -> None:
        try:
            is_full = self._images.append(number, image, self.power_cut_safe)
        except OSError as exc:
            raise self._no_room(exc) from exc
        if is_full:
            self._end_images_file(number)

    def _end_images_file(self, number: int) -> None:
        """Let the next image go to the next file."""
        _NOTE.pack_into(self._opened_notes(), _NOTE.size, number + 1)

    def _images_number(self) -> int:
        """Of the file that takes images."""
        return int(_NOTES.unpack_from(self._opened_notes())[1])

    def _opened_notes(self) -> mmap:
        """What the lock's file holds, as memory that the processes share."""
        if self._notes is None:
            lock = self._opened_lock()
            try:
                if os.fstat(lock).st_size < _NOTES.size:
                    # Written, as a full disk can refuse that and cannot refuse memory.
                    number = self._images.next_number()
                    os.pwrite(lock, _NOTES.pack(_UNKNOWN, number), 0)
                self._notes = mmap(lock, _NOTES.size)
            except OSError as exc:
                raise self._no_room(exc) from exc
        return self._notes

    def _opened_lock(self) -> int:
        if self._writing is None:
            self._writing = self._open_beside(".lock")
        return self._writing

    def _close_lock(self) -> None:
        if self._notes is not None:
            self._notes.close()
            self._notes = None
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def _transact(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._mutex:
            # No other process writes meanwhile; a killed one gives its place back.
            lock = self._opened_lock()
            flock(lock, LOCK_EX)
            try:
                self._opened_notes()
                result, waiting = self._try_twice(action)
                self._forget_journal(waiting)
            finally:
                flock(lock, LOCK_UN)
        return result

    def _try_twice(self, action: Callable[[sqlite3.Connection], _T]) -> tuple[_T, int]:
        try:
            return self._try(action)
        except sqlite3.Error as exc:
            self._disconnect()
            if _code(exc) not in _DAMAGED:
                raise self._explained(exc) from exc
            self._set_aside(exc)
        try:
            return self._try(action)
        except sqlite3.Error as exc:
            self._disconnect()
            raise self._explained(exc) from exc

    def _try(self, action: Callable[[sqlite3.Connection], _T]) -> tuple[_T, int]:
        """What the action gave, and how many rows wait now."""
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._take_in(connection)
            result = action(connection)
            waiting = queue.waiting(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        self._transactions += 1
        if self._transactions >= _FOLD_EVERY and self._log_bytes() > _LONGEST_LOG:
            self._transactions = 0
            self._fold(connection)
        return result, waiting

    def _take_in(self, connection: sqlite3.Connection) -> None:
        """Move the journal's rows into the queue, in the transaction under way."""
        found = connection.execute("SELECT name, read FROM journal").fetchone()
        try:
            rows, mark = self._journal.read(Mark(*found) if found else None)
        except OSError as exc:
            raise TelemetryError(
                f"The journal of the spool {self.path} cannot be read: {exc}. Nothing "
                "was kept of this."
            ) from exc
        if mark is not None and mark != found:
            queue.insert(connection, rows)
            connection.execute("REPLACE INTO journal VALUES (1, ?, ?)", mark)

    def _forget_journal(self, waiting: int) -> None:
        try:
            self._journal.clear()
            _NOTE.pack_into(self._opened_notes(), 0, waiting)
        except OSError as exc:
            # The mark in the tables tells which of its rows are there already.
            logger.warning("The journal of %s stays as it is: %s", self.path, exc)

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def _fold(self, connection: sqlite3.Connection) -> None:
        """Move the log into the file, so that it does not grow for ever.

        Not by SQLite's own doing, as part of a commit: when it fails there, the commit
        is reported as failed although it was not.
        """
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as exc:
            logger.warning("The log of the spool %s stays as it is: %s", self.path, exc)

    def _begin_to_drain(self) -> bool:
        with self._mutex:
            if self._draining is not None:
                return True
            descriptor = self._open_beside(".drain")
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._draining = descriptor
            return True

    def _open_beside(self, suffix: str) -> int:
        name = f"{self.path}{suffix}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(name, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as exc:
            raise TelemetryError(
                f"The spool's lock {name} cannot be opened: {exc}. Give the process "
                "leave to write there, or the spool another place."
            ) from exc

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if _identity(self.path) == self._file:
                return self._connection
            logger.error(
                "The spool %s was taken away while it was in use; a new one is begun",
                self.path,
            )
            self._disconnect()
        connection = sqlite3.connect(
            self.path,
            timeout=_STRANGER_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            # What was folded is cut off, so that its size tells what was not.
            connection.execute("PRAGMA journal_size_limit = 0")
            level = "FULL" if self.power_cut_safe else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {level}")
            connection.executescript(queue.TABLES)
            connection.execute(
                "INSERT OR IGNORE INTO spool VALUES (1, ?)", (uuid4().hex,)
            )
        except BaseException:
            connection.close()
            raise
        self._file = _identity(self.path)
        self._connection = connection
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _set_aside(self, why: sqlite3.Error) -> None:
        aside = f"{self.path}.damaged-{uuid4().hex[:8]}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        logger.error(
            "The spool %s is damaged (%s) and was set aside as %s; a new one is begun. "
            "What waited in it is not delivered: save it with "
            "`sqlite3 %s .recover` and collect it again, the same ids count once",
            self.path,
            why,
            aside,
            aside,
        )

    def _explained(self, exc: sqlite3.Error) -> TelemetryError:
        if _code(exc) in _NO_ROOM:
            return self._no_room(exc)
        return TelemetryError(
            f"The spool {self.path} cannot be used: {exc}. Nothing was kept of this."
        )

    def _no_room(self, exc: Exception) -> SpoolFullError:
        return SpoolFullError(
            f"The spool {self.path} cannot be written: {exc}. Its disk is full or "
            "failing; nothing was kept of this. Make room on it."
        )


def _code(exc: sqlite3.Error) -> int | None:
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


# SQLite remembers, for the whole process, which locks it holds; a fork copies the
# memory and not the locks. So no connection is open while a process forks.
_spools: "WeakSet[Spool]" = WeakSet()
_forking: list[Spool] = []


def _before_fork() -> None:
    for spool in list(_spools):
        spool._mutex.acquire()
        spool._disconnect()
        _forking.append(spool)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._mutex.release()


def _after_fork_in_child() -> None:
    while _forking:
        spool = _forking.pop()
        spool._mutex = threading.Lock()
        # A lock belongs to all who hold its descriptor: a child that kept it would
        # keep the lock beyond the death of the parent.
        spool._journal.close()
        spool._images.close()
        spool._close_lock()
        if spool._draining is not None:
            os.close(spool._draining)
            spool._draining = None


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
