"""Crashes at every commit: whether a scenario comes out the same wherever the hub crashes in it."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

import anyio
from attrs import Factory, define, evolve

from ..actors.arguments import refusal
from ..actors.errors import PerdureError, UsageError
from ..actors.printing import repr_of, text_of, type_name
from ..actors.times import seconds
from ..runtime.hub import settings_of
from .hub import TestHub
from .order import fixed_order
from .stored import Stored, read_stored

if TYPE_CHECKING:
    from pathlib import Path

    from ..actors.registry.app import App
    from ..actors.values import RuntimeStatus
    from ..runtime.observer import Observer, TraceObserver
    from ..runtime.scheduling.watch import Watch
    from ..runtime.settings import Settings
    from .lives import Lives
    from .store import When

Scenario = Callable[[TestHub], Awaitable[object]]
OnPoint = Callable[[int, "When"], None]

_BOUNDLESS_S = 24 * 3600.0
_DRAIN_S = 0.05
_NAMED_MAX = 10


class HubOptions(TypedDict, total=False):
    """What ``crash_everywhere`` passes on to each ``TestHub``."""

    auto_advance: bool
    activity_wait_s: float | timedelta
    start: datetime | None
    partitions: int
    settings: Settings | None
    retention: Mapping[RuntimeStatus | str, float | timedelta] | None
    observer: Observer | TraceObserver | str | None


class CrashDifference(PerdureError, AssertionError):
    """A scenario comes out differently where the hub crashes at one of its commits.

    What it raised there, if it did, is the cause.

    Attributes:
        point: the commit, counted from 1.
        points: how many commits the scenario has where nothing crashes.
        when: whether the hub crashed ``"before"`` or ``"after"`` that was durable.
        expected: what the scenario gives where nothing crashes.
        got: what it gave, or raised.
        durable: what was stored at the crash.
        after: what was stored at the end.
    """

    def __init__(
        self,
        point: int,
        points: int,
        when: When,
        *,
        expected: object,
        got: object,
        durable: Stored,
        after: Stored,
    ) -> None:
        super().__init__(point, points, when)
        self.point = point
        self.points = points
        self.when = when
        self.expected = expected
        self.got = got
        self.durable = durable
        self.after = after

    def __str__(self) -> str:
        moment = (
            "before that is durable"
            if self.when == "before"
            else "when that is durable and nothing of it has left the hub"
        )
        if isinstance(self.got, BaseException):
            got = f"raises {type_name(self.got)}: {text_of(self.got, 500)}\n  instead of giving"
        else:
            got = f"gives {repr_of(self.got, 500)}\n  instead of"
        return (
            f"where the hub crashes at commit {self.point} of {self.points}, {moment}, the "
            f"scenario {got} {repr_of(self.expected, 500)}.\n"
            "  What an orchestration or an entity does besides its calls is done once more where a "
            "crash undoes the turn, or has it replayed: that is for activities.\n"
            f"  durable at the crash: {_tell(self.durable)}\n"
            f"  what came after:      {_tell(self.after, behind=self.durable)}"
        )


async def crash_everywhere(
    app: App | str,
    scenario: Scenario,
    *,
    on_point: OnPoint | None = None,
    run_s: float | timedelta = 60.0,
    **options: Unpack[HubOptions],
) -> int:
    """Run a scenario once for each of its commits with a crash there, and compare what it gives.

    First it is run twice without a crash, which says what it gives and how many commits it has.
    Then the hub crashes at each commit twice: before that is durable, and after that before
    anything is released that depends on it. It comes back, and the scenario goes on, on the same
    hub and with the same client. Each run has a fresh hub on a fresh store, at the same time.

    What is ready runs in a fixed order, sync activities on the event loop among it, so that the
    n-th commit is the same in each run, but for what activities do that takes real time.

    Args:
        app: the application.
        scenario: ``async def scenario(hub: TestHub) -> object``; what it gives is compared by
            ``==``. It must give the same each time where nothing crashes, so it begins with what
            is global and its own being empty.
        on_point: called before each run with a crash, with the commit's number and ``"before"`` or
            ``"after"``.
        run_s: how long one run may take, in real time; one that takes longer hangs.
        **options: for each ``TestHub``.

    Returns:
        How many commits were tried, each of them twice.

    Raises:
        CrashDifference: it gives something else, or raises, or hangs, where the hub crashes; the
            first that is found.
        UsageError: it gives something else each time, without any crash, or what has no ``==``;
            it is no async function; or the options have a store, which each run has of its own.
    """
    if not callable(scenario):
        raise refusal("scenario", "an async function that takes a TestHub", scenario)
    limit = seconds(run_s, "run_s")
    runs = _Runs(app, scenario, limit, _made_repeatable(options))
    with fixed_order():
        expected, points = await runs.undisturbed()
        tried = 0
        for point in range(1, points + 1):
            for when in ("before", "after"):
                if on_point is not None:
                    on_point(point, when)
                run = await runs.run(point, when)
                if not run.has_crashed:
                    continue  # it takes real time, and had less commits this time
                tried = point
                if run.error is not None or not _is_equal(run.value, expected):
                    raise CrashDifference(
                        point,
                        points,
                        when,
                        expected=expected,
                        got=run.value if run.error is None else run.error,
                        durable=run.durable,
                        after=run.after,
                    ) from run.error
    return tried


def _made_repeatable(options: HubOptions) -> HubOptions:
    """Give the options with which nothing depends on how long anything takes."""
    if "store" in options:
        raise UsageError("store: each run has a fresh one; what is to be there, the scenario makes")
    # They are inline in any case.
    given = {name: value for name, value in options.items() if name != "inline_activities"}
    wanted = cast("HubOptions", given)
    if wanted.get("start") is None:
        wanted["start"] = datetime.fromtimestamp(int(time.time()), UTC)
    settings = settings_of(wanted.get("settings"))
    # What is under way when a run has ended is of no interest.
    wanted["settings"] = evolve(settings, pump_budget_s=_BOUNDLESS_S, drain_s=_DRAIN_S)
    return wanted


@define
class _Run:
    """What came of one run of a scenario."""

    value: object = None
    error: Exception | None = None
    point: int | None = None
    commits: int = 0
    has_crashed: bool = False
    durable: Stored = Factory(Stored)
    after: Stored = Factory(Stored)


class _Runs:
    """Runs one scenario, each time on a fresh hub."""

    def __init__(
        self, app: App | str, scenario: Scenario, limit_s: float, options: HubOptions
    ) -> None:
        self._app = app
        self._scenario = scenario
        self._limit_s = limit_s
        self._options = options

    async def undisturbed(self) -> tuple[object, int]:
        """Give what the scenario gives where nothing crashes, and how many commits it has.

        Raises:
            UsageError: it is another one each time.
        """
        first = await self.run()
        if first.error is not None:
            raise first.error
        expected = _copy(first.value)  # it may be what the next run changes
        again = await self.run()
        if again.error is not None or not _is_equal(again.value, expected):
            gives = repr_of(expected)
            next_time = repr_of(again.value if again.error is None else again.error)
            looks = ", which looks the same but is not by '=='" if gives == next_time else ""
            raise UsageError(
                f"scenario: without any crash it gives {gives}, and the next time {next_time}"
                f"{looks}: have it begin each time with the same, what is global included, and "
                "leave out what differs by itself (random ids, times of the day, objects without "
                "__eq__)"
            ) from again.error
        return expected, max(first.commits, again.commits)

    async def run(self, point: int | None = None, when: When = "before") -> _Run:
        """Run the scenario, with a crash at one of its commits if one is given."""
        run = _Run(point=point)
        hub = _WatchedHub(self._app, run, self._options)
        if point is not None:
            hub.faults.crash_commit(point, when=when)
        try:
            async with hub:
                await self._play(hub, run)
        except Exception as error:
            run.error = run.error or error
        return run

    async def _play(self, hub: _WatchedHub, run: _Run) -> None:
        with anyio.move_on_after(self._limit_s) as scope:
            try:
                given = self._scenario(hub)
                if not inspect.isawaitable(given):
                    raise refusal("scenario", "an async function that takes a TestHub", given)
                run.value = await given
            except Exception as error:
                run.error = error
        if scope.cancelled_caught:
            run.error = TimeoutError(
                f"the scenario has not ended within {self._limit_s:g} seconds of real time"
            )
        run.commits = hub.faults.commits
        if run.has_crashed:
            run.after = await hub.read()


class _WatchedHub(TestHub):
    """A hub that notes what is durable where it crashes."""

    def __init__(self, app: App | str, run: _Run, options: HubOptions) -> None:
        self._run_of = run
        super().__init__(app, inline_activities=True, **options)

    def _make_crew(
        self, shards: int, partitions: int, socket: Path | None, watch: Watch | None
    ) -> Lives:
        lives = super()._make_crew(shards, partitions, socket, watch)
        lives.between = self._look
        return lives

    async def _look(self) -> None:
        if self.faults.commits == self._run_of.point:  # else it is the scenario's own crash
            self._run_of.has_crashed = True
            self._run_of.durable = await self.read()

    async def read(self) -> Stored:
        """Read what is stored now."""
        return await read_stored(self._rows.partitions, self._lookup)


def _copy(value: object) -> object:
    try:
        return copy.deepcopy(value)
    except Exception:  # a user's object, which has no copy: then it is compared itself
        return value


def _is_equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception as error:  # a user's object
        raise UsageError(
            f"scenario: what it gives cannot be compared: {repr_of(one)} == {repr_of(other)} raises "
            f"{type_name(error)}: {text_of(error, 500)}"
        ) from error


def _tell(stored: Stored, behind: Stored | None = None) -> str:
    """Say what is stored in some lines: all of it, or what differs from before."""
    lines: list[str] = []
    for id, status in stored.instances.items():
        events = stored.histories[id]
        known = () if behind is None else behind.histories.get(id, ())
        # A history that begins anew does so with another first event.
        if known and events[: len(known)] == known:
            events = events[len(known) :]
        before = None if behind is None else behind.instances.get(id)
        if events or before is None or before.runtime_status != status.runtime_status:
            types = ", ".join(event.event_type for event in events[-_NAMED_MAX:]) or "no event"
            if len(events) > _NAMED_MAX:
                types = f"{len(events)} events, the last of them {types}"
            lines.append(f"{id} ({status.name}) {status.runtime_status.value}: {types}")
    for id, entity in stored.entities.items():
        if behind is None or behind.entities.get(id) != entity:
            lines.append(f"{id}: {repr_of(entity.state)}")
    if len(lines) > _NAMED_MAX:
        lines[_NAMED_MAX:] = [f"and {len(lines) - _NAMED_MAX} more"]
    return "".join(f"\n    {line}" for line in lines) or "nothing"
