"""What a client's query of entities asks of the store."""

from __future__ import annotations

from perdure import App, EntityId, Hub, MemoryStore
from tests.faults import FaultyStore

app = App()


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount


class AskedStore(FaultyStore):
    """A store that knows what it was asked."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.asked: list[str] = []

    async def deliver(self, method: str, partition: int) -> None:
        self.asked.append(method)


async def test_a_query_counts_what_waits_for_all_entities_of_a_page_at_once() -> None:
    store = AskedStore()
    async with Hub(app, store=store, partitions=2) as hub:
        await hub.client.signal_entities(
            [(EntityId(Counter, f"{n:02}"), Counter.add, 1) for n in range(60)]
        )

        found = [status.entity_id.key async for status in hub.client.query_entities(page_size=20)]

    assert found == [f"{n:02}" for n in range(60)]
    assert store.asked.count("waiting") <= 3 * 2
