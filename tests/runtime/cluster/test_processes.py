from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import InternalError, MemoryStore, Settings, StorageError, UnavailableError, UsageError
from perdure.runtime.cluster import processes
from perdure.runtime.cluster.processes import (
    FAILED_STARTS_MAX,
    ProcessCrew,
    absolute_entry,
    how_ended,
)
from perdure.runtime.placement.places import LineLostError


class Process:
    """A worker process that ends when the test, or who kills it, says so."""

    def __init__(self, returncode: int | None = None) -> None:
        self.pid = 77
        self.returncode = returncode
        self.stdin = self
        self.ended = anyio.Event()
        self.told: list[str] = []
        self.obeys = {"closed", "terminate", "kill"}
        if returncode is not None:
            self.ended.set()

    def end(self, returncode: int) -> None:
        self.returncode = returncode
        self.ended.set()

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _tell(self, what: str, returncode: int) -> None:
        self.told.append(what)
        if what in self.obeys:
            self.end(returncode)

    def terminate(self) -> None:
        self._tell("terminate", -15)

    def kill(self) -> None:
        self._tell("kill", -9)

    async def aclose(self) -> None:
        self._tell("closed", 0)


class Line:
    """The line to a worker, which answers what the test says."""

    def __init__(self) -> None:
        self.is_up = True
        self.called: list[tuple[Any, ...]] = []
        self.renewed = 0
        self.answers: dict[str, list[BaseException]] = {}

    async def call(self, verb: str, *arguments: Any) -> None:
        self.called.append((verb, *arguments))
        errors = self.answers.get(verb)
        if errors:
            raise errors.pop(0)

    def ask(self, verb: str, *arguments: Any) -> None:
        self.called.append((verb, *arguments))

    def renew(self) -> None:
        self.renewed += 1


class Router:
    def __init__(self, count: int) -> None:
        self.lines = [Line() for _ in range(count)]
        self.placed: list[list[int]] = []
        self.closed = 0

    def line(self, shard: int) -> Line:
        return self.lines[shard]

    def place(self, owners: list[int], incarnations: list[int]) -> None:
        self.placed.append([*owners])

    def post(self, shard: int, item: Any) -> None:
        """Nobody listens."""

    def close(self) -> None:
        self.closed += 1


class Shared:
    """A store that processes can share, and that nobody opens."""

    durability = "none to speak of"

    def __init__(self, location: str) -> None:
        self.location = location
        self.closed = 0

    async def open(self, partitions: int) -> list[Any]:
        return [object()] * partitions

    async def attach(self, partitions: int) -> list[Any]:
        raise AssertionError("that is for the workers")

    async def close(self) -> None:
        self.closed += 1


class Made:
    """A crew whose processes are fakes."""

    def __init__(self, tmp_path: Path, workers: int = 2, **settings: Any) -> None:
        self.store = Shared(f"sqlite:{tmp_path}/hub")
        self.stopped: list[Exception] = []
        store: Any = self.store
        self.crew = crew = ProcessCrew(
            workers,
            "shop:app",
            store,
            4,
            settings=Settings(**settings),
            socket=tmp_path / "hub.sock",
            stop_for=self.stopped.append,
        )
        self.router = Router(workers)
        router: Any = self.router
        crew.router = router
        self.begins: list[Any] = []  # processes to be started, or errors
        self.spawned = 0
        spawning: Any = crew
        spawning.spawn = self.spawn

    async def spawn(self, worker: Any) -> None:
        self.spawned += 1
        one = self.begins.pop(0)
        if isinstance(one, BaseException):
            raise one
        worker.process = one

    def worker(self, number: int) -> Any:
        return self.crew.workers[number]

    def serving(self) -> None:
        """Have all workers serve."""
        for worker in self.crew.workers:
            worker.serves = worker.has_served = worker.is_up = True
            worker.decided.set()
            process: Any = Process()
            worker.process = process


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    monkeypatch.setattr(processes, "BACKOFF_S", 0)
    return lambda *given, **named: Made(tmp_path, *given, **named)


async def test_a_store_that_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="worker processes cannot share this store"):
        ProcessCrew(
            2,
            "shop:app",
            MemoryStore(),
            4,
            settings=Settings(),
            socket=None,
            stop_for=lambda error: None,
        )


async def test_the_socket_lies_in_the_store_s_folder_where_none_is_named(tmp_path: Path) -> None:
    store: Any = Shared(f"sqlite:{tmp_path}/hub")

    crew = ProcessCrew(
        2, "shop:app", store, 4, settings=Settings(), socket=None, stop_for=lambda error: None
    )

    assert crew.path == tmp_path / "hub" / "hub.sock"


async def test_a_worker_is_given_its_partitions_and_serves_then(make: Callable[..., Made]) -> None:
    made = make()

    await made.crew.introduce(made.worker(1))

    assert made.router.lines[1].called == [("govern",), ("host", 2), ("host", 3)]
    worker = made.worker(1)
    assert (worker.serves, worker.has_served, worker.decided.is_set()) == (True, True, True)
    assert made.router.placed == []  # all are told when all of them serve


async def test_a_worker_that_serves_again_is_told_of(make: Callable[..., Made]) -> None:
    made = make()
    made.serving()
    made.worker(1).serves = False
    made.worker(1).failed_starts = 2

    await made.crew.introduce(made.worker(1))

    assert made.worker(1).serves
    assert made.worker(1).failed_starts == 0
    assert len(made.router.placed) == 1


async def test_the_line_to_the_process_before_is_not_taken_for_this_one_s(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.router.lines[0].answers["govern"] = [LineLostError(False)]

    await made.crew.introduce(made.worker(0))

    assert [verb for verb, *_ in made.router.lines[0].called][:3] == ["govern", "govern", "host"]


@pytest.mark.parametrize("error", [UsageError("no such app"), StorageError("the disk fails")])
async def test_a_worker_that_cannot_serve_says_why_and_ends(
    make: Callable[..., Made], error: Exception
) -> None:
    made = make()
    process = made.worker(0).process = Process()
    made.router.lines[0].answers["host"] = [error]

    await made.crew.introduce(made.worker(0))

    assert made.worker(0).error is error
    assert process.told == ["terminate"]
    assert not made.worker(0).serves


async def serve_until(made: Made, number: int, process: Process, returncode: int) -> None:
    """Run a worker's process until it has been reached, and ends."""
    ending: Any = process
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.crew.serve_with, made.worker(number), ending)
        await anyio.wait_all_tasks_blocked()
        process.end(returncode)


async def test_a_process_that_ended_is_not_reached_any_more(make: Callable[..., Made]) -> None:
    made = make()
    made.serving()

    await serve_until(made, 1, Process(), -9)

    assert made.crew.incarnations == [0, 1]
    assert made.router.lines[1].renewed == 1
    assert not made.worker(1).serves


async def test_a_worker_that_ends_before_it_served_is_not_started_for_ever(
    make: Callable[..., Made],
) -> None:
    made = make()
    worker = made.worker(0)
    made.router.lines[0].answers["govern"] = [LineLostError(False)] * 1_000_000

    await serve_until(made, 0, Process(), 1)

    assert worker.decided.is_set()
    assert isinstance(worker.error, InternalError)
    assert "worker 0 ended before it served (status 1)" in str(worker.error)
    with pytest.raises(InternalError):
        await made.crew.ready()


async def test_a_worker_that_is_killed_while_the_hub_starts_is_tried_again(
    make: Callable[..., Made],
) -> None:
    made = make()
    worker = made.worker(0)
    made.router.lines[0].answers["govern"] = [LineLostError(False)] * 1_000_000

    for starts in range(1, FAILED_STARTS_MAX):
        await serve_until(made, 0, Process(), -9)
        assert (worker.failed_starts, worker.decided.is_set()) == (starts, False)
    await serve_until(made, 0, Process(), -9)

    assert worker.decided.is_set()
    assert "killed by signal 9" in str(worker.error)


async def test_a_process_that_the_system_does_not_give_is_asked_for_again(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.begins = [OSError("no more processes")] * FAILED_STARTS_MAX

    for _ in range(FAILED_STARTS_MAX - 1):
        assert await made.crew.begin_process(made.worker(0)) is None
        assert not made.worker(0).decided.is_set()
    await made.crew.begin_process(made.worker(0))

    assert "worker 0 cannot be started: no more processes" in str(made.worker(0).error)
    assert made.worker(0).decided.is_set()


async def test_a_worker_that_served_is_started_again_and_the_others_hear_of_its_end(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.serving()
    first: Any = made.worker(0).process
    second = Process()
    made.begins = [second]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.crew.supervise, made.worker(0))
        await anyio.wait_all_tasks_blocked()
        first.end(-9)
        while made.worker(0).process is not second or not made.worker(0).serves:
            await anyio.lowlevel.checkpoint()
        made.crew.stop()
        second.end(0)

    assert ("died", 0) in made.router.lines[1].called
    assert made.spawned == 1


async def test_a_worker_that_does_not_start_any_more_leaves_its_partitions_to_the_others(
    make: Callable[..., Made],
) -> None:
    made = make(3)
    made.serving()
    made.worker(0).serves = False

    await made.crew.give_up(made.worker(0))

    assert made.crew.in_service == [1, 2]
    assert 0 not in made.crew.owners
    assert set(made.crew.owners) == {1, 2}
    hosted = [item for line in made.router.lines for item in line.called]
    assert sorted(hosted) == [("host", 0), ("host", 1)]
    assert made.router.placed[-1] == made.crew.owners
    assert made.stopped == []


async def test_the_last_worker_that_does_not_start_any_more_ends_the_hub(
    make: Callable[..., Made],
) -> None:
    made = make(1)

    await made.crew.give_up(made.worker(0))

    [error] = made.stopped
    assert "worker 0 does not start any more, and was the last" in str(error)


async def test_partitions_that_nobody_can_host_end_the_hub_but_not_where_the_host_is_down(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.serving()
    error = StorageError("the disk fails")
    made.router.lines[1].answers["host"] = [LineLostError(False), error]

    await made.crew.give_up(made.worker(0))

    assert made.stopped == [error]


async def test_who_does_not_serve_is_asked_nothing(make: Callable[..., Made]) -> None:
    made = make()
    made.serving()
    made.worker(0).serves = False
    made.router.lines[1].is_up = False

    for shard in (0, 1):
        with pytest.raises(LineLostError):
            await made.crew.ask(shard, "load")
    with pytest.raises(UnavailableError, match="worker 0 does not run: partition 3 stays"):
        await made.crew.move(3, 0)

    assert made.crew.owners == [0, 0, 1, 1]


async def test_workers_drain_together_and_those_that_do_not_are_named(
    make: Callable[..., Made], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "DRAINED_S", 0.01)
    monkeypatch.setattr(processes, "ENDED_S", 0.0)
    made = make(3, drain_s=0.01)
    made.serving()
    made.worker(2).serves = False

    async def hang(verb: str, *arguments: Any) -> None:
        await anyio.sleep_forever()

    hanging: Any = made.router.lines[0]
    hanging.call = hang
    with anyio.fail_after(5):
        await made.crew.drain()

    assert made.router.lines[1].called == [("drain",)]
    assert made.router.lines[2].called == []
    assert "worker 0 did not come to a stop in time" in caplog.text


async def test_what_does_not_end_when_it_is_told_to_is_killed(
    make: Callable[..., Made], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ENDED_S", 0.0)
    monkeypatch.setattr(processes, "REAP_S", 0.01)
    made = make(4, drain_s=0.02)
    made.serving()
    obedient, stubborn, held = [made.worker(number).process for number in range(3)]
    stubborn.obeys = {"kill"}
    held.obeys = set[str]()
    made.worker(3).process = Process(0)

    with anyio.fail_after(5):
        await made.crew.close()

    assert (obedient.told, stubborn.told) == (["closed"], ["closed", "kill"])
    assert made.worker(3).process.told == []
    assert "worker 1 (pid 77) does not end, and is killed" in caplog.text
    assert "worker 2 (pid 77) cannot be killed" in caplog.text
    assert made.store.closed == 1


async def test_all_that_run_are_killed_at_once_where_this_process_ends(
    make: Callable[..., Made],
) -> None:
    made = make()
    made.serving()
    ended: Any = made.worker(1)
    ended.process = Process(0)

    made.crew.kill()

    assert made.worker(0).process.told == ["kill"]
    assert ended.process.told == []


def test_an_entry_of_the_search_path_means_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib").mkdir()

    assert absolute_entry("") == os.fspath(tmp_path)
    assert absolute_entry("lib") == os.fspath(tmp_path / "lib")
    assert (
        absolute_entry("__editable__.finder.__path_hook__") == "__editable__.finder.__path_hook__"
    )


@pytest.mark.parametrize(
    ("returncode", "how"), [(None, "it runs"), (0, "status 0"), (-9, "killed by signal 9")]
)
async def test_how_a_process_ended_is_told(returncode: int | None, how: str) -> None:
    process: Any = Process(returncode)

    assert how_ended(process) == how
