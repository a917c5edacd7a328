"""How the processes that serve one hub together find each other, and share out its partitions.

A process *joins* a store that several may have open: from then on it is a *member*, with a number
that nobody else ever had, until it leaves or its beats stop and it *expires*. A member takes
partitions that are free, or whose owner has expired, and lets them go. All of it is compared and
decided by the store, by the store's own clock.

Invariants:

* The epoch of a partition only grows, and each value belongs to one opening by one member.
* Who has raised the epoch sees all that was ever committed under an older one, and nothing more
  is committed under that.
* That a member has expired says when others may take what it has, and never that it cannot write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

from attrs import field, frozen

from .protocol import PartitionStore, Store

#: The greatest number that a member may have.
MEMBER_MAX: Final = 2**63 - 1


@frozen(kw_only=True)
class Newcomer:
    """What a process says of itself when it joins.

    Attributes:
        address: what other members dial: ``HOST:PORT``.
        host: the host, the same for all processes on it and for no others.
        pid: of the process.
        software: the version of Perdure.
        app: the name of its application.
        app_hash: of the application's definitions; another one is another version of it.
        http: where its HTTP API is, as a URL.
        weight: how much of the hub it takes, beside the others.
        ttl_s: how many seconds after a beat it expires.
    """

    address: str
    host: str
    pid: int
    software: str
    app: str
    app_hash: str
    http: str | None = None
    weight: float = 1.0
    ttl_s: float = 6.0


@frozen
class HubIdentity:
    """Which hub a store has.

    Attributes:
        hub: its id.
        app: the name of its application.
        secret: what only those know who may read the store.
    """

    hub: str
    app: str
    secret: bytes = field(repr=False)


class MemberRow(NamedTuple):
    """A member, as the store has it; times are of the store's clock."""

    member: int
    address: str
    host: str
    pid: int
    software: str
    app: str
    app_hash: str
    http: str | None
    weight: float
    draining: bool  # it lets its partitions go, and takes no others
    joined: int
    beat_age_s: float  # seconds since its last beat
    expired: bool


class LeaseRow(NamedTuple):
    """Who has a partition."""

    partition: int
    epoch: int
    owner: int | None  # a member, which may have expired; None where it is free
    wanted: int | None  # the member that it is to go to
    unapplied: int | None = None  # checkpoints that its tables lack, if that was looked at


class View(NamedTuple):
    """One look at a hub: what was true at one moment."""

    members: list[MemberRow]
    leases: list[LeaseRow]


class Membership(Protocol):
    """One member's own access to the store. It ends with ``leave``, or when the member expires.

    Any method may raise ``StorageError`` where the store cannot be reached. What is asked again
    then does no harm.
    """

    @property
    def number(self) -> int:
        """The member."""
        ...

    @property
    def hub(self) -> str:
        """The id of the hub, the same for all its members and for no other hub."""
        ...

    @property
    def secret(self) -> bytes:
        """What only those know who may read the store: made with the hub, and never shown.

        It is the key between members that were not given another.
        """
        ...

    @property
    def partitions(self) -> Sequence[PartitionStore]:
        """All partitions, as this member has them.

        ``recover`` raises ``LeaseLostError`` where the member is not the owner.
        """
        ...

    @property
    def ttl_s(self) -> float:
        """How many seconds after a beat this member expires, as it said when it joined."""
        ...

    @property
    def losses(self) -> int:
        """How many connections to the store were lost since it joined.

        One was, as a rule, where others may have been told that this process is gone, and where
        the store is another one by now, which may have forgotten what this process knows.
        """
        ...

    @property
    def waits(self) -> int:
        """How often since it joined something waited for a connection to the store.

        It does where all are in use that may wait there for somebody's lock.
        """
        ...

    async def beat(self) -> bool:
        """Stay a member for ``ttl_s`` more; False where it has expired, or was removed."""
        ...

    async def look(self, *, closely: bool = False) -> View:
        """See who is a member, and who has what; ``closely``, how far tables are behind as well."""
        ...

    async def noticed(self) -> None:
        """Return when something has changed that others told of. It is a hint, and may get lost."""
        ...

    async def take(self, partition: int, seen: LeaseRow) -> int | None:
        """Become the owner of a partition that is still as it was seen; gives the new epoch.

        None where somebody was quicker. Nobody commits under an older epoch when this returns.
        """
        ...

    async def let_go(self, partition: int, to: int | None = None) -> bool:
        """Give a partition up, for a certain member if one is named; False if it was not owned.

        Who is cancelled waits no more; what was begun may still be done.
        """
        ...

    async def wish(self, partition: int, to: int | None) -> None:
        """Have the owner of a partition, whoever that is, let it go to a member."""
        ...

    async def drain(self, member: int, draining: bool) -> bool:
        """Have a member let all its partitions go, or take some again; False if none such lives."""
        ...

    async def has_ended(self, member: int) -> bool:
        """Whether the session of a member is known to have ended: a hint that its process is gone.

        So it has where there is no such member any more; of one that never had a session it is
        not known.
        """
        ...

    async def send(self, target: int, items: Sequence[bytes]) -> None:
        """Put items for another member where that one finds them. They may get lost."""
        ...

    async def receive(self) -> list[tuple[int, bytes]]:
        """Take what others have put there for this member: who, and the item; in order for each."""
        ...

    def break_off(self) -> None:
        """Have what waits at the store fail now, as commits; the member can still leave.

        Nobody knows then whether they were done.
        """
        ...

    async def leave(self) -> None:
        """Let all partitions go and be no member any more. Idempotent.

        Who is cancelled waits no more; what was begun goes on for some seconds, or it expires.
        """
        ...


@runtime_checkable
class ClusterStore(Store, Protocol):
    """A store that several processes have open at once, as members of one hub."""

    @property
    def location(self) -> str:
        """What ``open_store`` takes in another process to make a store of the same place.

        There is no password in it.
        """
        ...

    @property
    def spec(self) -> str:
        """What ``open_store`` makes this store of; it may have a password."""
        ...

    async def count_partitions(self) -> int | None:
        """How many partitions the hub there has; None where there is none yet. Before ``open``."""
        ...

    async def join(self, newcomer: Newcomer) -> Membership:
        """Become a member of the hub, once the store is open.

        Raises:
            StoreInUseError: the hub is that of another application.
        """
        ...

    async def identify(self) -> HubIdentity | None:
        """Say which hub is there; None where there is none yet. Before ``open``, too.

        Raises:
            StoreMovedError: it has moved elsewhere, or has not come yet; of one that others serve
                while it moves they know.
        """
        ...

    async def view(self) -> View:
        """See that closely without being one. Before ``open``, too."""
        ...
