"""From the journal to the tables: once a second, many checkpoints as one, beside the commits.

Invariants:

* What is folded is durable in the journal, so folding may stop, fail or die at any moment.
* Each round is one transaction that takes the tables from one checkpoint to a later one, and
  deletes what it has brought from the journal; whoever takes the partition raises the epoch in
  ``folded`` first, and an older owner's rounds do nothing from then on.
* What fails is tried again, a round's time later. So is what waits for somebody's lock for long:
  one connection folds all partitions, and none holds the others up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ...actors.errors import LeaseLostError, StorageError, StoreDamagedError
from ...actors.logs import Log
from ..layers import Layers
from ..unapplied import Unapplied
from . import journal
from .faults import explain, lease_lost
from .links import Connection, Link, driver, transaction
from .tables import mended_values, steps

GATE: Final = (
    "UPDATE {s}.folded SET settled = $4, next_id = greatest(next_id, $5), next_row ="
    " greatest(next_row, $6) WHERE partition = $1 AND epoch = $2 AND settled = $3 RETURNING 1"
)
CLEAR: Final = "DELETE FROM {s}.journal WHERE partition = $1 AND sequence <= $2"

GATHER_S: Final = 1.0
"""How long checkpoints gather before they are folded: what is written again meanwhile is free."""
LARGE: Final = 4 * 1024 * 1024
"""Bytes that are folded at once, however young they are."""
TOO_LARGE: Final = 4 * LARGE
"""Bytes at which commits wait until something is folded."""
LOCKED_S: float = 1.0
"""Seconds that a round waits for somebody's lock."""
PORTION: Final = 1_000
"""Rows of one statement."""

_log = Log("perdure.storage")


def joined(tail: Sequence[Any], settled: int, epoch: int, where: str) -> Unapplied:
    """Make one of the journal's entries behind what the tables have.

    Raises:
        StoreDamagedError: one of them is missing, or cannot be read.
    """
    layer = Unapplied(settled, settled)
    for number, next_id, next_row, body in tail:
        its = f"{where}, table journal, row {number}"
        if number != layer.sequence + 1:
            raise StoreDamagedError(
                f"{its}: it follows {layer.sequence}, so checkpoints are missing; restore a copy"
            )
        try:
            checkpoint = journal.unpack(body, number, epoch)
        except ValueError as error:
            raise StoreDamagedError(
                f"{its}: the checkpoint cannot be read ({error}); restore a copy"
            ) from error
        layer.add(checkpoint, (next_id, next_row), len(body))
    return layer


async def fold(
    connection: Connection,
    partition: int,
    epoch: int,
    layer: Unapplied,
    sql_of: Callable[[str], str],
    where: str,
) -> None:
    """Bring a layer into the tables, all of it or nothing.

    A text that PostgreSQL cannot hold comes there with U+FFFD for what it cannot.

    Raises:
        LeaseLostError: somebody has taken the partition.
    """
    try:
        await _fold(connection, partition, epoch, layer, sql_of, where, list)
    except driver().CharacterNotInRepertoireError:
        await _fold(connection, partition, epoch, layer, sql_of, where, mended_values)


async def _fold(
    connection: Connection,
    partition: int,
    epoch: int,
    layer: Unapplied,
    sql_of: Callable[[str], str],
    where: str,
    given: Callable[[list[Any]], list[Any]],
) -> None:
    numbers = (layer.follows, layer.sequence, layer.next_id, layer.next_row)
    async with transaction(connection, locked_s=LOCKED_S):
        if await connection.fetchval(sql_of(GATE), partition, epoch, *numbers) is None:
            raise lease_lost(where)
        for portion in layer.portions(epoch, PORTION):
            for sql, values in steps(portion):
                await connection.execute(sql_of(sql), partition, *given(values))
        await connection.execute(sql_of(CLEAR), partition, layer.sequence)


class Folder:
    """Folds what one owner of a partition commits. All of it is for calls on asyncio.

    Args:
        partition: its number.
        epoch: the owner's.
        layers: what it commits.
        link: the connection to do it by.
        sql_of: makes a statement of one that names no schema.
        where: the partition, for people.
    """

    def __init__(
        self,
        partition: int,
        epoch: int,
        layers: Layers,
        link: Link,
        sql_of: Callable[[str], str],
        where: str,
    ) -> None:
        self._partition = partition
        self._epoch = epoch
        self._layers = layers
        self._link = link
        self._sql_of = sql_of
        self._where = where
        self._turn = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self._stopped = False

    @property
    def has_failed(self) -> bool:
        """Whether the last round failed, and is tried again."""
        return self._failed

    def wake(self) -> None:
        """Something was committed: see to it that it is folded in time."""
        if self._stopped:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        if self._layers.size >= LARGE:
            self._hurry.set()

    async def _run(self) -> None:
        while self._layers.applied < self._layers.sequence:
            self._hurry.clear()
            if self._layers.size < LARGE or self._failed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), GATHER_S)
            try:
                await self.fold()
            except LeaseLostError:
                return  # the next owner folds what is in the journal
            except StorageError as error:
                if not self._failed:
                    _log.error("the journal of %s is not folded, and waits: %s", self._where, error)
                self._failed = True
                await asyncio.sleep(GATHER_S)

    async def fold(self) -> None:
        """Fold all that was committed by now.

        Raises:
            LeaseLostError: somebody has taken the partition.
            StorageError: it did not work.
        """
        target = self._layers.sequence
        while self._layers.applied < target:
            async with self._turn:
                if self._layers.applied >= target:
                    return
                layer = self._layers.begin()
                if layer is None:
                    return
                await self._fold(layer)

    async def _fold(self, layer: Unapplied) -> None:
        async def work(connection: Connection) -> None:
            await fold(connection, self._partition, self._epoch, layer, self._sql_of, self._where)

        # Of a round whose outcome is unknown the gate says the next time that it has been made.
        try:
            await asyncio.shield(asyncio.ensure_future(self._link.use(work)))
        except (LeaseLostError, asyncio.CancelledError):
            if not await self._is_made(layer):
                raise
        except Exception as error:
            raise explain(error, self._where) from error
        self._layers.end()
        self._failed = False

    async def _is_made(self, layer: Unapplied) -> bool:
        """Whether a round that seemed to fail is in the tables, of this owner."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchval(
                self._sql_of(
                    "SELECT settled = $3 FROM {s}.folded WHERE partition = $1 AND epoch = $2"
                ),
                self._partition,
                self._epoch,
                layer.sequence,
            )

        try:
            return bool(await self._link.use(work))
        except Exception as error:
            raise explain(error, self._where) from error

    async def stop(self) -> None:
        """Fold no more, when the round under way has ended."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None and not task.done():
            async with self._turn:
                task.cancel()
            await asyncio.wait([task])
