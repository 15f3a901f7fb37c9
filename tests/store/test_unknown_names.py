"""Executions whose name nobody knows (yet)."""

from __future__ import annotations

import asyncio

from rhythm.model import TaskRegistration
from tests.store.bench import Bench, suspend


async def test_an_unknown_name_is_accepted_visible_and_runs_once_it_is_registered(bench: Bench) -> None:
    id_ = await bench.start("charge", inputs=b"[1]")
    other = await bench.worker("other")
    before = await bench.get(id_)
    nothing = await other.claim()
    worker = await bench.worker(TaskRegistration("charge", queue="orders", retries=2), queues=["orders"])
    after = await bench.get(id_)
    claim = await worker.claim_one()

    assert ("pending", "unknown task") == (before.status, before.reason)
    assert [] == nothing
    assert 1 == worker.registered.returned
    assert ("ready", "orders") == (after.reason, after.queue)
    assert (id_, "task", "charge", b"[1]", 2, "orders") == (
        claim.id,
        claim.kind,
        claim.name,
        claim.inputs,
        claim.retries,
        claim.queue,
    )


async def test_options_given_at_the_start_outlive_the_parking(bench: Bench) -> None:
    await bench.start("charge", queue="mine", priority=9, retries=0, timeout_seconds=5, delay_seconds=10)
    worker = await bench.worker(
        TaskRegistration("charge", queue="orders", retries=2, timeout_seconds=1), queues=["mine"]
    )
    early = await worker.claim()
    await bench.pass_time(10)
    await bench.store.maintain(worker.incarnation)
    claim = await worker.claim_one()

    assert [] == early
    assert ("mine", 0, 5.0) == (claim.queue, claim.retries, claim.timeout_seconds)


async def test_a_workflow_started_before_it_was_published_runs_and_keeps_its_signals(bench: Bench) -> None:
    id_ = await bench.start("order")
    await bench.signal(id_, "approve", b"true")
    definition = await bench.publish("order")
    worker = await bench.worker()
    claim = await worker.claim_one()
    info = await bench.get(id_)

    assert (id_, "workflow", definition) == (claim.id, claim.kind, claim.definition_id)
    assert [("signal", "approve", b"true")] == [(d.kind, d.name, d.payload) for d in claim.deliveries]
    assert ("workflow", "h1") == (info.kind, info.definition_hash)
    await worker.commit(suspend(claim, snapshot=b"", outstanding=1))
    await bench.signal(id_)


async def test_a_signal_to_what_turns_out_to_be_a_task_is_dropped(bench: Bench) -> None:
    id_ = await bench.start("charge")
    await bench.signal(id_)
    worker = await bench.worker("charge")
    await worker.complete(await worker.claim_one())

    assert "completed" == await bench.status(id_)


async def test_a_child_of_an_unknown_name_waits_for_its_kind(bench: Bench) -> None:
    await bench.publish("charge")  # a workflow of that name does not make it a task
    worker = await bench.worker()
    id_ = await bench.start("charge", kind="task")

    assert [] == await worker.claim()
    assert "unknown task" == (await bench.get(id_)).reason
    second = await bench.worker("charge")
    assert id_ == (await second.claim_one()).id


async def test_the_workflow_is_meant_when_a_task_has_the_same_name(bench: Bench) -> None:
    worker = await bench.worker("order")
    await bench.publish("order")
    await bench.start("order")
    await bench.start("order", kind="task")

    assert ["task", "workflow"] == sorted(c.kind for c in await worker.claim())


async def test_keys_taken_while_the_name_was_unknown_stay_taken(bench: Bench) -> None:
    id_ = await bench.start("charge", key="k")
    await bench.worker("charge")
    again = await bench.start_result("charge", key="k")
    as_task = await bench.start_result("charge", key="k", kind="task")

    assert [(id_, "existing")] * 2 == [(r.id, r.status) for r in (again, as_task)]


async def test_tasks_that_no_live_worker_knows_any_more_are_parked_and_come_back(bench: Bench) -> None:
    worker = await bench.worker("work")
    other = await bench.worker("other")
    ids = await bench.start_many(3)
    await bench.store.unregister_worker(worker.incarnation)
    await bench.store.maintain(other.incarnation)
    soon = await bench.get(ids[0])
    await bench.pass_time(61)
    await other.heartbeat()
    await bench.store.maintain(other.incarnation)
    parked = [(await bench.get(id_)).reason for id_ in ids]
    second = await bench.worker("work")

    assert "ready" == soon.reason
    assert ["unknown task"] * 3 == parked
    assert 3 == second.registered.returned
    assert ids == [c.id for c in await second.claim()]


async def test_names_known_to_a_live_worker_are_not_parked_however_long_they_wait(bench: Bench) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start()
    for _ in range(10):
        await bench.pass_time(25)
        await worker.heartbeat()
        await bench.store.maintain(worker.incarnation)

    assert "ready" == (await bench.get(id_)).reason


async def test_registrations_and_starts_at_once_leave_nothing_parked(bench: Bench) -> None:
    for i in range(10):
        results = await asyncio.gather(
            *(bench.start(f"n{i}") for _ in range(4)), bench.worker(f"n{i}"), bench.start(f"n{i}", kind="task")
        )
        assert 6 == len(results)

    assert 0 == await bench.count("later")
    assert 50 == await bench.count("ready")


async def test_the_newest_registration_wins_and_the_difference_is_told(bench: Bench) -> None:
    first = await bench.worker(TaskRegistration("work", retries=1), "same")
    second = await bench.worker(TaskRegistration("work", retries=2), "same")
    await bench.start()
    claim = await second.claim_one()

    assert [] == list(first.registered.conflicts)
    assert ["work"] == list(second.registered.conflicts)
    assert 2 == claim.retries
