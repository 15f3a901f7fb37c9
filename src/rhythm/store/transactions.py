"""Transactions for tasks: their own writes and their outcome in one commit.

    begin      a connection with an open transaction (READ COMMITTED), in which the task makes its writes
    complete   rhythm.complete, fenced by the claim's token, then COMMIT: both happened, or neither
    roll back  whenever anything else becomes of the task

asyncpg for tasks on the event loop; psycopg 3, if it is installed, for those in threads. Connections are kept, at most
``size`` of both kinds together (the caller sees to that), and are as new at each begin: READ COMMITTED, no timeouts or
settings of the task before.

PostgreSQL ends a transaction that lies idle for longer than IDLE_SECONDS, so that a worker that stands still does not
keep locks from whoever takes its task over; and with a timeout of the attempt, statements that take longer than that.

Unknown commits. When the connection is lost under COMMIT, nobody knows whether it happened, and nothing here guesses:
``complete`` raises DatabaseUnavailable. Whatever is then reported under the same token (a failure, a hand back) is
decided by the row of the claim, which the lost transaction has deleted or not: the report waits for it, and is refused
if it was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from rhythm import faults
from rhythm.errors import ConfigurationError, DatabaseUnavailable, RhythmError, TaskNotRetryable
from rhythm.store.codec import pack
from rhythm.store.connection import (
    CALL_TIMEOUT_SECONDS,
    CLOSE_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    IDLE_SECONDS_MAX,
    WRITE_TURNS,
    Pool,
    drop_connection,
    mask_url,
    translate,
    translate_state,
)

if TYPE_CHECKING:
    import psycopg

IDLE_SECONDS: Final = 60  #: for which a task may leave its transaction idle
NAME: Final = "rhythm transactional task"  #: of the connections
_BEGUN: Final = (
    "select set_config('rhythm.execution', {0}, true), "
    "set_config('statement_timeout', coalesce({1}::text, current_setting('statement_timeout')), true), "
    "set_config('idle_in_transaction_session_timeout', {2}, true)"
)
_COMPLETE: Final = "select rhythm.complete({0}, {1}, {2}, {3})"
_FORGET: Final = "reset all; unlisten *; close all; select pg_advisory_unlock_all()"
_MILLISECONDS_MAX: Final = 2**31 - 1  #: of a timeout of PostgreSQL
#: A thread that waits for an answer cannot be told to stop: a network that is gone must be noticed below it.
_KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_Settings = tuple[str, str | None, str]
_ENDED: Final = "25000"  # rhythm.complete was called in another transaction


class Transactions:
    """The connections of one worker process for tasks' own transactions. ``size``: at most so many at a time."""

    def __init__(self, url: str, incarnation: uuid.UUID, *, size: int, pooler: bool) -> None:
        self.url = url
        self.incarnation = incarnation
        self.size = size
        self.pooler = pooler
        self.fail_point = faults.current()
        self._pool = Pool(self._connect, size, CALL_TIMEOUT_SECONDS)
        self._idle: list[tuple[psycopg.Connection[Any], float]] = []
        self._lock = threading.Lock()
        self._closed = False

    async def begin(self, execution_id: uuid.UUID, timeout_seconds: float | None) -> Transaction:
        """A transaction for a task on this event loop. Raises DatabaseUnavailable."""
        for _ in range(self.size + 1):  # connections that were kept may be dead, all of them
            try:
                connection = await self._pool.acquire()
            except Exception as error:
                translated = translate(error, self.url)
                if translated is None:
                    raise
                raise translated from error
            transaction = Transaction(self, connection)
            try:
                await transaction.begin(_settings(execution_id, timeout_seconds))
                return transaction
            except Exception as error:
                lost = connection.is_closed()
                await transaction.roll_back()
                if not lost:
                    translated = translate(error, self.url)
                    if translated is None:
                        raise
                    raise translated from error
            except BaseException:
                await transaction.roll_back()
                raise
        raise DatabaseUnavailable(f"the database at {mask_url(self.url)} closes every connection")

    def begin_blocking(self, execution_id: uuid.UUID, timeout_seconds: float | None) -> BlockingTransaction:
        """A transaction for a task in this thread. Raises DatabaseUnavailable."""
        for _ in range(self.size + 1):
            connection = self._take() or self._connect_blocking()
            transaction = BlockingTransaction(self, connection)
            try:
                transaction.begin(_settings(execution_id, timeout_seconds))
                return transaction
            except Exception as error:
                lost = connection.closed
                transaction.roll_back()
                if not lost:
                    translated = translate(error, self.url)
                    if translated is None:
                        raise
                    raise translated from error
        raise DatabaseUnavailable(f"the database at {mask_url(self.url)} closes every connection")

    async def close(self) -> None:
        """Closes the connections that are not in use; the others are closed when they are given back."""
        self._closed = True
        await self._pool.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    # --- connections ---

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self.url,
            statement_cache_size=0 if self.pooler else 100,
            max_cached_statement_lifetime=0,
            timeout=CONNECT_TIMEOUT_SECONDS,
            server_settings={"application_name": NAME},
        )

    def _connect_blocking(self) -> psycopg.Connection[Any]:
        import psycopg

        try:
            return psycopg.connect(
                self.url,
                application_name=NAME,
                connect_timeout=int(CONNECT_TIMEOUT_SECONDS),
                prepare_threshold=None if self.pooler else 5,
                **_KEEPALIVE,
            )
        except psycopg.Error as error:
            reason = str(error).replace(self.url, mask_url(self.url))
            raise DatabaseUnavailable(f"the database at {mask_url(self.url)} cannot be reached: {reason}") from None

    def _take(self) -> psycopg.Connection[Any] | None:
        with self._lock:
            while self._idle:
                connection, since = self._idle.pop()
                if not connection.closed and time.monotonic() - since < IDLE_SECONDS_MAX:
                    return connection
                connection.close()
        return None

    async def give_back(self, connection: asyncpg.Connection, *, broken: bool) -> None:
        if not broken:
            try:
                await connection.execute(_FORGET, timeout=CLOSE_TIMEOUT_SECONDS)
            except Exception:  # noqa: BLE001  (of no use any more, for whatever reason)
                broken = True
            except BaseException:
                self._pool.release(connection, broken=True)
                raise
        self._pool.release(connection, broken=broken)

    def give_back_blocking(self, connection: psycopg.Connection[Any], *, broken: bool) -> None:
        with contextlib.suppress(Exception):
            if not broken:
                connection.execute(_FORGET)
                connection.commit()
                with self._lock:
                    if not self._closed and len(self._idle) < self.size:
                        self._idle.append((connection, time.monotonic()))
                        return
        connection.close()

    def judged(self, error: Exception, *, lost: bool) -> Exception:
        """What it means that completing has failed: RhythmErrors are about the claim or the connection, others are the
        task's own failure (a deferred constraint)."""
        if lost:
            return DatabaseUnavailable(f"the connection was lost while its transaction was being committed: {error}")
        if isinstance(error, RhythmError):
            return error
        state = getattr(error, "sqlstate", None)
        if state == _ENDED:
            return TaskNotRetryable(f"a transactional task must leave its transaction open, and all of it: {error}")
        known = translate_state(state or "", str(error), None, f"the database at {mask_url(self.url)}")
        return known if known is not None else error


class Transaction:
    """One open transaction, on asyncpg. ``connection`` is for the task; savepoints by ``connection.transaction()``."""

    def __init__(self, transactions: Transactions, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._transactions = transactions
        self._transaction = connection.transaction(isolation="read_committed")

    @property
    def lost(self) -> bool:
        """The connection is gone, and everything that was not committed with it."""
        return bool(self.connection.is_closed())

    async def begin(self, settings: _Settings) -> None:
        await self._transaction.start()
        await self.connection.fetchrow(_BEGUN.format("$1", "$2", "$3"), *settings, timeout=CALL_TIMEOUT_SECONDS)

    async def complete(self, claim_id: int, execution_id: uuid.UUID, payload: bytes) -> None:
        """Records the output and commits. However it ends, this transaction is over.

        Raises IncarnationDead when the claim is not held any more (rolled back), DatabaseUnavailable when it is not
        known whether it was committed, and the driver's errors when PostgreSQL has refused (rolled back).
        """
        point = self._transactions.fail_point
        connection = self.connection
        try:
            if point is not None and point.reached("complete.before"):
                raise drop_connection(connection)
            query = _COMPLETE.format("$1", "$2", "$3", "$4")
            arguments = (self._transactions.incarnation, claim_id, execution_id, pack(payload))
            await connection.execute(query, *arguments, timeout=CALL_TIMEOUT_SECONDS)
            if point is not None:
                await self._commit_or_fail(point)
            else:
                await self._commit()
        except BaseException as error:
            lost = self.lost
            await self.roll_back(broken=not isinstance(error, asyncpg.PostgresError))
            if not isinstance(error, Exception):
                raise
            judged = self._transactions.judged(error, lost=lost or not isinstance(error, asyncpg.PostgresError))
            if judged is error:
                raise
            raise judged from error
        await self._transactions.give_back(connection, broken=False)

    async def _commit(self) -> None:
        async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
            await self._transaction.commit()

    async def _commit_or_fail(self, point: faults.FailPoint) -> None:
        point.passed("committing")
        commit = asyncio.ensure_future(self._commit())
        if point.watches("complete.during"):
            for _ in range(WRITE_TURNS):
                await asyncio.sleep(0)
            if point.reached("complete.during"):
                error = drop_connection(self.connection)
                await asyncio.gather(commit, return_exceptions=True)
                raise error
        await commit
        if point.reached("complete.after"):
            raise drop_connection(self.connection)

    async def roll_back(self, *, broken: bool = False) -> None:
        """Undoes everything. Never raises; a connection on which that fails is closed, which undoes it as well."""
        # one that is not in its transaction any more was meddled with, or its COMMIT was refused: not worth keeping
        broken = broken or self.lost or not self.connection.is_in_transaction()
        try:
            if not broken:
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await self._transaction.rollback()
        except BaseException as error:
            await self._transactions.give_back(self.connection, broken=True)
            if not isinstance(error, Exception):
                raise
            return
        await self._transactions.give_back(self.connection, broken=broken)


class BlockingTransaction:
    """The same on psycopg 3, for the thread that began it; savepoints by ``connection.transaction()``."""

    def __init__(self, transactions: Transactions, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._transactions = transactions
        self._block = connection.transaction()  # inside it, psycopg refuses commit() and rollback() of the task

    @property
    def lost(self) -> bool:
        """The connection is gone, and everything that was not committed with it."""
        return bool(self.connection.closed)

    def begin(self, settings: _Settings) -> None:
        import psycopg

        connection = self.connection
        connection.autocommit = False
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.read_only = connection.deferrable = None
        connection.row_factory = psycopg.rows.tuple_row
        connection.cursor_factory = psycopg.Cursor
        self._block.__enter__()
        connection.execute(_BEGUN.format("%s", "%s", "%s"), settings)

    def complete(self, claim_id: int, execution_id: uuid.UUID, payload: bytes) -> None:
        """Records the output and commits, as ``Transaction.complete``; raises as that does."""
        import psycopg

        point = self._transactions.fail_point
        connection = self.connection
        try:
            if point is not None and point.reached("complete.before"):
                raise self._dropped()
            query = _COMPLETE.format("%s::uuid", "%s::bigint", "%s::uuid", "%s::bytea")
            with psycopg.Cursor(connection) as cursor:
                arguments = (self._transactions.incarnation, claim_id, execution_id, pack(payload))
                cursor.execute(query, arguments, prepare=False)
            if point is not None:
                self._commit_or_fail(point)
            else:
                self._commit()
        except Exception as error:
            lost = self.lost or not isinstance(error, psycopg.Error)
            self.roll_back(broken=lost)
            judged = self._transactions.judged(error, lost=lost)
            if judged is error:
                raise
            raise judged from error
        self._transactions.give_back_blocking(connection, broken=False)

    def _commit_or_fail(self, point: faults.FailPoint) -> None:
        point.passed("committing")
        if point.watches("complete.during"):
            wire = self.connection.pgconn
            wire.send_query(b"commit")
            wire.flush()
            if point.reached("complete.during"):
                raise self._dropped()
            while wire.get_result() is not None:
                pass
        self._commit()
        if point.reached("complete.after"):
            raise self._dropped()

    def _commit(self) -> None:
        self._block.__exit__(None, None, None)

    def _dropped(self) -> Exception:
        self.connection.pgconn.finish()
        return ConnectionResetError("connection was dropped by a fail point")

    def roll_back(self, *, broken: bool = False) -> None:
        """Undoes everything. Never raises."""
        import psycopg

        # one that is not in its transaction any more was meddled with, or its COMMIT was refused: not worth keeping
        idle = psycopg.pq.TransactionStatus.IDLE
        broken = broken or self.lost or self.connection.info.transaction_status == idle
        if not broken:
            undo = psycopg.Rollback()
            try:
                self._block.__exit__(type(undo), undo, None)
            except Exception:  # noqa: BLE001  (then it is closed, which undoes it as well)
                broken = True
        self._transactions.give_back_blocking(self.connection, broken=broken)


def check_driver() -> None:
    """Raises ConfigurationError where transactional ``def`` tasks cannot run."""
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigurationError(
            "transactional tasks that are plain functions need psycopg 3 (pip install 'psycopg[binary]'); "
            "or make them async def, then they get a connection of asyncpg"
        )


def _settings(execution_id: uuid.UUID, timeout_seconds: float | None) -> _Settings:
    limit = None
    if timeout_seconds is not None:
        limit = str(min(max(1, round(timeout_seconds * 1000)), _MILLISECONDS_MAX))
    return str(execution_id), limit, f"{IDLE_SECONDS}s"
