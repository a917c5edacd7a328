"""Functions of the project: what kind each is, and what it returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .values import Function


def is_property(function: Function) -> bool:
    """Whether a function is run by looking an attribute up."""
    return not isinstance(function.node, ast.Lambda) and any(
        decorator_name(decorator) in ("property", "cached_property")
        for decorator in function.node.decorator_list
    )


def decorator_name(decorator: ast.expr) -> str:
    """Give the last part of a decorator's name."""
    if isinstance(decorator, ast.Attribute):
        return decorator.attr
    return decorator.id if isinstance(decorator, ast.Name) else ""


def returned(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """Give what a function returns, but not what functions in it do."""
    ahead: list[ast.AST] = [*function.body]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Return):
            if node.value is not None:
                yield node.value
        elif isinstance(node, (ast.stmt, ast.excepthandler, ast.match_case)) and not isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ):
            ahead += ast.iter_child_nodes(node)
