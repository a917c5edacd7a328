"""Guarantee 9: an actor that keeps crashing its turns is parked alone; the partition goes on.

Everything lives in one partition, so that a poison actor has every chance to take others along.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import define

from perdure import (
    App,
    Client,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    MemoryStore,
    OrchestrationContext,
    OrchestrationStatus,
    ParkedError,
    PerdureError,
    RuntimeStatus,
    Settings,
    UnavailableError,
)
from perdure.actors.messages import Caller, LockRequest
from perdure.actors.orchestrations.orchestration import OrchestrationActor
from perdure.runtime.partitions.door import Door
from perdure.testing.inside import partitions_of
from tests.faults import (
    Crash,
    FaultyStore,
    JumpingClock,
    let_turns_crash,
    persist,
    settle,
    within,
)


@pytest.fixture(autouse=True)
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    let_turns_crash(monkeypatch)


@define
class Code:
    """What the application does this time: a new release may do it better."""

    poison: type[BaseException] | None = Crash
    explosions: int = 0


CALM = Code(None)


def app_with(code: Code) -> App:
    app = App()

    def explode() -> None:
        if code.poison is not None:
            code.explosions += 1
            raise code.poison("poison")

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

        def burst(self, ctx: EntityContext) -> int:
            self.value += 100
            ctx.signal_entity(EntityId("witness", "w"), "see", "burst")
            explode()
            return self.value

        async def burst_slowly(self, ctx: EntityContext) -> int:
            self.value += 100
            ctx.signal_entity(EntityId("witness", "w"), "see", "burst")
            await anyio.lowlevel.checkpoint()
            explode()
            return self.value

    @app.entity
    class Witness:
        seen: list[str] = []

        def see(self, what: str) -> None:
            self.seen.append(what)

    @app.activity
    async def work(x: int) -> int:
        return x

    @app.orchestration
    async def signaller(ctx: OrchestrationContext, op: str) -> Any:
        ctx.signal_entity(POISON, op)
        return await ctx.wait_for_external_event("end")

    @app.activity
    async def hang() -> None:
        await anyio.sleep_forever()

    @app.orchestration
    async def hanging(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(hang)

    @app.orchestration
    async def quiet(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("end")

    @app.orchestration
    async def bursting(ctx: OrchestrationContext) -> Any:
        await ctx.call_activity(work, 1)
        ctx.signal_entity(EntityId(Witness, "w"), Witness.see, "burst")
        explode()
        return await ctx.wait_for_external_event("end")

    @app.orchestration
    async def bursting_at_once(ctx: OrchestrationContext) -> Any:
        explode()
        return await ctx.wait_for_external_event("end")

    return app


POISON: EntityId[Any] = EntityId("counter", "poison")
WELL: EntityId[Any] = EntityId("counter", "well")
WITNESS: EntityId[Any] = EntityId("witness", "w")


def hub_on(store: FaultyStore | MemoryStore, code: Code | App) -> Hub:
    app = code if isinstance(code, App) else app_with(code)
    settings = Settings(drain_s=2)
    return Hub(app, store=store, partitions=1, clock=JumpingClock(), settings=settings)


async def parked_entities(hub: Hub) -> list[str]:
    return [str(status.entity_id) async for status in hub.client.query_entities(parked=True)]


async def parked_instances(hub: Hub) -> list[OrchestrationStatus]:
    return [status async for status in hub.client.query(parked=True)]


async def until(happened: Callable[[], Awaitable[Any]]) -> Any:
    while not (found := await happened()):
        await anyio.sleep(0.001)
    return found


async def check_well(hub: Hub, wanted: int) -> None:
    """Check that the neighbours take turns, and that nothing of a burst has got out."""
    assert await persist(hub.client.call_entity, WELL, "add", 1) == wanted
    handle = await persist(hub.client.start_new, "quiet")
    await persist(handle.raise_event, "end", "done")
    assert await handle.result() == "done"
    assert await hub.client.get_entity(WITNESS) is None


async def poison_by_stored_signal(hub: Hub, op: str) -> None:
    """Have the entity poisoned by a message that another actor sent: it is never lost."""
    await persist(hub.client.start_new, "signaller", op, instance_id="sender", request_id="sender")
    await until(lambda: parked_entities(hub))


@pytest.mark.parametrize("op", ["burst", "burst_slowly"])
async def test_an_entity_whose_turn_keeps_crashing_is_parked_and_the_others_go_on(op: str) -> None:
    async with within(), hub_on(MemoryStore(), Code()) as hub:
        await hub.client.call_entity(POISON, "add", 1)
        await poison_by_stored_signal(hub, op)
        status = await hub.client.get_entity(POISON)

        await check_well(hub, 1)
        assert await parked_entities(hub) == [str(POISON)]
        with pytest.raises(ParkedError):
            await hub.client.call_entity(POISON, "add", 1)

    assert status is not None
    assert status.state is not None
    assert status.state.value == 1
    assert status.parked is not None
    assert status.waiting == 1


@pytest.mark.parametrize("op", ["burst", "burst_slowly"])
async def test_a_caller_whose_call_keeps_crashing_is_told(op: str) -> None:
    errors: list[type[Exception]] = []
    async with within(), hub_on(MemoryStore(), Code()) as hub:
        await hub.client.call_entity(POISON, "add", 1)
        for _ in range(10):
            try:
                await persist(hub.client.call_entity, POISON, op, tries=1)
            except (PerdureError, AssertionError) as error:
                errors.append(type(error))
            await settle()

        await check_well(hub, 1)
        status = await hub.client.get_entity(POISON)

    assert len(errors) == 10
    assert errors[-1] is ParkedError
    assert status is not None
    assert status.state is not None
    assert status.state.value == 1


async def test_a_parked_entity_survives_recoveries_of_its_partition_without_a_new_crash() -> None:
    store, code = FaultyStore(MemoryStore()), Code()
    async with within(), hub_on(store, code) as hub:
        await poison_by_stored_signal(hub, "burst")
        explosions = code.explosions
        for n in range(3):
            store.fail_next()
            with pytest.raises(UnavailableError):
                await hub.client.call_entity(WELL, "add", 1)
            await check_well(hub, n + 1)
            await settle()

        assert await parked_entities(hub) == [str(POISON)]
        assert code.explosions == explosions


async def test_a_poison_entity_is_parked_again_after_a_restart_without_repair() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, Code()) as hub:
            await poison_by_stored_signal(hub, "burst")

        for n in range(3):
            async with hub_on(store, Code()) as hub:
                await settle()
                await until(lambda: parked_entities(hub))
                await check_well(hub, n + 1)


async def test_a_repaired_entity_takes_its_mail_after_a_restart() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, Code()) as hub:
            await poison_by_stored_signal(hub, "burst")
            await hub.client.signal_entity(POISON, "add", 1)

        async with hub_on(store, CALM) as hub:
            assert await hub.client.call_entity(POISON, "add", 0) == 101
            assert await parked_entities(hub) == []
            await settle()
            witness = await hub.client.read_entity_state(WITNESS)

    assert witness is not None
    assert witness.seen == ["burst"]


async def test_a_parked_entity_may_be_retried() -> None:
    code = Code()
    async with within(), hub_on(MemoryStore(), code) as hub:
        await poison_by_stored_signal(hub, "burst")
        await hub.client.signal_entity(POISON, "add", 1)

        code.poison = None  # what was wrong lay outside the code, and is repaired
        await hub.client.retry(POISON)

        assert await hub.client.call_entity(POISON, "add", 0) == 101
        assert await parked_entities(hub) == []


async def test_a_retry_in_vain_parks_it_again() -> None:
    async with within(), hub_on(MemoryStore(), Code()) as hub:
        await poison_by_stored_signal(hub, "burst")

        for _ in range(2):
            try:
                await hub.client.retry(POISON)
            except PerdureError:
                await settle()
            await until(lambda: parked_entities(hub))
            await check_well_again(hub)


async def check_well_again(hub: Hub) -> None:
    assert await persist(hub.client.call_entity, WELL, "add", 1) > 0


async def test_a_parked_entity_may_be_purged_with_its_mail() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, Code()) as hub:
            await poison_by_stored_signal(hub, "burst")

            await hub.client.purge_entity(POISON)

            assert await parked_entities(hub) == []
            assert await hub.client.get_entity(POISON) is None
            assert await hub.client.call_entity(POISON, "add", 1) == 1
        async with hub_on(store, Code()) as hub:
            await settle()
            assert await hub.client.call_entity(POISON, "add", 1) == 2


@pytest.mark.parametrize("name", ["bursting", "bursting_at_once"])
async def test_an_orchestration_whose_turn_keeps_crashing_is_parked_or_refused(name: str) -> None:
    async with within(), hub_on(MemoryStore(), Code()) as hub:
        for _ in range(6):
            try:
                await hub.client.start_new(name, instance_id="i", on_existing="reuse")
            except PerdureError:
                await settle()
        await settle(200)

        await check_well(hub, 1)
        parked = [status.instance_id for status in await parked_instances(hub)]
        status = await hub.client.get_status("i")

    # One that never began was never stored: there is nothing to park.
    if name == "bursting":
        assert parked == ["i"]
    else:
        assert status is None or parked == ["i"]


async def test_a_replay_that_crashes_parks_its_instance_and_a_repair_lets_it_go_on() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, CALM) as hub:
            for name in ("bursting", "bursting_at_once"):
                await hub.client.start_new(name, instance_id=name)
            await settle()

        async with hub_on(store, Code()) as hub:
            for name in ("bursting", "bursting_at_once"):
                # Repeated until the instance is parked; then the event waits in its mailbox.
                await persist(hub.client.raise_event, name, "end", "one", request_id=name)

            async def both() -> bool:
                return len(await parked_instances(hub)) == 2

            await until(both)
            assert await persist(hub.client.call_entity, WELL, "add", 1) == 1

        async with hub_on(store, CALM) as hub:
            for name in ("bursting", "bursting_at_once"):
                await hub.client.raise_event(name, "end", "one", request_id=name)
                assert await hub.client.wait(name) == "one"
            assert await parked_instances(hub) == []


async def test_a_parked_orchestration_may_be_retried_and_terminated() -> None:
    code = Code()
    async with within(), hub_on(MemoryStore(), code) as hub:
        for id in ("retried", "ended"):
            await persist(hub.client.start_new, "bursting", instance_id=id, request_id=id)

        async def both() -> bool:
            return len(await parked_instances(hub)) == 2

        await until(both)
        await hub.client.terminate("ended", "poison")
        code.poison = None
        await hub.client.retry("retried")
        await hub.client.raise_event("retried", "end", "well")

        assert await hub.client.wait("retried") == "well"
        assert await parked_instances(hub) == []
        ended = await hub.client.get_status("ended")

    assert ended is not None
    assert ended.runtime_status == RuntimeStatus.TERMINATED


def app_of(state: type, *, extra: bool = False) -> App:
    """Make an application whose entity ``box`` has a value of that type."""
    app = App()
    if state is int:

        @app.entity(name="box")
        class IntBox:
            value: int = 0

            def put(self, value: int) -> None:
                self.value = value

    else:

        @app.entity(name="box")
        class DictBox:
            value: dict[str, int] = {}

            def put(self, value: int) -> None:
                self.value["x"] = value

    @app.entity(name="counter")
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

    if extra:

        @app.orchestration
        async def flow(ctx: OrchestrationContext) -> Any:
            return await ctx.wait_for_external_event("end")

    return app


BOX: EntityId[Any] = EntityId("box", "b")


async def test_a_state_that_its_class_cannot_read_any_more_parks_the_entity_and_is_kept() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, app_of(int)) as hub:
            await hub.client.signal_entity(BOX, "put", 7)

        async with hub_on(store, app_of(dict)) as hub:
            await hub.client.signal_entity(BOX, "put", 8)
            status = await hub.client.get_entity(BOX)
            assert await parked_entities(hub) == [str(BOX)]
            assert await hub.client.call_entity(WELL, "add", 1) == 1

        async with hub_on(store, app_of(int)) as hub:
            await settle()
            state = await hub.client.read_entity_state(BOX)
            assert await parked_entities(hub) == []

    assert status is not None
    assert status.state == {"value": 7}
    assert status.parked is not None
    assert status.parked.type == "PayloadError"
    assert state is not None
    assert state.value == 8  # the signal waited


async def test_an_entity_that_is_registered_no_more_keeps_its_state_and_mail() -> None:
    store, sender = MemoryStore(), App()

    @sender.entity(name="counter")
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

    async with within():
        async with hub_on(store, app_of(int)) as hub:
            await hub.client.signal_entity(BOX, "put", 7)
            await hub.client.signal_entity(BOX, "put", 8, at=timedelta(seconds=0))

        async with hub_on(store, sender) as hub:
            assert await hub.client.call_entity(WELL, "add", 1) == 1

        async with hub_on(store, app_of(int)) as hub:
            await settle()
            state = await hub.client.read_entity_state(BOX)

    assert state is not None
    assert state.value == 8


async def test_an_instance_whose_orchestration_is_not_deployed_is_parked_until_it_is() -> None:
    store = MemoryStore()
    async with within():
        async with hub_on(store, app_of(int, extra=True)) as hub:
            await hub.client.start_new("flow", instance_id="i")

        async with hub_on(store, app_of(int)) as hub:
            await hub.client.raise_event("i", "end", "kept")
            parked = await parked_instances(hub)
            assert await hub.client.call_entity(WELL, "add", 1) == 1

        async with hub_on(store, app_of(int, extra=True)) as hub:
            result = await hub.client.wait("i")

    assert [status.instance_id for status in parked] == ["i"]
    assert parked[0].parked is not None
    assert parked[0].parked.type == "UnknownNameError"
    assert "flow" in parked[0].parked.reason
    assert result == "kept"


@pytest.mark.parametrize("times", [1, 5, 20])
async def test_a_disk_that_errs_while_an_actor_is_read_does_not_get_it_parked(times: int) -> None:
    inner = MemoryStore()
    async with within():
        async with hub_on(inner, CALM) as hub:
            await hub.client.call_entity(WELL, "add", 1)
        store = FaultyStore(inner)
        async with hub_on(store, CALM) as hub:
            store.fail_reads("read_entities", times)

            value = await persist(hub.client.call_entity, WELL, "add", 1, tries=500)

            assert value == 2
            assert await parked_entities(hub) == []


async def test_a_turn_that_crashes_while_its_partition_recovers_is_not_forgotten() -> None:
    store = FaultyStore(MemoryStore())
    code = Code()
    async with within(), hub_on(store, code) as hub:
        # An open activity has the recovery read the store again, once the partition serves.
        await hub.client.start_new("hanging", instance_id="open")
        restoring = store.hold("read_instances")
        # The recovery is from a crash itself, and must not take the next one for its own.
        with pytest.raises(UnavailableError):
            await hub.client.call_entity(EntityId("counter", "first"), "burst")
        await restoring.arrived.wait()
        async with anyio.create_task_group() as tasks:

            async def burst() -> None:
                with pytest.raises((UnavailableError, ParkedError)):
                    await hub.client.call_entity(POISON, "burst")

            tasks.start_soon(burst)
            await settle()
            restoring.open()
        await settle()

        await check_well(hub, 1)
        code.poison = None
        assert await persist(hub.client.call_entity, POISON, "add", 1) == 1
        await hub.client.terminate("open")


async def test_a_turn_that_crashes_fails_what_depended_on_it_alone_and_says_so() -> None:
    outcomes: dict[int, Any] = {}

    def entity(n: int) -> EntityId[Any]:
        return EntityId("counter", str(n % 7))

    async with within(), hub_on(MemoryStore(), Code()) as hub:

        async def call(n: int) -> None:
            try:
                if n == 25:
                    outcomes[n] = await hub.client.call_entity(POISON, "burst")
                else:
                    outcomes[n] = await hub.client.call_entity(entity(n), "add", 1)
            except PerdureError as error:
                outcomes[n] = error

        async def start(n: int) -> None:
            await hub.client.start_new("quiet", instance_id=str(n), request_id=f"start-{n}")
            outcomes[n] = (await hub.client.get_handle(str(n)).status()).runtime_status

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(call, n)
            for n in range(100, 110):
                tasks.start_soon(start, n)
        status = await hub.client.get_entity(WITNESS)

    crashed = outcomes.pop(25)
    assert isinstance(crashed, UnavailableError)
    assert f"a turn of {POISON} crashed (Crash: poison)" in str(crashed)
    assert "safe to repeat" in str(crashed)
    assert [outcomes[n] for n in range(100, 110)] == [RuntimeStatus.RUNNING] * 10
    for key in range(7):  # each was applied once
        sums = sorted(outcomes[n] for n in range(50) if n % 7 == key and n != 25)
        assert sums == list(range(1, len(sums) + 1))
    assert status is None


async def test_delayed_signals_purges_and_releases_do_not_notice_anothers_crash() -> None:
    clock, outcomes, store = ManualClock(), dict[str, Any](), FaultyStore(MemoryStore())
    hub = Hub(app_with(Code()), store=store, partitions=1, clock=clock)
    async with within(10), hub:
        client = hub.client
        partition = partitions_of(hub)[0]
        for n in range(4):
            handle = await client.start_new("quiet", instance_id=f"ended-{n}")
            await handle.raise_event("end")
            await handle.result()
            lock = LockRequest(Caller(f"gone-{n}", 1, 1), [f"@counter@locked-{n}"], 0)
            partition.post(f"@counter@locked-{n}", lock)

        async def is_prepared() -> bool:
            return len([one async for one in client.query_entities(locked=True)]) == 4

        await until(is_prepared)
        await settle()
        partition.catalog.evict(100)
        partition.catalog.evict(100)
        await client.call_entity(POISON, "add", 0)  # so that its turn comes at once

        async def note(name: str, call: Callable[[], Awaitable[Any]]) -> None:
            try:
                outcomes[name] = await call()
            except PerdureError as error:
                outcomes[name] = error

        async def later(n: int, id: str | None) -> None:
            await client.signal_entity(
                EntityId("counter", f"later-{n}"),
                "add",
                1,
                at=timedelta(hours=1),
                request_id=id and f"{id}-{n}",
            )

        def begin(tasks: Any, part: int) -> None:
            for n in range(part, 4, 2):
                owner = [f"gone-{n}", 1, 1]
                for turn in range(2):  # the same request, twice
                    tasks.start_soon(note, f"r{turn}-{n}", partial(later, n, "r"))
                tasks.start_soon(note, f"s-{n}", partial(later, n, None))
                tasks.start_soon(
                    note, f"p-{n}", partial(Door(partition).purge_ended, [f"ended-{n}"])
                )
                tasks.start_soon(note, f"u-{n}", partial(unlock, n, owner))

        async def unlock(n: int, owner: list[Any]) -> None:
            await Door(partition).unlock(f"@counter@locked-{n}", owner)

        async with anyio.create_task_group() as tasks:
            gate = store.hold("commit")
            tasks.start_soon(client.call_entity, WELL, "add", 1)
            await gate.arrived.wait()
            begin(tasks, 0)  # all in the batch behind that commit
            await settle()
            tasks.start_soon(note, "burst", partial(client.call_entity, POISON, "burst"))
            begin(tasks, 1)
            await settle()
            gate.open()
        crashed = outcomes.pop("burst")
        assert isinstance(crashed, UnavailableError)
        purged = {f"p-{n}": [(f"ended-{n}", False)] for n in range(4)}
        rest = {f"{what}-{n}": None for what in ("r0", "r1", "s", "u") for n in range(4)}
        assert outcomes == purged | rest
        assert [one async for one in client.query(instance_id_prefix="ended")] == []
        assert [one async for one in client.query_entities(locked=True)] == []
        clock.advance(3_601)
        for n in range(4):  # each was kept once
            id: EntityId[Any] = EntityId("counter", f"later-{n}")
            await until(lambda id=id: _is(client, id, 2))  # type: ignore[misc]


async def _is(client: Client, id: EntityId[Any], value: int) -> bool:
    return bool(await client.call_entity(id, "add", 0) == value)


async def test_an_activity_and_an_event_under_way_do_not_notice_anothers_crash() -> None:
    local, begun, go = app_with(Code()), [0], anyio.Event()

    @local.activity
    async def long() -> str:
        begun[0] += 1
        await go.wait()
        return "done"

    @local.orchestration
    async def runs(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(long)

    async with within(), hub_on(MemoryStore(), local) as hub:
        handle = await hub.client.start_new("runs")
        await until_begun(begun)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="crashed"):
                await hub.client.call_entity(POISON, "burst")
            await check_well_again(hub)
        go.set()

        assert await handle.result() == "done"
    assert begun == [1]


async def until_begun(begun: list[int]) -> None:
    async def ask() -> bool:
        return begun[0] > 0

    await until(ask)


async def test_an_entity_that_crashes_at_its_very_first_turns_is_parked() -> None:
    async with within(), hub_on(MemoryStore(), Code()) as hub:
        for _ in range(3):
            with pytest.raises(UnavailableError, match="crashed"):
                await hub.client.call_entity(POISON, "burst")

        with pytest.raises(ParkedError):
            await hub.client.call_entity(POISON, "add", 1)
        assert await parked_entities(hub) == [str(POISON)]
        await check_well(hub, 1)


async def test_an_instance_whose_very_first_turn_crashes_is_parked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_first, crashes = OrchestrationActor.new_context, [0]

    def crash(actor: OrchestrationActor, executor: Any) -> Any:
        if actor.instance_id == "i" and crashes[0] >= 0:
            crashes[0] += 1
            raise ZeroDivisionError("a bug, for the test")
        return run_first(actor, executor)

    monkeypatch.setattr(OrchestrationActor, "new_context", crash)
    async with within(), hub_on(MemoryStore(), CALM) as hub:
        for _ in range(3):
            with pytest.raises(UnavailableError, match="a turn of i crashed"):
                await hub.client.start_new("quiet", instance_id="i")
        await hub.client.start_new("quiet", instance_id="i")
        (parked,) = await parked_instances(hub)
        assert parked.parked is not None
        assert parked.parked.type == "Crash"
        assert crashes == [3]
        await check_well(hub, 1)

        crashes[0] = -1  # repaired
        await hub.client.retry("i")
        await hub.client.raise_event("i", "end", "well")
        assert await hub.client.wait("i") == "well"
