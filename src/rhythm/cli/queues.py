"""Queues and workers: what waits, what runs, who is alive; pausing a queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rhythm.cli import options, output
from rhythm.errors import ExecutionNotFound, InvalidInput

if TYPE_CHECKING:
    from rhythm.model import QueueInfo, WorkerInfo

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.", show_default=False)]

queues = typer.Typer(name="queues", invoke_without_command=True)


@queues.callback()
def list_queues(
    context: typer.Context, database_url: options.DatabaseUrl = None, as_json: options.Json = False
) -> None:
    """Lists queues: what waits, runs and finishes in each, and for how long its oldest execution has been waiting.

    Queues have no limits in this release.

    Example: rhythm queues
    """
    if context.invoked_subcommand is not None:
        return
    from rhythm.cli.connection import connected, run
    from rhythm.config import load
    from rhythm.durations import format_seconds

    config = load({"database_url": database_url})

    async def work() -> Sequence[QueueInfo]:
        async with connected(config) as client:
            return await client.store.queues()

    found = run(work())
    if as_json:
        for queue in found:
            output.json_line(dataclasses.asdict(queue))
        return
    rows = [
        (
            queue.queue + (" (paused)" if queue.paused else ""),
            queue.pending,
            queue.running,
            queue.suspended,
            queue.finished_per_minute,
            None if queue.oldest_pending_seconds is None else format_seconds(max(0.0, queue.oldest_pending_seconds)),
        )
        for queue in found
    ]
    output.table(("QUEUE", "PENDING", "RUNNING", "SUSPENDED", "FINISHED/MIN", "OLDEST PENDING"), rows)


@queues.command()
def pause(name: Name, database_url: options.DatabaseUrl = None) -> None:
    """Stops workers from claiming anything more from a queue; what runs already runs on.

    Example: rhythm queues pause orders
    """
    _set_paused(name, True, database_url)


@queues.command()
def resume(name: Name, database_url: options.DatabaseUrl = None) -> None:
    """Lets workers claim from a paused queue again.

    Example: rhythm queues resume orders
    """
    _set_paused(name, False, database_url)


def _set_paused(name: str, paused: bool, database_url: str | None) -> None:
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            try:
                await client.store.pause_queue(name, paused)
            except ExecutionNotFound:
                known = ", ".join(queue.queue for queue in await client.store.queues())
                raise InvalidInput(f"there is no queue {name!r}; the queues are {known}") from None

    run(work())
    output.message(f"The queue {name!r} is paused." if paused else f"The queue {name!r} is worked on.")


def workers(database_url: options.DatabaseUrl = None, as_json: options.Json = False) -> None:
    """Lists the workers that are alive; warns of tasks that some of them have registered differently.

    Example: rhythm workers
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load
    from rhythm.durations import format_seconds

    config = load({"database_url": database_url})

    async def work() -> Sequence[WorkerInfo]:
        async with connected(config) as client:
            return await client.store.workers()

    found = run(work())
    if as_json:
        for worker in found:
            output.json_line(dataclasses.asdict(worker))
    else:
        rows = [
            (
                worker.incarnation,
                f"{worker.host}:{worker.pid}",
                ",".join(worker.queues),
                len(worker.tasks),
                "yes" if worker.workflows else "no",
                worker.running,
                output.ago(worker.started_at),
                format_seconds(max(0.0, worker.seen_seconds_ago)),
            )
            for worker in found
        ]
        output.table(("INCARNATION", "PROCESS", "QUEUES", "TASKS", "WORKFLOWS", "RUNNING", "UP", "SEEN AGO"), rows)
    for name in sorted({name for worker in found for name in worker.conflicts}):
        processes = ", ".join(f"{worker.host}:{worker.pid}" for worker in found if name in worker.conflicts)
        output.message(
            f"warning: live workers have registered the task {name!r} differently ({processes}); the newest counts"
        )
