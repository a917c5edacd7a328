from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from perdure.actors.changes import EntityState, encode_parked, read_parked

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
EMPTY = EntityState(1, "counter", "a", 5, None, None, None, None)


@given(TEXT, TEXT)
def test_why_an_actor_is_parked_is_read_back(kind: str, reason: str) -> None:
    assert read_parked(encode_parked(kind, reason)) == (kind, reason)


@pytest.mark.parametrize(
    "stored", [None, b"", b"{", b"[]", b"5", b'"x"', b'{"type":"x"}', b"{}"], ids=repr
)
def test_a_reason_that_cannot_be_read_is_itself_a_damage(stored: bytes | None) -> None:
    kind, reason = read_parked(stored)

    assert (kind, reason) == ("StoreDamagedError", "why it was parked cannot be read")


def test_only_an_entity_of_which_nothing_is_left_is_empty() -> None:
    assert EMPTY.is_empty
    assert not EMPTY._replace(state=b"0").is_empty
    assert not EMPTY._replace(lock=b"{}").is_empty
    assert not EMPTY._replace(failures=b"[]").is_empty
    assert not EMPTY._replace(parked=b"{}").is_empty
