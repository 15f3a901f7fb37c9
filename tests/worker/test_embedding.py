"""Workers inside an application: on its loop, beside its signal handlers, several at once, and nothing left of them."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvloop

import rhythm
from rhythm.tasks import REGISTRY

FLOW = 'workflow(ctx, inputs) { return [await task("first", {}), await task("second", { n: inputs.n })] }\n'
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def connections(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and application_name like 'rhythm %'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def until_none(url: str) -> None:
    deadline = time.monotonic() + 20
    while connections(url):
        assert time.monotonic() < deadline, "connections are left"
        time.sleep(0.02)


def task(**options: Any) -> Callable[[Callable[..., Any]], rhythm.Task[..., Any]]:
    """As rhythm.task, but known only to whom it is given."""

    def make(function: Callable[..., Any]) -> rhythm.Task[..., Any]:
        made: rhythm.Task[..., Any] = rhythm.task(**options)(function)
        REGISTRY.remove(made.name)
        return made

    return make


def tasks_of_two() -> tuple[rhythm.Task[..., Any], rhythm.Task[..., Any]]:
    @task(queue="one")
    async def first() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    @task(queue="two")
    def second(n: int) -> int:
        return n + 1

    return first, second


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS.keys())
def test_two_workers_share_a_process_and_leave_nothing(
    rhythm_url: str, tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    first, second = tasks_of_two()
    (tmp_path / "both.flow").write_text(FLOW)

    async def application() -> Any:
        async with rhythm.connect(rhythm_url) as client:
            await client.publish(tmp_path)
            async with (
                rhythm.Worker(database_url=rhythm_url, tasks=[first], queues=["one", "default"]) as one,
                rhythm.Worker(database_url=rhythm_url, tasks=[second], workflows=False) as two,
            ):
                assert (one.health(), two.health()) == (None, None)
                assert len(await client.store.workers()) == 2
                execution = await client.start("both", {"n": 1})
                output = await execution.result(timeout=30)
            assert await client.store.workers() == []
            assert list(await client.store.breaches()) == []
        assert [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}] == []
        return output

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
    before = set(threading.enumerate())
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(application()) == ["MainThread", 2]

    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert set(threading.enumerate()) == before
    until_none(rhythm_url)


async def test_leaving_the_block_drains(rhythm_url: str) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    @task()
    async def slow() -> str:
        begun.set()
        await release.wait()
        return "ended"

    async with rhythm.connect(rhythm_url) as client:
        async with rhythm.Worker(database_url=rhythm_url, tasks=[slow]) as worker:
            execution = await client.start("slow")
            await begun.wait()
            stopping = asyncio.create_task(worker.stop())
            waiting = await client.start("slow")
            release.set()
        await stopping

        assert await execution.result(timeout=5) == "ended"
        assert (await waiting.refresh()).attempts == 0


async def test_an_error_of_the_application_drains_as_well_and_comes_through(rhythm_url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with rhythm.Worker(database_url=rhythm_url, tasks=[]):
            raise ZeroDivisionError
    async with rhythm.connect(rhythm_url) as client:
        assert await client.store.workers() == []


async def test_a_cancelled_application_lets_go_at_once(rhythm_url: str) -> None:
    begun = asyncio.Event()

    @task()
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def application() -> None:
        async with rhythm.Worker(database_url=rhythm_url, tasks=[endless]):
            await begun.wait()

    async with rhythm.connect(rhythm_url) as client:
        execution = await client.start("endless")
        running = asyncio.create_task(application())
        await begun.wait()
        while not running.cancelling():  # the block's end waits for the drain, until it is cancelled too
            await asyncio.sleep(0.01)
            running.cancel()
        async with asyncio.timeout(20):
            await asyncio.gather(running, return_exceptions=True)
        info = await execution.refresh()

        assert (info.status, info.attempts) == ("pending", 0)
        assert await client.store.workers() == []


async def test_a_database_that_is_not_there_is_said_on_entering() -> None:
    with pytest.raises(rhythm.DatabaseUnavailable):
        async with rhythm.Worker(database_url="postgresql://nobody@127.0.0.1:1/none", tasks=[]):
            raise AssertionError("not entered")
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_mistakes_in_its_use_are_said(rhythm_url: str) -> None:
    with pytest.raises(rhythm.ConfigurationError, match=r"the argument queus sets 'queus'.*did you mean 'queues'"):
        rhythm.Worker(database_url=rhythm_url, queus=["a"])
    worker = rhythm.Worker(database_url=rhythm_url, tasks=[])
    assert worker.health() == "not registered with the database yet"
    async with worker:
        pass
    assert worker.health() == "ended"
    with pytest.raises(rhythm.RhythmError, match="runs once"):
        async with worker:
            pass
