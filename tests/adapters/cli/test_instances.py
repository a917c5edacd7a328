from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta, timezone
from typing import cast

import pytest

from tests.adapters.cli.shop import Live, Run


def shown_as(value: object) -> str:
    return " ".join(map(str, cast("tuple[str, ...]", value))) if type(value) is tuple else ""


@pytest.fixture
def id() -> str:
    """An id that no other test uses."""
    return uuid.uuid4().hex


def test_what_is_started_is_waited_for_and_its_output_printed(run: Run, place: str) -> None:
    started = run("start", place, "double", "21", "--wait", "20")
    failed = run("start", place, "fail", "--wait", "20")

    assert started == (0, "42\n", "")
    assert failed.status == 1
    assert failed.out == ""
    assert "is Failed: ValueError: it was to fail" in failed.err


def test_a_start_takes_an_id_tags_and_a_time_and_prints_the_id(
    run: Run, place: str, id: str
) -> None:
    started = run(
        *("start", place, "double", "21", "--id", id, "--at", "1h", "--tag", "team=blue"),
        *("--tag", f"test={id}"),
    )
    [status] = run("list", place, "--tag", f"test={id}", "--json").values

    assert started == (0, f"{id}\n", "")
    assert status["tags"] == {"team": "blue", "test": id}
    assert status["runtime_status"] == "Pending"


def test_a_start_over_a_live_instance_is_refused_or_takes_it(run: Run, place: str, id: str) -> None:
    run("start", place, "wait_for_go", "--id", id)

    refused = run("start", place, "wait_for_go", "--id", id)
    reused = run("start", place, "wait_for_go", "--id", id, "--on-existing", "reuse")

    assert refused.status == 1
    assert id in refused.err
    assert reused == (0, f"{id}\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("start", "duble"), 3, "duble"),
        (("start", "double", "x"), 2, "a text needs quotes"),
        (("start", "double", '"x"'), 2, "int"),
        (("start", "double", "1", "--at", "soon"), 2, "--at takes a time"),
        (("start", "double", "1", "--tag", "blue"), 2, "--tag takes KEY=VALUE"),
        (("list", "--status", "Runing"), 2, "one of Pending, Running"),
        (("list", "--created-from", "yesterday"), 2, "--created-from takes a time"),
        (("show", "nobody"), 3, "nobody"),
        (("history", "nobody"), 3, "nobody"),
        (("explain", "nobody"), 3, "nobody"),
        (("wait", "nobody"), 3, "nobody"),
        (("raise-event", "nobody", "Go"), 3, "nobody"),
        (("cancel", "nobody"), 3, "nobody"),
        (("terminate", "nobody", "--yes"), 3, "nobody"),
        (("suspend", "nobody"), 3, "nobody"),
        (("resume", "nobody"), 3, "nobody"),
        (("rewind", "nobody"), 3, "nobody"),
        (("restart", "nobody"), 3, "nobody"),
        (("fork", "nobody", "--at", "0"), 3, "nobody"),
        (("purge", "nobody", "--yes"), 3, "nobody"),
        (("purge", "--yes"), 2, "either an ID or conditions"),
        (("retry", "nobody"), 3, "nobody"),
    ],
    ids=shown_as,
)
def test_what_is_refused_is_said_in_a_line_and_by_the_status(
    run: Run, live: Live, arguments: tuple[str, ...], status: int, said: str
) -> None:
    command, *rest = arguments

    ended = run(command, live.socket, *rest)

    assert ended.status == status
    assert ended.out == ""
    assert ended.err.startswith("perdure: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_instances_are_listed_by_conditions_newest_first(run: Run, place: str, id: str) -> None:
    for number in range(3):
        run("start", place, "wait_for_go", "--id", f"{id}-{number}")
    run("start", place, "double", "1", "--id", f"{id}-9", "--wait", "20")

    waiting = run("list", place, "--prefix", id, "--status", "running,Pending", "--json").values
    two = run("list", place, "--prefix", id, "--order", "oldest", "--limit", "2", "--json")
    shown = run("list", place, "--prefix", id, "--name", "wait_for_go")
    count = run("list", place, "--prefix", id, "--count")
    recent = run("list", place, "--prefix", id, "--created-from", "1h", "--count", "--json")
    old = run("list", place, "--prefix", id, "--created-to", "1h")

    assert [one["instance_id"] for one in waiting] == [f"{id}-{n}" for n in (2, 1, 0)]
    assert [one["instance_id"] for one in two.values] == [f"{id}-0", f"{id}-1"]
    assert "more than 2" in two.err
    head, *rows = shown.out.splitlines()
    assert head.split() == ["ID", "NAME", "STATUS", "CREATED", "UPDATED"]
    assert [row.split()[:3] for row in rows] == [
        [f"{id}-{n}", "wait_for_go", "Running"] for n in (2, 1, 0)
    ]
    assert count.out == "4\n"
    assert recent.value() == {"count": 4}
    assert old == (0, "", "no instance is found\n")


def test_instances_are_listed_by_what_they_wait_for(run: Run, place: str, id: str) -> None:
    run("start", place, "wait_for_go", "--id", f"{id}-event")
    run("start", place, "work", "--id", f"{id}-activity")

    by_event = run("list", place, "--prefix", id, "--waiting-for", "event:Go", "--json").values
    by_activity = run("list", place, "--prefix", id, "--waiting-for", "activity:hang", "--json")
    tried = run("list", place, "--prefix", id, "--min-attempts", "2")
    wrong = run("list", place, "--waiting-for", "godot")
    run("terminate", place, f"{id}-activity", "--yes")

    assert [one["instance_id"] for one in by_event] == [f"{id}-event"]
    assert by_activity.value()["instance_id"] == f"{id}-activity"
    assert tried.out == ""
    assert wrong.status == 2


def test_a_list_fits_a_terminal_of_80_columns_with_every_id_whole(
    run: Run, place: str, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        run("start", place, "wait_for_go", "--id", f"{id}-{'x' * 20 * number}")
    monkeypatch.setenv("COLUMNS", "80")

    shown = run("list", place, "--prefix", id).out
    short = run("list", place, "--prefix", f"{id}-", "--order", "oldest", "--limit", "1").out

    assert f"{id}-{'x' * 20}\n" in shown  # each row is some lines, since no table fits
    assert max(map(len, shown.splitlines())) <= 80
    assert short.splitlines()[0].split() == ["ID", "NAME", "STATUS", "CREATED", "UPDATED"]
    assert max(map(len, short.splitlines())) <= 80


def test_more_than_a_page_is_listed_where_all_are_asked_for(
    run: Run, place: str, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.adapters.cli.instances._PAGE", 2)
    for number in range(5):
        run("start", place, "double", "1", "--id", f"{id}-{number}")

    listed = run("list", place, "--prefix", id, "--limit", "0", "--json").values

    assert len({one["instance_id"] for one in listed}) == len(listed) == 5


def test_an_instance_is_shown_with_what_it_was_given_and_gave(
    run: Run, place: str, id: str
) -> None:
    run("start", place, "double", "4", "--id", id, "--wait", "20")

    shown = run("show", place, id)
    status = run("show", place, id, "--json").value()

    fields = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (fields["id"], fields["name"], fields["status"]) == (id, "double", "Completed")
    assert (fields["input"], fields["output"]) == ("4", "8")
    today = datetime.now(timezone(timedelta())).astimezone()
    assert f"{today:%Y-}" in fields["created"]
    assert "ago)" in fields["created"] or "(now)" in fields["created"]
    assert (status["instance_id"], status["output"]) == (id, 8)


def test_a_history_is_shown_from_either_end(run: Run, place: str, id: str) -> None:
    run("start", place, "double", "4", "--id", id, "--wait", "20")

    shown = run("history", place, id)
    newest = run("history", place, id, "--order", "newest", "--limit", "1")
    events = run("history", place, id, "--json").values

    assert [event["event_type"] for event in events] == ["ExecutionStarted", "ExecutionCompleted"]
    assert shown.out.index("ExecutionStarted") < shown.out.index("ExecutionCompleted")
    assert "name=double" in shown.out
    assert newest.out.split()[0] == "1"
    assert "ExecutionCompleted" in newest.out
    assert "these are 1 of 2" in newest.err


def test_what_an_instance_waits_for_is_explained_with_its_line(
    run: Run, place: str, id: str
) -> None:
    run("start", place, "wait_for_go", "--id", id)

    shown = run("explain", place, id)
    found = run("explain", place, id, "--json").value()

    assert f"{id}  wait_for_go, Running" in shown.out
    assert "Go, since" in shown.out
    assert "tests/adapters/cli/shop.py:" in shown.out
    assert 'return await ctx.wait_for_external_event("Go")' in shown.out
    assert found["events"][0]["name"] == "Go"


def test_a_pending_activity_is_explained_with_its_attempt(run: Run, place: str, id: str) -> None:
    run("start", place, "work", "--id", id)

    shown = run("explain", place, id)
    run("terminate", place, id, "--yes")

    assert "activities (1)" in shown.out
    assert "hang, attempt 1" in shown.out


def test_an_event_goes_to_the_instance_that_is_waited_for(run: Run, place: str, id: str) -> None:
    run("start", place, "wait_for_go", "--id", id)

    late = run("wait", place, id, "--timeout", "0.05")
    raised = run("raise-event", place, id, "Go", '{"n": 1}')
    ended = run("wait", place, id, "--timeout", "20")
    status = run("wait", place, id, "--json").value()

    assert late.status == 5
    assert f"{id} has not ended within 0.05 seconds: it is Running" in late.err
    assert raised == (0, f"sent Go to {id}\n", "")
    assert ended == (0, '{"n":1}\n', "")
    assert status["output"] == {"n": 1}


def test_an_instance_is_suspended_resumed_and_cancelled(run: Run, place: str, id: str) -> None:
    run("start", place, "wait_for_go", "--id", id)

    suspended = run("suspend", place, id, "--reason", "audit")
    shown = run("show", place, id)
    resumed = run("resume", place, id)
    cancelled = run("cancel", place, id, "--reason", "enough")
    ended = run("wait", place, id)

    assert (suspended.status, resumed.status, cancelled.status) == (0, 0, 0)
    assert "suspended  audit" in shown.out
    assert ended.status == 1
    assert f"{id} is Canceled" in ended.err


def test_what_cannot_be_taken_back_is_done_only_where_that_is_said(
    run: Run, place: str, id: str
) -> None:
    run("start", place, "wait_for_go", "--id", id)

    asked = [
        run("terminate", place, id),
        run("purge", place, id),
        run("rewind", place, id, "--force"),
        run("purge", place, "--prefix", id),
        run("purge", place, "@counter@nobody"),
    ]
    still = run("show", place, id, "--json").value()
    terminated = run("terminate", place, id, "--yes", "--reason", "enough")
    after = run("show", place, id, "--json").value()
    purged = run("purge", place, id, "--yes")
    gone = run("show", place, id)

    assert [one.status for one in asked] == [2] * 5
    assert all("--yes" in one.err for one in asked)
    assert still["runtime_status"] == "Running"
    assert terminated == (0, f"terminated {id}\n", "")
    assert after["runtime_status"] == "Terminated"
    assert purged == (0, "deleted 1\n", "")
    assert gone.status == 3


def test_ended_instances_are_purged_by_conditions(run: Run, place: str, id: str) -> None:
    for number in range(2):
        run("start", place, "double", "1", "--id", f"{id}-{number}", "--wait", "20")
    run("start", place, "wait_for_go", "--id", f"{id}-live")

    purged = run("purge", place, "--prefix", id, "--yes", "--json")
    rest = run("list", place, "--prefix", id, "--json").values

    assert purged.value() == {"deleted": 2}
    assert [one["instance_id"] for one in rest] == [f"{id}-live"]


def test_a_failed_instance_is_shown_with_the_line_that_failed_unless_over_http(
    run: Run, place: str, id: str
) -> None:
    run("start", place, "fail", "--id", id, "--wait", "20")

    shown = run("show", place, id).out
    whole = run("show", place, id, "--all-frames").out

    assert "ValueError: it was to fail\n" in shown
    ours = re.compile(r"perdure[/\\](actors|runtime)[/\\]")
    assert ours.search(shown) is None
    assert bool(ours.search(whole)) is not place.startswith("http")
    is_local = not place.startswith("http")  # whose server was not told to expose errors
    assert ('raise ValueError("it was to fail")' in shown) is is_local
    assert ("\n\ntraceback\n  File " in shown) is is_local


def test_a_failed_instance_is_rewound_and_an_ended_one_restarted(
    run: Run, place: str, id: str
) -> None:
    run("start", place, "fail", "--id", id, "--wait", "20")
    run("start", place, "double", "5", "--id", f"{id}-ended", "--wait", "20")

    rewound = run("rewind", place, id)
    again = run("restart", place, f"{id}-ended")
    same = run("restart", place, f"{id}-ended", "--same-id")
    result = run("wait", place, again.out.strip())

    assert rewound.status in (0, 1)  # it may have failed once more
    assert again.status == same.status == 0
    assert again.out.strip() != f"{id}-ended"
    assert same.out.strip() == f"{id}-ended"
    assert result.out == "10\n"


def test_an_instance_is_forked(run: Run, place: str, id: str) -> None:
    run("start", place, "wait_for_go", "--id", id)

    forked = run("fork", place, id, "--at", "0", "--id", f"{id}-fork")
    refused = run("fork", place, id, "--at", "7")
    unknown = run("fork", place, id)
    run("raise-event", place, f"{id}-fork", "Go", "5")
    result = run("wait", place, f"{id}-fork")

    assert (forked.status, forked.out) == (0, f"{id}-fork\n")
    assert refused.status == 1
    assert "its history has the events 0 to 0" in " ".join(refused.err.split())
    assert unknown.status == 2
    assert result.out == "5\n"
