from __future__ import annotations

from typing import (
    Any,
)

import pytest

from perdure.actors.codec.codec import codec_for
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import of, round_trip


def test_a_pydantic_model_crosses() -> None:
    pydantic: Any = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", name=(str, ...), size=(int, 1))

    assert round_trip(of(list, model), [model(name="a")]) == [model(name="a")]
    with pytest.raises(PayloadError):
        codec_for(model).decode(b'{"size":"x"}')
