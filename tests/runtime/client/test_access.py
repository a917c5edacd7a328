from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import (
    App,
    EntityId,
    Hub,
    MemoryStore,
    StorageError,
    UnavailableError,
    UsageError,
    connect,
    watch_hub,
)
from perdure.runtime.client import access
from perdure.runtime.scheduling.keeper import Keeper
from perdure.runtime.shards.sessions import Session
from perdure.runtime.transport.channels import Channel
from perdure.runtime.transport.greeting import Credentials
from perdure.runtime.transport.nodes import listen_node, serve_nodes
from perdure.runtime.transport.tcp import join_address
from perdure.storage.membership import HubIdentity, MemberRow, View
from perdure.testing.inside import shard_of
from tests.runtime.harness import until_true

PLACE = "postgresql://db/shop"
SECRET = b"s" * 32

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


IDS = [EntityId(Counter, f"k{n}") for n in range(8)]


class Store(MemoryStore):
    """A store that says who serves its hub."""

    location = "postgresql://db/shop (without its password)"
    spec = "postgresql://db/shop"

    def __init__(self) -> None:
        super().__init__()
        self.identity: HubIdentity | None = HubIdentity("hub", "app", SECRET)
        self.members: dict[int, MemberRow] = {}
        self.error: StorageError | None = None
        self.opened: list[Any] = []
        self.looks = self.closes = 0

    def add(self, member: int, address: str, **fields: Any) -> None:
        given: dict[str, Any] = {"http": None, "weight": 1.0, "draining": False, "expired": False}
        given |= {"host": "h", "pid": 1, "software": "1", "app": "app", "app_hash": "a"}
        given |= {"joined": 0, "beat_age_s": 0.0} | fields
        self.members[member] = MemberRow(member=member, address=address, **given)

    def open_again(self, place: Any) -> Store:
        self.opened.append(place)
        return self

    async def identify(self) -> HubIdentity | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.identity

    async def view(self) -> View:
        return View([*self.members.values()], [])

    async def close(self) -> None:
        self.closes += 1

    async def count_partitions(self) -> int | None:
        raise AssertionError("a client has no need of it")

    async def attach(self, partitions: int) -> Sequence[Any]:
        raise AssertionError("a client opens no partition")

    async def join(self, newcomer: Any) -> Any:
        raise AssertionError("a client is no member")


class Cluster:
    """Members that all answer for one hub, in one process."""

    def __init__(self, hub: Hub, store: Store, tasks: Any) -> None:
        self.hub = hub
        self.store = store
        self.tells_addresses = True
        self.scopes: dict[int, anyio.CancelScope] = {}
        self.served: dict[int, int] = {}
        self.channels: list[Channel] = []
        self._tasks = tasks

    async def begin(self, member: int, key: bytes = SECRET, **fields: Any) -> None:
        listener = await listen_node()
        self.store.add(member, join_address(listener.host, listener.port), **fields)
        scope = self.scopes[member] = anyio.CancelScope()
        self.served[member] = 0

        async def answer(channel: Channel, who: int | None) -> None:
            assert who is None
            self.served[member] += 1
            self.channels.append(channel)
            crew: Any = self.hub.crew
            handlers: Any = {**crew.handlers, "where": self._where(member)}
            await Session(channel, shard_of(self.hub), handlers, trusted=False).run()

        async def serve() -> None:
            with scope:
                me = Credentials("hub", member, key)
                await serve_nodes(listener, key, lambda: me, answer, Keeper())

        self._tasks.start_soon(serve)

    def end(self, member: int) -> None:
        self.scopes[member].cancel()
        del self.store.members[member]

    def _where(self, member: int) -> Any:
        async def where(version: int, run: str = "") -> dict[str, Any]:
            while version == 1 and run == f"run {member}":
                await anyio.sleep_forever()
            told: dict[str, Any] = {"version": 1, "run": f"run {member}"}
            if not self.tells_addresses:
                return told | {"owners": [0] * 4, "incarnations": [0]}
            members = sorted(self.store.members)
            addresses = {str(row.member): row.address for row in self.store.members.values()}
            owners = [members[n % len(members)] for n in range(4)]
            return told | {"owners": owners, "addresses": addresses}

        return where


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(access, "open_store", made.open_again)
    return made


@asynccontextmanager
async def cluster(store: Store, *members: int) -> AsyncGenerator[Cluster]:
    with anyio.fail_after(30):
        async with Hub(app, partitions=4) as hub, anyio.create_task_group() as tasks:
            made = Cluster(hub, store, tasks)
            for member in members:
                await made.begin(member)
            yield made
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("tells_addresses", [True, False])
async def test_a_client_finds_the_members_in_the_store_and_leaves_that(
    store: Store, tells_addresses: bool
) -> None:
    async with cluster(store, 11, 12) as nodes:
        nodes.tells_addresses = tells_addresses
        async with connect(PLACE, app) as client:
            for id in IDS:
                assert await client.call_entity(id, Counter.add, 2) == 2
            assert (store.looks, store.closes, store.opened) == (1, 1, [PLACE])
            served = [count for count in nodes.served.values() if count]
            assert len(served) == (2 if tells_addresses else 1)


async def test_a_client_without_the_application_asks_one_member(store: Store) -> None:
    async with cluster(store, 11, 12) as nodes, connect(PLACE) as client:
        assert list((await client.describe()).entities) == ["counter"]
        assert sorted(nodes.served.values()) == [0, 1]


async def test_a_hub_is_looked_at_through_a_member(store: Store) -> None:
    async with cluster(store, 11), watch_hub(PLACE) as view:
        assert len((await view.statistics()).partitions) == 4


@pytest.mark.parametrize("tells_addresses", [True, False])
async def test_a_client_goes_to_another_member_when_one_is_gone(
    store: Store, tells_addresses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "LOOK_AGAIN_S", 0.05)
    async with cluster(store, 11) as nodes:
        nodes.tells_addresses = tells_addresses
        async with connect(PLACE, app) as client:
            assert await client.call_entity(IDS[0], Counter.add, 1) == 1
            await nodes.begin(12)
            nodes.end(11)
            for id in IDS[1:]:
                # With an id, since it may go to a member that is ending.
                assert await client.call_entity(id, Counter.add, 1, request_id=id.key) == 1
            assert nodes.served[12] > 0


async def test_a_store_that_is_away_does_not_keep_a_client_from_the_members_it_knows(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "LOOK_AGAIN_S", 0.0)
    async with cluster(store, 11) as nodes, connect(PLACE, app) as client:
        await client.call_entity(IDS[0], Counter.add, 1)
        store.error = StorageError("the database is away")
        served = nodes.served[11]
        for channel in nodes.channels:
            channel.close()
        await until_true(lambda: nodes.served[11] >= served + 2)
        assert await client.call_entity(IDS[0], Counter.add, 1) == 2
        assert store.looks > 1

    assert caplog.messages == []


@pytest.mark.by_turns
async def test_the_store_is_not_looked_at_again_and_again(store: Store) -> None:
    async with cluster(store, 11) as nodes, connect(PLACE, app):
        nodes.scopes[11].cancel()
        began = anyio.current_time()
        await anyio.sleep(0.5)
        assert store.looks <= 2 + (anyio.current_time() - began) // access.LOOK_AGAIN_S


async def test_members_that_have_expired_are_not_dialled_and_those_that_drain_last(
    store: Store,
) -> None:
    async with cluster(store) as nodes:
        await nodes.begin(11, expired=True)
        with pytest.raises(UnavailableError, match=r"no member of the hub in .*no members"):
            await connected(None)
        await nodes.begin(12, draining=True)
        await nodes.begin(13)
        for _ in range(8):
            await connected(None)
        assert nodes.served == {11: 0, 12: 0, 13: 8}


async def connected(key_file: Path | None) -> None:
    async with connect(PLACE, node_key_file=key_file):
        pass


async def test_a_member_that_does_not_answer_is_passed_over(store: Store) -> None:
    async with cluster(store, 11):
        for member in range(20, 25):
            store.add(member, "127.0.0.1:1")
        for _ in range(4):
            await connected(None)


async def test_members_that_have_a_key_of_their_own_ask_for_it(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"k" * 32)
    file.chmod(0o600)
    async with cluster(store) as nodes:
        await nodes.begin(11, b"k" * 32)
        with pytest.raises(UsageError, match=r"another key: give the file .* as node_key_file"):
            await connected(None)
        await connected(file)
        file.write_bytes(b"o" * 32)
        with pytest.raises(UsageError, match="the key in node_key_file is not that of the hub"):
            await connected(file)


async def test_a_store_without_a_hub_has_nobody_to_ask(store: Store) -> None:
    store.identity = None
    with pytest.raises(UnavailableError, match=r"no hub in postgresql://db/shop .*yet"):
        await connected(None)


async def test_a_store_that_cannot_be_reached_is_said(store: Store) -> None:
    store.error = StorageError("the database is away")
    with pytest.raises(StorageError, match="the database is away"):
        await connected(None)
    assert store.closes == 1


@pytest.mark.parametrize("place", ["sqlite:somewhere", "hub.sock", "http://127.0.0.1:1"])
async def test_a_key_between_nodes_is_refused_where_there_are_none(place: str) -> None:
    with pytest.raises(UsageError, match=r"node_key_file must be left out: .* not 'key'"):
        async with connect(place, node_key_file="key"):
            pass


async def test_a_key_for_http_is_refused_where_nodes_are_dialled() -> None:
    with pytest.raises(UsageError, match="key must be left out"):
        async with connect(PLACE, key="secret"):
            pass
