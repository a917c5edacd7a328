"""Nodes that are killed, paused, cut off and moved about as a seed says: nothing is lost or doubled.

In threads there is room for many seeds, and a few are tried each time; processes show that the rest
of a node changes nothing about it. How to run more of them, or one again, is in ``tests/README.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from perdure import Settings
from perdure.storage.postgres.server import Server
from tests.cluster.nemesis import ASK_S, END_S, GENTLE, KINDS, PARTITIONS, Act, Trial, schedule
from tests.cluster.nodes import RealCluster
from tests.cluster.proxy import CAN_TELL
from tests.cluster.threads import ThreadCluster
from tests.postgres import new_server, versions

APP = "tests.cluster.app:app"
TTL_S = 1.0
SECONDS = 2.5
#: A time to live that is long enough for a busy machine to keep, where nobody may expire.
CALM_TTL_S = 10.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the seeds that were asked for: ``few`` each time, and ``many`` with ``--long``."""
    if "seed" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("seeds")
    assert marker is not None
    few, many = marker.args
    config = metafunc.config
    first, count = config.getoption("--seed"), config.getoption("--seeds")
    if count is None:
        count = 1 if first is not None else many if config.getoption("--long") else few
    first = 0 if first is None else first
    metafunc.parametrize("seed", range(first, first + count))


@pytest.fixture(scope="module")
def hurt_postgres() -> Iterator[Server]:
    """Give a server of this module's own, for one seed after another."""
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    with new_server() as server:
        yield server


def again(request: pytest.FixtureRequest, seed: int) -> str:
    """Say how a test is run again with one seed."""
    name = request.node.originalname
    return f"pytest tests/cluster/test_nemesis.py --long -k {name} --seed {seed}"


def place_of(server: Server) -> str:
    """Give a schema that is not there yet."""
    return f"{server.dsn}?schema=hurt_{uuid4().hex}&durability=relaxed"


def in_threads(
    server: Server,
    request: pytest.FixtureRequest,
    seed: int,
    *,
    ttl_s: float = TTL_S,
    kinds: tuple[str, ...] = KINDS,
) -> Trial:
    """Try a seed on members in threads."""
    place = place_of(server)
    settings = Settings(lease_s=ttl_s, drain_s=10.0 if ttl_s == CALM_TTL_S else 1.0)
    with ThreadCluster(place, app=APP, partitions=PARTITIONS, settings=settings) as cluster:
        trial = Trial(
            seed,
            cluster,
            server,
            ttl_s=TTL_S,
            seconds=SECONDS,
            kinds=kinds,
            ask_s=ASK_S if ttl_s == TTL_S else END_S,
            again=again(request, seed),
        )
        trial.go()
    return trial


@pytest.mark.seeds(1, 200)
def test_members_under_a_nemesis_lose_and_double_nothing(
    hurt_postgres: Server, request: pytest.FixtureRequest, seed: int
) -> None:
    in_threads(hurt_postgres, request, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seconds"), [("still", 10.0), ("down", 60.0)])
def test_a_database_that_is_away_for_long_makes_members_lose_and_double_nothing(
    hurt_postgres: Server, kind: str, seconds: float
) -> None:
    place, settings = place_of(hurt_postgres), Settings(lease_s=TTL_S, drain_s=1.0)
    with ThreadCluster(place, app=APP, partitions=PARTITIONS, settings=settings) as cluster:
        acts = [Act(0.5, kind, 0, seconds)]
        trial = Trial(0, cluster, hurt_postgres, ttl_s=TTL_S, seconds=SECONDS, acts=acts)

        trial.go()

    assert trial.history.errors, "nobody has noticed"


@pytest.mark.seeds(1, 30)
def test_members_that_come_go_and_move_partitions_fail_no_request(
    hurt_postgres: Server, request: pytest.FixtureRequest, seed: int
) -> None:
    trial = in_threads(hurt_postgres, request, seed, ttl_s=CALM_TTL_S, kinds=GENTLE)

    assert trial.history.errors == {}, trial.story()


@pytest.mark.skipif(not CAN_TELL, reason="the proxies go by /proc to tell who dials")
@pytest.mark.seeds(1, 30)
def test_processes_under_a_nemesis_lose_and_double_nothing(
    hurt_postgres: Server, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    place = place_of(hurt_postgres)
    settings = {"lease_s": TTL_S, "drain_s": 1.0}
    with RealCluster(place, tmp_path, app=APP, partitions=PARTITIONS, settings=settings) as cluster:
        Trial(
            seed,
            cluster,
            hurt_postgres,
            ttl_s=TTL_S,
            seconds=SECONDS,
            again=again(request, seed),
        ).go()


def test_a_seed_always_says_the_same_and_each_kind_is_drawn() -> None:
    drawn = [schedule(seed, ttl_s=1.0, seconds=3.0) for seed in range(100)]

    assert drawn == [schedule(seed, ttl_s=1.0, seconds=3.0) for seed in range(100)]
    assert {act.kind for acts in drawn for act in acts} == set(KINDS)
    assert len({str(acts) for acts in drawn}) == 100
