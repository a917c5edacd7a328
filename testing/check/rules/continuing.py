"""``continue_as_new`` ends the execution when the function returns, not at the call."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.visit import Visit
from .rule import Found, Rule

#: What may follow, since it says nothing to the history.
_SILENT = frozenset({"set_custom_status", "get_input"})
_ENDS = (ast.Return, ast.Raise)


class Continuing(Rule):
    """More work behind ``continue_as_new``: it is done in the execution that ends."""

    code = "PDU019"
    title = "continue_as_new is not the last thing that is done"

    def check(self, visit: Visit) -> Iterator[Found]:
        for call in visit.of(ast.Call):
            if visit.context_call(call) != "continue_as_new":
                continue
            later = _durable_after(visit, call)
            if later is not None:
                line = getattr(later, "lineno", 0)
                what = f"`continue_as_new()` is not the last call, line {line} still runs"
                yield Found(call, what, "write `return` right behind it")


def _durable_after(visit: Visit, call: ast.Call) -> ast.AST | None:
    """Give the first durable work that can still be done behind a call."""
    child: ast.AST = call
    jump: ast.stmt | None = None  # a break or continue on the way: up to the loop, nothing follows
    for one in visit.around(call):
        loop = one if isinstance(one, (ast.For, ast.AsyncFor, ast.While)) else None
        for statement in [] if jump is not None else _rest(one, child):
            found = _durable(visit, statement)
            if found is not None:
                return found
            if _ends(statement):
                return None
            if isinstance(statement, (ast.Break, ast.Continue)):
                jump = statement
                break
        if loop is not None and isinstance(child, ast.stmt) and child in loop.body:
            if not isinstance(jump, ast.Break):  # round again
                for statement in loop.body:
                    found = _durable(visit, statement)
                    if found is not None:
                        return found
            jump = None
        if one is visit.function.node or _ends(one):
            return None
        child = one
    return None


def _rest(block: ast.AST, child: ast.AST) -> list[ast.stmt]:
    """Give the statements of a block that follow one of them."""
    for name in ("body", "orelse", "finalbody"):
        body: list[ast.stmt] | ast.expr | None = getattr(block, name, None)
        if isinstance(body, list) and isinstance(child, ast.stmt) and child in body:
            after = body[body.index(child) + 1 :]
            if name == "body" and isinstance(block, (ast.Try, ast.TryStar)):
                after += block.orelse
            return after
    return []


def _ends(statement: ast.AST) -> bool:
    if isinstance(statement, _ENDS):
        return True
    if isinstance(statement, ast.If):
        return (
            bool(statement.orelse)
            and any(map(_ends, statement.body))
            and any(map(_ends, statement.orelse))
        )
    if isinstance(statement, (ast.With, ast.AsyncWith)):
        return any(map(_ends, statement.body))
    return False


def _durable(visit: Visit, statement: ast.stmt) -> ast.AST | None:
    """Give the first durable work in a statement, if there is any."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return None
    for node in ast.walk(statement):
        if isinstance(node, (ast.Await, ast.Yield, ast.YieldFrom)) and node.value is not None:
            return node
        name = visit.context_call(node) if node in visit.parents else None
        if name is not None and name not in _SILENT:
            return node
    return None
