"""Queues and workers: what waits, what runs, who is alive; pausing a queue, its limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from rhythm.cli import options, output
from rhythm.durations import RATE_MAX
from rhythm.errors import ExecutionNotFound, InvalidInput

if TYPE_CHECKING:
    from rhythm.client import Client
    from rhythm.model import QueueInfo, QueueLimits, WorkerInfo

Name = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.", show_default=False)]

queues = typer.Typer(name="queues", invoke_without_command=True)


@queues.callback()
def list_queues(
    context: typer.Context, database_url: options.DatabaseUrl = None, as_json: options.Json = False
) -> None:
    """Lists queues: what waits, runs and finishes in each, and for how long its oldest execution has been waiting.

    With --json, the limits of a queue are concurrency, rate starts in any rate_seconds, and the same of each limit key;
    gated is how many of those pending wait for a place or for the rate, holding how many have begun and not finished.

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
            queue.gated or None,
            limits_text(_limits(queue)) or None,
        )
        for queue in found
    ]
    output.table(
        ("QUEUE", "PENDING", "RUNNING", "SUSPENDED", "FINISHED/MIN", "OLDEST PENDING", "AT GATE", "LIMITS"), rows
    )


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


@queues.command()
def limit(
    name: Name,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", min=1, max=RATE_MAX, metavar="N", help="Begun and not finished, over all workers."
        ),
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="RATE", help='Starts of attempts, like "100/1m" or "5/s".')
    ] = None,
    key_concurrency: Annotated[
        int | None,
        typer.Option("--key-concurrency", min=1, max=RATE_MAX, metavar="N", help="The same of each limit key."),
    ] = None,
    key_rate: Annotated[
        str | None, typer.Option("--key-rate", metavar="RATE", help="The same of each limit key.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Remove all limits.")] = False,
    database_url: options.DatabaseUrl = None,
) -> None:
    """Sets the limits of a queue: those given and no others. What runs already runs on, and counts.

    They hold until they are set anew, here or by a worker whose configuration has limits for this queue.

    Example: rhythm queues limit mail --rate 100/1m --key-concurrency 2
    """
    from rhythm.cli.connection import connected, run
    from rhythm.config import load
    from rhythm.durations import parse_rate
    from rhythm.model import QueueLimits

    limits = QueueLimits(
        concurrency,
        None if rate is None else parse_rate(rate),
        key_concurrency,
        None if key_rate is None else parse_rate(key_rate),
    )
    if bool(limits_text(limits)) == none:
        raise InvalidInput("give at least one limit, or --none to remove them; not both")
    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            try:
                await client.store.limit_queue(name, limits, known=True)
            except ExecutionNotFound:
                await _no_such_queue(client, name)

    run(work())
    output.message(f"The queue {name!r} has {'no limits' if none else f'the limits: {limits_text(limits)}'}.")


def limits_text(limits: QueueLimits) -> str:
    """Limits for people: "5 at a time, 100/1m; per key 1 at a time"; empty when there are none."""
    from rhythm.durations import format_rate

    def half(concurrency: int | None, rate: tuple[int, float] | None) -> str:
        parts = [] if concurrency is None else [f"{concurrency} at a time"]
        return ", ".join(parts if rate is None else [*parts, format_rate(*rate)])

    own, of_keys = half(limits.concurrency, limits.rate), half(limits.key_concurrency, limits.key_rate)
    return "; ".join(part for part in (own, f"per key {of_keys}" if of_keys else "") if part)


def _limits(queue: QueueInfo) -> QueueLimits:
    from rhythm.model import QueueLimits

    def rate(count: int | None, seconds: float | None) -> tuple[int, float] | None:
        return None if count is None or seconds is None else (count, seconds)

    return QueueLimits(
        queue.concurrency,
        rate(queue.rate, queue.rate_seconds),
        queue.key_concurrency,
        rate(queue.key_rate, queue.key_rate_seconds),
    )


async def _no_such_queue(client: Client, name: str) -> NoReturn:
    known = ", ".join(queue.queue for queue in await client.store.queues())
    raise InvalidInput(f"there is no queue {name!r}; the queues are {known}") from None


def _set_paused(name: str, paused: bool, database_url: str | None) -> None:
    from rhythm.cli.connection import connected, run
    from rhythm.config import load

    config = load({"database_url": database_url})

    async def work() -> None:
        async with connected(config) as client:
            try:
                await client.store.pause_queue(name, paused)
            except ExecutionNotFound:
                await _no_such_queue(client, name)

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
