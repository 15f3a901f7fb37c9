"""Gates: limits of queues and of limit keys. The clock stands still; races hold their locks by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from rhythm.errors import ExecutionFinished, ExecutionNotFound
from rhythm.model import Claim, QueueLimits, TaskRegistration
from rhythm.store import Store
from rhythm.store.marshal import exchange_call
from tests.store.bench import Bench, Worker, another_session, child, continuation, end, suspend, waiting_for_locks

QUEUE = "narrow"


async def limited(bench: Bench, **limits: Any) -> Worker:
    """A worker of a queue with limits."""
    worker = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
    await limit(bench, **limits)
    return worker


async def limit(bench: Bench, **limits: Any) -> bool:
    return await bench.store.limit_queue(QUEUE, QueueLimits(**limits))


async def places(bench: Bench) -> set[uuid.UUID]:
    return {row["id"] for row in await bench.raw.fetch("select id from rhythm.places")}


def ids(claims: Sequence[Claim]) -> list[uuid.UUID]:
    return [claim.id for claim in claims]


# --- concurrency -------------------------------------------------------------------------------------


async def test_no_more_begin_than_the_limit_says_and_the_next_one_when_one_has_ended(any_bench: Bench) -> None:
    bench = any_bench
    worker = await limited(bench, concurrency=2)
    started = await bench.start_many(5, queue=QUEUE)
    first = await worker.claim()
    none = await worker.claim()
    waiting = await bench.get(started[2])
    next_ = (await worker.complete(first[0], task_limit=10)).claims

    assert started[:2] == ids(first)
    assert [] == none
    assert ("pending", "waiting for a place") == (waiting.status, waiting.reason)
    assert started[2:3] == ids(next_), "in the exchange that gave the place back"
    assert {first[1].id, next_[0].id} == await places(bench)
    assert [] == await bench.store.breaches()


async def test_every_end_of_an_attempt_gives_its_place_back(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    done, failed, retried, returned, cancelled = await bench.start_many(5, queue=QUEUE, retries=1)
    order = []
    claim = await worker.claim_one()
    order.append(claim.id)
    (claim,) = (await worker.complete(claim, task_limit=1)).claims
    order.append(claim.id)
    await worker.fail(claim, retryable=False)
    claim = await worker.claim_one()
    order.append(claim.id)
    await worker.fail(claim, after=0)  # goes to the gate again, where its age puts it in front
    claim = await worker.claim_one()
    order.append(claim.id)
    await worker.fail(claim, after=100)
    claim = await worker.claim_one()
    order.append(claim.id)
    await worker.exchange(hand_backs=[(claim.token, claim.id)])
    claim = await worker.claim_one()
    order.append(claim.id)
    await bench.store.terminate(claim.id)
    claim = await worker.claim_one()
    order.append(claim.id)

    assert [done, failed, retried, retried, returned, returned, cancelled] == order
    assert "failed" == await bench.status(retried), "its retries were used up"
    assert {cancelled} == await places(bench)
    assert [] == await bench.store.breaches()


async def test_places_of_a_dead_worker_come_back_when_it_is_reclaimed(bench: Bench) -> None:
    dying = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE], heartbeat_timeout=30)
    worker = await limited(bench, concurrency=2)
    lost = ids_of_lost = await bench.start_many(2, queue=QUEUE)
    after = await bench.start_many(2, queue=QUEUE)
    await dying.claim()
    held = await worker.claim()
    await bench.pass_time(31)
    await worker.heartbeat()
    await bench.store.maintain(worker.incarnation)
    crowded = await worker.claim()
    alone = await worker.claim(alone=True)

    assert [] == held
    assert after == ids(crowded), "what was lost before is for a worker that runs nothing else"
    assert [] == alone, "no place is free"
    assert ("pending", 1) == (await bench.status(ids_of_lost[0]), (await bench.get(lost[0])).lost)
    await worker.complete(*crowded)
    (suspect,) = await worker.claim(alone=True)
    assert (lost[0], 2, 1) == (suspect.id, suspect.attempt, suspect.lost)
    assert [] == await bench.store.breaches()


async def test_what_was_lost_is_claimed_alone_whatever_passes_other_gates(bench: Bench) -> None:
    dying = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE], heartbeat_timeout=30)
    worker = await bench.worker("work", queues=["other", QUEUE])
    await bench.store.limit_queue("other", QueueLimits(concurrency=5))
    await limit(bench, concurrency=5)
    lost = await bench.start(queue=QUEUE)
    await dying.claim_one()
    others = await bench.start_many(2, queue="other")
    await bench.pass_time(31)
    await worker.heartbeat()
    await bench.store.maintain(worker.incarnation)
    suspect = await worker.claim_one(alone=True)
    result = await worker.complete(suspect, task_limit=10)

    assert lost == suspect.id
    assert others == ids(result.claims)


async def test_what_was_lost_too_often_gives_its_place_back_when_it_fails(bench: Bench) -> None:
    await limited(bench, concurrency=1)
    started = await bench.start(queue=QUEUE)
    for _ in range(3):
        dying = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE], heartbeat_timeout=30)
        await dying.claim_one(alone=True)
        await bench.pass_time(31)
        await bench.store.maintain(dying.incarnation)

    assert "failed" == await bench.status(started)
    assert set() == await places(bench)


async def test_an_attempt_past_its_timeout_gives_its_place_back(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    first = await bench.start(queue=QUEUE, timeout_seconds=5)
    second = await bench.start(queue=QUEUE)
    claim = await worker.claim_one()
    await bench.pass_time(16)
    await bench.store.maintain(worker.incarnation)
    next_ = await worker.claim_one()
    late = await worker.complete(claim)

    assert (first, second) == (claim.id, next_.id)
    assert {first} == late.refused
    assert {second} == await places(bench), "a refused report gives nothing back"


async def test_a_transactional_task_gives_its_place_back_with_its_own_commit(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    await bench.start_many(2, queue=QUEUE)
    claim = await worker.claim_one()
    async with bench.raw.transaction():
        await bench.raw.execute("select set_config('rhythm.execution', $1, true)", str(claim.id))
        await bench.raw.execute(
            "select rhythm.complete($1, $2, $3, '\\x017b7d')", worker.incarnation, claim.token >> 9, claim.id
        )
        before = await worker.claim()
    after = await worker.claim()

    assert (0, 1) == (len(before), len(after))


async def test_a_suspended_workflow_keeps_its_place_until_it_has_finished(bench: Bench) -> None:
    await bench.publish("order")
    worker = await limited(bench, concurrency=1)
    other = await bench.worker("work")
    first, second = await bench.start_many(2, "order", queue=QUEUE)
    claim = await worker.claim_one()
    await worker.commit(suspend(claim, children=[child(1)]))
    none = await worker.claim()
    await other.complete(await other.claim_one())
    resumed = await worker.claim_one()
    await worker.commit(end(resumed))
    next_ = await worker.claim_one()

    assert (first, [], first, second) == (claim.id, none, resumed.id, next_.id)
    assert 1 == resumed.version
    assert [] == await bench.store.breaches()


async def test_a_workflow_that_ends_in_place_gives_its_place_back(bench: Bench) -> None:
    await bench.publish("order")
    worker = await limited(bench, concurrency=1)
    other = await bench.worker("work")
    await bench.start_many(2, "order", queue=QUEUE)
    await worker.commit(suspend(await worker.claim_one(), children=[child(1)]))
    claim = await other.claim_one(parents=True)
    result = await other.complete(claim, continuations=[continuation(claim, outcome=True)])

    assert 1 == len(result.continued)
    assert set() == await places(bench)
    assert 1 == len(await worker.claim())


@pytest.mark.parametrize("how", ["cancel", "terminate", "replace"])
async def test_what_waits_at_a_gate_can_be_ended_there(bench: Bench, how: str) -> None:
    worker = await limited(bench, concurrency=1)
    first = await bench.start(queue=QUEUE)
    await worker.claim_one()
    waiting = await bench.start(queue=QUEUE, key="k")
    if how == "replace":
        result = await bench.start_result(queue=QUEUE, key="k", key_policy="replace", inputs=b'{"other":1}')
        assert "replaced" == result.status
    else:
        await getattr(bench.store, how)(waiting)

    assert "cancelled" == await bench.status(waiting)
    assert {first} == await places(bench)
    assert (1 if how == "replace" else 0) == await bench.count("gated")
    assert [] == await bench.store.breaches()


async def test_children_signals_with_start_retries_by_hand_and_delays_come_to_the_gate(bench: Bench) -> None:
    await bench.publish("order")
    worker = await limited(bench, concurrency=1)
    boss = await bench.worker()
    parent = await bench.start("order")
    await boss.commit(suspend(await boss.claim_one(), children=[child(1, queue=QUEUE, limit_key="a")]))
    delayed = await bench.start(queue=QUEUE, delay_seconds=10)
    (children,) = await bench.store.list(parent_id=parent)
    claim = await worker.claim_one()
    before = (await bench.get(delayed)).reason
    await bench.pass_time(11)
    await bench.store.maintain(worker.incarnation)
    due = (await bench.get(delayed)).reason
    await worker.fail(claim, retryable=False)
    await bench.store.retry(claim.id, uuid.uuid4())

    assert ("waiting for a place", "a") == (children.reason, children.limit_key)
    assert (children.id, "later", "waiting for a place") == (claim.id, before, due)
    assert "waiting for a place" == (await bench.get(claim.id)).reason
    assert 2 == await bench.count("gated")
    first = await worker.claim_one()
    assert [delayed, claim.id] == [first.id, *ids((await worker.complete(first, task_limit=10)).claims)], "keys in turn"


async def test_names_that_nobody_knows_are_parked_and_come_back_to_the_gate(bench: Bench) -> None:
    await limit(bench, concurrency=1)
    unknown = await bench.start("unheard", queue=QUEUE, limit_key="a")
    before = (await bench.get(unknown)).reason
    worker = await bench.worker(TaskRegistration("unheard", QUEUE), queues=[QUEUE])
    known = (await bench.get(unknown)).reason
    await bench.store.unregister_worker(worker.incarnation)
    await bench.pass_time(100)
    await bench.store.maintain(worker.incarnation)
    forgotten = (await bench.get(unknown)).reason
    worker = await bench.worker(TaskRegistration("unheard", QUEUE), queues=[QUEUE])

    assert ("unknown task", "waiting for a place", "unknown task") == (before, known, forgotten)
    assert unknown == (await worker.claim_one()).id


async def test_a_paused_queue_lets_nothing_pass(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    await bench.start(queue=QUEUE)
    await bench.store.pause_queue(QUEUE)

    assert [] == await worker.claim()
    await bench.store.pause_queue(QUEUE, False)
    assert 1 == len(await worker.claim())


async def test_plain_sql_starts_with_a_limit_key(bench: Bench) -> None:
    await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
    id_ = await bench.raw.fetchval("select rhythm.start('work', p_queue => $1, p_limit_key => 'a')", QUEUE)
    with pytest.raises(Exception, match="a limit key has 1 to 200 characters"):
        await bench.raw.execute("select rhythm.start('work', p_limit_key => '')")

    assert "a" == (await bench.get(id_)).limit_key


# --- keys --------------------------------------------------------------------------------------------


async def test_keys_take_turns_whatever_waits_under_one_of_them(bench: Bench) -> None:
    worker = await limited(bench, concurrency=4)
    for _ in range(3):
        await bench.start_many(1000, queue=QUEUE, limit_key="busy")
    for key in ("a", "b", None):
        await bench.start_many(2, queue=QUEUE, limit_key=key)
    keys: dict[uuid.UUID, str | None] = {
        row["id"]: row["limit_key"] for row in await bench.raw.fetch("select id, limit_key from rhythm.executions")
    }
    claims = await worker.claim()
    turns = [[keys[c.id] for c in claims]]
    for _ in range(3):
        claims = (await worker.complete(*claims, task_limit=10)).claims
        turns.append([keys[c.id] for c in claims])

    assert Counter([None, "a", "b", "busy"]) == Counter(turns[0]) == Counter(turns[1])
    assert [["busy"] * 4] * 2 == turns[2:]


async def test_within_a_key_priority_decides_and_then_age(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    low = await bench.start(queue=QUEUE, limit_key="a", priority=-1)
    middle = await bench.start_many(2, queue=QUEUE, limit_key="a")
    high = await bench.start(queue=QUEUE, limit_key="a", priority=1)
    order = []
    claims = await worker.claim()
    while claims:
        order += ids(claims)
        claims = (await worker.complete(*claims, task_limit=10)).claims

    assert [high, *middle, low] == order


async def test_a_key_has_limits_of_its_own_and_what_has_none_has_not(bench: Bench) -> None:
    worker = await limited(bench, key_concurrency=1)
    for key in ("a", "b", None):
        await bench.start_many(3, queue=QUEUE, limit_key=key)
    claims = await worker.claim()
    by_key = Counter([(await bench.get(c.id)).limit_key for c in claims])
    none = await worker.claim()
    (of_a,) = [c for c in claims if (await bench.get(c.id)).limit_key == "a"]
    (next_,) = (await worker.complete(of_a, task_limit=10)).claims

    assert {"a": 1, "b": 1, None: 3} == by_key
    assert [] == none
    assert "a" == (await bench.get(next_.id)).limit_key
    assert [] == await bench.store.breaches()


async def test_many_keys_that_may_not_pass_are_passed_over(bench: Bench) -> None:
    worker = await limited(bench, key_concurrency=1)
    for number in range(300):
        await bench.start_many(2, queue=QUEUE, limit_key=f"k{number:03}")
    first = await worker.claim(tasks=300)
    last = await bench.start(queue=QUEUE, limit_key="z")
    found: list[uuid.UUID] = []
    exchanges = 0
    while not found and exchanges < 10:
        result = await worker.exchange(task_limit=1)
        exchanges += 1
        found = ids(result.claims)
        assert found or result.check_again, "it says that there is more to look at"

    assert 300 == len(first)
    assert [last] == found


async def test_a_worker_touches_only_what_it_can_run(bench: Bench) -> None:
    worker = await limited(bench, concurrency=5)
    await bench.worker(TaskRegistration("foreign", QUEUE), queues=[QUEUE])
    for _ in range(3):
        await bench.start_many(1000, "foreign", queue=QUEUE, limit_key="a")
    own = await bench.start(queue=QUEUE, limit_key="a")

    assert [own] == ids(await worker.claim())
    assert {own} == await places(bench), "what nobody takes holds no place"


# --- rates -------------------------------------------------------------------------------------------


async def test_no_window_of_a_rate_holds_more_starts_than_it_says(bench: Bench) -> None:
    worker = await limited(bench, rate=(3, 10.0))
    await bench.start_many(10, queue=QUEUE)
    one = await worker.claim(tasks=1)
    await bench.pass_time(6)
    two = await worker.exchange(task_limit=10)
    full = await worker.exchange(task_limit=10)
    await bench.pass_time(3.999)
    still = await worker.claim()
    await bench.pass_time(0.001)
    third = await worker.exchange(task_limit=10)

    assert (1, 2, 0, 0, 1) == (len(one), len(two.claims), len(full.claims), len(still), len(third.claims))
    assert 4.0 == pytest.approx(full.next_pass_seconds)
    assert 6.0 == pytest.approx(third.next_pass_seconds)
    assert [] == await bench.store.breaches()


async def test_a_rate_counts_attempts_and_ends_do_not_matter(bench: Bench) -> None:
    worker = await limited(bench, rate=(2, 60.0))
    await bench.start(queue=QUEUE, retries=5)
    await worker.fail(await worker.claim_one(), after=0)
    await worker.fail(await worker.claim_one(), after=0)
    result = await worker.exchange(task_limit=1)

    assert [] == result.claims
    assert 60.0 == pytest.approx(result.next_pass_seconds)


async def test_a_rate_of_a_key_holds_up_that_key_only(any_bench: Bench) -> None:
    bench = any_bench
    worker = await limited(bench, key_rate=(1, 10.0))
    for key in ("a", "b", None):
        await bench.start_many(2, queue=QUEUE, limit_key=key)
    first = await worker.exchange(task_limit=10)
    second = await worker.exchange(task_limit=10)
    await bench.pass_time(10)
    third = await worker.claim()

    assert (4, 0, 2) == (len(first.claims), len(second.claims), len(third))
    assert 10.0 == pytest.approx(second.next_pass_seconds)
    assert {"a", "b"} == {(await bench.get(c.id)).limit_key for c in third}


async def test_passes_that_count_no_more_are_deleted(bench: Bench) -> None:
    worker = await limited(bench, rate=(50, 10.0), key_rate=(50, 5.0))
    await bench.start_many(40, queue=QUEUE, limit_key="a")
    await worker.complete(*await worker.claim())
    kept = await bench.count("passes")
    await bench.pass_time(11)
    await bench.store.maintain(worker.incarnation)

    assert (80, 0) == (kept, await bench.count("passes"))


async def test_a_clock_that_is_put_back_closes_no_gate_for_long(bench: Bench) -> None:
    worker = await limited(bench, rate=(1, 10.0))
    await bench.start_many(3, queue=QUEUE)
    await worker.claim_one()
    await bench.pass_time(-3600)
    none = await worker.exchange(task_limit=10)
    await bench.pass_time(10)

    assert [] == none.claims
    assert 10.0 == pytest.approx(none.next_pass_seconds)
    assert 1 == len(await worker.claim())


async def test_no_more_pass_at_once_than_would_begin_at_once(bench: Bench) -> None:
    worker = await limited(bench, concurrency=50)
    await bench.start_many(20, queue=QUEUE)
    result = await worker.exchange(task_limit=20, task_free=[3])

    assert 3 == len(result.claims)
    assert 3 == len({c.token >> 9 for c in result.claims}), "each claimed singly"


# --- changing limits ---------------------------------------------------------------------------------


async def test_limits_that_are_set_move_what_is_ready_and_count_what_runs(bench: Bench) -> None:
    await bench.publish("order")
    worker = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
    other = await bench.worker("work")
    await bench.start("order", queue=QUEUE)
    await worker.commit(suspend(await worker.claim_one(), children=[child(1, queue="default")]))
    await bench.start_many(2, queue=QUEUE)
    running = await worker.claim(tasks=2)
    waiting = await bench.start_many(3, queue=QUEUE)
    changed = await limit(bench, concurrency=4)
    again = await limit(bench, concurrency=4)
    (one,) = await worker.claim()
    result = await worker.complete(running[0], task_limit=10)
    await other.complete(await other.claim_one())
    (resumed,) = (await worker.complete(running[1], *result.claims, workflow_limit=10)).claims

    assert (True, False) == (changed, again)
    assert waiting[:2] == [one.id, *ids(result.claims)], "a suspended workflow and two tasks had begun"
    assert "workflow" == resumed.kind
    assert [] == await bench.store.breaches()


async def test_limits_can_be_lowered_raised_and_removed_while_work_runs(bench: Bench) -> None:
    worker = await limited(bench, concurrency=3)
    await bench.start_many(10, queue=QUEUE)
    claims = await worker.claim()
    await limit(bench, concurrency=1)
    lowered = (await worker.complete(claims[0], claims[1], task_limit=10)).claims
    await limit(bench, concurrency=2)
    raised = await worker.claim()
    await limit(bench)
    removed = await worker.claim()
    await worker.complete(claims[2], *raised)

    assert (3, 0, 1, 6) == (len(claims), len(lowered), len(raised), len(removed))
    assert [0, 0, 0] == [await bench.count(table) for table in ("gated", "places", "gates")]
    assert [] == await bench.store.breaches()


async def test_limits_that_are_nonsense_or_of_no_queue_are_refused(bench: Bench) -> None:
    with pytest.raises(ExecutionNotFound, match="no queue is named nowhere"):
        await bench.store.limit_queue("nowhere", QueueLimits(concurrency=1), known=True)
    with pytest.raises(Exception, match="concurrency"):
        await limit(bench, concurrency=0)


async def test_what_a_start_put_into_ready_while_limits_were_set_goes_to_the_gate(bench: Bench) -> None:
    worker = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
    async with another_session(bench) as session:  # it has read that there are no limits
        await session.execute("select rhythm.start('work', p_queue => $1)", QUEUE)
        await limit(bench, concurrency=1)
        await session.execute("commit")
    await bench.start(queue=QUEUE)
    before = await worker.claim()
    await bench.pass_time(5)
    await bench.store.maintain(worker.incarnation)

    assert 1 == len(before), "not the one without a place"
    assert (0, 1) == (await bench.count("ready"), await bench.count("gated"))
    await limit(bench)
    assert 1 == len(await worker.claim())


async def test_what_a_start_put_to_a_gate_that_was_removed_meanwhile_becomes_claimable(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    async with another_session(bench) as session:
        await session.execute("select rhythm.start('work', p_queue => $1)", QUEUE)
        await limit(bench)
        await session.execute("commit")
    await bench.pass_time(5)
    await bench.store.maintain(worker.incarnation)

    assert 1 == len(await worker.claim())


async def test_a_long_transaction_that_starts_holds_up_nobody_at_the_gate(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    async with another_session(bench) as session:
        await session.execute("select rhythm.start('work', p_queue => $1)", QUEUE)
        other = await bench.start(queue=QUEUE)
        claim = await worker.claim_one()
        await worker.complete(claim)

    assert other == claim.id


# --- races -------------------------------------------------------------------------------------------


async def test_two_exchanges_at_one_gate_do_not_exceed_the_limit(bench: Bench) -> None:
    worker = await limited(bench, concurrency=3, rate=(3, 60.0))
    other = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
    await bench.start_many(10, queue=QUEUE)
    async with another_session(bench) as session:
        await session.execute("select from rhythm.gates for update")
        racing = [asyncio.create_task(w.claim(tasks=2)) for w in (worker, other)]
        await waiting_for_locks(bench, 2)
        await session.execute("commit")
        claims = await asyncio.gather(*racing)

    assert [1, 2] == sorted(len(c) for c in claims)
    assert [] == await bench.store.breaches()


async def test_an_outcome_and_a_change_of_limits_at_once(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    await bench.start_many(3, queue=QUEUE)
    claim = await worker.claim_one()
    async with another_session(bench) as session:
        await session.execute("select from rhythm.gates for update")
        ending = asyncio.create_task(worker.complete(claim, task_limit=10))
        await waiting_for_locks(bench, 1)
        changing = asyncio.create_task(limit(bench, concurrency=2))
        await waiting_for_locks(bench, 2)
        await session.execute("commit")
        result = await ending
        await changing

    assert 1 == len(result.claims) + len(await worker.claim()) - 1
    assert [] == await bench.store.breaches()


async def test_removing_limits_waits_for_the_exchanges_under_way(bench: Bench) -> None:
    worker = await limited(bench, concurrency=1)
    await bench.start_many(3, queue=QUEUE)
    claim = await worker.claim_one()
    async with another_session(bench) as session:
        await session.execute("select from rhythm.gates for update")
        ending = asyncio.create_task(worker.complete(claim, task_limit=10))
        await waiting_for_locks(bench, 1)
        removing = asyncio.create_task(limit(bench))
        await waiting_for_locks(bench, 2)
        await session.execute("commit")
        (next_,) = (await ending).claims
        await removing

    assert 1 == len(await worker.claim())
    assert set() == await places(bench)
    assert set() == (await worker.complete(next_)).refused


async def test_completes_starts_reclaims_and_changes_of_limits_at_once_end_without_a_deadlock(bench: Bench) -> None:
    workers = [
        await bench.worker(TaskRegistration("work", QUEUE), "work2", queues=[QUEUE, "default"]) for _ in range(4)
    ]
    await limit(bench, concurrency=5, key_concurrency=2)
    started: list[uuid.UUID] = []

    async def work(worker: Worker, rounds: int) -> None:
        claims: list[Claim] = []
        for turn in range(rounds):
            claims = (await worker.complete(*claims, task_limit=3)).claims
            if turn % 7 == 3 and claims:
                with contextlib.suppress(ExecutionFinished):
                    await bench.store.terminate(claims[0].id)
            if turn % 5 == 4:
                await worker.exchange(hand_backs=[(c.token, c.id) for c in claims])
                claims = []
        await worker.complete(*claims)

    async def start() -> None:
        for turn in range(40):
            started.extend(await bench.start_many(5, queue=QUEUE, limit_key=f"k{turn % 3}"))
            if turn % 4 == 0:
                with contextlib.suppress(ExecutionFinished):
                    await bench.store.cancel(started[-1])

    async def change() -> None:
        for turn in range(12):
            await limit(bench, **({} if turn % 3 == 2 else {"concurrency": 3 + turn % 3}))

    async def die() -> None:
        for _ in range(6):
            dying = await bench.worker(TaskRegistration("work", QUEUE), queues=[QUEUE])
            await dying.claim(tasks=2)
            await bench.store.unregister_worker(dying.incarnation)

    await asyncio.gather(*(work(worker, 40) for worker in workers), start(), change(), die())
    assert [] == [b for b in await bench.store.breaches() if "minute" not in b[2]]
    await limit(bench, concurrency=50)
    await bench.pass_time(5)
    for _ in range(400):
        await bench.pass_time(3)
        await bench.store.maintain(workers[0].incarnation)
        claims = await workers[0].claim(alone=True)
        await workers[0].complete(*claims)
        if not claims and not await bench.count("gated") and not await bench.count("ready"):
            break

    statuses = Counter([(await bench.get(id_)).status for id_ in started])
    assert {"completed", "cancelled"} == set(statuses) - {"failed"}
    assert set() == await places(bench)
    assert [] == await bench.store.breaches()


# --- cost --------------------------------------------------------------------------------------------


async def test_ten_thousand_at_a_gate_under_a_hundred_keys_pass_in_turn(bench: Bench) -> None:
    worker = await limited(bench, concurrency=100, key_concurrency=1)
    for number in range(100):
        await bench.start_many(100, queue=QUEUE, limit_key=f"k{number % 10}{number // 10}")
    done: Counter[uuid.UUID] = Counter()
    claims = await worker.claim()
    exchanges = 0
    while claims:
        assert 100 == len(claims), "one of every key"
        done.update(ids(claims))
        claims = (await worker.complete(*claims, task_limit=100)).claims
        exchanges += 1

    assert (10_000, 100) == (len(done), exchanges)
    assert [] == await bench.store.breaches()


@pytest.mark.parametrize("analyzed", ["never", "few"])
async def test_what_a_claim_at_a_gate_reads_does_not_grow_with_what_waits_there(bench: Bench, analyzed: str) -> None:
    worker = await limited(bench, concurrency=10_000, rate=(10_000, 60.0), key_concurrency=9_000)
    await bench.worker(TaskRegistration("foreign", QUEUE), queues=[QUEUE])

    async def surround(count: int) -> None:
        for first in range(0, count, 1000):
            size = min(1000, count - first)
            await bench.start_many(size, "foreign", queue=QUEUE, limit_key=f"k{first}")
            await bench.start_many(size, queue=QUEUE, limit_key="busy")

    async def pages() -> int:
        read = 0
        for _ in range(2):  # the second time: the first plans
            query, arguments = exchange_call(worker.request(task_limit=3))
            explain = f"explain (analyze, buffers, format json, timing off) {query}"
            top = json.loads(await bench.raw.fetchval(explain, *arguments))[0]["Plan"]
            read = int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
        return read

    await surround(200)
    if analyzed == "few":
        await bench.raw.execute("vacuum analyze")
    before = await pages()
    await surround(10_000)
    after = await pages()

    assert 12 == await bench.count("places")
    assert after <= 2 * before + 100, (before, after)


async def test_queues_without_limits_read_none_of_the_tables_of_gates(bench: Bench) -> None:
    await bench.publish("order")
    await bench.raw.execute("select rhythm.limit_queue('other', 1, null, null, null, null, null)")
    await bench.raw.execute("select pg_stat_force_next_flush()")
    await bench.raw.execute("select pg_stat_reset()")
    store = await Store.connect(bench.store.url)
    try:
        await use_everything(Bench(store, bench.raw))
    finally:
        await store.close()  # what its sessions have counted is told when they end
    touched: dict[str, int] = {"waits": 0}
    async with asyncio.timeout(30):
        while not touched["waits"]:
            rows = await bench.raw.fetch(
                "select relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd as touched "
                "from pg_stat_user_tables where relname in ('gates', 'gated', 'places', 'passes', 'waits')"
            )
            touched = {row["relname"]: row["touched"] for row in rows}

    assert touched.pop("waits") > 10, "what is measured is measured"
    assert {"gates": 0, "gated": 0, "places": 0, "passes": 0} == touched


async def use_everything(bench: Bench) -> None:
    """Starts, claims, commits, continuations, failures and hand backs on a queue without limits."""
    worker = await bench.worker("work")
    await bench.start_many(20, retries=1)
    await bench.start("order")
    claims = await worker.claim()
    (flow,) = [c for c in claims if c.kind == "workflow"]
    tasks = [c for c in claims if c.kind == "task"]
    await worker.commit(suspend(flow, children=[child(1)]))
    await worker.fail(tasks[0], after=0)
    await worker.complete(*tasks[1:])
    claims = await worker.claim(parents=True)
    (step,) = [c for c in claims if c.parent is not None]
    await worker.complete(step, continuations=[continuation(step, children=[child(2)])])
    await worker.exchange(hand_backs=[(c.token, c.id) for c in claims if c is not step])
    (last,) = [c for c in await worker.claim(parents=True) if c.parent is not None]
    await worker.complete(last, continuations=[continuation(last, outcome=True)])
