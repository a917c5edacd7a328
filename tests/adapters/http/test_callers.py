"""What a request sets going belongs to the trace that its headers say."""

from __future__ import annotations

import pytest
from opentelemetry import trace

from perdure import EntityId
from tests.adapters.http.serving import SDK, WEBHOOKS, served
from tests.adapters.telemetry.tracing import Traces, trace_id

TRACE = 0x0AF7651916CD43DD8448EB211C80319C
SAID = {"Traceparent": f"00-{TRACE:032x}-b7ad6b7169203331-01", "Tracestate": "vendor=1"}


@pytest.mark.parametrize(
    "path", [f"{WEBHOOKS}/orchestrators/echo/i", f"{SDK}/orchestrators/echo/i"]
)
async def test_an_orchestration_belongs_to_its_callers_trace(path: str) -> None:
    traces = Traces()
    async with served(observer=traces.observer) as it:
        await it.http.post(path, json=1, headers=SAID)
        await it.ended("i")
        after = trace.get_current_span().get_span_context()

    assert {trace_id(span) for span in traces.spans} == {TRACE}
    assert not after.is_valid


async def test_a_signal_belongs_to_its_callers_trace() -> None:
    traces = Traces()
    async with served(observer=traces.observer) as it:
        await it.http.post(f"{WEBHOOKS}/entities/counter/k?op=add", json=1, headers=SAID)
        await it.client.call_entity(EntityId("counter", "k"), "get")

    assert TRACE in {trace_id(span) for span in traces.spans}


async def test_a_span_that_is_current_goes_before_what_the_headers_say() -> None:
    traces = Traces()
    async with served(observer=traces.observer) as it:
        with traces.tracer.start_as_current_span("mine"):
            await it.http.post(f"{WEBHOOKS}/orchestrators/echo/i", json=1, headers=SAID)
        await it.ended("i")

    assert TRACE not in {trace_id(span) for span in traces.spans}
    assert len({trace_id(span) for span in traces.spans}) == 1


@pytest.mark.parametrize("said", ["", "00-0-0-01", "nonsense", "\xff" * 60])
async def test_a_header_that_says_no_trace_is_passed_over(said: str) -> None:
    headers = [(b"traceparent", said.encode("latin-1"))]
    async with served(observer=Traces().observer) as it:
        answer = await it.http.post(
            f"{WEBHOOKS}/orchestrators/echo?timeout=10", json=1, headers=headers
        )

    assert answer.status_code == 200
