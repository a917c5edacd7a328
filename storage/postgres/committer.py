"""What commits for the partitions of one store: what they hand in meanwhile goes at once.

A statement costs the server, the network and this process much the same whatever it stores. So
while one is under way the next one gathers. Each checkpoint stays a row of its own, under a share
lock and with a look at epoch and predecessor of its own; all of them are one statement.

Invariants:

* What is handed in is done, also where nobody waits for it any more.
* A checkpoint that is refused, or cannot be stored yet, makes no other one fail, and none wait: a
  statement passes over partitions whose row somebody has locked. What it leaves is done again, on
  a connection that it has to itself, and that says why.
* Where the connection breaks, or the server says something worrying, the outcome is unknown of
  all that were in the statement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import define, field

from ...actors.errors import StorageError
from ...actors.logs import Log
from . import journal, links
from .faults import lease_lost, unheard
from .links import Connection, Link, Pool, driver, is_answer

TOGETHER_MAX: Final = 256
"""Checkpoints of one statement."""
TOGETHER_SIZE: Final = 4 * 1024 * 1024
"""Bytes of one statement, where it has more than one checkpoint. A checkpoint that has more goes by
another connection than others, which would wait for it."""

_log = Log("perdure.storage")

Row = tuple[int, int, int, int, int, bytes]
"""Partition, sequence, epoch, next id, next row, body: as the journal has them."""


@define(eq=False)
class Entry:
    """A checkpoint that was handed in.

    Attributes:
        row: what the journal gets.
        where: names the partition.
        on_stored: called once it is durable, before the connection does anything else.
        outcome: there once it is stored, or was not.
    """

    row: Row
    where: str
    on_stored: Callable[[], None]
    outcome: asyncio.Future[None] = field(
        factory=lambda: asyncio.get_running_loop().create_future()
    )

    def tell(self, error: Exception | None = None) -> None:
        """Say what came of it, if nobody has said so yet."""
        outcome = self.outcome
        if outcome.done() and not outcome.cancelled():
            return
        if error is None:
            try:
                self.on_stored()
            except Exception as failed:  # in which the others of the statement have no part
                error = failed
                if outcome.cancelled():
                    _log.error("%s: what is stored was not taken note of: %r", self.where, failed)
        if outcome.cancelled():  # nobody waits for it any more
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)


class Committer:
    """Commits on one connection; for calls on asyncio.

    Args:
        link: the connection.
        aside: has those for what cannot be stored at once.
        sql: makes a statement of one that names no schema.

    Attributes:
        link: as it was given.
    """

    def __init__(self, link: Link, aside: Pool, sql: Callable[[str], str]) -> None:
        self.link = link
        self._aside = aside
        self._sql = sql
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed_in = deque[Entry]()
        self._flying: Sequence[Entry] = ()
        self._tasks = set[asyncio.Task[None]]()
        self._is_running = False

    async def store(self, entry: Entry) -> None:
        """Put a checkpoint into the journal; it is durable on return.

        Raises:
            LeaseLostError: somebody else has the partition; nothing is stored.
            StorageError: it may be stored. So it may where the driver's errors come out, unless
                they are the server's answer.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._is_running, self._flying = loop, False, ()
            self._handed_in.clear()
            self._tasks.clear()
        self._handed_in.append(entry)
        if not self._is_running:
            self._is_running = True
            self._start(self._run())
        await entry.outcome

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        try:
            while self._handed_in:
                try:
                    await self.link.use(self._commit)
                except Exception as error:
                    # Without a connection nothing is under way, and nothing else will be.
                    self._give_up(self._flying or self._gathered(), error)
        except BaseException:
            self._give_up([*self._flying, *self._handed_in], _left())
            self._handed_in.clear()
            raise
        finally:
            self._is_running = False

    def _give_up(self, entries: Sequence[Entry], error: Exception) -> None:
        self._flying = ()
        for entry in entries:
            entry.tell(error)

    def _gathered(self) -> Sequence[Entry]:
        handed_in = self._handed_in
        entries = [handed_in.popleft()]
        size, partitions = len(entries[0].row[-1]), {entries[0].row[0]}
        while handed_in and len(entries) < TOGETHER_MAX:
            row = handed_in[0].row
            size += len(row[-1])
            # A partition can be there twice, if nobody waits for the first one any more.
            if size > TOGETHER_SIZE or row[0] in partitions:
                break
            partitions.add(row[0])
            entries.append(handed_in.popleft())
        return entries

    async def _commit(self, connection: Connection) -> None:
        entries = self._flying = self._gathered()
        try:
            left = await self._at_once(connection, entries)
        except Exception as error:
            if not is_answer(error):
                raise
            left = entries
        for entry in left:
            self._start(self._apart(entry))
        self._flying = ()

    async def _at_once(self, connection: Connection, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Store what can be stored without a wait; gives the others."""
        warnings = self.link.warnings
        if len(entries) == 1:  # by a statement that costs the server less
            rows = await connection.fetch(self._sql(journal.COMMIT_AT_ONCE), *entries[0].row)
        else:
            columns = zip(*(entry.row for entry in entries), strict=True)
            rows = await connection.fetch(self._sql(journal.COMMIT_SEVERAL), *columns)
        if self.link.warnings != warnings:
            self.link.drop()
            for entry in entries:
                entry.tell(unheard(entry.where, "the checkpoint"))
            return ()
        stored = {partition for (partition,) in rows}
        for entry in entries:
            if entry.row[0] in stored:
                entry.tell()
        return [entry for entry in entries if entry.row[0] not in stored]

    async def _alone(self, link: Link, connection: Connection, entry: Entry) -> None:
        warnings = link.warnings
        try:
            stored = await connection.fetchval(self._sql(journal.COMMIT), *entry.row)
        except driver().UniqueViolationError as error:
            refused = lease_lost(entry.where)
            refused.__cause__ = error
            entry.tell(refused)
            return
        if link.warnings != warnings:
            link.drop()
            entry.tell(unheard(entry.where, "the checkpoint"))
        else:
            entry.tell(lease_lost(entry.where) if stored is None else None)

    async def _apart(self, entry: Entry) -> None:
        try:
            async with self._aside.link() as link:
                await link.use(lambda connection: self._alone(link, connection, entry))
        except Exception as error:
            entry.tell(error)
        except BaseException:
            entry.tell(_left())
            raise

    async def finish(self) -> None:
        """Return when all that was handed in is done; what hangs is not waited for."""
        if self._loop is not asyncio.get_running_loop():
            self._tasks.clear()  # they ended with their loop
        with suppress(TimeoutError):
            async with asyncio.timeout(links.CLOSE_S):
                while self._tasks:  # they begin others
                    await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Close the connection, once what uses it has ended; see ``Link.close``.

        Those aside have to be closed by then.
        """
        await self.link.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _left() -> StorageError:
    return StorageError("the event loop ended; it is not known whether the checkpoint is stored")
