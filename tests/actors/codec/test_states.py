from __future__ import annotations

from typing import Any

import orjson
import pytest

from perdure.actors.codec.states import state_codec
from perdure.actors.errors import PayloadError
from tests.actors.codec.samples import ANYTHING, Large, Small


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_an_upgrade_raises_is_a_payload_error(error: BaseException) -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise error

    with pytest.raises(PayloadError):
        state_codec(Small, Small, 2, upgrade).decode(b'{"value":1}')


def test_an_upgrade_that_gives_no_dict_is_a_payload_error() -> None:
    def nothing(stored: dict[str, Any], version: int) -> Any:
        return None

    with pytest.raises(PayloadError, match="gave no dict"):
        state_codec(Small, Small, 2, nothing).decode(b'{"value":1}')


def test_a_state_reads_missing_fields_as_defaults_and_ignores_others() -> None:
    state = state_codec(Large, Large)

    read = state.decode(b'{"number":5,"gone":1}')

    assert read == Large(number=5)


def test_a_state_of_the_first_version_says_nothing_of_it() -> None:
    assert state_codec(Small, Small).encode(Small(1)) == b'{"value":1}'


def test_a_state_of_a_higher_version_bears_it() -> None:
    assert orjson.loads(state_codec(Small, Small, 2).encode(Small(1))) == {"$schema": 2, "value": 1}


def test_an_older_state_is_upgraded_with_its_version() -> None:
    seen: list[tuple[dict[str, Any], int]] = []

    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        seen.append((stored, version))
        return {"value": stored["count"]}

    state = state_codec(Small, Small, 3, upgrade)

    assert state.decode(b'{"count":7}') == Small(7)
    assert state.decode(b'{"$schema":2,"count":8}') == Small(8)
    assert seen == [({"count": 7}, 1), ({"count": 8}, 2)]


def test_a_state_of_this_version_is_not_upgraded() -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise AssertionError("not needed")

    assert state_codec(Small, Small, 2, upgrade).decode(b'{"$schema":2,"value":1}') == Small(1)


def test_a_state_of_a_newer_version_is_refused() -> None:
    with pytest.raises(PayloadError, match="newer"):
        state_codec(Small, Small, 2).decode(b'{"$schema":3,"value":1}')


def test_a_failing_upgrade_is_a_payload_error() -> None:
    def upgrade(stored: dict[str, Any], version: int) -> dict[str, Any]:
        raise KeyError("count")

    with pytest.raises(PayloadError, match="KeyError"):
        state_codec(Small, Small, 2, upgrade).decode(b'{"value":1}')


def test_a_bad_stored_field_is_named_with_its_path() -> None:
    with pytest.raises(PayloadError) as raised:
        state_codec(Large, Large).decode(b'{"items":[{"sku":"a","price":"x"}]}')

    assert raised.value.path == "$.items[0].price"
