from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure import RuntimeStatus, UsageError
from perdure.runtime.client.pages import check_page_size, make_token, read_statuses, read_token
from perdure.storage import InstanceFilter

QUERY = InstanceFilter(name="flow", statuses=("Completed", "Running"))


@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_token_gives_back_the_position_that_it_was_made_for(created: int, key: str) -> None:
    assert read_token(make_token(created, key, QUERY), QUERY) == (created, key)


def test_without_a_token_a_query_begins_at_its_beginning() -> None:
    assert read_token(None, QUERY) is None


@pytest.mark.parametrize(
    "same",
    [
        InstanceFilter(name="flow", statuses=("Running", "Completed")),
        InstanceFilter(name="flow", statuses=("Completed", "Running"), limit=7),
        InstanceFilter(name="flow", statuses=("Completed", "Running"), after=(3, "x")),
        InstanceFilter(name="flow", statuses=("Completed", "Running"), payloads=False),
    ],
)
def test_pages_of_one_query_may_differ_in_size_and_in_what_they_show(same: InstanceFilter) -> None:
    assert read_token(make_token(3, "x", QUERY), same) == (3, "x")


@pytest.mark.parametrize(
    "other",
    [
        InstanceFilter(name="flow", statuses=("Completed",)),
        InstanceFilter(name="other", statuses=("Completed", "Running")),
        InstanceFilter(),
    ],
)
def test_a_token_is_of_the_query_that_gave_it_alone(other: InstanceFilter) -> None:
    with pytest.raises(UsageError, match="the same query gave"):
        read_token(make_token(3, "x", QUERY), other)


def forged(position: bytes) -> str:
    return base64.urlsafe_b64encode(position).decode()


@pytest.mark.parametrize(
    "token",
    [
        forged(b'{"a":1,"b":2,"c":3}'),
        forged(b'[true,"x",""]'),
        forged(b'[1.0,"x",""]'),
        forged(b'[-1,"x",""]'),
        forged(b'[9223372036854775808,"x",""]'),
        forged(b'[1,2,""]'),
        forged(b"7"),
        forged(b"\xff"),
        "a",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="continuation_token"):
        read_token(token, QUERY)


@pytest.mark.parametrize(
    ("created", "key"), [(-1, "x"), (2**63, "x"), (True, "x"), (1.5, "x"), (1, 2), (1, None)]
)
def test_a_position_that_no_page_ends_at_is_refused(created: Any, key: Any) -> None:
    with pytest.raises(UsageError, match="continuation_token"):
        read_token(make_token(created, key, QUERY), QUERY)


@pytest.mark.parametrize("token", [b"x", 7, "\ud800"])
def test_a_token_is_a_text(token: Any) -> None:
    with pytest.raises(UsageError, match="continuation_token"):
        read_token(token, QUERY)


def test_what_is_only_read_as_a_token_is_none() -> None:
    token = make_token(3, "x", QUERY)

    for other in (f" {token}", f"{token}\n", f"{token}=", f"{token[:4]}!{token[4:]}"):
        with pytest.raises(UsageError, match="continuation_token"):
            read_token(other, QUERY)


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_page_has_one_item_or_more(size: int) -> None:
    assert check_page_size(size) == size


@pytest.mark.parametrize("size", [0, -1, 10_001, 1.0, True, "7", None])
def test_a_size_that_no_page_has_is_refused(size: object) -> None:
    with pytest.raises(UsageError, match="page_size"):
        check_page_size(size)


def test_statuses_are_given_as_they_are_stored_each_once() -> None:
    given: list[RuntimeStatus | str] = [RuntimeStatus.FAILED, "Running", "Failed"]

    assert read_statuses(given) == ["Failed", "Running"]
    assert read_statuses(iter(["Pending"])) == ["Pending"]
    assert read_statuses(None) == []


def test_a_list_that_came_out_empty_does_not_stand_for_all() -> None:
    with pytest.raises(UsageError, match="one status or more"):
        read_statuses([])


class Raising:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "status",
    ["running", "", None, 7, Raising()],
    ids=["small", "empty", "none", "number", "raising"],
)
def test_what_is_no_status_is_refused_with_those_that_are(status: Any) -> None:
    with pytest.raises(UsageError, match=r"each of statuses must be one of .*Running"):
        read_statuses([status])


@pytest.mark.parametrize("statuses", ["Running", 7])
def test_statuses_are_several(statuses: Any) -> None:
    with pytest.raises(UsageError, match="statuses"):
        read_statuses(statuses)
