from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from perdure.runtime.partitions import news as module
from perdure.runtime.partitions.news import LAPSE, News


class Time:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_nothing_is_kept_while_nobody_follows() -> None:
    news = News(Time())

    assert not news.is_followed
    assert news.behind(7, 7, 10) == (7, [])
    assert news.is_followed


def test_who_asks_behind_what_was_kept_has_to_look_at_all() -> None:
    news = News(Time())
    news.behind(7, 7, 10)

    assert news.behind(6, 7, 10) == (7, None)
    assert news.behind(8, 7, 10) == (7, None)  # of another store, say


def test_each_instance_is_told_once_by_its_last_change() -> None:
    news = News(Time())
    news.behind(0, 0, 10)
    news.note(["a", "b"], 1)
    news.note(["a"], 2)

    assert news.behind(0, 2, 10) == (2, ["b", "a"])
    assert news.behind(1, 2, 10) == (2, ["a"])
    assert news.behind(2, 2, 10) == (2, [])


def test_who_asks_the_same_again_is_told_of_what_came_meanwhile() -> None:
    news = News(Time())
    news.behind(0, 0, 10)
    news.note(["a"], 1)

    assert news.behind(0, 1, 10) == news.behind(0, 1, 10) == (1, ["a"])
    news.note(["b"], 2)
    assert news.behind(0, 2, 10) == (2, ["a", "b"])
    news.begin_anew(2)
    assert news.behind(0, 2, 10) == (2, None)
    news.lapse()
    assert news.behind(2, 2, 10) == (2, [])


def test_what_is_too_much_is_cut_behind_a_whole_checkpoint() -> None:
    news = News(Time())
    news.behind(0, 0, 10)
    news.note(["a"], 1)
    news.note(["b", "c", "d"], 2)
    news.note(["e"], 3)

    assert news.behind(0, 3, 2) == (2, ["a", "b", "c", "d"])
    assert news.behind(2, 3, 2) == (3, ["e"])


def test_what_is_forgotten_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    news = News(Time())
    news.behind(0, 0, 10)
    news.note(["a", "b"], 1)
    news.note(["c", "d"], 2)

    assert news.behind(0, 2, 10) == (2, None)
    assert news.behind(1, 2, 10) == (2, ["c", "d"])


def test_nothing_is_kept_any_more_when_nobody_has_asked_for_long() -> None:
    time = Time()
    news = News(time)
    news.behind(0, 0, 10)
    time.now = LAPSE + 1
    news.note(["a"], 1)

    assert not news.is_followed
    assert news.behind(0, 1, 10) == (1, None)


def test_behind_a_recovery_only_what_came_before_it_is_unknown() -> None:
    news = News(Time())
    news.begin_anew(1)
    assert not news.is_followed

    news.behind(1, 1, 10)
    news.note(["a"], 2)
    news.begin_anew(3)

    assert news.behind(2, 3, 10) == (3, None)
    assert news.behind(3, 3, 10) == (3, [])


def test_it_is_kept_for_as_long_as_somebody_waits() -> None:
    time = Time()
    news = News(time)
    news.behind(0, 0, 10)
    told: list[Any] = []

    class Heard:
        set = told.append

    waiter: Any = Heard()
    news.add(waiter)
    time.now = LAPSE + 1
    news.note(["a"], 1)

    assert told == [None]
    assert news.behind(0, 1, 10) == (1, ["a"])


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4), max_size=12),
    st.lists(st.integers(0, 12), max_size=6),
    st.integers(1, 4),
)
def test_a_reader_sees_the_last_change_of_all_or_is_told_to_look(
    commits: list[list[str]], looks: list[int], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KEPT", 5)
        news = News(Time())
        at, known = 0, dict[str, int]()
        news.behind(0, 0, most)
        latest: dict[str, int] = {}

        def look(durable: int) -> None:
            nonlocal at
            while True:
                upto, keys = news.behind(at, durable, most)
                at = upto
                if keys is None:
                    known.update(latest)
                elif not keys:
                    return
                else:
                    known.update({key: latest[key] for key in keys})

        for sequence, keys in enumerate(commits, 1):
            news.note(keys, sequence)
            latest.update(dict.fromkeys(keys, sequence))
            if sequence in looks:
                look(sequence)
        look(len(commits))
        assert known == latest
