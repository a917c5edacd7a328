"""Words of real text: one orchestration maps files to counts, and entities add these up.

Each file is an activity, which runs in a thread since it reads and counts; each reducer is an
entity that gets one signal for each file, with its share of the words by their hash. At the end the
orchestration calls each reducer. The answer comes after all that it has signalled before, since
messages from one actor to another arrive in the order sent: so there is nothing to wait or poll for.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from pathlib import Path
from time import perf_counter
from zlib import crc32

from perdure import App, Client, EntityId, OrchestrationContext, UsageError, readonly

from .bench import Bench
from .figures import Fact, Outcome, expect

app = App("wordcount")

REDUCERS = 8
_WORD = re.compile(r"[a-z]+")
FILE_MAX = 1_000_000  # bytes; one of counts must fit in a message


@app.entity
class Reducer:
    """The words whose hash is its number."""

    files: int = 0
    counts: dict[str, int] = {}

    def add(self, counts: dict[str, int]) -> None:
        """Add the counts of one file."""
        self.files += 1
        mine = self.counts
        for word, count in counts.items():
            mine[word] = mine.get(word, 0) + count

    @readonly
    def totals(self) -> list[int]:
        """Give how many files it has added up, how many words, and how many different ones."""
        return [self.files, sum(self.counts.values()), len(self.counts)]


@app.activity
def map_file(path: str) -> list[dict[str, int]]:
    """Count the words of one file, apart for each reducer."""
    shares: list[dict[str, int]] = [{} for _ in range(REDUCERS)]
    for word, count in count_words(Path(path)).items():
        shares[crc32(word.encode()) % REDUCERS][word] = count
    return shares


@app.orchestration
async def count_files(ctx: OrchestrationContext, paths: list[str]) -> list[list[int]]:
    """Map all files at once, signal the reducers, and give their totals."""
    reducers = [EntityId(Reducer, f"{ctx.instance_id}-{number}") for number in range(REDUCERS)]
    for shares in await ctx.task_all([ctx.call_activity(map_file, path) for path in paths]):
        for reducer, share in zip(reducers, shares, strict=True):
            ctx.signal_entity(reducer, Reducer.add, share)
    return await ctx.task_all([ctx.call_entity(one, Reducer.totals) for one in reducers])


def count_words(path: Path) -> Counter[str]:
    """Count the words of one file: runs of letters, in lower case."""
    return Counter(_WORD.findall(path.read_text("utf-8", errors="replace").lower()))


def find_texts(folder: Path | None, most: int) -> list[Path]:
    """Find text files, in order of their names; by default Python's own library.

    Raises:
        UsageError: there are none.
    """
    root = folder or Path(sysconfig.get_path("stdlib"))
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in {".py", ".txt", ".md", ".rst"}
        and "site-packages" not in path.parts
        and path.is_file()
        and 0 < path.stat().st_size <= FILE_MAX
    )
    if not found:
        raise UsageError(
            f"there are no .py, .txt, .md or .rst files in {root}: choose another --text"
        )
    # Evenly over all of them, so that fewer files are a sample and not the letter A.
    n = min(most, len(found))
    return [found[index * len(found) // n] for index in range(n)]


async def measure_wordcount(bench: Bench) -> Outcome:
    """Count once to warm up with a few files, then all of them."""
    files = find_texts(bench.options.text, bench.n(500))
    paths = [str(path) for path in files]
    async with bench.hub(app) as hub:
        client = hub.client
        warm = await client.start_new(count_files, paths[:5], instance_id="warm")
        await warm.result()
        totals: list[list[int]] = []

        async def request(index: int) -> None:
            handle = await client.start_new(count_files, paths, instance_id="words")
            totals.extend(await handle.result())

        load = await bench.closed_loop(
            hub,
            "wordcount",
            request,
            1,
            unit="files",
            per_request=len(paths),
            concurrency=1,
            note="one orchestration; its latency is that of the whole",
        )
        begun = perf_counter()
        wanted = Counter[str]()
        for path in files:
            wanted.update(count_words(path))
        direct_s = perf_counter() - begun
        await _verify(client, wanted, totals, len(files))
    size = sum(path.stat().st_size for path in files)
    words = wanted.total()
    return Outcome(
        loads=[load],
        facts=[
            Fact(
                name="wordcount: words",
                value=words / load.seconds,
                unit="words/s",
                better="higher",
                note=f"{words:,} words, {len(wanted):,} different ones, in {len(files):,} files",
            ),
            Fact(
                name="wordcount: text",
                value=size / 1e6 / load.seconds,
                unit="MB/s",
                better="higher",
                note=f"{size / 1e6:,.1f} MB",
            ),
            Fact(
                name="wordcount / direct count",
                value=load.seconds / direct_s,
                unit="times",
                note="a plain loop over the same files, in memory, with nothing durable",
            ),
        ],
        verified=[f"the count of each of {len(wanted):,} words, against a plain loop"],
    )


async def _verify(
    client: Client, wanted: Counter[str], totals: list[list[int]], files: int
) -> None:
    found: dict[str, int] = {}
    for number, total in enumerate(totals):
        state = await client.read_entity_state(EntityId(Reducer, f"words-{number}"))
        counts = state.counts if state else {}
        expect(f"totals of reducer {number}", total, [files, sum(counts.values()), len(counts)])
        found.update(counts)
    expect("different words", len(found), len(wanted))
    wrong = {word: count for word, count in found.items() if count != wanted[word]}
    expect("words with another count", wrong, {})
