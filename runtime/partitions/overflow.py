"""What waits for a partition's actors and lies in the store alone, since memory is bounded.

What clients send is refused where too much waits. What actors send never is: that could stop a
cycle of actors for ever. It overflows into the store instead, so the disk is its only bound.

Invariants:

* A message leaves memory only when its row is durable and nobody in this process waits for it. A
  ``Backlog`` takes its place in the mailbox, so the order stays what it was.
* In a mailbox the numbers of rows grow, except those of ``strays``: what got its row later than
  something behind it. These stay in memory, so a backlog knows what lies between its ends.
* Rows are read back when their turn comes, a slice at a time, and only then: while a slice is read
  the actor takes no turn, and what it is sent meanwhile comes behind.
* Whatever has come into memory is in the batch, in a mailbox's front, or stored by the next
  checkpoint and dropped behind it. So an actor has ``MAIL_MAX`` messages in memory and what one
  batch brings, and a partition ``PARTITION_MAX`` and that.
* Nothing here waits for an actor to take its turn, so nothing can wait in a circle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

import anyio
import orjson

from ...actors.errors import StorageError, UnavailableError
from ...actors.logs import Log
from ...actors.messages import Backlog, Caller, LockRequest, Message, Operation, request_of
from ...storage.records import SLICE_ROWS, is_whole
from ...storage.slices import Breath
from ..placement.claims import id_of
from ..scheduling.waiter import TOLD

if TYPE_CHECKING:
    from ...storage.records import MailRow, Recovered
    from ..scheduling.waiter import Waiter
    from .activation import Activation
    from .batch import Batch
    from .damage import Damage
    from .partition import Partition

#: Stored messages of one actor in memory, before all but the first of them leave it.
MAIL_MAX = 1_000
#: The same in bytes of their rows.
MAIL_SIZE_MAX = 1024 * 1024
#: Stored messages of all actors of a partition in memory, before most of them leave it.
PARTITION_MAX = 20_000
PARTITION_SIZE_MAX = 16 * 1024 * 1024
#: Of those of one actor, how many stay then.
FEW = 20

#: How many messages are read back at a time.
AT_ONCE = SLICE_ROWS
#: How many leave it in one step.
SPILLED_MAX = 2_000
#: A backlog of fewer messages would hardly be smaller than these.
RUN_MIN = 4
_GREATEST = 2**63 - 1

_log = Log("perdure.partition")


class Overflow:
    """The messages of one partition's mailboxes that lie in the store alone.

    Attributes:
        count: how many there are.
        durable: the greatest number of a row that is durable.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._hungry: deque[Activation] = deque()
        self._gate = anyio.Event()
        self._stored = self._size = 0  # what came into memory with a row since the last look
        self._limit = PARTITION_MAX
        self.count = 0
        self.durable = 0
        self.is_feeding = False

    def clear(self) -> None:
        """Forget all, as the partition forgets its mailboxes."""
        self._hungry.clear()
        self._stored = self._size = self.count = 0
        self._limit = PARTITION_MAX

    def begin(self, stored: int, size: int) -> None:
        """Begin with so many stored messages in memory."""
        self._stored, self._size = stored, size

    # Out of memory.

    def note(self, count: int, size: int, activation: Activation, waiting: int) -> bool:
        """Take note of messages of an actor that have got rows, of so many bytes.

        Returns:
            Whether there are too many in its mailbox then, in which so many wait in memory.
        """
        self._stored += count
        self._size += size
        return waiting > MAIL_MAX or activation.stored_size > MAIL_SIZE_MAX

    def relieve(self, batch: Batch) -> Generator[None]:
        """After a commit: drop from memory what is too much of it; pauses now and then."""
        self.durable = max(self.durable, batch.last_row)
        for activation in batch.crowded:
            more = True
            while more and not activation.dead:
                more = self.spill(activation, MAIL_MAX // 2, MAIL_SIZE_MAX // 2)
                yield
        if self._stored > self._limit or self._size > PARTITION_SIZE_MAX:
            self._stored = self._size = 0
            for activation in [*self._partition.activations.values()]:
                held = activation.actor is not None and activation.actor.held
                more = bool(activation.mail or held)
                while more and not activation.dead:
                    more = self.spill(activation, FEW, MAIL_SIZE_MAX // 16)
                    yield
                if not activation.dead:
                    self._stored += activation.count - activation.spilled
            # What cannot leave is no reason to look again and again.
            self._limit = self._stored + PARTITION_MAX

    def spill(self, activation: Activation, kept: int, kept_size: int) -> bool:
        """Drop an actor's stored messages from memory, but for so many, the first of them.

        Returns:
            Whether more are to be dropped, since too many were for one slice.
        """
        actor = activation.actor
        activation.stored_size = 0
        before = self.count
        if actor is not None and actor.held:
            held = actor.give_back()
            kept, kept_size = self._spill(activation, held, kept, kept_size)
            for message in held:
                actor.hold(message)
        self._spill(activation, activation.mail, kept, kept_size)
        return self.count - before >= SPILLED_MAX

    def _spill(
        self, activation: Activation, box: list[Message], kept: int, kept_size: int
    ) -> tuple[int, int]:
        """Do it with one of an activation's lists; gives what may be kept of the next one."""
        start = 0
        for message in box:
            if kept <= 0 or kept_size <= 0 or _is_backlog(message):
                break
            start += 1
            kept -= 1
            kept_size -= message.size
            activation.stored_size += message.size
        else:
            return kept, kept_size
        rest = box[start:]
        del box[start:]
        run: list[Message] = []
        for index, message in enumerate(rest):
            may_go = self._may_go(message, activation)
            if run and not (may_go and message.row > run[-1].row):
                self._put(activation, box, run)
                run = []
            if not may_go:
                box.append(message)
                continue
            run.append(message)
            if len(run) >= SPILLED_MAX:
                self._put(activation, box, run)
                box += rest[index + 1 :]
                return 0, 0
        if run:
            self._put(activation, box, run)
        return 0, 0

    def _may_go(self, message: Message, activation: Activation) -> bool:
        return (
            0 < message.row <= self.durable
            and (message.reply is None or message.reply is TOLD)
            and not _is_backlog(message)
            and message.row not in activation.strays
        )

    def _put(self, activation: Activation, box: list[Message], run: list[Message]) -> None:
        """Have a backlog stand for messages that follow one another."""
        backlog = box[-1] if box else None
        if not isinstance(backlog, Backlog) or backlog.refusal is not None:
            if len(run) < RUN_MIN:
                box += run
                return
            backlog = Backlog(run[0].row, run[0].row, 0, set())
            box.append(backlog)
            activation.spilled -= 1  # it is in the mailbox itself
        last = run[-1].row
        backlog.others.update(row for row in activation.strays if backlog.last < row < last)
        backlog.last = last
        backlog.count += len(run)
        backlog.locks += _count_locks(run)
        activation.spilled += len(run)
        self.count += len(run)
        # In the store all of them count for the hub's limit, and in memory only clients' ones.
        self._partition.waiting += sum(message.reply is None for message in run)

    # Back into memory.

    def feed(self, activation: Activation) -> None:
        """Read some of the messages that an activation's mailbox begins with; it takes them then."""
        self._hungry.append(activation)
        self.is_feeding = True
        self._gate.set()

    async def run(self) -> None:
        """Read what is wanted, for ever."""
        while True:
            breath = Breath()
            while self._hungry:
                activation = self._hungry.popleft()
                await breath.take()  # a store need not suspend
                if not activation.dead:
                    try:
                        await self._feed(activation)
                    except (StorageError, UnavailableError) as error:
                        self._partition.break_down(error)
            self.is_feeding = False
            self._gate = anyio.Event()
            await self._gate.wait()

    async def _feed(self, activation: Activation) -> None:
        backlog = activation.mail[0]
        assert isinstance(backlog, Backlog)
        # Those that an actor that is blocked has just been offered are held, and make room.
        self.spill(activation, MAIL_MAX // 2, MAIL_SIZE_MAX // 2)
        first, upto, count = backlog.row, backlog.last, backlog.count
        rows = await self._partition.store.read_mail(activation.key, first - 1, upto, AT_ONCE)
        if activation.dead:
            return
        messages = [
            read_message(row, self._partition) for row in rows if row.n not in backlog.others
        ]
        damage = self._partition.damage
        if damage.rows:
            await damage.set_aside(self._partition.store)
            if _is_dead(activation):
                return
        backlog.row = (rows[-1].n if rows else upto) + 1
        taken = len(messages)
        backlog.locks = max(0, backlog.locks - _count_locks(messages))
        if not rows and count:
            _log.error("%d stored messages of %s are gone from the store", count, activation.key)
            taken = count
        self._forget(activation, backlog, taken)
        self._take(activation, backlog, messages)

    def _forget(self, activation: Activation, backlog: Backlog, taken: int) -> None:
        backlog.count -= taken
        activation.spilled -= taken
        self.count -= taken
        self._partition.waiting -= taken
        self._stored += taken

    def _take(self, activation: Activation, backlog: Backlog, messages: list[Message]) -> None:
        """Let messages that were read take the place of their backlog."""
        partition = self._partition
        rest = [backlog] if backlog.count else []
        if not rest:
            activation.spilled += 1
        if backlog.refusal is not None:
            actor = activation.actor
            assert actor is not None
            kept: list[Message] = []
            for message in messages:
                if actor.give_up(message, backlog.refusal, partition):
                    partition.consume(message)
                else:
                    kept.append(message)
            partition.gathered()
            messages = kept
        activation.mail[:1] = [*messages, *rest]
        activation.queued = False
        if activation.mail:
            activation.wake()


def _is_dead(activation: Activation) -> bool:
    return activation.dead


def _count_locks(messages: Iterable[Message]) -> int:
    return sum(type(message) is LockRequest for message in messages)


def _is_backlog(message: Message) -> bool:
    return type(message) is Backlog


def read_message(row: MailRow, partition: Partition) -> Message:
    """Make the message of a stored row, which nobody of this process waits for."""
    message = partition.damage.read_mail(row)
    message.row = row.n
    if isinstance(message, Operation) and not message.call:
        message.reply = TOLD
        partition.waiting += 1
    return message


class Mailboxes:
    """What the mailboxes of a store hold, looked through from the oldest message to the newest.

    Attributes:
        found: who of the wanted waits for a message that is there.
        answered: whose answers are there.
        requests: the claims of the messages, by request id.
    """

    def __init__(self, wanted: Mapping[int, Waiter], damage: Damage) -> None:
        self._wanted = wanted
        self._damage = damage
        self._lost: list[int] = []
        self._boxes: dict[str, list[MailRow | Backlog]] = {}
        self._kept = self._size = 0
        self.found: dict[int, Waiter] = {}
        self.answered: set[Caller] = set()
        self.requests: dict[str, str] = {}

    def add(self, row: MailRow) -> None:
        """Take note of the next message."""
        if not self._damage.has_actor(row):
            self._lost.append(row.n)
            return
        is_lock = False
        # One that is damaged is read as that later.
        with suppress(ValueError, TypeError, LookupError, AttributeError):
            fields = orjson.loads(row.body)
            is_lock = fields[0] == "lock"
            if fields[0] == "completion":
                self.answered.add(Caller(row.actor, fields[2], fields[3]))
            request = request_of(fields)
            if request is not None:
                self.requests[id_of(request)] = request
        box = self._boxes.setdefault(row.actor, [])
        waiter = self._wanted.get(row.n)
        if waiter is not None:
            self.found[row.n] = waiter
        elif box and isinstance(box[-1], Backlog):
            box[-1].last = row.n
            box[-1].count += 1
            box[-1].locks += is_lock
            return
        elif (
            len(box) >= MAIL_MAX // 2
            or self._kept >= PARTITION_MAX // 2
            or self._size >= PARTITION_SIZE_MAX // 2
        ):
            backlog = Backlog(row.n, row.n, 1, set())
            backlog.locks += is_lock
            box.append(backlog)
            return
        self._kept += 1
        self._size += len(row.body)
        box.append(row)

    def fill(self, partition: Partition) -> Generator[None]:
        """Give the actors of a partition, whose memory is empty, what waits for them.

        Pauses behind each.
        """
        for request, claim in self.requests.items():
            partition.requests.expect(request, claim)
        overflow = partition.overflow
        overflow.durable = partition.next_row - 1
        overflow.begin(self._kept, self._size)
        partition.batch.mail_deleted += self._lost
        for key, box in self._boxes.items():
            for one in box:
                if isinstance(one, Backlog):
                    partition.post(key, one)
                    partition.activations[key].spilled += one.count - 1
                    partition.waiting += one.count
                    overflow.count += one.count
                else:
                    message = read_message(one, partition)
                    waiter = self.found.get(one.n)
                    if waiter is not None:
                        partition.waiting += message.reply is None
                        message.reply = waiter
                    partition.post(key, message)
            yield


async def look_through(
    partition: Partition,
    recovered: Recovered,
    wanted: Mapping[int, Waiter] = MappingProxyType({}),
) -> Mailboxes:
    """Read all stored messages, of which only the first of each actor come into memory.

    Args:
        partition: which has no other messages.
        recovered: what its store gave.
        wanted: who waits for messages that may be stored, by their rows.

    Raises:
        StorageError: the store cannot be read.
    """
    mailboxes = Mailboxes(wanted, partition.damage)
    rows = recovered.mail
    while rows:
        for row in rows:
            mailboxes.add(row)
        if rows is recovered.mail and is_whole(rows):
            break
        rows = await partition.store.read_mail(None, rows[-1].n, _GREATEST)
    return mailboxes
