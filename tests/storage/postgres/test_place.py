"""Addresses of hubs on PostgreSQL: what is Perdure's in them, what asyncpg's, and what is shown."""

from __future__ import annotations

import pytest

from perdure.actors.errors import UsageError
from perdure.storage.postgres.place import read_place, without_password


def test_what_is_perdures_is_taken_out_and_the_rest_is_asyncpgs() -> None:
    place = read_place(
        "postgresql://me:secret@db:5433/shop?schema=till&pooled=1&durability=relaxed&ssl=require"
    )

    assert place.dsn == "postgresql://me:secret@db:5433/shop?ssl=require"
    assert (place.schema, place.pooled, place.relaxed) == ("till", True, True)
    assert place.control_dsn is None


def test_a_hub_that_names_no_schema_has_one() -> None:
    place = read_place("postgres:///shop?host=/var/run/postgresql")

    assert place.dsn == "postgres:///shop?host=%2Fvar%2Frun%2Fpostgresql"
    assert (place.quoted, place.pooled, place.relaxed) == ('"perdure"', False, False)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@db/shop",
        "postgresql://me@db/shop?password=secret",
        "postgresql://db/shop?sslpassword=secret&passfile=secret",
        "postgresql://db/shop?pooled=1&control_dsn=postgresql%3A%2F%2Fme%3Asecret%40db%2Fshop",
    ],
)
def test_no_password_is_shown(address: str) -> None:
    place = read_place(address)

    for shown in (place.location, without_password(address), repr(place)):
        assert "secret" not in shown
    assert read_place(place.location).schema == place.schema


def test_a_location_leads_to_the_same_schema() -> None:
    place = read_place("postgresql://db/shop?schema=a%2541%26b")

    assert place.schema == "a%41&b"
    assert read_place(place.location).schema == "a%41&b"
    assert read_place("postgresql://db/shop?schema=a%22b").quoted == '"a""b"'


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("mysql://db/shop", "must be the address of a database"),
        ("postgresql://db:port/shop", "no address of a database"),
        ("postgresql://db/shop?schema=", "schema must have 1 to 48 bytes"),
        ("postgresql://db/shop?schema=pg_shop", "not begin with pg_"),
        (f"postgresql://db/shop?schema={'x' * 49}", "schema must have 1 to 48 bytes"),
        ("postgresql://db/shop?pooled=yes", "pooled must be 0 or 1"),
        ("postgresql://db/shop?durability=low", "durability must be full or relaxed"),
        ("postgresql://db/shop?pooled=1&control_dsn=db", "control_dsn must be an address"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(address: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_place(address)
    with pytest.raises(UsageError) as refused:
        read_place(address.replace("://", "://me:secret@", 1))
    assert "secret" not in str(refused.value)
