"""A session: the side of a connection that is asked. It answers on the same connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from ...actors.errors import InternalError, PerdureError, UnavailableError, UsageError
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from ..placement.places import MovedError
from ..scheduling.hidden_tasks import TaskGroup
from ..transport.admission import Limits
from ..transport.lines import OVER
from ..transport.verbs import REFUSE, VERBS
from ..transport.wire import Item, ItemKind

if TYPE_CHECKING:
    from ...actors.messages import Caller
    from ..placement.places import Hosted
    from ..transport.channels import Channel
    from ..transport.verbs import Form, Handler, Handlers, Verb
    from .shard import Shard

_log = Log("perdure.lines")

#: Requests of one connection that may be without an answer, and bytes of what they bring.
REQUESTS_MAX = 100_000
REQUESTS_SIZE_MAX = 64 * 1024 * 1024
#: Bytes that a frame of requests may have, besides those of four of the largest payloads.
REQUEST_SIZE_MAX = 12 * 1024 * 1024
#: Pages and histories that are read for one connection, up to when they are on their way.
READS_MAX = 32


class Session:
    """Takes what comes over one channel.

    Args:
        channel: the connection.
        shard: whose partitions are asked; None where only ``handlers`` are.
        handlers: what else may be asked, by verb; who asks ``govern`` has the shard end with the
            session.
        trusted: whether the other side is of the hub. All that anybody else sends is checked, and
            he may only do what a client does.
        payload_max: bytes of the largest value, where there is no shard to say so.
        relays: whether what is asked of partitions elsewhere is passed on.
    """

    def __init__(
        self,
        channel: Channel,
        shard: Shard | None,
        handlers: Handlers,
        *,
        trusted: bool,
        payload_max: int = 0,
        relays: bool = False,
    ) -> None:
        self._channel = channel
        self._trusted = trusted
        self._relays = relays
        self._shard = shard
        self._limits: Limits | None = None  # of what is checked
        self._handlers = handlers
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._watches: dict[int, Callable[[], None]] = {}  # what ends each that needs no task
        self._tasks: TaskGroup | None = None
        self._open: dict[int, int] = {}  # requests without an answer, with bytes of their payload
        self._size = 0
        self._reading = anyio.Semaphore(READS_MAX)
        payload = payload_max if shard is None else shard.settings.max_payload
        if shard is not None and not trusted:
            self._limits = Limits(len(shard.router.places), payload)
        channel.take_requests(REQUEST_SIZE_MAX + 4 * payload)
        self.governs = False
        self._is_over = False

    async def run(self) -> None:
        """Answer until the connection ends."""
        async with TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._channel.run(self.take)
            finally:
                for number in list(self._watches):
                    self._unwatch(number)
                tasks.cancel_scope.cancel()

    def _unwatch(self, number: int) -> None:
        undo = self._watches.pop(number)
        self._forget(number)
        undo()

    def take(self, items: list[Item]) -> None:
        """Take what came in one go."""
        shard = self._shard
        for item in items:
            kind = item[0]
            if kind == "ask":
                _, number, verb, arguments = item
                self._ask(number, verb, arguments)
            elif kind == "drop":
                number = item[1]
                if number in self._scopes:
                    self._scopes[number].cancel()
                elif number in self._watches:
                    self._unwatch(number)
            elif shard is not None and self._trusted:
                ITEMS[kind](shard, *item[1:])
            else:
                raise InternalError(f"a client sent {kind!r}, which only shards may")

    def watch(self, number: int, undo: Callable[[], None]) -> None:
        """Have something undone where a request is taken back before it is answered."""
        self._watches[number] = undo

    def answer(self, number: int, value: Any) -> None:
        """Send an answer."""
        if self._watches:
            self._watches.pop(number, None)
        self._forget(number)
        self._channel.post(("answer", number, value))

    def end(self) -> None:
        """Do nothing more of what is asked, and say so, unless something has no answer yet.

        What the other side has asked by then and gets no answer to did not happen.
        """
        if not self._open and not self._is_over:
            self._is_over = True
            self._channel.post(("answer", OVER, None))

    def _forget(self, number: int) -> None:
        self._size -= self._open.pop(number, 0)

    def _check_room(self) -> None:
        """Refuse a request where too many have no answer.

        Raises:
            UnavailableError: the connection has too many.
        """
        if len(self._open) >= REQUESTS_MAX or self._size > REQUESTS_SIZE_MAX:
            raise UnavailableError(
                f"{len(self._open):,} requests of this connection, with {self._size:,} bytes, have "
                "no answer yet: wait for some of them, and repeat it"
            )

    def _weigh(self, number: int, form: Form, arguments: list[Any]) -> None:
        """Take note of what a request brings, until it is answered."""
        if form.weigh is not None:
            size = form.weigh(arguments[form.place])
            self._open[number] += size
            self._size += size

    def _ask(self, number: int, verb: Any, arguments: list[Any]) -> None:
        reply = Answer(self, number)
        if self._is_over:
            reply.fail(MovedError("this process ends, and has nothing any more"))
            return
        try:
            self._check_room()
        except UnavailableError as error:
            reply.fail(error)
            return
        self._forget(number)  # given twice, by a mistake of the other side
        self._open[number] = 0
        handler = self._handlers.get(verb)
        if handler is not None:
            self.governs = self.governs or verb == "govern"
            if verb == "look":
                self._start(number, self._look, handler, *arguments)
            else:
                self._start(number, handler, *arguments)
            return
        if verb == REFUSE:  # the asking side could not write what it asked
            reply.fail(UsageError(arguments[0]))
            return
        known = VERBS.get(verb)
        if known is None:
            _log.error("refused a request for %r, which there is none of", verb)
            reply.fail(InternalError(f"unknown request {verb!r}"))
            return
        if len(arguments) != known.count + 1:
            reply.fail(UsageError(f"{verb} was asked with {len(arguments)} arguments"))
            return
        door = None if self._shard is None else self._shard.hosted.get(arguments[0])
        if door is None and not self._relays:
            reply.fail(MovedError(f"partition {arguments[0]} is not here"))
            return
        try:
            if self._limits is not None:
                known.check(self._limits, *arguments)
            if known.form is not None:
                self._weigh(number, known.form, arguments)
            if door is None:
                self._pass_on(known, number, *arguments)
            else:
                self._do(known, door, reply, number, arguments[1:])
        except PerdureError as error:
            reply.fail(error)

    def _pass_on(self, verb: Verb, number: int, partition: int, *arguments: Any) -> None:
        """Ask a partition that is elsewhere, for somebody who cannot reach it."""
        assert self._shard is not None
        place: Any = self._shard.router.places[partition]  # what verbs ask of it, it has
        if verb.reads:
            self._start(number, self._read_elsewhere, verb, place, *arguments)
        else:
            self._start(number, verb.serve, place, *arguments)

    async def _read_elsewhere(self, verb: Verb, place: Any, *arguments: Any) -> Any:
        async with self._reading:  # as for what is read here
            await self._channel.sent()
            return await verb.serve(place, *arguments)

    def _do(
        self, verb: Verb, door: Hosted, reply: Answer, number: int, arguments: list[Any]
    ) -> None:
        if verb.at_once is not None and verb.at_once(door, reply, *arguments):
            return
        if verb.reads:
            self._start(number, self._read, verb, door, *arguments)
        else:
            self._start(number, verb.serve, door, *arguments)

    async def _look(self, handler: Handler, *arguments: Any) -> Any:
        async with self._reading:  # as for what is read of a partition
            await self._channel.sent()
            return await handler(*arguments)

    async def _read(self, verb: Verb, door: Hosted, *arguments: Any) -> Any:
        # What was read before is on its way by now, so no more than a few answers gather.
        async with self._reading:
            await self._channel.sent()
            return await door.read(verb.serve(door, *arguments))

    def _start(self, number: int, work: Handler, *arguments: Any) -> None:
        assert self._tasks is not None
        # Now, since the request may be taken back before the task begins.
        scope = self._scopes[number] = anyio.CancelScope()
        self._tasks.start_soon(self._work, number, scope, work, arguments)

    async def _work(
        self, number: int, scope: anyio.CancelScope, work: Handler, arguments: tuple[Any, ...]
    ) -> None:
        try:
            with scope:
                self.answer(number, await work(*arguments))
        except PerdureError as error:
            self.answer(number, error)
        except Exception as error:
            _log.error("a request failed", why=error)
            self.answer(number, InternalError(f"{type_name(error)}: {text_of(error)}"))
        finally:
            self._forget(number)
            self._scopes.pop(number, None)  # a number given twice is the other side's mistake


class Answer:
    """A waiter whose outcome goes back over the session."""

    __slots__ = ("_number", "_session")

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number

    def set(self, value: Any) -> None:
        """Answer with a value."""
        self._session.answer(self._number, value)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self._session.answer(self._number, error)

    def drop_with(self, undo: Callable[[], None]) -> None:
        """Have something undone where the request is taken back before it is answered."""
        self._session.watch(self._number, undo)

    def __await__(self) -> Any:
        raise NotImplementedError("it is awaited elsewhere")


def _receive(shard: Shard, target: int, source: int, frame: Any) -> None:
    door = shard.hosted.get(target)
    if door is not None:
        door.receive(source, frame)


def _acknowledge(shard: Shard, number: int, target: int, last: int) -> None:
    door = shard.hosted.get(number)
    if door is not None:
        door.acknowledge(target, last)


def _resend(shard: Shard, number: int, target: int) -> None:
    door = shard.hosted.get(number)
    if door is not None:
        door.resend(target)


def _complete(shard: Shard, number: int, instance_id: str, completion: Any) -> None:
    shard.router.places[number].post_answer(instance_id, completion)


def _cancel(shard: Shard, caller: Caller) -> None:
    shard.activities.cancel(caller)


def _reply(shard: Shard, number: int, value: Any) -> None:
    shard.replies.take(number, value)


def _place(shard: Shard, owners: list[int], incarnations: list[int]) -> None:
    shard.router.place(owners, incarnations)


#: What a shard does with each kind of item that is no request.
ITEMS: dict[ItemKind, Callable[..., None]] = {
    "frame": _receive,
    "ack": _acknowledge,
    "resend": _resend,
    "completion": _complete,
    "cancel": _cancel,
    "reply": _reply,
    "placement": _place,
}
