"""The flow language beside Python, in one run.

    python -m benchmarks.bench_language [--repeat 15] [--source] [--only NAME,…]

First the workloads of `language_workloads`: nanoseconds per operation of flow and Python and their ratio, with the
ratio aimed at. Then what happens around the code of a flow (`language_stages`): compiling, loading, suspending,
activating, beside a yardstick of the same run.

Each figure is the best of several runs, both sides taking turns, in processor time of the thread: ratios hold on a busy
machine, times roughly.
`--source` prints the generated Python instead.
"""

from __future__ import annotations

import argparse
import gc
import time

from benchmarks.language_stages import STAGES, measure_stage
from benchmarks.language_workloads import WORKLOADS, Workload
from rhythm.language import codegen
from rhythm.language.diagnostics import Report
from rhythm.language.lower import lower
from rhythm.language.parser import parse
from rhythm.language.promises import Realm
from rhythm.language.resolver import resolve
from rhythm.language.values import set_current_realm


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
        start = time.thread_time()
        promise = workflow({}, {"n": float(workload.argument)})
        realm.drain()
        middle = time.thread_time()
        expected = workload.python(workload.argument)
        end = time.thread_time()
        gc.enable()
        assert promise.value == expected, (workload.name, promise.value, expected)
        best_flow = min(best_flow, middle - start)
        best_python = min(best_python, end - middle)
    set_current_realm(None)
    return best_flow, best_python


def main() -> None:
    """Run all workloads and stages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_language", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--source", action="store_true", help="print the generated Python")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[""], help="parts of names")
    options = parser.parse_args()
    workloads = [item for item in WORKLOADS if any(part in item.name for part in options.only)]
    if options.source:
        for workload in workloads:
            print(f"# {workload.name}\n{program_of(workload).source}")
        return
    print(f"{'workload':<34}{'flow ns/op':>12}{'Python ns/op':>14}{'ratio':>8}{'aim':>7}")
    for workload in workloads:
        flow, python = measure(workload, options.repeat)
        aim = f"{workload.aim:.1f}" if workload.aim is not None else "-"
        each = 1e9 / workload.operations
        print(f"{workload.name:<34}{flow * each:>12.1f}{python * each:>14.1f}{flow / python:>8.2f}{aim:>7}")
    print(f"\n{'stage':<34}{'µs':>12}{'yardstick µs':>14}{'ratio':>8}{'aim µs':>8}  yardstick")
    for stage in STAGES:
        if any(part in stage.name for part in options.only):
            ours, other = measure_stage(stage, options.repeat)
            aim = f"{stage.aim_us:,.0f}" if stage.aim_us is not None else "-"
            print(f"{stage.name:<34}{ours:>12,.1f}{other:>14,.1f}{ours / other:>8.2f}{aim:>8}  {stage.yardstick}")


if __name__ == "__main__":
    main()
