"""Snapshots: the same bytes again, hostile bytes, other definitions, and samples of every version ever written.

A sample in ``snapshots/`` is four files: the source, the IR it was compiled to, the bytes, and what must come out. Old
samples are never changed. ``python -m tests.language.test_snapshot`` writes those that are missing.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rhythm import engine, inspection
from rhythm.errors import SnapshotError
from rhythm.language import snapshot as snapshots
from rhythm.language.promises import Realm
from tests.support.activations import Driver, body, program_of, result_of

FOLDER = Path(__file__).parent / "snapshots"

#: name -> source, suspended at its first task (operation 1, unless said otherwise), and its result for output 7.
STATES: dict[str, tuple[str, Any]] = {
    "values": (
        body("""
            const text = "a\\u0000\\ud83d\\ude00\\ud800 \u00e9", plain = "\u00fc"
            const all = [1, -0, 0.1, NaN, -Infinity, 1e300, true, null, undefined, text, { [text]: plain, "": {} }, []]
            const r = await task("x")
            const shown = all.map(v => typeof v === "number" ? String(v) : v === undefined ? "u" : v)
            return [shown, Object.is(all[1], -0), r]
        """),
        [["1", "0", "0.1", "NaN", "-Infinity", "1e+300", True, None, "u", "a\0\U0001f600\ud800 \u00e9",
          {"a\0\U0001f600\ud800 \u00e9": "\u00fc", "": {}}, []], True, 7],
    ),
    "identity": (
        body("""
            const shared = { n: 1 }, ring = []; ring.push(ring, shared)
            const data = { a: shared, b: shared, ring, self: null }; data.self = data
            let deep = 0; for (let i = 0; i < 90; i++) deep = i % 2 ? [deep] : { deep }
            const r = await task("x")
            data.a.n += r; let levels = 0
            while (typeof deep === "object") { deep = Array.isArray(deep) ? deep[0] : deep.deep; levels++ }
            return [data.b.n, data.self === data, ring[0] === ring, ring[1] === shared, levels]
        """),
        [8, True, True, True, 90],
    ),
    "closures": (
        """
        let total = 0
        function bump(n) { total += n; return total }
        workflow() {
          const steps = [], named = function self(n) { return n ? [self === named, ...self(n - 1)] : [] }
          for (let i = 0; i < 3; i++) { steps.push(() => bump(i)); steps.push(() => { i += 10; return i }) }
          const late = () => later
          const r = await task("x")
          let later = r
          return [steps.map(f => f()), steps.map(f => f()), total, named(2), late()]
        }
        """,
        [[0, 10, 1, 11, 3, 12], [13, 20, 24, 21, 36, 22], 36, [True, True], 7],
    ),
    "collections": (
        body("""
            const key = { k: 1 }, map = new Map([[key, "object"], [NaN, "nan"], ["s", new Set([1, "1", key])]])
            const seen = [], from = map.entries(), letters = "a\\u{1f600}b"[Symbol_iterator()] ?? null
            from.next()
            for (const [k, v] of map) {
              if (seen.length === 0) { map.delete(NaN); await task("x") }
              seen.push(k === key ? "key" : k, v)
            }
            for (const n of [3, 4]) { seen.push(n) }
            const rest = [...from]
            return [seen.map(v => v instanceof Set ? [...v].map(x => x === key ? "key" : x) : v), rest.length, letters]
            function Symbol_iterator() { return 1 }
        """),
        [["key", "object", "s", [1, "1", "key"], 3, 4], 1, "\ud83d"],
    ),
    "iterators": (
        body("""
            const seen = []
            for (const c of "a\\u{1f600}b") { seen.push(c); if (c !== "b") await task("x") }
            for (const [i, v] of ["p", "q"].entries()) { seen.push(i, v); await task("x") }
            for (const v of new Set([5, 6])) { seen.push(v); await task("x") }
            for (const k in { m: 1, n: 2 }) { seen.push(k); await task("x") }
            for (const v of Array(2)) { seen.push(v === undefined); await task("x") }
            return seen
        """),
        ["a", "\U0001f600", "b", 0, "p", 1, "q", 5, 6, "m", "n", True, True],
    ),
    "combinators": (
        body("""
            const done = Promise.resolve("done"), broken = Promise.reject(new Error("broken")).catch(e => e.message)
            const t = task("x"), never = new Promise(() => {})
            const all = Promise.all([done, t, broken, 3])
            const settled = Promise.allSettled([t, Promise.reject(new RangeError("r")), 1])
            const any = Promise.any([Promise.reject(1), t]), race = Promise.race([never, t])
            const none = Promise.any([Promise.reject(1), t.then(() => { throw 2 })]).catch(e => [e.name, e.errors])
            const got = [await all, await settled, await any, await race, await none]
            return got.map(v => v.map?.(s => s.reason ? s.reason.message : s) ?? v)
        """),
        [["done", 7, "broken", 3], [{"status": "fulfilled", "value": 7}, "r", {"status": "fulfilled", "value": 1}],
         7, 7, ["AggregateError", [1, 2]]],
    ),
    "chains": (
        body("""
            const log = []
            let open, refuse
            const manual = new Promise((resolve, reject) => { open = resolve; refuse = reject })
            async function inner() { return task("x") }
            async function outer() { try { return await inner() } finally { await null; log.push("finally") } }
            const chain = outer().then(v => v + 1).finally(() => { log.push("end") }).then(undefined, () => 0)
            const thenable = { then(resolve) { task("x").then(resolve) } }
            const waiting = (async () => await manual)()
            const both = await Promise.all([chain, thenable])
            open(both[0]); refuse(9)
            return [both, await waiting, log]
        """),
        [[8, 7], 8, ["finally", "end"]],
    ),
    "objects": (
        body("""
            const error = new TypeError("bad", { cause: new Error("root") }); error.extra = [1]
            const many = new AggregateError([error, 2], "many"), date = new Date(5), never = new Date(NaN)
            const natives = [Math.max, task, JSON.stringify, Error, "".trim, Promise.resolve, Number, console]
            const r = await task("x")
            return [error instanceof TypeError, error.cause.message, error.extra, Object.keys(error),
                    many.errors[0] === error, date.toISOString(), String(never),
                    natives[0](1, r), natives[3] === Error, natives[2]([r]),
                    error.stack.split("\\n")[0], natives[1] === task]
        """),
        [True, "root", [1], ["extra"], True, "1970-01-01T00:00:00.005Z", "Invalid Date", 7, True, "[7]",
         "TypeError: bad", True],
    ),
    "handlers": (
        body("""
            const log = []
            outer: for (const n of [1, 2, 3]) {
              try {
                try { if (n === 1) continue outer; if (n === 2) throw new Error("two"); break outer }
                finally { log.push(await task("x"), n) }
              } catch (e) { log.push(e.message, await task("x")) }
            }
            return log
        """),
        [7, 1, 7, 2, "two", 7, 7, 3],
    ),
    "waits": (
        body("""
            const go = signal("go"), timed = signal("never", { timeout: "1h" }).catch(e => e.name), nap = sleep("1d")
            const t = task("x", { a: 1 }, { onCancel: "abandon" }), c = child("sub", {})
            const r = await Promise.race([t, nap, go])
            return [r, cancel(nap), cancel(timed), ctx.cancelled, inputs]
        """),
        None,
    ),
}  # fmt: skip
STATES["collections"] = (
    STATES["collections"][0]
    .replace('"a\\u{1f600}b"[Symbol_iterator()] ?? null', '"a\\u{1f600}b"[1]')
    .replace("            function Symbol_iterator() { return 1 }\n", ""),
    STATES["collections"][1],
)


def suspended(name: str) -> tuple[Driver, bytes]:
    driver = Driver(STATES[name][0])
    activation = driver.start({"in": 1})
    assert activation.snapshot is not None
    return driver, activation.snapshot


def fresh_realm() -> Realm:
    return Realm(now_ms=lambda: 0.0, random=lambda: 0.0)


def finish(driver: Driver, output: Any = 7) -> Any:
    """Completes the oldest outstanding task again and again."""
    while True:
        assert driver.snapshot is not None
        realm = fresh_realm()
        snapshots.decode(driver.program, driver.snapshot, realm)
        number = next(o.number for o in realm.operations.values() if o.kind == "task")
        activation = driver.completed(number, output)
        if activation.outcome is not None:
            return result_of(activation)


@pytest.mark.parametrize("name", STATES)
def test_decoding_and_encoding_gives_the_same_bytes(name: str) -> None:
    driver, data = suspended(name)
    realm = fresh_realm()
    _, root = snapshots.decode(driver.program, data, realm)

    assert data == snapshots.encode(realm, root)


@pytest.mark.parametrize("name", [name for name in STATES if name != "waits"])
def test_the_state_survives(name: str) -> None:
    driver, _ = suspended(name)

    assert STATES[name][1] == finish(driver)


def test_waits_survive() -> None:
    driver, _ = suspended("waits")
    activation = driver.completed(4, "done")

    assert ["done", True, False, False, {"in": 1}] == result_of(activation)


@pytest.mark.parametrize("name", STATES)
def test_every_prefix_is_refused(name: str) -> None:
    driver, data = suspended(name)

    for end in range(len(data)):
        with pytest.raises(SnapshotError):
            snapshots.decode(driver.program, data[:end], fresh_realm())


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_byte_is_refused_or_harmless(name: str) -> None:
    driver, data = suspended(name)
    rng = random.Random(name)
    refused = 0
    for place in range(len(data)):
        for value in (data[place] ^ 1, data[place] ^ 0x80, rng.randrange(256)):
            damaged = data[:place] + bytes([value]) + data[place + 1 :]
            realm = fresh_realm()
            try:
                _, root = snapshots.decode(driver.program, damaged, realm)
                snapshots.encode(realm, root)
            except SnapshotError:
                refused += 1

    assert refused > len(data) // 3


def fields_of(name: str) -> tuple[Driver, list[Any]]:
    driver, data = suspended(name)
    return driver, msgspec.msgpack.decode(data)


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_field_is_refused_or_harmless(name: str) -> None:
    """Like the test above, but the msgpack stays well-formed: every number, text and list in turn becomes another."""
    driver, _ = suspended(name)
    values: list[Any] = [
        None,
        -3,
        -2,
        -1,
        0,
        1,
        2,
        10**6,
        2**63,
        0.5,
        "",
        "x",
        b"\xff",
        [],
        {},
        True,
        [0],
        [3, 0, []],
        {"a": 0},
    ]
    rng = random.Random(name)
    _, fields = fields_of(name)
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [fields]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else list(range(len(item)))
        places += [(item, key) for key in keys]
        pending += [item[key] for key in keys if isinstance(item[key], dict | list)]
    for holder, key in places:
        before = holder[key]
        for value in rng.sample(values, 6):
            holder[key] = value
            realm = fresh_realm()
            try:
                _, root = snapshots.decode(driver.program, msgspec.msgpack.encode(fields), realm)
                snapshots.encode(realm, root)
            except SnapshotError:
                pass
        holder[key] = before


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x90", b"\x01", b"\x91\x02", b"\x91\xa11", b"\x91" * 5_000, b"\xdd\xff\xff\xff\xff"]
)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        snapshots.decode(program_of(body("return 1")), data, fresh_realm())


@pytest.mark.parametrize(
    ("name", "tag", "field", "value"),
    [
        ("chains", snapshots.THEN, 1, 1.0),
        ("chains", snapshots.THEN, 2, "x"),
        ("chains", snapshots.FINALLY, 1, None),
        ("combinators", snapshots.ELEMENT, 2, 9),
        ("combinators", snapshots.ELEMENT, 2, -1),
        ("combinators", snapshots.COMBINATOR, 1, "most"),
        ("combinators", snapshots.PROMISE, 1, 3),
        ("combinators", snapshots.FRAME, 2, 99),
        ("combinators", snapshots.FRAME, 1, 0),
        ("collections", snapshots.ITERATOR, 1, "file"),
        ("objects", snapshots.BUILTIN, 1, "eval"),
        ("objects", snapshots.ERROR, 1, "SystemExit"),
        ("closures", snapshots.CLOSURE, 1, 0),
        ("closures", snapshots.CLOSURE, 1, 99),
        ("closures", snapshots.CLOSURE, 2, []),
    ],
)
def test_an_entry_that_cannot_be_is_refused(name: str, tag: int, field: int, value: Any) -> None:
    driver, fields = fields_of(name)
    entry = next(entry for entry in fields[8] if entry[0] == tag)
    entry[field] = value

    with pytest.raises(SnapshotError):
        snapshots.decode(driver.program, msgspec.msgpack.encode(fields), fresh_realm())


def test_a_snapshot_of_another_definition_is_refused() -> None:
    _, data = suspended("values")

    with pytest.raises(SnapshotError, match="another definition"):
        snapshots.decode(program_of(body("await task('x')")), data, fresh_realm())


def test_a_snapshot_of_a_later_version_says_so() -> None:
    driver, fields = fields_of("values")
    fields[0] = snapshots.VERSION + 1

    with pytest.raises(SnapshotError, match=f"has version {snapshots.VERSION + 1}; this release reads version"):
        snapshots.decode(driver.program, msgspec.msgpack.encode(fields), fresh_realm())


def test_a_large_snapshot_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, data = suspended("values")
    monkeypatch.setattr(snapshots, "BYTES_MAX", 10)

    with pytest.raises(SnapshotError, match="over the limit"):
        snapshots.decode(driver.program, data, fresh_realm())


def test_data_of_any_depth_can_be_written_and_read() -> None:
    driver = Driver(body("let d = 0; for (let i = 0; i < 20000; i++) d = [d]; await task('x'); return d.length"))
    driver.start()

    assert finish(driver) == 1


def test_variables_that_are_no_longer_needed_are_not_in_the_snapshot() -> None:
    driver = Driver(body("const big = 'x'.repeat(50000), n = big.length; await task('x'); return n"))
    activation = driver.start()

    assert activation.snapshot is not None
    assert len(activation.snapshot) < 1_000
    assert finish(driver) == 50_000


# Looking inside -----------------------------------------------------------------------------------


def test_text_for_people_is_proper_text() -> None:
    driver = Driver(
        body("const smile = { '\U0001f600': '\U0001f600 \\ud800' }; console.log(smile); await task('x'); return smile")
    )
    activation = driver.start()
    assert activation.snapshot is not None
    (frame,) = inspection.inspect(driver.program, activation.snapshot)

    assert frame.variables == {"smile": {"\U0001f600": "\U0001f600 \ufffd"}}
    ((level, text),) = activation.logs
    assert level == "info"
    assert "\U0001f600".encode() in text.encode()


def test_inspect_shows_variables_and_lines() -> None:
    source = """
let count = 3
async function charge(order) {
  const amount = order.items.length, when = new Date(0), bad = NaN
  const receipt = await task("charge", { amount })
  return [receipt, amount, when, bad, count, order]
}
workflow(ctx, inputs) {
  const order = { items: [1, 2], note: undefined }, seen = new Map([["a", 1]]), self = () => order
  const result = await charge(order)
  return [result, seen, inputs, self]
}
"""
    driver = Driver(source)
    activation = driver.start({"who": "ada"})
    assert activation.snapshot is not None
    inner, outer = inspection.inspect(driver.program, activation.snapshot)

    assert ("charge", 5, 19) == (inner.function, inner.line, inner.column)
    assert [("task", "charge")] == [(entry["kind"], entry["name"]) for entry in inner.awaiting]
    assert inner.variables == {
        "count": 3,
        "amount": 2,
        "when": "[Date 1970-01-01T00:00:00.000Z]",
        "bad": "[NaN]",
        "order": {"items": [1, 2], "note": "[undefined]"},
    }
    assert ("workflow", 10, 18, []) == (outer.function, outer.line, outer.column, outer.awaiting)
    assert outer.variables["inputs"] == {"who": "ada"}
    assert outer.variables["self"] == "[function]"
    assert outer.variables["seen"] == "[Map(1) { 'a' => 1 }]"


@pytest.mark.parametrize("name", STATES)
def test_every_state_can_be_looked_into(name: str) -> None:
    driver, data = suspended(name)
    frames = inspection.inspect(driver.program, data)

    assert frames
    assert json.loads(json.dumps([frame.variables for frame in frames])) == [frame.variables for frame in frames]


def test_standing_names_line_and_function() -> None:
    driver = Driver("workflow() {\n  await helper()\n}\nasync function helper() {\n  await sleep('1d')\n}\n")
    activation = driver.start()

    assert (5, "helper") == (activation.standing.line, activation.standing.function)
    assert [("timer", 5, 3)] == [
        (entry["kind"], entry["line"], entry["column"]) for entry in json.loads(activation.standing.awaiting)
    ]


# Samples ------------------------------------------------------------------------------------------

SAMPLES = sorted(path.stem for path in FOLDER.glob("*.snapshot"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_resumes_to_its_result(sample: str) -> None:
    said = json.loads((FOLDER / f"{sample}.json").read_text())
    program = engine.load_program((FOLDER / f"{sample}.ir").read_bytes(), said["hash"])
    driver = Driver(program)
    driver.snapshot = (FOLDER / f"{sample}.snapshot").read_bytes()

    for kind, operation, value in said["deliveries"]:
        activation = driver.deliver(driver.delivery(kind, operation, value))
        if activation.outcome is not None:
            break

    assert said["result"] == result_of(activation)


@pytest.mark.parametrize("sample", [name for name in SAMPLES if name.startswith(f"v{snapshots.VERSION}-")])
def test_a_sample_of_the_present_version_is_written_as_it_was(sample: str) -> None:
    """Fails when the format changes: bump snapshot.VERSION, keep reading the old version, write new samples."""
    said = json.loads((FOLDER / f"{sample}.json").read_text())
    program = engine.load_program((FOLDER / f"{sample}.ir").read_bytes(), said["hash"])
    data = (FOLDER / f"{sample}.snapshot").read_bytes()
    realm = fresh_realm()
    _, root = snapshots.decode(program, data, realm)

    assert data == snapshots.encode(realm, root)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_source_of_a_sample_still_compiles(sample: str) -> None:
    program_of((FOLDER / f"{sample}.flow").read_text())


def test_there_is_a_sample_of_every_state() -> None:
    assert {f"v{snapshots.VERSION}-{name}" for name in STATES} <= set(SAMPLES)


def write_samples() -> None:
    """Writes the samples of the present version that are missing."""
    for name, (source, result) in STATES.items():
        path = FOLDER / f"v{snapshots.VERSION}-{name}"
        if path.with_suffix(".snapshot").exists():
            continue
        definition = engine.compile_workflow(source, "flow.flow", "flow")
        _, data = suspended(name)
        if name == "waits":
            deliveries, result = [["completed", 4, "done"]], ["done", True, False, False, {"in": 1}]
        else:
            deliveries = [["completed", number, 7] for number in range(1, 20)]
        path.with_suffix(".flow").write_text(source)
        path.with_suffix(".ir").write_bytes(definition.ir_bytes)
        path.with_suffix(".snapshot").write_bytes(data)
        said = {"hash": definition.hash, "deliveries": deliveries, "result": result}
        path.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    write_samples()
