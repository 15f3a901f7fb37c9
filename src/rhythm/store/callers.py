"""Callers' own connections: a start or a signal inside a transaction that somebody else began and will end.

    asyncpg      Connection, and what its pool hands out
    psycopg 3    Connection, AsyncConnection
    SQLAlchemy   Connection, Session, scoped_session, AsyncConnection, AsyncSession, async_scoped_session,
                 over psycopg or asyncpg

One text and one marshalling serve them all. Every argument is sent as text (arrays as array literals) and cast in
SQL, every column comes back as text: so nothing depends on the codecs, adapters, row factories or time zone that the
application has set on its connection, nor on its search_path. Nothing is prepared on psycopg connections, so poolers
may stand in between.

Drivers are recognised by type without being imported: a connection of psycopg exists only where psycopg was imported.
A blocking connection blocks the thread that calls. Nothing here begins, commits, rolls back or repeats anything: the
transaction is the caller's. In autocommit mode the one statement is a transaction of its own.

After an error the caller's transaction has failed, as after any error in SQL. Deadlocks and serialization failures
come through as the driver's own errors, because the loop that repeats the caller's transaction looks for those.
"""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, cast

import asyncpg

from rhythm.errors import DatabaseUnavailable, InvalidInput, RhythmError
from rhythm.model import NewExecution, StartResult
from rhythm.store.codec import pack, text
from rhythm.store.connection import PASSING, translate_other, translate_state
from rhythm.store.starts import START_TYPES, start_arguments, start_results

Row = Sequence[Any]
_WHERE: Final = "the database of your connection"
_PLAIN_SQL: Final = "or call the SQL functions rhythm.start and rhythm.send_signal on it yourself"
_SUPPORTED: Final = "asyncpg, psycopg 3, or SQLAlchemy over one of them"
_SQLALCHEMY_DRIVERS: Final = frozenset({"psycopg", "psycopg_async", "asyncpg"})
_PLACEHOLDER: Final = re.compile(r"\$\d+")

_START_PARAMETERS: Final = ", ".join(f"${i}::text::{type_}" for i, type_ in enumerate(START_TYPES, 1))
_START: Final = f"select o_ids::text, o_statuses::text from rhythm.start_many({_START_PARAMETERS})"  # noqa: S608 - built of constants
_SIGNAL: Final = "select rhythm.signal($1::text::uuid, $2::text, $3::text::bytea, $4::text::uuid)::text"


# What is called ----------------------------------------------------------------------------------


class Call(Protocol):
    """How a query goes through a connection: the first row comes back, at once or to be awaited."""

    def __call__(self, query: str, arguments: Sequence[str | None]) -> Any: ...


async def start(connection: Any, starts: Sequence[NewExecution]) -> list[StartResult]:
    """Starts executions on the caller's connection, as ``Store.start`` does on its own.

    Raises InvalidInput for a connection that cannot be used, DatabaseUnavailable for one that is closed.
    """
    return _started(await _run(connection, _START, _start_texts(starts))) if starts else []


def start_blocking(connection: Any, starts: Sequence[NewExecution]) -> list[StartResult]:
    """The same for callers without an event loop; InvalidInput for an asynchronous connection."""
    return _started(_run_blocking(connection, _START, _start_texts(starts))) if starts else []


async def signal(connection: Any, execution_id: uuid.UUID, name: str, payload: bytes, send_id: uuid.UUID) -> None:
    """Sends a signal on the caller's connection, as ``Store.signal`` does on its own; raises as ``start`` above."""
    await _run(connection, _SIGNAL, _signal_texts(execution_id, name, payload, send_id))


def signal_blocking(connection: Any, execution_id: uuid.UUID, name: str, payload: bytes, send_id: uuid.UUID) -> None:
    """The same for callers without an event loop; InvalidInput for an asynchronous connection."""
    _run_blocking(connection, _SIGNAL, _signal_texts(execution_id, name, payload, send_id))


def _start_texts(starts: Sequence[NewExecution]) -> list[str | None]:
    return [literal(argument) for argument in start_arguments(starts)]


def _started(row: Row) -> list[StartResult]:
    ids, statuses = (column[1:-1].split(",") for column in row)
    return start_results([uuid.UUID(id_) for id_ in ids], [int(status) for status in statuses])


def _signal_texts(execution_id: uuid.UUID, name: str, payload: bytes, send_id: uuid.UUID) -> list[str | None]:
    return [str(execution_id), text(name, "name"), "\\x" + pack(payload).hex(), str(send_id)]


def literal(values: Sequence[Any] | None) -> str | None:
    """An array as PostgreSQL reads it from text; None stays None."""
    return None if values is None else "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    assert isinstance(value, int | float | uuid.UUID), "arguments of a start are of these types"
    return repr(value) if isinstance(value, float) else str(value)


async def _run(connection: Any, query: str, arguments: Sequence[str | None]) -> Row:
    call, awaited = _adapt(connection)
    try:
        row = call(query, arguments)
        return cast("Row", await row if awaited else row)
    except Exception as error:
        translated = _translated(error)
        if translated is error:
            raise
        raise translated from error


def _run_blocking(connection: Any, query: str, arguments: Sequence[str | None]) -> Row:
    call, awaited = _adapt(connection)
    if awaited:
        raise InvalidInput(
            f"connection= is an asynchronous {_name(connection)}: use the asynchronous client (rhythm.connect) with it"
        )
    try:
        return cast("Row", call(query, arguments))
    except Exception as error:
        translated = _translated(error)
        if translated is error:
            raise
        raise translated from error


# Connections -------------------------------------------------------------------------------------


def _adapt(connection: Any) -> tuple[Call, bool]:
    """How to run a query on this connection, and whether that has to be awaited."""
    if isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return _asyncpg(connection), True
    for module, name, adapter, awaited in _KINDS:
        found = getattr(sys.modules.get(module), name, None)
        if found is not None and isinstance(connection, found):
            return adapter(connection), awaited
    raise InvalidInput(f"connection= takes a connection of {_SUPPORTED}, not {_name(connection)}; {_PLAIN_SQL}")


def _asyncpg(connection: Any) -> Call:
    try:
        closed = connection.is_closed()
    except asyncpg.InterfaceError as error:  # given back to its pool
        raise DatabaseUnavailable(f"connection= cannot be used: {error}") from None
    _check_open(connection, closed)
    return lambda query, arguments: connection.fetchrow(query, *arguments)


def _psycopg(connection: Any) -> Call:
    """Cursors are made here: the connection's own factory may have another style of placeholders, or of rows."""
    _check_open(connection, connection.closed)
    psycopg = sys.modules["psycopg"]

    def call(query: str, arguments: Sequence[str | None]) -> Row:
        with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
            cursor.execute(_PLACEHOLDER.sub("%s", query), arguments, prepare=False, binary=False)
            return cast("Row", cursor.fetchone())

    return call


def _psycopg_async(connection: Any) -> Call:
    _check_open(connection, connection.closed)
    psycopg = sys.modules["psycopg"]

    async def call(query: str, arguments: Sequence[str | None]) -> Row:
        async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
            await cursor.execute(_PLACEHOLDER.sub("%s", query), arguments, prepare=False, binary=False)
            return cast("Row", await cursor.fetchone())

    return call


def _sqlalchemy(connection: Any) -> Call:
    """Through SQLAlchemy and not past it: so it knows that a transaction has begun, and its commit is one."""
    _check_open(connection, connection.closed)

    def call(query: str, arguments: Sequence[str | None]) -> Row:
        found = connection.exec_driver_sql(_sqlalchemy_query(connection, query), tuple(arguments))
        return cast("Row", found.fetchone())

    return call


def _sqlalchemy_async(connection: Any) -> Call:
    _check_open(connection, connection.closed)

    async def call(query: str, arguments: Sequence[str | None]) -> Row:
        found = await connection.exec_driver_sql(_sqlalchemy_query(connection, query), tuple(arguments))
        return cast("Row", found.fetchone())

    return call


def _sqlalchemy_query(connection: Any, query: str) -> str:
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in _SQLALCHEMY_DRIVERS:
        raise InvalidInput(
            f"connection= is a SQLAlchemy connection to {dialect.name} over {dialect.driver}; "
            f"only PostgreSQL over psycopg 3 or asyncpg can be used, {_PLAIN_SQL}"
        )
    return query if dialect.driver == "asyncpg" else _PLACEHOLDER.sub("%s", query)


def _session(session: Any) -> Call:
    return lambda query, arguments: _sqlalchemy(session.connection())(query, arguments)


def _session_async(session: Any) -> Call:
    async def call(query: str, arguments: Sequence[str | None]) -> Row:
        run = cast("Callable[..., Awaitable[Row]]", _sqlalchemy_async(await session.connection()))
        return await run(query, arguments)

    return call


_KINDS: Final[tuple[tuple[str, str, Callable[[Any], Call], bool], ...]] = (
    ("psycopg", "Connection", _psycopg, False),
    ("psycopg", "AsyncConnection", _psycopg_async, True),
    ("sqlalchemy.engine", "Connection", _sqlalchemy, False),
    ("sqlalchemy.orm", "Session", _session, False),
    ("sqlalchemy.orm", "scoped_session", _session, False),
    ("sqlalchemy.ext.asyncio", "AsyncConnection", _sqlalchemy_async, True),
    ("sqlalchemy.ext.asyncio", "AsyncSession", _session_async, True),
    ("sqlalchemy.ext.asyncio", "async_scoped_session", _session_async, True),
)


def _check_open(connection: Any, closed: bool) -> None:
    if closed:
        raise DatabaseUnavailable(f"connection= cannot be used: the {_name(connection)} is closed")


def _name(connection: Any) -> str:
    kind = type(connection)
    return f"{kind.__module__.partition('.')[0]} {kind.__name__}"


# Errors ------------------------------------------------------------------------------------------


def _translated(error: Exception) -> Exception:
    """Rhythm's error where it has a word for it, else the driver's own."""
    if isinstance(error, RhythmError):
        return error
    cause: BaseException | None = error
    while cause is not None and not isinstance(getattr(cause, "sqlstate", None), str):
        cause = getattr(cause, "orig", None) or cause.__cause__
    if cause is None:
        return _without_state(error)
    state: str = getattr(cause, "sqlstate")  # noqa: B009  (each driver has a class of its own with it)
    if state in PASSING:
        return error
    if state == "25P02":
        return InvalidInput("the transaction of connection= has failed already: roll it back, and begin a new one")
    message, detail = _texts(cause)
    return translate_state(state, message, detail, _WHERE) or error


def _texts(error: BaseException) -> tuple[str, str | None]:
    """Message and detail, wherever the driver keeps them."""
    inner = error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
    fields = getattr(inner, "diag", None)
    if fields is not None:
        return fields.message_primary or str(inner), fields.message_detail
    return str(inner), getattr(inner, "detail", None)


def _without_state(error: Exception) -> Exception:
    """An error that did not come from PostgreSQL: the connection is gone, or was used in a way its driver refuses."""
    driver = getattr(error, "orig", None) or error
    psycopg = sys.modules.get("psycopg")
    if getattr(error, "connection_invalidated", False) or (
        psycopg is not None and isinstance(driver, psycopg.OperationalError)
    ):
        return DatabaseUnavailable(f"{_WHERE} cannot be reached: {driver}")
    return translate_other(error, _WHERE) or error
