"""Chains, fan-out and monitors, from C#."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import App, OrchestrationContext, RuntimeStatus
from tests.features.seeds.services import activities, always, answers, log, names, served
from tests.runtime.orchestrating import advance, status_of

classic = App("classic")

activities(
    classic,
    "ValidateOrder",
    "CheckInventory",
    "ProcessPayment",
    "SendConfirmationEmail",
    "ProcessOrder",
    "ChargePayment",
    "ProcessTask",
    "CheckExternalServiceStatus",
)


@classic.orchestration(name="OrderProcessing")
async def order_processing(context: OrchestrationContext) -> str:
    order = context.get_input()
    for check in ("ValidateOrder", "CheckInventory", "ProcessPayment"):
        if not await context.call_activity(check, order):
            return "Order processing failed."
    await context.call_activity("SendConfirmationEmail", order)
    return "Order processed successfully!"


@pytest.mark.parametrize("broken", [None, "ValidateOrder", "CheckInventory", "ProcessPayment"])
async def test_an_order_passes_every_check_or_fails(broken: str | None) -> None:
    for name in ("ValidateOrder", "CheckInventory", "ProcessPayment"):
        answers[name] = always(name != broken)
    async with served(classic) as (hub, _):
        handle = await hub.client.start_new("OrderProcessing", {"id": 1})

        result = await handle.result(5)

        assert result == ("Order processing failed." if broken else "Order processed successfully!")
        assert ("SendConfirmationEmail" in names()) is (broken is None)


@classic.orchestration(name="Chain")
async def chain(context: OrchestrationContext) -> Any:
    processed = await context.call_activity("ProcessOrder", context.get_input())
    paid = await context.call_activity("ChargePayment", processed)
    await context.call_activity("SendConfirmationEmail", paid)
    return paid


async def test_a_chain_hands_each_result_to_the_next() -> None:
    answers["ProcessOrder"] = lambda order: [order, "processed"]
    answers["ChargePayment"] = lambda order: [*order, "paid"]
    async with served(classic) as (hub, _):
        handle = await hub.client.start_new("Chain", "order")

        assert await handle.result(5) == ["order", "processed", "paid"]
        assert log[-1] == ("SendConfirmationEmail", ["order", "processed", "paid"])


@classic.orchestration(name="FanOutFanIn")
async def fan_out_fan_in(context: OrchestrationContext) -> list[str]:
    parallel = [context.call_activity("ProcessTask", f"Task{n}") for n in (1, 2, 3)]
    await context.task_all(parallel)
    return [await completed for completed in parallel]


async def test_tasks_are_processed_side_by_side_and_collected_in_order() -> None:
    answers["ProcessTask"] = lambda task: f"{task} completed"
    async with served(classic) as (hub, _):
        handle = await hub.client.start_new("FanOutFanIn")

        assert await handle.result(5) == [f"Task{n} completed" for n in (1, 2, 3)]


@classic.orchestration(name="Monitor")
async def service_monitor(context: OrchestrationContext) -> None:
    next_check = context.current_utc_datetime + timedelta(minutes=5)
    await context.call_activity("CheckExternalServiceStatus")
    await context.create_timer(next_check)
    context.continue_as_new(None)


async def test_a_service_is_checked_every_five_minutes() -> None:
    async with served(classic) as (hub, clock):
        handle = await hub.client.start_new("Monitor")
        for _ in range(3):
            await advance(hub, clock, 300)

        assert names() == ["CheckExternalServiceStatus"] * 4
        await handle.terminate()
        assert await status_of(handle) == RuntimeStatus.TERMINATED
