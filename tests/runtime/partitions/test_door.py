from __future__ import annotations

from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityContext,
    InstanceNotFoundError,
    MailboxFullError,
    ManualClock,
    OrchestrationContext,
    RequestIdReusedError,
    StoreDamagedError,
    UnavailableError,
)
from perdure.actors.messages import ActivityCall, Caller, Command, Event, Operation, Start
from perdure.runtime.partitions.door import Door
from perdure.runtime.placement.claims import claim_of
from perdure.runtime.placement.places import Frame, MovedError
from perdure.runtime.scheduling.waiter import Waiter
from tests.runtime.harness import FaultyStore
from tests.runtime.partitions.alone import Alone, alone
from tests.runtime.told import Told

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def fail(self, ctx: EntityContext) -> None:
        raise ValueError("no")


@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> Any:
    if name == "fail":
        raise ValueError("no")
    return await ctx.wait_for_external_event(name)


KEY = "@counter@a"


def add(amount: int = 1) -> Operation:
    return Operation("add", b"%d" % amount, call=True)


def start(name: str = "go") -> Start:
    return Start("flow", None, b'"%b"' % name.encode())


def go(data: bytes = b"7") -> Event:
    return Event("go", data)


class Heard:
    """Whether somebody who waits has heard, and what."""

    def __init__(self, one: Alone, tasks: anyio.abc.TaskGroup, waiter: Any) -> None:
        self.answers: list[Any] = []
        tasks.start_soon(self._wait, waiter)

    async def _wait(self, waiter: Any) -> None:
        try:
            self.answers.append(await waiter)
        except Exception as error:
            self.answers.append(error)


def shut(door: Door, reason: Exception | None = None) -> None:
    door.partition.gate.reason = reason or UnavailableError("the disk fails")


async def test_a_client_is_answered_when_it_is_durable_and_not_before() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        heard = Heard(one, tasks, one.door.request(KEY, add(5)))
        await one.quiet()
        assert heard.answers == []
        assert one.partition.waiting == 0  # the turn has taken it

        await one.commit()

        assert heard.answers == [b"5"]
        assert one.faults.commits == 1


async def test_the_answer_goes_to_whom_it_was_asked_for() -> None:
    async with alone(app) as one:
        told, message = Told(), add(5)

        given: Waiter = one.door.request(KEY, message, told)
        await one.settle()

        assert given is told
        assert message.target == KEY  # by which a crash knows whose it was
        assert told.told == [b"5"]


@pytest.mark.parametrize("reason", [UnavailableError("the disk fails"), MovedError("it moves")])
async def test_a_shut_door_takes_nothing_and_says_why(reason: Exception) -> None:
    async with alone(app) as one:
        door = one.door
        shut(door, reason)

        with pytest.raises(type(reason), match=str(reason)):
            door.request(KEY, add())
        with pytest.raises(type(reason)):
            door.request_new("x", start())
        with pytest.raises(type(reason)):
            door.perform(lambda: None)
        with pytest.raises(type(reason)):
            await door.claim("r", claim_of("r", KEY, add()))
        with pytest.raises(type(reason)):
            await door.request_later(KEY, add(), 5, "r")
        with pytest.raises(type(reason)):
            await door.request_once(KEY, add(), "r")
        with pytest.raises(type(reason)):
            door.unlock(KEY, ["i", 1, 1])
        with pytest.raises(type(reason)):
            await door.purge_ended(["x"])

        assert one.partition.activations == {}
        assert one.partition.requests.under_way == {}
        assert not one.partition.has_work


async def test_what_comes_in_while_a_crash_is_recovered_from_is_kept_for_later() -> None:
    async with alone(app) as one:
        shut(one.door)
        one.partition.gate.keep_aside()
        message = add()

        waiter = one.door.request(KEY, message)
        errand = one.door.perform(lambda: None)

        aside = one.partition.gate.take_aside()
        assert aside is not None
        assert [kept.reply for kept in aside] == [waiter, errand]
        assert aside[0] is message


async def test_a_full_mailbox_takes_commands_alone() -> None:
    async with alone(app, mailbox_messages_max=2) as one:
        for _ in range(2):
            one.door.request(KEY, add())

        with pytest.raises(MailboxFullError, match=KEY):
            one.door.request(KEY, add())
        one.door.request(KEY, Command("retry"))
        one.door.request("@counter@b", add())

        assert one.partition.activations[KEY].count == 3
        assert one.partition.waiting == 4


async def test_a_full_partition_takes_commands_alone() -> None:
    async with alone(app, hub_messages_max=2) as one:
        for key in ("@counter@a", "@counter@b"):
            one.door.request(key, add())

        with pytest.raises(MailboxFullError, match="partition 0"):
            one.door.request("@counter@c", add())
        one.door.request("@counter@c", Command("retry"))

        assert one.partition.waiting == 3


async def test_activities_that_wait_count_for_those_that_start_more() -> None:
    async with alone(app, hub_messages_max=2) as one:
        one.activities.waiting = 2

        with pytest.raises(MailboxFullError, match="activities included"):
            one.door.request("x", start())
        one.door.request(KEY, add())


async def test_events_that_nobody_has_taken_fill_the_mailbox_too() -> None:
    async with alone(app, mailbox_messages_max=2) as one:
        one.door.request("x", start())
        await one.settle()
        for _ in range(2):
            one.door.request("x", Event("other", b"1"))
            await one.settle()

        with pytest.raises(MailboxFullError, match="x"):
            one.door.request("x", go())
        one.door.request("x", Command("terminate"))


async def test_of_many_messages_one_that_is_refused_keeps_no_other_out() -> None:
    async with alone(app, mailbox_messages_max=1) as one, anyio.create_task_group() as tasks:
        parcels = [(KEY, add(5)), (KEY, add(6)), ("@counter@b", add(7))]
        heard = Heard(one, tasks, one.door.request_all(parcels))
        await one.settle()

        [error] = heard.answers
        assert isinstance(error, MailboxFullError)
        assert await one.call(KEY, "add", b"0") == b"5"
        assert await one.call("@counter@b", "add", b"0") == b"7"


async def test_of_many_messages_the_waiter_hears_when_all_are_durable() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        heard = Heard(one, tasks, one.door.request_all([(KEY, add()), (KEY, add())]))
        await one.quiet()
        assert heard.answers == []

        await one.commit()

        assert heard.answers == [None]


async def test_an_id_that_was_just_made_up_is_not_looked_for_in_the_store() -> None:
    async with alone(app) as one:
        reads = list[Any]()
        read, store = one.partition.store.read_instances, one.partition.store

        async def noting(keys: Any, *, payloads: bool = True) -> Any:
            reads.append(keys)
            return await read(keys, payloads=payloads)

        store.read_instances = noting  # type: ignore[method-assign]
        waiter = one.door.request_new("x", start())
        await one.settle()
        await waiter
        assert reads == []

        one.door.request("y", start())
        await one.settle()
        assert reads == [["y"]]


async def test_a_request_with_an_id_is_applied_once_whoever_repeats_it_and_when() -> None:
    store = FaultyStore()
    async with alone(app, store) as one, anyio.create_task_group() as tasks:
        both = [Heard(one, tasks, one.door.request_once(KEY, add(5), "r")) for _ in range(2)]
        await one.quiet()
        await one.settle()
        assert [heard.answers for heard in both] == [[b"5"], [b"5"]]
        assert await one.door.request_once(KEY, add(5), "r") == b"5"
        with pytest.raises(RequestIdReusedError):
            await one.door.request_once(KEY, add(6), "r")

    async with alone(app, store) as one:
        assert await one.door.request_once(KEY, add(5), "r") == b"5"
        assert await one.call(KEY, "add", b"0") == b"5"


async def test_a_request_that_is_refused_holds_its_id_for_nobody() -> None:
    async with alone(app, mailbox_messages_max=1) as one, anyio.create_task_group() as tasks:
        one.door.request(KEY, add())
        with pytest.raises(MailboxFullError):
            await one.door.request_once(KEY, add(5), "r")
        await one.settle()

        heard = Heard(one, tasks, one.door.request_once(KEY, add(5), "r"))
        await one.settle()

        assert heard.answers == [b"6"]


async def test_a_message_for_later_is_durable_at_once_and_comes_at_its_time() -> None:
    store, due = FaultyStore(), ManualClock().now() + 1_000_000
    async with alone(app, store) as one, anyio.create_task_group() as tasks:
        later = [
            Heard(one, tasks, one.door.request_later(KEY, Operation("add", b"5"), due, "r"))
            for _ in range(2)
        ]
        await one.settle()
        assert [heard.answers for heard in later] == [[None], [None]]
        await one.door.request_later(KEY, Operation("add", b"5"), due, "r")  # a repetition
        assert await one.call(KEY, "add", b"0") == b"0"

    async with alone(app, store) as one, anyio.create_task_group() as tasks:
        tasks.start_soon(one.timers.run)
        one.clock.advance(max(0, due - one.clock.now()) / 1e6 + 1)
        await one.settle()
        assert await one.call(KEY, "add", b"0") == b"5"
        tasks.cancel_scope.cancel()


async def test_a_message_for_later_is_kept_once_also_where_it_is_repeated_after_a_restart() -> None:
    store, later = FaultyStore(), Operation("add", b"5")
    due = ManualClock().now() + 1_000_000
    async with alone(app, store) as one, anyio.create_task_group() as tasks:
        Heard(one, tasks, one.door.request_later(KEY, later, due, "r"))
        await one.settle()

    async with alone(app, store) as one:
        for _ in range(2):
            with anyio.fail_after(5):
                await one.door.request_later(KEY, Operation("add", b"5"), due, "r")
        assert not one.partition.has_work
        with pytest.raises(RequestIdReusedError):
            await one.door.request_later(KEY, Operation("add", b"6"), due, "r")
        assert one.partition.requests.under_way == {}


async def test_a_message_for_later_is_refused_where_trouble_comes_while_its_id_is_read() -> None:
    async with alone(app) as one:
        read = one.partition.store.read_request

        async def read_request(request: str) -> Any:
            shut(one.door)
            return await read(request)

        one.partition.store.read_request = read_request  # type: ignore[method-assign]
        with pytest.raises(UnavailableError):
            await one.door.request_later(KEY, add(), 5, "r")

        assert one.partition.requests.under_way == {}


async def test_who_watches_hears_of_the_end_and_who_does_not_any_more_does_not() -> None:
    async with alone(app) as one:
        told, gone = Told(), Told()
        one.door.request("x", start())
        await one.settle()
        for waiter in (told, gone):
            one.door.watch_with("x", waiter)
        one.door.unwatch("x", gone)

        one.door.request("x", go())
        await one.settle()

        assert (told.told, gone.told) == ([("Completed", b"7", None)], [])


async def test_a_claim_is_kept_for_a_request_elsewhere_and_another_one_is_refused() -> None:
    store = FaultyStore()
    elsewhere = claim_of("r", "@counter@elsewhere", add(5))
    async with alone(app, store) as one:
        await one.door.claim("r", elsewhere)
        await one.settle()

    async with alone(app, store) as one:
        await one.door.claim("r", elsewhere)
        with pytest.raises(RequestIdReusedError):
            await one.door.request_once(KEY, add(5), "r")


async def test_what_is_performed_is_durable_when_its_waiter_hears() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        done: list[str] = []

        def work() -> None:
            done.append("done")
            one.partition.batch.mail_deleted.append(99)

        heard = Heard(one, tasks, one.door.perform(work))
        await one.quiet()
        assert (done, heard.answers) == (["done"], [])
        await one.settle()

        assert (done, heard.answers) == (["done"], [None])
        assert one.faults.commits == 1


async def test_all_that_gathered_is_durable_when_that_is_asked_for() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request(KEY, Operation("add", b"5"))
        await one.quiet()
        heard = Heard(one, tasks, one.door.wait_durable())

        await one.settle()

        assert heard.answers == [None]
        assert one.faults.commits == 1


async def test_nothing_gathers_in_a_partition_that_has_moved() -> None:
    async with alone(app) as one:
        shut(one.door, MovedError("it moves"))

        with pytest.raises(MovedError):
            await one.door.wait_durable()
        with pytest.raises(MovedError):
            await one.door.wait_for_end("x")


async def test_the_end_of_an_orchestration_is_told_when_it_is_durable_and_long_after() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request("x", start())
        await one.settle()
        assert one.door.is_live_here("x")
        heard = Heard(one, tasks, one.door.wait_for_end("x"))
        one.door.request("x", go())
        await one.quiet()
        assert heard.answers == []
        await one.settle()
        assert heard.answers == [("Completed", b"7", None)]
        assert not one.door.is_live_here("x")
        assert len(one.partition.watchers) == 0

        assert await one.door.wait_for_end("x") == ("Completed", b"7", None)
        with pytest.raises(InstanceNotFoundError):
            await one.door.wait_for_end("nobody")
        assert len(one.partition.watchers) == 0


async def test_the_end_is_told_also_to_who_waits_for_what_is_not_in_memory() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request("x", start())
        await one.evict()
        assert not one.door.is_live_here("x")
        heard = Heard(one, tasks, one.door.wait_for_end("x"))
        await one.quiet()

        one.door.request("x", go())
        await one.settle()

        assert heard.answers == [("Completed", b"7", None)]


async def test_an_instance_is_not_live_where_its_end_will_not_be_told() -> None:
    async with alone(app) as one:
        one.door.request("x", start())
        one.door.request(KEY, add())
        await one.settle()
        assert one.door.is_live_here("x")
        assert not one.door.is_live_here(KEY)

        shut(one.door)

        assert not one.door.is_live_here("x")


async def test_only_what_has_ended_is_purged() -> None:
    async with alone(app) as one:
        for key, name in (("ended", "fail"), ("fresh", "fail"), ("live", "go")):
            one.door.request(key, start(name))
        await one.evict()
        one.door.request("fresh", Command("resume"))  # so that it is in memory again
        await one.settle()
        purged: list[tuple[str, bool]] = []

        async def purge() -> None:
            purged.extend(await one.door.purge_ended(["ended", "fresh", "live", "nobody"]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(purge)
            while not purged:
                await one.settle()

        left = await one.partition.store.read_instances(["ended", "fresh", "live"])
        assert sorted(purged) == [("ended", False), ("fresh", False)]
        assert [record.key for record in left] == ["live"]
        assert one.partition.catalog.purging == set()


async def test_what_is_purged_lets_go_of_the_activities_that_it_has_left() -> None:
    async with alone(app) as one, anyio.create_task_group() as tasks:
        one.door.request("x", start("fail"))
        await one.evict()
        caller = Caller("x", 1, 1)
        one.partition.leftovers.keep(1, ActivityCall(caller, "work", None, None, 1, None, 1))
        heard = Heard(one, tasks, one.door.purge_ended(["x"]))
        await one.quiet()
        assert one.partition.catalog.purging == {"x"}
        await one.settle()

        assert heard.answers == [[("x", False)]]
        assert one.activities.cancelled == [caller]
        assert one.partition.leftovers.rows == {}


class Exchanged:
    """Writes down what of other partitions reaches the exchange."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def take(*_: Any) -> None:
            self.told.append(name)

        return take


@pytest.mark.parametrize("is_shut", [False, True])
async def test_other_partitions_are_heard_while_the_door_is_open(is_shut: bool) -> None:
    async with alone(app) as one:
        exchange: Any = Exchanged()
        one.partition.exchange = exchange
        if is_shut:
            shut(one.door)

        one.door.receive(1, Frame(1, 1, b"[]", None))
        one.door.acknowledge(1, 1)
        one.door.resend(1)
        one.door.offer(1)

        heard = ["receive", "acknowledge", "resend", "resend", "acknowledge_again"]
        assert exchange.told == ([] if is_shut else heard)


async def test_who_reads_hears_that_the_partition_has_left() -> None:
    async with alone(app) as one:
        one.faults.read = StoreDamagedError("the page is damaged")
        with pytest.raises(StoreDamagedError):
            await one.door.read(one.door.store.read_entities([("counter", "a")]))

        shut(one.door, MovedError("it moves"))

        with pytest.raises(MovedError):
            await one.door.read(one.door.store.read_entities([("counter", "a")]))
