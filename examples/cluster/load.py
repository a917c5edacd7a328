"""What the client asks of the hub, and what it has been told.

Each request has an id, under which it is asked again until there is an answer. So what was answered
has happened once, whatever became of the node that did it.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Awaitable, Callable
from itertools import count

import anyio

from perdure import Client, EntityId, OutcomeUnknownError, UnavailableError

from .app import ORDER_COUNTERS, Counter, order, order_counter

SIGNALLED = 32
PROBED = 64
SIGNALLERS = 8
BUYERS = 4
PROBE_S = 0.05
_AGAIN_S = 0.05
_APPLIED_S = 60.0


class Load:
    """Signals, calls and orders without end, until it is told to stop.

    Attributes:
        signals: how many were acknowledged.
        calls: how many calls were answered.
        orders: how many orchestrations have ended.
        repeated: how many requests were asked again.
        waits: the longest that a call to each counter has taken since ``begin_measuring``.
        usual: the longest that one took before.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopped = False
        self._expected: Counts[str] = Counts()
        self._numbers = count(1)
        self.signals = 0
        self.calls = 0
        self.orders = 0
        self.repeated = 0
        self.waits: dict[str, float] = {}
        self.usual = 0.0

    @property
    def answered(self) -> int:
        """All requests that were answered."""
        return self.signals + self.calls + self.orders

    def stop(self) -> None:
        """Ask for nothing new; what is under way goes on to its end."""
        self._stopped = True

    def begin_measuring(self) -> None:
        """Take what calls have taken up to now for the usual."""
        self.usual = max(self.waits.values(), default=0.0)
        self.waits.clear()

    def pauses(self) -> list[float]:
        """Give, for each counter that was late, how long a call to it took at the most."""
        return sorted(wait for wait in self.waits.values() if wait > self.usual)

    async def run(self) -> None:
        """Ask until ``stop`` was called, and return when all is answered."""
        async with anyio.create_task_group() as tasks:
            for _ in range(SIGNALLERS):
                tasks.start_soon(self._signal)
            for _ in range(BUYERS):
                tasks.start_soon(self._buy)
            for number in range(PROBED):
                tasks.start_soon(self._probe, f"probe-{number}")

    async def _signal(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            key = f"signals-{number % SIGNALLED}"

            async def send(number: int = number, key: str = key) -> None:
                await self._client.signal_entity(
                    EntityId(Counter, key), Counter.add, 1, request_id=f"signal-{number}"
                )

            await self._until_answered(send)
            self._expected[key] += 1
            self.signals += 1

    async def _probe(self, key: str) -> None:
        while not self._stopped:
            number = next(self._numbers)

            async def call(number: int = number) -> None:
                await self._client.call_entity(
                    EntityId(Counter, key), Counter.add, 1, request_id=f"call-{number}"
                )

            begun = time.monotonic()
            await self._until_answered(call)
            took = time.monotonic() - begun
            self.waits[key] = max(self.waits.get(key, 0.0), took)
            self._expected[key] += 1
            self.calls += 1
            await anyio.sleep(PROBE_S)

    async def _buy(self) -> None:
        while not self._stopped:
            number = next(self._numbers)
            paid = 0

            async def buy(number: int = number) -> None:
                nonlocal paid
                # By its request's id also where it has ended by then: else it would begin anew.
                id = f"order-{number}"
                handle = await self._client.start_new(order, number, instance_id=id, request_id=id)
                paid = await handle.result()

            await self._until_answered(buy)
            self._expected[order_counter(number).key] += 1
            self._expected["revenue"] += paid
            self.orders += 1

    async def _until_answered(self, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await ask()
            except (UnavailableError, OutcomeUnknownError):
                self.repeated += 1
                await anyio.sleep(_AGAIN_S)
            else:
                return

    async def differences(self, within_s: float = _APPLIED_S) -> list[str]:
        """Compare the counters with what was answered; gives what is wrong after that time."""
        keys = [f"signals-{number}" for number in range(SIGNALLED)]
        keys += [f"probe-{number}" for number in range(PROBED)]
        keys += [f"orders-{number}" for number in range(ORDER_COUNTERS)] + ["revenue"]
        wrong: list[str] = []
        with anyio.move_on_after(within_s):
            # Signals are durable when they are acknowledged, and applied soon after.
            while wrong := await self._compare(keys):  # noqa: ASYNC110
                await anyio.sleep(0.1)
        return wrong

    async def _compare(self, keys: list[str]) -> list[str]:
        wrong: list[str] = []
        for key in keys:
            found = await self._client.call_entity(EntityId(Counter, key), Counter.get)
            expected = self._expected[key]
            if found != expected:
                what = "lost" if found < expected else "done twice"
                wrong.append(f"{key}: {found:,} instead of {expected:,}: something was {what}")
        return wrong
