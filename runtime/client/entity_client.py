"""The part of the client that is about entities: call, signal, look, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar, Unpack, cast

import anyio
from attrs import evolve

from ...actors.arguments import flag, is_a, optional_flag, optional_text, refusal, several
from ...actors.entities.stripes import MARK
from ...actors.errors import EntityOperationError, FailureDetails, InvalidIdError, PerdureError
from ...actors.ids import EntityId, check_text, entity_id
from ...actors.logs import Log
from ...actors.messages import Command, Operation
from ...actors.registry.definitions import OperationDefinition
from ...actors.times import due_time, optional_timestamp, seconds
from ...actors.values import MISSING
from ...storage.records import EntityFilter, EntityRow
from ...storage.slices import Breath, each, first_of, in_slices
from ..placement.hashing import partition_of
from ..placement.stripe_router import StripeRouter
from ..scheduling.hidden_tasks import TaskGroup
from .client import EntityConditions, Signal
from .pages import Page, check_page_size, make_entity_token, read_entity_token
from .requester import Requester
from .status import EntityStatus, entity_status

_log = Log("perdure.client")

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class EntityClient(Requester):
    """What a client can do with entities."""

    async def call_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        timeout: float | timedelta | None = None,
        request_id: str | None = None,
    ) -> Any:
        operation = self._lookup.find_operation(id, op)
        address, message = self._call(id, operation, op, input, request_id)
        if timeout is None:
            answer = await self._request(address, message, request_id)
        else:
            answer = None
            limit = seconds(timeout, "timeout")
            with anyio.move_on_after(limit) as scope:
                answer = await self._request(address, message, request_id)
            if scope.cancelled_caught:
                raise TimeoutError(f"no answer from {id}.{operation.name} in {limit:g} seconds")
        if type(answer) is FailureDetails:
            raise EntityOperationError(f"{id}.{operation.name}", answer)
        return operation.output.decode(answer or b"null")

    async def call_plain(
        self, id: EntityId[Any], op: str, input: Any, request_id: str | None
    ) -> bytes:
        """Call an entity's operation and give its result as JSON; see ``call_entity``."""
        operation = self._lookup.find_operation(id, op)
        address, message = self._call(id, operation, op, input, request_id)
        answer = await self._request(address, message, request_id)
        if type(answer) is FailureDetails:
            raise EntityOperationError(f"{id}.{operation.name}", answer)
        return answer or b"null"

    def _call(
        self,
        id: EntityId[Any],
        operation: OperationDefinition,
        op: Any,
        input: Any,
        request_id: str | None,
    ) -> tuple[str, Operation]:
        """Make the message of a call, and give it with the key of the actor that takes it."""
        data = self._lookup.encode_input(operation, input, op)
        address = self._address(str(id), operation, request_id)
        message = Operation(operation.name, data, True)
        if self._lookup.registry.context_vars or self._lookup.tracer is not None:
            message.carried = self._lookup.carry()
        return address, message

    async def signal_entity(
        self,
        id: EntityId[Any],
        op: Any,
        input: Any = MISSING,
        /,
        *,
        at: datetime | timedelta | float | None = None,
        request_id: str | None = None,
    ) -> None:
        operation = self._lookup.find_operation(id, op)
        data = self._lookup.encode_input(operation, input, op)
        key = self._address(str(id), operation, request_id)
        message = Operation(operation.name, data)
        if self._lookup.registry.context_vars or self._lookup.tracer is not None:
            message.carried = self._lookup.carry()
        if at is None:
            await self._request(key, message, request_id)
        else:
            due = due_time(at, self._clock.now())
            if request_id is not None:
                await self._claim(check_text(request_id, "request_id"), key, message)
            await self._request_later(key, message, due, request_id)

    async def signal_entities(self, signals: Iterable[Signal]) -> None:
        parcels: dict[int, list[tuple[str, Operation]]] = {}
        later: list[tuple[str, Operation, int]] = []
        count = len(self._all())
        taken = "an iterable of (entity, operation, input) or (entity, operation, input, at)"
        for signal in several(signals, "signals", taken):
            at: Any = None
            try:
                if len(signal) == 3:
                    id, op, input = signal
                else:
                    id, op, input, at = signal
            except Exception:
                raise refusal("each of signals", taken[15:], signal) from None
            operation = self._lookup.find_operation(id, op)
            data = self._lookup.encode_input(operation, input, op)
            key = self._address(str(id), operation)
            message = Operation(operation.name, data)
            message.carried = self._lookup.carry()
            if at is None:
                parcels.setdefault(partition_of(key, count), []).append((key, message))
            else:
                later.append((key, message, due_time(at, self._clock.now())))
        if len(parcels) == 1 and not later:
            [some] = parcels.values()
            await self._request_all(some)
        elif parcels or later:
            await self._request_many(parcels, later)

    async def _request_many(
        self,
        parcels: dict[int, list[tuple[str, Operation]]],
        later: list[tuple[str, Operation, int]],
    ) -> None:
        errors: list[PerdureError] = []

        async def send(work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
            try:
                await work(*arguments)
            except PerdureError as error:
                errors.append(error)

        async with TaskGroup() as tasks:
            for some in parcels.values():
                tasks.start_soon(send, self._request_all, some)
            for one in later:
                tasks.start_soon(send, self._request_later, *one)
        if errors:
            try:
                raise errors[0]
            finally:
                errors.clear()  # they lead here by their tracebacks

    async def _request_later(
        self, key: str, message: Operation, due: int, request_id: str | None = None
    ) -> None:
        await self._at(key, lambda place: place.request_later(key, message, due, request_id))

    async def _request_all(self, parcels: list[tuple[str, Operation]]) -> None:
        key, _ = parcels[0]
        await self._at(key, lambda place: place.request_all(parcels))

    async def read_entity_state(self, id: EntityId[E]) -> E | None:
        row = await self._read_entity(id)
        if row is None or row.state is None:
            return None
        state: E = self._lookup.registry.find_entity(id.name).state.decode(row.state)
        return state

    async def get_entity(self, id: EntityId[E]) -> EntityStatus[E] | None:
        row = await self._read_entity(id)
        if row is None:
            return None
        waiting = await self._partition(str(id)).store.waiting([str(id)])
        return entity_status(row, self._lookup, waiting.get(str(id), 0))

    async def _read_entity(self, id: EntityId[Any]) -> EntityRow | None:
        entity_id(id)
        if self._lookup.registry.find_entity(id.name).stripes is not None:
            await self._request(str(id), Command("fold"))
        rows = await self._partition(str(id)).store.read_entities([(id.name, id.key)])
        return rows[0] if rows else None

    async def query_entities_page(
        self,
        *,
        after: EntityId[Any] | None = None,
        page_size: int = 100,
        continuation_token: str | None = None,
        **conditions: Unpack[EntityConditions],
    ) -> Page[EntityStatus[Any]]:
        filter = self._entity_filter(page_size=page_size, **conditions)
        seen = None if after is None else (entity_id(after, "after").name, after.key)
        filter = evolve(filter, after=read_entity_token(continuation_token, filter) or seen)
        breath = Breath()
        found: list[tuple[EntityRow, int]] = []
        for index, partition in enumerate(self._all()):
            rows = await partition.store.query_entities(filter)
            run = [(row, index) for row in rows]
            found = await in_slices(first_of([found, run], _place_in_order, filter.limit))
        waiting = await self._count_waiting(found)
        items: list[EntityStatus[Any]] = []
        for row, _ in found:
            await breath.take()
            if MARK in row.key:
                continue  # a stripe is no entity of its own
            try:
                items.append(entity_status(row, self._lookup, waiting.get(_actor_of(row), 0)))
            except InvalidIdError as error:
                _log.error("a query passes over a damaged row of an entity: %s", error)
        if len(found) < filter.limit:
            return Page(items, None)
        return Page(items, make_entity_token(*_place_in_order(found[-1]), filter))

    def _entity_filter(
        self,
        *,
        page_size: int,
        name: str | Callable[..., Any] | None = None,
        key_prefix: str | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        locked: bool | None = None,
        parked: bool | None = None,
        include_empty: bool = False,
        states: bool = True,
    ) -> EntityFilter:
        locked, parked = optional_flag(locked, "locked"), optional_flag(parked, "parked")
        return EntityFilter(
            name=self._name_of_entity(name),
            prefix=optional_text(key_prefix, "key_prefix"),
            updated_from=optional_timestamp(updated_from, "updated_from"),
            updated_to=optional_timestamp(updated_to, "updated_to"),
            locked=locked,
            parked=parked,
            # Who asks for parked or locked ones means those without state, too.
            include_empty=flag(include_empty, "include_empty") or bool(parked) or bool(locked),
            limit=check_page_size(page_size),
            states=flag(states, "states"),
        )

    async def _count_waiting(self, page: list[tuple[EntityRow, int]]) -> dict[str, int]:
        """Count the stored messages of the entities of a page, partition by partition."""
        actors: dict[int, list[str]] = {}
        await in_slices(
            each(page, lambda one: actors.setdefault(one[1], []).append(_actor_of(one[0])))
        )
        waiting: dict[str, int] = {}
        places = self._all()
        for index, some in actors.items():
            waiting |= await places[index].store.waiting(some)
        return waiting

    async def purge_entity(self, id: EntityId[Any]) -> None:
        key = str(entity_id(id))
        await self._at(key, lambda place: place.wait_durable())
        await self._request(key, Command("purge"))

    def _name_of_entity(self, name: str | Callable[..., Any] | None) -> str | None:
        """Give the stored name of an entity; a text may be one that is registered no more."""
        if name is None or is_a(name, str):
            given = optional_text(name, "name")
            return None if given is None else given.casefold()
        return self._lookup.registry.find_entity(cast("Any", name)).name

    @cached_property
    def _stripes(self) -> StripeRouter:
        return StripeRouter(self._lookup, self._clock)

    def _address(
        self, key: str, operation: OperationDefinition, request_id: str | None = None
    ) -> str:
        """Give the key of the actor that takes an operation: the entity, or a stripe of it."""
        if request_id is not None:
            check_text(request_id, "request_id")
        if not operation.commutative:
            return key
        definition = self._lookup.registry.find_entity(operation.entity)
        return self._stripes.choose(definition, key, len(self._all()), request_id)

    def _is_striped(self, id: EntityId[Any]) -> bool:
        return id.name in self._lookup.striped


def _place_in_order(entry: tuple[EntityRow, int]) -> tuple[str, str]:
    """Give where an entity of a query stands among all that it finds."""
    row, _ = entry
    return row.name, row.key


def _actor_of(row: EntityRow) -> str:
    return f"@{row.name}@{row.key}"
