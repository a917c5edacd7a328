"""An entity's state in storage: its fields, with the version that they were declared by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import attrs
import orjson

from ..errors import PayloadError
from .annotations import shape_for
from .class_shapes import entry_parts
from .codec import Codec, codec_for
from .fields import class_fields, runs_code, set_attribute
from .shapes import Fault, Part, show, wrong_json

SCHEMA = "$schema"
"""The key of the schema version in a stored state; no field can be called so."""


def state_codec(
    cls: type,
    make: Callable[[], Any],
    schema_version: int = 1,
    upgrade: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
) -> Codec[Any]:
    """Give the codec of an entity's state: an object of its fields.

    Reading makes a fresh object and sets the fields that are stored; fields that are no longer
    declared are ignored, new ones keep their default. A version above 1 is stored with the state;
    a state of a lower version goes through ``upgrade`` first, one of a higher is refused.

    Args:
        cls: the entity's class, an attrs class or dataclass.
        make: gives a fresh object.
        schema_version: the version of the fields as they are declared now.
        upgrade: takes stored fields and their version, gives those of the present version.
    """
    shape = shape_for(cls)
    fields = [(field.name, shape_for(field.annotation)) for field in class_fields(cls)]
    write = shape.encode

    def encode(value: Any) -> Any:
        return {SCHEMA: schema_version, **write(value)}

    def current(stored: Any) -> dict[str, Any]:
        if stored.__class__ is not dict:
            raise wrong_json(f"an object for {cls.__name__}", stored)
        version = stored.get(SCHEMA, 1)
        if version.__class__ is not int or version > schema_version:
            raise Fault(
                f"stored by schema_version {version}, but {cls.__name__} is at {schema_version}; "
                "run the newer code again"
            )
        if version < schema_version and upgrade is not None:
            kept = {name: item for name, item in stored.items() if name != SCHEMA}
            upgraded = upgrade(kept, version)
            if not isinstance(upgraded, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise Fault(f"upgrade of {cls.__name__} gave no dict but {show(upgraded)}")
            stored = _as_json(upgraded, cls)
        return cast("dict[str, Any]", stored)

    def decode(stored: Any, _: Any = None) -> Any:
        values = current(stored)
        made = make()
        for name, field in fields:
            if name in values:
                set_attribute(made, name, field.decode(values[name]))
        return made

    def parts_in(stored: Any) -> Iterable[Part]:
        return entries(current(stored))

    entries = entry_parts(dict(fields))
    # The class's own code runs for the fresh object alone; it may set what is no field.
    unsure = bool(cls.__dictoffset__) and runs_code(cls)
    return Codec(
        cls,
        attrs.evolve(
            shape,
            encode=encode if schema_version > 1 else write,
            decode=decode,
            parts_in=parts_in,
            unsure=unsure or any(field.unsure for _, field in fields),
        ),
    )


def _as_json(upgraded: object, cls: type) -> Any:
    """Give what ``upgrade`` gave as the plain JSON that it stands for, also under ``Any``."""
    try:
        return orjson.loads(codec_for(Any).encode(upgraded))
    except PayloadError as error:
        raise Fault(f"upgrade of {cls.__name__} gave what cannot be stored: {error}") from None
