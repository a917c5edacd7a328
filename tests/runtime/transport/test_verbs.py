"""Each row of the table of verbs: written, read back, served, and made again or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar, cast, get_args

import anyio
import pytest

from perdure import App, Hub, InternalError, OutcomeUnknownError, UsageError
from perdure.actors.messages import Operation, Start
from perdure.runtime.placement.claims import claim_of
from perdure.runtime.scheduling.waiter import Waiter, waiter_factory
from perdure.runtime.shards.sessions import Session
from perdure.runtime.shards.shard import Shard
from perdure.runtime.transport.admission import Limits, admit
from perdure.runtime.transport.channels import Channel, LoopChannel
from perdure.runtime.transport.router import Router
from perdure.runtime.transport.verbs import VERBS, HubVerb, MoveVerb, PartitionVerb, ShardVerb
from perdure.runtime.transport.wire import Item, Splitter, encode
from perdure.storage import ChunkRow, EntityFilter, InstanceFilter
from perdure.testing.inside import shard_of
from tests.runtime.harness import until_true
from tests.runtime.transport.test_router import Network, Outcome, place, routing_to
from tests.runtime.transport.test_wire import plain

T = TypeVar("T")

KEY = "@counter@a"
MESSAGE = Operation("add", b"1", True)
START = Start("greet", None, b"1")
CLAIM = claim_of("r", KEY, MESSAGE)
OWNER = ["x", 1, 2]

#: A request of each verb, as a client makes it, and what it answers.
REQUESTS: dict[PartitionVerb, tuple[tuple[Any, ...], Any]] = {
    "request": ((KEY, MESSAGE, None), b"5"),
    "request_new": (("x", START), None),
    "request_all": (([(KEY, MESSAGE), ("x", START)],), None),
    "request_later": ((KEY, MESSAGE, 17, None), None),
    "claim": (("r", CLAIM), None),
    "wait_for_end": (("x",), ("Completed", b"5", None)),
    "news": ((3, 500), [4, ["x"]]),
    "wait_durable": ((), None),
    "purge_ended": ((["x", "y"],), [["x", True]]),
    "unlock": ((KEY, OWNER), None),
    "read_instances": ((["x"],), []),
    "read_entities": (([("counter", "a")],), []),
    "read_history": ((3,), [b"[1]", b"[2]"]),
    "read_history_part": ((3, 4, 6), [ChunkRow(3, 4, b"[1]"), ChunkRow(3, 5, b"[2]")]),
    "query_instances": ((InstanceFilter(tags=(("a", "b"),), after=(3, "x")),), []),
    "count_instances": ((InstanceFilter(parents=("x",)),), 7),
    "query_entities": ((EntityFilter(name="counter", after=("counter", "a")),), []),
    "waiting": (([KEY],), {KEY: 2}),
    "explain": ((KEY,), {"backlog": 3}),
    "trace": (("x", 0, 5), {"steps": []}),
}
#: Those that are done in another way where they have a request id.
UNDER_ITS_ID: dict[PartitionVerb, tuple[tuple[Any, ...], Any]] = {
    "request": ((KEY, MESSAGE, "r"), b"5"),
    "request_later": ((KEY, MESSAGE, 17, "r"), None),
}
ALL = [*REQUESTS.items(), *UNDER_ITS_ID.items()]
#: What is read off a partition itself, and not off its store alone.
LOOKED_AT = {"explain", "trace"}
#: What may have happened, and must not happen twice.
ONCE = ("request", "request_new", "request_all", "request_later")


def method_of(verb: str, arguments: tuple[Any, ...]) -> str:
    """Give the method of a hosted partition that does it, and whether that takes a task."""
    if verb == "request":
        return "request at once" if arguments[-1] is None else "request_once"
    return f"{verb} at once" if verb in ("request_new", "request_all") else verb


class Answered:
    """What a partition gives for a request; nobody has to wait for it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self._value


class Called:
    """A hosted partition, or its store, that takes note of what it is asked."""

    def __init__(self, answer: Any, name: str = "", calls: list[Any] | None = None) -> None:
        self.calls: list[Any] = [] if calls is None else calls
        self._answer = answer
        self._name = name

    @property
    def store(self) -> Called:
        return Called(self._answer, "store.", self.calls)

    def is_live_here(self, key: str) -> bool:
        return False

    async def read(self, reading: Awaitable[T]) -> T:
        self.calls.append("read")
        return await reading

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        def call(*arguments: Any) -> Awaitable[Any]:
            *rest, last = arguments or [None]
            at_once = hasattr(last, "drop_with")
            if at_once:
                self.calls.append((f"{name} at once", plain(rest)))
                cast("Waiter", last).set(self._answer)
            else:
                self.calls.append((self._name + name, plain(arguments)))
            return Answered(self._answer)

        return call


class Live(Called):
    """One whose orchestrations are all in memory, and go on."""

    def is_live_here(self, key: str) -> bool:
        return True

    def watch_with(self, key: str, waiter: Waiter) -> None:
        self.calls.append(("watch_with", key))

    def unwatch(self, key: str, waiter: Waiter) -> None:
        self.calls.append(("unwatch", key))


class WireChannel(LoopChannel):
    """A channel between loops whose items cross as they would between processes."""

    def give(self, items: list[Item]) -> None:
        super().give(Splitter().feed(encode(items)))


@asynccontextmanager
async def served(hosted: Called, trusted: bool) -> AsyncGenerator[Router]:
    """Give a router of which a session of another shard answers for the one partition."""
    one, other = WireChannel(), WireChannel()
    one.other, other.other = other, one
    shard = SimpleNamespace(
        hosted={0: hosted},
        settings=SimpleNamespace(max_payload=1_000),
        router=SimpleNamespace(places=[hosted]),
    )

    async def dial(number: int) -> Channel:
        return one

    router = Router(1, None, waiter_factory(), dial)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Session(other, cast("Shard", shard), {}, trusted=trusted).run)
            tasks.start_soon(router.line(0).run)
            await until_true(lambda: router.line(0).is_up)
            yield router
            router.close()
            tasks.cancel_scope.cancel()


def test_the_rows_are_those_that_have_names() -> None:
    assert tuple(VERBS) == get_args(PartitionVerb)
    assert tuple(REQUESTS) == get_args(PartitionVerb)


async def test_what_shards_and_hubs_answer_is_what_has_names() -> None:
    async with Hub(App()) as hub:
        # The rest is what a worker's process answers beside its shard.
        of_workers = ("govern", *get_args(MoveVerb))
        assert (*shard_of(hub).handlers, *of_workers) == get_args(ShardVerb)
        assert tuple(hub.crew.handlers) == get_args(HubVerb)


@pytest.mark.parametrize("trusted", [False, True], ids=["a client", "a shard"])
@pytest.mark.parametrize(("verb", "request_"), ALL)
async def test_each_request_comes_to_the_method_that_it_is_for_and_its_answer_back(
    verb: PartitionVerb, request_: tuple[tuple[Any, ...], Any], trusted: bool
) -> None:
    arguments, answer = request_
    method = method_of(verb, arguments)
    hosted = Called(answer)

    async with served(hosted, trusted) as router:
        elsewhere = place(router)
        ask = elsewhere.request_once if verb == "request" else getattr(elsewhere, verb)
        found = await ask(*arguments)

    wanted = plain(arguments[:-1] if method == "request at once" else arguments)
    if VERBS[verb].reads:
        of = "" if verb in LOOKED_AT else "store."
        assert hosted.calls == [(f"{of}{method}", wanted), "read"]
    else:
        assert hosted.calls == [(method, wanted)]
    assert plain(found) == plain(answer)


async def test_who_waits_for_an_end_is_told_without_a_task_and_forgotten_when_he_leaves() -> None:
    hosted = Live(None)

    async with served(hosted, trusted=True) as router, anyio.create_task_group() as tasks:
        waiting = anyio.CancelScope()

        async def wait() -> None:
            with waiting:
                await place(router).wait_for_end("x")

        tasks.start_soon(wait)
        await until_true(lambda: hosted.calls == [("watch_with", "x")])
        waiting.cancel()
        await until_true(lambda: hosted.calls[1:] == [("unwatch", "x")])


@pytest.mark.parametrize(("verb", "request_"), ALL)
async def test_what_may_have_happened_is_asked_again_where_it_cannot_happen_twice(
    verb: PartitionVerb, request_: tuple[tuple[Any, ...], Any]
) -> None:
    arguments, _ = request_
    happens_once = verb not in ONCE or arguments[-1] == "r"
    network, outcome = Network(), Outcome()

    async with routing_to(network, [1]) as router, anyio.create_task_group() as tasks:
        elsewhere = place(router)
        ask = elsewhere.request_once if verb == "request" else getattr(elsewhere, verb)
        tasks.start_soon(outcome.of, ask, *arguments)
        first = await network.request(1)
        lost = network.channels[1]
        lost.close()
        await until_true(lambda: network.channels[1] is not lost)
        if verb == "request_new":
            assert (await network.request(1))[2] == "wait_durable"  # it looks for what became of it
        elif happens_once:
            assert (await network.request(1))[2:] == first[2:]
        else:
            await outcome.ended.wait()
            assert isinstance(outcome.error, OutcomeUnknownError)
        tasks.cancel_scope.cancel()


def test_a_client_may_send_unchecked_what_harms_nobody_alone() -> None:
    unchecked = {name for name, verb in VERBS.items() if verb.check is admit}

    reading = {name for name, verb in VERBS.items() if verb.reads} - LOOKED_AT
    assert unchecked == reading | {"wait_durable", "purge_ended"}


SPOILT: dict[PartitionVerb, tuple[Any, ...]] = {
    "request": (7, MESSAGE, None),
    "request_new": ("x", MESSAGE),
    "request_all": ([(KEY, MESSAGE), ("x", MESSAGE)],),
    "request_later": (KEY, MESSAGE, 1 << 58, None),
    "claim": ("r", "of another"),
    "wait_for_end": (7,),
    "news": ("3", 500),
    "unlock": (KEY, ["x", 1]),
    "explain": (7,),
    "trace": ("x", -1, 5),
}


@pytest.mark.parametrize(("verb", "arguments"), SPOILT.items())
def test_what_no_client_of_ours_sends_is_refused(
    verb: PartitionVerb, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(UsageError):
        VERBS[verb].check(Limits(1, 1_000), 0, *arguments)


async def test_a_verb_that_is_none_is_a_type_error_and_is_refused() -> None:
    hosted = Called(None)

    async with served(hosted, trusted=True) as router:
        with pytest.raises(InternalError, match="unknown request 'sing'"):
            # Both checkers say so where this is an error no more.
            await router.line(0).call("sing", 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert hosted.calls == []


@pytest.mark.parametrize("arguments", [(), (0,), (0, KEY, OWNER, None)])
async def test_a_request_with_too_few_or_too_many_arguments_is_refused(
    arguments: tuple[Any, ...],
) -> None:
    hosted = Called(None)

    async with served(hosted, trusted=True) as router:
        with pytest.raises(UsageError, match=f"unlock was asked with {len(arguments)}"):
            await router.line(0).call("unlock", *arguments)

    assert hosted.calls == []
