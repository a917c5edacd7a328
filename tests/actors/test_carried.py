from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from perdure.actors.carried import check_context_vars, checked_carried, read_carried, set_carried
from perdure.actors.errors import PayloadTooLargeError, UsageError

USER: ContextVar[str] = ContextVar("user")
TRACE: ContextVar[str] = ContextVar("trace", default="none")
VARIABLES = {"user": USER, "trace": TRACE}


def inside(user: Any, limit: int = 100) -> Any:
    """Read what goes along of a context with that user."""

    def run() -> Any:
        USER.set(user)
        return read_carried({"user": USER}, limit)

    return copy_context().run(run)


def test_context_variables_are_known_by_their_names() -> None:
    assert check_context_vars([USER, TRACE, USER]) == VARIABLES
    assert check_context_vars(()) == {}


NO_VARIABLES: list[tuple[Any, ...]] = [
    ({"user": USER}, "must be a list of context variables"),
    (USER, "must be a list of context variables"),
    (["user"], r"must be a contextvars\.ContextVar"),
    ([USER, ContextVar("user")], "two of context_vars are named 'user'"),
    ([ContextVar("\ud800")], "the name of each of context_vars must be text without"),
]


@pytest.mark.parametrize(
    ("given", "reason"),
    NO_VARIABLES,
    ids=range(5),
)
def test_what_are_no_context_variables_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_context_vars(given)


def test_what_goes_along_is_set_there_and_what_is_not_declared_is_left_out() -> None:
    def run() -> Any:
        set_carried(VARIABLES, {"user": "ada", "gone": "x"})
        return read_carried(VARIABLES, 100)

    assert copy_context().run(run) == {"user": "ada"}  # a default is no value of the context's


def test_where_nothing_is_set_nothing_goes_along() -> None:
    assert copy_context().run(read_carried, {"user": USER}, 100) is None
    assert inside(None) is None


@pytest.mark.parametrize("value", [5, b"ada", type("Name", (str,), {})("ada"), "\ud800"], ids=ascii)
def test_a_value_that_is_no_text_is_refused_with_its_variable(value: Any) -> None:
    with pytest.raises(UsageError, match="the context variable 'user'"):
        inside(value)


def test_what_goes_along_is_limited_as_a_whole() -> None:
    assert inside("x" * 9, limit=20) == {"user": "x" * 9}
    with pytest.raises(PayloadTooLargeError, match=r"what goes along, of context variables 'user'"):
        inside("x" * 10, limit=20)


@pytest.mark.parametrize("stored", [None, [], {}, {"user": 1}, {1: "a"}, "x"], ids=str)
def test_what_was_stored_otherwise_is_none(stored: Any) -> None:
    assert checked_carried(stored) is None


def test_what_came_along_is_read_as_it_was_stored() -> None:
    assert checked_carried({"user": "ada"}) == {"user": "ada"}
