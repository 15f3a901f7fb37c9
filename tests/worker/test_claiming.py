"""What a worker takes, and that nothing it took waits for what takes long."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from rhythm.worker.exchange import BATCH_FIRST, Exchange, Work
from rhythm.worker.lanes import WAITING_MAX, Lane
from rhythm.worker.signals import Signals
from tests.worker.conftest import Shop


class Busy(Work):
    """A worker of plain tasks, of which ``waiting`` wait, and each of which takes ``seconds`` of the loop."""

    def __init__(self, waiting: int, seconds: float) -> None:
        self.lane = Lane(["any"], 1, ahead=WAITING_MAX)
        self.lane.name_ids = [1]
        self.lane.average = seconds
        nothing: Any = None
        self.lane.waiting.extend([nothing] * waiting)

    def lanes(self) -> list[Lane]:
        return [self.lane]

    def workflows_ahead(self) -> int:
        return 0


def wanted(batch: int, waiting: int, seconds: float) -> int:
    nothing: Any = None
    exchange = Exchange(
        nothing, uuid.uuid4(), Busy(waiting, seconds), queues=[1], singles=[], poll_interval=1,
        signals=Signals(), fail_point=None,
    )  # fmt: skip
    exchange.batch = batch
    heartbeat: Any = SimpleNamespace(has_beaten=True)
    exchange.heartbeat = heartbeat
    return sum(count for _, count, _ in exchange._wanted()[0])


@pytest.mark.parametrize(
    ("batch", "waiting", "seconds", "tasks"),
    [
        (BATCH_FIRST, 0, 0.0, BATCH_FIRST),  # nothing is known yet
        (4000, 0, 0.0, 500),
        (500, 0, 0.0001, 500),
        (500, 0, 0.001, 1 + 100),
        (500, 0, 0.03, 1 + 3),
        (500, 0, 7.0, 1),
        (500, WAITING_MAX - 20, 0.0, 1 + 20),
        (500, WAITING_MAX + 1, 0.0, 0),
    ],
)
def test_a_batch_is_as_large_as_a_tenth_of_a_second_allows(
    batch: int, waiting: int, seconds: float, tasks: int
) -> None:
    assert tasks == wanted(batch, waiting, seconds)


async def test_one_slow_member_of_a_batch_holds_up_nobody(shop: Shop) -> None:
    slow = await shop.client.start("blocks", {"seconds": 5.0}, priority=5)
    others = [await shop.client.start("plain", {"i": i}) for i in range(20)]
    worker = shop.worker()
    results = [await other.result(timeout=30) for other in others]
    info = await slow.refresh()

    assert [2 * i for i in range(20)] == results
    assert "running" == info.status
    assert worker.pid == await slow.result(timeout=30)
    for other in others:
        assert (await other.refresh()).attempts == 1


async def test_one_outcome_that_cannot_be_stored_fails_alone_among_five_hundred(shop: Shop) -> None:
    """The database itself refuses it, as it would a value that no check before it knew of."""
    await shop.query(
        "create function refuse() returns trigger language plpgsql as $$ begin "
        "raise exception 'not this one' using errcode = '22P02'; end $$"
    )
    await shop.query(
        "create trigger refuse before insert on rhythm.outcomes for each row "
        "when (new.payload = '\\x01323436'::bytea) execute function refuse()"
    )
    ids = [e.id for e in [await shop.client.start("plain", {"i": i}) for i in range(500)]]
    worker = shop.worker()
    await shop.until(lambda: finished(shop, 500), "all have an outcome")
    rows = await shop.query(
        "select id, status, attempts, convert_from(substring(payload from 2), 'UTF8') as text from rhythm.outcomes"
    )
    by_id = {row["id"]: row for row in rows}
    culprit = by_id.pop(ids[123])

    assert (2, 1) == (culprit["status"], culprit["attempts"])
    assert "OutcomeRefused" == json.loads(culprit["text"])["name"]
    assert "not this one" in json.loads(culprit["text"])["message"]
    assert {(1, 1)} == {(row["status"], row["attempts"]) for row in by_id.values()}
    assert {id_: str(2 * i) for i, id_ in enumerate(ids) if i != 123} == {id_: r["text"] for id_, r in by_id.items()}
    assert worker.alive
    assert [] == list(await shop.client.store.breaches())


async def finished(shop: Shop, count: int) -> bool:
    (row,) = await shop.query("select count(*) as n from rhythm.outcomes")
    return bool(row["n"] == count)
