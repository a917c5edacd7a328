"""The gate of a partition: whether messages come in, and what is kept while they do not.

Invariants:

* It is shut exactly while memory is not what the store and the turns since make of it.
* What is set aside waits, with whoever is to be told, for the recovery from somebody's crash to
  end; in any other trouble nothing is set aside, and what was is failed.
* Answers of activities that come while the partition leaves, or comes, follow it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from ...actors.errors import StorageError, UnavailableError
from ..placement.places import MovedError

if TYPE_CHECKING:
    from ...actors.messages import Completion, Message
    from ..scheduling.waiter import Waiter

T = TypeVar("T")


class Gate:
    """Lets messages into one partition, or keeps them out, and says why.

    Args:
        index: the partition's number.
        room: how many messages may be set aside.
    """

    def __init__(self, index: int, room: int) -> None:
        self._index = index
        self._room = room
        #: Why nothing comes in; None while it is open.
        self.reason: Exception | None = None
        #: Clients' messages, in order, while the partition recovers from a crash of a turn.
        self.aside: list[Message] | None = None
        #: Answers of activities, with their instance ids, that no memory could take.
        self.late: list[tuple[str, Completion]] = []

    @property
    def has_moved(self) -> bool:
        """Whether the partition is on its way between shards."""
        return isinstance(self.reason, MovedError)

    @property
    def refuses(self) -> bool:
        """Whether a client's message is neither taken nor kept now."""
        return self.reason is not None and self.aside is None

    def refusal(self) -> UnavailableError:
        """Make the error for whoever is not let in."""
        if self.has_moved:
            return MovedError(str(self.reason))
        return UnavailableError(f"partition {self._index} is recovering: {self.reason}")

    async def read(self, reading: Awaitable[T]) -> T:
        """Read from the store for somebody outside, who is told where the partition has left.

        Raises:
            MovedError: it has left, and its store is closed here.
            StorageError: the store cannot be read.
        """
        try:
            return await reading
        except StorageError:
            if self.has_moved:
                raise self.refusal() from None
            raise

    def set_aside(self, key: str, message: Message, waiter: Waiter) -> None:
        """Keep a client's message until the partition has recovered from somebody's crash.

        Raises:
            UnavailableError: it recovers from something else, or too much is kept.
        """
        if self.aside is None or len(self.aside) >= self._room:
            raise self.refusal()
        message.reply = waiter
        message.target = key
        self.aside.append(message)

    def keep_aside(self) -> None:
        """Keep what clients send from now on, until the recovery has ended."""
        self.aside = self.aside or []

    def take_aside(self) -> list[Message] | None:
        """Give what was set aside, if anything was to be."""
        aside, self.aside = self.aside, None
        return aside

    def take_late(self) -> list[tuple[str, Completion]]:
        """Give the answers that came while nobody could take them."""
        late, self.late = self.late, []
        return late
