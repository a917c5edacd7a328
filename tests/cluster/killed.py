"""Errands for workers, each of which ends itself as ``kill -9`` does where it first reaches a step.

``PERDURE_TEST_STEP`` has the step, and a file whose being there says that one has done so.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from perdure.storage import migration
from tests.cluster.errands import app

__all__ = ["STEP", "app"]

STEP = "PERDURE_TEST_STEP"


def reached(step: str) -> None:
    last, _, done = os.environ.get(STEP, "").partition(":")
    if step == last and not Path(done).exists():
        Path(done).touch()
        os.kill(os.getpid(), signal.SIGKILL)


if STEP in os.environ:
    migration.reached = reached
