"""Problems: errors as ``/api/v1`` tells them (RFC 9457), and read back as what they were."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import orjson

from perdure import PerdureError

from ...runtime.client.operations import read_error, write_around, write_error
from .refusals import Refusal

if TYPE_CHECKING:
    from starlette.responses import Response

URN = "urn:perdure:"
MEDIA_TYPE = "application/problem+json"

#: The class of a refusal that no error of the hub's was the reason of.
_OWN: dict[int, str] = {500: "InternalError", 503: "UnavailableError", 408: "UnavailableError"}

#: What may stand in an error's arguments and be nobody's business: a traceback.
_STACK = 2


def problem_of(refusal: Refusal, *, exposes: bool) -> dict[str, Any]:
    """Give the members of a problem."""
    kind = _OWN.get(refusal.status, "UsageError")
    told: dict[str, Any] = {}
    error = refusal.error
    if isinstance(error, PerdureError) and refusal.status != 500:
        kind, *arguments = write_error(error)
        arguments = orjson.loads(write_around(arguments))  # a failure is bytes in it
        if not exposes:
            _hide_stacks(arguments)
        told["arguments"] = arguments
        told |= {
            name: value
            for name, value in vars(error).items()
            if isinstance(value, (str, int)) and not name.startswith("_")
        }
    title = HTTPStatus(refusal.status).phrase
    own = {"type": URN + kind, "title": title, "status": refusal.status, "detail": refusal.message}
    if refusal.trace:
        own["trace"] = refusal.trace
    return told | own


def missing_problem(what: str) -> dict[str, Any]:
    """Give the members of a problem that says only that there is nothing."""
    return {"type": "about:blank", "title": "Not Found", "status": 404, "detail": what}


def respond(problem: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """Make the response of a problem."""
    from starlette.responses import Response  # here, since a client reads problems without it

    return Response(write_around(problem), problem["status"], headers, MEDIA_TYPE)


def _hide_stacks(arguments: list[Any]) -> None:
    for one in arguments:
        if isinstance(one, dict) and "failure" in one:
            _hide_stack(cast("dict[str, Any]", one)["failure"])


def _hide_stack(failure: list[Any]) -> None:
    """Take the tracebacks out of a failure as it crosses: a list of its fields."""
    failure[_STACK] = ""
    if failure[3] is not None:
        _hide_stack(failure[3])
    for member in failure[6] if len(failure) > 6 else ():
        _hide_stack(member)


def hide_stacks(failure: dict[str, Any] | None) -> None:
    """Take the tracebacks out of a failure as it is shown: an object of its fields."""
    while failure is not None:
        failure["stack_trace"] = ""
        for member in failure["members"]:
            hide_stacks(member)
        failure = failure["cause"]


def error_of(problem: dict[str, Any]) -> PerdureError | None:
    """Make the error that a problem tells of; None where it is none of ours."""
    kind = problem.get("type")
    if not isinstance(kind, str) or not kind.startswith(URN):
        return None
    arguments = problem.get("arguments", [problem.get("detail", "")])
    try:
        error: Any = read_error([kind.removeprefix(URN), *arguments])
    except (LookupError, TypeError, ValueError):
        return None
    return cast("PerdureError", error)
