"""The door of a partition: what clients ask of it and other partitions tell it comes in here.

It stands above the partition, which does not know it. Nothing of what is refused here has happened,
and nothing of it is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ...actors.changes import read_parked
from ...actors.errors import (
    InstanceNotFinishedError,
    InstanceNotFoundError,
    MailboxFullError,
    StoreDamagedError,
    UnavailableError,
)
from ...actors.messages import Caller, Command, Completion, Event, LockRelease, Message, Start
from ...actors.orchestrations.orchestration import OrchestrationActor
from ...actors.values import TERMINAL
from ...storage import MendedInstance
from ..placement.claims import claim_of
from ..scheduling.imports import EXPLAINING, imported
from ..scheduling.waiter import Countdown
from .activation import Activation
from .batch import Errand
from .requests import UNTRIED

if TYPE_CHECKING:
    from ..placement.places import Ending, Frame, Records
    from ..scheduling.waiter import Waiter
    from .partition import Partition
    from .tenure import Tenure

T = TypeVar("T")


class Door:
    """Where one partition is asked and told; it is the partition's ``Place``."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.index = partition.index
        self._gate = partition.gate
        self._requests = partition.requests
        self._watchers = partition.watchers
        self._tenure = partition.tenure
        #: Where stored actors are read.
        self.store: Records = partition.store

    # From other partitions, and from activities.

    def receive(self, source: int, frame: Frame) -> None:
        """Take a frame of messages from another partition in."""
        if self._gate.reason is None:  # else it is asked for again when this one has recovered
            self.partition.exchange.receive(source, frame)

    def acknowledge(self, target: int, last: int) -> None:
        """Hear what another partition has made durable, up to the number ``last``."""
        if self._gate.reason is None:
            self.partition.exchange.acknowledge(target, last)

    def resend(self, target: int) -> None:
        """Give another partition all that it has not acknowledged, once more."""
        if self._gate.reason is None:
            self.partition.exchange.resend(target)

    def offer(self, number: int) -> None:
        """Exchange with another partition what either side may have missed."""
        if self._gate.reason is None:
            self.partition.exchange.resend(number)
            self.partition.exchange.acknowledge_again(number)

    def post_answer(self, instance_id: str, completion: Completion) -> None:
        """Take an activity's answer in."""
        self.partition.post_answer(instance_id, completion)

    # From clients.

    def request(self, key: str, message: Message, reply: Any = None) -> Waiter:
        """Take a client's message in; what comes of it is given to the waiter, once durable.

        Raises:
            UnavailableError: the partition is recovering, or too much is waiting.
        """
        partition = self.partition
        if self._gate.reason is not None:
            return self._set_aside(key, message, reply)
        limit = partition.settings.hub_messages_max
        if partition.waiting >= limit and not isinstance(message, (Command, LockRelease)):
            raise MailboxFullError(f"partition {self.index}", limit)
        if type(message) is Start and partition.waiting + partition.calls.waiting >= limit:
            raise MailboxFullError(f"partition {self.index}, activities included,", limit)
        activation = partition.activations.get(key) or partition.catalog.activate(key)
        if activation.count >= activation.messages_max and not isinstance(
            message, (Command, LockRelease)
        ):
            raise MailboxFullError(key, activation.messages_max)
        if (
            type(message) is Event
            and activation.count + activation.events >= activation.messages_max
        ):
            raise MailboxFullError(key, activation.messages_max)
        waiter: Waiter = partition.new_waiter() if reply is None else reply
        message.reply = waiter
        message.target = key
        partition.waiting += 1
        partition.deliver(activation, message)
        return waiter

    def _set_aside(self, key: str, message: Message, reply: Any) -> Waiter:
        waiter: Waiter = self.partition.new_waiter() if reply is None else reply
        self._gate.set_aside(key, message, waiter)
        return waiter

    def request_all(self, parcels: Sequence[tuple[str, Message]], reply: Any = None) -> Waiter:
        """Take many messages of a client in; the waiter hears when all of them are durable."""
        waiter: Waiter = self.partition.new_waiter() if reply is None else reply
        countdown = Countdown(waiter, len(parcels))
        for key, message in parcels:
            try:
                self.request(key, message, countdown)
            except UnavailableError as error:
                # It is raised where it is awaited; by its traceback until here it leads to itself.
                countdown.fail(error.with_traceback(None))
        return waiter

    def request_new(self, key: str, message: Message, reply: Any = None) -> Waiter:
        """Take the first message for an orchestration in, whose id was made up just now."""
        partition = self.partition
        if self._gate.reason is None and key not in partition.activations:
            actor = OrchestrationActor(partition.new_id(), key, partition.lookup)
            partition.activations[key] = Activation(partition, key, actor)
        return self.request(key, message, reply)

    def request_once(self, key: str, message: Message, request: str | None) -> Awaitable[Any]:
        """Take a client's message in and give its outcome, applied once for each request id."""
        if request is None:
            return self.request(key, message)
        return self._request_once(key, message, request)

    async def _request_once(self, key: str, message: Message, request: str) -> Any:
        requests = self._requests
        claim = claim_of(request, key, message)
        outcome = await requests.outcome_of_first(request, claim)
        if outcome is not UNTRIED:
            return outcome
        try:
            stored = await requests.recorded(request, claim)
            is_new = stored is None or not stored.is_answer
            if is_new:
                message.request = claim
                self.request(key, message)
                requests.expect(request, claim)  # a recovery forgets it
        except BaseException as error:
            requests.refuse(request, error)
            raise
        if is_new:
            assert message.reply is not None
            return await message.reply
        assert stored is not None
        requests.tell(request, stored.outcome)
        return stored.outcome

    async def request_later(
        self, key: str, message: Message, due: int, request: str | None
    ) -> None:
        """Keep a client's message until its time; durable when this returns."""
        partition = self.partition
        claim = None if request is None else claim_of(request, key, message)
        if request is not None and claim is not None:
            if self._gate.refuses:
                raise self._gate.refusal()
            if not await self._begin_request(request, claim):
                return

        def keep() -> None:
            if claim is not None:
                self._requests.record(claim, b"ok", b"null", None)
            partition.send_later(due, key, message)

        await self.perform(keep, claim)

    async def _begin_request(self, request: str, claim: str) -> bool:
        """Register a request that only has to be stored; False if it was, by an earlier one."""
        requests = self._requests
        if await requests.outcome_of_first(request, claim) is not UNTRIED:
            return False
        try:
            stored = await requests.recorded(request, claim)
            is_new = stored is None or not stored.is_answer
            if is_new and self._gate.refuses:
                raise self._gate.refusal()
        except BaseException as error:
            requests.refuse(request, error)
            raise
        if not is_new:
            requests.tell(request, None)
            return False
        requests.expect(request, claim)  # a recovery forgets it
        return True

    async def claim(self, request: str, claim: str) -> None:
        """Keep a request id for a request whose target is in another partition.

        Raises:
            RequestIdReusedError: another request has the id.
            UnavailableError: the partition is recovering.
        """
        if self._gate.reason is not None:
            raise self._gate.refusal()
        await self._requests.claim(request, claim, lambda: self._gate.reason is None)

    def unlock(self, key: str, owner: list[Any]) -> Waiter:
        """Take the lock of an entity from an owner that is gone.

        Raises:
            UnavailableError: the partition is recovering.
        """
        return self.request(key, LockRelease(Caller(*owner), [key], -1))

    def wait_durable(self) -> Waiter:
        """Give a waiter that hears when all that gathered up to now is durable."""
        errand = Errand(_nothing)
        errand.reply = waiter = self.partition.new_waiter()
        if self._gate.has_moved:
            waiter.fail(self._gate.refusal())
        else:
            self.partition.take_up(errand)
        return waiter

    def perform(self, work: Callable[[], None], claim: str | None = None) -> Waiter:
        """Do something whose effects go into the batch; gives who hears when they are durable.

        It is done again where the crash of a turn undoes it.

        Args:
            work: does it, at once or when the partition has recovered from such a crash.
            claim: of the request that it is done for, if that has one.

        Raises:
            UnavailableError: the partition is recovering from something else.
        """
        errand = Errand(work)
        errand.request = claim
        if self._gate.reason is not None:
            return self._set_aside("", errand, None)
        errand.reply = waiter = self.partition.new_waiter()
        self.partition.take_up(errand)
        return waiter

    # What clients read and wait for.

    async def read(self, reading: Awaitable[T]) -> T:
        """Read from the store for somebody outside, who is told where the partition has left.

        Raises:
            MovedError: it has left, and its store is closed here.
            StorageError: the store cannot be read.
        """
        if self._tenure is not None and not self._tenure.is_sure():
            await self._until_sure(self._tenure, reading)
        return await self._gate.read(reading)

    async def _until_sure(self, tenure: Tenure, reading: Awaitable[Any]) -> None:
        """Wait with a reading until the partition is known to be here; else give it up."""
        try:
            await tenure.until_sure()
        except BaseException:
            if isinstance(reading, Coroutine):
                reading.close()
            raise

    async def explain(self, key: str) -> dict[str, Any] | None:
        """Say why an actor waits, as JSON values; None where there is no such instance.

        Raises:
            MovedError: the partition has left.
            StorageError: it cannot be read.
            UnavailableError: it cannot be told now; safe to repeat.
        """
        await imported(*EXPLAINING)  # here, since most partitions are never asked
        from .explanation import Explanations

        return await self.read(Explanations(self.partition, self.wait_durable).explain(key))

    async def trace(self, key: str, after: int, limit: int) -> dict[str, Any] | None:
        """Give the steps behind an event of an instance's history, as JSON values.

        Raises:
            MovedError: the partition has left.
            StorageError: it cannot be read.
            UnavailableError: it cannot be told now; safe to repeat.
        """
        await imported(*EXPLAINING)
        from .tracing import trace

        return await self.read(trace(self.partition, key, after, limit))

    def watch_with(self, key: str, waiter: Waiter) -> None:
        """Have somebody wait for an orchestration's end."""
        self._watchers.add(key, waiter)

    def unwatch(self, key: str, waiter: Waiter) -> None:
        """Do not have him wait any more."""
        self._watchers.remove(key, waiter)

    async def wait_for_end(self, key: str) -> Ending | None:
        """Wait for an orchestration's end; the answer None means: ask again.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        if self._gate.has_moved:
            raise self._gate.refusal()
        waiter = self.partition.new_waiter()
        self._watchers.add(key, waiter)
        try:
            if not self.is_live_here(key):
                # Watched first, then looked up: an end in between is not missed.
                records = await self.read(self.store.read_instances([key]))
                if not records:
                    raise InstanceNotFoundError(key)
                record = records[0]
                if isinstance(record, MendedInstance):
                    raise StoreDamagedError(
                        f"the result of {key!r} is not known: {read_parked(record.parked)[1]}"
                    )
                if record.status in TERMINAL:
                    return (record.status, record.output, record.failure)
            outcome: Ending | None = await waiter
            return outcome
        finally:
            self._watchers.remove(key, waiter)
            del waiter  # has the error, if it is one, which leads here by its traceback

    async def news(self, after: int | None, most: int) -> list[Any]:
        """Wait until instances change, and tell which; see ``Place.news``.

        Raises:
            UnavailableError: the partition is recovering, or has moved.
        """
        partition, news = self.partition, self.partition.news
        if self._tenure is not None and not self._tenure.is_sure():
            await self._tenure.until_sure()
        while True:
            if self._gate.reason is not None:
                raise self._gate.refusal()
            durable = partition.sequence
            behind = durable if after is None else after - news.base
            upto, keys = news.behind(behind, durable, most)
            if keys != [] or after is None:
                return [news.base + upto, keys]
            waiter = partition.new_waiter()
            news.add(waiter)
            try:
                await waiter
            finally:
                news.remove(waiter)

    def is_live_here(self, key: str) -> bool:
        """Whether the orchestration is in memory and has not ended, and its end will be told."""
        if self._gate.reason is not None:
            return False
        activation = self.partition.activations.get(key)
        actor = None if activation is None else activation.actor
        return isinstance(actor, OrchestrationActor) and actor.is_live

    async def purge_ended(self, keys: list[str]) -> list[tuple[str, bool]]:
        """Delete those instances that have ended or are parked; durable on return.

        What is not in memory is deleted as a set, in the next checkpoint.

        Returns:
            The keys of those that were deleted, each with whether it had to be ended first.

        Raises:
            UnavailableError: the partition is recovering, or has moved.
        """
        partition, catalog = self.partition, self.partition.catalog
        while True:
            if self._gate.reason is not None:
                await self.perform(_nothing)  # refused, unless it recovers from somebody's crash
            evictions = catalog.evictions
            records = await partition.store.read_instances(keys, payloads=False)
            # Else one of them may live again, and have gone.
            if catalog.evictions == evictions and self._gate.reason is None:
                break
        ended: dict[str, int] = {}
        asked: list[tuple[str, bool, Waiter]] = []
        for record in records:
            key, parked = record.key, record.parked is not None
            if key in catalog.purging:
                continue
            if record.status in TERMINAL and not parked and key not in catalog.activations:
                ended[key] = record.id
            elif record.status in TERMINAL or parked:
                asked.append((key, parked, self.request(key, Command("purge"))))
        deleted: set[str] = set()

        def delete() -> None:
            deleted.clear()
            for key, id in ended.items():
                if key not in catalog.activations:  # else it lives again, since this is done over
                    partition.batch.purged[key] = id
                    catalog.purging.add(key)
                    partition.drop_activities(key)
                    deleted.add(key)

        await self.perform(delete)
        gone = [(key, False) for key in ended if key in deleted]
        for key, parked, answer in asked:
            try:
                await answer
            except (InstanceNotFoundError, InstanceNotFinishedError):
                continue  # purged or started again by somebody else in between
            gone.append((key, parked))
        return gone


def _nothing() -> None:
    """Do nothing, for who only waits."""
