from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
import pytest

from perdure.actors.errors import PayloadTooLargeError
from perdure.actors.payloads import check_size, compact, write_around, write_in_parts
from perdure.storage.slices import at_once


def test_data_over_the_limit_is_refused_by_size() -> None:
    assert check_size(b"12345", 5, "the input") == b"12345"
    with pytest.raises(PayloadTooLargeError) as raised:
        check_size(b"123456", 5, "the input")

    assert (raised.value.size, raised.value.limit, raised.value.path) == (6, 5, "the input")


@pytest.mark.parametrize("data", [b"1", b"null", b'{"a":[1,2]}', b'"' + 100 * b"x" + b'"'])
def test_a_short_text_that_is_kept_is_a_copy_without_the_buffer_of_its_making(data: bytes) -> None:
    assert compact(data) == data
    assert compact(data) is not data or len(data) == 1  # Python has one object for each byte


def test_a_long_text_is_kept_as_it_is() -> None:
    data = 5_000 * b"1"

    assert compact(data) is data


@pytest.mark.parametrize("payload", [254 * "[" + "1" + 254 * "]", 253 * '{"a":' + "[]" + 253 * "}"])
def test_what_stands_around_a_payload_may_be_as_deep_as_the_payload(payload: str) -> None:
    deep = orjson.loads(payload)
    with pytest.raises(TypeError, match="Recursion"):
        orjson.dumps([deep])

    page: Any = {
        "items": [{"input": deep, "id": "a"}, ({"state": deep},)],
        "done": orjson.Fragment(b"1"),
    }

    assert write_around(page) == (
        b'{"items":[{"input":%b,"id":"a"},[{"state":%b}]],"done":1}'
        % (payload.encode(), payload.encode())
    )


def test_what_json_has_not_is_refused_around_payloads_as_well() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_around({"items": [object()]})


@pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
def test_a_page_is_written_in_parts_as_it_is_at_once(count: int) -> None:
    items = [{"number": number, "text": '\u00e9"', "parts": [number]} for number in range(count)]
    page = {"items": items, "cursor": None, "empty": [], "told": {"a": [1]}}
    written = list[bytes]()

    def write() -> Generator[None]:
        written.append((yield from write_in_parts(page)))

    pauses = len([*write()])

    assert written == [orjson.dumps(page)]
    assert at_once(write_in_parts(items)) == orjson.dumps(items)
    assert pauses == (0 if count <= 64 else -(-count // 64))
