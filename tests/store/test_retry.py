"""Retry by hand: a task's new attempt, a workflow's resumption, and everything that must be refused."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest

from rhythm.errors import ExecutionNotFound, RetryRefused
from rhythm.model import Claim, TaskOutcome, TaskRegistration, new_id
from tests.store.bench import ERROR, OK, Bench, Worker, child, end, group, suspend, timer, waiting_for_locks

RETRIED = TaskRegistration("work", retries=1, retry={"initial": 0.0})


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("order")
    return await bench.worker(RETRIED, heartbeat_timeout=30)


async def refused(bench: Bench, id_: uuid.UUID) -> str:
    """The code with which a retry is refused."""
    with pytest.raises(RetryRefused) as caught:
        await bench.store.retry(id_, new_id())
    assert str(id_) in str(caught.value)
    return caught.value.code


async def fail_for_good(worker: Worker, claim: Claim) -> None:
    await worker.exchange(task_outcomes=[TaskOutcome(claim.token, claim.id, "failed", ERROR, retryable=False)])


async def begin(bench: Bench, worker: Worker, **fields: Any) -> uuid.UUID:
    id_ = await bench.start("order")
    claim = await worker.claim_one(tasks=0)
    assert id_ == claim.id
    await worker.commit(suspend(claim, **fields))
    return id_


async def singles(worker: Worker) -> list[Claim]:
    """Three tasks, each in a claim of its own: a report of one leaves the others' tokens alone."""
    return [await worker.claim_one(tasks=1, workflows=0) for _ in range(3)]


def seen(claim: Claim) -> list[tuple[str, int | None]]:
    return [(d.kind, d.operation) for d in claim.deliveries]


# Tasks


@pytest.mark.parametrize("round_", [1, 2])
async def test_a_failed_task_gets_its_retries_again(bench: Bench, worker: Worker, round_: int) -> None:
    id_ = await bench.start()
    for already in range(0, 2 * round_, 2):
        for attempt in (1, 2):
            claim = await worker.claim_one()
            await worker.fail(claim)
            assert already + attempt == claim.attempt
        assert "failed" == await bench.status(id_)
        await bench.store.retry(id_, new_id())
    claim = await worker.claim_one()
    await worker.complete(claim)

    assert 2 * round_ + 1 == claim.attempt
    assert "completed" == await bench.status(id_)


async def test_the_waits_between_attempts_begin_anew(bench: Bench) -> None:
    policy = {"initial": 10.0, "factor": 10.0, "max": 1e6, "jitter": 0.0}
    worker = await bench.worker(TaskRegistration("work", retries=1, retry=policy))
    id_ = await bench.start()
    await worker.fail(await worker.claim_one())
    await bench.pass_time(10)
    await bench.store.maintain(new_id())
    await worker.fail(await worker.claim_one())
    await bench.store.retry(id_, new_id())
    await worker.fail(await worker.claim_one())
    info = await bench.get(id_)

    assert info.available_at is not None
    assert 10 == (info.available_at - bench.now).total_seconds()


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_cancelled_task_runs_after_all(bench: Bench, worker: Worker, claimed: bool) -> None:
    id_ = await bench.start()
    if claimed:
        claim = await worker.claim_one()
    await bench.store.cancel(id_)
    if claimed:
        await worker.exchange(task_outcomes=[TaskOutcome(claim.token, id_, "cancelled", ERROR)])
    await bench.store.retry(id_, new_id())
    failure = await bench.raw.fetchval("select convert_from(payload, 'utf8') from rhythm.failures where id = $1", id_)
    again = await worker.claim_one()

    assert "cancelled" in failure or "failed" in failure
    assert (id_, 2 if claimed else 1) == (again.id, again.attempt)
    assert frozenset() == await worker.heartbeat()
    await worker.fail(again)
    assert "pending" == await bench.status(id_)


async def test_a_task_that_lost_its_workers_is_still_claimed_alone(bench: Bench) -> None:
    id_ = await bench.start()
    for _ in range(3):
        lost = await bench.worker("work", heartbeat_timeout=30)
        await lost.claim_one(alone=True)
        await bench.pass_time(31)
        await bench.store.maintain(new_id())
    assert "lost" == (await bench.error(id_))["type"]
    await bench.store.retry(id_, new_id())
    worker = await bench.worker("work", heartbeat_timeout=30)
    nothing = await worker.claim()
    claim = await worker.claim_one(alone=True)
    await bench.pass_time(31)
    await bench.store.maintain(new_id())

    assert [] == nothing
    assert (4, 1) == (claim.attempt, claim.lost)
    assert "pending" == await bench.status(id_)


async def test_reports_of_earlier_attempts_are_refused(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start(retries=0)
    first = await worker.claim_one()
    await worker.fail(first)
    await bench.store.retry(id_, new_id())
    late = await worker.complete(first)
    second = await worker.claim_one()
    later = await worker.complete(first)

    assert (frozenset([id_]), frozenset([id_])) == (late.refused, later.refused)
    assert "running" == await bench.status(id_)
    await worker.complete(second)
    assert "completed" == await bench.status(id_)


async def test_repeating_a_retry_does_nothing(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start(retries=0)
    await worker.fail(await worker.claim_one())
    retry_id = new_id()
    await bench.store.retry(id_, retry_id)
    await bench.store.retry(id_, retry_id)
    await worker.fail(await worker.claim_one())
    await bench.store.retry(id_, retry_id)

    assert "failed" == await bench.status(id_)


async def test_what_has_not_failed_is_not_retried(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start()
    codes = [await refused(bench, id_)]
    claim = await worker.claim_one()
    codes.append(await refused(bench, id_))
    await worker.complete(claim)
    codes.append(await refused(bench, id_))

    assert ["not_finished", "not_finished", "completed"] == codes
    with pytest.raises(ExecutionNotFound):
        await bench.store.retry(new_id(), new_id())


async def test_of_many_retries_at_once_one_counts(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start(retries=0)
    await worker.fail(await worker.claim_one())
    results = await asyncio.gather(*(bench.store.retry(id_, new_id()) for _ in range(6)), return_exceptions=True)

    assert [None] == [r for r in results if not isinstance(r, RetryRefused)]
    assert 1 == await bench.count("ready")


async def test_an_execution_whose_key_went_to_another_is_not_retried(bench: Bench, worker: Worker) -> None:
    first = await bench.start(key="k", retries=0)
    await worker.fail(await worker.claim_one())
    second = await bench.start_result(key="k", key_policy="after_failure")

    assert "started" == second.status
    assert "key_taken" == await refused(bench, first)


async def test_a_name_that_nobody_knew_leaves_nothing_to_retry(bench: Bench) -> None:
    id_ = await bench.start("nobody knows")
    await bench.store.cancel(id_)

    assert "name_unknown" == await refused(bench, id_)


async def test_retention_and_retry_at_once(bench: Bench, worker: Worker) -> None:
    """Whoever comes first: nothing is deleted that is claimable, nothing is claimable that was deleted."""
    ids = await bench.start_many(2, retries=0)
    await worker.fail(*await worker.claim())
    await bench.pass_time(10)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.retry($1)", ids[0])
        await bench.store.maintain(new_id(), retention_seconds=1)
    async with other.transaction():
        again = await bench.start(retries=0)
        await worker.fail(*[c for c in await worker.claim() if c.id == again])
        await bench.pass_time(70)  # retention looks once a minute
        await worker.heartbeat()
        await other.execute("select rhythm.maintain(1)")
        retrying = asyncio.create_task(bench.store.retry(again, new_id()))
        await waiting_for_locks(bench, 1)
    with pytest.raises(ExecutionNotFound):
        await retrying
    await other.close()

    assert "running" == await bench.status(ids[0])
    assert await bench.store.get(ids[1]) is None


# Children


async def test_a_childs_outcome_that_was_taken_in_stays(bench: Bench, worker: Worker) -> None:
    await begin(bench, worker, children=[child(1)])
    claim = await worker.claim_one(workflows=0)
    await fail_for_good(worker, claim)
    parent = await worker.claim_one(tasks=0)
    running = await refused(bench, claim.id)
    await worker.commit(suspend(parent))
    suspended = await refused(bench, claim.id)
    await bench.store.cancel(parent.id)
    await worker.commit(end(await worker.claim_one()))

    assert ["consumed"] * 3 == [running, suspended, await refused(bench, claim.id)]


@pytest.mark.parametrize("woken", [False, True])
async def test_an_outcome_that_nobody_has_taken_in_is_taken_back(bench: Bench, worker: Worker, woken: bool) -> None:
    children = [child(i) for i in (1, 2, 3)]
    id_ = await begin(bench, worker, children=children, outstanding=3, wake_groups=[group("last", 1, 2, 3)])
    first, second, third = await singles(worker)
    await fail_for_good(worker, second)
    await worker.complete(first)
    if woken:
        await bench.signal(id_)
    await bench.store.retry(second.id, new_id())
    again = await worker.claim_one(workflows=0)
    await worker.complete(third)
    status = await bench.status(id_)
    await worker.complete(again)
    parent = await worker.claim_one(tasks=0)

    assert second.id == again.id
    assert ("pending" if woken else "suspended") == status
    told = [("failed", 0), ("completed", 1), *([("signal", None)] if woken else []), ("completed", 3), ("completed", 2)]
    assert told == seen(parent)


async def test_an_outcome_is_not_taken_back_from_a_parent_that_is_being_claimed(bench: Bench, worker: Worker) -> None:
    await begin(bench, worker, children=[child(1)])
    claim = await worker.claim_one(workflows=0)
    await fail_for_good(worker, claim)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select 1 from rhythm.ready for update")
        code = await refused(bench, claim.id)
    await other.close()

    assert "consumed" == code
    assert [("failed", 1)] == seen(await worker.claim_one())


async def test_a_child_that_failed_after_its_parent_ended_is_retried(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, children=[child(1, retries=0)])
    await bench.store.cancel(id_)
    claim = await worker.claim_one(workflows=0)
    await worker.commit(end(await worker.claim_one(tasks=0)))
    await bench.pass_time(1)
    await worker.fail(claim)
    await bench.store.retry(claim.id, new_id())
    await worker.complete(await worker.claim_one())

    assert "completed" == await bench.status(claim.id)


# Workflows


async def break_down(worker: Worker, claim: Claim) -> None:
    """An uncatchable end: a limit, a definition that is gone."""
    await worker.commit(end(claim, "failed", ERROR, keep_snapshot=True))


async def test_a_workflow_resumes_with_what_it_had_not_read(bench: Bench, worker: Worker) -> None:
    children = [child(1), child(2), child(3)]
    timers = [timer(4, 100), timer(5, 1000)]
    id_ = await begin(bench, worker, children=children, timers=timers, outstanding=5, snapshot=b"state")
    first, second, third = await singles(worker)
    await worker.complete(first)
    await bench.signal(id_, "go", b"1")
    await break_down(worker, await worker.claim_one())
    await bench.pass_time(200)
    await worker.heartbeat()
    await bench.store.maintain(new_id())
    await worker.complete(second)
    assert "failed" == await bench.status(id_)
    await bench.store.retry(id_, new_id())
    await worker.complete(third)
    await bench.store.maintain(new_id())
    claim = await worker.claim_one()

    assert (id_, 1, b"state", 2) == (claim.id, claim.version, claim.snapshot, claim.attempt)
    assert [("completed", 1), ("signal", None), ("completed", 2), ("completed", 3), ("timer", 4)] == seen(claim)
    await worker.commit(suspend(claim, outstanding=1))
    assert "suspended" == await bench.status(id_)
    await bench.pass_time(1000)
    await worker.heartbeat()
    await bench.store.maintain(new_id())
    claim = await worker.claim_one()
    assert [("timer", 5)] == seen(claim)
    await worker.commit(end(claim))
    assert "completed" == await bench.status(id_)


async def test_a_workflow_that_broke_down_in_its_first_turn_begins_again(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start("order")
    await bench.signal(id_)
    await break_down(worker, await worker.claim_one())
    await bench.store.retry(id_, new_id())
    claim = await worker.claim_one()

    assert (0, None, [("signal", None)]) == (claim.version, claim.snapshot, seen(claim))


async def test_a_workflow_that_breaks_down_again_is_resumed_again(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, timers=[timer(1, 5)])
    await bench.pass_time(5)
    for attempt in range(3):
        await bench.store.maintain(new_id())
        claim = await worker.claim_one()
        await break_down(worker, claim)
        await bench.store.retry(id_, new_id())
        assert ([("timer", 1)], attempt + 1) == (seen(claim), claim.attempt)
    await bench.store.cancel(id_)
    assert [("timer", 1), ("cancel", None)] == seen(await worker.claim_one())


async def test_a_lost_workflow_resumes(bench: Bench) -> None:
    await bench.publish("order")
    worker = await bench.worker("work", heartbeat_timeout=30)
    id_ = await begin(bench, worker, snapshot=b"state")
    await bench.signal(id_)
    for _ in range(3):
        await worker.claim_one(alone=True)
        await bench.pass_time(31)
        await bench.store.maintain(new_id())
        worker = await bench.worker("work", heartbeat_timeout=30)
    assert "lost" == (await bench.error(id_))["type"]
    await bench.store.retry(id_, new_id())
    claim = await worker.claim_one(alone=True)

    assert (b"state", 1, 1, [("signal", None)]) == (claim.snapshot, claim.version, claim.lost, seen(claim))
    await worker.commit(end(claim))
    assert "completed" == await bench.status(id_)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_workflow_that_ended_by_itself_has_nothing_to_resume(bench: Bench, worker: Worker, status: str) -> None:
    id_ = await begin(bench, worker)
    await bench.store.cancel(id_)
    await worker.commit(end(await worker.claim_one(), status, ERROR))

    assert "nothing_kept" == await refused(bench, id_)


async def test_a_workflow_cancelled_while_it_undid_things_goes_on_undoing(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await bench.store.cancel(id_)
    await break_down(worker, await worker.claim_one())
    await bench.store.retry(id_, new_id())
    await bench.store.cancel(id_)

    assert [("cancel", None)] == seen(await worker.claim_one())


async def test_a_child_workflow_is_resumed_and_its_parent_gets_what_it_comes_to(bench: Bench, worker: Worker) -> None:
    groups = [group("last", 1, 2)]
    flow = child(1, "order", "workflow")
    id_ = await begin(bench, worker, children=[flow, child(2)], outstanding=2, wake_groups=groups)
    task = await worker.claim_one(workflows=0)
    await break_down(worker, await worker.claim_one(tasks=0))
    await bench.store.retry(flow.id, new_id())
    await worker.commit(end(await worker.claim_one(tasks=0)))
    await worker.complete(task)

    assert [("failed", 0), ("completed", 1), ("completed", 2)] == seen(await worker.claim_one())
    assert "running" == await bench.status(id_)


async def test_a_child_is_retried_under_a_parent_that_broke_down(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, children=[child(1), child(2), child(3)], outstanding=3)
    first, second, third = await singles(worker)
    await worker.complete(first)
    await worker.commit(suspend(await worker.claim_one(tasks=0), outstanding=2))
    await bench.pass_time(1)
    await fail_for_good(worker, second)
    await break_down(worker, await worker.claim_one(tasks=0))
    await bench.pass_time(1)
    await fail_for_good(worker, third)
    await bench.store.retry(second.id, new_id())
    await bench.store.retry(third.id, new_id())
    again = await worker.claim(workflows=0)
    await bench.store.retry(id_, new_id())
    await worker.complete(*again)
    parent = await worker.claim_one()

    assert {second.id, third.id} == {c.id for c in again}
    assert sorted([("completed", 2), ("completed", 3)]) == sorted(
        (kind, operation) for kind, operation in seen(parent) if operation != 1
    )


# From the start


async def test_from_the_start_is_another_execution_with_the_same_options(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start(
        "order", inputs=b'{"a":1}', key="k", tags={"t": 1}, priority=7, queue="default", retries=2, timeout_seconds=9
    )
    await worker.commit(end(await worker.claim_one(), "failed", ERROR))
    await bench.publish("order", "h2")
    fresh = new_id()
    await bench.store.start_again(id_, fresh)
    await bench.store.start_again(id_, fresh)
    old, new = await bench.get(id_), await bench.get(fresh)
    claim = await worker.claim_one()
    again = await bench.start_result("order", inputs=b'{"a":1}', key="k")

    assert ("failed", "h1", "running", "h2") == (
        old.status, old.definition_hash, (await bench.get(fresh)).status, new.definition_hash,
    )  # fmt: skip
    assert (old.inputs, old.key, old.tags, old.priority) == (new.inputs, new.key, new.tags, new.priority)
    assert (fresh, fresh, "existing") == (claim.id, again.id, again.status)
    assert "key_taken" == await refused(bench, id_)


async def test_from_the_start_of_a_child_has_no_parent(bench: Bench, worker: Worker) -> None:
    await begin(bench, worker, children=[child(1, key="token")])
    claim = await worker.claim_one(workflows=0)
    await fail_for_good(worker, claim)
    fresh = new_id()
    await bench.store.start_again(claim.id, fresh)
    again = await worker.claim_one(workflows=0)

    assert (fresh, None, None) == (again.id, again.parent_id, again.key)
    await worker.complete(again, payload=OK)


async def test_from_the_start_needs_a_failure(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start()
    with pytest.raises(RetryRefused, match="has not finished"):
        await bench.store.start_again(id_, new_id())
    await worker.complete(await worker.claim_one())
    with pytest.raises(RetryRefused, match="has completed"):
        await bench.store.start_again(id_, new_id())
    with pytest.raises(ExecutionNotFound):
        await bench.store.start_again(new_id(), new_id())
