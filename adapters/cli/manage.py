"""Commands that change the course of instances: end, suspend, take back, delete; and what is parked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .instances import OrchestrationName, Prefix, Since, Statuses, conditions, pages
from .options import (
    Actor,
    AsJson,
    Ask,
    InstanceId,
    KeyFile,
    Reason,
    Tags,
    Yes,
    confirm,
    given,
    new_request_id,
    run,
)

if TYPE_CHECKING:
    from .screen import Screen

Recursive = Annotated[
    bool, typer.Option("--recursive/--not-recursive", help="With its children, and theirs.")
]
_ENDED = ["Completed", "Failed", "Terminated", "Canceled"]
_LIVE = ["Pending", "Running", "Suspended", "ContinuedAsNew"]


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the commands."""

    def command(name: str, function: Any, example: str) -> None:
        app.command(name, cls=kind, epilog=f"Example: {example}")(function)

    command("cancel", cancel, "perdure cancel sqlite:hub order-7 --reason 'the customer called'")
    command("terminate", terminate, "perdure terminate sqlite:hub order-7 --yes")
    command("suspend", suspend, "perdure suspend sqlite:hub order-7 --reason audit")
    command("resume", resume, "perdure resume sqlite:hub order-7")
    command("rewind", rewind, "perdure rewind sqlite:hub order-7")
    command("restart", restart, "perdure restart sqlite:hub order-7 --same-id")
    command("fork", fork, "perdure fork sqlite:hub order-7 --at 12 --id order-7b")
    command("purge", purge, "perdure purge sqlite:hub --status Completed --completed-to 30d")
    command("parked", parked, "perdure parked sqlite:hub")
    command("retry", retry, "perdure retry sqlite:hub order-7")


def _do(
    context: typer.Context,
    operation: str,
    arguments: dict[str, Any],
    said: str,
    *,
    as_json: bool,
    key_file: Any,
) -> None:
    async def work(ask: Ask, screen: Screen) -> None:
        done = await ask(operation, arguments)
        screen.json(done) if as_json else screen.line(said.format(**done))

    run(context, work, as_json=as_json, key_file=key_file)


def _with_reason(operation: str, done: str, what: str) -> Any:
    """Make the command for an operation that takes an instance and a reason, and nothing else.

    Args:
        operation: the operation.
        done: what is said of it afterwards.
        what: what it does, for the help.
    """

    def command(
        context: typer.Context,
        id: InstanceId,
        reason: Reason = "",
        as_json: AsJson = False,
        key_file: KeyFile = None,
    ) -> None:
        arguments = {"instance_id": id, "reason": reason}
        said = f"{done} {_shown(id)}"
        _do(context, operation, arguments, said, as_json=as_json, key_file=key_file)

    command.__doc__ = what
    return command


cancel = _with_reason(
    "cancel", "cancelled", "Throw Cancelled into an instance, which may clean up."
)
suspend = _with_reason("suspend", "suspended", "Let an instance take no turns until it is resumed.")
resume = _with_reason("resume", "resumed", "Let a suspended instance go on.")


def _shown(id: str) -> str:
    return id.replace("{", "{{").replace("}", "}}")


def terminate(
    context: typer.Context,
    id: InstanceId,
    reason: Reason = "",
    recursive: Recursive = True,
    yes: Yes = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """End an instance without running its code again."""
    confirm(f"Terminate {id}, without any cleaning up?", yes=yes)
    arguments = {"instance_id": id, "reason": reason, "recursive": recursive}
    said = f"terminated {_shown(id)}"
    _do(context, "terminate", arguments, said, as_json=as_json, key_file=key_file)


def rewind(
    context: typer.Context,
    id: InstanceId,
    reason: Reason = "",
    force: Annotated[
        bool,
        typer.Option("--force", help="Also where something that completed is forgotten by it."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Take a failed instance back to before its failures.

    It goes on from there; what completed is not done again.
    """
    if force:
        confirm(f"Rewind {id}, though what completed after its failures is forgotten?", yes=yes)
    arguments = {"instance_id": id, "reason": reason, "force": force}
    _do(context, "rewind", arguments, f"rewound {_shown(id)}", as_json=as_json, key_file=key_file)


def restart(
    context: typer.Context,
    id: InstanceId,
    same_id: Annotated[
        bool, typer.Option("--same-id", help="Under the same id; it must have ended.")
    ] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Start anew with an instance's input; prints the new id."""
    arguments = {
        "instance_id": id,
        "with_new_instance_id": not same_id,
        "request_id": new_request_id(),
    }
    _do(context, "restart", arguments, "{instance_id}", as_json=as_json, key_file=key_file)


def fork(
    context: typer.Context,
    id: InstanceId,
    at: Annotated[
        int,
        typer.Option(min=0, help="The last event that it begins with, as history numbers them."),
    ],
    new_id: Annotated[
        str | None, typer.Option("--id", help="The new instance's id.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Begin a new instance as another had begun; prints its id.

    It has the other's history up to an event, and goes on; the other stays as it is.
    """
    arguments = {
        "instance_id": id,
        "at": at,
        "request_id": new_request_id(),
        **given(new_instance_id=new_id),
    }
    _do(context, "fork", arguments, "{instance_id}", as_json=as_json, key_file=key_file)


def purge(
    context: typer.Context,
    id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The instance, or entity: @name@key.", show_default=False
        ),
    ] = None,
    status: Statuses = None,
    name: OrchestrationName = None,
    instance_id_prefix: Prefix = None,
    created_from: Since = None,
    created_to: Since = None,
    completed_from: Since = None,
    completed_to: Since = None,
    tag: Tags = None,
    recursive: Recursive = True,
    yes: Yes = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Delete what has ended or is parked, or an entity's state.

    One instance, or all that match; with its history.
    """
    found = conditions(
        status=status,
        name=name,
        instance_id_prefix=instance_id_prefix,
        tag=tag,
        times={
            "created_from": created_from,
            "created_to": created_to,
            "completed_from": completed_from,
            "completed_to": completed_to,
        },
    )
    if (id is None) == (not found):
        from perdure import UsageError

        raise UsageError("purge takes either an ID or conditions, such as --status Completed")
    if id is None:
        _purge_found(context, found, recursive, yes=yes, as_json=as_json, key_file=key_file)
    elif id.startswith("@"):
        confirm(f"Delete the state of {id}?", yes=yes)
        said = f"deleted {_shown(id)}"
        _do(context, "purge_entity", {"entity": id}, said, as_json=as_json, key_file=key_file)
    else:
        confirm(f"Delete {id} and its history?", yes=yes)
        arguments = {"instance_id": id, "recursive": recursive}
        said = "deleted {deleted:,}"
        _do(context, "purge_instance", arguments, said, as_json=as_json, key_file=key_file)


def _purge_found(
    context: typer.Context,
    found: dict[str, Any],
    recursive: bool,
    *,
    yes: bool,
    as_json: bool,
    key_file: Any,
) -> None:
    async def work(ask: Ask, screen: Screen) -> None:
        counted = {"statuses": _ENDED, **found, "limit": 0, "count": True}
        count = (await ask("query", counted))["count"]
        if "statuses" not in found:
            count += (await ask("query", {**counted, "statuses": _LIVE, "parked": True}))["count"]
        confirm(f"Delete {count:,} instances and their histories?", yes=yes)
        done = await ask("purge", {**found, "recursive": recursive})
        screen.json(done) if as_json else screen.line(f"deleted {done['deleted']:,}")

    run(context, work, as_json=as_json, key_file=key_file)


def parked(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=0, help="How many of each kind; 0 for all.")] = 50,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show the actors that take no turns until somebody acts."""

    async def work(ask: Ask, screen: Screen) -> None:
        instances, more = await pages(ask, "query", {"parked": True, "payloads": as_json}, limit)
        entities, others = await pages(ask, "entities", {"parked": True}, limit)
        if as_json:
            screen.json(*instances, *entities)
        elif not instances and not entities:
            screen.note("nothing is parked")
        else:
            _show_parked(screen, instances, entities)
        if more or others:
            screen.note(f"there are more than {limit:,}: --limit shows more of them")

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def _show_parked(
    screen: Screen, instances: list[dict[str, Any]], entities: list[dict[str, Any]]
) -> None:
    from .words import read_time, relative, utc_now

    now = utc_now()
    rows: list[list[str]] = []
    for one in [*instances, *entities]:
        when = one.get("last_updated_time") or one.get("last_modified")
        rows.append(
            [
                one.get("instance_id") or one["entity_id"],
                "" if when is None else relative(read_time(when), now),
                one["parked"]["type"],
                " ".join(one["parked"]["reason"].split()),
            ]
        )
    screen.table(("actor", "changed", "trouble", "reason"), rows)


def retry(
    context: typer.Context,
    id: Actor,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Let a parked actor try again, once it is repaired."""
    said = f"{_shown(id)} tries again, if it was parked"
    _do(context, "retry", {"actor": id}, said, as_json=as_json, key_file=key_file)
