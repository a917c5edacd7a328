"""``is_replaying`` is for what the history does not see: printing, and logging."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.values import External
from ..source.visit import Visit
from .rule import Found, Rule, shown

_FIX = "do the same in a replay; to log, use `ctx.logger`, which is silent then"


_IS_REPLAYING = External("perdure.OrchestrationContext.is_replaying")


class Replaying(Rule):
    """A decision that goes by whether the code is replayed."""

    code = "PDU021"
    title = "is_replaying decides what is done"

    def check(self, visit: Visit) -> Iterator[Found]:
        for node in visit.of(ast.Attribute):
            if (
                node.attr == "is_replaying"
                and _IS_REPLAYING in visit.values(node)
                and any(_decides(visit, one) for one in _readers(visit, node))
            ):
                yield Found(node, f"{shown(node)} decides what is done", _FIX)


def _readers(visit: Visit, node: ast.expr) -> Iterator[ast.AST]:
    """Give an expression, and what reads the variable that it is kept in."""
    yield node
    parent = visit.parents.get(node)
    if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
        name = parent.targets[0].id
        yield from (one for one in visit.of(ast.Name) if one.id == name)


def _decides(visit: Visit, node: ast.AST) -> bool:
    """Whether what is done depends on an expression."""
    child = node
    for one in visit.around(node):
        match one:
            case ast.If():
                if child is not one.test:
                    return False
                return not all(_only_tells(visit, part) for part in (*one.body, *one.orelse))
            case ast.IfExp() | ast.While():
                return child is one.test
            case ast.Match():
                return child is one.subject
            case ast.Return() | ast.Raise() | ast.comprehension():
                return True
            case ast.Call() if child is not one.func:
                return visit.context_call(one) is not None
            case ast.Expr():
                return isinstance(one.value, ast.BoolOp) and not _only_tells(visit, one)
            case ast.stmt():
                return False
            case _:
                child = one
    return False


def _only_tells(visit: Visit, statement: ast.stmt) -> bool:
    """Whether a statement only prints or logs."""
    if isinstance(statement, ast.Pass):
        return True
    if isinstance(statement, ast.Expr):
        value = statement.value
        if isinstance(value, ast.BoolOp):
            calls = [one for one in value.values if isinstance(one, ast.Call)]
            return bool(calls) and all(_tells(visit, call) for call in calls)
        return isinstance(value, ast.Constant) or (
            isinstance(value, ast.Call) and _tells(visit, value)
        )
    return False


_TELLING = frozenset(
    [
        "critical",
        "debug",
        "error",
        "exception",
        "info",
        "log",
        "print",
        "set_attribute",
        "warn",
        "warning",
        "add_event",
        "increment",
        "inc",
        "observe",
        "record",
    ]
)


def _tells(visit: Visit, call: ast.Call) -> bool:
    name = getattr(call.func, "attr", None) or getattr(call.func, "id", "")
    return name in _TELLING and visit.context_call(call) is None
