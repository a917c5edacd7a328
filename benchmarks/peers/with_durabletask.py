"""Microsoft's Durable Task SDK for Python, on the backend for tests that comes with it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from time import perf_counter
from typing import Any

from .contender import FANOUT_ACTIVITIES, Contender, Needs, Place
from .measure import WrongOutcomeError
from .processes import Server, accepts, free_port

# The backend serves with 10 threads; who waits for a result holds one of them all the time.
_WAITERS = 6
_STALLED_S = 60.0


class Durabletask(Contender):
    """Orchestrations and entities, all in memory."""

    needs = Needs(name="durabletask", python=("durabletask", "uvloop"))
    durability = "none: memory; the package has no durable backend (that is Azure's or Dapr's)"
    tuning = (
        "backend in a process of its own, worker and client in another; "
        f"at most {_WAITERS} requests wait for a result at a time, since its 10 threads bear no more"
    )
    entity = "an entity, signaled; counted when applied (its client cannot call one)"
    answers = False

    def __init__(self) -> None:
        self._backend: Server | None = None
        self._worker: Any = None
        self._client: Any = None
        self._waiters = asyncio.Semaphore(_WAITERS)
        self._entity_id: Any = None
        self._entity_query: Any = None

    async def start(self, place: Place) -> str:
        port = free_port()
        backend = Server(
            [sys.executable, "-m", f"{__package__}.durabletask_backend", str(port)],
            place.folder / "backend.log",
        )
        self._backend = backend
        await backend.until(lambda: accepts(port))
        self._entity_id = import_module("durabletask.entities").EntityInstanceId
        logger = logging.getLogger("peers")
        logger.setLevel(logging.ERROR)
        address = f"localhost:{port}"
        worker: Any = import_module("durabletask.worker").TaskHubGrpcWorker
        self._worker = worker(host_address=address, logger=logger)
        for orchestrator in (hello, fan_out):
            self._worker.add_orchestrator(orchestrator)
        for activity in (greet, double):
            self._worker.add_activity(activity)
        self._worker.add_entity(meter)
        self._worker.start()
        client: Any = import_module("durabletask.client")
        self._client = client.AsyncTaskHubGrpcClient(host_address=address, logger=logger)
        self._entity_query = client.EntityQuery
        return f"durabletask {version('durabletask')}, grpcio {version('grpcio')}"

    async def _run(self, orchestrator: object, value: int) -> Any:
        instance = await self._client.schedule_new_orchestration(orchestrator, input=value)
        async with self._waiters:
            state = await self._client.wait_for_orchestration_completion(
                instance, timeout=_STALLED_S
            )
        state.raise_if_failed()
        return state.get_output()

    async def hello(self, number: int) -> list[str]:
        found: list[str] = await self._run(hello, number)
        return found

    async def fanout(self, start: int) -> list[int]:
        found: list[int] = await self._run(fan_out, start)
        return found

    async def add(self, key: str, number: int) -> None:
        await self._client.signal_entity(self._entity_id("meter", key), "add", number)

    async def applied(self, counts: Mapping[str, int]) -> None:
        given_up = perf_counter() + _STALLED_S
        # All at once: to ask for a thousand, one by one, would take longer than the additions.
        while missing := await self._missing(counts):
            if perf_counter() > given_up:
                raise WrongOutcomeError(f"never applied: {missing}")
            await asyncio.sleep(0.05)  # asking costs the backend, too

    async def _missing(self, counts: Mapping[str, int]) -> int:
        found = await self.totals(list(counts))
        return sum(wanted - found.get(key, (0, 0))[0] for key, wanted in counts.items())

    async def totals(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        prefix = keys[0].rpartition("-")[0]
        query = self._entity_query(instance_id_starts_with=f"@meter@{prefix}-", page_size=1_000)
        found = {
            entity.id.key: entity.get_typed_state() or (0, 0)
            for entity in await self._client.get_all_entities(query)
        }
        return {key: (found[key][0], found[key][1]) for key in keys if key in found}

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop)
        if self._backend is not None:
            await asyncio.to_thread(self._backend.stop)


def greet(ctx: Any, name: str) -> str:
    """Do next to nothing."""
    return f"Hello {name}!"


def double(ctx: Any, number: int) -> int:
    """Do next to nothing."""
    return number * 2


def hello(ctx: Any, number: int) -> Generator[Any, Any, list[str]]:
    """Three activities, one after another."""
    return [
        (yield ctx.call_activity(greet, input=f"Tokyo {number}")),
        (yield ctx.call_activity(greet, input=f"Seattle {number}")),
        (yield ctx.call_activity(greet, input=f"London {number}")),
    ]


def fan_out(ctx: Any, start: int) -> Generator[Any, Any, list[int]]:
    """A thousand activities at once."""
    task: Any = import_module("durabletask.task")
    numbers = range(start, start + FANOUT_ACTIVITIES)
    found: list[int] = yield task.when_all(
        [ctx.call_activity(double, input=number) for number in numbers]
    )
    return found


def meter(ctx: Any, number: int) -> list[int]:
    """Add a number; gives count and sum."""
    count, total = ctx.get_state(list, [0, 0])
    sums = [count + 1, total + number]
    ctx.set_state(sums)
    return sums
