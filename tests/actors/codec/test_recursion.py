from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.codec.recursion import MAX_RECURSION
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import Link, Node, round_trip


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
