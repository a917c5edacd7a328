"""Whoever may open a hub's socket may send anything: it hurts his connection at the most."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest
from anyio.abc import SocketStream

from perdure import App, EntityId, Hub, OrchestrationContext, PayloadTooLargeError, connect
from perdure.actors.messages import Fork
from perdure.runtime.transport.admission import Limits, check_request
from perdure.runtime.transport.wire import Splitter
from perdure.testing.inside import partitions_of
from tests.guarantees.workloads import entity_in

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.orchestration
async def listen(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("end", data_type=str)


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a") / "hub.sock"


def frame(*items: Any) -> bytes:
    body = orjson.dumps(items)
    return len(body).to_bytes(4, "big") + body


async def answers(stream: SocketStream, count: int) -> list[Any]:
    """Give what comes, until there is so much of it or the connection ends."""
    splitter, found = Splitter(), list[Any]()
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while len(found) < count:
            found += splitter.feed(await stream.receive())
    return found


async def reach(path: Path) -> SocketStream:
    """Connect to the first shard, which begins to listen a little later than the hub serves."""
    while True:
        with suppress(OSError):
            return await anyio.connect_unix(f"{path}.0")
        await anyio.sleep(0.001)


@asynccontextmanager
async def dialled(path: Path, hub: Hub) -> AsyncGenerator[SocketStream]:
    async with await reach(path) as stream:
        await stream.send(frame(["hello", hub.crew.run_id, None]))
        assert await answers(stream, 1) == [("welcome", 0)]
        yield stream


async def check_well(hub: Hub, path: Path, before: int) -> None:
    async with connect(path, app) as client:
        assert await client.call_entity(entity_in(0, Counter, "c", 2), Counter.add, 1) == before + 1
    assert hub.placement == [0, 0]
    assert [partition.gate.reason for partition in partitions_of(hub)] == [None, None]
    assert [partition.failed_commits for partition in partitions_of(hub)] == [0, 0]
    assert partitions_of(hub)[0].crashes.in_a_row == {}


INTERNAL: list[list[Any]] = [
    ["ask", 1, "let_go", 0, 1],
    ["ask", 1, "host", 1],
    ["ask", 1, "died", 0],
    ["ask", 1, "drain"],
    ["ask", 1, "govern"],
    ["ask", 1, "count"],
    ["ask", 1, "load"],
    ["placement", [1, 1], [0, 0]],
    ["ack", 0, 1, 10_000],
    ["resend", 0, 1],
    ["frame", 0, 1, 10_000, []],
    ["completion", 0, "x", ["completion", "TaskCompleted", 1, 1, 1, None]],
    ["cancel", ["x", 1, 0]],
    ["reply", 1, None],
    ["hello", "again", None],
]


@pytest.mark.parametrize("item", INTERNAL, ids=str)
async def test_what_only_shards_may_ask_is_refused_to_a_client(path: Path, item: list[Any]) -> None:
    with anyio.fail_after(20):
        async with Hub(app, partitions=2, socket=path) as hub:
            async with dialled(path, hub) as stream:
                await stream.send(frame(item))
                found = await answers(stream, 1)

            assert [kind for kind, *_ in found] == (["answer"] if item[0] == "ask" else [])
            assert all(isinstance(value, Exception) for _, _, value in found)
            await check_well(hub, path, 0)


@pytest.mark.parametrize(
    "greeting", [["ask", 1, "wait_durable", 0], ["hello", "of another run", None], ["hello", 5, []]]
)
async def test_a_connection_that_does_not_greet_this_run_ends(
    path: Path, greeting: list[Any]
) -> None:
    with anyio.fail_after(20):
        async with Hub(app, partitions=2, socket=path) as hub:
            async with await reach(path) as stream:
                await stream.send(frame(greeting))

                assert await answers(stream, 1) == []
            await check_well(hub, path, 0)


def messages(key: str) -> list[tuple[str, list[Any]]]:
    """Give requests whose form is right, and which no client of ours would make."""
    operation = ["operation", "add", [1], True, None, None]
    caller = ["x", 1, 1]
    return [
        ("an operation for an instance", ["request", 0, "p0-0", operation, None]),
        ("a partition's other actor", ["request", 1, key, operation, None]),
        ("no key", ["request", 0, 5, operation, None]),
        ("an empty key", ["request", 0, "", operation, None]),
        (
            "an operation of an orchestration",
            ["request", 0, key, [*operation[:4], caller, None], None],
        ),
        ("a completion", ["request", 0, key, ["completion", "TaskCompleted", 1, 1, 1, None], None]),
        ("a lock", ["request", 0, key, ["lock", caller, [key], 0, None], None]),
        ("an unlocking", ["request", 0, key, ["unlock", caller, [key], 0, None], None]),
        ("a fold", ["request", 0, key, ["fold", 1, False, None], None]),
        (
            "a fork for an entity",
            [
                "request",
                0,
                key,
                [
                    "fork",
                    "listen",
                    None,
                    [],
                    "x",
                    0,
                    [[["ExecutionStarted", 1, "listen", None, 1, None]]],
                    [],
                    None,
                ],
                None,
            ],
        ),
        (
            "a fork of none",
            [
                "request",
                0,
                "p0-0",
                [
                    "fork",
                    "listen",
                    None,
                    [],
                    7,
                    0,
                    [[["ExecutionStarted", 1, "listen", None, 1, None]]],
                    [],
                    None,
                ],
                None,
            ],
        ),
        (
            "a fork without a history",
            ["request", 0, "p0-0", ["fork", "listen", None, [], "x", 0, [], [], None], None],
        ),
        (
            "a fork with a history of nothing",
            ["request", 0, "p0-0", ["fork", "listen", None, [], "x", 0, [[[1]]], [], None], None],
        ),
        (
            "a fork with an event that lacks what it says",
            [
                "request",
                0,
                "p0-0",
                [
                    "fork",
                    "listen",
                    None,
                    [],
                    "x",
                    0,
                    [[["ExecutionStarted", 1, "listen", None, 1, None], ["CancelRequested", 1]]],
                    [],
                    None,
                ],
                None,
            ],
        ),
        (
            "a fork of an unknown orchestration",
            [
                "request",
                0,
                "p0-0",
                [
                    "fork",
                    "sing",
                    None,
                    [],
                    "x",
                    0,
                    [[["ExecutionStarted", 1, "listen", None, 1, None]]],
                    [],
                    None,
                ],
                None,
            ],
        ),
        ("an event for an entity", ["request", 0, key, ["event", "end", 1, None], None]),
        ("no command", ["request", 0, key, ["command", "sing", "", True, 0, None], None]),
        ("no name", ["request", 0, key, ["operation", 7, [1], True, None, None], None]),
        ("a request id that is none", ["request", 0, key, operation, 7]),
        ("no time", ["request_later", 0, key, operation, 2**63, None]),
        (
            "a parent",
            [
                "request_new",
                0,
                "p0-0",
                ["start", "listen", None, [], caller, [], None, "reject", None],
            ],
        ),
        (
            "tags that are none",
            [
                "request_new",
                0,
                "p0-0",
                ["start", "listen", None, [], None, [5], None, "reject", None],
            ],
        ),
        (
            "context variables that are none",
            ["request", 0, key, [*operation, {"trace": [1]}], None],
        ),
        (
            "context variables that are too large",
            ["request", 0, key, [*operation, {"trace": "x" * 2_000_000}], None],
        ),
        ("a start that is none", ["request_new", 0, "p0-0", ["event", "end", 1, None]]),
        ("nobody's lock", ["unlock", 0, key, [1, 2]]),
        ("too few", ["request", 0]),
        (
            "too large",
            ["request", 0, key, ["operation", "add", ["x" * 2_000_000], True, None, None], None],
        ),
    ]


async def test_a_request_that_no_client_of_ours_makes_is_refused_and_leaves_nothing(
    path: Path,
) -> None:
    id = entity_in(0, Counter, "c", 2)
    with anyio.fail_after(60):
        async with Hub(app, partitions=2, socket=path) as hub:
            assert await hub.client.call_entity(id, Counter.add, 1) == 1
            for what, (verb, *arguments) in messages(str(id)):
                async with dialled(path, hub) as stream:
                    await stream.send(frame(["ask", 1, verb, *arguments]))
                    found = await answers(stream, 1)
                    assert all(isinstance(value, Exception) for _, _, value in found), what
            await check_well(hub, path, 1)
            assert [one async for one in hub.client.query()] == []


READS: list[tuple[str, list[Any]]] = [
    ("wait_for_end", ["x"]),
    ("wait_durable", []),
    ("read_instances", [["x"]]),
    ("read_entities", [[["counter", "x"]]]),
    ("read_history", [1]),
    ("read_history_part", [1, 0, 2]),
    ("waiting", ["x"]),
    ("query_instances", [{}]),
    ("query_entities", [{"after": None}]),
    ("refuse", ["because"]),
]


@pytest.mark.by_turns
async def test_random_frames_hurt_nobody_else(path: Path) -> None:
    dice = random.Random(7)
    id = str(entity_in(0, Counter, "c", 2))
    atoms = [None, 0, 1, -1, 2**63, 1.5, "", "x", id, "p0-0", [], {}, True, [1], {"a": 1}]
    asks: list[Any] = [["ask", 1, *rest] for _, rest in messages(id)] + [
        ["ask", 1, verb, 0, *more] for verb, more in READS
    ]
    asks = [ask for ask in asks if len(orjson.dumps(ask)) < 10_000] + INTERNAL

    def mutate(value: Any) -> Any:
        if dice.random() < 0.15:
            return dice.choice(atoms)
        if isinstance(value, list):
            return [
                mutate(one)
                for one in value  # pyright: ignore[reportUnknownVariableType]
                if dice.random() > 0.05
            ]
        return value

    with anyio.fail_after(60):
        async with Hub(app, partitions=2, socket=path) as hub:
            for _ in range(150):
                async with dialled(path, hub) as stream:
                    if dice.random() < 0.2:
                        await stream.send(dice.randbytes(dice.randrange(200)))
                    else:
                        await stream.send(frame(*(mutate(dice.choice(asks)) for _ in range(4))))
                    await stream.send_eof()
                    await answers(stream, 1_000)
            async with connect(path, app) as client:
                before = await client.call_entity(EntityId("counter", id.split("@")[2]), "add", 0)
            await check_well(hub, path, before)


def test_the_history_of_a_fork_may_be_larger_than_a_payload_and_its_input_may_not() -> None:
    history = orjson.dumps([["ExecutionStarted", 1, "listen", None, 1, None, {"a": "b" * 500}]])

    check_request(Limits(1, 100), 0, "x", Fork("listen", None, b"1", "y", 0, [history]), None)

    with pytest.raises(PayloadTooLargeError):
        check_request(Limits(1, 100), 0, "x", Fork("f", None, b"1" * 101, "y", 0, [b"[]"]), None)
