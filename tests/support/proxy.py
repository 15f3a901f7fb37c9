"""A network that can be cut: a TCP proxy between a process and PostgreSQL, in the test's event loop.

async with Proxy(url) as proxy:
    worker = processes.worker(proxy.url, …)
    proxy.silence()                    # nothing gets through, no connection ends: a partition
    proxy.silence("answers")           # half-open: what is asked arrives, no answer comes back
    proxy.cut()                        # connections end, new ones are refused
    proxy.delay(0.2)                   # everything takes so long, in each direction
    proxy.mend()                       # as at first; what was held back arrives now, in order
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

CHUNK_BYTES = 64 * 1024
Direction = Literal["questions", "answers"]


class Proxy:
    """Listens on a port of 127.0.0.1 and passes on to the server of ``url``, by TCP or by its socket's folder."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._folder = parse_qs(parts.query).get("host", [None])[0]
        self._host, self._port = parts.hostname, parts.port or 5432
        self._parts = parts
        self._delay = 0.0
        self._open = {"questions": asyncio.Event(), "answers": asyncio.Event()}
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.bytes_passed = 0

    async def __aenter__(self) -> Proxy:
        self.mend()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = self._parts.username or "postgres"
        self.url = urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{port}", query=""))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def silence(self, *directions: Direction) -> None:
        """Passes nothing on in these directions (none given: in both), and holds it back."""
        for direction in directions or ("questions", "answers"):
            self._open[direction].clear()

    def cut(self) -> None:
        """Ends all connections and refuses new ones."""
        self._refusing = True
        self._hang_up()

    def delay(self, seconds: float) -> None:
        """Holds everything back for so long, each chunk in each direction."""
        self._delay = seconds

    def mend(self) -> None:
        """Passes everything on again, with what was held back first."""
        self._refusing = False
        self._delay = 0.0
        for direction in self._open.values():
            direction.set()

    def _hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        if self._folder is not None:
            server = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.{self._port}")
        else:
            server = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, server[1]}
        if self._refusing:  # cut while it was being opened
            self._hang_up()
        both = (self._pass_on(reader, server[1], "questions"), self._pass_on(server[0], writer, "answers"))
        self._tasks |= {asyncio.create_task(one) for one in both}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay)
                await self._open[direction].wait()
                writer.write(chunk)
                self.bytes_passed += len(chunk)
                await writer.drain()
        # an end is news, too: in a partition it does not get through
        await self._open[direction].wait()
        writer.close()
        self._writers.discard(writer)
