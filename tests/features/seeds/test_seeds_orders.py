"""Orders, in the Python of Durable Functions."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from perdure import App, OrchestrationContext, OrchestrationFailedError, RetryPolicy, RuntimeStatus
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
from tests.runtime.orchestrating import advance, quiet, status_of

orders = App("orders")

activities(
    orders,
    "validate_order",
    "reserve_inventory",
    "release_inventory",
    "process_payment",
    "ship_order",
    "process_item",
    "send_approval_request",
    "send_timeout_notification",
    "execute_request",
    "step1",
    "step2",
    "step3",
    "compensate_step1",
    "compensate_step2",
    "compensate_step3",
    "check_health",
    "send_alert",
)


def validate(order: dict[str, Any]) -> dict[str, Any]:
    if not order.get("items"):
        return {"valid": False, "reason": "No items in order"}
    if order.get("total", 0) <= 0:
        return {"valid": False, "reason": "Invalid total"}
    return {"valid": True}


@orders.orchestration
def order_orchestrator(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    order = context.get_input()
    order_id = order["order_id"]
    validation = yield context.call_activity("validate_order", order)
    if not validation["valid"]:
        return {"status": "rejected", "reason": validation["reason"]}
    retry = RetryPolicy.from_options(5000, 3)
    yield context.call_activity("reserve_inventory", order, retry=retry)
    try:
        yield context.call_activity("process_payment", order)
    except Exception:
        yield context.call_activity("release_inventory", order_id)
        raise
    shipment = yield context.call_activity("ship_order", order)
    return {"status": "completed", "order_id": order_id, "tracking": shipment["tracking_number"]}


ORDER = {"order_id": "o1", "items": ["tea"], "total": 5}


async def test_an_order_is_shipped() -> None:
    answers["validate_order"] = validate
    answers["reserve_inventory"] = fails_times(2, {"reserved": True})
    answers["ship_order"] = lambda _: {"tracking_number": "1Z"}
    async with served(orders) as (hub, clock):
        handle = await hub.client.start_new("order_orchestrator", ORDER)
        await advance(hub, clock, 5)
        await advance(hub, clock, 5)

        assert await handle.result(5) == {"status": "completed", "order_id": "o1", "tracking": "1Z"}
        assert names().count("reserve_inventory") == 3


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"order_id": "o", "items": []}, "No items in order"),
        ({"order_id": "o", "items": [1], "total": 0}, "Invalid total"),
    ],
)
async def test_a_bad_order_is_rejected(order: Any, reason: str) -> None:
    answers["validate_order"] = validate
    async with served(orders) as (hub, _):
        handle = await hub.client.start_new("order_orchestrator", order)

        assert await handle.result(5) == {"status": "rejected", "reason": reason}
        assert names() == ["validate_order"]


async def test_a_failed_payment_releases_the_inventory() -> None:
    answers["validate_order"] = validate
    answers["process_payment"] = fails(RuntimeError("declined"))
    async with served(orders) as (hub, _):
        handle = await hub.client.start_new("order_orchestrator", ORDER)

        with pytest.raises(OrchestrationFailedError, match="declined"):
            await handle.result(5)
        assert log[-1] == ("release_inventory", "o1")


@orders.orchestration
def fan_out(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    tasks = [context.call_activity("process_item", item) for item in context.get_input()]
    results = yield context.task_all(tasks)
    return {"total": sum(r["value"] for r in results), "count": len(results)}


async def test_items_are_processed_side_by_side_and_summed() -> None:
    answers["process_item"] = lambda item: {"value": item * 2}
    async with served(orders) as (hub, _):
        handle = await hub.client.start_new("fan_out", list(range(100)))

        assert await handle.result(5) == {"total": 9900, "count": 100}


@orders.orchestration
def approval(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    request = context.get_input()
    yield context.call_activity("send_approval_request", request)
    expiration = context.current_utc_datetime + timedelta(hours=24)
    timeout_task = context.create_timer(expiration)
    approval_task = context.wait_for_external_event("ApprovalEvent")
    winner = yield context.task_any([approval_task, timeout_task])
    if winner == timeout_task:
        yield context.call_activity("send_timeout_notification", request)
        return {"status": "timeout"}
    decision = approval_task.result
    if decision["approved"]:
        yield context.call_activity("execute_request", request)
        return {"status": "approved"}
    return {"status": "rejected", "reason": decision.get("reason")}


@pytest.mark.parametrize(
    ("decision", "result", "last"),
    [
        ({"approved": True}, {"status": "approved"}, "execute_request"),
        (
            {"approved": False, "reason": "no"},
            {"status": "rejected", "reason": "no"},
            "send_approval_request",
        ),
        (None, {"status": "timeout"}, "send_timeout_notification"),
    ],
    ids=["approved", "rejected", "timeout"],
)
async def test_a_request_waits_a_day_for_approval(decision: Any, result: Any, last: str) -> None:
    async with served(orders) as (hub, clock):
        handle = await hub.client.start_new("approval", {"request": 1})
        await quiet(hub)
        if decision is not None:
            await handle.raise_event("ApprovalEvent", decision)
        await advance(hub, clock, DAY)

        assert await handle.result(5) == result
        assert names()[-1] == last


@orders.orchestration
def saga(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    order = context.get_input()
    completed: list[str] = []
    try:
        result = order
        for step in ("step1", "step2", "step3"):
            result = yield context.call_activity(step, result)
            completed.append(step)
        return {"status": "success", "result": result}
    except Exception as error:
        for step in reversed(completed):
            yield context.call_activity(f"compensate_{step}", order)
        return {"status": "failed", "error": str(error)}


@pytest.mark.parametrize("broken", [None, "step1", "step2", "step3"])
async def test_a_chain_is_compensated_in_reverse_order(broken: str | None) -> None:
    for step in ("step1", "step2", "step3"):
        answers[step] = lambda n: n + 1
    if broken is not None:
        answers[broken] = fails(ValueError("broken"))
    async with served(orders) as (hub, _):
        handle = await hub.client.start_new("saga", 0)

        result = await handle.result(5)

        if broken is None:
            assert result == {"status": "success", "result": 3}
        else:
            number = int(broken[-1])
            undone = [f"compensate_step{n}" for n in range(number - 1, 0, -1)]
            assert result == {"status": "failed", "error": f"{broken} failed: ValueError: broken"}
            assert names()[number:] == undone


@orders.orchestration
def monitor(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    config = context.get_input()
    health = yield context.call_activity("check_health", config["endpoint"])
    if not health["healthy"]:
        yield context.call_activity("send_alert", {"endpoint": config["endpoint"]})
    yield context.create_timer(context.current_utc_datetime + timedelta(minutes=5))
    context.continue_as_new(config)


async def test_a_monitor_checks_every_five_minutes_for_ever() -> None:
    healthy = [True, False, True, False, True]
    answers["check_health"] = lambda _: {"healthy": healthy[names().count("check_health") - 1]}
    async with served(orders) as (hub, clock):
        handle = await hub.client.start_new("monitor", {"endpoint": "https://example.org"})
        for _ in range(4):
            await advance(hub, clock, 300)

        await handle.terminate("enough")

        assert names().count("check_health") == 5
        assert names().count("send_alert") == 2
        assert (await handle.status()).execution == 5


@orders.orchestration
def payment_orchestrator(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    paid = yield context.call_activity("process_payment", context.get_input())
    return paid


@orders.orchestration
def shipping_orchestrator(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    shipped = yield context.call_activity("ship_order", context.get_input())
    return shipped


@orders.orchestration
def main_orchestrator(context: OrchestrationContext) -> Generator[Any, Any, Any]:
    order = context.get_input()
    payment = yield context.call_sub_orchestrator("payment_orchestrator", order["payment"])
    shipping = yield context.call_sub_orchestrator("shipping_orchestrator", order["shipping"])
    return {"payment": payment, "shipping": shipping}


async def test_an_order_is_made_of_sub_orchestrations() -> None:
    answers["process_payment"] = lambda payment: {"paid": payment}
    answers["ship_order"] = lambda shipping: {"shipped": shipping}
    async with served(orders) as (hub, _):
        handle = await hub.client.start_new("main_orchestrator", {"payment": 5, "shipping": "x"})

        assert await handle.result(5) == {"payment": {"paid": 5}, "shipping": {"shipped": "x"}}


async def test_running_instances_are_listed() -> None:
    async with served(orders) as (hub, _):
        for n in range(3):
            await hub.client.start_new("approval", n, instance_id=f"running-{n}")
        done = await hub.client.start_new("saga", 0)
        await quiet(hub)
        assert await status_of(done) != RuntimeStatus.RUNNING

        found = [
            {"id": s.instance_id, "status": s.runtime_status.name}
            async for s in hub.client.query(statuses=[RuntimeStatus.RUNNING])
        ]

        assert found == [{"id": f"running-{n}", "status": "RUNNING"} for n in range(3)]
