"""Random control flow, compared with a direct interpreter of the IR.

Each program runs four ways: as structured Python, flattened into blocks, as an async function whose awaits are
settled at once, and with its frame taken apart and resumed at every await. All must leave the same trace.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from rhythm.language import codegen, codegen_flat, ir
from rhythm.language.promises import Frame, Realm
from rhythm.language.values import UNDEFINED, JSThrow, set_current_realm

Node = list[Any]

SLOTS = 6  #: Plain number slots 0-4; slot 5 holds the trace.
TRACE = 5
SEEDS = 150
STEPS_MAX = 400


class Generator:
    """Writes one random function body."""

    def __init__(self, seed: int, *, awaits: bool) -> None:
        self.random = random.Random(seed)
        self.labels = 0
        self.awaits: list[dict[str, Any]] = []
        self.with_awaits = awaits
        self.budget = 40
        self.next_slot = SLOTS

    def function(self) -> tuple[list[Node], int]:
        body: list[Node] = [["set", ["slot", slot], ["number", float(slot)], 1000001] for slot in range(TRACE)]
        body.append(["set", ["slot", TRACE], ["array", [], 1000001], 1000001])
        body += self.body(0, [], [])
        body.append(["return", ["slot", TRACE], 1000001])
        return body, self.next_slot

    def body(self, depth: int, breaks: list[int], continues: list[int]) -> list[Node]:
        return [self.statement(depth, breaks, continues) for _ in range(self.random.randint(1, 4))]

    def log(self) -> Node:
        item = self.random.choice([self.number(), self.slot()])
        return ["expr", ["call_method", ["slot", TRACE], "push", "t.push", [item], 1000001], 1000001]

    def number(self) -> Node:
        return ["number", float(self.random.randint(0, 9))]

    def slot(self) -> Node:
        return ["slot", self.random.randrange(TRACE)]

    def test(self) -> Node:
        test = ["binary", self.random.choice(["<", ">", "===", "!=="]), self.slot(), self.number()]
        return ["unary", "!", test] if self.random.random() < 0.2 else test

    def statement(self, depth: int, breaks: list[int], continues: list[int]) -> Node:
        self.budget -= 1
        pick = self.random.random()
        if depth > 5 or self.budget < 0 or pick < 0.25:
            return self.log()
        if pick < 0.35:
            operation = self.random.choice(["+", "-", "*"])
            return ["set", self.slot(), ["binary", operation, self.slot(), self.number()], 1000001]
        if pick < 0.42 and self.with_awaits:
            return self.wait()
        if pick < 0.52 and breaks:
            return ["break", self.random.choice(breaks)]
        if pick < 0.6 and continues:
            return ["continue", self.random.choice(continues)]
        if pick < 0.63:
            return ["return", ["slot", TRACE], 1000001]
        if pick < 0.67:
            return ["throw", self.slot(), 1000001]
        if pick < 0.78:
            arms = [[self.test(), self.body(depth + 1, breaks, continues)] for _ in range(self.random.randint(1, 3))]
            return ["if", arms, self.body(depth + 1, breaks, continues) if self.random.random() < 0.5 else [], 1000001]
        return self.nested(depth, breaks, continues)

    def nested(self, depth: int, breaks: list[int], continues: list[int]) -> Node:
        pick = self.random.random()
        if pick < 0.3:
            body = self.body(depth + 1, breaks, continues)
            return ["try", body, self.slot()[1], self.body(depth + 1, breaks, continues)]
        label = self.labels
        self.labels += 1
        if pick < 0.55:
            return ["block", label, self.body(depth + 1, [*breaks, label], continues)]
        if pick < 0.7 and not self.with_awaits:
            items = ["array", [self.number() for _ in range(self.random.randint(0, 3))], 1000001]
            body = self.body(depth + 1, [*breaks, label], [*continues, label])
            return ["for_of", label, self.slot()[1], items, "x", body, 1000001]
        # A loop of at most three turns: its update counts, its body is free.
        counter = self.next_slot
        self.next_slot += 1
        body = self.body(depth + 1, [*breaks, label], [*continues, label])
        update: list[Node] = [["set", ["slot", counter], ["unary", "inc", ["slot", counter]], 1000001]]
        if self.random.random() < 0.4:
            update += [self.statement(depth + 2, [*breaks, label], continues), self.log()]
        test = ["binary", "<", ["slot", counter], ["number", 3.0]]
        if self.random.random() < 0.3:
            update.append(["if", [[["unary", "!", test], [["break", label]]]], [], 1000001])
            test = None
        loop = ["loop", label, test, body, update, 1000001]
        start = ["set", ["slot", counter], ["number", 0.0], 1000001]
        return ["if", [[["true"], [start, loop]]], [], 1000001]

    def wait(self) -> Node:
        self.awaits.append({"live": [], "pos": [1, 1], "text": ""})
        return ["await", len(self.awaits) - 1, self.slot()[1], self.slot(), 1000001]


class Leave(Exception):
    """A jump on its way up in the interpreter."""

    def __init__(self, kind: str, target: Any) -> None:
        super().__init__(kind)
        self.kind = kind
        self.target = target


class Interpreter:
    """Runs a body directly."""

    def __init__(self, slots: int) -> None:
        self.slots: list[Any] = [None] * slots
        self.steps = 0

    def run(self, body: list[Node]) -> Any:
        try:
            self.body(body)
        except Leave as leave:
            return (leave.kind, leave.target)
        except JSThrow as error:
            return ("throw", error.value, self.slots[TRACE])
        raise AssertionError("ran off the end")

    def body(self, statements: list[Node]) -> None:
        for statement in statements:
            self.statement(statement)

    def value(self, node: Node) -> Any:
        kind = node[0]
        if kind == "slot":
            return self.slots[node[1]]
        if kind == "number":
            return node[1]
        if kind == "true":
            return True
        if kind == "array":
            return [self.value(item) for item in node[1]]
        if kind == "unary":
            operand = self.value(node[2])
            return not operand if node[1] == "!" else operand + 1.0
        if kind == "call_method":
            return self.value(node[1]).append(self.value(node[4][0]))
        left, right = self.value(node[2]), self.value(node[3])
        return {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
            "<": lambda: left < right,
            ">": lambda: left > right,
            "===": lambda: left == right,
            "!==": lambda: left != right,
        }[node[1]]()

    def statement(self, statement: Node) -> None:
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise OverflowError
        kind = statement[0]
        if kind == "expr":
            self.value(statement[1])
        elif kind == "set":
            self.slots[statement[1][1]] = self.value(statement[2])
        elif kind == "await":
            self.slots[statement[2]] = self.value(statement[3])
        elif kind in ("break", "continue", "return"):
            raise Leave(kind, statement[1] if kind != "return" else self.value(statement[1]))
        elif kind == "throw":
            raise JSThrow(self.value(statement[1]))
        elif kind == "if":
            for test, body in statement[1]:
                if self.value(test):
                    self.body(body)
                    return
            self.body(statement[2])
        elif kind == "try":
            try:
                self.body(statement[1])
            except JSThrow as error:
                self.slots[statement[2]] = error.value
            else:
                return
            self.body(statement[3])
        elif kind == "block":
            self.leaving("break", statement[1], statement[2])
        elif kind == "for_of":
            for item in self.value(statement[3]):
                self.slots[statement[2]] = item
                if self.turn(statement[1], statement[5]):
                    return
        else:
            self.loop(statement)

    def loop(self, statement: Node) -> None:
        _, label, test, body, update, _ = statement
        while test is None or self.value(test):
            if self.turn(label, body) or self.leaving("break", label, update):
                return

    def turn(self, label: int, body: list[Node]) -> bool:
        """One turn of a loop; True when it broke out."""
        try:
            return self.leaving("break", label, body)
        except Leave as leave:
            if (leave.kind, leave.target) != ("continue", label):
                raise
            return False

    def leaving(self, kind: str, label: int, body: list[Node]) -> bool:
        try:
            self.body(body)
        except Leave as leave:
            if (leave.kind, leave.target) != (kind, label):
                raise
            return True
        return False


def program_of(body: list[Node], slots: int, labels: int, awaits: list[dict[str, Any]]) -> dict[str, Any]:
    function = {
        "id": 1,
        "name": "f",
        "kind": "async" if awaits else "sync",
        "params": [],
        "rest": None,
        "slots": [""] * slots,
        "cells": [],
        "captures": [],
        "labels": labels,
        "awaits": awaits,
        "body": body,
        "pos": [1, 1],
    }
    # The counters are cleared at entry, as the lowering does for slots that may be read unassigned.
    clear = [["set", ["slot", slot], ["number", 0.0], 1000001] for slot in range(SLOTS, slots)]
    function["body"] = clear + body
    module = {**function, "id": 0, "kind": "sync", "slots": [], "labels": 0, "awaits": []}
    module["body"] = [["return", ["closure", 1], 1000001]]
    return {"v": 1, "name": "random", "functions": [module, function], "module": 0, "globals": []}


def run_sync(program: dict[str, Any]) -> Any:
    workflow = instance_of(program).run_module()
    try:
        return ("return", workflow())
    except JSThrow as error:
        return ("throw", error.value)


def instance_of(program: dict[str, Any]) -> codegen.Instance:
    realm = Realm(now_ms=lambda: 0.0, random=lambda: 0.5)
    set_current_realm(realm)
    return codegen.load(program).instantiate(realm)


def without_trace(result: tuple[Any, ...]) -> tuple[Any, ...]:
    return result[:2]


def interpret(body: list[Node], slots: int) -> tuple[Any, ...] | None:
    interpreter = Interpreter(slots)
    interpreter.slots[SLOTS:] = [0.0] * (slots - SLOTS)
    try:
        return interpreter.run(body)  # type: ignore[no-any-return]  # Any inside
    except OverflowError:
        return None


@pytest.mark.parametrize("flat", [False, True], ids=["structured", "flat"])
def test_random_control_flow(flat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if flat:
        monkeypatch.setattr(codegen_flat, "PYTHON_BLOCKS_MAX", 0)
    compared = 0
    for seed in range(SEEDS):
        generator = Generator(seed, awaits=False)
        body, slots = generator.function()
        expected = interpret(body, slots)
        if expected is None:
            continue
        compared += 1

        result = run_sync(program_of(body, slots, generator.labels, []))

        assert without_trace(expected) == result, f"seed {seed}"
    assert compared > SEEDS // 2


@pytest.mark.parametrize("resume", [False, True], ids=["straight", "rebuilt"])
def test_random_control_flow_with_awaits(resume: bool) -> None:
    compared = 0
    for seed in range(SEEDS):
        generator = Generator(seed, awaits=True)
        body, slots = generator.function()
        expected = interpret(body, slots)
        if expected is None or not generator.awaits:
            continue
        compared += 1
        for entry in generator.awaits:
            entry["live"] = list(range(slots))

        result = run_async(program_of(body, slots, generator.labels, generator.awaits), resume=resume)

        assert without_trace(expected) == result, f"seed {seed}"
    assert compared > SEEDS // 4


def run_async(program: dict[str, Any], *, resume: bool) -> tuple[Any, ...]:
    instance = instance_of(program)
    promise = instance.run_module()()
    realm = instance.realm
    queue = realm.queue
    while queue:
        reaction, value, rejected = queue.popleft()
        assert isinstance(reaction, Frame)
        if resume:
            instance = codegen.load(program).instantiate(realm)
        instance.step(reaction, value, rejected)
    assert promise.state != 0
    return ("return" if promise.state == 1 else "throw", promise.value)


def test_the_generated_programs_are_valid() -> None:
    generator = Generator(7, awaits=True)
    body, slots = generator.function()

    ir.validate(program_of(body, slots, generator.labels, generator.awaits))
    assert UNDEFINED is not None
