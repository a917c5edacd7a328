"""What has gathered since the last checkpoint was sealed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Generator, Iterator
from typing import TYPE_CHECKING, Any

from ...actors.ids import is_entity
from ...actors.messages import ActivityCall, Message
from ...storage.slices import STEPS
from ..placement.places import Frame

if TYPE_CHECKING:
    from ...storage.records import ActivityRow, MailRow, RequestRow, TimerRow
    from ..scheduling.waiter import Waiter
    from .activation import Activation
    from .checkpoint import Change
    from .durable_timers import DurableTimer
    from .requests import Requests


#: More than this would make one checkpoint hold up those behind it, and its loop while it is sealed.
MESSAGES_MAX = 2_000
SIZE_MAX = 8 * 1024 * 1024


class Errand(Message):
    """What somebody has a partition do that is no message to an actor.

    Where the crash of somebody's turn undoes it, it is done over, as messages are taken again.

    Attributes:
        work: does it; what it changes is in the batch.
    """

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.target = ""
        self.work = work


class Batch:
    """The effects of the turns taken since the last checkpoint was sealed.

    The first group becomes rows; the second leaves the partition once these are durable.
    """

    __slots__ = (
        "acknowledged",
        "activities",
        "ahead",
        "answered",
        "by_row",
        "crowded",
        "dirty",
        "finished",
        "frames",
        "given_up",
        "last_row",
        "left",
        "left_deleted",
        "mail",
        "mail_deleted",
        "messages",
        "outbox",
        "outbox_deleted",
        "peers",
        "purged",
        "replies",
        "requests",
        "rest",
        "sequence",
        "size",
        "staying",
        "timer_rows",
        "timers",
        "timers_deleted",
        "told",
        "touched",
        "turns",
        "unready",
    )

    def __init__(self) -> None:
        self.dirty: list[Activation] = []
        self.ahead: dict[Activation, Change] = {}  # what some of these told before the seal
        self.touched: list[Activation] = []
        self.crowded: list[Activation] = []  # those with too many stored messages in memory
        self.mail: list[MailRow] = []
        self.mail_deleted: list[int] = []
        self.timer_rows: list[TimerRow] = []  # of those that are written down
        self.timers: list[DurableTimer] = []
        self.timers_deleted: list[int] = []
        self.outbox: dict[int, list[tuple[str, Message]]] = {}
        self.outbox_deleted: list[int] = []
        self.peers: set[int] = set()
        self.requests: list[RequestRow] = []
        self.left: list[ActivityRow] = []
        self.left_deleted: list[int] = []
        self.purged: dict[str, int] = {}  # instances that are not in memory, by key

        # Who waits, for what, and the message that asked for it, if one did.
        self.replies: list[tuple[Waiter, Any, Message | None]] = []
        self.by_row: dict[int, Waiter] = {}  # of the replies, those to messages of the store
        self.answered: list[tuple[str, Any]] = []  # request ids, for those who repeat them
        self.activities: list[ActivityCall] = []
        # Which of these, by execution: tasks, or None for all, and how many there were then.
        self.given_up: dict[tuple[str, int], list[tuple[Container[int] | None, int]]] = {}
        self.frames: list[tuple[int, Frame]] = []
        self.acknowledged: set[int] = set()
        self.finished: list[str] = []
        self.told: list[Any] = []  # for whoever traces
        self.unready: list[
            tuple[str, Generator[None]]
        ] = []  # what is to be done before it is sealed
        self.staying: list[Activation] = []  # those that take no turns before that
        self.rest: list[Generator[None]] = []  # of what its turns let go of; has time
        self.turns = 0
        self.messages = 0
        self.size = 0  # bytes of the payloads that the messages brought, and of what was sent
        self.sequence = 0
        self.last_row = 0  # the greatest number that any of its rows may have

    @property
    def is_full(self) -> bool:
        """Whether it holds as much as one checkpoint should."""
        return self.messages >= MESSAGES_MAX or self.size >= SIZE_MAX

    @property
    def has_rows(self) -> bool:
        """Whether there is something to make durable."""
        return bool(
            self.dirty
            or self.touched
            or self.mail
            or self.mail_deleted
            or self.timers
            or self.timers_deleted
            or self.outbox
            or self.peers
            or self.requests
            or self.left_deleted
            or self.purged
        )

    def changed_instances(self) -> Iterator[str]:
        """Give the ids of the instances that its checkpoint changes."""
        yield from self.purged
        for activation in self.dirty:
            if not is_entity(activation.key):
                yield activation.key

    @property
    def has_output(self) -> bool:
        """Whether somebody waits for it, or something."""
        return bool(
            self.replies
            or self.answered
            or self.activities
            or self.acknowledged
            or self.finished
            or self.rest
        )

    def cancel(self, instance_id: str, execution: int, tasks: Container[int] | None) -> None:
        """Do not start activities of an execution, or all, of those called so far."""
        marks = self.given_up.setdefault((instance_id, execution), [])
        marks.append((tasks, len(self.activities)))

    def wanted(self, start: int = 0, count: int | None = None) -> list[ActivityCall]:
        """Give the activities that were not given up, of all, or of so many from one on."""
        calls, given_up = self.activities, self.given_up
        end = len(calls) if count is None else min(start + count, len(calls))
        found: list[ActivityCall] = []
        for place in range(start, end):
            call = calls[place]
            instance_id, execution, task = call.caller
            if not any(
                place < count and (tasks is None or task in tasks)
                for tasks, count in given_up.get((instance_id, execution), ())
            ):
                found.append(call)
        return found

    def fail_replies(self, error: Exception, spared: Collection[Waiter] = ()) -> None:
        """Fail all that wait for the batch, except those that go on waiting."""
        for waiter, _, _ in self.replies:
            if waiter not in spared:
                waiter.fail(error)

    def release_replies(self, requests: Requests) -> Generator[None]:
        """Give the answers to those who wait; an exception is raised where it is awaited.

        Pauses now and then.
        """
        left = STEPS
        for waiter, value, _ in self.replies:
            if isinstance(value, Exception):
                waiter.fail(value)
            else:
                waiter.set(value)
            left -= 1
            if not left:
                left = STEPS
                yield
        for request, value in self.answered:
            for waiter in requests.under_way.pop(request, ()):
                if isinstance(value, Exception):
                    waiter.fail(value)
                else:
                    waiter.set(value)
