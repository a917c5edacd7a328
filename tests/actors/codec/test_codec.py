from __future__ import annotations

import collections
import dataclasses
import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import attrs
import pytest
from hypothesis import given, strategies as st

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import (
    ANYTHING,
    AWARE,
    FLOAT,
    INT,
    MONEY,
    OPTIONS,
    POINT,
    SHAPE,
    TEXT,
    Box,
    Circle,
    Color,
    Everything,
    IntBox,
    Item,
    Level,
    Mixed,
    Node,
    Options,
    Order,
    Permission,
    Point,
    Private,
    Square,
    of,
    round_trip,
    typed_values,
)


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


def test_a_value_with_a_broken_repr_is_refused_like_others() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(PayloadError, match="int expected, not Broken"):
        codec_for(int).encode(Broken())


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
