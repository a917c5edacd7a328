"""How the pages look: at a phone's width, in light and dark, and to who does not see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.adapters.dashboard.serving import Shop, Visit, expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.once

#: Each page, and a text that it has when it is there.
PAGES = {
    "#/overview": "Hottest actors",
    "#/instances": "order-1",
    "#/nodes": "1 process serves",
    "#/entities": "@stock@tea",
    "#/entities/%40stock%40tea": "Partition",
    "#/instances/order-1": "take the money",
    "#/instances/order-1?tab=waits": "wait_for_external_event",
    "#/instances/order-1?tab=data": "Custom status",
    "#/instances/order-1?tab=history": "ExecutionStarted",
    "#/instances/order-1?tab=family": "parcel",
    "#/instances/order-1?tab=travel": "It was open",
    "#/instances/payment-1": "3 attempts",
}


@pytest.fixture(scope="module", autouse=True)
def orders(shop: Shop) -> None:
    shop.start("order", "tea", id="order-1")
    shop.start("payment", 5, id="payment-1")
    shop.reach("payment-1", "Failed")
    shop.until(
        lambda client: client.get_status("order-1"),
        lambda found: found is not None and found.waiting_for == ("event:approved",),
    )


def go(page: Page, address: str) -> None:
    page.evaluate("address => { location.hash = address }", address)
    expect(page.locator("main").get_by_text(PAGES[address]).first).to_be_attached()


def test_at_a_phones_width_nothing_stands_out_of_the_page(visit: Visit) -> None:
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    wide: dict[str, int] = {}
    for address in PAGES:
        go(page, address)
        wide[address] = page.evaluate("document.documentElement.scrollWidth")

    assert set(wide.values()) == {360}, wide
    go(page, "#/instances")
    expect(page.get_by_label("Id begins with")).to_be_hidden()
    page.get_by_text("Filters", exact=True).tap()
    expect(page.get_by_label("Id begins with")).to_be_visible()
    name = page.get_by_role("row").filter(has_text="order-1").locator(".id").first
    assert (name.bounding_box() or {"width": 0})["width"] > 100


# In the dark only the colours are others.
@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("light", {"resultTypes": ["violations"]}),
        (
            "dark",
            {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]},
        ),
    ],
    ids=["light", "dark"],
)
def test_axe_finds_nothing_serious(visit: Visit, scheme: str, options: dict[str, Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(color_scheme=scheme)
    page.evaluate(axe.axe_script)  # once: to go from page to page loads nothing anew
    found: list[tuple[str, Any, Any]] = []
    for address in PAGES:
        go(page, address)
        told = page.evaluate("options => axe.run(options)", options)
        found += [
            (address, one["id"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in told["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    assert found == []


def test_colours_are_the_systems_until_others_are_chosen(visit: Visit) -> None:
    page = visit(color_scheme="dark")

    def ground() -> int:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return int(colour.partition("(")[2].partition(",")[0])

    expect(page.get_by_role("button", name="Colours: system")).to_be_visible()
    assert ground() < 60
    page.get_by_role("button", name="Colours: system").click()
    assert ground() > 200
    page.reload()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    assert ground() > 200
    page.get_by_role("button", name="Colours: light").click()
    assert ground() < 60


def test_dialogs_say_the_keys_and_close_by_escape(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#tiles a").first).to_be_visible()

    page.keyboard.press("?")

    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
