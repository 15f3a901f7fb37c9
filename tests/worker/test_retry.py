"""Retry by hand with real workers: what failed runs again, what broke down goes on where it stood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import rhythm
from rhythm.engine import Limits
from rhythm.worker import Worker
from tests.worker.conftest import Shop

GROWS = """
workflow(ctx, inputs) {
  const first = await signal("a")
  const called = task("count", {})
  const text = "x".repeat(inputs.size)
  const second = await signal("b")
  return [first, text.length, second, await called]
}
"""
THROWS = "workflow(ctx, inputs) { await sleep(1); throw new Error('of its own') }"


@asynccontextmanager
async def working(url: str, tasks: list[rhythm.Task[..., object]], limits: Limits | None = None) -> AsyncIterator[None]:
    worker = Worker(database_url=url, tasks=tasks, poll_interval=0.05, limits=limits)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        await running


async def test_a_workflow_over_a_limit_goes_on_at_its_last_await_once_the_limit_is_raised(
    rhythm_url: str, tmp_path: Path
) -> None:
    calls: list[int] = []

    async def count() -> int:
        calls.append(1)
        return len(calls)

    counting = rhythm.task(name="count")(count)
    (tmp_path / "grows.flow").write_text(GROWS)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        execution = await client.start("grows", {"size": 10_000})
        await execution.signal("a", 1)
        async with working(rhythm_url, [counting], Limits(snapshot_bytes_max=2_000)):
            with pytest.raises(rhythm.ExecutionFailed) as failed:
                await execution.result(timeout=20)
        with pytest.raises(rhythm.ExecutionFinished):
            await execution.signal("b", 2)
        retried = await execution.retry()
        await execution.signal("b", 2)
        async with working(rhythm_url, [counting]):
            result = await retried.result(timeout=20)
        breaches = await client.store.breaches()

    assert "LimitError" == failed.value.name
    assert retried.id == execution.id
    assert [1, 10_000, 2, 1] == result
    assert [1] == calls  # nothing of the activation that broke down had happened
    assert [] == list(breaches)


async def test_a_workflow_that_failed_by_its_own_error_is_only_run_from_its_start(shop: Shop) -> None:
    (shop.folder / "workflows" / "throws.flow").write_text(THROWS)
    await shop.client.publish(shop.folder / "workflows")
    shop.worker()
    execution = await shop.client.start("throws", {"a": 1}, key="k")
    with pytest.raises(rhythm.ExecutionFailed):
        await execution.result(timeout=20)

    with pytest.raises(rhythm.RetryRefused, match="from_start") as refused:
        await execution.retry()
    (shop.folder / "workflows" / "throws.flow").write_text("workflow(ctx, inputs) { return inputs.a }")
    await shop.client.publish(shop.folder / "workflows")
    fresh = await execution.retry(from_start=True)

    assert "nothing_kept" == refused.value.code
    assert fresh.id != execution.id
    assert 1 == await fresh.result(timeout=20)
    assert "failed" == (await execution.refresh()).status


async def test_a_failed_task_runs_again_when_somebody_says_so(shop: Shop) -> None:
    (shop.folder / "broken.py").write_text(
        "import pathlib, rhythm\n"
        "@rhythm.task(retries=1, retry=rhythm.Retry(initial=0))\n"
        "async def mend(context: rhythm.TaskContext) -> int:\n"
        "    if not pathlib.Path('mended').exists():\n"
        "        raise RuntimeError('broken')\n"
        "    return context.attempt\n"
    )
    shop.worker("--app", "broken")
    execution = await shop.client.start("mend", {})
    with pytest.raises(rhythm.ExecutionFailed):
        await execution.result(timeout=20)
    (shop.folder / "mended").touch()
    await execution.retry()

    assert 3 == await execution.result(timeout=20)
    assert list(await shop.client.store.breaches()) == []
