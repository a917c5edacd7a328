"""Facts: what a hub says of itself, as objects and as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import attrs

from ..actors.classes import class_of, is_a
from ..actors.ids import EntityId


class Fact:
    """Something that is true of a hub, an instance or an entity, in an attrs class."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values only: times in ISO 8601, ids and statuses as texts."""
        return {
            field.name: json_form(getattr(self, field.name))
            for field in attrs.fields(cast("Any", type(self)))
            if not field.name.startswith("_")
        }


def json_form(value: Any) -> Any:
    """Give a value of a fact as JSON values."""
    if isinstance(value, datetime):
        return value.isoformat()
    if is_a(value, (str, EntityId)):
        return str.__str__(value) if isinstance(value, str) else str(value)
    if is_a(value, Mapping):
        return {str(key): json_form(one) for key, one in value.items()}
    if is_a(value, (list, tuple)):
        return [json_form(one) for one in value]
    if isinstance(value, Fact):
        return value.to_dict()
    if attrs.has(class_of(value)):
        return {
            field.name: json_form(getattr(value, field.name))
            for field in attrs.fields(class_of(value))
        }
    return value
