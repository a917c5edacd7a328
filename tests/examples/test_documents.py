"""The document pipeline as real processes: exact totals, also when it is killed in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
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

COMPLETED = 16


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


def test_the_example_says_what_it_takes() -> None:
    told = run("--help")

    assert told.returncode == 0, told.stderr
    assert re.search(r"when \d+% of\s+the documents have ended", told.stdout)


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
    assert len(list((store / "results").glob("*.json"))) == COMPLETED


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
    assert len(list((store / "results").glob("*.json"))) == COMPLETED


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
    assert len(list((store / "results").glob("*.json"))) == 2 * COMPLETED


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


@pytest.fixture
def perfect(folder: Path, tmp_path: Path) -> tuple[Batch, Totals, dict[str, int], Desk]:
    """A batch with its totals, counters and desk as a perfect run leaves them."""
    batch = make_batch(documents_in(folder, 100), tmp_path)
    totals = compute(batch)
    desk = Desk(tmp_path)
    for document in batch.documents:
        key = f"{document.instance_id}/1/1"
        status = totals.statuses[document.document_id]
        if status is Status.COMPLETED:
            desk.store(document.instance_id, key, {})
        desk.send(key, status, {"document": document.document_id})
    counters = {"pending": 0, "completed": COMPLETED, "rejected": 2, "timeout": 1, "failed": 2}
    return batch, totals, counters, desk


Perfect = tuple[Batch, Totals, dict[str, int], Desk]


def test_a_perfect_run_has_no_differences(perfect: Perfect) -> None:
    batch, totals, counters, desk = perfect

    wrong = differences(totals, totals, counters, desk, batch)

    assert wrong == []


def test_each_deviation_from_the_direct_computation_is_found(perfect: Perfect) -> None:
    batch, totals, counters, desk = perfect
    statuses, words = totals.statuses, totals.words
    plain = next(d for d in batch.documents if d.document_id == "plain.txt")

    def found(totals_found: Totals, counters_found: dict[str, int]) -> list[str]:
        return differences(totals, totals_found, counters_found, desk, batch)

    other_status = found(Totals({**statuses, "plain.txt": Status.FAILED}, words), counters)
    lost = found(Totals({n: s for n, s in statuses.items() if n != "rude.txt"}, words), counters)
    invented = found(Totals({**statuses, "new.txt": Status.FAILED}, words), counters)
    word_lost = found(Totals(statuses, words - Counter(["durable"])), counters)
    word_twice = found(Totals(statuses, words + Counter(["durable"])), counters)
    counted_twice = found(totals, {**counters, "completed": COMPLETED + 1})
    left_pending = found(totals, {**counters, "pending": 1})
    desk.send("again", "completed", {"document": "plain.txt"})
    stranger = found(totals, counters)
    desk.send(f"{plain.instance_id}/1/2", "completed", {"document": "plain.txt"})
    told_twice = found(totals, counters)
    (desk.results / f"{plain.instance_id}.json").unlink()
    result_lost = found(totals, counters)

    assert other_status == ["plain.txt should be completed and is failed"]
    assert lost == ["rude.txt should be rejected and is None"]
    assert invented == ["new.txt is no document"]
    assert word_lost == ["'durable' occurs 18 times, not 17"]
    assert word_twice == ["'durable' occurs 18 times, not 19"]
    assert len(counted_twice) == len(left_pending) == 1
    assert stranger == []  # another batch's message
    assert told_twice == [
        "the owner of plain.txt should be told 'completed' 1 times, and was 2 times"
    ]
    assert result_lost[0] == f"{COMPLETED} results should be stored, and {COMPLETED - 1} are"
    assert result_lost[1:] == told_twice


def test_the_desk_does_nothing_twice_under_one_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    sent = [desk.send("a/1", "completed", {"n": n}) for n in range(2)]
    stored = [desk.store("a", "a/1", {"n": n}) for n in range(2)]

    assert sent == stored == [True, False]
    assert desk.messages() == [{"key": "a/1", "subject": "completed", "n": 0}]
    assert json.loads((desk.results / "a.json").read_text()) == {"key": "a/1", "n": 0}


def test_the_desk_remembers_its_keys_and_cuts_a_torn_line_off(tmp_path: Path) -> None:
    Desk(tmp_path).send("a/1", "completed", {})
    with (tmp_path / "outbox.jsonl").open("a") as outbox:
        outbox.write('{"key": "b/1", "sub')

    desk = Desk(tmp_path)
    sent = [desk.send(key, "failed", {}) for key in ("a/1", "b/1")]

    assert sent == [False, True]
    assert [message["key"] for message in desk.messages()] == ["a/1", "b/1"]


def test_the_desk_counts_each_ending_once(tmp_path: Path) -> None:
    counts: list[int] = []
    desk = Desk(tmp_path)
    desk.on_ending = counts.append

    desk.send("a/1", "review", {})
    desk.send("a/2", "completed", {})
    desk.send("a/2", "completed", {})
    desk.send("b/1", "failed", {})

    assert counts == [1, 2]


def test_text_is_extracted_from_code_and_markup(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text('"""Module."""\nx = "# no comment"  # a comment\ndef f():\n    "Function."\n')
    page = tmp_path / "page.html"
    page.write_text("<title>Title</title><script>if (a < b) {}</script><p>A &lt; <b>B</b></p>")

    texts = [extract(path).text for path in (code, page)]

    assert texts == ["Module.\nFunction.\na comment", "Title\nA <\nB"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zero.txt", b"a\0b"),
        ("latin.txt", "déjà".encode("latin-1")),
        ("half.txt", "é".encode()[:1]),
        ("odd.txt", b"\xff\xfea"),
        ("syntax.py", b"def (:"),
        ("zero.py", b"x = 1\0"),
        ("cookie.py", b"# -*- coding: nonsense -*-\n"),
        ("deep.py", b"(" * 5_000 + b")" * 5_000),
        ("large.txt", b"a" * 400_001),
    ],
)
def test_what_cannot_be_read_is_an_extraction_error(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(ExtractionError):
        extract(path)


def test_words_are_split_by_shard_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Durable actors outlast crashes; durable ACTORS outlast everything, Größe too")

    shards = extract(path).words

    assert len(shards) == SHARDS
    assert sum(map(Counter, shards), Counter[str]()) == Counter(words_of(path.read_text()))
    assert Counter(words_of(path.read_text()))["actors"] == 2


@pytest.mark.parametrize(
    ("text", "issues"),
    [
        ("nothing to see", []),
        ("AKIA" + "A" * 16, [Issue("secret", 1)]),
        ("a@example.org and b@example.org", [Issue("address", 2)]),
        ("TODO " * 4, []),
        ("FIXME " * 5, [Issue("marker", 5)]),
        ("an ugly thing", []),
        ("an ugly, evil thing", [Issue("forbidden word", 2)]),
        (("x" * 121 + "\n") * 10, [Issue("long line", 10)]),
        ("αβγδ", [Issue("non-ASCII share", 4)]),
        ("", []),
    ],
)
def test_rules_find_what_they_are_about(text: str, issues: list[Issue]) -> None:
    validation = validate(text, 1.0)

    assert validation.issues == issues
    assert validation.is_compliant == (not issues)
    assert validation.requires_review == bool(issues)


def test_a_text_that_is_hardly_printable_is_reviewed_without_an_issue() -> None:
    validation = validate("text", 0.5)

    assert validation.is_compliant
    assert validation.requires_review


def test_the_rules_service_turns_some_first_attempts_away_and_no_second_one() -> None:
    requests = [CheckRequest(f"document-{n}", "text", 1.0) for n in range(70)]

    def is_turned_away(request: CheckRequest, attempt: int) -> bool:
        try:
            ask_service(request, attempt)
        except RulesServiceBusyError:
            return True
        return False

    first = sum(is_turned_away(request, 1) for request in requests)
    second = sum(is_turned_away(request, 2) for request in requests)

    assert 0 < first < len(requests)
    assert second == 0


def test_the_reviewer_leaves_secrets_alone_and_decides_the_rest() -> None:
    assert decide([Issue("secret", 1), Issue("address", 9)]) is None
    for issues, approved in (
        ([Issue("address", 2)], True),
        ([Issue("address", 3)], False),
        ([Issue("forbidden word", 2)], False),
        ([Issue("marker", 50)], True),
        ([], True),
    ):
        decision = decide(issues)
        assert decision is not None
        assert decision.approved is approved


def test_everyday_documents_end_in_every_way(tmp_path: Path) -> None:
    batch = make_batch(everyday_documents(tmp_path, 60), tmp_path)

    totals = compute(batch)

    assert len(batch.documents) == 60
    assert set(totals.statuses.values()) == set(Status)
    assert {name.partition("/")[0] for name in totals.statuses} == {"inbox", "project", "stdlib"}


def test_a_batch_is_named_by_names_and_contents(folder: Path, tmp_path: Path) -> None:
    first = make_batch(documents_in(folder, 100), tmp_path)
    same = make_batch(documents_in(folder, 100), tmp_path)
    (folder / "plain.txt").write_text("changed")

    changed = make_batch(documents_in(folder, 100), tmp_path)

    assert first == same
    assert changed.batch_id != first.batch_id


def test_a_limit_takes_documents_from_the_whole_folder(folder: Path) -> None:
    names = [name for name, _ in documents_in(folder, 3)]

    assert names == ["binary.txt", "more/02.txt", "more/09.txt"]


def test_served_on_a_terminal_it_ends_with_an_address_and_off_one_with_its_results(
    folder: Path, tmp_path: Path
) -> None:
    ended = run(folder, "--store", tmp_path / "store", "--serve")
    ours, theirs = os.openpty()
    arguments = ["--store", str(tmp_path / "store"), "--serve", "--plain"]
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.documents", str(folder), *arguments],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        os.close(theirs)
        shown = b""
        while not (found := re.search(rb"http://127\.0\.0\.1:\d+", shown)):
            shown += os.read(ours, 65_536)
        health = httpx.get(f"{found[0].decode()}/healthz").status_code
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)

    assert ended.returncode == 0
    assert "http://" not in ended.stdout
    assert health == 200
    assert status == 0
