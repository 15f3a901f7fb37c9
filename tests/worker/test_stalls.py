"""Workers that stand still: how long they keep what they hold, who takes over, and that they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import rhythm
from tests.support.processes import Process
from tests.worker.conftest import Shop

TASKS = """
import ctypes, pathlib, time
import rhythm

def _block(file):
    pathlib.Path(file + ".begun").touch()
    while not pathlib.Path(file + ".go_on").exists():
        time.sleep(0.01)

@rhythm.task
async def blocks_loop(context: rhythm.TaskContext, file: str) -> int:
    if context.attempt == 1:
        _block(file)
    return context.attempt

@rhythm.task
def holds_lock(context: rhythm.TaskContext, file: str) -> int:
    if context.attempt == 1:
        pathlib.Path(file + ".begun").touch()
        ctypes.PyDLL(None).sleep(5)
    return context.attempt

@rhythm.task
def in_thread(context: rhythm.TaskContext, file: str) -> int:
    if context.attempt == 1:
        _block(file)
    return context.attempt

@rhythm.task(timeout="500ms")
async def past_its_timeout(file: str) -> None:
    _block(file)

@rhythm.task
async def quick(i: int) -> int:
    return i
"""


class Standing:
    """The shop with these tasks, and workers for them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.file = shop.folder / "block"
        (shop.folder / "standing.py").write_text(TASKS)
        self.go_on = self._path("go_on")
        self.begun = self._path("begun")

    def _path(self, suffix: str) -> Path:
        return self.file.with_suffix(f".{suffix}")

    async def worker(self, *arguments: str) -> Process:
        options = ("--heartbeat-timeout", "2s", "--poll-interval", "100ms", *arguments)
        worker = self.shop.processes.worker(self.shop.url, *options, app=["standing"], cwd=self.shop.folder)
        await asyncio.to_thread(worker.wait_for_output, "ready")
        return worker

    async def start(self, name: str) -> rhythm.Execution[object]:
        """Starts a task and waits until it stands."""
        execution = await self.shop.client.start(name, {"file": str(self.file)})
        await self.until(self.begun.exists)
        return execution

    async def until(self, holds: Callable[[], bool]) -> None:
        async def look() -> bool:
            return holds()

        await self.shop.until(look, "the file is there")


@pytest.fixture
def standing(shop: Shop) -> Standing:
    return Standing(shop)


async def test_a_blocked_loop_keeps_its_claims_while_the_heartbeat_goes_on(standing: Standing) -> None:
    await standing.worker()
    execution = await standing.start("blocks_loop")
    other = await standing.worker()
    for i in range(3):  # the other one has seen to everything that is due meanwhile
        later = await standing.shop.client.start("quick", {"i": i}, delay="1100ms")
        assert await later.result(timeout=20) == i
    standing.go_on.touch()

    assert await execution.result(timeout=20) == 1
    assert (await execution.refresh()).lost == 0
    assert other.alive


@pytest.mark.parametrize("how", ["loop", "lock", "stop"])
async def test_who_stands_for_too_long_is_taken_over_and_begins_anew(standing: Standing, how: str) -> None:
    if how == "loop":
        (standing.shop.folder / "rhythm.toml").write_text('stall_timeout = "1s"\n')
    first = await standing.worker()
    execution = await standing.start({"loop": "blocks_loop", "lock": "holds_lock", "stop": "in_thread"}[how])
    if how == "stop":
        first.freeze()
    second = await standing.worker()

    assert await execution.result(timeout=30) == 2
    if how == "stop":
        first.thaw()
    standing.go_on.touch()
    await asyncio.to_thread(first.wait_for_output, "(?s)ready.*gone.*ready")
    second.terminate()
    await asyncio.to_thread(second.wait)
    again = await standing.shop.client.start("quick", {"i": 7})
    assert await again.result(timeout=20) == 7
    info = await execution.refresh()
    assert (info.status, info.attempts, info.lost) == ("completed", 2, 1)
    assert (how == "loop") == ("stops its heartbeat" in first.output)
    assert list(await standing.shop.client.store.breaches()) == []


async def test_an_attempt_past_its_timeout_is_ended_whatever_its_worker_says(standing: Standing) -> None:
    first = await standing.worker("--heartbeat-timeout", "60s")
    execution = await standing.start("past_its_timeout")
    await standing.worker("--heartbeat-timeout", "60s")
    await standing.shop.query("update rhythm.clock set moved_by = '10s'")

    with pytest.raises(rhythm.ExecutionFailed) as failed:
        await execution.result(timeout=30)
    assert failed.value.type == "timeout"
    standing.go_on.touch()
    await asyncio.to_thread(first.wait_for_output, f"execution_id={execution.id}.*refused")
    assert (await execution.refresh()).attempts == 1
    assert list(await standing.shop.client.store.breaches()) == []


async def test_sigterm_sent_again_ends_a_worker_whose_loop_is_blocked(standing: Standing) -> None:
    worker = await standing.worker()
    await standing.start("blocks_loop")

    def ended() -> bool:
        if worker.alive:
            worker.terminate()  # two of them in no time may arrive as one
        return not worker.alive

    await standing.until(ended)

    assert await asyncio.to_thread(worker.wait) == 143
