"""Functions as numbered basic blocks, and the text of whole functions.

A statement that contains an await, or that is nested too deeply for Python, is flattened: its parts become blocks, and
the function a dispatcher that runs the block numbered `pc` until one returns. Everything else inside it stays
structured, so a loop without an await runs at full speed in an async function too.

    def a_7(frame, pc, value, rejected):             an async function; a deep sync one looks alike
        c0, c1 = frame.cells
        while True:
            try:                                     only when a try contains an await
                if pc < 2:                           a tree of comparisons
                    if pc < 1:
                        s0, s1 = value               block 0: the start, `value` holds the arguments
                        ...
                        t1 = ...                     await 0: the live slots move to the frame,
                        frame.slots = (s1,)          the awaited value is returned
                        frame.await_id = 0
                        return t1
                    else:
                        s1, = frame.slots            block k + 1 resumes await k
                        if rejected: raise h_JSThrow(value)
                        ...
            except h_CAUGHT as e:
                pc = (-1, 4, 4, -1)[pc]              the block of the handler around the block that threw
                if pc < 0: raise
                x = h_caught(e)

`pc` changes only directly before the jump to the dispatcher, so when something throws it names the running block.
A step returns either with `frame.await_id` set and the awaited value, or with its result and `frame.await_id` still -1;
its caller (`launch` in codegen_helpers, then Instance.step) does what promises need, outside every handler.
"""

from __future__ import annotations

from typing import Final

from rhythm.language.codegen_reads import Line
from rhythm.language.codegen_statements import DISPATCH, Jump, Level, StatementWriter, after_order, size_of
from rhythm.language.codegen_text import Constants
from rhythm.language.codegen_tree import NUMBER, Function, Node, bodies, statement_expressions, sub_expressions
from rhythm.language.codegen_types import Analysis, NumericView

PYTHON_BLOCKS_MAX: Final = 13  #: Python loops and try blocks nested in structured form; Python's own limit is 20.
INDENTS_MAX: Final = 50  #: Indents in structured form; Python's own limit is 100.

TWIN_NODES_MAX: Final = 200  #: Nodes of a function that is written a second time for calls with numbers.
TWIN_GUARDS_MIN: Final = 2  #: Guards it must save, beyond the one it costs per parameter.

_NUMERIC_OPERATORS: Final = frozenset(["+", "-", "*", "/", "%", "<", ">", "<=", ">="])
_BASE_INDENT: Final = 2  #: Of the body of a function: build, factory.


class _Block:
    """Lines of one basic block and the block that handles its exceptions (-1: none)."""

    __slots__ = ("handler", "lines")

    def __init__(self, handler: int) -> None:
        self.handler = handler
        self.lines: list[Line] = []


class FunctionWriter(StatementWriter):
    """Writes one function of the program. `write()` gives its lines."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        super().__init__(analysis, function, constants)
        self.blocks: list[_Block] = []
        self.handler = -1
        self.open = True  #: False behind a jump: what follows cannot be reached.
        self.block_targets: dict[Jump, int] = {}
        self.flattened = _flattened(function)

    # -- whole functions --

    def write(self) -> list[Line]:
        """All lines: the factory and, for an async function, its step function."""
        if self.function["kind"] == "async":
            self._write_step()
        self._write_factory()
        return self.lines

    def _write_factory(self) -> None:
        function_id, captures = self.function_id, self.function["captures"]
        cells = ", ".join(f"c{index}" for index in range(len(captures)))
        self.indent = _BASE_INDENT - 1
        self.emit(f"def m_{function_id}({cells}):")
        self.indent += 1
        self.emit(f"def f{function_id}({self._parameters()}):")
        self.indent += 1
        if captures:
            self.emit(f"if False: {cells}")  # Makes every cell a free variable, used or not; compiles to nothing.
        if self.function["kind"] == "async":
            self._write_launch(cells)
        else:
            self._write_body()
        self.indent -= 1
        self.emit(f"return f{function_id}")
        self.indent -= 1
        if ["self"] not in captures:
            return
        self.emit(f"def n_{function_id}({cells}):")
        self.indent += 1
        self.emit(f"f = m_{function_id}({cells})")
        for index, capture in enumerate(captures):
            if capture == ["self"]:
                self.emit(f"c{index}[0] = f")
        self.emit("return f")
        self.indent -= 1

    def _parameters(self) -> str:
        params: list[int] = self.function["params"]
        rest = self.function["rest"]
        escapes = self.function_id in self.analysis.escapes or self.function_id in self.analysis.contents.callbacks
        low, high = (0, len(params) + 1) if escapes else self.analysis.argument_counts.get(self.function_id, (0, 0))
        names = [f"s{slot}" if index < low else f"s{slot}=U" for index, slot in enumerate(params)]
        if rest is not None:
            names.append(f"*s{rest}")
        elif high > len(params):
            names.append("*_")
        return ", ".join(names)

    def _write_body(self) -> None:
        """The body of a sync function."""
        header = len(self.lines)
        if self.function["rest"] is not None:
            self.emit(f"s{self.function['rest']} = [*s{self.function['rest']}]")
        body = self.function["body"]
        if any(id(statement) in self.flattened for statement in body):
            self.emit("pc = 0")
            self._write_flat(body)
        else:
            self.statements(body)
            if self.runs_off(body):
                self.emit("return U")
            self._write_numeric_twin(header)
        if self.uses_jump_number:
            self.lines.insert(header, Line(self.indent, "j = 0", self.position))

    def _write_numeric_twin(self, header: int) -> None:
        """A second body in front of the first, for calls with numbers, where that saves enough guards."""
        body = self.function["body"]
        parameters = self._numeric_parameters()
        if not parameters or self.function["rest"] is not None or size_of(body) > TWIN_NODES_MAX:
            return
        view = NumericView(self.analysis, self.function_id, parameters)
        twin = FunctionWriter(view, self.function, self.constants)
        twin.indent = self.indent + 1
        twin.statements(body)
        if twin.runs_off(body):
            twin.emit("return U")
        if _guards(self.lines[header:]) - _guards(twin.lines) < len(parameters) + TWIN_GUARDS_MIN:
            return
        classes = " is ".join(f"s{slot}.__class__" for slot in parameters)
        test = Line(self.indent, f"if {classes} is h_float:", self.position)
        self.lines[header:header] = [test, *twin.lines]
        self.uses_jump_number = self.uses_jump_number or twin.uses_jump_number

    def _numeric_parameters(self) -> list[int]:
        """Parameters that are operands of arithmetic and could be, but need not be, numbers."""
        used: set[int] = set()
        for statement in after_order(self.function):
            pending = list(statement_expressions(statement))
            while pending:
                node = pending.pop()
                if node[0] == "binary" and node[1] in _NUMERIC_OPERATORS:
                    used.update(item[1] for item in node[2:] if item[0] == "slot")
                pending.extend(sub_expressions(node))
        return [slot for slot in self.function["params"] if slot in used and self._may_be_number(slot)]

    def _may_be_number(self, slot: int) -> bool:
        kinds = self.analysis.kinds(self.function_id, ["slot", slot])
        return bool(kinds & NUMBER and kinds != NUMBER)

    def _write_launch(self, cells: str) -> None:
        """An async function: makes the frame and takes the first step."""
        function_id, rest = self.function_id, self.function["rest"]
        names = [f"s{slot}" for slot in self.function["params"]]
        if rest is not None:
            names.append(f"[*s{rest}]")
        self.emit(f"frame = h_Frame({function_id}, R)")
        if cells:
            self.emit(f"frame.cells = ({cells},)")
        arguments = f"({', '.join(names)},)" if names else "()"
        self.emit(f"return h_launch(frame, a_{function_id}, {arguments})")

    def _write_step(self) -> None:
        self.indent = _BASE_INDENT - 1
        self.emit(f"def a_{self.function_id}(frame, pc, value, rejected):")
        self.indent += 1
        header = len(self.lines)
        captures = self.function["captures"]
        if captures:
            self.emit("".join(f"c{index}, " for index in range(len(captures))) + "= frame.cells")
        params = [f"s{slot}, " for slot in self.function["params"]]
        if self.function["rest"] is not None:
            params.append(f"s{self.function['rest']}, ")
        body = self.function["body"]
        if self.function["awaits"] or any(id(statement) in self.flattened for statement in body):
            self._write_flat(body, "".join(params))
        else:
            if params:
                self.emit("".join(params) + "= value")
            self.statements(body)
            if self.runs_off(body):
                self.emit("return U")
        if self.uses_jump_number:
            self.lines.insert(header, Line(self.indent, "j = 0", self.position))
        self.indent = _BASE_INDENT

    # -- the dispatcher --

    def _write_flat(self, body: list[Node], params: str = "") -> None:
        outer, indent = self.lines, self.indent
        self.blocks = [_Block(-1) for _ in range(len(self.function["awaits"]) + 1)]
        self.levels = [Level({DISPATCH: "continue"})]
        self.indent = 0
        self._enter(0)
        if params:
            self.emit(params + "= value")
        self.flat_body(body)
        if self.open:
            self.emit("return U")
        self.levels = []
        self.lines, self.indent = outer, indent
        if any(block.handler >= 0 for block in self.blocks):
            handlers = ", ".join(str(block.handler) for block in self.blocks)
            self.emit("while True:")
            self.indent += 1
            self.emit("try:")
            self.indent += 1
            self._write_tree(0, len(self.blocks))
            self.indent -= 1
            self.emit("except h_CAUGHT as e:")
            self._indented(f"pc = ({handlers},)[pc]")
            self._indented("if pc < 0: raise")
            self._indented("x = h_caught(e)")
            self.indent -= 1
        else:
            self.emit("while True:")
            self.indent += 1
            self._write_tree(0, len(self.blocks))
            self.indent -= 1

    def _write_tree(self, low: int, high: int) -> None:
        if high - low == 1:
            block = self.blocks[low]
            for line in block.lines:
                self.lines.append(Line(line.indent + self.indent, line.text, line.position))
            if not block.lines:
                self.emit("h_never()")  # An await that cannot be reached.
            return
        middle = (low + high) // 2
        self.emit(f"if pc < {middle}:")
        self.indent += 1
        self._write_tree(low, middle)
        self.indent -= 1
        self.emit("else:")
        self.indent += 1
        self._write_tree(middle, high)
        self.indent -= 1

    def _block(self) -> int:
        """Number of a new block, inside the handler of the present place."""
        self.blocks.append(_Block(self.handler))
        return len(self.blocks) - 1

    def _enter(self, block: int) -> None:
        """What follows belongs to that block."""
        self.lines = self.blocks[block].lines
        self.open = True

    def _go(self, block: int) -> None:
        """End the present block, if its end can be reached, with a jump."""
        if self.open:
            self._goto(block)
            self.open = False

    def _goto(self, block: int) -> None:
        self.emit(f"pc = {block}")
        super().jump(DISPATCH)

    def jump(self, jump: Jump) -> None:
        """Leave for a target among the Python loops around, or else for a block."""
        block = self.block_targets.get(jump)
        if block is None:
            super().jump(jump)
        else:
            self._goto(block)

    # -- flattened statements --

    def flat_body(self, statements: list[Node]) -> None:
        """Statements in sequence, from the present block on; `open` tells whether their end can be reached."""
        for statement in statements:
            if id(statement) in self.flattened:
                self._temporaries = self.reserved
                getattr(self, "_f_" + statement[0])(statement)
            else:
                self.statement(statement)
                if not self.runs_off([statement]):
                    self.open = False
            if not self.open:
                return

    def _f_await(self, statement: Node) -> None:
        _, await_id, slot, node, position = statement
        self.position = position
        live = self.function["awaits"][await_id]["live"]
        awaited = self.value(self.hoist(node))
        values = "".join(f"s{item} + 0.0, " if item in self.integers else f"s{item}, " for item in live)
        name = self.temporary()
        self.emit(f"{name} = {awaited}")
        self.emit(f"frame.slots = ({values})")
        self.emit(f"frame.await_id = {await_id}")
        self.emit(f"return {name}")
        block = await_id + 1
        self.blocks[block].handler = self.handler
        self._enter(block)
        if live:
            self.emit("".join(f"s{item}, " for item in live) + "= frame.slots")
        for item in live:
            if item in self.integers:
                self.emit(f"s{item} = h_int(s{item})")
        if self.handler < 0:
            self.emit("if rejected: raise h_JSThrow(value)")
        else:
            self.emit("if rejected:")
            self.indent += 1
            self.emit("x = value")
            self._goto(self.handler)
            self.indent -= 1
        if slot is not None:
            self.emit(f"s{slot} = value")

    def _f_if(self, statement: Node) -> None:
        arms, otherwise = statement[1], statement[2]
        after = self._block()
        pending: list[tuple[int, list[Node]]] = []
        for test, body in arms:
            self.position = statement[3]
            self._temporaries = self.reserved
            self.emit(f"if {self.test(self.hoist(test, presence=True))}:")
            self.indent += 1
            if any(id(item) in self.flattened for item in body):
                pending.append((self._block(), body))
                self._goto(pending[-1][0])
            else:
                self.statements(body)
                if self.runs_off(body):
                    self._goto(after)
            self.indent -= 1
        self.flat_body(otherwise)
        self._go(after)
        for block, body in pending:
            self._enter(block)
            self.flat_body(body)
            self._go(after)
        self._enter(after)

    def _f_loop(self, statement: Node) -> None:
        _, label, test, body, update, position = statement
        after, head = self._block(), self._block()
        tail = self._block() if update else head
        self.block_targets[("break", label)] = after
        self.block_targets[("continue", label)] = tail
        self._go(head)
        self._enter(head)
        if test is not None:
            self.position = position
            self._temporaries = self.reserved
            self.emit(f"if not {self.test(self.hoist(test, presence=True))}:")
            self.indent += 1
            self._goto(after)
            self.indent -= 1
        self.flat_body(body)
        self._go(tail)
        if update:
            self._enter(tail)
            self.flat_body(update)
            self._go(head)
        self._enter(after)

    def _f_for_of(self, statement: Node) -> None:
        _, label, slot, node, text, body, position = statement
        after, head = self._block(), self._block()
        self.block_targets[("break", label)] = after
        self.block_targets[("continue", label)] = head
        self.position = position
        self.emit(f"q{label} = h_iter({self.iterable(self.hoist(node), text)})")
        self._go(head)
        self._enter(head)
        self._temporaries = self.reserved
        name = self.temporary()
        self.emit(f"if ({name} := h_next(q{label}, h_DONE)) is h_DONE:")
        self.indent += 1
        self._goto(after)
        self.indent -= 1
        self.emit(f"s{slot} = {name}")
        self.flat_body(body)
        self._go(head)
        self._enter(after)

    def _f_block(self, statement: Node) -> None:
        label, body = statement[1], statement[2]
        after = self._block()
        self.block_targets[("break", label)] = after
        self.flat_body(body)
        self._go(after)
        self._enter(after)

    def _f_try(self, statement: Node) -> None:
        body, slot, handler = statement[1], statement[2], statement[3]
        after, caught = self._block(), self._block()
        outer, self.handler = self.handler, caught
        inside = self._block()
        self.handler = outer
        self._go(inside)
        self.handler = caught
        self._enter(inside)
        self.flat_body(body)
        self._go(after)
        self.handler = outer
        self._enter(caught)
        self.emit(f"s{slot} = x")
        self.flat_body(handler)
        self._go(after)
        self._enter(after)


def _guards(lines: list[Line]) -> int:
    return sum(line.text.count(".__class__ is") for line in lines)


def _flattened(function: Function) -> set[int]:
    """Identities of the statements to flatten: those with an await inside, and those nested too deeply."""
    chosen: set[int] = set()
    heights: dict[int, tuple[int, int]] = {}
    for statement in after_order(function):
        kind = statement[0]
        blocks = indents = 0
        for body in bodies(statement):
            for inner in body:
                if id(inner) in chosen:
                    chosen.add(id(statement))
                inner_blocks, inner_indents = heights.get(id(inner), (0, 0))
                blocks = max(blocks, inner_blocks)
                indents = max(indents, inner_indents)
        if kind in ("loop", "for_of", "block", "try"):
            blocks += 1
        if kind in ("loop", "for_of", "block", "try", "if"):
            indents += 2 if kind == "if" else 1
        if kind == "await" or blocks > PYTHON_BLOCKS_MAX or indents > INDENTS_MAX:
            chosen.add(id(statement))
        if id(statement) not in chosen:
            heights[id(statement)] = (blocks, indents)
    return chosen
