"""What traces cost, in calls: of Python's and C's functions, which is the same on any machine.

``cost.py`` beside it measures CPU time.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, set_span_in_context

from perdure import Hub, Settings
from perdure.adapters.telemetry import Tracing
from tests.adapters.telemetry.cost import Dropped, app, hello

TIMES = 250


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which is not what is counted here


class Calls:
    """Counts what this thread calls."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1


def provider_of(ratio: float) -> TracerProvider:
    provider = TracerProvider(
        sampler=ParentBased(ALWAYS_ON if ratio == 1 else TraceIdRatioBased(ratio)),
        shutdown_on_exit=False,
    )
    # The thread that exports has nothing to do while calls are counted.
    batches = BatchSpanProcessor(
        Dropped(), max_queue_size=100_000, max_export_batch_size=100_000, schedule_delay_millis=1e6
    )
    provider.add_span_processor(batches)
    return provider


async def calls_of_hello(observer: Tracing | None) -> float:
    """Give how many calls an orchestration with three activities takes."""
    # No look at the clock decides which turns go into one checkpoint.
    settings = Settings(pump_budget_s=1_000.0)
    async with Hub(app, observer=observer, partitions=1, settings=settings) as hub:

        async def run(n: int) -> None:
            assert await (await hub.client.start_new(hello, n)).result() == n

        await run(0)  # what is done once
        with Calls() as calls:
            for n in range(TIMES):
                await run(n)
    return calls.count / TIMES


def calls_of_the_sdk() -> float:
    """Give how many calls its own spans take, in its way, for the same."""
    provider = provider_of(1)
    tracer = provider.get_tracer("x")
    with Calls() as calls:
        for n in range(TIMES):
            said: dict[str, str | int | float] = {
                "perdure.instance_id": str(n),
                "perdure.status": "Completed",
            }
            whole = {**said, "perdure.orchestration": "hello", "perdure.execution": 1}
            root = tracer.start_span("orchestration hello", Context(), SpanKind.SERVER, whole)
            context = set_span_in_context(root, Context())
            for task in range(3):
                part = {**said, "perdure.activity": "work", "perdure.task": task}
                part |= {"perdure.attempt": 1, "perdure.waited_s": 0.1}
                span = tracer.start_span("activity work", context, attributes=part, start_time=1)
                span.end(2)
            root.end(2)
    provider.shutdown()
    return calls.count / TIMES


async def cost(ratio: float, **options: Any) -> float:
    """Give how many calls an orchestration takes more where it is traced."""
    provider = provider_of(ratio)
    more = await calls_of_hello(Tracing(provider, **options)) - await calls_of_hello(None)
    provider.shutdown()
    return more


async def test_the_spans_of_an_orchestration_cost_about_half_of_the_sdks_own() -> None:
    assert await cost(1) < 0.55 * calls_of_the_sdk()


async def test_what_is_not_sampled_costs_a_few_calls() -> None:
    plain = await calls_of_hello(None)
    unsampled, left_out = await cost(0.0), await cost(0.0, carry_unsampled=False)

    assert unsampled < 0.07 * plain
    assert left_out < 0.03 * plain
