"""Random programs about who holds which array or object, compared with Node.

    python -m tests.language.alias_fuzz COUNT SEED

Few variables, many ways to hand values on: what the compiler concludes about contents (codegen_contents) is wrong as
soon as it misses one. Each program uses only some of the ways, so that not everything is given up at once.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from tests.language.flow_node import differences

BATCH = 200
ARRAYS = "abc"
OBJECTS = "pqr"
HELPERS = """
const log = [], kept = { x: 1 }, table = new Map()
let n = 1, s = 's', count = 0, any
function give(v) { return v }
function put(o, v) { o.x = v; return o }
function add(list, v) { if (count++ < 20) list.push(v); return list }
function first([v, w = 7]) { return v }
function pick({ x, y = 3 }) { return y === 3 ? x : y }
async function later(v) { return v }
"""


class Source:
    """One random program. Most of it keeps arrays and objects apart, as people do; some ways do not."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        ways = [getattr(self, name) for name in dir(self) if name.startswith("way_")]
        wild = [getattr(self, name) for name in dir(self) if name.startswith("wild_")]
        self.ways: list[Callable[[], str]] = self.random.sample(ways, self.random.randint(3, 6))
        self.ways += self.random.sample(wild, self.random.choice([0, 0, 1, 2]))
        self.strange = self.random.choice([0.0, 0.1, 0.4])  #: How often something is stored that is no number.

    def program(self) -> str:
        lines = [f"let {name} = {self.start_array()}" for name in ARRAYS]
        lines += [f"let {name} = {self.start_object()}" for name in OBJECTS]
        for _ in range(self.random.randint(3, 10)):
            text = self.random.choice(self.ways)()
            if self.random.random() < 0.15:
                text = f"for (let i = 0; i < 2; i++) {{ {text} }}"
            lines.append(f"try {{ {text} }} catch (e) {{ log.push('!') }}")
        uses = [self.use_array(name) for name in ARRAYS for _ in range(4)]
        uses += [self.use_object(name) for name in OBJECTS for _ in range(4)] + ["n + 1", "s + 1"]
        lines += [f"try {{ log.push({use}) }} catch (e) {{ log.push('?') }}" for use in uses]
        body = HELPERS + "\n".join(lines)
        return f"async function workflow(ctx, inputs) {{{body}\nreturn {{ log, {', '.join(ARRAYS + OBJECTS)} }}\n}}\n"

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def array(self) -> str:
        return self.pick(*ARRAYS)

    def object(self) -> str:
        return self.pick(*OBJECTS)

    def start_array(self) -> str:
        return self.pick("[]", "[1, 2]", "[3]", f"[{self.value()}]", "[{ x: 1, y: 2 }]", "[[1], [2]]")

    def start_object(self) -> str:
        return self.pick("{ x: 1, y: 2 }", "{ x: 1 }", f"{{ x: {self.value()}, y: 1 }}", "{ x: [1], y: 2 }")

    def value(self) -> str:
        if self.random.random() < self.strange:
            return self.pick("'u'", "undefined", "null", "true", self.array(), self.object(), "[1]", "{ x: 2 }", "any")
        return self.pick("1", "2.5", "n", "count", "n * 2")

    def use_array(self, name: str) -> str:
        return self.pick(
            f"{name}[0] * 2",
            f"{name}.length - 1",
            f"{name}[0] + 1",
            f"{name}[1] < 2",
            f"`${{{name}[0]}}`",
            f"{name}[0].x + 1",
            f"{name}[0][0] + 1",
            f"{name}.map((e) => e + 1)",
            f"{name}[0] === n",
            f"-{name}[n]",
            f"{name}.reduce((p, q) => p + q, 0)",
            f"{name}.filter((e) => e > 1)",
            f"{name}.map((e, i) => e * i)",
            f"{name}[0].x % 2 === 0",
            f"{name}.some((e) => e % 2 === 0)",
            f"{name}.find((e) => e - 1)",
        )

    def use_object(self, name: str) -> str:
        return self.pick(
            f"{name}.x + 1",
            f"{name}.x - 1",
            f"{name}.x + {name}.y",
            f"typeof {name}.x",
            f"{name}.y ? 1 : 2",
            f"{name}.x % 2 === 0",
            f"-{name}.y",
            f"{name}.x[0] + 1",
            f"{name}.x.y + 1",
            f"`${{{name}.x}}`",
            f"{name}.y < 3",
            f"{name}.z * 2",
        )

    # -- ways that keep arrays arrays and objects objects --

    def way_assign(self) -> str:
        return self.pick(f"{self.array()} = {self.array()}", f"{self.object()} = {self.object()}")

    def way_new(self) -> str:
        return self.pick(f"{self.array()} = {self.start_array()}", f"{self.object()} = {self.start_object()}")

    def way_push(self) -> str:
        return f"if (count++ < 30) {self.array()}.{self.pick('push', 'unshift')}({self.value()})"

    def way_member(self) -> str:
        return f"{self.object()}.{self.pick('x', 'y', 'z')} = {self.value()}"

    def way_index(self) -> str:
        return f"{self.array()}[{self.pick('0', '1', 'count % 2', 'n')}] = {self.value()}"

    def way_read(self) -> str:
        array, target = self.array(), self.object()
        return self.pick(
            f"n = {array}[0]", f"n = {target}.x", f"n = {array}.pop()", f"s = {target}.y", f"n = {array}.at(0)"
        )

    def way_nested(self) -> str:
        array, target = self.array(), self.object()
        return self.pick(
            f"{target}.x = {array}",
            f"{array} = {target}.x",
            f"{array}.push({target})",
            f"{target} = {array}[0]",
            f"{array}[0].x = {self.value()}",
            f"{target}.x[0] = {self.value()}",
        )

    def way_choice(self) -> str:
        kind = self.random.choice([self.array, self.object])
        return f"{kind()} = {self.pick(kind(), 'n > 1')} {self.pick('||', '&&', '??')} {kind()}"

    def way_unpack(self) -> str:
        return self.pick(
            f"[n, s] = {self.array()}",
            f"({{ x: n, ...{self.object()} }} = {self.object()})",
            f"[n, ...{self.array()}] = {self.array()}",
            f"n = first({self.array()})",
            f"s = pick({self.object()})",
            f"const {{ x: v = 4 }} = {self.object()}; n = v",
        )

    def way_spread(self) -> str:
        return self.pick(
            f"{self.array()} = [...{self.array()}, {self.value()}]",
            f"{self.object()} = {{ ...{self.object()}, {self.pick('y', 'z')}: {self.value()} }}",
            f"{self.array()}.push(...{self.array()}.slice(0, 3))",
        )

    def way_callback(self) -> str:
        body = self.pick("e", "e * 2", "({ x: e })", "i", "(n = e)", "[e]", f"{self.array()}[i]")
        method = self.pick("map", "filter", "forEach", "some")
        target = self.array() if method in ("map", "filter") else "count"
        return f"{target} = {self.array()}.{method}((e, i, all) => {body})"

    def way_change_inside(self) -> str:
        body = self.pick(
            f"(e.x = {self.value()})", "all.pop()", f"(all[0] = {self.value()})", f"({self.array()} = all)"
        )
        return f"{self.array()}.forEach((e, i, all) => {body})"

    def way_reduce(self) -> str:
        return (
            f"n = {self.array()}.reduce((p, q) => {self.pick('p + q', 'q', 'p')}{self.pick('', ', ' + self.value())})"
        )

    def way_loop(self) -> str:
        body = self.pick(
            "n = e",
            f"e.x = {self.value()}",
            "e.x = 's'",
            "e[0] = 's'",
            "log.push(e)",
            f"add({self.array()}, e)",
            "s += e",
        )
        return f"for (const e of {self.array()}) {{ {body} }}"

    def way_call(self) -> str:
        return self.pick(
            f"{self.array()} = give({self.array()})",
            f"{self.object()} = put({self.object()}, {self.value()})",
            f"{self.array()} = add({self.array()}, {self.value()})",
            f"n = give({self.value()})",
        )

    def way_order(self) -> str:
        order = self.pick("slice(1)", "reverse()", "sort()", "sort((p, q) => p - q)", "slice()")
        return f"{self.array()} = {self.array()}.{order}"

    def way_delete(self) -> str:
        return f"delete {self.object()}.{self.pick('x', 'y')}"

    def way_captured(self) -> str:
        return self.pick(
            f"const get = () => {self.array()}; {self.array()} = get()",
            f"const set = () => {{ n = {self.object()}.x }}; set()",
        )

    def way_iterate(self) -> str:
        return f"for (const [i, e] of {self.array()}.entries()) {{ n = e; if (i > 3) break }}"

    # -- ways that mix them, or hand them to what is not followed --

    def both(self) -> tuple[str, str]:
        return self.pick(*ARRAYS, *OBJECTS), self.pick(*ARRAYS, *OBJECTS, f"({self.value()})")

    def wild_assign(self) -> str:
        one, other = self.both()
        return self.pick(f"{one} = {other}", f"any = {other}; {one} = any")

    def wild_closure(self) -> str:
        one, other = self.both()
        return self.pick(
            f"const set = (v) => {{ {one} = v }}; set({other})",
            f"[(v) => {{ {one} = v }}][0]({other})",
            f"{one} = ((v) => v)({other})",
            f"any = (v) => {{ v.x = 'w'; v[0] = 'w' }}; any({one})",
        )

    def wild_method(self) -> str:
        one, other = self.both()
        return self.pick(
            f"const o = {{ m: (v) => {{ {one} = v }} }}; o.m({other})",
            f"const o = {{ push: (v) => {{ {one} = v }} }}; o.push({other})",
            f"const o = {{ map: (f) => f({other}) }}; {one} = o.map((v) => v)",
            f"any = [{other}, 's']; n = any.map((v) => v)[1]",
        )

    def wild_builtin(self) -> str:
        one, other = self.both()
        return self.pick(
            f"Object.assign({one}, {other}, {{ x: 's' }})",
            f"{one} = Object.values({other})",
            f"table.set(1, {one}); table.get(1).x = 's'",
            f"table.set(1, {one}); table.get(1)[0] = 's'",
            f"{one} = {other}.concat(['s'])",
            f"{one} = Array.from({other}, (v) => 's')",
            f"{one} = [{other}, ['s']].flat()",
            f"{one}.splice(0, 1, 's')",
            f"{one} = Object.keys({other})",
            f"{one} = Object.entries({other})",
            f"{one}.fill('s')",
            f"{one} = `a,b`.split(',')",
            f"{one} = structuredClone({other})",
            f"{one} = JSON.parse('[\"s\"]')",
        )

    def wild_computed(self) -> str:
        one, other = self.both()
        key = self.pick("'x'", "['x', 'y'][count % 2]", "0", "'0'")
        return self.pick(f"{one}[{key}] = {other}", f"{one}[{key}] = 's'", f"n = {one}[{key}]", f"delete {one}[{key}]")

    def wild_throw(self) -> str:
        one, other = self.both()
        return self.pick(
            f"try {{ throw {other} }} catch (e) {{ {one} = e }}",
            f"try {{ throw {one} }} catch (e) {{ e.x = 's'; e[0] = 's' }}",
        )

    def wild_await(self) -> str:
        one, other = self.both()
        return self.pick(
            f"{one} = await {other}",
            f"{one} = await later({other})",
            f"{one} = await Promise.all([{other}])",
            f"(await {one}).x = 's'",
            f"later({one}).then((v) => {{ v[0] = 's' }}); await 1",
        )

    def wild_unpack(self) -> str:
        one, other = self.both()
        return self.pick(
            f"[{one}] = {other}",
            f"({{ x: {one} }} = {other})",
            f"[...{one}] = {other}",
            f"{one} = [...{other}]",
            f"{one} = {{ ...{other} }}",
            f"for ({one} of [{other}, 's']) count++",
        )

    def wild_default(self) -> str:
        one, other = self.both()
        body = "{ v.x = 's'; v[0] = more[0]; return more }"
        return f"const f = (v = {one}, ...more) => {body}; {one} = f(undefined, {other})"


def compare(first: int, count: int) -> list[tuple[int, str, str]]:
    """(seed, result here, result in Node) of every program that differs."""
    sources = [Source(seed).program() for seed in range(first, first + count)]
    return [(first + index, here, expected) for index, here, expected in differences(sources)]


def main() -> None:
    """Compare many programs; print the seeds that differ."""
    count, start = int(sys.argv[1]), int(sys.argv[2])
    found = 0
    for first in range(start, start + count, BATCH):
        for seed, result, expected in compare(first, min(BATCH, start + count - first)):
            found += 1
            print(f"seed {seed}\n  here {result[:300]}\n  node {expected[:300]}")
    print(f"{count} programs, {found} differences")


if __name__ == "__main__":
    main()
