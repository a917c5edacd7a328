"""What an orchestration's code sees of the world: ``OrchestrationContext``."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..arguments import flag, instance, is_a, labels, several, text
from ..codec import codec_for, codec_of_type
from ..errors import (
    ActivityError,
    EntityOperationError,
    LockRuleError,
    SubOrchestrationError,
    UsageError,
)
from ..ids import EntityId, check_instance_id, check_text, entity_id
from ..logs import GuardedLogger
from ..payloads import compact
from ..printing import repr_of
from ..replay.compound_tasks import AllTask, AnyTask, RetryTask
from ..replay.execution import Continuation
from ..replay.locks import EntityLock
from ..replay.scopes import CancelScope, Shield, TaskGroup
from ..replay.tasks import CallTask, EventTask, Task, TimerTask
from ..retry import RetryPolicy
from ..times import due_time, microseconds, seconds as seconds_of, to_datetime
from ..values import MISSING, check_event_name

if TYPE_CHECKING:
    from ..registry.lookup import Lookup
    from ..replay.executor import Executor
    from .activity import ActivityContext
    from .entity import EntityContext

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")

_ONCE = RetryPolicy(1, max_attempts=1)
_UUIDS = uuid.UUID("9e952958-5e33-4daf-827f-2fa12937b875")


class _ReplaySafeLogger(GuardedLogger):
    """A logger that is silent while its orchestration replays."""

    def __init__(self, executor: Executor) -> None:
        name = f"perdure.orchestrations.{executor.definition.name}"
        ids = {"instance_id": executor.instance_id, "orchestration": executor.definition.name}
        super().__init__(name, ids)
        self._executor = executor

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return not self._executor.is_replaying and super().isEnabledFor(level)


class OrchestrationContext:
    """The world as an orchestration's code may see it: durable, and the same at every replay.

    Attributes:
        instance_id: the id of this instance.
        parent_instance_id: the id of the instance that started this one, or None.
        version: the version this instance was started with, or None.
        tags: the tags it was started with.
    """

    __slots__ = (
        "_executor",
        "_input",
        "_logger",
        "_lookup",
        "instance_id",
        "parent_instance_id",
        "tags",
        "version",
    )

    def __init__(
        self,
        executor: Executor,
        lookup: Lookup,
        input: bytes | None,
        parent_instance_id: str | None,
        version: str | None,
        tags: Mapping[str, str] | None,
    ) -> None:
        self._executor = executor
        self._lookup = lookup
        self._input = input
        self._logger: _ReplaySafeLogger | None = None
        self.instance_id = executor.instance_id
        self.parent_instance_id = parent_instance_id
        self.version = version
        self.tags = tags or {}

    @property
    def is_replaying(self) -> bool:
        """Whether the code is being taken through what it did before."""
        return self._executor.is_replaying

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the event that let the code run: aware, UTC, the same at every replay."""
        return to_datetime(self._executor.now)

    @property
    def random(self) -> random.Random:
        """Random numbers, seeded by the instance and execution: the same at every replay."""
        return self._executor.random_source()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``perdure.orchestrations.NAME``) that is silent while replaying.

        What a handler, filter or formatter raises does not reach the orchestration.
        """
        if self._logger is None:
            self._logger = _ReplaySafeLogger(self._executor)
        return self._logger

    def get_input(self) -> Any:
        """Give the instance's input, decoded by the function's annotation, or None."""
        return self._executor.definition.decode_input(self._input)

    def new_uuid(self) -> uuid.UUID:
        """Make a uuid (version 5) that is the same at every replay."""
        return uuid.uuid5(_UUIDS, self._executor.next_uuid_name())

    def set_custom_status(self, status: Any) -> None:
        """Show any JSON value in the instance's status, from the next checkpoint on."""
        self._executor.check_stepped()
        data = codec_for(Any).encode(status)
        self._executor.custom_status = compact(self._lookup.check_size(data, "the custom status"))

    @overload
    def call_activity(
        self,
        f: Callable[[A], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        f: Callable[[A], R],
        input: A,
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        f: Callable[[], Coroutine[Any, Any, R]]
        | Callable[[ActivityContext], Coroutine[Any, Any, R]],
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        f: Callable[[], R] | Callable[[ActivityContext], R],
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    # Overloads of their own: in a union, pyright takes the context for the input if that has a default.
    @overload
    def call_activity(
        self,
        f: Callable[[ActivityContext, A], Coroutine[Any, Any, R]],
        input: A,
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        f: Callable[[ActivityContext, A], R],
        input: A,
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        f: str,
        input: Any = ...,
        /,
        *,
        retry: RetryPolicy | None = ...,
        timeout: float | timedelta | None = ...,
        overall_timeout: float | timedelta | None = ...,
        tags: Mapping[str, str] | None = ...,
        summary: str | None = ...,
    ) -> Task[Any]: ...
    def call_activity(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | timedelta | None = None,
        overall_timeout: float | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        summary: str | None = None,
    ) -> Task[Any]:
        """Run an activity, at least once.

        Args:
            f: the activity, or its name.
            input: its input, if it takes one.
            retry: how to try again when it fails; the activity's own policy by default.
            timeout: seconds (or a timedelta) that one attempt may take, from its start.
            overall_timeout: seconds (or a timedelta) that the call may take, with all attempts,
                the waits between them and for a free place. The policy's own ``timeout`` is the
                same limit, and the shorter one counts.
            tags: texts that the activity sees in its context.
            summary: a short text for people, which the history shows.

        Raises:
            UnknownNameError: no such activity.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.

        Awaiting it raises ``ActivityError`` if it failed (after its retries).
        """
        definition = self._lookup.registry.find_activity(f)
        data = self._lookup.encode_input(definition, input, f)
        executor = self._executor
        limit = definition.timeout if timeout is None else seconds_of(timeout, "timeout")
        policy = definition.retry if retry is None else _policy(retry)
        texts = None if tags is None else labels(tags) or None
        if summary is not None:
            check_text(summary, "a summary")
        first = executor.numbers + 1
        if policy is None and overall_timeout is None:
            return executor.schedule_activity(
                definition, input, data, limit, texts, first, summary, 1
            )
        attempt = partial(
            executor.schedule_activity, definition, input, data, limit, texts, first, summary
        )
        policy = policy or _ONCE
        failed = partial(ActivityError, definition.name)
        return RetryTask(executor, policy, attempt, _shorter(policy, overall_timeout), failed)

    @overload
    def call_sub_orchestrator(
        self,
        f: Callable[[OrchestrationContext, A], Coroutine[Any, Any, R] | Generator[Any, Any, R]],
        input: A,
        /,
        *,
        instance_id: str | None = ...,
        retry: RetryPolicy | None = ...,
        version: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        f: Callable[[OrchestrationContext], Coroutine[Any, Any, R] | Generator[Any, Any, R]],
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        retry: RetryPolicy | None = ...,
        version: str | None = ...,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        f: str,
        input: Any = ...,
        /,
        *,
        instance_id: str | None = ...,
        retry: RetryPolicy | None = ...,
        version: str | None = ...,
    ) -> Task[Any]: ...
    def call_sub_orchestrator(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        version: str | None = None,
    ) -> Task[Any]:
        """Run another orchestration as a child of this one.

        Args:
            f: the orchestration, or its name.
            input: its input, if it takes one.
            instance_id: the child's id; by default one is made from this instance's.
            retry: how to try again when it fails; each attempt is a new execution.
            version: which version; the highest by default.

        Raises:
            UnknownNameError: no such orchestration or version.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            LockRuleError: inside ``lock_entities``.

        Awaiting it raises ``SubOrchestrationError`` if it failed.
        """
        definition = self._lookup.registry.find_orchestration(f, version)
        data = self._lookup.encode_input(definition, input, f)
        executor = self._executor
        policy = definition.retry if retry is None else _policy(retry)
        if instance_id is not None:
            instance_id = check_instance_id(instance_id)

        def attempt(_: int) -> Task[Any]:
            number = executor.number()
            # The part before "::" is what places an id, so children live beside parents.
            child = executor.child_id(number) if instance_id is None else instance_id
            task: CallTask[Any] = CallTask(
                executor,
                number,
                definition.output,
                SubOrchestrationError,
                f"{definition.name} ({child})",
            )
            executor.start_child(
                task,
                definition.name,
                definition.version,
                check_instance_id(child),
                data,
                (definition.input, input),
            )
            return task

        if policy is None:
            return attempt(1)
        failed = partial(SubOrchestrationError, definition.name)
        return RetryTask(executor, policy, attempt, policy.timeout_us, failed)

    def create_timer(self, when: datetime | timedelta | float) -> TimerTask:
        """Wait for a time, or for a while, durably and for any length.

        Args:
            when: an aware datetime, or how long from now (a timedelta or seconds). A past time
                fires at once.

        Raises:
            InvalidTimeError: a naive datetime or a negative delay.
        """
        executor = self._executor
        return executor.create_timer(due_time(when, executor.later(0), "when"))

    @overload
    def wait_for_external_event(
        self, name: str, *, timeout: float | timedelta | None = ..., data_type: type[R]
    ) -> EventTask[R]: ...
    @overload
    def wait_for_external_event(
        self, name: str, *, timeout: float | timedelta | None = ..., data_type: None = ...
    ) -> EventTask[Any]: ...
    def wait_for_external_event(
        self,
        name: str,
        *,
        timeout: float | timedelta | None = None,
        data_type: Any = None,
    ) -> EventTask[Any]:
        """Wait for one event of that name (case does not matter), oldest first.

        Args:
            name: the event's name.
            timeout: seconds (or a timedelta) after which awaiting it raises ``TimeoutError``.
            data_type: the type to give the event's data.
        """
        limit = None if timeout is None else microseconds(timeout, "timeout")
        codec = codec_of_type(data_type)
        folded = check_event_name(name)
        title = name if type(name) is str else folded
        task: EventTask[Any] = EventTask(self._executor, folded, codec, title)
        self._executor.wait_for_event(task, limit)
        return task

    def task_all(self, tasks: Sequence[Task[R]], *, fail_fast: bool = True) -> Task[list[R]]:
        """Wait for all tasks; the result is their results, in the order given.

        Args:
            tasks: the tasks; the same one may appear more than once.
            fail_fast: raise the first failure at once; else wait for all and raise an
                ``ExceptionGroup`` of all failures.
        """
        return AllTask(self._executor, self._own(tasks), flag(fail_fast, "fail_fast"))

    def task_any(
        self, tasks: Sequence[Task[Any]], *, cancel_losers: bool = False
    ) -> Task[Task[Any]]:
        """Wait for the first task that settles; the result is that task.

        Args:
            tasks: one or more tasks. The others go on, and their results stay available.
            cancel_losers: cancel the others instead.
        """
        own = self._own(tasks)
        flag(cancel_losers, "cancel_losers")
        if not own:
            raise UsageError("tasks is empty, but task_any needs one: none would ever win")
        return AnyTask(self._executor, own, cancel_losers)

    def _own(self, tasks: Sequence[Task[R]]) -> list[Task[R]]:
        self._executor.check_stepped()
        own = several(tasks, "tasks", "a list of this orchestration's tasks")
        for task in own:
            # The types say so, but a coroutine among them is an easy slip.
            if not is_a(task, Task) or getattr(task, "_executor", None) is not self._executor:
                raise UsageError(
                    f"{repr_of(task)} among tasks is no task of this orchestration: pass what its "
                    "context's calls return"
                )
        return own

    @overload
    def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Coroutine[Any, Any, R]]
        | Callable[[E, EntityContext], Coroutine[Any, Any, R]],
        /,
    ) -> Task[R]: ...
    @overload
    def call_entity(
        self, id: EntityId[E], op: Callable[[E], R] | Callable[[E, EntityContext], R], /
    ) -> Task[R]: ...
    @overload
    def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Coroutine[Any, Any, R]]
        | Callable[[E, A, EntityContext], Coroutine[Any, Any, R]],
        input: A,
        /,
    ) -> Task[R]: ...
    @overload
    def call_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], R] | Callable[[E, A, EntityContext], R],
        input: A,
        /,
    ) -> Task[R]: ...
    @overload
    def call_entity(self, id: EntityId[Any], op: str, input: Any = ..., /) -> Task[Any]: ...
    def call_entity(self, id: EntityId[Any], op: Any, input: Any = MISSING, /) -> Task[Any]:
        """Call an entity's operation and get its result.

        Raises:
            UnknownNameError: no such entity or operation.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            LockRuleError: inside ``lock_entities``, and against its rules.

        Awaiting it raises ``EntityOperationError`` if the operation raised.
        """
        operation = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(operation, input, op)
        executor = self._executor
        entity = str(id)
        task: CallTask[Any] = CallTask(
            executor,
            executor.number(),
            operation.output,
            EntityOperationError,
            f"{entity}.{operation.name}",
        )
        given = (operation.input, input)
        executor.call_entity(task, entity, operation.name, data, given)
        return task

    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E], Any] | Callable[[E, EntityContext], Any],
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[E],
        op: Callable[[E, A], Any] | Callable[[E, A, EntityContext], Any],
        input: A,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        id: EntityId[Any],
        op: str,
        input: Any = ...,
        /,
        *,
        at: datetime | timedelta | float | None = ...,
    ) -> None: ...
    def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | float | None = None,
    ) -> None:
        """Send an entity an operation and go on; it arrives once, in the order sent.

        Args:
            id: which entity.
            op: the operation, or its name.
            input: its input, if it takes one.
            at: an aware datetime, or how long from now, before which it does not arrive.

        Raises:
            UnknownNameError: no such entity or operation.
            PayloadError: the input is not of the declared type, cannot be JSON or is too large.
            LockRuleError: this orchestration has locked that entity.
        """
        operation = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(operation, input, op)
        due = None if at is None else due_time(at, self._executor.later(0))
        given = (operation.input, input)
        self._executor.signal_entity(str(id), operation.name, data, due, given)

    def lock_entities(self, *ids: EntityId[Any] | Sequence[EntityId[Any]]) -> EntityLock:
        """Lock entities for ``async with``: meanwhile only this orchestration's calls reach them.

        They are locked in sorted order, so two orchestrations cannot block each other for ever.
        Inside: call only locked entities, each once at a time; signal only others; no
        sub-orchestrations and no further locks.

        Raises:
            LockRuleError: inside another ``lock_entities``, or one of them is striped.
            UnknownNameError: no such entity.
        """
        entities: list[str] = []
        for id in ids:
            for one in (id,) if is_a(id, EntityId) else several(id, "ids", "EntityIds"):
                entity = entity_id(one, "ids")
                if self._lookup.registry.find_entity(entity.name).stripes is not None:
                    raise LockRuleError(
                        f"{entity} is striped and cannot be locked: its commutative operations run on "
                        "its stripes, whoever has the lock"
                    )
                entities.append(str(entity))
        return self._executor.lock_entities(entities)

    def send_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Send an event to another orchestration; one that is unknown or has ended drops it."""
        encoded = self._lookup.encode_any(data)
        target = check_instance_id(instance_id)
        given = (codec_for(Any), data)
        self._executor.send_event(target, check_event_name(name), encoded, given)

    def continue_as_new(
        self, input: Any = MISSING, *, keep_events: bool = True, version: str | None = None
    ) -> None:
        """End this execution when the function returns, and begin the next with an empty history.

        Not done if the function raises afterwards. What it asks for after this call is still done.

        Args:
            input: the next execution's input.
            keep_events: whether events that nobody took go along, in order.
            version: the version to go on with; this one's by default.
        """
        self._executor.check_stepped()
        definition = self._executor.definition
        wanted = self.version if version is None else text(version, "version")
        following = self._lookup.registry.exact_orchestration(definition.name, wanted)
        data = self._lookup.encode_input(following, input)
        self._executor.continuation = Continuation(data, flag(keep_events, "keep_events"), wanted)

    @property
    def will_continue_as_new(self) -> bool:
        """Whether ``continue_as_new`` was called."""
        return self._executor.continuation is not None

    def create_task_group(self) -> TaskGroup:
        """Make a group of branches: ``async with ctx.create_task_group() as tg: tg.start_soon(f)``."""
        return TaskGroup(self._executor)

    def shield(self) -> Shield:
        """Keep what is inside the ``with`` whole.

        A cancellation from outside, of the instance or of a scope around, waits for its end, and
        is thrown at the next await behind it.
        """
        return Shield(self._executor)

    def fail_after(self, seconds: float | timedelta) -> CancelScope:
        """Cancel what is inside the ``with`` after that time, and raise ``TimeoutError``."""
        return CancelScope(self._executor, microseconds(seconds, "seconds"), fails=True)

    def move_on_after(self, seconds: float | timedelta) -> CancelScope:
        """Cancel what is inside the ``with`` after that time, and go on behind it."""
        return CancelScope(self._executor, microseconds(seconds, "seconds"), fails=False)


def _policy(retry: object) -> RetryPolicy:
    return instance(retry, RetryPolicy, "retry", "a RetryPolicy")


def _shorter(policy: RetryPolicy, overall_timeout: float | timedelta | None) -> int | None:
    """Give how long a call may take in all."""
    if overall_timeout is None:
        return policy.timeout_us
    limit = microseconds(overall_timeout, "overall_timeout")
    return limit if policy.timeout_us is None else min(limit, policy.timeout_us)
