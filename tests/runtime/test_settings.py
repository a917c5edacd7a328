from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from perdure import Settings, UsageError

COUNTS = [one.name for one in attrs.fields(Settings) if isinstance(one.default, int)]
TIMES = [one.name for one in attrs.fields(Settings) if isinstance(one.default, float)]


def test_every_limit_is_a_count_or_a_time_but_for_what_becomes_of_an_instance() -> None:
    names = {one.name for one in attrs.fields(Settings)}

    assert names - {*COUNTS, *TIMES} == {"on_nondeterminism"}
    assert all(name.endswith("_s") for name in TIMES)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_one_or_more(name: str) -> None:
    given: Any = {name: 1}

    assert getattr(Settings(**given), name) == 1
    for wrong in (0, -1, 1.5, True, "7", None):
        given = {name: wrong}
        with pytest.raises(UsageError, match=f"{name} must be an int of at least 1"):
            Settings(**given)


@pytest.mark.parametrize("name", TIMES)
def test_a_time_is_given_in_seconds_or_as_a_timedelta(name: str) -> None:
    given: Any = {name: timedelta(milliseconds=1500)}

    assert getattr(Settings(**given), name) == 1.5
    given = {name: 2.5}
    assert getattr(Settings(**given), name) == 2.5


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "wrong", [0, -1.0, timedelta(), float("nan"), float("inf"), True, "7", None], ids=repr
)
def test_what_is_no_time_is_refused_by_name(name: str, wrong: Any) -> None:
    given: Any = {name: wrong}
    with pytest.raises(UsageError, match=name):
        Settings(**given)


def test_an_instance_that_left_its_history_is_parked_or_fails() -> None:
    assert Settings(on_nondeterminism="fail").on_nondeterminism == "fail"
    given: Any = {"on_nondeterminism": "ignore"}
    with pytest.raises(UsageError, match="'park', 'fail', not 'ignore'"):
        Settings(**given)


def test_limits_are_named_and_do_not_change() -> None:
    settings, make = Settings(), Settings
    changing: Any = settings
    positional: Any = make

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        changing.drain_s = 1.0
    with pytest.raises(TypeError):
        positional(1024)
