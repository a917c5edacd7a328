"""Where the operations of striped entities are sent, and what is remembered of that."""

from __future__ import annotations

from zlib import crc32

import pytest

import perdure
from perdure import App, EntityId, ManualClock
from perdure.actors.entities.stripes import stripe_key
from perdure.actors.messages import Completion, Operation
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.placement import stripe_router as striping
from perdure.runtime.placement.hashing import partition_of
from perdure.runtime.placement.stripe_router import StripeRouter

app = App()
HOT_AT = 5


class Counting:
    total: int = 0

    @perdure.commutative
    def add(self, amount: int) -> None:
        self.total += amount

    def get(self) -> int:
        return self.total

    def merge(self, other: Counting) -> None:
        self.total += other.total


@app.entity(stripes=3)
class Three(Counting):
    pass


@app.entity(stripes="auto")
class Auto(Counting):
    pass


@app.entity
class Plain:
    total: int = 0

    def add(self, amount: int) -> None:
        self.total += amount


ADD, GET = Operation("add", b"1"), Operation("get", None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def router(clock: ManualClock, place: int | None = None) -> StripeRouter:
    return StripeRouter(Lookup(app, 1000, stripe_hot_per_s=HOT_AT), clock, place)


def test_a_remembered_route_is_what_a_new_router_finds(clock: ManualClock) -> None:
    for place in range(4):
        old = router(clock, place)
        for partitions in (4, 4, 8, 4):
            for key in [f"@three@{n}" for n in range(10)] * 2:
                found = old.route(key, ADD, partitions)
                assert found == router(clock, place).route(key, ADD, partitions)
                if (place - partition_of(key, partitions)) % partitions < 3:
                    assert partition_of(found, partitions) == place


def test_only_commutative_operations_go_to_a_stripe_that_is_remembered(clock: ManualClock) -> None:
    one = router(clock, 1)
    stripe = one.route("@three@a", ADD, 4)

    assert stripe != "@three@a"
    for message in (GET, Operation("unknown", None), Completion("TaskCompleted", 1, 1, b"1")):
        assert one.route("@three@a", message, 4) == "@three@a"
    for key in (stripe, "@plain@a", "three", "three@a", "@three"):
        assert one.route(key, GET, 4) == key
    assert one.route(stripe, ADD, 4) == stripe
    assert one.route("@plain@a", ADD, 4) == "@plain@a"
    assert one.route("@three@a", ADD, 4) == stripe


def test_a_client_takes_all_stripes_in_turn(clock: ManualClock) -> None:
    client, definition = router(clock), app.registry.find_entity(Three)

    taken = [client.choose(definition, "@three@a", 4) for _ in range(6)]
    assert sorted(taken) == sorted(2 * [stripe_key("@three@a", n) for n in range(3)])


@pytest.mark.parametrize("name", ["three", "auto"])
def test_a_request_id_chooses_by_its_hash_whatever_is_remembered(
    clock: ManualClock, name: str
) -> None:
    client, definition, key = router(clock), app.registry.find_entity(name), f"@{name}@a"
    stripes = definition.stripe_count(4)
    for n in range(20):
        client.choose(definition, key, 4)
        request = f"request-{n}"
        wanted = stripe_key(key, crc32(request.encode()) % stripes)
        assert client.choose(definition, key, 4, request) == wanted


def test_an_entity_that_stays_hot_is_remembered_among_many_others(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(striping, "ROUTES_MAX", 10)
    one = router(clock, 1)
    hot = [one.route("@auto@hot", ADD, 4) for _ in range(HOT_AT + 1)][-1]
    assert hot != "@auto@hot"
    for n in range(1_000):
        assert one.route(f"@auto@{n}", ADD, 4) == f"@auto@{n}"
        assert one.route(f"@three@{n}", ADD, 4) != f"@three@{n}"
        assert one.route("@auto@hot", ADD, 4) == hot

        assert one.remembered <= 20


def test_what_is_no_striped_entity_is_not_remembered(clock: ManualClock) -> None:
    one = router(clock, 1)
    for n in range(100):
        for key in (f"@plain@{n}", f"instance-{n}", stripe_key(f"@three@{n}", 1)):
            one.route(key, ADD, 4)

    assert one.remembered == 0


def test_auto_counts_the_operations_of_each_entity_and_second(clock: ManualClock) -> None:
    one, id = router(clock, 1), EntityId(Auto, "a")

    def striped(times: int) -> int:
        return sum(one.route(str(id), ADD, 4) != str(id) for _ in range(times))

    assert striped(HOT_AT) == 0
    assert striped(3) == 3
    for n in range(10):
        assert one.route(f"@auto@{n}", ADD, 4) == f"@auto@{n}"
    clock.advance(1)
    assert striped(HOT_AT) == HOT_AT  # it was hot in the last second
    clock.advance(3)
    assert striped(HOT_AT) == 0
    assert striped(1) == 1
