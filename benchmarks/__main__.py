"""Measures Rhythm as `rhythm bench` does, beside a bare prototype of the same tables, and holds it against its targets.

    python -m benchmarks [--only tasks,latency,…] [--repeats 3] [--json FILE]

Each figure is the median of the repeats with its range. Absolute figures drift with the machine: what counts
is the ratio to the prototype of the same run. The database is a fresh embedded server in a temporary folder, with the
durable defaults (fsync and synchronous_commit on).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import prototype
from rhythm.bench.harness import Figure, Harness
from rhythm.bench.measures import FANOUT_TASKS, MEASURES, Size, count_of
from rhythm.store.embedded import EmbeddedServer

PROTOTYPE_CONNECTIONS = 3


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to reach, and what it must."""

    target: float
    floor: float
    smaller_is_better: bool = False

    def verdict(self, value: float) -> str:
        """In a word or two."""
        if self._reached(value, self.target):
            return "target"
        return "floor" if self._reached(value, self.floor) else "BELOW THE FLOOR"

    def _reached(self, value: float, wanted: float) -> bool:
        return value <= wanted if self.smaller_is_better else value >= wanted


TARGETS = {
    "tasks/s, 2 processes": Target(80_000, 60_000),
    "tasks/s, 1 process": Target(65_000, 45_000),
    "share of the prototype, 1 process": Target(0.65, 0.5),
    "share of the prototype, 2 processes": Target(0.65, 0.5),
    "bulk start/s (start_many)": Target(120_000, 80_000),
    "start/s, 100 callers": Target(50_000, 25_000),
    "idle start to run, p50": Target(1.3, 2.0, smaller_is_better=True),
    "idle start to run, p99": Target(5.0, 7.0, smaller_is_better=True),
    "3-step workflows/s, 2 processes": Target(4_000, 2_500),
    "ms per sequential step": Target(0.6, 1.0, smaller_is_better=True),
    "resume after a kill, beyond the heartbeat timeout": Target(20, 100, smaller_is_better=True),
    "Promise.all, share of the rate of plain tasks": Target(0.6, 0.4),
    "1,000 async functions of 3 steps in one workflow, steps/s": Target(2_000, 1_000),
    "idle worker, queries/s": Target(1, 2, smaller_is_better=True),
    "idle worker, share of a core": Target(0.5, 0.5, smaller_is_better=True),
    "idle worker, memory": Target(60, 90, smaller_is_better=True),
    "worker memory under load": Target(60, 90, smaller_is_better=True),
    "disk per suspended order, its rows": Target(1024, 2048, smaller_is_better=True),
}


async def measure_prototype(harness: Harness, size: Size) -> None:
    """The same no-op tasks over bare tables, in this run."""
    for processes in (1, 2):
        async with harness.empty_database() as url:
            started = await prototype.fill(url, size.tasks)
            drained = await asyncio.to_thread(
                prototype.drain, url, size.tasks, processes=processes, connections=PROTOTYPE_CONNECTIONS
            )
        harness.note(f"prototype tasks/s, {count_of(processes)}", drained, "/s")
        if processes == 1:
            harness.note("prototype bulk start/s", started, "/s")


def derive(figures: dict[str, Figure]) -> None:
    """Adds the ratios between figures of the same repeat."""

    def share(name: str, of: str, base: str) -> None:
        if of in figures and base in figures:
            values = zip(figures[of].values, figures[base].values, strict=True)
            figures[name] = Figure(name, "x", [one / other for one, other in values])

    for processes in (1, 2):
        of = count_of(processes)
        share(f"share of the prototype, {of}", f"tasks/s, {of}", f"prototype tasks/s, {of}")
    fanout = f"Promise.all over {FANOUT_TASKS:,} tasks, tasks/s"
    share("Promise.all, share of the rate of plain tasks", fanout, "tasks/s, 2 processes")


async def run(harness: Harness, size: Size, groups: Sequence[str], repeats: int) -> None:
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", flush=True)
        if "tasks" in groups:
            await measure_prototype(harness, size)
        for group in groups:
            await MEASURES[group](harness, size)
    derive(harness.figures)


def say(name: str, value: float, unit: str) -> None:
    print(f"  {name}: {value:,.4g} {unit}", flush=True)


def report(figures: dict[str, Figure]) -> None:
    table = Table(title=f"CPython {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}")
    for column in ("figure", "median", "range", "unit", "reaches"):
        table.add_column(column, justify="right" if column in ("median", "range") else "left")
    for name, figure in figures.items():
        reaches = TARGETS[name].verdict(figure.median) if name in TARGETS else ""
        spread = f"{min(figure.values):,.4g} … {max(figure.values):,.4g}"
        table.add_row(name, f"{figure.median:,.4g}", spread, figure.unit, reaches)
    Console(width=130).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    size = Size()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=size.tasks)
    parser.add_argument("--workflows", type=int, default=size.workflows)
    parser.add_argument("--steps", type=int, default=size.steps)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(MEASURES), help=",".join(MEASURES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all values")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(MEASURES):
        parser.error(f"unknown groups: {', '.join(unknown)}")
    folder = Path(tempfile.mkdtemp(prefix="rhythm-bench-"))
    server = EmbeddedServer(folder / "postgres")
    harness = Harness(server.ensure_running(), folder, say)
    try:
        asyncio.run(run(harness, Size(options.tasks, options.workflows, options.steps), options.only, options.repeats))
        report(harness.figures)
        if options.json:
            options.json.write_text(json.dumps({f.name: f.values for f in harness.figures.values()}, indent=1))
    finally:
        server.stop(force=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
