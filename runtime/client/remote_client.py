"""The client of a hub elsewhere: all that it does is asked for by name, in JSON values.

It stands on a ``Transport`` alone. What was lost on the way is asked again where that cannot be
applied twice; else its caller is told that it may have been.
"""

from __future__ import annotations

import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol, TypeVar, Unpack, cast, overload

import anyio
import orjson

from ...actors.arguments import (
    choice,
    flag,
    is_a,
    labels,
    optional_flag,
    optional_text,
    refusal,
    several,
    text,
    whole,
)
from ...actors.carried import read_carried
from ...actors.codec import Codec, codec_for
from ...actors.errors import (
    InstanceNotFoundError,
    InvalidTimeError,
    OutcomeUnknownError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from ...actors.ids import EntityId, check_instance_id, check_text, entity_id
from ...actors.messages import OnExisting
from ...actors.printing import repr_of
from ...actors.registry.definitions import OperationDefinition
from ...actors.registry.lookup import Lookup
from ...actors.times import microseconds, seconds, timestamp
from ...actors.values import MISSING, RuntimeStatus, check_event_name
from ...storage.membership import MEMBER_MAX
from ...storage.slices import Breath, in_slices, map_each
from ..explanations import EntityExplanation, InstanceExplanation, Trace
from ..facts import read_fact, read_in_parts
from ..nodes import HubNodes
from ..scheduling.homes import refuse_inside
from ..statistics import HubStatistics
from ..transport.admission import TRACE_MAX
from .answers import (
    read_change,
    read_description,
    read_entity,
    read_event,
    read_history_page,
    read_state,
    read_statistics,
    read_status,
)
from .changes import Change
from .client import (
    CleanResult,
    Client,
    EntityConditions,
    InstanceConditions,
    PurgeConditions,
    Signal,
    check_conditions,
    check_fork,
)
from .handle import OrchestrationHandle
from .operations import OPERATIONS, Operation
from .pages import (
    HistoryPage,
    Order,
    Page,
    check_page_size,
    read_attempts,
    read_statuses,
    read_wait,
)
from .status import (
    AppDescription,
    EntityStatus,
    HistoryEvent,
    OrchestrationStatus,
    ending_error,
)

E = TypeVar("E")

#: Seconds for which what was lost, or could not be sent, is asked again.
PATIENCE_S = 30.0
#: Seconds that one request waits for an end or an answer before the next one does.
WAIT_S = 20.0
_BACKOFF_S = 0.02
_BACKOFF_MAX_S = 1.0
_EVENTS = 2_000

_ANY = codec_for(Any)


class AnswerLostError(Exception):
    """The connection broke, or could not be made.

    Attributes:
        sent: whether the request may have arrived.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Feed(Protocol):
    """A stream of a hub's changes that stays open between two items."""

    async def read(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Wait for the next items; behind ``after`` in the arguments where it is not open.

        Raises:
            AnswerLostError: it broke.
            PerdureError: what the hub says.
        """
        ...

    def abandon(self) -> None:
        """Say that nobody reads on; from any thread, and where nothing may be awaited."""
        ...


class Transport(Protocol):
    """The way to a hub elsewhere."""

    async def ask(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        """Have an operation done, once.

        Args:
            operation: which.
            arguments: JSON values; those that are there already as bytes are ``orjson.Fragment``.

        Raises:
            AnswerLostError: no answer came.
            PerdureError: what the operation raised.
        """
        ...

    def follow(self) -> Feed | None:
        """Give a stream of changes; None where they are asked for again and again."""
        ...


class RemoteClient(Client):
    """What ``connect`` gives over HTTP, and over a hub's socket without the application.

    Args:
        transport: the way to the hub.
        lookup: the application, where there is one.
    """

    def __init__(self, transport: Transport, lookup: Lookup | None = None) -> None:
        self._transport = transport
        self._lookup = lookup

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        row = OPERATIONS.get(operation) if is_a(operation, str) else None
        if row is None:
            raise refusal("operation", f"one of {', '.join(sorted(OPERATIONS))}", operation)
        if not is_a(arguments, Mapping):
            raise refusal("arguments", "a mapping of JSON values by name", arguments)
        try:
            given = dict(arguments)
            orjson.dumps(given)
        except Exception:
            raise refusal("arguments", "a mapping of JSON values by name", arguments) from None
        row.read(given)  # what the hub would refuse, whichever way it goes there
        return await self._ask(operation, given)

    async def _ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Have an operation done, and what was lost asked again where that is safe."""
        refuse_inside()
        row = OPERATIONS[operation]
        try:
            return await self._transport.ask(row, arguments)
        except AnswerLostError as lost:
            if lost.sent and not row.may_repeat(arguments):
                _fail(lost, PATIENCE_S, sent=True)
            first = lost
        return await self._ask_again(row, arguments, first, PATIENCE_S)

    async def _ask_again(
        self, row: Operation, arguments: dict[str, Any], lost: AnswerLostError, patience_s: float
    ) -> Any:
        """Ask what was lost until it is answered, for so long."""
        sent, wait = lost.sent, _BACKOFF_S
        deadline = anyio.current_time() + patience_s
        while True:
            await anyio.sleep(wait)
            wait = min(2 * wait, _BACKOFF_MAX_S)
            try:
                return await self._transport.ask(row, arguments)
            except AnswerLostError as again:
                sent = sent or again.sent
                if sent and not row.may_repeat(arguments):
                    _fail(again, patience_s, sent=True)
                if anyio.current_time() > deadline:
                    _fail(again, patience_s, sent=sent and row.writes)

    # Orchestrations.

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
        codec: Codec[Any] | None = None
        arguments: dict[str, Any] = {}
        if self._lookup is None:
            arguments["name"] = _name(f, "f", "an orchestration")
            if version is not None:
                arguments["version"] = text(version, "version")
            _add_input(arguments, input)
        else:
            definition = self._lookup.registry.find_orchestration(f, version)
            data = self._lookup.encode_input(definition, input, f)
            codec = definition.output
            arguments.update(name=definition.name, version=definition.version)
            if data is not None:
                arguments["input"] = orjson.Fragment(data)
        given: object = on_existing
        if type(given) is not str or given != "reject":
            arguments["on_existing"] = choice(
                on_existing, "on_existing", ("reject", "reuse", "replace")
            )
        if start_at is not None:
            arguments["start_at"] = _when(start_at, "start_at")
        if tags is not None:
            arguments["tags"] = labels(tags)
        # A start that is lost is made again, so it needs a request id; where the instance has an
        # id of its own making, the same one, which one partition keeps for both.
        if request_id is not None:
            request_id = check_text(request_id, "request_id")
        if instance_id is not None:
            instance_id = check_instance_id(instance_id)
        elif request_id is not None:
            instance_id = uuid.uuid5(uuid.NAMESPACE_OID, request_id).hex
        else:
            instance_id = request_id = uuid.uuid4().hex
        arguments["instance_id"] = instance_id
        arguments["request_id"] = request_id or uuid.uuid4().hex
        self._carry(arguments)
        await self._ask("start", arguments)
        return OrchestrationHandle(self, instance_id, codec)

    async def _wait(self, instance_id: str, codec: Codec[Any] | None) -> Any:
        status = await self._ending(instance_id)
        if status.runtime_status != RuntimeStatus.COMPLETED:
            raise ending_error(instance_id, status.runtime_status.value, status.failure)
        if codec is None and self._lookup is not None:
            codec = self._output_codec(status)
        return status.output if codec is None else codec.from_json(status.output)

    async def _ending(self, instance_id: str) -> OrchestrationStatus:
        """Ask for an instance's end, in requests that are not too long."""
        while True:
            arguments = {"instance_id": instance_id, "wait": WAIT_S}
            status = read_status(await self._ask_patiently("status", arguments))
            if status.is_completed:
                return status

    async def _ask_patiently(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Ask what only reads, also of the hub that comes after one which stops."""
        deadline = anyio.current_time() + PATIENCE_S
        while True:
            try:
                return await self._ask(operation, arguments)
            except UnavailableError:
                if anyio.current_time() > deadline:
                    raise
                await anyio.sleep(_BACKOFF_MAX_S / 4)

    def _output_codec(self, status: OrchestrationStatus) -> Codec[Any] | None:
        assert self._lookup is not None
        try:
            codec: Codec[Any] = self._lookup.registry.exact_orchestration(
                status.name, status.version
            ).output
        except UsageError:
            return None
        return codec

    async def raise_event(
        self, instance_id: str, name: str, data: Any = None, *, request_id: str | None = None
    ) -> None:
        arguments: dict[str, Any] = {"name": check_event_name(name)}
        arguments["data"] = self._encode_any(data)
        _add_request_id(arguments, request_id)
        arguments["instance_id"] = check_instance_id(instance_id)
        await self._ask("raise_event", arguments)

    def _encode_any(self, value: Any) -> orjson.Fragment:
        if self._lookup is not None:
            return orjson.Fragment(self._lookup.encode_any(value))
        return orjson.Fragment(_ANY.encode(value))

    async def terminate(
        self, instance_id: str, reason: str = "", *, recursive: bool = True
    ) -> None:
        await self._tell("terminate", instance_id, reason, recursive=flag(recursive, "recursive"))

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        await self._tell("cancel", instance_id, reason)

    async def suspend(self, instance_id: str, reason: str = "") -> None:
        await self._tell("suspend", instance_id, reason)

    async def resume(self, instance_id: str, reason: str = "") -> None:
        await self._tell("resume", instance_id, reason)

    async def rewind(self, instance_id: str, reason: str = "", *, force: bool = False) -> None:
        await self._tell("rewind", instance_id, reason, force=flag(force, "force"))

    async def _tell(self, operation: str, instance_id: str, reason: str, **more: Any) -> None:
        if not is_a(reason, str):
            raise refusal("reason", "a str", reason)
        self._encode_any(reason)  # refuses what no JSON can hold, as within the hub's process
        instance_id = check_instance_id(instance_id)
        reason = str.__str__(reason)
        await self._ask(operation, {"instance_id": instance_id, "reason": reason, **more})

    async def retry(self, actor: str | EntityId[Any]) -> None:
        key = str(actor) if is_a(actor, EntityId) else check_instance_id(actor, "actor")
        await self._ask("retry", {"actor": key})

    async def restart(
        self,
        instance_id: str,
        *,
        with_new_instance_id: bool = True,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        instance_id = check_instance_id(instance_id)
        flag(with_new_instance_id, "with_new_instance_id")
        arguments: dict[str, Any] = {"instance_id": instance_id}
        arguments["with_new_instance_id"] = with_new_instance_id
        _add_request_id(arguments, uuid.uuid4().hex if request_id is None else request_id)
        self._carry(arguments)
        told = await self._ask("restart", arguments)
        return self.get_handle(told["instance_id"])

    async def fork(
        self,
        instance_id: str,
        *,
        at: int,
        new_instance_id: str | None = None,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        instance_id, new_id, request_id = check_fork(instance_id, at, new_instance_id, request_id)
        arguments: dict[str, Any] = {"instance_id": instance_id, "at": int(at)}
        if new_id is not None:
            arguments["new_instance_id"] = new_id
        _add_request_id(arguments, uuid.uuid4().hex if request_id is None else request_id)
        told = await self._ask("fork", arguments)
        return self.get_handle(told["instance_id"])

    async def purge_instance(self, instance_id: str, *, recursive: bool = True) -> int:
        flag(recursive, "recursive")
        instance_id = check_instance_id(instance_id)
        return await self._deleted(
            "purge_instance", {"instance_id": instance_id, "recursive": recursive}
        )

    async def purge(self, *, recursive: bool = True, **conditions: Unpack[PurgeConditions]) -> int:
        check_conditions(PurgeConditions, conditions)
        asked = {**self._conditions(**conditions), "recursive": flag(recursive, "recursive")}
        return await self._deleted("purge", asked)

    async def _deleted(self, operation: str, arguments: dict[str, Any]) -> int:
        deleted: int = (await self._ask(operation, arguments))["deleted"]
        return deleted

    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        instance_id = check_instance_id(instance_id)
        try:
            return read_status(await self._ask("status", {"instance_id": instance_id}))
        except InstanceNotFoundError:
            return None

    async def get_history(self, instance_id: str) -> list[HistoryEvent]:
        instance_id = check_instance_id(instance_id)
        events: list[HistoryEvent] = []
        after: int | None = None
        while True:
            told = await self._ask(
                "history", {"instance_id": instance_id, "after": after, "limit": _EVENTS}
            )
            events += await in_slices(map_each(told["items"], read_event))
            after = told["after"]
            if after is None:
                return events

    async def get_history_page(
        self,
        instance_id: str,
        *,
        after: int | None = None,
        page_size: int = 100,
        order: Order = "oldest",
    ) -> HistoryPage:
        arguments: dict[str, Any] = {"instance_id": check_instance_id(instance_id)}
        arguments["limit"] = check_page_size(page_size)
        arguments["order"] = choice(order, "order", ("oldest", "newest"))
        if after is not None:
            arguments["after"] = whole(after, "after")
        return await read_history_page(await self._ask("history", arguments))

    @overload
    async def explain(self, actor: str) -> InstanceExplanation: ...
    @overload
    async def explain(self, actor: EntityId[Any]) -> EntityExplanation: ...
    async def explain(self, actor: str | EntityId[Any]) -> InstanceExplanation | EntityExplanation:
        if is_a(actor, EntityId):
            told = await self._ask("explain_entity", {"entity": str(entity_id(actor))})
            return read_fact(EntityExplanation, told)
        told = await self._ask("explain", {"instance_id": check_instance_id(actor, "actor")})
        return await in_slices(read_in_parts(InstanceExplanation, told))

    async def trace(self, instance_id: str, *, after: int = 0, limit: int = TRACE_MAX) -> Trace:
        arguments: dict[str, Any] = {"instance_id": check_instance_id(instance_id)}
        arguments["after"] = whole(after, "after")
        arguments["limit"] = whole(limit, "limit", least=1, most=TRACE_MAX)
        return await in_slices(read_in_parts(Trace, await self._ask("trace", arguments)))

    async def query_page(
        self,
        *,
        payloads: bool = True,
        page_size: int = 100,
        order: Order = "oldest",
        continuation_token: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> Page[OrchestrationStatus]:
        arguments = self._conditions(**conditions)
        arguments["payloads"] = flag(payloads, "payloads")
        arguments["limit"] = check_page_size(page_size)
        arguments["order"] = choice(order, "order", ("oldest", "newest"))
        if continuation_token is not None:
            arguments["cursor"] = text(continuation_token, "continuation_token")
        told = await self._ask("query", arguments)
        return Page([read_status(one) for one in told["items"]], told["cursor"])

    async def count(self, **conditions: Unpack[InstanceConditions]) -> int:
        asked = {**self._conditions(**conditions), "count": True, "limit": 0}
        count: int = (await self._ask("query", asked))["count"]
        return count

    def changes(
        self,
        *,
        after: str | None = None,
        instance_id: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> AsyncIterator[Change]:
        arguments: dict[str, Any] = self._conditions(**conditions)
        if instance_id is not None:
            arguments["instance_id"] = check_instance_id(instance_id)
        if after is not None:
            arguments["after"] = text(after, "after")
        return _RemoteChanges(self._more_changes, arguments, self._transport.follow())

    async def _more_changes(
        self, feed: Feed | None, arguments: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Wait for the next changes, also of the hub that comes after one which stops."""
        if feed is None:
            told = await self._ask_patiently("changes", {**arguments, "wait": WAIT_S})
            polled: list[dict[str, Any]] = told["items"]
            return polled
        refuse_inside()
        broken_since: float | None = None
        wait = _BACKOFF_S
        while True:
            try:
                return await feed.read(arguments)
            except (AnswerLostError, UnavailableError) as error:
                now = anyio.current_time()
                broken_since = now if broken_since is None else broken_since
                if now > broken_since + PATIENCE_S:
                    if isinstance(error, UnavailableError):
                        raise
                    _fail(error, PATIENCE_S, sent=False)
            await anyio.sleep(wait)
            wait = min(2 * wait, _BACKOFF_MAX_S)

    def _conditions(self, **conditions: Unpack[InstanceConditions]) -> dict[str, Any]:
        """Give the conditions of a query as JSON values, without those that ask for nothing."""
        check_conditions(InstanceConditions, conditions)
        given: Callable[[str], Any] = conditions.get
        made: dict[str, Any] = {}
        statuses = read_statuses(given("statuses"))
        made["statuses"] = statuses or None
        made["name"] = self._name_of(given("name"))
        for name in ("instance_id_prefix", "parent_instance_id", "failure_type"):
            made[name] = optional_text(given(name), name)
        for what in ("created", "updated", "completed"):
            for end in ("from", "to"):
                made[f"{what}_{end}"] = _time(given(f"{what}_{end}"), f"{what}_{end}")
        tags = given("tags")
        made["tags"] = None if tags is None else labels(tags)
        made["parked"] = optional_flag(given("parked"), "parked")
        made["waiting_for"] = read_wait(given("waiting_for"))
        made["min_attempts"] = read_attempts(given("min_attempts"))
        return {name: value for name, value in made.items() if value is not None}

    def _name_of(self, name: object) -> str | None:
        """Give the stored name of an orchestration; a text may be one that is registered no more."""
        if name is None or is_a(name, str):
            return optional_text(name, "name")
        if self._lookup is None:
            raise _needs_app(name, "name", "an orchestration")
        return self._lookup.registry.find_orchestration(cast("Any", name)).name

    # Entities.

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
        arguments, definition = self._operation(id, op, input)
        # So that a call may be waited for in several requests, and made again where one is lost.
        arguments["request_id"] = (
            uuid.uuid4().hex if request_id is None else check_text(request_id, "request_id")
        )
        self._carry(arguments)
        told: Any = None
        if timeout is None:
            told = await self._answer(arguments)
        else:
            limit = seconds(timeout, "timeout")
            with anyio.move_on_after(limit) as scope:
                told = await self._answer(arguments)
            if scope.cancelled_caught:
                called = f"{id}.{arguments['operation']}"
                raise TimeoutError(f"no answer from {called} in {limit:g} seconds")
        return told if definition is None else definition.output.from_json(told)

    async def _answer(self, arguments: dict[str, Any]) -> Any:
        while True:
            told = await self._ask("call", {**arguments, "wait": WAIT_S})
            if told["ended"]:
                return told["result"]

    def _operation(
        self, id: EntityId[Any], op: Any, input: Any
    ) -> tuple[dict[str, Any], OperationDefinition | None]:
        """Give the arguments that name an operation of an entity and its input."""
        arguments: dict[str, Any] = {"entity": str(entity_id(id))}
        if self._lookup is None:
            arguments["operation"] = _name(op, "op", "an operation")
            _add_input(arguments, input)
            return arguments, None
        definition = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(definition, input, op)
        arguments["operation"] = definition.name
        if data is not None:
            arguments["input"] = orjson.Fragment(data)
        return arguments, definition

    def _carry(self, arguments: dict[str, Any]) -> None:
        """Add what the application's context variables hold, to go along."""
        variables = None if self._lookup is None else self._lookup.registry.context_vars
        if self._lookup is not None and variables:
            carried = read_carried(variables, self._lookup.max_payload)
            if carried:
                arguments["carried"] = carried

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
        arguments, _ = self._operation(id, op, input)
        _add_request_id(arguments, request_id)
        if at is not None:
            arguments["at"] = _when(at, "at")
        self._carry(arguments)
        await self._ask("signal", arguments)

    async def signal_entities(self, signals: Iterable[Signal]) -> None:
        made: list[dict[str, Any]] = []
        taken = "(entity, operation, input) or (entity, operation, input, at)"
        for signal in several(signals, "signals", f"an iterable of {taken}"):
            try:
                id, op, input, *rest = signal
                [at] = rest or (None,)
            except Exception:
                raise refusal("each of signals", taken, signal) from None
            arguments, _ = self._operation(id, op, input)
            if at is not None:
                arguments["at"] = _when(at, "at")
            made.append(arguments)
        if made:
            given: dict[str, Any] = {"signals": made}
            self._carry(given)
            await self._ask("signals", given)

    async def read_entity_state(self, id: EntityId[E]) -> E | None:
        told = await self._ask("entity_state", self._entity(id))
        if told is None:
            return None
        state: Any = told["state"] if self._lookup is None else read_state(id, told, self._lookup)
        return cast("E | None", state)

    async def get_entity(self, id: EntityId[E]) -> EntityStatus[E] | None:
        told = await self._ask("entity", self._entity(id))
        return None if told is None else read_entity(told, self._lookup)

    def _entity(self, id: EntityId[Any]) -> dict[str, Any]:
        entity_id(id)
        if self._lookup is not None:
            self._lookup.registry.find_entity(id.name)
        return {"entity": str(id)}

    async def query_entities_page(
        self,
        *,
        after: EntityId[Any] | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
        **conditions: Unpack[EntityConditions],
    ) -> Page[EntityStatus[Any]]:
        check_conditions(EntityConditions, conditions)
        given = conditions.get
        made: dict[str, Any] = {"name": self._name_of_entity(given("name"))}
        made["key_prefix"] = optional_text(given("key_prefix"), "key_prefix")
        for name in ("updated_from", "updated_to"):
            made[name] = _time(given(name), name)
        for name in ("locked", "parked"):
            made[name] = optional_flag(given(name), name)
        made["include_empty"] = flag(conditions.get("include_empty", False), "include_empty")
        made["states"] = flag(conditions.get("states", True), "states")
        made["limit"] = check_page_size(page_size)
        made["after"] = None if after is None else str(entity_id(after, "after"))
        if continuation_token is not None:
            made["cursor"] = text(continuation_token, "continuation_token")
        told = await self._ask(
            "entities", {name: value for name, value in made.items() if value is not None}
        )
        return Page([read_entity(one, self._lookup) for one in told["items"]], told["cursor"])

    def _name_of_entity(self, name: object) -> str | None:
        if name is None or is_a(name, str):
            given = optional_text(name, "name")
            return None if given is None else given.casefold()
        return EntityId(cast("Any", name), "any").name

    async def purge_entity(self, id: EntityId[Any]) -> None:
        await self._ask("purge_entity", {"entity": str(entity_id(id))})

    async def clean_entity_storage(
        self, *, remove_empty_entities: bool = True, release_orphaned_locks: bool = True
    ) -> CleanResult:
        told = await self._ask(
            "clean_entities",
            {
                "remove_empty_entities": flag(remove_empty_entities, "remove_empty_entities"),
                "release_orphaned_locks": flag(release_orphaned_locks, "release_orphaned_locks"),
            },
        )
        return CleanResult(**told)

    # The hub.

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        told = await self._ask("statistics", {"hottest": whole(hottest, "hottest", most=2**31)})
        return read_statistics(told)

    async def move_partition(self, partition: int, to: int) -> None:
        most = 2**31  # the hub knows how many there are
        numbers = {
            "partition": whole(partition, "partition", most=most),
            "to": whole(to, "to", most=most),
        }
        await self._ask("move_partition", numbers)

    async def nodes(self) -> HubNodes:
        return read_fact(HubNodes, await self._ask("nodes", {}))

    async def drain_node(self, member: int) -> None:
        await self._ask("drain_node", {"member": whole(member, "member", most=MEMBER_MAX)})

    async def undrain_node(self, member: int) -> None:
        await self._ask("undrain_node", {"member": whole(member, "member", most=MEMBER_MAX)})

    async def describe(self) -> AppDescription:
        return read_description(await self._ask("describe", {}))


class _RemoteChanges(AsyncIterator[Change]):
    """The stream of a hub's changes, some at a time; between two items nothing of it runs."""

    def __init__(
        self,
        more: Callable[[Feed | None, dict[str, Any]], Awaitable[list[dict[str, Any]]]],
        arguments: dict[str, Any],
        feed: Feed | None,
    ) -> None:
        self._more = more
        self._feed = feed
        self._arguments = arguments
        self._read: deque[dict[str, Any]] = deque()
        self._breath = Breath()
        if feed is not None:
            weakref.finalize(self, feed.abandon)

    async def __anext__(self) -> Change:
        await self._breath.take()
        while not self._read:
            self._read += await self._more(self._feed, self._arguments)
        item = self._read.popleft()
        self._arguments["after"] = item["id"]
        return read_change(item)


def _fail(lost: AnswerLostError, patience_s: float, *, sent: bool) -> NoReturn:
    """Say what it means that no answer came."""
    if sent:
        raise OutcomeUnknownError(
            f"the hub stopped before it answered ({lost}): the request may have been applied; "
            "repeat it under the same request id"
        ) from lost
    raise UnavailableError(
        f"the hub has not been reached for {patience_s:g} seconds ({lost}); repeat it"
    ) from lost


def _needs_app(value: object, argument: str, what: str) -> UsageError:
    return UsageError(
        f"{argument} must be the name of {what}, a str, not {repr_of(value)}: without the "
        "application its functions mean nothing; give connect() the application as well"
    )


def _name(value: object, argument: str, what: str) -> str:
    """Give the name of something that the hub has; only that can cross."""
    if not is_a(value, str):
        raise _needs_app(value, argument, what)
    return check_name(value, argument)


def check_name(value: object, argument: str) -> str:
    """Refuse a name that is none of anything, before it is asked for."""
    name = text(value, argument)
    if not name:
        raise UnknownNameError(f"{argument} is empty: nothing is registered by that name")
    return name


def _add_input(arguments: dict[str, Any], input: Any) -> None:
    if input is not MISSING:
        try:
            arguments["input"] = orjson.Fragment(_ANY.encode(input))
        except UsageError as error:
            raise cast("Any", error).of("the input") from error.__cause__


def _add_request_id(arguments: dict[str, Any], request_id: str | None) -> None:
    if request_id is not None:
        arguments["request_id"] = check_text(request_id, "request_id")


def _when(at: object, name: str) -> str | float:
    """Give a time, or how long from now, as JSON."""
    if is_a(at, datetime):
        timestamp(at, name)
        return cast("datetime", at).isoformat()
    if is_a(at, (timedelta, int, float)):
        return microseconds(at, name) / 1e6
    raise refusal(name, "a timezone-aware datetime, seconds or a timedelta", at, InvalidTimeError)


def _time(when: object, name: str) -> str | None:
    if when is None:
        return None
    timestamp(when, name)
    return cast("datetime", when).isoformat()
