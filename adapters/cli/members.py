"""What ``perdure nodes`` shows and has done."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Console
from rich.live import Live
from rich.text import Text

import perdure

from .hubs import is_database
from .screen import Screen
from .words import absolute, counted, duration

if TYPE_CHECKING:
    from perdure import HubNodes, NodePartition, NodeStatus

_HEADERS = (
    "member", "state", "beat", "part.", "which", "behind", "address", "host", "pid", "perdure", "app", "http",
    "joined",
)  # fmt: skip
#: What a narrow screen goes without, in this order.
_SPARED = (("joined",), ("host", "pid"), ("behind",), ("perdure", "app"), ("http",))


def show(place: str, keys: Mapping[str, Any], *, interval_s: float | None, as_json: bool) -> None:
    """Show who serves a hub: once, or again and again until the user ends it.

    Args:
        place: the hub.
        keys: what it is asked with: what ``keys_of`` gave.
        interval_s: seconds between two looks; None for one look.
        as_json: print what the API gives, a look a line.
    """
    anyio.run(_show, place, keys, interval_s, as_json)


async def _show(
    place: str, keys: Mapping[str, Any], interval_s: float | None, as_json: bool
) -> None:
    screen = Screen(as_json=as_json)
    async with _looks(place, keys) as look:
        if interval_s is None or as_json:
            while True:
                show_nodes(screen, await look())
                sys.stdout.flush()
                if interval_s is None:
                    return
                await anyio.sleep(interval_s)
        seen, trouble = await look(), ""
        # On a console of its own: what is printed on a live one stands above what is alive.
        is_live = screen.console.is_terminal
        with Live(console=Console(), auto_refresh=False) if is_live else nullcontext() as live:
            while True:
                with screen.console.capture() as captured:
                    show_nodes(screen, seen)
                    if trouble:
                        screen.line(Text(f"as it was: {trouble}", style="bold red"))
                if live is None:
                    print(captured.get(), end="", flush=True)
                else:
                    live.update(Text.from_ansi(captured.get().rstrip("\n")), refresh=True)
                await anyio.sleep(interval_s)
                try:
                    seen, trouble = await look(), ""
                except perdure.StorageError as error:
                    # Whoever watches a failover wants to see its end, too.
                    trouble = str(error)


@asynccontextmanager
async def _looks(
    place: str, keys: Mapping[str, Any]
) -> AsyncGenerator[Callable[[], Awaitable[HubNodes]], None]:
    """Give what looks at the nodes: the database alone knows them, where there is one."""
    if is_database(place):
        yield lambda: perdure.read_nodes(place)
        return
    async with perdure.connect(place, **keys) as client:
        yield client.nodes


def act(place: str, keys: Mapping[str, Any], action: str, member: int, *, as_json: bool) -> None:
    """Have a member let its partitions go, or take some again.

    Args:
        place: the hub.
        keys: what it is asked with: what ``keys_of`` gave.
        action: ``drain`` or ``undrain``.
        member: which one.
        as_json: print what the API gives.
    """
    anyio.run(_act, place, keys, action, member, as_json)


async def _act(
    place: str, keys: Mapping[str, Any], action: str, member: int, as_json: bool
) -> None:
    screen = Screen(as_json=as_json)
    async with perdure.connect(place, **keys) as client:
        done = await client.ask(f"{action}_node", {"member": member})
    if as_json:
        screen.json(done)
    elif action == "drain":
        screen.line(f"member {member} lets its partitions go, and takes no more")
    else:
        screen.line(f"member {member} takes its share again")


def show_nodes(screen: Screen, seen: HubNodes) -> None:
    """Print one look."""
    if screen.as_json:
        screen.json(seen.to_dict())
        return
    if not seen.nodes:
        screen.line("no process serves this hub: start one with perdure serve")
    else:
        full = [_row(node, is_cluster=seen.is_cluster) for node in seen.nodes]
        screen.table(_HEADERS, *_choices(full))
    if seen.free:
        screen.line(
            f"nobody has {counted(len(seen.free), 'partition')}: {ranges(seen.free)}", indent="  "
        )
    for node in seen.nodes:
        for target in sorted({one.wanted for one in node.partitions if one.wanted is not None}):
            some = [one for one in node.partitions if one.wanted == target]
            screen.line(f"on the way from member {node.member} to {target}: {ranges(some)}")


def _choices(full: list[list[str]]) -> list[list[list[str]]]:
    """Give the rows as they are, and with less and less in them."""
    choices, spared = [full], set[str]()
    for names in _SPARED:
        spared |= {*names}
        choices.append(
            [
                ["" if name in spared else cell for name, cell in zip(_HEADERS, row, strict=True)]
                for row in full
            ]
        )
    return choices


def _row(node: NodeStatus, *, is_cluster: bool) -> list[str]:
    version = node.app_hash or ""
    return [
        str(node.member),
        _state(node),
        duration(node.beat_age_s) if is_cluster else "",
        str(len(node.partitions)),
        ranges(node.partitions),
        _behind(node),
        node.address or "",
        node.host,
        str(node.pid),
        node.software,
        f"{version} (another)" if node.is_other_version else version,
        node.http or "",
        "" if node.joined is None else absolute(node.joined),
    ]


def _behind(node: NodeStatus) -> str:
    """Say how many checkpoints the tables lack of all that a node has."""
    known = [one.unapplied for one in node.partitions if one.unapplied is not None]
    return f"{sum(known):,}" if known else ""


def _state(node: NodeStatus) -> str:
    if node.is_expired:
        return "expired"
    return "draining" if node.is_draining else "serves"


def ranges(partitions: Sequence[NodePartition]) -> str:
    """Write numbers of partitions, such as ``0-3, 7``."""
    runs: list[list[int]] = []
    for number in sorted(one.index for one in partitions):
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
