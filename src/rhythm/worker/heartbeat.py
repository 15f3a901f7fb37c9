"""The heartbeat: one row per worker incarnation, from a thread and a connection of its own.

A busy event loop does not delay it. It stops beating when the exchange has not turned for ``stall_timeout``, because a
worker that cannot report should not keep its claims. ``confirmed_at`` is when the last beat that was confirmed had been
sent: without one for too long the worker sends nothing more (see ``exchange``).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

from rhythm.errors import DatabaseUnavailable, IncarnationDead, RhythmError
from rhythm.store import Store
from rhythm.store.connection import Backoff

BEATS_PER_TIMEOUT: Final = 6
logger = logging.getLogger("rhythm.worker")


class Heartbeat:
    """Beats for one incarnation until closed.

    ``turned_at()`` tells when the exchange last turned (time.monotonic()). ``on_cancel(ids)`` and ``on_dead()`` are
    called on the event loop that made this object.
    """

    def __init__(
        self,
        url: str,
        incarnation: uuid.UUID,
        *,
        pooler: bool,
        heartbeat_timeout: float,
        stall_timeout: float,
        turned_at: Callable[[], float],
        on_cancel: Callable[[frozenset[uuid.UUID]], None],
        on_dead: Callable[[], None],
    ) -> None:
        self.interval = heartbeat_timeout / BEATS_PER_TIMEOUT
        self.confirmed_at = time.monotonic()
        self._url = url
        self._incarnation = incarnation
        self._pooler = pooler
        self._timeout = heartbeat_timeout
        self._stall_timeout = stall_timeout
        self._turned_at = turned_at
        self._on_cancel = on_cancel
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rhythm-heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_trusted(self) -> bool:
        """Whether a beat was confirmed lately enough that nobody can have taken over yet."""
        return time.monotonic() - self.confirmed_at < self._timeout - 2 * self.interval

    def close(self) -> None:
        """Stops beating."""
        self._stop.set()
        self._thread.join(timeout=self.interval + 5.0)

    def _run(self) -> None:
        asyncio.run(self._beat())

    async def _beat(self) -> None:
        store: Store | None = None
        backoff = Backoff(max_seconds=self.interval)
        stalled = False
        while not self._stop.is_set():
            pause = self.interval
            behind = time.monotonic() - self._turned_at()
            if behind > self._stall_timeout:
                if not stalled:
                    logger.error("the exchange has not turned for %.0f s: this worker stops its heartbeat", behind)
                stalled = True
            else:
                stalled = False
                try:
                    if store is None:
                        store = await Store.connect(
                            self._url, pool_min=1, pool_max=1, pooler=self._pooler, application_name="rhythm heartbeat",
                            timeout=max(self.interval, 1.0),
                        )  # fmt: skip
                    sent_at = time.monotonic()
                    answer = await store.heartbeat(self._incarnation)
                    self.confirmed_at = sent_at
                    backoff.reset()
                    if answer.cancels:
                        self._tell(self._on_cancel, answer.cancels)
                except IncarnationDead:
                    self._tell(self._on_dead)
                    break
                except DatabaseUnavailable as error:
                    pause = min(backoff.next_seconds(), self.interval)
                    logger.warning("heartbeat failed: %s", error)
                except RhythmError:
                    logger.exception("heartbeat failed")
            await asyncio.to_thread(self._stop.wait, pause)
        if store is not None:
            await store.close()

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            logger.debug("the worker has gone")
