"""Draws the pictures of the pages in ``docs/``: ``python -m tests.adapters.dashboard.screenshots``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.adapters.dashboard.serving import Shop, open_browser, open_cluster, open_page, open_shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).parents[3] / "docs"
SIZE = {"width": 1120, "height": 640}

#: What is drawn: the address, a text that the page has when it is there, and the colours.
PICTURES = {
    "overview": ("#/overview", "Hottest actors", "light"),
    "instances": ("#/instances?statuses=Running%2CFailed", "order-1", "light"),
    "timeline": ("#/instances/order-7", "take the money", "light"),
    "travel": ("#/instances/order-1?tab=travel", "It was open", "dark"),
}


def fill(shop: Shop) -> None:
    """Have something to show."""
    for number in range(60):
        shop.start("quick", number, id=f"quick-{number}")
    for number, what in enumerate(("tea", "coffee", "salt", "ink", "pens", "paper", "rice"), 1):
        shop.start("order", what, id=f"order-{number}", tags={"shop": "north"})
    for number in range(1, 4):
        shop.start("payment", number, id=f"payment-{number}")
        shop.start("subscription", number, id=f"subscription-{number}")
        shop.reach(f"payment-{number}", "Failed")
    shop.until(
        lambda client: client.get_status("order-7"),
        lambda found: found is not None and found.waiting_for == ("event:approved",),
    )
    shop.do(lambda client: client.raise_event("order-7", "approved", "yes"))
    shop.reach("order-7")


def work(shop: Shop, page: Page) -> None:
    """Have something done while the page looks, so that it has rates to draw."""
    for second in range(40):
        for number in range(20 + second * 37 % 60):
            shop.start("quick", number, id=f"work-{second}-{number}")
        page.wait_for_timeout(500)


def draw(page: Page, shop: Shop, name: str) -> None:
    """Draw a page into its file."""
    address, text, _ = PICTURES[name]
    page.goto(f"{shop.url}/{address}")
    page.locator("main").get_by_text(text).first.wait_for(state="attached")
    if name == "overview":
        work(shop, page)
    page.screenshot(path=str(DOCS / f"dashboard-{name}.png"), animations="disabled")


def draw_nodes(browser: Browser) -> None:
    """Draw the page of the nodes, of which one is draining."""
    with open_cluster() as (_, shop), open_page(browser, shop.url, viewport=SIZE) as page:
        page.goto(f"{shop.url}/#/nodes")
        page.get_by_role("button", name="Drain member 2").wait_for()
        shop.do(lambda client: client.drain_node(2))
        page.locator("#moves tr").nth(2).wait_for()
        page.screenshot(path=str(DOCS / "dashboard-nodes.png"), animations="disabled")


def main() -> None:
    with open_browser() as browser:
        draw_nodes(browser)
    with open_shop() as shop, open_browser() as browser:
        fill(shop)
        for name, (_, _, scheme) in PICTURES.items():
            with open_page(browser, shop.url, viewport=SIZE, color_scheme=scheme) as page:
                draw(page, shop, name)


if __name__ == "__main__":
    main()
