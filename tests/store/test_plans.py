"""What a call reads does not grow with what lies around, whatever the statistics say of it."""

from __future__ import annotations

import json

import pytest

from rhythm.model import new_id
from tests.store.bench import Bench, Worker, suspend, timer

FEW, MANY = 200, 20_000
FAR = 1e7  #: seconds; nothing of what lies around is due


async def surround(bench: Bench, worker: Worker, count: int) -> None:
    """So many tasks that wait for their time, finished ones, ready ones of another name, and timers."""
    for first in range(0, count, 1000):
        size = min(1000, count - first)
        await bench.start_many(size, delay_seconds=FAR)
        await bench.start_many(size, "foreign")
        await bench.start_many(size)
    while claims := await worker.claim(500, 0):
        await worker.complete(*claims)
    id_ = await bench.start("order")
    await worker.commit(suspend(await worker.claim_one(), timers=[timer(i, FAR) for i in range(1, count + 1)]))
    assert "suspended" == await bench.status(id_)


async def pages(bench: Bench, call: str) -> int:
    plan = await bench.raw.fetchval(f"explain (analyze, buffers, format json, timing off) select {call}")
    top = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def pages_of_calls(bench: Bench, worker: Worker) -> dict[str, int]:
    """What each call reads, the second time: the first plans."""
    found: dict[str, int] = {}
    for _ in range(2):
        flow = await bench.start("order")
        await worker.commit(suspend(await worker.claim_one(), timers=[timer(1, 1)]))
        delayed = await bench.start(delay_seconds=1)
        pending = await bench.start(delay_seconds=FAR)
        await bench.pass_time(1)
        calls = {
            "maintain": "rhythm.maintain(null)",
            "heartbeat": f"rhythm.heartbeat('{worker.incarnation}')",
            "signal": f"rhythm.signal('{flow}', 'go', '\\x0131', '{new_id()}')",
            "cancel": f"rhythm.cancel('{pending}')",
            "held": f"rhythm.held('{worker.incarnation}', 0, '{{}}', '{{}}', '{{}}')",
            "start": "rhythm.start('work')",
        }
        for name, call in calls.items():
            found[name] = await pages(bench, call)
        claims = {claim.id: claim for claim in await worker.claim()}
        assert {flow, delayed} <= claims.keys()
        await worker.commit(suspend(claims.pop(flow), timers=[timer(2, FAR)]))
        await worker.complete(*claims.values())
    return found


@pytest.mark.parametrize("analyzed", ["never", "few", "many"])
async def test_what_a_call_reads_does_not_grow_with_what_lies_around(bench: Bench, analyzed: str) -> None:
    await bench.publish("order")
    worker = await bench.worker("work")
    await bench.worker("foreign")
    await surround(bench, worker, FEW)
    if analyzed == "few":
        await bench.raw.execute("vacuum analyze")
    before = await pages_of_calls(bench, worker)
    await surround(bench, worker, MANY)
    if analyzed == "many":
        await bench.raw.execute("vacuum analyze")
    after = await pages_of_calls(bench, worker)

    print(before, after)
    assert [] == [(call, n, after[call]) for call, n in before.items() if after[call] > 2 * n + 100]
