"""What an orchestration must not use of the world outside: found by its line, named with ours.

Scopes, tasks and waits of an event loop belong to a task of that loop, and a replay would not
meet them again. Here is what words their refusal: where the code stands, what it used, and which
part of its context does the same.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Container, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from ..classes import is_a
from ..errors import NonDurableAwaitError

if TYPE_CHECKING:
    from types import CodeType, FrameType, TracebackType

    from .definitions import OrchestrationDefinition

#: Which orchestration's code runs; each instance has it in a context of its own.
INSIDE: ContextVar[OrchestrationDefinition | None] = ContextVar("perdure_inside", default=None)

# What gives clients work: their classes, and what of a context does the same as a method.
_CLIENTS = {
    "Client": "Client",
    "EntityClient": "Client",
    "ExplanationClient": "Client",
    "HubClient": "Client",
    "InstanceQueries": "Client",
    "OrchestrationClient": "Client",
    "OrchestrationHandle": "OrchestrationHandle",
    "Hub": "Hub",
}
_BY_CONTEXT = {
    "call_entity": "ctx.call_entity(id, op, input)",
    "signal_entity": "ctx.signal_entity(id, op, input)",
    "signal_entities": "ctx.signal_entity(id, op, input)",
    "start_new": "ctx.call_sub_orchestrator(f, input)",
    "wait": "ctx.call_sub_orchestrator(f, input)",
    "result": "ctx.call_sub_orchestrator(f, input)",
    "raise_event": "ctx.send_event(instance_id, name, data)",
}
_BY_ACTIVITY = (
    "ctx.call_entity(), ctx.signal_entity() or ctx.call_sub_orchestrator(), and an activity for "
    "what these do not do,"
)

_LIBRARIES = frozenset({"anyio", "asyncio", "contextlib", "outcome", "sniffio", "trio"})
_LOOPS = _LIBRARIES - {"contextlib", "outcome"}
_LIBRARY = f"{os.path.dirname(os.__file__)}{os.sep}"
_ROOM = __name__.rsplit(".", 2)[0]
_PACKAGE = _ROOM.rpartition(".")[0]
_OURS = (f"{_ROOM}.", f"{_PACKAGE}.runtime.", f"{_PACKAGE}.testing.")

_INSTEAD = (
    (("gather", "_GatheringFuture"), "ctx.task_all(tasks)"),
    (("shield",), "ctx.shield()"),
    (
        ("TaskGroup", "NurseryManager", "create_task_group", "open_nursery", "Nursery"),
        "ctx.create_task_group()",
    ),
    (
        ("create_task", "ensure_future", "start_soon", "run_coroutine_threadsafe"),
        "ctx.create_task_group() and its start_soon()",
    ),
    (("wait_for", "timeout", "timeout_at", "Timeout"), "ctx.fail_after(seconds)"),
    (("fail_after", "fail_at"), "ctx.fail_after(seconds)"),
    (
        ("CancelScope", "move_on_after", "move_on_at"),
        "ctx.move_on_after(seconds) or ctx.fail_after(seconds)",
    ),
    (("Event", "Condition", "Queue", "ParkingLot"), "ctx.wait_for_external_event(name)"),
    (("wait", "as_completed"), "ctx.task_any(tasks) or ctx.task_all(tasks)"),
    (
        ("sleep", "__sleep0", "sleep_until", "sleep_forever", "checkpoint"),
        "ctx.create_timer(timedelta(seconds=...))",
    ),
    (("to_thread", "run_in_executor", "run_sync", "to_thread_run_sync"), "a sync activity"),
    (("current_task",), "ctx.move_on_after(seconds), whose scope can be cancelled"),
)
_ANYTHING = "only tasks made by its context, and an activity for other work"


# The slot of the built-in class: a subclass may have put a property over it that raises.
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__


class CodeLine(NamedTuple):
    """A line of users' code, and the function that it is of.

    Attributes:
        first: the first line of that function.
    """

    file: str
    line: int
    function: str
    first: int


def refuse_use(name: str) -> NonDurableAwaitError:
    """Word the refusal of something that belongs to an event loop's task.

    Args:
        name: what was asked for; the libraries' functions below the user's line say it better.
    """
    caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    frames = list(_calling(caller))
    definition = INSIDE.get()
    title = "an orchestration" if definition is None else definition.title
    used, instead, line = _words(frames, name)
    client = _client_of(caller)
    if client is not None:
        used, instead = client
    for frame in frames:
        if not _is_users(frame):
            _close_unbegun(frame)
    return NonDurableAwaitError(
        f"{title} used {used} at {line}, which belongs to the event loop and not to its history; "
        f"use {instead} instead"
    )


def refuse_await(title: str, coroutine: Any, awaited: object) -> NonDurableAwaitError:
    """Word the refusal of something awaited that is no task of the context."""
    used, instead, line = _words(list(_awaiting(coroutine)), type(awaited).__name__)
    return NonDurableAwaitError(
        f"{title} awaited something that is not durable ({used}) at {line}; await {instead} instead"
    )


def translated(title: str, error: BaseException) -> BaseException:
    """Give the refusal instead, where a library of event loops has raised a plain error.

    It does where one is to be run inside of the hub's, or looks for a thread of its own.
    """
    frames: list[FrameType] = []
    trace = error.__traceback__
    while trace is not None:
        if not _module(trace.tb_frame).startswith(_OURS):
            frames.append(trace.tb_frame)
        trace = trace.tb_next
    if not frames or _module(frames[-1]).partition(".")[0] not in _LOOPS:
        return error
    used, instead, line = _words(frames, type(error).__name__)
    for frame in frames:
        if not _is_users(frame):
            _close_unbegun(frame)
    refusal = NonDurableAwaitError(
        f"{title} used {used} at {line}, which needs an event loop of its own; use {instead} instead"
    )
    refusal.__cause__ = error
    return refusal


def calling_line() -> str:
    """File and line of the innermost caller outside this package."""
    users = [frame for frame in _calling(sys._getframe(1)) if _is_users(frame)]  # pyright: ignore[reportPrivateUsage]
    return _line(users[-1]) if users else "unknown"


def line_of(coroutine: Any) -> str:
    """File and line at which a suspended coroutine or generator stands."""
    return next((_line(frame) for frame in _awaiting(coroutine)), "unknown")


def raising_line(error: BaseException) -> str | None:
    """File and line of the innermost of users' frames that an exception came through, if any."""
    line: str | None = None
    trace: TracebackType | None = _traceback_of(error)
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_users(trace.tb_frame) and not (line and is_pythons(code.co_filename)):
            line = f"{code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def is_pythons(file: str) -> bool:
    """Whether a file of code is of Python's own library."""
    return file.startswith((_LIBRARY, "<frozen ")) and "site-packages" not in file


def lines_of(coroutine: Any) -> list[CodeLine]:
    """Where a suspended coroutine or generator stands: the lines of users' code, outermost first."""
    return [_code_line(frame) for frame in _awaiting(coroutine) if _is_users(frame)]


def running_lines(runners: Container[CodeType]) -> list[CodeLine]:
    """The lines of users' code that runs now, outermost first, up to a function that runs it."""
    lines: list[CodeLine] = []
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code not in runners:
        if _is_users(frame):
            lines.append(_code_line(frame))
        frame = frame.f_back
    return lines[::-1] if frame is not None else []


def _calling(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames from where this package calls the user's code to where that calls, inwards."""
    called: list[FrameType] = []
    while frame is not None:
        if not _module(frame).startswith(_OURS):
            called.append(frame)
        elif called and _is_users(called[-1]):
            break
        frame = frame.f_back
    return reversed(called)


def _awaiting(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of what it awaits, inwards."""
    while coroutine is not None:
        for kind, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                coroutine = getattr(coroutine, inner, None)
                break
        else:
            return


def _words(frames: list[FrameType], name: str) -> tuple[str, str, str]:
    """What of a library was used, what does the same here, and the lines that used it."""
    users = [index for index, frame in enumerate(frames) if _is_users(frame)]
    called = frames[users[-1] + 1 :] if users else frames
    line = _line(frames[users[0]]) if users else "unknown"
    if len(users) > 1:
        line = f"{line} (by way of {_line(frames[users[-1]])})"
    used = name
    for frame in reversed(called):
        library = _module(frame).partition(".")[0]
        if library != "contextlib":
            parts = frame.f_code.co_qualname.split(".")
            used = ".".join([library, *(part for part in parts if not part.startswith("__"))])
    # The function nearest to the user's line says best what was meant.
    for parts in (*(frame.f_code.co_qualname.split(".") for frame in called), [name]):
        for theirs, ours in _INSTEAD:
            if not set(theirs).isdisjoint(parts):
                return used, ours, line
    return used, _ANYTHING, line


def _client_of(frame: FrameType | None) -> tuple[str, str] | None:
    """Which method of a client the user's code called, and what does the same here."""
    inner: FrameType | None = None
    while frame is not None and not _is_users(frame):
        inner, frame = frame, frame.f_back
    if inner is None or not _module(inner).startswith(_OURS):
        return None
    kind, _, method = inner.f_code.co_qualname.partition(".")
    if kind not in _CLIENTS:
        return None
    return f"{_CLIENTS[kind]}.{method}", _BY_CONTEXT.get(method, _BY_ACTIVITY)


def _close_unbegun(frame: FrameType) -> None:
    """Close the coroutines that a library was given: they will not run, and need not complain."""
    for value in frame.f_locals.values():
        for one in value if is_a(value, (tuple, list, set)) else (value,):
            if inspect.iscoroutine(one) and inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
                one.close()


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_users(frame: FrameType) -> bool:
    module = _module(frame)
    return not module.startswith(_OURS) and module.partition(".")[0] not in _LIBRARIES


def _code_line(frame: FrameType) -> CodeLine:
    code = frame.f_code
    first = code.co_firstlineno
    return CodeLine(code.co_filename, frame.f_lineno or first, code.co_qualname, first)


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
