"""The exchange of messages between partitions: outbox and watermark, exactly once and in order.

Invariants:

* A frame of messages enters the outbox in the same checkpoint as the turns that sent them, and is
  handed over once that checkpoint is durable.
* Messages from one partition to another are numbered without gaps. The receiver's watermark, the
  last number it took, is stored in the same checkpoint as what it made of the messages.
* A frame leaves the outbox only when the receiver has acknowledged a durable watermark.

So a crash may repeat a frame and never loses one; the receiver drops what it knows by number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from ..actors.messages import Message, read_parcels
from ..storage.records import OutboxRow, PeerRow
from .batch import FRAME_MESSAGES_MAX, Frame

if TYPE_CHECKING:
    from ..storage.records import Checkpoint, Recovered
    from .batch import Batch
    from .partition import Partition

Parcels = list[tuple[str, Message]]


class Peer:
    """How far the exchange with another partition has come.

    Attributes:
        received: the last message number taken from it; ``durable`` is the last one stored.
        sent: the last message number given to it.
        owed: the frames it has not acknowledged, oldest first.
    """

    __slots__ = ("durable", "owed", "received", "sent")

    def __init__(self, received: int = 0, sent: int = 0) -> None:
        self.received = received
        self.durable = received
        self.sent = sent
        self.owed: list[Frame] = []


class Exchange:
    """One partition's side of the exchange with all others."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.peers: dict[int, Peer] = {}

    def restore(self, recovered: Recovered) -> None:
        """Take over what the store knows."""
        partition = self._partition
        count = len(partition.partitions)
        self.peers = {n: Peer() for n in range(count) if n != partition.index}
        for peer in recovered.peers:
            self.peers[peer.peer] = Peer(peer.received, peer.sent)
        for row in recovered.outbox:
            self.peers[row.target].owed.append(Frame(row.n, row.last, row.body, None))

    def receive(self, source: int, frame: Frame) -> None:
        """Take a frame from another partition: each message once, in order."""
        partition = self._partition
        batch = partition.batch
        batch.acknowledged.add(source)
        peer = self.peers[source]
        parcels = read_frame(frame.body) if frame.parcels is None else frame.parcels
        known = peer.received - (frame.last - len(parcels))
        if not 0 <= known < len(parcels):
            # Taken before; or one in front of it came while this partition was recovering, which
            # ends with all that is owed being sent again, in order.
            if known > 0:
                self.acknowledge_again(source)
            return
        for key, message in parcels[known:]:
            message.keep = True
            partition.post(key, message)
        peer.received = frame.last
        batch.peers.add(source)
        partition.gathered()

    def acknowledge(self, target: int, last: int) -> None:
        """Forget what another partition has made durable, up to the number ``last``."""
        owed = self.peers[target].owed
        while owed and owed[0].last <= last:
            # No commit for this alone: sent again after a crash, it is dropped over there.
            self._partition.batch.outbox_deleted.append(owed.pop(0).n)

    def acknowledge_again(self, source: int) -> None:
        """Tell another partition once more what is durable of its messages."""
        partition = self._partition
        durable = self.peers[source].durable
        partition.partitions[source].acknowledge(partition.index, durable)

    def resend(self, target: int) -> None:
        """Give another partition all that it has not acknowledged, once more."""
        for frame in list(self.peers[target].owed):
            self._partition.partitions[target].receive(self._partition.index, frame)

    def seal(self, batch: Batch, checkpoint: Checkpoint) -> None:
        """Put the batch's messages to others, and what was taken from them, into a checkpoint."""
        partition = self._partition
        for target, parcels in batch.outbox.items():
            peer = self.peers[target]
            for start in range(0, len(parcels), FRAME_MESSAGES_MAX):
                some = parcels[start : start + FRAME_MESSAGES_MAX]
                peer.sent += len(some)
                body = orjson.dumps(
                    [[key, *message.content(), message.request] for key, message in some]
                )
                frame = Frame(partition.new_row(), peer.sent, body, some)
                batch.frames.append((target, frame))
                checkpoint.outbox.append(OutboxRow(frame.n, target, frame.last, body))
            batch.peers.add(target)
        for index in batch.peers:
            peer = self.peers[index]
            checkpoint.peers.append(PeerRow(index, peer.received, peer.sent))

    def on_durable(self, checkpoint: Checkpoint) -> None:
        """Take note of the watermarks that are durable now."""
        for row in checkpoint.peers:
            self.peers[row.peer].durable = row.received

    def release(self, batch: Batch) -> None:
        """Hand the frames of a durable batch over, and acknowledge what it made durable."""
        partition = self._partition
        for target, frame in batch.frames:
            # Owed from now on and not before: what is sent again must be durable.
            self.peers[target].owed.append(frame._replace(parcels=None))
            partition.partitions[target].receive(partition.index, frame)
        for source in batch.acknowledged:
            # What was taken since is not durable yet, and must not be acknowledged.
            self.acknowledge_again(source)


def read_frame(body: bytes) -> Parcels:
    """Read the messages of a stored frame."""
    return read_parcels(orjson.loads(body))
