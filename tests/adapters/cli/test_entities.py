from __future__ import annotations

import uuid

import pytest

from tests.adapters.cli.shop import Run


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return uuid.uuid4().hex


def test_an_entity_is_signalled_called_and_shown(run: Run, place: str, key: str) -> None:
    signalled = run("signal", place, f"@counter@{key}", "add", "5")
    called = run("call", place, f"@counter@{key}", "add", "3", "--timeout", "20")
    shown = run("entity", place, f"@counter@{key}")
    status = run("entity", place, f"@counter@{key}", "--json").value()
    explained = run("explain", place, f"@counter@{key}")

    assert signalled == (0, f"sent add to @counter@{key}\n", "")
    assert called == (0, "8\n", "")
    assert '{"value":8}' in shown.out
    assert status["state"] == {"value": 8}
    assert explained.out.startswith(f"@counter@{key}\n")


def test_entities_are_listed_by_conditions(run: Run, place: str, key: str) -> None:
    for number in range(3):
        run("call", place, f"@counter@{key}-{number}", "add", str(number))

    listed = run("entities", place, "--name", "counter", "--prefix", key, "--json").values
    shown = run("entities", place, "--prefix", key, "--limit", "2")
    locked = run("entities", place, "--prefix", key, "--locked")

    assert [one["state"]["value"] for one in listed] == [0, 1, 2]
    head, *rows = shown.out.splitlines()
    assert head.split() == ["ENTITY", "CHANGED", "STATE"]
    assert [row.split()[0] for row in rows] == [f"@counter@{key}-{n}" for n in (0, 1)]
    assert "more than 2" in shown.err
    assert locked.out == ""


def test_an_operation_that_fails_or_takes_too_long_is_said(run: Run, place: str, key: str) -> None:
    failed = run("call", place, f"@counter@{key}", "fail")
    late = run("call", place, f"@counter@{key}-slow", "hang", "--timeout", "0.1")
    unknown = run("call", place, f"@counter@{key}", "multiply", "2")
    malformed = run("call", place, "counter", "add", "2")

    assert failed.status == 1
    assert "it always fails" in failed.err
    assert late.status == 5
    assert "no answer from" in late.err
    assert unknown.status == 3
    assert malformed.status == 2


def test_an_entity_that_is_not_there_is_not_found_and_one_that_is_can_be_deleted(
    run: Run, place: str, key: str
) -> None:
    missing = run("entity", place, f"@counter@{key}")
    run("call", place, f"@counter@{key}", "add", "3")

    purged = run("purge", place, f"@counter@{key}", "--yes")
    gone = run("entities", place, "--prefix", key)

    assert missing.status == 3
    assert f"@counter@{key}" in missing.err
    assert purged == (0, f"deleted @counter@{key}\n", "")
    assert gone.out == ""


def test_a_signal_may_be_for_later(run: Run, place: str, key: str) -> None:
    run("call", place, f"@counter@{key}", "add", "1")

    run("signal", place, f"@counter@{key}", "add", "5", "--at", "1h")
    status = run("entity", place, f"@counter@{key}", "--json").value()

    assert status["state"] == {"value": 1}
