"""What users' code may raise, do and return, and an application with a place for each of them.

A plain module, so that worker processes can import it.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
from attrs import define, field

import perdure
from perdure import App, EntityContext, EntityId, OrchestrationContext, RetryPolicy

# What is raised.


class StrRaises(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class StrIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


class StrExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class ReprRaises(Exception):
    def __repr__(self) -> str:
        raise KeyboardInterrupt


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not to be copied")


class CauseRaises(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no cause")


class TracebackRaises(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no traceback")


class ClassRaises(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("no class")


class EqualRaises(Exception):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class _Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no name")


class NameRaises(Exception, metaclass=_Nameless):
    pass


class Panic(BaseException):
    pass


def _cycle() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _chain() -> BaseException:
    error: BaseException = StrRaises()
    for _ in range(2_000):
        outer = ValueError("outer")
        outer.__cause__ = error
        error = outer
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    **{
        type.__dict__["__name__"].__get__(kind): kind
        for kind in (
            StrRaises,
            StrIsNone,
            StrExits,
            ReprRaises,
            ReduceRaises,
            CauseRaises,
            TracebackRaises,
            ClassRaises,
            EqualRaises,
            NameRaises,
            Panic,
            SystemExit,
            KeyboardInterrupt,
            GeneratorExit,
            StopIteration,
            StopAsyncIteration,
            asyncio.CancelledError,
            RecursionError,
            MemoryError,
        )
    },
    "group": lambda: BaseExceptionGroup("group", [StrRaises(), Panic(), NameRaises()]),
    "cycle": _cycle,
    "chain": _chain,
    "surrogate": lambda: ValueError("\udcff\n\r\x00" * 3),
    "long": lambda: ValueError("x" * 3_000_000),
}

# What is done.

VARIABLE: ContextVar[str] = ContextVar("variable", default="clean")
KEPT: list[Any] = []


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # in a thread, or on trio


def cancel_task() -> None:
    task = _task()
    if task is not None:
        for _ in range(3):
            task.cancel()


def _on_a_loop() -> bool:
    try:
        anyio.get_current_task()
    except Exception:
        return False
    return True


def open_scope() -> None:
    if _on_a_loop():
        KEPT.append(anyio.CancelScope().__enter__())


def open_deadline() -> None:
    if _on_a_loop():
        KEPT.append(anyio.move_on_after(0.001).__enter__())


def open_cancelled() -> None:
    if _on_a_loop():
        scope = anyio.CancelScope().__enter__()
        scope.cancel()
        KEPT.append(scope)


async def _fail_later() -> None:
    await asyncio.sleep(0)
    raise ValueError("in the background, which nobody awaits")


def spawn() -> None:
    if _task() is not None:
        task = asyncio.get_running_loop().create_task(_fail_later())
        task.add_done_callback(lambda task: task.exception())
        KEPT.append(task)


def stop_loop_resources() -> None:
    if _task() is not None:
        asyncio.get_running_loop().close()


def cancel_all_tasks() -> None:
    """As helpers do that shut a program down; it leaves out those of the test itself."""
    if _task() is not None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("perdure"):
                task.cancel()


def set_variable() -> None:
    VARIABLE.set("set by bad code")


def recurse() -> None:
    recurse()


def leak_thread() -> None:
    threading.Thread(target=lambda: None, daemon=True).start()


def throw_into_a_generator() -> None:
    def generator() -> Generator[None, None, None]:
        yield

    running = generator()
    next(running)
    running.throw(GeneratorExit)


DONE: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        cancel_task,
        open_scope,
        open_deadline,
        open_cancelled,
        spawn,
        stop_loop_resources,
        cancel_all_tasks,
        set_variable,
        recurse,
        leak_thread,
        throw_into_a_generator,
    )
}

# What is done where something can be awaited.


async def open_group() -> None:
    await anyio.create_task_group().__aenter__()


async def open_group_with_a_child() -> None:
    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(anyio.sleep_forever)


async def failing_group() -> None:
    async def fail() -> None:
        raise StrRaises

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        await anyio.sleep_forever()


async def timeout_that_fires() -> None:
    if _task() is None:
        with anyio.fail_after(0.001):
            await anyio.sleep_forever()
    async with asyncio.timeout(0.001):
        await asyncio.sleep(60)


async def timeout_left_open() -> None:
    if _task() is not None:
        await asyncio.timeout(0.001).__aenter__()
        await asyncio.sleep(0)


async def cancel_and_wait() -> None:
    cancel_task()
    await anyio.sleep(0.001)


async def await_what_is_cancelled() -> None:
    if _task() is not None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future


class _Yields:
    def __await__(self) -> Generator[Any, Any, None]:
        yield "what no event loop knows"


async def yield_nonsense() -> None:
    await _Yields()


AWAITED: dict[str, Callable[[], Any]] = {
    one.__name__: one
    for one in (
        open_group,
        open_group_with_a_child,
        failing_group,
        timeout_that_fires,
        timeout_left_open,
        cancel_and_wait,
        await_what_is_cancelled,
        yield_nonsense,
    )
}

# What is returned.


class _Hostile:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise SystemExit(4)

    def __eq__(self, other: object) -> bool:
        raise Panic

    def __hash__(self) -> int:
        raise Panic

    def __repr__(self) -> str:
        raise Panic

    def __bool__(self) -> bool:
        raise Panic

    def __getattr__(self, name: str) -> Any:
        raise Panic


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


RETURNED: dict[str, Callable[[], Any]] = {
    "object": object,
    "hostile": _Hostile,
    "hostile inside": lambda: {"a": [_Hostile()]},
    "endless": _endless,
    "large": lambda: "x" * 3_000_000,
    "surrogate value": lambda: "\udcff",
    "a class": lambda: _Hostile,
    "not a number": lambda: float("nan"),
}

SYNC = [*RAISED, *DONE, *RETURNED]
# What is checked at the door as well, in the task of whoever calls, which is theirs to spoil.
SPOILING = {"cancel_task", "open_scope", "open_deadline", "open_cancelled"}
AT_THE_DOOR = [name for name in SYNC if name not in SPOILING]
ALL = [*SYNC, *AWAITED]


def misbehave(name: str) -> Any:
    """Raise, do or return what is named, where nothing can be awaited."""
    if name in RAISED:
        raise RAISED[name]()
    if name in DONE:
        return DONE[name]()
    return RETURNED[name]() if name in RETURNED else None


async def misbehave_async(name: str) -> Any:
    if name in AWAITED:
        return await AWAITED[name]()
    return misbehave(name)


# The places.

app = App("bad")


@app.activity
def sync_activity(name: str) -> Any:
    return misbehave(name)


@app.activity
async def activity_before_await(name: str) -> Any:
    return await misbehave_async(name)


@app.activity
async def activity_after_await(name: str) -> Any:
    await anyio.lowlevel.checkpoint()
    result = await misbehave_async(name)
    await anyio.lowlevel.checkpoint()
    return result


@app.activity
async def fails() -> None:
    raise ValueError("for a policy to look at")


class Choice(enum.Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return misbehave(str(value))


def _check(instance: Any, attribute: Any, value: str) -> None:
    misbehave(value)


@define
class Checked:
    name: str = field(validator=_check)


@define
class Converted:
    name: str = field(converter=misbehave)


@app.entity
class Box:
    n: int = 0
    what: Any = None

    def sync_operation(self, name: str) -> Any:
        self.n += 1
        return misbehave(name)

    async def operation_before_await(self, name: str) -> Any:
        self.n += 1
        return await misbehave_async(name)

    async def operation_after_await(self, name: str) -> Any:
        self.n += 1
        await anyio.lowlevel.checkpoint()
        result = await misbehave_async(name)
        await anyio.lowlevel.checkpoint()
        return result

    def bad_state(self, name: str) -> None:
        self.what = misbehave(name)

    @perdure.readonly
    def readonly_operation(self, name: str) -> Any:
        return misbehave(name)

    def checked(self, value: Checked) -> None: ...

    def converted(self, value: Converted) -> None: ...

    def chosen(self, value: Choice) -> None: ...

    def combined(self, name: str) -> None: ...

    @perdure.combine(combined)
    @staticmethod
    def _join(names: list[str]) -> str:
        return str(misbehave(names[0]))


@app.entity
class Plain:
    """An entity without async operations, which takes its mail at checkpoints as well."""

    n: int = 0

    def bad(self, name: str) -> Any:
        self.n += 1
        return misbehave(name)

    def add(self) -> int:
        self.n += 1
        return self.n


@app.entity
class Sender:
    n: int = 0

    def send(self, name: str, ctx: EntityContext) -> None:
        for _ in range(3):
            ctx.signal_entity(EntityId(Plain, f"plain-{name}"), Plain.bad, name)


@app.entity(stripes=2)
class Striped:
    name: str = ""

    @perdure.commutative
    def note(self, name: str) -> None:
        self.name = name

    def merge(self, other: Striped) -> None:
        misbehave(other.name)
        self.name = other.name

    def read(self) -> str:
        return self.name


@app.entity
def function_entity(ctx: EntityContext) -> None:
    ctx.set_state({"n": 1})
    result = misbehave(ctx.get_input(str))
    ctx.set_result(result)
    ctx.set_state({"n": result})


@app.entity
class Innocent:
    n: int = 0

    def add(self) -> int:
        self.n += 1
        return self.n

    async def add_slowly(self) -> int:
        await anyio.sleep(0.001)
        self.n += 1
        return self.n

    def variable(self) -> str:
        return VARIABLE.get()


_armed = False  # while entities are registered, which makes one of each


def _entity_with(name: str) -> None:
    """Register entities whose making, property or merge misbehaves in that way."""

    def make() -> Any:
        return misbehave(name) if _armed else 0

    @app.entity(name=f"made-{name}".replace(" ", "-"))
    class Made:
        n: Any = field(factory=make)

        def touch(self) -> None: ...

    @app.entity(name=f"shown-{name}".replace(" ", "-"))
    class Shown:
        n: int = 0

        @property
        def shown(self) -> Any:
            return misbehave(name)

        def touch(self) -> Any:
            self.n += 1
            return self.shown

        def __eq__(self, other: object) -> bool:
            misbehave(name)
            return True

        __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


for _name in SYNC:
    _entity_with(_name)
_armed = True


@app.orchestration
async def caller(ctx: OrchestrationContext, call: tuple[str, str]) -> str:
    """Call an activity; say how it ended."""
    try:
        await ctx.call_activity(call[0], call[1])
    except Exception as error:
        return type(error).__name__
    return "done"


@app.orchestration
async def before_await(ctx: OrchestrationContext, name: str) -> Any:
    return await misbehave_async(name)


@app.orchestration
async def after_await(ctx: OrchestrationContext, name: str) -> Any:
    await ctx.create_timer(0)
    result = await misbehave_async(name)
    await ctx.create_timer(0)
    return result


@app.orchestration
def generator(ctx: OrchestrationContext, name: str) -> Generator[Any, Any, Any]:
    yield ctx.create_timer(0)
    result = misbehave(name)
    yield ctx.create_timer(0)
    return result


@app.orchestration
async def predicate(ctx: OrchestrationContext, name: str) -> None:
    policy = RetryPolicy(
        first_interval=0.0, max_attempts=2, retry_on=lambda failure: misbehave(name)
    )
    await ctx.call_activity(fails, retry=policy)


@app.orchestration
async def status(ctx: OrchestrationContext, name: str) -> None:
    ctx.set_custom_status(misbehave(name))


@app.orchestration
async def innocent(ctx: OrchestrationContext) -> str:
    event: str = await ctx.wait_for_external_event("end")
    return f"{event} {await ctx.call_activity(innocent_activity)} {VARIABLE.get()}"


@app.activity
async def innocent_activity() -> str:
    await anyio.sleep(0.001)
    return VARIABLE.get()


def _upgraded(name: str, version: int) -> type[Any]:
    if version == 1:

        class Old:
            n: int = 0

            def add(self) -> int:
                self.n += 1
                return self.n

        return Old

    class New:
        schema_version: ClassVar[int] = 2
        n: int = 0

        @classmethod
        def upgrade(cls, stored: dict[str, Any], version: int) -> Any:
            return misbehave(name)

        def add(self) -> int:
            self.n += 1
            return self.n

    return New


def releases() -> tuple[App, App]:
    """Make two releases of an application; the second's upgrades misbehave."""
    apps = App("release"), App("release")
    for version, release in enumerate(apps, 1):
        release.include(App())
        for name in SYNC:
            release.entity(name=f"up-{name}".replace(" ", "-"))(_upgraded(name, version))
        release.entity(Innocent)
    return apps
