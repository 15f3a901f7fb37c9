"""Cancellation: what has had no effect yet ends at once, the rest as it really ends, and nothing runs again."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from rhythm.errors import ExecutionFinished, ExecutionNotFound
from rhythm.model import Claim, NewChild, TaskOutcome, TaskRegistration, new_id
from rhythm.store.marshal import exchange_call
from tests.store.bench import ERROR, Bench, Worker, child, end, suspend, waiting_for_locks

RETRIED = TaskRegistration("work", retries=5, retry={"initial": 0.0})


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("order")
    return await bench.worker(RETRIED, heartbeat_timeout=30)


async def begin(bench: Bench, worker: Worker, **fields: Any) -> uuid.UUID:
    """A workflow that has committed its first step."""
    id_ = await bench.start("order")
    claim = await worker.claim_one(tasks=0)
    assert id_ == claim.id
    await worker.commit(suspend(claim, **fields))
    return id_


async def claimed_task(bench: Bench, worker: Worker, *, is_child: bool) -> Claim:
    """A running task, alone or the child of a workflow."""
    if is_child:
        await begin(bench, worker, children=[child(1)])
    else:
        await bench.start()
    return await worker.claim_one(workflows=0)


async def deliveries_of(worker: Worker) -> list[tuple[str, int | None, Any]]:
    """What the one claimable workflow is told: kind, operation, name of the error."""
    claim = await worker.claim_one(tasks=0)
    return [(d.kind, d.operation, d.payload and json.loads(d.payload).get("name")) for d in claim.deliveries]


# Nothing that is to be cancelled runs again


async def lose(bench: Bench, worker: Worker, claim: Claim) -> None:
    await bench.pass_time(31)
    await bench.store.maintain(new_id())


async def hand_back(bench: Bench, worker: Worker, claim: Claim) -> None:
    await worker.exchange(hand_backs=[(claim.token, claim.id)])


async def hand_back_alone(bench: Bench, worker: Worker, claim: Claim) -> None:
    await bench.store.hand_back(worker.incarnation, [(claim.token, claim.id)])


async def unregister(bench: Bench, worker: Worker, claim: Claim) -> None:
    await bench.store.unregister_worker(worker.incarnation)


Ending = Callable[[Bench, Worker, Claim], Awaitable[None]]
ENDINGS = [lose, hand_back, hand_back_alone, unregister]


@pytest.mark.parametrize("is_child", [False, True], ids=["alone", "child"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_task_that_is_to_be_cancelled_makes_no_other_attempt(
    bench: Bench, worker: Worker, ending: Ending, is_child: bool
) -> None:
    claim = await claimed_task(bench, worker, is_child=is_child)
    await bench.store.cancel(claim.id)
    asked = await bench.status(claim.id)
    await ending(bench, worker, claim)
    error = await bench.error(claim.id)
    other = await bench.worker(RETRIED)

    assert ("running", "cancelled") == (asked, await bench.status(claim.id))
    assert ("CancelledError", "cancelled") == (error["name"], error["type"])
    assert not is_child or [("failed", 1, "CancelledError")] == await deliveries_of(other)
    assert [] == await other.claim()


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_workflow_that_never_committed_anything_ends_where_it_is(
    bench: Bench, worker: Worker, ending: Ending
) -> None:
    parent = await begin(bench, worker, children=[child(1, "order", "workflow")])
    claim = await worker.claim_one()
    await bench.store.cancel(claim.id)
    await ending(bench, worker, claim)
    other = await bench.worker(RETRIED)

    assert "cancelled" == await bench.status(claim.id)
    assert [("failed", 1, "CancelledError")] == await deliveries_of(other)
    assert "running" == await bench.status(parent)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_workflow_that_has_begun_is_told_by_whoever_goes_on(
    bench: Bench, worker: Worker, ending: Ending
) -> None:
    id_ = await begin(bench, worker)
    await bench.signal(id_)
    claim = await worker.claim_one()
    await bench.store.cancel(id_)
    await ending(bench, worker, claim)
    other = await bench.worker(RETRIED)
    again = await other.claim_one(alone=True)

    assert (id_, ["signal", "cancel"]) == (again.id, [d.kind for d in again.deliveries])


async def test_a_lost_worker_cancels_what_is_to_be_cancelled_however_often_it_was_lost(bench: Bench) -> None:
    worker = await bench.worker("work", heartbeat_timeout=30)
    id_ = await bench.start()
    for _ in range(2):
        await worker.claim_one(alone=True)
        await bench.pass_time(31)
        await bench.store.maintain(new_id())
        worker = await bench.worker("work", heartbeat_timeout=30)
    await worker.claim_one(alone=True)
    await bench.store.cancel(id_)
    await bench.pass_time(31)
    await bench.store.maintain(new_id())
    info = await bench.get(id_)

    assert ("cancelled", 3, 3) == (info.status, info.attempts, info.lost)


@pytest.mark.parametrize("is_child", [False, True], ids=["alone", "child"])
async def test_an_attempt_past_its_timeout_that_is_to_be_cancelled_is_cancelled(bench: Bench, is_child: bool) -> None:
    await bench.publish("order")
    worker = await bench.worker(TaskRegistration("work", retries=5, timeout_seconds=5))
    claim = await claimed_task(bench, worker, is_child=is_child)
    await bench.store.cancel(claim.id)
    await bench.pass_time(16)
    await bench.store.maintain(new_id())
    late = await worker.complete(claim)

    assert "cancelled" == await bench.status(claim.id)
    assert frozenset([claim.id]) == late.refused
    assert not is_child or [("failed", 1, "CancelledError")] == await deliveries_of(worker)


async def test_what_waits_for_another_attempt_ends_at_once_and_says_how_many_it_made(bench: Bench) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start(retries=5)
    await worker.fail(await worker.claim_one(), after=60)
    await bench.store.cancel(id_)
    error = await bench.error(id_)

    assert ("CancelledError", "cancelled before another attempt", 1) == (
        error["name"], error["message"], error["attempts"],
    )  # fmt: skip
    await bench.pass_time(61)
    await bench.store.maintain(new_id())
    assert [] == await worker.claim()


# A charge already running settles with what really happened


@pytest.mark.parametrize(
    ("status", "kind"), [("completed", "completed"), ("failed", "failed"), ("cancelled", "failed")]
)
async def test_a_claimed_task_settles_with_what_really_happened(
    bench: Bench, worker: Worker, status: str, kind: str
) -> None:
    parent = await begin(bench, worker, children=[child(1)])
    claim = await worker.claim_one(workflows=0)
    await bench.signal(parent)
    commit = suspend(await worker.claim_one(tasks=0), cancels=[claim.id])
    await worker.commit(commit)
    told = await worker.heartbeat()
    await worker.exchange(task_outcomes=[TaskOutcome(claim.token, claim.id, status, ERROR)])
    woken = await worker.claim_one()

    assert frozenset([claim.id]) == told
    assert status == await bench.status(claim.id)
    assert [(kind, 1, ERROR)] == [(d.kind, d.operation, d.payload) for d in woken.deliveries]


async def test_a_workflow_that_is_cancelled_between_claim_and_commit_is_told_after_it(
    bench: Bench, worker: Worker
) -> None:
    id_ = await bench.start("order")
    first = await worker.claim_one()
    await bench.store.cancel(id_)
    result = await worker.commit(suspend(first, children=[child(1)]), workflow_limit=1)

    assert frozenset() == result.refused
    assert [["cancel"]] == [[d.kind for d in c.deliveries] for c in result.claims]


async def test_children_carry_on_after_their_parent_has_ended(bench: Bench, worker: Worker) -> None:
    pending, running, flow = child(1), child(2, priority=9), child(3, "order", "workflow")
    parent = await begin(bench, worker, children=[pending, running, flow])
    claim = await worker.claim_one(tasks=1, workflows=0)
    await worker.commit(suspend(await worker.claim_one(tasks=0)))
    await bench.store.cancel(parent)
    await worker.commit(end(await worker.claim_one(tasks=0), "cancelled", ERROR))
    states = [await bench.status(c.id) for c in (pending, running, flow)]
    await worker.complete(claim)
    await worker.complete(await worker.claim_one(workflows=0))
    await bench.store.cancel(flow.id)

    assert ["pending", "running", "suspended"] == states
    assert ["completed", "completed"] == [await bench.status(c.id) for c in (pending, running)]
    assert [("cancel", None, None)] == await deliveries_of(worker)
    with pytest.raises(ExecutionFinished):
        await bench.store.cancel(parent)
    with pytest.raises(ExecutionNotFound):
        await bench.store.cancel(new_id())


# Many


async def test_a_thousand_children_at_every_stage(bench: Bench, worker: Worker) -> None:
    children: list[NewChild] = [child(i) for i in range(1, 1001)]
    parent = await begin(bench, worker, children=children, outstanding=1000)
    running = {c.id for c in await worker.claim(tasks=300, workflows=0)}
    await bench.signal(parent)
    commit = suspend(await worker.claim_one(tasks=0), cancels=[c.id for c in children], outstanding=1000)
    result = await worker.commit(commit, workflow_limit=1)
    (woken,) = result.claims
    told = await worker.heartbeat()
    await worker.commit(suspend(woken, outstanding=300))
    await bench.pass_time(31)
    await bench.store.maintain(new_id())
    other = await bench.worker(RETRIED)
    rest = await other.claim_one()

    assert (300, 700, 300) == (len(running), len(woken.deliveries), len(rest.deliveries))
    assert running == told
    assert set(range(1, 1001)) == {d.operation for d in (*woken.deliveries, *rest.deliveries)}
    assert {"cancelled"} == {info.status for info in await bench.store.list(parent_id=parent, limit=1000)}


# Two at once: locks held by hand


async def report(connection: Any, worker: Worker, claim: Claim, status: str) -> None:
    request = worker.request(task_outcomes=[TaskOutcome(claim.token, claim.id, status, ERROR)])
    call, arguments = exchange_call(request)
    await connection.fetchrow(call, *arguments)


@pytest.mark.parametrize("is_child", [False, True], ids=["alone", "child"])
@pytest.mark.parametrize(("status", "ends"), [("completed", "completed"), ("failed", "cancelled")])
async def test_a_cancel_that_waits_for_a_report_sees_what_became_of_it(
    bench: Bench, worker: Worker, status: str, ends: str, is_child: bool
) -> None:
    """A failure that would be retried is on its way to be claimable while the cancel waits."""
    claim = await claimed_task(bench, worker, is_child=is_child)
    async with bench.store._database.transaction() as connection:
        await report(connection, worker, claim, status)
        cancelling = asyncio.create_task(bench.store.cancel(claim.id))
        await waiting_for_locks(bench, 1)
    outcome = (await asyncio.gather(cancelling, return_exceptions=True))[0]

    assert ends == await bench.status(claim.id)
    assert isinstance(outcome, ExecutionFinished) is (status == "completed")
    assert [] == await worker.claim(workflows=0)


@pytest.mark.parametrize("is_child", [False, True], ids=["alone", "child"])
@pytest.mark.parametrize(("status", "ends"), [("completed", "completed"), ("failed", "failed"), ("back", "cancelled")])
async def test_a_report_that_waits_for_a_cancel_is_not_followed_by_another_attempt(
    bench: Bench, worker: Worker, status: str, ends: str, is_child: bool
) -> None:
    claim = await claimed_task(bench, worker, is_child=is_child)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.cancel($1)", claim.id)
        if status == "back":
            reporting = asyncio.create_task(worker.exchange(hand_backs=[(claim.token, claim.id)]))
        else:
            outcome = TaskOutcome(claim.token, claim.id, status, ERROR)
            reporting = asyncio.create_task(worker.exchange(task_outcomes=[outcome]))
        await waiting_for_locks(bench, 1)
    result = await reporting
    await other.close()

    assert frozenset() == result.refused
    assert ends == await bench.status(claim.id)
    assert [] == await worker.claim(workflows=0)


@pytest.mark.parametrize("is_child", [False, True], ids=["alone", "child"])
async def test_a_cancel_and_a_takeover_at_once(bench: Bench, worker: Worker, is_child: bool) -> None:
    claim = await claimed_task(bench, worker, is_child=is_child)
    await bench.pass_time(31)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.maintain()")
        cancelling = asyncio.create_task(bench.store.cancel(claim.id))
        await waiting_for_locks(bench, 1)
    await cancelling
    await other.close()

    assert "cancelled" == await bench.status(claim.id)


async def test_a_cancel_that_meets_a_claim_waits_for_it_and_asks(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start()
    async with bench.store._database.transaction() as connection:
        call, arguments = exchange_call(worker.request(task_limit=1))
        await connection.fetchrow(call, *arguments)
        cancelling = asyncio.create_task(bench.store.cancel(id_))
        await waiting_for_locks(bench, 1)
    await cancelling

    assert "running" == await bench.status(id_)
    assert frozenset([id_]) == await worker.heartbeat()


async def test_a_claim_passes_over_what_is_being_cancelled(bench: Bench, worker: Worker) -> None:
    ids = await bench.start_many(2)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.cancel($1)", ids[0])
        claims = await worker.claim()
    await other.close()

    assert [ids[1]] == [c.id for c in claims]
    assert "cancelled" == await bench.status(ids[0])


async def test_many_cancels_at_once_tell_a_workflow_once(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await asyncio.gather(*(bench.store.cancel(id_) for _ in range(8)))

    assert [("cancel", None, None)] == await deliveries_of(worker)


async def test_a_completed_batch_mate_is_not_disturbed(bench: Bench, worker: Worker) -> None:
    ids = await bench.start_many(3)
    claims = {c.id: c for c in await worker.claim()}
    await bench.store.cancel(ids[1])
    result = await worker.complete(claims[ids[0]], claims[ids[2]])
    await worker.exchange(task_outcomes=[TaskOutcome(result.retokened[ids[1]], ids[1], "cancelled", ERROR)])

    assert ["completed", "cancelled", "completed"] == [await bench.status(i) for i in ids]
