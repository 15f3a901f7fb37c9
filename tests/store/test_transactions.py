"""Completing a task inside a transaction: rhythm.complete, and claims that are single from the start."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from rhythm.model import Claim
from rhythm.store.marshal import MEMBERS_BITS, SINGLE
from tests.store.bench import OK, Bench, Worker, another_session, child, suspend, waiting_for_locks


async def claim_singly(worker: Worker, *names: str) -> list[Claim]:
    return await worker.claim(singles=[worker.registered.names[name] for name in names])


async def complete(connection: asyncpg.Connection, worker: Worker, claim: Claim, *, marked: bool = True) -> None:
    """What a transactional task does before its COMMIT."""
    if marked:
        await connection.execute("select set_config('rhythm.execution', $1, true)", str(claim.id))
    await connection.execute("insert into entries values ($1)", str(claim.id))
    token, payload = claim.token >> MEMBERS_BITS, b"\x01" + OK
    await connection.execute("select rhythm.complete($1, $2, $3, $4)", worker.incarnation, token, claim.id, payload)


@pytest.fixture
async def bank(bench: Bench) -> Bench:
    await bench.raw.execute("create table entries (id text)")
    return bench


async def entries(bench: Bench) -> list[str]:
    return [row["id"] for row in await bench.raw.fetch("select id from entries")]


async def test_names_claimed_singly_have_claims_of_their_own_and_the_rest_stays_a_batch(bench: Bench) -> None:
    worker = await bench.worker("work", "book", "other")
    for _ in range(3):
        for name in ("book", "work", "other"):
            await bench.start(name)
    claims = await claim_singly(worker, "book", "other")
    singles = [c for c in claims if c.name != "work"]
    batch = [c for c in claims if c.name == "work"]

    assert (6, 3) == (len(singles), len(batch))
    assert {SINGLE} == {c.token & SINGLE for c in singles}
    assert 6 == len({c.token >> MEMBERS_BITS for c in singles})
    assert ({0, 1, 2}, 1) == ({c.token & SINGLE for c in batch}, len({c.token >> MEMBERS_BITS for c in batch}))
    assert frozenset() == (await worker.complete(*claims)).refused


async def test_a_single_with_a_timeout_of_its_own_expires_by_that(bench: Bench) -> None:
    worker = await bench.worker("work")
    slow, fast = await bench.start(timeout_seconds=1000), await bench.start(timeout_seconds=5)
    await claim_singly(worker, "work")
    await bench.pass_time(16)
    await bench.store.maintain(worker.incarnation)

    assert ("running", "failed") == (await bench.status(slow), await bench.status(fast))


async def test_writes_and_outcome_are_one_commit(bank: Bench) -> None:
    worker = await bank.worker("work")
    await bank.start()
    (claim,) = await claim_singly(worker, "work")
    transaction = bank.raw.transaction()
    await transaction.start()
    await complete(bank.raw, worker, claim)
    await transaction.rollback()
    before = (await bank.status(claim.id), await worker.held(), await entries(bank))
    async with bank.raw.transaction():
        await complete(bank.raw, worker, claim)
        idle = await bank.raw.fetchval("show idle_in_transaction_session_timeout")
    info = await bank.get(claim.id)

    assert ("running", {claim.id: claim.token}, []) == before
    assert ("completed", OK, 1, [str(claim.id)]) == (info.status, info.output, info.attempts, await entries(bank))
    assert ("10s", "0") == (idle, await bank.raw.fetchval("show idle_in_transaction_session_timeout"))


async def test_who_holds_the_claim_no_more_commits_nothing(bank: Bench) -> None:
    worker, other = await bank.worker("work"), await bank.worker("work")
    await bank.start()
    (claim,) = await claim_singly(worker, "work")
    for fenced in (claim, worker):
        with pytest.raises(asyncpg.PostgresError) as refused:
            async with bank.raw.transaction():
                await complete(bank.raw, other if fenced is claim else worker, claim)
        assert "RH002" == refused.value.sqlstate
        await worker.exchange(hand_backs=[(claim.token, claim.id)])
    (again,) = await claim_singly(other, "work")
    async with bank.raw.transaction():
        await complete(bank.raw, other, again)

    assert (1, [str(claim.id)]) == ((await bank.get(claim.id)).attempts, await entries(bank))


async def test_a_member_of_a_batch_is_not_completed_this_way(bank: Bench) -> None:
    worker = await bank.worker("work")
    await bank.start_many(2)
    claim, _ = await worker.claim()
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with bank.raw.transaction():
            await complete(bank.raw, worker, claim)

    assert "RH002" == refused.value.sqlstate


async def test_a_task_that_ended_its_transaction_itself_is_not_completed(bank: Bench) -> None:
    worker = await bank.worker("work")
    await bank.start()
    (claim,) = await claim_singly(worker, "work")
    async with bank.raw.transaction():
        await bank.raw.execute("select set_config('rhythm.execution', $1, true)", str(claim.id))
    with pytest.raises(asyncpg.InvalidTransactionStateError, match="was ended by the task itself"):
        async with bank.raw.transaction():
            await complete(bank.raw, worker, claim, marked=False)

    assert "running" == await bank.status(claim.id)


async def test_the_parent_gets_the_outcome_with_the_commit(bank: Bench) -> None:
    await bank.publish("order")
    worker = await bank.worker("work")
    await bank.start("order")
    parent = await worker.claim_one()
    await worker.commit(suspend(parent, children=[child(1)]))
    (claim,) = await claim_singly(worker, "work")
    async with another_session(bank) as session:
        await complete(session, worker, claim)
        unseen = await bank.count("deliveries")
        signalling = asyncio.create_task(bank.signal(parent.id))
        await waiting_for_locks(bank, 1)
        await session.execute("commit")
        await signalling
    (woken,) = await worker.claim()

    assert 0 == unseen
    assert [(1, "completed", OK), (2, "signal", b"1")] == [(d.number, d.kind, d.payload) for d in woken.deliveries]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_hand_back_waits_for_a_commit_in_doubt(bank: Bench, committed: bool) -> None:
    worker = await bank.worker("work")
    await bank.start()
    (claim,) = await claim_singly(worker, "work")
    async with another_session(bank) as session:
        await complete(session, worker, claim)
        handing = asyncio.create_task(worker.exchange(hand_backs=[(claim.token, claim.id)]))
        await waiting_for_locks(bank, 1)
        await session.execute("commit" if committed else "rollback")
        result = await handing
    info = await bank.get(claim.id)

    if committed:
        assert ({claim.id}, "completed", [str(claim.id)]) == (result.refused, info.status, await entries(bank))
    else:
        assert (frozenset(), "pending", 0, []) == (result.refused, info.status, info.attempts, await entries(bank))


async def test_taking_over_passes_by_what_is_being_committed(bank: Bench) -> None:
    worker = await bank.worker("work", heartbeat_timeout=10.0)
    other = await bank.worker("work")
    await bank.start()
    (claim,) = await claim_singly(worker, "work")
    async with another_session(bank) as session:
        await complete(session, worker, claim)
        await bank.pass_time(60)
        taken = (await bank.store.maintain(other.incarnation)).reclaimed
        await session.execute("commit")
    await bank.pass_time(120)
    again = (await bank.store.maintain(other.incarnation)).reclaimed

    assert (0, 0) == (taken, again)
    assert ("completed", 0) == (await bank.status(claim.id), (await bank.get(claim.id)).lost)


async def test_a_claim_that_was_lost_before_is_single_and_alone(bank: Bench) -> None:
    worker = await bank.worker("work", heartbeat_timeout=10.0)
    await bank.start()
    await claim_singly(worker, "work")
    await bank.pass_time(60)
    other = await bank.worker("work")
    await bank.store.maintain(other.incarnation)
    claim = await other.claim_one(singles=list(other.registered.names.values()), alone=True)
    async with bank.raw.transaction():
        await complete(bank.raw, other, claim)
    info = await bank.get(claim.id)

    assert ("completed", 2, 1) == (info.status, info.attempts, info.lost)
    assert uuid.UUID((await entries(bank))[0]) == claim.id
