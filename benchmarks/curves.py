"""What grows, and what it costs: python -m benchmarks.curves [--only depth,…] [--scale 1.0] [--minutes 10] [--plot]

Each curve is measured as `rhythm bench` measures, on a database that holds more and more: pending, suspended and
finished executions (made in SQL, as copies of one that the engine made), steps of one workflow, tasks of one fan-out,
bytes of a snapshot, workers; and the rate over time while another session holds a snapshot open. Points go to
results/curves.json, figures to docs/figures/. ``--scale 0.1`` measures a tenth of the sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from rhythm.bench import measures
from rhythm.bench.harness import WAIT_SECONDS, Database, Harness
from rhythm.bench.measures import QUEUE
from rhythm.client import Client, Start
from rhythm.store.embedded import EmbeddedServer

Hold = Callable[[Client, Database, int], Awaitable[None]]  #: Makes a database hold so many rows.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "curves.json"
FIGURES = ROOT / "docs" / "figures"
DRAINED = 60_000  #: tasks for one point of a rate
REPEATS = 3
CHUNK = 100_000  #: rows copied in one statement


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve: what is varied, and what is measured."""

    title: str
    x: str
    y: str
    measure: Callable[[Bench], Awaitable[list[tuple[float, float]]]]
    logarithmic: bool = True


@dataclass(frozen=True, slots=True)
class Bench:
    """What the measures need."""

    harness: Harness
    scale: float
    minutes: float

    def sizes(self, *numbers: int) -> list[int]:
        """The sizes to measure, in ascending order."""
        return sorted({max(int(n * self.scale), min(n, 1)) for n in numbers})


# --- rows without the work of making them ---------------------------------------------------------


async def copy(database: Database, table: str, source: Any, count: int, *, changed: dict[str, str]) -> None:
    """Copies a row of ``table`` for each of the first ``count`` unused ids, with some columns changed (to SQL)."""
    rows = await database.connection.fetch(
        "select attname, attidentity <> '' as identity from pg_attribute "
        "where attrelid = $1::regclass and attnum > 0 and not attisdropped",
        f"rhythm.{table}",
    )
    columns = [row["attname"] for row in rows if not row["identity"]]
    values = [changed.get(column, "i.id" if column == "id" else f"s.{column}") for column in columns]
    for first in range(0, count, CHUNK):
        await database.connection.execute(
            f"insert into rhythm.{table} ({', '.join(columns)}) select {', '.join(values)} "
            f"from (select * from rhythm.{table} where id = $1) s, public.fresh i where i.n > $2 and i.n <= $3",
            source,
            first,
            min(first + CHUNK, count),
            timeout=600,
        )


async def fresh_ids(database: Database, count: int) -> None:
    """A table of new ids, in the order of their age."""
    await database.connection.execute("drop table if exists public.fresh")
    await database.connection.execute(
        f"create table public.fresh as select n, rhythm.new_id() as id from generate_series(1, {count}) n", timeout=600
    )
    await database.connection.execute("create index on public.fresh (n)", timeout=600)


async def grow_pending(database: Database, source: Any, count: int) -> None:
    """As many pending tasks more, behind all others."""
    await fresh_ids(database, count)
    await copy(database, "executions", source, count, changed={})
    await database.connection.execute(
        "insert into rhythm.ready (queue_id, name_id, priority_rank, lost, seq, attempts, size, id) "
        "select e.queue_id, e.name_id, -e.priority, 0, e.seq, 0, octet_length(e.inputs), e.id "
        "from public.fresh i join rhythm.executions e on e.id = i.id",
        timeout=600,
    )


async def grow_finished(database: Database, source: Any, count: int) -> None:
    """As many finished tasks more."""
    await fresh_ids(database, count)
    await copy(database, "executions", source, count, changed={})
    await copy(database, "outcomes", source, count, changed={})


async def grow_suspended(database: Database, source: Any, count: int) -> None:
    """As many suspended workflows more, each waiting for a signal or its timer."""
    await fresh_ids(database, count)
    for table in ("executions", "waits", "snapshots", "timers"):
        await copy(database, table, source, count, changed={})


# --- rates ---------------------------------------------------------------------------------------


async def drain_rate(client: Client, database: Database) -> float:
    """No-op tasks per second while DRAINED of them are drained by workers that have just begun."""
    since = await filled(client, database)
    async with database.workers(2, "-q", QUEUE):
        return await drained(client, database, since)


async def filled(client: Client, database: Database) -> int:
    """Pauses the queue and fills it with DRAINED tasks. Returns what `drained` needs."""
    since = await database.youngest()
    await client.store.pause_queue(QUEUE, True)
    await client.start_many([Start("mark", {"i": 0}, queue=QUEUE)] * DRAINED)
    return since


async def drained(client: Client, database: Database, since: int) -> float:
    """The rate at which running workers drain what `filled` has started, per second."""
    await client.store.pause_queue(QUEUE, False)
    await database.idle_again("the queue")
    return DRAINED / await database.spent(since)


async def window_rate(client: Client, database: Database, *, seconds: float) -> float:
    """No-op tasks per second from a queue that is longer than what is drained: by what was finished in a while."""
    await client.store.pause_queue(QUEUE, True)
    async with database.workers(2, "-q", QUEUE):
        began = await database.connection.fetchval("select rhythm.now()")
        await client.store.pause_queue(QUEUE, False)
        await asyncio.sleep(seconds)
        await client.store.pause_queue(QUEUE, True)
    count, spent = await database.connection.fetchrow(
        "select count(*), extract(epoch from max(finished_at) - min(started_at))::float8 from rhythm.outcomes "
        "where finished_at > $1",
        began,
    )
    return float(count / spent)


async def shares(
    bench: Bench, sizes: list[int], rate: Callable[[Client, Database], Awaitable[float]], hold: Hold, empty: int = 1
) -> list[tuple[float, float]]:
    """A rate in a database that holds more and more, as a share of the rate in one that holds ``empty``.

    Both are measured by turns, so that what else the machine does changes neither: the median of REPEATS pairs.
    """
    points = []
    async with bench.harness.database() as grown, bench.harness.database() as small:
        for client, database in (grown, small):
            await measures.known(client, database)
        for size in sizes:
            pairs = []
            for _ in range(REPEATS):
                await hold(*grown, size)
                await grown[1].settled()
                await hold(*small, empty)
                await small[1].settled()
                pairs.append(await rate(*grown) / await rate(*small))
            points.append((size, statistics.median(pairs)))
            print(f"  {size:,}: {', '.join(f'{pair:.2f}' for pair in sorted(pairs))}", flush=True)
    return points


# --- the curves ----------------------------------------------------------------------------------


async def depth(bench: Bench) -> list[tuple[float, float]]:
    async def hold(client: Client, database: Database, size: int) -> None:
        pending = await database.connection.fetchval("select count(*) from rhythm.ready")
        if size > pending:
            source = await database.connection.fetchval("select id from rhythm.outcomes order by finished_at limit 1")
            await grow_pending(database, source, size - pending)

    async def rate(client: Client, database: Database) -> float:
        return await window_rate(client, database, seconds=0.5)

    sizes = bench.sizes(100_000, 300_000, 1_000_000, 3_000_000, 5_000_000)
    return await shares(bench, sizes, rate, hold, empty=sizes[0])


async def suspended(bench: Bench) -> list[tuple[float, float]]:
    async def hold(client: Client, database: Database, size: int) -> None:
        held = await database.connection.fetchval("select count(*) from rhythm.waits")
        if not held:
            async with database.workers(1):
                order = {"id": "o-1", "items": [{"price": 1, "quantity": 1}] * 5}
                await client.start("order", {"order": order})
                await measures.waiting(database, 1)
            held = 1
        if size > held:
            await grow_suspended(
                database,
                await database.connection.fetchval("select min(id::text)::uuid from rhythm.waits"),
                size - held,
            )

    return await shares(bench, bench.sizes(1, 1_000, 10_000, 100_000, 1_000_000), drain_rate, hold)


async def finished(bench: Bench) -> list[tuple[float, float]]:
    made = 0  # besides those that measuring makes, which both databases have

    async def hold(client: Client, database: Database, size: int) -> None:
        nonlocal made
        if size > max(made, 1):
            source = await database.connection.fetchval("select id from rhythm.outcomes order by finished_at limit 1")
            await grow_finished(database, source, size - made)
            made = size

    return await shares(bench, bench.sizes(1, 100_000, 1_000_000, 10_000_000), drain_rate, hold)


async def steps(bench: Bench) -> list[tuple[float, float]]:
    points = []
    async with bench.harness.database() as (client, database), database.workers():
        await (await client.start("threeSteps", {})).result(timeout=WAIT_SECONDS)
        for count in sorted({max(n, 100) for n in bench.sizes(100, 1_000, 10_000, 100_000, 1_000_000)}):
            times = await measures.stepped(client, count)
            points.append((count, (times[-1] - times[0]) / count))
    return points


async def fanout(bench: Bench) -> list[tuple[float, float]]:
    points = []
    async with bench.harness.database() as (client, database), database.workers(2, "-q", QUEUE, "-q", "default"):
        await (await client.start("allOf", {"tasks": 10})).result(timeout=WAIT_SECONDS)
        for count in bench.sizes(10, 100, 1_000, 10_000):
            seconds = []
            for _ in range(REPEATS):
                since = await database.youngest()
                await (await client.start("allOf", {"tasks": count})).result(timeout=WAIT_SECONDS)
                seconds.append(await database.spent(since))
            points.append((count, statistics.median(seconds) / count * 1e6))
    return points


async def snapshots(bench: Bench) -> list[tuple[float, float]]:
    points = []
    async with bench.harness.database() as (client, database), database.workers():
        await (await client.start("threeSteps", {})).result(timeout=WAIT_SECONDS)
        for size in (200, 1_000, 2_000, 4_000, 10_000, 100_000, 1_000_000):
            count = 500 if size <= 10_000 else 50
            execution = await client.start("carry", {"bytes": size, "steps": count})
            times = (await execution.result(timeout=WAIT_SECONDS))["times"]
            points.append((size, (times[1] - times[0]) / count))
    return points


async def workers(bench: Bench) -> list[tuple[float, float]]:
    points = []
    async with bench.harness.database() as (client, database):
        await measures.known(client, database)
        for count in (1, 2, 4, 8, 16, 32):
            async with database.workers(count, "-q", QUEUE):
                rates = [await drained(client, database, await filled(client, database)) for _ in range(REPEATS + 1)]
            points.append((count, statistics.median(rates[1:])))  # in the first, connections plan their queries
    return points


async def held_open(bench: Bench) -> list[tuple[float, float]]:
    """Tasks per second, minute by minute, at full load; from the second minute on a session holds a snapshot open."""
    async with bench.harness.database() as (client, database):
        await measures.known(client, database)
        began = await database.connection.fetchval("select rhythm.now()")
        other = await asyncpg.connect(database.url)
        async with database.workers(2, "-q", QUEUE):
            feeding = asyncio.create_task(feed(client, database))
            await asyncio.sleep(60)
            await other.execute("begin isolation level repeatable read; select count(*) from rhythm.ready")
            await asyncio.sleep(60 * bench.minutes)
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await client.store.pause_queue(QUEUE, True)
        await other.close()
        rows = await database.connection.fetch(
            "select floor(extract(epoch from finished_at - $1) / 60)::integer as minute, count(*) / 60.0 as rate "
            "from rhythm.outcomes where finished_at > $1 group by 1 order by 1",
            began,
            timeout=600,
        )
    return [(row["minute"], float(row["rate"])) for row in rows if row["minute"] <= bench.minutes]


async def feed(client: Client, database: Database) -> None:
    """Keeps the queue filled with ten to thirty thousand tasks.

    Whether a portion is done is asked by the id of its last task: counting what waits would read every dead row.
    """
    last: list[uuid.UUID] = []
    while True:
        last.append((await client.start_many([Start("mark", {"i": 0}, queue=QUEUE)] * 10_000))[-1])
        if len(last) > 2:
            await client.wait(last.pop(0))


CURVES = {
    "depth": Curve("Pending tasks in the queue", "pending", "share of the rate with 100,000", depth),
    "suspended": Curve("Suspended workflows in the database", "suspended", "share of the rate without", suspended),
    "finished": Curve("Finished executions in the database", "finished", "share of the rate without", finished),
    "steps": Curve("Sequential steps of one workflow", "steps", "ms per step", steps),
    "fanout": Curve("Promise.all over tasks", "tasks", "µs per task", fanout),
    "snapshots": Curve("Size of a workflow's snapshot", "bytes", "ms per step", snapshots),
    "workers": Curve("Worker processes on two cores", "workers", "tasks/s", workers),
    "held": Curve("A snapshot held open by another session", "minute", "tasks/s", held_open, logarithmic=False),
}


def plot(points: dict[str, list[list[float]]]) -> None:
    """One picture for each curve, from zero, so that flat looks flat."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, curve in CURVES.items():
        if name not in points:
            continue
        figure, axes = pyplot.subplots(figsize=(5.2, 3.2), layout="constrained")
        axes.plot([x for x, _ in points[name]], [y for _, y in points[name]], marker="o", color="#2b5b84")
        if curve.logarithmic:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_title(curve.title, fontsize=11)
        axes.set_xlabel(curve.x)
        axes.set_ylabel(curve.y)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(FIGURES / f"{name}.png", dpi=110)
        pyplot.close(figure)


async def run(bench: Bench, names: Sequence[str], points: dict[str, list[list[float]]]) -> None:
    for name in names:
        began = time.perf_counter()
        points[name] = [[x, y] for x, y in await CURVES[name].measure(bench)]
        print(f"{CURVES[name].title} ({time.perf_counter() - began:.0f} s)", flush=True)
        for x, y in points[name]:
            print(f"  {x:>12,.0f} {CURVES[name].x}: {y:,.4g} {CURVES[name].y}", flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(points, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(CURVES), help=",".join(CURVES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--minutes", type=float, default=10.0, help="that the snapshot is held open")
    parser.add_argument("--plot", action="store_true", help="only draw what was measured before")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(CURVES):
        parser.error(f"unknown curves: {', '.join(unknown)}")
    points = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.plot:
        folder = Path(tempfile.mkdtemp(prefix="rhythm-curves-"))
        server = EmbeddedServer(folder / "postgres")
        try:
            harness = Harness(server.ensure_running(), folder, lambda *_: None)
            asyncio.run(run(Bench(harness, options.scale, options.minutes), options.only, points))
        finally:
            server.stop(force=True)
            shutil.rmtree(folder, ignore_errors=True)
    plot(points)


if __name__ == "__main__":
    main()
