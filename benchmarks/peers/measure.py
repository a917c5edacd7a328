"""Runs the loads on one contender and checks each outcome.

Only the standard library is imported here: this runs in the environments of the other frameworks.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

from .contender import FANOUT_ACTIVITIES, Contender, doubles, greetings

SPREAD_ENTITIES = 1_000

# Numbers of warm-ups, and of one load and the next, differ, so that no answer can be an old one.
_FAR = 10**7

Request = Callable[[int], Awaitable[None]]


class WrongOutcomeError(Exception):
    """The contender did something else than what was asked: its figures mean nothing."""


def expect(what: str, found: object, wanted: object) -> None:
    """Refuse an outcome that is not exactly the one wanted."""
    if found != wanted:
        raise WrongOutcomeError(f"{what}: {_short(found)} instead of {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of each load.

    Attributes:
        seconds: after so many no new requests are sent; those in flight are waited for, and count.
        concurrency: requests in flight, where a load does not say otherwise.
        n: operations at most; None leaves it to the time.
    """

    seconds: float = 2.0
    concurrency: int = 100
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one load measured.

    Attributes:
        load: its name.
        unit: what is counted.
        operations: how many of these.
        in_flight: requests sent and not answered.
        seconds: from the first request until all was applied.
        p50_ms: median latency of a request; None where an answer does not mean that it was applied.
        p99_ms: the latency that 99 of 100 requests keep below or at; None where there were fewer.
    """

    load: str
    unit: str
    operations: int
    in_flight: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def percentiles_ms(seconds: Iterable[float]) -> tuple[float, float | None]:
    """Give p50, and p99 where there are enough to have one: nearest ranks."""
    ordered = sorted(seconds)
    n = len(ordered)
    p50 = ordered[-(-n // 2) - 1] * 1e3
    return p50, ordered[-(-n * 99 // 100) - 1] * 1e3 if n >= 100 else None


async def closed_loop(
    request: Request, *, clients: int, seconds: float, n: int | None
) -> tuple[array[float], float]:
    """Send requests 0, 1, 2, ..., each client its next one when its last is answered.

    Gives the latencies, as many as there were requests, and the time that all of it took.
    """
    latencies = array("d")
    indices = itertools.count() if n is None else iter(range(n))
    begun = perf_counter()

    async def send() -> None:
        # The clock is asked first: a number that is taken is sent, so there are no gaps.
        while perf_counter() - begun < seconds and (index := next(indices, None)) is not None:
            sent = perf_counter()
            await request(index)
            latencies.append(perf_counter() - sent)

    async with asyncio.TaskGroup() as senders:
        for _ in range(clients):
            senders.create_task(send())
    return latencies, perf_counter() - begun


class Course:
    """The loads, one after another, on a contender that has been started."""

    def __init__(self, contender: Contender, size: Size) -> None:
        self._contender = contender
        self._size = size

    async def _orchestrations(
        self, load: str, request: Callable[[int], Request], *, clients: int, per_request: int = 1
    ) -> Figure:
        size = self._size
        n = None if size.n is None else max(size.n // per_request, 1)
        await closed_loop(request(_FAR), clients=clients, seconds=size.seconds / 4, n=n)
        latencies, seconds = await closed_loop(
            request(2 * _FAR), clients=clients, seconds=size.seconds, n=n
        )
        p50, p99 = percentiles_ms(latencies)
        return Figure(
            load=load,
            unit="orchestrations" if per_request == 1 else "activities",
            operations=len(latencies) * per_request,
            in_flight=clients,
            seconds=seconds,
            p50_ms=p50,
            p99_ms=p99,
        )

    def _hello(self, base: int) -> Request:
        async def request(index: int) -> None:
            number = base + index
            expect("hello", await self._contender.hello(number), greetings(number))

        return request

    def _fanout(self, base: int) -> Request:
        async def request(index: int) -> None:
            start = base + index * FANOUT_ACTIVITIES
            expect("fanout", await self._contender.fanout(start), doubles(start))

        return request

    async def hello(self) -> Figure:
        """Orchestrations of three activities in sequence."""
        return await self._orchestrations("hello", self._hello, clients=self._size.concurrency)

    async def hello_alone(self) -> Figure:
        """The same, one after another: how long one takes when nothing else happens."""
        return await self._orchestrations(
            "hello-alone", lambda base: self._hello(base + 2 * _FAR), clients=1
        )

    async def fanout(self) -> Figure:
        """One orchestration of 1,000 activities at once, and then the next one."""
        return await self._orchestrations(
            "fanout", self._fanout, clients=1, per_request=FANOUT_ACTIVITIES
        )

    async def hot(self) -> Figure:
        """Numbers added to one entity."""
        return await self._entities("hot", 1)

    async def spread(self) -> Figure:
        """Numbers added to 1,000 entities in turn."""
        return await self._entities("spread", SPREAD_ENTITIES)

    async def _entities(self, load: str, entities: int) -> Figure:
        size, contender = self._size, self._contender
        await self._add_to(f"warm-{load}", entities, size.seconds / 4)
        latencies, seconds = await self._add_to(load, entities, size.seconds)
        n = len(latencies)
        wanted = {
            f"{load}-{index}": (len(numbers), sum(numbers))
            for index in range(min(n, entities))
            for numbers in [range(index, n, entities)]
        }
        found = await contender.totals(list(wanted))
        for key, count_and_sum in wanted.items():
            expect(f"count and sum of {key}", found.get(key), count_and_sum)
        # Where `add` only says that it was accepted, a latency would mean something else.
        p50, p99 = percentiles_ms(latencies) if contender.answers else (None, None)
        return Figure(
            load=load,
            unit="additions",
            operations=n,
            in_flight=size.concurrency,
            seconds=seconds,
            p50_ms=p50,
            p99_ms=p99,
        )

    async def _add_to(
        self, prefix: str, entities: int, seconds: float
    ) -> tuple[array[float], float]:
        contender = self._contender
        keys = [f"{prefix}-{index}" for index in range(entities)]

        async def request(index: int) -> None:
            await contender.add(keys[index % entities], index)

        latencies, took = await closed_loop(
            request, clients=self._size.concurrency, seconds=seconds, n=self._size.n
        )
        begun = perf_counter()
        n = len(latencies)
        await contender.applied(
            {keys[index]: len(range(index, n, entities)) for index in range(min(n, entities))}
        )
        return latencies, took + perf_counter() - begun


LOADS: dict[str, Callable[[Course], Awaitable[Figure]]] = {
    "hello": Course.hello,
    "hello-alone": Course.hello_alone,
    "fanout": Course.fanout,
    "hot": Course.hot,
    "spread": Course.spread,
}
