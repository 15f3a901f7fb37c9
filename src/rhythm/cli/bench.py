"""`rhythm bench`: what this installation reaches, on the configured server, in databases of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rhythm.cli import options, output
from rhythm.errors import InvalidInput

if TYPE_CHECKING:
    from rhythm.bench.harness import Harness


def bench(
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Which measures, separated by commas: tasks, starts, latency, workflows, steps, fanout, recovery, "
            "idle, disk. Default: all.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="How often; medians are shown.")] = 1,
    tasks: Annotated[int, typer.Option(min=100, max=400_000, help="No-op tasks in a queue.")] = 200_000,
    workflows: Annotated[int, typer.Option(min=10, max=1_000_000, help="Workflows of three steps.")] = 3_000,
    steps: Annotated[int, typer.Option(min=100, max=10_000_000, help="Steps of one workflow.")] = 2_000,
    processes: Annotated[int, typer.Option(min=1, max=1000, help="Worker processes, where several are measured.")] = 2,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Measures this installation: tasks and workflows per second, latency, recovery, what idleness and waiting cost.

    Works in databases of its own on the configured server and drops them: the role needs the right to create some.
    Workers and client run on this machine, with the defaults. Takes a minute or two per repeat.

    Example: rhythm bench --only tasks,latency
    """
    from rhythm.bench.harness import Harness
    from rhythm.bench.measures import MEASURES, Size
    from rhythm.cli.connection import run
    from rhythm.config import load, resolve_database_url

    names = list(MEASURES) if only is None else [name.strip() for name in only.split(",")]
    if unknown := [name for name in names if name not in MEASURES]:
        raise InvalidInput(f"--only: there is no measure {unknown[0]!r}; there are {', '.join(MEASURES)}")
    url = resolve_database_url(load({"database_url": database_url}))
    folder = Path(tempfile.mkdtemp(prefix="rhythm-bench-"))
    harness = Harness(url, folder, _say)

    async def work() -> None:
        for _ in range(repeats):
            for name in names:
                await MEASURES[name](harness, Size(tasks, workflows, steps, processes))

    try:
        run(work())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _show(harness, as_json)


def _say(name: str, value: float, unit: str) -> None:
    output.message(f"{name}: {value:,.4g} {unit}".rstrip())


def _show(harness: Harness, as_json: bool) -> None:
    figures = harness.figures.values()
    if as_json:
        for figure in figures:
            output.json_line(
                {"figure": figure.name, "unit": figure.unit, "median": figure.median, "values": figure.values}
            )
        return
    rows = [
        (figure.name, f"{figure.median:,.4g}", f"{min(figure.values):,.4g} … {max(figure.values):,.4g}", figure.unit)
        for figure in figures
    ]
    output.table(("FIGURE", "MEDIAN", "RANGE", "UNIT"), rows)
