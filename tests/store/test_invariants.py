"""The checker of the invariants finds what it is for: each kind of damage, done by hand."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from rhythm.testing import invariants
from tests.store.bench import Bench, Worker, child, end, suspend, timer

DAMAGE = [
    ("I1", "delete from rhythm.ready"),
    ("I1", "delete from rhythm.timers"),
    ("I1", "update rhythm.waits set outstanding = 0 where suspended"),
    ("I1", "update rhythm.waits set next_number = next_number + 1 where suspended"),
    ("I1", "delete from rhythm.waits"),
    ("I1", "update rhythm.snapshots set version = version + 1"),
    ("I2", "update rhythm.executions set operation = 1"),
    ("I2", "delete from rhythm.deliveries where kind <> 4"),
    ("I2", "update rhythm.deliveries set child_id = gen_random_uuid() where child_id is not null"),
    ("I3", "insert into rhythm.later select id, now(), 1, 1, 1, 0, 0, 0, 0, 1 from rhythm.outcomes limit 1"),
    (
        "I3",
        "insert into rhythm.outcomes select id, null, now(), 1, 0, 1, null, null, '\\x0131' from rhythm.ready limit 1",
    ),
    ("I3", "insert into rhythm.ready values (1, 0, 0, 0, -1, 0, 0, gen_random_uuid())"),
    ("I3", "update rhythm.ready set priority_rank = 7"),
    ("I3", "update rhythm.outcomes set lost = 9"),
    ("I4", "insert into rhythm.timers values (gen_random_uuid(), 1, now())"),
    ("I4", "insert into rhythm.snapshots values (gen_random_uuid(), 1, 1, now(), null, '', '\\x015b5d', '')"),
    ("I5", "update rhythm.waits set unread_signals = 5"),
    ("I5", "update rhythm.waits set unread_signals = 0"),
    ("I6", "insert into rhythm.timers select id, operation, now() from rhythm.deliveries where kind = 3"),
    (
        "I6",
        "insert into rhythm.deliveries select id, number + 9, kind, operation from rhythm.deliveries where kind = 3",
    ),
]


async def populate(bench: Bench) -> None:
    """Something of everything, unharmed."""
    await bench.publish("order")
    worker = await bench.worker("work")
    ids = await bench.start_many(4, "order")
    claims = {c.id: c for c in await worker.claim()}
    first, second, third, fourth = (claims[id_] for id_ in ids)
    await worker.commit(
        suspend(first, children=[child(1), child(2)]),
        suspend(second, timers=[timer(1, 5), timer(2, 1e6)]),
        suspend(third, timers=[timer(1, 1e6)]),
        end(fourth),
    )
    tasks: list[object] = [await claim_and_complete(worker) for _ in range(2)]
    await bench.pass_time(5)
    await bench.store.maintain(worker.incarnation)
    await bench.signal(second.id)
    await bench.start("work", kind="task")
    assert len(tasks) == 2


async def claim_and_complete(worker: Worker) -> None:
    await worker.complete(await worker.claim_one(tasks=1, workflows=0))


@pytest.mark.parametrize(("invariant", "damage"), DAMAGE, ids=range(len(DAMAGE)))
async def test_each_kind_of_damage_is_found(rhythm_url: str, invariant: str, damage: str) -> None:
    async with Bench.on(rhythm_url) as bench:
        await populate(bench)
        before = await bench.store.breaches()
        await bench.raw.execute(damage)
        after = await bench.store.breaches()

    assert [] == before
    assert invariant in {found for found, _, _ in after}


def test_the_command_prints_the_number_of_breaches(rhythm_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def break_something() -> uuid.UUID:
        async with Bench.on(rhythm_url) as bench:
            id_ = await bench.start()
            await bench.raw.execute("delete from rhythm.later")
            return id_

    whole = invariants.main(["--database-url", rhythm_url])
    first = capsys.readouterr()
    id_ = asyncio.run(break_something())
    broken = invariants.main(["--database-url", rhythm_url])
    second = capsys.readouterr()

    assert (0, "0\n") == (whole, first.out)
    assert (1, "1\n") == (broken, second.out)
    assert f"I1 execution {id_} stands nowhere\n" == second.err


def test_the_command_says_when_there_is_nothing_to_check(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 3 == invariants.main(["--database-url", postgres_url])
    assert "rhythm migrate" in capsys.readouterr().err
