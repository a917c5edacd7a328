"""The exchange of messages between partitions: outbox and watermark, exactly once and in order.

Invariants:

* A frame of messages enters the outbox in the same checkpoint as the turns that sent them, and is
  handed over once that checkpoint is durable.
* Messages from one partition to another are numbered without gaps. The receiver's watermark, the
  last number it took, is stored in the same checkpoint as what it made of the messages.
* A frame leaves the outbox only when the receiver has acknowledged a durable watermark.
* What is handed over and not acknowledged is bounded, in messages and bytes. Further frames lie in
  the outbox alone, and are read back in order as the others are acknowledged.

So a crash may repeat a frame and never loses one; the receiver drops what it knows by number. And a
receiver that stands still takes disk of its senders, and memory for one window of each.

The receiver takes whatever it is given: a message that waited here for room in the mailbox of one
actor would hold up those for all others, a release of a lock among them. What its mailboxes have no
room for overflows at its side (``overflow.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

import anyio
import orjson

from ...actors.errors import StorageError, UnavailableError
from ...actors.messages import Message, read_parcels
from ...storage.records import OutboxRow, PeerRow, is_whole
from ...storage.slices import in_slices
from ..placement.places import FRAME_MESSAGES_MAX, Frame, Place
from .damage import span_of

if TYPE_CHECKING:
    from ...storage.records import Checkpoint, Recovered
    from .batch import Batch
    from .damage import Damage
    from .guarded_store import GuardedStore

Parcels = list[tuple[str, Message]]

#: What one partition may have handed to all others and not been acknowledged, about.
WINDOW_MESSAGES = 16_000
WINDOW_SIZE = 8 * 1024 * 1024
#: A frame of more bytes is made of fewer messages, unless it has only one.
FRAME_SIZE_MAX = 256 * 1024


class Peer:
    """How far the exchange with another partition has come.

    Attributes:
        received: the last message number taken from it; ``durable`` is the last one stored.
        sent: the last message number given to it; ``stored`` is the last one that is durable.
        handed: the last one handed over. Frames behind it lie in the store alone.
        acknowledged: the last one that it has made durable, as far as is known.
        owed: the frames that were handed over and not acknowledged, oldest first.
        size: bytes of these.
        row: the number of the last row of the outbox that was handed over.
    """

    __slots__ = (
        "acknowledged",
        "durable",
        "handed",
        "owed",
        "received",
        "row",
        "sent",
        "size",
        "stored",
    )

    def __init__(self, received: int = 0, sent: int = 0) -> None:
        self.received = received
        self.durable = received
        self.sent = sent
        self.stored = sent
        self.handed = sent
        self.acknowledged = sent
        self.owed: deque[Frame] = deque()
        self.size = 0
        self.row = 0

    def owe(self, frame: Frame) -> None:
        """Take note of a frame that is handed over."""
        self.owed.append(frame)
        self.size += len(frame.body)
        self.handed = frame.last
        self.row = frame.n


class Owner(Protocol):
    """What an exchange needs of the partition whose side it is."""

    batch: Batch
    damage: Damage
    store: GuardedStore

    @property
    def index(self) -> int:
        """The partition's number."""
        ...

    @property
    def places(self) -> Sequence[Place]:
        """All partitions, by number."""
        ...

    def post(self, key: str, message: Message, /) -> None:
        """Put a message into an actor's mailbox."""
        ...

    def new_row(self) -> int:
        """The next number for a row."""
        ...

    def gathered(self) -> None:
        """Say that there is something to commit."""
        ...

    def break_down(self, error: BaseException, /) -> None:
        """Take note that memory cannot be filled."""
        ...


class Exchange:
    """One partition's side of the exchange with all others.

    Attributes:
        choked: the partitions for which frames lie in the store alone.
        is_reading: whether some of these are being read.
        wanted: those whose frames are to be read next.
    """

    def __init__(self, partition: Owner) -> None:
        self._partition = partition
        self._window = self._window_size = 1
        self.wanted: set[int] = set()
        self._gate = anyio.Event()
        self.is_reading = False
        self.peers: dict[int, Peer] = {}
        self.choked: set[int] = set()

    def restore(self, recovered: Recovered) -> None:
        """Take over what the store knows. What is owed is read when it is to be sent again."""
        partition = self._partition
        count = len(partition.places)
        others = max(1, count - 1)
        self._window = max(1, WINDOW_MESSAGES // others)
        self._window_size = max(1, WINDOW_SIZE // others)
        self.peers = {n: Peer() for n in range(count) if n != partition.index}
        self.choked = set()
        for row in recovered.peers:
            self.peers[row.peer] = Peer(row.received, row.sent)
        owing = {row.target for row in recovered.outbox}
        for target, peer in self.peers.items():
            if peer.sent and (target in owing or not is_whole(recovered.outbox)):
                peer.handed = peer.acknowledged = 0
                self.choked.add(target)

    @property
    def owed(self) -> int:
        """How many messages others have not acknowledged."""
        return sum(peer.stored - peer.acknowledged for peer in self.peers.values())

    def _has_room(self, peer: Peer) -> bool:
        owed = peer.owed
        return not owed or (
            peer.handed - owed[0].last < self._window and peer.size < self._window_size
        )

    def receive(self, source: int, frame: Frame) -> None:
        """Take a frame from another partition: each message once, in order."""
        partition = self._partition
        batch = partition.batch
        batch.acknowledged.add(source)
        peer = self.peers[source]
        parcels = read_frame(frame.body) if frame.parcels is None else frame.parcels
        span = span_of(parcels)
        known = peer.received - (frame.last - span)
        if not 0 <= known < span:
            # Taken before; or one in front of it came while this partition was recovering, which
            # ends with all that is owed being sent again, in order.
            if known > 0:
                partition.gathered()
            return
        for key, message in parcels[max(0, known - span + len(parcels)) :]:
            if key:  # else it was lost
                message.keep = True
                partition.post(key, message)
        peer.received = frame.last
        batch.peers.add(source)
        partition.gathered()

    def acknowledge(self, target: int, last: int) -> None:
        """Forget what another partition has made durable, up to the number ``last``."""
        peer = self.peers[target]
        if last > peer.acknowledged:
            peer.acknowledged = last
        owed = peer.owed
        while owed and owed[0].last <= last:
            frame = owed.popleft()
            peer.size -= len(frame.body)
            # No commit for this alone: sent again after a crash, it is dropped over there.
            self._partition.batch.outbox_deleted.append(frame.n)
        if self.choked and target in self.choked:
            self._want(target)

    def acknowledge_again(self, source: int) -> None:
        """Have another partition told once more what is durable of its messages.

        That leaves with the next batch, as every answer does: a store that has failed over may
        have forgotten it, and this partition may be somebody else's.
        """
        self._partition.batch.acknowledged.add(source)
        self._partition.gathered()

    def _acknowledge(self, source: int) -> None:
        partition = self._partition
        durable = self.peers[source].durable
        partition.places[source].acknowledge(partition.index, durable)

    def resend(self, target: int) -> None:
        """Give another partition what it has not acknowledged, as far as it may have it, again."""
        for frame in list(self.peers[target].owed):
            self._partition.places[target].receive(self._partition.index, frame)
        if target in self.choked:
            self._want(target)

    def seal(self, batch: Batch, checkpoint: Checkpoint) -> None:
        """Put the batch's messages to others, and what was taken from them, into a checkpoint."""
        for target, parcels in batch.outbox.items():
            self._frame_all(target, parcels, batch)
            batch.peers.add(target)
        checkpoint.outbox = [
            OutboxRow(frame.n, target, frame.last, frame.body) for target, frame in batch.frames
        ]
        for index in batch.peers:
            peer = self.peers[index]
            checkpoint.peers.append(PeerRow(index, peer.received, peer.sent))

    def unload(self, batch: Batch) -> None:
        """Make frames of the messages to others, as far as they fill some."""
        for target, parcels in batch.outbox.items():
            full = len(parcels) // FRAME_MESSAGES_MAX * FRAME_MESSAGES_MAX
            if full:
                self._frame_all(target, parcels[:full], batch)
                del parcels[:full]

    def _frame_all(self, target: int, parcels: Parcels, batch: Batch) -> None:
        for start in range(0, len(parcels), FRAME_MESSAGES_MAX):
            self._frame(target, parcels[start : start + FRAME_MESSAGES_MAX], batch)

    def _frame(self, target: int, parcels: Parcels, batch: Batch) -> None:
        """Make one frame of messages, or several where it would be too large."""
        body = orjson.dumps([[key, *message.fields()] for key, message in parcels])
        if len(body) > FRAME_SIZE_MAX and len(parcels) > 1:
            half = len(parcels) // 2
            self._frame(target, parcels[:half], batch)
            self._frame(target, parcels[half:], batch)
            return
        peer = self.peers[target]
        peer.sent += len(parcels)
        frame = Frame(self._partition.new_row(), peer.sent, body, parcels)
        batch.frames.append((target, frame))

    def on_durable(self, checkpoint: Checkpoint) -> None:
        """Take note of the watermarks that are durable now."""
        for row in checkpoint.peers:
            peer = self.peers[row.peer]
            peer.durable = row.received
            peer.stored = row.sent

    def release(self, batch: Batch) -> Generator[None]:
        """Hand the frames of a durable batch over, and acknowledge what it made durable.

        Pauses behind each frame, which is forgotten then: all of them at once would take long.
        """
        frames, batch.frames = batch.frames[::-1], []
        while frames:
            self._release(*frames.pop())
            yield
        for source in batch.acknowledged:
            # What was taken since is not durable yet, and must not be acknowledged.
            self._acknowledge(source)

    def _release(self, target: int, frame: Frame) -> None:
        partition, peer = self._partition, self.peers[target]
        if frame.last <= peer.handed:
            return  # read from the store at a pause, when those before it had room
        if target in self.choked or not self._has_room(peer):
            # It comes when those before it are acknowledged.
            self.choked.add(target)
            return
        # Owed from now on and not before: what is sent again must be durable.
        peer.owe(frame._replace(parcels=None))
        partition.places[target].receive(partition.index, frame)

    # What lies in the store alone.

    def _want(self, target: int) -> None:
        self.wanted.add(target)
        self.is_reading = True
        self._gate.set()

    async def run(self) -> None:
        """Read the frames that may be handed over, for ever."""
        while True:
            while self.wanted:
                try:
                    await self.read(self.wanted.pop())
                except (StorageError, UnavailableError) as error:
                    self._partition.break_down(error)
            self.is_reading = False
            self._gate = anyio.Event()
            await self._gate.wait()

    async def read(self, target: int) -> None:
        """Hand over what another partition may have of the frames that lie in the store alone.

        Raises:
            StorageError: they cannot be read.
        """
        peer = self.peers[target]
        while target in self.choked and self._has_room(peer):
            stored = peer.stored
            rows = await self._partition.store.read_outbox(target, peer.row)
            if self.peers[target] is not peer:
                return  # it has recovered meanwhile, and begins anew
            damage = self._partition.damage
            before = peer.handed if peer.row else None
            frames = await in_slices(damage.read_frames(target, rows, before, stored))
            if damage.rows:
                await damage.set_aside(self._partition.store)
            if self.peers[target] is not peer:
                return
            if not peer.row:
                # All in front of the first frame was acknowledged before the partition recovered.
                first = frames[0].last - span_of(read_frame(frames[0].body)) if frames else stored
                peer.acknowledged = max(peer.acknowledged, first)
            if not frames:
                peer.handed = stored
            await in_slices(self._hand_over(target, peer, frames))
            if self.peers[target] is not peer:
                return
            if peer.handed == peer.stored:
                self.choked.discard(target)

    def _hand_over(self, target: int, peer: Peer, frames: list[Frame]) -> Generator[None]:
        partition = self._partition
        for frame in frames:
            yield
            if self.peers[target] is not peer:
                return
            if frame.last <= peer.acknowledged:
                peer.handed, peer.row = frame.last, frame.n
                partition.batch.outbox_deleted.append(frame.n)
            elif self._has_room(peer):
                peer.owe(frame)
                partition.places[target].receive(partition.index, frame)
            else:
                return


def read_frame(body: bytes) -> Parcels:
    """Read the messages of a stored frame."""
    return read_parcels(orjson.loads(body))
