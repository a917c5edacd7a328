"""Members that share a store, as seeds say and on a real server: nothing acknowledged is lost or doubled.

A failed one prints its seed and what was done; the same seed mostly does the same again:

    pytest tests/storage/postgres/test_schedules.py --seed 17                  # that one
    pytest tests/storage/postgres/test_schedules.py --seed 10000 --seeds 500   # 10000 to 10499

A build that lacks a part of the protocol is found, and for the right reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from perdure.runtime.cluster.leases import Leases
from perdure.storage.postgres import committer, journal, links
from tests.storage.postgres.ledger import Breach
from tests.storage.postgres.schedules import run

#: Schedules of one test.
BLOCK = 15
#: Among so many a build that lacks something has to be found.
SEARCHED = 200


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test blocks of the seeds that were asked for, or of those that it is marked with."""
    marker = metafunc.definition.get_closest_marker("seeds")
    if marker is None:
        return
    few, many = marker.args
    config = metafunc.config
    first, count = config.getoption("--seed"), config.getoption("--seeds")
    if count is None:
        count = 1 if first is not None else many if config.getoption("--long") else few
    first = 0 if first is None else first
    blocks = [
        range(at, min(at + BLOCK, first + count)) for at in range(first, first + count, BLOCK)
    ]
    metafunc.parametrize("seeds", blocks, ids=lambda block: f"{block[0]}-{block[-1]}")


@pytest.mark.seeds(30, 10_000)
def test_members_lose_and_double_nothing(newest_postgres: str, seeds: range) -> None:
    for world in run(newest_postgres, seeds):
        assert world.story


Build = list[tuple[Any, str, Any]]


def of_commits(change: Callable[[str], str]) -> Build:
    """Give a build whose statements that commit are changed."""
    names = ("COMMIT", "COMMIT_AT_ONCE", "COMMIT_SEVERAL")
    build = [(journal, name, change(getattr(journal, name))) for name in names]
    assert all(value != getattr(journal, name) for _, name, value in build)
    return build


def without_the_share_lock() -> Build:
    return of_commits(lambda sql: re.sub(r" FOR SHARE( OF p)?( SKIP LOCKED)?", "", sql))


def without_the_share_lock_of_several() -> Build:
    return without_the_share_lock()[2:]


def without_the_epoch() -> Build:
    return of_commits(
        lambda sql: re.sub(r"AND epoch = \$3", "AND $3::bigint > 0", sql).replace(
            " AND p.epoch = given.epoch", ""
        )
    )


def without_the_one_before() -> Build:
    return of_commits(lambda sql: re.sub(r"( AND \(| WHERE )\(SELECT .*(?= FOR SHARE)", "", sql))


def without_a_look_at_warnings() -> Build:
    return [(links, "WORRYING", "nothing")]


def that_takes_a_lost_connection_for_an_answer() -> Build:
    return [(committer, "is_answer", always)]


def that_is_always_sure() -> Build:
    return [(Leases, "is_sure", always)]


def always(_: object) -> bool:
    return True


LOST = "has not seen it|there has to be|has its place"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "why"),
    [
        pytest.param(without_a_look_at_warnings, LOST, id="warnings"),
        pytest.param(
            that_takes_a_lost_connection_for_an_answer, "was refused", id="lost connection"
        ),
        pytest.param(without_the_epoch, LOST, id="epoch"),
        pytest.param(without_the_share_lock, LOST, id="share lock"),
        pytest.param(without_the_one_before, "behind|a gap", id="the one before"),
        pytest.param(that_is_always_sure, "has answered", id="sure"),
    ],
)
def test_a_build_is_found(
    newest_postgres: str, monkeypatch: pytest.MonkeyPatch, build: Callable[[], Build], why: str
) -> None:
    for place, name, value in build():
        monkeypatch.setattr(place, name, value)

    with pytest.raises(Breach, match=why):
        for _ in run(newest_postgres, range(SEARCHED)):
            pass
