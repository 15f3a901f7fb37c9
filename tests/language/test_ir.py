"""The stored IR as data from outside: what the grammar does not allow is refused, and the format is pinned.

Damage is done to the IR of one program that uses most of the grammar. Each case names the first thing it breaks.
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rhythm import engine
from rhythm.language import ir, snapshot
from rhythm.language.codegen import load

SOURCE = """let total = 0
function add(a, b = 1, ...c) { total += a + b; return c }
workflow(ctx, {x, ...y}) {
  const seen = [1, ...add(2)]
  for (let i = 0; i < 3; i++) {
    const r = await task("echo", {i, ["k" + i]: `a${i}`, ...y})
    if (r === null) continue
    seen.push(() => i)
  }
  for (const s of seen) { if (s === 9) break }
  try { throw new Error("x") } catch (e) { seen?.push(e.message ?? y) } finally { delete y.z }
  const f = function g() { return g }
  let n = 0
  while (n < 3) { n++ }
  for (const k in y) { await sleep(n) }
  return [x, f, n, "k" in y, y instanceof Error, (n, x)]
}
"""
HASH = "4a3d817d3e7ea7b3d60c43a6aabb7e21b77fc5abec124c8790f80d8ac52585f3"

#: (format, version): when a format's fingerprint changes, its version must be bumped, and a line added here.
IR_FORMATS = {("988d2262d424e97f", 1)}
SNAPSHOT_FORMATS = {("c179f14948094eaf", 1)}

Program = dict[str, Any]


def compiled() -> Program:
    return copy.deepcopy(engine.compile_workflow(SOURCE, "sample.flow", "sample").ir)


def lists_of(data: Any, kind: str) -> Iterator[list[Any]]:
    """Every node of a kind."""
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, list) and item and item[0] == kind:
            yield item
        pending.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())


def node(program: Program, kind: str) -> list[Any]:
    return next(lists_of(program["functions"], kind))


def workflow(program: Program) -> dict[str, Any]:
    return next(function for function in program["functions"] if function["kind"] == "async")


def nest(expression: Any, depth: int) -> Any:
    for _ in range(depth):
        expression = ["unary", "!", expression]
    return expression


def nest_statements(depth: int) -> list[Any]:
    body: list[Any] = []
    for _ in range(depth):
        body = [["if", [[["true"], body]], [], 1]]
    return body


def set_path(*path: Any) -> Callable[[Program], Any]:
    """Sets the last of ``path`` where the others lead."""

    def damage(program: Program) -> None:
        target: Any = program
        for step in path[:-2]:
            target = target[step]
        target[path[-2]] = path[-1]

    return damage


def set_field(kind: str, field: int, value: Any) -> Callable[[Program], Any]:
    return lambda program: node(program, kind).__setitem__(field, value)


def replace(kind: str, value: Any) -> Callable[[Program], Any]:
    return lambda program: node(program, kind).__setitem__(slice(None), value)


def in_workflow(name: str, value: Any) -> Callable[[Program], Any]:
    return lambda program: workflow(program).__setitem__(name, value)


def body_of_workflow(*statements: Any) -> Callable[[Program], Any]:
    return lambda program: workflow(program)["body"].extend(statements)


LONG = "x" * ((1 << 20) + 1)
HOSTILE: dict[str, tuple[Callable[[Program], Any], str]] = {
    "version": (set_path("v", 2), "unknown IR version"),
    "version true": (set_path("v", True), "unknown IR version"),
    "version text": (set_path("v", "1"), "unknown IR version"),
    "extra key": (set_path("code", "import os"), "wrong keys in program"),
    "missing key": (lambda p: p.pop("globals"), "wrong keys in program"),
    "name number": (set_path("name", 5), "program name is not a string"),
    "name astral": (set_path("name", "\U0001f600"), "not in UTF-16 units"),
    "name long": (set_path("name", LONG), "program name is not a string"),
    "module": (set_path("module", 1), "the module is function 0"),
    "module false": (set_path("module", False), "the module is function 0"),
    "globals dict": (set_path("globals", {}), "globals is a list"),
    "globals unsorted": (set_path("globals", ["b", "a"]), "globals are sorted and unique"),
    "globals twice": (set_path("globals", ["a", "a"]), "globals are sorted and unique"),
    "globals number": (set_path("globals", [1]), "global is not a string"),
    "functions empty": (set_path("functions", []), "functions is a list with the module"),
    "functions many": (set_path("functions", [0] * 20_001), "functions is a list with the module"),
    "function list": (set_path("functions", 1, []), "a function is an object"),
    "function id": (set_path("functions", 1, "id", 2), "a function's id is its index"),
    "function id float": (set_path("functions", 1, "id", 1.0), "a function's id is its index"),
    "function kind": (set_path("functions", 1, "kind", "generator"), "a function is sync or async"),
    "function kind list": (set_path("functions", 1, "kind", []), "a function is sync or async"),
    "function key": (set_path("functions", 1, "code", 1), "wrong keys in function"),
    "module async": (set_path("functions", 0, "kind", "async"), "the module is sync"),
    "module rest": (set_path("functions", 0, "captures", [["self"]]), "the module is sync"),
    "slots": (set_path("functions", 1, "slots", "abc"), "slots is a list"),
    "slots many": (set_path("functions", 1, "slots", [""] * 100_001), "slots is a list"),
    "slot name": (set_path("functions", 1, "slots", 0, None), "slot name is not a string"),
    "params range": (set_path("functions", 1, "params", [99]), "params is not an index below"),
    "params negative": (set_path("functions", 1, "params", [-1]), "params is not an index below"),
    "params bool": (set_path("functions", 1, "params", [True]), "params is not an index below"),
    "params twice": (set_path("functions", 1, "params", [0, 0]), "params has duplicates"),
    "rest is param": (set_path("functions", 1, "rest", 0), "parameters share a slot"),
    "rest text": (set_path("functions", 1, "rest", "0"), "rest is not an index below"),
    "cells descending": (set_path("functions", 0, "cells", [1, 0]), "cells is not ascending"),
    "param in cell": (set_path("functions", 1, "cells", [0]), "a parameter or typed slot is a cell"),
    "labels": (set_path("functions", 1, "labels", -1), "labels is not an index"),
    "labels many": (set_path("functions", 1, "labels", 10**9), "labels is not an index"),
    "pos": (set_path("functions", 1, "pos", [1]), "a position is"),
    "pos float": (set_path("functions", 1, "pos", [1.5, 1]), "position is not an index"),
    "types": (set_path("functions", 1, "types", []), "types is an object"),
    "types key": (set_path("functions", 1, "types", {"numbers": []}), "wrong keys in types"),
    "types subset": (set_path("functions", 1, "types", {"numbers": [], "integers": [0]}), "integers are numbers"),
    "capture kind": (set_path("functions", 1, "captures", [["global", 0]]), "wrong capture"),
    "capture empty": (set_path("functions", 1, "captures", [[]]), "a capture is a list"),
    "capture plain": (
        lambda p: p["functions"][-1].__setitem__("captures", [["slot", 0]]),
        "a plain slot used as a cell slot",
    ),
    "capture range": (set_path("functions", 1, "captures", [["slot", 77]]), "slot is not an index below"),
    "sync awaits": (lambda p: p["functions"][1].__setitem__("awaits", workflow(p)["awaits"]), "a sync function awaits"),
    "await live range": (lambda p: workflow(p)["awaits"][0].__setitem__("live", [999]), "live is not an index below"),
    "await live order": (lambda p: workflow(p)["awaits"][0].__setitem__("live", [1, 0]), "live is not ascending"),
    "await text": (lambda p: workflow(p)["awaits"][0].__setitem__("text", None), "await text is not a string"),
    "await unused": (
        lambda p: workflow(p)["awaits"].append(workflow(p)["awaits"][0]),
        "an await of the table is missing",
    ),
    "await id": (set_field("await", 1, 55), "await id is not an index below"),
    "await twice": (body_of_workflow(["await", 0, None, ["null"], 1]), "an await id is used twice"),
    "await in for_of": (
        lambda p: node(p, "for_of")[5].append(["await", 0, None, ["null"], 1]),
        "an await inside for_of|used twice",
    ),
    "never created": (set_field("closure", 1, 1), "never created|two functions|later one|an index below"),
    "created by itself": (
        lambda p: p["functions"][1]["body"].append(["expr", ["closure", 1], 1]),
        "created by a later",
    ),
    "created by later": (body_of_workflow(["expr", ["closure", 1], 1]), "created by a later one"),
    "statement kind": (body_of_workflow(["exec", "import os", 1]), "unknown kind 'exec'"),
    "statement expression": (body_of_workflow(["number", 1.0]), "unknown kind 'number'"),
    "statement empty": (body_of_workflow([]), "a node is a list with a kind"),
    "statement text": (body_of_workflow("return"), "a node is a list with a kind"),
    "statement number": (body_of_workflow(7), "a node is a list with a kind"),
    "statement kind list": (body_of_workflow([["expr"], 1]), "a node is a list with a kind"),
    "body dict": (in_workflow("body", {}), "a body is a list"),
    "arity less": (body_of_workflow(["return", ["null"]]), "return has the wrong number of fields"),
    "arity more": (body_of_workflow(["return", ["null"], 1, 2]), "return has the wrong number of fields"),
    "expression kind": (replace("undefined", ["eval", "1"]), "unknown kind 'eval'"),
    "expression statement": (replace("undefined", ["return", ["null"], 1]), "unknown kind 'return'"),
    "expression none": (body_of_workflow(["expr", None, 1]), "a node is a list with a kind"),
    "await as expression": (body_of_workflow(["expr", ["await", 0, None, ["null"], 1], 1]), "unknown kind 'await'"),
    "number int": (set_field("number", 1, 1), "a number is a finite float"),
    "number bool": (set_field("number", 1, True), "a number is a finite float"),
    "number text": (set_field("number", 1, "1"), "a number is a finite float"),
    "number nan": (set_field("number", 1, float("nan")), "a number is a finite float"),
    "number inf": (set_field("number", 1, float("inf")), "a number is a finite float"),
    "string number": (set_field("string", 1, 5), "name is not a string"),
    "string long": (set_field("string", 1, LONG), "name is not a string"),
    "string astral": (set_field("string", 1, "\U0001f600"), "not in UTF-16 units"),
    "slot range": (body_of_workflow(["expr", ["slot", 99], 1]), "slot is not an index below"),
    "slot negative": (body_of_workflow(["expr", ["slot", -1], 1]), "slot is not an index below"),
    "slot text": (body_of_workflow(["expr", ["slot", "ctx"], 1]), "slot is not an index below"),
    "slot of cell": (lambda p: body_of_workflow(["expr", ["slot", workflow(p)["cells"][0]], 1])(p), "a cell slot used"),
    "cell of slot": (body_of_workflow(["expr", ["cell", 0], 1]), "a plain slot used as a cell slot"),
    "capture index": (body_of_workflow(["expr", ["capture", 5], 1]), "capture is not an index below"),
    "global unlisted": (body_of_workflow(["expr", ["global", "__import__"], 1]), "a global is not listed"),
    "global list": (body_of_workflow(["expr", ["global", []], 1]), "a global is not listed"),
    "binary operator": (set_field("binary", 1, "and __import__('os') or"), "unknown operator"),
    "unary operator": (set_field("unary", 1, "await"), "unknown operator"),
    "operator list": (set_field("binary", 1, ["+"]), "unknown operator"),
    "var kind": (body_of_workflow(["set", ["global", "x"], ["null"], 1]), "wrong variable"),
    "var text": (body_of_workflow(["set", "x", ["null"], 1]), "wrong variable"),
    "var long": (body_of_workflow(["set", ["slot", 0, 1], ["null"], 1]), "wrong variable"),
    "position": (body_of_workflow(["expr", ["null"], -1]), "position is not an index"),
    "position text": (body_of_workflow(["expr", ["null"], "1"]), "position is not an index"),
    "position huge": (body_of_workflow(["expr", ["null"], 1 << 70]), "position is not an index"),
    "arguments": (body_of_workflow(["expr", ["array", {}, 1], 1]), "arguments is not a list"),
    "argument text": (body_of_workflow(["expr", ["array", ["x"], 1], 1]), "a node is a list with a kind"),
    "spread arity": (body_of_workflow(["expr", ["array", [["spread", ["null"]]], 1], 1]), "wrong spread"),
    "spread alone": (body_of_workflow(["expr", ["spread", ["null"], None], 1]), "unknown kind 'spread'"),
    "entry": (body_of_workflow(["expr", ["object", [["getter", "a", ["null"]]], 1], 1]), "wrong object entry"),
    "entry name": (body_of_workflow(["expr", ["object", [["property", 1, ["null"]]], 1], 1]), "property name is not"),
    "part": (body_of_workflow(["expr", ["template", [5]], 1]), "a node is a list with a kind"),
    "text field": (set_field("check_object", 2, 5), "text is not a string"),
    "arms empty": (body_of_workflow(["if", [], [], 1]), "an if has an arm"),
    "arm": (body_of_workflow(["if", [[["true"]]], [], 1]), "an arm is a test and a body"),
    "label range": (body_of_workflow(["block", 99, []]), "label is not an index below"),
    "label twice": (body_of_workflow(["block", 0, []]), "a label is defined twice"),
    "break outside": (body_of_workflow(["break", 0]), "break without its label"),
    "break text": (body_of_workflow(["break", "0"]), "break without its label"),
    "continue outside": (body_of_workflow(["continue", 0]), "continue without its loop"),
    "continue block": (
        lambda p: node(p, "block")[2].append(["continue", node(p, "block")[1]]),
        "continue without its loop",
    ),
    "continue in update": (
        lambda p: node(p, "loop")[4].append(["continue", node(p, "loop")[1]]),
        "continue without its loop",
    ),
    "deep expression": (body_of_workflow(["expr", nest(["null"], 60), 1]), "expressions are nested too deeply"),
    "very deep expression": (
        body_of_workflow(["expr", nest(["null"], 50_000), 1]),
        "expressions are nested too deeply",
    ),
    "deep statements": (body_of_workflow(*nest_statements(ir.STATEMENT_DEPTH_MAX)), "statements are nested too deeply"),
    "very deep statements": (body_of_workflow(*nest_statements(50_000)), "statements are nested too deeply"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ir_is_refused(name: str) -> None:
    damage, message = HOSTILE[name]
    program = compiled()
    ir.validate(program)

    damage(program)

    with pytest.raises(ir.IRError, match=message):
        ir.validate(program)


@pytest.mark.parametrize("data", [None, 5, "x", [], {}, {"v": 1}, True, [{}]])
def test_what_is_no_program_is_refused(data: Any) -> None:
    with pytest.raises(ir.IRError):
        ir.validate(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"null", b"[]", b"\xff\xfe", b"{", b"NaN", b"[" * 100_000, b'{"v":' * 50_000, b'"\\ud800"', b"1e999"],
)
def test_bytes_that_are_no_program_are_refused(data: bytes) -> None:
    with pytest.raises(ir.IRError):
        ir.from_bytes(data)


def test_too_many_bytes_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ir, "BYTES_MAX", 10)

    with pytest.raises(ir.IRError, match="too large"):
        ir.from_bytes(ir.to_bytes(compiled()))


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ir, "NODES_MAX", 20)

    with pytest.raises(ir.IRError, match="the program is too large"):
        ir.validate(compiled())


def test_random_damage_is_refused_or_harmless() -> None:
    """Whatever the validation lets through, the generator turns into Python without an exception of another kind."""
    rng = random.Random(3)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        2,
        99,
        1.5,
        "",
        "x",
        [],
        {},
        ["null"],
        ["slot", 0],
        ["cell", 0],
        ["self"],
    ]
    refused = 0
    for _ in range(400):
        program = compiled()
        places: list[tuple[Any, Any]] = []
        pending: list[Any] = [program]
        while pending:
            item = pending.pop()
            keys = list(item) if isinstance(item, dict) else list(range(len(item)))
            places += [(item, key) for key in keys]
            pending += [item[key] for key in keys if isinstance(item[key], dict | list)]
        holder, key = rng.choice(places)
        holder[key] = rng.choice(values)
        try:
            ir.validate(program)
        except ir.IRError:
            refused += 1
            continue
        load(program)

    assert refused > 200


def test_bytes_survive_the_way_there_and_back() -> None:
    program = compiled()

    assert program == ir.from_bytes(ir.to_bytes(program))
    assert ir.to_bytes(program) == ir.to_bytes(ir.from_bytes(ir.to_bytes(program)))


def test_surrogates_survive_the_way_there_and_back() -> None:
    source = 'workflow() { return ["\U0001f600", "\\ud83d", "\\ude00\\ud83d", {"\U0001f600": 1}] }'
    program = engine.compile_workflow(source, "s.flow", "s").ir

    assert program == ir.from_bytes(ir.to_bytes(program))


def test_bytes_that_do_not_match_their_hash_are_refused() -> None:
    definition = engine.compile_workflow("workflow() { return 41 }", "s.flow", "s")

    with pytest.raises(ir.IRError, match="does not match its hash"):
        engine.load_program(definition.ir_bytes.replace(b"41.0", b"42.0"), definition.hash)


def test_the_hash_is_that_of_the_bytes_and_of_the_code() -> None:
    one, two = (engine.compile_workflow(SOURCE, f"{name}.flow", "sample") for name in ("a", "b"))

    assert one.hash == two.hash == ir.content_hash(one.ir)
    assert one.hash != engine.compile_workflow(SOURCE.replace("n < 3", "n < 4"), "a.flow", "sample").hash


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_hash_is_the_same_in_every_process(seed: str) -> None:
    script = (
        "import sys; from rhythm.engine import compile_workflow;"
        "print(compile_workflow(sys.stdin.read(), 'sample.flow', 'sample').hash)"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=SOURCE,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )

    assert engine.compile_workflow(SOURCE, "sample.flow", "sample").hash == done.stdout.strip()


def test_the_ir_of_a_program_is_pinned() -> None:
    """Fails when the lowering changes. Executions keep the IR they began with, so a change is allowed: say so here."""
    assert engine.compile_workflow(SOURCE, "sample.flow", "sample").hash == HASH


def test_the_format_of_the_ir_is_pinned() -> None:
    """Fails when the tables change: bump ir.VERSION, keep reading the old version, add a line to IR_FORMATS."""
    assert (ir.FORMAT, ir.VERSION) in IR_FORMATS
    assert len({version for _, version in IR_FORMATS}) == len(IR_FORMATS)


def test_the_parts_of_a_program_are_those_of_its_version() -> None:
    """The tables above are of nodes; this is what holds them. The same rule: a change bumps ir.VERSION."""
    program = compiled()
    functions = program["functions"]
    parts = "id name kind params rest slots cells captures labels awaits body pos".split()

    assert ir.VERSION == program["v"] == 1
    assert ["v", "name", "functions", "module", "globals"] == list(program)
    assert [parts] * len(functions) == [list(function) for function in functions]
    assert {("live", "pos", "text")} == {tuple(wait) for function in functions for wait in function["awaits"]}


def test_the_format_of_snapshots_is_pinned() -> None:
    """Fails when the tables change: bump snapshot.VERSION, keep reading the old version, add a line and samples."""
    assert (snapshot.FORMAT, snapshot.VERSION) in SNAPSHOT_FORMATS
    assert len({version for _, version in SNAPSHOT_FORMATS}) == len(SNAPSHOT_FORMATS)


def test_tags_of_snapshots_are_never_reused() -> None:
    names = (
        "OBJECT ARRAY CELL CLOSURE FRAME PROMISE THEN ADOPT COMBINATOR ELEMENT RESOLVERS RESOLVING FINALLY PASS MAP SET"
    )
    names += " ITERATOR DATE ERROR BUILTIN HOLES"

    assert {name: number for number, name in enumerate(names.split())} == {
        name: getattr(snapshot, name) for name in names.split()
    }
    assert set(snapshot.TAGS) == set(range(len(names.split())))


def test_the_ir_is_plain_ascii_json() -> None:
    data = ir.to_bytes(compiled())

    assert data.isascii()
    assert json.loads(data) == compiled()
