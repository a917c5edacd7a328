"""Addresses: instance ids, entity ids, and the text form that serves as an actor's key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from .errors import InvalidIdError, UsageError

E = TypeVar("E")

MAX_ID_LENGTH = 256


def check_text(text: object, what: str) -> str:
    """Refuse an id that is no text, empty, over-long or has control characters."""
    if not isinstance(text, str):
        raise InvalidIdError(f"{what} must be a str, not {type(text).__name__}")
    if not text:
        raise InvalidIdError(f"{what} must not be empty")
    if len(text) > MAX_ID_LENGTH:
        raise InvalidIdError(
            f"{what} has {len(text)} characters; at most {MAX_ID_LENGTH} are allowed"
        )
    if not text.isprintable():
        bad = next(c for c in text if not c.isprintable())
        raise InvalidIdError(f"{what} {text!r} has a control character ({bad!r})")
    return text


def check_instance_id(instance_id: object) -> str:
    """Refuse a bad instance id; ``@`` at the start is kept for entities."""
    text = check_text(instance_id, "an instance id")
    if text[0] == "@":
        raise InvalidIdError(f"instance id {text!r} must not start with '@', which is for entities")
    return text


class EntityId(Generic[E]):
    """The address of an entity: its name, which ignores case, and its key, which does not.

    Args:
        entity: the entity class (or function), or its name.
        key: which one; any printable text of 1 to 256 characters.

    The text form is ``@counter@clicks``.

    Raises:
        InvalidIdError: bad name or key.
        UsageError: ``entity`` is a class or function that is no registered entity.
    """

    __slots__ = ("_text", "key", "name")

    name: str
    key: str

    @overload
    def __init__(self, entity: type[E], key: str) -> None: ...
    @overload
    def __init__(self: EntityId[Any], entity: str | Callable[..., Any], key: str) -> None: ...
    def __init__(self, entity: Any, key: str) -> None:
        if isinstance(entity, str):
            name = check_text(entity, "an entity name").casefold()
            if "@" in name:
                raise InvalidIdError(f"entity name {entity!r} must not contain '@'")
        else:
            found = (
                entity.__dict__.get("__perdure_entity__") if hasattr(entity, "__dict__") else None
            )
            if found is None:
                raise UsageError(
                    f"{entity!r} is no entity; decorate it with @app.entity, or pass the entity's name"
                )
            name = found
        self.name = name
        self.key = check_text(key, "an entity key")
        self._text = f"@{name}@{key}"

    @classmethod
    def parse(cls, text: str) -> EntityId[Any]:
        """Read the text form back."""
        if text.startswith("@"):
            name, separator, key = text[1:].partition("@")
            if separator:
                return EntityId(name, key)
        raise InvalidIdError(f"{text!r} is no entity id; the form is @name@key")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"EntityId({self.name!r}, {self.key!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntityId) and self._text == other._text

    def __lt__(self, other: EntityId[Any]) -> bool:
        return self._text < other._text

    def __hash__(self) -> int:
        return hash(self._text)
