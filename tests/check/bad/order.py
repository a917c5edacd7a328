# %% a set that is written out
@app.orchestration
async def flow(ctx: OrchestrationContext) -> None:
    for city in {"Rome", "Oslo"}:  # PDU011
        await ctx.call_activity(book, city)

# %% a set of what is given
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: list[str]) -> None:
    for city in set(cities):  # PDU011
        await ctx.call_activity(book, city)

# %% an input that is a set
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    await ctx.task_all([ctx.call_activity(book, city) for city in cities])  # PDU011

# %% a field that is a set
from dataclasses import dataclass

@dataclass
class Trip:
    cities: frozenset[str]

@app.orchestration
async def flow(ctx: OrchestrationContext, trip: Trip) -> None:
    for city in trip.cities:  # PDU011
        await ctx.call_activity(book, city)

# %% a set by subtraction
@app.orchestration
async def flow(ctx: OrchestrationContext, old: list[str], new: list[str]) -> None:
    missing = set(old) - set(new)
    for city in missing:  # PDU011
        await ctx.call_activity(book, city)

# %% the keys of two tables
@app.orchestration
async def flow(ctx: OrchestrationContext, old: dict[str, int], new: dict[str, int]) -> None:
    for city in old.keys() & new.keys():  # PDU011
        await ctx.call_activity(book, city)

# %% a list of a set
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> list[str]:
    return list(cities)  # PDU011

# %% texts joined
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> str:
    return ", ".join(cities)  # PDU011

# %% any element
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> str:
    first = next(iter(cities))  # PDU011
    return first + cities.pop()  # PDU011

# %% unpacked
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> list[str]:
    one, two = {"a", "b"}  # PDU011
    return [one, two, *cities]  # PDU011

# %% what a function gives
def cities_of(text: str) -> set[str]:
    return set(text.split())

@app.orchestration
async def flow(ctx: OrchestrationContext, text: str) -> None:
    for city in cities_of(text):  # PDU011
        await ctx.call_activity(book, city)

# %% numbered
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    for number, city in enumerate(cities):  # PDU011
        await ctx.call_activity(book, f"{number} {city}")

# %% unions
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> None:
    for city in cities.union({"Rome"}):  # PDU011
        await ctx.call_activity(book, city)

# %% a set inside of an entity
@app.entity
class Cities:
    seen: set[str] = set()

    def first(self) -> str:
        for city in self.seen:  # PDU011
            return city
        return ""

# %% a table of sets
@app.orchestration
async def flow(ctx: OrchestrationContext, by_country: dict[str, set[str]]) -> None:
    for country in by_country:
        for city in by_country[country]:  # PDU011
            await ctx.call_activity(book, city)

# %% a set in a helper that was given it
def all_of(things):
    return [thing for thing in things]  # PDU011

@app.orchestration
async def flow(ctx: OrchestrationContext) -> list[str]:
    return all_of({"a", "b"})

# %% an address
@app.orchestration
async def flow(ctx: OrchestrationContext, order: dict[str, int]) -> int:
    return id(order)  # PDU012

# %% a hash of a text
@app.orchestration
async def flow(ctx: OrchestrationContext, name: str) -> None:
    if hash(name) % 2:  # PDU012
        await ctx.call_activity(book, name)

# %% sorted by address
@app.orchestration
async def flow(ctx: OrchestrationContext, things: list[Any]) -> list[Any]:
    return sorted(things, key=id)  # PDU012

# %% a hash that an entity keeps
@app.entity
class Bucket:
    number: int = 0

    def put(self, name: str) -> int:
        self.number = hash(name) % 16  # PDU012
        return self.number

# %% calls in the order of a set, whatever becomes of their results
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> bool:
    names = {await ctx.call_activity(book, city) for city in cities}  # PDU011
    lengths = {city: await ctx.call_activity(book, city) for city in cities}  # PDU011
    return any([await ctx.call_activity(book, city) for city in cities])  # PDU011

# %% numbers drawn in the order of a set
@app.orchestration
async def flow(ctx: OrchestrationContext, cities: set[str]) -> dict[str, float]:
    return {city: ctx.random.random() for city in cities}  # PDU011
