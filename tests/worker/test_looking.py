"""A worker looks for work when there may be some, and otherwise sleeps until it is notified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import rhythm
from rhythm.model import ExchangeRequest, ExchangeResult
from rhythm.store import Store
from rhythm.tasks import REGISTRY
from rhythm.worker import exchange

STEPS = 40
SOURCE = f"""
workflow(ctx, inputs) {{
  let total = 0
  for (let i = 0; i < {STEPS}; i++) total += await task("looking_step", {{ i }})
  return total
}}
"""


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    before = REGISTRY.as_dict().keys()
    yield
    for name in REGISTRY.as_dict().keys() - before:
        REGISTRY.remove(name)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[ExchangeRequest]:
    """Every exchange, as it was asked for."""
    seen: list[ExchangeRequest] = []
    original = Store.exchange

    async def noted(self: Store, request: ExchangeRequest) -> ExchangeResult:
        seen.append(request)
        return await original(self, request)

    monkeypatch.setattr(Store, "exchange", noted)
    return seen


@asynccontextmanager
async def running(url: str, *tasks: rhythm.Task) -> AsyncIterator[rhythm.Worker]:
    worker = rhythm.Worker(database_url=url, tasks=tasks, poll_interval="1h")
    run = asyncio.create_task(worker.run())
    await worker.signals.registered.wait()
    try:
        yield worker
    finally:
        await worker.stop()
        await run


async def test_a_sequential_step_is_one_exchange(
    rhythm_url: str, tmp_path: Path, requests: list[ExchangeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SETTLE_SECONDS", 3600.0)  # what slowness alone would bring does not count
    path = tmp_path / "steps.flow"
    path.write_text(SOURCE)

    @rhythm.task(name="looking_step")
    async def step(i: int) -> int:
        return i

    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, step):
        await client.publish(path)
        execution = await client.start("steps")
        total = await execution.result(timeout=60)

    assert total == sum(range(STEPS))
    assert len(requests) <= STEPS + 15, "besides the steps: the beginning, the end, and looks on the way to sleep"


async def test_a_worker_that_holds_something_long_is_notified_of_more(rhythm_url: str) -> None:
    """Its poll interval is an hour here: without a notification the second task would wait for that."""
    begun, release = asyncio.Event(), asyncio.Event()

    @rhythm.task(name="looking_long")
    async def long() -> str:
        begun.set()
        await release.wait()
        return "long"

    @rhythm.task(name="looking_short")
    async def short() -> str:
        return "short"

    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, long, short) as worker:
        first = await client.start("looking_long")
        await begun.wait()
        worker.signals.idle.clear()
        await worker.signals.idle.wait()  # it has asked to be notified, with the first task still in hand
        second = await client.start("looking_short")

        assert await second.result(timeout=30) == "short"
        release.set()
        assert await first.result(timeout=30) == "long"


async def test_a_full_worker_does_not_look_again_and_again(
    rhythm_url: str, requests: list[ExchangeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SETTLE_SECONDS", 0.001)
    begun, release = asyncio.Event(), asyncio.Event()

    @rhythm.task(name="looking_fills")
    async def fills() -> None:
        begun.set()
        await release.wait()

    async with rhythm.connect(rhythm_url) as client:
        worker = rhythm.Worker(database_url=rhythm_url, tasks=[fills], poll_interval="1h", concurrency=1)
        run = asyncio.create_task(worker.run())
        execution = await client.start("looking_fills")
        await begun.wait()
        before = len(requests)
        for _ in range(50):  # round trips of another connection, in place of a sleep
            await execution.refresh()
        looked = len(requests) - before
        release.set()
        await execution.result(timeout=30)
        await worker.stop()
        await run

    assert looked <= 5


async def test_more_is_asked_for_before_what_came_is_run(rhythm_url: str, requests: list[ExchangeRequest]) -> None:
    """So Postgres finds the next batch while Python runs this one."""
    asked: list[int] = []

    @rhythm.task(name="looking_ahead")
    async def ahead() -> None:
        asked.append(len(requests))

    async with rhythm.connect(rhythm_url) as client:
        async with running(rhythm_url, ahead):
            await (await client.start("looking_ahead")).result(timeout=30)  # it is known from here on
        await client.start_many([rhythm.Start("looking_ahead")] * (3 * exchange.BATCH_FIRST))
        asked.clear()
        requests.clear()
        async with running(rhythm_url, ahead):
            while len(asked) < 3 * exchange.BATCH_FIRST:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    first_batch = asked[: exchange.BATCH_FIRST]
    assert first_batch == [2] * exchange.BATCH_FIRST, "the claim that brought them, and the one under way"
