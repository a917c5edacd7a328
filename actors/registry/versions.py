"""Versions of an orchestration, and which is the higher."""

from __future__ import annotations

import re
from typing import Any

_PRE_RELEASES = {
    "dev": 0,
    "a": 1,
    "alpha": 1,
    "b": 2,
    "beta": 2,
    "c": 3,
    "rc": 3,
    "pre": 3,
    "preview": 3,
}


def version_key(version: str | None) -> tuple[Any, ...]:
    """Give what orders versions: numbers by value, pre-releases before the release.

    No version is the lowest. ``1.10`` is above ``1.9``, ``2.0rc1`` below ``2.0``, and ``2`` is
    as high as ``2.0``.
    """
    if version is None:
        return ((), (), "")
    parts = re.findall(r"\d+|[a-z]+", version.casefold().removeprefix("v"))
    count = next((i for i, part in enumerate(parts) if not part.isdecimal()), len(parts))
    release = [int(part) for part in parts[:count]]
    while release and release[-1] == 0:
        release.pop()
    rest = [_part_key(part) for part in parts[count:]]
    # The end of the shorter one lies between a pre-release and anything that follows.
    return (0, *release), (*rest, (1, 0, "")), version


def _part_key(part: str) -> tuple[int, int, str]:
    if part.isdecimal():
        return (2, int(part), "")
    if part in _PRE_RELEASES:
        return (0, _PRE_RELEASES[part], "")
    return (2, 0, part)
