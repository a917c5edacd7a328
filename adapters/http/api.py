"""``/api/v1``: every operation of a hub's client, over HTTP."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response

from perdure import (
    HistoryPage,
    Hub,
    HubStoppingError,
    OrchestrationStatus,
    OutcomeUnknownError,
    UsageError,
)

from ...runtime.client.operations import (
    ChangesArguments,
    ItemsOf,
    PageOf,
    each,
    in_slices,
    let_go,
    write_in_parts,
)
from .areas import Call
from .changes import EncodedStatuses, EventStream
from .limits import read_body
from .paths import decoded, header
from .problems import hide_stacks, missing_problem, problem_of, respond
from .refusals import Refusal
from .routes import API, CONTEXT, IDEMPOTENCY_KEY, Route, find

_KEY = IDEMPOTENCY_KEY.lower().encode()
_CONTEXT = CONTEXT.lower().encode()
_ENDED = frozenset({"Completed", "Failed", "Canceled", "Terminated"})


class Api:
    """The area.

    Args:
        expose_errors: whether answers show tracebacks.
    """

    prefix: tuple[str, ...] = API
    needs_key = True
    checks_host = True

    def __init__(self, *, expose_errors: bool = False) -> None:
        self._exposes = expose_errors
        self._encoded = EncodedStatuses(exposes=expose_errors)

    async def answer(self, call: Call) -> Response:
        if call.segments == ["openapi.json"]:
            return self._describe(call)
        route, names = _route_of(call)
        arguments = await _read(route, names, call)
        if route.operation == "changes" and "wait" not in arguments:
            return self._follow(route, arguments, call)
        result = await _do(route, arguments, call)
        if result is None and route.missing:
            return respond(
                missing_problem(f"there is no entity {arguments['entity']}, or no state")
            )
        if not self._exposes:
            await in_slices(_hide(route, result))
        status = _status_of(route, result, arguments)
        body = await in_slices(write_in_parts(result))
        if route.row.is_large:
            await in_slices(let_go(cast("dict[str, Any]", result).get("items", [])))
        return _Json(body, status)

    def _describe(self, call: Call) -> Response:
        from .openapi import document  # here, since hardly a server is asked

        if call.method != "GET":
            raise Refusal(405, "only GET is answered here", headers={"Allow": "GET"})
        return _Json(orjson.dumps(document(call.base_url)), 200)

    def _follow(self, route: Route, arguments: dict[str, Any], call: Call) -> Response:
        """Answer with a stream of events, that goes on behind the last one which was heard."""
        last = header(call.request.scope, b"last-event-id")
        if last:
            arguments["after"] = last
        given: ChangesArguments = route.row.read(arguments)
        changes = call.client.changes(
            after=given.after, instance_id=given.instance_id, **cast("Any", given.given())
        )
        return EventStream(changes, call.entrance, self._encoded, exposes=self._exposes)

    def refuse(self, refusal: Refusal) -> Response:
        """Answer that it is not done."""
        return respond(problem_of(refusal, exposes=self._exposes), refusal.headers)


class _Json(Response):
    """A response that is made without a look at what all of them have."""

    def __init__(self, body: bytes, status: int) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]


def _route_of(call: Call) -> tuple[Route, list[str]]:
    found = find(call.segments)
    for route, names in found:
        if route.method == call.method:
            return route, names
    if not found:
        raise Refusal(404, "no endpoint has this path; /api/v1/openapi.json lists them")
    allowed = ", ".join(sorted({route.method for route, _ in found}))
    raise Refusal(405, f"only {allowed} is answered here", headers={"Allow": allowed})


async def _read(route: Route, names: list[str], call: Call) -> dict[str, Any]:
    """Read the arguments of a request, from wherever in it they stand."""
    request = call.request
    arguments = route.read_path([decoded(name) for name in names])
    if query := request.scope["query_string"]:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        arguments |= route.read_query(pairs)
    body = b"" if request.method in ("GET", "HEAD") else await read_body(request, call.limits)
    arguments |= route.read_body(body)
    for name, value in request.scope["headers"]:
        if name == _KEY:
            arguments["request_id"] = _text(value, route.has_key, IDEMPOTENCY_KEY)
        elif name == _CONTEXT:
            text = _text(value, route.has_context, CONTEXT)
            try:
                arguments["carried"] = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise UsageError(f"{CONTEXT} is no JSON: {error}") from None
    return arguments


def _text(value: bytes, is_taken: bool, name: str) -> str:
    if not is_taken:
        raise UsageError(f"{name} is not taken here: leave it out")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{name} must be text in UTF-8") from None


async def _do(route: Route, arguments: dict[str, Any], call: Call) -> Any:
    if route.operation == "nodes" and isinstance(hub := call.entrance.hub_or_client, Hub):
        return (await hub.nodes()).to_dict()  # which it says while it has no client yet, too
    if route.pending is None and route.operation != "changes":
        return await call.client.ask(route.operation, arguments)
    most = call.limits.wait_s_max
    if "wait" in arguments:
        arguments["wait"] = min(arguments["wait"], most)
    elif route.operation == "call":
        arguments["wait"] = most
    elif route.operation != "changes":
        return await call.client.ask(route.operation, arguments)
    done: list[Any] = []
    with call.entrance.until_closing():
        done.append(await call.client.ask(route.operation, arguments))
    if done:
        return done[0]
    # The server stops, and this only waited.
    if route.operation == "call":
        return {"ended": False}
    if route.row.writes:
        raise OutcomeUnknownError(
            "the server stops, and did not wait for the end: the request may have been applied; "
            "repeat it under the same request id"
        )
    raise HubStoppingError("the server is stopping; repeat it")


def _status_of(route: Route, result: Any, arguments: dict[str, Any]) -> int:
    if route.pending is None or "wait" not in arguments:
        return route.done
    if route.operation == "call":
        return route.done if result["ended"] else route.pending
    return 200 if result.get("runtime_status") in _ENDED else route.pending


def _hide(route: Route, result: Any) -> Generator[None]:
    """Take out of a result what no answer shows: the tracebacks of failures."""
    match route.row.result:
        case PageOf(item=kind) | ItemsOf(item=kind):
            items = result["items"]
            if kind is OrchestrationStatus:
                yield from each(items, lambda status: hide_stacks(status["failure"]))
            elif route.operation == "changes":
                yield from each(items, _hide_in_change)
        case kind if kind is OrchestrationStatus:
            hide_stacks(result.get("failure"))
        case kind if kind is HistoryPage:
            yield from each(result["items"], _hide_in_event)
        case _:
            pass


def _hide_in_change(change: dict[str, Any]) -> None:
    if change["status"] is not None:
        hide_stacks(change["status"]["failure"])


def _hide_in_event(event: dict[str, Any]) -> None:
    failure = event["fields"].get("failure")
    if isinstance(failure, dict):
        hide_stacks(cast("dict[str, Any]", failure))
