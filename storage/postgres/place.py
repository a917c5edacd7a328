"""Where a hub on PostgreSQL is: the DSN, and what in it is Perdure's own."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from attrs import field, frozen

from ...actors.errors import UsageError

SCHEMES: Final = ("postgresql://", "postgres://")
"""How a place begins that is one of PostgreSQL."""

SCHEMA: Final = "perdure"
"""The schema of a hub that names none."""

_OWN: Final = ("schema", "pooled", "control_dsn", "durability")
_NAME_MAX: Final = 48  # of 63 bytes, since names of channels begin with it


@frozen
class Place:
    """A hub's schema in a database.

    Attributes:
        dsn: what asyncpg connects by, with the password if one was given.
        location: the place as a spec, without the password.
        schema: the hub's.
        pooled: whether a pooler lies between, so that no session can be relied on.
        control_dsn: what the control session connects by, where that is something else.
        relaxed: whether a server may be used that does not sync its commits.
    """

    dsn: str = field(repr=False)
    location: str
    schema: str
    pooled: bool = False
    control_dsn: str | None = field(default=None, repr=False)
    relaxed: bool = False

    @property
    def quoted(self) -> str:
        """The schema as SQL has it."""
        return '"' + self.schema.replace('"', '""') + '"'


def read_place(spec: str) -> Place:
    """Read ``postgresql://user@host:port/database?schema=NAME``, with asyncpg's options.

    Raises:
        UsageError: it is none.
    """
    if not spec.startswith(SCHEMES):
        shown = without_password(spec) if "://" in spec else spec
        raise UsageError(
            "spec must be the address of a database, as 'postgresql://user@host:port/database', "
            f"not {shown[:200]!r}"
        )
    try:
        parts = urlsplit(spec)
        _ = parts.port
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise UsageError(
            f"{without_password(spec)!r} is no address of a database: {error}"
        ) from None
    own = {name: value for name, value in given if name in _OWN}
    rest = [(name, value) for name, value in given if name not in _OWN]
    place = Place(
        dsn=_with(parts, rest, parts.netloc),
        location=_with(parts, [*map(_shown, filter(_is_open, given))], _open(parts.netloc)),
        schema=_schema(own.get("schema", SCHEMA)),
        pooled=_is_on(own.get("pooled", "0")),
        control_dsn=own.get("control_dsn"),
        relaxed=_is_relaxed(own.get("durability", "full")),
    )
    if place.control_dsn is not None and not place.control_dsn.startswith(SCHEMES):
        raise UsageError("control_dsn must be an address as 'postgresql://...', percent-encoded")
    return place


def without_password(spec: str) -> str:
    """Give an address as it may be shown."""
    try:
        parts = urlsplit(spec)
        given = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return spec.partition("://")[0] + "://..."
    return _with(parts, [*map(_shown, filter(_is_open, given))], _open(parts.netloc))


def _is_open(option: tuple[str, str]) -> bool:
    return option[0] not in ("password", "passfile", "sslpassword")


def _shown(option: tuple[str, str]) -> tuple[str, str]:
    name, value = option
    return name, without_password(value) if name == "control_dsn" else value


def _with(parts: SplitResult, query: list[tuple[str, str]], netloc: str) -> str:
    # urlunsplit() drops the slashes where there is no host.
    options = "?" + urlencode(query, quote_via=quote) if query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{options}"


def _open(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    return user.partition(":")[0] + at + host


def _schema(name: str) -> str:
    if not name or len(name.encode()) > _NAME_MAX or "\0" in name or name.startswith("pg_"):
        raise UsageError(
            f"schema must have 1 to {_NAME_MAX} bytes and not begin with pg_, not {name!r}"
        )
    return name


def _is_on(value: str) -> bool:
    if value not in ("0", "1"):
        raise UsageError(f"pooled must be 0 or 1, not {value!r}")
    return value == "1"


def _is_relaxed(value: str) -> bool:
    if value not in ("full", "relaxed"):
        raise UsageError(f"durability must be full or relaxed, not {value!r}")
    return value == "relaxed"
