"""Tasks of one kind hold up none of another, and no worker keeps what another could run."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import rhythm
from rhythm.model import Claim
from rhythm.tasks import REGISTRY, Task
from rhythm.worker.exchange import _shares
from rhythm.worker.held import Held
from rhythm.worker.lanes import WAITING_MAX, Lane


def held(number: int) -> Held:
    return Held(
        Claim(number, uuid.UUID(int=number), "task", "any", b"{}", attempt=1, lost=0, queue="default", created_at_ms=0)
    )


def test_a_lane_claims_ahead_what_begins_soon_and_nothing_before_it_knows() -> None:
    lane = Lane(["any"], 4)
    assert lane.room() == 4

    lane.asked = 3
    assert lane.room() == 1

    lane.asked = 0
    lane.took(0.05)
    assert lane.room() == 4 + 8
    lane.average = 0.000_001
    assert lane.room() == 4 + WAITING_MAX
    lane.average = 10.0
    assert lane.room() == 4


def test_of_a_queue_with_limits_a_lane_takes_what_begins_at_once_and_never_nothing_while_it_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)  # what takes no time here may take some elsewhere
    lane = Lane(["any"], 4)
    assert lane.free() == 4

    lane.asked = 3
    assert lane.free() == 1

    lane.asked = 0
    lane.took(0.05)
    lane.under_way.update(held(i) for i in range(4))
    lane.moved_at = time.monotonic()
    assert (lane.room(), lane.free()) == (8, 1)
    lane.average = 0.001
    assert lane.free() == 40
    lane.waiting.extend(held(i) for i in range(lane.room()))
    assert (lane.room(), lane.free()) == (0, 0)


def test_what_would_wait_for_long_is_taken_out_the_youngest_first() -> None:
    lane = Lane(["any"], 2)
    lane.waiting.extend(held(i) for i in range(6))
    assert lane.take_surplus() == []  # nothing is known of how long they take

    lane.average = 0.5
    assert [5, 4] == [one.claim.token for one in lane.take_surplus()]
    assert [0, 1, 2, 3] == [one.claim.token for one in lane.waiting]


def test_a_claim_is_shared_among_lanes_that_want_more_than_it_holds() -> None:
    assert _shares([500, 500, 0, 7], 500) == [246, 247, 0, 7]
    assert _shares([500, 100], 500) == [400, 100]
    assert _shares([3, -2, 5], 500) == [3, 0, 5]
    assert _shares([1000], 500) == [500]
    assert _shares([], 500) == []


class Gates:
    """Tasks that wait for the test; the first so many of each kind, the others run through."""

    def __init__(self) -> None:
        self.blocking = 0
        self.numbers = itertools.count()
        self.begun = threading.Semaphore(0)
        self.thread_gate = threading.Event()
        self.gate = asyncio.Event()
        before = REGISTRY.as_dict()

        @rhythm.task
        def threaded() -> str:
            if next(self.numbers) < self.blocking:
                self.begun.release()
                assert self.thread_gate.wait(60)
            return "threaded"

        @rhythm.task
        async def plain() -> str:
            return "plain"

        @rhythm.task
        async def suspending() -> str:
            if next(self.numbers) < self.blocking:
                self.begun.release()
                await self.gate.wait()
            return "suspending"

        self.tasks: dict[str, Task[..., Any]] = {n: t for n, t in REGISTRY.as_dict().items() if n not in before}

    async def all_begun(self) -> None:
        for _ in range(self.blocking):
            assert await asyncio.to_thread(self.begun.acquire, timeout=20)

    def open(self) -> None:
        self.thread_gate.set()
        self.gate.set()


@pytest.fixture
def gates() -> Iterator[Gates]:
    made = Gates()
    yield made
    made.open()
    for name in made.tasks:
        REGISTRY.remove(name)


@contextlib.asynccontextmanager
async def running(url: str, gates: Gates) -> AsyncIterator[rhythm.Worker]:
    worker = rhythm.Worker(database_url=url, tasks=gates.tasks.values(), concurrency=2, poll_interval="50ms")
    life = asyncio.create_task(worker.run())
    try:
        await worker.signals.registered.wait()
        yield worker
    finally:
        gates.open()
        await worker.stop()
        await life


@pytest.mark.parametrize(("slow", "quick"), [("threaded", "suspending"), ("suspending", "threaded")])
async def test_tasks_of_one_kind_hold_up_none_of_another(rhythm_url: str, gates: Gates, slow: str, quick: str) -> None:
    gates.blocking = 2
    async with rhythm.connect(rhythm_url) as client:
        await client.start_many([rhythm.Start(slow, {}) for _ in range(10)])
        async with running(rhythm_url, gates):
            await gates.all_begun()
            execution = await client.start(quick, {})

            assert await execution.result(timeout=20) == quick


async def test_a_burst_of_plain_tasks_keeps_no_others_out(rhythm_url: str, gates: Gates) -> None:
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, gates):
        burst = await client.start_many([rhythm.Start("plain", {}) for _ in range(3000)])
        await client.wait(burst[-1], timeout=20)
        for name in ("suspending", "threaded"):
            execution = await client.start(name, {})

            assert await execution.result(timeout=20) == name


@pytest.mark.parametrize("name", ["threaded", "suspending"])
async def test_a_worker_claims_no_more_than_it_can_begin(rhythm_url: str, gates: Gates, name: str) -> None:
    gates.blocking = 2
    async with rhythm.connect(rhythm_url) as client:
        await client.start_many([rhythm.Start(name, {}) for _ in range(5)])
        async with running(rhythm_url, gates) as worker:
            await gates.all_begun()
            worker.signals.idle.clear()
            await worker.signals.idle.wait()

            assert len(await client.list(status="pending")) == 3


async def test_what_was_claimed_ahead_goes_to_another_worker_when_tasks_become_slow(
    rhythm_url: str, gates: Gates
) -> None:
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, gates):
        quick = await client.start_many([rhythm.Start("threaded", {}) for _ in range(50)])
        for execution_id in quick:
            await client.wait(execution_id, timeout=20)
        gates.numbers = itertools.count()
        gates.blocking = 2
        slow = await client.start_many([rhythm.Start("threaded", {}) for _ in range(30)])
        await gates.all_begun()
        async with running(rhythm_url, gates):
            finished = [asyncio.create_task(client.wait(execution_id, timeout=40)) for execution_id in slow]
            for _, result in zip(range(28), asyncio.as_completed(finished), strict=False):
                await result
            unfinished = [i for i, one in zip(slow, finished, strict=True) if not one.done()]
            assert len(unfinished) == 2
            gates.open()
            await asyncio.gather(*finished)
        for execution_id in slow:
            info = (await client.get(execution_id)).info
            assert info is not None
            assert (info.attempts, info.lost) == (1, 0)
        assert list(await client.store.breaches()) == []
