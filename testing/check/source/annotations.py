"""Annotations: the objects that they speak of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .known import CONTEXTS
from .project import Module
from .scopes import Scope
from .values import Class, Expression, External, ExternalObject, Object, Value, Values

if TYPE_CHECKING:
    from .resolver import Resolver


class Annotations:
    """Reads annotations.

    Args:
        resolver: finds out what their names mean.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._texts: dict[ast.Constant, ast.expr | None] = {}

    def objects(self, typed: Expression) -> Values:
        """Give the objects that an annotation speaks of."""
        node, module, scope = typed.node, typed.module, typed.scope
        key = (node, "annotation")
        if self._resolver.is_under_way(key):
            return ()
        self._resolver.under_way.add(key)
        try:
            return tuple(dict.fromkeys(self._annotated(node, module, scope)))
        finally:
            self._resolver.under_way.discard(key)

    def _annotated(self, node: ast.expr, module: Module, scope: Scope) -> Iterator[Value]:
        match node:
            case ast.Constant(value=str()):
                inner = self._text(node)
                if inner is not None:
                    yield from self._annotated(inner, module, scope)
            case ast.BinOp(op=ast.BitOr()):
                yield from self._annotated(node.left, module, scope)
                yield from self._annotated(node.right, module, scope)
            case ast.Subscript():
                yield from self._annotated_generic(node, module, scope)
            case ast.Name() | ast.Attribute():
                for value in self._resolver.values(node, module, scope):
                    yield from self._object_of(value, module, scope)
            case _:
                pass

    def _object_of(self, value: Value, module: Module, scope: Scope) -> Iterator[Value]:
        match value:
            case Class():
                yield Object(value)
            case External(name="typing.Self"):
                cls = class_around(scope)
                if cls is not None:
                    yield Object(Class(cls, module))
            case External(name="typing.Any" | "builtins.object"):
                pass
            case External():
                yield ExternalObject(_plain(value.name))
            case _:
                pass

    def _annotated_generic(
        self, node: ast.Subscript, module: Module, scope: Scope
    ) -> Iterator[Value]:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for value in self._resolver.values(node.value, module, scope):
            match value:
                case External(name="typing.Optional" | "typing.Union"):
                    for part in parts:
                        yield from self._annotated(part, module, scope)
                case External(
                    name="typing.Annotated"
                    | "typing.Final"
                    | "typing.ClassVar"
                    | "typing.Required"
                    | "typing.NotRequired"
                ):
                    yield from self._annotated(parts[0], module, scope)
                case External(name="typing.Literal" | "typing.Callable"):
                    pass
                case External(name="builtins.type" | "typing.Type"):
                    for part in parts:
                        yield from self._resolver.values(part, module, scope)
                case External():
                    arguments = tuple(Expression(part, module, scope) for part in parts)
                    yield ExternalObject(_plain(value.name), arguments)
                case Class():
                    yield Object(value)
                case _:
                    pass

    def _text(self, node: ast.Constant) -> ast.expr | None:
        if node not in self._texts:
            try:
                inner = ast.parse(str(node.value).strip(), mode="eval").body
            except (SyntaxError, ValueError):
                self._texts[node] = None
            else:
                self._texts[node] = inner
        return self._texts[node]


def _plain(name: str) -> str:
    """Give the built-in class that a name of ``typing`` or ``collections.abc`` stands for."""
    return CONTEXTS.get(name, name)


def class_around(scope: Scope) -> ast.ClassDef | None:
    """Give the class whose body, or a function in that, a scope is."""
    inner: Scope | None = scope
    while inner is not None:
        if isinstance(inner.node, ast.ClassDef):
            return inner.node
        inner = inner.parent
    return None
