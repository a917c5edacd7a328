"""A shop that is served, and a browser that looks at its dashboard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from attrs import define

from perdure import Client, Hub, Settings
from perdure.adapters.http import Address, Keys, ServerOptions, listen
from tests.adapters.dashboard.shop import app
from tests.cluster.small_cluster import Cluster

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

T = TypeVar("T")

CHROMIUM = Path("/usr/bin/chromium")
#: Milliseconds that the browser waits for what a test expects.
PATIENCE_MS = 15_000


#: Opens a page of the shop at an address, in a window of its own.
Visit = Callable[..., "Page"]


@define
class Shop:
    """A hub that serves its pages, in a thread of its own."""

    url: str
    client: Client
    portal: BlockingPortal

    def do(self, ask: Callable[[Client], Awaitable[T]]) -> T:
        """Have something done with the hub's client."""

        async def asked() -> T:
            return await ask(self.client)

        return self.portal.call(asked)

    def start(self, name: str, input: Any = None, *, id: str, **options: Any) -> None:
        """Start an instance."""
        self.do(lambda client: client.start_new(name, input, instance_id=id, **options))

    def reach(self, id: str, status: str = "Completed") -> None:
        """Wait until an instance stands somewhere."""

        self.until(
            lambda client: client.get_status(id),
            lambda found: found is not None and found.runtime_status == status,
        )

    def until(self, ask: Callable[[Client], Awaitable[T]], is_reached: Callable[[T], bool]) -> None:
        """Ask until the answer is the one that is waited for."""

        async def reach(client: Client) -> None:
            with anyio.fail_after(20):
                while not is_reached(await ask(client)):
                    await anyio.sleep(0.005)

        self.do(reach)

    def run(self, name: str, input: Any = None, *, id: str, **options: Any) -> None:
        """Start an instance, and wait for its end."""
        self.start(name, input, id=id, **options)
        self.reach(id)


@asynccontextmanager
async def _serve(keys: str | None, port: int) -> AsyncGenerator[tuple[str, Client], None]:
    options = ServerOptions(
        address=Address("127.0.0.1", port), keys=None if keys is None else Keys.parse(keys)
    )
    async with Hub(app, shards=2) as hub:
        with listen(options, announce=lambda _: None) as server:
            async with server.beside(hub):
                yield server.url, hub.client


@contextmanager
def open_shop(keys: str | None = None, port: int = 0) -> Generator[Shop]:
    """Serve a hub in memory."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(_serve(keys, port)) as (url, client),
    ):
        yield Shop(url, client, portal)


@asynccontextmanager
async def _serve_cluster(
    cluster: Cluster, keys: str | None
) -> AsyncGenerator[tuple[str, Client], None]:
    options = ServerOptions(
        address=Address("127.0.0.1", 0), keys=None if keys is None else Keys.parse(keys)
    )
    settings = Settings(lease_s=6.0, drain_s=0.5)
    async with AsyncExitStack() as entered:
        hubs = [
            await entered.enter_async_context(
                Hub(app, store=cluster.store(), partitions=6, settings=settings)
            )
            for _ in range(2)
        ]
        with anyio.fail_after(20):
            while [len(node.partitions) for node in (await hubs[0].nodes()).nodes] != [3, 3]:
                await anyio.sleep(0.01)
        server = entered.enter_context(listen(options, announce=lambda _: None))
        await entered.enter_async_context(server.beside(hubs[0]))
        yield server.url, hubs[0].client


@contextmanager
def open_cluster(keys: str | None = None) -> Generator[tuple[Cluster, Shop]]:
    """Serve a hub of six partitions with two members, of which the first has the pages."""
    cluster = Cluster()
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(_serve_cluster(cluster, keys)) as (url, client),
    ):
        yield cluster, Shop(url, client, portal)


def expect(found: Locator) -> Any:
    """Expect something of what is found in a page, before long."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    return expect(found)


@contextmanager
def open_browser() -> Generator[Browser]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


#: Notes what the policy refused, in the page itself.
_NOTE = """
window.refused = [];
addEventListener("securitypolicyviolation", (event) => {
  window.refused.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Generator[Page]:
    """Open a page that may ask nobody but the server, break no rule of its policy, and fail nowhere."""
    with browser.new_context(**options) as context, open_tab(context, url) as page:
        yield page


@contextmanager
def open_tab(context: BrowserContext, url: str) -> Generator[Page]:
    """Open such a page among others, which know what it knows; what it kept is gone afterwards."""
    with context.new_page() as page:
        page.set_default_timeout(PATIENCE_MS)
        trouble: list[str] = []
        page.add_init_script(_NOTE)
        page.on("pageerror", lambda error: trouble.append(f"failed: {error}"))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(url) else trouble.append(f"asked: {asked.url}")
            ),
        )
        yield page
        assert trouble == []
        assert page.evaluate("window.refused") == []
        page.evaluate("localStorage.clear()")
        context.clear_cookies()
