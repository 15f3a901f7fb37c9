"""Micro workloads of the flow language beside the same algorithms in idiomatic Python, in one run.

    python benchmarks/bench_language.py [--repeat 7] [--source]

Prints a table: nanoseconds per operation of both and their ratio, with the ratio aimed at. Each figure is the best
of several runs, flow and Python taking turns. `--source` prints the generated Python instead.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from rhythm.language import codegen
from rhythm.language.diagnostics import Report
from rhythm.language.lower import lower
from rhythm.language.parser import parse
from rhythm.language.promises import Realm
from rhythm.language.resolver import resolve
from rhythm.language.values import set_current_realm


class Workload(NamedTuple):
    """One algorithm in both languages."""

    name: str
    operations: int  #: What one run counts as.
    aim: float | None  #: Ratio aimed at; None when it is only reported.
    argument: int  #: `inputs.n`.
    flow: str  #: Body of the workflow, with helpers before it after a line of three dashes.
    python: Callable[[int], Any]


def python_arith(n: int) -> int:
    s = 0
    for i in range(n):
        s = (s + i * 2) % 1000003
    return s


def python_fib(n: int) -> int:
    return n if n < 2 else python_fib(n - 1) + python_fib(n - 2)


def python_pipeline(n: int) -> int:
    array = []
    for i in range(n):
        array.append(i)  # noqa: PERF402 - the loop is the workload
    doubled = [x * 2 for x in array]
    kept = [x for x in doubled if x % 3 == 0]
    return reduce(lambda a, b: a + b, kept, 0)


def python_properties(n: int) -> float:
    points = [{"x": i, "y": i * 2} for i in range(n)]
    total = 0
    for p in points:
        total += p["x"] * p["y"]
        p["z"] = p["x"] + 1
    for p in points:
        total -= p["z"]
    return total


def python_strings(n: int) -> str:
    s = ""
    for i in range(n):
        s += "item " + str(i % 100) + ", "
    return s


def python_indexing(n: int) -> int:
    array = [i % 7 for i in range(n)]
    total = 0
    for i in range(len(array)):
        total += array[i]
    return total


def python_closures(n: int) -> int:
    def counter() -> Callable[[], int]:
        count = 0

        def increment() -> int:
            nonlocal count
            count += 1
            return count

        return increment

    increment = counter()
    last = 0
    for _ in range(n):
        last = increment()
    return last


def python_branches(n: int) -> int:
    longest = 0
    for start in range(1, n):
        steps, value = 0, start
        while value != 1:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            steps += 1
        if steps > longest:
            longest = steps
    return longest


WORKLOADS = [
    Workload(
        "arith loop",
        200_000,
        1.6,
        200_000,
        "let s = 0; for (let i = 0; i < inputs.n; i++) { s = (s + i * 2) % 1000003 } return s",
        python_arith,
    ),
    Workload(
        "recursion: fib(22)",
        28_657 * 2 - 1,
        1.6,
        22,
        "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }\n---\nreturn fib(inputs.n)",
        python_fib,
    ),
    Workload(
        "array pipeline",
        30_000 * 4,
        1.6,
        30_000,
        "const a = []; for (let i = 0; i < inputs.n; i++) a.push(i)\n"
        "return a.map(x => x * 2).filter(x => x % 3 === 0).reduce((a, b) => a + b, 0)",
        python_pipeline,
    ),
    Workload(
        "object properties",
        20_000 * 3,
        2.5,
        20_000,
        "const points = []; for (let i = 0; i < inputs.n; i++) points.push({x: i, y: i * 2})\n"
        "let total = 0; for (const p of points) { total += p.x * p.y; p.z = p.x + 1 }\n"
        "for (const p of points) total -= p.z\nreturn total",
        python_properties,
    ),
    Workload(
        "string building",
        3_000,
        2.5,
        3_000,
        "let s = ''; for (let i = 0; i < inputs.n; i++) { s += `item ${i % 100}, ` } return s",
        python_strings,
    ),
    Workload(
        "array indexing",
        50_000 * 2,
        None,
        50_000,
        "const a = []; for (let i = 0; i < inputs.n; i++) a.push(i % 7)\n"
        "let total = 0; for (let i = 0; i < a.length; i++) { total += a[i] } return total",
        python_indexing,
    ),
    Workload(
        "closures",
        50_000,
        None,
        50_000,
        "function counter() { let count = 0; return () => { count += 1; return count } }\n---\n"
        "const increment = counter(); let last = 0\n"
        "for (let i = 0; i < inputs.n; i++) { last = increment() } return last",
        python_closures,
    ),
    Workload(
        "branches: collatz",
        59_542,
        None,
        1_000,
        "let longest = 0\nfor (let start = 1; start < inputs.n; start++) {\n let steps = 0, value = start\n"
        " while (value !== 1) { value = value % 2 === 0 ? value / 2 : 3 * value + 1; steps++ }\n"
        " if (steps > longest) longest = steps\n}\nreturn longest",
        python_branches,
    ),
]


def program_of(workload: Workload) -> codegen.Program:
    helpers, _, body = workload.flow.rpartition("\n---\n")
    source = f"{helpers}\nworkflow(ctx, inputs) {{\n{body}\n}}\n"
    parsed = parse(source, "bench.flow")
    report = Report(source, "bench.flow")
    resolution = resolve(parsed.program, report)
    assert not parsed.diagnostics, parsed.diagnostics
    return codegen.load(lower(parsed.program, resolution, source, "bench"))


def measure(workload: Workload, repeat: int) -> tuple[float, float]:
    """Best time of one run of each, in seconds: (flow, Python)."""
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.5)
    set_current_realm(realm)
    workflow = program_of(workload).instantiate(realm).run_module()
    best_flow = best_python = float("inf")
    for _ in range(repeat):
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        promise = workflow({}, {"n": float(workload.argument)})
        middle = time.perf_counter()
        expected = workload.python(workload.argument)
        end = time.perf_counter()
        gc.enable()
        assert promise.value == expected, (workload.name, promise.value, expected)
        best_flow = min(best_flow, middle - start)
        best_python = min(best_python, end - middle)
    return best_flow, best_python


def main() -> None:
    """Run all workloads."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--source", action="store_true", help="print the generated Python")
    options = parser.parse_args()
    if options.source:
        for workload in WORKLOADS:
            print(f"# {workload.name}\n{program_of(workload).source}")
        return
    print(f"{'workload':<22}{'flow ns/op':>12}{'Python ns/op':>14}{'ratio':>8}{'aim':>7}")
    for workload in WORKLOADS:
        flow, python = measure(workload, options.repeat)
        aim = f"{workload.aim:.1f}" if workload.aim is not None else "-"
        nanoseconds = 1e9 / workload.operations
        print(
            f"{workload.name:<22}{flow * nanoseconds:>12.1f}{python * nanoseconds:>14.1f}{flow / python:>8.2f}{aim:>7}"
        )


if __name__ == "__main__":
    main()
