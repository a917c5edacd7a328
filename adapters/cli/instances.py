"""Commands about orchestration instances: start them, look at them, wait for them."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Actor,
    AsJson,
    Ask,
    Input,
    InstanceId,
    KeyFile,
    Tags,
    given,
    new_request_id,
    read_json,
    read_tags,
    run,
)

if TYPE_CHECKING:
    from .screen import Screen

_PAGE = 1_000
#: Seconds that one request waits, before the next one does.
_WAIT_S = 20.0


class OnExisting(Enum):
    """What becomes of a start where a live instance has the id."""

    reject = "reject"
    reuse = "reuse"
    replace = "replace"


class Order(Enum):
    """Which come first."""

    oldest = "oldest"
    newest = "newest"


Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="A time, or how long ago: 90s, 5m, 2h, 1d.", show_default=False
    ),
]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", help="Running, Completed, Failed, ...; may be repeated."),
]
OrchestrationName = Annotated[
    str | None, typer.Option(help="The orchestration.", show_default=False)
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--instance-id-prefix", "--prefix", help="What ids begin with.", show_default=False
    ),
]
ParentId = Annotated[
    str | None,
    typer.Option("--parent-instance-id", "--parent", help="Whose children.", show_default=False),
]
FailureType = Annotated[
    str | None, typer.Option(help="The type of their failure.", show_default=False)
]
Parked = Annotated[
    bool | None,
    typer.Option("--parked/--not-parked", help="Whether they are parked.", show_default=False),
]
WaitingFor = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="event:NAME, activity:NAME, entity:@NAME@KEY, lock:@NAME@KEY, child or timer.",
        show_default=False,
    ),
]
MinAttempts = Annotated[
    int | None,
    typer.Option(metavar="N", help="A call is at this attempt at least.", show_default=False),
]


def add_to(app: typer.Typer, kind: Any) -> None:
    """Declare the commands."""

    def command(name: str, function: Any, example: str) -> None:
        app.command(name, cls=kind, epilog=f"Example: {example}")(function)

    command("start", start, "perdure start sqlite:hub greet '\"you\"' --id greet-1 --wait 30")
    command("list", list_instances, "perdure list sqlite:hub --status Running --created-from 1h")
    command("show", show, "perdure show sqlite:hub greet-1")
    command("history", history, "perdure history sqlite:hub greet-1 --order newest")
    command("explain", explain, "perdure explain sqlite:hub greet-1")
    command("wait", wait, "perdure wait sqlite:hub greet-1 --timeout 60")
    command("raise-event", raise_event, "perdure raise-event sqlite:hub order-7 Paid true")


def start(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The orchestration.")],
    input: Input = None,
    id: Annotated[str | None, typer.Option(help="The instance's id.", show_default=False)] = None,
    version: Annotated[
        str | None, typer.Option(help="Which version.", show_default="the highest")
    ] = None,
    tag: Tags = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When it begins: a time, or in 90s, 5m, 2h, 1d.",
            show_default="now",
        ),
    ] = None,
    on_existing: Annotated[
        OnExisting, typer.Option(help="If a live instance has the id.")
    ] = OnExisting.reject,
    wait: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Wait for its end.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Start an orchestration."""
    from .words import read_when

    arguments = {
        "name": name,
        **read_json(input),
        **given(version=version, tags=read_tags(tag)),
        **given(start_at=None if at is None else read_when(at, "--at")),
        "on_existing": on_existing.value,
    }
    # An answer that is lost is asked for again, so both ids are made here.
    arguments["request_id"] = new_request_id()
    arguments["instance_id"] = id or arguments["request_id"]

    async def work(ask: Ask, screen: Screen) -> None:
        status = await ask("start", arguments)
        if wait is not None:
            status = await _ending(ask, status["instance_id"], wait)
            _tell_end(screen, status)
        elif screen.as_json:
            screen.json(status)
        else:
            screen.line(status["instance_id"])

    run(context, work, as_json=as_json, key_file=key_file)


async def _ending(ask: Ask, instance_id: str, timeout: float | None) -> dict[str, Any]:
    """Give the status of an instance that has ended.

    Raises:
        TimeoutError: it has not ended in time.
    """
    import anyio

    until = None if timeout is None else anyio.current_time() + timeout
    while True:
        left = _WAIT_S if until is None else min(max(until - anyio.current_time(), 0.0), _WAIT_S)
        status: dict[str, Any] = await ask("status", {"instance_id": instance_id, "wait": left})
        if status["completed_time"] is not None:
            return status
        if until is not None and anyio.current_time() >= until:
            parked = "" if status["parked"] is None else " and is parked"
            raise TimeoutError(
                f"{instance_id} has not ended within {timeout:g} seconds: it is "
                f"{status['runtime_status']}{parked} (perdure explain says what it waits for)"
            )


def _tell_end(screen: Screen, status: dict[str, Any]) -> None:
    """Show what came of an instance; the command fails where it did not complete."""
    from .words import value

    is_complete = status["runtime_status"] == "Completed"
    if screen.as_json:
        screen.json(status)
    elif is_complete:
        screen.line(value(status["output"]))
    if not is_complete:
        failure: dict[str, Any] | None = status["failure"]
        reason = "" if failure is None else _failure(failure)
        screen.note(f"perdure: {status['instance_id']} is {status['runtime_status']}: {reason}")
        if failure is not None and failure.get("stack_trace"):
            screen.note(f"perdure show {status['instance_id']} says where in the code")
        raise typer.Exit(1)


def conditions(
    *,
    status: list[str] | None = None,
    name: str | None = None,
    instance_id_prefix: str | None = None,
    tag: list[str] | None = None,
    times: dict[str, str | None] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Give the conditions of a query that are asked for, as the API takes them."""
    from .words import read_since

    statuses = [one for text in status or () for one in text.split(",")]
    found = given(
        statuses=[_spelled(one) for one in statuses] or None,
        name=name,
        instance_id_prefix=instance_id_prefix,
        tags=read_tags(tag),
        **others,
    )
    for option, text in (times or {}).items():
        if text is not None:
            found[option] = read_since(text, f"--{option.replace('_', '-')}")
    return found


def _spelled(status: str) -> str:
    """Give a status as it is spelled, whatever the case that it was given in."""
    from perdure import RuntimeStatus

    known = {one.value.casefold(): one.value for one in RuntimeStatus}
    return known.get(status.casefold(), status)


def list_instances(
    context: typer.Context,
    status: Statuses = None,
    name: OrchestrationName = None,
    instance_id_prefix: Prefix = None,
    created_from: Since = None,
    created_to: Since = None,
    updated_from: Since = None,
    updated_to: Since = None,
    completed_from: Since = None,
    completed_to: Since = None,
    parent_instance_id: ParentId = None,
    failure_type: FailureType = None,
    tag: Tags = None,
    parked: Parked = None,
    waiting_for: WaitingFor = None,
    min_attempts: MinAttempts = None,
    order: Annotated[Order, typer.Option(help="Which come first.")] = Order.newest,
    limit: Annotated[int, typer.Option(min=0, help="How many at the most; 0 for all.")] = 50,
    count: Annotated[
        bool, typer.Option("--count", help="Say how many there are, and no more.")
    ] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show the instances that match every condition given."""
    asked = conditions(
        status=status,
        name=name,
        instance_id_prefix=instance_id_prefix,
        tag=tag,
        parent_instance_id=parent_instance_id,
        failure_type=failure_type,
        parked=parked,
        waiting_for=waiting_for,
        min_attempts=min_attempts,
        times={
            "created_from": created_from,
            "created_to": created_to,
            "updated_from": updated_from,
            "updated_to": updated_to,
            "completed_from": completed_from,
            "completed_to": completed_to,
        },
    )

    async def work(ask: Ask, screen: Screen) -> None:
        if count:
            found = await ask("query", {**asked, "limit": 0, "count": True})
            screen.json({"count": found["count"]}) if as_json else screen.line(str(found["count"]))
        else:
            asked["order"], asked["payloads"] = order.value, as_json
            _show_page(screen, *(await pages(ask, "query", asked, limit)), limit)

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def _show_page(screen: Screen, items: list[dict[str, Any]], more: bool, limit: int) -> None:
    if screen.as_json:
        screen.json(*items)
    else:
        _show_instances(screen, items)
    if more:
        screen.note(f"there are more than {limit:,}: --limit shows more of them")


async def pages(
    ask: Ask, operation: str, asked: dict[str, Any], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Give the first of what is found, and whether there is more; 0 gives all."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        size = min(limit - len(items) + 1, _PAGE) if limit else _PAGE
        page = await ask(operation, {**asked, "limit": size, **given(cursor=cursor)})
        items += page["items"]
        if limit and len(items) > limit:
            return items[:limit], True
        if page["cursor"] in (None, cursor):
            return items, False
        cursor = page["cursor"]


def _show_instances(screen: Screen, items: list[dict[str, Any]]) -> None:
    from .words import absolute, both, read_time, relative, utc_now

    if not items:
        screen.note("no instance is found")
        return
    now = utc_now()

    def rows(times: tuple[Any, Any]) -> list[list[str]]:
        return [
            [
                one["instance_id"],
                one["name"],
                "parked" if one["parked"] is not None else one["runtime_status"],
                times[0](read_time(one["created_time"])),
                times[1](read_time(one["last_updated_time"])),
            ]
            for one in items
        ]

    def from_now(when: datetime) -> str:
        return relative(when, now)

    def both_ways(when: datetime) -> str:
        return both(when, now)

    headers = ("id", "name", "status", "created", "updated")
    screen.table(
        headers,
        rows((both_ways, both_ways)),
        rows((absolute, from_now)),
        rows((from_now, from_now)),
    )


def show(
    context: typer.Context,
    id: InstanceId,
    all_frames: Annotated[
        bool,
        typer.Option("--all-frames", help="Leave nothing out of tracebacks, not Perdure's own."),
    ] = False,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show an instance: its status, input and output."""

    async def work(ask: Ask, screen: Screen) -> None:
        status = await ask("status", {"instance_id": id})
        if as_json:
            screen.json(status)
            return
        screen.fields(_fields_of(status))
        _show_tracebacks(screen, status["failure"], all_frames=all_frames)

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def _fields_of(status: dict[str, Any]) -> dict[str, str | None]:
    from .words import both, read_time, utc_now, value

    now = utc_now()

    def time(name: str) -> str | None:
        return None if status[name] is None else both(read_time(status[name]), now)

    def json(name: str) -> str | None:
        return None if status[name] is None else value(status[name])

    failure, parked = status["failure"], status["parked"]
    version = "" if status["version"] is None else f" version {status['version']}"
    tags = ", ".join(f"{name}={text}" for name, text in status["tags"].items())
    return {
        "id": status["instance_id"],
        "name": f"{status['name']}{version}",
        "status": status["runtime_status"],
        "parked": None if parked is None else f"{parked['type']}: {parked['reason']}",
        "suspended": status["suspended"],
        "created": time("created_time"),
        "updated": time("last_updated_time"),
        "completed": time("completed_time"),
        "parent": status["parent_instance_id"],
        "tags": tags or None,
        "input": json("input"),
        "output": json("output"),
        "custom": json("custom_status"),
        "failure": None if failure is None else _failure(failure),
        "execution": None if status["execution"] == 1 else str(status["execution"]),
        "rewinds": str(status["rewinds"]) if status["rewinds"] else None,
        "history": f"events: {status['history_length']:,}",
    }


def _failure(failure: dict[str, Any]) -> str:
    return f"{failure.get('error_type')}: {failure.get('message')}"


def _show_tracebacks(screen: Screen, failure: dict[str, Any] | None, *, all_frames: bool) -> None:
    """Show where in the code something failed, and what was behind it; HTTP may leave that out."""
    from .words import frames_of

    head = "traceback"  # the message is among the fields
    while failure is not None:
        if failure.get("stack_trace"):
            screen.line(f"\n{head}")
            frames = frames_of(failure["stack_trace"])
            hides = not all_frames and not all(ours for _, ours in frames)
            shown = [frame for frame, ours in frames if not (hides and ours)]
            for line in "\n".join(shown).split("\n"):
                if line.strip(" ^~"):
                    screen.line(line)
        failure = failure.get("cause")
        head = "" if failure is None else f"cause: {_failure(failure)}"


def history(
    context: typer.Context,
    id: InstanceId,
    order: Annotated[Order, typer.Option(help="Which events come first.")] = Order.oldest,
    limit: Annotated[int, typer.Option(min=0, help="How many at the most; 0 for all.")] = 0,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Show the events of an instance's history."""

    async def work(ask: Ask, screen: Screen) -> None:
        events: list[tuple[int, dict[str, Any]]] = []
        after: int | None = None
        while True:
            size = min(limit - len(events), _PAGE) if limit else _PAGE
            asked = {"instance_id": id, "order": order.value, "limit": size, **given(after=after)}
            page = await ask("history", asked)
            step = 1 if order is Order.oldest else -1
            events += [(page["first"] + step * n, event) for n, event in enumerate(page["items"])]
            after = page["after"]
            if after is None or (limit and len(events) >= limit):
                break
        if as_json:
            screen.json(*(event for _, event in events))
            return
        _show_events(screen, events)
        if after is not None:
            screen.note(
                f"these are {len(events):,} of {page['total']:,}: --limit shows more of them"
            )

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def _show_events(screen: Screen, events: list[tuple[int, dict[str, Any]]]) -> None:
    from .words import absolute, duration, read_time, relative, shortened, utc_now, value

    now = utc_now()
    last: datetime | None = None
    for number, event in events:
        when = read_time(event["timestamp"])
        away = (
            relative(when, now) if last is None else f"+{duration((when - last).total_seconds())}"
        )
        screen.line(f"{number:>4}  {absolute(when)} ({away})  ", _styled(event["event_type"]))
        last = when
        fields: dict[str, Any] = {**event["fields"]}
        if fields.get("failure") is not None:
            fields["failure"] = _failure(fields["failure"])
        told = [
            f"{name}={shortened(text if isinstance(text, str) else value(text), 200)}"
            for name, text in fields.items()
            if text not in (None, [], {}) and not name.endswith("_hash")
        ]
        if told:
            screen.line("  ".join(told), indent="      ")


def _styled(event_type: str) -> Any:
    from rich.text import Text

    return Text(event_type, style="red" if "Failed" in event_type else "bold")


def explain(
    context: typer.Context,
    id: Actor,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:APP",
            help="The application of a hub that does not run, for the lines of its code.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Say what an instance waits for, or what an entity does.

    Of an instance also since when, and at which lines its code stands.
    """

    async def work(ask: Ask, screen: Screen) -> None:
        from .explaining import show_entity, show_instance

        if id.startswith("@"):
            found = await ask("explain_entity", {"entity": id})
        else:
            found = await ask("explain", {"instance_id": id})
        if as_json:
            screen.json(found)
        elif id.startswith("@"):
            show_entity(screen, found)
        else:
            show_instance(screen, found)

    run(context, work, reads=True, as_json=as_json, key_file=key_file, app=app)


def wait(
    context: typer.Context,
    id: InstanceId,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="For how long.", show_default="for ever"),
    ] = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Wait for an instance's end, and print its output."""

    async def work(ask: Ask, screen: Screen) -> None:
        _tell_end(screen, await _ending(ask, id, timeout))

    run(context, work, reads=True, as_json=as_json, key_file=key_file)


def raise_event(
    context: typer.Context,
    id: InstanceId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The event.")],
    data: Input = None,
    as_json: AsJson = False,
    key_file: KeyFile = None,
) -> None:
    """Send an instance an event."""
    arguments = {
        "instance_id": id,
        "name": name,
        "data": read_json(data, "the data").get("input"),
        "request_id": new_request_id(),
    }

    async def work(ask: Ask, screen: Screen) -> None:
        done = await ask("raise_event", arguments)
        screen.json(done) if as_json else screen.line(f"sent {name} to {id}")

    run(context, work, as_json=as_json, key_file=key_file)
