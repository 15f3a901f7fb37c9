"""A start that brings a signal: for whoever runs under the key, in one transaction."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import pytest

import rhythm
from rhythm import faults
from rhythm.errors import InvalidInput, SignalRefused
from rhythm.model import NewExecution, NewSignal, StartResult, new_id
from tests.store.bench import Bench, Worker, another_session, end, new_execution, suspend, waiting_for_locks


@pytest.fixture
async def worker(bench: Bench) -> Worker:
    await bench.publish("cart")
    return await bench.worker("work")


def adding(item: int, name: str = "cart", **options: Any) -> NewExecution:
    options.setdefault("key", "k")
    signal = NewSignal("add", b"%d" % item, options.pop("send_id", None) or new_id())
    return new_execution(name, signal=signal, **options)


async def start(bench: Bench, *starts: NewExecution) -> list[StartResult]:
    return await bench.store.start(starts)


async def test_the_first_starts_and_the_others_only_signal(bench: Bench, worker: Worker) -> None:
    results = [(await start(bench, adding(i)))[0] for i in range(3)]
    claim = await worker.claim_one()

    assert ["started", "existing", "existing"] == [r.status for r in results]
    assert {claim.id} == {r.id for r in results}
    assert [("add", b"0"), ("add", b"1"), ("add", b"2")] == [(d.name, d.payload) for d in claim.deliveries]


async def test_a_suspended_execution_is_woken(bench: Bench, worker: Worker) -> None:
    await start(bench, adding(0))
    await worker.commit(suspend(await worker.claim_one()))
    await start(bench, adding(1))
    claim = await worker.claim_one()

    assert [b"1"] == [d.payload for d in claim.deliveries]


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "pruned"])
async def test_a_finished_execution_gives_way_to_a_new_one(bench: Bench, worker: Worker, how: str) -> None:
    (first,) = await start(bench, adding(0))
    await worker.commit(end(await worker.claim_one(), "completed" if how == "pruned" else how))
    if how == "pruned":
        await bench.pass_time(200)
        await bench.store.maintain(worker.incarnation, retention_seconds=100)
    (second,) = await start(bench, adding(1, inputs=b'{"other":1}'))
    claim = await worker.claim_one()

    assert "started" == second.status
    assert first.id != second.id
    assert (second.id, [b"1"]) == (claim.id, [d.payload for d in claim.deliveries])


async def test_other_inputs_are_a_conflict_while_it_runs_and_nothing_is_sent(bench: Bench, worker: Worker) -> None:
    (first,) = await start(bench, adding(0))
    (second,) = await start(bench, adding(1, inputs=b"[1]"))
    claim = await worker.claim_one()

    assert (first.id, "refused", "key_conflict") == (second.id, second.status, second.code)
    assert [b"0"] == [d.payload for d in claim.deliveries]


async def test_without_a_key_each_is_started(bench: Bench, worker: Worker) -> None:
    results = await start(bench, adding(0, key=None), adding(1, key=None), new_execution("cart"))
    claims = {claim.id: claim for claim in await worker.claim()}

    assert ["started"] * 3 == [r.status for r in results]
    assert [[b"0"], [b"1"], []] == [[d.payload for d in claims[r.id].deliveries] for r in results]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("first_of_all", [False, True])
async def test_repeating_it_sends_nothing_twice(bench: Bench, worker: Worker, ended: bool, first_of_all: bool) -> None:
    if not first_of_all:
        await start(bench, adding(0))
    repeated = adding(7)
    (before,) = await start(bench, repeated)
    if ended:
        await worker.commit(end(await worker.claim_one()))
        (successor,) = await start(bench, adding(8))
    (again,) = await start(bench, repeated)
    received = [d.payload for claim in await worker.claim() for d in claim.deliveries]

    assert (before.id, "existing") == (again.id, again.status)
    if ended:
        assert successor.id != before.id
        assert [b"8"] == received
    else:
        assert ([] if first_of_all else [b"0"]) + [b"7"] == received


async def test_a_hundred_at_once_are_one_execution_with_a_hundred_signals(bench: Bench, worker: Worker) -> None:
    results = await asyncio.gather(*(start(bench, adding(i)) for i in range(100)))
    claim = await worker.claim_one()

    assert 1 == len({result.id for (result,) in results})
    assert set(range(100)) == {json.loads(d.payload or b"") for d in claim.deliveries}


async def test_a_hundred_in_one_call_are_one_execution_with_a_hundred_signals_in_order(
    bench: Bench, worker: Worker
) -> None:
    results = await start(bench, *(adding(i) for i in range(100)))
    claim = await worker.claim_one()

    assert {claim.id} == {result.id for result in results}
    assert list(range(100)) == [json.loads(d.payload or b"") for d in claim.deliveries]


async def test_the_end_and_a_signal_at_the_same_moment(bench: Bench, worker: Worker) -> None:
    """The signal waits for the end to be committed, sees it, and is for a new execution."""
    (first,) = await start(bench, adding(0))
    claim = await worker.claim_one()
    async with another_session(bench) as session:
        await session.execute("select rhythm.lock_workflows(array[$1::uuid])", first.id)
        ending = asyncio.create_task(worker.commit(end(claim)))
        await waiting_for_locks(bench, 1)
        sending = asyncio.create_task(start(bench, adding(1)))
        await waiting_for_locks(bench, 2)
        await session.execute("commit")
        await ending
        (second,) = await sending
    later = await worker.claim()

    assert ("started", [second.id]) == (second.status, [c.id for c in later])
    assert [b"1"] == [d.payload for d in later[0].deliveries]


async def test_too_many_unread_signals_and_tasks_are_refused_as_a_whole(bench: Bench, worker: Worker) -> None:
    (first,) = await start(bench, adding(0))
    await bench.raw.execute("update rhythm.waits set unread_signals = 10000")
    with pytest.raises(SignalRefused):
        await start(bench, adding(1))
    with pytest.raises(InvalidInput, match="only workflows take signals"):
        await start(bench, adding(1, "work"))
    await bench.raw.execute("update rhythm.waits set unread_signals = 1")

    assert [first.id] == [info.id for info in await bench.store.list()]


async def test_by_plain_sql(bench: Bench, worker: Worker) -> None:
    call = "select rhythm.start('cart', '{}', p_key => 'k', p_signal => 'add', p_signal_payload => $1, p_send_id => $2)"
    send_id = new_id()
    ids = {await bench.raw.fetchval(call, str(i), send_id if i == 1 else new_id()) for i in (0, 1, 1)}
    claim = await worker.claim_one()
    for name, payload, send in (("", "1", send_id), ("add", None, send_id), ("add", "1", None)):
        with pytest.raises(asyncpg.PostgresError, match="a signal needs"):
            await bench.raw.fetchval(call.replace("'add'", f"'{name}'"), payload, send)

    assert {claim.id} == ids
    assert [b"0", b"1"] == [d.payload for d in claim.deliveries]


async def test_the_client_signals_with_a_start(bench: Bench, worker: Worker) -> None:
    async with rhythm.connect(bench.store.url) as client:
        executions = [await client.start("cart", {}, key="k", signal="add", signal_payload={"i": i}) for i in range(2)]
        async with bench.raw.transaction():
            executions.append(await client.start("cart", {}, key="k", signal="add", connection=bench.raw))
        await client.start_many([rhythm.Start("cart", {}, key="k", signal="stop")])
        await asyncio.gather(*(client.start("cart", {}, key="k", signal="add", signal_payload=i) for i in range(50)))
    claim = await worker.claim_one()

    assert {claim.id} == {execution.id for execution in executions}
    assert [("add", b'{"i":0}'), ("add", b'{"i":1}'), ("add", b"null"), ("stop", b"null")] == [
        (d.name, d.payload) for d in claim.deliveries[:4]
    ]
    assert 54 == len(claim.deliveries)


@pytest.mark.parametrize("moment", faults.MOMENTS)
async def test_its_answer_is_lost_and_it_happens_once(bench: Bench, worker: Worker, moment: str) -> None:
    for count in (1, 2):
        with faults.active(f"start_many.{moment}:{count}:drop") as point:
            async with rhythm.connect(bench.store.url) as client:
                for i in range(2):
                    await client.start("cart", {}, key=f"k{count}", signal="add", signal_payload=i)
        assert point.acted
    claims = await worker.claim()

    assert [[b"0", b"1"]] * 2 == [[d.payload for d in claim.deliveries] for claim in claims]


@pytest.mark.parametrize(
    "options",
    [
        {"signal": ""},
        {"signal": "a\0"},
        {"signal_payload": 1},
        {"send_id": uuid.uuid4()},
        {"signal": "add", "key_policy": "replace"},
        {"signal": "add", "signal_payload": object()},
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    client = rhythm.connect("postgresql://nobody@localhost:1/none")
    with pytest.raises(InvalidInput):
        await client.start("cart", {}, **options)
