"""What the lowering decides: temporaries, cells, finally and switch as plain statements, and what is live at an await.

That the order of evaluation is JavaScript's is the corpus's matter (corpus/order.flows).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rhythm.language import ir
from tests.language.flow_node import compile_source, run_here, run_in_node

Function = dict[str, Any]


def functions_of(body: str) -> dict[str, Function]:
    """The functions of a workflow by name; the workflow's own is "workflow"."""
    program = compile_source(f"async function workflow(ctx, inputs) {{\n{body}\n}}")
    ir.validate(program)
    return {function["name"]: function for function in program["functions"][1:]}


def workflow_of(body: str) -> Function:
    return functions_of(body)["workflow"]


def nodes_of(data: Any, kind: str) -> list[list[Any]]:
    """Every node of a kind, in program order."""

    def walk(item: Any) -> Iterator[list[Any]]:
        if isinstance(item, list):
            if item and item[0] == kind:
                yield item
            for part in item:
                yield from walk(part)

    return list(walk(data))


def live_names(body: str) -> list[set[str]]:
    """For each await, the source names kept over it."""
    function = workflow_of(body)
    return [{function["slots"][slot] for slot in entry["live"]} - {""} for entry in function["awaits"]]


def kept(body: str) -> list[int]:
    """For each await, how many slots are kept over it, temporaries included."""
    return [len(entry["live"]) for entry in workflow_of(body)["awaits"]]


# --- liveness --------------------------------------------------------------------------------------------------------


def test_a_slot_is_dead_after_its_last_use() -> None:
    body = """const big = await task("a"); const small = big.n; await sleep(1); return small"""

    assert live_names(body) == [set(), {"small"}]


def test_arguments_of_an_await_are_dead_during_it() -> None:
    assert live_names("const order = inputs; await task('a', { order }); return 1") == [set()]


def test_a_variable_written_before_it_is_read_again_is_dead() -> None:
    assert live_names("let x = 1; x += inputs; await sleep(1); x = 2; return x") == [set()]


def test_an_assigned_await_keeps_the_old_value_for_the_handler() -> None:
    with_handler = "let x = 1; try { x = await task('a') } catch { } return x"
    without = "let x = 1; x = await task('a'); return x"

    assert live_names(with_handler) == [{"x"}]
    assert live_names(without) == [set()]


def test_what_a_loop_needs_in_its_next_round_is_live_in_this_one() -> None:
    body = """let a = 1; let b = 2; let c = 3
    for (let i = 0; i < 3; i++) { const used = a; await sleep(used); await sleep(b); a = 5 }
    return c"""

    assert live_names(body) == [{"b", "c", "i"}, {"b", "c", "i"}]


def test_nothing_of_a_loop_is_live_behind_a_jump_out_of_it() -> None:
    body = """let a = 1
    while (true) { if (inputs) { await sleep(1); break } a++; await sleep(2) }
    return 1"""

    assert live_names(body) == [set(), {"a", "inputs"}]


def test_branches_keep_what_they_need_themselves() -> None:
    body = """const a = inputs.a; const b = inputs.b
    if (inputs.c) { await sleep(1); return a } else { await sleep(2); return b }"""

    assert live_names(body) == [{"a"}, {"b"}]


def test_a_finalizer_needs_its_names_over_every_await_inside() -> None:
    body = """const undo = inputs.u; const other = inputs.o
    try { await task("a"); await task("b", other) } finally { await task("undo", undo) }"""

    assert [names & {"undo", "other"} for names in live_names(body)] == [{"undo", "other"}, {"undo"}, set()]


def test_the_completion_of_a_finally_is_kept_over_its_awaits() -> None:
    assert kept("try { return await task('a') } finally { await sleep(1) }")[1] == 2


def test_operands_are_kept_while_a_later_one_waits() -> None:
    assert kept("return inputs.a + await task('a') + await task('b')") == [1, 1]
    assert kept("return await task('a')") == [0]


def test_a_loop_over_values_keeps_its_iterator_only() -> None:
    assert kept("for (const x of [1, 2]) await sleep(x)") == [1]


def test_cells_are_live_for_the_closures_that_take_them() -> None:
    body = """let n = 0; const add = () => n++
    await sleep(1); add(); await sleep(2); const more = () => n; await sleep(3); return more()"""

    assert live_names(body) == [{"add", "n"}, {"n"}, {"more"}]


def test_nested_loops_are_analysed_in_time() -> None:
    depth = 40
    loops = "".join(f"for (let i{n} = 0; i{n} < 2; i{n}++) {{ " for n in range(depth))

    assert len(live_names(f"{loops} await sleep(1) {'}' * depth}")[0]) == depth


# --- cells -----------------------------------------------------------------------------------------------------------


def test_only_captured_variables_are_cells() -> None:
    function = workflow_of("let a = 1; let b = 2; const f = (c) => a + c; return f(b)")

    assert [function["slots"][slot] for slot in function["cells"]] == ["a"]


def test_a_declaration_makes_the_cell_where_nothing_can_see_it_earlier() -> None:
    late = workflow_of("for (const x of [1]) { const y = x; inputs.push(() => x + y) }")
    early = workflow_of("const f = () => y; f(); const y = 1")

    assert (len(nodes_of(late["body"], "bind")), len(nodes_of(late["body"], "fresh"))) == (2, 0)
    assert (len(nodes_of(early["body"], "bind")), len(nodes_of(early["body"], "fresh"))) == (0, 1)


def test_cells_of_a_loop_are_copied_only_when_captured() -> None:
    plain = workflow_of("for (let i = 0; i < 3; i++) inputs.push(i)")
    captured = workflow_of("for (let i = 0; i < 3; i++) inputs.push(() => i)")

    assert nodes_of(plain["body"], "copy") == []
    assert len(nodes_of(captured["body"], "copy")) == 2


def test_a_variable_of_outer_functions_is_handed_down() -> None:
    functions = functions_of("let a = 1; const f = () => () => a; return f")
    captures = [function["captures"] for name, function in functions.items() if name != "workflow"]

    assert [[kind for kind, *_ in capture] for capture in captures] == [["slot"], ["capture"]]


def test_a_named_function_captures_itself() -> None:
    assert functions_of("return function f() { return f }")["f"]["captures"] == [["self"]]
    assert functions_of("return function f() { return 1 }")["f"]["captures"] == []


def test_a_captured_parameter_gets_a_cell_of_its_own() -> None:
    function = functions_of("const f = (a, b) => () => a; return f")["f"]

    assert len(function["params"]) == 2
    assert len(function["cells"]) == 1
    assert not set(function["params"]) & set(function["cells"])


# --- initialisation --------------------------------------------------------------------------------------------------


def test_reads_are_checked_only_where_a_variable_may_lack_its_value() -> None:
    proved = functions_of("const a = 1; let b = a; const f = () => a + b; return f()")
    unproved = functions_of("const f = () => a; f(); const a = 1; return a")

    assert not any(nodes_of(function["body"], "checked") for function in proved.values())
    assert [node[2] for node in nodes_of(unproved["f"]["body"], "checked")] == ["a"]


def test_parameters_with_defaults_see_earlier_ones_only() -> None:
    checked = functions_of("const f = (a = b, b = 1) => a; return f()")["f"]
    plain = functions_of("const f = (a = 1, b = a) => b; return f()")["f"]

    assert [node[2] for node in nodes_of(checked["body"], "checked")] == ["b"]
    assert nodes_of(plain["body"], "checked") == []


def test_names_of_a_switch_start_without_a_value() -> None:
    function = workflow_of("switch (inputs) { case 1: let a = 1; case 2: await sleep(1); return a }")
    (marked,) = nodes_of(function["body"], "tdz")

    assert [function["slots"][slot] for slot in marked[1]] == ["a"]
    assert live_names("switch (inputs) { case 1: let a = 1; case 2: await sleep(1); return a }") == [{"a"}]


# --- statements ------------------------------------------------------------------------------------------------------


def test_statements_of_the_ir_are_the_documented_ones() -> None:
    body = """l: for (const x of inputs) { switch (x) { case 1: continue l; default: break } }
    try { return 1 } catch (e) { throw e } finally { await sleep(1) }"""
    kinds = {node[0] for kind in ir.STATEMENTS for node in nodes_of(workflow_of(body)["body"], kind)}

    assert {"for_of", "block", "try", "if", "throw", "return", "await", "continue"} <= kinds


def test_an_expression_without_await_stays_an_expression() -> None:
    function = workflow_of("return inputs.a + inputs.b * (inputs.c ? 1 : inputs.d ?? 2)")

    assert [statement[0] for statement in function["body"]] == ["return"]


def test_only_the_branch_that_waits_waits() -> None:
    (statement,) = nodes_of(workflow_of("return inputs.a && await task('a')")["body"], "if")

    assert [node[0] for node in statement[1][0][1]] == ["await", "set"]


def test_a_loop_over_values_is_one_statement_unless_it_waits() -> None:
    plain = workflow_of("for (const x of inputs) x.n++")
    waiting = workflow_of("for (const x of inputs) await x")
    inside = workflow_of("for (const x of inputs) { const f = async () => { await x } }")

    assert (len(nodes_of(plain["body"], "for_of")), len(nodes_of(plain["body"], "iterator"))) == (1, 0)
    assert (len(nodes_of(waiting["body"], "for_of")), len(nodes_of(waiting["body"], "iter_step"))) == (0, 1)
    assert len(nodes_of(inside["body"], "for_of")) == 1


def test_patterns_without_effects_take_all_values_at_once() -> None:
    plain = workflow_of("const [a, , b = 1, ...c] = inputs; return a")
    stepping = workflow_of("const [a = inputs.x(), b] = inputs; return a")

    assert len(nodes_of(plain["body"], "unpack")) == 1
    assert len(nodes_of(stepping["body"], "iter_next")) == 2


def test_awaits_know_their_source() -> None:
    function = workflow_of('  const a = await task("charge",\n    { a: 1 })')

    assert function["awaits"] == [{"live": [], "pos": [2, 13], "text": 'task("charge", { a: 1 })'}]


def test_calls_know_their_text_and_place() -> None:
    (call,) = nodes_of(workflow_of("inputs.list[0].push(1)")["body"], "call_method")

    assert call[2:4] == ["push", "inputs.list[0].push"]
    assert ir.unpack_position(call[5]) == (2, 16)


# --- limits ----------------------------------------------------------------------------------------------------------

AWAITED = "const w = async (x) => x; let n = 1; const o = { a: 1, f: (x) => x }; o.o = o\n"
DEEP = {
    "sum": "return " + " + ".join(["n"] * 3000),
    "sum of calls": "return " + " + ".join(["o.f(n)"] * 3000),
    "sum with awaits": "return " + " + ".join("await w(n)" if n % 100 == 0 else "n" for n in range(3000)),
    "sum with effects": "return " + " + ".join("n++ * 2" if n % 2 else "(n - 1)" for n in range(1000)),
    "and": "return " + " && ".join(["n"] * 3000),
    "or with awaits": "return " + " || ".join("await w(0)" if n % 50 == 0 else "!n" for n in range(1000)),
    "members": "return o" + ".o" * 3000 + ".a",
    "methods": "return [3, 1]" + ".map((x) => x + 1)" * 300,
    "optional members": "return o" + "?.o" * 240 + "?.a",
    "optional members with awaits": "return o" + "?.o?.[await w('o')]" * 50 + "?.a",
    "parentheses": "return " + "(n + " * 240 + "1" + ")" * 240,
    "not": "return " + "!" * 400 + "n",
    "conditions": "return " + "".join(f"n === {n + 2} ? {n} : " for n in range(240)) + "'x'",
    "conditions in blocks": "try { for (const x of [1]) { " * 20
    + "n = "
    + "n === 0 ? 1 : " * 200
    + "await w(7)"
    + " } } finally { await w(n) }" * 20
    + "; return n",
    "many elements": "return [" + ", ".join(["n"] * 5000) + ", await w(1)].length",
    "many properties": "return Object.keys({" + ", ".join(f"k{n}: n" for n in range(3000)) + ", z: await w(1)}).length",
    "many arguments": "return ((...all) => all.length)(" + ", ".join(["n"] * 3000) + ", await w(1))",
    "arrays": "return JSON.stringify(" + "[" * 200 + "n" + "]" * 200 + ").length",
    "objects": "return JSON.stringify(" + '{"a":' * 200 + "n" + "}" * 200 + ").length",
    "templates": "return " + "`a${" * 120 + "n" + "}`" * 120,
    "arguments": "return " + "o.f(n + " * 200 + "(n = n + 1)" + ")" * 200,
    "assignments": "let b; return " + "b = " * 400 + "n",
    "else if": "if (n === 0) return 0" + "".join(f"; else if (n === {n + 2}) return {n}" for n in range(3000)),
    "else if with awaits": "if (n === 0) return 0"
    + "".join(f"; else if (await w(n === {n + 2})) return {n}" for n in range(50)),
    "blocks": "if (n) {" * 60 + "n = await w(7)" + "}" * 60 + "return n",
    "labels": "".join(f"a{n}: {{" for n in range(60)) + "if (n) break a0;" + "}" * 60 + "return n",
    "finally and switch": "const f = async () => {"
    + "for (;;) { try { switch (n) { case 1: " * 15
    + "await w(); return 5;"
    + "} } finally { await w(n) } }" * 15
    + "}; return [await f(), n]",
}


@pytest.fixture(scope="module")
def in_node() -> dict[str, str]:
    sources = [f"async function workflow() {{ {AWAITED}{body} }}" for body in DEEP.values()]
    return dict(zip(DEEP, run_in_node(sources), strict=True))


@pytest.mark.parametrize("name", DEEP)
def test_deep_programs_keep_within_the_limits_of_the_ir(name: str, in_node: dict[str, str]) -> None:
    source = f"async function workflow() {{ {AWAITED}{DEEP[name]} }}"

    program = compile_source(source)

    assert program == ir.from_bytes(ir.to_bytes(program))
    assert in_node[name] == run_here(source)


# --- messages --------------------------------------------------------------------------------------------------------

FAILING = [
    "const { a } = u",
    "const { a } = o.x",
    "const {} = nil",
    "const { a: { b } } = o",
    "const { ['a']: { b } } = o",
    "const [{ a }] = [null]",
    "let b; [{ b }] = [null]",
    "try { throw null } catch ({ a }) { }",
    "for (const { a } of [null]) ;",
    "for (const [a] of [null]) ;",
    "const [a] = u",
    "const [a] = num",
    "for (const x of num) ;",
    "for (const x of o.list) ;",
    "(({ a }) => a)()",
    "(([a]) => a)()",
    "o.b()",
    "o?.b()",
    "o.a?.[0].b; o?.b.c",
    "o['x y']()",
    "o.list[0]()",
    "list[num]()",
    "list[0]()",
    "u()",
    "u.a.b",
    "u.a = 1",
    "u[num]",
    "(() => 1)()()",
    "'a' in num",
    "[...num]",
    "o.x.y++",
    "const { 1: b } = u",
    "const { ...r } = o.x",
]


def test_messages_name_what_node_names() -> None:
    sources = [
        "async function workflow() { const u = undefined, nil = null, num = 5, o = {}, list = []\n"
        f"try {{ {body} }} catch (e) {{ return e.message }} }}"
        for body in FAILING
    ]

    assert dict(zip(FAILING, run_in_node(sources), strict=True)) == {
        body: run_here(source) for body, source in zip(FAILING, sources, strict=True)
    }
