"""The command ``perdure``, also ``python -m perdure``."""

from .adapters.cli.command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
