"""A client's connection is cut, or the client dies, around each call: what was accepted is there once."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

import rhythm
from rhythm import faults
from rhythm.model import TaskRegistration, WorkerRegistration, new_id
from tests.support.processes import Processes

SOURCE = "workflow(ctx, inputs) { return await signal('go') }"
CALLER = """
import asyncio, sys, uuid
import rhythm

async def main(url, execution_id):
    async with rhythm.connect(url) as client:
        await client.start("work", {"a": 1}, id=uuid.UUID(execution_id))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", faults.MOMENTS)
async def test_a_start_whose_connection_is_cut_is_repeated_and_happens_once(rhythm_url: str, moment: str) -> None:
    count = 1
    while True:
        with faults.active(f"start_many.{moment}:{count}:drop") as point:
            async with rhythm.connect(rhythm_url) as client:
                for i in range(3):
                    await client.start("work", {"i": i}, key=f"{count}-{i}")
                started = await client.list(limit=1000)
        if not point.acted:
            break
        count += 1

    assert count == 4
    assert len(started) == 3 * count
    assert len({execution.info.key for execution in started if execution.info}) == 3 * count


@pytest.mark.parametrize("moment", faults.MOMENTS)
async def test_a_signal_whose_connection_is_cut_is_repeated_and_arrives_once(
    rhythm_url: str, tmp_path: Path, moment: str
) -> None:
    (tmp_path / "waits.flow").write_text(SOURCE)
    count = 1
    while True:
        with faults.active(f"signal.{moment}:{count}:drop") as point:
            async with rhythm.connect(rhythm_url) as client:
                await client.publish(tmp_path)
                execution = await client.start("waits")
                for i in range(3):
                    await execution.signal("go", i)
                (wait,) = await client.store._database.fetch(
                    "select unread_signals from rhythm.waits where id = $1", execution.id
                )
        assert wait["unread_signals"] == 3
        if not point.acted:
            break
        count += 1

    assert count == 4


@pytest.mark.parametrize("moment", faults.MOMENTS)
async def test_a_start_by_a_caller_that_died_may_be_repeated_with_its_id(
    rhythm_url: str, processes: Processes, moment: str
) -> None:
    execution_id = new_id()
    dead = processes.start(
        [sys.executable, "-c", CALLER, rhythm_url, str(execution_id)],
        env={faults.VARIABLE: f"start_many.{moment}:1:kill"},
    )
    assert await asyncio.to_thread(dead.wait) == -signal.SIGKILL, dead.output
    async with rhythm.connect(rhythm_url) as client:
        again = await client.start("work", {"a": 1}, id=execution_id)
        known = await client.list()

    assert again.id == execution_id
    assert [execution_id] == [execution.id for execution in known]


@pytest.mark.parametrize("moment", faults.MOMENTS)
@pytest.mark.parametrize("call", ["retry", "start_again"])
async def test_a_retry_whose_connection_is_cut_is_repeated_and_happens_once(
    rhythm_url: str, call: str, moment: str
) -> None:
    tasks = [TaskRegistration("work")]
    with faults.active(f"{call}.{moment}:1:drop") as point:
        async with rhythm.connect(rhythm_url) as client:
            await client.store.register_worker(WorkerRegistration(new_id(), "h", 1, tasks=tasks))
            execution = await client.start("work")
            await execution.cancel()
            retried = await execution.retry(from_start=call == "start_again")
            statuses = sorted(found.status for found in await client.list())

    assert point.acted
    assert (retried.id == execution.id) is (call == "retry")
    assert (["pending"] if call == "retry" else ["cancelled", "pending"]) == statuses


@pytest.mark.parametrize("moment", faults.MOMENTS)
@pytest.mark.parametrize("call", ["cancel", "terminate"])
async def test_a_cancel_whose_connection_is_cut_is_repeated(rhythm_url: str, call: str, moment: str) -> None:
    with faults.active(f"{call}.{moment}:1:drop") as point:
        async with rhythm.connect(rhythm_url) as client:
            execution = await client.start("work")
            await execution.cancel(force=call == "terminate")
            status = (await execution.refresh()).status
            with pytest.raises(rhythm.ExecutionFinished):
                await execution.cancel()

    assert point.acted
    assert "cancelled" == status
