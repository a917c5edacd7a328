"""Hubs that have something of everything, and what is in them; and a command that is killed.

As a program: ``migrating.py STEP ARGUMENTS...`` runs ``perdure ARGUMENTS...``, and ends it as
``kill -9`` does when it has reached that step.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from perdure.storage import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    EntityRow,
    MailRow,
    OutboxRow,
    PeerRow,
    RequestRow,
    SetAside,
    Store,
    TimerRow,
    migration,
    open_store,
)
from perdure.testing.store_conformance import created, entity, progress

PARTITIONS = 3

#: What has a number of its own that nobody refers to, and that other stores have not.
_NUMBERED = {"history_row": "n", "request_row": "n", "damaged_row": "n"}
_NO_DATA = ("migration", "sqlite_sequence")


def everything(number: int) -> dict[str, Any]:
    """Give the parts of a checkpoint that has something of everything."""
    tags = orjson.dumps({"team": "blüe", "part": str(number)})
    parked = b'{"type":"Crash","reason":"it does"}'
    return {
        "created": [
            created(1, tags=tags, input=b"null", version="2", start_at=99),
            created(2, parent="i1", parent_task=3, parent_execution=1, input=b'"\\u0000 \xc3\xa9"'),
            created(3, execution=4),
        ],
        "progress": [
            progress(1, pending=2, waits=b'["event:a","activity:b"]', attempts=3, notes=b"{}"),
            progress(
                2, "Failed", completed=7, failure=b'{"m":"x"}', failure_type="E", output=b"1.50e3"
            ),
            progress(3, parked=parked, custom_status=b'{"a" : [1.50, 12345678901234567890123]}'),
        ],
        "history": [
            ChunkRow(1, 0, b'[["Began",0,"a"],["Called",1,"\\u0000"]]'),
            ChunkRow(1, 2, b'[["Ended",2]]'),
            ChunkRow(2, 0, b'[["Began",0]]'),
        ],
        "entities": [
            entity(11, lock=b'{"owner":"i1"}', failures=b"[1]"),
            EntityRow(12, "naïve", "k/ey", 5, None, None, None, parked),
        ],
        "mail": [MailRow(21, "i1", b'{"a":1}'), MailRow(22, "@counter@e11", b"[]")],
        "timers": [TimerRow(23, 77, "i2", b"true")],
        "outbox": [OutboxRow(24, 1, 5, b"[1,2]"), OutboxRow(25, 0, 6, b"[3]")],
        "peers": [PeerRow(0, 4, 5), PeerRow(1, 6, 7)],
        "requests": [RequestRow("r-é", 5, b'{"ok":1}'), RequestRow("R", 6, b"null")],
        "activities": [ActivityRow(26, 2, b'{"call":"x"}')],
    }


async def fill(place: str) -> None:
    """Make a hub that has something of everything in each partition, and stop it."""
    await (await filled(place)).close()


async def filled(place: str) -> Store:
    """Make the same, and leave it open; the last checkpoints are not in the tables yet."""
    store = open_store(place)
    for number, partition in enumerate(await store.open(PARTITIONS)):
        recovered = await partition.recover()
        first = Checkpoint(recovered.sequence + 1, recovered.epoch, **everything(number))
        await partition.commit(first)
        await partition.set_aside([SetAside("mail_row", 22, "@counter@e11", "nobody knows it")])
        await partition.commit(
            Checkpoint(recovered.sequence + 2, recovered.epoch, mail_deleted=[22])
        )
    return store


def rows_of(folder: Path) -> dict[str, list[Any]]:
    """Give all rows of a stopped hub's folder, but the numbers that nothing refers to."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("partition-*.sqlite")):
        with closing(sqlite3.connect(path)) as tables:
            names = tables.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in names.fetchall():
                if table in _NO_DATA:
                    continue
                info = tables.execute("SELECT name FROM pragma_table_info(?)", (table,))
                columns = [name for (name,) in info if name != _NUMBERED.get(table)]
                listed = ", ".join(f"typeof({name}), CAST({name} AS BLOB)" for name in columns)
                rows = tables.execute(f"SELECT {listed} FROM {table} ORDER BY {', '.join(columns)}")
                found[f"{path.name} {table}"] = rows.fetchall()
    return found


def kill_at(last: str) -> None:
    """Have the next migration of this process end it at a step."""

    def reached(step: str) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    migration.reached = reached


if __name__ == "__main__":
    from perdure.__main__ import main

    kill_at(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
