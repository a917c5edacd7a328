"""Types whose values cross to another process, and the program that reads them there.

Run as a program, it reads a pickled list of annotation numbers and JSON texts, and answers with
what it decodes them to and encodes that to.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import pickle
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar, cast
from uuid import UUID

import attrs
import pydantic
from hypothesis import strategies as st

from perdure.actors.codec import codec_for

T = TypeVar("T")
Text = NewType("Text", str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
    CRIMSON = "red"  # noqa: PIE796

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls.RED


class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    ALL = 3


class Page(NamedTuple):
    lines: list[str]
    number: int = 1


class Options(TypedDict, total=False):
    name: str
    tags: frozenset[str]


@dataclasses.dataclass
class Event:
    kind: str


@dataclasses.dataclass
class Payment(Event):
    cents: int = 0


@dataclasses.dataclass(kw_only=True)
class Keyed:
    one: int
    two: str = ""


@dataclasses.dataclass
class Summed:
    items: list[int]
    total: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.items)


@dataclasses.dataclass(frozen=True)
class FrozenSummed:
    items: tuple[int, ...]
    total: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.items))


@dataclasses.dataclass
class Scaled:
    factor: dataclasses.InitVar[int]
    value: int = 0

    def __post_init__(self, factor: int) -> None:
        self.value *= factor


@attrs.define
class Aliased:
    _secret: int
    shown: str = attrs.field(alias="s", default="")
    late: int = attrs.field(init=False, default=3)


def stripped(text: str) -> str:
    return text.strip()


def doubled(number: int) -> int:
    return number * 2


@attrs.define
class Stripped:
    text: str = attrs.field(converter=stripped)


@attrs.define
class Doubled:
    number: int = attrs.field(converter=doubled)


class Name(str):
    pass


class Inner(pydantic.BaseModel):
    labels: set[str] = set()
    when: datetime | None = None


class Wide(Inner):
    more: int = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    name: str = pydantic.Field(alias="theName")
    inner: Inner = Inner()
    parts: dict[str, frozenset[int]] = {}
    amount: Decimal = Decimal(0)
    _private: int = 0

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.name)


class Login(pydantic.BaseModel):
    user: str
    password: pydantic.SecretStr
    note: str = pydantic.Field(default="none", exclude=True)


class Extra(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    day: date
    pair: tuple[int, str] = (0, "")


class Between(pydantic.BaseModel):
    text: str = pydantic.Field(validation_alias="in", serialization_alias="out")


class Hidden(pydantic.BaseModel):
    number: int

    @pydantic.field_serializer("number")
    def write(self, number: int) -> int:
        return abs(number)


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


class Held(pydantic.BaseModel, Generic[T]):
    content: T


class Numbers(pydantic.RootModel[list[int]]):
    pass


def spoilt(model: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        model.__dict__[name] = value
    return model


def changed(value: Any, **changes: Any) -> Any:
    for name, one in changes.items():
        object.__setattr__(value, name, one)
    return value


def private(model: Model, number: int) -> Model:
    model._private = number
    return model


TEXT = st.text(max_size=6)  # surrogates as well
INT = st.integers() | st.integers(-(2**64), 2**65)
FLOAT = st.floats()
INNER = st.builds(
    Inner, labels=st.sets(TEXT), when=st.none() | st.datetimes(timezones=st.just(UTC))
)
WIDE = st.builds(Wide, labels=st.sets(TEXT), more=INT)
MODEL = st.builds(
    Model,
    theName=TEXT,
    inner=INNER | WIDE,
    parts=st.dictionaries(TEXT, st.frozensets(INT), max_size=3),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
)
EVENT = st.builds(Event, TEXT) | st.builds(Payment, TEXT, INT)
SUMMED = st.builds(Summed, st.lists(INT))

#: Annotations with values that may fit them.
CROSSING: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, INT | st.booleans() | FLOAT | st.builds(Name, TEXT)),
    (float, FLOAT | INT | st.just(-0.0)),
    (str, TEXT | st.builds(Name, TEXT)),
    (bytes, st.binary()),
    (Text, TEXT),
    (Annotated[int, "x"], INT),
    (Literal["a", 1], st.sampled_from(["a", 1, True, 1.0])),
    (Decimal, st.decimals(allow_nan=False)),
    (UUID, st.uuids()),
    (date, st.dates() | st.datetimes()),
    (datetime, st.datetimes() | st.datetimes(timezones=st.timezones())),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Color, st.sampled_from(Color)),
    (Rights, st.sampled_from(Rights)),
    (set[str], st.sets(TEXT)),
    (frozenset[tuple[str, int]], st.frozensets(st.tuples(TEXT, INT))),
    (dict[str, int], st.dictionaries(TEXT, INT) | st.builds(collections.Counter[str], TEXT)),
    (dict[int, list[str]], st.dictionaries(INT, st.lists(TEXT))),
    (dict[Color, date], st.dictionaries(st.sampled_from(Color), st.dates())),
    (list[int], st.lists(INT) | st.lists(INT).map(tuple)),
    (Sequence[str], st.lists(TEXT) | st.lists(TEXT).map(tuple)),
    (tuple[list[str], int], st.tuples(st.lists(TEXT), INT)),
    (
        collections.deque[int],
        st.builds(collections.deque[int], st.lists(INT), st.none() | st.just(2)),
    ),
    (Page, st.builds(Page, st.lists(TEXT), INT)),
    (Options, st.fixed_dictionaries({}, optional={"name": TEXT, "tags": st.frozensets(TEXT)})),
    (Event, EVENT | EVENT.map(lambda event: changed(event, more=1))),
    (Event | Payment, EVENT),
    (Keyed, st.builds(Keyed, one=INT, two=TEXT)),
    (Summed, SUMMED | SUMMED.map(lambda value: changed(value, total=1))),
    (FrozenSummed, st.builds(FrozenSummed, st.lists(INT).map(tuple))),
    (Scaled, st.builds(Scaled, INT, INT)),
    (
        Aliased,
        st.builds(Aliased, INT, s=TEXT)
        | st.builds(Aliased, INT).map(lambda value: changed(value, late=4)),
    ),
    (
        Stripped,
        st.builds(Stripped, TEXT)
        | st.builds(Stripped, TEXT).map(lambda value: changed(value, text=" x ")),
    ),
    (Doubled, st.builds(Doubled, INT)),
    (Inner, INNER | WIDE | INNER.map(lambda model: spoilt(model, labels="none"))),
    (Model, MODEL | MODEL.map(lambda model: private(model, 5))),
    (list[Model | int], st.lists(MODEL | INT, max_size=3)),
    (Login, st.builds(Login, user=TEXT, password=TEXT.map(pydantic.SecretStr), note=TEXT)),
    (Extra, st.dictionaries(TEXT, INT, max_size=2).map(Extra.model_validate)),
    (Strict, st.builds(Strict, day=st.dates(), pair=st.tuples(INT, TEXT))),
    (Between, TEXT.map(lambda text: Between.model_validate({"in": text}))),
    (Hidden, st.builds(Hidden, number=INT)),
    (Owner, st.builds(Owner, pet=st.builds(Cat, lives=INT) | st.builds(Dog))),
    (Held[int], st.builds(Held[int], content=INT) | st.builds(Held, content=INT)),
    (Held, st.builds(Held, content=INT) | st.builds(Held[int], content=INT)),
    (Held[set[str]], st.builds(Held[set[str]], content=st.sets(TEXT))),
    (Numbers, st.lists(INT).map(Numbers)),
]


def main() -> None:
    asked: list[tuple[int, bytes]] = pickle.load(sys.stdin.buffer)
    answers: list[tuple[Any, bytes]] = []
    for number, data in asked:
        codec = codec_for(CROSSING[number][0])
        value = codec.decode(data)
        answers.append((value, codec.encode(value)))
    pickle.dump(answers, cast("Any", sys.stdout.buffer))


if __name__ == "__main__":
    from tests.actors import crossing

    crossing.main()  # whose classes are those of the process that asks
