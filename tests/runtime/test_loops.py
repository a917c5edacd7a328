"""Loops of one process connect to each other, also while one of them ends."""

from __future__ import annotations

import anyio

from perdure.runtime.channels import Channel, loop_channels
from perdure.runtime.loops import Acceptor


async def test_a_connection_that_comes_while_its_loop_ends_is_refused() -> None:
    one, other = loop_channels()
    acceptor = Acceptor()
    served: list[Channel] = []

    async def serve(channel: Channel) -> None:
        served.append(channel)

    async with anyio.create_task_group() as tasks:
        acceptor.start(tasks, serve)
        acceptor.give(other)
        acceptor.stop()

    with anyio.fail_after(5):
        await one.run(lambda items: None)  # returns, since the other side has ended it
    assert served == []
