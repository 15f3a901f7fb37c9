"""Expressions; those with an await inside are taken apart into statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rhythm.language import nodes
from rhythm.language.ir import Node
from rhythm.language.lower_base import CONSTANTS, DEPTH_KEPT, HELD_MAX, SPINE_RUN
from rhythm.language.lower_chains import ChainLowering
from rhythm.language.lower_texts import TEXT_LENGTH_MAX, text_of, text_of_iterable
from rhythm.language.names import GLOBAL_NAMES
from rhythm.language.units import to_units

_SHORT: Final = {
    "&&": "and",
    "||": "or",
    "??": "coalesce",
}  #: Kinds of the operators that may leave out their right side.


class ExpressionLowering(ChainLowering):
    """Expressions of one function."""

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
        elif not self.is_settled(value):
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
                kind = _SHORT[item.operator]
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
        if self.last_needing(node.arguments) >= 0 or self.is_deep(node):
            callee = self.spill(callee, node.callee)
        return ["new", callee, text_of(node.callee), self.arguments(node.arguments, node), self.position(node)]

    # --- assignment ---------------------------------------------------------------------------------------------------

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
                kind = _SHORT[short]
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
        if value[0] in CONSTANTS:
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
            kind = _SHORT[short]
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
