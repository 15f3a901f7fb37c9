"""Postgres crashes under load and comes back: nothing is lost, nothing ends twice, workers go on by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator
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


@pytest.mark.parametrize("crashes", [1, 3])
async def test_postgres_crashing_under_load_loses_nothing(
    cluster: Cluster, tmp_path: Path, processes: Processes, crashes: int
) -> None:
    migrate(cluster.url)
    (tmp_path / "shop.py").write_text(TASKS)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "order.flow").write_text(FLOW)
    async with rhythm.connect(cluster.url) as client:
        shop = Shop(cluster.url, tmp_path, client, processes)
        await client.publish(tmp_path / "workflows")
        await shop.query("create table ledger (key text primary key, order_id text not null, step text not null)")
        worker = shop.worker()
        worker.wait_for_output("ready")
        expected = {}
        for number in range(crashes):
            starts = [rhythm.Start("order", {"order": f"c{number}-{i}"}) for i in range(80)]
            ids = await client.start_many(starts)
            steps = ["charge", "reserve", "ship"]
            expected |= {e: {"order": f"c{number}-{i}", "steps": steps} for i, e in enumerate(ids)}
            await shop.until(lambda seen=number: _entries(shop, seen * 240 + 20), "work is under way")
            await asyncio.to_thread(crash, cluster)
            await asyncio.to_thread(cluster.start)

        await shop.check(expected)
        assert worker.alive


async def _entries(shop: Shop, least: int) -> bool:
    (row,) = await shop.query("select count(*) as n from ledger")
    return bool(row["n"] >= least)
