"""A document pipeline: extraction with a deadline, validation with retries, review by a human."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import anyio
import attrs
import pytest

from perdure import (
    App,
    EntityContext,
    EntityId,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    RuntimeStatus,
)
from tests.features.seeds.services import (
    activities,
    answers,
    fails,
    fails_times,
    log,
    names,
    served,
)
from tests.runtime.orchestrating import advance, event_types, status_of


@attrs.define
class Document:
    document_id: str
    blob_url: str
    user_id: str
    priority: str = "normal"


documents = App("documents")

activities(
    documents,
    "extract_document_text",
    "validate_compliance",
    "send_review_notification",
    "handle_approval_timeout",
    "archive_rejected_document",
    "store_processed_document",
    "send_completion_notification",
    "log_processing_error",
    "send_error_notification",
    "process_chunk",
    "check_continuation",
)


@documents.orchestration
def document_processing(
    ctx: OrchestrationContext, document: Document
) -> Generator[Any, Any, dict[str, Any]]:
    minutes = 10 if document.priority == "high" else 30
    deadline = ctx.current_utc_datetime + timedelta(minutes=minutes)
    try:
        extraction_task = ctx.call_activity("extract_document_text", document.blob_url)
        timeout_task = ctx.create_timer(deadline)
        winner = yield ctx.task_any([extraction_task, timeout_task])
        if winner is timeout_task:
            raise TimeoutError("Document extraction timeout exceeded")
        timeout_task.cancel()
        extraction = extraction_task.result

        retry = RetryPolicy.from_options(5000, 3)
        retry = attrs.evolve(retry, backoff=2)
        validation = yield ctx.call_activity("validate_compliance", extraction["text"], retry=retry)

        if validation["requires_review"]:
            yield ctx.call_activity("send_review_notification", validation["issues"])
            approval_deadline = ctx.current_utc_datetime + timedelta(hours=48)
            approval = ctx.wait_for_external_event("documentApproval")
            approval_timeout = ctx.create_timer(approval_deadline)
            winner = yield ctx.task_any([approval, approval_timeout])
            if winner is approval_timeout:
                yield ctx.call_activity("handle_approval_timeout", document.document_id)
                return {"status": "timeout", "document_id": document.document_id}
            approval_timeout.cancel()
            if not approval.result["approved"]:
                yield ctx.call_activity("archive_rejected_document", document.document_id)
                return {"status": "rejected", "document_id": document.document_id}

        yield ctx.task_all(
            [
                ctx.call_activity("store_processed_document", extraction),
                ctx.call_activity("send_completion_notification", document.user_id),
            ]
        )
        return {"status": "completed", "is_compliant": validation["is_compliant"]}
    except Exception as error:
        yield ctx.call_activity(
            "log_processing_error",
            {"error": str(error), "timestamp": ctx.current_utc_datetime},
        )
        yield ctx.call_activity("send_error_notification", document.user_id)
        raise


DOCUMENT = Document("d1", "blob://1", "ada")

COMPLIANT: dict[str, Any] = {"is_compliant": True, "issues": [], "requires_review": False}

DOUBTFUL: dict[str, Any] = {"is_compliant": True, "issues": ["tone"], "requires_review": True}


async def test_a_compliant_document_is_stored_and_announced() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = lambda _: COMPLIANT
    async with served(documents) as (hub, _):
        handle = await hub.client.start_new(document_processing, DOCUMENT, instance_id="doc-d1-ada")

        assert await handle.result(5) == {"status": "completed", "is_compliant": True}
        assert sorted(names()[2:]) == ["send_completion_notification", "store_processed_document"]


async def test_a_document_that_takes_too_long_is_reported_and_fails() -> None:
    late = App("slow")
    late.orchestration(document_processing)
    activities(late, "log_processing_error", "send_error_notification")

    @late.activity
    async def extract_document_text(url: str) -> Any:
        await anyio.sleep_forever()

    urgent = Document("d2", "blob://2", "bob", priority="high")
    async with served(late) as (hub, clock):
        handle = await hub.client.start_new(document_processing, urgent)
        while "TimerCreated" not in await event_types(handle):
            await anyio.sleep(0.001)
        clock.advance(10 * 60)

        with pytest.raises(OrchestrationFailedError, match="timeout exceeded"):
            await handle.result(5)
        assert names() == ["log_processing_error", "send_error_notification"]
        assert log[0][1]["timestamp"].startswith("2030-01-01T00:10:00")


async def test_validation_is_retried_with_growing_delays() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = fails_times(2, COMPLIANT)
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 5)
        await advance(hub, clock, 9)
        assert names().count("validate_compliance") == 2
        await advance(hub, clock, 1)

        assert (await handle.result(5))["status"] == "completed"


async def test_a_validation_that_keeps_failing_is_compensated() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = fails(ValueError("offline"))
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 5)
        await advance(hub, clock, 10)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.cause is not None
        assert caught.value.cause.message == "offline"
        assert names()[-2:] == ["log_processing_error", "send_error_notification"]


@pytest.mark.parametrize(
    ("approval", "status", "last"),
    [
        ({"approved": True}, "completed", None),
        ({"approved": False}, "rejected", "archive_rejected_document"),
        (None, "timeout", "handle_approval_timeout"),
    ],
)
async def test_a_doubtful_document_waits_two_days_for_a_human(
    approval: Any, status: str, last: str | None
) -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = lambda _: DOUBTFUL
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 47 * 3600)
        assert await status_of(handle) == RuntimeStatus.RUNNING
        if approval is not None:
            await handle.raise_event("DocumentApproval", approval)
        else:
            await advance(hub, clock, 3600)

        assert (await handle.result(5))["status"] == status
        if last is not None:
            assert names()[-1] == last


@documents.orchestration
def eternal(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    state = ctx.get_input()
    yield ctx.call_activity("process_chunk", state)
    should_continue = yield ctx.call_activity("check_continuation", state)
    if should_continue:
        ctx.continue_as_new({**state, "iteration": state["iteration"] + 1})
    return state


async def test_an_eternal_orchestration_goes_on_with_a_short_history() -> None:
    answers["check_continuation"] = lambda state: state["iteration"] < 25
    async with served(documents) as (hub, _):
        handle = await hub.client.start_new("eternal", {"iteration": 0})

        assert await handle.result(5) == {"iteration": 25}
        assert names().count("process_chunk") == 26
        assert (await handle.status()).history_length == 6


@documents.entity
def document_counter(ctx: EntityContext) -> None:
    current = ctx.get_state(lambda: {"processed": 0, "failed": 0, "pending": 0})
    match ctx.operation_name:
        case "increment":
            current[ctx.get_input()] += 1
            ctx.set_state(current)
        case "get":
            ctx.set_result(current)
        case "reset":
            ctx.set_state({"processed": 0, "failed": 0, "pending": 0})
        case unknown:
            raise ValueError(unknown)


@documents.orchestration
async def counts(ctx: OrchestrationContext, fields: list[str]) -> dict[str, int]:
    counter = EntityId(document_counter, "all")
    for field in fields:
        ctx.signal_entity(counter, "increment", field)
    before: dict[str, int] = await ctx.call_entity(counter, "get")
    ctx.signal_entity(counter, "reset")
    return before


async def test_a_counter_entity_is_shared_by_orchestrations() -> None:
    async with served(documents) as (hub, _):
        counter = EntityId(document_counter, "all")
        await hub.client.signal_entity(counter, "increment", "pending")
        handle = await hub.client.start_new(counts, ["processed", "processed", "failed"])

        assert await handle.result(5) == {"processed": 2, "failed": 1, "pending": 1}
        assert await hub.client.call_entity(counter, "get") == {
            "processed": 0,
            "failed": 0,
            "pending": 0,
        }
