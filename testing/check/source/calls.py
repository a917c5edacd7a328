"""What a hub runs in a turn: from each orchestration and operation on, through all that it calls.

A function is looked at as a ``Visit``, once for each kind of code that it serves. Activities are
not entered, since what they do is recorded.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import TypeVar, cast

import attrs

from .project import Module
from .resolver import Resolver, is_property, returned
from .roles import Role, RoleKind, Roles
from .scopes import Scope, parameters_of
from .values import (
    Class,
    External,
    ExternalObject,
    Function,
    Object,
    Value,
    Values,
)

N = TypeVar("N", bound=ast.AST)

ORCHESTRATION_CONTEXT = ExternalObject("perdure.OrchestrationContext")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCH = External("perdure.TaskGroup.start_soon")
#: Runs what it is given, in the orchestration.
_CALLERS = frozenset({_BRANCH.name})


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


@attrs.frozen
class _Step:
    function: Function
    role: Role
    path: tuple[str, ...]
    is_durable: bool
    is_locked: bool
    through: frozenset[ast.AST]

    @property
    def key(self) -> tuple[object, ...]:
        return self.function.node, self.role.kind, self.is_durable, self.is_locked


def visits(resolver: Resolver, roles: Roles) -> Iterator[Visit]:
    """Visit each function that runs in a turn of an orchestration or entity."""
    ahead = deque(
        _Step(
            role.function,
            role,
            (),
            role.is_registered and is_generator(role.function),
            is_locked=False,
            through=frozenset({role.function.node}),
        )
        for role in sorted(roles.roots(), key=lambda role: not role.is_registered)
    )
    seen = set[tuple[object, ...]]()
    while ahead:
        step = ahead.popleft()
        if step.key in seen:
            continue
        seen.add(step.key)
        visit = Visit(
            step.function,
            step.role,
            resolver,
            roles,
            path=step.path,
            is_durable=step.is_durable,
            is_locked=step.is_locked,
        )
        yield visit
        for function, is_durable, is_locked in _followed(visit):
            own = roles.of(function)
            if own is not None and (own.is_registered or own.kind == "activity"):
                continue
            if function.node in step.through:
                is_locked = step.is_locked  # what calls itself need not do so with the lock
            ahead.append(
                _Step(
                    function,
                    step.role,
                    (*step.path, _title(function)),
                    is_durable,
                    is_locked,
                    step.through | {function.node},
                )
            )


def _title(function: Function) -> str:
    owner = "" if function.owner is None else f"{function.owner.node.name}."
    return f"{owner}{function.name}"


def is_generator(function: Function) -> bool:
    """Whether a function has a ``yield`` of its own."""
    node = function.node
    ahead: list[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else [*node.body]
    while ahead:
        one = ahead.pop()
        if isinstance(one, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(one, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            ahead += ast.iter_child_nodes(one)
    return False


def _followed(visit: Visit) -> Iterator[tuple[Function, bool, bool]]:
    """Give what a function runs: each function, and whether its yields go to the hub."""
    for decorator in _wrappers(visit):
        yield decorator, visit.is_durable, visit.is_locked
    for node in visit.nodes:
        is_locked = visit.is_locked or (visit.has_locks and locks_around(visit, node) is not None)
        match node:
            case ast.Call():
                for function in _called(visit, node):
                    durable = visit.is_durable and isinstance(
                        visit.parents.get(node), ast.YieldFrom
                    )
                    yield function, durable, is_locked
            case ast.Attribute(ctx=ast.Load()):
                for function in _properties(visit, node):
                    yield function, False, is_locked
            case ast.With() | ast.AsyncWith():
                names = (
                    ("__aenter__", "__aexit__")
                    if isinstance(node, ast.AsyncWith)
                    else ("__enter__", "__exit__")
                )
                for item in node.items:
                    for function in _methods(visit, item.context_expr, names):
                        yield function, False, is_locked
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                steps = ("__iter__", "__next__", "__aiter__", "__anext__")
                for function in _methods(visit, node.iter, steps):
                    yield function, False, is_locked
            case ast.Await():
                for function in _methods(visit, node.value, ("__await__",)):
                    yield function, False, is_locked
            case _:
                pass


def _wrappers(visit: Visit) -> Iterator[Function]:
    """Give the functions that decorators of the project have put around the function."""
    node, module = visit.function.node, visit.module
    if isinstance(node, ast.Lambda):
        return
    around = module.scopes.around[node]
    for decorator in node.decorator_list:
        is_call = isinstance(decorator, ast.Call)
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        for value in visit.resolver.values(target, module, around):
            if isinstance(value, Function):
                for made in _made_by(visit, value):
                    if is_call:
                        yield from _made_by(visit, made)
                    else:
                        yield made


def _made_by(visit: Visit, maker: Function) -> Iterator[Function]:
    """Give the functions of its own that a function returns."""
    if isinstance(maker.node, ast.Lambda):
        return
    scope = maker.module.scopes.of[maker.node]
    for expression in returned(maker.node):
        for value in visit.resolver.values(expression, maker.module, scope):
            if isinstance(value, Function) and maker.module is value.module:
                yield value


def _called(visit: Visit, call: ast.Call) -> Iterator[Function]:
    takes_functions = True
    for value in visit.values(call.func):
        match value:
            case External():
                if value.name in _CALLERS:
                    _give(visit, call.args[:1], call.args[1:], [])
                elif value.name == "functools.partial":
                    _give(visit, call.args[:1], call.args[1:], call.keywords)
                elif value.name.startswith("perdure.") or not _is_harmless(value.name):
                    takes_functions = False
            case _:
                for function in _entered_by(visit, value):
                    _give_to(visit, function, call.args, call.keywords)
                    _give_itself(visit, function, call, value)
                    yield function
                if isinstance(value, Class):
                    yield from _factories(visit, value)
    if not takes_functions:
        return
    for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
        for value in visit.values(argument):
            if isinstance(value, Function) and not isinstance(value.node, ast.Lambda):
                yield value


def _is_harmless(name: str) -> bool:
    """Whether something of others runs in the turn what it is given."""
    return name.partition(".")[0] in {
        "attrs",
        "builtins",
        "collections",
        "contextlib",
        "dataclasses",
        "functools",
        "itertools",
        "operator",
        "toolz",
        "more_itertools",
    }


def _entered_by(visit: Visit, value: Value) -> Iterator[Function]:
    """Give the functions that calling a value runs."""
    match value:
        case Function():
            yield value
        case Class():
            for name in ("__new__", "__init__", "__post_init__", "__attrs_post_init__"):
                for method in visit.resolver.member(value, name):
                    if isinstance(method, Function):
                        yield method
        case Object():
            for method in visit.resolver.member(value, "__call__"):
                if isinstance(method, Function):
                    yield method
        case _:
            pass


def _factories(visit: Visit, cls: Class) -> Iterator[Function]:
    """Give the project's functions that make the defaults of an object's fields."""
    for factory, one in factories(visit.resolver, cls):
        scope = one.module.scopes.of[one.node]
        for value in visit.resolver.values(factory, one.module, scope):
            if isinstance(value, Function):
                yield value


_FIELDS = frozenset(
    {"dataclasses.field", "attrs.field", "attr.ib", "attr.field", "attrs.Factory", "attr.Factory"}
    | {"pydantic.Field"}
)


def factories(resolver: Resolver, cls: Class) -> Iterator[tuple[ast.expr, Class]]:
    """Give the expressions for what makes the defaults of a class's fields."""
    for one in resolver.family(cls)[0]:
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


def _properties(visit: Visit, node: ast.Attribute) -> Iterator[Function]:
    for value in visit.values(node.value):
        if isinstance(value, Object):
            own, _ = visit.resolver.family(value.cls)
            for cls in own:
                scope = cls.module.scopes.of[cls.node]
                for binding in scope.bindings.get(node.attr, ()):
                    if isinstance(binding.node, _FUNCTIONS):
                        function = Function(binding.node, cls.module, cls)
                        if is_property(function):
                            yield function


def _methods(visit: Visit, node: ast.expr, names: tuple[str, ...]) -> Iterator[Function]:
    for value in visit.values(node):
        if isinstance(value, Object):
            for name in names:
                for method in visit.resolver.member(value, name):
                    if isinstance(method, Function):
                        yield method


# What calls say of parameters


def _give(
    visit: Visit, functions: list[ast.expr], args: list[ast.expr], keywords: list[ast.keyword]
) -> None:
    for expression in functions:
        for value in visit.values(expression):
            if isinstance(value, Function):
                _give_to(visit, value, args, keywords)


def _give_to(
    visit: Visit, function: Function, args: list[ast.expr], keywords: list[ast.keyword]
) -> None:
    node, module = function.node, function.module
    parameters = parameters_of(node)
    if function.owner is not None and not _is_static(function):
        parameters = parameters[1:]
    by_name = {parameter.arg: parameter for parameter in parameters}
    given = set[str]()
    for parameter, argument in zip(parameters, args, strict=False):
        if isinstance(argument, ast.Starred):
            return
        given.add(parameter.arg)
        visit.resolver.give(parameter, visit.values(argument))
    for keyword in keywords:
        if keyword.arg is None:
            return
        if keyword.arg in by_name:
            given.add(keyword.arg)
            visit.resolver.give(by_name[keyword.arg], visit.values(keyword.value))
    around = module.scopes.around.get(node, module.scope)
    for parameter, default in _defaults(node.args):
        if parameter.arg in by_name and parameter.arg not in given:
            visit.resolver.give(parameter, visit.resolver.values(default, module, around))


def _give_itself(visit: Visit, function: Function, call: ast.Call, value: Value) -> None:
    """Say whose method it is: a class may have inherited it, and changed what it calls."""
    parameters = parameters_of(function.node)
    if function.owner is None or not parameters or _is_static(function):
        return
    if isinstance(value, Class):
        visit.resolver.give(parameters[0], [Object(value)])
    elif isinstance(value, Object):
        visit.resolver.give(parameters[0], [value])
    elif isinstance(call.func, ast.Attribute):
        owners = visit.values(call.func.value)
        visit.resolver.give(parameters[0], [one for one in owners if isinstance(one, Object)])


def _is_static(function: Function) -> bool:
    return not isinstance(function.node, ast.Lambda) and any(
        isinstance(one, ast.Name) and one.id == "staticmethod"
        for one in function.node.decorator_list
    )


def _defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.defaults:
        count = len(arguments.defaults)
        yield from zip(positional[-count:], arguments.defaults, strict=True)
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield parameter, default


# Locks


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
