"""Decoded heaps are a cache of what the database has confirmed, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

import rhythm
from rhythm.worker import Worker, activations, incarnation
from rhythm.worker.activations import Activations
from tests.store.bench import Bench, waiting_for_locks

SOURCE = 'workflow(ctx, inputs) { return [await signal("a"), await signal("b")] }'


@asynccontextmanager
async def locked(url: str, execution: rhythm.Execution[object]) -> AsyncIterator[asyncpg.Connection]:
    """Holds the lock that a commit of the workflow needs."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("select rhythm.lock_workflows(array[$1::uuid])", execution.id)
            yield connection
    finally:
        await connection.close()


@pytest.fixture
async def bench(rhythm_url: str) -> AsyncIterator[Bench]:
    """On the real clock: the workers here are real."""
    async with Bench.on(rhythm_url) as made:
        await made.raw.execute("update rhythm.clock set frozen_at = null")
        yield made
        assert [] == await made.store.breaches()


async def reported(worker: Worker) -> None:
    async with asyncio.timeout(30):
        await worker.signals.reported.wait()
    worker.signals.reported.clear()


async def test_a_heap_is_kept_once_its_commit_is_confirmed_and_not_when_it_was_refused(
    bench: Bench, rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Activations] = []
    monkeypatch.setattr(incarnation, "Activations", lambda *a, **k: made.append(Activations(*a, **k)) or made[0])
    (tmp_path / "waits.flow").write_text(SOURCE)
    worker = Worker(database_url=rhythm_url, tasks=[], poll_interval=0.05)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        execution = await client.start("waits")
        async with locked(rhythm_url, execution):
            running = asyncio.create_task(worker.run())
            await waiting_for_locks(bench, 1)
            heaps = made[0]._heaps
            before = list(heaps)
        await reported(worker)
        confirmed = list(heaps)

        await bench.store.pause_queue("default")
        await execution.signal("a", 1)
        async with locked(rhythm_url, execution) as other:
            await bench.store.pause_queue("default", False)
            await waiting_for_locks(bench, 1)
            taken_out = list(heaps)
            await other.execute("update rhythm.waits set version = version + 1")  # as if somebody had gone ahead
            await bench.store.pause_queue("default")  # or it is taken up again before anybody looks
        await reported(worker)
        refused = list(heaps)
        await bench.raw.execute("update rhythm.waits set version = version - 1")
        await bench.store.pause_queue("default", False)
        await execution.signal("b", 2)
        result = await execution.result(timeout=30)
        await worker.stop()
        await running

    assert ([], [(execution.id, 1)], [], []) == (before, confirmed, taken_out, refused)
    assert [1, 2] == result


SPINS = """
workflow(ctx, inputs) {
  const end = Date.now() + 150
  while (Date.now() < end) {}
}
"""


async def test_a_worker_whose_activations_take_long_leaves_the_rest_to_others(
    bench: Bench, rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "SHARE", 1.0)  # the last activation tells how long the next will take
    (tmp_path / "spins.flow").write_text(SPINS)
    worker = Worker(database_url=rhythm_url, tasks=[], poll_interval=0.05)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        running = asyncio.create_task(worker.run())
        await (await client.start("spins")).result(timeout=30)
        ids = await client.start_many([rhythm.Start("spins")] * 8)
        await client.wait(ids[0], timeout=30)
        claimed = await bench.raw.fetchval("select coalesce(sum(cardinality(ids)), 0) from rhythm.claims")
        for id_ in ids:
            await client.wait(id_, timeout=30)
        await worker.stop()
        await running

    assert claimed <= 2
