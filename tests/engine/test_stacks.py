"""Every failure says where: file, line and column of what ran, and of each async function that waited for it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from rhythm.testing import Later, evaluate
from tests.support.activations import Driver, error_of


class CardDeclined(Exception):
    pass


def fail() -> None:
    raise CardDeclined("no")


TASKS: dict[str, Any] = {"fail": fail, "ok": lambda: 1, "late": lambda: Later(delay="20s")}
IN_G = "async function g() {{ {} }}\nworkflow() {{ await g() }}"  #: line 1 runs in g, line 2 waits for it
G, WORKFLOW = "async g (workflow.flow:1:{})", "async workflow (workflow.flow:2:14)"

#: name -> source, the first line of the stack, its places.
STACKS: dict[str, tuple[str, str, list[str]]] = {
    "nested calls": (
        "const a = () => null.x\nfunction b() { a() }\nworkflow() { b() }",
        "TypeError: Cannot read properties of null (reading 'x')",
        ["a (workflow.flow:1:22)", "b (workflow.flow:2:16)", "workflow (workflow.flow:3:14)"],
    ),
    "after an await": (
        IN_G.format("await task('ok'); throw new Error('x')"), "Error: x",
        ["g (workflow.flow:1:46)", WORKFLOW],
    ),
    "through Promise.all": (
        "async function g(n) { await task('ok'); if (n) throw Error('x') }\n"
        "workflow() { await Promise.all([0, 1].map(n => g(n))) }",
        "Error: x", ["g (workflow.flow:1:54)", WORKFLOW],
    ),
    "through a race of combinators": (
        "async function g() { await task('ok'); throw Error('x') }\n"
        "workflow() { await Promise.race([Promise.all([g()]), sleep('1d')]) }",
        "Error: x", ["g (workflow.flow:1:46)", WORKFLOW],
    ),
    "in callbacks of builtins": (
        IN_G.format("await task('ok'); [2, 1].sort((a, b) => { throw Error([a].map(v => v).length) })"), "Error: 1",
        ["workflow.flow:1:70", "g (workflow.flow:1:47)", WORKFLOW],
    ),
    "in a then callback": (
        IN_G.format("await task('ok').then(v => { throw Error('t') })"), "Error: t",
        ["workflow.flow:1:57", G.format(22), WORKFLOW],
    ),
    "in a finally callback of a chain": (
        IN_G.format("await task('ok').then(v => v).finally(() => { throw Error('t') }).then(v => v)"), "Error: t",
        ["workflow.flow:1:74", G.format(22), WORKFLOW],
    ),
    "in a thenable": (
        IN_G.format("await { then() { throw Error('t') } }"), "Error: t",
        ["then (workflow.flow:1:45)", G.format(22), WORKFLOW],
    ),
    "of a task": (IN_G.format("await task('fail')"), "CardDeclined: no", [G.format(22), WORKFLOW]),
    "of one task of several": (
        IN_G.format("await Promise.all([task('ok'), task('fail')])"), "CardDeclined: no", [G.format(22), WORKFLOW],
    ),
    "of all tasks of several": (
        IN_G.format("await Promise.any([task('fail'), task('fail')])"), "AggregateError: All promises were rejected",
        [G.format(22), WORKFLOW],
    ),
    "of a signal that did not come": (
        IN_G.format("await signal('s', { timeout: '1s' })"), "TimeoutError: signal s timed out",
        [G.format(22), WORKFLOW],
    ),
    "of a deadline": (
        IN_G.format("await task('late', {}, { deadline: '1s' })"),
        "TimeoutError: task late did not end within its deadline", [G.format(22), WORKFLOW],
    ),
    "of a cancel request": (
        IN_G.format("await signal('never')"), "CancelledError: signal never was cancelled", [G.format(22), WORKFLOW],
    ),
    "of inputs that JSON cannot hold": (
        IN_G.format("await task('ok', { n: NaN })"),
        "TypeError: inputs of task ok $.n is NaN, which JSON cannot hold",
        ["g (workflow.flow:1:28)", "workflow (workflow.flow:2:20)"],
    ),
    "of too many calls": (
        "function f() { return f() }\nworkflow() { f() }", "RangeError: Maximum call stack size exceeded",
        ["f (workflow.flow:1:23)"] * 10,
    ),
    "of a construct that is not supported": (
        IN_G.format("await task('ok'); const k = 'constructor'; return ({})[k]"),
        "UnsupportedError: `.constructor` is not available in flows", ["g (workflow.flow:1:77)", WORKFLOW],
    ),
    "at the top level": (
        "const x = null.y\nworkflow() {}", "TypeError: Cannot read properties of null (reading 'y')",
        ["workflow.flow:1:16"],
    ),
    "of many async calls": (
        "async function a(n) { if (n) return await a(n - 1); await task('fail') }\nworkflow() { await a(30) }",
        "CardDeclined: no", ["async a (workflow.flow:1:53)", *["async a (workflow.flow:1:37)"] * 19],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("name", STACKS)
def test_the_stack_of_a_failure(name: str, mode: Any) -> None:
    source, first, places = STACKS[name]
    outcome = evaluate(source, tasks=TASKS, snapshot=mode)

    assert outcome.error is not None
    assert outcome.error.stack is not None
    assert [first, *(f"    at {place}" for place in places)] == outcome.error.stack.split("\n")


def test_a_cause_has_the_stack_of_its_own() -> None:
    outcome = evaluate(
        IN_G.format("try { await task('fail') } catch (cause) { throw Error('wrapped', { cause }) }"), tasks=TASKS
    )

    assert outcome.error is not None
    payload = outcome.error.payload
    assert f"Error: wrapped\n    at g (workflow.flow:1:71)\n    at {WORKFLOW}" == payload["stack"]
    assert f"CardDeclined: no\n    at {G.format(28)}\n    at {WORKFLOW}" == payload["cause"]["stack"]


@pytest.mark.usefixtures("unraisable_ignored")
def test_an_activation_that_runs_too_long_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["rhythm.testing.evaluate"], "BUDGET_SECONDS", 0.2)
    outcome = evaluate(
        "async function g() {\n await task('ok')\n for (;;) {}\n}\nworkflow() { await g() }", tasks=TASKS
    )

    assert outcome.error is not None
    assert outcome.error.stack is not None
    assert ["    at g (workflow.flow:3:2)", "    at async workflow (workflow.flow:5:14)"] == outcome.error.stack.split(
        "\n"
    )[1:]


def test_who_waits_is_named_when_one_of_several_promises_of_a_chain_is_waited_for() -> None:
    """The first observer of the task's promise is a chain that nobody waits for."""
    inner = "async function g() {\n const p = task('a')\n p.then(v => v).catch(v => v)\n await p\n}"
    driver = Driver(f"{inner}\nworkflow() {{ await g() }}")
    driver.start()
    error = error_of(driver.failed(1))

    assert ["    at async g (flow.flow:4:2)", "    at async workflow (flow.flow:6:14)"] == error["stack"].split("\n")[
        1:
    ]
    assert error == json.loads(json.dumps(error))
