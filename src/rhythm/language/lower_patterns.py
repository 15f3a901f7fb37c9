"""Destructuring, in declarations, parameters, catch clauses, loop heads and assignments.

Array patterns whose parts cannot have effects take all their values at once (``unpack``); others step an iterator part
by part, because a default or the target of an assignment may change what is being taken apart.
"""

from __future__ import annotations

from collections.abc import Callable

from rhythm.language import nodes
from rhythm.language.ir import Node
from rhythm.language.lower_expressions import ExpressionLowering
from rhythm.language.lower_texts import UNPRINTED_DEFAULT, text_of, text_of_iterable

Store = Callable[[Node], None]


class PatternLowering(ExpressionLowering):
    """Patterns."""

    def declare_pattern(self, target: nodes.Pattern, value: Node, text: str | None) -> None:
        """Initialises the names of a pattern; ``text`` is the source of the value, for messages."""
        self.take(target, value, text, declare=True)

    def assign_pattern(self, target: nodes.Pattern, value: Node, text: str | None, *, nested: bool = False) -> None:
        """Assigns to the parts of a pattern; ``nested`` when its value is itself a part of something."""
        self.take(target, value, text, declare=False, nested=nested)

    def take(
        self, target: nodes.Pattern, value: Node, text: str | None, *, declare: bool, nested: bool = False
    ) -> None:
        if isinstance(target, nodes.ObjectPattern | nodes.ArrayPattern | nodes.AssignmentPattern):
            self.take_apart(target, value, text, declare, nested=nested)
        else:
            self.target(target, declare)(value)

    def take_apart(
        self, target: nodes.Pattern, value: Node, text: str | None, declare: bool, *, nested: bool = False
    ) -> None:
        if isinstance(target, nodes.AssignmentPattern):
            text = UNPRINTED_DEFAULT if isinstance(target.left, nodes.ObjectPattern) else None
            self.take(target.left, self.default_value(target, value), text, declare=declare)
        elif isinstance(target, nodes.ObjectPattern):
            self.take_object(target, value, text, declare, nested)
        else:
            assert isinstance(target, nodes.ArrayPattern), "the other patterns are leaves"
            self.take_array(target, value, text, declare)

    def target(self, target: nodes.Pattern, declare: bool) -> Store:
        """Evaluates what must be evaluated before the value, and returns what stores the value."""
        if isinstance(target, nodes.AssignmentPattern):
            inner = target
            if isinstance(inner.left, nodes.MemberExpression):
                store = self.target(inner.left, declare)
                return lambda value: store(self.default_value(inner, value))
            return lambda value: self.with_default(inner, value, declare)
        if isinstance(target, nodes.Identifier):
            name = target
            if declare:
                return lambda value: self.initialise(name, value)
            return lambda value: self.store_variable(name, value)
        if isinstance(target, nodes.MemberExpression):
            member = target
            owner = self.spill(self.expression(member.object), member.object)
            key = None if not member.computed else self.spill(self.expression(member.property), member.property)
            return lambda value: self.emit("expr", self.set_property(member, owner, key, value), self.position(member))
        return lambda value: self.take_apart(target, value, None, declare, nested=True)

    def with_default(self, pattern: nodes.AssignmentPattern, value: Node, declare: bool) -> None:
        default = pattern.right
        if isinstance(pattern.left, nodes.ObjectPattern):
            text: str | None = text_of(default)
        else:
            plain = isinstance(default, nodes.Literal | nodes.ObjectExpression | nodes.ArrayExpression)
            text = None if plain else text_of_iterable(default)
        self.take(pattern.left, self.default_value(pattern, value), text, declare=declare)

    def default_value(self, pattern: nodes.AssignmentPattern, value: Node) -> Node:
        """The value, or the default when it is undefined."""
        default = pattern.right
        held = self.spill(value, pattern)
        is_undefined: Node = ["binary", "===", held, ["undefined"]]
        if not self.needs_statements(default):
            return ["conditional", is_undefined, self.expression(default), held]
        result = self.new_slot("")
        arm = self.collect(lambda: self.set_slot(result, self.expression(default), default))
        other = self.collect(lambda: self.set_slot(result, held, pattern))
        self.emit("if", [[is_undefined, arm]], other, self.position(pattern))
        return ["slot", result]

    def take_object(
        self, pattern: nodes.ObjectPattern, value: Node, text: str | None, declare: bool, nested: bool
    ) -> None:
        held = self.spill(value, pattern)
        key_known = self.first_key(pattern)
        # Inside another pattern, and when more than a name takes the first value, V8 complains about reading it.
        if key_known is None or not (nested or self.first_is_read(pattern)):
            self.emit("check_object", held, text, key_known, self.position(pattern))
        taken: list[Node] = []
        for item in pattern.properties:
            if isinstance(item, nodes.RestElement):
                store = self.target(item.argument, declare)
                store(["object_rest", held, taken])
                continue
            if item.computed:
                key: Node = self.spill_always(["unary", "key", self.expression(item.key)], item.key)
                got: Node = ["get_index", held, key, None, self.position(item)]
            else:
                name = item.key.name if isinstance(item.key, nodes.Identifier) else str(getattr(item.key, "value", ""))
                key = ["string", name]
                plain = isinstance(item.key, nodes.Identifier)
                got = ["get_member", held, name, None, self.position(item)] if plain else [
                    "get_index", held, key, None, self.position(item)
                ]  # fmt: skip
            taken.append(key)
            if isinstance(item.value, nodes.ArrayPattern) and not nested:  # here V8 complains about the key it reads
                got = self.spill_always(got, item.value)
                self.emit("check_object", got, text, "Symbol(Symbol.iterator)", self.position(item.value))
            self.target(item.value, declare)(got)

    def first_key(self, pattern: nodes.ObjectPattern) -> str | None:
        for item in pattern.properties[:1]:
            if isinstance(item, nodes.AssignmentProperty) and not item.computed:
                key = item.key
                return key.name if isinstance(key, nodes.Identifier) else str(getattr(key, "value", ""))
        return None

    def first_is_read(self, pattern: nodes.ObjectPattern) -> bool:
        first = pattern.properties[0]
        assert isinstance(first, nodes.AssignmentProperty), "it has a key"
        return isinstance(first.value, nodes.AssignmentPattern | nodes.MemberExpression)

    def take_array(self, pattern: nodes.ArrayPattern, value: Node, text: str | None, declare: bool) -> None:
        if all(self.is_plain(element) for element in pattern.elements):
            self.unpack(pattern, value, text, declare)
            return
        iterator = self.new_slot("")
        self.emit("set", ["slot", iterator], ["iterator", value, text, self.position(pattern)], self.position(pattern))
        for element in pattern.elements:
            if element is None:
                self.emit("expr", ["iter_next", iterator], self.position(pattern))
            elif isinstance(element, nodes.RestElement):
                self.target(element.argument, declare)(["iter_rest", iterator])
            else:
                self.target(element, declare)(self.spill_always(["iter_next", iterator], element))

    def is_plain(self, element: nodes.Pattern | None) -> bool:
        if isinstance(element, nodes.RestElement):
            element = element.argument
        if isinstance(element, nodes.AssignmentPattern):
            return isinstance(element.left, nodes.Identifier) and isinstance(element.right, nodes.Literal)
        return element is None or isinstance(element, nodes.Identifier)

    def unpack(self, pattern: nodes.ArrayPattern, value: Node, text: str | None, declare: bool) -> None:
        slots: list[int | None] = []
        rest: int | None = None
        stores: list[tuple[Store, int]] = []
        for element in pattern.elements:
            if element is None:
                slots.append(None)
                continue
            slot = self.new_slot("")
            if isinstance(element, nodes.RestElement):
                rest = slot
                stores.append((self.target(element.argument, declare), slot))
            else:
                slots.append(slot)
                stores.append((self.target(element, declare), slot))
        self.emit("unpack", slots, rest, value, text, self.position(pattern))
        for store, slot in stores:
            store(["slot", slot])
