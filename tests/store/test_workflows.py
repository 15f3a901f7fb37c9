"""Workflows: commits, deliveries, wake-ups, timers, signals, children, continuation in place."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from rhythm.errors import ExecutionFinished, ExecutionNotFound, InvalidInput, SignalRefused
from rhythm.model import Claim, NewChild, NewTimer, TaskOutcome, new_id
from rhythm.store.marshal import exchange_call, exchange_result
from tests.store.bench import (
    BEGINNING,
    ERROR,
    OK,
    Bench,
    Worker,
    child,
    continuation,
    end,
    group,
    suspend,
    timer,
    waiting_for_locks,
)


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("order")
    return await bench.worker("work")


def seen(claim: Claim) -> list[tuple[Any, ...]]:
    return [(d.number, d.kind, d.operation, d.payload) for d in claim.deliveries]


async def begin(bench: Bench, worker: Worker, **fields: Any) -> uuid.UUID:
    """A workflow that has committed its first step."""
    id_ = await bench.start("order")
    claim = await worker.claim_one(tasks=0)
    assert id_ == claim.id
    await worker.commit(suspend(claim, **fields))
    return id_


async def test_a_workflow_calls_a_task_and_takes_in_its_outcome(any_bench: Bench) -> None:
    bench = any_bench
    definition = await bench.publish("order")
    worker = await bench.worker("work")
    id_ = await bench.start("order", inputs=b"[7]", tags={"a": 1})
    first = await worker.claim_one()
    running = await bench.status(id_)
    call = child(1, inputs=b"[8]", key="k", priority=5)
    await worker.commit(suspend(first, snapshot=b"one", children=[call]))
    suspended = await bench.status(id_)
    task = await worker.claim_one()
    await worker.complete(task, payload=b"9")
    woken = await bench.status(id_)
    second = await worker.claim_one()
    await worker.commit(end(second, payload=b"10"))
    info = await bench.get(id_)
    call_info = await bench.get(call.id)

    assert ("workflow", "order", b"[7]", {"a": 1}, definition, 0, None, ()) == (
        first.kind, first.name, first.inputs, first.tags, first.definition_id, first.version, first.snapshot,
        first.deliveries,
    )  # fmt: skip
    assert (call.id, "task", "work", b"[8]", "k", id_, 1) == (
        task.id, task.kind, task.name, task.inputs, task.key, task.parent_id, task.operation,
    )  # fmt: skip
    assert ["running", "suspended", "pending"] == [running, suspended, woken]
    assert (b"one", 1) == (second.snapshot, second.version)
    assert [(1, "completed", 1, b"9")] == seen(second)
    assert ("completed", b"10", "h1") == (info.status, info.output, info.definition_hash)
    assert (id_, id_, 5) == (call_info.parent_id, call_info.root_id, call_info.priority)
    for table in ("waits", "snapshots", "deliveries", "ready", "claims"):
        assert 0 == await bench.count(table), table


async def test_a_running_workflow_keeps_its_definition_and_new_ones_take_the_newest(bench: Bench) -> None:
    old = await bench.publish("order", "h1")
    worker = await bench.worker("work")
    first = await bench.start("order")
    await worker.commit(suspend(await worker.claim_one()))
    new = await bench.publish("order", "h2")
    second = await bench.start("order")
    await bench.signal(first)
    claims = {c.id: c.definition_id for c in await worker.claim()}
    third = await bench.start("order", definition_hash="h1")
    pinned = await worker.claim_one()
    again = await bench.publish("order", "h1")
    info = await bench.store.definition("h1")
    assert info is not None

    assert {first: old, second: new} == claims
    assert (third, old) == (pinned.id, pinned.definition_id)
    assert old == again
    assert (old, "order", True) == (info.id, info.name, info.current)
    current = await bench.store.current_definition("order")
    assert current is not None
    assert old == current.id


async def test_an_unknown_definition_is_refused(bench: Bench, worker: Worker) -> None:
    from rhythm.errors import StartRefused

    with pytest.raises(StartRefused) as caught:
        await bench.start("order", definition_hash="nope")
    assert "unknown_definition" == caught.value.code


async def test_outcomes_settle_in_the_order_of_their_reports(bench: Bench, worker: Worker) -> None:
    await begin(bench, worker, children=[child(i) for i in range(1, 6)])
    tasks = {t.operation: t for t in await worker.claim(workflows=0)}
    first = await worker.complete(tasks[4])
    await worker.exchange(
        task_outcomes=[
            TaskOutcome(first.retokened[tasks[op].id], tasks[op].id, status, ERROR)
            for op, status in ((2, "completed"), (5, "failed"), (1, "cancelled"))
        ]
    )
    claim = await worker.claim_one()

    order = [d.operation for d in claim.deliveries]
    assert 4 == order[0]
    assert {1, 2, 5} == set(order[1:])
    assert {4: "completed", 2: "completed", 5: "failed", 1: "failed"} == {d.operation: d.kind for d in claim.deliveries}
    assert [1, 2, 3, 4] == [d.number for d in claim.deliveries]


async def test_what_arrives_while_it_runs_is_there_at_once_after_the_commit(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, children=[child(1), child(2)])
    one, two = await worker.claim(workflows=0)
    retokened = (await worker.complete(one)).retokened
    running = await worker.claim_one()
    await worker.exchange(task_outcomes=[TaskOutcome(retokened[two.id], two.id, "completed", OK)])
    nothing = await worker.claim()
    result = await worker.commit(suspend(running, outstanding=1), workflow_limit=1)

    assert [] == nothing
    assert [id_] == [c.id for c in result.claims]
    assert [(2, "completed", two.operation, OK)] == seen(result.claims[0])


async def test_commits_of_the_wrong_version_are_refused_and_do_nothing(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await bench.signal(id_)
    claim = await worker.claim_one()
    wrong = suspend(claim, version=claim.version + 1, children=[child(1)], timers=[timer(2, 1)])
    result = await worker.commit(wrong)

    assert {id_} == result.refused
    assert 1 == await bench.count("executions")
    assert [(id_, 2)] == [(c.id, c.attempt) for c in await worker.claim()]


async def test_two_steps_of_one_version_never_both_count(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await bench.signal(id_)
    claim = await worker.claim_one()
    other = await bench.worker("work")
    commits = [suspend(claim, children=[child(9)]) for _ in range(2)]
    results = await asyncio.gather(worker.commit(commits[0]), other.commit(commits[1]), worker.commit(commits[1]))

    assert 2 == sum(id_ in r.refused for r in results)
    assert 2 == await bench.count("executions")


# Lost wake-ups


async def test_a_delivery_that_waits_for_the_lock_of_a_commit_wakes(bench: Bench, worker: Worker) -> None:
    """The signal blocks on the lock that the commit holds, and must see the suspension when it gets it."""
    id_ = await bench.start("order")
    claim = await worker.claim_one()
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.lock_workflows(array[$1::uuid])", id_)
        signal = asyncio.create_task(bench.signal(id_))
        commit = asyncio.create_task(worker.commit(suspend(claim)))
        await waiting_for_locks(bench, 2)
    await other.close()
    await asyncio.gather(signal, commit)
    woken = await worker.claim_one()

    assert ["signal"] == [d.kind for d in woken.deliveries]


@pytest.mark.parametrize("groups", [(), [group("last", 1, 2)]])
async def test_a_commit_that_waits_for_the_lock_of_a_delivery_sees_it(
    bench: Bench, worker: Worker, groups: Any
) -> None:
    """By hand: the delivery is inserted by a transaction that ends while the commit waits for its lock."""
    id_ = await begin(bench, worker, children=[child(1), child(2)])
    tasks = await worker.claim(workflows=0)
    retokened = (await worker.complete(tasks[0])).retokened
    claim = await worker.claim_one()
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.lock_workflows(array[$1::uuid])", id_)
        kinds: list[Any] = [[id_], [1], [tasks[1].operation], [tasks[1].id], None, None, [10]]
        await other.execute("select rhythm.deliver($1, $2, $3, $4, $5, $6, $7)", *kinds)
        await other.execute(
            "insert into rhythm.outcomes (id, finished_at, attempts, lost, status, payload)"
            " values ($1, now(), 1, 0, 1, '\\x0131')",
            tasks[1].id,
        )
        await other.execute("delete from rhythm.claims where id = $1", retokened[tasks[1].id] >> 9)
        fields = {"outstanding": 1, "wake_groups": [group("last", tasks[1].operation or 0)] if groups else ()}
        commit = asyncio.create_task(worker.commit(suspend(claim, **fields)))
        await waiting_for_locks(bench, 1)
    await other.close()
    await commit
    woken = await worker.claim_one()

    assert [tasks[1].operation] == [d.operation for d in woken.deliveries]


async def test_many_workers_settle_the_children_of_one_parent_at_once(bench: Bench) -> None:
    await bench.publish("order")
    workers = [await bench.worker("work") for _ in range(8)]
    parents = [await begin(bench, workers[0], children=[child(i) for i in range(1, 41)]) for _ in range(5)]
    counts: dict[uuid.UUID, list[int]] = {id_: [] for id_ in parents}

    async def run(worker: Worker) -> None:
        while True:
            claims = await worker.claim(7, 2)
            if not claims and not any(len(c) < 40 for c in counts.values()):
                return
            commits = []
            for claim in claims:
                if claim.kind == "workflow":
                    counts[claim.id] += [d.operation or 0 for d in claim.deliveries]
                    done = len(counts[claim.id]) == 40
                    commits.append(end(claim) if done else suspend(claim, outstanding=40 - len(counts[claim.id])))
            tasks = [TaskOutcome(c.token, c.id, "completed", OK) for c in claims if c.kind == "task"]
            result = await worker.exchange(task_outcomes=tasks, workflow_commits=commits)
            assert frozenset() == result.refused

    await asyncio.wait_for(asyncio.gather(*map(run, workers)), 60)

    assert [list(range(1, 41))] * 5 == [sorted(c) for c in counts.values()]
    assert ["completed"] * 5 == [await bench.status(id_) for id_ in parents]


# Wake modes


async def settle_each(bench: Bench, worker: Worker, statuses: dict[int, str]) -> list[int]:
    """Ends the children one exchange at a time, in the given order; returns after how many it woke."""
    tasks = {t.operation: t for t in await worker.claim(workflows=0)}
    tokens = {op: t.token for op, t in tasks.items()}
    woken = []
    for count, (operation, status) in enumerate(statuses.items(), 1):
        task = tasks[operation]
        result = await worker.exchange(
            task_outcomes=[TaskOutcome(tokens[operation], task.id, status, ERROR, retryable=False)], workflow_limit=1
        )
        for op, other in tasks.items():
            tokens[op] = result.retokened.get(other.id, tokens[op])
        if result.claims:
            woken.append(count)
            claim = result.claims[0]
            left = [op for op in statuses if op not in list(statuses)[:count]]
            await worker.commit(suspend(claim, timers=[timer(99, 1e6)], outstanding=len(left) + 1))
    return woken


@pytest.mark.parametrize(
    ("groups", "statuses", "woken"),
    [
        ([], "ccc", [1, 2, 3]),
        ([group("on_rejection", 1, 2, 3)], "ccc", [3]),
        ([group("on_rejection", 1, 2, 3)], "cfc", [2, 3]),
        ([group("on_fulfilment", 1, 2, 3)], "fff", [3]),
        ([group("on_fulfilment", 1, 2, 3)], "fcf", [2, 3]),
        ([group("last", 1, 2, 3)], "fcf", [3]),
        ([group("last", 1, 2)], "ccc", [2, 3]),
        ([group("last", 2, 3)], "ccc", [1, 2, 3]),
        ([group("last", 1), group("last", 2, 3)], "ccc", [1, 2, 3]),
        ([group("on_rejection", 1, 3), group("on_fulfilment", 2)], "cff", [2, 3]),
    ],
)
async def test_groups_wake_when_their_mode_says(
    bench: Bench, worker: Worker, groups: list[Any], statuses: str, woken: list[int]
) -> None:
    await begin(bench, worker, children=[child(i) for i in (1, 2, 3)], wake_groups=groups)
    names = {"c": "completed", "f": "failed"}
    found = await settle_each(bench, worker, {i: names[s] for i, s in enumerate(statuses, 1)})

    # the last child always finds the workflow awake or wakes it; what woke in between must be exactly this
    assert woken == found


async def test_groups_count_what_came_while_it_was_running(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, children=[child(i) for i in range(1, 5)])
    tasks = await worker.claim(workflows=0)
    await bench.signal(id_)
    running = await worker.claim_one(tasks=0)
    tokens = {t.id: t.token for t in tasks}
    tokens |= (await worker.complete(tasks[0])).retokened
    await worker.commit(suspend(running, outstanding=4, wake_groups=[group("last", 1, 2, 3, 4)]))
    still = await bench.status(id_)
    await worker.exchange(task_outcomes=[TaskOutcome(tokens[t.id], t.id, "completed", OK) for t in tasks[1:3]])
    not_yet = await bench.status(id_)
    await worker.exchange(task_outcomes=[TaskOutcome(tokens[tasks[3].id], tasks[3].id, "completed", OK)])
    claim = await worker.claim_one()

    assert ["suspended", "suspended"] == [still, not_yet]
    assert 4 == len(claim.deliveries)


@pytest.mark.parametrize("what", ["signal", "timer", "cancel"])
async def test_signals_timers_and_cancel_wake_whatever_the_groups(bench: Bench, worker: Worker, what: str) -> None:
    id_ = await begin(
        bench, worker, children=[child(1), child(2)], timers=[timer(3, 5)], wake_groups=[group("last", 1, 2, 3)]
    )
    if what == "signal":
        await bench.signal(id_)
    elif what == "timer":
        await bench.pass_time(5)
        await bench.store.maintain(worker.incarnation)
    else:
        await bench.store.cancel(id_)
    claim = await worker.claim_one(tasks=0)

    assert [what] == [d.kind for d in claim.deliveries]


async def test_a_wide_fan_out_wakes_once(bench: Bench, worker: Worker) -> None:
    count = 3000
    id_ = await begin(
        bench, worker, children=[child(i) for i in range(1, count + 1)],
        wake_groups=[group("on_rejection", *range(1, count + 1))],
    )  # fmt: skip
    woken = 0
    while tasks := await worker.claim(500, 0):
        woken += await bench.status(id_) != "suspended"
        await worker.complete(*tasks)
    numbers: list[int] = []
    while claims := await worker.claim(0, 1):
        numbers += [d.number for d in claims[0].deliveries]
        await worker.commit(suspend(claims[0], timers=[timer(count + 1, 1e6)]))

    assert 0 == woken
    assert list(range(1, count + 1)) == numbers


async def test_one_activation_takes_16_mebibytes_of_deliveries(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    for _ in range(5):
        await bench.signal(id_, payload=b'"' + b"x" * 5 * 1024 * 1024 + b'"')
    big = await worker.claim_one()
    result = await worker.commit(suspend(big), workflow_limit=1)

    assert 3 == len(big.deliveries)
    assert [4, 5] == [d.number for d in result.claims[0].deliveries]


# Timers


async def test_timers_fire_at_their_time_never_early_and_once(bench: Bench, worker: Worker) -> None:
    due_at = (BEGINNING.timestamp() + 7) * 1000
    id_ = await begin(bench, worker, timers=[timer(1, 5), NewTimer(2, due_at_ms=due_at), timer(3, 1e15)], outstanding=3)
    fired: dict[float, list[int | None]] = {}
    for moment in (4.999, 5.0, 6.999, 7.0, 1e5):
        await bench.set_clock(BEGINNING + timedelta(seconds=moment))
        await worker.heartbeat()
        await bench.store.maintain(worker.incarnation)
        for claim in await worker.claim():
            fired[moment] = [d.operation for d in claim.deliveries]
            await worker.commit(suspend(claim, outstanding=1))
    never = await bench.store.maintain(worker.incarnation)

    assert {5.0: [1], 7.0: [2]} == fired
    assert "suspended" == await bench.status(id_)
    assert 100_000.0 == never.next_due_seconds, "then its worker would be dead, not the timer due"


async def test_deliveries_without_a_payload_are_not_passed_over(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, timers=[timer(i, 1) for i in (1, 2, 3)])
    await bench.pass_time(1)
    await bench.store.maintain(worker.incarnation)
    await bench.signal(id_)
    claim = await worker.claim_one()

    assert [1, 2, 3, 4] == [d.number for d in claim.deliveries]
    assert [1, 2, 3, None] == [d.operation for d in claim.deliveries]


async def test_a_dropped_timer_does_not_fire(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, timers=[timer(1, 5), timer(2, 5)])
    await bench.signal(id_)
    await worker.commit(suspend(await worker.claim_one(), dropped_timers=[1], outstanding=1))
    await bench.pass_time(5)
    await bench.store.maintain(worker.incarnation)

    assert [2] == [d.operation for d in (await worker.claim_one()).deliveries]


async def test_ten_thousand_timers_due_at_once_fire_once_each(bench: Bench, worker: Worker) -> None:
    ids = await bench.start_many(100, "order")
    claims = await worker.claim()
    await worker.commit(*(suspend(c, timers=[timer(i, 1) for i in range(1, 101)], outstanding=100) for c in claims))
    await bench.pass_time(1)
    fired = 0
    while True:
        results = await asyncio.gather(*(bench.store.maintain(worker.incarnation) for _ in range(3)))
        fired += sum(r.moved for r in results)
        if not any(r.more or r.moved for r in results):
            break

    assert 10_000 == fired
    assert 10_000 == await bench.count("deliveries")
    assert set(ids) == {c.id for c in await worker.claim()}


async def test_a_timer_skips_a_workflow_that_somebody_works_on(bench: Bench, worker: Worker) -> None:
    busy = await begin(bench, worker, timers=[timer(1, 1)])
    other_id = await begin(bench, worker, timers=[timer(1, 1)])
    await bench.pass_time(1)
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.execute("select rhythm.lock_workflows(array[$1::uuid])", busy)
        first = await bench.store.maintain(worker.incarnation)
    await other.close()
    second = await bench.store.maintain(worker.incarnation)

    assert (1, 1) == (first.moved, second.moved)
    assert {busy, other_id} == {c.id for c in await worker.claim()}


# Signals


async def test_signals_arrive_in_order_and_once_however_often_they_are_sent(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start("order")
    sends = [(new_id(), f"{i}".encode()) for i in range(20)]
    for send_id, payload in sends:
        await bench.signal(id_, payload=payload, send_id=send_id)
        await bench.signal(id_, payload=payload, send_id=send_id)
    claim = await worker.claim_one()
    await worker.commit(end(claim))
    await bench.signal(id_, payload=b"0", send_id=sends[0][0])

    assert [payload for _, payload in sends] == [d.payload for d in claim.deliveries]


async def test_a_signal_to_nobody(bench: Bench, worker: Worker) -> None:
    finished = await bench.start("order")
    await worker.commit(end(await worker.claim_one()))
    task = await bench.start("work")

    with pytest.raises(ExecutionNotFound):
        await bench.signal(new_id())
    with pytest.raises(ExecutionFinished):
        await bench.signal(finished)
    with pytest.raises(InvalidInput):
        await bench.signal(task)


async def test_at_most_ten_thousand_signals_wait_to_be_read(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await bench.raw.execute(
        "insert into rhythm.signals select $1, gen_random_uuid() from generate_series(1, 9999)", id_
    )
    await bench.signal(id_)
    claim = await worker.claim_one()
    await worker.commit(suspend(claim, unread_signals=9999, outstanding=1))
    await bench.signal(id_)
    with pytest.raises(SignalRefused):
        await bench.signal(id_)
    await worker.commit(suspend(await worker.claim_one(), unread_signals=9999))
    await bench.signal(id_)

    assert "pending" == await bench.status(id_)


async def test_unread_signals_at_the_end_are_counted_and_gone(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start("order")
    claim = await worker.claim_one()
    await bench.signal(id_)
    await worker.commit(end(claim, unread_signals=2))

    assert 3 == await bench.raw.fetchval("select unread_signals from rhythm.outcomes where id = $1", id_)
    assert 0 == await bench.count("deliveries")


# Children


async def test_children_outlive_a_parent_that_does_not_wait(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start("order")
    call = child(1)
    await worker.commit(end(await worker.claim_one(), children=[call], timers=[timer(2, 1)]))
    await worker.complete(await worker.claim_one())

    assert ("completed", "completed") == (await bench.status(id_), await bench.status(call.id))
    assert 0 == await bench.count("timers")


async def test_a_child_workflow_delivers_its_outcome_and_a_grandchild_knows_its_root(
    bench: Bench, worker: Worker
) -> None:
    root = await begin(bench, worker, children=[child(1, "order", "workflow")])
    middle = await worker.claim_one()
    call = child(1)
    await worker.commit(suspend(middle, children=[call]))
    await worker.complete(await worker.claim_one())
    await worker.commit(end(await worker.claim_one(), "failed", ERROR))
    claim = await worker.claim_one()

    assert [(1, "failed", 1, ERROR)] == seen(claim)
    assert (root, middle.id) == ((await bench.get(call.id)).root_id, (await bench.get(call.id)).parent_id)


async def test_a_child_whose_id_is_in_use_fails_its_call(bench: Bench, worker: Worker) -> None:
    taken = await bench.start("work")
    await begin(bench, worker, children=[child(1, id=taken), child(2)])
    claim = await worker.claim_one(tasks=0)

    assert [("failed", 1)] == [(d.kind, d.operation) for d in claim.deliveries]
    assert "StartRefused" == json.loads(claim.deliveries[0].payload or b"")["name"]


async def test_children_take_options_and_what_is_not_given_from_the_registration(bench: Bench) -> None:
    from rhythm.model import TaskRegistration

    await bench.publish("order")
    worker = await bench.worker(
        TaskRegistration("work", queue="q", retries=3, timeout_seconds=4), queues=["default", "q", "own"]
    )
    retry = {"initial": 1.5, "factor": 1.0, "max": 2.0, "jitter": 0.0, "retry_on": ["A"], "no_retry_on": []}
    given = child(2, queue="own", retries=0, timeout_seconds=9, delay_seconds=3, retry=retry, priority=7)
    await begin(bench, worker, children=[child(1), given, child(3, "unknown", delay_seconds=1)])
    plain = await worker.claim_one()
    await bench.pass_time(3)
    await bench.store.maintain(worker.incarnation)
    special = await worker.claim_one()

    assert ("q", 3, 4.0) == (plain.queue, plain.retries, plain.timeout_seconds)
    assert ("own", 0, 9.0, retry) == (special.queue, special.retries, special.timeout_seconds, special.retry)
    assert 1 == await bench.count("later")


async def test_an_uncatchable_ending_keeps_the_last_snapshot_and_what_it_has_not_read(
    bench: Bench, worker: Worker
) -> None:
    id_ = await begin(bench, worker, snapshot=b"\x90kept", children=[child(1)])
    await worker.complete(await worker.claim_one())
    claim = await worker.claim_one()
    await worker.commit(end(claim, "failed", ERROR, keep_snapshot=True, seen_through=0))
    kept = await bench.store.snapshot(id_)
    assert kept is not None

    assert (b"\x90kept", 1) == (kept.snapshot, kept.version)
    assert 1 == await bench.count("deliveries")
    assert "failed" == await bench.status(id_)


# Continuation in place


@pytest.mark.parametrize("busy", [False, True])
async def test_a_sequential_step_is_one_exchange(bench: Bench, worker: Worker, busy: bool) -> None:
    """By rhythm.step when nothing else is claimable, else by rhythm.exchange: the same either way."""
    calls: list[str] = []
    fetchrow = bench.store._database.fetchrow

    async def recorded(query: str, *arguments: Any) -> Any:
        row = await fetchrow(query, *arguments)
        calls.append(query.partition("(")[0])
        return row

    def call(step: int) -> NewChild:
        return child(step, key=f"k{step}", timeout_seconds=2.5, retries=3)

    id_ = await begin(bench, worker, snapshot=b"s1", children=[child(1)])
    claim = await worker.claim_one(parents=True)
    if busy:
        await bench.start("work", priority=-100)
    bench.store._database.fetchrow = recorded  # type: ignore[method-assign]  # listens only
    for step in range(2, 6):
        assert claim.parent is not None
        assert (id_, f"s{step - 1}".encode(), step - 1, step - 1) == (
            claim.parent.id, claim.parent.snapshot, claim.parent.version, claim.parent.next_number,
        )  # fmt: skip
        following = continuation(claim, snapshot=f"s{step}".encode(), children=[call(step)])
        result = await worker.complete(claim, continuations=[following], task_limit=1, parents=True)
        assert ({id_}, frozenset()) == (result.continued, result.refused)
        (claim,) = result.claims
        assert (1, 0, f"k{step}", 2.5, 3, id_, step) == (
            claim.attempt, claim.lost, claim.key, claim.timeout_seconds, claim.retries, claim.parent_id,
            claim.operation,
        )  # fmt: skip
    result = await worker.complete(claim, continuations=[continuation(claim, outcome=True)])
    info = await bench.get(id_)
    children = await bench.store.list(parent_id=id_)

    assert {id_} == result.continued
    assert "completed" == info.status
    assert ["completed"] * 5 == [c.status for c in children]
    assert {id_} == {c.root_id for c in children}
    assert (0 if busy else 4) == calls.count("select * from rhythm.step") - calls.count(
        "select * from rhythm.exchange"
    ) + 1
    assert 0 == await bench.count("deliveries")


@pytest.mark.parametrize("meanwhile", ["signal", "cancel", "version"])
async def test_a_refused_continuation_still_delivers_the_outcome_and_wakes(
    bench: Bench, worker: Worker, meanwhile: str
) -> None:
    id_ = await begin(bench, worker, children=[child(1)])
    task = await worker.claim_one(parents=True)
    if meanwhile == "signal":
        await bench.signal(id_)
    elif meanwhile == "cancel":
        await bench.store.cancel(id_)
    else:
        await bench.signal(id_)
        await worker.commit(suspend(await worker.claim_one(tasks=0)))
    result = await worker.complete(task, continuations=[continuation(task, children=[child(2)])])
    claim = await worker.claim_one()

    assert frozenset() == result.continued
    assert ("completed", 1) == (claim.deliveries[-1].kind, claim.deliveries[-1].operation)
    assert 2 == await bench.count("executions")


async def test_a_continuation_needs_a_final_outcome_of_the_right_child(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker, children=[child(1, retries=1)])
    stranger = await bench.start("work", priority=100)
    claims = {c.id: c for c in await worker.claim(parents=True)}
    task = next(c for c in claims.values() if c.id != stranger)
    step = continuation(task)
    retried = await worker.exchange(
        task_outcomes=[TaskOutcome(task.token, task.id, "failed", ERROR)], continuations=[step]
    )
    other = await worker.exchange(
        task_outcomes=[TaskOutcome(retried.retokened[stranger], stranger, "completed", OK)],
        continuations=[type(step)(child_id=stranger, commit=step.commit)],
    )
    fenced = await worker.complete(task, continuations=[step])

    assert [frozenset()] * 3 == [r.continued for r in (retried, other, fenced)]
    assert {task.id} == fenced.refused
    assert "suspended" == await bench.status(id_)


async def test_a_commit_counts_and_a_stale_continuation_of_the_same_workflow_does_not(
    bench: Bench, worker: Worker
) -> None:
    id_ = await begin(bench, worker, children=[child(1)])
    task = await worker.claim_one(parents=True)
    await bench.signal(id_)
    flow = await worker.claim_one()
    result = await worker.exchange(
        task_outcomes=[TaskOutcome(task.token, task.id, "completed", OK)],
        workflow_commits=[suspend(flow, outstanding=1)],
        continuations=[continuation(task, children=[child(2)])],
        workflow_limit=1,
    )

    assert (frozenset(), frozenset()) == (result.refused, result.continued)
    assert [("completed", 1)] == [(d.kind, d.operation) for d in result.claims[0].deliveries]
    assert 2 == await bench.count("executions")


async def test_only_a_sole_operation_brings_its_parent_along(bench: Bench, worker: Worker) -> None:
    await begin(bench, worker, children=[child(1), child(2)])
    both = await worker.claim(parents=True)
    await bench.start("order")
    await worker.commit(suspend(await worker.claim_one(tasks=0), children=[child(1)]))
    not_asked = await worker.claim_one()

    assert [None, None, None] == [c.parent for c in (*both, not_asked)]


# Cancellation


async def test_a_suspended_workflow_is_told_to_cancel_once(bench: Bench, worker: Worker) -> None:
    id_ = await begin(bench, worker)
    await bench.store.cancel(id_)
    await bench.store.cancel(id_)
    claim = await worker.claim_one()
    await worker.commit(end(claim, "cancelled", ERROR))

    assert ["cancel"] == [d.kind for d in claim.deliveries]
    assert "cancelled" == await bench.status(id_)
    with pytest.raises(ExecutionFinished):
        await bench.store.cancel(id_)
    with pytest.raises(ExecutionNotFound):
        await bench.store.cancel(new_id())


async def test_a_workflow_that_never_ran_is_cancelled_without_running(bench: Bench, worker: Worker) -> None:
    id_ = await bench.start("order")
    await bench.store.cancel(id_)

    assert "cancelled" == await bench.status(id_)
    assert [] == await worker.claim()


async def test_a_workflow_cancels_its_children_at_every_stage(bench: Bench, worker: Worker) -> None:
    pending, later, running, flow, unknown = (
        child(1), child(2, delay_seconds=9), child(3, priority=9), child(4, "order", "workflow"), child(5, "unknown"),
    )  # fmt: skip
    id_ = await begin(bench, worker, children=[pending, later, running, flow, unknown])
    task = await worker.claim_one(tasks=1, workflows=0)
    await worker.commit(suspend(await worker.claim_one(tasks=0)))
    await bench.signal(id_)
    parent = await worker.claim_one(tasks=0)
    everything = [c.id for c in (pending, later, running, flow, unknown)]
    result = await worker.commit(suspend(parent, cancels=[*everything, new_id()], outstanding=5), workflow_limit=10)
    told = {c.id: [(d.kind, d.operation) for d in c.deliveries] for c in result.claims}

    assert task.id == running.id
    assert {id_: [("failed", 1), ("failed", 2), ("failed", 5)], flow.id: [("cancel", None)]} == {
        key: sorted(value, key=str) for key, value in told.items()
    }
    assert {running.id} == await worker.heartbeat()
    assert ["cancelled"] * 3 == [await bench.status(c.id) for c in (pending, later, unknown)]


# Standing


async def test_where_a_workflow_stands_can_be_asked(bench: Bench, worker: Worker) -> None:
    from rhythm.model import Standing

    awaiting = b'[{"operation":1,"kind":"signal","name":"\\u00e9"}]'
    id_ = await begin(
        bench, worker, snapshot=b"\x90" + b"x" * 4999, standing=Standing(7, "\ud83d\ude00 inner", awaiting)
    )
    found = await bench.store.snapshot(id_)
    assert found is not None
    row = await bench.raw.fetchrow(
        "select line, function, awaiting::text from rhythm.executions_view where id = $1", id_
    )
    assert row is not None

    assert (b"\x90" + b"x" * 4999, 7, "\U0001f600 inner", awaiting) == (
        found.snapshot, found.standing.line, found.standing.function, found.standing.awaiting,
    )  # fmt: skip
    assert (7, awaiting.decode()) == (row["line"], row["awaiting"])
    assert [id_] == [info.id for info in await bench.store.list(status="suspended", kind="workflow")]


# Plans


async def pages_of(bench: Bench, worker: Worker, **said: Any) -> tuple[int, list[Claim]]:
    """Pages that one exchange reads, whatever its time; and what it claimed."""
    query = (
        "select sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint from pg_statio_user_tables"
    )
    request = worker.request(**said)
    await bench.raw.execute("select pg_stat_clear_snapshot()")
    before = await bench.raw.fetchval(query)
    async with bench.store._database.transaction() as connection:
        call, arguments = exchange_call(request)
        row = await connection.fetchrow(call, *arguments)
        await connection.execute("select pg_stat_force_next_flush()")
    await bench.raw.execute("select pg_stat_clear_snapshot()")
    pages: int = await bench.raw.fetchval(query) - before
    await bench.store._know(row)
    store = bench.store
    result = exchange_result(row, request, store._names.__getitem__, store._queues.__getitem__)
    assert frozenset() == result.refused
    return pages, result.claims


@pytest.mark.parametrize("analyzed", ["never", "empty", "full"])
@pytest.mark.parametrize("in_place", [False, True])
async def test_the_pages_of_a_step_grow_with_the_batch_only(
    bench: Bench, worker: Worker, analyzed: str, in_place: bool
) -> None:
    """Whatever the statistics say: a table believed to be empty must not be read once per row."""
    if analyzed == "empty":
        await bench.raw.execute("vacuum analyze")
    few, many = 20, 200
    await bench.start_many(few + many, "order")
    groups = [] if in_place else [group("last", 1)]
    read: dict[str, list[int]] = {"begin": [], "first": [], "task": [], "outcome": [], "workflow": [], "commit": []}
    for size in (few, many):
        pages, flows = await pages_of(bench, worker, workflow_limit=size)
        read["begin"].append(pages)
        commits = [suspend(c, children=[child(1)], wake_groups=groups) for c in flows]
        pages, _ = await pages_of(bench, worker, workflow_commits=commits)
        read["first"].append(pages)
    if analyzed == "full":
        await bench.raw.execute("vacuum analyze")
    for size in (few, many):
        pages, tasks = await pages_of(bench, worker, task_limit=size, parents=in_place)
        read["task"].append(pages)
        steps = [continuation(c, children=[child(2)]) for c in tasks if in_place]
        outcomes = [TaskOutcome(c.token, c.id, "completed", OK) for c in tasks]
        pages, _ = await pages_of(bench, worker, task_outcomes=outcomes, continuations=steps)
        read["outcome"].append(pages)
        if not in_place:
            pages, flows = await pages_of(bench, worker, workflow_limit=size)
            assert size == len(flows)
            read["workflow"].append(pages)
            commits = [suspend(c, children=[child(3, "later on")]) for c in flows]
            pages, _ = await pages_of(bench, worker, workflow_commits=commits)
            read["commit"].append(pages)

    assert [] == [(what, pages) for what, pages in read.items() if pages and pages[1] > 15 * pages[0]]
