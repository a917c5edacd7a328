"""Shards that are worker processes, and the supervisor that keeps them alive.

Invariants:

* The supervisor owns the store's folder; the workers open the files of their partitions beside it.
* A partition is opened by one worker at a time: another opens it when the first has given it up,
  or when the operating system says that the first has ended. Its epoch fences out what may linger.
* A worker whose supervisor is gone drains and ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio
from anyio.abc import Process
from attrs import asdict

from ...actors.errors import (
    HubStoppingError,
    InternalError,
    PerdureError,
    StorageError,
    UnavailableError,
    UsageError,
)
from ...actors.logs import Log
from ...storage import SharedStore, split_place
from ..client.applications import place_of
from ..placement.places import LineLostError
from ..scheduling.deaths import Call, Deaths, read_notes
from ..scheduling.forks import no_copies
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.loop_kinds import running_kind
from ..scheduling.waiter import waiter_factory
from ..transport.channels import check_socket, dial_shard
from ..transport.router import Router
from ..transport.sockets import own_socket, shard_socket
from .children import begin_child, ended_early
from .crews import DRAINED_S, ENDED_S
from .moving import MovingCrew

if TYPE_CHECKING:
    from ...actors.registry.app import App
    from ...storage import Store
    from ...storage.migrating import MigratingStore
    from ..settings import Settings
    from ..transport.lines import Line
    from ..transport.verbs import ShardVerb
    from .migration import Moves

_log = Log("perdure.workers")

#: Starts in a row that a worker may fail before its partitions go to the others.
FAILED_STARTS_MAX = 3
#: Seconds before the second start; twice as many before each that follows.
BACKOFF_S = 0.1
_BACKOFF_MAX_S = 5.0
#: Seconds in which the system ends a process that is killed, unless a device holds it.
REAP_S = 1.0


class ProcessCrew(MovingCrew):
    """Worker processes, each an event loop with some of the partitions.

    A worker is supervised in a task of its own: ``supervise`` begins a process, serves with it until
    it ends, and does so again, or gives the worker up.

    Attributes:
        workers: one for each shard, over all the processes that it has been.
        path: the socket where clients find the hub.
        is_stopping: whether the workers are to end, and none is begun any more.
    """

    def __init__(
        self,
        workers: int,
        app: App | str,
        store: Store,
        partitions: int,
        *,
        settings: Settings,
        socket: Path | None,
        stop_for: Callable[[Exception], None],
        observer: str | None = None,
    ) -> None:
        self._app = place_of(app)
        self._observer = observer
        if not isinstance(store, SharedStore):
            raise UsageError(
                "worker processes cannot share this store: give store='sqlite:PATH', or shards "
                "instead of workers"
            )
        self._location = store.location
        if socket is None:
            socket = own_socket(Path(split_place(self._location)[0]))
        self.path = socket.absolute()
        super().__init__(workers, partitions, self.path, store)
        check_socket(shard_socket(self.path, workers - 1))
        self._store = store
        self._settings = settings
        self._stop_for = stop_for
        self.workers = [Worker(number) for number in range(workers)]
        self.is_stopping = False
        self._end_by = 0.0  # when workers that have not ended are killed, once it stops
        self._deaths = Deaths(settings.crashes_max)
        # As they are now: the program may change its folder before a worker is started again.
        self._cwd = os.getcwd()
        self._search = [absolute_entry(entry) for entry in sys.path]

    async def open(self) -> None:
        """Take the store over."""
        self.router = Router(len(self.owners), None, waiter_factory(), self._dial)
        self.router.owners[:] = self.owners
        await self._open_store(len(self.owners))
        await self._listen()

    async def _dial(self, shard: int) -> Any:
        return await dial_shard(shard_socket(self.path, shard), self.run_id, self.secret)

    async def run(self) -> None:
        """Keep the workers alive, and answer whoever connects to the hub."""
        with no_copies():
            await self._run()

    async def _run(self) -> None:
        async with TaskGroup() as tasks:
            self.router.start(tasks)
            for worker in self.workers:
                name = f"the supervision of worker {worker.number}"
                tasks.start_soon(self.keeper.persist, name, partial(self.supervise, worker))
            tasks.start_soon(self._serve_clients)
            self._tasks = tasks
            self._begin_migration()

    async def ready(self) -> None:
        """Return when all workers serve.

        Raises:
            UsageError: they cannot import the application.
            InternalError: they end before they serve.
            StorageError: a partition cannot be opened.
        """
        for worker in self.workers:
            await worker.decided.wait()
            if not worker.has_served and worker.error is not None:
                raise worker.error
        self.announce()
        self._is_ready = True
        self._begin_migration()

    @property
    def in_service(self) -> list[int]:
        """The workers that serve, or will again when they have been restarted."""
        return [worker.number for worker in self.workers if not worker.given_up]

    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of a worker.

        Raises:
            LineLostError: it is dead or died, and nobody knows when it will serve again.
        """
        line = self.router.line(shard)
        if not (self.workers[shard].serves and line.is_up):
            raise LineLostError(False)
        return await line.call(verb, *arguments)

    async def _move(self, partition: int, source: int, to: int) -> None:
        if not self.workers[to].serves:
            raise UnavailableError(
                f"worker {to} does not run: partition {partition} stays where it is"
            )
        await self._tell_moved(to)
        await super()._move(partition, source, to)

    # Of a hub that goes to another store: each worker brings those that it serves.

    def _moves(self, store: MigratingStore) -> Moves:
        return self

    async def _tell_moved(self, shard: int) -> None:
        """Have a worker know where the hub goes, and what is there, before it serves any of that."""
        if self._migration is not None:
            store = self._migration.store
            line = self.router.line(shard)
            await line.call("migrates", store.target, store.token, sorted(store.moved))

    async def follow(self, number: int) -> None:
        """See ``Moves``."""
        await self._wait_for_moves(number)
        try:
            shard = self.owners[number]
            await self._tell_moved(shard)
            await self.ask(shard, "follow", number)
            self.announce()
        finally:
            self._moving.release()

    async def copy(self, number: int, tell: Callable[[int], None]) -> None:
        """See ``Moves``."""
        tell(await self.ask(self.owners[number], "copy", number))

    async def switch(self, number: int) -> float | None:
        """See ``Moves``."""
        assert self._migration is not None
        store = self._migration.store
        began = anyio.current_time()
        await self._wait_for_moves(number)
        try:
            try:
                pause_s: float | None = await self.ask(self.owners[number], "switch", number)
            except PerdureError:
                # Whoever serves it next has to know where it is, and waits for that.
                if not await store.find(number):
                    raise
                pause_s = anyio.current_time() - began
            if pause_s is not None:
                store.moved.add(number)
            self.announce()
            return pause_s
        finally:
            self._moving.release()

    async def supervise(self, worker: Worker) -> None:
        """Run a worker, and run it again when it dies, until the hub stops."""
        while True:
            process = worker.process
            if process is None or process.returncode is not None:
                process = await self.begin_process(worker)
            if process is not None:
                worker.is_up = False
                await self.serve_with(worker, process)
                if self.is_stopping or (worker.decided.is_set() and not worker.has_served):
                    return
                _log.error(
                    "worker %d (pid %d) ended: %s", worker.number, process.pid, how_ended(process)
                )
                with suppress(HubStoppingError):
                    await self._tell_of_death(worker)
            elif worker.decided.is_set() and not worker.has_served:
                return
            if worker.failed_starts >= FAILED_STARTS_MAX:
                await self.give_up(worker)
                return
            if worker.failed_starts:
                wait = BACKOFF_S * 2.0 ** (worker.failed_starts - 1)
                await anyio.sleep(min(wait, _BACKOFF_MAX_S))

    async def begin_process(self, worker: Worker) -> Process | None:
        """Start a process; gives None where the system does not let the hub have one."""
        try:
            with anyio.CancelScope(shield=True):  # a process that nobody knows is never ended
                await self.spawn(worker)
        except OSError as error:
            _log.error("worker %d cannot be started: %s", worker.number, error)
            worker.failed_starts += 1
            if not worker.has_served and worker.failed_starts >= FAILED_STARTS_MAX:
                worker.error = InternalError(f"worker {worker.number} cannot be started: {error}")
                worker.decided.set()
            return None
        return worker.process

    async def spawn(self, worker: Worker) -> None:
        """Make the process of a worker.

        Raises:
            OSError: the system gives none.
        """
        backend, uvloop = running_kind()
        config = {
            "app": self._app,
            "observer": self._observer,
            "store": self._location,
            "partitions": len(self.owners),
            "number": worker.number,
            "socket": str(self.path),
            "run": self.run_id,
            "secret": self.secret,
            "incarnation": self.incarnations[worker.number],
            "settings": asdict(self._settings),
            "backend": backend,
            "uvloop": uvloop,
            "path": self._search,
        }
        passed = worker.begin_notes(self._deaths, config)
        worker.process = await begin_child(
            "perdure.runtime.cluster.worker", config, self._cwd, passed
        )

    async def serve_with(self, worker: Worker, process: Process) -> None:
        """Give a process its partitions, and return when it has ended."""
        async with TaskGroup() as tasks:
            tasks.start_soon(self.introduce, worker)
            await process.wait()
            tasks.cancel_scope.cancel()
        # Its sockets do not say so where a child that it forked has them open.
        self.incarnations[worker.number] += 1
        self.router.line(worker.number).renew()
        ran = worker.note_death(self._deaths, process.returncode)
        if not worker.serves and not ran:
            worker.failed_starts += 1
        worker.serves = False
        # One that was killed while the hub starts is tried again, as later, and so is one whose
        # work ends it; one that ended before it had any would do so again.
        died = (process.returncode or 0) < 0 or worker.is_up
        if not worker.has_served and (
            not died or worker.error is not None or worker.failed_starts >= FAILED_STARTS_MAX
        ):
            refusal = ended_early(worker.number, how_ended(process))
            worker.error = refusal if worker.error is None else worker.error
            worker.decided.set()

    async def introduce(self, worker: Worker) -> None:
        """Reach a worker's process and have it serve the worker's partitions.

        One that cannot is told to end, and ``worker.error`` says why.
        """
        try:
            line = self.router.line(worker.number)
            await self._until_up(line)
            worker.is_up = True
            async with self._moving:
                await self._tell_moved(worker.number)
                for number, owner in enumerate(self.owners):
                    if owner == worker.number:
                        await line.call("host", number)
                if worker.has_served:
                    self.announce()
                worker.serves = worker.has_served = True
        except (LineLostError, HubStoppingError):
            return  # it has ended, or all do, which is seen elsewhere
        except (UsageError, StorageError, InternalError) as error:
            _log.error("worker %d cannot serve: %s", worker.number, error)
            worker.error = error
            if worker.process is not None:
                with suppress(ProcessLookupError):
                    worker.process.terminate()
            return
        worker.failed_starts = 0
        worker.decided.set()

    async def _until_up(self, line: Line) -> None:
        while True:
            try:
                await line.call("govern")
                return
            except LineLostError:
                await anyio.sleep(0.01)  # that was the line to the one before

    async def _tell_of_death(self, worker: Worker) -> None:
        async with self._moving:  # a partition on its way would not hear of it
            for other in self.workers:
                line = self.router.line(other.number)
                if other.serves and line.is_up:
                    line.ask("died", worker.number)  # nobody waits: it may be blocked
        self.announce()

    async def give_up(self, worker: Worker) -> None:
        """Have the others serve what a worker that cannot start did."""
        async with self._moving:
            worker.given_up = True
            others = self.in_service
            if not others:
                self._stop_for(
                    InternalError(
                        f"worker {worker.number} does not start any more, and was the last"
                    )
                )
                return
            _log.critical("worker %d does not start any more: its partitions move", worker.number)
            for index, owner in enumerate(list(self.owners)):
                if owner == worker.number:
                    to = self.owners[index] = others[index % len(others)]
                    try:
                        await self._tell_moved(to)
                        await self.ask(to, "host", index)
                    except (LineLostError, HubStoppingError):
                        continue  # it does so when it runs again
                    except PerdureError as error:
                        self._stop_for(error)
                        return
            self.announce()

    async def drain(self) -> None:
        """Have all workers drain at the same time."""
        self._begin_to_stop()
        async with TaskGroup() as tasks:
            for worker in self.workers:
                if worker.serves:
                    tasks.start_soon(self._drain, worker)

    async def _drain(self, worker: Worker) -> None:
        with (
            anyio.CancelScope(deadline=self._end_by - ENDED_S + DRAINED_S) as scope,
            suppress(PerdureError),
        ):
            await self.ask(worker.number, "drain")
        if scope.cancelled_caught:
            _log.warning("worker %d did not come to a stop in time", worker.number)

    def _begin_to_stop(self) -> None:
        if not self.is_stopping:
            self.is_stopping = True
            self._end_by = anyio.current_time() + self._settings.drain_s + ENDED_S

    def stop(self) -> None:
        """Tell the workers to end."""
        self._begin_to_stop()
        self.router.close()

    def kill(self) -> None:
        """End the workers at once."""
        for worker in self.workers:
            worker.kill()

    async def close(self) -> None:
        """Wait for the workers' end, for a bounded time, and give the store up."""
        self._begin_to_stop()
        async with TaskGroup() as tasks:
            for worker in self.workers:
                tasks.start_soon(worker.end, self._end_by)
        for worker in self.workers:
            worker.close_notes()
        await self._stop_listening()
        await self._close_store()


class Worker:
    """One worker, over all the processes that it has been.

    Attributes:
        process: the last of them.
        serves: whether it has its partitions now.
        has_served: whether it ever had.
        given_up: whether others have its partitions for good.
        failed_starts: how many in a row have failed.
        error: why it does not serve, where it never has.
        decided: whether it has served, or failed, the first time.
        is_up: whether the process has the application, and was reached.
        notes: what runs in it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.serves = False
        self.has_served = False
        self.given_up = False
        self.failed_starts = 0
        self.error: PerdureError | None = None
        self.decided = anyio.Event()
        self.is_up = False
        self.notes: IO[bytes] | None = None
        self._apart = frozenset[Call]()

    def begin_notes(self, deaths: Deaths, config: dict[str, Any]) -> list[int]:
        """Have the next process know what ran at deaths, and note what runs in it.

        Args:
            deaths: those there were.
            config: what the process is given.

        Returns:
            the files that it has to have open, too.
        """
        self.close_notes()
        self._apart = frozenset(deaths.suspects)
        config["suspects"] = [*map(list, self._apart)]
        config["at_fault"] = [*map(list, deaths.at_fault)]
        if not deaths.known:
            return []
        self.notes = notes = tempfile.TemporaryFile()  # noqa: SIM115 - it is read at the end
        config["notes"] = notes.fileno()
        return [notes.fileno()]

    def note_death(self, deaths: Deaths, status: int | None) -> bool:
        """Have the end of its process counted; says whether something is known to have run in it."""
        ran = self.read_notes()
        if status:
            deaths.take(ran, self._apart)
        return bool(ran)

    def read_notes(self) -> list[Call]:
        """Read what ran when it ended, if it took notes."""
        return [] if self.notes is None else read_notes(self.notes.fileno())

    def close_notes(self) -> None:
        """Forget them."""
        if self.notes is not None:
            self.notes.close()
            self.notes = None

    async def end(self, by: float) -> None:
        """Tell the process to end, and wait for it; kill it where it has not by some time."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            await process.stdin.aclose()
        with anyio.CancelScope(deadline=by):
            await process.wait()
            return
        _log.warning("worker %d (pid %d) does not end, and is killed", self.number, process.pid)
        self.kill()
        with anyio.move_on_after(REAP_S):
            await process.wait()
            return
        _log.error("worker %d (pid %d) cannot be killed", self.number, process.pid)

    def kill(self) -> None:
        """End the process at once; a stopped one, too, and one whose loop is held."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


def absolute_entry(entry: str) -> str:
    """Give an entry of the search path, such that it means the same in any folder."""
    # Not all of them are folders: some name a finder.
    return os.path.abspath(entry) if not entry or os.path.exists(entry) else entry


def how_ended(process: Process) -> str:
    """Say in words how a process ended."""
    code = process.returncode
    if code is None:
        return "it runs"
    return f"killed by signal {-code}" if code < 0 else f"status {code}"
