"""Which version is the higher."""

from __future__ import annotations

from hypothesis import given, strategies as st

from perdure.actors.registry.versions import version_key

ORDERED = [
    None,
    "0.9",
    "1.0.dev1",
    "1.0a1",
    "1.0b2",
    "1.0rc1",
    "1.0",
    "1.0.post1",
    "1.0.1",
    "1.2",
    "1.10",
    "v2",
    "10.0",
]


@given(st.permutations(ORDERED))
def test_versions_are_ordered_by_their_numbers(versions: list[str | None]) -> None:
    assert sorted(versions, key=version_key) == ORDERED


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_texts_can_be_ordered_as_versions(versions: list[str]) -> None:
    ordered = sorted(versions, key=version_key)

    backwards = ordered[::-1]
    assert sorted(backwards, key=version_key) == ordered
