from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.actors.errors import InvalidIdError, UsageError
from perdure.actors.ids import (
    MAX_ID_LENGTH,
    EntityId,
    check_folded,
    check_instance_id,
    check_text,
    entity_id,
    is_entity,
    shortened,
    split_entity,
)

# What an id may be made of: no control characters, surrogates or line separators.
KEYS = st.text(
    st.characters(
        exclude_categories=["Cc", "Cs", "Zl", "Zp"],
        exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    ),
    min_size=1,
    max_size=40,
)
NAMES = KEYS.filter(lambda name: "@" not in name)


class Hostile(str):
    """Raises wherever it is asked."""

    def __str__(self) -> str:
        raise KeyError("text")

    __len__ = __getitem__ = isprintable = casefold = startswith = __str__  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class Counter:
    pass


class Registered:
    __perdure_entity__ = "registered"


@given(NAMES, KEYS)
def test_an_entity_id_is_read_back_from_its_text(name: str, key: str) -> None:
    id = EntityId[Any](name, key)

    assert EntityId.parse(str(id)) == id
    assert split_entity(str(id)) == (id.name, id.key) == (name.casefold(), key)
    assert is_entity(str(id))


@given(KEYS)
def test_an_instance_id_is_no_entitys_key(id: str) -> None:
    if id[0] == "@":
        with pytest.raises(InvalidIdError, match="must not start with '@'"):
            check_instance_id(id)
    else:
        assert check_instance_id(id) == id
        assert not is_entity(id)


def test_an_entitys_name_ignores_case_and_its_key_does_not() -> None:
    assert EntityId("Counter", "a") == EntityId("counter", "a")
    assert hash(EntityId("Counter", "a")) == hash(EntityId("counter", "a"))
    assert EntityId("counter", "A") != EntityId("counter", "a")
    assert EntityId("counter", "a") != "@counter@a"


def test_entity_ids_have_the_order_of_their_texts() -> None:
    ids = [EntityId[Any]("b", "a"), EntityId[Any]("a", "b"), EntityId[Any]("a", "a")]

    assert [str(id) for id in sorted(ids)] == ["@a@a", "@a@b", "@b@a"]
    assert repr(ids[0]) == "EntityId('b', 'a')"


@pytest.mark.parametrize(
    "bad",
    ["", "a\n", "\x00", "\ud800", "a\u2028", "\u202e", "\u2066", "x" * 257, 5, None, b"a"],
    ids=ascii,
)
def test_what_is_no_id_is_refused(bad: Any) -> None:
    for check in (check_text, check_folded):
        with pytest.raises(InvalidIdError, match="thing"):
            check(bad, "thing")
    with pytest.raises(InvalidIdError, match="instance_id"):
        check_instance_id(bad)
    with pytest.raises(InvalidIdError, match="an entity key"):
        EntityId("counter", bad)


@pytest.mark.parametrize("id", ["x" * 256, "a b", "\u200d", "\u3000", "é", "👩\u200d💻"], ids=ascii)
def test_what_words_are_written_with_is_taken(id: str) -> None:
    assert check_text(id, "thing") == check_instance_id(id) == EntityId("counter", id).key == id


def test_a_name_that_grows_when_it_is_folded_is_measured_after_that() -> None:
    assert check_folded("ß" * 128, "a name") == "ss" * 128
    with pytest.raises(InvalidIdError, match=r"has 258 characters"):
        check_folded("ß" * 129, "a name")


def test_the_id_of_a_child_may_be_longer_by_a_hash() -> None:
    child = shortened("p" * MAX_ID_LENGTH + "::" + "0:" * 50)

    assert len(child) == MAX_ID_LENGTH + 26
    assert check_instance_id(child) == child
    with pytest.raises(InvalidIdError, match="has 283 characters"):
        check_instance_id(child + "0")
    with pytest.raises(InvalidIdError, match="has 257 characters"):
        check_instance_id("p" * 257)


def test_a_short_child_id_keeps_its_place_and_differs_where_the_long_one_does() -> None:
    one, other = shortened("home::1:2"), shortened("home::1:3")

    assert one.startswith("home::")
    assert one != other
    assert one == shortened("home::1:2")


def test_text_that_raises_wherever_it_is_asked_is_taken_as_the_text_it_is() -> None:
    id = check_instance_id(Hostile("home::1"))

    assert (id, type(id)) == ("home::1", str)
    assert check_folded(Hostile("Name"), "a name") == "name"
    assert EntityId("counter", Hostile("key")).key == "key"
    assert str(EntityId.parse(Hostile("@Counter@a"))) == "@counter@a"
    with pytest.raises(InvalidIdError, match="must not start"):
        check_instance_id(Hostile("@a"))


@pytest.mark.parametrize("text", ["", "counter@a", "@counter", "@@a", "@counter@", 5, None])
def test_what_is_no_text_of_an_entity_id_is_refused(text: Any) -> None:
    with pytest.raises(InvalidIdError):
        EntityId.parse(text)


def test_a_key_may_have_the_sign_that_parts_it_from_the_name() -> None:
    assert EntityId.parse("@counter@a@b").key == "a@b"
    with pytest.raises(InvalidIdError, match="must not contain '@'"):
        EntityId("a@b", "c")


def test_a_registered_class_stands_for_its_name() -> None:
    assert str(EntityId(Registered, "a")) == "@registered@a"


@pytest.mark.parametrize("entity", [Counter, len, 5, None, object()], ids=range(5))
def test_what_is_no_registered_entity_is_refused(entity: Any) -> None:
    with pytest.raises(UsageError, match=r"decorate it with @app\.entity"):
        EntityId(entity, "a")


def test_only_an_entity_id_is_one() -> None:
    id = EntityId[Any]("counter", "a")

    assert entity_id(id) is id
    with pytest.raises(UsageError, match="target must be an EntityId"):
        entity_id("@counter@a", "target")
