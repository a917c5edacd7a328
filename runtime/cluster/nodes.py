"""A member of a hub that several processes serve: one shard, on the hub's own loop.

Invariants:

* A member serves what the store says that it has; it says so itself by leases (``leases.py``).
* What crosses between members is what crosses between shards of one process. A member has a number
  that no other one ever had, so what was meant for one that is gone reaches nobody.
* Whoever asks a member for a partition of another one is asked to look again, or is passed on to
  it where he cannot reach that.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
from attrs import asdict, field, frozen

from ...actors.arguments import refusal, whole
from ...actors.errors import (
    InternalError,
    OutcomeUnknownError,
    PerdureError,
    StoreInUseError,
    UnavailableError,
    UsageError,
)
from ...actors.logs import Log
from ...actors.printing import text_of
from ...storage.membership import ClusterStore, MemberRow, Membership, Newcomer, View
from ..placement.places import LineLostError
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.waiter import waiter_factory
from ..shards.sessions import Session
from ..shards.shard import Shard
from ..transport.channels import SocketChannel, check_socket, listen, serve
from ..transport.greeting import Credentials, NotThatMemberError
from ..transport.nodes import Dialler, check_node_key, listen_node, read_node_key, serve_nodes
from ..transport.relays import Relays
from ..transport.router import Router
from ..transport.sockets import shard_socket
from ..transport.tcp import is_loopback, join_address, split_address
from .crews import ENDED_S, MOVES_S
from .leases import Leases, steady_s
from .moving import MovingCrew

if TYPE_CHECKING:
    from ...actors.registry.app import App
    from ...actors.registry.lookup import Lookup
    from ...actors.registry.registry import Registry
    from ...storage import PartitionStore
    from ..nodes import HubNodes
    from ..scheduling.clock import Clock
    from ..scheduling.watch import Watch
    from ..settings import Settings
    from ..transport.channels import Channel
    from ..transport.tcp import TcpListener
    from ..transport.verbs import Handlers, ShardVerb, VerbName

_log = Log("perdure.nodes")

#: How many partitions a new hub of several processes gets: a free one costs a row.
PARTITIONS = 64
#: Seconds that a member has to take what a partition brings along.
HANDOVER_S = 1.0
#: Seconds after which who moves a partition looks again whether it has.
_WISH_S = 1.0
#: Seconds after which a partition that was to come does not come any more.
_AWAITED_S = 2.0
#: Seconds for answers that are on their way when a member ends.
_FLUSH_S = 0.5
#: Seconds beyond its time to live in which a member finds all partitions served when it starts.
_READY_S = 2.0
#: At most so many requests ids' worth of code go into an application's hash at once.
_CHUNK = 65_536


@frozen(kw_only=True)
class Node:
    """How a member is reached, and by what it knows the others.

    Attributes:
        listen: where it listens for other members: ``HOST:PORT``; None for a port of this host.
        address: what these dial; None for where it listens.
        key: the key between members, or the file with it; None for one that the store has.
        http: where its HTTP API is, as a URL, for people.
        weight: how much of the hub it takes, beside the others.
    """

    listen: str | None = None
    address: str | None = None
    key: bytes | str | Path | None = field(default=None, repr=False)
    http: str | None = None
    weight: float = 1.0

    @property
    def listens_at(self) -> str:
        """Where it listens."""
        return "127.0.0.1:0" if self.listen is None else self.listen

    def check(self) -> bytes | None:
        """Give the key, if it has one.

        Raises:
            UsageError: an address that is none, a key that is none, or none where one is needed.
        """
        host, _ = split_address(self.listens_at, "node_listen")
        if self.key is None:
            if not is_loopback(host):
                raise UsageError(
                    f"a member that others reach over a network, at {self.listen}, needs a key "
                    "(node_key): make one with: openssl rand -hex 32 > key; chmod 600 key, and "
                    "give the same to all members"
                )
            return None
        if isinstance(self.key, bytes):
            return check_node_key(self.key)
        return read_node_key(self.key)

    def dialled_at(self, host: str, port: int) -> str:
        """Give the address that others dial, of a member that listens at a host and a port.

        Raises:
            UsageError: the host has several addresses, and nobody said which.
        """
        if self.address is not None:
            given, number = split_address(self.address, "node_address")
            return join_address(given, number or port)
        if host not in ("0.0.0.0", "::"):
            return join_address(host, port)
        own = own_addresses()
        if len(own) != 1:
            raise UsageError(
                f"a member that listens at {host} has to say what others dial (node_address): "
                f"this host has {', '.join(own) or 'no address that is known'}"
            )
        return join_address(own[0], port)


def check_addresses(listen: object, address: object) -> None:
    """Refuse addresses that are none.

    Raises:
        UsageError: one of them is none.
    """
    for name, given in (("node_listen", listen), ("node_address", address)):
        if given is not None and not split_address(given, name)[0]:
            raise refusal(name, "an address as HOST:PORT", given)


def own_addresses() -> list[str]:
    """Give the addresses by which other hosts may know this one."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(one[4][0]) for one in found if not is_loopback(str(one[4][0]))})


def host_name() -> str:
    """Name this host, such that no other one has the name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}" if boot else socket.gethostname()


def hash_of(registry: Registry) -> str:
    """Give what tells an application from another version of it."""
    parts: list[str] = [f"activity {name}" for name in registry.activities]
    for name, versions in registry.orchestrations.items():
        for version, orchestration in versions.items():
            parts.append(f"orchestration {name} {version} {_code_of(orchestration)}")
    for name, entity in registry.entities.items():
        parts.append(f"entity {name} {sorted(entity.operations)}")
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def _code_of(definition: Any) -> str:
    code = getattr(getattr(definition, "function", None), "__code__", None)
    return "" if code is None else bytes(code.co_code).hex()


def software() -> str:
    """Give the version of Perdure."""
    from importlib.metadata import PackageNotFoundError, version  # here, since it takes long

    try:
        return version("perdure")
    except PackageNotFoundError:
        return ""


class ClusterCrew(MovingCrew):
    """This process, as one member among others.

    Attributes:
        address: where other members dial it, once it is open.
        leases: what it has.
        members: those that live, by number, as they were seen last.
        refused: members whose hosts say that nobody is there any more.
        prepare: is given the shard before it serves anything, if anybody wants it.
        be_alone: has who began this process, if it is a worker, end the others, or begin them again.
    """

    def __init__(
        self,
        store: ClusterStore,
        partitions: int | None,
        *,
        app: App,
        node: Node,
        lookup: Lookup,
        settings: Settings,
        clock: Clock,
        socket: Path | None,
        stop_for: Callable[[Exception], None],
        watch: Watch | None,
        random: Random | None = None,
        now: Callable[[], float] = steady_s,
    ) -> None:
        super().__init__(1, 1, socket, store)
        if socket is not None:
            check_socket(shard_socket(socket, 0))
        self._key = node.check()
        self._node = node
        self._app = app
        self._store = self._shared = store
        self._partitions = partitions
        self._lookup = lookup
        self._settings = settings
        self._clock = clock
        self._stop_for = stop_for
        self._watch = watch
        self.leases = Leases(store, self, self.keeper, random=random, now=now)
        self.members: dict[int, MemberRow] = {}
        self.refused: set[int] = set()
        self.address = ""
        self._who: Credentials | None = None
        self._dialler = Dialler(lambda: self._who)
        self._relays = Relays(self._as_whom, lambda member: member in self.members)
        self._node_listener: TcpListener | None = None
        self._shard: Shard | None = None
        self.prepare: Callable[[Shard], None] | None = None
        self.be_alone: Callable[[bool], None] | None = None
        self._solitaries = 0  # how many wait for that
        self._membership = lambda: self.leases.membership
        # Of partitions that are coming, or were not taken and come back.
        self._handovers: dict[int, dict[str, Any]] = {}
        self._channels: set[Channel] = set()
        self._sessions: set[Session] = set()  # of other members
        self._placed = anyio.Event()
        self._relaying: anyio.CancelScope | None = None
        self._is_news = False  # whether others live than was told
        self._told: list[int] = []  # who had what when clients were told last

    # What the hub asks.

    async def open(self) -> None:
        """Open the store, and be a member."""
        count = self._partitions
        if count is None:
            count = await self._shared.count_partitions() or PARTITIONS
        await self._open_store(count)
        await self._listen()
        self._node_listener = listener = await listen_node(self._node.listens_at)
        self.address = self._node.dialled_at(listener.host, listener.port)
        self.router = Router(count, -2, waiter_factory(), self._dial, self._relays.dial)
        self.router.owners[:] = [-1] * count
        self.owners = self.router.owners
        self._shard = shard = Shard(
            -2,
            self.router,
            lookup=self._lookup,
            settings=self._settings,
            clock=self._clock,
            store_of=self._stored,
            release=_keep,
            on_fatal=self._stop_for,
            watch=self._watch,
        )
        shard.tenure = self.leases
        shard.on_lost = self.leases.lost
        shard.pump.on_interrupt = shard.keeper.on_interrupt = lambda: self.on_interrupt()
        if self.prepare is not None:
            self.prepare(shard)
        shard.start()
        try:
            await self.leases.join()
        except StoreInUseError:
            # The hub closes no store that it was refused; but this one is open, and of nobody else.
            with anyio.CancelScope(shield=True):
                await self.close()
            raise

    @property
    def local_shard(self) -> Shard:
        """The shard of this member."""
        assert self._shard is not None
        return self._shard

    def _stored(self, number: int) -> PartitionStore:
        """Give the durable half of a partition, as this member has it, or where it has moved."""
        if self._migration is None:
            return self.leases.membership.partitions[number]
        return self._migration.store.partition(number)

    async def run(self) -> None:
        """Serve what this member has, and whoever connects."""
        shard, listener = self.local_shard, self._node_listener
        assert listener is not None
        key = self._who.key if self._who is not None else b""
        async with TaskGroup() as tasks:
            self._tasks = tasks
            tasks.start_soon(shard.run)
            who = lambda: self._who  # noqa: E731
            tasks.start_soon(serve_nodes, listener, key, who, self._answer_node, self.keeper)
            if self._socket is not None:
                place = await listen(shard_socket(self._socket, 0))
                tasks.start_soon(serve, place, self._answer_client, self.keeper)
            tasks.start_soon(self._serve_clients)
            tasks.start_soon(self._relay)
            tasks.start_soon(self.leases.run)
            self._begin_migration()

    async def _relay(self) -> None:
        with anyio.CancelScope() as self._relaying:
            await self._relays.run(self._answer_node, self.keeper)

    async def ready(self) -> None:
        """Return when all partitions are served, by whomever, or nobody is known to do so soon."""
        await self._wait_until_settled()
        missing = [number for number, owner in enumerate(self.owners) if owner < 0]
        if missing:
            _log.warning("nobody serves partitions %s yet: requests wait", missing)
        self._is_ready = True
        self._begin_migration()

    async def _wait_until_settled(self) -> None:
        with anyio.move_on_after(self.leases.membership.ttl_s + _READY_S):
            while not self._is_settled():
                await self._placed.wait()

    def _is_settled(self) -> bool:
        return (
            self.leases.view is not None
            and not self.leases.is_busy
            and all(owner >= 0 for owner in self.owners)
        )

    @property
    def in_service(self) -> list[int]:
        """The members that live."""
        return sorted(self.members)

    @property
    def own_shards(self) -> list[int]:
        """The member that this process is, while it lives."""
        return [member for member in self.in_service if member == self.leases.number]

    @property
    def leads(self) -> bool:
        """Whether what one member does for all is this one's to do."""
        return bool(self.members) and self.leases.number == min(self.members)

    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of a member.

        Raises:
            LineLostError: it cannot be reached now.
        """
        if shard == self.leases.number:
            if verb == "count":
                return await self._count(*arguments)
            return await self.local_shard.handlers[verb](*arguments)
        line = self.router.line(shard)
        if not line.is_up:
            raise LineLostError(False)
        return await line.call(verb, *arguments)

    async def _count(self, hottest: int = 0) -> dict[str, Any]:
        """Give what this member has counted."""
        from ..statistics import MembershipStatistics  # which a hub that nobody asks never needs

        counted = await self.local_shard.count(hottest)
        membership = MembershipStatistics(
            members=len(self.members),
            unserved=sum(owner < 0 for owner in self.owners),
            beat_age_s=self.leases.beat_age_s,
            lost=self.leases.lost_count,
            takeovers=self.leases.takeovers.read(),
            relayed=self._relays.sent_count,
            waits=self.leases.membership.waits,
        )
        counted["shard"]["membership"] = asdict(membership)
        return counted

    def check_move(self, partition: int, to: int) -> tuple[int, int]:
        """Give the numbers of a partition and of a member that may have it.

        Raises:
            UsageError: there is none such.
        """
        partition = whole(partition, "partition", most=len(self.owners) - 1)
        to = whole(to, "to")
        if to not in self.members:
            raise UsageError(
                f"to: there is no member {to} now; there are {', '.join(map(str, self.in_service))}"
            )
        return partition, to

    async def move(self, partition: int, to: int) -> None:
        """Have a partition served by another member."""
        partition, to = self.check_move(partition, to)
        deadline = anyio.current_time() + MOVES_S
        while self.owners[partition] != to:
            if to not in self.members:
                raise UnavailableError(
                    f"partition {partition} has not moved to member {to}, which has left meanwhile"
                )
            # A wish is gone once somebody has taken the partition, whoever that was.
            if self._wanted(partition) != to:
                await self.leases.membership.wish(partition, to)
                self.leases.look_soon()
            left = deadline - anyio.current_time()
            if left <= 0:
                raise UnavailableError(
                    f"partition {partition} has not moved to member {to} in {MOVES_S:g} seconds: "
                    "it may still do so"
                )
            with anyio.move_on_after(min(left, _WISH_S)):
                await self._placed.wait()

    def _wanted(self, partition: int) -> int | None:
        """Give for whom a partition is, as it was seen last."""
        view = self.leases.view
        leases = () if view is None else view.leases
        return next((one.wanted for one in leases if one.partition == partition), None)

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub, as the store has them now."""
        if self.leases.is_over_for_good:
            return await super().nodes()
        from ..client.nodes import read_view  # which hardly a member is asked for

        return read_view(await self.leases.membership.look(closely=True), self.leases.number)

    async def drain_node(self, member: int, draining: bool) -> None:
        """Have a member let its partitions go, or take some again.

        Raises:
            UsageError: there is none such.
        """
        if self.leases.is_over_for_good:
            await super().drain_node(member, draining)
        if not await self.leases.membership.drain(member, draining):
            raise UsageError(
                f"member: there is no member {member} now; there are "
                f"{', '.join(map(str, self.in_service))}"
            )
        self.leases.look_soon()

    def stop_starting(self) -> None:
        """Start no more activities here."""
        if self._shard is not None:
            self._shard.activities.stop_starting()

    async def drain(self) -> None:
        """Have others serve what is here; what nobody takes comes to a durable stop."""
        shard = self.local_shard
        self.stop_starting()
        by = anyio.current_time() + self._settings.drain_s
        with anyio.CancelScope(deadline=by):
            await self.leases.let_all_go(self._settings.drain_s)
        if not await shard.drain(by):
            # What hangs there, as behind a lock that somebody holds, might do so for ever.
            self.leases.break_off()
        with anyio.CancelScope(deadline=by):
            while shard.replies:  # noqa: ASYNC110 - once in the life of a member
                await anyio.sleep(0.005)
        if not shard.hosted:
            # What others ask from now on, as they have not seen yet where all went, they ask there.
            for session in list(self._sessions):
                session.end()
        with anyio.move_on_after(_FLUSH_S):
            for channel in list(self._channels):
                await channel.sent()
            for line in list(self.router.lines.values()):
                await line.sent()

    def stop(self) -> None:
        """Stop what has not come to a stop by itself."""
        self.leases.end()
        if self._shard is not None:
            self._shard.halt()
            self.router.close()

    async def close(self) -> None:
        """Leave the hub to the others, and give the store up."""
        if self._shard is not None:
            self._shard.close()
            self.left = self._shard.left
            self._shard = None
        self.leases.end()
        await self.leases.leave()
        self.hang_up()
        await self._stop_listening()
        await self._close_store()

    def hang_up(self) -> None:
        """Have no other member reach this one any more."""
        if self._node_listener is not None:
            self._node_listener.close()
        for channel in self._channels:
            channel.close()

    async def migrate(self, target: str) -> None:
        """See ``Crew.migrate``; it waits a while until all partitions are served here."""
        here = host_name()
        is_near = all(row.host == here for row in self.members.values())
        if self.be_alone is None or self._migration is not None or not is_near:
            await self._migrate(target)
            return
        from ...storage.migrating import check_way  # with all that reaches a database

        check_way(self._store, target)
        self._solitaries += 1
        self.be_alone(True)
        try:
            await self._migrate(target, self._settings.drain_s + ENDED_S)
        finally:
            self._solitaries -= 1
            # Who asked beside one that goes on, or has begun, takes nothing from that one.
            if not self._solitaries and self._migration is None:
                self.be_alone(False)

    async def _migrate(self, target: str, leaving_s: float = 0.0) -> None:
        """Do so, where others may take a while to leave."""
        by = anyio.current_time() + leaving_s + _READY_S
        while True:
            await self._wait_until_alone(by, leaving_s > 0)
            try:
                return await super().migrate(target)
            except StoreInUseError:
                await self._look_anew()
                if len(self.members) == 1 or anyio.current_time() > by:
                    raise
                # One had joined meanwhile, and leaves as the others did.

    async def _look_anew(self) -> None:
        """Know of who has just joined, if the store says so in time."""
        with anyio.move_on_after(self.leases.membership.ttl_s):
            await self.leases.look_anew()

    async def _wait_until_alone(self, by: float, others_leave: bool) -> None:
        """Return when all is served here, by nobody else where others leave, or some do not leave."""
        await self._look_anew()
        await self._wait_until_settled()
        # Those of a member that has just died may still be said to be its: it refuses a connection.
        by = max(by, anyio.current_time() + _AWAITED_S)
        with anyio.CancelScope(deadline=by + self.leases.membership.ttl_s):
            while any(owner != self.leases.number for owner in self.owners) or (
                others_leave and len(self.members) > 1
            ):
                if anyio.current_time() > by and len({*self.members} - self.refused) > 1:
                    break  # others live, which is told
                await self._placed.wait()

    # What a migration asks.

    async def reopen(
        self, partition: int, change: Callable[[], Awaitable[PartitionStore]]
    ) -> float:
        """See ``MovingCrew.reopen``."""
        await self._wait_for_moves(partition)
        try:
            shard = self.local_shard
            with self.leases.kept(partition):
                began = anyio.current_time()
                handover = await shard.let_go(partition, shard.number)
                try:
                    await change()
                except Exception as error:
                    # Which store has it is asked again by the next start, and by nobody before.
                    self._stop_for(
                        InternalError(f"partition {partition} is lost: {text_of(error)}")
                    )
                    raise
                try:
                    await shard.host(partition, handover)
                except PerdureError as error:
                    _log.error("partition %d waits for its store: %s", partition, error)
                    self._keep_handover(partition, handover)
                return anyio.current_time() - began
        finally:
            self._moving.release()

    async def all_moved(self) -> None:
        """Be a member no more: the folder, which this process owns, keeps others out by itself."""
        if self.leases.is_busy or len(self.hosted) < len(self.owners):
            raise UnavailableError("some partitions wait for their store")
        if self._relaying is not None:
            self._relaying.cancel()
        await self.leases.rest()
        assert self._migration is not None
        await self._migration.store.finish()

    # What leases ask.

    @property
    def awaits(self) -> bool:
        """Whether partitions come that bring something along."""
        soon = anyio.current_time() - _AWAITED_S
        return any(
            one["at"] > soon and one["shard"] != self.leases.number
            for one in self._handovers.values()
        )

    @property
    def hosted(self) -> Mapping[int, object]:
        """The partitions that are served here."""
        return self.local_shard.hosted_or_away

    def newcomer(self) -> Newcomer:
        """Say who joins."""
        return Newcomer(
            address=self.address,
            host=host_name(),
            pid=os.getpid(),
            software=software(),
            app=self._app.name or "",
            app_hash=hash_of(self._lookup.registry),
            http=self._node.http,
            weight=self._node.weight,
            ttl_s=self._settings.lease_s,
        )

    def begin(self, membership: Membership) -> None:
        """Be a member from now on, that has nothing yet."""
        number = membership.number
        key = membership.secret if self._key is None else self._key
        self._who = Credentials(membership.hub, number, key)
        self.router.renumber(number)
        self.local_shard.renumber(number)
        self._handovers.clear()

    def drop(self, partition: int, error: Exception) -> None:
        """Give a partition up that others may have."""
        self.local_shard.drop(partition, error)

    def see(self, view: View, alive: Mapping[int, MemberRow]) -> None:
        """Take note of who has what, and who is gone."""
        if self.router.is_closed:
            return
        me = self.leases.number
        gone = [member for member in self.members if member not in alive]
        self._warn_of_others(alive)
        if self.members.keys() != alive.keys():
            self._is_news = True
        self.members = dict(alive)
        self.count = len(alive)
        self.refused &= alive.keys()
        owners = [-1] * len(self.owners)
        for lease in view.leases:
            if lease.owner is not None and lease.owner in alive:
                owners[lease.partition] = lease.owner
        self.router.place(owners)
        self._tell_changes()
        for member in gone:
            self.router.forget(member)
            if member != me and self._tasks is not None:
                self._tasks.start_soon(self._bury, member)
        for member in alive:
            if member != me:
                self.router.line(member)
        self._refuse_handovers()
        placed, self._placed = self._placed, anyio.Event()
        placed.set()

    def _tell_changes(self) -> None:
        """Have clients know who lives and who has what, if that is something else than they know."""
        if self._is_news or self._told != self.owners:
            self._is_news, self._told = False, list(self.owners)
            self._version += 1
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    def _warn_of_others(self, alive: Mapping[int, MemberRow]) -> None:
        own = alive.get(self.leases.number)
        if own is None:
            return
        for member, row in alive.items():
            if member not in self.members and row.app_hash != own.app_hash:
                _log.warning(
                    "member %d at %s runs another version of the application", member, row.address
                )

    async def host(self, partition: int, epoch: int | None) -> None:
        """Bring a partition back from its store, and serve it."""
        shard = self.local_shard
        handover = self._handovers.pop(partition, None)
        # Only what was said of the very state that is taken over now: all else is from before.
        if handover is not None and epoch not in (None, handover["epoch"]):
            self._refuse(partition, handover)
            handover = None
        try:
            await shard.host(partition, handover)
        except BaseException:
            if handover is not None:
                self._handovers.setdefault(partition, handover)
            raise
        self._tell_changes()  # no look sees what is taken here as a change
        if handover is not None:
            for member, _ in handover["abroad"]:
                if member not in self.members:
                    await self._bury(member)

    async def hand_over(self, partition: int, to: int) -> None:
        """Stop serving a partition, and have another member know what it brings along."""
        shard = self.local_shard
        await self._tell_heir(to, "load")  # nothing stops for one that stands still
        door = shard.hosted.get(partition)
        handover = await shard.let_go(partition, to)
        assert door is not None
        handover["epoch"] = door.partition.epoch
        try:
            await self._tell_heir(to, "hand_over", partition, handover)
        except UnavailableError:
            # It is this member's still, and comes back with all that waits.
            shard.replies.owe([number for _, number in handover["replies"]], shard.number)
            self._keep_handover(partition, handover)
            raise

    async def _tell_heir(self, to: int, verb: VerbName, *arguments: Any) -> None:
        """Tell a member something about what it is to take.

        Raises:
            UnavailableError: it does not answer, or not in time.
        """
        try:
            with anyio.fail_after(HANDOVER_S):
                await self.router.line(to).call(verb, *arguments)
        except (PerdureError, TimeoutError) as error:
            raise UnavailableError(
                f"member {to} does not hear what it brings along: {text_of(error) or 'no answer'}"
            ) from error

    async def _take_handover(self, partition: int, handover: dict[str, Any]) -> None:
        """Hear what a partition brings along that is coming.

        Raises:
            UnavailableError: it comes to nobody here any more.
        """
        if self.leases.is_leaving:
            raise UnavailableError(f"member {self.leases.number} takes no more partitions: it ends")
        self._keep_handover(partition, handover)

    def _keep_handover(self, partition: int, handover: dict[str, Any]) -> None:
        handover["at"] = anyio.current_time()
        handover["looks"] = self.leases.look_count
        self._handovers[partition] = handover

    def _refuse_handovers(self) -> None:
        """Answer those who wait for what partitions brought along that went elsewhere."""
        for partition, handover in list(self._handovers.items()):
            source, owner = handover["shard"], self.owners[partition]
            if handover["looks"] == self.leases.look_count:
                continue  # it came after this look was sent, which knows nothing of it
            if source not in self.members:
                del self._handovers[partition]
            elif owner not in (-1, source, self.leases.number):
                del self._handovers[partition]
                self._refuse(partition, handover)

    def _refuse(self, partition: int, handover: dict[str, Any]) -> None:
        source, unknown = handover["shard"], _unknown(partition)
        for _, number in handover["replies"]:
            if source == self.leases.number:
                self.local_shard.replies.take(number, unknown)
            else:
                self.router.post_surely(source, ("reply", number, unknown))

    async def _bury(self, member: int) -> None:
        """Do what depended on a member that is gone."""
        try:
            await self.local_shard.died(member)
        except PerdureError as error:
            # What its activities owe is asked for again by whoever opens those partitions next.
            _log.error("what member %d owed is not all done again yet: %s", member, error)
            for partition in self.local_shard.partitions:
                partition.break_down(error)

    # Who connects.

    async def _dial(self, member: int) -> Channel:
        row = self.members.get(member)
        if row is None:
            raise ConnectionError(f"there is no member {member} now")
        try:
            channel = await self._dialler.dial(member, row.address)
        except (ConnectionRefusedError, NotThatMemberError):
            if member not in self.refused:
                self.refused.add(member)
                self.leases.look_soon()
            raise
        self.refused.discard(member)
        return channel

    def _as_whom(self) -> Membership | None:
        return self.leases.membership

    async def _answer_node(self, channel: Channel, member: int | None) -> None:
        """Answer another member, or a client that has the key."""
        shard = self.local_shard
        self._channels.add(channel)
        session: Session | None = None
        try:
            if member is None:
                handlers: Handlers = {**self.handlers, "where": self._where_members}
                session = Session(channel, shard, handlers, trusted=False, relays=True)
            else:
                own = shard.handlers
                asked: Handlers = {
                    "count": self._count,
                    "load": own["load"],
                    "hand_over": self._take_handover,
                }
                session = Session(channel, shard, asked, trusted=True)
                self._sessions.add(session)
            await session.run()
        finally:
            if session is not None:
                self._sessions.discard(session)
            self._channels.discard(channel)

    async def _answer_client(self, channel: SocketChannel) -> None:
        """Answer a client of this host, for all members."""
        if await channel.is_greeted(self.run_id, self.secret, 0) is not None:
            await Session(channel, self.local_shard, {}, trusted=False, relays=True).run()

    def _shard_sockets(self, hub: Path) -> list[Path]:
        return [shard_socket(hub, 0)]

    async def _where_members(self, version: int, run: str = "") -> dict[str, Any]:
        """Say which member has what, to a client that reaches all of them."""
        while version == self._version and run == self.run_id:
            await self._changed.wait()
        return {
            "version": self._version,
            "owners": list(self.owners),
            "addresses": {str(row.member): row.address for row in self.members.values()},
            "run": self.run_id,
        }

    async def _where(self, version: int, run: str = "") -> dict[str, Any]:
        """Say that everything is here: clients ask this member, which passes on what is not."""
        return await self._where_this_is(version, run)


async def _keep(store: PartitionStore) -> None:
    """Leave the durable half of a partition as it is: it is the membership's."""


def _unknown(partition: int) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"partition {partition} moved, and the answer did not come after it: the request may have "
        "been applied; repeat it under the same request id"
    )
