"""Marks on an entity's operations: read-only, commutative, combined."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ..arguments import is_a
from ..errors import RegistrationError
from ..registry.definitions import Combiner, name_of
from .entity import EntityContext

A = TypeVar("A")
E = TypeVar("E")
F = TypeVar("F", bound=Callable[..., Any])


def readonly(function: F) -> F:
    """Mark an entity's operation as one that only reads.

    It waits neither behind a lock nor behind an async operation under way, before which it sees the
    state, and what it changes of that is not kept.
    """
    return _mark(function, "__perdure_readonly__", "@perdure.readonly")


def _mark(function: F, mark: str, decorator: str) -> F:
    if not is_a(function, types.FunctionType):
        raise RegistrationError(f"{decorator} marks a method of an entity, not {name_of(function)}")
    setattr(function, mark, True)
    return function


def commutative(function: F) -> F:
    """Mark a striped entity's operation as one whose order among such operations does not matter.

    It runs on one of the entity's stripes, so it sees only what that stripe has gathered: it
    should give no result, or one that does not depend on the entity's state.
    """
    return _mark(function, "__perdure_commutative__", "@perdure.commutative")


def combine(
    operation: Callable[[E, A], Any] | Callable[[E, A, EntityContext], Any], /
) -> Callable[[Combiner[A]], Combiner[A]]:
    """Declare a static function that folds queued inputs of one operation into one.

    It gets the inputs of signals that wait one behind the other, oldest first, and gives the input
    with which the operation runs once for all of them. Where it or that operation raises, the
    signals run one by one.

    Args:
        operation: the method whose inputs it folds.
    """
    if not is_a(operation, types.FunctionType):
        raise RegistrationError(
            "@perdure.combine takes the operation whose inputs are folded, a method of the same "
            f"class, not {name_of(operation)}"
        )

    def mark(function: Any) -> Any:
        if not is_a(function, types.FunctionType) and not is_a(function, staticmethod):
            raise RegistrationError(
                f"@perdure.combine marks a static function, not {name_of(function)}"
            )
        marked = cast("Any", staticmethod(getattr(function, "__func__", function)))
        marked.__perdure_combines__ = operation
        return marked

    return mark
