"""Handlers that keep a cancellation from going on, and such as no replay meets again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from ..source.values import External
from ..source.visit import Visit
from .printing import tells
from .rule import Found, Rule, shown

_EVERYTHING = frozenset({"builtins.BaseException", "builtins.BaseExceptionGroup"})
_CANCELLED = frozenset({"perdure.Cancelled"})
_ELSEWHERE = "do it where the hub is started, and let clean-up be a durable call"
_LOOPS = frozenset({"asyncio.CancelledError", "trio.Cancelled", "anyio.get_cancelled_exc_class"})


class Cancellation(Rule):
    """``except`` that swallows ``Cancelled``, which derives from ``BaseException``."""

    code = "PDU016"
    title = "A cancellation is swallowed"

    def check(self, visit: Visit) -> Iterator[Found]:
        for block in visit.tries:
            if _waits(visit, block.body):
                yield from self._check_handlers(visit, block.handlers)
            yield from self._check_end(block.finalbody)
        for entered in visit.withs:
            if _waits(visit, entered.body):
                yield from self._check_suppressed(visit, entered.items)

    def _check_handlers(self, visit: Visit, handlers: list[ast.ExceptHandler]) -> Iterator[Found]:
        for handler in handlers:
            names = _names(visit, handler.type)
            if names & _CANCELLED and not _is_idle(handler.body):
                return  # it is meant, and those that follow do not get it
            if names & _LOOPS:
                assert handler.type is not None
                what = f"{shown(handler.type)} is caught, which is never thrown"
                yield Found(handler, what, "catch `perdure.Cancelled`")
            elif (handler.type is None or names & (_EVERYTHING | _CANCELLED)) and not _raises(
                handler.body
            ):
                what = "`except:`" if handler.type is None else f"`except {_text(handler.type)}`"
                fix = "end the handler with `raise`, or catch `Exception`"
                yield Found(handler, f"{what} swallows `Cancelled`", fix)

    def _check_end(self, body: list[ast.stmt]) -> Iterator[Found]:
        for node in _inside(body, into_loops=True):
            if isinstance(node, ast.Return):
                fix = "return behind the block"
                yield Found(node, "`return` in `finally` swallows `Cancelled`", fix)
        for node in _inside(body, into_loops=False):
            if isinstance(node, (ast.Break, ast.Continue)):
                word = "break" if isinstance(node, ast.Break) else "continue"
                yield Found(
                    node, f"`{word}` in `finally` swallows `Cancelled`", "do it behind the block"
                )

    def _check_suppressed(self, visit: Visit, items: list[ast.withitem]) -> Iterator[Found]:
        for item in items:
            call = item.context_expr
            if isinstance(call, ast.Call) and "contextlib.suppress" in visit.called(call):
                for argument in call.args:
                    if _names(visit, argument) & (_EVERYTHING | _CANCELLED):
                        what = f"`suppress({_text(argument)})` swallows `Cancelled`"
                        yield Found(call, what, "suppress `Exception`, or less")


class Handlers(Rule):
    """Handlers that run when no history says so: at eviction, at a signal, at exit."""

    code = "PDU017"
    title = "A handler runs that no replay meets again"
    _REGISTERED: ClassVar = {
        "atexit.register": "runs its function when the process ends",
        "weakref.finalize": "runs its function when an object leaves memory",
        "signal.signal": "runs its function when a signal comes",
        "asyncio.AbstractEventLoop.add_signal_handler": "runs its function when a signal comes",
        "asyncio.AbstractEventLoop.call_later": "runs its function outside of the history",
        "asyncio.AbstractEventLoop.call_soon": "runs its function outside of the history",
        "asyncio.AbstractEventLoop.call_at": "runs its function outside of the history",
        "sys.settrace": "runs its function outside of the history",
        "sys.addaudithook": "runs its function outside of the history",
    }

    def check(self, visit: Visit) -> Iterator[Found]:
        for handler in visit.of(ast.ExceptHandler):
            if "builtins.GeneratorExit" in _names(visit, handler.type):
                fix = "catch `perdure.Cancelled`, and let clean-up be a durable call"
                what = "`except GeneratorExit` runs whenever the instance leaves memory"
                yield Found(handler, what, fix)
        for call in visit.of(ast.Call):
            for name in visit.called(call):
                verb = self._REGISTERED.get(name)
                if verb is not None:
                    yield Found(call, f"{shown(call)} {verb}", _ELSEWHERE)
        for block in visit.tries:
            if _waits(visit, block.body):
                yield from self._check_end(visit, block.finalbody)

    def _check_end(self, visit: Visit, body: list[ast.stmt]) -> Iterator[Found]:
        """Look for what a ``finally`` does anew whenever the code is dropped."""
        for node in _inside(body, into_loops=True):
            call = node.value if isinstance(node, ast.Expr) else None
            if not isinstance(call, ast.Call):
                continue
            if visit.context_call(call) == "continue_as_new":
                what = f"{shown(call)} stands in a `finally`, which runs at failures too"
                yield Found(call, what, "call it as the last thing in the block, before `return`")
            elif any(map(tells, visit.called(call))):
                what = f"{shown(call)} in a `finally` is done whenever the instance leaves memory"
                yield Found(call, what, "do it behind the block, by `ctx.logger`")


def _names(visit: Visit, node: ast.expr | None) -> set[str]:
    """Name the classes of others that a handler takes."""
    if node is None:
        return set()
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    found = set[str]()
    for part in parts:
        target = part.func if isinstance(part, ast.Call) else part
        found |= {value.name for value in visit.values(target) if isinstance(value, External)}
    return found


def _waits(visit: Visit, body: list[ast.stmt]) -> bool:
    """Whether something durable is waited for in a block."""
    for node in _inside(body, into_loops=True):
        for inner in _expressions(node):
            if isinstance(inner, ast.Await) or (
                visit.is_durable and isinstance(inner, (ast.Yield, ast.YieldFrom))
            ):
                return True
        if isinstance(node, (ast.AsyncWith, ast.AsyncFor)):
            return True
    return False


def _expressions(statement: ast.AST) -> Iterator[ast.AST]:
    """Give the expressions of a statement, without those of functions made in it."""
    ahead = [child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt)]
    while ahead:
        node = ahead.pop()
        yield node
        if not isinstance(node, ast.Lambda):
            ahead += [
                child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)
            ]


def _inside(body: list[ast.stmt], *, into_loops: bool) -> Iterator[ast.stmt]:
    """Give the statements in a block, without those of functions and classes in it."""
    ahead: list[ast.AST] = [*body]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if not into_loops and isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            ahead += node.orelse
            continue
        ahead += [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case))
        ]


def _is_idle(body: list[ast.stmt]) -> bool:
    """Whether a handler does nothing at all."""
    return all(
        isinstance(statement, (ast.Pass, ast.Continue))
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def _raises(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Raise) for node in _inside(body, into_loops=True))


def _text(node: ast.expr) -> str:
    return ast.unparse(node)
