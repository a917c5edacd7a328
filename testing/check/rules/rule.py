"""What a rule is: it looks at a function that runs in a turn, and gives what is wrong there."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from ..source.roles import RoleKind
from ..source.visit import Visit

ORCHESTRATIONS: frozenset[RoleKind] = frozenset({"orchestration"})
BOTH: frozenset[RoleKind] = frozenset({"orchestration", "entity"})


class Found(NamedTuple):
    """What a rule finds.

    Attributes:
        node: the place.
        what: what it does there: a clause that "in orchestration `x`" can follow.
        fix: what to write instead.
    """

    node: ast.AST
    what: str
    fix: str


class Rule(ABC):
    """One thing that code which runs in a turn must not do.

    Attributes:
        code: what it is called by: in findings, in ``# noqa``, and its page.
        title: what it is about, in a few words.
        kinds: in what code it is looked for.
        is_default: whether it is looked for unless told otherwise.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    kinds: ClassVar[frozenset[RoleKind]] = ORCHESTRATIONS
    is_default: ClassVar[bool] = True

    @abstractmethod
    def check(self, visit: Visit) -> Iterator[Found]:
        """Give what is wrong in a function."""


_LONG = 60


def shown(node: ast.AST, *, whole: bool = False) -> str:
    """Write an expression as a message shows it: in a line, and not too long a one.

    Args:
        node: the expression.
        whole: with the arguments of a call.
    """
    if isinstance(node, ast.Call) and not whole:
        return f"`{_cut(node.func)}()`"
    return f"`{_cut(node)}`"


def _cut(node: ast.AST) -> str:
    try:
        line = " ".join(ast.unparse(node).split())
    except RecursionError:  # a chain of thousands of operators
        return "..."
    return line if len(line) <= _LONG else f"{line[: _LONG - 3]}..."
