"""Every exception a user can meet, cut by what the caller does next.

* PerdureError
  x UsageError                      the call itself is wrong: fix it
    + RegistrationError
    + UnknownNameError
    + PayloadError
      - PayloadTooLargeError
    + InvalidIdError
    + InvalidTimeError
    + RequestIdReusedError
    + InstanceNotFoundError
    + InstanceAlreadyExistsError
    + InstanceFinishedError
    + InstanceNotFinishedError
    + RewindError
    + ForkError
    + LockRuleError
    + NonDurableAwaitError
  x FailedError                     the other side's code failed
    + ActivityError
    + SubOrchestrationError
    + EntityOperationError
    + EventDataError                (a PayloadError as well)
    + OrchestrationFailedError
    + OrchestrationTerminatedError
    + OrchestrationCanceledError
  x UnavailableError                nothing happened; it is safe to repeat
    + MailboxFullError
    + HubStoppingError
    + LeaseLostError
  x OutcomeUnknownError             it may have happened: repeat it under the same request id
  x NondeterminismError             the code no longer matches its history
  x ParkedError                     the actor is parked until somebody repairs it
  x StorageError                    trouble with the store
    + StoreInUseError
    + StoreVersionError
    + StoreDamagedError
    + StoreReadOnlyError
    + StoreFullError
    + StoreMovedError
  x InternalError                   a bug in perdure: please report it

``NonRetryableError`` is for users to raise and ``Cancelled`` is control flow; neither is
a ``PerdureError``.
"""

from __future__ import annotations

from typing import Any, Self

from attrs import frozen


class PerdureError(Exception):
    """The base of every exception this package raises on purpose."""


class UsageError(PerdureError):
    """The call itself is wrong; nothing was stored. Fix the code that made it."""


class RegistrationError(UsageError):
    """A decorated function or class cannot be registered as it is written."""


class UnknownNameError(UsageError):
    """No orchestration, activity, entity or operation of that name is registered."""


class PayloadError(UsageError):
    """A value cannot cross as JSON, or is not of the type that the receiver declares.

    Attributes:
        path: where in the value the trouble is, such as ``$.items[2].price``; ``$`` is the value
            itself.
        reason: what is wrong there.
        what: whose value it is, such as "the input of activity 'work'", if that is known.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.what: str | None = None

    def of(self, what: str) -> Self:
        """Say whose value it is, unless that was said before."""
        if self.what is None:
            self.what = what
        return self

    def __str__(self) -> str:
        place = f"at {self.path}" if self.what is None else f"{self.what}, at {self.path}"
        return f"{place}: {self.reason}"


class PayloadTooLargeError(PayloadError):
    """A value is larger, as JSON, than the hub's ``max_payload`` allows."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        super().__init__(path, f"{size:,} bytes as JSON, over the limit of {limit:,}")
        self.args = (path, size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"at {self.path}: {self.reason}; pass a reference to the data "
            "instead, or raise Settings.max_payload"
        )


class InvalidIdError(UsageError):
    """An instance id, entity name or key is empty, too long or has control characters."""


class InvalidTimeError(UsageError):
    """A naive datetime where an aware one is needed, or a negative delay."""


class RequestIdReusedError(UsageError):
    """A request id was used before, for another target, operation or input: no repetition.

    Attributes:
        request_id: the id.
        used_for: what it was used for.
    """

    def __init__(self, request_id: str, used_for: str) -> None:
        super().__init__(request_id, used_for)
        self.request_id = request_id
        self.used_for = used_for

    def __str__(self) -> str:
        return (
            f"the request id {self.request_id!r} was used for {self.used_for}, so this is another "
            "request (or the same with another input); give each request an id of its own"
        )


class InstanceNotFoundError(UsageError):
    """No orchestration instance of that id exists."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.instance_id = instance_id

    def __str__(self) -> str:
        return f"no orchestration instance {self.instance_id!r}; check the id, or start it first"


class InstanceAlreadyExistsError(UsageError):
    """A live orchestration instance has that id already."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.instance_id = instance_id

    def __str__(self) -> str:
        return (
            f"orchestration instance {self.instance_id!r} is live already; choose another id, or "
            "pass on_existing='reuse' or on_existing='replace'"
        )


class InstanceFinishedError(UsageError):
    """The orchestration instance has ended, so it takes no more messages."""

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(instance_id, status)
        self.instance_id = instance_id
        self.status = status

    def __str__(self) -> str:
        return f"orchestration instance {self.instance_id!r} has ended ({self.status})"


class InstanceNotFinishedError(UsageError):
    """The orchestration instance is not in a state that allows this."""

    def __init__(self, instance_id: str, status: str, action: str) -> None:
        super().__init__(instance_id, status, action)
        self.instance_id = instance_id
        self.status = status
        self.action = action

    def __str__(self) -> str:
        return f"cannot {self.action} orchestration instance {self.instance_id!r} while it is {self.status}"


class RewindError(UsageError):
    """A rewind would make a history forget what has completed.

    Attributes:
        instance_id: the failed instance, which stays as it is.
        forgotten: what was done because of the failures, and would be forgotten with them.
    """

    def __init__(self, instance_id: str, forgotten: str) -> None:
        super().__init__(instance_id, forgotten)
        self.instance_id = instance_id
        self.forgotten = forgotten

    def __str__(self) -> str:
        return (
            f"orchestration instance {self.instance_id!r} is not rewound: taking its failures back "
            f"would forget what was done because of them: {self.forgotten}; undo that "
            "yourself and pass force=True (perdure rewind --force), or restart the instance"
        )


class ForkError(UsageError):
    """An instance cannot be forked at an event of its history.

    Attributes:
        instance_id: the instance, which stays as it is.
        at: the number of the event.
        reason: why not.
    """

    def __init__(self, instance_id: str, at: int, reason: str) -> None:
        super().__init__(instance_id, at, reason)
        self.instance_id = instance_id
        self.at = at
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"orchestration instance {self.instance_id!r} is not forked at event {self.at:,}: "
            f"{self.reason}"
        )


class LockRuleError(UsageError):
    """A call inside ``lock_entities`` breaks a rule that keeps locks free of deadlock."""


class NonDurableAwaitError(UsageError):
    """An orchestration awaited something that is not one of its context's tasks."""


@frozen
class FailureDetails:
    """What went wrong on the other side, as data.

    Attributes:
        error_type: the class name of the exception.
        message: its text.
        stack_trace: the formatted traceback, or an empty string.
        cause: the failure that it was raised from, if any.
        non_retryable: whether a retry policy must stop at it.
        bases: the names of the base classes of the exception, nearest first.
        members: the exceptions in it, if it is an exception group; the first twenty.
    """

    error_type: str
    message: str
    stack_trace: str = ""
    cause: FailureDetails | None = None
    non_retryable: bool = False
    bases: tuple[str, ...] = ()
    members: tuple[FailureDetails, ...] = ()

    def is_caused_by(self, error: type[BaseException] | str) -> bool:
        """Whether this failure or one that it was raised from is of that type, or of a subclass.

        Types are told apart by their names, since only those cross.
        """
        name = error if isinstance(error, str) else error.__name__
        here: FailureDetails | None = self
        while here is not None:
            if here.error_type == name or name in here.bases:
                return True
            here = here.cause
        return False


class FailedError(PerdureError):
    """The other side's code failed; ``failure`` holds the details.

    Attributes:
        target: which activity, orchestration or entity failed.
        failure: the details, also readable as ``error_type``, ``message``, ``stack_trace``
            and ``cause``.
    """

    def __init__(self, target: str, failure: FailureDetails) -> None:
        super().__init__(target, failure)
        self.target = target
        self.failure = failure

    @property
    def error_type(self) -> str:
        """The class name of the exception on the other side."""
        return self.failure.error_type

    @property
    def message(self) -> str:
        """The text of the exception on the other side."""
        return self.failure.message

    @property
    def stack_trace(self) -> str:
        """The traceback on the other side, formatted."""
        return self.failure.stack_trace

    @property
    def cause(self) -> FailureDetails | None:
        """What the failure was raised from."""
        return self.failure.cause

    def __str__(self) -> str:
        return f"{self.target} failed: {self.failure.error_type}: {self.failure.message}"


class ActivityError(FailedError):
    """An activity raised, timed out or could not run."""


class SubOrchestrationError(FailedError):
    """A sub-orchestration failed, was terminated or was cancelled."""


class EntityOperationError(FailedError):
    """An entity operation raised; its changes and messages were rolled back."""


class EventDataError(FailedError, PayloadError):
    """An external event is not of the type that the wait for it declares.

    Raised at the wait; the event is taken. A client's event is refused with ``PayloadError``
    instead, where the wait is open when it comes.

    Attributes:
        target: which event, such as ``event 'paid'``.
        path: where in its data the trouble is.
        reason: what is wrong there.
    """

    def __init__(self, target: str, path: str, reason: str) -> None:
        super().__init__(target, FailureDetails("PayloadError", f"at {path}: {reason}"))
        self.args = (target, path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.target} is not of the type waited for: at {self.path}: {self.reason}"


class OrchestrationFailedError(FailedError):
    """The orchestration whose result was asked for has failed."""


class OrchestrationTerminatedError(FailedError):
    """The orchestration whose result was asked for was terminated."""


class OrchestrationCanceledError(FailedError):
    """The orchestration whose result was asked for was cancelled."""


class UnavailableError(PerdureError):
    """The request was refused before anything happened; it is safe to repeat."""


class MailboxFullError(UnavailableError):
    """The entity, or the hub, has as many messages waiting as it may have."""

    def __init__(self, where: str, limit: int) -> None:
        super().__init__(where, limit)
        self.where = where
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the mailbox of {self.where} is full ({self.limit:,} messages waiting); "
            "send more slowly, or raise the limit in Settings"
        )


class HubStoppingError(UnavailableError):
    """The hub is stopping or not running, so it takes no more requests."""


class LeaseLostError(UnavailableError):
    """Another owner has taken the partition over; this one's checkpoint was refused."""


class OutcomeUnknownError(PerdureError):
    """The request may have been applied or not; repeat it under the same request id."""


class NondeterminismError(PerdureError):
    """Replaying the orchestration's code gave something else than its history.

    Attributes:
        instance_id: the instance, which is parked with its history and mailbox intact.
        position: index of the history event at which they part, from 0.
        recorded: what the history has there.
        produced: what the code did instead.
        source: file and line of the code that did it.
        cause: the failure by which the code ended there, if it did.
    """

    def __init__(
        self,
        instance_id: str,
        position: int,
        recorded: str,
        produced: str,
        source: str,
        cause: str = "",
    ) -> None:
        super().__init__(instance_id, position, recorded, produced, source, cause)
        self.instance_id = instance_id
        self.position = position
        self.recorded = recorded
        self.produced = produced
        self.source = source
        self.cause = cause

    def __str__(self) -> str:
        first = f"{self.cause}; so " if self.cause else ""
        return (
            f"{first}orchestration {self.instance_id!r} no longer matches its history at event "
            f"{self.position}: recorded {self.recorded}, but the code did {self.produced} "
            f"({self.source}); restore code that matches, then retry the instance"
        )


class ParkedError(PerdureError):
    """The actor is parked: it keeps its state and mailbox, and takes no turns.

    Attributes:
        actor: the instance id or entity id.
        reason: why it was parked.
    """

    def __init__(self, actor: str, reason: str) -> None:
        super().__init__(actor, reason)
        self.actor = actor
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.actor} is parked: {self.reason}; repair it, then retry or purge it"


class StorageError(PerdureError):
    """The store could not do what it was asked to."""


class StoreInUseError(StorageError):
    """Another hub owns this store."""


class StoreVersionError(StorageError):
    """The store was written by a newer version, or with other settings, than this one."""


class StoreDamagedError(StorageError):
    """A file of the store is damaged, or is not a file of a Perdure store."""


class StoreReadOnlyError(StorageError):
    """The store's folder or file cannot be written to."""


class StoreFullError(StorageError):
    """The disk is full; the checkpoint was not written."""


class StoreMovedError(StorageError):
    """The hub is not in this store any more, or not yet: it was migrated, or is being so.

    Also where the store's files were moved, deleted or replaced under the running hub.
    """


class InternalError(PerdureError):
    """A bug in perdure. Please report it, with the traceback."""


class NonRetryableError(Exception):
    """Raise this from an activity or orchestration to stop its retry policy at once."""


class Cancelled(BaseException):
    """Thrown into an orchestration at its await when it, or a scope around it, is cancelled.

    Like asyncio's ``CancelledError`` it is thrown once: ``finally`` and ``except`` blocks may
    await durable tasks to compensate. Let it pass on afterwards.
    """

    def __init__(self, reason: str = "", *, scope: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.scope = scope
