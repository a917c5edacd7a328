"""Annotations and classes of every kind, with values of them."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
from hypothesis import strategies as st

from perdure.actors.codec.codec import codec_for

T = TypeVar("T")


Constrained = TypeVar("Constrained", int, str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    NUMBER = 1
    PAIR = (1, 2)


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


UserId = NewType("UserId", int)


@attrs.define
class Item:
    sku: str
    price: float
    count: int = 1


@dataclasses.dataclass
class Order:
    id: int
    items: list[Item]
    note: str | None = None


@attrs.frozen
class Money:
    amount: Decimal
    currency: Literal["EUR", "USD"]


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict):
    name: str
    size: NotRequired[int]


@attrs.define
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list["Node"])


@dataclasses.dataclass
class Link:
    following: Link | None = None


@attrs.define
class Circle:
    radius: float


@attrs.define
class Square:
    radius: float


class inner:  # noqa: N801
    @attrs.define
    class Circle:
        radius: int


@attrs.define
class BigCircle(Circle):
    name: str = "big"


@attrs.define
class Box(Generic[T]):
    content: T
    spare: list[T]


@attrs.define
class IntBox(Box[int]):
    pass


@attrs.define
class Private:
    _secret: int
    derived: int = attrs.field(init=False, default=3)


@dataclasses.dataclass
class Everything:
    flag: bool
    day: date
    moment: datetime
    clock: time
    span: timedelta
    ident: UUID
    amount: Decimal
    raw: bytes
    color: Color
    level: Level
    permission: Permission
    pair: tuple[int, str]
    many: tuple[float, ...]
    unique: set[int]
    frozen: frozenset[str]
    mapping: dict[UUID, list[date]]
    maybe: Money | None
    either: int | str | list[int] | None
    shape: Circle | Square
    user: UserId
    noted: Annotated[int, "a note"]
    point: Point
    options: Options


def round_trip(annotation: Any, value: Any) -> Any:
    codec = codec_for(annotation)
    return codec.decode(codec.encode(value))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


INT = st.integers(-(2**63), 2**64 - 1)


FLOAT = st.floats(allow_nan=False, allow_infinity=False)


OFFSETS = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)


ZONES = OFFSETS | st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), UTC])


AWARE = st.builds(
    datetime.replace, st.datetimes(timezones=ZONES, allow_imaginary=True), fold=st.integers(0, 1)
)


MONEY = st.builds(
    Money,
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    currency=st.sampled_from(["EUR", "USD"]),
)


SHAPE = st.builds(Circle, FLOAT) | st.builds(Square, FLOAT)


POINT = st.builds(Point, INT, INT)


OPTIONS = st.fixed_dictionaries({"name": TEXT}, optional={"size": INT})


SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, INT),
    (bool, st.booleans()),
    (str, TEXT),
    (float, FLOAT),
    (type(None), st.none()),
    (bytes, st.binary(max_size=20)),
    (datetime, st.datetimes() | AWARE),
    (date, st.dates()),
    (time, st.times() | st.builds(time.replace, st.times(timezones=ZONES), fold=st.just(1))),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Mixed, st.sampled_from(Mixed)),
    (Permission, st.sampled_from(Permission) | st.just(Permission.READ | Permission.WRITE)),
    (Literal["a", 1, True, None], st.sampled_from(["a", 1, True, None])),
    (UserId, INT),
    (Money, MONEY),
    (Point, POINT),
    (int | str | float | None, INT | TEXT | FLOAT | st.none()),
    (str | datetime | date | bytes, TEXT | AWARE | st.dates() | st.binary(max_size=9)),
]


def of(generic: Any, argument: Any, *others: Any) -> Any:
    return generic[(argument, *others) if others else argument]


def typed_values() -> st.SearchStrategy[tuple[Any, Any]]:
    """Draw an annotation with a value of it, nested at random."""
    kinds = st.sampled_from(SCALARS)
    unhashable: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (Item, st.builds(Item, TEXT, FLOAT, INT)),
        (Order, st.builds(Order, INT, st.lists(st.builds(Item, TEXT, FLOAT)), st.none() | TEXT)),
        (Circle | Square, SHAPE),
        (Options, OPTIONS),
        (Circle | dict[str, int] | None, SHAPE.filter(is_circle) | st.dictionaries(TEXT, INT)),
    ]
    keys: list[tuple[Any, st.SearchStrategy[Any]]] = [
        (str, TEXT),
        (int, INT),
        (UUID, st.uuids()),
        (date, st.dates()),
        (datetime, st.datetimes()),
        (Color, st.sampled_from(Color)),
        (Level, st.sampled_from(Level)),
    ]

    def extend(kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return (
            kinds.map(lambda kind: (of(list, kind[0]), st.lists(kind[1], max_size=4)))
            | kinds.map(
                lambda kind: (of(tuple, kind[0], ...), st.lists(kind[1], max_size=4).map(tuple))
            )
            | kinds.map(lambda kind: (of(Optional, kind[0]), st.none() | kind[1]))
            | st.tuples(kinds, kinds).map(
                lambda pair: (of(tuple, pair[0][0], pair[1][0]), st.tuples(pair[0][1], pair[1][1]))
            )
            | st.tuples(st.sampled_from(keys), kinds).map(
                lambda pair: (
                    of(dict, pair[0][0], pair[1][0]),
                    st.dictionaries(pair[0][1], pair[1][1], max_size=4),
                )
            )
            | kinds.map(lambda kind: (of(Box, kind[0]), st.builds(Box, kind[1], st.lists(kind[1]))))
        )

    sets = kinds.map(lambda kind: (of(set, kind[0]), st.sets(kind[1], max_size=4)))
    frozen = kinds.map(lambda kind: (of(frozenset, kind[0]), st.frozensets(kind[1], max_size=4)))
    nested = st.recursive(kinds | st.sampled_from(unhashable) | sets | frozen, extend, max_leaves=4)
    return nested.flatmap(lambda kind: st.tuples(st.just(kind[0]), kind[1]))


def is_circle(value: object) -> bool:
    return isinstance(value, Circle)


class Unprintable(BaseException):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


ANYTHING: list[BaseException] = [
    ValueError("no"),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    Unprintable(),
]


@attrs.define
class Small:
    value: int = 0


@attrs.define
class Large:
    number: int = 0
    names: list[str] = attrs.field(factory=list[str])
    seen: set[int] = attrs.field(factory=set[int])
    table: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    items: list[Item] = attrs.field(factory=list[Item])
    anything: Any = None
    point: Point = attrs.field(default=Point(0))
    maybe: list[int] | None = None
    node: Node = attrs.field(factory=lambda: Node(0))
    money: Money | None = None
