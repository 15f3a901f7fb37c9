"""Through a pooler in transaction mode: everything works, wake-ups with a URL of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

import rhythm
from rhythm.store import Store
from tests.support.pooler import PROGRAM, running_pooler
from tests.support.processes import Processes
from tests.worker.conftest import Shop, open_shop

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture
def pooled_url(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    with running_pooler(postgres_url, tmp_path / "pooler") as url:
        yield url


@pytest_asyncio.fixture
async def pooled(pooled_url: str, tmp_path: Path, processes: Processes) -> AsyncIterator[Shop]:
    """A shop that knows its database only through the pooler, from the first migration on."""
    (tmp_path / "rhythm.toml").write_text("pooler = true\n")
    async with open_shop(pooled_url, tmp_path, processes, pooler=True) as shop:
        yield shop


async def test_a_whole_workload_with_a_worker_lost_on_the_way(pooled: Shop) -> None:
    expected = await pooled.start_orders(120)
    first, second = pooled.worker(), pooled.worker("--processes", "2")
    await asyncio.gather(*(pooled.client.wait(execution_id, timeout=60) for execution_id in list(expected)[:10]))
    first.kill()

    await pooled.check(expected)
    second.terminate()
    assert await asyncio.to_thread(second.wait) == 0, pooled.logs()
    assert {worker.pid for worker in await pooled.client.store.workers()} <= {first.pid}


async def test_signals_cancels_keys_and_waits_pass_through(pooled: Shop) -> None:
    (pooled.folder / "wait.flow").write_text('workflow(ctx, inputs) { return await signal("go") }\n')
    await pooled.client.publish(pooled.folder / "wait.flow")
    pooled.worker()
    started = [await pooled.client.start("wait", key=f"k{i % 20}") for i in range(40)]
    assert len({execution.id for execution in started}) == 20
    for number, execution in enumerate(started[:20]):
        await execution.signal("go", number)

    assert [await execution.result(timeout=30) for execution in started[:20]] == list(range(20))
    doomed = await pooled.client.start("wait")
    await doomed.cancel()
    with pytest.raises(rhythm.ExecutionCancelled):
        await doomed.result(timeout=30)


async def test_transactional_tasks_and_starts_in_the_callers_transaction_pass_through(
    pooled: Shop, pooled_url: str
) -> None:
    worker = pooled.worker()
    tasks = [rhythm.Start(name, {"order": f"{name}{i}"}) for i in range(30) for name in ("bank", "till")]
    ids = await pooled.client.start_many(tasks)
    with psycopg.connect(pooled_url, prepare_threshold=None) as connection:
        for i in range(5):
            started = await pooled.client.start("plain", {"i": i}, connection=connection)
            ids.append(started.id)
            connection.commit()
        undone = await pooled.client.start("plain", {"i": 0}, connection=connection)
        connection.rollback()
    outputs = [await pooled.client.wait(id_, timeout=30) for id_ in ids]
    worker.terminate()

    assert [task.name for task in tasks] + [0, 2, 4, 6, 8] == outputs
    entries = await pooled.query("select order_id, count(*) as n from ledger group by 1")
    assert {f"{name}{i}": 1 for i in range(30) for name in ("bank", "till")} == {r["order_id"]: r["n"] for r in entries}
    with pytest.raises(rhythm.ExecutionNotFound):
        await undone.refresh()
    assert await asyncio.to_thread(worker.wait) == 0, pooled.logs()


async def test_a_url_of_its_own_brings_wakeups_past_the_pooler(pooled: Shop, postgres_url: str) -> None:
    worker = pooled.worker("--poll-interval", "60s", "--listen-url", postgres_url)
    await asyncio.to_thread(worker.wait_for_output, "worker ready")
    began = time.monotonic()
    for i in range(5):
        execution = await pooled.client.start("plain", {"i": i})
        assert await execution.result(timeout=30) == i * 2

    assert time.monotonic() - began < 30


async def test_without_saying_so_the_error_says_what_to_set(
    pooled_url: str, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with rhythm.connect(postgres_url) as client:
        await client.migrate()
    assert "behind a pooler" not in caplog.text
    stores = [await Store.connect(pooled_url) for _ in range(6)]

    async def ask_until_refused() -> None:
        for _ in range(100):
            await asyncio.gather(*(store.queues() for store in stores), *(store.workers() for store in stores))

    try:
        assert "behind a pooler" in caplog.text
        with pytest.raises(rhythm.ConfigurationError, match="set pooler = true"):
            await ask_until_refused()
    finally:
        for store in stores:
            await store.close()
