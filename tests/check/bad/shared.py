# %% a counter of the module
done = 0

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    global done
    done += 1  # PDU015

# %% a table of the module
seen: dict[str, int] = {}

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> None:
    seen[name] = 1  # PDU015

# %% a list of the module
log = []

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    log.append("begun")  # PDU015

# %% read here, changed elsewhere
settings = {"fast": False}

def set_fast() -> None:
    settings["fast"] = True

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if settings["fast"]:  # PDU015
        await ctx.call_activity(charge, 1)

# %% read here, rebound elsewhere
mode = "slow"

def set_fast() -> None:
    global mode
    mode = "fast"

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    if mode == "fast":  # PDU015
        await ctx.call_activity(charge, 1)

# %% changed by an activity, read by the orchestration
results = []

@app.activity
def work(number: int) -> None:
    results.append(number)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    await ctx.call_activity(work, 1)
    return len(results)  # PDU015

# %% an attribute of a class
class Count:
    done = 0

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    Count.done += 1  # PDU015

# %% an object of the module
class Count:
    def __init__(self) -> None:
        self.done = 0

COUNT = Count()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    COUNT.done += 1  # PDU015

# %% a counter that is taken from
import itertools

NUMBERS = itertools.count()

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return next(NUMBERS)  # PDU015

# %% in an entity
totals: dict[str, int] = {}

@app.entity
class Sum:
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount
        totals["all"] = totals.get("all", 0) + amount  # PDU015

# %% a set of the module, in a helper
from collections import deque

recent = deque(maxlen=10)

def note(text: str) -> None:
    recent.append(text)  # PDU015

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    note("begun")

# %% a default that all calls share
def add(item: str, items: list[str] = []) -> list[str]:
    items.append(item)  # PDU015
    return items

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    return add("a")

# %% a default of the orchestration's own
@app.orchestration
async def flow(ctx: OrchestrationContext, seen: dict[str, int] = {}) -> None:
    seen["x"] = 1  # PDU015

# %% an attribute that is the class's
class Log:
    lines = []

    def add(self, line: str) -> None:
        self.lines.append(line)  # PDU015

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    Log().add("begun")

# %% an attribute of a function
def count() -> int:
    count.calls = getattr(count, "calls", 0) + 1  # PDU015
    return 1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return count()
