"""Commands about entities: signal and call them, look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .instances import Since, pages
from .options import (
    AsJson,
    Ask,
    EntityArgument,
    Input,
    KeyFile,
    given,
    new_request_id,
    read_json,
    run,
)

if TYPE_CHECKING:
    from .screen import Screen

#: Seconds that one request waits for an answer, before the next one does.
_WAIT_S = 20.0

OperationName = Annotated[str, typer.Argument(metavar="OPERATION", help="Its operation.")]


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the commands."""

    def command(name: str, function: Any, example: str) -> None:
        app.command(name, cls=kind, epilog=f"Example: {example}")(function)

    command("signal", signal, "perdure signal sqlite:hub @counter@clicks add 5")
    command("call", call, "perdure call sqlite:hub @counter@clicks get --timeout 10")
    command("entities", list_entities, "perdure entities sqlite:hub --name counter")
    command("entity", show_entity, "perdure entity sqlite:hub @counter@clicks")


def signal(
    context: typer.Context,
    entity: EntityArgument,
    operation: OperationName,
    input: Input = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Not before: a time, or in 90s, 5m, 2h, 1d.", show_default="now"
        ),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Send an entity an operation, and do not wait for it."""
    from .words import read_when

    arguments = {
        "entity": entity,
        "operation": operation,
        **read_json(input),
        **given(at=None if at is None else read_when(at, "--at")),
        "request_id": new_request_id(),
    }

    async def work(ask: Ask, screen: Screen) -> None:
        done = await ask("signal", arguments)
        screen.json(done) if as_json else screen.line(f"sent {operation} to {entity}")

    run(context, work, as_json=as_json, key_file=key_file)


def call(
    context: typer.Context,
    entity: EntityArgument,
    operation: OperationName,
    input: Input = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="For how long to wait.", show_default="for ever"
        ),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Call an operation of an entity, and print its result."""
    arguments = {
        "entity": entity,
        "operation": operation,
        **read_json(input),
        "request_id": new_request_id(),
    }

    async def work(ask: Ask, screen: Screen) -> None:
        import anyio

        until = None if timeout is None else anyio.current_time() + timeout
        while True:
            left = (
                _WAIT_S if until is None else min(max(until - anyio.current_time(), 0.0), _WAIT_S)
            )
            answer = await ask("call", {**arguments, "wait": left})
            if answer["ended"]:
                screen.json(answer["result"])
                return
            if until is not None and anyio.current_time() >= until:
                raise TimeoutError(
                    f"no answer from {entity} {operation} within {timeout:g} seconds; it may still "
                    "be applied"
                )

    run(context, work, as_json=as_json, key_file=key_file)


def list_entities(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option(help="What kind of entity.", show_default=False)
    ] = None,
    key_prefix: Annotated[
        str | None,
        typer.Option("--key-prefix", "--prefix", help="What keys begin with.", show_default=False),
    ] = None,
    updated_from: Since = None,
    updated_to: Since = None,
    locked: Annotated[
        bool | None,
        typer.Option("--locked/--not-locked", help="Whether they are locked.", show_default=False),
    ] = None,
    parked: Annotated[
        bool | None,
        typer.Option("--parked/--not-parked", help="Whether they are parked.", show_default=False),
    ] = None,
    include_empty: Annotated[
        bool, typer.Option("--include-empty", help="Those without state, too.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many at the most; 0 for all.")] = 50,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show the entities that match every condition given."""
    from .words import read_since

    asked = given(name=name, key_prefix=key_prefix, locked=locked, parked=parked)
    for option, text in (("updated_from", updated_from), ("updated_to", updated_to)):
        if text is not None:
            asked[option] = read_since(text, f"--{option.replace('_', '-')}")
    asked["include_empty"] = include_empty

    async def work(ask: Ask, screen: Screen) -> None:
        items, more = await pages(ask, "entities", asked, limit)
        if as_json:
            screen.json(*items)
        else:
            _show_entities(screen, items)
        if more:
            screen.note(f"there are more than {limit:,}: --limit shows more of them")

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def _show_entities(screen: Screen, items: list[dict[str, Any]]) -> None:
    from .words import both, read_time, relative, shortened, utc_now, value

    if not items:
        screen.note("no entity is found")
        return
    now = utc_now()

    def rows(tell: Any, most: int) -> list[list[str]]:
        return [
            [
                one["entity_id"],
                "" if one["last_modified"] is None else tell(read_time(one["last_modified"]), now),
                _condition(one),
                shortened(value(one["state"]), most) if one["exists"] else "(no state)",
            ]
            for one in items
        ]

    headers = ("entity", "changed", "is", "state")
    screen.table(
        headers, rows(both, 400), rows(relative, 60), rows(relative, 24), rows(relative, 400)
    )


def _condition(one: dict[str, Any]) -> str:
    said = ["parked"] if one["parked"] is not None else []
    said += ["locked"] if one["locked_by"] is not None else []
    said += [f"{one['waiting']:,} waiting"] if one["waiting"] else []
    return ", ".join(said)


def show_entity(
    context: typer.Context,
    entity: EntityArgument,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show an entity: its state, its lock, its failed signals."""

    async def work(ask: Ask, screen: Screen) -> None:
        status = await ask("entity", {"entity": entity})
        if status is None:
            screen.note(f"perdure: there is no entity {entity}")
            raise typer.Exit(3)
        if as_json:
            screen.json(status)
            return
        from .words import both, counted, read_time, utc_now, value

        now, parked = utc_now(), status["parked"]
        changed, waiters = status["last_modified"], status["lock_waiter_count"]
        screen.fields(
            {
                "entity": status["entity_id"],
                "state": value(status["state"]) if status["exists"] else "(none)",
                "parked": None if parked is None else f"{parked['type']}: {parked['reason']}",
                "changed": None if changed is None else both(read_time(changed), now),
                "locked by": status["locked_by"],
                "waiters": f"{waiters:,}: {', '.join(status['lock_waiters'])}" if waiters else None,
                "waiting": counted(status["waiting"], "message") if status["waiting"] else None,
                "failed": counted(status["failed_signals"], "signal")
                if status["failed_signals"]
                else None,
            }
        )
        for one in status["failures"]:
            when = both(read_time(one["time"]), now)
            screen.line(
                f"{when} {one['operation']}: {one['error_type']}: {one['message']}", indent="  "
            )

    run(context, work, reads=True, as_json=as_json, key_file=key_file)
