"""Cut off from the database: what a worker had begun is lost, the rest goes back, and it begins anew."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator

import pytest

import rhythm
from rhythm.errors import DatabaseUnavailable
from rhythm.store import Store
from rhythm.tasks import REGISTRY
from tests.support.proxy import Proxy
from tests.worker.conftest import Shop


class HeldTask:
    """A ``def`` task that runs until the test lets it go on; each attempt by itself."""

    def __init__(self) -> None:
        self.begun = [threading.Event(), threading.Event()]
        self.go_on = [threading.Event(), threading.Event()]
        self.abandoned: list[str] = []

        @rhythm.task
        def held(context: rhythm.TaskContext) -> int:
            number = context.attempt - 1
            self.begun[number].set()
            assert self.go_on[number].wait(30)
            try:
                context.heartbeat()
            except Exception as error:
                self.abandoned.append(str(error))
                raise
            return context.attempt

        self.task = held


@pytest.fixture
def held() -> Iterator[HeldTask]:
    made = HeldTask()
    yield made
    REGISTRY.remove("held")
    for event in made.go_on:
        event.set()


async def test_a_task_begun_before_the_heartbeat_failed_is_lost_and_its_thread_is_told(
    rhythm_url: str, held: HeldTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, away = Store.heartbeat, threading.Event()

    async def perhaps(store: Store, incarnation: uuid.UUID) -> object:
        if away.is_set():
            raise DatabaseUnavailable("only the heartbeat does not get through")
        return await beat(store, incarnation)

    monkeypatch.setattr(Store, "heartbeat", perhaps)
    worker = rhythm.Worker(database_url=rhythm_url, tasks=[held.task], heartbeat_timeout="1s", poll_interval="50ms")
    async with rhythm.connect(rhythm_url) as client:
        life = asyncio.create_task(worker.run())
        execution = await client.start("held", {})
        assert await asyncio.to_thread(held.begun[0].wait, 20)
        before = worker.incarnation
        away.set()
        while worker.incarnation == before:  # noqa: ASYNC110 - the end of an incarnation has no signal
            await asyncio.sleep(0.01)
        while (await execution.refresh()).lost == 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert (await execution.refresh()).status == "pending"  # who cannot beat claims nothing
        away.clear()
        assert await asyncio.to_thread(held.begun[1].wait, 20)
        held.go_on[0].set()  # the first attempt ends while the second runs: nobody listens
        held.go_on[1].set()

        assert await execution.result(timeout=20) == 2
        info = await execution.refresh()
        assert (info.attempts, info.lost) == (2, 1)
        assert held.abandoned == ["held: its worker has let go of it"]
        assert list(await client.store.breaches()) == []
        await worker.stop()
        await life


async def test_what_was_claimed_by_answers_that_never_came_goes_back_uncharged(shop: Shop) -> None:
    async with Proxy(shop.url) as proxy:
        worker = shop.worker("--heartbeat-timeout", "12s", url=proxy.url)
        await asyncio.to_thread(worker.wait_for_output, "ready")
        orders = await shop.start_orders(1, "first")
        await shop.check(orders)
        async with shop.exchange_waiting():  # its answer is the next, and will not come
            proxy.silence("answers")
            lost = await shop.start_orders(3, "lost")
        await shop.until(lambda: shop.query("select from rhythm.claims"), "the server has claimed them")
        await asyncio.to_thread(worker.wait_for_output, "no confirmed heartbeat")
        proxy.mend()

        await shop.check(orders | lost)
        for execution_id in lost:
            info = (await shop.client.get(execution_id)).info
            assert info is not None
            assert info.lost == 0
        assert "handing back" in worker.output
        assert worker.alive


async def test_a_worker_that_is_cut_off_ends_promptly_on_sigterm(shop: Shop) -> None:
    async with Proxy(shop.url) as proxy:
        worker = shop.worker(url=proxy.url)
        execution = await shop.client.start("slow", {"seconds": 60, "mark": "m1"})
        await shop.begun("m1")
        proxy.silence()
        await asyncio.to_thread(worker.wait_for_output, "no confirmed heartbeat")
        worker.terminate()

        assert await asyncio.to_thread(worker.wait, 15) == 0
        assert (await execution.refresh()).status in ("running", "pending")


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_a_worker_that_waits_to_register_ends_promptly_on_sigterm(shop: Shop, how: str) -> None:
    async with Proxy(shop.url) as proxy:
        worker = shop.worker(url=proxy.url)
        await asyncio.to_thread(worker.wait_for_output, "ready")
        proxy.cut()
        await asyncio.to_thread(worker.wait_for_output, "no confirmed heartbeat")
        await shop.query("delete from rhythm.workers")
        proxy.mend()
        proxy.silence("answers")
        if how == "cut":
            proxy.cut()
        worker.terminate()

        assert await asyncio.to_thread(worker.wait, 15) == 0
