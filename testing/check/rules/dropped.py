"""Tasks that nobody awaits, and coroutines that never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from ..source.values import Function
from ..source.visit import Visit
from .rule import Found, Rule, shown


class Dropped(Rule):
    """A task whose result and failure nobody sees."""

    code = "PDU020"
    title = "A task is made and never awaited"
    _FAILS: ClassVar = frozenset({"call_activity", "call_sub_orchestrator", "call_entity"})
    _WAITS: ClassVar = frozenset(
        {"create_timer", "task_all", "task_any", "wait_for_external_event", "lock_entities"}
    )

    def check(self, visit: Visit) -> Iterator[Found]:
        for statement in visit.of(ast.Expr):
            if isinstance(statement.value, ast.Call):
                yield from self._check(visit, statement.value)
        for call in visit.of(ast.Call):
            name = visit.context_call(call)
            if name in self._FAILS | self._WAITS and self._is_taken_for_result(visit, call):
                what = f"{shown(call)} is used as if it were its result"
                yield Found(call, what, f"{_waits(visit)} it first")
        for assignment in visit.of(ast.Assign):
            yield from self._check_assigned(visit, assignment)

    def _check(self, visit: Visit, call: ast.Call) -> Iterator[Found]:
        name, wait = visit.context_call(call), _waits(visit)
        if name in self._FAILS:
            fix = f"{wait} it, or write `_ = ...` if nobody needs to know"
            yield Found(call, f"what {shown(call)} gives is dropped, with its failure", fix)
        elif name in self._WAITS:
            what = f"{shown(call)} is not {wait}ed, so it waits for nothing"
            yield Found(call, what, f"{wait} it")
        for value in visit.values(call.func):
            if isinstance(value, Function) and value.is_async:
                role = visit.roles.of(value)
                if role is None or not role.is_registered:
                    yield Found(call, f"{shown(call)} is not awaited, so it never runs", "await it")
                    return

    def _is_taken_for_result(self, visit: Visit, call: ast.Call) -> bool:
        match visit.parents.get(call):
            case ast.If(test=node) | ast.While(test=node) | ast.IfExp(test=node):
                return node is call
            case ast.For(iter=node) | ast.comprehension(iter=node) | ast.Subscript(value=node):
                return node is call
            case ast.UnaryOp(op=ast.Not()) | ast.BinOp() | ast.FormattedValue():
                return True
            case ast.Compare(ops=ops):
                return not any(
                    isinstance(one, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for one in ops
                )
            case _:
                return False

    def _check_assigned(self, visit: Visit, assignment: ast.Assign) -> Iterator[Found]:
        """Look at a task that is given a name which nothing uses."""
        call = assignment.value
        if len(assignment.targets) != 1 or not isinstance(assignment.targets[0], ast.Name):
            return
        name = assignment.targets[0].id
        if visit.context_call(call) not in self._FAILS | self._WAITS or name.startswith("_"):
            return
        scope = visit.scope(assignment)
        if name in scope.outward or any(
            isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
            for node in ast.walk(visit.function.node)
        ):
            return
        wait = _waits(visit)
        what = f"the task `{name}` is never {wait}ed"
        yield Found(assignment, what, f"{wait} it, or call it `_{name}` if nobody needs to know")


def _waits(visit: Visit) -> str:
    """Say how the function waits for a task."""
    return "yield" if visit.is_durable else "await"
