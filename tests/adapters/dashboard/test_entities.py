"""Entities, in a browser."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import EntityId
from tests.adapters.dashboard.serving import Shop, Visit, expect
from tests.adapters.dashboard.shop import Stock

pytestmark = pytest.mark.once


def test_entities_are_found_by_filters_and_opened(shop: Shop, visit: Visit) -> None:
    for key in ("pens", "ink", "paper"):
        shop.do(lambda client, key=key: client.call_entity(EntityId(Stock, key), Stock.add, 7))  # type: ignore[misc]
    page = visit("#/entities")
    rows = page.get_by_role("rowgroup").last.get_by_role("row")
    expect(rows.filter(has_text="@stock@ink")).to_contain_text('{"amount":7}')

    page.get_by_label("Key begins with").fill("p")

    expect(rows).to_have_count(2)
    assert page.url.endswith("#/entities?key_prefix=p")
    rows.filter(has_text="@stock@pens").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="@stock@pens")).to_be_visible()
    expect(page.get_by_label("State")).to_contain_text('"amount": 7')


def test_an_entity_is_called_and_signalled_with_json(shop: Shop, visit: Visit) -> None:
    page = visit("#/entities/%40stock%40tea%2Fgreen")
    expect(page.locator("main")).to_contain_text("nobody has used it yet")
    page.get_by_label("Operation").fill("add")
    page.get_by_label("Input, as JSON").fill("{3")
    page.get_by_role("button", name="Call").click()
    expect(page.get_by_role("alert")).to_contain_text("is no JSON")

    page.get_by_label("Input, as JSON").fill("3")
    page.get_by_role("button", name="Call").click()

    expect(page.get_by_label("Result")).to_have_text("3")
    expect(page.get_by_label("State")).to_contain_text('"amount": 3')
    page.get_by_role("button", name="Signal").click()
    expect(page.get_by_label("State")).to_contain_text('"amount": 6')
    page.get_by_label("Operation").fill("take")
    page.get_by_label("Input, as JSON").fill("100")
    page.get_by_role("button", name="Call").click()
    expect(page.get_by_role("alert")).to_contain_text("there are 6 only")
    page.get_by_role("button", name="Signal").click()
    expect(page.locator("main")).to_contain_text("ValueError: there are 6 only")


def test_who_holds_the_lock_and_who_waits_for_it_is_shown(shop: Shop, visit: Visit) -> None:
    # The first keeps the lock until its event comes, and the second waits in the queue.
    shop.start("stocktaking", "salt", id="taking-1")
    _reach_lock(shop, "salt", waiters=0)
    shop.start("stocktaking", "salt", id="taking-2")
    _reach_lock(shop, "salt", waiters=1)
    page = visit("#/entities?locked=true")
    row = page.get_by_role("row").filter(has_text="@stock@salt")
    expect(row).to_contain_text("taking-1 and 1 wait")

    row.get_by_role("link", name="@stock@salt").click()

    expect(page.locator(".pairs")).to_contain_text("Locked bytaking-1")
    expect(page.locator(".pairs")).to_contain_text("Wait for the locktaking-2")
    page.get_by_role("link", name="taking-2").click()
    page.get_by_role("tab", name="Why it waits").click()
    expect(page.locator("#panel")).to_contain_text(
        "which is locked by taking-1; its place in the queue is 1"
    )


def test_an_entity_is_purged_once_that_is_confirmed(shop: Shop, visit: Visit) -> None:
    shop.do(lambda client: client.call_entity(EntityId(Stock, "dust"), Stock.add, 1))
    page = visit("#/entities/%40stock%40dust")
    page.get_by_role("button", name="Purge").click()

    page.get_by_role("dialog").get_by_role("button", name="Purge").click()

    page.wait_for_url("**/#/entities")
    status = shop.do(lambda client: client.get_entity(EntityId(Stock, "dust")))
    assert status is None or not status.exists


def _reach_lock(shop: Shop, key: str, waiters: int) -> None:
    def is_reached(status: Any) -> bool:
        return status is not None and status.locked_by and status.lock_waiter_count == waiters

    shop.until(lambda client: client.get_entity(EntityId(Stock, key)), is_reached)
