"""Comparing inputs at a replay: a class may have changed meanwhile, the code may not."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any

import orjson
from hypothesis import given, strategies as st

from perdure.actors.codec.codec import codec_for
from perdure.actors.replay.inputs import same_input

FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=3)),
    max_size=4,
)


def class_of(fields: dict[str, object], added: dict[str, object]) -> Any:
    """A class with these fields, and further ones that have defaults."""
    return make_dataclass(
        "Thing",
        [(name, type(value)) for name, value in fields.items()]
        + [(name, type(value), value) for name, value in added.items()],
    )


def nested(annotation: Any, value: Any, how: str) -> tuple[Any, Any]:
    if how == "list":
        return list[annotation], [value, value]
    if how == "dict":
        return dict[str, annotation], {"k": value}
    return annotation, value


@given(
    fields=FIELDS,
    added=FIELDS,
    other=st.integers(10, 20),
    how=st.sampled_from(["plain", "list", "dict"]),
    declared=st.booleans(),
)
def test_new_fields_with_defaults_change_nothing_and_another_value_does(
    fields: dict[str, Any], added: dict[str, Any], other: int, how: str, declared: bool
) -> None:
    added = {name: value for name, value in added.items() if name not in fields}
    before, after = class_of(fields, {}), class_of(fields, added)
    then, value = nested(before, before(**fields), how)
    recorded = orjson.loads(codec_for(then).encode(value))
    now, value = nested(after, after(**fields), how)
    codec: Any = codec_for(now if declared else Any)

    assert same_input(recorded, codec.encode(value), (codec, value))

    for name in fields:
        changed = after(**{**fields, name: other if type(fields[name]) is int else "other"})
        if type(fields[name]) is bool:
            changed = after(**{**fields, name: not fields[name]})
        _, value = nested(after, changed, how)
        assert not same_input(recorded, codec.encode(value), (codec, value))


@given(st.sets(st.text(max_size=4)), st.permutations(["x", "y", "z"]))
def test_no_order_that_a_process_has_is_compared(texts: set[str], keys: list[str]) -> None:
    codec = codec_for(set[str])
    table: Any = codec_for(dict[str, int])
    value = dict.fromkeys(keys, 1)

    assert same_input(sorted(texts), codec.encode(texts), (codec, texts))
    assert same_input({"x": 1, "y": 1, "z": 1}, table.encode(value), (table, value))


def test_numbers_and_truth_values_are_told_apart() -> None:
    codec: Any = codec_for(Any)

    for one, other in ((1, True), (1, 1.0), (0, False), ([1], [True])):
        assert not same_input(one, orjson.dumps(other), (codec, other))


@dataclass
class Strict:
    name: str
    needed: int


def test_what_the_class_of_today_cannot_read_is_another_input() -> None:
    codec: Any = codec_for(Strict)
    value = Strict("a", 1)

    assert not same_input({"name": "a"}, codec.encode(value), (codec, value))
