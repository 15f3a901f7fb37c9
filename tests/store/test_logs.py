"""The logs of executions: written with the commit that counts, bounded, read back, deleted with the execution."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from rhythm.errors import ExecutionNotFound
from rhythm.model import Claim, Continuation, TaskOutcome, WorkflowCommit, new_id
from rhythm.store import marshal
from tests.store.bench import OK, Bench, Worker, child, end, suspend

LINES = [("info", "one"), ("debug", "two"), ("error", "three")]


async def workflow(bench: Bench) -> tuple[Worker, Claim]:
    await bench.publish("order")
    worker = await bench.worker("work")
    await bench.start("order")
    return worker, await worker.claim_one()


def logging(commit: WorkflowCommit, *lines: tuple[str, str]) -> WorkflowCommit:
    return msgspec.structs.replace(commit, logs=lines)


async def texts(bench: Bench, claim: Claim, **options: Any) -> list[str]:
    return [line.text for line in await bench.store.logs(claim.id, **options)]


async def test_lines_come_with_the_commit_in_order_with_its_time(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(logging(suspend(flow, children=[child(1)]), *LINES))
    first = await bench.store.logs(flow.id)
    await bench.pass_time(5)
    await worker.complete(await worker.claim_one(workflows=0))
    again = await worker.claim_one()
    await worker.commit(logging(end(again), ("warn", "four")))
    lines = await bench.store.logs(flow.id)

    assert [(n, *line) for n, line in enumerate(LINES, 1)] == [(li.number, li.level, li.text) for li in first]
    assert first == lines[:3]
    assert (4, "warn", "four", bench.now) == (lines[3].number, lines[3].level, lines[3].text, lines[3].at)
    assert (bench.now - lines[0].at).total_seconds() == 5
    assert ["three", "four"] == await texts(bench, flow, level="warn")
    assert ["three", "four"] == await texts(bench, flow, newest=2)
    assert ["four"] == await texts(bench, flow, after=3)
    assert [] == await texts(bench, flow, after=4)
    assert [] == list(await bench.store.breaches())


async def test_a_commit_that_does_not_count_logs_nothing(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    commit = logging(suspend(flow, children=[child(1)]), *LINES)
    result = await worker.commit(commit)
    again = await worker.commit(commit)
    other = await bench.start("order")
    second = await worker.claim_one(tasks=0)
    third = msgspec.structs.replace(second, token=second.token + 512)
    both = await worker.commit(commit, logging(suspend(second, children=[child(1)]), ("info", "mine")))
    stale = await worker.commit(logging(end(third), ("info", "not mine")))

    assert frozenset() == result.refused
    assert {flow.id} == again.refused == both.refused
    assert {other} == stale.refused
    assert ["one", "two", "three"] == await texts(bench, flow)
    assert ["mine"] == await texts(bench, second)


@pytest.mark.parametrize("ends", [False, True], ids=["suspends", "ends"])
@pytest.mark.parametrize("busy", [False, True], ids=["step", "exchange"])
async def test_a_continuation_in_place_logs_once_and_a_refused_one_nothing(
    bench: Bench, busy: bool, ends: bool
) -> None:
    """By rhythm.step when nothing else is claimable, else by rhythm.exchange; an end goes by the latter always."""
    worker, flow = await workflow(bench)
    await worker.commit(suspend(flow, children=[child(1)]))
    if busy:
        await bench.start("work", priority=-1)
    task = (await worker.claim(1, 0, parents=True))[0]
    assert task.parent is not None
    parent = msgspec.structs.replace(
        suspend(flow, children=[child(2)]), version=1, seen_through=task.parent.next_number, logs=LINES
    )
    commit = msgspec.structs.replace(end(flow), version=1, seen_through=1, logs=LINES) if ends else parent
    outcome = TaskOutcome(task.token, task.id, "completed", OK)
    said = {"task_outcomes": [outcome], "continuations": [Continuation(child_id=task.id, commit=commit)]}
    result = await worker.exchange(task_limit=1, parents=True, **said)
    again = await worker.exchange(task_limit=1, parents=True, **said)

    assert ({flow.id}, set()) == (set(result.continued), set(again.continued))
    assert {task.id} == again.refused
    assert ["one", "two", "three"] == await texts(bench, flow)


async def test_a_continuation_that_came_too_late_logs_nothing(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(suspend(flow, children=[child(1)]))
    task = (await worker.claim(1, 0, parents=True))[0]
    await bench.store.signal(flow.id, "go", b"1", new_id())
    late = msgspec.structs.replace(suspend(flow, children=[child(2)]), version=1, seen_through=1, logs=LINES)
    outcome = TaskOutcome(task.token, task.id, "completed", OK)
    result = await worker.exchange(task_outcomes=[outcome], continuations=[Continuation(child_id=task.id, commit=late)])

    assert frozenset() == result.continued
    assert [] == await texts(bench, flow)


async def test_any_text_is_stored_and_costs_its_commit_nothing(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    odd = ["", "\0", "\ud800", "a\udc00\U0001f600", "\x1b[31m", "line\nline", "x" * 10_000, "\u2028\ufffe"]
    await worker.commit(logging(end(flow), *(("info", text) for text in odd)))
    in_sql = await bench.raw.fetchval("select array_agg(rhythm.as_json(text)) from rhythm.logs where number > 4")

    assert odd == await texts(bench, flow)
    assert 4 == len(in_sql)
    assert "completed" == await bench.status(flow.id)


async def test_a_log_keeps_its_newest_lines_and_says_how_many_were_dropped(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(logging(suspend(flow, children=[child(1)]), *(("info", f"{i}") for i in range(1, 601))))
    await worker.complete(await worker.claim_one(workflows=0))
    again = await worker.claim_one()
    await worker.commit(logging(suspend(again, children=[child(2)]), *(("info", f"{i}") for i in range(601, 2_101))))
    lines = await bench.store.logs(flow.id)
    told = lines[0]

    assert 1_000 == await bench.count("logs")
    assert [str(i) for i in range(1_101, 2_101)] == [line.text for line in lines[1:]]
    assert list(range(1_100, 2_101)) == [line.number for line in lines]
    assert ("warn", "1,100 older lines were dropped: a log keeps the newest 1,000 and 1 MiB") == (told.level, told.text)
    assert "500 older lines" in (await texts(bench, flow, after=600))[0]
    assert ["1101", "1102"] == (await texts(bench, flow, after=1_100))[:2]
    assert ["2100"] == await texts(bench, flow, newest=1)
    assert [] == await texts(bench, flow, level="error")
    assert [] == list(await bench.store.breaches())


async def test_a_log_keeps_a_mebibyte(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    lines = [("info", chr(97 + i) * 100_000) for i in range(12)]
    await worker.commit(logging(suspend(flow, children=[child(1)]), *lines))
    size = await bench.raw.fetchval("select sum(octet_length(text)) from rhythm.logs")

    assert [text for _, text in lines[2:]] == (await texts(bench, flow))[1:]
    assert size <= 1 << 20


async def test_logs_go_with_their_executions_and_stay_after_a_forced_end(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(logging(suspend(flow, children=[child(1)]), *LINES))
    await bench.store.terminate(flow.id)
    kept = await texts(bench, flow)
    await worker.heartbeat()
    for _ in range(2):
        await bench.pass_time(101)
        await bench.store.maintain(worker.incarnation, retention_seconds=100)

    assert ["one", "two", "three"] == kept
    assert 0 == await bench.count("logs")
    with pytest.raises(ExecutionNotFound):
        await bench.store.logs(flow.id)


async def test_a_new_start_of_a_failed_workflow_has_a_log_of_its_own(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(logging(end(flow, "failed", keep_snapshot=True), *LINES))
    fresh = new_id()
    await bench.store.start_again(flow.id, fresh)
    await bench.store.retry(flow.id, new_id())
    resumed = {claim.id: claim for claim in await worker.claim()}
    await worker.commit(*(logging(end(claim), ("info", str(claim.id))) for claim in resumed.values()))

    assert [str(fresh)] == await texts(bench, resumed[fresh])
    assert ["one", "two", "three", str(flow.id)] == await texts(bench, resumed[flow.id])


async def test_tasks_have_no_log_and_unknown_executions_no_answer(bench: Bench) -> None:
    id_ = await bench.start()

    assert [] == list(await bench.store.logs(id_))
    with pytest.raises(ExecutionNotFound):
        await bench.store.logs(new_id())


async def test_lines_of_nobody_are_a_breach(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    await worker.commit(logging(suspend(flow, children=[child(1)]), *LINES))
    await bench.raw.execute("delete from rhythm.logs where number = 2")
    missing = list(await bench.store.breaches())
    await bench.raw.execute("insert into rhythm.logs select $1, 1, 1, rhythm.now(), 1, ''", new_id())

    both = list(await bench.store.breaches())
    await bench.raw.execute("delete from rhythm.logs")

    assert [("I4", flow.id)] == [(name, id_) for name, id_, _ in missing]
    assert 2 == len(both)


async def test_a_worker_that_does_not_know_of_logs_goes_on_working(bench: Bench) -> None:
    """Its statements were prepared before the functions got their new arguments."""
    worker, flow = await workflow(bench)
    call, arguments = marshal.exchange_call(worker.request(workflow_commits=[suspend(flow, children=[child(1)])]))
    connection = await asyncpg.connect(bench.store.url)
    await connection.execute("drop function rhythm.exchange")
    await bench.raw.execute("update rhythm.migrations set digest = '' where version = 0")
    await bench.store.migrate()
    row = await connection.fetchrow(call, *arguments)
    await connection.close()

    assert "$63" not in call
    assert row is not None
    assert [] == row["o_refused"]


async def test_what_logs_nothing_calls_as_before(bench: Bench) -> None:
    worker, flow = await workflow(bench)
    quiet, loud = suspend(flow, children=[child(1)]), logging(suspend(flow, children=[child(1)]), *LINES)
    calls = [marshal.exchange_call(worker.request(workflow_commits=[commit])) for commit in (quiet, loud)]

    assert [marshal.EXCHANGE, marshal.EXCHANGE_LOGGING] == [call for call, _ in calls]
    assert 3 == len(calls[1][1]) - len(calls[0][1])
