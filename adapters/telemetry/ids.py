"""Ids of traces and spans: those of a hub's work follow from what is stored of it.

An orchestration's trace and its own span are drawn once, and stored with it; the spans of its tasks
follow from these. So what is done again after a crash has the same id again: what was made of it the
first time is still its child, and a backend that sees it twice sees one.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from random import Random

from opentelemetry.sdk.trace.id_generator import IdGenerator as SdkIdGenerator, RandomIdGenerator

# Not the module's functions: a program that seeds these would have the same traces in each run.
_draw = Random().getrandbits

#: The lower bits of an id of a trace, which are as many as that of a span has.
LOW = (1 << 64) - 1
_NO_ZERO = 1 << 64 | 1  # no id may be 0
_PER_TASK = 0x9E3779B97F4A7C15  # odd, so that no two tasks have one id
_PER_REWIND = 0xD1342543DE82EF95


def new_ids() -> int:
    """Draw the id of a trace, and behind it that of a span."""
    return _draw(192) | _NO_ZERO


def new_span_id() -> int:
    """Draw the id of a span."""
    return _draw(64) or 1


def task_span_id(own: int, task: int, rewinds: int = 0) -> int:
    """Give the id of the span of an execution's task, from that of its own."""
    return (own + task * _PER_TASK + rewinds * _PER_REWIND) & LOW or 1


class IdGenerator(SdkIdGenerator):
    """For ``TracerProvider(id_generator=...)``: a hub's spans have the ids that their work gives them.

    All other spans have those of another generator.

    Args:
        others: makes ids for the spans that are no hub's; random ones by default.
    """

    def __init__(self, others: SdkIdGenerator | None = None) -> None:
        self._others = RandomIdGenerator() if others is None else others
        self._given = _Given()

    @contextmanager
    def given(self, trace_id: int, span_id: int) -> Generator[None]:
        """Give the next span of this thread these ids."""
        self._given.ids = trace_id, span_id
        try:
            yield
        finally:
            self._given.ids = None

    def generate_span_id(self) -> int:
        """Give the id of the next span."""
        ids = self._given.ids
        return self._others.generate_span_id() if ids is None else ids[1]

    def generate_trace_id(self) -> int:
        """Give the id of the next trace."""
        ids = self._given.ids
        return self._others.generate_trace_id() if ids is None else ids[0]


class _Given(threading.local):
    ids: tuple[int, int] | None = None
