"""What must never happen inside a worker happens nevertheless: it says so and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rhythm
from rhythm.errors import DatabaseUnavailable
from rhythm.store import Store
from rhythm.store.connection import Backoff
from rhythm.tasks import REGISTRY, Task
from rhythm.worker import activations, incarnation, runner

ERRORS: dict[str, type[BaseException]] = {
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
}


@contextlib.asynccontextmanager
async def running(url: str, tasks: Iterable[Task[..., Any]] = (), **options: Any) -> AsyncIterator[rhythm.Worker]:
    """A worker in this process; it must still be running at the end."""
    worker = rhythm.Worker(database_url=url, tasks=tasks, heartbeat_timeout="2s", poll_interval="100ms", **options)
    life = asyncio.create_task(worker.run())
    try:
        yield worker
        assert not life.done()
    finally:
        await worker.stop()
        await life


def failing(times: int, error: BaseException, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but raising the error the first few times."""
    left = times

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise error
        return function(*arguments, **options)

    return call


@pytest.fixture
def tasks() -> Iterator[dict[str, Task[..., Any]]]:
    before = REGISTRY.as_dict()

    @rhythm.task(retries=1, retry=rhythm.Retry(initial="1ms"))
    async def plain(error: str) -> None:
        raise ERRORS[error]

    @rhythm.task(retries=1, retry=rhythm.Retry(initial="1ms"))
    async def awaited(error: str) -> None:
        await asyncio.sleep(0)
        raise ERRORS[error]

    @rhythm.task(retries=1, retry=rhythm.Retry(initial="1ms"))
    def threaded(error: str) -> None:
        raise ERRORS[error]

    @rhythm.task
    async def double(i: int) -> int:
        return 2 * i

    @rhythm.task
    def threadedDouble(i: int) -> int:
        return 2 * i

    yield {name: task for name, task in REGISTRY.as_dict().items() if name not in before}
    for name in REGISTRY.as_dict().keys() - before.keys():
        REGISTRY.remove(name)


@pytest.mark.parametrize("kind", ["plain", "awaited", "threaded"])
async def test_what_a_task_raises_is_its_own_failure_whatever_it_is(
    rhythm_url: str, tasks: dict[str, Task[..., Any]], kind: str
) -> None:
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, tasks.values()):
        executions = {name: await client.start(kind, {"error": name}) for name in ERRORS}
        for name, execution in executions.items():
            with pytest.raises(rhythm.ExecutionFailed) as failed:
                await execution.result(timeout=20)

            assert (failed.value.name, failed.value.type) == (name, "failed")
            assert f"raised {name}" in failed.value.remote_message
            assert (await execution.refresh()).attempts == 2  # retried by its policy, as any failure
        assert await (await client.start("double", {"i": 2})).result(timeout=20) == 4


async def test_the_heartbeat_survives_whatever_a_beat_raises(rhythm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = threading.Semaphore(0)
    beat = Store.heartbeat

    async def counted(store: Store, incarnation: Any) -> Any:
        answer = await beat(store, incarnation)
        beats.release()
        return answer

    monkeypatch.setattr(Store, "heartbeat", failing(2, MemoryError("no room for a beat"), counted))
    async with running(rhythm_url) as worker:
        before = worker.incarnation
        for _ in range(2):
            assert await asyncio.to_thread(beats.acquire, timeout=10)

        assert before == worker.incarnation


async def test_maintenance_survives_whatever_a_run_raises(
    rhythm_url: str, tasks: dict[str, Task[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "maintain", failing(2, ValueError("not today"), Store.maintain))
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, tasks.values()):
        execution = await client.start("double", {"i": 3}, delay="10ms")

        assert await execution.result(timeout=20) == 6


@pytest.mark.parametrize("place", ["commit_of", "activate"])
async def test_an_unexpected_error_in_an_activation_fails_that_execution_alone(
    rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    original = getattr(activations, place)
    monkeypatch.setattr(activations, place, failing(1, MemoryError("no room for a heap"), original))
    (tmp_path / "one.flow").write_text("workflow(ctx, inputs) { return inputs.n }")
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url):
        await client.publish(tmp_path)
        first = await client.start("one", {"n": 1})
        with pytest.raises(rhythm.ExecutionFailed, match="no room for a heap") as failed:
            await first.result(timeout=20)
        second = await client.start("one", {"n": 2})

        assert failed.value.name == "EngineError"
        assert await second.result(timeout=20) == 2


async def test_a_worker_whose_activation_thread_ends_begins_anew(
    rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = activations.Activations._run
    monkeypatch.setattr(activations.Activations, "_run", failing(1, SystemExit("the thread ends"), run))
    (tmp_path / "one.flow").write_text("workflow(ctx, inputs) { return inputs.n }")
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url) as worker:
        before = worker.incarnation
        await client.publish(tmp_path)
        execution = await client.start("one", {"n": 1})

        assert await execution.result(timeout=20) == 1
        assert before != worker.incarnation
        assert (await execution.refresh()).lost == 1


async def test_a_worker_whose_thread_for_tasks_ends_begins_anew(
    rhythm_url: str, tasks: dict[str, Task[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_call_soon", failing(1, MemoryError("no room for an answer"), runner._call_soon))
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url, tasks.values()) as worker:
        before = worker.incarnation
        execution = await client.start("threadedDouble", {"i": 4})

        assert await execution.result(timeout=20) == 8
        assert before != worker.incarnation


async def test_a_definition_that_cannot_be_read_fails_its_execution_and_no_other(
    rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnation, "Backoff", lambda: Backoff(first_seconds=0.001))
    (tmp_path / "one.flow").write_text("workflow(ctx, inputs) { return inputs.n }")
    (tmp_path / "two.flow").write_text("workflow(ctx, inputs) { return inputs.n + 1 }")
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url):
        await client.publish(tmp_path)
        unread = failing(incarnation.FETCHES_MAX, ValueError("not what it was"), Store.definition)
        monkeypatch.setattr(Store, "definition", unread)
        first = await client.start("one", {"n": 1})
        with pytest.raises(rhythm.ExecutionFailed, match="cannot be read: ValueError: not what it was") as failed:
            await first.result(timeout=20)
        second = await client.start("two", {"n": 1})

        assert failed.value.name == "DefinitionUnreadable"
        assert await second.result(timeout=20) == 2
        await client.retry(first.id)  # it is read again
        assert await first.result(timeout=20) == 1


async def test_a_definition_is_read_however_often_that_fails_at_first(
    rhythm_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnation, "Backoff", lambda: Backoff(first_seconds=0.001, max_seconds=0.002))
    away = failing(20, DatabaseUnavailable("away"), Store.definition)
    monkeypatch.setattr(Store, "definition", failing(incarnation.FETCHES_MAX - 1, ValueError("odd"), away))
    (tmp_path / "one.flow").write_text("workflow(ctx, inputs) { return inputs.n }")
    async with rhythm.connect(rhythm_url) as client, running(rhythm_url):
        await client.publish(tmp_path)

        assert await (await client.start("one", {"n": 1})).result(timeout=20) == 1
