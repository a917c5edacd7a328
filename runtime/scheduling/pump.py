"""The pump: one deque of whatever has work, run inside real tasks, one of which leads.

The leader runs turns inline, one after another: no task, lock or stream per actor. When the code
of a turn truly suspends, the leader's task stays with it, and ends with it; a new task takes the
deque over. So users' code runs inside a real task of the event loop, where cancel scopes and
timeouts work, at a fraction of a task per message (after leader/followers: Schmidt et al., POSA 2,
2000), and what it does to that task ends with the task.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import anyio.lowlevel

from ...actors.errors import InternalError
from ...actors.interrupts import is_interrupt
from ...actors.logs import Log
from ...actors.printing import text_of, type_name
from .hands import Hand, HandFactory, hand_factory
from .sparing import Sparing
from .waiter import event_factory, on_asyncio

if TYPE_CHECKING:
    from ...storage.bells import Bell

_log = Log("perdure.pump")

_IN_VAIN_MAX = 20

T = TypeVar("T")


async def _wait(hand: Hand) -> None:
    await event_factory()().wait()


class Runnable(Protocol):
    """Something that can be given to the pump."""

    @property
    def title(self) -> str:
        """How the log calls it."""
        ...

    def run(self) -> Coroutine[Any, Any, None] | None:
        """Do the work, or give what has to be awaited for it. Must not raise."""
        ...

    def on_suspended(self, hand: Hand) -> None:
        """Take note that what ``run`` gave has suspended for the first time, in that task."""
        ...


class Pump:
    """Runs whatever is ready, in order.

    Invariant: while it runs, exactly one hand leads, or has been made to.

    Attributes:
        busy_s: seconds spent in turns, up to where they suspend.
        replaced: leaders that ended, or that users' code had spoilt, and others took over from.
        on_interrupt: told of Ctrl-C that met users' code.
        on_fatal: told that no leader lasts, so that nothing runs any more.
    """

    def __init__(self, budget_s: float) -> None:
        self._ready: deque[Runnable] = deque()
        self._budget_s = budget_s
        self._gate: anyio.Event | Bell | None = None
        self._lends = False  # whether turns run as if in the deputy, up to where they suspend
        self._new_gate: Callable[[], anyio.Event | Bell] = anyio.Event
        self._make_hand: HandFactory | None = None
        self._leader: Hand | None = None
        self._deputy: Hand | None = None  # for what other tasks run of users' code
        self._kept: dict[Hand, Runnable] = {}  # by work that suspended
        self._begun: tuple[Runnable, Coroutine[Any, Any, None]] | None = None
        # What work waits for that has just suspended. In no variable of a frame: errors of what is
        # waited for lead to that by their tracebacks, and would from there to themselves.
        self._trap: Any = None
        self._ended: anyio.Event | None = None  # set while stopping, when all hands have
        self._stopping = False
        self._in_vain = 0  # leaders in a row that ended before they did anything
        self._errors = Sparing(_log.error)
        self._warnings = Sparing(_log.warning)
        self.busy_s = 0.0
        self.replaced = 0
        self.on_interrupt: Callable[[], None] = lambda: None
        self.on_fatal: Callable[[Exception], None] = lambda error: None

    @property
    def suspended(self) -> int:
        """How much of the work has suspended."""
        return len(self._kept)

    @property
    def kept(self) -> list[Runnable]:
        """The work that has suspended."""
        return list(self._kept.values())

    @property
    def has_ready(self) -> bool:
        """Whether something waits for its turn."""
        return bool(self._ready)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is ready and nothing has suspended."""
        return not self._ready and not self._kept

    def put(self, item: Runnable) -> None:
        """Have the item run, behind those that are ready."""
        self._ready.append(item)
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    def put_alone(self, item: Runnable) -> None:
        """Have the item run in a task in which nothing ran before, and nothing will."""

        async def run(hand: Hand) -> None:
            work = item.run()
            if work is not None:
                await self._drive(hand, item, work, leads=False)

        if self._make_hand is not None and not self._stopping:
            self._make_hand(run, self._on_end)

    def start(self) -> None:
        """Begin to run, on the running event loop."""
        self._make_hand = hand_factory()
        # On trio, whoever sets an event for which code of a turn only seemed to wait wakes the task
        # of that turn, whatever that does then. The deputy does nothing, and takes no harm.
        self._lends = not on_asyncio()
        self._new_gate = event_factory()
        self._appoint()
        self._deputy = self._make_hand(_wait, self._on_end)

    def halt(self) -> None:
        """Begin with nothing more."""
        self._stopping = True
        for hand in (self._leader, self._deputy):
            if hand is not None:
                hand.cancel()

    async def stop(self, within_s: float) -> list[str]:
        """Halt, and cancel what has suspended; names what has not ended in time."""
        self.halt()
        # Told twice, since code may take the first for something else, and go on.
        for _ in range(2):
            for hand in list(self._kept):
                hand.cancel()
            with anyio.move_on_after(within_s / 2):
                while self._kept or self._leader is not None or self._deputy is not None:
                    self._ended = anyio.Event()
                    await self._ended.wait()
                break
        if self._begun is not None:
            self._begun[1].close()
        self._errors.tell()
        self._warnings.tell()
        for hand in self._kept:
            hand.leave_behind()
        left = [item.title for item in self.kept]
        for title in left:
            _log.error("left %s behind: it does not end where it is cancelled", title)
        return left

    def lend(self, function: Callable[[], T]) -> T:
        """Run what may call users' code in a task that must not be spoilt by it.

        Whatever that does to the current task is done to one that nobody needs.
        """
        deputy = self._deputy
        if deputy is None:
            return function()
        try:
            return deputy.lend(function)
        finally:
            if deputy.is_spoilt():
                deputy.give_up()
                self._replace_deputy(deputy)

    def _replace_deputy(self, hand: Hand) -> None:
        """Have another deputy, if that is what has ended or was spoilt."""
        if hand is not self._deputy:
            return
        self._deputy = None
        if not self._stopping:
            assert self._make_hand is not None
            self.replaced += 1
            self._errors.write(
                "the task that is lent to users' code is replaced: code has ended it, or left a "
                "cancel scope open"
            )
            self._deputy = self._make_hand(_wait, self._on_end)

    def _appoint(self) -> None:
        """Have a new hand lead."""
        assert self._make_hand is not None
        self._leader = self._make_hand(self._lead, self._on_end)

    def _replace(self, why: str, *values: Any) -> None:
        self.replaced += 1
        self._errors.write(f"the pump's task is replaced: {why}", *values)
        self._appoint()

    def _on_end(self, hand: Hand, error: BaseException | None) -> None:
        """Take note that a hand has ended, for whatever reason."""
        item = self._kept.pop(hand, None)
        if error is not None and is_interrupt(error):
            self.on_interrupt()
        elif item is not None and error is not None and not self._stopping:
            # Nothing of a user's comes here; and whatever does must not be silent.
            _log.error("%s ended: %s", item.title, type_name(error), why=error)
        self._replace_deputy(hand)
        if hand is self._leader:
            self._leader = None
            if not self._stopping:
                self._replace_ended(error)
        if self._ended is not None:
            self._ended.set()

    def _replace_ended(self, error: BaseException | None) -> None:
        reason = "" if error is None else f"{type_name(error)}: {text_of(error)}"
        self._in_vain += 1
        if self._in_vain > _IN_VAIN_MAX:
            # The event loop itself ends its tasks: the hub was not left before it closed.
            self.on_fatal(InternalError(f"no task of the pump lasts any more: {reason}"))
            return
        self._replace("code that ran in it ended it (%s)", reason)

    async def _lead(self, hand: Hand) -> None:
        """Run what is ready until this task is kept by work that suspended."""
        ready = self._ready
        budget = self._budget_s
        lend = self.lend if self._lends else None
        began = perf_counter()
        if self._begun is not None:
            (item, begun), self._begun = self._begun, None
            if await self._drive(hand, item, begun):
                return
            hand.is_shared = True
        while True:
            while ready:
                item = ready.popleft()
                work = item.run() if lend is None else lend(item.run)
                if work is not None:
                    if hand.is_spoilt():
                        self._pass_on(hand, item, work)
                        return
                    context = copy_context()
                    try:  # as in _drive(), without a call for what ends in one go, as nearly all does
                        self._trap = context.run(work.send, None)
                    except StopIteration:
                        pass
                    else:
                        await self._keep(hand, item, work, context)
                        return
                hand.is_shared = True
                now = perf_counter()
                if now > began + budget:
                    self.busy_s += now - began
                    await anyio.lowlevel.checkpoint()
                    self._in_vain = 0
                    began = perf_counter()
            self.busy_s += perf_counter() - began
            self._gate = gate = self._new_gate()
            await gate.wait()
            self._in_vain = 0
            began = perf_counter()

    def _pass_on(self, hand: Hand, item: Runnable, work: Coroutine[Any, Any, None]) -> None:
        """Have another hand begin with work, since what ran here before has spoilt this one."""
        self._begun = item, work
        self._replace("code that ran in it cancelled it, or left a cancel scope open")
        hand.give_up()

    async def _drive(
        self, hand: Hand, item: Runnable, work: Coroutine[Any, Any, None], *, leads: bool = True
    ) -> bool:
        """Run a coroutine in this task, in a context of its own; says whether it suspended."""
        context = copy_context()
        try:
            self._trap = context.run(work.send, None)
        except StopIteration:
            return False
        await self._keep(hand, item, work, context, leads=leads)
        return True

    @types.coroutine
    def _keep(
        self,
        hand: Hand,
        item: Runnable,
        work: Coroutine[Any, Any, None],
        context: Context,
        *,
        leads: bool = True,
    ) -> Generator[Any, Any, None]:
        """Keep this task for work that has suspended, to its end, while another hand leads."""
        trap, self._trap = self._trap, None
        self._in_vain = 0
        self._kept[hand] = item
        item.on_suspended(hand)
        if leads:
            self._appoint()
        try:
            while True:
                try:
                    value = yield trap
                except BaseException as error:
                    trap = context.run(work.throw, error)
                else:
                    trap = context.run(work.send, value)
        except StopIteration:
            return
        finally:
            value = None  # trio's way to raise an error, which leads here by its traceback
            if not self._stopping and hand.is_spoilt():
                self._report(hand, item)

    def _report(self, hand: Hand, item: Runnable) -> None:
        self._warnings.write(
            "%s cancelled its own task, or left a cancel scope open in it", item.title
        )
        hand.give_up()
