"""``perdure nodes``: which processes serve a hub, and with which of its partitions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import AsJson, KeyFile
from .shards import seconds

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[HUB] [drain|undrain MEMBER]",
        help="Its database, address, socket, or store; and what one of them is to do.",
        show_default=False,
    ),
]
_ACTIONS = ("drain", "undrain")


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command and what it takes."""
    del kind  # the hub stands before or behind what is to be done
    example = "Example: perdure nodes postgresql://db/shop --watch"
    app.command("nodes", epilog=example)(nodes)


def nodes(
    words: Words = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", callback=seconds, help="Between looks.")
    ] = 1.0,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show which processes serve a hub, and with what.

    Of a hub on PostgreSQL the database alone is asked, so none of them has to run, and no key is
    needed. With 'drain MEMBER' one of them lets its partitions go to the others, and takes no
    more; with 'undrain MEMBER' it takes its share again.
    """
    from . import members
    from .hubs import choose_hub, keys_of

    hub, action, member = _read(words or [])
    place = choose_hub(hub)
    keys = keys_of(place, key_file)
    if action is not None:
        members.act(place, keys, action, member, as_json=as_json)
        return
    try:
        members.show(place, keys, interval_s=interval if watch else None, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _read(words: list[str]) -> tuple[str | None, str | None, int]:
    """Give the hub, what is to be done, and with which member.

    Raises:
        BadParameter: there is more, or less.
    """
    at = next((at for at, word in enumerate(words) if word in _ACTIONS), None)
    hubs = words if at is None else words[:at] + words[at + 2 :]
    if len(hubs) > 1:
        raise typer.BadParameter(
            f"{hubs[1]!r} is one argument too many: a hub, and drain MEMBER or undrain MEMBER, are "
            "all that is taken"
        )
    hub = hubs[0] if hubs else None
    if at is None:
        return hub, None, 0
    number = words[at + 1] if at + 1 < len(words) else ""
    if not (number.isascii() and number.isdecimal() and len(number) < 20):
        raise typer.BadParameter(f"{words[at]} takes the number of a member, not {number!r}")
    return hub, words[at], int(number)
