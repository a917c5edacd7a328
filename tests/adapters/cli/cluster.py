"""Two members of one hub on PostgreSQL, in a thread, for commands that find it in the database."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio

from perdure import Hub, HubNodes, Settings
from tests.adapters.cli.shop import app

MEMBERS = 2


@contextmanager
def members_at(place: str, **options: Any) -> Generator[None]:
    """Serve a hub with two members, each of which has its share."""
    ready, over = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def serve() -> None:
        async with AsyncExitStack() as entered:
            hubs = [
                await entered.enter_async_context(
                    Hub(app, store=place, partitions=8, settings=Settings(drain_s=0.5), **options)
                )
                for _ in range(MEMBERS)
            ]
            with anyio.fail_after(20):
                while not _is_shared(await hubs[0].nodes()):
                    await anyio.sleep(0.02)
            ready.set()
            await anyio.to_thread.run_sync(over.wait)

    def main() -> None:
        try:
            anyio.run(serve)
        except BaseException as error:
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    try:
        assert ready.wait(30)
        assert not errors, errors
        yield
    finally:
        over.set()
        thread.join()
    assert not errors, errors


def _is_shared(seen: HubNodes) -> bool:
    return [len(node.partitions) for node in seen.nodes] == [8 // MEMBERS] * MEMBERS
