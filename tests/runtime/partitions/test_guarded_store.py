from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator
from typing import Any

import pytest

from perdure.actors.errors import LeaseLostError, StorageError
from perdure.runtime.partitions import guarded_store
from perdure.runtime.partitions.guarded_store import GuardedStore, close_guarded, open_guarded
from perdure.storage import (
    Checkpoint,
    EntityFilter,
    InstanceFilter,
    MemoryStore,
    PartitionStore,
)

#: How each method of a partition's store is called.
CALLS: dict[str, tuple[Any, ...]] = {
    "recover": (),
    "commit": (Checkpoint(1, 1),),
    "read_instances": (["x"],),
    "read_entities": ([("counter", "a")],),
    "read_history": (1,),
    "read_history_part": (1, 0, 2),
    "read_request": ("r",),
    "read_mail": ("x", 0, 9),
    "read_outbox": (1, 0),
    "query_instances": (InstanceFilter(),),
    "count_instances": (InstanceFilter(),),
    "query_entities": (EntityFilter(),),
    "set_aside": ([],),
    "apply": (),
    "find_unknown": ([("counter", None)],),
    "waiting": ("x",),
    "size": (),
}


class Broken:
    """A store of a third party, each of whose calls ends in the same way."""

    durability = place = "the third party's"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> Any:
            raise self.error

        return fail


def guarded(error: BaseException) -> GuardedStore:
    broken: Any = Broken(error)
    return GuardedStore(broken)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_every_method_of_a_store_is_guarded() -> None:
    methods = {
        name
        for name, member in inspect.getmembers(PartitionStore)
        if inspect.iscoroutinefunction(member)
    }

    assert methods == CALLS.keys()
    assert guarded(ValueError()).place == "the third party's"


@pytest.mark.parametrize("method", CALLS)
async def test_what_no_store_should_raise_is_a_storage_error_that_names_it(method: str) -> None:
    cause = ZeroDivisionError("by zero")
    store = guarded(cause)

    with pytest.raises(StorageError) as raised:
        await getattr(store, method)(*CALLS[method])

    assert str(raised.value) == f"the store's {method} raised ZeroDivisionError: by zero"
    assert raised.value.__cause__ is cause


def test_a_store_that_says_nothing_of_its_lag_has_none() -> None:
    class Older:
        place = "of before"

    class Failing:
        @property
        def unapplied(self) -> int:
            raise ZeroDivisionError("by zero")

    older: Any = Older()
    failing: Any = Failing()
    assert GuardedStore(older).unapplied == guarded(ValueError()).unapplied == 0
    with pytest.raises(StorageError, match="the store's unapplied raised ZeroDivisionError"):
        _ = GuardedStore(failing).unapplied


@pytest.mark.parametrize("error", [StorageError("the disk fails"), LeaseLostError("another")])
async def test_what_a_store_may_raise_comes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await guarded(error).commit(Checkpoint(1, 1))

    assert raised.value is error


async def test_an_error_that_cannot_be_printed_is_an_error_of_the_store_all_the_same() -> None:
    with pytest.raises(StorageError, match="the store's recover raised"):
        await guarded(Unprintable()).recover()


async def test_what_ends_the_program_is_no_error_of_the_store() -> None:
    with pytest.raises(SystemExit):
        await guarded(SystemExit(3)).size()


@pytest.mark.parametrize("method", CALLS)
async def test_a_whole_store_is_called_as_it_is(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    answer = object()
    inner: Any = Broken(ValueError())

    async def take(*arguments: Any, **named: Any) -> Any:
        given.append(arguments)
        return answer

    monkeypatch.setattr(inner, method, take, raising=False)
    found = await getattr(GuardedStore(inner), method)(*CALLS[method])

    assert given[0][: len(CALLS[method])] == CALLS[method]
    assert found is (None if method in {"commit", "set_aside", "apply"} else answer)


async def test_a_forked_child_calls_no_store_of_its_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ended(BaseException):
        pass

    class Unawaited:
        def commit(self, checkpoint: Checkpoint) -> Awaitable[None]:
            return self

        def __await__(self) -> Generator[None]:
            raise AssertionError("the store's threads are the parent's alone")

    def end() -> None:
        raise Ended

    inner: Any = Unawaited()
    store = GuardedStore(inner)
    monkeypatch.setattr(guarded_store, "forks", lambda: -1)
    monkeypatch.setattr(guarded_store, "end_child", end)

    with pytest.raises(Ended):
        await store.commit(Checkpoint(1, 1))


async def test_a_store_that_opens_gives_its_partitions_and_closes() -> None:
    store = MemoryStore()

    partitions = await open_guarded(store, 3)
    await close_guarded(store)

    assert len(partitions) == 3


class Short(MemoryStore):
    async def open(self, partitions: int) -> Any:
        return (await super().open(partitions))[1:]


class NoList(MemoryStore):
    async def open(self, partitions: int) -> Any:
        return 7


class Unwell(MemoryStore):
    def close(self) -> Any:
        raise OSError("no handle")


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (Short, "the store's open gave 2 partitions, not 3"),
        (NoList, "the store's open raised TypeError"),
    ],
)
async def test_what_opens_wrongly_is_a_storage_error(store: type[MemoryStore], told: str) -> None:
    with pytest.raises(StorageError, match=told):
        await open_guarded(store(), 3)


async def test_what_closes_wrongly_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="the store's close raised OSError: no handle"):
        await close_guarded(Unwell())
