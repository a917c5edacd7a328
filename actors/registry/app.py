"""The registry: what an application consists of, by name and by function object."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar, dataclass_transform, overload

import attrs

from ..arguments import instance, is_a, optional_text, refusal, text, whole
from ..carried import check_context_vars
from ..errors import InvalidIdError, RegistrationError, UnknownNameError, UsageError
from ..ids import check_text
from ..printing import repr_of, text_of, type_name
from ..retry import RetryPolicy
from ..times import seconds
from .definitions import (
    ActivityDefinition,
    EntityDefinition,
    OrchestrationDefinition,
    did_you_mean,
    name_of,
)
from .entity_classes import define_entity_class, entity_class
from .functions import define_activity, define_entity_function, define_orchestration

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D", ActivityDefinition, OrchestrationDefinition, EntityDefinition)


class EntityDecorator(Protocol):
    """What ``app.entity`` with options gives: it takes a class or a function."""

    @overload
    def __call__(self, entity: type[T], /) -> type[T]: ...
    @overload
    def __call__(self, entity: F, /) -> F: ...


class App:
    """The entities, orchestrations and activities of an application.

    Args:
        name: what to call it in errors.
        context_vars: context variables, of texts, whose values go along: from whoever starts,
            calls or signals to what is started, and to all that this calls, durably.

    A function or class may be registered in several applications. Registration is part of
    importing a module: do it before a hub runs the application.
    """

    def __init__(
        self, name: str | None = None, *, context_vars: Sequence[ContextVar[str]] = ()
    ) -> None:
        self.name = optional_text(name, "name")
        self.context_vars = check_context_vars(context_vars)
        self._activities: dict[str, ActivityDefinition] = {}
        self._orchestrations: dict[str, dict[str | None, OrchestrationDefinition]] = {}
        self._entities: dict[str, EntityDefinition] = {}
        self._striped: dict[str, EntityDefinition] = {}  # those of the entities that are
        # By the object that was decorated. Functions hash by identity.
        self._activity_of: dict[Any, ActivityDefinition] = {}
        self._orchestration_of: dict[Any, OrchestrationDefinition] = {}

    def __repr__(self) -> str:
        return (
            f"<App {self.name or ''}: {len(self._entities)} entities, "
            f"{len(self._orchestrations)} orchestrations, {len(self._activities)} activities>"
        )

    @property
    def activities(self) -> list[str]:
        """The names of the activities, sorted."""
        return sorted(self._activities)

    @property
    def orchestrations(self) -> list[str]:
        """The names of the orchestrations, sorted."""
        return sorted(self._orchestrations)

    @property
    def entities(self) -> list[str]:
        """The names of the entities, sorted."""
        return sorted(self._entities)

    def versions(self, orchestration: str) -> list[str | None]:
        """List the versions of an orchestration, lowest first.

        Raises:
            UnknownNameError: no orchestration of that name is registered.
        """
        return sorted(self._versions_of(text(orchestration, "orchestration")), key=version_key)

    # Decorators.

    @overload
    @dataclass_transform(field_specifiers=(attrs.field,))
    def entity(self, cls: type[T], /) -> type[T]: ...
    @overload
    def entity(self, f: F, /) -> F: ...
    @overload
    def entity(
        self,
        /,
        *,
        name: str | None = ...,
        max_mailbox: int | None = ...,
        stripes: int | Literal["auto"] | None = ...,
    ) -> EntityDecorator: ...
    def entity(
        self,
        target: Any = None,
        /,
        *,
        name: str | None = None,
        max_mailbox: int | None = None,
        stripes: int | Literal["auto"] | None = None,
    ) -> Any:
        """Register an entity: a class, or a function of an ``EntityContext``.

        A class becomes an attrs class: its annotated fields are the durable state, its public
        methods the operations. A list, dict or set literal as a default means a fresh one for
        each entity. Every entity has an operation ``delete`` unless it defines its own.

        Args:
            target: the class or function; none if options are given.
            name: its name, which ignores case; that of the class or function by default.
            max_mailbox: how many messages may wait for one, if not as many as the hub allows.
            stripes: spreads operations marked ``@perdure.commutative`` over so many stripes of
                each entity, 1 to 1,024; its method ``merge(self, other)`` folds them together for
                all other operations and for reads. "auto" has a stripe in each partition, and
                uses it while the entity is hot.

        Raises:
            RegistrationError: it cannot be an entity as it is written, or the name is taken.
        """
        limit = _check_count(max_mailbox, "max_mailbox")
        stripes = _check_stripes(stripes)
        name = None if name is None else _check_name(name, "name: an entity name")

        def register(target: Any, frame: types.FrameType) -> Any:
            return self._add_entity(target, name, limit, stripes, frame)

        return _decorate(target, register)

    @overload
    def activity(self, f: F, /) -> F: ...
    @overload
    def activity(
        self,
        /,
        *,
        name: str | None = ...,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        max_concurrency: int | None = ...,
    ) -> Callable[[F], F]: ...
    def activity(
        self,
        f: Any = None,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        max_concurrency: int | None = None,
    ) -> Any:
        """Register an activity: a function that does real work, at least once per call.

        Args:
            f: the function; none if options are given.
            name: its name; that of the function by default.
            retry: how it is tried again when it fails, unless the call says otherwise.
            timeout: how long an attempt may take, unless the call says otherwise.
            max_concurrency: how many may run at once in a hub.

        Raises:
            RegistrationError: it cannot be an activity as it is written, or the name is taken.
        """
        _check_retry(retry)
        name = None if name is None else _check_name(name, "name: an activity name")
        seconds = _check_timeout(timeout)
        limit = _check_count(max_concurrency, "max_concurrency")

        def register(f: Any, frame: types.FrameType) -> Any:
            definition = define_activity(
                _check_callable(f, "activity"),
                name=_check_name(_name_of(f, name), "an activity name"),
                retry=retry,
                timeout=seconds,
                max_concurrency=limit,
                names=_locals(frame),
                place=_place(frame),
            )
            self._add_activity(definition)
            return f

        return _decorate(f, register)

    @overload
    def orchestration(self, f: F, /) -> F: ...
    @overload
    def orchestration(
        self,
        /,
        *,
        name: str | None = ...,
        version: str | None = ...,
        retry: RetryPolicy | None = ...,
    ) -> Callable[[F], F]: ...
    def orchestration(
        self,
        f: Any = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> Any:
        """Register an orchestration: an ``async def`` or a generator that takes its context first.

        Args:
            f: the function; none if options are given.
            name: its name; that of the function by default.
            version: its version; several of one name may be registered side by side.
            retry: how it is tried again as a sub-orchestration, unless the call says otherwise.

        Raises:
            RegistrationError: it cannot be an orchestration as it is written, or the name and
                version are taken.
        """
        _check_retry(retry)
        name = None if name is None else _check_name(name, "name: an orchestration name")
        if version is not None:
            version = _check_name(version, "a version")

        def register(f: Any, frame: types.FrameType) -> Any:
            definition = define_orchestration(
                _check_callable(f, "orchestration"),
                name=_check_name(_name_of(f, name), "an orchestration name"),
                version=version,
                retry=retry,
                names=_locals(frame),
                place=_place(frame),
            )
            self._add_orchestration(definition)
            return f

        return _decorate(f, register)

    def include(self, other: App) -> None:
        """Register everything that another application has now.

        Raises:
            RegistrationError: a name is taken by something else; then nothing is registered.
        """
        instance(other, App, "other", "an App", RegistrationError)
        for activity in other._activities.values():
            _refuse_second(self._activities.get(activity.name), activity)
        for orchestration in other._all_orchestrations():
            mine = self._orchestrations.get(orchestration.name, {})
            _refuse_second(mine.get(orchestration.version), orchestration)
        for entity in other._entities.values():
            _refuse_second(self._entities.get(entity.name), entity)
        for activity in other._activities.values():
            self._add_activity(activity)
        for orchestration in other._all_orchestrations():
            self._add_orchestration(orchestration)
        self._entities.update(other._entities)
        self._striped.update(other._striped)
        declared = self.context_vars
        self.context_vars = declared | {
            name: var for name, var in other.context_vars.items() if name not in declared
        }
        self._activity_of = {**other._activity_of, **self._activity_of}
        self._orchestration_of = {**other._orchestration_of, **self._orchestration_of}

    def _all_orchestrations(self) -> list[OrchestrationDefinition]:
        return [
            definition
            for versions in self._orchestrations.values()
            for definition in versions.values()
        ]

    def _add_activity(self, definition: ActivityDefinition) -> None:
        _refuse_second(self._activities.get(definition.name), definition)
        self._activities[definition.name] = definition
        self._activity_of.setdefault(definition.function, definition)

    def _add_orchestration(self, definition: OrchestrationDefinition) -> None:
        versions = self._orchestrations.get(definition.name, {})
        _refuse_second(versions.get(definition.version), definition)
        self._orchestrations[definition.name] = {**versions, definition.version: definition}
        known = self._orchestration_of.get(definition.function)
        # One function under several versions stands for the highest of them.
        if known is None or version_key(known.version) <= version_key(definition.version):
            self._orchestration_of[definition.function] = definition

    def _add_entity(
        self,
        target: Any,
        name: str | None,
        max_mailbox: int | None,
        stripes: int | Literal["auto"] | None,
        frame: types.FrameType,
    ) -> Any:
        _check_callable(target, "entity")
        chosen = _check_name(_name_of(target, name), "an entity name").casefold()
        if "@" in chosen:
            raise RegistrationError(f"entity name {chosen!r} must not contain '@'")
        before = target.__dict__.get("__perdure_entity__", chosen)
        if before != chosen:
            raise RegistrationError(
                f"{target.__qualname__} is registered as entity {before!r} already, so it cannot "
                f"be {chosen!r} as well; use that name, or a subclass"
            )
        names, place = _locals(frame), _place(frame)
        known = self._entities.get(chosen)
        if known is not None:
            raise _taken(f"entity {chosen!r}", known.place, place)
        if isinstance(target, type):
            target = entity_class(target, names)
            definition = define_entity_class(
                target,
                name=chosen,
                max_mailbox=max_mailbox,
                stripes=stripes,
                names=names,
                place=place,
            )
        elif stripes is not None:
            raise RegistrationError(
                f"entity {chosen!r} is a function, and only a class can be striped: stripes need a "
                "method merge"
            )
        else:
            definition = define_entity_function(
                target, name=chosen, max_mailbox=max_mailbox, names=names, place=place
            )
        target.__perdure_entity__ = chosen
        self._entities[chosen] = definition
        if stripes is not None:
            self._striped[chosen] = definition
        return target

    # Lookups.

    def find_activity(self, f: str | Callable[..., Any]) -> ActivityDefinition:
        """Find an activity by its name or by its function.

        Raises:
            UnknownNameError: it is not registered in this application.
        """
        if type(f) is types.FunctionType:
            return self._activity_of.get(f) or self._by_object(self._activity_of, f, "activity")
        if is_a(f, str):
            f = text(f, "f")
            found = self._activities.get(f)
            if found is None:
                raise UnknownNameError(
                    f"{self._title} has no activity {repr_of(f)}{did_you_mean(f, self._activities)}"
                )
            return found
        return self._by_object(self._activity_of, f, "activity")

    def find_orchestration(
        self, f: str | Callable[..., Any], version: str | None = None
    ) -> OrchestrationDefinition:
        """Find an orchestration by its name or by its function.

        Args:
            f: a name stands for its highest version, a function for itself.
            version: this version of it instead.

        Raises:
            UnknownNameError: it, or that version of it, is not registered in this application.
        """
        if version is not None:
            version = text(version, "version")
        if type(f) is types.FunctionType or not is_a(f, str):
            own = self._by_object(self._orchestration_of, f, "orchestration")
            if version is None or version == own.version:
                return own
            f = own.name
        f = text(f, "f")
        versions = self._versions_of(f)
        if version is None:
            return versions[max(versions, key=version_key)]
        found = versions.get(version)
        if found is None:
            known = [str(each) for each in sorted(versions, key=version_key)]
            raise UnknownNameError(
                f"{self._title} has no version {repr_of(version)} of orchestration {f!r}; it has: "
                f"{'..., ' if len(known) > 10 else ''}{', '.join(known[-10:])}"
            )
        return found

    @property
    def orchestration_versions(self) -> list[tuple[str, str | None]]:
        """The names and versions of all orchestrations."""
        return [(one.name, one.version) for one in self._all_orchestrations()]

    def exact_orchestration(self, name: str, version: str | None) -> OrchestrationDefinition:
        """Find the very version that an instance was started with; None is the one without any.

        Raises:
            UnknownNameError: it, or that version of it, is not registered in this application.
        """
        found = self._versions_of(name).get(version)
        if found is None:
            raise UnknownNameError(
                f"{self._title} has no version {repr_of(version)} of orchestration {name!r} any more; "
                "register it again, so that instances of that version can go on"
            )
        return found

    def find_entity(self, name: str | Callable[..., Any]) -> EntityDefinition:
        """Find an entity by its name, whatever the case, or by its class or function.

        Raises:
            UnknownNameError: it is not registered in this application.
        """
        known: str = name if type(name) is str else self._entity_name(name)  # pyright: ignore[reportAssignmentType]
        found = self._entities.get(known) or self._entities.get(known.casefold())
        if found is None:
            raise UnknownNameError(
                f"{self._title} has no entity {repr_of(known)}"
                f"{did_you_mean(known.casefold(), self._entities)}"
            )
        return found

    def _entity_name(self, entity: Any) -> str:
        if is_a(entity, str):
            return text(entity, "name")
        try:
            registered: object = entity.__dict__.get("__perdure_entity__")
        except Exception:
            registered = None
        if type(registered) is not str:
            raise self._not_registered(entity, "entity")
        return registered

    @property
    def striped(self) -> Mapping[str, EntityDefinition]:
        """The striped entities, by name."""
        return self._striped

    @property
    def _title(self) -> str:
        return f"app {self.name!r}" if self.name else "the app"

    def _versions_of(self, name: str) -> dict[str | None, OrchestrationDefinition]:
        versions = self._orchestrations.get(name)
        if versions is None:
            raise UnknownNameError(
                f"{self._title} has no orchestration {repr_of(name)}"
                f"{did_you_mean(name, self._orchestrations)}"
            )
        return versions

    def _by_object(self, table: dict[Any, D], f: Any, kind: str) -> D:
        try:
            found = table.get(f)
        except Exception:  # unhashable, so it was never registered
            found = None
        if found is None:
            raise self._not_registered(f, kind)
        return found

    def _not_registered(self, f: Any, kind: str) -> UnknownNameError:
        for other, table in (
            ("activity", self._activity_of),
            ("orchestration", self._orchestration_of),
        ):
            if type(f) is types.FunctionType and f in table:
                return UnknownNameError(
                    f"{name_of(f)} is registered as an {other} in {self._title}, and is no {kind}"
                )
        return UnknownNameError(
            f"{name_of(f)} is not registered as an {kind} in {self._title}; decorate it with "
            f"@app.{kind}, or include the app that has it"
        )


def _decorate(target: Any, register: Callable[[Any, types.FrameType], Any]) -> Any:
    # The frame with the decorator's line: its names resolve annotations, its line is the place.
    if target is not None:
        return _register(target, register, _frame_above(3))

    def decorator(target: Any) -> Any:
        return _register(target, register, _frame_above(2))

    return decorator


def _register(
    target: Any, register: Callable[[Any, types.FrameType], Any], frame: types.FrameType
) -> Any:
    try:
        return register(target, frame)
    except (UsageError, SyntaxError):
        raise
    except Exception as error:  # a user's object, or its metaclass, raised when it was looked at
        raise RegistrationError(
            f"{name_of(target)} cannot be registered: reading what it takes and gives raised "
            f"{type_name(error)}: {text_of(error, 300)}"
        ) from error


def _frame_above(levels: int) -> types.FrameType:
    frame = inspect.currentframe()
    for _ in range(levels):
        frame = frame and frame.f_back
    assert frame is not None
    return frame


def _locals(frame: types.FrameType) -> dict[str, Any]:
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _place(frame: types.FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _name_of(target: Any, name: str | None) -> object:
    if name is not None:
        return name
    found = getattr(target, "__name__", None)
    if found is None or found == "<lambda>":
        raise RegistrationError(f"{name_of(target)} has no name of its own: give it one with name=")
    return found


def _check_name(name: object, what: str) -> str:
    try:
        return check_text(name, what)
    except InvalidIdError as error:
        raise RegistrationError(f"{error}; choose another with name=") from None


def _check_callable(target: Any, kind: str) -> Any:
    if is_a(target, (staticmethod, classmethod)) or not callable(target):
        raise RegistrationError(
            f"@app.{kind} decorates a function{' or class' if kind == 'entity' else ''}, not "
            f"{repr_of(target)}; options are passed by keyword"
        )
    if is_a(target, type) and kind != "entity":
        raise RegistrationError(
            f"@app.{kind} decorates a function, not the class {name_of(target)}"
        )
    return target


def _check_retry(retry: object) -> None:
    if retry is not None:
        instance(retry, RetryPolicy, "retry", "a RetryPolicy", RegistrationError)


def _check_count(count: object, what: str) -> int | None:
    return None if count is None else whole(count, what, least=1, error=RegistrationError)


def _check_stripes(stripes: Any) -> int | Literal["auto"] | None:
    if stripes is None or (is_a(stripes, str) and stripes == "auto"):
        return None if stripes is None else "auto"
    if is_a(stripes, int) and not is_a(stripes, bool) and 1 <= stripes <= 1_024:
        return int(stripes)
    raise refusal("stripes", "an int from 1 to 1,024, or 'auto'", stripes, RegistrationError)


def _check_timeout(timeout: object) -> float | None:
    try:
        return None if timeout is None else seconds(timeout, "timeout", least=1)
    except UsageError as error:
        raise RegistrationError(str(error)) from None


class _Registered(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...


def _refuse_second(known: _Registered | None, new: _Registered) -> None:
    if known is None or known is new:
        return
    kind = type(new).__name__.removesuffix("Definition").lower()
    version = getattr(new, "version", None)
    what = f"{kind} {new.name!r}" + (f" version {version!r}" if version is not None else "")
    raise _taken(what, known.place, new.place)


def _taken(what: str, first: str, second: str) -> RegistrationError:
    return RegistrationError(
        f"{what} is registered twice: at {first} and at {second}; rename one with name="
    )


_PRE_RELEASES = {
    "dev": 0,
    "a": 1,
    "alpha": 1,
    "b": 2,
    "beta": 2,
    "c": 3,
    "rc": 3,
    "pre": 3,
    "preview": 3,
}


def version_key(version: str | None) -> tuple[Any, ...]:
    """Give what orders versions: numbers by value, pre-releases before the release.

    No version is the lowest. ``1.10`` is above ``1.9``, ``2.0rc1`` below ``2.0``, and ``2`` is
    as high as ``2.0``.
    """
    if version is None:
        return ((), (), "")
    parts = re.findall(r"\d+|[a-z]+", version.casefold().removeprefix("v"))
    count = next((i for i, part in enumerate(parts) if not part.isdecimal()), len(parts))
    release = [int(part) for part in parts[:count]]
    while release and release[-1] == 0:
        release.pop()
    rest = [_part_key(part) for part in parts[count:]]
    # The end of the shorter one lies between a pre-release and anything that follows.
    return (0, *release), (*rest, (1, 0, "")), version


def _part_key(part: str) -> tuple[int, int, str]:
    if part.isdecimal():
        return (2, int(part), "")
    if part in _PRE_RELEASES:
        return (0, _PRE_RELEASES[part], "")
    return (2, 0, part)
