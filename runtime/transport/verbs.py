"""The verbs of requests: one table of what is asked of partitions, wherever they are.

A row says how a verb's arguments cross, what of them a client may send, how whoever hosts the
partition does it, and what becomes of a request whose line is lost. What shards and hubs are
asked besides is plain JSON, and done by a handler of each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import attrs

from ...actors.messages import Message, decode_message
from ...storage.records import EntityFilter, InstanceFilter
from ..placement.places import Hosted
from ..scheduling.waiter import Waiter
from .admission import (
    admit,
    check_claim,
    check_explain,
    check_news,
    check_request,
    check_request_all,
    check_request_later,
    check_request_new,
    check_trace,
    check_unlock,
    check_wait_for_end,
)

if TYPE_CHECKING:
    from ...storage.records import ChunkRow, EntityRow, InstanceRecord
    from ..placement.places import Ending

#: What is asked of a partition: names of methods of ``Place`` and ``Records``.
PartitionVerb = Literal[
    "request",
    "request_new",
    "request_all",
    "request_later",
    "claim",
    "wait_for_end",
    "news",
    "wait_durable",
    "purge_ended",
    "unlock",
    "read_instances",
    "read_entities",
    "read_history",
    "read_history_part",
    "query_instances",
    "count_instances",
    "query_entities",
    "waiting",
    "explain",
    "trace",
]
#: What the hub asks of a worker whose partitions go to another store.
MoveVerb = Literal["migrates", "follow", "copy", "switch"]
#: What a hub asks of a shard.
ShardVerb = Literal["host", "let_go", "count", "load", "died", "drain", "govern", MoveVerb]
#: What members of a hub ask of each other besides.
MemberVerb = Literal["hand_over"]
#: What clients ask of a hub.
HubVerb = Literal["where", "statistics", "move", "migrate", "migration", "ask", "look"]
#: What stands on the wire for a request that could not be written.
REFUSE: Literal["refuse"] = "refuse"

VerbName = PartitionVerb | ShardVerb | MemberVerb | HubVerb | Literal["refuse"]

#: Does what is asked of a shard or a hub.
Handler = Callable[..., Awaitable[Any]]
Handlers = dict[ShardVerb | MemberVerb | HubVerb, Handler]

#: Whether a request that may have arrived is made again: one under its id is, if it has one.
Repeat = Literal["always", "under its id", "never"]


class Reply(Waiter, Protocol):
    """Where the outcome of a request goes that needs no task."""

    def drop_with(self, undo: Callable[[], None]) -> None:
        """Have something undone where the request is taken back before it is answered."""
        ...


class Form(NamedTuple):
    """How the one argument crosses that is not plain JSON.

    Attributes:
        place: which argument that is; the partition's number is number 0.
        write: gives what JSON can hold.
        read: gives the argument back.
        weigh: gives the bytes of the payloads in it.
    """

    place: int
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    weigh: Callable[[Any], int] | None = None


class Verb:
    """A row of the table.

    Args:
        serve: does it, in a task of the side that is asked.
        check: refuses the arguments, the partition's number among them, that no client may send.
        form: of an argument; None where all are plain JSON.
        at_once: does it without a task, and says whether it did: a task costs as much as all the
            rest of a request.
        repeat: whether it is made again where its line was lost.
        reads: whether it only reads, and may give much: few such are done at a time.
    """

    __slots__ = ("at_once", "check", "count", "form", "reads", "repeat", "serve")

    def __init__(
        self,
        serve: Callable[..., Awaitable[Any]],
        check: Callable[..., None],
        *,
        form: Form | None = None,
        at_once: Callable[..., bool] | None = None,
        repeat: Repeat = "always",
        reads: bool = False,
    ) -> None:
        self.serve = serve
        self.check = check
        self.form = form
        self.at_once = at_once
        self.repeat = repeat
        self.reads = reads
        #: How many arguments there are, besides the partition's number.
        self.count = len(signature(serve).parameters) - 1

    def may_repeat(self, arguments: Sequence[Any]) -> bool:
        """Whether a request with these arguments is applied once, however often it is made."""
        if self.repeat == "under its id":
            return arguments[-1] is not None
        return self.repeat == "always"


# How arguments cross.


def _write_message(message: Message) -> list[Any]:
    return message.fields()


def _weigh_message(message: Message) -> int:
    return message.size


def _write_parcels(parcels: Sequence[tuple[str, Message]]) -> list[Any]:
    return [(key, message.fields()) for key, message in parcels]


def _read_parcels(rows: list[tuple[str, list[Any]]]) -> list[tuple[str, Message]]:
    return [(key, decode_message(fields)) for key, fields in rows]


def _weigh_parcels(parcels: Sequence[tuple[str, Message]]) -> int:
    return sum(message.size for _, message in parcels)


def _write_ids(ids: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    return ids


def _read_ids(ids: list[list[str]]) -> list[tuple[str, str]]:
    return [(name, key) for name, key in ids]


def _write_filter(filter: InstanceFilter | EntityFilter) -> dict[str, Any]:
    return attrs.asdict(filter)


def _read_instance_filter(fields: dict[str, Any]) -> InstanceFilter:
    fields["statuses"] = tuple(fields["statuses"])
    fields["parents"] = tuple(fields["parents"])
    fields["tags"] = tuple((name, value) for name, value in fields["tags"])
    return InstanceFilter(**_with_position(fields))


def _read_entity_filter(fields: dict[str, Any]) -> EntityFilter:
    return EntityFilter(**_with_position(fields))


def _with_position(fields: dict[str, Any]) -> dict[str, Any]:
    if fields["after"] is not None:
        fields["after"] = tuple(fields["after"])
    return fields


MESSAGE = Form(2, _write_message, decode_message, _weigh_message)
_PARCELS = Form(1, _write_parcels, _read_parcels, _weigh_parcels)
_IDS = Form(1, _write_ids, _read_ids)
_INSTANCES = Form(1, _write_filter, _read_instance_filter)
_ENTITIES = Form(1, _write_filter, _read_entity_filter)


# How they are done, with a task and without.


def _request(place: Hosted, key: str, message: Message, request: str | None) -> Awaitable[Any]:
    return place.request_once(key, message, request)


def _request_at_once(
    place: Hosted, reply: Reply, key: str, message: Message, request: str | None
) -> bool:
    if request is not None:
        return False
    place.request(key, message, reply)
    return True


def _request_new(place: Hosted, key: str, message: Message) -> Awaitable[Any]:
    return place.request_new(key, message)


def _request_new_at_once(place: Hosted, reply: Reply, key: str, message: Message) -> bool:
    place.request_new(key, message, reply)
    return True


def _request_all(place: Hosted, parcels: Sequence[tuple[str, Message]]) -> Awaitable[None]:
    return place.request_all(parcels)


def _request_all_at_once(
    place: Hosted, reply: Reply, parcels: Sequence[tuple[str, Message]]
) -> bool:
    place.request_all(parcels, reply)
    return True


def _request_later(
    place: Hosted, key: str, message: Message, due: int, request: str | None
) -> Awaitable[None]:
    return place.request_later(key, message, due, request)


def _claim(place: Hosted, request: str, claim: str) -> Awaitable[None]:
    return place.claim(request, claim)


def _wait_for_end(place: Hosted, key: str) -> Awaitable[Ending | None]:
    return place.wait_for_end(key)


def _wait_for_end_at_once(place: Hosted, reply: Reply, key: str) -> bool:
    if not place.is_live_here(key):
        return False
    place.watch_with(key, reply)
    reply.drop_with(partial(place.unwatch, key, reply))
    return True


def _news(place: Hosted, after: int | None, most: int) -> Awaitable[list[Any]]:
    return place.news(after, most)


def _wait_durable(place: Hosted) -> Awaitable[None]:
    return place.wait_durable()


def _purge_ended(place: Hosted, keys: list[str]) -> Awaitable[list[tuple[str, bool]]]:
    return place.purge_ended(keys)


def _unlock(place: Hosted, key: str, owner: list[Any]) -> Awaitable[Any]:
    return place.unlock(key, owner)


def _read_instances(place: Hosted, keys: Sequence[str]) -> Awaitable[list[InstanceRecord]]:
    return place.store.read_instances(keys)


def _read_entities(place: Hosted, ids: Sequence[tuple[str, str]]) -> Awaitable[list[EntityRow]]:
    return place.store.read_entities(ids)


def _read_history(place: Hosted, instance: int) -> Awaitable[list[bytes]]:
    return place.store.read_history(instance)


def _read_history_part(
    place: Hosted, instance: int, first: int, end: int
) -> Awaitable[list[ChunkRow]]:
    return place.store.read_history_part(instance, first, end)


def _query_instances(place: Hosted, filter: InstanceFilter) -> Awaitable[list[InstanceRecord]]:
    return place.store.query_instances(filter)


def _count_instances(place: Hosted, filter: InstanceFilter) -> Awaitable[int]:
    return place.store.count_instances(filter)


def _query_entities(place: Hosted, filter: EntityFilter) -> Awaitable[list[EntityRow]]:
    return place.store.query_entities(filter)


def _waiting(place: Hosted, actors: Sequence[str]) -> Awaitable[dict[str, int]]:
    return place.store.waiting(actors)


def _explain(place: Hosted, key: str) -> Awaitable[dict[str, Any] | None]:
    return place.explain(key)


def _trace(place: Hosted, key: str, after: int, limit: int) -> Awaitable[dict[str, Any] | None]:
    return place.trace(key, after, limit)


# The table.

_ROWS: dict[PartitionVerb, Verb] = {
    "request": Verb(
        _request,
        check_request,
        form=MESSAGE,
        at_once=_request_at_once,
        repeat="under its id",
    ),
    "request_new": Verb(
        _request_new,
        check_request_new,
        form=MESSAGE,
        at_once=_request_new_at_once,
        repeat="never",  # whoever asked looks whether it has begun
    ),
    "request_all": Verb(
        _request_all,
        check_request_all,
        form=_PARCELS,
        at_once=_request_all_at_once,
        repeat="never",
    ),
    "request_later": Verb(_request_later, check_request_later, form=MESSAGE, repeat="under its id"),
    "claim": Verb(_claim, check_claim),
    "wait_for_end": Verb(_wait_for_end, check_wait_for_end, at_once=_wait_for_end_at_once),
    "news": Verb(_news, check_news),
    "wait_durable": Verb(_wait_durable, admit),
    "purge_ended": Verb(_purge_ended, admit),
    "unlock": Verb(_unlock, check_unlock),
    "read_instances": Verb(_read_instances, admit, reads=True),
    "read_entities": Verb(_read_entities, admit, form=_IDS, reads=True),
    "read_history": Verb(_read_history, admit, reads=True),
    "read_history_part": Verb(_read_history_part, admit, reads=True),
    "query_instances": Verb(_query_instances, admit, form=_INSTANCES, reads=True),
    "count_instances": Verb(_count_instances, admit, form=_INSTANCES, reads=True),
    "query_entities": Verb(_query_entities, admit, form=_ENTITIES, reads=True),
    "waiting": Verb(_waiting, admit, reads=True),
    "explain": Verb(_explain, check_explain, reads=True),
    "trace": Verb(_trace, check_trace, reads=True),
}
#: The rows by name, also by one that came over the wire and is none.
VERBS: dict[str, Verb] = {name: verb for name, verb in _ROWS.items()}  # noqa: C416
#: The forms of those that have one.
FORMS = {name: verb.form for name, verb in VERBS.items() if verb.form is not None}
#: Those that carry a message.
WITH_MESSAGE = frozenset(name for name, form in FORMS.items() if form is MESSAGE)
