"""The portal: an event loop in a thread of its own, with an open client on it, for callers without an event loop.

In a forked child the thread does not exist. There the portal is abandoned: its sockets are replaced by /dev/null, so
that the child holds none of the parent's connections open and can write nothing into them, and the child's copy of the
loop's selector is closed, because the kernel's object behind it is shared with the parent. The rest is kept as it is
until the child ends: what its parts do when they are collected was meant for a loop that runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import selectors
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from rhythm.client.client import Client
from rhythm.config import Config
from rhythm.errors import RhythmError

T = TypeVar("T")


class Portal:
    """A running portal. Making one waits until its client is open, and raises what opening it raises."""

    def __init__(self, config: Config) -> None:
        self.client = Client(config)
        self._selector = selectors.DefaultSelector()  # our own, not uvloop's: a forked child has to close it
        self._lock = threading.Lock()
        self._closed = False
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="rhythm-portal", daemon=True)
        _portals.add(self)
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self.close()
            raise

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self._selector)) as runner:
            self._loop = runner.get_loop()
            runner.run(self._live())

    async def _live(self) -> None:
        try:
            await self.client.open()
        except BaseException as error:  # noqa: BLE001  (carried over to the caller)
            self._opened.set_exception(error)
        else:
            self._opened.set_result(None)
            await self._end.wait()
        await self.client.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it on the loop and waits for it. Raises what it raises, and RhythmError once the portal is closed."""
        with self._lock:
            if self._closed:
                work.close()
                raise RhythmError("this client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RhythmError("this client was closed while this call was under way") from None
        except BaseException:
            future.cancel()  # an interrupted caller leaves nothing running behind its back
            raise

    def close(self) -> None:
        """Disconnects and ends the thread; calls under way end with RhythmError."""
        with self._lock:
            if not self._closed and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._end.set)
            self._closed = True
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child: lets go of everything that belongs to the parent."""
        sockets = [key.fd for key in (self._selector.get_map() or {}).values()]
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in sockets:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
        self._selector.close()
        _abandoned.append(self)


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()
_abandoned: list[Portal] = []


def _after_fork() -> None:
    for portal in list(_portals):
        portal.abandon()
    _portals.clear()


os.register_at_fork(after_in_child=_after_fork)
