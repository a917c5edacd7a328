"""What has to be installed for HTTP; nothing of that is imported here."""

from __future__ import annotations

from importlib import import_module

from perdure import UsageError

SERVING = ("starlette", "uvicorn", "hypercorn")


def check_packages(*names: str) -> None:
    """Refuse to go on without a package.

    Raises:
        UsageError: one is missing; it says what to install.
    """
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"HTTP needs the package {error.name}: pip install 'perdure[web]'"
            ) from error
