"""The list of instances, in a browser."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.adapters.dashboard.serving import Shop, Visit, expect, open_page, open_shop
from tests.adapters.dashboard.speed import LISTED, WORK_MS_MAX, first_rows, list_many

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.once


def row(page: Page, id: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=id, exact=True))


def test_a_filter_stands_in_the_address_and_the_address_filters(shop: Shop, visit: Visit) -> None:
    shop.run("quick", 1, id="address-1")
    shop.start("payment", 5, id="address-2", tags={"shop": "north", "day": "1"})
    shop.reach("address-2", "Failed")
    page = visit("#/instances")

    page.get_by_label("Id begins with").fill("address-")
    page.get_by_label("Failed", exact=True).check()

    expect(row(page, "address-2")).to_contain_text("the bank does not answer")
    expect(row(page, "address-1")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("1")
    address = page.url.partition("#")[2]
    assert address == "/instances?statuses=Failed&instance_id_prefix=address-"
    other = visit(f"#{address}&tag=shop%3Anorth&tag=day%3A1")
    expect(row(other, "address-2")).to_be_visible()
    expect(other.get_by_label("Id begins with")).to_have_value("address-")
    expect(other.get_by_label("Tags")).to_have_value(
        "shop:north, day:1"
    )  # a rare one, shown when given
    expect(other.locator("#count")).to_have_text("1")
    other.get_by_label("Tags").fill("shop:north, day:2")
    expect(other.locator("#count")).to_have_text("0")


def test_what_waits_and_what_is_tried_again_is_found_by_that(shop: Shop, visit: Visit) -> None:
    shop.start("approval", "tea", id="waits-1")
    shop.start("subscription", 5, id="waits-2")  # tried again in an hour
    page = visit("#/instances?instance_id_prefix=waits-")
    expect(row(page, "waits-2")).to_contain_text("waits for activity:bank, attempt 2")

    page.get_by_label("Waits for").fill("event:approved")

    expect(row(page, "waits-2")).to_have_count(0)
    expect(row(page, "waits-1")).to_contain_text("waits for event:approved")
    page.get_by_label("Waits for").fill("")
    page.get_by_label("Attempt, at least").fill("2")
    expect(row(page, "waits-1")).to_have_count(0)
    expect(row(page, "waits-2")).to_be_visible()


def test_the_list_changes_without_a_reload(shop: Shop, visit: Visit) -> None:
    page = visit("#/instances?statuses=Running&instance_id_prefix=live-")
    expect(page.locator("#count")).to_have_text("0")

    shop.start("approval", "tea", id="live-1")

    expect(row(page, "live-1")).to_contain_text("Running")
    expect(page.locator("#count")).to_have_text("1")
    shop.do(lambda client: client.raise_event("live-1", "approved", "yes"))
    expect(row(page, "live-1")).to_have_count(0)
    expect(page.locator("#count")).to_have_text("0")


def test_texts_of_users_are_shown_as_they_are(shop: Shop, visit: Visit) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    shop.start("approval", hostile, id=hostile, tags={"x": "</script><b>"})
    page = visit("#/instances?parked=false")

    row(page, hostile).get_by_role("link").click()

    expect(page.get_by_role("heading", name=hostile)).to_be_visible()
    page.get_by_role("tab", name="Data").click()
    expect(page.get_by_label("Input")).to_contain_text(hostile)
    expect(page.locator(".head")).to_contain_text("x:</script><b>")
    expect(page.locator("main img")).to_have_count(0)


#: What an id may be, and what every other text may be as well.
ODD = "\"'><svg/onload=alert(1)> ${alert(2)} {{3}} javascript:alert(4) %2e%2e/ \U0001f4a3"
HOSTILE = ODD + " \u202eesrever\u202c \x1b[31m\x07\x7f\u2028" + "W" * 500
TABS = ("timeline", "waits", "data", "history", "family", "travel")
_TAKEN = "document.querySelectorAll('main svg[onload], main [href^=javascript]').length"


def test_hostile_texts_do_nothing_wherever_they_stand(shop: Shop, visit: Visit) -> None:
    shop.start("repeat", HOSTILE, id=ODD, tags={ODD: HOSTILE})
    shop.reach(ODD, "Failed")
    page = visit()
    expect(page.locator("#failures")).to_contain_text("<svg/onload=alert(1)>")
    addresses = [
        "#/overview",
        "#/instances",
        "#/entities",
        f"#/entities/{quote(f'@stock@{ODD}', '')}",
    ]
    addresses += [f"#/instances/{quote(ODD, '')}?tab={tab}" for tab in TABS]
    for address in addresses:
        page.evaluate("address => { location.hash = address }", address)
        expect(page.locator("main").get_by_text("<svg/onload=alert(1)>").first).to_be_attached()
        assert page.evaluate(_TAKEN) == 0
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{address} is {wide} pixels too wide"


def test_a_filter_that_is_none_is_said_to_be(shop: Shop, visit: Visit) -> None:
    page = visit("#/instances?created_from=yesterday")

    expect(page.locator("#notices")).to_contain_text("created_from must be a time")
    expect(page.locator("#count")).to_have_text("–")  # noqa: RUF001
    page.get_by_label("Id begins with").fill("none-")
    expect(page.locator("#count")).to_have_text("0")


def test_a_page_goes_on_when_the_server_is_back(browser: Browser) -> None:
    with ExitStack() as stack:
        with open_shop() as first:
            first.start("approval", "tea", id="before-1")
            page = stack.enter_context(open_page(browser, first.url))
            page.goto(f"{first.url}/#/instances")
            expect(row(page, "before-1")).to_be_visible()
        expect(page.locator("#stream")).to_have_text("Reconnecting")

        with open_shop(port=int(first.url.rpartition(":")[2])) as second:
            second.start("approval", "tea", id="after-1")

            expect(row(page, "after-1")).to_be_visible()
            expect(page.locator("#stream")).to_have_text("Live")
            expect(row(page, "before-1")).to_have_count(0)  # this hub has another store


def test_a_view_is_saved_opened_and_forgotten(shop: Shop, visit: Visit) -> None:
    page = visit("#/instances?name=approval")
    page.get_by_role("button", name="Save view").click()
    page.get_by_label("Name", exact=True).fill("approvals")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_label("Orchestration", exact=True).fill("")
    page.wait_for_url("**/#/instances")
    page.reload()

    page.get_by_label("Saved views").select_option("approvals")

    page.wait_for_url("**/#/instances?name=approval")
    page.get_by_role("button", name="Forget view").click()
    expect(page.get_by_label("Saved views")).to_be_disabled()


def test_what_is_selected_is_terminated_once_its_count_was_seen(shop: Shop, visit: Visit) -> None:
    for number in range(3):
        shop.start("approval", "tea", id=f"some-{number}")
    page = visit("#/instances?instance_id_prefix=some-")
    page.get_by_label("Select some-0").check()
    page.get_by_label("Select some-2").check()

    page.get_by_role("button", name="Terminate", exact=True).click()

    page.get_by_label("Reason").fill("no more of it")
    page.get_by_role("button", name="Terminate 2 instances").click()
    expect(row(page, "some-0")).to_contain_text("Terminated")
    expect(row(page, "some-2")).to_contain_text("no more of it")
    expect(row(page, "some-1")).to_contain_text("Running")


def test_all_that_a_filter_finds_is_purged_once_its_count_was_seen(
    shop: Shop, visit: Visit
) -> None:
    for number in range(4):
        shop.run("quick", number, id=f"old-{number}")
    shop.run("quick", 5, id="kept-1")
    page = visit("#/instances?instance_id_prefix=old-")
    expect(row(page, "old-3")).to_be_visible()
    page.get_by_role("button", name="Purge", exact=True).click()
    page.get_by_role("button", name="Do nothing").click()
    assert shop.do(lambda client: client.count(instance_id_prefix="old-")) == 4

    page.get_by_role("button", name="Purge", exact=True).click()
    page.get_by_role("button", name="Purge 4 instances").click()

    expect(page.get_by_text("Purge: 4 done")).to_be_visible()
    expect(row(page, "old-3")).to_have_count(0)
    assert shop.do(lambda client: client.count(instance_id_prefix="old-")) == 0
    assert shop.do(lambda client: client.count(instance_id_prefix="kept-")) == 1


def test_the_keyboard_alone_leads_to_an_instance(shop: Shop, visit: Visit) -> None:
    for number in range(3):
        shop.run("quick", number, id=f"keys-{number}")
    page = visit()
    expect(page.locator("#tiles a").first).to_be_visible()

    page.keyboard.press("g")
    page.keyboard.press("i")
    expect(page.get_by_role("grid")).to_be_visible()
    page.keyboard.press("/")  # to the first status; the field behind the last is the id's
    for _ in range(7):
        page.keyboard.press("Tab")
    page.keyboard.type("keys-")
    expect(page.locator("#count")).to_have_text("3")
    page.get_by_role("grid").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press(" ")
    expect(page.get_by_label("Select keys-1")).to_be_checked()
    page.keyboard.press("Enter")

    page.wait_for_url("**/#/instances/keys-1")
    expect(page.get_by_role("heading", name="keys-1")).to_be_visible()


def test_thousands_of_instances_are_listed_with_few_rows_in_the_page(
    browser: Browser, shop: Shop, visit: Visit, many: int
) -> None:
    list_many(shop, many)
    with open_page(browser, shop.url) as first:
        _, work = first_rows(first, f"{shop.url}/{LISTED}")
    page = visit(LISTED)
    expect(page.locator("#count")).to_have_text(f"{many:,}")
    grid = page.get_by_role("grid")

    slowest = page.evaluate(_SCROLL, many)

    assert page.evaluate("document.querySelectorAll('.rows .row').length") < 100
    assert int(grid.get_attribute("aria-rowcount") or 0) == many
    assert slowest < 500, f"a frame took {slowest} ms"
    assert work < WORK_MS_MAX


#: Scrolls to the end, as more comes, and gives the time of the slowest frame.
_SCROLL = """async (many) => {
  const list = document.querySelector(".list");
  const frame = () => new Promise(requestAnimationFrame);
  let slowest = 0;
  let last = performance.now();
  while (Number(list.getAttribute("aria-rowcount")) < many || list.scrollTop + list.clientHeight < list.scrollHeight - 2) {
    list.scrollTop += 4000;
    await frame();
    slowest = Math.max(slowest, performance.now() - last);
    last = performance.now();
  }
  return slowest;
}"""
