"""What calls say of the parameters of the functions that they call."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .scopes import parameters_of
from .values import Class, Function, Object, Value
from .visit import Visit


def give(
    visit: Visit, functions: list[ast.expr], args: list[ast.expr], keywords: list[ast.keyword]
) -> None:
    """Say what some functions are going to be called with: branches, and partials."""
    for expression in functions:
        for value in visit.values(expression):
            if isinstance(value, Function):
                give_to(visit, value, args, keywords)


def give_to(
    visit: Visit, function: Function, args: list[ast.expr], keywords: list[ast.keyword]
) -> None:
    """Say what a call gives a function, and what it leaves to defaults."""
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
    for parameter, default in defaults_of(node.args):
        if parameter.arg in by_name and parameter.arg not in given:
            visit.resolver.give(parameter, visit.resolver.values(default, module, around))


def give_itself(visit: Visit, function: Function, call: ast.Call, value: Value) -> None:
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


def defaults_of(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    """Give the parameters that have a default, each with that."""
    positional = [*arguments.posonlyargs, *arguments.args]
    if arguments.defaults:
        count = len(arguments.defaults)
        yield from zip(positional[-count:], arguments.defaults, strict=True)
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield parameter, default
