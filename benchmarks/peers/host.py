"""The process of one contender: ``python -m benchmarks.peers.host NAME FOLDER PROGRAMS SIZE``.

It writes one line of JSON to its standard output for each thing to tell, and runs in the environment
of its contender, where only the standard library and that contender's packages are installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from .contender import NotAvailableError, Place, contender_class
from .measure import LOADS, Course, Size, WrongOutcomeError

Tell = Callable[[str, object], None]


async def attend(name: str, place: Place, size: Size, tell: Tell) -> None:
    """Run all loads on a contender, and tell what happens as it does.

    Raises:
        NotAvailableError: the contender cannot run here.
        WrongOutcomeError: it did something else than what was asked.
    """
    contender = contender_class(name)()
    try:
        tell("version", await contender.start(place))
        course = Course(contender, size)
        for load, run in LOADS.items():
            tell("begins", load)
            tell("figure", asdict(await run(course)))
    finally:
        await contender.stop()


def first_cause(error: BaseException) -> BaseException:
    """Give the first error inside groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def main(name: str, folder: str, programs: str, size: str) -> int:
    """Do what the arguments say; gives the exit status."""
    # What others print must not come between the lines of JSON.
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def tell(what: str, value: object) -> None:
        channel.write(json.dumps([what, value]) + "\n")

    options: dict[str, Any] = {}
    if find_spec("uvloop") is not None:
        from uvloop import new_event_loop

        options["loop_factory"] = new_event_loop
    place = Place(folder=Path(folder), programs=Path(programs))
    try:
        with asyncio.Runner(**options) as runner:
            runner.run(attend(name, place, Size(**json.loads(size)), tell))
    except (NotAvailableError, BaseExceptionGroup, WrongOutcomeError) as error:
        cause = first_cause(error)
        if isinstance(cause, NotAvailableError):
            tell("not available", str(cause))
        elif isinstance(cause, WrongOutcomeError):
            tell("wrong", str(cause))
        else:
            raise  # a bug, of ours or of the contender: where it is matters
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
