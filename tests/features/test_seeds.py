"""The workflows that people know from Durable Functions, written for Perdure.

Document processing, order handling, approval, fan-out, sagas, monitors, batches and
sub-orchestrations, each with the paths that its authors describe.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest

from perdure import (
    ActivityError,
    App,
    EntityContext,
    EntityId,
    Hub,
    ManualClock,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    RuntimeStatus,
)
from tests.runtime.orchestrating import advance, event_types, quiet, running, status_of

DAY = 24 * 3600

log: list[Any] = []
"""What activities did, in order."""

answers: dict[str, Callable[[Any], Any]] = {}
"""What the services behind the activities answer, by activity."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()
    answers.clear()


def act(name: str, input: Any) -> Any:
    """Do an activity's work: log it, and answer as the test says."""
    log.append((name, input))
    return answers[name](input) if name in answers else None


def names() -> list[str]:
    """The activities that ran, in order."""
    return [name for name, _ in log]


def activities(app: App, *wanted: str) -> None:
    """Register activities that do what the test says."""

    def make(name: str) -> Callable[[Any], Any]:
        async def activity(input: Any = None) -> Any:
            return act(name, input)

        return activity

    for name in wanted:
        app.activity(name=name)(make(name))


def fails(error: Exception) -> Callable[[Any], Any]:
    """An answer that is an exception."""

    def answer(input: Any) -> Any:
        raise error

    return answer


def always(value: Any) -> Callable[[Any], Any]:
    """An answer that is a value."""
    return lambda _: value


def fails_times(count: int, then: Any) -> Callable[[Any], Any]:
    """An answer that fails so many times, and then is a value."""
    left = [count]

    def answer(input: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("try again")
        return then

    return answer


@asynccontextmanager
async def served(app: App) -> AsyncGenerator[tuple[Hub, ManualClock], None]:
    """A hub with a clock that is turned by hand."""
    clock = ManualClock(int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000)
    async with running(app, clock=clock) as hub:
        yield hub, clock


# A document pipeline: extraction with a deadline, validation with retries, review by a human.


@attrs.define
class Document:
    document_id: str
    blob_url: str
    user_id: str
    priority: str = "normal"


documents = App("documents")
activities(
    documents,
    "extract_document_text",
    "validate_compliance",
    "send_review_notification",
    "handle_approval_timeout",
    "archive_rejected_document",
    "store_processed_document",
    "send_completion_notification",
    "log_processing_error",
    "send_error_notification",
    "process_chunk",
    "check_continuation",
)


@documents.orchestration
def document_processing(
    ctx: OrchestrationContext, document: Document
) -> Generator[Any, Any, dict[str, Any]]:
    minutes = 10 if document.priority == "high" else 30
    deadline = ctx.current_utc_datetime + timedelta(minutes=minutes)
    try:
        extraction_task = ctx.call_activity("extract_document_text", document.blob_url)
        timeout_task = ctx.create_timer(deadline)
        winner = yield ctx.task_any([extraction_task, timeout_task])
        if winner is timeout_task:
            raise TimeoutError("Document extraction timeout exceeded")
        timeout_task.cancel()
        extraction = extraction_task.result

        retry = RetryPolicy.from_options(5000, 3)
        retry = attrs.evolve(retry, backoff=2)
        validation = yield ctx.call_activity("validate_compliance", extraction["text"], retry=retry)

        if validation["requires_review"]:
            yield ctx.call_activity("send_review_notification", validation["issues"])
            approval_deadline = ctx.current_utc_datetime + timedelta(hours=48)
            approval = ctx.wait_for_external_event("documentApproval")
            approval_timeout = ctx.create_timer(approval_deadline)
            winner = yield ctx.task_any([approval, approval_timeout])
            if winner is approval_timeout:
                yield ctx.call_activity("handle_approval_timeout", document.document_id)
                return {"status": "timeout", "document_id": document.document_id}
            approval_timeout.cancel()
            if not approval.result["approved"]:
                yield ctx.call_activity("archive_rejected_document", document.document_id)
                return {"status": "rejected", "document_id": document.document_id}

        yield ctx.task_all(
            [
                ctx.call_activity("store_processed_document", extraction),
                ctx.call_activity("send_completion_notification", document.user_id),
            ]
        )
        return {"status": "completed", "is_compliant": validation["is_compliant"]}
    except Exception as error:
        yield ctx.call_activity(
            "log_processing_error",
            {"error": str(error), "timestamp": ctx.current_utc_datetime},
        )
        yield ctx.call_activity("send_error_notification", document.user_id)
        raise


DOCUMENT = Document("d1", "blob://1", "ada")
COMPLIANT: dict[str, Any] = {"is_compliant": True, "issues": [], "requires_review": False}
DOUBTFUL: dict[str, Any] = {"is_compliant": True, "issues": ["tone"], "requires_review": True}


async def test_a_compliant_document_is_stored_and_announced() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = lambda _: COMPLIANT
    async with served(documents) as (hub, _):
        handle = await hub.client.start_new(document_processing, DOCUMENT, instance_id="doc-d1-ada")

        assert await handle.result(5) == {"status": "completed", "is_compliant": True}
        assert sorted(names()[2:]) == ["send_completion_notification", "store_processed_document"]


async def test_a_document_that_takes_too_long_is_reported_and_fails() -> None:
    late = App("slow")
    late.orchestration(document_processing)
    activities(late, "log_processing_error", "send_error_notification")

    @late.activity
    async def extract_document_text(url: str) -> Any:
        await anyio.sleep_forever()

    urgent = Document("d2", "blob://2", "bob", priority="high")
    async with served(late) as (hub, clock):
        handle = await hub.client.start_new(document_processing, urgent)
        while "TimerCreated" not in await event_types(handle):
            await anyio.sleep(0.001)
        clock.advance(10 * 60)

        with pytest.raises(OrchestrationFailedError, match="timeout exceeded"):
            await handle.result(5)
        assert names() == ["log_processing_error", "send_error_notification"]
        assert log[0][1]["timestamp"].startswith("2030-01-01T00:10:00")


async def test_validation_is_retried_with_growing_delays() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = fails_times(2, COMPLIANT)
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 5)
        await advance(hub, clock, 9)
        assert names().count("validate_compliance") == 2
        await advance(hub, clock, 1)

        assert (await handle.result(5))["status"] == "completed"


async def test_a_validation_that_keeps_failing_is_compensated() -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = fails(ValueError("offline"))
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 5)
        await advance(hub, clock, 10)

        with pytest.raises(OrchestrationFailedError) as caught:
            await handle.result(5)
        assert caught.value.cause is not None
        assert caught.value.cause.message == "offline"
        assert names()[-2:] == ["log_processing_error", "send_error_notification"]


@pytest.mark.parametrize(
    ("approval", "status", "last"),
    [
        ({"approved": True}, "completed", None),
        ({"approved": False}, "rejected", "archive_rejected_document"),
        (None, "timeout", "handle_approval_timeout"),
    ],
)
async def test_a_doubtful_document_waits_two_days_for_a_human(
    approval: Any, status: str, last: str | None
) -> None:
    answers["extract_document_text"] = lambda _: {"text": "words"}
    answers["validate_compliance"] = lambda _: DOUBTFUL
    async with served(documents) as (hub, clock):
        handle = await hub.client.start_new(document_processing, DOCUMENT)
        await advance(hub, clock, 47 * 3600)
        assert await status_of(handle) == RuntimeStatus.RUNNING
        if approval is not None:
            await handle.raise_event("DocumentApproval", approval)
        else:
            await advance(hub, clock, 3600)

        assert (await handle.result(5))["status"] == status
        if last is not None:
            assert names()[-1] == last


@documents.orchestration
def eternal(ctx: OrchestrationContext) -> Generator[Any, Any, Any]:
    state = ctx.get_input()
    yield ctx.call_activity("process_chunk", state)
    should_continue = yield ctx.call_activity("check_continuation", state)
    if should_continue:
        ctx.continue_as_new({**state, "iteration": state["iteration"] + 1})
    return state


async def test_an_eternal_orchestration_goes_on_with_a_short_history() -> None:
    answers["check_continuation"] = lambda state: state["iteration"] < 25
    async with served(documents) as (hub, _):
        handle = await hub.client.start_new("eternal", {"iteration": 0})

        assert await handle.result(5) == {"iteration": 25}
        assert names().count("process_chunk") == 26
        assert (await handle.status()).history_length == 6


@documents.entity
def document_counter(ctx: EntityContext) -> None:
    current = ctx.get_state(lambda: {"processed": 0, "failed": 0, "pending": 0})
    match ctx.operation_name:
        case "increment":
            current[ctx.get_input()] += 1
            ctx.set_state(current)
        case "get":
            ctx.set_result(current)
        case "reset":
            ctx.set_state({"processed": 0, "failed": 0, "pending": 0})
        case unknown:
            raise ValueError(unknown)


@documents.orchestration
async def counts(ctx: OrchestrationContext, fields: list[str]) -> dict[str, int]:
    counter = EntityId(document_counter, "all")
    for field in fields:
        ctx.signal_entity(counter, "increment", field)
    before: dict[str, int] = await ctx.call_entity(counter, "get")
    ctx.signal_entity(counter, "reset")
    return before


async def test_a_counter_entity_is_shared_by_orchestrations() -> None:
    async with served(documents) as (hub, _):
        counter = EntityId(document_counter, "all")
        await hub.client.signal_entity(counter, "increment", "pending")
        handle = await hub.client.start_new(counts, ["processed", "processed", "failed"])

        assert await handle.result(5) == {"processed": 2, "failed": 1, "pending": 1}
        assert await hub.client.call_entity(counter, "get") == {
            "processed": 0,
            "failed": 0,
            "pending": 0,
        }


# Orders, in the Python of Durable Functions.

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


# A shop: typed orders, batches, retries with every option, and management.


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


# Chains, fan-out and monitors, from C#.

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
