"""Plays worker and client against a real store, one step at a time, under a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from rhythm.model import (
    Claim,
    Continuation,
    ExchangeRequest,
    ExchangeResult,
    ExecutionInfo,
    NewChild,
    NewDefinition,
    NewExecution,
    NewTimer,
    RegisterResult,
    StartResult,
    TaskOutcome,
    TaskRegistration,
    WakeGroup,
    WorkerRegistration,
    WorkflowCommit,
    WorkflowOutcome,
    new_id,
)
from rhythm.store import Store

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
OK = b'{"ok":true}'
ERROR = b'{"name":"Error","message":"no","type":"failed"}'


class Worker:
    """An incarnation; methods are its exchanges."""

    def __init__(self, bench: Bench, incarnation: uuid.UUID, registered: RegisterResult) -> None:
        self.bench = bench
        self.incarnation = incarnation
        self.registered = registered

    def request(self, *, task_limit: int = 0, **changes: Any) -> ExchangeRequest:
        """An exchange of this incarnation, on its queues; with a limit also on its names, all together."""
        names = list(self.registered.names.values()) if task_limit else []
        given: dict[str, Any] = {
            "incarnation": self.incarnation,
            "queues": list(self.registered.queues.values()),
            "names": names,
            "task_limits": [(len(names), task_limit)] if names else [],
        }
        return ExchangeRequest(**{**given, **changes})

    async def exchange(self, **changes: Any) -> ExchangeResult:
        return await self.bench.store.exchange(self.request(**changes))

    async def claim(self, tasks: int = 100, workflows: int = 100, **changes: Any) -> list[Claim]:
        return (await self.exchange(task_limit=tasks, workflow_limit=workflows, **changes)).claims

    async def claim_one(self, **changes: Any) -> Claim:
        claims = await self.claim(**changes)
        assert len(claims) == 1, claims
        return claims[0]

    async def complete(self, *claims: Claim, payload: bytes = OK, **changes: Any) -> ExchangeResult:
        outcomes = [TaskOutcome(c.token, c.id, "completed", payload) for c in claims]
        return await self.exchange(task_outcomes=outcomes, **changes)

    async def fail(self, *claims: Claim, retryable: bool = True, after: float | None = None) -> ExchangeResult:
        outcomes = [TaskOutcome(c.token, c.id, "failed", ERROR, retryable, after) for c in claims]
        return await self.exchange(task_outcomes=outcomes)

    async def commit(self, *commits: WorkflowCommit, **changes: Any) -> ExchangeResult:
        return await self.exchange(workflow_commits=commits, **changes)

    async def heartbeat(self) -> frozenset[uuid.UUID]:
        return (await self.bench.store.heartbeat(self.incarnation)).cancels

    async def held(self) -> dict[uuid.UUID, int]:
        """The tokens of everything it holds."""
        return {c.id: c.token for c in (await self.bench.store.held(self.incarnation)).claims}


class Bench:
    """A store, a raw connection beside it, and a clock in the test's hand."""

    def __init__(self, store: Store, raw: asyncpg.Connection) -> None:
        self.store = store
        self.raw = raw
        self.now = BEGINNING

    @classmethod
    @asynccontextmanager
    async def on(cls, url: str) -> AsyncIterator[Bench]:
        raw = await asyncpg.connect(url)
        store = await Store.connect(url)
        try:
            bench = cls(store, raw)
            await bench.set_clock(BEGINNING)
            yield bench
        finally:
            await store.close()
            await raw.close()

    async def set_clock(self, now: datetime) -> None:
        self.now = now
        await self.raw.execute("update rhythm.clock set frozen_at = $1", now)

    async def pass_time(self, seconds: float) -> None:
        await self.set_clock(self.now + timedelta(seconds=seconds))

    async def worker(
        self,
        *tasks: str | TaskRegistration,
        queues: Sequence[str] = ("default",),
        workflows: bool = True,
        heartbeat_timeout: float = 100_000.0,
    ) -> Worker:
        registrations = [TaskRegistration(t) if isinstance(t, str) else t for t in tasks]
        incarnation = new_id()
        registered = await self.store.register_worker(
            WorkerRegistration(incarnation, "host", 1, heartbeat_timeout, queues, registrations, workflows)
        )
        return Worker(self, incarnation, registered)

    async def start(self, name: str = "work", **options: Any) -> uuid.UUID:
        result = await self.start_result(name, **options)
        assert result.status in ("started", "replaced"), result
        return result.id

    async def start_result(self, name: str = "work", **options: Any) -> StartResult:
        return (await self.store.start([new_execution(name, **options)]))[0]

    async def start_many(self, count: int, name: str = "work", **options: Any) -> list[uuid.UUID]:
        results = await self.store.start([new_execution(name, **options) for _ in range(count)])
        return [result.id for result in results]

    async def publish(self, name: str, hash_: str = "h1") -> int:
        return (await self.store.publish([NewDefinition(name, hash_, b"{}", "workflow() {}", "s")]))[0]

    async def get(self, id_: uuid.UUID) -> ExecutionInfo:
        info = await self.store.get(id_)
        assert info is not None, id_
        return info

    async def status(self, id_: uuid.UUID) -> str:
        return (await self.get(id_)).status

    async def error(self, id_: uuid.UUID) -> dict[str, Any]:
        info = await self.get(id_)
        assert info.error is not None, info
        found: dict[str, Any] = json.loads(info.error)
        return found

    async def signal(
        self, id_: uuid.UUID, name: str = "go", payload: bytes = b"1", send_id: uuid.UUID | None = None
    ) -> None:
        await self.store.signal(id_, name, payload, send_id or new_id())

    async def raw_call(self, query: str) -> Any:
        """One statement on a connection of its own."""
        connection = await asyncpg.connect(self.store.url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def count(self, table: str) -> int:
        found: int = await self.raw.fetchval(f"select count(*) from rhythm.{table}")
        return found


def new_execution(name: str = "work", **options: Any) -> NewExecution:
    options.setdefault("id", new_id())
    return NewExecution(name=name, **options)


def child(operation: int, name: str = "work", kind: str = "task", **options: Any) -> NewChild:
    id_ = options.pop("id", None) or new_id()
    return NewChild(operation, id_, kind, name, options.pop("inputs", b"{}"), options)


def suspend(claim: Claim, *, snapshot: bytes = b"snapshot", **fields: Any) -> WorkflowCommit:
    """A commit that has taken in all deliveries of the claim and waits on."""
    children = fields.get("children", ())
    timers = fields.get("timers", ())
    seen = claim.deliveries[-1].number if claim.deliveries else 0
    fields.setdefault("outstanding", len(children) + len(timers) or 1)
    return WorkflowCommit(
        **{
            "token": claim.token,
            "id": claim.id,
            "version": claim.version,
            "seen_through": seen,
            "snapshot": snapshot,
            **fields,
        }
    )


def end(claim: Claim, status: str = "completed", payload: bytes = OK, **fields: Any) -> WorkflowCommit:
    seen = claim.deliveries[-1].number if claim.deliveries else 0
    outcome = WorkflowOutcome(status, payload, fields.pop("keep_snapshot", False))
    return WorkflowCommit(
        **{
            "token": claim.token,
            "id": claim.id,
            "version": claim.version,
            "seen_through": seen,
            "outcome": outcome,
            **fields,
        }
    )


def continuation(claim: Claim, **fields: Any) -> Continuation:
    """The next step of the parent that came along with a task."""
    parent = claim.parent
    assert parent is not None, "the claim has brought no parent"
    as_claim = Claim(0, parent.id, "workflow", parent.name, b"", 1, version=parent.version)
    build = end if "outcome" in fields else suspend
    fields.pop("outcome", None)
    return Continuation(child_id=claim.id, commit=build(as_claim, seen_through=parent.next_number, **fields))


def timer(operation: int, seconds: float) -> NewTimer:
    return NewTimer(operation, delay_ms=seconds * 1000)


def group(mode: str, *operations: int) -> WakeGroup:
    return WakeGroup(mode, operations)


@asynccontextmanager
async def another_session(bench: Bench) -> AsyncIterator[asyncpg.Connection]:
    """A connection with an open transaction, so that a test holds locks and still looks around on ``bench.raw``."""
    connection = await asyncpg.connect(bench.store.url)
    await connection.execute("begin")
    try:
        yield connection
    finally:
        await connection.close()


async def always_look(bench: Bench) -> None:
    """Marks are looked for however little a claim has walked, and are never thought needless."""
    await bench.raw.execute(
        "create or replace function rhythm.walk_limit() returns bigint language sql immutable "
        "as 'select -100000000::bigint'"
    )


#: Sessions of this database that wait for a lock. Within a transaction the server answers as it did at first.
LOCK_WAITS = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


async def waiting_for_locks(bench: Bench, count: int) -> None:
    """Returns when so many sessions of this database wait for a lock. Raises TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while len(await bench.raw.fetch(LOCK_WAITS)) < count:  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0)
