"""What an execution waits for, in short: by this, queries find an instance.

It is told at every seal, so it looks at the first things only that are open, the oldest.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from ..errors import ActivityError, SubOrchestrationError
from .compound_tasks import Called
from .locks import EntityLock
from .tasks import CallTask, Task, TimerTask
from .waits import open_task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .execution import Summary
    from .executor import Executor

LOOKED_AT: Final = 32
"""Of many things that are open, so many are looked at, the oldest first."""


def summary_of(executor: Executor) -> Summary:
    """Give what an execution waits for, in short."""
    words: set[str] = set()
    attempts = 1
    for number, task in islice(executor.pending.items(), LOOKED_AT):
        opened = open_task(number, task)
        retrying = opened.retrying
        if retrying is not None:
            # The next attempt counts from the moment that the last one has failed.
            tried = retrying.attempts + (opened.purpose == "retry" and isinstance(task, TimerTask))
            attempts = max(attempts, tried)
        if not isinstance(task, TimerTask):
            words.update(_words(task))
        elif opened.purpose == "timer":
            words.add("timer")
        elif opened.purpose == "retry" and retrying is not None and retrying.failed is not None:
            words.update(_words(retrying.failed))
    if executor.external is not None:
        words.update(f"event:{name}" for name in islice(executor.external.waits, LOOKED_AT))
    waits = orjson.dumps(sorted(words)) if words else None
    return waits, attempts if attempts > 1 else None


def _words(task: Task[Any] | Called) -> Iterable[str]:
    if isinstance(task, EntityLock):
        return (f"lock:{entity}" for entity in task.entities[:LOOKED_AT])
    if not isinstance(task, (CallTask, Called)):
        return ()
    if task.error is ActivityError:
        return (f"activity:{task.target}",)
    if task.error is SubOrchestrationError:
        return ("child",)
    return (f"entity:{task.entity}",) if isinstance(task, CallTask) else ()
