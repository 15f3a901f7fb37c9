"""How soon idle workers begin: python -m benchmarks.idle [--repeats 3]

From the call of ``start`` to the first line of the task, with one idle worker and with twenty, directly and through
PgBouncer in transaction mode with wake-ups over a direct URL of their own (without one, polling finds the task).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import rhythm
from rhythm.bench import measures
from rhythm.bench.harness import Database, Harness
from rhythm.bench.measures import QUEUE
from rhythm.store.embedded import EmbeddedServer
from tests.support.pooler import PROGRAM, running_pooler

WAYS = ("directly", "through PgBouncer")


@asynccontextmanager
async def reached(harness: Harness, way: str) -> AsyncIterator[tuple[rhythm.Client, Database]]:
    """A database and a client that reaches it that way; workers started on it do as well."""
    async with AsyncExitStack() as stack:
        client, database = await stack.enter_async_context(harness.database())
        if way == "directly":
            yield client, database
            return
        folder = Path(tempfile.mkdtemp(dir=harness.folder))
        pooled = stack.enter_context(running_pooler(database.url, folder / "pooler"))
        os.environ["RHYTHM_POOLER"] = "true"
        stack.callback(os.environ.pop, "RHYTHM_POOLER")
        os.environ["RHYTHM_LISTEN_URL"] = database.url
        stack.callback(os.environ.pop, "RHYTHM_LISTEN_URL")
        through = await stack.enter_async_context(rhythm.connect(pooled, pooler=True))
        yield through, Database(harness, pooled, database.connection)


async def measure(harness: Harness, way: str, workers: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    async with reached(harness, way) as (client, database), database.workers(workers, "-q", QUEUE):
        waits = await measures.idle_waits(client)
    return waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    ways = WAYS if PROGRAM else WAYS[:1]
    if not PROGRAM:
        print("No PgBouncer here: only directly.", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="rhythm-idle-"))
    server = EmbeddedServer(folder / "postgres")
    table = Table("reached", "idle workers", "p50, ms", "p99, ms")
    try:
        harness = Harness(server.ensure_running(), folder, lambda *_: None)
        for way in ways:
            for workers in (1, 20):
                runs = [asyncio.run(measure(harness, way, workers)) for _ in range(options.repeats)]
                figures = [statistics.median(values) for values in zip(*runs, strict=True)]
                print(way, workers, [f"{value:.3g}" for value in figures], flush=True)
                table.add_row(way, str(workers), *(f"{value:,.3g}" for value in figures))
    finally:
        server.stop(force=True)
        shutil.rmtree(folder, ignore_errors=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
