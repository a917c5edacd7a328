"""How long a first page takes to be drawn: ``python -m tests.adapters.dashboard.speed``.

The time is that to the frame that has the first rows, with 10,000 instances to list and 10,000
events to draw: from a click in the dashboard, and from the navigation of a new window, which loads
the dashboard first. The tests hold the work of the page to a bound, and not the time,
which is that of the machine as well.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import anyio

from tests.adapters.dashboard.serving import Shop, open_browser, open_page, open_shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from perdure import Client

MANY = 10_000
ROUNDS = 9
#: Of the page's own thread up to its first rows, so that these can be there within 300 ms.
WORK_MS_MAX = 250
#: What is drawn first, and its address.
LISTED = "#/instances?instance_id_prefix=many-&statuses=Completed"
DRAWN = "#/instances/gifts-1"

_WATCH = """
new MutationObserver((_, watch) => {
  if (!document.querySelector(".rows .row")) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.drawnAt = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""


_DRAWN_AT = """async () => {
  while (window.drawnAt === undefined) await new Promise(requestAnimationFrame);
  return window.drawnAt;
}"""

#: Goes there from another page, and gives the milliseconds to the frame with the first new rows.
_GO = """async (address) => {
  const before = new Set(document.querySelectorAll(".rows .row"));
  const isThere = () => [...document.querySelectorAll(".rows .row")].some((row) => !before.has(row));
  const begun = performance.now();
  location.hash = address;
  while (!isThere()) await new Promise(requestAnimationFrame);
  await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
  return performance.now() - begun;
}"""


def list_many(shop: Shop, many: int = MANY) -> None:
    """Have so many ended instances."""

    async def start(client: Client) -> None:
        async with anyio.create_task_group() as tasks:

            async def start_some(worker: int) -> None:
                for number in range(worker, many, 50):
                    await client.start_new("quick", number, instance_id=f"many-{number:04}")

            for worker in range(50):
                tasks.start_soon(start_some, worker)

    shop.do(start)


def first_rows(page: Page, url: str) -> tuple[float, float]:
    """Open an address; gives when its first rows were drawn, and the work of that, in ms.

    The work is the processor time of the page's own thread, which no other process adds to.
    """
    page.add_init_script(_WATCH)
    session: Any = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url)
    drawn_at = page.evaluate(_DRAWN_AT)
    metrics = session.send("Performance.getMetrics")["metrics"]
    [work] = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    return float(drawn_at), 1e3 * work


def measure(browser: Browser, shop: Shop, address: str) -> tuple[float, float]:
    """Give the median time and work of the first rows, in windows that know nothing yet."""
    found: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with open_page(browser, shop.url) as page:
            found.append(first_rows(page, f"{shop.url}/{address}"))
    times, works = zip(*found, strict=True)
    return median(times), median(works)


def measure_within(browser: Browser, shop: Shop, address: str) -> float:
    """Give the median time of the first rows, in windows that show the overview already."""
    found: list[float] = []
    for _ in range(ROUNDS):
        with open_page(browser, shop.url) as page:
            page.goto(f"{shop.url}/", wait_until="load")
            page.wait_for_selector("main :is(h1, h2)")
            found.append(float(page.evaluate(_GO, address)))
    return median(found)


def main() -> None:
    with open_shop() as shop, open_browser() as browser:
        list_many(shop)
        shop.run("gifts", MANY // 2, id="gifts-1")
        for what, address in (("instances listed", LISTED), ("events of a timeline", DRAWN)):
            time, work = measure(browser, shop, address)
            within = measure_within(browser, shop, address)
            print(
                f"{MANY:,} {what}: first rows {within:.0f} ms after the click, {time:.0f} ms in a "
                f"window that has nothing of the dashboard yet ({work:.0f} ms of them work)"
            )


if __name__ == "__main__":
    main()
