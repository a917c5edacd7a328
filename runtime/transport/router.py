"""Where partitions are: on this shard, or on another that a line leads to.

Each event loop that sends or asks has one router. It names a *place* for each partition: the
partition itself where it is hosted here, else an ``Elsewhere`` that stands for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ...actors.errors import HubStoppingError, OutcomeUnknownError, UnavailableError
from ...actors.messages import Completion, Message
from ..placement.places import ENVELOPE_SIZE, AskedRecords, LineLostError, MovedError
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.waiter import Waiter, event_factory
from .channels import Channel
from .lines import Line
from .verbs import VERBS, WITH_MESSAGE, PartitionVerb
from .wire import FRAME_SIZE_MAX, Item

if TYPE_CHECKING:
    from ..placement.places import Frame, Hosted, Place

#: Seconds that requests wait for a shard that died, or a partition that moves, to be back.
PATIENCE_S = 30.0
#: The same for a claim, without which a request goes on: its own partition may be well.
CLAIM_PATIENCE_S = 0.1


class Router:
    """Finds the place of each partition, as seen from one event loop.

    Args:
        partitions: how many there are.
        me: the number of the shard whose loop this is; None for a client that hosts nothing.
        dial: makes a connection to a shard.
        new_waiter: makes a place for one answer, on this loop.
        detour: makes a connection to a shard the second way, where there is one.
    """

    def __init__(
        self,
        partitions: int,
        me: int | None,
        new_waiter: Callable[[], Waiter],
        dial: Callable[[int], Awaitable[Channel]] | None = None,
        detour: Callable[[int], Awaitable[Channel]] | None = None,
    ) -> None:
        self.me = me
        self.new_waiter = new_waiter
        self.owners: list[int] = [0] * partitions
        self.hosted: dict[int, Hosted] = {}
        self.places: list[Place] = [Elsewhere(n, self) for n in range(partitions)]
        self._dial = dial
        self._detour = detour
        self._lines: dict[int, Line] = {}
        self._tasks: TaskGroup | None = None
        self._new_event = event_factory()
        self._changed = self._new_event()
        self._closed = False
        self._incarnations: list[int] = []

    def renew(self) -> None:
        """Dial all shards again: they are another run's."""
        for line in self._lines.values():
            line.renew()

    def start(self, tasks: TaskGroup) -> None:
        """Begin to keep lines up, with tasks of that group."""
        self._tasks = tasks
        for line in self._lines.values():
            tasks.start_soon(line.run)

    def line(self, shard: int) -> Line:
        """Give the line to a shard; it is made when it is first asked for."""
        line = self._lines.get(shard)
        if line is None:
            dial = self._dial
            if self._closed or dial is None:
                raise HubStoppingError("the hub has stopped; repeat it on the next one")
            detour = None if self._detour is None else partial(self._detour, shard)
            line = Line(lambda: dial(shard), self.new_waiter, lambda: self._up(shard), detour)
            self._lines[shard] = line
            if self._tasks is not None:
                self._tasks.start_soon(line.run)
        return line

    def post(self, shard: int, item: Item) -> None:
        """Send an item to another shard; lost where it cannot be reached."""
        if shard != self.me and shard >= 0 and not self._closed:
            self.line(shard).post(item)

    def post_surely(self, shard: int, item: Item) -> None:
        """Send an item that nothing would send again, when the other shard can be reached."""
        if not self._closed:
            self.line(shard).post_surely(item)

    @property
    def is_closed(self) -> bool:
        """Whether all lines are closed, for good."""
        return self._closed

    def add(self, partition: Hosted) -> None:
        """A partition is hosted here from now on."""
        number = partition.index
        self.hosted[number] = partition
        before, self.places[number] = self.places[number], partition
        if self.me is not None:
            self.owners[number] = self.me
        if isinstance(before, Elsewhere):
            before.hand_over(partition)
        self.tell()

    def remove(self, number: int) -> None:
        """A partition is not hosted here any more, and nobody knows yet where it will be."""
        del self.hosted[number]
        self.places[number] = Elsewhere(number, self)

    def place(self, owners: Sequence[int], incarnations: Sequence[int] = ()) -> None:
        """Take note of which shard hosts each partition, and which process each shard is now."""
        if incarnations and [*incarnations] != self._incarnations:
            before, self._incarnations = self._incarnations, [*incarnations]
            for shard, line in self._lines.items():
                if before[shard : shard + 1] != self._incarnations[shard : shard + 1]:
                    line.expect(incarnations[shard])
        for number, owner in enumerate(owners):
            if owner == self.owners[number] and number not in self.hosted:
                self._arrived(number)
            elif owner != self.owners[number] and number not in self.hosted:
                self.owners[number] = owner
                self._arrived(number)
                self._offer(number)
        self.tell()

    def _arrived(self, number: int) -> None:
        place = self.places[number]
        if isinstance(place, Elsewhere):
            place.forward()

    def tell(self) -> None:
        """Have those who wait for a partition to be somewhere look again."""
        changed, self._changed = self._changed, self._new_event()
        changed.set()

    def _offer(self, number: int) -> None:
        """Exchange with a partition what either side may have missed of all those here."""
        place = self.places[number]
        for partition in self.hosted.values():
            partition.offer(number)
            place.resend(partition.index)

    def _up(self, shard: int) -> None:
        for number, owner in enumerate(self.owners):
            if owner == shard and number not in self.hosted:
                self._arrived(number)
                self._offer(number)
        self.tell()

    def forget(self, shard: int) -> None:
        """Give up the line to a shard that is gone for good."""
        line = self._lines.pop(shard, None)
        if line is not None:
            line.give_up()

    @property
    def lines(self) -> Mapping[int, Line]:
        """The lines to other shards, by number."""
        return self._lines

    def renumber(self, me: int) -> None:
        """Be another shard from now on, which hosts nothing yet."""
        self.owners[:] = [-1 if owner == self.me else owner for owner in self.owners]
        self.me = me

    async def wait_moved(self) -> None:
        """Return when a partition has found a place, or soon enough to look again."""
        changed = self._changed
        with anyio.move_on_after(0.05):
            await changed.wait()

    def close(self) -> None:
        """Close all lines."""
        self._closed = True
        for line in self._lines.values():
            line.close()
        self.tell()


class Elsewhere(AskedRecords):
    """Stands for a partition that another shard hosts.

    For other partitions it takes messages, acknowledgements and wishes, and may lose them: what
    is not acknowledged is sent again. For clients it makes requests, follows the partition where
    it moves, and repeats what cannot have happened twice.
    """

    def __init__(self, number: int, router: Router) -> None:
        self.index = number
        self._router = router
        self._completions: list[tuple[str, Completion]] = []

    @property
    def store(self) -> Elsewhere:
        """Where stored actors are read."""
        return self

    # For the partitions of this shard.

    def receive(self, source: int, frame: Frame) -> None:
        """Pass a frame of messages on."""
        self._post(("frame", self.index, source, frame))

    def acknowledge(self, target: int, last: int) -> None:
        """Tell the partition what another has made durable of its messages."""
        self._post(("ack", self.index, target, last))

    def resend(self, target: int) -> None:
        """Ask the partition to send what another has not acknowledged."""
        self._post(("resend", self.index, target))

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """Pass an activity's answer on, when it is known where to."""
        self._completions.append((instance_id, completion))
        if self._router.owners[self.index] != self._router.me:
            self.forward()

    def forward(self) -> None:
        """Pass on what waited for the partition to be somewhere."""
        router = self._router
        owner = router.owners[self.index]
        if owner == router.me or not self._completions or owner < 0:
            return
        if not router.line(owner).is_up:
            return
        completions, self._completions = self._completions, []
        for instance_id, completion in completions:
            self._post(("completion", self.index, instance_id, completion))

    def hand_over(self, partition: Hosted) -> None:
        """The partition is here now: give it what waited to be passed on."""
        for instance_id, completion in self._completions:
            partition.post_answer(instance_id, completion)

    def _post(self, item: Item) -> None:
        self._router.post(self._router.owners[self.index], item)

    # For clients.

    async def _ask(self, verb: PartitionVerb, *arguments: Any) -> Any:
        """Make a request of the partition, wherever it is, and again where that is safe."""
        router = self._router
        patience_s = PATIENCE_S
        deadline: float | None = None
        sent: LineLostError | None = None  # a request that may have been applied
        while True:
            if router.is_closed:
                stopped = HubStoppingError("the hub has stopped; repeat it on the next one")
                raise stopped if sent is None else self._unknown() from sent
            owner = router.owners[self.index]
            line = None if owner == router.me or owner < 0 else router.line(owner)
            try:
                if line is not None and line.is_up:
                    return await line.call(verb, self.index, *arguments)
            except MovedError:
                pass
            except LineLostError as lost:
                if lost.sent and not VERBS[verb].may_repeat(arguments):
                    raise self._unknown() from lost
                if lost.sent and verb in WITH_MESSAGE:
                    sent = lost
                deadline = None  # it was reached
            if deadline is None:
                is_new = line is not None and not line.was_up
                patience_s = PATIENCE_S if verb != "claim" or is_new else CLAIM_PATIENCE_S
                deadline = anyio.current_time() + patience_s
            elif anyio.current_time() > deadline:
                away = UnavailableError(
                    f"partition {self.index} has not been reached for {patience_s:g} seconds; "
                    "repeat it"
                )
                raise away if sent is None else self._unknown() from sent
            await router.wait_moved()
            place = router.places[self.index]
            if place is not self:
                if not isinstance(place, Elsewhere):
                    raise MovedError(f"partition {self.index} has moved here")
                return await place._ask(verb, *arguments)

    def _unknown(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the shard of partition {self.index} stopped before it answered: the request may "
            "have been applied; repeat it under the same request id"
        )

    async def request_once(self, key: str, message: Message, request: str | None) -> Any:
        """See ``Place.request_once``."""
        return await self._ask("request", key, message, request)

    async def request_new(self, key: str, message: Message) -> Any:
        """See ``Place.request_new``; the id is new, so what was lost can be looked up."""
        while True:
            try:
                return await self._ask("request_new", key, message)
            except OutcomeUnknownError as unknown:
                try:
                    await self._ask("wait_durable")
                    # In this order: what has left the mailbox by now is stored as an instance.
                    if await self.waiting([key]) or await self.read_instances([key]):
                        return None
                except UnavailableError:
                    raise unknown from None

    async def request_all(self, parcels: Sequence[tuple[str, Message]]) -> None:
        """See ``Place.request_all``."""
        for some in _portions(parcels):
            await self._ask("request_all", some)

    async def request_later(
        self, key: str, message: Message, due: int, request: str | None
    ) -> None:
        """See ``Place.request_later``."""
        await self._ask("request_later", key, message, due, request)

    async def claim(self, request: str, claim: str) -> None:
        """See ``Place.claim``."""
        await self._ask("claim", request, claim)

    async def wait_for_end(self, key: str) -> tuple[str, bytes | None, bytes | None]:
        """See ``Place.wait_for_end``."""
        while (outcome := await self._ask("wait_for_end", key)) is None:
            pass
        ended: tuple[str, bytes | None, bytes | None] = outcome
        return ended

    async def news(self, after: int | None, most: int) -> list[Any]:
        """See ``Place.news``."""
        found: list[Any] = await self._ask("news", after, most)
        return found

    async def wait_durable(self) -> None:
        """See ``Place.wait_durable``."""
        await self._ask("wait_durable")

    async def purge_ended(self, keys: list[str]) -> list[tuple[str, bool]]:
        """See ``Place.purge_ended``."""
        gone: list[tuple[str, bool]] = await self._ask("purge_ended", keys)
        return gone

    async def unlock(self, key: str, owner: list[Any]) -> None:
        """See ``Place.unlock``."""
        await self._ask("unlock", key, owner)

    async def explain(self, key: str) -> dict[str, Any] | None:
        """See ``Place.explain``."""
        explanation: dict[str, Any] | None = await self._read("explain", key)
        return explanation

    async def trace(self, key: str, after: int, limit: int) -> dict[str, Any] | None:
        """See ``Place.trace``."""
        trace: dict[str, Any] | None = await self._read("trace", key, after, limit)
        return trace

    async def _read(self, verb: PartitionVerb, *arguments: Any) -> Any:
        """Read, also from a partition that has moved here meanwhile."""
        router = self._router
        while True:
            here = router.hosted.get(self.index)
            try:
                if here is not None:
                    return await here.read(VERBS[verb].serve(here, *arguments))
                return await self._ask(verb, *arguments)
            except MovedError:
                await router.wait_moved()


def _portions(parcels: Sequence[tuple[str, Message]]) -> Iterator[Sequence[tuple[str, Message]]]:
    """Cut many messages into as many requests as it takes for each to fit into a frame."""
    size = start = 0
    for index, (_, message) in enumerate(parcels):
        if size > FRAME_SIZE_MAX:
            yield parcels[start:index]
            size, start = 0, index
        size += ENVELOPE_SIZE + message.size
    yield parcels[start:] if start else parcels
