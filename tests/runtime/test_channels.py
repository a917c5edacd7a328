from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from perdure import App, EntityId, Hub, MemoryStore, connect
from perdure.runtime.channels import Channel, dial, listen, loop_channels, serve
from perdure.runtime.wire import Item
from tests.runtime.harness import until_true

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_posted_arrives_in_order_and_then_the_end(tmp_path: Path, count: int) -> None:
    taken: list[Item] = []
    ended = anyio.Event()

    async def answer(channel: Channel) -> None:
        await channel.run(taken.extend)
        ended.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, await listen(tmp_path / "s"), answer)
            channel = await dial(tmp_path / "s")
            for n in range(count * 500):
                channel.post(("ack", 0, 1, n))
            channel.close()
            await channel.run(taken.extend)
            await ended.wait()
            tasks.cancel_scope.cancel()

    assert taken == [("ack", 0, 1, n) for n in range(count * 500)]


async def test_two_loops_channels_carry_both_ways_and_end_together() -> None:
    one, other = loop_channels()
    here: list[Item] = []
    there: list[Item] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            one.post(("drop", 1))  # before either runs
            tasks.start_soon(one.run, here.extend)
            tasks.start_soon(other.run, there.extend)
            other.post(("drop", 2))
            await until_true(lambda: bool(here and there))
            one.post(("drop", 3))
            one.close()

    assert (here, there) == ([("drop", 2)], [("drop", 1), ("drop", 3)])


@pytest.mark.parametrize("place", ["hub.sock", "hub.sock.0"])
@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 64, b"\0\0\0\4oops", b'\0\0\0\7[["x"]]'],
    ids=["no frame", "no JSON", "no item"],
)
async def test_garbage_on_a_socket_ends_that_connection_and_no_other(
    tmp_path: Path, place: str, garbage: bytes
) -> None:
    path = tmp_path / "hub.sock"
    with anyio.fail_after(10):
        async with Hub(app, socket=path) as hub, connect(path, app) as client:
            stream = await anyio.connect_unix(tmp_path / place)
            async with stream:
                await stream.send(garbage)
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()

            assert await client.call_entity(EntityId(Counter, "a"), Counter.add, 1) == 1
            assert await hub.client.call_entity(EntityId(Counter, "a"), Counter.add, 1) == 2


async def test_a_client_in_another_process_s_place_reads_from_a_memory_store(
    tmp_path: Path,
) -> None:
    path = tmp_path / "hub.sock"
    id = EntityId(Counter, "a")
    with anyio.fail_after(10):
        async with (
            Hub(app, store=MemoryStore(), socket=path, shards=2),
            connect(path, app) as client,
        ):
            await client.call_entity(id, Counter.add, 3)
            state = await client.read_entity_state(id)
            found = [one.entity_id.key async for one in client.query_entities()]

    assert state is not None
    assert (state.value, found) == (3, ["a"])
