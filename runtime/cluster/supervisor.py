"""Worker processes that are members of a hub by themselves, and who keeps them alive.

Invariants:

* The supervisor is no member: it has no partitions, and a member needs nothing of it to serve.
* A worker that dies is started again, as another member; its partitions are taken over by whoever
  is there first.
* Once one has died, those begun from then on note what runs in them, as ``scheduling/deaths.py``
  says; those that run already are none the wiser until they die of the same.
* A worker whose supervisor is gone leaves the hub in order, and ends.
* A worker that brings the hub to a folder, which has one owner, is the only one from then on: the
  others have left, and are not begun; one that dies is begun again, and goes on with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import orjson
from anyio.abc import Process
from attrs import asdict

from ...actors.errors import (
    InternalError,
    PerdureError,
    StorageError,
    StoreMovedError,
    UnavailableError,
    UsageError,
)
from ...actors.logs import Log
from ...storage.membership import LeaseRow, MemberRow, View
from ..client.applications import place_of
from ..facts import read_fact
from ..migrations import MigrationStatus
from ..partitions.guarded_store import close_guarded, open_guarded
from ..placement.places import LineLostError
from ..scheduling.deaths import Deaths
from ..scheduling.forks import no_copies
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.loop_kinds import running_kind
from ..scheduling.waiter import waiter_factory
from ..shards.sessions import Session
from ..transport.channels import SocketChannel, listen, serve
from ..transport.errors import read_error
from ..transport.greeting import Credentials
from ..transport.nodes import Dialler
from ..transport.router import Router
from ..transport.sockets import shard_socket
from ..transport.tcp import join_address, split_address
from .children import begin_child, ended_early
from .crews import ENDED_S, Crew
from .leases import LOOK_S
from .nodes import PARTITIONS, Node, host_name
from .processes import BACKOFF_S, FAILED_STARTS_MAX, Worker, absolute_entry, how_ended

if TYPE_CHECKING:
    from ...actors.registry.app import App
    from ...actors.values import RuntimeStatus
    from ...storage.membership import ClusterStore
    from ..nodes import HubNodes
    from ..settings import Settings
    from ..shards.shard import Shard
    from ..transport.channels import Channel
    from ..transport.verbs import ShardVerb
    from .balancer import Rebalance

_log = Log("perdure.workers")

_BACKOFF_MAX_S = 5.0
#: Seconds beyond a lease in which all partitions are served when the hub starts.
_READY_S = 2.0
#: Seconds after the end of a worker in which what it said is read.
_HEARD_S = 1.0


class MemberSupervisor(Crew):
    """Starts worker processes, each a member, and again where they die; answers clients.

    Attributes:
        workers: one for each process, over all that it has been.
        members: all of the hub's that live, by number, as they were seen last.
    """

    def __init__(
        self,
        workers: int,
        app: App | str,
        store: ClusterStore,
        partitions: int | None,
        *,
        node: Node,
        settings: Settings,
        socket: Path | None,
        stop_for: Callable[[Exception], None],
        observer: str | None,
        rebalance: Rebalance | None,
        retention: Mapping[RuntimeStatus, int],
    ) -> None:
        super().__init__(1, 1, None if socket is None else socket.absolute(), store)
        self._app = place_of(app)
        self._store = store
        self._partitions = partitions
        self._node = node
        self._key = node.check()
        self._settings = settings
        self._stop_for = stop_for
        self._observer = observer
        self._rebalance = None if rebalance is None else asdict(rebalance)
        self._retention = {status.value: age / 1e6 for status, age in retention.items()}
        self.workers = [Worker(number) for number in range(workers)]
        self.members: dict[int, MemberRow] = {}
        self._me: Credentials | None = None
        self._dialler = Dialler(lambda: self._me)
        self._placed = anyio.Event()
        self._look_now = anyio.Event()
        self._deaths = Deaths(settings.crashes_max)
        self._alone: Worker | None = None  # who brings the hub to a folder
        self._alone_changed = anyio.Event()
        self._pids: set[int] = set()  # of all processes that workers have been
        self._alone_at: MemberRow | None = None  # as it was seen last, or says that it is
        self._migrates: MigrationStatus | None = None  # as that one said last
        self._is_stopping = False
        self._end_by = 0.0
        self._cwd = os.getcwd()
        self._search = [absolute_entry(entry) for entry in sys.path]

    async def open(self) -> None:
        """Make the store, if it is new, and begin to listen."""
        count = self._partitions
        if count is None:
            count = await self._store.count_partitions() or PARTITIONS
        try:
            await open_guarded(self._store, count)
        except StoreMovedError:
            from ...storage.migrating import opened_beside  # with all that reaches a database

            if not await opened_beside(self._store, count):
                raise
            self._alone = self.workers[0]
        await self._listen()
        self.router = Router(count, None, waiter_factory(), self._dial)
        self.router.owners[:] = [-1] * count
        self.owners = self.router.owners

    async def _dial(self, member: int) -> Channel:
        row = self.members.get(member)
        if row is None:
            raise ConnectionError(f"there is no member {member} now")
        return await self._dialler.dial(member, row.address)

    async def run(self) -> None:
        """Keep the workers alive, and answer whoever connects to the hub."""
        with no_copies():
            async with TaskGroup() as tasks:
                self.router.start(tasks)
                for worker in self.workers:
                    name = f"the supervision of worker {worker.number}"
                    tasks.start_soon(self.keeper.persist, name, partial(self._supervise, worker))
                tasks.start_soon(self.keeper.persist, "the looks for members", self._look_on)
                tasks.start_soon(self._serve_clients)
                if self._socket is not None:
                    place = await listen(shard_socket(self._socket, 0))
                    tasks.start_soon(serve, place, self._answer_client, self.keeper)

    async def ready(self) -> None:
        """Return when all workers are members, and all partitions are served.

        Raises:
            UsageError: they cannot import the application.
            StorageError: they cannot have the store.
            InternalError: they end before they serve.
        """
        for worker in self.workers if self._alone is None else [self._alone]:
            await worker.decided.wait()
            if not worker.has_served and worker.error is not None:
                raise worker.error
        with anyio.move_on_after(self._settings.lease_s + _READY_S):
            while not all(owner >= 0 for owner in self.owners):
                await self._placed.wait()

    @property
    def in_service(self) -> list[int]:
        """The members that live."""
        return sorted(self.members)

    @property
    def leads(self) -> bool:
        """Whether what is done once for a hub is to be done here: a member does it."""
        return False

    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Refuse: who is no member may not ask one what only members may."""
        raise UsageError(f"{verb} is asked of members by members")

    async def _of_any(self, verb: Any, *arguments: Any) -> Any:
        """Ask a member for the whole hub."""
        lost: PerdureError = UnavailableError("no member of the hub can be reached now; repeat it")
        for member in self.in_service:
            line = self.router.line(member)
            if line.is_up:
                try:
                    return await line.call(verb, *arguments)
                except LineLostError as error:
                    lost = error
        raise lost

    async def _statistics(self, hottest: int) -> list[dict[str, Any]]:
        counted: list[dict[str, Any]] = await self._of_any("statistics", hottest)
        return counted

    @property
    def own_shards(self) -> list[int]:
        """The members that are its workers."""
        rows = self.members.values()
        return [
            row.member for row in rows if any(self._is_of(worker, row) for worker in self.workers)
        ]

    def _has_left(self, alive: dict[int, MemberRow]) -> bool:
        """Whether a worker serves the hub from a folder by now: it is no member any more."""
        if self._alone is None or not self._alone.serves:
            return False
        own = [row for row in alive.values() if self._is_of(self._alone, row)]
        self._alone_at = own[0] if own else self._alone_at
        return not own and self._alone_at is not None

    def _is_of(self, worker: Worker, row: MemberRow) -> bool:
        """Whether a member is the process of a worker."""
        process = worker.process
        return process is not None and (row.host, row.pid) == (host_name(), process.pid)

    async def _own_statistics(self, hottest: int) -> list[dict[str, Any]]:
        own = {*self.own_shards}
        found = [
            count
            for count in await self._statistics(hottest)
            if count.get("shard", count.get("silent", {})).get("index") in own
        ]
        restarted = {"restarted": self.keeper.restarts, "migration": await self._tell_migration()}
        return [*found, restarted]

    async def migrate(self, target: str) -> None:
        """See ``Crew.migrate``: one worker does so, and the others end."""
        await self._of_any("migrate", target)
        await self._ask_how_far()

    def migration(self) -> MigrationStatus | None:
        """See ``Crew.migration``."""
        return self._migrates

    async def _ask_how_far(self) -> None:
        """Ask the worker that brings the hub to a folder how far it is."""
        with suppress(PerdureError):  # it may just be begun again
            told = await self._of_any("migration")
            self._migrates = None if told is None else read_fact(MigrationStatus, told)

    def check_move(self, partition: int, to: int) -> tuple[int, int]:
        """Give the numbers back: the member that is asked checks them."""
        return partition, to

    async def move(self, partition: int, to: int) -> None:
        """Have a partition served by another member."""
        await self._of_any("move", partition, to)
        while self.owners[partition] != to and to in self.members:
            self._look_now.set()
            await self._placed.wait()

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub, as the store has them now; this is none."""
        from ..client.nodes import read_view  # which hardly a hub is asked for

        view = await self._store.view()
        if self._has_left(_alive(view)):
            return await super().nodes()
        return read_view(view, None)

    async def drain_node(self, member: int, draining: bool) -> None:
        """Have a member let its partitions go, or take some again.

        Raises:
            UsageError: there is none such.
        """
        what = "drain_node" if draining else "undrain_node"
        await self._of_any("ask", what, {"member": member})

    # Where everything is.

    async def _look_on(self) -> None:
        while True:
            try:
                view = await self._store.view()
                if self._me is None:
                    found = await self._store.identify()
                    if found is not None:
                        key = found.secret if self._key is None else self._key
                        self._me = Credentials(found.hub, None, key)
            except PerdureError as error:
                _log.warning("the members of the hub are not known: %s", error)
            else:
                self._see(view)
            if self._alone is not None:
                await self._ask_how_far()
            self._look_now = anyio.Event()
            with anyio.move_on_after(LOOK_S if all(n >= 0 for n in self.owners) else LOOK_S / 10):
                await self._look_now.wait()

    def _see(self, view: View) -> None:
        if self.router.is_closed:
            return
        alive = _alive(view)
        if self._has_left(alive):
            assert self._alone_at is not None
            alive = {self._alone_at.member: self._alone_at}
            all_its = [LeaseRow(n, 0, self._alone_at.member, None) for n in range(len(self.owners))]
            view = View([], all_its)
        gone = [member for member in self.members if member not in alive]
        self.members = alive
        self.count = len(alive)
        owners = [-1] * len(self.owners)
        for lease in view.leases:
            if lease.owner is not None and lease.owner in alive:
                owners[lease.partition] = lease.owner
        self.router.place(owners)
        for member in gone:
            self.router.forget(member)
        for member in alive:
            self.router.line(member)
        placed, self._placed = self._placed, anyio.Event()
        placed.set()

    # The processes.

    async def _supervise(self, worker: Worker) -> None:
        """Run a worker, and run it again when it dies, until the hub stops."""
        while not self._ends():
            while self._alone not in (None, worker):
                await self._alone_changed.wait()
            has_run = False
            try:
                process, ready = await self._begin(worker)
            except OSError as error:
                _log.error("worker %d cannot be started: %s", worker.number, error)
                worker.error = InternalError(f"worker {worker.number} cannot be started: {error}")
            else:
                async with TaskGroup() as tasks:
                    tasks.start_soon(self._hear, worker, ready)
                    if self._alone not in (None, worker):
                        tasks.start_soon(self._end_soon, worker)  # it was on its way meanwhile
                    await process.wait()
                    # What it said last is still to be read. A child of its may have the other end.
                    tasks.cancel_scope.deadline = anyio.current_time() + _HEARD_S
                if self._ends():
                    return
                if self._alone not in (None, worker):
                    worker.serves = False
                    continue
                if self._alone is worker and isinstance(worker.error, StoreMovedError):
                    self._stop_for(worker.error)  # all of the hub is elsewhere
                    return
                _log.error(
                    "worker %d (pid %d) ended: %s", worker.number, process.pid, how_ended(process)
                )
                self._look_now.set()
                has_run = worker.note_death(self._deaths, process.returncode)
                if not worker.serves and worker.error is None:
                    worker.error = ended_early(worker.number, how_ended(process))
            # One whose work ends it has started.
            worker.failed_starts = 0 if worker.serves or has_run else worker.failed_starts + 1
            worker.serves = False
            if not worker.has_served and worker.failed_starts >= FAILED_STARTS_MAX:
                worker.decided.set()
                return
            wait = BACKOFF_S * 2.0 ** min(worker.failed_starts, 10)
            await anyio.sleep(min(wait, _BACKOFF_MAX_S))

    async def _begin(self, worker: Worker) -> tuple[Process, int]:
        with anyio.CancelScope(shield=True):  # a process that nobody knows is never ended
            return await self._spawn(worker)
        raise AssertionError("a scope that nobody cancels swallows nothing")

    async def _spawn(self, worker: Worker) -> tuple[Process, int]:
        """Start a process; gives it, and what is read of it once it serves or cannot."""
        backend, uvloop = running_kind()
        ready, told = os.pipe()
        config = {
            "app": self._app,
            "observer": self._observer,
            # With its password, if it has one: the file with the configuration has no name.
            "store": self._store.spec,
            "partitions": len(self.owners),
            "listen": _beside(self._node.listen, worker.number),
            "address": _beside(self._node.address, worker.number),
            "key": None if self._key is None else self._key.hex(),
            "http": self._node.http,
            "rebalance": self._rebalance,
            "retention": self._retention or None,
            "settings": asdict(self._settings),
            "backend": backend,
            "uvloop": uvloop,
            "path": self._search,
            "ready": told,
        }
        notes = worker.begin_notes(self._deaths, config)
        try:
            worker.process = process = await begin_child(
                "perdure.runtime.member", config, self._cwd, [told, *notes]
            )
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(told)
        self._pids.add(process.pid)
        return process, ready

    async def _hear(self, worker: Worker, ready: int) -> None:
        """Hear whether a worker serves, or why it cannot, and what else it says until it ends."""
        os.set_blocking(ready, False)
        said = b""
        try:
            while True:
                await anyio.wait_readable(ready)
                some = os.read(ready, 65_536)
                if not some:
                    return
                *lines, said = (said + some).split(b"\n")
                for line in lines:
                    await self._take_word(worker, orjson.loads(line))
        finally:
            os.close(ready)

    async def _take_word(self, worker: Worker, told: dict[str, Any]) -> None:
        if "alone" in told:
            await self._leave_alone(worker, told["alone"])
        elif "member" in told:
            worker.serves = worker.has_served = True
            worker.error = None
            worker.decided.set()
            if worker is self._alone:
                self._alone_at = _row_of(worker, told)
            self._look_now.set()
        else:
            worker.error = read_error(told["error"])
            if not worker.has_served and isinstance(worker.error, (UsageError, StorageError)):
                worker.decided.set()  # it would be the same the next time

    async def _leave_alone(self, worker: Worker, is_alone: bool) -> None:
        """Have the other workers leave the hub, for one that can bring it to a folder then, or come."""
        if self._alone not in (None, worker):
            return  # this one is told to end
        self._alone = worker if is_alone else None
        changed, self._alone_changed = self._alone_changed, anyio.Event()
        changed.set()
        if not is_alone:
            return
        with suppress(PerdureError):
            self._see(await self._store.view())
        if any(not self._was_own(row) for row in self.members.values()):
            return  # there are other nodes, and the worker will say so, unless they leave
        async with TaskGroup() as tasks:
            for other in self.workers:
                if other is not worker:
                    tasks.start_soon(self._end_soon, other)

    def _was_own(self, row: MemberRow) -> bool:
        """Whether a member is a worker, or was one that has died and not expired."""
        return row.host == host_name() and row.pid in self._pids

    async def _end_soon(self, worker: Worker) -> None:
        await worker.end(anyio.current_time() + self._settings.drain_s + ENDED_S)

    # The end.

    async def drain(self) -> None:
        """Have all workers leave the hub in order, at the same time."""
        await self._end()

    def stop(self) -> None:
        """Start none any more."""
        self._begin_to_stop()
        self.router.close()

    def kill(self) -> None:
        """End the workers at once."""
        for worker in self.workers:
            worker.kill()

    def _ends(self) -> bool:
        return self._is_stopping

    def _begin_to_stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._end_by = anyio.current_time() + self._settings.drain_s + ENDED_S

    async def _end(self) -> None:
        self._begin_to_stop()
        async with TaskGroup() as tasks:
            for worker in self.workers:
                tasks.start_soon(worker.end, self._end_by)

    async def close(self) -> None:
        """Wait for the workers' end, for a bounded time, and give the store up."""
        await self._end()
        for worker in self.workers:
            worker.close_notes()
        await self._stop_listening()
        await close_guarded(self._store)

    # Who connects.

    async def _answer_client(self, channel: SocketChannel) -> None:
        """Pass on to the members what a client of this host asks of partitions."""
        if await channel.is_greeted(self.run_id, self.secret, 0) is not None:
            passage = cast("Shard", _Passage(self.router, self._settings))
            await Session(channel, passage, {}, trusted=False, relays=True).run()

    def _shard_sockets(self, hub: Path) -> list[Path]:
        return [shard_socket(hub, 0)]

    async def _where(self, version: int, run: str = "") -> dict[str, Any]:
        """Say that everything is here: clients ask this process, which passes it on."""
        return await self._where_this_is(version, run)


class _Passage:
    """What a session sees of a shard that hosts nothing, and passes everything on."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.router = router
        self.settings = settings
        self.hosted: dict[int, Any] = {}


def _row_of(worker: Worker, told: Mapping[str, Any]) -> MemberRow:
    """Give what a worker says that it is, of which the store may have nothing any more."""
    assert worker.process is not None
    return MemberRow(
        member=told["member"],
        address=told["address"],
        host=host_name(),
        pid=worker.process.pid,
        software="",
        app="",
        app_hash="",
        http=None,
        weight=1.0,
        draining=False,
        joined=0,
        beat_age_s=0.0,
        expired=False,
    )


def _alive(view: View) -> dict[int, MemberRow]:
    return {row.member: row for row in view.members if not row.expired}


def _beside(address: str | None, number: int) -> str | None:
    """Give the address of a worker: that many ports behind the first one."""
    if address is None:
        return None
    host, port = split_address(address, "node_listen")
    return join_address(host, port + number if port else 0)
