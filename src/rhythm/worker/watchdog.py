"""The watchdog: ends an activation that runs for too long or takes too much memory, and the thread they run on.

Workflow code runs between two suspensions without giving way. Counting steps would double the cost of every loop, so
nothing is counted: a monitor thread looks at the clock. It knows the running activation and the thread it runs on; when
the budget is over it raises ActivationBudgetExceeded in that thread (PyThreadState_SetAsyncExc), only while that
activation is the running one, and again every REPEAT_SECONDS. The end of an activation says that it runs no more, waits
until no strike is under way, and clears an exception that is still pending, so the next activation is never hit. There
is no lock between the two: an exception that comes right after a lock was taken would leave it taken for ever.
The interrupted heap is thrown away; generated code cannot catch the exception.

The budget is time by the clock without that in which the thread could run and had no processor, so that workflows do
not fail because a machine is busy with other things. Where the system does not tell (outside Linux) the clock counts.

The same monitor looks every TICK_SECONDS at the memory of the process. When it has grown by more than an activation may
take since that activation began, and the thread of activations has itself touched at least half of that, it raises
ActivationMemoryExceeded there in the same way. So the process grows by the limit and by what one tick or a few calls of
C add; what builtins ask of C in one call is bounded by them. A look waits for the interpreter once, see usage.

Code inside C does not notice either. Whoever is still stuck after STUCK_BUDGETS budgets is reported to ``on_stuck``,
and the worker gives its process up.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from rhythm.language.values import ActivationBudgetExceeded, ActivationMemoryExceeded
from rhythm.worker.usage import Meter, Usage

REPEAT_SECONDS: Final = 0.1
STUCK_BUDGETS: Final = 3
STACK_BYTES: Final = 256 << 20  #: Stack of the thread that runs workflows; memory is used as it is touched.
RECURSION_LIMIT: Final = 12_000  #: Python frames: call depth 10,000 of flow functions and what helpers need.
TICK_SECONDS: Final = 0.05  #: between two looks at the memory while an activation runs
IDLE_SECONDS: Final = 0.2  #: between two looks otherwise
MEMORY_BYTES_MAX: Final = 512 << 20  #: Default growth of the process during one activation.
BUDGET_SECONDS: Final = 2.0  #: Default time of one activation.

T = TypeVar("T")
logger = logging.getLogger("rhythm.worker")
_stack_size_lock = threading.Lock()


def start_large_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A running daemon thread with STACK_BYTES of stack, and room for RECURSION_LIMIT Python frames."""
    with _stack_size_lock:
        if sys.getrecursionlimit() < RECURSION_LIMIT:
            sys.setrecursionlimit(RECURSION_LIMIT)
        before = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


def run_with_large_stack(function: Callable[[], T]) -> T:
    """Runs a function on a thread of its own with a large stack and waits for it; its exceptions come through."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001  (carried over to the caller)
            errors.append(error)

    start_large_thread(run, "rhythm-evaluate").join()
    if errors:
        raise errors[0]
    return results[0]


class Watchdog:
    """Guards the activations of one thread.

    ``budget_seconds`` is the time each may take, ``memory_bytes_max`` what the process may grow by meanwhile.
    """

    def __init__(
        self,
        budget_seconds: float = BUDGET_SECONDS,
        on_stuck: Callable[[], None] | None = None,
        *,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        self.budget_seconds = budget_seconds
        self.memory_bytes_max = memory_bytes_max
        self._on_stuck = on_stuck
        self._running: _Running | None = None  # replaced as a whole, so that no lock is needed to read it
        self._striking = False
        self._struck = False  # at the running activation, or the one that is ending: its exception may be pending
        self._closing = threading.Event()
        self._meter: Meter | None = None  # of the thread that ran the last activation
        self._monitor = threading.Thread(target=self._watch, name="rhythm-watchdog", daemon=True)
        self._monitor.start()

    def run(self, activation: Callable[[], T]) -> T:
        """Runs one activation. Raises ActivationBudgetExceeded when it took too long or too much."""
        began = time.monotonic()
        meter = self._meter
        if meter is None or meter.native_id != threading.get_native_id():
            meter = self._meter = Meter()
        try:
            self._running = _Running(began, meter, meter.recent(began))
            try:
                return activation()
            finally:
                self._end()
        except ActivationBudgetExceeded:
            self._end()  # the exception may have come before the first end was under way
            raise

    def close(self) -> None:
        """Ends the monitor thread."""
        self._closing.set()
        self._monitor.join()
        if self._meter is not None:
            self._meter.close()
            self._meter = None

    def _end(self) -> None:
        while True:
            try:
                self._running = None
                while self._striking:
                    time.sleep(0.0001)
                if self._struck:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
                    self._struck = False
                return
            except ActivationBudgetExceeded:
                continue  # the last one for this activation: from now on the monitor sees that it has ended

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._watch_clock()
            except Exception:
                logger.exception("the watchdog failed and begins anew")
                time.sleep(REPEAT_SECONDS)

    def _watch_clock(self) -> None:
        reported: _Running | None = None
        pause = IDLE_SECONDS
        while not self._closing.wait(pause):
            running = self._running
            if running is None:
                pause = min(self.budget_seconds / 2, IDLE_SECONDS)
                continue
            used = running.meter.read()
            starved = used.starved - running.before.starved
            left = self.budget_seconds - (time.monotonic() - running.began - starved)
            if left <= 0:
                self._strike(running, ActivationBudgetExceeded)
            elif _grown(running.before, used) > self.memory_bytes_max:
                self._strike(running, ActivationMemoryExceeded)
            pause = min(max(left, 0.001), TICK_SECONDS) if left > 0 else REPEAT_SECONDS
            if left < -self.budget_seconds * (STUCK_BUDGETS - 1) and running is not reported:
                reported = running
                if self._on_stuck is not None and self._running is running:
                    self._on_stuck()

    def _strike(self, running: _Running, kind: type[ActivationBudgetExceeded]) -> None:
        self._striking = True
        try:
            if self._running is running:
                self._struck = True
                thread_id = ctypes.c_ulong(running.meter.thread_id)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, ctypes.py_object(kind))
        finally:
            self._striking = False


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """The activation under way."""

    began: float
    meter: Meter  # of its thread
    before: Usage


def _grown(before: Usage, now: Usage) -> int:
    """Bytes of growth of the process that the metered thread has had a large part in; 0 if it has not."""
    grown = now.resident - before.resident
    if now.touched is not None and before.touched is not None and (now.touched - before.touched) * 2 < grown:
        return 0  # somebody else's: a task that runs in this process
    return grown
