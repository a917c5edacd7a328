"""What a hub calls, and an orchestration must not call itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..source.values import Class, Function
from ..source.visit import Visit
from .rule import BOTH, Found, Rule, shown


class DirectCalls(Rule):
    """A registered function that is called as a plain one: it runs again at every replay."""

    code = "PDU013"
    title = "A registered function is called directly"
    kinds = BOTH

    def check(self, visit: Visit) -> Iterator[Found]:
        for call in visit.of(ast.Call):
            for value in visit.values(call.func):
                yield from self._check(visit, call, value)
            for name in visit.called(call):
                if name.endswith("TaskGroup.start_soon") or name == "functools.partial":
                    for value in visit.values(call.args[0]) if call.args else ():
                        if not self._is_passed_on(visit, call):
                            yield from self._check(visit, call.args[0], value)
                elif name == "builtins.map" and call.args:
                    for value in visit.values(call.args[0]):
                        yield from self._check(visit, call.args[0], value)

    def _is_passed_on(self, visit: Visit, call: ast.Call) -> bool:
        """Whether a partial goes on to the context."""
        parent = visit.parents.get(call)
        return parent is not None and visit.context_call(parent) is not None

    def _check(self, visit: Visit, node: ast.AST, value: object) -> Iterator[Found]:
        if not isinstance(value, Function):
            return
        role = visit.roles.of(value)
        if role is None or not role.is_registered or value.node is visit.function.node:
            return
        where = shown(node)
        if visit.kind == "entity":
            if role.kind != "activity":
                return
            fix = "have an orchestration call it, which `ctx.start_new` starts"
        elif role.kind == "activity":
            fix = f"use `ctx.call_activity({value.name}, ...)`"
        elif role.kind == "orchestration":
            fix = f"use `ctx.call_sub_orchestrator({value.name}, ...)`"
        elif value.owner is None:
            fix = f"use `ctx.call_entity(EntityId({value.name}, key), operation, ...)`"
        elif visit.roles.is_entity(Class(value.owner.node, value.owner.module)):
            owner = value.owner.node.name
            fix = f"use `ctx.call_entity(EntityId({owner}, key), {owner}.{value.name}, ...)`"
        else:
            return  # a base class may serve others, too
        yield Found(node, f"{where} calls {_article(role.kind)} directly", fix)


def _article(kind: str) -> str:
    return {
        "activity": "an activity",
        "orchestration": "another orchestration",
        "entity": "an entity's operation",
    }[kind]
