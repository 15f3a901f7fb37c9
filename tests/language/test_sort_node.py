"""Array.prototype.sort makes the comparisons V8 makes, in its order, however long the array and odd the function."""

from __future__ import annotations

import pytest

from tests.language.flow_node import run_here, run_in_node

COMPARISONS = {
    "ascending": "(a, b) => a - b",
    "descending": "(a, b) => b - a",
    "contradictory": "(a, b) => ((a * 7 + b * 13) % 5) - 2",
    "one-sided": "(a, b) => (a < b ? -1 : 0)",
    "boolean": "(a, b) => a > b",
    "constant": "() => -1",
}
#: Values by index: random, few distinct, almost sorted, a saw, two interleaved runs that make merges gallop.
SHAPES = {
    "random": "next() % 100000",
    "few": "next() % 5",
    "almost": "i + (next() % 16 === 0 ? 50 : 0)",
    "saw": "i % 37",
    "runs": "i < n / 2 ? i * 3 : (i - n / 2) * 3 + (i % 3)",
}
LENGTHS = (0, 1, 2, 33, 63, 64, 65, 130, 700, 2000)

PROGRAM = """
async function workflow(ctx, inputs) {
  const results = []
  for (const n of [%(lengths)s]) {
    let seed = n + 12345
    const next = () => { seed = (seed * 16807) %% 2147483647; return seed }
    const items = []
    for (let i = 0; i < n; i++) items.push(%(shape)s)
    let calls = 0, trace = 0
    const compare = %(compare)s
    items.sort((a, b) => { calls++; trace = (trace * 31 + a * 3 + b) %% 1000003; return compare(a, b) })
    let sum = 0
    for (const item of items) sum = (sum * 31 + item) %% 1000003
    results.push([n, calls, trace, sum])
  }
  return results
}
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_sort_compares_as_v8_does(shape: str) -> None:
    sources = [
        PROGRAM % {"lengths": ", ".join(map(str, LENGTHS)), "shape": SHAPES[shape], "compare": compare}
        for compare in COMPARISONS.values()
    ]

    assert run_in_node(sources) == [run_here(source) for source in sources]
