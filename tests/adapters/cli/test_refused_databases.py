"""Databases that are no hub's, or not this one's: one clear line each, no password, nothing changed."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.storage.postgres.server import Server
from tests.adapters.cli.shop import Ended, Run
from tests.postgres import SETTINGS, ask, versions

APP = "tests.adapters.cli.shop:app"
SECRET = "hush-hush-7"

Admin = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that lets in who knows the password, with users who may do less than others."""
    if not versions():
        pytest.skip("no binaries of PostgreSQL are on this machine")
    folder = Path(tempfile.mkdtemp(prefix="perdure-postgres-"))
    made = Server(folder, versions()[0], settings=SETTINGS, with_password=True, throw_away=True)
    made.start()
    try:
        sql(made.dsn, f"CREATE ROLE poor LOGIN PASSWORD '{SECRET}'")
        sql(made.dsn, f"CREATE ROLE reader LOGIN SUPERUSER PASSWORD '{SECRET}'")
        sql(made.dsn, "ALTER ROLE reader SET default_transaction_read_only = on")
        yield made
    finally:
        made.close()


def sql(dsn: str, statement: str) -> Any:
    return asyncio.run(ask(dsn, statement))


def at(server: Server, schema: str, user: str | None = None, secret: str = SECRET) -> str:
    """Give a place on the server, of the user who may do anything or of another one."""
    where = server.dsn if user is None else f"postgresql://{user}:{secret}@{_address(server)}"
    return f"{where}?schema={schema}&durability=relaxed"


def _address(server: Server) -> str:
    return server.dsn.rpartition("@")[2]


def password_of(place: str) -> str:
    return place.partition("@")[0].rpartition(":")[2]


@pytest.fixture
def hub(server: Server, run: Run) -> Iterator[str]:
    """The schema of a hub that nobody serves."""
    from perdure import App, Hub

    schema = "shop_of_tests"

    async def make() -> None:
        async with Hub(App("shop"), store=at(server, schema), partitions=4):
            pass

    asyncio.run(make())
    yield schema
    sql(server.dsn, f"DROP SCHEMA {schema} CASCADE")


def refused(ended: Ended, status: int, says: str, place: str) -> None:
    """See that a command ended in one line that says why, and no password."""
    assert (ended.status, ended.out) == (status, ""), ended
    assert ended.err.startswith("perdure: "), ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert says in ended.err
    if "@" in place:
        assert password_of(place) not in ended.err


def serve(run: Run, place: str, *more: str) -> Ended:
    return run("serve", APP, "--store", place, *more)


def everywhere(run: Run, place: str) -> list[Ended]:
    """Ask for a hub in each of the ways that there are."""
    return [
        run("nodes", place),
        run("list", place),
        run("start", place, "double", "4"),
        serve(run, place),
    ]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("postgresql://shop:hush-hush-7@127.0.0.1:port/shop", "is no address of a database"),
        ("postgresql://shop:hush-hush-7@127.0.0.1/shop?schema=pg_shop", "schema must have"),
        ("postgresql://shop:hush-hush-7@127.0.0.1/shop?durability=some", "durability must be"),
        ("postgresql://shop:hush-hush-7@127.0.0.1/shop?pooled=yes", "pooled must be 0 or 1"),
    ],
)
def test_an_address_that_is_none_is_refused(run: Run, place: str, says: str) -> None:
    for ended in everywhere(run, place):
        refused(ended, 2, says, place)


def test_a_server_that_is_not_there_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place = f"postgresql://shop:{SECRET}@127.0.0.1:{port}/shop"

    for ended in everywhere(run, place):
        refused(ended, 1, "cannot be reached", place)


def test_a_wrong_password_and_an_unknown_user_are_told(run: Run, server: Server) -> None:
    for place in (at(server, "shop", "poor", "wrong-word"), at(server, "shop", "nobody-here")):
        for ended in everywhere(run, place):
            refused(ended, 1, "refuses the user or the password", place)


def test_a_database_that_is_not_there_is_told(run: Run, server: Server) -> None:
    place = at(server, "shop").replace("/postgres?", "/nothing-here?")

    for ended in everywhere(run, place):
        refused(ended, 1, "make the database, or name another", place)


def test_missing_rights_are_told_and_nothing_is_made(run: Run, server: Server) -> None:
    place = at(server, "poors", "poor")

    refused(serve(run, place), 1, "the user needs CREATE on the database", place)
    assert sql(server.dsn, "SELECT to_regnamespace('poors') IS NULL")


def test_missing_rights_on_a_hub_are_told(run: Run, server: Server, hub: str) -> None:
    place = at(server, hub, "poor")

    for ended in everywhere(run, place):
        refused(ended, 1, "all rights on what is in it", place)


def test_a_server_that_takes_no_writes_is_not_served_from(
    run: Run, server: Server, hub: str
) -> None:
    place = at(server, hub, "reader")

    refused(serve(run, place), 1, "give the address of the primary", place)
    assert run("nodes", place).status == 0
    assert sql(server.dsn, f"SELECT count(*) FROM {hub}.member") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("schema_version = 99", "has schema version 99, of a newer Perdure"),
        ("app = 'bank'", "is the hub of application 'bank', not of 'shop'"),
    ],
)
def test_a_hub_of_another_kind_is_not_served(
    change: str, says: str, run: Run, server: Server, hub: str
) -> None:
    sql(server.dsn, f"UPDATE {hub}.hub SET {change}")
    row = sql(server.dsn, f"SELECT hub::text FROM {hub}.hub")
    place = at(server, hub)

    refused(serve(run, place), 1, says, place)

    assert sql(server.dsn, f"SELECT hub::text FROM {hub}.hub") == row
    assert sql(server.dsn, f"SELECT count(*) FROM {hub}.member") == 0


def test_a_full_disk_is_told_and_nothing_is_changed(run: Run, server: Server, hub: str) -> None:
    place = at(server, hub)
    sql(
        server.dsn,
        f"CREATE FUNCTION {hub}.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE"
        " EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$",
    )
    sql(
        server.dsn,
        f"CREATE TRIGGER full_disk BEFORE INSERT ON {hub}.member EXECUTE FUNCTION {hub}.full_disk()",
    )

    refused(serve(run, place), 1, "no space left for", place)

    assert sql(server.dsn, f"SELECT count(*) FROM {hub}.member") == 0


def test_another_number_of_partitions_is_refused(run: Run, server: Server, hub: str) -> None:
    place = at(server, hub)

    refused(serve(run, place, "--partitions", "8"), 1, "(perdure serve --partitions 4)", place)
    assert sql(server.dsn, f"SELECT count(*) FROM {hub}.partition") == 4


def test_a_schema_with_something_else_in_it_is_left_alone(run: Run, server: Server) -> None:
    sql(server.dsn, "CREATE SCHEMA other CREATE TABLE things (n int)")
    place = at(server, "other")
    try:
        refused(serve(run, place), 1, "has something else in it", place)
        assert (
            sql(
                server.dsn,
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace",
            )
            == 1
        )
    finally:
        sql(server.dsn, "DROP SCHEMA other CASCADE")


def test_the_doctor_says_what_is_wrong_and_what_to_do(run: Run, server: Server, hub: str) -> None:
    place = at(server, hub)
    strict = place.replace("&durability=relaxed", "")

    relaxed, told, strictly = (
        run("doctor", place),
        run("doctor", place, "--json"),
        run("doctor", strict),
    )
    unread = run("doctor", at(server, hub, "reader"))

    assert relaxed.status == 0
    assert "warning: fsync is off" in relaxed.out
    assert "  set fsync = on" in relaxed.out
    assert {"severity", "what", "advice"} == told.values[0].keys()
    assert strictly.status == 1
    assert "error: fsync is off" in strictly.out
    assert unread.status == 1
    assert "give the address of the primary" in unread.out
    for ended in (relaxed, told, strictly, unread):
        assert password_of(place) not in ended.out + ended.err


def test_the_doctor_is_not_called_to_what_is_no_database(run: Run, stopped: str) -> None:
    sick = run("doctor", f"postgresql://shop:{SECRET}@127.0.0.1:1/shop")
    elsewhere = run("doctor", stopped)

    assert sick.status == 1
    assert "cannot be reached" in sick.out
    assert SECRET not in sick.out + sick.err
    assert elsewhere.status == 2
    assert "is not in PostgreSQL" in elsewhere.err
