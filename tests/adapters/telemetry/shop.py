"""An application whose worker processes trace into a file, and may end in the middle."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from perdure import ActivityContext, App, EntityId, OrchestrationContext, RetryPolicy
from perdure.adapters.telemetry import Tracing

#: Where the folder is named that all of it goes to.
FOLDER = "PERDURE_TEST_FOLDER"

app = App()


class FileExporter(SpanExporter):
    """Adds each span to a file, as a line that says which process made it."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with open(Path(os.environ[FOLDER]) / "spans", "a") as file:
            for span in spans:
                context, parent = span.context, span.parent
                assert context is not None
                line = {
                    "name": span.name,
                    "trace": context.trace_id,
                    "id": context.span_id,
                    "parent": None if parent is None else parent.span_id,
                    "pid": os.getpid(),
                }
                file.write(json.dumps(line) + "\n")
        return SpanExportResult.SUCCESS


def make_observer() -> Tracing:
    """Make the observer of a process."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)
    return Tracing()


@app.entity
class Shelf:
    """Counts what is on it."""

    count: int = 0

    def put(self, amount: int) -> int:
        self.count += amount
        return self.count


@app.activity
def pack(ctx: ActivityContext, item: str) -> str:
    """Fail once, and end the process in the next attempt, once."""
    with trace.get_tracer("shop").start_as_current_span("inner"):
        if ctx.attempt == 1:
            raise ValueError("out of tape")
    mark = Path(os.environ[FOLDER]) / "ended"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@app.orchestration
async def order(ctx: OrchestrationContext, item: str) -> int:
    """Pack, and put on a shelf; both go to any partition."""
    retry = RetryPolicy(first_interval=0.01, max_attempts=2)
    await ctx.call_activity(pack, item, retry=retry)
    await ctx.call_sub_orchestrator(label, item)
    return await ctx.call_entity(EntityId(Shelf, item), Shelf.put, 1)


@app.orchestration
async def label(ctx: OrchestrationContext, item: str) -> str:
    """Do nothing much."""
    return item
