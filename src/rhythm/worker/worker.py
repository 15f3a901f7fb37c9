"""The worker's life: connect, register, run, drain.

One incarnation is one start of a worker, with an id of its own. When it is declared dead (its heartbeat did not come
through for too long) everything it held has been taken over; it lets go of all of it and begins again as a new
incarnation.

Draining: claim nothing more, hand back what has not begun, wait for what has, up to ``drain_timeout``; then let go:
what is still running is handed back uncharged. Cancelling ``run`` lets go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterable
from typing import Any, Final

from rhythm import __version__, faults
from rhythm.config import Config, load, resolve_database_url
from rhythm.engine import Limits
from rhythm.errors import DatabaseUnavailable, IncarnationDead
from rhythm.model import RegisterResult, TaskOutcome, TaskRegistration, WorkerRegistration, new_id
from rhythm.store import Store
from rhythm.store.connection import Backoff, mask_url
from rhythm.store.wakeups import Wakeups
from rhythm.tasks import REGISTRY, Retry, Task
from rhythm.worker.activations import Activations, Job
from rhythm.worker.exchange import IN_FLIGHT_MAX, Exchange, Work
from rhythm.worker.heartbeat import Heartbeat
from rhythm.worker.held import Held, ParentStep, Report
from rhythm.worker.maintenance import Maintenance
from rhythm.worker.runner import ASYNC_MAX, THREADS_MAX, TaskRunner
from rhythm.worker.signals import Signals
from rhythm.worker.watchdog import BUDGET_SECONDS

TASKS_BUFFERED: Final = 1_000  #: tasks claimed and not begun, while they run through without waiting
LAST_EXCHANGE_SECONDS: Final = 5.0  #: for the last reports of a worker that lets go
logger = logging.getLogger("rhythm.worker")


class Worker(Work):
    """A worker. ``await run()`` until ``await stop()`` drains it.

    ``config``: default, what the configuration says; ``options`` are configuration keys that override it. ``tasks``:
    default, all that are registered. ``workflows``: whether it runs workflows too; default True.
    """

    def __init__(
        self,
        *,
        config: Config | None = None,
        database_url: str | None = None,
        tasks: Iterable[Task[..., Any]] | None = None,
        workflows: bool = True,
        activation_budget: float = BUDGET_SECONDS,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        if config is None:
            config = load(options | ({"database_url": database_url} if database_url else {}))
        self.config = config
        self.database_url: str | None = database_url
        self.tasks = {task.name: task for task in (REGISTRY if tasks is None else tasks)}
        self.workflows = workflows
        self.activation_budget = activation_budget
        self.limits = limits or Limits(payload_bytes_max=config.payload_bytes_max)
        self.signals = Signals()
        self.incarnation: uuid.UUID = new_id()
        self.fail_point = faults.current()
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._exchange: Exchange | None = None
        self._runner: TaskRunner | None = None
        self._activations: Activations | None = None
        self._maintenance: Maintenance | None = None
        self._waiting_for_definition: set[asyncio.Task[None]] = set()
        self._continuing: dict[uuid.UUID, ParentStep] = {}  # finished tasks whose parents are being advanced

    # --- life ---

    async def run(self) -> None:
        """Runs until ``stop()`` has drained it, or until cancelled: then it lets go at once.

        Raises DatabaseUnavailable when the database cannot be reached at the start; later it waits for it.
        """
        assert not self._running, "a worker runs once"
        self._running = True
        url = self.database_url
        if url is None:
            url = await asyncio.to_thread(resolve_database_url, self.config)
        for task in self.tasks.values():
            task.prepare()
        store = await Store.connect(
            url, pool_min=1, pool_max=IN_FLIGHT_MAX + 2, pooler=self.config.pooler, application_name="rhythm worker"
        )
        try:
            while not self._draining.is_set():
                try:
                    await self._live(store, url)
                except IncarnationDead as error:
                    logger.error("incarnation=%s %s", self.incarnation, error)
                    self.incarnation = new_id()
        finally:
            self._ended.set()
            await store.close()

    async def stop(self) -> None:
        """Drains: what has begun may end within ``drain_timeout``, the rest goes back. Returns when that is done."""
        self._draining.set()
        if self._running:
            await self._ended.wait()

    async def _live(self, store: Store, url: str) -> None:
        """One incarnation, from its registration to its end."""
        registered = await self._register(store)
        self._continuing.clear()
        config = self.config
        runner = self._runner = TaskRunner(
            self.tasks,
            self._task_done,
            async_max=config.concurrency or ASYNC_MAX,
            threads_max=config.concurrency or THREADS_MAX,
            payload_bytes_max=config.payload_bytes_max,
            fail_point=self.fail_point,
        )
        activations = self._activations = Activations(
            self._activated,
            budget_seconds=self.activation_budget,
            limits=self.limits,
            on_stuck=self._stuck,
            fail_point=self.fail_point,
        )
        exchange = self._exchange = Exchange(
            store,
            self.incarnation,
            self,
            queues=list(registered.queues.values()),
            names=list(registered.names.values()),
            poll_interval=config.poll_interval,
            signals=self.signals,
            fail_point=self.fail_point,
            on_cut_off=self._give_up,
        )
        heartbeat = exchange.heartbeat = Heartbeat(
            url,
            self.incarnation,
            pooler=config.pooler,
            heartbeat_timeout=config.heartbeat_timeout,
            stall_timeout=config.stall_timeout,
            turned_at=lambda: exchange.turned_at,
            on_cancel=self._cancel_wanted,
            on_dead=exchange.declared_dead,
        )
        maintenance = self._maintenance = Maintenance(
            store, self.incarnation, poll_interval=config.poll_interval, on_moved=exchange.hint
        )
        logger.info(
            "worker ready incarnation=%s database=%s queues=%s tasks=%d",
            self.incarnation, mask_url(url), ",".join(registered.queues), len(self.tasks),
        )  # fmt: skip
        loops = [asyncio.create_task(exchange.run()), asyncio.create_task(maintenance.run())]
        draining = asyncio.create_task(self._draining.wait())
        try:
            async with self._listening(url):
                await asyncio.wait([*loops, draining], return_when=asyncio.FIRST_COMPLETED)
                if loops[0].done():
                    loops[0].result()  # raises IncarnationDead
                if loops[1].done():
                    loops[1].result()
                await self._drain(exchange, runner, loops[0])
        except asyncio.CancelledError:
            await self._let_go(exchange, runner)
            raise
        finally:
            draining.cancel()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, draining, return_exceptions=True)
            runner.close()
            await asyncio.to_thread(activations.close)
            await asyncio.to_thread(heartbeat.close)
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(LAST_EXCHANGE_SECONDS):
                    await store.unregister_worker(self.incarnation)
            self.signals.drained.set()
            logger.info("worker gone incarnation=%s", self.incarnation)

    def _listening(self, url: str) -> contextlib.AbstractAsyncContextManager[Any]:
        listen_url = self.config.listen_url or (None if self.config.pooler else url)
        if listen_url is None:
            return contextlib.nullcontext()
        assert self._exchange is not None, "made before"
        return Wakeups(listen_url, self.incarnation, self._exchange.hint)

    async def _register(self, store: Store) -> RegisterResult:
        registrations = [
            TaskRegistration(
                name=r.name,
                queue=r.queue,
                retries=r.retries,
                retry=None if task.retry == Retry() else r.retry,  # nothing to carry along with every claim
                timeout_seconds=r.timeout_seconds,
                priority=r.priority,
                input_schema=r.input_schema,
            )
            for task, r in ((task, task.registration()) for task in self.tasks.values())
        ]
        queues = self.config.queues or tuple(dict.fromkeys(["default", *(r.queue for r in registrations)]))
        backoff = Backoff()
        while True:
            try:
                result = await store.register_worker(
                    WorkerRegistration(
                        incarnation=self.incarnation,
                        host=socket.gethostname(),
                        pid=os.getpid(),
                        heartbeat_timeout_seconds=self.config.heartbeat_timeout,
                        queues=queues,
                        tasks=registrations,
                        workflows=self.workflows,
                        version=__version__,
                    )
                )
            except DatabaseUnavailable as error:
                logger.warning("registering failed: %s", error)
                await asyncio.sleep(backoff.next_seconds())
                continue
            for name in result.conflicts:
                logger.warning("task=%s another live worker has registered it differently; the newest counts", name)
            self.signals.registered.set()
            return result

    async def _drain(self, exchange: Exchange, runner: TaskRunner, loop: asyncio.Task[None]) -> None:
        logger.info("draining, %d executions in hand", len(exchange.held))
        exchange.claiming = False
        exchange.hand_back(runner.take_waiting())
        try:
            async with asyncio.timeout(self.config.drain_timeout):
                while not exchange.is_idle and not loop.done():  # noqa: ASYNC110  (many things change it)
                    await asyncio.sleep(0.01)  # the loop itself is waited for by what it holds
        except TimeoutError:
            await self._let_go(exchange, runner)
        if loop.done():
            loop.result()

    async def _let_go(self, exchange: Exchange, runner: TaskRunner) -> None:
        """Hands back everything that has not ended."""
        exchange.claiming = False
        for step in self._continuing.values():  # what has been done is reported, whatever becomes of the parent
            exchange.report(Report(step.held, outcome=step.outcome))
        self._continuing.clear()
        reporting = {report.held.claim.id for report in exchange.reports}
        back = [
            held
            for held in exchange.held.values()
            if held.claim.id not in reporting and held not in exchange.hand_backs
        ]
        logger.warning("letting go of %d executions", len(back))
        runner.let_go()
        exchange.hand_back(back)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_EXCHANGE_SECONDS):
                while exchange.reports or exchange.hand_backs or exchange._flights:  # noqa: ASYNC110  (as above)
                    await asyncio.sleep(0.01)  # as above

    # --- for the exchange ---

    def free_tasks(self) -> int:
        runner = self._runner
        assert runner is not None, "made before the exchange"
        if runner.ever_suspended:
            room = runner.async_max - len(runner.suspended) - len(runner.waiting) - len(runner.in_threads)
            if not runner.waiting and not runner.under_way:
                runner.ever_suspended = False
            return room
        return TASKS_BUFFERED - len(runner.waiting)

    def task_seconds(self) -> float:
        return self._runner.seconds_per_task if self._runner is not None else 0.0

    def accept(self, held: list[Held]) -> None:
        assert self._runner is not None, "made before the exchange"
        tasks = [one for one in held if one.claim.kind == "task"]
        jobs: list[Job] = [one for one in held if one.claim.kind == "workflow"]
        if tasks:
            self._runner.begin(tasks)
        if jobs:
            self._advance(jobs)

    def confirmed(self, report: Report, version: int | None) -> None:
        commit = report.continuation or report.commit
        if version is None or commit is None:
            return
        assert self._activations is not None and self._maintenance is not None, "made before the exchange"
        if report.live is not None:
            self._activations.keep(commit.id, version, report.live)
        for timer in commit.timers:
            if timer.delay_ms is not None:
                self._maintenance.due_in(timer.delay_ms / 1000.0)

    # --- workflows ---

    def _advance(self, jobs: list[Job]) -> None:
        """Hands jobs to the activation thread, once their definitions are here."""
        activations = self._activations
        assert activations is not None, "made before the exchange"
        missing = {_definition_id(job) for job in jobs} - activations.definitions.keys()
        if not missing:
            activations.submit(jobs)
            return
        fetching = asyncio.create_task(self._fetch(missing, jobs))
        self._waiting_for_definition.add(fetching)
        fetching.add_done_callback(self._waiting_for_definition.discard)

    async def _fetch(self, missing: set[int], jobs: list[Job]) -> None:
        exchange, activations = self._exchange, self._activations
        assert exchange is not None and activations is not None, "made before"
        backoff = Backoff()
        for definition_id in missing:
            while True:
                try:
                    definition = await exchange.store.definition(definition_id)
                except DatabaseUnavailable:
                    await asyncio.sleep(backoff.next_seconds())
                    continue
                if definition is not None:
                    activations.definitions[definition_id] = definition
                break
        activations.submit(jobs)

    def _activated(self, reports: list[Report]) -> None:
        exchange = self._exchange
        assert exchange is not None, "made before"
        for report in reports:
            claim = report.held.claim
            if claim.kind == "task" and self._continuing.pop(claim.id, None) is None:
                continue  # its outcome was sent without waiting for the parent
            if exchange.held.get(claim.id) is report.held:
                exchange.report(report)

    def _stuck(self) -> None:
        """A workflow cannot be interrupted: this process gives up, and the claim's loss names the culprit."""
        logger.critical("an activation cannot be interrupted; this worker ends")
        os.kill(os.getpid(), signal.SIGKILL)

    # --- tasks ---

    def _task_done(self, held: Held, outcome: TaskOutcome) -> None:
        exchange = self._exchange
        assert exchange is not None, "made before"
        if exchange.held.get(held.claim.id) is not held:
            return  # given up meanwhile
        parent = held.claim.parent
        if parent is not None and outcome.status == "completed" and self.workflows:
            step = self._continuing[held.claim.id] = ParentStep(held, outcome, parent)
            self._advance([step])
        else:
            exchange.report(Report(held, outcome=outcome))
        assert self._runner is not None, "made before"
        if not self._runner.waiting:
            exchange.hint()

    def _cancel_wanted(self, ids: frozenset[uuid.UUID]) -> None:
        exchange, runner = self._exchange, self._runner
        if exchange is None or runner is None:
            return
        for execution_id in ids:
            held = exchange.held.get(execution_id)
            if held is not None and held.claim.kind == "task" and not held.cancel_asked:
                runner.cancel(held)

    def _give_up(self) -> None:
        """Cut off from the database: nothing of what runs counts any more."""
        self._continuing.clear()
        if self._runner is not None:
            self._runner.let_go()
            self._runner.resume()
        if self._activations is not None:
            self._activations.forget()


def _definition_id(job: Job) -> int:
    definition = job.parent.definition_id if isinstance(job, ParentStep) else job.claim.definition_id
    assert definition is not None, "workflows have definitions"
    return definition
