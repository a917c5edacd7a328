"""What is stored is what the last operation of a batch left."""

from __future__ import annotations

from typing import Any

import pytest

import perdure
from perdure import EntityId, Hub, Store
from tests.features.entities.application import Keeper, app


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        pytest.param(["a", "b"], ["a", "b"], id="small"),
        pytest.param(["x" * 5_000, "b", "c"], ["x" * 5_000, "b", "c"], id="grown-large"),
        pytest.param(["a", "~b"], ["a", "b"], id="async-last"),
        pytest.param(["~a", "b"], ["a", "b"], id="async-first"),
        pytest.param(["a", "!", "b", "!"], ["a", "b"], id="with-failures"),
        pytest.param(["x" * 5_000, "b", "!"], ["x" * 5_000, "b"], id="failure-of-a-large"),
        pytest.param(["a", "-", "b"], ["b"], id="deleted-between"),
        pytest.param(["x" * 5_000, "b", "-", "y" * 5_000, "c"], ["y" * 5_000, "c"], id="anew"),
        pytest.param(["a", "b", "-"], None, id="deleted-last"),
    ],
)
async def test_the_state_stored_is_what_the_last_operation_of_a_batch_left(
    store: Store, sequence: list[str], expected: list[str] | None
) -> None:
    keeper = EntityId(Keeper, "k")
    signals: list[tuple[EntityId[Any], Any, Any]] = []
    for item in sequence:
        if item == "!":
            signals.append((keeper, Keeper.fail, perdure.MISSING))
        elif item == "-":
            signals.append((keeper, "delete", perdure.MISSING))
        elif item.startswith("~"):
            signals.append((keeper, Keeper.keep_async, item[1:]))
        else:
            signals.append((keeper, Keeper.keep, item))

    async with Hub(app, store=store) as hub:
        await hub.client.call_entity(keeper, Keeper.keep, "before")
        await hub.client.call_entity(keeper, "delete")
        await hub.client.signal_entities(signals)
        state = await hub.client.read_entity_state(keeper)

    async with Hub(app, store=store) as hub:
        assert await hub.client.read_entity_state(keeper) == state
    assert (None if state is None else state.items) == expected
