"""The worker's life: connect, register, run one incarnation after the other until it is to stop.

One incarnation is one registration, with an id of its own (see ``incarnation``). When it is over before the worker is
to stop, because it was declared dead or was cut off from the database for too long, the worker begins again as a new
one, as soon as the database answers.

``stop`` drains, whatever the worker is at: where it only waits for the database, it has nothing in hand and ends at
once. Cancelling ``run`` lets go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, TypeVar

from rhythm import __version__, faults
from rhythm.config import Config, load, resolve_database_url
from rhythm.engine import Limits
from rhythm.errors import DatabaseUnavailable, IncarnationDead, RhythmError
from rhythm.model import RegisterResult, TaskRegistration, WorkerRegistration, new_id
from rhythm.store import Store
from rhythm.store.connection import Backoff
from rhythm.store.transactions import check_driver
from rhythm.tasks import REGISTRY, Retry, Task
from rhythm.worker.exchange import IN_FLIGHT_MAX
from rhythm.worker.incarnation import Incarnation, Setup
from rhythm.worker.signals import Signals
from rhythm.worker.watchdog import BUDGET_SECONDS

SETTLED_SECONDS: Final = 60.0  #: an incarnation that lived for so long is followed by the next one at once
UNREGISTER_SECONDS: Final = 2.0  #: for the last call; who dies without it is taken over a little later
T = TypeVar("T")
logger = logging.getLogger("rhythm.worker")


class Worker:
    """A worker inside an application: ``async with rhythm.Worker(): ...``, or ``run()`` until ``stop()``.

    It runs on the event loop it is started on, any asyncio loop, and leaves signal handlers alone: the block's end, or
    ``stop()``, drains it. A process may have several, each with tasks and queues of its own; each runs once.
    ``health()`` tells what is wrong with it.

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
            config = load(options | ({"database_url": database_url} if database_url else {}), flags=False)
        self.config = config
        self.database_url: str | None = database_url
        self.tasks = {task.name: task for task in (REGISTRY if tasks is None else tasks)}
        self.workflows = workflows
        self.activation_budget = activation_budget
        self.limits = limits or Limits(payload_bytes_max=config.payload_bytes_max)
        self.signals = Signals()
        self.incarnation: uuid.UUID = new_id()
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._run: asyncio.Task[None] | None = None  # of ``async with``
        self._living: Incarnation | None = None
        self._lives = asyncio.Event()  # there has been an incarnation

    async def __aenter__(self) -> Worker:
        """Starts it, and returns when it is registered. Raises what ``run`` does."""
        self._run = asyncio.create_task(self.run(), name="rhythm-worker")
        living = asyncio.create_task(self._lives.wait())
        try:
            await asyncio.wait([self._run, living], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
            raise
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
        if self._run.done():
            await self._run
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drains it. Raises what made it end before."""
        assert self._run is not None, "left without having been entered"
        try:
            await self.stop()
        finally:
            if not self._ended.is_set():
                self._run.cancel()  # whoever waits for the drain does not want to any more
            await self._run

    async def run(self) -> None:
        """Runs until ``stop()`` has drained it, or until cancelled: then it lets go at once.

        Raises DatabaseUnavailable when the database cannot be reached at the start; later it waits for it.
        """
        if self._running:
            raise RhythmError("a worker runs once: make another one")
        self._running = True
        try:
            for task in self.tasks.values():
                task.prepare()
            if any(task.transactional and not task.is_async for task in self.tasks.values()):
                check_driver()
            url = self.database_url
            if url is None:
                url = await self._unless_stopped(asyncio.to_thread(resolve_database_url, self.config))
            if url is not None:
                await self._connected(url)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Drains: what has begun may end within ``drain_timeout``, the rest goes back. Returns when that is done."""
        self._draining.set()
        if self._running:
            await self._ended.wait()

    def health(self) -> str | None:
        """What keeps this worker from its work, in words; None: nothing. May be called from any thread."""
        if self._ended.is_set():
            return "ended"
        living = self._living
        return "not registered with the database yet" if living is None else living.health()

    async def _connected(self, url: str) -> None:
        store = await self._unless_stopped(
            Store.connect(
                url, pool_min=1, pool_max=IN_FLIGHT_MAX + 2, pooler=self.config.pooler, application_name="rhythm worker"
            )
        )
        if store is None:
            return
        setup = Setup(
            config=self.config,
            url=url,
            tasks=self.tasks,
            workflows=self.workflows,
            activation_budget=self.activation_budget,
            limits=self.limits,
            signals=self.signals,
            fail_point=faults.current(),
        )
        backoff = Backoff()
        try:
            while not self._draining.is_set():
                began = time.monotonic()
                try:
                    await self._live(setup, store)
                except IncarnationDead as error:
                    logger.error("incarnation=%s %s", self.incarnation, error)
                    self.incarnation = new_id()
                    if time.monotonic() - began > SETTLED_SECONDS:
                        backoff.reset()
                    await self._unless_stopped(asyncio.sleep(backoff.next_seconds()))
        finally:
            await store.close()

    async def _live(self, setup: Setup, store: Store) -> None:
        """One incarnation, from its registration to its end."""
        try:
            registered = await self._unless_stopped(self._register(store))
            if registered is not None:
                self._living = Incarnation(setup, store, self.incarnation, registered)
                self._lives.set()
                await self._living.run(self._draining)
        finally:
            self._living = None
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(UNREGISTER_SECONDS):
                    await store.unregister_worker(self.incarnation)
            self.signals.drained.set()
            logger.info("worker gone incarnation=%s", self.incarnation)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work gives; None, and the work is cancelled, when the worker is to stop before."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

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
                await self._limit_queues(store, queues)
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

    async def _limit_queues(self, store: Store, queues: Iterable[str]) -> None:
        """Writes the limits that the configuration has for the queues served here; the newest count for all workers."""
        for queue in queues:
            limits = self.config.queue.get(queue)
            if limits is not None and await store.limit_queue(queue, limits):
                logger.info("queue=%s has new limits, from this worker's configuration", queue)
