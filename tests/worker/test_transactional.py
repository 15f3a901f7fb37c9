"""Transactional tasks: their writes are committed with their outcome, once, or not at all.

The entries table has no key: nothing but the transaction keeps an entry from being there twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import pytest_asyncio

import rhythm
from rhythm import faults
from rhythm.store import transactions
from rhythm.tasks import REGISTRY, Task
from rhythm.worker.transactional import LOSSES_MAX, TRANSACTIONS_MAX
from tests.support.proxy import Proxy

DEADLINE_SECONDS = 30.0
KINDS = ("asynchronous", "blocking")
SCHEMA = """
create table entries (mark text not null);
create table accounts (id int primary key);
insert into accounts values (1);
create table owed (account int references accounts deferrable initially deferred)
"""


class Bank:
    """A worker in this process with transactional tasks of both kinds, which do as they are told."""

    def __init__(self, url: str, client: rhythm.Client, raw: asyncpg.Connection, tasks: list[Task[..., Any]]) -> None:
        self.url = url
        self.client = client
        self.raw = raw
        self.tasks = tasks
        self.sizes: list[int] = []

    @contextlib.asynccontextmanager
    async def worker(self, **options: Any) -> AsyncIterator[rhythm.Worker]:
        worker = rhythm.Worker(
            tasks=self.tasks,
            **{"database_url": self.url, "poll_interval": "100ms", "heartbeat_timeout": "5s", **options},
        )
        life = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await worker.stop()
            await life

    async def start(self, kind: str, what: str, **options: Any) -> rhythm.Execution[Any]:
        return await self.client.start(kind, {"mark": what}, **options)

    async def entries(self) -> list[str]:
        return [row["mark"] for row in await self.raw.fetch("select mark from entries order by mark")]

    async def until(self, query: str, *arguments: Any) -> Any:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (found := await self.raw.fetchval(query, *arguments)):
            assert time.monotonic() < deadline, query
            await asyncio.sleep(0.01)
        return found

    async def in_transaction(self, other_than: int = 0) -> int:
        """Returns the server process of a task that has made its entry and sleeps in the database."""
        query = "select pid from pg_stat_activity where wait_event = 'PgSleep' and pid <> $1"
        return int(await self.until(query, other_than))


ACTIONS = {
    "sleeps": "select pg_sleep(60)",
    "fails in sql": "select 1 / 0",
    "breaks a deferred constraint": "insert into owed values (2)",
    "commits": "commit",
    "terminates": "select pg_terminate_backend(pg_backend_pid())",
}


@pytest.fixture
def tasks() -> Iterator[list[Task[..., Any]]]:
    before = REGISTRY.as_dict()

    @rhythm.task(transactional=True)
    async def asynchronous(context: rhythm.TaskContext, mark: str) -> Any:
        await context.connection.execute("insert into entries values ($1)", mark)
        if mark in ACTIONS:
            await context.connection.execute(ACTIONS[mark])
        if mark == "raises":
            raise ValueError("no")
        return b"not JSON" if mark == "returns bytes" else mark

    @rhythm.task(transactional=True)
    def blocking(context: rhythm.TaskContext, mark: str) -> Any:
        context.connection.execute("insert into entries values (%s)", [mark])
        if mark in ACTIONS:
            context.connection.execute(ACTIONS[mark])
        if mark == "raises":
            raise ValueError("no")
        return b"not JSON" if mark == "returns bytes" else mark

    made = [task for name, task in REGISTRY.as_dict().items() if name not in before]
    yield made
    for task in made:
        REGISTRY.remove(task.name)


@pytest_asyncio.fixture
async def bank(rhythm_url: str, tasks: list[Task[..., Any]]) -> AsyncIterator[Bank]:
    raw = await asyncpg.connect(rhythm_url)
    await raw.execute(SCHEMA)
    async with rhythm.connect(rhythm_url) as client:
        yield Bank(rhythm_url, client, raw, tasks)
        assert [] == list(await client.store.breaches())
    await raw.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_succeeds_is_committed_with_its_output(bank: Bank, kind: str) -> None:
    async with bank.worker():
        marks = [f"m{i:02}" for i in range(40)]
        executions = [await bank.start(kind, mark) for mark in marks]
        outputs = [await execution.result(timeout=DEADLINE_SECONDS) for execution in executions]
        connections = await bank.raw.fetchval(
            "select count(*) from pg_stat_activity where application_name = $1", transactions.NAME
        )

    assert (marks, marks) == (outputs, await bank.entries())
    assert 1 <= connections <= TRANSACTIONS_MAX
    assert 0 == await bank.raw.fetchval(
        "select count(*) from pg_stat_activity where application_name = $1 and backend_xid is not null",
        transactions.NAME,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raises", "ValueError"),
        ("returns bytes", "OutputInvalid"),
        ("fails in sql", ("DivisionByZeroError", "DivisionByZero")),
        ("breaks a deferred constraint", ("ForeignKeyViolationError", "ForeignKeyViolation")),
    ],
)
async def test_what_fails_leaves_nothing_and_is_retried_as_usual(
    bank: Bank, kind: str, what: str, error: str | tuple[str, str]
) -> None:
    async with bank.worker():
        execution = await bank.start(kind, what, retries=1, retry=rhythm.Retry(initial=0))
        with pytest.raises(rhythm.ExecutionFailed) as failed:
            await execution.result(timeout=DEADLINE_SECONDS)
        good = await bank.start(kind, "good")
        await good.result(timeout=DEADLINE_SECONDS)
    info = await execution.refresh()

    assert failed.value.name in error
    assert (1 if what == "returns bytes" else 2, 0) == (info.attempts, info.lost)
    assert ["good"] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_rolls_back(bank: Bank, kind: str) -> None:
    async with bank.worker():
        execution = await bank.start(kind, "sleeps", timeout="300ms")
        with pytest.raises(rhythm.ExecutionFailed) as failed:
            await execution.result(timeout=DEADLINE_SECONDS)
        # the statement is ended on the server too, so that its locks are free
        await bank.until("select not exists (select from pg_stat_activity where wait_event = 'PgSleep')")

    assert failed.value.type == "timeout" or failed.value.name == "QueryCanceled"
    assert [] == await bank.entries()


async def test_a_cancelled_task_rolls_back(bank: Bank) -> None:
    async with bank.worker():
        execution = await bank.start("asynchronous", "sleeps")
        await bank.in_transaction()
        await execution.cancel()
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=DEADLINE_SECONDS)
        await bank.until("select not exists (select from pg_stat_activity where wait_event = 'PgSleep')")

    assert [] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_lets_go_rolls_back_and_hands_back_uncharged(bank: Bank, kind: str) -> None:
    execution = await bank.start(kind, "sleeps")
    async with bank.worker(drain_timeout="100ms") as worker:
        pid = await bank.in_transaction()
        await worker.stop()
    info = await execution.refresh()
    await bank.raw.execute("select pg_terminate_backend($1)", pid)

    assert ("pending", 0, 0) == (info.status, info.attempts, info.lost)
    assert [] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_lost_in_the_middle_is_no_failure_of_the_task(bank: Bank, kind: str) -> None:
    execution = await bank.start(kind, "sleeps")
    async with bank.worker():
        first = await bank.in_transaction()
        await bank.raw.execute("select pg_terminate_backend($1)", first)
        second = await bank.in_transaction(first)
        info = await execution.refresh()
        await execution.cancel()
        await bank.raw.execute("select pg_terminate_backend($1)", second)
        with pytest.raises(rhythm.ExecutionCancelled):
            await execution.result(timeout=DEADLINE_SECONDS)

    assert (1, 0) == (info.attempts, info.lost)
    assert [] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_that_loses_its_connection_every_time_fails_in_the_end(bank: Bank, kind: str) -> None:
    async with bank.worker():
        execution = await bank.start(kind, "terminates")
        with pytest.raises(rhythm.ExecutionFailed, match="again and again") as failed:
            await execution.result(timeout=DEADLINE_SECONDS)
    info = await execution.refresh()

    assert ("DatabaseUnavailable", 1, 0) == (failed.value.name, info.attempts, info.lost)
    assert LOSSES_MAX >= 3
    assert [] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_that_commits_by_itself_is_told_and_never_repeated(bank: Bank, kind: str) -> None:
    async with bank.worker():
        execution = await bank.start(kind, "commits", retries=3)
        with pytest.raises(rhythm.ExecutionFailed, match="leave its transaction open"):
            await execution.result(timeout=DEADLINE_SECONDS)
        good = await bank.start(kind, "good")
        await good.result(timeout=DEADLINE_SECONDS)
    info = await execution.refresh()

    assert 1 == info.attempts
    assert ["commits", "good"] == await bank.entries()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["complete.before", "committing", "complete.during", "complete.after"])
async def test_a_connection_dropped_around_commit_makes_one_entry(bank: Bank, kind: str, moment: str) -> None:
    with faults.active(f"{moment}:2:drop") as point:
        async with bank.worker():
            executions = [await bank.start(kind, f"m{i}") for i in range(5)]
            outputs = [await execution.result(timeout=DEADLINE_SECONDS) for execution in executions]
    infos = [await execution.refresh() for execution in executions]

    assert point.acted
    assert (["m0", "m1", "m2", "m3", "m4"],) * 2 == (outputs, await bank.entries())
    assert {(1, 0)} == {(info.attempts, info.lost) for info in infos}


async def test_a_network_that_is_cut_again_and_again_makes_each_entry_once(bank: Bank) -> None:
    marks = [f"m{i:03}" for i in range(120)]
    executions = [await bank.start(KINDS[i % 2], mark) for i, mark in enumerate(marks)]
    async with Proxy(bank.url) as proxy, bank.worker(database_url=proxy.url):
        for cut in range(1, 4):
            await bank.until("select count(*) >= $1 from entries", 25 * cut)
            proxy.cut()
            await bank.until(
                "select not exists (select from pg_stat_activity where application_name like 'rhythm%'"
                " and application_name <> 'rhythm client' and datname = current_database())"
            )
            proxy.mend()
        outputs = [await execution.result(timeout=DEADLINE_SECONDS) for execution in executions]

    assert (marks, marks) == (outputs, await bank.entries())


async def test_commits_whose_answers_never_come_are_found_and_not_repeated(bank: Bank) -> None:
    marks = [f"m{i:03}" for i in range(60)]
    executions = [await bank.start(KINDS[i % 2], mark) for i, mark in enumerate(marks)]
    async with Proxy(bank.url) as proxy, bank.worker(database_url=proxy.url, heartbeat_timeout="2s"):
        await bank.until("select count(*) >= 10 from entries")
        proxy.silence("answers")
        async with bank.worker():
            outputs = [await execution.result(timeout=DEADLINE_SECONDS) for execution in executions]
            proxy.mend()

    assert (marks, marks) == (outputs, await bank.entries())


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_taken_over_meanwhile_is_refused_and_rolled_back(bank: Bank, kind: str) -> None:
    execution = await bank.start(kind, "m1")
    lock = await asyncpg.connect(bank.url)
    transaction = lock.transaction()
    await transaction.start()
    await lock.execute("lock table entries in exclusive mode")
    async with bank.worker():
        await bank.until("select exists (select from pg_locks where not granted)")
        # as if it had been declared dead: its claim is that of one who has departed
        await bank.raw.execute(
            "with gone as (update rhythm.claims set incarnation = gen_random_uuid() returning incarnation) "
            "insert into rhythm.departed (incarnation, since) select incarnation, rhythm.now() from gone"
        )
        await transaction.commit()
        await lock.close()
        assert "m1" == await execution.result(timeout=DEADLINE_SECONDS)
    info = await execution.refresh()

    assert (2, 1) == (info.attempts, info.lost)
    assert ["m1"] == await bank.entries()


async def test_a_workflow_gets_the_outcomes_of_its_transactional_tasks(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "order.flow").write_text(
        "workflow(ctx, inputs) {\n"
        '  const first = await task("asynchronous", { mark: "a" })\n'
        '  const both = await Promise.all([task("blocking", { mark: "b" }), task("asynchronous", { mark: "c" })])\n'
        '  try { await task("blocking", { mark: "raises" }) } catch (error) { return [first, ...both, error.name] }\n'
        "}\n"
    )
    await bank.client.publish(tmp_path)
    async with bank.worker():
        executions = [await bank.client.start("order") for _ in range(5)]
        outputs = [await execution.result(timeout=DEADLINE_SECONDS) for execution in executions]

    assert [["a", "b", "c", "ValueError"]] * 5 == outputs
    assert sorted("abc" * 5) == await bank.entries()


async def test_a_start_and_a_signal_belong_to_the_tasks_transaction(bank: Bank) -> None:
    @rhythm.task(transactional=True)
    async def orders(context: rhythm.TaskContext, works: bool) -> str:
        started = await bank.client.start("asynchronous", {"mark": "started"}, connection=context.connection)
        if not works:
            raise ValueError("no")
        return str(started.id)

    bank.tasks.append(orders)
    async with bank.worker():
        good = await (await bank.client.start(orders, {"works": True})).result(timeout=DEADLINE_SECONDS)
        with pytest.raises(rhythm.ExecutionFailed):
            await (await bank.client.start(orders, {"works": False})).result(timeout=DEADLINE_SECONDS)
        await bank.client.wait(good, timeout=DEADLINE_SECONDS)
    REGISTRY.remove("orders")

    assert 1 == len(await bank.client.list(name="asynchronous"))
    assert ["started"] == await bank.entries()


SHOWN = ("search_path", "statement_timeout", "transaction_isolation", "idle_in_transaction_session_timeout")


async def test_the_next_task_finds_the_connection_as_new(bank: Bank) -> None:
    @rhythm.task(transactional=True)
    def looks(context: rhythm.TaskContext) -> list[str]:
        connection = context.connection
        found = [connection.execute(f"show {name}").fetchone()[0] for name in SHOWN]
        connection.execute("set search_path to nowhere")
        connection.row_factory = psycopg.rows.dict_row
        with connection.transaction():
            connection.execute("select 1")
        return found

    @rhythm.task(transactional=True)
    async def looksToo(context: rhythm.TaskContext) -> list[str]:
        connection = context.connection
        found = [await connection.fetchval(f"show {name}") for name in SHOWN]
        await connection.execute("set search_path to nowhere")
        async with connection.transaction():
            await connection.execute("select 1")
        return found

    bank.tasks += [looks, looksToo]
    seen = []
    async with bank.worker(concurrency=1):
        for task in (looks, looks, looksToo, looksToo):
            execution = await bank.client.start(task, timeout="7s" if len(seen) % 2 else None)
            seen.append(await execution.result(timeout=DEADLINE_SECONDS))
    for task in (looks, looksToo):
        REGISTRY.remove(task.name)

    plain, limited = (['"$user", public', limit, "read committed", "1min"] for limit in ("0", "7s"))
    assert [plain, limited, plain, limited] == seen


def test_a_transactional_task_needs_its_context() -> None:
    @rhythm.task(transactional=True)
    async def forgetful(mark: str) -> None: ...

    REGISTRY.remove("forgetful")
    with pytest.raises(TypeError, match=r"rhythm\.TaskContext"):
        forgetful.prepare()


def test_other_tasks_have_no_connection_and_tests_pass_one() -> None:
    with pytest.raises(RuntimeError, match="transactional=True"):
        _ = rhythm.TaskContext().connection
    connection = object()

    assert connection is rhythm.TaskContext(connection=connection).connection


async def test_without_psycopg_a_worker_says_what_to_do(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(rhythm.ConfigurationError, match=r"psycopg\[binary\]"):
        await rhythm.Worker(database_url=bank.url, tasks=bank.tasks).run()
    with pytest.raises(TypeError, match="True or False"):
        rhythm.task(transactional="yes")  # type: ignore[call-overload]  (what is refused)
