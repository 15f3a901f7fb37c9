"""The client against a real database: starts, keys, waiting, listing."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm.client.starts import new_execution

SOURCE = "workflow(ctx, inputs) { return inputs }"


async def test_a_start_is_pending_and_can_be_asked_about(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        execution = await client.start("add", {"a": 1}, priority=5, tags={"customer": "c1"}, queue="orders")
        info = await execution.refresh()

        assert (execution.status, execution.name, execution.inputs) == ("pending", "add", {"a": 1})
        assert (info.priority, info.queue, info.tags) == (5, "orders", {"customer": "c1"})
        assert [found.id for found in await client.list(tags={"customer": "c1"})] == [execution.id]
        assert await client.list(tags={"customer": "c2"}) == []


async def test_many_starts_at_once_travel_together_and_keep_their_ids(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        executions = await asyncio.gather(*[client.start("add", {"a": i}) for i in range(300)])

        assert len({execution.id for execution in executions}) == 300
        assert len(await client.list(name="add", limit=1000)) == 300


async def test_start_many_keeps_the_order(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        ids = await client.start_many([rhythm.Start("add", {"i": i}) for i in range(2500)])

        assert len(ids) == 2500
        for i in (0, 999, 1000, 2499):
            assert (await client.get(ids[i])).inputs == {"i": i}


async def test_a_key_starts_once(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        first = await client.start("add", {"a": 1}, key="k1")
        again = await client.start("add", {"a": 1}, key="k1")
        with pytest.raises(rhythm.StartRefused) as refused:
            await client.start("add", {"a": 2}, key="k1")

        assert first.id == again.id
        assert refused.value.code == "key_conflict"


async def test_one_refused_start_harms_no_other(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        await client.start("add", {"a": 1}, key="k1")
        starts: list[Any] = [client.start("add", {"a": i}) for i in range(20)]
        starts.insert(10, client.start("add", {"a": 2}, key="k1"))
        results = await asyncio.gather(*starts, return_exceptions=True)

        assert [isinstance(result, rhythm.StartRefused) for result in results] == [i == 10 for i in range(21)]


async def test_the_same_id_again_is_the_same_execution(rhythm_url: str) -> None:
    wanted = uuid.uuid4()
    async with rhythm.connect(rhythm_url) as client:
        for _ in range(2):
            assert (await client.start("add", {}, id=wanted)).id == wanted

        assert len(await client.list()) == 1


async def test_delayed_starts_say_when(rhythm_url: str, tmp_path: Path) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    (tmp_path / "add.flow").write_text(SOURCE)
    async with rhythm.connect(rhythm_url) as client:
        await client.publish(tmp_path)
        by_delay = (await client.start("add", {}, delay="30m")).id
        by_time = (await client.start("add", {}, at=moment)).id

        for execution_id in (by_delay, by_time):
            info = (await client.get(execution_id)).info
            assert info is not None
            assert info.status == "pending"
            assert info.available_at is not None
        assert info.available_at == moment


async def test_waiting_ends_by_its_timeout_or_for_an_unknown_id(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        execution = await client.start("add", {})
        with pytest.raises(rhythm.WaitTimeout, match="carries on"):
            await execution.result(timeout="50ms")
        with pytest.raises(rhythm.ExecutionNotFound):
            await client.wait(uuid.uuid4(), timeout=5)
        with pytest.raises(rhythm.InvalidInput, match="not an execution id"):
            await client.get("nonsense")


async def test_a_wait_with_hardly_any_time_still_sees_an_outcome_that_is_there(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        execution = await client.start("add", {"a": 1})
        await execution.cancel()

        for timeout in (0, "1ms"):
            with pytest.raises(rhythm.ExecutionCancelled):
                await client.execution(execution.id).result(timeout=timeout)
        with pytest.raises(rhythm.ExecutionNotFound):
            await client.wait(uuid.uuid4(), timeout=0)


async def test_publishing_says_what_changed_and_refuses_as_a_whole(rhythm_url: str, tmp_path: Path) -> None:
    (tmp_path / "good.flow").write_text(SOURCE)
    async with rhythm.connect(rhythm_url) as client:
        (first,) = await client.publish(tmp_path)
        (second,) = await client.publish(tmp_path)
        (tmp_path / "other.flow").write_text(SOURCE)
        (tmp_path / "bad.flow").write_text("workflow(ctx) { return taks() }")
        with pytest.raises(rhythm.CompileError) as refused:
            await client.publish(tmp_path)

        assert (first.changed, second.changed) == (True, False)
        assert [d.code for d in refused.value.diagnostics] == ["F301"]
        assert await client.store.current_definition("other") is None


async def test_signals_to_unknown_executions_and_to_tasks_are_refused(rhythm_url: str) -> None:
    async with rhythm.connect(rhythm_url) as client:
        with pytest.raises(rhythm.ExecutionNotFound):
            await client.signal(uuid.uuid4(), "go")
        with pytest.raises(rhythm.InvalidInput, match="name of a signal"):
            await client.signal(uuid.uuid4(), "")


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 101},
        {"priority": True},
        {"key": ""},
        {"key": "a\0b"},
        {"key_policy": "guess"},
        {"queue": ""},
        {"retries": -1},
        {"timeout": 0},
        {"delay": "soon"},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001  (the missing time zone is what is refused)
        {"delay": 1, "at": datetime.now(UTC)},
        {"tags": {"a": "\0"}},
        {"tags": [1]},
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    with pytest.raises(rhythm.InvalidInput):
        new_execution(rhythm.Start("add", {}, **options))


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800"])
def test_names_that_cannot_be_stored_are_refused(name: str) -> None:
    with pytest.raises(rhythm.InvalidInput):
        new_execution(rhythm.Start(name, {}))


async def test_a_closed_client_says_so() -> None:
    client = rhythm.connect("postgresql://nobody@localhost:1/none")

    with pytest.raises(rhythm.RhythmError, match="not open"):
        await client.start("add")
