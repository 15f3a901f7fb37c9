# ruff: noqa: E501 - tables of expressions read better in one line each
"""The boundary, rule by rule: in both directions, and by every way that data takes in ``evaluate``.

The same rules through real workers and clients are in tests/worker/test_data.py.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import pytest

from rhythm import payloads
from rhythm.errors import InvalidInput
from rhythm.language.boundary import DEPTH_MAX, to_json
from rhythm.testing import evaluate
from tests.language.flow_node import run_in_node, start

#: Values that leave with the text of JSON.stringify: order of keys, numbers, texts, dates, toJSON, undefined.
AS_STRINGIFY = [
    "{ b: 1, 10: 2, a: 3, 2: 4, '-1': 5, '01': 6 }", "[0, -0, 25, 1.5, 1e20, 1e21, 123456789012345680000, 2 ** 53, -(2 ** 60)]",
    "[5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1e-7]", "['', 'é', '\\u{1F600}', '\\ud800', '\\udc00\\ud800', 'a\\0b', '\"\\\\/\\b\\n\\u2028\\x7f']",
    "{ '\\ud800': 1, '\\0': 2, '': 3, '\"': 4 }", "{ u: undefined, n: null, l: [undefined, null], e: {}, f: [] }", "undefined", "null", "true",
    "JSON.parse('{\"__proto__\":{\"x\":1},\"a\":2}')", "[new Date(0), new Date(NaN), { d: new Date(8.64e15) }]",
    "{ toJSON: (key) => `root ${typeof key}` }", "{ a: { toJSON: (key) => key }, l: [{ toJSON: (key) => key }, { toJSON: () => undefined }] }",
    "{ toJSON: () => ({ toJSON: () => 1, x: 2 }) }", "{ toJSON: () => [{ toJSON: (key) => key }] }", "{ toJSON: 5, a: 1 }", "{ a: { toJSON: () => undefined } }",
    "(() => { const o = { a: 1, toJSON: () => o }; return o })()", "(() => { const o = { a: { toJSON() { delete o.b; return 1 } }, b: 2, c: 3 }; return o })()",
    "(() => { const l = [{ toJSON() { l.push(9); l[1] = 'x'; return 1 } }, 2]; return l })()",
    "(() => { const l = [{ toJSON() { l.length = 1; return 1 } }, 2]; return l })()", "Object.assign(new Error('x'), { toJSON: (key) => 'own' + key })",
]  # fmt: skip
#: Values that are a TypeError, and what it says after the name of what was to leave.
LOUD = [
    ("NaN", "$ is NaN, which"), ("{ items: [{ p: 1 }, { price: NaN }] }", "$.items[1].price is NaN, which"), ("[Infinity]", "$[0] is Infinity, which"),
    ("{ a: -Infinity }", "$.a is -Infinity, which"), ("{ f: () => 1 }", "$.f is a function, which"), ("[isNaN]", "$[0] is a function, which"),
    ("[Promise.resolve(1)]", "$[0] is a promise, which"), ("{ m: new Map() }", "$.m is a Map, which"), ("[[new Set([1])]]", "$[0][0] is a Set, which"),
    ("[[1].values()]", "$[0] is an iterator, which"), ("{ Math }", "$.Math is a builtin, which"),
    ("(() => { const o = { a: [] }; o.a.push(o); return o })()", "$.a[0] is part of a cycle"),
    ("(() => { const e = new Error('x'); e.self = e; return { e } })()", "$.e.self is part of a cycle"),
    ("(() => { const o = {}; o.a = { toJSON: () => o }; return o })()", "$.a is part of a cycle"),
    ("{ a: { toJSON: () => ({ b: NaN }) } }", "$.a.b is NaN, which"), ("Object.assign(new Error('x'), { f: () => 1 })", "$.f is a function, which"),
    ("new Error('x', { cause: NaN })", "$.cause is NaN, which"),
]  # fmt: skip
#: Ways out: a program that sends X, and what the TypeError calls it.
OUT = {
    "return await task('t', X)": "inputs of task t",
    "return await child('t', X)": "inputs of child t",
    "return X": "output of workflow workflow",
}
#: Ways in: a program that gives back what it got, and the arguments of evaluate that bring it there.
IN: dict[str, Any] = {
    "return inputs": lambda value: {"inputs": value},
    "return await signal('s')": lambda value: {"signals": [(1, "s", value)]},
    "return await task('t')": lambda value: {"tasks": {"t": lambda _, /: value}},
}
EXACT = {
    "n": 25,
    "big": -(2**53),
    "1": [None, True, -0.0, 1e300, 1.5],
    "__proto__": {"constructor": "own"},
    "\ud800": "😀\0é",
    "": {},
}


def value_of(expression: str) -> Any:
    return start(f"async function workflow() {{ return {expression} }}")[1].value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_leaves_is_the_text_of_json_stringify() -> None:
    """But for escapes of ASCII, and for exponents, which have other spellings."""
    sources = [f"async function workflow() {{ return JSON.stringify({one}) ?? 'null' }}" for one in AS_STRINGIFY]
    theirs = [json.loads(text) for text in run_in_node(sources)]
    ours = [to_json(value_of(expression), "it") for expression in AS_STRINGIFY]

    assert all(data.isascii() for data in ours)
    for expression, text, data in zip(AS_STRINGIFY, theirs, ours, strict=True):
        assert repr(json.loads(text)) == repr(json.loads(data)), (
            expression
        )  # repr shows the order of keys, and 1 as not 1.0


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize(("expression", "says"), LOUD)
def test_what_json_cannot_hold_is_a_type_error_with_its_path(expression: str, says: str, mode: Any) -> None:
    for body, name in OUT.items():
        program = f"workflow() {{ const it = {expression}\nawait sleep(1)\n{body.replace('X', 'it')} }}"
        outcome = evaluate(program, tasks={"t": lambda value, /: value}, snapshot=mode)

        assert outcome.error is not None
        assert "TypeError" == outcome.error.name
        assert str(outcome.error.message).startswith(f"{name} {says}")


@pytest.mark.parametrize("body", OUT)
def test_a_thousand_levels_leave_and_more_do_not(body: str) -> None:
    def leaves(levels: int) -> Any:
        program = f"workflow() {{ let v = 1; for (let i = 0; i < {levels}; i++) v = [v]; {body.replace('X', 'v')} }}"
        return evaluate(program, tasks={"t": lambda value, /: value})

    refused = leaves(DEPTH_MAX + 1).error

    assert nested(DEPTH_MAX) == leaves(DEPTH_MAX).result
    assert ("TypeError", True) == (refused.name, "deeper than 1000 levels" in refused.message)


@pytest.mark.parametrize("mode", ["never", "await"])
@pytest.mark.parametrize("body", IN)
def test_what_arrives_is_what_was_sent(body: str, mode: Any) -> None:
    outcome = evaluate(f"workflow(ctx, inputs) {{ {body} }}", **IN[body](EXACT), snapshot=mode)

    assert list(outcome.result) == ["1", "n", "big", "__proto__", "\ud800", ""]  # as JavaScript enumerates it
    assert outcome.result == EXACT
    assert isinstance(outcome.result["n"], int)


@pytest.mark.parametrize("body", IN)
def test_whole_numbers_that_no_double_holds_are_refused_where_they_arrive(body: str) -> None:
    program = f"workflow(ctx, inputs) {{ {body} }}"
    for number in (2**53 + 1, -(2**53) - 1, 2**64 + 1, 10**400):
        error = evaluate(program, **IN[body]({"ids": [1, number]})).error

        assert error is not None
        assert ("TypeError", True) == (error.name, f"$.ids[1] is {number}"[:100] in str(error.message))
        assert "as strings" in str(error.message)


@pytest.mark.parametrize("body", IN)
def test_levels_and_numbers_that_json_has_not_are_refused_before_they_are_sent(body: str) -> None:
    program = f"workflow(ctx, inputs) {{ {body} }}"
    for value, says in ((nested(DEPTH_MAX + 1), "deeper than 1000"), ({"a": [float("nan")]}, r"\$.a\[0\] is nan")):
        if "task" in body:  # what a task gives is its failure
            failed = evaluate(program, **IN[body](value)).error
            assert failed is not None
            assert says.replace("\\", "") in str(failed.message)
        else:
            with pytest.raises(InvalidInput, match=says):
                evaluate(program, **IN[body](value))


def test_a_thousand_levels_are_what_clients_may_send_and_receive(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(1_000)  # as it is where no worker runs

    text = b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX
    assert text == payloads.encode(nested(DEPTH_MAX), "inputs")
    assert text == payloads.encode(payloads.decode(text), "inputs")
    with pytest.raises(InvalidInput, match="deeper than 1000"):
        payloads.encode(nested(DEPTH_MAX + 1), "inputs")


def test_errors_leave_as_objects() -> None:
    program = """workflow() {
      const inner = Object.assign(new RangeError("in"), { code: 5 })
      return [new Error("a"), new TypeError("b", { cause: inner }), new AggregateError([inner, 1], "c"), Object.assign(new Error("d"), { name: "Own", at: new Date(0) })]
    }"""

    assert evaluate(program).result == [
        {"name": "Error", "message": "a"},
        {"name": "TypeError", "message": "b", "cause": {"name": "RangeError", "message": "in", "code": 5}},
        {"name": "AggregateError", "message": "c", "errors": [{"name": "RangeError", "message": "in", "code": 5}, 1]},
        {"name": "Own", "message": "d", "at": "1970-01-01T00:00:00.000Z"},
    ]


@pytest.mark.parametrize("snapshot", ["never", "await"])
def test_names_with_an_emoji_reach_tasks_signals_and_options_whole(snapshot: str) -> None:
    """The program has it in two units, everybody else as one character."""
    outcome = evaluate(
        'workflow(ctx) { const said = await signal("go\U0001f600"); '
        'try { await task("send\U0001f600", { said }, { queue: "mail\U0001f600" }) } catch (e) { return [e.task.length, e.message] } }',
        tasks={"send\U0001f600": refuse},
        signals=[(5, "go\U0001f600", "now")],
        snapshot=snapshot,
    )

    assert [6, "now"] == outcome.result


def refuse(said: str) -> None:
    raise ValueError(said)
