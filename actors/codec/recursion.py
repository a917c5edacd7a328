"""Types that contain themselves: a stand-in for their shape, and how deep their values may nest."""

from __future__ import annotations

import threading
import typing
from collections.abc import Callable
from typing import Any

from .class_shapes import is_typed_dict
from .fields import runs_code
from .shapes import TAG, Shape, ShapeFor, TooDeep, kinds

MAX_RECURSION = 100
"""How often a type that contains itself may nest in a value."""


class _Depth(threading.local):
    level = 0


_depth = _Depth()


def recursive_shape(annotation: Any, shape_for: ShapeFor) -> Shape:
    """Stand in for a shape that is being made: its type contains itself."""

    def target() -> Shape:
        return shape_for(annotation)

    def decode(value: Any, _: Any = None) -> Any:
        return guarded(target().decode, value)

    def guarded(run: Callable[[Any], Any], value: Any) -> Any:
        # Each level costs several frames of Python's stack. A limit of our own is the same at
        # encode and at decode, whatever was on the stack before, so what was written can be read.
        level = _depth.level
        if level >= MAX_RECURSION:
            raise TooDeep
        _depth.level = level + 1
        try:
            return run(value)
        finally:
            _depth.level = level

    cls = typing.get_origin(annotation) or annotation
    return Shape(
        getattr(annotation, "__name__", str(annotation)),
        kinds("object"),
        (dict if is_typed_dict(annotation) else cls,),
        lambda value: guarded(target().encode, value),
        decode,
        # What is inside is not known yet, so the careful answer.
        loose=True,
        vague=True,
        unsure=runs_code(cls),
        is_record=TAG not in getattr(cls, "__annotations__", ()),
        parts_out=lambda value: target().parts_out(value),
        parts_in=lambda value: target().parts_in(value),
    )
