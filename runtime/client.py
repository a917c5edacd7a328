"""The client: starts, signals, queries and manages actors from outside."""

from __future__ import annotations

import base64
import binascii
import secrets
import uuid
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import anyio
import orjson
from attrs import frozen

from ..actors.codec import Codec, codec_for
from ..actors.context import OrchestrationContext, due_time, timestamp, to_datetime
from ..actors.entity import EntityContext
from ..actors.errors import (
    EntityOperationError,
    FailureDetails,
    HubStoppingError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    OrchestrationCanceledError,
    OrchestrationFailedError,
    OrchestrationTerminatedError,
    UsageError,
)
from ..actors.failures import read_failure
from ..actors.history import parse_history
from ..actors.ids import EntityId, check_instance_id, check_text
from ..actors.messages import Caller, Command, Event, LockRelease, Message, Operation, Start
from ..actors.values import MISSING, TERMINAL, RuntimeStatus, check_event_name
from ..storage.records import EntityFilter, InstanceFilter, InstanceRecord
from .placement import partition_of
from .status import (
    EntityStatus,
    HistoryEvent,
    OrchestrationStatus,
    entity_status,
    instance_status,
)

if TYPE_CHECKING:
    from .clock import Clock
    from .partition import Partition

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnExisting = Literal["reject", "reuse", "replace"]

_ENDINGS = {
    "Failed": OrchestrationFailedError,
    "Terminated": OrchestrationTerminatedError,
    "Canceled": OrchestrationCanceledError,
}


@frozen
class Page(Generic[R]):
    """Some of what a query found.

    Attributes:
        items: what was found.
        continuation_token: what to pass to get the next page; None if there is none.
    """

    items: list[R]
    continuation_token: str | None


@frozen
class CleanResult:
    """What ``clean_entity_storage`` did.

    Attributes:
        empty_entities_removed: entities without state that were removed.
        orphaned_locks_released: locks released whose holder had ended.
    """

    empty_entities_removed: int
    orphaned_locks_released: int


class OrchestrationHandle(Generic[R_co]):
    """One orchestration instance, as its clients see it.

    Attributes:
        instance_id: its id.
    """

    def __init__(self, client: Client, instance_id: str, codec: Codec[Any] | None) -> None:
        self._client = client
        self._codec = codec
        self.instance_id = instance_id

    def __repr__(self) -> str:
        return f"OrchestrationHandle({self.instance_id!r})"

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait for the end, and give the result.

        Args:
            timeout: seconds to wait at the most; None waits for ever.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            OrchestrationFailedError: it failed.
            OrchestrationTerminatedError: it was terminated.
            OrchestrationCanceledError: it was cancelled.
            InstanceNotFoundError: there is no such instance.
        """
        return cast(R_co, await self._client.wait(self.instance_id, self._codec, timeout))

    async def status(self) -> OrchestrationStatus:
        """Give its status, as of the last checkpoint.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        status = await self._client.get_status(self.instance_id)
        if status is None:
            raise InstanceNotFoundError(self.instance_id)
        return status

    async def raise_event(
        self, name: str, data: Any = None, *, request_id: str | None = None
    ) -> None:
        """Send it an event; durable when this returns. See ``Client.raise_event``."""
        await self._client.raise_event(self.instance_id, name, data, request_id=request_id)

    async def terminate(self, reason: str = "", *, recursive: bool = True) -> None:
        """End it without running its code again. See ``Client.terminate``."""
        await self._client.terminate(self.instance_id, reason, recursive=recursive)

    async def cancel(self, reason: str = "") -> None:
        """Throw ``Cancelled`` into its code, which may clean up. See ``Client.cancel``."""
        await self._client.cancel(self.instance_id, reason)

    async def suspend(self, reason: str = "") -> None:
        """Let it take no turns until it is resumed. See ``Client.suspend``."""
        await self._client.suspend(self.instance_id, reason)

    async def resume(self, reason: str = "") -> None:
        """Let a suspended instance go on. See ``Client.resume``."""
        await self._client.resume(self.instance_id, reason)

    async def retry(self) -> None:
        """Let a parked instance try again. See ``Client.retry``."""
        await self._client.retry(self.instance_id)

    async def rewind(self, reason: str = "") -> None:
        """Take a failed instance back to before its failures. See ``Client.rewind``."""
        await self._client.rewind(self.instance_id, reason)

    async def restart(self, *, with_new_instance_id: bool = True) -> OrchestrationHandle[R_co]:
        """Start it anew with the same input. See ``Client.restart``."""
        return cast(
            "OrchestrationHandle[R_co]",
            await self._client.restart(self.instance_id, with_new_instance_id=with_new_instance_id),
        )

    async def purge(self, *, recursive: bool = True) -> int:
        """Delete it, once it has ended. See ``Client.purge_instance``."""
        return await self._client.purge_instance(self.instance_id, recursive=recursive)

    async def history(self) -> list[HistoryEvent]:
        """Give the events of its history so far.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        return await self._client.get_history(self.instance_id)


class _Countdown:
    """One waiter for many messages."""

    __slots__ = ("_error", "_left", "_waiter")

    def __init__(self, waiter: Any, left: int) -> None:
        self._waiter = waiter
        self._left = left
        self._error: BaseException | None = None

    def set(self, value: Any) -> None:
        self._left -= 1
        if self._left == 0:
            if self._error is None:
                self._waiter.set(None)
            else:
                self._waiter.fail(self._error)

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.set(None)


class Client:
    """Starts, signals, queries and manages actors; ``hub.client`` gives it.

    What a method says is done is durable when it returns. Where it raises ``UnavailableError``,
    nothing happened. A ``request_id`` makes a request safe to repeat, also across a crash: the
    hub applies it once, and answers a repetition as it answered the first.
    """

    def __init__(
        self,
        lookup: Any,
        partitions: Sequence[Partition],
        clock: Clock,
        is_running: Callable[[], bool],
    ) -> None:
        self._lookup = lookup
        self._partitions = partitions
        self._clock = clock
        self._is_running = is_running
        self._prefix = f"{clock.now() // 1_000:012x}{secrets.token_hex(6)}"
        self._made = 0

    def _partition(self, key: str) -> Partition:
        if not self._is_running():
            raise HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")
        return self._partitions[partition_of(key, len(self._partitions))]

    async def _request(self, key: str, message: Message, request_id: str | None = None) -> Any:
        if request_id is not None:
            check_text(request_id, "a request id")
        return await self._partition(key).request_once(key, message, request_id)

    def _new_instance_id(self) -> str:
        # Ids that grow together keep the store's index of them dense where it is written.
        self._made += 1
        return f"{self._prefix}{self._made:08x}"

    # Orchestrations.

    @overload
    async def start_new(
        self,
        f: Callable[[OrchestrationContext, A], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start_new(
        self,
        f: Callable[[OrchestrationContext, A], Generator[Any, Any, R]],
        input: A,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start_new(
        self,
        f: Callable[[OrchestrationContext], Coroutine[Any, Any, R]],
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start_new(
        self,
        f: Callable[[OrchestrationContext], Generator[Any, Any, R]],
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[R]: ...
    @overload
    async def start_new(
        self,
        f: str,
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        version: str | None = ...,
        tags: Mapping[str, str] | None = ...,
        start_at: datetime | timedelta | None = ...,
        on_existing: OnExisting = ...,
        request_id: str | None = ...,
    ) -> OrchestrationHandle[Any]: ...
    async def start_new(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        start_at: datetime | timedelta | None = None,
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
        definition = self._lookup.find_orchestration(f, version)
        data = self._lookup.encode_input(definition, input)
        if on_existing not in ("reject", "reuse", "replace"):
            raise UsageError(f"on_existing must be reject, reuse or replace, not {on_existing!r}")
        due = None if start_at is None else due_time(start_at, self._clock.now())
        message = Start(
            definition.name,
            definition.version,
            data,
            tags=None if not tags else _encode_tags(tags),
            start_at=due,
            on_existing=on_existing,
        )
        if instance_id is None and request_id is None:
            new_id = self._new_instance_id()
            await self._partition(new_id).request_new(new_id, message)
            return OrchestrationHandle(self, new_id, definition.output)
        if instance_id is None:
            # The same id at each repetition, so that the same handle is returned.
            instance_id = uuid.uuid5(uuid.NAMESPACE_OID, check_text(request_id, "a request id")).hex
        await self._request(check_instance_id(instance_id), message, request_id)
        return OrchestrationHandle(self, instance_id, definition.output)

    def get_handle(self, instance_id: str) -> OrchestrationHandle[Any]:
        """Give the handle of an instance, without asking whether there is one."""
        return OrchestrationHandle(self, check_instance_id(instance_id), None)

    async def wait(
        self, instance_id: str, codec: Codec[Any] | None = None, timeout: float | None = None
    ) -> Any:
        """Wait for an instance's end and give its result; see ``OrchestrationHandle.result``."""
        if timeout is None:
            return await self._wait(instance_id, codec)
        with anyio.move_on_after(timeout):
            return await self._wait(instance_id, codec)
        raise TimeoutError(
            f"orchestration {instance_id!r} has not ended within {timeout:g} seconds"
        )

    async def _wait(self, instance_id: str, codec: Codec[Any] | None) -> Any:
        while True:
            partition = self._partition(instance_id)
            waiter = partition.watch(instance_id)
            try:
                outcome: Any = None
                if not partition.is_live_here(instance_id):
                    # Watched first, then looked up: an end in between is not missed.
                    record = await self._read(instance_id)
                    if record.status in TERMINAL:
                        outcome = (record.status, record.output, record.failure)
                if outcome is None:
                    outcome = await waiter
            finally:
                partition.unwatch(instance_id, waiter)
            if outcome is not None:
                return await self._outcome(instance_id, codec, *outcome)

    async def _outcome(
        self,
        instance_id: str,
        codec: Codec[Any] | None,
        status: str,
        output: bytes | None,
        failure: bytes | None,
    ) -> Any:
        if status == "Completed":
            if codec is None:
                codec = await self._output_codec(instance_id)
            return codec.decode(output or b"null")
        details = FailureDetails(status, "") if failure is None else read_failure(failure)
        raise _ENDINGS[status](f"orchestration {instance_id!r}", details)

    async def _output_codec(self, instance_id: str) -> Codec[Any]:
        record = await self._read(instance_id)
        try:
            codec: Codec[Any] = self._lookup.exact_orchestration(record.name, record.version).output
        except UsageError:
            return codec_for(Any)
        return codec

    async def _read(self, instance_id: str) -> InstanceRecord:
        records = await self._partition(instance_id).store.read_instances([instance_id])
        if not records:
            raise InstanceNotFoundError(instance_id)
        return records[0]

    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        """Give an instance's status, as of the last checkpoint; None if there is none."""
        store = self._partition(check_instance_id(instance_id)).store
        records = await store.read_instances([instance_id])
        return instance_status(records[0]) if records else None

    async def get_history(self, instance_id: str) -> list[HistoryEvent]:
        """Give the events of an instance's history so far.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        record = await self._read(check_instance_id(instance_id))
        chunks = await self._partition(instance_id).store.read_history(record.id)
        return [
            HistoryEvent(event_type=event[0], timestamp=to_datetime(event[1]), fields=event[2:])
            for event in parse_history(chunks)
        ]

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
        event = Event(check_event_name(name), self._lookup.encode_any(data))
        await self._request(check_instance_id(instance_id), event, request_id)

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
        await self._command(instance_id, Command("terminate", reason, recursive))

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        """Throw ``Cancelled`` into an instance's code at its await; it may compensate durably.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        await self._command(instance_id, Command("cancel", reason))

    async def suspend(self, instance_id: str, reason: str = "") -> None:
        """Let an instance take no turns until it is resumed; what arrives is kept in order.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        await self._command(instance_id, Command("suspend", reason))

    async def resume(self, instance_id: str, reason: str = "") -> None:
        """Let a suspended instance go on with what has arrived.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceFinishedError: it has ended.
        """
        await self._command(instance_id, Command("resume", reason))

    async def _command(self, instance_id: str, command: Command) -> Any:
        return await self._request(check_instance_id(instance_id), command)

    async def retry(self, actor: str | EntityId[Any]) -> None:
        """Let a parked actor try again, after what was wrong has been repaired.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        key = str(actor) if isinstance(actor, EntityId) else check_instance_id(actor)
        await self._request(key, Command("retry"))

    async def rewind(self, instance_id: str, reason: str = "") -> None:
        """Take a failed instance back to before its failures, and let it go on from there.

        Its failed calls, and those of its failed children, are made again; the completed ones are
        not. The execution goes on under its number, so answers still under way find it.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceNotFinishedError: it has not failed.
        """
        await self._command(instance_id, Command("rewind", reason))

    async def restart(
        self, instance_id: str, *, with_new_instance_id: bool = True
    ) -> OrchestrationHandle[Any]:
        """Start an orchestration anew with the name, version, input and tags of an instance.

        Args:
            instance_id: which instance.
            with_new_instance_id: under a new id; else under the same one, which must have ended.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceAlreadyExistsError: the same id is wanted, and it is live.
        """
        record = await self._read(check_instance_id(instance_id))
        message = Start(record.name, record.version, record.input, tags=record.tags)
        new_id = self._new_instance_id() if with_new_instance_id else instance_id
        await self._request(new_id, message)
        return self.get_handle(new_id)

    async def purge_instance(self, instance_id: str, *, recursive: bool = True) -> int:
        """Delete an instance that has ended, with its history.

        Args:
            instance_id: which instance.
            recursive: whether its children are deleted as well.

        Returns:
            How many instances were deleted.

        Raises:
            InstanceNotFoundError: there is no such instance.
            InstanceNotFinishedError: it has not ended.
        """
        await self._command(instance_id, Command("purge"))
        deleted = 1
        if recursive:
            async for child in self.query(parent_instance_id=instance_id, payloads=False):
                if child.is_completed:
                    deleted += await self._purge(child.instance_id, recursive)
        return deleted

    async def _purge(self, instance_id: str, recursive: bool) -> int:
        try:
            return await self.purge_instance(instance_id, recursive=recursive)
        except (InstanceNotFoundError, InstanceNotFinishedError):
            return 0  # purged or started again by somebody else in between

    async def purge(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] = (),
        name: str | None = None,
        instance_id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        completed_from: datetime | None = None,
        completed_to: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        recursive: bool = True,
    ) -> int:
        """Delete the instances that match every condition given and have ended.

        ``recursive`` says whether their children are deleted as well.

        Returns:
            How many instances were deleted.
        """
        wanted = {str(RuntimeStatus(status)) for status in statuses} or set(TERMINAL)
        found = self.query(
            statuses=sorted(wanted & TERMINAL),
            name=name,
            instance_id_prefix=instance_id_prefix,
            created_from=created_from,
            created_to=created_to,
            completed_from=completed_from,
            completed_to=completed_to,
            tags=tags,
            payloads=False,
        )
        if not wanted & TERMINAL:
            return 0
        deleted = 0
        async for status in found:
            deleted += await self._purge(status.instance_id, recursive)
        return deleted

    async def query(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] = (),
        name: str | None = None,
        instance_id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        completed_from: datetime | None = None,
        completed_to: datetime | None = None,
        parent_instance_id: str | None = None,
        failure_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        parked: bool | None = None,
        payloads: bool = True,
        page_size: int = 200,
    ) -> AsyncIterator[OrchestrationStatus]:
        """Find instances that match every condition given, oldest first.

        Times are aware datetimes, from inclusive, to exclusive. ``payloads=False`` leaves inputs
        and outputs out.
        """
        token: str | None = None
        while True:
            page = await self.query_page(
                statuses=statuses,
                name=name,
                instance_id_prefix=instance_id_prefix,
                created_from=created_from,
                created_to=created_to,
                updated_from=updated_from,
                updated_to=updated_to,
                completed_from=completed_from,
                completed_to=completed_to,
                parent_instance_id=parent_instance_id,
                failure_type=failure_type,
                tags=tags,
                parked=parked,
                payloads=payloads,
                page_size=page_size,
                continuation_token=token,
            )
            for status in page.items:
                yield status
            token = page.continuation_token
            if token is None:
                return

    async def query_page(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] = (),
        name: str | None = None,
        instance_id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        completed_from: datetime | None = None,
        completed_to: datetime | None = None,
        parent_instance_id: str | None = None,
        failure_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        parked: bool | None = None,
        payloads: bool = True,
        page_size: int = 100,
        continuation_token: str | None = None,
    ) -> Page[OrchestrationStatus]:
        """Give one page of what ``query`` finds.

        Raises:
            UsageError: a bad continuation token, status or page size.
        """
        after = _read_token(continuation_token)
        filter = InstanceFilter(
            statuses=tuple(str(RuntimeStatus(status)) for status in statuses),
            name=name,
            prefix=instance_id_prefix,
            created_from=_optional_time(created_from),
            created_to=_optional_time(created_to),
            updated_from=_optional_time(updated_from),
            updated_to=_optional_time(updated_to),
            completed_from=_optional_time(completed_from),
            completed_to=_optional_time(completed_to),
            parent=parent_instance_id,
            failure_type=failure_type,
            tags=tuple(sorted((tags or {}).items())),
            parked=parked,
            after=None if after is None else (int(after[0]), str(after[1])),
            limit=_check_page_size(page_size),
            payloads=payloads,
        )
        found: list[InstanceRecord] = []
        for partition in self._all():
            found += await partition.store.query_instances(filter)
        found.sort(key=lambda record: (record.created, record.key))
        items, last = found[:page_size], None
        if len(found) > page_size or len(found) == page_size > 0:
            last = _make_token(items[-1].created, items[-1].key)
        return Page([instance_status(record) for record in items], last)

    def _all(self) -> Sequence[Partition]:
        if not self._is_running():
            raise HubStoppingError("the hub is stopping or has stopped; repeat it on the next one")
        return self._partitions

    # Entities.

    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Coroutine[Any, Any, R]],
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], R],
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, EntityContext], Coroutine[Any, Any, R]],
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, EntityContext], R],
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], R],
        input: A,
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A, EntityContext], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A, EntityContext], R],
        input: A,
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> R: ...
    @overload
    async def call_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        timeout: float | None = ...,
        request_id: str | None = ...,
    ) -> Any: ...
    async def call_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Call an entity's operation and give its result; what it did is durable by then.

        Args:
            id: which entity.
            op: the operation, or its name.
            input: its input, if it takes one.
            timeout: seconds to wait at the most.
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
        operation = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(operation, input)
        key = str(id)
        request = self._request(key, Operation(operation.name, data, True), request_id)
        if timeout is None:
            answer = await request
        else:
            answer = None
            with anyio.move_on_after(timeout) as scope:
                answer = await request
            if scope.cancelled_caught:
                raise TimeoutError(f"no answer from {key}.{operation.name} in {timeout:g} seconds")
        if type(answer) is FailureDetails:
            raise EntityOperationError(f"{key}.{operation.name}", answer)
        return operation.output.decode(answer or b"null")

    @overload
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Any],
        /,
        *,
        at: datetime | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, EntityContext], Any],
        /,
        *,
        at: datetime | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A, EntityContext], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        at: datetime | timedelta | None = ...,
        request_id: str | None = ...,
    ) -> None: ...
    async def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | None = None,
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
        operation = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(operation, input)
        key = str(id)
        message = Operation(operation.name, data)
        if at is None:
            await self._request(key, message, request_id)
        else:
            due = due_time(at, self._clock.now())
            await self._partition(key).request_later(key, message, due, request_id)

    async def signal_entities(
        self, signals: Iterable[tuple[EntityId[Any], str | Callable[..., Any], Any]]
    ) -> None:
        """Send many operations at once; each is durable, and is applied once, when this returns.

        Args:
            signals: entity, operation and input (``perdure.MISSING`` for none) of each.

        Raises:
            UnknownNameError, PayloadError: of any of them; then none was sent.
            UnavailableError: some of them were not applied.
        """
        messages: list[tuple[str, Operation]] = []
        for id, op, input in signals:
            operation = self._lookup.find_operation(id, op)
            data = self._lookup.encode_input(operation, input)
            messages.append((str(id), Operation(operation.name, data)))
        if not messages:
            return
        waiter = self._all()[0].new_waiter()
        countdown = _Countdown(waiter, len(messages))
        for key, message in messages:
            self._partition(key).request(key, message, countdown)
        await waiter

    async def read_entity_state(self, id: EntityId[E]) -> E | None:
        """Give an entity's state, as of the last checkpoint; None if it has none."""
        status = await self.get_entity(id)
        return None if status is None else status.state

    async def get_entity(self, id: EntityId[E]) -> EntityStatus[E] | None:
        """Give an entity's status, as of the last checkpoint; None if there is no such entity."""
        self._lookup.find_entity(id.name)
        store = self._partition(str(id)).store
        rows = await store.read_entities([(id.name, id.key)])
        if not rows:
            return None
        return entity_status(rows[0], self._lookup, await store.waiting(str(id)))

    async def query_entities(
        self,
        *,
        name: str | None = None,
        key_prefix: str | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        locked: bool | None = None,
        parked: bool | None = None,
        include_empty: bool = False,
        states: bool = True,
        page_size: int = 200,
    ) -> AsyncIterator[EntityStatus[Any]]:
        """Find entities that match every condition given, ordered by name and key."""
        after: tuple[str, str] | None = None
        _check_page_size(page_size)
        while True:
            filter = EntityFilter(
                name=None if name is None else name.casefold(),
                prefix=key_prefix,
                updated_from=_optional_time(updated_from),
                updated_to=_optional_time(updated_to),
                locked=locked,
                parked=parked,
                include_empty=include_empty,
                after=after,
                limit=page_size,
                states=states,
            )
            found = [
                (row, partition)
                for partition in self._all()
                for row in await partition.store.query_entities(filter)
            ]
            found.sort(key=lambda entry: (entry[0].name, entry[0].key))
            for row, partition in found[:page_size]:
                waiting = await partition.store.waiting(f"@{row.name}@{row.key}")
                yield entity_status(row, self._lookup, waiting)
            if len(found) < page_size:
                return
            last = found[page_size - 1][0]
            after = (last.name, last.key)

    async def purge_entity(self, id: EntityId[Any]) -> None:
        """Delete an entity's state whatever it is, also of a parked one; held messages are dropped."""
        key = str(id)
        await self._partition(key).settle()
        await self._request(key, Command("purge"))

    async def clean_entity_storage(
        self, *, remove_empty_entities: bool = True, release_orphaned_locks: bool = True
    ) -> CleanResult:
        """Remove entities without state, and locks whose holders have ended.

        Neither is left behind in the ordinary course of things.
        """
        removed = released = 0
        async for status in self.query_entities(include_empty=True, states=True):
            id = status.entity_id
            if release_orphaned_locks and status.locked_by is not None:
                holder = await self.get_status(status.locked_by)
                if holder is None or holder.is_completed:
                    released += await self._release(id)
            elif remove_empty_entities and not status.exists and not status.waiting:
                await self.purge_entity(id)
                removed += 1
        return CleanResult(removed, released)

    async def _release(self, id: EntityId[Any]) -> int:
        partition = self._partition(str(id))
        rows = await partition.store.read_entities([(id.name, id.key)])
        if not rows or rows[0].lock is None:
            return 0
        owner = Caller(*orjson.loads(rows[0].lock))
        partition.post(str(id), LockRelease(owner, [str(id)], -1))
        await partition.settle()
        return 1


def _encode_tags(tags: Mapping[str, str]) -> bytes:
    given: dict[Any, Any] = dict(tags)
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise UsageError(f"tags are texts by texts, not {key!r}: {value!r}")
    return codec_for(dict[str, str]).encode(given)


def _optional_time(when: datetime | None) -> int | None:
    return None if when is None else timestamp(when, "a query's time")


def _check_page_size(size: int) -> int:
    if not 1 <= size <= 10_000:
        raise UsageError(f"a page has 1 to 10,000 items, not {size}")
    return size


def _make_token(*position: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def _read_token(token: str | None) -> list[Any] | None:
    if token is None:
        return None
    try:
        position = orjson.loads(base64.urlsafe_b64decode(token.encode()))
        created, key = position
        return [int(created), str(key)]
    except (ValueError, TypeError, binascii.Error):
        raise UsageError("that is no continuation token of a query of this hub") from None
