"""Queries: what is stored about orchestration instances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime

from ..actors.context import to_datetime
from ..actors.errors import InstanceNotFoundError
from ..actors.history import parse_history
from ..actors.ids import check_instance_id
from ..actors.values import RuntimeStatus
from ..storage.records import InstanceFilter, InstanceRecord
from .pages import (
    Page,
    check_page_size,
    make_token,
    optional_time,
    read_statuses,
    read_token,
)
from .requesting import Requester
from .status import HistoryEvent, OrchestrationStatus, instance_status


class InstanceQueries(Requester):
    """What a client can ask about orchestration instances."""

    async def get_status(self, instance_id: str) -> OrchestrationStatus | None:
        """Give an instance's status, as of the last checkpoint; None if there is none."""
        store = self._partition(check_instance_id(instance_id)).store
        records = await store.read_instances([instance_id])
        return instance_status(records[0]) if records else None

    async def get_history(self, instance_id: str) -> list[HistoryEvent]:
        """Give the events of an instance's history so far.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        record = await self._read(check_instance_id(instance_id))
        chunks = await self._partition(instance_id).store.read_history(record.id)
        return [
            HistoryEvent(event_type=event[0], timestamp=to_datetime(event[1]), fields=event[2:])
            for event in parse_history(chunks)
        ]

    async def query(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] = (),
        name: str | None = None,
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
        payloads: bool = True,
        page_size: int = 200,
    ) -> AsyncIterator[OrchestrationStatus]:
        """Find instances that match every condition given, oldest first.

        Times are aware datetimes, from inclusive, to exclusive. ``payloads=False`` leaves inputs
        and outputs out.
        """
        token: str | None = None
        while True:
            page = await self.query_page(
                statuses=statuses,
                name=name,
                instance_id_prefix=instance_id_prefix,
                created_from=created_from,
                created_to=created_to,
                updated_from=updated_from,
                updated_to=updated_to,
                completed_from=completed_from,
                completed_to=completed_to,
                parent_instance_id=parent_instance_id,
                failure_type=failure_type,
                tags=tags,
                parked=parked,
                payloads=payloads,
                page_size=page_size,
                continuation_token=token,
            )
            for status in page.items:
                yield status
            token = page.continuation_token
            if token is None:
                return

    async def query_page(
        self,
        *,
        statuses: Iterable[RuntimeStatus | str] = (),
        name: str | None = None,
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
        payloads: bool = True,
        page_size: int = 100,
        continuation_token: str | None = None,
    ) -> Page[OrchestrationStatus]:
        """Give one page of what ``query`` finds.

        Raises:
            UsageError: a bad continuation token, status or page size.
        """
        after = read_token(continuation_token)
        filter = InstanceFilter(
            statuses=tuple(read_statuses(statuses)),
            name=name,
            prefix=instance_id_prefix,
            created_from=optional_time(created_from),
            created_to=optional_time(created_to),
            updated_from=optional_time(updated_from),
            updated_to=optional_time(updated_to),
            completed_from=optional_time(completed_from),
            completed_to=optional_time(completed_to),
            parent=parent_instance_id,
            failure_type=failure_type,
            tags=tuple(sorted((tags or {}).items())),
            parked=parked,
            after=None if after is None else (int(after[0]), str(after[1])),
            limit=check_page_size(page_size),
            payloads=payloads,
        )
        found: list[InstanceRecord] = []
        for partition in self._all():
            found += await partition.store.query_instances(filter)
        found.sort(key=lambda record: (record.created, record.key))
        items, last = found[:page_size], None
        if len(found) > page_size or len(found) == page_size > 0:
            last = make_token(items[-1].created, items[-1].key)
        return Page([instance_status(record) for record in items], last)

    async def _read(self, instance_id: str) -> InstanceRecord:
        records = await self._partition(instance_id).store.read_instances([instance_id])
        if not records:
            raise InstanceNotFoundError(instance_id)
        return records[0]
