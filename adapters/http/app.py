"""The ASGI application: which areas there are, and with what they are set up."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from perdure import Client, Hub, UsageError

from .api import Api
from .areas import Area, Health, Metrics, Nowhere, Readiness, SignIn, SignOut
from .entrance import Entrance
from .keys import LOOPBACK, Guard, Keys
from .limits import Limits
from .pages import PageFiles, Pages
from .webhooks import LOCAL_RPC, WEBHOOKS, Webhooks


def create_app(
    hub_or_client: Hub | Client,
    *,
    keys: Keys | None = None,
    allowed_hosts: Sequence[str] = LOOPBACK,
    expose_errors: bool = False,
    limits: Limits | None = None,
) -> Starlette:
    """Make the ASGI application in front of a hub, to serve as it is or to mount in another.

    It answers at ``/runtime/webhooks/durabletask`` and ``/durabletask`` as Durable Functions does,
    at ``/api/v1`` with all that a client can do (``docs/http.md``),
    at ``/healthz``, ``/readyz`` and ``/metrics``, and at ``/`` with the dashboard. Whoever has the hub starts and stops it, such as the
    lifespan of the application that this is mounted in; while it does not run, requests are
    answered with 503.

    Args:
        hub_or_client: the hub, or a client of it.
        keys: who may come in. None lets in whoever reaches the server: bind it to loopback then.
        allowed_hosts: what the Host header may say, without the port; ``*`` is anything.
        expose_errors: whether answers show the traceback of an unexpected error.
        limits: what a request may be.

    Raises:
        UsageError: a bad argument.
    """
    areas: list[Area] = [
        Webhooks(WEBHOOKS),
        Webhooks(LOCAL_RPC, unwraps=True),
        Api(expose_errors=expose_errors),
        Health(),
        Readiness(),
        Metrics(),
        SignIn(),
        SignOut(),
        PageFiles(),
        Pages(),
    ]
    return _application(hub_or_client, keys, allowed_hosts, expose_errors, limits, areas)


def create_local_rpc(
    hub_or_client: Hub | Client, *, expose_errors: bool = False, limits: Limits | None = None
) -> Starlette:
    """Make the application for language SDKs alone, which send no key: for a loopback listener.

    It answers under ``/durabletask`` only, as a Functions host does on its local endpoint.

    Raises:
        UsageError: a bad argument.
    """
    areas: list[Area] = [Webhooks(LOCAL_RPC, unwraps=True), Nowhere()]
    return _application(hub_or_client, None, LOOPBACK, expose_errors, limits, areas)


def _application(
    hub_or_client: Hub | Client,
    keys: Keys | None,
    allowed_hosts: Sequence[str],
    expose_errors: bool,
    limits: Limits | None,
    areas: Sequence[Area],
) -> Starlette:
    _check_kinds(hub_or_client, keys, allowed_hosts)
    entrance = Entrance(
        hub_or_client,
        Guard(keys, allowed_hosts),
        Limits() if limits is None else limits,
        areas,
        expose_errors=expose_errors,
    )
    app = _Application(routes=[entrance])
    app.state.entrance = entrance
    return app


class _Application(Starlette):
    """One whose requests go straight to the entrance, unless somebody has put something before it.

    Starlette's own layers route, and catch what is raised; the entrance does both by itself.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.user_middleware:
            scope["app"] = self
            entrance: Entrance = self.state.entrance
            await entrance.handle(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _check_kinds(hub_or_client: object, keys: object, allowed_hosts: object) -> None:
    if not isinstance(hub_or_client, (Hub, Client)):
        raise UsageError("hub_or_client must be a perdure.Hub or a perdure.Client")
    if keys is not None and not isinstance(keys, Keys):
        raise UsageError("keys must be a perdure.adapters.http.Keys, or None")
    if isinstance(allowed_hosts, str):
        raise UsageError("allowed_hosts must be a list of hosts, not one text")
