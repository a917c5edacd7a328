"""What an expression may give, as far as the source says it."""

from __future__ import annotations

import ast
from typing import TypeAlias

import attrs

from .project import Folder, Module
from .scopes import FunctionNode, Scope


@attrs.frozen
class External:
    """Something outside of the project, by its dotted name: ``datetime.datetime.now``.

    What is built in begins with ``builtins``. What an object of a class of others has is named
    after the class: ``pathlib.Path.read_text``.
    """

    name: str


@attrs.frozen
class Expression:
    """An expression, and where it stands."""

    node: ast.expr
    module: Module
    scope: Scope


@attrs.frozen
class ExternalObject:
    """An object of a class outside of the project, and what that was given between brackets."""

    name: str
    arguments: tuple[Expression, ...] = ()


@attrs.frozen
class File:
    """A module, or a package without a file, of the project."""

    module: Module | Folder


@attrs.frozen
class Class:
    """A class of the project."""

    node: ast.ClassDef
    module: Module


@attrs.frozen
class Object:
    """An object of a class of the project."""

    cls: Class


@attrs.frozen
class Function:
    """A function of the project, or a lambda; a method has its class."""

    node: FunctionNode
    module: Module
    owner: Class | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return "lambda" if isinstance(self.node, ast.Lambda) else self.node.name

    @property
    def is_async(self) -> bool:
        """Whether calling it only gives something to await."""
        return isinstance(self.node, ast.AsyncFunctionDef)


@attrs.frozen
class Display:
    """A list, tuple or dict that is written out."""

    node: ast.List | ast.Tuple | ast.Dict
    module: Module
    scope: Scope


@attrs.frozen
class Bases:
    """What ``super()`` gives in a class."""

    cls: Class


Value: TypeAlias = External | ExternalObject | File | Class | Object | Function | Display | Bases
Values: TypeAlias = tuple[Value, ...]
