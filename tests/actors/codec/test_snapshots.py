from __future__ import annotations

import collections
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import attrs
import pytest

from perdure.actors.classes import class_of
from perdure.actors.codec.annotations import shape_for
from perdure.actors.codec.snapshots import (
    copier,
    flattener,
    is_immutable,
    rereader,
    snapshotter,
    tangle_finder,
)
from perdure.actors.codec.states import state_codec
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import Color, Item, Large, Money, Node, Point, Small


def change_everything(entity: Large) -> None:
    entity.number += 1
    entity.names.append("x")
    entity.seen.clear()
    entity.table["a"].append(1)
    entity.items[0].price = 9
    entity.items.append(Item("new", 1))
    entity.anything["deep"][0].add(2)
    entity.point = Point(1, 1)
    entity.maybe = [5]
    entity.node.children.append(Node(1))
    entity.money = None


def large() -> Large:
    return Large(
        names=["a"],
        seen={1},
        table={"a": []},
        items=[Item("a", 1)],
        anything={"deep": [{1}]},
        money=Money(Decimal(1), "EUR"),
    )


def test_a_snapshot_undoes_every_change_also_those_in_place() -> None:
    take, restore = snapshotter(Large)
    entity = large()

    token = take(entity)
    change_everything(entity)
    restore(entity, token)

    assert entity == large()


def test_a_snapshot_of_one_immutable_field_undoes_its_change() -> None:
    take, restore = snapshotter(Small)
    entity = Small(3)

    token = take(entity)
    entity.value = 4
    restore(entity, token)

    assert entity == Small(3)


def test_a_snapshot_brings_back_a_deleted_field() -> None:
    take, restore = snapshotter(Small)
    entity = Small(3)

    token = take(entity)
    del entity.value
    restore(entity, token)

    assert entity == Small(3)


def increment(number: int) -> int:
    return number + 1


def test_a_snapshot_passes_by_validators_and_converters() -> None:
    @attrs.define
    class Odd:
        value: int = attrs.field(default=1, converter=increment)

    take, restore = snapshotter(Odd)
    entity = Odd()

    token = take(entity)
    entity.value = 10
    restore(entity, token)

    assert entity.value == 2


def test_a_snapshot_keeps_what_does_not_fit_its_annotation() -> None:
    @attrs.define
    class Loose:
        items: list[Item] = attrs.field(factory=list[Item])

    take, restore = snapshotter(Loose)
    entity = Loose()
    wrong: Any = [["not an item"]]
    entity.items = wrong

    token = take(entity)
    wrong[0].clear()
    restore(entity, token)

    kept: Any = entity.items
    assert kept == [["not an item"]]


def test_a_snapshot_of_several_immutable_fields_undoes_their_changes() -> None:
    take, restore = snapshotter(Item)
    entity = Item("a", 1.0)

    token = take(entity)
    entity.sku, entity.price = "b", 2.0
    restore(entity, token)

    assert entity == Item("a", 1.0)


def test_a_class_without_fields_has_an_empty_snapshot() -> None:
    @attrs.define
    class Empty:
        pass

    take, restore = snapshotter(Empty)

    restore(Empty(), take(Empty()))


def test_a_class_that_declares_no_fields_has_no_snapshot() -> None:
    with pytest.raises(RegistrationError):
        snapshotter(int)


@attrs.define
class Holder:
    one: list[list[int]] = attrs.field(factory=list[list[int]])
    two: list[list[int]] = attrs.field(factory=list[list[int]])
    text: str = ""
    free: Any = None


@attrs.define
class Flat:
    many: list[int] = attrs.field(factory=list[int])


@attrs.define
class Two:
    many: list[int] = attrs.field(factory=list[int])
    more: set[str] = attrs.field(factory=set[str])


RUNS: list[int] = []


def note(number: int) -> int:
    RUNS.append(number)
    return number


@attrs.define
class Noting:
    number: int = attrs.field(converter=note)


@attrs.define
class Whole:
    part: Noting = attrs.field(factory=lambda: Noting(1))


def finder(cls: type) -> Callable[[Any], bool]:
    found = tangle_finder(cls)
    assert found is not None
    return found


def test_one_object_at_two_places_is_a_tangle() -> None:
    shared = [1]
    is_tangled = finder(Holder)

    assert not is_tangled(Holder([[1], [1]], [[1]]))
    assert is_tangled(Holder([shared, [2], shared]))
    assert is_tangled(Holder([shared], [shared]))
    assert not is_tangled(Holder([[1]], free=[shared, shared]))  # read back in any case


def test_what_cannot_change_may_be_at_two_places() -> None:
    nothing: Any = ()
    fixed: Any = (nothing, nothing, Color.RED, Color.RED, "a", "a", 1, 1, int, int)

    assert not finder(Two)(Two([*fixed, *fixed]))


def test_a_class_whose_parts_cannot_be_one_object_has_no_tangles() -> None:
    assert tangle_finder(Small) is None
    assert tangle_finder(Flat) is None
    shared: Any = []
    assert finder(Two)(Two(shared, shared))


def test_a_tangle_is_found_where_objects_hold_objects() -> None:
    is_tangled = finder(Large)
    item = Item("a", 1)

    assert not is_tangled(Large(items=[Item("a", 1), Item("a", 1)]))
    assert is_tangled(Large(items=[item, item]))
    assert is_tangled(Large(table={"a": [1], "b": (shared := [2]), "c": shared}))
    assert not is_tangled(Large(node=Node(0, [node := Node(1), node])))  # read back in any case


def flattened(value: Any) -> Any:
    cls = class_of(value)
    flatten = flattener(cls, state_codec(cls, cls))
    assert flatten is not None
    return flatten(value)


def test_a_state_in_memory_becomes_what_the_store_would_give_back() -> None:
    shared = [1]

    one = flattened(Holder([shared], [shared], free={"a": (1, {2})}))

    assert one == Holder([[1]], [[1]], free={"a": [1, [2]]})
    assert one.one[0] is not one.two[0]


def test_what_cannot_be_stored_is_named_with_its_field() -> None:
    with pytest.raises(PayloadError) as raised:
        flattened(Holder(free=[1, object()]))

    assert raised.value.path == "$.free[1]"


def test_a_state_that_is_as_the_store_would_give_it_back_stays_the_object_that_it_is() -> None:
    assert flattener(Small, state_codec(Small, Small)) is None
    value = Two([1], {"a"})
    assert flattened(value) is value
    other = Holder(free="plain")
    assert flattened(other) is other


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 5),
        (tuple[int, ...], (1, 2)),
        (list[int], [1]),
        (list[list[int]], [[1]]),
        (list[list[int]], []),
        (list[Item], [Item("a", 1)]),
        (Any, {"a": (1, [2])}),
        (Any, 5),
        (collections.deque[int], collections.deque([1])),
        (list[Item], [["no item"]]),
        (list[Item] | None, None),
        (list[Any], [object]),
    ],
    ids=str,
)
def test_a_copy_is_equal_and_shares_nothing_that_changes(annotation: Any, value: Any) -> None:
    copied = copier(shape_for(annotation))(value)

    assert (copied, type(copied)) == (value, type(value))
    assert copied is not value or is_immutable(value)
    if type(value) in (list, dict):
        for one, other in zip(value, copied, strict=True):
            assert one is not other or is_immutable(one)


def test_what_is_written_and_read_back_is_plain_under_any() -> None:
    assert rereader(shape_for(Any))((1, {2})) == [1, [2]]


@pytest.mark.parametrize(
    ("value", "immutable"),
    [
        (5, True),
        ((1, (date(2024, 2, 29), frozenset({1}))), True),
        (Color.RED, True),
        (int, True),
        (len, True),
        ((), True),
        ([], False),
        ((1, [2]), False),
        (Item("a", 1), False),
        (type("Text", (str,), {})("a"), False),
    ],
    ids=range(10),
)
def test_only_what_is_known_never_to_change_is_immutable(value: Any, immutable: bool) -> None:
    assert is_immutable(value) is immutable


def test_a_snapshot_keeps_what_comes_back_otherwise_as_a_copy() -> None:
    take, restore = snapshotter(Holder)
    entity = Holder(free={"a": (1, [2]), "b": Color.RED})

    token = take(entity)
    entity.free["a"][1].append(3)
    restore(entity, token)

    assert entity.free == {"a": (1, [2]), "b": Color.RED}


def test_a_snapshot_of_what_runs_code_is_a_copy_that_runs_none() -> None:
    take, restore = snapshotter(Whole)
    entity = Whole()
    token = take(entity)
    entity.part.number = 5
    RUNS.clear()
    restore(entity, token)

    assert (entity.part.number, RUNS) == (1, [])
