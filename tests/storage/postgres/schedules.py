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
from collections.abc import Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import orjson
import pytest

from perdure.storage import pieces
from perdure.storage.membership import LeaseRow
from perdure.storage.postgres import committer, folding, journal, links, members
from perdure.storage.postgres.links import driver
from perdure.storage.protocol import PartitionStore
from perdure.storage.records import Recovered
from perdure.storage.slices import unsliced
from tests.storage.postgres.arena import MEMBERS_MAX, PARTITIONS_MAX, Arena
from tests.storage.postgres.ledger import Breach, Ledger
from tests.storage.postgres.lone_members import MAIL, TTL_S, Member, history_of
from tests.storage.postgres.stepping import SteppedLoop, acting

#: Of these one is chosen: how many members, and partitions, take part.
MEMBERS: Final = (2, 2, 3, 3, MEMBERS_MAX)
PARTITIONS: Final = (2, 3, 3, 4, PARTITIONS_MAX)
#: How many steps there are, at least and at most.
STEPS: Final = (20, 60)
#: Bytes at which what is committed is large, in place of megabytes.
LARGE: Final = 16 * 1024
#: Statements of one schedule, of which there never are so many.
SENDS_MAX: Final = 5_000

#: How often each of the steps is taken, beside the others.
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

#: The connections that break.
LINKS: Final = ("commits", "commits", "takes", "folds", "reads", "leases", "beats")

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


class World:
    """One schedule.

    Args:
        arena: where it is.
        seed: says all of it.

    Attributes:
        random: of the seed.
        members: those that take part.
        count: how many partitions take part.
        numbers: the members that take part, as they are called in the store.
        ledgers: what has to be in each partition.
        story: what was done.
        kinds: how often each step was taken.
    """

    def __init__(self, arena: Arena, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.arena, self.loop, self.stage = arena, arena.loop, arena.stage
        self.members: list[Member] = []
        self._size = random.choice(MEMBERS)
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
        self.members = self.arena.members[: self._size]
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
            if random.random() < 0.8:  # the first that it does
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
        random = self.random
        member = random.choice(self.active)
        member.is_paused = True
        self.say(f"member {member.slot} is paused")
        if random.random() < 0.5:  # for as long as others need to take over what it has
            seconds = random.choice((1.2, 1.6, 2.2)) * TTL_S
            self.say(f"{seconds:.2f} s pass")
            await self.pass_time(seconds)
            await self.do_commit()
        return "is paused"

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
        try:
            rows = await self.arena.ask(
                "WITH last AS (SELECT j.sequence FROM {s}.journal j JOIN {s}.folded f USING"
                " (partition) WHERE partition = $1 AND j.sequence > settled AND j.sequence >"
                " (SELECT max(sequence) FROM {s}.journal WHERE partition = $1) - $2"
                " FOR UPDATE OF j NOWAIT)"
                " DELETE FROM {s}.journal j USING last WHERE partition = $1"
                " AND j.sequence = last.sequence RETURNING j.sequence, j.epoch, body",
                partition,
                self.random.choice((1, 1, 2)),
            )
        except driver().LockNotAvailableError:  # somebody folds it
            return None
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


@contextmanager
def small_sizes() -> Generator[None]:
    """Have large what is some kilobytes, and many what is some rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "LARGE", LARGE)
        patch.setattr(folding, "TOO_LARGE", 3 * LARGE)
        patch.setattr(folding, "PORTION", 6)
        # Of real time, by the server's clock.
        patch.setattr(folding, "LOCKED_S", 300.0)
        patch.setattr(links, "HELD_S", 300.0)
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
                loop.go_on()  # so that what was begun ends
                runner.run(arena.abandon())
                raise
            runner.run(arena.close())
