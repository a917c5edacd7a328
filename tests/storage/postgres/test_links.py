"""Links to a database: one call at a time on each, opened anew behind what broke, closed in time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.storage.postgres import links
from perdure.storage.postgres.links import Link, Pool, is_answer

asyncpg = pytest.importorskip("asyncpg")


@pytest.fixture
def anyio_backend() -> str:
    """Connections are asyncio's."""
    return "asyncio"


PLACE: Any = SimpleNamespace()


class Connection:
    """What a link takes for a connection."""

    def __init__(self) -> None:
        self.open = True
        self.hears: Any = None
        self.ends: Any = None

    def is_closed(self) -> bool:
        return not self.open

    def add_log_listener(self, listener: Any) -> None:
        self.hears = listener

    def add_termination_listener(self, listener: Any) -> None:
        self.ends = listener

    def terminate(self) -> None:
        self.open = False

    async def close(self, timeout: float) -> None:
        self.open = False


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that were opened."""
    made: list[Connection] = []

    async def connect(place: Any, *, name: str) -> Connection:
        made.append(Connection())
        return made[-1]

    monkeypatch.setattr(links, "connect", connect)
    return made


async def itself(connection: Connection) -> Connection:
    return connection


async def test_a_link_opens_at_its_first_use_and_keeps_what_it_opened(
    opened: list[Connection],
) -> None:
    link = Link(PLACE)
    assert not opened

    assert await link.use(itself) is await link.use(itself)
    assert len(opened) == 1


async def test_calls_of_a_link_come_one_behind_the_other(opened: list[Connection]) -> None:
    link, order = Link(PLACE), list[str]()

    async def work(connection: Connection) -> None:
        order.append("begins")
        await asyncio.sleep(0)
        order.append("ends")

    await asyncio.gather(*(link.use(work) for _ in range(3)))

    assert order == ["begins", "ends"] * 3
    assert len(opened) == 1


async def test_behind_an_answer_that_refuses_the_connection_is_used_again(
    opened: list[Connection],
) -> None:
    link = Link(PLACE)

    async def refused(connection: Connection) -> None:
        raise asyncpg.UniqueViolationError("twice")

    with pytest.raises(asyncpg.UniqueViolationError):
        await link.use(refused)
    await link.use(itself)

    assert len(opened) == 1


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("stopping"),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_behind_what_breaks_another_connection_is_opened(
    opened: list[Connection], error: BaseException
) -> None:
    link = Link(PLACE)

    async def breaks(connection: Connection) -> None:
        raise error

    with pytest.raises(type(error)):
        await link.use(breaks)
    await link.use(itself)

    assert [one.open for one in opened] == [False, True]


async def test_a_connection_that_does_not_pass_the_check_is_not_used(
    opened: list[Connection],
) -> None:
    async def check(connection: Any) -> None:
        raise ValueError("another server")

    link = Link(PLACE, check=check)

    with pytest.raises(ValueError, match="another server"):
        await link.use(itself)
    assert [one.open for one in opened] == [False]


async def test_warnings_are_counted_and_notices_are_not(opened: list[Connection]) -> None:
    link = Link(PLACE)
    await link.use(itself)

    for severity in ("NOTICE", "WARNING", "LOG"):
        opened[0].hears(opened[0], SimpleNamespace(severity_en=severity))

    assert link.warnings == 1


async def test_a_connection_that_breaks_is_told_of_and_one_that_was_dropped_is_not(
    opened: list[Connection],
) -> None:
    lost: list[int] = []
    link = Link(PLACE, on_lost=lambda: lost.append(1))
    await link.use(itself)
    opened[0].ends(opened[0])
    assert lost == [1]

    link.drop()
    opened[0].ends(opened[0])
    assert lost == [1]


async def test_closing_waits_for_what_uses_the_link(opened: list[Connection]) -> None:
    link, may = Link(PLACE), asyncio.Event()

    async def work(connection: Connection) -> bool:
        await may.wait()
        return connection.open

    using = asyncio.create_task(link.use(work))
    await asyncio.sleep(0)
    closing = asyncio.create_task(link.close())
    await asyncio.sleep(0)
    may.set()

    assert await using
    await closing
    assert not opened[0].open
    with pytest.raises(ValueError, match="closed"):
        await link.use(itself)


async def test_closing_does_not_wait_for_what_hangs(
    opened: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "CLOSE_S", 0.01)
    link = Link(PLACE)
    using = asyncio.create_task(link.use(lambda connection: asyncio.Event().wait()))
    await asyncio.sleep(0)

    await link.close()

    assert not opened[0].open
    using.cancel()


def test_a_link_that_is_used_on_another_loop_opens_another(opened: list[Connection]) -> None:
    link = Link(PLACE)

    async def use() -> None:
        await link.use(itself)

    asyncio.run(use())
    asyncio.run(use())

    assert len(opened) == 2


async def test_each_user_of_a_pool_has_a_connection_to_himself(opened: list[Connection]) -> None:
    pool = Pool(lambda: Link(PLACE), most=3, kept=1)
    inside, may = list[Connection](), asyncio.Event()

    async def work(connection: Connection) -> None:
        inside.append(connection)
        await may.wait()

    using = [asyncio.create_task(pool.use(work)) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(inside) == len(set(inside)) == 3
    assert pool.waits == 2
    may.set()
    await asyncio.gather(*using)

    assert len(inside) == 5
    assert sum(one.open for one in opened) == 1  # as many as are kept
    await pool.close()
    assert not any(one.open for one in opened)
    with pytest.raises(ValueError, match="closed"):
        await pool.use(itself)


async def test_a_pool_says_when_somebody_waits_for_long(
    opened: list[Connection], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(links, "LONG_S", 0.001)
    pool, may = Pool(lambda: Link(PLACE), most=1, kept=1), asyncio.Event()
    first = asyncio.create_task(pool.use(lambda connection: may.wait()))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.use(itself))
    async with asyncio.timeout(30):
        while not caplog.records:
            await asyncio.sleep(0.001)
    may.set()
    await asyncio.gather(first, second)

    assert "see there who holds locks" in caplog.text
    await pool.close()


def test_what_the_server_says_is_an_answer_and_its_end_is_none() -> None:
    assert is_answer(asyncpg.UniqueViolationError("twice"))
    assert not is_answer(asyncpg.CrashShutdownError("crashed"))
    assert not is_answer(OSError("no route"))
