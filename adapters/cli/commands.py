"""What a command of ``perdure`` is added to."""

from __future__ import annotations

import argparse
from typing import Protocol


class Commands(Protocol):
    """The commands of a parser, as ``argparse`` keeps them."""

    def add_parser(
        self,
        name: str,
        *,
        help: str | None = ...,  # noqa: A002 - the name that argparse gives it
        description: str | None = ...,
    ) -> argparse.ArgumentParser:
        """Add a command."""
        ...
