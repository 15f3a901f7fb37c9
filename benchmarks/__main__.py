"""Measures Rhythm through its public API and real ``rhythm worker`` processes, beside a bare prototype.

    python -m benchmarks [--tasks 60000] [--workflows 3000] [--steps 2000] [--repeats 3] [--only tasks,latency,…]

Each figure is the median of the repeats with its range. Absolute figures drift with the machine: what counts
is the ratio to the prototype of the same run. The database is a fresh embedded server in a temporary folder, with the
durable defaults (fsync and synchronous_commit on).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

import rhythm
from benchmarks import clocks, prototype
from rhythm.store.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 120.0
GROUPS = ("tasks", "latency", "workflows", "steps")


class Bench:
    """One run: a server, a database per measurement, and the figures."""

    def __init__(self, url: str, folder: Path, options: argparse.Namespace) -> None:
        self.url = url
        self.folder = folder
        self.options = options
        self.figures: dict[str, list[float]] = {}
        self.units: dict[str, str] = {}

    def note(self, name: str, value: float, unit: str) -> None:
        self.figures.setdefault(name, []).append(value)
        self.units[name] = unit
        print(f"  {name}: {value:,.4g} {unit}", flush=True)

    async def database(self, name: str) -> str:
        """A fresh database with the schema; its URL."""
        connection = await asyncpg.connect(self.url)
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'create database "{name}"')
        await connection.execute("checkpoint")
        await connection.close()
        base, question, query = self.url.partition("?")
        return base.rsplit("/", 1)[0] + "/" + name + question + query

    @contextmanager
    def workers(self, url: str, count: int, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        environment = {**os.environ, "RHYTHM_DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "rhythm", "worker", "--app", "benchmarks.workload", *arguments]
        with open(self.folder / "workers.log", "ab") as log:
            running = [
                subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
                for _ in range(count)
            ]
        try:
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    async def until(self, true: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            answer = true()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            if time.monotonic() > deadline:
                log = (self.folder / "workers.log").read_text(errors="replace")[-3000:]
                raise SystemExit(f"{what}: not within {WAIT_SECONDS:.0f} s\n{log}")
            await asyncio.sleep(0.05)

    async def tasks(self) -> None:
        """No-op tasks: bulk start, drain with one and two processes; the prototype likewise."""
        count = self.options.tasks
        for processes in (1, 2):
            url = await self.database("bare")
            bare_start = await prototype.fill(url, count)
            bare = await asyncio.to_thread(prototype.drain, url, count, processes=processes, connections=3)
            self.note(f"prototype tasks/s, {processes} process", bare, "/s")
            if processes == 1:
                self.note("prototype bulk start/s", bare_start, "/s")
            url = await self.database("ours")
            async with rhythm.connect(url) as client:
                await client.migrate()
                await self.make_known(client, url)
                clocks.clear(count)
                began = time.perf_counter()
                await client.start_many([rhythm.Start("mark", {"i": i}, queue="bench") for i in range(count)])
                if processes == 1:
                    self.note("bulk start/s (start_many)", count / (time.perf_counter() - began), "/s")
                await self.execute(url, "vacuum analyze")
                with self.workers(url, processes, "-q", "bench"):
                    await self.until(lambda: clocks.marked(count - 1), "task drain")
                    await self.until(lambda url=url: self._finished(url, count + 1), "outcomes")
            clocks.span(count)  # raises when a task never ran
            ours = count / await self.stored_seconds(url)
            self.note(f"tasks/s, {processes} process", ours, "/s")
            self.note(f"share of the prototype, {processes} process", ours / bare, "x")

    async def make_known(self, client: rhythm.Client, url: str) -> None:
        """Lets a worker register the tasks and run one: starts of unknown names would be parked first."""
        with self.workers(url, 1, "-q", "bench"):
            await (await client.start("mark", {"i": 0}, queue="bench")).result(timeout=WAIT_SECONDS)

    async def execute(self, url: str, statement: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    async def stored_seconds(self, url: str) -> float:
        """Seconds from the first claim of the drain to the last stored outcome, by the database's clock."""
        connection = await asyncpg.connect(url)
        seconds = await connection.fetchval(
            "select extract(epoch from max(finished_at) - min(started_at))::float8 from rhythm.outcomes "
            "where started_at > (select min(finished_at) from rhythm.outcomes)"
        )
        await connection.close()
        return float(seconds)

    async def _finished(self, url: str, count: int) -> bool:
        connection = await asyncpg.connect(url)
        finished = await connection.fetchval("select count(*) from rhythm.outcomes")
        await connection.close()
        return bool(finished >= count)

    async def latency(self) -> None:
        """Start call to first line of the task, one idle worker."""
        url = await self.database("ours")
        clocks.clear(1000)
        async with rhythm.connect(url) as client:
            await client.migrate()
            with self.workers(url, 1, "-q", "bench"):
                first = await client.start("mark", {"i": 0})
                await first.result(timeout=WAIT_SECONDS)
                waits = []
                for i in range(1, 301):
                    await asyncio.sleep(0.01)
                    began = time.perf_counter()
                    await client.start("mark", {"i": i})
                    await self.until_marked(i)
                    waits.append(clocks.marked(i) - began)
        waits.sort()
        self.note("idle start to run, p50", waits[150] * 1000, "ms")
        self.note("idle start to run, p99", waits[297] * 1000, "ms")

    async def until_marked(self, index: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not clocks.marked(index):
            if time.monotonic() > deadline:
                raise SystemExit("a task never started")
            await asyncio.sleep(0.0005)

    async def workflows(self) -> None:
        """Workflows of three sequential steps, many at once, two worker processes."""
        count = self.options.workflows
        url = await self.database("ours")
        async with rhythm.connect(url) as client:
            await client.migrate()
            await client.publish(ROOT / "benchmarks" / "workflows")
            with self.workers(url, 2):
                warm = await client.start_many([rhythm.Start("threeSteps", {})] * 20)
                for execution_id in warm:
                    await client.wait(execution_id, timeout=WAIT_SECONDS)
                began = time.perf_counter()
                await client.start_many([rhythm.Start("threeSteps", {}) for _ in range(count)])
                await self.until(lambda: self._finished(url, (count + 20) * 4), "workflows")
                self.note("3-step workflows/s, 2 processes", count / (time.perf_counter() - began), "/s")

    async def steps(self) -> None:
        """One workflow of many sequential steps: time per step, the last hundredth against the first."""
        count = self.options.steps
        url = await self.database("ours")
        async with rhythm.connect(url) as client:
            await client.migrate()
            await client.publish(ROOT / "benchmarks" / "workflows")
            with self.workers(url, 1):
                await (await client.start("threeSteps", {})).result(timeout=WAIT_SECONDS)
                execution = await client.start("manySteps", {"steps": count})
                sizes: list[int] = []
                watch = asyncio.create_task(self._watch_size(client, execution, sizes))
                output = await execution.result(timeout=WAIT_SECONDS * 10)
                watch.cancel()
        times = output["times"]
        parts = [later - earlier for earlier, later in itertools.pairwise(times)]
        self.note("ms per sequential step", (times[-1] - times[0]) / count, "ms")
        self.note("last tenth of the steps to the second", sum(parts[-10:]) / sum(parts[10:20]), "x")
        if sizes:
            self.note("snapshot, first seen", sizes[0], "bytes")
            self.note("snapshot, last seen", sizes[-1], "bytes")

    async def _watch_size(self, client: rhythm.Client, execution: rhythm.Execution, sizes: list[int]) -> None:
        while True:
            await asyncio.sleep(0.2)
            stored = await client.store.snapshot(execution.id)
            if stored is not None:
                sizes.append(len(stored.snapshot))

    def report(self) -> None:
        table = Table(title=f"{platform.python_version()}, {os.cpu_count()} cores, {platform.system()}")
        for column in ("figure", "median", "range", "unit"):
            table.add_column(column, justify="left" if column == "figure" else "right")
        for name, values in self.figures.items():
            low, middle, high = min(values), statistics.median(values), max(values)
            table.add_row(name, f"{middle:,.4g}", f"{low:,.4g} … {high:,.4g}", self.units[name])
        Console(width=110).print(table)


async def run(options: argparse.Namespace, url: str, folder: Path) -> None:
    bench = Bench(url, folder, options)
    for repeat in range(options.repeats):
        print(f"repeat {repeat + 1} of {options.repeats}", flush=True)
        for group in options.only:
            await getattr(bench, group)()
    bench.report()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=60_000)
    parser.add_argument("--workflows", type=int, default=3_000)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(GROUPS), help=",".join(GROUPS))
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(GROUPS):
        parser.error(f"unknown groups: {', '.join(unknown)}")
    folder = Path(tempfile.mkdtemp(prefix="rhythm-bench-"))
    os.environ[clocks.VARIABLE] = str(folder / "clocks")
    server = EmbeddedServer(folder / "postgres")
    try:
        url = server.ensure_running()
        asyncio.run(run(options, url, folder))
    finally:
        server.stop(force=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
