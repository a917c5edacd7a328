"""Transfers under entity locks: no reader sees half of one, and no money is made or lost.

The accounts form branches of ten, and a transfer stays inside a branch. So a reader that locks all
accounts of a branch must find the sum that it began with, whatever is under way beside it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import evolve, frozen

from perdure import App, Client, EntityId, OrchestrationContext, readonly

from .bench import Bench, Timed
from .figures import Fact, Outcome, WrongOutcomeError, expect, percentiles_ms
from .histogram import Histogram

app = App("bank")

ACCOUNTS = 100
BRANCH = 10
BRANCHES = ACCOUNTS // BRANCH
OPENING = 100
AMOUNT_MAX = 60  # against 100 at the opening: some transfers must be refused

_IN_FLIGHT = 100
#: How many transfers there are to an audit.
AUDIT_EVERY = 20


@app.entity
class Account:
    """A balance, and what made it."""

    balance: int = OPENING
    taken: int = 0
    taken_numbers: int = 0
    given: int = 0
    given_numbers: int = 0

    def take(self, transfer: list[int]) -> None:
        """Take out: ``[number, amount]``."""
        number, amount = transfer
        self.balance -= amount
        self.taken += 1
        self.taken_numbers += number

    def give(self, transfer: list[int]) -> None:
        """Put in: ``[number, amount]``."""
        number, amount = transfer
        self.balance += amount
        self.given += 1
        self.given_numbers += number

    @readonly
    def read(self) -> int:
        """Give the balance."""
        return self.balance

    @readonly
    def audit(self) -> list[int]:
        """Give all of it."""
        return [
            self.balance,
            self.taken,
            self.taken_numbers,
            self.given,
            self.given_numbers,
        ]


def _account(index: int) -> EntityId[Account]:
    return EntityId(Account, f"account-{index}")


@app.orchestration
async def move(ctx: OrchestrationContext, transfer: list[int]) -> bool:
    """Move money if there is enough: ``[number, source, target, amount]``."""
    number, source, target, amount = transfer
    async with ctx.lock_entities(_account(source), _account(target)):
        if await ctx.call_entity(_account(source), Account.read) < amount:
            return False
        await ctx.call_entity(_account(source), Account.take, [number, amount])
        await ctx.call_entity(_account(target), Account.give, [number, amount])
    return True


@app.orchestration
async def audit_branch(ctx: OrchestrationContext, branch: int) -> list[int]:
    """Give all balances of a branch, as of one moment."""
    accounts = [_account(index) for index in _branch(branch)]
    async with ctx.lock_entities(accounts):
        return await ctx.task_all([ctx.call_entity(one, Account.read) for one in accounts])


def _branch(branch: int) -> range:
    return range(branch * BRANCH, (branch + 1) * BRANCH)


@frozen
class Transfer:
    """Money from one account to another of its branch."""

    source: int
    target: int
    amount: int


def draw_transfers(n: int, seed: int) -> list[Transfer]:
    """Draw transfers, the same for the same seed."""
    source = random.Random(seed)
    drawn: list[Transfer] = []
    for _ in range(n):
        accounts = _branch(source.randrange(BRANCHES))
        first, second = source.sample(accounts, 2)
        drawn.append(Transfer(first, second, source.randint(1, AMOUNT_MAX)))
    return drawn


async def measure_bank(bench: Bench) -> Outcome:
    """Transfers with audits among them, then every account against the list of transfers."""
    async with bench.hub(app) as hub:
        client = hub.client
        warm, n = min(bench.n(8_000), 400), bench.n(8_000)
        transfers = draw_transfers(warm + n, seed=n)
        moved = bytearray(warm + n)

        async def transfer(number: int) -> None:
            one = transfers[number]
            given = [number, one.source, one.target, one.amount]
            handle = await client.start_new(move, given, instance_id=f"transfer-{number}")
            moved[number] = await handle.result()

        async def audit(branch: int) -> None:
            handle = await client.start_new(audit_branch, branch)
            expect_branch(branch, await handle.result())

        work = mix_work(warm, warm + n)

        async def request(index: int) -> None:
            number = work[index]
            if number is None:
                await audit(index % BRANCHES)
            else:
                await transfer(number)

        await bench.unmeasured("bank", transfer, warm)
        timed = await bench.timed_loop(
            hub,
            "bank",
            request,
            len(work),
            unit="transfers",
            operations=n,
            concurrency=min(bench.options.concurrency, _IN_FLIGHT),
            note=f"of two of {ACCOUNTS} accounts under their locks; audits among them take their "
            "part of all but the latencies",
        )
        for branch in range(BRANCHES):
            await audit(branch)
        await _verify(client, transfers, moved)
    return _outcome(timed, work, moved[warm:], warm)


def _outcome(timed: Timed, work: list[int | None], moved: bytearray, warm: int) -> Outcome:
    """Keep transfers and audits apart in what was timed.

    Args:
        timed: what was timed.
        work: the numbers of transfers, and None for audits, in that order.
        moved: of each of these transfers, whether its money was moved.
        warm: how many transfers had gone before.
    """
    n = len(moved)
    latencies = {
        is_audit: [
            seconds
            for seconds, number in zip(timed.latencies, work, strict=True)
            if (number is None) == is_audit
        ]
        for is_audit in (False, True)
    }
    p50, p99 = percentiles_ms(latencies[False])
    load = evolve(timed.load, requests=n, p50_ms=p50, p99_ms=p99)
    audits = len(latencies[True])
    audit_p50, audit_p99 = percentiles_ms(latencies[True])
    words = f"of {audits:,}, each of ten locked accounts, while transfers run"
    refused = moved.count(0)
    return Outcome(
        loads=[load],
        facts=[
            Fact(name="bank: audit p50", value=audit_p50, unit="ms", note=words),
            Fact(name="bank: audit p99", value=audit_p99, unit="ms", note=words),
            Fact(
                name="bank: transfers refused",
                value=100 * refused / n,
                unit="%",
                note="the source had too little; they count as transfers",
            ),
        ],
        histograms={
            "transfer": Histogram(latencies[False]),
            "audit of ten accounts": Histogram(latencies[True]),
        },
        verified=[
            f"each of {warm + n:,} transfers applied once or refused, at both of its accounts",
            f"no balance below nothing, and {ACCOUNTS * OPENING:,} in all",
            f"the sum of a branch in each of {audits:,} audits while transfers ran",
        ],
    )


def mix_work(first: int, end: int) -> list[int | None]:
    """Give the numbers of transfers in order, with an audit (None) now and then."""
    work: list[int | None] = []
    for number in range(first, end):
        work.append(number)
        if (number - first) % AUDIT_EVERY == AUDIT_EVERY - 1 or number == end - 1:
            work.append(None)
    return work


def expect_branch(branch: int, balances: Sequence[int]) -> None:
    """Refuse balances that no moment between two transfers can show."""
    expect(f"sum of branch {branch}", sum(balances), BRANCH * OPENING)
    if min(balances) < 0:
        raise WrongOutcomeError(f"branch {branch} has a balance below nothing: {list(balances)}")


async def _verify(client: Client, transfers: list[Transfer], moved: bytearray) -> None:
    wanted = [[OPENING, 0, 0, 0, 0] for _ in range(ACCOUNTS)]
    for number, (one, is_moved) in enumerate(zip(transfers, moved, strict=True)):
        if is_moved:
            source, target = wanted[one.source], wanted[one.target]
            source[0] -= one.amount
            source[1] += 1
            source[2] += number
            target[0] += one.amount
            target[3] += 1
            target[4] += number
    total = 0
    for index, account in enumerate(wanted):
        found = await client.call_entity(_account(index), Account.audit)
        expect(f"{_account(index)}", found, account)
        total += found[0]
    expect("money in all accounts", total, ACCOUNTS * OPENING)
