"""The door for calls: finds what is called by object or name, and encodes what is passed."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..arguments import is_a
from ..carried import Carried, read_carried, set_carried
from ..codec import codec_for
from ..errors import PayloadError
from ..ids import EntityId, entity_id
from ..payloads import SHORT, check_size, compact
from ..values import MISSING
from .definitions import (
    ActivityDefinition,
    EntityDefinition,
    OperationDefinition,
    OrchestrationDefinition,
)
from .outside import INSIDE

if TYPE_CHECKING:
    from ..tracing import Tracer
    from .app import App

_ANY = codec_for(Any)
_JSON_VALUES = frozenset({dict, list, str, int, float, bool, type(None)})

Stage = Callable[[Context, Callable[[Any, Any], None], Any, Any], None]


class Lookup:
    """An application's functions, with the limits of the hub that runs them.

    Attributes:
        registry: what is registered, by name and by function.
        stage: runs each step of an orchestration's code, a function of two things that it passes
            on, in the context that it is given.
        tracer: has what is called belong to traces, if anything does.
    """

    __slots__ = (
        "_contexts",
        "_entities",
        "max_payload",
        "registry",
        "stage",
        "stripe_fold_s",
        "stripe_hot_per_s",
        "striped",
        "tracer",
    )

    def __init__(
        self,
        app: App,
        max_payload: int,
        *,
        stripe_fold_s: float = 5.0,
        stripe_hot_per_s: int = 1_000,
        stage: Stage = Context.run,  # pyright: ignore[reportArgumentType]
    ) -> None:
        self.registry = app.registry
        self.max_payload = max_payload
        self.stage = stage
        self._contexts: dict[str, Context] = {}
        self._entities: dict[str, EntityDefinition] = {}  # those that were called
        self.stripe_fold_s = stripe_fold_s
        self.stripe_hot_per_s = stripe_hot_per_s
        self.striped = self.registry.striped
        self.tracer: Tracer | None = None

    def carry(self) -> Carried | None:
        """Give what goes along of the caller's context.

        Raises:
            UsageError: it is no text, or none that can be stored.
            PayloadTooLargeError: over ``max_payload`` bytes.
        """
        variables = self.registry.context_vars
        carried = read_carried(variables, self.max_payload) if variables else None
        if self.tracer is not None:
            traced = self.tracer.carry()
            if traced:
                carried = traced if carried is None else {**carried, **traced}
        return carried

    def take_along(self, carried: Carried) -> None:
        """Set in the running context what came along."""
        variables = self.registry.context_vars
        if variables:
            set_carried(variables, carried)

    def new_context(
        self, definition: OrchestrationDefinition, carried: Carried | None = None
    ) -> Context:
        """Make the context of an instance: the hub's, and a note that an orchestration runs."""
        # To set a variable costs four times what a copy does.
        context = self._contexts.get(definition.name)
        if context is None:
            context = self._contexts[definition.name] = copy_context()
            context.run(INSIDE.set, definition)
        context = context.copy()
        if carried is not None and self.registry.context_vars:
            context.run(self.take_along, carried)
        return context

    def find_operation(
        self, id: EntityId[Any], op: str | Callable[..., Any]
    ) -> OperationDefinition:
        """Find an entity's operation.

        Raises:
            UnknownNameError: the entity or its operation is not registered.
        """
        if type(id) is not EntityId:
            entity_id(id)
        definition = self._entities.get(id.name)
        if definition is None:
            definition = self._entities[id.name] = self.registry.find_entity(id.name)
        return definition.operation(op)

    def encode_input(
        self,
        definition: ActivityDefinition | OrchestrationDefinition | OperationDefinition,
        input: Any,
        called: object = None,
    ) -> bytes | None:
        """Encode an input as the definition's parameter wants it.

        Args:
            definition: what is called.
            input: the input.
            called: what the caller named it by. Whoever has a name may have nothing but JSON
                values, so these are read as the parameter's type then.

        Raises:
            PayloadError: of another type, or it cannot be JSON, or is too large.
            UsageError: missing, or given to a function that takes none.
        """
        if definition.takes_input and input is not MISSING:  # nearly always: a call less
            encode = definition.input.encode  # called as an attribute, it is looked for longer
            try:
                data = encode(input)
            except PayloadError as error:
                if not is_a(called, str) or type(input) not in _JSON_VALUES:
                    raise error.of(f"the input of {definition.title}") from error.__cause__
                data = self._encode_plain(definition, input)
        else:
            given = definition.encode_input(input is not MISSING, input)
            if given is None:
                return None
            data = given
        if len(data) < SHORT <= self.max_payload:
            return b"%b" % data  # as compact() does it
        if len(data) > self.max_payload:
            check_size(data, self.max_payload, f"the input of {definition.name}")
        return compact(data)

    def _encode_plain(
        self,
        definition: ActivityDefinition | OrchestrationDefinition | OperationDefinition,
        input: Any,
    ) -> bytes:
        codec = definition.input
        try:
            return codec.encode(codec.decode(_ANY.encode(input)))
        except PayloadError as error:
            raise error.of(f"the input of {definition.title}") from error.__cause__

    def encode_any(self, value: Any) -> bytes:
        """Encode a value whose type nobody declared."""
        return compact(self.check_size(_ANY.encode(value), "the data"))

    def check_size(self, data: bytes, what: str) -> bytes:
        """Refuse what is too large.

        Raises:
            PayloadTooLargeError: over ``max_payload`` bytes.
        """
        return check_size(data, self.max_payload, what)
