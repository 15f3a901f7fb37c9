"""Measures an installation of Rhythm: `rhythm bench`, and the engine's own benchmarks in `benchmarks/`.

    harness     scratch databases on the configured server, worker processes, and the figures
    measures    what is measured, one function each
    workload    the tasks that the measured workers run; `workflows/` has the workflows
    clocks      start times of task bodies, shared between processes

Everything goes through the public API and real `rhythm worker` processes, with the defaults: nothing is switched off
for measuring. Each measure works in a database of its own, which is dropped at the end, so that it neither finds nor
leaves anything.
"""
