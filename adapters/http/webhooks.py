"""Durable Functions' HTTP API, as its hosts answer it: same paths, statuses, headers and bodies.

The same stands under ``/durabletask``, which a host keeps for the SDKs of other languages. These
send each value as a JSON text that holds JSON, so there, and only there, it is taken out of it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import anyio
import orjson
from starlette.requests import Request
from starlette.responses import Response

from perdure import (
    MISSING,
    EntityId,
    InstanceFinishedError,
    InstanceNotFinishedError,
    InstanceNotFoundError,
    InvalidIdError,
    OrchestrationStatus,
    Page,
    RuntimeStatus,
    UsageError,
)

from ...runtime.client.operations import (
    in_slices,
    let_go,
    map_each,
    wait_for_output,
    write_around,
    write_in_parts,
)
from .areas import Call
from .family import (
    entity_body,
    entity_state,
    history_events,
    links_query,
    management_links,
    status_body,
)
from .keys import code_of
from .limits import read_body, read_json
from .paths import match
from .refusals import Refusal

WEBHOOKS = ("runtime", "webhooks", "durabletask")
LOCAL_RPC = ("durabletask",)

CONTINUATION = "x-ms-continuation-token"

_START_RETRY_S = 10
_STATUS_RETRY_S = 5

_PAGE = 100
#: Language SDKs read one page and take it for all.
_PAGE_FOR_SDKS = 1_000
_PAGE_MAX = 10_000

_JSON = "application/json; charset=utf-8"

_TERMINAL = tuple(status for status in RuntimeStatus if status.is_terminal)

Handler = Callable[..., Awaitable[Response]]

R = TypeVar("R")


class Webhooks:
    """The family's API under one prefix.

    Args:
        prefix: where.
        unwraps: whether a body that is a text of JSON is taken as that JSON.
    """

    needs_key = True
    checks_host = True

    def __init__(self, prefix: tuple[str, ...], *, unwraps: bool = False) -> None:
        self.prefix = prefix
        self._unwraps = unwraps

    async def answer(self, call: Call) -> Response:
        segments = call.segments
        found = _ROUTES.get((segments[0].casefold(), len(segments)), ()) if segments else ()
        known: set[str] = set()
        for pattern, handlers in found:
            names = match(pattern, segments)
            if names is not None:
                handler = handlers.get(call.method)
                if handler is not None:
                    return await handler(_Question(call, self._unwraps), *names)
                known.update(handlers)
        if known:
            methods = ", ".join(sorted(known))
            raise Refusal(404, f"{call.method} is not answered here, but {methods}")
        raise Refusal(404, "no endpoint has this path")

    def refuse(self, refusal: Refusal) -> Response:
        """Answer that it is not done, in the family's words."""
        status = _family_status(refusal)
        body: dict[str, Any] = {"Message": refusal.message, "ExceptionMessage": refusal.message}
        if refusal.error is not None:
            body["ExceptionMessage"] = str(refusal.error) or refusal.message
            body["ExceptionType"] = refusal.type
        if refusal.trace:
            body["StackTrace"] = refusal.trace
        return _json(status, body, refusal.headers)


def _family_status(refusal: Refusal) -> int:
    """Give the status that the family has for what the client's methods raise."""
    match refusal.status, refusal.type:
        case 404, "UnknownNameError":
            return 400
        case 409, "InstanceAlreadyExistsError":
            return 500
        case 409, "InstanceFinishedError":
            return 410
        case 409, "InstanceNotFinishedError":
            return 400
        case 429, _:
            return 503
        case status, _:
            return status


class _Question:
    """A request of the family's: its parameters and its body, read as the family reads them."""

    def __init__(self, call: Call, unwraps: bool) -> None:
        self.call = call
        self.client = call.client
        self._unwraps = unwraps

    @property
    def request(self) -> Request:
        return self.call.request

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters, whose names ignore case; of several the first counts."""
        text = self.request.scope.get("query_string", b"").decode("latin-1")
        if text.isascii() and "%" not in text and "+" not in text:  # nothing in it is encoded
            parts = [part.partition("=") for part in text.split("&") if part]
            pairs = [(name, value) for name, _, value in parts]
        else:
            pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
        found: dict[str, str] = {}
        for name, value in pairs:
            found.setdefault(name.lower(), value)
        for value in found.values():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Refusal(400, "the query is not UTF-8") from None
        return found

    def text(self, name: str) -> str | None:
        """Give a parameter; None where it is missing or empty."""
        return self.query.get(name.lower()) or None

    def flag(self, name: str, default: bool) -> bool:
        """Give a parameter that is ``true`` or ``false``."""
        given = self.text(name)
        if given is None:
            return default
        if given.lower() not in ("true", "false"):
            raise Refusal(400, f"{name} must be true or false, not {given[:60]!r}")
        return given.lower() == "true"

    def seconds(self, name: str) -> float | None:
        """Give a parameter that is a number of seconds."""
        given = self.text(name)
        if given is None:
            return None
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise Refusal(400, f"{name} must be seconds, 0 or more, not {given[:60]!r}")
        return value

    def time(self, name: str) -> datetime | None:
        """Give a parameter that is a time in ISO 8601; one that names no zone is UTC."""
        given = self.text(name)
        if given is None:
            return None
        text = given.replace(" ", "+") if "T" in given.upper() else given  # a + that was not coded
        year, dash, rest = text.partition("-")
        if year.isdecimal() and len(year) < 4:  # strftime leaves out the zeroes of early years
            text = f"{year:0>4}{dash}{rest}"
        try:
            time = datetime.fromisoformat(text)
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, OverflowError):
            raise Refusal(400, f"{name} must be a time in ISO 8601, not {given[:60]!r}") from None

    def until(self, name: str) -> datetime | None:
        """Give a parameter that is the last moment meant, as the first one that is not."""
        time = self.time(name)
        with suppress(OverflowError):
            return None if time is None else time + timedelta(microseconds=1)
        return None

    def count(self, name: str, default: int, most: int) -> int:
        """Give a parameter that is a positive number; what is over the most is the most."""
        given = self.text(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdecimal() and int(given[:20])):
            raise Refusal(400, f"{name} must be a positive number, not {given[:60]!r}")
        return min(int(given[:20]), most)

    def statuses(self, name: str) -> list[RuntimeStatus] | None:
        """Give a parameter that is a list of statuses with commas."""
        given = self.text(name)
        if given is None:
            return None
        known = {status.value.lower(): status for status in RuntimeStatus}
        found: list[RuntimeStatus] = []
        for one in given.split(","):
            status = known.get(one.strip().lower())
            if status is None:
                raise Refusal(
                    400, f"{name} has {one[:60]!r}; the statuses are {', '.join(RuntimeStatus)}"
                )
            found.append(status)
        return found

    @property
    def request_id(self) -> str | None:
        """The ``Idempotency-Key``, under which the hub does it once."""
        return self.request.headers.get("idempotency-key")

    @property
    def is_json(self) -> bool:
        """Whether the body is said to be JSON."""
        kind = self.request.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower() == "application/json"

    async def body(self) -> bytes:
        """Give the body."""
        return await read_body(self.request, self.call.limits)

    def value(self, data: bytes) -> Any:
        """Read a body as JSON, and out of a text where the SDKs put it into one."""
        value = read_json(data)
        if self._unwraps and isinstance(value, str):
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(value)
        return value

    @property
    def page_size(self) -> int:
        """How many instances a page holds that does not say."""
        return _PAGE_FOR_SDKS if self._unwraps else _PAGE

    async def status(self, instance_id: str) -> OrchestrationStatus:
        """Give an instance's status.

        Raises:
            Refusal: 404, also where no instance can have this id.
        """
        try:
            status = await self.client.get_status(instance_id)
        except InvalidIdError as error:
            raise Refusal(404, str(error), error=error) from None
        if status is None:
            raise _not_found(instance_id)
        return status

    async def live(self, instance_id: str) -> OrchestrationStatus:
        """Give the status of an instance that has not ended.

        Raises:
            Refusal: 404 where there is none, 410 where it has ended.
        """
        status = await self.status(instance_id)
        if status.is_completed:
            raise _gone(InstanceFinishedError(instance_id, str(status.runtime_status.value)))
        return status


def _not_found(instance_id: str) -> Refusal:
    error = InstanceNotFoundError(instance_id)
    return Refusal(404, str(error), error=error)


def _gone(error: UsageError) -> Refusal:
    return Refusal(410, str(error), error=error)


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    # What is stored was JSON, but its objects may have been decoded.
    return Response(write_around(body), status, headers, _JSON)


async def _page(page: Page[R], body_of: Callable[[R], dict[str, Any]]) -> Response:
    bodies = await in_slices(map_each(page.items, body_of))
    await in_slices(let_go(page.items))
    written = await in_slices(write_in_parts(bodies))
    await in_slices(let_go(bodies))
    token = page.continuation_token
    return Response(written, 200, None if token is None else {CONTINUATION: token}, _JSON)


def _accepted() -> Response:
    return Response(status_code=202)


# Orchestrations


async def _start(question: _Question, name: str, instance_id: str | None = None) -> Response:
    wait = _read_wait(question)
    body = await question.body()
    input = question.value(body) if body else MISSING
    handle = await question.client.start_new(
        name,
        input,
        instance_id=instance_id,
        version=question.text("version"),
        request_id=question.request_id,
    )
    return await _wait_or_point(question, handle.instance_id, wait)


def _read_wait(question: _Question) -> float | None:
    """Give how long a start waits for the end, if it waits.

    The interval between looks is checked and not used: nothing here polls.
    """
    timeout, interval = question.seconds("timeout"), question.seconds("pollingInterval")
    if timeout is None:
        return None
    if interval is not None and interval > timeout:
        raise Refusal(
            400, f"Total timeout {timeout:g} should be bigger than retry timeout {interval:g}"
        )
    return min(timeout, question.call.limits.wait_s_max)


async def _wait_or_point(question: _Question, instance_id: str, wait: float | None) -> Response:
    """Answer with the end, if it comes while the caller waits; else with where to look."""
    if wait is not None:
        output: bytes | None = None
        with question.call.entrance.until_closing() as scope:
            scope.deadline = anyio.current_time() + wait
            client: Any = question.client  # of the package, which has its modules once more here
            output = await wait_for_output(client, instance_id)
        if output is not None:
            return Response(output, 200, None, _JSON)
        status = await question.status(instance_id)
        if status.is_completed:
            return await _status_response(question, status)
    links = management_links(
        question.call.base_url, instance_id, links_query(code_of(question.request))
    )
    headers = {"Location": links["statusQueryGetUri"], "Retry-After": str(_START_RETRY_S)}
    return _json(202, links, headers)


async def _status(question: _Question, instance_id: str) -> Response:
    return await _status_response(question, await question.status(instance_id))


async def _status_response(question: _Question, status: OrchestrationStatus) -> Response:
    show_input = question.flag("showInput", True)
    outputs = question.flag("showHistoryOutput", False)
    fails = question.flag("returnInternalServerErrorOnFailure", False)
    history: list[dict[str, Any]] | None = None
    if question.flag("showHistory", False):
        events = await question.client.get_history(status.instance_id)
        written = history_events(events, status, outputs=outputs, inputs=show_input)
        history = await in_slices(written)
    body = status_body(status, show_input=show_input, history=history)
    if not status.is_completed:
        headers = {"Location": _own_url(question), "Retry-After": str(_STATUS_RETRY_S)}
        return _json(202, body, headers)
    has_failed = status.runtime_status is RuntimeStatus.FAILED
    return _json(500 if fails and has_failed else 200, body)


def _own_url(question: _Question) -> str:
    """Give the URL of the request, as it was sent."""
    url = "/".join([question.call.base_url, *question.call.segments])
    query = question.request.scope.get("query_string", b"").decode("latin-1")
    return f"{url}?{query}" if query else url


async def _list(question: _Question) -> Response:
    show_input = question.flag("showInput", True)
    page = await question.client.query_page(
        statuses=question.statuses("runtimeStatus"),
        instance_id_prefix=question.text("instanceIdPrefix"),
        created_from=question.time("createdTimeFrom"),
        created_to=question.until("createdTimeTo"),
        page_size=question.count("top", question.page_size, _PAGE_MAX),
        continuation_token=question.request.headers.get(CONTINUATION) or None,
    )
    return await _page(page, partial(status_body, show_input=show_input))


async def _purge_one(question: _Question, instance_id: str) -> Response:
    await question.status(instance_id)
    try:
        deleted = await question.client.purge_instance(instance_id)
    except InstanceNotFinishedError as error:
        raise Refusal(404, str(error), error=error) from None
    return _json(200, {"instancesDeleted": deleted})


async def _purge(question: _Question) -> Response:
    created_from = question.time("createdTimeFrom")
    if created_from is None:
        raise Refusal(400, "Please provide value for 'createdTimeFrom' parameter.")
    statuses = question.statuses("runtimeStatus")
    alive = [status.value for status in statuses or () if not status.is_terminal]
    if alive:
        raise Refusal(
            400, f"only instances that have ended can be deleted, and runtimeStatus has {alive[0]}"
        )
    deleted = await question.client.purge(
        statuses=_TERMINAL if statuses is None else statuses,
        created_from=created_from,
        created_to=question.until("createdTimeTo"),
    )
    if not deleted:
        raise Refusal(404, "no instance that has ended matches")
    return _json(200, {"instancesDeleted": deleted})


async def _raise_event(question: _Question, instance_id: str, name: str) -> Response:
    await question.live(instance_id)
    if not question.is_json:
        raise Refusal(400, "Only application/json request content is supported")
    body = await question.body()
    data = question.value(body) if body else None
    await question.client.raise_event(instance_id, name, data, request_id=question.request_id)
    return _accepted()


async def _terminate(question: _Question, instance_id: str) -> Response:
    await question.live(instance_id)
    await question.client.terminate(instance_id, question.text("reason") or "")
    return _accepted()


async def _suspend(question: _Question, instance_id: str) -> Response:
    await question.live(instance_id)
    await question.client.suspend(instance_id, question.text("reason") or "")
    return _accepted()


async def _resume(question: _Question, instance_id: str) -> Response:
    await question.live(instance_id)
    await question.client.resume(instance_id, question.text("reason") or "")
    return _accepted()


async def _rewind(question: _Question, instance_id: str) -> Response:
    status = await question.status(instance_id)
    if status.is_completed and status.runtime_status is not RuntimeStatus.FAILED:
        error = InstanceNotFinishedError(instance_id, str(status.runtime_status.value), "rewind")
        raise _gone(error)
    await question.client.rewind(instance_id, question.text("reason") or "")
    return _accepted()


async def _restart(question: _Question, instance_id: str) -> Response:
    wait = _read_wait(question)
    renames = question.flag("restartWithNewInstanceId", True)
    try:
        handle = await question.client.restart(
            instance_id, with_new_instance_id=renames, request_id=question.request_id
        )
    except (InstanceNotFoundError, InvalidIdError) as error:
        raise Refusal(
            400, "InstanceId does not match a valid orchestration instance.", error=error
        ) from None
    return await _wait_or_point(question, handle.instance_id, wait)


async def _make_primary(question: _Question) -> Response:
    # The store has one owner, which is the hub that answers here.
    return Response(status_code=200)


# Entities


async def _signal(question: _Question, name: str, key: str) -> Response:
    body = await question.body()
    input: Any = MISSING
    if body and question.is_json:
        input = question.value(body)
    elif body:
        try:
            input = body.decode()
        except UnicodeDecodeError:
            raise Refusal(400, "the body is no text in UTF-8") from None
    return await _send(question, name, key, question.text("op") or "", input)


async def _delete(question: _Question, name: str, key: str) -> Response:
    return await _send(question, name, key, "delete", MISSING)


async def _send(question: _Question, name: str, key: str, operation: str, input: Any) -> Response:
    id = EntityId[Any](name, key)
    await question.client.signal_entity(id, operation, input, request_id=question.request_id)
    return _accepted()


async def _entity_state(question: _Question, name: str, key: str) -> Response:
    try:
        id = EntityId[Any](name, key)
        status = await question.client.get_entity(id)
    except UsageError as error:  # no entity can be called that, or is
        raise Refusal(404, str(error)) from None
    if status is None or not status.exists:
        raise Refusal(404, f"the entity {id} has no state")
    return _json(200, entity_state(status))


async def _entities(question: _Question, name: str | None = None) -> Response:
    fetch_state = question.flag("fetchState", False)
    page = await question.client.query_entities_page(
        name=name,
        updated_from=question.time("lastOperationTimeFrom"),
        updated_to=question.until("lastOperationTimeTo"),
        states=fetch_state,
        page_size=question.count("top", _PAGE, _PAGE_MAX),
        continuation_token=question.request.headers.get(CONTINUATION) or None,
    )
    return await _page(page, partial(entity_body, fetch_state=fetch_state))


_Pattern = tuple[str, ...]
_Routes = dict[tuple[str, int], list[tuple[_Pattern, dict[str, Handler]]]]


def _index(rows: Iterable[tuple[str, str, Handler]]) -> _Routes:
    """Put the routes together by their first word and their length."""
    routes: _Routes = {}
    for method, path, handler in rows:
        pattern = tuple(path.split("/"))
        here = routes.setdefault((pattern[0], len(pattern)), [])
        if all(known != pattern for known, _ in here):
            here.append((pattern, {}))
        for known, handlers in here:
            if known == pattern:
                handlers[method] = handler
    return routes


_ROUTES = _index(
    (
        ("POST", "orchestrators/{function}", _start),
        ("POST", "orchestrators/{function}/{id}", _start),
        ("GET", "instances", _list),
        ("DELETE", "instances", _purge),
        ("POST", "instances/purge", _purge),  # as guides to the family have it
        ("GET", "instances/{id}", _status),
        ("DELETE", "instances/{id}", _purge_one),
        ("POST", "instances/{id}/raiseEvent/{event}", _raise_event),
        ("POST", "instances/{id}/terminate", _terminate),
        ("POST", "instances/{id}/suspend", _suspend),
        ("POST", "instances/{id}/resume", _resume),
        ("POST", "instances/{id}/rewind", _rewind),
        ("POST", "instances/{id}/restart", _restart),
        ("POST", "makeprimary", _make_primary),
        ("GET", "entities", _entities),
        ("GET", "entities/{name}", _entities),
        ("POST", "entities/{name}/{key}", _signal),
        ("DELETE", "entities/{name}/{key}", _delete),
        ("GET", "entities/{name}/{key}", _entity_state),
    )
)
