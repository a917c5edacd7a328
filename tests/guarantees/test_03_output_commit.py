"""Guarantee 3: nothing leaves a partition before the checkpoint it depends on is durable.

The store's commits are held back. What must wait is then seen to wait, and to go on once they are
let through; what may run ahead is seen to.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure import App, EntityContext, EntityId, Hub, MemoryStore, OrchestrationContext, Settings
from tests.faults import FaultyStore, JumpingClock, dying, settle, within
from tests.guarantees.workloads import entity_in, id_in

app = App()
ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@app.entity
class Note:
    text: str = ""

    def write(self, text: str) -> str:
        self.text += text
        ran.append(text)
        return self.text

    def copy_to(self, key: str, ctx: EntityContext) -> None:
        self.text += "copied"
        ran.append("copy")
        ctx.signal_entity(EntityId(Note, key), Note.write, "copied")


@app.activity
async def work(name: str) -> str:
    ran.append(name)
    return name


@app.orchestration
async def working(ctx: OrchestrationContext) -> str:
    ran.append("begun")
    return await ctx.call_activity(work, "worked")


@app.orchestration
async def child(ctx: OrchestrationContext) -> int:
    ran.append("child")
    return 1


@app.orchestration
async def parent(ctx: OrchestrationContext, id: str) -> int:
    ran.append("parent")
    return await ctx.call_sub_orchestrator(child, instance_id=id)


def hub_on(store: FaultyStore) -> Hub:
    # A test that fails leaves commits held back; it should not wait for them for long.
    settings = Settings(drain_s=1)
    return Hub(app, store=store, partitions=3, clock=JumpingClock(), settings=settings)


async def test_a_call_is_answered_only_when_its_effect_is_durable() -> None:
    store, answers = FaultyStore(MemoryStore()), list[Any]()
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit")

        async def call() -> None:
            answers.append(await hub.client.call_entity(EntityId(Note, "a"), Note.write, "x"))

        tasks.start_soon(call)
        await gate.arrived.wait()
        await settle()

        assert ran == ["x"]
        assert answers == []
        gate.open()

    assert answers == ["x"]


async def test_a_signal_and_a_start_are_acknowledged_only_when_durable() -> None:
    store, answers = FaultyStore(MemoryStore()), list[str]()
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit")

        async def signal() -> None:
            await hub.client.signal_entity(EntityId(Note, "a"), Note.write, "x")
            answers.append("signalled")

        async def start() -> None:
            await hub.client.start_new(child, instance_id="child")
            answers.append("started")

        tasks.start_soon(signal)
        tasks.start_soon(start)
        await gate.arrived.wait()
        await settle()

        assert sorted(ran) == ["child", "x"]
        assert answers == []
        gate.open()

    assert sorted(answers) == ["signalled", "started"]


async def test_an_acknowledgement_waits_for_the_commit_to_return_and_not_only_to_be_applied() -> (
    None
):
    store, answers = FaultyStore(MemoryStore()), list[Any]()
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("committed")

        async def call() -> None:
            answers.append(await hub.client.call_entity(EntityId(Note, "a"), Note.write, "x"))

        tasks.start_soon(call)
        await gate.arrived.wait()
        await settle()

        assert store.applied == 1
        assert answers == []
        gate.open()

    assert answers == ["x"]


async def test_an_activity_starts_only_when_the_call_of_it_is_durable() -> None:
    store = FaultyStore(MemoryStore())
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit")
        tasks.start_soon(lambda: hub.client.start_new(working, instance_id="w"))
        await gate.arrived.wait()
        await settle()

        assert ran == ["begun"]
        gate.open()
        assert await hub.client.wait("w") == "worked"

    assert ran == ["begun", "worked"]


async def test_an_activity_whose_call_never_became_durable_never_runs() -> None:
    store = FaultyStore(MemoryStore())
    with dying():
        async with within(), hub_on(store) as hub:
            store.crash_next()
            await hub.client.start_new(working, instance_id="w")

    assert ran == ["begun"]


async def test_a_message_to_another_partition_leaves_only_when_it_is_durable() -> None:
    store = FaultyStore(MemoryStore())
    source, target = entity_in(0, Note, "from"), entity_in(1, Note, "to")
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit", partition=0)
        tasks.start_soon(hub.client.signal_entity, source, Note.copy_to, target.key)
        await gate.arrived.wait()
        await settle()

        assert ran == ["copy"]
        gate.open()

    assert ran == ["copy", "copied"]


async def test_a_child_in_another_partition_starts_only_when_its_parent_is_durable() -> None:
    store = FaultyStore(MemoryStore())
    first, second = id_in(0, "parent"), id_in(1, "child")
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit", partition=0)
        tasks.start_soon(lambda: hub.client.start_new(parent, second, instance_id=first))
        await gate.arrived.wait()
        await settle()

        assert ran == ["parent"]
        gate.open()
        assert await hub.client.wait(first) == 1

    assert ran == ["parent", "child"]


async def test_a_message_that_is_not_durable_is_not_sent_when_its_target_recovers() -> None:
    store = FaultyStore(MemoryStore())
    source, target = entity_in(0, Note, "from"), entity_in(1, Note, "to")
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit", partition=0)
        tasks.start_soon(hub.client.signal_entity, source, Note.copy_to, target.key)
        await gate.arrived.wait()

        # The other partition loses a commit, recovers, and asks everybody for what they owe it.
        store.fail_next()
        with pytest.raises(Exception, match="repeat"):
            await hub.client.signal_entity(target, Note.write, "lost")
        await settle()

        assert ran == ["copy", "lost"]
        gate.open()

    assert ran == ["copy", "lost", "copied"]


async def test_a_reader_of_states_sees_nothing_that_is_not_durable() -> None:
    store = FaultyStore(MemoryStore())
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit")
        tasks.start_soon(hub.client.signal_entity, EntityId(Note, "a"), Note.write, "x")
        await gate.arrived.wait()

        assert await hub.client.read_entity_state(EntityId(Note, "a")) is None
        gate.open()

    assert ran == ["x"]


async def test_turns_inside_a_partition_run_ahead_of_its_commit() -> None:
    store = FaultyStore(MemoryStore())
    source, target = entity_in(0, Note, "from"), entity_in(0, Note, "to")
    async with within(), hub_on(store) as hub, anyio.create_task_group() as tasks:
        gate = store.hold("commit")
        tasks.start_soon(hub.client.signal_entity, target, Note.write, "first")
        await gate.arrived.wait()
        tasks.start_soon(hub.client.signal_entity, source, Note.copy_to, target.key)
        await settle()

        # Nothing is durable yet, and still the second turn sees the first one's state.
        assert store.applied == 0
        assert ran == ["first", "copy", "copied"]
        gate.open()


async def test_one_commit_takes_what_gathered_while_the_one_before_was_stored() -> None:
    store = FaultyStore(MemoryStore())
    note = EntityId(Note, "a")
    async with within(), hub_on(store) as hub:
        async with anyio.create_task_group() as tasks:
            gate = store.hold("commit")
            tasks.start_soon(hub.client.signal_entity, note, Note.write, "0")
            await gate.arrived.wait()
            for n in range(1, 100):
                tasks.start_soon(hub.client.signal_entity, note, Note.write, str(n))
            await settle()
            gate.open()
        commits = store.commits

    assert len(ran) == 100
    assert commits <= 3


async def test_a_run_ahead_turn_is_taken_back_with_the_commit_that_fails() -> None:
    store, note = FaultyStore(MemoryStore()), EntityId(Note, "a")
    failed = list[str]()
    async with within(), hub_on(store) as hub:
        async with anyio.create_task_group() as tasks:
            gate = store.hold("commit")

            async def write(text: str) -> None:
                try:
                    await hub.client.signal_entity(note, Note.write, text)
                except Exception as error:
                    failed.append(f"{text}: {type(error).__name__}")

            tasks.start_soon(write, "stored")
            await gate.arrived.wait()
            tasks.start_soon(write, "ahead")
            await settle()
            store.fail_next()
            gate.open()
        state = await hub.client.read_entity_state(note)

    assert failed == ["ahead: UnavailableError"]
    assert state is not None
    assert state.text == "stored"
