"""Direct calls: an orchestration that calls a registered function itself, instead of by its context.

Such a call would run inside of the turn, at every replay again, and leave no trace in the history.
So a registered function gets other code, which looks at who calls; what it was goes on as a copy,
which is what the hub calls. The function stays the object that it is, with its name, signature
and line: it is what users hand over to say which function they mean, and what all but
orchestrations may call.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from ..errors import NonDurableAwaitError
from .outside import INSIDE


class _Door:
    """Calls a function for whoever may; its code is in the function's place."""

    __slots__ = ("_instead", "_plain", "_title")

    def __init__(self, plain: Callable[..., Any], title: str, instead: str) -> None:
        self._plain = plain
        self._title = title
        self._instead = instead

    def __call__(self, *args: Any, **named: Any) -> Any:
        inside = INSIDE.get()
        # Versions of one orchestration may share their code.
        if inside is not None and inside.title != self._title:
            # Behind the code that stands for the function's.
            caller = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
            raise NonDurableAwaitError(
                f"{inside.title} called {self._title} directly at {caller.f_code.co_filename}:"
                f"{caller.f_lineno}, where it would run again at every replay; use "
                f"{self._instead} instead"
            )
        return self._plain(*args, **named)


_PLACE = "its door"

# How each kind of function calls its door.
_CALLS = {
    "plain": ("def", "return door(*_args, **_named)"),
    "async": ("async def", "return await door(*_args, **_named)"),
    "yield": ("def", "return (yield from door(*_args, **_named))"),
}


@functools.cache
def _template(kind: str, count: int) -> types.CodeType:
    """Give the code of a function with so many free variables that calls its door.

    They have to be free in what is compiled, though it does not use them: code begins by taking
    them from its function. Where it has not, whoever looks at the variables of its frame, as
    debuggers and pytest do, ends the interpreter.
    """
    define, call = _CALLS[kind]
    names = ", ".join(f"_{number}" for number in range(count))
    source = (
        f"def outer({names}):\n {define} call(*_args, **_named):\n  door = {_PLACE!r}\n"
        f"  {call}\n  {names}\n return call"
    )
    made: dict[str, Any] = {}
    exec(source, made)
    code: types.CodeType = made["outer"](*range(count)).__code__
    return code


def guard(function: Callable[..., Any], title: str, instead: str) -> Callable[..., Any]:
    """Refuse orchestrations that call the function directly; gives what calls it all the same.

    Args:
        function: the function; only one written in Python can be guarded.
        title: how errors call it.
        instead: what an orchestration should write.
    """
    if not inspect.isfunction(function):
        return function
    known: tuple[Any, Any] = function.__dict__.get("__perdure_plain__", (None, None))
    if known[0] is function:  # else a wrapper has copied what the function in it has
        plain: Callable[..., Any] = known[1]
        return plain
    copy = _copy(function)
    kind = "plain"
    if inspect.iscoroutinefunction(function):
        kind = "async"
    elif inspect.isgeneratorfunction(function):
        kind = "yield"
    was = function.__code__
    code = _template(kind, len(was.co_freevars))
    door = _Door(copy, title, instead)
    function.__code__ = code.replace(
        co_consts=tuple(door if one == _PLACE else one for one in code.co_consts),
        co_filename=was.co_filename,
        co_firstlineno=was.co_firstlineno,
        co_freevars=was.co_freevars,
        co_name=was.co_name,
        co_qualname=was.co_qualname,
    )
    function.__dict__["__wrapped__"] = copy  # where its signature is
    function.__dict__["__perdure_plain__"] = (function, copy)
    return copy


def _copy(function: types.FunctionType) -> types.FunctionType:
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    copy.__doc__ = function.__doc__
    copy.__module__ = function.__module__
    copy.__qualname__ = function.__qualname__
    copy.__dict__.update(function.__dict__)
    return copy
