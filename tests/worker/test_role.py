"""Everything runs under a login that has only the role rhythm_worker, and that login can do nothing else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest_asyncio

import rhythm
from rhythm.store import migrations
from tests.support.commands import Rhythm
from tests.support.processes import Processes
from tests.worker.conftest import Shop, open_shop

READABLE = {"executions_view", "migrations", "queues", "names"}


@pytest_asyncio.fixture
async def modest(rhythm_url: str, tmp_path: Path, processes: Processes) -> AsyncIterator[Shop]:
    """A shop whose worker, client and commands log in with the role only; its own ledger is its own affair."""
    login = f"modest_{uuid.uuid4().hex[:8]}"
    parts = urlsplit(rhythm_url)
    owner = await asyncpg.connect(rhythm_url)
    try:
        await owner.execute(migrations.roles_sql())
        await owner.execute(f"create role {login} login in role rhythm_worker")
        async with open_shop(rhythm_url, tmp_path, processes) as shop:
            await owner.execute(f"grant select, insert, update, delete on ledger to {login}")
            shop.url = urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))
            async with rhythm.connect(shop.url) as client:
                shop.client = client
                yield shop
    finally:
        await owner.execute(f"drop owned by {login}")
        await owner.execute(f"drop role {login}")
        await owner.close()


async def test_a_whole_workload_with_a_worker_lost_on_the_way(modest: Shop) -> None:
    first, _ = modest.worker(), modest.worker()
    expected = await modest.start_orders(60)
    await asyncio.gather(*(modest.client.wait(execution_id, timeout=60) for execution_id in list(expected)[:10]))
    first.kill()

    for execution_id, output in expected.items():
        assert await modest.client.wait(execution_id, timeout=60) == output, modest.logs()
    entries = await modest.query("select 1 from ledger where step <> 'begun'")
    assert len(entries) == 180


async def test_every_command_works_but_migrating(modest: Shop) -> None:
    rhythm_ = Rhythm(modest.folder, {"RHYTHM_DATABASE_URL": modest.url})

    def commands() -> None:
        rhythm_("publish", "workflows", code=0)
        waiting = rhythm_("start", "order", "--inputs", '{"order": "o1"}', code=0).out.strip()
        done = modest.worker()
        rhythm_("wait", waiting, "--timeout", "30s", code=0)
        rhythm_("show", waiting, code=0)
        rhythm_("list", code=0)
        rhythm_("queues", code=0)
        rhythm_("workers", code=0)
        rhythm_("migrate", "--status", code=0)
        other = rhythm_(
            "start", "slow", "--inputs", '{"seconds": 60, "mark": "m"}', "--delay", "1h", code=0
        ).out.strip()
        rhythm_("cancel", other, code=0)
        done.terminate()
        assert done.wait() == 0

    await asyncio.to_thread(commands)


async def test_migrating_says_which_right_is_missing(modest: Shop) -> None:
    owner = await asyncpg.connect(modest.url.replace(urlsplit(modest.url).username or "", "postgres"))
    await owner.execute("update rhythm.migrations set digest = 'of another text'")
    await owner.close()

    result = await asyncio.to_thread(Rhythm(modest.folder, {"RHYTHM_DATABASE_URL": modest.url}), "migrate", code=2)

    assert "may not" in result.err
    assert "rhythm_worker" in result.err


async def test_no_table_is_open_but_for_reading_names_and_the_view(modest: Shop) -> None:
    rights = "insert, update, delete, truncate, references, trigger"
    relations = await modest.query(
        "select c.relname, has_table_privilege(c.oid, 'select') as reads, has_table_privilege(c.oid, $1) as writes"
        " from pg_class c where c.relnamespace = 'rhythm'::regnamespace and c.relkind in ('r', 'v', 'm', 'p')",
        rights,
    )
    sequences = await modest.query(
        "select c.relname from pg_class c where c.relnamespace = 'rhythm'::regnamespace"
        " and case when c.relkind = 'S' then has_sequence_privilege(c.oid, 'usage, select, update') end"
    )
    (schema,) = await modest.query(
        "select has_schema_privilege('rhythm', 'create') as s,"
        " has_database_privilege(current_database(), 'create') as d"
    )

    assert len(relations) > 15
    assert {row["relname"] for row in relations if row["reads"]} == READABLE
    assert [row["relname"] for row in relations if row["writes"]] == []
    assert sequences == []
    assert (schema["s"], schema["d"]) == (False, False)


async def test_only_functions_meant_for_callers_are_open_and_those_choose_their_own_path(modest: Shop) -> None:
    functions = await modest.query(
        "select p.proname, p.prosecdef, p.proconfig from pg_proc p where p.pronamespace = 'rhythm'::regnamespace"
        " and has_function_privilege(p.oid, 'execute')"
    )
    plain = {row["proname"] for row in functions if not row["prosecdef"]}

    assert plain == {"now", "new_id", "as_json", "as_payload", "protocol"}
    for row in functions:
        if row["prosecdef"]:
            assert any(setting == "search_path=pg_catalog, pg_temp" for setting in row["proconfig"] or []), row[
                "proname"
            ]


ATTACKS = [
    "delete from rhythm.ready",
    "update rhythm.outcomes set status = 1",
    "update rhythm.clock set moved_by = '1 h'",
    "select * from rhythm.executions",
    "select * from rhythm.executions_view for update",
    "insert into rhythm.executions_view (id) values (rhythm.new_id())",
    "do $$ begin lock table rhythm.ready; end $$",
    "truncate rhythm.executions cascade",
    "copy rhythm.executions to stdout",
    "create table rhythm.mine (i int)",
    "create function rhythm.mine() returns int language sql as 'select 1'",
    "create or replace function rhythm.now() returns timestamptz language sql as 'select null::timestamptz'",
    "alter function rhythm.now() security definer",
    "drop schema rhythm cascade",
    "create trigger mine before insert on rhythm.ready execute function suppress_redundant_updates_trigger()",
    "select rhythm.settle(null, null, null, null, null, null, null, null, null, null)",
    "select rhythm.prune(now(), now(), 100)",
    "select rhythm.find_breaches()",
    "select rhythm.leave_places('{}')",
    "update rhythm.gates set concurrency = 100",
    "grant rhythm_worker to pg_monitor",
    "set role postgres",
    "set session authorization postgres",
    "copy (select 1) to program 'true'",
    "select pg_read_file('/etc/passwd')",
]


async def test_attacks_are_refused(modest: Shop) -> None:
    answers = {}
    for statement in ATTACKS:
        try:
            await modest.query(statement)
            answers[statement] = "done"
        except asyncpg.PostgresError as error:
            answers[statement] = error.sqlstate
    refusals = {"42501", "55000"}  # no right to; a view that cannot be written to

    assert {statement: answer for statement, answer in answers.items() if answer not in refusals} == {}


async def test_what_a_session_puts_in_front_of_the_path_is_not_used(modest: Shop) -> None:
    connection: Any = await asyncpg.connect(modest.url)
    try:
        await connection.execute(
            """
            create temp table names (id integer, kind smallint, name text);
            create temp table executions (id uuid);
            create function pg_temp.clock_timestamp() returns timestamptz language sql
              as 'select ''2000-01-01''::timestamptz';
            create function pg_temp.lie(text, text) returns boolean language sql as 'select true';
            create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.lie);
            set search_path = pg_temp, pg_catalog, rhythm;
            """
        )
        started = await connection.fetchval("select rhythm.start('plain', '{\"i\": 1}')")
        again = await connection.fetchval("select rhythm.start('other', '{\"i\": 1}', p_key => 'k')")
        stolen = await connection.fetchval("select count(*) from pg_temp.executions")
    finally:
        await connection.close()
    info = (await modest.client.get(started)).info

    assert info is not None
    assert (info.name, info.created_at.year > 2020) == ("plain", True)
    assert started != again
    assert stolen == 0
