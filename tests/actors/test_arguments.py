from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors import arguments
from perdure.actors.errors import InvalidIdError, UsageError


def refuse(*_: object) -> Any:
    raise KeyError("asked")


ASKED = ("__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__str__", "__repr__")
HOSTILE: dict[str, Any] = dict.fromkeys(
    (*ASKED, "__int__", "__float__", "__index__", "__len__", "__bool__"), refuse
)
Nothing: Any = type("Nothing", (), {**HOSTILE, "__class__": property(refuse)})
Text: Any = type("Text", (str,), {**HOSTILE, "isascii": refuse, "encode": refuse})
Whole: Any = type("Whole", (int,), HOSTILE)
Real: Any = type("Real", (float,), HOSTILE)


class Level(enum.IntEnum):
    LOW = 1


def is_an_int(_: object) -> type:
    return int


Liar: Any = type("Liar", (), {"__class__": property(is_an_int)})


CHECKS: list[Callable[[Any], object]] = [
    lambda value: arguments.instance(value, Level, "it", "a Level"),
    lambda value: arguments.text(value, "it"),
    lambda value: arguments.optional_text(value, "it"),
    lambda value: arguments.flag(value, "it"),
    lambda value: arguments.optional_flag(value, "it"),
    lambda value: arguments.whole(value, "it"),
    lambda value: arguments.number(value, "it", least=0),
    lambda value: arguments.choice(value, "it", ("a", "b")),
    lambda value: arguments.labels(value, "it"),
    lambda value: arguments.several(value, "it", "a list"),
]


@pytest.mark.parametrize("check", CHECKS, ids=range(len(CHECKS)))
@pytest.mark.parametrize("kind", [Nothing, Liar, complex])
def test_what_is_of_no_kind_that_is_taken_is_refused_by_name(
    check: Callable[[Any], object], kind: type[Any]
) -> None:
    with pytest.raises(UsageError, match=r"^it must be "):
        check(kind())


def test_a_subclass_is_taken_as_the_plain_value_that_it_is() -> None:
    taken = [
        arguments.text(Text("a"), "it"),
        arguments.whole(Whole(5), "it"),
        arguments.number(Real(0.5), "it", least=0),
        arguments.number(Whole(5), "it", least=0),
        arguments.choice(Text("b"), "it", (Text("a"), Text("b"))),
        arguments.whole(Level.LOW, "it"),
    ]

    assert taken == ["a", 5, 0.5, 5, "b", 1]
    assert [type(one) for one in taken] == [str, int, float, int, str, int]


@given(st.text())
def test_text_is_taken_exactly_if_it_can_be_stored(text: str) -> None:
    storable = not any("\ud800" <= one <= "\udfff" for one in text)

    if storable:
        assert arguments.text(text, "it") == text
    else:
        with pytest.raises(UsageError, match="lone surrogates"):
            arguments.text(text, "it")


def test_the_error_is_of_the_class_that_the_caller_wants() -> None:
    for value in (5, "\ud800"):
        with pytest.raises(InvalidIdError):
            arguments.text(value, "it", InvalidIdError)
    with pytest.raises(InvalidIdError):
        arguments.whole(-1, "it", error=InvalidIdError)
    with pytest.raises(InvalidIdError):
        arguments.instance(1, str, "it", "text", InvalidIdError)


def test_what_is_optional_may_be_none() -> None:
    assert arguments.optional_text(None, "it") is None
    assert arguments.optional_flag(None, "it") is None
    assert arguments.optional_flag(False, "it") is False
    assert arguments.optional_text("a", "it") == "a"


@pytest.mark.parametrize("value", [1, 0, "True", None])
def test_a_flag_is_true_or_false_and_nothing_like_it(value: Any) -> None:
    with pytest.raises(UsageError, match="True or False"):
        arguments.flag(value, "it")


@pytest.mark.parametrize("value", [True, 1.0, "1", 0, 11])
def test_a_whole_number_out_of_bounds_or_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="an int from 1 to 10, not"):
        arguments.whole(value, "it", least=1, most=10)


@given(st.integers(), st.integers(), st.none() | st.integers())
def test_a_whole_number_is_taken_exactly_within_its_bounds(
    value: int, least: int, most: int | None
) -> None:
    if least <= value and (most is None or value <= most):
        assert arguments.whole(value, "it", least=least, most=most) == value
    else:
        with pytest.raises(UsageError):
            arguments.whole(value, "it", least=least, most=most)


@given(st.floats() | st.integers(), st.none() | st.floats(0, 100), st.booleans())
def test_a_number_is_taken_exactly_if_it_is_finite_and_within_its_bounds(
    value: float, most: float | None, beyond: bool
) -> None:
    inside = value > 0 if beyond else value >= 0
    if inside and (value <= 1e308 if most is None else value <= most):
        assert arguments.number(value, "it", least=0, most=most, beyond=beyond) == value
    else:
        with pytest.raises(UsageError, match="a finite number"):
            arguments.number(value, "it", least=0, most=most, beyond=beyond)


@pytest.mark.parametrize(
    ("most", "beyond", "bounds"),
    [
        (None, False, "of at least 1, not"),
        (None, True, "greater than 1, not"),
        (2.5, False, "from 1 to 2.5, not"),
        (2.5, True, "greater than 1 and at most 2.5, not"),
    ],
)
def test_the_refusal_of_a_number_says_which_are_taken(
    most: float | None, beyond: bool, bounds: str
) -> None:
    with pytest.raises(UsageError, match=bounds):
        arguments.number(math.nan, "it", least=1, most=most, beyond=beyond)


def test_bool_is_no_number() -> None:
    assert arguments.plain_number(True) is None
    assert arguments.plain_number("1") is None


def test_a_choice_names_its_options_where_it_is_none() -> None:
    assert arguments.choice("b", "it", ["a", "b"]) == "b"
    with pytest.raises(UsageError, match="it must be one of 'a', 'b', not 'c'"):
        arguments.choice("c", "it", ["a", "b"])


class Name(str):
    pass


class Broken(dict[str, str]):
    def items(self) -> Any:
        raise KeyError("no")


def test_labels_are_a_plain_dict_of_plain_texts() -> None:
    read = arguments.labels({Name("a"): Text("b")})

    assert read == {"a": "b"}
    assert [type(one) for one in (*read, *read.values())] == [str, str]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([("a", "b")], "tags must be a mapping of str to str"),
        (Broken(a="b"), "tags must be a mapping that can be read"),
        ({1: "a"}, "a key of tags must be a str"),
        ({"a": 1}, r"tags\['a'\] must be a str"),
        ({"a": "\ud800"}, "lone surrogates"),
    ],
)
def test_labels_that_are_none_are_refused_where_they_are_wrong(value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        arguments.labels(value)


def ends_badly() -> Iterator[int]:
    yield 1
    raise KeyError("no")


class Lying(Mapping[str, int]):
    """Says that it has what it has not."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_several_are_what_an_iterable_holds() -> None:
    assert arguments.several(iter((1, 2)), "it", "a list") == [1, 2]
    assert arguments.several({"a": 1}, "it", "a list") == ["a"]
    with pytest.raises(UsageError, match="mapping that can be read"):
        arguments.labels(Lying(), "it")


@pytest.mark.parametrize("value", ["ab", b"ab", bytearray(b"ab"), 5], ids=repr)
def test_a_single_text_is_not_several(value: Any) -> None:
    with pytest.raises(UsageError, match="it must be a list, not"):
        arguments.several(value, "it", "a list")


def test_what_fails_while_it_is_read_is_refused_with_its_cause() -> None:
    with pytest.raises(UsageError, match=r"iterating over it failed") as raised:
        arguments.several(ends_badly(), "it", "a list")

    assert type(raised.value.__cause__) is KeyError
