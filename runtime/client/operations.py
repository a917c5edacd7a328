"""The operations: one table of all that can be asked of a hub from outside, by name.

Arguments and results are JSON values. A row says what an operation takes (an attrs class), what it
does with the hub's client, and what its result looks like. The API over HTTP, its description, the
socket's verb and the client that stands on either are made from it. To add one, write the class of
its arguments and a function under ``@operation``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NewType, TypeVar, cast

import anyio
import attrs
import orjson
from attrs import NOTHING, field, frozen
from cattrs import Converter
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from ...actors.arguments import is_a, number, refusal, whole
from ...actors.errors import InstanceNotFoundError, PerdureError, UsageError
from ...actors.ids import EntityId, check_instance_id
from ...actors.payloads import write_around as write_around, write_in_parts as write_in_parts
from ...actors.printing import repr_of, text_of, type_name
from ...actors.values import MISSING, RuntimeStatus
from ...storage.membership import MEMBER_MAX
from ...storage.slices import (
    each as each,
    in_slices as in_slices,
    let_go as let_go,
    map_each as map_each,
)
from ..explanations import EntityExplanation, InstanceExplanation, Trace
from ..facts import in_parts
from ..nodes import HubNodes
from ..statistics import HubStatistics
from ..transport.errors import read_error as read_error, write_error as write_error
from .changes import Change
from .client import CleanResult, Client
from .hub_client import HubClient
from .pages import HistoryPage
from .status import AppDescription, EntityStatus, OrchestrationStatus

T = TypeVar("T")

#: A time: an aware datetime in ISO 8601, or a number of seconds from now.
When = NewType("When", object)
#: What ``RuntimeStatus`` has; what takes them says so where one is none.
StatusName = NewType("StatusName", str)
#: What is done to one instance by ``actions``.
Action = Literal["cancel", "terminate", "suspend", "resume", "rewind", "restart", "retry", "purge"]

#: Seconds that one request waits for an end or an answer at the most; who wants more asks again.
WAIT_MAX_S = 230.0
#: How long another hub is asked to wait for an end in one request.
_WAIT_S = 30.0
#: Seconds for a look at what has changed, where nothing is waited for.
_LOOK_S = 0.2
#: How many instances one request of ``actions`` acts on, and how many failures it lists.
ACTIONS_MAX = 1_000
FAILURES_MAX = 100


@frozen
class Operation:
    """A row of the table.

    Attributes:
        name: what it is asked by.
        arguments: the class of its arguments.
        do: does it with the hub's client, and gives JSON values.
        result: the class, or the JSON schema, of what it gives.
        writes: whether it changes anything.
        repeatable: whether it may be asked again though it may have been applied; one with a
            ``request_id`` may in any case.
        is_large: whether it may give much: a page, a history.
        title: what it does, in a line.
    """

    name: str
    arguments: type[Any]
    do: Callable[[HubClient, Any], Awaitable[Any]]
    result: Any
    writes: bool
    repeatable: bool
    is_large: bool
    title: str

    def read(self, arguments: Mapping[str, Any]) -> Any:
        """Structure arguments.

        Raises:
            UsageError: one of them is unknown, missing or of another kind.
        """
        try:
            return _CONVERTER.structure(arguments, self.arguments)
        except BaseValidationError as error:
            raise _refusal(error, self.name, "") from None

    def may_repeat(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it is applied once, however often it is asked with these arguments."""
        return not self.writes or self.repeatable or arguments.get("request_id") is not None


OPERATIONS: dict[str, Operation] = {}


def operation(
    name: str,
    arguments: type[T],
    *,
    result: Any,
    writes: bool = False,
    repeatable: bool = False,
    is_large: bool = False,
) -> Callable[[Callable[[HubClient, T], Awaitable[Any]]], Callable[[HubClient, T], Awaitable[Any]]]:
    """Put a function into the table."""

    def add(
        do: Callable[[HubClient, T], Awaitable[Any]],
    ) -> Callable[[HubClient, T], Awaitable[Any]]:
        title = (do.__doc__ or "").strip().partition("\n")[0]
        row = Operation(name, arguments, do, result, writes, repeatable, is_large, title)
        assert OPERATIONS.setdefault(name, row) is row, f"two operations are called {name}"
        return do

    return add


def is_large(name: object) -> bool:
    """Whether an operation of that name may give much."""
    row = OPERATIONS.get(name) if isinstance(name, str) else None
    return row is not None and row.is_large


async def wait_for_output(client: Client, instance_id: str) -> bytes | None:
    """Wait for an instance's end, and give its output as JSON; None if it did not complete.

    Raises:
        InstanceNotFoundError: there is no such instance.
    """
    if isinstance(client, HubClient):
        # As it is stored: what it would be decoded to had to be encoded again.
        status, output, _ = await client.ending(check_instance_id(instance_id))
        return (output or b"null") if status == RuntimeStatus.COMPLETED else None
    while True:
        ended = await client.ask("status", {"instance_id": instance_id, "wait": _WAIT_S})
        status = RuntimeStatus(ended["runtime_status"])
        if status.is_terminal:
            return orjson.dumps(ended["output"]) if status is RuntimeStatus.COMPLETED else None


async def ask(client: HubClient, name: str, arguments: Mapping[str, Any]) -> Any:
    """Do an operation; see ``Client.ask``."""
    row = OPERATIONS.get(name) if is_a(name, str) else None
    if row is None:
        raise refusal("operation", f"one of {', '.join(sorted(OPERATIONS))}", name)
    if not is_a(arguments, Mapping):
        raise refusal("arguments", "a mapping of JSON values by name", arguments)
    return await row.do(client, row.read(arguments))


# Arguments.


class _Unfit(Exception):
    """A value is not of the kind that is taken."""

    def __init__(self, taken: str, value: object) -> None:
        super().__init__(taken, value)
        self.taken = taken
        self.value = value


def _plain(kind: type[Any], taken: str) -> Callable[[Any, Any], Any]:
    def read(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _Unfit(taken, value)
        return value

    return read


def _read_number(value: Any, _: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise _Unfit("a number", value)
    return float(value)


def read_time(value: Any, _: Any = None) -> datetime:
    """Read a time in ISO 8601; what takes it refuses a naive one."""
    if type(value) is str:
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise _Unfit("a time in ISO 8601 with its zone", value)


def _read_when(value: Any, _: Any) -> Any:
    if type(value) is int or type(value) is float:
        return value
    try:
        return read_time(value)
    except _Unfit:
        raise _Unfit("a time in ISO 8601 with its zone, or seconds from now", value) from None


def _read_entity(value: Any, _: Any) -> EntityId[Any]:
    if type(value) is not str:
        raise _Unfit("the id of an entity, such as @name@key", value)
    return EntityId.parse(value)


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _plain(str, "a str"))
    converter.register_structure_hook_func(lambda kind: kind is StatusName, _plain(str, "a str"))
    converter.register_structure_hook(int, _plain(int, "an int"))
    converter.register_structure_hook(bool, _plain(bool, "true or false"))
    converter.register_structure_hook(float, _read_number)
    converter.register_structure_hook(datetime, read_time)
    converter.register_structure_hook_func(lambda kind: kind is When, _read_when)
    converter.register_structure_hook_func(
        lambda kind: getattr(kind, "__origin__", kind) is EntityId, _read_entity
    )

    def listed(kind: Any) -> Callable[[Any, Any], Any]:
        [inner] = kind.__args__
        read_one = converter.get_structure_hook(inner)

        def read(value: Any, _: Any) -> Any:
            if not is_a(value, list):
                raise _Unfit("a list", value)
            given: list[Any] = value
            return [read_one(one, inner) for one in given]

        return read

    def mapped(_: Any) -> Callable[[Any, Any], Any]:
        def read(value: Any, _: Any) -> Any:
            given: dict[str, Any] = value if is_a(value, dict) else {"": None}
            if not all(is_a(one, str) for one in given.values()):
                raise _Unfit("an object of str to str", value)
            return given

        return read

    def nested(kind: Any) -> Callable[[Any, Any], Any]:
        whole_class = _make_structure(kind, converter)

        def read(value: Any, cls: Any) -> Any:
            if not is_a(value, Mapping):
                raise _Unfit("an object", value)
            return whole_class(value, cls)

        return read

    converter.register_structure_hook_factory(
        lambda kind: getattr(kind, "__origin__", None) is list, listed
    )
    converter.register_structure_hook_factory(
        lambda kind: getattr(kind, "__origin__", None) is dict, mapped
    )
    converter.register_structure_hook_factory(attrs.has, nested)
    read_signal = nested(SignalOfMany)

    def signal(value: Any, cls: Any) -> Any:
        # Of these there are many in a request, nearly all of the same form.
        given = cast("dict[str, Any]", value) if type(value) is dict else {}
        if len(given) == 3 and "input" in given:
            entity, called = given.get("entity"), given.get("operation")
            if type(entity) is str and type(called) is str:
                id: EntityId[Any] = EntityId.parse(entity)
                return SignalOfMany(entity=id, operation=called, input=given["input"])
        return read_signal(value, cls)

    converter.register_structure_hook(SignalOfMany, signal)
    return converter


def _make_structure(kind: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_dict_structure_fn

    return cast(
        "Callable[[Any, Any], Any]",
        make_dict_structure_fn(
            kind,
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=True,
        ),
    )


def _refusal(error: BaseException, name: str, path: str) -> UsageError:
    """Make the error that names the first argument which is not taken."""
    if is_a(error, UsageError):
        return cast("UsageError", error)
    if isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(field.name for field in attrs.fields(cast("Any", error.cl)))
        extra = ", ".join(
            sorted(repr_of(f"{path}.{one}" if path else one) for one in error.extra_fields)
        )
        return UsageError(f"{name} takes no argument {extra}; it takes: {known or 'none'}")
    if isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        for note in getattr(inner, "__notes__", ()):
            place = getattr(note, "name", None)
            if place is not None:
                return _refusal(inner, name, f"{path}.{place}" if path else place)
        return _refusal(inner, name, path)
    if isinstance(error, _Unfit):
        return refusal(path or "arguments", error.taken, error.value)
    if isinstance(error, KeyError):
        return UsageError(f"{name} needs the argument {path.rpartition('.')[0]}{error.args[0]}")
    return UsageError(f"{path or 'arguments'}: {text_of(error)}")


def _number(default: Any, least: int, most: int | None = None) -> Any:
    """Give a field that is described with its bounds; what takes it is what refuses others."""
    bounds = {"minimum": least} if most is None else {"minimum": least, "maximum": most}
    return field(default=default, metadata=bounds)


def _limit(least: int = 1) -> Any:
    return _number(100, least, 10_000)


def _wait(given: float | None) -> float | None:
    return None if given is None else min(number(given, "wait", least=0), WAIT_MAX_S)


@frozen(kw_only=True)
class Nothing:
    """No arguments."""


@frozen(kw_only=True)
class StartArguments:
    """What an orchestration is started with."""

    name: str
    input: Any = MISSING
    instance_id: str | None = None
    version: str | None = None
    tags: dict[str, str] | None = None
    start_at: When | None = None
    on_existing: Literal["reject", "reuse", "replace"] = "reject"
    request_id: str | None = None
    wait: float | None = _number(None, 0)
    carried: dict[str, str] | None = None


@frozen(kw_only=True)
class InstanceArguments:
    """Which instance."""

    instance_id: str


@frozen(kw_only=True)
class StatusArguments:
    """Which instance, and how long to wait for its end."""

    instance_id: str
    wait: float | None = _number(None, 0)


@frozen(kw_only=True)
class HistoryArguments:
    """Which part of which instance's history."""

    instance_id: str
    after: int | None = _number(None, 0)
    limit: int = _limit()
    order: Literal["oldest", "newest"] = "oldest"


@frozen(kw_only=True)
class TraceArguments:
    """Which part of which instance's steps."""

    instance_id: str
    after: int = 0
    limit: int = 100


@frozen(kw_only=True)
class Conditions:
    """What instances are looked for by."""

    statuses: list[StatusName] | None = None
    name: str | None = None
    instance_id_prefix: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    completed_from: datetime | None = None
    completed_to: datetime | None = None
    parent_instance_id: str | None = None
    failure_type: str | None = None
    tags: dict[str, str] | None = None
    parked: bool | None = None
    waiting_for: str | None = None
    min_attempts: int | None = None

    def given(self) -> dict[str, Any]:
        """Give those that ask for something."""
        values = {one.name: getattr(self, one.name) for one in attrs.fields(Conditions)}
        return {name: value for name, value in values.items() if value is not None}


@frozen(kw_only=True)
class QueryArguments(Conditions):
    """Which page of which instances."""

    payloads: bool = True
    limit: int = _limit(0)
    order: Literal["oldest", "newest"] = "oldest"
    cursor: str | None = None
    count: bool = False


@frozen(kw_only=True)
class ChangesArguments(Conditions):
    """Which changes, and how long to wait for one."""

    after: str | None = None
    instance_id: str | None = None
    wait: float = _number(0.0, 0)
    limit: int = _number(1_000, 1, 10_000)


@frozen(kw_only=True)
class PurgeArguments:
    """Which instances are deleted."""

    statuses: list[StatusName] | None = None
    name: str | None = None
    instance_id_prefix: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    completed_from: datetime | None = None
    completed_to: datetime | None = None
    tags: dict[str, str] | None = None
    recursive: bool = True


@frozen(kw_only=True)
class ActionsArguments:
    """What is done to which instances: ``ids``, or those that ``filter`` finds."""

    action: Action
    ids: list[str] | None = None
    filter: Conditions | None = None
    dry_run: bool = False
    reason: str = ""
    force: bool = False
    recursive: bool = True
    limit: int = _number(ACTIONS_MAX, 1, ACTIONS_MAX)
    cursor: str | None = None


@frozen(kw_only=True)
class EventArguments:
    """Which event for which instance."""

    instance_id: str
    name: str
    data: Any = None
    request_id: str | None = None


@frozen(kw_only=True)
class ReasonArguments:
    """Which instance, and why."""

    instance_id: str
    reason: str = ""


@frozen(kw_only=True)
class TerminateArguments:
    """Which instance, why, and whether its children end as well."""

    instance_id: str
    reason: str = ""
    recursive: bool = True


@frozen(kw_only=True)
class RewindArguments:
    """Which instance, why, and whether completed work may be forgotten."""

    instance_id: str
    reason: str = ""
    force: bool = False


@frozen(kw_only=True)
class RestartArguments:
    """Which instance, and whether it gets a new id."""

    instance_id: str
    with_new_instance_id: bool = True
    request_id: str | None = None
    carried: dict[str, str] | None = None


@frozen(kw_only=True)
class ForkArguments:
    """Which instance, the last event of its history that the new one begins with, and its id."""

    instance_id: str
    at: int
    new_instance_id: str | None = None
    request_id: str | None = None


@frozen(kw_only=True)
class RetryArguments:
    """Which parked actor: an instance's id, or an entity's as @name@key."""

    actor: str


@frozen(kw_only=True)
class PurgeInstanceArguments:
    """Which instance, and whether its children go as well."""

    instance_id: str
    recursive: bool = True


@frozen(kw_only=True)
class EntityArguments:
    """Which entity."""

    entity: EntityId[Any]


@frozen(kw_only=True)
class CallArguments:
    """Which operation of which entity, and how long to wait for its answer."""

    entity: EntityId[Any]
    operation: str
    input: Any = MISSING
    request_id: str | None = None
    wait: float | None = _number(None, 0)
    carried: dict[str, str] | None = None


@frozen(kw_only=True)
class SignalArguments:
    """Which operation of which entity, and from when on."""

    entity: EntityId[Any]
    operation: str
    input: Any = MISSING
    at: When | None = None
    request_id: str | None = None
    carried: dict[str, str] | None = None


@frozen(kw_only=True)
class SignalOfMany:
    """One of many signals."""

    entity: EntityId[Any]
    operation: str
    input: Any = MISSING
    at: When | None = None


@frozen(kw_only=True)
class SignalsArguments:
    """Many signals, which are accepted together."""

    signals: list[SignalOfMany]
    carried: dict[str, str] | None = None


@frozen(kw_only=True)
class EntitiesArguments:
    """Which page of which entities."""

    name: str | None = None
    key_prefix: str | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None
    locked: bool | None = None
    parked: bool | None = None
    include_empty: bool = False
    after: EntityId[Any] | None = None
    states: bool = True
    limit: int = _limit()
    cursor: str | None = None


@frozen(kw_only=True)
class CleanArguments:
    """What is tidied up among entities."""

    remove_empty_entities: bool = True
    release_orphaned_locks: bool = True


@frozen(kw_only=True)
class ParkedArguments:
    """Which page of the parked actors."""

    limit: int = _limit()
    instances_cursor: str | None = None
    entities_cursor: str | None = None


@frozen(kw_only=True)
class StatisticsArguments:
    """How many of its most used actors each partition names."""

    hottest: int = _number(0, 0)


@frozen(kw_only=True)
class MoveArguments:
    """Which partition goes to which shard."""

    partition: int = _number(NOTHING, 0)
    to: int = _number(NOTHING, 0)


@frozen(kw_only=True)
class NodeArguments:
    """Which process of those that serve the hub."""

    member: int = _number(NOTHING, 0, MEMBER_MAX)


# Results, where they are no fact.


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_NOTHING: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_CURSOR: dict[str, Any] = {"type": ["string", "null"]}


@frozen
class PageOf:
    """A page of facts, as a result.

    Attributes:
        item: the class of each.
    """

    item: type[Any]


@frozen
class ItemsOf:
    """All facts that there are, as a result.

    Attributes:
        item: the class of each.
    """

    item: type[Any]


# What is done. Orchestrations first.


@operation("start", StartArguments, result=OrchestrationStatus, writes=True)
async def _start(client: HubClient, given: StartArguments) -> Any:
    """Start an orchestration, wait for its end if asked to, and give its status."""
    wait = _wait(given.wait)
    with client.carrying(given.carried):
        handle = await client.start_new(
            given.name,
            given.input,
            instance_id=given.instance_id,
            version=given.version,
            tags=given.tags,
            start_at=cast("Any", given.start_at),
            on_existing=given.on_existing,
            request_id=given.request_id,
        )
    if wait is not None:
        with anyio.move_on_after(wait):
            await client.ending(handle.instance_id)
    status = await client.get_status(handle.instance_id)
    # One that was purged before this, or a repetition of its start, is known by its id alone.
    return {"instance_id": handle.instance_id} if status is None else status.to_dict()


@operation("status", StatusArguments, result=OrchestrationStatus)
async def _status(client: HubClient, given: StatusArguments) -> Any:
    """Give an instance's status, when it has ended if asked to wait."""
    wait = _wait(given.wait)
    if wait is not None:
        with anyio.move_on_after(wait):
            await client.ending(check_instance_id(given.instance_id))
    status = await client.get_status(given.instance_id)
    if status is None:
        raise InstanceNotFoundError(given.instance_id)
    return status.to_dict()


@operation("history", HistoryArguments, result=HistoryPage, is_large=True)
async def _history(client: HubClient, given: HistoryArguments) -> Any:
    """Give some of the events of an instance's history."""
    page = await client.get_history_page(
        given.instance_id,
        after=given.after,
        page_size=whole(given.limit, "limit", least=1, most=10_000),
        order=given.order,
    )
    return await in_slices(in_parts(page))


@operation("explain", InstanceArguments, result=InstanceExplanation)
async def _explain(client: HubClient, given: InstanceArguments) -> Any:
    """Say what an instance waits for, and at which lines its code stands."""
    return await in_slices(in_parts(await client.explain(given.instance_id)))


@operation("explain_entity", EntityArguments, result=EntityExplanation)
async def _explain_entity(client: HubClient, given: EntityArguments) -> Any:
    """Say what an entity is busy with, and who waits for its lock."""
    return (await client.explain(given.entity)).to_dict()


@operation("trace", TraceArguments, result=Trace, is_large=True)
async def _trace(client: HubClient, given: TraceArguments) -> Any:
    """Give the steps of an instance: for each event of its history where its code stood then."""
    found = await client.trace(given.instance_id, after=given.after, limit=given.limit)
    return await in_slices(in_parts(found))


@operation("query", QueryArguments, result=PageOf(OrchestrationStatus), is_large=True)
async def _query(client: HubClient, given: QueryArguments) -> Any:
    """Find instances that match every condition given; with count, say how many there are."""
    limit = whole(given.limit, "limit", least=0 if given.count else 1, most=10_000)
    found: dict[str, Any] = {"items": [], "cursor": None}
    if limit:
        page = await client.query_page(
            payloads=given.payloads,
            page_size=limit,
            order=given.order,
            continuation_token=given.cursor,
            **cast("Any", given.given()),
        )
        found["items"] = await in_slices(map_each(page.items, OrchestrationStatus.to_dict))
        await in_slices(let_go(page.items))
        found["cursor"] = page.continuation_token
    if given.count:
        found["count"] = await client.count(**cast("Any", given.given()))
    return found


@operation("changes", ChangesArguments, result=ItemsOf(Change))
async def _changes(client: HubClient, given: ChangesArguments) -> Any:
    """Tell what became of instances behind a change, when there is something to tell."""
    wait = _wait(given.wait)
    limit = whole(given.limit, "limit", least=1, most=10_000)
    stream = client.changes(
        after=given.after, instance_id=given.instance_id, **cast("Any", given.given())
    )
    items: list[Any] = []
    with anyio.move_on_after(max(wait or 0.0, _LOOK_S)):
        items.append((await anext(stream)).to_dict())
    while stream.at_hand and len(items) < limit:
        items.append((await anext(stream)).to_dict())
    return {"items": items}


@operation("raise_event", EventArguments, result=_NOTHING, writes=True)
async def _raise_event(client: HubClient, given: EventArguments) -> Any:
    """Send an instance an event."""
    await client.raise_event(given.instance_id, given.name, given.data, request_id=given.request_id)
    return {}


@operation("cancel", ReasonArguments, result=_NOTHING, writes=True)
async def _cancel(client: HubClient, given: ReasonArguments) -> Any:
    """Throw Cancelled into an instance's code, which may compensate."""
    await client.cancel(given.instance_id, given.reason)
    return {}


@operation("terminate", TerminateArguments, result=_NOTHING, writes=True)
async def _terminate(client: HubClient, given: TerminateArguments) -> Any:
    """End an instance without running its code again."""
    await client.terminate(given.instance_id, given.reason, recursive=given.recursive)
    return {}


@operation("suspend", ReasonArguments, result=_NOTHING, writes=True)
async def _suspend(client: HubClient, given: ReasonArguments) -> Any:
    """Let an instance take no turns until it is resumed."""
    await client.suspend(given.instance_id, given.reason)
    return {}


@operation("resume", ReasonArguments, result=_NOTHING, writes=True)
async def _resume(client: HubClient, given: ReasonArguments) -> Any:
    """Let a suspended instance go on."""
    await client.resume(given.instance_id, given.reason)
    return {}


@operation("rewind", RewindArguments, result=_NOTHING, writes=True)
async def _rewind(client: HubClient, given: RewindArguments) -> Any:
    """Take a failed instance back to before its failures."""
    await client.rewind(given.instance_id, given.reason, force=given.force)
    return {}


@operation("restart", RestartArguments, result=_object(instance_id=_TEXT), writes=True)
async def _restart(client: HubClient, given: RestartArguments) -> Any:
    """Start an orchestration anew with the name, version, input and tags of an instance."""
    with client.carrying(given.carried):
        handle = await client.restart(
            given.instance_id,
            with_new_instance_id=given.with_new_instance_id,
            request_id=given.request_id,
        )
    return {"instance_id": handle.instance_id}


@operation("fork", ForkArguments, result=_object(instance_id=_TEXT), writes=True)
async def _fork(client: HubClient, given: ForkArguments) -> Any:
    """Start an instance that begins with the history of another up to an event, and goes on."""
    handle = await client.fork(
        given.instance_id,
        at=given.at,
        new_instance_id=given.new_instance_id,
        request_id=given.request_id,
    )
    return {"instance_id": handle.instance_id}


@operation("retry", RetryArguments, result=_NOTHING, writes=True)
async def _retry(client: HubClient, given: RetryArguments) -> Any:
    """Let a parked actor try again."""
    await client.retry(_actor(given.actor))
    return {}


def _actor(key: str) -> str | EntityId[Any]:
    return EntityId.parse(key) if key.startswith("@") else key


@operation("purge_instance", PurgeInstanceArguments, result=_object(deleted=_COUNT), writes=True)
async def _purge_instance(client: HubClient, given: PurgeInstanceArguments) -> Any:
    """Delete an instance that has ended or is parked, with its history."""
    return {"deleted": await client.purge_instance(given.instance_id, recursive=given.recursive)}


@operation("purge", PurgeArguments, result=_object(deleted=_COUNT), writes=True)
async def _purge(client: HubClient, given: PurgeArguments) -> Any:
    """Delete the instances that match every condition given and have ended, or are parked."""
    values = {one.name: getattr(given, one.name) for one in attrs.fields(PurgeArguments)}
    return {"deleted": await client.purge(**values)}


_FAILED = {"type": "array", "items": _object(instance_id=_TEXT, type=_TEXT, detail=_TEXT)}


@operation(
    "actions",
    ActionsArguments,
    result=_object(
        count=_COUNT,
        done=_COUNT,
        failed=_COUNT,
        failures=_FAILED,
        more={"type": "boolean"},
        cursor=_CURSOR,
    ),
    writes=True,
)
async def _actions(client: HubClient, given: ActionsArguments) -> Any:
    """Do the same to many instances, named or found; with dry_run, only count them."""
    if (given.ids is None) == (given.filter is None):
        raise UsageError("actions takes either ids or a filter: give one of them")
    limit = whole(given.limit, "limit", least=1, most=ACTIONS_MAX)
    conditions = {} if given.filter is None else given.filter.given()
    if given.ids is None:
        count = await client.count(**cast("Any", conditions))
    else:
        count = len(whole_list(given.ids, limit))
    ids = given.ids or []
    done, failures = 0, list[dict[str, str]]()
    failed, cursor = 0, cast("str | None", None)
    if not given.dry_run:
        if given.ids is None:
            page = await client.query_page(
                payloads=False,
                page_size=limit,
                continuation_token=given.cursor,
                **cast("Any", conditions),
            )
            cursor = page.continuation_token
            ids = [status.instance_id for status in page.items]
        for instance_id in ids:
            try:
                await _act(client, given, instance_id)
                done += 1
            except PerdureError as error:
                failed += 1
                if len(failures) < FAILURES_MAX:
                    why = {"type": type_name(error), "detail": text_of(error)}
                    failures.append({"instance_id": instance_id, **why})
    told: dict[str, Any] = {"count": count, "done": done, "failed": failed, "failures": failures}
    return {**told, "more": cursor is not None, "cursor": cursor}


def whole_list(ids: list[str], limit: int) -> list[str]:
    """Refuse a list of ids that is longer than what one request acts on."""
    if len(ids) > limit:
        raise UsageError(f"ids has {len(ids):,} instances; at most {limit:,} are taken at a time")
    return ids


async def _act(client: HubClient, given: ActionsArguments, instance_id: str) -> None:
    match given.action:
        case "terminate":
            await client.terminate(instance_id, given.reason, recursive=given.recursive)
        case "rewind":
            await client.rewind(instance_id, given.reason, force=given.force)
        case "restart":
            await client.restart(instance_id)
        case "retry":
            await client.retry(instance_id)
        case "purge":
            await client.purge_instance(instance_id, recursive=given.recursive)
        case _:
            await getattr(client, given.action)(instance_id, given.reason)


# Entities.


@operation(
    "call",
    CallArguments,
    result={
        "type": "object",
        "properties": {"ended": {"type": "boolean"}, "result": {}},
        "required": ["ended"],
    },
    writes=True,
)
async def _call(client: HubClient, given: CallArguments) -> Any:
    """Call an entity's operation and give its result, or say that there is none yet."""
    wait = _wait(given.wait)
    with anyio.move_on_after(wait), client.carrying(given.carried):
        answer = await client.call_plain(
            given.entity, given.operation, given.input, given.request_id
        )
        return {"ended": True, "result": orjson.loads(answer)}
    return {"ended": False}


@operation("signal", SignalArguments, result=_NOTHING, writes=True)
async def _signal(client: HubClient, given: SignalArguments) -> Any:
    """Send an entity an operation."""
    with client.carrying(given.carried):
        await client.signal_entity(
            given.entity,
            given.operation,
            given.input,
            at=cast("Any", given.at),
            request_id=given.request_id,
        )
    return {}


@operation("signals", SignalsArguments, result=_object(accepted=_COUNT), writes=True)
async def _signals(client: HubClient, given: SignalsArguments) -> Any:
    """Send many operations, of which all are accepted or, where one is refused, none."""
    with client.carrying(given.carried):
        await client.signal_entities(
            (one.entity, one.operation, one.input, cast("Any", one.at)) for one in given.signals
        )
    return {"accepted": len(given.signals)}


@operation("entity", EntityArguments, result=EntityStatus)
async def _entity(client: HubClient, given: EntityArguments) -> Any:
    """Give an entity's status, or null where there is no such entity."""
    status = await client.get_entity(given.entity)
    return None if status is None else entity_form(status)


@operation("entity_state", EntityArguments, result=_object(state={}, schema_version=_COUNT))
async def _entity_state(client: HubClient, given: EntityArguments) -> Any:
    """Give an entity's state, or null where it has none."""
    status = await client.get_entity(given.entity)
    if status is None or not status.exists:
        return None
    return {"state": status.to_dict()["state"], "schema_version": status.schema_version}


def entity_form(status: EntityStatus[Any]) -> dict[str, Any]:
    """Give an entity's status as JSON values, with the version that its state was stored by."""
    return {**status.to_dict(), "schema_version": status.schema_version}


@operation("entities", EntitiesArguments, result=PageOf(EntityStatus), is_large=True)
async def _entities(client: HubClient, given: EntitiesArguments) -> Any:
    """Find entities that match every condition given."""
    page = await client.query_entities_page(
        name=given.name,
        key_prefix=given.key_prefix,
        updated_from=given.updated_from,
        updated_to=given.updated_to,
        locked=given.locked,
        parked=given.parked,
        include_empty=given.include_empty,
        after=given.after,
        states=given.states,
        page_size=whole(given.limit, "limit", least=1, most=10_000),
        continuation_token=given.cursor,
    )
    items = await in_slices(map_each(page.items, entity_form))
    await in_slices(let_go(page.items))
    return {"items": items, "cursor": page.continuation_token}


@operation("purge_entity", EntityArguments, result=_NOTHING, writes=True, repeatable=True)
async def _purge_entity(client: HubClient, given: EntityArguments) -> Any:
    """Delete an entity's state, whatever it is."""
    await client.purge_entity(given.entity)
    return {}


@operation("clean_entities", CleanArguments, result=CleanResult, writes=True, repeatable=True)
async def _clean_entities(client: HubClient, given: CleanArguments) -> Any:
    """Remove entities without state, and locks whose holders have ended."""
    done = await client.clean_entity_storage(
        remove_empty_entities=given.remove_empty_entities,
        release_orphaned_locks=given.release_orphaned_locks,
    )
    return done.to_dict()


# The hub.


@operation(
    "parked",
    ParkedArguments,
    result=_object(instances=PageOf(OrchestrationStatus), entities=PageOf(EntityStatus)),
)
async def _parked(client: HubClient, given: ParkedArguments) -> Any:
    """Give the actors that take no turns until somebody repairs what is wrong."""
    limit = whole(given.limit, "limit", least=1, most=10_000)
    instances = await client.query_page(
        parked=True, payloads=False, page_size=limit, continuation_token=given.instances_cursor
    )
    entities = await client.query_entities_page(
        parked=True, states=False, page_size=limit, continuation_token=given.entities_cursor
    )
    return {
        "instances": {
            "items": await in_slices(map_each(instances.items, OrchestrationStatus.to_dict)),
            "cursor": instances.continuation_token,
        },
        "entities": {
            "items": await in_slices(map_each(entities.items, entity_form)),
            "cursor": entities.continuation_token,
        },
    }


@operation("statistics", StatisticsArguments, result=HubStatistics)
async def _statistics(client: HubClient, given: StatisticsArguments) -> Any:
    """Give the hub's counters: its shards and partitions, and how loaded they are."""
    return (await client.statistics(hottest=given.hottest)).to_dict()


@operation("move_partition", MoveArguments, result=_NOTHING, writes=True, repeatable=True)
async def _move_partition(client: HubClient, given: MoveArguments) -> Any:
    """Have another shard serve a partition."""
    await client.move_partition(given.partition, given.to)
    return {}


@operation("nodes", Nothing, result=HubNodes)
async def _nodes(client: HubClient, _: Nothing) -> Any:
    """Give the processes that serve the hub, and what each of them has."""
    return (await client.nodes()).to_dict()


@operation("drain_node", NodeArguments, result=_NOTHING, writes=True, repeatable=True)
async def _drain_node(client: HubClient, given: NodeArguments) -> Any:
    """Have a process let its partitions go to the others, and take none."""
    await client.drain_node(given.member)
    return {}


@operation("undrain_node", NodeArguments, result=_NOTHING, writes=True, repeatable=True)
async def _undrain_node(client: HubClient, given: NodeArguments) -> Any:
    """Have a process take its share of the partitions again."""
    await client.undrain_node(given.member)
    return {}


@operation("describe", Nothing, result=AppDescription)
async def _describe(client: HubClient, _: Nothing) -> Any:
    """Say what the application has: orchestrations, entities, activities."""
    return (await client.describe()).to_dict()


_CONVERTER = _converter()
