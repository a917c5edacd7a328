from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import InternalError, StorageError, UnavailableError, UsageError
from perdure.runtime.cluster import crews
from perdure.runtime.cluster.crews import Crew, SilentShardError
from perdure.runtime.placement.places import LineLostError

Answer = Callable[..., Any]


class Router:
    """Where partitions are, as the crew tells it."""

    def __init__(self) -> None:
        self.placed: list[list[int]] = []
        self.posted: list[tuple[int, Any]] = []

    def place(self, owners: list[int], incarnations: list[int]) -> None:
        self.placed.append([*owners])

    def post(self, shard: int, item: Any) -> None:
        self.posted.append((shard, item))


class FakeCrew(Crew):
    """A crew whose shards are played by the test."""

    def __init__(self, count: int = 2, partitions: int = 4, socket: Path | None = None) -> None:
        super().__init__(count, partitions, socket)
        self.seen = Router()
        router: Any = self.seen
        self.router = router
        self.asked: list[tuple[Any, ...]] = []
        #: What comes of a question to a shard: an error is raised.
        self.answers: dict[tuple[int, str], Any] = {}

    async def ask(self, shard: int, verb: str, *arguments: Any) -> Any:
        if verb != "load":
            self.asked.append((shard, verb, *arguments))
        answer: Any = self.answers.get((shard, verb))
        if type(answer) is list:
            several: list[Any] = self.answers[shard, verb]
            answer = several.pop(0) if several else None
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            make: Answer = answer
            return await make()
        given: Any = self.answers.get((shard, verb)) if type(answer) is dict else None
        return given

    async def open(self) -> None:
        await self._listen()

    async def run(self) -> None: ...

    async def ready(self) -> None: ...

    async def drain(self) -> None: ...

    def stop(self) -> None: ...

    async def close(self) -> None:
        await self._stop_listening()


@pytest.fixture(autouse=True)
def promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "ANSWER_S", 0.01)

    def at_once(tries: int) -> float:
        return 0

    monkeypatch.setattr(crews, "backoff", at_once)


def counted(shard: int) -> dict[str, Any]:
    says: dict[str, Any] = {
        "index": shard,
        "pid": 7,
        "busy_s": 0.0,
        "activities": 0,
        "partitions": [],
    }
    return {"shard": says, "partitions": []}


@pytest.mark.parametrize(
    ("count", "partitions", "owners"),
    [(1, 3, [0, 0, 0]), (2, 4, [0, 0, 1, 1]), (2, 3, [0, 0, 1]), (4, 2, [0, 2])],
)
async def test_partitions_are_shared_out_evenly_at_first(
    count: int, partitions: int, owners: list[int]
) -> None:
    assert FakeCrew(count, partitions).owners == owners


async def test_no_two_crews_are_taken_for_each_other() -> None:
    one, other = FakeCrew(), FakeCrew()

    assert one.run_id != other.run_id
    assert one.secret != other.secret


async def test_a_partition_that_moves_is_let_go_and_hosted_and_all_are_told() -> None:
    crew = FakeCrew()
    crew.answers[0, "let_go"] = {"brought": "along"}

    await crew.move(1, 1)

    assert crew.asked == [(0, "let_go", 1, 1), (1, "host", 1, {"brought": "along"})]
    assert crew.owners == [0, 1, 1, 1]
    assert crew.seen.placed == [[0, 1, 1, 1]]
    assert [shard for shard, _ in crew.seen.posted] == [0, 1]


async def test_a_partition_that_is_there_already_does_not_move() -> None:
    crew = FakeCrew()

    await crew.move(1, 0)

    assert crew.asked == []
    assert crew.seen.placed == []


@pytest.mark.parametrize(("partition", "to"), [(4, 0), (-1, 0), (0, 2), (0, -1)])
async def test_what_is_not_there_does_not_move(partition: int, to: int) -> None:
    with pytest.raises(UsageError, match=r"(partition|to) must be an int from 0 to \d, not -?\d"):
        await FakeCrew().move(partition, to)


@pytest.mark.parametrize("silent", [0, 1])
async def test_nothing_moves_from_or_to_a_shard_that_does_not_answer(silent: int) -> None:
    crew = FakeCrew()
    crew.answers[silent, "load"] = anyio.sleep_forever

    with pytest.raises(UnavailableError, match=f"stays where it is: shard {silent} has not"):
        await crew.move(1, 1)

    assert crew.asked == []
    assert crew.owners == [0, 0, 1, 1]


async def test_a_partition_that_its_shard_cannot_let_go_stays() -> None:
    crew = FakeCrew()
    crew.answers[0, "let_go"] = StorageError("the disk fails")

    with pytest.raises(StorageError):
        await crew.move(1, 1)

    assert crew.owners == [0, 0, 1, 1]
    assert [verb for _, verb, *_ in crew.asked] == ["let_go"]


async def test_a_partition_that_cannot_be_hosted_goes_back_however_often_that_is_tried() -> None:
    crew = FakeCrew()
    crew.answers[0, "let_go"] = {"brought": "along"}
    crew.answers[1, "host"] = UnavailableError("no room")
    crew.answers[0, "host"] = [StorageError("the disk fails"), StorageError("it still does")]

    with pytest.raises(UnavailableError, match="no room"):
        await crew.move(1, 1)

    assert crew.owners == [0, 0, 1, 1]
    assert crew.asked[2:] == [(0, "host", 1, {"brought": "along"})] * 3
    assert crew.seen.placed == [[0, 0, 1, 1]]


async def test_where_going_back_fails_for_good_the_first_error_is_told() -> None:
    crew = FakeCrew()
    crew.answers[1, "host"] = InternalError("a bug")
    crew.answers[0, "host"] = LineLostError(False)

    with pytest.raises(InternalError, match="a bug"):
        await crew.move(1, 1)

    assert crew.owners == [0, 0, 1, 1]


async def test_a_partition_whose_new_shard_dies_is_that_shard_s_when_it_is_back() -> None:
    crew = FakeCrew()
    crew.answers[1, "host"] = LineLostError(True)

    await crew.move(1, 1)

    assert crew.owners == [0, 1, 1, 1]
    assert crew.seen.placed == [[0, 1, 1, 1]]


async def test_who_waits_too_long_for_other_moves_is_told_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crew, gate = FakeCrew(), anyio.Event()
    crew.answers[0, "let_go"] = gate.wait

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crew.move, 0, 1)
        await anyio.wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(crews, "MOVES_S", 0.01)
            with pytest.raises(UnavailableError, match="others have been moving"):
                await crew.move(1, 1)
        gate.set()
    await crew.move(1, 1)

    assert crew.owners == [1, 1, 1, 1]


async def test_a_move_that_is_cancelled_leaves_the_partition_with_somebody() -> None:
    crew = FakeCrew()
    gate = anyio.Event()
    crew.answers[0, "let_go"] = gate.wait

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crew.move, 1, 1)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        gate.set()

    assert crew.owners == [0, 1, 1, 1]
    assert crew.asked[-1][:3] == (1, "host", 1)
    with anyio.fail_after(5):  # and others may move
        await crew.move(2, 0)


async def test_a_shard_that_is_silent_is_so_since_it_was_last_heard_of() -> None:
    crew = FakeCrew()
    assert await crew.ask_soon(0, "load") is None
    heard = crew.last_heard[0]
    crew.last_heard[0] = heard - 5
    crew.answers[0, "load"] = anyio.sleep_forever

    with pytest.raises(SilentShardError, match=r"shard 0 has not answered for [5-9]\.") as raised:
        await crew.ask_soon(0, "load")

    assert raised.value.shard == 0
    assert raised.value.silent_s >= 5
    del crew.answers[0, "load"]
    await crew.ask_soon(0, "load")
    assert crew.last_heard[0] >= heard


async def test_all_are_counted_and_who_does_not_answer_is_named() -> None:
    crew = FakeCrew(4)
    crew.answers |= {
        (0, "count"): counted(0),
        (1, "count"): anyio.sleep_forever,
        (2, "count"): LineLostError(False),
        (3, "count"): counted(3),
    }

    found = await crew.statistics(7)

    assert [one.index for one in found.shards] == [0, 3]
    assert [one.index for one in found.silent] == [1]
    assert found.restarted == 0
    assert (0, "count", 7) in crew.asked


async def test_an_error_of_a_count_is_told() -> None:
    crew = FakeCrew()
    crew.answers |= {(0, "count"): StorageError("the disk fails"), (1, "count"): counted(1)}

    with pytest.raises(StorageError):
        await crew.statistics(0)


async def test_only_shards_in_service_are_counted() -> None:
    class Reduced(FakeCrew):
        @property
        def in_service(self) -> list[int]:
            return [1]

    crew = Reduced()
    crew.answers[1, "count"] = counted(1)

    assert [one.index for one in (await crew.statistics(0)).shards] == [1]


async def test_who_knows_the_placement_hears_when_it_is_another() -> None:
    crew, told = FakeCrew(), list[dict[str, Any]]()

    async def follow() -> None:
        told.append(await crew.handlers["where"](1, crew.run_id))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        await crew.move(1, 1)

    [where] = told
    assert (where["owners"], where["version"], where["run"]) == ([0, 1, 1, 1], 2, crew.run_id)
    assert (where["shards"], where["incarnations"]) == (2, [0, 0])


@pytest.mark.parametrize(("version", "run"), [(0, ""), (1, "of another hub"), (1, "")])
async def test_who_does_not_know_the_placement_of_this_run_is_told_at_once(
    version: int, run: str
) -> None:
    crew = FakeCrew()

    with anyio.fail_after(5):
        where = await crew.handlers["where"](version, run)

    assert where["owners"] == [0, 0, 1, 1]


async def test_clients_may_ask_for_nothing_else() -> None:
    verbs = {"where", "statistics", "move", "migrate", "migration", "ask", "look"}

    assert FakeCrew().handlers.keys() == verbs


async def test_a_crew_without_its_own_loop_has_no_shard_there() -> None:
    with pytest.raises(UsageError, match="no shard of this hub is in its own loop"):
        _ = FakeCrew().local_shard


async def test_sockets_of_an_earlier_hub_go_when_this_one_listens_and_its_own_at_the_end(
    tmp_path: Path,
) -> None:
    socket = tmp_path / "hub.sock"
    crew = FakeCrew(2, 4, socket)

    await crew.open()
    assert socket.exists()
    second = FakeCrew(2, 4, socket)
    with pytest.raises(UsageError):
        await second.open()
    await second.close()
    assert socket.exists()  # which is the first one's
    await crew.close()
    await crew.close()

    assert os.listdir(tmp_path) == []


async def test_what_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "hub.sock.1").write_text("somebody's")
    crew = FakeCrew(2, 4, tmp_path / "hub.sock")

    with pytest.raises(UsageError):
        await crew.open()
    await crew.close()

    assert (tmp_path / "hub.sock.1").read_text() == "somebody's"
    assert not (tmp_path / "hub.sock").exists()
