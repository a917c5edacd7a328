"""One run: nodes, a load, a node that is killed, one that comes; and the totals in the end."""

from __future__ import annotations

import statistics
from contextlib import suppress

import anyio
import anyio.to_thread
from rich.console import Console

import perdure
from perdure import Client, PerdureError, UnavailableError, UsageError

from .app import app
from .load import PROBED, Load
from .machines import START_S, DemoError, Machines, Process
from .view import NodeLine, Progress, View

_LOOK_S = 0.1
#: When a node is killed, and when another one is started, as shares of the whole time.
KILL_AT = 0.4
JOIN_AT = 0.7


async def run(
    machines: Machines, console: Console, *, nodes: int, seconds: float, plain: bool
) -> int:
    """Run it; gives the exit code: 0 if nothing was lost or doubled, else 1.

    Raises:
        DemoError: a process that it needs does not start, or ends.
    """
    if machines.starts_database:
        console.print("starting a PostgreSQL ...")
    await anyio.to_thread.run_sync(machines.start_database)
    console.print(f"the hub is at {machines.store}")
    console.print(f"starting {nodes} nodes ...")
    for _ in range(nodes):
        machines.start_node()
    await _until_somebody_serves(machines)
    async with perdure.connect(machines.store, app) as client:
        watched = _Watched(machines, client)
        await watched.until_all_serve_alike()
        load = Load(client)
        progress = Progress(seconds)
        wrong: list[str] = []
        with View(console, plain=plain) as view:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watched.show, load, progress, view)
                async with anyio.create_task_group() as asking:
                    asking.start_soon(load.run)
                    await _plot(machines, watched, load, progress)
                progress.phase = "compares the totals ..."
                wrong = await load.differences()
                tasks.cancel_scope.cancel()
        return _summarise(console, load, watched, wrong)


async def _until_somebody_serves(machines: Machines) -> None:
    with anyio.fail_after(START_S):
        while True:
            _refuse_ended(machines.nodes)
            try:
                async with perdure.connect(machines.store, app):
                    return
            except (UnavailableError, UsageError):
                await anyio.sleep(_LOOK_S)  # nobody has made the hub yet


def _refuse_ended(nodes: list[Process]) -> None:
    for node in nodes:
        if not node.is_up:
            raise DemoError(node.why())


class _Watched:
    """The nodes, as the hub knows them."""

    def __init__(self, machines: Machines, client: Client) -> None:
        self._machines = machines
        self._client = client
        self.killed: set[int] = set()
        self.pauses: list[float] = []
        self.lines: list[NodeLine] = []
        self.free = 0

    async def until_all_serve_alike(self) -> None:
        """Return when each has its share of all partitions."""
        with anyio.fail_after(START_S):
            while True:
                _refuse_ended([n for n in self._machines.nodes if n.pid not in self.killed])
                with suppress(UnavailableError):  # it is about to serve
                    await self._look()
                serving = [line for line in self.lines if line.state == "serves"]
                shares = [line.partitions for line in serving]
                alive = len(self._machines.nodes) - len(self.killed)
                if len(shares) == alive and not self.free and max(shares) - min(shares) <= 1:
                    return
                await anyio.sleep(_LOOK_S)

    async def _look(self) -> None:
        told = await self._client.nodes()
        known = {node.pid: node for node in told.nodes if not node.is_expired}
        self.free = len(told.free)
        self.lines = []
        for process in self._machines.nodes:
            line = NodeLine(process.name, process.pid, "starts")
            seen = known.get(process.pid)
            if process.pid in self.killed:
                line.state = "killed"
            if seen is not None:
                line.member = seen.member
                line.partitions = len(seen.partitions)
                line.beat_age_s = seen.beat_age_s
                if line.state == "starts" and seen.partitions:
                    line.state = "serves"
            self.lines.append(line)

    async def show(self, load: Load, progress: Progress, view: View) -> None:
        while True:
            with suppress(PerdureError):  # of a node that is gone; the next look asks another
                await self._look()
            progress.nodes, progress.free = self.lines, self.free
            progress.answered, progress.repeated = load.answered, load.repeated
            progress.signals, progress.calls, progress.orders = (
                load.signals,
                load.calls,
                load.orders,
            )
            view.show(progress)
            await anyio.sleep(_LOOK_S)


async def _plot(machines: Machines, watched: _Watched, load: Load, progress: Progress) -> None:
    """Have happen what is to happen, and stop the load."""
    progress.phase = "all is well"
    await anyio.sleep(KILL_AT * progress.seconds / 2)
    load.begin_measuring()  # what was slow since nothing was warm is not the usual
    await anyio.sleep(KILL_AT * progress.seconds / 2)
    victim = machines.nodes[0]
    load.begin_measuring()
    had = watched.lines[0].partitions
    await anyio.to_thread.run_sync(victim.kill)
    watched.killed.add(victim.pid)
    progress.tell(f"{victim.name}, with {had} partitions, is killed by SIGKILL")
    progress.phase = "the others take over what it had"
    await anyio.sleep((JOIN_AT - KILL_AT) * progress.seconds)
    watched.pauses = load.pauses()
    progress.tell(_pauses(load, watched.pauses))
    joined = machines.start_node()
    progress.tell(f"{joined.name} is started, and gets its share")
    progress.phase = "partitions move while the load goes on"
    await anyio.sleep((1 - JOIN_AT) * progress.seconds)
    load.stop()


def _pauses(load: Load, pauses: list[float]) -> str:
    usual = f"the {load.usual:.2f} s that some took before"
    if not pauses:
        return f"no call took longer than {usual}"
    middle, longest = statistics.median(pauses), pauses[-1]
    return (
        f"calls to {len(pauses)} of {PROBED} counters took longer than {usual}:"
        f" {middle:.2f} s in the middle, {longest:.2f} s at the most"
    )


def _summarise(console: Console, load: Load, watched: _Watched, wrong: list[str]) -> int:
    console.print()
    console.print(
        f"{load.signals:,} signals, {load.calls:,} calls and {load.orders:,} orders were answered;"
        f" {load.repeated:,} requests were asked again under their ids"
    )
    console.print(f"when a node was killed, {_pauses(load, watched.pauses)}")
    for words in wrong:
        console.print(f"[bold red]wrong[/] {words}")
    if wrong:
        return 1
    console.print("[bold green]exact[/]: every counter says what was answered, once")
    return 0
