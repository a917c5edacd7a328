"""Random orchestrations that fail and are rewound, over and over: nothing is done twice or not at all.

What code does is drawn from a seed, and so is which of its steps fail, and how often. A seed that
once failed becomes a test with a name in ``test_rewind_entities.py``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio.lowlevel
import pytest

from perdure import (
    App,
    EntityId,
    InstanceFinishedError,
    OrchestrationContext,
    OrchestrationFailedError,
)
from tests.runtime.orchestrating import evict, quiet, running

Plan = list[list[Any]]

app = App()
left: dict[str, int] = {}  # how often a step is still to fail
done: Counter[str] = Counter()
pace = random.Random(0)
BOXES = "abc"


async def take_a_while() -> None:
    for _ in range(pace.randrange(8)):
        await anyio.lowlevel.checkpoint()


def may_fail(step: str) -> None:
    if left.get(step, 0):
        left[step] -= 1
        raise ValueError(f"{step} is broken")
    done[step] += 1


@app.entity
class Box:
    def do(self, step: str) -> str:
        may_fail(step)
        return step

    async def slow(self, step: str) -> str:
        await take_a_while()
        may_fail(step)
        return step


@app.activity
async def work(step: str) -> str:
    await take_a_while()
    may_fail(step)
    return step


def box(key: str) -> EntityId[Box]:
    return EntityId(Box, key)


def called(ctx: OrchestrationContext, step: list[Any]) -> Any:
    if step[0] == "work":
        return ctx.call_activity(work, str(step[1]))
    return ctx.call_entity(box(step[2]), str(step[3]), step[1])


@app.orchestration
async def flow(ctx: OrchestrationContext, plan: list[list[Any]]) -> list[str]:
    return await follow(ctx, plan)


async def follow(ctx: OrchestrationContext, plan: Plan) -> list[str]:
    results: list[str] = []
    for step in plan:
        match step:
            case ["work" | "call", *_]:
                results.append(await called(ctx, step))
            case ["signal", name, key]:
                ctx.signal_entity(box(key), "do", name)
            case ["timer", _]:
                await ctx.create_timer(timedelta(0))
            case ["event", name]:
                results.append(await ctx.wait_for_external_event(name, data_type=str))
            case ["code", name]:
                if left.get(name, 0):  # until the code is repaired, and not until it was run
                    raise ValueError(f"{name} is broken")
            case ["all", fail_fast, calls]:
                tasks = [called(ctx, one) for one in calls]
                results += await ctx.task_all(tasks, fail_fast=fail_fast)
            case ["lock", keys, inside]:
                async with ctx.lock_entities(*map(box, keys)):
                    results += await follow(ctx, inside)
            case ["child", inside]:
                results += await ctx.call_sub_orchestrator(flow, inside)
            case _:
                raise AssertionError(step)
    return results


def draw(chance: random.Random, name: str = "s", depth: int = 0, locked: str = "") -> Plan:
    """Draw what an orchestration does; its steps have names, so that each can be told apart."""
    plan: Plan = []
    kinds = ["work", "call", "call", "signal", "timer", "code", "all"]
    kinds += [] if depth else ["event"]
    kinds += [] if locked or depth > 1 else ["lock", "child"]
    for number in range(chance.randrange(1, 5)):
        own, kind = f"{name}.{number}", chance.choice(kinds)
        keys = list(locked or BOXES)
        chance.shuffle(keys)
        others = sorted({*BOXES} - {*locked})
        if kind == "call":
            plan.append(["call", own, keys[0], chance.choice(["do", "slow"])])
        elif kind == "signal":
            plan += [["signal", own, chance.choice(others)]] if others else []
        elif kind == "all":
            calls: Plan = [
                ["call", f"{own}.{key}", key, chance.choice(["do", "slow"])]
                for key in keys[: chance.randrange(3)]
            ]
            calls += [["work", f"{own}.{n}"] for n in range(chance.randrange(1, 3))]
            plan.append(["all", chance.random() < 0.5, calls])
        elif kind == "lock":
            some = "".join(keys[: chance.randrange(1, 4)])
            plan.append(["lock", some, draw(chance, own, depth + 1, some)])
        elif kind == "child":
            plan.append(["child", draw(chance, own, depth + 1)])
        else:
            plan.append([kind, own])
    return plan


def steps(plan: Plan) -> Iterator[tuple[str, str, bool]]:
    """Give each step: its kind, its name, and whether it is beside others."""
    for step in plan:
        if step[0] == "all":
            yield from ((one[0], one[1], True) for one in step[2])
        elif step[0] in ("lock", "child"):
            yield from steps(step[-1])
        else:
            yield step[0], step[1], False


async def play(seed: int) -> None:
    chance = random.Random(seed)
    pace.seed(seed)
    plan = draw(chance)
    left.clear()
    done.clear()
    every = list(steps(plan))
    for kind, name, _ in every:
        if kind in ("work", "call", "code") and chance.random() < 0.35:
            left[name] = chance.randrange(1, 3)
    async with running(app, partitions=2) as hub:
        handle = await hub.client.start_new(flow, plan, instance_id="x")
        for kind, name, _ in every:
            if kind == "event":
                with suppress(InstanceFinishedError):
                    await handle.raise_event(name, name)
        for _ in range(60):
            with suppress(OrchestrationFailedError):
                await handle.result(5)
                break
            if chance.random() < 0.6:
                await quiet(hub)
            if chance.random() < 0.5:
                await evict(hub)
            for kind, name, _ in every:
                if kind == "code" and left.get(name, 0):
                    left[name] -= 1
                elif kind == "event":
                    with suppress(InstanceFinishedError):
                        await handle.raise_event(name, name)
            await handle.rewind()
            if chance.random() < 0.3:
                await evict(hub)
            for kind, name, _ in every:
                if kind == "event":  # one that was refused since it had failed
                    with suppress(InstanceFinishedError):
                        await handle.raise_event(name, name)
        await quiet(hub)
        for key in BOXES:
            status = await hub.client.get_entity(box(key))
            assert status is None or (status.locked_by, status.lock_waiters) == (None, ())
    for kind, name, beside in every:
        if kind in ("call", "signal"):
            assert done[name] == 1, name
        elif kind == "work":
            # One that is told to stop, since another beside it failed, may have been done by then.
            assert done[name] == 1 or (beside and done[name]), name


async def play_all(seeds: range) -> None:
    for seed in seeds:
        try:
            await play(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.by_turns
async def test_rewinds_do_nothing_twice_and_leave_nothing_out() -> None:
    await play_all(range(100))


@pytest.mark.slow
async def test_rewinds_do_nothing_twice_and_leave_nothing_out_for_long() -> None:
    await play_all(range(1_000, 4_000))
