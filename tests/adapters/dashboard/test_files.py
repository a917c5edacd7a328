"""The dashboard's files, as they are served: what a browser may do with them, and what is in them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure.adapters.dashboard import read_files
from tests.adapters.http.serving import KEYS, served

FILES = read_files()
MODULES = {name: body.decode() for name, (_, body) in FILES.items() if name.endswith(".js")}


class Tags(HTMLParser):
    """Notes the tags of a page, with their attributes and the text inside."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text_in: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag = self.found[-1][0] if self.found else ""
        self.text_in[tag] = self.text_in.get(tag, "") + data.strip()


PAGE = Tags(FILES["index.html"][1].decode())


async def test_the_page_may_load_its_own_files_alone_and_runs_nothing_inline() -> None:
    async with served() as shop:
        response = await shop.http.get("/")

    rules = [rule.split() for rule in response.headers["content-security-policy"].split(";")]
    policy = {name: " ".join(allowed) for name, *allowed in rules}
    assert response.headers["content-type"].startswith("text/html")
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert not PAGE.text_in.get("script")
    assert "style" not in {tag for tag, _ in PAGE.found}
    names = {name for _, attributes in PAGE.found for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_the_page_names_all_its_files_by_relative_paths() -> None:
    named = {
        attributes.get("src") or attributes.get("href") or ""
        for tag, attributes in PAGE.found
        if tag in ("script", "link", "img")
    }

    # Each module is loaded at once, not when the one before it has come.
    assert named == {f"dashboard/{name}" for name in FILES if name != "index.html"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_reads_no_text_as_html_or_code_and_names_no_other_place(name: str) -> None:
    source = MODULES[name]

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", source
    )
    assert set(re.findall(r"https?://[^\"'` ]+", source)) <= {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r'from "([^"]+)"', source)) <= {f"./{other}" for other in MODULES}


async def test_a_file_that_is_known_is_not_sent_again() -> None:
    async with served() as shop:
        first = await shop.http.get("/dashboard/main.js")
        again = await shop.http.get(
            "/dashboard/main.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'}
        )
        other = await shop.http.get("/dashboard/main.js", headers={"If-None-Match": '"other"'})

    assert (first.status_code, again.status_code, other.status_code) == (200, 304, 200)
    assert first.headers["content-type"].startswith("text/javascript")
    assert first.headers["cache-control"] == "no-cache"
    assert (again.content, other.content) == (b"", first.content)


async def test_the_page_leads_to_files_that_are_kept_since_they_never_change() -> None:
    async with served() as shop:
        page = await shop.http.get("/")
        [path] = re.findall(r'src="(dashboard/[^"]+/main\.js)"', page.text)
        kept = await shop.http.get(f"/{path}")
        older = await shop.http.get("/dashboard/another-version/main.js")

    assert page.headers["cache-control"] == "no-cache"
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (older.status_code, older.headers["cache-control"]) == (200, "no-cache")
    assert kept.text == older.text == MODULES["main.js"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/dashboard/none.js", 404),
        ("GET", "/dashboard/__init__.py", 404),
        ("GET", "/dashboard/..%2F__init__.py", 404),
        ("GET", "/dashboard", 404),
        ("GET", "/dashboard/main.js/more", 404),
        ("GET", "/dashboard/one/two/main.js", 404),
        ("GET", "/elsewhere", 404),
        ("HEAD", "/", 200),
        ("POST", "/", 405),
        ("POST", "/dashboard/main.js", 405),
    ],
)
async def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    async with served() as shop:
        response = await shop.http.request(method, path)

    assert response.status_code == status


async def test_the_pages_need_no_key_and_what_they_ask_does() -> None:
    async with served(keys=KEYS) as shop:
        page = await shop.http.get("/")
        asked = await shop.http.get("/api/v1/instances")

    assert (page.status_code, asked.status_code) == (200, 401)


@pytest.mark.parametrize(
    ("keys", "secret", "told"),
    [
        (None, None, {"needs_key": False, "key": None, "may_read": True, "may_write": True}),
        (KEYS, None, {"needs_key": True, "key": None, "may_read": False, "may_write": False}),
        (KEYS, "wrong", {"needs_key": True, "key": None, "may_read": False, "may_write": False}),
        (
            KEYS,
            "look-secret",
            {"needs_key": True, "key": "look", "may_read": True, "may_write": False},
        ),
        (
            KEYS,
            "work-secret",
            {"needs_key": True, "key": "work", "may_read": True, "may_write": True},
        ),
    ],
)
async def test_who_is_signed_in_is_told_without_the_secret(
    keys: str | None, secret: str | None, told: dict[str, object]
) -> None:
    async with served(keys=keys) as shop:
        if secret is not None:
            await shop.http.post("/sign-in", json={"code": secret})
        response = await shop.http.get("/sign-in")

    assert response.json() == told
    assert response.headers["cache-control"] == "no-store"


async def test_where_it_is_mounted_the_page_is_led_to_its_slash() -> None:
    async with served() as shop:
        web = Starlette(routes=[Mount("/hub", shop.web)])
        async with AsyncClient(transport=ASGITransport(web), base_url="http://localhost") as http:
            bare = await http.get("/hub")
            page = await http.get("/hub/")
            file = await http.get("/hub/dashboard/main.js")

    assert (bare.status_code, bare.headers["location"]) == (307, "http://localhost/hub/")
    assert (page.status_code, file.status_code) == (200, 200)
