"""The command ``perdure``, also ``python -m perdure``: reads what is wanted, and has it done."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from perdure import __version__

from . import (
    bench,
    check,
    dev,
    dev_postgres,
    doctor,
    entities,
    instances,
    manage,
    migrate,
    new,
    nodes,
    serve,
    shards,
)
from .words import in_lines, in_one_line

#: What a command ends with.
FAILED, USAGE, NOT_FOUND, NO_HUB, TIMED_OUT, UNWRITTEN = 1, 2, 3, 4, 5, 6

#: What a write says where there is no room or no device for it.
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


_HUB = (
    "sqlite:PATH, postgresql://HOST/DATABASE, http://HOST:PORT or a socket.  [default: PERDURE_HUB, "
    "or the one in ./.perdure]"
)


class HubCommand(TyperCommand):
    """A command that is about a hub, which may be its first argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; where there is one too many, it may have been meant as the hub."""
        try:
            arguments: list[str] = super().parse_args(ctx, args)
        except Exception as error:  # typer has a click of its own, or not
            message = getattr(error, "message", None)
            if ctx.obj is None and isinstance(message, str) and "extra argument" in message:
                told: Any = error
                told.message = (
                    f"{message}; a hub is sqlite:PATH, the folder of one, "
                    "postgresql://HOST/DATABASE, http://HOST:PORT or a socket"
                )
            raise
        return arguments

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Give what it takes, for its usage line."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [options, "[HUB]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what it takes into its help: the hub first, as it is given."""
        with formatter.section("Hub"):
            formatter.write_dl([("[HUB]", _HUB)])
        super().format_options(ctx, formatter)


class Commands(TyperGroup):
    """All commands: finds the hub among their arguments, and ends with a status that says why."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, and take the hub out of its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, HubCommand):
            at = _first_argument(command, rest)
            if at is not None:
                from .hubs import is_hub

                if is_hub(rest[at]):
                    ctx.obj = rest[at]
                    rest = [*rest[:at], *rest[at + 1 :]]
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Do what a command says; what goes wrong is told in a line."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            status = _status_of(error)
            if status is None:
                raise
            sys.stdout.flush()
            typer.echo(f"perdure: {in_lines(str(error))}", err=True)
            raise typer.Exit(status) from None


def _first_argument(command: Any, arguments: Sequence[str]) -> int | None:
    """Give the place of the first argument that is no option, nor an option's value."""
    takes_value = {
        name
        for option in command.params
        if option.param_type_name == "option" and not option.is_flag and not option.count
        for name in option.opts
    }
    at = 0
    while at < len(arguments):
        argument = arguments[at]
        if argument == "--":
            return at + 1 if at + 1 < len(arguments) else None
        if not argument.startswith("-") or argument == "-":
            return at
        at += 2 if argument in takes_value else 1
    return None


def _status_of(error: Exception) -> int | None:
    """Give the status that a failure ends the command with; None of one that is a bug."""
    import perdure

    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if not isinstance(error, perdure.PerdureError):
        return None
    kinds: tuple[tuple[int, tuple[type[Exception], ...]], ...] = (
        (NOT_FOUND, (perdure.InstanceNotFoundError, perdure.UnknownNameError)),
        (
            FAILED,  # well said, and refused for what there is
            (
                perdure.InstanceAlreadyExistsError,
                perdure.InstanceFinishedError,
                perdure.InstanceNotFinishedError,
                perdure.RequestIdReusedError,
                perdure.RewindError,
                perdure.ForkError,
                perdure.MailboxFullError,
            ),
        ),
        (USAGE, (perdure.UsageError,)),
        (NO_HUB, (perdure.UnavailableError,)),
    )
    return next((status for status, some in kinds if isinstance(error, some)), FAILED)


app = typer.Typer(
    cls=Commands,
    name="perdure",
    help="Durable virtual actors. The hub is the first argument of a command (sqlite:PATH, "
    "postgresql://HOST/DATABASE, http://HOST:PORT or a socket), or PERDURE_HUB, or the one in ./.perdure.",
    epilog="Status: 0 done, 1 refused or failed, 2 usage, 3 not found, 4 no hub, 5 timed out, 6 output not written.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perdure {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


_MODULES = (
    serve,
    dev,
    dev_postgres,
    new,
    check,
    instances,
    entities,
    manage,
    shards,
    nodes,
    migrate,
    doctor,
    bench,
)
for _module in _MODULES:
    _module.add_to(app, HubCommand)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for argument in given:
        if not argument.isascii() and any("\ud800" <= one <= "\udfff" for one in argument):
            # Bytes that are no UTF-8; no name and no value could have them.
            print(f"perdure: {in_one_line(argument)} is no text in UTF-8", file=sys.stderr)
            return USAGE
    try:
        status = _run(given)
        print(end="", flush=True)  # while what it cannot write can still be told
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads has seen enough
            _drop_output()
            return FAILED
        if error.errno not in _NOT_WRITTEN:
            raise
        _drop_output()
        print(
            f"perdure: not all that this writes could be written: {error.strerror}; what the "
            "command does may be done: make room, look, and run it again",
            file=sys.stderr,
        )
        return UNWRITTEN
    return status


@cache
def _commands() -> Any:
    # Made once: it takes longer than to find one among them.
    return typer.main.get_command(app)


def _run(arguments: Sequence[str]) -> int:
    try:
        _commands()(arguments, prog_name="perdure")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return FAILED
        return ended.code or 0
    return 0


def _drop_output() -> None:
    """Have what is not written yet go nowhere, or the interpreter tries it again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
