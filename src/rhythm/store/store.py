"""The store: one async method per SQL function of schema ``rhythm``. Nothing is decided here.

Every method may raise DatabaseUnavailable: the connection could not be made, or was lost, or the answer did not come in
time. Whether a write was committed is then unknown, and it is right to repeat it unchanged: starts and signals carry
their own ids; outcomes and commits are fenced by tokens that a committed exchange has used up, so the repetition is
refused member by member; and ``held`` tells what an incarnation holds if the answer with its claims was lost. Every
method may raise SchemaMismatch (migrate first). What else each may raise is said there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import asyncpg

from rhythm.errors import SchemaMismatch
from rhythm.model import (
    KEY_WINDOW_SECONDS,
    LOG_LEVELS,
    Claim,
    DefinitionInfo,
    ExchangeRequest,
    ExchangeResult,
    ExecutionInfo,
    GateInfo,
    HeartbeatResult,
    HeldResult,
    LogLine,
    MaintainResult,
    NewDefinition,
    NewExecution,
    OutcomeInfo,
    QueueInfo,
    QueueLimits,
    RegisterResult,
    SnapshotInfo,
    Standing,
    StartResult,
    WorkerInfo,
    WorkerRegistration,
)
from rhythm.store import migrations
from rhythm.store.codec import pack, text, unpack, unpack_snapshot
from rhythm.store.connection import CALL_TIMEOUT_SECONDS, Database
from rhythm.store.marshal import (
    MEMBERS_BITS,
    Reports,
    distinct,
    exchange_call,
    exchange_result,
    json_text,
    milliseconds,
    retokened,
    step_call,
    step_result,
    task_claims,
    workflow_claims,
)
from rhythm.store.starts import START_TYPES, start_arguments, start_results

PROTOCOL = 2  #: the number of rhythm.protocol() that this release's workers understand
_START = "select * from rhythm.start_many(" + ", ".join(f"${i}::{t}" for i, t in enumerate(START_TYPES, 1)) + ")"  # noqa: S608 - built of constants


class Store:
    """Rhythm's database. Made by ``await Store.connect(url)``; ``close()`` it at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: dict[int, str] = {}
        self._queues: dict[int, str] = {}

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        pool_min: int = 1,
        pool_max: int = 10,
        pooler: bool = False,
        application_name: str = "rhythm",
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> Store:
        """Connects. ``pooler``: no prepared statements are kept. ``timeout``: of one call, seconds, default 30.

        The schema need not be there yet. Raises DatabaseUnavailable, or InvalidInput for a URL that is none.
        """
        return cls(
            await Database.connect(
                url,
                pool_min=pool_min,
                pool_max=pool_max,
                pooler=pooler,
                application_name=application_name,
                timeout=timeout,
            )
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._database.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """Where it is connected to, password included."""
        return self._database.url

    # Schema

    async def migrate(self) -> list[str]:
        """Brings the schema up to date; returns the names of the steps applied. Safe to call from many places."""
        async with self._database.transaction() as connection:
            return await migrations.migrate(connection)

    async def schema_version(self) -> int:
        """The version of the schema in the database; 0: there is none."""
        return (await self.schema_status()).version

    async def schema_status(self) -> migrations.SchemaStatus:
        """How the schema in the database relates to this release."""
        return await migrations.status(self._database)

    # Starting

    async def start(self, starts: Sequence[NewExecution]) -> list[StartResult]:
        """Starts executions, all or nothing but for keys: one result each, in order; "refused" ones have a code.

        At most START_COUNT_MAX. Raises StartRefused (``unknown_definition``), InvalidInput for texts that cannot be
        stored.
        """
        return await self.prepare_start(starts)() if starts else []

    def prepare_start(self, starts: Sequence[NewExecution]) -> Callable[[], Coroutine[Any, Any, list[StartResult]]]:
        """The call that ``start`` makes, ready to be made, also repeatedly. Raises InvalidInput."""
        arguments = start_arguments(starts)

        async def call() -> list[StartResult]:
            row = await self._database.fetchrow(_START, *arguments)
            return start_results(row["o_ids"], row["o_statuses"])

        return call

    async def publish(self, definitions: Sequence[NewDefinition]) -> list[int]:
        """Stores definitions and makes each the current one of its name. Returns their ids, in order."""
        ids: list[int] = await self._database.fetchval(
            "select rhythm.publish($1, $2, $3, $4, $5)",
            [text(d.name, "name") for d in definitions],
            [d.hash for d in definitions],
            [d.ir for d in definitions],
            [text(d.source, "source") for d in definitions],
            [d.source_hash for d in definitions],
        )
        return ids or []

    async def count_staying(self, name: str, hash_: str) -> int:
        """How many unfinished executions of a workflow run another definition than the one with this hash."""
        return int(await self._database.fetchval("select rhythm.count_staying($1, $2)", text(name, "name"), hash_))

    async def task_schemas(self, names: Collection[str] | None) -> dict[str, Any]:
        """The JSON Schemas of the inputs of those of these tasks (None: all) that a worker has registered, by name."""
        storable = None
        if names is not None:
            storable = [n for n in sorted(names) if n == n.replace("\0", "").encode(errors="ignore").decode()]
        rows = await self._database.fetch("select * from rhythm.task_schemas($1)", storable)
        return {row["name"]: json.loads(row["input_schema"]) for row in rows}

    async def definition(self, reference: int | str) -> DefinitionInfo | None:
        """The definition with this id (int) or hash (str), or None."""
        if isinstance(reference, int):
            return await self._definition(reference, None, None)
        return await self._definition(None, reference, None)

    async def current_definition(self, name: str) -> DefinitionInfo | None:
        """The definition that new executions of this workflow use, or None."""
        return await self._definition(None, None, text(name, "name"))

    async def _definition(self, id_: int | None, hash_: str | None, name: str | None) -> DefinitionInfo | None:
        row = await self._database.fetchrow(
            "select * from rhythm.definition($1::bigint, $2::text, $3::text)", id_, hash_, name
        )
        return None if row is None else DefinitionInfo(**row)

    # Workers

    async def register_worker(self, registration: WorkerRegistration) -> RegisterResult:
        """Registers an incarnation, or updates its registration. Raises SchemaMismatch for another protocol."""
        protocol = await self._database.fetchval("select rhythm.protocol()")
        if protocol != PROTOCOL:
            raise SchemaMismatch(
                f"the database speaks protocol {protocol}, this release of Rhythm {PROTOCOL}: "
                + (
                    "run `rhythm migrate`"
                    if protocol < PROTOCOL
                    else "use the release that migrated it, or a newer one"
                )
            )
        tasks = registration.tasks
        queue, queues = distinct(text(t.queue, "queue") for t in tasks)
        names = [text(t.name, "name") for t in tasks]
        own_queues = list(dict.fromkeys(text(q, "queue") for q in registration.queues))
        row = await self._database.fetchrow(
            "select * from rhythm.register_worker($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            registration.incarnation,
            text(registration.host, "host"),
            registration.pid,
            registration.version,
            milliseconds(registration.heartbeat_timeout_seconds),
            registration.workflows,
            own_queues,
            names,
            [queues[(q or 1) - 1] for q in queue],
            [t.retries for t in tasks],
            [json_text(t.retry) for t in tasks],
            [milliseconds(t.timeout_seconds) or 0 for t in tasks],
            [t.priority for t in tasks],
            [json_text(t.input_schema) for t in tasks],
        )
        ids = dict(zip(names, row["o_names"], strict=True))
        queue_ids = dict(zip(own_queues, row["o_queues"], strict=True))
        self._names.update((id_, name) for name, id_ in ids.items())
        self._queues.update((id_, name) for name, id_ in queue_ids.items())
        plain_only = bool(await self._database.fetchval("select rhythm.reads_plain_only()"))
        return RegisterResult(queue_ids, ids, row["o_returned"], row["o_conflicts"], plain_only)

    async def unregister_worker(self, incarnation: uuid.UUID) -> None:
        """Ends an incarnation; what it still holds counts as lost. No error if it is not registered."""
        await self._database.execute("select rhythm.unregister_worker($1)", incarnation)

    async def exchange(self, request: ExchangeRequest) -> ExchangeResult:
        """Outcomes and commits in, claims out, one transaction. Raises IncarnationDead."""
        step = step_call(request)
        if step is not None:
            result = await self._step(request, *step)
            if result is not None:
                return result
        call, arguments = exchange_call(request)
        row = await self._database.fetchrow(call, *arguments)
        await self._know(row)
        return exchange_result(row, request, self._names.__getitem__, self._queues.__getitem__)

    async def _step(self, request: ExchangeRequest, call: str, arguments: Sequence[Any]) -> ExchangeResult | None:
        """The same by rhythm.step, or None if that does not apply: then nothing was done."""
        try:
            row = await self._database.fetchrow(call, *arguments)
        except asyncpg.UniqueViolationError:  # the child's id is in use
            return None
        if row["o_claim"] is None:
            return None
        await self._know_ids((row["o_parent_name"],), (row["o_queue"],))
        return step_result(row, request, self._names.__getitem__, self._queues.__getitem__)

    async def heartbeat(self, incarnation: uuid.UUID) -> HeartbeatResult:
        """Keeps the incarnation alive. Raises IncarnationDead."""
        return HeartbeatResult(frozenset(await self._database.fetchval("select rhythm.heartbeat($1)", incarnation)))

    async def note_progress(self, incarnation: uuid.UUID, notes: Mapping[uuid.UUID, bytes]) -> None:
        """Notes how far executions are (JSON); those that the incarnation does not hold are passed over."""
        if notes:
            values = [pack(value) for value in notes.values()]
            await self._database.execute("select rhythm.note_progress($1, $2, $3)", incarnation, [*notes], values)

    async def maintain(
        self,
        incarnation: uuid.UUID,
        *,
        retention_seconds: float | None = None,
        key_window_seconds: float = KEY_WINDOW_SECONDS,
    ) -> MaintainResult:
        """Does what is due. ``retention_seconds``: how long finished executions are kept; None: for ever.

        ``key_window_seconds``: how long their idempotency keys are kept at least, from the start that took them.
        """
        row = await self._database.fetchrow(
            "select * from rhythm.maintain($1::double precision, $2::double precision)",
            retention_seconds,
            key_window_seconds,
        )
        return MaintainResult(row["o_next_due"], row["o_moved"], row["o_reclaimed"], row["o_more"])

    async def held(self, incarnation: uuid.UUID, known: Sequence[Claim] = (), *, epoch: int = 0) -> HeldResult:
        """What the incarnation holds according to the database, compared with what it believes to hold.

        To be asked after an answer was lost. ``tokens`` has those of ``known`` that are still held; drop the others,
        with all that was to be reported of them. ``claims`` are new, even where their id was known before: the lost
        exchange may have taken in a report and claimed the same execution again. ``epoch``: one more than in the
        exchanges before. It waits for those that still run on the server, and those that come later are refused.
        """
        row = await self._database.fetchrow(
            "select * from rhythm.held($1, $2, $3, $4, $5)",
            incarnation,
            epoch,
            [c.id for c in known],
            [c.attempt for c in known],
            [c.version for c in known],
        )
        if row["m_ids"] is None:
            return HeldResult({}, [])
        await self._know(row)
        ids = row["m_ids"]
        tokens = [c << MEMBERS_BITS | p for c, p in zip(row["m_claims"], row["m_positions"], strict=True)]
        claims = []
        if row["t_members"] is not None:
            chosen = [i - 1 for i in row["t_members"]]
            claims = task_claims(
                row,
                [tokens[i] for i in chosen],
                [ids[i] for i in chosen],
                self._names.__getitem__,
                self._queues.__getitem__,
                {},
            )
        if row["w_members"] is not None:
            chosen = [i - 1 for i in row["w_members"]]
            claims += workflow_claims(
                row,
                [tokens[i] for i in chosen],
                [ids[i] for i in chosen],
                self._names.__getitem__,
                self._queues.__getitem__,
            )
        same = zip(ids, tokens, row["m_known"], strict=True)
        return HeldResult({id_: token for id_, token, known_ in same if known_}, claims)

    async def hand_back(self, incarnation: uuid.UUID, members: Sequence[tuple[int, uuid.UUID]]) -> HeldResult:
        """Gives back members (token, id) that were not run, uncharged; those fenced before are passed over.

        Returns, as ``tokens``, the new tokens of the members of batches that this has split.
        """
        if not members:
            return HeldResult({}, [])
        arguments = Reports(ExchangeRequest(incarnation=incarnation, hand_backs=members)).arguments()
        row = await self._database.fetchrow(
            "select * from rhythm.hand_back($1, $2, $3, $4, $5, $6)", incarnation, *arguments[:3], *arguments[6:]
        )
        return HeldResult(retokened(row["o_new_ids"], row["o_new_claims"]), [])

    async def _know(self, row: Mapping[str, Any]) -> None:
        """Learns the names and queues that an answer mentions by id."""
        tasks, workflows = row["t_names"], row["w_names"]
        if tasks is not None or workflows is not None:
            await self._know_ids(
                (*(tasks or ()), *(workflows or ()), *(row.get("c_names") or ())),
                (*(row["t_queues"] or ()), *(row["w_queues"] or ())),
            )

    async def _know_ids(self, names: Sequence[int], queues: Sequence[int]) -> None:
        if not self._names.keys() >= set(names):
            rows = await self._database.fetch("select id, name from rhythm.names where id = any($1)", [*names])
            self._names.update((r["id"], r["name"]) for r in rows)
        if not self._queues.keys() >= set(queues):
            rows = await self._database.fetch("select id, name from rhythm.queues where id = any($1)", [*queues])
            self._queues.update((r["id"], r["name"]) for r in rows)

    # Signals and cancellation

    async def signal(self, execution_id: uuid.UUID, name: str, payload: bytes, send_id: uuid.UUID) -> None:
        """Sends a signal; the same send id again does nothing.

        Raises ExecutionNotFound, ExecutionFinished, SignalRefused, and InvalidInput when it is a task.
        """
        await self._database.execute(
            "select rhythm.signal($1, $2, $3, $4)", execution_id, text(name, "name"), pack(payload), send_id
        )

    async def cancel(self, execution_id: uuid.UUID) -> None:
        """Asks for an execution to be cancelled. Raises ExecutionNotFound, ExecutionFinished."""
        await self._database.execute("select rhythm.cancel($1)", execution_id)

    async def terminate(self, execution_id: uuid.UUID) -> None:
        """Ends an execution as cancelled, and runs no more of it. Raises ExecutionNotFound, ExecutionFinished."""
        await self._database.execute("select rhythm.terminate($1)", execution_id)

    async def retry(self, execution_id: uuid.UUID, retry_id: uuid.UUID) -> None:
        """Gives a failed task another attempt, or resumes a failed workflow; the same retry id again does nothing.

        Raises ExecutionNotFound, RetryRefused.
        """
        await self._database.execute("select rhythm.retry($1, $2)", execution_id, retry_id)

    async def start_again(self, execution_id: uuid.UUID, new_id: uuid.UUID) -> None:
        """Starts what a failed execution was to do as a new one, with this id; the same id again does nothing.

        Raises ExecutionNotFound, RetryRefused.
        """
        await self._database.execute("select rhythm.start_again($1, $2)", execution_id, new_id)

    # Questions

    async def outcomes(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, OutcomeInfo | None]:
        """The outcomes of those that exist; None while one has not finished."""
        rows = await self._database.fetch("select * from rhythm.outcomes_of($1)", list(ids))
        return {
            row["id"]: None
            if row["status"] is None
            else OutcomeInfo(
                row["id"], row["status"], unpack(row["payload"]), row["attempts"], row["lost"], row["finished_at"]
            )
            for row in rows
        }

    async def get(self, execution_id: uuid.UUID) -> ExecutionInfo | None:
        """What is known of an execution, or None if there is none with this id."""
        row = await self._database.fetchrow("select * from rhythm.list_executions(p_id => $1)", execution_id)
        return None if row is None else _execution(row)

    async def list(
        self,
        *,
        status: str | Sequence[str] | None = None,
        name: str | None = None,
        kind: str | None = None,
        queue: str | None = None,
        parent_id: uuid.UUID | None = None,
        tags: Mapping[str, Any] | None = None,
        before: uuid.UUID | None = None,
        limit: int = 100,
        key: str | None = None,
    ) -> list[ExecutionInfo]:
        """Executions that fit everything given, newest first; ``before``: the last id of the page before."""
        rows = await self._database.fetch(
            "select * from rhythm.list_executions(null, $1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [status] if isinstance(status, str) else status,
            name, kind, queue, parent_id, json_text(tags), before, limit, key,
        )  # fmt: skip
        return [_execution(row) for row in rows]

    async def children(self, parent_id: uuid.UUID, operations: Sequence[int]) -> Sequence[ExecutionInfo]:
        """The children that stand for these operations of a workflow."""
        rows = await self._database.fetch("select * from rhythm.children_of($1, $2)", parent_id, list(operations))
        return [_execution(row) for row in rows]

    async def snapshot(self, execution_id: uuid.UUID) -> SnapshotInfo | None:
        """A workflow's last snapshot, or None. Raises SnapshotError when it cannot be expanded."""
        row = await self._database.fetchrow("select * from rhythm.snapshot_of($1)", execution_id)
        if row is None:
            return None
        standing = Standing(row["line"], row["function"], unpack(row["awaiting"]))
        data = unpack_snapshot(row["snapshot"])
        return SnapshotInfo(row["id"], row["version"], row["definition_id"], data, standing, row["taken_at"])

    async def logs(
        self, execution_id: uuid.UUID, *, after: int = 0, level: str = "debug", newest: int | None = None
    ) -> Sequence[LogLine]:
        """The log of an execution: the lines above a number, of at least a level; of these the ``newest`` so many.

        Raises ExecutionNotFound.
        """
        rows = await self._database.fetch(
            "select * from rhythm.logs_of($1, $2, $3, $4)", execution_id, after, LOG_LEVELS.index(level) + 1, newest
        )
        return [
            LogLine(row["number"], LOG_LEVELS[row["level"] - 1], row["logged_at"], json.loads(unpack(row["text"])))
            for row in rows
        ]

    async def queues(self) -> Sequence[QueueInfo]:
        """The figures of all queues."""
        return [QueueInfo(**row) for row in await self._database.fetch("select * from rhythm.list_queues()")]

    async def workers(self) -> Sequence[WorkerInfo]:
        """The live worker incarnations."""
        return [WorkerInfo(**row) for row in await self._database.fetch("select * from rhythm.list_workers()")]

    async def can_run(self, execution_id: uuid.UUID) -> bool:
        """Whether a live worker could run this execution now."""
        return bool(await self._database.fetchval("select rhythm.can_run($1)", execution_id))

    async def pause_queue(self, queue: str, paused: bool = True) -> None:
        """Stops (or resumes) claiming from a queue. Raises ExecutionNotFound when there is no such queue."""
        await self._database.execute("select rhythm.pause_queue($1, $2)", text(queue, "queue"), paused)

    async def limit_queue(self, queue: str, limits: QueueLimits, *, known: bool = False) -> bool:
        """Sets a queue's limits; with all of them None there are none. Returns whether that changed anything.

        ``known``: raise ExecutionNotFound when there is no such queue; otherwise it is made.
        """
        rate, key_rate = limits.rate or (None, None), limits.key_rate or (None, None)
        return bool(
            await self._database.fetchval(
                "select rhythm.limit_queue($1, $2, $3, $4, $5, $6, $7, $8)",
                text(queue, "queue"), limits.concurrency, *rate, limits.key_concurrency, *key_rate, known,
            )
        )  # fmt: skip

    async def gate(self, execution_id: uuid.UUID) -> GateInfo | None:
        """Why an execution waits at the gate of its queue; None when it does not."""
        row = await self._database.fetchrow("select * from rhythm.gate_of($1)", execution_id)
        return None if row is None else GateInfo(**row)

    async def breaches(self) -> Sequence[tuple[str, uuid.UUID | None, str]]:
        """What breaks an invariant right now: (invariant, execution, what is wrong). Empty is as it must be."""
        rows = await self._database.fetch("select * from rhythm.find_breaches()")
        return [(row["invariant"], row["execution_id"], row["problem"]) for row in rows]


def _execution(row: Mapping[str, Any]) -> ExecutionInfo:
    payload = row["outcome_payload"]
    payload = None if payload is None else unpack(payload)
    completed = row["status"] == "completed"
    return ExecutionInfo(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        status=row["status"],
        reason=row["reason"],
        queue=row["queue"],
        priority=row["priority"],
        key=row["key"],
        tags=None if row["tags"] is None else json.loads(row["tags"]),
        inputs=unpack(row["inputs_payload"]),
        output=payload if completed else None,
        error=None if completed else payload,
        attempts=row["attempts"],
        lost=row["lost"],
        parent_id=row["parent_id"],
        root_id=row["root_id"],
        definition_hash=row["definition_hash"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        available_at=row["available_at"],
        operation=row["operation"],
        last_failure=None if row["failure_payload"] is None else unpack(row["failure_payload"]),
        last_failure_at=row["last_failure_at"],
        limit_key=row["limit_key"],
        progress=None if row["progress_payload"] is None else unpack(row["progress_payload"]),
        progress_at=row["progress_at"],
    )
