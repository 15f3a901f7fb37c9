"""Tasks of every kind say how far they are, while they run."""

from __future__ import annotations

import uuid

import pytest

import rhythm
from rhythm.errors import InvalidInput, PayloadTooLarge
from tests.support.commands import Rhythm
from tests.worker.conftest import Shop

TASKS = """
import asyncio, time
import rhythm

async def loops(context: rhythm.TaskContext) -> None:
    context.progress({"done": 1})
    context.progress({"done": 2, "of": 3})
    await asyncio.Event().wait()

def threads(context: rhythm.TaskContext) -> None:
    context.progress({"done": 2, "of": 3})
    while True:
        context.heartbeat()
        time.sleep(0.01)

def processes(context: rhythm.TaskContext) -> None:
    context.progress({"done": 2, "of": 3})
    time.sleep(60)

loops, threads, processes = rhythm.task(loops), rhythm.task(threads), rhythm.task(process=True)(processes)
"""


@pytest.mark.parametrize("kind", ["loops", "threads", "processes"])
async def test_a_running_task_says_how_far_it_is(shop: Shop, kind: str) -> None:
    (shop.folder / "steps.py").write_text(TASKS)
    shop.worker(app="steps")
    execution = await shop.client.start(kind)

    async def said() -> bool:
        await execution.refresh()
        return bool(execution.progress == {"done": 2, "of": 3})

    await shop.until(said, "progress")
    shown = Rhythm(shop.folder, {"RHYTHM_DATABASE_URL": shop.url})("show", str(execution.id), code=0).out
    await execution.cancel()

    assert execution.status == "running"
    assert 'progress  {"done": 2, "of": 3} (' in " ".join(shown.split()).replace("progress ", "progress  ")


def test_progress_is_small_json_and_costs_nothing_outside_of_workers() -> None:
    said: list[bytes] = []
    context = rhythm.TaskContext(uuid.uuid4(), note=said.append)
    context.progress([1, None])
    rhythm.TaskContext().progress("x")

    assert said == [b"[1,null]"]
    with pytest.raises(PayloadTooLarge):
        context.progress("x" * 4096)
    with pytest.raises(InvalidInput):
        context.progress(float("nan"))
