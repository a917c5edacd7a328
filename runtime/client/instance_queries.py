"""Queries: what is stored about orchestration instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Unpack, cast

from attrs import evolve

from ...actors.arguments import (
    choice,
    flag,
    is_a,
    labels,
    optional_flag,
    optional_text,
    whole,
)
from ...actors.errors import InstanceNotFoundError, StoreDamagedError
from ...actors.ids import check_instance_id
from ...actors.replay.stored import read_history
from ...actors.times import optional_timestamp
from ...actors.values import RuntimeStatus
from ...storage import MendedInstance
from ...storage.records import InstanceFilter, InstanceRecord
from ...storage.slices import first_of, in_slices, let_go, map_each
from ..placement.hashing import partition_of
from .changes import Changes, Readings
from .client import InstanceConditions
from .pages import (
    HistoryPage,
    Order,
    Page,
    check_page_size,
    history_page,
    make_token,
    read_attempts,
    read_statuses,
    read_token,
    read_wait,
    span_of,
)
from .requester import Requester
from .status import HistoryEvent, OrchestrationStatus, history_event, instance_status


class InstanceQueries(Requester):
    """What a client can ask about orchestration instances."""

    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        instance_id = check_instance_id(instance_id)
        records = await self._partition(instance_id).store.read_instances([instance_id])
        return instance_status(records[0]) if records else None

    async def get_history(self, instance_id: str) -> list[HistoryEvent]:
        instance_id = check_instance_id(instance_id)
        return (await self._read_history(instance_id, lambda total: (0, total)))[0]

    async def get_history_page(
        self,
        instance_id: str,
        *,
        after: int | None = None,
        page_size: int = 100,
        order: Order = "oldest",
    ) -> HistoryPage:
        instance_id = check_instance_id(instance_id)
        size, order = check_page_size(page_size), choice(order, "order", ("oldest", "newest"))
        number = None if after is None else whole(after, "after")
        record = await self._read(instance_id)
        if not isinstance(record, MendedInstance):
            begin, end = span_of(record.events, number, size, order)
            found = await self._read_part(record, begin, end)
            if found is not None:
                return history_page(found, begin, end, record.events, order)
        # It changes, or is damaged: then the whole of it says so.
        events, begin, end, total = await self._read_history(
            instance_id, lambda total: span_of(total, number, size, order)
        )
        return history_page(events, begin, end, total, order)

    async def _read_part(
        self, record: InstanceRecord, begin: int, end: int
    ) -> list[HistoryEvent] | None:
        """Give the events of a history from one number to before another; None where it has not."""
        store = self._partition(record.key).store
        chunks = await store.read_history_part(record.id, begin, end)
        first = chunks[0].seq if chunks else begin
        try:
            events = await in_slices(read_history([one.body for one in chunks], None))
            if first > begin or first + len(events) < end:
                return None
            return await in_slices(map_each(events[begin - first : end - first], history_event))
        except (ValueError, OverflowError):
            return None

    async def _read_history(
        self, instance_id: str, span: Callable[[int], tuple[int, int]]
    ) -> tuple[list[HistoryEvent], int, int, int]:
        """Give some events of a history, their numbers, and how many there are."""
        record = await self._read(instance_id)
        chunks = await self._partition(instance_id).store.read_history(record.id)
        try:
            events = await in_slices(read_history(chunks, None))
            total = len(events)
            begin, end = span(total)
            shown = await in_slices(map_each(events[begin:end], history_event))
            await in_slices(let_go(events))
            return shown, begin, end, total
        except (ValueError, OverflowError) as error:
            raise StoreDamagedError(
                f"the history of {instance_id!r} is damaged: {error}"
            ) from error

    async def query_page(
        self,
        *,
        payloads: bool = True,
        page_size: int = 100,
        order: Order = "oldest",
        continuation_token: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> Page[OrchestrationStatus]:
        filter = self._filter(payloads=payloads, page_size=page_size, order=order, **conditions)
        filter = evolve(filter, after=read_token(continuation_token, filter))
        found: list[InstanceRecord] = []
        for partition in self._all():
            run = await partition.store.query_instances(filter)
            found = await in_slices(
                first_of([found, run], _place_in_order, filter.limit, reverse=filter.newest)
            )
        last: str | None = None
        if len(found) >= filter.limit:
            last = make_token(found[-1].created, found[-1].key, filter)
        items = await in_slices(map_each(found, instance_status))
        await in_slices(let_go(found))
        return Page(items, last)

    async def count(self, **conditions: Unpack[InstanceConditions]) -> int:
        filter = self._filter(**conditions)
        return sum([await place.store.count_instances(filter) for place in self._all()])

    def changes(
        self,
        *,
        after: str | None = None,
        instance_id: str | None = None,
        **conditions: Unpack[InstanceConditions],
    ) -> Changes:
        partitions = tuple(range(len(self._all())))
        if instance_id is not None:
            partitions = (partition_of(check_instance_id(instance_id), len(partitions)),)
        return Changes(
            lambda index: self._all()[index],
            self._wait_moved,
            partitions,
            self._filter(**conditions),
            instance_id,
            after,
            self._readings if self._here() == self._home.door else Readings(),
        )

    @cached_property
    def _readings(self) -> Readings:
        return Readings()

    def _filter(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] | None = None,
        name: str | Callable[..., Any] | None = None,
        instance_id_prefix: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        completed_from: datetime | None = None,
        completed_to: datetime | None = None,
        parent_instance_id: str | None = None,
        failure_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        parked: bool | None = None,
        waiting_for: str | None = None,
        min_attempts: int | None = None,
        payloads: bool = True,
        page_size: int = 100,
        order: Order = "oldest",
    ) -> InstanceFilter:
        return InstanceFilter(
            statuses=tuple(read_statuses(statuses)),
            name=self._name_of(name),
            prefix=optional_text(instance_id_prefix, "instance_id_prefix"),
            created_from=optional_timestamp(created_from, "created_from"),
            created_to=optional_timestamp(created_to, "created_to"),
            updated_from=optional_timestamp(updated_from, "updated_from"),
            updated_to=optional_timestamp(updated_to, "updated_to"),
            completed_from=optional_timestamp(completed_from, "completed_from"),
            completed_to=optional_timestamp(completed_to, "completed_to"),
            parent=optional_text(parent_instance_id, "parent_instance_id"),
            failure_type=optional_text(failure_type, "failure_type"),
            tags=() if tags is None else tuple(sorted(labels(tags).items())),
            parked=optional_flag(parked, "parked"),
            waits=read_wait(waiting_for),
            attempts=read_attempts(min_attempts),
            newest=choice(order, "order", ("oldest", "newest")) == "newest",
            limit=check_page_size(page_size),
            payloads=flag(payloads, "payloads"),
        )

    def _name_of(self, name: str | Callable[..., Any] | None) -> str | None:
        """Give the stored name of an orchestration; a text may be one that is registered no more."""
        if name is None or is_a(name, str):
            return optional_text(name, "name")
        return self._lookup.registry.find_orchestration(cast("Any", name)).name

    async def _read(self, instance_id: str) -> InstanceRecord:
        records = await self._partition(instance_id).store.read_instances([instance_id])
        if not records:
            raise InstanceNotFoundError(instance_id)
        return records[0]


def _place_in_order(record: InstanceRecord) -> tuple[int, str]:
    """Give where an instance of a query stands among all that it finds."""
    return record.created, record.key
