"""The client: starts, signals, queries and manages actors from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

import anyio
from attrs import frozen

from ...actors.arguments import whole
from ...actors.codec import Codec
from ...actors.contexts.entity import EntityContext
from ...actors.contexts.orchestration import OrchestrationContext
from ...actors.errors import PerdureError, UsageError
from ...actors.ids import EntityId, check_instance_id, check_text
from ...actors.messages import OnExisting
from ...actors.times import seconds
from ...actors.values import MISSING, RuntimeStatus
from ..facts import Fact
from .handle import OrchestrationHandle
from .pages import HistoryPage, Order, Page
from .status import AppDescription, EntityStatus, HistoryEvent, OrchestrationStatus, hindrance

if TYPE_CHECKING:
    from ..explanations import EntityExplanation, InstanceExplanation, Trace
    from ..nodes import HubNodes
    from ..statistics import HubStatistics
    from .changes import Change

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")

#: How long to look for what keeps an instance from ending, once nobody waits any more.
_LOOK_S = 1.0

#: Entity, operation, input, and the time before which it is not applied.
Signal = (
    tuple[EntityId[Any], str | Callable[..., Any], Any]
    | tuple[EntityId[Any], str | Callable[..., Any], Any, datetime | timedelta | float | None]
)


@frozen
class CleanResult(Fact):
    """What ``clean_entity_storage`` did.

    Attributes:
        empty_entities_removed: entities without state that were removed.
        orphaned_locks_released: locks released whose holder had ended.
    """

    empty_entities_removed: int
    orphaned_locks_released: int


class PurgeConditions(TypedDict, total=False):
    """What ``purge`` may ask of orchestration instances; None asks for nothing.

    Times are aware datetimes, from inclusive, to exclusive.

    Attributes:
        statuses: which of them; by default any, but for ``purge`` all in which an instance ends, and
            the parked ones.
        name: the orchestration, or its name.
        instance_id_prefix: what the ids begin with.
        created_from: see above.
        created_to: see above.
        completed_from: see above.
        completed_to: see above.
        tags: texts that it has.
    """

    statuses: Iterable[RuntimeStatus | str] | None
    name: str | Callable[..., Any] | None
    instance_id_prefix: str | None
    created_from: datetime | None
    created_to: datetime | None
    completed_from: datetime | None
    completed_to: datetime | None
    tags: Mapping[str, str] | None


class InstanceConditions(PurgeConditions, total=False):
    """What ``query`` and ``count`` may ask of instances besides; None asks for nothing.

    Attributes:
        updated_from: of the last turn.
        updated_to: see above.
        parent_instance_id: whose child it is.
        failure_type: the error type of its failure.
        parked: whether it takes no turns, until ``retry``.
        waiting_for: what it waits for: ``event:NAME``, ``activity:NAME``, ``entity:@NAME@KEY``,
            ``lock:@NAME@KEY``, ``child`` or ``timer``. Of many things that an instance has open
            the first 32 are known.
        min_attempts: a call of it is tried again where it fails, and is at this attempt at least,
            from 2, or waits for it.
    """

    updated_from: datetime | None
    updated_to: datetime | None
    parent_instance_id: str | None
    failure_type: str | None
    parked: bool | None
    waiting_for: str | None
    min_attempts: int | None


def check_conditions(kind: Any, conditions: Mapping[str, Any]) -> None:
    """Refuse a condition that there is not, as a call refuses an argument.

    Raises:
        TypeError: one of them is none of that kind's.
    """
    known = kind.__optional_keys__
    for name in conditions:
        if name not in known:
            raise TypeError(f"there is no condition {name!r}; there are {', '.join(sorted(known))}")


class EntityConditions(TypedDict, total=False):
    """What ``query_entities`` may ask of entities; None asks for nothing.

    Times are aware datetimes, from inclusive, to exclusive.

    Attributes:
        name: the entity's class or function, or its name, whatever the case.
        key_prefix: what the keys begin with.
        updated_from: of the last change.
        updated_to: see above.
        locked: whether somebody holds its lock.
        parked: whether it takes no operations, until ``retry``.
        include_empty: whether those without state are found as well.
        states: whether their states are read; True by default.
    """

    name: str | Callable[..., Any] | None
    key_prefix: str | None
    updated_from: datetime | None
    updated_to: datetime | None
    locked: bool | None
    parked: bool | None
    include_empty: bool
    states: bool


class Client(ABC):
    """Starts, signals, queries and manages actors; ``hub.client`` and ``connect`` give one.

    What a method says is done is durable when it returns. Where it raises ``UnavailableError``,
    nothing happened. A ``request_id`` makes a request safe to repeat, also across a crash: the
    hub applies it once, and answers a repetition as it answered the first.
    """

    # Orchestrations.

    @overload
    @abstractmethod
    async def start_new(
        self,
        f: Callable[[OrchestrationContext, A], Coroutine[Any, Any, R] | Generator[Any, Any, R]],
        input: A,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | float | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    @abstractmethod
    async def start_new(
        self,
        f: Callable[[OrchestrationContext], Coroutine[Any, Any, R] | Generator[Any, Any, R]],
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | float | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    @abstractmethod
    async def start_new(
        self,
        f: str,
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | float | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[Any]: ...
    @abstractmethod
    async def start_new(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        start_at: datetime | timedelta | float | None = None,
        on_existing: OnExisting = "reject",
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        """Start an orchestration; it is durable when this returns.

        Args:
            f: the orchestration, or its name.
            input: its input, if it takes one.
            instance_id: its id; by default one is made up.
            version: which version; the highest by default.
            tags: texts to find it by.
            start_at: an aware datetime, or how long from now, before which it does not begin.
            on_existing: where a live instance has the id: ``reject`` raises, ``reuse`` returns
                its handle, ``replace`` terminates it first. An instance that has ended is
                replaced anyway.
            request_id: makes the call safe to repeat.

        Raises:
            UnknownNameError: no such orchestration or version.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            InvalidIdError, InvalidTimeError: a bad id or time.
            InstanceAlreadyExistsError: a live instance has the id.
            UnavailableError: nothing happened; safe to repeat.
        """
        ...

    def get_handle(self, instance_id: str) -> OrchestrationHandle[Any]:
        """Give the handle of an instance, without asking whether there is one."""
        return OrchestrationHandle(self, check_instance_id(instance_id), None)

    async def wait(
        self,
        instance_id: str,
        codec: Codec[Any] | None = None,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Wait for an instance's end and give its result; see ``OrchestrationHandle.result``."""
        instance_id = check_instance_id(instance_id)
        if timeout is None:
            return await self._wait(instance_id, codec)
        limit = seconds(timeout, "timeout")
        with anyio.move_on_after(limit):
            return await self._wait(instance_id, codec)
        raise TimeoutError(
            f"orchestration {instance_id!r} has not ended within {limit:g} seconds"
            f"{await self._hindrance(instance_id)}"
        )

    @abstractmethod
    async def _wait(self, instance_id: str, codec: Codec[Any] | None) -> Any:
        """Wait for an instance's end, however long that takes."""
        ...

    async def _hindrance(self, instance_id: str) -> str:
        """Say what keeps an instance from ending until somebody does something about it."""
        status = None
        with anyio.move_on_after(_LOOK_S), suppress(PerdureError):
            status = await self.get_status(instance_id)
        return hindrance(status)

    @abstractmethod
    async def raise_event(
        self, instance_id: str, name: str, data: Any = None, *, request_id: str | None = None
    ) -> None:
        """Send an instance an event; it is durable, and arrives once, when this returns.

        Args:
            instance_id: which instance.
            name: the event's name; case does not matter.
            data: any JSON value.
            request_id: makes the call safe to repeat.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
            PayloadError: the data cannot be JSON or is too large.
            UnavailableError: nothing happened; safe to repeat.
        """
        ...

    @abstractmethod
    async def terminate(
        self, instance_id: str, reason: str = "", *, recursive: bool = True
    ) -> None:
        """End an instance without running its code again; its locks and timers are given back.

        Args:
            instance_id: which instance.
            reason: what its status will say.
            recursive: whether its children end as well.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        ...

    @abstractmethod
    async def cancel(self, instance_id: str, reason: str = "") -> None:
        """Throw ``Cancelled`` into an instance's code at its await; it may compensate durably.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        ...

    @abstractmethod
    async def suspend(self, instance_id: str, reason: str = "") -> None:
        """Let an instance take no turns until it is resumed; what arrives is kept in order.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        ...

    @abstractmethod
    async def resume(self, instance_id: str, reason: str = "") -> None:
        """Let a suspended instance go on with what has arrived.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        ...

    @abstractmethod
    async def retry(self, actor: str | EntityId[Any]) -> None:
        """Let a parked actor try again, after what was wrong has been repaired.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        ...

    @abstractmethod
    async def rewind(self, instance_id: str, reason: str = "", *, force: bool = False) -> None:
        """Take a failed instance back to before its failures, and let it go on from there.

        Its failed calls, and those of its failed children, are made again; the completed ones are
        not. The execution goes on under its number, so answers still under way find it. A lock on
        entities that it held is taken again before it calls anything under it; others may have
        used them in between.

        Args:
            instance_id: which instance.
            reason: what its history will say.
            force: take all failures back even if that makes the history forget what completed
                after them, a compensation for one, so that it may be done again.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceNotFinishedError: it has not failed.
            RewindError: something that completed after the failures would be forgotten.
        """
        ...

    @abstractmethod
    async def restart(
        self,
        instance_id: str,
        *,
        with_new_instance_id: bool = True,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        """Start an orchestration anew with the name, version, input and tags of an instance.

        Args:
            instance_id: which instance.
            with_new_instance_id: under a new id; else under the same one, which must have ended.
            request_id: see ``start_new``.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceAlreadyExistsError: the same id is wanted, and it is live.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    @abstractmethod
    async def fork(
        self,
        instance_id: str,
        *,
        at: int,
        new_instance_id: str | None = None,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        """Start a new instance that begins with the history of one up to an event, and goes on.

        The other one stays as it is, and need not have ended. What has completed by that event is
        not done again, and what was sent by then is not sent again. What is open there is begun
        anew under the new id: activities, children and calls of entities; timers keep their time.
        The new one has the name, version, input and tags of the other, and no parent.

        Args:
            instance_id: which instance.
            at: the number of the last event that the new one begins with, from 0, as
                ``get_history_page`` counts them: the last one that a turn wrote.
            new_instance_id: the id of the new one; left out, one is made.
            request_id: see ``start_new``.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceAlreadyExistsError: a live instance has the new id.
            ForkError: no instance can begin there: its history has no such event, the instance had
                ended by then, it locks entities there, the event stands in the middle of what one
                turn wrote, or the code of today does not do the same.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    @abstractmethod
    async def purge_instance(self, instance_id: str, *, recursive: bool = True) -> int:
        """Delete an instance that has ended or is parked, with its history.

        Args:
            instance_id: which instance.
            recursive: whether its children are deleted as well.

        Returns:
            How many instances were deleted.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceNotFinishedError: it has not ended, and is not parked.
        """
        ...

    @abstractmethod
    async def purge(
        self,
        *,
        recursive: bool = True,
        **conditions: Unpack[PurgeConditions],
    ) -> int:
        """Delete the instances that match every condition given and have ended, or are parked.

        A parked one is ended first, as ``terminate`` does. It goes in slices, so that other work
        goes on meanwhile; what was deleted when it is broken off stays so.

        Args:
            recursive: whether their children are deleted as well.
            conditions: see ``PurgeConditions``.

        Returns:
            How many instances were deleted.
        """
        ...

    @abstractmethod
    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        """Give an instance's status, as of the last checkpoint; None if there is none."""
        ...

    @abstractmethod
    async def get_history(self, instance_id: str) -> list[HistoryEvent]:
        """Give the events of an instance's history so far.

        Raises:
            InstanceNotFoundError: there is no such instance.
            StoreDamagedError: it cannot be read.
        """
        ...

    @abstractmethod
    async def get_history_page(
        self,
        instance_id: str,
        *,
        after: int | None = None,
        page_size: int = 100,
        order: Order = "oldest",
    ) -> HistoryPage:
        """Give some of the events of an instance's history, the oldest or the newest first.

        Args:
            instance_id: which instance.
            after: the number of the event behind which it goes on, as the page before gave it;
                the first event has the number 0. With ``order="newest"`` it goes on before it.
            page_size: how many events at the most.
            order: which come first.

        Raises:
            InstanceNotFoundError: there is no such instance.
            StoreDamagedError: it cannot be read.
        """
        ...

    @overload
    @abstractmethod
    async def explain(self, actor: str) -> InstanceExplanation: ...
    @overload
    @abstractmethod
    async def explain(self, actor: EntityId[Any]) -> EntityExplanation: ...
    @abstractmethod
    async def explain(self, actor: str | EntityId[Any]) -> InstanceExplanation | EntityExplanation:
        """Say why an instance waits, and where its code stands; or what an entity is busy with.

        It is told as of the last checkpoint, and nothing is done to the actor: what is in memory is
        looked at, and an instance that is not is taken through its history aside, by an execution
        of its code that has no effects.

        Args:
            actor: an instance id, or an entity's id.

        Raises:
            InstanceNotFoundError: there is no such instance.
            StoreDamagedError: it cannot be read.
            UnavailableError: it cannot be told now; safe to repeat.
        """
        ...

    @abstractmethod
    async def trace(self, instance_id: str, *, after: int = 0, limit: int = 1_000) -> Trace:
        """Give the steps of an instance: for each event of its history where the code stood then.

        They are found as for ``explain``: by a replay aside, and with no effect.

        Args:
            instance_id: the instance, which may have ended.
            after: behind how many events to begin; ``Trace.next_after`` gives it for the next page.
            limit: how many events to step through, 1,000 at the most; a page whose steps say much
                ends earlier.

        Raises:
            InstanceNotFoundError: there is no such instance.
            StoreDamagedError: it cannot be read.
            UnavailableError: it cannot be told now; safe to repeat.
        """
        ...

    async def query(
        self,
        *,
        payloads: bool = True,
        page_size: int = 200,
        order: Order = "oldest",
        **conditions: Unpack[InstanceConditions],
    ) -> AsyncIterator[OrchestrationStatus]:
        """Find instances that match every condition given, the oldest or the newest first.

        ``payloads=False`` leaves inputs and outputs out.
        """
        token: str | None = None
        while True:
            page = await self.query_page(
                payloads=payloads,
                page_size=page_size,
                order=order,
                continuation_token=token,
                **conditions,
            )
            for status in page.items:
                yield status
            if page.continuation_token in (None, token):  # the same where a row is damaged
                return
            token = page.continuation_token

    @abstractmethod
    async def query_page(
        self,
        *,
        payloads: bool = True,
        page_size: int = 100,
        order: Order = "oldest",
        continuation_token: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> Page[OrchestrationStatus]:
        """Give one page of what ``query`` finds; a token goes on behind the page that gave it.

        Raises:
            UsageError: a bad status or page size, or a continuation token that the same query,
                with the same conditions in the same order, did not give. Its pages may differ in
                size, and in whether they have payloads.
        """
        ...

    @abstractmethod
    async def count(self, **conditions: Unpack[InstanceConditions]) -> int:
        """Count the instances that match every condition given; see ``query``."""
        ...

    @abstractmethod
    def changes(
        self,
        *,
        after: str | None = None,
        instance_id: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> AsyncIterator[Change]:
        """Follow what becomes of instances, for ever; see ``Change`` for what is told.

        The last state of every instance is told, within a fraction of a second; one that changes
        more often is told of less often. The stream begins with a ``reset`` unless it goes on
        behind a change, and has another one where what changed is not known any more, since the
        hub stopped, a partition recovered or moved, or too much changed: then query, and read on.
        What is in the middle of several changes at a time may be told again behind ``after``.

        Args:
            after: the ``id`` of the last change that was read.
            instance_id: follow this instance alone.
            conditions: see ``query``.

        Raises:
            UsageError: ``after`` is no id of a change that such a stream gave.
        """
        ...

    # Entities.

    @overload
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Coroutine[Any, Any, R]]
        | Callable[[E, EntityContext], Coroutine[Any, Any, R]],
        /,
        *,
        timeout: float | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], R] | Callable[[E, EntityContext], R],
        /,
        *,
        timeout: float | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Coroutine[Any, Any, R]]
        | Callable[[E, A, EntityContext], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        timeout: float | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], R] | Callable[[E, A, EntityContext], R],
        input: A,
        /,
        *,
        timeout: float | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        timeout: float | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> Any: ...
    @abstractmethod
    async def call_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        timeout: float | timedelta | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Call an entity's operation and give its result; what it did is durable by then.

        Args:
            id: which entity.
            op: the operation, or its name.
            input: its input, if it takes one.
            timeout: seconds (or a timedelta) to wait at the most.
            request_id: makes the call safe to repeat.

        Raises:
            UnknownNameError: no such entity or operation.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            EntityOperationError: the operation raised; its changes were rolled back.
            ParkedError: the entity is parked.
            TimeoutError: no answer in time; the operation may still be applied.
            UnavailableError: nothing happened; safe to repeat.
            OutcomeUnknownError: it may be applied; repeat it under the same request id.
        """
        ...

    @overload
    @abstractmethod
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Any] | Callable[[E, EntityContext], Any],
        /,
        *,
        at: datetime | timedelta | float | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    @abstractmethod
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Any] | Callable[[E, A, EntityContext], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    @abstractmethod
    async def signal_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @abstractmethod
    async def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | float | None = None,
        request_id: str | None = None,
    ) -> None:
        """Send an entity an operation; it is durable, and is applied once, when this returns.

        Args:
            id: which entity.
            op: the operation, or its name.
            input: its input, if it takes one.
            at: an aware datetime, or how long from now, before which it is not applied.
            request_id: makes the call safe to repeat.

        Raises:
            UnknownNameError: no such entity or operation.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            MailboxFullError: too much waits for the entity or in the hub; send more slowly.
            UnavailableError: nothing happened; safe to repeat.
        """
        ...

    @abstractmethod
    async def signal_entities(self, signals: Iterable[Signal]) -> None:
        """Send many operations at once; each is durable, and is applied once, when this returns.

        Args:
            signals: entity, operation and input (``perdure.MISSING`` for none) of each, and, where
                it is not to be applied before a time, that time as ``signal_entity`` takes it.

        Raises:
            UnknownNameError, PayloadError: of any of them; then none was sent.
            UnavailableError: some of them were not applied.
        """
        ...

    @abstractmethod
    async def read_entity_state(self, id: EntityId[E]) -> E | None:
        """Give an entity's state, as of the last checkpoint; None if it has none.

        Of a striped entity, the stripes are folded into it first.

        Raises:
            PayloadError: its class cannot read what is stored; ``get_entity`` shows it plain.
            UnavailableError: a striped entity could not be asked to fold; safe to repeat.
        """
        ...

    @abstractmethod
    async def get_entity(self, id: EntityId[E]) -> EntityStatus[E] | None:
        """Give an entity's status, as of the last checkpoint; None if there is no such entity.

        Of a striped entity, the stripes are folded into it first. A state that its class cannot
        read is shown as plain JSON values.

        Raises:
            UnavailableError: a striped entity could not be asked to fold; safe to repeat.
        """
        ...

    async def query_entities(
        self,
        *,
        after: EntityId[Any] | None = None,
        page_size: int = 200,
        **conditions: Unpack[EntityConditions],
    ) -> AsyncIterator[EntityStatus[Any]]:
        """Find entities that match every condition given, ordered by name and key.

        ``after`` is the last one that was seen, whether it still exists or not; those behind it
        are found.
        A striped entity is shown as its stripes were folded into it last.
        """
        token: str | None = None
        while True:
            page = await self.query_entities_page(
                after=after, page_size=page_size, continuation_token=token, **conditions
            )
            for status in page.items:
                yield status
            token = page.continuation_token
            if token is None:
                return

    @abstractmethod
    async def query_entities_page(
        self,
        *,
        after: EntityId[Any] | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
        **conditions: Unpack[EntityConditions],
    ) -> Page[EntityStatus[Any]]:
        """Give one page of what ``query_entities`` finds; a token goes on behind its page.

        ``after`` is for the first page; a token goes before it. A page may have fewer than ``page_size`` entities though others follow.

        Raises:
            UsageError: a bad page size, or a continuation token that the same query, with the
                same conditions, did not give.
        """
        ...

    @abstractmethod
    async def purge_entity(self, id: EntityId[Any]) -> None:
        """Delete an entity's state whatever it is, also of a parked one; held messages are dropped."""
        ...

    @abstractmethod
    async def clean_entity_storage(
        self, *, remove_empty_entities: bool = True, release_orphaned_locks: bool = True
    ) -> CleanResult:
        """Remove entities without state, and locks whose holders have ended.

        Neither is left behind in the ordinary course of things.
        """
        ...

    # The hub.

    @abstractmethod
    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        """Give the hub's counters; see ``Hub.statistics``."""
        ...

    @abstractmethod
    async def move_partition(self, partition: int, to: int) -> None:
        """Have another shard serve a partition; see ``Hub.move_partition``."""
        ...

    @abstractmethod
    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub; see ``Hub.nodes``."""
        ...

    @abstractmethod
    async def drain_node(self, member: int) -> None:
        """Have a process let its partitions go to the others; see ``Hub.drain_node``."""
        ...

    @abstractmethod
    async def undrain_node(self, member: int) -> None:
        """Have a process take partitions again; see ``Hub.undrain_node``."""
        ...

    @abstractmethod
    async def describe(self) -> AppDescription:
        """Say what the hub's application has: orchestrations, entities, activities."""
        ...

    @abstractmethod
    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Do something by its name, with JSON values in and out: what the API over HTTP stands on.

        Each method of a client has such an operation; ``docs/http.md`` lists them.

        Args:
            operation: its name, such as ``"start"``.
            arguments: JSON values by their names.

        Raises:
            UsageError: there is no such operation, or it takes no such argument.
            PerdureError: what the operation raises.
        """
        ...


def check_fork(
    instance_id: str, at: object, new_instance_id: str | None, request_id: str | None
) -> tuple[str, str | None, str | None]:
    """Give the ids back that a fork is asked for with, if they may be some."""
    instance_id = check_instance_id(instance_id)
    whole(at, "at", least=0)
    if new_instance_id is not None:
        new_instance_id = check_instance_id(new_instance_id, "new_instance_id")
        if new_instance_id == instance_id:
            raise UsageError(
                f"a fork of {instance_id!r} needs an id of its own: that one stays as it is"
            )
    if request_id is not None:
        request_id = check_text(request_id, "request_id")
    return instance_id, new_instance_id, request_id
