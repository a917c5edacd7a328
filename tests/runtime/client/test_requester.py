from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from perdure import (
    App,
    HubStoppingError,
    ManualClock,
    RequestIdReusedError,
    StorageError,
    UnavailableError,
    UsageError,
)
from perdure.actors.messages import Event, Message
from perdure.actors.registry.lookup import Lookup
from perdure.runtime.client import requester
from perdure.runtime.client.hub_client import HubClient
from perdure.runtime.placement.claims import id_of
from perdure.runtime.placement.hashing import name_in
from perdure.runtime.placement.places import MovedError
from perdure.runtime.scheduling.homes import Home


class Place:
    """A partition that answers what the test says."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.asked: list[Any] = []
        self.claims: list[str] = []
        self.errors: list[Exception] = []
        self.claim_errors: list[Exception] = []
        self.hold: Callable[[], Awaitable[None]] | None = None

    async def request_once(self, key: str, message: Message, request: str | None) -> Any:
        self.asked.append((key, request))
        message.reply = "the last try's"
        if self.errors:
            raise self.errors.pop(0)
        return b"6"

    async def claim(self, request: str, claim: str) -> None:
        self.claims.append(request)
        assert id_of(claim) == request
        if self.hold is not None:
            await self.hold()
        if self.claim_errors:
            raise self.claim_errors.pop(0)


class Router:
    """Two partitions, and how often somebody waited for one to come back."""

    def __init__(self) -> None:
        self.places = [Place(0), Place(1)]
        self.waited = 0

    async def wait_moved(self) -> None:
        self.waited += 1


class Asking(HubClient):
    """A client of a kind of its own, with requests as bare as all kinds make them."""

    async def send(self, key: str, message: Message, request: str | None = None) -> Any:
        return await self._request(key, message, request)

    def make_id(self) -> str:
        return self._new_instance_id()


class Made:
    def __init__(self) -> None:
        self.router, self.home, self.clock = Router(), Home(), ManualClock()
        self.client = self.new()

    def new(self) -> Asking:
        router: Any = self.router
        overseer: Any = None
        return Asking(Lookup(App(), 1_000), router, self.clock, self.home, overseer)

    async def ask(self, key: str, request: str | None = None) -> Any:
        return await self.client.send(key, Event("go", b"1"), request)


# Ids of instances, which say in which partition they are.
A, B = name_in(0, 2), name_in(1, 2)


async def test_each_is_asked_for_its_own_keys() -> None:
    made = Made()

    assert await made.ask(A) == b"6"
    await made.ask(B)

    assert [place.asked for place in made.router.places] == [[(A, None)], [(B, None)]]


async def test_what_has_moved_is_asked_for_again_where_it_is() -> None:
    made = Made()
    made.router.places[0].errors = [MovedError("it moves"), MovedError("it still does")]

    assert await made.ask(A) == b"6"

    assert len(made.router.places[0].asked) == 3
    assert made.router.waited == 2


async def test_any_other_error_is_the_caller_s_and_is_not_kept_by_the_message() -> None:
    made = Made()
    made.router.places[0].errors = [UnavailableError("it recovers")]
    message = Event("go", b"1")

    with pytest.raises(UnavailableError, match="it recovers"):
        await made.client.send(A, message)

    assert message.reply is None
    assert made.router.waited == 0


async def test_an_id_is_kept_where_it_belongs_before_the_request_is_made() -> None:
    made = Made()

    await made.ask(A, B)

    assert made.router.places[1].claims == [B]
    assert made.router.places[0].asked == [(A, B)]


async def test_an_id_of_the_target_s_own_partition_is_looked_up_with_the_request() -> None:
    made = Made()

    await made.ask(A, A)

    assert made.router.places[0].claims == made.router.places[1].claims == []
    assert made.router.places[0].asked == [(A, A)]


async def test_an_id_that_was_used_elsewhere_refuses_the_request() -> None:
    made = Made()
    made.router.places[1].claim_errors = [RequestIdReusedError(B, "another")]

    with pytest.raises(RequestIdReusedError):
        await made.ask(A, B)

    assert made.router.places[0].asked == []


async def test_a_partition_of_an_id_that_moves_is_asked_again() -> None:
    made = Made()
    made.router.places[1].claim_errors = [MovedError("it moves")]

    await made.ask(A, B)

    assert made.router.places[1].claims == [B, B]
    assert made.router.waited == 1


async def test_a_partition_of_an_id_that_is_not_well_holds_no_request_up() -> None:
    made = Made()
    made.router.places[1].claim_errors = [UnavailableError("it recovers")]

    assert await made.ask(A, B) == b"6"


async def test_a_partition_of_an_id_that_does_not_answer_holds_a_request_up_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester, "CLAIM_S", 0.01)
    made = Made()
    made.router.places[1].hold = anyio.sleep_forever

    with anyio.fail_after(5):
        assert await made.ask(A, B) == b"6"


async def test_a_store_of_an_id_that_cannot_be_read_is_told() -> None:
    made = Made()
    made.router.places[1].claim_errors = [StorageError("the disk fails")]

    with pytest.raises(StorageError):
        await made.ask(A, B)


@pytest.mark.parametrize("request_id", ["", "a\nb", 7, "x" * 10_000])
async def test_what_is_no_request_id_is_refused_before_anything_is_asked(request_id: Any) -> None:
    made = Made()

    with pytest.raises(UsageError, match="request_id"):
        await made.ask(A, request_id)

    assert made.router.places[0].asked == []


async def test_ids_that_are_made_up_differ_and_grow() -> None:
    made = Made()

    ids = [made.client.make_id() for _ in range(300)]

    assert sorted(set(ids)) == ids
    made.clock.advance(1)
    assert made.new().make_id() > ids[-1]
    assert len({one[:-8] for one in ids}) == 1


async def test_ids_that_threads_make_up_at_once_differ() -> None:
    made, ids = Made(), list[str]()

    def make() -> None:
        ids.extend([made.client.make_id() for _ in range(200)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == 800


async def test_another_loop_is_carried_to_the_hub_s_and_back(anyio_backend_name: str) -> None:
    made, threads = Made(), list[int]()
    place: Any = made.router.places[0]
    request_once = place.request_once

    async def note(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return await request_once(*given)

    place.request_once = note
    place.errors = [MovedError("it moves")]

    async def elsewhere() -> None:
        answer = await anyio.to_thread.run_sync(
            lambda: anyio.run(made.ask, A, backend=anyio_backend_name)
        )
        assert answer == b"6"

    with anyio.fail_after(10):
        await made.home.serve(elsewhere)

    assert threads == [threading.get_ident()] * 2
    assert made.router.waited == 1


async def test_another_loop_is_told_that_the_hub_has_stopped(anyio_backend_name: str) -> None:
    made = Made()
    made.home.close()

    def ask() -> None:
        with pytest.raises(HubStoppingError):
            anyio.run(made.ask, A, backend=anyio_backend_name)

    await anyio.to_thread.run_sync(ask)
    assert made.router.places[0].asked == []
