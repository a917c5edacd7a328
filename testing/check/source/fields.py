"""The fields of classes whose defaults are made by a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .project import Module
from .resolver import Resolver
from .scopes import Scope
from .values import Class, External

_FIELDS = frozenset(
    {"dataclasses.field", "attrs.field", "attr.ib", "attr.field", "attrs.Factory", "attr.Factory"}
    | {"pydantic.Field"}
)


class Factory(NamedTuple):
    """What makes the default of a field.

    Attributes:
        field: the name of the field.
        expression: what is called.
        module: where that stands.
        scope: what its names are looked for in.
    """

    field: str
    expression: ast.expr
    module: Module
    scope: Scope


def factories(resolver: Resolver, cls: Class, call: ast.Call) -> Iterator[Factory]:
    """Give what makes the defaults of the fields that a call of their class leaves out."""
    if any(isinstance(argument, ast.Starred) for argument in call.args) or any(
        keyword.arg is None for keyword in call.keywords
    ):
        return  # which may be any of them
    given = {keyword.arg for keyword in call.keywords}
    fields: dict[str, Factory | None] = {}
    own, _ = resolver.classes.family(cls)
    for one in reversed(own):
        scope = one.module.scopes.of[one.node]
        for statement in one.node.body:
            name = _field(statement)
            if name is not None:
                made = _factory(resolver, statement, one.module, scope)
                fields[name] = None if made is None else Factory(name, made, one.module, scope)
    for factory in list(fields.values())[len(call.args) :]:
        if factory is not None and factory.field not in given:
            yield factory


def _field(statement: ast.stmt) -> str | None:
    """Give the name of the field that a statement in a class makes."""
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)):
            return None if "ClassVar" in ast.unparse(statement.annotation) else name
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call()):  # attr.ib()
            return name
        case _:
            return None


def _factory(
    resolver: Resolver, statement: ast.stmt, module: Module, scope: Scope
) -> ast.expr | None:
    made = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
    if not isinstance(made, ast.Call):
        return None
    values = resolver.values(made.func, module, scope)
    names = {value.name for value in values if isinstance(value, External)} & _FIELDS
    if names and made.args and any(name.endswith("Factory") for name in names):
        return made.args[0]
    keywords = {keyword.arg: keyword.value for keyword in made.keywords} if names else {}
    return keywords.get("default_factory", keywords.get("factory"))
