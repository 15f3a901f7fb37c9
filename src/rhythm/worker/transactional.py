"""Transactional tasks: one attempt in a transaction of its own, which carries the outcome too.

    begin -> the function, with the connection in its context -> encode -> complete and COMMIT

What ends before the last step is rolled back, and is the task's failure like any other, reported by an exchange: an
exception, a timeout, an output that JSON cannot hold, a deferred constraint. The last step cannot be interrupted. A
cancellation, a drain or a timeout that comes during it finds the task completed, or refused.

A lost connection is no failure of the task, and nothing of the attempt is left; so it is handed back uncharged, after a
pause, LOSSES_MAX times by this worker, and only then reported as a failure. Where the connection was lost under COMMIT
nobody knows what became of it; the hand back is refused if it was committed (see ``rhythm.store.transactions``).
"""

from __future__ import annotations

import asyncio
import enum
import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from rhythm.errors import DatabaseUnavailable, IncarnationDead
from rhythm.faults import FailPoint
from rhythm.store.connection import Backoff
from rhythm.store.marshal import MEMBERS_BITS, SINGLE
from rhythm.store.transactions import BlockingTransaction, Transaction, Transactions
from rhythm.tasks import Task
from rhythm.worker.held import Held

TRANSACTIONS_MAX: Final = 8  #: transactional tasks at a time, per process: each needs a connection
LOSSES_MAX: Final = 5  #: hand backs of one execution whose connections were lost, before that is its failure
LOSSES_REMEMBERED: Final = 1_000
logger = logging.getLogger("rhythm.worker")


class Ending(enum.Enum):
    """How an attempt ended that is not to be reported as a failure."""

    COMMITTED = enum.auto()  #: its writes and its outcome
    REFUSED = enum.auto()  #: rolled back: somebody else has taken it over
    ABANDONED = enum.auto()  #: rolled back: nobody has waited for it, and it was reported otherwise
    LOST = enum.auto()  #: its connection was lost: hand it back


class TransactionalTasks:
    """Runs transactional tasks; at most ``size`` at a time, which the caller sees to."""

    def __init__(self, transactions: Transactions, *, payload_bytes_max: int, fail_point: FailPoint | None) -> None:
        self.size = transactions.size
        self._transactions = transactions
        self._payload_bytes_max = payload_bytes_max
        self._fail_point = fail_point
        self._losses: OrderedDict[uuid.UUID, int] = OrderedDict()
        self._backoff = Backoff()

    async def run(
        self,
        held: Held,
        task: Task[..., Any],
        call: Callable[[Any], Awaitable[Any]],
        commits: Callable[[], None],
    ) -> Ending:
        """Runs an ``async def`` task, ``call(connection)``; ``commits()`` is called when nothing may interrupt it.

        Raises what is the task's failure, after everything was rolled back.
        """
        try:
            transaction = await self._transactions.begin(held.claim.id, held.claim.timeout_seconds)
        except DatabaseUnavailable as error:
            return _lost(held, error)
        try:
            payload = self._encode(task, await call(transaction.connection))
            self._passed("task_done")
            claim_id = _claim_id(held)
        except BaseException as error:
            lost = _is_lost(transaction, error)
            await transaction.roll_back()
            if lost:
                return _lost(held, error)
            raise
        commits()
        try:
            await transaction.complete(claim_id, held.claim.id, payload)
        except (IncarnationDead, DatabaseUnavailable) as error:
            return _judged(held, error)
        self._backoff.reset()
        return Ending.COMMITTED

    def run_blocking(
        self, held: Held, task: Task[..., Any], call: Callable[[Any], Any], may_commit: Callable[[], bool]
    ) -> Ending:
        """Runs a ``def`` task in this thread. ``may_commit()`` tells whether anybody still waits for it; if so nothing
        may interrupt it any more. Raises what is the task's failure, after everything was rolled back."""
        try:
            transaction = self._transactions.begin_blocking(held.claim.id, held.claim.timeout_seconds)
        except DatabaseUnavailable as error:
            return _lost(held, error)
        try:
            payload = self._encode(task, call(transaction.connection))
            self._passed("task_done")
            claim_id = _claim_id(held)
        except BaseException as error:
            lost = _is_lost(transaction, error)
            transaction.roll_back()
            if lost:
                return _lost(held, error)
            raise
        if not may_commit():
            transaction.roll_back()
            return Ending.ABANDONED
        try:
            transaction.complete(claim_id, held.claim.id, payload)
        except (IncarnationDead, DatabaseUnavailable) as error:
            return _judged(held, error)
        self._backoff.reset()
        return Ending.COMMITTED

    def pause_after_loss(self, execution_id: uuid.UUID) -> float | None:
        """How many seconds to wait before the attempt is handed back; None when its connection was lost too often."""
        count = self._losses.pop(execution_id, 0) + 1
        if count > LOSSES_MAX:
            return None
        self._losses[execution_id] = count
        while len(self._losses) > LOSSES_REMEMBERED:
            self._losses.popitem(last=False)
        return self._backoff.next_seconds()

    def _encode(self, task: Task[..., Any], output: Any) -> bytes:
        return task.encode(output, bytes_max=self._payload_bytes_max)

    def _passed(self, name: str) -> None:
        if self._fail_point is not None:
            self._fail_point.passed(name)


def _claim_id(held: Held) -> int:
    assert held.token & SINGLE == SINGLE, "transactional tasks are claimed singly"
    return held.token >> MEMBERS_BITS


def _is_lost(transaction: Transaction | BlockingTransaction, error: BaseException) -> bool:
    """Whether the task has failed because its connection was gone, and not because it was told to stop."""
    return transaction.lost and not isinstance(error, asyncio.CancelledError)


def _judged(held: Held, error: IncarnationDead | DatabaseUnavailable) -> Ending:
    if isinstance(error, DatabaseUnavailable):
        return _lost(held, error)
    logger.warning(
        "execution_id=%s attempt=%d refused and rolled back: it was taken over or has finished",
        held.claim.id, held.claim.attempt,
    )  # fmt: skip
    return Ending.REFUSED


def _lost(held: Held, error: BaseException) -> Ending:
    logger.warning("execution_id=%s attempt=%d its transaction was lost: %s", held.claim.id, held.claim.attempt, error)
    return Ending.LOST
