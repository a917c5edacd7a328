from __future__ import annotations

import random
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

import perdure
from perdure import (
    App,
    Cancelled,
    Client,
    EntityId,
    Hub,
    LockRuleError,
    MemoryStore,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationHandle,
    SqliteStore,
    Store,
    UnavailableError,
    UsageError,
)
from perdure.storage import Checkpoint, EntityRow
from tests.runtime.harness import FaultyStore, disk_error, until, until_true

app = App()


@app.entity
class Account:
    balance: int = 0
    log: list[str] = []

    def add(self, amount: int) -> int:
        if self.balance + amount < 0:
            raise ValueError("not enough")
        self.balance += amount
        return self.balance

    def get(self) -> int:
        return self.balance

    def note(self, text: str) -> None:
        self.log.append(text)

    def notes(self) -> list[str]:
        return self.log

    @perdure.readonly
    def peek(self) -> int:
        return self.balance


def account(key: str) -> EntityId[Account]:
    return EntityId(Account, key)


def accounts(keys: str) -> list[EntityId[Account]]:
    return [account(key) for key in keys]


@app.orchestration
async def hold(ctx: OrchestrationContext, keys: str) -> str:
    """Lock the accounts, say so, and release them when told to."""
    async with ctx.lock_entities(*accounts(keys)):
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("go")
        for id in accounts(keys):
            await ctx.call_entity(id, Account.note, f"inside {ctx.instance_id}")
    return "released"


@app.orchestration
def hold_by_yield(ctx: OrchestrationContext, keys: str) -> Generator[Any, Any, list[int]]:
    balances: list[int] = []
    with (yield ctx.lock_entities(accounts(keys))):
        ctx.set_custom_status("locked")
        yield ctx.wait_for_external_event("go")
        for id in accounts(keys):
            balance: int = yield ctx.call_entity(id, Account.add, 1)
            balances += [balance]
    return balances


@app.orchestration
async def transfer(ctx: OrchestrationContext, order: list[Any]) -> bool:
    source, target, amount, extra = order
    ids = [account(source), account(target), *(account(key) for key in extra)]
    async with ctx.lock_entities(*ids):
        if await ctx.call_entity(ids[0], Account.get) < amount:
            return False
        await ctx.call_entity(ids[0], Account.add, -amount)
        await ctx.call_entity(ids[1], Account.add, amount)
        return True


@app.orchestration
async def nothing(ctx: OrchestrationContext) -> None:
    return None


@app.orchestration
async def end_inside(ctx: OrchestrationContext, how: str) -> str:
    """End a lock of a and b without leaving its block in the ordinary way."""
    a, b = accounts("ab")
    if how == "second round":
        return how
    async with ctx.lock_entities(a, b):
        await ctx.call_entity(a, Account.note, "inside")
        if how == "raise":
            raise ValueError("inside")
        if how == "fail":
            await ctx.call_entity(b, Account.add, -5)
        if how == "return":
            return "from inside"
        if how == "continue":
            ctx.continue_as_new("second round")
            return ""
        ctx.set_custom_status("locked")
        await ctx.wait_for_external_event("never")
    return "not reached"


@app.orchestration
async def keep_lock_open(ctx: OrchestrationContext, how: str) -> str:
    """Lock without a block, and never release."""
    if how == "second round":
        return how
    await ctx.lock_entities(account("a"))
    if how == "continue":
        ctx.continue_as_new("second round")
    return "ended"


@app.orchestration
async def clean_up_when_cancelled(ctx: OrchestrationContext) -> None:
    a, b = accounts("ab")
    try:
        async with ctx.lock_entities(a, b):
            ctx.set_custom_status("locked")
            try:
                await ctx.wait_for_external_event("never")
            except Cancelled:
                await ctx.call_entity(a, Account.note, "compensated inside")
                raise
    finally:
        await ctx.call_entity(b, Account.note, "compensated outside")


@app.orchestration
async def break_rule(ctx: OrchestrationContext, rule: str) -> list[str]:
    a, b, c = accounts("abc")
    log: list[str] = []
    async with ctx.lock_entities(a, b):
        try:
            if rule == "nested":
                ctx.lock_entities(c)
            elif rule == "child":
                ctx.call_sub_orchestrator(nothing)
            elif rule == "call another":
                ctx.call_entity(c, Account.get)
            elif rule == "two calls":
                task = ctx.call_entity(a, Account.add, 1)
                try:
                    ctx.call_entity(a, Account.add, 1)
                finally:
                    await task
            elif rule == "signal a locked one":
                ctx.signal_entity(a, Account.add, 1)
            elif rule == "two waves":
                await ctx.call_entity(a, Account.add, 1)
                await ctx.call_entity(a, Account.add, 1)
            elif rule == "signal another":
                ctx.signal_entity(c, Account.add, 1)
            elif rule == "both at once":
                await ctx.task_all(
                    [ctx.call_entity(a, Account.add, 1), ctx.call_entity(b, Account.add, 1)]
                )
        except LockRuleError as error:
            log.append(str(error))
    # Everything is allowed again.
    await ctx.call_sub_orchestrator(nothing)
    await ctx.call_entity(c, Account.get)
    async with ctx.lock_entities(c):
        log.append("free")
    return log


@app.orchestration
async def lock_none(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities():
        pass


@app.orchestration
async def lock_unknown(ctx: OrchestrationContext) -> None:
    async with ctx.lock_entities(EntityId[Any]("nothing", "k")):
        pass


@app.orchestration
async def call_neighbours(ctx: OrchestrationContext) -> list[int]:
    """Call locked entities at once whose keys begin alike."""
    ids = [account("x"), account("x.y"), account("x.add")]
    async with ctx.lock_entities(*ids):
        return await ctx.task_all([ctx.call_entity(id, Account.add, 1) for id in reversed(ids)])


@app.orchestration
def enter_without_yield(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    lock = ctx.lock_entities(account("a"))
    try:
        with lock:
            return "entered"
    except UsageError as error:
        yield lock
        lock.release()
        lock.release()
        return str(error)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Hub(app) as hub:
        yield hub.client


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "hub")


async def until_locked(handle: OrchestrationHandle[Any]) -> None:
    async def locked() -> bool:
        status = (await handle.status()).custom_status
        return bool(status == "locked")

    await until(locked)


async def until_free(client: Client, *keys: str) -> None:
    async def free() -> bool:
        found = [await client.get_entity(account(key)) for key in keys]
        return all(status is None or status.locked_by is None for status in found)

    await until(free)


async def holder(client: Client, key: str) -> str | None:
    status = await client.get_entity(account(key))
    return None if status is None else status.locked_by


async def notes(client: Client, key: str) -> list[str]:
    return await client.call_entity(account(key), Account.notes, timeout=10)


# What a lock does.


async def test_a_lock_keeps_others_out_and_they_run_afterwards_in_order(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        handle = await client.start_new(hold, "ab", instance_id="holder")
        await until_locked(handle)
        for text in ("one", "two", "three"):
            await client.signal_entity(account("a"), Account.note, text)
        waiting = await client.get_entity(account("a"))

        await handle.raise_event("go")

        assert await handle.result(10) == "released"
        assert await notes(client, "a") == ["inside holder", "one", "two", "three"]
        assert waiting is not None
        assert (waiting.locked_by, waiting.waiting, waiting.state) == ("holder", 3, None)


async def test_the_status_of_a_locked_entity_names_its_holder_and_who_waits(store: Store) -> None:
    async def names(client: Client) -> tuple[str | None, tuple[str, ...]]:
        status = await client.get_entity(account("a"))
        assert status is not None
        return status.locked_by, status.lock_waiters

    async def become(client: Client, *expected: Any) -> None:
        async def ask() -> bool:
            return await names(client) == expected

        await until(ask)

    async with Hub(app, store=store) as hub:
        client = hub.client
        first = await client.start_new(hold, "a", instance_id="first")
        await until_locked(first)
        assert await names(client) == ("first", ())
        wait: tuple[str, ...] = ()
        for id in ("second", "third", "fourth"):
            await client.start_new(hold, "ab", instance_id=id)
            wait = (*wait, id)
            await become(client, "first", wait)
    async with Hub(app, store=store) as hub:
        client = hub.client
        assert await names(client) == ("first", ("second", "third", "fourth"))
        await client.terminate("third")
        await become(client, "first", ("second", "fourth"))
        await client.purge_instance("third")
        await client.raise_event("first", "go")
        await become(client, "second", ("fourth",))
        await client.terminate("second")
        await become(client, "fourth", ())
        await client.raise_event("fourth", "go")

        assert await client.wait("fourth") == "released"
        await become(client, None, ())


async def test_a_call_of_a_locked_entity_waits_for_the_release(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    with pytest.raises(TimeoutError):
        await client.call_entity(account("a"), Account.add, 5, timeout=0.02)
    await handle.raise_event("go")

    assert await client.call_entity(account("a"), Account.get, timeout=10) == 5


async def test_another_orchestrations_call_waits_for_the_release(client: Client) -> None:
    first = await client.start_new(hold, "ab", instance_id="first")
    await until_locked(first)
    second = await client.start_new(hold, "ba", instance_id="second")
    await second.raise_event("go")
    assert await holder(client, "a") == "first"

    await first.raise_event("go")

    assert await first.result(10) == "released"
    assert await second.result(10) == "released"
    assert await notes(client, "b") == ["inside first", "inside second"]


async def test_a_readonly_operation_does_not_wait_behind_a_lock(client: Client) -> None:
    await client.call_entity(account("a"), Account.add, 7)
    handle = await client.start_new(hold, "a")
    await until_locked(handle)
    await client.signal_entity(account("a"), Account.add, 1)

    value = await client.call_entity(account("a"), Account.peek, timeout=10)

    assert value == 7
    await handle.raise_event("go")
    assert await handle.result(10) == "released"


async def test_entities_not_locked_go_on(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    assert await client.call_entity(account("b"), Account.add, 1, timeout=10) == 1
    await handle.raise_event("go")
    await handle.result(10)


async def test_the_status_shows_the_holder_and_a_query_finds_the_locked(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        await client.call_entity(account("a"), Account.add, 1)
        await client.call_entity(account("c"), Account.add, 1)
        handle = await client.start_new(hold, "ab", instance_id="holder")
        await until_locked(handle)

        locked = [
            (status.entity_id.key, status.locked_by)
            async for status in client.query_entities(locked=True, include_empty=True)
        ]
        free = [s.entity_id.key async for s in client.query_entities(locked=False)]
        await handle.raise_event("go")
        await handle.result(10)
        await until_free(client, "a", "b")

        assert locked == [("a", "holder"), ("b", "holder")]
        assert free == ["c"]
        assert [s async for s in client.query_entities(locked=True, include_empty=True)] == []


async def test_a_lock_is_asked_for_sorted_and_without_doubles(client: Client) -> None:
    handle = await client.start_new(hold, "cabbac")
    await handle.raise_event("go")
    await handle.result(10)

    [request] = [e for e in await handle.history() if e.event_type == "EntityLockRequested"]

    assert request.fields["entity_ids"] == ["@account@a", "@account@b", "@account@c"]


async def test_the_generator_form_locks_and_releases(client: Client) -> None:
    handle = await client.start_new(hold_by_yield, "ab")
    await until_locked(handle)
    assert await holder(client, "b") == handle.instance_id
    await client.signal_entity(account("a"), Account.add, 10)

    await handle.raise_event("go")

    assert await handle.result(10) == [1, 1]
    assert await client.call_entity(account("a"), Account.get, timeout=10) == 11


async def test_a_lock_entered_before_it_was_yielded_is_refused(client: Client) -> None:
    handle = await client.start_new(enter_without_yield)

    assert "the lock is not granted yet: enter it by async with" in await handle.result(10)
    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1


# Its rules.


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("nested", "cannot be nested"),
        ("child", "no sub-orchestrations inside lock_entities"),
        ("call another", "@account@c is not among the locked entities"),
        ("two calls", "a call to @account@a is under way"),
        ("signal a locked one", "@account@a is locked by this orchestration"),
    ],
)
async def test_a_broken_rule_is_a_clear_error_at_the_call(
    client: Client, rule: str, text: str
) -> None:
    handle = await client.start_new(break_rule, rule)

    error, then = await handle.result(10)

    assert text in error
    assert then == "free"
    await until_free(client, "a", "b", "c")


@pytest.mark.parametrize("rule", ["two waves", "signal another", "both at once", "no rule at all"])
async def test_what_the_rules_allow_works_inside_a_lock(client: Client, rule: str) -> None:
    handle = await client.start_new(break_rule, rule)

    assert await handle.result(10) == ["free"]


async def test_entities_whose_keys_begin_alike_are_called_at_the_same_time(client: Client) -> None:
    handle = await client.start_new(call_neighbours)

    assert await handle.result(10) == [1, 1, 1]


@pytest.mark.parametrize(
    ("orchestration", "error"),
    [(lock_none, "UsageError"), (lock_unknown, "UnknownNameError")],
)
async def test_a_lock_of_nothing_or_of_the_unknown_is_refused(
    client: Client, orchestration: Any, error: str
) -> None:
    handle = await client.start_new(orchestration)

    with pytest.raises(OrchestrationFailedError) as caught:
        await handle.result(10)

    assert caught.value.error_type == error


# Its end.


@pytest.mark.parametrize("how", ["raise", "fail", "return", "continue"])
async def test_a_lock_is_released_however_its_block_is_left(store: Store, how: str) -> None:
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(end_inside, how)

        try:
            result = await handle.result(10)
        except OrchestrationFailedError as error:
            result = error.error_type

        await until_free(hub.client, "a", "b")
        assert (
            result
            == {
                "raise": "ValueError",
                "fail": "EntityOperationError",
                "return": "from inside",
                "continue": "second round",
            }[how]
        )
        assert await hub.client.call_entity(account("b"), Account.add, 1, timeout=10) == 1


@pytest.mark.parametrize("how", ["complete", "continue"])
async def test_a_lock_that_nobody_released_ends_with_the_execution(
    client: Client, how: str
) -> None:
    handle = await client.start_new(keep_lock_open, how)
    await handle.result(10)

    await until_free(client, "a")

    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1


@pytest.mark.parametrize("restart", [False, True])
async def test_a_lock_is_released_at_termination(store: Store, restart: bool) -> None:
    async with Hub(app, store=store) as hub:
        handle = await hub.client.start_new(end_inside, "wait", instance_id="holder")
        await until_locked(handle)
        if not restart:
            await handle.terminate("enough")
            await until_free(hub.client, "a", "b")

    async with Hub(app, store=store) as hub:
        if restart:
            await hub.client.get_handle("holder").terminate("enough")
        assert await hub.client.call_entity(account("b"), Account.add, 1, timeout=10) == 1
        await until_free(hub.client, "a", "b")


async def test_a_lock_of_a_suspended_instance_is_released_at_termination(client: Client) -> None:
    handle = await client.start_new(end_inside, "wait")
    await until_locked(handle)
    await handle.suspend()

    await handle.terminate()

    await until_free(client, "a", "b")
    assert await client.call_entity(account("a"), Account.add, 1, timeout=10) == 1


async def test_a_cancelled_holder_compensates_inside_and_outside_its_lock(client: Client) -> None:
    handle = await client.start_new(clean_up_when_cancelled)
    await until_locked(handle)

    await handle.cancel("no more")
    with pytest.raises(perdure.OrchestrationCanceledError):
        await handle.result(10)

    await until_free(client, "a", "b")
    assert await notes(client, "a") == ["compensated inside"]
    assert await notes(client, "b") == ["compensated outside"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize("blocked", ["a", "b", "c"])
async def test_a_request_that_is_still_travelling_is_taken_back(
    store: Store, blocked: str, how: str, restart: bool
) -> None:
    async with Hub(app, store=store) as hub:
        client = hub.client
        first = await client.start_new(hold, blocked, instance_id="first")
        await until_locked(first)
        second = await client.start_new(hold, "abc", instance_id="second")
        await until_held(client, "abc", blocked)
        if not restart:
            await getattr(second, how)()

    async with Hub(app, store=store) as hub:
        client = hub.client
        if restart:
            await getattr(client.get_handle("second"), how)()
        await client.get_handle("first").raise_event("go")
        assert await client.get_handle("first").result(10) == "released"

        for key in "abc":
            assert await client.call_entity(account(key), Account.add, 1, timeout=10) == 1
        await until_free(client, "a", "b", "c")


async def until_held(client: Client, keys: str, blocked: str) -> None:
    """Return when second's lock has come up to the entity that first has locked."""
    before = keys[: keys.index(blocked)]

    async def there() -> bool:
        status = await client.get_entity(account(blocked))
        return (
            status is not None
            and status.waiting == 1
            and [await holder(client, key) for key in before] == ["second"] * len(before)
        )

    await until(there)


async def test_a_failing_operation_inside_a_lock_leaves_the_lock_as_it_is(client: Client) -> None:
    own = App()
    own.include(app)

    @own.orchestration
    async def go_on_after_failure(ctx: OrchestrationContext) -> int:
        a = account("a")
        async with ctx.lock_entities(a):
            try:
                await ctx.call_entity(a, Account.add, -1)
            except perdure.EntityOperationError:
                return await ctx.call_entity(a, Account.add, 1)
        return 0

    async with Hub(own) as hub:
        handle = await hub.client.start_new(go_on_after_failure)
        assert await handle.result(10) == 1


# Over a restart.


async def test_a_lock_survives_a_restart_and_so_do_those_that_wait(store: Store) -> None:
    async with Hub(app, store=store) as hub:
        first = await hub.client.start_new(hold, "ab", instance_id="first")
        await until_locked(first)
        second = await hub.client.start_new(hold, "ab", instance_id="second")
        await second.raise_event("go")
        await hub.client.signal_entity(account("a"), Account.note, "signal")

    async with Hub(app, store=store) as hub:
        client = hub.client
        assert await holder(client, "a") == await holder(client, "b") == "first"
        await client.signal_entity(account("a"), Account.note, "later")
        with pytest.raises(TimeoutError):
            await client.call_entity(account("b"), Account.get, timeout=0.02)
        await client.get_handle("first").raise_event("go")

        assert await client.get_handle("first").result(10) == "released"
        assert await client.get_handle("second").result(10) == "released"
        assert sorted(await notes(client, "a")) == [
            "inside first",
            "inside second",
            "later",
            "signal",
        ]
        kept = await notes(client, "a")
        assert kept[0] == "inside first"
        assert kept.index("signal") < kept.index("later")


async def test_a_lock_survives_a_recovery_of_its_partition() -> None:
    store = FaultyStore()
    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        handle = await client.start_new(hold, "ab")
        await until_locked(handle)
        await client.signal_entity(account("a"), Account.note, "signal")
        store.faults.commit = disk_error()
        with pytest.raises(perdure.UnavailableError):
            await client.call_entity(account("z"), Account.add, 1)
        store.faults.commit = None
        partition = hub._partitions[0]
        await until_true(lambda: partition.gate.reason is None)

        assert await holder(client, "a") == handle.instance_id
        await handle.raise_event("go")

        assert await handle.result(10) == "released"
        assert await notes(client, "a") == [f"inside {handle.instance_id}", "signal"]


# Many at once.


@pytest.mark.parametrize("settings", [perdure.Settings(), perdure.Settings(cached_actors_max=4)])
async def test_hundreds_of_transfers_in_opposite_orders_neither_deadlock_nor_lose_money(
    store: Store, settings: perdure.Settings
) -> None:
    keys = "abcdefgh"
    dice = random.Random(7)
    orders: list[list[Any]] = []
    for _ in range(300):
        source, target, *extra = dice.sample(keys, dice.choice((2, 3, 4)))
        orders.append([source, target, dice.randint(1, 60), "".join(extra)])

    async with Hub(app, store=store, settings=settings) as hub:
        client = hub.client
        for key in keys:
            await client.call_entity(account(key), Account.add, 100)
        done: list[bool] = []

        async def run(order: list[Any]) -> None:
            handle = await client.start_new(transfer, order)
            done.append(await handle.result(60))

        async with anyio.create_task_group() as tasks:
            for order in orders:
                tasks.start_soon(run, order)
        await until_free(client, *keys)
        balances = [await client.call_entity(account(key), Account.get) for key in keys]

    assert len(done) == 300
    assert sum(done) > 100
    assert sum(balances) == 100 * len(keys)
    assert min(balances) >= 0


async def test_transfers_are_neither_lost_nor_doubled_when_holders_are_terminated(
    store: Store,
) -> None:
    keys = "abcd"
    dice = random.Random(11)

    async with Hub(app, store=store) as hub:
        client = hub.client
        for key in keys:
            await client.call_entity(account(key), Account.add, 1_000)
        handles = [
            await client.start_new(hold, "".join(dice.sample(keys, 3)), instance_id=f"h{i}")
            for i in range(40)
        ]

        async def end(handle: OrchestrationHandle[str], how: str) -> None:
            if how == "go":
                await handle.raise_event("go")
            else:
                await getattr(handle, how)()

        async with anyio.create_task_group() as tasks:
            for handle in handles:
                tasks.start_soon(end, handle, dice.choice(["go", "terminate", "cancel"]))
        for handle in handles:
            try:
                await handle.result(30)
            except (perdure.OrchestrationTerminatedError, perdure.OrchestrationCanceledError):
                continue
        await until_free(client, *keys)

        for key in keys:
            assert await client.call_entity(account(key), Account.get, timeout=10) == 1_000


# Locks without a holder.


async def store_orphan(store: Store, holder: str) -> None:
    """Write an entity whose lock is held by an instance that is not there."""
    [partition] = await store.open(1)
    recovered = await partition.recover()
    row = EntityRow(
        recovered.next_id,
        "account",
        "a",
        1,
        b'{"balance":5,"log":[]}',
        orjson.dumps([holder, 1, 1]),
        None,
        None,
    )
    await partition.commit(
        Checkpoint(sequence=recovered.sequence + 1, epoch=recovered.epoch, entities=[row])
    )
    await store.close()


async def test_cleaning_releases_a_lock_whose_holder_is_not_there(store: Store) -> None:
    await store_orphan(store, "nobody")

    async with Hub(app, store=store, partitions=1) as hub:
        client = hub.client
        await client.signal_entity(account("a"), Account.add, 1)
        before = await client.get_entity(account("a"))
        result = await client.clean_entity_storage()

        assert before is not None
        assert (before.locked_by, before.waiting) == ("nobody", 1)
        assert result == perdure.CleanResult(empty_entities_removed=0, orphaned_locks_released=1)
        assert await client.call_entity(account("a"), Account.get, timeout=10) == 6
        assert await client.clean_entity_storage() == perdure.CleanResult(0, 0)


async def test_cleaning_takes_no_lock_while_the_partition_recovers(store: Store) -> None:
    await store_orphan(store, "nobody")
    faulty = FaultyStore(store)

    async with Hub(app, store=faulty, partitions=1) as hub:
        faults, client = faulty.faults, hub.client
        recoveries = faults.recoveries
        faults.commit = faults.recover = disk_error()

        async def signal_in_vain() -> None:
            with pytest.raises(UnavailableError):
                await client.signal_entity(account("a"), Account.add, 1)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(signal_in_vain)
                await until_true(lambda: faults.recoveries > recoveries)
                # It would act on what the partition may find to be out of date.
                with pytest.raises(UnavailableError):
                    await client._release(account("a"))
                faults.commit = faults.recover = None
        assert await holder(client, "a") == "nobody"


async def test_cleaning_leaves_a_lock_alone_whose_holder_is_live(client: Client) -> None:
    handle = await client.start_new(hold, "a")
    await until_locked(handle)

    result = await client.clean_entity_storage()

    assert result == perdure.CleanResult(0, 0)
    assert await holder(client, "a") == handle.instance_id
    await handle.raise_event("go")
    assert await handle.result(10) == "released"


async def test_cleaning_may_be_told_to_leave_orphans_alone(store: Store) -> None:
    await store_orphan(store, "nobody")

    async with Hub(app, store=store, partitions=1) as hub:
        result = await hub.client.clean_entity_storage(release_orphaned_locks=False)

        assert result == perdure.CleanResult(0, 0)
        assert await holder(hub.client, "a") == "nobody"


@app.orchestration
async def call_a(ctx: OrchestrationContext) -> int:
    return await ctx.call_entity(account("a"), Account.get)


async def test_purging_a_locked_entity_fails_the_orchestrations_whose_calls_wait(
    client: Client,
) -> None:
    holder = await client.start_new(hold, "a")
    await until_locked(holder)
    caller = await client.start_new(call_a)

    async def waits() -> bool:
        status = await client.get_entity(account("a"))
        return status is not None and status.waiting == 1

    await until(waits)
    await client.purge_entity(account("a"))

    with pytest.raises(OrchestrationFailedError, match="@account@a was purged"):
        await caller.result(10)
    await holder.raise_event("go")
    await holder.result(10)


async def test_purging_a_locked_entity_drops_its_state_and_fails_who_waits(
    client: Client,
) -> None:
    await client.call_entity(account("a"), Account.add, 5)
    handle = await client.start_new(hold, "a")
    await until_locked(handle)
    errors: list[str] = []

    async def call() -> None:
        try:
            await client.call_entity(account("a"), Account.add, 1)
        except UsageError as error:
            errors.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)

        async def waits() -> bool:
            status = await client.get_entity(account("a"))
            return status is not None and status.waiting == 1

        await until(waits)
        await client.purge_entity(account("a"))
    await handle.raise_event("go")

    assert errors == ["@account@a was purged"]
    assert await handle.result(10) == "released"
    assert await client.call_entity(account("a"), Account.get, timeout=10) == 0


@app.orchestration
async def lock_both(ctx: OrchestrationContext, keys: str) -> str:
    async with ctx.lock_entities(*accounts(keys)):
        return "locked"


@pytest.mark.parametrize("purged", ["a", "b"])
async def test_purging_a_locked_entity_leaves_nobody_waiting_for_its_lock(
    client: Client, purged: str
) -> None:
    holder = await client.start_new(hold, "ab")
    await until_locked(holder)
    waiters = [await client.start_new(lock_both, keys) for keys in ("a", "b", "ab")]

    async def all_wait() -> bool:
        statuses = [await client.get_entity(account(key)) for key in "ab"]
        return [status and status.waiting for status in statuses] == [2, 1]

    await until(all_wait)
    await client.purge_entity(account(purged))
    await holder.raise_event("go")

    assert await holder.result(10) == "released"
    assert [await waiter.result(10) for waiter in waiters] == 3 * ["locked"]

    async def all_are_free() -> bool:
        return not [status async for status in client.query_entities(locked=True)]

    await until(all_are_free)


async def test_a_lock_outlives_a_hub_that_does_not_know_the_entity() -> None:
    store = MemoryStore()
    async with Hub(app, store=store) as hub:
        holder = await hub.client.start_new(hold, "a", instance_id="holder")
        await until_locked(holder)

    async with Hub(App(), store=store) as hub:
        await hub.client.retry(EntityId("account", "a"))  # which has it loaded, and parked
        parked = [status async for status in hub.client.query_entities(parked=True)]
        assert [status.locked_by for status in parked] == ["holder"]

    async with Hub(app, store=store) as hub:
        await hub.client.retry(account("a"))
        await hub.client.retry("holder")
        await hub.client.raise_event("holder", "go")
        assert await hub.client.get_handle("holder").result(10) == "released"
