from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from perdure.actors.errors import LeaseLostError, StoreDamagedError, StoreMovedError
from perdure.storage import Checkpoint, MailRow, OutboxRow, PeerRow, SetAside, TimerRow
from perdure.storage.encoding import encode_parts, next_numbers
from perdure.storage.sqlite.folder import journal_file, partition_file, prepare
from perdure.storage.sqlite.presence import Presence
from perdure.storage.sqlite.takeover import Taken, Takeover, set_aside, take_over
from perdure.testing.store_conformance import created, entity, progress
from tests.storage.files import change, rows

ENTRY = f"INSERT INTO entry VALUES ({', '.join('?' * 24)})"


class Partition:
    """The files of one, as an owner would leave them that has applied nothing."""

    def __init__(self, folder: Path) -> None:
        self.tables, self.journal = partition_file(folder, 0), journal_file(folder, 0)
        self.presence = Presence(self.tables, self.journal)
        self.sequence = 0

    def take(self) -> Any:
        taken = take_over(self.tables, self.journal, self.presence, None)
        taken.close()
        self.sequence = taken.recovered.sequence
        return taken.recovered

    def commit(self, epoch: int, **parts: Any) -> None:
        self.sequence += 1
        c = Checkpoint(self.sequence, epoch, **parts)
        with closing(sqlite3.connect(self.journal, isolation_level=None)) as journal:
            journal.execute(ENTRY, (c.sequence, epoch, 0, *next_numbers(c), *encode_parts(c)))


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    prepare(tmp_path, 1)
    return Partition(tmp_path)


def test_each_owner_gets_a_greater_epoch_and_what_the_last_one_committed(
    partition: Partition,
) -> None:
    first = partition.take()
    partition.commit(
        first.epoch,
        created=[created(1), created(2)],
        progress=[progress(1, pending=1), progress(2, "Failed", pending=1, parked=b"{}")],
        entities=[entity(5, parked=b"{}")],
        mail=[MailRow(1, "i1", b"[]")],
        peers=[PeerRow(1, 3, 4)],
    )
    partition.commit(first.epoch, timers=[TimerRow(7, 5, "i1", b"[]")])

    second = partition.take()

    assert (first.sequence, first.next_id, first.next_row) == (0, 1, 1)
    assert (second.sequence, second.next_id, second.next_row) == (2, 6, 8)
    assert second.epoch > first.epoch
    assert second.epoch % 2 == 0
    assert (second.mail, second.peers) == ([MailRow(1, "i1", b"[]")], [PeerRow(1, 3, 4)])
    assert second.timers == [TimerRow(7, 5, "i1", b"[]")]
    assert (second.unanswered, sorted(second.parked)) == (["i1"], ["@counter@e5", "i2"])
    assert partition.take().sequence == 2


def test_a_last_owner_can_commit_no_more(partition: Partition) -> None:
    first = partition.take()
    partition.take()

    with pytest.raises(sqlite3.IntegrityError, match="lease lost"):
        partition.commit(first.epoch)


def test_numbers_of_rows_are_not_given_again_whatever_the_head_says(partition: Partition) -> None:
    first = partition.take()
    partition.commit(first.epoch, created=[created(9)], mail=[MailRow(5, "i9", b"[]")])
    partition.take()
    change(partition.tables, "UPDATE meta SET next_id = 1, next_row = 1")
    change(partition.tables, "INSERT INTO mail_row VALUES (1 << 62, 'x', '[]')")

    again = partition.take()

    assert (again.next_id, again.next_row) == (10, 6)


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        ("DELETE FROM entry WHERE sequence = 2", "has checkpoint 3, but .* end with 1"),
        ("DELETE FROM entry", "has checkpoint 3, but .* end with 0"),
        ("UPDATE entry SET mail = '{' WHERE sequence = 2", "row 2: the checkpoint cannot be read"),
        ("UPDATE entry SET next_id = 'x' WHERE sequence = 3", "row 3: .* text where a number"),
    ],
    ids=range(4),
)
def test_a_journal_that_is_not_whole_is_refused_and_nothing_of_it_applied(
    partition: Partition, harm: str, text: str
) -> None:
    first = partition.take()
    for n in (1, 2, 3):
        partition.commit(first.epoch, mail=[MailRow(n, "i1", b"[]")])
    if harm == "DELETE FROM entry":
        change(partition.journal, "UPDATE meta SET sequence = 3")
    change(partition.journal, harm)

    for _ in range(2):
        with pytest.raises(StoreDamagedError, match=text):
            partition.take()

    assert rows(partition.tables, "SELECT sequence FROM meta") == [(0,)]
    assert rows(partition.tables, "SELECT * FROM mail_row") == []


@pytest.mark.parametrize("which", ["tables", "journal"])
def test_files_of_different_moments_are_refused(partition: Partition, which: str) -> None:
    partition.take()
    older = cast("Path", getattr(partition, which))
    change(older, "UPDATE meta SET epoch = 0")

    with pytest.raises(StoreDamagedError, match=f"{older} is older than"):
        partition.take()


def test_a_takeover_that_was_cut_off_is_taken_up(partition: Partition) -> None:
    epoch = partition.take().epoch
    change(partition.tables, "UPDATE meta SET epoch = epoch + 1")  # odd: the journal knows nothing

    assert partition.take().epoch == epoch + 4


def test_one_who_was_overtaken_in_the_middle_is_told(partition: Partition) -> None:
    partition.take()
    change(partition.journal, "UPDATE meta SET epoch = 100")
    change(partition.tables, "UPDATE meta SET epoch = 51")

    with pytest.raises(LeaseLostError):
        partition.take()


def test_nothing_is_written_to_files_that_are_others_by_now(partition: Partition) -> None:
    epoch = partition.take().epoch
    moved = partition.tables.rename(partition.tables.with_name("moved"))
    partition.tables.write_bytes(moved.read_bytes())

    with pytest.raises(StoreMovedError):
        partition.take()

    assert rows(partition.tables, "SELECT epoch FROM meta") == [(epoch,)]


@pytest.mark.parametrize(
    ("parts", "harm", "text"),
    [
        ({"peers": [PeerRow(1, 3, 4)]}, "UPDATE peer_row SET sent = 'x'", "are no counts"),
        ({"peers": [PeerRow(1, 3, 4)]}, "UPDATE peer_row SET received = -1", "are no counts"),
        (
            {"outbox": [OutboxRow(1, 1, 1, b"[]")]},
            "UPDATE outbox_row SET target = 'x'",
            "'x' is no partition",
        ),
    ],
    ids=range(3),
)
def test_an_exchange_that_cannot_be_read_is_refused(
    partition: Partition, parts: dict[str, Any], harm: str, text: str
) -> None:
    partition.commit(partition.take().epoch, **parts)
    partition.take()
    change(partition.tables, harm)

    with pytest.raises(StoreDamagedError, match=text):
        partition.take()


def test_text_that_is_no_utf_8_is_read_all_the_same(partition: Partition) -> None:
    partition.commit(partition.take().epoch, mail=[MailRow(1, "i1", b"[]")])
    partition.take()
    change(partition.tables, "UPDATE mail_row SET actor = CAST(x'69ff' AS TEXT)")

    assert partition.take().mail == [MailRow(1, "i\\xff", b"[]")]


def test_what_nobody_can_read_is_kept_and_marks_its_actor(partition: Partition) -> None:
    partition.commit(
        partition.take().epoch,
        created=[created(1)],
        mail=[MailRow(1, "i1", b'["x"]')],
        timers=[TimerRow(2, 5, "i1", b"[]")],
        outbox=[OutboxRow(3, 1, 9, b"[]")],
    )
    partition.take()

    for _ in range(2):
        set_aside(
            partition.tables,
            [
                SetAside("mail_row", 1, "i1", "no message"),
                SetAside("timer_row", 2, "i1", "no time"),
                SetAside("outbox_row", 3, None, "no frame"),
                SetAside("instance_row", 1, "i1", "no row"),
            ],
        )

    kept = (
        "SELECT source, row, reason, actor, due, target, last, body FROM damaged_row ORDER BY row"
    )
    assert rows(partition.tables, kept) == [
        ("mail_row", 1, "no message", "i1", None, None, None, '["x"]'),
        ("timer_row", 2, "no time", "i1", 5, None, None, "[]"),
        ("outbox_row", 3, "no frame", None, None, 1, 9, "[]"),
    ]
    assert partition.take().parked == ["i1"]


class Slow:
    """A takeover that takes until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.closed: list[str] = []
        self.taken = cast("Taken", self)

    def __call__(self) -> Taken:
        self.begun.set()
        self.may_end.wait(10)
        return self.taken

    def close(self) -> None:
        self.closed.append("closed")


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.may_end.set()


async def test_what_is_taken_over_is_given(slow: Slow) -> None:
    slow.may_end.set()

    assert await Takeover().run(slow) is slow.taken
    assert slow.closed == []


async def test_what_fails_is_raised_and_lets_the_next_one_in(slow: Slow) -> None:
    def fail() -> Taken:
        raise KeyError("no")

    takeover = Takeover()
    with pytest.raises(KeyError):
        await takeover.run(fail)
    slow.may_end.set()

    assert await takeover.run(slow) is slow.taken


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_nobody_waits_for_any_more_is_closed_and_what_has_not_begun_never_does(
    slow: Slow,
) -> None:
    import asyncio

    takeover, late = Takeover(), Slow()
    first = asyncio.create_task(takeover.run(slow))
    await to_thread.run_sync(slow.begun.wait)
    second = asyncio.create_task(takeover.run(late))
    while not takeover.is_under_way:
        await anyio.lowlevel.checkpoint()
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    slow.may_end.set()
    await to_thread.run_sync(takeover.wait)

    assert slow.closed == ["closed"]
    assert not late.begun.is_set()
