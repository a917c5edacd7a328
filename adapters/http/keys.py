"""Who may come in: keys, signing in, and what a browser may be used for by another page.

A key is a secret with a name, which is full or may only read. It is given as ``code=``, as the
header ``x-functions-key``, as ``Authorization: Bearer``, or, once signed in, by a cookie that holds
no secret. No key is ever logged, and all are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from attrs import field, frozen
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from perdure import UsageError

from .limits import Limits, read_body, read_json
from .paths import header
from .refusals import Refusal

#: Hosts by which nobody but this machine reaches it.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

VARIABLE = "PERDURE_KEYS"
COOKIE = "perdure-key"

#: How long a cookie signs in.
SIGNED_IN_S = 12 * 3600

#: Bytes of what signs in: whoever has no key yet must not make the server read much.
_SIGN_IN_BYTES_MAX = 8 * 1024

_WORD = re.compile(r"[!-~]+")

READING = frozenset({"GET", "HEAD"})


@frozen
class Key:
    """A secret that lets in.

    Attributes:
        name: what the log calls it by.
        access: ``read`` for reading alone, or ``full``.
        secret: what the caller has to know.

    Raises:
        UsageError: the name or the secret is not in ASCII, or has spaces, or the access is another.
    """

    name: str
    access: Literal["read", "full"]
    secret: str = field(repr=False)

    def __attrs_post_init__(self) -> None:
        words = [word for word in (self.name, self.secret) if _WORD.fullmatch(str(word))]
        if len(words) < 2 or self.access not in ("read", "full"):
            raise UsageError(
                "a key is a name, 'read' or 'full', and a secret; name and secret are in ASCII, "
                "without spaces"
            )

    @property
    def may_write(self) -> bool:
        """Whether it lets more be done than look."""
        return self.access == "full"


class Keys:
    """The keys of a server: one at least, each with a name and a secret of its own.

    Raises:
        UsageError: there is none, or two have the same name or secret.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise UsageError("there is no key: give lines of the form NAME read|full SECRET")
        for what in ("name", "secret"):
            if len({getattr(key, what) for key in self._keys}) < len(self._keys):
                raise UsageError(f"two keys have the same {what}; give each one of its own")

    def __repr__(self) -> str:
        return f"Keys({', '.join(f'{key.name} {key.access}' for key in self._keys)})"

    @classmethod
    def parse(cls, text: str, where: str = "the keys") -> Keys:
        """Read lines ``NAME read|full SECRET``; empty ones and those with ``#`` first are skipped.

        Raises:
            UsageError: a line is none of these. It is named by its number, without what it says.
        """
        keys: list[Key] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            match words:
                case [name, ("read" | "full") as access, secret] if line.isascii():
                    keys.append(Key(name, access, secret))
                case _:
                    raise UsageError(
                        f"{where}, line {number}: the form is NAME read|full SECRET, the secret in "
                        "ASCII and without spaces"
                    )
        return cls(keys)

    @classmethod
    def of_file(cls, path: str | Path) -> Keys:
        """Read a file of such lines.

        Raises:
            UsageError: it cannot be read, or has no keys.
        """
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the key file {str(path)!r} cannot be read: {error}") from error
        return cls.parse(text, f"the key file {str(path)!r}")

    @classmethod
    def of_environment(cls) -> Keys | None:
        """Read the lines in ``PERDURE_KEYS``; None if that is not set."""
        text = os.environ.get(VARIABLE, "")
        return cls.parse(text, VARIABLE) if text.strip() else None

    def find(self, secret: str) -> Key | None:
        """Give the key that has this secret."""
        given = secret.encode("utf-8", "surrogateescape")
        return self._first(lambda key: hmac.compare_digest(key.secret.encode(), given))

    def ticket(self, key: Key, until: float) -> str:
        """Make what signs in as a key until a time, and tells nobody its secret."""
        said = f"{key.name}.{int(until)}"
        return f"{said}.{_seal(key, said)}"

    def redeem(self, ticket: str, now: float) -> Key | None:
        """Give the key that a ticket signs in as, if it is one and its time has not passed."""
        said, _, seal = ticket.rpartition(".")
        until = said.rpartition(".")[2]
        if not (seal and until.isdecimal() and int(until[:12]) > now):
            return None
        given = seal.encode("utf-8", "surrogateescape")
        return self._first(lambda key: hmac.compare_digest(_seal(key, said).encode(), given))

    def _first(self, fits: Callable[[Key], bool]) -> Key | None:
        """Give the one that fits, after a look at all, so that the time does not tell which."""
        found: Key | None = None
        for key in self._keys:
            if fits(key):
                found = key
        return found


def _seal(key: Key, said: str) -> str:
    return hmac.new(
        key.secret.encode(), f"perdure-sign-in:{said}".encode(), hashlib.sha256
    ).hexdigest()


class Guard:
    """What stands before everything else: Host, Origin, key.

    Args:
        keys: who may come in; None lets in whoever reaches the server.
        allowed_hosts: what the Host header may say, with any port or with one; ``*`` is anything.
    """

    def __init__(self, keys: Keys | None, allowed_hosts: Sequence[str]) -> None:
        self.keys = keys
        self._hosts = None if "*" in allowed_hosts else {one.lower() for one in allowed_hosts}

    def check_host(self, request: Request) -> None:
        """Refuse a host that is not ours: a page elsewhere may have its name lead here.

        Raises:
            Refusal: 421.
        """
        if self._hosts is None:
            return
        host = header(request.scope, b"host") or ""
        if _without_port(host) not in self._hosts and host.lower() not in self._hosts:
            raise Refusal(
                421,
                f"the Host header says {host[:100]!r}, and this server is not that: allow it "
                "with --allowed-host, or create_app(allowed_hosts=...)",
            )

    def check_origin(self, request: Request) -> None:
        """Refuse a write that a page of somewhere else has a browser make.

        Raises:
            Refusal: 403.
        """
        scope = request.scope
        if scope["method"] in READING:
            return
        origin, site = header(scope, b"origin"), header(scope, b"sec-fetch-site")
        if (site is not None and site.lower() == "cross-site") or (
            origin is not None and not _is_same(origin, header(scope, b"host") or "")
        ):
            raise Refusal(403, "a page of another origin may not change anything here")

    def check_key(self, request: Request) -> Key | None:
        """Give the key that a request has; None where none is needed.

        Raises:
            Refusal: 401 without one, 403 if it may only read and the request is more than that.
        """
        if self.keys is None:
            return None
        key = self.key_of(request, self.keys)
        if key is None:
            raise Refusal(
                401,
                "a key is needed, and this is none: give it as code=, as the header "
                "x-functions-key, or as Authorization: Bearer; perdure takes it in PERDURE_KEY, or "
                "with --key-file",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not (key.may_write or request.method in READING):
            raise Refusal(403, f"the key {key.name!r} may only read")
        return key

    @staticmethod
    def key_of(request: Request, keys: Keys) -> Key | None:
        """Give the key that a request has, wherever it says it."""
        secret = code_of(request) or header(request.scope, b"x-functions-key")
        if not secret:
            kind, _, secret = (header(request.scope, b"authorization") or "").partition(" ")
            secret = secret.strip() if kind.lower() == "bearer" else ""
        if secret:
            return keys.find(secret)
        ticket = _cookie(request)
        return keys.redeem(ticket, time.time()) if ticket else None


def code_of(request: Request) -> str | None:
    """Give the ``code=`` of a request's query."""
    if b"code=" not in request.scope.get("query_string", b""):
        return None
    return request.query_params.get("code")


def _cookie(request: Request) -> str | None:
    # Not by http.cookies, which reads none where one is malformed, such as another server's here.
    return request.cookies.get(COOKIE)


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _is_same(origin: str, host: str) -> bool:
    """Whether an Origin is that of the Host, whatever the scheme: a proxy may have ended TLS."""
    try:
        given = urlsplit(origin)
        port = given.port
    except ValueError:
        return False
    if given.scheme not in ("http", "https") or given.hostname is None:
        return False
    bare = f"[{given.hostname}]" if ":" in given.hostname else given.hostname
    usual = {"http": 80, "https": 443}[given.scheme]
    named = {f"{bare}:{port or usual}"} | ({bare} if port in (None, usual) else set[str]())
    return host.strip().lower() in named


def signed_in(request: Request, guard: Guard) -> Response:
    """Answer ``GET /sign-in``: the name of the key that a request has, and what that lets it do."""
    key = None if guard.keys is None else guard.key_of(request, guard.keys)
    told = {
        "needs_key": guard.keys is not None,
        "key": None if key is None else key.name,
        "may_read": guard.keys is None or key is not None,
        "may_write": guard.keys is None or (key is not None and key.may_write),
    }
    return JSONResponse(told, headers={"Cache-Control": "no-store"})


async def sign_in(request: Request, guard: Guard, limits: Limits) -> Response:
    """Answer ``POST /sign-in``: a form's or a JSON object's ``code`` becomes a cookie.

    A form is led to the root, and a script, which sends JSON, is told 204.

    Raises:
        Refusal: 401, where the code is no key's.
    """
    body = await read_body(request, limits, _SIGN_IN_BYTES_MAX)
    is_json = _is_json(request)
    secret: object
    if is_json:
        given = read_json(body)
        try:
            secret = given["code"]
        except (TypeError, LookupError):  # it is no object, or has none
            secret = None
    else:
        secret = dict(parse_qsl(body.decode("utf-8", "replace"))).get("code")
    response = _led_home(request, is_json)
    if guard.keys is None:
        return response  # nothing to sign in to
    key = guard.keys.find(secret) if isinstance(secret, str) and secret else None
    if key is None:
        raise Refusal(401, "this is no key", headers={"WWW-Authenticate": "Bearer"})
    ticket = guard.keys.ticket(key, time.time() + SIGNED_IN_S)
    _set_cookie(request, response, ticket, SIGNED_IN_S)
    return response


async def sign_out(request: Request) -> Response:
    """Answer ``POST /sign-out``: the cookie goes."""
    response = _led_home(request, _is_json(request))
    _set_cookie(request, response, "", 0)
    return response


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def _led_home(request: Request, is_json: bool) -> Response:
    if is_json:
        return Response(status_code=204)
    root = request.scope.get("root_path", "").rstrip("/")
    return Response(status_code=303, headers={"Location": f"{root}/"})


def _set_cookie(request: Request, response: Response, value: str, age: int) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=age,
        path=request.scope.get("root_path", "").rstrip("/") + "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
