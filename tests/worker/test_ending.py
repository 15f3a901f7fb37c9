"""Loops of a worker end when they are told to, whatever else happens at that moment."""

from __future__ import annotations

import asyncio

from rhythm.model import new_id
from rhythm.store import Store
from rhythm.worker.maintenance import Maintenance


async def test_a_loop_that_is_woken_and_cancelled_at_once_ends(rhythm_url: str) -> None:
    async with await Store.connect(rhythm_url) as store:
        maintenance = Maintenance(
            store, new_id(), poll_interval=3_600, retention=None, key_window=60.0, on_moved=lambda: None
        )
        running = asyncio.create_task(maintenance.run())
        while not maintenance._news._waiters:  # noqa: ASYNC110  (nothing tells of this)
            await asyncio.sleep(0)
        maintenance.due_in(1_000)
        maintenance._news.set()
        running.cancel()

        async with asyncio.timeout(10):
            await asyncio.gather(running, return_exceptions=True)
