"""Signing in, and what a key that may only read is shown, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.adapters.dashboard.serving import Shop, Visit, expect, open_shop
from tests.adapters.http.serving import KEYS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with open_shop(KEYS) as shop:
        shop.start("approval", "tea", id="open-1")
        yield shop


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Key", exact=True).fill(secret)
    page.get_by_role("button", name="Sign in").click()


def test_the_page_asks_for_a_key_and_shows_what_was_asked_for(shop: Shop, visit: Visit) -> None:
    page = visit("#/instances?name=approval")
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("this is no key")

    sign_in(page, "work-secret")

    expect(page.get_by_role("link", name="open-1")).to_be_visible()
    assert page.url.endswith("#/instances?name=approval")
    assert "work-secret" not in page.content()
    assert page.evaluate("document.cookie") == ""  # no script sees the cookie
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()


def test_a_key_that_may_only_read_sees_no_actions(shop: Shop, visit: Visit) -> None:
    page = visit("#/instances")
    sign_in(page, "look-secret")
    expect(page.get_by_role("link", name="open-1")).to_be_visible()

    offered = {one.inner_text() for one in page.get_by_role("button").all()}
    assert offered <= {"?", "◐", "Sign out", "Save view"}
    expect(page.get_by_role("checkbox", name="Select open-1")).to_have_count(0)
    page.get_by_role("link", name="open-1").click()
    expect(page.get_by_role("tab", name="Timeline")).to_be_visible()
    expect(page.get_by_role("toolbar")).to_have_count(0)
    page.goto(f"{shop.url}/#/entities/%40stock%40tea")
    expect(page.locator("main")).to_contain_text("nobody has used it yet")
    expect(page.get_by_role("button", name="Call")).to_have_count(0)


def test_the_policy_keeps_what_gets_in_from_doing_anything(browser: Browser, shop: Shop) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        refusals: list[str] = []
        page.on(
            "requestfailed", lambda request: refusals.append(f"{request.failure} {request.url}")
        )
        page.goto(shop.url)
        expect(page.get_by_label("Key", exact=True)).to_be_visible()

        done = page.evaluate(_BREAK_IN)

        refused = dict.fromkeys(("html", "script", "inline", "fetch"), "TypeError")
        assert done == {**refused, "image": "error", "broken": False}
        assert "csp https://example.org/spy.png" in refusals  # which is before it is asked for


#: What somebody would try whose text had become a part of the page.
_BREAK_IN = """async () => {
  const tried = async (what) => {
    try {
      await what();
      return "done";
    } catch (error) {
      return error.name;
    }
  };
  const html = await tried(() => { document.body.innerHTML = "<b>bold</b>"; });
  const script = await tried(() => {
    const made = document.createElement("script");
    made.textContent = "window.broken = true";
    document.body.append(made);
  });
  const inline = await tried(() => document.body.setAttribute("onclick", "window.broken = true"));
  const image = await new Promise((resolve) => {
    const ended = (event) => resolve(event.type);
    const spy = Object.assign(new Image(), { onload: ended, onerror: ended });
    spy.src = "https://example.org/spy.png";
  });
  const fetched = await tried(() => fetch("https://example.org/"));
  return { html, script, inline, image, fetch: fetched, broken: Boolean(window.broken) };
}"""


def test_a_cookie_that_is_gone_leads_to_the_form_again(shop: Shop, visit: Visit) -> None:
    page = visit("#/overview")
    sign_in(page, "work-secret")
    expect(page.locator("#tiles a").first).to_be_visible()

    page.context.clear_cookies()

    expect(page.get_by_label("Key", exact=True)).to_be_visible()
