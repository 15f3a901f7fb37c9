"""Random graphs of promises: who settles before whom is the same here, through snapshots, and under Node.

Each promise of a program is made from earlier ones: by an executor, an async function, a thenable that keeps or breaks
its promises, a reaction, or a combinator. Every step writes to one log, which is the result.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest

from rhythm.testing import evaluate
from tests.language.recorded import BEGIN_SECONDS, run_in_node

PROGRAMS = 80
PROMISES_MAX = 12
TICKS = 25  #: that are counted beside the promises, so that every tick of difference shows
COMBINATORS = ("all", "allSettled", "any", "race")


class Graph:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0  # promises so far

    def earlier(self) -> str:
        return f"p{self.random.randrange(self.count)}" if self.count else "Promise.resolve(0)"

    def value(self) -> str:
        number, one, other = self.count, self.earlier(), self.earlier()
        return self.random.choice([
            str(number),
            one,
            one,
            f"{{ then(a, b) {{ log.push('then {number}'); a({one}); b(1) }} }}",
            f"{{ then(a, b) {{ b('no {number}'); throw 1 }} }}",
            f"(async () => {{ log.push('in {number}'); await {one}; return {other} }})()",
        ])  # fmt: skip

    def reaction(self) -> str:
        number, value = self.count, self.value()
        return self.random.choice([
            f"(v) => {{ log.push('a{number} ' + typeof v) }}",
            f"() => ({value})",
            f"() => {{ log.push('b{number}'); throw 'x{number}' }}",
            f"async () => {{ log.push('c{number}'); await {value}; log.push('d{number}'); return {self.value()} }}",
            f"() => new Promise((r) => {{ log.push('e{number}'); r({value}) }})",
            f"() => {{ log.push('f{number}'); return {value} }}",
            "undefined",
        ])  # fmt: skip

    def promise(self) -> str:
        number, value, other = self.count, self.value(), self.value()
        method = self.random.choice(["then", "catch", "finally"])
        combinator = self.random.choice(COMBINATORS)
        return self.random.choice([
            f"Promise.resolve({value})",
            f"Promise.reject({number})",
            f"new Promise((a, b) => {{ log.push('g{number}'); a({value}); b(1); throw 2 }})",
            f"(async () => ({value}))()",
            f"(async () => await {value})()",
            f"(async (a = {value}) => {{ log.push('h{number}'); return a }})()",
            f"(async () => {{ try {{ await {value}; return {other} }} catch {{ log.push('i{number}') }}"
            f" finally {{ await {self.value()}; log.push('j{number}') }} }})()",
            f"(async () => {{ for (const v of [{value}, {other}]) {{ await v; log.push('k{number}') }} }})()",
            f"{self.earlier()}.then({self.reaction()}, {self.reaction()})",
            f"{self.earlier()}.{method}({self.reaction()})",
            f"{self.earlier()}.{method}({self.reaction()})",
            f"Promise.{combinator}([{value}, {other}])",
            f"Promise.{combinator}([{self.earlier()}, {value}]).then((v) => {{ log.push('l{number}') }})",
            f"sleep({self.random.randrange(3)}).then({self.reaction()})",
        ])  # fmt: skip

    def program(self) -> str:
        lines = ["const log = []"]
        for _ in range(self.random.randrange(3, PROMISES_MAX)):
            lines.append(f"const p{self.count} = {self.promise()}")
            self.count += 1
        lines += [
            f"p{number}.then(() => log.push('ok {number}'), () => log.push('failed {number}'))"
            for number in range(self.count)
        ]
        lines += [f"for (let i = 0; i < {TICKS}; i++) {{ await null; log.push(i) }}", "await sleep(10)", "return log"]
        return "async function workflow() {\n" + "\n".join(lines) + "\n}"


SOURCES = [Graph(seed).program() for seed in range(PROGRAMS)]


@functools.cache
def node_results() -> list[dict[str, Any]]:
    return run_in_node([{"source": source, "signals": []} for source in SOURCES])


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_promises_settle_in_the_order_of_node(seed: int) -> None:
    expected = node_results()[seed]["value"]

    assert expected == evaluate(SOURCES[seed], clock=BEGIN_SECONDS).result
    assert expected == evaluate(SOURCES[seed], clock=BEGIN_SECONDS, snapshot="await").result
