"""The overview, in a browser."""

from __future__ import annotations

import pytest

from perdure import HubStatistics
from tests.adapters.dashboard.serving import Shop, Visit, expect

pytestmark = pytest.mark.once


def test_an_empty_hub_says_what_to_do_first_until_something_is_there(
    shop: Shop, visit: Visit
) -> None:
    page = visit()
    first = page.locator("#first-steps")
    expect(first).to_contain_text("Nothing has been started here yet")
    expect(first).to_contain_text("perdure start ")
    expect(first).to_contain_text("perdure call @")

    shop.run("quick", 1, id="first-1")

    expect(first).to_be_empty()
    shop.do(lambda client: client.purge())


def test_instances_are_counted_by_status_and_again_when_they_change(
    shop: Shop, visit: Visit
) -> None:
    shop.start("approval", "tea", id="counted-1")
    page = visit()
    running = page.locator('[data-status="Running"] strong')
    expect(running).to_have_text("1")

    shop.start("approval", "tea", id="counted-2")

    expect(running).to_have_text("2")
    shop.do(lambda client: client.raise_event("counted-1", "approved", "yes"))
    shop.do(lambda client: client.raise_event("counted-2", "approved", "yes"))
    expect(running).to_have_text("0")
    expect(page.locator('[data-status="Completed"] strong')).to_have_text("2")


def test_a_count_leads_to_the_instances_that_it_counts(shop: Shop, visit: Visit) -> None:
    shop.run("quick", 1, id="led-1")
    page = visit()

    page.locator('[data-status="Completed"]').click()

    expect(page.get_by_role("row").filter(has_text="led-1")).to_be_visible()
    assert page.url.endswith("#/instances?statuses=Completed")
    expect(page.get_by_label("Completed")).to_be_checked()


def test_failures_say_why_and_hot_actors_are_named(shop: Shop, visit: Visit) -> None:
    shop.start("payment", 5, id="failed-1")
    shop.reach("failed-1", "Failed")
    shop.start("approval", "hot", id="hot-1")
    page = visit()

    expect(page.locator("#failures")).to_contain_text("the bank does not answer")
    expect(page.locator("#hottest")).to_contain_text("hot-1")


def test_what_has_the_focus_keeps_it_while_the_counters_change(shop: Shop, visit: Visit) -> None:
    page = visit()
    button = page.get_by_role("button", name="Move partition 0")
    button.focus()
    row = page.locator("#partitions tr").first
    before = row.inner_text()

    for number in range(100):
        shop.run("quick", number, id=f"busy-{number}")

    expect(row).not_to_have_text(before)
    expect(button).to_be_focused()


def test_a_partition_is_moved_from_here(shop: Shop, visit: Visit) -> None:
    statistics: HubStatistics = shop.do(lambda client: client.statistics())
    partition = statistics.partitions[0]
    other = 1 - partition.shard
    page = visit()

    page.get_by_role("button", name=f"Move partition {partition.index}").click()
    page.get_by_label("To shard").fill(str(other))
    page.get_by_role("button", name="Move", exact=True).click()

    row = page.locator("#partitions tr").nth(partition.index)
    expect(row.locator("td").nth(1)).to_have_text(str(other))
