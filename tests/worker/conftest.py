"""A small shop for fault tests: tasks with a ledger, a workflow of three steps, and what every run must end with."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import rhythm
from tests.store.bench import LOCK_WAITS
from tests.support.processes import Process, Processes

DEADLINE_SECONDS = 40.0
HEARTBEAT = "2s"
TASKS = """
import asyncio, os, signal
import asyncpg
import rhythm

_pools = {}

async def pool():
    loop = asyncio.get_running_loop()
    if loop not in _pools:
        _pools[loop] = asyncpg.create_pool(
            os.environ["SHOP_URL"], min_size=0, max_size=3, statement_cache_size=0)
    return await _pools[loop]

@rhythm.task(retries=2, retry=rhythm.Retry(initial="10ms"))
async def book(context: rhythm.TaskContext, order: str, step: str) -> dict:
    await (await pool()).execute(
        "insert into ledger (key, order_id, step) values ($1, $2, $3) on conflict (key) do nothing",
        context.idempotency_key, order, step)
    await asyncio.sleep(0.002)
    return {"step": step}

@rhythm.task(transactional=True)
async def bank(context: rhythm.TaskContext, order: str) -> str:
    await context.connection.execute(
        "insert into ledger (key, order_id, step) values (gen_random_uuid()::text, $1, 'bank')", order)
    return "bank"

@rhythm.task(transactional=True)
def till(context: rhythm.TaskContext, order: str) -> str:
    context.connection.execute(
        "insert into ledger (key, order_id, step) values (gen_random_uuid()::text, %s, 'till')", [order])
    return "till"

@rhythm.task
async def plain(i: int) -> int:
    return i * 2

@rhythm.task
async def slow(seconds: float, mark: str) -> str:
    await (await pool()).execute("insert into ledger (key, order_id, step) values ($1, $1, 'begun')", mark)
    await asyncio.sleep(seconds)
    return mark

@rhythm.task
def poison() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@rhythm.task
async def raises() -> None:
    raise ValueError("no such article")

@rhythm.task
async def not_json() -> object:
    return {"a": b"bytes"}

@rhythm.task
async def not_a_number() -> float:
    return float("nan")

@rhythm.task(timeout="100ms")
async def times_out() -> None:
    await asyncio.sleep(60)

@rhythm.task
def blocks(seconds: float) -> int:
    import time
    time.sleep(seconds)
    return os.getpid()
"""
FLOW = """
workflow(ctx, inputs) {
  const steps = []
  for (const step of ["charge", "reserve", "ship"]) {
    const answer = await task("book", { order: inputs.order, step })
    steps.push(answer.step)
  }
  return { order: inputs.order, steps }
}
"""


@dataclass
class Shop:
    """A database with the shop's ledger and files, and ways to run it."""

    url: str
    folder: Path
    client: rhythm.Client
    processes: Processes
    others: list[Process] = field(default_factory=list)  #: whose output is shown as well when something is wrong

    def worker(self, *arguments: str, url: str | None = None, app: str = "shop") -> Process:
        """A worker; its tasks write into the ledger directly, whatever ``url`` it is given."""
        env = {"SHOP_URL": self.url}
        options = ("--heartbeat-timeout", HEARTBEAT, "--poll-interval", "200ms", *arguments)
        return self.processes.worker(
            url or self.url, *options, app=[app], workflows=["workflows"], cwd=self.folder, env=env
        )

    async def query(self, text: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url, statement_cache_size=0)
        try:
            return await connection.fetch(text, *arguments)
        finally:
            await connection.close()

    async def until(self, holds: Callable[[], Awaitable[object]], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_SECONDS} s\n{self.logs()}"
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def exchange_waiting(self) -> AsyncIterator[None]:
        """Holds up the exchanges of the one worker: one waits at its beginning, what came before it is answered."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute(
                    "select pg_advisory_xact_lock(uuid_hash_extended(incarnation, 0)) from rhythm.workers"
                )
                await self.until(lambda: self.query(LOCK_WAITS), "an exchange waits")
                yield
        finally:
            await connection.close()

    def logs(self) -> str:
        return "\n".join(f"--- {p.pid}\n{p.output[-1500:]}" for p in [*self.processes.started, *self.others])

    async def begun(self, mark: str) -> None:
        await self.until(lambda: self.query("select 1 from ledger where order_id = $1", mark), f"{mark} has begun")

    async def start_orders(self, count: int, prefix: str = "o") -> dict[uuid.UUID, Any]:
        """Starts workflows and plain tasks; what each must give, by id."""
        orders = [rhythm.Start("order", {"order": f"{prefix}{i}"}) for i in range(count)]
        tasks = [rhythm.Start("plain", {"i": i}) for i in range(count)]
        expected = [{"order": f"{prefix}{i}", "steps": ["charge", "reserve", "ship"]} for i in range(count)]
        ids = await self.client.start_many(orders + tasks)
        return dict(zip(ids, expected + [i * 2 for i in range(count)], strict=True))

    async def check(self, expected: dict[uuid.UUID, Any]) -> None:
        """Waits for all outcomes; each is as it must be, the ledger has each step once, no invariant is broken."""
        for execution_id, output in expected.items():
            assert output == await self.client.wait(execution_id, timeout=DEADLINE_SECONDS), self.logs()
        entries = await self.query(
            "select order_id, step, count(*) as n from ledger where step <> 'begun' group by 1, 2"
        )
        wanted = sum(3 for output in expected.values() if isinstance(output, dict))
        assert [dict(row) for row in entries if row["n"] != 1] == []
        assert len(entries) == wanted
        assert list(await self.client.store.breaches()) == []


@contextlib.asynccontextmanager
async def open_shop(url: str, folder: Path, processes: Processes, **options: Any) -> AsyncIterator[Shop]:
    """A shop on the database of this URL, which is migrated if need be; options are those of `rhythm.connect`."""
    (folder / "shop.py").write_text(TASKS)
    (folder / "workflows").mkdir()
    (folder / "workflows" / "order.flow").write_text(FLOW)
    async with rhythm.connect(url, **options) as client:
        await client.migrate()
        shop = Shop(url, folder, client, processes)
        await client.publish(folder / "workflows")
        await shop.query("create table ledger (key text primary key, order_id text not null, step text not null)")
        yield shop


@pytest_asyncio.fixture
async def shop(rhythm_url: str, tmp_path: Path, processes: Processes) -> AsyncIterator[Shop]:
    async with open_shop(rhythm_url, tmp_path, processes) as shop:
        yield shop


@pytest.fixture
def deadline() -> float:
    return DEADLINE_SECONDS
