"""Cancelling: before the beginning, in the middle, and what a workflow may do about it."""

from __future__ import annotations

import pytest

import rhythm
from tests.worker.conftest import Shop

SAGA = """
workflow(ctx, inputs) {
  try {
    await task("book", { order: "c", step: "charge" })
    await signal("go")
  } catch (error) {
    await task("book", { order: "c", step: "refund" })
    if (inputs.swallow) return [error.name, ctx.cancelled]
    throw error
  }
}
"""


async def suspended(shop: Shop) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.snapshots where line = 5")
    return bool(row["n"])


@pytest.mark.parametrize("swallow", [True, False])
async def test_a_cancelled_workflow_undoes_what_it_did(shop: Shop, swallow: bool) -> None:
    path = shop.folder / "workflows" / "saga.flow"
    path.write_text(SAGA)
    await shop.client.publish(path)
    shop.worker()
    execution = await shop.client.start("saga", {"swallow": swallow})
    await shop.until(lambda: suspended(shop), "it waits for the signal")
    await execution.cancel()
    await execution.cancel()

    if swallow:
        assert await execution.result(timeout=20) == ["CancelledError", True]
    else:
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=20)
    steps = [row["step"] for row in await shop.query("select step from ledger order by step")]
    assert steps == ["charge", "refund"]
    assert list(await shop.client.store.breaches()) == []


async def test_what_has_not_begun_is_simply_cancelled(shop: Shop) -> None:
    task = await shop.client.start("plain", {"i": 1}, delay="1h")
    workflow = await shop.client.start("order", {"order": "x"})
    for execution in (task, workflow):
        await execution.cancel()
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=5)
        with pytest.raises(rhythm.ExecutionFinished):
            await execution.cancel()
    assert list(await shop.client.store.breaches()) == []


async def test_a_running_task_is_interrupted(shop: Shop) -> None:
    shop.worker()
    execution = await shop.client.start("slow", {"seconds": 60, "mark": "m1"})
    await shop.begun("m1")
    await execution.cancel()

    with pytest.raises(rhythm.ExecutionCancelled):
        await execution.result(timeout=20)
    assert list(await shop.client.store.breaches()) == []
