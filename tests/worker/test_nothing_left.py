"""After a worker has ended nothing of it is left: no claim, no row, no connection, no thread, no process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

import rhythm
from rhythm.tasks import REGISTRY
from tests.worker import tasks_of_every_kind

FLOW = """
workflow(ctx, inputs) {
  const parts = []
  for (const name of inputs.names) parts.push(await task(name, { i: parts.length }))
  await sleep(1)
  return parts
}
"""
NAMES = ["everyPlain", "everySuspending", "everyThreaded", "everyTransactional", "everyProcess"]


async def until(holds: Callable[[], Awaitable[object]], what: str) -> None:
    deadline = time.monotonic() + 20
    while problem := await holds():
        assert time.monotonic() < deadline, f"{what}: {problem}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def nothing_left(url: str) -> AsyncIterator[None]:
    """Inside the block a worker begins and ends."""
    me = psutil.Process()
    threads = set(threading.enumerate())
    files = me.num_fds()
    yield
    connection = await asyncpg.connect(url)
    try:

        async def rows() -> object:
            query = "select 'claim' from rhythm.claims union all select 'worker' from rhythm.workers"
            return await connection.fetch(query + " union all select 'idle' from rhythm.idle")

        async def connections() -> object:
            return await connection.fetch(
                "select application_name, state from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )

        async def others() -> object:
            return [t.name for t in set(threading.enumerate()) - threads if t.name.startswith("rhythm")]

        async def processes() -> object:
            return [p for p in me.children(recursive=True) if "rhythm.worker.child" in " ".join(_arguments(p))]

        assert await rows() == []
        await until(connections, "connections")
        await until(others, "threads")
        await until(processes, "processes")
    finally:
        await connection.close()

    async def open_files() -> object:
        return max(0, me.num_fds() - files)

    await until(open_files, "files")


def _arguments(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "every.flow").write_text(FLOW)
    return tmp_path


def worker_on(url: str) -> rhythm.Worker:
    tasks = [task for task in REGISTRY if task.name in NAMES]
    assert len(tasks) == len(NAMES), tasks_of_every_kind
    return rhythm.Worker(database_url=url, tasks=tasks, poll_interval="50ms", drain_timeout="20s")


@pytest.mark.parametrize("how", ["drained", "cancelled", "dead"])
async def test_nothing_is_left_of_a_worker(rhythm_url: str, folder: Path, how: str) -> None:
    async with nothing_left(rhythm_url):
        worker = worker_on(rhythm_url)
        running = asyncio.create_task(worker.run())
        async with rhythm.connect(rhythm_url) as client:
            await client.publish(folder)
            executions = [await client.start("every", {"names": NAMES}) for _ in range(5)]
            for execution in executions:
                assert await execution.result(timeout=40) == [0, 1, 2, 3, 4]
            if how == "dead":
                before = worker.incarnation
                await client.store.unregister_worker(before)
                while worker.incarnation == before:  # noqa: ASYNC110 - the end of an incarnation has no signal
                    await asyncio.sleep(0.01)
                assert await (await client.start("everyThreaded", {"i": 5})).result(timeout=20) == 5
        if how == "cancelled":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        else:
            await worker.stop()
            await running
