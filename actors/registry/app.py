"""The app: the decorators that register what an application consists of."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar, dataclass_transform, overload

import attrs

from ..arguments import instance, is_a, optional_text, refusal, text, whole
from ..carried import check_context_vars
from ..errors import InvalidIdError, RegistrationError, UsageError
from ..ids import check_text
from ..printing import repr_of, text_of, type_name
from ..retry import RetryPolicy
from ..times import seconds
from .definitions import name_of
from .entity_classes import define_entity_class, entity_class
from .functions import define_activity, define_entity_function, define_orchestration
from .registry import Registry
from .versions import version_key

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


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

    Attributes:
        registry: the table of what is registered.
    """

    def __init__(
        self, name: str | None = None, *, context_vars: Sequence[ContextVar[str]] = ()
    ) -> None:
        self.name = optional_text(name, "name")
        self.registry = Registry(self.name, check_context_vars(context_vars))

    def __repr__(self) -> str:
        known = self.registry
        return (
            f"<App {self.name or ''}: {len(known.entities)} entities, "
            f"{len(known.orchestrations)} orchestrations, {len(known.activities)} activities>"
        )

    @property
    def activities(self) -> list[str]:
        """The names of the activities, sorted."""
        return sorted(self.registry.activities)

    @property
    def orchestrations(self) -> list[str]:
        """The names of the orchestrations, sorted."""
        return sorted(self.registry.orchestrations)

    @property
    def entities(self) -> list[str]:
        """The names of the entities, sorted."""
        return sorted(self.registry.entities)

    def versions(self, orchestration: str) -> list[str | None]:
        """List the versions of an orchestration, lowest first.

        Raises:
            UnknownNameError: no orchestration of that name is registered.
        """
        name = text(orchestration, "orchestration")
        return sorted(self.registry.versions_of(name), key=version_key)

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
            self.registry.add_activity(definition)
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
            self.registry.add_orchestration(definition)
            return f

        return _decorate(f, register)

    def include(self, other: App) -> None:
        """Register everything that another application has now.

        Raises:
            RegistrationError: a name is taken by something else; then nothing is registered.
        """
        instance(other, App, "other", "an App", RegistrationError)
        self.registry.include(other.registry)

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
        self.registry.check_free(chosen, place)
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
        self.registry.add_entity(definition)
        return target


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
