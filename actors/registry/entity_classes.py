"""Entities that are classes: the class with its fields as state, its methods as operations."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, cast

import attrs

from ..classes import class_of
from ..codec import Codec, codec_for
from ..codec.annotations import shape_for
from ..codec.fields import class_fields, is_frozen, set_attribute, type_hints
from ..codec.likeness import difference
from ..codec.shapes import Shape, member_path
from ..codec.snapshots import copier, flattener, is_immutable, rereader, snapshotter
from ..codec.states import state_codec
from ..errors import PayloadError, RegistrationError, UnknownNameError
from ..printing import class_name, repr_of, text_of, type_name
from .definitions import (
    EntityDefinition,
    OperationDefinition,
    is_commutative,
    is_readonly,
    operation_of,
)
from .direct_calls import guard
from .signatures import (
    ENTITY_CONTEXT,
    Names,
    attributes_set,
    codec_of,
    is_async,
    method_caller,
    output_codec,
    parameters_of,
    read_signature,
    refuse_generators,
)


def entity_class(cls: type, names: Names = types.MappingProxyType({})) -> type:
    """Make a class whose annotated fields are an entity's state an attrs class.

    One that is an attrs class or dataclass already is given back as it is. The class that comes
    back has the same functions, and slots, so that setting what is not declared is an error at
    once instead of state that is silently lost.

    Raises:
        RegistrationError: it is frozen, an annotation cannot be resolved, or a field has neither
            a default nor a type with an obvious one.
    """
    own = cls.__dict__
    _refuse_caches(cls)
    if "__attrs_attrs__" not in own and "__dataclass_fields__" not in own:
        _check_plain(cls)
        cls = _attrs_class(cls, names)
    declared = {field.name for field in class_fields(cls, names)}
    _check_declared(cls, declared)
    return cls


def _refuse_caches(cls: type) -> None:
    """Refuse what keeps a value in the object, beside the fields that it was worked out from."""
    fields = _field_names(cls)
    for owner in cls.__mro__[:-1]:
        for name, member in owner.__dict__.items():
            what = _cache(member)
            if isinstance(member, types.MemberDescriptorType) and name not in fields:
                # attrs keeps the value of a cached property in a slot of its own.
                what = "a slot that is no field" if fields and name[0] != "_" else None
            if what is not None:
                raise RegistrationError(
                    f"{name!r} of entity class {cls.__qualname__} is {what}: its value would stay "
                    "when the fields change, and be lost when the entity leaves memory; make it a "
                    "property or a method, or a field that the operations set"
                )


def _field_names(cls: Any) -> set[str]:
    if attrs.has(cls):
        return {field.name for field in attrs.fields(cls)}
    return set(getattr(cls, "__dataclass_fields__", ()))


def _cache(member: Any) -> str | None:
    kind = class_of(member)
    if isinstance(member, functools.cached_property) or "cached" in kind.__name__.lower():
        return f"a {kind.__name__}"
    if isinstance(member, _LRU_CACHE):
        return "a cached method"
    if hasattr(kind, "__get__") and hasattr(kind, "__set_name__") and not hasattr(kind, "__set__"):
        return f"a {kind.__name__}, a descriptor that may keep its value in the object"
    return None


_LRU_CACHE: Any = type(functools.lru_cache(maxsize=1)(repr))


def _plain_owners(cls: type) -> Iterable[type]:
    """Give a class and the bases of it that a user wrote as they are."""
    for owner in cls.__mro__[:-1]:
        own = owner.__dict__
        made = "__attrs_attrs__" in own or "__dataclass_fields__" in own
        if owner.__module__ not in ("typing", "abc") and not made:
            yield owner


def _check_plain(cls: type) -> None:
    """Refuse what would be ignored in a class that is to become an attrs class."""
    for owner in _plain_owners(cls):
        if inspect.isfunction(owner.__dict__.get("__init__")):
            raise RegistrationError(
                f"entity class {class_name(cls)} has an __init__, but an entity is made without "
                "arguments: declare its state as annotated fields with defaults (value: int = 0), "
                "and work out the rest in __attrs_post_init__"
            )


def _check_declared(cls: type, declared: set[str]) -> None:
    """Refuse state that nobody declared: it would be shared by all entities, or lost."""
    annotated = {name for owner in cls.__mro__ for name in inspect.get_annotations(owner)}
    for owner in (cls, *_plain_owners(cls)):
        for name, value in owner.__dict__.items():
            if name in annotated or name in declared or not _looks_like_state(name, value):
                continue
            raise RegistrationError(
                f"entity class {class_name(cls)} has {name} = {repr_of(value, 60)} without an "
                f"annotation, so it would be no state: write {name}: {type_name(value)} = ... for "
                f"state, or {name}: ClassVar[{type_name(value)}] = ... for what all entities share"
            )
    for method, name in _attributes_set(cls):
        if name in declared or hasattr(inspect.getattr_static(cls, name, None), "__set__"):
            continue
        raise RegistrationError(
            f"{method} of entity class {class_name(cls)} sets self.{name}, which is no field of it "
            f"and would be lost: declare it in the class, as in {name}: int = 0"
        )


def _looks_like_state(name: str, value: object) -> bool:
    if name.startswith(("__", "_abc_")) or name.isupper() or name == "schema_version":
        return False
    return not (isinstance(value, type) or callable(value) or hasattr(type(value), "__get__"))


def _attributes_set(cls: type) -> Iterable[tuple[str, str]]:
    if any("__setattr__" in owner.__dict__ for owner in _plain_owners(cls)):
        return
    for owner in (cls, *_plain_owners(cls)):
        for method, value in owner.__dict__.items():
            if inspect.isfunction(value) and not method.startswith("__"):
                yield from ((method, name) for name in sorted(attributes_set(value)))


def _attrs_class(cls: type, names: Names) -> type:
    hints = type_hints(cls, names)
    these: dict[str, Any] = {}
    inherited = {field.name for field in _attrs_fields(cls)}
    for owner in reversed(cls.__mro__[:-1]):
        if "__attrs_attrs__" in owner.__dict__:
            continue
        for name in inspect.get_annotations(owner):
            if _is_class_variable(hints[name]) or (name in inherited and owner is not cls):
                continue
            default = _default_in(owner, name)
            these[name] = _field(cls, name, hints[name], default, annotated=owner is cls)
    try:
        return attrs.define(cls, these=these, slots=True)
    except (TypeError, ValueError) as error:
        raise RegistrationError(
            f"entity class {cls.__qualname__} cannot be an attrs class: {error}"
        ) from None


def _attrs_fields(cls: type) -> Iterable[attrs.Attribute[Any]]:
    return attrs.fields(cls) if attrs.has(cls) else ()


def _is_class_variable(hint: Any) -> bool:
    return hint is typing.ClassVar or typing.get_origin(hint) is typing.ClassVar


def _default_in(owner: Any, name: str) -> Any:
    fields: dict[str, Any] = owner.__dict__.get("__dataclass_fields__", {})
    if name in fields:
        return fields[name]
    return owner.__dict__.get(name, attrs.NOTHING)


def _field(cls: type, name: str, hint: Any, default: Any, *, annotated: bool) -> Any:
    options: dict[str, Any] = {} if annotated else {"type": hint}
    if isinstance(default, dataclasses.Field):
        declared = cast("Any", default)
        if declared.default_factory is not dataclasses.MISSING:
            return attrs.field(factory=declared.default_factory, **options)
        default = attrs.NOTHING if declared.default is dataclasses.MISSING else declared.default
    if type(default) is type(attrs.field()):
        return default
    if isinstance(default, types.MemberDescriptorType):  # a slot is no default
        default = attrs.NOTHING
    if default is attrs.NOTHING:
        return attrs.field(factory=_zero(cls, name, hint), **options)
    if class_of(default) in (list, dict, set) and not default:
        return attrs.field(factory=class_of(default), **options)
    if not is_immutable(default):
        # One default for all entities would be one object that all of them share.
        return attrs.field(factory=lambda: copy.deepcopy(default), **options)
    return attrs.field(default=default, **options)


_ZEROS: tuple[type, ...] = (int, float, str, bool, bytes, list, dict, set, frozenset, deque)


def _zero(cls: type, name: str, hint: Any) -> Callable[[], Any]:
    """Give what makes the obvious default of a type that has one."""
    while typing.get_origin(hint) is typing.Annotated or isinstance(hint, typing.NewType):
        hint = hint.__supertype__ if isinstance(hint, typing.NewType) else typing.get_args(hint)[0]
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is None or hint is Any or hint is type(None):
        return _nothing
    if origin in (Union, types.UnionType) and type(None) in arguments:
        return _nothing
    if origin is tuple and (not arguments or arguments[-1] is Ellipsis):
        return tuple[Any, ...]
    if origin in _ZEROS:
        return cast("Callable[[], Any]", origin)
    raise RegistrationError(
        f"field {name!r} of entity class {cls.__qualname__} has no default, and its type has no "
        "obvious one; give it a default, since an entity begins with no arguments"
    )


def _nothing() -> None:
    return None


def _maker(cls: type) -> Callable[[], Any]:
    """Give a function that makes a fresh object, with zeros for what has no default.

    A field that is not of an immutable type is copied: its default, or what a factory or
    ``__post_init__`` put there, may be an object that others have as well.
    """
    zeros: dict[str, Callable[[], Any]] = {}
    aliases = {field.name: field.alias or field.name for field in _attrs_fields(cls)}
    for field in class_fields(cls):
        if field.required:
            zeros[aliases.get(field.name, field.name)] = _zero(cls, field.name, field.annotation)
    shapes = {field.name: shape_for(field.annotation) for field in class_fields(cls)}
    copiers = [
        (name, _json_copier(name, shape) if shape.vague else copier(shape))
        for name, shape in shapes.items()
        if not shape.immutable
    ]

    def make_with_zeros() -> Any:
        return cls(**{name: zero() for name, zero in zeros.items()})

    make: Callable[[], Any] = make_with_zeros if zeros else cls
    if not copiers:
        return make

    def make_with_copies() -> Any:
        made = make()
        for name, copied in copiers:
            set_attribute(made, name, copied(getattr(made, name)))
        return made

    return make_with_copies


def _json_copier(name: str, shape: Shape) -> Callable[[Any], Any]:
    """Give what copies a default with parts under ``Any``, which must be plain JSON there."""
    reread = rereader(shape)

    def copied(default: Any) -> Any:
        read = reread(default)
        lost = difference(default, read)
        if lost is not None:
            where, reason = lost
            path = f"${member_path(name)}{where}"
            raise PayloadError(path, f"{reason}; annotate the field as what it is, not Any")
        return read

    return copied


def define_entity_class(
    cls: type,
    *,
    name: str,
    max_mailbox: int | None = None,
    stripes: int | Literal["auto"] | None = None,
    names: Names = types.MappingProxyType({}),
    place: str = "",
) -> EntityDefinition:
    """Make the definition of an entity from what ``entity_class`` gave.

    Raises:
        RegistrationError: a public method takes more than one input, a type has no JSON form,
            an object cannot be made without arguments, or a striped entity, a commutative
            operation or a combiner is not as it has to be.
    """
    what = f"entity {name!r}"
    names = {**names, cls.__name__: cls}
    if is_frozen(cls):
        raise RegistrationError(f"{what} is frozen, so no operation could change its state")
    version, upgrade = _schema(cls, what)
    try:
        make = _maker(cls)
        state = state_codec(cls, make, version, upgrade)
        take, restore = snapshotter(cls)
    except RegistrationError as error:
        raise RegistrationError(f"the state of {what}: {error}") from None
    _check_fresh(make, state, what)
    methods = _public_methods(cls)
    merge = None if stripes is None else _merge(methods.pop("merge", None), cls, what, names)
    operations = {
        method: _operation(
            function, method, name, names, place, own=cls.__dict__.get(method) is function
        )
        for method, function in methods.items()
    }
    operations.setdefault("delete", _delete_operation(name))
    _check_commutative(operations, stripes is not None, what)
    definition = EntityDefinition(
        name=name,
        factory=cls,
        operations=operations,
        state=state,
        make=make,
        take=take,
        restore=restore,
        flatten=flattener(cls, state),
        schema_version=version,
        upgrade=upgrade,
        max_mailbox=max_mailbox,
        by_function=_methods_by_function(cls, operations),
        stripes=stripes,
        merge=merge,
        place=place,
    )
    _add_combiners(cls, definition, names)
    return definition


def _merge(function: Any, cls: type, what: str, names: Names) -> Callable[[Any, Any], Any]:
    """Check how the stripes of an entity are merged."""
    if function is None:
        raise RegistrationError(
            f"{what} is striped, so it needs a method 'def merge(self, other) -> None' that folds "
            "another stripe's state into this one"
        )
    form = f"merge of {what}"
    refuse_generators(function, form)
    signature = read_signature(function, form, ENTITY_CONTEXT, names, skip=1, context_first=False)
    if signature.order != ("input",):
        raise RegistrationError(f"{form} must take self and the other stripe's state, nothing else")
    other = signature.input
    if other is not Any and isinstance(other, type) and not issubclass(cls, other):
        raise RegistrationError(
            f"{form} gets another {cls.__name__}, so its parameter cannot be {other.__name__}"
        )
    if is_async(function, signature.output):
        raise RegistrationError(f"{form} must not be async: it runs inside of a turn")
    if signature.output not in (Any, None, type(None)):
        raise RegistrationError(
            f"{form} changes self and returns None; its result is annotated {signature.output!r}"
        )
    return cast("Callable[[Any, Any], Any]", function)


def _check_commutative(
    operations: Mapping[str, OperationDefinition], striped: bool, what: str
) -> None:
    marked = [operation for operation in operations.values() if operation.commutative]
    if striped and not marked:
        raise RegistrationError(
            f"{what} is striped, but none of its operations is marked with @perdure.commutative, "
            "so nothing would run on its stripes"
        )
    for operation in marked:
        if not striped:
            raise RegistrationError(
                f"{operation.title} is marked as commutative, which means something for striped "
                "entities only: register it with @app.entity(stripes=N)"
            )
        if operation.readonly:
            raise RegistrationError(
                f"{operation.title} cannot be readonly and commutative: a read sees the merged "
                "state, and a commutative operation its own stripe's"
            )


def _add_combiners(cls: type, definition: EntityDefinition, names: Names) -> None:
    """Give the operations what folds their inputs."""
    names = {**names, cls.__name__: cls}
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for name, value in owner.__dict__.items():
            if getattr(value, "__perdure_combines__", None) is not None:
                found[name] = value
            else:
                found.pop(name, None)
    for name, value in found.items():
        what = f"combiner {name!r} of entity {definition.name!r}"
        try:
            operation = operation_of(definition, value.__perdure_combines__)
        except UnknownNameError as error:
            raise RegistrationError(f"{what}: {error}") from None
        if operation.combine is not None:
            raise RegistrationError(f"{operation.title} has two combiners; {name!r} is one of them")
        _check_combiner(value.__func__, operation, what, names)
        definition.operations[operation.name] = attrs.evolve(operation, combine=value.__func__)


def _check_combiner(function: Any, operation: OperationDefinition, what: str, names: Names) -> None:
    if not inspect.isfunction(function):
        raise RegistrationError(f"{what} must be a plain function, not {function!r}")
    refuse_generators(function, what)
    signature = read_signature(function, what, ENTITY_CONTEXT, names, context_first=False)
    if signature.order != ("input",):
        raise RegistrationError(
            f"{what} must be a static function that takes one list: the inputs that wait"
        )
    if is_async(function, signature.output) or operation.is_async:
        raise RegistrationError(f"{what} and {operation.title} must not be async")
    if not operation.takes_input or operation.readonly:
        raise RegistrationError(
            f"{what} is for {operation.title}, which must take an input and may not be readonly"
        )
    wanted: Any = operation.input.annotation
    if wanted is Any:
        return
    if signature.input not in (Any, list, list[wanted]):
        raise RegistrationError(
            f"{what} gets a list of inputs of {operation.title}, list[{operation.input.shape.name}]; "
            f"its parameter is annotated {signature.input!r}"
        )
    if signature.output not in (Any, wanted):
        raise RegistrationError(
            f"{what} must give an input of {operation.title}, {operation.input.shape.name}; its "
            f"result is annotated {signature.output!r}"
        )


def _schema(cls: Any, what: str) -> tuple[int, Any]:
    version = getattr(cls, "schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RegistrationError(
            f"schema_version of {what} must be an int of at least 1, declared as "
            f"schema_version: ClassVar[int] = 1; it is {version!r}"
        )
    upgrade = inspect.getattr_static(cls, "upgrade", None)
    if isinstance(upgrade, (classmethod, staticmethod)):
        return version, cls.upgrade
    return version, None


def _check_fresh(make: Callable[[], Any], state: Codec[Any], what: str) -> None:
    try:
        fresh = make()
        state.decode(state.encode(fresh))
    except PayloadError as error:
        raise RegistrationError(f"a default of {what} does not fit its field: {error}") from None
    except Exception as error:
        raise RegistrationError(
            f"{what} cannot be made without arguments: {type_name(error)}: {text_of(error)}"
        ) from error


def _public_methods(cls: type) -> dict[str, Any]:
    methods: dict[str, Any] = {}
    for owner in reversed(cls.__mro__[:-1]):
        for name, value in owner.__dict__.items():
            if name.startswith("_"):
                continue
            if inspect.isfunction(value):
                methods[name] = value
            else:
                # A property or field of a subclass takes the place of a method.
                methods.pop(name, None)
    return methods


def _methods_by_function(
    cls: type, operations: Mapping[str, OperationDefinition]
) -> dict[Callable[..., Any], str]:
    return {
        value: name
        for owner in cls.__mro__[:-1]
        for name, value in owner.__dict__.items()
        if name in operations and inspect.isfunction(value)
    }


def _operation(
    function: Any, name: str, entity: str, names: Names, place: str, *, own: bool
) -> OperationDefinition:
    what = f"operation {name!r} of entity {entity!r}"
    refuse_generators(function, what)
    if not list(parameters_of(function, what)):
        raise RegistrationError(f"{what} takes no self")
    signature = read_signature(function, what, ENTITY_CONTEXT, names, skip=1, context_first=False)
    call = function
    if own:  # a base class may serve others, too
        instead = f"ctx.call_entity(EntityId({entity!r}, key), {name!r}, ...)"
        call = guard(function, what, instead)
    return OperationDefinition(
        name=name,
        entity=entity,
        function=function,
        is_async=is_async(function, signature.output),
        takes_input=signature.takes_input,
        takes_context=signature.takes_context,
        required=signature.required,
        default=None if signature.default is attrs.NOTHING else signature.default,
        readonly=is_readonly(function),
        commutative=is_commutative(function),
        input=codec_of(signature.input, what, "input"),
        output=output_codec(signature.output, what),
        invoke=method_caller(call, signature.order),
        place=place,
    )


def _delete(entity: Any, input: Any, context: Any) -> None:
    context.delete()


def _delete_operation(entity: str) -> OperationDefinition:
    """Give the operation that every entity has: it deletes the state."""
    return OperationDefinition(
        name="delete",
        entity=entity,
        function=_delete,
        is_async=False,
        takes_input=False,
        takes_context=True,
        required=False,
        input=codec_for(Any),
        output=codec_for(None),
        invoke=_delete,
    )
