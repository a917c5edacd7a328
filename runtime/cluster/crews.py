"""A crew: the shards of one hub together, as the hub's own loop sees them."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketListener

from ...actors.arguments import whole
from ...actors.errors import (
    HubStoppingError,
    PerdureError,
    StorageError,
    UnavailableError,
    UsageError,
)
from ...actors.logs import Log
from ..placement.places import LineLostError
from ..scheduling.hidden_tasks import TaskGroup
from ..scheduling.keeper import Keeper
from ..scheduling.timers import backoff
from ..shards.sessions import Session
from ..transport.channels import check_free, listen, remove_socket, serve
from ..transport.sockets import leave_note, make_room, remove_note, shard_socket

if TYPE_CHECKING:
    from ...storage import Store
    from ..client.client import Client
    from ..migrations import MigrationStatus
    from ..nodes import HubNodes
    from ..shards.shard import Shard
    from ..statistics import HubStatistics
    from ..transport.channels import Channel
    from ..transport.router import Router
    from ..transport.verbs import Handlers, ShardVerb

_log = Log("perdure.placement")


#: Seconds that a shard has for an answer that takes no work.
ANSWER_S = 2.0

#: Seconds after ``drain_s`` by which a stopping shard answers that it has come to a stop, and by
#: which it has ended. What has not is given up, or killed: closing takes 5 seconds more at most.
DRAINED_S = 1.5
ENDED_S = 3.5

#: Seconds that a move waits for those before it.
MOVES_S = 10.0


class SilentShardError(UnavailableError):
    """A shard does not answer: code of users holds its event loop."""

    def __init__(self, shard: int, silent_s: float) -> None:
        super().__init__(shard, silent_s)
        self.shard = shard
        self.silent_s = silent_s

    def __str__(self) -> str:
        return (
            f"shard {self.shard} has not answered for {self.silent_s:.1f} seconds: code that does "
            "not return holds its event loop"
        )


class Crew(ABC):
    """Opens the store, runs the shards, and says which of them serves which partition.

    Attributes:
        count: how many shards there are.
        owners: the shard that serves each partition.
        router: where partitions are, as seen from the hub's loop.
        last_heard: when each shard last answered, by the time of the hub's loop.
        keeper: begins anew what must not end on the hub's loop and is no shard's.
        left: users' code that still runs on the hub's loop after the close.
        client: the hub's own, while it serves.
        payload_max: bytes of the largest value that clients may send.
    """

    router: Router

    def __init__(
        self, count: int, partitions: int, socket: Path | None, store: Store | None = None
    ) -> None:
        self.count = count
        self.owners = [number * count // partitions for number in range(partitions)]
        self._socket = socket
        self._place = store  # by which clients find the socket
        self._moving = anyio.Lock()
        self.last_heard: dict[int, float] = {}
        self._version: int = 1
        # Told to whoever asks where partitions are; a later hub at the same place has another.
        self.run_id = secrets.token_hex(8)
        # Told to workers alone: who knows it may ask what only the hub's own shards may.
        self.secret = secrets.token_hex(16)
        # Which of the processes that it has been each worker is.
        self.incarnations = [0] * count
        self._changed = anyio.Event()
        self._listener: SocketListener | None = None
        self.keeper = Keeper()  # of what runs on the hub's loop, and is no shard's
        self.left: list[str] = []
        self.client: Client | None = None  # while the hub serves
        self.payload_max = 0
        self.on_interrupt: Callable[[], None] = lambda: None  # Ctrl-C met users' code here

    async def _listen(self) -> None:
        """Listen for clients, once all sockets of the hub were found to be free."""
        if self._socket is not None:
            for path in self._shard_sockets(self._socket):
                await check_free(path, of_shard=True)
            make_room(self._socket)
            self._listener = await listen(self._socket, of_shard=False)
            leave_note(self._place, self._socket)
            # Now the place is this hub's, and nobody should meet the shards of an earlier one.
            for path in self._shard_sockets(self._socket):
                await remove_socket(path)

    def _shard_sockets(self, hub: Path) -> list[Path]:
        return [shard_socket(hub, number) for number in range(self.count)]

    async def _stop_listening(self) -> None:
        if self._listener is None or self._socket is None:
            return
        await self._listener.aclose()
        self._listener = None
        remove_note(self._place, self._socket)
        for path in (self._socket, *self._shard_sockets(self._socket)):
            await remove_socket(path)

    async def _serve_clients(self) -> None:
        if self._listener is not None:
            await serve(self._listener, self._answer, self.keeper)

    @abstractmethod
    async def open(self) -> None:
        """Take the store over, and what else may be refused."""

    @abstractmethod
    async def run(self) -> None:
        """Serve, for ever."""

    @abstractmethod
    async def ready(self) -> None:
        """Return when all partitions are served."""

    @abstractmethod
    async def ask(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of a shard."""

    @abstractmethod
    async def drain(self) -> None:
        """Let what is under way come to a durable stop, within a bound."""

    @abstractmethod
    def stop(self) -> None:
        """Stop what has not come to a stop by itself."""

    def kill(self) -> None:
        """End the processes that are shards at once, since this one ends."""
        return

    @abstractmethod
    async def close(self) -> None:
        """Give everything up. Idempotent, also after a failed ``open``."""

    def stop_starting(self) -> None:
        """Start no more activities on the hub's own loop, at once: ``drain`` follows."""
        return

    @property
    def in_service(self) -> Sequence[int]:
        """The shards that serve partitions, or could."""
        return range(self.count)

    @property
    def local_shard(self) -> Shard:
        """The shard that is the hub's own loop."""
        raise UsageError("no shard of this hub is in its own loop")

    @property
    def durability(self) -> str | None:
        """How durable a commit is, in words, where that is another store's by now."""
        return None

    @property
    def leads(self) -> bool:
        """Whether what is done once for a hub is to be done by this process."""
        return True

    def check_move(self, partition: int, to: int) -> tuple[int, int]:
        """Give the numbers of a partition and of a shard that may serve it.

        Raises:
            UsageError: there is none such.
        """
        partition = whole(partition, "partition", most=len(self.owners) - 1)
        return partition, whole(to, "to", most=self.count - 1)

    async def ask_soon(self, shard: int, verb: ShardVerb, *arguments: Any) -> Any:
        """Ask something of a shard that it answers at once, unless code of users holds its loop.

        Raises:
            SilentShardError: it has not answered.
            LineLostError: it is dead or died.
        """
        self.last_heard.setdefault(shard, anyio.current_time())
        with anyio.move_on_after(ANSWER_S):
            answer = await self.ask(shard, verb, *arguments)
            self.last_heard[shard] = anyio.current_time()
            return answer
        raise SilentShardError(shard, anyio.current_time() - self.last_heard[shard])

    @property
    def own_shards(self) -> Sequence[int]:
        """Those in service in this process and its workers: all, unless others serve the hub, too."""
        return self.in_service

    async def statistics(self, hottest: int, *, own: bool = False) -> HubStatistics:
        """Give what all shards have counted, or this process and its workers alone."""
        from ..statistics import read_counts  # which a hub that nobody asks never needs

        counts = self._own_statistics(hottest) if own else self._statistics(hottest)
        return read_counts(await counts)

    async def nodes(self) -> HubNodes:
        """Give the processes that serve the hub: this one alone, with its workers."""
        from ..nodes import HubNodes, NodePartition, NodeStatus  # which hardly a hub is asked for
        from .nodes import host_name, software

        return HubNodes(
            is_cluster=False,
            nodes=(
                NodeStatus(
                    member=0,
                    address=None,
                    host=host_name(),
                    pid=os.getpid(),
                    software=software(),
                    app_hash=None,
                    is_other_version=False,
                    http=None,
                    weight=1.0,
                    is_draining=False,
                    joined=None,
                    beat_age_s=0.0,
                    is_expired=False,
                    is_this=True,
                    partitions=tuple(
                        NodePartition(index=number) for number in range(len(self.owners))
                    ),
                ),
            ),
        )

    async def drain_node(self, member: int, draining: bool) -> None:
        """Have a process let its partitions go to others, or take some again.

        Raises:
            UsageError: there is none such.
        """
        raise UsageError(
            f"member: {member} cannot be drained, since the store of this hub has one owner and so "
            "the hub one node: stop it instead, or have several serve it on postgresql://..."
        )

    async def migrate(self, target: str) -> None:
        """Begin to bring the hub to another store, while it serves.

        Raises:
            UsageError: this hub cannot be.
        """
        raise UsageError("this hub goes nowhere else while it serves")

    def migration(self) -> MigrationStatus | None:
        """Say how far the hub is on its way to another store; None if it goes to none."""
        return None

    async def _tell_migration(self) -> dict[str, Any] | None:
        status = self.migration()
        return None if status is None else status.to_dict()

    async def move(self, partition: int, to: int) -> None:
        """Have a partition served by another shard."""
        self.check_move(partition, to)
        await self._wait_for_moves(partition)
        try:
            source = self.owners[partition]
            if source == to:
                return
            # What cannot answer now is not asked to let go later, when nobody expects it.
            for shard in (source, to):
                await self._check_answers(partition, shard)
            # Whoever is cancelled here must not leave the partition with nobody.
            with anyio.CancelScope(shield=True):
                await self._move(partition, source, to)
        finally:
            self._moving.release()

    async def _wait_for_moves(self, partition: int) -> None:
        with anyio.move_on_after(MOVES_S) as scope:
            await self._moving.acquire()
        if scope.cancelled_caught:
            raise UnavailableError(
                f"partition {partition} has not moved: for {MOVES_S:g} seconds, others have been "
                "moving, or coming to a shard that was started again; repeat it"
            )

    async def _check_answers(self, partition: int, shard: int) -> None:
        try:
            await self.ask_soon(shard, "load")
        except SilentShardError as error:
            raise UnavailableError(f"partition {partition} stays where it is: {error}") from None
        except LineLostError:
            return  # it is dead, and the move says what that means

    async def _move(self, partition: int, source: int, to: int) -> None:
        handover = await self.ask(source, "let_go", partition, to)
        self.owners[partition] = to
        try:
            await self.ask(to, "host", partition, handover)
        except LineLostError:
            _log.warning("shard %d died while partition %d moved to it", to, partition)
        except PerdureError:
            self.owners[partition] = source
            with suppress(UnavailableError):  # then the shard, or all of the hub, begins anew
                await self._bring_back(source, partition, handover)
            raise
        finally:
            self.announce()

    async def _bring_back(self, source: int, partition: int, handover: Any) -> None:
        """Have a partition served where it was, however long its store takes to be well."""
        tries = 0
        while True:
            try:
                await self.ask(source, "host", partition, handover)
                return
            except StorageError as error:
                _log.error("partition %d cannot go back yet: %s", partition, error)
                await anyio.sleep(backoff(tries))
                tries += 1

    def announce(self) -> None:
        """Tell all shards and clients where partitions are."""
        owners = list(self.owners)
        self.router.place(owners, self.incarnations)
        for shard in range(self.count):
            self.router.post(shard, ("placement", owners, list(self.incarnations)))
        self._version += 1
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    # What clients of other processes ask of the hub.

    @property
    def handlers(self) -> Handlers:
        """What may be asked over the hub's socket, by verb."""
        return {
            "where": self._where,
            "statistics": self._statistics,
            "move": self.move,
            "migrate": self.migrate,
            "migration": self._tell_migration,
            "ask": self._ask,
            "look": self._look,
        }

    async def _ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Do an operation for a client that has not the application, with the hub's own client."""
        if self.client is None:
            if operation == "nodes" and not arguments:
                # Whoever wonders why a hub does not serve yet asks this first.
                return (await self.nodes()).to_dict()
            raise _not_serving()
        from ..client.operations import is_large  # here, since hardly a hub is asked

        if is_large(operation):
            raise UsageError(f"{operation} gives much: it is asked for with 'look'")
        return await self.client.ask(operation, arguments)

    async def _look(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Do an operation that may give much; few of a connection are done at a time."""
        if self.client is None:
            raise _not_serving()
        return await self.client.ask(operation, arguments)

    async def _where(self, version: int, run: str = "") -> dict[str, Any]:
        """Give the placement, once it is another than that of a version of this run."""
        while self._version == version and run == self.run_id:
            await self._changed.wait()
        return {
            "version": self._version,
            "owners": list(self.owners),
            "shards": self.count,
            "run": self.run_id,
            "incarnations": list(self.incarnations),
        }

    async def _where_this_is(self, version: int, run: str) -> dict[str, Any]:
        """Say that everything is here, which passes on what is not: that never changes."""
        while version == 1 and run == self.run_id:
            await anyio.sleep_forever()
        return {
            "version": 1,
            "owners": [0] * len(self.owners),
            "shards": 1,
            "run": self.run_id,
            "incarnations": [0],
        }

    async def _statistics(self, hottest: int) -> list[dict[str, Any]]:
        return await self._statistics_of(self.in_service, hottest)

    async def _own_statistics(self, hottest: int) -> list[dict[str, Any]]:
        return await self._statistics_of(self.own_shards, hottest)

    async def _statistics_of(self, shards: Sequence[int], hottest: int) -> list[dict[str, Any]]:
        counts: dict[int, dict[str, Any]] = {}

        async def count(shard: int) -> None:
            try:
                counts[shard] = await self.ask_soon(shard, "count", hottest)
            except SilentShardError as error:
                counts[shard] = {"silent": {"index": shard, "silent_s": error.silent_s}}
            except LineLostError:
                return  # being restarted, it has not counted anything
            except PerdureError as error:
                errors.append(error)

        errors: list[PerdureError] = []
        async with TaskGroup() as tasks:
            for shard in shards:
                tasks.start_soon(count, shard)
        if errors:
            raise errors[0]
        own = {"restarted": self.keeper.restarts, "migration": await self._tell_migration()}
        return [*(count for _, count in sorted(counts.items())), own]

    async def _answer(self, channel: Channel) -> None:
        """Answer a client of another process."""
        session = Session(channel, None, self.handlers, trusted=False, payload_max=self.payload_max)
        await session.run()


def _not_serving() -> HubStoppingError:
    return HubStoppingError("the hub is starting or stopping; repeat it")
