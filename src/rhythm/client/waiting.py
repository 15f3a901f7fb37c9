"""Waiting for outcomes: all waits of one client share one question to the database.

Somebody who waits registers the id; one loop asks for all registered ids at once, soon after the first
registration and then at growing intervals (WAIT_FIRST to WAIT_LONGEST seconds). An answer is final, so
nothing can be missed between two questions. When the database is away the loop keeps asking: a wait ends
by its outcome, by its own timeout, or because the client is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

from rhythm.errors import DatabaseUnavailable, RhythmError

if TYPE_CHECKING:
    from rhythm.model import OutcomeInfo
    from rhythm.store import Store

WAIT_FIRST = 0.002  #: seconds until the first question
WAIT_LONGEST = 0.25  #: seconds between two questions, at most
WAIT_GROWTH = 1.4
IDS_PER_QUESTION = 5_000


class OutcomeWaits:
    """The outstanding waits of one client."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waits: dict[uuid.UUID, list[asyncio.Future[OutcomeInfo]]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def outcome(self, execution_id: uuid.UUID) -> OutcomeInfo:
        """The outcome of an execution that is known to exist, once there is one."""
        future: asyncio.Future[OutcomeInfo] = asyncio.get_running_loop().create_future()
        self._waits.setdefault(execution_id, []).append(future)
        self._news.set()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._ask_until_answered(), name="rhythm-outcome-waits")
        try:
            return await future
        finally:
            waiting = self._waits.get(execution_id)
            if waiting is not None and future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waits[execution_id]

    async def close(self) -> None:
        """Ends every wait with an error."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        for future in [future for waiting in self._waits.values() for future in waiting]:
            if not future.done():
                future.set_exception(RhythmError("the client was closed while this wait was under way"))

    async def _ask_until_answered(self) -> None:
        pause = WAIT_FIRST
        while self._waits:
            if self._news.is_set():
                self._news.clear()
                pause = WAIT_FIRST
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
            pause = min(pause * WAIT_GROWTH, WAIT_LONGEST)
            ids = list(self._waits)
            for first in range(0, len(ids), IDS_PER_QUESTION):
                await self._ask(ids[first : first + IDS_PER_QUESTION])

    async def _ask(self, ids: list[uuid.UUID]) -> None:
        try:
            for execution_id, outcome in (await self._store.outcomes(ids)).items():
                if outcome is not None:  # None: it exists and has not finished
                    self._answer(execution_id, outcome)
        except DatabaseUnavailable:
            return  # asked again after the pause
        except RhythmError as error:
            for execution_id in ids:
                self._answer(execution_id, error)

    def _answer(self, execution_id: uuid.UUID, answer: OutcomeInfo | RhythmError) -> None:
        for future in self._waits.get(execution_id, ()):
            if future.done():
                continue
            if isinstance(answer, RhythmError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
