"""The way in over HTTP: an ASGI application in front of a hub, to serve alone or to mount."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import create_app
    from .family import client_binding
    from .keys import Key, Keys
    from .limits import Limits
    from .server import Address, ServerOptions, listen

__all__ = [
    "Address",
    "Key",
    "Keys",
    "Limits",
    "ServerOptions",
    "client_binding",
    "create_app",
    "listen",
]

_HOMES = {
    "Address": ".server",
    "Key": ".keys",
    "Keys": ".keys",
    "Limits": ".limits",
    "ServerOptions": ".server",
    "client_binding": ".family",
    "create_app": ".app",
    "listen": ".server",
}

# Type checkers go by the imports above, and would believe in any name if they saw this.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from perdure import UsageError

        from .packages import check_packages

        try:
            check_packages("starlette")
        except UsageError as error:
            raise ImportError(str(error)) from error
        home = import_module(_HOMES[name], __name__)
        globals()[name] = value = getattr(home, name)  # so that it is asked for once
        return value
