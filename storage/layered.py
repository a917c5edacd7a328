"""Reads of one partition: what its tables say, corrected by what they lack.

A store that brings its commits into its tables later reads here, whatever its tables are in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from anyio import CancelScope
from attrs import frozen

from ..actors.errors import LeaseLostError, StorageError
from .layers import Layers
from .mended import check_places, mend_entity, mend_instance
from .pieces import pieces
from .records import (
    SLICE_ROWS,
    SLICE_SIZE,
    Checkpoint,
    ChunkRow,
    EntityRow,
    InstanceRecord,
    MailRow,
    OutboxRow,
    RequestRow,
    cut,
    part_of,
)
from .slices import each, in_slices
from .unapplied import Unapplied

LAYERED_MAIL: Final = 5_000
"""Messages that the tables lack, beyond which they get them before mail is read."""

_GREATEST: Final = 2**63 - 1


@frozen(kw_only=True)
class Reads:
    """The statements that read the tables, in a store's own SQL.

    Attributes:
        instances: the columns of an ``InstanceRecord``, by keys.
        statuses: the same without payloads.
        entities: the columns of an ``EntityRow``, by names and keys.
        history: of an instance, each chunk's place, text, row, and how many events it has.
        history_part: place and text, by instance, first event and the one behind the last.
        request: the columns of a ``RequestRow``, by its id.
        mail: a slice of an actor's: by actor, ``after``, ``upto``, and how many rows and bytes.
        all_mail: a slice of all actors' mail, by the same.
        outbox: a slice of frames: by target, ``after``, and how many rows and bytes.
    """

    instances: str
    statuses: str
    entities: str
    history: str
    history_part: str
    request: str
    mail: str
    all_mail: str
    outbox: str


class LayeredReads(ABC):
    """Reads of single actors; see ``PartitionStore`` for what each promises."""

    reads: ClassVar[Reads]
    _path: Path  # where the tables are, for what is said of rows that a person has changed

    @property
    @abstractmethod
    def _layers(self) -> Layers | None:
        """What the tables lack of the owner's commits; None while nobody has recovered it."""

    @property
    @abstractmethod
    def _known_layers(self) -> Layers | None:
        """The same; those of the owner before, until there are others."""

    @property
    def unapplied(self) -> int:
        """How many checkpoints the tables lack."""
        layers = self._known_layers
        return 0 if layers is None else layers.sequence - layers.applied

    @abstractmethod
    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Run a query of the tables, and give its rows."""

    @abstractmethod
    def _bind(self, texts: Iterable[str]) -> Sequence[Any]:
        """Give what a query takes for some texts."""

    @abstractmethod
    def _bind_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Any]:
        """Give what a query takes for some pairs of texts."""

    @abstractmethod
    def _bind_one(self, text: str) -> Any:
        """Give what a query takes for a text."""

    @abstractmethod
    async def apply(self) -> None:
        """Bring all that was committed by now into the tables."""

    async def _read(self, sql: str, *values: Any) -> tuple[list[Any], tuple[Unapplied, ...]]:
        """Run a query of the tables; gives its rows, and what the tables lack of commits."""
        layers = self._known_layers
        if layers is None:
            return await self._fetch(sql, values), ()
        while True:
            rounds, _ = layers.now()
            rows = await self._fetch(sql, values)
            now, lacking = layers.now()
            if now == rounds:  # else the rows are of before, and the layers of after
                return rows, lacking

    async def read_instances(
        self, keys: Sequence[str], *, payloads: bool = True
    ) -> list[InstanceRecord]:
        """Give the stored instances among ``keys``, in one round trip or none."""
        if self._layers is not None:
            recent: dict[str, InstanceRecord] = {}
            for layer in self._layers.now()[1]:
                layer.correct_instances(keys, recent)
            if len(recent) == len(keys):
                return list(recent.values())  # begun since, so the tables have nothing to say
        sql = self.reads.instances if payloads else self.reads.statuses
        rows, layers = await self._read(sql, *self._bind(keys))
        found = {row[1]: mend_instance(row, self._path) for row in rows}
        for layer in layers:
            layer.correct_instances(keys, found)
        return list(found.values())

    async def read_entities(self, ids: Sequence[tuple[str, str]]) -> list[EntityRow]:
        """Give the stored entities among (name, key) ``ids``, in one round trip."""
        rows, layers = await self._read(self.reads.entities, *self._bind_pairs(ids))
        found = {(row[1], row[2]): mend_entity(row, self._path) for row in rows}
        for layer in layers:
            layer.correct_entities(ids, found)
        return list(found.values())

    async def read_history(self, instance: int) -> list[bytes]:
        """Give the chunks of an instance's history, oldest first.

        Raises:
            StoreDamagedError: their places cannot be read, or are not where the next one begins.
        """
        rows, layers = await self._read(self.reads.history, instance)
        return self._history(instance, rows, layers)

    def _history(
        self, instance: int, rows: Sequence[Any], layers: Sequence[Unapplied]
    ) -> list[bytes]:
        chunks: dict[int, bytes] = {row[0]: row[1] for row in rows}
        for layer in layers:
            layer.correct_history(instance, chunks)
        check_places([row for row in rows if chunks.get(row[0]) is row[1]], chunks, self._path)
        return [chunks[seq] for seq in sorted(chunks)]

    async def read_history_part(self, instance: int, first: int, end: int) -> list[ChunkRow]:
        """Give the chunks that have some of the events of a history; see the protocol."""
        rows, layers = await self._read(self.reads.history_part, instance, first, end)
        chunks: dict[int, bytes] = {row[0]: row[1] for row in rows}
        for layer in layers:
            layer.correct_history(instance, chunks)
        return part_of(instance, chunks, first, end)

    async def read_request(self, request: str) -> RequestRow | None:
        """Give what was recorded for a client's request id."""
        rows, layers = await self._read(self.reads.request, self._bind_one(request))
        found = RequestRow._make(rows[0]) if rows else None
        for layer in layers:
            found = layer.correct_request(request, found)
        return found

    async def read_mail(
        self, actor: str | None, after: int, upto: int, limit: int = SLICE_ROWS
    ) -> list[MailRow]:
        """Give the oldest stored messages for an actor, or for all, with ``after < n <= upto``."""
        known = self._known_layers
        if known is not None and known.mail_count > LAYERED_MAIL:
            # All of it would be looked through for each slice. Where it cannot be applied, it is.
            with suppress(StorageError, LeaseLostError):
                await self.apply()
        sql, who = self.reads.all_mail, []
        if actor is not None:
            sql, who = self.reads.mail, [self._bind_one(actor)]
        while True:
            rows, layers = await self._read(sql, *who, after, upto, limit, SLICE_SIZE)
            found = {row[0]: MailRow._make(row) for row in rows}
            # What the tables have behind this slice is not known, so nothing from there is given.
            end = rows[-1][0] if rows and _is_cut(rows, limit) else upto
            for layer in layers:
                layer.correct_mail(actor, after, end, found)
            if found or end == upto:
                return cut([found[n] for n in sorted(found)], limit)
            after = end

    async def read_outbox(
        self, target: int, after: int, limit: int = SLICE_ROWS
    ) -> list[OutboxRow]:
        """Give the oldest frames owed to another partition with ``n > after``."""
        while True:
            rows, layers = await self._read(self.reads.outbox, target, after, limit, SLICE_SIZE)
            found = {row[0]: OutboxRow._make(row) for row in rows}
            end = rows[-1][0] if rows and _is_cut(rows, limit) else _GREATEST
            for layer in layers:
                layer.correct_outbox(target, after, end, found)
            if found or end == _GREATEST:
                return cut([found[n] for n in sorted(found)], limit)
            after = end


def _is_cut(rows: list[Any], limit: int) -> bool:
    """Whether there may be more rows than a slice had room for; the last column is the body."""
    return len(rows) >= limit or sum(len(row[-1]) for row in rows) >= SLICE_SIZE


async def make_layer(c: Checkpoint, numbers: tuple[int, int], size: int) -> Unapplied:
    """Make a layer of a large checkpoint, beside what reads see; the loop turns meanwhile."""
    layer = Unapplied(c.sequence - 1, c.sequence, size)
    with CancelScope(shield=True):
        await in_slices(each(pieces(c), lambda piece: layer.add(piece, numbers, 0), every=1))
    return layer
