"""`rhythm logs`: what a workflow has written with `console`, and warnings of the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rhythm.cli import options, output
from rhythm.cli.executions import Id
from rhythm.errors import InvalidInput

if TYPE_CHECKING:
    from rhythm.client import Client
    from rhythm.model import LogLine

PAUSE_SECONDS, PAUSE_LONGEST_SECONDS, PAUSE_GROWTH = 0.1, 1.0, 1.5  #: between two looks of --follow


def logs(
    execution_id: Id,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warn or error: lines of this level and above.")
    ] = "debug",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what comes, until the execution has finished.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.Json = False,
) -> None:
    """Prints what a workflow has logged, oldest first.

    A log keeps its newest 1,000 lines and 1 MiB. What tasks log is in the log of their worker.

    Example: rhythm logs 0192f0c1-7e3a-7c55-9a55-2f8c54e0a1b2 --level warn
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load
    from rhythm.model import LOG_LEVELS

    if level not in LOG_LEVELS:
        raise InvalidInput(f"--level {level}: the levels are {', '.join(LOG_LEVELS)}")
    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            if follow:
                await _follow(client, execution_id, level, as_json)
            elif not _print(await client.logs(execution_id, level=level), as_json):
                kind = (await client.execution(execution_id).refresh()).kind
                where = "; what tasks log is in the log of their worker" if kind == "task" else ""
                output.message(f"no lines{where}")

    run(work())


async def _follow(client: Client, execution_id: str, level: str, as_json: bool) -> None:
    target = client.execution(execution_id).id
    after, pause = 0, PAUSE_SECONDS
    while True:
        # Asked before the lines are: those of the last step are there when its outcome is.
        finished = (await client.store.outcomes([target])).get(target) is not None
        lines = await client.logs(target, level=level, after=after)
        if _print(lines, as_json):
            after, pause = lines[-1].number, PAUSE_SECONDS
        if finished:
            return
        await asyncio.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, PAUSE_LONGEST_SECONDS)


def _print(lines: list[LogLine], as_json: bool) -> bool:
    """Prints lines; whether there were any."""
    for line in lines:
        if as_json:
            output.json_line(line_json(line))
        else:
            output.line(line_text(line))
    return bool(lines)


def line_json(line: LogLine) -> dict[str, Any]:
    """A line as the object that `--json` prints."""
    return {"number": line.number, "level": line.level, "at": line.at, "text": line.text}


def line_text(line: LogLine) -> str:
    """A line for people; what is not printable in it is escaped."""
    return f"{output.moment(line.at)}  {line.level.ljust(5)}  {output.visible(line.text, lines=True)}"
