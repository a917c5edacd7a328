from __future__ import annotations

import collections
import enum
from collections.abc import Mapping, Sequence, Set as AbstractSet
from datetime import date
from typing import Annotated, Any, Optional

import pytest

from perdure.actors.codec.annotations import shape_for
from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.containers import dict_shape
from perdure.actors.codec.shapes import Unsupported
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import Box, Circle, Color, Constrained, inner, of, round_trip

DAY = date(2024, 2, 29)


def test_the_order_of_a_dict_is_kept() -> None:
    assert list(round_trip(dict[str, int], {"b": 1, "a": 2})) == ["b", "a"]


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


CROSSING: list[tuple[Any, ...]] = [
    (list[date], [DAY]),
    (list[int], [1, True]),
    (list[Any], [1, "a", [None]]),
    (tuple[date, ...], (DAY,)),
    (tuple[date, int], (DAY, 1)),
    (set[date], {DAY}),
    (frozenset[str], frozenset({"a"})),
    (collections.deque[date], collections.deque([DAY])),
    (dict[date, date], {DAY: DAY}),
    (dict[str, date], {"a": DAY}),
    (dict[str, int], {}),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)),
]


@pytest.mark.parametrize(
    ("annotation", "value"),
    CROSSING,
    ids=str,
)
def test_a_container_comes_back_of_its_class_with_its_items(annotation: Any, value: Any) -> None:
    read = round_trip(annotation, value)

    assert (read, type(read)) == (value, type(value))


REFUSED: list[tuple[Any, ...]] = [
    (list[date], [DAY, 1], "$[1]", "date expected"),
    (list[int], (1,), "$", r"list\[int\] expected"),
    (collections.deque[int], collections.deque([1], 3), "$", "the maxlen of a deque"),
    (collections.deque[int], [1], "$", r"deque\[int\] expected"),
    (set[date], {DAY, 1}, r"$[", "date expected"),
    (set[int], frozenset({1}), "$", r"set\[int\] expected"),
    (tuple[int, str], (1,), "$", "tuple.* expected, not 1 elements"),
    (tuple[int, str], [1, "a"], "$", "expected, not list"),
    (tuple[int, str], (1, 2), "$[1]", "str expected"),
    (tuple[()], (1,), "$", r"tuple\[\(\)\] expected, not 1 elements"),
    (dict[str, int], {"a": "b"}, "$.a", "int expected"),
    (dict[str, int], {1: 1}, "$ key int 1", "str expected"),
    (dict[int, int], {"1": 1}, "$ key str '1'", "int expected"),
    (dict[str, int], collections.OrderedDict(a=1), "$", "the subclass OrderedDict"),
    (collections.OrderedDict[str, int], {"a": 1}, "$", "OrderedDict.* expected"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    REFUSED,
    ids=range(15),
)
def test_a_container_that_is_not_of_its_type_is_refused_where_it_is_not(
    annotation: Any, value: Any, path: str, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason) as raised:
        codec_for(annotation).encode(value)

    assert raised.value.path.startswith(path)


REFUSED_JSON: list[tuple[Any, ...]] = [
    (list[date], {}, "$", "an array for list"),
    (list[date], ["2024-02-29", 1], "$[1]", "the text of a date"),
    (set[Any], [[1]], "$", "an array inside a set.* cannot be an element"),
    (tuple[int, str], [1], "$", "expected, not 1 elements"),
    (tuple[int, str], {}, "$", "an array for tuple"),
    (tuple[int, str], [1, 2], "$[1]", "str expected"),
    (dict[str, int], [], "$", "an object for dict"),
    (dict[str, int], {"a": "b"}, "$.a", "int expected"),
    (dict[date, int], {"x": 1}, "$ key 'x'", "the text of a date"),
]


@pytest.mark.parametrize(
    ("annotation", "stored", "path", "reason"),
    REFUSED_JSON,
    ids=range(9),
)
def test_json_of_a_container_is_refused_where_it_is_not_of_its_type(
    annotation: Any, stored: Any, path: str, reason: str
) -> None:
    with pytest.raises(PayloadError, match=reason) as raised:
        codec_for(annotation).from_json(stored)

    assert raised.value.path == path


def test_a_dict_whose_keys_have_no_text_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"a dict with keys of float has no JSON form"):
        codec_for(dict[float, int])
    with pytest.raises(Unsupported, match="keys of list"):
        dict_shape(dict, shape_for(list[int]), shape_for(int))


def test_a_container_of_what_never_changes_is_copied_as_a_whole() -> None:
    found = [
        (shape.immutable, shape.shallow, shape.levels)
        for shape in map(
            shape_for,
            [
                list[int],
                list[list[int]],
                tuple[int, ...],
                tuple[list[int], int],
                frozenset[int],
                dict[str, list[int]],
            ],
        )
    ]

    assert found == [
        (False, True, 0),
        (False, False, 1),
        (True, True, 0),
        (False, False, 1),
        (True, True, 0),
        (False, False, 1),
    ]
