"""Addresses: instance ids, entity ids, and the text form that serves as an actor's key."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast, overload

from .arguments import is_a, refusal, text as plain_text
from .errors import InvalidIdError, UsageError
from .printing import repr_of

E = TypeVar("E")

MAX_ID_LENGTH = 256

#: From here on the id that a child is given has a hash in place of its parents' numbers.
CHILD_ID_LENGTH = 128
_HASH_LENGTH = 24

# Control characters, line breaks, and what no UTF-8 can hold.
_REFUSED_KINDS = frozenset({"Cc", "Cs", "Zl", "Zp"})

# Those that turn round what stands behind them: an id must not show as another one in a log.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shortened(id: str) -> str:
    """Make a long id of a child short: a hash of it, behind the part that says where it lives."""
    place, separator, _ = id.partition("::")
    hashed = hashlib.blake2b(id.encode(), digest_size=_HASH_LENGTH // 2).hexdigest()
    return f"{place}{separator}{hashed}"


def check_text(value: object, what: str, length: int = MAX_ID_LENGTH) -> str:
    """Refuse an id that is no text, empty, over-long or has characters that no id may have.

    Joiners, marks of direction and spaces that a script writes words with are taken.
    """
    id = value if type(value) is str else plain_text(value, what, InvalidIdError)
    if not id:
        raise InvalidIdError(f"{what} must not be empty")
    if len(id) > length:
        raise InvalidIdError(
            f"{what} {repr_of(id, 60)} has {len(id):,} characters; at most {length} are allowed"
        )
    if not id.isprintable():
        bad = next(filter(_is_refused, id), None)
        if bad is not None:
            raise InvalidIdError(
                f"{what} {id!r} has the character {bad!r}; control characters, line breaks, lone "
                "surrogates and characters that turn the direction of text are not allowed"
            )
    return id


def _is_refused(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in _REFUSED_KINDS


def check_folded(value: object, what: str) -> str:
    """Check a name and fold its case: names that differ in case are one."""
    folded = check_text(value, what).casefold()
    if folded.isascii() and len(folded) <= MAX_ID_LENGTH:  # some grow when folded
        return folded
    return check_text(folded, what)


def check_instance_id(instance_id: object, what: str = "instance_id") -> str:
    """Refuse a bad instance id; ``@`` at the start is kept for entities.

    A child of an instance whose id is as long as it may be has a longer one.
    """
    length = MAX_ID_LENGTH
    if type(instance_id) is str and 0 < len(instance_id) <= length and instance_id.isprintable():
        id = instance_id
    else:
        id = plain_text(instance_id, what, InvalidIdError)
        if "::" in id:
            length += len("::") + _HASH_LENGTH
        id = check_text(id, what, length)
    if id[0] == "@":
        raise InvalidIdError(
            f"{what} {id!r} must not start with '@', which is for entities (the id of an entity "
            "is an EntityId)"
        )
    return id


#: Names of entities as they were given, with the checked and folded form of each.
_FOLDED: dict[str, str] = {}
_FOLDED_MAX = 256

#: Classes that were named by ids, with their names, which they keep once they have one.
_NAMES: dict[type, str] = {}


class EntityId(Generic[E]):
    """The address of an entity: its name, which ignores case, and its key, which does not.

    Args:
        entity: the entity class (or function), or its name.
        key: which one; a text of 1 to 256 characters: no control characters, line breaks,
            lone surrogates, or characters that turn the direction of text.

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
        # A plain class has no code of a user's that a look at it would run.
        name = _NAMES.get(entity) if type(entity) is type else None
        if name is None:
            name = _name_of_entity(entity)
            if type(entity) is type:
                if len(_NAMES) >= _FOLDED_MAX:
                    _NAMES.clear()
                _NAMES[entity] = name
        self.name = name
        if type(key) is not str or not 0 < len(key) <= MAX_ID_LENGTH or not key.isprintable():
            key = check_text(key, "an entity key")
        self.key = key
        self._text = f"@{name}@{key}"

    @classmethod
    def parse(cls, text: str) -> EntityId[Any]:
        """Read the text form back."""
        given = plain_text(text, "text", InvalidIdError)
        if given.startswith("@"):
            name, separator, key = given[1:].partition("@")
            folded = _FOLDED.get(name)
            if folded is not None and 0 < len(key) <= MAX_ID_LENGTH and key.isprintable():
                id: EntityId[Any] = cast("Any", EntityId).__new__(EntityId)
                id.name, id.key, id._text = folded, key, f"@{folded}@{key}"
                return id
            if separator:
                made: EntityId[Any] = EntityId(name, key)
                if len(_FOLDED) >= _FOLDED_MAX:
                    _FOLDED.clear()  # names come from callers, and must not fill the memory
                _FOLDED[name] = made.name
                return made
        raise InvalidIdError(f"text {repr_of(given)} is no entity id; the form is @name@key")

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


def _name_of_entity(entity: Any) -> str:
    if is_a(entity, str):
        name = check_folded(entity, "an entity name")
        if "@" in name:
            raise InvalidIdError(f"entity name {name!r} must not contain '@'")
        return name
    try:
        found = entity.__dict__.get("__perdure_entity__")
    except Exception:
        found = None
    if type(found) is not str:
        raise UsageError(
            f"entity must be an entity's class, function or name, not {repr_of(entity)}; "
            "decorate it with @app.entity"
        )
    return found


def is_entity(key: str) -> bool:
    """Whether an actor's key is that of an entity, and not an instance id."""
    return key[0] == "@"


def split_entity(key: str) -> tuple[str, str]:
    """Give the entity's name, and the key it has under that, of an entity's key as an actor."""
    name, _, rest = key[1:].partition("@")
    return name, rest


def entity_id(value: object, name: str = "id") -> EntityId[Any]:
    """Give an ``EntityId`` back.

    Raises:
        UsageError: it is none.
    """
    if not is_a(value, EntityId):
        raise refusal(name, "an EntityId", value)
    return cast("EntityId[Any]", value)
