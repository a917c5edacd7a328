"""pydantic models, which pydantic itself writes and reads.

What pydantic writes need not be what it reads: fields may be hidden or left out, a serializer may
say less than there is, and a field may have been assigned what its type does not allow. So the
shape is unsure: whoever encodes with it reads back what was written, and compares.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import orjson

from ..classes import class_of, has, is_a
from ..printing import text_of
from .shapes import Fault, Shape, kinds, member_path, wrong

_ALL_KINDS = kinds("null", "boolean", "integer", "float", "string", "array", "object")


def is_model(cls: Any) -> bool:
    """Say whether a class is a pydantic model."""
    return has(cls, "__pydantic_validator__") and has(cls, "model_validate_json")


def pydantic_shape(cls: Any) -> Shape:
    """Give the shape of a pydantic model."""
    name = cls.__name__
    by_name = "by_name" in inspect.signature(cls.model_validate_json).parameters
    # By the fields' names where what is written so can be read, which older pydantic cannot.
    reading: dict[str, Any] = {"by_name": True, "by_alias": True} if by_name else {}
    origin = _origin(cls)

    def encode(value: Any) -> Any:
        given = class_of(value)
        if given is not cls and not (is_model(given) and _origin(given) is origin):
            raise wrong(name, value, cls)
        written = value.model_dump(
            mode="json", by_alias=not by_name, round_trip=True, warnings=False
        )
        return _in_order(value, written)

    def decode(value: Any, _: Any = None) -> Any:
        try:
            # As JSON, which a strict model reads a date or a tuple from.
            return cls.model_validate_json(orjson.dumps(value), **reading)
        except ValueError as error:
            raise _fault(error) from None

    any_kind = bool(getattr(cls, "__pydantic_root_model__", False))
    # Loose, since pydantic lets nan through; no record, since it may forbid unknown fields.
    return Shape(
        name,
        _ALL_KINDS if any_kind else kinds("object"),
        (cls,),
        encode,
        decode,
        loose=True,
        unsure=True,
    )


def _origin(cls: Any) -> Any:
    return cls.__pydantic_generic_metadata__["origin"] or cls


def _fault(error: ValueError) -> Fault:
    """Name the first of pydantic's complaints, without the value that it quotes."""
    errors: Any = getattr(error, "errors", None)
    if errors is None:
        return Fault(f"{type(error).__name__}: {text_of(error)}")
    first: Any = errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(
        f"[{part}]" if isinstance(part, int) else member_path(part) for part in first["loc"]
    )
    return Fault(text_of(first["msg"]), where)


def _in_order(value: Any, written: Any) -> Any:
    """Sort what sets were written to: their own order differs between processes."""
    if is_a(value, (set, frozenset)) and is_a(written, list):
        parts: list[Any] = [
            _in_order(one, other) for one, other in zip(value, written, strict=False)
        ]
        return sorted(parts, key=_text)
    if is_a(value, (list, tuple)) and is_a(written, list):
        return [_in_order(one, other) for one, other in zip(value, written, strict=False)]
    if is_a(written, dict):
        if is_a(value, dict):
            pairs = zip(value.values(), written.items(), strict=False)
            return {key: _in_order(one, other) for one, (key, other) in pairs}
        if is_model(type(value)) or dataclasses.is_dataclass(value):
            return {
                key: _in_order(getattr(value, key, None), other) for key, other in written.items()
            }
    return written


def _text(written: Any) -> bytes:
    return orjson.dumps(written)
