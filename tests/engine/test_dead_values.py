"""What a workflow needs no more is not in its snapshots: liveness is decided when it is compiled, for every await."""

from __future__ import annotations

import pytest

from tests.support.activations import Driver, body

BIG = "x" * 100_000
SMALL_BYTES = 1_000  #: of a snapshot that does not hold BIG

#: Programs whose tasks "big" give BIG, which nothing can read any more when they wait for a task "next".
PROGRAMS: dict[str, str] = {
    "a variable": body("const big = await task('big'); const n = big.length; await task('next'); return n"),
    "a part of an expression": body("const n = (await task('big')).length; await task('next'); return n"),
    "an argument of a call": body(
        "const f = (v) => v.length; const n = f(await task('big')); await task('next'); return n"
    ),
    "what a pattern takes apart": body("const { length } = await task('big'); await task('next'); return length"),
    "a variable of a loop": body(
        "let n = 0; for (let i = 0; i < 3; i++) { const big = await task('big'); n += big.length; "
        "await task('next') } return n"
    ),
    "a variable outside a loop that sets it anew": body(
        "let n = 0, big; while (n < 300000) { big = await task('big'); n += big.length; await task('next') } return n"
    ),
    "a variable of a loop over elements": body(
        "let n = 0; for (const i of [1,2]) { const big = await task('big'); n += big.length; "
        "await task('next') } return n"
    ),
    "the test of a branch": body(
        "const big = await task('big'); let n = 0; if (big.length > 5) { n = big.length; await task('next') } return n"
    ),
    "a variable of a try block": body(
        "let n; try { const big = await task('big'); n = big.length; await task('next') } finally { n += 1 } return n"
    ),
    "what was caught": body(
        "try { const big = await task('big'); if (big) throw big } catch (e) { const n = e.length; "
        "await task('next'); return n }"
    ),
    "a variable of a function that has returned": (
        "async function f() { const big = await task('big'); return big.length }\n"
        "workflow() { const n = await f(); await task('next'); return n }"
    ),
    "an argument of a function that waits": (
        "async function f(big) { const n = big.length; await task('next'); return n }\n"
        "workflow() { return await f(await task('big')) }"
    ),
    "a variable of a function that waits for another": (
        "async function f(big) { const n = big.length; await task('next'); return n }\n"
        "workflow() { const big = await task('big'); const n = await f(big); return n }"
    ),
    "a variable of a function value that is used no more": body(
        "const big = await task('big'); const f = () => big.length; const n = f(); await task('next'); return n"
    ),
    "a variable that holds something else now": body(
        "let big = await task('big'); const n = big.length; big = null; await task('next'); return [n, big]"
    ),
    "the array of Promise.all": body(
        "const [a, b] = await Promise.all([task('big'), task('big')]); const n = a.length + b.length; "
        "await task('next'); return n"
    ),
    "a variable in a switch": body(
        "const big = await task('big'); switch (typeof big) { case 'string': { const n = big.length; "
        "await task('next'); return n } }"
    ),
    "a part of a template": body("const t = `${(await task('big')).length}-${await task('next')}`; return t"),
    "a part of an object literal": body("const o = { n: (await task('big')).length, m: await task('next') }; return o"),
    "a promise that was awaited": body(
        "const p = task('big'); const n = (await p).length; await task('next'); return n"
    ),
    "what a then callback was given": body(
        "const n = await task('big').then(v => v.length); await task('next'); return n"
    ),
    "a variable of a loop that is left by its label": body(
        "let n = 0; outer: for (const a of [1]) { for (const b of [1]) { const big = await task('big'); "
        "n = big.length; await task('next'); continue outer } } return n"
    ),
    "a variable of a turn of a loop beside one that is captured": body(
        "let n = 0; const fs = []; for (let i = 0; i < 2; i++) { const big = await task('big'); "
        "n += big.length; fs.push(() => i); await task('next') } return n"
    ),
    "a variable captured in a block that was left": body(
        "const big = await task('big'); { const f = () => big.length; f() } const n = 1; await task('next'); return n"
    ),
}


def snapshots_while(program: str, name: str) -> list[bytes]:
    """The snapshots with which a program waits for nothing but tasks of this name, until it ends."""
    driver = Driver(program)
    activation = driver.start()
    waiting: dict[int, str] = {}
    found = []
    for _ in range(20):
        waiting |= {child.operation: child.name for child in activation.children}
        if activation.outcome is not None:
            assert activation.outcome.status == "completed", activation.outcome.payload
            return found
        assert activation.snapshot is not None
        if set(waiting.values()) == {name}:
            found.append(activation.snapshot)
        number = min(waiting)
        activation = driver.completed(number, BIG if waiting.pop(number) == "big" else 1)
    raise AssertionError("the program does not end")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_large_value_that_nothing_reads_any_more_is_not_in_the_snapshot(name: str) -> None:
    snapshots = snapshots_while(PROGRAMS[name], "next")

    assert snapshots
    assert [] == [len(data) for data in snapshots if len(data) > SMALL_BYTES]


@pytest.mark.parametrize(
    "text",
    [
        "const big = await task('big'); await task('next'); return big.length",
        "const big = await task('big'); const f = () => big.length; await task('next'); return f()",
        "const p = task('big'); await p; await task('next'); return [p === null]",
        "let n = 0, last; for (let i = 0; i < 2; i++) { if (last) n += last.length; last = await task('big'); "
        "await task('next') } return n",
    ],
)
def test_a_large_value_that_may_still_be_read_is_in_it(text: str) -> None:
    assert len(snapshots_while(body(text), "next")[0]) > len(BIG)


def test_large_inputs_that_nothing_reads_any_more_are_not_in_the_snapshot() -> None:
    driver = Driver("workflow(ctx, inputs) { const n = inputs.big.length; await task('next'); return n }")
    activation = driver.start({"big": BIG})

    assert activation.snapshot is not None
    assert len(activation.snapshot) < SMALL_BYTES
