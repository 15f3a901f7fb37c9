"""Large snapshots between workers: stored compressed, read by the next worker, refused where they are not sound."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import rhythm
from rhythm.errors import SnapshotError
from rhythm.model import SNAPSHOT_BYTES_MAX
from rhythm.store.codec import ZLIB_CODEC, unpack_snapshot
from tests.store.bench import Bench

KEEPS = """
workflow(ctx, inputs) {
  const rows = Array.from({ length: 2000 }, (_, i) => ({ id: i, name: "row " + i }))
  const first = await signal("go")
  const second = await signal("go")
  return [rows.length, rows[1999], first, second]
}
"""


@pytest.fixture
async def bench(rhythm_url: str) -> AsyncIterator[Bench]:
    async with Bench.on(rhythm_url) as bench:
        await bench.raw.execute("update rhythm.clock set frozen_at = null")
        yield bench
        assert [] == await bench.store.breaches()


async def run_until_suspended(bench: Bench, version: int) -> None:
    """Runs a worker of its own until the workflow has been suspended so many times."""
    async with rhythm.Worker(database_url=bench.store.url, tasks=[], poll_interval="100ms"), asyncio.timeout(30):
        while await bench.raw.fetchval("select version from rhythm.waits where suspended") != version:  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("plain", [False, True], ids=["compressed", "as stored by earlier releases"])
async def test_one_worker_reads_what_another_has_written(bench: Bench, tmp_path: Path, plain: bool) -> None:
    (tmp_path / "keeps.flow").write_text(KEEPS)
    async with rhythm.connect(bench.store.url) as client:
        await client.publish(tmp_path)
        execution = await client.start("keeps")
        await run_until_suspended(bench, 1)
        stored = await bench.raw.fetchval("select snapshot from rhythm.snapshots")
        size = await bench.raw.fetchval("select size from rhythm.waits")
        snapshot = await client.store.snapshot(execution.id)
        if plain:
            await bench.raw.execute("update rhythm.snapshots set snapshot = $1", unpack_snapshot(stored))
        await execution.signal("go", 1)
        await run_until_suspended(bench, 2)
        await execution.signal("go", 2)
        async with rhythm.Worker(database_url=bench.store.url, tasks=[], poll_interval="100ms"):
            output = await execution.result(timeout=30)

    assert [2000, {"id": 1999, "name": "row 1999"}, 1, 2] == output
    assert stored.startswith(ZLIB_CODEC)
    assert size == len(stored) < 20_000
    assert snapshot is not None
    assert snapshot.snapshot == unpack_snapshot(stored)
    assert len(snapshot.snapshot) > 50_000


async def test_a_stored_snapshot_that_is_not_sound_fails_its_execution_and_no_other(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "keeps.flow").write_text(KEEPS)
    bomb = ZLIB_CODEC + zlib.compress(bytes(SNAPSHOT_BYTES_MAX + 1), 1)
    damage = {
        "over the limit of|more than the limit of": bomb,
        "damaged": ZLIB_CODEC + b"\x78\x9c?",
        "in form 04": b"\x04",
    }
    async with rhythm.connect(bench.store.url) as client:
        await client.publish(tmp_path)
        executions = {why: await client.start("keeps") for why in damage}
        sound = await client.start("keeps")
        async with rhythm.Worker(database_url=bench.store.url, tasks=[], poll_interval="100ms"), asyncio.timeout(30):
            while await bench.count("waits where suspended") < 4:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        for why, execution in executions.items():
            await bench.raw.execute(
                "update rhythm.snapshots set snapshot = $1 where id = $2", damage[why], execution.id
            )
            with pytest.raises(SnapshotError, match=why):
                await client.store.snapshot(execution.id)
        async with rhythm.Worker(database_url=bench.store.url, tasks=[], poll_interval="100ms"):
            for execution in [*executions.values(), sound, sound]:
                await execution.signal("go", 1)
            for why, execution in executions.items():
                with pytest.raises(rhythm.ExecutionFailed, match=why) as caught:
                    await execution.result(timeout=30)
                assert "SnapshotError" == caught.value.name
            output = await sound.result(timeout=30)
        kept = await bench.count("snapshots")

    assert [2000, {"id": 1999, "name": "row 1999"}, 1, 1] == output
    assert 3 == kept


async def test_workers_of_an_earlier_release_can_read_what_is_stored_while_they_live(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "keeps.flow").write_text(KEEPS)
    old = await bench.worker("work")
    await bench.raw.execute("update rhythm.migrations set applied_at = clock_timestamp() where version = 2")
    async with rhythm.connect(bench.store.url) as client:
        await client.publish(tmp_path)
        execution = await client.start("keeps")
        await run_until_suspended(bench, 1)
        beside_it = await bench.raw.fetchval("select snapshot from rhythm.snapshots")
        await bench.store.unregister_worker(old.incarnation)
        await execution.signal("go", 1)
        await run_until_suspended(bench, 2)
        after_it = await bench.raw.fetchval("select snapshot from rhythm.snapshots")

    assert beside_it == unpack_snapshot(beside_it)
    assert after_it.startswith(ZLIB_CODEC)
