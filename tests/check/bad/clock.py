# %% the time of day
import datetime

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return datetime.datetime.now().isoformat()  # PDU001

# %% under another name
import datetime as dt

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return dt.datetime.now(dt.UTC).isoformat()  # PDU001

# %% the class alone
from datetime import date, datetime

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    today = date.today()  # PDU001
    return f"{today} {datetime.utcnow()}"  # PDU001

# %% a function under another name
from time import time as now

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return now()  # PDU001

# %% a clock that only goes forward
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    begun = time.monotonic()  # PDU001
    await ctx.call_activity(charge, 1)
    return time.perf_counter() - begun  # PDU001

# %% in a helper
import time

def stamp() -> float:
    return time.time()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return stamp()

# %% in a helper of a helper
import time

def stamp() -> float:
    return time.time()  # PDU001

def name(prefix: str) -> str:
    return f"{prefix}-{stamp()}"

async def run(ctx: OrchestrationContext) -> str:
    return name("x")

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await run(ctx)

# %% by a variable
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    clock = time.time
    return clock()  # PDU001

# %% in a lambda
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    clock = lambda: time.time()  # PDU001
    return clock()

# %% in a default of a dataclass
import datetime
from dataclasses import dataclass, field

@dataclass
class Note:
    text: str
    at: datetime.datetime = field(default_factory=datetime.datetime.now)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    note = Note("hello")  # PDU001
    return note.text

# %% in the constructor of a class
import time

class Watch:
    def __init__(self) -> None:
        self.begun = time.time()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return Watch().begun

# %% in a property
import time

class Watch:
    @property
    def now(self) -> float:
        return time.time()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    watch = Watch()
    return watch.now

# %% in a method of a base class
import time

class Base:
    def now(self) -> float:
        return time.time()  # PDU001

class Watch(Base):
    pass

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    watch = Watch()
    return watch.now()

# %% at import
import time

BEGUN = time.time()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return BEGUN  # PDU001

# %% imported where it is used
@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    import time

    return time.time()  # PDU001

# %% in a generator
import datetime

@app.orchestration
def flow(ctx: OrchestrationContext) -> Generator[Any, Any, str]:
    yield ctx.call_activity(charge, 1)
    return datetime.datetime.now().isoformat()  # PDU001

# %% in an operation of an entity
import datetime

@app.entity
class Log:
    lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(f"{datetime.datetime.now()} {line}")  # PDU001

# %% in a helper that two operations share
import time

@app.entity
class Log:
    at: float = 0.0

    def add(self, line: str) -> None:
        self._touch()

    def _touch(self) -> None:
        self.at = time.time()  # PDU001

# %% in a branch of a task group
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async def branch() -> None:
        print(time.time())  # PDU001

    async with ctx.create_task_group() as tasks:
        tasks.start_soon(branch)

# %% in a context manager
import time
from contextlib import contextmanager

@contextmanager
def timed():
    begun = time.time()  # PDU001
    yield begun

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    with timed():
        await ctx.call_activity(charge, 1)

# %% in a decorator around an orchestration
import functools
import time

def timed(f):
    @functools.wraps(f)
    async def wrapper(ctx, *args):
        print(time.time())  # PDU001
        return await f(ctx, *args)

    return wrapper

@app.orchestration
@timed
async def flow(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(charge, 1)

# %% registered by a call
import time

async def flow(ctx):
    return time.time()  # PDU001

app.orchestration(flow)

# %% registered by a decorator of the project
import time

def workflow(f):
    return app.orchestration(f)

@workflow
async def flow(ctx):
    return time.time()  # PDU001

# %% registered under a name
import time

@app.orchestration(name="flow", version="2.0")
async def flow_2(ctx):
    return time.time()  # PDU001

# %% what is registered elsewhere is known by its context
import time

async def flow(ctx: OrchestrationContext) -> float:
    return time.time()  # PDU001

# %% without a time, gmtime reads the clock
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return time.strftime("%Y", time.gmtime())  # PDU001

# %% by getattr
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return getattr(time, "time")()  # PDU001

# %% by an attribute of an object
import time

class Watch:
    def __init__(self) -> None:
        self.clock = time.time

    def now(self) -> float:
        return self.clock()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return Watch().now()

# %% by a table of functions
import time

CLOCKS = {"wall": time.time, "own": lambda: time.monotonic()}  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> float:
    return CLOCKS[name]()  # PDU001

# %% passed to a helper
import time
from collections.abc import Callable

def stamp(clock: Callable[[], float]) -> float:
    return clock()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return stamp(time.time)  # PDU001

# %% the default of a helper's parameter
import time

def stamp(clock=time.time):
    return clock()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return stamp()

# %% a class method that makes one
import datetime
from dataclasses import dataclass

@dataclass
class Note:
    at: datetime.datetime

    @classmethod
    def fresh(cls) -> "Note":
        return cls(datetime.datetime.now())  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return str(Note.fresh())

# %% in a function that makes an orchestration
import time

def make(app: App):
    @app.orchestration
    async def made(ctx: OrchestrationContext) -> float:
        return time.time()  # PDU001

    return made

flow = make(app)

# %% an app that derives from ours
import time

class Application(App):
    pass

mine = Application()

@mine.orchestration
async def flow(ctx) -> float:
    return time.time()  # PDU001

# %% an app that a function gives
import time

def get_app():
    return app

@get_app().orchestration
async def flow(ctx) -> float:
    return time.time()  # PDU001

# %% in an object that can be called
import time

class Stamp:
    def __call__(self) -> float:
        return time.time()  # PDU001

stamp = Stamp()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return stamp()

# %% in an async context manager of one's own
import time

class Timed:
    async def __aenter__(self) -> "Timed":
        self.begun = time.time()  # PDU001
        return self

    async def __aexit__(self, *_: object) -> None:
        print(time.time() - self.begun)  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    async with Timed():
        await ctx.call_activity(charge, 1)

# %% in an iterator of one's own
import time

class Ticks:
    def __iter__(self):
        yield time.time()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for tick in Ticks():
        await ctx.call_activity(charge, 1)

# %% in a match
import time

@app.orchestration
async def flow(ctx: OrchestrationContext, what: str) -> float:
    match what:
        case "now":
            return time.time()  # PDU001
        case other:
            return 0.0

# %% in a text that is formatted
from datetime import datetime

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return f"at {datetime.now():%H:%M}"  # PDU001

# %% in the condition of a comprehension
import time

@app.orchestration
async def flow(ctx: OrchestrationContext, dues: list[float]) -> list[float]:
    return [due for due in dues if due < time.time()]  # PDU001

# %% in a walrus
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    if (now := time.time()) > 1:  # PDU001
        return now
    return 0.0

# %% a hook that a class has changed
import time

class Flow:
    async def run(self, ctx: OrchestrationContext) -> float:
        await ctx.call_activity(charge, 1)
        return self.step()

    def step(self) -> float:
        raise NotImplementedError

class Timed(Flow):
    def step(self) -> float:
        return time.time()  # PDU001

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    return await Timed().run(ctx)

# %% an operation that an entity has inherited
import time

class Stamped:
    def touch(self) -> None:
        self.at = self.now()

    def now(self) -> float:
        return 0.0

@app.entity
class Note(Stamped):
    at: float = 0.0

    def now(self) -> float:
        return time.time()  # PDU001

# %% what stands behind a protocol
import time
from typing import Protocol

class Clock(Protocol):
    def now(self) -> float: ...

class SystemClock:
    def now(self) -> float:
        return time.time()  # PDU001

def is_due(clock: Clock, at: float) -> bool:
    return clock.now() > at

@app.orchestration
async def flow(ctx: OrchestrationContext, at: float) -> bool:
    return is_due(SystemClock(), at)

# %% in the body of a class that a function makes
import time

@app.orchestration
async def flow(ctx: OrchestrationContext) -> float:
    class Watch:
        begun = time.time()  # PDU001

        def unused(self) -> float:
            return time.monotonic()

    return Watch.begun
