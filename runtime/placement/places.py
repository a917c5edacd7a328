"""What partitions and clients say to a partition, wherever it is."""

from __future__ import annotations

from typing import NamedTuple

from ...actors.errors import UnavailableError
from ...actors.messages import Message

#: What a message that is sent takes besides its payload, about.
ENVELOPE_SIZE = 256


#: Frames of 100 to 300 messages crossed between processes fastest.
FRAME_MESSAGES_MAX = 250


class Frame(NamedTuple):
    """Messages owed to another partition; the last of them has the number ``last``."""

    n: int
    last: int
    body: bytes
    parcels: list[tuple[str, Message]] | None  # None where it was read back from the store


class MovedError(UnavailableError):
    """The partition is not on this shard (any more); nothing happened."""


class LineLostError(UnavailableError):
    """The connection broke; ``sent`` says whether the request may have arrived."""

    def __init__(self, sent: bool) -> None:
        super().__init__(sent)
        self.sent = sent

    def __str__(self) -> str:
        return "the connection to the shard broke"
