"""One run of a batch on a hub: start or resume it, answer reviews, show progress, check totals."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import anyio
from rich.console import Console

from perdure import Client, Hub, OrchestrationHandle, OrchestrationStatus, RuntimeStatus

from .app import (
    DocumentCounter,
    WordCounter,
    app,
    document_counter,
    process_batch,
    process_document,
    word_counter,
)
from .desk import Desk, desk_of
from .extract import SHARDS
from .models import Batch, Issue, Stage, Status
from .reviewer import Reviewer
from .verify import Totals, compute, differences
from .view import LiveView, PlainView, Progress, View, describe, print_summary

LOOK_INTERVAL_S = 0.1
SIGNALS_TIMEOUT_S = 60.0


async def run_batch(
    batch: Batch, workspace: Path, console: Console, *, plain: bool, die_after: float | None
) -> int:
    """Run a batch, or the rest of it, and check its totals.

    Args:
        batch: the documents.
        workspace: where the hub, the results and the outbox are.
        console: where to show it.
        plain: lines instead of a live panel.
        die_after: the share of the documents after which this process kills itself.

    Returns:
        The exit code: 0 if the totals are exact, else 1.
    """
    progress = Progress(len(batch.documents))
    desk = desk_of(batch.documents[0].workspace)
    if die_after is not None:
        _die_at(desk, max(1, round(die_after * progress.total)))
    async with Hub(app, store=f"sqlite:{workspace / 'hub'}") as hub:
        handle = await _start(hub.client, batch, progress, console)
        if handle is None:
            return 1
        reviewer = Reviewer(hub.client)
        view: View = PlainView(console.print) if plain else LiveView(console)
        statuses: dict[str, Status] = {}
        with view:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch, hub.client, batch, progress, reviewer, view)
                statuses = await handle.result()
                await _all_signals_applied(hub.client, batch, statuses)
                tasks.cancel_scope.cancel()
            progress.counters = await hub.client.call_entity(
                document_counter(batch.batch_id), DocumentCounter.get
            )
            progress.stages.clear()
            view.show(progress)
        words = await _words(hub.client, batch)
        console.print()
        print_summary(console, progress, words, await _count_events(hub.client, batch))
    return _check(batch, Totals(statuses, words), progress, desk, console)


def _die_at(desk: Desk, endings: int) -> None:
    """Let the process die when that many documents have ended, without a chance to tidy up.

    The message that says so is in the outbox by then, and the hub has not heard of it: the
    activity will run again after the restart, and the outbox must drop the repetition.
    """

    def on_ending(count: int) -> None:
        if count >= endings:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    desk.on_ending = on_ending


async def _start(
    client: Client, batch: Batch, progress: Progress, console: Console
) -> OrchestrationHandle[dict[str, Status]] | None:
    known = await client.get_status(batch.instance_id)
    if known is None or not known.is_completed:
        if known is not None:
            progress.counters = await client.call_entity(
                document_counter(batch.batch_id), DocumentCounter.get
            )
            progress.before = progress.ended
            console.print(
                f"resuming batch {batch.batch_id}: {progress.before} of {progress.total} documents"
                f" had ended ({describe(progress.counters)})",
                highlight=False,
            )
        return await client.start_new(
            process_batch, batch, instance_id=batch.instance_id, on_existing="reuse"
        )
    if known.runtime_status is RuntimeStatus.COMPLETED:
        progress.before = progress.total
        console.print(f"batch {batch.batch_id} is done already: these are its totals")
        return client.get_handle(batch.instance_id)
    console.print(
        f"batch {batch.batch_id} in this store is {known.runtime_status}: give another --store"
    )
    return None


async def _watch(
    client: Client, batch: Batch, progress: Progress, reviewer: Reviewer, view: View
) -> None:
    """Look at the hub again and again: for the view, and for the reviewer."""
    counter = document_counter(batch.batch_id)
    while True:
        stages: Counter[str] = Counter()
        waiting: list[tuple[str, Stage]] = []
        async for status in client.query(
            name=process_document.__name__,
            statuses=[RuntimeStatus.RUNNING],
            instance_id_prefix=f"doc-{batch.batch_id}-",
            payloads=False,
        ):
            stage = _stage(status)
            if stage is not None:
                stages[stage.stage] += 1
                if stage.stage == "review":
                    waiting.append((status.instance_id, stage))
        async with anyio.create_task_group() as answers:
            for instance_id, stage in waiting:
                answers.start_soon(reviewer.answer, instance_id, stage)
        state = await client.read_entity_state(counter)
        if state is not None:
            progress.counters = state.get()
        progress.stages = stages
        progress.decisions = list(reviewer.latest)
        view.show(progress)
        await anyio.sleep(LOOK_INTERVAL_S)


def _stage(status: OrchestrationStatus) -> Stage | None:
    shown = status.custom_status
    if shown is None:
        return None
    return Stage(
        shown["stage"], shown["document_id"], [Issue(**issue) for issue in shown["issues"]]
    )


async def _all_signals_applied(client: Client, batch: Batch, statuses: dict[str, Status]) -> None:
    """Wait for the counters: signals are sent for sure, but not applied when their sender ends."""
    # There is nothing to wait on from outside, so ask until it is so.
    completed = sum(status is Status.COMPLETED for status in statuses.values())
    with anyio.move_on_after(SIGNALS_TIMEOUT_S):  # what is missing then shows in the totals
        for shard in range(SHARDS):
            counter = word_counter(batch.batch_id, shard)
            while await client.call_entity(counter, WordCounter.seen) < completed:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        documents = document_counter(batch.batch_id)
        while (await client.call_entity(documents, DocumentCounter.get))["pending"]:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def _words(client: Client, batch: Batch) -> Counter[str]:
    words: Counter[str] = Counter()
    for shard in range(SHARDS):
        state = await client.read_entity_state(word_counter(batch.batch_id, shard))
        if state is not None:
            words.update(state.counts)
    return words


async def _count_events(client: Client, batch: Batch) -> int:
    parent = await client.get_status(batch.instance_id)
    events = 0 if parent is None else parent.history_length
    async for status in client.query(
        instance_id_prefix=f"doc-{batch.batch_id}-", payloads=False, page_size=1_000
    ):
        events += status.history_length
    return events


def _check(batch: Batch, found: Totals, progress: Progress, desk: Desk, console: Console) -> int:
    wrong = differences(compute(batch), found, progress.counters, desk, batch)
    if not wrong:
        console.print(
            "[bold green]exact[/]: every status, all counters, the results and the outbox equal"
            " a direct computation over the same files"
        )
        return 0
    console.print(f"[bold red]WRONG[/]: {len(wrong)} differences from a direct computation:")
    for line in wrong[:20]:
        console.print(f"  {line}", markup=False, highlight=False)
    return 1
