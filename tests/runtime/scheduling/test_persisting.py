"""What must not end and is no shard's: where it raises, it is said, counted and begun anew."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketListener

from perdure import App, EntityId, Hub, ManualClock, Rebalance, RuntimeStatus, connect
from perdure.runtime.client.hub_client import HubClient
from perdure.runtime.cluster import balancer as balancing, loops
from perdure.runtime.cluster.loops import Acceptor
from perdure.runtime.scheduling import keeper as keeping
from perdure.runtime.scheduling.keeper import Keeper
from perdure.runtime.transport import channels
from perdure.runtime.transport.channels import loop_channels
from tests.runtime.harness import until_true

app = App()


@app.entity
class Counter:
    n: int = 0

    def add(self) -> int:
        self.n += 1
        return self.n


class Broken(Exception):
    pass


async def test_retention_goes_on_after_an_error_that_nobody_expects(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    purge, purges = HubClient.purge, list[int]()

    async def fails_twice(client: HubClient, **filters: Any) -> int:
        purges.append(1)
        if len(purges) < 3:
            raise Broken("no\nretention")
        return await purge(client, **filters)

    monkeypatch.setattr(HubClient, "purge", fails_twice)

    kept: dict[RuntimeStatus | str, float | timedelta] = {
        RuntimeStatus.COMPLETED: timedelta(days=1)
    }
    async with Hub(app, retention=kept, clock=ManualClock()) as hub:
        await until_true(lambda: len(purges) >= 3)
        assert (await hub.statistics()).restarted == 2
    assert "retention ended (Broken: no\\nretention), and is begun anew" in caplog.text


async def test_balancing_goes_on_after_an_error_that_nobody_expects(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen: list[int] = []

    def fails_once(*_: Any) -> None:
        chosen.append(1)
        if len(chosen) < 2:
            raise SystemExit("no balance")  # not even this ends more than one look

    monkeypatch.setattr(balancing, "choose_move", fails_once)

    async with Hub(app, shards=2, rebalance=Rebalance(interval_s=0.01)) as hub:
        await until_true(lambda: len(chosen) >= 2)
        assert (await hub.statistics()).restarted == 1
    assert "balancing ended (SystemExit: no balance)" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_is_supervised_on_after_an_error_that_nobody_expects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from perdure.runtime.cluster.processes import ProcessCrew

    serve, served = ProcessCrew.serve_with, list[int]()

    async def fails_once(crew: ProcessCrew, worker: Any, process: Any) -> None:
        served.append(process.pid)
        if len(served) < 2:
            raise Broken("no supervision")
        await serve(crew, worker, process)

    monkeypatch.setattr(ProcessCrew, "serve_with", fails_once)

    store = f"sqlite:{tmp_path}/hub"
    async with Hub("tests.guarantees.worker_load:app", store=store, partitions=2, workers=1) as hub:
        assert served[0] == served[1]  # the process that ran, and no second one beside it
        assert (await hub.statistics()).restarted == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_the_system_does_not_let_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, starts = anyio.open_process, list[int]()

    async def refused(*arguments: Any, **options: Any) -> Any:
        starts.append(1)
        if len(starts) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await real(*arguments, **options)

    monkeypatch.setattr(anyio, "open_process", refused)

    store = f"sqlite:{tmp_path}/hub"
    async with Hub("tests.guarantees.worker_load:app", store=store, partitions=2, workers=1) as hub:
        assert len(starts) == 3
        assert len((await hub.statistics()).shards) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_can_never_start_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from perdure import InternalError

    async def refused(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(anyio, "open_process", refused)
    hub = Hub(
        "tests.guarantees.worker_load:app", store=f"sqlite:{tmp_path}/hub", partitions=2, workers=1
    )

    with anyio.fail_after(20), pytest.raises(InternalError, match=r"cannot be started.*Resource"):
        async with hub:
            pass


async def test_a_hub_goes_on_taking_connections_when_the_system_refuses_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listen, refused = channels.listen, list[int]()

    class Scarce:
        """A listener of a process that has too many files open, for a while."""

        def __init__(self, listener: SocketListener) -> None:
            self._listener = listener

        async def accept(self) -> Any:
            if len(refused) < 2:
                refused.append(1)
                raise OSError(24, "Too many open files")
            return await self._listener.accept()

        async def __aenter__(self) -> Scarce:
            return self

        async def __aexit__(self, *_: object) -> None:
            await self._listener.aclose()

        aclose = __aexit__

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

    async def scarce(path: Path, **options: Any) -> Any:
        return Scarce(await listen(path, **options))

    monkeypatch.setattr(loops, "listen", scarce)

    async with Hub(app, socket=tmp_path / "s") as hub, connect(tmp_path / "s", app) as client:
        assert await client.call_entity(EntityId(Counter, "x"), Counter.add) == 1
        assert len(refused) == 2
        assert sum(shard.replaced for shard in (await hub.statistics()).shards) == 2


async def test_a_channel_between_loops_that_breaks_ends_alone() -> None:
    acceptor, ended = Acceptor(), list[str]()

    async def answer(channel: Any) -> None:
        if not ended:
            ended.append("broken")
            raise Broken("no session")
        ended.append("well")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(acceptor.serve, answer)
        await until_true(lambda: acceptor.is_open)
        acceptor.give(loop_channels()[0])
        await until_true(lambda: ended == ["broken"])
        acceptor.give(loop_channels()[0])
        await until_true(lambda: ended == ["broken", "well"])
        tasks.cancel_scope.cancel()


async def test_the_pause_grows_and_a_cancellation_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, pauses = Keeper(), list[float]()

    class Quick:
        @staticmethod
        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 15:
                await anyio.sleep_forever()

    monkeypatch.setattr(keeping, "anyio", Quick)

    async def work() -> None:
        raise Broken("always")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.persist, "it", work)
        await until_true(lambda: len(pauses) == 15)
        tasks.cancel_scope.cancel()

    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == 60.0
    assert keeper.restarts == 15
