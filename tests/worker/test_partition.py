"""The network between a worker and the database fails: others take over, the worker writes nothing, and comes back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.processes import Process
from tests.support.proxy import Proxy
from tests.worker.conftest import Shop


@pytest_asyncio.fixture
async def proxy(shop: Shop) -> AsyncIterator[Proxy]:
    async with Proxy(shop.url) as running:
        yield running


def fail(proxy: Proxy, how: str) -> None:
    if how == "cut":
        proxy.cut()
    elif how == "no answers":
        proxy.silence("answers")
    else:
        proxy.silence()


async def incarnations(shop: Shop, process: Process) -> list[uuid.UUID]:
    rows = await shop.query("select incarnation from rhythm.workers where pid = $1", process.pid)
    return [row["incarnation"] for row in rows]


@pytest.mark.parametrize("how", ["cut", "silent", "no answers"])
async def test_a_worker_that_was_cut_off_cannot_write_and_comes_back(shop: Shop, proxy: Proxy, how: str) -> None:
    orders = await shop.start_orders(3)
    lost = shop.worker(url=proxy.url)
    await shop.until(lambda: shop.query("select from rhythm.workers where pid = $1", lost.pid), "it is there")
    execution = await shop.client.start("slow", {"seconds": 1.0, "mark": "m1"})
    await shop.begun("m1")
    before = await incarnations(shop, lost)
    fail(proxy, how)
    await shop.query("delete from ledger where order_id = 'm1'")  # so that the second attempt can write it again
    second = shop.worker()
    more = await shop.start_orders(3, "more")

    await shop.begun("m1")
    output = await execution.result(timeout=40)
    first_gone = await incarnations(shop, lost)
    proxy.mend()
    await shop.until(lambda: incarnations(shop, lost), "it begins afresh")
    after = await incarnations(shop, lost)
    second.terminate()
    await asyncio.to_thread(second.wait)
    last = await shop.start_orders(3, "last")
    await shop.check(orders | more | last)
    info = await execution.refresh()

    assert "m1" == output
    assert ("completed", 2, 1) == (info.status, info.attempts, info.lost)
    assert (1, [], 1) == (len(before), first_gone, len(after))
    assert before != after
    assert lost.alive


async def test_a_slow_network_only_takes_longer(shop: Shop, proxy: Proxy) -> None:
    worker = shop.worker(url=proxy.url)
    await asyncio.to_thread(worker.wait_for_output, "ready")
    proxy.delay(0.05)
    expected = await shop.start_orders(5)

    await shop.check(expected)
    assert "unknown" not in worker.output
    assert proxy.bytes_passed > 0
