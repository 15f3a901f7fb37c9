"""The front end on text of any kind: it never raises, and never accepts what Node's parser refuses.

Three sources of text: hypothesis's arbitrary text, pieces of the language put together at random, and the programs of
the corpus with small damage. Every damaged program that we accept is given to Node, which must accept it as well; and
what we refuse as plain syntax Node must refuse too.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rhythm.engine import check_source
from rhythm.language.calls import Callees
from rhythm.language.diagnostics import CODES, Diagnostic
from tests.language.fuzz.frontend import SHAPES, one_input, seconds_of_shape
from tests.language.test_corpus import PROGRAMS

NODE_SCRIPT = r"""
const vm = require("vm")
const sources = JSON.parse(require("fs").readFileSync(0, "utf8"))
const refusal = (source) => {
  try { new vm.Script('"use strict"; ' + source); return "" } catch (error) { return String(error) }
}
process.stdout.write(JSON.stringify(sources.map(refusal)))
"""
PIECES = r"""workflow ( ) { } [ ] ; , . ... => = == + ++ - -- * ** / % & && | || ? ?? ?. : ! ~ < > << >>> ` ${ ' " \ # @
async await function return let const var if else for of in while do switch case default break continue try catch
finally throw new delete typeof void this class null true false undefined x y ctx task sleep 0 1 0x1b 1e3 .5 10n 'a'
"b" `c` /d/ // /* */ <!-- --> get set static yield import export a:""".split()
PIECES += ["\n", " ", "\t", "\u2028", "\u0301", "\U0001f600", "\u00e9", "\x00"]
MUTATIONS = 1_500
CALLEES = Callees({"echo": {"properties": {"value": {"type": "number"}}, "required": ["value"]}}, (), complete=False)


def check(source: str) -> list[Diagnostic]:
    """The diagnostics; asserts what holds for those of any text."""
    found = check_source(source, "fuzz.flow", CALLEES)
    lines = len(re.split("\r\n|[\n\r\u2028\u2029]", source))
    for diagnostic in found:
        assert diagnostic.code in CODES
        assert diagnostic.message
        assert (diagnostic.severity == "error") == (diagnostic.code[0] == "F" and diagnostic.code[1] != "5")
        assert 0 <= diagnostic.start <= diagnostic.end <= len(source)
        assert 1 <= diagnostic.line <= lines
        assert diagnostic.column >= 1
    return found


def accepts(source: str) -> bool:
    return not any(diagnostic.severity == "error" for diagnostic in check(source))


def refused_by_node(sources: list[str]) -> list[str]:
    """For each source Node's complaint, "" when it accepts it."""
    node = shutil.which("node")
    assert node, "Node 20 is the judge of the language"
    texts = [
        re.sub(r"^([\s;]*)workflow(?=\s*\()", r"\1async function workflow", source, flags=re.M) for source in sources
    ]
    done = subprocess.run(
        [node, "-e", NODE_SCRIPT], input=json.dumps(texts), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    results: list[str] = json.loads(done.stdout)
    return results


QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@QUICK
@given(st.text(max_size=200))
def test_any_text_gives_diagnostics(text: str) -> None:
    assert check(text)


@QUICK
@given(st.text(max_size=100))
def test_any_text_in_a_workflow_gives_diagnostics(text: str) -> None:
    check("workflow(ctx, inputs) {\n" + text + "\n}")


@QUICK
@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "Lu", "Nd", "Zs", "Po"]), max_size=60))
def test_lone_surrogates_give_diagnostics(text: str) -> None:
    check("workflow() { return '" + text + "' + " + text + "}")


@settings(QUICK, max_examples=600)
@given(st.lists(st.sampled_from(PIECES), max_size=60), st.booleans())
def test_pieces_of_the_language_give_diagnostics(pieces: list[str], spaced: bool) -> None:
    text = (" " if spaced else "").join(pieces)
    check(text)
    check("workflow(ctx, inputs) {" + text + "}")


@settings(QUICK, max_examples=200)
@given(st.binary(min_size=1, max_size=100))
def test_any_bytes_give_their_own_errors_as_source_ir_or_snapshot(data: bytes) -> None:
    one_input(data)


@pytest.mark.parametrize("name", SHAPES)
def test_what_repeats_takes_no_long_time(name: str) -> None:
    assert seconds_of_shape(name, 3_000) < 2.0


#: Codes of what Node leaves to run time, or takes because a script is no module: escapes in names and rare letters,
#: `await` as a name, assignments to calls. Refusing these is our decision.
STRICTER = frozenset({"F105", "F106", "F107"})


def is_plain_syntax_error(diagnostics: list[Diagnostic]) -> bool:
    codes = {diagnostic.code for diagnostic in diagnostics if diagnostic.severity == "error"}
    return bool(codes) and all(code < "F2" for code in codes) and not codes & STRICTER


def mutate(source: str, rng: random.Random) -> str:
    tokens = re.findall(r"\w+|\s+|=>|\.\.\.|[=!]==?|&&|\|\||\?\?|\*\*|.", source, re.S)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(tokens))
        match rng.randrange(5):
            case 0:
                del tokens[place]
            case 1:
                tokens.insert(place, rng.choice(PIECES))
            case 2:
                tokens[place] = rng.choice(PIECES)
            case 3:
                other = rng.randrange(len(tokens))
                tokens[place], tokens[other] = tokens[other], tokens[place]
            case _:
                tokens[place:place] = tokens[place : place + rng.randrange(1, 6)]
        if not tokens:
            break
    return "".join(tokens)


@functools.cache
def damaged() -> tuple[str, ...]:
    rng = random.Random(20)
    programs = [re.sub(r"//.*", "", program.source) for program in PROGRAMS]
    return tuple(mutate(rng.choice(programs), rng) for _ in range(MUTATIONS))


def test_damaged_programs_give_diagnostics_and_node_refuses_what_must_be_refused() -> None:
    accepted = [source for source in damaged() if accepts(source)]
    complaints = refused_by_node(accepted)

    assert len(accepted) > MUTATIONS // 20
    assert [] == [(source, text) for source, text in zip(accepted, complaints, strict=True) if text]


def test_what_is_refused_as_syntax_is_no_javascript() -> None:
    syntax = [source for source in damaged() if is_plain_syntax_error(check(source))]
    complaints = refused_by_node(syntax)

    assert len(syntax) > MUTATIONS // 20
    assert [] == [source for source, text in zip(syntax, complaints, strict=True) if not text]


def test_every_prefix_of_a_program_gives_diagnostics() -> None:
    source = max((program.source for program in PROGRAMS), key=len)[:1_500]

    for end in range(0, len(source), 3):
        check(source[:end])


#: Bodies of a workflow. Node is asked about each; whatever it refuses, we must refuse.
SNIPPETS = r"""
let a = 1; let a = 2
let a; { var a }
const f = (a, a) => a
function f(a, a) {}
return 010
return "\01"
return "\8"
return `\1`
with (ctx) {}
delete ctx
let let = 1
let yield
let static
let await
async () => { let await }
return async await => 1
return (async (x = await 1) => x)
function f(x = await 1) {}
for (let i, j of []) {}
for (let i = 0 of []) {}
for (let of []) {}
for (async of []) {}
for (let of of []) {}
for (const i in {}, {}) {}
for (const i of [], []) {}
for (let i;;) { let i }
if (1) function f() {}
if (1) let a
if (1) let
[0]
while (0) async function f() {}
label: function f() {}
label: async function f() {}
label: label: ;
label: { label: ; }
break label
label: { continue label }
label: for (;;) { (() => { break label })() }
({a, a} = ctx)
({a = 1})
({a = 1}).b
({a: 1} = 1)
[a, b + 1] = []
let [a, ...b,] = []
let {...{a}} = {}
let {a: {b}}
1 = 1
a++ ++
++a++
a?.b = 1
a?.b++
delete a?.b
new a?.b()
new await a()
new (await a)()
new new a()()
a?.`x`
-1 ** 2
(-1) ** 2
typeof 1 ** 2
await 1 ** 2
1 ?? 2 || 3
1 ?? (2 || 3)
1 || 2 ?? 3
eval = 1
arguments = 1
let eval
({eval} = ctx)
(a, b) => { "use strict" }
(a = 1) => { "use strict" }
() => {} || 1
() => {}()
(() => {})()
async () => {} ?? 1
1 + () => 1
a ? (b) : c => d
a ? (b, c) => d : e
a => {}.x
(a)
=> 1
async
x => 1
async x
=> 1
throw
1
return
1
a
++b
x
(1)
try {}
try {} catch {}
try {} catch ([a]) {}
try {} catch (a) { let a }
try {} catch ({a}) { let a }
try {} catch (a) { for (const a of []) {} }
switch (1) { case 1: let a; case 2: let a }
switch (1) { default: default: }
switch (1) { case 1: function f() {} case 2: function f() {} }
{ function f() {} function f() {} }
function f() {} function f() {}
{ let f; function f() {} }
function f(a) { let a }
function f(a) { { let a } }
function f([a], {a}) {}
function f(...a, b) {}
function f(...a = 1) {}
function f(a,) {}
function f(,) {}
f(a,)
f(,)
f(...a,)
[...a,]
let [,] = []
({,})
({a,})
({get: 1, set: 2, async: 3, await: 4, static: 5, of: 6})
({async a() {}, async 1() {}, async "b"() {}, async [1]() {}})
({async: a, async})
({async
a() {}})
({await})
({if})
({if: 1}).if
({a() {}, b: 1, 1: 2, "c": 3, [4]: 5})
({__proto__: 1, __proto__: 2})
3.toString()
3..toString()
3 .toString()
3in[]
0b12
0x
0xg
0x1b.n
0xFB + 0xb
1_000
1__0
1_
_1
0_1
1e
1e+
.5.5
.
"\u{110000}"
"\u{10ffff}"
"\u12"
"\x1"
'a
b'
`a
b`
`${1
`${}`
`${`${1}`}`
1 /* a
2
1 /* a
*/ 2
1 /* a */ 2
let a\u0301 = 1
let a² = 1
let ℮ = 1
let 𝒳 = 1
let \u0061 = 1
if (1) ; else ;
if (1) else ;
do ; while (0) 1
do 1 while (0)
do 1; while (0) return 2
for (;;;) {}
for (;) {}
for (let i = 0, n = 1 in {}; ;) {}
for (let i = ("a" in {}); ;) {}
for (let x = a => "b" in {}; ;) {}
{ ; ; }
{ 1 } 2
{ 1 2 }
let a = 1 let b
let a = {} let b
let a, = 1
let a b
const a
const a = 1, b
let {a}
await
await 1
await await 1
async () => await
() => await 1
function f() { await 1 }
function f() { await }
new.target
super.x
import.meta
yield 1
a: b: c: ;
a: let b
a: const b = 1
enum = 1
package = 1
let async = 1; async
let of = 1, get = 2, set = 3; of
let undefined
let NaN = 1
(a, b) = 1
(a) = 1
[(a)] = [1]
[(a, b)] = [1]
({a: (b)} = 1)
({a: (b = 1)} = 1)
([a]) = 1
({a}) = 1
[a] += 1
a ||= b &&= c ??= d
a && b = 1
a = b = c
a ? b = 1 : c = 2
a ? b : c = 2
(a ? b : c) = 2
a, b
return a,
...a
(...a)
(a, ...b)
(...a) => a
(a, ...b) => a
(a, ...b,) => a
(a,) => a
(a,)
(,) => 1
() + 1
!function () {}()
function () {}
function f() {}()
async function () {}
void async function () {}()
#a in b
a.#b
@a
<!-- a
a --> b
a
--> b
debugger
in
1 in 2 in 3
1 instanceof 2 instanceof 3
1 < 2 > 3
- -1
--1
- - -a
+ ++a
!a++
void typeof delete a.b
a.b.c[1](2).d`x`
a.if.class.await
a.1
a.[1]
a..b
a?.[1]?.(2)?.b
a?.1:2
a?.5:2
a ? .5 : 2
""?.length
""
.length
''''
/a/
/a
/a/gg
a /b/ c
a++ /b/ c
}
)
]
{
(
[
""".strip("\n").split("\n")  # fmt: skip


def test_there_are_many_snippets() -> None:
    assert len(SNIPPETS) > 200


def test_no_snippet_that_node_refuses_is_accepted() -> None:
    declared = "async function workflow(ctx, a, b) {{\n let c, d, e, f, x, y, task;\n {{\n{}\n}}\n}}"
    sources = [declared.format(snippet) for snippet in SNIPPETS]
    # Two lines at a time as well: automatic semicolons depend on what follows.
    sources += [declared.format(f"{one}\n{two}") for one, two in itertools.pairwise(SNIPPETS)]
    own = [[d for d in check(source) if d.severity == "error" and d.code != "F403"] for source in sources]
    complaints = refused_by_node(sources)

    assert [] == [(s, text) for s, text, errors in zip(sources, complaints, own, strict=True) if text and not errors]
    # And the other way round, where we call it a syntax error.
    assert [] == [
        (s, errors[0].code, errors[0].message)
        for s, text, errors in zip(sources, complaints, own, strict=True)
        if not text and is_plain_syntax_error(errors)
    ]


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\u2028", "\u2029"])
def test_every_line_terminator_ends_a_line(ending: str) -> None:
    (found,) = check(f"workflow() {{{ending}// note{ending}return missing{ending}}}")

    assert (3, 8) == (found.line, found.column)
