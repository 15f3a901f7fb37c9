"""Random flow programs, and a long comparison with Node: python -m tests.language.flow_fuzz [count] [first seed].

A program has variables that stay numbers, a string, an array, objects, and some that hold anything; functions that log
and change them, so that every wrong order or stale read shows; bounded loops; and, in every second program, awaits.
"""

from __future__ import annotations

import random
import sys

from tests.language.flow_node import differences

BATCH = 100  #: Programs in one Node process.

SETUP = """let a = 1, b = 2.5, s = 'st', m = null, q
const r = [3, 'x', { x: 1 }], o = { x: 1, y: 'two', z: { x: 5 }, list: [1, { x: 2 }] }
const p = { x: 7, f: (v) => { log.push('pf'); return v } }
const log = []
const f = (v, w) => { log.push('f', v); a = a + 1; o.x = a; return w === undefined ? v : w }
const g = (v) => { m = v; s += 'g'; r[0] = v; return o.x }
function h(x, y) { let t = x * y - x; if (x < y) t = t + y % 3; return x > 2 ? t : t + x }
const af = async (v) => {
  log.push("a"); try { await v; log.push("b"); if (v === 1) throw "af" } finally { s += "z" } return v
}
const dp = ({ x: d1 = 5, ...d2 } = {}, [d3, d4 = d1] = [], ...d5) => [d1, d2, d3, d4, d5]
const k = { valueOf: () => { log.push('k'); o.x = 3; b = 4; return 2 } }
"""


class Source:
    """Writes one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.waits = seed % 2 == 1
        self.loops = 0
        self.counters: list[str] = []
        self.in_loop = 0
        self.nested = False

    def program(self) -> str:
        statements = "\n".join(self.statement(0) for _ in range(self.random.randint(4, 9)))
        body = f"try {{\n{statements}\n}} catch (e) {{ log.push(e instanceof Error ? e.name : e) }}"
        result = "return [log, a, b, s, m, q, r, o, p.x]"
        return f"async function workflow(ctx, inputs) {{\n{SETUP}{body}\n{result}\n}}\n"

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    # -- expressions --

    def name(self) -> str:
        return self.pick(
            "a", "b", "s", "m", "q", "o.x", "o.y", "o.z.x", "p.x", "r[0]", "r[1]", "r.length", *self.counters
        )

    def constant(self) -> str:
        return self.pick(
            "0", "1", "2", "-1", "0.5", "'1'", "''", "'ab'", "null", "undefined", "true", "false", "NaN", "-0"
        )

    def expression(self, depth: int) -> str:
        if depth > 3 or self.random.random() < 0.2:
            return self.name() if self.random.random() < 0.7 else self.constant()
        kinds = [
            self.binary,
            self.binary,
            self.logical,
            self.unary,
            self.call,
            self.property,
            self.assignment,
            self.literal,
            self.conditional,
            self.callback,
        ]
        if self.waits:
            kinds.append(self.wait)
        return self.random.choice(kinds)(depth + 1)

    def binary(self, depth: int) -> str:
        operator = self.pick(
            "+", "+", "-", "*", "/", "%", "<", ">", "<=", ">=", "===", "!==", "==", "!=", "|", "&", ">>>"
        )
        return f"({self.expression(depth)} {operator} {self.expression(depth)})"

    def logical(self, depth: int) -> str:
        return f"({self.expression(depth)} {self.pick('&&', '||', '??')} {self.expression(depth)})"

    def unary(self, depth: int) -> str:
        if self.random.random() < 0.3:
            return f"({self.pick('++', '--')}{self.target()})"
        if self.random.random() < 0.3:
            return f"({self.target()}{self.pick('++', '--')})"
        return f"({self.pick('-', '+', '!', '~', 'typeof', 'void')} {self.expression(depth)})"

    def call(self, depth: int) -> str:
        one, two = self.expression(depth), self.expression(depth)
        return self.pick(
            f"f({one})",
            f"f({one}, {two})",
            f"g({one})",
            f"h({one}, {two})",
            f"p.f({one})",
            f"r.indexOf({one})",
            f"r.push({self.pick('a', 's', '1')})",
            f"s.slice({self.pick('0', '1', '-1', 'a')})",
            f"Math.floor({one})",
            f"Math.max({one}, {two})",
            f"String({one})",
            f"f(...[{one}, {two}])",
            f"r.map((v, i) => {self.pick('v', 'i', 'a', 'typeof v')}).length",
            f"((v) => {self.pick('v', 'a + v', 'b = v')})({one})",
            f"p.missing?.({one})",
            f"dp({one}).length",
            f"dp({{ x: {one}, y: 2 }}, [{two}])[{self.pick('0', '2', '3')}]",
            f"(delete o.{self.pick('y', 'x', 'nothing')})",
            f"Object.keys(o).join({self.pick(chr(39) + chr(39), 's', '1')})",
        )

    def callback(self, depth: int) -> str:
        """An array method with a function literal."""
        receiver = self.pick("r", "r", "[a, b, s]", "[...r, m]", "(m ?? r)", "o.list", "s.split('')")
        method = self.pick("map", "map", "filter", "some", "every", "find", "forEach", "findIndex", "flatMap")
        waits, self.waits = self.waits, False
        outer = self.counters
        self.counters = [*outer, "v", "i"]
        body = self.expression(depth)
        step = self.expression(depth)
        self.counters = outer
        self.waits = waits
        params = self.pick("v, i", "v, i", "v, i = 2", "v, i, all")
        if self.random.random() < 0.3:
            return f"{receiver}.reduce((v, i) => {step}, {self.expression(depth)})"
        return f"{receiver}.{method}(({params}) => {body})"

    def property(self, depth: int) -> str:
        value = self.expression(depth)
        return self.pick(
            f"o[{value}]",
            f"r[{value}]",
            f"s[{value}]",
            "o.missing",
            "o.missing?.x",
            "(m)?.x",
            "(q ?? o).x",
            "('x' in o)",
            f"k * {self.name()}",
            f"({self.name()} + k)",
            f"o[{self.pick(chr(39) + 'x' + chr(39), 's')}]",
            *(f"r[{counter}]" for counter in self.counters),
            *(f"s[{counter}]" for counter in self.counters),
            *(f"r[{counter} + 1]" for counter in self.counters),
        )

    def target(self) -> str:
        return self.pick("a", "b", "m", "q", "o.x", "o.z.x", "p.x", "r[0]", "r[1]", "o[s]")

    def assignment(self, depth: int) -> str:
        operator = self.pick("=", "=", "+=", "-=", "*=", "??=", "||=", "&&=")
        return f"({self.pick('m', 'q', 'a', 'o.y', 'r[1]', self.target())} {operator} {self.expression(depth)})"

    def literal(self, depth: int) -> str:
        one, two = self.expression(depth), self.expression(depth)
        return self.pick(
            f"[{one}, {two}]",
            f"[{one}, ...r]",
            f"({{ x: {one}, [{two}]: 1 }})",
            f"({{ ...o, x: {one} }})",
            f"`<${{{one}}}${{{two}}}>`",
            f"({one}, {two})",
        )

    def conditional(self, depth: int) -> str:
        return f"({self.expression(depth)} ? {self.expression(depth)} : {self.expression(depth)})"

    def wait(self, depth: int) -> str:
        if self.random.random() < 0.15 and not self.nested:
            self.nested = True
            inner, self.in_loop = self.in_loop, 0
            text = f"(await (async () => {{ {self.body(2)}; return {self.expression(3)} }})())"
            self.in_loop = inner
            self.nested = False
            return text
        value = self.expression(depth)
        return self.pick(
            f"(await {value})", f"(await {value})", f"(await af({value}))", f"(await Promise.all([af({value}), a]))"
        )

    # -- statements --

    def statement(self, depth: int) -> str:
        chance = self.random.random()
        if depth > 2 or chance < 0.35:
            return self.simple()
        if chance < 0.5:
            other = f" else {{ {self.body(depth)} }}" if self.random.random() < 0.5 else ""
            return f"if ({self.expression(1)}) {{ {self.body(depth)} }}{other}"
        if chance < 0.6:
            return self.labelled(depth)
        if chance < 0.78:
            return self.loop(depth)
        if chance < 0.9:
            last = f" finally {{ {self.body(depth)} }}" if self.random.random() < 0.5 else ""
            jump = self.pick("", "", f"throw {self.expression(2)};")
            return f"try {{ {self.body(depth)}; {jump} }} catch (e) {{ log.push('c'); {self.body(depth)} }}{last}"
        cases = f"case {self.expression(2)}: {self.body(depth)}; default: {self.body(depth)}"
        return f"switch ({self.expression(2)}) {{ {cases} }}"

    def labelled(self, depth: int) -> str:
        """A labelled block or a pair of labelled loops, left from inside."""
        self.loops += 1
        label, name = f"l{self.loops}", f"i{self.loops}"
        kind = self.random.random()
        inner, self.in_loop = self.in_loop, 0 if kind < 0.4 else self.in_loop + 1
        one, two = self.body(depth), self.body(depth)
        test, other = self.expression(2), self.expression(2)
        self.in_loop = inner
        if kind < 0.4:
            return f"{label}: {{ {one}; if ({test}) break {label}; {two}; if ({other}) {{ break {label} }} }}"
        jump = self.pick("break", "continue")
        if kind < 0.7:
            head = f"for (let {name} = 0; {name} < 2; {name}++)"
            return (
                f"{label}: {head} {{ for (const j{name} of [1, 2]) {{ try {{ {one}; if ({test}) {jump} {label} }}"
                f" finally {{ {two} }} }} }}"
            )
        return (
            f"{{ let {name} = 0; {label}: do {{ if ({name}++ > 2) break; {one}; while ({name} < 3) {{ {name}++; {two};"
            f" if ({test}) {jump} {label} }} }} while ({other}) }}"
        )

    def body(self, depth: int) -> str:
        return "; ".join(self.statement(depth + 1) for _ in range(self.random.randint(1, 3)))

    def simple(self) -> str:
        value = self.expression(0)
        choices = [
            f"m = {value}",
            f"q = {value}",
            f"s += {value}; s = s.slice(-20)",
            f"log.push({value})",
            f"o.y = {value}",
            f"a = a + {value}; if (typeof a !== 'number') a = 1",
            f"{self.target()} = {value}",
            f"const {{ x: v1 = {value}, ...v2 }} = o; log.push(v1, v2)",
            f"const [w1, w2 = {value}] = r; log.push(w1, w2)",
        ]
        if self.in_loop:
            choices += [f"if ({value}) continue", f"if ({value}) break"]
        return f"{{ {self.random.choice(choices)} }}"

    def loop(self, depth: int) -> str:
        self.loops += 1
        name = f"i{self.loops}"
        self.in_loop += 1
        kind = self.random.random()
        if kind < 0.6:
            self.counters.append(name)
            captured = f"; fs.push(() => {name})" if self.random.random() < 0.2 else ""
            body = self.body(depth) + captured
            self.counters.pop()
            bound = self.pick("3", "2", "r.length && " + name + " < 4")
            step = self.pick(f"{name}++", f"{name} += 2")
            text = f"for (let {name} = {self.pick('0', '1', '-1')}; {name} < {bound}; {step}) {{ {body} }}"
            if captured:
                text = f"const fs = []; {text}; log.push(fs.map((c) => c()))"
        elif kind < 0.8:
            items = f"[{self.expression(2)}, {self.expression(2)}]"
            text = f"for (const {name} of {items}) {{ log.push({name}); {self.body(depth)} }}"
        else:
            text = (
                f"for (const {name} in {{ u: 1, v: {self.expression(2)} }}) {{ log.push({name}); {self.body(depth)} }}"
            )
        self.in_loop -= 1
        return f"{{ {text} }}"


def compare(first: int, count: int) -> list[tuple[int, str, str]]:
    """(seed, result here, result in Node) of every program that differs."""
    sources = [Source(seed).program() for seed in range(first, first + count)]
    return [(first + index, here, expected) for index, here, expected in differences(sources)]


def main() -> None:
    """Compare many programs; print the seeds that differ."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    found = 0
    for first in range(start, start + count, BATCH):
        for seed, result, expected in compare(first, min(BATCH, start + count - first)):
            found += 1
            print(f"seed {seed}\n  here {result[:300]}\n  node {expected[:300]}")
    print(f"{count} programs, {found} differences")


if __name__ == "__main__":
    main()
