"""Ids of traces and spans: those of a hub's work follow from what it is, others are random.

What is done again after a crash has the same id again, so that what was made of it the first time
is still its child, and a backend that sees it twice sees one.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b

from opentelemetry.sdk.trace.id_generator import IdGenerator as SdkIdGenerator, RandomIdGenerator


def span_id_of(trace_id: int, instance_id: str, execution: int, task: int, rewinds: int = 0) -> int:
    """Give the id of the span of an orchestration's task; of itself, for task 0."""
    text = f"{trace_id:x}/{execution}.{task}.{rewinds}/{instance_id}"
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def trace_id_of(instance_id: str, execution: int, created: int) -> int:
    """Give the id of the trace that an instance begins, which was started at that microsecond."""
    text = f"{created}/{execution}/{instance_id}"
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest, "big") or 1


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
