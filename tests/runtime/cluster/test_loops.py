"""Loops of one process connect to each other, also while one of them ends."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from perdure.runtime.cluster.loops import Acceptor
from perdure.runtime.transport.channels import Channel, loop_channels


async def serve(channel: Channel) -> None:
    await channel.run(lambda items: None)


@pytest.mark.parametrize("turns", range(4))
async def test_a_connection_that_comes_while_its_loop_ends_is_ended(turns: int) -> None:
    one, other = loop_channels()
    acceptor = Acceptor()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(acceptor.serve, serve)
        await anyio.wait_all_tasks_blocked()
        acceptor.give(other)
        for _ in range(turns):  # so it is not taken, taken, or served
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    with anyio.fail_after(5):
        await one.run(lambda items: None)  # returns, since the other side has ended it


async def test_a_connection_to_a_loop_that_does_not_serve_is_refused() -> None:
    _, other = loop_channels()
    acceptor = Acceptor()

    with pytest.raises(ConnectionRefusedError):
        acceptor.give(other)  # not yet
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(acceptor.serve, serve)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with pytest.raises(ConnectionRefusedError):
        acceptor.give(other)  # not any more
