"""Seeded schedules of members that share a hub: its protocol in the store, and no more of a hub.

    for world in run(place, range(100)):
        ...  # one of them is over, and nothing was lost in it

A schedule is a number of steps that its seed says: commits, take-overs, time that passes, locks,
connections that break at any statement, members that are paused or killed. Between two of them all
goes on until everybody waits, one statement at a time and in an order that the seed says as well
(``stepping.py``). What is committed is a text that was never committed before, so it can be told of
everything that somebody reads whether it has to be there.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Final, cast
from urllib.parse import quote

import orjson
import pytest
from attrs import define, field

from perdure.actors.errors import (
    LeaseLostError,
    PerdureError,
    StorageError,
    StoreDamagedError,
)
from perdure.runtime.cluster.leases import Leases
from perdure.runtime.scheduling.keeper import Keeper
from perdure.storage import pieces
from perdure.storage.membership import LeaseRow, MemberRow, Membership, Newcomer, View
from perdure.storage.postgres import PostgresStore, committer, folding, journal, members
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.members import PostgresMembership
from perdure.storage.postgres.place import read_place
from perdure.storage.protocol import PartitionStore
from perdure.storage.records import Checkpoint, ChunkRow, MailRow, Recovered
from perdure.storage.slices import unsliced
from perdure.testing.store_conformance import created, entity, progress
from tests.storage.postgres.stepping import Stage, SteppedLoop, Wire, acting

MEMBERS: Final = (2, 2, 3, 3, 4)
PARTITIONS: Final = (2, 3, 3, 4, 6)
STEPS: Final = (20, 60)
TTL_S: Final = 1.0
#: The loop's time when a schedule begins.
BEGINNING_S: Final = 1_000.0
#: The last messages of a partition, which are kept; a checkpoint deletes one.
MAIL: Final = 3
#: Bytes at which what is committed is large, in place of megabytes.
LARGE: Final = 16 * 1024
#: Statements between two steps, of which there never are so many.
SENDS_MAX: Final = 5_000

STEP_WEIGHTS: Final = {
    "commit": 16.0,
    "pass_time": 2.5,
    "look": 2.0,
    "read": 3.0,
    "look_up": 1.5,
    "fold": 2.0,
    "take": 1.5,
    "wish": 1.0,
    "go_on": 4.0,
    "pause": 1.2,
    "shut": 1.5,
    "open": 1.5,
    "lock": 1.0,
    "unlock": 1.5,
    "cut": 0.8,
    "end_session": 0.5,
    "kill": 0.3,
    "forget": 0.6,
    "refuse": 0.3,
}

LINKS: Final = ("commits", "commits", "takes", "folds", "reads", "leases", "beats")

_FAULTS: Final = """
CREATE TABLE {s}.clock (at timestamptz NOT NULL);
INSERT INTO {s}.clock VALUES ('2030-01-01');
CREATE FUNCTION {s}.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
  AS 'SELECT at FROM {s}.clock';
CREATE FUNCTION {s}.gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::int, NEW.partition);
  RETURN NEW;
END $$;
CREATE TRIGGER when_read BEFORE INSERT ON {s}.journal FOR EACH ROW EXECUTE FUNCTION {s}.gate('1');
CREATE CONSTRAINT TRIGGER when_written AFTER INSERT ON {s}.journal
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.gate('2');
CREATE FUNCTION {s}.warn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE WARNING 'canceling wait for synchronous replication due to user request';
  DELETE FROM {s}.journal WHERE partition = NEW.partition AND sequence = NEW.sequence;
  RETURN NULL;
END $$;
CREATE TRIGGER warn AFTER INSERT ON {s}.journal FOR EACH ROW
  WHEN (current_setting('perdure.warn', true) = 'on') EXECUTE FUNCTION {s}.warn();
"""
"""The server's clock, gates, and a success that comes with a warning and is lost in a failover."""

_BEGIN: Final = """
DELETE FROM {s}.journal; DELETE FROM {s}.instance_row; DELETE FROM {s}.history_row;
DELETE FROM {s}.entity_row; DELETE FROM {s}.mail_row;
UPDATE {s}.partition SET epoch = 0, owner = NULL, wanted = NULL;
UPDATE {s}.folded SET settled = 0, next_id = 1, next_row = 1, epoch = 0;
UPDATE {s}.member SET beat = {s}.clock_timestamp(), draining = false,
  expires = {s}.clock_timestamp() + interval '1 s';
"""

_GAPS: Final = """
SELECT partition, 'a gap before ' || sequence FROM (SELECT partition, sequence,
  lag(sequence) OVER (PARTITION BY partition ORDER BY sequence) AS before FROM {s}.journal) AS j
WHERE sequence <> before + 1
UNION ALL
SELECT partition, 'an older epoch at ' || sequence FROM (SELECT partition, sequence, epoch,
  lag(epoch) OVER (PARTITION BY partition ORDER BY sequence) AS before FROM {s}.journal) AS j
WHERE epoch < before
UNION ALL
SELECT j.partition, 'nothing behind what is folded, and before ' || min(sequence)
FROM {s}.journal j JOIN {s}.folded f USING (partition)
GROUP BY j.partition, settled HAVING min(sequence) > settled + 1
UNION ALL
SELECT j.partition, 'an epoch of the future at ' || sequence
FROM {s}.journal j JOIN {s}.partition p USING (partition) WHERE j.epoch > p.epoch
"""


class Breach(AssertionError):
    """Something acknowledged is not as it has to be."""


@define(eq=False)
class Attempt:
    """A commit that somebody has begun.

    Attributes:
        text: what it has, which no other one has.
        epoch: of the owner.
        sequence: its place.
        outcome: ``begun``, ``acknowledged``, ``refused``, ``unknown``; or ``forgotten``.
    """

    text: str
    epoch: int
    sequence: int
    outcome: str = "begun"


class Ledger:
    """What has to be in one partition, as far as those who commit and read know.

    Attributes:
        known: what is there in any case, in order.
        acknowledged: how many of these nobody may miss.
        excused: the greatest epoch whose owner was robbed, so that it may not know of newer ones.
    """

    def __init__(self, partition: int) -> None:
        self._where = f"partition {partition}"
        self._attempts: dict[str, Attempt] = {}
        self.known: list[str] = []
        self._lost: list[str] = []
        self._epoch = 0
        self.acknowledged = 0
        self.excused = 0

    @property
    def count(self) -> int:
        """How many commits were acknowledged."""
        return sum(one.outcome == "acknowledged" for one in self._attempts.values())

    def begin(self, text: str, epoch: int, sequence: int) -> Attempt:
        """Take note that somebody commits."""
        attempt = self._attempts[text] = Attempt(text, epoch, sequence)
        return attempt

    def acknowledge(self, attempt: Attempt) -> None:
        """Take note of success.

        Raises:
            Breach: there was none.
        """
        place, known = attempt.sequence - 1, self.known
        if attempt.outcome == "forgotten":
            return
        attempt.outcome = "acknowledged"
        if place > len(known) and place == len(known) + len(self._lost):
            known += self._lost  # the same owner has brought it back
        if place < len(known):
            if known[place] != attempt.text:
                self._fail(f"{attempt.text} is acknowledged, and {known[place]} has its place")
        elif place > len(known):
            self._fail(f"{attempt.text} is acknowledged as {place + 1}, behind {len(known)} others")
        elif attempt.epoch < self._epoch:
            self._fail(
                f"{attempt.text} of epoch {attempt.epoch} is acknowledged, and epoch {self._epoch}"
                " has not seen it"
            )
        else:
            known.append(attempt.text)
            self._epoch, self._lost = attempt.epoch, []
        self.acknowledged = max(self.acknowledged, attempt.sequence)

    def refuse(self, attempt: Attempt) -> None:
        """Take note that a commit was said to have stored nothing.

        Raises:
            Breach: it has.
        """
        if attempt.text in self.known:
            self._fail(f"{attempt.text} was refused, and is there")
        attempt.outcome = "refused"

    def recovered(self, content: Sequence[str], epoch: int) -> None:
        """Take note of what somebody has recovered under an epoch.

        Raises:
            Breach: something is missing, or there that must not be.
        """
        known = self.known
        if epoch < self._epoch:
            if [*content] != known[: len(content)]:
                self._fail(f"epoch {epoch} has read {content}, and there is {known}")
            return
        if [*content[: len(known)]] != known:
            self._fail(f"epoch {epoch} has read {content}, and there has to be {known}")
        for place, text in enumerate(content[len(known) :], len(known) + 1):
            attempt = self._attempts.get(text)
            if attempt is None or attempt.sequence != place or text in content[: place - 1]:
                self._fail(f"epoch {epoch} has read {content}, and {text} at {place}")
            elif attempt.outcome not in ("begun", "unknown", "forgotten"):
                self._fail(f"epoch {epoch} has read {text}, which was {attempt.outcome}")
            known.append(text)
        self._epoch, self._lost = epoch, []

    def answered(self, content: Sequence[str], epoch: int) -> None:
        """Take note of what an owner has answered by the read rule.

        Raises:
            Breach: it is older than something acknowledged.
        """
        if epoch <= self.excused:
            return
        must = self.known[: self.acknowledged]
        if [*content[: len(must)]] != must:
            self._fail(f"the owner of epoch {epoch} has answered {content}, after {must}")

    def forget(self, texts: Sequence[str], left: int, epoch: int) -> None:
        """Take note that the server has lost its last entries, by no fault of the members.

        Args:
            texts: what it has lost.
            left: how many it has not.
            epoch: the latest that anybody has.
        """
        for text in (*texts, *self.known[left:]):
            self._attempts[text].outcome = "forgotten"
        self._lost = self.known[left:] or self._lost
        del self.known[left:]
        self.acknowledged = min(self.acknowledged, left)
        self.excused = max(self.excused, epoch)

    def _fail(self, why: str) -> None:
        raise Breach(f"{self._where}: {why}")


@define(eq=False)
class Tenure:
    """A partition that a member has recovered.

    Attributes:
        store: the partition.
        epoch: under which.
        content: what it knows to be there.
        is_busy: whether it commits.
    """

    store: PartitionStore
    epoch: int
    content: list[str]
    is_busy: bool = False
    ended: asyncio.Event = field(factory=asyncio.Event)


class Watched:
    """A membership that sees what belongs to a schedule, and looks when it is time."""

    def __init__(self, inner: PostgresMembership, world: World) -> None:
        self.inner = inner
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def look(self, *, closely: bool = False) -> View:
        members, leases = await self.inner.look(closely=closely)
        world = self._world
        return View([row for row in members if row.member in world.numbers], leases[: world.count])

    async def noticed(self) -> None:
        await asyncio.Event().wait()


class Member:
    """A process that serves partitions: as a host of leases, and no more.

    Attributes:
        slot: its place among those of a schedule.
        store: its own.
        spare: a membership that it has not used yet.
        wires: its connections.
    """

    def __init__(self, slot: int, store: PostgresStore) -> None:
        self.slot = slot
        self.store = store
        self.spare: PostgresMembership | None = None
        self.wires: list[Wire] = []
        self.is_dead = self.is_paused = False

    def enter(self, world: World) -> None:
        """Be a new process in a schedule."""
        self.world = world
        self.tenures: dict[int, Tenure] = {}
        self.refused: set[int] = set()
        self.awaits = False
        self.is_dead = self.is_paused = False
        self.wires = [wire for wire in self.wires if not wire.is_closed()]
        self.keeper = Keeper()
        self.leases = Leases(
            cast("Any", self),
            self,
            self.keeper,
            random=Random(world.random.random()),
            now=world.loop.time,
        )
        self.task = world.spawn(self, self._live())

    async def _live(self) -> None:
        while True:
            try:
                await self.leases.join()
            except StorageError:  # it is started again then
                await asyncio.sleep(TTL_S)
            else:
                break
        await self.leases.run()

    @property
    def hosted(self) -> list[int]:
        return [*self.tenures]

    # As the store of its leases.

    async def join(self, newcomer: Newcomer) -> Membership:
        made, self.spare = self.spare, None
        if made is None:
            made = await self.store.join(newcomer)
        self.world.numbers.add(made.number)
        return cast("Membership", Watched(made, self.world))

    # As their host.

    def newcomer(self) -> Newcomer:
        return newcomer(self.slot)

    def begin(self, membership: Membership) -> None:
        return

    def drop(self, partition: int, error: Exception) -> None:
        self.tenures.pop(partition, None)

    def see(self, view: View, alive: Mapping[int, MemberRow]) -> None:
        return

    async def host(self, partition: int, epoch: int | None) -> None:
        store = self.leases.membership.partitions[partition]
        try:
            recovered = await store.recover()
            content = await self.world.read(partition, store, recovered)
        except (Breach, StoreDamagedError) as error:
            self.world.fail(error)
            raise
        self.world.say(f"member {self.slot} has {partition} under {recovered.epoch}: {content}")
        self.tenures[partition] = Tenure(store, recovered.epoch, content)

    async def hand_over(self, partition: int, to: int) -> None:
        tenure = self.tenures.pop(partition, None)
        if tenure is not None and tenure.is_busy:
            await tenure.ended.wait()

    # What it does.

    async def commit(self, partition: int, size: int, rows: int) -> None:
        """Commit the next text in a partition that it has."""
        tenure, world = self.tenures[partition], self.world
        content = tenure.content
        sequence = len(content) + 1
        ledger = world.ledgers[partition]
        attempt = ledger.begin(world.text(partition), tenure.epoch, sequence)
        tenure.is_busy, tenure.ended = True, asyncio.Event()
        try:
            await tenure.store.commit(checkpoint_of(attempt, size, rows))
        except LeaseLostError as error:
            self._lose(partition, tenure, error)
            ledger.refuse(attempt)
        except StorageError as error:
            self._lose(partition, tenure, error)
            attempt.outcome = "unknown" if attempt.outcome == "begun" else attempt.outcome
        else:
            content.append(attempt.text)
            if not self.is_dead:
                ledger.acknowledge(attempt)
        finally:
            tenure.is_busy = False
            tenure.ended.set()
            world.say(f"member {self.slot}: {attempt.text} as {sequence} is {attempt.outcome}")

    def _lose(self, partition: int, tenure: Tenure, error: Exception) -> None:
        if self.tenures.get(partition) is tenure:
            del self.tenures[partition]
            self.leases.lost(partition, error)

    def read(self, partition: int) -> bool:
        """Answer without a commit, if the member is sure; gives whether it is."""
        if not self.leases.is_sure():
            return False
        tenure = self.tenures[partition]
        self.world.ledgers[partition].answered(tenure.content, tenure.epoch)
        return True

    async def read_soon(self, partition: int) -> None:
        """Answer as soon as the member is sure, if it has the partition then."""
        with suppress(PerdureError):
            await self.leases.until_sure()
            if partition in self.tenures and not self.is_dead:
                self.read(partition)

    async def look_up(self, partition: int) -> None:
        """Read what is stored, and see that nothing is missing that the owner knows of."""
        tenure = self.tenures[partition]
        known, ledger = [*tenure.content], self.world.ledgers[partition]
        with suppress(PerdureError):
            found = await history_of(tenure.store)
            if found[: len(known)] != known and tenure.epoch > ledger.excused:
                raise Breach(f"partition {partition}: {found} is stored, and {known} was committed")

    async def fold(self, partition: int) -> None:
        with suppress(PerdureError):
            await self.tenures[partition].store.apply()

    async def steal(self, partition: int, seen: LeaseRow) -> None:
        """Take a partition from whoever has it, also where his lease has not run out."""
        with suppress(PerdureError):
            await self.leases.membership.take(partition, seen)
            self.leases.look_soon()

    async def wish(self, partition: int, to: int) -> None:
        with suppress(PerdureError):
            await self.leases.membership.wish(partition, to)

    async def end(self, *, fold: bool) -> None:
        """Do nothing any more; what is committed is folded first, if asked for."""
        self.leases.end()
        self.task.cancel()
        await asyncio.wait([self.task])
        membership: Any = self.leases.membership if self.has_joined else None
        inner: PostgresMembership | None = None if membership is None else membership.inner
        if inner is None:
            return
        for partition in inner.partitions[: self.world.count]:
            await partition.retire(for_good=self.is_dead, fold=fold)()
        if self.is_dead:
            await inner.end()
        elif not inner.has_left:
            self.spare = inner

    @property
    def has_joined(self) -> bool:
        """Whether it was a member at all."""
        try:
            return bool(self.leases.membership)
        except AssertionError:
            return False

    def die(self) -> None:
        """Be gone from one moment to the next."""
        self.is_dead = True
        for call in [*self.world.stage.pending]:
            if call.wire.actor is self:
                self.world.stage.refuse(call)
        for wire in self.wires:
            wire.terminate()
        for call in [*self.world.stage.held]:
            if call.wire.actor is self:
                self.world.stage.release(call)


def newcomer(slot: int) -> Newcomer:
    """Say who joins; two slots are one host."""
    return Newcomer(
        address=f"a:{slot}",
        host=f"host{slot // 2}",
        pid=1,
        software="",
        app="shop",
        app_hash="",
        ttl_s=TTL_S,
    )


def checkpoint_of(attempt: Attempt, size: int, rows: int) -> Checkpoint:
    """Make a checkpoint that has a text in all kinds of places."""
    n, text = attempt.sequence, orjson.dumps(attempt.text)
    return Checkpoint(
        sequence=n,
        epoch=attempt.epoch,
        created=[created(1)] if n == 1 else [],
        progress=[progress(1, events=n)],
        history=[ChunkRow(1, n - 1, b"[%b]" % text)],
        entities=[
            entity(2, state=b"%d" % n),
            *([entity(3, state=b'"%b"' % (b"x" * size))] if size else ()),
            *(entity(id, state=text) for id in range(10, 10 + rows)),
        ],
        mail=[MailRow(n, "@counter@e2", text)],
        mail_deleted=[n - MAIL] if n > MAIL else [],
    )


async def history_of(store: PartitionStore) -> list[str]:
    """Give the texts that are stored."""
    return [text for chunk in await store.read_history(1) for text in orjson.loads(chunk)]


class World:
    """One schedule.

    Args:
        arena: where it is.
        seed: says all of it.

    Attributes:
        random: of the seed.
        count: how many partitions take part.
        numbers: the members that take part, as they are called in the store.
        ledgers: what has to be in each partition.
        story: what was done.
    """

    def __init__(self, arena: Arena, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.arena, self.loop, self.stage = arena, arena.loop, arena.stage
        self.members = arena.members[: random.choice(MEMBERS)]
        self._is_calm = True
        self.count = random.choice(PARTITIONS)
        self.numbers: set[int] = set()
        self.ledgers = [Ledger(partition) for partition in range(self.count)]
        self.story: list[str] = []
        self.kinds: dict[str, int] = {}
        self._texts = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._shut: list[tuple[int, int]] = []
        self._is_locked = False
        self._sends = 0

    def say(self, what: str) -> None:
        """Add something to the story."""
        self.story.append(what)

    def text(self, partition: int) -> str:
        """Make a text that was never committed before."""
        self._texts += 1
        return f"{partition}.{self._texts}"

    def fail(self, error: BaseException) -> None:
        """Take note of what must not be."""
        self._failed = self._failed or error

    def check(self) -> None:
        """Raise what must not be, if it was.

        Raises:
            Breach: it was.
        """
        for member in self.members:
            if member.keeper.restarts:
                self.fail(Breach(f"member {member.slot} has ended a task"))
        if self._failed is not None:
            raise self._failed

    def spawn(self, member: Member, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have a member do something."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                if not member.is_dead:
                    self.fail(error)

        task = self._begin(member, run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, member: Member, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = contextvars.copy_context()
        context.run(acting.set, member)
        return self.loop.create_task(work, context=context)

    async def read(self, partition: int, store: PartitionStore, recovered: Recovered) -> list[str]:
        """Read all of a partition that was recovered.

        Raises:
            Breach: it is not what has to be there.
        """
        mail = [orjson.loads(row.body) for row in recovered.mail]
        counters = await store.read_entities([("counter", "e2")])
        whole = await history_of(store)
        length = recovered.sequence
        content = whole[:length]
        self.ledgers[partition].recovered(content, recovered.epoch)
        # What came behind it is a later owner's, who has changed the rest as well.
        if len(whole) == length:
            counted = [int(row.state or 0) for row in counters]
            if counted != ([length] if length else []) or mail != content[-MAIL:]:
                raise Breach(
                    f"partition {partition}: {content} is there, {counted} counted, and mail {mail}"
                )
        elif len(whole) < length:
            raise Breach(f"partition {partition}: {content} is there, of {length}")
        return content

    # Going on.

    async def go(self) -> None:
        """Do all of it.

        Raises:
            Breach: something acknowledged is not as it has to be.
        """
        random = self.random
        await self.arena.begin()
        self.members = self.arena.members[: len(self.members)]
        self.stage.is_free = False
        for member in self.members:
            member.enter(self)
        await self.drain()
        self._is_calm = False
        names, weights = [*STEP_WEIGHTS], [*STEP_WEIGHTS.values()]
        for _ in range(random.randint(*STEPS)):
            [name] = random.choices(names, weights)
            done: str | None = await getattr(self, f"do_{name}")()
            if done is None:
                continue
            self.kinds[name] = self.kinds.get(name, 0) + 1
            await self.drain()
            self.check()
        await self.release()
        self.check()
        await self.look_back()

    async def drain(self) -> None:
        """Have all go on until everybody waits."""
        stage, random = self.stage, self.random
        await stage.settle()
        while ready := stage.ready():
            self._sends += 1
            if self._sends > SENDS_MAX:
                raise Breach(f"it goes on and on: {[*map(str, ready)]}")
            if self._is_calm:
                stage.send(next(call for call in stage.pending if call in ready))
                await stage.settle()
                continue
            call = random.choice(ready)
            fate = random.random() * (1 if call.is_commit else 8 if call.is_decisive else 30)
            if fate < 0.12:
                call.is_held = True
                self.say(f"  {call}: is held before it is sent")
                continue
            if fate < 0.16:
                self.say(f"  {call}: the connection breaks before")
                stage.refuse(call)
            else:
                if fate < 0.28:
                    call.answer = self.loop.create_future()
                    self.say(f"  {call}: its answer is held")
                elif fate < 0.36:
                    call.is_lost = True
                    self.say(f"  {call}: its answer is lost")
                elif fate < 0.41 and call.is_commit:
                    call.is_warned = True
                    self.say(f"  {call}: it is answered with a warning, and lost")
                elif call.is_commit:
                    self.say(f"  {call}")
                stage.send(call)
            await stage.settle()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, for the members and for the server."""
        loop = self.loop
        until = loop.now + seconds
        while loop.now < until:
            due = loop.quietude.next_s
            # What is due soon after comes with it.
            loop.now = until if due is None else min(until, loop.now + due + 0.05 * TTL_S)
            await self.arena.set_clock()
            await self.drain()
            self.check()

    async def see_through(self, member: Member, work: Coroutine[Any, Any, None]) -> None:
        """Have a member do something to its end, however much time has to pass for that."""
        task = self._begin(member, work)
        began = self.loop.now
        go_on = self.drain if self._is_calm else self.stage.settle
        await go_on()
        while not task.done():
            self.loop.now += self.loop.quietude.next_s or 0.1
            if self.loop.now > began + 60:
                raise Breach("something has not ended within a minute")
            await go_on()
        await self.arena.set_clock()
        task.result()

    @property
    def active(self) -> list[Member]:
        """Who may do something."""
        return [one for one in self.members if not (one.is_dead or one.is_paused)]

    def _pick(self, *, idle: bool = False) -> tuple[Member, int] | None:
        found = [
            (member, partition)
            for member in self.active
            for partition, tenure in sorted(member.tenures.items())
            if not (idle and tenure.is_busy)
        ]
        return self.random.choice(found) if found else None

    # Steps; each gives what it has done, or None.

    async def do_commit(self) -> str | None:
        picked = self._pick(idle=True)
        if picked is None:
            return None
        member, first = picked
        random = self.random
        others = [
            partition
            for partition, tenure in sorted(member.tenures.items())
            if partition != first and not tenure.is_busy and random.random() < 0.6
        ]
        for partition in (first, *others):
            size = random.choices((0, LARGE // 2, LARGE, 5 * LARGE), (16, 2, 2, 1))[0]
            rows = random.choices((0, 12), (12, 1))[0]
            self.spawn(member, member.commit(partition, size, rows))
        return self._done(f"member {member.slot} commits in {[first, *others]}")

    def _done(self, what: str) -> str:
        self.say(what)
        return what

    async def do_pass_time(self) -> str | None:
        seconds = self.random.choice((0.05, 0.1, 0.3, 0.6, 1.2, 2.2)) * TTL_S
        self.say(f"{seconds:.2f} s pass")
        await self.pass_time(seconds)
        return "time passes"

    async def do_look(self) -> str | None:
        if not self.active:
            return None
        member = self.random.choice(self.active)
        member.leases.look_soon()
        return self._done(f"member {member.slot} looks")

    async def do_read(self) -> str | None:
        picked = self._pick()
        if picked is None:
            return None
        member, partition = picked
        if not member.read(partition):
            self.spawn(member, member.read_soon(partition))
        return self._done(f"member {member.slot} answers from {partition}")

    async def do_look_up(self) -> str | None:
        picked = self._pick()
        if picked is None:
            return None
        member, partition = picked
        self.spawn(member, member.look_up(partition))
        return self._done(f"member {member.slot} looks up {partition}")

    async def do_fold(self) -> str | None:
        picked = self._pick()
        if picked is None:
            return None
        member, partition = picked
        self.spawn(member, member.fold(partition))
        return self._done(f"member {member.slot} folds {partition}")

    async def do_take(self) -> str | None:
        takers = [one for one in self.active if one.has_joined]
        if not takers:
            return None
        member, partition = self.random.choice(takers), self.random.randrange(self.count)
        [row] = await self.arena.ask(
            "SELECT partition, epoch, owner, wanted FROM {s}.partition WHERE partition = $1",
            partition,
        )
        seen = LeaseRow(*row)
        if seen.owner == member.leases.number:
            return None
        ledger = self.ledgers[partition]
        ledger.excused = max(ledger.excused, seen.epoch)
        self.spawn(member, member.steal(partition, seen))
        return self._done(f"member {member.slot} takes {partition}")

    async def do_wish(self) -> str | None:
        takers = [one for one in self.active if one.has_joined]
        if not takers:
            return None
        member, to = self.random.choice(takers), self.random.choice(takers)
        partition = self.random.randrange(self.count)
        self.spawn(member, member.wish(partition, to.leases.number))
        return self._done(f"{partition} is to go to member {to.slot}")

    async def do_go_on(self) -> str | None:
        random, stage = self.random, self.stage
        paused = [member for member in self.members if member.is_paused]
        if paused and random.random() < 0.4:
            member = random.choice(paused)
            member.is_paused = False
            self.say(f"member {member.slot} goes on")
            if random.random() < 0.5:  # the first that it does
                for partition in sorted(member.tenures):
                    if member.read(partition):
                        self.say(f"member {member.slot} answers from {partition}")
            for call in [*stage.held]:
                if call.wire.actor is member and call.is_of_pause:
                    stage.release(call)
            return "goes on"
        held = [
            call for call in (*stage.pending, *stage.held) if call.is_held or call in stage.held
        ]
        held = [call for call in held if not call.wire.actor.is_paused]
        if not held:
            return None
        held.sort(key=lambda call: call.order)
        call = random.choice(held)
        stage.release(call)
        return self._done(f"{call}: goes on")

    async def do_pause(self) -> str | None:
        if len(self.active) < 2:
            return None
        member = self.random.choice(self.active)
        member.is_paused = True
        return self._done(f"member {member.slot} is paused")

    async def do_shut(self) -> str | None:
        gate = (self.random.choice((1, 2)), self.random.randrange(self.count))
        if gate in self._shut:
            return None
        [(has_it,)] = await self.arena.ask("SELECT pg_try_advisory_lock($1, $2)", *gate)
        if not has_it:
            return None
        self._shut.append(gate)
        where = "having its row" if gate[0] == 2 else "having read the epoch"
        return self._done(f"the server stops commits in {gate[1]}, {where}")

    async def do_open(self) -> str | None:
        if not self._shut:
            return None
        gate = self._shut.pop(self.random.randrange(len(self._shut)))
        await self.arena.ask("SELECT pg_advisory_unlock($1, $2)", *gate)
        self.stage.unblock()
        return self._done(f"the server stops commits in {gate[1]} no more")

    async def do_lock(self) -> str | None:
        if self._is_locked:
            return None
        partition = self.random.randrange(self.count)
        what = self.random.choice(
            (
                f"SELECT FROM {{s}}.partition WHERE partition = {partition} FOR UPDATE NOWAIT",
                f"SELECT FROM {{s}}.folded WHERE partition = {partition} FOR UPDATE NOWAIT",
                "LOCK TABLE {s}.journal IN SHARE ROW EXCLUSIVE MODE NOWAIT",
                "LOCK TABLE {s}.history_row IN SHARE ROW EXCLUSIVE MODE NOWAIT",
            )
        )
        self._is_locked = await self.arena.lock(what)
        return self._done(f"somebody locks: {what}") if self._is_locked else None

    async def do_unlock(self) -> str | None:
        if not self._is_locked:
            return None
        self._is_locked = False
        await self.arena.unlock()
        return self._done("nobody locks any more")

    async def do_cut(self) -> str | None:
        random = self.random
        flying = sorted(self.stage.flying, key=lambda call: call.order)
        slot, name = random.choice(self.members).slot, random.choice(LINKS)
        if flying and random.random() < 0.7:
            call = random.choice(flying)
            slot, name = call.wire.actor.slot, call.wire.name
        member = self.members[slot]
        wires = [one for one in member.wires if one.name == name and not one.is_closed()]
        how = random.random()
        if flying and how < 0.3:
            call = random.choice(flying)
            await self.arena.ask("SELECT pg_cancel_backend($1)", call.wire.pid)
            self.stage.unblock()
            return self._done(f"{call}: the server cancels it")
        if how < 0.65:
            self.say(f"member {slot}, {name}: the connection breaks")
            for wire in wires:
                wire.terminate()
            return "cut"
        self.say(f"member {slot}, {name}: the server ends the session")
        for wire in wires:
            await self.arena.ask("SELECT pg_terminate_backend($1)", wire.pid)
            while not wire.is_closed():
                await self.loop.until_quiet()
        self.stage.unblock()
        return "cut"

    async def do_end_session(self) -> str | None:
        member = self.random.choice(self.members)
        for wire in member.wires:
            if wire.name == "control":
                wire.terminate()
        return self._done(f"member {member.slot}: its control session ends")

    async def do_kill(self) -> str | None:
        dead = [member for member in self.members if member.is_dead]
        if dead:
            member = self.random.choice(dead)
            member.enter(self)
            return self._done(f"member {member.slot} is started anew")
        found = [one for one in self.active if one.has_joined]
        if len(found) < 2:
            return None
        member = self.random.choice(found)
        self.say(f"member {member.slot} is killed")
        number = member.leases.number
        member.die()
        await self.stage.settle()
        await self.see_through(member, member.end(fold=False))
        for other in self.members:
            other.refused.add(number)
        return "killed"

    async def do_forget(self) -> str | None:
        stage = self.stage
        if self._is_locked or self._shut or stage.flying or stage.orphans:
            return None
        partition = self.random.randrange(self.count)
        rows = await self.arena.ask(
            "DELETE FROM {s}.journal j USING {s}.folded f WHERE f.partition = $1 AND"
            " j.partition = $1 AND j.sequence > settled AND j.sequence > (SELECT max(sequence)"
            " FROM {s}.journal WHERE partition = $1) - $2 RETURNING j.sequence, j.epoch, body",
            partition,
            self.random.choice((1, 1, 2)),
        )
        if not rows:
            return None
        texts = [
            text
            for sequence, epoch, body in rows
            for row in journal.unpack(body, sequence, epoch).history
            for text in orjson.loads(row.body)
        ]
        [(epoch,)] = await self.arena.ask(
            "SELECT epoch FROM {s}.partition WHERE partition = $1", partition
        )
        self.ledgers[partition].forget(texts, min(row[0] for row in rows) - 1, epoch)
        return self._done(f"the server has lost {texts}")

    async def do_refuse(self) -> str | None:
        joined = [one for one in self.members if one.has_joined and not one.is_dead]
        pairs = [
            (one, other) for one in joined for other in joined if one.slot // 2 != other.slot // 2
        ]
        if not pairs:
            return None
        one, other = self.random.choice(pairs)
        one.refused.add(other.leases.number)
        return self._done(f"a proxy tells member {one.slot} that {other.slot} is gone")

    # The end.

    async def release(self) -> None:
        """Have all that was begun end."""
        self._is_calm = True
        for member in self.members:
            member.is_paused = False
        self.stage.release_all()
        if self._is_locked:
            await self.arena.unlock()
        await self.arena.ask("SELECT pg_advisory_unlock_all()")
        self.stage.unblock()
        await self.drain()
        for member in self.members:
            if any(tenure.is_busy for tenure in member.tenures.values()):
                self.fail(Breach(f"member {member.slot}: a commit has not ended"))
        for member in self.members:
            if not member.is_dead:
                await self.see_through(member, member.end(fold=self.random.random() < 0.5))
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])
        await self.drain()
        self.stage.is_free = True

    async def look_back(self) -> None:
        """See what is there in the end: in the tables, and in the journal behind them.

        Raises:
            Breach: not what has to be.
        """
        for partition, why in await self.arena.ask(_GAPS):
            if partition < self.count:
                raise Breach(f"partition {partition}: {why}")
        found = await self.arena.stored()
        for partition, (content, counted, mail, epoch) in enumerate(found[: self.count]):
            self.say(f"in the end {partition} has {content}")
            self.ledgers[partition].recovered(content, epoch + 1)
            if counted != len(content) or mail != content[-MAIL:]:
                raise Breach(
                    f"partition {partition}: {content} is there, {counted} counted, and mail {mail}"
                )


class Arena:
    """A hub in which one schedule follows another.

    Args:
        loop: that all of it runs in.
        spec: its schema, which is not there yet.
    """

    def __init__(self, loop: SteppedLoop, spec: str) -> None:
        self.loop = loop
        place = read_place(spec)
        self._quoted = place.quoted
        # The clock of the schema is found before the server's.
        path = quote(f"{place.quoted},pg_catalog")
        self._spec = f"{spec}&search_path={path}&sslmode=disable&synchronous_commit=off"
        self._dsn = read_place(self._spec).dsn
        self.members = [Member(slot, PostgresStore(self._spec)) for slot in range(max(MEMBERS))]
        self._rounds = 0

    async def open(self) -> None:
        """Make it."""
        maker = PostgresStore(self._spec)
        await maker.open(max(PARTITIONS))
        await maker.close()
        self._judge = await driver().connect(self._dsn)
        self._locker = await driver().connect(self._dsn)
        await self._judge.execute(_FAULTS.replace("{s}", self._quoted))
        self.stage = Stage(self.loop, self._judge)
        await self.set_clock()

    async def close(self) -> None:
        """Close all connections."""
        for member in self.members:
            if member.spare is not None:
                await member.spare.end()
            await member.store.close()
        await self.abandon()

    async def abandon(self) -> None:
        """Let go of all connections, whatever they are in the middle of."""
        for connection in (*self.stage.opened, self._judge, self._locker):
            connection.terminate()
        await self.loop.until_quiet()

    async def ask(self, sql: str, *values: Any) -> list[Any]:
        """Ask the server something, in a session of its own."""
        return list(await self._judge.fetch(sql.replace("{s}", self._quoted), *values))

    async def stored(self) -> list[tuple[list[str], int, list[str], int]]:
        """Give each partition's texts, how many it has counted, its mail, and its epoch."""
        chunks = await self.ask("SELECT partition, body FROM {s}.history_row ORDER BY 1, seq")
        mail = await self.ask("SELECT partition, n, body FROM {s}.mail_row")
        counted = await self.ask("SELECT partition, state FROM {s}.entity_row WHERE id = 2")
        entries = await self.ask(
            "SELECT partition, sequence, epoch, body FROM {s}.journal ORDER BY 1, 2"
        )
        epochs = await self.ask("SELECT partition, epoch FROM {s}.partition ORDER BY 1")
        texts: list[list[str]] = [[] for _ in epochs]
        mails: list[dict[int, str]] = [{} for _ in epochs]
        counts = [0] * len(epochs)
        for partition, body in chunks:
            texts[partition] += orjson.loads(body)
        for partition, n, body in mail:
            mails[partition][n] = orjson.loads(body)
        for partition, state in counted:
            counts[partition] = int(state)
        for partition, sequence, epoch, body in entries:
            one = journal.unpack(body, sequence, epoch)
            texts[partition] += [text for row in one.history for text in orjson.loads(row.body)]
            mails[partition] |= {row.n: orjson.loads(row.body) for row in one.mail}
            for n in one.mail_deleted:
                del mails[partition][n]
            counts[partition] = int(next(row.state or b"0" for row in one.entities if row.id == 2))
        return [
            (texts[n], counts[n], [text for _, text in sorted(mails[n].items())], epoch)
            for n, epoch in map(tuple[int, int], epochs)
        ]

    async def lock(self, sql: str) -> bool:
        """Lock something until ``unlock``, if nobody else has it locked."""
        await self._locker.execute("BEGIN")
        try:
            await self._locker.execute(sql.replace("{s}", self._quoted))
        except driver().LockNotAvailableError:
            await self._locker.execute("ROLLBACK")
            return False
        return True

    async def unlock(self) -> None:
        await self._locker.execute("ROLLBACK")
        self.stage.unblock()

    async def set_clock(self) -> None:
        """Have the server's clock show the loop's time."""
        await self.ask(
            "UPDATE {s}.clock SET at = '2030-01-01'::timestamptz + make_interval(secs => $1)",
            self.loop.now,
        )

    async def begin(self) -> None:
        """Empty the partitions, and have members that may take part."""
        for member in self.members:
            token = acting.set(member)
            member.is_dead = member.is_paused = False
            try:
                if member.store.is_closed:
                    await member.store.open(0)
                if member.spare is None or member.spare.has_left:
                    member.spare = await member.store.join(newcomer(member.slot))
            finally:
                acting.reset(token)
            while not member.spare.has_control:
                await self.stage.settle()
                self.loop.now += 0.1
        # A schedule is the same whatever came before it: in the order of their numbers, and in time.
        self.members.sort(key=lambda member: 0 if member.spare is None else member.spare.number)
        for slot, member in enumerate(self.members):
            member.slot = slot
            assert member.spare is not None
            sql = "UPDATE {s}.member SET address = $2, host = $3 WHERE member = $1"
            one = newcomer(slot)
            await self.ask(sql, member.spare.number, one.address, one.host)
        self.loop.now = BEGINNING_S
        await self.set_clock()
        self._rounds += 1
        if self._rounds % 100 == 0:
            await self._vacuum()
        await self._judge.execute(_BEGIN.replace("{s}", self._quoted))

    async def _vacuum(self) -> None:
        for table in (
            "journal",
            "partition",
            "folded",
            "member",
            "clock",
            "mail_row",
            "history_row",
            "instance_row",
            "entity_row",
        ):
            await self.ask(f"VACUUM {{s}}.{table}")


@contextmanager
def small_sizes() -> Generator[None]:
    """Have large what is some kilobytes, and many what is some rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "LARGE", LARGE)
        patch.setattr(folding, "TOO_LARGE", 3 * LARGE)
        patch.setattr(folding, "PORTION", 6)
        patch.setattr(folding, "LOCKED_S", 300.0)  # of real time
        patch.setattr(committer, "TOGETHER_MAX", 3)
        patch.setattr(committer, "TOGETHER_SIZE", 2 * LARGE)
        patch.setattr(pieces, "PIECE", 5)
        yield


@contextmanager
def in_silence() -> Generator[None]:
    """Have nothing logged: what is said of so many faults takes longer than the faults."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run(spec: str, seeds: Iterable[int]) -> Iterator[World]:
    """Run schedules one after another, and give each when it is over.

    Raises:
        Breach: one of them fails; notes have its seed, and what was done.
    """
    loop = SteppedLoop()
    with (
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        small_sizes(),
        unsliced(),
        in_silence(),
    ):
        arena = Arena(loop, spec)
        with pytest.MonkeyPatch.context() as patch:
            runner.run(arena.open())
            patch.setattr(driver(), "connect", arena.stage.connect)
            try:
                for seed in seeds:
                    patch.setattr(members, "jitter", Random(seed))
                    world = World(arena, seed)
                    try:
                        runner.run(world.go())
                    except BaseException as error:
                        error.add_note("\n".join((f"seed {seed}:", *world.story)))
                        raise
                    yield world
            except BaseException:
                runner.run(arena.abandon())
                raise
            runner.run(arena.close())
