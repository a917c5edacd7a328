from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")

from hypothesis import HealthCheck, given, settings, strategies as st

from perdure.actors.codec import codec_for
from perdure.actors.errors import PayloadError
from perdure.actors.likeness import difference
from tests.actors import crossing
from tests.actors.crossing import CROSSING

ROOT = Path(__file__).parents[2]


def cases() -> st.SearchStrategy[tuple[int, Any]]:
    return st.integers(0, len(CROSSING) - 1).flatmap(
        lambda number: st.tuples(st.just(number), CROSSING[number][1])
    )


def read_elsewhere(asked: list[tuple[int, bytes]]) -> list[tuple[Any, bytes]]:
    child = subprocess.run(
        [sys.executable, "-m", "tests.actors.crossing"],
        input=pickle.dumps(asked),
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    answers: list[tuple[Any, bytes]] = pickle.loads(child.stdout)
    return answers


def test_what_is_not_refused_is_read_as_it_was_by_a_process_with_another_hash_seed() -> None:
    written: list[tuple[int, bytes]] = []
    values: list[Any] = []
    refused: set[int] = set()

    slow = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]

    @settings(max_examples=800, deadline=None, suppress_health_check=slow, database=None)
    @given(cases())
    def write(case: tuple[int, Any]) -> None:
        number, value = case
        try:
            data = codec_for(CROSSING[number][0]).encode(value)
        except PayloadError:
            refused.add(number)
            return
        written.append((number, data))
        values.append(value)

    write()

    for value, (number, data), (read, again) in zip(
        values, written, read_elsewhere(written), strict=True
    ):
        annotation = CROSSING[number][0]
        assert difference(value, read) is None, (annotation, value, read)
        assert read == value, annotation
        assert again == data, annotation
    accepted = {number for number, _ in written}
    assert len(accepted) > len(CROSSING) - 5, refused - accepted


def refusal(annotation: Any, value: Any) -> PayloadError:
    with pytest.raises(PayloadError) as raised:
        codec_for(annotation).encode(value)
    return raised.value


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[crossing.Event], [crossing.Payment("x", 5)], "$[0]"),
        (crossing.Event, crossing.changed(crossing.Event("x"), more=1), "$.more"),
        (crossing.FrozenSummed, crossing.changed(crossing.FrozenSummed((1,)), total=5), "$.total"),
        (crossing.Doubled, crossing.Doubled(3), "$.number"),
        (crossing.Login, crossing.Login(user="a", password="pw"), "$.password"),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        (
            list[crossing.Inner],
            [crossing.spoilt(crossing.Inner(), labels="no set")],
            "$[0].labels",
        ),
        (crossing.Model, crossing.Model(theName="a", inner=crossing.Wide(more=1)), "$.inner"),
        (crossing.Model, crossing.private(crossing.Model(theName="a"), 1), "$._private"),
        (crossing.Hidden, crossing.Hidden(number=-1), "$.number"),
    ],
)
def test_what_would_be_lost_is_refused_with_its_path(
    annotation: Any, value: Any, path: str
) -> None:
    assert refusal(annotation, value).path == path


def test_a_refusal_does_not_tell_the_secret_that_would_be_lost() -> None:
    login: Any = crossing.Login.model_validate({"user": "ada", "password": "hunter2"})

    assert "hunter2" not in str(refusal(crossing.Login, login))


def test_the_sets_of_a_model_have_one_order() -> None:
    held = crossing.Held[set[str]](content=set("gadfbce"))

    assert codec_for(crossing.Held[set[str]]).encode(held) == (
        b'{"content":["a","b","c","d","e","f","g"]}'
    )
