"""A hub goes on when the application's logging does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest

from perdure import App, EntityId, Hub, OrchestrationContext
from perdure.actors.logs import Log
from tests.runtime.orchestrating import evict, running

app = App("logging")


@app.entity
class Box:
    n: int = 0

    def bad(self) -> None:
        raise ValueError("two\nlines")

    def add(self) -> int:
        self.n += 1
        return self.n


@app.activity
async def act(number: int) -> int:
    return number


@app.orchestration
async def says(ctx: OrchestrationContext) -> list[int]:
    done: list[int] = []
    logger = ctx.logger
    ways = (logger.debug, logger.info, logger.warning, logger.error, logger.critical)
    for way in (*ways, logger.exception, partial(logger.log, logging.WARNING)):
        try:
            way("paid %s", "x")
            done.append(await ctx.call_activity(act, 1))
        except Exception:
            done.append(await ctx.call_activity(act, 2))
        await ctx.wait_for_external_event("next")
    return done


@app.orchestration
async def speaks(ctx: OrchestrationContext) -> bool:
    ctx.logger.warning("info")
    ctx.logger.log(logging.WARNING, "log")
    return ctx.logger.isEnabledFor(logging.ERROR)


class Collector(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError("the collector does not answer")


@pytest.fixture
def collector() -> Iterator[None]:
    handler = Collector()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("collector")
async def test_a_handler_that_raises_while_the_hub_logs_does_not_reach_the_hub() -> None:
    async with Hub(app) as hub:
        box = EntityId(Box, "b")
        await hub.client.signal_entity(box, Box.bad)

        assert await hub.client.call_entity(box, Box.add) == 1


@pytest.mark.usefixtures("collector")
async def test_a_handler_that_raises_for_an_orchestrations_logger_loses_the_record_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Log, "lost", 0)
    with caplog.at_level(logging.DEBUG, "perdure.orchestrations.says"):
        async with running(app, partitions=1) as hub:
            handle = await hub.client.start_new(says)
            for _ in range(7):
                await evict(hub)
                await handle.raise_event("next")

            assert await handle.result(5) == [1] * 7
            assert Log.lost == 7  # once each, however often it is replayed


class Moody(logging.Logger):
    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        raise LookupError("no level")


async def test_a_logger_that_raises_where_it_is_asked_for_its_level_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("perdure.orchestrations.speaks"), "__class__", Moody)
    monkeypatch.setattr(Log, "lost", 0)
    async with Hub(app) as hub:
        assert await (await hub.client.start_new(speaks)).result(5) is False
        assert Log.lost == 3


async def test_a_record_of_an_orchestration_names_its_line_and_its_instance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Hub(app) as hub:
        assert await (await hub.client.start_new(speaks, instance_id="i")).result(5) is True

    records = [one for one in caplog.records if one.name == "perdure.orchestrations.speaks"]
    assert [one.getMessage() for one in records] == ["info", "log"]
    assert {(one.funcName, vars(one)["instance_id"]) for one in records} == {("speaks", "i")}


async def test_the_text_of_an_error_is_logged_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Hub(app) as hub:
        await hub.client.signal_entity(EntityId(Box, "b"), Box.bad)

    assert any("two\\nlines" in message for message in caplog.messages)
    assert not any("\n" in message for message in caplog.messages)
