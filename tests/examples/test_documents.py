"""The document pipeline as real processes: exact totals, also when it is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from examples.documents.desk import Desk
from examples.documents.extract import SHARDS, ExtractionError, extract, words_of
from examples.documents.models import Batch, CheckRequest, Issue, Status
from examples.documents.plan import documents_in, everyday_documents, make_batch
from examples.documents.reviewer import decide
from examples.documents.rules import RulesServiceBusyError, ask_service, validate
from examples.documents.verify import Totals, compute, differences

ROOT = Path(__file__).parents[2]

# Each ends in a way of its own; what they come to is written down here and not computed.
STATUSES = {
    "binary.txt": "failed",
    "broken.py": "failed",
    "code.py": "completed",
    "crowded.txt": "rejected",
    "leaked.txt": "timeout",
    "page.html": "completed",
    "plain.txt": "completed",
    "pleading.txt": "completed",
    "rude.txt": "rejected",
    **{f"more/{number:02}.txt": "completed" for number in range(12)},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    (folder / "more").mkdir(parents=True)
    (folder / "binary.txt").write_bytes(b"\0\1\2\3")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "code.py").write_text('"""Durable things."""\n# Durable comment\ndurable = 1\n')
    (folder / "crowded.txt").write_text("a@example.org b@example.org c@example.org\n")
    (folder / "leaked.txt").write_text("pass" + "word = hunter2hunter2\n")
    (folder / "page.html").write_text("<style>hidden</style><p>Durable &amp; sound</p>")
    (folder / "plain.txt").write_text("Durable words, durable deeds.\n")
    (folder / "pleading.txt").write_text("write to durable@example.org\n")
    (folder / "rude.txt").write_text("An ugly hack.\n")
    for number in range(12):
        (folder / "more" / f"{number:02}.txt").write_text(f"durable number{number}\n")
    (folder / "ignored.bin").write_text("not a document")
    return folder


def run(*arguments: object, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.documents", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def endings(store: Path) -> dict[str, str]:
    """Read who was told what in the end, from the outbox itself; nobody may be told twice."""
    messages = [json.loads(line) for line in (store / "outbox.jsonl").read_text().splitlines()]
    last = [m for m in messages if m["subject"] in set(Status)]
    assert len({m["key"] for m in messages}) == len(messages)
    assert len({m["document"] for m in last}) == len(last)
    return {m["document"]: m["subject"] for m in last}


def test_a_run_ends_with_exact_totals(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"

    done = run(folder, "--store", store)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "exact: every status" in done.stdout
    assert endings(store) == STATUSES
    assert len(list((store / "results").glob("*.json"))) == 15


def test_a_killed_run_is_resumed_and_ends_with_the_same_totals(
    folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    done = run(folder, "--kill", "--store", store)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"killed with SIGKILL (exit code -{signal.SIGKILL.value})" in done.stdout
    assert "resuming batch" in done.stdout
    assert "exact: every status" in done.stdout
    assert endings(store) == STATUSES
    assert len(list((store / "results").glob("*.json"))) == 15


def test_a_finished_batch_is_not_processed_again(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(folder, "--store", store)
    before = (store / "outbox.jsonl").read_bytes()

    again = run(folder, "--store", store)

    assert again.returncode == 0, again.stdout + again.stderr
    assert "is done already" in again.stdout
    assert (store / "outbox.jsonl").read_bytes() == before


def test_changed_documents_are_a_new_batch_on_the_same_store(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(folder, "--store", store)
    (folder / "plain.txt").write_text("Other words.\n")

    again = run(folder, "--store", store)

    assert again.returncode == 0, again.stdout + again.stderr
    assert "is done already" not in again.stdout
    assert len(list((store / "results").glob("*.json"))) == 30


def test_without_a_store_nothing_is_left_behind(folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "examples.documents", str(folder / "more"), "--limit", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 documents" in done.stdout
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/missing"], "there is no folder"),
        (["{tmp}/empty"], "no documents in"),
        (["{tmp}/file.txt"], "is a file"),
        (["{tmp}", "--limit", "0"], "--limit must be from 1 to 2,000"),
        (["{tmp}", "--limit", "2001"], "--limit must be from 1 to 2,000"),
        (["{tmp}", "--store", "{tmp}/file.txt/store"], "cannot be used"),
        (["{tmp}", "--limit", "many"], "invalid int value"),
    ],
)
def test_bad_arguments_are_refused_with_a_message(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")

    done = run(*(argument.format(tmp=tmp_path) for argument in arguments))

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# The parts, without a hub.


def test_the_direct_computation_gives_what_is_written_down(folder: Path, tmp_path: Path) -> None:
    batch = make_batch(documents_in(folder, 100), tmp_path)

    totals = compute(batch)

    assert totals.statuses == STATUSES
    assert totals.words["durable"] == 2 + 1 + 2 + 1 + 12
    assert totals.words["hidden"] == 0


def complete_run(folder: Path, tmp_path: Path) -> tuple[Batch, Totals, Desk, dict[str, int]]:
    """Give a batch with a desk and counters as a perfect run leaves them."""
    batch = make_batch(documents_in(folder, 100), tmp_path)
    expected = compute(batch)
    desk = Desk(tmp_path)
    for document in batch.documents:
        key = f"{document.instance_id}/1/1"
        status = expected.statuses[document.document_id]
        if status is Status.COMPLETED:
            desk.store(document.instance_id, key, {})
        desk.send(key, status, {"document": document.document_id})
    counters = {"pending": 0, "completed": 15, "rejected": 2, "timeout": 1, "failed": 2 + 1}
    return batch, expected, desk, counters


def test_a_perfect_run_has_no_differences(folder: Path, tmp_path: Path) -> None:
    batch, expected, desk, counters = complete_run(folder, tmp_path)

    assert differences(expected, expected, counters | {"failed": 2}, desk, batch) != []
    assert differences(expected, expected, dict(counters), desk, batch) == []
