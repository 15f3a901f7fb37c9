"""The shop's own books: a plain table in the same database, written by the tasks.

Every entry carries the idempotency key of the task that wrote it. A worker may die after writing and
before reporting; the task then runs again under the same key, and the second write changes nothing.
"""

import asyncio

import asyncpg

import rhythm

TABLE = """
create table if not exists shop_ledger (
    idempotency_key text primary key,
    order_id        text not null,
    entry           text not null check (entry in ('charge', 'refund', 'reserve', 'release', 'ship')),
    amount_cents    bigint not null default 0,
    written_at      timestamptz not null default clock_timestamp()
)"""

_pools: dict[asyncio.AbstractEventLoop, asyncpg.Pool] = {}


async def pool() -> asyncpg.Pool:
    """The connection pool of this event loop, opened at its first use."""
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = asyncpg.create_pool(rhythm.database_url(), min_size=0, max_size=4)
    return await _pools[loop]


async def write(key: str, order_id: str, entry: str, amount_cents: int = 0) -> None:
    await (await pool()).execute(
        "insert into shop_ledger (idempotency_key, order_id, entry, amount_cents) values ($1, $2, $3, $4) "
        "on conflict (idempotency_key) do nothing",
        key, order_id, entry, amount_cents,
    )  # fmt: skip
