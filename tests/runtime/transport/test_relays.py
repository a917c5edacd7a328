from __future__ import annotations

import random
import socket
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import orjson
import pytest
from anyio.abc import SocketAttribute

from perdure import App, EntityContext, EntityId, MemoryStore, Settings, StorageError
from perdure.actors.messages import Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.placement.hashing import partition_of
from perdure.runtime.placement.places import Frame, LineLostError
from perdure.runtime.scheduling.clock import SystemClock
from perdure.runtime.scheduling.hidden_tasks import TaskGroup
from perdure.runtime.scheduling.keeper import Keeper
from perdure.runtime.scheduling.waiter import waiter_factory
from perdure.runtime.shards.sessions import Session
from perdure.runtime.shards.shard import Shard
from perdure.runtime.transport import detours, lines, relays
from perdure.runtime.transport.channels import Channel
from perdure.runtime.transport.greeting import Credentials
from perdure.runtime.transport.lines import Line
from perdure.runtime.transport.nodes import Dialler, listen_node, serve_nodes
from perdure.runtime.transport.relays import Relays
from perdure.runtime.transport.router import Router
from perdure.runtime.transport.tcp import TcpListener, join_address
from perdure.runtime.transport.wire import Item
from tests.faults import settle
from tests.runtime.harness import until_true
from tests.runtime.transport.test_lines import FakeChannel


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all take a tenth of its time, but for the patience with a member that is silent.

    On a busy machine one may well be silent for half a second.
    """
    for module, names in (
        (relays, ("POLL_S", "IDLE_S", "BEAT_S", "_LEAVE_S", "_GATHER_S")),
        (detours, ("DETOUR_AFTER_S", "STEADY_S", "_AGAIN_S", "_AGAIN_MAX_S")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name) / 10)


def ignore(items: list[Item]) -> None:
    """Do nothing with what comes."""


HEAD_SIZE = 17


def is_piece(item: bytes) -> bool:
    """Say whether it is more than a beat, which a busy machine may have more of."""
    return len(item) > HEAD_SIZE


async def is_not_reached(own: Relays, member: int) -> None:
    """Check that a member does not take a channel, with little patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relays, "OPEN_S", 0.4)
        with pytest.raises(ConnectionError):
            await own.dial(member)


class Board:
    """Where the members of a hub put things down for each other; it may lose them."""

    def __init__(self) -> None:
        self.items: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self.lose = False
        self.loss = 0.0
        self.is_down = False
        self.put = 0
        self.pieces = self.lost_pieces = 0
        self.looks = 0
        self.chance = random.Random(1)

    def check(self) -> None:
        if self.is_down:
            raise StorageError("the store is away")

    def member(self, number: int) -> Any:
        return BoardMembership(self, number)


class BoardMembership:
    """As much of a membership as carries things."""

    def __init__(self, board: Board, number: int) -> None:
        self.board = board
        self.number = number

    async def send(self, target: int, items: Sequence[bytes]) -> None:
        await anyio.lowlevel.checkpoint()
        self.board.check()
        for item in items:
            self.board.put += 1
            self.board.pieces += is_piece(item)
            if self.board.lose or self.board.chance.random() < self.board.loss:
                self.board.lost_pieces += is_piece(item)
            else:
                self.board.items[target].append((self.number, item))

    async def receive(self) -> list[tuple[int, bytes]]:
        self.board.looks += 1
        await anyio.lowlevel.checkpoint()
        self.board.check()
        return self.board.items.pop(self.number, [])


class End:
    """A member that has channels through a board, and notes what comes."""

    def __init__(self, board: Board, number: int, known: set[int]) -> None:
        self.membership: Any = board.member(number)
        self.known = known
        self.relays = Relays(lambda: self.membership, self.known.__contains__)
        self.accepted: list[tuple[Channel, int | None]] = []
        self.items: list[Item] = []
        self.ended = 0

    async def take(self, channel: Channel, member: int | None) -> None:
        self.accepted.append((channel, member))
        await channel.run(self.items.extend)
        self.ended += 1


@asynccontextmanager
async def ends(board: Board, *numbers: int) -> AsyncGenerator[list[End]]:
    known = set(numbers)
    made = [End(board, number, known) for number in numbers]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for one in made:
                tasks.start_soon(one.relays.run, one.take, Keeper())
            yield made
            tasks.cancel_scope.cancel()


async def test_a_channel_through_the_store_carries_both_ways_in_order() -> None:
    board = Board()
    back: list[Item] = []
    async with ends(board, 1, 2) as (one, other):
        channel = await one.relays.dial(2)
        assert one.relays.members == [2]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run, back.extend)
            for n in range(500):
                channel.post(("ack", 0, 1, n))
            await until_true(lambda: len(other.items) == 500)
            accepted, member = other.accepted[0]
            assert member == 1
            for n in range(500):
                accepted.post(("drop", n))
            await until_true(lambda: len(back) == 500)
            assert board.pieces < 40  # they go together
            channel.close()
        await until_true(lambda: other.ended == 1)
        assert (one.relays.members, other.relays.members) == ([], [])

    assert other.items == [("ack", 0, 1, n) for n in range(500)]
    assert back == [("drop", n) for n in range(500)]


async def test_what_is_large_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "PIECE_SIZE", 1_000)
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        channel = await one.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        item: Item = ("answer", 1, b'"%b"' % (b"x" * 20_000))
        channel.post(item)
        await until_true(lambda: other.items == [item])
        assert board.pieces > 20
        channel.close()


async def test_a_piece_that_is_lost_ends_both_ends() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        channel = await one.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        channel.post(("drop", 1))
        await until_true(lambda: other.items == [("drop", 1)])
        board.lose = True
        channel.post(("drop", 2))
        await until_true(lambda: board.lost_pieces == 1)
        board.lose = False
        channel.post(("drop", 3))
        await until_true(lambda: other.ended == 1 and one.relays.members == [])

    assert other.items == [("drop", 1)]


async def test_the_last_piece_that_is_lost_is_missed_too() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other):
        channel = await one.relays.dial(2)
        async with anyio.create_task_group() as tasks:
            board.lose = True
            tasks.start_soon(channel.run, ignore)
            channel.post(("drop", 1))
            await until_true(lambda: board.lost_pieces == 1)
            board.lose = False
        await until_true(lambda: other.ended == 1)

    assert other.items == []


@pytest.mark.by_turns
async def test_a_channel_ends_where_nothing_comes_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "SILENCE_S", 1.0)
    board = Board()
    async with ends(board, 1, 2) as (one, other):
        channel = await one.relays.dial(2)
        board.lose = True
        began = anyio.current_time()
        await channel.run(ignore)
        took = anyio.current_time() - began
        await until_true(lambda: other.ended == 1)

    assert took >= relays.SILENCE_S - 0.1


@pytest.mark.by_turns
async def test_a_channel_with_nothing_to_say_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "SILENCE_S", 2.0)
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        channel = await one.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        await anyio.sleep(1.5 * relays.SILENCE_S)
        channel.post(("drop", 1))
        await until_true(lambda: other.items == [("drop", 1)])
        channel.close()


@pytest.mark.by_turns
@pytest.mark.parametrize("reason", ["gone", "a stranger"])
async def test_a_member_that_does_not_answer_is_not_reached(reason: str) -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other):
        if reason == "a stranger":
            other.known = other.known - {1}
            other.relays = one.relays
        await is_not_reached(one.relays, 3)
        assert one.relays.members == []


async def test_what_comes_from_no_member_is_dropped() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other):
        stranger = Relays(lambda: board.member(9), lambda _: True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stranger.run, one.take, Keeper())
            await is_not_reached(stranger, 2)
            for garbage in (b"", b"x", b"\xff" * 40):
                board.items[2] += [(9, garbage), (1, garbage)]
            await until_true(lambda: not board.items.get(2))
            tasks.cancel_scope.cancel()
        assert other.accepted == []
        channel = await one.relays.dial(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run, ignore)
            channel.close()


@pytest.mark.by_turns
async def test_channels_end_where_the_process_is_another_member_now() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other):
        channel = await one.relays.dial(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run, ignore)
            await until_true(lambda: len(other.accepted) == 1)
            one.membership = board.member(5)
        await until_true(lambda: other.ended == 1)
        await is_not_reached(one.relays, 2)  # who is 5?
        other.known.add(5)
        again = await one.relays.dial(2)
        again.close()
        await again.run(ignore)
        one.membership = None
        with pytest.raises(ConnectionError, match="no member"):
            await one.relays.dial(2)


@pytest.mark.by_turns
async def test_a_store_that_is_away_for_a_moment_loses_nothing() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        channel = await one.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        board.is_down = True
        channel.post(("drop", 1))
        await anyio.sleep(0.2)
        board.is_down = False
        channel.post(("drop", 2))
        await until_true(lambda: other.items == [("drop", 1), ("drop", 2)])
        channel.close()


async def test_a_piece_that_comes_twice_is_taken_once() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        channel = await one.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        send = one.membership.send

        async def twice(target: int, items: Sequence[bytes]) -> None:
            await send(target, [*items, *items])

        one.membership.send = twice
        for n in range(5):
            channel.post(("drop", n))
            await until_true(lambda: bool(other.items))
        await until_true(lambda: other.items[-1] == ("drop", 4))
        await settle()
        channel.close()

    assert other.items == [("drop", n) for n in range(5)]


async def test_a_channel_that_is_opened_anew_ends_the_one_before() -> None:
    board = Board()
    async with ends(board, 1, 2) as (one, other), anyio.create_task_group() as tasks:
        first = await one.relays.dial(2)
        tasks.start_soon(first.run, ignore)
        second = await one.relays.dial(2)
        tasks.start_soon(second.run, ignore)
        await until_true(lambda: other.ended == 1 and len(other.accepted) == 2)
        second.post(("drop", 1))
        await until_true(lambda: other.items == [("drop", 1)])
        second.close()


async def test_bad_items_end_their_channel_and_no_other() -> None:
    board = Board()
    async with ends(board, 1, 2, 3) as (one, other, third), anyio.create_task_group() as tasks:
        channel = await third.relays.dial(2)
        tasks.start_soon(channel.run, ignore)
        bad = await one.relays.dial(2)
        bad.post(("frame", 1, 2, Frame(0, 1, b"[oops]", None)))
        await bad.run(ignore)
        channel.post(("drop", 1))
        await until_true(lambda: other.items == [("drop", 1)])
        channel.close()


@pytest.mark.by_turns
async def test_nobody_looks_often_when_no_line_is_down() -> None:
    board = Board()
    async with ends(board, 1) as (_,):
        began = anyio.current_time()
        await anyio.sleep(5 * relays.IDLE_S)
        assert board.looks <= 2 + (anyio.current_time() - began) / relays.IDLE_S


# Lines that have a second way.


class Roads:
    """Two ways, each of which the test opens and shuts."""

    def __init__(self) -> None:
        self.direct: list[FakeChannel] = []
        self.long: list[FakeChannel] = []
        self.is_open = False
        self.is_long_open = True

    async def dial(self) -> Channel:
        if not self.is_open:
            raise ConnectionRefusedError("shut")
        self.direct.append(FakeChannel())
        return self.direct[-1]

    async def detour(self) -> Channel:
        if not self.is_long_open:
            raise ConnectionError("shut")
        self.long.append(FakeChannel())
        return self.long[-1]


@asynccontextmanager
async def line_of(roads: Roads, ups: list[bool] | None = None) -> AsyncGenerator[Line]:
    noted = [] if ups is None else ups
    line = Line(roads.dial, waiter_factory(), lambda: noted.append(line.is_detoured), roads.detour)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.run)
            yield line
            line.close()


@pytest.mark.by_turns
async def test_a_line_that_is_up_never_goes_the_second_way() -> None:
    roads = Roads()
    roads.is_open = True
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
        await anyio.sleep(3 * detours.DETOUR_AFTER_S)
        assert (line.is_detoured, roads.long) == (False, [])


@pytest.mark.by_turns
async def test_a_line_goes_the_second_way_and_back_and_says_that_it_is_up_each_time() -> None:
    roads, ups = Roads(), list[bool]()
    async with line_of(roads, ups) as line:
        await until_true(lambda: line.is_up)
        assert line.is_detoured
        line.post(("drop", 1))
        roads.is_open = True
        await until_true(lambda: not line.is_detoured)
        line.post(("drop", 2))
        assert (roads.long[0].posted, roads.direct[0].posted) == ([("drop", 1)], [("drop", 2)])
        roads.is_open = False
        await anyio.sleep(2 * detours.STEADY_S)
        roads.direct[0].close()
        await until_true(lambda: len(ups) == 3)  # it is down for a tenth of a second

    assert ups == [True, False, True]


async def test_what_was_asked_on_the_second_way_is_answered_on_it() -> None:
    roads = Roads()
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
        (first, one), (second, other) = line.ask("wait_durable", 1), line.ask("wait_durable", 2)
        roads.is_open = True
        await until_true(lambda: not line.is_detoured)
        third, last = line.ask("wait_durable", 3)
        assert line.waiting == 3
        roads.long[0].answer(first, b"1")
        roads.direct[0].answer(third, b"3")
        assert (await one, await last) == (b"1", b"3")
        assert not roads.long[0].has_ended
        roads.long[0].answer(second, b"2")
        assert await other == b"2"
        await until_true(lambda: roads.long[0].has_ended)


@pytest.mark.by_turns
async def test_an_answer_on_the_second_way_is_waited_for_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "LINGER_S", 0.05)
    roads = Roads()
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
        _, waiter = line.ask("wait_durable", 1)
        roads.is_open = True
        with pytest.raises(LineLostError):
            await waiter
        await settle()
        assert (line.is_up, line.is_detoured, line.waiting) == (True, False, 0)


async def test_a_request_on_the_second_way_is_taken_back_on_it() -> None:
    roads = Roads()
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(line.call, "wait_durable", 1)
            await until_true(lambda: line.waiting == 1)
            roads.is_open = True
            await until_true(lambda: not line.is_detoured)
            tasks.cancel_scope.cancel()
        assert roads.long[0].posted[-1] == ("drop", 1)
        assert roads.direct[0].posted == []


async def test_a_second_way_that_breaks_is_taken_again() -> None:
    roads = Roads()
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
        _, waiter = line.ask("wait_durable", 1)
        roads.is_long_open = False
        roads.long[0].close()
        with pytest.raises(LineLostError):
            await waiter
        _, early = line.ask("wait_durable", 2)
        roads.is_long_open = True
        await until_true(lambda: line.is_up)
        roads.long[1].answer(2, None)
        await early


async def test_a_line_that_is_closed_on_the_second_way_ends_it() -> None:
    roads = Roads()
    async with line_of(roads) as line:
        await until_true(lambda: line.is_up)
    assert roads.long[0].has_ended


# Nodes whose connections are cut.

app = App()


@app.entity
class Notes:
    numbers: list[int] = []

    def add(self, number: int) -> None:
        self.numbers = [*self.numbers, number]

    def get(self) -> list[int]:
        return self.numbers


@app.entity
class Sender:
    count: int = 0

    def send(self, ctx: EntityContext, number: int) -> int:
        self.count += 1
        ctx.signal_entity(EntityId(Notes, THERE), "add", number)
        return self.count


def key_in(kind: str, partition: int) -> str:
    return next(f"k{n}" for n in range(100) if partition_of(f"@{kind}@k{n}", 2) == partition)


HERE, THERE = key_in("sender", 0), key_in("notes", 1)
KEY = b"k" * 32


def shut(channel: Any) -> None:
    with suppress(OSError):
        channel.stream.extra(SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)


class World:
    """What all nodes share."""

    def __init__(self) -> None:
        self.board = Board()
        self.nodes: dict[int, MemberNode] = {}
        self.is_cut = False
        self.channels: list[Any] = []

    def add(self, channel: Any) -> None:
        self.channels.append(channel)
        if self.is_cut:  # since it was dialled
            shut(channel)

    def cut(self) -> None:
        self.is_cut = True
        for channel in self.channels:
            shut(channel)


class MemberNode:
    """A shard, with all its ways to the others."""

    def __init__(self, world: World, number: int, listener: TcpListener, stores: Any) -> None:
        self.world = world
        self.number = number
        self.listener = listener
        membership = world.board.member(number)
        self.relays = Relays(lambda: membership, world.nodes.__contains__)
        self.dialler = Dialler(self.who)
        self.router = Router(2, number, waiter_factory(), self.dial, self.relays.dial)
        self.router.owners[:] = [10, 20]
        self.shard = Shard(
            number,
            self.router,
            lookup=Lookup(app, 1_000_000),
            settings=Settings(),
            clock=SystemClock(),
            store_of=stores.__getitem__,
            release=self.release,
            on_fatal=lambda error: None,
        )

    async def release(self, partition: Any) -> None:
        return

    def who(self) -> Credentials:
        return Credentials("hub", self.number, KEY)

    async def dial(self, member: int) -> Channel:
        if self.world.is_cut:
            raise ConnectionResetError("cut")
        listener = self.world.nodes[member].listener
        channel = await self.dialler.dial(member, join_address(listener.host, listener.port))
        self.world.add(channel)
        return channel

    async def answer(self, channel: Channel, member: int | None) -> None:
        assert member is not None
        await Session(channel, self.shard, self.shard.handlers, trusted=True).run()

    async def serve(self, tasks: TaskGroup) -> None:
        self.shard.start()
        tasks.start_soon(self.shard.run)
        await until_true(lambda: self.shard.keeper.is_running)
        keeper = self.shard.keeper
        tasks.start_soon(serve_nodes, self.listener, KEY, self.who, self.answer, keeper)
        tasks.start_soon(self.relays.run, self.answer, keeper)
        await self.shard.host(0 if self.number == 10 else 1)

    async def ask(self, kind: str, key: str, operation: str, argument: Any = None) -> Any:
        actor = f"@{kind}@{key}"
        body = b"" if argument is None else orjson.dumps(argument)
        message = Operation(operation, body or None, call=True)
        return orjson.loads(
            await self.router.places[partition_of(actor, 2)].request_once(
                actor, message, uuid.uuid4().hex
            )
        )


@asynccontextmanager
async def two_nodes() -> AsyncGenerator[tuple[World, MemberNode, MemberNode]]:
    world, store = World(), MemoryStore()
    stores = await store.open(2)
    with anyio.fail_after(30):
        async with TaskGroup() as tasks:
            for number in (10, 20):
                world.nodes[number] = MemberNode(world, number, await listen_node(), stores)
            for one in world.nodes.values():
                await one.serve(tasks)
            yield world, world.nodes[10], world.nodes[20]
            for one in world.nodes.values():
                one.router.close()
            tasks.cancel_scope.cancel()
    await store.close()


async def arrived(node: MemberNode) -> list[int]:
    found: list[int] = await node.ask("notes", THERE, "get")
    return found


async def until_arrived(node: MemberNode, numbers: range) -> None:
    while await arrived(node) != [*numbers]:
        await anyio.sleep(0.01)


async def until_quiet(board: Board) -> None:
    """Return when nobody puts anything down any more, as who has a channel does at each beat."""
    put = -1
    while board.put != put:
        put = board.put
        await anyio.sleep(3 * relays.BEAT_S)


@pytest.mark.by_turns
@pytest.mark.parametrize("loss", [0.0, 0.05])
async def test_an_exchange_goes_on_while_nodes_are_cut_off_and_comes_back(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon_s = detours.DETOUR_AFTER_S
    monkeypatch.setattr(detours, "DETOUR_AFTER_S", 20.0)  # the first connection may take long
    async with two_nodes() as (world, here, there):
        world.board.loss = loss
        for n in range(10):
            await here.ask("sender", HERE, "send", n)
        await until_arrived(there, range(10))
        assert not here.router.line(20).is_detoured
        assert world.board.put == 0
        monkeypatch.setattr(detours, "DETOUR_AFTER_S", soon_s)

        world.cut()
        for n in range(10, 40):
            await here.ask("sender", HERE, "send", n)
        await until_arrived(there, range(40))
        # Requests, too: each asks the other's partition.
        assert await arrived(here) == [*range(40)]
        await there.ask("sender", HERE, "send", 40)
        await until_arrived(there, range(41))
        assert here.router.line(20).is_detoured

        world.is_cut = False
        await until_true(lambda: not here.router.line(20).is_detoured)
        for n in range(41, 50):
            await here.ask("sender", HERE, "send", n)
        await until_arrived(there, range(50))
        await until_true(lambda: not here.relays.members and not there.relays.members)
        await until_quiet(world.board)
        put = world.board.put
        await here.ask("sender", HERE, "send", 50)
        await until_arrived(there, range(51))
        assert world.board.put == put


@pytest.mark.by_turns
async def test_a_request_that_waits_while_lines_change_is_answered() -> None:
    async with two_nodes() as (world, here, _):
        asked, over = 0, anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def ask_on() -> None:
                nonlocal asked
                while not over.is_set():
                    await here.ask("sender", HERE, "send", asked)
                    asked += 1
                    await arrived(here)

            tasks.start_soon(ask_on)
            for _ in range(3):
                await anyio.sleep(0.15)
                world.cut()
                await until_true(lambda: here.router.line(20).is_detoured)
                await anyio.sleep(0.1)
                world.is_cut = False
                await until_true(lambda: not here.router.line(20).is_detoured)
            over.set()
        await until_arrived(here, range(asked))
