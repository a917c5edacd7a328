"""The shop and the browser, once for each file of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.adapters.dashboard.serving import (
    CHROMIUM,
    Shop,
    open_browser,
    open_page,
    open_shop,
    open_tab,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not installed, so no page is looked at")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing, so no page is looked at: install chromium")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A window for most pages of a file of tests: one of its own takes as long as the page itself."""
    with browser.new_context() as window:
        yield window


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    """Say how many there are of what a page has few rows of: more where there is time."""
    return 10_000 if request.config.getoption("--long") else 2_000


@pytest.fixture
def visit(browser: Browser, window: BrowserContext, shop: Shop) -> Iterator[Callable[..., Page]]:
    """Open a page of the shop at an address, in a window of its own if that has to be another one."""
    with ExitStack() as stack:

        def visit(address: str = "", **options: Any) -> Page:
            opened = (
                open_page(browser, shop.url, **options) if options else open_tab(window, shop.url)
            )
            page = stack.enter_context(opened)
            page.goto(f"{shop.url}/{address}")
            return page

        yield visit
