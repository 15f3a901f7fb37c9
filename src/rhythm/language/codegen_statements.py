"""Statements of the IR as structured Python.

A loop becomes a `while`, a `for_of` a `for`, a `block` a `while True` that runs once (or nothing, when every break of
it stands where the block ends anyway), a `try` a Python try whose handler stands behind it:

    try:
        body
    except h_CAUGHT as e:          JSThrow and RecursionError, nothing else: fatal exceptions pass
        s5 = h_caught(e)
        f1 = True
    if f1:
        handler

so that handlers cost no Python block, and no exception is being handled while flow code runs.

Jumps: the innermost Python loop is left with `break` and `continue`. To reach an outer one, the number of the jump
goes to `j`, the inner loop is left, and a test of `j` behind it goes on from there. A `continue` runs the loop's update
first: its text is repeated, unless that is too long or the jump leaves a try (where the update's exceptions
would be caught); then the loop starts its turns with the update, guarded by a flag.

What does not fit into Python's limits (20 nested blocks, 100 indents) or contains an await is flattened into numbered
blocks by codegen_flat. Statements are visited recursively; codegen.load provides the stack for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rhythm.language.codegen_effects import Effects
from rhythm.language.codegen_inline import InlineWriter
from rhythm.language.codegen_text import (
    Code,
    Constants,
    as_value,
    is_literal,
    mark,
    value_kinds,
)
from rhythm.language.codegen_tree import (
    ARRAY,
    INTEGER,
    NUMBER,
    OBJECT,
    STRING,
    Function,
    Node,
    bodies,
    statement_expressions,
    sub_expressions,
)
from rhythm.language.codegen_types import Analysis

ORDER: Final = frozenset(["<", ">", "<=", ">="])
UPDATE_COPIES_MAX: Final = 60  #: Expression nodes of a loop's update times its `continue`s, up to which it is repeated.
ARMS_MAX: Final = 40  #: Arms in one Python if; Python's compiler recurses for each.
INLINE_TEXT_MAX: Final = 80  #: Longest text of a value that may be written twice.

Jump = tuple[str, int]  #: ("break" | "continue", label), or DISPATCH.
DISPATCH: Final[Jump] = ("dispatch", 0)  #: To the dispatcher of a flat function, `pc` having been set.


@dataclass(slots=True)
class Level:
    """One Python loop around the statement being written."""

    targets: dict[Jump, str]  #: What leaving it by each jump is: "break" or "continue".
    update: list[Node] = field(default_factory=list)  #: Statements before a Python `continue`.
    crossing: dict[int, Jump] = field(default_factory=dict)  #: Jumps that leave this loop for an outer one, by number.


class StatementWriter(InlineWriter):
    """Writes statements in structured form."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        super().__init__(analysis, function, constants)
        self.levels: list[Level] = []
        self.elided: set[int] = set()
        self.uses_jump_number = False
        self._jump_numbers: dict[Jump, int] = {}
        self._flags = 0
        self._outermost = 0  #: Number of levels around the outermost loop of the structured statement being written.
        self._loop_writes: set[int] | None = None  #: Slots assigned in that loop; None outside of loops.
        self._pushed: dict[
            str, bool
        ] = {}  #: Slots of arrays that the loop pushes to, and whether they are known arrays.
        self._breaks = _Breaks(function)
        self.effects = Effects(analysis)

    def flag(self) -> str:
        """Name of a fresh flag variable of the function."""
        self._flags += 1
        return f"f{self._flags}"

    # -- bodies --

    def body(self, statements: list[Node]) -> None:
        """Statements one indent deeper; `pass` when there is nothing to do."""
        self.indent += 1
        before = len(self.lines)
        self.statements(statements)
        if len(self.lines) == before:
            self.emit("pass")
        self.indent -= 1

    def statements(self, statements: list[Node]) -> None:
        """Statements at the present indent, as far as they can be reached."""
        for statement in statements:
            self.statement(statement)
            if statement[0] in ("return", "throw", "break", "continue"):
                break

    def statement(self, statement: Node) -> None:
        """One statement in structured form."""
        self._temporaries = self.reserved
        getattr(self, "_s_" + statement[0])(statement)

    def runs_off(self, statements: list[Node]) -> bool:
        """False when control certainly does not reach the end of the written statements."""
        for statement in statements:
            kind = statement[0]
            if kind in ("return", "throw", "continue"):
                return False
            if kind == "break":
                return statement[1] in self.elided
            if kind == "if" and statement[2]:
                arms = [arm[1] for arm in statement[1]]
                if not any(self.runs_off(arm) for arm in arms) and not self.runs_off(statement[2]):
                    return False
        return True

    # -- simple statements --

    def _s_expr(self, statement: Node) -> None:
        self.position = statement[2]
        self._effect(self.hoist(statement[1]))

    def _effect(self, node: Node) -> None:
        """An expression whose value is not used."""
        kind = node[0]
        if kind == "assign":
            self._store(node[1], node[2])
        elif kind == "set_member":
            self._store_member(node)
        elif kind == "set_index":
            self._store_index(node)
        elif kind == "sequence":
            for item in node[1]:
                self._effect(item)
        elif kind == "call_method" and node[2] == "push" and self._push(node):
            return
        else:
            code = self.code(node)
            if not code.simple:
                self.emit(code.text)

    def _s_set(self, statement: Node) -> None:
        self.position = statement[3]
        self._store(statement[1], self.hoist(statement[2]))

    def _store(self, target: Node, node: Node) -> None:
        if target[0] == "slot" and target[1] in self.integers:
            self._count(target[1], node)
            return
        if node[0] == "binary" and node[1] == "+" and node[2] == target and self._append(target, node):
            return
        name = f"s{target[1]}" if target[0] == "slot" else f"{self.cell_name(target)}[0]"
        self.emit(f"{name} = {self.value(node)}")

    def _count(self, slot: int, node: Node) -> None:
        if node[0] == "unary":
            self.emit(f"s{slot} {'+' if node[1] == 'inc' else '-'}= 1")
        elif node[0] == "binary":
            self.emit(f"s{slot} {node[1]}= {int(node[3][1])}")
        else:
            self.emit(f"s{slot} = {self.integer(node)}")

    def _append(self, target: Node, node: Node) -> bool:
        """`s += x` for a variable that may be a string. Python appends in place when nothing else holds the string."""
        kinds = self.analysis.kinds(self.function_id, node[2])
        if not kinds & STRING:
            return False
        is_slot = target[0] == "slot"
        if not is_slot and not self.is_inert(node[3]):
            return False
        right = self.code(node[3])
        if is_slot and f"(s{target[1]} :=" in right.text:
            return False
        name = f"s{target[1]}" if is_slot else f"{self.cell_name(target)}[0]"
        right_kinds = value_kinds(right)
        if right_kinds == NUMBER:
            if kinds != STRING:
                return False
            self._append_string(name, is_slot, self._held(self._to_text(right, "h_to_string")))
            return True
        operand = right.text
        if not right.simple:
            operand = self.temporary()
            self.emit(f"{operand} = {right.text}")
        if kinds == right_kinds == STRING:
            self._append_string(name, is_slot, operand)
            return True
        if kinds & NUMBER and right_kinds & NUMBER:
            self.emit(f"if {name}.__class__ is {operand}.__class__ is h_float:")
            self._indented(f"{name} = {name} + {operand}")
            word = "elif"
        else:
            word = "if"
        self.emit(f"{word} {name}.__class__ is {operand}.__class__ is h_str:")
        self.indent += 1
        self._append_string(name, is_slot, operand)
        self.indent -= 1
        self.emit("else:")
        self._indented(f"{name} = h_add({name}, {operand})")
        return True

    def _append_string(self, name: str, is_slot: bool, operand: str) -> None:
        if is_slot:
            self.emit(f"{name} += {operand}")
            self.emit(f"if h_len({name}) > h_STRING_MAX: h_long({name})")
            return
        held = self.temporary()
        self.emit(f"{held} = {name}")
        self.emit(f"{name} = None")
        self.emit(f"{held} += {operand}")
        self.emit(f"{name} = {held}")
        self.emit(f"if h_len({held}) > h_STRING_MAX: h_long({held})")
        self.emit(f"{held} = None")

    def _indented(self, text: str) -> None:
        self.indent += 1
        self.emit(text)
        self.indent -= 1

    def _held(self, code: Code, *later: str) -> str:
        """Name of the value; emitted as a statement of its own unless it is a name or constant already."""
        text = as_value(code)
        if code.simple and code.kinds != INTEGER and not any(f"({text} :=" in other for other in later):
            return text
        name = self.temporary()
        self.emit(f"{name} = {text}")
        return name

    def _store_member(self, node: Node) -> None:
        name, position = node[2], node[5]
        target = self.code(node[1])
        value = self.code(node[3])
        text = as_value(value)
        if not value_kinds(target) & OBJECT or name == "__proto__":
            self.emit(self.code(node).text)
            return
        receiver = self._held(target, text)
        if target.kinds == OBJECT:
            self.emit(f"{receiver}[{name!a}] = {text}")
            return
        if not value.simple and len(text) > INLINE_TEXT_MAX:
            text = self._held(value)
        self.emit(f"if {receiver}.__class__ is h_dict: {receiver}[{name!a}] = {text}")
        slow = f"h_set_member({receiver}, {name!a}, {text}, {node[4]!a})"
        self.emit(f"else: {mark(position)}{slow}")

    def _store_index(self, node: Node) -> None:
        position, where = node[5], ascii(node[4])
        target, value = self.code(node[1]), self.code(node[3])
        index = self.integer_or_none(node[2])
        text = as_value(value)
        if index is not None:
            receiver = self._held(target, text)
            if any(f"(s{slot} :=" in text for slot in self.integers):
                held = self.temporary()
                self.emit(f"{held} = {index}")
                index = held
            if not value.simple:
                text = self._held(value)
            inside = f"{index} < h_len({receiver})" if self.is_natural(node[2]) else f"-1 < {index} < h_len({receiver})"
            test = inside if target.kinds == ARRAY else f"{receiver}.__class__ is h_list and {inside}"
            self.emit(f"if {test}: {receiver}[{index}] = {text}")
            self.emit(f"else: {mark(position)}h_set_index({receiver}, {index} + 0.0, {text}, {where})")
            return
        key_code = self.code(node[2])
        key_text = as_value(key_code)
        receiver = self._held(target, key_text, text)
        key = self._held(key_code, text)
        text = self._held(value)
        kinds = value_kinds(key_code)
        word = "if"
        if kinds & STRING:
            test = f"{key}.__class__ is h_str and " if kinds != STRING else ""
            self.emit(f"if {test}{receiver}.__class__ is h_dict and {key} != '__proto__': {receiver}[{key}] = {text}")
            word = "elif"
        if kinds & NUMBER:
            number = self.temporary()
            test = f"{key}.__class__ is h_float and " if kinds != NUMBER else ""
            whole = f"-1.0 < {key} < h_len({receiver}) and ({number} := h_int({key})) == {key}"
            self.emit(f"{word} {test}{receiver}.__class__ is h_list and {whole}: {receiver}[{number}] = {text}")
            word = "elif"
        slow = f"{mark(position)}h_set_index({receiver}, {key}, {text}, {where})"
        self.emit(f"else: {slow}" if word == "elif" else slow)

    def _push(self, node: Node) -> bool:
        """`array.push(x)` as a statement."""
        arguments = node[4]
        if len(arguments) != 1 or arguments[0][0] == "spread" or node[1][0] == "global":
            return False
        target, value = self.code(node[1]), self.code(arguments[0])
        if not value_kinds(target) & ARRAY:
            return False
        text = as_value(value)
        if not value.simple and len(text) > INLINE_TEXT_MAX:
            return False
        receiver = self._held(target, text)
        tests = [] if target.kinds == ARRAY else [f"{receiver}.__class__ is h_list"]
        if node[1][0] == "slot" and self._stays(node[1][1]):
            # One test of the length behind the loop instead of one per turn: 16 of 51 ns (2026-11).
            self._pushed[receiver] = target.kinds == ARRAY
        else:
            tests.append(f"h_len({receiver}) < h_ARRAY_MAX")
        if not tests:
            self.emit(f"{receiver}.append({text})")
            return True
        self.emit(f"if {' and '.join(tests)}: {receiver}.append({text})")
        slow = f"h_method({receiver}, 'push', {node[3]!a})({receiver}, {text})"
        self.emit(f"else: {mark(node[5])}{slow}")
        return True

    def _stays(self, slot: int) -> bool:
        """Whether the statement is inside a Python loop and the slot is not assigned in the outermost one."""
        return self._loop_writes is not None and slot not in self._loop_writes

    def _enter_level(self, level: Level, statement: Node) -> None:
        if self._loop_writes is None:
            self._outermost = len(self.levels)
            self._loop_writes = slots_written(statement)
        self.levels.append(level)

    def _s_bind(self, statement: Node) -> None:
        self.position = statement[3]
        self.emit(f"s{statement[1]} = [{self.value(self.hoist(statement[2]))}]")

    def _s_fresh(self, statement: Node) -> None:
        for slot in statement[1]:
            self.emit(f"s{slot} = [h_TDZ]")

    def _s_copy(self, statement: Node) -> None:
        for slot in statement[1]:
            self.emit(f"s{slot} = [s{slot}[0]]")

    def _s_tdz(self, statement: Node) -> None:
        for slot in statement[1]:
            self.emit(f"s{slot} = h_TDZ")

    def _s_return(self, statement: Node) -> None:
        self.position = statement[2]
        self.emit(f"return {self.value(self.hoist(statement[1]))}")

    def _s_throw(self, statement: Node) -> None:
        self.position = statement[2]
        self.emit(f"raise h_JSThrow({self.value(self.hoist(statement[1]))})")

    def _s_unpack(self, statement: Node) -> None:
        targets, rest, node, text = statement[1], statement[2], statement[3], statement[4]
        self.position = statement[5]
        count = len(targets)
        node = self.hoist(node)
        code = self.code(node)
        first, again = self.hold(Code(as_value(code), value_kinds(code), code.simple and code.kinds != INTEGER))
        names = "".join(f"s{slot}, " if slot is not None else "_, " for slot in targets)
        slow = f"h_unpack({again}, {count}, {rest is not None}, {text!a})"
        comparison = "==" if rest is None else ">="
        if not count and rest is None:
            self.emit(f"h_unpack({as_value(self.code(node))}, 0, False, {text!a})")
            return
        if rest is not None:
            names += f"*s{rest},"
        fast = f"{again} if {first}.__class__ is h_list and h_len({again}) {comparison} {count}"
        self.emit(f"{names} = {fast} else {slow}")

    def _s_check_object(self, statement: Node) -> None:
        self.position = statement[4]
        code = self.code(self.hoist(statement[1], presence=True))
        if is_literal(code):
            return
        first, again = self.hold(code)
        check = f"h_to_object_check({again}, {statement[2]!a}, {statement[3]!a})"
        self.emit(f"if {first} is None or {again} is U: {check}")

    # -- control --

    def _s_if(self, statement: Node) -> None:
        self.position = statement[3]
        arms, otherwise = statement[1], statement[2]
        flag = self.flag() if len(arms) > ARMS_MAX else ""
        if flag:
            self.emit(f"{flag} = False")
        for start in range(0, len(arms), ARMS_MAX):
            if start:
                self.emit(f"if {flag}:")
                self.indent += 1
                self.emit(f"{flag} = False")
            for offset, (test, body) in enumerate(arms[start : start + ARMS_MAX]):
                self.position = statement[3]
                self._temporaries = self.reserved
                if not offset:
                    test = self.hoist(test, presence=True)
                self.emit(f"{'elif' if offset else 'if'} {self.test(test)}:")
                self.body(body)
            if flag:
                self.emit("else:")
                self._indented(f"{flag} = True")
            if start:
                self.indent -= 1
        if flag and otherwise:
            self.emit(f"if {flag}:")
            self.body(otherwise)
        elif otherwise:
            self.emit("else:")
            self.body(otherwise)

    def _s_loop(self, statement: Node) -> None:
        _, label, test, body, update, position = statement
        self.position = position
        level = Level({("break", label): "break", ("continue", label): "continue"})
        sites, in_try = continue_sites(body, label)
        self._temporaries = self.reserved
        if update and sites and (in_try or sites * size_of(update) > UPDATE_COPIES_MAX):
            flag = self.flag()
            self.emit(f"{flag} = False")
            self.emit("while True:")
            self._enter_level(level, statement)
            self.indent += 1
            self.emit(f"if {flag}:")
            self.body(update)
            self.emit(f"else: {flag} = True")
            if test is not None:
                self.position = position
                self._temporaries = self.reserved
                self.emit(f"if not {self.test(self.hoist(test, presence=True))}: break")
            self.statements(body)
            self.indent -= 1
        else:
            reserved = self.reserved
            stable = self._stable_test(test, body, update) if test is not None else ""
            # Not `while test:`, whose backward jump is a conditional one: CPython 3.11 specialises no code for it.
            self.emit("while True:")
            level.update = update
            self._enter_level(level, statement)
            self.indent += 1
            before = len(self.lines)
            if test is not None:
                self.emit(f"if not {stable or self.test(self.hoist(test, presence=True))}: break")
            self.statements(body)
            if self.runs_off(body):
                level.update = []  # The update cannot continue its own loop.
                self.statements(update)
            if len(self.lines) == before:
                self.emit("pass")
            self.indent -= 1
            self.reserved = reserved
        self._leave_level()

    def _stable_test(self, test: Node, body: list[Node], update: list[Node]) -> str:
        """The text of `counter < o.n`, where nothing in the loop can change `o.n`, which is read before the loop.

        What is no number could run code when it is compared: then it is read and compared in each turn. "" when the
        test is another one, or not known to be stable.
        """
        if test[0] != "binary" or test[1] not in ORDER or not self.is_inert(test[2]):
            return ""
        if self.analysis.kinds(self.function_id, test[2]) != NUMBER or not self.is_hoisted(test[3]):
            return ""
        owner = test[3]
        names = set()
        while owner[0] == "get_member" and self.is_hoisted(owner):
            names.add(owner[2])
            owner = owner[1]
        loop = ["loop", 0, None, body, update, 0]
        if owner[0] != "slot" or owner[1] in slots_written(loop):
            return ""
        written = self.effects.of(self.function_id, [loop])
        if written is None or written & names:
            return ""
        bound = self.code(self.hoist(test[3]))
        number = self.temporary()
        self.emit(f"{number} = {bound.text}.__class__ is h_float")
        self.reserved = self._temporaries
        left = self.code(test[2])
        return f"({left.text} {test[1]} {bound.text} if {number} else {self.test(test)})"

    def _s_for_of(self, statement: Node) -> None:
        _, label, slot, node, text, body, position = statement
        self.position = position
        self.emit(f"for s{slot} in {self.iterable(self.hoist(node), text)}:")
        self._enter_level(Level({("break", label): "break", ("continue", label): "continue"}), statement)
        self.body(body)
        self._leave_level()

    def iterable(self, node: Node, text: str | None) -> str:
        """Text of a Python iterable over the values a for-of visits."""
        code = self.code(node)
        if code.kinds == ARRAY:
            return code.text
        first, again = self.hold(Code(as_value(code), code.kinds, code.simple and code.kinds != INTEGER))
        return f"({again} if {first}.__class__ is h_list else h_iterate({again}, {text!a}))"

    def _s_block(self, statement: Node) -> None:
        label, body = statement[1], statement[2]
        if self._breaks.only_at_end(body, label):
            self.elided.add(label)
            self.statements(body)
            return
        self.emit("while True:")
        self._enter_level(Level({("break", label): "break"}), statement)
        self.body(body)
        if self.runs_off(body):
            self._indented("break")
        self._leave_level()

    def _s_try(self, statement: Node) -> None:
        body, slot, handler = statement[1], statement[2], statement[3]
        flag = self.flag() if handler and self.runs_off(body) else ""
        if flag:
            self.emit(f"{flag} = False")
        self.emit("try:")
        self.body(body)
        self.emit("except h_CAUGHT as e:")
        self._indented(f"s{slot} = h_caught(e)")
        if flag:
            self._indented(f"{flag} = True")
            self.emit(f"if {flag}:")
            self.body(handler)
        else:
            self.statements(handler)

    # -- jumps --

    def _s_break(self, statement: Node) -> None:
        if statement[1] not in self.elided:
            self.jump(("break", statement[1]))

    def _s_continue(self, statement: Node) -> None:
        self.jump(("continue", statement[1]))

    def jump(self, jump: Jump) -> None:
        """Leave for a target among the Python loops around."""
        top = len(self.levels) - 1
        depth = top
        while depth >= 0 and jump not in self.levels[depth].targets:
            depth -= 1
        assert depth >= 0, f"no target for {jump}"
        level = self.levels[depth]
        if depth == top:
            if level.targets[jump] == "continue" and level.update:
                update, level.update = level.update, []
                self.statements(update)
                if self.runs_off(update):
                    self.emit("continue")
                level.update = update
            else:
                self.emit(level.targets[jump])
            return
        number = self._jump_numbers.setdefault(jump, len(self._jump_numbers) + 1)
        self.uses_jump_number = True
        for crossed in self.levels[depth + 1 :]:
            crossed.crossing[number] = jump
        self.emit(f"j = {number}")
        self.emit("break")

    def _leave_level(self) -> None:
        """Behind a Python loop: go on with the jumps that left it for an outer one."""
        crossing = self.levels.pop().crossing
        if len(self.levels) == self._outermost:
            self._loop_writes = None
            for name, known in self._pushed.items():
                test = "" if known else f"{name}.__class__ is h_list and "
                self.emit(f"if {test}h_len({name}) > h_ARRAY_MAX: h_long_array({name})")
            self._pushed.clear()
        if not crossing:
            return
        self.emit("if j:")
        self.indent += 1
        reached = [number for number, jump in crossing.items() if self.levels and jump in self.levels[-1].targets]
        for number in reached:
            if len(crossing) > 1:
                self.emit(f"if j == {number}:")
                self.indent += 1
            self.emit("j = 0")
            self.jump(crossing[number])
            if len(crossing) > 1:
                self.indent -= 1
        if len(reached) < len(crossing):
            self.emit("break")
        self.indent -= 1


# -- questions about statements --------------------------------------------------------------------------------------


def continue_sites(body: list[Node], label: int) -> tuple[int, bool]:
    """(number of `continue label` in a body, whether one of them stands inside a try)."""
    count, in_try = 0, False
    pending = [(statement, False) for statement in body]
    while pending:
        statement, inside = pending.pop()
        if statement[0] == "continue" and statement[1] == label:
            count += 1
            in_try = in_try or inside
        inside = inside or statement[0] == "try"
        for inner in bodies(statement):
            pending.extend((item, inside) for item in inner)
    return count, in_try


def size_of(statements: list[Node]) -> int:
    """Number of statements and expression nodes."""
    count = 0
    pending = list(statements)
    expressions: list[Node] = []
    while pending:
        statement = pending.pop()
        count += 1
        expressions.extend(statement_expressions(statement))
        for inner in bodies(statement):
            pending.extend(inner)
    while expressions:
        count += 1
        expressions.extend(sub_expressions(expressions.pop()))
    return count


def slots_written(statement: Node) -> set[int]:
    """Plain slots that a statement or one inside it assigns."""
    written: set[int] = set()
    pending = [statement]
    while pending:
        item = pending.pop()
        kind = item[0]
        if kind == "set" and item[1][0] == "slot":
            written.add(item[1][1])
        elif kind in ("for_of", "await", "try"):
            written.add(item[2])
        elif kind == "tdz":
            written.update(item[1])
        elif kind == "unpack":
            written.update(item[1])
            written.add(item[2])
        expressions = list(statement_expressions(item))
        while expressions:
            node = expressions.pop()
            if node[0] == "assign" and node[1][0] == "slot":
                written.add(node[1][1])
            elif node[0] == "iter_step":
                written.add(node[2])
            expressions.extend(sub_expressions(node))
        for body in bodies(item):
            pending.extend(body)
    return written


def after_order(function: Function) -> Iterator[Node]:
    """Every statement of a function, inner before outer."""
    pending: list[tuple[Node, bool]] = [(statement, False) for statement in reversed(function["body"])]
    while pending:
        statement, visited = pending.pop()
        inner = [] if visited else list(bodies(statement))
        if not inner:
            yield statement
            continue
        pending.append((statement, True))
        for body in inner:
            pending.extend((item, False) for item in body)


class _Breaks:
    """Which labels each statement breaks to."""

    def __init__(self, function: Function) -> None:
        self._labels: dict[int, frozenset[int]] = {}
        for statement in after_order(function):
            if statement[0] == "break":
                self._labels[id(statement)] = frozenset((statement[1],))
                continue
            labels: set[int] = set()
            for body in bodies(statement):
                labels |= self.of_body(body)
            if labels:
                self._labels[id(statement)] = frozenset(labels)

    def of_body(self, body: list[Node]) -> set[int]:
        """Labels that statements of the body break to."""
        return {label for statement in body for label in self._labels.get(id(statement), ())}

    def only_at_end(self, body: list[Node], label: int) -> bool:
        """True when every `break label` in the body stands where the body ends anyway."""
        pending = [body]
        while pending:
            body = pending.pop()
            for statement in body[:-1]:
                if label in self._labels.get(id(statement), ()):
                    return False
            if not body or label not in self._labels.get(id(body[-1]), ()):
                continue
            last = body[-1]
            if last[0] in ("loop", "for_of"):
                return False
            pending.extend(bodies(last))
        return True
