"""``perdure doctor``: what is wrong, or may become so, with the server of a hub."""

from __future__ import annotations

from typing import Any

import typer

from .options import AsJson

FAILED = 1


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command."""
    example = "Example: perdure doctor postgresql://db/shop?schema=shop"
    app.command("doctor", cls=kind, epilog=example)(doctor)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Examine the PostgreSQL server of a hub.

    Says what loses work or does not run (error), what will hurt (warning) and what is good to know
    (note), the worst first, each with what to do. Nothing is changed. Ends with status 1 where
    there is an error. Needs no hub that runs.
    """
    import anyio
    from rich.text import Text

    from perdure import UsageError

    from .hubs import choose_hub, is_database, shown
    from .screen import Screen

    place = choose_hub(context.obj)
    if not is_database(place):
        raise UsageError(
            f"{shown(place)} is not in PostgreSQL: give its address, postgresql://HOST/DATABASE"
        )
    from ...storage.postgres.doctor import examine

    screen = Screen(as_json=as_json)
    findings = anyio.run(examine, place)
    for one in findings:
        if as_json:
            screen.json({"severity": one.severity, "what": one.what, "advice": one.advice})
            continue
        screen.line(Text(one.severity, style=_STYLES[one.severity]), f": {one.what}")
        if one.advice:
            screen.line(one.advice, indent="  ")
    if not findings and not as_json:
        screen.line(f"nothing is wrong with {shown(place)}")
    if any(one.severity == "error" for one in findings):
        raise typer.Exit(FAILED)


_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
