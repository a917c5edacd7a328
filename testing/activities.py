"""What stands around the activities of a hub under test: fakes, and records of their calls.

It lasts over crashes, as the world outside does. The application stays as it is: each shard gets
definitions that ask here first.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs
from attrs import frozen

from ..actors.arguments import is_a, refusal
from ..actors.contexts.activity import ActivityContext
from ..actors.errors import UsageError
from ..actors.printing import class_name, text_of, type_name
from ..actors.registry.functions import define_activity
from ..actors.values import MISSING
from ..runtime.facts import Fact

if TYPE_CHECKING:
    from ..actors.registry.definitions import ActivityDefinition
    from ..actors.registry.registry import Registry
    from .store import Fence

#: What runs instead of an activity, with its context and its input.
Fake = Callable[[ActivityContext, Any], Any]


@frozen(kw_only=True)
class ActivityRecord(Fact):
    """One call of an activity, however often it was run.

    Attributes:
        name: the activity's name.
        instance_id: the orchestration that called.
        idempotency_key: what the call is known by; the same for all of its attempts.
        input: what the activity was given first; None where it takes nothing.
        attempts: how often it began to run: retries count, and so do runs that a crash cut off or
            whose answer it lost.
    """

    name: str
    instance_id: str
    idempotency_key: str
    input: Any
    attempts: int


class StandIns:
    """The fakes and the records of one hub; for any thread.

    Args:
        registry: the application's.
        inline: whether sync activities run on the event loop, too, one after another.
    """

    def __init__(self, registry: Registry, *, inline: bool = False) -> None:
        self._registry = registry
        self._inline = inline
        self._fakes: dict[str, Fake] = {}
        self._records: dict[str, dict[str, ActivityRecord]] = {}  # by activity, and by its key
        self._lock = threading.Lock()

    def fake(
        self,
        f: str | Callable[..., Any],
        returns: object = MISSING,
        raises: object = MISSING,
        calls: object = MISSING,
    ) -> None:
        """Have something else happen where an activity would run; see ``TestHub.fake``.

        Raises:
            UsageError: not one of the three, or not of its kind.
            UnknownNameError: there is no such activity.
        """
        definition = self._registry.find_activity(f)
        if [returns, raises, calls].count(MISSING) != 2:
            raise UsageError(
                f"fake {definition.name!r} by one of returns=, raises= and calls=, not by none or "
                "several"
            )
        if returns is not MISSING:
            self._fakes[definition.name] = lambda context, value: returns
        elif raises is not MISSING:
            self._fakes[definition.name] = partial(_raise, _exception(raises))
        else:
            self._fakes[definition.name] = self._called(definition, calls)

    def unfake(self, f: str | Callable[..., Any]) -> None:
        """Have an activity run itself again."""
        self._fakes.pop(self._registry.find_activity(f).name, None)

    def calls(self, f: str | Callable[..., Any]) -> list[ActivityRecord]:
        """Give the calls of an activity, in the order in which they began first."""
        name = self._registry.find_activity(f).name
        with self._lock:
            return list(self._records.get(name, {}).values())

    def prepare(self, fence: Fence, definition: ActivityDefinition) -> ActivityDefinition:
        """Give the definition that one life runs: it asks here first."""

        def begin(context: ActivityContext, value: Any) -> Any:
            fence.check()  # one that was about to begin when the life ended
            self._record(context, value)
            fake = self._fakes.get(definition.name)
            if fake is not None:
                return fake(context, value)
            return definition.invoke(context if definition.takes_context else None, value)

        async def begin_on_loop(context: ActivityContext, value: Any) -> Any:
            outcome = begin(context, value)
            return await cast("Awaitable[Any]", outcome) if _is_awaitable(outcome) else outcome

        on_loop = definition.is_async or self._inline
        return attrs.evolve(
            definition,
            takes_context=True,
            is_async=on_loop,
            invoke=begin_on_loop if on_loop else begin,
        )

    def _called(self, definition: ActivityDefinition, calls: object) -> Fake:
        """Give what calls a function as the activity would be: with its context, if it takes one."""
        if not callable(calls):
            raise refusal("calls", "a function like the activity", calls)
        fake = define_activity(calls, name=definition.name)
        if fake.is_async and not (definition.is_async or self._inline):
            raise UsageError(
                f"calls: {definition.title} is sync, and runs in a thread, where nothing is "
                "awaited: give a sync function"
            )

        def call(context: ActivityContext, value: Any) -> Any:
            return fake.invoke(context if fake.takes_context else None, value)

        return call

    def _record(self, context: ActivityContext, value: Any) -> None:
        key = context.idempotency_key
        with self._lock:
            records = self._records.setdefault(context.name, {})
            known = records.get(key)
            if known is not None:
                records[key] = attrs.evolve(known, attempts=known.attempts + 1)
                return
            records[key] = ActivityRecord(
                name=context.name,
                instance_id=context.instance_id,
                idempotency_key=key,
                input=None if value is MISSING else value,
                attempts=1,
            )


def _is_awaitable(value: object) -> bool:
    return inspect.isawaitable(value)


def _exception(raises: object) -> Callable[[], BaseException]:
    """Give what makes the exception anew: one that is raised twice would keep its first way."""
    if is_a(raises, type) and issubclass(cast("type", raises), Exception):
        make = cast("type[Exception]", raises)
        try:
            make()
        except Exception as error:  # a user's class
            raise UsageError(
                f"raises: {type_name(error)}: {text_of(error, 500)} where {class_name(make)} is made "
                "without arguments, as a class is: give one that is made already"
            ) from error
        return make
    if is_a(raises, Exception):
        return lambda: cast("Exception", raises).with_traceback(None)
    raise refusal("raises", "an Exception, or a class of them", raises)


def _raise(make: Callable[[], BaseException], context: ActivityContext, value: Any) -> Any:
    raise make()
