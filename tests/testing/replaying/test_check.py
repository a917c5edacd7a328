from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import attrs
import pytest

from perdure import Hub, Settings, UnavailableError, UsageError, connect
from perdure.testing.replaying.check import ReplayCount, check_replays
from perdure.testing.replaying.findings import ReplayFinding
from perdure.testing.replaying.rows import actor_of
from perdure.testing.replaying.sources import RunningSource, Source, open_files
from tests.testing.programs import load
from tests.testing.replaying.large import DIFFERS, fill
from tests.testing.replaying.stores import LIMIT_S, WAS, changed, leave_all, line


@attrs.frozen
class Checked:
    """What a check has found."""

    count: ReplayCount
    told: list[tuple[int, list[ReplayFinding]]]

    @property
    def findings(self) -> list[ReplayFinding]:
        return [one for _, some in self.told for one in some]

    def of(self, actor: str) -> ReplayFinding:
        [one] = [one for one in self.findings if one.actor == actor]
        return one


async def check(source: Source, app: str, *, jobs: int = 2, limit_s: float = LIMIT_S) -> Checked:
    told: list[tuple[int, list[ReplayFinding]]] = []

    def tell(count: ReplayCount, findings: list[ReplayFinding]) -> None:
        told.append((count.instances, findings))

    return Checked(await check_replays(source, app, tell, jobs=jobs, limit_s=limit_s), told)


#: What hangs is not waited for.
QUICK = Settings(drain_s=0.1)

#: What a mild program does not do.
DEADLY = ("timed_out", "crashed")


def kinds(checked: Checked) -> dict[str, str]:
    return {one.actor: one.kind for one in checked.findings if one.name != "exits"}


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        one.name: (one.read_bytes(), one.stat().st_mtime_ns)
        for one in folder.iterdir()
        if one.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replays")


@pytest.fixture(scope="module")
def left(folder: Path) -> tuple[Path, Path]:
    return leave_all(folder)


@pytest.fixture(scope="module")
def now(folder: Path) -> Path:
    file = folder / "now.py"
    file.write_text(changed(), "utf-8")
    return file


@pytest.fixture(scope="module")
def mild(folder: Path) -> Path:
    file = folder / "mild.py"
    file.write_text(changed(is_mild=True), "utf-8")
    return file


@pytest.fixture(scope="module")
def checked(left: tuple[Path, Path], now: Path) -> Checked:
    """The files of a hub that does not run, by the program of today."""

    async def run() -> Checked:
        async with open_files(left[0]) as source:
            return await check(source, f"{now}:app")

    return anyio.run(run)


def test_each_change_is_found_and_what_is_unchanged_is_not(checked: Checked) -> None:
    found = kinds(checked)

    assert found == {
        "renamed-1": "differs",
        "leaves-1": "differs",
        "hangs-1": "timed_out",
        "killed-1": "crashed",
        "forks-1": "crashed",
        "gone-1": "unregistered",
        "versioned-1": "unregistered",
        "retyped-1": "unreadable",
        "retyped-later": "unreadable",
        "@basket@a": "unreadable",
        "@till@a": "unregistered",
        "@stock@later": "unreadable",
        "@stock@held": "unreadable",
    }


def test_of_much_that_ends_its_process_some_is_tried_and_the_rest_named(checked: Checked) -> None:
    found = Counter(one.kind for one in checked.findings if one.name == "exits")

    assert found == {"crashed": 3, "skipped": 2}


def test_all_that_is_stored_is_counted(checked: Checked) -> None:
    count = checked.count

    assert (count.expected, count.instances) == (49, 49)
    assert count.entities >= 5
    assert count.messages >= 2
    assert count.broken == len(checked.findings)
    assert len({one.actor for one in checked.findings}) == count.broken  # each told once
    assert count.lacks is None


def test_a_difference_has_its_event_and_line(checked: Checked, now: Path) -> None:
    found = checked.of("renamed-1")

    assert found.position == 1
    assert found.recorded is not None
    assert found.recorded.startswith("TaskScheduled(1, 'reserve'")
    assert found.done is not None
    assert found.done.startswith("TaskScheduled(1, 'charge'")
    assert (found.file, found.line) == (str(now), line(now, "differs"))
    assert found.text == "await ctx.call_activity(charge, n)  # differs"


def test_code_that_raises_what_ends_a_process_is_told_with_its_line(
    checked: Checked, now: Path
) -> None:
    found = checked.of("leaves-1")

    assert found.message.startswith("SystemExit: 3; so it no longer matches")
    assert found.line == line(now, "leaves")


def test_code_that_hangs_is_told_with_the_line_where_it_does(checked: Checked, now: Path) -> None:
    found = checked.of("hangs-1")

    assert found.message == f"its code took longer than {LIMIT_S:g} s"
    assert found.position == 2  # the answer of the activity before
    assert (found.file, found.line) == (str(now), line(now, "hangs"))


def test_code_that_ends_its_process_is_told_with_how_and_its_last_words(checked: Checked) -> None:
    messages = {one.message for one in checked.findings if one.name == "exits"}

    assert messages == {
        "its code ended the process with status 7; printed last: these are its last words",
        "it was not looked at: 3 others of 'exits' have ended their process",
    }
    assert "by SIGKILL" in checked.of("killed-1").message


def test_what_cannot_be_read_is_told_with_where_it_is_declared(checked: Checked, now: Path) -> None:
    retyped, basket = checked.of("retyped-1"), checked.of("@basket@a")

    assert retyped.line == line(now, "retyped") - 1  # the line of the decorator
    assert "the input of orchestration 'retyped', at $" in retyped.message
    assert "at $.size" in basket.message
    assert basket.line == line(now, "basket") - 1
    assert "operation 'add', which waits for it" in checked.of("@stock@held").message


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes take their time
async def test_findings_come_in_the_order_of_the_rows_however_many_processes_look(
    tmp_path: Path,
) -> None:
    await fill(tmp_path / "hub", 1_500)
    now = tmp_path / "now.py"
    now.write_text(DIFFERS, "utf-8")

    async with open_files(tmp_path / "hub") as source:
        many = await check(source, f"{now}:app", jobs=3)
        rows = [row async for some in source.rows() for row in some]

    counts = [instances for instances, _ in many.told]
    assert [one.actor for one in many.findings] == [actor_of(row) for row in rows]
    assert (counts, counts[0], counts[-1]) == (sorted(counts), 0, 1_500)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no copies of a process")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes take their time
async def test_a_process_that_code_has_forked_answers_nothing(tmp_path: Path) -> None:
    await fill(tmp_path / "hub", 40)
    now = tmp_path / "now.py"
    forks = '    if ctx.instance_id == "one-3":\n        __import__("os").fork()\n    for number'
    now.write_text(DIFFERS.replace("    for number", forks), "utf-8")

    async with open_files(tmp_path / "hub") as source:
        found = await check(source, f"{now}:app", jobs=1)

    assert sorted(one.actor for one in found.findings) == sorted(f"one-{n}" for n in range(40))


@pytest.mark.by_turns
async def test_nothing_is_changed_by_a_check(left: tuple[Path, Path], mild: Path) -> None:
    stopped, copy = left
    before = contents(stopped), contents(copy)

    async with open_files(stopped) as source:
        await check(source, f"{mild}:app")
    async with open_files(copy) as source:
        await check(source, f"{mild}:app", jobs=1)

    assert (contents(stopped), contents(copy)) == before


@pytest.mark.by_turns
async def test_a_copy_of_a_hub_that_was_running_is_looked_at(
    left: tuple[Path, Path], mild: Path, checked: Checked
) -> None:
    async with open_files(left[1]) as source:
        copied = await check(source, f"{mild}:app")

    assert kinds(copied) == {
        actor: kind for actor, kind in kinds(checked).items() if kind not in DEADLY
    }


@pytest.mark.by_turns
async def test_the_program_as_it_was_breaks_nothing(
    left: tuple[Path, Path], tmp_path: Path
) -> None:
    _, was = load(WAS, tmp_path)

    async with open_files(left[0]) as source:
        found = await check(source, f"{was}:app", jobs=1)

    assert found.findings == []
    assert found.count.instances == 49


@pytest.mark.by_turns
async def test_a_running_hub_is_asked_by_pages_and_only_reads(
    left: tuple[Path, Path], tmp_path: Path, mild: Path, checked: Checked, copy_of: Copy
) -> None:
    app, _ = load(WAS, tmp_path)
    folder = copy_of(left[0])
    async with (
        Hub(app, store=folder, socket=folder / "hub.sock", settings=QUICK) as hub,
        connect(f"sqlite:{folder}") as client,
    ):
        before = {one.instance_id: one async for one in hub.client.query()}

        found = await check(RunningSource("there", client), f"{mild}:app")

        after = {one.instance_id: one async for one in hub.client.query()}
    messages = {"@stock@later", "@stock@held"}
    assert kinds(found) == {
        actor: kind
        for actor, kind in kinds(checked).items()
        if kind not in DEADLY and actor not in messages
    }
    renamed, before_copy = found.of("renamed-1"), checked.of("renamed-1")
    assert (renamed.position, renamed.done) == (before_copy.position, before_copy.done)
    assert found.count.lacks is not None
    assert before == after


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes take their time
async def test_an_application_that_cannot_be_imported_ends_the_check(
    left: tuple[Path, Path], tmp_path: Path
) -> None:
    for text, why in (
        ("import os\nos._exit(5)\n", "importing it ended the process with status 5"),
        ("1/0\n", r"ZeroDivisionError: division by zero .*bad\.py:1"),
        ("raise SystemExit\n", "cannot be imported: SystemExit"),
        ("app = 3\n", "is no perdure.App"),
    ):
        bad = tmp_path / "bad.py"
        bad.write_text(text)
        async with open_files(left[0]) as source:
            with pytest.raises(UsageError, match=why):
                await check(source, f"{bad}:app")


async def test_a_hub_that_begins_to_work_ends_the_check(
    left: tuple[Path, Path], mild: Path, copy_of: Copy
) -> None:
    folder = copy_of(left[0])
    async with open_files(folder) as source:
        (folder / "partition-01.sqlite").touch()

        with pytest.raises(UnavailableError, match="at work"):
            await check(source, f"{mild}:app", jobs=1)


@pytest.mark.by_turns
async def test_damaged_rows_are_told_and_the_others_are_looked_at(
    left: tuple[Path, Path], tmp_path: Path, copy_of: Copy
) -> None:
    _, was = load(WAS, tmp_path)
    folder = copy_of(left[0])
    with closing(sqlite3.connect(folder / "partition-01.sqlite")) as tables, tables:
        [(key, id), (other, other_id), *_] = tables.execute(
            "SELECT key, id FROM instance_row WHERE name = 'same' ORDER BY id"
        ).fetchall()
        tables.execute("UPDATE history_row SET body = '[1' WHERE instance = ?", (id,))
        tables.execute("UPDATE instance_row SET execution = 'x' WHERE id = ?", (other_id,))

    async with open_files(folder) as source:
        found = await check(source, f"{was}:app", jobs=1)

    assert {one.actor: one.kind for one in found.findings} == {key: "damaged", other: "damaged"}
    assert found.count.instances == 49


Copy = Callable[[Path], Path]


@pytest.fixture
def copy_of(tmp_path: Path) -> Copy:
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "hub"))
