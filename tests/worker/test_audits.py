"""Asking what is held, again and again and with its own answers lost, takes nothing away and runs nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

import rhythm
from rhythm import faults
from rhythm.tasks import Task
from rhythm.worker import Worker, exchange

FLOW = """
workflow(ctx, inputs) {
  const first = await task("audited", { i: inputs.i })
  const rest = await Promise.all([1, 2, 3].map(i => task("audited", { i: inputs.i + i * 1000 })))
  return [first, ...rest]
}
"""


def audited(calls: Counter[int]) -> Task[..., object]:
    async def run(i: int) -> int:
        calls[i] += 1
        await asyncio.sleep(0.001 * (i % 7))
        return i

    return Task(run, name="audited", queue="default", retries=0, retry=rhythm.Retry(), timeout_seconds=None, priority=0)


@pytest.mark.parametrize("point", ["none", *(f"held.{moment}" for moment in faults.MOMENTS)])
async def test_asking_what_is_held_in_the_middle_of_work_changes_nothing(
    rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(exchange, "AUDIT_SECONDS", 0.005)
    (tmp_path / "flow.flow").write_text(FLOW)
    calls = Counter[int]()
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        ids = await client.start_many([rhythm.Start("flow", {"i": i}) for i in range(20)])
        with faults.active(f"{point}:2:drop" if point in faults.POINTS else "signal.after:1:drop") as fail_point:
            worker = Worker(database_url=rhythm_url, tasks=[audited(calls)], poll_interval=0.05)
            running = asyncio.create_task(worker.run())
            results = [await client.wait(id_, timeout=60) for id_ in ids]
            await worker.stop()
            await running

        assert [[i, i + 1000, i + 2000, i + 3000] for i in range(20)] == results
        assert fail_point.acted == (point != "none")
        assert set(calls.values()) == {1}
        assert [] == list(await client.store.breaches())
