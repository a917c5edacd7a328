"""One instance, in a browser: timeline, explanation, history, family, time travel, actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perdure import OrchestrationStatus
from tests.adapters.dashboard.serving import Shop, Visit, expect, open_page
from tests.adapters.dashboard.speed import DRAWN, WORK_MS_MAX, first_rows

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", autouse=True)
def orders(shop: Shop) -> None:
    """Have an order that waits for its approval, and a payment that has failed for good."""
    shop.start("order", "tea", id="order-1")
    shop.start("payment", 5, id="payment-1")
    shop.reach("payment-1", "Failed")


def calls(page: Page) -> Locator:
    return page.get_by_role("grid", name="Timeline").get_by_role("row")


def test_the_timeline_has_a_bar_for_each_call_under_its_summary(visit: Visit) -> None:
    page = visit("#/instances/order-1")

    expect(calls(page).filter(has_text="take the money").locator(".part.is-running")).to_have_count(
        1
    )
    expect(
        calls(page).filter(has_text="lock of @stock@tea").locator(".part.is-held")
    ).to_have_count(1)
    expect(calls(page).filter(has_text="@stock@tea take")).to_have_count(1)
    expect(
        calls(page).filter(has_text="approved (awaited)").locator(".is-waiting.is-open")
    ).to_have_count(1)
    expect(calls(page).filter(has_text="parcel")).to_have_count(1)


def test_waiting_stands_apart_from_running_in_a_bar_of_all_attempts(visit: Visit) -> None:
    page = visit("#/instances/payment-1")
    call = calls(page).filter(has_text="ask the bank")

    expect(call).to_contain_text("3 attempts")
    kinds = call.locator(".part").evaluate_all("parts => parts.map(part => part.className)")
    assert [kind.split("is-")[1].split()[0] for kind in kinds] == [
        *("waiting", "running", "backoff"),
        *("waiting", "running", "backoff"),
        *("waiting", "running"),
    ]
    expect(calls(page).filter(has_text="timer")).to_have_count(0)  # it is between the attempts
    call.get_by_role("button", name="ask the bank").click()
    expect(page.locator("#detail")).to_contain_text("ConnectionError: the bank does not answer")


def test_what_is_open_is_told_from_what_is_given_up(shop: Shop, visit: Visit) -> None:
    shop.start("subscription", 5, id="retried-1")
    shop.start("order", "ink", id="over-1")
    for id in ("retried-1", "over-1"):
        shop.until(lambda client, id=id: client.get_status(id), lambda found: _waits(found))  # type: ignore[misc]
    page = visit("#/instances/retried-1")
    call = calls(page).filter(has_text="ask the bank")
    expect(call.locator(".is-backoff.is-open")).to_have_count(1)
    expect(calls(page).filter(has_text="timer")).to_have_count(0)  # it is the wait in the call
    page.goto(f"{shop.url}/#/instances/over-1")
    deadline = calls(page).filter(has_text="timer (deadline)")
    expect(deadline.locator(".is-waiting.is-open")).to_have_count(1)

    shop.do(lambda client: client.raise_event("over-1", "approved", "yes"))

    expect(page.locator(".head .badge")).to_have_text("Completed")
    expect(calls(page).filter(has_text="given up")).to_have_count(1)
    expect(calls(page).locator(".is-open")).to_have_count(0)


def _waits(found: OrchestrationStatus | None) -> bool:
    return found is not None and found.waiting_for in (("event:approved",), ("activity:bank",))


def test_the_timeline_is_filtered_grouped_and_unfolds_children(visit: Visit) -> None:
    page = visit("#/instances/order-1")
    expect(calls(page).filter(has_text="take the money")).to_have_count(1)
    page.get_by_label("Text").fill("charged 5")  # in the result alone
    expect(calls(page)).to_have_count(1)
    page.get_by_label("Text").fill("")
    page.get_by_label("Kind").select_option("child")
    expect(calls(page)).to_have_count(1)

    page.get_by_role("button", name="Show order-1::1").click()

    expect(calls(page).filter(has_text="pack the tea")).to_have_count(1)
    page.get_by_label("Kind").select_option("all kinds")
    page.get_by_label("Failed").check()
    expect(calls(page)).to_have_count(0)
    page.get_by_label("Failed").uncheck()
    page.get_by_label("Kind").select_option("timer")
    page.get_by_label("Grouped by name").check()
    expect(calls(page)).to_have_count(1)
    page.get_by_role("button", name="timer \N{MULTIPLICATION SIGN} 2").click()
    expect(calls(page)).to_have_count(3)


def test_why_it_waits_is_said_with_the_line_and_an_event_ends_it_without_a_reload(
    shop: Shop, visit: Visit
) -> None:
    shop.start("order", "coffee", id="order-2")
    page = visit("#/instances/order-2?tab=waits")
    expect(page.locator("#panel")).to_contain_text('await ctx.wait_for_external_event("approved")')
    expect(page.locator("#panel")).to_contain_text("dashboard/shop.py:")
    expect(page.locator("#panel")).to_contain_text(
        "order.<locals>.approve waits for event approved"
    )

    page.get_by_role("button", name="Raise event").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("approved")
    page.get_by_label("Data, as JSON").fill("{not json")
    page.get_by_role("button", name="Raise", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("is no JSON")
    page.get_by_label("Data, as JSON").fill('{"by": "me"}')
    page.get_by_role("button", name="Raise", exact=True).click()

    expect(page.locator(".head .badge")).to_have_text("Completed")
    expect(page.locator("#panel")).to_contain_text("it has ended")
    page.get_by_role("tab", name="Data").click()
    expect(page.get_by_label("Output")).to_have_text("packed coffee")
    expect(page.get_by_label("Custom status")).to_contain_text("waiting for the approval")


def test_an_action_is_done_once_it_is_confirmed(shop: Shop, visit: Visit) -> None:
    shop.start("approval", "tea", id="act-1")
    page = visit("#/instances/act-1")
    page.get_by_role("button", name="Suspend").click()
    page.get_by_label("Reason").fill("a holiday")
    page.get_by_role("dialog").get_by_role("button", name="Suspend").click()
    expect(page.locator(".head .badge")).to_have_text("Suspended")
    expect(page.locator(".head")).to_contain_text("a holiday")
    page.get_by_role("button", name="Resume").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    expect(page.locator(".head .badge")).to_have_text("Terminated")
    page.get_by_role("button", name="Purge").click()

    page.get_by_role("dialog").get_by_role("button", name="Purge").click()

    page.wait_for_url("**/#/instances")
    assert shop.do(lambda client: client.get_status("act-1")) is None


def test_time_travel_shows_the_source_with_the_line_at_each_step(visit: Visit) -> None:
    page = visit("#/instances/order-1?tab=travel")
    here = page.locator(".is-here code")
    expect(here.last).to_contain_text('await ctx.wait_for_external_event("approved")')

    slider = page.get_by_role("slider", name="Step")
    slider.fill("0")

    expect(page.locator("#step")).to_contain_text("ExecutionStarted · step 1 of")
    expect(here).to_have_text(['    await ctx.call_activity(charge, 5, summary="take the money")'])
    expect(page.get_by_text("It was open (1)")).to_be_visible()
    expect(page.locator(".aside")).to_contain_text("activity charge")
    slider.press("ArrowRight")
    expect(page.locator("#step")).to_contain_text("TaskScheduled")
    page.get_by_role("button", name="One step on").click()
    expect(page.locator("#step")).to_contain_text("TaskCompleted")
    expect(here).to_have_text(["    await ctx.call_entity(stock, Stock.add, 2)"])


def test_time_travel_goes_through_an_instance_of_many_branches(shop: Shop, visit: Visit) -> None:
    shop.start("hampers", 170, id="hampers-1")
    for _ in range(160):
        shop.do(lambda client: client.raise_event("hampers-1", "filled"))
    page = visit("#/instances/hampers-1?tab=travel")
    slider = page.get_by_role("slider", name="Step")

    for step, branches in ((160, 11), (150, 21), (80, 91), (0, 171)):
        slider.fill(str(step))
        expect(page.locator("#step")).to_contain_text(f"step {step + 1} of 161")
        expect(page.get_by_text(f"Its branches ({branches})")).to_be_visible()


def test_the_family_is_a_tree_and_leads_to_the_parent(visit: Visit) -> None:
    page = visit("#/instances/order-1?tab=family")

    page.locator(".tree").get_by_role("link", name="order-1::1").click()

    expect(page.locator(".head")).to_contain_text("Parentorder-1")
    page.get_by_role("tab", name="Family").click()
    expect(page.locator(".tree").get_by_role("link")).to_have_count(2)


def test_tabs_are_gone_through_by_the_keyboard_and_stand_in_the_address(visit: Visit) -> None:
    page = visit("#/instances/order-1")

    page.get_by_role("tab", name="Timeline").press("ArrowRight")

    expect(page.get_by_role("tab", name="Why it waits")).to_be_focused()
    expect(page.locator("#panel")).to_contain_text("Where its code stands")
    assert page.url.endswith("#/instances/order-1?tab=waits")


def test_an_instance_that_is_not_there_is_said_not_to_be(visit: Visit) -> None:
    page = visit("#/instances/a%2Fb%3F")

    expect(page.locator("#panel")).to_contain_text("There is no such instance")
    expect(page.get_by_role("heading", name="a/b?")).to_be_visible()


def test_thousands_of_events_are_read_last_page_first_and_drawn_with_few_rows(
    browser: Browser, shop: Shop, visit: Visit, many: int
) -> None:
    shop.run("gifts", many // 2, id="gifts-1")
    with open_page(browser, shop.url) as first:
        _, work = first_rows(first, f"{shop.url}/{DRAWN}")
    page = visit(DRAWN)
    expect(calls(page).filter(has_text="(began earlier)").first).to_be_attached()
    expect(page.locator("#earlier")).to_have_text(
        f"Show earlier events: {many - 498:,} of {many + 2:,}"
    )

    while page.locator("#earlier").is_visible():
        text = page.locator("#earlier").inner_text()
        page.locator("#earlier").click()
        expect(page.locator("#earlier")).not_to_have_text(text)

    grid = page.get_by_role("grid", name="Timeline")
    expect(grid).to_have_attribute("aria-rowcount", f"{many // 2 + 2}")
    slowest = page.evaluate(_SCROLL)
    assert page.evaluate("document.querySelectorAll('.rows .row').length") < 100
    assert slowest < 500, f"a frame took {slowest} ms"
    assert work < WORK_MS_MAX
    page.get_by_label("Grouped by name").check()
    expect(
        calls(page).filter(has_text=f"wrap \N{MULTIPLICATION SIGN} {many // 2:,}")
    ).to_have_count(1)


_SCROLL = """async () => {
  const list = document.querySelector(".list");
  const frame = () => new Promise(requestAnimationFrame);
  let slowest = 0;
  let last = performance.now();
  while (list.scrollTop + list.clientHeight < list.scrollHeight - 2) {
    list.scrollTop += 4000;
    await frame();
    slowest = Math.max(slowest, performance.now() - last);
    last = performance.now();
  }
  return slowest;
}"""
