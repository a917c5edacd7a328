# %% sorted
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    for city in sorted(cities):
        await ctx.call_activity(book, city)
    for city in sorted(city.upper() for city in cities):
        await ctx.call_activity(book, city)
    for city in sorted([city for city in cities], reverse=True):
        await ctx.call_activity(book, city)

# %% asked, counted, compared
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str], more: list[str]) -> bool:
    both = cities & set(more)
    long = any(len(city) > 9 for city in cities) and all(city for city in cities)
    return "Rome" in cities and len(both) == 2 and cities <= set(more) and max(cities) > "A" or long

# %% sets of sets
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> list[str]:
    upper = {city.upper() for city in cities}
    frozen = frozenset(city for city in upper)
    return sorted(upper | frozen)

# %% numbers that are summed
@app.orchestration
async def flow(ctx: OrchestrationContext, amounts: set[int]) -> int:
    total = sum(amounts) + min(amounts) + sum(2 * amount for amount in amounts)
    for amount in amounts:
        total += amount
    return total

# %% a loop that only fills another set
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> list[str]:
    seen: set[str] = set()
    for city in cities:
        if city.startswith("R"):
            seen.add(city)
    return sorted(seen)

# %% whether there is one
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> bool:
    for city in cities:
        if city == "Rome":
            return True
    return False

# %% dicts keep their order
@app.orchestration
async def flow(ctx: OrchestrationContext, prices: dict[str, int]) -> None:
    for city, price in prices.items():
        await ctx.call_activity(book, f"{city} {price}")
    for city in prices:
        await ctx.call_activity(book, city)
    for city in list(prices.keys()) + list(dict.fromkeys(["a", "b", "a"])):
        await ctx.call_activity(book, city)

# %% a set no longer
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    names = sorted(cities)
    for city in names:
        await ctx.call_activity(book, city)
    for number, city in enumerate(names):
        await ctx.call_activity(book, f"{number} {city}")
    await ctx.task_all([ctx.call_activity(book, city) for city in names])

# %% a name that is called set
def set(items: list[str]) -> list[str]:
    return items

@app.orchestration
async def flow(ctx: OrchestrationContext, cities: list[str]) -> None:
    for city in set(cities):
        await ctx.call_activity(book, city)

# %% a method that is called pop
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: list[str], prices: dict[str, int]) -> None:
    while cities:
        await ctx.call_activity(book, cities.pop())
    prices.pop("x", None)

# %% a set in an activity
@app.activity
def visit(cities: set[str]) -> None:
    for city in cities:
        print(city)

@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    await ctx.call_activity(visit, cities)

# %% to look things up
@app.orchestration
async def flow(ctx: OrchestrationContext, names: list[str]) -> None:
    ids = {name: EntityId(Counter, name) for name in set(names)}
    for name in names:
        await ctx.call_entity(ids[name], Counter.add, 1)

# %% a field that is called id
from dataclasses import dataclass

@dataclass
class Order:
    id: str
    hash: str

@app.orchestration
async def flow(ctx: OrchestrationContext, order: Order) -> str:
    id = order.id
    hash = order.hash
    return f"{id} {hash}"

# %% a function that is called hash
import hashlib

def hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> str:
    return hash(name)

# %% a class that can be hashed
class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __hash__(self) -> int:
        return hash(self.x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

@app.orchestration
async def flow(ctx: OrchestrationContext) -> int:
    return len({Point(1), Point(1)})

# %% a set inside of an entity, in order
@app.entity
class Cities:
    seen: set[str] = set()

    def add(self, city: str) -> None:
        self.seen.add(city)

    def all(self) -> list[str]:
        return sorted(self.seen)

# %% the fold of two sets
@app.entity(stripes=4)
class Cities:
    seen: set[str] = set()

    def add(self, city: str) -> None:
        self.seen |= {city}

    def merge(self, other: "Cities") -> None:
        self.seen.update(other.seen)

# %% sorted in place
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    names = list(cities)
    names.sort()
    more = [city.upper() for city in cities]
    more.sort(reverse=True)
    for city in names + more:
        await ctx.call_activity(book, city)

# %% to look things up by texts
@app.orchestration
async def flow(ctx: OrchestrationContext, names: list[str]) -> None:
    ids = {name: EntityId(Counter, f"x-{name}") for name in set(names)}
    lists = {name: [name] for name in frozenset(names)}
    for name in names:
        await ctx.call_entity(ids[name], Counter.add, len(lists[name]))
