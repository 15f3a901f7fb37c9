"""Expressions, and the base of the lowering: slots, cells, captures, temporaries.

``needs_statements`` says beforehand whether an expression can stay one. Where an operand needs statements, the operands
before it are spilled into temporaries first; ``spill`` leaves alone what cannot change (constants, temporaries,
variables that are never assigned again).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rhythm.language import nodes
from rhythm.language.ir import Node, pack_position
from rhythm.language.lower_texts import TEXT_LENGTH_MAX, PresentMember, text_of, text_of_iterable
from rhythm.language.names import GLOBAL_NAMES
from rhythm.language.nodes import Binding, FunctionInfo
from rhythm.language.units import to_units

if TYPE_CHECKING:
    from rhythm.language.lower import _Unit

DEPTH_KEPT: Final = 36  #: Nesting up to which an expression stays whole; the IR allows some more.
HELD_MAX: Final = (
    64  #: Parts of one literal or call kept apart across an await; more are put together, as each is a slot.
)
SPINE_RUN: Final = 10  #: Operators of an overlong chain between two spills.
_CONSTANTS: Final = frozenset(["number", "string", "true", "false", "null", "undefined", "nan", "infinity", "global"])
_SPECIAL: Final = {"undefined": "undefined", "NaN": "nan", "Infinity": "infinity"}
_WEIGHTS: Final[dict[type[nodes.Node], int]] = {
    nodes.ChainExpression: 3,
    nodes.UpdateExpression: 4,
    nodes.AssignmentExpression: 4,
    nodes.TemplateLiteral: 2,
}
_SPINE = (
    nodes.BinaryExpression,
    nodes.LogicalExpression,
    nodes.MemberExpression,
    nodes.CallExpression,
    nodes.ChainExpression,
)


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


class ExpressionLowering:
    """Expressions of one function."""

    record: dict[str, Any]

    def __init__(self, unit: _Unit, info: FunctionInfo, parent: ExpressionLowering | None, node: nodes.Node) -> None:
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

    def spill(self, value: Node, node: nodes.Node) -> Node:
        """The value in a temporary, evaluated now, unless it cannot change later."""
        if value[0] in _CONSTANTS or (value[0] == "slot" and value[1] in self.temporaries):
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

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, node: nodes.Node) -> Node:
        if isinstance(node, nodes.Identifier):
            return self.read(node)
        if isinstance(node, nodes.Literal):
            return self.literal(node)
        if isinstance(node, nodes.FunctionExpression | nodes.ArrowFunctionExpression):
            return self.closure(node)
        result = getattr(self, _METHODS[node.__class__])(node)
        assert isinstance(result, list), "expression methods give IR"
        return result

    def discard(self, node: nodes.Expression) -> None:
        """An expression for its effects."""
        if isinstance(node, nodes.AwaitExpression):
            self.suspend(node, None)
            return
        if (
            isinstance(node, nodes.AssignmentExpression)
            and node.operator == "="
            and isinstance(node.left, nodes.Identifier)
        ):
            self.store_variable(node.left, self.expression(node.right))
            return
        if isinstance(node, nodes.UpdateExpression) and not node.prefix:
            node.prefix = True  # the old value is not used
        value = self.expression(node)
        if value[0] == "assign":
            self.emit("set", value[1], value[2], self.position(node))
        elif not (value[0] in _CONSTANTS or (value[0] == "slot" and value[1] in self.temporaries)):
            self.emit("expr", value, self.position(node))

    def literal(self, node: nodes.Literal) -> Node:
        value = node.value
        if value is None:
            return ["null"]
        if value is True or value is False:
            return ["true" if value else "false"]
        if isinstance(value, str):
            return ["string", value]
        return ["infinity"] if value == float("inf") else ["number", float(value)]

    def closure(self, node: nodes.FunctionNode | nodes.WorkflowDeclaration) -> Node:
        return ["closure", self.nested(node)]

    def suspend(self, node: nodes.AwaitExpression, slot: int | None) -> None:
        value = self.expression(node.argument)
        text = self.unit.source[node.argument.start : node.argument.end]
        index = len(self.awaits)
        text = " ".join(text.split())[:TEXT_LENGTH_MAX]
        self.awaits.append({"live": [], "pos": list(self.unit.lines.position(node.start)), "text": to_units(text)})
        self.emit("await", index, slot, value, self.position(node))

    def await_expression(self, node: nodes.AwaitExpression) -> Node:
        slot = self.new_slot("")
        self.suspend(node, slot)
        return ["slot", slot]

    def template(self, node: nodes.TemplateLiteral) -> Node:
        parts: list[Any] = []
        deep, last = self.is_deep(node), self.last_needing(node.expressions)
        for index, quasi in enumerate(node.quasis):
            if quasi:
                parts.append(quasi)
            if index < len(node.expressions):
                inner = node.expressions[index]
                value = self.expression(inner)
                if deep or index < last:
                    value = self.spill(["unary", "string", value], node)
                parts.append(value)
                if index < last and len(parts) >= HELD_MAX:
                    parts = [self.spill_always(["template", parts], node)]
        return ["template", parts]

    def arguments(self, arguments: Sequence[nodes.Node], within: nodes.Node) -> list[Node]:
        """Elements of an array literal or arguments of a call."""
        values: list[Node] = []
        spreads = sum(isinstance(argument, nodes.SpreadElement) for argument in arguments)
        deep, last = self.is_deep(within), self.last_needing(arguments)
        for index, argument in enumerate(arguments):
            inner = argument.argument if isinstance(argument, nodes.SpreadElement) else argument
            value = self.expression(inner)
            spill = deep or index < last
            if isinstance(argument, nodes.SpreadElement):
                if isinstance(within, nodes.ArrayExpression):
                    text: str | None = text_of_iterable(inner)
                else:  # V8 has a message of its own for a spread that is the only one and the last argument
                    text = text_of(inner) if spreads == 1 and index == len(arguments) - 1 else None
                if spill:
                    value = self.spill_always(["array", [["spread", value, text]], self.position(inner)], inner)
                    text = None
                values.append(["spread", value, text])
            else:
                values.append(self.spill(value, inner) if spill else value)
            if index < last and len(values) >= HELD_MAX:
                values = [["spread", self.spill_always(["array", values, self.position(inner)], inner), None]]
        return values

    def array(self, node: nodes.ArrayExpression) -> Node:
        return ["array", self.arguments(node.elements, node), self.position(node)]

    def object(self, node: nodes.ObjectExpression) -> Node:
        entries: list[Node] = []
        deep, last = self.is_deep(node), self.last_needing(node.properties)
        for index, item in enumerate(node.properties):
            spill = deep or index < last
            if isinstance(item, nodes.SpreadElement):
                entries.append(["spread", self.expression(item.argument)])
                if spill:  # what is spread is copied now
                    entries = [["spread", self.spill_always(["object", entries, self.position(node)], node)]]
                continue
            if item.computed:
                key: Node = ["unary", "key", self.expression(item.key)]
                if spill or self.needs_statements(item.value):
                    key = self.spill(key, node)
                value = self.expression(item.value)
                entries.append(["computed", key, self.spill(value, item.value) if spill else value])
                continue
            if index < last and len(entries) >= HELD_MAX:
                entries = [["spread", self.spill_always(["object", entries, self.position(node)], node)]]
            name = item.key.name if isinstance(item.key, nodes.Identifier) else str(getattr(item.key, "value", ""))
            value = self.expression(item.value)
            entries.append(["property", name, self.spill(value, item.value) if spill else value])
        return ["object", entries, self.position(node)]

    def unary(self, node: nodes.UnaryExpression) -> Node:
        argument, operator = node.argument, node.operator
        if (
            operator == "typeof"
            and isinstance(argument, nodes.Identifier)
            and argument.binding is None
            and argument.name not in GLOBAL_NAMES
        ):
            return ["string", "undefined"]
        if operator == "delete":
            return self.delete(argument)
        if operator == "-" and isinstance(argument, nodes.Literal) and isinstance(argument.value, float):
            inner = self.literal(argument)
            return ["number", -inner[1]] if inner[0] == "number" else ["unary", "-", inner]
        (value,) = self.operands(argument, within=node)
        if operator == "void":
            return ["sequence", [value, ["undefined"]]]
        return ["unary", operator, value]

    def delete(self, target: nodes.Expression) -> Node:
        if isinstance(target, nodes.MemberExpression):
            return self.chain(target, delete=True)
        if isinstance(target, nodes.ChainExpression):
            return self.chain(target, delete=True)
        return ["sequence", [self.expression(target), ["true"]]]

    def binary(self, node: nodes.BinaryExpression) -> Node:
        spine: list[nodes.BinaryExpression] = [node]
        while isinstance(spine[-1].left, nodes.BinaryExpression):
            spine.append(spine[-1].left)
        value = self.expression(spine[-1].left)
        value_node: nodes.Node = spine[-1].left
        run = DEPTH_KEPT
        for item in reversed(spine):
            if self.needs_statements(item.right):
                value = self.spill(value, value_node)
            right = self.expression(item.right)
            if item.operator == "in":
                value = ["in", value, right, self.position(item)]
            elif item.operator == "instanceof":
                value = ["instanceof", value, right, self.position(item)]
            else:
                value = ["binary", item.operator, value, right]
            value_node = item
            run += 1
            if self.is_deep(item) and run >= SPINE_RUN:
                value, run = self.spill(value, item), 0
        return value

    def logical(self, node: nodes.LogicalExpression) -> Node:
        spine: list[nodes.LogicalExpression] = [node]
        while isinstance(spine[-1].left, nodes.LogicalExpression):
            spine.append(spine[-1].left)
        value = self.expression(spine[-1].left)
        for item in reversed(spine):
            if not self.needs_statements(item):
                kind = {"&&": "and", "||": "or", "??": "coalesce"}[item.operator]
                value = [kind, value, self.expression(item.right)]
                continue
            value = self.choose(item.operator, value, item.right, item)
        return value

    def choose(
        self,
        operator: str,
        value: Node,
        right: nodes.Node,
        node: nodes.Node,
        store: Callable[[Node], Node] | None = None,
    ) -> Node:
        """``value && right`` and its siblings, by statements; ``store`` is applied to the right side."""
        slot = self.new_slot("")
        self.temporaries.discard(slot)
        self.set_slot(slot, value, node)
        held: Node = ["slot", slot]
        test: Node = (
            ["unary", "nullish", held] if operator == "??" else held if operator == "&&" else ["unary", "!", held]
        )

        def fill() -> None:
            result = self.expression(right)
            self.set_slot(slot, store(result) if store else result, node)

        self.emit("if", [[test, self.collect(fill)]], [], self.position(node))
        self.temporaries.add(slot)
        return held

    def conditional(self, node: nodes.ConditionalExpression) -> Node:
        if not self.needs_statements(node):
            return [
                "conditional",
                self.expression(node.test),
                self.expression(node.consequent),
                self.expression(node.alternate),
            ]
        slot = self.new_slot("")
        arms: list[Any] = []
        test = self.expression(node.test)
        arms = [[test, self.collect(lambda: self.set_slot(slot, self.expression(node.consequent), node.consequent))]]
        other = self.collect(lambda: self.set_slot(slot, self.expression(node.alternate), node.alternate))
        self.emit("if", arms, other, self.position(node))
        return ["slot", slot]

    def sequence(self, node: nodes.SequenceExpression) -> Node:
        if not self.needs_statements(node):
            return ["sequence", [self.expression(part) for part in node.expressions]]
        for part in node.expressions[:-1]:
            self.discard(part)
        return self.expression(node.expressions[-1])

    def new(self, node: nodes.NewExpression) -> Node:
        callee = self.expression(node.callee)
        if any(self.needs_statements(argument) for argument in node.arguments) or self.is_deep(node):
            callee = self.spill(callee, node.callee)
        return ["new", callee, text_of(node.callee), self.arguments(node.arguments, node), self.position(node)]

    # --- members and calls --------------------------------------------------------------------------------------------

    def chain(self, node: nodes.Expression, *, delete: bool = False) -> Node:
        links: list[nodes.Expression] = [node]
        while isinstance(links[-1], nodes.MemberExpression | nodes.CallExpression | nodes.ChainExpression):
            child = spine_child(links[-1])
            assert isinstance(child, nodes.Expression), "these have a spine"
            links.append(child)
        base = links.pop()
        links.reverse()
        return self.follow(links, self.expression(base), base, delete)

    def follow(self, links: list[nodes.Expression], value: Node, value_node: nodes.Node, delete: bool) -> Node:
        """Applies members and calls to a value, one after the other."""
        index, run = 0, DEPTH_KEPT
        while index < len(links):
            link = links[index]
            following = links[index + 1] if index + 1 < len(links) else None
            if isinstance(link, nodes.ChainExpression):
                index += 1
                continue
            calls_member = isinstance(link, nodes.MemberExpression) and isinstance(following, nodes.CallExpression)
            optional_call = calls_member and isinstance(following, nodes.CallExpression) and following.optional
            if getattr(link, "optional", False) or optional_call:
                # Up to where the chain's short circuit ends; inside another one's, up to its end.
                ends = (i for i in range(index, len(links)) if isinstance(links[i], nodes.ChainExpression))
                end = next(ends, len(links))
                end_node = links[min(end, len(links) - 1)]
                inside_delete = delete and end >= len(links) - 1
                value = self.optional(links[index:end], value, value_node, end_node, inside_delete)
                value_node, index = end_node, end + 1
                if inside_delete:
                    return value
                continue
            if isinstance(link, nodes.MemberExpression):
                if calls_member:
                    assert isinstance(following, nodes.CallExpression), "tested above"
                    value = self.call_member(link, following, value, value_node)
                    value_node, index = following, index + 2
                else:
                    value = self.member_of(link, value, value_node, delete and index == len(links) - 1)
                    value_node, index = link, index + 1
            else:
                assert isinstance(link, nodes.CallExpression), "the other links are handled"
                if any(self.needs_statements(argument) for argument in link.arguments) or self.is_deep(link):
                    value = self.spill(value, value_node)
                arguments = self.arguments(link.arguments, link)
                value = ["call", value, text_of(link.callee), arguments, self.position(link)]
                value_node, index = link, index + 1
            run += 1
            if self.is_deep(value_node) and run >= SPINE_RUN and index < len(links):
                value, run = self.spill(value, value_node), 0
        return value

    def member_of(self, link: nodes.MemberExpression, owner: Node, owner_node: nodes.Node, delete: bool) -> Node:
        text = text_of(link.object)
        if not link.computed:
            assert isinstance(link.property, nodes.Identifier), "plain names are identifiers"
            return [
                "delete_member" if delete else "get_member",
                owner,
                link.property.name,
                text,
                self.position(link.property),
            ]
        if self.needs_statements(link.property):
            owner = self.spill(owner, owner_node)
        key = self.expression(link.property)
        if self.is_deep(link):
            key = self.spill(key, link.property)
        return ["delete_index" if delete else "get_index", owner, key, text, self.position(link.property)]

    def call_member(
        self,
        link: nodes.MemberExpression,
        call: nodes.CallExpression,
        owner: Node,
        owner_node: nodes.Node,
        key: Node | None = None,
    ) -> Node:
        """A call of a method; ``key`` is the computed key when it has been evaluated already."""
        pending = any(self.needs_statements(argument) for argument in call.arguments) or self.is_deep(call)
        position = self.position(link.property)
        if link.computed:
            if pending or (key is None and self.needs_statements(link.property)):
                owner = self.spill(owner, owner_node)
            if key is None:
                key = self.expression(link.property)
                if pending:
                    held = self.spill(key, link.property)
                    key = self.spill_always(self.key_of(owner, held), link.property)
        elif pending:
            owner = self.spill(owner, owner_node)
        if pending and owner[0] != "global":
            return self.call_held(link, call, owner, key)
        arguments = self.arguments(call.arguments, call)
        if key is not None:
            return ["call_index", owner, key, text_of(link), arguments, position]
        assert isinstance(link.property, nodes.Identifier), "plain names are identifiers"
        return ["call_method", owner, link.property.name, text_of(link), arguments, position]

    def call_held(
        self, link: nodes.MemberExpression, call: nodes.CallExpression, owner: Node, key: Node | None
    ) -> Node:
        """A call whose method is looked up before arguments that need statements, which may replace the method.

        A method of the program is called as it was looked up. A builtin one needs its receiver, and cannot be
        replaced but by hiding it, so whatever is still the same is called as a method.
        """
        text, position = text_of(link), self.position(link.property)
        method = self.spill_always(self.get_property(link, owner, key), link)
        arguments = [
            ["spread", self.spill(argument[1], node), argument[2]]
            if argument[0] == "spread"
            else self.spill(argument, node)
            for argument, node in zip(self.arguments(call.arguments, call), call.arguments, strict=True)
        ]
        if key is not None:
            called = ["call_index", owner, key, text, arguments, position]
        else:
            assert isinstance(link.property, nodes.Identifier), "plain names are identifiers"
            called = ["call_method", owner, link.property.name, text, arguments, position]
        same = ["binary", "===", self.get_property(link, owner, key), method]
        return ["conditional", same, called, ["call", method, text, arguments, position]]

    def optional(
        self, links: list[nodes.Expression], value: Node, value_node: nodes.Node, end: nodes.Node, delete: bool
    ) -> Node:
        """``value?.rest``: undefined (for delete: true) when the value is missing, else the rest of the chain."""
        first = links[0]
        missing: Node = ["true"] if delete else ["undefined"]
        needs = self.needs_statements(end)
        slot = self.new_slot("")
        held: Node = ["slot", slot]
        if needs:
            self.set_slot(slot, value, value_node)
            start: Node = held
        else:
            start = ["assign", held, value]
        tested = start
        plain = [_without_optional(first), *links[1:]]
        key: Node | None = None
        if isinstance(first, nodes.MemberExpression) and not first.optional:
            plain[1] = _without_optional(links[1])
            if first.computed and not isinstance(first.property, nodes.Literal):
                key = ["slot", self.new_slot("")]
                tested = self.member_by_key_held(first, start, held, key, needs)
            else:
                tested = self.member_of(first, start, value_node, False)
        if first.__class__ is nodes.CallExpression or (isinstance(first, nodes.MemberExpression) and first.optional):
            tested = start

        def rest() -> Node:
            if key is None:
                return self.follow(plain, held, value_node, delete)
            method, call = plain[0], plain[1]
            assert isinstance(method, nodes.MemberExpression) and isinstance(call, nodes.CallExpression), (
                "a method call"
            )
            return self.follow(plain[2:], self.call_member(method, call, held, value_node, key), call, delete)

        if not needs:
            return ["conditional", ["unary", "nullish", tested], missing, rest()]
        result = self.new_slot("")
        body = self.collect(lambda: self.set_slot(result, rest(), end))
        gone = self.collect(lambda: self.set_slot(result, missing, end))
        self.emit("if", [[["unary", "nullish", tested], gone]], body, self.position(end))
        return ["slot", result]

    def key_of(self, owner: Node, key: Node) -> Node:
        """A key, in a temporary like its owner, as a property key: once, and after the owner has been found missing."""
        if key[0] in _CONSTANTS:
            return key
        return ["conditional", ["unary", "nullish", owner], key, ["unary", "key", key]]

    def member_by_key_held(
        self, link: nodes.MemberExpression, start: Node, owner: Node, key: Node, needs: bool
    ) -> Node:
        """The method that ``owner[key]?.(…)`` tests before it calls it; its key is kept in a slot."""
        value = self.expression(link.property)
        converted = self.key_of(owner, key)
        if needs:
            self.set_slot(key[1], value, link.property)
            self.set_slot(key[1], converted, link.property)
            return self.get_property(link, owner, key)
        keep: Node = ["sequence", [["assign", key, value], ["assign", key, converted]]]
        return self.get_property(link, start, keep)

    # --- assignment ---------------------------------------------------------------------------------------------------

    def get_property(self, node: nodes.MemberExpression, owner: Node, key: Node | None) -> Node:
        text = text_of(node.object)
        if key is not None:
            return ["get_index", owner, key, text, self.position(node.property)]
        assert isinstance(node.property, nodes.Identifier), "plain names are identifiers"
        return ["get_member", owner, node.property.name, text, self.position(node.property)]

    def set_property(self, node: nodes.MemberExpression, owner: Node, key: Node | None, value: Node) -> Node:
        text = text_of(node.object)
        if key is not None:
            return ["set_index", owner, key, value, text, self.position(node.property)]
        assert isinstance(node.property, nodes.Identifier), "plain names are identifiers"
        return ["set_member", owner, node.property.name, value, text, self.position(node.property)]

    def assignment(self, node: nodes.AssignmentExpression) -> Node:
        left, right, operator = node.left, node.right, node.operator
        if isinstance(left, nodes.Identifier):
            return self.assign_variable(left, right, operator, node)
        if isinstance(left, nodes.MemberExpression):
            if operator == "=":
                return self.assign_member(left, right, node)
            return self.update_member(left, right, operator, node)
        value = self.spill(self.expression(right), right)
        self.assign_pattern(left, value, text_of(right) if isinstance(left, nodes.ObjectPattern) else None)
        return value

    def assign_variable(self, left: nodes.Identifier, right: nodes.Expression, operator: str, node: nodes.Node) -> Node:
        if operator == "=":
            (value,) = self.operands(right, within=node)
            return self.assign(left, value)
        current = self.read(left)
        if operator in ("&&=", "||=", "??="):
            short = operator[:-1]
            if not self.needs_statements(right) and not self.is_deep(node):
                kind = {"&&": "and", "||": "or", "??": "coalesce"}[short]
                return [kind, current, self.assign(left, self.expression(right))]
            return self.choose(short, current, right, node, store=lambda value: self.assign(left, value))
        if self.needs_statements(right) or self.is_deep(node):
            current = self.spill_always(current, left)
        binding = left.binding
        assert binding is not None, "assignments to builtins are errors"
        return ["assign", self.variable(binding), ["binary", operator[:-1], current, self.expression(right)]]

    def assign_member(self, left: nodes.MemberExpression, right: nodes.Expression, node: nodes.Node) -> Node:
        if left.computed:
            owner, key, value = self.operands(left.object, left.property, right, within=node)
            return self.set_property(left, owner, key, value)
        owner, value = self.operands(left.object, right, within=node)
        return self.set_property(left, owner, None, value)

    def hold(self, value: Node, node: nodes.Node, needs: bool) -> tuple[Node, Node]:
        """(first use, later uses) of an operand that is used more than once."""
        if value[0] in _CONSTANTS:
            return value, value
        if needs:
            held = self.spill(value, node)
            return held, held
        slot = self.new_slot("")
        return ["assign", ["slot", slot], value], ["slot", slot]

    def update_member(
        self, left: nodes.MemberExpression, right: nodes.Expression, operator: str, node: nodes.Node
    ) -> Node:
        needs = self.needs_statements(node)
        parts = [left.object, left.property] if left.computed else [left.object]
        values = self.operands(*parts, within=node)
        owner_first, owner = self.hold(values[0], left.object, needs)
        key_first, key = self.hold(values[1], left.property, needs) if left.computed else (None, None)
        if operator in ("&&=", "||=", "??="):
            short = operator[:-1]
            current = self.get_property(left, owner_first, key_first)
            if needs:
                return self.choose(
                    short, current, right, node, store=lambda value: self.set_property(left, owner, key, value)
                )
            kind = {"&&": "and", "||": "or", "??": "coalesce"}[short]
            return [kind, current, self.set_property(left, owner, key, self.expression(right))]
        if needs:
            current = self.spill_always(self.get_property(left, owner, key), left)
            return self.set_property(left, owner, key, ["binary", operator[:-1], current, self.expression(right)])
        current = self.get_property(left, owner, key)
        return self.set_property(
            left, owner_first, key_first, ["binary", operator[:-1], current, self.expression(right)]
        )

    def update(self, node: nodes.UpdateExpression) -> Node:
        step = "inc" if node.operator == "++" else "dec"
        target = node.argument
        if isinstance(target, nodes.Identifier):
            current = self.read(target)
            binding = target.binding
            assert binding is not None, "assignments to builtins are errors"
            variable = self.variable(binding)
            if node.prefix:
                return ["assign", variable, ["unary", step, current]]
            slot = self.new_slot("")
            old: Node = ["slot", slot]
            return [
                "sequence",
                [["assign", old, ["unary", "+", current]], ["assign", variable, ["unary", step, old]], old],
            ]
        assert isinstance(target, nodes.MemberExpression), "the parser allows no other target"
        needs = self.needs_statements(node)
        parts = [target.object, target.property] if target.computed else [target.object]
        values = self.operands(*parts, within=node)
        owner_first, owner = self.hold(values[0], target.object, needs)
        key_first, key = self.hold(values[1], target.property, needs) if target.computed else (None, None)
        if node.prefix:
            return self.set_property(
                target, owner_first, key_first, ["unary", step, self.get_property(target, owner, key)]
            )
        slot = self.new_slot("")
        old = ["slot", slot]
        return [
            "sequence",
            [
                ["assign", old, ["unary", "+", self.get_property(target, owner_first, key_first)]],
                self.set_property(target, owner, key, ["unary", step, old]),
                old,
            ],
        ]


def _without_optional(link: nodes.Expression) -> nodes.Expression:
    """The same link without its ``?.``, which has been dealt with."""
    if isinstance(link, nodes.MemberExpression) and link.optional:
        return PresentMember(link.start, link.end, link.object, link.property, link.computed, False)
    if isinstance(link, nodes.CallExpression):
        return nodes.CallExpression(link.start, link.end, link.callee, link.arguments, False)
    return link


_METHODS: Final[dict[type[nodes.Node], str]] = {
    nodes.TemplateLiteral: "template",
    nodes.ArrayExpression: "array",
    nodes.ObjectExpression: "object",
    nodes.UnaryExpression: "unary",
    nodes.UpdateExpression: "update",
    nodes.BinaryExpression: "binary",
    nodes.LogicalExpression: "logical",
    nodes.AssignmentExpression: "assignment",
    nodes.ConditionalExpression: "conditional",
    nodes.MemberExpression: "chain",
    nodes.CallExpression: "chain",
    nodes.ChainExpression: "chain",
    nodes.NewExpression: "new",
    nodes.SequenceExpression: "sequence",
    nodes.AwaitExpression: "await_expression",
}
