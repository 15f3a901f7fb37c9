"""Connections: what happens when the database is not there, goes away, or is busy."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import asyncpg
import pytest

from rhythm.errors import DatabaseUnavailable, InvalidInput
from rhythm.store import Store, Wakeups
from rhythm.store import connection as connection_module
from rhythm.store.connection import Backoff, mask_url
from rhythm.store.wakeups import CHANNEL
from tests.store.bench import Bench, Worker, new_execution


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:1/db", "postgresql://me:***@host:1/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql:///db?host=/tmp/x&password=secret", "postgresql:///db?host=/tmp/x&password=***"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://[bad", "(a URL that cannot be read)"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert shown == mask_url(url)


async def test_a_database_that_is_not_there_is_named_without_the_password(unused_tcp_port: int) -> None:
    url = f"postgresql://me:hunter2@127.0.0.1:{unused_tcp_port}/db"
    with pytest.raises(DatabaseUnavailable) as caught:
        await Store.connect(url)
    text = str(caught.value)

    assert f"127.0.0.1:{unused_tcp_port}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql://host:port/db", "host"])
async def test_a_url_that_is_none_is_wrong_input(url: str) -> None:
    with pytest.raises(InvalidInput):
        await Store.connect(url)


async def test_connecting_that_is_cancelled_leaves_no_connection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[asyncpg.Connection] = []
    checking = asyncio.Event()

    async def stays(connection: asyncpg.Connection, url: str) -> None:
        opened.append(connection)
        checking.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(connection_module, "_warn_of_pooler", stays)
    connecting = asyncio.create_task(Store.connect(bench.store.url))
    await checking.wait()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)

    assert [True] == [connection.is_closed() for connection in opened]


async def test_a_lost_connection_is_an_error_once_and_then_replaced(bench: Bench) -> None:
    await bench.start()
    pids = "select pid from pg_stat_activity where query = 'select pg_sleep(60)' and datname = current_database()"
    blocked = asyncio.create_task(bench.store._database.execute("select pg_sleep(60)"))
    while not await bench.raw.fetchval(pids):  # noqa: ASYNC110 - the database has no event to wait for
        await asyncio.sleep(0)
    await bench.raw.execute(f"select pg_terminate_backend(pid) from ({pids}) p")
    with pytest.raises(DatabaseUnavailable):
        await blocked

    assert "pending" == (await bench.store.list())[0].status


async def test_a_call_that_takes_too_long_ends_and_the_pool_lives_on(bench: Bench) -> None:
    store = await Store.connect(bench.store.url, pool_max=1, timeout=0.2)
    with pytest.raises(DatabaseUnavailable, match="in time"):
        await store._database.execute("select pg_sleep(60)")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store._database.execute("select pg_sleep(60)")
    found = await store.queues()
    await store.close()

    assert ["default"] == [queue.queue for queue in found]


async def test_more_callers_than_connections_take_turns(bench: Bench) -> None:
    store = await Store.connect(bench.store.url, pool_max=2)
    results = await asyncio.gather(*(store.start([new_execution()]) for _ in range(50)))
    waiting = asyncio.create_task(store._database.execute("select 1"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    connections = await bench.raw.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'rhythm'"
    )
    await store.close()
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await store.queues()

    assert 50 == len(results)
    assert connections <= 3


async def test_deadlocks_are_repeated_not_reported(bench: Bench) -> None:
    await bench.raw.execute(
        "create sequence tries; create function fail_twice() returns bigint language plpgsql as $$ begin "
        "if nextval('tries') < 3 then raise exception 'x' using errcode = '40P01'; end if; return lastval(); end $$"
    )

    assert 3 == await bench.store._database.fetchval("select fail_twice()")


def test_backoff_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(1.0, 4.0)
    first = [backoff.next_seconds() for _ in range(5)]
    backoff.reset()

    assert all(low / 2 <= found <= low for low, found in zip([1, 2, 4, 4, 4], first, strict=True))
    assert backoff.next_seconds() <= 1


# Wake-ups


class Hints:
    """Counts hints."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        self.event.set()

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self.event.wait()
        self.event.clear()


async def idle(worker: Worker) -> None:
    first = await worker.exchange(task_limit=1, workflow_limit=1, idle=True)
    second = await worker.exchange(task_limit=1, workflow_limit=1, idle=True)
    assert (True, False) == (first.check_again, second.check_again)


async def test_a_sleeping_worker_is_woken_by_starts_signals_and_due_times(bench: Bench) -> None:
    await bench.publish("order")
    worker = await bench.worker("work")
    hints = Hints()
    async with Wakeups(bench.store.url, worker.incarnation, hints):
        await hints.next()
        await idle(worker)
        await bench.start()
        await hints.next()
        await worker.claim_one()
        await idle(worker)
        id_ = await bench.start("order", delay_seconds=5)
        await bench.pass_time(5)
        await bench.store.maintain(worker.incarnation)
        await hints.next()
        await idle_after_claim(worker)
        await bench.signal(id_)
        await hints.next()


async def idle_after_claim(worker: Worker) -> None:
    from tests.store.bench import suspend

    await worker.commit(suspend(await worker.claim_one()))
    await idle(worker)


async def overhear(bench: Bench, *workers: Worker) -> list[uuid.UUID]:
    """Whom of these the database tells of work, from now on, in order."""
    heard: list[uuid.UUID] = []
    for worker in workers:
        channel = f"{CHANNEL}{worker.incarnation}"
        await bench.raw.add_listener(channel, lambda *_, told=worker.incarnation: heard.append(told))
    return heard


async def test_only_those_that_are_told_are_woken(bench: Bench) -> None:
    workers = [await bench.worker("work") for _ in range(5)]
    hints = [Hints() for _ in workers]
    async with contextlib.AsyncExitStack() as stack:
        for worker, hint in zip(workers, hints, strict=True):
            await stack.enter_async_context(Wakeups(bench.store.url, worker.incarnation, hint))
            await hint.next()
            await idle(worker)
        await bench.start()
        await hints[4].next()
        await hints[3].next()
        # What is told later comes later, also to those that were passed over.
        for worker, hint in zip(workers[:3], hints[:3], strict=True):
            assert not hint.event.is_set()
            await bench.raw.execute(f'notify "{CHANNEL}{worker.incarnation}"')
            await hint.next()
            assert hint.count == 2


async def test_nobody_is_notified_while_nobody_sleeps(bench: Bench) -> None:
    worker = await bench.worker("work")
    heard = await overhear(bench, worker)
    await bench.start()
    await worker.claim_one()
    await bench.start(queue="another")
    await idle(worker)
    await bench.start(queue="another")
    await bench.raw.execute("select 1")
    silent = list(heard)
    await bench.start()
    await bench.raw.execute("select 1")

    assert [] == silent
    assert 1 == len(heard)


async def test_who_died_asleep_is_told_after_those_who_have_worked_since(bench: Bench) -> None:
    dead = [await bench.worker("work") for _ in range(5)]
    for worker in dead:
        await idle(worker)
    alive = await bench.worker("work")
    await idle(alive)
    last_dead = await bench.worker("work")
    await idle(last_dead)
    heard = await overhear(bench, *dead, alive, last_dead)
    await bench.start()
    await alive.complete(await alive.claim_one())
    await idle(alive)
    for _ in range(10):
        await bench.start()
    await bench.raw.execute("select 1")

    assert 22 == len(heard)
    told = [set(heard[n : n + 2]) for n in range(0, 22, 2)]  # two by each start
    assert [2] * 11 == [len(two) for two in told]
    assert last_dead.incarnation in told[0]
    assert all(alive.incarnation in two for two in told[1:])


async def test_a_start_in_hundreds_of_queues_tells_two_hundred_workers_at_most(bench: Bench) -> None:
    queues = [f"q{n}" for n in range(300)]
    workers = [await bench.worker("work", queues=[queue]) for queue in queues]
    for worker in workers:
        await idle(worker)
    heard = await overhear(bench, *workers)
    await bench.store.start([new_execution(queue=queue) for queue in queues])
    await bench.raw.execute("select 1")

    assert (200, 200) == (len(heard), len(set(heard)))


async def test_the_listener_comes_back_after_its_connection_was_lost(bench: Bench) -> None:
    hints = Hints()
    async with Wakeups(bench.store.url, uuid.uuid4(), hints) as wakeups:
        await hints.next()
        await bench.raw.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rhythm listen' "
            "and datname = current_database()"
        )
        await hints.next()
        connected = wakeups.connected.is_set()

    assert connected


async def test_the_listener_does_not_need_the_database_to_begin(unused_tcp_port: int) -> None:
    async with Wakeups(f"postgresql://u@127.0.0.1:{unused_tcp_port}/x", uuid.uuid4(), Hints()) as wakeups:
        assert not wakeups.connected.is_set()
