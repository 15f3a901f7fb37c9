"""Only the database's clock decides: workers' clocks are hours off, and the database's own jumps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest

import rhythm
from tests.worker.conftest import TASKS, Shop

#: Put before the tasks of a worker: whatever asks for the time in its process gets another one.
OFF = """
import datetime, time
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {offset}
time.time_ns = lambda: _time_ns() + {offset} * 10**9
"""
CLOCKS = {"behind": -5, "right": 0, "ahead": 7}  #: hours, by the module that a worker imports and the queue it serves
LATE = """
workflow(ctx, inputs) {
  const before = Date.now()
  await sleep("400ms")
  await task("sometimes", {})
  return before
}
"""
SOMETIMES = """
@rhythm.task(retries=3, retry=rhythm.Retry(initial="300ms", factor=1, jitter=0))
async def sometimes(context: rhythm.TaskContext) -> None:
    if context.attempt == 1:
        raise RuntimeError("once more")
"""


async def test_workers_whose_clocks_are_hours_off_change_nothing(shop: Shop) -> None:
    (shop.folder / "workflows" / "late.flow").write_text(LATE)
    await shop.client.publish(shop.folder / "workflows")
    for module, hours in CLOCKS.items():
        (shop.folder / f"{module}.py").write_text(OFF.format(offset=hours * 3600) + TASKS + SOMETIMES)
        shop.worker("--queue", "default", "--queue", module, app=module)
    await shop.until(lambda: shop.query("select from rhythm.workers offset 2"), "all three are there")
    expected = await shop.start_orders(10)
    late = await shop.client.start_many(
        [rhythm.Start("late", {}, delay="300ms", queue=module) for module in CLOCKS for _ in range(5)]
    )
    before = [await shop.client.wait(id_, timeout=40) / 3.6e6 for id_ in late]
    await shop.check(expected)
    rows = await shop.query(
        "select finished_at - created_at as took, e.name_id from rhythm.executions e join rhythm.outcomes o using (id) "
        "where e.id = any($1)",
        late,
    )

    assert [0] * 5 + [5] * 5 + [12] * 5 == [round(hours - before[0]) for hours in before], "each by its own clock"
    assert all(timedelta(seconds=1) <= row["took"] < timedelta(minutes=1) for row in rows)


@pytest.mark.parametrize("jumps", [(3600, -7200, 3600), (-3600, 86_400)])
async def test_a_database_clock_that_jumps_loses_and_doubles_nothing(shop: Shop, jumps: tuple[int, ...]) -> None:
    """As after a failover to a server with another clock, in the middle of work."""
    for _ in range(2):
        shop.worker()
    await shop.until(lambda: shop.query("select from rhythm.workers offset 1"), "both are there")
    expected = {}
    for number, seconds in enumerate(jumps):
        expected |= await shop.start_orders(15, f"jump{number}-")
        under_way = partial(shop.query, "select from ledger where order_id like $1", f"jump{number}-%")
        await shop.until(under_way, "work is under way")
        await shop.query(f"update rhythm.clock set moved_by = moved_by + interval '{seconds} s'")
    await shop.check(expected)
    rows = await shop.query("select max(lost) as lost from rhythm.outcomes")

    assert rows[0]["lost"] <= sum(seconds > 0 for seconds in jumps)


async def test_ten_thousand_timers_due_in_one_second_fire_once_each(shop: Shop) -> None:
    """A hundred workflows with a hundred each, armed at once for the same moment."""
    (shop.folder / "workflows" / "many.flow").write_text(
        "workflow(ctx, inputs) { const until = new Date(inputs.until); "
        "return (await Promise.all(Array(100).fill(0).map(() => sleep(until)))).length }"
    )
    await shop.client.publish(shop.folder / "workflows")
    (row,) = await shop.query("select extract(epoch from rhythm.now() + interval '1 h') as until")
    ids = await shop.client.start_many([rhythm.Start("many", {"until": float(row["until"]) * 1000})] * 100)
    shop.worker()
    await shop.until(lambda: armed(shop, 10_000), "all are armed")
    await shop.query("update rhythm.clock set moved_by = interval '1 h'")
    results = await asyncio.gather(*(shop.client.wait(id_, timeout=60) for id_ in ids))

    assert [100] * 100 == results
    assert [] == list(await shop.client.store.breaches())


async def armed(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.timers")
    return bool(row["n"] == count)
