"""Activities that note that they ran, or fail."""

from __future__ import annotations

from perdure import App

log: list[str] = []

app = App()


@app.activity
async def note(text: str) -> str:
    log.append(text)
    return text


@app.activity
async def fail(text: str) -> None:
    raise ValueError(text)
