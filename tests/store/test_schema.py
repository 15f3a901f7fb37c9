"""The schema: migration, the role of workers, plain SQL, the sources themselves."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest

from rhythm.errors import RhythmError, SchemaMismatch
from rhythm.model import ExchangeRequest, NewDefinition, NewSignal, TaskOutcome, WorkerRegistration, new_id
from rhythm.store import Store, migrations
from tests.store.bench import OK, Bench, child, end, new_execution, suspend


async def test_migrating_from_many_places_at_once_applies_each_step_once(any_postgres_url: str) -> None:
    stores = [await Store.connect(any_postgres_url) for _ in range(5)]
    before = await stores[0].schema_status()
    done = await asyncio.gather(*(store.migrate() for store in stores))
    after = await stores[0].schema_status()
    version = await stores[0].schema_version()
    for store in stores:
        await store.close()

    names = [step.name for step in migrations.migrations()] + ["functions"]
    assert (0, tuple(names)) == (before.version, before.pending)
    assert [names] == [names for names in done if names]
    assert (after.latest, ()) == (after.version, after.pending)
    assert after.latest == version


async def test_a_newer_schema_is_left_alone(bench: Bench) -> None:
    await bench.raw.execute("insert into rhythm.migrations values (99, 'later', '')")
    with pytest.raises(SchemaMismatch, match="99"):
        await bench.store.migrate()


async def test_functions_whose_text_has_changed_are_put_in_place_again_with_the_rights_to_them(bench: Bench) -> None:
    await bench.raw.execute(migrations.roles_sql())
    await bench.raw.execute("update rhythm.migrations set digest = 'of another text' where version = 0")
    pending = (await bench.store.schema_status()).pending
    await bench.raw.execute(
        "create or replace function rhythm.can_run(p_id uuid) returns boolean language sql as 'select null::boolean';"
        "revoke execute on function rhythm.can_run from rhythm_worker"
    )
    done = await bench.store.migrate()
    proper, granted = await bench.raw.fetchrow(
        "select prosrc like '%rhythm.workers%', has_function_privilege('rhythm_worker', oid, 'execute') "
        "from pg_proc where proname = 'can_run'"
    )

    assert ("functions",) == pending
    assert ["functions"] == done
    assert (True, True) == (proper, granted)
    assert () == (await bench.store.schema_status()).pending


#: What `rhythm migrate` applied, by version: never changed after a release, or databases would differ.
RELEASED_STEPS = {1: "e1e47cece4e79e18b221a9d3eaa8cafcc0075427725f5427b17c2660ac25cf64"}
RELEASED = Path(__file__).parent / "schemas"  # the text that `migrate` of that version applied to an empty database
CATALOG = """
    select 'function' as kind, p.oid::regprocedure::text as name,
      concat_ws(' ', pg_get_function_result(p.oid), p.prosecdef, p.proconfig, md5(p.prosrc)) as what
    from pg_proc p where p.pronamespace = 'rhythm'::regnamespace
    union all
    select 'column', c.relname || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
      a.attidentity, a.attstorage, pg_get_expr(d.adbin, d.adrelid), c.relkind, c.reloptions)
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
    where c.relnamespace = 'rhythm'::regnamespace and c.relkind in ('r', 'v')
    union all
    select 'index', i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
    from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'rhythm'::regnamespace
    union all
    select 'constraint', conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)
    from pg_constraint where connamespace = 'rhythm'::regnamespace and contype <> 'n'
    order by 1, 2, 3
"""


def test_steps_that_were_released_stay_as_they_were() -> None:
    digests = {step.version: step.digest for step in migrations.migrations()}

    assert RELEASED_STEPS == {version: digests[version] for version in RELEASED_STEPS}


@pytest.mark.parametrize("script", [pytest.param(p.read_text(), id=p.stem) for p in sorted(RELEASED.glob("*.sql"))])
async def test_a_database_of_a_released_version_becomes_what_a_new_one_is(
    script: str, bench: Bench, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    store = await Store.connect(postgres_url)
    try:
        await connection.execute(script)
        with pytest.raises(SchemaMismatch, match="rhythm migrate"):
            await store.register_worker(WorkerRegistration(new_id(), "h", 1, 1000.0))
        await store.migrate()
        migrated = [tuple(row) for row in await connection.fetch(CATALOG)]
    finally:
        await store.close()
        await connection.close()
    new = [tuple(row) for row in await bench.raw.fetch(CATALOG)]

    assert len(new) > 200
    assert [] == sorted(set(migrated) ^ set(new))


async def test_a_worker_of_another_protocol_does_not_register(bench: Bench) -> None:
    await bench.raw.execute("create or replace function rhythm.protocol() returns integer language sql as 'select 99'")
    with pytest.raises(SchemaMismatch, match=r"protocol 99.*newer"):
        await bench.store.register_worker(WorkerRegistration(new_id(), "h", 1, 1000.0))


async def test_without_a_schema_the_error_says_what_to_do(postgres_url: str) -> None:
    store = await Store.connect(postgres_url)
    for call in (store.start([new_execution()]), store.queues(), store.get(new_id()), store.heartbeat(new_id())):
        with pytest.raises(SchemaMismatch, match="rhythm migrate"):
            await call
    await store.close()


async def test_the_role_of_workers_can_work_and_nothing_else(bench: Bench) -> None:
    await bench.raw.execute(migrations.roles_sql())
    await bench.raw.execute(migrations.roles_sql())
    login = f"login_{uuid.uuid4().hex[:8]}"
    await bench.raw.execute(f"create role {login} login in role rhythm_worker")
    url = bench.store.url
    parts = urlsplit(url)
    store = await Store.connect(urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}")))
    try:
        incarnation = new_id()
        registered = await store.register_worker(WorkerRegistration(incarnation, "h", 1, 1000.0))
        await store.publish([NewDefinition("order", "h", b"{}", "", "s")])
        await store.start([new_execution("order", key="k", signal=NewSignal("go", b"1", new_id()))])
        request = {"incarnation": incarnation, "queues": list(registered.queues.values())}
        (claim,) = (await store.exchange(ExchangeRequest(**request, workflow_limit=1))).claims
        await store.signal(claim.id, "go", b"1", new_id())
        said = msgspec.structs.replace(suspend(claim), logs=[("info", "said")])
        await store.exchange(ExchangeRequest(**request, workflow_commits=[said], idle=True))
        assert ["said"] == [line.text for line in await store.logs(claim.id)]
        await store.cancel(claim.id)
        await store.heartbeat(incarnation)
        await store.maintain(incarnation)
        await store.held(incarnation)
        infos = (await store.list(), await store.queues(), await store.workers(), await store.get(claim.id))
        refused = []
        for statement in (
            "select * from rhythm.executions",
            "select * from rhythm.logs",
            "select rhythm.write_logs(null, null, null, null)",
            "delete from rhythm.outcomes",
            "update rhythm.clock set moved_by = '1 h'",
            "create table rhythm.mine (i int)",
            "create function rhythm.mine() returns int language sql as 'select 1'",
            "drop function rhythm.now()",
            "select rhythm.find_breaches()",
            "select rhythm.make_ready(null, null, null)",
            "select rhythm.settle(null, null, null, null, null, null, null, null, null, null)",
        ):
            try:
                await store._database.execute(statement)
            except (asyncpg.InsufficientPrivilegeError, RhythmError):
                refused.append(statement)
        await store.unregister_worker(incarnation)
    finally:
        await store.close()
        await bench.raw.execute(f"drop role {login}")

    assert all(infos)
    assert 11 == len(refused)


async def test_an_execution_started_by_plain_sql(bench: Bench) -> None:
    worker = await bench.worker("work")
    inputs = {"é": "\U0001f600", "n": 1}
    async with bench.raw.transaction():
        id_ = await bench.raw.fetchval(
            "select rhythm.start('work', $1::text::json, p_key => 'k', p_priority => 3)",
            json.dumps(inputs, ensure_ascii=False),
        )
        again = await bench.raw.fetchval(
            "select rhythm.start('work', $1::text::json, p_key => 'k')", json.dumps(inputs, ensure_ascii=False)
        )
    claim = await worker.claim_one()

    assert (id_, id_) == (again, claim.id)
    assert claim.inputs.isascii()
    assert inputs == json.loads(claim.inputs)
    for arguments in ("'work', '[]'", "'work', '{}', p_priority => 101", "'work', '{\"a\":1}', p_key => 'k'"):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await bench.raw.fetchval(f"select rhythm.start({arguments})")
        assert "RH001" == caught.value.sqlstate


async def test_new_ids_are_of_version_seven_and_carry_the_time(any_bench: Bench) -> None:
    rows = await any_bench.raw.fetch(
        "select rhythm.new_id() as id, clock_timestamp() as at from generate_series(1, 100)"
    )

    assert {7} == {row["id"].version for row in rows}
    assert 100 == len({row["id"] for row in rows})
    assert all(abs((row["id"].int >> 80) / 1000 - row["at"].timestamp()) < 60 for row in rows)


async def test_the_clock_can_be_moved(bench: Bench) -> None:
    await bench.raw.execute("update rhythm.clock set frozen_at = null, moved_by = '-3 h'")
    ahead = await bench.raw.fetchval("select extract(epoch from clock_timestamp() - rhythm.now())::float8")

    assert 10_800 == pytest.approx(ahead, abs=10)


async def test_everything_works_without_prepared_statements(bench: Bench) -> None:
    store = await Store.connect(bench.store.url, pooler=True)
    await bench.publish("order")
    incarnation = new_id()
    await store.register_worker(WorkerRegistration(incarnation, "h", 1, 1000.0))
    await store.start([new_execution("order")])
    request = {"incarnation": incarnation, "queues": [1]}
    (claim,) = (await store.exchange(ExchangeRequest(**request, workflow_limit=1))).claims
    commit = end(claim, children=[child(1)])
    result = await store.exchange(ExchangeRequest(**request, workflow_commits=[commit], task_outcomes=()))
    prepared = await store._database.fetchval("select count(*) from pg_prepared_statements")
    await store.close()

    assert frozenset() == result.refused
    assert 0 == prepared


async def test_finished_executions_go_after_their_retention_and_children_not_before_their_parent(bench: Bench) -> None:
    await bench.publish("order")
    worker = await bench.worker("work")
    await bench.start("order")
    flow = await worker.claim_one()
    call = child(1)
    await worker.commit(suspend(flow, children=[call]))
    await worker.complete(await worker.claim_one())
    other = await bench.start(key="k", tags={"a": 1})
    await worker.complete(await worker.claim_one(workflows=0))
    unfinished = await bench.start(delay_seconds=1e6)
    await bench.pass_time(101)
    await bench.store.maintain(worker.incarnation, retention_seconds=100)
    first = {info.id for info in await bench.store.list()}
    claim = await worker.claim_one()
    await worker.commit(end(claim, "failed", keep_snapshot=True))
    for _ in range(2):
        await bench.pass_time(101)
        await bench.store.maintain(worker.incarnation, retention_seconds=100)
    left = {info.id for info in await bench.store.list()}
    key_kept = await bench.start_result(key="k")
    await bench.pass_time(31 * 86400)
    await bench.store.maintain(worker.incarnation, retention_seconds=100)
    key_free = await bench.start_result(key="k")

    assert {flow.id, call.id, unfinished} == first
    assert {unfinished} == left
    assert (other, "existing") == (key_kept.id, key_kept.status)
    assert "started" == key_free.status
    for table in ("outcomes", "snapshots", "deliveries", "signals"):
        assert 0 == await bench.count(table), table


def test_every_function_says_what_it_does_returns_and_raises() -> None:
    functions = re.findall(
        r"((?:^--.*\n)*)create or replace function (rhythm\.\w+)", migrations.functions_sql(), re.MULTILINE
    )
    wanting = [name for comment, name in functions if not re.search(r"Raises|Internal", comment) or len(comment) < 60]

    assert len(functions) > 40
    assert [] == wanting


def test_sql_is_lower_case_static_and_takes_its_time_from_the_clock() -> None:
    code = re.sub(r"--.*|'(?:[^']|'')*'", "", migrations.schema_sql())

    assert [] == re.findall(r"\b(?:SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|BEGIN|END|NULL)\b", code)
    assert [] == re.findall(
        r"(?<!rhythm\.)\b(?:now\(\)|current_timestamp|localtimestamp|transaction_timestamp\(\))", code
    )
    assert 3 == len(re.findall(r"\bexecute format\b", code)), "only settings.sql and grants.sql build statements"


async def test_outcomes_of_a_batch_with_one_that_cannot_be_stored_fail_as_a_whole_and_change_nothing(
    bench: Bench,
) -> None:
    worker = await bench.worker("work")
    await bench.start_many(3)
    claims = await worker.claim()
    outcomes = [TaskOutcome(c.token, c.id, "completed", OK) for c in claims]
    broken = TaskOutcome(claims[1].token, claims[1].id, "failed", OK, True, "soon")  # type: ignore[arg-type]  # what no encoder lets through
    with pytest.raises(RhythmError):
        await worker.exchange(task_outcomes=[outcomes[0], broken, outcomes[2]])
    held = await worker.held()
    result = await worker.exchange(task_outcomes=[outcomes[0], outcomes[2]])

    assert {c.id for c in claims} == set(held)
    assert (frozenset(), [claims[1].id]) == (result.refused, list(result.retokened))


def test_hot_statements_look_rows_up_one_by_one() -> None:
    """No plan can then read a table believed to be empty once per row (see settings.sql)."""
    hot = (
        "make_ready settle lock_workflows apply_groups deliver forget_workflows commit_workflows end_workflows "
        "suspend_workflows wake_unread start_children insert_rows find_suspect find_ready find_ready_in take_ready "
        "write_logs add_claim describe_tasks describe_parents describe_workflows exchange set_idle report end_claims "
        "split_claim held step fire_timers move_due end_cancelled remove_pending cancel_many take_back "
        "keys_at_gate keys_waiting room_by_rate room_in_queue room_of_key let_pass pass_gate pass_suspects pass_gates "
        "find_woken find_gated leave_places put_at_gates gather_at_gate let_all_pass"
    ).split()
    code = re.sub(r"--.*", "", migrations.functions_sql())
    bodies = dict(re.findall(r"create or replace function rhythm\.(\w+)(.*?)(?=create or replace|\Z)", code, re.DOTALL))
    joins = {
        name: re.findall(
            r"\bjoin rhythm\.(?!names|queues)\w+|\busing unnest|\busing rhythm|update rhythm\.[^;]*?\bfrom\b",
            bodies[name],
        )
        for name in hot
    }

    assert {"step": ["join rhythm.executions"]} == {name: found for name, found in joins.items() if found}
