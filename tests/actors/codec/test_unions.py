from __future__ import annotations

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import RegistrationError
from tests.actors.codec.samples import BigCircle, Box, Circle, round_trip


def test_a_subclass_that_a_union_declares_comes_back_as_it_was() -> None:
    assert round_trip(Circle | BigCircle, BigCircle(2.0)) == BigCircle(2.0)
    assert round_trip(Circle | BigCircle, Circle(2.0)) == Circle(2.0)


def test_ints_and_floats_of_a_union_keep_their_type() -> None:
    values = round_trip(list[int | float], [1, 1.0])

    assert [type(value) for value in values] == [int, float]


def test_a_union_of_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(RegistrationError, match="two members"):
        codec_for(Box[int] | Box[str] | Box[float])


def test_the_json_of_an_int_is_read_as_float_in_a_union_without_int() -> None:
    assert type(codec_for(float | str).decode(b"1")) is float
