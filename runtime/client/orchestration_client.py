"""The part of the client that is about orchestrations: start, wait, tell, delete."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack

from attrs import evolve

from ...actors.arguments import choice, flag, is_a, labels, refusal
from ...actors.codec import Codec, codec_for
from ...actors.errors import (
    InstanceFinishedError,
    InstanceNotFoundError,
    StoreDamagedError,
    UsageError,
)
from ...actors.ids import EntityId, check_instance_id, check_text
from ...actors.messages import Command, Event, Fork, OnExisting, Start
from ...actors.replay.stored import read_history
from ...actors.times import due_time
from ...actors.values import MISSING, TERMINAL, check_event_name
from ...storage.records import InstanceFilter, InstanceRecord
from ...storage.slices import in_slices, let_go
from ..placement.places import MovedError
from .client import PurgeConditions, check_conditions, check_fork
from .handle import OrchestrationHandle
from .instance_queries import InstanceQueries
from .pages import read_statuses
from .status import ending_error, stored_failure

A = TypeVar("A")
R = TypeVar("R")

PURGE_SLICE = 1_000
"""How many instances one checkpoint deletes: some tens of milliseconds of work for the tables."""


class OrchestrationClient(InstanceQueries):
    """What a client can do with orchestrations."""

    async def start_new(
        self,
        f: Any,
        input: Any = MISSING,
        /,
        *,
        instance_id: str | None = None,
        version: str | None = None,
        tags: Mapping[str, str] | None = None,
        start_at: datetime | timedelta | float | None = None,
        on_existing: OnExisting = "reject",
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        definition = self._lookup.registry.find_orchestration(f, version)
        data = self._lookup.encode_input(definition, input, f)
        given: object = on_existing
        if type(given) is not str or given != "reject":
            on_existing = choice(on_existing, "on_existing", ("reject", "reuse", "replace"))
        due = None if start_at is None else due_time(start_at, self._clock.now(), "start_at")
        message = Start(
            definition.name,
            definition.version,
            data,
            tags=None if tags is None else _encode_tags(tags),
            start_at=due,
            on_existing=on_existing,
        )
        message.carried = self._lookup.carry()
        if message.tags is not None:
            self._lookup.check_size(message.tags, "the tags")
        if instance_id is None and request_id is None:
            new_id = self._new_instance_id()
            try:
                await self._at(new_id, lambda place: place.request_new(new_id, message))
            except Exception:
                message.reply = None  # as in _request()
                raise
            return OrchestrationHandle(self, new_id, definition.output)
        if instance_id is None:
            assert request_id is not None
            instance_id = _id_of(request_id)
        instance_id = check_instance_id(instance_id)
        await self._request(instance_id, message, request_id)
        return OrchestrationHandle(self, instance_id, definition.output)

    async def ending(self, instance_id: str) -> tuple[str, bytes | None, bytes | None]:
        """Wait for an instance's end, and give its status, output and failure."""
        while True:
            outcome = await self._at(instance_id, lambda place: place.wait_for_end(instance_id))
            if outcome is not None:
                return outcome

    async def _wait(self, instance_id: str, codec: Codec[Any] | None) -> Any:
        ending = None
        while ending is None:
            try:  # as in _at(), without a call for each that waits
                ending = await self._partition(instance_id).wait_for_end(instance_id)
            except MovedError:
                await self._wait_moved()
        status, output, failure = ending
        if status != "Completed":
            raise ending_error(instance_id, status, stored_failure(failure))
        if codec is None:
            codec = await self._output_codec(instance_id)
        return codec.decode(output or b"null")

    async def _output_codec(self, instance_id: str) -> Codec[Any]:
        record = await self._read(instance_id)
        try:
            codec: Codec[Any] = self._lookup.registry.exact_orchestration(
                record.name, record.version
            ).output
        except UsageError:
            return codec_for(Any)
        return codec

    async def raise_event(
        self, instance_id: str, name: str, data: Any = None, *, request_id: str | None = None
    ) -> None:
        event = Event(check_event_name(name), self._lookup.encode_any(data))
        await self._request(check_instance_id(instance_id), event, request_id)

    async def terminate(
        self, instance_id: str, reason: str = "", *, recursive: bool = True
    ) -> None:
        command = Command("terminate", reason, flag(recursive, "recursive"))
        await self._command(instance_id, command)

    async def cancel(self, instance_id: str, reason: str = "") -> None:
        await self._command(instance_id, Command("cancel", reason))

    async def suspend(self, instance_id: str, reason: str = "") -> None:
        await self._command(instance_id, Command("suspend", reason))

    async def resume(self, instance_id: str, reason: str = "") -> None:
        await self._command(instance_id, Command("resume", reason))

    async def retry(self, actor: str | EntityId[Any]) -> None:
        key = str(actor) if is_a(actor, EntityId) else check_instance_id(actor, "actor")
        await self._request(key, Command("retry"))

    async def rewind(self, instance_id: str, reason: str = "", *, force: bool = False) -> None:
        command = Command("rewind", reason, force=flag(force, "force"))
        await self._command(instance_id, command)

    async def restart(
        self,
        instance_id: str,
        *,
        with_new_instance_id: bool = True,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        instance_id = check_instance_id(instance_id)
        flag(with_new_instance_id, "with_new_instance_id")
        if request_id is not None:
            request_id = check_text(request_id, "request_id")
        record = await self._read(instance_id)
        message = Start(record.name, record.version, record.input, tags=record.tags)
        message.carried = self._lookup.carry()
        new_id = instance_id
        if with_new_instance_id:
            new_id = self._new_instance_id() if request_id is None else _id_of(request_id)
        await self._request(new_id, message, request_id)
        return self.get_handle(new_id)

    async def fork(
        self,
        instance_id: str,
        *,
        at: int,
        new_instance_id: str | None = None,
        request_id: str | None = None,
    ) -> OrchestrationHandle[Any]:
        # Here, since hardly an instance is ever forked.
        from ...actors.orchestrations.fork import write_up_to

        instance_id, new_id, request_id = check_fork(instance_id, at, new_instance_id, request_id)
        if new_id is None:
            new_id = self._new_instance_id() if request_id is None else _id_of(request_id)
        record, events = await self._read_begun(instance_id)
        history = await in_slices(write_up_to(events, at, instance_id))
        await in_slices(let_go(events))
        message = Fork(
            record.name, record.version, record.input, instance_id, at, history, tags=record.tags
        )
        await self._request(new_id, message, request_id)
        return self.get_handle(new_id)

    async def _read_begun(self, instance_id: str) -> tuple[InstanceRecord, list[list[Any]]]:
        """Read an instance, and the history of the same execution."""
        while True:
            record = await self._read(instance_id)
            store = self._partition(instance_id).store
            chunks = await store.read_history(record.id)
            try:
                events = await in_slices(read_history(chunks, None))
            except ValueError as error:
                raise StoreDamagedError(
                    f"the history of {instance_id!r} is damaged: {error}"
                ) from error
            if not events or events[0][4:5] in ([], [record.execution]):
                return record, events  # else another took its place in between

    async def purge_instance(self, instance_id: str, *, recursive: bool = True) -> int:
        flag(recursive, "recursive")
        instance_id = check_instance_id(instance_id)
        record = await self._read(instance_id)
        await self._command(instance_id, Command("purge", recursive=recursive))
        parents = [(instance_id, record.parked is not None)]
        return 1 + (await self._purge_children(parents) if recursive else 0)

    async def purge(self, *, recursive: bool = True, **conditions: Unpack[PurgeConditions]) -> int:
        flag(recursive, "recursive")
        check_conditions(PurgeConditions, conditions)
        wanted = read_statuses(conditions.pop("statuses", None))
        every = self._filter(**conditions, payloads=False, page_size=PURGE_SLICE)
        deleted = 0
        ended = tuple(status for status in wanted or sorted(TERMINAL) if status in TERMINAL)
        if ended:
            deleted += await self._purge_all(evolve(every, statuses=ended), recursive)
        alive = tuple(status for status in wanted if status not in TERMINAL)
        if alive or not wanted:
            parked = evolve(every, statuses=alive, parked=True)
            deleted += await self._purge_all(parked, recursive)
        return deleted

    async def _purge_all(self, filter: InstanceFilter, recursive: bool) -> int:
        """Delete what a filter finds in each partition, page by page."""
        deleted = 0
        for index in range(len(self._all())):
            after: tuple[int, str] | None = None
            while True:
                page = evolve(filter, after=after)
                found = await self._all()[index].store.query_instances(page)
                if found:
                    keys = [record.key for record in found]
                    deleted += await self._purge_some(keys, recursive)
                    after = (found[-1].created, found[-1].key)
                if len(found) < filter.limit:
                    break
        return deleted

    async def _purge_some(self, keys: list[str], recursive: bool) -> int:
        """Delete instances of one partition, and their children."""
        gone = await self._at(keys[0], lambda place: place.purge_ended(keys))
        return len(gone) + (await self._purge_children(gone) if recursive and gone else 0)

    async def _purge_children(self, parents: Sequence[Sequence[Any]]) -> int:
        """Delete the children of instances that are gone; those of parked ones are ended first."""
        deleted = 0
        was_parked = {key for key, parked in parents if parked}
        filter = InstanceFilter(
            parents=tuple(key for key, _ in parents), payloads=False, limit=PURGE_SLICE
        )
        for index in range(len(self._all())):
            after: tuple[int, str] | None = None
            while True:
                page = evolve(filter, after=after)
                found = await self._all()[index].store.query_instances(page)
                for record in found:
                    if record.parent in was_parked and record.status not in TERMINAL:
                        with suppress(InstanceNotFoundError, InstanceFinishedError):
                            await self.terminate(record.key, "its parent was purged")
                if found:
                    deleted += await self._purge_some([record.key for record in found], True)
                    after = (found[-1].created, found[-1].key)
                if len(found) < filter.limit:
                    break
        return deleted

    async def _command(self, instance_id: str, command: Command) -> Any:
        if not is_a(command.reason, str):
            raise refusal("reason", "a str", command.reason)
        self._lookup.encode_any(command.reason)  # refuses what would crash the turn
        return await self._request(check_instance_id(instance_id), command)


def _encode_tags(tags: Mapping[str, str]) -> bytes | None:
    given = labels(tags)
    return codec_for(dict[str, str]).encode(given) if given else None


def _id_of(request_id: str) -> str:
    """Give the same instance id at each repetition, so that the same handle is returned."""
    return uuid.uuid5(uuid.NAMESPACE_OID, check_text(request_id, "request_id")).hex
