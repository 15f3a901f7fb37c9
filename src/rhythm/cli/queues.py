"""Queues and workers: what waits, what runs, who is alive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rhythm.cli import options, output

if TYPE_CHECKING:
    from rhythm.model import QueueInfo, WorkerInfo


def queues(database_url: options.DatabaseUrl = None, as_json: options.Json = False) -> None:
    """Lists queues and what waits in each.

    Example: rhythm queues
    """
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
            None if queue.oldest_pending_seconds is None else format_seconds(max(0.0, queue.oldest_pending_seconds)),
        )
        for queue in found
    ]
    output.table(("QUEUE", "PENDING", "RUNNING", "SUSPENDED", "OLDEST PENDING"), rows)


def workers(database_url: options.DatabaseUrl = None, as_json: options.Json = False) -> None:
    """Lists the workers that are alive.

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
        return
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
