"""Guarantee 7, as far as a value reaches: whatever its type, what failed left nothing in it.

And nothing mutable is shared: not between entities (a default), not between calls (a parameter's
default), not by a failing hook of the value's own class.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar, NamedTuple

import anyio
import anyio.lowlevel
import attrs
import pydantic
import pytest

import perdure
from perdure import App, EntityId, EntityOperationError, Hub, PayloadError, RegistrationError

app = App()


@dataclasses.dataclass
class Basket:
    items: list[str] = dataclasses.field(default_factory=list[str])


@dataclasses.dataclass(frozen=True)
class Sealed:
    basket: Basket


class Page(NamedTuple):
    lines: list[str]
    number: int = 1


class Model(pydantic.BaseModel):
    items: list[str] = []
    by_name: dict[str, list[str]] = {}


class Shared:
    everyone: ClassVar[list[str]] = []


SHARED = ["shared"]


@app.entity
class Holder:
    pair: tuple[Basket, int] = (Basket(), 0)
    page: Page = Page([])
    sealed: Sealed = Sealed(Basket())
    model: Model = Model()
    models: list[Model] = []
    queue: collections.deque[list[str]] = collections.deque([[]])
    many: Sequence[Basket] = (Basket(),)
    anything: Any = {"items": []}
    made: list[str] = attrs.field(factory=lambda: SHARED)
    untyped: dict = {"a": [[]]}  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType]

    def put(self, item: str) -> None:
        self.pair[0].items.append(item)
        self.page.lines.append(item)
        self.sealed.basket.items.append(item)
        self.model.items.append(item)
        self.model.by_name.setdefault("a", []).append(item)
        self.models.append(Model(items=[item]))
        self.queue[0].append(item)
        self.many[0].items.append(item)
        self.anything["items"].append(item)
        self.made.append(item)
        self.untyped["a"][0].append(item)  # pyright: ignore[reportUnknownMemberType]

    def put_and_fail(self, item: str) -> None:
        self.put(item)
        raise ValueError("no")

    async def put_and_fail_later(self, item: str) -> None:
        self.put(item)
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    @perdure.readonly
    def put_and_read(self, item: str) -> str:
        self.put(item)
        return repr(self)

    @perdure.readonly
    async def put_and_read_later(self, item: str) -> str:
        self.put(item)
        await anyio.lowlevel.checkpoint()
        return repr(self)

    def show(self) -> str:
        return repr(self)

    def take(self, items: list[str] = []) -> list[str]:  # noqa: B006
        items.append("more")
        return items


@app.entity
class Maybe:
    value: int | None = None

    def set_and_fail(self, error: str) -> None:
        self.value = 5
        raise ERRORS[error]

    async def set_and_fail_later(self, error: str) -> None:
        self.value = 5
        await anyio.lowlevel.checkpoint()
        raise ERRORS[error]

    def get(self) -> int | None:
        return self.value


@app.entity
class Twins:
    one: list[int] = []
    two: list[int] = []
    baskets: list[Basket] = []
    last: Basket | None = None
    by_name: dict[str, Basket] = {}

    def tangle(self) -> None:
        self.one = self.two
        self.last = Basket()
        self.baskets = [self.last, self.last]
        self.by_name["a"] = self.last

    async def tangle_slowly(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.tangle()

    def change(self) -> None:
        self.one.append(1)
        self.baskets[0].items.append("x")

    def fail(self) -> None:
        self.change()
        raise ValueError("no")

    def show(self) -> str:
        return f"{self.one} {self.two} {self.baskets} {self.last} {self.by_name}"


@dataclasses.dataclass
class Shelf:
    pages: tuple[Page, ...] = ()


@app.entity
class Nested:
    lists: dict[str, list[list[str]]] = {}
    shelves: list[Shelf] = []
    models: dict[str, list[Model]] = {}
    deep: list[list[list[list[str]]]] = []

    def tangle(self, where: str) -> None:
        shared: list[str] = []
        page, model = Page(shared), Model()
        if where == "lists":
            self.lists = {"a": [shared], "b": [shared]}
        elif where == "shelves":
            self.shelves = [Shelf((page,)), Shelf((page,))]
        elif where == "lines":
            self.shelves = [Shelf((Page(shared),)), Shelf((Page(shared),))]
        elif where == "models":
            self.models = {"a": [model], "b": [model]}
        elif where == "fields":
            self.lists, self.deep = {"a": [shared]}, [[[shared]]]
        else:
            wide = [[shared, shared], [shared, shared]]
            self.deep = [wide, wide]

    def change(self) -> None:
        for lists in list(self.lists.values())[:1]:
            lists[0].append("x")
        for models in list(self.models.values())[:1]:
            models[0].items.append("x")
        for shelf in self.shelves[:1]:
            shelf.pages[0].lines.append("x")
        if self.deep and not self.lists:
            self.deep[0][0][0].append("x")

    def show(self) -> str:
        return repr(self)


class Silent(BaseException):
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


ERRORS: dict[str, BaseException] = {
    "KeyboardInterrupt": KeyboardInterrupt(),
    "SystemExit": SystemExit(1),
    "GeneratorExit": GeneratorExit(),
    "Silent": Silent(),
    "BaseExceptionGroup": BaseExceptionGroup("two", [Silent(), ValueError()]),
}


@dataclasses.dataclass
class Moody:
    """One whose own code fails as soon as it is told to."""

    number: int
    broken: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if Moody.broken:
            raise SystemExit


@app.entity
class Keeper:
    moody: Moody | None = None
    count: int = 0

    def keep(self) -> None:
        self.moody = Moody(1)

    def fail(self) -> None:
        assert self.moody is not None
        self.moody.number = 9
        self.count = 9
        Moody.broken = True
        raise ValueError("no")

    async def fail_later(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.fail()

    def get(self) -> int:
        return self.count + (0 if self.moody is None else self.moody.number)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub(app, partitions=1) as hub:
        yield hub


def key(name: str) -> EntityId[Holder]:
    return EntityId(Holder, name)


@pytest.mark.parametrize("fails", [Holder.put_and_fail, Holder.put_and_fail_later])
async def test_what_fails_leaves_nothing_wherever_it_reached(hub: Hub, fails: Any) -> None:
    call = hub.client.call_entity
    await call(key("a"), Holder.put, "kept")
    before = await call(key("a"), Holder.show)

    with pytest.raises(EntityOperationError, match="ValueError"):
        await call(key("a"), fails, "lost")

    assert await call(key("a"), Holder.show) == before
    assert "kept" in before


@pytest.mark.parametrize("reads", [Holder.put_and_read, Holder.put_and_read_later])
async def test_what_only_reads_leaves_nothing_wherever_it_reached(hub: Hub, reads: Any) -> None:
    call = hub.client.call_entity
    await call(key("a"), Holder.put, "kept")
    before = await call(key("a"), Holder.show)

    assert "seen" in await call(key("a"), reads, "seen")

    assert await call(key("a"), Holder.show) == before


async def test_nothing_of_a_default_is_shared_between_entities(hub: Hub) -> None:
    call = hub.client.call_entity

    await call(key("ada"), Holder.put, "of ada")
    with pytest.raises(EntityOperationError):
        await call(key("eve"), Holder.put_and_fail, "of eve")

    for name in ("eve", "bob"):
        shown = await call(key(name), Holder.show)
        assert "of " not in shown
    assert SHARED == ["shared"]


async def test_a_default_of_a_parameter_is_fresh_for_each_call(hub: Hub) -> None:
    assert await hub.client.call_entity(key("a"), Holder.take) == ["more"]
    assert await hub.client.call_entity(key("b"), Holder.take) == ["more"]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("fails", [Maybe.set_and_fail, Maybe.set_and_fail_later])
async def test_whatever_an_operation_raises_fails_it_alone(
    hub: Hub, fails: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    entity = EntityId(Maybe, "a")

    with pytest.raises(EntityOperationError) as raised:
        await hub.client.call_entity(entity, fails, name)

    assert raised.value.error_type == name
    assert await hub.client.call_entity(entity, Maybe.get) is None
    assert "recovers" not in caplog.text


async def test_a_field_that_was_none_is_none_again(hub: Hub) -> None:
    entity = EntityId(Maybe, "a")
    await hub.client.call_entity(entity, Maybe.get)

    with pytest.raises(EntityOperationError):
        await hub.client.call_entity(entity, Maybe.set_and_fail, "Silent")

    assert await hub.client.call_entity(entity, Maybe.get) is None


@pytest.mark.parametrize("tangles", [Twins.tangle, Twins.tangle_slowly])
async def test_one_object_at_two_places_is_two_in_memory_as_it_is_in_the_store(
    tangles: Any,
) -> None:
    twins = EntityId(Twins, "a")
    shown: list[str] = []
    for reloaded in (False, True):
        store = perdure.MemoryStore()
        async with Hub(app, store=store) as hub:
            await hub.client.call_entity(twins, tangles)
            if not reloaded:
                await hub.client.call_entity(twins, Twins.change)
        async with Hub(app, store=store) as hub:
            with pytest.raises(EntityOperationError):
                await hub.client.call_entity(twins, Twins.fail)
            if reloaded:
                await hub.client.call_entity(twins, Twins.change)
            shown.append(await hub.client.call_entity(twins, Twins.show))

    assert shown[0] == shown[1]
    assert shown[0].count("'x'") == 1


@pytest.mark.parametrize("where", ["lists", "shelves", "lines", "models", "fields", "deep"])
async def test_it_is_two_however_deep_in_the_state_it_lies(hub: Hub, where: str) -> None:
    nested = EntityId(Nested, where)
    await hub.client.call_entity(nested, Nested.tangle, where)

    await hub.client.call_entity(nested, Nested.change)

    assert (await hub.client.call_entity(nested, Nested.show)).count("'x'") == 1


@pytest.mark.parametrize("fails", [Keeper.fail, Keeper.fail_later])
async def test_code_of_a_value_that_fails_while_it_is_taken_back_changes_nothing(
    hub: Hub, fails: Any, caplog: pytest.LogCaptureFixture
) -> None:
    entity = EntityId(Keeper, "a")
    await hub.client.call_entity(entity, Keeper.keep)

    try:
        with pytest.raises(EntityOperationError, match="ValueError"):
            await hub.client.call_entity(entity, fails)
        # Now its state can be neither copied nor checked, and the operation says so.
        with pytest.raises(EntityOperationError, match="SystemExit"):
            await hub.client.call_entity(entity, Keeper.get)
    finally:
        Moody.broken = False

    assert await hub.client.call_entity(entity, Keeper.get) == 1
    assert "recovers" not in caplog.text


async def test_an_attribute_that_is_no_field_fails_the_operation(hub: Hub) -> None:
    own = App()

    @own.entity
    @dataclasses.dataclass
    class Open:
        number: int = 0

        def set(self) -> None:
            self.number = 1
            setattr(self, "more", 2)  # noqa: B010

        def get(self) -> int:
            return self.number

    async with Hub(own) as hub:
        with pytest.raises(EntityOperationError, match="no field 'more'"):
            await hub.client.call_entity(EntityId(Open, "a"), Open.set)

        assert await hub.client.call_entity(EntityId(Open, "a"), Open.get) == 0


def cached(self: Any) -> int:
    return 1


class CachedBase:
    total = functools.cached_property(cached)


class Lazy:
    """A descriptor as many libraries have: it puts what it gives into the object."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, one: Any, owner: type | None = None) -> Any:
        return one


@pytest.mark.parametrize(
    "member",
    [functools.cached_property(cached), functools.lru_cache(cached), Lazy()],
    ids=["cached_property", "lru_cache", "descriptor"],
)
def test_what_keeps_a_value_beside_the_fields_is_refused_at_registration(member: Any) -> None:
    def add(self: Any) -> None: ...

    plain = type("Plain", (), {"total": member, "add": add})

    with pytest.raises(RegistrationError, match=r"'total' .* property or a method"):
        App().entity(plain)


def test_it_is_refused_also_in_a_base_and_where_attrs_has_put_it_away() -> None:
    def add(self: Any) -> None: ...

    derived = type("Derived", (CachedBase,), {"add": add})
    defined = attrs.define(type("Defined", (CachedBase,), {"add": add, "total": CachedBase.total}))

    for cls in (derived, defined):
        with pytest.raises(RegistrationError, match="'total'"):
            App().entity(cls)


async def test_a_state_that_its_class_cannot_read_is_an_error_and_no_dict() -> None:
    old, new = App(), App()

    @old.entity(name="box")
    class OldBox:
        number: int = 0

        def put(self) -> None:
            self.number = 5

    @new.entity(name="box")
    class Box:
        number: str = ""

        def put(self) -> None: ...

    store = perdure.MemoryStore()
    async with Hub(old, store=store) as hub:
        await hub.client.call_entity(EntityId(OldBox, "b"), OldBox.put)

    async with Hub(new, store=store) as hub:
        with pytest.raises(PayloadError, match="str expected"):
            await hub.client.read_entity_state(EntityId(Box, "b"))
        status = await hub.client.get_entity(EntityId(Box, "b"))

    shown: Any = None if status is None else status.state
    assert shown == {"number": 5}
