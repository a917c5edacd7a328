"""What a request may be, and what is told of an error."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import anyio
import httpx
import pytest

from perdure import (
    MailboxFullError,
    OutcomeUnknownError,
    ParkedError,
    RuntimeStatus,
    StoreFullError,
)
from perdure.adapters.http import Limits
from tests.adapters.http.serving import WEBHOOKS, Served, ask_raw, served

START = f"{WEBHOOKS}/orchestrators/echo/i"


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() -> None:
    async with served(limits=Limits(body_bytes_max=100)) as it:
        told = await it.http.post(START, content=b"1" * 101)
        untold, _ = await ask_raw(it.web, "POST", START, [b"1" * 50] * 3)
        stored = await it.client.get_status("i")
        fits = await it.http.post(START, content=b'"' + b"1" * 98 + b'"')

    assert (told.status_code, untold, fits.status_code) == (413, 413, 202)
    assert told.headers["connection"] == "close"
    assert stored is None


async def test_an_input_that_is_over_the_hubs_own_limit_is_refused() -> None:
    async with served() as it:
        answer = await it.http.post(START, json="x" * (1024 * 1024))

    assert answer.status_code == 413
    assert answer.json()["ExceptionType"] == "PayloadTooLargeError"


async def test_a_body_that_says_it_is_too_large_is_not_waited_for() -> None:
    async with served(limits=Limits(body_bytes_max=100)) as it:
        length = [(b"content-length", b"101")]
        status, _ = await ask_raw(it.web, "POST", START, [], length)

    assert status == 413


async def test_a_body_that_breaks_off_is_not_taken_for_whole() -> None:
    class Broken(list[bytes]):
        """Says of each part that more comes."""

        def __len__(self) -> int:
            return 9

    async with served() as it:
        status, _ = await ask_raw(it.web, "POST", START, Broken([b"12"]))
        stored = await it.client.get_status("i")

    assert status == 400
    assert stored is None


async def test_a_url_or_head_that_is_too_long_is_refused() -> None:
    async with served(limits=Limits(url_bytes_max=200, head_bytes_max=500)) as it:
        path = await it.http.get(f"{WEBHOOKS}/instances/{'x' * 200}")
        query = await it.http.get(f"{WEBHOOKS}/instances", params={"instanceIdPrefix": "x" * 200})
        head = await it.http.get(f"{WEBHOOKS}/instances", headers={"X-Much": "x" * 500})

    assert [path.status_code, query.status_code, head.status_code] == [414, 414, 431]


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def never() -> AsyncGenerator[bytes, None]:
        yield b"1"
        await anyio.sleep_forever()

    async with served(limits=Limits(body_s=0.05)) as it:
        answer = await it.http.post(START, content=never())
        stored = await it.client.get_status("i")

    assert answer.status_code == 408
    assert stored is None


async def test_a_body_of_which_nothing_comes_is_not_waited_for() -> None:
    async def nothing() -> AsyncGenerator[bytes, None]:
        await anyio.sleep_forever()
        yield b""

    async with served(limits=Limits(body_s=0.05)) as it:
        answer = await it.http.post(START, content=nothing())

    assert answer.status_code == 408


async def test_a_body_that_comes_piece_by_piece_is_put_together() -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in (b"[1,", b"2,", b"3]"):
            await anyio.lowlevel.checkpoint()
            yield piece

    async with served() as it:
        answer = await it.http.post(START, content=pieces())
        stored = await it.client.get_status("i")

    assert answer.status_code == 202
    assert stored is not None
    assert stored.input == [1, 2, 3]


async def test_a_start_waits_no_longer_than_a_request_may() -> None:
    async with served(limits=Limits(wait_s_max=0.05)) as it:
        with anyio.fail_after(10):
            answer = await it.http.post(f"{WEBHOOKS}/orchestrators/approval?timeout=3600")

    assert answer.status_code == 202


async def test_no_more_requests_are_under_way_than_there_may_be() -> None:
    busy = httpx.Response(0)
    async with served(limits=Limits(requests_max=1)) as it, anyio.create_task_group() as tasks:
        waiting = f"{WEBHOOKS}/orchestrators/approval/i?timeout=60"
        tasks.start_soon(it.http.post, waiting)
        await it.reaches("i", *RuntimeStatus)
        busy = await it.http.get(f"{WEBHOOKS}/instances")
        await it.client.raise_event("i", "Approved", 1)
        await it.ended("i")

    assert busy.status_code == 503
    assert busy.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MailboxFullError("@counter@k", 7), 503),
        (OutcomeUnknownError("lost"), 504),
        (ParkedError("@counter@k", "why"), 409),
        (StoreFullError("full"), 507),
        (TimeoutError("late"), 504),
    ],
)
async def test_what_the_client_raises_is_answered_in_the_familys_words(
    error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as it:
        fail_with(error, it, monkeypatch)
        answer = await it.http.get(f"{WEBHOOKS}/instances/i")

    assert answer.status_code == status
    assert answer.json()["ExceptionMessage"] == str(error)
    assert answer.json()["ExceptionType"] == type(error).__name__
    assert ("retry-after" in answer.headers) == isinstance(error, MailboxFullError)


@pytest.mark.parametrize("expose", [False, True])
async def test_an_unexpected_error_is_logged_and_told_only_where_that_is_wanted(
    expose: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(expose_errors=expose) as it:
        fail_with(ZeroDivisionError("inner workings"), it, monkeypatch)
        answer = await it.http.get(f"{WEBHOOKS}/instances/i?code=hidden")

    assert answer.status_code == 500
    assert ("inner workings" in answer.text) is expose
    assert ("Traceback" in answer.text) is expose
    assert answer.json()["ExceptionMessage"]
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "hidden" not in caplog.text


def fail_with(error: Exception, it: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def get_status(_: str) -> None:
        raise error

    monkeypatch.setattr(it.client, "get_status", get_status)


DEEP = 254 * b"[" + b"1" + 254 * b"]"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/instances",
        "/api/v1/instances/deep?wait=5",
        "/api/v1/entities?states=true",
        "/api/v1/entities/anything/deep/state",
        f"{WEBHOOKS}/instances",
        f"{WEBHOOKS}/instances/deep?showHistory=true&showHistoryOutput=true",
        f"{WEBHOOKS}/entities?fetchState=true",
    ],
)
async def test_what_is_as_deep_as_may_be_is_shown_with_all_around_it(path: str) -> None:
    json = {"Content-Type": "application/json"}
    async with served() as it:
        await it.http.post(f"{WEBHOOKS}/orchestrators/echo/deep", content=DEEP, headers=json)
        await it.http.post(
            f"{WEBHOOKS}/entities/anything/deep?op=x", content=DEEP[2:-2], headers=json
        )
        await it.ended("deep")
        await it.reaches_state("anything", "deep")
        answer = await it.http.get(path)

    assert answer.status_code == 200
    assert DEEP[2:-2] in answer.content
