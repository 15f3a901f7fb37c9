"""docs/language.md tells the truth: snippets run in both snapshot modes and under Node, and every table holds."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rhythm import engine, model, payloads
from rhythm.durations import SECONDS_MAX
from rhythm.language import boundary, codegen_helpers, nodes, options, parser, values_types
from rhythm.language.builtins import host, unicode
from rhythm.language.builtins import json as json_builtins
from rhythm.testing import evaluate
from rhythm.worker import watchdog
from tests.language.recorded import BEGIN_SECONDS, Recording, comparable, run_in_node

PAGE = (Path(__file__).parent.parent / "docs" / "language.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(<!-- only here)?", re.M | re.S)
_SAYS = re.compile(r"//\s*(expect|throws|thrown|stops):\s*(.+)$", re.M)
_SIGNALS = re.compile(r"//\s*signals:\s*(.+)$", re.M)
CTX = {
    "executionId": "0197f5a0-0000-7000-8000-000000000000", "name": "workflow", "version": "0" * 64,
    "startedAt": BEGIN_SECONDS * 1000, "parentId": None, "tags": None, "cancelled": False,
}  # fmt: skip


class CardDeclined(Exception):
    data = {"code": 51}  # noqa: RUF012  (as the page's readers would write it)


def echo(inputs: Any, /) -> Any:
    return inputs


def fail(message: str) -> None:
    raise CardDeclined(message)


TASKS = {"echo": echo, "fail": fail}


@dataclass(frozen=True)
class Snippet:
    source: str
    kind: str
    expected: Any
    signals: list[Any]
    in_node: bool


def _snippet(text: str, *, in_node: bool) -> Snippet:
    says = _SAYS.search(text)
    assert says, f"a snippet says what it gives: {text}"
    expected = says[2].strip() if says[1] in ("throws", "stops") else json.loads(says[2])
    signals = _SIGNALS.search(text)
    source = text if re.search(r"\bworkflow\(", text) else f"workflow(ctx, inputs) {{\n{text}\n}}"
    return Snippet(source, says[1], expected, json.loads(signals[1]) if signals else [], in_node)


def table(section: str, number: int = 0) -> list[list[str]]:
    """The cells of a table's rows, without its head, in the section of this name."""
    text = re.split(r"^## ", PAGE, flags=re.M)
    (found,) = [part for part in text if part.startswith(section + "\n")]
    tables = re.findall(r"(?:^\|.*\n)+", found, re.M)
    return [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in tables[number].splitlines()[2:]]


def code(cell: str) -> str:
    """The first piece of code in a cell."""
    double = re.match(r"`` (.+?) ``", cell)
    return double[1] if double else cell.split("`")[1]


def _all_snippets() -> list[Snippet]:
    found = [
        _snippet(text, in_node=not only_here)
        for language, text, only_here in _BLOCK.findall(PAGE)
        if language == "javascript"
    ]
    found += [
        Snippet(f"workflow(ctx, inputs) {{ return ({code(row[1])}) }}", "expect", json.loads(code(row[2])), [], True)
        for row in table("What there is")
    ]
    for value, arrives in table("Data that goes in and out"):
        source = f"workflow(ctx, inputs) {{ return ({code(value)}) }}"
        if arrives == "a `TypeError`":
            found.append(Snippet(source, "type error", None, [], False))
        else:
            found.append(Snippet(source, "expect", json.loads(code(arrives)), [], "Error" not in value))
    return found


SNIPPETS = _all_snippets()


def run(snippet: Snippet, mode: Any) -> tuple[Any, Recording]:
    recording = Recording(TASKS)
    outcome = evaluate(
        snippet.source, tasks=recording.tasks, signals=snippet.signals, snapshot=mode, clock=BEGIN_SECONDS, ctx=CTX
    )
    return outcome, recording


@functools.cache
def in_node() -> dict[int, Any]:
    asked = [n for n, s in enumerate(SNIPPETS) if s.in_node and s.kind in ("expect", "throws", "thrown")]
    programs = [
        run(SNIPPETS[n], "never")[1].program(SNIPPETS[n].source, {}, signals=SNIPPETS[n].signals) | {"ctx": CTX}
        for n in asked
    ]
    return dict(zip(asked, run_in_node(programs), strict=True))


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_gives_what_it_says(number: int) -> None:
    snippet = SNIPPETS[number]
    key = {"expect": "value", "throws": "error"}.get(snippet.kind, snippet.kind)

    for mode in ("never", "await"):
        outcome, _ = run(snippet, mode)
        if snippet.kind in ("stops", "type error"):
            assert outcome.error is not None
            assert outcome.error.name == (snippet.expected or "TypeError")
            assert snippet.kind == "stops" or "$" in str(outcome.error.message)
        else:
            assert {key: snippet.expected} == comparable(outcome)

    if number in in_node():
        node = {k: v for k, v in in_node()[number].items() if k != "calls"}
        assert {key: snippet.expected} == node


@pytest.mark.parametrize("row", table("What there is not"), ids=lambda row: row[0])
def test_what_there_is_not_is_refused_with_its_code_and_a_hint(row: list[str]) -> None:
    program = f"const RATE = 1\nfunction Order() {{}}\nworkflow(ctx, inputs) {{\n{code(row[0])}\n}}"

    found = engine.check_source(program, "x.flow")

    errors = [d for d in found if d.severity == "error"]
    assert row[1] in [d.code for d in errors]
    assert all(d.hint for d in errors if d.code == row[1])


@pytest.mark.parametrize(
    ("section", "listed"),
    [
        ("Tasks", options.TASK_OPTIONS),
        ("Child workflows", options.CHILD_OPTIONS),
        ("Signals", options.SIGNAL_OPTIONS),
    ],
)
def test_every_option_is_listed(section: str, listed: dict[str, Any]) -> None:
    assert sorted(listed) == sorted(code(row[0]) for row in table(section))


def test_the_fields_of_a_retry_policy_are_listed() -> None:
    (row,) = [row for row in table("Tasks") if code(row[0]) == "retry"]

    assert ", ".join(options.RETRY_OPTIONS) in row[1]


def test_the_fields_of_ctx_are_listed() -> None:
    fields = evaluate("workflow(ctx) { return Object.keys(ctx) }").result

    assert fields == [code(row[0]) for row in table("ctx")]


def test_the_fields_of_an_error_are_listed() -> None:
    def nested() -> None:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise CardDeclined("outer") from error

    read = "['name', 'message', 'type', 'attempts', 'retryable', 'data', 'cause', 'task', 'executionId', 'stack']"
    program = f"""workflow() {{
      try {{ await task("nested") }} catch (error) {{
        return [{read}.filter((name) => !(name in error)), Object.keys(error), error.cause.name, error.attempts]
      }}
    }}"""
    missing, own, cause, attempts = evaluate(program, tasks={"nested": nested}).result

    assert (missing, cause, attempts) == ([], "ValueError", 1)
    listed = [code(row[0]) for row in table("Errors")]
    assert set(own) <= set(listed)
    assert set(listed) == {*json.loads(read.replace("'", '"'))}


def test_the_limits_are_those_of_the_source() -> None:
    limits = engine.Limits()
    mebibyte = 1 << 20
    values = {row[0]: row[1] for row in table("Limits")}

    assert values == {
        "time between two suspensions": f"{watchdog.BUDGET_SECONDS:g} s",
        "growth of the worker's process meanwhile": f"{limits.memory_bytes_max // mebibyte} MiB",
        "snapshot": f"{limits.snapshot_bytes_max // mebibyte} MiB",
        "one string": f"2^{values_types.STRING_LENGTH_MAX.bit_length() - 1} UTF-16 units",
        "one array, `Map` or `Set`": f"2^{values_types.ARRAY_LENGTH_MAX.bit_length() - 1} elements",
        "text for `JSON.parse`": f"2^{json_builtins.TEXT_UNITS_MAX.bit_length() - 1} UTF-16 units",
        "depth of calls": "about 10,000",
        "depth of data for `JSON.stringify`, `structuredClone`, `flat`, `join` and revivers": "about 3,000",
        "arguments of one spread, `f(...list)`": f"2^{codegen_helpers.ARGUMENTS_MAX.bit_length() - 1}",
        "operations that wait at a time": f"{host.OPERATIONS_MAX:,}",
        "inputs or output of a task, output of a workflow": f"{model.PAYLOAD_BYTES_MAX // mebibyte} MiB",
        "inputs of all that one step starts": f"{host.COMMAND_BYTES_MAX // mebibyte} MiB",
        "message and stack of a stored error": f"{boundary.TEXT_UNITS_MAX:,} characters each",
        "properties of a stored error": f"{boundary.PROPERTIES_BYTES_MAX // 1024} KiB",
        "levels of objects and arrays in data": f"{payloads.DEPTH_MAX:,}",
        "name of a task, workflow, queue or signal": f"{model.NAME_LENGTH_MAX} characters",
        "combining marks in a row, for `normalize`": f"{unicode.MARKS_MAX:,}",
        "source": f"{parser.SOURCE_LENGTH_MAX // 1024} KiB",
        "nesting of blocks, of expressions (a condition and a `?.` count twice)": (
            f"{nodes.STATEMENT_NESTING_MAX}, {nodes.EXPRESSION_NESTING_MAX}"
        ),
    }
    assert limits.snapshot_bytes_warn == mebibyte
    assert SECONDS_MAX == 10 * 366 * 86_400


def test_calls_may_nest_as_deep_as_the_page_says() -> None:
    program = """workflow() {
      const f = (n) => n === 0 ? 0 : 1 + f(n - 1)
      try { return f(%d) } catch (error) { return error.name }
    }"""

    assert evaluate(program % 9_000).result == 9_000
    assert evaluate(program % 12_000).result == "RangeError"


@pytest.mark.parametrize("source", [text for language, text, _ in _BLOCK.findall(PAGE) if language == "python"])
def test_python_snippets_run(source: str) -> None:
    exec(compile(source, "docs/language.md", "exec"), {})  # noqa: S102  (our own documentation)


def test_the_contents_name_every_section_once() -> None:
    sections = re.findall(r"^## (.+)$", PAGE, re.M)
    anchors = [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in sections]

    assert anchors == re.findall(r"\]\(#([\w-]+)\)", PAGE.partition("\n## ")[0])
