"""Where schedules run one after another: a hub on a server whose clock and gates they turn."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import orjson

from perdure.storage.postgres import PostgresStore, journal
from perdure.storage.postgres.links import driver
from perdure.storage.postgres.place import read_place
from tests.storage.postgres.lone_members import Member, newcomer
from tests.storage.postgres.stepping import Stage, SteppedLoop, acting

#: How many members there are, and how many partitions at most.
MEMBERS_MAX: Final = 4
PARTITIONS_MAX: Final = 6
#: The loop's time when a schedule begins.
BEGINNING_S: Final = 1_000.0

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
        self.members = [Member(slot, PostgresStore(self._spec)) for slot in range(MEMBERS_MAX)]
        self._rounds = 0

    async def open(self) -> None:
        """Make it."""
        maker = PostgresStore(self._spec)
        await maker.open(PARTITIONS_MAX)
        await maker.close()
        self._judge = await driver().connect(self._dsn)
        self._locker = await driver().connect(self._dsn)
        # It waits for nobody; where it does, a schedule cannot go on.
        await self._judge.execute("SET statement_timeout = '120s'")
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
        """Let go of all connections, and have all fail that is in the middle of something."""
        for member in self.members:
            member.is_dead = True
        self.stage.fail_all()
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
        # A schedule does not depend on what came before it: in the order of their numbers, and in time.
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
