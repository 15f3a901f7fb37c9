"""The heartbeat: one row per worker incarnation, from a thread and a connection of its own.

It also tells what tasks say of their progress. A busy event loop does not delay it. It stops beating when the exchange
has not turned for ``stall_timeout``, because a worker that cannot report should not keep its claims. ``confirmed_at``
is when the last beat that was confirmed had been sent: without one for too long the incarnation ends (see
``exchange``).

Whatever goes wrong in here is logged and the next beat tries again, with a connection of its own: a heartbeat that ends
by itself would cut its worker off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

from rhythm.errors import DatabaseUnavailable, IncarnationDead
from rhythm.store import Store
from rhythm.store.connection import Backoff

BEATS_PER_TIMEOUT: Final = 6
CLOSE_SECONDS: Final = 5.0  #: how long closing waits for the thread
logger = logging.getLogger("rhythm.worker")


class Heartbeat:
    """Beats for one incarnation until closed.

    ``turned_at()`` tells when the exchange last turned (time.monotonic()). ``on_first()``, when the first beat was
    confirmed, ``on_cancel(ids)`` and ``on_dead()`` are called on the event loop that made this object.
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
        on_first: Callable[[], None],
        on_cancel: Callable[[frozenset[uuid.UUID]], None],
        on_dead: Callable[[], None],
    ) -> None:
        self.interval = heartbeat_timeout / BEATS_PER_TIMEOUT
        self.confirmed_at = time.monotonic()
        self.has_beaten = False  #: a beat was confirmed: who cannot beat should claim nothing
        self._url = url
        self._incarnation = incarnation
        self._pooler = pooler
        self._timeout = heartbeat_timeout
        self._stall_timeout = stall_timeout
        self._turned_at = turned_at
        self._on_first = on_first
        self._on_cancel = on_cancel
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._notes: dict[uuid.UUID, bytes] = {}
        self._noting = threading.Lock()
        self._stop = threading.Event()
        self._stop_beating: Callable[[], object] | None = None  # set while the thread's own loop runs
        self._thread = threading.Thread(target=self._run, name="rhythm-heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_trusted(self) -> bool:
        """Whether a beat was confirmed lately enough that nobody can have taken over yet."""
        return self.trusted_seconds > 0

    @property
    def turn_seconds(self) -> float:
        """How often the exchange has to turn at least."""
        return min(self.interval, self._stall_timeout / 2)

    @property
    def trusted_seconds(self) -> float:
        """How long it will be trusted without another beat; negative when it is not."""
        return self.confirmed_at + self._timeout - 2 * self.interval - time.monotonic()

    def note(self, execution_id: uuid.UUID, progress: bytes) -> None:
        """Has the next beat tell how far an execution is (JSON). May be called from any thread."""
        with self._noting:
            self._notes[execution_id] = progress

    def stop(self) -> None:
        """Stops beating, in the middle of a call if need be."""
        self._stop.set()
        if (stop_beating := self._stop_beating) is not None:
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                stop_beating()

    def close(self) -> None:
        """Stops beating and waits for the thread to end."""
        self.stop()
        self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                asyncio.run(self._live())
            except BaseException:
                logger.exception("the heartbeat failed unexpectedly and begins anew")
                self._stop.wait(self.interval)

    async def _live(self) -> None:
        beating = asyncio.create_task(self._beat())
        self._stop_beating = partial(asyncio.get_running_loop().call_soon_threadsafe, beating.cancel)
        if self._stop.is_set():
            beating.cancel()
        await asyncio.wait([beating])
        if not beating.cancelled():
            beating.result()

    async def _beat(self) -> None:
        store: Store | None = None
        backoff = Backoff(max_seconds=self.interval)
        stalled = False
        try:
            while not self._stop.is_set():
                pause = self.interval
                behind = time.monotonic() - self._turned_at()
                if behind > self._stall_timeout:
                    if not stalled:
                        logger.error("the exchange has not turned for %.0f s: this worker stops its heartbeat", behind)
                    stalled = True
                    await asyncio.sleep(pause)
                    continue
                stalled = False
                try:
                    store = store or await self._connect()
                    await self._beat_once(store)
                    backoff.reset()
                except IncarnationDead:
                    self._stop.set()
                    self._tell(self._on_dead)
                    break
                except DatabaseUnavailable as error:
                    pause = min(backoff.next_seconds(), self.interval)
                    logger.warning("heartbeat failed: %s", error)
                except Exception:
                    logger.exception("heartbeat failed")
                    if store is not None:  # whatever it was, the next beat does not depend on it
                        await store.close()
                        store = None
                await asyncio.sleep(pause)
        finally:
            if store is not None:
                await store.close()

    async def _connect(self) -> Store:
        return await Store.connect(
            self._url, pool_min=1, pool_max=1, pooler=self._pooler, application_name="rhythm heartbeat",
            timeout=max(self.interval, 1.0),
        )  # fmt: skip

    async def _beat_once(self, store: Store) -> None:
        sent_at = time.monotonic()
        answer = await store.heartbeat(self._incarnation)
        self.confirmed_at = sent_at
        if not self.has_beaten:
            self.has_beaten = True
            self._tell(self._on_first)
        if answer.cancels:
            self._tell(self._on_cancel, answer.cancels)
        with self._noting:
            notes, self._notes = self._notes, {}
        try:
            await store.note_progress(self._incarnation, notes)
        except BaseException:
            with self._noting:
                self._notes = notes | self._notes
            raise

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            logger.debug("the worker has gone")
