"""Every argument of every public callable, given what it does not take.

The table is made from the signatures: an argument that nobody has declared here fails the first
test, and a declared one is tried with every odd value.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, GeneratorType
from typing import Any, Protocol, cast

import anyio
import pytest
from attrs import frozen

import perdure
from perdure import (
    ActivityContext,
    App,
    Client,
    EntityConditions,
    EntityContext,
    EntityId,
    Hub,
    HubView,
    InstanceConditions,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationHandle,
    PerdureError,
    PostgresStore,
    PurgeConditions,
    Rebalance,
    RetryPolicy,
    RuntimeStatus,
    Settings,
    SqliteStore,
    SystemClock,
    TaskGroup,
    UsageError,
)
from perdure.actors.printing import repr_of


class Text(str):
    """A text of a class of the user's."""

    __slots__ = ()


class Hostile:
    """Raises wherever it is asked anything."""

    def _raise(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = _raise
    __getattr__ = __lt__ = __int__ = __float__ = __index__ = __call__ = __fspath__ = _raise
    __class__ = property(_raise)  # pyright: ignore[reportIncompatibleMethodOverride]


class HostileMeta(type):
    def __repr__(cls) -> str:
        raise RuntimeError("hostile")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("hostile")

    def __hash__(cls) -> int:
        raise RuntimeError("hostile")


class HostileClass(metaclass=HostileMeta):
    pass


def generator() -> Any:
    yield 1


ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "empty text": lambda: "",
    "digits": lambda: "5",
    "a word": lambda: "nonsense",
    "zero byte": lambda: "a\0b",
    "lone surrogate": lambda: "a\ud800",
    "long text": lambda: "x" * 300,
    "text of a class": lambda: Text("nonsense"),
    "bytes": lambda: b"x",
    "no bytes": lambda: b"",
    "minus one": lambda: -1,
    "zero": lambda: 0,
    "one and a half": lambda: 1.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "True": lambda: True,
    "huge": lambda: 10**400,
    "complex": lambda: 1j,
    "object": lambda: object(),
    "hostile": lambda: Hostile(),
    "hostile class": lambda: HostileClass,
    "list": list,
    "list of numbers": lambda: [1],
    "tuple": lambda: (),
    "set": lambda: {"a"},
    "dict": dict,
    "dict of numbers": lambda: {"a": 1},
    "dict of hostile": lambda: {"a": Hostile()},
    "class": lambda: int,
    "function": lambda: len,
    "lambda": lambda: lambda: None,
    "naive": lambda: datetime(2024, 1, 1),  # noqa: DTZ001
    "aware": lambda: datetime(2024, 1, 1, tzinfo=UTC),
    "less than no time": lambda: timedelta(seconds=-1),
    "no time": lambda: timedelta(0),
    "a long time": lambda: timedelta.max,
    "path": lambda: Path("/nowhere/at-all"),
    "generator": generator,
    "enum": lambda: RuntimeStatus.RUNNING,
}


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(min(value, 1e300))


def is_duration(value: Any, *, zero: bool = True) -> bool:
    if type(value) is timedelta:
        value = min(value.total_seconds(), 1e12)
    return is_number(value) and (value >= 0 if zero else value > 0) and value < 1e11


def class_of(value: object) -> type[object]:
    """Give the class; unlike ``type(value)`` it does not make type checkers narrow the value."""
    return type(value)


def is_text(value: Any) -> bool:
    return issubclass(type(value), str) and "\ud800" not in value


def is_id(value: Any) -> bool:
    return is_text(value) and 0 < len(value) <= 256 and "\0" not in value


def is_aware(value: Any) -> bool:
    return type(value) is datetime and value.tzinfo is not None


def is_mapping(value: Any) -> bool:
    return class_of(value) is dict and all(type(one) is str for one in value.values())


class Kind(Protocol):
    def __call__(self, value: Any, /) -> bool: ...


def or_none(kind: Kind) -> Kind:
    return lambda value: value is None or kind(value)


def anything(_: Any) -> bool:
    return True


def nothing(_: Any) -> bool:
    return False


def flag(value: Any) -> bool:
    return value is True or value is False


def function(value: Any) -> bool:
    return callable(value)


def at_least(least: int, most: float = math.inf) -> Kind:
    return lambda value: type(value) is int and least <= value <= most


def listed(value: Any) -> bool:
    return type(value) in (list, tuple, set, dict) and not len(value)


place: Kind = lambda value: is_text(value) or issubclass(type(value), PurePath)  # noqa: E731

#: What may be taken, by the name of the argument.
KINDS: dict[str, Kind] = {
    "input": anything,
    "data": anything,
    "status": anything,
    "state": anything,
    "result": anything,
    "progress": anything,
    "args": anything,
    "f": nothing,
    "op": is_text,  # a function entity takes every name
    "id": nothing,
    "ids": listed,
    "actor": is_id,
    "entity": is_id,
    "key": is_id,
    "text": nothing,
    "instance_id": or_none(is_id),
    "new_instance_id": or_none(is_id),
    "request_id": or_none(is_id),
    "version": or_none(nothing),
    "name": or_none(is_text),
    "orchestration": nothing,
    "reason": is_text,
    "tags": or_none(is_mapping),
    "at": or_none(lambda value: is_aware(value) or is_duration(value)),
    "start_at": or_none(lambda value: is_aware(value) or is_duration(value)),
    "when": lambda value: is_aware(value) or is_duration(value),
    "timeout": or_none(is_duration),
    "overall_timeout": or_none(is_duration),
    "seconds": is_duration,
    "retry": or_none(nothing),
    "on_existing": nothing,
    "data_type": anything,
    "initializer": or_none(function),
    "tasks": listed,
    "codec": or_none(nothing),
    "signals": lambda value: listed(value),
    "statuses": or_none(nothing),
    "instance_id_prefix": or_none(is_text),
    "key_prefix": or_none(is_text),
    "parent_instance_id": or_none(is_text),
    "failure_type": or_none(is_text),
    "page_size": at_least(1, 10_000),
    "continuation_token": or_none(nothing),
    "after": or_none(nothing),
    "hottest": at_least(0),
    "arguments": lambda value: class_of(value) is dict and not len(value),
    "partition": at_least(0, 3),
    "to": at_least(0, 0),
    "member": nothing,  # of a hub with one node
    "start": at_least(0, 10**17),
    "app": nothing,
    "other": nothing,
    "store": lambda value: issubclass(type(value), PurePath),
    "place": place,
    "path": lambda value: place(value) or (type(value) is str and value == "a\ud800"),
    "socket": or_none(place),
    "synchronous": nothing,
    "partitions": or_none(at_least(1, 1_024)),
    "node_listen": or_none(nothing),
    "node_address": or_none(nothing),
    "node_key": or_none(lambda value: place(value) or type(value) is bytes),
    "node_http": or_none(is_text),
    "shards": at_least(1),
    "workers": at_least(0),
    "rebalance": or_none(nothing),
    "settings": or_none(nothing),
    "clock": or_none(nothing),
    "observer": or_none(nothing),
    "retention": or_none(lambda value: value == {} if type(value) is dict else False),
    "backend": nothing,
    "uvloop": or_none(flag),
    "on_ready": or_none(function),
    "beside": or_none(function),
    "function": lambda value: type(value) is FunctionType,
    "operation": lambda value: type(value) is FunctionType,
    "target": or_none(function),
    "max_mailbox": or_none(at_least(1)),
    "max_concurrency": or_none(at_least(1)),
    "stripes": or_none(at_least(1, 1_024)),
    "context_vars": listed,
    "summary": or_none(is_text),
    "order": nothing,
    "waiting_for": or_none(nothing),
    "min_attempts": or_none(at_least(1)),
    "first_interval": lambda value: is_duration(value, zero=False),
    "max_interval": or_none(lambda value: is_duration(value, zero=False)),
    "max_attempts": at_least(1),
    "backoff": lambda value: is_number(value) and value >= 1,
    "jitter": lambda value: is_number(value) and 0 <= value <= 1,
    "retry_on": or_none(lambda value: value == () if type(value) is tuple else function(value)),
    "first_retry_interval_in_milliseconds": at_least(1, 10**12),
    "max_number_of_attempts": at_least(1),
    "interval_s": lambda value: is_duration(value, zero=False),
    "rest_s": is_duration,
    "busy": lambda value: is_number(value) and 0 < value <= 1,
    "gain": lambda value: is_number(value) and 0 < value < 1,
    "on_nondeterminism": nothing,
}
for each in ("created", "updated", "completed"):
    KINDS.update({f"{each}_from": or_none(is_aware), f"{each}_to": or_none(is_aware)})
FLAGS = """recursive force with_new_instance_id remove_empty_entities release_orphaned_locks payloads
    include_empty states fail_fast cancel_losers keep_events tuned"""
KINDS.update(dict.fromkeys(FLAGS.split(), flag))
KINDS.update(dict.fromkeys(["parked", "locked"], or_none(flag)))

#: Where one callable takes something else under the same name.
EXCEPTIONS: dict[tuple[str, str], Kind] = {
    ("App.entity", "name"): or_none(is_id),
    ("App.activity", "name"): or_none(is_id),
    ("App.orchestration", "name"): or_none(is_id),
    ("App.orchestration", "version"): or_none(is_id),
    ("App.activity", "f"): or_none(function),
    ("App.orchestration", "f"): or_none(nothing),
    ("App.activity", "timeout"): or_none(lambda value: is_duration(value, zero=False)),
    ("PostgresStore", "spec"): nothing,  # none of these is an address
    ("Client.raise_event", "name"): is_id,
    ("Client.fork", "at"): at_least(0),
    ("OrchestrationHandle.fork", "at"): at_least(0),
    ("Client.wait", "instance_id"): is_id,
    ("Client.query_entities", "after"): or_none(nothing),
    ("OrchestrationHandle.raise_event", "name"): is_id,
    ("OrchestrationContext.wait_for_external_event", "name"): is_id,
    ("OrchestrationContext.send_event", "name"): is_id,
    ("RetryPolicy", "timeout"): or_none(lambda value: is_duration(value, zero=False)),
    ("Client.ask", "operation"): nothing,
    ("Client.get_history_page", "after"): or_none(at_least(0)),
    ("read_nodes", "place"): nothing,
    ("connect", "key"): or_none(nothing),
    ("connect", "node_key_file"): or_none(nothing),
    ("watch_hub", "node_key_file"): or_none(nothing),
    ("connect", "app"): or_none(nothing),
    ("read_store", "app"): or_none(nothing),
    ("EntityContext.start_new", "version"): or_none(nothing),
    ("Client.trace", "after"): at_least(0),
    ("Client.trace", "limit"): at_least(1, 1_000),
    ("HubView.move_partition", "partition"): at_least(0),
    ("HubView.move_partition", "to"): at_least(0),
}

#: Made by the package and given to users; nobody but a test makes one, and it holds what it is given.
MADE = {
    "ActivityContext", "AppDescription", "CancelScope", "Change", "CleanResult", "Client", "Clock", "EntityConditions",
    "EntityContext", "HistoryPage", "InstanceConditions", "PurgeConditions",
    "ActivityFacts", "ActivityStatistics", "Durations",
    "CheckpointFacts", "Observer", "OperationFacts", "StartFacts", "TraceObserver",
    "TurnFacts", "WorkFacts",
    "EntityLock", "EntityStatus", "FailureDetails", "HistoryEvent", "HubNodes", "MembershipStatistics", "HubStatistics", "HubView",
    "OrchestrationContext", "OrchestrationHandle", "OrchestrationStatus", "Page", "ParkedReason", "MigrationStatus",
    "NodePartition", "NodeStatus", "PartitionStatistics", "RuntimeStatus", "SilentShard", "ShardStatistics", "SharedStore", "Store", "Task",
    "TaskGroup",
    "AskedLock", "AwaitedEvent", "EntityExplanation", "InstanceExplanation", "PendingActivity", "PendingChild",
    "PendingEntityCall", "PendingTimer", "RunningOperation", "SourceFunction", "SourceLine", "Trace", "TraceStep",
    "Waited", "WaitingBranch",
}  # fmt: skip

#: Methods that are not for users' own arguments.
WITHIN = {
    "OrchestrationContext.__init__",
    "Client.wait.codec",  # a handle's
    "RetryPolicy.next_delay",
    "ActivityContext.cancel",
}

#: Methods of a class that belong to the contract between rooms.
SEAMS = {
    "Task": {"make_error", "see", "settle", "watch", "unwatch", "withdraw", "outcome"},
    "EntityLock": {"settle", "watch", "unwatch", "withdraw", "outcome"},
    "CancelScope": {"on_settled"},
    "TaskGroup": {"on_ended"},
    "MemoryStore": {"open", "close"},
    "SqliteStore": {"open", "close", "attach"},
    "PostgresStore": {
        "open",
        "close",
        "join",
        "view",
        "identify",
        "count_partitions",
        "sql",
        "partition",
        "committer",
        "folder",
    },
    "ManualClock": {"now", "wait_until", "call_at"},
    "SystemClock": {"now", "wait_until", "call_at"},
    "RetryPolicy": {"next_delay"},
}

#: How an error may call an argument, where it is clearer than the argument's name.
WORDS = {
    "f": ("activity", "orchestration", "registered"),
    "op": ("operation",),
    "id": ("EntityId",),
    "input": ("at $", "the input"),
    "data": ("at $", "the data"),
    "status": ("at $", "custom status"),
    "function": ("marks", "branch"),
    "operation": ("takes the operation",),
    "target": ("decorates", "entity"),
    "version": ("version",),
    "name": ("registered",),
    "reason": ("at $",),
    "app": ("App",),
    "arguments": ("argument",),
}

#: What is given for arguments that have no default.
BASE: dict[str, Any] = {
    "instance_id": "ended",
    "at": 0,
    "actor": "ended",
    "name": "event",
    "orchestration": "listen",
    "f": "listen",
    "op": "get",
    "id": EntityId("box", "b"),
    "signals": [],
    "tasks": [],
    "partition": 0,
    "to": 0,
    "operation": "describe",
    "arguments": {},
    "seconds": 1,
    "when": 1,
    "status": None,
    "state": None,
    "result": None,
    "first_interval": 1,
    "first_retry_interval_in_milliseconds": 1,
    "max_number_of_attempts": 1,
    "entity": "box",
    "key": "k",
    "text": "@box@k",
    "function": generator,
    "place": "/nowhere/at-all",
    "path": "/nowhere/at-all",
}


@frozen
class Face:
    """One public callable."""

    key: str
    call: Callable[..., Any]
    given: Mapping[str, Any] = {}

    @property
    def parameters(self) -> list[inspect.Parameter]:
        found: list[inspect.Parameter] = []
        for one in inspect.signature(self.call).parameters.values():
            if one.name == "conditions":  # of a TypedDict, which says what they are
                of_entities = "entities" in self.key
                conditions: Any = EntityConditions if of_entities else InstanceConditions
                if self.key.endswith(".purge"):
                    conditions = PurgeConditions
                keys = conditions.__annotations__
                found += [
                    one.replace(name=key, kind=one.KEYWORD_ONLY, default=None) for key in keys
                ]
            elif one.name not in ("self", "args"):
                found.append(one)
        return found

    def taken(self, name: str) -> Kind:
        kind = EXCEPTIONS.get((self.key, name)) or KINDS.get(name)
        if kind is None and self.key == "Settings":
            kind = (
                KINDS["max_attempts"]
                if not name.endswith("_s") or "_per_" in name
                else KINDS["interval_s"]
            )
        assert kind is not None, f"say in KINDS what {self.key} takes as {name}"
        return kind

    def try_with(self, name: str, value: Any) -> Any:
        args: list[Any] = []
        options: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name == name:
                given = value
            elif parameter.name in self.given:
                given = self.given[parameter.name]
            elif parameter.default is parameter.empty:
                if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    continue
                given = BASE[parameter.name]
            elif parameter.kind is parameter.POSITIONAL_ONLY:
                given = parameter.default
            else:
                continue
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                options[parameter.name] = given
            else:
                args.append(given)
        return self.call(*args, **options)


def methods_of(cls: type, made: object, **given: Any) -> list[Face]:
    """Give the public methods of an object that take arguments."""
    found: list[Face] = []
    for name in sorted(dir(cls)):
        raw = inspect.getattr_static(cls, name)
        if name.startswith("_") or not callable(getattr(cls, name, None)):
            continue
        if name in SEAMS.get(cls.__name__, ()) or isinstance(raw, property):
            continue
        found.append(Face(f"{cls.__name__}.{name}", getattr(made, name), given))
    return found


def fault_of(face: Face, name: str, value: Any, error: BaseException | None) -> str | None:
    """Say what is wrong with how a value was answered, if something is."""
    shown = f"{face.key}({name}={repr_of(value, 40)})"
    may = face.taken(name)(value)
    if name == "initializer" and may and error is not None:
        return None  # it was called, and what it raises is its own
    if error is None:
        return None if may else f"{shown} is taken"
    if not isinstance(error, (PerdureError, TimeoutError) if may else UsageError):
        return f"{shown} raises {type(error).__name__}: {error}"
    if may:
        return None
    text = str(error)
    if not any(word in text for word in (name, *WORDS.get(name, ()))):
        return f"{shown} is refused without naming the argument: {text}"
    if not any(word in text for word in words_for(value)):
        return f"{shown} is refused without showing the value: {text}"
    return None


def no_fault(faults: list[str]) -> None:
    if faults:
        pytest.fail(f"{len(faults)} faults:\n" + "\n".join(faults))


def words_for(value: Any) -> list[str]:
    """Give what an error may show of a value."""
    kind = class_of(value)
    words = [repr_of(value)[:30], kind.__name__, "empty", "characters", "None"]
    if issubclass(kind, str):
        words.append(repr(str.__str__(value))[:30])
    if issubclass(kind, (type, FunctionType, BuiltinFunctionType)):
        words.append(value.__name__)
    if kind is GeneratorType:
        words += ["not 1", "1 among"]
    if kind in (list, tuple, set, dict):
        words += [repr_of(one)[:30] for one in value]
    if kind is dict:
        words += [repr_of(one)[:30] for one in value.values()]
    return words


def try_all(faces: Iterable[Face]) -> list[str]:
    """Give what is wrong with calls that give no awaitables."""
    faults: list[str] = []
    for face in faces:
        for parameter in face.parameters:
            for make in ODD.values():
                value = make()
                error: BaseException | None = None
                try:
                    face.try_with(parameter.name, value)
                except Exception as raised:
                    error = raised
                fault = fault_of(face, parameter.name, value, error)
                faults += [] if fault is None else [fault]
    return faults


async def finish(result: Any, limit: float = 0.05) -> None:
    """Let a call happen, for a moment at the most."""
    with anyio.move_on_after(limit):
        if isinstance(result, AbstractAsyncContextManager) and not isinstance(result, Hub):
            async with cast("AbstractAsyncContextManager[Any]", result):
                return
        if hasattr(result, "__anext__"):
            async for _ in cast("AsyncIterator[Any]", result):
                return
        elif inspect.isawaitable(result):
            await result


async def try_all_async(faces: Iterable[Face]) -> list[str]:
    faults: list[str] = []
    for face in faces:
        for parameter in face.parameters:
            if f"{face.key}.{parameter.name}" in WITHIN:
                continue
            for make in ODD.values():
                value = make()
                error: BaseException | None = None
                try:
                    # A refusal comes, however busy the machine is; what is taken may wait for ever.
                    limit = 0.05 if face.taken(parameter.name)(value) else 5
                    await finish(face.try_with(parameter.name, value), limit)
                except Exception as raised:
                    error = raised
                fault = fault_of(face, parameter.name, value, error)
                faults += [] if fault is None else [fault]
    return faults


def test_every_public_name_is_tried_or_is_made_by_the_package() -> None:
    tried = {"App", "EntityId", "Hub", "ManualClock", "MemoryStore", "Rebalance", "RetryPolicy"}
    tried |= {
        "PostgresStore",
        "Settings",
        "SqliteStore",
        "SystemClock",
        "combine",
        "commutative",
        "connect",
    }
    tried |= {"read_nodes", "read_store", "readonly", "run", "tune", "watch_hub"}
    errors = {
        name
        for name in perdure.__all__
        if inspect.isclass(value := getattr(perdure, name)) and issubclass(value, BaseException)
    }

    assert set(perdure.__all__) - errors - MADE - tried == {"MISSING", "__version__"}


def test_what_makes_objects_refuses_what_it_does_not_take() -> None:
    faces = [
        Face(cls.__name__, cls)
        for cls in (App, EntityId, ManualClock, MemoryStore, Rebalance, RetryPolicy, Settings)
    ]
    faces += [Face("SqliteStore", SqliteStore), Face("SystemClock", SystemClock)]
    faces += [Face("PostgresStore", PostgresStore)]
    faces += [Face("Hub", Hub, {"app": App()})]
    faces += [Face("EntityId.parse", EntityId.parse)]
    faces += [Face("RetryPolicy.from_options", RetryPolicy.from_options)]
    faces += methods_of(ManualClock, ManualClock())

    no_fault(try_all(faces))


def test_decorators_refuse_what_they_do_not_take() -> None:
    app = App()
    listen = app.orchestration(_listen)
    faces = [Face(f"perdure.{f.__name__}", f) for f in (perdure.readonly, perdure.commutative)]
    faces += [Face("perdure.combine", perdure.combine)]
    faces += methods_of(App, app)

    no_fault(try_all(faces))
    assert app.registry.find_orchestration(listen).name == "_listen"


async def _listen(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("end")


def application(tried: list[str]) -> App:
    """Make an application whose code tries its contexts."""
    app = App()

    @app.activity
    async def work(ctx: ActivityContext) -> None:
        tried.extend(try_all(methods_of(ActivityContext, ctx)))

    @app.entity
    def box(ctx: EntityContext) -> None:
        if ctx.operation_name == "try":
            tried.extend(try_all(methods_of(EntityContext, ctx)))
            ctx.set_state(None)

    @app.orchestration
    async def listen(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("end")

    @app.orchestration
    async def probe(ctx: OrchestrationContext) -> None:
        faces = methods_of(OrchestrationContext, ctx)
        for face in faces:
            name = face.key.rpartition(".")[2]
            given = {"f": "work"} if name == "call_activity" else {}
            tried.extend(try_all([Face(face.key, face.call, given)]))
        async with ctx.create_task_group() as group:
            tried.extend(try_all(methods_of(TaskGroup, group)))
        tried.append("done")
        raise ValueError("nothing of it shall happen")

    return app


@pytest.mark.by_turns
async def test_contexts_refuse_what_they_do_not_take() -> None:
    tried: list[str] = []
    app = application(tried)
    async with Hub(app) as hub:
        handle = await hub.client.start_new("probe")
        with pytest.raises(perdure.OrchestrationFailedError, match="nothing of it"):
            await handle.result(20)
        await hub.client.call_entity(EntityId("box", "b"), "try")

        @app.orchestration
        async def call(ctx: OrchestrationContext) -> None:
            await ctx.call_activity("work")

        await (await hub.client.start_new("call")).result(20)

    assert "done" in tried
    no_fault([fault for fault in tried if fault != "done"])


# What is refused does not depend on the loop, and each odd value costs a call.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("way", ["in process", "asked by name"])
async def test_the_client_and_the_handle_refuse_what_they_do_not_take(
    way: str, tmp_path: Path
) -> None:
    app = application([])
    socket = None if way == "in process" else tmp_path / "s"
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(app, socket=socket))
        client = hub.client
        if socket is not None:
            client = await stack.enter_async_context(perdure.connect(socket))
        await client.start_new("listen", instance_id="ended")
        await client.raise_event("ended", "end")
        handle: OrchestrationHandle[Any] = client.get_handle("ended")
        await handle.result(5)
        faces = methods_of(Client, client)
        faces += methods_of(OrchestrationHandle, handle)
        faces += [
            Face("Hub.statistics", hub.statistics),
            Face("Hub.move_partition", hub.move_partition),
            Face("Hub.drain_node", hub.drain_node),
            Face("Hub.undrain_node", hub.undrain_node),
        ]

        no_fault(await try_all_async(faces))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_begins_outside_of_a_hub_refuses_what_it_does_not_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from perdure.runtime import program

    class Anyio:
        @staticmethod
        def run(*_: Any, **__: Any) -> None: ...

    monkeypatch.setattr(program, "anyio", Anyio)
    monkeypatch.setattr(program, "tune", lambda: None)
    app = App()
    async with Hub(app, socket=tmp_path / "s"), perdure.watch_hub(tmp_path / "s") as view:
        faces = [
            Face("run", perdure.run, {"app": app}),
            Face("connect", perdure.connect, {"app": app, "place": tmp_path / "s"}),
            Face("watch_hub", perdure.watch_hub),
            Face("read_store", perdure.read_store),
            Face("read_nodes", perdure.read_nodes),
            *methods_of(HubView, view),
        ]

        no_fault(await try_all_async(faces))
