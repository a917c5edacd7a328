"""Guarantee 4 against a transport that does its worst: exactly once, in order, whatever breaks.

The real exchange, routers and wire; partitions, commits, connections and the hub's announcements
are played step by step, in a random order that a seed gives. Connections break and lose what is on
its way, commits fail, partitions recover and move from shard to shard, and what says where they
are comes late. What may be handed over is little, so frames are read back from the store all the
time, and receivers that do not commit for long hold their senders up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.actors.messages import Event, Message
from perdure.runtime.partitions import exchange as exchanging
from perdure.runtime.partitions.batch import Batch
from perdure.runtime.partitions.damage import Damage
from perdure.runtime.partitions.exchange import Exchange
from perdure.runtime.partitions.recovery import reintroduce
from perdure.runtime.placement.places import Frame
from perdure.runtime.shards.sessions import ITEMS
from perdure.runtime.transport.router import Router
from perdure.runtime.transport.wire import Item, Splitter, encode
from perdure.storage import Checkpoint, OutboxRow, PeerRow, Recovered, records, slices

PARTITIONS = 3
SHARDS = 3

Text = tuple[int, int, int]  # sender, receiver, number


class Stored:
    """What a partition has made durable."""

    def __init__(self) -> None:
        self.sequence = 0
        self.next_row = 1
        self.outbox: dict[int, OutboxRow] = {}
        self.peers: dict[int, PeerRow] = {}
        self.sent: list[Text] = []
        self.taken: list[Text] = []

    def recovered(self) -> Recovered:
        return Recovered(
            sequence=self.sequence,
            epoch=1,
            next_id=1,
            next_row=self.next_row,
            mail=[],
            timers=[],
            outbox=records.cut([self.outbox[n] for n in sorted(self.outbox)], records.SLICE_ROWS),
            peers=list(self.peers.values()),
            unanswered=[],
            parked=[],
        )

    async def read_outbox(self, target: int, after: int) -> list[OutboxRow]:
        rows = [self.outbox[n] for n in sorted(self.outbox) if n > after]
        await _Turn()
        return records.cut([row for row in rows if row.target == target], records.SLICE_ROWS)


class _Turn:
    """Has whoever awaits it go on when the test says so."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class FakePartition:
    """A partition whose turns are the test's; what it takes is done in the same batch."""

    def __init__(self, index: int, stored: Stored, router: Router) -> None:
        self.index = index
        self.stored = self.store = stored
        self.reading: Coroutine[Any, Any, None] | None = None
        self.releasing: Generator[None] | None = None
        self.places: Any = router.places
        self.exchange = Exchange(self)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.batch = Batch()
        self.down: Exception | None = None
        self.said: list[Text] = []
        self.taken: list[Text] = []
        self.flying: tuple[Batch, Checkpoint, list[Text], list[Text]] | None = None
        self.damage = Damage("test", self)
        self.exchange.restore(stored.recovered())

    # What the exchange and the router ask of it, as partition.py does it.

    def new_row(self) -> int:
        self.stored.next_row += 1
        return self.stored.next_row - 1

    def gathered(self) -> None:
        pass

    def post(self, key: str, message: Message) -> None:
        assert isinstance(message, Event)
        sender, receiver, number = map(int, message.name.split())
        self.taken.append((sender, receiver, number))

    def post_answer(self, *_: Any) -> None:
        raise AssertionError("there are no activities")

    def receive(self, source: int, frame: Frame) -> None:
        if self.down is None:
            self.exchange.receive(source, frame)

    def acknowledge(self, target: int, last: int) -> None:
        if self.down is None:
            self.exchange.acknowledge(target, last)

    def resend(self, target: int) -> None:
        if self.down is None:
            self.exchange.resend(target)

    def offer(self, number: int) -> None:
        if self.down is None:
            self.exchange.resend(number)
            self.exchange.acknowledge_again(number)

    # What the test has it do.

    def say(self, text: Text) -> None:
        message = Event(" ".join(map(str, text)), b"1")
        self.batch.outbox.setdefault(text[1], []).append(("x", message))
        self.said.append(text)

    def begin_commit(self) -> None:
        has_work = self.batch.has_rows or self.batch.has_output
        if self.flying is None and self.down is None and has_work:
            self.release(all_of_it=True)
            batch, self.batch = self.batch, Batch()
            checkpoint = Checkpoint(sequence=self.stored.sequence + 1, epoch=1)
            self.exchange.seal(batch, checkpoint)
            checkpoint.outbox_deleted = batch.outbox_deleted
            self.flying = (batch, checkpoint, self.said, self.taken)
            self.said, self.taken = [], []

    def end_commit(self, is_stored: bool, is_told: bool) -> None:
        if self.flying is None:
            return
        (batch, checkpoint, said, taken), self.flying = self.flying, None
        if is_stored:
            stored = self.stored
            stored.sequence = checkpoint.sequence
            stored.outbox |= {row.n: row for row in checkpoint.outbox}
            for n in checkpoint.outbox_deleted:
                stored.outbox.pop(n, None)
            stored.peers |= {row.peer: row for row in checkpoint.peers}
            stored.sent += said
            stored.taken += taken
        if is_stored and is_told:
            self.exchange.on_durable(checkpoint)
            self.releasing = self.exchange.release(batch)
            self.release()
        else:
            self.down = RuntimeError("it recovers")
            self.batch = Batch()
            self.said, self.taken = [], []

    def release(self, *, all_of_it: bool = False) -> None:
        """Go on with what the last commit lets out, until it pauses."""
        while self.releasing is not None:
            try:
                next(self.releasing)
            except StopIteration:
                self.releasing = None
            if not all_of_it:
                return

    def read(self) -> None:
        """Begin to read frames that are wanted, or go on with that."""
        if self.reading is None and self.exchange.wanted:
            self.reading = self.exchange.read(self.exchange.wanted.pop())
        if self.reading is not None:
            try:
                self.reading.send(None)
            except StopIteration:
                self.reading = None

    def recover(self) -> None:
        self.exchange.restore(self.stored.recovered())
        self.down = None
        reintroduce(self)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class FakeLine:
    """One direction of a connection; what is on its way may be lost."""

    def __init__(self, on_up: Callable[[], None]) -> None:
        self.is_up = False
        self.under_way: list[bytes] = []
        self._on_up = on_up

    def post(self, item: Item) -> None:
        if self.is_up:
            self.under_way.append(encode([item]))

    def connect(self) -> None:
        if not self.is_up:
            self.is_up = True
            self._on_up()

    def lose(self) -> None:
        self.is_up = False
        self.under_way.clear()


class FakeRouter(Router):
    """A router whose lines are the test's."""

    def __init__(self, shard: int) -> None:
        super().__init__(PARTITIONS, shard, lambda: None)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
        self.fakes = {
            other: FakeLine(lambda other=other: self._up(other))  # type: ignore[misc]
            for other in range(SHARDS)
            if other != shard
        }

    def line(self, shard: int) -> Any:
        return self.fakes[shard]


class World:
    """All shards and partitions, and the hub that says where the partitions are."""

    def __init__(self) -> None:
        self.routers = [FakeRouter(shard) for shard in range(SHARDS)]
        self.stored = [Stored() for _ in range(PARTITIONS)]
        self.owners = [number % SHARDS for number in range(PARTITIONS)]
        self.announced: list[list[list[int]]] = [[] for _ in range(SHARDS)]
        self.moving: dict[int, int] = {}
        self.count = 0
        for router in self.routers:
            router.owners[:] = self.owners
        for number, shard in enumerate(self.owners):
            self._host(number, shard)
        for router in self.routers:
            for line in router.fakes.values():
                line.connect()

    def _host(self, number: int, shard: int) -> None:
        router = self.routers[shard]
        partition: Any = FakePartition(number, self.stored[number], router)
        router.add(partition)
        reintroduce(partition)

    def _partition(self, number: int) -> Any:
        return self.routers[self.owners[number]].hosted.get(number)

    def step(self, what: str, a: int, b: int) -> None:
        getattr(self, what)(a, b)

    def say(self, a: int, b: int) -> None:
        sender, receiver = a % PARTITIONS, b % PARTITIONS
        partition = self._partition(sender)
        if sender != receiver and partition is not None and partition.down is None:
            self.count += 1
            partition.say((sender, receiver, self.count))

    def begin(self, a: int, b: int) -> None:
        if (partition := self._partition(a % PARTITIONS)) is not None:
            partition.begin_commit()

    def end(self, a: int, b: int) -> None:
        if (partition := self._partition(a % PARTITIONS)) is not None:
            partition.end_commit(b != 1, b != 2)

    def recover(self, a: int, b: int) -> None:
        partition = self._partition(a % PARTITIONS)
        if partition is not None and partition.down is not None:
            partition.recover()

    def read(self, a: int, b: int) -> None:
        if (partition := self._partition(a % PARTITIONS)) is not None:
            partition.read()

    def release(self, a: int, b: int) -> None:
        if (partition := self._partition(a % PARTITIONS)) is not None:
            partition.release()

    def connect(self, a: int, b: int) -> None:
        if a % SHARDS != b % SHARDS:
            self.routers[a % SHARDS].fakes[b % SHARDS].connect()

    def lose(self, a: int, b: int) -> None:
        if a % SHARDS != b % SHARDS:
            self.routers[a % SHARDS].fakes[b % SHARDS].lose()

    def deliver(self, a: int, b: int) -> None:
        """Deliver what has been under way for longest."""
        if a % SHARDS == b % SHARDS:
            return
        under_way = self.routers[a % SHARDS].fakes[b % SHARDS].under_way
        shard: Any = SimpleNamespace(hosted=self.routers[b % SHARDS].hosted)
        if under_way:
            for item in Splitter().feed(under_way.pop(0)):
                ITEMS[item[0]](shard, *item[1:])

    def leave(self, a: int, b: int) -> None:
        """Begin to move a partition: it leaves its shard, with everything durable."""
        number, to = a % PARTITIONS, b % SHARDS
        partition = self._partition(number)
        if self.moving or partition is None or partition.down is not None:
            return
        if partition.flying is None and to != self.owners[number]:
            partition.batch.peers.update(partition.exchange.peers)  # this one is made anyway
            partition.begin_commit()
            partition.end_commit(True, True)
            partition.release(all_of_it=True)
            partition.down = RuntimeError("it has moved")
            self.routers[self.owners[number]].remove(number)
            self.moving[number] = to

    def arrive(self, a: int, b: int) -> None:
        """End the move: its new shard has it, or its old one again."""
        for number, to in self.moving.items():
            if b != 1:
                self.owners[number] = to
            self._host(number, self.owners[number])
            for queue in self.announced:
                queue.append(list(self.owners))
        self.moving.clear()

    def hear(self, a: int, b: int) -> None:
        """Have a shard hear where partitions are."""
        if queue := self.announced[a % SHARDS]:
            self.routers[a % SHARDS].place(queue.pop(0))

    def heal(self) -> None:
        """Let everything come to rest: from here on nothing breaks any more."""
        self.arrive(0, 0)
        rounds = 0
        while not self._is_at_rest():
            rounds += 1
            assert rounds < 400, "it does not come to rest"
            for shard in range(SHARDS):
                while self.announced[shard]:
                    self.hear(shard, 0)
                for other in range(SHARDS):
                    self.connect(shard, other)
                    for _ in range(50):
                        self.deliver(shard, other)
            for number in range(PARTITIONS):
                for _ in range(40):
                    self.read(number, 0)
                    self.release(number, 0)
                self.recover(number, 0)
                self.end(number, 0)
                self.begin(number, 0)
                self.end(number, 0)

    def _is_at_rest(self) -> bool:
        lines = [line for router in self.routers for line in router.fakes.values()]
        halves = [self._partition(number) for number in range(PARTITIONS)]
        return (
            all(line.is_up and not line.under_way for line in lines)
            and not any(self.announced)
            and all(one.down is None and one.flying is None for one in halves)
            and not any(one.batch.has_rows or one.batch.has_output for one in halves)
            and not any(one.reading or one.exchange.wanted for one in halves)
            and not any(one.releasing for one in halves)
        )

    def check(self) -> None:
        """Check that all that was durably sent was durably taken: once, and in order."""
        for sender, source in enumerate(self.stored):
            for receiver, target in enumerate(self.stored):
                sent = [text for text in source.sent if text[1] == receiver]
                taken = [text for text in target.taken if text[0] == sender]
                assert taken == sent
            peers = self._partition(sender).exchange.peers.values()
            assert not any(peer.owed for peer in peers), "what was taken is owed for ever"
            assert not self._partition(sender).exchange.choked

    def check_bounds(self) -> None:
        """Check that no more than a window is in memory for any peer."""
        for router in self.routers:
            hosted: list[Any] = [*router.hosted.values()]
            for partition in hosted:
                for peer in partition.exchange.peers.values():
                    owed = [frame.last for frame in peer.owed]
                    window = max(1, exchanging.WINDOW_MESSAGES // (PARTITIONS - 1))
                    assert len(owed) <= 1 or owed[-2] - owed[0] < window
                    assert peer.size == sum(len(frame.body) for frame in peer.owed)


#: How often each step is taken, in an ordinary world, in one whose connections break all the
#: time, and in one whose partitions never stay.
WEIGHTS = [
    {"connect": 2, "lose": 1, "leave": 1, "arrive": 2, "hear": 6, "begin": 4, "end": 6},
    {"connect": 8, "lose": 8, "leave": 1, "arrive": 1, "hear": 2, "begin": 6, "end": 8},
    {"connect": 1, "lose": 0, "leave": 6, "arrive": 6, "hear": 6, "begin": 4, "end": 8},
]
ALWAYS = {"say": 8, "deliver": 16, "recover": 2, "read": 6, "release": 4}


def live(seed: int, steps: int) -> None:
    """Live through a random history, and check what came of it."""
    chance = random.Random(seed)
    weights = chance.choice(WEIGHTS) | ALWAYS
    exchanging.WINDOW_MESSAGES = chance.choice([1, 8, 16_000])
    records.__dict__.update(SLICE_ROWS=chance.choice([1, 3, 500]))
    world = World()
    names = list(weights)
    for what in chance.choices(names, list(weights.values()), k=chance.randint(1, steps)):
        a, b = chance.randrange(3), chance.randrange(3)
        if what == "end" and chance.random() < 0.7:
            b = 0  # most commits are well
        world.step(what, a, b)
        world.check_bounds()
    world.heal()
    world.check()


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what a history has changed."""
    monkeypatch.setattr(exchanging, "WINDOW_MESSAGES", exchanging.WINDOW_MESSAGES)
    monkeypatch.setattr(exchanging, "FRAME_MESSAGES_MAX", 2)
    monkeypatch.setattr(records, "SLICE_ROWS", records.SLICE_ROWS)
    monkeypatch.setattr(slices, "slice_s", -1.0)  # what may pause does
    monkeypatch.setattr(slices, "checkpoint", _Turn)


@pytest.mark.parametrize("block", range(4))
def test_messages_arrive_once_and_in_order_whatever_breaks(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        try:
            live(seed, 200)
        except BaseException:
            print(f"live({seed}, 200)")
            raise


def test_what_was_taken_before_is_acknowledged_again_with_the_next_batch() -> None:
    world = World()
    partition: Any = world.routers[1].hosted[1]
    answers = world.routers[1].fakes[0].under_way

    def commit(number: int) -> None:
        for step in (world.begin, world.end, world.release):
            step(number, 0)

    world.say(0, 1)
    commit(0)
    sent: Any = world.routers[0].hosted[0]
    frame = sent.exchange.peers[1].owed[0]
    partition.receive(0, frame)
    commit(1)
    answers.clear()

    for again in (partial(partition.receive, 0, frame), partial(partition.offer, 0)):
        again()
        assert answers == [], "from memory, which may be ahead of a store that has failed over"
        commit(1)
        assert len(answers) == 1
        answers.clear()


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_messages_arrive_once_and_in_order_over_long_histories(block: int) -> None:
    for seed in range(block * 1_000, block * 1_000 + 1_000):
        try:
            live(seed, 600)
        except BaseException:
            print(f"live({seed}, 600)")
            raise
