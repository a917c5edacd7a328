"""Looks at what the tables and the journal have."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from perdure.storage import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    MailRow,
    OutboxRow,
    PeerRow,
    RequestRow,
    TimerRow,
)
from perdure.storage.sqlite import applier as applying
from perdure.storage.sqlite.store import SqlitePartition
from perdure.testing.store_conformance import Owner, created, progress


def applier_of(owner: Owner) -> applying.Applier:
    assert isinstance(owner.partition, SqlitePartition)
    assert owner.partition.applier is not None
    return owner.partition.applier


def copy_of(folder: Path, name: str) -> Path:
    """Copy a folder as it is on the disk now, as a crash would leave it."""
    copied = folder.parent / name
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("*-shm"))
    return copied


KEYS = 9


class Chance:
    """Draws checkpoints as a partition might make them: names are unique among those alive."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.next_id = 1
        self.next_row = 1
        self.instances: dict[int, int] = {}  # how many events each has
        self.keys: dict[int, str] = {}
        self.freed: set[str] = set()
        self.entities: dict[int, str] = {}
        self.mail: list[int] = []
        self.now = 1_000

    def checkpoint(self, sequence: int, epoch: int) -> Checkpoint:
        c = Checkpoint(sequence, epoch)
        self.freed.clear()  # an entity's name is free from the next checkpoint on
        for _ in range(self.random.randrange(6)):
            self.random.choice(
                [self.create, self.move, self.move, self.purge, self.put, self.put, self.drop]
            )(c)
        self.deliver(c)
        return c

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def create(self, c: Checkpoint) -> None:
        key = f"i{self.random.randrange(KEYS)}"
        if key not in self.keys.values():
            id = self.new_id()
            self.instances[id] = 0
            self.keys[id] = key
            c.created.append(created(id, key=key, input=b"%d" % id))
            self.advance(c, id)

    def move(self, c: Checkpoint) -> None:
        touched = {row.id for row in c.progress} | set(c.purged)
        free = sorted(set(self.instances) - touched)
        if free:
            id = self.random.choice(free)
            if self.random.random() < 0.2:  # continued as new
                c.rewritten.append(id)
                c.created.append(created(id, key=self.keys[id], execution=2, input=b"[]"))
                self.instances[id] = 0
            self.advance(c, id)

    def advance(self, c: Checkpoint, id: int) -> None:
        status = self.random.choice(["Pending", "Running", "Completed", "Failed"])
        c.progress.append(
            progress(
                id,
                status,
                pending=self.random.randrange(3),
                output=self.random.choice([None, b"null", b'{"a":[1]}']),
                parked=self.random.choice([None, None, b'"why"']),
            )
        )
        if self.random.random() < 0.8:
            count = self.random.randrange(1, 4)
            body = b",".join(b"[%d,%d]" % (id, self.instances[id] + n) for n in range(count))
            c.history.append(ChunkRow(id, self.instances[id], b"[%b]" % body))
            self.instances[id] += count

    def purge(self, c: Checkpoint) -> None:
        free = sorted(set(self.instances) - {row.id for row in c.progress})
        if free:
            id = self.random.choice(free)
            del self.instances[id], self.keys[id]
            c.purged.append(id)

    def put(self, c: Checkpoint) -> None:
        free = [id for id in self.entities if id not in {row.id for row in c.entities}]
        if free and self.random.random() < 0.7:
            id = self.random.choice(free)
        else:
            key = f"k{self.random.randrange(4)}"
            if key in self.entities.values() or key in self.freed:
                return
            id = self.new_id()
            self.entities[id] = key
        c.entities.append(
            EntityRow(
                id, "counter", self.entities[id], self.now, b"%d" % self.now, None, None, None
            )
        )

    def drop(self, c: Checkpoint) -> None:
        free = [id for id in self.entities if id not in {row.id for row in c.entities}]
        if free:
            id = self.random.choice(free)
            c.entities_deleted.append(id)
            self.freed.add(self.entities.pop(id))

    def deliver(self, c: Checkpoint) -> None:
        self.now += self.random.randrange(5)
        for n in [n for n in self.mail if self.random.random() < 0.3]:
            self.mail.remove(n)
            c.mail_deleted.append(n)
            c.timers_deleted.append(n + 1)
            c.outbox_deleted.append(n + 2)
            c.activities_deleted.append(n)
        for _ in range(self.random.randrange(3)):
            n, self.next_row = self.next_row, self.next_row + 3
            self.mail.append(n)
            c.mail.append(MailRow(n, f"a{n % 3}", b"%d" % n))
            c.timers.append(TimerRow(n + 1, n, "a", b"%d" % n))
            c.outbox.append(OutboxRow(n + 2, 1, n, b"[%d]" % n))
            if self.instances:
                instance = self.random.choice(sorted(self.instances))
                c.activities.append(ActivityRow(n, instance, b"[%d]" % n))
        c.peers.append(PeerRow(self.random.randrange(2), self.now, self.next_row))
        c.requests.append(RequestRow(f"r{self.random.randrange(9)}", self.now, b"%d" % self.now))
        if self.random.random() < 0.3:
            c.requests_deleted_before = self.now - self.random.randrange(8)


async def look(partition: Any, ids: range) -> dict[str, Any]:
    """Read all that is there through what reads single actors."""
    keys = [f"i{n}" for n in range(KEYS)]
    names = [("counter", f"k{n}") for n in range(4)]
    histories = [b"".join(await partition.read_history(id)) for id in ids]
    return {
        "instances": sorted(await partition.read_instances(keys)),
        "entities": sorted(await partition.read_entities(names)),
        "histories": [chunks.replace(b"][", b",") for chunks in histories],
        "requests": [await partition.read_request(f"r{n}") for n in range(9)],
    }


async def look_wide(partition: Any) -> dict[str, Any]:
    """Read all that is there through what applies first."""
    return {
        "instances": await partition.query_instances(InstanceFilter(limit=1000)),
        "entities": await partition.query_entities(EntityFilter(limit=1000)),
        "waiting": await partition.waiting([f"a{n}" for n in range(3)]),
    }
