"""Move money between two accounts that nobody else touches meanwhile: ``examples.transfer``."""

from dataclasses import dataclass
from itertools import permutations

import anyio

from perdure import App, EntityId, Hub, OrchestrationContext

app = App()


@app.entity
class Account:
    balance: int = 0

    def deposit(self, amount: int) -> None:
        self.balance += amount

    def withdraw(self, amount: int) -> None:
        self.balance -= amount

    def get(self) -> int:
        return self.balance


@dataclass
class Transfer:
    source: str
    target: str
    amount: int


@app.orchestration
async def transfer(ctx: OrchestrationContext, order: Transfer) -> bool:
    source, target = EntityId(Account, order.source), EntityId(Account, order.target)
    async with ctx.lock_entities(source, target):  # in sorted order: no deadlock
        if await ctx.call_entity(source, Account.get) < order.amount:
            return False
        await ctx.call_entity(source, Account.withdraw, order.amount)
        await ctx.call_entity(target, Account.deposit, order.amount)
    return True


async def main() -> None:
    async with Hub(app) as hub:
        accounts = [EntityId(Account, name) for name in ("ann", "ben", "cas")]
        for account in accounts:
            await hub.client.signal_entity(account, Account.deposit, 100)
        orders = [Transfer(a.key, b.key, 70) for a, b in permutations(accounts, 2)] * 5
        handles = [await hub.client.start_new(transfer, order) for order in orders]
        done = [await handle.result(timeout=60) for handle in handles]
        balances = [await hub.client.call_entity(account, Account.get) for account in accounts]
        print(f"{sum(done)} of {len(orders)} transfers; {sum(balances)} in all: {balances}")


if __name__ == "__main__":
    anyio.run(main)
