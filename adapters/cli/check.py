"""``perdure check``: looks at code before it is deployed.

Without running it; or, with ``--replay``, by taking it through what a hub has stored.
"""

from __future__ import annotations

import gc
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import KeyFile

#: What the command ends with: nothing was found, something was, it could not look.
CLEAN, FOUND, UNREADABLE = 0, 1, 2


class Format(StrEnum):
    """How findings are shown."""

    text = "text"
    json = "json"
    github = "github"


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the command; it is about no hub, so its kind is another."""
    del kind
    example = (
        "Example: perdure check shop:app    perdure check src tests --ignore PDU020    "
        "perdure check --replay sqlite:hub shop:app"
    )
    app.command("check", epilog=example)(check)


def check(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:APP | FILES...",
            help="An application, with all of the project that it imports; or files and folders.",
        ),
    ],
    form: Annotated[
        Format, typer.Option("--format", help="For people, programs, or GitHub Actions.")
    ] = Format.text,
    select: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODES",
            help="Only these rules, such as PDU001,PDU002; ALL for every one.",
            show_default=False,
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="CODES", help="Not these rules.", show_default=False),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="STORE",
            help="Take what is stored through the code of MODULE:APP instead: of a hub that runs or "
            "not (sqlite:PATH, a folder, http://HOST:PORT, a socket), or recorded histories.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that replay.", show_default="as many as processors, up to 8"
        ),
    ] = None,
    limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the replay of one instance may take.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    key_file: KeyFile = None,
) -> None:
    """Look for what orchestrations and entities must not do.

    The clock, I/O, chance, and so on: docs/rules has a page for each rule. It
    reads the source and runs nothing of it. With --replay it takes the live instances of a hub
    through the code, and reads states by it, without effects: what would break is listed.

    Status: 0 nothing found, 1 something found, 2 it could not look.
    """
    if as_json:
        form = Format.json
    if replay is not None:
        gc.enable()
        raise typer.Exit(_replay(targets, replay, form, select or ignore, jobs, limit, key_file))
    _check_source(targets, form, select, ignore)


def _check_source(
    targets: list[str], form: Format, select: list[str] | None, ignore: list[str] | None
) -> None:
    """Check what is written, and end with the status that says what was found."""
    from ...testing.check.check import CheckError, check_app, check_files, chosen_rules
    from ...testing.check.output import counted, shown_path, trouble_text, written

    try:
        rules = chosen_rules(_codes(select), _codes(ignore))
        applications = [target for target in targets if _is_application(target)]
        if not applications:
            report = check_files(targets, rules)
        elif len(targets) == 1:
            report = check_app(targets[0], rules)
        else:
            raise CheckError("one MODULE:APP is checked at a time, without other files")
    except CheckError as error:
        from perdure import UsageError

        raise UsageError(str(error)) from None
    for line in written(report, form.value):
        print(line)
    for unseen in report.unseen:
        place = f"{shown_path(unseen.module.path)}:{unseen.line}"
        _note(f"{place}: what this registers cannot be seen in the source: {unseen.text}")
    for trouble in report.troubles:
        _note(trouble_text(trouble))
    if applications and not report.orchestrations + report.operations and not report.troubles:
        _note(f"nothing that {targets[0]} registers can be seen in the source: check its files")
        raise typer.Exit(UNREADABLE)
    if report.troubles:
        raise typer.Exit(UNREADABLE)
    if report.findings:
        raise typer.Exit(FOUND)
    if form is Format.text:
        print(
            f"Nothing found in {counted(report.orchestrations, 'orchestration')} and "
            f"{counted(report.operations, 'operation')} of entities "
            f"({counted(report.files, 'file')})."
        )


def _replay(
    targets: list[str],
    place: str,
    form: Format,
    codes: list[str] | None,
    jobs: int | None,
    limit_s: float,
    key_file: Path | None,
) -> int:
    from perdure import UsageError

    from .replaying import look

    if len(targets) != 1 or not _is_application(targets[0]):
        raise UsageError("--replay takes one application, MODULE:APP or FILE.py:APP")
    if codes:
        raise UsageError("--select and --ignore are for rules, and --replay has none")
    return look(place, targets[0], form.value, jobs=jobs, limit_s=limit_s, key_file=key_file)


def _codes(given: list[str] | None) -> list[str]:
    """Read codes, which may stand in one argument with commas between them."""
    return [code.strip().upper() for one in given or () for code in one.split(",") if code.strip()]


def _is_application(target: str) -> bool:
    module, colon, name = target.rpartition(":")
    return bool(colon and module) and name.isidentifier() and not Path(target).exists()


def _note(text: str) -> None:
    sys.stdout.flush()
    print(f"perdure: {text}", file=sys.stderr)
