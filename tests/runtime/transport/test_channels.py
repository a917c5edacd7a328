from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import pytest

from perdure import App, EntityId, Hub, MemoryStore, UsageError, connect
from perdure.runtime.scheduling.keeper import Keeper
from perdure.runtime.transport.channels import Channel, dial, listen, loop_channels, serve
from perdure.runtime.transport.wire import Item
from tests.runtime.harness import until_true

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder whose path is short enough for sockets."""
    return tmp_path_factory.mktemp("c")


@pytest.mark.parametrize("count", [1, 2])
async def test_what_is_posted_arrives_in_order_and_then_the_end(tmp_path: Path, count: int) -> None:
    taken: list[Item] = []
    ended = anyio.Event()

    async def answer(channel: Channel) -> None:
        await channel.run(taken.extend)
        ended.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, await listen(tmp_path / "s"), answer, Keeper())
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


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def make_link_to_file(path: Path) -> None:
    make_file(path.with_name("notes"))
    path.symlink_to(path.with_name("notes"))


def bind_datagrams(path: Path) -> socket.socket:
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind(str(path))
    return other


@pytest.mark.parametrize("place", ["hub.sock", "hub.sock.1"])
@pytest.mark.parametrize(
    "make", [make_file, make_folder, make_link_to_nowhere, make_link_to_file, bind_datagrams]
)
async def test_what_is_no_stale_socket_is_refused_and_stays(
    folder: Path, make: Callable[[Path], object], place: str
) -> None:
    kept = make(folder / place)
    before = (folder / place).lstat()

    with pytest.raises(UsageError, match=r"hub\.sock"):
        async with Hub(app, socket=folder / "hub.sock", shards=2):
            pass

    after = (folder / place).lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime,
    )
    assert names_in(folder) - {"notes"} == {place}
    if isinstance(kept, socket.socket):
        kept.close()


async def test_a_stale_socket_is_replaced_and_one_in_use_refused(folder: Path) -> None:
    path = folder / "hub.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async with Hub(app, socket=path):
        with pytest.raises(UsageError, match="another hub listens at"):
            async with Hub(app, socket=path):
                pass
        async with connect(path, app) as client:
            assert await client.call_entity(EntityId(Counter, "a"), Counter.add, 1) == 1

    assert names_in(folder) == set()


LISTENER = """
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
child = os.fork()
if child:
    print(child, flush=True)
    os._exit(0)
time.sleep(60)
"""


@pytest.fixture
def child_that_listens(folder: Path) -> Generator[Path]:
    """Give a socket that a process listened at which is dead, and which its child has open."""
    path = folder / "hub.sock"
    begun = subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert begun.stdout is not None
    child = int(begun.stdout.readline())
    begun.stdout.close()
    begun.wait()
    yield path
    os.kill(child, signal.SIGKILL)


async def test_a_socket_that_only_a_child_of_a_dead_process_has_open_is_stale(
    child_that_listens: Path,
) -> None:
    async with Hub(app, socket=child_that_listens), connect(child_that_listens, app) as client:
        assert await client.call_entity(EntityId(Counter, "a"), Counter.add, 1) == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing/hub.sock", "No such file or directory"), ("x" * 200, "bytes long")],
)
async def test_a_socket_that_cannot_be_is_refused_with_its_path(
    folder: Path, path: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        async with Hub(app, socket=folder / path):
            pass

    assert path in str(refused.value)
