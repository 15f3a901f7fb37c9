"""The tasks that the measured workers run."""

from __future__ import annotations

import rhythm
from benchmarks import clocks


@rhythm.task(queue="bench")
async def mark(i: int) -> dict:
    clocks.mark(i)
    return {"i": i}


@rhythm.task(queue="default")
async def step(i: int) -> dict:
    return {"i": i}
