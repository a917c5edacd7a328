"""Commands: what a client, or a parent, can have done to an orchestration instance.

Each answers as ``OrchestrationActor.handle`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import evolve

from ..effects import HELD, RELOAD
from ..errors import (
    FailureDetails,
    InstanceAlreadyExistsError,
    InstanceFinishedError,
    InstanceNotFinishedError,
    PerdureError,
)
from ..failures import failure_of, read_failure
from ..payloads import compact
from ..replay.execution import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..effects import Effects
    from ..messages import Action, Caller, Command
    from ..replay.history import EventKind
    from .orchestration import OrchestrationActor

#: It did not fail, and is not taken back.
_STOPPED = frozenset({"Canceled", "Terminated"})


def _terminate(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> None:
    """End it without running its code again."""
    if not _refuse_finished(actor, message, effects):
        actor.terminate(message.reason, message.recursive, now, effects)
        effects.reply(message, None)


def _cancel(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> Any:
    """Throw ``Cancelled`` into its code, or end it if none has run."""
    if _refuse_finished(actor, message, effects):
        return None
    if not actor.begun:  # there is no code that could clean up
        actor.finish(
            Outcome("Canceled", failure=FailureDetails("Cancelled", message.reason)),
            now,
            effects,
        )
        effects.reply(message, None)
        return None
    if actor.is_blocked:
        return HELD
    executor = actor.executor
    assert executor is not None
    if executor.cancel_requested is not None:
        # Delivered once: a second one, from a parent perhaps, would break off the clean-up.
        effects.reply(message, None)
        return None
    event = ("CancelRequested", now, message.reason)
    return actor.take_in(compact(orjson.dumps(event)), event, now, effects, message)


def _suspend(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> None:
    """Let it take no turns until it is resumed."""
    if _refuse_finished(actor, message, effects):
        return
    if actor.status in ("Running", "Pending"):
        actor.status = "Suspended"
        actor.note(suspended=message.reason)
        _note(actor, now, "ExecutionSuspended", message.reason)
    effects.reply(message, None)


def _resume(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> None:
    """Let a suspended instance go on."""
    if _refuse_finished(actor, message, effects):
        return
    if actor.status == "Suspended":
        actor.status = "Running" if actor.begun else "Pending"
        actor.note(suspended=None)
        _note(actor, now, "ExecutionResumed", message.reason)
        is_due = actor.start_at is None or actor.start_at <= now
        if is_due and not actor.begun and actor.parked is None:
            actor.run_first(now, effects)  # its time came meanwhile
    effects.reply(message, None)


def _retry(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> Any:
    """Load a parked instance anew; what was wrong may have been repaired."""
    if not message.loaded:
        return RELOAD
    if actor.status == "Running" and not actor.begun:
        actor.parked = actor.parked_type = None
        actor.run_first(now, effects)
    effects.reply(message, None)
    return None


def _rewind(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> Any:
    """Take a failed instance back to before its failures."""
    if message.parent is not None and not _is_awaited(actor, message.parent, effects):
        return None
    if actor.status == "Failed":
        if not message.loaded:
            return RELOAD
        if isinstance(actor.rewinding, PerdureError):
            _refuse_rewind(actor, actor.rewinding, message, effects)
            return None
        from .rewind import rewind  # here, since hardly an instance is ever rewound

        rewind(actor, message.reason, message.force, now, effects)
    elif actor.status == "Completed" and message.execution:
        actor.answer_completed(effects)  # for a parent's rewind, which has lost this answer
    elif not actor.is_live or not message.execution:
        refused = InstanceNotFinishedError(actor.instance_id, actor.status or "", "rewind")
        effects.refuse(message, refused)
        return None
    effects.reply(message, None)
    return None


def _is_awaited(actor: OrchestrationActor, parent: Caller, effects: Effects) -> bool:
    """Whether a rewound parent is answered by this one's end; else it is answered here."""
    if actor.parent is None or actor.parent[:2] != parent[:2]:
        # It was purged, and its id taken by another.
        failure = failure_of(InstanceAlreadyExistsError(actor.instance_id))
    else:
        if actor.parent != parent:  # an earlier attempt waits again
            actor.parent = parent
            actor.fresh = actor.changed = True
        if actor.status not in _STOPPED:
            return True
        failure = read_failure(actor.failure or b"null")
    actor.answer_parent(parent, "SubOrchestrationInstanceFailed", failure, effects)
    return False


def _refuse_rewind(
    actor: OrchestrationActor, error: PerdureError, message: Command, effects: Effects
) -> None:
    actor.rewinding = None
    if message.execution and actor.parent is not None:
        # The parent was rewound, and waits: for it, the child has failed once more.
        failure = evolve(failure_of(error), cause=read_failure(actor.failure or b"null"))
        actor.answer_parent(actor.parent, "SubOrchestrationInstanceFailed", failure, effects)
    effects.refuse(message, error)


def _purge(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> None:
    """Delete an instance that has ended, or is parked: as if it was terminated first."""
    if actor.is_live and actor.parked is not None:
        actor.terminate("purged while it was parked", message.recursive, now, effects)
        actor.give_up_held(now, effects)
    if actor.is_live:
        effects.refuse(
            message,
            InstanceNotFinishedError(actor.instance_id, actor.status or "", "purge"),
        )
        return
    effects.drop_activities(actor.instance_id)
    actor.purged = True
    actor.status = None
    actor.changed = True
    effects.reply(message, b"1")


def _park(actor: OrchestrationActor, message: Command, now: int, effects: Effects) -> None:
    """Stop taking turns: a message that was in this one's place cannot be read."""
    if actor.is_live:
        actor.park("StoreDamagedError", message.reason)
    effects.reply(message, None)


def _refuse_finished(actor: OrchestrationActor, message: Command, effects: Effects) -> bool:
    if actor.is_live:
        return False
    effects.refuse(message, InstanceFinishedError(actor.instance_id, actor.status or ""))
    return True


def _note(actor: OrchestrationActor, now: int, kind: EventKind, reason: str) -> None:
    # A history begins with ExecutionStarted: what came before it shows in the status alone.
    if actor.begun:
        actor.record(now, kind, reason)
    actor.updated = now
    actor.changed = True


COMMANDS: dict[Action, Callable[[OrchestrationActor, Command, int, Effects], Any]] = {
    "terminate": _terminate,
    "cancel": _cancel,
    "suspend": _suspend,
    "resume": _resume,
    "retry": _retry,
    "rewind": _rewind,
    "purge": _purge,
    "park": _park,
}
