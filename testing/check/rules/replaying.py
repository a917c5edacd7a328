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
                and not self._is_harmless(visit, node)
            ):
                yield Found(node, f"{shown(node)} decides what is done", _FIX)

    def _is_harmless(self, visit: Visit, node: ast.AST) -> bool:
        child = node
        for one in visit.around(node):
            if isinstance(one, (ast.If,)):
                if child is not one.test:
                    return True  # shown, or kept, inside of some branch
                return all(_only_tells(visit, part) for part in (*one.body, *one.orelse))
            if isinstance(one, ast.Call) and child is not one.func:
                return _tells(visit, one)
            if isinstance(one, (ast.IfExp, ast.While, ast.Return, ast.Assign, ast.Match)):
                return False
            if isinstance(one, ast.Expr):
                return _only_tells(visit, one)
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
