"""A database of an earlier version, with everything under way, is migrated and goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from rhythm.model import Claim, ExchangeRequest, ExchangeResult, NewDefinition, QueueLimits, TaskOutcome, new_id
from rhythm.store import Store
from rhythm.store.marshal import exchange_call, exchange_result
from rhythm.store.store import PROTOCOL
from tests.store.bench import OK, Bench, Worker, child, end, suspend

RELEASED = Path(__file__).parent / "schemas"
FIRST_DEFAULTS = 60  #: arguments of rhythm.exchange in version 1; later ones have defaults


class OldWorker(Worker):
    """One of version 1: it calls the functions as they were then, also when they have changed since."""

    async def exchange(self, **changes: Any) -> ExchangeResult:
        request = self.request(**changes)
        query, arguments = exchange_call(request)
        placeholders = re.findall(r"\$\d+::[a-z \[\]]+", query)[:FIRST_DEFAULTS]
        row = await self.bench.raw.fetchrow(
            f"select * from rhythm.exchange({', '.join(placeholders)})",
            *arguments[:FIRST_DEFAULTS],
        )
        names = {id_: name for name, id_ in self.registered.names.items()}
        flow = await self.bench.raw.fetch("select id, name from rhythm.names where kind = 2")
        names.update((r["id"], r["name"]) for r in flow)
        queues = {id_: name for name, id_ in self.registered.queues.items()}
        return exchange_result({"o_next_pass": None, **dict(row)}, request, names.__getitem__, queues.__getitem__)

    @classmethod
    async def of(cls, bench: Bench, *tasks: str) -> OldWorker:
        made = await bench.worker(*tasks)
        return cls(bench, made.incarnation, made.registered)


async def start(bench: Bench, name: str, **options: Any) -> Any:
    given = "".join(f", p_{option} => ${i}" for i, option in enumerate(options, 2))
    return await bench.raw.fetchval(f"select rhythm.start($1{given})", name, *options.values())


async def test_what_is_under_way_in_version_one_goes_on_after_the_migration(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute((RELEASED / "0001.sql").read_text())
    # so that this release's calls pass as those of a worker of then
    await connection.execute(f"create function rhythm.protocol() returns integer language sql as 'select {PROTOCOL}'")
    await connection.execute("create function rhythm.reads_plain_only() returns boolean language sql as 'select true'")
    await connection.close()
    async with Bench.on(postgres_url) as bench:
        worker = await OldWorker.of(bench, "work")
        await bench.store.publish([NewDefinition("order", "h1", b"{}", "workflow() {}", "s")])
        flow = await start(bench, "order")
        (claim,) = await worker.claim()
        await worker.commit(suspend(claim, children=[child(1)]))
        batch = [await start(bench, "work", key=str(i)) for i in range(4)]
        unknown = await start(bench, "unheard")
        delayed = await start(bench, "work", delay=bench.now - bench.now)
        claims = await worker.claim(tasks=3)

        assert "functions" in await bench.store.migrate()
        await bench.store.limit_queue("default", QueueLimits(concurrency=4))
        refused = (await worker.complete(*claims)).refused  # the old worker, still running
        new = await bench.worker("work", "unheard")
        await bench.pass_time(10)
        done: list[Claim] = []
        for _ in range(10):
            await worker.heartbeat()
            await bench.store.maintain(new_id())
            done += (taken := await new.claim())
            assert len(taken) <= 4, "the limits count"
            tasks = [c for c in taken if c.kind == "task"]
            await new.complete(*tasks)
            await new.commit(*(end(c) for c in taken if c.kind == "workflow"))

        statuses = {id_: await bench.status(id_) for id_ in (flow, unknown, delayed, *batch)}
        assert frozenset() == refused
        assert {"completed"} == set(statuses.values())
        assert [] == await bench.store.breaches()


async def test_a_worker_of_version_one_works_on_beside_new_ones(rhythm_url: str) -> None:
    async with Bench.on(rhythm_url) as bench:
        await bench.publish("order")
        old = await OldWorker.of(bench, "work")
        await bench.store.limit_queue("default", QueueLimits(concurrency=2))
        flow = await bench.start("order")
        (claim,) = await old.claim()
        await old.commit(suspend(claim, children=[child(1), child(2)]))
        first = await old.claim()
        outcomes: Sequence[TaskOutcome] = [TaskOutcome(c.token, c.id, "completed", OK) for c in first]
        second = (await old.exchange(task_outcomes=outcomes, task_limit=5)).claims
        await old.complete(*second)
        (resumed,) = await old.claim()
        await old.commit(end(resumed))

        assert (1, 1) == (len(first), len(second)), "a place is the workflow's"
        assert "completed" == await bench.status(flow)
        assert [] == await bench.store.breaches()


@pytest.mark.parametrize("script", [pytest.param(p.read_text(), id=p.stem) for p in sorted(RELEASED.glob("*.sql"))])
async def test_the_number_of_arguments_of_old_workers_is_what_they_sent(script: str, postgres_url: str) -> None:
    store = await Store.connect(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(script)
        count = await connection.fetchval("select pronargs - pronargdefaults from pg_proc where proname = 'exchange'")
    finally:
        await connection.close()
        await store.close()
    _, arguments = exchange_call(ExchangeRequest(incarnation=new_id()))

    assert FIRST_DEFAULTS == count < len(arguments)
