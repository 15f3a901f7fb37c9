"""Workers and PostgreSQL killed at random under mixed workflows; then everything must be as if nothing had happened.

    python -m tests.chaos [--workflows 5000] [--workers 3] [--seed N]

Prints what was done and the number of breaches; exit code 1 if there are any. What counts as one: an execution without
an outcome or with a wrong one, a step that stands in the ledger twice or never, signals out of order, a timer that was
early, a limit of a queue that was exceeded, a broken invariant, anything left behind by workers that ended in order. An
execution may fail with type "lost" (its worker was killed three times while it ran); such ones are counted apart, with
those that waited for them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

import rhythm
from rhythm.errors import DatabaseUnavailable, ExecutionFinished
from rhythm.model import OutcomeInfo, QueueLimits, new_id
from rhythm.store.embedded import Cluster, choose_account
from tests.support.processes import Process, Zygote
from tests.support.servers import migrate

T = TypeVar("T")
HEARTBEAT_SECONDS = 2.0
CALM_SECONDS = 300.0  #: for everything to end, once nothing is killed any more
BATCH = 40  #: workflows started together
TASKS = """
import asyncio, os, random
import asyncpg
import rhythm

_pools = {}

async def execute(query, *arguments):
    loop = asyncio.get_running_loop()
    while True:
        try:
            if loop not in _pools:
                _pools[loop] = asyncpg.create_pool(os.environ["SHOP_URL"], min_size=0, max_size=3)
            await (await _pools[loop]).execute(query, *arguments)
            return
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(0.1)

async def write(key, order, step):
    await execute(
        "insert into ledger (key, order_id, step) values ($1, $2, $3) on conflict (key) do nothing", key, order, step)

@rhythm.task
async def book(context: rhythm.TaskContext, order: str, step: str) -> str:
    await write(context.idempotency_key, order, step)
    return step

@rhythm.task(retries=1000, retry=rhythm.Retry(initial="10ms", max="50ms"))
async def flaky(context: rhythm.TaskContext, order: str, step: str) -> str:
    if random.random() < 0.6:
        raise RuntimeError("not this time")
    await write(context.idempotency_key, order, step)
    return step

@rhythm.task
def plain(i: int) -> int:
    return i * 2

@rhythm.task(queue="narrow")
async def narrow(context: rhythm.TaskContext, order: str, step: str) -> str:
    await execute("insert into begins (id) values ($1)", context.execution_id)
    await asyncio.sleep(random.uniform(0, 0.03))
    await write(context.idempotency_key, order, step)
    return step
"""
CONCURRENCY, RATE, KEY_CONCURRENCY = 6, 60, 2  #: of the queue "narrow": rate in a second
#: Where attempts began on that queue, and who held a place when, all by the database's clock.
WATCH = """
create table begins (id uuid not null, at timestamptz not null default clock_timestamp());
create table held (
  id uuid not null, key text not null, since timestamptz not null, from_ timestamptz not null, till timestamptz);
create index on held (id);
create function note_place() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'INSERT' then
    insert into public.held values (new.id, new.limit_key, new.since, clock_timestamp());
  else
    update public.held set till = clock_timestamp() where id = old.id and till is null;
  end if;
  return null;
end $$;
create trigger watch after insert or delete on rhythm.places for each row execute function note_place();
"""
#: What must be empty: more at a time than the limits, more within a second, begun without a place. A worker that was
#: paused may go on for a moment with what was lost meanwhile.
EXCEEDED = f"""
with edges as (
  select key, from_ as at, 1 as step from held union all select key, till, -1 from held where till is not null),
counts as (
  select e.at, sum(step) over (order by at, step rows unbounded preceding) as count,
         sum(step) over (partition by key order by at, step rows unbounded preceding) as of_key from edges e),
begun as (select h.since, lag(h.since, {RATE}) over (order by h.since) as before from held h)
select 'at a time: ' || max(c.count) || ', of a key ' || max(c.of_key) from counts c
  having max(c.count) > {CONCURRENCY} or max(c.of_key) > {KEY_CONCURRENCY}
union all
select 'within a second: more than {RATE} up to ' || b.since from begun b where b.since - b.before < interval '1 s'
union all
select b.id || ' began without a place at ' || b.at from begins b
  where not exists (select from held h where h.id = b.id and b.at between h.from_ and coalesce(h.till, b.at))
    and not exists (select from rhythm.outcomes o where o.id = b.id and o.lost > 0)
"""
FLOWS = {
    "sequence": """
workflow(ctx, { order }) {
  const steps = []
  for (const step of ["charge", "reserve", "ship"]) steps.push(await task("book", { order, step }))
  return steps
}""",
    "fan": """
workflow(ctx, { order }) {
  const all = await Promise.all([0, 1, 2, 3, 4].map(i => task("book", { order, step: "fan" + i })))
  return all.length
}""",
    "timers": """
workflow(ctx, { order }) {
  const begin = Date.now()
  await sleep(50)
  const early = Date.now() - begin < 50
  const first = await Promise.race([sleep("9d"), task("book", { order, step: "raced" })])
  return [early, first]
}""",
    "signals": """
workflow(ctx, { order }) {
  const messages = [await signal("go"), await signal("go")]
  await task("book", { order, step: "after" })
  messages.push(await signal("go"))
  return messages
}""",
    "children": """
workflow(ctx, { order }) {
  const made = await Promise.all([
    child("sequence", { order: order + "-a" }), child("fan", { order: order + "-b" }), task("plain", { i: 21 })
  ])
  return made
}""",
    "retries": """
workflow(ctx, { order }) {
  return [await task("flaky", { order, step: "first" }), await task("flaky", { order, step: "second" })]
}""",
    "limited": """
workflow(ctx, { order }) {
  const limitKey = "k" + order[order.length - 1]
  const all = await Promise.all([0, 1, 2].map(i => task("narrow", { order, step: "narrow" + i }, { limitKey })))
  return all.length
}""",
    "cancelled": """
workflow(ctx, { order }) {
  try {
    await task("book", { order, step: "held" })
    if (ctx.cancelled) return "it was held before it was cancelled"
    return await signal("never")
  } finally {
    await task("book", { order, step: "undone" })
  }
}""",
}
SEQUENCE = ["charge", "reserve", "ship"]
FAN = [f"fan{i}" for i in range(5)]
OUTPUTS: dict[str, Any] = {
    "sequence": SEQUENCE,
    "fan": 5,
    "timers": [False, "raced"],
    "signals": [1, 2, 3],
    "children": [SEQUENCE, 5, 42],
    "retries": ["first", "second"],
    "limited": 3,
}
#: Suffix of the order and step, for each entry in the ledger.
LEDGER: dict[str, list[tuple[str, str]]] = {
    "sequence": [("", step) for step in SEQUENCE],
    "fan": [("", step) for step in FAN],
    "timers": [("", "raced")],
    "signals": [("", "after")],
    "children": [("-a", step) for step in SEQUENCE] + [("-b", step) for step in FAN],
    "retries": [("", "first"), ("", "second")],
    "limited": [("", f"narrow{i}") for i in range(3)],
}


class Chaos:
    """One run. ``breaches`` grows with everything that is not as it must be."""

    def __init__(self, cluster: Cluster, zygote: Zygote, folder: Path, options: argparse.Namespace) -> None:
        self.cluster = cluster
        self.zygote = zygote
        self.folder = folder
        self.options = options
        self.rng = random.Random(options.seed)
        self.workers: list[Process] = []
        self.started: dict[uuid.UUID, tuple[str, str]] = {}  #: flow and order
        self.done = Counter[str]()
        self.breaches: list[str] = []
        self.calm = False

    # --- what is killed ---

    def add_worker(self) -> None:
        url = self.cluster.url
        options = f"--app shop --log-level warning --heartbeat-timeout {HEARTBEAT_SECONDS}s --poll-interval 100ms"
        command = ["worker", "--database-url", url, *options.split()]
        self.workers.append(self.zygote.rhythm(*command, cwd=self.folder, env={"SHOP_URL": url}))

    async def kill_workers(self) -> None:
        while not self.calm:
            await asyncio.sleep(self.rng.uniform(0.3, 1.5))
            worker = self.workers.pop(self.rng.randrange(len(self.workers)))
            what = self.rng.choices(["kill", "stop", "drain"], [7, 2, 1])[0]
            if not worker.alive:
                what = "ended by itself"
            elif what == "kill":
                await asyncio.to_thread(worker.kill)
            elif what == "drain":
                worker.terminate()
            else:
                worker.freeze()
                asyncio.get_running_loop().call_later(HEARTBEAT_SECONDS * self.rng.uniform(0.2, 2.5), worker.thaw)
            self.done[f"workers: {what}"] += 1
            if what == "stop":
                self.workers.append(worker)
            else:
                self.add_worker()

    async def crash_postgres(self) -> None:
        while not self.calm:
            await asyncio.sleep(self.rng.uniform(4, 10))
            await asyncio.to_thread(crash, self.cluster)
            await asyncio.sleep(self.rng.uniform(0, 1))
            await asyncio.to_thread(self.cluster.start)
            self.done["crashes of PostgreSQL"] += 1

    # --- what is asked for ---

    async def ask(self, client: rhythm.Client) -> None:
        """Starts everything, sends signals and cancels, all while things are killed."""
        flows = list(FLOWS)
        later: set[asyncio.Task[None]] = set()
        for first in range(0, self.options.workflows, BATCH):
            batch = []
            for number in range(first, min(first + BATCH, self.options.workflows)):
                flow, order, id_ = flows[number % len(flows)], f"o{number}", new_id()
                self.started[id_] = (flow, order)
                batch.append(rhythm.Start(flow, {"order": order}, id=id_))
            await insist(lambda batch=batch: client.start_many(batch))
            for start in batch:
                if start.name in ("signals", "cancelled"):
                    asking = self.signal if start.name == "signals" else self.cancel
                    assert start.id is not None
                    later.add(asyncio.create_task(asking(client, start.id)))
            await asyncio.sleep(self.rng.uniform(0, 0.3))
        await asyncio.gather(*later)

    async def signal(self, client: rhythm.Client, execution_id: uuid.UUID) -> None:
        for number in (1, 2, 3):
            send_id = new_id()
            for _ in range(self.rng.choice([1, 1, 2])):  # some are sent twice
                with contextlib.suppress(ExecutionFinished):
                    payload = str(number).encode()
                    await insist(lambda p=payload, s=send_id: client.store.signal(execution_id, "go", p, s))
            await asyncio.sleep(self.rng.uniform(0, 2))

    async def cancel(self, client: rhythm.Client, execution_id: uuid.UUID) -> None:
        await asyncio.sleep(self.rng.uniform(0, 3))
        for _ in range(self.rng.choice([1, 2])):
            with contextlib.suppress(ExecutionFinished):
                await insist(lambda: client.store.cancel(execution_id))

    # --- the whole ---

    async def run(self) -> None:
        began = time.monotonic()
        for _ in range(self.options.workers):
            self.add_worker()
        async with rhythm.connect(self.cluster.url) as client:
            killing = [asyncio.create_task(self.kill_workers()), asyncio.create_task(self.crash_postgres())]
            await self.ask(client)
            # half of what is left runs under fire, the rest in peace
            while len(await self.outcomes(client)) < self.options.workflows * 0.9:
                if any(task.done() for task in killing):
                    break
                await asyncio.sleep(0.5)
            self.calm = True
            await asyncio.gather(*killing)
            outcomes = await self.wait_for_all(client)
            await self.wait_for_burials(client)
            for worker in self.workers:
                worker.terminate()
            for worker in self.zygote.started:
                with contextlib.suppress(ProcessLookupError):
                    await asyncio.to_thread(worker.wait, 60)
            await self.check(client, outcomes)
        self.done["seconds"] = int(time.monotonic() - began)

    async def outcomes(self, client: rhythm.Client) -> dict[uuid.UUID, OutcomeInfo]:
        found: dict[uuid.UUID, OutcomeInfo] = {}
        ids = list(self.started)
        for first in range(0, len(ids), 1000):
            part = await insist(lambda part=ids[first : first + 1000]: client.store.outcomes(part))
            found |= {id_: outcome for id_, outcome in part.items() if outcome is not None}
        return found

    async def wait_for_all(self, client: rhythm.Client) -> dict[uuid.UUID, OutcomeInfo]:
        deadline = time.monotonic() + CALM_SECONDS
        outcomes = await self.outcomes(client)
        while len(outcomes) < len(self.started) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            outcomes = await self.outcomes(client)
        return outcomes

    async def wait_for_burials(self, client: rhythm.Client) -> None:
        """Those killed last must have been declared dead before the others end, or nobody is left to do it.

        And those begun last must have registered, or their rows would be taken for those.
        """
        deadline = time.monotonic() + 10 * HEARTBEAT_SECONDS
        while time.monotonic() < deadline:
            alive = sorted(worker.pid for worker in self.workers if worker.alive)
            if sorted(worker.pid for worker in await insist(client.store.workers)) == alive:
                return
            await asyncio.sleep(0.1)  # the database has no event to wait for

    # --- what must hold ---

    async def check(self, client: rhythm.Client, outcomes: dict[uuid.UUID, OutcomeInfo]) -> None:
        connection = await asyncpg.connect(self.cluster.url)
        entries = Counter(
            (row["order_id"], row["step"]) for row in await connection.fetch("select order_id, step from ledger")
        )
        self.breaches += [f"{entry} stands {n} times in the ledger" for entry, n in entries.items() if n > 1]
        for execution_id, (flow, order) in self.started.items():
            outcome = outcomes.get(execution_id)
            if outcome is None:
                self.breaches.append(f"{flow} {execution_id} has no outcome")
            else:
                self.check_one(flow, order, execution_id, outcome, entries)
        for invariant, breached_id, problem in await client.store.breaches():
            self.breaches.append(f"{invariant} {breached_id} {problem}")
        self.breaches += [f"I8 {row[0]}" for row in await connection.fetch(EXCEEDED)]
        self.done["starts on the queue with limits"] = await connection.fetchval("select count(*) from held")
        for table in ("claims", "workers", "idle", "ready", "gated", "places", "waits", "timers"):
            if count := await connection.fetchval(f"select count(*) from rhythm.{table}"):
                self.breaches.append(f"{count} rows of {table} are left")
        self.done["executions"] = await connection.fetchval("select count(*) from rhythm.executions")
        self.done["attempts lost"] = await connection.fetchval("select sum(lost) from rhythm.outcomes")
        await connection.close()

    def check_one(
        self, flow: str, order: str, execution_id: uuid.UUID, outcome: OutcomeInfo, entries: Counter[tuple[str, str]]
    ) -> None:
        value = json.loads(outcome.payload)
        self.done[f"workflows {outcome.status}"] += 1
        if outcome.status == "failed" and '"lost"' in outcome.payload.decode():
            self.done["of them lost three times"] += 1
            return
        if flow == "cancelled":
            held, undone = entries[order, "held"], entries[order, "undone"]
            if outcome.status == "failed" or held > undone or undone > 1:
                self.breaches.append(f"{flow} {execution_id}: {outcome.status}, held {held}, undone {undone}")
            return
        if (outcome.status, value) != ("completed", OUTPUTS[flow]):
            self.breaches.append(f"{flow} {execution_id}: {outcome.status} {value!r:.200}")
        for suffix, step in LEDGER[flow]:
            if entries[order + suffix, step] != 1:
                self.breaches.append(f"{flow} {execution_id}: {order + suffix} {step} is not in the ledger")

    def summary(self) -> str:
        lines = [f"seed {self.options.seed}", *(f"{count:>8}  {what}" for what, count in sorted(self.done.items()))]
        return "\n".join([*lines, *self.breaches[:50], f"{len(self.breaches):>8}  breaches"])


def crash(cluster: Cluster) -> None:
    """An immediate shutdown: no checkpoint, every connection cut in the middle of what it does."""
    main_process = cluster.main_process()
    assert main_process is not None, "it was running"
    os.kill(main_process, signal.SIGQUIT)
    deadline = time.monotonic() + 20
    while cluster.running():
        assert time.monotonic() < deadline, "the server does not stop"
        time.sleep(0.01)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call, which may be repeated unchanged, until the database has answered."""
    while True:
        try:
            return await call()
        except DatabaseUnavailable:
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def server() -> Iterator[Cluster]:
    """A PostgreSQL of this run's own, to be crashed."""
    with tempfile.TemporaryDirectory(prefix="rhythm-chaos-") as name:
        home = Path(name)
        home.chmod(0o755)  # the server's account has to reach its data in it
        cluster = Cluster(home, choose_account(), settings={"fsync": "off", "max_connections": "200"})
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


async def prepare(url: str, folder: Path) -> None:
    (folder / "shop.py").write_text(TASKS)
    (folder / "workflows").mkdir()
    for name, text in FLOWS.items():
        (folder / "workflows" / f"{name}.flow").write_text(text)
    async with rhythm.connect(url) as client:
        await client.publish(folder / "workflows")
        await client.store.limit_queue("narrow", QueueLimits(CONCURRENCY, (RATE, 1.0), KEY_CONCURRENCY))
    connection = await asyncpg.connect(url)
    await connection.execute("create table ledger (key text primary key, order_id text not null, step text not null)")
    await connection.execute(WATCH)
    await connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kills workers and PostgreSQL.")
    parser.add_argument("--workflows", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no server behind
    with server() as cluster, tempfile.TemporaryDirectory(prefix="rhythm-chaos-") as name:
        folder = Path(name)
        migrate(cluster.url)
        asyncio.run(prepare(cluster.url, folder))
        with Zygote(folder) as zygote:
            chaos = Chaos(cluster, zygote, folder, options)
            asyncio.run(chaos.run())
        if chaos.breaches:
            for process in zygote.started:
                print(f"--- {process.pid}\n{process.output[-3000:]}", file=sys.stderr)
    print(chaos.summary())
    return 1 if chaos.breaches else 0


if __name__ == "__main__":
    raise SystemExit(main())
