"""The sandbox: a workflow reaches nothing but its own values, and data from outside is never run.

What generated code is made of is checked node by node; then come attacks: names, property chains, texts, keys from
JSON, objects that override what everybody calls, functions carried over the boundary, forged snapshots and IR.
"""

from __future__ import annotations

import ast
import copy
import json
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rhythm.engine import Activation, Environment, StartInfo, activate, compile_workflow, load_program
from rhythm.errors import CompileError, SnapshotError
from rhythm.language import ir
from rhythm.language.codegen import Program
from rhythm.language.codegen_helpers import _HELPERS
from rhythm.language.values import FatalError
from rhythm.model import Delivery
from rhythm.testing import evaluate
from rhythm.worker.watchdog import Watchdog, run_with_large_stack
from tests.language.test_corpus import PROGRAMS

# What generated code is made of ------------------------------------------------------------------

NODES = {
    *(
        "Module FunctionDef arguments arg Return While For If Assign AugAssign Try ExceptHandler Raise Expr Pass"
    ).split(),
    *("Continue Break Tuple List Dict Name Load Store Constant Call Starred Compare Attribute Subscript").split(),
    *("IfExp NamedExpr BoolOp BinOp UnaryOp ListComp comprehension").split(),
    *("And Or Not USub Is IsNot In Lt LtE Gt GtE Eq NotEq Add Sub Mult Div Mod FloorDiv").split(),
}
NAMES = re.compile(r"[sctfgbdman]\d+|[man]_\d+|R|U|FT|frame|pc|value|rejected|build|f|x|e|j|_")
#: Attribute -> the only names it is read or written on; None: any value whose kind has been tested.
ATTRIBUTES: dict[str, set[str] | None] = {
    **{name: {"frame"} for name in ("slots", "cells", "await_id", "promise")},
    **{name: {"R"} for name in ("resolve_promise", "reject_promise", "await_value")},
    **dict.fromkeys(["__class__", "append", "get", "step", "is_integer", "join"]),
}
#: Places where the class of a value may stand: it is compared or looked up, and nothing else.
CLASS_PLACES = (ast.Compare, ast.Subscript, ast.Call)


def check_generated(text: str) -> None:
    """Fails when generated text has anything in it that is not on the lists."""
    assert text.isascii()
    tree = ast.parse(text)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node in ast.walk(tree):
        assert type(node).__name__ in NODES
        if isinstance(node, ast.Name):
            assert node.id in _HELPERS or NAMES.fullmatch(node.id), node.id
        elif isinstance(node, ast.arg):
            assert NAMES.fullmatch(node.arg)
        elif isinstance(node, ast.FunctionDef):
            assert NAMES.fullmatch(node.name)
            assert not node.decorator_list
        elif isinstance(node, ast.ExceptHandler):
            assert isinstance(node.type, ast.Name)
            assert node.type.id in ("h_CAUGHT", "h_MISS", "h_JSThrow")
        elif isinstance(node, ast.Attribute):
            owners = ATTRIBUTES[node.attr]
            assert owners is None or (isinstance(node.value, ast.Name) and node.value.id in owners)
            assert isinstance(node.ctx, ast.Load) or node.attr in ("slots", "cells", "await_id")
            if node.attr == "__class__":
                parent = parents[node]
                if isinstance(parent, ast.NamedExpr):  # to be compared more than once
                    parent = parents[parent]
                assert isinstance(parent, CLASS_PLACES)
                if isinstance(parent, ast.Call):
                    assert isinstance(parent.func, ast.Attribute)
                    assert parent.func.attr == "get"
        elif isinstance(node, ast.Constant):
            assert node.value is None or type(node.value) in (bool, int, float, str)


def program_of(source: str) -> Program:
    definition = compile_workflow(source, "w.flow", "w")
    return load_program(definition.ir_bytes, definition.hash)


@pytest.mark.parametrize("first", range(6))
def test_generated_code_is_made_of_what_is_allowed(first: int) -> None:
    for program in PROGRAMS[first::12]:
        check_generated(program_of(program.source).source)


def test_the_check_finds_what_is_not_allowed() -> None:
    for text in ("import os", "x.__globals__", "y = 1", "eval('1')", "x = x.__class__", "R.slots", "lambda: 1"):
        with pytest.raises((AssertionError, KeyError)):
            check_generated(text)


# Names ------------------------------------------------------------------------------------------

HOSTILE_NAMES = [
    *(
        "__import__ __builtins__ __class__ __dict__ __globals__ __name__ __debug__ _rt _ h_add h_JSThrow s0 c0 t1"
    ).split(),
    *("m_1 a_1 n_1 g0 b0 d0 R U FT f x e j frame pc value rejected build exec print self cls def lambda None").split(),
    *("True False nonlocal global raise pass del elif except from as assert is not and or with_ match type").split(),
    *("ﬁ 𝐝𝐞𝐟 ªbc ｅｖａｌ Ⅷ ℌ_add ſelf os sys open compile getattr object NotImplemented Ellipsis").split(),
]
EVERYWHERE = """
const NAME = 1
function outer(NAME, { NAME: inner = NAME } = {}) { return NAME + inner }
async function later(NAME) { await null; return NAME }
workflow(ctx, inputs) {
  const seen = [NAME, outer(2), outer(2, { NAME: 3 }), await later(4)]
  { let NAME = 5; seen.push(NAME); const get = () => NAME; NAME++; seen.push(get()) }
  for (const NAME of [7]) seen.push(NAME)
  for (let NAME = 8; NAME < 9; NAME++) seen.push(NAME)
  for (const NAME in { "9": 0 }) seen.push(Number(NAME))
  try { throw 10 } catch (NAME) { seen.push(NAME) }
  NAME2: for (;;) { for (;;) break NAME2 }
  const o = { NAME, m: { NAME(NAME) { return NAME } }, ["NAME"]: 11 }
  seen.push(o.NAME, o["NAME"], o.m.NAME(12), (function NAME(n) { return n ? NAME(n - 1) : 13 })(2))
  const [{ NAME: a, ...rest }] = [{ NAME: 14, b: 15 }]
  seen.push(a, rest.b, ((...NAME) => NAME.length)(1, 2), Object.keys(o)[0] === "NAME")
  return seen
}
"""


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_is_a_name_wherever_it_stands(name: str) -> None:
    source = EVERYWHERE.replace("NAME2", f"{name}_label").replace("NAME", name)
    outcome = evaluate(source, snapshot="await")

    assert [1, 4, 5, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12, 13, 14, 15, 2, True] == outcome.result
    check_generated(program_of(source).source)


def test_names_that_python_takes_for_one_are_two() -> None:
    source = "workflow() { const ﬁ = 1, fi = 2, \u212a = 3, K = 4; return [ﬁ, fi, \u212a, K, { ﬁ, fi }] }"

    assert [1, 2, 3, 4, {"ﬁ": 1, "fi": 2}] == evaluate(source).result


# Properties -------------------------------------------------------------------------------------

PYTHON_NAMES = [
    *(
        "__class__ __dict__ __globals__ __code__ __closure__ __self__ __func__ __module__ __subclasses__ __bases__"
    ).split(),
    *("__mro__ mro __init__ __reduce__ __builtins__ __getattribute__ func_globals gi_frame cr_frame f_globals").split(),
    *("tb_frame ms target index props kind hidden realm state reactions operation members").split(),
    *("is_instance pair promise on_finally append extend upper format format_map encode decode items get_").split(),
]
OWNERS = [
    *("({})", "[]", "''", "(1)", "true", "(() => 1)", "(async () => 1)", "Math.max", "Array", "Promise.resolve(1)"),
    *("new Map()", "new Set()", "new Date(0)", "new Error('x')", "[].values()", "new Map().entries()", "Math", "JSON"),
    *("task", "sleep", "ctx", "console.log", "[].push", "Promise.resolve(1).then"),
]


@pytest.mark.parametrize("owner", OWNERS)
def test_no_value_has_a_property_of_python(owner: str) -> None:
    names = json.dumps(PYTHON_NAMES)
    outcome = evaluate(
        f"""workflow(ctx, inputs) {{
            const o = {owner}, found = []
            for (const name of {names}) {{
                if (o[name] !== undefined) found.push(name)
                const {{ [name]: taken }} = o
                if (taken !== undefined) found.push(name)
            }}
            return [found, Object.keys({{ ...o }}).filter(key => {names}.includes(key))]
        }}"""
    )

    assert [[], []] == outcome.result


#: Expression -> what it gives, or the beginning of why not.
CHAINS: dict[str, Any] = {
    "''.__class__.__mro__": "TypeError: Cannot read properties of undefined (reading '__mro__')",
    "[]['constr' + 'uctor']": "UnsupportedError: `.constructor` is not available in flows",
    "({})['constructor']['constructor']('return 1')()": "UnsupportedError",
    "(() => 1)['constructor']": "UnsupportedError",
    "''['toString']['constructor']": "UnsupportedError",
    "Math.max['call'](null, 1)": "UnsupportedError",
    "({})['__proto__']": "UnsupportedError",
    "({})['__lookupGetter__']": "UnsupportedError",
    "(o => { o['__proto__'] = 1 })({})": "UnsupportedError: `__proto__` is not available in flows",
    "(p => { p['state'] = 1 })(Promise.resolve())": "UnsupportedError: properties can be set on objects",
    "(f => { f['__code__'] = 1 })(() => 1)": "UnsupportedError: properties can be set on objects",
    "(d => { d['ms'] = 1; return d })(new Date(0))": "UnsupportedError: properties can be set on objects",
    "Object.assign(new Date(0), { ms: 1 })": "UnsupportedError: properties can be set on objects",
    "Object.entries(task)": [],
    "Object.keys(Promise.resolve(1))": [],
    "JSON.stringify(new Map([[1, 2]]))": "{}",
    "'realm' in Promise.resolve(1)": False,
    "structuredClone(Promise.resolve(1))": "DataCloneError: #<Promise> could not be cloned.",
    "JSON.parse('{\"__proto__\": {\"x\": 1}}').x": None,
    "Object.keys(JSON.parse('{\"__proto__\": {\"x\": 1}}'))": ["__proto__"],
    "(k => JSON.parse('{\"constructor\": {\"x\": 1}}')[k].x)('constructor')": 1,
    "(k => console[k])('__class__')": "UnsupportedError: `console.__class__` is not available",
    "(o => { o.hasOwnProperty = 1; o.toString = 2; o.then = 3; o.length = 4; return o })({})": {
        "hasOwnProperty": 1, "toString": 2, "then": 3, "length": 4
    },
    "await { then: 5 }": {"then": 5},
    "await { then(resolve) { resolve(6) } }": 6,
    "`${{ toString: () => 7 }}` + { valueOf: () => 8 }": "78",
    "[...{ length: 3 }]": "TypeError",
    "Array.from({ length: 2, 0: 'a', 1: 'b' })": ["a", "b"],
}  # fmt: skip


@pytest.mark.parametrize("expression", CHAINS)
def test_a_chain_of_properties_leads_nowhere(expression: str) -> None:
    expected = CHAINS[expression]
    try:
        outcome = evaluate(f"workflow(ctx, inputs) {{ return {expression} }}")
    except CompileError:
        assert str(expected).startswith("UnsupportedError")
        return

    if outcome.error is None:
        assert expected == outcome.value
    else:
        assert f"{outcome.error.name}: {outcome.error.message}".startswith(expected)


# Texts ------------------------------------------------------------------------------------------

TEXTS = [
    *("%s %(x)s %n", "{0.__class__}", "{x!r:>{y}}", "f'{1}'", "\\", "\\'", "'", '"', '"""', "'''", "`", "${1}", "#"),
    *("\n", "\r\n", "\u2028\u2029", "\0", "\x1b[2J", "\x01\x02", "\x7f\x85", "\ud83d\ude00", "\ud800", "\udc00\ud800"),
    *("\\N{BULLET}", "\\x41\\u0041", "__proto__ ", "'; import os #", "\ufeff", "\u202e", "ﬁ", "\t\f\v "),
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_is_a_text_wherever_it_stands(text: str) -> None:
    literal = "'" + "".join(f"\\u{ord(unit):04x}" for unit in text) + "'"
    inside = "".join(f"\\u{ord(unit):04x}" for unit in text)
    source = f"""workflow(ctx, inputs) {{
        const o = {{ {literal}: 1, [{literal} + 'x']: 2 }}
        const {{ {literal}: taken }} = o
        console.log({literal}, '%s', {literal})
        const error = new Error({literal}, {{ cause: {literal} }})
        switch (inputs.text) {{ case {literal}: break; default: throw new Error('another text') }}
        return [{literal}, `{inside}${{o[{literal}]}}`, Object.keys(o), taken, error.message, error.cause, inputs.text]
    }}"""
    outcome = evaluate(source, {"text": text})

    expected = [text, f"{text}1", [text, f"{text}x"], 1, text, text, text]
    assert json.dumps(expected) == json.dumps(outcome.result)
    check_generated(program_of(source).source)


def test_texts_stand_in_the_source_as_they_are() -> None:
    for text in TEXTS:
        if any(character in text for character in "\n\r'\\\ud800\udc00\ud83d"):
            continue
        escaped = re.sub(r"([`$\\])", r"\\\1", text)
        assert [text, text] == evaluate(f"workflow() {{ return ['{text}', `{escaped}`] }}").result


# The boundary -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("() => 1", "is a function"),
        ("task", "is a function"),
        ("[].push", "is a function"),
        ("Promise.resolve(1)", "is a promise"),
        ("new Map()", "is a Map"),
        ("Math", "is a builtin"),
        ("[1].values()", "is an iterator"),
    ],
)
def test_nothing_that_runs_is_carried_over_the_boundary(value: str, shown: str) -> None:
    for place in (f"return [{value}]", f"task('a', {{ a: [{value}] }})", f"return {{ toJSON: () => [{value}] }}"):
        outcome = evaluate(f"workflow(ctx, inputs) {{ {place} }}", tasks={"a": lambda a: 1})
        assert outcome.error is not None
        assert shown in str(outcome.error.message)


def test_hostile_results_and_errors_are_data() -> None:
    class Hostile(Exception):
        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.data = {"__proto__": {"x": 1}, "toString": "x", "message": 5, "stack": 6, "a" * 1000: "b" * 100_000}

    Hostile.__name__ = "__class__"

    def fail() -> None:
        raise Hostile("{0.__class__} %s \x1b[2J\0\ud800" + "x" * 100_000)

    source = """workflow(ctx, inputs) {
        const got = await task("odd")
        try { await task("fail") } catch (error) {
            const { name, message, data } = error
            return [got, name, message, data.toString, error instanceof Error, `${error}`.length]
        }
    }"""
    odd = {"__proto__": {"y": 1}, "then": "x", "length": -1, "toJSON": 1, "constructor": None, "__class__": [0]}
    got, name, message, own, is_error, length = evaluate(source, tasks={"odd": lambda: odd, "fail": fail}).result

    assert (got, name, own, is_error) == (odd, "__class__", "x", True)
    assert message.startswith("{0.__class__} %s \x1b[2J\0\ud800x")
    assert length < 20_000


# IR and snapshots from outside ------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'["\\ud83d\\ude00"' + b",[" * 5_000 + b"]" * 5_001,
        b"1" * 9_999,
    ],
    ids=range(8),
)
def test_what_is_no_ir_is_refused(data: bytes) -> None:
    with pytest.raises(ir.IRError):
        ir.from_bytes(data)


WORLD = Environment(lambda: 1e12, lambda: 0.5, lambda: str(uuid.UUID(int=7)))
SUSPENDING = """
const top = new Map([["a", [1, { x: 2 }]]])
async function pay(n, undo) {
  try { const r = await task("a", { n }); undo.push(() => [n, r, top]); return r } finally { await sleep(5) }
}
workflow(ctx, inputs) {
  const undo = [], shared = { d: new Date(0), e: new Error("x", { cause: undo }), s: new Set([1, "é\\ud800"]) }
  shared.self = shared
  const it = [1, 2, 3].values(), entries = top.entries(), b = Math.max, c = undo.push, ns = JSON
  it.next()
  let late
  const p = new Promise((...both) => { late = both })
  p.finally(() => 1); p.then(x => x)
  const race = Promise.race([signal("go", { timeout: 1000 }), sleep(50)])
  const both = [pay(1, undo), pay(2, undo), Promise.allSettled([task("b"), p]), Promise.any([child("w"), race])]
  const all = await Promise.all(both)
  for (const f of undo) f()
  for (const [k, v] of entries) shared[k] = v
  return [all, shared.s.size, it.next().value, b(1, 2), typeof c, ns.stringify(1), late.length]
}
"""
_KINDS = ["completed", "completed", "completed", "failed", "completed", "timer", "signal", "cancel", "timer"]
DELIVERIES = [
    Delivery(number, kind, number, "go" if kind == "signal" else None, b"[1]") for number, kind in enumerate(_KINDS, 1)
]
FORGED: list[Any] = [
    None, True, 0, 1, -1, -2, -3, 5, 10**6, 2**31, 2**63, -(2**40), 1.5, float("nan"), float("inf"), "", "x",
    "__class__", "Math.max", "Array.push", "os.system", b"", b"\xff", b"\xed\xa0\x80", [], [[]], [0, 0, 0], {},
    {"a": 1}, [3, 0, []], "task", "all", "array values", "TypeError",
]  # fmt: skip


def begun(source: str) -> tuple[Program, bytes]:
    program = program_of(source)
    start = StartInfo(str(uuid.UUID(int=1)), "w", program.hash, 0.0, b"{}")
    snapshot = activate(program, environment=WORLD, start=start).snapshot
    assert snapshot is not None
    return program, snapshot


def forge(data: bytes, rng: random.Random) -> bytes:
    """The snapshot with some of its fields replaced."""
    fields = msgspec.msgpack.decode(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        places: list[tuple[Any, Any]] = []
        pending = [fields]
        while pending:
            item = pending.pop()
            inside = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
            for key, value in inside:
                places.append((item, key))
                pending.append(value)
        container, key = rng.choice(places)
        other, other_key = rng.choice(places)
        container[key] = copy.deepcopy(rng.choice(FORGED) if rng.random() < 0.8 else other[other_key])
    return msgspec.msgpack.encode(fields)


def test_forged_snapshots_are_refused_or_lead_nowhere() -> None:
    program, snapshot = begun(SUSPENDING)
    rng = random.Random(20)
    watchdog = Watchdog(5.0)
    ends: dict[str, int] = {}

    def run() -> None:
        for _ in range(500):
            try:
                data = forge(snapshot, rng)
            except RecursionError:
                continue  # it has been put into itself
            try:
                activation: Activation = watchdog.run(
                    lambda data=data: activate(  # type: ignore[misc]
                        program, environment=WORLD, snapshot=data, deliveries=DELIVERIES
                    )
                )
                end = activation.outcome.status if activation.outcome is not None else "suspended"
            except SnapshotError:
                end = "refused"
            except FatalError as error:
                pytest.fail(f"it did not end: {error}")
            except (TypeError, AttributeError, ValueError, AssertionError, IndexError, KeyError):
                end = "engine error"  # a value of another kind than the program can have put there
            ends[end] = ends.get(end, 0) + 1

    try:
        run_with_large_stack(run)
    finally:
        watchdog.close()
    assert ends["refused"] > 300
    assert ends.get("engine error", 0) < 20


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.__setitem__(2, 2**31), "the next number"),
        (lambda f: f.__setitem__(2, -1), "the next number"),
        (lambda f: f[6][0].__setitem__(3, "not a uuid"), "a child's id"),
        (lambda f: f[6][0].__setitem__(4, float("nan")), "a time"),
        (lambda f: f[6][0].__setitem__(1, "os.system"), "an operation's kind"),
        (lambda f: f[8].append([19, "os.system"]), "KeyError"),
        (lambda f: f[8].append([3, 99, []]), "no function 99"),
        (lambda f: f[8].append([4, 0, 0, [], [], 0]), "damaged"),
        (lambda f: f[8].append([18, "__class__", {}, None]), "an error's kind"),
        (lambda f: f[8].append([99]), "an entry is malformed"),
        (lambda f: f.__setitem__(5, 10**9), "a reference leads to the wrong kind"),
    ],
)
def test_a_forged_field_is_named(change: Callable[[list[Any]], None], says: str) -> None:
    program, snapshot = begun("workflow() { await task('a') }")
    fields = msgspec.msgpack.decode(snapshot)
    change(fields)

    with pytest.raises(SnapshotError, match=re.escape(says)):
        activate(program, environment=WORLD, snapshot=msgspec.msgpack.encode(fields), deliveries=[])
