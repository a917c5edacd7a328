"""Classes of the project: what they derive from, and what their attributes are."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from .functions import is_property
from .scopes import parameters_of
from .values import Class, External, Function, Value, Values

if TYPE_CHECKING:
    from .resolver import Resolver


class Classes:
    """Looks attributes up, through all that a class derives from.

    Args:
        resolver: finds out what their expressions give.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._attributes: dict[ast.ClassDef, dict[str, list[tuple[ast.expr, ast.AST]]]] = {}

    def bases(self, cls: Class) -> list[Class | External]:
        """Give what a class derives from directly."""
        around = cls.module.scopes.around[cls.node]
        return [
            value
            for base in cls.node.bases
            for value in self._resolver.values(base, cls.module, around)
            if isinstance(value, (Class, External))
        ]

    def family(self, cls: Class) -> tuple[list[Class], list[External]]:
        """Give a class and all that it derives from: in the project, and outside of it."""
        own: dict[Class, None] = {}
        outside: dict[External, None] = {}
        ahead: list[Class | External] = [cls]
        while ahead:
            one = ahead.pop(0)
            if isinstance(one, External):
                outside[one] = None
            elif one not in own:
                own[one] = None
                ahead += self.bases(one)
        return list(own), list(outside)

    def member(self, cls: Class, name: str) -> Values:
        own, outside = self.family(cls)
        for one in own:
            scope = one.module.scopes.of[one.node]
            bindings = scope.bindings.get(name)
            if bindings is not None:
                return self._resolver.bound(bindings, one.module, scope)
        return tuple(External(f"{base.name}.{name}") for base in outside)

    def member_of_object(self, cls: Class, name: str) -> Values:
        found: dict[Value, None] = {}
        own, outside = self.family(cls)
        for one in own:
            scope = one.module.scopes.of[one.node]
            bindings = scope.bindings.get(name)
            if bindings is not None:
                for value in self._resolver.bound(bindings, one.module, scope):
                    if isinstance(value, Function) and is_property(value):
                        found.update(dict.fromkeys(self._resolver.result(value)))
                    else:
                        found[value] = None
                if found:
                    return tuple(found)
            for expression, function in self.set_by(one).get(name, ()):
                inner = one.module.scopes.of[function]
                found.update(dict.fromkeys(self._resolver.values(expression, one.module, inner)))
            if found or bindings is not None:
                return tuple(found)
        if name.startswith("__"):
            return ()
        return tuple(
            value
            for base in outside
            for value in self._resolver.known_result(f"{base.name}.{name}", is_called=False)
        )

    def set_by(self, cls: Class) -> dict[str, list[tuple[ast.expr, ast.AST]]]:
        """Give what a class's methods assign to attributes of their object."""
        found = self._attributes.get(cls.node)
        if found is not None:
            return found
        found = self._attributes[cls.node] = {}
        for method in cls.node.body:
            if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            parameters = parameters_of(method)
            if not parameters:
                continue
            itself = parameters[0].arg
            for node in ast.walk(method):
                value: ast.expr | None = None
                targets: list[ast.expr] = []
                if isinstance(node, ast.Assign):
                    value, targets = node.value, node.targets
                elif isinstance(node, ast.AnnAssign):
                    value, targets = node.value, [node.target]
                for target in targets:
                    match target:
                        case ast.Attribute(value=ast.Name(id=name)) if name == itself:
                            if value is not None:
                                found.setdefault(target.attr, []).append((value, method))
                        case _:
                            pass
        return found
