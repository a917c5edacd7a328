"""Facts: what a hub says of itself, as objects and as plain JSON values."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

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
        if set(map(type, value)) == {int}:  # of which there may be very many
            return [*value]
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


def in_parts(fact: Fact) -> Generator[None, None, dict[str, Any]]:
    """Give what its ``to_dict`` does, of a fact with long lists; pauses behind each of their items."""
    told: dict[str, Any] = {}
    for field in attrs.fields(cast("Any", type(fact))):
        if field.name.startswith("_"):
            continue
        value = getattr(fact, field.name)
        if is_a(value, tuple):
            listed = told[field.name] = list[Any]()
            for one in value:
                listed.append(json_form(one))
                yield
        else:
            told[field.name] = json_form(value)
    return told


def read_in_parts(kind: type[F], value: Mapping[str, Any]) -> Generator[None, None, F]:
    """Read a fact with long lists back, which are emptied; pauses behind each of their items."""
    converter, types = _converter(), get_type_hints(kind)
    fields: dict[str, Any] = {}
    for name, told in value.items():
        if get_origin(types[name]) is tuple:
            listed: list[Any] = []
            for place, one in enumerate(told):
                listed.append(converter.structure(one, get_args(types[name])[0]))
                told[place] = None
                yield
            fields[name] = tuple(listed)
        else:
            fields[name] = converter.structure(told, types[name])
    return kind(**fields)


@cache
def _converter() -> Converter:
    from cattrs import Converter  # which a program that reads no facts never needs

    converter = Converter()
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_structure_hook_func(_is_entity_id, lambda text, _: EntityId.parse(text))
    converter.register_structure_hook_func(_is_numbers, lambda some, _: tuple(some))
    return converter


def _is_entity_id(kind: Any) -> bool:
    return kind is EntityId or getattr(kind, "__origin__", None) is EntityId


def _is_numbers(kind: Any) -> bool:
    return bool(kind == tuple[int, ...])
