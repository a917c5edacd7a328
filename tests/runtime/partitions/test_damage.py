"""Stored rows that nobody can read: set aside one by one, with their actors parked."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    InstanceNotFoundError,
    OrchestrationContext,
    ParkedError,
    SqliteStore,
    StoreDamagedError,
)
from perdure.runtime.partitions.damage import Damage, span_of
from perdure.runtime.partitions.exchange import read_frame
from perdure.runtime.placement.hashing import name_in
from perdure.storage import OutboxRow
from perdure.storage.slices import at_once
from tests.runtime.harness import until
from tests.storage.files import change, rows

app = App()
A, B = "a", "b"


@app.entity
class Counter:
    n: int = 0

    def add(self) -> int:
        self.n += 1
        return self.n


@app.orchestration
async def waits(ctx: OrchestrationContext) -> list[Any]:
    return [await ctx.wait_for_external_event("go") for _ in range(3)]


def store_in(folder: Path) -> SqliteStore:
    return SqliteStore(folder, synchronous="OFF")


@app.orchestration
async def lock_and_add(ctx: OrchestrationContext) -> int:
    async with ctx.lock_entities(EntityId(Counter, A)):
        return await ctx.call_entity(EntityId(Counter, A), Counter.add)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A stopped hub: entities ``a`` and ``b``, and an instance with three events in its mail."""
    path = tmp_path / "hub"
    async with Hub(app, store=store_in(path), partitions=1) as hub:
        client = hub.client
        for key in (A, B):
            await client.call_entity(EntityId(Counter, key), Counter.add, request_id=f"r-{key}")
        await client.start_new(waits, instance_id="w")
        await client.suspend("w")
        for number in range(3):
            await client.raise_event("w", "go", number)
        await client.signal_entity(EntityId(Counter, "c"), Counter.add, at=timedelta(hours=1))
    return path


def spoil(folder: Path, statement: str) -> Path:
    file = folder / "partition-00.sqlite"
    change(file, statement)
    return file


async def check_innocent(hub: Hub) -> None:
    assert await hub.client.call_entity(EntityId(Counter, B), Counter.add) >= 2
    assert [one async for one in hub.client.query(payloads=True)]
    assert [one async for one in hub.client.query_entities()]


async def until_instance_parked(hub: Hub, id: str) -> str:
    async def parked() -> bool:
        return [one.instance_id async for one in hub.client.query(parked=True)] == [id]

    await until(parked)
    status = await hub.client.get_status(id)
    assert status is not None
    assert status.parked is not None
    assert status.parked.type == "StoreDamagedError"
    return status.parked.reason


@pytest.mark.by_turns
@pytest.mark.parametrize("body", ["zz", "[1]", '["event",5,1,null]', '["unheard",1,null]', "{}"])
async def test_a_message_that_cannot_be_read_parks_its_actor_in_its_place(
    folder: Path, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    second = rows(folder / "partition-00.sqlite", "SELECT n FROM mail_row ORDER BY n")[1][0]
    file = spoil(folder, f"UPDATE mail_row SET body = '{body}' WHERE n = {second}")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        reason = await until_instance_parked(hub, "w")
        await check_innocent(hub)
    assert f"{file}, table mail_row, row {second}:" in reason
    assert reason in caplog.text
    kept = rows(file, "SELECT source, row, actor, body FROM damaged_row")
    assert kept == [("mail_row", second, "w", body)]

    # Repaired, and put back: it comes where it was.
    change(
        file,
        "INSERT INTO mail_row (n, actor, body) SELECT row, actor,"
        ' \'["event","go","repaired",null]\' FROM damaged_row',
        "DELETE FROM damaged_row",
    )
    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.retry("w")
        await hub.client.resume("w")
        result = await hub.client.get_handle("w").result(timeout=10)
    assert result == [0, "repaired", 2]


async def test_an_actor_whose_message_is_lost_goes_on_without_it_when_retried(folder: Path) -> None:
    spoil(folder, "UPDATE mail_row SET body = 'zz' WHERE n = (SELECT min(n) FROM mail_row)")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await until_instance_parked(hub, "w")
        await hub.client.retry("w")
        await hub.client.resume("w")
        await hub.client.raise_event("w", "go", "one more")
        assert await hub.client.get_handle("w").result(timeout=10) == [1, 2, "one more"]


@pytest.mark.by_turns
async def test_a_timer_that_cannot_be_read_parks_its_actor(folder: Path) -> None:
    file = spoil(folder, "UPDATE timer_row SET due = 'soon'")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await check_innocent(hub)
        with pytest.raises(ParkedError, match="table timer_row"):
            await hub.client.call_entity(EntityId(Counter, "c"), Counter.add)
        await hub.client.purge_entity(EntityId(Counter, "c"))
        assert await hub.client.call_entity(EntityId(Counter, "c"), Counter.add) == 1
    assert rows(file, "SELECT count(*) FROM timer_row") == [(0,)]
    assert rows(file, "SELECT source, due FROM damaged_row") == [("timer_row", "soon")]


HISTORY = "UPDATE history_row SET body = (SELECT body FROM kept)"


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("harm", "repair"),
    [
        ("UPDATE history_row SET body = 'zz'", HISTORY),
        ("UPDATE history_row SET body = '[[\"Unheard\",1,2]]'", HISTORY),
        (
            "UPDATE history_row SET instance = 99",
            "UPDATE history_row SET instance = (SELECT id FROM instance_row)",
        ),
        (
            "UPDATE instance_row SET status = 'Sleeping'",
            "UPDATE instance_row SET status = 'Suspended'",
        ),
        (
            "UPDATE instance_row SET custom_status = 'zz', pending = 'some'",
            "UPDATE instance_row SET custom_status = NULL, pending = 0",
        ),
        ("UPDATE instance_row SET updated = 9e18", "UPDATE instance_row SET updated = created"),
        (
            "UPDATE instance_row SET version = CAST(x'ff' AS TEXT)",
            "UPDATE instance_row SET version = NULL",
        ),
        ("UPDATE input_row SET body = 'zz'", "UPDATE input_row SET body = NULL"),
    ],
)
async def test_an_instance_that_cannot_be_read_is_parked_until_it_is_repaired(
    folder: Path, harm: str, repair: str
) -> None:
    file = spoil(folder, "CREATE TABLE kept AS SELECT body FROM history_row")
    spoil(folder, harm)

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        reason = await until_instance_parked(hub, "w")
        assert str(file) in reason
        await hub.client.retry("w")
        assert await until_instance_parked(hub, "w") == reason
        await check_innocent(hub)

    change(file, repair)
    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.resume("w")
        assert await hub.client.get_handle("w").result(timeout=10) == [0, 1, 2]


@pytest.mark.by_turns
async def test_an_instance_that_cannot_be_read_may_be_purged(folder: Path) -> None:
    spoil(folder, "UPDATE instance_row SET status = 'Sleeping', pending = 'some'")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await until_instance_parked(hub, "w")
        assert await hub.client.purge_instance("w") == 1
        assert await hub.client.get_status("w") is None
        with pytest.raises(InstanceNotFoundError):
            await hub.client.resume("w")


@pytest.mark.parametrize("lock", ["zz", "[1]", "{}"])
async def test_an_entity_whose_lock_cannot_be_read_is_parked_and_keeps_its_row(
    folder: Path, lock: str
) -> None:
    file = spoil(folder, f"UPDATE entity_row SET lock = '{lock}' WHERE key = 'a'")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        with pytest.raises(ParkedError, match="entity_row"):
            await hub.client.call_entity(EntityId(Counter, A), Counter.add)
        found = [one async for one in hub.client.query_entities(parked=True)]
        assert [one.entity_id.key for one in found] == [A]
        await check_innocent(hub)
    assert rows(file, "SELECT lock, state FROM entity_row WHERE key = 'a'") == [(lock, '{"n":1}')]

    change(file, "UPDATE entity_row SET lock = NULL WHERE key = 'a'")
    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        assert await hub.client.call_entity(EntityId(Counter, A), Counter.add) == 2


@pytest.mark.parametrize("harm", ["state = 'zz'", "updated = 'then'", "lock = '[1]'"])
async def test_who_locks_an_entity_whose_row_is_damaged_waits_and_leaves_the_row_alone(
    folder: Path, harm: str
) -> None:
    file = spoil(folder, f"UPDATE entity_row SET {harm} WHERE key = 'a'")
    columns = "SELECT id, updated, state, lock, failures FROM entity_row WHERE key = 'a'"
    spoilt = rows(file, columns)

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.start_new(lock_and_add, instance_id="locker")
        await check_innocent(hub)
        await hub.client.retry(EntityId(Counter, A))
        await check_innocent(hub)
    assert rows(file, columns) == spoilt

    change(
        file, "UPDATE entity_row SET state = '{\"n\":1}', updated = 1, lock = NULL WHERE key = 'a'"
    )
    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        assert await hub.client.get_handle("locker").result(timeout=10) == 2


NO_ANSWERS = [
    "'zz'",
    "''",
    "7",
    "'[1, 2, 3]'",
    """'["fine", 1]'""",
    """'["ok", 1, 2]'""",
    """'["ok", 1, "another"]'""",
    """'["failed", 1]'""",
]


@pytest.mark.parametrize("body", NO_ANSWERS)
async def test_an_answer_that_cannot_be_read_is_said_and_not_given_twice(
    folder: Path, body: str
) -> None:
    spoil(folder, f"UPDATE request_row SET body = {body} WHERE request = 'r-a'")
    counter = EntityId(Counter, A)

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        with pytest.raises(StoreDamagedError, match="r-a"):
            await hub.client.call_entity(counter, Counter.add, request_id="r-a")
        with pytest.raises(StoreDamagedError, match="r-a"):
            await hub.client.signal_entity(counter, Counter.add, request_id="r-a")
        with pytest.raises(StoreDamagedError, match="r-a"):
            await hub.client.signal_entity(
                counter, Counter.add, request_id="r-a", at=timedelta(hours=1)
            )
        assert await hub.client.call_entity(counter, Counter.add) == 2


async def test_numbers_that_would_be_given_twice_are_not(folder: Path) -> None:
    spoil(folder, "UPDATE meta SET next_id = 1, next_row = 1")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.call_entity(EntityId(Counter, "new"), Counter.add)
        await hub.client.raise_event("w", "go", 3)
        assert await hub.client.call_entity(EntityId(Counter, A), Counter.add) == 2
        await hub.client.resume("w")
        assert await hub.client.get_handle("w").result(timeout=10) == [0, 1, 2]


async def test_a_watermark_that_cannot_be_read_is_refused(folder: Path) -> None:
    spoil(folder, "INSERT INTO peer_row VALUES (1, 'zz', 0)")

    with pytest.raises(StoreDamagedError, match="table peer_row, row 1"):
        async with Hub(app, store=store_in(folder), partitions=1):
            pass


# Frames owed to other partitions: what is lost of them leaves its numbers behind.

NEAR = [name_in(number, 3) for number in range(3)]


def parcel(name: str, target: int = 1) -> list[Any]:
    return [NEAR[target], "event", name, 1, None]


def frame(n: int, last: int, *parcels: Any, target: int = 1) -> OutboxRow:
    return OutboxRow(n, target, last, orjson.dumps(parcels))


class Here:
    """The partition whose outbox it is."""

    index = 0
    places = range(3)


def read_frames(
    *outbox: OutboxRow, before: int | None, stored: int
) -> tuple[list[tuple[int, int, int, list[str]]], int]:
    """Give number, last message, span and receivers of each frame; and how many rows are damaged."""
    damage = Damage("the file", Here())
    frames = at_once(damage.read_frames(1, outbox, before, stored))
    shown: list[tuple[int, int, int, list[str]]] = []
    for one in frames:
        parcels = read_frame(one.body)
        names = [f"{key}:{getattr(message, 'name', 'park')}" for key, message in parcels]
        shown.append((one.n, one.last, span_of(parcels), names))
    return shown, len(damage.rows)


X, Y, Z = (f"{NEAR[1]}:{name}" for name in "xyz")


def test_whole_frames_stay_as_they_are() -> None:
    rows = frame(5, 2, parcel("x"), parcel("y")), frame(6, 3, parcel("z"))

    assert read_frames(*rows, before=None, stored=3) == ([(5, 2, 2, [X, Y]), (6, 3, 1, [Z])], 0)
    assert read_frames(*rows, before=None, stored=2) == ([(5, 2, 2, [X, Y])], 0)


def test_a_message_of_a_frame_that_cannot_be_read_parks_its_receiver() -> None:
    row = frame(5, 3, parcel("x"), [NEAR[1], "event", 7, 1, None], 4)

    found = read_frames(row, before=None, stored=3)

    assert found == ([(5, 3, 3, [X, f"{NEAR[1]}:park", ":park"])], 2)


def test_a_frame_that_is_lost_leaves_its_numbers_to_nobody() -> None:
    rows = (
        frame(5, 2, parcel("x"), parcel("y")),
        OutboxRow(6, 1, 4, b"zz"),
        frame(7, 5, parcel("z")),
    )

    found = read_frames(*rows, before=None, stored=5)

    assert found == ([(5, 2, 2, [X, Y]), (6, 4, 2, [":park"]), (7, 5, 1, [Z])], 1)


@pytest.mark.parametrize("last", ["?", None, -1, 2**62, 9])
def test_the_last_frame_may_be_lost_and_so_may_its_number(last: Any) -> None:
    found = read_frames(OutboxRow(6, 1, last, b"zz"), before=2, stored=9)

    assert found == ([(6, 9, 7, [":park"])], 1)


def test_the_first_frame_may_be_lost() -> None:
    found = read_frames(
        OutboxRow(6, 1, 600, b"zz"), frame(7, 601, parcel("z")), before=None, stored=700
    )

    assert found == ([(6, 600, 250, [":park"]), (7, 601, 1, [Z])], 1)


# Pages that SQLite cannot read.


@pytest.mark.by_turns
async def test_a_history_whose_page_is_damaged_parks_its_instance_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    ids = [f"w{n}" for n in range(12)]
    async with Hub(app, store=store_in(path), partitions=1) as hub:
        for id in ids:
            await hub.client.start_new(waits, instance_id=id)
            await hub.client.raise_event(id, "go", f"{id}:" * 1_500)
    file = path / "partition-00.sqlite"
    content = bytearray(file.read_bytes())
    place = content.index(b"w5:w5:w5:") // 4096 * 4096
    content[place : place + 4096] = b"\xee" * 4096
    file.write_bytes(content)

    finished: list[str] = []
    async with Hub(app, store=store_in(path), partitions=1) as hub:
        for id in ids:
            await hub.client.raise_event(id, "go", 2)
            await hub.client.raise_event(id, "go", 3)
            with suppress(TimeoutError):
                await hub.client.get_handle(id).result(timeout=5 if id != "w5" else 0.2)
                finished.append(id)
        statistics = await hub.statistics()
    # Others may have had their history on that page, too.
    assert "w5" not in finished
    assert len(finished) >= len(ids) - 3
    assert statistics.commits


@pytest.mark.by_turns
@pytest.mark.parametrize(
    "seq", ["'zz'", "''", "-1", "1.5", "x'ff00'", "CAST(x'ff41' AS TEXT)", "7"]
)
async def test_a_history_whose_parts_are_not_in_their_places_parks_its_instance(
    folder: Path, seq: str
) -> None:
    file = spoil(
        folder,
        "INSERT INTO history_row (instance, seq, body)"
        " SELECT instance, 1, json_array(body -> '$[1]') FROM history_row",
    )
    spoil(folder, "UPDATE history_row SET body = json_array(body -> '$[0]') WHERE seq = 0")
    parts = rows(file, "SELECT n, seq FROM history_row ORDER BY n")
    spoil(folder, f"UPDATE history_row SET seq = {seq} WHERE n = {parts[1][0]}")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.resume("w")
        reason = await until_instance_parked(hub, "w")
        await check_innocent(hub)
    assert f"{file}, table history_row, row " in reason

    for n, place in reversed(parts):
        change(file, f"UPDATE history_row SET seq = {place + 1000} WHERE n = {n}")
    change(file, "UPDATE history_row SET seq = seq - 1000 WHERE seq >= 1000")
    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        await hub.client.retry("w")
        assert await hub.client.get_handle("w").result(timeout=10) == [0, 1, 2]


@pytest.mark.parametrize("body", ["5", "1.5", "'5'", "'{}'", "'[]'", "'[5]'", "'null'", "x'ff'"])
async def test_an_answer_that_cannot_be_read_is_said_to_be_so(folder: Path, body: str) -> None:
    file = spoil(folder, f"UPDATE request_row SET body = {body} WHERE request = 'r-a'")

    async with Hub(app, store=store_in(folder), partitions=1) as hub:
        with pytest.raises(StoreDamagedError, match="'r-a'") as caught:
            await hub.client.call_entity(EntityId(Counter, A), Counter.add, request_id="r-a")
        assert str(file) in str(caught.value)
        await check_innocent(hub)
