"""Clients of other processes: they reach a hub through its socket, or through its nodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import orjson

from ...actors.arguments import instance, is_a, refusal, whole
from ...actors.errors import HubStoppingError, UnavailableError, UsageError
from ...actors.printing import type_name
from ...storage.membership import MEMBER_MAX
from ..facts import read_fact
from ..migrations import MigrationStatus
from ..nodes import HubNodes
from ..placement.places import LineLostError
from ..scheduling.clock import SystemClock
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.homes import Home
from ..scheduling.keeper import Keeper
from ..scheduling.waiter import waiter_factory
from ..settings import Settings
from ..statistics import HubStatistics, read_counts
from ..transport.channels import Channel
from ..transport.lines import Line
from ..transport.router import Router
from .access import Access, access_to, check_target
from .applications import app_of, make_lookup
from .client import Client
from .hub_client import HubClient
from .operations import OPERATIONS, Operation
from .remote_client import AnswerLostError, Feed, RemoteClient, Transport

if TYPE_CHECKING:
    from ...actors.registry.app import App
    from ..transport.verbs import HubVerb

#: Bytes of a batch of signals that fit into one request, whatever ``max_payload`` is.
_BATCH_SIZE_MAX = 10 * 1024 * 1024


@asynccontextmanager
async def connect(
    place: str | Path,
    app: App | str,
    *,
    settings: Settings | None = None,
    node_key_file: str | Path | None = None,
) -> AsyncGenerator[Client, None]:
    """Give a client of a hub in other processes, with the application.

    It finds actors wherever the hub's shards serve them, also after they moved or were restarted.

    Args:
        place: the hub's socket, its store if the socket is there (``sqlite:PATH``), or the store
            that its nodes share (``postgresql://...``).
        app: the application, or where it is.
        settings: the limits of the hub.
        node_key_file: the key between the hub's nodes, if they were given one.

    Raises:
        UnavailableError: no hub listens there.
        UsageError: the path is too long for a socket; or the key is wrong.
        StorageError: the store that says who serves the hub cannot be reached.
    """
    access = access_to(place, node_key_file)
    lookup = make_lookup(app_of(app), _checked(settings))
    async with _hub_line(access) as (hub, tasks):
        where = await hub.call("where", 0)

        async def to_shard(shard: int) -> Channel:
            return await access.shard(shard, placement.run)

        router = Router(len(where["owners"]), None, waiter_factory(), to_shard)
        router.start(tasks)
        placement = PlacementFollower(router, access)
        placement.take(where)
        tasks.start_soon(
            Keeper().persist, "the watch of where partitions are", partial(placement.follow, hub)
        )
        home, left = Home(), anyio.Event()
        tasks.start_soon(home.serve, left.wait)
        try:
            yield HubClient(lookup, router, SystemClock(), home, HubView(hub))
        finally:
            home.close()
            router.close()
            left.set()


@asynccontextmanager
async def connect_plainly(
    place: str | Path, *, node_key_file: str | Path | None = None
) -> AsyncGenerator[Client, None]:
    """Give a client of a hub in other processes, without the application; see ``connect``."""
    async with (
        _hub_line(access_to(place, node_key_file)) as (line, _),
        connect_remotely(SocketTransport(line), None, None) as client,
    ):
        yield client


@asynccontextmanager
async def connect_remotely(
    transport: Transport, app: App | str | None, settings: Settings | None
) -> AsyncGenerator[Client, None]:
    """Give a client over a transport, with the application or without, of a hub that answers.

    Like the hub's own it is for any event loop of the process.

    Raises:
        UnavailableError: no hub answers.
    """
    lookup = None
    if app is None:
        refuse_settings(settings)
    else:
        lookup = make_lookup(app_of(app), _checked(settings))
    try:
        await transport.ask(OPERATIONS["describe"], {})  # one that answers nothing is no hub
    except AnswerLostError as lost:
        raise UnavailableError(f"no hub answers ({lost}): start one") from lost
    home, left = Home(), anyio.Event()
    failed: Exception | None = None
    async with TaskGroup() as tasks:
        tasks.start_soon(home.serve, left.wait)
        try:
            yield RemoteClient(_FromAnyLoop(transport, home), lookup)
        except Exception as error:
            failed = error  # it comes out as it is, and not in a group
        finally:
            home.close()
            left.set()
    if failed is not None:
        raise failed


class _FromAnyLoop:
    """A transport that is used on the loop it was opened on, wherever the asking code runs."""

    def __init__(self, transport: Transport, home: Home) -> None:
        self._transport = transport
        self._home = home

    async def ask(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        """See ``Transport``."""
        return await self._there(partial(self._transport.ask, operation, arguments))

    def follow(self) -> Feed | None:
        """See ``Transport``."""
        feed = self._transport.follow()
        return None if feed is None else _FeedFromAnyLoop(feed, self._there)

    async def _there(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        home = self._home
        if home.here() == home.door:
            return await ask()
        if home.is_shut:
            raise HubStoppingError(
                "the client was left: use it inside of 'async with connect(...)'"
            )
        return await home.fetch(ask)


class _FeedFromAnyLoop:
    """A feed that is read on the loop of its transport."""

    def __init__(
        self, feed: Feed, there: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
    ) -> None:
        self._feed = feed
        self._there = there
        self.abandon = feed.abandon

    async def read(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """See ``Feed``."""
        items: list[dict[str, Any]] = await self._there(partial(self._feed.read, arguments))
        return items


class SocketTransport:
    """Asks a hub over the line to its socket."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def ask(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        """See ``Transport``."""
        if operation.name == "signals":
            _check_size(arguments)
        try:
            verb: HubVerb = "look" if operation.is_large else "ask"
            return await self._line.call(verb, operation.name, arguments)
        except LineLostError as lost:
            raise AnswerLostError(str(lost), sent=lost.sent) from None

    def follow(self) -> Feed | None:
        """See ``Transport``."""
        return None


def _check_size(arguments: dict[str, Any]) -> None:
    """Refuse a batch for which the hub would end the connection."""
    size = len(orjson.dumps(arguments))
    if size > _BATCH_SIZE_MAX:
        raise UsageError(
            f"the signals have {size:,} bytes together, and {_BATCH_SIZE_MAX:,} are taken at a "
            "time: send them in several batches"
        )


def is_address(place: str | Path) -> bool:
    """Whether a place is the address of a hub's HTTP interface."""
    return is_a(place, str) and str(place).startswith(("http://", "https://"))


def refuse_settings(settings: Settings | None) -> None:
    """Refuse limits where the hub checks them.

    Raises:
        UsageError: some were given.
    """
    if settings is not None:
        raise refusal("settings", "left out without app: the hub knows its limits", settings)


def refuse_key(key: str | None) -> None:
    """Refuse a key where nobody asks for one.

    Raises:
        UsageError: one was given.
    """
    if key is not None:
        # Its kind, and not what it is: it may be one that is used elsewhere.
        raise UsageError(
            "key must be left out for a socket or a store, where the file says who may, not a "
            f"{type_name(key)}"
        )


def _checked(settings: Settings | None) -> Settings:
    if settings is None:
        return Settings()
    return instance(settings, Settings, "settings", "a perdure.Settings")


QUIET_S: Final = 2.0
"""Seconds after which a member that has said nothing of new is asked whether it is there."""
SILENT_S: Final = 3.0
"""Seconds that it has to answer, before another one is asked."""


class PlacementFollower:
    """Keeps a router up to date with a hub's placement, also with that of the next hub there."""

    def __init__(self, router: Router, access: Access) -> None:
        self._router = router
        self._access = access
        self._version = 0
        self.run = ""

    def take(self, where: dict[str, Any]) -> None:
        """Take what a hub said."""
        self._version = where["version"]
        self._access.note(where)
        is_another = where["run"] != self.run
        self.run = where["run"]
        if self._access.is_lasting:
            self._router.place(where["owners"])
            # Of one that stands still nothing breaks: what it was asked is asked of another.
            for member in [*self._router.lines]:
                if str(member) not in where["addresses"]:
                    self._router.forget(member)
            return
        if is_another:
            # The shards of the run before may still be there, and would still answer for a while.
            self._router.renew()
        self._router.place(where["owners"], where["incarnations"])

    async def follow(self, hub: Line) -> None:
        """Ask again and again, for ever."""
        while True:
            try:
                with anyio.move_on_after(QUIET_S if self._access.is_lasting else None):
                    self.take(await hub.call("where", self._version, self.run))
                    continue
                # Nothing has changed, or the member that was asked stands still.
                with anyio.move_on_after(SILENT_S):
                    self.take(await hub.call("where", 0))
                    continue
                hub.renew()
            except (LineLostError, HubStoppingError):
                await anyio.sleep(0.05)


@asynccontextmanager
async def _hub_line(access: Access) -> AsyncGenerator[tuple[Line, TaskGroup], None]:
    """Give the line to a hub, and a group for the tasks that need it."""
    first: list[Channel] = [await access.first()]

    async def again() -> Channel:
        return first.pop() if first else await access.hub()

    line = Line(again, waiter_factory())
    failed: Exception | None = None
    async with TaskGroup() as tasks:
        tasks.start_soon(line.run)
        try:
            yield line, tasks
        except Exception as error:
            failed = error
        finally:
            line.close()
            tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed


class HubView:
    """What can be seen of a hub from outside, without its application."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        """Give the hub's counters; see ``Hub.statistics``."""
        hottest = whole(hottest, "hottest")
        counts: list[dict[str, Any]] = await self._line.call("statistics", hottest)
        return read_counts(counts)

    async def move_partition(self, partition: int, to: int) -> None:
        """Have another shard serve a partition; see ``Hub.move_partition``."""
        await self._line.call("move", whole(partition, "partition"), whole(to, "to"))

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub; see ``Hub.nodes``."""
        return read_fact(HubNodes, await self._line.call("ask", "nodes", {}))

    async def migrate(self, target: str) -> None:
        """Begin to bring the hub to another store, while it serves; see ``Hub.migrate``."""
        await self._repeat("migrate", check_target(target))

    async def migration(self) -> MigrationStatus | None:
        """Say how far it is on its way there; see ``Hub.migration``."""
        status = await self._repeat("migration")
        return None if status is None else read_fact(MigrationStatus, status)

    async def _repeat(self, verb: HubVerb, *arguments: Any) -> Any:
        """Ask what does no harm when it is asked again, also of the next process of the hub."""
        while True:
            with suppress(LineLostError):
                return await self._line.call(verb, *arguments)

    async def drain_node(self, member: int) -> None:
        """Have a process let its partitions go to the others; see ``Hub.drain_node``."""
        await self._line.call("ask", "drain_node", _member(member))

    async def undrain_node(self, member: int) -> None:
        """Have a process take partitions again; see ``Hub.undrain_node``."""
        await self._line.call("ask", "undrain_node", _member(member))


def _member(number: int) -> dict[str, int]:
    return {"member": whole(number, "member", most=MEMBER_MAX)}


@asynccontextmanager
async def watch_hub(
    place: str | Path, *, node_key_file: str | Path | None = None
) -> AsyncGenerator[HubView, None]:
    """Look at a hub of other processes: its load, and where its partitions are; see ``connect``.

    Raises:
        UnavailableError: no hub listens there.
    """
    async with _hub_line(access_to(place, node_key_file)) as (line, _):
        yield HubView(line)
