"""Keys, and what a browser may be used for: who may come in."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure import UsageError
from perdure.adapters.http import Key, Keys
from tests.adapters.http.serving import KEYS, SDK, WEBHOOKS, served

LIST = f"{WEBHOOKS}/instances"
START = f"{WEBHOOKS}/orchestrators/echo"


def test_keys_are_lines_of_name_access_and_secret() -> None:
    keys = Keys.parse(KEYS)

    assert keys.find("look-secret") == Key("look", "read", "look-secret")
    assert keys.find("work-secret") == Key("work", "full", "work-secret")
    assert keys.find("other") is None
    assert keys.find("") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no key"),
        ("# none\n", "there is no key"),
        ("a full", "line 1"),
        ("a full s t", "line 1"),
        ("\na write hidden", "line 2"),
        ("ä full hidden", "line 1"),
        ("a full hidden\na read other", "the same name"),
        ("a full hidden\nb read hidden", "the same secret"),
    ],
)
def test_keys_that_mean_nothing_are_refused_without_being_shown(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        Keys.parse(text)

    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("bad", [("a", "full", "with space"), ("", "full", "s"), ("a", "all", "s")])
def test_a_key_has_a_name_an_access_and_a_secret(bad: tuple[Any, Any, Any]) -> None:
    with pytest.raises(UsageError, match="a key is a name"):
        Key(*bad)


def test_keys_come_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text(KEYS, "utf-8")

    monkeypatch.delenv("PERDURE_KEYS", raising=False)
    absent = Keys.of_environment()
    monkeypatch.setenv("PERDURE_KEYS", KEYS)
    present = Keys.of_environment()

    assert Keys.of_file(tmp_path / "keys").find("look-secret") is not None
    assert absent is None
    assert present is not None
    assert present.find("look-secret") is not None
    with pytest.raises(UsageError, match="cannot be read"):
        Keys.of_file(tmp_path / "none")


def test_no_secret_is_shown() -> None:
    keys = Keys.parse(KEYS)

    assert "secret" not in repr(keys)
    assert "look-secret" not in repr(keys.find("look-secret"))


def test_a_ticket_signs_in_until_its_time_and_holds_no_secret() -> None:
    keys = Keys.parse(KEYS)
    key = keys.find("work-secret")
    assert key is not None
    ticket = keys.ticket(key, 1_000)

    assert "work-secret" not in ticket
    assert keys.redeem(ticket, 999) == key
    assert keys.redeem(ticket, 1_000) is None
    assert keys.redeem(ticket.replace("1000", "9000"), 999) is None
    assert keys.redeem(ticket.replace("work", "look"), 999) is None
    assert keys.redeem(ticket[:-1], 999) is None
    assert Keys.parse("work full another").redeem(ticket, 999) is None


GIVEN: list[dict[str, Any]] = [
    {"params": {"code": "SECRET"}},
    {"headers": {"x-functions-key": "SECRET"}},
    {"headers": {"Authorization": "Bearer SECRET"}},
    {"headers": {"Authorization": "bearer SECRET"}},
]


def with_secret(given: dict[str, Any], secret: str) -> dict[str, Any]:
    return {
        what: {name: value.replace("SECRET", secret) for name, value in pairs.items()}
        for what, pairs in given.items()
    }


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("prefix", [WEBHOOKS, SDK])
async def test_a_key_may_be_given_in_three_ways(given: dict[str, Any], prefix: str) -> None:
    async with served(keys=KEYS) as it:

        async def ask(method: str, path: str, secret: str) -> int:
            answer = await it.http.request(method, f"{prefix}{path}", **with_secret(given, secret))
            return answer.status_code

        assert await ask("GET", "/instances", "look-secret") == 200
        assert await ask("GET", "/instances", "work-secret") == 200
        assert await ask("GET", "/instances", "no-secret") == 401
        assert await ask("HEAD", "/instances", "look-secret") == 200
        assert await ask("POST", "/orchestrators/echo/a", "work-secret") == 202
        assert await ask("POST", "/orchestrators/echo/b", "look-secret") == 403
        assert await ask("DELETE", "/instances/a", "look-secret") == 403
        assert await ask("POST", "/orchestrators/echo/b", "no-secret") == 401
        assert await it.client.get_status("b") is None


async def test_without_a_key_nothing_but_health_is_told() -> None:
    async with served(keys=KEYS) as it:
        refused = await it.http.get(LIST)
        nowhere = await it.http.get(f"{WEBHOOKS}/nothing")
        probes = [(await it.http.get(path)).status_code for path in ("/healthz", "/readyz")]

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["Message"]
    assert nowhere.status_code == 401
    assert probes == [200, 200]


async def test_the_links_of_a_start_have_the_code_that_it_was_given_and_no_other() -> None:
    async with served(keys=KEYS) as it:
        by_code = (await it.http.post(START, params={"code": "work-secret"})).json()
        headers = {"x-functions-key": "work-secret"}
        by_header = (await it.http.post(START, headers=headers)).json()
        followed = await it.http.get(by_code["statusQueryGetUri"])

    assert by_code["statusQueryGetUri"].endswith("&code=work-secret")
    assert "secret" not in str(by_header)
    assert followed.status_code in (200, 202)


async def test_no_log_has_a_key_or_a_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "perdure")
    async with served(keys=KEYS) as it:
        await it.http.post(f"{START}/a%0Ab", params={"code": "work-secret"})
        await it.http.get(LIST, params={"code": "wrong-secret"})

    lines = [record.getMessage() for record in caplog.records]
    assert any(f"POST {START}/a%0Ab 4" in line for line in lines), lines
    assert not any("secret" in line or "code" in line for line in lines)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:7071", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[", 421),
    ],
)
async def test_an_unknown_host_is_misdirected(host: str, status: int) -> None:
    async with served(allowed_hosts=("localhost", "127.0.0.1", "[::1]")) as it:
        answer = await it.http.get(LIST, headers={"Host": host})
        probe = await it.http.get("/healthz", headers={"Host": host})

    assert answer.status_code == status
    assert probe.status_code == 200


async def test_a_host_may_be_allowed_with_one_port_alone() -> None:
    async with served(allowed_hosts=("shop.example:81",)) as it:
        statuses = [
            (await it.http.get(LIST, headers={"Host": host})).status_code
            for host in ("shop.example:81", "shop.example", "shop.example:82")
        ]

    assert statuses == [200, 421, 421]


async def test_any_host_is_good_where_all_are_allowed() -> None:
    async with served(allowed_hosts=("*",)) as it:
        answer = await it.http.get(LIST, headers={"Host": "anything.example"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"Origin": "http://localhost"}, 202),
        ({"Origin": "http://localhost:80"}, 202),
        ({"Origin": "https://localhost"}, 202),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 202),
        ({"Origin": "http://localhost:8080"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[bad"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("keys", [None, KEYS])
async def test_a_page_of_another_origin_changes_nothing(
    headers: dict[str, str], status: int, keys: str | None
) -> None:
    async with served(keys=keys) as it:
        params = {"code": "work-secret"}
        wrote = await it.http.post(f"{START}/i", params=params, headers=headers)
        read = await it.http.get(LIST, params=params, headers=headers)
        stored = await it.client.get_status("i")

    assert wrote.status_code == status
    assert read.status_code == 200
    assert (stored is not None) == (status == 202)
    assert not any(name.startswith("access-control") for name in read.headers)


async def test_signing_in_gives_a_cookie_that_lets_in_until_signing_out() -> None:
    async with served(keys=KEYS) as it:
        wrong = await it.http.post("/sign-in", data={"code": "no"})
        came = await it.http.post("/sign-in", data={"code": "work-secret"})
        cookie = came.headers["set-cookie"]
        inside = await it.http.get(LIST)
        wrote = await it.http.post(f"{START}/i")
        left = await it.http.post("/sign-out")
        outside = await it.http.get(LIST)

    assert wrong.status_code == 401
    assert (came.status_code, came.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "work-secret" not in cookie
    assert (inside.status_code, wrote.status_code) == (200, 202)
    assert left.status_code == 303
    assert outside.status_code == 401


async def test_a_script_signs_in_with_json_and_is_led_nowhere() -> None:
    async with served(keys=KEYS, root_path="/hub") as it:
        came = await it.http.post("/hub/sign-in", json={"code": "look-secret"})
        inside = await it.http.get(f"/hub{LIST}")
        wrote = await it.http.post(f"/hub{START}/i")

    assert came.status_code == 204
    assert "Path=/hub/" in came.headers["set-cookie"]
    assert (inside.status_code, wrote.status_code) == (200, 403)


@pytest.mark.parametrize("body", [b"", b"code=", b"code=%ff", b"\xff", b"code"])
async def test_signing_in_with_nothing_is_refused(body: bytes) -> None:
    async with served(keys=KEYS) as it:
        answer = await it.http.post("/sign-in", content=body)

    assert answer.status_code == 401


@pytest.mark.parametrize("body", [b"[]", b'{"code": 5}', b'{"code": null}', b"{}", b'"x"', b"{"])
async def test_signing_in_with_json_that_has_no_code_is_refused(body: bytes) -> None:
    json = {"Content-Type": "application/json"}
    async with served(keys=KEYS) as it:
        answer = await it.http.post("/sign-in", content=body, headers=json)

    assert answer.status_code == (400 if body == b"{" else 401)


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
async def test_signing_in_reads_little_of_who_has_no_key(kind: str) -> None:
    async with served(keys=KEYS) as it:
        answer = await it.http.post(
            "/sign-in", content=b"a=b&" * 2_049, headers={"Content-Type": kind}
        )

    assert answer.status_code == 413


@pytest.mark.parametrize("other", ['other={"a": 1}', "two words=x", "[x]=1", 'open="', "=;"])
async def test_cookies_of_other_servers_do_not_keep_a_browser_out(other: str) -> None:
    async with served(keys=KEYS) as it:
        await it.http.post("/sign-in", data={"code": "look-secret"})
        ours = cookie_of(it.http)
        it.http.cookies.clear()
        before = await it.http.get(LIST, headers={"Cookie": f"{other}; {ours}"})
        behind = await it.http.get(LIST, headers={"Cookie": f"{ours}; {other}"})

    assert (before.status_code, behind.status_code) == (200, 200)


async def test_another_page_cannot_sign_a_browser_in() -> None:
    async with served(keys=KEYS) as it:
        answer = await it.http.post(
            "/sign-in", data={"code": "work-secret"}, headers={"Origin": "http://evil.example"}
        )

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("cookie", ["perdure-key=x", "perdure-key=work.9999999999.00", "=;=,", "a"])
async def test_a_cookie_that_was_not_given_lets_nobody_in(cookie: str) -> None:
    async with served(keys=KEYS) as it:
        answer = await it.http.get(LIST, headers={"Cookie": cookie})

    assert answer.status_code == 401


async def test_a_cookie_lasts_for_hours_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(keys=KEYS) as it:
        await it.http.post("/sign-in", data={"code": "work-secret"})
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 11 * 3600)
        later = await it.http.get(LIST, headers={"Cookie": cookie_of(it.http)})
        monkeypatch.setattr(time, "time", lambda: now + 13 * 3600)
        too_late = await it.http.get(LIST, headers={"Cookie": cookie_of(it.http)})

    assert (later.status_code, too_late.status_code) == (200, 401)


def cookie_of(http: httpx.AsyncClient) -> str:
    return f"perdure-key={http.cookies['perdure-key']}"
