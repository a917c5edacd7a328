"""Striped entities without a runtime: what is refused at registration, and homes and stripes alone."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, strategies as st

import perdure
from perdure import App, EntityContext, LockRuleError, OrchestrationContext, RegistrationError
from perdure.actors.changes import EntityState
from perdure.actors.effects import HELD
from perdure.actors.entities.entity import EntityActor
from perdure.actors.entities.stripes import Stripe, split_key, stripe_key
from perdure.actors.messages import (
    Caller,
    Command,
    Fold,
    Folded,
    Message,
    Operation,
    Start,
    TimerDue,
    decode_message,
    encode_message,
)
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.placement.hashing import partition_of
from tests.actors.recording import START, Instance, Recorder

STRIPES = 3
app = App()


@app.entity(stripes=STRIPES)
class Visits:
    total: int = 0
    limit: int | None = None

    @perdure.commutative
    def add(self, amount: int) -> None:
        self.total += amount

    @perdure.commutative
    def leave(self, ctx: EntityContext) -> None:
        ctx.delete()

    def get(self) -> int:
        return self.total

    def set(self, total: int) -> None:
        self.total = total

    def merge(self, other: Visits) -> None:
        if self.limit is not None and self.total + other.total > self.limit:
            raise ValueError("above the limit")
        self.total += other.total


LOOKUP = Lookup(app, 1_000_000)
HOME = "@visits@page"


# Registration.


def striped(body: dict[str, Any], **options: Any) -> None:
    """Register a striped class with these members."""
    base = {"__annotations__": {"total": "int"}, "total": 0, "__module__": __name__}

    def add(self: Any, amount: int) -> None:
        self.total += amount

    def merge(self: Any, other: Any) -> None:
        self.total += other.total

    members = {**base, "add": perdure.commutative(add), "merge": merge, **body}
    kept = {name: value for name, value in members.items() if value is not None}
    App().entity(stripes=options.get("stripes", 4))(type("Bad", (), kept))


def test_a_striped_class_is_taken_and_merge_is_no_operation() -> None:
    striped({})

    definition = app.registry.find_entity(Visits)
    assert "merge" not in definition.operations
    assert definition.stripes == STRIPES
    assert app.registry.striped == {"visits": definition}


@pytest.mark.parametrize("stripes", [0, -1, 1_025, True, 1.5, "many", [4]])
def test_a_bad_number_of_stripes_is_refused(stripes: Any) -> None:
    with pytest.raises(RegistrationError, match="from 1 to 1,024, or 'auto'"):
        striped({}, stripes=stripes)


def merge_alone(self: Any) -> None: ...
def merge_two(self: Any, other: Any, more: Any) -> None: ...
def merge_starred(self: Any, *others: Any) -> None: ...
def merge_number(self: Any, other: int) -> None: ...
def merge_giving(self: Any, other: Any) -> int:
    return 1


async def merge_async(self: Any, other: Any) -> None: ...
def merge_yielding(self: Any, other: Any) -> Any:
    yield


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (None, "needs a method 'def merge"),
        (5, "without an annotation"),
        (staticmethod(merge_alone), "needs a method 'def merge"),
        (merge_alone, "must take self and the other"),
        (merge_two, "at most one input"),
        (merge_starred, r"\*args"),
        (merge_number, "its parameter cannot be int"),
        (merge_giving, "result is annotated <class 'int'>"),
        (merge_async, "must not be async"),
        (merge_yielding, "is a generator"),
    ],
)
def test_a_merge_that_is_missing_or_wrong_is_refused_with_what_is_wrong(
    merge: Any, words: str
) -> None:
    with pytest.raises(RegistrationError, match=words):
        striped({"merge": merge})


def test_a_striped_class_without_a_commutative_operation_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"none of its operations is marked"):
        striped({"add": None})


def test_an_operation_cannot_be_commutative_and_readonly() -> None:
    def peek(self: Any) -> int:
        return 1

    with pytest.raises(RegistrationError, match="readonly and commutative"):
        striped({"peek": perdure.readonly(perdure.commutative(peek))})


def test_commutative_on_a_plain_entity_is_refused() -> None:
    with pytest.raises(RegistrationError, match="for striped entities only"):

        @App().entity
        class Plain:
            @perdure.commutative
            def add(self, amount: int) -> None: ...


def test_a_function_cannot_be_striped() -> None:
    with pytest.raises(RegistrationError, match="only a class can be striped"):

        @App().entity(stripes=4)
        def tally(ctx: EntityContext) -> None: ...


def test_a_field_without_any_default_is_refused_since_a_stripe_begins_fresh() -> None:
    @attrs.define
    class Point:
        x: int

    with pytest.raises(RegistrationError, match="has no default"):
        striped({"__annotations__": {"total": int, "point": Point}})


def test_merge_of_a_plain_entity_is_an_operation_like_any_other() -> None:
    local = App()

    @local.entity
    class Plain:
        total: int = 0

        def merge(self, other: int) -> int:
            return other

    assert "merge" in local.registry.find_entity(Plain).operations


def test_included_applications_bring_their_striped_entities_along() -> None:
    both = App()
    both.include(app)

    assert set(both.registry.striped) == {"visits"}


# Addresses.


@given(st.text(), st.integers(0, 1_023))
def test_a_stripes_key_is_read_back(key: str, number: int) -> None:
    assert split_key(stripe_key(f"@visits@{key}", number)) == (f"@visits@{key}", number)


@given(st.text(), st.integers(1, 1_024))
def test_there_is_a_stripe_in_every_partition_if_there_are_as_many(
    key: str, partitions: int
) -> None:
    home = f"@visits@{key}"
    places = [partition_of(stripe_key(home, n), partitions) for n in range(partitions)]

    assert sorted(places) == list(range(partitions))
    assert places[0] == partition_of(home, partitions)


# A home and its stripes, with messages that take any time, and crashes between any two.


@attrs.define
class Read:
    """A read under way: what had been acknowledged when it was asked for."""

    least: int


def read_after(acknowledged: int) -> Operation:
    message = Operation("get", None, call=True)
    message.reply = Read(acknowledged)
    return message


class World(Recorder):
    """A home, its stripes, and the messages between them, each pair's in order."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, EntityState] = {}
        self.actors: dict[str, EntityActor] = {}
        self.channels: dict[tuple[str, str], deque[bytes]] = {}
        self.timers: set[Caller] = set()
        self.acting = ""
        self.acknowledged = 0
        self.asked = 0
        self.reads: list[tuple[Read, int]] = []

    def send(self, target: str, message: Message) -> None:
        self.asked += isinstance(message, Fold)
        channel = self.channels.setdefault((self.acting, target), deque())
        channel.append(encode_message(message))

    def arm_timer(self, caller: Caller, due: int) -> None:
        assert caller not in self.timers, "one timer for a stripe"
        self.timers.add(caller)

    def unload(self, key: str) -> None:
        raise NotImplementedError

    def disarm_timer(self, caller: Caller) -> None:
        self.timers.discard(caller)

    def reply(self, message: Message, result: bytes | None) -> None:
        if isinstance(message.reply, Read):
            self.reads.append((message.reply, orjson.loads(result or b"null")))
            least = message.reply.least
            assert least <= orjson.loads(result or b"0") <= self.acknowledged

    def actor(self, key: str) -> EntityActor:
        found = self.actors.get(key)
        if found is None:
            name, _, rest = key[1:].partition("@")
            unknown: Any = None
            found = EntityActor(1, name, rest, unknown, LOOKUP, str)
            found.define(app.registry.find_entity(name), STRIPES)
            if key in self.stored:
                found.load(self.stored[key])
            self.actors[key] = found
        return found

    def act(self, key: str, *messages: Message) -> None:
        """Have an actor take messages in one turn, and a checkpoint."""
        self.acting = key
        actor = self.actor(key)
        waiting = deque(messages)
        while waiting:
            first = waiting.popleft()
            if actor.handle(first, START, self) is HELD:
                actor.hold(first)
            else:
                waiting.extendleft(reversed(actor.release()))
        if actor.folding:
            actor.begin_fold(self)
        told = actor.seal(START)
        self.stored.pop(key, None)
        if told is not None and not told.is_empty:
            self.stored[key] = told
        if isinstance(actor.striping, Stripe) and key in self.stored and self.stored[key].state:
            assert Caller(key, 0, 1) in self.timers

    def crash(self, key: str) -> None:
        """Forget an actor; what its mailbox held is there again."""
        actor = self.actors.pop(key, None)
        if actor is not None and actor.held:
            self.act(key, *actor.held)

    def deliver(self, which: int, but: tuple[str, str] | None = None) -> bool:
        full = sorted(pair for pair, channel in self.channels.items() if channel and pair != but)
        if not full:
            return False
        pair = full[which % len(full)]
        message = decode_message(orjson.loads(self.channels[pair].popleft()))
        self.act(pair[1], message)
        return True

    def add(self, number: int, amount: int) -> None:
        self.act(stripe_key(HOME, number), Operation("add", str(amount).encode()))
        self.acknowledged += amount

    def read(self) -> None:
        self.act(HOME, read_after(self.acknowledged))

    def fire(self, number: int) -> None:
        caller = Caller(stripe_key(HOME, number), 0, 1)
        if caller in self.timers:
            self.timers.discard(caller)
            self.act(caller.instance_id, TimerDue(0, 1))

    def finish(self) -> int:
        """Deliver everything, and give the total."""
        while self.deliver(0):
            pass
        self.read()
        while self.deliver(0):
            pass
        return self.reads[-1][1]


MOVES = st.tuples(
    st.sampled_from(["add", "add", "read", "deliver", "deliver", "deliver", "fire", "crash"]),
    st.integers(0, 9),
)


@given(st.lists(MOVES, max_size=60))
def test_reads_see_what_was_acknowledged_and_totals_are_exact_in_any_order_of_messages(
    moves: list[tuple[str, int]],
) -> None:
    world = World()
    asked = 0
    for move, n in moves:
        if move == "add":
            world.add(n % STRIPES, n)
        elif move == "read":
            world.read()
            asked += 1
        elif move == "deliver":
            world.deliver(n)
        elif move == "fire":
            world.fire(n % STRIPES)
        else:
            world.crash(HOME if n < 4 else stripe_key(HOME, n % STRIPES))

    assert world.finish() == world.acknowledged
    assert len(world.reads) == asked + 1
    assert not world.timers
    assert set(world.stored) <= {HOME}


def test_an_operation_that_comes_during_a_round_waits_for_the_next() -> None:
    world = World()
    world.read()
    while world.channels[HOME, stripe_key(HOME, 0)]:
        world.deliver(0)  # stripe 0 answers, with nothing
    world.add(0, 7)
    world.read()

    assert world.finish() == 7
    assert [total for _, total in world.reads] == [0, 7, 7]


def test_operations_that_wait_together_share_a_round() -> None:
    world = World()
    world.act(HOME, *(read_after(0) for _ in range(5)))
    while world.deliver(0):
        pass

    assert world.asked == STRIPES
    assert len(world.reads) == 5


def test_a_round_outlives_a_crash_of_the_home() -> None:
    world = World()
    world.read()
    world.deliver(0)  # stripe 0 has answered
    world.add(0, 3)
    world.read()
    world.crash(HOME)  # its answer is not that of a new round

    assert orjson.loads(world.stored[HOME].failures or b"")[2][1] == [0, 1, 2]
    while world.deliver(0, but=(HOME, stripe_key(HOME, 0))):
        pass
    assert world.reads == []
    assert world.finish() == 3
    assert [total for _, total in world.reads] == [3, 3, 3]


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(MOVES, max_size=20))
def test_a_purge_takes_what_is_on_its_way_too_and_nothing_that_comes_after(
    deliveries: list[int], moves: list[tuple[str, int]]
) -> None:
    world = World()
    for move, n in moves:
        if move == "add":
            world.add(n % STRIPES, n)
        elif move == "fire":
            world.fire(n % STRIPES)
        elif move == "deliver":
            world.deliver(n)
        elif move == "read":
            world.read()
    world.act(HOME, Command("purge"))
    for n in deliveries:
        world.deliver(n)
    while world.deliver(0):
        pass
    world.acknowledged = 0
    assert not world.stored
    world.add(1, 5)

    assert world.finish() == 5


def test_what_cannot_be_merged_is_kept_and_parks_the_home() -> None:
    world = World()
    home = world.actor(HOME)
    home.state, home.exists = home.definition.make(), True
    home.state.limit = 5
    message = Folded(1, 0, b'{"total":6}')

    assert home.handle(message, START, world) is HELD
    assert home.parked is not None
    assert "merge failed: ValueError: above the limit" in home.parked
    assert home.state.total == 0
    assert ("failed operation", HOME, "merge") in [effect[:3] for effect in world.effects]


def actor_of(local: App, definition: Any, key: str) -> EntityActor:
    """Give an entity of an application on four partitions."""
    unknown: Any = None
    actor = EntityActor(1, "visits", key, unknown, Lookup(local, 99), str)
    actor.define(local.registry.find_entity(definition), 4)
    return actor


def stored_state(actor: EntityActor) -> bytes | None:
    told = actor.seal(START)
    assert told is not None
    return told.state


def parking(result: Any) -> EntityActor:
    """Give a home whose merge has just met this result or change, and was parked by it."""
    local = App()

    @local.entity(stripes=2)
    class Changing:
        total: int = 0

        @perdure.commutative
        def add(self, amount: int) -> None: ...

        def merge(self, other: Changing) -> Any:
            if result == "field":
                setattr(self, "total", "many")  # noqa: B010 (a type checker would see it)
                return None
            return self if result == "self" else result

    actor = actor_of(local, Changing, "x")
    outcome = actor.handle(Folded(0, 0, b'{"total":1}'), START, Recorder())
    assert (outcome is HELD) == (actor.parked is not None)
    return actor


@pytest.mark.parametrize(
    ("result", "words"), [("field", r"\$\.total.*int"), (7, "returned int; it must change self")]
)
def test_a_merge_that_changes_a_type_parks_the_home_and_changes_nothing(
    result: Any, words: str
) -> None:
    actor = parking(result)

    assert actor.parked is not None
    assert re.search(words, actor.parked)
    assert stored_state(actor) is None


def test_a_merge_may_return_itself() -> None:
    actor = parking("self")

    assert actor.parked is None
    assert stored_state(actor) == b'{"total":0}'


def test_a_stripe_that_is_parked_says_so_and_keeps_what_it_has() -> None:
    world = World()
    world.add(1, 4)
    stripe = world.actor(stripe_key(HOME, 1))
    stripe.park("Crash", "it crashed")
    world.read()
    while world.deliver(0):
        pass
    home = world.actor(HOME)

    assert home.parked == "its stripe 1 is parked: it crashed"
    assert stripe.state.total == 4

    stripe.unpark()
    home.unpark()
    retry = Command("retry")
    retry.loaded = True
    world.acting = HOME
    assert home.handle(retry, START, world) is None
    told = [orjson.loads(text)[:2] for text in world.channels[HOME, stripe.key]]
    assert told == [["command", "retry"], ["fold", 1]]


def test_a_commutative_operation_cannot_delete() -> None:
    world = World()
    world.act(stripe_key(HOME, 0), Operation("leave", None))

    kind, entity, operation, failure = world.effects[-1]
    assert (kind, entity, operation) == ("failed operation", HOME, "leave")
    assert "cannot delete the entity" in failure.message


def test_an_operation_that_is_not_commutative_any_more_goes_home() -> None:
    world = World()
    world.act(stripe_key(HOME, 2), Operation("set", b"5"))
    world.acknowledged = 5

    assert world.finish() == 5


def test_a_stripe_whose_entity_is_plain_again_says_what_to_do() -> None:
    local = App()

    @local.entity(name="visits")
    class Plain:
        total: int = 0

    stripe = actor_of(local, Plain, "page\x1f1")

    with pytest.raises(perdure.UsageError, match="register it with stripes again"):
        stripe.load(EntityState(1, "visits", "page", START, b'{"total":1}', None, None, None))


def test_a_home_that_was_locked_before_it_was_striped_says_what_to_do() -> None:
    home = actor_of(app, Visits, "page")

    with pytest.raises(perdure.UsageError, match="locked by i since before"):
        home.load(EntityState(1, "visits", "page", START, None, b'["i",1,2]', None, None))


def test_a_striped_entity_cannot_be_locked() -> None:
    local = App()
    local.include(app)
    errors: list[str] = []

    @local.orchestration
    async def lock(ctx: OrchestrationContext) -> None:
        try:
            ctx.lock_entities(perdure.EntityId(Visits, "page"))
        except LockRuleError as error:
            errors.append(str(error))

    with Instance(Lookup(local, 1_000)) as instance:
        instance.take(Start("lock", None, None), START)

    assert len(errors) == 1
    assert errors[0].startswith("@visits@page is striped and cannot be locked")


def test_a_fold_for_an_actor_that_is_no_stripe_is_refused() -> None:
    world = World()
    world.acting = HOME
    world.actor(HOME).handle(Fold(1, False), START, world)

    assert world.effects[-1] == ("refuse", "UsageError")
