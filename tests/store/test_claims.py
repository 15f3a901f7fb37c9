"""Claims: fencing, batches, losses, timeouts. Money moves through these."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import pytest

from rhythm.errors import DatabaseUnavailable, IncarnationDead, InvalidInput
from rhythm.model import Claim, TaskOutcome, TaskRegistration, new_id
from rhythm.store.marshal import exchange_call
from tests.store.bench import ERROR, OK, Bench, Worker, another_session, child, suspend, waiting_for_locks


async def bury(bench: Bench, dead: Worker, survivor: Worker) -> None:
    """Lets the heartbeat timeout of one pass."""
    await bench.raw.execute(
        "update rhythm.workers set seen_at = $2::timestamptz - interval '1 d', heartbeat_timeout_ms = 1000 "
        "where incarnation = $1",
        dead.incarnation,
        bench.now,
    )
    await bench.pass_time(3)
    await bench.store.maintain(survivor.incarnation)


async def test_two_claimers_at_once_never_get_the_same_execution(bench: Bench) -> None:
    workers = [await bench.worker("a", "b") for _ in range(6)]
    ids = set(await bench.start_many(400, "a")) | set(await bench.start_many(400, "b"))
    taken: list[uuid.UUID] = []

    async def drain(worker: Worker) -> None:
        while claims := await worker.claim(37):
            taken.extend(c.id for c in claims)
            await worker.complete(*claims)

    await asyncio.gather(*map(drain, workers))

    assert len(taken) == len(set(taken))
    assert ids == set(taken)
    assert 800 == await bench.count("outcomes")


async def test_claimers_at_once_share_the_work(bench: Bench) -> None:
    workers = [await bench.worker("a", "b") for _ in range(4)]
    await bench.start_many(50, "a")
    await bench.start_many(50, "b")
    got = await asyncio.gather(*(worker.claim(25) for worker in workers))

    assert 100 == sum(map(len, got))


async def test_an_unfinished_batch_is_split_once_and_its_members_get_tokens_of_their_own(bench: Bench) -> None:
    worker = await bench.worker("work")
    ids = await bench.start_many(5)
    claims = await worker.claim()
    first = await worker.complete(claims[1], claims[3])
    rest = [claims[i] for i in (0, 2, 4)]
    held = await worker.held()
    old = await worker.complete(rest[0])
    second = await worker.exchange(
        task_outcomes=[TaskOutcome(first.retokened[c.id], c.id, "completed", OK) for c in reversed(rest)]
    )

    assert {c.id for c in rest} == set(first.retokened)
    assert first.retokened == held
    assert {rest[0].id} == old.refused
    assert {} == old.retokened
    assert (frozenset(), {}) == (second.refused, second.retokened)
    assert ["completed"] * 5 == [await bench.status(id_) for id_ in ids]
    assert 0 == await bench.count("claims")


@pytest.mark.parametrize("action", ["completed", "failed", "cancelled", "handed back", "committed"])
@pytest.mark.parametrize("size", [1, 3])
async def test_a_fenced_owner_writes_nothing(bench: Bench, action: str, size: int) -> None:
    await bench.publish("order")
    name = "order" if action == "committed" else "work"
    slow = await bench.worker(TaskRegistration("work", retries=3))
    quick = await bench.worker(TaskRegistration("work", retries=3))
    ids = await bench.start_many(size, name)
    stale = await slow.claim()
    await bury(bench, slow, quick)
    fresh = [await quick.claim_one(alone=True)]
    before = await bench.raw.fetch("select * from rhythm.executions_view order by id")
    # the dead incarnation registers again under the same id, so that only the tokens stand between it and the data
    again = await bench.worker("work")
    await bench.raw.execute(
        "update rhythm.workers set incarnation = $1 where incarnation = $2", slow.incarnation, again.incarnation
    )
    said: dict[str, Any] = {
        "completed": {"task_outcomes": [TaskOutcome(c.token, c.id, "completed", b"0") for c in stale]},
        "failed": {"task_outcomes": [TaskOutcome(c.token, c.id, "failed", b"0") for c in stale]},
        "cancelled": {"task_outcomes": [TaskOutcome(c.token, c.id, "cancelled", b"0") for c in stale]},
        "handed back": {"hand_backs": [(c.token, c.id) for c in stale]},
        "committed": {"workflow_commits": [suspend(c, children=[child(1)]) for c in stale]},
    }[action]
    result = await slow.exchange(**said)
    after = await bench.raw.fetch("select * from rhythm.executions_view order by id")

    assert set(ids) == result.refused
    assert {} == result.retokened
    assert before == after
    assert 1 == len(fresh)


async def test_one_fenced_member_does_not_hold_up_the_others(bench: Bench) -> None:
    worker = await bench.worker("work")
    other = await bench.worker("work")
    theirs = await bench.start()
    claim = await other.claim_one()
    await bench.start_many(3)
    mine = await worker.claim()
    single = await bench.start()
    mine.append(await worker.claim_one())
    forged = Claim(claim.token + (77 << 9), claim.id, "task", "work", b"", 1)
    result = await worker.complete(*mine, forged)

    assert {theirs} == result.refused
    assert "running" == await bench.status(theirs)
    assert "completed" == await bench.status(single)


async def test_a_token_of_another_execution_is_a_fault_and_changes_nothing(bench: Bench) -> None:
    worker = await bench.worker("work")
    await bench.start_many(2)
    first, second = await worker.claim()
    for token in (second.token, first.token):
        with pytest.raises(InvalidInput):
            await worker.exchange(task_outcomes=[TaskOutcome(token, new_id(), "completed", OK)])
    with pytest.raises(InvalidInput):
        await worker.complete(first, first)
    with pytest.raises(InvalidInput):
        await worker.fail(first, first)

    assert {first.id: first.token, second.id: second.token} == await worker.held()


async def test_an_exchange_whose_answer_was_lost_is_sent_again(bench: Bench) -> None:
    worker = await bench.worker("work")
    await bench.start_many(3)
    claims = await worker.claim()
    await bench.start()
    request = worker.request(
        task_outcomes=[TaskOutcome(c.token, c.id, "completed", OK) for c in claims[:2]], task_limit=1
    )
    lost = await bench.store.exchange(request)  # committed, but the worker never saw the answer
    again = await bench.store.exchange(request)
    held = await bench.store.held(worker.incarnation, claims)

    assert {claims[0].id, claims[1].id} == again.refused
    assert ["completed"] * 2 == [await bench.status(c.id) for c in claims[:2]]
    assert [lost.claims[0].id] == [c.id for c in held.claims]
    assert lost.claims[0].token == held.claims[0].token
    assert lost.retokened[claims[2].id] == held.tokens[claims[2].id]
    await worker.complete(*held.claims)


async def test_held_describes_unknown_workflows_too(bench: Bench) -> None:
    await bench.publish("order")
    worker = await bench.worker("work")
    id_ = await bench.start("order", inputs=b"[1]")
    await bench.signal(id_, payload=b"5")
    claimed = await worker.claim_one()
    held = await bench.store.held(worker.incarnation)

    assert [claimed] == held.claims


async def test_what_is_handed_back_was_never_charged(bench: Bench) -> None:
    worker = await bench.worker("work")
    ids = await bench.start_many(3)
    claims = await worker.claim()
    split = await bench.store.hand_back(worker.incarnation, [(c.token, c.id) for c in claims[:2]])
    stale = await bench.store.hand_back(worker.incarnation, [(claims[0].token, claims[0].id)])
    again = await worker.claim()

    assert [ids[2]] == list(split.tokens)
    assert {} == stale.tokens
    assert [(id_, 1, 0) for id_ in ids[:2]] == [(c.id, c.attempt, c.lost) for c in again]


async def test_a_dead_worker_loses_its_claims_and_they_count_as_lost(bench: Bench) -> None:
    dead = await bench.worker(TaskRegistration("work", retries=0), heartbeat_timeout=30)
    survivor = await bench.worker("work")
    ids = await bench.start_many(3)
    await dead.claim()
    await bench.pass_time(29)
    await survivor.heartbeat()
    kept = await bench.store.maintain(survivor.incarnation)
    await bench.pass_time(3)
    taken = await bench.store.maintain(survivor.incarnation)
    pending = [await bench.get(id_) for id_ in ids]
    with pytest.raises(IncarnationDead):
        await dead.heartbeat()
    with pytest.raises(IncarnationDead):
        await dead.exchange()

    assert (0, 3) == (kept.reclaimed, taken.reclaimed)
    assert [("pending", 1, 1)] * 3 == [(i.status, i.attempts, i.lost) for i in pending]


async def test_what_was_lost_is_claimed_alone_by_a_worker_that_is_alone(bench: Bench) -> None:
    await bench.publish("order")
    dead = await bench.worker("work", heartbeat_timeout=1)
    worker = await bench.worker("work")
    lost = [await bench.start(), await bench.start("order")]
    await dead.claim()
    await bench.pass_time(3)
    await bench.store.maintain(worker.incarnation)
    fresh = [await bench.start(), await bench.start("order")]
    busy = await worker.exchange(task_limit=10, workflow_limit=10)
    alone = [await worker.claim_one(alone=True) for _ in range(2)]
    none_left = await worker.exchange(task_limit=10, workflow_limit=10, alone=True)

    assert fresh == [c.id for c in busy.claims]
    assert busy.suspects_waiting
    assert lost == [c.id for c in alone]
    assert [(2, 1), (2, 1)] == [(c.attempt, c.lost) for c in alone]
    assert not none_left.suspects_waiting


async def test_three_losses_end_an_execution_whatever_its_retries(bench: Bench) -> None:
    await bench.publish("order")
    survivor = await bench.worker("work")
    flow = await bench.start("order")
    await survivor.commit(suspend(await survivor.claim_one(), children=[child(1)]))
    (culprit,) = [info.id for info in await bench.store.list(parent_id=flow)]
    for attempt in range(1, 4):
        worker = await bench.worker(TaskRegistration("work", retries=100))
        assert attempt == (await worker.claim_one(alone=True)).attempt
        await bury(bench, worker, survivor)
    info = await bench.get(culprit)
    error = await bench.error(culprit)
    woken = await survivor.claim_one()

    assert ("failed", 3, 3) == (info.status, info.attempts, info.lost)
    assert ("lost", "LostError", 3) == (error["type"], error["name"], error["attempts"])
    assert [("failed", 1)] == [(d.kind, d.operation) for d in woken.deliveries]


async def test_a_workflow_lost_three_times_fails_keeps_its_snapshot_and_tells_its_parent(bench: Bench) -> None:
    await bench.publish("order")
    survivor = await bench.worker("work")
    parent = await bench.start("order")
    await survivor.commit(suspend(await survivor.claim_one(), children=[child(1, "order", "workflow")]))
    first = await survivor.claim_one()
    await survivor.commit(suspend(first, snapshot=b"\x90kept"))
    await bench.signal(first.id)
    for _ in range(3):
        worker = await bench.worker("work")
        await worker.claim_one(alone=True)
        await bury(bench, worker, survivor)
    kept = await bench.store.snapshot(first.id)
    told = await survivor.claim_one()

    assert "failed" == await bench.status(first.id)
    assert "lost" == (await bench.error(first.id))["type"]
    assert kept is not None
    assert b"\x90kept" == kept.snapshot
    assert (parent, "failed") == (told.id, told.deliveries[0].kind)


async def test_losses_do_not_use_up_retries(bench: Bench) -> None:
    survivor = await bench.worker("work")
    id_ = await bench.start(retries=1, retry={"initial": 0})
    for _ in range(2):
        worker = await bench.worker("work")
        await worker.claim_one(alone=True)
        await bury(bench, worker, survivor)
    await survivor.fail(await survivor.claim_one(alone=True))
    after_failure = await bench.status(id_)
    last = await survivor.claim_one(alone=True)
    await survivor.fail(last)

    assert "pending" == after_failure
    assert (4, 2) == (last.attempt, last.lost)
    assert "failed" == await bench.status(id_)


async def test_what_a_dead_worker_held_is_taken_over_at_the_moment_it_is_dead(bench: Bench) -> None:
    """Maintenance is told when to come, and comes through although its turn of two seconds has not passed."""
    dead = await bench.worker("work", heartbeat_timeout=30.0)
    await bench.start()
    await dead.claim_one()
    await bench.pass_time(1)
    other = await bench.worker("work", heartbeat_timeout=100.0)
    told = (await bench.store.maintain(other.incarnation)).next_due_seconds
    await bench.pass_time(28.9)
    early = await bench.store.maintain(other.incarnation)
    await bench.pass_time(0.1)
    taken = await bench.store.maintain(other.incarnation)

    assert 29.0 == told
    assert (0, 0.1) == (early.reclaimed, pytest.approx(early.next_due_seconds))
    assert (1, 71.0) == (taken.reclaimed, taken.next_due_seconds)
    assert not taken.more


async def test_a_dead_worker_whose_row_is_locked_is_not_looked_for_without_pause(bench: Bench) -> None:
    await bench.worker("work", heartbeat_timeout=30.0)
    other = await bench.worker("work", heartbeat_timeout=100.0)
    await bench.pass_time(40)
    async with bench.raw.transaction():
        await bench.raw.execute("select from rhythm.workers w where w.heartbeat_timeout_ms = 30000 for update")
        locked = (await bench.store.maintain(other.incarnation)).next_due_seconds
    free = (await bench.store.maintain(other.incarnation)).next_due_seconds

    assert (0.1, 60.0) == (locked, free)


async def test_two_reclaimers_at_once_take_over_once(bench: Bench) -> None:
    dead = [await bench.worker("work", heartbeat_timeout=1) for _ in range(4)]
    survivors = [await bench.worker("work") for _ in range(4)]
    await bench.start_many(400)
    for worker in dead:
        assert 100 == len(await worker.claim(100))
    await bench.pass_time(5)
    await asyncio.gather(*(bench.raw_call("select rhythm.bury_workers(rhythm.now())") for _ in survivors))
    counts = await asyncio.gather(
        *(bench.raw_call("select o_reclaimed from rhythm.reclaim_departed(rhythm.now(), 2)") for _ in range(8)),
        *(bench.store.maintain(w.incarnation) for w in survivors),
    )
    rows = await bench.raw.fetch("select attempts, lost from rhythm.ready")

    assert 400 == sum(c if isinstance(c, int) else c.reclaimed for c in counts)
    assert [(1, 1)] * 400 == [tuple(row) for row in rows]


async def test_claims_of_an_incarnation_without_a_row_are_taken_over(bench: Bench) -> None:
    worker, survivor = await bench.worker("work"), await bench.worker("work")
    await bench.start()
    await worker.claim_one()
    await bench.raw.execute("delete from rhythm.workers where incarnation = $1", worker.incarnation)
    result = await bench.store.maintain(survivor.incarnation)

    assert 1 == result.reclaimed


async def test_what_an_incarnation_claims_while_it_is_declared_dead_is_taken_over_as_well(bench: Bench) -> None:
    worker, survivor = await bench.worker("work", heartbeat_timeout=1), await bench.worker("work")
    await bench.start()
    async with another_session(bench) as session:
        await session.fetchval("select rhythm.enter_exchange($1, 0)", worker.incarnation)
        await session.fetchval(
            "select rhythm.add_claim(rhythm.now(), $1, t.o_ids, t.o_attempts, null, false, null, false) "
            "from rhythm.take_ready(array(select ctid from rhythm.ready), '{}') t",
            worker.incarnation,
        )
        reclaimed = []
        for _ in range(3):
            await bench.pass_time(5)
            reclaimed.append((await bench.store.maintain(survivor.incarnation)).reclaimed)
        departed = await bench.count("departed")
        await session.execute("commit")
    await bench.pass_time(5)
    reclaimed.append((await bench.store.maintain(survivor.incarnation)).reclaimed)

    assert [0, 0, 0, 1] == reclaimed
    assert (1, 0) == (departed, await bench.count("departed"))


async def test_unregistering_gives_back_what_is_still_held_as_lost(bench: Bench) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start()
    await worker.claim_one()
    await bench.store.unregister_worker(worker.incarnation)
    info = await bench.get(id_)

    assert ("pending", 1, 1) == (info.status, info.attempts, info.lost)
    assert [] == await bench.store.workers()


async def test_an_attempt_past_its_timeout_ends_whatever_its_worker_says(bench: Bench) -> None:
    worker = await bench.worker(TaskRegistration("work", timeout_seconds=2, retries=1, retry={"initial": 0}))
    id_ = await bench.start()
    first = await worker.claim_one()
    await bench.pass_time(11.9)
    await bench.store.maintain(worker.incarnation)
    in_time = await bench.status(id_)
    await bench.pass_time(2)
    await bench.store.maintain(worker.incarnation)
    retried = await bench.get(id_)
    late = await worker.complete(first)
    second = await worker.claim_one()
    await bench.pass_time(13)
    await bench.store.maintain(worker.incarnation)
    error = await bench.error(id_)

    assert "running" == in_time
    assert ("pending", 1, 0) == (retried.status, retried.attempts, retried.lost)
    assert {id_} == late.refused
    assert (2, 0) == (second.attempt, second.lost)
    assert ("timeout", "TimeoutError", 2) == (error["type"], error["name"], error["attempts"])


async def test_a_late_member_of_a_batch_is_ended_and_the_others_keep_their_tokens(bench: Bench) -> None:
    worker = await bench.worker("work")
    quick, slow, unlimited = [await bench.start(timeout_seconds=t) for t in (1, 100, None)]
    claims = await worker.claim()
    await bench.pass_time(72)
    await bench.store.maintain(worker.incarnation)
    held = await worker.held()
    statuses = [await bench.status(id_) for id_ in (quick, slow, unlimited)]
    result = await worker.complete(*claims)

    assert ["failed", "running", "running"] == statuses
    assert {slow, unlimited} == set(held)
    assert {quick} == result.refused
    assert ["failed", "completed", "completed"] == [await bench.status(id_) for id_ in (quick, slow, unlimited)]
    assert 0 == await bench.count("claims")


async def test_heartbeats_tell_what_to_cancel_and_only_to_the_holder(bench: Bench) -> None:
    worker, other = await bench.worker("work"), await bench.worker("work")
    id_ = await bench.start()
    claim = await worker.claim_one()
    await bench.store.cancel(id_)
    await bench.store.cancel(id_)

    assert (frozenset([id_]), frozenset()) == (await worker.heartbeat(), await other.heartbeat())
    await worker.complete(claim)
    assert frozenset() == await worker.heartbeat()
    assert "completed" == await bench.status(id_)


async def test_a_failure_of_what_is_to_be_cancelled_is_not_retried(bench: Bench) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start(retries=5)
    claim = await worker.claim_one()
    await bench.store.cancel(id_)
    await worker.fail(claim)

    assert ("failed", ERROR) == ((await bench.get(id_)).status, (await bench.get(id_)).error)


@pytest.mark.parametrize("delay", [None, 60])
async def test_a_pending_task_is_cancelled_at_once(bench: Bench, delay: float | None) -> None:
    worker = await bench.worker("work")
    id_ = await bench.start(delay_seconds=delay)
    await bench.store.cancel(id_)

    assert "cancelled" == await bench.status(id_)
    assert "cancelled" == (await bench.error(id_))["type"]
    assert [] == await worker.claim()


async def test_foreign_executions_at_the_head_of_the_queue_are_not_even_looked_at(bench: Bench) -> None:
    worker = await bench.worker("mine", "mine2")
    await bench.worker("foreign")
    for _ in range(100):
        await bench.start_many(1000, "foreign", priority=-100)
    names = list(worker.registered.names.values())
    nulls = ", ".join(["null"] * 49)
    tasks = f"array{names}::int[], '{{}}', array[2], array[40]"
    arguments = f"'{worker.incarnation}', 0, {nulls}, array[1], {tasks}, 40, false, false, false"

    async def pages_read() -> int:
        await bench.raw.execute("vacuum analyze rhythm.ready, rhythm.executions")
        await bench.start_many(20, "mine")
        await bench.start_many(20, "mine2")
        plan: str = await bench.raw.fetchval(
            f"explain (analyze, buffers, format json, timing off) select * from rhythm.exchange({arguments})"
        )
        await worker.complete(*(await bench.store.held(worker.incarnation)).claims)
        top = json.loads(plan)[0]["Plan"]
        return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])

    await pages_read()
    behind = await pages_read()
    for table, change in (("ready", "priority_rank = -100"), ("executions", "priority = 100")):
        await bench.raw.execute(f"update rhythm.{table} set {change} where name_id <> all($1)", names)
    in_front = await pages_read()

    assert 120 == await bench.count("outcomes")
    assert in_front < behind * 1.1 + 20, (behind, in_front)


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_the_plan_of_a_claim_does_not_depend_on_statistics(bench: Bench, analyzed: str) -> None:
    await bench.worker("work")
    if analyzed == "empty":
        await bench.raw.execute("vacuum analyze rhythm.ready")
    await bench.raw.execute(
        "insert into rhythm.ready select 1, 2 + i % 50, 0, 0, i, 0, 0, gen_random_uuid() "
        "from generate_series(1, 20000) i"
    )
    if analyzed == "full":
        await bench.raw.execute("vacuum analyze rhythm.ready")
    settings = await bench.raw.fetchval(
        "select array_to_string(proconfig, ';') from pg_proc where proname = 'exchange'"
    )
    async with bench.raw.transaction():
        for setting in settings.split(";"):
            name, _, value = setting.partition("=")
            await bench.raw.execute("select set_config($1, $2, true)", name, value)
        lines = await bench.raw.fetch(
            "explain select r.ctid from rhythm.ready r where r.queue_id = 1 and r.name_id = 7 and r.lost = 0 "
            "order by r.priority_rank, r.seq limit 500 for update skip locked"
        )
    plan = "\n".join(line[0] for line in lines)
    await bench.raw.execute("truncate rhythm.ready")

    assert "Index Scan using ready_pkey" in plan
    assert "Sort" not in plan


async def test_asking_what_is_held_waits_for_a_lost_exchange_and_shuts_out_later_ones(bench: Bench) -> None:
    """By hand: the exchange that was given up is still under way when the question comes."""
    worker = await bench.worker("work")
    first, second = await bench.start_many(2)
    query, arguments = exchange_call(worker.request(task_limit=1))
    other = await asyncpg.connect(bench.store.url)
    async with other.transaction():
        await other.fetchrow(query, *arguments)
        asking = asyncio.create_task(bench.store.held(worker.incarnation, epoch=1))
        await waiting_for_locks(bench, 1)
    held = await asking
    with pytest.raises(DatabaseUnavailable, match="given this exchange up"):
        await worker.exchange(task_limit=1)
    later = await worker.claim_one(epoch=1)
    await other.close()

    assert ([first], second) == ([c.id for c in held.claims], later.id)


@pytest.mark.parametrize(
    ("policy", "retried"),
    [
        (None, True),
        ({"initial": 0.0}, True),
        ({"retry_on": []}, True),
        ({"retry_on": ["TimeoutError"]}, True),
        ({"retry_on": ["Exception"]}, True),
        ({"retry_on": ["Busy"]}, False),
        ({"no_retry_on": ["TimeoutError"]}, False),
    ],
)
async def test_an_expired_attempt_is_retried_as_its_policy_says(
    bench: Bench, policy: dict[str, Any] | None, retried: bool
) -> None:
    worker = await bench.worker(TaskRegistration("work", retries=1, retry=policy, timeout_seconds=1))
    id_ = await bench.start()
    await worker.claim_one()
    await bench.pass_time(12)
    await bench.store.maintain(new_id())

    assert ("pending" if retried else "failed") == await bench.status(id_)


async def test_a_policy_given_at_the_start_leaves_the_rest_to_the_registration(bench: Bench) -> None:
    parked = await bench.start(retry={"max": 9.0})
    worker = await bench.worker(TaskRegistration("work", retry={"initial": 2.0, "max": 4.0, "no_retry_on": ["Broken"]}))
    later = await bench.start(retry={"max": 8.0, "no_retry_on": []})
    claims = {c.id: dict(c.retry or {}) for c in await worker.claim()}

    assert {"initial": 2.0, "max": 9.0, "no_retry_on": ["Broken"]} == claims[parked]
    assert {"initial": 2.0, "max": 8.0, "no_retry_on": []} == claims[later]
