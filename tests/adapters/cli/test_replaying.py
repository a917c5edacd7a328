from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import anyio
import orjson
import pytest

from perdure import connect, read_store
from perdure.testing import record
from tests.adapters.cli.shop import Ended, Run

SHOP = "tests.adapters.cli.shop:app"

CHANGED = """\
from typing import Any
from perdure import App, OrchestrationContext
app = App("shop")

@app.entity
class Counter:  # which has been a number
    value: list[int] = []

@app.activity
async def hang(text: str) -> None: ...

@app.orchestration
async def wait_for_go(ctx: OrchestrationContext) -> Any:
    await ctx.call_activity(hang, "")
    return await ctx.wait_for_external_event("Go")

@app.orchestration
async def work(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(hang, "other words, at length, so that a line of it has no room " * 3)
"""

Check = Callable[..., Ended]


@pytest.fixture
def check(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """Run ``perdure check --replay`` on a screen of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run_check(place: str, app: str, form: str = "text") -> Ended:
        return run("check", "--replay", place, app, "--format", form, "--jobs", "1")

    return run_check


@pytest.fixture
def changed(tmp_path: Path) -> str:
    file = tmp_path / "changed.py"
    file.write_text(CHANGED, "utf-8")
    return f"{file}:app"


def test_code_that_goes_on_with_all_ends_with_status_0(check: Check, stopped: str) -> None:
    ended = check(stopped, SHOP)

    assert ended.status == 0
    words = " ".join(ended.out.split())
    assert words.startswith("Nothing found in 2 live instances and 1 entity of sqlite:")
    assert ended.err == ""


def test_what_would_break_is_told_with_its_line_on_80_columns(
    check: Check, stopped: str, changed: str
) -> None:
    ended = check(stopped, changed)

    assert ended.status == 1
    assert all(len(line) <= 80 for line in ended.out.splitlines() if " " in line.strip())
    assert ended.out.splitlines()[:4] == [
        "WHAT        NAME         ACTORS  LINE",
        "differs     wait_for_go  1       changed.py:14",
        "differs     work         1       changed.py:19",
        "unreadable  counter      1       changed.py:5",
    ]
    assert "differs: work, changed.py:19" in ended.out
    assert '    await ctx.call_activity(hang, "other words, at length,' in ended.out
    assert "  recorded  TaskScheduled(1, 'hang'" in ended.out
    assert "  done      TaskScheduled(1, 'hang'" in ended.out
    assert '  since     its input was "x", and is "other words' in ended.out
    assert "  1 actor: works (event 1)" in ended.out
    assert "unreadable: counter" in ended.out
    assert "at $.value" in ended.out
    assert "Found 3 problems in 2 live instances and 1 entity" in ended.out


def test_findings_are_given_as_a_json_array(check: Check, stopped: str, changed: str) -> None:
    ended = check(stopped, changed, "json")

    _, works, counter = orjson.loads(ended.out)
    file = changed.removesuffix(":app")
    assert ended.status == 1
    assert (works["code"], works["actor"], works["position"]) == ("replay-differs", "works", 1)
    assert works["filename"] == file
    assert works["location"] == {"row": 19, "column": 1}
    assert works["recorded"].startswith("TaskScheduled(1, 'hang'")
    assert (counter["code"], counter["actor"]) == ("replay-unreadable", "@counter@a")


def test_json_is_asked_for_as_of_other_commands(run: Run, stopped: str, changed: str) -> None:
    ended = run("check", changed, "--replay", stopped, "--json", "--limit", "20")

    assert ended.status == 1
    assert len(orjson.loads(ended.out)) == 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("src",), "one application"),
        ((SHOP, "src"), "one application"),
        ((SHOP, "--select", "PDU001"), "are for rules"),
    ],
)
def test_what_a_replay_cannot_take_is_refused(
    run: Run, stopped: str, arguments: tuple[str, ...], why: str
) -> None:
    ended = run("check", "--replay", stopped, *arguments)

    assert ended.status == 2
    assert why in ended.err


def test_no_findings_are_an_empty_json_array(check: Check, stopped: str) -> None:
    assert check(stopped, SHOP, "json") == (0, "[]\n", "")


def test_lines_are_annotated_for_github(check: Check, stopped: str, changed: str) -> None:
    ended = check(stopped, changed, "github")

    _, first, second = ended.out.splitlines()
    assert ended.status == 1
    assert first.startswith("::error title=perdure (replay-differs),file=")
    assert ",line=19::1 actor of work, such as works (event 1): it no longer matches" in first
    assert second.startswith("::error title=perdure (replay-unreadable)")


def test_a_hub_that_runs_is_asked(
    check: Check, place: str, changed: str, live_instance: str
) -> None:
    same = check(place, SHOP)
    other = check(place, changed, "json")

    assert same.status == 0, same
    assert "not looked at: the messages that wait" in same.err
    assert other.status == 1
    found = {one["actor"]: one["code"] for one in orjson.loads(other.out)}
    assert found[live_instance] == "replay-differs"


@pytest.fixture
def live_instance(place: str) -> str:
    """An instance of the running hub that calls an activity."""

    async def start() -> None:
        async with connect(place, key="sesame" if "http" in place else None) as client:
            await client.start_new("work", instance_id="replayed", on_existing="reuse")
            with anyio.fail_after(20):
                while not await client.count(
                    waiting_for="activity:hang", instance_id_prefix="replayed"
                ):
                    await anyio.sleep(0.005)

    anyio.run(start)
    return "replayed"


def test_recorded_histories_are_replayed(
    check: Check, stopped: str, changed: str, tmp_path: Path
) -> None:
    async def write() -> None:
        async with read_store(stopped) as client:
            await record(client, tmp_path / "histories")

    anyio.run(write)

    same = check(str(tmp_path / "histories"), SHOP)
    other = check(str(tmp_path / "histories"), changed, "json")
    one = check(str(tmp_path / "histories" / "works.json"), changed, "json")

    assert same.out.startswith("Nothing found in 3 recorded histories of")
    assert {found["actor"]: found["code"] for found in orjson.loads(other.out)} == {
        "works": "replay-differs",
        "waits": "replay-differs",
        "ended": "replay-unregistered",
    }
    assert [found["actor"] for found in orjson.loads(one.out)] == ["works"]


def test_where_it_cannot_look_it_says_why_and_ends_with_status_2(
    check: Check, stopped: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "x.json").write_text("{}")

    for place, app, why in (
        (stopped, str(tmp_path / "bad.py:app"), "RuntimeError: not today"),
        (stopped, "nowhere_at_all:app", "there is no module 'nowhere_at_all'"),
        (f"sqlite:{tmp_path / 'none'}", SHOP, "no hub has its files in"),
        (str(tmp_path / "none"), SHOP, "is none of these"),
        ("", SHOP, "--replay is empty"),
        (str(tmp_path / "empty"), SHOP, "has no recorded histories in it"),
        (str(tmp_path / "wrong"), SHOP, "is no recorded history of form 1"),
        ("http://127.0.0.1:9", SHOP, "127.0.0.1:9"),
    ):
        ended = check(place, app)

        assert (ended.status, ended.out) == (2, ""), ended
        assert why in ended.err
        assert len(ended.err.splitlines()) == 1


class Terminal(io.StringIO):
    """A screen that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_shows_how_far_it_has_come(
    check: Check, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    ended = check(stopped, SHOP)

    assert ended.status == 0
    assert "looking at live instances" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    assert "looking at" not in ended.out
