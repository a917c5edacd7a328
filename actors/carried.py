"""Context variables that go along: what a starter's context held, to all that it sets going.

An application names them. Their values are texts, travel with messages as a small table, and are
stored with these and in an orchestration's history; nothing is stored where none is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar

import orjson

from .arguments import is_a, refusal, several, text
from .classes import class_of
from .errors import UsageError
from .payloads import check_size
from .printing import repr_of

#: The values that go along, by the names of their variables.
Carried = dict[str, str]


def check_context_vars(given: Sequence[ContextVar[str]]) -> dict[str, ContextVar[str]]:
    """Give context variables by name.

    Raises:
        UsageError: it is no list of these, two have one name, or a name cannot be stored.
    """
    taken = "a list of context variables"
    if is_a(given, Mapping):
        raise refusal("context_vars", taken, given)
    variables = several(given, "context_vars", taken)
    named: dict[str, ContextVar[str]] = {}
    for variable in variables:
        if class_of(variable) is not ContextVar:
            raise refusal("each of context_vars", "a contextvars.ContextVar", variable)
        name = text(variable.name, "the name of each of context_vars")
        if named.setdefault(name, variable) is not variable:
            raise UsageError(f"two of context_vars are named {repr_of(name)}")
    return named


def read_carried(variables: Mapping[str, ContextVar[str]], limit: int) -> Carried | None:
    """Give what the caller's context holds of these; None for nothing.

    Raises:
        UsageError: a value is no text, or none that can be stored.
        PayloadTooLargeError: they have more than ``limit`` bytes together.
    """
    carried: Carried = {}
    for name, variable in variables.items():
        value: object = variable.get(None)
        if value is None:
            continue
        if type(value) is not str:
            raise UsageError(
                f"the context variable {repr_of(name)} holds {repr_of(value)}; what goes along "
                "(App(context_vars=...)) must be a text"
            )
        carried[name] = text(value, f"the context variable {repr_of(name)}")
    if not carried:
        return None
    names = ", ".join(map(repr_of, carried))
    check_size(orjson.dumps(carried), limit, f"what goes along, of context variables {names}")
    return carried


def checked_carried(value: object) -> Carried | None:
    """Give what came along, as it was stored; None where it is none."""
    if class_of(value) is not dict:
        return None
    carried: Carried = value  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    for name, text_ in carried.items():
        if type(name) is not str or type(text_) is not str:
            return None
    return carried.copy() or None


def set_carried(variables: Mapping[str, ContextVar[str]], carried: Carried) -> None:
    """Set in the running context what came along; what is not declared (any more) is left out."""
    for name, value in carried.items():
        variable = variables.get(name)
        if variable is not None:
            variable.set(value)
