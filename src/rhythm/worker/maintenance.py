"""Maintenance: what is due in the database, and what dead workers left behind.

Any worker may do any of it at any time; the SQL function elects one where that matters. This loop calls it at least
every IDLE_FACTOR poll intervals, and exactly when the next thing known to be due is due. An error, whatever it is, is
logged and the next run tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Final

from rhythm.errors import DatabaseUnavailable
from rhythm.store import Store
from rhythm.store.connection import Backoff

IDLE_FACTOR: Final = 2.0  #: maintenance runs at least every so many poll intervals
EARLIEST_SECONDS: Final = 0.001  #: shortest pause between two runs
logger = logging.getLogger("rhythm.worker")


class Maintenance:
    """The maintenance loop of one worker.

    ``retention``: seconds that finished executions are kept; ``key_window``: that idempotency keys are, at least.
    ``on_moved()`` is called when something became claimable.
    """

    def __init__(
        self,
        store: Store,
        incarnation: uuid.UUID,
        *,
        poll_interval: float,
        retention: float | None,
        key_window: float,
        on_moved: Callable[[], None],
    ) -> None:
        self._store = store
        self._incarnation = incarnation
        self._poll_interval = poll_interval
        self._retention = retention
        self._key_window = key_window
        self._on_moved = on_moved
        self._due_at = 0.0
        self._news = asyncio.Event()

    def due_in(self, seconds: float) -> None:
        """Something of this worker's own will be due then."""
        due_at = time.monotonic() + max(seconds, 0.0) + EARLIEST_SECONDS
        if due_at < self._due_at:
            self._due_at = due_at
            self._news.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        backoff = Backoff()
        while True:
            longest = self._poll_interval * IDLE_FACTOR * random.uniform(0.8, 1.0)
            self._due_at = time.monotonic() + longest
            try:
                result = await self._store.maintain(
                    self._incarnation, retention_seconds=self._retention, key_window_seconds=self._key_window
                )
                backoff.reset()
                if result.next_due_seconds is not None:
                    self.due_in(result.next_due_seconds)
                if result.moved or result.reclaimed:
                    if result.reclaimed:
                        logger.info("took over %d executions of dead workers", result.reclaimed)
                    self._on_moved()
                if result.more:
                    await asyncio.sleep(0)
                    continue
            except DatabaseUnavailable as error:
                logger.debug("maintenance failed: %s", error)
                await asyncio.sleep(backoff.next_seconds())
                continue
            except Exception:
                logger.exception("maintenance failed")
                await asyncio.sleep(backoff.next_seconds())
            await self._sleep()

    async def _sleep(self) -> None:
        while (left := self._due_at - time.monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()
