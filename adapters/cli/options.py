"""What commands have in common: their options, how they reach a hub, and what they ask first."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .words import in_one_line

if TYPE_CHECKING:
    from .screen import Screen

#: Asks an operation by name, with JSON values.
Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        "--node-key-file",
        help="The key for a hub's HTTP interface is in this file; by default in PERDURE_KEY. Of a "
        "hub on PostgreSQL, the key that its nodes were given.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether that is meant.")]
InstanceId = Annotated[str, typer.Argument(metavar="ID", help="The instance.")]
Actor = Annotated[str, typer.Argument(metavar="ID", help="The instance, or entity: @name@key.")]
EntityArgument = Annotated[str, typer.Argument(metavar="@NAME@KEY", help="The entity.")]
Input = Annotated[
    str | None,
    typer.Argument(
        metavar="[JSON]", help="The input, as JSON; - reads it from stdin.", show_default=False
    ),
]
Reason = Annotated[str, typer.Option(help="Why; its status and history say it.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="May be repeated.")
]


def run(
    context: typer.Context,
    work: Callable[[Ask, Screen], Awaitable[None]],
    *,
    reads: bool = False,
    as_json: bool = False,
    key_file: Path | None = None,
    app: str | None = None,
) -> None:
    """Do the work of a command with the hub that is meant."""
    import anyio

    from .hubs import choose_hub, keys_of, reach
    from .screen import Screen

    place, screen = choose_hub(context.obj), Screen(as_json=as_json)
    keys = keys_of(place, key_file)

    async def main() -> None:
        async with reach(place, keys, reads=reads, app=app) as client:
            gc.enable()  # all that is needed is loaded
            await work(client.ask, screen)

    anyio.run(main)


def read_json(text: str | None, what: str = "the input") -> dict[str, Any]:
    """Give the argument that has a JSON value in it, or none: by its name, for an operation.

    Raises:
        UsageError: it is not JSON.
    """
    if text is None:
        return {}
    import orjson

    from perdure import UsageError

    given = sys.stdin.read() if text == "-" else text
    try:
        return {"input": orjson.loads(given)}
    except ValueError as error:
        hint = "" if text == "-" else f"; a text needs quotes of its own: '\"{given}\"'"
        raise UsageError(
            f"{what} must be JSON, and {given[:80]!r} is not ({error}){hint}"
        ) from None


def read_tags(given: list[str] | None) -> dict[str, str] | None:
    """Read ``KEY=VALUE`` texts; None for none of them.

    Raises:
        UsageError: one is not such a text.
    """
    tags: dict[str, str] = {}
    for tag in given or ():
        name, separator, value = tag.partition("=")
        if not separator:
            from perdure import UsageError

            raise UsageError(f"--tag takes KEY=VALUE, such as team=blue, not {tag!r}")
        tags[name] = value
    return tags or None


def given(**values: Any) -> dict[str, Any]:
    """Give the values that are there."""
    return {name: value for name, value in values.items() if value is not None}


def new_request_id() -> str:
    """Make an id for a request, so that it is applied once also where its answer is lost."""
    import uuid

    return uuid.uuid4().hex


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether something is meant that cannot be taken back.

    Raises:
        UsageError: nobody can be asked.
        typer.Abort: it is not meant.
    """
    if yes:
        return
    question = in_one_line(question)
    if not sys.stdin.isatty():
        from perdure import UsageError

        raise UsageError(f"{question} Nobody can be asked here: say so with --yes")
    typer.confirm(question, abort=True)
