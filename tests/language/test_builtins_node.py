# ruff: noqa: E501 - tables of expressions read better in one line each
"""Builtins against Node: thousands of expressions, every method with ordinary and awkward arguments.

Each expression runs in a program of our own and in one of Node's; values and errors, with their messages, must agree.
"""

from __future__ import annotations

import itertools
import math
import random

import pytest

from rhythm.language.builtins.math import MATH
from rhythm.language.codegen_types import MATH_CONSTANTS, MATH_FUNCTIONS
from tests.language.flow_node import run_here, run_in_node

PER_PROGRAM = 40
NUMBERS = ["0", "-0", "1", "-1", "0.5", "-1.5", "2.5", "1e21", "1.005", "123.456", "NaN", "Infinity", "-Infinity", "255", "1e-7",
           "4294967296", "9007199254740993", "0.1", "1e300", "-2147483649"]  # fmt: skip
TEXTS = ["''", "'abc'", "'aXbXc'", "' pad\\n'", "'12px'", "'\\u{1F600}x'", "'ß\\u0130'", "'\\ud800'", "'0x1F'", "'1e3'", "'-0'",
         "'.5'", "'a$b'", "'e\\u0301'"]  # fmt: skip
ANY = ["undefined", "null", "true", "false", "0", "-0", "NaN", "'x'", "''", "'3'", "[]", "[1]", "[1,2]", "{}", "{ valueOf: () => 4 }",
       "{ toString: () => 'T' }"]  # fmt: skip
TRANSCENDENTAL = "sin cos tan asin acos atan exp expm1 log log1p log2 log10 sinh cosh tanh asinh acosh atanh".split()
ARRAYS = ["[]", "[1]", "[3,1,2]", "[1,[2,[3,[4]]]]", "['b',undefined,'a',null,10,9]", "[NaN,0,-0]", "[1,2,3,4,5]"]
INDICES = [
    "",
    "0",
    "1",
    "-1",
    "2, 4",
    "-3, -1",
    "NaN",
    "Infinity",
    "-Infinity, 2",
    "1.7",
    "'1'",
    "undefined, 2",
    "0, 99",
]


def numbers() -> list[str]:
    found = [f"[Number({t}), parseInt({t}), parseFloat({t}), isNaN({t})]" for t in TEXTS + ANY[:13]]
    for n in NUMBERS:
        found += [
            f"String({n})",
            f"({n}) | 0",
            f"({n}) >>> 0",
            f"~({n})",
            f"Number.isInteger({n})",
            f"Number.isSafeInteger({n})",
        ]
        found += [f"({n}).toFixed({d})" for d in ("", "0", "2", "20", "101", "-1")]
        found += [f"({n}).toString({r})" for r in ("2", "16", "36", "3", "1")]
        found += [f"({n}).toPrecision({d})" for d in ("", "1", "5", "21", "0", "101")]
        found += [f"({n}).toExponential({d})" for d in ("", "0", "3", "101")]
    for a, b in itertools.product(NUMBERS, NUMBERS):
        found.append(f"[{a} % {b}, ({a}) ** ({b}), {a} < {b}, {a} << {b}, {a} >> {b}, {a} & {b}, {a} ^ {b}]")
    found += [
        f"parseInt({t}, {r})"
        for t in ("'11'", "'zz'", "'0x1f'", "'1.9'", "'  7 '")
        for r in (0, 2, 8, 10, 16, 36, 37, 1)
    ]
    return found


def maths() -> list[str]:
    exact = "abs ceil floor round trunc sign sqrt cbrt fround clz32".split()
    found = [f"Math.{f}({n})" for f in exact for n in NUMBERS]
    found += [
        f"Math.{f}({a}, {b})"
        for f in ("max", "min", "imul", "hypot", "pow")
        for a in NUMBERS[:12]
        for b in NUMBERS[:12]
    ]
    return [
        *found,
        "Math.max()",
        "Math.min()",
        "Math.hypot()",
        "Math.max(1, '5', [3])",
        "Math.atan2(0, -0)",
        "Math.round(-0.5)",
    ]


def transcendental() -> list[str]:
    """What V8 computes by fdlibm: every branch of it, borders between them, and arguments at random."""
    dice = random.Random(20_261_126)
    borders = [0.3465735902799726, 1.0397207708399179, 2.0**-28, 0.41421356, 0.6744, 0.78539816339, 1.1875, 2.4375, 22.0, 709.78, 710.4758600739439,
               0.975, 1.0, 1.5707963267948966, 2.356194490192345, 823549.6645829493, 1e22, 5e-324, 1.7976931348623157e308]  # fmt: skip
    found = []
    for _ in range(120):
        numbers = [
            dice.choice(borders) * dice.choice([1, -1, 1 + 2.0**-52, 1 - 2.0**-40]),
            dice.uniform(-1, 1),
            dice.uniform(-1, 1) * 10.0 ** dice.randint(-12, 60),
            dice.uniform(-750, 750),
            dice.randint(-(10**6), 10**6) * math.pi / 4,
        ]
        found.append(
            f"[{', '.join(map(repr, numbers)).replace('inf', 'Infinity')}].map((x) => [{', '.join(f'Math.{name}(x)' for name in TRANSCENDENTAL)}, Math.atan2(x, {numbers[1]!r}),"
            f" Math.atan2({numbers[3]!r}, x)])"
        )
    return found


def texts() -> list[str]:
    found = []
    for t in TEXTS:
        for m in ("slice", "substring", "substr", "at", "charAt", "charCodeAt", "codePointAt"):
            found += [f"{t}.{m}({i})" for i in INDICES]
        for m in (
            "trim",
            "trimStart",
            "trimEnd",
            "toUpperCase",
            "toLowerCase",
            "normalize",
            "isWellFormed",
            "toWellFormed",
        ):
            found.append(f"{t}.{m}()")
        found += [f"{t}.normalize('{f}')" for f in ("NFC", "NFD", "NFKC", "bad")]
        found += [f"{t}.{m}({w}, {i})" for m in ("indexOf", "lastIndexOf", "includes", "startsWith", "endsWith")
                  for w in ("'a'", "'X'", "''", "undefined") for i in ("0", "2", "-1", "NaN", "undefined")]  # fmt: skip
        found += [f"{t}.split({s})" for s in ("", "''", "'X'", "'b', 1", "undefined, 2", "'', 2")]
        found += [f"{t}.{m}({a})" for m in ("padStart", "padEnd") for a in ("6", "6, 'ab'", "6, ''", "-1", "'5'")]
        found += [f"{t}.repeat({n})" for n in ("0", "2", "-1", "1.9", "Infinity")]
        found += [f"{t}.{m}({a})" for m in ("replace", "replaceAll")
                  for a in ("'a', 'Z'", "'X', '[$&$$$`$\\']'", "'', '-'", "'X', (m, i, s) => m + i + s", "'q', '$1'")]  # fmt: skip
        found += [
            f"[...{t}]",
            f"{t}.length",
            f"{t}[0]",
            f"{t}.concat(1, null, 'z')",
            f"encodeURIComponent({t})",
            f"encodeURI({t})",
        ]
    found += [f"decodeURIComponent({t})" for t in ("'%20%C3%A9'", "'%'", "'%E0%A4'", "'a%2Fb'", "'%F0%9F%98%80'")]
    found += [f"decodeURI({t})" for t in ("'%20%2F%3F'", "'%E0'", "'%23a'")]
    found += ["String.fromCharCode(97, 65536 + 98, -1)", "String.fromCodePoint(128512, 97)", "String.fromCodePoint(-1)"]
    return [*found, "'b' > 'a'", "'\\u{1F600}' < '\\uFFFF'", "'10' < '9'", "'10' < 9"]


def arrays() -> list[str]:
    found = []
    for a in ARRAYS:
        found += [f"{a}.{m}({i})" for m in ("slice", "at", "splice", "copyWithin", "toSpliced") for i in INDICES]
        found += [f"(x => [x.splice({i}), x])({a})" for i in ("1", "0, 1, 'n'", "-1, 1, 'p', 'q'", "1, NaN, 7")]
        found += [
            f"{a}.{m}({v})"
            for m in ("indexOf", "lastIndexOf", "includes")
            for v in ("1", "NaN", "undefined", "-0", "2, -1", "1, 1")
        ]
        found += [f"{a}.{m}({g})" for m in ("join",) for g in ("", "''", "'-'", "null", "1")]
        found += [
            f"{a}.{m}()" for m in ("sort", "toSorted", "reverse", "toReversed", "pop", "shift", "flat", "toString")
        ]
        found += [f"{a}.flat({d})" for d in ("0", "2", "Infinity", "-1")]
        found += [f"{a}.sort((p, q) => {c})" for c in ("p - q", "q - p", "0", "NaN", "p < q ? -1 : 1", "true")]
        found += [f"{a}.{m}((x, i, all) => {c})" for m in ("map", "filter", "find", "findIndex", "findLast", "findLastIndex", "some",
                  "every", "flatMap", "forEach") for c in ("x", "i", "[x, i]", "all.length > i", "x > 1")]  # fmt: skip
        found += [f"{a}.{m}((s, x, i) => s + '|' + x + i{z})" for m in ("reduce", "reduceRight") for z in ("", ", 'z'")]
        found += [f"{a}.with({i}, 'w')" for i in ("0", "-1", "9", "1.5", "NaN")]
        found += [f"{a}.fill({v})" for v in ("7", "7, 1", "7, -2, -1", "7, 2, 1")]
        found += [f"[...{a}.{m}()]" for m in ("keys", "values", "entries")]
        found += [
            f"{a}.concat([9], 8, [[7]])",
            f"(x => [x.push(1, 2), x.unshift(0), x])({a})",
            f"Array.isArray({a})",
            f"`${{{a}}}`",
        ]
        found += [f"(x => {{ x.length = {n}; return x }})({a})" for n in ("0", "-1", "1.5")]
    found += ["Array.from('a\\u{1F600}')", "Array.from({ length: 3 }, (_, i) => i * 2)", "Array.from(new Set([1, 1, 2]))", "Array.of(7, 8)",
              "Array(3).fill(0)", "[...Array(3).keys()]", "Array.from(Array(2), (x, i) => [x, i])", "Array(-1)", "[].map(5)",
              "[3, 2].sort(5)", "Array.from(null)", "[1, 2].includes(2, -1)", "[1, 2].sort((p, q) => { throw p })"]  # fmt: skip
    return found


def objects() -> list[str]:
    some = [
        "{}",
        "{ a: 1, b: { c: 2 } }",
        "{ 2: 'x', 1: 'y', z: 0, '-1': 1, '01': 2 }",
        "[5, 6]",
        "'ab'",
        "null",
        "undefined",
        "5",
        "true",
    ]
    found = [f"Object.{m}({o})" for m in ("keys", "values", "entries") for o in some]
    found += [f"JSON.stringify({o}{x})" for o in [*some, "[undefined, () => 1, NaN, new Date(0)]", "{ u: undefined, d: new Date(NaN) }",
              "{ toJSON: k => 'J' + k }", "'\\u2028\\ud800\\u0007\"'", "new Map([[1, 2]])", "-0", "new Error('x')"]
              for x in ("", ", null, 2", ", ['a', 1]", ", (k, v) => typeof v === 'number' ? v + 1 : v", ", null, '--'")]  # fmt: skip
    found += [f"JSON.parse({t})" for t in ("'1'", "' [1, {\"a\": null}] '", "'\"\\\\ud83d\\\\ude00\"'", "'-0'", "'1e400'", "'{\"__proto__\": 1}'",
              "'{\"b\":1,\"2\":2,\"b\":3}'")]  # fmt: skip
    found += [f"(() => {{ try {{ return JSON.parse({t}) }} catch (e) {{ return e.name }} }})()" for t in ("''", "'{'", "'[1,]'", "'NaN'", "'01'",
              "'\"\\n\"'", "'nul'", "undefined")]  # fmt: skip
    found += ["JSON.parse('{\"a\":[1,2],\"b\":3}', (k, v) => typeof v === 'number' ? v * 2 : v)", "Object.assign({}, 'ab', null, { c: 1 })",
              "Object.fromEntries([['a', 1], ['b', 2]])", "Object.fromEntries(new Map([['x', 1]]))", "Object.fromEntries([1])",
              "Object.is(-0, 0)", "Object.is(NaN, NaN)", "Object.hasOwn({ a: 1 }, 'a')", "({ a: 1 }).hasOwnProperty('toString')",
              "'toString' in {}", "'a' in { a: 1 }", "0 in [1]", "'x' in 'str'", "({}).toString()", "String({})", "`${[1, [2, 3]]}`",
              "({ ...'ab', ...[1], ...null })", "(({ a, ...r }) => r)({ a: 1, b: 2, 1: 3 })", "(([a, , b = 3, ...c]) => [a, b, c])([1, 2])",
              "(({ a: { b = 5 } = {} }) => b)({})", "null.x", "undefined.y.z", "undefined.f()", "(void 0)[1]", "null.x = 1",
              "(({ a }) => a)(null)", "(([a]) => a)({})", *[f"Math.cbrt({n})" for n in (-27, 0.001, 5e-324, 2, 1e300, 343)], "[...5]", "new Map([1])", "new Map([[1, 'a'], [1, 'b']])",
              "new Set('hello')", "[...new Map([[NaN, 1]]).keys()]", "new Map([[NaN, 1]]).get(NaN)", "new Set([0, -0]).size",
              "[...new Set([3, 1, 3]).entries()]", "Map()", "structuredClone({ a: [1, new Date(5), new Map([[1, { b: 2 }]])] })",
              "new Error('m', { cause: 5 }).cause", "String(new TypeError('t'))", "new RangeError('r') instanceof Error",
              "new Error('x') instanceof TypeError", "Error('y').message", "Object.keys(Object.assign(new Error('e'), { name: 'N', code: 1 }))",
              "new AggregateError([1, 2], 'agg').errors", "typeof null", "typeof (() => 1)", "typeof undefined_", "typeof NaN"]  # fmt: skip
    found += [f"[{a} == {b}, {a} === {b}, {a} + {b}, {a} < {b}]" for a in ANY for b in ANY if "{}" not in (a, b)]
    return found


def dates() -> list[str]:
    made = ["0", "NaN", "'2024-02-29'", "'2024-02-29T12:34:56.789Z'", "'2024-02-30T00:00:00Z'", "'2024-12-31T24:00:00Z'", "2024, 1, 31, 10, 5, 6, 7",
            "99, 0", "2024, 14, -3", "8.64e15", "8.64e15 + 1", "-62198755200000", "'+275760-09-13T00:00:00Z'", "'2024-01-01T10:00:00+02:30'",
            "'2024-13-01'", "1e12", "-1", "2024, 0", "'2024'"]  # fmt: skip
    parts = "FullYear Month Date Day Hours Minutes Seconds Milliseconds".split()
    found = [f"new Date({d}).getTime()" for d in made]
    found += [f"String(new Date({d}))" for d in made]
    for d in made[:12]:
        found += [
            f"[{', '.join(f'new Date({d}).getUTC{p}()' for p in parts)}]",
            f"[{', '.join(f'new Date({d}).get{p}()' for p in parts)}]",
        ]
        found += [f"new Date({d}).{m}()" for m in ("toISOString", "toJSON", "toUTCString", "toDateString", "toTimeString", "valueOf",
                  "getTimezoneOffset")]  # fmt: skip
        found += [
            f"(x => [x.set{p}({v}), x.getTime()])(new Date({d}))"
            for p in parts
            if p != "Day"
            for v in ("1", "45", "-1", "NaN")
        ]
    found += ["Date.UTC(2024, 1)", "Date.UTC(99, 0, 1)", "Date.UTC()", "Date.parse('2024-01-01T00:00:00Z')", "new Date(5) - new Date(2)",
              "new Date(0) + 1", "new Date(0) < new Date(1)", "new Date(2020, 5).setMonth(1, 29)"]  # fmt: skip
    return found


def fuzzed() -> list[str]:
    dice = random.Random(20_260_101)
    found = []
    for _ in range(400):
        n = repr(
            dice.choice(
                [
                    dice.uniform(-1e6, 1e6),
                    dice.uniform(-1, 1) * 10.0 ** dice.randint(-30, 30),
                    dice.randint(-(2**53), 2**53),
                ]
            )
        )
        found.append(
            f"[({n}).toFixed({dice.randint(0, 20)}), ({n}).toPrecision({dice.randint(1, 30)}), ({n}).toExponential({dice.randint(0, 20)}),"
            f" ({n}).toString({dice.randint(2, 36)}), String({n}), Math.round({n}), ({n}) % {dice.uniform(0.1, 100)!r}, ({n}) | 0]"
        )
    return found


def changing() -> list[str]:
    """Arrays and dates that change while a builtin is at work on them."""
    calls = ["at(V)", "includes(undefined, V)", "indexOf(3, V)", "lastIndexOf(1, V)", "toSpliced(1, V, 'n')", "fill('f', V)",
             "fill('f', 0, V)", "with(V, 'w')", "flat(V)"]  # fmt: skip
    changes = ["a.pop()", "a.length = 0", "a.push(8, 9)", "a.unshift(7)"]
    found = [
        f"(() => {{ const a = [1, undefined, 3, 4]; const r = a.{call.replace('V', f'{{ valueOf() {{ {change}; return {n} }} }}')};"
        " return [r, a] })()"
        for call, change, n in itertools.product(calls, changes, ("0", "-1", "2"))
    ]
    callbacks = ["a.pop()", "a.shift()", "a.length = 1", "a[3] = 'n'", "(a.length = 0, a.push(1, 2, 3, 4, 5, 6, 7))"]
    functions = [f(c) for c in callbacks for f in (
        lambda c: f"(x) => (log.push(x), {c}, x > 2)", lambda c: f"(x, i) => {{ log.push(x, i); {c}; return false }}")]  # fmt: skip
    methods = "filter forEach some every find findIndex findLast flatMap".split()
    found += [
        f"(() => {{ const a = [1, 2, 3, 4, 5], log = []; return [a.{m}({f}), a, log] }})()"
        for m, f in itertools.product(methods, functions)
    ]
    parts = itertools.product(
        ("FullYear", "Month", "Hours", "Seconds"), ("0", "NaN", "1e12"), ("x.setTime(NaN)", "x.setTime(5e11)")
    )
    given = "{{ valueOf() {{ {2}; return 3 }} }}"
    for part in parts:
        found += [
            f"(x => [x.set{{0}}({arguments}), x.getTime()])(new Date({{1}}))".format(*part)
            for arguments in (f"{given}, 1", f"1, {given}")
        ]
    return found


def coercions() -> list[str]:
    """In which order arguments become numbers and texts, and which of them do at all."""
    receivers = {
        "'abcabc'": "at charCodeAt codePointAt concat endsWith includes indexOf lastIndexOf normalize padEnd padStart repeat replace replaceAll slice"
        " split startsWith substr substring",
        "[3, 1, 2]": "at concat copyWithin fill flat includes indexOf join lastIndexOf slice splice toSpliced with push unshift map reduce sort find",
        "[]": "at fill includes indexOf lastIndexOf join slice splice with",
        "(1.5)": "toFixed toPrecision toExponential toString",
        "(NaN)": "toFixed toPrecision toExponential",
        "new Date(0)": "setFullYear setMonth setDate setHours setMinutes setSeconds setMilliseconds setTime",
        "new Date(NaN)": "setFullYear setMonth setHours",
        "Math": "abs max min pow atan2 hypot imul",
        "String": "fromCharCode fromCodePoint",
        "Object": "is hasOwn fromEntries assign",
        "Date": "UTC",
        "JSON": "parse stringify",
        "({})": "hasOwnProperty propertyIsEnumerable",
    }
    calls = [f"{receiver}.{name}" for receiver, names in receivers.items() for name in names.split()]
    calls += [
        "Number",
        "String",
        "parseInt",
        "parseFloat",
        "isNaN",
        "encodeURIComponent",
        "new Date",
        "new Error",
        "new Map",
    ]
    spy = "(n) => ({ valueOf() { log.push(n); return n }, toString() { log.push(`${n}`); return `${n}` } })"
    return [
        f"(() => {{ const log = [], o = {spy}; let r; try {{ r = {call}(o(1), o(2), o(3), o(4)) }} catch (e) {{ r = `${{e.name}}: ${{e.message}}` }}"
        " return [log, typeof r === 'object' ? Object.keys(r) : r] })()"
        for call in calls
    ]


GROUPS = {
    "coercions": coercions,
    "changing": changing,
    "numbers": numbers,
    "maths": maths,
    "transcendental": transcendental,
    "texts": texts,
    "arrays": arrays,
    "objects": objects,
    "dates": dates,
    "fuzzed": fuzzed,
}


@pytest.mark.parametrize("group", GROUPS)
def test_builtins_agree_with_node(group: str) -> None:
    expressions = GROUPS[group]()
    wrapped = [
        f"(() => {{ try {{ return {e} }} catch (e) {{ return `${{e.name}}: ${{e.message}}` }} }})()"
        for e in expressions
    ]
    chunks = [wrapped[i : i + PER_PROGRAM] for i in range(0, len(wrapped), PER_PROGRAM)]
    sources = [f"async function workflow(ctx, inputs) {{ return [\n{','.join(chunk)}\n] }}" for chunk in chunks]

    theirs = run_in_node(sources)
    differences = []
    for number, (source, expected) in enumerate(zip(sources, theirs, strict=True)):
        if run_here(source) != expected:
            differences += _differing(expressions[number * PER_PROGRAM :][:PER_PROGRAM], chunks[number])

    assert differences == []


def test_the_code_generator_knows_the_members_of_math() -> None:
    numbers = {name for name, member in MATH.members.items() if isinstance(member, float)}

    assert numbers == MATH_CONSTANTS
    assert set(MATH.members) - numbers == MATH_FUNCTIONS


def _differing(expressions: list[str], wrapped: list[str]) -> list[str]:
    sources = [f"async function workflow(ctx, inputs) {{ return {one} }}" for one in wrapped]
    return [
        f"{expression}  ours: {ours}  node: {theirs}"
        for expression, ours, theirs in zip(expressions, map(run_here, sources), run_in_node(sources), strict=True)
        if ours != theirs
    ]
