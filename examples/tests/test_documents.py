"""The pipeline of documents: reviews that take half an hour, and totals that are right anyway."""

from datetime import timedelta

import pytest

from examples.documents.app import (
    DocumentCounter,
    app,
    archive_rejected_document,
    document_counter,
    extract_document_text,
    handle_approval_timeout,
    log_processing_error,
    process_batch,
    send_completion_notification,
    send_error_notification,
    send_review_notification,
    store_processed_document,
    validate_compliance,
)
from examples.documents.models import Batch, Decision, Document, Extraction, Issue, Validation
from examples.documents.rules import RulesServiceBusyError
from perdure import App
from perdure.testing import TestHub

FLAGGED = Validation(False, [Issue("long line", 12)], requires_review=True)
FINE = Validation(True, [], requires_review=False)


@pytest.fixture
def perdure_app() -> App:
    return app


def batch(*names: str) -> Batch:
    return Batch("b", [Document(n, n, f"{n}.txt", "ann", "normal", "b", "nowhere") for n in names])


def put_up(hub: TestHub, validation: Validation) -> None:
    """Let nothing reach the world: the files, the service, the outbox."""
    hub.fake(extract_document_text, returns=Extraction("text", 1.0, {}, [{"text": 1}]))
    hub.fake(validate_compliance, returns=validation)
    for send in (
        send_review_notification,
        send_completion_notification,
        send_error_notification,
        log_processing_error,
        handle_approval_timeout,
        archive_rejected_document,
        store_processed_document,
    ):
        hub.fake(send, returns=None)


async def counted(hub: TestHub) -> dict[str, int]:
    await hub.quiet()
    found = await hub.client.call_entity(document_counter("b"), DocumentCounter.get)
    return {status: count for status, count in found.items() if count}


@pytest.mark.perdure_crash_everywhere
async def test_what_a_person_approves_is_stored_and_told_once(perdure_hub: TestHub) -> None:
    put_up(perdure_hub, FLAGGED)
    handle = await perdure_hub.client.start_new(process_batch, batch("a"), instance_id="batch")
    await perdure_hub.advance(timedelta(minutes=29))

    document = perdure_hub.client.get_handle("a")
    await document.raise_event("documentApproval", Decision(True, "ben", "it is only long"))

    assert await handle.result() == {"a": "completed"}
    assert await counted(perdure_hub) == {"completed": 1}
    for told in (send_review_notification, store_processed_document, send_completion_notification):
        assert len(perdure_hub.calls(told)) == 1


async def test_what_nobody_looks_at_for_half_an_hour_times_out(perdure_hub: TestHub) -> None:
    put_up(perdure_hub, FLAGGED)
    names = [f"doc-{number}" for number in range(100)]
    handle = await perdure_hub.client.start_new(process_batch, batch(*names))

    await perdure_hub.advance(timedelta(minutes=91))  # 48 at a time

    assert set((await handle.result()).values()) == {"timeout"}
    assert await counted(perdure_hub) == {"timeout": 100}
    assert len(perdure_hub.calls(handle_approval_timeout)) == 100


async def test_a_service_that_stays_busy_fails_a_document_and_no_other(
    perdure_hub: TestHub,
) -> None:
    put_up(perdure_hub, FINE)
    perdure_hub.fake(validate_compliance, raises=RulesServiceBusyError("no capacity"))
    handle = await perdure_hub.client.start_new(process_batch, batch("a"))
    await perdure_hub.advance(1)

    assert await handle.result() == {"a": "failed"}
    [call] = perdure_hub.calls(validate_compliance)
    assert call.attempts == 3
    assert len(perdure_hub.calls(send_error_notification)) == 1
