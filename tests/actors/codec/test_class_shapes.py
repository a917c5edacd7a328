from __future__ import annotations

from typing import (
    Any,
)

import attrs
import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import BigCircle, Circle, Item, Square


@pytest.mark.parametrize("annotation", [Circle, Circle | Square, list[Circle], Circle | None])
def test_a_subclass_that_is_not_declared_is_refused(annotation: Any) -> None:
    value: Any = [BigCircle(2.0)] if annotation == list[Circle] else BigCircle(2.0)

    with pytest.raises(PayloadError, match="subclass BigCircle"):
        codec_for(annotation).encode(value)


def test_fields_that_are_not_declared_are_ignored_and_missing_ones_default() -> None:
    item = codec_for(Item).decode(b'{"sku":"a","price":1,"color":"red"}')

    assert item == Item("a", 1.0, 1)


def test_an_error_of_a_validator_is_a_payload_error_with_its_path() -> None:
    @attrs.define
    class Positive:
        value: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(PayloadError, match="must be > 0") as raised:
        codec_for(list[Positive]).decode(b'[{"value":1},{"value":0}]')

    assert raised.value.path == "$[1]"
