# %% the instance's clock
@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return (ctx.current_utc_datetime + timedelta(days=1)).isoformat()

# %% times that are computed
from datetime import UTC, date, datetime, timedelta as span

@app.orchestration
async def flow(ctx: OrchestrationContext, when: datetime) -> str:
    day = date(2026, 1, 31) + span(days=1)
    first = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    last = datetime.combine(day, first.timetz()).astimezone(UTC)
    return f"{datetime.min} {last - when} {first.now if False else ''}"

# %% an activity reads the clock
import time

@app.activity
def stamp() -> float:
    return time.time()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return await ctx.call_activity(stamp)

# %% a helper of an activity reads the clock
import time

def now() -> float:
    return time.time()

@app.activity
def stamp() -> float:
    return now()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return await ctx.call_activity(stamp)

# %% a class that is called time
class time:
    @staticmethod
    def time() -> int:
        return 7

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return time.time()

# %% a parameter that is called datetime
import datetime

def shown(datetime: Any) -> str:
    return datetime.now()

class Fixed:
    def now(self) -> str:
        return "then"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return shown(Fixed())

# %% a local variable that hides a module
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    time = Ticks()
    return time.time()

class Ticks:
    def time(self) -> int:
        return 1

# %% a loop variable that hides a module
import time

class Ticks:
    def time(self) -> int:
        return 1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return sum(time.time() for time in [Ticks(), Ticks()])

# %% a variable of the comprehension alone
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[int]:
    return [time for time in range(3)]

# %% a field that is called now
from dataclasses import dataclass

@dataclass
class Sample:
    now: float
    time: float

@app.orchestration
async def flow(ctx: OrchestrationContext, sample: Sample) -> float:
    return sample.now + sample.time

# %% a default that is given
import datetime
from dataclasses import dataclass, field

@dataclass
class Note:
    text: str
    at: datetime.datetime = field(default_factory=datetime.datetime.now)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return Note("hello", at=ctx.current_utc_datetime).text

# %% made in an activity, with a default of the clock
import datetime
from dataclasses import dataclass, field

@dataclass
class Note:
    text: str
    at: datetime.datetime = field(default_factory=datetime.datetime.now)

@app.activity
def note(text: str) -> Note:
    return Note(text)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    note_: Note = await ctx.call_activity(note, "hello")
    return note_.text

# %% for types only
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from time import time
    from datetime import datetime

@app.orchestration
async def flow(ctx: OrchestrationContext) -> "datetime":
    at: "datetime" = ctx.current_utc_datetime
    return at

# %% a time of the caller's
import time

@app.orchestration
async def flow(ctx: OrchestrationContext, seconds: float) -> str:
    return time.strftime("%Y", time.gmtime(seconds))

# %% outside of any orchestration
import time

BEGUN = time.time()

def uptime() -> float:
    return time.time() - BEGUN

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

# %% a main that measures
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

async def main() -> None:
    begun = time.perf_counter()
    print(time.perf_counter() - begun)

if __name__ == "__main__":
    print(time.time())

# %% an operation's own clock
@app.entity
class Log:
    lines: list[str] = []

    def add(self, line: str, ctx: EntityContext) -> None:
        self.lines.append(f"{ctx.current_utc_datetime} {line}")

# %% a clock that is passed in
from collections.abc import Callable
import time

def stamp(clock: Callable[[], Any]) -> Any:
    return clock()

@app.activity
def measured() -> float:
    return stamp(time.time)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(stamp(lambda: ctx.current_utc_datetime))

# %% a method of the same name elsewhere
import time

class Machine:
    def now(self) -> float:
        return time.time()

class Clock:
    def __init__(self, ctx: OrchestrationContext) -> None:
        self._ctx = ctx

    def now(self) -> Any:
        return self._ctx.current_utc_datetime

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    clock = Clock(ctx)
    return str(clock.now())

# %% an activity that is a method's name
import datetime

class Stamps:
    @staticmethod
    @app.activity
    def stamp() -> str:
        return datetime.datetime.now().isoformat()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(Stamps.stamp)

# %% a private method that no operation calls
import time

@app.entity
class Log:
    at: float = 0.0

    def add(self, at: float) -> None:
        self.at = at

    @classmethod
    def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
        return stored

    def _debug(self) -> None:
        print(time.time())

# %% an app of another library
import time

class Server:
    def activity(self, f: Any) -> Any:
        return f

    def orchestration(self, f: Any) -> Any:
        return f

    def entity(self, f: Any) -> Any:
        return f

server = Server()

@server.orchestration
async def handler(request: Any) -> float:
    return time.time()

@server.entity
class Thing:
    def now(self) -> float:
        return time.time()

# %% times of a table of functions
CLOCKS = {"own": lambda ctx: ctx.current_utc_datetime}

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(CLOCKS["own"](ctx))

# %% a default that is overridden
import time

def stamp(clock=time.time):
    return clock()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(stamp(lambda: ctx.current_utc_datetime))

# %% an overridden method
import time

class Base:
    def now(self) -> float:
        return time.time()

class Own(Base):
    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx

    def now(self) -> float:
        return self.ctx.current_utc_datetime.timestamp()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return Own(ctx).now()

# %% a class of one's own in place of a module's
import datetime as real

class datetime(real.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(datetime.now())

# %% a try that imports
try:
    import ujson as json
except ImportError:
    import json

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return json.dumps({"a": 1})

# %% a global statement of another function
import time

started = 0.0

def start() -> None:
    global started
    started = time.time()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    started = ctx.current_utc_datetime
    ctx.set_custom_status(str(started))

# %% a hook that is only bad in another class
import time

class Flow:
    async def run(self, ctx: OrchestrationContext) -> float:
        await ctx.call_activity(charge, 1)
        return self.step(ctx)

    def step(self, ctx: Any) -> float:
        return time.time()

class Own(Flow):
    def step(self, ctx: Any) -> float:
        return ctx.current_utc_datetime.timestamp()

async def outside() -> None:
    print(Flow().step(None))

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return await Own().run(ctx)

# %% the good one of two behind a protocol
import time
from typing import Protocol

class Clock(Protocol):
    def now(self) -> float: ...

class SystemClock:
    def now(self) -> float:
        return time.time()

class OwnClock:
    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx

    def now(self) -> float:
        return self.ctx.current_utc_datetime.timestamp()

def is_due(clock: Clock, at: float) -> bool:
    return clock.now() > at

@app.activity
def check(at: float) -> bool:
    return is_due(SystemClock(), at)

@app.orchestration
async def flow(ctx: OrchestrationContext, at: float) -> bool:
    return is_due(OwnClock(ctx), at)
