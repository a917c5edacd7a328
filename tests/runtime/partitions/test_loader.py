from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import orjson
import pytest
from anyio.lowlevel import checkpoint

from perdure import (
    App,
    OrchestrationContext,
    StorageError,
    StoreDamagedError,
)
from perdure.actors.changes import encode_parked
from perdure.actors.entities.entity import EntityActor
from perdure.actors.messages import Caller, Command, Event, Operation, Start
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.runtime.partitions import loader as loading
from perdure.storage import DAMAGED, MendedEntity, MendedInstance
from tests.runtime.harness import FaultyStore
from tests.runtime.partitions.alone import Alone, alone
from tests.runtime.told import Told

A = "@counter@a"


def application(*, without: str = "", broken: bool = False) -> App:
    """The application of one day or another: with other code, or without some."""
    app = App()
    if without != "counter":

        @app.entity(name="counter", max_mailbox=3)
        class Counter:
            value: int = 0

            def add(self, amount: int = 1) -> int:
                self.value += amount
                return self.value

    if without != "flow":

        @app.orchestration(name="flow")
        async def flow(ctx: OrchestrationContext, name: str) -> Any:
            if name == "fail":
                raise ValueError("no")
            if broken:
                return await ctx.wait_for_external_event(name)
            await ctx.call_activity(work, 7)
            return await ctx.wait_for_external_event(name)

    @app.activity(name="work")
    async def work(number: int) -> int:
        return number

    return app


app = application()


def add(amount: int = 1) -> Operation:
    return Operation("add", b"%d" % amount, call=True)


def ask(one: Alone, key: str, message: Any) -> Told:
    told = Told()
    one.door.request(key, message, told)
    return told


async def begin(one: Alone, *keys: str, name: str = "go") -> None:
    """Start instances, which wait for their activities, and put them out of memory."""
    for key in keys:
        one.door.request(key, Start("flow", None, b'"%b"' % name.encode()))
    await one.evict()


def actor_of(one: Alone, key: str) -> Any:
    return one.partition.activations[key].actor


class Reads:
    """The keys that were read of a partition's store, one list for each round trip."""

    def __init__(self, one: Alone) -> None:
        self.made: list[Any] = []
        self.fails: list[Exception] = []
        store = one.partition.store
        entities, instances = store.read_entities, store.read_instances

        async def read_entities(ids: Any) -> Any:
            self.take([*ids])
            return await entities(ids)

        async def read_instances(keys: Any, *, payloads: bool = True) -> Any:
            self.take([*keys])
            return await instances(keys, payloads=payloads)

        store.read_entities = read_entities  # type: ignore[method-assign]
        store.read_instances = read_instances  # type: ignore[method-assign]

    def take(self, what: Sequence[Any]) -> None:
        self.made.append(what)
        if self.fails:
            raise self.fails.pop()


async def test_many_are_loaded_in_one_round_trip_and_then_take_their_mail() -> None:
    async with alone(app) as one:
        reads = Reads(one)
        told = [ask(one, f"@counter@{n}", add(n)) for n in range(5)]
        told += [ask(one, f"i{n}", Start("flow", None, b'"go"')) for n in range(2)]

        await one.settle()

        assert reads.made == [[("counter", str(n)) for n in range(5)], ["i0", "i1"]]
        assert [one_told.told for one_told in told[:5]] == [[b"%d" % n] for n in range(5)]
        assert not one.partition.loader.is_loading


async def test_no_more_than_so_many_are_loaded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "AT_ONCE", 2)
    async with alone(app) as one:
        reads = Reads(one)
        for n in range(5):
            ask(one, f"@counter@{n}", add())

        await one.settle()

        assert [len(made) for made in reads.made] == [2, 2, 1]


async def test_nothing_is_loaded_while_that_is_held_up() -> None:
    async with alone(app) as one:
        reads = Reads(one)
        with one.partition.loader.held():
            told = ask(one, A, add(5))
            for _ in range(10):
                await checkpoint()
            assert reads.made == []

        await one.settle()

        assert told.told == [b"5"]


async def test_who_was_dropped_meanwhile_is_not_loaded() -> None:
    async with alone(app) as one:
        reads = Reads(one)
        one.door.request(A, add())
        one.door.request("@counter@b", add())
        one.partition.catalog.drop(one.partition.activations[A])

        await one.settle()

        assert reads.made == [[("counter", "b")]]


async def test_an_entity_comes_back_with_its_state_and_an_instance_through_its_history() -> None:
    async with alone(app) as one:
        ask(one, A, add(5))
        await begin(one, "x")
        assert one.partition.activations == {}
        told = ask(one, A, add(2))
        one.door.request("x", Event("go", b"7"))

        await one.settle()

        assert told.told == [b"7"]
        assert actor_of(one, "x").is_live  # it waits for its activity
        assert [call.name for call in one.activities.calls] == ["work"]  # which is not run again


async def test_an_entity_s_own_limit_stands_above_the_hubs_for_its_mailbox() -> None:
    async with alone(app, mailbox_messages_max=9) as one:
        limit = one.partition.loader.messages_max

        assert (limit(A), limit("x"), limit("@gone@a")) == (3, 9, 9)


async def test_a_store_that_cannot_be_read_is_recovered_from_and_nobody_is_parked() -> None:
    async with alone(app) as one:
        reads = Reads(one)
        reads.fails = [StorageError("the disk fails")]
        told = ask(one, A, add(5))
        await one.settle()
        assert len(told.errors) == 1
        assert one.faults.recoveries == 2

        assert await one.call(A, "add", b"1") == b"1"


async def test_what_cannot_be_read_is_found_one_by_one_and_parked_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with alone(app) as one:
        read = one.partition.store.read_entities

        async def read_entities(ids: Any) -> Any:
            if ("counter", "b") in ids:
                raise StoreDamagedError("page 7 is damaged")
            return await read(ids)

        one.partition.store.read_entities = read_entities  # type: ignore[method-assign]
        whole, damaged = ask(one, A, add(5)), ask(one, "@counter@b", add(5))

        await one.settle()

        assert whole.told == [b"5"]
        assert [type(error) for error in damaged.errors] != []
        assert actor_of(one, "@counter@b").parked_type == DAMAGED
        assert "parked @counter@b: page 7 is damaged" in caplog.text


async def test_what_was_loaded_before_the_damage_is_not_loaded_again() -> None:
    async with alone(app) as one:
        await begin(one, "x")
        reads = Reads(one)

        async def read_instances(keys: Any, *, payloads: bool = True) -> Any:
            reads.take([*keys])
            raise StoreDamagedError("page 7 is damaged")

        one.partition.store.read_instances = read_instances  # type: ignore[method-assign]
        told = ask(one, A, add(5))
        one.door.request("x", Event("go", b"7"))
        await one.settle()

        assert reads.made == [[("counter", "a")], ["x"], ["x"]]
        assert told.told == [b"5"]


async def test_what_is_loaded_without_a_message_takes_those_that_come_later() -> None:
    async with alone(app) as one:
        one.partition.catalog.activate(A)
        await one.settle()

        assert await one.call(A, "add", b"5") == b"5"


async def test_an_instance_that_cannot_be_read_is_parked_as_an_instance() -> None:
    async with alone(app) as one:
        await begin(one, "x")

        async def read_instances(keys: Any, *, payloads: bool = True) -> Any:
            raise StoreDamagedError("page 7 is damaged")

        one.partition.store.read_instances = read_instances  # type: ignore[method-assign]
        one.door.request("x", Event("go", b"7"))
        await one.settle()

        assert isinstance(actor_of(one, "x"), OrchestrationActor)
        assert actor_of(one, "x").parked == "page 7 is damaged"


async def test_an_entity_whose_class_is_gone_is_parked_and_keeps_its_state() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        ask(one, A, add(5))
        await one.settle()

    async with alone(application(without="counter"), store) as one:
        one.door.request(A, add(6))
        await one.settle()
        assert actor_of(one, A).parked is not None

    async with alone(app, store) as one:
        told = ask(one, A, Command("retry"))
        await one.settle()
        assert len(told.told) == 1
        assert await one.call(A, "add", b"1") == b"6"


async def test_a_state_that_its_class_cannot_read_parks_the_entity_and_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with alone(app) as one:
        ask(one, A, add(5))
        await one.evict()

        def refuse(actor: EntityActor, stored: Any) -> None:
            raise SystemExit("the class's own")

        monkeypatch.setattr(EntityActor, "load", refuse)
        one.door.request(A, add(6))
        await one.settle()
        assert actor_of(one, A).parked_type == "SystemExit"
        [row] = await one.partition.store.read_entities([("counter", "a")])
        assert row.state is not None
        assert orjson.loads(row.state)["value"] == 5


def count_crashes(one: Alone, key: str, count: int) -> None:
    one.partition.crashes.in_a_row[key] = count


@pytest.mark.parametrize("key", [A, "x"])
async def test_who_crashed_too_often_in_a_row_is_parked_until_that_is_tried_again(
    key: str,
) -> None:
    async with alone(app, crashes_max=3) as one:
        ask(one, A, add(5))
        await begin(one, "x")
        count_crashes(one, key, 3)
        one.door.request(key, add() if key == A else Event("go", b"7"))
        await one.settle()
        assert actor_of(one, key).parked == "its turn crashed 3 times in a row"

        told = ask(one, key, Command("retry"))
        await one.settle()

        assert len(told.told) == 1
        assert actor_of(one, key).parked is None
        assert one.partition.crashes.in_a_row == {}


@pytest.mark.parametrize("key", [A, "x"])
async def test_who_crashed_less_often_is_tried_again(key: str) -> None:
    async with alone(app, crashes_max=3) as one:
        ask(one, A, add(5))
        await begin(one, "x")
        count_crashes(one, key, 2)

        one.door.request(key, add() if key == A else Event("other", b"7"))
        await one.quiet()

        assert actor_of(one, key).parked is None


async def test_an_instance_whose_very_first_turn_crashes_is_not_begun_for_ever() -> None:
    async with alone(app, crashes_max=3) as one:
        count_crashes(one, "x", 3)
        told = ask(one, "x", Start("flow", None, b'"go"'))

        await one.settle()

        assert len(told.told) == 1
        assert actor_of(one, "x").parked == "its turn crashed 3 times in a row"
        assert one.activities.calls == []


@pytest.mark.parametrize("policy", ["park", "fail"])
async def test_an_instance_whose_code_left_its_history_is_parked_or_fails(
    policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begin(one, "x")

    async with alone(application(broken=True), store, on_nondeterminism=policy) as one:
        one.door.request("x", Event("other", b"7"))
        await one.settle()

        [record] = await one.partition.store.read_instances(["x"])
        assert (record.status, record.parked is not None) == (
            ("Running", True) if policy == "park" else ("Failed", False)
        )
        assert "parked x" in caplog.text


async def test_an_instance_whose_code_is_gone_is_parked() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        await begin(one, "x")

    async with alone(application(without="flow"), store) as one:
        one.door.request("x", Event("other", b"7"))
        await one.settle()

        assert actor_of(one, "x").parked is not None


async def test_an_instance_that_is_being_purged_is_a_new_one_already() -> None:
    async with alone(app) as one:
        await begin(one, "x", name="fail")
        [record] = await one.partition.store.read_instances(["x"])
        one.partition.batch.purged["x"] = record.id
        one.partition.catalog.purging.add("x")
        told = ask(one, "x", Start("flow", None, b'"go"'))

        await one.settle()

        assert len(told.told) == 1  # else it would be refused, since the old one is there


@pytest.mark.parametrize("chunk", [b"none", b"[]", b'[["Unknown"]]'])
async def test_a_history_that_is_not_whole_parks_its_instance(chunk: bytes) -> None:
    async with alone(app) as one:
        await begin(one, "x")

        async def read_history(instance: int) -> list[bytes]:
            return [chunk]

        one.partition.store.read_history = read_history  # type: ignore[method-assign]
        one.door.request("x", Event("go", b"7"))
        await one.settle()

        assert actor_of(one, "x").parked is not None
        assert "table history_row" in str(actor_of(one, "x").parked)


async def test_a_row_that_is_mended_parks_its_actor_and_is_set_aside() -> None:
    async with alone(app) as one:
        ask(one, A, add(5))
        await begin(one, "x")
        store = one.partition.store
        aside: list[Any] = []
        parked = encode_parked(DAMAGED, "a column is none")
        [row] = await store.read_entities([("counter", "a")])
        [record] = await store.read_instances(["x"])

        async def read_entities(ids: Any) -> Any:
            return [MendedEntity(*row._replace(parked=parked))]

        async def read_instances(keys: Any, *, payloads: bool = True) -> Any:
            return [MendedInstance(*record._replace(parked=parked))]

        async def set_aside(rows: Any) -> None:
            aside.extend((one_row.table, one_row.row, one_row.actor) for one_row in rows)

        store.read_entities = read_entities  # type: ignore[method-assign]
        store.read_instances = read_instances  # type: ignore[method-assign]
        store.set_aside = set_aside  # type: ignore[method-assign]
        one.door.request(A, add(5))
        one.door.request("x", Event("go", b"7"))
        await one.settle()

        assert actor_of(one, A).parked == actor_of(one, "x").parked == "a column is none"
        assert aside == [("entity_row", row.id, A), ("instance_row", record.id, "x")]


async def test_a_failed_instance_is_loaded_with_its_history_for_a_rewind_alone() -> None:
    async with alone(app) as one:
        await begin(one, "x", name="fail")
        histories: list[int] = []
        read = one.partition.store.read_history

        async def read_history(instance: int) -> list[bytes]:
            histories.append(instance)
            return await read(instance)

        one.partition.store.read_history = read_history  # type: ignore[method-assign]
        one.door.request("x", Event("go", b"7"))
        await one.evict()
        assert histories == []

        told = ask(one, "x", Command("rewind", "again"))
        await one.settle()

        assert len(histories) == 1
        assert len(told.told) == 1


async def test_a_rewind_whose_history_is_damaged_is_refused_and_nothing_is_parked() -> None:
    async with alone(app) as one:
        await begin(one, "x", name="fail")

        async def read_history(instance: int) -> list[bytes]:
            return [b"none"]

        one.partition.store.read_history = read_history  # type: ignore[method-assign]
        told = ask(one, "x", Command("rewind", "again"))
        await one.settle()

        assert "'x' cannot be rewound" in str(told.errors[0])
        assert one.partition.waiting == 0
        with pytest.raises(StoreDamagedError):
            raise told.errors[0]
        assert await one.door.wait_for_end("x") is not None


async def test_a_rewind_of_what_crashed_too_often_is_refused_once() -> None:
    async with alone(app, crashes_max=3) as one:
        await begin(one, "x", name="fail")
        count_crashes(one, "x", 3)
        told = ask(one, "x", Command("rewind", "again"))
        await one.settle()
        assert "is not rewound: its turn crashed 3 times in a row" in str(told.errors[0])
        await one.evict()

        again = ask(one, "x", Command("rewind", "again"))
        await one.settle()

        assert len(again.told) == 1


async def test_activities_that_stored_histories_have_open_run_again_where_wanted() -> None:
    async with alone(app) as one:
        await begin(one, "x", "y", "z")
        one.door.request("z", Command("terminate"))
        await one.evict()
        one.activities.calls.clear()

        await one.partition.loader.dispatch_unanswered(
            ["x", "y", "z", "nobody"], lambda caller: caller.instance_id != "y"
        )

        assert [call.caller for call in one.activities.calls] == [Caller("x", 1, 1)]


@pytest.mark.parametrize("damage", [(b'"work"', b'["work"]'), (b"[", b"{")], ids=["field", "all"])
async def test_an_instance_of_which_nobody_knows_what_is_open_is_loaded_and_parked(
    damage: tuple[bytes, bytes],
) -> None:
    async with alone(app) as one:
        await begin(one, "x")
        one.activities.calls.clear()
        read = one.partition.store.read_history

        async def read_history(instance: int) -> list[bytes]:
            return [chunk.replace(*damage) for chunk in await read(instance)]

        one.partition.store.read_history = read_history  # type: ignore[method-assign]
        await one.partition.loader.dispatch_unanswered(["x"], lambda caller: True)
        await one.settle()

        assert one.activities.calls == []
        assert actor_of(one, "x").parked is not None


async def test_who_waits_for_an_instance_that_crashed_in_its_replay_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with alone(app) as one:
        await begin(one, "x")

        def crash(actor: OrchestrationActor, events: Any) -> Generator[None]:
            yield
            raise ValueError("a bug")

        monkeypatch.setattr(OrchestrationActor, "replay", crash)
        told = ask(one, "x", Event("go", b"7"))
        await one.quiet()
        assert one.partition.crashes.in_a_row == {"x": 1}
        monkeypatch.undo()
        await one.settle()

        assert "a turn of x crashed (ValueError: a bug)" in str(told.errors[0])


async def test_who_was_parked_is_so_when_it_is_loaded_and_its_code_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with alone(app, crashes_max=3) as one:
        ask(one, A, add(5))
        await begin(one, "x")
        for key, message in ((A, add()), ("x", Event("other", b"7"))):
            count_crashes(one, key, 3)
            one.door.request(key, message)
        await one.settle()
        one.partition.crashes.in_a_row.clear()
        for key in (A, "x"):
            one.partition.catalog.drop(one.partition.activations[key])

        def replay(actor: OrchestrationActor, events: Any) -> Any:
            raise AssertionError("it is parked")

        monkeypatch.setattr(OrchestrationActor, "replay", replay)
        one.partition.catalog.activate(A)
        one.door.request("x", Event("another", b"8"))
        await one.settle()

        for key in (A, "x"):
            assert actor_of(one, key).parked == "its turn crashed 3 times in a row"
        assert (await one.partition.store.waiting(["x"]))["x"] > 0


async def test_an_instance_that_has_not_begun_is_parked_where_its_code_is_gone() -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        start = Start("flow", None, b'"go"', start_at=one.clock.now() + 10**12)
        one.door.request("x", start)
        await one.settle()

    for lookup, is_parked in ((app, False), (application(without="flow"), True)):
        async with alone(lookup, store) as one:
            one.partition.catalog.activate("x")
            await one.settle()
            assert (actor_of(one, "x").parked is not None) is is_parked


async def test_the_time_of_an_actor_is_not_set_back_by_its_leaving_memory() -> None:
    async with alone(app) as one:
        one.clock.advance(100)
        ask(one, A, add(5))
        await begin(one, "x")
        then = one.clock.now()
        one.partition.now = lambda: then - 50_000_000

        for key in (A, "x"):
            one.partition.catalog.activate(key)
        await one.settle()

        assert [one.partition.activations[key].latest for key in (A, "x")] == [then, then]


def damaged(one: Alone, **fields: Any) -> None:
    """Have the store give rows with other fields."""
    store = one.partition.store
    entities, instances = store.read_entities, store.read_instances

    async def read_entities(ids: Any) -> Any:
        return [row._replace(**fields) for row in await entities(ids)]

    async def read_instances(keys: Any, *, payloads: bool = True) -> Any:
        return [row._replace(**fields) for row in await instances(keys, payloads=payloads)]

    store.read_entities = read_entities  # type: ignore[method-assign]
    store.read_instances = read_instances  # type: ignore[method-assign]


@pytest.mark.parametrize("app_of_today", [app, application(without="counter")], ids=["", "gone"])
@pytest.mark.parametrize(
    "field", [{"lock": b"5"}, {"failures": b"[1,5]"}], ids=lambda field: next(iter(field))
)
async def test_an_entity_whose_row_has_fields_of_another_form_is_parked_and_set_aside(
    field: dict[str, bytes], app_of_today: App
) -> None:
    store = FaultyStore()
    async with alone(app, store) as one:
        ask(one, A, add(5))
        await one.settle()

    async with alone(app_of_today, store) as one:
        damaged(one, **field)
        one.door.request(A, add())
        await one.settle()

        if field.keys() == {"failures"} and app_of_today is not app:
            assert actor_of(one, A).parked_type == "UnknownNameError"  # nobody has read them
        else:
            assert actor_of(one, A).parked_type == DAMAGED
            assert "its lock or its list of failures is none" in str(actor_of(one, A).parked)


async def test_a_failed_instance_whose_failure_cannot_be_read_is_not_rewound() -> None:
    async with alone(app) as one:
        await begin(one, "x", name="fail")
        damaged(one, failure=b"5")

        told = ask(one, "x", Command("rewind", "again"))
        await one.settle()

        assert "'x' cannot be rewound: its stored failure cannot be read" in str(told.errors[0])
