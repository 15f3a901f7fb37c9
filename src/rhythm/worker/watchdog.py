"""The watchdog: ends an activation that runs for too long, and the thread that activations run on.

Workflow code runs between two suspensions without giving way. Counting steps would double the cost of every loop, so
nothing is counted: a monitor thread looks at the clock. It knows the number of the running activation and the thread it
runs on; when the budget is over it raises ActivationBudgetExceeded in that thread (PyThreadState_SetAsyncExc), under
the lock, only while that number is current, and again every REPEAT_SECONDS until it changes. The end of an activation
takes the lock, changes the number and clears an exception that is still pending, so the next activation is never hit.
The interrupted heap is thrown away; generated code cannot catch the exception.

Code inside C does not notice. Whoever is still stuck after STUCK_BUDGETS budgets is reported to ``on_stuck``, and the
worker gives its process up.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from rhythm.language.values import ActivationBudgetExceeded

REPEAT_SECONDS: Final = 0.1
STUCK_BUDGETS: Final = 3
STACK_BYTES: Final = 256 << 20  #: Stack of the thread that runs workflows; memory is used as it is touched.
RECURSION_LIMIT: Final = 12_000  #: Python frames: call depth 10,000 of flow functions and what helpers need.
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
    """Guards the activations of one thread. ``budget_seconds`` is the time each may take."""

    def __init__(self, budget_seconds: float = BUDGET_SECONDS, on_stuck: Callable[[], None] | None = None) -> None:
        self.budget_seconds = budget_seconds
        self._on_stuck = on_stuck
        self._condition = threading.Condition()
        self._number = 0
        self._began: float | None = None
        self._thread_id = 0
        self._closed = False
        self._monitor = threading.Thread(target=self._watch, name="rhythm-watchdog", daemon=True)
        self._monitor.start()

    def run(self, activation: Callable[[], T]) -> T:
        """Runs one activation. Raises ActivationBudgetExceeded when it took too long."""
        try:
            self._begin()
            try:
                return activation()
            finally:
                self._end()
        except ActivationBudgetExceeded:
            self._end()  # the exception may have come while the first end was under way
            raise

    def close(self) -> None:
        """Ends the monitor thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._monitor.join()

    def _begin(self) -> None:
        with self._condition:
            self._number += 1
            self._thread_id = threading.get_ident()
            self._began = time.monotonic()
            # No notify: the monitor wakes up by itself once in each budget, which is soon enough.

    def _end(self) -> None:
        with self._condition:
            self._number += 1
            self._began = None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)

    def _watch(self) -> None:
        while not self._closed:
            try:
                self._watch_clock()
            except Exception:
                logger.exception("the watchdog failed and begins anew")
                time.sleep(REPEAT_SECONDS)

    def _watch_clock(self) -> None:
        stuck_number = 0
        with self._condition:
            while not self._closed:
                self._condition.wait(self._pause())
                if self._began is None or self._closed:
                    continue
                spent = time.monotonic() - self._began
                if spent < self.budget_seconds:
                    continue
                exception = ctypes.py_object(ActivationBudgetExceeded)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), exception)
                if spent > self.budget_seconds * STUCK_BUDGETS and stuck_number != self._number:
                    stuck_number = self._number
                    if self._on_stuck is not None:
                        self._on_stuck()

    def _pause(self) -> float:
        if self._began is None:
            return self.budget_seconds / 2
        left = self._began + self.budget_seconds - time.monotonic()
        return max(left, 0.001) if left > 0 else REPEAT_SECONDS
