"""What is measured: one coroutine per group, in the order of MEASURES.

Rates are taken by the database's clock, from the first claim to the last stored outcome, so that starting processes
and looking for the end cost nothing. Start times of tasks are taken in their bodies (see `clocks`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from rhythm.bench import clocks
from rhythm.bench.harness import WAIT_SECONDS, BenchFailed, Database, Harness
from rhythm.client import Client
from rhythm.client.starts import Start

CALLERS = 100  #: that start one execution after the other, on one client
STARTS_PER_CALLER = 200
LATENCY_STARTS = 300
FANOUT_TASKS = 10_000
FUNCTIONS = 1_000  #: async functions of three steps each, at a time, in one workflow
SUSPENDED = 2_000  #: orders that wait for their approval
RECOVERY_STEPS = 200
RECOVERY_HEARTBEAT_SECONDS = 2.0
IDLE_SECONDS = 10.0
QUEUE = "bench"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done. The defaults take about a minute and a half per repeat on two cores."""

    tasks: int = 200_000  #: no-op tasks; at most clocks.CAPACITY
    workflows: int = 3_000  #: of three steps each
    steps: int = 2_000  #: of one workflow, one after the other
    processes: int = 2  #: worker processes where not one is measured


async def tasks(harness: Harness, size: Size) -> None:
    """No-op tasks: starting them in bulk, then a queue of them with one worker process, and with several."""
    for processes in dict.fromkeys((1, size.processes)):
        async with harness.database() as (client, database):
            await known(client, database)
            clocks.clear(size.tasks)
            began = time.perf_counter()
            await client.start_many([Start("mark", {"i": i}, queue=QUEUE) for i in range(size.tasks)])
            if processes == 1:
                harness.note("bulk start/s (start_many)", size.tasks / (time.perf_counter() - began), "/s")
            await database.settled()
            await client.store.pause_queue(QUEUE, True)
            before = await database.connection.fetchval("select max(finished_at) from rhythm.outcomes")
            async with database.workers(processes, "-q", QUEUE) as running:
                await client.store.pause_queue(QUEUE, False)
                await database.idle_again("the queue of tasks")
                if processes == 1:
                    harness.note("worker memory under load", memory(running[0].pid), "MiB")
            clocks.span(size.tasks)  # raises when a task never ran
            seconds = await database.connection.fetchval(
                "select extract(epoch from max(finished_at) - min(started_at))::float8 from rhythm.outcomes "
                "where finished_at > $1",
                before,
            )
            harness.note(f"tasks/s, {count_of(processes)}", size.tasks / seconds, "/s")


async def starts(harness: Harness, size: Size) -> None:
    """Single starts: many callers at once on one client, and one after the other."""
    async with harness.database() as (client, database):
        await known(client, database)

        async def call(caller: int) -> None:
            for i in range(STARTS_PER_CALLER):
                await client.start("mark", {"i": i}, queue=QUEUE)

        began = time.perf_counter()
        await asyncio.gather(*(call(caller) for caller in range(CALLERS)))
        seconds = time.perf_counter() - began
        harness.note(f"start/s, {CALLERS} callers", CALLERS * STARTS_PER_CALLER / seconds, "/s")
        began = time.perf_counter()
        for i in range(1000):
            await client.start("mark", {"i": i}, queue=QUEUE)
        harness.note("start/s, one caller", 1000 / (time.perf_counter() - began), "/s")


async def latency(harness: Harness, size: Size) -> None:
    """From the call of start to the first line of the task, with one idle worker."""
    async with harness.database() as (client, database), database.workers(1, "-q", QUEUE):
        waits = await idle_waits(client)
    harness.note("idle start to run, p50", waits[len(waits) // 2] * 1000, "ms")
    harness.note("idle start to run, p99", waits[len(waits) * 99 // 100] * 1000, "ms")


async def idle_waits(client: Client) -> list[float]:
    """Seconds from the call of start to the first line of the task, in ascending order, while workers are idle."""
    clocks.clear(LATENCY_STARTS + 1)
    await (await client.start("mark", {"i": 0})).result(timeout=WAIT_SECONDS)
    waits = []
    for i in range(1, LATENCY_STARTS + 1):
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await client.start("mark", {"i": i})
        waits.append(await marked(i) - began)
    return sorted(waits)


async def workflows(harness: Harness, size: Size) -> None:
    """Workflows of three sequential steps, many at once: four activations, three tasks, seven transitions each."""
    async with harness.database() as (client, database), database.workers(size.processes):
        for execution_id in await client.start_many([Start("threeSteps", {})] * 20):
            await client.wait(execution_id, timeout=WAIT_SECONDS)
        since = await database.youngest()
        await client.start_many([Start("threeSteps", {}) for _ in range(size.workflows)])
        await finished(database, "threeSteps", since, size.workflows)
        rate = size.workflows / await database.spent(since)
    harness.note(f"3-step workflows/s, {count_of(size.processes)}", rate, "/s")


async def steps(harness: Harness, size: Size) -> None:
    """One workflow of many sequential steps: time per step, and whether later ones cost more."""
    async with harness.database() as (client, database), database.workers():
        await (await client.start("threeSteps", {})).result(timeout=WAIT_SECONDS)
        times = await stepped(client, size.steps)
    parts = [later - earlier for earlier, later in itertools.pairwise(times)]
    harness.note("ms per sequential step", (times[-1] - times[0]) / size.steps, "ms")
    harness.note("last tenth of the steps to the second", sum(parts[-10:]) / sum(parts[10:20]), "x")


async def fanout(harness: Harness, size: Size) -> None:
    """`Promise.all` over tasks, and many async functions of three steps at once, in one workflow."""
    async with harness.database() as (client, database), database.workers(size.processes, "-q", QUEUE, "-q", "default"):
        await (await client.start("allOf", {"tasks": 10})).result(timeout=WAIT_SECONDS)
        since = await database.youngest()
        execution = await client.start("allOf", {"tasks": FANOUT_TASKS})
        await execution.result(timeout=WAIT_SECONDS)
        rate = FANOUT_TASKS / await database.spent(since)
        harness.note(f"Promise.all over {FANOUT_TASKS:,} tasks, tasks/s", rate, "/s")
        since = await database.youngest()
        execution = await client.start("manyFunctions", {"functions": FUNCTIONS})
        await execution.result(timeout=WAIT_SECONDS)
        rate = FUNCTIONS * 3 / await database.spent(since)
        harness.note(f"{FUNCTIONS:,} async functions of 3 steps in one workflow, steps/s", rate, "/s")


async def recovery(harness: Harness, size: Size, *, done: int = RECOVERY_STEPS) -> None:
    """A worker is killed in the middle of a workflow: from the end of its heartbeat timeout to the next step."""
    timeout = ("--heartbeat-timeout", f"{RECOVERY_HEARTBEAT_SECONDS}s", "--poll-interval", "100ms")
    async with harness.database() as (client, database):
        clocks.clear(done * 1000)
        async with database.workers(1, *timeout) as (victim,):
            await client.start("markedSteps", {"steps": done * 1000})
            await marked(done)
            async with database.workers(1, *timeout):
                victim.kill()
                killed = time.perf_counter()
                since_beat = await database.connection.fetchval(
                    "select extract(epoch from rhythm.now() - w.seen_at)::float8 "
                    "from rhythm.workers w where w.pid = $1",
                    victim.pid,
                )
                dead = time.perf_counter() - since_beat + RECOVERY_HEARTBEAT_SECONDS
                begun = next(i for i in itertools.count(done) if not clocks.marked(i)) - 1
                resumed = await marked(begun, after=killed, or_next=True)
        harness.note("resume after a kill, beyond the heartbeat timeout", (resumed - dead) * 1000, "ms")


async def idle(harness: Harness, size: Size) -> None:
    """A worker with nothing to do: queries, processor time, connections, memory."""
    async with harness.database() as (client, database):
        counted = await count_calls(database)
        async with database.workers(1, "-q", QUEUE) as (worker,):
            await (await client.start("mark", {"i": 0})).result(timeout=WAIT_SECONDS)
            await asyncio.sleep(2.0)  # servers publish what they counted about once a second
            calls, cpu, began = await calls_so_far(database), processor_seconds(worker.pid), time.perf_counter()
            await asyncio.sleep(IDLE_SECONDS)
            seconds = time.perf_counter() - began
            if counted:
                calls = await calls_so_far(database) - calls
                harness.note("idle worker, queries/s", calls / seconds, "/s")
            if cpu is not None:
                spent = (processor_seconds(worker.pid) or 0.0) - cpu
                harness.note("idle worker, share of a core", 100 * spent / seconds, "%")
            connections = await database.connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() "
                "and application_name = any($1)",
                ["rhythm worker", "rhythm heartbeat", "rhythm listen"],
            )
            harness.note("idle worker, connections", connections, "")
            harness.note("idle worker, memory", memory(worker.pid), "MiB")


async def disk(harness: Harness, size: Size) -> None:
    """Disk per suspended workflow: an order of five items that waits for its approval."""
    items = [{"sku": f"sku-{i}", "price": 12.5 + i, "quantity": i + 1, "name": f"Item number {i}"} for i in range(5)]
    async with harness.database() as (client, database):
        async with database.workers(size.processes):
            order = {"id": "o-0", "customer": "c-1", "items": items}
            starts = [Start("order", {"order": {**order, "id": f"o-{i}"}}) for i in range(SUSPENDED)]
            before = await relations(database)
            await client.start_many(starts)
            await waiting(database, SUSPENDED)
        await database.connection.execute("vacuum full")
        held = await relations(database) - before
        # the finished payment of each order is there as well: it is history, not part of what is suspended
        snapshots = await database.connection.fetchval(
            "select avg(pg_column_size(s.*) + pg_column_size(w.*) + pg_column_size(e.*))::float8 "
            "from rhythm.waits w join rhythm.snapshots s using (id) join rhythm.executions e using (id)"
        )
    harness.note("disk per suspended order, its rows", snapshots, "bytes")
    harness.note("disk per suspended order, with indexes and its finished task", held / SUSPENDED, "bytes")


MEASURES: dict[str, Callable[[Harness, Size], Awaitable[None]]] = {
    "tasks": tasks,
    "starts": starts,
    "latency": latency,
    "workflows": workflows,
    "steps": steps,
    "fanout": fanout,
    "recovery": recovery,
    "idle": idle,
    "disk": disk,
}


# --- helpers -------------------------------------------------------------------------------------


def count_of(processes: int) -> str:
    """ "1 process", "2 processes"."""
    return f"{processes} process{'es' if processes > 1 else ''}"


async def known(client: Client, database: Database) -> uuid.UUID:
    """Lets a worker register the tasks and run one: starts of unknown names would be parked first. Returns its id."""
    async with database.workers(1, "-q", QUEUE):
        execution = await client.start("mark", {"i": 0}, queue=QUEUE)
        await execution.result(timeout=WAIT_SECONDS)
    return execution.id


async def stepped(client: Client, count: int) -> list[float]:
    """Runs one workflow of ``count`` steps; the times (ms) at its beginning and after each hundredth of them."""
    execution = await client.start("manySteps", {"steps": count})
    output = await execution.result(timeout=WAIT_SECONDS * 10)
    return list(output["times"])


async def marked(index: int, *, after: float = 0.0, or_next: bool = False) -> float:
    """When the task of this number (``or_next``: or the one after it) started, if ``after`` this time.

    Raises BenchFailed when it does not start.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        at = clocks.marked(index)
        if or_next and at <= after:
            at = clocks.marked(index + 1)
        if at > after:
            return at
        if time.monotonic() > deadline:
            raise BenchFailed("a task never started")
        await asyncio.sleep(0.0005)


async def finished(database: Database, name: str, since: int, count: int) -> None:
    """Waits until so many executions of a name, younger than ``since``, have finished."""

    async def all_of_them() -> bool:
        return bool(
            count
            <= await database.connection.fetchval(
                "select count(*) from rhythm.outcomes o join rhythm.executions e on e.id = o.id "
                "join rhythm.names n on n.id = e.name_id where n.name = $1 and e.seq > $2",
                name,
                since,
            )
        )

    await database.idle_again(name)
    await database.until(all_of_them, name)


async def waiting(database: Database, count: int) -> None:
    """Waits until so many workflows are suspended and nothing runs."""

    async def all_of_them() -> bool:
        return bool(count == await database.connection.fetchval("select count(*) from rhythm.waits where suspended"))

    await database.until(all_of_them, "suspended workflows")
    await database.idle_again("suspended workflows")


async def count_calls(database: Database) -> bool:
    """Lets the server count calls of functions in this database from the next connection on; False: we may not."""
    name = await database.connection.fetchval("select current_database()")
    try:
        await database.connection.execute(f'alter database "{name}" set track_functions = pl')
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


async def calls_so_far(database: Database) -> int:
    """Calls that workers have made of Rhythm's functions from outside."""
    await database.connection.execute("select pg_stat_clear_snapshot()")
    return int(
        await database.connection.fetchval(
            "select coalesce(sum(calls), 0) from pg_stat_user_functions where schemaname = 'rhythm' "
            "and funcname in ('exchange', 'step', 'maintain', 'heartbeat', 'held', 'hand_back')"
        )
    )


async def relations(database: Database) -> int:
    """Bytes of all tables and indexes of Rhythm."""
    return int(
        await database.connection.fetchval(
            "select sum(pg_total_relation_size(oid)) from pg_class "
            "where relnamespace = 'rhythm'::regnamespace and relkind = 'r'"
        )
    )


def memory(pid: int) -> float:
    """Resident memory of a process, MiB; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def processor_seconds(pid: int) -> float | None:
    """Processor time of a process so far; None where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
