"""Postgres crashes under load and comes back: nothing is lost, nothing ends twice, workers go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import rhythm
from rhythm.store.embedded import Cluster, choose_account
from tests.support.processes import Processes
from tests.support.servers import migrate
from tests.worker.conftest import FLOW, TASKS, Shop


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server of this test's own, to be crashed."""
    with tempfile.TemporaryDirectory(prefix="rhythm-crash-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # the server's account has to reach its data in it
        server = Cluster(home, choose_account(), settings={"fsync": "off"})
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def crash(cluster: Cluster) -> None:
    """An immediate shutdown: no checkpoint, every connection cut in the middle of what it does."""
    main_process = cluster.main_process()
    assert main_process is not None
    os.kill(main_process, signal.SIGQUIT)
    deadline = time.monotonic() + 20
    while cluster.running():
        assert time.monotonic() < deadline, "the server does not stop"
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def shop_on(cluster: Cluster, folder: Path, processes: Processes) -> AsyncIterator[Shop]:
    migrate(cluster.url)
    (folder / "shop.py").write_text(TASKS)
    (folder / "workflows").mkdir()
    (folder / "workflows" / "order.flow").write_text(FLOW)
    async with rhythm.connect(cluster.url) as client:
        shop = Shop(cluster.url, folder, client, processes)
        await client.publish(folder / "workflows")
        await shop.query("create table ledger (key text primary key, order_id text not null, step text not null)")
        yield shop


@pytest.mark.parametrize("crashes", [1, 3])
async def test_postgres_crashing_under_load_loses_nothing(
    cluster: Cluster, tmp_path: Path, processes: Processes, crashes: int
) -> None:
    async with shop_on(cluster, tmp_path, processes) as shop:
        worker = shop.worker()
        worker.wait_for_output("ready")
        expected = {}
        for number in range(crashes):
            starts = [rhythm.Start("order", {"order": f"c{number}-{i}"}) for i in range(80)]
            ids = await shop.client.start_many(starts)
            steps = ["charge", "reserve", "ship"]
            expected |= {e: {"order": f"c{number}-{i}", "steps": steps} for i, e in enumerate(ids)}
            await shop.until(lambda seen=number: _entries(shop, seen * 240 + 20), "work is under way")
            await asyncio.to_thread(crash, cluster)
            await asyncio.to_thread(cluster.start)

        await shop.check(expected)
        assert worker.alive


async def test_a_worker_whose_database_is_away_for_long_begins_anew(
    cluster: Cluster, tmp_path: Path, processes: Processes
) -> None:
    async with shop_on(cluster, tmp_path, processes) as shop:
        worker = shop.worker()
        expected = await shop.start_orders(40)
        await shop.until(lambda: _entries(shop, 20), "work is under way")
        await asyncio.to_thread(crash, cluster)
        await asyncio.to_thread(worker.wait_for_output, "no confirmed heartbeat")
        await asyncio.to_thread(cluster.start)

        await shop.check(expected)
        await asyncio.to_thread(worker.wait_for_output, "(?s)ready.*gone.*ready")
        assert worker.alive


async def test_a_worker_whose_database_is_away_ends_promptly_on_sigterm(
    cluster: Cluster, tmp_path: Path, processes: Processes
) -> None:
    async with shop_on(cluster, tmp_path, processes) as shop:
        cut_off, waiting = shop.worker(), shop.worker()
        for worker in (cut_off, waiting):
            await asyncio.to_thread(worker.wait_for_output, "ready")
        await asyncio.to_thread(crash, cluster)
        cut_off.terminate()
        assert await asyncio.to_thread(cut_off.wait, 15) == 0
        await asyncio.to_thread(waiting.wait_for_output, "no confirmed heartbeat")
        waiting.terminate()
        assert await asyncio.to_thread(waiting.wait, 15) == 0
        await asyncio.to_thread(cluster.start)


async def _entries(shop: Shop, least: int) -> bool:
    (row,) = await shop.query("select count(*) as n from ledger")
    return bool(row["n"] >= least)


async def test_postgres_crashing_while_workflows_are_cancelled_leaves_none_behind(
    cluster: Cluster, tmp_path: Path, processes: Processes
) -> None:
    async with shop_on(cluster, tmp_path, processes) as shop:
        (shop.folder / "workflows" / "waiting.flow").write_text("workflow() { await sleep('1h') }")
        await shop.client.publish(shop.folder / "workflows")
        shop.worker().wait_for_output("ready")
        starts = [rhythm.Start("order", {"order": f"c{i}"}) for i in range(80)]
        ids = await shop.client.start_many([*starts, *[rhythm.Start("waiting")] * 10])
        await shop.until(lambda: _entries(shop, 20), "work is under way")
        cancelling = asyncio.gather(*(shop.client.cancel(id_) for id_ in ids), return_exceptions=True)
        await asyncio.to_thread(crash, cluster)
        await asyncio.to_thread(cluster.start)
        answers = await cancelling
        ends = await asyncio.gather(*(shop.client.wait(id_, timeout=40) for id_ in ids), return_exceptions=True)

        assert {type(None), rhythm.ExecutionFinished} >= {type(answer) for answer in answers}
        assert {dict, rhythm.ExecutionCancelled} >= {type(end) for end in ends}
        assert {rhythm.ExecutionCancelled} == {type(end) for end in ends[len(starts) :]}
        assert list(await shop.client.store.breaches()) == []
