"""The store: one async method per SQL function of schema ``rhythm``.

Signatures first; see the methods.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rhythm.model import (
    DefinitionInfo,
    ExchangeRequest,
    ExchangeResult,
    ExecutionInfo,
    HeartbeatResult,
    HeldResult,
    MaintainResult,
    NewDefinition,
    NewExecution,
    OutcomeInfo,
    QueueInfo,
    RegisterResult,
    SnapshotInfo,
    StartResult,
    WorkerInfo,
    WorkerRegistration,
)


class StoreMethods(Protocol):
    """What Store offers (``await Store.connect(url, *, pool_min=1, pool_max=10, pooler=False, application_name="rhythm")``).

    Every method may raise DatabaseUnavailable (connection lost, server away, timeout: the outcome of a write is then
    unknown, repeat it unchanged), SchemaMismatch; below only what is special.
    """

    async def close(self) -> None: ...
    async def migrate(self) -> list[str]: ...  # names of the migrations applied
    async def schema_version(self) -> int: ...  # 0: no schema

    async def start(self, starts: Sequence[NewExecution], *, connection: Any = None) -> list[StartResult]: ...
    # ≤ START_COUNT_MAX; StartRefused; connection: an asyncpg connection, the caller's transaction

    async def publish(self, definitions: Sequence[NewDefinition]) -> list[int]: ...  # definition ids
    async def definition(self, reference: int | str) -> DefinitionInfo | None: ...  # id, or hash
    async def current_definition(self, name: str) -> DefinitionInfo | None: ...

    async def register_worker(self, registration: WorkerRegistration) -> RegisterResult: ...
    async def unregister_worker(self, incarnation: uuid.UUID) -> None: ...  # after the drain; what it still holds goes back
    async def exchange(self, request: ExchangeRequest) -> ExchangeResult: ...  # IncarnationDead
    async def heartbeat(self, incarnation: uuid.UUID) -> HeartbeatResult: ...  # IncarnationDead
    async def maintain(self, incarnation: uuid.UUID) -> MaintainResult: ...
    async def held(self, incarnation: uuid.UUID, known: Sequence[uuid.UUID] = ()) -> HeldResult: ...
    async def hand_back(self, incarnation: uuid.UUID, members: Sequence[tuple[int, uuid.UUID]]) -> frozenset[uuid.UUID]: ...

    async def signal(self, execution_id: uuid.UUID, name: str, payload: bytes, send_id: uuid.UUID, *, connection: Any = None) -> None: ...
    # ExecutionNotFound, ExecutionFinished, SignalRefused
    async def cancel(self, execution_id: uuid.UUID) -> None: ...  # ExecutionNotFound, ExecutionFinished

    async def outcomes(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, OutcomeInfo]: ...  # finished ones only
    async def get(self, execution_id: uuid.UUID) -> ExecutionInfo | None: ...
    async def list(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        kind: str | None = None,
        queue: str | None = None,
        parent_id: uuid.UUID | None = None,
        tags: Mapping[str, Any] | None = None,
        before: uuid.UUID | None = None,
        limit: int = 100,
    ) -> list[ExecutionInfo]: ...  # newest first
    async def snapshot(self, execution_id: uuid.UUID) -> SnapshotInfo | None: ...
    async def queues(self) -> list[QueueInfo]: ...
    async def workers(self) -> list[WorkerInfo]: ...
    async def can_run(self, execution_id: uuid.UUID) -> bool: ...  # whether a live worker could run it
