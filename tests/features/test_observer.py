"""An observer is told of turns, checkpoints and activities; whatever it does, the hub goes on."""

from __future__ import annotations

from collections import Counter as Tally
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import perdure
from perdure import (
    ActivityFacts,
    App,
    CheckpointFacts,
    EntityId,
    Hub,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    Store,
    TurnFacts,
    UsageError,
)
from tests.faults import Crash, let_turns_crash
from tests.runtime.harness import FaultyStore, disk_error

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def wait(self, amount: int) -> int:
        await anyio.lowlevel.checkpoint()
        self.value += amount
        return self.value

    def crash(self) -> None:
        raise Crash("for the test")


@app.activity
def double(n: int) -> int:
    return 2 * n


@app.activity
async def halve(n: int) -> int:
    if n % 2:
        raise ValueError("too odd")
    return n // 2


@app.orchestration
async def both(ctx: OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(halve, await ctx.call_activity(double, n))


@app.orchestration
async def odd(ctx: OrchestrationContext, n: int) -> int:
    return await ctx.call_activity(halve, n)


class Listener:
    """Writes down what it is told, each end with its begin."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.ended: list[tuple[Any, Any]] = []

    def _begin(self, facts: Any) -> Any:
        self.open.append(facts)
        return facts

    def _end(self, begun: Any, outcome: Any) -> None:
        self.open.remove(begun)
        self.ended.append((begun, outcome))

    begin_turn = begin_checkpoint = begin_activity = _begin
    end_turn = end_checkpoint = end_activity = _end

    def of(self, kind: type) -> list[tuple[Any, Any]]:
        return [(facts, outcome) for facts, outcome in self.ended if type(facts) is kind]


class Bad:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> None:
            raise ZeroDivisionError(name)

        return fail


X = EntityId(Counter, "x")


async def test_turns_of_entities_and_instances_are_told_with_their_messages() -> None:
    listener = Listener()

    async with Hub(app, observer=listener) as hub:
        await hub.client.call_entity(X, Counter.add, 1)
        await hub.client.call_entity(X, Counter.wait, 1)
        handle = await hub.client.start_new(both, 3, instance_id="i")
        assert await handle.result(10) == 3

    turns = listener.of(TurnFacts)
    assert not listener.open
    assert {outcome for _, outcome in turns} == {None}
    messages: Tally[str] = Tally()
    for turn, _ in turns:
        messages[turn.actor] += turn.messages
    assert messages == {"@counter@x": 2, "i": 3}


async def test_activities_are_told_by_name_and_attempt_with_how_they_ended() -> None:
    listener = Listener()

    async with Hub(app, observer=listener) as hub:
        await (await hub.client.start_new(both, 3, instance_id="i")).result(10)
        with pytest.raises(OrchestrationFailedError):
            await (await hub.client.start_new(odd, 3, instance_id="j")).result(10)

    told = sorted((tuple(facts), outcome) for facts, outcome in listener.of(ActivityFacts))
    assert told == [
        (("double", "i", 1, 1, 1, None), None),
        (("halve", "i", 2, 1, 1, None), None),
        (("halve", "j", 1, 1, 1, None), "ValueError"),
    ]
    assert not listener.open


async def test_checkpoints_are_told_in_order_and_those_that_failed_with_the_error() -> None:
    listener, store = Listener(), FaultyStore(MemoryStore())

    async with Hub(app, store=store, partitions=1, observer=listener) as hub:
        await hub.client.call_entity(X, Counter.add, 1)
        store.faults.commit = disk_error()
        with pytest.raises(perdure.PerdureError):
            await hub.client.call_entity(X, Counter.add, 1)
        store.faults.commit = None
        await hub.client.call_entity(X, Counter.add, 1)

    checkpoints = listener.of(CheckpointFacts)
    durable = [facts.sequence for facts, error in checkpoints if error is None]
    assert durable == sorted(set(durable))
    failed = [error for _, error in checkpoints if error is not None]
    assert failed
    assert all(isinstance(error, perdure.StorageError) for error in failed)


async def test_a_turn_that_crashed_is_told_with_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_turns_crash(monkeypatch)
    listener = Listener()

    async with Hub(app, observer=listener) as hub:
        with pytest.raises(perdure.PerdureError):
            await hub.client.call_entity(X, Counter.crash)
        assert await hub.client.call_entity(X, Counter.add, 1) == 1

    assert not listener.open
    crashed = [error for _, error in listener.of(TurnFacts) if error is not None]
    assert crashed
    assert {type(error) for error in crashed} == {Crash}


@pytest.mark.by_turns
@pytest.mark.parametrize("where", ["memory", "sqlite"])
async def test_an_observer_that_raises_changes_nothing_and_is_logged(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store: Store | str = MemoryStore() if where == "memory" else f"sqlite:{tmp_path / 'hub'}"

    bad: Any = Bad()

    async with Hub(app, store=store, observer=bad) as hub:
        assert await hub.client.call_entity(X, Counter.add, 1) == 1
        assert await (await hub.client.start_new(both, 3)).result(10) == 3

    assert "the observer raised ZeroDivisionError in begin_turn: " in caplog.text
    assert "in begin_checkpoint: " in caplog.text
    assert "in begin_trace: " in caplog.text


@pytest.mark.parametrize("method", ["begin_activity", "end_activity"])
async def test_one_that_raises_about_activities_changes_nothing_and_is_logged(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    setattr(listener, method, fail)
    async with Hub(app, observer=listener) as hub:
        assert await (await hub.client.start_new(both, 3)).result(10) == 3

    assert f"in {method}: " in caplog.text
    told = [facts for facts in listener.open if type(facts) is ActivityFacts]
    assert len(told) == (0 if method == "begin_activity" else 2)


async def test_an_observer_that_gives_nothing_at_a_begin_is_told_the_end() -> None:
    ended: list[tuple[Any, Any]] = []

    class Silent(Listener):
        def begin_activity(self, facts: ActivityFacts) -> None: ...

        def end_activity(self, begun: Any, failure: Any) -> None:
            ended.append((begun, failure))

    async with Hub(app, observer=Silent()) as hub:
        assert await (await hub.client.start_new(both, 3)).result(10) == 3

    assert ended == [(None, None), (None, None)]


async def test_each_thread_of_a_hub_tells_the_observer() -> None:
    listener = Listener()

    async with Hub(app, shards=2, partitions=4, observer=listener) as hub:
        for n in range(20):
            await hub.client.call_entity(EntityId(Counter, str(n)), Counter.add, 1)

    partitions = {facts.partition for facts, _ in listener.of(TurnFacts)}
    assert partitions == {0, 1, 2, 3}


@pytest.mark.parametrize("observer", [5, Listener, object()])
def test_what_is_no_observer_is_refused(observer: Any) -> None:
    with pytest.raises(UsageError, match="observer must be an object with the methods begin_turn"):
        Hub(app, observer=observer)


def test_an_observer_is_refused_where_the_work_is_done_in_other_processes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its own process: with workers, name one"):
        Hub(app, store=f"sqlite:{tmp_path / 'hub'}", workers=1, observer=Listener())
