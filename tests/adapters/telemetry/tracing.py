"""A provider that keeps its spans, and what the shape of a trace is, for the tests of traces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from perdure.adapters.telemetry import Tracing


class Notes(SpanProcessor):
    """Looks at spans when they begin, so that they have to be begun."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        span.set_attribute("noted", True)


class Traces:
    """The spans that a hub's observer makes, and those of users' code."""

    def __init__(self, *, plain: bool = True, **options: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        if not plain:
            self.provider.add_span_processor(Notes())
        self.observer = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("users")

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.named(name)
        return span

    def shape(self) -> Any:
        return shape(self.spans)


def span_id(span: ReadableSpan) -> int:
    context: SpanContext | None = span.context
    assert context is not None
    return context.span_id


def trace_id(span: ReadableSpan) -> int:
    context: SpanContext | None = span.context
    assert context is not None
    return context.trace_id


def shape(spans: Iterable[ReadableSpan]) -> Any:
    """Give a trace as a tree of names, in the order in which spans began."""
    listed = sorted(spans, key=lambda span: (span.start_time or 0, span.name))
    known = {span_id(span) for span in listed}
    assert len(known) == len(listed), "a span was made twice"

    def below(parent: int | None) -> list[Any]:
        found: list[Any] = []
        for span in listed:
            above = None if span.parent is None else span.parent.span_id
            if above == parent or (parent is None and above not in known):
                inside = below(span_id(span))
                found.append((span.name, inside) if inside else span.name)
        return found

    return below(None)
