"""Workflows: the thread they run on, and the cache of their heaps.

Claims and parents' next steps are handed over in batches; the thread runs them one after the other under the watchdog
and hands the results back to the event loop in batches of at most SLICE_SECONDS, so that a long activation delays
others but no task, no exchange and no heartbeat. Claimed ahead is no more than should begin within AHEAD_SECONDS, by
what activations take on average: what waits here no other worker can run.

A decoded heap may be kept for the next activation of the same version. It is taken out when an activation begins, and
put back only when its commit is confirmed, with the new version. Whatever goes wrong, the stored snapshot is what
counts.

An unexpected error in one job, running out of memory included, fails that execution with EngineError, its snapshot
kept; the thread goes on. Should the thread end nevertheless, the worker is told and ends its incarnation.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from rhythm import payloads
from rhythm.engine import Activation, Environment, Limits, Live, StartInfo, activate, fatal_activation, load_program
from rhythm.errors import SnapshotError
from rhythm.faults import FailPoint
from rhythm.language.codegen import Program
from rhythm.language.ir import IRError
from rhythm.language.values import FatalError
from rhythm.model import DefinitionInfo, Delivery, WorkflowCommit, WorkflowOutcome, new_id
from rhythm.store.codec import pack_snapshot, unpack_snapshot
from rhythm.worker.held import Held, ParentStep, Report
from rhythm.worker.transitions import log_transition
from rhythm.worker.watchdog import Watchdog, start_large_thread

HEAPS_CACHED: Final = 2_000  #: decoded heaps kept per process
HEAPS_BYTES_MAX: Final = 8 << 20  #: of all their snapshots, before compression; a heap takes some ten times that
AHEAD_MAX: Final = 200  #: workflows claimed and not yet committed
AHEAD_SECONDS: Final = 0.1  #: no more of them than should begin within so long
SHARE: Final = 0.1  #: of the newest measurement in the moving average
SLICE_SECONDS: Final = 0.005  #: results are handed back at least this often
_LOG_LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}

logger = logging.getLogger("rhythm.worker")
Job = Held | ParentStep


class Activations:
    """The activation thread. ``done(reports)``, and ``on_broken(error)`` when it ends, are called on the event loop.

    ``plain_snapshots``: a worker of an earlier release is alive, and must be able to go on with what is stored here.
    """

    def __init__(
        self,
        done: Callable[[list[Report]], None],
        *,
        budget_seconds: float,
        limits: Limits,
        on_stuck: Callable[[], None],
        on_broken: Callable[[BaseException], None],
        fail_point: FailPoint | None,
        plain_snapshots: bool = False,
    ) -> None:
        self._pack: Callable[[bytes], bytes] = bytes if plain_snapshots else pack_snapshot
        self.done = done
        self.on_broken = on_broken
        self.limits = limits
        self.fail_point = fail_point
        self.definitions: dict[int, DefinitionInfo] = {}
        self.unreadable: dict[int, str] = {}  #: why a definition could not be read
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._heaps: OrderedDict[tuple[uuid.UUID, int], Live] = OrderedDict()
        self._heaps_bytes = 0
        self._heaps_lock = threading.Lock()
        self._environment = Environment(lambda: time.time() * 1000.0, random.random, lambda: str(new_id()))
        self._watchdog = Watchdog(budget_seconds, on_stuck, memory_bytes_max=limits.memory_bytes_max)
        self._average = 0.0  # seconds that one activation takes; 0: not known
        self._began_at: float | None = None  # the one under way
        self._thread = start_large_thread(self._work, "rhythm-activations")

    def ahead(self) -> int:
        """How many workflows to claim and not to have committed: what waits here no other worker can run."""
        began_at = self._began_at
        seconds = self._average if began_at is None else max(self._average, time.monotonic() - began_at)
        return AHEAD_MAX if not seconds else min(AHEAD_MAX, max(1, int(AHEAD_SECONDS / seconds)))

    def submit(self, jobs: list[Job]) -> None:
        """Hands jobs to the thread. Their definitions must be in ``definitions``."""
        if jobs:
            self._jobs.put(jobs)

    def keep(self, execution_id: uuid.UUID, version: int, live: Live) -> None:
        """Keeps a heap whose commit, which made this version, is confirmed."""
        with self._heaps_lock:
            self._heaps[execution_id, version] = live
            self._heaps_bytes += live.size
            while len(self._heaps) > HEAPS_CACHED or self._heaps_bytes > HEAPS_BYTES_MAX:
                self._heaps_bytes -= self._heaps.popitem(last=False)[1].size

    def forget(self) -> None:
        """Drops all heaps."""
        with self._heaps_lock:
            self._heaps.clear()
            self._heaps_bytes = 0

    def close(self) -> None:
        """Ends the thread after the job it is at."""
        self._jobs.put(None)
        self._thread.join(timeout=1.0)
        self._watchdog.close()

    # --- on the thread ---

    def _work(self) -> None:
        try:
            finished: list[Report] = []
            began = time.monotonic()
            while (jobs := self._jobs.get()) is not None:
                if not finished:
                    began = time.monotonic()
                now = time.monotonic()
                for job in jobs:
                    self._began_at = now
                    finished.append(self._run(job))
                    before, now = now, time.monotonic()
                    self._average += (now - before - self._average) * SHARE
                    if now - began > SLICE_SECONDS:
                        self._tell(self.done, finished)
                        finished, began = [], now
                self._began_at = None
                if finished and self._jobs.empty():  # else they go with what comes next: each telling wakes the loop
                    self._tell(self.done, finished)
                    finished = []
        except BaseException as error:
            logger.critical("the activation thread has ended unexpectedly", exc_info=True)
            self._tell(self.on_broken, error)

    def _tell(self, function: Callable[..., None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            logger.debug("an activation ended after its worker had gone")

    def _run(self, job: Job) -> Report:
        try:
            return self._continue(job) if isinstance(job, ParentStep) else self._advance(job)
        except Exception as error:
            held = job.held if isinstance(job, ParentStep) else job
            logger.exception("execution_id=%s an activation failed outside the engine", held.claim.id)
            if isinstance(job, ParentStep):
                return Report(held, outcome=job.outcome)  # the parent is woken, and fails on its own account
            claim = held.claim
            return Report(
                held,
                commit=commit_of(held.token, claim.id, claim.version, _failed(error, claim.deliveries), self._pack),
            )

    def _advance(self, job: Held) -> Report:
        claim = job.claim
        assert claim.definition_id is not None, "workflows have definitions"
        start = None
        if claim.version == 0:
            start = lambda hash_: StartInfo(  # noqa: E731  (made only when the definition is known)
                execution_id=str(claim.id),
                name=claim.name,
                version=hash_,
                started_at_ms=claim.created_at_ms,
                inputs=claim.inputs,
                parent_id=None if claim.parent_id is None else str(claim.parent_id),
                tags=None if claim.tags is None else dict(claim.tags),
            )
        activation = self._activate(
            claim.id,
            claim.attempt,
            claim.name,
            claim.definition_id,
            claim.version,
            start,
            claim.snapshot,
            claim.deliveries,
        )
        commit = commit_of(job.token, claim.id, claim.version, activation, self._pack)
        return Report(job, commit=commit, live=activation.live)

    def _continue(self, step: ParentStep) -> Report:
        parent, outcome = step.parent, step.outcome
        delivery = Delivery(parent.next_number, outcome.status, step.held.claim.operation, None, outcome.payload)
        activation = self._activate(
            parent.id, 1, parent.name, parent.definition_id, parent.version, None, parent.snapshot, (delivery,)
        )
        commit = commit_of(0, parent.id, parent.version, activation, self._pack)
        return Report(step.held, outcome=outcome, continuation=commit, live=activation.live)

    def _activate(
        self,
        execution_id: uuid.UUID,
        attempt: int,
        name: str,
        definition_id: int,
        version: int,
        start: Callable[[str], StartInfo] | None,
        snapshot: bytes | None,
        deliveries: tuple[Delivery, ...],
    ) -> Activation:
        try:
            definition = self.definitions.get(definition_id)
            if definition is None and (why := self.unreadable.get(definition_id)) is not None:
                return _broken("DefinitionUnreadable", f"workflow {name!r} cannot be read: {why}", deliveries)
            if definition is None:
                return _broken("DefinitionMissing", f"the definition of workflow {name!r} is gone", deliveries)
            program = load_program(definition.ir, definition.hash)
            live = None
            if start is None:
                with self._heaps_lock:
                    live = self._heaps.pop((execution_id, version), None)
                    if live is not None:
                        self._heaps_bytes -= live.size
            activation = self._guarded(program, start and start(definition.hash), live, snapshot, deliveries)
        except (SnapshotError, IRError) as error:
            activation = _broken(type(error).__name__, str(error), deliveries)
        except Exception as error:
            logger.exception("execution_id=%s the engine failed", execution_id)
            activation = _failed(error, deliveries)
        _write_logs(execution_id, attempt, name, activation)
        if self.fail_point is not None:
            self.fail_point.passed("activated")
        return activation

    def _guarded(
        self,
        program: Program,
        start: StartInfo | None,
        live: Live | None,
        snapshot: bytes | None,
        deliveries: tuple[Delivery, ...],
    ) -> Activation:
        try:
            return self._watchdog.run(
                lambda: activate(
                    program,
                    environment=self._environment,
                    start=start,
                    snapshot=None if live is not None or snapshot is None else unpack_snapshot(snapshot),
                    live=live,
                    deliveries=deliveries,
                    limits=self.limits,
                )
            )
        except FatalError as error:
            return fatal_activation(program.name, error, deliveries)


def _write_logs(execution_id: uuid.UUID, attempt: int, name: str, activation: Activation) -> None:
    """What the workflow said, then how the activation ended."""
    if activation.logs:
        log = logging.getLogger(f"rhythm.workflow.{name}")
        for level, text in activation.logs:
            extra = {"execution_id": str(execution_id), "attempt": attempt}
            log.log(_LOG_LEVELS[level], "%s", text.encode("utf-8", "replace").decode(), extra=extra)
    outcome = activation.outcome
    if outcome is None:
        line = activation.standing.line
        log_transition(logging.DEBUG, execution_id, attempt, "workflow", name, "suspended", line=line)
    elif outcome.status == "completed":
        log_transition(logging.DEBUG, execution_id, attempt, "workflow", name, "completed")
    else:
        error: dict[str, Any] = payloads.decode(outcome.payload)
        why = f"{error.get('name')}: {error.get('message')}"
        log_transition(logging.INFO, execution_id, attempt, "workflow", name, outcome.status, error=why)


def commit_of(
    token: int,
    execution_id: uuid.UUID,
    version: int,
    activation: Activation,
    pack: Callable[[bytes], bytes] = pack_snapshot,
) -> WorkflowCommit:
    """What an activation asks for, as the commit of a claim (or a parent) of this version."""
    arguments: dict[str, Any] = {}
    if activation.children:
        arguments["children"] = activation.children
    if activation.timers:
        arguments["timers"] = activation.timers
    if activation.logs:
        arguments["logs"] = activation.logs
    return WorkflowCommit(
        token=token,
        id=execution_id,
        version=version,
        seen_through=activation.seen_through,
        snapshot=None if activation.snapshot is None else pack(activation.snapshot),
        outcome=activation.outcome,
        standing=activation.standing,
        outstanding=activation.outstanding,
        unread_signals=activation.unread_signals,
        wake_groups=activation.wake_groups,
        dropped_timers=activation.dropped_timers,
        cancels=activation.cancels,
        **arguments,
    )


def _failed(error: Exception, deliveries: tuple[Delivery, ...]) -> Activation:
    return _broken("EngineError", f"{type(error).__name__}: {error}", deliveries)


def _broken(name: str, message: str, deliveries: tuple[Delivery, ...]) -> Activation:
    data = payloads.encode({"name": name, "message": message, "type": "failed"}, "error", bytes_max=1 << 26)
    seen = deliveries[-1].number if deliveries else 0
    return Activation(outcome=WorkflowOutcome("failed", data, keep_snapshot=True), seen_through=seen)
