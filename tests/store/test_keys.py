"""Idempotency keys."""

from __future__ import annotations

import asyncio

import pytest

from rhythm.model import new_id
from tests.store.bench import Bench, another_session, new_execution, waiting_for_locks


async def test_the_same_key_gives_the_same_execution(bench: Bench) -> None:
    first = await bench.start(key="k", inputs=b"{}")
    second = await bench.start_result(key="k", inputs=b"{}")
    other_name = await bench.start_result("other", key="k")
    other_key = await bench.start_result(key="k2")

    assert (first, "existing") == (second.id, second.status)
    assert ["started", "started"] == [other_name.status, other_key.status]


@pytest.mark.parametrize("policy", ["return", "reject", "after_failure"])
async def test_the_same_key_with_other_inputs_is_refused(bench: Bench, policy: str) -> None:
    await bench.start(key="k", inputs=b"[1]")
    second = await bench.start_result(key="k", inputs=b"[2]", key_policy=policy)

    assert ("refused", "key_conflict") == (second.status, second.code)
    assert 1 == await bench.count("executions")


async def test_reject_refuses_even_the_same_inputs(bench: Bench) -> None:
    first = await bench.start(key="k", key_policy="reject")
    second = await bench.start_result(key="k", key_policy="reject")

    assert (first, "refused", "key_taken") == (second.id, second.status, second.code)


async def test_one_refused_start_leaves_the_others_of_its_call_alone(bench: Bench) -> None:
    await bench.start(key="taken", inputs=b"[1]")
    results = await bench.store.start(
        [
            new_execution(key="new", queue="q", tags={"a": 1}),
            new_execution(key="taken", inputs=b"[2]"),
            new_execution(),
            new_execution(key="taken", inputs=b"[1]"),
        ]
    )
    infos = [await bench.get(results[i].id) for i in (0, 2)]

    assert ["started", "refused", "started", "existing"] == [r.status for r in results]
    assert [("q", {"a": 1}), ("default", None)] == [(i.queue, i.tags) for i in infos]
    assert 3 == await bench.count("executions")


async def test_one_key_twice_in_one_call_is_one_execution(bench: Bench) -> None:
    first, second = await bench.store.start([new_execution(key="k"), new_execution(key="k")])

    assert (first.id, "started") == (second.id, first.status)
    assert "existing" == second.status


async def test_a_repeated_call_with_a_key_is_existing(bench: Bench) -> None:
    execution = new_execution(key="k")
    await bench.store.start([execution])
    again = (await bench.store.start([execution]))[0]

    assert (execution.id, "existing") == (again.id, again.status)


async def test_replace_puts_a_new_execution_in_place_of_a_pending_one(bench: Bench) -> None:
    worker = await bench.worker("work")
    first = await bench.start(key="k", inputs=b"[1]", delay_seconds=100)
    second = await bench.start_result(key="k", inputs=b"[2]", key_policy="replace")
    claim = await worker.claim_one()
    third = await bench.start_result(key="k", inputs=b"[2]", key_policy="replace")

    assert "replaced" == second.status
    assert "cancelled" == await bench.status(first)
    assert (second.id, b"[2]") == (claim.id, claim.inputs)
    assert (second.id, "existing") == (third.id, third.status)


async def test_replace_of_a_workflow_leaves_nothing_of_it(bench: Bench) -> None:
    await bench.publish("order")
    first = await bench.start("order", key="k")
    await bench.signal(first)
    second = await bench.start_result("order", key="k", key_policy="replace")

    assert ("replaced", "cancelled") == (second.status, await bench.status(first))


async def test_after_failure_starts_again_only_then(bench: Bench) -> None:
    worker = await bench.worker("work")
    first = await bench.start(key="k")
    running = await bench.start_result(key="k", key_policy="after_failure")
    await worker.fail(await worker.claim_one())
    second = await bench.start_result(key="k", key_policy="after_failure")
    await worker.complete(await worker.claim_one())
    third = await bench.start_result(key="k", key_policy="after_failure")

    assert (first, "existing") == (running.id, running.status)
    assert "started" == second.status
    assert second.id != first
    assert (second.id, "existing") == (third.id, third.status)


@pytest.mark.parametrize("policy", ["return", "reject", "replace", "after_failure"])
async def test_a_hundred_starts_at_once_with_one_key(bench: Bench, policy: str) -> None:
    results = await asyncio.gather(*(bench.start_result(key="k", key_policy=policy) for _ in range(100)))
    started = [r for r in results if r.status in ("started", "replaced")]
    alive = await bench.store.list(status="pending")

    assert 1 == len(alive)
    if policy == "replace":
        assert 1 == sum(r.status == "started" for r in results)
    else:
        assert [alive[0].id] == [r.id for r in started]
        assert {alive[0].id} == {r.id for r in results}


async def test_bulk_starts_with_the_same_keys_in_other_orders_do_not_block_each_other(bench: Bench) -> None:
    keys = [f"k{i}" for i in range(50)]
    calls = [keys, keys[::-1], keys[25:] + keys[:25], keys[::2] + keys[1::2]]
    await asyncio.gather(*(bench.store.start([new_execution(key=key) for key in call]) for call in calls))

    assert 50 == await bench.count("executions")


@pytest.mark.parametrize("inputs", [b"{}", b"[1]"])
async def test_a_repeated_replace_does_not_undo_what_has_replaced_it(bench: Bench, inputs: bytes) -> None:
    await bench.start(key="k")
    second = new_execution(key="k", key_policy="replace")
    await bench.store.start([second])
    third = await bench.start_result(key="k", key_policy="replace", inputs=inputs)
    (again,) = await bench.store.start([second])
    holder = await bench.start_result(key="k", inputs=inputs)

    assert (second.id, "existing", "cancelled") == (again.id, again.status, await bench.status(second.id))
    assert (third.id, "existing", "pending") == (holder.id, holder.status, await bench.status(third.id))


async def test_a_repeated_start_after_failure_leaves_the_key_with_its_successor(bench: Bench) -> None:
    worker = await bench.worker("work")
    first = new_execution(key="k", key_policy="after_failure")
    await bench.store.start([first])
    await worker.fail(await worker.claim_one())
    second = await bench.start(key="k", key_policy="after_failure")
    await worker.fail(await worker.claim_one())
    (again,) = await bench.store.start([first])
    holder = await bench.start_result(key="k")

    assert (first.id, "existing") == (again.id, again.status)
    assert (second, "existing") == (holder.id, holder.status)


@pytest.mark.parametrize("policy", ["return", "reject", "replace", "after_failure"])
async def test_a_key_that_is_let_go_at_that_moment_is_taken(bench: Bench, policy: str) -> None:
    first = await bench.start(key="k")
    async with another_session(bench) as session:
        await session.execute("delete from rhythm.keys")
        starting = asyncio.create_task(bench.start_result(key="k", inputs=b"[2]", key_policy=policy))
        await waiting_for_locks(bench, 1)
        await session.execute("commit")
        result = await starting

    assert "started" == result.status
    assert first != result.id


@pytest.mark.parametrize("policy", ["return", "reject", "replace", "after_failure"])
async def test_a_hundred_starts_at_once_after_a_failure(bench: Bench, policy: str) -> None:
    worker = await bench.worker("work")
    first = await bench.start(key="k")
    await worker.fail(await worker.claim_one())
    results = await asyncio.gather(*(bench.start_result(key="k", key_policy=policy) for _ in range(100)))
    started = [r for r in results if r.status == "started"]

    if policy == "after_failure":
        assert [r.id for r in started] * 100 == [r.id for r in results]
        assert 1 == len(started)
    else:
        assert [] == started
        assert {first} == {r.id for r in results}


@pytest.mark.parametrize("policy", ["return", "reject", "replace", "after_failure"])
async def test_a_hundred_starts_at_once_with_two_kinds_of_inputs(bench: Bench, policy: str) -> None:
    results = await asyncio.gather(
        *(bench.start_result(key="k", inputs=b"[%d]" % (i % 2), key_policy=policy) for i in range(100))
    )
    (alive,) = await bench.store.list(status="pending")
    codes = [r.code for r in results]

    if policy == "replace":
        assert [None] * 100 == codes
    else:
        assert 1 == sum(r.status == "started" for r in results)
        assert 50 == codes.count("key_conflict")
        assert {alive.id} == {r.id for r in results}


async def test_replacing_many_waits_for_nobody_who_waits_for_it(bench: Bench) -> None:
    """Keys in one order, executions in the other: the rows in waits are locked by id, as everywhere."""
    await bench.publish("order")
    first, second = sorted([new_id(), new_id()])
    await bench.store.start([new_execution("order", key="b", id=first), new_execution("order", key="a", id=second)])
    async with another_session(bench) as session:
        await session.execute("select rhythm.lock_workflows(array[$1::uuid])", first)
        replacing = asyncio.create_task(
            bench.store.start([new_execution("order", key=key, key_policy="replace") for key in "ab"])
        )
        await waiting_for_locks(bench, 1)
        await session.execute("select rhythm.lock_workflows(array[$1::uuid])", second)
        await session.execute("commit")
        results = await replacing

    assert ["replaced", "replaced"] == [r.status for r in results]


async def test_a_key_is_kept_for_its_window_when_retention_has_let_its_execution_go(bench: Bench) -> None:
    worker = await bench.worker("work")
    await bench.start(key="k")
    await worker.complete(await worker.claim_one())
    kept = []
    for seconds in (70, 3700):  # what is left of keys is looked for once an hour
        await bench.pass_time(seconds)
        await bench.store.maintain(worker.incarnation, retention_seconds=60, key_window_seconds=100)
        kept.append((await bench.count("executions"), await bench.count("keys")))
    await bench.start(key="k")
    await worker.complete(await worker.claim_one())
    await bench.pass_time(200)
    await bench.store.maintain(worker.incarnation, retention_seconds=60, key_window_seconds=100)

    assert [(0, 1), (0, 0)] == kept
    assert (0, 0) == (await bench.count("executions"), await bench.count("keys")), "its window is over as well"
