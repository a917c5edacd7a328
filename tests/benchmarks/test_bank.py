from __future__ import annotations

import pytest

from perdure.benchmarks import bank
from perdure.benchmarks.bank import AMOUNT_MAX, BRANCH, draw_transfers, expect_branch
from perdure.benchmarks.figures import WrongOutcomeError


@pytest.mark.parametrize(
    ("balances", "reason"),
    [
        ([100] * 9 + [99], "sum of branch 3: 999 instead of 1000"),
        ([100] * 8 + [201, -1], "branch 3 has a balance below nothing"),
    ],
)
def test_an_audit_refuses_what_only_half_a_transfer_shows(balances: list[int], reason: str) -> None:
    with pytest.raises(WrongOutcomeError, match=reason):
        expect_branch(3, balances)


def test_transfers_stay_in_a_branch_and_are_the_same_for_the_same_seed() -> None:
    drawn = draw_transfers(500, seed=3)

    assert drawn == draw_transfers(500, seed=3)
    assert drawn != draw_transfers(500, seed=4)
    assert all(one.source != one.target for one in drawn)
    assert all(one.source // BRANCH == one.target // BRANCH for one in drawn)
    assert all(1 <= one.amount <= AMOUNT_MAX for one in drawn)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_audits_come_among_the_transfers_and_behind_the_last(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "AUDIT_EVERY", 5)

    work = bank.mix_work(10, 10 + count)

    assert [number for number in work if number is not None] == [*range(10, 10 + count)]
    assert work[-1] is None
    assert work.count(None) == -(-count // 5)
