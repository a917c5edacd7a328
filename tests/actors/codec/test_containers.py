from __future__ import annotations

import collections
import enum
from collections.abc import Mapping, Sequence, Set as AbstractSet
from datetime import date
from typing import (
    Annotated,
    Any,
    Optional,
)

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import Box, Circle, Color, Constrained, inner, of, round_trip


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
