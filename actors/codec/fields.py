"""The fields of attrs classes and dataclasses, with their annotations resolved."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

import attrs

from ..errors import RegistrationError
from ..printing import text_of, type_name

# A class may convert or check what is set; a value that was there before needs neither.
set_attribute = object.__setattr__


@attrs.frozen
class Field:
    """A field of a class, with its annotation resolved.

    Attributes:
        name: the attribute's name.
        annotation: its type; ``Any`` if it has none.
        required: whether it has no default.
    """

    name: str
    annotation: Any
    required: bool


def class_fields(cls: type, names: Mapping[str, Any] | None = None) -> list[Field]:
    """Give the fields of an attrs class or dataclass.

    Args:
        cls: the class.
        names: further names that its annotations may use, such as those local to a function.

    Raises:
        RegistrationError: an annotation has a name that cannot be found, or is no type.
    """
    if attrs.has(cls):
        try:
            attrs.resolve_types(cls, None, {cls.__name__: cls, **(names or {})})
        except Exception as error:  # what a text that is no type raises where it is evaluated
            raise _unresolved(cls, error) from None
        return [
            Field(a.name, Any if a.type is None else a.type, a.init and a.default is attrs.NOTHING)
            for a in attrs.fields(cls)
        ]
    _resolve_dataclass(cls, names)
    missing = dataclasses.MISSING
    return [
        Field(f.name, f.type, f.init and f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(cast("Any", cls))
    ]


def _resolve_dataclass(cls: Any, names: Mapping[str, Any] | None) -> None:
    # Kept in the fields, as attrs does: later there are no local names to resolve them by.
    if "__perdure_resolved__" in cls.__dict__:
        return
    hints = type_hints(cls, names)
    for field in dataclasses.fields(cls):
        field.type = hints.get(field.name, field.type)
    cls.__perdure_resolved__ = True


def type_hints(what: Any, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Resolve the annotations of a class or function.

    Raises:
        RegistrationError: an annotation has a name that cannot be found, or is no type.
    """
    known = dict(names or {})
    if isinstance(what, type):
        known.setdefault(what.__name__, what)
    try:
        return typing.get_type_hints(what, None, known, include_extras=True)
    except Exception as error:
        raise _unresolved(what, error) from None


def _unresolved(what: Any, error: Exception) -> RegistrationError:
    if not isinstance(error, NameError):
        return RegistrationError(
            f"an annotation of {getattr(what, '__qualname__', what)} is no type: "
            f"{type_name(error)}: {text_of(error)}"
        )
    annotations: dict[str, Any] = dict(getattr(what, "__annotations__", {}))
    users = [
        f"{name}: {text}"
        for name, text in annotations.items()
        if error.name is not None and error.name in str(text)
    ]
    return RegistrationError(
        f"cannot resolve the annotation {', '.join(users) or error.name!r} of "
        f"{getattr(what, '__qualname__', what)}: {error}; define {error.name!r} at module level, "
        "before the decorator runs and outside of TYPE_CHECKING"
    )


def is_frozen(cls: Any) -> bool:
    """Say whether the fields of an attrs class or dataclass cannot be set."""
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is not None and not attrs.has(cls):
        return bool(parameters.frozen)
    return getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"


def runs_code(cls: Any) -> bool:
    """Say whether making an object of its fields runs users' code, which may change them.

    It does where the class has validators, converters or a ``__post_init__``, and where something
    of how it is made, set or read is not generated.
    """
    if type(cls).__call__ is not type.__call__ or cls.__new__ is not object.__new__:
        return not (issubclass(cls, tuple) and _is_generated(cls.__new__))  # pyright: ignore[reportUnknownMemberType]
    if not _is_generated(cls.__init__):
        return True
    frozen = is_frozen(cls)
    set_by = cls.__setattr__
    if not frozen and set_by is not object.__setattr__ and not _is_generated(set_by):
        return True
    if any(hasattr(cls, name) for name in _HOOKS):
        return True
    if cls.__getattribute__ is not object.__getattribute__:
        return True
    if attrs.has(cls):
        made = all(
            one.converter is None and one.validator is None and (one.init or not frozen)
            for one in attrs.fields(cls)
        )
        names = [one.name for one in attrs.fields(cls)]
    else:
        fields = dataclasses.fields(cls)
        made = len(fields) == len(cls.__dataclass_fields__) - _class_variables(cls)
        made = made and all(one.init or not frozen for one in fields)
        names = [one.name for one in fields]
    return not made or any(_is_computed(inspect.getattr_static(cls, name, None)) for name in names)


_HOOKS = ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__")


def _class_variables(cls: Any) -> int:
    # What is left besides fields and these is for __init__ alone.
    marker: Any = getattr(dataclasses, "_FIELD_CLASSVAR")  # noqa: B009
    return sum(one._field_type is marker for one in cls.__dataclass_fields__.values())


def _is_generated(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _is_computed(member: object) -> bool:
    cls: Any = type(member)
    return hasattr(cls, "__set__") and cls is not types.MemberDescriptorType


def type_arguments(annotation: Any, cls: Any) -> dict[Any, Any]:
    """Map the type variables of a generic class and its bases to what they stand for."""
    mapping: dict[Any, Any] = {}
    arguments = typing.get_args(annotation)
    if arguments:
        mapping.update(zip(cls.__parameters__, arguments, strict=False))
    owners: list[Any] = list(cls.__mro__)
    for owner in owners:
        for base in owner.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            if (origin or base) not in owners:  # a TypedDict has no bases
                owners.append(origin or base)
            if origin is not None and origin is not Generic:
                for variable, argument in zip(
                    getattr(origin, "__parameters__", ()), typing.get_args(base), strict=False
                ):
                    mapping.setdefault(variable, substitute(argument, mapping))
    return mapping


def substitute(annotation: Any, mapping: Mapping[Any, Any]) -> Any:
    """Put the types that are known in the place of an annotation's type variables."""
    if isinstance(annotation, TypeVar):
        return mapping.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if variables and not isinstance(annotation, type):
        return annotation[tuple(mapping.get(variable, variable) for variable in variables)]
    return annotation
