"""The one way to turn a user's object into text: whatever it raises or gives, this gives a string.

Everything a user wrote may be broken where it is printed: ``__str__`` and ``__repr__`` may raise
anything, give what is no string, or have no end, and a class may have no usable name. So the rest
of the package prints users' objects by these functions only.
"""

from __future__ import annotations

import traceback
from types import CodeType, TracebackType
from typing import Any, Final

LENGTH_MAX = 4_000

# The slots of the built-in classes: a subclass may have put properties over them that raise.
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_name_of: Any = type.__dict__["__name__"].__get__


def text_of(value: object, limit: int = LENGTH_MAX) -> str:
    """Give ``str(value)``, cut and printable, or say that it failed."""
    return _print(str, value, limit)


def repr_of(value: object, limit: int = 200) -> str:
    """Give ``repr(value)``, cut and printable, or say that it failed."""
    return _print(repr, value, limit)


def type_name(value: object) -> str:
    """Give the name of the class of a value."""
    return class_name(type(value))


def class_name(cls: type) -> str:
    """Give the name of a class, whatever its metaclass says of it."""
    return printable(_name_of(cls))


def printable(text: str) -> str:
    """Give text that JSON and a log can hold: lone surrogates are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Give text as one line: breaks and control characters are written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def stack_of(error: BaseException, limit: int) -> str:
    """Give the formatted traceback of an exception, its end if it is long."""
    try:
        text = _formatted(_traceback_of(error))
    except Exception as broken:
        # Source lines come from the loader of a user's module.
        return f"<no traceback: {type_name(broken)}>"
    return printable(text)[-limit:]


#: Formatted tracebacks, by where each of their frames stood, with the code that is meant by that.
#: To format one takes a hundred times as long as to find it here, and what fails often fails alike.
formatted_before: dict[tuple[int, ...], tuple[list[CodeType], str]] = {}
FORMATTED_MAX: Final = 256
_FRAMES_MAX: Final = 32  # deeper ones are not kept


def _formatted(stack: TracebackType | None) -> str:
    codes: list[CodeType] = []
    where: list[int] = []
    frame = stack
    while frame is not None:
        if len(codes) == _FRAMES_MAX:
            return "".join(traceback.format_tb(stack))
        code = frame.tb_frame.f_code
        codes.append(code)
        where += (id(code), frame.tb_lasti, frame.tb_lineno or 0)
        frame = frame.tb_next
    key = tuple(where)
    known = formatted_before.get(key)
    if known is None:
        if len(formatted_before) >= FORMATTED_MAX:
            formatted_before.clear()
        known = formatted_before[key] = codes, "".join(traceback.format_tb(stack))
    return known[1]


def _print(how: Any, value: object, limit: int) -> str:
    try:
        text = how(value)
        if type(text) is not str:
            text = str.__str__(text)  # of a subclass, whose methods are the user's
    except BaseException as broken:
        if issubclass(type(value), BaseException):  # whatever its __class__ says
            return f"<{how.__name__}() of {type_name(value)} failed: {type_name(broken)}>"
        return f"<{how.__name__}() of a {type_name(value)} failed: {type_name(broken)}>"
    return printable(text if len(text) <= limit else f"{text[: limit - 1]}…")
