"""Limits: recursion in every way there is, bombs of every kind, and that what is done in pieces is done rightly.

What only the watchdog ends (endless loops, slow library calls, memory) is in tests/worker/test_bombs.py, with a real
worker.
"""

from __future__ import annotations

import random
import re
import sys
from itertools import pairwise
from typing import Any

import pytest

from rhythm.language import numbers
from rhythm.language.builtins import array, json, sorting, string, uri
from rhythm.language.units import pieces, to_units
from rhythm.testing import evaluate


@pytest.fixture(autouse=True)
def much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried here does not end by the clock, however busy the machine is."""
    monkeypatch.setattr(sys.modules["rhythm.testing.evaluate"], "BUDGET_SECONDS", 60.0)


# Recursion ----------------------------------------------------------------------------------------

#: Expressions, statements before them: each calls itself for ever through something else.
RECURSION = {
    "sort": ("[1, 2].sort(f)", "const f = (a, b) => [2, 1].sort(f).length"),
    "sort by text": ("[o, o].sort()", "const o = { toString() { return String([o, o].sort()) } }"),
    "toJSON": ("JSON.stringify(o)", "const o = { toJSON() { return JSON.stringify(o) } }"),
    "toJSON of what toJSON gave": ("JSON.stringify(f())", "const f = () => ({ toJSON() { return [f()] } })"),
    "toJSON that starts": ("task('a', o)", "const o = { toJSON() { return task('a', o) } }"),
    "reviver": ("JSON.parse('[1]', f)", "const f = (k, v) => JSON.parse('[1]', f)"),
    "replacer": ("JSON.stringify([1], f)", "const f = (k, v) => JSON.stringify([1], f)"),
    "replaceAll": ("f()", "const f = x => 'a'.replaceAll('a', f)"),
    "replace": ("f()", "const f = x => 'a'.replace('a', f)"),
    "then of a thenable": ("await o", "const o = { then(r) { return o.then(r) } }"),
    "valueOf": ("+o", "const o = { valueOf() { return +o } }"),
    "valueOf of both": ("o + 1", "const o = { valueOf() { return o + o } }"),
    "valueOf in a comparison": ("o < 1", "const o = { valueOf() { return o < 1 } }"),
    "valueOf in an equality": ("o == 1", "const o = { valueOf() { return o == 1 } }"),
    "toString": ("`${o}`", "const o = { toString() { return `${o}` } }"),
    "toString as a key": ("({})[o]", "const o = { toString() { return ({})[o] } }"),
    "Number": ("Number(o)", "const o = { valueOf() { return Number(o) } }"),
    "Math.max": ("Math.max(o, 1)", "const o = { valueOf() { return Math.max(o, 1) } }"),
    "join": ("[o].join()", "const o = { toString() { return [o].join() } }"),
    "concat": ("'a'.concat(o)", "const o = { toString() { return 'a'.concat(o) } }"),
    "fromCharCode": ("String.fromCharCode(o)", "const o = { valueOf() { return String.fromCharCode(o) } }"),
    "Date": ("new Date(o)", "const o = { valueOf() { return new Date(o) } }"),
    "Error": ("new Error(o)", "const o = { toString() { return new Error(o).message } }"),
    "JSON.parse": ("JSON.parse(o)", "const o = { toString() { return JSON.parse(o) } }"),
    "console": ("console.log(`${o}`)", "const o = { toString() { console.log(`${o}`); return '' } }"),
    "default parameter": ("f()", "const f = (x = f()) => x"),
    "default of a pattern": ("f({})", "const f = ({ a = f({}) }) => a"),
    "default in a declaration": ("f()", "const f = () => { const { x = f() } = {}; return x }"),
    "two functions": ("f(0)", "const f = n => g(n) + 1; const g = n => f(n) + 1"),
    "async": ("await f(0)", "const f = async n => { const x = await f(n + 1); return x }"),
    "method": ("o.f()", "const o = { f() { return o.f() + 1 } }"),
    "optional call": ("o.f()", "const o = { f(x) { return o?.f?.(1) + 1 } }"),
    "computed method": ("f({ f }, 'f')", "const f = (o, k) => o[k](o, k)"),
    "spread": ("f(1, 2, 3)", "const f = (...a) => f(...a) + 1"),
    "called at once": ("f()", "const f = () => (() => f() + 1)()"),
    "map": ("f()", "const f = x => [1].map(f)"),
    "map with all arguments": ("f()", "const f = (x, i, a) => { const z = [1].map(f); return z }"),
    "forEach": ("f()", "const f = x => { [1].forEach(f) }"),
    "filter": ("f()", "const f = x => { return [1].filter(f) }"),
    "reduce": ("f()", "const f = (a, x) => { return [1, 2].reduce(f) }"),
    "find": ("f()", "const f = x => { return [1, 2].find(f) }"),
    "some": ("f()", "const f = x => { return [1, 2].some(f) }"),
    "flatMap": ("f()", "const f = x => { return [1, 2].flatMap(f) }"),
    "Array.from": ("f()", "const f = x => Array.from([1, 2], f)"),
    "Array.from a string": ("f()", "const f = x => Array.from('ab', f)"),
    "Array.from a length": ("f()", "const f = x => Array.from({ length: 2 }, f)"),
    "forEach of a Map": ("f()", "const m = new Map([[1, 2]]); const f = x => m.forEach(f)"),
    "forEach of a Set": ("f()", "const m = new Set([1]); const f = x => m.forEach(f)"),
}


@pytest.mark.parametrize("name", RECURSION)
def test_endless_recursion_is_a_range_error(name: str) -> None:
    expression, before = RECURSION[name]
    outcome = evaluate(
        f"workflow(ctx, inputs) {{ {before}; try {{ {expression} }} catch (e) {{"
        " return [e.name, e.message, e instanceof RangeError] } return 'no end' }"
    )

    assert ["RangeError", "Maximum call stack size exceeded", True] == outcome.result


DEEP = "let a = []; for (let i = 0; i < 20_000; i++) a = [a];"
RANGE_ERROR = "RangeError: Maximum call stack size exceeded"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (f"{DEEP} return JSON.stringify(a)", RANGE_ERROR),
        (f"{DEEP} structuredClone(a)", RANGE_ERROR),
        (f"{DEEP} return a.flat(Infinity)", RANGE_ERROR),
        (f"{DEEP} return String(a)", RANGE_ERROR),
        (f"{DEEP} return '' + a", RANGE_ERROR),
        (f"{DEEP} return a.join()", RANGE_ERROR),
        ("return JSON.parse('['.repeat(1e6) + ']'.repeat(1e6))", "TypeError: output of workflow workflow $[0][0]"),
        ("return JSON.parse('['.repeat(20000) + ']'.repeat(20000), (k, v) => v)", RANGE_ERROR),
        ("return JSON.parse('['.repeat(1e5))", "SyntaxError: Unexpected end of JSON input"),
        (f"{DEEP} await task('a', {{ a }})", "TypeError: inputs of task a $.a[0][0]"),
        (f"{DEEP} return a", "TypeError: output of workflow workflow $[0][0]"),
    ],
)
def test_data_that_is_too_deep_is_refused(program: str, expected: str) -> None:
    source = f"workflow(ctx, inputs) {{ try {{ {program} }} catch (e) {{ throw e }} }}"
    outcome = evaluate(source)

    assert outcome.error is not None
    assert f"{outcome.error.name}: {outcome.error.message}".startswith(expected)


@pytest.mark.parametrize(
    "program",
    [
        f"{DEEP} await task('a'); return 1",
        "let f = () => 1; for (let i = 0; i < 15_000; i++) { const g = f; f = () => g } await task('a'); return 1",
        "let p = task('a'); for (let i = 0; i < 15_000; i++) p = p.then(x => x); return await p",
        "let p = task('a'); for (let i = 0; i < 20_000; i++) p = Promise.all([p]); await p; return 1",
        "let a = 1; for (let i = 0; i < 20_000; i++) a = new Map([[a, a]]); await task('a'); return 1",
        "let e = 1; for (let i = 0; i < 5_000; i++) e = new Error('x', { cause: e }); await task('a'); return 1",
        "const f = async (p) => { await p; return 1 }; let p = task('a');"
        " for (let i = 0; i < 20_000; i++) p = f(p); return await p",
    ],
)
def test_long_chains_go_through_a_snapshot(program: str) -> None:
    outcome = evaluate(f"workflow(ctx, inputs) {{ {program} }}", tasks={"a": lambda: 1}, snapshot="await")

    assert 1 == outcome.result


# Bombs --------------------------------------------------------------------------------------------

STRING = r"LimitError: a string of \d+ units is longer than the limit of 67108864"
NODE_STRING = "RangeError: Invalid string length"
ARRAY = "LimitError: an array has more than 16777216 elements"
BOMBS = {
    "'x'.repeat(2 ** 27)": STRING,
    "'x'.repeat(2 ** 30)": NODE_STRING,
    "'x'.padStart(2 ** 27)": STRING,
    "'x'.padEnd(2 ** 30, 'ab')": NODE_STRING,
    "(() => { let s = 'x'; for (;;) s += s })()": STRING,
    "(() => { let s = 'x'; for (;;) s = `${s}${s}` })()": STRING,
    "(() => { let s = 'x'; for (;;) s = s.concat(s, s) })()": STRING,
    "(s => ''.concat(...Array(2000).fill(s)))('x'.repeat(2 ** 20))": NODE_STRING,
    "(s => `${s}${s}${s}${s}${s}${s}${s}${s}`)('x'.repeat(2 ** 24))": STRING,
    "Array(2 ** 20).fill('x'.repeat(2 ** 20)).join()": NODE_STRING,
    "'x'.repeat(2 ** 20).replaceAll('x', 'y'.repeat(1000))": STRING,
    "'x'.repeat(2 ** 18).replaceAll('', '$`$\\'')": STRING,
    "'x'.repeat(2 ** 18).replace('x', '$`$\\''.repeat(2 ** 18))": STRING,
    "('a' + '\\u0301\\u0316'.repeat(2 ** 14)).normalize('NFC')": "LimitError: more than 4096 combining marks",
    "'x'.repeat(2 ** 24 + 1).split('')": ARRAY,
    "'x'.repeat(2 ** 24 + 1).split('x')": ARRAY,
    "Array(2 ** 24 + 1).fill(0)": ARRAY,
    "Array(2 ** 33)": "RangeError: Invalid array length",
    "Array.from({ length: 1e9 })": ARRAY,
    "Array.from({ length: 1e9 }, (_, i) => i)": ARRAY,
    "(a => [...a, 1])(Array(2 ** 24).fill(0))": ARRAY,
    "(a => [...a, ...a])(Array(2 ** 23 + 1).fill(0))": ARRAY,
    "(a => a.concat(a))(Array(2 ** 23 + 1).fill(0))": ARRAY,
    "((...x) => x)(...Array(2 ** 17 + 1).fill(0))": RANGE_ERROR,
    "Math.max(...Array(2 ** 17 + 1).fill(0))": RANGE_ERROR,
    "[].length = 1e9": "UnsupportedError: making an array longer",
    "JSON.parse(' '.repeat(2 ** 24) + '1')": "LimitError: JSON.parse was given 16777217 units of text",
    "JSON.stringify(Array(2 ** 10).fill('x'.repeat(2 ** 17)))": STRING,
    "(() => { for (;;) task('a', { x: inputs.x }) })()": "LimitError: the inputs of what this activation starts take",
    "(() => { for (;;) signal('a') })()": "LimitError: more than 100,000 host operations are outstanding",
}


@pytest.mark.parametrize("expression", BOMBS)
def test_a_bomb_ends_with_its_error(expression: str) -> None:
    outcome = evaluate(
        f"workflow(ctx, inputs) {{ try {{ {expression} }} catch (e) {{ throw e }} }}",
        {"x": "x" * 700_000},
        tasks={"a": lambda x: x},
    )

    assert outcome.error is not None
    assert re.match(BOMBS[expression], f"{outcome.error.name}: {outcome.error.message}")


def test_as_many_arguments_as_node_takes_are_taken() -> None:
    outcome = evaluate("workflow(ctx, inputs) { return Math.max(...Array(100_000).fill(1), 7) }")

    assert 7 == outcome.result


@pytest.mark.parametrize("held", ["Array(2 ** 20).fill(s)", "Array(2 ** 16).fill(0).map(() => ({ s }))"])
def test_a_text_in_many_places_is_counted_before_it_is_written(held: str) -> None:
    source = f"const s = 'x'.repeat(2 ** 20), k = {held}; await task('a'); return k.length"
    outcome = evaluate(f"workflow(ctx, inputs) {{ {source} }}", tasks={"a": lambda: 1}, snapshot="await")

    assert outcome.error is not None
    assert "the snapshot is over the limit of 16,777,216 bytes" in str(outcome.error.message)


def test_a_failure_of_any_size_is_stored() -> None:
    outcome = evaluate(
        """workflow(ctx, inputs) {
            const long = 'x'.repeat(2 ** 25)
            const error = new Error(long, { cause: new Error(long) })
            error.name = long
            error.stack = long
            error.fits = 1
            for (let i = 0; i < 100; i++) error['p' + i] = long
            error.numbers = Array(2 ** 20).fill(1)
            error.late = 2
            throw error
        }"""
    )

    assert outcome.error is not None
    payload = outcome.error.payload
    assert [1025, 16385, 16385] == [len(payload[key]) for key in ("name", "message", "stack")]
    assert {"fits": 1, "late": 2} == payload["props"]
    assert 2049 == len(payload["cause"]["message"])


def test_a_thrown_value_of_any_size_is_stored() -> None:
    outcome = evaluate("workflow(ctx, inputs) { throw 'x'.repeat(2 ** 25) }")

    assert outcome.error is not None
    assert 16385 == len(outcome.error.thrown)


def test_what_no_program_may_catch_is_not_caught_while_its_failure_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["rhythm.testing.evaluate"], "BUDGET_SECONDS", 0.2)
    outcome = evaluate(
        "workflow(ctx, inputs) { const e = new Error('x');"
        " for (let i = 0; i < 1000; i++) e['p' + i] = { toJSON() { for (;;) {} } }; throw e }"
    )

    assert outcome.error is not None
    assert "LimitError" == outcome.error.name


def test_log_lines_have_a_length_and_are_made_no_longer() -> None:
    outcome = evaluate(
        """workflow(ctx, inputs) {
            const long = 'x'.repeat(2 ** 26)
            let deep = [long]
            for (let i = 0; i < 5; i++) deep = Array(100).fill(deep)
            for (let i = 0; i < 10; i++) console.log(long, ...Array(1000).fill(long), { [long]: long }, deep)
        }"""
    )

    assert 10 == len(outcome.logs)
    assert all(8192 < len(text) < 8300 for _, text in outcome.logs)


# In pieces ----------------------------------------------------------------------------------------


def _texts(seed: int, alphabet: str, length: int) -> tuple[str, str]:
    rng = random.Random(seed)
    return "".join(rng.choices(alphabet, k=length)), "".join(rng.choices(alphabet, k=rng.randint(1, 5)))


@pytest.mark.parametrize("seed", range(40))
def test_long_texts_are_searched_as_short_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text, wanted = _texts(seed, "ab" if seed % 2 else "abc", 300)
    most = (5.0, 1000.0)[seed % 2]
    methods: dict[str, Any] = {"split": string._split, "lastIndexOf": string._last_index_of}
    expected = [methods["split"](text, wanted), methods["split"](text, wanted, most), methods["split"](text, "", most)]
    expected += [methods["lastIndexOf"](text, wanted, float(end)) for end in range(0, 300, 7)]
    monkeypatch.setattr(string, "PIECE_UNITS", 16)
    monkeypatch.setattr(string, "BACKWARDS_MAX", 8)

    found = [methods["split"](text, wanted), methods["split"](text, wanted, most), methods["split"](text, "", most)]
    found += [methods["lastIndexOf"](text, wanted, float(end)) for end in range(0, 300, 7)]

    assert expected == found
    assert expected[0] == text.split(wanted)


@pytest.mark.parametrize("seed", range(20))
def test_pairs_of_surrogates_are_not_cut(seed: int) -> None:
    text = "".join(random.Random(seed).choices("a\ud83d\ude00", k=200))

    parts = list(pieces(text, 7))

    assert text == "".join(parts)
    assert all(not ("\ud800" <= a[-1] <= "\udbff" and "\udc00" <= b[0] <= "\udfff") for a, b in pairwise(parts))


@pytest.mark.parametrize("seed", range(10))
def test_long_texts_are_quoted_and_mended_as_short_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(random.Random(seed).choices('a"\\\n\ud83d\ude00\x01é', k=300))
    expected = json.quote(text), string._to_well_formed(text)
    monkeypatch.setattr(json, "PIECE_UNITS", 8)
    monkeypatch.setattr(json, "pieces", lambda text: pieces(text, 8))
    monkeypatch.setattr(string, "pieces", lambda text: pieces(text, 8))

    assert expected == (json.quote(text), string._to_well_formed(text))


@pytest.mark.parametrize("seed", range(20))
def test_white_space_of_any_length_is_taken_away(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "STRIPPED_AT_ONCE", 4)
    rng = random.Random(seed)
    text = "".join(rng.choices("a \t\ufeff\u3000", weights=(1, 3, 3, 3, 3), k=rng.randint(0, 30)))

    assert text.lstrip(numbers.WHITESPACE) == numbers.strip_start(text)
    assert text.rstrip(numbers.WHITESPACE) == numbers.strip_end(text)


def test_a_long_run_of_escapes_is_cut_between_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(random.Random(1).choices("aé€\U0001f600", k=500))
    escaped = "".join(f"%{byte:02X}" for byte in text.encode())
    for at_once in (4, 5, 6, 7):
        monkeypatch.setattr(uri, "_ESCAPES", re.compile(f"(?:%[0-9a-fA-F]{{2}}){{1,{at_once}}}+"))

        assert f"<{to_units(text)}>" == uri._decode(f"<{escaped}>", "")


def test_arrays_of_long_texts_are_searched_and_sorted_as_those_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[Any] = random.Random(3).choices(["a", "b" * 50, "b" * 49 + "c", "ab", 1.0, None], k=500)
    wanted = ["b" * 50, "b" * 49 + "d", "ab"]
    expected = [array._index_of(texts, w) for w in wanted], sorting.sort_items(texts, string.UNDEFINED)
    monkeypatch.setattr(array, "COMPARED_AT_ONCE_MAX", 200)
    monkeypatch.setattr(sorting, "COMPARED_AT_ONCE_MAX", 500)

    found = [array._index_of(texts, w) for w in wanted], sorting.sort_items(texts, string.UNDEFINED)

    assert expected == found
    assert [float(texts.index(w)) if w in texts else -1.0 for w in wanted] == found[0]
