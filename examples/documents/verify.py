"""The same totals by a plain loop over the same files, without a hub, and the comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .desk import ENDINGS, Desk
from .extract import ExtractionError, extract, words_of
from .models import Batch, Status
from .reviewer import decide
from .rules import validate


@dataclass
class Totals:
    """What a batch comes to.

    Attributes:
        statuses: the status of each document.
        words: how often each word occurs in the completed ones.
    """

    statuses: dict[str, Status] = field(default_factory=dict[str, Status])
    words: Counter[str] = field(default_factory=Counter[str])


def compute(batch: Batch) -> Totals:
    """Compute the totals directly."""
    totals = Totals()
    for document in batch.documents:
        try:
            extraction = extract(Path(document.path))
        except (ExtractionError, OSError):
            totals.statuses[document.document_id] = Status.FAILED
            continue
        validation = validate(extraction.text, extraction.confidence)
        status = Status.COMPLETED
        if validation.requires_review:
            decision = decide(validation.issues)
            if decision is None:
                status = Status.TIMEOUT
            elif not decision.approved:
                status = Status.REJECTED
        totals.statuses[document.document_id] = status
        if status is Status.COMPLETED:
            totals.words.update(words_of(extraction.text))
    return totals


def differences(
    expected: Totals, found: Totals, counters: Mapping[str, int], desk: Desk, batch: Batch
) -> list[str]:
    """Say in what a run differs from the direct computation; nothing if it is exact."""
    wrong: list[str] = []
    for name, status in expected.statuses.items():
        if found.statuses.get(name) != status:
            wrong.append(f"{name} should be {status} and is {found.statuses.get(name)}")
    wrong += [f"{name} is no document" for name in found.statuses.keys() - expected.statuses]

    wanted = {"pending": 0, **{str(status): 0 for status in Status}}
    wanted.update(Counter(str(status) for status in expected.statuses.values()))
    if dict(counters) != wanted:
        wrong.append(f"the document counter should be {wanted} and is {dict(counters)}")

    for word in sorted(expected.words.keys() | found.words.keys()):
        if expected.words[word] != found.words[word]:
            wrong.append(
                f"{word!r} occurs {expected.words[word]:,} times, not {found.words[word]:,}"
            )

    instances = {document.document_id: document.instance_id for document in batch.documents}
    completed = {
        instances[name] for name, status in expected.statuses.items() if status is Status.COMPLETED
    }
    stored = {path.stem for path in desk.results.glob(f"doc-{batch.batch_id}-*.json")}
    if stored != completed:
        wrong.append(f"{len(completed)} results should be stored, and {len(stored)} are")

    wrong += _wrong_messages(expected, desk.messages(), set(instances.values()))
    return wrong


def _wrong_messages(
    expected: Totals, messages: list[dict[str, Any]], instances: set[str]
) -> list[str]:
    # A key begins with the instance; other batches may have used the same outbox.
    told = Counter(
        (str(message["document"]), str(message["subject"]))
        for message in messages
        if message["subject"] in ENDINGS and message["key"].partition("/")[0] in instances
    )
    wanted = Counter((name, str(status)) for name, status in expected.statuses.items())
    return [
        f"the owner of {name} should be told {subject!r} {wanted[name, subject]} times,"
        f" and was {told[name, subject]} times"
        for name, subject in sorted(told.keys() | wanted.keys())
        if told[name, subject] != wanted[name, subject]
    ]
