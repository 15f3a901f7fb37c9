"""One incarnation of a worker: its parts, what they tell each other, and how it ends.

An incarnation begins with a registration, under an id of its own, and ends in one of three ways:

drained      It claims nothing more and hands back what has not begun; what has begun may end within ``drain_timeout``.
             Then, or when ``run`` is cancelled, it lets go: what still runs is handed back uncharged as well.
cut off      No heartbeat was confirmed for too long, so others may be about to take over. Everything is stopped. What
             has not begun goes back uncharged, workflows too, since an activation has no effect before its commit;
             what had ended is reported, if its claim still stands. All of that is sent when the database answers again;
             fencing decides what of it counts. What had begun is lost, as if the worker had died: it may still be
             running in a thread that nobody can stop, and must not run again under the same attempt number.
dead         The database says that others have taken over, or a thread of ours has broken. Nothing is sent.

In the last two ways ``run`` raises IncarnationDead and the worker begins anew, with new parts. Whatever the old ones
still do refers to records that nobody holds any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rhythm.config import Config
from rhythm.engine import Limits
from rhythm.errors import DatabaseUnavailable
from rhythm.faults import FailPoint
from rhythm.model import DefinitionInfo, RegisterResult, TaskOutcome
from rhythm.store import Store
from rhythm.store.connection import Backoff, mask_url
from rhythm.store.transactions import Transactions
from rhythm.store.wakeups import Wakeups
from rhythm.tasks import Retry, Task
from rhythm.worker.activations import Activations, Job
from rhythm.worker.exchange import Exchange, Work
from rhythm.worker.heartbeat import Heartbeat
from rhythm.worker.held import Held, ParentStep, Report
from rhythm.worker.lanes import Lane
from rhythm.worker.maintenance import Maintenance
from rhythm.worker.runner import ASYNC_MAX, THREADS_MAX, TaskRunner
from rhythm.worker.signals import Signals
from rhythm.worker.transactional import TRANSACTIONS_MAX, TransactionalTasks

HEALTHY_SECONDS: Final = 2.0  #: how much later than planned things may happen in a healthy worker
FETCHES_MAX: Final = 5  #: of one definition that fail for another reason than that the database is away
RETRY_EXPONENT_MAX: Final = 30  #: with the largest factor that is no infinity yet
LAST_EXCHANGE_SECONDS: Final = 4.0  #: for the last reports of an incarnation that ends
logger = logging.getLogger("rhythm.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every incarnation of a worker has in common."""

    config: Config
    url: str  #: of the database
    tasks: dict[str, Task[..., Any]]  #: by name
    workflows: bool  #: whether it runs workflows
    activation_budget: float  #: seconds
    limits: Limits
    signals: Signals
    fail_point: FailPoint | None


class Incarnation(Work):
    """A registered incarnation; ``await run(draining)`` is its life."""

    def __init__(self, setup: Setup, store: Store, incarnation: uuid.UUID, registered: RegisterResult) -> None:
        config = setup.config
        self.id = incarnation
        self._setup = setup
        self._store = store
        self._queues = list(registered.queues)
        self._waiting_for_definition: set[asyncio.Task[None]] = set()
        self._transactions: Transactions | None = None
        self._continuing: dict[uuid.UUID, ParentStep] = {}  # finished tasks whose parents are being advanced
        self._steps: list[Job] | None = None  # of them, those that ended as they began, to be handed on together
        self._exchange = exchange = Exchange(
            store,
            incarnation,
            self,
            queues=list(registered.queues.values()),
            singles=[id_ for name, id_ in registered.names.items() if _is_single(setup.tasks[name])],
            poll_interval=config.poll_interval,
            signals=setup.signals,
            fail_point=setup.fail_point,
        )
        self._runner = TaskRunner(
            setup.tasks,
            self._task_done,
            async_max=config.concurrency or ASYNC_MAX,
            threads_max=config.concurrency or THREADS_MAX,
            processes_max=config.task_processes or os.cpu_count() or 1,
            payload_bytes_max=config.payload_bytes_max,
            fail_point=setup.fail_point,
            on_surplus=exchange.hand_back,
            on_broken=self._broken,
            transactional=self._transactional(),
            settled=exchange.settled,
            note=lambda execution_id, progress: self._heartbeat.note(execution_id, progress),
            give_back=self._transaction_lost,
        )
        for lane in self._runner.lanes:
            lane.name_ids = [registered.names[name] for name in sorted(lane.names)]
        self._activations = Activations(
            self._activated,
            budget_seconds=setup.activation_budget,
            limits=setup.limits,
            on_stuck=self._stuck,
            on_broken=self._broken,
            fail_point=setup.fail_point,
            plain_snapshots=registered.plain_only,
        )
        self._maintenance = Maintenance(
            store,
            incarnation,
            poll_interval=config.poll_interval,
            retention=config.retention,
            key_window=config.key_window,
            on_moved=exchange.hint,
        )
        self._heartbeat = exchange.heartbeat = Heartbeat(
            setup.url,
            incarnation,
            pooler=config.pooler,
            heartbeat_timeout=config.heartbeat_timeout,
            stall_timeout=config.stall_timeout,
            turned_at=lambda: exchange.turned_at,
            on_first=exchange.hint,
            on_cancel=self._cancel_wanted,
            on_dead=lambda: exchange.end("this worker was declared dead; what it held has been taken over"),
        )

    async def run(self, draining: asyncio.Event) -> None:
        """Runs until drained, or until cancelled: then it lets go at once. Raises IncarnationDead when over before.

        Everything has been stopped when it returns or raises; to unregister is left to the caller.
        """
        logger.info(
            "worker ready incarnation=%s database=%s queues=%s tasks=%d",
            self.id, mask_url(self._setup.url), ",".join(self._queues), len(self._setup.tasks),
        )  # fmt: skip
        exchanging = asyncio.create_task(self._exchange.run())
        loops = [exchanging, asyncio.create_task(self._maintenance.run())]
        stop = asyncio.create_task(draining.wait())
        try:
            async with self._listening():
                await asyncio.wait([*loops, stop], return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    await self._drain(exchanging)
                for loop in loops:
                    if loop.done():
                        loop.result()  # raises IncarnationDead
        except asyncio.CancelledError:
            self._give_back(begun=True)
            await self._last_exchange(exchanging)
            raise
        finally:
            for ending in (*loops, stop, *self._waiting_for_definition):
                ending.cancel()
            await asyncio.gather(*loops, stop, return_exceptions=True)
            self._runner.close()
            if self._transactions is not None:
                await self._transactions.close()
            closing = (self._activations.close, self._heartbeat.close, self._runner.join)
            await asyncio.gather(*[asyncio.to_thread(close) for close in closing])

    def health(self) -> str | None:
        """What keeps it from its work, in words; None: nothing. May be called from any thread."""
        exchange, heartbeat = self._exchange, self._heartbeat
        longest = 2 * self._setup.config.poll_interval + HEALTHY_SECONDS
        if (stood := time.monotonic() - exchange.turned_at) > longest:
            return f"the exchange has not turned for {stood:.0f} s"
        if exchange.unanswered:
            return "the database does not answer"
        longest += 1.5 * heartbeat.interval  # a worker that is full talks to it only with its heartbeat
        if (silent := time.monotonic() - max(exchange.answered_at, heartbeat.confirmed_at)) > longest:
            return f"the database has not answered for {silent:.0f} s"
        return None

    def _listening(self) -> contextlib.AbstractAsyncContextManager[Any]:
        config = self._setup.config
        listen_url = config.listen_url or (None if config.pooler else self._setup.url)
        if listen_url is None:
            return contextlib.nullcontext()
        return Wakeups(listen_url, self.id, self._exchange.hint)

    # --- its end ---

    async def _drain(self, exchanging: asyncio.Task[None]) -> None:
        exchange = self._exchange
        logger.info("draining, %d executions in hand", len(exchange.held))
        exchange.claiming = False
        exchange.hand_back(self._runner.take_waiting())
        try:
            async with asyncio.timeout(self._setup.config.drain_timeout):
                while not (exchange.is_idle or exchange.winding_up or exchanging.done()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # many things change it; the loop itself is waited for by what it holds
        except TimeoutError:
            self._give_back(begun=True)
        await self._last_exchange(exchanging)

    async def _last_exchange(self, exchanging: asyncio.Task[None]) -> None:
        """Gives what is to be sent its time, but no longer: nobody knows whether the database ever answers again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_EXCHANGE_SECONDS):
                while not (self._exchange.is_settled or exchanging.done()):  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0.01)

    def _give_back(self, *, begun: bool) -> None:
        """Stops everything and hands back, uncharged, what has not begun; with ``begun`` also what has."""
        exchange = self._exchange
        exchange.claiming = False
        exchange.arrived.clear()  # among what is held and has not begun
        for step in self._continuing.values():  # what has been done is reported, whatever becomes of the parent
            exchange.report(Report(step.held, outcome=step.outcome))
        self._continuing.clear()
        settled = {id(report.held) for report in exchange.reports} | {id(held) for held in exchange.hand_backs}
        back = [one for one in exchange.held.values() if id(one) not in settled and (begun or not one.begun)]
        logger.warning("letting go of %d executions, handing back %d", len(exchange.held), len(back))
        self._runner.let_go()
        exchange.hand_back(back)

    def _broken(self, error: BaseException) -> None:
        """A thread has ended that never should. What it was at is lost, and so is claimed alone the next time."""
        self._exchange.end(f"a thread of this worker has broken ({type(error).__name__}: {error})")

    def _stuck(self) -> None:
        """A workflow cannot be interrupted: this process gives up, and the claim's loss names the culprit."""
        logger.critical("an activation cannot be interrupted; this worker ends")
        os.kill(os.getpid(), signal.SIGKILL)

    # --- for the exchange ---

    def lanes(self) -> Sequence[Lane]:
        return self._runner.lanes

    def workflows_ahead(self) -> int:
        return self._activations.ahead()

    def accept(self, held: list[Held]) -> None:
        tasks = [one for one in held if one.claim.kind == "task"]
        jobs: list[Job] = [one for one in held if one.claim.kind == "workflow"]
        if tasks:
            self._steps = jobs
            try:
                self._runner.begin(tasks)
            finally:
                self._steps = None
        if jobs:
            self._advance(jobs)  # each handing over wakes a thread

    def confirmed(self, report: Report, version: int | None) -> None:
        if report.outcome is not None and report.outcome.status == "failed" and report.outcome.retryable:
            self._maintenance.due_in(self._earliest_retry(report))
        commit = report.continuation or report.commit
        if version is None or commit is None:
            return
        if report.live is not None:
            self._activations.keep(commit.id, version, report.live)
        for timer in commit.timers:
            if timer.delay_ms is not None:
                self._maintenance.due_in(timer.delay_ms / 1000.0)

    def _earliest_retry(self, report: Report) -> float:
        """Seconds after which a failed task may be tried again, if it is: maintenance is not to be late."""
        assert report.outcome is not None, "it has failed"
        if report.outcome.retry_after_seconds is not None:
            return report.outcome.retry_after_seconds
        claim = report.held.claim
        task = self._setup.tasks.get(claim.name)
        policy = (Retry() if task is None else task.retry).as_dict() | dict(claim.retry or {})
        wait: float = policy["initial"] * policy["factor"] ** min(claim.attempt - 1, RETRY_EXPONENT_MAX)
        earliest: float = min(wait, policy["max"]) * (1 - policy["jitter"])
        return earliest

    def cut_off(self) -> None:
        self._heartbeat.stop()  # the database may bury this incarnation: that ends it, whatever else happens
        self._give_back(begun=False)

    # --- workflows ---

    def _advance(self, jobs: list[Job]) -> None:
        """Hands jobs to the activation thread, each once its definition is here."""
        here = self._activations.definitions
        missing = {_definition_id(job) for job in jobs} - here.keys()
        if not missing:
            self._activations.submit(jobs)
            return
        if ready := [job for job in jobs if _definition_id(job) in here]:
            self._activations.submit(ready)
        fetching = asyncio.create_task(self._fetch(missing, [job for job in jobs if _definition_id(job) in missing]))
        self._waiting_for_definition.add(fetching)
        fetching.add_done_callback(self._waiting_for_definition.discard)

    async def _fetch(self, missing: set[int], jobs: list[Job]) -> None:
        for definition_id in missing:
            self._activations.unreadable.pop(definition_id, None)
            definition = await self._fetch_one(definition_id)
            if definition is not None:
                self._activations.definitions[definition_id] = definition
        self._activations.submit(jobs)

    async def _fetch_one(self, definition_id: int) -> DefinitionInfo | None:
        """A definition; None when it is gone, or when FETCHES_MAX attempts failed though the database was there."""
        backoff = Backoff()
        failed = 0
        while True:
            try:
                return await self._store.definition(definition_id)
            except DatabaseUnavailable:
                pass
            except Exception as error:
                failed += 1
                logger.exception("definition=%d it cannot be fetched (%d of %d)", definition_id, failed, FETCHES_MAX)
                if failed == FETCHES_MAX:
                    self._activations.unreadable[definition_id] = f"{type(error).__name__}: {error}"
                    return None
            await asyncio.sleep(backoff.next_seconds())

    def _activated(self, reports: list[Report]) -> None:
        exchange = self._exchange
        for report in reports:
            claim = report.held.claim
            if claim.kind == "task" and self._continuing.pop(claim.id, None) is None:
                continue  # its outcome was sent without waiting for the parent
            if exchange.held.get(claim.id) is report.held:
                exchange.report(report)

    # --- tasks ---

    def _task_done(self, held: Held, outcome: TaskOutcome) -> None:
        exchange = self._exchange
        if exchange.held.get(held.claim.id) is not held:
            return  # given up meanwhile
        parent = held.claim.parent
        if parent is not None and outcome.status == "completed" and self._setup.workflows and exchange.claiming:
            step = self._continuing[held.claim.id] = ParentStep(held, outcome, parent)
            if self._steps is None:
                self._advance([step])
            else:
                self._steps.append(step)
        else:
            exchange.report(Report(held, outcome=outcome))
        if not self._runner.lane_of(held.claim.name).waiting:
            exchange.room()

    def _transactional(self) -> TransactionalTasks | None:
        """What runs transactional tasks, where there are any."""
        setup = self._setup
        if not any(task.transactional for task in setup.tasks.values()):
            return None
        size = min(setup.config.concurrency or TRANSACTIONS_MAX, TRANSACTIONS_MAX)
        self._transactions = Transactions(setup.url, self.id, size=size, pooler=setup.config.pooler)
        return TransactionalTasks(
            self._transactions, payload_bytes_max=setup.config.payload_bytes_max, fail_point=setup.fail_point
        )

    def _transaction_lost(self, held: Held) -> None:
        exchange = self._exchange
        if exchange.held.get(held.claim.id) is held and held not in exchange.hand_backs:
            exchange.hand_back([held])

    def _cancel_wanted(self, ids: frozenset[uuid.UUID]) -> None:
        for execution_id in ids:
            held = self._exchange.held.get(execution_id)
            if held is not None and held.claim.kind == "task" and not held.cancel_asked:
                self._runner.cancel(held)


def _is_single(task: Task[..., Any]) -> bool:
    """Whether executions of this task are claimed singly: they need a state of their own in the worker."""
    return task.transactional or task.process


def _definition_id(job: Job) -> int:
    definition = job.parent.definition_id if isinstance(job, ParentStep) else job.claim.definition_id
    assert definition is not None, "workflows have definitions"
    return definition
