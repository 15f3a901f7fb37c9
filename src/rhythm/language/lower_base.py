"""The base of the lowering: slots, cells, captures, temporaries, and what an expression needs.

``needs_statements`` says beforehand whether an expression can stay one. Where an operand needs statements, the operands
before it are spilled into temporaries first; ``spill`` leaves alone what cannot change (constants, temporaries,
variables that are never assigned again).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rhythm.language import nodes
from rhythm.language.ir import Node, pack_position
from rhythm.language.names import GLOBAL_NAMES
from rhythm.language.nodes import Binding, FunctionInfo

if TYPE_CHECKING:
    from rhythm.language.lower import _Unit

DEPTH_KEPT: Final = 36  #: Nesting up to which an expression stays whole; the IR allows some more.
#: Parts of one literal or call kept apart across an await; more are put together, as each is a slot.
HELD_MAX: Final = 64
SPINE_RUN: Final = 10  #: Operators of an overlong chain between two spills.
CONSTANTS: Final = frozenset(["number", "string", "true", "false", "null", "undefined", "nan", "infinity", "global"])
_SPECIAL: Final = {"undefined": "undefined", "NaN": "nan", "Infinity": "infinity"}
_WEIGHTS: Final[dict[type[nodes.Node], int]] = {
    nodes.ChainExpression: 3,
    nodes.UpdateExpression: 4,
    nodes.AssignmentExpression: 4,
    nodes.TemplateLiteral: 2,
}


def spine_child(node: nodes.Node) -> nodes.Node | None:
    """The operand of a node on whose side trees may be of any depth."""
    if isinstance(node, nodes.BinaryExpression | nodes.LogicalExpression):
        return node.left
    if isinstance(node, nodes.MemberExpression):
        return node.object
    if isinstance(node, nodes.CallExpression):
        return node.callee
    if isinstance(node, nodes.ChainExpression):
        return node.expression
    return None


def other_children(node: nodes.Node) -> Sequence[nodes.Node]:
    """The operands of an expression except the spine's; functions have none."""
    if isinstance(node, nodes.BinaryExpression | nodes.LogicalExpression):
        return (node.right,)
    if isinstance(node, nodes.MemberExpression):
        return (node.property,) if node.computed else ()
    if isinstance(node, nodes.CallExpression):
        return node.arguments
    if isinstance(node, nodes.TemplateLiteral):
        return node.expressions
    if isinstance(node, nodes.ArrayExpression):
        return node.elements
    if isinstance(node, nodes.ObjectExpression):
        return node.properties
    if isinstance(node, nodes.Property):
        return (node.key, node.value) if node.computed else (node.value,)
    if isinstance(node, nodes.UnaryExpression | nodes.UpdateExpression | nodes.SpreadElement | nodes.AwaitExpression):
        return (node.argument,)
    if isinstance(node, nodes.AssignmentExpression):
        return (node.left, node.right)
    if isinstance(node, nodes.ConditionalExpression):
        return (node.test, node.consequent, node.alternate)
    if isinstance(node, nodes.NewExpression):
        return (node.callee, *node.arguments)
    if isinstance(node, nodes.SequenceExpression):
        return node.expressions
    return ()


class Lowering:
    """What is being written of one function."""

    record: dict[str, Any]

    def __init__(self, unit: _Unit, info: FunctionInfo, parent: Lowering | None, node: nodes.Node) -> None:
        self.unit = unit
        self.info = info
        self.parent = parent
        self.slots: list[str] = []
        self.cells: set[int] = set()
        self.slot_of: dict[Binding, int] = {}
        self.captures: list[Node] = []
        self.capture_of: dict[Binding, int] = {}
        self.temporaries: set[int] = set()
        self.label_count = 0
        self.awaits: list[dict[str, Any]] = []
        self.out: list[Node] = []
        self.metrics: dict[nodes.Node, tuple[int, bool]] = {}
        for binding in info.captures:
            assert parent is not None, "only the file has no parent, and it captures nothing"
            self.capture_of[binding] = len(self.captures)
            self.captures.append(parent.capture_source(binding))

    if TYPE_CHECKING:

        def expression(self, node: nodes.Node) -> Node: ...
        def arguments(self, arguments: Sequence[nodes.Node], within: nodes.Node) -> list[Node]: ...
        def nested(self, node: nodes.FunctionNode | nodes.WorkflowDeclaration) -> int: ...
        def assign_pattern(
            self, target: nodes.Pattern, value: Node, text: str | None, *, nested: bool = False
        ) -> None: ...

    # --- output -------------------------------------------------------------------------------------------------------

    def emit(self, *statement: Any) -> None:
        self.out.append(list(statement))

    def collect(self, fill: Callable[[], object]) -> list[Node]:
        """The statements that ``fill`` emits, as a body of their own."""
        outer, self.out = self.out, []
        try:
            fill()
            return self.out
        finally:
            self.out = outer

    def position(self, node: nodes.Node) -> int:
        return pack_position(*self.unit.lines.position(node.start))

    def new_slot(self, name: str) -> int:
        self.slots.append(name)
        if not name:
            self.temporaries.add(len(self.slots) - 1)
        return len(self.slots) - 1

    def new_label(self) -> int:
        self.label_count += 1
        return self.label_count - 1

    def set_slot(self, slot: int, value: Node, node: nodes.Node) -> None:
        self.emit("set", ["slot", slot], value, self.position(node))

    def spill_always(self, value: Node, node: nodes.Node) -> Node:
        slot = self.new_slot("")
        self.set_slot(slot, value, node)
        return ["slot", slot]

    def is_settled(self, value: Node) -> bool:
        """Whether it is a constant or a temporary: nothing to evaluate, and nothing that changes."""
        return value[0] in CONSTANTS or (value[0] == "slot" and value[1] in self.temporaries)

    def spill(self, value: Node, node: nodes.Node) -> Node:
        """The value in a temporary, evaluated now, unless it cannot change later."""
        if self.is_settled(value):
            return value
        if (
            isinstance(node, nodes.Identifier)
            and node.binding is not None
            and not node.binding.assigned
            and not node.tdz
        ):
            return value
        return self.spill_always(value, node)

    # --- variables ----------------------------------------------------------------------------------------------------

    def allocate(self, binding: Binding) -> int:
        slot = self.new_slot(binding.name)
        self.slot_of[binding] = slot
        if binding.captured:
            self.cells.add(slot)
        return slot

    def capture_source(self, binding: Binding) -> Node:
        """Where a closure made here takes the cell of a binding from."""
        variable = self.variable(binding)
        if variable[0] == "capture":
            return variable
        assert variable[0] == "cell", "a captured binding has a cell"
        return ["slot", variable[1]]

    def variable(self, binding: Binding) -> Node:
        slot = self.slot_of.get(binding)
        if slot is not None:
            return ["cell" if slot in self.cells else "slot", slot]
        index = self.capture_of.get(binding)
        if index is None:
            if binding.kind == "function-name" and binding.function is self.info:
                index = self.capture_of[binding] = len(self.captures)
                self.captures.append(["self"])
            else:
                raise AssertionError("a name is allocated where its scope is entered")
        return ["capture", index]

    def read(self, node: nodes.Identifier) -> Node:
        binding = node.binding
        if binding is None:
            special = _SPECIAL.get(node.name)
            if special is not None:
                return [special]
            if node.name not in GLOBAL_NAMES:
                return ["undefined"]  # only under typeof
            self.unit.globals.add(node.name)
            return ["global", node.name]
        variable = self.variable(binding)
        if node.tdz:
            return ["checked", variable, node.name, self.position(node)]
        return variable

    def initialise(self, name: nodes.Identifier, value: Node) -> None:
        """The declaration of a name has run."""
        binding = name.binding
        assert binding is not None, "declared names are bound"
        slot = self.slot_of[binding]
        if slot not in self.cells:
            self.emit("set", ["slot", slot], value, self.position(name))
        elif binding.needs_tdz:
            self.emit("set", ["cell", slot], value, self.position(name))
        else:
            self.emit("bind", slot, value, self.position(name))

    def store_variable(self, name: nodes.Identifier, value: Node) -> None:
        binding = name.binding
        assert binding is not None, "assignments to builtins are errors"
        if name.tdz:
            value = self.spill(value, name)
            self.emit("expr", self.read(name), self.position(name))
        self.emit("set", self.variable(binding), value, self.position(name))

    def assign(self, name: nodes.Identifier, value: Node) -> Node:
        """Assignment as an expression."""
        binding = name.binding
        assert binding is not None, "assignments to builtins are errors"
        if not name.tdz:
            return ["assign", self.variable(binding), value]
        slot = self.new_slot("")
        return [
            "sequence",
            [["assign", ["slot", slot], value], self.read(name), ["assign", self.variable(binding), ["slot", slot]]],
        ]

    # --- what an expression needs -------------------------------------------------------------------------------------

    def measure(self, node: nodes.Node) -> tuple[int, bool]:
        """(depth, whether an await or a destructuring assignment is inside)."""
        known = self.metrics.get(node)
        if known is not None:
            return known
        spine = [node]
        while (child := spine_child(spine[-1])) is not None and child not in self.metrics:
            spine.append(child)
        result = (0, False)
        for item in reversed(spine):
            child = spine_child(item)
            depth, needs = self.metrics[child] if child is not None else (0, False)
            for other in other_children(item):
                other_depth, other_needs = self.measure(other)
                depth, needs = max(depth, other_depth), needs or other_needs
            if isinstance(item, nodes.AwaitExpression) or (
                isinstance(item, nodes.AssignmentExpression)
                and isinstance(item.left, nodes.ArrayPattern | nodes.ObjectPattern)
            ):
                needs = True
            result = self.metrics[item] = (depth + _WEIGHTS.get(item.__class__, 1), needs)
        return result

    def needs_statements(self, node: nodes.Node) -> bool:
        depth, needs = self.measure(node)
        return needs or depth > DEPTH_KEPT

    def last_needing(self, parts: Sequence[nodes.Node]) -> int:
        """Index of the last part that needs statements; -1 when none does."""
        return max((index for index, part in enumerate(parts) if self.needs_statements(part)), default=-1)

    def is_deep(self, node: nodes.Node) -> bool:
        return self.measure(node)[0] > DEPTH_KEPT

    def operands(self, *operands: nodes.Node, within: nodes.Node) -> list[Node]:
        """Operands in order, earlier ones spilled where a later one needs statements."""
        values: list[Node] = []
        deep, last = self.is_deep(within), self.last_needing(operands)
        for index, operand in enumerate(operands):
            value = self.expression(operand)
            if deep or index < last:
                value = self.spill(value, operand)
            values.append(value)
        return values
