"""Orchestrations that are generators: what they yield, and that they do nothing but."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.values import Function
from ..source.visit import Visit, is_generator
from .rule import Found, Rule, shown

_NO_TASKS = (
    ast.BinOp,
    ast.Compare,
    ast.Constant,
    ast.Dict,
    ast.DictComp,
    ast.GeneratorExp,
    ast.JoinedStr,
    ast.Lambda,
    ast.Set,
    ast.SetComp,
    ast.UnaryOp,
)
_MANY = (ast.List, ast.ListComp, ast.Tuple)


class Yields(Rule):
    """A generator that yields something else than a task of its context."""

    code = "PDU022"
    title = "What is yielded is no task"

    def check(self, visit: Visit) -> Iterator[Found]:
        if not visit.is_durable or isinstance(visit.function.node, ast.AsyncFunctionDef):
            return
        for node in visit.of(ast.Yield):
            value = node.value
            if value is None:
                yield Found(node, "this `yield` has no task", "yield a task of `ctx`")
            elif isinstance(value, _MANY):
                fix = "yield `ctx.task_all([...])`"
                yield Found(node, f"{shown(value)} is yielded, which is no task", fix)
            elif isinstance(value, _NO_TASKS):
                fix = "yield a task of `ctx`, or `return` the value"
                yield Found(node, f"{shown(value)} is yielded, which is no task", fix)
            elif isinstance(value, ast.Call):
                yield from self._check_call(visit, node, value)

    def _check_call(self, visit: Visit, node: ast.Yield, call: ast.Call) -> Iterator[Found]:
        for value in visit.values(call.func):
            if isinstance(value, Function):
                role = visit.roles.of(value)
                is_own = role is None or not role.is_registered
                if is_own and not value.is_async and is_generator(value):
                    what = f"{shown(call)} is a generator, and is yielded whole"
                    yield Found(node, what, "write `yield from`")
                    return
        name = visit.context_call(call)
        if name in ("signal_entity", "send_event", "set_custom_status", "continue_as_new"):
            yield Found(
                node, f"{shown(call)} gives no task, and is yielded", "call it without `yield`"
            )


class Mixed(Rule):
    """``await`` and ``yield`` in one orchestration, which makes it neither form."""

    code = "PDU023"
    title = "await and yield are mixed"

    def check(self, visit: Visit) -> Iterator[Found]:
        is_async = isinstance(visit.function.node, ast.AsyncFunctionDef)
        if visit.path or not visit.role.is_registered:
            return
        if is_async:
            for node in visit.of(ast.Yield)[:1]:
                what = "`yield` makes this `async def` an async generator"
                yield Found(node, what, "use `await` alone, or `def` with `yield` alone")
        else:
            for awaited in visit.of(ast.Await)[:1]:
                what = "`await` stands in a `def`"
                yield Found(awaited, what, "use `async def` with `await` alone, or `yield` alone")
