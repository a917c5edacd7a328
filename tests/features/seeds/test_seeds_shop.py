"""A shop: typed orders, batches, retries with every option, and management."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from perdure import ActivityError, App, OrchestrationContext, RetryPolicy
from tests.features.seeds.services import (
    DAY,
    activities,
    answers,
    fails,
    fails_times,
    log,
    names,
    served,
)
from tests.runtime.orchestrating import advance


@attrs.define
class Item:
    product_id: str
    quantity: int
    price: float


@attrs.define
class ShopOrder:
    order_id: str
    customer_id: str
    items: list[Item]
    payment_method: str = "card"


@attrs.define
class Payment:
    transaction_id: str
    amount: float


@attrs.define
class Receipt:
    order_id: str
    status: str
    payment: Payment | None = None
    confirmed: bool = False


shop = App("shop")

activities(
    shop,
    "send_confirmation",
    "process_item",
    "send_approval_request",
    "handle_timeout",
    "process_approved_request",
    "process_rejected_request",
    "call_external_api",
    "handle_permanent_failure",
    "check_stock",
    "charge",
    "dispatch",
)


@shop.activity
async def validate_shop_order(order: ShopOrder) -> bool:
    return bool(order.items) and all(i.quantity > 0 and i.price > 0 for i in order.items)


@shop.activity
def process_shop_payment(amount: float) -> Payment:
    return Payment("txn_1", amount)


@shop.orchestration
async def shop_order(ctx: OrchestrationContext, order: ShopOrder) -> Receipt:
    if not await ctx.call_activity(validate_shop_order, order):
        return Receipt(order.order_id, "ValidationFailed")
    total = sum(item.quantity * item.price for item in order.items)
    payment = await ctx.call_activity(process_shop_payment, total)
    await ctx.call_activity("send_confirmation", payment.transaction_id)
    return Receipt(order.order_id, "Completed", payment, confirmed=True)


async def test_a_typed_order_gives_a_typed_receipt() -> None:
    async with served(shop) as (hub, _):
        good = ShopOrder("o1", "c", [Item("tea", 2, 1.5), Item("pot", 1, 7.0)])
        handle = await hub.client.start_new(shop_order, good)
        bad = await hub.client.start_new(shop_order, ShopOrder("o2", "c", []))

        assert await handle.result(5) == Receipt("o1", "Completed", Payment("txn_1", 10.0), True)
        assert await bad.result(5) == Receipt("o2", "ValidationFailed")
        assert log == [("send_confirmation", "txn_1")]


@shop.orchestration
async def batch(ctx: OrchestrationContext, items: list[str]) -> dict[str, Any]:
    results = await ctx.task_all([ctx.call_activity("process_item", item) for item in items])
    return {
        "total": len(results),
        "successful": sum(r["success"] for r in results),
        "failed": sum(not r["success"] for r in results),
    }


async def test_a_batch_is_summed_up() -> None:
    answers["process_item"] = lambda item: {"item": item, "success": item != "b"}
    async with served(shop) as (hub, _):
        handle = await hub.client.start_new(batch, list("abc"))

        assert await handle.result(5) == {"total": 3, "successful": 2, "failed": 1}


@attrs.define
class Decision:
    approved: bool
    approved_by: str
    comments: str | None = None


@shop.orchestration
async def shop_approval(ctx: OrchestrationContext, request_id: str) -> list[str | None]:
    await ctx.call_activity("send_approval_request", request_id)
    try:
        decision = await ctx.wait_for_external_event(
            "ApprovalResponse", timeout=timedelta(hours=72), data_type=Decision
        )
    except TimeoutError:
        await ctx.call_activity("handle_timeout", request_id)
        return ["TimedOut"]
    if decision.approved:
        await ctx.call_activity("process_approved_request", decision.approved_by)
        return ["Approved", decision.approved_by]
    await ctx.call_activity("process_rejected_request", decision.approved_by)
    return ["Rejected", decision.comments]


@pytest.mark.parametrize(
    ("decision", "result", "last"),
    [
        (Decision(True, "Ada"), ["Approved", "Ada"], "process_approved_request"),
        (Decision(False, "Ada", "too much"), ["Rejected", "too much"], "process_rejected_request"),
        (None, ["TimedOut"], "handle_timeout"),
    ],
    ids=["approved", "rejected", "timeout"],
)
async def test_an_approval_has_three_days(decision: Any, result: Any, last: str) -> None:
    async with served(shop) as (hub, clock):
        handle = await hub.client.start_new(shop_approval, "r1")
        await advance(hub, clock, 3 * DAY - 1)
        if decision is not None:
            await handle.raise_event("approvalresponse", decision)
        await advance(hub, clock, 1)

        assert await handle.result(5) == result
        assert names() == ["send_approval_request", last]


@shop.orchestration
async def resilient(ctx: OrchestrationContext, endpoint: str) -> dict[str, Any]:
    retry = RetryPolicy(first_interval=5, max_attempts=5, backoff=2, max_interval=60, timeout=300)
    try:
        result = await ctx.call_activity("call_external_api", endpoint, retry=retry)
    except ActivityError as error:
        ctx.set_custom_status("PermanentFailure")
        await ctx.call_activity("handle_permanent_failure", error.message)
        return {"status": "Failed", "error": error.message}
    return {"status": "Success", "result": result}


async def test_a_call_is_retried_with_exponential_delays() -> None:
    answers["call_external_api"] = fails_times(3, "pong")
    async with served(shop) as (hub, clock):
        handle = await hub.client.start_new(resilient, "https://example.org")
        for seconds in (5, 10, 20):
            await advance(hub, clock, seconds)

        assert await handle.result(5) == {"status": "Success", "result": "pong"}


async def test_a_permanent_failure_shows_in_the_custom_status() -> None:
    answers["call_external_api"] = fails(ConnectionError("down"))
    async with served(shop) as (hub, clock):
        handle = await hub.client.start_new(resilient, "https://example.org")
        for seconds in (5, 10, 20, 40):
            await advance(hub, clock, seconds)

        assert await handle.result(5) == {"status": "Failed", "error": "down"}
        assert (await handle.status()).custom_status == "PermanentFailure"
        assert log[-1] == ("handle_permanent_failure", "down")
        assert names().count("call_external_api") == 5


@shop.orchestration
async def inventory(ctx: OrchestrationContext, items: list[Item]) -> dict[str, Any]:
    stock = await ctx.task_all([ctx.call_activity("check_stock", i.product_id) for i in items])
    return {"success": all(stock), "total": sum(i.quantity * i.price for i in items)}


@shop.orchestration
async def payment(ctx: OrchestrationContext, amount: float) -> Any:
    return await ctx.call_activity("charge", amount)


@shop.orchestration
async def fulfilment(ctx: OrchestrationContext, order: ShopOrder) -> Any:
    return await ctx.call_activity("dispatch", order.order_id)


@shop.orchestration
async def whole_order(ctx: OrchestrationContext, order: ShopOrder) -> dict[str, Any]:
    stock = await ctx.call_sub_orchestrator(inventory, order.items)
    if not stock["success"]:
        return {"status": "Failed", "reason": "Inventory unavailable"}
    paid = await ctx.call_sub_orchestrator(payment, stock["total"])
    sent = await ctx.call_sub_orchestrator(fulfilment, order)
    return {"status": "Completed", "payment": paid, "fulfilment": sent}


@pytest.mark.parametrize("in_stock", [True, False])
async def test_inventory_payment_and_fulfilment_are_orchestrations_themselves(
    in_stock: bool,
) -> None:
    answers["check_stock"] = lambda product: in_stock or product != "pot"
    answers["charge"] = lambda amount: f"paid {amount}"
    answers["dispatch"] = lambda order: f"sent {order}"
    order = ShopOrder("o1", "c", [Item("tea", 2, 1.5), Item("pot", 1, 7.0)])
    async with served(shop) as (hub, _):
        handle = await hub.client.start_new(whole_order, order)

        result = await handle.result(5)

        if in_stock:
            assert result == {
                "status": "Completed",
                "payment": "paid 10.0",
                "fulfilment": "sent o1",
            }
        else:
            assert result == {"status": "Failed", "reason": "Inventory unavailable"}
            assert "charge" not in names()


async def test_a_status_shows_input_output_and_history() -> None:
    answers["charge"] = lambda amount: {"charged": amount}
    async with served(shop) as (hub, _):
        handle = await hub.client.start_new(payment, 12.5)
        await handle.result(5)

        status = await handle.status()
        history = await handle.history()

        assert (status.input, status.output) == (12.5, {"charged": 12.5})
        assert [event.event_type for event in history] == [
            "ExecutionStarted",
            "TaskScheduled",
            "TaskCompleted",
            "ExecutionCompleted",
        ]
        assert history[2].fields["result"] == {"charged": 12.5}
        assert await hub.client.get_status("unknown") is None


async def test_instances_older_than_thirty_days_are_purged() -> None:
    async with served(shop) as (hub, clock):
        old = await hub.client.start_new(payment, 1.0, instance_id="old")
        live = await hub.client.start_new(shop_approval, "r", instance_id="live")
        await old.result(5)
        await live.terminate()
        await advance(hub, clock, 31 * DAY)
        recent = await hub.client.start_new(payment, 2.0, instance_id="recent")
        await recent.result(5)
        cutoff = datetime(2030, 1, 2, tzinfo=UTC)

        deleted = await hub.client.purge(
            created_from=datetime(2020, 1, 1, tzinfo=UTC),
            created_to=cutoff,
            statuses=["Completed", "Terminated", "Failed"],
        )

        assert deleted == 2
        assert [s.instance_id async for s in hub.client.query()] == ["recent"]
