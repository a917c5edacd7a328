"""Log records as JSON, with whose they are."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from perdure import ActivityContext, App, EntityContext, EntityId, Hub, OrchestrationContext
from perdure.adapters.telemetry import JsonFormatter
from tests.adapters.telemetry.tracing import Traces, span_id, trace_id

app = App()
shop = logging.getLogger("shop")


@app.entity
class Shelf:
    count: int = 0

    def put(self, amount: int, ctx: EntityContext) -> None:
        ctx.logger.info("put %d", amount)
        shop.info("in an operation")
        self.count += amount


@app.activity
def pack(ctx: ActivityContext) -> None:
    ctx.logger.info("packing")
    shop.info("in an activity")


@app.orchestration
async def order(ctx: OrchestrationContext) -> None:
    ctx.logger.info("ordered")
    await ctx.call_activity(pack)
    await ctx.call_entity(EntityId(Shelf, "s"), Shelf.put, 2)


class Lines(logging.Handler):
    """Keeps what the formatter made of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.lines.append(json.loads(line))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    for logger in (shop, logging.getLogger("perdure")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    yield handler
    for logger in (shop, logging.getLogger("perdure")):
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def about(lines: Lines, message: str) -> dict[str, Any]:
    [line] = [line for line in lines.lines if line["message"] == message]
    return {
        name: value
        for name, value in line.items()
        if name not in ("time", "level", "message", "trace_id", "span_id")
    }


async def test_records_of_contexts_say_whose_they_are(lines: Lines) -> None:
    async with Hub(app) as hub:
        await (await hub.client.start_new(order, instance_id="o")).result(10)

    assert about(lines, "ordered") == {
        "logger": "perdure.orchestrations.order",
        "instance_id": "o",
        "orchestration": "order",
    }
    assert about(lines, "packing") == {
        "logger": "perdure.activities.pack",
        "instance_id": "o",
        "activity": "pack",
        "task_id": 1,
        "attempt": 1,
    }
    assert about(lines, "put 2") == {
        "logger": "perdure.entities.shelf",
        "entity_id": "@shelf@s",
        "operation": "put",
    }


async def test_where_a_hub_traces_any_record_says_whose_it_is_and_of_which_span(
    lines: Lines,
) -> None:
    traces = Traces()
    async with Hub(app, observer=traces.observer) as hub:
        await (await hub.client.start_new(order, instance_id="o")).result(10)

    assert about(lines, "in an activity") == {
        "logger": "shop",
        "instance_id": "o",
        "activity": "pack",
        "task_id": 1,
        "attempt": 1,
    }
    assert about(lines, "in an operation") == {
        "logger": "shop",
        "entity_id": "@shelf@s",
        "operation": "put",
    }
    [line] = [line for line in lines.lines if line["message"] == "in an activity"]
    span = traces.one("activity pack")
    assert line["span_id"] == f"{span_id(span):016x}"
    assert line["trace_id"] == f"{trace_id(span):032x}"
    [line] = [line for line in lines.lines if line["message"] == "ordered"]
    assert line["span_id"] == f"{span_id(traces.one('orchestration order')):016x}"


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


def written(message: str, *values: object, **more: Any) -> dict[str, Any]:
    """Give what becomes of a record."""
    record = logging.LogRecord("shop", logging.ERROR, "shop.py", 1, message, values, None)
    vars(record).update(more)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_whatever_a_record_holds_it_is_one_line_of_json() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    try:
        raise ValueError("a\nb")
    except ValueError:
        failed = written(
            "failed\n%s", "twice", exc_info=sys.exc_info(), odd=Hostile(), loop=loop, n=1.5
        )

    assert failed["message"] == "failed\ntwice"
    assert failed["level"] == "ERROR"
    assert failed["odd"] == "<Hostile>"
    assert "loop" in failed
    assert failed["exception"].endswith("ValueError: a\nb\n")
    assert datetime.fromisoformat(failed["time"]).tzinfo is not None
    assert written("%d", "no number")["message"] == "%d (its arguments do not fit)"
    assert written("n", n=1.5)["n"] == 1.5


def test_the_formatter_needs_none_of_the_extra() -> None:
    code = (
        "import sys\n"
        "from perdure.adapters.telemetry import JsonFormatter\n"
        "assert not {'opentelemetry', 'prometheus_client'} & {*sys.modules}\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_extra_the_rest_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "try:\n"
        "    from perdure.adapters.telemetry import Tracing\n"
        "except ImportError as error:\n"
        "    assert \"pip install 'perdure[otel]'\" in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
