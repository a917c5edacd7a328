from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perdure import App
from perdure.actors.actor import Actor
from perdure.actors.effects import FEED, HELD, RELOAD
from perdure.actors.entities.entity import EntityActor
from perdure.actors.messages import Message, Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.partitions import activation as activations
from perdure.runtime.partitions.activation import Activation
from perdure.runtime.partitions.batch import SIZE_MAX, Batch
from perdure.runtime.partitions.ledger import Ledger
from tests.runtime.told import Told

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount

    async def wait(self) -> None:
        """Do nothing; but what is async may suspend."""


@app.entity
class Prompt:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount


LOOKUP = Lookup(app, 1_000_000)
KEY = "@counter@a"


class FakeActor(Actor):
    """One whose outcomes are the test's; None for each message beyond those."""

    __slots__ = ("closed", "locked", "outcomes", "taken", "times")

    def __init__(self, *outcomes: Any) -> None:
        super().__init__(1)
        self.outcomes = [*outcomes]
        self.taken: list[Message] = []
        self.times: list[int] = []
        self.locked = False
        self.closed = 0

    @property
    def is_blocked(self) -> bool:
        return self.locked

    def handle(self, message: Message, now: int, effects: Any) -> Any:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        if callable(outcome):
            outcome = outcome()
        if outcome is None:
            self.taken.append(message)
        self.times.append(now)
        return outcome

    def close(self) -> None:
        self.closed += 1


class Partition(Ledger):
    """What an activation needs of its partition, written down."""

    def __init__(self) -> None:
        super().__init__(0, Told)
        items, alone = list[Any](), list[Any]()
        self.pump = SimpleNamespace(
            items=items, alone=alone, put=items.append, put_alone=alone.append
        )
        self.loader = self
        self.fed: list[Any] = []
        self.overflow = SimpleNamespace(feed=self.fed.append)
        self.settings = SimpleNamespace(turn_messages_max=200)
        self.around: Any = None
        self.time = 100
        self.now: Callable[[], int] = lambda: self.time
        self.lag = 0
        self.waiting = 0
        self.slows = False
        self.reloads: list[Any] = []
        self.crashed: list[BaseException] = []
        self.commits = 0

    def messages_max(self, key: str) -> int:
        return 7

    def gathered(self) -> None:
        self.commits += 1

    def reload(self, activation: Any) -> None:
        self.reloads.append(activation)

    def crash(self, activation: Any, error: BaseException) -> None:
        self.crashed.append(error)


@pytest.fixture
def partition() -> Partition:
    return Partition()


def made(partition: Any, actor: Any, *mail: Message) -> Activation:
    """An activation that is in the pump, with those messages."""
    one = Activation(partition, KEY, actor)
    one.mail = [*mail]
    one.queued = one.ready = True
    return one


def messages(count: int) -> list[Operation]:
    return [Operation("add", b"%d" % n) for n in range(count)]


def again(one: Activation) -> None:
    """Have it take another turn."""
    one.mail.extend(messages(1))
    one.ready = True
    one.run()


def entity(name: str = "counter") -> EntityActor:
    unknown: Any = None
    actor = EntityActor(1, name, "a", unknown, LOOKUP, lambda: "made up")
    actor.define(LOOKUP.registry.find_entity(name), 1)
    return actor


def test_a_turn_takes_what_waits_in_order_and_says_so_once(partition: Partition) -> None:
    actor, mail = FakeActor(), messages(3)
    one = made(partition, actor, *mail)

    one.run()

    assert actor.taken == mail
    assert (one.mail, one.taken, one.queued) == ([], 3, False)
    batch = partition.batch
    assert (batch.turns, batch.messages) == (1, 3)
    assert partition.commits == 1
    assert one.run() is None  # the pump meets it once more, and passes it over
    assert batch.turns == 1


def test_what_is_consumed_leaves_the_store_and_the_count_of_those_that_wait(
    partition: Partition,
) -> None:
    stored, timed, asked = messages(3)
    stored.row, timed.timer, asked.reply = 5, 6, Told()
    partition.waiting = 1

    made(partition, FakeActor(), stored, timed, asked).run()

    assert partition.batch.mail_deleted == [5]
    assert partition.batch.timers_deleted == [6]
    assert partition.waiting == 0


def test_a_turn_has_its_limit_and_the_others_come_before_the_rest(partition: Partition) -> None:
    partition.settings.turn_messages_max = 2
    actor, mail = FakeActor(), messages(3)
    one = made(partition, actor, *mail)

    one.run()

    assert (actor.taken, one.mail) == (mail[:2], mail[2:])
    assert partition.pump.items == [one]
    assert one.ready


def test_a_batch_of_too_many_bytes_takes_one_message_at_a_time(partition: Partition) -> None:
    actor, mail = FakeActor(), messages(3)
    partition.batch.size = SIZE_MAX
    one = made(partition, actor, *mail)

    one.run()

    assert (actor.taken, one.mail) == (mail[:1], mail[1:])
    assert (partition.batch.messages, one.taken) == (1, 1)


def test_an_actor_that_changed_is_in_the_batch_once(partition: Partition) -> None:
    actor = FakeActor()
    one = made(partition, actor, *messages(1))
    one.run()
    assert partition.batch.dirty == []

    actor.changed = True
    for _ in range(2):
        again(one)

    assert partition.batch.dirty == [one]


def test_the_time_of_an_actor_s_turns_is_never_set_back(partition: Partition) -> None:
    actor = FakeActor()
    one = made(partition, actor, *messages(1))
    one.run()
    partition.time = 70
    again(one)
    lag = partition.lag
    partition.time = 130
    again(one)

    assert actor.times == [100, 100, 130]
    assert (lag, partition.lag) == (30, 0)


def test_what_has_to_wait_is_held_and_goes_before_what_came_later(partition: Partition) -> None:
    actor, mail = FakeActor(HELD), messages(3)

    def unlock() -> None:
        actor.locked = False

    actor.locked = True
    actor.outcomes.append(unlock)
    one = made(partition, actor, *mail)

    one.run()

    assert actor.taken == [mail[1]]
    assert one.mail == [mail[0], mail[2]]
    assert partition.pump.items == [one]


def test_what_is_held_at_the_end_of_a_turn_is_looked_at_by_the_next_checkpoint(
    partition: Partition,
) -> None:
    actor, mail = FakeActor(HELD), messages(1)
    actor.locked = True
    one = made(partition, actor, *mail)

    one.run()

    assert partition.batch.touched == [one]
    assert (one.count, one.unconsumed, one.is_blocked) == (1, mail, True)


@pytest.mark.parametrize("outcome", [RELOAD, FEED], ids=["reload", "feed"])
def test_what_has_to_be_read_first_comes_again_with_all_behind_it(
    partition: Partition, outcome: object
) -> None:
    actor, mail = FakeActor(None, outcome), messages(4)
    one = made(partition, actor, *mail)

    one.run()

    assert (actor.taken, one.mail) == (mail[:1], mail[1:])
    assert (one.queued, one.ready) == (True, False)  # it takes no turn meanwhile
    assert partition.reloads == ([one] if outcome is RELOAD else [])
    assert partition.fed == ([one] if outcome is FEED else [])
    assert partition.batch.turns == 1
    assert one.run() is None


def test_a_reload_gives_back_what_was_held(partition: Partition) -> None:
    actor, mail = FakeActor(HELD, RELOAD), messages(3)
    actor.locked = True
    one = made(partition, actor, *mail)

    one.run()

    assert one.mail == mail
    assert actor.held is None


def test_a_turn_that_crashes_keeps_its_messages_in_order_and_has_no_end(
    partition: Partition,
) -> None:
    partition.settings.turn_messages_max = 2
    error, mail = ValueError("a bug"), messages(3)
    one = made(partition, FakeActor(None, error), *mail)

    assert one.run() is None

    assert partition.crashed == [error]
    assert one.mail == mail
    assert partition.batch.turns == 0


def test_ctrl_c_in_a_turn_stops_the_hub(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = KeyboardInterrupt()

    def is_interrupt(raised: BaseException) -> bool:
        return raised is error

    monkeypatch.setattr(activations, "is_interrupt", is_interrupt)

    with pytest.raises(KeyboardInterrupt):
        made(partition, FakeActor(error), *messages(1)).run()

    assert partition.crashed == [error]


def test_the_dead_take_no_turn(partition: Partition) -> None:
    actor = FakeActor()
    one = made(partition, actor, *messages(1))
    one.retire()

    one.run()

    assert one.dead
    assert actor.taken == []


def test_a_full_batch_lets_no_turn_go_ahead_of_the_commit_in_flight(partition: Partition) -> None:
    actor = FakeActor()
    one = made(partition, actor, *messages(1))
    partition.flying = Batch()
    partition.batch.size = SIZE_MAX

    one.run()
    assert (actor.taken, one.queued) == ([], True)
    partition.flying = None
    partition.let_on()
    one.run()

    assert len(actor.taken) == 1


def test_who_sent_to_where_too_much_waits_comes_behind_a_commit(partition: Partition) -> None:
    actor = FakeActor()
    one = made(partition, actor, *messages(1))
    partition.slows = True
    one.run()
    assert (one.slow, partition.slows) == (True, False)
    partition.batch.mail_deleted = [1]  # there is a commit to come behind
    one.mail = [*messages(1)]
    one.ready = True

    one.run()
    one.wake()
    one.run()

    assert len(actor.taken) == 2
    assert not one.slow


async def nothing() -> None:
    pass


async def test_an_async_operation_takes_the_actor_until_it_has_ended(partition: Partition) -> None:
    mail = messages(3)
    mail[1].row, mail[1].reply = 9, Told()
    partition.waiting = 1
    operation = nothing()
    actor = FakeActor(None, operation)
    one = made(partition, actor, *mail)

    rest = one.run()

    assert rest is not None
    assert (one.current, one.mail) == (mail[1], mail[2:])
    assert (one.busy, one.is_blocked, one.queued, one.ready) == (True, True, True, False)
    assert one.unconsumed == mail[1:]
    assert not one.is_idle
    assert partition.batch.mail_deleted == []
    await rest
    assert (one.current, one.busy) == (None, False)
    assert partition.batch.mail_deleted == [9]
    assert partition.waiting == 0
    assert partition.pump.items == [one]


async def test_an_operation_that_ends_by_a_bug_crashes_the_turn(partition: Partition) -> None:
    error = ValueError("a bug")

    async def fail() -> None:
        raise error

    one = made(partition, FakeActor(fail()), *messages(1))
    rest = one.run()
    assert rest is not None

    await rest

    assert partition.crashed == [error]
    assert partition.batch.turns == 0


async def test_what_ends_after_its_memory_was_dropped_has_no_effect(partition: Partition) -> None:
    [message] = messages(1)
    message.row = 9
    one = made(partition, FakeActor(nothing()), message)
    rest = one.run()
    assert rest is not None
    one.retire()

    await rest

    assert partition.batch.mail_deleted == []
    assert partition.batch.turns == 0


class Hand:
    """A hand that says what it was told, and whether other code has been in it."""

    is_shared = True

    def __init__(self, spoilt: bool = False) -> None:
        self.spoilt = spoilt
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1

    def is_spoilt(self) -> bool:
        return self.spoilt


async def test_an_operation_that_code_beside_it_cancelled_begins_again_alone(
    partition: Partition, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancelled(BaseException):
        pass

    async def be_cancelled() -> None:
        raise Cancelled

    def is_foreign(hand: Hand, error: BaseException) -> bool:
        return hand.spoilt and isinstance(error, Cancelled)

    monkeypatch.setattr(activations, "is_foreign", is_foreign)
    actor, mail = entity(), messages(2)
    one = made(partition, actor, *mail)

    def handle(*_: Any) -> Any:
        return be_cancelled()

    monkeypatch.setattr(EntityActor, "handle", handle)
    rest = one.run()
    hand: Any = Hand(spoilt=True)
    one.hand = hand
    assert rest is not None

    await rest

    assert one.mail == mail
    assert (one.current, one.hand, one.busy, one.ready) == (None, None, False, True)
    assert partition.pump.alone == [one]
    assert "begins again" in caplog.text
    assert partition.batch.mail_deleted == []


def test_who_is_retired_has_its_operation_cancelled(partition: Partition) -> None:
    hand: Any = Hand()
    one = made(partition, FakeActor())
    one.hand = hand

    one.retire()

    assert hand.cancelled == 1


@pytest.mark.parametrize(
    "kept",
    [
        {"queued": True},
        {"mail": messages(1)},
        {"dirty": True},
        {"flying": True},
        {"touched": True},
        {"readings": [object()]},
    ],
    ids=lambda kept: next(iter(kept)),
)
def test_what_the_store_has_not_keeps_it_in_memory(
    partition: Partition, kept: dict[str, Any]
) -> None:
    one = made(partition, FakeActor())
    one.queued = False
    assert one.is_idle

    for name, value in kept.items():
        setattr(one, name, value)

    assert not one.is_idle


def test_an_actor_without_an_async_operation_may_take_its_turn_outside_of_the_pump(
    partition: Partition,
) -> None:
    prompt, slow = entity("prompt"), entity("counter")

    assert made(partition, prompt, *messages(1)).is_prompt
    assert not made(partition, prompt).is_prompt  # nothing waits
    assert not made(partition, slow, *messages(1)).is_prompt
    assert not made(partition, FakeActor(), *messages(1)).is_prompt  # no entity
    waiting = made(partition, prompt, *messages(1))
    waiting.ready = False
    assert not waiting.is_prompt
    dead = made(partition, prompt, *messages(1))
    dead.dead = True
    assert not dead.is_prompt


def test_what_waits_is_counted_in_memory_and_in_the_store(partition: Partition) -> None:
    one = made(partition, FakeActor(), *messages(2))
    one.spilled = 5
    one.current = messages(1)[0]

    assert (one.count, one.events, one.waiting) == (7, 0, 8)
    assert one.messages_max == 7


def test_the_log_names_the_operation_that_it_works_on(partition: Partition) -> None:
    one = made(partition, FakeActor())
    assert one.title == KEY

    one.current = messages(1)[0]

    assert one.title == f"operation add of {KEY}"


def test_what_is_done_around_a_turn_takes_it(partition: Partition) -> None:
    taken: list[Any] = []

    def take(one: Activation, mail: list[Message]) -> None:
        taken.append((one, mail))

    partition.around = SimpleNamespace(take=take)
    mail = messages(2)
    one = made(partition, FakeActor(), *mail)

    one.run()

    assert taken == [(one, mail)]


def reading_entity(monkeypatch: pytest.MonkeyPatch, *reads: Operation) -> EntityActor:
    """An entity to which only those messages are reads that may go past what is under way."""

    def may_read(actor: EntityActor, message: Message) -> bool:
        return message in reads

    monkeypatch.setattr(EntityActor, "may_read", may_read)
    return entity()


def test_reads_go_past_an_operation_that_has_suspended_and_the_others_wait(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = messages(3)
    one = made(partition, reading_entity(monkeypatch, mail[1]), *mail)
    hand: Any = Hand()

    one.on_suspended(hand)

    assert one.mail == [mail[0], mail[2]]
    assert [reading.message for reading in one.readings] == [mail[1]]
    assert partition.pump.items == one.readings
    assert partition.batch.touched == [one]  # what waits may have to wait for long
    assert partition.commits == 1
    assert (one.count, one.waiting) == (2, 3)
    one.retire()
    assert hand.cancelled == 1


def test_a_read_that_has_answered_is_consumed_with_the_state_that_it_saw(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    [message] = messages(1)
    message.row, message.reply = 9, Told()
    partition.waiting = 1
    actor = reading_entity(monkeypatch, message)
    one = made(partition, actor)
    assert one.read_beside(message)
    actor.changed = True

    one.end_reading(one.readings[0])

    assert one.readings == []
    assert partition.batch.mail_deleted == [9]
    assert partition.waiting == 0
    assert partition.batch.dirty == [one]
    assert partition.commits == 1


def test_what_is_no_read_of_an_entity_goes_past_nothing(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    [message] = messages(1)

    assert not made(partition, reading_entity(monkeypatch)).read_beside(message)
    assert not made(partition, FakeActor()).read_beside(message)

    assert partition.pump.items == []
