"""A durable queue in one SQLite file, shared by the processes of a machine.

What ``put`` returned from is in a file, be it SQLite's write-ahead log: a SIGKILL
cannot take it back, and a power cut cannot either where that was asked for.

A row that comes alone, as in a server each does, is written to a journal beside the
SQLite file, which costs a caller a tenth of a transaction. Whoever asks the tables next
moves the journal's rows into them first, and notes in the same transaction how far it
read: killed before the journal is cleared, it is read on from there.

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
from pathlib import Path
from struct import Struct
from typing import NamedTuple, TypeVar
from uuid import uuid4
from weakref import WeakSet

from active_learning.errors import SpoolFullError, TelemetryError
from active_learning.services.telemetry.journal import Journal, Mark

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# AUTOINCREMENT: a number that was used once names no other row, or two batches would
# bear one name and the sink would take the second for the first.
_TABLES = """
CREATE TABLE IF NOT EXISTS spool (only INTEGER PRIMARY KEY CHECK (only = 1), uuid TEXT);
CREATE TABLE IF NOT EXISTS queue (seq INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT);
CREATE TABLE IF NOT EXISTS journal
    (only INTEGER PRIMARY KEY CHECK (only = 1), name TEXT, read INTEGER);
CREATE TABLE IF NOT EXISTS claimed
    (only INTEGER PRIMARY KEY CHECK (only = 1), first INTEGER, last INTEGER);
CREATE TABLE IF NOT EXISTS rejected (seq INTEGER PRIMARY KEY, row TEXT, reason TEXT);
"""
# Two questions: SQLite finds one end of a table at once, but scans for both.
_ENDS = "SELECT (SELECT min(seq) FROM queue), (SELECT max(seq) FROM queue)"

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

# Our own writers queue at the file lock; this is for strangers, such as a backup.
_STRANGER_S = 5.0

# A longer log is folded into the file. It waits for the disk, and others that use the
# disk wait with it, so not often; nor at each transaction while a reader prevents it.
_LONGEST_LOG = 1 << 24
_FOLD_EVERY = 20

# What the lock's file holds: rows that wait, those of the journal among them.
_COUNT = Struct("<q")


class Claim(NamedTuple):
    """Rows that one drainer is to deliver.

    Attributes:
        batch: The same for the same rows, also after a crash.
        first: Number of the first row.
        last: Number of the last row; none between is missing.
        rows: As they were put, in their order.
    """

    batch: str
    first: int
    last: int
    rows: tuple[str, ...]


class Spool:
    """Rows on their way to a table that may be away.

    Threads and processes may share it, forked ones too. Nothing is touched before it
    is first used.

    Args:
        path: The SQLite file; its folder is made. Two locks and a journal lie beside
            it.
        max_rows: So many may wait.
        power_cut_safe: Waits for the disk at every ``put``: a power cut then loses
            nothing either, and a ``put`` takes as long as the disk does.
    """

    def __init__(
        self, path: Path | str, max_rows: int, power_cut_safe: bool = False
    ) -> None:
        """Remember where; the file is made by the first use."""
        self.path = Path(path).absolute()
        self.max_rows = max_rows
        self.power_cut_safe = power_cut_safe
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._writing: int | None = None
        self._draining: int | None = None
        self._journal = Journal(Path(f"{self.path}.journal"))
        self._transactions = 0
        _spools.add(self)

    def __len__(self) -> int:
        """Rows that wait, claimed ones among them."""
        return self._transact(_waiting)

    def put(self, rows: Sequence[str]) -> None:
        """Keep rows; when this returns, they are safe.

        Raises:
            SpoolFullError: There is no room, in the spool or on the disk; none of the
                rows was kept.
            TelemetryError: The spool cannot be used; none of the rows was kept.
        """
        if len(rows) == 1 and self._append(rows[0]):
            return

        def insert(connection: sqlite3.Connection) -> None:
            waiting = _waiting(connection)
            if waiting + len(rows) > self.max_rows:
                raise SpoolFullError(
                    f"The spool {self.path} holds {waiting} of at most {self.max_rows} "
                    f"predictions and has no room for {len(rows)} more: their table "
                    "is away, or slower than they come. Nothing more is collected "
                    "until it is back."
                )
            _insert(connection, rows)

        self._transact(insert)

    def claim(self, limit: int) -> Claim | None:
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
        claim: Claim | None = None
        try:
            claim = self._transact(lambda connection: _claimed(connection, limit))
        finally:
            if claim is None:
                self.release()
        return claim

    def done(self, claim: Claim, rejected: Mapping[int, str] | None = None) -> None:
        """Forget rows that were delivered, and give the claim back.

        Args:
            claim: What ``claim`` gave.
            rejected: Rows that will never fit, by their place in ``claim.rows``, and
                why. They move to the table ``rejected`` of the spool's file, in the
                same step.
        """

        def forget(connection: sqlite3.Connection) -> None:
            if not claim.batch.startswith(_uuid(connection)):
                return  # The file was set aside since; these are another's numbers.
            connection.executemany(
                "INSERT INTO rejected (seq, row, reason) VALUES (?, ?, ?)",
                [
                    (claim.first + place, claim.rows[place], reason)
                    for place, reason in (rejected or {}).items()
                ],
            )
            connection.execute(
                "DELETE FROM queue WHERE seq BETWEEN ? AND ?", (claim.first, claim.last)
            )
            connection.execute("DELETE FROM claimed WHERE first = ?", (claim.first,))

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
            if self._writing is not None:
                os.close(self._writing)
                self._writing = None

    def _append(self, row: str) -> bool:
        """Put one row into the journal: a tenth of what a transaction costs.

        Returns:
            Whether it is there: not when the tables are to be asked first.
        """
        if self.power_cut_safe:
            return False
        with self._mutex:
            # Whether the tables can be used at all is known once they are open.
            if self._connection is None or self._writing is None:
                return False
            flock(self._writing, LOCK_EX)
            try:
                count = os.pread(self._writing, _COUNT.size, 0)
                if len(count) < _COUNT.size:
                    return False
                (waiting,) = _COUNT.unpack(count)
                if waiting >= self.max_rows or not self._journal.append(row):
                    return False
                os.pwrite(self._writing, _COUNT.pack(waiting + 1), 0)
            except OSError as exc:
                raise self._no_room(exc) from exc
            finally:
                flock(self._writing, LOCK_UN)
        return True

    def _transact(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._mutex:
            # No other process writes meanwhile; a killed one gives its place back.
            if self._writing is None:
                self._writing = self._open_beside(".lock")
            lock = self._writing
            flock(lock, LOCK_EX)
            try:
                result, waiting = self._try_twice(action)
                self._forget_journal(lock, waiting)
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
            waiting = _waiting(connection)
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
            _insert(connection, rows)
            connection.execute("REPLACE INTO journal VALUES (1, ?, ?)", mark)

    def _forget_journal(self, lock: int, waiting: int) -> None:
        try:
            self._journal.clear()
            os.pwrite(lock, _COUNT.pack(waiting), 0)
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
            connection.executescript(_TABLES)
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


def _insert(connection: sqlite3.Connection, rows: Sequence[str]) -> None:
    connection.executemany(
        "INSERT INTO queue (row) VALUES (?)", [(row,) for row in rows]
    )


def _waiting(connection: sqlite3.Connection) -> int:
    # Rows come and go at the ends alone, so that their numbers have no gaps.
    first, last = connection.execute(_ENDS).fetchone()
    return 0 if first is None else int(last - first + 1)


def _uuid(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT uuid FROM spool").fetchone()[0])


def _claimed(connection: sqlite3.Connection, limit: int) -> Claim | None:
    earlier = connection.execute("SELECT first, last FROM claimed").fetchone()
    if earlier is None:
        found = connection.execute(
            "SELECT seq, row FROM queue ORDER BY seq LIMIT ?", (limit,)
        ).fetchall()
    else:
        found = connection.execute(
            "SELECT seq, row FROM queue WHERE seq BETWEEN ? AND ? ORDER BY seq", earlier
        ).fetchall()
    if not found:
        return None
    first, last = found[0][0], found[-1][0]
    if earlier is None:
        connection.execute("INSERT INTO claimed VALUES (1, ?, ?)", (first, last))
    batch = f"{_uuid(connection)}-{first:012d}-{last:012d}"
    return Claim(batch, first, last, tuple(row for _, row in found))


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
        for descriptor in (spool._writing, spool._draining):
            if descriptor is not None:
                os.close(descriptor)
        spool._writing = spool._draining = None


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
