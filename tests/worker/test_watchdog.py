"""The watchdog by itself: it strikes the activation that is too long or too large, no other, and goes on watching."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rhythm.language.values import ActivationBudgetExceeded, ActivationMemoryExceeded
from rhythm.worker.watchdog import Watchdog

MIB = 1 << 20


@pytest.fixture
def watch() -> Iterator[Callable[..., Watchdog]]:
    made: list[Watchdog] = []

    def make(budget_seconds: float, **options: Any) -> Watchdog:
        made.append(Watchdog(budget_seconds, **options))
        return made[-1]

    yield make
    for watchdog in made:
        watchdog.close()


def spin(seconds: float = 60.0) -> str:
    """Takes so much time of a processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return "done"


def test_a_strike_at_the_very_end_of_an_activation_hits_no_other_and_leaves_the_watchdog_working(
    watch: Callable[..., Watchdog],
) -> None:
    budget = 0.02
    watchdog = watch(budget)
    rng = random.Random(5)
    struck = 0
    for _ in range(100):
        try:
            watchdog.run(lambda: spin(rng.uniform(0.5, 1.5) * budget))
        except ActivationBudgetExceeded:
            struck += 1
        assert sum(range(2000)) == 1_999_000  # nothing of it arrives here

    assert 0 < struck < 100
    with pytest.raises(ActivationBudgetExceeded):
        watchdog.run(spin)


def test_time_without_a_processor_is_not_held_against_an_activation(watch: Callable[..., Watchdog]) -> None:
    """Four processes for each processor: by the clock it takes several times its budget."""
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * len(os.sched_getaffinity(0)))
    ]
    try:
        watchdog = watch(0.3)
        began = time.monotonic()
        assert watchdog.run(lambda: spin(0.15)) == "done"
        assert time.monotonic() - began > 0.3
        with pytest.raises(ActivationBudgetExceeded):
            watchdog.run(spin)
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.wait()


@pytest.mark.usefixtures("unraisable_ignored")
def test_a_heap_that_takes_long_to_take_down_is_struck_again_and_again(watch: Callable[..., Watchdog]) -> None:
    watchdog = watch(0.05)

    def grow() -> None:
        held: Any = None
        for number in itertools.count():
            held = [held, number, {}]

    for _ in range(3):
        with pytest.raises(ActivationBudgetExceeded):
            watchdog.run(grow)
    assert watchdog.run(lambda: "well") == "well"


@pytest.mark.usefixtures("unraisable_ignored")
def test_an_activation_that_takes_too_much_memory_is_struck(watch: Callable[..., Watchdog]) -> None:
    watchdog = watch(60.0, memory_bytes_max=64 * MIB)
    kept: list[bytes] = []

    def take() -> None:
        while len(kept) < 300:
            kept.append(b"x" * MIB)
            time.sleep(0.005)

    with pytest.raises(ActivationMemoryExceeded):
        watchdog.run(take)
    assert 60 < len(kept) < 250


@pytest.mark.usefixtures("unraisable_ignored")
def test_an_activation_in_long_calls_of_c_is_struck_after_few_of_them(watch: Callable[..., Watchdog]) -> None:
    """Each call keeps the interpreter, and so the watchdog waiting, for about as long as a look may take to come."""
    watchdog = watch(60.0, memory_bytes_max=64 * MIB)
    kept: list[bytes] = []
    numbers = range(3_000_000)

    def take() -> None:
        while len(kept) < 30:
            sum(numbers)
            kept.append(b"x" * (16 * MIB))

    with pytest.raises(ActivationMemoryExceeded):
        watchdog.run(take)
    assert 4 <= len(kept) < 12


@pytest.mark.usefixtures("unraisable_ignored")
def test_what_an_activation_takes_before_the_first_look_counts(watch: Callable[..., Watchdog]) -> None:
    watchdog = watch(60.0, memory_bytes_max=64 * MIB)

    def take() -> str:
        kept = b"x" * (160 * MIB)
        spin(10.0)
        return f"{len(kept)}"

    for _ in range(2):
        with pytest.raises(ActivationMemoryExceeded):
            watchdog.run(take)
    assert watchdog.run(lambda: "well") == "well"


def test_what_another_thread_takes_is_not_held_against_an_activation(watch: Callable[..., Watchdog]) -> None:
    watchdog = watch(60.0, memory_bytes_max=64 * MIB)
    running, taken = threading.Event(), threading.Event()
    kept: list[bytes] = []

    def take() -> None:
        running.wait()
        kept.extend(b"x" * MIB for _ in range(160))
        taken.set()

    def wait() -> str:
        spin(0.2)  # it has been seen
        running.set()
        taken.wait()
        return spin(0.3)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        assert watchdog.run(wait) == "done"
    finally:
        running.set()
        thread.join()


def test_who_is_still_stuck_after_three_budgets_is_reported_once(watch: Callable[..., Watchdog]) -> None:
    reported: list[float] = []
    began = time.monotonic()
    watchdog = watch(0.1, on_stuck=lambda: reported.append(time.monotonic() - began))

    with pytest.raises(ActivationBudgetExceeded):
        watchdog.run(lambda: time.sleep(0.8))  # a call of C, which notices nothing

    assert len(reported) == 1
    assert reported[0] >= 0.3
