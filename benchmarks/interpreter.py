"""Says which build of Python measures: an optimised one is up to 1.6 times as fast."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import sysconfig
from collections.abc import Mapping
from typing import Any


def interpreter_words() -> str:
    """Say the interpreter's name and version, how it was optimised, and whether it has the GIL."""
    name = f"{platform.python_implementation()} {platform.python_version()}"
    variables = sysconfig.get_config_vars()
    # Before 3.13 there was no way to be without it.
    has_gil: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{name}, {build_words(variables)}, {gil_words(variables, has_gil=has_gil)}"


def build_words(variables: Mapping[str, Any]) -> str:
    """Say how a Python was optimised, by the variables that its build has left in ``sysconfig``.

    A distribution may build by rules of its own, and leave none.
    """
    configured = variables.get("CONFIG_ARGS")
    if configured is None:
        return "which does not say how it was built"
    flags = f"{configured} {variables.get('PY_CFLAGS', '')} {variables.get('PY_LDFLAGS', '')}"
    by_profile = "--enable-optimizations" in flags or "-fprofile-use" in flags
    by_linker = "-flto" in flags or ("--with-lto" in flags and "--with-lto=no" not in flags)
    if by_profile:
        return "an optimised build (PGO and LTO)" if by_linker else "an optimised build (PGO)"
    if by_linker:
        return "built with LTO and without --enable-optimizations"
    return "configured without --enable-optimizations and LTO"


def gil_words(variables: Mapping[str, Any], *, has_gil: bool) -> str:
    """Say whether threads of a Python run side by side."""
    if not variables.get("Py_GIL_DISABLED"):
        return "with the GIL"
    return "free-threaded, with the GIL turned on" if has_gil else "free-threaded"


def loop_words(backend: str, *, uvloop: bool) -> str:
    """Name an event loop, with its version if it is not Python's own."""
    if uvloop:
        return f"uvloop {importlib.metadata.version('uvloop')}"
    if backend == "trio":
        return f"trio {importlib.metadata.version('trio')}"
    return backend
