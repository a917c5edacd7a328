"""What a hub runs in a turn: from each orchestration and operation on, through all that it calls.

A function is looked at as a ``Visit``, once for each kind of code that it serves. Activities are
not entered, since what they do is recorded.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator

import attrs

from .arguments import give, give_itself, give_to
from .fields import factories
from .functions import is_property, returned
from .resolver import Resolver
from .roles import Role, Roles
from .values import (
    Class,
    External,
    Function,
    Object,
    Value,
)
from .visit import Visit, is_generator, locks_around

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCH = External("perdure.TaskGroup.start_soon")
#: Runs what it is given, in the orchestration.
_CALLERS = frozenset({_BRANCH.name})


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
                    give(visit, call.args[:1], call.args[1:], [])
                elif value.name == "functools.partial":
                    give(visit, call.args[:1], call.args[1:], call.keywords)
                elif value.name.startswith("perdure.") or not _is_harmless(value.name):
                    takes_functions = False
            case _:
                for function in _entered_by(visit, value):
                    give_to(visit, function, call.args, call.keywords)
                    give_itself(visit, function, call, value)
                    yield function
                if isinstance(value, Class):
                    yield from _factories(visit, value, call)
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


def _factories(visit: Visit, cls: Class, call: ast.Call) -> Iterator[Function]:
    """Give the project's functions that make the defaults of an object's fields."""
    for factory in factories(visit.resolver, cls, call):
        for value in visit.resolver.values(factory.expression, factory.module, factory.scope):
            if isinstance(value, Function):
                yield value


def _properties(visit: Visit, node: ast.Attribute) -> Iterator[Function]:
    for value in visit.values(node.value):
        if isinstance(value, Object):
            own, _ = visit.resolver.classes.family(value.cls)
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
