"""Which slots are still needed where: backwards over the structured IR of one function.

Sets of slots are bit masks. Expressions are walked in reverse order of evaluation, loops to a fixpoint; inside a
``try`` everything the handler needs is needed at every point of the body, because an exception may come from anywhere
in it.

The result fills the ``live`` list of each await. What is needed already at the function's entry is assigned on some
paths only; ``analyse`` returns it, so that the lowering can clear those slots first.
"""

from __future__ import annotations

from rhythm.language.ir import EXPRESSIONS, Function, Json, Node


def analyse(function: Function, functions: list[Function]) -> list[int]:
    """Fills in the live lists; returns the slots needed at entry that are not parameters, ascending."""
    walk = _Liveness(function, functions)
    entry = walk.body(function["body"], 0)
    for index, mask in walk.awaits.items():
        function["awaits"][index]["live"] = _slots(mask)
    for slot in function["params"]:
        entry &= ~(1 << slot)
    if function["rest"] is not None:
        entry &= ~(1 << function["rest"])
    return _slots(entry)


def _bit(slot: int) -> int:
    return 1 << slot


def _slots(mask: int) -> list[int]:
    slots = []
    while mask:  # from set bit to set bit: most of a long function's slots are live nowhere
        lowest = mask & -mask
        slots.append(lowest.bit_length() - 1)
        mask ^= lowest
    return slots


class _Liveness:
    def __init__(self, function: Function, functions: list[Function]) -> None:
        self.functions = functions
        self.awaits: dict[int, int] = dict.fromkeys(range(len(function["awaits"])), 0)
        self.breaks: dict[int, int] = {}
        self.continues: dict[int, int] = {}
        # What each loop needed when it was last visited: nested loops go on from there, instead of starting over
        # for every turn of the outer fixpoint, which would double with each level. What is needed only grows.
        self.heads: dict[int, int] = {}
        self.handler = 0  # what the handlers around need

    def body(self, statements: list[Node], live: int) -> int:
        for statement in reversed(statements):
            live = self.statement(statement, live | self.handler)
        return live | self.handler

    def statement(self, s: Node, live: int) -> int:
        kind = s[0]
        if kind == "set":
            return self.expression(s[2], self.write(s[1], live))
        if kind == "expr":
            return self.expression(s[1], live)
        if kind == "await":
            if s[2] is not None:
                live &= ~(1 << s[2])
            live |= self.handler
            self.awaits[s[1]] |= live
            return self.expression(s[3], live)
        if kind == "if":
            result = self.body(s[2], live)
            for test, arm in reversed(s[1]):
                result = self.expression(test, result | self.body(arm, live))
            return result
        if kind == "bind":
            return self.expression(s[2], live & ~(1 << s[1]))
        if kind in ("fresh", "tdz"):
            for slot in s[1]:
                live &= ~(1 << slot)
            return live
        if kind == "copy":
            for slot in s[1]:
                live |= 1 << slot
            return live
        if kind == "block":
            self.breaks[s[1]] = live
            return self.body(s[2], live)
        if kind == "loop":
            return self.loop(s, live)
        if kind == "for_of":
            return self.for_of(s, live)
        if kind == "break":
            return self.breaks[s[1]] | self.handler
        if kind == "continue":
            return self.continues[s[1]] | self.handler
        if kind in ("return", "throw"):
            return self.expression(s[1], self.handler if kind == "throw" else 0)
        if kind == "try":
            handler = self.body(s[3], live) & ~(1 << s[2])
            outer = self.handler
            self.handler = outer | handler
            result = self.body(s[1], live)
            self.handler = outer
            return result
        if kind == "unpack":
            for slot in [*s[1], s[2]]:
                if slot is not None:
                    live &= ~(1 << slot)
            return self.expression(s[3], live)
        assert kind == "check_object", f"unknown statement {kind}"
        return self.expression(s[1], live)

    def loop(self, s: Node, live: int) -> int:
        _, label, test, body, update, _ = s
        self.breaks[label] = live
        head = self.heads.get(label, 0)
        while True:
            before = head
            again = self.body(update, head)
            self.continues[label] = again
            inside = self.body(body, again)
            head |= self.expression(test, inside | live) if test is not None else inside
            if head == before:
                self.heads[label] = head
                return head

    def for_of(self, s: Node, live: int) -> int:
        _, label, target, iterable, _, body, _ = s
        self.breaks[label] = live
        head = live | self.heads.get(label, 0)
        while True:
            before = head
            self.continues[label] = head
            head |= self.body(body, head) & ~(1 << target)
            if head == before:
                self.heads[label] = head
                return self.expression(iterable, head)

    def write(self, var: Node, live: int) -> int:
        index: int = var[1]
        if var[0] == "slot":
            return live & ~(1 << index)
        if var[0] == "cell":
            return live | 1 << index
        return live

    def expression(self, e: Node, live: int) -> int:
        kind = e[0]
        if kind == "slot" or kind == "cell":
            return live | _bit(e[1])
        if kind == "checked":
            return live | _bit(e[1][1]) if e[1][0] != "capture" else live
        if kind == "assign":
            return self.expression(e[2], self.write(e[1], live))
        if kind in ("and", "or", "coalesce"):
            return self.expression(e[1], live | self.expression(e[2], live))
        if kind == "conditional":
            return self.expression(e[1], self.expression(e[2], live) | self.expression(e[3], live))
        if kind == "closure":
            for capture in self.functions[e[1]]["captures"]:
                if capture[0] == "slot":
                    live |= 1 << capture[1]
            return live
        if kind == "iter_step":
            return live & ~_bit(e[2]) | _bit(e[1])
        fields = EXPRESSIONS[kind]
        for field, value in zip(reversed(fields), reversed(e[1:]), strict=True):
            live = self.field(field, value, live)
        return live

    def field(self, field: str, value: Json, live: int) -> int:
        if field == "expr" or (field == "expr?" and value is not None):
            return self.expression(value, live)
        if field == "slot":
            return live | _bit(value)
        if field in ("exprs", "arguments", "parts", "entries"):
            for item in reversed(value):
                if isinstance(item, str):
                    continue
                if item[0] == "spread":
                    live = self.expression(item[1], live)
                elif field == "entries":
                    live = self.expression(item[2], live)
                    if item[0] == "computed":
                        live = self.expression(item[1], live)
                else:
                    live = self.expression(item, live)
        return live
