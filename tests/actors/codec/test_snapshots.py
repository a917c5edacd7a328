from __future__ import annotations

from decimal import Decimal
from typing import (
    Any,
)

import attrs
import pytest

from perdure.actors.codec.snapshots import snapshotter
from perdure.actors.errors import RegistrationError
from tests.actors.codec.samples import Item, Large, Money, Node, Point, Small


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
