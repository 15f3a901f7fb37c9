"""The text of console calls is Node's: every call here is made by both, and each line compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rhythm.language.builtins.formats import CHARACTERS_MAX, format_arguments, inspect
from rhythm.language.units import join_surrogates
from rhythm.testing import evaluate

#: Arguments of one console call a line.
CALLS = (Path(__file__).parent / "console_calls.txt").read_text().splitlines()
PRELUDE = """
const circle = { n: 1 }; circle.self = circle; circle.list = [circle]
const twoCircles = { a: {}, b: [] }; twoCircles.a.up = twoCircles.a; twoCircles.b.push(twoCircles.b, twoCircles)
"""
SEPARATOR = "\n====\n"
NODE = """
const lines = []
console.log = (...values) => lines.push(require("util").format(...values))
const task = { task() {} }.task
workflow().then(() => process.stdout.write(JSON.stringify(lines)))
"""


def program() -> str:
    calls = "\n".join(f"console.log({call})" for call in CALLS)
    return f"async function workflow(ctx, inputs) {{\n{PRELUDE}\n{calls}\n}}\n"


def normalised(text: str) -> str:
    """Without what differs on purpose: the lines of stacks, of which one stays in place of all."""
    text = re.sub(r"(\n *)at [^\n]*?(,|( \{))?(?=\n|$)", r"\1at …\2", text)
    text = re.sub(r"(\n *)\.\.\. \d+ lines matching cause stack trace \.\.\.", r"\1at …", text)
    return re.sub(r"(\n *at …)+", r"\1", text)


def lines_in_node() -> list[str]:
    node = shutil.which("node")
    assert node is not None, "the tests of the language need Node 20"
    done = subprocess.run(
        [node, "-e", program() + NODE], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "TZ": "UTC"},
    )  # fmt: skip
    lines: list[str] = json.loads(done.stdout)
    return lines


@pytest.fixture(scope="module")
def lines() -> tuple[list[str], list[str]]:
    outcome = evaluate(program())
    assert outcome.error is None, outcome.error
    return [join_surrogates(text) for _, text in outcome.logs], lines_in_node()


@pytest.mark.parametrize("number", range(len(CALLS)), ids=lambda number: CALLS[number][:40])
def test_a_line_is_what_node_writes(lines: Any, number: int) -> None:
    ours, nodes = lines

    assert normalised(nodes[number]) == normalised(ours[number])


@pytest.mark.parametrize(
    "value",
    [
        [["x" * 9_000] * 100] * 90,
        {f"key {i}": float(i) for i in range(200_000)},
        [{"a" * 5_000: ["b" * 5_000] * 50}] * 50,
        [[["\n" * 9_999] * 50] * 50] * 50,
    ],
)
def test_a_value_too_large_to_show_is_not_written_out(value: Any) -> None:
    text = inspect(value)

    assert "…" in text
    assert len(text) < 6 * CHARACTERS_MAX


def test_long_strings_inside_a_value_are_cut_and_it_is_said_by_how_much() -> None:
    assert f"[\n  '{'x' * 10_000}'... 2 more characters\n]" == inspect(["x" * 10_002])


def test_what_a_conversion_throws_is_thrown_by_the_console_call() -> None:
    outcome = evaluate("""workflow() {
        const caught = []
        for (const bad of [{ toString() { throw 1 } }, { toJSON() { throw 2 } }, { valueOf() { throw 3 } }]) {
          try { console.log(bad.toString === undefined ? "%d" : "%s%j%d", bad, bad, bad) } catch (e) { caught.push(e) }
        }
        console.log("%s", { toString: () => "side effect " + caught.push("said") })
        return caught
    }""")

    assert [1, 2, 3, "said"] == outcome.result
    assert (("info", "side effect 4"),) == outcome.logs


def test_the_places_in_a_stack_are_those_of_the_flow() -> None:
    outcome = evaluate("workflow() {\n  const inner = () => new Error('here')\n  console.error(inner(), [inner()])\n}")

    assert (
        (
            "error",
            "Error: here\n    at inner (workflow.flow:2:23)\n    at workflow (workflow.flow:3:17) [\n"
            "  Error: here\n      at inner (workflow.flow:2:23)\n      at workflow (workflow.flow:3:27)\n]",
        ),
    ) == outcome.logs


def test_functions_have_names_and_no_source() -> None:
    assert "[Function (anonymous)]" == format_arguments([task_of_nobody])
    assert (("info", "[AsyncFunction: f] [Function: f]"),) == evaluate(
        "async function f() {} workflow() { console.log('%s %o', f, { f() {} }.f) }"
    ).logs


def task_of_nobody() -> None:
    """A function that no program has made."""
