"""The health port: whether this worker can do its work, for whoever watches it (Kubernetes, a load balancer).

Any GET is answered with 200 "ok", or 503 and the reason. It runs on an event loop of its own thread where a worker
runs, so that a task that blocks the worker's loop is told as such instead of being met with silence. Nothing is asked
of the database: a worker talks to it all the time, and knows when it was last answered.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rhythm.errors import ConfigurationError

REQUEST_BYTES_MAX: Final = 8 * 1024
REQUEST_SECONDS: Final = 5.0  #: for a request to arrive and its answer to leave
CONNECTIONS_MAX: Final = 32  #: at a time; more are closed unanswered

Check = Callable[[], Awaitable[str | None]]


class HealthServer:
    """Answers on a port of all interfaces. ``check()`` gives what is wrong, None: nothing."""

    def __init__(self, port: int, check: Check) -> None:
        self.port = port  #: the one it listens on, once started; 0 means any free one
        self._check = check
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens. Raises ConfigurationError when the port is not to be had."""
        try:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            listening = socket.create_server(("", self.port), family=family, dualstack_ipv6=dual)
            self._server = await asyncio.start_server(self._answer, sock=listening, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on the health port {self.port}: {error.strerror}") from None
        self.port = listening.getsockname()[1]

    async def close(self) -> None:
        """Listens no more; connections that are open are cut."""
        if self._server is not None:
            self._server.close()
        for answering in self._answering:
            answering.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "the server calls this in a task"
        self._answering.add(task)
        try:
            if len(self._answering) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._response(head.split(b" ", 1)[0]))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked does not want to know
        finally:
            self._answering.discard(task)
            writer.close()

    async def _response(self, method: bytes) -> bytes:
        if method not in (b"GET", b"HEAD"):
            status, text = "405 Method Not Allowed", "GET only"
        elif (problem := await self._check()) is None:
            status, text = "200 OK", "ok"
        else:
            status, text = "503 Service Unavailable", problem
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == b"HEAD" else body)


@contextmanager
def serving(port: int, problem: Callable[[], str | None]) -> Iterator[int]:
    """A health port on a thread of its own until the block ends; the port. Raises ConfigurationError."""

    async def check() -> str | None:
        return problem()

    server = HealthServer(port, check)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rhythm-health", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server.port
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
