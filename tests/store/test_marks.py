"""Low-water marks: claims do not walk over what a held snapshot keeps, and find everything all the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from rhythm.model import TaskOutcome, TaskRegistration
from tests.store.bench import ERROR, Bench, Worker, always_look, another_session, suspend, timer

FIND = "from rhythm.find_ready($1, $2, $3, 4194304)"


@pytest.fixture
async def marked(bench: Bench) -> Bench:
    await always_look(bench)
    return bench


@asynccontextmanager
async def held_snapshot(bench: Bench) -> AsyncIterator[asyncpg.Connection]:
    """Another session that sees the database as it is now, and keeps it from being cleaned up."""
    async with another_session(bench) as session:
        await session.execute("set transaction isolation level repeatable read")
        await session.execute("select count(*) from rhythm.ready")
        yield session


async def walked(bench: Bench, worker: Worker, limit: int = 100) -> int:
    """How many index entries a claim would read now."""
    queues, names = worker.registered.queues.values(), list(worker.registered.names.values())
    async with another_session(bench) as session:
        total = 0
        for queue in queues:
            before = await session.fetchval("select rhythm.walked()")
            await session.fetch(f"select * {FIND}", queue, names, limit)
            total += await session.fetchval("select rhythm.walked()") - before
        return total


async def marks(bench: Bench) -> dict[int, int]:
    """The marks of the only task that has some, by priority."""
    rows = await bench.raw.fetch(
        "select -u.rank as priority, u.seq "
        "from rhythm.marks m, unnest(m.ranks, m.seqs) u(rank, seq) where m.name_id > 0"
    )
    return {row["priority"]: row["seq"] for row in rows}


async def seq(bench: Bench, id_: uuid.UUID) -> int:
    found: int = await bench.raw.fetchval("select seq from rhythm.executions where id = $1", id_)
    return found


async def drain(bench: Bench, worker: Worker, count: int, **options: object) -> None:
    """Starts, claims and completes so many tasks, a hundred at a time, while time passes."""
    for _ in range(count // 100):
        await bench.start_many(100, **options)
        await worker.complete(*await worker.claim(100, 0))
        await bench.pass_time(0.2)


async def move_on(bench: Bench, worker: Worker) -> None:
    """Enough claims of nothing for a mark to be found and taken: the first looks, the next ones take and look again."""
    for _ in range(3):
        assert [] == await worker.claim(10, 0)
        await bench.pass_time(0.2)


# --- what it is for -------------------------------------------------------------------------------


async def test_what_a_claim_reads_does_not_grow_while_a_snapshot_is_held(bench: Bench) -> None:
    worker = await bench.worker("work", "other")
    async with held_snapshot(bench):
        await drain(bench, worker, 4_000)
        few = await walked(bench, worker)
        await drain(bench, worker, 12_000)
        many = await walked(bench, worker)
        await bench.start_many(300)
        full = await walked(bench, worker)

    assert await bench.raw.fetchval("select count(*) from rhythm.outcomes") == 16_000
    assert max(few, many, full) < 5_000, (few, many, full)


async def test_a_mark_goes_when_nothing_is_held_any_more(bench: Bench) -> None:
    worker = await bench.worker("work")
    async with held_snapshot(bench):
        await drain(bench, worker, 6_000)
        before = await marks(bench)
        await bench.pass_time(1_000)
        await worker.claim(100, 0)
        during = await marks(bench)
    await bench.raw.execute("vacuum rhythm.ready")
    await bench.pass_time(1_000)
    await worker.claim(100, 0)

    assert before.keys() == during.keys() == {0}
    assert before[0] > 1
    assert {} == await marks(bench)
    assert not await bench.raw.fetchval("select count(*) from rhythm.marks")


async def test_marks_that_nobody_looks_after_are_forgotten(marked: Bench) -> None:
    worker = await marked.worker("work")
    await drain(marked, worker, 300)
    before = await marked.count("marks")
    await marked.store.maintain(worker.incarnation)
    kept = await marked.count("marks")
    await marked.pass_time(4_000)
    await marked.store.maintain(worker.incarnation)

    assert before == kept > 0
    assert 0 == await marked.count("marks")


async def test_a_queue_that_nothing_holds_has_no_marks(bench: Bench) -> None:
    worker = await bench.worker("work")
    for _ in range(30):
        await drain(bench, worker, 100)
        await bench.raw.execute("vacuum rhythm.ready")

    assert not await bench.raw.fetchval("select count(*) from rhythm.marks")


# --- what stands below a mark ---------------------------------------------------------------------


async def test_what_was_started_before_the_mark_and_is_committed_later_is_claimed_at_once(marked: Bench) -> None:
    worker = await marked.worker("work")
    async with another_session(marked) as session:
        late = await session.fetchval("select rhythm.start('work')")
        for _ in range(5):
            await marked.start()
            await worker.complete(*await worker.claim(10, 0))
            await marked.pass_time(0.2)
        not_yet = await marks(marked)
        await session.execute("commit")
        claim = await worker.claim_one()

    assert not_yet.get(0, 0) <= await seq(marked, late)
    assert claim.id == late


async def test_a_long_transaction_holds_no_mark_up_and_what_it_started_is_claimed_at_once(marked: Bench) -> None:
    worker = await marked.worker("work")
    async with another_session(marked) as session, another_session(marked) as longer:
        late = [await session.fetchval("select rhythm.start('work')") for _ in range(3)]
        later = await longer.fetchval("select rhythm.start('work')")
        for _ in range(8):
            await marked.start()
            await worker.complete(*await worker.claim(10, 0))
            await marked.pass_time(1)
        passed = await marks(marked)
        await session.execute("commit")
        claims = []
        for _ in range(3):
            claims.append(await worker.claim_one(tasks=1))
            await marked.pass_time(1)
        await move_on(marked, worker)
        await longer.execute("commit")
        claims.append(await worker.claim_one())

    assert passed[0] > await seq(marked, later)
    assert [*late, later] == [claim.id for claim in claims]


async def test_what_was_rolled_back_is_waited_for_no_longer(marked: Bench) -> None:
    worker = await marked.worker("work")
    async with another_session(marked) as session:
        await session.fetchval("select rhythm.start('work')")
        for _ in range(8):
            await marked.start()
            await worker.complete(*await worker.claim(10, 0))
            await marked.pass_time(1)
        await session.execute("rollback")
    await move_on(marked, worker)

    assert [[]] == [
        row["doubtful"] for row in await marked.raw.fetch("select doubtful from rhythm.marks where name_id > 0")
    ]


async def test_what_comes_back_below_the_mark_is_claimed_in_the_order_of_its_age(marked: Bench) -> None:
    await marked.publish("order")
    worker = await marked.worker(TaskRegistration("work", retries=2))
    flow = await marked.start("order")
    failing, delayed, given_back = await marked.start_many(3)
    await worker.commit(suspend(await worker.claim_one(tasks=0), timers=[timer(1, 50)]))
    claims = {claim.id: claim for claim in await worker.claim(10, 0)}
    assert {failing, delayed, given_back} == claims.keys()
    for _ in range(5):
        await marked.start()
        await worker.complete(*await worker.claim(10, 0))
        await marked.pass_time(0.2)
    await worker.exchange(
        task_outcomes=[
            TaskOutcome(claims[id_].token, id_, "failed", ERROR, True, after)
            for id_, after in ((failing, 1.0), (delayed, 2.0))
        ],
        hand_backs=[(claims[given_back].token, given_back)],
    )
    await marked.pass_time(60)
    young = await marked.start()
    await marked.store.maintain(worker.incarnation)
    tasks = [claim.id for claim in await worker.claim(10, 0)]
    flows = [claim.id for claim in await worker.claim(0, 10)]

    assert (await marks(marked))[0] > await seq(marked, given_back)
    assert [failing, delayed, given_back, young] == tasks
    assert [flow] == flows


async def test_priorities_that_appear_later_are_claimed_in_their_order(marked: Bench) -> None:
    worker = await marked.worker("work")
    await drain(marked, worker, 500)
    await drain(marked, worker, 200, priority=5)
    expected = []
    for priority in (-3, 5, 0, 9, 2, 0, 5):
        expected.append((-priority, len(expected), await marked.start(priority=priority)))
    found = []
    for _ in range(4):
        found.extend(claim.id for claim in await worker.claim(2, 0))
        await marked.pass_time(0.2)

    assert {0, 5} <= (await marks(marked)).keys()
    assert [id_ for _, _, id_ in sorted(expected)] == found


async def test_of_two_names_the_older_tasks_come_first(marked: Bench) -> None:
    worker = await marked.worker("work", "other")
    await drain(marked, worker, 300)
    await drain(marked, worker, 300, name="other")
    ids = [await marked.start(name) for name in ("work", "other", "other", "work", "other")]

    assert 2 == await marked.raw.fetchval("select count(*) from rhythm.marks where name_id > 0")
    assert ids[:3] == [claim.id for claim in await worker.claim(3, 0)]
    assert ids[3:] == [claim.id for claim in await worker.claim(3, 0)]


async def test_what_others_have_locked_is_passed_over_for_what_is_left(marked: Bench) -> None:
    worker = await marked.worker("work", "other")
    await drain(marked, worker, 300)
    first = await marked.start_many(5)
    back = await worker.claim(2, 0)
    await worker.exchange(hand_backs=[(claim.token, claim.id) for claim in back])
    rest = [*await marked.start_many(2, "other"), *await marked.start_many(1, priority=-1)]
    async with another_session(marked) as session:
        await session.execute("select from rhythm.ready where id = any($1) for update", first)
        claims = await worker.claim(5, 0)

    assert set(rest) == {claim.id for claim in claims}


async def test_marks_of_another_run_of_the_server_count_no_more(marked: Bench) -> None:
    worker = await marked.worker("work")
    await drain(marked, worker, 300)
    await marked.raw.execute(
        "update rhythm.marks "
        "set ranks = '{0}', seqs = '{1000000}', server_started_at = server_started_at - interval '1 s'"
    )
    id_ = await marked.start()
    claim = await worker.claim_one()
    await marked.pass_time(0.2)
    await move_on(marked, worker)

    assert claim.id == id_
    assert (await marks(marked))[0] <= await seq(marked, id_)


async def test_a_claim_that_reads_from_one_snapshot_notes_nothing(marked: Bench) -> None:
    worker = await marked.worker("work")
    await marked.start()
    async with another_session(marked) as session:
        await session.execute("set transaction isolation level repeatable read")
        queues, names = worker.registered.queues, worker.registered.names
        found = await session.fetchval(f"select o_rows {FIND}", queues["default"], list(names.values()), 10)
        noted = await session.fetchval("select count(*) from rhythm.marks")

    assert (1, 0) == (len(found), noted)


async def test_one_at_a_time_notes_marks_and_nobody_waits_for_it(marked: Bench) -> None:
    worker = await marked.worker("work")
    await marked.start_many(2)
    async with another_session(marked) as session:
        queues, names = worker.registered.queues, worker.registered.names
        await session.fetchval(f"select o_rows {FIND}", queues["default"], list(names.values()), 1)
        async with asyncio.timeout(30):
            await worker.complete(*await worker.claim(10, 0))
        assert not await marked.raw.fetchval("select count(*) from rhythm.marks where name_id > 0")
        await session.execute("rollback")
    await worker.claim(10, 0)

    assert 1 == await marked.raw.fetchval("select count(*) from rhythm.marks where name_id > 0")


async def test_whoever_inserts_is_known_before_it_has_drawn_an_age(bench: Bench) -> None:
    writers = []
    await bench.worker("work")
    async with another_session(bench) as session:
        before = await bench.raw.fetchval("select rhythm.ready_writers()")
        await session.execute(
            "create function public.look() returns trigger language plpgsql as $$ begin "
            "perform pg_notify('look', array_to_string(array(select mode from pg_locks "
            "where pid = pg_backend_pid() and relation = 'rhythm.ready'::regclass), ' ')); return null; end $$"
        )
        await session.execute(
            "create trigger look before insert on rhythm.executions for each statement execute function public.look()"
        )
        await session.add_listener("look", lambda *message: writers.append(message[3]))
        await session.fetchval("select rhythm.start('work')")
        during = await bench.raw.fetchval("select rhythm.ready_writers()")
        await session.execute("commit")
        await session.execute("drop trigger look on rhythm.executions")
        after = await bench.raw.fetchval("select rhythm.ready_writers()")

    assert ([], 1, []) == (before, len(during), after)
    assert "RowExclusiveLock" in writers[0]


# --- who only asks whether there is something -----------------------------------------------------


async def test_a_step_in_place_and_a_sleeper_see_what_stands_above_the_marks(marked: Bench) -> None:
    worker = await marked.worker("work", "other")
    await drain(marked, worker, 300)
    (queue,) = worker.registered.queues.values()
    names = [*worker.registered.names.values(), 0]

    async def asked(*args: object) -> list[bool]:
        return [
            await marked.raw.fetchval("select rhythm.has_ready($1, $2)", [queue], names),
            await marked.raw.fetchval("select rhythm.has_ready($1, null)", [queue]),
        ]

    empty = await asked()
    id_ = await marked.start()
    fresh = await asked()
    claim = await worker.claim_one()
    gone = await asked()
    await worker.exchange(hand_backs=[(claim.token, claim.id)])
    back = await asked()
    await worker.complete(await worker.claim_one())
    unknown = await marked.worker("foreign")
    await marked.start("foreign")
    foreign = await asked()
    await marked.store.unregister_worker(unknown.incarnation)

    assert claim.id == id_
    assert [[False] * 2, [True] * 2, [False] * 2, [True] * 2, [False, True]] == [empty, fresh, gone, back, foreign]
