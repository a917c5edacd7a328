from __future__ import annotations

from pathlib import Path

from perdure.benchmarks.peers.contender import OURS
from perdure.benchmarks.peers.measure import Size
from perdure.benchmarks.peers.race import Run, race, rates, ratio, run_apart
from tests.benchmarks.peers.rounds import rounds_of, run_at


def test_contenders_take_turns() -> None:
    order: list[tuple[str, int]] = []

    def run_one(name: str, number: int) -> Run:
        order.append((name, number))
        return Run(name)

    race(["a", "b", "c"], 2, run_one)

    assert order == [(name, number) for number in (0, 1) for name in ("a", "b", "c")]


def test_who_is_not_available_is_not_asked_again_and_stays_in_the_list() -> None:
    asked: list[str] = []

    def run_one(name: str, number: int) -> Run:
        asked.append(name)
        return Run(name, unavailable="no such program" if name == "b" else None)

    rounds = race(["a", "b"], 3, run_one)

    assert asked == ["a", "b", "a", "a"]
    assert [runs["b"].unavailable for runs in rounds] == ["no such program"] * 3


def test_a_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    # The machine slowed down for the whole of the second round: 4, 5 and 10 times all the same.
    rounds = rounds_of([400, 50, 1_000], [100, 10, 100])

    assert ratio(rounds, "restate", "hello", OURS) == 5
    assert ratio(rounds, OURS, "hello", OURS) == 1
    assert rates(rounds, "restate", "hello") == [100, 10, 100]


def test_a_wrong_run_counts_for_nothing() -> None:
    rounds = rounds_of([400, 400, 400], [100, 10, 100])
    rounds[1]["restate"].wrong = "counted twice"

    assert rates(rounds, "restate", "hello") == [100, 100]
    assert ratio(rounds, "restate", "hello", OURS) == 4


def test_without_perdure_there_is_no_ratio() -> None:
    assert ratio([{"restate": run_at("restate", 1)}], "restate", "hello", OURS) is None


def test_a_contender_that_breaks_fails_the_run(tmp_path: Path) -> None:
    run = run_apart("perdure-memory", Size(seconds=0), tmp_path, lambda load: None)

    assert not run.verified
    assert run.wrong is not None
    assert "ended with status 1" in run.wrong


def test_who_is_gone_in_a_later_round_is_not_asked_again_either() -> None:
    asked: list[int] = []

    def run_one(name: str, number: int) -> Run:
        asked.append(number)
        return Run(name, unavailable="its server is gone" if number == 1 else None)

    rounds = race(["a"], 4, run_one)

    assert asked == [0, 1]
    assert [runs["a"].unavailable for runs in rounds] == [None, *["its server is gone"] * 3]


def test_a_load_that_a_run_did_not_come_to_has_no_rate() -> None:
    assert run_at("restate", 7).rate("hello") == 7
    assert run_at("restate", 7).rate("fanout") is None
