"""The pipeline: what happens to a document, and how often it may have happened.

One orchestration per document, and a parent that keeps a bounded number of them going. They are
replayed after a crash, so they decide and never act; all work is done in activities, which run
at least once and are safe to repeat. Entities keep the totals.
"""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from pathlib import Path
from typing import Literal

from perdure import (
    ActivityContext,
    ActivityError,
    App,
    EntityId,
    OrchestrationContext,
    RetryPolicy,
    SubOrchestrationError,
    readonly,
)

from . import extract, rules
from .desk import desk_of
from .models import (
    Batch,
    CheckRequest,
    Decision,
    Document,
    ErrorReport,
    Extraction,
    Issue,
    Notice,
    Outcome,
    Result,
    Stage,
    Status,
    Validation,
)

LANES = 48  # documents under way at a time

EXTRACTION_TIME = {"high": timedelta(minutes=1), "normal": timedelta(minutes=3)}
REVIEW_TIME = timedelta(minutes=30)
# What looks like a leaked secret must not lie about: it is locked away if nobody takes care.
SECRET_REVIEW_TIME = timedelta(seconds=2)

RULES_RETRY = RetryPolicy(
    first_interval=0.05, max_attempts=3, backoff=2.0, retry_on=(rules.RulesServiceBusyError,)
)

app = App("documents")


# Entities


@app.entity
class DocumentCounter:
    """How many documents of a batch are where."""

    pending: int = 0
    completed: int = 0
    rejected: int = 0
    timeout: int = 0
    failed: int = 0

    def begin(self) -> None:
        self.pending += 1

    def end(self, status: Status) -> None:
        self.pending -= 1
        match status:
            case Status.COMPLETED:
                self.completed += 1
            case Status.REJECTED:
                self.rejected += 1
            case Status.TIMEOUT:
                self.timeout += 1
            case Status.FAILED:
                self.failed += 1

    @readonly
    def get(self) -> dict[str, int]:
        return {
            "pending": self.pending,
            "completed": self.completed,
            "rejected": self.rejected,
            "timeout": self.timeout,
            "failed": self.failed,
        }


@app.entity
class WordCounter:
    """How often the words of one shard occur in the completed documents of a batch."""

    documents: int = 0
    counts: dict[str, int] = {}

    def add(self, words: dict[str, int]) -> None:
        self.documents += 1
        for word, count in words.items():
            self.counts[word] = self.counts.get(word, 0) + count

    @readonly
    def top(self, number: int) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    @readonly
    def seen(self) -> int:
        return self.documents


def document_counter(batch_id: str) -> EntityId[DocumentCounter]:
    """The counter of a batch."""
    return EntityId(DocumentCounter, batch_id)


def word_counter(batch_id: str, shard: int) -> EntityId[WordCounter]:
    """The counter of a shard of a batch's words: one for all words would be a bottleneck."""
    return EntityId(WordCounter, f"{batch_id}-{shard:02}")


# Orchestrations


@app.orchestration
async def process_batch(ctx: OrchestrationContext, batch: Batch) -> dict[str, Status]:
    """Process every document; gives the status of each. One that fails does not stop the rest."""
    outcomes: dict[str, Status] = {}
    remaining = iter(batch.documents)

    async def lane() -> None:
        for document in remaining:
            try:
                outcome = await ctx.call_sub_orchestrator(
                    process_document, document, instance_id=document.instance_id
                )
            except SubOrchestrationError:
                outcomes[document.document_id] = Status.FAILED
            else:
                outcomes[document.document_id] = outcome.status

    async with ctx.create_task_group() as lanes:
        for _ in range(min(LANES, len(batch.documents))):
            lanes.start_soon(lane)
    return outcomes


@app.orchestration
async def process_document(ctx: OrchestrationContext, document: Document) -> Outcome:
    """Take one document through the pipeline."""
    counter = document_counter(document.batch)
    ctx.signal_entity(counter, DocumentCounter.begin)
    try:
        outcome = await _pipeline(ctx, document)
    except (ActivityError, TimeoutError) as error:
        # Compensation: leave a trace, tell the owner, and fail as the parent must know.
        report = ErrorReport(document, str(error), ctx.current_utc_datetime)
        await ctx.call_activity(log_processing_error, report)
        await ctx.call_activity(send_error_notification, report)
        ctx.signal_entity(counter, DocumentCounter.end, Status.FAILED)
        raise
    ctx.signal_entity(counter, DocumentCounter.end, outcome.status)
    return outcome


async def _pipeline(ctx: OrchestrationContext, document: Document) -> Outcome:
    show = functools.partial(_show, ctx, document)

    # Extract the text, within a time that depends on the priority.
    show("extract")
    extracting = ctx.call_activity(extract_document_text, document)
    deadline = ctx.create_timer(ctx.current_utc_datetime + EXTRACTION_TIME[document.priority])
    if await ctx.task_any([extracting, deadline]) is deadline:
        extracting.cancel()
        raise TimeoutError(f"the text of {document.document_id} was not extracted in time")
    deadline.cancel()
    extraction = extracting.result

    # Check it against the rules; the service may need to be asked more than once.
    show("check")
    validation = await ctx.call_activity(
        validate_compliance,
        CheckRequest(document.document_id, extraction.text, extraction.confidence),
        retry=RULES_RETRY,
    )

    # A person decides about what was flagged.
    if validation.requires_review:
        await ctx.call_activity(
            send_review_notification, Notice(document, "review", validation.issues)
        )
        is_urgent = any(issue.rule == "secret" for issue in validation.issues)
        show("review", validation.issues)
        approval = ctx.wait_for_external_event("documentApproval", data_type=Decision)
        deadline = ctx.create_timer(SECRET_REVIEW_TIME if is_urgent else REVIEW_TIME)
        if await ctx.task_any([approval, deadline]) is deadline:
            await ctx.call_activity(
                handle_approval_timeout, Notice(document, Status.TIMEOUT, validation.issues)
            )
            return Outcome(Status.TIMEOUT, document.document_id)
        deadline.cancel()
        if not approval.result.approved:
            await ctx.call_activity(
                archive_rejected_document, Notice(document, Status.REJECTED, validation.issues)
            )
            return Outcome(Status.REJECTED, document.document_id)

    # Store the result and tell the owner, in parallel.
    show("store")
    await ctx.task_all(
        [
            ctx.call_activity(store_processed_document, Result(document, extraction, validation)),
            ctx.call_activity(
                send_completion_notification, Notice(document, Status.COMPLETED, validation.issues)
            ),
        ]
    )
    for shard, words in enumerate(extraction.words):
        ctx.signal_entity(word_counter(document.batch, shard), WordCounter.add, words)
    show("done")
    return Outcome(Status.COMPLETED, document.document_id, validation.is_compliant)


def _show(
    ctx: OrchestrationContext,
    document: Document,
    stage: Literal["extract", "check", "review", "store", "done"],
    issues: list[Issue] | None = None,
) -> None:
    ctx.set_custom_status(Stage(stage, document.document_id, issues or []))


# Activities


@app.activity
def extract_document_text(document: Document) -> Extraction:
    return extract.extract(Path(document.path))


@app.activity
def validate_compliance(context: ActivityContext, request: CheckRequest) -> Validation:
    return rules.ask_service(request, context.attempt)


@app.activity
def send_review_notification(context: ActivityContext, notice: Notice) -> None:
    _send(context, notice)


@app.activity
def handle_approval_timeout(context: ActivityContext, notice: Notice) -> None:
    _send(context, notice)


@app.activity
def archive_rejected_document(context: ActivityContext, notice: Notice) -> None:
    _send(context, notice)


@app.activity
def send_completion_notification(context: ActivityContext, notice: Notice) -> None:
    _send(context, notice)


@app.activity
def store_processed_document(context: ActivityContext, result: Result) -> None:
    document = result.document
    desk_of(document.workspace).store(
        document.instance_id,
        context.idempotency_key,
        {
            "document": document.document_id,
            "text": result.extraction.text,
            "metadata": result.extraction.metadata,
            "validation": dataclasses.asdict(result.validation),
        },
    )


@app.activity
def log_processing_error(context: ActivityContext, report: ErrorReport) -> None:
    desk_of(report.document.workspace).send(
        context.idempotency_key,
        "error log",
        {
            "document": report.document.document_id,
            "error": report.error,
            "timestamp": report.timestamp.isoformat(),
        },
    )


@app.activity
def send_error_notification(context: ActivityContext, report: ErrorReport) -> None:
    desk_of(report.document.workspace).send(
        context.idempotency_key,
        Status.FAILED,
        {
            "to": report.document.user_id,
            "document": report.document.document_id,
            "error": report.error,
        },
    )


def _send(context: ActivityContext, notice: Notice) -> None:
    desk_of(notice.document.workspace).send(
        context.idempotency_key,
        notice.subject,
        {
            "to": notice.document.user_id,
            "document": notice.document.document_id,
            "issues": [dataclasses.asdict(issue) for issue in notice.issues],
        },
    )
