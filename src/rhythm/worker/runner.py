"""Tasks: from a claim to an outcome.

An ``async def`` task that contains no await cannot suspend: it is stepped once, without an asyncio Task around it.
Every other one gets a Task of its own, at most ``async_max`` at a time; ``def`` tasks run in ``threads_max`` threads.
Those with ``process=True`` run in child processes (see ``children``), and a thread waits for each. Each of these kinds,
and transactional tasks, has a lane of its own (see ``lanes``). Long batches give the loop a turn every SLICE_SECONDS.

An attempt that runs into its timeout fails with type "timeout": an async task is cancelled, a process killed; a thread
cannot be stopped, its result is ignored when it comes. Nothing a task does or returns gets out of here but as an
outcome: what it raises is its failure, and retried by its policy, whatever it is. SystemExit, KeyboardInterrupt,
GeneratorExit and CancelledError that a task raises of its own accord end that attempt, never the worker. (Only inside
an asyncio Task that the task itself made do the first two end the process, as everywhere in asyncio.)

A task that somebody wants cancelled confirms it by ending with what stopped it (CancelledError, or TaskAbandoned from
its context); any other end is its outcome.

A transactional task reports its outcome in its own transaction (see ``transactional``); what is left to do here is to
let go of it (``settled``), or to hand it back when its connection was lost (``give_back``).
"""

from __future__ import annotations

import asyncio
import contextvars
import dis
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from rhythm.errors import DatabaseUnavailable, RhythmError, TaskRetryAfter
from rhythm.failures import failure_payload
from rhythm.faults import FailPoint
from rhythm.model import TaskOutcome
from rhythm.tasks import Task, TaskAbandoned, TaskContext, current_attempt
from rhythm.worker.children import Answer, Children
from rhythm.worker.held import Held
from rhythm.worker.lanes import PATIENCE_SECONDS, WAITING_MAX, Lane
from rhythm.worker.transactional import Ending, TransactionalTasks
from rhythm.worker.transitions import log_transition

ASYNC_MAX: Final = 100  #: async tasks at a time, per process
THREADS_MAX: Final = 16  #: tasks in threads at a time, per process
SLICE_SECONDS: Final = 0.01  #: longest run of tasks without giving the event loop a turn
TURN: Final = 32  #: tasks of one lane that begin before the next lane has its turn
_SUSPENDING: Final = frozenset({"GET_AWAITABLE", "BEFORE_ASYNC_WITH", "GET_AITER", "GET_ANEXT", "SEND", "YIELD_VALUE"})

logger = logging.getLogger("rhythm.worker")


class TaskTimeout(RhythmError, TimeoutError):
    """The attempt took longer than its timeout. In a retry policy its name is TimeoutError."""


class TaskNotFoundError(RhythmError):
    """This worker has no task of that name."""


class TaskCancelled(RhythmError):
    """The task was cancelled."""


def never_suspends(function: Callable[..., Any]) -> bool:
    """Whether an async function contains nothing that could suspend it."""
    code = getattr(function, "__code__", None)
    return code is not None and not any(i.opname in _SUSPENDING for i in dis.get_instructions(code))


def _kind(task: Task[..., Any]) -> str:
    """Which lane a task belongs to."""
    if task.transactional:
        return "transactional"
    if task.process:
        return "process"
    if not task.is_async:
        return "threaded"
    return "plain" if never_suspends(task.function) else "suspending"


class TaskRunner:
    """Runs the tasks of one worker process. ``report(held, outcome)`` is called once for each that has begun.

    ``on_surplus(held)`` gets those that would wait for too long. ``on_broken(error)``: a thread has ended.
    """

    def __init__(
        self,
        tasks: dict[str, Task[..., Any]],
        report: Callable[[Held, TaskOutcome], None],
        *,
        async_max: int,
        threads_max: int,
        processes_max: int,
        payload_bytes_max: int,
        fail_point: FailPoint | None,
        on_surplus: Callable[[list[Held]], None],
        on_broken: Callable[[BaseException], None],
        transactional: TransactionalTasks | None,
        settled: Callable[[Held], None],
        note: Callable[[uuid.UUID, bytes], None],
        give_back: Callable[[Held], None],
    ) -> None:
        self.transactional = transactional
        self.settled = settled
        self.note = note
        self.give_back = give_back
        self.tasks = tasks
        self.report = report
        self.payload_bytes_max = payload_bytes_max
        self.fail_point = fail_point
        self.on_surplus = on_surplus
        kinds = {name: _kind(task) for name, task in tasks.items()}

        def lane(kind: str, width: int, *, ahead: int = 0) -> Lane:
            return Lane({name for name in kinds if kinds[name] == kind}, width, ahead=ahead)

        self.plain = lane("plain", 1, ahead=WAITING_MAX)
        transactions = transactional.size if transactional is not None else 0
        self.lanes = (
            self.plain,
            lane("suspending", async_max),
            lane("threaded", threads_max),
            lane("transactional", transactions),
            lane("process", processes_max),
        )
        self._lane_of = {name: lane for lane in self.lanes for name in lane.names}
        loop = asyncio.get_running_loop()
        self._children = Children(payload_bytes_max=payload_bytes_max)
        self._threads = _Threads(lambda error: _call_soon(loop, on_broken, error))
        self._stepped: list[Any] = [None, 0]  # the current attempt while tasks of the plain lane are stepped
        self._debug = logger.isEnabledFor(logging.DEBUG)
        self._slice: asyncio.Handle | None = None
        self._surplus_check: asyncio.TimerHandle | None = None
        self._stopped = False

    def lane_of(self, name: str) -> Lane:
        """The lane of the tasks of this name; tasks that are not here fail at once, as plain ones would."""
        return self._lane_of.get(name, self.plain)

    def begin(self, batch: list[Held]) -> None:
        """Takes claimed tasks and starts as many as there is room for."""
        self._debug = logger.isEnabledFor(logging.DEBUG)
        for held in batch:
            self.lane_of(held.claim.name).waiting.append(held)
        self.go_on()

    def go_on(self) -> None:
        """Starts waiting tasks, for at most one slice of time, the lanes taking turns."""
        if self._slice is not None or self._stopped:
            return
        until = time.monotonic() + SLICE_SECONDS
        moving = True
        while moving:
            moving = False
            for lane in self.lanes:
                if lane.waiting and lane.has_room:
                    moving = True
                    if self._start_some(lane, until):
                        self._slice = asyncio.get_running_loop().call_soon(self._next_slice)
                        return
        if self._surplus_check is None and any(lane.waiting for lane in self.lanes):
            self._surplus_check = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._return_surplus)

    def _start_some(self, lane: Lane, until: float) -> bool:
        """Starts the next few tasks of a lane. Returns whether the slice is over."""
        began = now = time.monotonic()
        count = 0
        outside = current_attempt.set(self._stepped)  # once for all of them: 0.3 us (2026-11)
        try:
            while lane.waiting and lane.has_room and count < TURN and (now <= until or count == 0):
                self._start(lane.waiting.popleft(), now)
                count += 1
                now = time.monotonic()
        finally:
            current_attempt.reset(outside)
        if lane is self.plain:
            lane.took((now - began) / count)
        return now > until

    def _next_slice(self) -> None:
        self._slice = None
        self.go_on()

    def _return_surplus(self) -> None:
        self._surplus_check = None
        if self._stopped:
            return
        for lane in self.lanes:
            if surplus := lane.take_surplus():
                self.on_surplus(surplus)
        self.go_on()

    # --- one task ---

    def _start(self, held: Held, now: float) -> None:
        claim = held.claim
        task = self.tasks.get(claim.name)
        if held.cancel_asked:
            self._cancelled(held)
            return
        held.begun = True
        if self._debug:
            log_transition(logging.DEBUG, claim.id, claim.attempt, "task", claim.name, "running")
        if self.fail_point is not None:
            self.fail_point.passed("task_begun")
        try:
            self._call(held, task, now)
        except Exception as error:
            logger.exception("execution_id=%s it could not be run", claim.id)
            self.lane_of(claim.name).under_way.discard(held)
            self._failed(held, task, error, True)

    def _call(self, held: Held, task: Task[..., Any] | None, now: float) -> None:
        claim = held.claim
        if task is None:
            self._failed(
                held, None, TaskNotFoundError(f"no task named {claim.name!r} is registered in this worker"), False
            )
            return
        if task.process:
            self.lane_of(claim.name).began(held, now)
            self._in_process(held, task)
            return
        try:
            arguments = task.bind(claim.inputs)
            if task.context_parameter is not None:
                arguments[task.context_parameter] = self._context(held, task)
        except BaseException as error:  # noqa: BLE001  (whatever validation raises is the outcome)
            self._failed(held, task, error, task.is_retryable(error, held.claim.retry))
            return
        lane = self.lane_of(claim.name)
        if lane is self.plain:
            self._step(held, task, arguments)
            return
        lane.began(held, now)
        if task.is_async:
            held.running = asyncio.create_task(self._await(held, task, arguments), name=f"task {claim.name}")
        else:
            self._in_thread(held, task, arguments)

    def _context(self, held: Held, task: Task[..., Any], connection: Any = None) -> TaskContext:
        claim = held.claim
        return TaskContext(
            claim.id,
            attempt=claim.attempt,
            parent_id=claim.parent_id,
            idempotency_key=idempotency_key(claim.key, claim.parent_id, claim.operation, claim.id),
            name=task.name,
            abandoned=lambda: "cancelled" if held.cancel_asked else held.abandoned,
            connection=connection,
            note=partial(self.note, claim.id),
        )

    def _transactions(self) -> TransactionalTasks:
        assert self.transactional is not None, "who has transactional tasks has connections for them"
        return self.transactional

    def _with_connection(self, held: Held, task: Task[..., Any], arguments: dict[str, Any]) -> Callable[[Any], Any]:
        def call(connection: Any) -> Any:
            assert task.context_parameter is not None, "prepare() has looked"
            return task.function(**arguments | {task.context_parameter: self._context(held, task, connection)})

        return call

    def _step(self, held: Held, task: Task[..., Any], arguments: dict[str, Any]) -> None:
        coroutine = task.function(**arguments)
        self._stepped[0], self._stepped[1] = held.claim.id, held.claim.attempt
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self._completed(held, task, stop.value)
        except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
            self._failed(held, task, error, task.is_retryable(error, held.claim.retry))
        else:
            raise AssertionError("a coroutine without an await has suspended")

    async def _await(self, held: Held, task: Task[..., Any], arguments: dict[str, Any]) -> None:
        claim = held.claim
        current_attempt.set((claim.id, claim.attempt))  # in this task's own context
        timed_out = False

        def expire() -> None:
            nonlocal timed_out
            timed_out = True
            if held.running is not None:
                held.running.cancel()

        def uninterruptible() -> None:
            held.running = None
            if timer is not None:
                timer.cancel()

        timer = None
        if claim.timeout_seconds:
            timer = asyncio.get_running_loop().call_later(claim.timeout_seconds, expire)
        try:
            if task.transactional:
                call = self._with_connection(held, task, arguments)
                output = await self._transactions().run(held, task, call, uninterruptible)
            else:
                output = await task.function(**arguments)
        except asyncio.CancelledError as error:
            if timed_out:
                late = self._timeout(held)
                self._failed(held, task, late, task.is_retryable(late, claim.retry), kind="timeout")
            elif held.cancel_asked:
                self._cancelled(held)
            elif self._stopped:
                raise  # the worker lets go; whoever takes over runs it again
            else:
                self._failed(held, task, error, task.is_retryable(error, held.claim.retry))
        except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
            self._failed(held, task, error, task.is_retryable(error, held.claim.retry))
        else:
            self._completed(held, task, output)
        finally:
            if timer is not None:
                timer.cancel()
            self.lane_of(claim.name).ended(held, time.monotonic())
            held.running = None
            self.go_on()

    def _in_thread(self, held: Held, task: Task[..., Any], arguments: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(current_attempt.set, (held.claim.id, held.claim.attempt))
        over = committing = False
        gate = threading.Lock()

        def end(result: Any, error: BaseException | None, kind: str = "failed") -> None:
            nonlocal over
            with gate:
                if over or (committing and kind == "timeout"):
                    return
                over = True
            if timer is not None:
                timer.cancel()
            if error is None:
                self._completed(held, task, result)
            else:
                self._failed(held, task, error, task.is_retryable(error, held.claim.retry), kind=kind)

        def expire() -> None:
            if not committing:
                held.abandoned = "it has taken longer than its timeout"
            end(None, self._timeout(held), "timeout")

        def left() -> None:
            self.lane_of(held.claim.name).ended(held, time.monotonic())
            self.go_on()

        def may_commit() -> bool:
            # whichever comes first: this thread, or the timer
            nonlocal committing
            with gate:
                committing = not over and held.abandoned is None
            return committing

        def work() -> None:
            try:
                if task.transactional:
                    call = self._with_connection(held, task, arguments)
                    result = context.run(self._transactions().run_blocking, held, task, call, may_commit)
                else:
                    result = context.run(task.function, **arguments)
            except BaseException as error:  # noqa: BLE001  (whatever a task raises is its outcome)
                _call_soon(loop, end, None, error)
            else:
                _call_soon(loop, end, result, None)
            finally:
                _call_soon(loop, left)

        self._threads.run(work)
        timer = None
        if held.claim.timeout_seconds:
            timer = loop.call_later(held.claim.timeout_seconds, expire)

    def _in_process(self, held: Held, task: Task[..., Any]) -> None:
        claim = held.claim
        loop = asyncio.get_running_loop()
        call = self._children.call(task.function, claim.inputs, _job(held, task), partial(self.note, claim.id))
        held.kill = call.kill
        timer: asyncio.TimerHandle | None = None

        def begun() -> None:
            nonlocal timer
            if claim.timeout_seconds and not held.ended:
                timer = loop.call_later(claim.timeout_seconds, expire)

        def expire() -> None:
            held.abandoned = "it has taken longer than its timeout"
            call.kill()

        def end(answer: Answer | BaseException) -> None:
            held.kill = None
            if timer is not None:
                timer.cancel()
            self.lane_of(claim.name).ended(held, time.monotonic())
            if isinstance(answer, Answer):
                self._answered(held, answer)
            elif self._stopped and call.killed:
                pass  # whoever takes over runs it again
            elif held.cancel_asked and call.killed:
                self._cancelled(held)
            elif call.killed:
                late = self._timeout(held)
                self._failed(held, task, late, task.is_retryable(late, claim.retry), kind="timeout")
            else:
                self._failed(held, task, answer, task.is_retryable(answer, claim.retry))
            self.go_on()

        def work() -> None:
            try:
                answer: Answer | BaseException = call.run(lambda: _call_soon(loop, begun))
            except BaseException as error:  # noqa: BLE001  (what has become of the process is the outcome)
                answer = error
            _call_soon(loop, end, answer)

        context = contextvars.copy_context()
        context.run(current_attempt.set, (claim.id, claim.attempt))  # for what the child logs
        self._threads.run(lambda: context.run(work))

    def _timeout(self, held: Held) -> TaskTimeout:
        claim = held.claim
        return TaskTimeout(
            f"attempt {claim.attempt} of task {claim.name!r} took longer than its timeout "
            f"of {claim.timeout_seconds:g} s"
        )

    # --- outcomes ---

    def _completed(self, held: Held, task: Task[..., Any], output: Any) -> None:
        if isinstance(output, Ending):
            self._ended(held, task, output)
            return
        if self.fail_point is not None:
            self.fail_point.passed("task_done")
        try:
            payload = task.encode(output, bytes_max=self.payload_bytes_max)
        except BaseException as error:  # noqa: BLE001  (whatever encoding raises is the outcome)
            self._failed(held, task, error, task.is_retryable(error, held.claim.retry))
            return
        claim = held.claim
        if self._debug:
            log_transition(logging.DEBUG, claim.id, claim.attempt, "task", claim.name, "completed")
        self.report(held, TaskOutcome(held.token, claim.id, "completed", payload))

    def _answered(self, held: Held, answer: Answer) -> None:
        """What a child process says of its task."""
        if self.fail_point is not None:
            self.fail_point.passed("task_done")
        claim = held.claim
        if answer.completed:
            log_transition(logging.DEBUG, claim.id, claim.attempt, "task", claim.name, "completed")
            self.report(held, TaskOutcome(held.token, claim.id, "completed", answer.payload))
            return
        self._report_failure(held, answer.payload, "failed", answer.error, answer.retryable, answer.retry_after)

    def _ended(self, held: Held, task: Task[..., Any], ending: Ending) -> None:
        if ending is Ending.ABANDONED:
            return
        claim = held.claim
        if ending is not Ending.LOST:
            if ending is Ending.COMMITTED:
                log_transition(logging.DEBUG, claim.id, claim.attempt, "task", claim.name, "completed")
            self.settled(held)
            return
        held.begun = False  # nothing of it is left, and nothing of it runs
        pause = self._transactions().pause_after_loss(claim.id)
        if pause is not None:
            asyncio.get_running_loop().call_later(pause, self.give_back, held)
            return
        error = DatabaseUnavailable("the connection of its transaction was lost again and again")
        self._failed(held, task, error, task.is_retryable(error, claim.retry))

    def _failed(
        self, held: Held, task: Task[..., Any] | None, error: BaseException, retryable: bool, *, kind: str = "failed"
    ) -> None:
        if held.cancel_asked and isinstance(error, TaskAbandoned):
            self._cancelled(held)
            return
        after = error.seconds if isinstance(error, TaskRetryAfter) else None
        why = f"{type(error).__name__}: {error}"
        payload = failure_payload(error, kind=kind, attempts=held.claim.attempt, retryable=retryable)
        self._report_failure(held, payload, kind, why, retryable, after)

    def _report_failure(
        self, held: Held, payload: bytes, kind: str, why: str, retryable: bool, after: float | None
    ) -> None:
        claim = held.claim
        log_transition(logging.INFO, claim.id, claim.attempt, "task", claim.name, "failed", type=kind, error=why)
        self.report(held, TaskOutcome(held.token, claim.id, "failed", payload, retryable, after))

    def _cancelled(self, held: Held) -> None:
        claim = held.claim
        log_transition(logging.INFO, claim.id, claim.attempt, "task", claim.name, "cancelled")
        error = TaskCancelled(f"task {claim.name!r} was cancelled")
        payload = failure_payload(error, kind="cancelled", attempts=claim.attempt)
        self.report(held, TaskOutcome(held.token, claim.id, "cancelled", payload))

    # --- stopping ---

    def cancel(self, held: Held) -> None:
        """Somebody wants it cancelled: what has not begun never does, an async task is interrupted, others ask."""
        held.cancel_asked = True
        if held.running is not None:
            held.running.cancel()
        elif held.kill is not None:
            held.kill()
        elif held in (waiting := self.lane_of(held.claim.name).waiting):
            waiting.remove(held)
            self._cancelled(held)

    def take_waiting(self) -> list[Held]:
        """Everything claimed that has not begun; it will not begin any more."""
        waiting = [held for lane in self.lanes for held in lane.waiting]
        for lane in self.lanes:
            lane.waiting.clear()
        return waiting

    def let_go(self) -> None:
        """Cancels what can be cancelled and begins nothing more; outcomes that still come are ignored by fencing."""
        self._stopped = True
        self.take_waiting()
        for held in [held for lane in self.lanes for held in lane.under_way]:
            held.abandoned = "its worker has let go of it"
            if held.running is not None:
                held.running.cancel()
            elif held.kill is not None:
                held.kill()

    def close(self) -> None:
        """Kills the child processes, and gives the threads up without waiting for them."""
        self.let_go()
        for handle in (self._slice, self._surplus_check):
            if handle is not None:
                handle.cancel()
        self._children.close()
        self._threads.close()

    def join(self) -> None:
        """After ``close``: waits for what was killed. Blocks for a moment."""
        self._children.join()


class _Threads:
    """Daemon threads that run one function after the other; as many as are busy at a time, at most.

    Not an executor of the standard library: its threads hold up the end of the process until the last one is done, and
    a worker that lets go must not wait for a task that nobody can stop.
    """

    def __init__(self, on_broken: Callable[[BaseException], None]) -> None:
        self._on_broken = on_broken
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def run(self, function: Callable[[], None]) -> None:
        """Runs it as soon as a thread is free; the caller sees to how many there are.

        Raises RuntimeError when a thread is needed and cannot be had.
        """
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._loop, name=f"rhythm-task-{self._count + 1}", daemon=True).start()
            self._count += 1
        self._work.put(function)

    def close(self) -> None:
        """Ends the threads, each after what it is at."""
        for _ in range(self._count):
            self._work.put(None)

    def _loop(self) -> None:
        while (function := self._work.get()) is not None:
            try:
                function()
            except BaseException as error:
                logger.critical("a thread for tasks has ended unexpectedly", exc_info=True)
                self._on_broken(error)
                return
            self._idle.release()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        logger.debug("a task ended after its worker had gone")


def _job(held: Held, task: Task[..., Any]) -> dict[str, Any]:
    """What a child process has to know of an attempt."""
    claim = held.claim
    return {
        "policy": None if claim.retry is None else dict(claim.retry),
        "attempt": {
            "execution_id": str(claim.id),
            "attempt": claim.attempt,
            "parent_id": None if claim.parent_id is None else str(claim.parent_id),
            "idempotency_key": idempotency_key(claim.key, claim.parent_id, claim.operation, claim.id),
            "name": task.name,
        },
    }


def idempotency_key(
    key: str | None, parent_id: uuid.UUID | None, operation: int | None, execution_id: uuid.UUID
) -> str:
    """The token a task may hand to services: the same in every attempt, different for every call."""
    if key is not None:
        return key
    return f"{parent_id}:{operation}" if parent_id is not None else str(execution_id)
