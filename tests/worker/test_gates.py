"""Limits of queues with real workers: rates that let pass in time, places that come back from the dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rhythm
from rhythm.model import QueueLimits
from rhythm.tasks import REGISTRY
from tests.worker.conftest import Shop

QUEUE = "narrow"


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    before = REGISTRY.as_dict().keys()
    yield
    for name in REGISTRY.as_dict().keys() - before:
        REGISTRY.remove(name)


async def test_a_rate_lets_pass_what_it_says_without_waiting_for_the_next_poll(rhythm_url: str) -> None:
    @rhythm.task(name="gates_quick", queue=QUEUE)
    async def quick(i: int) -> int:
        await asyncio.sleep(0)
        return i

    options = {"poll_interval": "1h", "heartbeat_timeout": "1h", "queue": {QUEUE: {"rate": "5/500ms"}}}
    async with (
        rhythm.connect(rhythm_url) as client,
        rhythm.Worker(database_url=rhythm_url, tasks=[quick], workflows=False, **options),
    ):
        began = time.monotonic()
        ids = await client.start_many([rhythm.Start(quick, {"i": i}) for i in range(20)])
        outputs = [await client.wait(id_, timeout="1m") for id_ in ids]
        took = time.monotonic() - began
        times = sorted(info.started_at for info in await client.store.list(limit=100) if info.started_at is not None)
        breaches = await client.store.breaches()

    assert list(range(20)) == outputs
    assert took < 30, "three periods, and not the poll interval"
    assert all((later - earlier).total_seconds() >= 0.5 for earlier, later in zip(times, times[5:], strict=False))
    assert [] == list(breaches)


async def test_the_newest_limits_count_whoever_wrote_them(rhythm_url: str) -> None:
    @rhythm.task(name="gates_any", queue=QUEUE)
    async def any_() -> None: ...

    async with rhythm.connect(rhythm_url) as client:
        for concurrency in (3, 5):
            options = {"queue": {QUEUE: {"concurrency": concurrency}, "elsewhere": {"concurrency": 1}}}
            async with rhythm.Worker(database_url=rhythm_url, tasks=[any_], workflows=False, **options):
                limits = {queue.queue: queue.concurrency for queue in await client.store.queues()}
                assert {"default": None, QUEUE: concurrency} == limits, "only of queues that it serves"
        async with rhythm.Worker(database_url=rhythm_url, tasks=[any_], workflows=False):
            limits = {queue.queue: queue.concurrency for queue in await client.store.queues()}

    assert {"default": None, QUEUE: 5} == limits, "a worker that has none leaves them as they are"


async def test_a_workflow_gives_its_tasks_limit_keys(rhythm_url: str, tmp_path: Path) -> None:
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    @rhythm.task(name="gates_mail", queue=QUEUE)
    async def mail(to: str) -> str:
        running[to] = running.get(to, 0) + 1
        most[to] = max(most.get(to, 0), running[to])
        await asyncio.sleep(0.001)
        running[to] -= 1
        return to

    flow = tmp_path / "mailing.flow"
    flow.write_text("""
workflow(ctx, inputs) {
  const all = ["a", "b", "a", "b", "a", "b"]
  return await Promise.all(all.map((to) => task("gates_mail", { to }, { limitKey: "customer-" + to })))
}
""")
    options = {"queue": {QUEUE: {"key_concurrency": 1}}}
    async with (
        rhythm.connect(rhythm_url) as client,
        rhythm.Worker(database_url=rhythm_url, tasks=[mail], **options),
    ):
        await client.publish(flow)
        execution = await client.start("mailing", {})
        output = await execution.result(timeout="1m")
        keys = {child.limit_key for child in await client.store.list(parent_id=execution.id)}

    assert ["a", "b"] * 3 == output
    assert {"a": 1, "b": 1} == most
    assert {"customer-a", "customer-b"} == keys


async def test_places_that_a_killed_worker_held_come_back(shop: Shop) -> None:
    await shop.client.store.limit_queue(QUEUE, QueueLimits(concurrency=2))
    dying = shop.worker("-q", QUEUE, "-q", "default")
    slow = [await shop.client.start("slow", {"seconds": 1, "mark": mark}, queue=QUEUE) for mark in ("first", "second")]
    for mark in ("first", "second"):
        await shop.begun(mark)
    dying.freeze()  # so that they do not end before it is killed
    waiting = await shop.client.start_many([rhythm.Start("plain", {"i": i}, queue=QUEUE) for i in range(5)])
    gate = await shop.client.store.gate(waiting[0])
    dying.kill()
    await shop.query("delete from ledger")  # the second attempt writes the same lines
    shop.worker("-q", QUEUE, "-q", "default")
    outputs = [await shop.client.wait(id_, timeout="40s") for id_ in waiting]
    marks = [await execution.result(timeout="40s") for execution in slow]
    lost = [(await execution.refresh()).lost for execution in slow]

    assert gate is not None
    assert (2, 2) == (gate.holding, gate.concurrency)
    assert ([0, 2, 4, 6, 8], ["first", "second"], [1, 1]) == (outputs, marks, lost)
    assert [] == await shop.query("select * from rhythm.places")
    assert [] == list(await shop.client.store.breaches())
