from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import attrs
import orjson
import pytest

from perdure import (
    App,
    Client,
    EntityId,
    HistoryPage,
    Hub,
    InstanceNotFoundError,
    InvalidIdError,
    NondeterminismError,
    OrchestrationContext,
    OrchestrationStatus,
    PayloadError,
    UnavailableError,
    UnknownNameError,
    UsageError,
    connect,
)
from perdure.testing import TestHub, record, replay
from tests.testing.programs import CHANGED, UNCHANGED, Program, history_of, load, marked


@pytest.mark.parametrize("program", CHANGED, ids=lambda one: one.name)
def test_changed_code_is_refused_at_its_event_and_line(program: Program, tmp_path: Path) -> None:
    was, _ = load(program.was, tmp_path)
    now, file = load(program.now, tmp_path)
    recorded = tmp_path / "one.json"
    history = history_of(was, recorded)

    with pytest.raises(NondeterminismError) as caught:
        replay(recorded, now)
    with pytest.raises(NondeterminismError) as again:
        replay(history, now, instance_id="one", input=1 if "later" not in program.name else 3)

    assert (caught.value.position, caught.value.source) == (
        program.position,
        f"{file}:{marked(file)}",
    )
    assert caught.value.recorded.startswith(program.recorded)
    assert caught.value.produced.startswith(program.done)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("program", [*CHANGED, *UNCHANGED], ids=lambda one: one.name)
def test_code_that_does_what_it_did_is_silent(program: Program, tmp_path: Path) -> None:
    was, _ = load(program.was, tmp_path)
    now, _ = load(program.was if program.position is not None else program.now, tmp_path)
    recorded = tmp_path / "one.json"
    history_of(was, recorded)

    replayed = replay(recorded, now)

    assert (replayed.instance_id, replayed.name) == ("one", "flow")
    assert replayed.runtime_status == "Running"
    assert replayed.events == len(orjson.loads(recorded.read_bytes())["events"])


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("another input", "its input was 1, and is 2 now"),
        ("a field of another type", 'its input was {"number":1,"note":""}, and is {"number":"1"'),
        ("an activity renamed", None),
    ],
)
def test_where_only_the_input_differs_it_says_how(
    name: str, note: str | None, tmp_path: Path
) -> None:
    [program] = [one for one in CHANGED if one.name == name]
    was, _ = load(program.was, tmp_path)
    now, _ = load(program.now, tmp_path)
    history_of(was, tmp_path / "one.json")

    with pytest.raises(NondeterminismError) as caught:
        replay(tmp_path / "one.json", now)

    notes: list[str] = getattr(caught.value, "__notes__", [])
    assert len(notes) == (note is not None)
    assert notes == [] or notes[0].startswith(note or "")


def test_a_recorded_file_has_one_event_to_a_line(tmp_path: Path) -> None:
    was, _ = load(CHANGED[0].was, tmp_path)
    recorded = tmp_path / "one.json"
    history = history_of(was, recorded)

    lines = recorded.read_text("utf-8").splitlines()

    events = [line for line in lines if '"event_type"' in line]
    assert len(events) == len(history) == 5
    assert ' "input": 1,' in lines
    assert orjson.loads(recorded.read_bytes())["perdure_history"] == 1


app = App()


@app.orchestration
async def double(ctx: OrchestrationContext, n: int | None) -> int:
    if n is None:
        return 0
    await ctx.call_activity(halve, n)
    return 2 * n


@app.orchestration
async def breaks(ctx: OrchestrationContext, n: int = 5) -> None:
    await ctx.call_activity(halve, n)
    raise ValueError(n)


@app.activity
async def halve(n: int) -> int:
    ran.append(n)
    return n // 2


ran: list[int] = []


async def _ended(folder: Path) -> list[Path]:
    async with Hub(app) as hub:
        for instance_id, name, given in (
            ("a/b", "double", (3,)),
            ("null", "double", (None,)),
            ("bare", "breaks", ()),
        ):
            handle = await hub.client.start_new(name, *given, instance_id=instance_id)
            with anyio.fail_after(20):
                while not (await handle.status()).is_completed:
                    await anyio.sleep(0.001)
        return await record(hub.client, folder)


def test_histories_that_have_ended_are_replayed_to_their_end(tmp_path: Path) -> None:
    files = anyio.run(_ended, tmp_path / "recorded")
    ran.clear()

    replayed = {
        one.instance_id: one.runtime_status for one in (replay(file, app) for file in files)
    }

    assert replayed == {"a/b": "Completed", "null": "Completed", "bare": "Failed"}
    assert ran == []


def test_code_that_ends_otherwise_than_recorded_is_refused(tmp_path: Path) -> None:
    [file] = [one for one in anyio.run(_ended, tmp_path) if one.name.startswith("bare")]
    now = App()
    now.activity(halve)

    @now.orchestration(name="breaks")
    async def mended(ctx: OrchestrationContext, n: int = 5) -> None:
        await ctx.call_activity(halve, n)

    with pytest.raises(NondeterminismError) as caught:
        replay(file, now)

    assert caught.value.position == 3
    assert caught.value.recorded == "ExecutionCompleted('Failed')"
    assert caught.value.produced == "the end of the function (Completed)"


def test_code_that_fails_where_it_had_ended_is_refused_at_its_line(tmp_path: Path) -> None:
    [file] = [one for one in anyio.run(_ended, tmp_path) if one.name.startswith("null")]
    now = App()

    @now.orchestration(name="double")
    async def fails(ctx: OrchestrationContext, n: int | None) -> int:
        return int(json.loads("no"))

    with pytest.raises(NondeterminismError) as caught:
        replay(file, now)

    assert caught.value.position == 1
    assert caught.value.cause.startswith("JSONDecodeError: ")
    assert caught.value.source == f"{__file__}:{fails.__code__.co_firstlineno + 2}"


def test_code_that_goes_on_behind_a_recorded_end_is_refused(tmp_path: Path) -> None:
    [file] = [one for one in anyio.run(_ended, tmp_path) if "null" in one.name]
    now = App()

    @now.orchestration(name="double")
    async def waits(ctx: OrchestrationContext, n: int | None) -> None:
        await ctx.wait_for_external_event("go")

    with pytest.raises(NondeterminismError) as caught:
        replay(file, now)

    assert (caught.value.position, caught.value.produced) == (1, "nothing more")


def test_an_input_that_is_no_longer_read_is_refused(tmp_path: Path) -> None:
    files = anyio.run(_ended, tmp_path)
    [file] = [one for one in files if one.name.startswith("a%2Fb")]
    now = App()

    @now.orchestration(name="double")
    async def takes_text(ctx: OrchestrationContext, n: str) -> None: ...

    with pytest.raises(PayloadError, match=r"the input of orchestration 'double', at \$"):
        replay(file, now)


def test_code_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    file = anyio.run(_ended, tmp_path)[0]

    with pytest.raises(UnknownNameError, match="'double'"):
        replay(file, App())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "a JSON list"),
        ("{", "no recorded history"),
        ('{"perdure_history":2}', "of form 1"),
        ('{"perdure_history":1,"name":"x"}', "it has no instance_id"),
    ],
)
def test_what_is_no_recorded_history_is_refused_with_words(
    text: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)

    with pytest.raises(UsageError, match=why):
        replay(file, app)


def test_an_event_of_no_known_kind_is_refused_with_words(tmp_path: Path) -> None:
    file = anyio.run(_ended, tmp_path)[0]
    told = orjson.loads(file.read_bytes())
    told["events"][1]["event_type"] = "Nonsense"

    with pytest.raises(UsageError, match="no kind of event 'Nonsense'"):
        replay(told, app)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": []}, r"its version is \[\], and no text"),
        ({"name": None}, "its name is None, and no text"),
        ({"parent_instance_id": 5}, "its parent_instance_id is 5"),
    ],
)
def test_what_has_other_values_than_recorded_ones_is_refused_with_words(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    told = orjson.loads(anyio.run(_ended, tmp_path)[0].read_bytes())

    with pytest.raises(UsageError, match=why):
        replay({**told, **change}, app)


def test_a_history_that_begins_twice_is_refused_with_words(tmp_path: Path) -> None:
    told = orjson.loads(anyio.run(_ended, tmp_path)[0].read_bytes())
    told["events"] *= 2

    with pytest.raises(UsageError, match="is ExecutionStarted, which the first one is alone"):
        replay(told, app)


def test_an_event_without_its_fields_is_refused_with_words(tmp_path: Path) -> None:
    told = orjson.loads(anyio.run(_ended, tmp_path)[0].read_bytes())
    told["events"][1]["fields"] = {}

    with pytest.raises(UsageError, match=r"the history of .* which is none"):
        replay(told, app)


def test_what_is_no_history_at_all_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(UsageError, match="history must be a path"):
        replay(nothing, app)


async def test_what_is_no_id_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    number: Any = 5
    async with Hub(app) as hub:
        await (await hub.client.start_new(double, None, instance_id="one")).result(timeout=20)
        with pytest.raises(InvalidIdError, match="instance_id must be a str"):
            await record(hub.client, tmp_path / "r", "one", number)
    assert not (tmp_path / "r").exists()


async def test_one_file_is_for_one_instance() -> None:
    async with Hub(app) as hub:
        with pytest.raises(UsageError, match="one history"):
            await record(hub.client, "some.json")
        with pytest.raises(InstanceNotFoundError):
            await record(hub.client, "some.json", "nobody")


@pytest.mark.by_turns
async def test_ids_that_are_no_file_names_get_files_of_their_own(tmp_path: Path) -> None:
    ids = ["../up", "a/b", "a%2Fb", "x" * 200, ".hidden", "CON", "nul.5"]
    async with Hub(app) as hub:
        for one in ids:
            await (await hub.client.start_new(double, None, instance_id=one)).result(timeout=20)

        files = await record(hub.client, tmp_path / "r", *ids)

    assert sorted(files) == sorted((tmp_path / "r").iterdir())
    assert len(set(files)) == len(ids)
    assert not {"con", "nul"} & {file.name.partition(".")[0].lower() for file in files}
    assert {replay(file, app).instance_id for file in files} == set(ids)


async def test_ids_that_differ_only_in_case_get_files_that_differ_in_more(tmp_path: Path) -> None:
    ids = ["Order-1", "order-1", "ORDER-1"]
    async with Hub(app) as hub:
        for one in ids:
            await (await hub.client.start_new(double, None, instance_id=one)).result(timeout=20)

        files = await record(hub.client, tmp_path, *ids)
        again = await record(hub.client, tmp_path, *reversed(ids))

    assert len({file.name.lower() for file in files}) == len(ids)
    assert files[0].name == "Order-1.json"
    assert again == list(reversed(files))
    assert [replay(file, app).instance_id for file in files] == ids


async def test_a_test_hub_records_and_what_it_recorded_is_replayed(tmp_path: Path) -> None:
    async with TestHub(app) as hub:
        await hub.client.start_new(double, 4, instance_id="four")
        await hub.client.start_new(double, None, instance_id="none")
        await hub.quiet()

        [one] = await hub.record(tmp_path / "four.json", "four")
        every = await anyio.to_thread.run_sync(hub.sync.record, tmp_path / "all")

    assert replay(one, app).events == 4
    assert [file.name for file in every] == ["four.json", "none.json"]


@app.orchestration
async def stumbles(ctx: OrchestrationContext, n: int) -> int:
    entity = EntityId("tally", "a")
    async with ctx.lock_entities(entity):
        await ctx.call_entity(entity, "add", n)
        await ctx.call_activity(halve, n)
        await ctx.call_activity(fails_once, n)
    await ctx.wait_for_external_event("go")
    return n


@app.activity
async def fails_once(n: int) -> int:
    if broken:
        raise ValueError(n)
    return n


broken: list[int] = []


@app.entity
class Tally:
    value: int = 0

    def add(self, n: int) -> None:
        self.value += n


async def test_an_instance_that_was_rewound_suspended_and_resumed_is_replayed(
    tmp_path: Path,
) -> None:
    broken.append(1)
    async with TestHub(app) as hub:
        handle = await hub.client.start_new(stumbles, 4, instance_id="one")
        await hub.quiet()
        failed = await hub.record(tmp_path / "failed.json", "one")
        broken.clear()
        await handle.rewind("mended")
        await hub.quiet()
        await handle.suspend("a pause")
        await hub.quiet()
        suspended = await hub.record(tmp_path / "suspended.json", "one")
        await handle.resume("on")
        await handle.raise_event("go")
        await hub.quiet()
        ended = await hub.record(tmp_path / "ended.json", "one")

    statuses = [replay(file, app).runtime_status for file in (*failed, *suspended, *ended)]

    assert statuses == ["Failed", "Suspended", "Completed"]
    assert b"ExecutionRewound" in suspended[0].read_bytes()


@app.orchestration
async def many(ctx: OrchestrationContext, n: int) -> None:
    for number in range(n):
        ctx.signal_entity(EntityId("tally", "b"), "add", number)
    await ctx.wait_for_external_event("go")


@pytest.mark.by_turns
async def test_a_history_of_many_pages_is_recorded_whole(tmp_path: Path) -> None:
    async with (
        Hub(app, store=tmp_path / "hub", socket=tmp_path / "hub.sock") as hub,
        connect(tmp_path / "hub.sock") as client,
    ):
        await hub.client.start_new(many, 2_500, instance_id="long")
        with anyio.fail_after(20):
            while not await hub.client.count(waiting_for="event:go"):
                await anyio.sleep(0.005)

        [file] = await record(client, tmp_path / "long.json", "long")

    assert replay(file, app).events == 2_501


class Restless:
    """A client of a hub whose instance goes on anew whenever one looks."""

    def __init__(self, client: Client, times: int) -> None:
        self._client = client
        self._times = times

    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        return await self._client.get_status(instance_id)

    async def get_history_page(self, *args: Any, **named: Any) -> HistoryPage:
        page = await self._client.get_history_page(*args, **named)
        if not self._times:
            return page
        self._times -= 1
        first = attrs.evolve(page.items[0], fields={**page.items[0].fields, "execution": 7})
        return attrs.evolve(page, items=(first, *page.items[1:]))


async def test_an_instance_that_goes_on_meanwhile_is_read_again(tmp_path: Path) -> None:
    async with TestHub(app) as hub:
        await hub.client.start_new(many, 3, instance_id="one")
        await hub.quiet()

        for_a_while: Any = Restless(hub.client, 3)
        for_ever: Any = Restless(hub.client, 100)

        [file] = await record(for_a_while, tmp_path / "one.json", "one")
        with pytest.raises(UnavailableError, match="'one' changes while it is read"):
            await record(for_ever, tmp_path / "two.json", "one")

    assert replay(file, app).events == 4
    assert not (tmp_path / "two.json").exists()
