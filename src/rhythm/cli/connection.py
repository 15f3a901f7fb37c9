"""From the options of a command to a connected client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rhythm.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from rhythm.client import Client
    from rhythm.config import Config

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's asynchronous part to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def unmigrated(config: Config) -> AsyncIterator[Client]:
    """A client whose database may lack our schema, or have another release's.

    Failures to connect name the URL; `output.message` masks its password.
    """
    from rhythm.client import Client

    client = Client(config)
    try:
        await client.open()
        yield client
    except DatabaseUnavailable as error:
        if config.database_url is None or str(error).startswith("the database at "):  # the URL is named
            raise
        raise DatabaseUnavailable(f"cannot use the database at {config.database_url}: {error}") from error
    finally:
        await client.close()


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Client]:
    """A client to work with. An embedded database's schema is brought up to date: there is nobody else to do it."""
    async with unmigrated(config) as client:
        if config.database_url is None:
            await client.migrate()
        yield client
