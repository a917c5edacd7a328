from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
import pytest

from perdure.actors.codec import generated
from perdure.actors.codec.annotations import shape_for
from perdure.actors.codec.fields import class_fields, is_frozen
from perdure.actors.codec.generated import functions_for

T = TypeVar("T")


@attrs.define
class Private:
    _secret: bytes
    derived: bytes = attrs.field(init=False, default=b"d")


@attrs.frozen
class Frozen:
    one: bytes
    two: bytes = attrs.field(init=False, default=b"2")


@dataclasses.dataclass
class Written:
    one: bytes
    two: bytes = dataclasses.field(init=False, default=b"2")


@attrs.define
class Box(Generic[T]):
    content: bytes


@dataclasses.dataclass
class Case(Generic[T]):
    content: bytes


@dataclasses.dataclass
class Base:
    one: bytes


@attrs.define
class Mixed(Base):
    two: bytes = b""


Functions = Callable[[Any, Any, bool], tuple[Any, Any]]
WAYS: list[Functions] = [generated.made_by_cattrs, generated.made_of_loops]
BOTH = pytest.mark.parametrize("make", WAYS)


def functions(cls: Any, make: Functions) -> tuple[Any, Any]:
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(cls)}
    return make(cls, shapes, is_frozen(cls))


OBJECTS: list[tuple[Any, ...]] = [
    (Private(b"s"), {"_secret": "cw==", "derived": "ZA=="}),
    (Frozen(b"1"), {"one": "MQ=="}),
    (Written(b"1"), {"one": "MQ==", "two": "Mg=="}),
    (Box(b"c"), {"content": "Yw=="}),
    (Case(b"c"), {"content": "Yw=="}),
]


@BOTH
@pytest.mark.parametrize(
    ("value", "written"),
    OBJECTS,
    ids=range(5),
)
def test_an_object_is_taken_apart_and_put_together_field_by_field(
    make: Functions, value: Any, written: dict[str, str]
) -> None:
    unstructure, structure = functions(type(value), make)

    assert unstructure(value) == written
    read = structure(written, type(value))
    assert (read, type(read)) == (value, type(value))


@BOTH
def test_a_field_that_has_no_place_in_the_initialiser_is_set_afterwards(make: Functions) -> None:
    _, structure = functions(Written, make)

    assert structure({"one": "MQ==", "two": "Yw=="}, Written).two == b"c"
    assert structure({"one": "MQ=="}, Written).two == b"2"


def test_an_attrs_class_whose_base_is_a_dataclass_has_its_attrs_fields() -> None:
    _, structure = functions(Mixed, generated.made_by_cattrs)

    assert structure({"two": "Mg=="}, Mixed).two == b"2"


def test_fields_with_names_that_the_generator_has_itself_are_done_by_hand() -> None:
    made: Any = dataclasses.make_dataclass(
        "Made", [("cl", bytes), ("_cattrs_omit_if_default", int)]
    )
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(made)}

    unstructure, structure = functions_for(made, shapes, False)

    assert "made_of_loops" in unstructure.__qualname__
    assert structure(unstructure(made(b"a", 5))) == made(b"a", 5)
    plain = functions(Written, functions_for)
    assert "made_of_loops" not in getattr(plain[0], "__qualname__", "")
