"""Damage: stored rows that nobody can read, met when a partition comes back from its store.

Each such row is set aside, and its actor finds a command to park in the place of the message. So
it takes what came before, and keeps what came behind; all others go on.
"""

from __future__ import annotations

from collections.abc import Generator, Sized
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from ...actors.classes import class_of
from ...actors.logs import Log
from ...actors.messages import Command, Message, encode_message
from ...actors.replay.stored import check_actor, read_message
from ...storage import is_time
from ...storage.mended import is_count
from ...storage.records import SetAside
from ..placement.hashing import partition_of
from ..placement.places import FRAME_MESSAGES_MAX, Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...storage.records import MailRow, OutboxRow, TimerRow
    from .guarded_store import GuardedStore

_log = Log("perdure.partition")


class Owner(Protocol):
    """What the damage needs to know of the partition whose it is."""

    @property
    def index(self) -> int:
        """Its number."""
        ...

    @property
    def places(self) -> Sized:
        """All of them."""
        ...


class Damage:
    """What is damaged of the messages that one partition's store holds.

    Args:
        place: where the rows are, in words.
        partition: whose rows they are.

    Attributes:
        rows: what is to be set aside, and is not yet.
    """

    def __init__(self, place: str, partition: Owner) -> None:
        self.rows: list[SetAside] = []
        self._place = place
        self._partition = partition

    def _take(self, table: str, row: int, actor: Any, reason: object) -> str:
        """Take a damaged row; gives in one text which, and how it is."""
        text = f"{self._place}, table {table}, row {row}: {reason}"
        key = actor if type(actor) is str else None
        self.rows.append(SetAside(table, row, key, text))
        _log.error("set aside a message for %s: %s", "nobody known" if key is None else key, text)
        return text

    async def set_aside(self, store: GuardedStore) -> None:
        """Have the store keep what was found since the last time; before the rows are deleted."""
        rows, self.rows = self.rows, []
        if rows:
            await store.set_aside(rows)

    def has_actor(self, row: MailRow) -> bool:
        """Whether a message that waits says for whom, an actor of this partition."""
        try:
            check_actor(row.actor)
            partition = self._partition
            if partition_of(row.actor, len(partition.places)) != partition.index:
                raise ValueError(f"{row.actor!r} is no actor of this partition")
        except ValueError as error:
            self._take("mail_row", row.n, row.actor, error)
            return False
        return True

    def read_mail(self, row: MailRow) -> Message:
        """Read a message that waits."""
        try:
            return read_message(row.body)
        except ValueError as error:
            return self._park("mail_row", row.n, row.actor, error)

    def read_timer(self, row: TimerRow) -> tuple[Message | None, bool]:
        """Read a message that waits for its time; tells too whether it is as it was sent."""
        try:
            check_actor(row.actor)
        except ValueError as error:
            self._take("timer_row", row.n, row.actor, error)
            return None, False
        try:
            if not is_time(row.due):
                raise ValueError(f"{row.due!r} is no time")
            return read_message(row.body), True
        except ValueError as error:
            return self._park("timer_row", row.n, row.actor, error), False

    def _park(self, table: str, row: int, actor: str, error: ValueError) -> Command:
        return Command("park", self._take(table, row, actor, error))

    def read_frames(
        self, target: int, rows: Sequence[OutboxRow], before: int | None, stored: int
    ) -> Generator[None, None, list[Frame]]:
        """Read stored frames owed to another partition; pauses behind each.

        Messages are numbered without gaps, so what is lost leaves its numbers behind.

        Args:
            target: the other partition.
            rows: the frames, in order.
            before: the number of the message before them, if that is known.
            stored: the last number that may be handed over.
        """
        frames: list[Frame] = []
        lost: list[OutboxRow] = []  # in front of the next frame that can be read
        for row in rows:
            yield
            try:
                body, count = self._read_frame(row, target)
            except ValueError as error:
                self._take("outbox_row", row.n, None, error)
                lost.append(row)
                continue
            if row.last > stored:
                break  # it may not be released yet
            if lost:
                frames += _fill(lost, before, row.last - count)
                lost = []
            frames.append(Frame(row.n, row.last, body, None))
            before = row.last
        if lost:
            numbers = [row.last for row in lost if is_count(row.last) and row.last <= stored]
            frames += _fill(lost, before, max(numbers, default=stored))
        return frames

    def _read_frame(self, row: OutboxRow, target: int) -> tuple[bytes, int]:
        """Give a frame's messages, with those that cannot be read replaced; and how many."""
        parcels: Any = orjson.loads(row.body)
        if class_of(parcels) is not list or not parcels:
            raise ValueError("it is no list of messages")
        if type(row.last) is not int or row.last < len(parcels):
            raise ValueError(f"{row.last!r} is not the number of its last message")
        changed = False
        for place, parcel in enumerate(parcels):
            try:
                if type(parcel) is not list or not parcel:
                    raise ValueError("it is no message")
                if parcel[0] != "":  # one that was lost before
                    check_actor(parcel[0])
                    read_message(parcel[1:])
            except ValueError as error:
                changed = True
                reason = self._take("outbox_row", row.n, None, f"message {place}: {error}")
                parcels[place] = self._replace(parcel, target, reason)
        return (orjson.dumps(parcels) if changed else row.body), len(parcels)

    def _replace(self, parcel: Any, target: int, reason: str) -> Any:
        try:
            key = check_actor(parcel[0])
        except (ValueError, TypeError, LookupError):
            return orjson.Fragment(_void(1))
        if partition_of(key, len(self._partition.places)) != target:
            return orjson.Fragment(_void(1))
        command = Command("park", reason)
        return [key, *orjson.loads(encode_message(command))]


def _void(count: int) -> bytes:
    """Give the parcel of messages that are lost: it keeps their numbers, and is for nobody."""
    return b'["","command","park","",false,%d,null]' % count


def span_of(parcels: list[tuple[str, Message]]) -> int:
    """Give how many numbers a frame's messages have, with those of the lost ones."""
    key, first = parcels[0]
    lost = first.execution - 1 if not key and isinstance(first, Command) else 0
    return len(parcels) + lost


def _fill(lost: list[OutboxRow], before: int | None, last: int) -> list[Frame]:
    """Give what takes the place of lost frames up to a number."""
    if before is None:
        # All in front of the first that is owed was taken, and no frame is longer than this.
        before = max(0, last - FRAME_MESSAGES_MAX * len(lost))
    if last <= before:
        return []
    return [Frame(lost[-1].n, last, b"[%b]" % _void(last - before), None)]
