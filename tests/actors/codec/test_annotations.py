from __future__ import annotations

import collections
from collections.abc import Callable
from datetime import date
from typing import (
    Annotated,
    Any,
)

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError, RegistrationError
from tests.actors.codec.samples import round_trip


@pytest.mark.parametrize(
    "annotation",
    [3, Callable[[], None], list[complex], dict[float, int], dict[int | str, int], "Nowhere"],
    ids=str,
)
def test_an_annotation_without_json_form_is_refused(annotation: Any) -> None:
    with pytest.raises(RegistrationError):
        codec_for(annotation)


def test_an_unhashable_annotation_is_accepted() -> None:
    assert round_trip(Annotated[int, []], 5) == 5


class Rate(float):
    pass


class SubDate(date):
    pass


def test_untyped_takes_subclasses_of_what_it_knows() -> None:
    values = [Rate(1.5), SubDate(2024, 2, 29), collections.deque([1]), collections.Counter("a")]

    assert codec_for(Any).encode(values) == b'[1.5,"2024-02-29",[1],{"a":1}]'


def test_untyped_refuses_nan_of_a_subclass_of_float() -> None:
    with pytest.raises(PayloadError, match="nan"):
        codec_for(Any).encode([Rate("nan")])
