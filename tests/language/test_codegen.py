"""Generated code from hand-written IR: the protocol of instances and frames, limits, positions, hostile input."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rhythm.language import codegen, codegen_flat, ir
from rhythm.language.promises import Frame, Realm
from rhythm.language.values import TDZ, UNDEFINED, JSError, JSThrow, set_current_realm
from tests.support.activations import program_of

Node = list[Any]
AT = 1_000_001  #: Line 1, column 1.


def at(line: int, column: int) -> int:
    return ir.pack_position(line, column)


def number(value: float) -> Node:
    return ["number", float(value)]


def slot(index: int) -> Node:
    return ["slot", index]


def add(left: Node, right: Node) -> Node:
    return ["binary", "+", left, right]


def give(node: Node, position: int = AT) -> Node:
    return ["return", node, position]


def put(index: int, node: Node) -> Node:
    return ["set", slot(index), node, AT]


def function(body: list[Node], **fields: Any) -> dict[str, Any]:
    slots = fields.pop("slots", 0)
    return {
        "id": 0,
        "name": "",
        "kind": "sync",
        "params": [],
        "rest": None,
        "slots": [""] * slots,
        "cells": [],
        "captures": [],
        "labels": 0,
        "awaits": [],
        "body": body,
        "pos": [1, 1],
        **fields,
    }


def program(*functions: dict[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """A program whose module returns the closure of function 1; `functions` start with the module or function 1."""
    for index, item in enumerate(functions):
        item["id"] = index
    return {"v": 1, "name": "test", "functions": list(functions), "module": 0, "globals": sorted(names)}


def single(body: list[Node], **fields: Any) -> dict[str, Any]:
    """A program of one function besides the module."""
    return program(function([give(["closure", 1])]), function(body, **fields))


def instance_of(data: dict[str, Any]) -> codegen.Instance:
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.5)
    set_current_realm(realm)
    return codegen.load(data).instantiate(realm)


def run(data: dict[str, Any], *arguments: Any) -> Any:
    """Result of the closure the module returns; for an async one, what its promise settles with."""
    instance = instance_of(data)
    result = instance.run_module()(*arguments)
    if data["functions"][1]["kind"] == "sync":
        return result
    instance.realm.drain()
    if result.state == 2:
        raise JSThrow(result.value)
    assert result.state == 1
    return result.value


# -- functions ---------------------------------------------------------------------------------------------------------


def test_missing_arguments_are_undefined_and_further_ones_are_dropped() -> None:
    data = single([give(["array", [slot(0), slot(1)], AT])], params=[0, 1], slots=2)

    assert run(data, 1.0) == [1.0, UNDEFINED]
    assert run(data, 1.0, 2.0, 3.0) == [1.0, 2.0]


def test_rest_takes_the_further_arguments() -> None:
    data = single([give(slot(1))], params=[0], rest=1, slots=2)

    assert run(data, 1.0, 2.0, 3.0) == [2.0, 3.0]
    assert run(data) == []


def test_a_function_that_runs_off_its_end_returns_undefined() -> None:
    assert run(single([])) is UNDEFINED


def test_closures_are_taken_apart_and_rebuilt() -> None:
    counter = function(
        [["set", ["capture", 0], ["unary", "inc", ["capture", 0]], AT], give(["capture", 0])], captures=[["slot", 0]]
    )
    module = function([["bind", 0, number(0), AT], give(["closure", 1])], slots=1, cells=[0])
    instance = instance_of(program(module, counter))
    closure = instance.run_module()
    closure()

    cells = instance.cells_of(closure)
    rebuilt = instance.make(1, cells)

    assert instance.function_id(closure) == 1
    assert cells == ([1.0],)
    assert rebuilt() == 2.0
    assert closure() == 3.0
    assert instance.function_id(print) is None
    assert instance.function_id(at) is None


def test_a_capture_that_is_never_used_still_counts() -> None:
    inner = function([give(number(1))], captures=[["slot", 1], ["slot", 0]])
    module = function(
        [["bind", 0, number(5), AT], ["bind", 1, number(6), AT], give(["closure", 1])], slots=2, cells=[0, 1]
    )
    instance = instance_of(program(module, inner))

    assert instance.cells_of(instance.run_module()) == ([6.0], [5.0])


def test_a_named_function_expression_knows_itself() -> None:
    again = ["call", ["capture", 0], "f", [["binary", "-", slot(0), number(1)]], AT]
    body = [["if", [[["binary", "<", slot(0), number(1)], [give(number(0))]]], [], AT], give(add(slot(0), again))]
    instance = instance_of(single(body, params=[0], slots=1, captures=[["self"]]))
    closure = instance.run_module()

    assert closure(4.0) == 10.0
    assert instance.cells_of(closure)[0][0] is closure
    assert instance.make(1, instance.cells_of(closure))(3.0) == 6.0


@pytest.mark.parametrize(("function_id", "cells"), [(7, ()), (-1, ()), (1, ([1.0],))])
def test_make_refuses_what_the_program_does_not_have(function_id: int, cells: tuple[list[Any], ...]) -> None:
    instance = instance_of(single([]))

    with pytest.raises(ValueError, match="no function"):
        instance.make(function_id, cells)


def test_two_instances_share_code_but_no_state() -> None:
    counter = function(
        [["set", ["capture", 0], ["unary", "inc", ["capture", 0]], AT], give(["capture", 0])], captures=[["slot", 0]]
    )
    module = function([["bind", 0, number(0), AT], give(["closure", 1])], slots=1, cells=[0])
    loaded = codegen.load(program(module, counter))
    first, second = (loaded.instantiate(Realm(now_ms=lambda: 0.0, random=lambda: 0.5)).run_module() for _ in range(2))

    assert [first(), first(), second()] == [1.0, 2.0, 1.0]


# -- variables ---------------------------------------------------------------------------------------------------------


def test_each_turn_of_a_loop_has_its_own_cell() -> None:
    inner = function([give(["capture", 0])], captures=[["slot", 0]])
    loop = [
        "loop",
        0,
        ["binary", "<", ["cell", 0], number(3)],
        [["expr", ["call_method", slot(1), "push", "a.push", [["closure", 2]], AT], AT]],
        [["copy", [0]], ["set", ["cell", 0], ["unary", "inc", ["cell", 0]], AT]],
        AT,
    ]
    outer = function(
        [put(1, ["array", [], AT]), ["bind", 0, number(0), AT], loop, give(slot(1))], slots=2, cells=[0], labels=1
    )

    closures = run(program(function([give(["closure", 1])]), outer, inner))

    assert [closure() for closure in closures] == [0.0, 1.0, 2.0]


def test_a_read_before_initialisation_throws() -> None:
    data = single([["fresh", [0]], give(["checked", ["cell", 0], "x", at(3, 7)], at(3, 5))], slots=1, cells=[0])

    with pytest.raises(JSThrow) as caught:
        run(data)

    assert isinstance(caught.value.value, JSError)
    assert caught.value.value.kind == "ReferenceError"
    assert caught.value.value.props["message"] == "Cannot access 'x' before initialization"


def test_an_operand_is_read_before_a_later_one_assigns_it() -> None:
    left = single([put(0, number(1)), give(add(slot(0), ["assign", slot(0), number(5)]))], slots=1)
    unknown = single([give(add(slot(0), ["assign", slot(0), number(5)]))], params=[0], slots=1)

    assert run(left) == 6.0
    assert run(unknown, 1.0) == 6.0
    assert run(unknown, "a") == "a5"


def test_counters_leave_the_loop_as_floats() -> None:
    body = [
        put(1, ["array", [], AT]),
        put(2, number(0)),
        [
            "loop",
            0,
            ["binary", "<", slot(2), number(3)],
            [
                [
                    "expr",
                    [
                        "call_method",
                        slot(1),
                        "push",
                        "a.push",
                        [["get_index", slot(0), slot(2), "x", AT], slot(2)],
                        AT,
                    ],
                    AT,
                ]
            ],
            [put(2, ["unary", "inc", slot(2)])],
            AT,
        ],
        give(slot(1)),
    ]
    data = single(body, params=[0], slots=3, labels=1)

    result = run(data, ["a", "b"])

    assert result == ["a", 0.0, "b", 1.0, UNDEFINED, 2.0]
    assert all(item.__class__ is not int for item in result)
    assert "s2 += 1" in codegen.load(data).source


# -- async functions ---------------------------------------------------------------------------------------------------


def waiting(count: int) -> dict[str, Any]:
    """An async function that adds up `count` awaited values in a slot, a cell and a counter."""
    body: list[Node] = [put(0, number(0)), ["bind", 1, number(0), AT], put(3, number(0))]
    for index in range(count):
        body += [
            ["await", index, 2, number(index + 1), at(10 + index, 3)],
            put(0, add(slot(0), slot(2))),
            ["set", ["cell", 1], add(["cell", 1], slot(2)), AT],
            put(3, ["unary", "inc", slot(3)]),
        ]
    text = ["get_index", ["array", [["string", "zero"], ["string", "one"]], AT], slot(3), None, AT]
    body.append(give(["array", [slot(0), ["cell", 1], slot(3), text], AT]))
    live = [0, 1, 3]
    awaits = [{"live": live, "pos": [10 + index, 3], "text": ""} for index in range(count)]
    return single(body, kind="async", slots=4, cells=[1], awaits=awaits)


@pytest.mark.parametrize("stop", range(4))
def test_a_frame_is_taken_apart_and_resumed_at_each_await(stop: int) -> None:
    data = waiting(4)
    instance = instance_of(data)
    promise = instance.run_module()()
    for _ in range(stop):
        frame, value, rejected = instance.realm.queue.popleft()
        instance.step(frame, value, rejected)
    frame, value, rejected = instance.realm.queue.popleft()
    assert frame.await_id == stop
    total, cell, count = frame.slots
    assert (total, cell, count) == (sum(range(stop + 1)), [float(sum(range(stop + 1)))], float(stop))
    assert count.__class__ is float

    fresh = instance_of(data)
    rebuilt = Frame(frame.function_id, fresh.realm)
    rebuilt.await_id, rebuilt.slots, rebuilt.cells = stop, (total, [*cell], count), frame.cells
    fresh.step(rebuilt, value, rejected)
    fresh.realm.drain()

    assert rebuilt.promise.value == [10.0, 10.0, 4.0, UNDEFINED]
    assert promise.state == 0


def test_a_rejection_is_thrown_where_the_await_stands() -> None:
    reject = [
        "try",
        [["await", 0, 0, slot(1), AT], give(["string", "not reached"])],
        2,
        [give(add(["string", "caught "], slot(2)))],
    ]
    data = single([reject], kind="async", params=[1], slots=3, awaits=[{"live": [], "pos": [1, 1], "text": ""}])
    instance = instance_of(data)
    promise = instance.run_module()("x")
    frame, _, _ = instance.realm.queue.popleft()

    instance.step(frame, "reason", True)

    assert (promise.state, promise.value) == (1, "caught reason")


def test_an_uncaught_rejection_rejects_the_promise() -> None:
    data = waiting(1)
    instance = instance_of(data)
    promise = instance.run_module()()
    frame, _, _ = instance.realm.queue.popleft()

    instance.step(frame, "reason", True)

    assert (promise.state, promise.value) == (2, "reason")


def test_a_throw_before_the_first_await_rejects_the_promise() -> None:
    data = single([["throw", ["string", "early"], AT]], kind="async")
    instance = instance_of(data)

    promise = instance.run_module()()

    assert (promise.state, promise.value) == (2, "early")


def test_a_forged_await_id_does_not_run_other_code() -> None:
    dead = [give(number(1)), ["await", 0, None, number(1), AT]]
    data = single(dead, kind="async", awaits=[{"live": [], "pos": [1, 1], "text": ""}])
    instance = instance_of(data)
    frame = Frame(1, instance.realm)
    frame.await_id = 0

    with pytest.raises(Exception, match="can never have reached"):
        instance.step(frame, UNDEFINED, False)


# -- limits ------------------------------------------------------------------------------------------------------------


def nested(kind: str, depth: int, body: list[Node]) -> list[Node]:
    for label in range(depth):
        if kind == "loop":
            body = [["loop", label, ["true"], [*body, ["break", label]], [], AT]]
        elif kind == "for_of":
            body = [["for_of", label, 1, ["array", [number(1)], AT], None, body, AT]]
        elif kind == "try":
            body = [["try", [["throw", number(1), AT]], 1, body]]
        elif kind == "block":
            body = [["block", label, [["if", [[slot(0), [["break", label]]]], [], AT], *body]]]
        else:
            body = [["if", [[["unary", "!", slot(0)], body]], [], AT]]
    return body


@pytest.mark.parametrize("kind", ["loop", "for_of", "try", "block", "if"])
@pytest.mark.parametrize("depth", [12, 25, 290])
def test_deep_nesting(kind: str, depth: int) -> None:
    body = [*nested(kind, depth, [put(2, number(7))]), give(slot(2))]
    data = single([put(2, number(0)), *body], params=[0], slots=3, labels=depth)

    assert run(data, False) == 7.0


def test_many_arms() -> None:
    arms = [[["binary", "===", slot(0), number(index)], [give(number(index * 2))]] for index in range(3000)]
    data = single([["if", arms, [give(number(-1))], AT]], params=[0], slots=1)

    assert [run(data, value) for value in (0.0, 41.0, 2999.0, 3000.0)] == [0.0, 82.0, 5998.0, -1.0]


def test_many_statements() -> None:
    body = [put(0, add(slot(0), number(1))) for _ in range(5000)]

    assert run(single([put(0, number(0)), *body, give(slot(0))], slots=1)) == 5000.0


def test_many_awaits() -> None:
    count = 300
    body: list[Node] = [put(0, number(0))]
    for index in range(count):
        body += [["await", index, 1, number(1), AT], put(0, add(slot(0), slot(1)))]
    awaits = [{"live": [0], "pos": [1, 1], "text": ""} for _ in range(count)]

    assert run(single([*body, give(slot(0))], kind="async", slots=2, awaits=awaits)) == float(count)


LEAF: Node = slot(0)
WRAPPED: dict[str, Any] = {
    "add": lambda x: ["binary", "+", x, LEAF],
    "add right": lambda x: ["binary", "+", LEAF, x],
    "remainder": lambda x: ["binary", "%", x, LEAF],
    "divide": lambda x: ["binary", "/", x, LEAF],
    "compare": lambda x: ["binary", "<", x, LEAF],
    "strict": lambda x: ["binary", "===", x, LEAF],
    "not": lambda x: ["unary", "!", x],
    "inc": lambda x: ["unary", "inc", x],
    "nullish": lambda x: ["unary", "nullish", x],
    "and": lambda x: ["and", x, LEAF],
    "or": lambda x: ["or", LEAF, x],
    "coalesce": lambda x: ["coalesce", x, LEAF],
    "test": lambda x: ["conditional", x, LEAF, LEAF],
    "otherwise": lambda x: ["conditional", LEAF, LEAF, x],
    "sequence": lambda x: ["sequence", [LEAF, x]],
    "template": lambda x: ["template", ["a", x, "b"]],
    "member": lambda x: ["get_member", x, "n", None, AT],
    "length": lambda x: ["get_member", x, "length", None, AT],
    "index": lambda x: ["get_index", x, LEAF, None, AT],
    "key": lambda x: ["get_index", LEAF, x, None, AT],
    "set": lambda x: ["set_member", x, "n", LEAF, None, AT],
    "call": lambda x: ["call", x, "f", [LEAF], AT],
    "argument": lambda x: ["call", LEAF, "f", [LEAF, x], AT],
    "spread": lambda x: ["call", LEAF, "f", [["spread", x, None]], AT],
    "method": lambda x: ["call_method", x, "push", "f", [LEAF], AT],
    "own method": lambda x: ["call_method", x, "foo", "f", [LEAF], AT],
    "method argument": lambda x: ["call_method", LEAF, "foo", "f", [x], AT],
    "indexed": lambda x: ["call_index", x, LEAF, "f", [LEAF], AT],
    "array": lambda x: ["array", [["spread", x, None]], AT],
    "property": lambda x: ["object", [["property", "a", x]], AT],
    "computed": lambda x: ["object", [["computed", x, LEAF]], AT],
    "object spread": lambda x: ["object", [["spread", x]], AT],
    "assign": lambda x: ["assign", slot(1), x],
    "new": lambda x: ["new", x, "f", [LEAF], AT],
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("use", ["return", "if", "expr"])
def test_the_deepest_expressions_compile(kind: str, use: str) -> None:
    node = LEAF
    for _ in range(ir.EXPRESSION_DEPTH_MAX - 1):
        node = WRAPPED[kind](node)
    body = {"return": give(node), "if": ["if", [[node, []]], [], AT], "expr": ["expr", node, AT]}[use]

    codegen.load(single([body], params=[0], slots=2))


# -- positions ---------------------------------------------------------------------------------------------------------


def test_the_stack_of_an_error_names_flow_places() -> None:
    thrower = function(
        [["throw", ["new", ["global", "Error"], "Error", [["string", "no"]], at(7, 9)], at(7, 3)]], name="inner"
    )
    caller = function(
        [put(0, ["closure", 2]), give(add(number(1), ["call", slot(0), "inner", [], at(4, 12)]), at(4, 5))],
        slots=1,
        name="outer",
    )
    data = program(function([give(["closure", 1])]), caller, thrower, names=("Error",))

    with pytest.raises(JSThrow) as caught:
        run(data)

    lines = caught.value.value.props["stack"].split("\n")
    assert lines == ["Error: no", "    at inner (test.flow:7:9)", "    at outer (test.flow:4:12)"]


def test_a_callback_written_as_a_comprehension_is_one_place_of_its_function() -> None:
    source = """workflow() {
      const fail = () => { throw new Error("no") }
      return [1].map(() =>
        fail())
    }"""
    compiled = program_of(source)
    assert "[" in compiled.source.split("for t")[0].split("=")[-1], "it is a comprehension"
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.5)
    set_current_realm(realm)

    promise = compiled.instantiate(realm).run_module()()

    lines = promise.value.props["stack"].split("\n")
    assert lines == ["Error: no", "    at fail (flow.flow:2:34)", "    at workflow (flow.flow:4:9)"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_position_of_a_traceback(kind: str) -> None:
    body = [
        put(0, number(1)),
        put(0, add(slot(0), ["get_member", ["undefined"], "x", "o", at(5, 20)])),
        give(slot(0)),
    ]
    body[1][3] = at(5, 1)
    data = single(body, slots=1, name="reader")
    instance = instance_of(data)

    with pytest.raises(JSThrow) as caught:
        instance.run_module()()

    assert instance.position(caught.value.__traceback__) == ("reader", 5, 20)
    assert instance.position(sys._getframe()) is None


# -- hostile input -----------------------------------------------------------------------------------------------------

HOSTILE = ["'; import os #", "\x01\x02x", "\\", "\n\r\u2028", "{0.__class__}", "\ud800", "__proto__", "U", '"""']


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_are_only_data(text: str) -> None:
    member = ["get_member", ["object", [["property", text, ["string", text]]], AT], text, text, AT]
    computed = ["object", [["computed", ["string", text], ["template", [text, ["string", text]]]]], AT]
    data = single([give(["array", [["string", text], computed, member], AT])], name=text, slots=1)
    data["name"] = text
    data["functions"][1]["slots"] = [text]
    source = codegen.load(data).source

    assert source.isascii()
    if text != "__proto__":
        assert run(data) == [text, {text: text + text}, text]


@pytest.mark.parametrize(
    "node",
    [
        ["number", "1"],
        ["number", 1],
        ["number", float("inf")],
        ["slot", "0"],
        ["slot", 5],
        ["code", "x"],
        ["ready", "x"],
        ["string", ["x"]],
        ["binary", "or", number(1), number(2)],
        ["unary", "x) or (", number(1)],
        ["global", "__import__"],
        ["closure", 1],
        ["capture", 0],
        ["sequence", []],
        ["get_member", ["null"], "x", None, "1"],
    ],
)
def test_an_invalid_ir_is_refused(node: Any) -> None:
    with pytest.raises(ir.IRError):
        codegen.load(single([give(node)], slots=1))


def test_generated_code_has_no_builtins() -> None:
    workflow = instance_of(single([give(number(1))])).run_module()

    assert workflow.__globals__["__builtins__"] == {}
    assert "__import__" not in workflow.__globals__


def test_only_flow_exceptions_are_caught() -> None:
    inner = ["call", slot(0), "f", [], AT]
    body = [["try", [give(inner)], 1, [give(["string", "caught"])]]]
    data = single(body, params=[0], slots=2)

    def fatal() -> None:
        raise MemoryError

    def recursion() -> None:
        raise RecursionError

    # A plain Python function passes for a flow function here.
    with pytest.raises(MemoryError):
        run(data, fatal)
    assert run(data, recursion) == "caught"


def test_the_flat_form_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    data = single(
        [
            put(0, number(0)),
            ["loop", 0, ["binary", "<", slot(0), number(5)], [], [put(0, ["unary", "inc", slot(0)])], AT],
            give(slot(0)),
        ],
        slots=1,
        labels=1,
    )
    structured = run(data)
    monkeypatch.setattr(codegen_flat, "PYTHON_BLOCKS_MAX", 0)

    assert run(data) == structured == 5.0


def test_slots_may_hold_the_mark_of_uninitialised_variables() -> None:
    body = [["tdz", [0]], ["await", 0, None, number(1), AT], give(["checked", slot(0), "x", AT])]
    data = single(body, kind="async", slots=1, awaits=[{"live": [0], "pos": [1, 1], "text": ""}])
    instance = instance_of(data)
    promise = instance.run_module()()
    frame = instance.realm.queue[0][0]

    assert frame.slots == (TDZ,)
    instance.realm.drain()
    assert promise.value.kind == "ReferenceError"
