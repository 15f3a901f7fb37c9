"""Workers die, stop and drain in the middle of their work: nothing is lost, nothing is doubled.

Faults at every named place are in `test_fail_points.py`, a network that is cut in `test_partition.py`.
"""

from __future__ import annotations

import asyncio

import pytest

import rhythm
from tests.worker.conftest import Shop


async def test_a_worker_stopped_past_its_heartbeat_cannot_write(shop: Shop) -> None:
    await shop.start_orders(1)
    execution = await shop.client.start("slow", {"seconds": 1.0, "mark": "m1"})
    frozen = shop.worker()
    await shop.begun("m1")
    frozen.freeze()
    await shop.query("delete from ledger where order_id = 'm1'")  # so that the second attempt can write it again
    shop.worker()
    await shop.begun("m1")
    frozen.thaw()

    assert await execution.result(timeout=30) == "m1"
    info = await execution.refresh()
    assert (info.attempts, info.lost) == (2, 1)
    assert list(await shop.client.store.breaches()) == []


async def test_a_task_that_kills_its_process_is_stopped_and_harms_nobody(shop: Shop) -> None:
    expected = await shop.start_orders(10)
    poison = await shop.client.start("poison", {}, retries=5)
    shop.worker("--processes", "2")

    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await poison.result(timeout=60)
    assert failed.value.type == "lost"
    await shop.check(expected)
    for execution_id in expected:
        info = (await shop.client.get(execution_id)).info
        assert info is not None
        assert info.attempts - info.lost == 1  # nobody's retry was used up


async def test_sigterm_lets_tasks_finish_and_hands_the_rest_back_uncharged(shop: Shop) -> None:
    running = await shop.client.start("slow", {"seconds": 0.7, "mark": "m1"})
    worker = shop.worker("--concurrency", "1")
    await shop.begun("m1")
    waiting = [await shop.client.start("slow", {"seconds": 0, "mark": f"w{i}"}) for i in range(5)]
    worker.terminate()

    assert await asyncio.to_thread(worker.wait) == 0
    assert await running.result(timeout=5) == "m1"
    for execution in waiting:
        info = await execution.refresh()
        assert (info.status, info.attempts, info.lost) == ("pending", 0, 0)
    assert list(await shop.client.store.breaches()) == []


async def test_a_second_sigterm_hands_back_at_once(shop: Shop) -> None:
    running = await shop.client.start("slow", {"seconds": 60, "mark": "m1"})
    worker = shop.worker()
    await shop.begun("m1")
    worker.terminate()
    worker.wait_for_output("draining")
    worker.terminate()

    await asyncio.to_thread(worker.wait)
    info = await running.refresh()
    assert (info.status, info.attempts, info.lost) == ("pending", 0, 0)


async def test_republishing_leaves_suspended_executions_on_their_definition(shop: Shop) -> None:
    source = 'workflow(ctx, inputs) {{ const go = await signal("go"); return "{version}" + inputs.i }}'
    path = shop.folder / "workflows" / "versioned.flow"
    path.write_text(source.format(version="old"))
    await shop.client.publish(path)
    old = await shop.client.start_many([rhythm.Start("versioned", {"i": i}) for i in range(1000)])
    shop.worker()
    await shop.until(lambda: _suspended(shop, 1000), "all are suspended")
    path.write_text(source.format(version="new"))
    (published,) = await shop.client.publish(path)
    new = await shop.client.start_many([rhythm.Start("versioned", {"i": i}) for i in range(20)])
    await asyncio.gather(*[shop.client.signal(execution_id, "go") for execution_id in [*old, *new]])

    assert published.changed
    assert [await shop.client.wait(i, timeout=60) for i in old] == [f"old{i}" for i in range(1000)]
    assert [await shop.client.wait(i, timeout=60) for i in new] == [f"new{i}" for i in range(20)]
    assert list(await shop.client.store.breaches()) == []


async def _suspended(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.waits where suspended")
    return bool(row["n"] >= count)


async def test_a_thread_that_nobody_can_stop_does_not_hold_up_the_end(shop: Shop) -> None:
    execution = await shop.client.start("blocks", {"seconds": 60})
    worker = shop.worker("--drain-timeout", "200ms")
    await shop.until(lambda: _running(shop), "the task runs")
    worker.terminate()

    await asyncio.to_thread(worker.wait, 20)
    info = await execution.refresh()
    assert (info.status, info.attempts, info.lost) == ("pending", 0, 0)


async def _running(shop: Shop) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.claims")
    return bool(row["n"])
