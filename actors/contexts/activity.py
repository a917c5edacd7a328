"""What an activity sees of its call: ``ActivityContext``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..logs import GuardedLogger
from ..messages import ActivityCall


class ActivityContext:
    """The call that an activity answers.

    Attributes:
        instance_id: the orchestration that called.
        task_id: the number of the call in it.
        attempt: 1 for the first try under a retry policy, then 2, 3, ...
        tags: the tags that the call was given.
        idempotency_key: a text that is the same each time this call is run, also after a crash,
            and differs for every other call. Hand it to services that can drop repetitions.
        progress: what ``heartbeat`` was given last, or None.
    """

    __slots__ = (
        "_cancelled",
        "attempt",
        "idempotency_key",
        "instance_id",
        "name",
        "progress",
        "tags",
        "task_id",
    )

    def __init__(self, call: ActivityCall) -> None:
        caller = call.caller
        self.instance_id = caller.instance_id
        self.task_id = caller.task
        self.name = call.name
        self.attempt = call.attempt
        self.tags: Mapping[str, str] = call.tags or {}
        self.idempotency_key = f"{caller.instance_id}/{caller.execution}/{call.call}"
        self.progress: Any = None
        self._cancelled = False

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``perdure.activities.NAME``) whose records say which call they are of.

        They have ``instance_id``, ``activity``, ``task_id`` and ``attempt``.
        """
        ids = {
            "instance_id": self.instance_id,
            "activity": self.name,
            "task_id": self.task_id,
            "attempt": self.attempt,
        }
        return GuardedLogger(f"perdure.activities.{self.name}", ids)

    @property
    def cancelled(self) -> bool:
        """Whether the answer is not wanted any more; a sync activity may look and stop early.

        An async activity is cancelled at its await as well.
        """
        return self._cancelled

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the activity is alive, and how far it is."""
        self.progress = progress

    def cancel(self) -> None:
        """Mark the call as not wanted any more."""
        self._cancelled = True
