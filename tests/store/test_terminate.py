"""A forced cancel: ends an execution wherever it stands, runs nothing, and leaves everybody else whole."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import pytest

from rhythm.errors import ExecutionFinished, ExecutionNotFound, RetryRefused
from rhythm.model import Claim, Standing, TaskOutcome, TaskRegistration, new_id
from rhythm.store.marshal import exchange_call
from tests.store.bench import Bench, Worker, child, end, suspend, timer, waiting_for_locks


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("order")
    return await bench.worker("work", heartbeat_timeout=30)


def standing(*entries: dict[str, Any]) -> Standing:
    return Standing(1, None, json.dumps(entries).encode())


async def begin(bench: Bench, worker: Worker, **fields: Any) -> uuid.UUID:
    id_ = await bench.start("order")
    claim = await worker.claim_one(tasks=0)
    assert id_ == claim.id
    await worker.commit(suspend(claim, **fields))
    return id_


@pytest.mark.parametrize("stage", ["pending", "delayed", "unknown", "retry", "claimed", "in a batch"])
async def test_a_task_at_every_stage(bench: Bench, worker: Worker, stage: str) -> None:
    options = {"delayed": {"delay_seconds": 9}, "retry": {"retries": 1}}.get(stage, {})
    id_ = await bench.start("nobody knows" if stage == "unknown" else "work", **options)
    others = await bench.start_many(2) if stage == "in a batch" else []
    claims: list[Claim] = []
    if stage in ("claimed", "in a batch", "retry"):
        claims = await worker.claim()
    if stage == "retry":
        await worker.fail(*claims, after=60)
    await bench.store.terminate(id_)
    error = await bench.error(id_)
    told = [await worker.heartbeat() for _ in range(2)]
    status = await bench.status(id_)
    await bench.pass_time(9)
    await worker.heartbeat()
    await bench.store.maintain(new_id())

    assert ("cancelled", "CancelledError", "cancelled") == (status, error["name"], error["type"])
    held = stage in ("claimed", "in a batch")
    assert [frozenset([id_] if held else [])] * 2 == told  # the first answer may be lost
    assert [] == await worker.claim()
    if held:
        result = await worker.complete(*claims)
        assert frozenset([id_]) == result.refused
    assert ["completed"] * len(others) == [await bench.status(other) for other in others]
    assert 0 == await bench.count("claims")
    for _ in range(3):
        await bench.pass_time(20)
        last = await worker.heartbeat()
    assert frozenset() == last
    with pytest.raises(ExecutionFinished):
        await bench.store.terminate(id_)
    with pytest.raises(ExecutionNotFound):
        await bench.store.terminate(new_id())


@pytest.mark.parametrize("stage", ["pending", "first claim", "suspended", "woken", "activating", "cancelling"])
async def test_a_workflow_at_every_stage(bench: Bench, worker: Worker, stage: str) -> None:
    if stage in ("pending", "first claim"):
        parent = await begin(bench, worker, children=[child(1, "order", "workflow")])
        (flow,) = await bench.store.list(parent_id=parent)
        id_ = flow.id
    else:
        parent = await begin(bench, worker, children=[child(1, "order", "workflow")])
        claim = await worker.claim_one()
        id_ = claim.id
        await worker.commit(suspend(claim, timers=[timer(1, 60)]))
    if stage in ("woken", "activating"):
        await bench.signal(id_)
    if stage == "cancelling":
        await bench.store.cancel(id_)
    claims = await worker.claim() if stage in ("first claim", "activating", "cancelling") else []
    await bench.store.terminate(id_)
    late = await worker.commit(*(suspend(c, children=[child(9)], timers=[timer(8, 1)]) for c in claims))
    told = await worker.claim_one()

    assert "cancelled" == await bench.status(id_)
    assert frozenset(c.id for c in claims) == late.refused
    assert (parent, [("failed", 1)]) == (told.id, [(d.kind, d.operation) for d in told.deliveries])
    assert 0 == await bench.count("timers")
    assert [] == await bench.store.list(parent_id=id_)
    with pytest.raises(RetryRefused):
        await bench.store.retry(id_, new_id())


async def test_what_the_workflow_waits_for_is_asked_and_the_rest_carries_on(bench: Bench, worker: Worker) -> None:
    children = [child(1), child(2), child(3, priority=9), child(4, priority=9), child(5, "order", "workflow"), child(6)]
    awaiting = standing(
        {"operation": 1, "kind": "task", "name": "work", "stops": True},
        {"operation": 2, "kind": "task", "name": "work"},
        {"operation": 3, "kind": "task", "name": "work", "stops": True},
        {"operation": 4, "kind": "task", "name": "work"},
        {"kind": "more", "stops": [[5, 6], [7, 9]]},
    )
    id_ = await begin(bench, worker, children=children, outstanding=6, standing=awaiting)
    flow = await worker.claim_one(tasks=0)
    await worker.commit(suspend(flow))
    running = await worker.claim(tasks=2, workflows=0)
    await bench.store.terminate(id_)
    states = [await bench.status(c.id) for c in children]
    told = await worker.heartbeat()
    woken = await worker.claim_one(tasks=0)

    assert {children[2].id, children[3].id} == {c.id for c in running}
    assert ["cancelled", "pending", "running", "running", "pending", "pending"] == states
    assert frozenset([children[2].id]) == told
    assert (flow.id, ["cancel"]) == (woken.id, [d.kind for d in woken.deliveries])
    await worker.commit(end(woken))
    await worker.complete(*running, *await worker.claim())
    assert ["completed"] * 5 == [await bench.status(c.id) for c in children[1:]]


async def test_a_terminated_task_can_be_retried(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start()
    first = await worker.claim_one()
    await bench.store.terminate(id_)
    await bench.store.retry(id_, new_id())
    second = await worker.claim_one()
    late = await worker.complete(first)
    await worker.complete(second)

    assert (frozenset([id_]), 2) == (late.refused, second.attempt)
    assert frozenset() == await worker.heartbeat()
    assert "completed" == await bench.status(id_)


# Two at once


async def test_a_step_that_is_being_committed_comes_first(bench: Bench, worker: Worker) -> None:
    """It starts another child while the forced cancel waits: that one is found and asked as well."""
    id_ = await bench.start("order")
    claim = await worker.claim_one()
    awaiting = standing({"operation": 1, "kind": "task", "name": "work", "stops": True})
    request = worker.request(workflow_commits=[suspend(claim, children=[child(1)], standing=awaiting)])
    async with bench.store._database.transaction() as connection:
        call, arguments = exchange_call(request)
        await connection.fetchrow(call, *arguments)
        terminating = asyncio.create_task(bench.store.terminate(id_))
        await waiting_for_locks(bench, 1)
    await terminating
    (started,) = await bench.store.list(parent_id=id_)

    assert ("cancelled", "cancelled") == (await bench.status(id_), started.status)


@pytest.mark.parametrize("what", ["completed", "failed", "claim", "commit"])
async def test_whoever_waits_for_a_forced_cancel_is_refused(bench: Bench, worker: Worker, what: str) -> None:
    id_ = await bench.start("order" if what == "commit" else "work", retries=3 if what == "failed" else 0)
    claim = None if what == "claim" else await worker.claim_one()
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.terminate($1)", id_)
        if claim is None:
            assert [] == await worker.claim()
            meanwhile = None
        else:
            said: dict[str, Any] = (
                {"workflow_commits": [suspend(claim, children=[child(1)])]}
                if what == "commit"
                else {"task_outcomes": [TaskOutcome(claim.token, id_, what, b"1")]}
            )
            meanwhile = asyncio.create_task(worker.exchange(**said))
            await waiting_for_locks(bench, 1)
    await other.close()

    if meanwhile is not None:
        assert frozenset([id_]) == (await meanwhile).refused
    assert "cancelled" == await bench.status(id_)
    assert [] == await worker.claim()


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_forced_cancel_that_waits_for_a_report(bench: Bench, status: str) -> None:
    worker = await bench.worker(TaskRegistration("work", retries=3, retry={"initial": 0.0}))
    id_ = await bench.start()
    claim = await worker.claim_one()
    request = worker.request(task_outcomes=[TaskOutcome(claim.token, id_, status, b"{}")])
    async with bench.store._database.transaction() as connection:
        call, arguments = exchange_call(request)
        await connection.fetchrow(call, *arguments)
        terminating = asyncio.create_task(bench.store.terminate(id_))
        await waiting_for_locks(bench, 1)
    (outcome,) = await asyncio.gather(terminating, return_exceptions=True)

    assert isinstance(outcome, ExecutionFinished) is (status == "completed")
    assert ("completed" if status == "completed" else "cancelled") == await bench.status(id_)


async def test_many_forced_cancels_among_workers_at_work(bench: Bench) -> None:
    await bench.publish("order")
    workers = [await bench.worker("work") for _ in range(3)]
    ids = await bench.start_many(60, "order")

    async def work(worker: Worker) -> None:
        for _ in range(25):
            claims = await worker.claim(5, 5)
            commits = [
                suspend(c, children=[child(c.version + 1)]) if c.version < 3 else end(c)
                for c in claims
                if c.kind == "workflow"
            ]
            outcomes = [TaskOutcome(c.token, c.id, "completed", b"1") for c in claims if c.kind == "task"]
            await worker.exchange(workflow_commits=commits, task_outcomes=outcomes)

    async def end_by_force() -> None:
        for id_ in ids[::2]:
            await asyncio.gather(bench.store.terminate(id_), return_exceptions=True)

    await asyncio.gather(*(work(worker) for worker in workers), end_by_force())
    statuses = [await bench.status(id_) for id_ in ids]

    assert {"cancelled", "completed"} >= set(statuses[::2])
    assert "cancelled" in statuses[::2]
    assert "cancelled" not in statuses[1::2]
