from __future__ import annotations

import collections
import dataclasses
import enum
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
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
import orjson
import pytest
from hypothesis import given, strategies as st

from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.recursion import MAX_RECURSION
from perdure.actors.codec.snapshots import snapshotter
from perdure.actors.codec.states import state_codec
from perdure.actors.errors import PayloadError, RegistrationError

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


@given(typed_values())
def test_what_is_encoded_is_decoded_equal(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn

    assert round_trip(annotation, value) == value


@given(typed_values())
def test_encoding_what_was_decoded_gives_the_same_bytes(drawn: tuple[Any, Any]) -> None:
    annotation, value = drawn
    codec = codec_for(annotation)
    data = codec.encode(value)

    assert codec.encode(codec.decode(data)) == data


@given(
    st.builds(
        Everything,
        flag=st.booleans(),
        moment=AWARE,
        amount=st.decimals(allow_nan=False),
        level=st.sampled_from(Level),
        color=st.sampled_from(Color),
        permission=st.sampled_from(Permission),
        pair=st.tuples(INT, TEXT),
        many=st.lists(FLOAT).map(tuple),
        unique=st.sets(INT),
        frozen=st.frozensets(TEXT),
        mapping=st.dictionaries(st.uuids(), st.lists(st.dates(), max_size=2), max_size=2),
        maybe=st.none() | MONEY,
        either=INT | TEXT | st.lists(INT) | st.none(),
        shape=SHAPE,
        user=INT,
        noted=INT,
        point=POINT,
        options=OPTIONS,
    )
)
def test_a_class_of_all_kinds_of_fields_comes_back_equal(value: Everything) -> None:
    assert round_trip(Everything, value) == value


JSON = st.recursive(
    st.none() | st.booleans() | INT | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(JSON)
def test_plain_json_crosses_untyped_as_it_is(value: Any) -> None:
    assert round_trip(Any, value) == value


@given(typed_values())
def test_untyped_takes_every_supported_value(drawn: tuple[Any, Any]) -> None:
    value = drawn[1]
    reason = ""

    try:
        codec_for(Any).encode(value)
    except PayloadError as error:
        reason = error.reason

    # Keys that are no text need an annotation that says how to read them.
    assert reason in ("", "Dict key must be str")


@given(st.sets(TEXT | INT), st.randoms())
def test_equal_sets_have_equal_bytes(values: set[Any], random: Any) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    codec = codec_for(set[int | str])

    assert codec.encode(set(shuffled)) == codec.encode(values)
    assert codec_for(Any).encode(values) == codec.encode(values)


def test_a_set_has_the_same_bytes_in_a_process_with_another_hash_seed() -> None:
    code = (
        "from perdure.actors.codec.codec import codec_for; import sys;"
        "sys.stdout.buffer.write(codec_for(set[str]).encode({'a','b','c','d','e'}))"
    )

    written = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert written == {b'["a","b","c","d","e"]'}


def test_the_order_of_a_dict_is_kept() -> None:
    assert list(round_trip(dict[str, int], {"b": 1, "a": 2})) == ["b", "a"]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (
            Order,
            Order(1, [Item("a", 2)]),
            b'{"id":1,"items":[{"sku":"a","price":2.0,"count":1}],"note":null}',
        ),
        (Color, Color.RED, b'"red"'),
        (Level, Level.HIGH, b"2"),
        (Mixed, Mixed.PAIR, b'"PAIR"'),
        (bytes, b"\x00\xff", b'"AP8="'),
        (timedelta, timedelta(days=1, milliseconds=1500), b'"P1DT1.500000S"'),
        (datetime, datetime(2024, 2, 29, 12, tzinfo=UTC), b'"2024-02-29T12:00:00+00:00"'),
        (Decimal, Decimal("1.10"), b'"1.10"'),
        (Point, Point(1, 2), b'{"x":1,"y":2}'),
        (dict[Level, int], {Level.HIGH: 1}, b'{"2":1}'),
        (dict[int, int], {-5: 1}, b'{"-5":1}'),
        (Circle | None, Circle(1), b'{"radius":1.0}'),
        (Circle | Square, Square(1), b'{"$type":"Square","radius":1.0}'),
        (str | date, "x", b'"x"'),
        (str | date, date(2024, 2, 29), b'{"$type":"date","$value":"2024-02-29"}'),
        (Literal["a"] | str, "a", b'"a"'),
        (Private, Private(1), b'{"_secret":1,"derived":3}'),
    ],
)
def test_the_form_of_a_value_is_the_documented_one(
    annotation: Any, value: Any, expected: bytes
) -> None:
    assert codec_for(annotation).encode(value) == expected
    assert codec_for(annotation).decode(expected) == value


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (str, 5, "$"),
        (int, "5", "$"),
        (int, 5.0, "$"),
        (bool, 1, "$"),
        (float, True, "$"),
        (float, "1", "$"),
        (float, 2**53 + 1, "$"),
        (type(None), 0, "$"),
        (date, datetime(2024, 2, 29, tzinfo=UTC), "$"),
        (datetime, date(2024, 2, 29), "$"),
        (Color, "red", "$"),
        (Literal["a"], "b", "$"),
        (Literal[1], True, "$"),
        (list[str], ["a", "b", 5], "$[2]"),
        (list[int], (1, 2), "$"),
        (tuple[int, str], (1,), "$"),
        (tuple[int, str], (1, 2), "$[1]"),
        (tuple[int, ...], (1, "2"), "$[1]"),
        (set[int], {"a"}, "$[0]"),
        (dict[str, int], {"a": 1, "b c": "2"}, "$['b c']"),
        (dict[str, int], {5: 1}, "$ key int 5"),
        (Order, Order(1, [Item("a", 1), Item("b", "x")]), "$.items[1].price"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (Order, Item("a", 1), "$"),
        (Circle | Square, Item("a", 1), "$"),
        (Circle | None, Circle("x"), "$.radius"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (Box[int], Box("x", []), "$.content"),
        (IntBox, IntBox(1, ["x"]), "$.spare[0]"),  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
        (Options, {}, "$"),
        (Options, {"name": "a", "other": 1}, "$"),
        (Options, {"name": "a", "size": "b"}, "$.size"),
        (Point, Point("x"), "$.x"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (int | list[int], [1, "x"], "$[1]"),
        (list[int] | list[str], [1, "x"], "$"),
        (set[int], [1], "$"),
        (dict[str, int], [1], "$"),
        (tuple[int, str], [1, "x"], "$"),
        (collections.deque[int], [1], "$"),
        (Point, (1, 2), "$"),
        (Options, Circle(1), "$"),
        (Permission, 1, "$"),
        (timedelta, 1, "$"),
        (float, 10**400, "$"),
        (Node, Node(1, [Node(2), Node("x")]), "$.children[1].value"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (Any, {"a": collections.deque([object()])}, "$.a[0]"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(
    annotation: Any, value: Any, path: str
) -> None:
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).encode(value)

    assert raised.value.path == path


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (int, b'"5"', "$"),
        (int, b"5.5", "$"),
        (int, b"99999999999999999999", "$"),
        (float, b"9007199254740993", "$"),
        (str, b"5", "$"),
        (bool, b"1", "$"),
        (bytes, b'"!"', "$"),
        (UUID, b'"x"', "$"),
        (Decimal, b'"x"', "$"),
        (date, b'"2024-02-30"', "$"),
        (timedelta, b'"P"', "$"),
        (timedelta, b'"1 day"', "$"),
        (timedelta, b"1e300", "$"),
        (Color, b'"green"', "$"),
        (Color, b"[]", "$"),
        (Permission, b"8", "$"),
        (Literal["a"], b'"b"', "$"),
        (Literal["a"], b"[]", "$"),
        (list[int], b"{}", "$"),
        (list[int], b'[1,"x"]', "$[1]"),
        (set[int], b'[1,"x"]', "$[1]"),
        (set[Any], b"[[]]", "$"),
        (tuple[int, str], b"[1]", "$"),
        (dict[int, str], b'{"01":"x"}', "$ key '01'"),
        (dict[UUID, int], b'{"x":1}', "$ key 'x'"),
        (dict[str, int], b'{"x":"y"}', "$.x"),
        (Order, b'{"id":1}', "$"),
        (Order, b'{"id":1,"items":[{"sku":"a","price":1},{"sku":1,"price":1}]}', "$.items[1].sku"),
        (Order, b"[]", "$"),
        (Circle | Square, b'{"radius":1}', "$"),
        (Circle | Square, b'{"$type":"Square","radius":"x"}', "$.radius"),
        (str | date, b'{"$type":"date"}', "$"),
        (str | date, b'{"$type":"date","$value":"x"}', "$['$value']"),
        (int | None, b'"x"', "$"),
        (Options, b"{}", "$"),
        (Point, b"{}", "$"),
        (Point, b"[]", "$"),
        (Options, b"[]", "$"),
        (tuple[int, str], b"{}", "$"),
        (tuple[int, str], b"[1,2]", "$[1]"),
        (dict[str, int], b"[]", "$"),
        (dict[Color, int], b'{"green":1}', "$ key 'green'"),
        (Permission, b'"READ"', "$"),
        (UUID, b"1", "$"),
        (
            Node,
            b'{"value":1,"children":[{"value":2,"children":[{}]}]}',
            "$.children[0].children[0]",
        ),
        (Any, b"{", "$"),
        (int, b"", "$"),
        (int, b"NaN", "$"),
    ],
)
def test_json_of_another_type_is_refused_with_its_path(
    annotation: Any, data: bytes, path: str
) -> None:
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).decode(data)

    assert raised.value.path == path


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (float, math.nan, "$"),
        (list[float], [1.0, math.inf], "$[1]"),
        (Any, math.nan, "$"),
        (Any, {"a": [None, -math.inf]}, "$.a[1]"),
        (Any, [Item("null", math.nan)], "$[0].price"),
        (list[Any], [[math.nan]], "$[0][0]"),
        (Any, [(1, math.nan)], "$[0][1]"),
        (str, "\ud800", "$"),
        (Any, ["a", "\udfff"], "$[1]"),
        (list[str], ["a", "\udfff"], "$[1]"),
        (int, 2**64, "$"),
        (int, -(2**63) - 1, "$"),
        (dict[str, int], {"a": 2**64}, "$.a"),
        (Any, {"a": {1: 2}}, "$.a"),
        (Any, [1, object()], "$[1]"),
        (Any, [1, {"x": len}], "$[1].x"),
        (Any, [1j], "$[0]"),
    ],
)
def test_what_has_no_json_form_is_refused_with_its_path(
    annotation: Any, value: Any, path: str
) -> None:
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).encode(value)

    assert raised.value.path == path


def test_none_beside_real_numbers_is_no_nan() -> None:
    assert codec_for(Any).encode([None, 1.5, "null"]) == b'[null,1.5,"null"]'


def cyclic_list() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def cyclic_node() -> Node:
    value = Node(1)
    value.children.append(value)
    return value


def chain(length: int) -> Link:
    link = Link()
    for _ in range(length - 1):
        link = Link(link)
    return link


def deep_list(depth: int) -> Any:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("annotation", "make"),
    [
        (Any, cyclic_list),
        (Any, cyclic_node),
        (Node, cyclic_node),
        (list[Node], lambda: [cyclic_node()]),
        (Link, lambda: chain(100_000)),
        (Any, lambda: chain(100_000)),
        (Any, lambda: deep_list(100_000)),
        (list[Any], lambda: deep_list(100_000)),
    ],
    ids=range(8),
)
def test_what_is_too_deep_or_contains_itself_is_refused(
    annotation: Any, make: Callable[[], Any]
) -> None:
    value = make()

    with pytest.raises(PayloadError, match=r"at \S+: is nested too deeply"):
        codec_for(annotation).encode(value)


def test_json_that_is_too_deep_for_its_type_is_refused() -> None:
    data = b'{"following":' * 500 + b"null" + b"}" * 500

    with pytest.raises(PayloadError, match=r"at \S+: is nested too deeply"):
        codec_for(Link).decode(data)


def test_what_is_as_deep_as_allowed_is_read_back() -> None:
    value = chain(MAX_RECURSION)

    assert round_trip(Link, value) == value


def test_a_refused_deep_value_leaves_the_codec_usable() -> None:
    with pytest.raises(PayloadError):
        codec_for(Link).encode(chain(100_000))

    assert round_trip(Link, chain(3)) == chain(3)


@pytest.mark.parametrize("annotation", [Circle, Circle | Square, list[Circle], Circle | None])
def test_a_subclass_that_is_not_declared_is_refused(annotation: Any) -> None:
    value: Any = [BigCircle(2.0)] if annotation == list[Circle] else BigCircle(2.0)

    with pytest.raises(PayloadError, match="subclass BigCircle"):
        codec_for(annotation).encode(value)


def test_a_subclass_that_a_union_declares_comes_back_as_it_was() -> None:
    assert round_trip(Circle | BigCircle, BigCircle(2.0)) == BigCircle(2.0)
    assert round_trip(Circle | BigCircle, Circle(2.0)) == Circle(2.0)


def test_an_int_is_accepted_for_a_float_and_read_as_one() -> None:
    value = round_trip(float, 5)

    assert (value, type(value)) == (5.0, float)


def test_ints_and_floats_of_a_union_keep_their_type() -> None:
    values = round_trip(list[int | float], [1, 1.0])

    assert [type(value) for value in values] == [int, float]


def test_a_naive_datetime_stays_naive_and_an_offset_stays_exact() -> None:
    offset = timezone(timedelta(minutes=19, seconds=32))

    assert round_trip(datetime, datetime(2024, 1, 1)).tzinfo is None  # noqa: DTZ001
    assert round_trip(datetime, datetime(1930, 1, 1, tzinfo=offset)).utcoffset() == timedelta(
        minutes=19, seconds=32
    )


@pytest.mark.parametrize("fold", [0, 1])
def test_a_datetime_keeps_its_zone_also_in_the_hour_that_comes_twice(fold: int) -> None:
    moment = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)

    read = round_trip(datetime, moment)

    assert (read, read.tzinfo, read.fold) == (moment, moment.tzinfo, fold)
    assert read + timedelta(days=1) == moment + timedelta(days=1)


def test_a_zone_that_is_not_known_is_refused() -> None:
    with pytest.raises(PayloadError, match="Nowhere/Land"):
        codec_for(datetime).decode(b'"2024-10-27T02:30:00+02:00[Nowhere/Land]"')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'"P1D"', timedelta(days=1)),
        (b'"PT2H30M"', timedelta(hours=2, minutes=30)),
        (b'"PT-0.5S"', timedelta(seconds=-0.5)),
        (b"90", timedelta(seconds=90)),
        (b"0.5", timedelta(seconds=0.5)),
    ],
)
def test_other_spellings_of_a_duration_are_read(data: bytes, expected: timedelta) -> None:
    assert codec_for(timedelta).decode(data) == expected


def test_fields_that_are_not_declared_are_ignored_and_missing_ones_default() -> None:
    item = codec_for(Item).decode(b'{"sku":"a","price":1,"color":"red"}')

    assert item == Item("a", 1.0, 1)


def test_an_error_of_a_validator_is_a_payload_error_with_its_path() -> None:
    @attrs.define
    class Positive:
        value: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(PayloadError, match="must be > 0") as raised:
        codec_for(list[Positive]).decode(b'[{"value":1},{"value":0}]')

    assert raised.value.path == "$[1]"


def test_two_keys_with_the_same_text_are_refused() -> None:
    class Name(enum.StrEnum):
        ANNA = "anna"

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

    with pytest.raises(PayloadError, match="same text"):
        codec_for(dict[str, int]).encode({Name.ANNA: 1, "anna": 2})


OTHER_CONTAINERS: list[tuple[Any, Any, Any]] = [
    (Sequence[int], (1, 2), (1, 2)),
    (Sequence[int], [1, 2], [1, 2]),
    (list[Sequence[date]], [(date(2024, 2, 29),)], [(date(2024, 2, 29),)]),
    (AbstractSet[int], frozenset({1}), frozenset({1})),
    (AbstractSet[int], {1}, {1}),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (collections.deque[int], collections.deque([1, 2]), collections.deque([1, 2])),
    (list, [1, "a"], [1, "a"]),
    (tuple, (1, "a"), (1, "a")),
    (dict, {"a": [1]}, {"a": [1]}),
    (collections.OrderedDict[str, int], collections.OrderedDict(a=1), {"a": 1}),
    (int | None | list[int | None], [None, 1], [None, 1]),
    (of(Optional, Annotated[int | None, "x"]), None, None),
    (tuple[()], (), ()),
    (list[str], [Color.RED.value, "x"], ["red", "x"]),
    (list[int] | list[str], ["a"], ["a"]),
    (list[int] | list[str], [1], [1]),
    (int | Any, date(2024, 2, 29), "2024-02-29"),
    (float | str, 1, 1.0),
    (of(Box, Constrained), Box("a", []), Box("a", [])),
    (Circle | inner.Circle, Circle(1), Circle(1)),
    (Circle | inner.Circle, inner.Circle(1), inner.Circle(1)),
    (list[Circle | inner.Circle], [inner.Circle(1)], [inner.Circle(1)]),
]


@pytest.mark.parametrize(("annotation", "value", "read"), OTHER_CONTAINERS)
def test_other_containers_cross(annotation: Any, value: Any, read: Any) -> None:
    assert round_trip(annotation, value) == read


def test_the_text_of_a_string_enum_crosses_as_str() -> None:
    class Name(enum.StrEnum):
        ANNA = "anna"

    assert round_trip(dict[str, str], {Name.ANNA: Name.ANNA}) == {"anna": "anna"}
    assert codec_for(Any).encode([Name.ANNA]) == b'["anna"]'


@pytest.mark.parametrize(
    "annotation",
    [3, Callable[[], None], list[complex], dict[float, int], dict[int | str, int], "Nowhere"],
    ids=str,
)
def test_an_annotation_without_json_form_is_refused(annotation: Any) -> None:
    with pytest.raises(RegistrationError):
        codec_for(annotation)


def test_an_unhashable_annotation_is_accepted() -> None:
    assert round_trip(Annotated[int, []], 5) == 5


class Rate(float):
    pass


class SubDate(date):
    pass


def test_untyped_takes_subclasses_of_what_it_knows() -> None:
    values = [Rate(1.5), SubDate(2024, 2, 29), collections.deque([1]), collections.Counter("a")]

    assert codec_for(Any).encode(values) == b'[1.5,"2024-02-29",[1],{"a":1}]'


def test_untyped_refuses_nan_of_a_subclass_of_float() -> None:
    with pytest.raises(PayloadError, match="nan"):
        codec_for(Any).encode([Rate("nan")])


def test_a_union_of_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(RegistrationError, match="two members"):
        codec_for(Box[int] | Box[str] | Box[float])


def test_a_value_with_a_broken_repr_is_refused_like_others() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(PayloadError, match="int expected, not Broken"):
        codec_for(int).encode(Broken())


def test_the_json_of_an_int_is_read_as_float_in_a_union_without_int() -> None:
    assert type(codec_for(float | str).decode(b"1")) is float


def test_a_codec_is_made_once() -> None:
    assert codec_for(list[int]) is codec_for(list[int])


def test_only_untyped_is_any() -> None:
    assert codec_for(Any).is_any
    assert not codec_for(list[Any]).is_any


def test_reading_parsed_json_shares_no_typed_container_with_it() -> None:
    parsed: dict[str, Any] = {"a": [1, 2]}

    read = codec_for(dict[str, list[int]]).from_json(parsed)
    parsed["a"].append(3)

    assert read == {"a": [1, 2]}


def test_reading_bad_parsed_json_names_the_path() -> None:
    with pytest.raises(PayloadError) as raised:
        codec_for(list[int]).from_json([1, "x"])

    assert raised.value.path == "$[1]"


def test_what_to_json_gives_is_what_encode_writes() -> None:
    codec = codec_for(Order)
    value = Order(1, [Item("a", 1)])

    assert codec.dump(codec.to_json(value)) == codec.encode(value)


def test_a_pydantic_model_crosses() -> None:
    pydantic: Any = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", name=(str, ...), size=(int, 1))

    assert round_trip(of(list, model), [model(name="a")]) == [model(name="a")]
    with pytest.raises(PayloadError):
        codec_for(model).decode(b'{"size":"x"}')


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


def hooked(where: str, error: BaseException) -> Any:
    """Give a class one hook of which raises, once it is armed."""
    armed: list[bool] = []

    def fail(*_: Any) -> Any:
        if armed:
            raise error

    def fail_late(self: Any) -> None:
        fail()

    def same(number: int) -> int:
        fail()
        return number

    def get_class(self: object) -> type:
        fail()
        return type(self)

    namespace: dict[str, Any] = {"__annotations__": {"number": int}, "armed": armed}
    if where == "__post_init__":
        namespace["__post_init__"] = fail_late
    if where == "__class__":
        namespace["__class__"] = property(get_class)
    made: Any = type("Hooked", (), namespace)
    if where == "validator":
        made = attrs.define(made, these={"number": attrs.field(validator=fail)})
    elif where == "converter":
        made = attrs.define(made, these={"number": attrs.field(converter=same)})
    else:
        made = dataclasses.dataclass(made)
    if where == "__getattribute__":

        def get(self: Any, name: str) -> Any:
            if name == "number":
                fail()
            return object.__getattribute__(self, name)

        made.__getattribute__ = get
    return made


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "where", ["__post_init__", "validator", "converter", "__getattribute__", "__class__"]
)
def test_whatever_a_hook_raises_is_a_payload_error(where: str, error: BaseException) -> None:
    cls = hooked(where, error)
    value = cls(1)
    codec = codec_for(of(list, cls))
    cls.armed.append(True)

    with pytest.raises(PayloadError):
        codec.encode([value])
    if where in ("__post_init__", "validator", "converter"):
        with pytest.raises(PayloadError) as raised:
            codec.decode(b'[{"number":1}]')
        assert raised.value.path == "$[0]"


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_an_upgrade_raises_is_a_payload_error(error: BaseException) -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise error

    with pytest.raises(PayloadError):
        state_codec(Small, Small, 2, upgrade).decode(b'{"value":1}')


def test_an_upgrade_that_gives_no_dict_is_a_payload_error() -> None:
    def nothing(stored: dict[str, Any], version: int) -> Any:
        return None

    with pytest.raises(PayloadError, match="gave no dict"):
        state_codec(Small, Small, 2, nothing).decode(b'{"value":1}')


# Snapshots.


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


def change_everything(entity: Large) -> None:
    entity.number += 1
    entity.names.append("x")
    entity.seen.clear()
    entity.table["a"].append(1)
    entity.items[0].price = 9
    entity.items.append(Item("new", 1))
    entity.anything["deep"][0].add(2)
    entity.point = Point(1, 1)
    entity.maybe = [5]
    entity.node.children.append(Node(1))
    entity.money = None


def large() -> Large:
    return Large(
        names=["a"],
        seen={1},
        table={"a": []},
        items=[Item("a", 1)],
        anything={"deep": [{1}]},
        money=Money(Decimal(1), "EUR"),
    )


def test_a_snapshot_undoes_every_change_also_those_in_place() -> None:
    take, restore = snapshotter(Large)
    entity = large()

    token = take(entity)
    change_everything(entity)
    restore(entity, token)

    assert entity == large()


def test_a_snapshot_of_one_immutable_field_undoes_its_change() -> None:
    take, restore = snapshotter(Small)
    entity = Small(3)

    token = take(entity)
    entity.value = 4
    restore(entity, token)

    assert entity == Small(3)


def test_a_snapshot_brings_back_a_deleted_field() -> None:
    take, restore = snapshotter(Small)
    entity = Small(3)

    token = take(entity)
    del entity.value
    restore(entity, token)

    assert entity == Small(3)


def increment(number: int) -> int:
    return number + 1


def test_a_snapshot_passes_by_validators_and_converters() -> None:
    @attrs.define
    class Odd:
        value: int = attrs.field(default=1, converter=increment)

    take, restore = snapshotter(Odd)
    entity = Odd()

    token = take(entity)
    entity.value = 10
    restore(entity, token)

    assert entity.value == 2


def test_a_snapshot_keeps_what_does_not_fit_its_annotation() -> None:
    @attrs.define
    class Loose:
        items: list[Item] = attrs.field(factory=list[Item])

    take, restore = snapshotter(Loose)
    entity = Loose()
    wrong: Any = [["not an item"]]
    entity.items = wrong

    token = take(entity)
    wrong[0].clear()
    restore(entity, token)

    kept: Any = entity.items
    assert kept == [["not an item"]]


def test_a_snapshot_of_several_immutable_fields_undoes_their_changes() -> None:
    take, restore = snapshotter(Item)
    entity = Item("a", 1.0)

    token = take(entity)
    entity.sku, entity.price = "b", 2.0
    restore(entity, token)

    assert entity == Item("a", 1.0)


def test_a_class_without_fields_has_an_empty_snapshot() -> None:
    @attrs.define
    class Empty:
        pass

    take, restore = snapshotter(Empty)

    restore(Empty(), take(Empty()))


def test_a_class_that_declares_no_fields_has_no_snapshot() -> None:
    with pytest.raises(RegistrationError):
        snapshotter(int)


# An entity's state.


def test_a_state_reads_missing_fields_as_defaults_and_ignores_others() -> None:
    state = state_codec(Large, Large)

    read = state.decode(b'{"number":5,"gone":1}')

    assert read == Large(number=5)


def test_a_state_of_the_first_version_says_nothing_of_it() -> None:
    assert state_codec(Small, Small).encode(Small(1)) == b'{"value":1}'


def test_a_state_of_a_higher_version_bears_it() -> None:
    assert orjson.loads(state_codec(Small, Small, 2).encode(Small(1))) == {"$schema": 2, "value": 1}


def test_an_older_state_is_upgraded_with_its_version() -> None:
    seen: list[tuple[dict[str, Any], int]] = []

    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        seen.append((stored, version))
        return {"value": stored["count"]}

    state = state_codec(Small, Small, 3, upgrade)

    assert state.decode(b'{"count":7}') == Small(7)
    assert state.decode(b'{"$schema":2,"count":8}') == Small(8)
    assert seen == [({"count": 7}, 1), ({"count": 8}, 2)]


def test_a_state_of_this_version_is_not_upgraded() -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise AssertionError("not needed")

    assert state_codec(Small, Small, 2, upgrade).decode(b'{"$schema":2,"value":1}') == Small(1)


def test_a_state_of_a_newer_version_is_refused() -> None:
    with pytest.raises(PayloadError, match="newer"):
        state_codec(Small, Small, 2).decode(b'{"$schema":3,"value":1}')


def test_a_failing_upgrade_is_a_payload_error() -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise KeyError("count")

    with pytest.raises(PayloadError, match="KeyError"):
        state_codec(Small, Small, 2, upgrade).decode(b'{"value":1}')


def test_a_bad_stored_field_is_named_with_its_path() -> None:
    with pytest.raises(PayloadError) as raised:
        state_codec(Large, Large).decode(b'{"items":[{"sku":"a","price":"x"}]}')

    assert raised.value.path == "$.items[0].price"
