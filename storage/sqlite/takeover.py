"""Recovery of one partition: what its journal has goes into its tables, under a new epoch.

Blocking code, run in a worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final, TypeVar

from anyio import to_thread
from attrs import frozen

from ...actors.errors import StoreDamagedError
from ..mended import is_count, read_text, why
from ..records import (
    SLICE_ROWS,
    ActivityRow,
    MailRow,
    OutboxRow,
    PeerRow,
    Recovered,
    SetAside,
    TimerRow,
    cut,
)
from .applier import APPLY, Applier
from .connection import UNDECODABLE, connect
from .faults import FENCED, explained, lease_lost
from .presence import Presence

EPOCH: Final = "SELECT epoch FROM meta"
# An odd epoch says that the tables have an owner whom the journal may not know yet.
NEXT_EPOCH: Final = "UPDATE meta SET epoch = epoch + 1 + epoch % 2 RETURNING epoch, sequence"
TAKEN: Final = "UPDATE meta SET epoch = ? WHERE epoch = ? RETURNING epoch"
FENCE: Final = (
    "UPDATE meta SET epoch = ?, sequence = max(sequence, ?) WHERE epoch < ? RETURNING sequence"
)
ENTRIES: Final = "SELECT * FROM entry WHERE sequence > ? ORDER BY sequence"
# A number beyond is a damaged row's, and would leave none for what comes.
_GREATEST: Final = "ifnull((SELECT max({0}) FROM {1} WHERE {0} < 1 << 62), 0)"
GREATEST: Final = "SELECT max({}, {}), max({}, {}, {}, {})".format(
    *(_GREATEST.format("id", table) for table in ("instance_row", "entity_row")),
    *(
        _GREATEST.format("n", table)
        for table in ("mail_row", "timer_row", "outbox_row", "activity_row")
    ),
)
DAMAGED_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS damaged_row (n INTEGER PRIMARY KEY, source TEXT NOT NULL,"
    " row INTEGER NOT NULL, found TEXT NOT NULL, reason TEXT NOT NULL, actor, due, target, last,"
    " body, UNIQUE (source, row))"
)
_COPY: Final = (
    "INSERT OR REPLACE INTO damaged_row (source, row, found, reason, {columns})"
    " SELECT ?, n, strftime('%Y-%m-%dT%H:%M:%SZ'), ?, {columns} FROM {table} WHERE n = ?"
)
COPIES: Final = {
    "mail_row": _COPY.format(table="mail_row", columns="actor, body"),
    "timer_row": _COPY.format(table="timer_row", columns="due, actor, body"),
    "outbox_row": _COPY.format(table="outbox_row", columns="target, last, body"),
}
"""For each table of messages, what copies a row of it; takes the table, the reason and ``n``."""

UNANSWERED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_unanswered WHERE pending > 0 AND status"
    " NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated')"
)
MAIL: Final = "SELECT n, actor, CAST(body AS BLOB) FROM mail_row ORDER BY n"
OUTBOX: Final = "SELECT n, target, last, CAST(body AS BLOB) FROM outbox_row ORDER BY n"
PARKED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_parked WHERE parked IS NOT NULL UNION ALL"
    " SELECT '@' || name || '@' || key FROM entity_row INDEXED BY entity_parked"
    " WHERE parked IS NOT NULL"
)


_Row = TypeVar("_Row", MailRow, OutboxRow)
_T = TypeVar("_T")


@frozen
class Taken:
    """A partition that was taken over.

    Attributes:
        recovered: what its owner needs to go on.
        tables: a connection that may write to the tables; whoever gets it closes it.
        journal: the same for the journal.
    """

    recovered: Recovered
    tables: sqlite3.Connection
    journal: sqlite3.Connection

    def close(self) -> None:
        """Close both, where nobody gets them."""
        self.tables.close()
        self.journal.close()


class Takeover:
    """Takes a partition over, once at a time, however the one who asked for it ends.

    A thread cannot be stopped. One that was left alone in the middle goes on to raise the epoch,
    so what comes after it has to wait, or it would be fenced out; one that has not begun never does.
    """

    def __init__(self) -> None:
        self._lock = Lock()

    @property
    def is_under_way(self) -> bool:
        """Whether some thread takes the partition over now."""
        return self._lock.locked()

    async def run(self, take: Callable[[], Taken]) -> Taken:
        """Take over in a worker thread."""
        left = Event()

        def work() -> Taken | None:
            with self._lock:
                if left.is_set():
                    return None
                taken = take()
                if left.is_set():
                    taken.close()
                return taken

        try:
            taken = await to_thread.run_sync(work)
        except BaseException:
            left.set()  # asyncio's Task.cancel leaves the thread alone
            raise
        assert taken is not None
        return taken

    def wait(self) -> None:
        """Return when nobody takes over. Blocks; call it in a thread."""
        with self._lock:
            pass


def take_over(
    tables_path: Path, journal_path: Path, presence: Presence, last: Applier | None
) -> Taken:
    """Take a partition over from its last owner, under a new epoch.

    It takes as few calls of SQLite as can be: beside a busy event loop each waits for the
    interpreter's lock.

    Args:
        tables_path: the file of the tables.
        journal_path: the file of the journal.
        presence: whether both are where they were.
        last: what applied for the last owner, if that was here.

    Raises:
        StorageError: it cannot be read, or is not whole.
    """
    if last is not None:
        last.stop()
    with ExitStack() as opened:
        with explained(tables_path):
            tables = opened.enter_context(closing(connect(tables_path)))
        with explained(journal_path):
            journal = opened.enter_context(closing(connect(journal_path)))
        presence.check()  # nothing is written to files that are others by now
        with explained(tables_path):
            [(last_epoch,)] = tables.execute(EPOCH).fetchall()
        with explained(journal_path):
            [(journal_epoch,)] = journal.execute(EPOCH).fetchall()
        with explained(tables_path):
            _check_moment(last_epoch, journal_epoch, tables, tables_path, journal_path)
            # First the tables: from here on nobody else applies. Then nobody else commits.
            [(taking, sequence)] = tables.execute(NEXT_EPOCH).fetchall()
        epoch = taking + 1
        with explained(journal_path):
            known = journal.execute(FENCE, (epoch, sequence, epoch)).fetchall()
            if not known or not tables.execute(TAKEN, (epoch, taking)).fetchall():
                raise lease_lost(journal_path)  # another owner was quicker
            entries = journal.execute(ENTRIES, (sequence,)).fetchall()
            if known[0][0] > sequence and not entries:
                raise _torn(journal_path, known[0][0], sequence)
        with explained(tables_path):
            if entries:
                apply_entries(tables, entries, sequence, epoch, journal_path)
            recovered = read_tables(tables, epoch, tables_path)
        opened.pop_all()
    return Taken(recovered, tables, journal)


def apply_entries(
    tables: sqlite3.Connection, entries: list[Any], sequence: int, epoch: int, journal_path: Path
) -> None:
    """Apply the journal's entries behind ``sequence``, one by one, all of them or none."""
    tables.execute("BEGIN IMMEDIATE")
    try:
        for number, _, _, *rest in entries:
            if number != sequence + 1:
                raise _torn(journal_path, number, sequence)
            try:
                if not type(rest[0]) is type(rest[1]) is int:
                    raise sqlite3.DataError("it has text where a number belongs")
                tables.execute(APPLY, (sequence, number, epoch, *rest))
            except sqlite3.Error as error:
                if _is_of_entry(error):
                    raise _unreadable(journal_path, number, error) from error
                raise
            sequence = number
        tables.execute("COMMIT")
    except BaseException:
        tables.rollback()
        raise


def _is_of_entry(error: sqlite3.Error) -> bool:
    """Whether it is what the entry holds that cannot be applied, rather than the file or disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    of_values = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
    return code in of_values and str(error) != FENCED


def _unreadable(journal_path: Path, number: int, error: Exception) -> StoreDamagedError:
    # What a checkpoint says of one actor depends on what it says of others: it is all or nothing.
    return StoreDamagedError(
        f"{journal_path}, table entry, row {number}: the checkpoint cannot be read ({error}); "
        "restore a copy of the whole folder"
    )


def _check_moment(
    epoch: int,
    journal_epoch: int,
    tables: sqlite3.Connection,
    tables_path: Path,
    journal_path: Path,
) -> None:
    """Refuse tables and a journal that had not the same last owner.

    Raises:
        StoreDamagedError: one of them is older than the other.
    """
    if epoch % 2 or epoch == journal_epoch:
        return  # or the last one did not get so far
    if tables.execute(EPOCH).fetchall() != [(epoch,)]:
        return  # another owner takes it just now, which is seen later
    older, newer = journal_path, tables_path
    if journal_epoch > epoch:
        older, newer = newer, older
    raise StoreDamagedError(
        f"{older} is older than {newer}: they are of different moments, or the write-ahead log "
        "(-wal) of the first is damaged or gone; restore a copy of the whole folder"
    )


def _torn(journal_path: Path, number: int, sequence: int) -> StoreDamagedError:
    return StoreDamagedError(
        f"{journal_path} has checkpoint {number}, but the partition's tables end with "
        f"{sequence}: they are of different moments; restore a copy of the whole folder"
    )


def _sound_peer(row: Any, path: Path) -> PeerRow:
    if not all(map(is_count, row)):
        raise StoreDamagedError(
            f"{path}, table peer_row, row {row[0]}: {row} are no counts, so nobody knows which "
            "messages between partitions came; restore a copy of the whole folder"
        )
    return PeerRow._make(row)


def _sound_target(row: OutboxRow, path: Path) -> OutboxRow:
    if not is_count(row.target):
        raise StoreDamagedError(
            f"{path}, table outbox_row, row {row.n}: {row.target!r} is no partition, so nobody "
            "knows whom it is owed to; restore a copy of the whole folder"
        )
    return row


def set_aside(tables_path: Path, rows: Sequence[SetAside]) -> None:
    """Keep what nobody can read in the table ``damaged_row``, and mark the actors it is of."""
    with closing(connect(tables_path)) as tables:
        tables.execute("BEGIN IMMEDIATE")
        tables.execute(DAMAGED_TABLE)
        for table, row, _, reason in rows:
            if table in COPIES:
                tables.execute(COPIES[table], (table, reason, row))
            else:
                tables.execute(f"UPDATE {table} SET parked = ? WHERE id = ?", (why(reason), row))
        tables.execute("COMMIT")


def read_tables(tables: sqlite3.Connection, epoch: int, path: Path) -> Recovered:
    """Read what the tables say an owner needs to go on, under its epoch."""

    def tolerant(read: Callable[[], list[_T]]) -> list[_T]:
        try:
            return read()
        except sqlite3.OperationalError as error:
            if not str(error).startswith(UNDECODABLE):
                raise
        tables.text_factory = read_text
        try:
            return read()
        finally:
            tables.text_factory = str

    def rows(sql: str) -> list[Any]:
        return tolerant(lambda: tables.execute(sql).fetchall())

    def some(sql: str, kind: Callable[[Any], _Row]) -> list[_Row]:
        def read() -> list[_Row]:
            with closing(tables.execute(sql)) as cursor:
                return cut((kind(row) for row in cursor), SLICE_ROWS)

        return tolerant(read)

    # The epoch there may be that of a newer owner by now.
    [(sequence, next_id, next_row)] = rows("SELECT sequence, next_id, next_row FROM meta")
    [(greatest_id, greatest_row)] = rows(GREATEST)
    timers = rows("SELECT n, due, actor, CAST(body AS BLOB) FROM timer_row ORDER BY n")
    peers = rows("SELECT peer, received, sent FROM peer_row ORDER BY peer")
    activities = rows("SELECT n, instance, CAST(body AS BLOB) FROM activity_row ORDER BY n")
    return Recovered(
        sequence=sequence,
        epoch=epoch,
        # A number that is given twice would write over somebody's row.
        next_id=max(next_id, greatest_id + 1),
        next_row=max(next_row, greatest_row + 1),
        mail=some(MAIL, MailRow._make),
        timers=[TimerRow._make(row) for row in timers],
        outbox=[_sound_target(row, path) for row in some(OUTBOX, OutboxRow._make)],
        peers=[_sound_peer(row, path) for row in peers],
        unanswered=[key for (key,) in rows(UNANSWERED) if type(key) is str],
        parked=[key for (key,) in rows(PARKED) if type(key) is str],
        activities=[ActivityRow._make(row) for row in activities],
    )
