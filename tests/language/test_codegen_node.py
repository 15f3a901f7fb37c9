"""Whole programs, compared with Node: what code generation is most likely to get wrong."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from tests.language.flow_node import run_here, run_in_node, start


def read_programs() -> dict[str, str]:
    """Name -> body."""
    text = Path(__file__).with_name("codegen_programs.js").read_text()
    return dict(part.split("\n", 1) for part in text.split("\n//# ")[1:])  # type: ignore[misc]  # two parts each


#: Parts of a literal are put together when many of them must be kept across an await.
LONG_LITERALS = "\n".join(
    [
        "const log = [], f = (...v) => v, p = async (v) => { log.push(v); return v }",
        "let x = 1",
        f"const a = [{', '.join(f'await p({n}), x++' for n in range(100))}, ...[x], await p(2)]",
        f"const b = f({', '.join(f'await p({n}), ...[x++], x' for n in range(100))})",
        f"const c = {{ {', '.join(f'k{n % 80}: await p({n}), [x++]: x' for n in range(100))} }}",
        f"const d = `{''.join(f'${{await p({n})}}-${{x++}}' for n in range(100))}`",
        "return [a, b, c, Object.keys(c), d, log, x]",
    ]
)
PROGRAMS: dict[str, str] = {
    **read_programs(),
    "long chain": "return " + " + ".join(["1"] * 3000),
    "long literals with awaits": LONG_LITERALS,
    "deep conditional": "return " + " : ".join(f"inputs.n === {n} ? {n}" for n in range(200)) + " : 'none'",
}


def source_of(body: str) -> str:
    return f"async function workflow(ctx, inputs) {{\n{body}\n}}\n"


def finally_matrix(*, waits: bool) -> str:
    """One function for every way try, catch and finally can end, inside a loop."""
    wait = "await null; " if waits else ""
    ends = {
        "normal": "log.push('@')",
        "return": "return '@'",
        "throw": "throw '@'",
        "break": "break",
        "continue": "continue",
    }
    calls = []
    for tried, caught, last in product(ends, [None, *ends], [None, *ends]):
        if caught is None and last is None:
            continue
        parts = [f"try {{ {wait}log.push('t'); {ends[tried].replace('@', 'try')} }}"]
        if caught is not None:
            parts.append(f"catch (e) {{ {wait}log.push('c' + e); {ends[caught].replace('@', 'catch')} }}")
        if last is not None:
            parts.append(f"finally {{ {wait}log.push('f'); {ends[last].replace('@', 'finally')} }}")
        body = f"for (let i = 0; i < 2; i++) {{ log.push(i); {' '.join(parts)} log.push('after') }} return 'end'"
        function = f"{'async ' if waits else ''}(log) => {{ {body} }}"
        calls.append(f"out.push(await run({function}))")
    return (
        "const out = []\n"
        "const run = async (f) => { const log = []; let r\n"
        "try { r = 'returned ' + await f(log) } catch (e) { r = 'threw ' + e }\n"
        "return log.join(' ') + ' / ' + r }\n" + "\n".join(calls) + "\nreturn out"
    )


PROGRAMS["finally matrix"] = finally_matrix(waits=False)
PROGRAMS["finally matrix with awaits"] = finally_matrix(waits=True)


def nested_loops(depth: int, *, waits: bool) -> str:
    opening = "".join(f"for (let i{n} = 0; i{n} < 1; i{n}++) {{ " for n in range(depth))
    return f"let c = 0; {opening} c++; {'await null' if waits else ''} {'}' * depth} return c"


for depth, waits in product((5, 25, 60), (False, True)):
    PROGRAMS[f"{depth} nested loops{' with await' if waits else ''}"] = nested_loops(depth, waits=waits)


@pytest.fixture(scope="module")
def in_node() -> dict[str, str]:
    return dict(zip(PROGRAMS, run_in_node([source_of(body) for body in PROGRAMS.values()]), strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_in_node(name: str, in_node: dict[str, str]) -> None:
    assert run_here(source_of(PROGRAMS[name])) == in_node[name]


STACK_SOURCE = """async function deep(n) {
  await null
  if (n === 0) throw new Error("bottom")
  await deep(n - 1)
}
async function viaAll() {
  return Promise.all([deep(1), null])
}
workflow(ctx, inputs) {
  try {
    await viaAll()
  } catch (e) {
    return e.stack
  }
}
"""


def test_a_stack_names_the_async_callers() -> None:
    _, promise = start(STACK_SOURCE)

    assert promise.value.split("\n") == [
        "Error: bottom",
        "    at deep (test.flow:3:22)",
        "    at async deep (test.flow:4:3)",
        "    at async workflow (test.flow:11:5)",
    ]
