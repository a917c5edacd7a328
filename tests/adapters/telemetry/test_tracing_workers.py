"""A trace goes on through worker processes, and through the death of one in the middle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from perdure import Hub, UsageError
from perdure.adapters.telemetry import Tracing
from tests.adapters.telemetry import shop
from tests.adapters.telemetry.shop import FOLDER, order

HERE = "tests.adapters.telemetry.shop"


def tree(spans: list[dict[str, Any]], parent: int | None) -> list[Any]:
    """Give the names of spans below one, sorted, since processes end theirs as they come to it."""
    found = [(span["name"], tree(spans, span["id"])) for span in spans if span["parent"] == parent]
    return sorted(found)


def leave(provider: Any) -> None:
    """Set no provider."""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_is_killed_in_the_middle_leaves_one_whole_trace_with_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", leave)  # this process's own
    store, observer = f"sqlite:{tmp_path / 'hub'}", f"{HERE}:make_observer"

    async with Hub(f"{HERE}:app", store=store, workers=2, observer=observer) as hub:
        handle = await hub.client.start_new(order, "cup", instance_id="o")
        assert await handle.result(60) == 1

    assert (tmp_path / "ended").exists()
    spans = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    assert tree(spans, None) == [
        (
            "orchestration order",
            [
                ("activity pack", [("inner", [])]),
                ("activity pack", [("inner", []), ("inner", [])]),  # one attempt, run twice
                ("entity shelf.put", []),
                ("orchestration label", []),
                ("timer", []),
            ],
        )
    ]
    assert len({span["id"] for span in spans}) == len(spans)
    assert len({span["trace"] for span in spans}) == 1
    assert os.getpid() not in {span["pid"] for span in spans}


def test_an_observer_of_worker_processes_has_to_be_named(tmp_path: Path) -> None:
    tracing = Tracing(TracerProvider(shutdown_on_exit=False))

    with pytest.raises(UsageError, match="name one that they can import"):
        Hub(shop.app, store=f"sqlite:{tmp_path / 'hub'}", workers=1, observer=tracing)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere", "give 'module:name'"),
        ("no_such_module_at_all:x", "there is no module"),
        (f"{HERE}:none", "there is no 'none'"),
        (f"{HERE}:app", "observer must be an object with the methods"),
    ],
)
def test_an_observer_that_is_not_where_it_is_said_to_be_is_refused(place: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Hub(shop.app, observer=place)
