"""Wake-ups: the hint that something may be there to claim, over LISTEN on a connection of its own.

Nothing depends on it: a notification that is lost, late or superfluous costs a poll interval or one exchange. The
listener reconnects by itself, with backoff, and gives one hint whenever it has (re)connected, for what it may have
missed. Through a pooler in transaction mode LISTEN does not work: give it a direct URL (`listen_url`), or none.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import asyncpg

from rhythm.store.connection import CONNECT_TIMEOUT_SECONDS, Backoff, mask_url

CHANNEL = "rhythm."  #: and the id of the incarnation
LIVENESS_SECONDS = 30.0  #: between checks that the connection still answers

logger = logging.getLogger("rhythm.store")


class Wakeups:
    """Calls `hint()` on the event loop when this incarnation should look for work.

    `async with Wakeups(url, incarnation, hint):` listens until the block ends. Entering never waits for the database
    and never raises for its sake.
    """

    def __init__(
        self,
        url: str,
        incarnation: uuid.UUID,
        hint: Callable[[], None],
        *,
        application_name: str = "rhythm listen",
    ) -> None:
        self._url = url
        self._channel = f"{CHANNEL}{incarnation}"
        self._hint = hint
        self._application_name = application_name
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.connected = asyncio.Event()  #: set while it listens

    async def __aenter__(self) -> Wakeups:
        self._task = asyncio.create_task(self._run(), name="rhythm wakeups")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None, "left without having been entered"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            connection: asyncpg.Connection | None = None
            try:
                connection = await asyncpg.connect(
                    self._url,
                    timeout=CONNECT_TIMEOUT_SECONDS,
                    command_timeout=CONNECT_TIMEOUT_SECONDS,
                    statement_cache_size=0,
                    server_settings={"application_name": self._application_name},
                )
                await self._listen(connection, backoff)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                logger.debug("url=%s listener lost: %s", mask_url(self._url), error)
            except Exception:
                logger.exception("url=%s listener failed", mask_url(self._url))
            finally:
                self.connected.clear()
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(backoff.next_seconds())

    async def _listen(self, connection: asyncpg.Connection, backoff: Backoff) -> None:
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        await connection.add_listener(self._channel, lambda *_: self._hint())
        backoff.reset()
        self.connected.set()
        self._hint()
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(LIVENESS_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                await connection.execute("select 1")
