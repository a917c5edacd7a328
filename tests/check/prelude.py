from collections.abc import Generator
from datetime import timedelta
from typing import Any

from perdure import App, Cancelled, EntityContext, EntityId, OrchestrationContext, RetryPolicy

app = App("corpus")


@app.activity
async def charge(cents: int) -> str:
    return str(cents)


@app.activity
def book(city: str) -> str:
    return city


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


