"""docs/transactions.md and docs/signals.md: their examples run against a real database and do what the pages say."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy
from sqlalchemy.orm import Session

import rhythm
from rhythm.tasks import REGISTRY

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = "\n".join((DOCS / name).read_text() for name in ("transactions.md", "signals.md"))


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)


def defined(name: str) -> Any:
    (source,) = [snippet for snippet in snippets("python") if f"def {name}(" in snippet]
    names: dict[str, Any] = {}
    exec(compile(source, "docs", "exec"), names)  # noqa: S102  (our own documentation)
    return names[name]


async def test_orders_and_their_workflows_are_stored_together(rhythm_url: str) -> None:
    blocking = rhythm.connect_sync(rhythm_url)
    engine = sqlalchemy.create_engine(rhythm_url.replace("postgresql:", "postgresql+psycopg:"))
    async with asyncpg.create_pool(rhythm_url, min_size=1, max_size=1) as pool, rhythm.connect(rhythm_url) as client:
        await pool.execute("create table orders (id text primary key)")
        await defined("place_order")(client, pool, "o-1")
        defined("place_order_blocking")(blocking, rhythm_url, "o-2")
        with Session(engine) as session:
            defined("place_order_in_session")(blocking, session, "o-3")
        orders = [row["id"] for row in await pool.fetch("select id from orders order by id")]
        found = {execution.inputs["order"] for execution in await client.list(name="fulfil")}
        failed = None
        try:
            await defined("place_order")(client, pool, "o-3")
        except asyncpg.UniqueViolationError as error:
            failed = error
        after = len(await client.list(name="fulfil"))
    engine.dispose()

    assert ["o-1", "o-2", "o-3"] == orders
    assert {"o-1", "o-2", "o-3"} == found
    assert failed is not None
    assert 3 == after


async def test_the_transactional_task_books_once(rhythm_url: str) -> None:
    book = defined("book")
    connection = await asyncpg.connect(rhythm_url)
    await connection.execute("create table accounts (id text primary key, balance int)")
    await connection.execute("insert into accounts values ('a', 1)")
    worker = rhythm.Worker(database_url=rhythm_url, tasks=[book], poll_interval="100ms")
    life = asyncio.create_task(worker.run())
    async with rhythm.connect(rhythm_url) as client:
        execution = await client.start(book, {"account": "a", "amount": 41})
        output = await execution.result(timeout=30)
    await worker.stop()
    await life
    plainly = await book(rhythm.TaskContext(connection=connection), account="a", amount=8)
    await connection.close()
    REGISTRY.remove("book")

    assert (42, 50) == (output, plainly)


CART = """
workflow(ctx, inputs) {
  const items = []
  while (items.length < 2) items.push((await signal("add")).item)
  return { customer: inputs.customer, items, by: (await signal("approved")).by }
}
"""


async def test_a_cart_is_filled_and_approved(rhythm_url: str, tmp_path: Path) -> None:
    (tmp_path / "cart.flow").write_text(CART)
    worker = rhythm.Worker(database_url=rhythm_url, tasks=[], poll_interval="100ms")
    life = asyncio.create_task(worker.run())
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        first = await defined("add_to_cart")(client, "c1", "tea")
        second = await defined("add_to_cart")(client, "c1", "milk")
        await defined("approve")(client, str(first.id))
        output = await first.result(timeout=30)
        third = await defined("add_to_cart")(client, "c1", "rice")
    await worker.stop()
    await life

    assert first.id == second.id != third.id
    assert {"customer": "c1", "items": ["tea", "milk"], "by": "ann"} == output


async def test_plain_sql_starts_and_signals(rhythm_url: str, tmp_path: Path) -> None:
    (tmp_path / "fulfil.flow").write_text('workflow(ctx, inputs) { return await signal("approved") }')
    transaction, send = snippets("sql")
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        connection = await asyncpg.connect(rhythm_url)
        await connection.execute("create table orders (id text primary key)")
        await connection.execute(transaction)
        (execution,) = await client.list()
        await connection.execute(re.sub(r"'[0-9a-f-]{36}'", f"'{execution.id}'", send))
        unread = await connection.fetchval("select unread_signals from rhythm.waits")
        await connection.close()

    assert ({"order": "o-1"}, "fulfil") == (execution.inputs, execution.name)
    assert 1 == unread
