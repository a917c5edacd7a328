from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from perdure import App, HubStoppingError, UnavailableError, UsageError, connect, watch_hub
from perdure.runtime.client import access
from perdure.runtime.client.access import SocketAccess
from perdure.runtime.client.remote import HubView, PlacementFollower
from perdure.runtime.nodes import HubNodes, NodePartition
from perdure.runtime.placement.places import LineLostError


class Router:
    """What a client's router is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def renew(self) -> None:
        self.told.append("renew")

    def place(self, owners: Sequence[int], incarnations: Sequence[int]) -> None:
        self.told.append(([*owners], [*incarnations]))


class Line:
    """A line to a hub, whose answers are the test's; it is silent when there are none left."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers]
        self.asked: list[Any] = []
        self.silent = anyio.Event()

    async def call(self, verb: str, *arguments: Any) -> Any:
        self.asked.append((verb, *arguments))
        if not self.answers:
            self.silent.set()
            await anyio.sleep_forever()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def where(version: int, run: str = "one", owners: Sequence[int] = (0, 1)) -> dict[str, Any]:
    return {"version": version, "run": run, "owners": owners, "incarnations": [0, 0]}


def placement(router: Any) -> PlacementFollower:
    return PlacementFollower(router, SocketAccess(Path()))


def test_a_placement_of_the_same_run_is_taken_as_it_is() -> None:
    router = Router()
    told = placement(router)
    told.take(where(1))
    told.take(where(2, owners=(1, 1)))

    assert router.told == ["renew", ([0, 1], [0, 0]), ([1, 1], [0, 0])]


def test_the_shards_of_another_run_are_dialled_again_before_they_are_asked() -> None:
    router = Router()
    told = placement(router)
    told.take(where(7))
    router.told.clear()

    told.take(where(1, run="another", owners=(1, 0)))

    assert told.run == "another"
    assert router.told == ["renew", ([1, 0], [0, 0])]


async def test_a_client_asks_for_what_comes_behind_what_it_knows_also_of_the_next_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    router = Router()
    told = placement(router)
    told.take(where(1))
    line: Any = Line(
        where(2), LineLostError(True), HubStoppingError("it stops"), where(1, run="another")
    )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.follow, line)
        await line.silent.wait()
        tasks.cancel_scope.cancel()

    assert line.asked == [
        ("where", 1, "one"),
        ("where", 2, "one"),
        ("where", 2, "one"),
        ("where", 2, "one"),
        ("where", 1, "another"),
    ]
    assert len(slept) == 2


@pytest.mark.parametrize("place", ["no.sock", "sqlite:nowhere"])
async def test_where_no_hub_listens_is_said_with_what_to_do(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UnavailableError, match=r"no hub listens at .*: start one with a socket"):
        async with connect(place, App()):
            raise AssertionError("it is not there")
    with pytest.raises(UnavailableError, match="no hub listens at"):
        async with watch_hub(place):
            raise AssertionError("it is not there")


async def test_what_can_be_no_socket_is_refused() -> None:
    with pytest.raises(UsageError, match=r"is \d+ bytes long"):
        async with connect("x" * 200, App()):
            raise AssertionError("it is not there")
    wrong: Any = 7
    with pytest.raises(UsageError, match=r"settings must be a perdure\.Settings"):
        async with connect("no.sock", App(), settings=wrong):
            raise AssertionError("it is not there")


async def test_a_view_of_a_hub_asks_it_for_its_counts_and_has_partitions_moved() -> None:
    line: Any = Line([{"restarted": 3}], None)
    view = HubView(line)

    counted = await view.statistics(hottest=7)
    await view.move_partition(1, 0)

    assert counted.restarted == 3
    assert line.asked == [("statistics", 7), ("move", 1, 0)]


async def test_a_view_of_a_hub_asks_for_its_nodes_and_has_them_drained() -> None:
    seen = HubNodes(is_cluster=True, nodes=(), free=(NodePartition(index=3, epoch=4, wanted=5),))
    line: Any = Line(seen.to_dict(), {}, {})
    view = HubView(line)

    assert await view.nodes() == seen
    await view.drain_node(7)
    await view.undrain_node(7)

    assert line.asked == [
        ("ask", "nodes", {}),
        ("ask", "drain_node", {"member": 7}),
        ("ask", "undrain_node", {"member": 7}),
    ]


@pytest.mark.parametrize("wrong", [-1, 1.0, True, "1", None])
async def test_a_view_asks_for_nothing_that_cannot_be(wrong: Any) -> None:
    line: Any = Line()
    view = HubView(line)

    with pytest.raises(UsageError, match="hottest"):
        await view.statistics(hottest=wrong)
    with pytest.raises(UsageError, match="partition"):
        await view.move_partition(wrong, 0)
    with pytest.raises(UsageError, match="to"):
        await view.move_partition(0, wrong)
    with pytest.raises(UsageError, match="member"):
        await view.drain_node(wrong)

    assert line.asked == []


async def test_an_error_inside_comes_out_as_it_is_and_not_in_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Channel:
        incarnation = None

        async def run(self, on_items: Any) -> None:
            await anyio.sleep_forever()

        def close(self) -> None: ...

    async def dial(path: Path) -> Any:
        return Channel()

    monkeypatch.setattr(access, "dial", dial)
    with pytest.raises(ZeroDivisionError):
        async with watch_hub("hub.sock"):
            raise ZeroDivisionError
