"""The lock, as an orchestration holds it: when it is granted, and that it is given back once."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.actors.errors import Cancelled, UsageError
from perdure.actors.replay.locks import LOCK_AGAIN, EntityLock
from perdure.actors.replay.tasks import DONE
from tests.actors.replay.faked import FakeExecutor

ENTITIES = ["@counter@a", "@counter@b"]


@pytest.fixture
def executor() -> Any:
    return FakeExecutor()


@pytest.fixture
def lock(executor: Any) -> EntityLock:
    return EntityLock(executor, 4, ENTITIES)


def granted(lock: EntityLock) -> EntityLock:
    lock.settle(DONE, None)
    return lock


def run(awaited: Any) -> Any:
    """Go through what has nothing to wait for."""
    with pytest.raises(StopIteration) as stop:
        awaited.send(None)
    return stop.value.value


def test_who_waits_for_a_lock_is_given_the_lock(lock: EntityLock) -> None:
    entering = lock.__aenter__()
    assert entering.send(None) is lock

    granted(lock)

    assert run(entering) is lock
    assert lock.result is lock


def test_a_lock_is_given_back_behind_the_block_whatever_happens_there(
    executor: Any, lock: EntityLock
) -> None:
    granted(lock)

    run(lock.__aexit__(ValueError, ValueError("no"), None))

    assert executor.asked == [("release", 4)]
    lock.release()
    assert executor.asked == [("release", 4)]
    assert lock.released


def test_a_generator_enters_a_lock_that_it_has(executor: Any, lock: EntityLock) -> None:
    with pytest.raises(UsageError, match="not granted yet"):
        lock.__enter__()
    assert executor.asked == []

    with granted(lock) as entered:
        assert entered is lock
        assert not lock.released

    assert executor.asked == [("release", 4)]


def test_a_request_that_is_given_up_is_given_back(executor: Any, lock: EntityLock) -> None:
    lock.cancel()

    assert executor.asked == [("release", 4)]
    with pytest.raises(Cancelled):
        _ = lock.result


def test_other_code_cannot_give_a_lock_back(executor: Any, lock: EntityLock) -> None:
    executor.is_stepped = False

    with pytest.raises(UsageError):
        lock.release()

    assert (lock.released, executor.asked) == (False, [])


def test_code_that_is_let_go_gives_its_lock_back_though_it_does_not_run(
    executor: Any, lock: EntityLock
) -> None:
    executor.is_stepped, executor.closed = False, True

    lock.release()

    assert lock.released


# After a rewind it is asked for again.


def test_calls_under_a_lock_that_is_asked_for_again_wait_for_that(
    executor: Any, lock: EntityLock
) -> None:
    granted(lock)
    lock.ask_again(4 + LOCK_AGAIN)
    assert lock.calls == []
    call: Any = ("@counter@a", "a call")
    assert lock.calls is not None
    lock.calls.append(call)

    granted(lock)

    assert lock.number == 4 + LOCK_AGAIN
    assert executor.asked == [("send", [call])]


def test_calls_that_wait_already_go_on_waiting(lock: EntityLock) -> None:
    granted(lock)
    lock.ask_again(4 + LOCK_AGAIN)
    call: Any = ("@counter@a", "a call")
    assert lock.calls is not None
    lock.calls.append(call)

    lock.ask_again(4 + 2 * LOCK_AGAIN)

    assert lock.calls == [call]


def test_a_lock_that_was_not_granted_holds_no_calls_when_it_is_asked_for_again(
    executor: Any, lock: EntityLock
) -> None:
    lock.ask_again(4 + LOCK_AGAIN)

    assert lock.calls is None
    granted(lock)
    assert executor.asked == []


def test_a_grant_that_the_code_hears_anew_is_not_the_one_that_is_waited_for(
    executor: Any, lock: EntityLock
) -> None:
    lock.following = 4 + LOCK_AGAIN

    granted(lock)

    assert executor.pending == {4 + LOCK_AGAIN: lock}
    assert (lock.number, executor.asked) == (4 + LOCK_AGAIN, [])
    granted(lock)
    assert executor.asked == [("send", [])]
