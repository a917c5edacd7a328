"""A hub goes on when the application's logging does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from perdure import App, EntityId, Hub

app = App("logging")


@app.entity
class Box:
    n: int = 0

    def bad(self) -> None:
        raise ValueError("two\nlines")

    def add(self) -> int:
        self.n += 1
        return self.n


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


async def test_the_text_of_an_error_is_logged_on_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Hub(app) as hub:
        await hub.client.signal_entity(EntityId(Box, "b"), Box.bad)

    assert any("two\\nlines" in message for message in caplog.messages)
    assert not any("\n" in message for message in caplog.messages)
