"""Errors as they cross: the name of the class, and what it was made of.

Only what a caller may meet crosses as it is; anything else is an ``InternalError`` with its text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ...actors import errors
from ...actors.classes import is_a
from ...actors.errors import FailureDetails, PayloadError, PerdureError
from ...actors.failures import encode_failure, read_failure
from ...actors.printing import text_of, type_name
from ..placement.places import LineLostError, MovedError


def write_error(error: BaseException) -> list[Any]:
    """Give what JSON can hold of an error."""
    name = type_name(error)
    if name in _ERRORS and all(isinstance(one, (str, int, FailureDetails)) for one in error.args):
        written = [name, *(_write_argument(one) for one in error.args)]
        if isinstance(error, PayloadError) and error.what is not None:
            written.append({"what": error.what})
        return written
    return ["InternalError", f"{name}: {text_of(error)}"]


def _write_argument(argument: Any) -> Any:
    if isinstance(argument, FailureDetails):
        return {"failure": orjson.Fragment(encode_failure(argument))}
    return argument


def read_error(fields: list[Any]) -> PerdureError:
    """Make the error anew."""
    name: str = fields[0]
    written: list[Any] = fields[1:]
    arguments: list[Any] = []
    what: str | None = None
    for one in written:
        told: dict[str, Any] = one if is_a(one, dict) else {}
        if "failure" in told:
            arguments.append(read_failure(told["failure"]))
        elif "what" in told:
            what = told["what"]
        else:
            arguments.append(one)
    error = _ERRORS[name](*arguments)
    if what is not None and isinstance(error, PayloadError):
        error.of(what)
    return error


_ERRORS: dict[str, Callable[..., PerdureError]] = {
    kind.__name__: kind
    for kind in (*vars(errors).values(), MovedError, LineLostError)
    if isinstance(kind, type) and issubclass(kind, PerdureError)
}
