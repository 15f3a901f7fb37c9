"""``evaluate``: runs a workflow in memory, in virtual time, with Python callables as its tasks.

The same engine as in a worker, one delivery after the other. What is pending is kept in one list of events, each with
the time it is due; when no microtask is left, the event with the smallest (due time, call order) settles and the clock
jumps there. A timer is due after its duration, a task one millisecond after its call. Nothing waits in real time.

With ``snapshot="await"`` the state is written to bytes at every suspension, dropped, and read into a fresh interpreter.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from rhythm import payloads
from rhythm.durations import Duration, parse_seconds
from rhythm.engine import Activation, Environment, StartInfo, activate, compile_workflow, fatal_activation, load_program
from rhythm.errors import ExecutionFailed, InvalidInput
from rhythm.failures import failure_payload
from rhythm.language.values import ActivationBudgetExceeded
from rhythm.model import Delivery, NewChild, WorkflowOutcome, new_id
from rhythm.tasks import NEVER_RETRIED, Task, TaskContext
from rhythm.worker.watchdog import BUDGET_SECONDS, Watchdog, run_with_large_stack

TASK_MS: Final = 1.0  #: how long a task takes in virtual time
EVENTS_MAX: Final = 1_000_000  #: deliveries of one evaluation; more is taken for an endless loop
CHILDREN_DEPTH_MAX: Final = 20  #: child workflows inside each other
CANCELS_MAX: Final = 100  #: cancel requests to a workflow that waits for signals nobody sends


@dataclass(frozen=True, slots=True)
class Later:
    """What a task callable may return instead of its output: an outcome that comes later."""

    value: Any = None  #: the output, unless ``error`` is given
    error: BaseException | None = None
    delay: Duration = 0  #: after the call; a number is seconds


@dataclass(frozen=True, slots=True)
class EvaluationError:
    """How a workflow failed."""

    name: str | None = None
    message: str | None = None
    stack: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)  #: all of it, as stored
    thrown: Any = None  #: what was thrown when that was not an Error

    @property
    def has_thrown(self) -> bool:
        """Whether something other than an Error was thrown."""
        return "thrown" in self.payload


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a workflow ended."""

    status: str  #: "completed", "failed" or "cancelled"
    error: EvaluationError | None
    logs: tuple[tuple[str, str], ...]  #: (level, text) of console calls and warnings
    suspensions: int  #: how often it was suspended
    value: Any = None

    @property
    def result(self) -> Any:
        """The output, JSON-shaped. Raises ExecutionFailed when the workflow failed."""
        if self.error is not None:
            raise ExecutionFailed(self.error.payload)
        return self.value


def evaluate(
    source: str,
    inputs: Any = None,
    tasks: Mapping[str, Callable[..., Any]] | None = None,
    *,
    snapshot: Literal["never", "await"] = "never",
    signals: Sequence[tuple[Duration, str, Any]] = (),
    clock: datetime | float | None = None,
    ctx: Mapping[str, Any] | None = None,
    workflows: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a workflow in memory.

    A task that the workflow cancels, or whose deadline passes, confirms that one millisecond later; one that is due by
    then settles as it does.
    ``tasks`` maps names of tasks (and of child workflows) to plain or async callables, called with the inputs as
    keyword arguments, or with the one raw value when declared with a single positional-only parameter. A function
    decorated with ``@rhythm.task`` gets its inputs validated and its output encoded, as in a worker. ``signals``
    holds (after, name, payload), ``after`` counted from the start, in seconds or as text. ``clock`` is where the
    virtual clock begins: a datetime, or seconds since 1970; default now. ``ctx`` replaces fields of the workflow's
    ``ctx``. ``workflows`` maps names of child workflows to their sources: these are run as well, with the same tasks
    and in the same virtual time, but get no signals.
    Works with and without a running event loop. Raises CompileError, and InvalidInput for inputs JSON cannot hold.
    """
    if snapshot not in ("never", "await"):
        raise InvalidInput(f"snapshot {snapshot!r} is neither 'never' nor 'await'")
    definition = compile_workflow(source, "workflow.flow", str((ctx or {}).get("name", "workflow")))
    program = load_program(definition.ir_bytes, definition.hash)
    begin = time.time() if clock is None else clock.timestamp() if isinstance(clock, datetime) else clock
    begin_ms = float(int(float(begin) * 1000.0))  # whole, as Date.now() is
    given = dict(ctx or {})
    start = StartInfo(
        execution_id=str(given.get("executionId", uuid.UUID(int=0))),
        name=str(given.get("name", "workflow")),
        version=str(given.get("version", definition.hash)),
        started_at_ms=float(given.get("startedAt", begin_ms)),
        parent_id=given.get("parentId"),
        tags=given.get("tags"),
        inputs=payloads.encode({} if inputs is None else inputs, "inputs"),
    )
    evaluation = _Evaluation(program, dict(tasks or {}), dict(workflows or {}), snapshot == "await", begin_ms)
    for after, name, payload in signals:
        data = payloads.encode(payload, f"payload of signal {name!r}")
        evaluation.at(begin_ms + parse_seconds(after) * 1000, Delivery(0, "signal", None, name, data))
    return run_with_large_stack(lambda: evaluation.outcome(start))


class _Evaluation:
    def __init__(
        self,
        program: Any,
        tasks: dict[str, Callable[..., Any]],
        workflows: dict[str, str],
        by_bytes: bool,
        now_ms: float,
        depth: int = 0,
    ) -> None:
        self.program = program
        self.tasks = tasks
        self.workflows = workflows
        self.depth = depth  # how many workflows wait for this one
        self.by_bytes = by_bytes
        self.now_ms = now_ms
        self.events: list[tuple[float, int, int, Delivery]] = []
        self.order = itertools.count()
        self.numbers = itertools.count(1)
        self.dropped: set[int] = set()
        self.running: dict[uuid.UUID, tuple[int, float, float]] = {}  # operation, when it began, when it is to end
        self.cancels = 0
        self.execution_id = ""
        self.logs: list[tuple[str, str]] = []
        self.suspensions = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def at(self, due_ms: float, delivery: Delivery) -> None:
        # Ties go by call order: operations are numbered in it, and signals are there before all calls.
        order = next(self.order) - EVENTS_MAX if delivery.operation is None else delivery.operation
        heapq.heappush(self.events, (due_ms, order, next(self.order), delivery))

    def outcome(self, start: StartInfo) -> Outcome:
        ended = self.run(start)
        value = payloads.decode(ended.payload)
        logs = tuple(self.logs)
        if ended.status == "completed":
            return Outcome("completed", None, logs, self.suspensions, value)
        error = EvaluationError(value.get("name"), value.get("message"), value.get("stack"), value, value.get("thrown"))
        return Outcome(ended.status, error, logs, self.suspensions)

    def run(self, start: StartInfo) -> WorkflowOutcome:
        self.execution_id = start.execution_id
        environment = Environment(lambda: self.now_ms, random.random, lambda: str(new_id()))
        watchdog = Watchdog(BUDGET_SECONDS)
        try:
            activation = self.guarded(watchdog, (), environment=environment, start=start)
            while True:
                self.carry_out(activation)
                if activation.outcome is not None:
                    return activation.outcome
                self.suspensions += 1
                delivery = self.next_delivery()
                state: dict[str, Any] = (
                    {"snapshot": activation.snapshot} if self.by_bytes else {"live": activation.live}
                )
                activation = self.guarded(watchdog, (delivery,), environment=environment, **state)
        finally:
            watchdog.close()
            if self.loop is not None:
                self.loop.close()

    def guarded(self, watchdog: Watchdog, deliveries: tuple[Delivery, ...], **arguments: Any) -> Activation:
        try:
            return watchdog.run(
                lambda: activate(self.program, deliveries=deliveries, keep_bytes=self.by_bytes, **arguments)
            )
        except ActivationBudgetExceeded as error:
            return fatal_activation(self.program.name, error, deliveries)

    def next_delivery(self) -> Delivery:
        while self.events:
            due_ms, _, _, delivery = heapq.heappop(self.events)
            if delivery.kind == "timer" and delivery.operation in self.dropped:
                continue
            self.now_ms = max(self.now_ms, due_ms)
            number = next(self.numbers)
            if number > EVENTS_MAX:
                raise InvalidInput(f"the workflow was woken more than {EVENTS_MAX:,} times; does it ever end?")
            return Delivery(number, delivery.kind, delivery.operation, delivery.name, delivery.payload)
        # A signal that nobody will send: what a worker would show as suspended for ever ends here.
        self.cancels += 1
        if self.cancels > CANCELS_MAX:
            raise InvalidInput("the workflow waits for a signal that is not given, whatever cancel requests it gets")
        return Delivery(next(self.numbers), "cancel")

    def carry_out(self, activation: Activation) -> None:
        self.logs += activation.logs
        for child in activation.children:
            self.call(child)
        for timer in activation.timers:  # after the children: what ends just within its deadline has ended
            due = self.now_ms + timer.delay_ms if timer.delay_ms is not None else timer.due_at_ms
            assert due is not None, "a timer has one of its two times"
            self.at(due, Delivery(0, "timer", timer.operation))
        self.dropped.update(activation.dropped_timers)
        for child_id in activation.cancels:
            self.stop(child_id)

    def call(self, child: NewChild) -> None:
        begin_ms = self.now_ms + float(child.options.get("delay_seconds") or 0) * 1000
        kind, payload, due = "completed", b"", begin_ms + TASK_MS
        try:
            if child.kind == "workflow" and child.name in self.workflows:
                kind, payload, due = self.child_workflow(child, begin_ms)
            else:
                answer = self.invoke(child)
                if isinstance(answer, Later):
                    due = self.now_ms + parse_seconds(answer.delay) * 1000
                    if answer.error is not None:
                        raise answer.error
                    answer = answer.value
                payload = payloads.encode(answer, f"output of {child.kind} {child.name!r}")
        except Exception as error:  # noqa: BLE001  (whatever a task raises is its failure)
            kind = "failed"
            payload = failure_payload(error, retryable=not isinstance(error, NEVER_RETRIED))
        self.at(due, Delivery(0, kind, child.operation, None, payload))
        self.running[child.id] = child.operation, begin_ms, due

    def child_workflow(self, child: NewChild, begin_ms: float) -> tuple[str, bytes, float]:
        """Runs a child to its end: how it is delivered to its parent, with what, and when."""
        if self.depth >= CHILDREN_DEPTH_MAX:
            raise RecursionError(f"more than {CHILDREN_DEPTH_MAX} workflows wait for each other")
        definition = compile_workflow(self.workflows[child.name], f"{child.name}.flow", child.name)
        program = load_program(definition.ir_bytes, definition.hash)
        inside = _Evaluation(program, self.tasks, self.workflows, self.by_bytes, begin_ms, self.depth + 1)
        ended = inside.run(
            StartInfo(
                execution_id=str(child.id),
                name=child.name,
                version=definition.hash,
                started_at_ms=begin_ms,
                parent_id=self.execution_id,
                tags=None,
                inputs=child.inputs,
            )
        )
        self.logs += inside.logs
        kind = "completed" if ended.status == "completed" else "failed"
        return kind, ended.payload, inside.now_ms + TASK_MS

    def stop(self, child_id: uuid.UUID) -> None:
        """Asks a task to stop: one that takes longer confirms it; one that is as good as done settles as it will."""
        operation, begin_ms, due = self.running.pop(child_id)
        if due > self.now_ms + TASK_MS:
            self.events = [
                event for event in self.events if event[-1].operation != operation or event[-1].kind == "timer"
            ]
            heapq.heapify(self.events)
            begun = self.now_ms >= begin_ms
            error = TaskCancelled("the task was cancelled" if begun else "cancelled before it was run")
            payload = failure_payload(error, kind="cancelled", attempts=1 if begun else 0)
            confirmed = Delivery(0, "failed", operation, None, payload)
            self.at(self.now_ms + TASK_MS, confirmed)

    def invoke(self, child: NewChild) -> Any:
        function = self.tasks.get(child.name)
        if function is None:
            raise TaskNotFoundError(f"no {child.kind} named {child.name!r} was given to evaluate")
        if isinstance(function, Task):
            return self.invoke_task(function, child)
        inputs = payloads.decode(child.inputs)
        if _takes_raw(function):
            answer = function(inputs)
        elif isinstance(inputs, dict):
            answer = function(**inputs)
        else:
            raise TypeError(f"inputs of {child.kind} {child.name!r} are not an object")
        return self.awaited(answer)

    def invoke_task(self, task: Task[..., Any], child: NewChild) -> Any:
        """As a worker does: inputs matched and validated, the output encoded by its annotation."""
        arguments = task.bind(child.inputs)
        if task.context_parameter is not None:
            arguments[task.context_parameter] = TaskContext(child.id, name=task.name)
        answer = self.awaited(task.function(**arguments))
        return answer if isinstance(answer, Later) else payloads.decode(task.encode(answer))

    def awaited(self, answer: Any) -> Any:
        if not inspect.isawaitable(answer):
            return answer
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(_awaited(answer))


class TaskNotFoundError(Exception):
    """There is no task of this name."""


class TaskCancelled(Exception):
    """The task was cancelled."""


async def _awaited(answer: Any) -> Any:
    return await answer


def _takes_raw(function: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    return len(parameters) == 1 and parameters[0].kind is inspect.Parameter.POSITIONAL_ONLY
