"""The description of ``/api/v1`` in OpenAPI 3.1, made from what reads its requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from inspect import cleandoc
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import attrs

import perdure
from perdure import EntityId, EntityStatus, RuntimeStatus

from ...runtime.client.operations import ItemsOf, Operation, PageOf, StatusName, When
from .problems import MEDIA_TYPE
from .routes import CONTEXT, IDEMPOTENCY_KEY, ROUTES, Route

Schema = dict[str, Any]

_TIME: Schema = {"type": "string", "format": "date-time"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    datetime: _TIME,
    StatusName: {"enum": [one.value for one in RuntimeStatus]},
    When: {"anyOf": [_TIME, {"type": "number", "minimum": 0, "description": "seconds from now"}]},
}
_ENTITY: Schema = {"type": "string", "pattern": "^@[^@]+@.+$", "description": "@name@key"}
#: How entities' failed operations are shown.
_FAILURES: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "time": _TIME,
            "operation": {"type": "string"},
            "error_type": {"type": "string"},
            "message": {"type": "string"},
        },
    },
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "What is wrong (RFC 9457); type is urn:perdure:CLASS of the error.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "arguments": {"type": "array", "description": "what the error was made of", "items": {}},
    },
    "required": ["type", "title", "status", "detail"],
}
_REFUSALS = {
    400: "An argument is wrong; nothing happened.",
    401: "A key is needed.",
    403: "The key may only read, or a page of another origin asks.",
    404: "There is no such thing.",
    409: "It is not in a state that allows this.",
    413: "It is too large.",
    422: "The request id was used for another request.",
    424: "The other side's code failed.",
    429: "Too much waits already; ask again later.",
    503: "Nothing happened; ask again later.",
    504: "It may have happened: ask again under the same request id.",
}


@lru_cache(maxsize=8)
def document(url: str) -> Schema:
    """Give the description of the API that stands at a URL."""
    schemas = _Schemas()
    paths: dict[str, Schema] = {}
    ids: set[str] = set()
    for route in ROUTES:
        described = _operation(route, schemas)
        if described["operationId"] in ids:
            described["operationId"] += f"_{route.pattern[0]}"
        ids.add(described["operationId"])
        paths.setdefault(route.path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Perdure",
            "version": perdure.__version__,
            "description": "Starts, signals, queries and manages a hub's actors.",
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM, **schemas.made},
            "responses": {
                str(status): {
                    "description": words,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, words in _REFUSALS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "code": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}, {"code": []}],
    }


def _operation(route: Route, schemas: _Schemas) -> Schema:
    fields = {one.name: one for one in attrs.fields(route.row.arguments)}
    notes = _notes(route.row.arguments)
    types = get_type_hints(route.row.arguments)
    parameters = [_in_path(name) for name in route.in_path]
    for name in route.query:
        schema = schemas.of(types[name]) if name != "tags" else _TAGS
        parameters.append(
            {
                "name": "tag" if name == "tags" else name,
                "in": "query",
                "schema": _without_null(schema) | dict(fields[name].metadata),
                **_described(notes.get(name, "")),
            }
        )
    if route.has_key:
        parameters.append(_KEY)
    if route.has_context:
        parameters.append(_CONTEXT)
    described: Schema = {
        "operationId": route.operation,
        "summary": route.row.title,
        "parameters": parameters,
        "responses": _responses(route, schemas),
    }
    if route.body == "fields":
        some = {name: fields[name] for name in fields if name in route.in_body}
        body = schemas.object_of({name: types[name] for name in some}, some, notes)
        body["additionalProperties"] = False
        described["requestBody"] = _json(body, required=bool(body.get("required")))
    elif route.body != "none":
        required = fields[route.body].default is attrs.NOTHING
        described["requestBody"] = _json(schemas.of(types[route.body]), required=required)
    return described


_TAGS: Schema = {
    "type": "array",
    "items": {"type": "string", "pattern": "^([^\\\\:]|\\\\.)*:"},
    "description": "KEY:VALUE; a colon in the key as \\:",
}
_KEY: Schema = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "description": "makes the request safe to repeat: it is applied once",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}
_CONTEXT: Schema = {
    "name": CONTEXT,
    "in": "header",
    "description": "what the application's context variables are to hold, as a JSON object",
    "schema": {"type": "string"},
}


def _in_path(name: str) -> Schema:
    schema: Schema = (
        _COUNT if name in ("partition", "member") else {"type": "string", "minLength": 1}
    )
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _described(words: str) -> Schema:
    return {"description": words} if words else {}


def _json(schema: Schema, **more: Any) -> Schema:
    return {"content": {"application/json": {"schema": schema}}, **more}


def _responses(route: Route, schemas: _Schemas) -> Schema:
    result = schemas.of_result(route.row.result)
    if route.operation == "changes":
        result["description"] = "Some changes, where wait is given."
    responses: Schema = {str(route.done): _json(result, description="Done.")}
    if route.operation == "changes":
        parts = dict.fromkeys(("id", "event", "data"), _PLAIN[str])
        stream: Schema = {"type": "object", "properties": parts, "description": "one event"}
        responses["200"]["content"]["text/event-stream"] = {"schema": stream}
    if route.pending is not None:
        responses[str(route.pending)] = _json(result, description="It has not ended yet.")
        responses.setdefault("200", _json(result, description="It has ended."))
    for status in _REFUSALS:
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    responses["default"] = _problem("Something else is wrong.")
    return responses


def _problem(words: str) -> Schema:
    return {
        "description": words,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _without_null(schema: Schema) -> Schema:
    options = schema.get("anyOf")
    if options is None:
        return schema
    left = [one for one in options if one != {"type": "null"}]
    return left[0] if len(left) == 1 else {**schema, "anyOf": left}


class _Schemas:
    """Schemas of types; those of classes are made once, and referred to.

    Attributes:
        made: those of classes, by name.
    """

    def __init__(self) -> None:
        self.made: dict[str, Schema] = {}

    def of_result(self, result: Any) -> Schema:
        """Give the schema of what an operation gives."""
        match result:
            case PageOf(item=item):
                page: Schema = {"items": {"type": "array", "items": self.of(item)}}
                page |= {"cursor": {"type": ["string", "null"]}, "count": _COUNT}
                return {"type": "object", "properties": page, "required": ["items", "cursor"]}
            case ItemsOf(item=item):
                items: Schema = {"items": {"type": "array", "items": self.of(item)}}
                return {"type": "object", "properties": items, "required": ["items"]}
            case dict():
                given = cast("Schema", result)
                properties: dict[str, Any] = given.get("properties", {})
                made = {name: self.of_result(one) for name, one in properties.items()}
                return {**given, "properties": made} if made else given
            case _:
                return self.of(result)

    def of(self, kind: Any) -> Schema:
        """Give the schema of a type."""
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind is Any or isinstance(kind, TypeVar):
            return {}
        origin, args = get_origin(kind), get_args(kind)
        if kind is EntityId or origin is EntityId:
            return _ENTITY
        if origin is EntityStatus:
            kind = EntityStatus
        elif origin is Literal:
            return {"enum": [*args]}
        elif origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            return {"type": "array", "prefixItems": [self.of(one) for one in args]}
        elif isinstance(origin, type) and issubclass(origin, (Sequence, tuple)):
            return {"type": "array", "items": self.of(args[0])}
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(args[1])}
        elif origin is not None:
            return {"anyOf": [self.of(one) for one in args]}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"type": "string", "enum": [one.value for one in kind]}
        return self._ref(cast("type[Any]", kind))

    def _ref(self, kind: type) -> Schema:
        name = kind.__name__
        if name not in self.made:
            self.made[name] = {}  # for one that has itself as a part
            self.made[name] = self._class(kind)
        return {"$ref": f"#/components/schemas/{name}"}

    def _class(self, kind: type) -> Schema:
        fields = {
            one.name: one for one in attrs.fields(cast("Any", kind)) if not one.name.startswith("_")
        }
        schema = self.object_of(get_type_hints(kind), fields, _notes(kind))
        if kind.__module__ == Operation.__module__:  # arguments, of which no others are taken
            schema["additionalProperties"] = False
        if kind is EntityStatus:
            schema["properties"] |= {"failures": _FAILURES, "schema_version": _COUNT}
        return schema

    def object_of(
        self, types: Mapping[str, Any], fields: Mapping[str, Any], notes: Mapping[str, str]
    ) -> Schema:
        """Give the schema of an object of some fields."""
        properties: dict[str, Schema] = {}
        for name, one in fields.items():
            schema = {**self.of(types[name]), **_described(notes.get(name, "")), **one.metadata}
            if isinstance(one.default, (str, int, bool, float)):
                schema["default"] = one.default
            properties[name] = schema
        required = [name for name, one in fields.items() if one.default is attrs.NOTHING]
        made: Schema = {"type": "object", "properties": properties}
        return {**made, "required": required} if required else made


_NOTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def _notes(kind: type) -> dict[str, str]:
    """Give what the docstring of a class says of its attributes."""
    # From 3.13 on docstrings come without the indentation of their class.
    _, _, told = cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(words.split()) for name, words in _NOTE.findall(told)}
