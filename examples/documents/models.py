"""The values that cross between the parts of the pipeline, all of them plain data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

Priority = Literal["high", "normal"]


class Status(StrEnum):
    """How a document ends."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    FAILED = "failed"


@dataclass(frozen=True)
class Document:
    """One document to process.

    Attributes:
        document_id: its name for people, such as ``stdlib/json/decoder.py``.
        instance_id: the orchestration instance that processes it.
        path: where the file is.
        user_id: who is told about it.
        priority: high ones get less time.
        batch: the batch that it belongs to.
        workspace: the folder for results and the outbox.
    """

    document_id: str
    instance_id: str
    path: str
    user_id: str
    priority: Priority
    batch: str
    workspace: str


@dataclass(frozen=True)
class Batch:
    """All documents of a run. The id is a digest of their names and contents."""

    batch_id: str
    documents: list[Document]

    @property
    def instance_id(self) -> str:
        """The parent orchestration's instance."""
        return f"batch-{self.batch_id}"


@dataclass(frozen=True)
class Extraction:
    """The text of a document.

    Attributes:
        text: what people would read of it.
        confidence: 0 to 1; the share of characters that are printable.
        metadata: the kind of file, its encoding and the like.
        words: how often each word occurs, by shard of the word counters.
    """

    text: str
    confidence: float
    metadata: dict[str, str]
    words: list[dict[str, int]]


@dataclass(frozen=True)
class CheckRequest:
    """What the compliance rules are asked."""

    document_id: str
    text: str
    confidence: float


@dataclass(frozen=True)
class Issue:
    """A rule that a text breaks, and how often."""

    rule: str
    count: int


@dataclass(frozen=True)
class Validation:
    """What the compliance rules answer."""

    is_compliant: bool
    issues: list[Issue]
    requires_review: bool


@dataclass(frozen=True)
class Decision:
    """What a person decides; the data of the event ``documentApproval``."""

    approved: bool
    reviewer: str
    reason: str


@dataclass(frozen=True)
class Stage:
    """Where a document is; its orchestration's custom status."""

    stage: Literal["extract", "check", "review", "store", "done"]
    document_id: str
    issues: list[Issue]


@dataclass(frozen=True)
class Result:
    """What is stored of a processed document."""

    document: Document
    extraction: Extraction
    validation: Validation


@dataclass(frozen=True)
class Notice:
    """What somebody is told about a document."""

    document: Document
    subject: str
    issues: list[Issue]


@dataclass(frozen=True)
class ErrorReport:
    """Why a document could not be processed."""

    document: Document
    error: str
    timestamp: datetime


@dataclass(frozen=True)
class Outcome:
    """How a document ended."""

    status: Status
    document_id: str
    is_compliant: bool | None = None
