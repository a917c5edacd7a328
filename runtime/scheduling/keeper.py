"""Keeps running what must not end: where it ends all the same, that is said, and it begins anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, cast

import anyio

from ...actors.errors import InternalError
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from .hands import Hand, HandFactory, hand_factory
from .waiter import is_cancellation

_log = Log("perdure.hub")

_WAIT_S = 0.05
_WAIT_MAX_S = 5.0
_IN_VAIN_MAX = 20
_PERSIST_MAX_S = 60.0
_LONG_S = 10.0  # what ran for so long did not begin in vain

Loop = Callable[[], Coroutine[Any, Any, bool]]


def first_of(error: BaseException) -> BaseException:
    """Give the error itself, or the first one inside a group."""
    while issubclass(type(error), BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


class _Kept:
    def __init__(self, name: str, loop: Loop, repair: Callable[[InternalError], None]) -> None:
        self.name = name
        self.loop = loop
        self.repair = repair
        self.scope: anyio.CancelScope | None = None
        self.is_done = False
        self.in_vain = 0
        self.began = 0.0


class Keeper:
    """The loops of a shard, each in a task of its own that no other task can take along.

    Attributes:
        restarts: how many have ended, and were begun anew.
        on_interrupt: told of Ctrl-C that met one of them.
        on_fatal: told of one that ends whenever it begins.
    """

    def __init__(self) -> None:
        self._make_hand: HandFactory | None = None
        self._kept: dict[Hand, _Kept] = {}
        self._stopping = False
        self._changed = anyio.Event()
        self.restarts = 0
        self.on_interrupt: Callable[[], None] = lambda: None
        self.on_fatal: Callable[[Exception], None] = lambda error: None

    @property
    def is_running(self) -> bool:
        """Whether it has begun."""
        return self._make_hand is not None

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._make_hand = hand_factory()

    def keep(
        self, name: str, loop: Loop, repair: Callable[[InternalError], None] = lambda error: None
    ) -> None:
        """Run a loop until it gives True; ``repair`` is called before it is begun anew."""
        if not self._stopping:
            self._begin(_Kept(name, loop, repair))

    async def persist(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do what must not end, and what the hub can do without for a while, until it returns.

        Where it raises, that is said and counted, and it begins anew after a pause that grows.
        """
        in_vain = 0
        while True:
            began = monotonic()
            try:
                await work()
                return
            except BaseException as raised:
                error = first_of(raised)
                if is_cancellation(error) or is_interrupt(error):
                    raise
            self.restarts += 1
            in_vain = 0 if monotonic() - began > _LONG_S else in_vain + 1
            wait = min(_WAIT_S * 2.0**in_vain, _PERSIST_MAX_S)
            what = f"{name} ended ({type_name(error)}: {text_of(error)})"
            _log.error("%s, and is begun anew in %.1f seconds", what, wait, why=error)
            await anyio.sleep(wait)

    @property
    def count(self) -> int:
        """How many loops it keeps."""
        return len(self._kept)

    def _begin(self, kept: _Kept) -> None:
        async def run(hand: Hand) -> None:
            with anyio.CancelScope() as kept.scope:
                if self._stopping:
                    return
                if kept.in_vain:
                    await anyio.sleep(min(_WAIT_S * 2.0**kept.in_vain, _WAIT_MAX_S))
                kept.began = monotonic()
                kept.is_done = await kept.loop()

        assert self._make_hand is not None
        self._kept[self._make_hand(run, self._on_end)] = kept

    def _on_end(self, hand: Hand, error: BaseException | None) -> None:
        kept = self._kept.pop(hand)
        self._changed.set()
        if kept.is_done or self._stopping:
            return
        why = ""
        if error is not None:
            error = first_of(error)
            why = f" ({type_name(error)}: {text_of(error)})"
        trouble = InternalError(f"{kept.name} ended{why}")
        if error is not None and is_interrupt(error):
            self.on_interrupt()
        self.restarts += 1
        lasted = monotonic() - kept.began if kept.began else 0.0
        kept.in_vain = 0 if lasted > _LONG_S else kept.in_vain + 1
        kept.began = 0.0
        if kept.in_vain > _IN_VAIN_MAX:
            self.on_fatal(trouble)
            return
        _log.error("%s, and is begun anew", trouble, why=error)
        kept.repair(trouble)
        self._begin(kept)

    async def stop(self) -> None:
        """Cancel them all, and wait for their ends: what they are committing is committed."""
        self._stopping = True
        for kept in self._kept.values():
            if kept.scope is not None:
                kept.scope.cancel()
        while self._kept:
            self._changed = anyio.Event()
            await self._changed.wait()
