"""How long a first page takes to be drawn: ``python -m tests.adapters.dashboard.speed``.

The time is that from the navigation to the frame that has the first rows, with 10,000 instances to
list and 10,000 events to draw. The tests hold the work of the page to a bound, and not the time,
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


def list_many(shop: Shop) -> None:
    """Have 10,000 ended instances."""

    async def start(client: Client) -> None:
        async with anyio.create_task_group() as tasks:

            async def start_some(worker: int) -> None:
                for number in range(worker, MANY, 50):
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


def main() -> None:
    with open_shop() as shop, open_browser() as browser:
        list_many(shop)
        shop.run("gifts", MANY // 2, id="gifts-1")
        for what, address in (("instances listed", LISTED), ("events of a timeline", DRAWN)):
            time, work = measure(browser, shop, address)
            print(f"{MANY:,} {what}: first rows after {time:.0f} ms, {work:.0f} ms of them work")


if __name__ == "__main__":
    main()
