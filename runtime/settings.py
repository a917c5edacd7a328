"""Every limit of a hub, in one frozen object, with its unit in its name."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Literal, cast

from attrs import Attribute, field, frozen

from ..actors.arguments import choice, is_a, whole
from ..actors.times import seconds


def as_seconds(value: float | timedelta) -> float:
    """Give a duration as seconds; what is none stays as it is, for the validator to refuse."""
    if is_a(value, timedelta):
        return cast("timedelta", value).total_seconds()
    return cast("float", value)


def check_seconds(_: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse what is no duration longer than 0."""
    seconds(value, attribute.name, least=1)


def _check_count(_: object, attribute: Attribute[Any], value: object) -> None:
    whole(value, attribute.name, least=1)


def _check_end(_: object, attribute: Attribute[Any], value: object) -> None:
    choice(value, attribute.name, ("park", "fail"))


def _count(default: int) -> int:
    made: int = field(default=default, validator=_check_count)
    return made


@frozen(kw_only=True)
class Settings:
    """The limits of a hub. Times may be given as seconds or as timedeltas.

    Attributes:
        max_payload: bytes that one value may take as JSON.
        mailbox_messages_max: messages, and events that an orchestration has not taken, that may
            wait for one actor before clients are refused. Actors never are.
        hub_messages_max: clients' messages that may wait in one partition, with what lies in its
            store alone, before clients are refused. For starts, activities that wait to run on the
            same event loop count, too.
        cached_actors_max: entities and live orchestrations kept in memory, per partition; others
            are loaded, and rebuilt from their history, when a message comes.
        activities_max: async activities that run at a time.
        activity_threads_max: threads for sync activities.
        drain_s: seconds that a stopping hub gives to what is under way.
        turn_messages_max: messages one actor may take before others get their turn.
        pump_budget_s: seconds of turns between two looks at the event loop.
        request_retention_s: how long a client's request id is remembered.
        stripe_fold_s: how long a stripe of a striped entity keeps what it has before it sends it
            home unasked.
        stripe_hot_per_s: with ``stripes="auto"``: operations that one partition or client sends
            to an entity in a second before they go to a stripe.
        crashes_max: crashes of one actor's turns before it is parked.
        lease_s: where several processes serve a hub: how long after its last word to the store
            one of them is taken for gone.
        on_nondeterminism: what becomes of an instance whose code left its history.
    """

    max_payload: int = _count(1024 * 1024)
    mailbox_messages_max: int = _count(100_000)
    hub_messages_max: int = _count(1_000_000)
    cached_actors_max: int = _count(20_000)
    activities_max: int = _count(1_000)
    activity_threads_max: int = _count(min(32, (os.cpu_count() or 1) + 4))
    drain_s: float = field(default=10.0, converter=as_seconds, validator=check_seconds)
    turn_messages_max: int = _count(200)
    pump_budget_s: float = field(default=0.001, converter=as_seconds, validator=check_seconds)
    request_retention_s: float = field(
        default=24 * 3600.0, converter=as_seconds, validator=check_seconds
    )
    stripe_fold_s: float = field(default=5.0, converter=as_seconds, validator=check_seconds)
    stripe_hot_per_s: int = _count(1_000)
    crashes_max: int = _count(3)
    lease_s: float = field(default=6.0, converter=as_seconds, validator=check_seconds)
    on_nondeterminism: Literal["park", "fail"] = field(default="park", validator=_check_end)
