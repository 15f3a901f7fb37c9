"""Writes random flow programs from `grammar.txt`.

A line of the grammar is a production: ``kind*weight: text``; a line ``== row`` says to which row of the language's
table the productions below it belong. In a text

    @kind       becomes a random production of that kind, or a variable of that kind in scope
    @numvar     becomes a variable of the kind before `var` that may be assigned
    #1  $1      are fresh names; with ``:kind`` (``:!kind`` for constants) later productions use them as variables:
                `#` until the end of this text, `$` until the end of the enclosing block
    «…»  ‹…›    enclose the body of a function (or an expression it returns), plain and async: no jumps out of it, and
                awaits only in the second; names before it are visible in it
    ⟦…⟧         encloses the default of a parameter: no awaits, and the parameters are not visible
    @body @loop @case @fbody @abody      are statements: of a block, a loop, a case, a function, an async function

A kind ending in ``~`` needs a place where `await` may stand. Kinds are the types that the values have, so that programs
seldom die early: num, str, bool, arr (of numbers), list, obj, nul (an object or nothing), map, set, date, err, fn, afn,
promise, iter, and any and any0 (anything that becomes a primitive without telling engine messages apart).

Every program is bounded: loops and functions burn `fuel`, texts and arrays are cut, the log has a limit. It logs what
it does and in which order, keeps closures and promises for later, and returns the log with its whole state.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

DEPTH_MAX: Final = 5  #: Productions inside each other; deeper only those that stand alone.
SIZE_MAX: Final = 240  #: Productions in one program, about.
PIECES_MAX: Final = 4  #: Parts of a program that end by themselves when something is thrown.

PRELUDE = r"""let fuel = 150, n0 = 1, n1 = 2.5, s0 = "st", x0 = null, x1
const out = [], kept = [], shared = []
const a0 = [3, 1, 2], l0 = [1, "two", [3], { x: 4 }], m0 = new Map([["x", 1], ["y", { x: 2 }]]), t0 = new Set([1, "b"])
let o0 = { x: 1, y: "two", z: { x: 5, f: (v) => v } }, o1 = { 2: "i", y: 2, 1: "j", x: [1] }, u0 = { x: null }
const d0 = new Date(86400000), e0 = new TypeError("m0", { cause: o1 })
const show = (v, d = 0) => {
  if (typeof v === "string") return JSON.stringify(v.length > 60 ? v.slice(0, 60) + v.length : v)
  if (typeof v === "function") return "function"
  if (v === null || typeof v !== "object") return Object.is(v, -0) ? "-0" : String(v)
  if (d > 2) return "..."
  const all = (l) => l.slice(0, 6).map((w) => show(w, d + 1)).join() + (l.length > 6 ? l.length : "")
  if (Array.isArray(v)) return `[${all(v)}]`
  if (v instanceof Error) return v.message.startsWith("m") ? `${v.name}(${v.message})` : v.name
  if (v instanceof Date) return `Date(${v.getTime()})`
  if (v instanceof Map) return `Map[${all([...v])}]`
  if (v instanceof Set) return `Set[${all([...v])}]`
  if (v instanceof Promise) return "Promise"
  return `{${Object.keys(v).slice(0, 6).map((k) => k + ":" + show(v[k], d + 1)).join()}}`
}
const log = (...v) => { if (out.length < 400) out.push(v.map((w) => show(w)).join(" ")) }
const lean = (v) => { const t = show(v); return t.length > 200 || t.includes("...") ? undefined : v }
const cut = (v) => typeof v === "string" ? v.slice(-30) : v
const at = (k, v) => { log("at", k); return v }
const f0 = (v, w) => { log("f0", v); n0 = n0 + 1; o0.x = n0; return w === undefined ? v : w }
const g0 = async (v) => {
  log("g0")
  try { await v; log("g0 goes on"); if (v === 1) throw new Error("m") } finally { s0 = "z" + n0 }
  return v
}
const settle = async (p) => { try { return ["ok", await p] } catch (e) { return ["no", e] } }
"""
PRELUDE_HOST = "const running = [], start = Date.now()\n"
PRELUDE_NAMES: Final = [
    ("n0", "num", True),
    ("n1", "num", True),
    ("s0", "str", True),
    ("x0", "any", True),
    ("x1", "any", True),
    ("a0", "arr", False),
    ("l0", "list", False),
    ("m0", "map", False),
    ("m0", "map", True),
    ("t0", "set", False),
    ("o0", "obj", True),
    ("o1", "obj", True),
    ("u0", "nul", True),
    ("d0", "date", False),
    ("e0", "err", False),
    ("f0", "fn", False),
    ("g0", "afn", False),
]
END = """for (const f of kept.slice(0, 20)) { try { log("kept", f()) } catch (e) { log("kept", e) } }
log(shared.map((v) => shared.indexOf(v)).join())
log(n0, n1, s0, x0, x1, a0, l0, m0, t0)
log(o0, o1, u0, d0, e0)
return out"""
END_HOST = """await sleep("2d")
for (const r of running.slice(0, 20)) log("ran", await r)
"""
SIGNALS = '// signals: [[1, "a", 1], [3, "a", {"x": [2]}], [7, "b", "s"], [12, "a", null], [40, "b", 4]]\n'


@dataclass(frozen=True, slots=True)
class Production:
    kind: str
    text: str
    row: str
    weight: int
    waits: bool  #: Needs a place where `await` may stand.
    tokens: tuple[str, ...]

    @property
    def is_leaf(self) -> bool:
        """Whether it needs no other production."""
        return "@" not in self.text


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands."""

    waits: bool  #: `await` may stand here.
    returns: bool = False
    breaks: bool = False
    continues: bool = False
    labels: tuple[tuple[str, str], ...] = ()  #: (name, "label" or "block")


_TOKEN = re.compile(r"@[a-z]+\d?|[#$]\d(?::!?[a-z]+)?|[«»‹›⟦⟧;]")
_LINE = re.compile(r"(\w+)(~?)(?:\*(\d+))?: (.+)")
_BODIES: Final = {"body", "loop", "case", "fbody", "abody"}


def read_grammar() -> dict[str, list[Production]]:
    """The productions by kind, in the order of the file."""
    found: dict[str, list[Production]] = defaultdict(list)
    row = ""
    for line in Path(__file__).with_name("grammar.txt").read_text().splitlines():
        if line.startswith("== "):
            row = line[3:]
        elif line and not line.startswith("# "):
            match = _LINE.fullmatch(line)
            assert match, f"not a production: {line}"
            kind, waits, weight, text = match.groups()
            tokens = tuple(part for part in re.split(f"({_TOKEN.pattern})", text) if part)
            found[kind].append(Production(kind, text, row, int(weight or 1), bool(waits), tokens))
    return dict(found)


GRAMMAR: Final = read_grammar()
ROWS: Final = list(dict.fromkeys(production.row for group in GRAMMAR.values() for production in group))


class Writer:
    """Writes one program; `used` are its productions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.used: list[Production] = []
        self.names = 0
        self.scopes: list[list[tuple[str, str, bool]]] = [list(PRELUDE_NAMES)]
        self.waits_at_all = seed % 4 != 0
        self.place = Place(waits=self.waits_at_all)

    def program(self) -> str:
        """The source of a workflow."""
        head = self.random.choice(["workflow(ctx, inputs) {", "async function workflow(ctx, inputs) {"])
        pieces = [self.piece() for _ in range(self.random.randint(2, PIECES_MAX))]
        host, end_host = (PRELUDE_HOST, END_HOST) if self.waits_at_all else ("const running = [], start = 0\n", "")
        body = host + "\n".join(pieces) + "\n" + end_host + END
        if self.random.random() < 0.5:
            return f"{SIGNALS}{PRELUDE}{head}\n{body}\n}}\n"
        return f"{SIGNALS}{head}\n{PRELUDE}{body}\n}}\n"

    def piece(self) -> str:
        statements = self.statements(1, 4, 0)
        if self.random.random() < 0.03:
            return f"{{\n{statements}\n}}"
        return f'try {{\n{statements}\nlog("done")\n}} catch (e) {{ log("piece", e) }}'

    # -- statements --

    def statements(self, low: int, high: int, depth: int) -> str:
        with self.scope():
            lines = [self.expand("stmt", depth) for _ in range(self.random.randint(low, high))]
        for number, line in enumerate(lines[:-1]):
            # Semicolons that JavaScript puts in by itself.
            if re.search(r"[^);];$", line) and lines[number + 1][0].isalpha() and self.random.random() < 0.3:
                lines[number] = line[:-1]
        return "\n".join(lines)

    def body(self, kind: str, depth: int) -> str:
        outside = self.place
        burn = end = ""
        if kind == "loop":
            self.place = replace(outside, breaks=True, continues=True)
            burn = "if (fuel-- < 0) break;\n"
        elif kind == "case":
            self.place = replace(outside, breaks=True)
            end = self.random.choice(["\nbreak", "\nbreak", ""])
        elif kind in ("fbody", "abody"):
            self.place = Place(waits=kind == "abody", returns=True)
            burn = "if (fuel-- < 0) return 0;\n"
        text = self.statements(1, 3 if depth < 3 else 2, depth)
        if kind in ("fbody", "abody"):
            end = f"\nreturn {self.expand('any', depth)}"
        self.place = outside
        return f"\n{burn}{text}{end}\n"

    def jump(self, depth: int) -> str:
        place = self.place
        choices = ["break;"] * place.breaks + ["continue;"] * 2 * place.continues
        for name, kind in place.labels:
            choices += [f"break {name};"] + [f"continue {name};"] * (kind == "label")
        if place.returns:
            choices.append(f"return {self.expand('any', depth)};")
        return self.random.choice(choices) if choices else 'log("nowhere");'

    # -- texts --

    def expand(self, kind: str, depth: int) -> str:
        """A random text of this kind."""
        if kind in _BODIES:
            return self.body(kind, depth)
        if kind == "jump":
            return self.jump(depth)
        if kind.endswith("var"):
            return self.variable(kind[:-3], assigned=True) or "x1"
        full = depth > DEPTH_MAX or len(self.used) > SIZE_MAX
        if self.random.random() < (0.6 if full else 0.3) and (name := self.variable(kind, assigned=False)):
            return name
        choices = [p for p in GRAMMAR[kind] if self.place.waits or not p.waits]
        if full:
            leaves = [p for p in choices if p.is_leaf]
            if not leaves and (name := self.variable(kind, assigned=False)):
                return name
            choices = leaves or [min(choices, key=lambda p: p.text.count("@"))]
        production = self.random.choices(choices, [p.weight for p in choices])[0]
        return self.write(production, depth + 1)

    def variable(self, kind: str, *, assigned: bool) -> str | None:
        found = [n for scope in self.scopes for n, k, free in scope if k == kind and (free or not assigned)]
        if not found:
            return None
        # The newest half as often as all the others.
        return self.random.choice(found[-3:] if self.random.random() < 0.5 else found)

    def write(self, production: Production, depth: int) -> str:
        self.used.append(production)
        enclosing = self.scopes[-1]
        outside = self.place
        regions: list[tuple[Place, int]] = []  #: Where the text around stands, and how many names it sees.
        names: dict[str, str] = {}
        pending: list[tuple[str, str, bool]] = []  #: Local names that are not visible yet.
        lasting: list[tuple[str, str, bool]] = []  #: The same for names of the enclosing block.
        out: list[str] = []
        with self.scope() as local:
            for token in production.tokens:
                if token[0] in "#$" and len(token) > 1:
                    out.append(self.name(token, names, pending if token[0] == "#" else lasting))
                elif token[0] == "@":
                    seen = len(local)
                    if token[1:] in _BODIES:
                        local += pending
                        pending.clear()
                    out.append(self.expand(token[1:], depth))
                    del local[seen:]
                elif token in ("«", "‹", "⟦"):
                    regions.append((self.place, len(local)))
                    self.place = Place(waits=token == "‹")
                    if token != "⟦":
                        local += pending
                        pending.clear()
                elif token in ("»", "›", "⟧"):
                    self.place, seen = regions.pop()
                    del local[seen:]
                else:
                    out.append(token)
                    if token == ";" and not regions:
                        local += pending + lasting
                        enclosing += lasting
                        pending.clear()
                        lasting.clear()
        enclosing += lasting
        self.place = outside
        return "".join(out)

    def name(self, token: str, names: dict[str, str], pending: list[tuple[str, str, bool]]) -> str:
        reference, _, kind = token.partition(":")
        if reference not in names:
            self.names += 1
            names[reference] = f"{'L' if kind in ('label', 'block') else 'v'}{self.names}"
        name = names[reference]
        if kind in ("label", "block"):
            self.place = replace(self.place, labels=(*self.place.labels, (name, kind)))
        elif kind:
            pending.append((name, kind.lstrip("!"), kind[0] != "!"))
        return name

    @contextmanager
    def scope(self) -> Iterator[list[tuple[str, str, bool]]]:
        scope: list[tuple[str, str, bool]] = []
        self.scopes.append(scope)
        yield scope
        self.scopes.pop()
