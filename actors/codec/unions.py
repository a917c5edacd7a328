"""Unions: which member a value is of, told by its JSON kind or by a tag beside it."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Union

import attrs
import orjson

from ..classes import class_of
from .likeness import EXACT, difference
from .shapes import (
    PLAIN,
    TAG,
    Fault,
    Part,
    Shape,
    Unsupported,
    kinds,
    member_path,
    wrong,
    wrong_json,
)

DumpFor = Callable[[Shape], Callable[[Any], bytes]]
"""How a member gets what writes its JSON: passed in, since that may write any value."""

_VALUE = "$value"


@attrs.frozen
class _Choice:
    """A member of a union, with the tag that it is written under, if any."""

    shape: Shape
    tag: str | None
    dump: Callable[[Any], bytes]

    def encode(self, value: Any) -> Any:
        written = self.shape.encode(value)
        if self.tag is None:
            return written
        if self.shape.is_record:
            return {TAG: self.tag, **written}
        return {TAG: self.tag, _VALUE: written}

    def inner(self, value: Any) -> Any:
        """Take the tag off."""
        if self.tag is None or self.shape.is_record:
            return value
        if _VALUE not in value:
            raise Fault(f"{_VALUE!r} is missing beside {TAG!r}")
        return value[_VALUE]

    def gives_back(self, written: Any, value: Any) -> bool:
        """Say whether what this member wrote is read by it as exactly the value."""
        try:
            read = self.shape.decode(self.inner(orjson.loads(self.dump(written))))
            return difference(value, read, manner=EXACT) is None
        except Exception:  # of the user's code, or of a part that cannot be written
            return False


_ByClass = dict[type, list[_Choice]]
_Parts = Callable[[Any], Iterable[Part]]


def union_members(annotation: Any) -> list[Any]:
    """Flatten a union, with its literals made one and without those that a plain type includes."""
    flat: list[Any] = []
    for member in _flat_members(annotation):
        if member not in flat:  # it may come twice where one was inside of an Annotated
            flat.append(member)
    plain = {type(None) if member is None else member for member in flat} & PLAIN
    literals = [v for member in flat if _is_literal(member) for v in typing.get_args(member)]
    literals = [value for value in literals if type(value) not in plain]
    members = [member for member in flat if not _is_literal(member)]
    return [*members, Literal[tuple(literals)]] if literals else members


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal


def _flat_members(annotation: Any) -> Iterator[Any]:
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _flat_members(member)
    else:
        yield annotation


def _optional_shape(inner: Shape) -> Shape:
    encode_inner, decode_inner = inner.encode, inner.decode

    def encode(value: Any) -> Any:
        return None if value is None else encode_inner(value)

    def decode(value: Any, _: Any = None) -> Any:
        return None if value is None else decode_inner(value)

    def parts_out(value: Any) -> Iterable[Part]:
        return () if value is None else (Part("", inner, value),)

    return Shape(
        f"{inner.name} | None",
        inner.kinds | {"null"},
        (type(None), *inner.accepts),
        encode,
        decode,
        also=inner.also,
        loose=inner.loose,
        vague=inner.vague,
        unsure=inner.unsure,
        immutable=inner.immutable,
        shallow=inner.shallow,
        levels=inner.levels,
        parts_out=parts_out,
        parts_in=parts_out,
    )


def union_shape(members: list[Shape], dump_for: DumpFor) -> Shape:
    """Give the shape of a value that has one of these.

    Of members that take the same class, the first that gives the value back exactly is written,
    and where none does, the first that takes it.
    """
    for member in members:
        if member.is_any:
            return member
    if len(members) == 1:
        return members[0]
    if len(members) == 2:
        others = [member for member in members if member.exact is not type(None)]
        if len(others) == 1 and "null" not in others[0].kinds:
            return _optional_shape(others[0])
    name = " | ".join(member.name for member in members)
    choices = _choices(members, dump_for)
    by_class = _by_class(choices)
    pick = _picker(name, choices)
    parts_out, parts_in = _parts(by_class, pick)

    def decode(value: Any, _: Any = None) -> Any:
        choice = pick(value)
        return choice.shape.decode(choice.inner(value))

    return Shape(
        name,
        frozenset[str]().union(*(_written_kinds(choice) for choice in choices)),
        tuple(dict.fromkeys(cls for member in members for cls in member.accepts)),
        _encoder(name, by_class),
        decode,
        loose=any(member.loose for member in members),
        vague=any(member.vague for member in members),
        unsure=any(member.unsure for member in members),
        immutable=all(member.immutable for member in members),
        levels=max(member.levels for member in members),
        parts_out=parts_out,
        parts_in=parts_in,
    )


def _encoder(name: str, by_class: _ByClass) -> Callable[[Any], Any]:
    """Give what writes a value as the first member that gives it back exactly."""

    def encode(value: Any) -> Any:
        candidates = _candidates(by_class, value)
        if not candidates:
            raise wrong(name, value)
        if len(candidates) == 1:
            return candidates[0].encode(value)
        usable: list[Any] = []
        for choice in candidates:
            try:
                written = choice.encode(value)
            except Fault:
                continue
            if choice.gives_back(written, value):
                return written
            usable.append(written)
        if not usable:
            raise wrong(name, value)
        return usable[0]

    return encode


def _parts(by_class: _ByClass, pick: Callable[[Any], _Choice]) -> tuple[_Parts, _Parts]:
    """Give what finds the part of a value that one member answers for, written and read."""

    def parts_out(value: Any) -> Iterator[Part]:
        candidates = _candidates(by_class, value)
        if len(candidates) == 1:
            yield Part("", candidates[0].shape, value)

    def parts_in(value: Any) -> Iterator[Part]:
        try:
            choice = pick(value)
            inner = choice.inner(value)
        except Fault:
            return
        yield Part("" if inner is value else member_path(_VALUE), choice.shape, inner)

    return parts_out, parts_in


def variant_shape(usual: Shape, other: Shape, dump_for: DumpFor) -> Shape:
    """Give the shape of an abstract type that has two classes; the other one is tagged."""
    tag = other.accepts[0].__name__
    encode_usual, decode_usual = usual.encode, usual.decode
    choice = _Choice(other, tag, dump_for(other))

    def encode(value: Any) -> Any:
        if value.__class__ in other.accepts:
            return choice.encode(value)
        return encode_usual(value)

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            return decode_usual(value)
        if value.get(TAG) != tag:
            raise Fault(f"an object with {TAG!r} of {tag}, or an array, expected")
        return other.decode(choice.inner(value))

    def parts_in(value: Any) -> Iterable[Part]:
        if value.__class__ is dict:
            return (Part(member_path(_VALUE), other, value.get(_VALUE)),)
        return usual.parts_in(value)

    return attrs.evolve(
        usual,
        kinds=usual.kinds | {"object"},
        accepts=(*usual.accepts, *other.accepts),
        encode=encode,
        decode=decode,
        shallow=False,
        levels=max(usual.levels, other.levels),
        parts_in=parts_in,
    )


def _written_kinds(choice: _Choice) -> frozenset[str]:
    return choice.shape.kinds if choice.tag is None else kinds("object")


def _choices(members: list[Shape], dump_for: DumpFor) -> list[_Choice]:
    owners: dict[str, list[Shape]] = {}
    for member in members:
        for kind in member.kinds:
            owners.setdefault(kind, []).append(member)
    tagged: set[int] = set()
    for sharing in owners.values():
        if len(sharing) > 1:
            tagged.update(id(member) for member in sharing if member.exact is None)
    if tagged:
        tagged.update(id(member) for member in owners.get("object", ()))
    tags = _tags([member for member in members if id(member) in tagged])
    return [_Choice(member, tags.get(id(member)), dump_for(member)) for member in members]


def _tags(members: list[Shape]) -> dict[int, str]:
    used: dict[str, int] = {}
    tags: dict[int, str] = {}
    for member in members:
        tag = member.name
        if tag in used:
            # Two classes of one name: the module tells them apart.
            first = member.accepts[0]
            tag = f"{first.__module__}.{first.__qualname__}"
        if tag in used:
            raise Unsupported(f"two members of a union are called {member.name}")
        used[tag] = id(member)
        tags[id(member)] = tag
    return tags


def _by_class(choices: list[_Choice]) -> _ByClass:
    table: dict[type, list[_Choice]] = {}
    for choice in choices:
        for cls in choice.shape.accepts:
            table.setdefault(cls, []).append(choice)
    for choice in choices:
        for cls in choice.shape.also:
            table.setdefault(cls, [choice])
    return table


def _candidates(by_class: _ByClass, value: Any) -> list[_Choice]:
    cls = class_of(value)
    if cls in by_class:
        return by_class[cls]
    for base in cls.__mro__:
        if base in by_class:
            return by_class[base]
    return []


_KIND_OF: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "array",
    dict: "object",
}


def _picker(name: str, choices: list[_Choice]) -> Callable[[Any], _Choice]:
    by_tag = {choice.tag: choice for choice in choices if choice.tag is not None}
    by_kind: dict[str, _Choice] = {}
    for choice in choices:
        if choice.tag is None:
            # The plain type wins over a literal of the same kind, which it includes.
            for kind in choice.shape.kinds:
                if kind not in by_kind or choice.shape.exact is not None:
                    by_kind[kind] = choice
    # What is written of an int may be true, and what is written of a float may have no point.
    for kind, wider in (("integer", "float"), ("boolean", "integer")):
        if kind not in by_kind and wider in by_kind:
            by_kind[kind] = by_kind[wider]

    # What was written before a Sequence took tuples, as objects, has no tag beside one.
    for kind, other in (("array", ""), ("object", "array")):
        owners = [
            one for one in choices if kind in one.shape.kinds and other not in one.shape.kinds
        ]
        if kind not in by_kind and len(owners) == 1:
            by_kind[kind] = attrs.evolve(owners[0], tag=None)

    def pick(value: Any) -> _Choice:
        kind = _KIND_OF[value.__class__]
        if kind == "object" and by_tag:
            tag = value.get(TAG)
            if tag.__class__ is str and tag in by_tag:
                return by_tag[tag]
            if kind in by_kind:
                return by_kind[kind]
            raise Fault(f"an object with {TAG!r} of {', '.join(by_tag)} expected")
        if kind in by_kind:
            return by_kind[kind]
        raise wrong_json(name, value)

    return pick
