from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from perdure import UnavailableError
from perdure.adapters.cli import load
from perdure.adapters.cli.load import render, show_load
from perdure.runtime.statistics import (
    HubStatistics,
    PartitionStatistics,
    ShardStatistics,
    SilentShard,
)


def partition(index: int = 0, shard: int = 0, **counts: Any) -> PartitionStatistics:
    """A partition that has done nothing but what is said."""
    nothing = dict.fromkeys(
        (
            *("commits", "turns", "messages", "sent_away", "failed_operations", "failed_calls"),
            *("waiting", "activations", "stored_bytes"),
        ),
        0,
    )
    given: dict[str, Any] = {**nothing, **counts}
    return PartitionStatistics(index=index, shard=shard, **given)


def shard(index: int = 0, *partitions: int, pid: int = 70, busy_s: float = 0.0) -> ShardStatistics:
    return ShardStatistics(index=index, pid=pid, busy_s=busy_s, activities=0, partitions=partitions)


def hub(
    *partitions: PartitionStatistics,
    shards: tuple[ShardStatistics, ...] = (shard(0, 0),),
    silent: tuple[SilentShard, ...] = (),
) -> HubStatistics:
    return HubStatistics(partitions=partitions, shards=shards, silent=silent)


def shown(before: HubStatistics, now: HubStatistics, seconds: float = 2.0, hottest: int = 5) -> str:
    console = Console(record=True, width=160, file=StringIO())
    console.print(render(before, now, seconds, hottest))
    return console.export_text()


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with a text."""
    [row] = [line.split() for line in text.splitlines() if line.split()[:1] == [first]]
    return row


def test_what_was_done_between_two_looks_is_shown_by_the_second() -> None:
    before = hub(partition(messages=100, sent_away=10, commits=5))
    now = hub(
        partition(
            messages=4_100,
            sent_away=30,
            commits=25,
            waiting=3,
            stored=2,
            owed=1,
            activations=1_234,
            stored_bytes=5_600_000,
        )
    )

    row = cells(shown(before, now), "0")

    assert row[-9:] == ["0", "2,000", "10", "10", "3", "2", "1", "1,234", "5.6"]


@pytest.mark.parametrize(
    "before",
    [
        hub(),
        hub(partition(shard=1, messages=90, commits=1)),
        hub(partition(messages=90, commits=1_000)),
    ],
    ids=["not there", "on another shard", "by a worker that was started again"],
)
def test_who_counts_anew_is_not_shown_less_than_nothing(before: HubStatistics) -> None:
    row = cells(shown(before, hub(partition(messages=40, commits=8))), "0")

    assert row[-8:-5] == ["20", "0", "4"]


@pytest.mark.parametrize(
    ("pid", "busy"), [(70, "50%"), (71, "100%")], ids=["the same process", "another process"]
)
def test_how_busy_a_shard_is_is_of_the_process_that_it_is_now(pid: int, busy: str) -> None:
    before = hub(shards=(shard(0, 0, busy_s=1.0),))
    now = hub(partition(), shards=(shard(0, 0, pid=pid, busy_s=2.0),))

    assert busy in cells(shown(before, now), "0")


def test_each_partition_has_a_row_beside_its_shard_and_a_shard_without_one_says_so() -> None:
    now = hub(
        partition(0, 0),
        partition(1, 1),
        partition(2, 0),
        shards=(shard(0, 0, 2), shard(1, 1, pid=71), shard(2, pid=72)),
    )

    text = shown(now, now)

    rows = [line.split() for line in text.splitlines() if re.match(r"\s*\d", line)]
    assert [(row[0], row[1]) for row in rows if row[1].startswith("7")] == [
        ("0", "70"),
        ("1", "71"),
        ("2", "72"),
    ]
    assert [row[0] for row in rows if not row[1].startswith("7")] == ["2"]
    assert [row[-1] for row in rows if row[:2] == ["2", "72"]] == ["none"]


def test_on_a_narrow_screen_no_word_is_cut() -> None:
    busy = partition(messages=41_000, sent_away=30_000, commits=2_500, waiting=1_234, stored=5_000)
    console = Console(record=True, width=80, file=StringIO())

    console.print(render(hub(), hub(busy), 2.0, 5, narrow=True))

    text = console.export_text()
    assert "…" not in text
    assert cells(text, "0")[-8:-3] == ["20,500", "15,000", "1,250", "1,234", "5,000"]


def test_a_shard_that_does_not_answer_is_shown_with_for_how_long() -> None:
    now = hub(silent=(SilentShard(index=3, silent_s=12.4),), shards=())

    assert "no answer for 12 s" in shown(now, now)


def test_the_hottest_actors_are_those_that_took_most_since_the_last_look() -> None:
    before = hub(partition(hottest=(("old", 1_000), ("warm", 10), ("gone", 5))))
    now = hub(partition(hottest=(("old", 1_002), ("warm", 30), ("new", 100), ("gone", 2))))

    text = shown(before, now, hottest=2)

    assert [cells(text, name)[-1] for name in ("new", "warm")] == ["50", "10"]
    assert text.index("new") < text.index("warm")
    assert "old" not in text
    assert "gone" not in text  # it was loaded anew, and nobody knows what it took since


def test_the_fullest_mailboxes_are_shown_with_what_waits() -> None:
    now = hub(
        partition(hottest=(("hot", 9),), fullest=(("full", 7_000), ("hot", 20), ("third", 1)))
    )

    text = shown(now, now, hottest=2)

    assert cells(text, "full")[-1] == "7,000"
    assert cells(text, "hot")[-1] == "20"
    assert "third" not in text


@pytest.mark.parametrize("key", ["@box@a[/]", "@box@[red]b", "@box@[link=x]"])
def test_a_key_is_shown_as_it_is_also_where_it_looks_like_markup(key: str) -> None:
    now = hub(partition(hottest=((key, 5),), fullest=((key, 3),)))

    assert key in shown(hub(), now)


class FakeHub:
    """A hub of another process, of which the test tells the counts."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def statistics(self, *, hottest: int = 0) -> HubStatistics:
        self.asked.append(("statistics", hottest))
        return hub(partition(messages=10 * len(self.asked)))

    async def move_partition(self, partition: int, to: int) -> None:
        self.asked.append(("move", partition, to))


@pytest.mark.parametrize("move", [None, (0, 1)])
def test_one_look_moves_first_and_shows_what_was_done_between_two_counts(
    move: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake, places = FakeHub(), list[str]()

    @asynccontextmanager
    async def connect(place: str, *, key: str | None = None) -> AsyncGenerator[FakeHub]:
        places.append(place)
        yield fake

    monkeypatch.setattr(load, "connect", connect)
    show_load("sqlite:shop", interval_s=0.001, hottest=3, once=True, move=move)

    counts = [("statistics", 3), ("statistics", 20)]
    assert fake.asked == ([] if move is None else [("move", 0, 1)]) + counts
    assert places == ["sqlite:shop"]
    assert "Shards and their partitions" in capsys.readouterr().out


def test_off_a_terminal_a_watch_prints_each_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[int] = []

    class Watched(FakeHub):
        async def statistics(self, *, hottest: int = 0) -> HubStatistics:
            printed.append(capsys.readouterr().out.count("Shards and their partitions"))
            if len(printed) == 4:
                raise UnavailableError("it is gone")
            return await super().statistics(hottest=hottest)

    @asynccontextmanager
    async def connect(place: str) -> AsyncGenerator[FakeHub]:
        yield Watched()

    monkeypatch.setattr(load, "connect", connect)
    with pytest.raises(UnavailableError):
        show_load("sqlite:shop", interval_s=0.001, hottest=3, once=False)
    assert printed == [0, 0, 1, 1]
