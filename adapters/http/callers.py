"""The trace that a request says it belongs to, in the headers of W3C trace context."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from starlette.types import Scope

_HEADERS = frozenset({b"traceparent", b"tracestate", b"baggage"})


def says_trace(scope: Scope) -> bool:
    """Whether a request says a trace, and somebody here may want to know."""
    return "opentelemetry.trace" in sys.modules and any(
        name == b"traceparent" for name, _ in scope["headers"]
    )


@contextmanager
def in_trace_of(scope: Scope) -> Generator[None]:
    """Have the caller's span and baggage current in the block, unless a span is that already.

    One is where the application that this is mounted in is traced itself.
    """
    from opentelemetry import context, propagate, trace

    if trace.get_current_span().get_span_context().is_valid:
        yield
        return
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    carrier = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name in _HEADERS
    }
    token: Any = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
