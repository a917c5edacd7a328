"""The registry: what an application consists of, by name and by function object."""

from __future__ import annotations

import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from ..arguments import is_a, text
from ..errors import RegistrationError, UnknownNameError
from ..printing import repr_of
from .definitions import (
    ActivityDefinition,
    EntityDefinition,
    OrchestrationDefinition,
    did_you_mean,
    name_of,
)
from .versions import version_key

D = TypeVar("D", ActivityDefinition, OrchestrationDefinition)


class Registry:
    """The table behind an ``App``. One name stands for one thing of a kind, or one per version.

    Attributes:
        name: what to call it in errors.
        activities: by name.
        orchestrations: by name and version.
        entities: by name, casefolded.
        striped: those of the entities that are.
        context_vars: whose values go along, by name.
    """

    def __init__(self, name: str | None, context_vars: dict[str, ContextVar[str]]) -> None:
        self.name = name
        self.activities: dict[str, ActivityDefinition] = {}
        self.orchestrations: dict[str, dict[str | None, OrchestrationDefinition]] = {}
        self.entities: dict[str, EntityDefinition] = {}
        self.striped: dict[str, EntityDefinition] = {}
        self.context_vars = context_vars
        # By the object that was decorated. Functions hash by identity.
        self._activity_of: dict[Any, ActivityDefinition] = {}
        self._orchestration_of: dict[Any, OrchestrationDefinition] = {}

    def add_activity(self, definition: ActivityDefinition) -> None:
        """Add an activity.

        Raises:
            RegistrationError: another has its name.
        """
        _refuse_second(self.activities.get(definition.name), definition)
        self.activities[definition.name] = definition
        self._activity_of.setdefault(definition.function, definition)

    def add_orchestration(self, definition: OrchestrationDefinition) -> None:
        """Add a version of an orchestration.

        Raises:
            RegistrationError: another has its name and version.
        """
        versions = self.orchestrations.get(definition.name, {})
        _refuse_second(versions.get(definition.version), definition)
        self.orchestrations[definition.name] = {**versions, definition.version: definition}
        known = self._orchestration_of.get(definition.function)
        # One function under several versions stands for the highest of them.
        if known is None or version_key(known.version) <= version_key(definition.version):
            self._orchestration_of[definition.function] = definition

    def add_entity(self, definition: EntityDefinition) -> None:
        """Add an entity.

        Raises:
            RegistrationError: another has its name.
        """
        _refuse_second(self.entities.get(definition.name), definition)
        self.entities[definition.name] = definition
        if definition.stripes is not None:
            self.striped[definition.name] = definition

    def check_free(self, entity: str, place: str) -> None:
        """Refuse a second entity of a name, before anything is done to its class.

        Raises:
            RegistrationError: the name is taken.
        """
        known = self.entities.get(entity)
        if known is not None:
            raise _taken(f"entity {entity!r}", known.place, place)

    def include(self, other: Registry) -> None:
        """Add all that another has now, or nothing.

        Raises:
            RegistrationError: a name is taken by something else.
        """
        for activity in other.activities.values():
            _refuse_second(self.activities.get(activity.name), activity)
        for orchestration in other.all_orchestrations():
            mine = self.orchestrations.get(orchestration.name, {})
            _refuse_second(mine.get(orchestration.version), orchestration)
        for entity in other.entities.values():
            _refuse_second(self.entities.get(entity.name), entity)
        for activity in other.activities.values():
            self.add_activity(activity)
        for orchestration in other.all_orchestrations():
            self.add_orchestration(orchestration)
        self.entities.update(other.entities)
        self.striped.update(other.striped)
        declared = self.context_vars
        self.context_vars = declared | {
            name: var for name, var in other.context_vars.items() if name not in declared
        }
        self._activity_of = {**other._activity_of, **self._activity_of}
        self._orchestration_of = {**other._orchestration_of, **self._orchestration_of}

    def all_orchestrations(self) -> list[OrchestrationDefinition]:
        """Give every version of every orchestration."""
        return [
            definition
            for versions in self.orchestrations.values()
            for definition in versions.values()
        ]

    def find_activity(self, f: str | Callable[..., Any]) -> ActivityDefinition:
        """Find an activity by its name or by its function.

        Raises:
            UnknownNameError: it is not registered.
        """
        if type(f) is types.FunctionType:
            return self._activity_of.get(f) or self._by_object(self._activity_of, f, "activity")
        if is_a(f, str):
            f = text(f, "f")
            found = self.activities.get(f)
            if found is None:
                raise UnknownNameError(
                    f"{self._title} has no activity {repr_of(f)}{did_you_mean(f, self.activities)}"
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
            UnknownNameError: it, or that version of it, is not registered.
        """
        if version is not None:
            version = text(version, "version")
        if type(f) is types.FunctionType or not is_a(f, str):
            own = self._by_object(self._orchestration_of, f, "orchestration")
            if version is None or version == own.version:
                return own
            f = own.name
        f = text(f, "f")
        versions = self.versions_of(f)
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
        return [(one.name, one.version) for one in self.all_orchestrations()]

    def exact_orchestration(self, name: str, version: str | None) -> OrchestrationDefinition:
        """Find the very version that an instance was started with; None is the one without any.

        Raises:
            UnknownNameError: it, or that version of it, is not registered.
        """
        found = self.versions_of(name).get(version)
        if found is None:
            raise UnknownNameError(
                f"{self._title} has no version {repr_of(version)} of orchestration {name!r} any more; "
                "register it again, so that instances of that version can go on"
            )
        return found

    def find_entity(self, name: str | Callable[..., Any]) -> EntityDefinition:
        """Find an entity by its name, whatever the case, or by its class or function.

        Raises:
            UnknownNameError: it is not registered.
        """
        known: str = name if type(name) is str else self._entity_name(name)  # pyright: ignore[reportAssignmentType]
        found = self.entities.get(known) or self.entities.get(known.casefold())
        if found is None:
            raise UnknownNameError(
                f"{self._title} has no entity {repr_of(known)}"
                f"{did_you_mean(known.casefold(), self.entities)}"
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
    def _title(self) -> str:
        return f"app {self.name!r}" if self.name else "the app"

    def versions_of(self, name: str) -> dict[str | None, OrchestrationDefinition]:
        """Give all versions of an orchestration.

        Raises:
            UnknownNameError: none is registered.
        """
        versions = self.orchestrations.get(name)
        if versions is None:
            raise UnknownNameError(
                f"{self._title} has no orchestration {repr_of(name)}"
                f"{did_you_mean(name, self.orchestrations)}"
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
