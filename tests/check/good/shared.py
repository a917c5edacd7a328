# %% constants
LANES = 4
PRICES = {"tea": 3, "coffee": 4}
CITIES = ["Rome", "Oslo"]
KINDS = frozenset({"a", "b"})

@app.orchestration
async def flow(ctx: OrchestrationContext, what: str) -> int:
    for city in CITIES:
        await ctx.call_activity(book, city)
    return PRICES[what] * LANES if what in KINDS else PRICES.get(what, 0)

# %% a table that is made at import
PRICES: dict[str, int] = {}
PRICES["tea"] = 3
PRICES.update(coffee=4)

@app.orchestration
async def flow(ctx: OrchestrationContext, what: str) -> int:
    return PRICES[what]

# %% a local variable of the same name
seen = []

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    seen = []
    seen.append("a")
    seen += ["b"]
    return seen

# %% a parameter of the same name
results: list[int] = []

def add(results: list[int], number: int) -> None:
    results.append(number)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[int]:
    own: list[int] = []
    add(own, 1)
    return own

# %% closures
@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    total = 0
    log: list[str] = []

    async def one(city: str) -> None:
        nonlocal total
        total += len(await ctx.call_activity(book, city))
        log.append(city)

    await one("Rome")
    return total + len(log)

# %% a global that only activities have
cache: dict[str, str] = {}
count = 0

@app.activity
def fetch(name: str) -> str:
    global count
    count += 1
    cache[name] = name
    return cache[name]

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(fetch, "x")

# %% objects of the instance's own
class Basket:
    def __init__(self) -> None:
        self.items: list[str] = []
        self.total = 0

    def add(self, item: str) -> None:
        self.items.append(item)
        self.total += 1

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    basket = Basket()
    basket.add("tea")
    basket.total += 1
    return basket.total

# %% fields of an entity
@app.entity
class Cart:
    items: list[str] = []
    prices: dict[str, int] = {}

    def add(self, item: str) -> None:
        self.items.append(item)
        self.prices[item] = 1
        self.items += [item]

# %% enums and classes are no variables
import enum

class Size(enum.Enum):
    SMALL = 1
    LARGE = 2

class Limits:
    most = 10

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return Size.SMALL.value + Limits.most

# %% a logger of the module
import logging

log = logging.getLogger(__name__)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    ctx.logger.info("begun")
    if not ctx.is_replaying:
        log.info("begun")

# %% context variables
from contextvars import ContextVar

request: ContextVar[str] = ContextVar("request")

@app.orchestration
async def flow(ctx: OrchestrationContext) -> str:
    request.set("x")
    return request.get()

# %% a cache of a pure function
import functools

@functools.cache
def steps(n: int) -> int:
    return n if n < 2 else steps(n - 1) + steps(n - 2)

@functools.lru_cache(maxsize=10)
def squared(n: int) -> int:
    return n * n

@app.orchestration
async def flow(ctx: OrchestrationContext, n: int) -> int:
    return steps(n) + squared(n)

# %% a compiled pattern
import re

NAME = re.compile(r"\w+")

@app.orchestration
async def flow(ctx: OrchestrationContext, text: str) -> list[str]:
    return NAME.findall(text)

# %% an iterator of the instance's own
import itertools

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    numbers = itertools.count()
    rest = iter([1, 2])
    return next(numbers) + next(rest)

# %% a table that decorators fill
HANDLERS: dict[str, Any] = {}

def handler(name: str) -> Any:
    def register(f: Any) -> Any:
        HANDLERS[name] = f
        return f

    return register

@handler("pay")
async def pay(ctx: OrchestrationContext) -> str:
    return await ctx.call_activity(charge, 1)

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> str:
    return await HANDLERS[name](ctx)

# %% a table that a function fills at import
PRICES: dict[str, int] = {}

def _fill() -> None:
    for number, name in enumerate(["tea", "coffee"]):
        PRICES[name] = number

_fill()

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> int:
    return PRICES[name]

# %% a default that is never used
def add(item: str, items: list[str] = []) -> list[str]:
    items.append(item)
    return items

@app.orchestration
async def flow(ctx: OrchestrationContext, limits: dict[str, int] = {}) -> list[str]:
    own = dict(limits)
    own["x"] = 1
    return add("a", ["b"])

# %% an attribute that each object has, besides the class's
class Log:
    lines: list[str] = []
    words = ["a"]

    def __init__(self) -> None:
        self.lines = []

    def add(self, line: str) -> None:
        self.lines.append(line)
        self.last = self.words[0]

@app.entity
class Kept:
    lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    Log().add("begun")
