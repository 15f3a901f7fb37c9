"""Algorithms in the flow language and in idiomatic Python, for bench_language.

Both sides compute the same value, which is compared. What has no counterpart in Python (awaits, combinators) stands
beside asyncio.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple


class Workload(NamedTuple):
    """One algorithm in both languages."""

    name: str
    operations: int  #: What one run counts as.
    aim: float | None  #: Ratio aimed at; None when it is only reported.
    argument: int  #: `inputs.n`.
    flow: str  #: Body of the workflow, with helpers before it after a line of three dashes.
    python: Callable[[int], Any]


def python_arith(n: int) -> int:
    s = 0
    for i in range(n):
        s = (s + i * 2) % 1000003
    return s


def python_fib(n: int) -> int:
    return n if n < 2 else python_fib(n - 1) + python_fib(n - 2)


def python_pipeline(n: int) -> int:
    array = []
    for i in range(n):
        array.append(i)  # noqa: PERF402 - the loop is the workload
    doubled = [x * 2 for x in array]
    kept = [x for x in doubled if x % 3 == 0]
    return reduce(lambda a, b: a + b, kept, 0)


def python_properties(n: int) -> float:
    points = [{"x": i, "y": i * 2} for i in range(n)]
    total = 0
    for p in points:
        total += p["x"] * p["y"]
        p["z"] = p["x"] + 1
    for p in points:
        total -= p["z"]
    return total


def python_strings(n: int) -> str:
    s = ""
    for i in range(n):
        s += "item " + str(i % 100) + ", "
    return s


def python_indexing(n: int) -> int:
    array = [i % 7 for i in range(n)]
    total = 0
    for i in range(len(array)):
        total += array[i]
    return total


def python_closures(n: int) -> int:
    def counter() -> Callable[[], int]:
        count = 0

        def increment() -> int:
            nonlocal count
            count += 1
            return count

        return increment

    increment = counter()
    last = 0
    for _ in range(n):
        last = increment()
    return last


def python_branches(n: int) -> int:
    longest = 0
    for start in range(1, n):
        steps, value = 0, start
        while value != 1:
            value = value // 2 if value % 2 == 0 else 3 * value + 1
            steps += 1
        if steps > longest:
            longest = steps
    return longest


def python_objects(n: int) -> int:
    def move(point: dict[str, int], by: int) -> dict[str, int]:
        return {"x": point["x"] + by, "y": point["y"] - by}

    point = {"x": 0, "y": n}
    for _ in range(n):
        point = move(point, 1)
    return point["x"] - point["y"]


def python_text(n: int) -> int:
    total = 0
    for i in range(n):
        line = f" order {i % 50};Berlin "
        name, city = line.strip().split(";")
        if name.startswith("order") and "lin" in city:
            total += len(city.upper()) + name.find("r")
    return total


def python_template(n: int) -> int:
    total = 0
    for i in range(n):
        total += len(f"/orders/{i % 90}/items/{i % 7}?page={i % 3}")
    return total


def python_destructuring(n: int) -> int:
    total = 0
    for i in range(n):
        pair = [i, 2]
        a, b = pair
        point = {"x": a, "y": b}
        x, y = point["x"], point["y"]
        total += x + y
    return total


def python_spread(n: int) -> int:
    base = {"a": 1, "b": 2}
    total = 0
    for i in range(n):
        copied = {**base, "c": i}
        items = [*base, "c"]
        total += copied["c"] + len(items)
    return total


def python_collections(n: int) -> int:
    counts: dict[int, int] = {}
    seen = set()
    for i in range(n):
        key = i % 100
        counts[key] = counts.get(key, 0) + 1
        if key not in seen:
            seen.add(key)
    total = 0
    for key, count in counts.items():
        total += key * count
    return total + len(seen)


def python_for_of(n: int) -> int:
    words = ["a", "bb", "ccc", "dddd"]
    total = 0
    for _ in range(n):
        for word in words:
            total += len(word)
    return total


_loop: list[asyncio.AbstractEventLoop] = []


def _run(coroutine: Any) -> Any:
    """The result of a coroutine on a loop that is kept, so that making one is not measured."""
    if not _loop:
        _loop.append(asyncio.new_event_loop())
    return _loop[0].run_until_complete(coroutine)


def python_await(n: int) -> int:
    async def double(x: int) -> int:
        return x * 2

    async def work() -> int:
        total = 0
        for i in range(n):
            total += await asyncio.create_task(double(i))
        return total

    return int(_run(work()))


def python_gather(n: int) -> int:
    async def double(x: int) -> int:
        return x * 2

    async def work() -> int:
        total = 0
        for _ in range(n):
            total += sum(await asyncio.gather(*[double(x) for x in range(100)]))
        return total

    return int(_run(work()))


ORDER = {
    "id": "o-1001", "customer": {"name": "Ada Lovelace", "city": "London", "vip": True}, "note": None,
    "items": [{"sku": f"sku-{k}", "quantity": k + 1, "price": 9.99 + k} for k in range(5)],
}  # fmt: skip


def python_json(n: int) -> int:
    text = json.dumps(ORDER)
    total = 0
    for _ in range(n):
        order = json.loads(text)
        total += len(json.dumps(order, separators=(",", ":")))
    return total


WORKLOADS = [
    Workload(
        "arith loop",
        200_000,
        1.6,
        200_000,
        "let s = 0; for (let i = 0; i < inputs.n; i++) { s = (s + i * 2) % 1000003 } return s",
        python_arith,
    ),
    Workload(
        "recursion: fib(22)",
        28_657 * 2 - 1,
        1.6,
        22,
        "function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }\n---\nreturn fib(inputs.n)",
        python_fib,
    ),
    Workload(
        "array pipeline",
        30_000 * 4,
        1.6,
        30_000,
        "const a = []; for (let i = 0; i < inputs.n; i++) a.push(i)\n"
        "return a.map(x => x * 2).filter(x => x % 3 === 0).reduce((a, b) => a + b, 0)",
        python_pipeline,
    ),
    Workload(
        "object properties",
        20_000 * 3,
        2.5,
        20_000,
        "const points = []; for (let i = 0; i < inputs.n; i++) points.push({x: i, y: i * 2})\n"
        "let total = 0; for (const p of points) { total += p.x * p.y; p.z = p.x + 1 }\n"
        "for (const p of points) total -= p.z\nreturn total",
        python_properties,
    ),
    Workload(
        "string building",
        3_000,
        2.5,
        3_000,
        "let s = ''; for (let i = 0; i < inputs.n; i++) { s += `item ${i % 100}, ` } return s",
        python_strings,
    ),
    Workload(
        "array indexing",
        50_000 * 2,
        None,
        50_000,
        "const a = []; for (let i = 0; i < inputs.n; i++) a.push(i % 7)\n"
        "let total = 0; for (let i = 0; i < a.length; i++) { total += a[i] } return total",
        python_indexing,
    ),
    Workload(
        "closures",
        50_000,
        None,
        50_000,
        "function counter() { let count = 0; return () => { count += 1; return count } }\n---\n"
        "const increment = counter(); let last = 0\n"
        "for (let i = 0; i < inputs.n; i++) { last = increment() } return last",
        python_closures,
    ),
    Workload(
        "branches: collatz",
        59_542,
        None,
        1_000,
        "let longest = 0\nfor (let start = 1; start < inputs.n; start++) {\n let steps = 0, value = start\n"
        " while (value !== 1) { value = value % 2 === 0 ? value / 2 : 3 * value + 1; steps++ }\n"
        " if (steps > longest) longest = steps\n}\nreturn longest",
        python_branches,
    ),
    Workload(
        "calls with objects",
        20_000,
        None,
        20_000,
        "function move(point, by) { return { x: point.x + by, y: point.y - by } }\n---\n"
        "let point = { x: 0, y: inputs.n }; for (let i = 0; i < inputs.n; i++) point = move(point, 1)\n"
        "return point.x - point.y",
        python_objects,
    ),
    Workload(
        "string methods",
        5_000 * 8,
        None,
        5_000,
        "let total = 0\nfor (let i = 0; i < inputs.n; i++) {\n const line = ` order ${i % 50};Berlin `\n"
        " const [name, city] = line.trim().split(';')\n"
        " if (name.startsWith('order') && city.includes('lin')) {\n"
        "  total += city.toUpperCase().length + name.indexOf('r')\n }\n"
        "}\nreturn total",
        python_text,
    ),
    Workload(
        "template literals",
        10_000,
        None,
        10_000,
        "let total = 0\nfor (let i = 0; i < inputs.n; i++) {\n"
        " total += `/orders/${i % 90}/items/${i % 7}?page=${i % 3}`.length\n}\nreturn total",
        python_template,
    ),
    Workload(
        "destructuring",
        10_000 * 2,
        None,
        10_000,
        "let total = 0\nfor (let i = 0; i < inputs.n; i++) {\n const pair = [i, 2], [a, b] = pair\n"
        " const point = { x: a, y: b }, { x, y } = point\n total += x + y\n}\nreturn total",
        python_destructuring,
    ),
    Workload(
        "spread",
        10_000 * 2,
        None,
        10_000,
        "const base = { a: 1, b: 2 }, keys = ['a', 'b']; let total = 0\n"
        "for (let i = 0; i < inputs.n; i++) {\n const copied = { ...base, c: i }, items = [...keys, 'c']\n"
        " total += copied.c + items.length\n}\nreturn total",
        python_spread,
    ),
    Workload(
        "Map and Set",
        10_000 * 3,
        None,
        10_000,
        "const counts = new Map(), seen = new Set()\nfor (let i = 0; i < inputs.n; i++) {\n const key = i % 100\n"
        " counts.set(key, (counts.get(key) ?? 0) + 1)\n if (!seen.has(key)) seen.add(key)\n}\n"
        "let total = 0; for (const [key, count] of counts) total += key * count\nreturn total + seen.size",
        python_collections,
    ),
    Workload(
        "for-of",
        5_000 * 4,
        None,
        5_000,
        "const words = ['a', 'bb', 'ccc', 'dddd']; let total = 0\n"
        "for (let i = 0; i < inputs.n; i++) { for (const word of words) total += word.length }\nreturn total",
        python_for_of,
    ),
    Workload(
        "async call and await",
        2_000,
        None,
        2_000,
        "async function double(x) { return x * 2 }\n---\n"
        "let total = 0; for (let i = 0; i < inputs.n; i++) total += await double(i)\nreturn total",
        python_await,
    ),
    Workload(
        "Promise.all of 100",
        20 * 100,
        None,
        20,
        "async function double(x) { return x * 2 }\n---\n"
        "const all = Array.from({ length: 100 }, (_, i) => i); let total = 0\n"
        "for (let i = 0; i < inputs.n; i++) {\n"
        " const doubled = await Promise.all(all.map(async x => double(x)))\n"
        " for (const value of doubled) total += value\n}\nreturn total",
        python_gather,
    ),
    Workload(
        "JSON of an order",
        200,
        None,
        200,
        f"const text = {json.dumps(json.dumps(ORDER))}; let total = 0\n"
        "for (let i = 0; i < inputs.n; i++) total += JSON.stringify(JSON.parse(text)).length\nreturn total",
        python_json,
    ),
]
