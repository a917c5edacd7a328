"""A node in a process of its own, for tests that kill it.

Reads what it is to do from stdin, an object a line: ``{"n": 1, "ask": OPERATION, "with": {...}}`` is
an operation of ``client.ask``, and gives a line with ``n`` and either ``result`` or ``error``;
``{"n": 2, "stop": true}`` stops the hub in order; ``{"skew": 3600}`` sets its clock wrong. The end of stdin
stops it, too.

Usage: ``node_child.py '{"app": "MODULE:APP", "store": ..., ...}'``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import anyio.to_thread
import orjson

from perdure import Hub, Settings
from tests.cluster.clocks import SkewedClock


def tell(**words: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(words) + b"\n")
    sys.stdout.buffer.flush()


async def answer(hub: Hub, number: int, operation: str, arguments: dict[str, Any]) -> None:
    try:
        result = await hub.client.ask(operation, arguments)
    except Exception as error:
        tell(n=number, error=type(error).__name__, text=str(error))
    else:
        tell(n=number, result=result)


async def serve(given: dict[str, Any]) -> None:
    settings = Settings(**given.pop("settings", {}))
    loop = given.pop("loop", "asyncio")
    assert loop in ("asyncio", "trio")
    clock = SkewedClock()
    hub = Hub(given.pop("app"), settings=settings, clock=clock, **given)
    async with hub, anyio.create_task_group() as requests:
        tell(ready=True)
        while True:
            line = await anyio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True)
            asked: dict[str, Any] = orjson.loads(line) if line else {"stop": True}
            if "stop" in asked:
                requests.cancel_scope.cancel()
                break
            if "skew" in asked:
                clock.skew_s = asked["skew"]
                continue
            requests.start_soon(answer, hub, asked["n"], asked["ask"], asked["with"])
    tell(stopped=True)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"
    )
    words = orjson.loads(sys.argv[1])
    anyio.run(serve, words, backend=words.get("loop", "asyncio"))
