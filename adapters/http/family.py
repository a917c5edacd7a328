"""How Durable Functions writes things in JSON: statuses, histories, links."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from perdure import (
    EntityStatus,
    FailureDetails,
    HistoryEvent,
    OrchestrationStatus,
    RuntimeStatus,
)

from .paths import quoted

#: What the family's links say of a hub; there is one behind a server, so it is not looked at.
TASK_HUB = "perdure"
CONNECTION = "Storage"


def client_binding(
    url: str, *, code: str | None = None, local_rpc: str | None = None, task_hub: str = TASK_HUB
) -> dict[str, Any]:
    """Give what a Functions host passes to a durable client: ``json.dumps`` it for the client.

    ``DurableOrchestrationClient(json.dumps(client_binding("http://127.0.0.1:7071")))`` is a
    client of the server at that address.

    Args:
        url: where the server is.
        code: a key of the server, which then stands in the management links.
        local_rpc: where SDKs are answered without a key, if that is elsewhere: the address that
            was given as ``--local-rpc``, as a URL.
        task_hub: what the client is to call the hub; the server does not look at it.
    """
    base = f"{url.rstrip('/')}/runtime/webhooks/durabletask"
    query = links_query(code, task_hub)
    start = f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]"
    return {
        "taskHubName": task_hub,
        "creationUrls": {
            "createNewInstancePostUri": f"{start}?{query}",
            "createAndWaitOnNewInstancePostUri": (
                f"{start}?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}&{query}"
            ),
        },
        "managementUrls": _links(base, "INSTANCEID", "INSTANCEID", query),
        "baseUrl": base,
        "requiredQueryStringParameters": query,
        "rpcBaseUrl": f"{(local_rpc or url).rstrip('/')}/durabletask/",
    }


def links_query(code: str | None, task_hub: str = TASK_HUB) -> str:
    """Give the query that each link of the family's ends with."""
    query = f"taskHub={quote(task_hub, safe='')}&connection={CONNECTION}"
    return query if code is None else f"{query}&code={quote(code, safe='')}"


def management_links(base: str, instance_id: str, query: str) -> dict[str, str]:
    """Give the links by which an instance is managed."""
    return _links(base, instance_id, quoted(instance_id), query)


def _links(base: str, id: str, segment: str, query: str) -> dict[str, str]:
    one = f"{base}/instances/{segment}"
    return {
        "id": id,
        "statusQueryGetUri": f"{one}?{query}",
        "sendEventPostUri": f"{one}/raiseEvent/{{eventName}}?{query}",
        "terminatePostUri": f"{one}/terminate?reason={{text}}&{query}",
        "rewindPostUri": f"{one}/rewind?reason={{text}}&{query}",
        "purgeHistoryDeleteUri": f"{one}?{query}",
        "restartPostUri": f"{one}/restart?{query}",
        "suspendPostUri": f"{one}/suspend?reason={{text}}&{query}",
        "resumePostUri": f"{one}/resume?reason={{text}}&{query}",
    }


def seconds_text(time: datetime) -> str:
    """Write a time as the family's statuses do: UTC, whole seconds."""
    return time.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def exact_text(time: datetime) -> str:
    """Write a time as the family's histories do: UTC, with its fraction."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def status_body(
    status: OrchestrationStatus,
    *,
    show_input: bool = True,
    history: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write an instance's status."""
    return {
        "name": status.name,
        "instanceId": status.instance_id,
        "runtimeStatus": str(status.runtime_status.value),
        "input": status.input if show_input else None,
        "customStatus": status.custom_status,
        "output": output_of(status),
        "createdTime": seconds_text(status.created_time),
        "lastUpdatedTime": seconds_text(status.last_updated_time),
        "historyEvents": history,
    }


def output_of(status: OrchestrationStatus) -> Any:
    """Give the output, which is the reason where an instance has ended in another way."""
    if status.failure is None or status.runtime_status is RuntimeStatus.COMPLETED:
        return status.output
    failure = status.failure
    if status.runtime_status is not RuntimeStatus.FAILED:
        return failure.message
    return f"Orchestrator function '{status.name}' failed: {failure.error_type}: {failure.message}"


def entity_body(status: EntityStatus[Any], *, fetch_state: bool) -> dict[str, Any]:
    """Write an entity as the family lists them."""
    body: dict[str, Any] = {
        "entityId": {"name": status.entity_id.name, "key": status.entity_id.key},
        "lastOperationTime": _text(status.last_modified),
    }
    if fetch_state:
        body["state"] = entity_state(status)
    return body


def entity_state(status: EntityStatus[Any]) -> Any:
    """Give an entity's state as JSON values, as it is stored."""
    return status.to_dict()["state"]


def history_events(
    events: Iterable[HistoryEvent], status: OrchestrationStatus, *, outputs: bool, inputs: bool
) -> Generator[None, None, list[dict[str, Any]]]:
    """Write a history: what was scheduled and its outcome as one event, where the outcome is.

    It pauses behind each event.

    Args:
        events: the history.
        status: the instance's status, which has what the history leaves out.
        outputs: whether results are shown.
        inputs: whether inputs and events' data are shown.
    """
    written: list[dict[str, Any] | None] = []
    scheduled: dict[Any, int] = {}
    for event in events:
        shown = _event(event, status, outputs=outputs, inputs=inputs)
        number = event.fields.get("task_id")
        if event.event_type in _SCHEDULES:
            scheduled[number] = len(written)
        elif event.event_type in _OUTCOMES and number in scheduled:
            at = scheduled.pop(number)
            before = written[at]
            written[at] = None
            if before is not None:
                shown = {**_merged(before), **shown}
        written.append(shown)
        yield
    return [one for one in written if one is not None]


_SCHEDULES = frozenset(
    {
        "TaskScheduled",
        "TimerCreated",
        "SubOrchestrationInstanceCreated",
        "EntityOperationCalled",
        "EntityLockRequested",
    }
)
_OUTCOMES = frozenset(
    {
        "TaskCompleted",
        "TaskFailed",
        "TimerFired",
        "SubOrchestrationInstanceCompleted",
        "SubOrchestrationInstanceFailed",
        "EntityOperationCompleted",
        "EntityOperationFailed",
        "EntityLockGranted",
    }
)


def _merged(scheduled: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an outcome takes over of what was scheduled."""
    kept = {key: value for key, value in scheduled.items() if key not in ("EventType", "Timestamp")}
    return {**kept, "ScheduledTime": scheduled["Timestamp"]}


def _event(
    event: HistoryEvent, status: OrchestrationStatus, *, outputs: bool, inputs: bool
) -> dict[str, Any]:
    fields = event.fields
    shown: dict[str, Any] = {"EventType": event.event_type}
    match event.event_type:
        case "ExecutionStarted" | "TaskScheduled":
            shown["FunctionName"] = fields.get("name")
        case "SubOrchestrationInstanceCreated":
            shown["FunctionName"] = fields.get("name")
            shown["InstanceId"] = fields.get("instance_id")
        case "EntityOperationCalled" | "EntityOperationSignaled":
            shown["FunctionName"] = fields.get("operation")
            shown["EntityId"] = fields.get("entity_id")
        case "EntityLockRequested":
            shown["EntityIds"] = fields.get("entity_ids")
        case "TimerCreated":
            shown["FireAt"] = _text(fields.get("due"))
        case "EventRaised":
            shown["Name"] = fields.get("name")
            if inputs:
                shown["Input"] = fields.get("data")
        case "EventSent":
            shown["Name"] = fields.get("name")
            shown["InstanceId"] = fields.get("instance_id")
        case "ExecutionCompleted":
            shown["OrchestrationStatus"] = fields.get("status")
            if outputs:
                shown["Result"] = output_of(status)
        case _:
            if "reason" in fields:
                shown["Reason"] = fields["reason"]
    if outputs and "result" in fields:
        shown["Result"] = fields["result"]
    failure = fields.get("failure")
    if isinstance(failure, FailureDetails):
        shown["Reason"] = f"{failure.error_type}: {failure.message}"
        shown["Details"] = failure.message
    shown["Timestamp"] = exact_text(event.timestamp)
    return shown


def _text(time: object) -> str | None:
    return exact_text(time) if isinstance(time, datetime) else None
