"""Facts: what a hub says of itself, as objects and as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
from attrs import frozen

from ..actors.classes import class_of, is_a
from ..actors.ids import EntityId

if TYPE_CHECKING:
    from cattrs import Converter

F = TypeVar("F", bound="Fact")


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


@frozen(kw_only=True)
class ParkedReason(Fact):
    """Why an actor takes no turns.

    Attributes:
        type: the kind of trouble: ``NondeterminismError``, ``UnknownNameError``, ``Crash``, ...
        reason: what is wrong, and where.
    """

    type: str
    reason: str


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


def read_fact(kind: type[F], value: Mapping[str, Any]) -> F:
    """Read a fact back from what its ``to_dict`` gave."""
    return _converter().structure(value, kind)


@cache
def _converter() -> Converter:
    from cattrs import Converter  # which a program that reads no facts never needs

    converter = Converter()
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_structure_hook_func(_is_entity_id, lambda text, _: EntityId.parse(text))
    return converter


def _is_entity_id(kind: Any) -> bool:
    return kind is EntityId or getattr(kind, "__origin__", None) is EntityId
