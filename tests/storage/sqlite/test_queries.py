"""Whatever index drives a page, it is the page that the memory store gives."""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, strategies as st

from perdure.storage import Checkpoint, EntityFilter, InstanceFilter, MemoryStore
from perdure.storage.encoding import encode_parts, next_numbers
from perdure.storage.memory import MemoryPartition
from perdure.storage.mended import mend_entity, mend_instance
from perdure.storage.records import ENDED, LIVE, behind_prefix
from perdure.storage.slices import unsliced
from perdure.storage.sqlite.applier import APPLY
from perdure.storage.sqlite.queries import (
    NARROW,
    choose,
    count_matches,
    entity_page,
    instance_candidates,
    instance_count,
    instance_page,
)
from perdure.storage.sqlite.schema import SCRIPTS, read_scripts
from perdure.testing.store_conformance import created, entity, progress

T = TypeVar("T")
FILE = Path("partition-00.sqlite")
KEYS = ["a", "ab", "abc", "b", "a\ud7ff", "a\ue000", "a\U0010ffff", "\U0010ffff", "a%", "A"]
NUMBERS = st.integers(0, 3)
MAYBE = st.none() | NUMBERS
NAMES = st.sampled_from(["crawl", "sing"])
PARENTS = st.sampled_from(["p", "q"])
TAGS = st.sampled_from([None, b"{}", b'{"x":"1"}', b'{"x":"1","y":"2"}', b'{"x":"2"}'])


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    c = Checkpoint(1, 1)
    for id, key in enumerate(draw(st.lists(st.sampled_from(KEYS), unique=True)), 1):
        c.created.append(
            created(
                id,
                key=key,
                name=draw(NAMES),
                created=draw(NUMBERS),
                parent=draw(st.none() | PARENTS),
                tags=draw(TAGS),
                input=b"[1]",
            )
        )
        c.progress.append(
            progress(
                id,
                draw(st.sampled_from([*LIVE[:2], *ENDED[:2]])),
                updated=draw(NUMBERS),
                completed=draw(MAYBE),
                output=draw(st.sampled_from([None, b"null"])),
                failure_type=draw(st.sampled_from([None, "E"])),
                parked=draw(st.sampled_from([None, b"{}"])),
            )
        )
    names = st.tuples(NAMES, st.sampled_from(KEYS[:7]))
    for id, (name, key) in enumerate(draw(st.lists(names, unique=True)), 20):
        c.entities.append(
            entity(
                id,
                name,
                key=key,
                updated=draw(NUMBERS),
                state=draw(st.sampled_from([None, b"1"])),
                lock=draw(st.sampled_from([None, b"{}"])),
                parked=draw(st.sampled_from([None, b"{}"])),
            )
        )
    return c


INSTANCES = st.builds(
    InstanceFilter,
    statuses=st.lists(st.sampled_from([*LIVE[:2], *ENDED[:2]]), max_size=3).map(tuple),
    name=st.none() | NAMES,
    prefix=st.sampled_from([None, "", *KEYS]),
    created_from=MAYBE,
    created_to=MAYBE,
    updated_from=MAYBE,
    updated_to=MAYBE,
    completed_from=MAYBE,
    completed_to=MAYBE,
    parent=st.none() | PARENTS,
    parents=st.lists(PARENTS, max_size=2).map(tuple),
    failure_type=st.sampled_from([None, "E"]),
    tags=st.sampled_from([(), (("x", "1"),), (("x", "1"), ("y", "2"))]),
    parked=st.none() | st.booleans(),
    newest=st.booleans(),
    after=st.none() | st.tuples(NUMBERS, st.sampled_from(KEYS)),
    limit=st.sampled_from([1, 3, 100]),
    payloads=st.booleans(),
)
# Of all conditions at once hardly a row is left.
FEW = st.builds(
    InstanceFilter,
    statuses=st.sampled_from([(), ("Pending",), ("Running", "Completed", "Running")]),
    prefix=st.sampled_from([None, "a", "b"]),
    newest=st.booleans(),
    after=st.none() | st.tuples(NUMBERS, st.sampled_from(KEYS)),
    limit=st.sampled_from([0, 1, 3, 100]),
)
ENTITIES = st.builds(
    EntityFilter,
    name=st.none() | NAMES,
    prefix=st.sampled_from([None, "", *KEYS]),
    updated_from=MAYBE,
    updated_to=MAYBE,
    locked=st.none() | st.booleans(),
    parked=st.none() | st.booleans(),
    include_empty=st.booleans(),
    after=st.none() | st.tuples(NAMES, st.sampled_from(KEYS)),
    limit=st.sampled_from([0, 1, 3, 100]),
    states=st.booleans(),
)


def done(work: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends."""
    with unsliced():
        try:
            work.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
    raise AssertionError("it suspended")


def in_memory(c: Checkpoint) -> MemoryPartition:
    [partition] = done(MemoryStore().open(1))
    done(partition.recover())
    done(partition.commit(c))
    return partition


@pytest.fixture(scope="module")
def empty() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(read_scripts(SCRIPTS))
        connection.execute("INSERT INTO meta VALUES (1, 3, 'hub', 0, 1, 0, 'perdure', 0, 1, 1, 1)")
        yield connection


@contextmanager
def applied(tables: sqlite3.Connection, c: Checkpoint) -> Generator[sqlite3.Connection]:
    """Have a checkpoint in the tables for a while."""
    tables.execute("BEGIN")
    try:
        tables.execute(APPLY, (0, 1, 1, *next_numbers(c), *encode_parts(c)))
        yield tables
    finally:
        tables.execute("ROLLBACK")


@given(checkpoints(), INSTANCES | FEW)
@example(Checkpoint(1, 1), InstanceFilter())
def test_whatever_index_drives_a_page_of_instances_is_the_same(
    empty: sqlite3.Connection, c: Checkpoint, filter: InstanceFilter
) -> None:
    expected = done(in_memory(c).query_instances(filter))
    count = done(in_memory(c).count_instances(filter))

    with applied(empty, c) as tables:
        drivers = instance_candidates(filter)
        for driver in drivers:
            rows = tables.execute(*instance_page(filter, driver)).fetchall()
            assert [mend_instance(row, FILE) for row in rows] == expected, driver
            assert tables.execute(*instance_count(filter, driver)).fetchall() == [(count,)]
        [counts] = tables.execute(*count_matches(drivers)).fetchall()
        assert len(counts) == len(drivers)
        assert all(number >= count for number in counts)


@given(checkpoints(), ENTITIES)
def test_a_page_of_entities_is_what_matches_in_order(
    empty: sqlite3.Connection, c: Checkpoint, filter: EntityFilter
) -> None:
    expected = done(in_memory(c).query_entities(filter))

    with applied(empty, c) as tables:
        rows = tables.execute(*entity_page(filter)).fetchall()

    assert [mend_entity(row, FILE) for row in rows] == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(TEXTS, TEXTS)
def test_what_has_a_prefix_lies_from_it_to_what_is_behind_it(prefix: str, text: str) -> None:
    behind = behind_prefix(prefix)

    for one in (text, prefix + text):
        assert one.startswith(prefix) is (one >= prefix and (behind is None or one < behind))
    if behind is not None:
        behind.encode()  # it can be bound


@pytest.mark.parametrize(
    ("prefix", "behind"),
    [
        ("", None),
        ("a", "b"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff\U0010ffff", None),
        ("a\ud7ff", "a\ue000"),
    ],
    ids=ascii,
)
def test_behind_a_prefix_is_the_next_text_that_can_be_written(
    prefix: str, behind: str | None
) -> None:
    assert behind_prefix(prefix) == behind


def test_what_matches_little_drives_the_page_and_else_the_order() -> None:
    found = instance_candidates(InstanceFilter(name="crawl", prefix="a"))
    assert [one.index for one in found] == ["instance_name", "instance_key"]
    name, key = found

    assert choose(found, [NARROW, NARROW - 1]) is key
    assert choose(found, [5, 6]) is name
    assert choose(found, [NARROW, NARROW]) is name
    assert choose(found, [7, 7]) is name


def test_a_range_without_bounds_offers_no_index() -> None:
    assert [one.index for one in instance_candidates(InstanceFilter(prefix=""))] == [
        "instance_created"
    ]
    ranges = instance_candidates(InstanceFilter(updated_to=1, completed_from=2))
    assert [(one.index, one.ordered) for one in ranges[1:]] == [
        ("instance_updated", False),
        ("instance_completed", False),
    ]


def test_an_instance_whose_place_cannot_be_read_is_on_no_page(empty: sqlite3.Connection) -> None:
    with applied(empty, Checkpoint(1, 1, created=[created(1), created(2)])) as tables:
        tables.execute("UPDATE instance_row SET created = 'x' WHERE id = 1")
        for driver in instance_candidates(InstanceFilter(prefix="i")):
            rows = tables.execute(*instance_page(InstanceFilter(prefix="i"), driver)).fetchall()
            assert [row[0] for row in rows] == [2]


def test_a_page_by_tag_reads_no_more_instances_than_it_shows(empty: sqlite3.Connection) -> None:
    filter = InstanceFilter(tags=(("x", "1"), ("y", "2")), newest=True)
    drivers = instance_candidates(filter)
    assert [(one.index, one.tag) for one in drivers] == [
        ("tag_row", ("x", "1")),
        ("tag_row", ("y", "2")),
    ]

    sql, values = instance_page(filter, drivers[0])
    plan = [row[3] for row in empty.execute(f"EXPLAIN QUERY PLAN {sql}", values)]

    assert "SEARCH tag_row USING PRIMARY KEY (tag=? AND value=?)" in plan
    assert not [step for step in plan if "SCAN instance_row" in step]


def test_the_tags_of_an_instance_are_found_until_it_is_purged(empty: sqlite3.Connection) -> None:
    tagged = "SELECT tag, value, begun, instance FROM tag_row ORDER BY tag"
    first = Checkpoint(1, 1, created=[created(1, created=7, tags=b'{"x":"1","y":"2","n":3}')])
    with applied(empty, first) as tables:
        assert tables.execute(tagged).fetchall() == [("x", "1", 7, 1), ("y", "2", 7, 1)]
        anew = Checkpoint(2, 1, created=[created(1, created=9, tags=b'{"x":"2"}')])
        tables.execute(APPLY, (1, 2, 1, *next_numbers(anew), *encode_parts(anew)))
        assert tables.execute(tagged).fetchall() == [("x", "2", 9, 1)]
        purge = Checkpoint(3, 1, purged=[1])
        tables.execute(APPLY, (2, 3, 1, *next_numbers(purge), *encode_parts(purge)))
        assert tables.execute(tagged).fetchall() == []
