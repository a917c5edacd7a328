"""What tracing costs: the CPU time of an operation without an observer and with one, in turns.

    python -m tests.adapters.telemetry.cost [hello|hot ...] [--rounds N]

Each round runs every variant once, in a process of its own, in memory; what is shown are medians
of the CPU time of an operation, start-up taken off, and what that is more than without. ``off`` has
no observer, ``traced`` one whose spans go to an exporter that drops them, ``unsampled`` one whose
sampler takes nothing, and ``left out`` the same without what goes along of unsampled traces. Each load checks its own outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

from perdure import App, EntityId, Hub, OrchestrationContext
from perdure.adapters.telemetry import Tracing

VARIANTS = ("off", "traced", "unsampled", "left out")
#: Operations of a short and of a long run: the difference is what counts.
COUNTS = {"hello": (500, 3_000), "hot": (2_000, 20_000)}

app = App()


class Dropped(SpanExporter):
    """Drops spans, and counts them."""

    count = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


@app.entity
class Counter:
    """Adds."""

    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.activity
async def work(n: int) -> int:
    """Give back."""
    return n


@app.orchestration
async def hello(ctx: OrchestrationContext, n: int) -> int:
    """Three activities, one after another."""
    a = await ctx.call_activity(work, n)
    b = await ctx.call_activity(work, a)
    return await ctx.call_activity(work, b)


async def load(kind: str, count: int, variant: str) -> float:
    """Do so many operations, and give the CPU time that this took."""
    exporter = Dropped()
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON if variant == "traced" else ALWAYS_OFF),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1_000_000))
    tracing = Tracing(provider, carry_unsampled=variant != "left out")
    observer = None if variant == "off" else tracing
    async with Hub(app, observer=observer) as hub:
        began = time.process_time()
        if kind == "hello":

            async def one(index: int) -> None:
                handle = await hub.client.start_new(hello, index)
                assert await handle.result() == index
        else:

            async def one(index: int) -> None:
                await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 1)

        for start in range(0, count, 50):
            await asyncio.gather(*[one(start + n) for n in range(50)])
        if kind == "hot":
            assert await hub.client.call_entity(EntityId(Counter, "x"), Counter.add, 0) == count
        taken = time.process_time() - began
    provider.shutdown()
    traced = 4 * count if kind == "hello" and variant == "traced" else 0
    assert exporter.count == traced, f"{exporter.count} spans, and not {traced}"
    return taken


def _run(kind: str, count: int, variant: str) -> float:
    command = [sys.executable, "-m", __spec__.name, "load", kind, str(count), variant]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def compare(kinds: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Give the microseconds of an operation, by load and variant: medians over the rounds."""
    found: dict[str, dict[str, list[float]]] = {
        kind: {variant: [] for variant in VARIANTS} for kind in kinds
    }
    for _ in range(rounds):
        for kind in kinds:
            short, long = COUNTS[kind]
            for variant in VARIANTS:
                taken = _run(kind, long, variant) - _run(kind, short, variant)
                found[kind][variant].append(taken / (long - short) * 1e6)
    return {
        kind: {variant: statistics.median(times) for variant, times in by_variant.items()}
        for kind, by_variant in found.items()
    }


def main(arguments: list[str]) -> None:
    """Compare, or run one load."""
    if arguments[:1] == ["load"]:
        gc.disable()
        _, kind, count, variant = arguments
        print(asyncio.run(load(kind, int(count), variant)))
        return
    parser: Any = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[*COUNTS, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    for kind, by_variant in compare(chosen.kinds or [*COUNTS], chosen.rounds).items():
        for variant, taken in by_variant.items():
            more = 100 * (taken / by_variant["off"] - 1)
            print(f"{kind:6} {variant:10} {taken:8.1f} us an operation  {more:+6.1f} %")


if __name__ == "__main__":
    main(sys.argv[1:])
