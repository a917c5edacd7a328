"""The fields of classes whose defaults are made by a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .resolver import Resolver
from .values import Class, External

_FIELDS = frozenset(
    {"dataclasses.field", "attrs.field", "attr.ib", "attr.field", "attrs.Factory", "attr.Factory"}
    | {"pydantic.Field"}
)


def factories(resolver: Resolver, cls: Class) -> Iterator[tuple[ast.expr, Class]]:
    """Give the expressions for what makes the defaults of a class's fields."""
    for one in resolver.classes.family(cls)[0]:
        scope = one.module.scopes.of[one.node]
        for statement in one.node.body:
            if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
                continue
            made = statement.value
            if not isinstance(made, ast.Call):
                continue
            names = {
                value.name
                for value in resolver.values(made.func, one.module, scope)
                if isinstance(value, External)
            }
            if not names & _FIELDS:
                continue
            for keyword in made.keywords:
                if keyword.arg in ("default_factory", "factory"):
                    yield keyword.value, one
            if made.args and any(name.endswith("Factory") for name in names):
                yield made.args[0], one
