"""Connections to Postgres: a pool, and its errors in Rhythm's own terms.

Nothing here or above uses session state, so any pooler may stand in between; with `pooler=True` prepared statements
are not kept, which is what PgBouncer in transaction mode needs.

A call that fails because the database went away raises DatabaseUnavailable. Whether a write was committed is then
unknown; every function of the store may be repeated unchanged (see their docstrings). Only what Postgres itself has
rolled back for a reason that passes (deadlock, serialization failure) is repeated here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from rhythm import faults
from rhythm.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    ExecutionFinished,
    ExecutionNotFound,
    IncarnationDead,
    InvalidInput,
    RetryRefused,
    RhythmError,
    SchemaMismatch,
    SignalRefused,
    StartRefused,
)

CONNECT_TIMEOUT_SECONDS = 10.0  #: for one connection to be made
CALL_TIMEOUT_SECONDS = 30.0  #: for one call of a function
CLOSE_TIMEOUT_SECONDS = 2.0
IDLE_SECONDS_MAX = 300.0  #: after which a connection is not trusted to be alive still
REPEATS_MAX = 5  #: of a call that Postgres rolled back for a reason that passes
BACKOFF_FIRST_SECONDS = 0.1
WRITE_TURNS = 5  #: of the event loop, after which what was written has left this process (fail points)
BACKOFF_MAX_SECONDS = 5.0

PASSING = {"40001", "40P01"}  # serialization failure, deadlock: rolled back, may be repeated
_UNAVAILABLE_CLASSES = {"08", "53", "57", "58"}  # connection, resources, operator intervention, system error
_UNAVAILABLE = {"25006", "55P03"}  # read only (after a failover), lock not available
_NO_SCHEMA = {"3F000", "42883", "42P01", "42703"}  # schema, function, table or column that is not there
_NO_STATEMENT = {"26000", "42P05"}  # a prepared statement that is not there, or is there already

logger = logging.getLogger("rhythm.store")


class Executor(Protocol):
    """What the store needs of a connection, or of a pool."""

    async def execute(self, query: str, *arguments: Any) -> Any: ...

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]: ...

    async def fetchrow(self, query: str, *arguments: Any) -> Any: ...

    async def fetchval(self, query: str, *arguments: Any) -> Any: ...


class Backoff:
    """Waiting times between attempts to reach something: doubled each time, half of it random."""

    def __init__(self, first_seconds: float = BACKOFF_FIRST_SECONDS, max_seconds: float = BACKOFF_MAX_SECONDS) -> None:
        self._first = self._next = first_seconds
        self._max = max_seconds

    def reset(self) -> None:
        """To be called when it was reached."""
        self._next = self._first

    def next_seconds(self) -> float:
        """How long to wait now."""
        delay, self._next = self._next, min(self._next * 2, self._max)
        return delay * random.uniform(0.5, 1.0)


def mask_url(url: str) -> str:
    """The URL without its password, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.netloc.rpartition("@")[0].partition(":")
        netloc = f"{user[0]}{':***' if user[1] else ''}@{host}" if user[0] else host
        query = urlencode([(k, "***" if "password" in k.lower() else v) for k, v in parse_qsl(parts.query)], safe="*/")
        return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"
    except ValueError:
        return "(a URL that cannot be read)"


def translate(error: BaseException, url: str) -> Exception | None:
    """The error of Rhythm for one of the driver, or None if it is not one that Rhythm has a word for."""
    if isinstance(error, RhythmError):
        return None
    where = f"the database at {mask_url(url)}"
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and state:
        return translate_state(state, str(error), getattr(error, "detail", None), where)
    return translate_other(error, where, url)


def translate_other(error: BaseException, where: str, url: str = "") -> Exception | None:
    """The same for an error that did not come from PostgreSQL."""
    if isinstance(error, asyncpg.DataError | UnicodeEncodeError):
        return InvalidInput(f"a value cannot be stored: {error}")
    if isinstance(error, TimeoutError):
        return DatabaseUnavailable(f"{where} did not answer in time")
    closed = isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)  # the pool, or the connection
    if closed or isinstance(error, OSError | asyncpg.InternalClientError | EOFError):
        reason = str(error).replace(url, mask_url(url)) if url else str(error)
        return DatabaseUnavailable(f"{where} cannot be reached: {reason or type(error).__name__}")
    return None


def translate_state(state: str, message: str, detail: str | None, where: str) -> Exception | None:
    """The error of Rhythm for a SQLSTATE, or None. ``where``: "the database at …", for the message."""
    if state.startswith("RH"):
        message = message.partition("\nDETAIL:")[0]  # our own details are codes
    if state == "RH001":
        return StartRefused(message, code=detail or "refused")
    if state == "RH002":
        return IncarnationDead(message)
    if state == "RH003":
        return ExecutionNotFound(message)
    if state == "RH004":
        return ExecutionFinished(message)
    if state == "RH005":
        return SignalRefused(message)
    if state == "RH008":
        return RetryRefused(message, code=detail or "refused")
    if state == "RH007":
        return DatabaseUnavailable(message)
    if state == "RH006" or state[:2] == "22" or state == "23514":
        return InvalidInput(message)
    if state in _NO_SCHEMA:
        return SchemaMismatch(f"{where} does not hold this release's schema ({message}): run `rhythm migrate`")
    if state == "42501":
        return ConfigurationError(
            f"the role that is logged in may not do this ({message}): log in as the owner of the schema, "
            "or grant it rhythm_worker (`rhythm migrate --roles`)"
        )
    if state in _NO_STATEMENT or (state == "08P01" and message.startswith("bind message")):
        return ConfigurationError(
            f"{where} forgets prepared statements, as a pooler in transaction mode does: set pooler = true "
            "(RHYTHM_POOLER=true, --pooler)"
        )
    if state[:2] in ("28", "3D"):
        return DatabaseUnavailable(f"{where} refuses the connection: {message}")
    if state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE or state in PASSING:
        return DatabaseUnavailable(f"{where} cannot do it now: {message}")
    return None


async def _warn_of_pooler(connection: asyncpg.Connection, url: str) -> None:
    """A pooler answers for its servers, under another process number than theirs."""
    if await connection.fetchval("select pg_backend_pid()") != connection.get_server_pid():
        logger.warning(
            "the database at %s seems to be behind a pooler: if that is in transaction mode, set pooler = true",
            mask_url(url),
        )


class Pool:
    """Up to a number of connections, the most recently used first. Bound to one event loop.

    Not asyncpg's own: that takes 50 µs per call (2026-11), which is a third of an exchange that finds nothing.
    A connection on which a call did not end in order (timeout, cancellation, network) is thrown away.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], size_max: int, timeout: float) -> None:
        self._connect = connect
        self._size_max = size_max
        self._timeout = timeout
        self._size = 0  # open, or being opened
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        self._waiters: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._closed = False

    async def acquire(self) -> asyncpg.Connection:
        """A connection, to be given back with `release`. Raises what connecting does, TimeoutError, InterfaceError."""
        while True:
            if self._closed:
                raise asyncpg.InterfaceError("the pool is closed")
            while self._idle:
                connection, since = self._idle.pop()
                if not connection.is_closed() and time.monotonic() - since < IDLE_SECONDS_MAX:
                    return connection
                connection.terminate()
                self._size -= 1
            if self._size < self._size_max:
                self._size += 1
                try:
                    return await self._connect()
                except BaseException:
                    self._size -= 1
                    self._hand_over(None)
                    raise
            handed = await self._wait()
            if handed is not None and not handed.is_closed():
                return handed
            if handed is not None:
                self._size -= 1

    async def _wait(self) -> asyncpg.Connection | None:
        waiter: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._timeout):
                return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            raise

    def release(self, connection: asyncpg.Connection, *, broken: bool) -> None:
        """Takes a connection back; a broken one is closed at once."""
        if broken or self._closed or connection.is_closed():
            connection.terminate()
            self._size -= 1
            self._hand_over(None)
        else:
            self._pass_on(connection)

    def _pass_on(self, connection: asyncpg.Connection | None) -> None:
        if not self._hand_over(connection) and connection is not None:
            self._idle.append((connection, time.monotonic()))

    def _hand_over(self, connection: asyncpg.Connection | None) -> bool:
        """Gives it (or None: the right to open one) to who waits longest. Returns whether somebody waited."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def close(self) -> None:
        """Closes all connections that are not in use; the others are closed when they are released."""
        self._closed = True
        while self._hand_over(None):
            pass
        idle, self._idle = self._idle, []
        self._size -= len(idle)
        try:
            await asyncio.gather(*[_close(connection) for connection, _ in idle])
        finally:  # whoever is cancelled here leaves none behind either
            for connection, _ in idle:
                if not connection.is_closed():
                    connection.terminate()


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)
    except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        connection.terminate()


class Database:
    """A pool of connections whose calls raise Rhythm's errors."""

    def __init__(self, url: str, pool: Pool) -> None:
        self.url = url
        self._pool = pool
        self._fail_point = faults.current()

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        pool_min: int = 1,
        pool_max: int = 10,
        pooler: bool = False,
        application_name: str = "rhythm",
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Database:
        """Opens the pool with `pool_min` connections. Raises DatabaseUnavailable, InvalidInput for a bad URL."""
        if urlsplit(url).scheme not in ("postgres", "postgresql"):
            raise InvalidInput(f"{mask_url(url)} is not the URL of a PostgreSQL database (postgresql://...)")

        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(
                url,
                statement_cache_size=0 if pooler else 100,
                max_cached_statement_lifetime=0,
                command_timeout=timeout,
                timeout=CONNECT_TIMEOUT_SECONDS,
                server_settings={"application_name": application_name},
            )

        pool = Pool(connect, pool_max, timeout)
        opened: list[asyncpg.Connection] = []
        ready = False
        try:
            while len(opened) < min(pool_min, pool_max):
                opened.append(await pool.acquire())
            if opened and not pooler:
                await _warn_of_pooler(opened[0], url)
            ready = True
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"{mask_url(url)} is not the URL of a PostgreSQL database: {error}") from None
        except Exception as error:
            translated = translate(error, url)
            if translated is None:
                raise
            raise translated from error
        finally:
            for connection in opened:  # nobody would close them if this fails or is cancelled
                pool.release(connection, broken=not ready)
        return cls(url, pool)

    async def close(self) -> None:
        """Closes all connections; those in use are closed when their call has ended."""
        await self._pool.close()

    async def execute(self, query: str, *arguments: Any) -> Any:
        return await self._call("execute", query, arguments)

    async def fetch(self, query: str, *arguments: Any) -> Sequence[Any]:
        rows: Sequence[Any] = await self._call("fetch", query, arguments)
        return rows

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        return await self._call("fetchrow", query, arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        return await self._call("fetchval", query, arguments)

    async def _call(self, method: str, query: str, arguments: tuple[Any, ...]) -> Any:
        for repeat in range(REPEATS_MAX + 1):
            try:
                async with self._borrowed() as connection:
                    if self._fail_point is not None:
                        return await _call_or_fail(self._fail_point, connection, method, query, arguments)
                    return await getattr(connection, method)(query, *arguments)
            except Exception as error:
                if repeat < REPEATS_MAX and getattr(error, "sqlstate", None) in PASSING:
                    await asyncio.sleep(random.uniform(0.0, 0.02 * 2**repeat))
                    continue
                translated = translate(error, self.url)
                if translated is None:
                    raise
                raise translated from error
        raise AssertionError("the last repeat returns or raises")

    def _borrowed(self) -> _Borrowed:
        return _Borrowed(self._pool)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Executor]:
        """A connection with an open transaction."""
        try:
            async with self._borrowed() as connection, connection.transaction():
                yield connection
        except Exception as error:
            translated = translate(error, self.url)
            if translated is None:
                raise
            raise translated from error


async def _call_or_fail(
    point: faults.FailPoint, connection: asyncpg.Connection, method: str, query: str, arguments: tuple[Any, ...]
) -> Any:
    """A call past its three fail points. Where the connection is dropped it raises as if the network had done it."""
    name = faults.function_of(query)
    if point.reached(f"{name}.before"):
        raise drop_connection(connection)
    if point.watches(f"{name}.during"):
        # prepared first, so that what is sent next is the call and nothing else
        statement = await connection.prepare(query)
        ask = statement.fetch if method == "execute" else getattr(statement, method)
        call = asyncio.ensure_future(ask(*arguments))
        for _ in range(WRITE_TURNS):
            await asyncio.sleep(0)
        if point.reached(f"{name}.during"):
            error = drop_connection(connection)
            await asyncio.gather(call, return_exceptions=True)
            raise error
        result = await call
    else:
        result = await getattr(connection, method)(query, *arguments)
    if point.reached(f"{name}.after"):
        raise drop_connection(connection)
    return result


def drop_connection(connection: asyncpg.Connection) -> Exception:
    """Closes it as a fault would; the error that its driver would raise."""
    connection.terminate()
    return asyncpg.ConnectionDoesNotExistError("connection was dropped by a fail point")


class _Borrowed:
    """`async with` a connection of the pool."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> asyncpg.Connection:
        self._connection = await self._pool.acquire()
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        in_order = error is None or isinstance(error, asyncpg.PostgresError | asyncpg.DataError | RhythmError)
        self._pool.release(self._connection, broken=not in_order)
