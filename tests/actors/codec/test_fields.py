from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import pytest

from perdure.actors.codec.fields import (
    class_fields,
    is_frozen,
    runs_code,
    substitute,
    type_arguments,
    type_hints,
)
from perdure.actors.errors import RegistrationError

T = TypeVar("T")
U = TypeVar("U")


@attrs.define
class Made:
    one: int
    two: str = ""
    three: Any = attrs.field(init=False)


@dataclasses.dataclass
class Written:
    one: int
    two: list[int] = dataclasses.field(default_factory=list[int])
    three: str = dataclasses.field(init=False)
    all: ClassVar[int] = 1


@attrs.frozen
class Frozen:
    one: int


@dataclasses.dataclass(frozen=True)
class Stiff:
    one: int


class Free(NamedTuple):
    one: int


@pytest.mark.parametrize("cls", [Made, Written])
def test_a_field_is_required_if_it_is_given_and_has_no_default(cls: type) -> None:
    assert [(field.name, field.required) for field in class_fields(cls)] == [
        ("one", True),
        ("two", False),
        ("three", False),
    ]
    assert class_fields(cls)[0].annotation is int


def test_a_field_without_a_type_may_be_anything() -> None:
    made = attrs.make_class("made", ["one"])

    assert [field.annotation for field in class_fields(made)] == [Any]


def test_names_local_to_a_function_stay_resolved_where_they_are_gone() -> None:
    class Local:
        pass

    @dataclasses.dataclass
    class Holder:
        local: Local
        again: Holder | None = None

    names = {"Local": Local}

    assert class_fields(Holder, names)[0].annotation is Local
    assert class_fields(Holder)[0].annotation is Local
    assert class_fields(Holder)[1].annotation == Holder | None


def bad(kind: str, annotation: str) -> Any:
    made = type("Bad", (), {"__annotations__": {"field": annotation}})
    return attrs.define(made) if kind == "attrs" else dataclasses.dataclass(made)


@pytest.mark.parametrize("kind", ["attrs", "dataclass"])
def test_a_name_that_cannot_be_found_is_named_with_its_field(kind: str) -> None:
    with pytest.raises(
        RegistrationError, match=r"annotation .*field: list\[Nowhere\].* of Bad: .*Now"
    ):
        class_fields(bad(kind, "list[Nowhere]"))


@pytest.mark.parametrize("kind", ["attrs", "dataclass"])
@pytest.mark.parametrize("annotation", ["1 / 0", "int[", "'a' + 5"])
def test_a_text_that_is_no_type_is_refused(kind: str, annotation: str) -> None:
    with pytest.raises(RegistrationError, match="an annotation of Bad is no type"):
        class_fields(bad(kind, annotation))


def test_hints_keep_what_is_noted_beside_a_type() -> None:
    def f(x: Annotated[int, "note"]) -> Local:
        raise NotImplementedError(x)

    class Local:
        pass

    assert type_hints(f, {"Local": Local}) == {"x": Annotated[int, "note"], "return": Local}
    with pytest.raises(RegistrationError, match="define 'Local' at module level"):
        type_hints(f)


def test_frozen_is_what_cannot_be_set() -> None:
    assert [is_frozen(cls) for cls in (Frozen, Stiff, Made, Written)] == [True, True, False, False]


def quiet(self: Any, *_: Any) -> None:
    return None


def made_with(**members: Any) -> Any:
    return dataclasses.dataclass(type("Made", (), {"__annotations__": {"n": int}, **members}))


@attrs.define
class Checked:
    n: int = attrs.field(validator=attrs.validators.instance_of(int))


@attrs.define
class Converted:
    n: int = attrs.field(converter=int)


@attrs.frozen
class Computed:
    n: int = attrs.field(init=False, default=1)


@attrs.define(init=False)
class ByHand:
    n: int

    def __init__(self, n: int) -> None:
        self.n = n


@dataclasses.dataclass
class ForInit:
    n: int
    scale: dataclasses.InitVar[int] = 1


class Odd(Free):
    def __new__(cls, one: int) -> Any:
        return super().__new__(cls, one)


class Meta(type):
    def __call__(cls, *given: Any, **named: Any) -> Any:
        return super().__call__(*given, **named)


@dataclasses.dataclass
class ByMeta(metaclass=Meta):
    n: int


@pytest.mark.parametrize(
    "cls",
    [
        Checked,
        Converted,
        Computed,
        ByHand,
        ForInit,
        Odd,
        ByMeta,
        made_with(__post_init__=quiet),
        made_with(__getattribute__=object.__getattribute__.__get__),
        made_with(__setattr__=quiet),
        made_with(__new__=quiet),
    ],
    ids=range(11),
)
def test_a_class_whose_making_or_reading_is_not_generated_runs_code(cls: Any) -> None:
    assert runs_code(cls)


@pytest.mark.parametrize("cls", [Made, Frozen, Stiff, Free, made_with(all=5)], ids=range(5))
def test_a_plain_class_runs_no_code(cls: Any) -> None:
    assert not runs_code(cls)


class Pair(Generic[T, U]):
    pass


class Half(Pair[int, list[T]], Generic[T]):
    pass


class Whole(Half[str]):
    pass


def test_type_variables_stand_for_what_the_annotation_and_the_bases_say() -> None:
    assert type_arguments(Pair[int, str], Pair) == {T: int, U: str}
    assert type_arguments(Pair, Pair) == {}
    assert type_arguments(Whole, Whole)[U] == list[str]
    assert type_arguments(Half[bytes], Half)[U] == list[bytes]


def test_what_is_known_is_put_in_the_place_of_variables() -> None:
    one: Any = T
    other: Any = U
    known: dict[Any, Any] = {one: int}

    assert substitute(one, known) is int
    assert substitute(other, known) is other
    assert substitute(dict[str, list[one]], known) == dict[str, list[int]]
    assert substitute(dict[one, other], known) == dict[int, other]
    assert substitute(str, known) is str
    assert substitute(Pair, known) is Pair
