"""A small run of `make chaos`, so that it is known to work when it is needed."""

from __future__ import annotations

import asyncio
import sys

from tests.support.processes import ROOT, Processes


async def test_a_little_chaos_breaches_nothing(processes: Processes) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--workflows", "70", "--workers", "2", "--seed", "7"]
    run = processes.start(command, cwd=ROOT)

    assert await asyncio.to_thread(run.wait, 200) == 0, run.output
    assert "0  breaches" in run.output
