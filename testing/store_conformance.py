"""What every store must do: a class of tests that needs only a fixture ``store``.

Its tests are run by pytest with anyio's plugin, and draw values by hypothesis.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ..actors.errors import (
    LeaseLostError,
    StorageError,
    StoreInUseError,
    StoreVersionError,
    UsageError,
)
from ..storage import (
    ActivityRow,
    Checkpoint,
    ChunkRow,
    CreatedRow,
    EntityFilter,
    EntityRow,
    InstanceFilter,
    MailRow,
    OutboxRow,
    PartitionStore,
    PeerRow,
    ProgressRow,
    Recovered,
    RequestRow,
    Store,
    TimerRow,
)
from ..storage.records import SLICE_ROWS, SLICE_SIZE


def created(id: int, **changes: Any) -> CreatedRow:
    """Give a row of an instance that is created."""
    row = CreatedRow(id, f"i{id}", "crawl", None, 1, 100 + id, None, 0, 0, None, None, None)
    return row._replace(**changes)


def progress(id: int, status: str = "Running", **changes: Any) -> ProgressRow:
    """Give a row of how far an instance is."""
    row = ProgressRow(id, status, 200 + id, None, 0, 0, None, None, None, None, None)
    return row._replace(**changes)


def entity(id: int, name: str = "counter", **changes: Any) -> EntityRow:
    """Give a row of an entity."""
    row = EntityRow(id, name, f"e{id}", 300 + id, b"1", None, None, None)
    return row._replace(**changes)


class Owner:
    """A recovered partition that numbers its checkpoints, as a hub would."""

    def __init__(self, partition: PartitionStore, recovered: Recovered) -> None:
        self.partition = partition
        self.recovered = recovered
        self.sequence = recovered.sequence

    async def commit(self, **parts: Any) -> None:
        """Commit the next checkpoint, which has these parts."""
        await self.partition.commit(
            Checkpoint(sequence=self.sequence + 1, epoch=self.recovered.epoch, **parts)
        )
        self.sequence += 1

    async def keys(self, **conditions: Any) -> list[str]:
        """Name the instances that match."""
        found = await self.partition.query_instances(InstanceFilter(**conditions))
        return [row.key for row in found]

    async def entity_keys(self, **conditions: Any) -> list[str]:
        """Name the entities that match, by their keys."""
        found = await self.partition.query_entities(EntityFilter(**conditions))
        return [row.key for row in found]


async def own(store: Store, partitions: int = 1) -> Owner:
    """Open a store and own its first partition."""
    partition = (await store.open(partitions))[0]
    return Owner(partition, await partition.recover())


async def reopen(store: Store) -> Owner:
    """Close a store and own it anew."""
    await store.close()
    return await own(store)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
TRICKY = [
    None,
    [],
    {},
    "",
    [None],
    {"": None},
    0,
    -1,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    1e300,
    1e-7,
    0.1,
    -0.0,
    5e-324,
    True,
    "\x00",
    "a\x00b",
    '"\\/\b\f\n\r\t',
    "\u2028\ud7ff\ue000\U0010ffff é",
    "null",
    {"a.b": 1, "a[0]": 2, '"': 3, "$": {"#": [4]}},
]
#: What to ask for, and which instances of a crowd come.
PAGES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [2, 4, 1, 3, 6, 8, 5, 7, 10, 12, 9, 11]),
    ({"statuses": ("Failed",)}, [2, 6, 10]),
    ({"statuses": ("Failed", "Completed", "Failed")}, [2, 1, 6, 5, 10, 9]),
    ({"statuses": ("Canceled",)}, []),
    ({"name": "index"}, [8, 7, 10, 12, 9, 11]),
    ({"prefix": "odd-"}, [1, 3, 5, 7, 9, 11]),
    ({"prefix": "odd-0"}, [1, 3, 5, 7, 9]),
    ({"prefix": "%"}, []),
    ({"prefix": ""}, [2, 4, 1, 3, 6, 8, 5, 7, 10, 12, 9, 11]),
    ({"created_from": 101}, [6, 8, 5, 7, 10, 12, 9, 11]),
    ({"created_to": 101}, [2, 4, 1, 3]),
    ({"created_from": 101, "created_to": 102}, [6, 8, 5, 7]),
    ({"updated_from": 1011}, [12, 11]),
    ({"updated_to": 1003}, [2, 1]),
    ({"updated_from": 1003, "updated_to": 1005}, [4, 3]),
    ({"completed_from": 2006}, [6, 10, 9]),
    ({"completed_to": 2006}, [2, 1, 5]),
    ({"completed_from": 2002, "completed_to": 2006}, [2, 5]),
    ({"parent": "p1"}, [4, 3]),
    ({"parents": ("p0", "p1")}, [4, 3]),
    ({"newest": True}, [11, 9, 12, 10, 7, 5, 8, 6, 3, 1, 4, 2]),
    ({"newest": True, "statuses": ("Failed", "Completed")}, [9, 10, 5, 6, 1, 2]),
    ({"newest": True, "updated_from": 1011}, [11, 12]),
    ({"failure_type": "OSError"}, [2, 6]),
    ({"parked": True}, [7]),
    ({"waits": "event:go"}, [4, 3, 12, 11]),
    ({"waits": "event:go", "newest": True}, [11, 12, 3, 4]),
    ({"waits": "event:go", "created_from": 101}, [12, 11]),
    ({"waits": "event:go", "after": (100, "even-04"), "limit": 2}, [3, 12]),
    ({"waits": "event:go", "after": (102, "even-12"), "newest": True}, [3, 4]),
    ({"waits": "event:go", "statuses": ("Running", "Suspended")}, [4, 3, 12, 11]),
    ({"waits": "event:go", "name": "index", "updated_from": 1012}, [12]),
    ({"waits": "timer", "parent": "p1"}, [4]),
    ({"waits": "go"}, []),
    ({"attempts": 2}, [8, 12]),
    ({"attempts": 3}, [8]),
    ({"attempts": 2, "waits": "event:go"}, [12]),
    ({"parked": False, "created_from": 101, "created_to": 102}, [6, 8, 5]),
    ({"tags": (("color", "blue"),)}, [3, 6, 12, 9]),
    ({"tags": (("color", "blue"), ("size", "xl")), "name": "crawl"}, [3, 6]),
    ({"tags": (("n", "3"),)}, []),
    ({"tags": (("nothing", "x"),)}, []),
    ({"after": (101, "even-08")}, [5, 7, 10, 12, 9, 11]),
    ({"after": (101, "even-08"), "limit": 3}, [5, 7, 10]),
    ({"after": (100, "")}, [2, 4, 1, 3, 6, 8, 5, 7, 10, 12, 9, 11]),
    ({"after": (102, "z")}, []),
    ({"limit": 2}, [2, 4]),
    ({"limit": 0}, []),
    ({"statuses": ("Failed", "Running"), "limit": 3, "after": (100, "even-02")}, [4, 6, 8]),
    ({"statuses": ("Failed",), "name": "crawl", "prefix": "even", "parked": False}, [2, 6]),
]
#: The same, of entities.
PAGES_OF_ENTITIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["a1", "a2", "b1", "a1", "b2"]),
    ({"include_empty": True}, ["a1", "a2", "b1", "b3", "a1", "b2"]),
    ({"name": "counter"}, ["a1", "a2", "b1"]),
    ({"name": "none"}, []),
    ({"prefix": "a"}, ["a1", "a2", "a1"]),
    ({"name": "room", "prefix": "a"}, ["a1"]),
    ({"updated_from": 13}, ["b1", "a1", "b2"]),
    ({"updated_to": 12}, ["a1"]),
    ({"updated_from": 12, "updated_to": 14}, ["a2", "b1"]),
    ({"locked": True}, ["a2"]),
    ({"locked": True, "include_empty": True}, ["a2", "b3"]),
    ({"locked": False, "name": "counter"}, ["a1", "b1"]),
    ({"parked": True}, ["b2"]),
    ({"parked": False}, ["a1", "a2", "b1", "a1"]),
    ({"locked": True, "parked": True, "include_empty": True}, []),
    ({"after": ("counter", "a2")}, ["b1", "a1", "b2"]),
    ({"after": ("counter", "z"), "limit": 1}, ["a1"]),
    ({"after": ("counter", "a1"), "prefix": "a"}, ["a2", "a1"]),
    ({"limit": 0}, []),
]
COUNTED: list[dict[str, Any]] = [
    {},
    {"statuses": ("Failed", "Completed")},
    {"prefix": "odd-"},
    {"tags": (("size", "xl"),)},
]
DEEP = b"[" * 250 + b"]" * 250


class StoreConformance:
    """Claims about any store: see ``perdure.storage`` for the contract.

    A test class of yours derives from it, and has a fixture ``store`` that gives a new, closed,
    empty store, which finds its rows when it is opened again after it was closed::

        class TestMyStore(StoreConformance):
            @pytest.fixture
            def store(self, tmp_path: Path) -> Store:
                return MyStore(tmp_path)

    It takes pytest, hypothesis, and anyio's plugin (``anyio_mode = "auto"``).
    """

    @pytest.fixture
    async def owner(self, store: Store) -> AsyncIterator[Owner]:
        yield await own(store)
        await store.close()

    # Opening and owning.

    async def test_a_new_store_is_empty(self, owner: Owner) -> None:
        assert owner.recovered == Recovered(0, owner.recovered.epoch, 1, 1, [], [], [], [], [], [])
        assert await owner.keys() == []
        assert await owner.entity_keys() == []

    async def test_a_store_says_how_durable_it_is(self, store: Store) -> None:
        assert store.durability

    async def test_partitions_are_apart(self, store: Store) -> None:
        first, second = await store.open(2)
        owners = [Owner(each, await each.recover()) for each in (first, second)]

        await owners[0].commit(created=[created(1)])

        assert await owners[1].keys() == []
        await owners[1].commit(created=[created(1)])
        await store.close()

    async def test_an_open_store_is_refused_to_others(self, store: Store, owner: Owner) -> None:
        with pytest.raises(StoreInUseError):
            await store.open(1)

        await owner.commit(created=[created(1)])

    async def test_another_number_of_partitions_is_refused(self, store: Store) -> None:
        await store.open(2)
        await store.close()

        with pytest.raises(StoreVersionError, match="2"):
            await store.open(3)

        assert len(await store.open(2)) == 2
        await store.close()

    async def test_no_partitions_are_refused(self, store: Store) -> None:
        with pytest.raises(UsageError):
            await store.open(0)

    async def test_closing_twice_or_unopened_does_nothing(self, store: Store) -> None:
        await store.close()
        await store.open(1)
        await store.close()
        await store.close()

    async def test_a_closed_store_refuses_calls(self, store: Store) -> None:
        owner = await own(store)
        await store.close()

        with pytest.raises(StorageError):
            await owner.commit()
        with pytest.raises(StorageError):
            await owner.partition.recover()
        with pytest.raises(StorageError):
            await owner.keys()

    # Epochs and sequence.

    async def test_every_recovery_gets_a_greater_epoch(self, store: Store) -> None:
        owner = await own(store)
        again = await owner.partition.recover()
        later = await reopen(store)

        assert owner.recovered.epoch < again.epoch < later.recovered.epoch
        await store.close()

    async def test_an_older_epoch_is_fenced(self, owner: Owner) -> None:
        await owner.commit(created=[created(1)])
        newer = Owner(owner.partition, await owner.partition.recover())

        with pytest.raises(LeaseLostError):
            await owner.commit(created=[created(2)], mail=[MailRow(1, "i1", b"1")])

        assert await owner.keys() == ["i1"]
        assert await owner.partition.waiting(["i1"]) == {}
        await newer.commit(created=[created(2)])

    @pytest.mark.parametrize("step", [-1, 0, 2])
    async def test_a_wrong_sequence_is_refused(self, owner: Owner, step: int) -> None:
        await owner.commit(created=[created(1)])
        wrong = Checkpoint(owner.sequence + step, owner.recovered.epoch, created=[created(2)])

        with pytest.raises(LeaseLostError):
            await owner.partition.commit(wrong)

        assert await owner.keys() == ["i1"]
        await owner.commit()

    async def test_the_sequence_is_recovered(self, store: Store) -> None:
        owner = await own(store)
        await owner.commit()
        await owner.commit()

        owner = await reopen(store)

        assert owner.recovered.sequence == 2
        await owner.commit()
        await store.close()

    async def test_a_refused_row_leaves_nothing_of_its_checkpoint(self, owner: Owner) -> None:
        await owner.commit(created=[created(1)])

        with pytest.raises(StorageError):
            await owner.commit(
                created=[created(2), created(3, key="i2")],
                progress=[progress(1, "Failed")],
                mail=[MailRow(7, "i1", b"1")],
            )

        assert await owner.keys(statuses=("Pending",)) == ["i1"]
        assert await owner.partition.waiting(["i1"]) == {}
        recovered = await owner.partition.recover()
        assert (recovered.sequence, recovered.next_id, recovered.next_row) == (1, 2, 1)

    # Instances.

    async def test_created_and_progress_give_the_record(self, store: Store) -> None:
        owner = await own(store)
        new = CreatedRow(
            1, "i/1 é", "crawl", "v2", 3, 10, "p", 4, 5, b'{"a":"b"}', b'{"x":[1,2]}', 99
        )
        done = ProgressRow(
            1, "Failed", 20, 30, 2, 9, b"[1]", b'{"m":"no"}', "OSError", b'"half"', b'"poison"'
        )
        await owner.commit(created=[new], progress=[done])

        owner = await reopen(store)

        [record] = await owner.partition.read_instances(["i/1 é", "other"])
        assert record == (*new, *done[1:])
        assert await owner.partition.query_instances(InstanceFilter()) == [record]
        await store.close()

    async def test_an_instance_begins_pending(self, owner: Owner) -> None:
        await owner.commit(created=[created(1)])

        [record] = await owner.partition.read_instances(["i1"])
        assert record == (*created(1), *progress(1, "Pending", updated=101)[1:])

    async def test_progress_overwrites_all_of_its_columns(self, owner: Owner) -> None:
        full = progress(
            1, "Failed", completed=5, output=b"1", failure=b"2", failure_type="E", parked=b"3"
        )
        await owner.commit(created=[created(1, input=b"7")], progress=[full])

        await owner.commit(progress=[progress(1), progress(1, updated=999)])

        [record] = await owner.partition.read_instances(["i1"])
        assert record == (*created(1, input=b"7"), *progress(1, updated=999)[1:])

    async def test_a_next_execution_replaces_the_row(self, owner: Owner) -> None:
        ended = progress(1, "Completed", completed=5, output=b"1", custom_status=b"2")
        await owner.commit(
            created=[created(1, input=b"1", tags=b'{"a":"b"}')],
            progress=[ended],
            history=[ChunkRow(1, 0, b"[1]"), ChunkRow(1, 1, b"[2]")],
        )

        following = created(1, execution=2, created=500)
        await owner.commit(
            rewritten=[1],
            created=[following],
            progress=[progress(1)],
            history=[ChunkRow(1, 0, b"[3]")],
        )

        [record] = await owner.partition.read_instances(["i1"])
        assert record == (*following, *progress(1)[1:])
        assert await owner.partition.read_history(1) == [b"[3]"]
        assert await owner.keys(statuses=("Completed",)) == []

    async def test_a_purge_deletes_the_instance_and_its_history(self, owner: Owner) -> None:
        await owner.commit(
            created=[created(1), created(2)],
            history=[ChunkRow(1, 0, b"[1]"), ChunkRow(2, 0, b"[2]")],
        )

        await owner.commit(purged=[1, 77])

        assert await owner.keys() == ["i2"]
        assert await owner.partition.read_history(1) == []
        assert await owner.partition.read_history(2) == [b"[2]"]
        assert await owner.partition.read_instances(["i1"]) == []

    async def test_a_purged_key_is_free_in_the_same_checkpoint(self, owner: Owner) -> None:
        await owner.commit(created=[created(1, key="k")])

        await owner.commit(purged=[1], created=[created(2, key="k")])

        [record] = await owner.partition.read_instances(["k"])
        assert record.id == 2

    async def test_reading_a_key_twice_gives_it_once(self, owner: Owner) -> None:
        await owner.commit(created=[created(1)], entities=[entity(2)])

        assert len(await owner.partition.read_instances(["i1", "i1"])) == 1
        assert len(await owner.partition.read_entities([("counter", "e2")] * 2)) == 1
        assert await owner.partition.read_instances([]) == []
        assert await owner.partition.read_entities([]) == []

    async def test_unanswered_are_live_instances_with_pending_activities(
        self, store: Store
    ) -> None:
        owner = await own(store)
        live = ("Pending", "Running", "Suspended", "ContinuedAsNew")
        ended = ("Completed", "Failed", "Canceled", "Terminated")
        rows = [progress(n, status, pending=2) for n, status in enumerate(live + ended, 1)]
        await owner.commit(created=[created(n) for n in range(1, 10)], progress=rows)

        owner = await reopen(store)

        assert sorted(owner.recovered.unanswered) == ["i1", "i2", "i3", "i4"]
        await owner.commit(progress=[progress(1)])
        assert sorted((await owner.partition.recover()).unanswered) == ["i2", "i3", "i4"]
        await store.close()

    async def test_parked_actors_are_recovered_by_key(self, store: Store) -> None:
        owner = await own(store)
        await owner.commit(
            created=[created(1), created(2)],
            progress=[progress(1, parked=b'"why"')],
            entities=[entity(3, parked=b"null"), entity(4)],
        )

        owner = await reopen(store)

        assert sorted(owner.recovered.parked) == ["@counter@e3", "i1"]
        await store.close()

    # Histories.

    async def test_a_history_is_read_in_order_of_seq(self, owner: Owner) -> None:
        chunks = [ChunkRow(1, 2, b"[3,4]"), ChunkRow(2, 0, b"[9]"), ChunkRow(1, 0, b"[1,2]")]
        await owner.commit(created=[created(1)], history=chunks)
        await owner.commit(history=[ChunkRow(1, 4, b"[5]")])

        read = await owner.partition.read_history(1)
        assert [event for chunk in read for event in orjson.loads(chunk)] == [1, 2, 3, 4, 5]
        assert await owner.partition.read_history(3) == []

    async def test_a_part_of_a_history_is_read_with_the_chunks_that_it_lies_in(
        self, owner: Owner
    ) -> None:
        chunks = [ChunkRow(1, 0, b"[1,2]"), ChunkRow(1, 2, b"[3,4]"), ChunkRow(2, 0, b"[9]")]
        await owner.commit(created=[created(1)], history=chunks)
        await owner.commit(history=[ChunkRow(1, 4, b"[5]")])

        for first in range(6):
            for end in range(first + 1, 7):
                part = await owner.partition.read_history_part(1, first, end)
                events = [event for chunk in part for event in orjson.loads(chunk.body)]
                place = part[0].seq
                assert place <= first
                assert events[first - place : end - place] == [1, 2, 3, 4, 5][first:end]
        assert await owner.partition.read_history_part(3, 0, 5) == []

    async def test_a_rewrite_forgets_only_older_chunks(self, owner: Owner) -> None:
        await owner.commit(history=[ChunkRow(1, 0, b"[1]"), ChunkRow(2, 0, b"[2]")])

        await owner.commit(rewritten=[1], history=[ChunkRow(1, 1, b"[3]")])

        assert await owner.partition.read_history(1) == [b"[3]"]
        assert await owner.partition.read_history(2) == [b"[2]"]

    # Entities.

    async def test_an_entity_is_replaced_and_deleted(self, store: Store) -> None:
        owner = await own(store)
        full = entity(1, state=b'{"a":1}', lock=b'"i1"', failures=b"[1]", parked=b'"p"')
        await owner.commit(entities=[full, entity(2)])
        assert await owner.partition.read_entities([("counter", "e1")]) == [full]

        bare = entity(1, state=None, updated=999)
        await owner.commit(entities=[bare, entity(3)], entities_deleted=[2, 3, 77])

        owner = await reopen(store)
        wanted = [("counter", f"e{n}") for n in range(4)]
        assert await owner.partition.read_entities(wanted) == [bare]
        await store.close()

    # Activities that are to run although their instance has ended.

    async def test_activities_are_recovered_until_they_are_deleted(
        self, store: Store, owner: Owner
    ) -> None:
        rows = [ActivityRow(n, 1, b'[["i1",1,%d],"charge"]' % n) for n in range(3, 7)]
        await owner.commit(created=[created(1)], activities=rows, activities_deleted=[6])
        await owner.commit(activities_deleted=[4, 77])

        assert (await owner.partition.recover()).activities == [rows[0], rows[2]]
        assert (await reopen(store)).recovered.activities == [rows[0], rows[2]]

    async def test_live_instances_of_unknown_names_and_versions_are_found(
        self, owner: Owner
    ) -> None:
        rows = [
            created(1),
            created(2, version="1"),
            created(3, version="2"),
            created(4, name="gone"),
            created(5, name="gone"),
            created(6, name="gone", version=""),
        ]
        await owner.commit(created=rows, progress=[progress(5, "Failed"), progress(4, "Suspended")])

        known = [("crawl", None), ("crawl", "1"), ("other", "2"), ("gone", "2")]
        assert sorted(await owner.partition.find_unknown(known)) == ["i3", "i4", "i6"]
        assert len(await owner.partition.find_unknown([])) == 5

    async def test_activities_are_purged_with_their_instance(self, owner: Owner) -> None:
        rows = [ActivityRow(1, 1, b"[1]"), ActivityRow(2, 2, b"[2]")]
        await owner.commit(created=[created(1), created(2)], activities=rows)
        await owner.commit(purged=[1], activities=[ActivityRow(3, 1, b"[3]")])

        recovered = await owner.partition.recover()

        assert recovered.activities == [rows[1], ActivityRow(3, 1, b"[3]")]

    # Mail, timers, outbox, peers, requests.

    async def test_messages_are_recovered_in_order_until_deleted(self, store: Store) -> None:
        owner = await own(store)
        await owner.commit(
            mail=[MailRow(3, "a", b"3"), MailRow(1, "a", b"null"), MailRow(2, "b", b'{"x":1}')],
            timers=[TimerRow(5, 99, "a", b"5"), TimerRow(4, 100, "b", b"4")],
            outbox=[OutboxRow(6, 1, 10, b"[1]"), OutboxRow(7, 2, 11, b"[2,3]")],
        )
        await owner.commit(mail_deleted=[3, 77], timers_deleted=[4], outbox_deleted=[7])

        recovered = (await reopen(store)).recovered

        assert recovered.mail == [MailRow(1, "a", b"null"), MailRow(2, "b", b'{"x":1}')]
        assert recovered.timers == [TimerRow(5, 99, "a", b"5")]
        assert recovered.outbox == [OutboxRow(6, 1, 10, b"[1]")]
        await store.close()

    async def test_a_row_put_and_deleted_at_once_is_gone_and_counts(self, owner: Owner) -> None:
        await owner.commit(
            entities=[entity(8)],
            entities_deleted=[8],
            mail=[MailRow(3, "a", b"3")],
            mail_deleted=[3],
        )

        recovered = await owner.partition.recover()
        assert (recovered.next_id, recovered.next_row, recovered.mail) == (9, 4, [])
        assert await owner.entity_keys() == []

    @pytest.mark.parametrize("kind", ["mail", "timers", "outbox", "activities"])
    async def test_row_numbers_never_go_back(self, store: Store, kind: str) -> None:
        owner = await own(store)
        row = {
            "mail": MailRow(41, "a", b"1"),
            "timers": TimerRow(41, 1, "a", b"1"),
            "outbox": OutboxRow(41, 1, 1, b"[1]"),
            "activities": ActivityRow(41, 1, b"[1]"),
        }[kind]
        await owner.commit(**{kind: [row]})
        await owner.commit(**{f"{kind}_deleted": [41]})

        assert (await reopen(store)).recovered.next_row == 42
        await store.close()

    async def test_ids_never_go_back(self, store: Store) -> None:
        owner = await own(store)
        await owner.commit(created=[created(7)], entities=[entity(9)])
        assert (await owner.partition.recover()).next_id == 10
        owner = Owner(owner.partition, await owner.partition.recover())
        await owner.commit(purged=[7], entities_deleted=[9])

        assert (await reopen(store)).recovered.next_id == 10
        await store.close()

    async def test_waiting_counts_the_mail_of_each_actor(self, owner: Owner) -> None:
        await owner.commit(mail=[MailRow(n, "ab"[n % 2], b"1") for n in range(1, 6)])
        assert await owner.partition.waiting(["b"]) == {"b": 3}

        await owner.commit(mail_deleted=[1, 2])

        assert await owner.partition.waiting(["a", "b", "b"]) == {"a": 1, "b": 2}
        assert await owner.partition.waiting(["c"]) == {}
        assert await owner.partition.waiting([]) == {}

    async def test_mail_is_read_back_in_slices_and_in_order(self, owner: Owner) -> None:
        await owner.commit(mail=[MailRow(n, "ab"[n % 2], b"%d" % n) for n in range(9, 0, -1)])
        await owner.partition.apply()  # so that some of it lies elsewhere than the rest
        await owner.commit(mail=[MailRow(n, "ab"[n % 2], b"%d" % n) for n in range(10, 20)])
        await owner.commit(mail_deleted=[2, 4, 12])
        read = owner.partition.read_mail

        numbers: list[int] = []
        while some := await read("a", numbers[-1] if numbers else 0, 17, 2):
            assert all(row == MailRow(row.n, "a", b"%d" % row.n) for row in some)
            assert len(some) <= 2
            numbers += [row.n for row in some]

        assert numbers == [6, 8, 10, 14, 16]
        assert [row.n for row in await read(None, 3, 15)] == [5, 6, 7, 8, 9, 10, 11, 13, 14, 15]
        first = [row.n for row in await read(None, 11, 99, 3)]
        assert first
        assert first == [13, 14, 15][: len(first)]
        assert await read("c", 0, 99) == []
        assert await read("a", 18, 99) == []

    async def test_frames_are_read_back_in_slices_and_in_order(self, owner: Owner) -> None:
        await owner.commit(outbox=[OutboxRow(n, n % 2, n * 10, b"[]") for n in range(1, 10)])
        await owner.partition.apply()
        await owner.commit(outbox=[OutboxRow(n, n % 2, n * 10, b"[]") for n in range(10, 14)])
        await owner.commit(outbox_deleted=[1, 5, 11])
        read = owner.partition.read_outbox

        numbers: list[int] = []
        while some := await read(1, numbers[-1] if numbers else 0, 2):
            assert all(row == OutboxRow(row.n, 1, row.n * 10, b"[]") for row in some)
            numbers += [row.n for row in some]

        assert numbers == [3, 7, 9, 13]
        assert [row.n for row in await read(0, 3)] == [4, 6, 8, 10, 12]

    async def test_a_slice_ends_with_the_row_that_makes_it_large(self, owner: Owner) -> None:
        large = b'"%b"' % (b"x" * (SLICE_SIZE // 2))
        await owner.commit(
            mail=[MailRow(n, "a", large) for n in range(1, 8)],
            outbox=[OutboxRow(n, 1, n, large) for n in range(11, 18)],
        )
        for _ in range(2):
            assert [row.n for row in await owner.partition.read_mail("a", 2, 99)] == [3, 4]
            assert [row.n for row in await owner.partition.read_mail(None, 0, 99)] == [1, 2]
            assert [row.n for row in await owner.partition.read_outbox(1, 12)] == [13, 14]
            await owner.partition.apply()

        recovered = await owner.partition.recover()
        assert [row.n for row in recovered.mail] == [1, 2]
        assert [row.n for row in recovered.outbox] == [11, 12]

    async def test_what_is_recovered_of_mail_and_outbox_is_one_slice(self, owner: Owner) -> None:
        numbers = range(1, SLICE_ROWS + 10)
        await owner.commit(
            mail=[MailRow(n, "a", b"1") for n in numbers],
            outbox=[OutboxRow(n, 1, n, b"[]") for n in numbers],
        )

        recovered = await owner.partition.recover()

        assert [row.n for row in recovered.mail] == list(numbers[:SLICE_ROWS])
        assert [row.n for row in recovered.outbox] == list(numbers[:SLICE_ROWS])
        rest = await owner.partition.read_mail(None, SLICE_ROWS, 2**62)
        assert [row.n for row in rest] == list(numbers[SLICE_ROWS:])

    async def test_a_peer_is_replaced(self, store: Store) -> None:
        owner = await own(store)
        await owner.commit(peers=[PeerRow(2, 1, 1), PeerRow(1, 5, 6)])
        await owner.commit(peers=[PeerRow(2, 3, 4)])

        assert (await reopen(store)).recovered.peers == [PeerRow(1, 5, 6), PeerRow(2, 3, 4)]
        await store.close()

    async def test_requests_are_kept_until_they_expire(self, store: Store) -> None:
        owner = await own(store)
        rows = [RequestRow("a", 10, b"null"), RequestRow("b", 20, b'{"v":1}')]
        await owner.commit(requests=rows)
        assert await owner.partition.read_request("a") == rows[0]

        await owner.commit(
            requests=[RequestRow("c", 5, b"1"), RequestRow("b", 21, b"2")],
            requests_deleted_before=21,
        )

        owner = await reopen(store)
        assert await owner.partition.read_request("a") is None
        assert await owner.partition.read_request("b") == RequestRow("b", 21, b"2")
        assert await owner.partition.read_request("c") is None
        await store.close()

    # JSON.

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(value=JSON)
    async def test_json_comes_back_as_it_was(self, owner: Owner, value: object) -> None:
        await _check_round_trip(owner, orjson.dumps(value))

    async def test_tricky_json_comes_back_as_it_was(self, owner: Owner) -> None:
        for value in TRICKY:
            await _check_round_trip(owner, orjson.dumps(value))

    async def test_deep_and_long_json_comes_back_as_it_was(self, owner: Owner) -> None:
        await _check_round_trip(owner, DEEP)
        await _check_round_trip(owner, orjson.dumps(["x" * 1_000_000, list(range(10_000))]))

    # Pages of instances.

    @pytest.fixture
    async def crowd(self, owner: Owner) -> Owner:
        """Twelve instances; ``created`` is 100 for 1 to 4, 101 for 5 to 8, 102 for the rest."""
        statuses = ("Running", "Completed", "Failed", "Suspended")
        rows = [
            created(
                n,
                key=f"{'odd' if n % 2 else 'even'}-{n:02}",
                created=100 + (n - 1) // 4,
                name="crawl" if n <= 6 else "index",
                parent="p1" if n in (3, 4) else None,
                tags=orjson.dumps({"color": "red" if n % 3 else "blue", "n": n, "size": "xl"}),
                input=b"[%d]" % n,
            )
            for n in range(12, 0, -1)
        ]
        ended = {1, 2}
        go = b'["event:go"]'
        waits = {3: go, 4: b'["timer","event:go"]', 8: b'["activity:work"]', 11: go, 12: go}
        moves = [
            progress(
                n,
                statuses[n % 4],
                updated=1000 + n,
                completed=2000 + n if n % 4 in ended else None,
                output=b"%d" % n,
                failure_type="OSError" if n in (2, 6) else None,
                parked=b'"why"' if n == 7 else None,
                waits=waits.get(n),
                attempts={8: 3, 12: 2}.get(n),
            )
            for n in range(1, 13)
        ]
        await owner.commit(created=rows, progress=moves)
        return owner

    async def test_a_page_has_what_the_filter_names(self, crowd: Owner) -> None:
        found = [(conditions, await crowd.keys(**conditions)) for conditions, _ in PAGES]

        assert found == [
            (conditions, [f"{'odd' if n % 2 else 'even'}-{n:02}" for n in numbers])
            for conditions, numbers in PAGES
        ]

    async def test_what_instances_wait_for_goes_with_what_becomes_of_them(
        self, owner: Owner
    ) -> None:
        event = b'["event:go"]'
        await owner.commit(
            created=[created(n) for n in range(1, 6)],
            progress=[progress(n, waits=event, attempts=2) for n in range(1, 6)],
        )
        assert await owner.keys(waits="event:go") == ["i1", "i2", "i3", "i4", "i5"]

        await owner.commit(
            purged=[1],
            created=[created(4, created=90)],
            progress=[
                progress(2, "Completed"),
                progress(3, waits=b'["timer"]'),
                progress(4, waits=event),
            ],
        )

        assert await owner.keys(waits="event:go") == ["i4", "i5"]
        assert await owner.keys(waits="timer") == ["i3"]
        assert await owner.keys(attempts=2) == ["i5"]
        assert await owner.partition.count_instances(InstanceFilter(waits="event:go")) == 2
        [found] = await owner.partition.read_instances(["i5"])
        assert (found.waits, found.attempts) == (event, 2)

    async def test_pages_make_up_the_whole(self, crowd: Owner) -> None:
        every = await crowd.keys()
        for limit in (1, 5, 12, 13):
            pages: list[str] = []
            after: tuple[int, str] | None = None
            while True:
                behind = InstanceFilter(after=after, limit=limit)
                page = await crowd.partition.query_instances(behind)
                pages += [row.key for row in page]
                if len(page) < limit:
                    break
                after = (page[-1].created, page[-1].key)
            assert pages == every, limit

    @pytest.mark.parametrize("newest", [False, True])
    async def test_a_page_goes_on_behind_any_instance(self, crowd: Owner, newest: bool) -> None:
        every = await crowd.partition.query_instances(InstanceFilter(newest=newest))
        for number, row in enumerate(every):
            behind = InstanceFilter(newest=newest, after=(row.created, row.key), limit=3)
            found = await crowd.partition.query_instances(behind)
            assert found == every[number + 1 : number + 4]

    async def test_a_count_is_of_all_pages(self, crowd: Owner) -> None:
        for conditions in COUNTED:
            every = await crowd.keys(**conditions)

            some = InstanceFilter(**conditions, limit=1, after=(101, "x"))
            assert await crowd.partition.count_instances(some) == len(every)

    async def test_single_reads_may_leave_payloads_out(self, crowd: Owner) -> None:
        keys = ["odd-01", "even-02", "nobody"]
        whole = await crowd.partition.read_instances(keys)
        lean = await crowd.partition.read_instances(keys, payloads=False)

        bare = [row._replace(input=None, output=None) for row in whole]
        assert sorted(row._replace(input=None, output=None) for row in lean) == sorted(bare)

    async def test_payloads_can_be_left_out(self, crowd: Owner) -> None:
        [with_them] = await crowd.partition.query_instances(InstanceFilter(prefix="odd-01"))
        [without] = await crowd.partition.query_instances(
            InstanceFilter(prefix="odd-01", payloads=False)
        )

        assert (with_them.input, with_them.output) == (b"[1]", b"1")
        assert without == with_them._replace(input=None, output=None)

    async def test_a_prefix_may_end_in_the_last_character(self, owner: Owner) -> None:
        keys = ["a", "a\ud7ff", "a\ud7ffb", "a\ue000", "a\U0010ffff", "a\U0010ffffz", "b"]
        await owner.commit(created=[created(n, key=key) for n, key in enumerate(keys, 1)])

        assert await owner.keys(prefix="a\ud7ff") == keys[1:3]
        assert await owner.keys(prefix="a\U0010ffff") == keys[4:6]

    # Pages of entities.

    async def test_a_page_has_the_entities_that_the_filter_names(self, owner: Owner) -> None:
        await owner.commit(
            entities=[
                entity(6, "room", key="b2", updated=15, parked=b"1"),
                entity(5, "room", key="a1", updated=14),
                entity(4, key="b3", updated=16, state=None, lock=b'"x"'),
                entity(3, key="b1", updated=13),
                entity(2, key="a2", updated=12, lock=b'"x"'),
                entity(1, key="a1", updated=11),
            ]
        )

        found = [
            (conditions, await owner.entity_keys(**conditions))
            for conditions, _ in PAGES_OF_ENTITIES
        ]

        assert found == PAGES_OF_ENTITIES

    async def test_states_can_be_left_out(self, owner: Owner) -> None:
        await owner.commit(entities=[entity(1, state=b"{}", failures=b"[]")])

        [without] = await owner.partition.query_entities(EntityFilter(states=False))

        assert without == entity(1, state=None, failures=b"[]")

    async def test_size_is_a_number_of_bytes(self, owner: Owner) -> None:
        assert await owner.partition.size() >= 0


async def _check_round_trip(owner: Owner, json: bytes) -> None:
    await owner.commit(
        purged=[1],
        created=[created(1, input=json)],
        progress=[progress(1, output=json, failure=json, custom_status=json, parked=json)],
        history=[ChunkRow(1, 0, b"[" + json + b"]")],
        entities=[entity(2, state=json, lock=json, failures=json, parked=json)],
        mail=[MailRow(1, "a", json)],
        timers=[TimerRow(2, 1, "a", json)],
        requests=[RequestRow("r", 1, json)],
    )

    [record] = await owner.partition.read_instances(["i1"])
    assert record.input == record.output == record.failure == json
    assert record.custom_status == record.parked == json
    assert await owner.partition.read_history(1) == [b"[" + json + b"]"]
    [stored] = await owner.partition.read_entities([("counter", "e2")])
    assert (stored.state, stored.lock, stored.failures, stored.parked) == (json,) * 4
    assert await owner.partition.read_request("r") == RequestRow("r", 1, json)
    recovered = await owner.partition.recover()
    owner.recovered, owner.sequence = recovered, recovered.sequence
    assert recovered.mail == [MailRow(1, "a", json)]
    assert recovered.timers == [TimerRow(2, 1, "a", json)]
