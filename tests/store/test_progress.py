"""The progress of running tasks: of who holds them, the newest counts, deleted with the execution."""

from __future__ import annotations

import uuid

from rhythm.model import new_id
from tests.store.bench import Bench


async def progress(bench: Bench, *ids: uuid.UUID) -> list[bytes | None]:
    return [info.progress for i in ids if (info := await bench.store.get(i)) is not None]


async def test_the_newest_progress_counts_with_its_time_and_stays_when_the_task_has_ended(bench: Bench) -> None:
    worker = await bench.worker("work")
    for _ in range(3):
        await bench.start("work")
    first, second, third = await worker.claim(3)  # one batch
    await bench.store.note_progress(worker.incarnation, {first.id: b"1", second.id: b'{"done":2}'})
    await bench.pass_time(5)
    await bench.store.note_progress(worker.incarnation, {first.id: b"3"})
    info = await bench.store.get(first.id)
    await worker.complete(first)

    assert info is not None
    assert (b"3", bench.now) == (info.progress, info.progress_at)
    assert [b"3", b'{"done":2}', None] == await progress(bench, first.id, second.id, third.id)
    assert [] == list(await bench.store.breaches())


async def test_who_does_not_hold_an_execution_says_nothing_of_it(bench: Bench) -> None:
    worker, other = await bench.worker("work"), await bench.worker("work")
    await bench.start("work")
    claim = await worker.claim_one()
    await bench.store.note_progress(other.incarnation, {claim.id: b"1", new_id(): b"2"})
    await worker.complete(claim)
    await bench.store.note_progress(worker.incarnation, {claim.id: b"3"})

    assert [None] == await progress(bench, claim.id)
    assert 0 == await bench.raw.fetchval("select count(*) from rhythm.progress")


async def test_progress_goes_with_its_execution(bench: Bench) -> None:
    worker = await bench.worker("work")
    await bench.start("work")
    claim = await worker.claim_one()
    await bench.store.note_progress(worker.incarnation, {claim.id: b"1"})
    await worker.complete(claim)
    await bench.pass_time(3600)
    await bench.store.maintain(worker.incarnation, retention_seconds=60, key_window_seconds=60)

    assert await bench.store.get(claim.id) is None
    assert 0 == await bench.raw.fetchval("select count(*) from rhythm.progress")
