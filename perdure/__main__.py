"""The command ``perdure``, also ``python -m perdure``."""

from __future__ import annotations

import gc
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's; gives the exit status."""
    is_enabled = gc.isenabled()
    gc.disable()  # to load modules makes many objects and no garbage; what works turns it on again
    try:
        from .adapters.cli.command import main as run

        return run(arguments)
    finally:
        if is_enabled:
            gc.enable()


if __name__ == "__main__":
    raise SystemExit(main())
