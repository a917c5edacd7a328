"""The routes of ``/api/v1``: which method and path mean which operation, and where its arguments are.

One table, which the server reads requests by, the client writes them by, and the description is
made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, cast, get_args
from urllib.parse import quote, urlencode

import attrs
import orjson
from attrs import field, frozen

from perdure import EntityId, UsageError

from ...runtime.client.operations import OPERATIONS, Operation, When, write_around

API = ("api", "v1")

#: The header that has the request id.
IDEMPOTENCY_KEY = "Idempotency-Key"

#: The header that has what goes along of the caller's context variables, as a JSON object.
CONTEXT = "Perdure-Context"

#: Seconds without a change after which a comment says that a stream of them is alive.
HEARTBEAT_S = 15.0

Body = Literal["none", "fields"] | str


@frozen(kw_only=True)
class Route:
    """A row of the table.

    Attributes:
        method: the method.
        path: behind the prefix; in braces an argument. ``{entity_name}`` and ``{entity_key}`` are
            its ``entity``.
        operation: which operation it means.
        query: the arguments that stand in the query.
        body: ``none``; ``fields``, an object of the arguments that stand nowhere else; or the
            name of the argument that the whole body is, and which an empty body does not give.
        done: the status of what was done.
        pending: the status where it has not ended.
        missing: whether a result of null means that there is nothing.
    """

    method: str
    path: str
    operation: str
    query: tuple[str, ...] = ()
    body: Body = "none"
    done: int = 200
    pending: int | None = None
    missing: bool = False
    pattern: tuple[str, ...] = field(init=False)
    row: Operation = field(init=False)
    in_path: tuple[str, ...] = field(init=False)
    in_body: frozenset[str] = field(init=False)
    readers: Mapping[str, Callable[[list[str], str], Any]] = field(init=False)
    has_key: bool = field(init=False)
    has_context: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        put = object.__setattr__
        pattern = tuple(self.path.split("/")[1:])
        row = OPERATIONS[self.operation]
        attrs.resolve_types(row.arguments)
        types = {one.name: one.type for one in attrs.fields(row.arguments)}
        named = tuple(one[1:-1] for one in pattern if one.startswith("{"))
        elsewhere = {*named, *self.query, "request_id", "carried"}
        if "entity_key" in named:
            elsewhere |= {"entity", "actor"}
        put(self, "pattern", pattern)
        put(self, "row", row)
        put(self, "in_path", named)
        put(self, "in_body", frozenset(types) - elsewhere if self.body == "fields" else frozenset())
        put(self, "readers", {_shown(name): _reader(types[name]) for name in self.query})
        put(self, "has_key", "request_id" in types)
        put(self, "has_context", "carried" in types)

    # On the server's side.

    def read_query(self, given: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Read the arguments in a query.

        Raises:
            UsageError: one is unknown, or not of its kind.
        """
        texts: dict[str, list[str]] = {}
        for name, text in given:
            if name != "code":  # the key, which was looked at before
                texts.setdefault(name, []).append(text)
        arguments: dict[str, Any] = {}
        for name, some in texts.items():
            reader = self.readers.get(name)
            if reader is None:
                known = ", ".join(self.readers) or "none"
                raise UsageError(f"there is no parameter {name!r} here; those taken are: {known}")
            arguments[_ARGUMENTS.get(name, name)] = reader(some, name)
        return arguments

    def read_path(self, names: Iterable[str]) -> dict[str, Any]:
        """Read the arguments in a path.

        Raises:
            UsageError: one is not of its kind.
        """
        arguments: dict[str, Any] = dict(zip(self.in_path, names, strict=True))
        if "entity_key" in arguments:
            name, key = arguments.pop("entity_name"), arguments.pop("entity_key")
            if "@" in name:
                raise UsageError(f"the name of an entity has no '@': {name!r}")
            # The one argument by which an entity is named.
            arguments["actor" if self.operation == "retry" else "entity"] = f"@{name}@{key}"
        for name in ("partition", "member"):
            if name in arguments:
                arguments[name] = _whole([arguments[name]], name)
        return arguments

    def read_body(self, body: bytes) -> dict[str, Any]:
        """Read the arguments in a body.

        Raises:
            UsageError: it is no JSON, or has what it may not have.
        """
        if self.body == "none":
            if body:
                raise UsageError("nothing in the body is taken here: leave it out")
            return {}
        if not body:
            return {}
        try:
            given: Any = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"the body is no JSON: {error}") from None
        if self.body != "fields":
            return {self.body: given}
        if not isinstance(given, dict):
            raise UsageError("the body must be a JSON object of arguments")
        fields = cast("dict[str, Any]", given)
        for name in fields:
            if name not in self.in_body:
                known = ", ".join(sorted(self.in_body)) or "none"
                raise UsageError(f"the body takes no {name[:100]!r}; it takes: {known}")
        return fields

    # On the client's side.

    def write(self, arguments: Mapping[str, Any]) -> tuple[str, bytes | None]:
        """Give the path with its query, and the body, that say these arguments."""
        in_head = ("request_id", "carried")
        left = {name: value for name, value in arguments.items() if name not in in_head}
        if "entity_key" in self.in_path:
            id = EntityId.parse(left.pop("actor" if self.operation == "retry" else "entity"))
            left.update(entity_name=id.name, entity_key=id.key)
        path = "".join(
            "/" + (_segment(str(left.pop(one[1:-1]))) if one.startswith("{") else one)
            for one in self.pattern
        )
        query: list[tuple[str, str]] = []
        for name in self.query:
            value = left.pop(name, None)
            if value is not None:
                query += _written(_shown(name), value)
        if query:
            path += "?" + urlencode(query, quote_via=quote)
        if self.body == "fields":
            return path, write_around(left)
        if self.body in left:
            return path, orjson.dumps(left[self.body])
        return path, None


def _segment(text: str) -> str:
    # What stands for here and above in a path must not be taken for that on the way.
    return quote(text, safe="").replace(".", "%2E") if text in (".", "..") else quote(text, safe="")


#: What a parameter is called where it is not called as its argument is.
_NAMES = {"tags": "tag"}
_ARGUMENTS = {shown: name for name, shown in _NAMES.items()}


def _shown(argument: str) -> str:
    return _NAMES.get(argument, argument)


def _written(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, bool):
        return [(name, "true" if value else "false")]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, str]", value)
        return [(name, f"{_escaped(key)}:{one}") for key, one in pairs.items()]
    if isinstance(value, list):
        return [(name, str(one)) for one in cast("Any", value)]
    return [(name, str(value))]


# How parameters are read. What a text of theirs means is looked at again as an argument.


def _one(texts: list[str], name: str) -> str:
    if len(texts) > 1:
        raise UsageError(f"{name} is given {len(texts)} times; it is taken once")
    return texts[0]


def _flag(texts: list[str], name: str) -> bool:
    text = _one(texts, name)
    if text not in ("true", "false"):
        raise UsageError(f"{name} must be true or false, not {text[:100]!r}")
    return text == "true"


_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?")


def _whole(texts: list[str], name: str) -> int:
    text = _one(texts, name)
    if _WHOLE.fullmatch(text) is None:
        raise UsageError(f"{name} must be a whole number, not {text[:100]!r}")
    return int(text)


def _number(texts: list[str], name: str) -> float:
    text = _one(texts, name)
    if _NUMBER.fullmatch(text) is None:
        raise UsageError(f"{name} must be a number, not {text[:100]!r}")
    return float(text)


def _when(texts: list[str], name: str) -> float | str:
    text = _one(texts, name)
    return text if _NUMBER.fullmatch(text) is None else float(text)


def _several(texts: list[str], _: str) -> list[str]:
    return [one for text in texts for one in text.split(",")]


def _pairs(texts: list[str], name: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        found = _PAIR.fullmatch(text)
        if found is None:
            raise UsageError(
                f"{name} must be of the form KEY:VALUE (a colon in the key as \\:), not "
                f"{text[:100]!r}"
            )
        pairs[_UNESCAPED.sub(r"\1", found[1])] = found[2]
    return pairs


#: The key ends at the first colon without a backslash before it.
_PAIR = re.compile(r"((?:[^\\:]|\\.)*):(.*)", re.DOTALL)
_UNESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace(":", "\\:")


def _reader(kind: Any) -> Callable[[list[str], str], Any]:
    """Give what reads the parameter of an argument of a type."""
    options = [one for one in get_args(kind) if one is not type(None)]
    plain = options[0] if len(options) == 1 else kind
    if getattr(plain, "__origin__", None) is list:
        return _several
    if getattr(plain, "__origin__", None) is dict:
        return _pairs
    return _READERS.get(plain, _one)


_READERS: dict[Any, Callable[[list[str], str], Any]] = {
    bool: _flag,
    int: _whole,
    float: _number,
    When: _when,
    datetime: _one,
    str: _one,
}


def _fields(operation: str) -> tuple[str, ...]:
    return tuple(one.name for one in attrs.fields(OPERATIONS[operation].arguments))


_ROUTES = (
    Route(method="POST", path="/instances", operation="start", query=("wait",), body="fields",
          done=201, pending=202),
    Route(method="GET", path="/instances", operation="query", query=_fields("query")),
    Route(method="POST", path="/instances/actions", operation="actions", body="fields"),
    Route(method="POST", path="/instances/purge", operation="purge", body="fields"),
    Route(method="GET", path="/instances/{instance_id}", operation="status", query=("wait",),
          pending=202),
    Route(method="DELETE", path="/instances/{instance_id}", operation="purge_instance",
          query=("recursive",)),
    Route(method="GET", path="/instances/{instance_id}/history", operation="history",
          query=("after", "limit", "order")),
    Route(method="GET", path="/instances/{instance_id}/explain", operation="explain"),
    Route(method="GET", path="/instances/{instance_id}/trace", operation="trace",
          query=("after", "limit")),
    Route(method="POST", path="/instances/{instance_id}/events/{name}", operation="raise_event",
          body="data", done=202),
    *(
        Route(method="POST", path=f"/instances/{{instance_id}}/{action}", operation=action,
              body="fields", done=202)
        for action in ("cancel", "terminate", "suspend", "resume", "rewind")
    ),
    Route(method="POST", path="/instances/{instance_id}/restart", operation="restart",
          body="fields", done=201),
    Route(method="POST", path="/instances/{instance_id}/fork", operation="fork", query=("at",),
          body="fields", done=201),
    Route(method="POST", path="/instances/{actor}/retry", operation="retry", body="fields",
          done=202),
    Route(method="GET", path="/entities", operation="entities", query=_fields("entities")),
    Route(method="POST", path="/entities/clean", operation="clean_entities", body="fields"),
    Route(method="GET", path="/entities/{entity_name}/{entity_key}", operation="entity",
          missing=True),
    Route(method="DELETE", path="/entities/{entity_name}/{entity_key}", operation="purge_entity"),
    Route(method="GET", path="/entities/{entity_name}/{entity_key}/state",
          operation="entity_state", missing=True),
    Route(method="GET", path="/entities/{entity_name}/{entity_key}/explain",
          operation="explain_entity"),
    Route(method="POST", path="/entities/{entity_name}/{entity_key}/call/{operation}",
          operation="call", query=("wait",), body="input", pending=202),
    Route(method="POST", path="/entities/{entity_name}/{entity_key}/signal/{operation}",
          operation="signal", query=("at",), body="input", done=202),
    Route(method="POST", path="/entities/{entity_name}/{entity_key}/retry", operation="retry",
          body="fields", done=202),
    Route(method="POST", path="/signals", operation="signals", body="signals", done=202),
    Route(method="GET", path="/parked", operation="parked", query=_fields("parked")),
    Route(method="GET", path="/shards", operation="statistics", query=("hottest",)),
    Route(method="POST", path="/partitions/{partition}/move", operation="move_partition",
          body="fields"),
    Route(method="GET", path="/nodes", operation="nodes"),
    Route(method="POST", path="/nodes/{member}/drain", operation="drain_node", body="fields"),
    Route(method="POST", path="/nodes/{member}/undrain", operation="undrain_node", body="fields"),
    Route(method="GET", path="/changes", operation="changes", query=_fields("changes")),
    Route(method="GET", path="/application", operation="describe"),
)  # fmt: skip

ROUTES: tuple[Route, ...] = _ROUTES
"""All routes; of two that fit, the first counts."""

ROUTE_OF: dict[str, Route] = {}
"""The route by which the client asks for an operation."""
for _route in ROUTES:
    ROUTE_OF.setdefault(_route.operation, _route)

_BY_SHAPE: dict[tuple[str, int], list[Route]] = {}
for _route in ROUTES:
    _BY_SHAPE.setdefault((_route.pattern[0], len(_route.pattern)), []).append(_route)


def find(segments: list[str]) -> list[tuple[Route, list[str]]]:
    """Give the routes that a path may mean, each with the segments that stand for its names."""
    found: list[tuple[Route, list[str]]] = []
    if not segments:
        return found
    for route in _BY_SHAPE.get((segments[0], len(segments)), ()):
        names: list[str] = []
        for wanted, given in zip(route.pattern, segments, strict=True):
            if wanted[0] == "{":
                names.append(given)
            elif wanted != given:
                break
        else:
            found.append((route, names))
    return found
