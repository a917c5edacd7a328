from __future__ import annotations

import threading
import time
from importlib import import_module
from typing import Any

import anyio
import pytest

from perdure import (
    MISSING,
    App,
    EntityId,
    MemoryStore,
    OrchestrationContext,
    PerdureError,
    UsageError,
)
from perdure.storage import slices
from perdure.testing import CrashDifference, TestHub, crash_everywhere
from tests.testing.shop import (
    DAY,
    Account,
    Order,
    Stock,
    Visits,
    app,
    approval,
    buy,
    charge,
    crawl,
    family,
    fetch,
    pack,
    rounds,
    tick,
    transfer,
)

BOOK = Order("book", 12)


async def saga(hub: TestHub) -> object:
    """A saga that has to undo what it did, and one that does not."""
    hub.fake(pack, calls=lambda order: {"book": "packed"}[order.item])
    done = await hub.client.start_new(buy, BOOK)
    undone = await hub.client.start_new(buy, Order("pen", 3))
    await hub.advance(DAY)
    stock = [
        await hub.client.call_entity(EntityId(Stock, item), Stock.take, 1)
        for item in ("book", "pen")
    ]
    charged = sorted(call.input.price for call in hub.calls(charge))
    return await done.result(), await undone.result(), stock, charged


async def approvals(hub: TestHub) -> object:
    handles = [
        await hub.client.start_new(approval, 48.0, instance_id=f"approval-{number}")
        for number in range(3)
    ]
    await handles[0].raise_event("approved", True)
    await handles[1].raise_event("approved", False)
    await hub.advance(2 * DAY)
    return [await handle.result() for handle in handles]


async def signals(hub: TestHub) -> object:
    ids = [EntityId(Stock, item) for item in ("book", "pen", "cup")]
    await hub.client.signal_entities([(id, Stock.take, 1) for id in ids for _ in range(2)])
    for id in ids:
        await hub.client.signal_entity(id, Stock.give, 5, at=60)
    await hub.advance(60)
    made = await hub.client.call_entity(ids[0], Stock.order, "book")
    items: list[int] = []
    for id in ids:
        state = await hub.client.read_entity_state(id)
        items.append(0 if state is None else state.items)
    await hub.advance(60)
    return made, items, await hub.client.wait(made)


async def retries(hub: TestHub) -> object:
    attempts: list[int] = []

    async def fail_at_first(context: Any) -> str:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise OSError("no network")
        return "there"

    from perdure import ActivityContext

    fail_at_first.__annotations__["context"] = ActivityContext
    hub.fake(fetch, calls=fail_at_first)
    handle = await hub.client.start_new(crawl, "a")
    await hub.advance(3600)
    return await handle.result(), sorted(set(attempts)), len(hub.calls(fetch))


async def locks(hub: TestHub) -> object:
    handles = [await hub.client.start_new(transfer, [*names]) for names in ("abc", "ca")]
    results = [await handle.result() for handle in handles]
    last = [await hub.client.call_entity(EntityId(Account, name), Account.add, 0) for name in "abc"]
    return results, last


async def children(hub: TestHub) -> object:
    handle = await hub.client.start_new(family, 2)
    await hub.advance(60)
    leaves = await hub.client.read_entity_state(EntityId(Visits, "leaves"))
    return await handle.result(), leaves


async def continued(hub: TestHub) -> object:
    handle = await hub.client.start_new(rounds, 2)
    for name in ("one", "two", "three"):
        await handle.raise_event("name", name)
    result = await handle.result()
    return result, [call.input.item for call in hub.calls(charge)]


async def crowd(hub: TestHub) -> object:
    """Many clients at once, and time that passes meanwhile."""
    results: dict[int, str] = {}

    async def one(price: int) -> None:
        handle = await hub.client.start_new(buy, Order("book", price), instance_id=f"buy-{price}")
        await hub.client.signal_entity(EntityId(Visits, "shop"), Visits.add, 1)
        results[price] = await handle.result()

    async with anyio.create_task_group() as tasks:
        for price in range(3):
            tasks.start_soon(one, price)
        tasks.start_soon(hub.advance, 2 * DAY)
    return sorted(results.items()), await hub.client.read_entity_state(EntityId(Visits, "shop"))


async def alone(hub: TestHub) -> object:
    return await (await hub.client.start_new(tick, 5)).result()


GOOD: list[Any] = [saga, approvals, signals, retries, locks, children, continued, crowd]


@pytest.mark.by_turns
@pytest.mark.parametrize("scenario", GOOD, ids=lambda one: one.__name__)
async def test_nothing_is_found_in_a_good_program(scenario: Any) -> None:
    points = await crash_everywhere(app, scenario)

    assert points >= 4


@pytest.mark.by_turns
async def test_a_scenario_whose_time_advances_by_itself_is_tried_as_well() -> None:
    points = await crash_everywhere(app, alone, auto_advance=True)

    assert points >= 6


@pytest.mark.parametrize("scenario", [saga, crowd], ids=lambda one: one.__name__)
def test_there_are_as_many_commits_on_every_loop(scenario: Any) -> None:
    points = [
        anyio.run(crash_everywhere, app, scenario, backend=backend)
        for backend in ("asyncio", "trio")
    ]

    assert len(set(points)) == 1, points


@pytest.mark.by_turns
@pytest.mark.parametrize("took_s", [0.0, 0.003])
async def test_how_long_anything_takes_makes_no_other_commits(took_s: float) -> None:
    app = App()

    @app.entity
    class Slow:
        value: int = 0

        def add(self) -> int:
            time.sleep(took_s)
            self.value += 1
            return self.value

    async def scenario(hub: TestHub) -> object:
        # Of one partition, so that one commit takes all of them.
        ids = [EntityId(Slow, f"slow::{number}") for number in range(5)]
        await hub.client.signal_entities([(id, Slow.add, MISSING) for id in ids])
        return [await hub.client.call_entity(id, Slow.add) for id in ids[:1]]

    assert await crash_everywhere(app, scenario) == 2


async def test_sync_activities_run_where_their_order_is_fixed() -> None:
    app = App()
    threads: list[int] = []

    @app.activity
    def look(number: int) -> int:
        threads.append(threading.get_ident())
        return number

    @app.orchestration
    async def run(ctx: OrchestrationContext) -> list[int]:
        return await ctx.task_all([ctx.call_activity(look, number) for number in range(5)])

    async def scenario(hub: TestHub) -> object:
        return await (await hub.client.start_new(run)).result()

    assert await crash_everywhere(app, scenario) >= 2
    assert set(threads) == {threading.get_ident()}


class Mailer:
    """An application that sends e-mails, from where it should and from where it should not."""

    def __init__(self) -> None:
        self.app = app = App()
        self.sent: list[str] = []
        sent = self.sent

        @app.activity
        async def send(to: str) -> None:
            if to not in sent:
                sent.append(to)

        @app.orchestration
        async def good(ctx: OrchestrationContext, to: str) -> None:
            await ctx.create_timer(60)
            await ctx.call_activity(send, to)

        @app.orchestration
        async def bad(ctx: OrchestrationContext, to: str) -> None:
            sent.append(to)
            await ctx.create_timer(60)
            await ctx.call_activity(send, f"{to} again")

        @app.entity
        class Counter:
            value: int = 0

            def add(self) -> int:
                self.value += 1
                sent.append("counted")
                return self.value

        self.counter: Any = Counter

    async def play(self, hub: TestHub, name: str) -> object:
        self.sent.clear()
        handle = await hub.client.start_new(name, "me", instance_id="mail-1")
        await hub.advance(60)
        await handle.result()
        return self.sent


async def test_a_mail_that_an_orchestration_sends_itself_is_found() -> None:
    mailer = Mailer()

    assert await crash_everywhere(mailer.app, lambda hub: mailer.play(hub, "good")) >= 3
    with pytest.raises(CrashDifference) as raised:
        await crash_everywhere(mailer.app, lambda hub: mailer.play(hub, "bad"))

    found = raised.value
    assert found.expected == ["me", "me again"]
    assert found.got == ["me", "me", "me again"]
    assert (found.point, found.when) == (1, "before")
    assert isinstance(found, (PerdureError, AssertionError))
    assert "crashes at commit 1 of" in str(found)
    assert "['me', 'me', 'me again']" in str(found)


async def test_a_mail_that_an_operation_of_an_entity_sends_itself_is_found() -> None:
    mailer = Mailer()

    async def scenario(hub: TestHub) -> object:
        mailer.sent.clear()
        await hub.client.call_entity(EntityId(mailer.counter, "a"), "add")
        return mailer.sent

    with pytest.raises(CrashDifference, match="'counted', 'counted'"):
        await crash_everywhere(mailer.app, scenario)


async def test_a_difference_says_what_was_durable_and_what_came_after() -> None:
    app = App()
    done: list[str] = []

    @app.activity
    async def work() -> str:
        return "worked"

    @app.entity
    class Counter:
        value: int = 0

        def add(self) -> None:
            self.value += 1

    @app.orchestration
    async def replayed(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(work)
        await ctx.call_entity(EntityId(Counter, "a"), Counter.add)
        await ctx.create_timer(60)
        done.append("the end")
        await ctx.create_timer(60)

    async def scenario(hub: TestHub) -> object:
        done.clear()
        handle = await hub.client.start_new(replayed, instance_id="replayed-1")
        await hub.advance(120)
        await handle.result()
        return done

    with pytest.raises(CrashDifference) as raised:
        await crash_everywhere(app, scenario)

    found = raised.value
    before = [event.event_type for event in found.durable.histories["replayed-1"]]
    after = [event.event_type for event in found.after.histories["replayed-1"]]
    assert found.when == "before"
    assert before[-1] == "TimerCreated"
    assert after[: len(before)] == before
    assert after[-1] == "ExecutionCompleted"
    assert found.durable.instances["replayed-1"].runtime_status == "Running"
    assert found.after.instances["replayed-1"].runtime_status == "Completed"
    assert repr(found.durable.entities["@counter@a"].state) == "Counter(value=1)"
    told = str(found)
    assert "replayed-1 (replayed) Running: " in told.partition("what came after")[0]
    assert "replayed-1 (replayed) Completed: TimerFired" in told.partition("what came after")[2]


async def test_what_a_scenario_raises_at_a_crash_is_a_difference() -> None:
    app = App()
    began: list[str] = []

    @app.orchestration
    async def once(ctx: OrchestrationContext) -> str:
        began.append(ctx.instance_id)
        if len(began) > 1:
            raise ValueError("begun twice")
        return "well"

    async def scenario(hub: TestHub) -> object:
        began.clear()
        return await (await hub.client.start_new(once)).result()

    with pytest.raises(CrashDifference, match="raises OrchestrationFailedError") as raised:
        await crash_everywhere(app, scenario)

    assert "begun twice" in str(raised.value.__cause__)
    assert raised.value.got is raised.value.__cause__


@pytest.mark.by_turns
async def test_a_scenario_that_hangs_at_a_crash_is_a_difference() -> None:
    app = App()
    began: list[str] = []

    @app.orchestration
    async def once(ctx: OrchestrationContext) -> None:
        began.append(ctx.instance_id)
        if len(began) > 1:
            await ctx.wait_for_external_event("never")

    async def scenario(hub: TestHub) -> object:
        began.clear()
        await (await hub.client.start_new(once)).result()
        return "well"

    with pytest.raises(CrashDifference, match=r"not ended within 0\.2 seconds"):
        await crash_everywhere(app, scenario, run_s=0.2)


async def test_a_scenario_that_differs_by_itself_is_refused() -> None:
    runs: list[int] = []

    async def scenario(hub: TestHub) -> object:
        runs.append(1)
        return len(runs)

    with pytest.raises(UsageError, match="without any crash it gives 1, and the next time 2"):
        await crash_everywhere(app, scenario)
    assert len(runs) == 2


async def test_what_looks_the_same_and_is_not_is_said_to_be_so() -> None:
    async def scenario(hub: TestHub) -> object:
        return float("nan")

    with pytest.raises(UsageError, match="the next time nan, which looks the same but is not by"):
        await crash_everywhere(app, scenario)


async def test_a_scenario_that_returns_what_it_appends_to_is_compared_all_the_same() -> None:
    runs: list[int] = []

    async def scenario(hub: TestHub) -> object:
        runs.append(1)
        return runs

    with pytest.raises(UsageError, match=r"it gives \[1\], and the next time \[1, 1\]"):
        await crash_everywhere(app, scenario)


async def test_what_has_no_equal_is_refused() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        def __hash__(self) -> int:
            return 0

    async def scenario(hub: TestHub) -> object:
        return Odd()

    with pytest.raises(UsageError, match=r"cannot be compared: .* raises ValueError: ambiguous"):
        await crash_everywhere(app, scenario)


@pytest.mark.by_turns
async def test_a_scenario_may_have_crashes_of_its_own() -> None:
    mailer = Mailer()

    async def scenario(hub: TestHub) -> object:
        mailer.sent.clear()
        handle = await hub.client.start_new("good", "me", instance_id="mail-1")
        await hub.crash()
        await hub.advance(60)
        await handle.result()
        bad = await hub.client.start_new("bad", "you", instance_id="mail-2")
        await hub.advance(60)
        await bad.result()
        await hub.crash()
        return mailer.sent

    with pytest.raises(CrashDifference) as raised:
        await crash_everywhere(mailer.app, scenario)

    assert raised.value.expected == ["me", "you", "you again"]
    # Of the crash that makes the difference, and not of the scenario's own.
    durable = raised.value.durable.instances
    assert durable["mail-1"].runtime_status == "Completed"
    assert "mail-2" not in durable or durable["mail-2"].runtime_status != "Completed"


async def test_an_error_of_the_scenario_itself_comes_out_as_it_is() -> None:
    async def scenario(hub: TestHub) -> object:
        raise LookupError("a mistake in the test")

    with pytest.raises(LookupError, match="a mistake in the test"):
        await crash_everywhere(app, scenario)


@pytest.mark.by_turns
async def test_each_commit_is_tried_before_and_after_it_is_durable() -> None:
    tried: list[tuple[int, str]] = []

    points = await crash_everywhere(
        app, approvals, on_point=lambda point, when: tried.append((point, when))
    )

    assert tried == [
        (point, when) for point in range(1, points + 1) for when in ("before", "after")
    ]


async def test_a_scenario_without_commits_has_no_points() -> None:
    async def scenario(hub: TestHub) -> object:
        return hub.now

    assert await crash_everywhere(app, scenario) == 0


def gives_5(hub: TestHub) -> int:
    return 5


BAD_OPTIONS: list[dict[str, Any]] = [
    {"scenario": 5},
    {"scenario": gives_5},
    {"run_s": -1},
    {"settings": 5},
    {"store": MemoryStore()},  # with what the runs before have left
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
async def test_bad_arguments_are_refused(options: Any) -> None:
    given: dict[str, Any] = {"scenario": approvals, **options}
    with pytest.raises(UsageError):
        await crash_everywhere(app, **given)


@pytest.mark.by_turns
async def test_the_order_of_tasks_is_let_go_again() -> None:
    scheduler: Any = import_module("trio._core._run")
    before = slices.slice_s, scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r

    await crash_everywhere(app, alone, auto_advance=True)

    assert before[0] < 1
    assert before == (
        slices.slice_s,
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING,
        scheduler._r,
    )
