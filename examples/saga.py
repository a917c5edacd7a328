"""Undo what was done when a later step fails, as a generator: ``python -m examples.saga``."""

from collections.abc import Generator
from typing import Any

import anyio

from perdure import ActivityError, App, FailedError, Hub, OrchestrationContext, RetryPolicy

app = App()
Order = dict[str, Any]


@app.activity
def validate_order(order: Order) -> str:
    return "" if order["items"] else "no items"


@app.activity
def reserve_inventory(order: Order) -> None:
    print(f"{order['id']}: reserved {', '.join(order['items'])}")


@app.activity
def process_payment(order: Order) -> None:
    if order["total"] > 100:
        raise ValueError("the card was declined")


@app.activity
def release_inventory(order_id: str) -> None:
    print(f"{order_id}: released")


@app.orchestration
def order(context: OrchestrationContext, order: Order) -> Generator[Any, Any, str]:
    if reason := (yield context.call_activity(validate_order, order)):
        return f"rejected: {reason}"
    yield context.call_activity(reserve_inventory, order, retry=RetryPolicy(5, max_attempts=3))
    try:
        yield context.call_activity(process_payment, order)
    except ActivityError:
        yield context.call_activity(release_inventory, order["id"])
        raise
    return "shipped"


async def main() -> None:
    async with Hub(app) as hub:
        for id, items, total in ("o-1", ["tea"], 8), ("o-2", ["piano"], 9000), ("o-3", [], 0):
            handle = await hub.client.start_new(order, {"id": id, "items": items, "total": total})
            try:
                print(f"{id}: {await handle.result(timeout=60)}")
            except FailedError as error:
                print(f"{id}: failed, {error.message}")


if __name__ == "__main__":
    anyio.run(main)
