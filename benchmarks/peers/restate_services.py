"""The handlers that Restate calls; Hypercorn serves them in processes of their own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .contender import FANOUT_ACTIVITIES

restate: Any = import_module("restate")

peers = restate.Service("Peers")
meter = restate.VirtualObject("Meter")


def greet(name: str) -> str:
    """Do next to nothing."""
    return f"Hello {name}!"


def double(number: int) -> int:
    """Do next to nothing."""
    return number * 2


async def hello(ctx: Any, number: int) -> list[str]:
    """Three durable steps, one after another."""
    return [
        await ctx.run_typed("greet", greet, name=f"Tokyo {number}"),
        await ctx.run_typed("greet", greet, name=f"Seattle {number}"),
        await ctx.run_typed("greet", greet, name=f"London {number}"),
    ]


async def fan_out(ctx: Any, start: int) -> list[int]:
    """A thousand durable steps at once."""
    numbers = range(start, start + FANOUT_ACTIVITIES)
    steps = [ctx.run_typed("double", double, number=number) for number in numbers]
    return [await step for step in await restate.gather(*steps)]


async def add(ctx: Any, number: int) -> int:
    """Add a number; gives how many there were."""
    count, total = await ctx.get("sums", type_hint=list[int]) or [0, 0]
    ctx.set("sums", [count + 1, total + number])
    return int(count + 1)


async def read(ctx: Any) -> list[int]:
    """Give count and sum."""
    found: list[int] = await ctx.get("sums", type_hint=list[int]) or [0, 0]
    return found


peers.handler()(hello)
peers.handler()(fan_out)
meter.handler()(add)
meter.handler(kind="shared")(read)
app = restate.app(services=[peers, meter])
