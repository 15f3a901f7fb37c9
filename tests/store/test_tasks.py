"""Tasks from start to outcome."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from rhythm.errors import InvalidInput
from rhythm.model import TaskOutcome, TaskRegistration, new_id
from tests.store.bench import ERROR, Bench, new_execution


async def test_a_task_goes_from_pending_over_running_to_completed(any_bench: Bench) -> None:
    bench = any_bench
    worker = await bench.worker("work")
    id_ = await bench.start(inputs=b'{"a":1}', tags={"customer": "c-1"})
    before = await bench.get(id_)
    claim = await worker.claim_one()
    during = await bench.get(id_)
    await bench.pass_time(1)
    result = await worker.complete(claim, payload=b'{"b":2}')
    after = await bench.get(id_)

    assert ("pending", "ready") == (before.status, before.reason)
    assert (b'{"a":1}', "work", 1, 0, {"customer": "c-1"}) == (
        claim.inputs,
        claim.name,
        claim.attempt,
        claim.lost,
        claim.tags,
    )
    assert ("running", 1) == (during.status, during.attempts)
    assert frozenset() == result.refused
    assert ("completed", b'{"b":2}', None) == (after.status, after.output, after.error)
    assert after.finished_at == bench.now
    assert after.started_at == bench.now - timedelta(seconds=1)


async def test_the_same_start_repeated_starts_nothing(bench: Bench) -> None:
    execution = new_execution()
    first = await bench.store.start([execution])
    again = await bench.store.start([execution, new_execution()])

    assert ["started"] == [r.status for r in first]
    assert ["existing", "started"] == [r.status for r in again]
    assert 2 == await bench.count("executions")


async def test_higher_priority_goes_first_then_age(bench: Bench) -> None:
    worker = await bench.worker("work", "other")
    low = await bench.start(priority=-5)
    first = await bench.start("other")
    second = await bench.start()
    high = await bench.start("other", priority=100)
    order = [(await worker.claim_one(tasks=1)).id for _ in range(4)]

    assert [high, first, second, low] == order


async def test_one_batch_is_ordered_by_priority_then_age(bench: Bench) -> None:
    worker = await bench.worker("a", "b")
    ids = [await bench.start(name, priority=priority) for name, priority in [("a", 0), ("b", 1), ("a", 1), ("b", 0)]]
    claims = await worker.claim(3)

    assert [ids[1], ids[2], ids[0]] == [claim.id for claim in claims]


async def test_a_delayed_start_waits_for_its_time(bench: Bench) -> None:
    worker = await bench.worker("work")
    by_delay = await bench.start(delay_seconds=60)
    by_moment = await bench.start(available_at=bench.now + timedelta(seconds=61))
    at_once = await bench.start(available_at=bench.now - timedelta(seconds=1))
    assert [at_once] == [c.id for c in await worker.claim()]
    due = await bench.store.maintain(worker.incarnation)
    await bench.pass_time(59.9)
    await bench.store.maintain(worker.incarnation)
    early = await worker.claim()
    await bench.pass_time(0.1)
    moved = await bench.store.maintain(worker.incarnation)
    in_time = await worker.claim()

    assert 60 == due.next_due_seconds
    assert [] == early
    assert (1, 1.0) == (moved.moved, moved.next_due_seconds)
    assert [by_delay] == [c.id for c in in_time]
    assert ("pending", "later") == ((await bench.get(by_moment)).status, (await bench.get(by_moment)).reason)


async def test_options_not_given_come_from_the_registration(bench: Bench) -> None:
    retry = {"initial": 7.0, "factor": 3.0, "max": 60.0, "jitter": 0.0, "retry_on": [], "no_retry_on": []}
    task = TaskRegistration("work", queue="orders", retries=2, retry=retry, timeout_seconds=1.5, priority=4)
    worker = await bench.worker(task, queues=["orders", "default"])
    await bench.start()
    await bench.start(retries=0, timeout_seconds=9, queue="default", priority=-4, retry={**retry, "initial": 1.0})
    registered, given = await worker.claim()

    assert ("orders", 2, retry, 1.5) == (
        registered.queue,
        registered.retries,
        registered.retry,
        registered.timeout_seconds,
    )
    assert ("default", 0, 9.0) == (given.queue, given.retries, given.timeout_seconds)
    assert given.retry is not None
    assert 1.0 == given.retry["initial"]


async def test_failures_are_retried_with_growing_delays_and_then_final(bench: Bench) -> None:
    retry = {"initial": 10, "factor": 2, "max": 15, "jitter": 0}
    worker = await bench.worker(TaskRegistration("work", retries=3, retry=retry))
    id_ = await bench.start()
    waited = []
    for attempt in range(1, 4):
        claim = await worker.claim_one()
        assert attempt == claim.attempt
        await worker.fail(claim)
        info = await bench.get(id_)
        assert ("pending", "retry") == (info.status, info.reason)
        due = (await bench.store.maintain(worker.incarnation)).next_due_seconds
        assert due is not None
        waited.append(due)
        await bench.pass_time(due - 0.001)
        await bench.store.maintain(worker.incarnation)
        assert [] == await worker.claim()
        await bench.pass_time(0.001)
        await bench.store.maintain(worker.incarnation)
    await worker.fail(await worker.claim_one())
    info = await bench.get(id_)

    assert [10, 15, 15] == waited
    assert ("failed", 4, ERROR) == (info.status, info.attempts, info.error)


async def test_jitter_moves_the_delay_either_way(bench: Bench) -> None:
    retry = {"initial": 10, "factor": 2, "max": 100, "jitter": 0.2}
    worker = await bench.worker(TaskRegistration("work", retries=1, retry=retry))
    await bench.start_many(200)
    await worker.fail(*await worker.claim(200))
    rows = await bench.raw.fetch(
        "select extract(epoch from available_at - rhythm.now())::float8 as wait from rhythm.later"
    )
    waits = sorted(row["wait"] for row in rows)

    assert 200 == len(waits)
    assert 8 <= waits[0] < 9
    assert 11 < waits[-1] <= 12


@pytest.mark.parametrize(
    ("retry", "failures", "expected"),
    [
        (None, 1, 1.0),
        ({"initial": 1, "factor": 2, "max": 300, "jitter": 0}, 1_000_000, 300.0),
        ({"initial": 0, "factor": 2, "max": 300, "jitter": 0}, 3, 0.0),
        ({"initial": 5, "factor": 1, "max": 300, "jitter": 0}, 50, 5.0),
        ({"initial": 500, "factor": 1, "max": 300, "jitter": 0}, 1, 300.0),
        ({"initial": 5, "factor": 1e300, "max": 1e300, "jitter": 0}, 9, 1e300),
        ({"initial": 1, "factor": 2, "max": 0, "jitter": 0}, 1, 0.0),
    ],
)
async def test_backoff_never_overflows(
    bench: Bench, retry: dict[str, float] | None, failures: int, expected: float
) -> None:
    text = None if retry is None else json.dumps(retry)
    found = await bench.raw.fetchval("select rhythm.backoff($1::text::jsonb, $2)", text, failures)

    assert pytest.approx(expected, rel=0.21 if retry is None else 1e-9) == found


async def test_what_is_not_retryable_fails_at_once_and_a_given_delay_wins(bench: Bench) -> None:
    worker = await bench.worker(TaskRegistration("work", retries=5))
    final = await bench.start()
    await worker.fail(await worker.claim_one(), retryable=False)
    delayed = await bench.start()
    await worker.fail(await worker.claim_one(), after=3600)
    at_once = await bench.start()
    await worker.fail(await worker.claim_one(), after=0)

    assert "failed" == await bench.status(final)
    assert bench.now + timedelta(seconds=3600) == (await bench.get(delayed)).available_at
    assert "ready" == (await bench.get(at_once)).reason


async def test_a_task_may_end_as_cancelled(bench: Bench) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start()
    claim = await worker.claim_one()
    await worker.exchange(task_outcomes=[TaskOutcome(claim.token, id_, "cancelled", ERROR)])

    assert ("cancelled", ERROR) == ((await bench.get(id_)).status, (await bench.get(id_)).error)


async def test_other_names_and_queues_are_not_touched(bench: Bench) -> None:
    await bench.worker("other")
    worker = await bench.worker("mine", queues=["q1", "q2"])
    await bench.start("other", queue="q1")
    await bench.start("mine", queue="q3")
    mine = [await bench.start("mine", queue=queue) for queue in ("q2", "q1")]
    claims = await worker.claim()

    assert sorted(mine) == sorted(claim.id for claim in claims)


async def test_a_paused_queue_is_not_claimed_from(bench: Bench) -> None:
    worker = await bench.worker("work")
    await bench.start()
    await bench.store.pause_queue("default")
    paused = await worker.claim()
    figures = await bench.store.queues()
    await bench.store.pause_queue("default", False)

    assert [] == paused
    assert ("default", 1, True) == (figures[0].queue, figures[0].pending, figures[0].paused)
    assert 1 == len(await worker.claim())


async def test_one_claim_carries_about_four_mebibytes_of_inputs(bench: Bench) -> None:
    worker = await bench.worker("big", "small")
    await bench.start_many(7, "big", inputs=b'{"a":"' + b"x" * 1024 * 1024 + b'"}')
    huge = await bench.start("big", inputs=b'{"a":"' + b"x" * 6 * 1024 * 1024 + b'"}')
    await bench.start_many(3, "small")
    counts = []
    while claims := await worker.claim():
        counts.append(len(claims))
        await worker.complete(*claims)

    assert [4, 4, 3] == counts
    assert "completed" == await bench.status(huge)


async def test_payloads_come_back_as_they_went_in(any_bench: Bench) -> None:
    inputs = b'{"z":1,"a":"\\u0000 \\ud800 \\ud83d\\ude00","n":90071992547409931,"z":2}'
    output = b'["\\u0000","\\udfff"]'
    worker = await any_bench.worker("work")
    id_ = await any_bench.start(inputs=inputs)
    claim = await worker.claim_one()
    await worker.complete(claim, payload=output)
    row = await any_bench.raw.fetchrow(
        "select inputs::text, output::text from rhythm.executions_view where id = $1", id_
    )
    assert row is not None

    assert inputs == claim.inputs
    assert output == (await any_bench.get(id_)).output
    assert (inputs.decode(), output.decode()) == tuple(row)


HOSTILE = [
    "'; drop schema rhythm cascade; --",
    'a"b',
    "$1",
    "%s %I {0}",
    "x\\y",
    "a,b}{",
    "null",
    "Ω 任務 \U0001f600",
    " ",
    "x" * 200,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
async def test_every_name_is_only_a_name(bench: Bench, name: str) -> None:
    worker = await bench.worker(TaskRegistration(name, queue=name), queues=[name])
    await bench.publish(name)
    id_ = await bench.start(name, kind="task", queue=name, key=name, tags={name: name})
    again = await bench.start_result(name, kind="task", key=name)
    claim = await worker.claim_one()
    await worker.fail(claim)
    workflow = await bench.start(name, kind="workflow", queue=name)
    await bench.signal(workflow, name)
    listed = await bench.store.list(name=name, queue=name, tags={name: name})
    flow = await worker.claim_one()

    assert (id_, "existing") == (again.id, again.status)
    assert (name, name, name, {name: name}) == (claim.name, claim.queue, claim.key, claim.tags)
    assert [id_] == [info.id for info in listed]
    assert (name, name) == (flow.name, flow.deliveries[0].name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "x" * 201])
async def test_names_that_cannot_be_stored_are_refused_with_a_clear_error(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidInput):
        await bench.start(name)
    assert 0 == await bench.count("executions")


async def test_a_name_in_utf16_units_is_the_same_name(bench: Bench) -> None:
    worker = await bench.worker("\U0001f600")
    await bench.start("\ud83d\ude00")

    assert "\U0001f600" == (await worker.claim_one()).name


async def test_list_filters_and_pages(bench: Bench) -> None:
    worker = await bench.worker("a", "b", queues=["default", "q"])
    await bench.start_many(5, "a", tags={"x": 1, "y": [2]})
    queued = await bench.start_many(2, "b", queue="q")
    failed = await bench.start("b", priority=1)
    await worker.fail(await worker.claim_one(tasks=1))
    listed = [info.id for info in await bench.store.list(limit=3)]
    rest = await bench.store.list(before=listed[-1])

    assert 8 == len(set(listed) | {info.id for info in rest})
    assert listed == sorted(listed, reverse=True)
    assert [failed] == [info.id for info in await bench.store.list(status="failed")]
    assert [failed] == [info.id for info in await bench.store.list(status="failed", name="b", kind="task")]
    assert 5 == len(await bench.store.list(tags={"y": [2]}))
    assert set(queued) == {info.id for info in await bench.store.list(queue="q", status="pending")}
    assert [] == await bench.store.list(kind="workflow")
    assert [] == await bench.store.list(status="running")


async def test_outcomes_of_many(bench: Bench) -> None:
    worker = await bench.worker("work")
    done, waiting = await bench.start(priority=1), await bench.start()
    await worker.complete(await worker.claim_one(tasks=1), payload=b"7")
    found = await bench.store.outcomes([done, waiting, new_id()])
    outcome = found[done]
    assert outcome is not None

    assert {done, waiting} == set(found)
    assert ("completed", b"7") == (outcome.status, outcome.payload)
    assert found[waiting] is None


async def test_figures_of_queues_and_workers(bench: Bench) -> None:
    worker = await bench.worker("work", queues=["default", "empty"])
    await bench.start_many(3)
    await worker.claim(1)
    await bench.pass_time(5)
    default, empty = await bench.store.queues()
    (found,) = await bench.store.workers()

    assert ("default", 2, 1, 0, 5.0) == (
        default.queue,
        default.pending,
        default.running,
        default.suspended,
        default.oldest_pending_seconds,
    )
    assert (0, None) == (empty.pending, empty.oldest_pending_seconds)
    assert (["default", "empty"], ["work"], 1, 5.0) == (
        found.queues,
        found.tasks,
        found.running,
        found.seen_seconds_ago,
    )


async def test_whether_a_live_worker_could_run_it(bench: Bench) -> None:
    id_ = await bench.start()
    unknown = await bench.store.can_run(id_)
    worker = await bench.worker("work")
    known = await bench.store.can_run(id_)
    elsewhere = await bench.store.can_run(await bench.start(queue="elsewhere"))
    await bench.store.unregister_worker(worker.incarnation)

    assert (False, True, False) == (unknown, known, elsewhere)
    assert not await bench.store.can_run(id_)


async def test_concurrent_bulk_starts_do_not_disturb_each_other(bench: Bench) -> None:
    await asyncio.gather(*(bench.start_many(200, f"n{i % 3}", queue=f"q{i % 2}") for i in range(10)))

    assert 2000 == await bench.count("executions")
