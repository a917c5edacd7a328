"""Awaiting what is not durable: what belongs to an event loop, or to somebody else's library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from ..source.values import External, ExternalObject
from ..source.visit import ORCHESTRATION_CONTEXT, Visit
from .files import Files, Network, Processes
from .outside import Outside, OutsideRule, table
from .rule import ORCHESTRATIONS, Found, shown
from .waiting import Blocking, Sleeping, Threads

_VERB = "belongs to the event loop, not to the history"
_ANYTHING = "await only what `ctx` gives, and do other work in an activity"


def _loop(fix: str) -> Outside:
    return Outside(_VERB, fix, is_whole=True)


_GROUP = _loop("use `ctx.create_task_group()`")
_START = _loop("use `ctx.create_task_group()` and its `start_soon()`")
_ALL = _loop("use `ctx.task_all(tasks)`")
_ANY = _loop("use `ctx.task_any(tasks)` or `ctx.task_all(tasks)`")
_WITHIN = _loop("use `with ctx.fail_after(seconds):`")
_MOVE_ON = _loop("use `with ctx.move_on_after(seconds):`")
_EVENT = _loop("use `ctx.wait_for_external_event(name)`")
_LOCK = _loop(
    "nothing else runs between two awaits, so leave it out; lock entities by `ctx.lock_entities`"
)
_SHIELD = _loop("use `with ctx.shield():`")
_REST = _loop(_ANYTHING)
_PLAIN = frozenset(
    {
        "CancelledError",
        "InvalidStateError",
        "QueueEmpty",
        "QueueFull",
        "TimeoutError",
        "BrokenResourceError",
        "ClosedResourceError",
        "EndOfStream",
        "WouldBlock",
        "Cancelled",
        "iscoroutine",
        "iscoroutinefunction",
        "isfuture",
    }
)

#: Await what they are given, and nothing of an event loop's.
_NEUTRAL = frozenset(
    {"builtins", "contextlib", "functools", "inspect", "typing", "types", "perdure", "itertools"}
    | {"collections", "operator", "dataclasses", "attrs", "copy"}
)
_OTHERS = (Files(), Network(), Processes(), Threads(), Sleeping(), Blocking())


class Undurable(OutsideRule):
    """Tasks, groups, timeouts, events and locks of an event loop."""

    code = "PDU014"
    title = "What is awaited is not durable"
    kinds = ORCHESTRATIONS
    names: ClassVar = {
        "asyncio.gather": _ALL,
        **table("wait as_completed", _ANY, "asyncio."),
        **table("create_task ensure_future run_coroutine_threadsafe Task", _START, "asyncio."),
        "asyncio.TaskGroup": _GROUP,
        **table("wait_for timeout timeout_at Timeout", _WITHIN, "asyncio."),
        "asyncio.shield": _SHIELD,
        **table("Event Condition Queue PriorityQueue LifoQueue Future", _EVENT, "asyncio."),
        **table("Lock Semaphore BoundedSemaphore Barrier", _LOCK, "asyncio."),
        "asyncio": _REST,
        "anyio.create_task_group": _GROUP,
        **table("fail_after", _WITHIN, "anyio."),
        **table("move_on_after CancelScope", _MOVE_ON, "anyio."),
        **table("Event Condition create_memory_object_stream", _EVENT, "anyio."),
        **table("Lock Semaphore CapacityLimiter", _LOCK, "anyio."),
        "anyio": _REST,
        "trio.open_nursery": _GROUP,
        **table("fail_after fail_at", _WITHIN, "trio."),
        **table("move_on_after move_on_at CancelScope", _MOVE_ON, "trio."),
        **table("Event Condition open_memory_channel", _EVENT, "trio."),
        **table("Lock Semaphore StrictFIFOLock CapacityLimiter", _LOCK, "trio."),
        "trio": _REST,
        **table("gather", _ALL, "aiotools."),
        **table("timeout", _WITHIN, "async_timeout."),
        "perdure.Hub": _loop(
            "use `ctx.call_sub_orchestrator`, `ctx.call_entity` or `ctx.send_event`"
        ),
        "perdure.connect": _loop(
            "use `ctx.call_sub_orchestrator`, `ctx.call_entity` or `ctx.send_event`"
        ),
        "perdure.Client": _loop(
            "use `ctx.call_sub_orchestrator`, `ctx.call_entity` or `ctx.send_event`"
        ),
    }

    def find(self, name: str) -> Outside | None:
        if name.rpartition(".")[2] in _PLAIN:
            return None
        if any(rule.find(name) is not None for rule in _OTHERS):
            return None  # which says it better
        return super().find(name)

    def check(self, visit: Visit) -> Iterator[Found]:
        yield from super().check(visit)
        for node in visit.of(ast.Await):
            yield from self._check_awaited(visit, node.value)
        for loop in visit.of(ast.AsyncFor):
            yield from self._check_awaited(visit, loop.iter)
        for block in visit.of(ast.AsyncWith):
            for item in block.items:
                yield from self._check_awaited(visit, item.context_expr)

    def _check_awaited(self, visit: Visit, node: ast.expr) -> Iterator[Found]:
        """Look at something that a library gives, whatever it is."""
        values = visit.values(node.func) if isinstance(node, ast.Call) else visit.values(node)
        if isinstance(node, ast.Call) and any(
            ORCHESTRATION_CONTEXT in visit.values(argument) for argument in node.args
        ):
            return  # made for orchestrations
        for value in values:
            if not isinstance(value, (External, ExternalObject)):
                continue
            if value.name.partition(".")[0] in _NEUTRAL or "." not in value.name:
                continue
            if self.find(value.name) or any(rule.find(value.name) for rule in _OTHERS):
                return
            yield Found(node, f"{shown(node)} is awaited, which is not durable", _ANYTHING)
            return
