"""The tasks that the measured workers run."""

from __future__ import annotations

import rhythm
from rhythm.bench import clocks


@rhythm.task(queue="bench")
async def mark(i: int) -> dict[str, int]:
    clocks.mark(i)
    return {"i": i}


@rhythm.task(queue="default")
async def step(i: int) -> dict[str, int]:
    return {"i": i}
