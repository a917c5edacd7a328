from __future__ import annotations

import collections
from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors.codec.scalars import scalar_shapes
from perdure.actors.codec.shapes import (
    TOO_DEEP,
    Fault,
    Shape,
    TooDeep,
    kinds,
    levels_of,
    member_path,
    show,
    wrong,
    wrong_json,
)


class Mine(collections.OrderedDict[str, int]):
    pass


class Own:
    pass


class Derived(Own):
    def __repr__(self) -> str:
        raise KeyError("no")


def shape(levels: int, immutable: bool) -> Shape:
    whole = scalar_shapes()[int]
    return Shape(
        "x",
        whole.kinds,
        (int,),
        whole.encode,
        whole.decode,
        None,
        (),
        levels=levels,
        immutable=immutable,
    )


def test_what_can_change_lies_one_level_below_what_holds_it() -> None:
    assert levels_of([]) == 0
    assert levels_of([shape(7, True)]) == 0
    assert levels_of([shape(0, False)]) == 1
    assert levels_of([shape(3, False), shape(9, True), shape(1, False)]) == 4


@pytest.mark.parametrize(
    ("value", "accepted", "text"),
    [
        (None, (), "int expected, not None"),
        (5, (), "int expected, not int 5"),
        ("x" * 99, (), f"int expected, not str '{'x' * 58}…"),
        (Derived(), (), "int expected, not Derived"),
        (
            Mine(),
            (dict,),
            "int expected, not the subclass Mine: what that has beyond it would be lost; pass a "
            "plain int",
        ),
        (
            Derived(),
            (Own,),
            "int expected, not the subclass Derived: what that has beyond it would be lost; "
            "annotate Derived or a union with it, or pass a plain int",
        ),
    ],
    ids=range(6),
)
def test_what_is_wrong_says_what_came_and_what_to_do(
    value: Any, accepted: tuple[type, ...], text: str
) -> None:
    assert str(wrong("int", value, *accepted)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [({}, "an object"), ([1], "an array"), ("a", '"a"'), (1.5, "1.5"), (None, "null")],
    ids=repr,
)
def test_json_that_is_wrong_is_told_by_its_kind_or_text(value: Any, text: str) -> None:
    assert str(wrong_json("int", value)) == f"int expected, not {text}"


def test_a_long_text_is_cut_in_what_is_shown() -> None:
    assert len(str(wrong_json("int", "x" * 500))) < 90
    assert show(Derived()) == "Derived"
    assert show([1]) == "list [1]"


@pytest.mark.parametrize(
    ("key", "segment"),
    [
        ("name", ".name"),
        ("é", ".é"),
        ("b c", "['b c']"),
        ("", "['']"),
        ("$type", "['$type']"),
        (5, "['5']"),
        (None, ".None"),
    ],
    ids=repr,
)
def test_a_path_names_a_member_as_python_would(key: object, segment: str) -> None:
    assert member_path(key) == segment


@given(st.text())
def test_a_segment_of_a_path_is_short(key: str) -> None:
    assert len(member_path(key * 20)) <= 900
    assert len(member_path("x" + key * 20)) <= 900


def test_a_long_name_is_cut() -> None:
    assert member_path("x" * 81) == f"['{'x' * 78}…]"


def test_a_fault_knows_its_reason_and_its_place() -> None:
    assert (str(Fault("bad", ".a")), Fault("bad", ".a").where) == ("bad", ".a")
    assert (str(TooDeep()), TooDeep().where) == (TOO_DEEP, "")
    assert kinds("null", "null", "array") == {"null", "array"}
