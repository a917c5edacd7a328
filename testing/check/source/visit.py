"""A function, as it runs in a turn: its nodes in order, and what their expressions are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar, cast

import attrs

from .project import Module
from .resolver import Resolver
from .roles import Role, RoleKind, Roles
from .scopes import Scope
from .values import External, ExternalObject, Function, Values

N = TypeVar("N", bound=ast.AST)

ORCHESTRATION_CONTEXT = ExternalObject("perdure.OrchestrationContext")


@attrs.define(eq=False, slots=False)
class Visit:
    """A function, as it runs for an orchestration or an operation.

    Attributes:
        function: the function.
        role: the one that it runs for.
        path: which functions lead to it, the role's own first.
        is_durable: whether what it yields is for the hub.
        is_locked: whether entities are locked when it is called.
        nodes: its expressions and statements in the order of the source, without those of
            functions and classes in it.
        parents: what each of these stands in.
    """

    function: Function
    role: Role
    resolver: Resolver
    roles: Roles
    path: tuple[str, ...] = ()
    is_durable: bool = False
    is_locked: bool = False
    nodes: list[ast.AST] = attrs.field(factory=list[ast.AST])
    parents: dict[ast.AST, ast.AST] = attrs.field(factory=dict[ast.AST, ast.AST])
    _by_type: dict[type, list[ast.AST]] = attrs.field(factory=dict[type, list[ast.AST]])

    def __attrs_post_init__(self) -> None:
        node = self.function.node
        body: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
        for part in body:
            self.parents[part] = node
        ahead = body[::-1]
        while ahead:
            one = ahead.pop()
            self.nodes.append(one)
            self._by_type.setdefault(type(one), []).append(one)
            inner = [child for child in _children(one) if child is not None]
            for child in inner:
                self.parents[child] = one
            ahead += inner[::-1]

    @cached_property
    def loads(self) -> list[ast.Name | ast.Attribute]:
        """Its names and attributes, where they are read."""
        names = [node for node in self.of(ast.Name) if isinstance(node.ctx, ast.Load)]
        return [
            *names,
            *(node for node in self.of(ast.Attribute) if isinstance(node.ctx, ast.Load)),
        ]

    @cached_property
    def withs(self) -> list[ast.With | ast.AsyncWith]:
        """Its ``with`` blocks."""
        return [*self.of(ast.With), *self.of(ast.AsyncWith)]

    @cached_property
    def loops(self) -> list[ast.For | ast.AsyncFor]:
        """Its ``for`` loops."""
        return [*self.of(ast.For), *self.of(ast.AsyncFor)]

    @cached_property
    def tries(self) -> list[ast.Try | ast.TryStar]:
        """Its ``try`` blocks."""
        return [*self.of(ast.Try), *self.of(ast.TryStar)]

    @property
    def kind(self) -> RoleKind:
        """Whether it runs in an orchestration or in an entity."""
        return self.role.kind

    @cached_property
    def has_locks(self) -> bool:
        """Whether it locks entities."""
        return any(self.context_call(call) == "lock_entities" for call in self.of(ast.Call))

    @property
    def module(self) -> Module:
        """The file that it is in."""
        return self.function.module

    @property
    def where(self) -> str:
        """Say which function this is, for a message."""
        if not self.path:
            return f"in {self.role.title}"
        return f"in `{self.path[-1]}`, called by {self.role.title}"

    def of(self, kind: type[N]) -> list[N]:
        """Give its nodes of a kind."""
        return cast("list[N]", self._by_type.get(kind, []))

    def scope(self, node: ast.AST) -> Scope:
        """Give the scope that a node's names are looked for in."""
        scopes = self.module.scopes.of
        one: ast.AST | None = node
        while one is not None:
            if one in scopes:
                return scopes[one]
            one = self.parents.get(one)
        return scopes[self.function.node]

    def values(self, node: ast.expr) -> Values:
        """Give what one of its expressions may be."""
        return self.resolver.values(node, self.module, self.scope(node))

    def called(self, call: ast.Call) -> Iterator[str]:
        """Name what is called, where it is no part of the project."""
        for value in self.values(call.func):
            if isinstance(value, External):
                yield value.name

    def context_call(self, node: ast.AST) -> str | None:
        """Give the name of the context's method that is called: ``call_activity``."""
        if isinstance(node, ast.Call):
            for name in self.called(node):
                if name.startswith("perdure.OrchestrationContext."):
                    return name.rpartition(".")[2]
        return None

    def is_awaited(self, node: ast.AST) -> bool:
        """Whether what an expression gives is awaited, or entered by ``async with``, at once."""
        parent = self.parents.get(node)
        if isinstance(parent, ast.withitem):
            return isinstance(self.parents.get(parent), ast.AsyncWith)
        return isinstance(parent, (ast.Await, ast.AsyncFor, ast.YieldFrom))

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Give what a node stands in, from within."""
        one = self.parents.get(node)
        while one is not None:
            yield one
            one = self.parents.get(one)


def _children(node: ast.AST) -> list[ast.AST | None]:
    """Give what is run as a part of a node, in the order of the source."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
        case ast.ClassDef():
            return [*node.decorator_list, *node.bases, *node.body]
        case ast.Lambda():
            return [*node.args.defaults, *node.args.kw_defaults, node.body]
        case ast.AnnAssign():
            return [node.target, node.value]
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return [*node.orelse]
        case _:
            return [
                child
                for child in ast.iter_child_nodes(node)
                if not isinstance(child, (ast.expr_context, ast.operator, ast.cmpop))
            ]


def is_generator(function: Function) -> bool:
    """Whether a function has a ``yield`` of its own."""
    node = function.node
    ahead: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
    while ahead:
        one = ahead.pop()
        if isinstance(one, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            ahead += ast.iter_child_nodes(one)
    return False


def locked_by(visit: Visit, item: ast.withitem) -> ast.Call | None:
    """Give the call of ``lock_entities`` that an item of a ``with`` enters."""
    entered = item.context_expr
    if isinstance(entered, (ast.Yield, ast.Await)) and entered.value is not None:
        entered = entered.value
    if isinstance(entered, ast.Call) and visit.context_call(entered) == "lock_entities":
        return entered
    return None


def locks_around(visit: Visit, node: ast.AST) -> ast.Call | None:
    """Give the call of ``lock_entities`` whose block a node is in."""
    child = node
    for one in visit.around(node):
        if isinstance(one, (ast.With, ast.AsyncWith)) and child in one.body:
            for item in one.items:
                call = locked_by(visit, item)
                if call is not None:
                    return call
        child = one
    return None
