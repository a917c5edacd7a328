"""Containers: arrays of items, and objects whose keys are data."""

from __future__ import annotations

import collections
import collections.abc
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

from ..classes import is_a
from ..printing import repr_of
from .shapes import (
    Decoder,
    Encoder,
    Fault,
    Part,
    Shape,
    Unsupported,
    kinds,
    levels_of,
    member_path,
    no_parts,
    show,
    wrong,
    wrong_json,
)


def _items_encoder(accepts: Collection[Any], name: str, item: Shape) -> Encoder:
    encode_item, exact = item.encode, item.exact
    if item.is_any:
        exact = object

    def encode(value: Any) -> Any:
        if value.__class__ not in accepts:
            raise wrong(name, value, *accepts)
        if exact is object:
            return value
        for element in value:
            if element.__class__ is not exact:
                return [encode_item(element) for element in value]
        return value

    return encode


def _items_decoder(name: str, item: Shape, build: Callable[[Any], Any]) -> Decoder:
    decode_item, exact = item.decode, item.exact
    if item.is_any:
        exact = object

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not list:
            raise wrong_json(f"an array for {name}", value)
        if exact is object:
            return build(value)
        for element in value:
            if element.__class__ is not exact:
                return build([decode_item(element) for element in value])
        return build(value)

    return decode


def _numbered(item: Shape) -> Callable[[Any], Iterator[Part]]:
    def parts(value: Any) -> Iterator[Part]:
        if is_a(value, (list, tuple, set, frozenset, collections.deque)):
            for index, element in enumerate(value):
                yield Part(f"[{index}]", item, element)

    return parts


def array_shape(
    cls: type, accepts: tuple[type, ...], item: Shape, build: Callable[[Any], Any]
) -> Shape:
    """Give the shape of what has any number of items in order.

    Args:
        cls: what it is called by, and encoded from if it is no list.
        accepts: the classes of values that are taken.
        item: the shape of the items.
        build: makes a value of a list of items.
    """
    name = f"{cls.__name__}[{item.name}]"
    encode = _items_encoder(accepts, name, item)
    if cls is collections.deque:
        encode = _unbounded(encode)
    if cls is not list:
        # orjson knows no deque, and tuple only by its exact type.
        inner = encode

        def as_list(value: Any) -> Any:
            return list(inner(value))

        encode = as_list
    return Shape(
        name,
        kinds("array"),
        accepts,
        encode,
        _items_decoder(name, item, build),
        loose=item.loose,
        vague=item.vague,
        unsure=item.unsure,
        immutable=cls is tuple and item.immutable,
        shallow=item.immutable,
        levels=levels_of((item,)),
        parts_out=_numbered(item),
        parts_in=_numbered(item),
    )


def _unbounded(encode: Encoder) -> Encoder:
    def encode_unbounded(value: Any) -> Any:
        if getattr(value, "maxlen", None) is not None:
            raise Fault("the maxlen of a deque would be lost; use a list, and cut it")
        return encode(value)

    return encode_unbounded


def set_shape(
    cls: type, accepts: tuple[type, ...], item: Shape, dump: Callable[[Any], bytes]
) -> Shape:
    """Give the shape of a set; ``dump`` writes an encoded item, to sort them by."""
    name = f"{cls.__name__}[{item.name}]"
    encode_item = item.encode
    taken: Collection[Any] = accepts

    def encode(value: Any) -> Any:
        if value.__class__ not in taken:
            raise wrong(name, value, *accepts)
        # The order of a set differs between processes, that of its encoded elements does not.
        return sorted([encode_item(element) for element in value], key=dump)

    def build(items: Any) -> Any:
        try:
            return cls(items)
        except TypeError:
            raise Fault(f"an array inside a {name} cannot be an element of it") from None

    return Shape(
        name,
        kinds("array"),
        accepts,
        encode,
        _items_decoder(name, item, build),
        loose=item.loose,
        vague=item.vague,
        # Under Any two elements may look the same in JSON, or become what no set takes.
        unsure=item.unsure or item.vague,
        immutable=cls is frozenset and item.immutable,
        shallow=item.immutable,
        levels=levels_of((item,)),
        parts_out=_numbered(item),
        parts_in=_numbered(item),
    )


def fixed_tuple_shape(items: tuple[Shape, ...]) -> Shape:
    """Give the shape of a tuple with a type for each place."""
    name = f"tuple[{', '.join(item.name for item in items) or '()'}]"
    size = len(items)
    encoders = [item.encode for item in items]
    decoders = [item.decode for item in items]

    def encode(value: Any) -> Any:
        if value.__class__ is not tuple:
            raise wrong(name, value, tuple)
        elements: tuple[Any, ...] = value
        if len(elements) != size:
            raise Fault(f"{name} expected, not {len(elements)} elements")
        return [write(element) for write, element in zip(encoders, elements, strict=True)]

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not list:
            raise wrong_json(f"an array for {name}", value)
        if len(value) != size:
            raise Fault(f"{name} expected, not {len(value)} elements")
        return tuple([read(element) for read, element in zip(decoders, value, strict=True)])

    def parts(value: Any) -> Iterator[Part]:
        if is_a(value, (list, tuple)):
            elements = value
            for index, (item, element) in enumerate(zip(items, elements, strict=False)):
                yield Part(f"[{index}]", item, element)

    return Shape(
        name,
        kinds("array"),
        (tuple,),
        encode,
        decode,
        loose=any(item.loose for item in items),
        vague=any(item.vague for item in items),
        unsure=any(item.unsure for item in items),
        immutable=all(item.immutable for item in items),
        levels=levels_of(items),
        parts_out=parts,
        parts_in=parts,
    )


def dict_shape(cls: Any, key: Shape, item: Shape) -> Shape:
    """Give the shape of a dict, whose keys are written as text."""
    if key.key is None:
        raise Unsupported(
            f"a dict with keys of {key.name} has no JSON form; use str, int, an enum, UUID, date "
            "or datetime"
        )
    name = f"{cls.__name__}[{key.name}, {item.name}]"
    wanted: type = collections.OrderedDict if cls is collections.OrderedDict else dict
    return Shape(
        name,
        kinds("object"),
        (wanted,),
        _dict_encoder(wanted, name, key, item),
        _dict_decoder(cls, name, key, item),
        loose=item.loose,
        vague=item.vague,
        unsure=item.unsure,
        shallow=item.immutable,
        levels=levels_of((item,)),
        parts_out=_keyed_out(key, item),
        parts_in=_keyed_in(key, item),
    )


def _dict_encoder(cls: Any, name: str, key: Shape, item: Shape) -> Encoder:
    assert key.key is not None
    encode_key, encode_item = key.key.encode, item.encode
    exact = item.exact
    text_keys = key.exact is str or key.is_any

    def encode(value: Any) -> Any:
        if value.__class__ is not cls:
            raise wrong(name, value, cls)
        entries = value
        if text_keys and exact is not None:
            for k, v in entries.items():
                if k.__class__ is not str or v.__class__ is not exact:
                    break
            else:
                return entries
        written = {encode_key(k): encode_item(v) for k, v in entries.items()}
        if len(written) != len(entries):
            raise Fault("two keys have the same text")
        return written

    return encode


def _dict_decoder(cls: Any, name: str, key: Shape, item: Shape) -> Decoder:
    assert key.key is not None
    decode_key, decode_item = key.key.decode, item.decode
    text_keys = key.exact is str or key.is_any
    ordered = cls is collections.OrderedDict

    def decode(value: Any, _: Any = None) -> Any:
        if value.__class__ is not dict:
            raise wrong_json(f"an object for {name}", value)
        if text_keys:
            read = {k: decode_item(v) for k, v in value.items()}
        else:
            read = {decode_key(k): decode_item(v) for k, v in value.items()}
        return collections.OrderedDict(read) if ordered else read

    return decode


def _keyed_out(key: Shape, item: Shape) -> Callable[[Any], Iterator[Part]]:
    assert key.key is not None
    as_key = attrs.evolve(key, encode=key.key.encode, parts_out=no_parts)

    def parts(value: Any) -> Iterator[Part]:
        if is_a(value, collections.abc.Mapping):
            entries: Mapping[Any, Any] = value
            for k, v in entries.items():
                yield Part(f" key {show(k)}", as_key, k)
                yield Part(member_path(k), item, v)

    return parts


def _keyed_in(key: Shape, item: Shape) -> Callable[[Any], Iterator[Part]]:
    assert key.key is not None
    as_key = attrs.evolve(key, decode=key.key.decode, parts_in=no_parts)

    def parts(value: Any) -> Iterator[Part]:
        if is_a(value, dict):
            for k, v in value.items():
                yield Part(f" key {repr_of(k, 60)}", as_key, k)
                yield Part(member_path(k), item, v)

    return parts
