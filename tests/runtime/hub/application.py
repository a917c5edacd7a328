"""What the tests of the hub share: an application whose work a test holds up, and lets go."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import anyio

import perdure
from perdure import ActivityContext, App, EntityId, OrchestrationContext

app = App()

gates: dict[str, anyio.Event] = {}
reached: dict[str, anyio.Event] = {}
thread_gates: dict[str, threading.Event] = {}
keys_seen: list[str] = []


def new_gate(name: str) -> tuple[anyio.Event, anyio.Event]:
    gates[name], reached[name] = anyio.Event(), anyio.Event()
    return gates[name], reached[name]


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    async def add_slowly(self, gate: str) -> int:
        self.value += 1
        reached[gate].set()
        await gates[gate].wait()
        return self.value

    def add_for_ever(self, ctx: perdure.EntityContext) -> None:
        self.value += 1
        ctx.signal_entity(ctx.entity_id, "add_for_ever")


@app.activity
async def work(ctx: ActivityContext, gate: str) -> str:
    keys_seen.append(ctx.idempotency_key)
    reached[gate].set()
    await gates[gate].wait()
    return f"worked {gate}"


@app.activity
def work_in_thread(ctx: ActivityContext, gate: str) -> str:
    keys_seen.append(ctx.idempotency_key)
    assert thread_gates[gate].wait(30)
    return f"worked {gate}"


@app.activity
async def quick(text: str) -> str:
    keys_seen.append(text)
    return text


@app.orchestration
async def run_work(ctx: OrchestrationContext, gate: str) -> list[str]:
    return [await ctx.call_activity(work, gate), await ctx.call_activity(quick, "after")]


@app.orchestration
async def run_thread(ctx: OrchestrationContext, gate: str) -> str:
    return await ctx.call_activity(work_in_thread, gate)


@app.orchestration
async def sleep(ctx: OrchestrationContext, seconds: float) -> str:
    await ctx.create_timer(timedelta(seconds=seconds))
    return "woken"


@app.orchestration
async def wait_for_go(ctx: OrchestrationContext) -> Any:
    return await ctx.wait_for_external_event("go")


COUNTER = EntityId(Counter, "c")
