"""The front door: what `import perdure` offers, and that all of it is documented."""

from __future__ import annotations

import inspect
from enum import Enum
from types import FunctionType, ModuleType

import pytest

import perdure
from perdure.actors import errors


def sort_key(name: str) -> tuple[int, str]:
    """Order as ruff does: constants, classes, the rest."""
    if name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


def public_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and name != "annotations"  # what `from __future__ import annotations` leaves
    }


def own_docstring(value: object) -> str:
    """Give the docstring of a class or function itself, not an inherited one."""
    assert inspect.isclass(value) or callable(value), "a public name is a class or a function"
    found = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return (found or "").strip()


def test_the_public_names_are_sorted_and_named_once() -> None:
    names = perdure.__all__

    assert list(names) == sorted(set(names), key=sort_key)


def test_the_public_names_are_those_that_the_front_door_binds() -> None:
    names = set(perdure.__all__) - {"__version__"}

    assert names == public_names(perdure)


def test_every_error_that_a_user_can_meet_is_public() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.PerdureError)
    }

    assert raised <= set(perdure.__all__)


@pytest.mark.parametrize("name", perdure.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    value: object = getattr(perdure, name)

    # A constant is described by its type.
    described = type(value) if isinstance(value, Enum) else value
    assert name == "__version__" or own_docstring(described)


@pytest.mark.parametrize("name", perdure.__all__)
def test_what_a_public_class_offers_says_what_it_does(name: str) -> None:
    value: object = getattr(perdure, name)

    members: dict[str, object] = {}
    for owner in inspect.getmro(value) if inspect.isclass(value) else ():
        if owner.__module__.startswith("perdure."):
            members = {**vars(owner), **members}
    silent = {
        member
        for member, found in members.items()
        if not member.startswith("_")
        and isinstance(found, FunctionType | property | classmethod | staticmethod)
        and not inspect.getdoc(getattr(value, member))  # an override may inherit its docstring
    }

    assert silent == set()
