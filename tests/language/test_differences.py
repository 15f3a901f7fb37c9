"""Every line of docs/javascript.md is proved: what happens here, and, where it can be asked, that Node does otherwise.

The table has the lines of the page in their order, each with its proof. A program is the body of a workflow, unless it
says ``workflow(``.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rhythm.engine import check_source
from rhythm.language.units import to_units
from rhythm.testing import evaluate
from rhythm.testing.evaluate import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "javascript.md").read_text()
LINES = re.findall(r"^- (.+)$", PAGE, re.M)
#: Runs bodies as strict async functions with nothing of ours, in a time zone that is not UTC.
SCRIPT = r"""
const run = async (body) => {
  try {
    const given = Function("'use strict'; return async (inputs) => {" + body + "\n}")()
    return JSON.stringify(await given({ n: 1 })) ?? "undefined"
  } catch (error) { return `throws ${error.name}` }
}
(async () => {
  const results = []
  for (const body of JSON.parse(require("node:fs").readFileSync(0, "utf8"))) results.push(await run(body))
  process.stdout.write("\n@" + JSON.stringify(results))
})()
"""
#: What Node says when it does not take a program at all, or not at this place.
NO_SUCH_THING = ("throws SyntaxError", "throws ReferenceError", "throws TypeError")


@functools.cache
def node() -> str:
    found = shutil.which("node")
    assert found, "Node 20 is the judge of the language"
    return found


@functools.cache
def in_node() -> dict[str, str]:
    """What each program of the table that Node can be asked about gives there."""
    asked = sorted({program for proof in TABLE.values() for program in getattr(proof, "asks", ())})
    done = subprocess.run(
        [node(), "-e", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, timeout=60,
        env={"TZ": "America/New_York"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(asked, json.loads(done.stdout.rpartition("\n@")[2]), strict=True))


def source(program: str) -> str:
    return program if "workflow(" in program else f"workflow(ctx, inputs) {{\n{program}\n}}"


def here(program: str) -> Outcome:
    return evaluate(source(program), {"n": 1}, {"echo": lambda inputs, /: inputs})


class Proof:
    asks: tuple[str, ...] = ()

    def __call__(self, line: str) -> None:
        raise NotImplementedError


class Refused(Proof):
    """Refused with the code that the line names, and a hint. Node takes it, or fails only when it gets there."""

    def __init__(self, *programs: str, scripts: bool = False) -> None:
        self.programs = programs
        self.asks = () if scripts else tuple(program for program in programs if "workflow(" not in program)

    def __call__(self, line: str) -> None:
        (code,) = re.findall(r"\((F\d\d\d)\)", line)
        for program in self.programs:
            errors = [d for d in check_source(source(program), "x.flow") if d.severity == "error"]
            assert code in [d.code for d in errors], program
            assert all(d.hint for d in errors), program
        for program in self.asks:
            assert in_node()[program] != "throws SyntaxError", program


class Stopped(Proof):
    """Stopped when running, where no `catch` can hold it. Node goes on."""

    def __init__(self, *programs: str) -> None:
        self.asks = tuple(f"try {{ {program} }} catch (error) {{ return 'caught' }}" for program in programs)

    def __call__(self, line: str) -> None:
        for program in self.asks:
            outcome = here(program)
            assert outcome.error is not None, program
            assert (outcome.error.name, outcome.status) == ("UnsupportedError", "failed"), program
            assert re.search(r"workflow\.flow:2:\d+", outcome.error.stack or ""), program
            assert in_node()[program] not in NO_SUCH_THING, program


class Gives(Proof):
    """One value here, another under Node."""

    def __init__(self, program: str, expected: Any, node_gives: str) -> None:
        self.program, self.expected, self.node_gives = program, expected, node_gives
        self.asks = (program,)

    def __call__(self, line: str) -> None:
        outcome = here(self.program)
        assert self.expected == (outcome.error.name if outcome.error else outcome.result)
        assert self.node_gives == in_node()[self.program]


class Shown(Proof):
    def __init__(self, show: Callable[[], None]) -> None:
        self.show = show

    def __call__(self, line: str) -> None:
        self.show()


def run_node(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([node(), "-e", script], capture_output=True, text=True, timeout=60)


def workflow_declares() -> None:
    assert here("workflow() { return 1 }").result == 1
    assert "SyntaxError" in run_node("workflow() { return 1 }").stderr


def unhandled_rejections_are_logged() -> None:
    outcome = here('Promise.reject(new Error("lost")); await sleep(5); return "done"')
    assert outcome.result == "done"
    assert [level for level, _ in outcome.logs] == ["warn"]
    assert run_node('Promise.reject(new Error("lost")); setTimeout(() => {}, 50)').returncode == 1


def deadlocks_fail() -> None:
    outcome = here("try { await new Promise(() => {}) } catch (error) { return 'caught' }")
    assert outcome.error is not None
    assert outcome.error.name == "DeadlockError"
    assert run_node("(async () => { await new Promise(() => {}); console.log('on') })()").stdout == ""


def stacks_list_flow_places() -> None:
    outcome = here("return new Error('x').stack")
    assert outcome.result == "Error: x\n    at workflow (workflow.flow:2:8)"


def console_writes_to_the_log() -> None:
    assert here("console.log('a', { b: 1 }); console.warn('c')").logs == (("info", "a { b: 1 }"), ("warn", "c"))


def what_leaves_is_json() -> None:
    for value in ("0 / 0", "() => 1", "new Map()", "new Set()", "sleep(1)"):
        for program in (f"await task('echo', {{ a: [{value}] }})", f"return {{ a: [{value}] }}"):
            outcome = here(program)
            assert outcome.error is not None
            assert outcome.error.name == "TypeError"
            assert "$.a[0]" in str(outcome.error.message)


def unicode_is_that_of_python() -> None:
    newer = "\U0001e030"  # of Unicode 15
    escaped = "".join(f"\\u{ord(unit):04x}" for unit in to_units(newer))
    program = f"return '{escaped}'.normalize('NFKC') + 'é'.toUpperCase()"
    assert here(program).result == unicodedata.normalize("NFKC", newer) + "É"
    assert run_node(f"console.log('{escaped}'.normalize('NFKC') === '{escaped}')").stdout == "false\n"


def clones_do_not_show_functions() -> None:
    program = "try { structuredClone({ f: () => 1 }) } catch (error) { return error.message }"
    assert here(program).result == "function could not be cloned."
    shown = run_node(f"console.log((() => {{ {program} }})())").stdout
    assert shown == "() => 1 could not be cloned.\n"


def limits_end_the_execution() -> None:
    outcome = here("try { 'x'.repeat(2 ** 27) } catch (error) { return 'caught' }")
    assert outcome.error is not None
    assert outcome.error.name == "LimitError"
    assert run_node("console.log('x'.repeat(2 ** 27).length)").stdout == "134217728\n"


#: The beginning of each line of the page -> its proof.
TABLE: dict[str, Proof] = {
    "`workflow(ctx, inputs) { … }` declares": Shown(workflow_declares),
    "`task`, `child`, `sleep`": Gives(
        "return [typeof task, typeof child, typeof sleep, typeof signal, typeof cancel].join()",
        "function,function,function,function,function", '"undefined,undefined,undefined,undefined,undefined"',
    ),
    "A rejected promise that nobody": Shown(unhandled_rejections_are_logged),
    "A workflow that waits for something": Shown(deadlocks_fail),
    "Dates know the time zone": Gives(
        "return [new Date(2020, 0, 1).toISOString(), new Date(0).getTimezoneOffset()]",
        ["2020-01-01T00:00:00.000Z", 0], '["2020-01-01T05:00:00.000Z",300]',
    ),
    "`error.stack` lists": Shown(stacks_list_flow_places),
    "`console.log`, `info`": Shown(console_writes_to_the_log),
    "What goes into a task": Shown(what_leaves_is_json),
    "Upper and lower case": Shown(unicode_is_that_of_python),
    "The message of a `DataCloneError`": Shown(clones_do_not_show_functions),
    "Strings, arrays, nesting": Shown(limits_end_the_execution),
    "`var` ": Refused("var a = 1; return a", "for (var i = 0; i < 1; i++) {}"),
    "`this`, `super`": Refused(
        "return this", "return { m() { return super.m } }", "return function () { return new.target }"
    ),
    "`class` ": Refused("class A {}", "return class {}", "class B extends Error {}"),
    "Getters": Refused("return { get a() { return 1 } }", "return { set a(v) {} }"),
    "Generators": Refused("function* f() { yield 1 }", "return { *f() {} }", "return async function* () {}"),
    "Regular expressions": Refused("return /a/", "return 'abc'.replace(/b/g, 'x')"),
    "BigInt": Refused("return typeof 10n"),
    "Tagged": Refused("return (s => 1)`a`", "return String.raw`a`"),
    "Holes in array literals": Refused("return [1, , 2]"),
    "`import`": Refused("export const a = 1\nworkflow() {}", "import a from 'a'\nworkflow() {}", "return import('fs')"),
    "`debugger`": Refused("debugger"),
    "`arguments`": Refused("return (function () { return arguments.length })(1)"),
    "`.constructor` and `.prototype` (": Refused(
        "return [].constructor", "const { constructor } = inputs", "return Array.prototype"
    ),
    "`.call`, `.apply`, `.bind`, `.length`": Refused(
        "const f = () => 1; return f.call(1)", "return Math.max.apply(1, [2])", "const f = () => 1; return f.bind(1)()",
        "const f = () => 1; return f.length", "function f() {} return f.name", "const f = () => 1; return f.toString()",
    ),
    "`toLocaleString`, `localeCompare`": Refused(
        "return (5).toLocaleString()", "return 'a'.localeCompare('b')", "return new Date(0).toLocaleDateString()"
    ),
    "`Object.freeze`": Refused(
        "return Object.freeze({})", "return Object.seal({})", "Object.preventExtensions({})", "Object.isFrozen({})"
    ),
    "`Object.create`": Refused(
        "return Object.create(null)", "Object.defineProperty({}, 'a', {})", "Object.getPrototypeOf({})",
        "Object.getOwnPropertyNames({})", "Object.setPrototypeOf({}, null)", "Object.getOwnPropertyDescriptor({}, 'a')",
    ),
    "`console.table`": Refused("console.table([1])", "console.time('a')", "console.group('a')", "console.dir({})"),
    "`setTimeout`": Refused(
        "setTimeout(() => {}, 1)", "clearInterval(setInterval(() => {}, 1))", "setImmediate(() => {})",
        "queueMicrotask(() => {})",
    ),
    "`fetch`": Refused(
        "return typeof fetch('data:,')", "return process.pid", "return require('fs')", "return Buffer.from('a').length",
        "return new URL('a://b').href", "return crypto.randomUUID().length",
        "return new TextEncoder().encode('a').length",
    ),
    "`Symbol`": Refused(
        "return typeof Symbol()", "return new Proxy({}, {})", "return Reflect.ownKeys({})", "return new WeakMap()",
        "return new WeakSet()", "return new WeakRef({})", "return new Uint8Array(1)", "return typeof globalThis",
    ),
    "`eval`": Refused("return eval('1')", "return Function('return 1')()"),
    "`new` with a function": Refused(
        "function F() {} return new F()", "return new String('a')", "return new Number(1)", "return new Boolean(1)"
    ),
    "`instanceof` with a function of your own (": Refused("function F() {} return {} instanceof F"),
    "`for await`": Refused("for await (const a of [1]) {}"),
    "`__proto__`": Refused("return { __proto__: null }", "return ({}).__proto__", "const { __proto__: a } = {}"),
    "HTML comments": Refused("return 1 <!-- 2", "#!/usr/bin/env node\nworkflow() {}", scripts=True),
    "Names that are declared nowhere": Refused("return missing", "missing = 1"),
    "Assignment to a constant": Refused("const a = 1; a = 2", "const a = 1; a++"),
    "Assignment to a builtin": Refused("parseInt = 1", "Math.random = () => 4", "JSON.x = 1"),
    "Statements beside": Refused("console.log(1)\nworkflow() {}", "if (1) {}\nworkflow() {}"),
    "`await`, `task`": Refused("const a = await 1\nworkflow() {}", "const a = task('x')\nworkflow() { return a }"),
    "Whatever would leave holes": Stopped(
        "const a = [1]; a[5] = 1", "const a = [1]; a.length = 5", "const a = [1]; delete a[0]"
    ),
    "A property set on": Stopped(
        "const f = () => 1; f.x = 1", "const p = Promise.resolve(1); p.x = 1", "const m = new Map(); m.x = 1",
        "const s = new Set(); s.x = 1", "const d = new Date(0); d.x = 1", "const a = []; a.x = 1",
    ),
    "`.constructor`, `.prototype` and `__proto__` by": Stopped(
        "const k = 'constructor'; return typeof [1][k]", "const k = '__proto__'; return typeof ({})[k]",
        "const k = 'prototype'; return typeof Array[k]",
    ),
    "`.call`, `.apply`, `.bind`, `.name`": Stopped(
        "const k = 'call', f = () => 1; return f[k]()", "const k = 'name', f = () => 1; return f[k]",
        "const g = [() => 1]; return g[0].length", "const g = [() => 1]; return g[0].bind(1)()",
        "const g = [() => 1]; return g[0].apply(1)",
    ),
    "A builtin method taken": Stopped(
        "const { trim } = ' a'; return trim()",
    ),
    "`instanceof` with a function of your own that": Stopped("const f = [function () {}]; return {} instanceof f[0]"),
    "Methods that depend on a locale": Stopped("const k = 'toLocaleString'; return (5)[k]()"),
    "`match`, `matchAll`": Stopped(
        "return 'a'.match('a').length", "return 'ab'.search('b')", "const k = 'matchAll'; return typeof 'a'[k]('a')"
    ),
    "A date text": Stopped("return new Date('1 January 2020').getTime()", "return Date.parse('1 January 2020')"),
    "The text of a function": Stopped(
        "return `${() => 1}`", "return String(() => 1)", "const f = [() => 1]; return f + 'a'"
    ),
}  # fmt: skip


def test_every_line_has_a_proof() -> None:
    assert len(TABLE) == len(LINES)
    for line, beginning in zip(LINES, TABLE, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize("beginning", TABLE)
def test_a_difference_is_as_the_page_says(beginning: str) -> None:
    (line,) = [line for line in LINES if line.startswith(beginning)]

    TABLE[beginning](line)
