from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator
from typing import Any

import pytest

from perdure.runtime.scheduling.deaths import Call, Deaths, Notes, Warden, read_notes


def call(number: int) -> Call:
    return Call(f"instance-{number}", 1, number)


@pytest.fixture
def handle() -> Generator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def test_what_runs_is_read_back_and_what_has_ended_is_not(handle: int) -> None:
    notes = Notes(handle)
    long = Call("i" * 256, 2, 3)
    slots = [notes.begin(call(n)) for n in range(3)] + [notes.begin(long)]
    notes.end(slots[1])
    before = read_notes(handle)
    notes.begin(call(7))

    assert before == [call(0), call(2), long]
    assert read_notes(handle) == [call(0), call(7), call(2), long]


def test_threads_may_take_notes_at_once(handle: int) -> None:
    notes = Notes(handle)

    def work(number: int) -> None:
        for _ in range(100):
            notes.end(notes.begin(call(number)))
        notes.begin(call(number))

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(read_notes(handle)) == [call(n) for n in range(8)]


def test_what_ran_at_so_many_deaths_is_suspected_and_at_fault_when_it_ran_alone() -> None:
    deaths = Deaths(3)

    deaths.take([])  # nobody took notes
    deaths.take([call(1), call(2), call(3)])
    assert deaths.suspects == set()
    deaths.take([call(1), call(2), call(4)])
    assert deaths.suspects == {call(1), call(2)}
    deaths.take([call(2), call(4)])  # one of them at a time, and one that is none

    assert deaths.at_fault == {call(2)}
    assert deaths.suspects == {call(1)}, "the death says nothing of the others"


def test_nobody_is_at_fault_for_having_run_alone_where_suspects_did_not_run_one_by_one() -> None:
    deaths = Deaths(2)
    deaths.take([])
    deaths.take([call(1), call(2)])
    assert deaths.suspects == {call(1), call(2)}

    deaths.take([call(1), call(3)], apart=())  # it was begun before anything was suspected
    assert deaths.at_fault == set()
    deaths.take([call(1), call(3)], apart={call(1)})  # the other one is suspected since
    assert deaths.at_fault == set()
    deaths.take([call(1), call(4)], apart={call(1), call(3)})
    assert deaths.at_fault == {call(1)}


def test_a_death_without_a_suspect_puts_nobody_at_fault() -> None:
    deaths = Deaths(2)
    deaths.take([])
    deaths.take([call(1)])
    deaths.take([])

    assert deaths.at_fault == set()
    assert deaths.suspects == {call(1)}


def test_suspects_run_one_at_a_time_and_others_beside_them(handle: int) -> None:
    class Running:
        def __init__(self, number: int) -> None:
            self.call = self
            self.caller = self
            self.instance_id, self.execution, number_ = f"instance-{number}", 1, number
            self.number = number_

    def running(number: int) -> Any:
        made: Any = Running(number)
        made.call = type("C", (), {"caller": made, "call": number})
        return made

    warden = Warden(Notes(handle), [call(1), call(2)], [call(3)])
    one, two, four = running(1), running(2), running(4)
    admitted: list[Any] = []

    assert warden.is_at_fault(running(3).call)
    assert not warden.is_at_fault(one.call)
    assert warden.admits(one)
    assert not warden.admits(two)
    assert warden.admits(four)
    warden.begin(one)
    warden.begin(four)
    warden.end(four, admitted.append)
    assert read_notes(handle) == [call(1)]
    warden.end(one, admitted.append)
    assert admitted == [two]
    warden.end(two, admitted.append)
    assert warden.admits(one)
