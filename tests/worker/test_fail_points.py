"""A fault at the first, second, third … passing of every named place, until a run passes it too seldom to be hit.

Each run is a worker with one fail point under a mixture of everything a workflow can do. After a kill, and while it
stands still, the clock is moved past its heartbeat timeout and another worker takes over; then every outcome, every
step in the ledger, every line of the logs and all invariants must be as if nothing had happened. Two tasks are of a
queue with limits, and no place of it may be left taken.

`make test` takes the places that differ most and steps over some passings; `make faults` (RHYTHM_FAULT_SCALE=N) takes
all of both, under N times as much work.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import rhythm
from rhythm import faults
from rhythm.model import QueueLimits
from tests.support.processes import Process, Zygote
from tests.worker.conftest import Shop

SCALE = int(os.environ.get("RHYTHM_FAULT_SCALE", "0"))
THINNING = 1.0 if SCALE else 1.5  #: from one passing to the next that is tried, at least by one
ORDERS = SCALE or 1
PASSINGS_MAX = 200  #: of one place in one run; more means that a scenario does not come to rest
MIXED = """
workflow(ctx, inputs) {
  const order = inputs.order
  console.log("begins")
  const limited = { queue: "narrow", limitKey: order }
  const fan = await Promise.all([0, 1].map(i => task("book", { order, step: "fan" + i }, limited)))
  console.log("fan")
  const [message] = await Promise.all([signal("go"), sleep("5ms")])
  console.log("message")
  const made = await child("order", { order: order + "-child" })
  console.log("made")
  const booked = [await task("bank", { order })]
  console.log("bank")
  booked.push(await task("till", { order }))
  console.log("till")
  return { fan: fan.map(answer => answer.step), message, made, booked }
}
"""
SAID = ["begins", "fan", "message", "made", "bank", "till"]
WORKER_CALLS = ("exchange", "step", "heartbeat", "maintain", "register_worker", "complete")
POINTS = (*faults.PLACES, *(f"{call}.{moment}" for call in WORKER_CALLS for moment in faults.MOMENTS))
#: The action at each point; `drop` is for connections, and a place in the worker has none.
CASES = [
    (point, action) for point in POINTS for action in faults.ACTIONS if action != "drop" or point not in faults.PLACES
]
SHORT = [
    ("claimed", "kill"), ("task_done", "kill"), ("activated", "kill"), ("task_done", "stall"),
    ("exchange.during", "kill"), ("exchange.after", "kill"), ("exchange.during", "stall"),
    ("exchange.before", "drop"), ("exchange.during", "drop"), ("exchange.after", "drop"),
    ("step.during", "kill"), ("step.during", "drop"), ("step.after", "drop"),
    ("heartbeat.during", "drop"), ("maintain.during", "kill"), ("maintain.during", "drop"),
    ("complete.before", "kill"), ("committing", "kill"), ("complete.during", "kill"), ("complete.after", "kill"),
    ("committing", "stall"), ("complete.during", "stall"), ("complete.after", "stall"),
    ("complete.before", "drop"), ("complete.during", "drop"), ("complete.after", "drop"),
    ("register_worker.during", "kill"), ("register_worker.during", "drop"), ("register_worker.after", "drop"),
]  # fmt: skip


class Runs:
    """Runs of one mixture after the other on one database, each with workers of its own."""

    def __init__(self, shop: Shop, zygote: Zygote) -> None:
        self.shop = shop
        self.zygote = zygote
        self.number = 0
        shop.others = zygote.started

    def worker(self, fail_point: str | None = None) -> Process:
        env = {"SHOP_URL": self.shop.url} | ({faults.VARIABLE: fail_point} if fail_point else {})
        return self.zygote.rhythm(
            "worker", "--database-url", self.shop.url, "--app", "shop", "--heartbeat-timeout", "20s",
            "--poll-interval", "100ms", "-q", "default", "-q", "narrow", cwd=self.shop.folder, env=env,
        )  # fmt: skip

    async def start(self) -> dict[uuid.UUID, Any]:
        """A mixture; what each execution must give."""
        self.number += 1
        expected: dict[uuid.UUID, Any] = {}
        for i in range(ORDERS):
            order = f"r{self.number}-{i}"
            steps = ["charge", "reserve", "ship"]
            mixed, plain = await self.shop.client.start_many(
                [rhythm.Start("mixed", {"order": order}), rhythm.Start("plain", {"i": self.number})]
            )
            await self.shop.client.signal(mixed, "go", self.number)
            made = {"order": f"{order}-child", "steps": steps}
            expected[mixed] = {
                "fan": ["fan0", "fan1"],
                "message": self.number,
                "made": made,
                "booked": ["bank", "till"],
            }
            expected[plain] = 2 * self.number
        return expected

    async def all_done(self, ids: list[uuid.UUID]) -> bool:
        (row,) = await self.shop.query("select count(*) as n from rhythm.outcomes where id = any($1)", ids)
        return bool(row["n"] == len(ids))

    async def run(self, point: str, count: int, action: str) -> bool:
        """One run; whether the fault came to pass."""
        expected = await self.start()
        first = self.worker(f"{point}:{count}:{action}")
        ids = list(expected)

        async def over() -> bool:
            return not first.alive or first.stopped or await self.all_done(ids)

        await self.shop.until(over, "it ends or fails")
        acted = f"fail point {point}" in first.output
        if acted and action != "drop":
            await self.take_over(first, ids)
        await self.shop.until(lambda: self.all_done(ids), f"all of {point}:{count}:{action} is done")
        if first.stopped:
            await self.come_back(first)
        await self.check(expected)
        for process in self.zygote.started:
            process.kill()
        self.zygote.started.clear()
        return acted

    async def take_over(self, first: Process, ids: list[uuid.UUID]) -> None:
        await self.shop.query("update rhythm.clock set moved_by = moved_by + interval '1 min'")
        self.worker()
        await self.shop.until(lambda: self.registered(first, False), "the first worker is buried")

    async def come_back(self, first: Process) -> None:
        """What has been taken over goes on; it must notice, and begin afresh."""
        first.thaw()
        await self.shop.until(lambda: self.registered(first, True), "the first worker begins afresh")

    async def registered(self, process: Process, wanted: bool) -> bool:
        rows = await self.shop.query("select from rhythm.workers where pid = $1", process.pid)
        return bool(rows) == wanted

    async def check(self, expected: dict[uuid.UUID, Any]) -> None:
        for execution_id, output in expected.items():
            assert output == await self.shop.client.wait(execution_id, timeout=1)
            lines = await self.shop.client.logs(execution_id)
            assert (SAID if isinstance(output, dict) else []) == [line.text for line in lines]
        entries = await self.shop.query("select order_id, step, count(*) as n from ledger group by 1, 2")
        assert [dict(row) for row in entries if row["n"] != 1] == []
        assert len(entries) == 7 * self.number * ORDERS
        assert await self.shop.query("select id from rhythm.places") == []
        assert list(await self.shop.client.store.breaches()) == []


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("forked")) as running:
        yield running


@pytest_asyncio.fixture
async def runs(shop: Shop, zygote: Zygote, tmp_path: Path) -> AsyncIterator[Runs]:
    (tmp_path / "workflows" / "mixed.flow").write_text(MIXED)
    await shop.client.publish(tmp_path / "workflows")
    await shop.client.store.limit_queue("narrow", QueueLimits(concurrency=ORDERS, key_concurrency=1))
    yield Runs(shop, zygote)
    for process in zygote.started:
        process.kill()
    zygote.started.clear()


@pytest.mark.parametrize(("point", "action"), CASES if SCALE else SHORT)
async def test_a_fault_at_any_passing_of_any_place_changes_nothing(runs: Runs, point: str, action: str) -> None:
    count = 1
    faults_tried = 0
    while await asyncio.wait_for(runs.run(point, count, action), 60):
        faults_tried += 1
        count = max(count + 1, int(count * THINNING))
        assert count < PASSINGS_MAX

    print(f"{point} {action}: {faults_tried} faults")
    assert faults_tried > 0, "the place is never passed"
