"""Recovery of one partition: what its journal has goes into its tables, under a new epoch.

Plain blocking code, run in a worker thread.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ..actors.errors import StoreDamagedError
from .faults import explained, lease_lost
from .records import MailRow, OutboxRow, PeerRow, Recovered, TimerRow
from .settling import SETTLE, connect

NEXT_EPOCH: Final = "UPDATE meta SET epoch = epoch + 1 RETURNING epoch, sequence"
FENCE: Final = "UPDATE meta SET epoch = ? WHERE epoch < ? RETURNING epoch"
ENTRIES: Final = "SELECT * FROM entry WHERE sequence > ? ORDER BY sequence"
UNANSWERED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_unanswered WHERE pending > 0 AND status"
    " NOT IN ('Completed', 'Failed', 'Canceled', 'Terminated')"
)
PARKED: Final = (
    "SELECT key FROM instance_row INDEXED BY instance_parked WHERE parked IS NOT NULL UNION ALL"
    " SELECT '@' || name || '@' || key FROM entity_row INDEXED BY entity_parked"
    " WHERE parked IS NOT NULL"
)


def recover_files(tables: Path, journal: Path, settling: str, committing: str) -> Recovered:
    """Take a partition over from its last owner, and give what is needed to go on.

    Args:
        tables: the file of the tables.
        journal: the file of the journal.
        settling: pragmas of a connection that writes to the tables.
        committing: pragmas of a connection that writes to the journal.

    Raises:
        StorageError: it cannot be read, or is not whole.
    """
    with explained(tables), closing(connect(tables, settling)) as target:
        # First the tables: from here on nobody else settles. Then nobody else commits.
        [(epoch, sequence)] = target.execute(NEXT_EPOCH).fetchall()
        with explained(journal), closing(connect(journal, committing)) as source:
            if not source.execute(FENCE, (epoch, epoch)).fetchall():
                raise lease_lost(journal)
            with explained(tables):
                _settle(target, source, sequence, epoch, journal)
            source.execute(
                "UPDATE meta SET sequence = (SELECT max(sequence, ?) FROM meta)", (sequence,)
            )
        return _read(target)


def _settle(
    tables: sqlite3.Connection, source: sqlite3.Connection, sequence: int, epoch: int, journal: Path
) -> None:
    """Apply the journal's entries behind ``sequence``, one by one, all of them or none."""
    tables.execute("BEGIN IMMEDIATE")
    try:
        for number, _, _, *rest in source.execute(ENTRIES, (sequence,)):
            if number != sequence + 1:
                raise StoreDamagedError(
                    f"{journal} has checkpoint {number}, but the partition's tables end with "
                    f"{sequence}: they are of different moments; restore a copy of the whole folder"
                )
            tables.execute(SETTLE, (sequence, number, epoch, *rest))
            sequence = number
        tables.execute("COMMIT")
    except BaseException:
        tables.rollback()
        raise


def _read(tables: sqlite3.Connection) -> Recovered:
    def rows(sql: str) -> list[Any]:
        return tables.execute(sql).fetchall()

    [(sequence, epoch, next_id, next_row)] = rows(
        "SELECT sequence, epoch, next_id, next_row FROM meta"
    )
    mail = rows("SELECT n, actor, CAST(body AS BLOB) FROM mail_row ORDER BY n")
    timers = rows("SELECT n, due, actor, CAST(body AS BLOB) FROM timer_row ORDER BY n")
    outbox = rows("SELECT n, target, last, CAST(body AS BLOB) FROM outbox_row ORDER BY n")
    peers = rows("SELECT peer, received, sent FROM peer_row ORDER BY peer")
    return Recovered(
        sequence=sequence,
        epoch=epoch,
        next_id=next_id,
        next_row=next_row,
        mail=[MailRow._make(row) for row in mail],
        timers=[TimerRow._make(row) for row in timers],
        outbox=[OutboxRow._make(row) for row in outbox],
        peers=[PeerRow._make(row) for row in peers],
        unanswered=[key for (key,) in rows(UNANSWERED)],
        parked=[key for (key,) in rows(PARKED)],
    )
