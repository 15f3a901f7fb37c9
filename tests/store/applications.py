"""Transactions of applications, one kind for each driver whose connections `connection=` takes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker


@dataclass
class Application:
    """A connection in the state that an application has it in, with the ways to end its transaction."""

    connection: Any  #: what is given as connection=
    _execute: Callable[[str], Any]
    _commit: Callable[[], Any]
    _rollback: Callable[[], Any]
    _close: Callable[[], Any]

    async def execute(self, statement: str) -> None:
        await done(self._execute(statement))

    async def commit(self) -> None:
        await done(self._commit())

    async def rollback(self) -> None:
        await done(self._rollback())

    async def close(self) -> None:
        await done(self._close())


async def done(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def _asyncpg(url: str) -> Application:
    connection = await asyncpg.connect(url)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=lambda text: text.upper())
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=repr, decoder=repr)
    await connection.execute("begin")

    return Application(
        connection, connection.execute, lambda: connection.execute("commit"), lambda: connection.execute("rollback"),
        connection.close,
    )  # fmt: skip


async def _psycopg(url: str) -> Application:
    connection = psycopg.connect(url, row_factory=dict_row, cursor_factory=psycopg.RawCursor, prepare_threshold=0)
    return Application(
        connection, connection.execute, connection.commit, connection.rollback, connection.close
    )  # fmt: skip


async def _psycopg_async(url: str) -> Application:
    connection = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)
    return Application(connection, connection.execute, connection.commit, connection.rollback, connection.close)


async def _sqlalchemy(url: str) -> Application:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    connection = engine.connect()

    def close() -> None:
        connection.close()
        engine.dispose()

    return Application(connection, connection.exec_driver_sql, connection.commit, connection.rollback, close)


async def _session(url: str) -> Application:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    session = Session(engine)

    def close() -> None:
        session.close()
        engine.dispose()

    return Application(session, _on_session(session), session.commit, session.rollback, close)


async def _scoped_session(url: str) -> Application:
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    session = scoped_session(sessionmaker(engine))

    def close() -> None:
        session.remove()
        engine.dispose()

    return Application(session, _on_session(session), session.commit, session.rollback, close)


def _on_session(session: Any) -> Callable[[str], Any]:
    return lambda statement: session.execute(sqlalchemy.text(statement))


def _sqlalchemy_async(driver: str) -> Callable[[str], Awaitable[Application]]:
    async def make(url: str) -> Application:
        engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
        connection = await engine.connect()

        async def close() -> None:
            await connection.close()
            await engine.dispose()

        return Application(connection, connection.exec_driver_sql, connection.commit, connection.rollback, close)

    return make


def _session_async(driver: str) -> Callable[[str], Awaitable[Application]]:
    async def make(url: str) -> Application:
        engine = create_async_engine(url.replace("postgresql:", f"postgresql+{driver}:"))
        session = AsyncSession(engine)

        async def close() -> None:
            await session.close()
            await engine.dispose()

        return Application(session, _on_session(session), session.commit, session.rollback, close)

    return make


BLOCKING: dict[str, Callable[[str], Awaitable[Application]]] = {
    "psycopg": _psycopg,
    "sqlalchemy": _sqlalchemy,
    "sqlalchemy session": _session,
    "sqlalchemy scoped session": _scoped_session,
}
ASYNCHRONOUS: dict[str, Callable[[str], Awaitable[Application]]] = {
    "asyncpg": _asyncpg,
    "psycopg async": _psycopg_async,
    "sqlalchemy async over psycopg": _sqlalchemy_async("psycopg"),
    "sqlalchemy async over asyncpg": _sqlalchemy_async("asyncpg"),
    "sqlalchemy async session over psycopg": _session_async("psycopg"),
    "sqlalchemy async session over asyncpg": _session_async("asyncpg"),
}
ALL = {**BLOCKING, **ASYNCHRONOUS}


@asynccontextmanager
async def application(kind: str, url: str) -> AsyncIterator[Application]:
    """An application's connection of this kind, closed at the end."""
    made = await ALL[kind](url)
    try:
        yield made
    finally:
        await made.close()
