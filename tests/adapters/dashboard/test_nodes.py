"""The page of the nodes, in a browser: of a hub with one owner, and of one that two processes serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.adapters.dashboard.serving import Shop, Visit, expect, open_cluster, open_page
from tests.cluster.small_cluster import Cluster

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.once

KEYS = "reader read look-secret\nowner full do-secret"


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Shop]]:
    with open_cluster() as pair:
        yield pair


@pytest.fixture
def page(pair: tuple[Cluster, Shop], browser: Browser) -> Iterator[Page]:
    with open_page(browser, pair[1].url) as page:
        page.goto(f"{pair[1].url}/#/nodes")
        yield page


def test_a_hub_with_one_owner_is_its_one_node_and_nothing_goes_from_it(visit: Visit) -> None:
    page = visit("#/nodes")

    expect(page.locator("#said")).to_have_text(
        "1 process serves 4 partitions. The store has one owner, so there are no others."
    )
    expect(page.locator("#nodes tr")).to_have_count(1)
    expect(page.locator("#nodes button")).to_have_count(0)


def test_each_node_is_shown_with_its_partitions_and_its_last_beat(page: Page) -> None:
    expect(page.locator("#said")).to_have_text("2 processes serve 6 partitions.")
    for member in (1, 2):
        row = page.locator(f'#nodes tr[data-member="{member}"]')
        expect(row).to_contain_text("serves")
        expect(row.get_by_role("button", name="Move partition")).to_have_count(3)
    expect(page.locator('#nodes tr[data-member="1"]')).to_contain_text("asked")
    expect(page.locator("#moves")).to_contain_text("None, since this page is open")


def test_what_the_tables_of_a_node_lack_is_shown(pair: tuple[Cluster, Shop], page: Page) -> None:
    row = page.locator('#nodes tr[data-member="1"]')
    expect(row).to_contain_text("serves")
    leases = pair[0].leases
    numbers = [lease.partition for lease in leases if lease.owner == 1]
    for number, unapplied in zip(numbers, (7, 1_200, 0), strict=True):
        leases[number] = leases[number]._replace(unapplied=unapplied)

    shown = row.get_by_text("1,207", exact=True)
    expect(shown).to_be_visible()
    expect(shown).to_have_attribute("title", f"Most: partition {numbers[1]}, 1,200")
    leases[numbers[0]] = leases[numbers[0]]._replace(unapplied=10_001)
    expect(row.locator(".trouble")).to_have_text("11,201")


def test_a_partition_is_moved_and_the_move_is_seen(pair: tuple[Cluster, Shop], page: Page) -> None:
    row = page.locator('#nodes tr[data-member="1"]')
    expect(row.get_by_role("button", name="Move partition")).to_have_count(3)
    number = next(lease.partition for lease in pair[0].leases if lease.owner == 1)

    row.get_by_role("button", name=f"Move partition {number}", exact=True).click()
    page.get_by_label("To member").fill("2")
    page.get_by_role("button", name="Move", exact=True).click()

    other = page.locator('#nodes tr[data-member="2"]')
    expect(other.get_by_role("button", name=f"Move partition {number}", exact=True)).to_be_visible()
    expect(page.locator("#moves tr").first).to_contain_text(str(number))
    expect(page.locator("#notices")).to_contain_text(f"Member 2 serves partition {number}")


def test_a_node_is_drained_and_undrained(page: Page) -> None:
    row = page.locator('#nodes tr[data-member="2"]')
    row.get_by_role("button", name="Drain member 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()

    expect(row).to_contain_text("draining")
    expect(row.get_by_role("button", name="Move partition")).to_have_count(0)
    expect(page.locator("#moves tr")).to_have_count(3)
    row.get_by_role("button", name="Undrain member 2").click()
    expect(row).to_contain_text("serves")
    expect(row.get_by_role("button", name="Move partition")).to_have_count(3)


def test_a_node_that_has_expired_is_not_to_be_drained(
    pair: tuple[Cluster, Shop], page: Page
) -> None:
    newcomer, _, _ = pair[0].members[2]
    pair[0].members[7] = (newcomer, 0.0, False)

    row = page.locator('#nodes tr[data-member="7"]')
    expect(row).to_contain_text("expired")
    expect(row.get_by_role("button")).to_have_count(0)


def test_what_is_refused_is_told(page: Page) -> None:
    page.get_by_role("button", name="Move partition").first.click()
    page.get_by_label("To member").fill("99")
    page.get_by_role("button", name="Move", exact=True).click()

    expect(page.locator("#notices")).to_contain_text("there is no member 99 now")


def test_who_may_only_read_is_offered_nothing(browser: Browser) -> None:
    with open_cluster(KEYS) as (_, shop), open_page(browser, shop.url) as page:
        page.goto(f"{shop.url}/#/nodes")
        page.get_by_label("Key", exact=True).fill("look-secret")
        page.get_by_role("button", name="Sign in").click()

        expect(page.locator("#nodes tr")).to_have_count(2)
        expect(page.locator("#nodes button")).to_have_count(0)
