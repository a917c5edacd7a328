"""Runs the suite from a checkout: ``python -m benchmarks hello``."""

from .command import main

if __name__ == "__main__":
    raise SystemExit(main())
