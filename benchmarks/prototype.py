"""The bare prototype: the same tables and the same moves as the engine, in forty lines of SQL, nothing else.

Insert-only executions, a narrow ready table, one claim row per batch, appended outcomes, UUID keys; one
function that takes the last batch's outcomes and claims the next. It has no retries, timeouts, names,
queues of workflows, heartbeats or checks: what it reaches is the ceiling for this design on this machine,
and the engine's share of it is the price of everything else.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from typing import Any

import asyncpg
import uvloop

from rhythm.model import new_id

BATCH = 500
SCHEMA = """
drop schema if exists prototype cascade;
create schema prototype;
create table prototype.executions (
    id uuid primary key, seq bigint generated always as identity, queue int not null, priority int not null,
    name int not null, created_at timestamptz not null, inputs bytea);
create table prototype.ready (
    queue int, priority int, seq bigint, name int not null, attempts smallint not null, id uuid not null,
    primary key (queue, priority, seq));
create table prototype.claims (
    token bigint generated always as identity primary key, worker int, claimed_at timestamptz, ids uuid[],
    attempts smallint[]);
create table prototype.outcomes (
    id uuid primary key, status smallint not null, attempts smallint, claimed_at timestamptz,
    finished_at timestamptz, output bytea);
create function prototype.exchange(p_token bigint, p_index int[], p_outputs bytea[], p_limit int,
    out token bigint, out ids uuid[], out inputs bytea[], out names int[], out attempts smallint[])
language plpgsql as $$
declare v prototype.claims;
begin
    if p_token is not null then
        delete from prototype.claims c where c.token = p_token returning c.* into v;
        if not found then raise exception 'fenced'; end if;
        insert into prototype.outcomes
            select v.ids[u.i], 2, v.attempts[u.i], v.claimed_at, clock_timestamp(), u.output
            from unnest(p_index, p_outputs) u(i, output) on conflict do nothing;
    end if;
    with gone as (
        delete from prototype.ready r where r.ctid = any(array(
            select c.ctid from prototype.ready c where c.queue = 0 order by c.queue, c.priority, c.seq
            limit p_limit for update skip locked)) returning r.*)
    select array_agg(g.id order by g.seq), array_agg(g.name order by g.seq),
           array_agg((g.attempts + 1)::smallint order by g.seq) into ids, names, attempts from gone g;
    if ids is not null then
        insert into prototype.claims (worker, claimed_at, ids, attempts)
            values (1, clock_timestamp(), ids, attempts) returning claims.token into token;
        select array_agg(e.inputs order by u.o) into inputs
            from unnest(ids) with ordinality u(id, o) join prototype.executions e on e.id = u.id;
    end if;
end $$;
"""
START = """
with e as (
    insert into prototype.executions (id, queue, priority, name, created_at, inputs)
    select u.id, 0, 0, 1, clock_timestamp(), u.inputs from unnest($1::uuid[], $2::bytea[]) u(id, inputs)
    returning id, seq)
insert into prototype.ready select 0, 0, seq, 1, 0, id from e
"""


async def _noop(inputs: Any) -> Any:
    return inputs


def _run(batch: list[bytes]) -> list[bytes]:
    outputs = []
    for inputs in batch:
        coroutine = _noop(json.loads(inputs))
        try:
            coroutine.send(None)
        except StopIteration as stop:
            outputs.append(json.dumps(stop.value).encode())
    return outputs


async def _drain(url: str) -> int:
    connection = await asyncpg.connect(url)
    exchange = await connection.prepare("select * from prototype.exchange($1, $2, $3, $4)")
    done, token, index, outputs = 0, None, None, None
    while True:
        token, ids, inputs, _, _ = await exchange.fetchrow(token, index, outputs, BATCH)
        if token is None:
            await connection.close()
            return done
        outputs = _run(inputs)
        index = list(range(1, len(ids) + 1))
        done += len(ids)


def _process(url: str, connections: int, barrier: Any, results: Any) -> None:
    async def run() -> tuple[int, float, float]:
        barrier.wait()
        started = time.perf_counter()
        done = sum(await asyncio.gather(*[_drain(url) for _ in range(connections)]))
        return done, started, time.perf_counter()

    results.put(uvloop.run(run()))


async def fill(url: str, count: int) -> float:
    """Makes the schema anew and starts ``count`` tasks; starts per second."""
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    began = time.perf_counter()
    for first in range(0, count, 1000):
        numbers = range(first, min(count, first + 1000))
        await connection.execute(START, [new_id() for _ in numbers], [b'{"i":%d}' % i for i in numbers])
    rate = count / (time.perf_counter() - began)
    await connection.execute("vacuum analyze prototype.ready")
    await connection.close()
    return rate


def drain(url: str, count: int, *, processes: int, connections: int) -> float:
    """Tasks per second with this many processes of this many connections."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_process, args=(url, connections, barrier, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    ends = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    if sum(end[0] for end in ends) != count:
        raise RuntimeError(f"the prototype ran {sum(end[0] for end in ends)} of {count} tasks")
    return count / (max(end[2] for end in ends) - min(end[1] for end in ends))
