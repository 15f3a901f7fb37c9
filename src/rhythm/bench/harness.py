"""Scratch databases, worker processes, figures."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from rhythm.bench import clocks
from rhythm.client import Client
from rhythm.client import connect as connect_client
from rhythm.errors import ConfigurationError, RhythmError
from rhythm.store.connection import translate

WAIT_SECONDS = 300.0  #: for anything measured to come to its end
STOP_SECONDS = 20.0  #: for a worker to drain
LOOK_SECONDS = 0.05  #: between two looks whether something is done
LOG_BYTES = 3000  #: of the workers' log, shown when something failed
WORKFLOWS = Path(__file__).parent / "workflows"


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured, once per repeat."""

    name: str
    unit: str  #: "/s", "ms", "x" (a ratio), "bytes", "MiB", "%", …
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)


class BenchFailed(RhythmError):
    """Something measured did not come to its end."""


class Harness:
    """One run of measures against one PostgreSQL server.

    ``url``: any database of it, whose role may create databases. ``folder``: for logs and clocks. ``said``: called
    with each figure as it is measured.
    """

    def __init__(self, url: str, folder: Path, said: Callable[[str, float, str], None]) -> None:
        self.url = url
        self.folder = folder
        self.figures: dict[str, Figure] = {}
        self._said = said
        os.environ[clocks.VARIABLE] = str(folder / "clocks")

    def note(self, name: str, value: float, unit: str) -> float:
        """Records one value of a figure, and returns it."""
        self.figures.setdefault(name, Figure(name, unit)).values.append(value)
        self._said(name, value, unit)
        return value

    @asynccontextmanager
    async def empty_database(self) -> AsyncIterator[str]:
        """A database without anything in it, dropped at the end. Yields its URL.

        Raises ConfigurationError when the role may not create databases, DatabaseUnavailable.
        """
        name = f"rhythm_bench_{uuid.uuid4().hex[:12]}"
        await self._administrate(f'create database "{name}"')
        try:
            yield urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        finally:
            await self._administrate(f'drop database "{name}" with (force)')

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[Client, Database]]:
        """A database with Rhythm's schema and the measured workflows: a client, and the database itself."""
        async with self.empty_database() as url, connect_client(url) as client:
            await client.migrate()
            await client.publish(WORKFLOWS)
            connection = await asyncpg.connect(url)
            try:
                yield client, Database(self, url, connection)
            finally:
                await connection.close()

    async def _administrate(self, statement: str) -> None:
        try:
            connection = await asyncpg.connect(self.url)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise translate(error, self.url) or error from None
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            raise ConfigurationError(
                "this role may not create databases, and measuring is done in a database of its own: log in as a role "
                "with the right createdb, or name another server with --database-url"
            ) from None
        finally:
            await connection.close()

    def worker_log(self) -> str:
        """The end of what the workers said."""
        try:
            return (self.folder / "workers.log").read_text(errors="replace")[-LOG_BYTES:]
        except FileNotFoundError:
            return ""


class Database:
    """One scratch database: the workers on it, and what is read from its tables."""

    def __init__(self, harness: Harness, url: str, connection: asyncpg.Connection[Any]) -> None:
        self.url = url
        self.connection = connection
        self._harness = harness

    @asynccontextmanager
    async def workers(self, count: int = 1, *arguments: str) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
        """Worker processes that have registered, drained at the end. Raises BenchFailed when they do not come up."""
        before = await self.alive()
        with self._processes(count, *arguments) as running:
            await self.until(lambda: self._registered(before + count, running), "the workers' start")
            yield running

    async def _registered(self, count: int, running: list[subprocess.Popen[bytes]]) -> bool:
        if any(process.poll() is not None for process in running):
            raise BenchFailed(f"a worker ended at its start\n{self._harness.worker_log()}")
        return await self.alive() >= count

    async def alive(self) -> int:
        """Registered workers."""
        return int(await self.connection.fetchval("select count(*) from rhythm.workers"))

    @contextmanager
    def _processes(self, count: int, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        environment = {**os.environ, "RHYTHM_DATABASE_URL": self.url}
        command = [sys.executable, "-m", "rhythm", "worker", "--app", "rhythm.bench.workload", *arguments]
        folder = self._harness.folder
        running: list[subprocess.Popen[bytes]] = []
        try:
            with open(folder / "workers.log", "ab") as log:
                running += [
                    subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log) for _ in range(count)
                ]
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    async def until(self, true: Callable[[], Awaitable[object]], what: str) -> None:
        """Waits for something to become true. Raises BenchFailed after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not await true():
            if time.monotonic() > deadline:
                raise BenchFailed(f"{what}: not within {WAIT_SECONDS:.0f} s\n{self._harness.worker_log()}")
            await asyncio.sleep(LOOK_SECONDS)

    async def idle_again(self, what: str) -> None:
        """Waits until no execution may be claimed and none is running."""

        async def idle() -> bool:
            return not await self.connection.fetchval(
                "select exists (select from rhythm.ready) or exists (select from rhythm.claims)"
            )

        await self.until(idle, what)

    async def spent(self, since: int = 0) -> float:
        """Seconds from the first claim to the last stored outcome of executions younger than ``since`` (their seq)."""
        return float(
            await self.connection.fetchval(
                "select extract(epoch from max(o.finished_at) - min(o.started_at))::float8 from rhythm.outcomes o "
                "join rhythm.executions e on e.id = o.id where e.seq > $1",
                since,
            )
        )

    async def youngest(self) -> int:
        """The seq of the youngest execution; 0: there is none."""
        return int(await self.connection.fetchval("select coalesce(max(seq), 0) from rhythm.executions"))

    async def settled(self) -> None:
        """Vacuumed, analysed and written out, so that what was stored before is not paid for in what is measured."""
        await self.connection.execute("vacuum analyze")
        await self.connection.execute("checkpoint")
