"""Starts and signals in the caller's own transaction, over every driver that `connection=` takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy

import rhythm
from rhythm.store import callers
from tests.store.applications import ALL, ASYNCHRONOUS, BLOCKING, application
from tests.store.bench import Bench

AWKWARD = 'a "b" \\ {c,NULL} \' % %s $1 é \U0001f600 \n'
SETTINGS = ("set search_path to ''", "set datestyle to 'SQL, DMY'", "set bytea_output to 'escape'")


@pytest.fixture
def portals() -> Iterator[list[str]]:
    """The portal threads that were started meanwhile, filled in at the end of the block that uses it."""
    before = set(threading.enumerate())
    found: list[str] = []
    yield found
    assert [] == [t.name for t in set(threading.enumerate()) - before if t.name == "rhythm-portal"]


@pytest.mark.parametrize("kind", ALL)
async def test_a_start_lives_and_dies_with_the_callers_transaction(bench: Bench, kind: str) -> None:
    moment = datetime.now(UTC) + timedelta(days=4000)
    options: dict[str, Any] = {"key": AWKWARD, "queue": AWKWARD, "priority": -3, "at": moment, "tags": {"a": AWKWARD}}
    retry = rhythm.Retry(initial=0.25)
    async with rhythm.connect(bench.store.url) as client, application(kind, bench.store.url) as app:
        for setting in SETTINGS:
            await app.execute(setting)
        await app.commit()
        if kind == "asyncpg":
            await app.execute("begin")
        undone = await client.start(AWKWARD, {"a": 1}, connection=app.connection)
        many = await client.start_many([rhythm.Start("add", {"i": i}) for i in range(3)], connection=app.connection)
        unseen = await client.list()
        await app.rollback()
        if kind == "asyncpg":
            await app.execute("begin")
        done = await client.start(
            AWKWARD, {AWKWARD: AWKWARD}, **options, retries=2, retry=retry, timeout=1.5, connection=app.connection
        )
        await app.commit()
        info = await done.refresh()
        raw = await bench.raw.fetchrow("select retries, retry, timeout_ms, available_at from rhythm.executions")

        assert [] == unseen
        assert [done.id] == [found.id for found in await client.list()]
        assert done.id not in {undone.id, *many}
        assert (AWKWARD, AWKWARD, AWKWARD, {"a": AWKWARD}) == (info.name, info.key, info.queue, info.tags)
        assert ({AWKWARD: AWKWARD}, -3) == (done.inputs, info.priority)
        assert raw is not None
        assert (2, 1500, moment) == (raw["retries"], raw["timeout_ms"], raw["available_at"])
        assert '"initial": 0.25' in raw["retry"]


@pytest.mark.parametrize("kind", ALL)
async def test_a_signal_is_sent_by_the_callers_commit(bench: Bench, kind: str) -> None:
    await bench.publish("order")
    id_ = await bench.start("order")
    async with rhythm.connect(bench.store.url) as client, application(kind, bench.store.url) as app:
        await client.signal(id_, AWKWARD, {"n": 1}, connection=app.connection)
        await app.rollback()
        if kind == "asyncpg":
            await app.execute("begin")
        await client.signal(id_, AWKWARD, {"n": 2}, connection=app.connection)
        unseen = await bench.count("deliveries")
        await app.commit()
    worker = await bench.worker()
    claim = await worker.claim_one()

    assert 0 == unseen
    assert [(AWKWARD, b'{"n":2}')] == [(d.name, d.payload) for d in claim.deliveries]


@pytest.mark.parametrize("kind", BLOCKING)
async def test_the_blocking_client_uses_the_connection_in_the_calling_thread(
    bench: Bench, kind: str, portals: list[str]
) -> None:
    await bench.publish("order")
    client = rhythm.connect_sync(bench.store.url)
    async with application(kind, bench.store.url) as app:
        undone = client.start("order", {"a": 1}, connection=app.connection)
        await app.rollback()
        done = client.start("order", {"a": 2}, key="k", connection=app.connection)
        (other,) = client.start_many([rhythm.Start("order")], connection=app.connection)
        done.signal("go", connection=app.connection)
        await app.commit()
        with pytest.raises(rhythm.StartRefused) as refused:
            client.start("order", {"a": 3}, key="k", connection=app.connection)

    assert "key_conflict" == refused.value.code
    assert {done.id, other} == {info.id for info in await bench.store.list()}
    assert undone.id != done.id
    assert 1 == await bench.count("deliveries")
    assert repr(done) == f"<Execution {done.id}>"


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "sqlalchemy"])
async def test_no_worker_hears_of_a_start_before_its_commit(bench: Bench, kind: str) -> None:
    worker = await bench.worker("work")
    await worker.claim(idle=True)
    heard: asyncio.Queue[str] = asyncio.Queue()
    channel = f"rhythm.{worker.incarnation}"
    await bench.raw.add_listener(channel, lambda *event: heard.put_nowait(str(event[3])))
    async with rhythm.connect(bench.store.url) as client, application(kind, bench.store.url) as app:
        await client.start("work", connection=app.connection)
        # What is committed later, on another connection, is heard first.
        await bench.raw_call(f"select pg_notify('{channel}', 'marker')")
        first = await asyncio.wait_for(heard.get(), 10)
        await app.commit()
        second = await asyncio.wait_for(heard.get(), 10)

    assert ("marker", "") == (first, second)


@pytest.mark.parametrize("kind", ASYNCHRONOUS)
async def test_the_blocking_client_refuses_asynchronous_connections(bench: Bench, kind: str) -> None:
    client = rhythm.connect_sync(bench.store.url)
    async with application(kind, bench.store.url) as app:
        with pytest.raises(rhythm.InvalidInput, match="asynchronous"):
            client.start("work", connection=app.connection)
        with pytest.raises(rhythm.InvalidInput, match="asynchronous"):
            client.signal(uuid.uuid4(), "go", connection=app.connection)


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "psycopg async", "sqlalchemy", "sqlalchemy async over asyncpg"])
async def test_a_closed_connection_says_so(bench: Bench, kind: str) -> None:
    client = rhythm.connect(bench.store.url)
    app = await ALL[kind](bench.store.url)
    await app.close()
    with pytest.raises(rhythm.DatabaseUnavailable, match="closed"):
        await client.start("work", connection=app.connection)


async def test_a_connection_given_back_to_its_pool_says_so(bench: Bench) -> None:
    client = rhythm.connect(bench.store.url)
    async with asyncpg.create_pool(bench.store.url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            await client.start("work", connection=connection)
        with pytest.raises(rhythm.DatabaseUnavailable, match="released back to the pool"):
            await client.start("work", connection=connection)

    assert 1 == await bench.count("executions")


@pytest.mark.parametrize("kind", ALL)
async def test_a_connection_that_the_server_has_ended_is_unavailable(bench: Bench, kind: str) -> None:
    client = rhythm.connect(bench.store.url)
    async with application(kind, bench.store.url) as app:
        await client.start("work", connection=app.connection)
        await bench.raw.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity where state = 'idle in transaction'"
        )
        with pytest.raises(rhythm.DatabaseUnavailable):
            await client.start("work", connection=app.connection)

    assert 0 == await bench.count("executions")


@pytest.mark.parametrize("kind", ALL)
async def test_errors_are_rhythms_and_the_transaction_has_failed_then(bench: Bench, kind: str) -> None:
    client = rhythm.connect(bench.store.url)
    async with application(kind, bench.store.url) as app:
        with pytest.raises(rhythm.ExecutionNotFound):
            await client.signal(uuid.uuid4(), "go", connection=app.connection)
        with pytest.raises(rhythm.InvalidInput, match="roll it back"):
            await client.start("work", connection=app.connection)
        await app.rollback()


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg", "sqlalchemy", "sqlalchemy async over asyncpg"])
async def test_without_a_schema_the_error_says_what_to_do(postgres_url: str, kind: str) -> None:
    client = rhythm.connect(postgres_url)
    async with application(kind, postgres_url) as app:
        with pytest.raises(rhythm.SchemaMismatch, match="rhythm migrate"):
            await client.start("work", connection=app.connection)
        await app.rollback()


async def test_serialization_failures_reach_the_loop_that_repeats_transactions(bench: Bench) -> None:
    client = rhythm.connect(bench.store.url)
    with psycopg.connect(bench.store.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        connection.execute("select 1")
        await bench.start(key="k", inputs=b"{}")
        with pytest.raises(psycopg.errors.SerializationFailure):
            await client.start("work", {}, key="k", connection=connection)
        connection.rollback()
        again = await client.start("work", {}, key="k", connection=connection)

    assert [again.id] == [info.id for info in await bench.store.list()]


async def test_in_autocommit_mode_a_start_is_a_transaction_of_its_own(bench: Bench) -> None:
    client = rhythm.connect(bench.store.url)
    with psycopg.connect(bench.store.url, autocommit=True) as connection:
        execution = await client.start("work", connection=connection)
        seen = await bench.store.get(execution.id)
        prepared = connection.execute("select count(*) from pg_prepared_statements").fetchone()

    assert seen is not None
    assert (0,) == prepared


@pytest.mark.parametrize("connection", [object(), "postgresql://localhost", sqlalchemy.create_engine("sqlite://")])
async def test_what_is_no_connection_is_refused_with_a_way_out(connection: object) -> None:
    client = rhythm.connect("postgresql://nobody@localhost:1/none")
    with pytest.raises(rhythm.InvalidInput, match=r"psycopg 3.*rhythm\.start"):
        await client.start("work", connection=connection)


async def test_sqlalchemy_to_another_database_is_refused() -> None:
    client = rhythm.connect("postgresql://nobody@localhost:1/none")
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(rhythm.InvalidInput, match="sqlite over pysqlite"):
        await client.start("work", connection=connection)
    engine.dispose()


def test_drivers_that_are_not_installed_are_not_missed() -> None:
    """asyncpg is the only driver that Rhythm depends on; the others are never imported by it."""
    code = (
        "import sys, asyncio, rhythm\n"
        "client = rhythm.connect('postgresql://nobody@localhost:1/none')\n"
        "try:\n    asyncio.run(client.start('a', connection=object()))\n"
        "except rhythm.InvalidInput: pass\n"
        "print([name for name in ('psycopg', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()


async def test_array_literals_mean_what_they_were(bench: Bench) -> None:
    id_ = uuid.uuid4()
    texts = ["", "NULL", None, AWKWARD, '"', "\\", "{}", ","]
    found = await bench.raw.fetchrow(
        "select $1::text::text[] as texts, $2::text::bytea[] as bytes, $3::text::uuid[] as ids,"
        "$4::text::float8[] as n, $5::text::timestamptz[] as at, $6::text::text[] as none",
        callers.literal(texts), callers.literal([b"", b"\x00\xff\\"]), callers.literal([id_]),
        callers.literal([0.1, None, 1e300]), callers.literal([datetime(2030, 1, 2, tzinfo=UTC)]), callers.literal(None),
    )  # fmt: skip

    assert found is not None
    assert texts == found["texts"]
    assert ([b"", b"\x00\xff\\"], [id_], [0.1, None, 1e300]) == (found["bytes"], found["ids"], found["n"])
    assert ([datetime(2030, 1, 2, tzinfo=UTC)], None) == (found["at"], found["none"])


async def test_a_start_and_a_signal_by_plain_sql_share_the_transaction(bench: Bench, tmp_path: Path) -> None:
    await bench.publish("order")
    async with bench.raw.transaction():
        id_ = await bench.raw.fetchval("select rhythm.start('order', '{\"a\": 1}')")
        first = await bench.raw.fetchval("select rhythm.send_signal($1, 'go', '{\"é\": [1]}')", id_)
        again = await bench.raw.fetchval("select rhythm.send_signal($1, 'go', '2', $2)", id_, first)
        await bench.raw.fetchval("select rhythm.send_signal($1, 'go')", id_)
    worker = await bench.worker()
    claim = await worker.claim_one()

    assert first == again
    assert [b'{"\\u00e9": [1]}', b"null"] == [d.payload for d in claim.deliveries]
    for arguments in ("'', '1'", f"'{'x' * 201}', '1'", "null, '1'", "'go', null", "'go', '1', null"):
        with pytest.raises(asyncpg.PostgresError, match="a signal needs"):
            await bench.raw.fetchval(f"select rhythm.send_signal($1, {arguments})", id_)
    with pytest.raises(asyncpg.PostgresError) as unknown:
        await bench.raw.fetchval("select rhythm.send_signal($1, 'go')", uuid.uuid4())
    assert "RH003" == unknown.value.sqlstate
