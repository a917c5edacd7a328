"""Programs as they were and as they are: one kind of change each, and where it shows.

``# here`` marks the line that a replay has to name.
"""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from perdure import App, EntityId, HistoryEvent, Hub
from perdure.testing import record

_HEAD = """\
from __future__ import annotations
from datetime import timedelta
import attrs
from perdure import App, EntityId, OrchestrationContext, RetryPolicy
app = App()

@attrs.define
class Order:
    number: int
    note: str = ""

@app.entity
class Stock:
    left: int = 9
    def take(self, count: int) -> int:
        self.left -= count
        return self.left
    def look(self) -> int:
        return self.left

@app.activity
async def reserve(n: int) -> int:
    return n

@app.activity
async def charge(n: int) -> int:
    return n * 2

@app.activity
async def fail(n: int) -> int:
    raise ValueError(n)

@app.activity
async def place(order: Order) -> Order:
    return order

@app.orchestration
async def child(ctx: OrchestrationContext, n: int) -> int:
    return n

"""

_ASYNC = "@app.orchestration\nasync def flow(ctx: OrchestrationContext, n: int):\n"
_YIELDS = "@app.orchestration\ndef flow(ctx: OrchestrationContext, n: int):\n"
_WAIT = "    return await ctx.wait_for_external_event('go')\n"


class Program(NamedTuple):
    """A program that has changed.

    Attributes:
        name: how it has.
        was: its code, when the history was made.
        now: its code of today, in which a line is marked; where none is, the function's own.
        position: the event at which they part; None where they do not.
        recorded: what the history has there, as it begins.
        done: what the code does, as it begins.
    """

    name: str
    was: str
    now: str
    position: int | None
    recorded: str = ""
    done: str = ""


def _body(*lines: str, head: str = _ASYNC, wait: str = _WAIT) -> str:
    return _HEAD + head + "".join(f"    {line}\n" for line in lines) + wait


_TWO = _body("await ctx.call_activity(reserve, n)", "await ctx.call_activity(charge, n)")
_GROUP = (
    "async def one(): await ctx.call_activity(reserve, 1){a}",
    "async def two(): await ctx.call_activity(charge, 2){b}",
    "async with ctx.create_task_group() as tg:",
)
_GOES_ON = (
    "if n < 3:",
    "    ctx.continue_as_new(n + 1)",
    "    return",
)

CHANGED = [
    Program(
        "an activity renamed",
        _TWO,
        _TWO.replace("async def charge", "async def bill").replace(
            "charge, n)", "bill, n)  # here"
        ),
        3,
        "TaskScheduled(2, 'charge'",
        "TaskScheduled(2, 'bill'",
    ),
    Program(
        "the order swapped",
        _TWO,
        _body("await ctx.call_activity(charge, n)  # here", "await ctx.call_activity(reserve, n)"),
        1,
        "TaskScheduled(1, 'reserve'",
        "TaskScheduled(1, 'charge'",
    ),
    Program(
        "a call added",
        _TWO,
        _body(
            "await ctx.call_activity(reserve, n)",
            "await ctx.call_activity(reserve, 7)  # here",
            "await ctx.call_activity(charge, n)",
        ),
        3,
        "TaskScheduled(2, 'charge'",
        "TaskScheduled(2, 'reserve'",
    ),
    Program(
        "a call removed",
        _TWO,
        _body("await ctx.call_activity(reserve, n)", wait=_WAIT.replace("\n", "  # here\n")),
        3,
        "TaskScheduled(2, 'charge'",
        "nothing more",
    ),
    Program(
        "another input",
        _TWO,
        _body(
            "await ctx.call_activity(reserve, n)", "await ctx.call_activity(charge, n + 1)  # here"
        ),
        3,
        "TaskScheduled(2, 'charge'",
        "TaskScheduled(2, 'charge'",
    ),
    Program(
        "another timer",
        _body("ctx.create_timer(timedelta(days=1))", "await ctx.call_activity(reserve, n)"),
        _body("ctx.create_timer(timedelta(days=2))  # here", "await ctx.call_activity(reserve, n)"),
        1,
        "TimerCreated(1",
        "TimerCreated(1",
    ),
    Program(
        "a timer instead of a call",
        _TWO,
        _body("await ctx.create_timer(timedelta(seconds=1))  # here"),
        1,
        "TaskScheduled(1",
        "TimerCreated(1",
    ),
    Program(
        "a field of another type",
        _body("await ctx.call_activity(place, Order(n))"),
        _body("await ctx.call_activity(place, Order(str(n)))  # here").replace(
            "number: int", "number: str"
        ),
        1,
        "TaskScheduled(1, 'place'",
        "TaskScheduled(1, 'place'",
    ),
    Program(
        "a result of another type",
        _body("await ctx.call_activity(charge, n)"),
        _body("await ctx.call_activity(charge, n)  # here").replace(
            "async def charge(n: int) -> int", "async def charge(n: int) -> list[str]"
        ),
        3,
        "nothing",
        "the end of the function",
    ),
    Program(
        "another sub-orchestration",
        _body("await ctx.call_sub_orchestrator(child, n)"),
        _body("await ctx.call_sub_orchestrator(infant, n)  # here").replace(
            "async def child", "async def infant"
        ),
        1,
        "SubOrchestrationInstanceCreated(1, 'child'",
        "SubOrchestrationInstanceCreated(1, 'infant'",
    ),
    Program(
        "another operation of an entity",
        _body("await ctx.call_entity(EntityId(Stock, 'a'), Stock.take, n)"),
        _body("await ctx.call_entity(EntityId(Stock, 'a'), Stock.look)  # here"),
        1,
        "EntityOperationCalled(1, '@stock@a', 'take'",
        "EntityOperationCalled(1, '@stock@a', 'look'",
    ),
    Program(
        "a signal to another entity",
        _body("ctx.signal_entity(EntityId(Stock, 'a'), Stock.take, n)"),
        _body("ctx.signal_entity(EntityId(Stock, 'b'), Stock.take, n)  # here"),
        1,
        "EntityOperationSignaled(1, '@stock@a'",
        "EntityOperationSignaled(1, '@stock@b'",
    ),
    Program(
        "another lock",
        _body(
            "async with ctx.lock_entities(EntityId(Stock, 'a')):",
            "    await ctx.call_entity(EntityId(Stock, 'a'), Stock.take, n)",
        ),
        _body(
            "async with ctx.lock_entities(EntityId(Stock, 'a'), EntityId(Stock, 'b')):  # here",
            "    await ctx.call_entity(EntityId(Stock, 'a'), Stock.take, n)",
        ),
        1,
        "EntityLockRequested(1, ['@stock@a'])",
        "EntityLockRequested(1, ['@stock@a', '@stock@b'])",
    ),
    Program(
        "a lock taken away",
        _body(
            "async with ctx.lock_entities(EntityId(Stock, 'a')):",
            "    await ctx.call_entity(EntityId(Stock, 'a'), Stock.take, n)",
        ),
        _body("await ctx.call_entity(EntityId(Stock, 'a'), Stock.take, n)  # here"),
        1,
        "EntityLockRequested",
        "EntityOperationCalled",
    ),
    Program(
        "an event sent to another instance",
        _body("ctx.send_event('x', 'e', n)"),
        _body("ctx.send_event('y', 'e', n)  # here"),
        1,
        "EventSent(1, 'x'",
        "EventSent(1, 'y'",
    ),
    Program(
        "the order swapped in a generator",
        _body(
            "yield ctx.call_activity(reserve, n)",
            "yield ctx.call_activity(charge, n)",
            head=_YIELDS,
            wait="    return (yield ctx.wait_for_external_event('go'))\n",
        ),
        _body(
            "yield ctx.call_activity(charge, n)  # here",
            "yield ctx.call_activity(reserve, n)",
            head=_YIELDS,
            wait="    return (yield ctx.wait_for_external_event('go'))\n",
        ),
        1,
        "TaskScheduled(1, 'reserve'",
        "TaskScheduled(1, 'charge'",
    ),
    Program(
        "branches of a group swapped",
        _body(
            *(line.format(a="", b="") for line in _GROUP),
            "    tg.start_soon(one)",
            "    tg.start_soon(two)",
        ),
        _body(
            *(line.format(a="", b="  # here") for line in _GROUP),
            "    tg.start_soon(two)",
            "    tg.start_soon(one)",
        ),
        1,
        "TaskScheduled(1, 'reserve'",
        "TaskScheduled(1, 'charge'",
    ),
    Program(
        "the end in the middle",
        _TWO,
        _body("await ctx.call_activity(reserve, n)", "return 1", wait=""),
        3,
        "TaskScheduled(2, 'charge'",
        "the end of the function",
    ),
    Program(
        "a failure in the middle",
        _TWO,
        _body("await ctx.call_activity(reserve, n)", "raise ValueError('no')  # here", wait=""),
        3,
        "TaskScheduled(2, 'charge'",
        "the end of the function",
    ),
    Program(
        "fewer attempts",
        _body(
            "try:",
            "    await ctx.call_activity(fail, n, retry=RetryPolicy(0.001, max_attempts=2))",
            "except Exception: pass",
        ),
        _body(
            "try:",
            "    await ctx.call_activity(fail, n)",
            "except Exception: pass",
            wait=_WAIT.replace("\n", "  # here\n"),
        ),
        3,
        "TimerCreated",
        "nothing more",
    ),
    Program(
        "a later execution",
        _body(*_GOES_ON, "await ctx.call_activity(reserve, n)"),
        _body(*_GOES_ON, "await ctx.call_activity(charge, n)  # here"),
        1,
        "TaskScheduled(1, 'reserve'",
        "TaskScheduled(1, 'charge'",
    ),
    Program(
        "the end of a later execution",
        _body(*_GOES_ON, "await ctx.call_activity(reserve, n)"),
        _body("if n < 4:", *_GOES_ON[1:], "await ctx.call_activity(reserve, n)"),
        1,
        "TaskScheduled(1, 'reserve'",
        "the end of the function",
    ),
    Program(
        "the same version changed",
        _TWO.replace("@app.orchestration\nasync def flow", "@app.orchestration(version='1')\nasync def flow"),
        _TWO.replace("@app.orchestration\nasync def flow", "@app.orchestration(version='1')\nasync def flow")
        .replace("reserve, n)", "charge, n)  # here"),
        1,
        "TaskScheduled(1, 'reserve'",
        "TaskScheduled(1, 'charge'",
    ),
]  # fmt: skip

_PINNED = _TWO.replace(
    "@app.orchestration\nasync def flow", "@app.orchestration(version='1')\nasync def flow"
)

UNCHANGED = [
    Program(
        "a field with a default that is new",
        _body("await ctx.call_activity(place, Order(n))"),
        _body("await ctx.call_activity(place, Order(n))").replace(
            '    note: str = ""\n', '    note: str = ""\n    more: int = 0\n'
        ),
        None,
    ),
    Program(
        "a call behind all that has happened",
        _TWO,
        _TWO.replace("return await", "await") + "    await ctx.call_activity(reserve, 9)\n",
        None,
    ),
    Program(
        "code of a later version",
        _PINNED,
        _PINNED
        + "@app.orchestration(name='flow', version='2')\n"
        + "async def flow_2(ctx: OrchestrationContext, n: int):\n    return n\n",
        None,
    ),
    Program("other words and lines", _TWO, "# words\n\n" + _TWO.replace("n: int):", "m: int):\n    n = m"), None),
]  # fmt: skip


_numbers = itertools.count()


def load(code: str, folder: Path) -> tuple[App, Path]:
    """Give the application of a program, and the file that it is in."""
    file = folder / f"program_{next(_numbers)}.py"
    file.write_text(code, "utf-8")
    return runpy.run_path(str(file))["app"], file


def marked(file: Path) -> int:
    """Give the line that is marked, or that at which the function begins."""
    lines = file.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if "# here" in line:
            return number
    return next(number for number, line in enumerate(lines, 1) if "def flow(" in line) - 1


async def live(
    hub: Hub, input: Any = 1, instance_id: str = "one", version: str | None = None
) -> None:
    """Start an instance, and wait until it waits for ``go``."""
    await hub.client.start_new("flow", input, instance_id=instance_id, version=version)
    with anyio.fail_after(20):
        while True:
            status = await hub.client.get_status(instance_id)
            assert status is not None
            assert status.failure is None, status.failure
            if "event:go" in status.waiting_for:
                return
            await anyio.sleep(0.001)


def history_of(app: App, file: Path) -> list[HistoryEvent]:
    """Run the program until it waits, and record its history into a file."""

    async def run() -> list[HistoryEvent]:
        async with Hub(app) as hub:
            await live(hub)
            await record(hub.client, file, "one")
            return await hub.client.get_history("one")

    return anyio.run(run)


__all__ = ["CHANGED", "UNCHANGED", "EntityId", "Program", "history_of", "live", "load", "marked"]
