"""Expressions of the IR as Python text.

Every expression becomes one Python expression; evaluation order is the IR's. The common case of an operation is written
in line behind a guard (`a + b if a.__class__ is b.__class__ is float else h_add(a, b)`), the rest is a call of a
helper, and what the analysis proves needs no guard. An operand that is needed more than once is held in a temporary
(`(t1 := operand)`), so text grows linearly and no operand is evaluated twice.

Names in generated text:

    s5   slot 5 (a value, or the cell of a cell slot)     c2   captured cell 2        t1   temporary of one statement
    h_x  helper x of codegen_helpers                      g3 / b3   a global / a function of the builtins, by number
    m_5  factory of the closures of function 5            U    undefined              FT   types.FunctionType

Program data reaches the text only through these numbers, through `ascii()` of a str and `repr()` of a finite float.

Integers: a slot that only ever counts (`i = 0`, `i++`) and is used as an index is a Python int in generated code. Its
expression has kinds INTEGER; `value()` turns it into a float wherever it leaves the counter's own world.

Nesting: one expression node adds at most three levels of brackets, so the 60 levels the IR allows stay below the 200
Python's tokenizer allows.

Positions: `mark(position)` is a control character and the number; the writer turns it into a line break, so that
every operation that can throw stands at the start of a line of its own (see codegen_positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rhythm.language.codegen_operators import OperatorWriter
from rhythm.language.codegen_text import Code, as_value, is_literal, mark, number_text, quoted, value_kinds
from rhythm.language.codegen_tree import ARRAY, BOOLEAN, FUNCTION, INTEGER, NUMBER, OBJECT, STRING, Node

SPREADS_INLINE_MAX: Final = 4  #: Spreads in one array or call that are written without a call of their own.


class ExpressionWriter(OperatorWriter):
    """Writes the expressions of one function. The statement writers derive from it."""

    # -- properties --

    def _get_member(self, node: Node) -> Code:
        target, name, position = node[1], node[2], node[4]
        if target[0] == "global":
            number = self.constants.member_number(target[1], name)
            if number is not None:
                return Code(number_text(number), NUMBER, True)
            return Code(f"{mark(position)}h_get_member({self.value(target)}, {name!a}, {quoted(node[3])})")
        code = self.code(target)
        if name == "length":
            if not value_kinds(code) & ~(ARRAY | STRING):
                return Code(f"h_len({code.text})", INTEGER)
            first, again = self.hold(code)
            kind = self.temporary()
            slow = f"{mark(position)}h_get_member({again}, 'length', {quoted(node[3])})"
            test = f"({kind} := {first}.__class__) is h_list or {kind} is h_str"
            return Code(f"(h_len({again}) + 0.0 if {test} else {slow})")
        text = as_value(code)
        if self.analysis.has_always(self.function_id, target, name):
            return Code(f"{text}[{name!a}]", self.analysis.kinds(self.function_id, node))
        if not value_kinds(code) & OBJECT or name == "__proto__":
            return Code(f"{mark(position)}h_get_member({text}, {name!a}, {quoted(node[3])})")
        first, again = self.hold(Code(text, code.kinds, code.simple))
        key = ascii(name)
        slow = f"{mark(position)}h_get_member({again}, {key}, {quoted(node[3])})"
        guard = f"{key} in {first}" if code.kinds == OBJECT else f"{first}.__class__ is h_dict and {key} in {again}"
        return Code(f"({again}[{key}] if {guard} else {slow})", self.analysis.kinds(self.function_id, node))

    def _get_index(self, node: Node) -> Code:
        position = node[4]
        kinds = self.analysis.kinds(self.function_id, node)
        target, index = self.code(node[1]), self.integer_or_none(node[2])
        if index is not None:
            first, again = self.hold(target)
            inside = f"{index} < h_len({again})" if self.is_natural(node[2]) else f"-1 < {index} < h_len({again})"
            slow = f"{mark(position)}h_get_index({again}, {index} + 0.0, {quoted(node[3])})"
            if target.kinds in (ARRAY, STRING) and target.simple:
                test = inside
            else:
                tested = "h_str" if target.kinds == STRING else "h_list"
                test = f"{first}.__class__ is {tested} and {inside}"
            return Code(f"({again}[{index}] if {test} else {slow})", kinds)
        key = self.code(node[2])
        key = Code(as_value(key), value_kinds(key), key.simple)
        if not (key.kinds & STRING and target.kinds & OBJECT) and not (key.kinds & NUMBER and target.kinds & ARRAY):
            return Code(f"{mark(position)}h_get_index({as_value(target)}, {key.text}, {quoted(node[3])})")
        first, again = self.hold(Code(as_value(target), value_kinds(target), target.simple), key.text)
        key_first, key_again = self.hold(key)
        slow = f"{mark(position)}h_get_index({again}, {key_again}, {quoted(node[3])})"
        both = ""  # Evaluates both operands; whatever makes it false leads to the helper.
        if key_first is not key_again:
            if is_literal(target):
                return Code(f"{mark(position)}h_get_index({target.text}, {key.text}, {quoted(node[3])})")
            both = f"{first} is not {key_first} and "
        elif first is not again:
            both = f"{first} is not None and "
        number = self.temporary()
        from_dict = f"{again}.__class__ is h_dict and {key_again} in {again}"
        whole = f"-1.0 < {key_again} < h_len({again}) and ({number} := h_int({key_again})) == {key_again}"
        from_list = f"{again}.__class__ is h_list and {whole}"
        if key.kinds == NUMBER:
            return Code(f"({again}[{number}] if {both}{from_list} else {slow})", kinds)
        if key.kinds == STRING:
            return Code(f"({again}[{key_again}] if {both}{from_dict} else {slow})")
        from_dict = f"{key_again}.__class__ is h_str and {from_dict}"
        from_list = f"{key_again}.__class__ is h_float and {from_list}"
        other = f"{again}[{number}] if {from_list} else {slow}"
        return Code(f"({again}[{key_again}] if {both}{from_dict} else {other})")

    def _set_member(self, node: Node) -> Code:
        target, value = self.value(node[1]), self.code(node[3])
        text = f"{mark(node[5])}h_set_member({target}, {node[2]!a}, {as_value(value)}, {quoted(node[4])})"
        return Code(text, value_kinds(value))

    def _set_index(self, node: Node) -> Code:
        target, key, value = self.value(node[1]), self.value(node[2]), self.code(node[3])
        text = f"{mark(node[5])}h_set_index({target}, {key}, {as_value(value)}, {quoted(node[4])})"
        return Code(text, value_kinds(value))

    def _delete_member(self, node: Node) -> Code:
        return Code(f"{mark(node[4])}h_delete_member({self.value(node[1])}, {node[2]!a}, {quoted(node[3])})", BOOLEAN)

    def _delete_index(self, node: Node) -> Code:
        target, key = self.value(node[1]), self.value(node[2])
        return Code(f"{mark(node[4])}h_delete_index({target}, {key}, {quoted(node[3])})", BOOLEAN)

    # -- calls --

    def arguments(self, nodes: Sequence[Node], spread: str = "h_spread_arguments") -> str:
        """Text of an argument list, without brackets; of an array's elements with another ``spread``."""
        texts = []
        spreads = sum(node[0] == "spread" for node in nodes)
        for node in nodes:
            if node[0] == "spread":
                texts.append(f"*{self._spread(node[1], node[2], spread, spreads, len(nodes) - spreads)}")
            else:
                texts.append(self.value(node))
        return ", ".join(texts)

    def _spread(self, node: Node, text: str | None, spread: str, spreads: int, others: int) -> str:
        """One of several spreads; ``others`` elements stand beside them. What is too long is left to the helper."""
        if spreads > SPREADS_INLINE_MAX:  # the watchdog strikes at calls: many long arrays must not grow without one
            return f"{spread}({self.value(node)}, {quoted(text)}, {others})"
        first, again = self.hold(self.code(node))
        most = "h_ARRAY_MAX" if spread == "h_spread" else "h_ARGUMENTS_MAX"
        short = f"h_len({again}){f' + {others}' if others else ''} <= {most}"
        return f"({again} if {first}.__class__ is h_list and {short} else {spread}({again}, {quoted(text)}, {others}))"

    def _call(self, node: Node) -> Code:
        callee, text, position = node[1], node[2], node[4]
        kinds = self.analysis.kinds(self.function_id, node)
        if callee[0] == "global":
            function = self.constants.function(callee[1])
            if function is not None:
                return Code(f"{mark(position)}{function}({self.arguments(node[3])})", kinds)
        code = self.code(callee)
        arguments = self.arguments(node[3])
        known = self.analysis.known_function(self.function_id, callee)
        if (
            known == self.function_id
            and callee[0] == "capture"
            and self.function["kind"] == "sync"
            and self.analysis.key(self.function_id, callee) not in self.analysis.returned
        ):
            # Its own variable can hold no other closure than this one: one look-up less.
            return Code(f"{mark(position)}f{known}({arguments})", kinds)
        if known is not None:
            return Code(f"{mark(position)}{code.text}({arguments})", kinds)
        first, again = self.hold(Code(as_value(code), code.kinds, code.simple))
        chosen = f"({again} if {first}.__class__ is FT else h_callee({again}, {quoted(text)}))"
        return Code(f"{mark(position)}{chosen}({arguments})", kinds)

    def _call_method(self, node: Node) -> Code:
        target, name, text, position = node[1], node[2], node[3], node[5]
        kinds = self.analysis.kinds(self.function_id, node)
        if target[0] == "global":
            inline = self._math(node) if target[1] == "Math" else None
            if inline is not None:
                return inline
            function = self.constants.member(target[1], name)
            if function is not None:
                return Code(f"{mark(position)}{function}({self.arguments(node[4])})", kinds)
        code = self.code(target)
        receiver = Code(as_value(code), value_kinds(code), code.simple and code.kinds != INTEGER)
        known = {STRING: str, ARRAY: list, NUMBER: float}.get(receiver.kinds)
        method = self.constants.method(known, name) if known is not None else None
        comma = ", " if node[4] else ""
        arguments = self.arguments(node[4])
        if method is not None:
            return Code(f"{mark(position)}{method}({receiver.text}{comma}{arguments})", kinds)
        first, again = self.hold(receiver, arguments)
        slow = f"h_method({again}, {name!a}, {quoted(text)})"
        table = self.constants.method_table(name)
        if table is not None:
            # Builtin methods take the receiver first.
            chosen = f"({table}.get({first}.__class__) or {slow})"
            return Code(f"{mark(position)}{chosen}({again}{comma}{arguments})", kinds)
        found = self.temporary()
        test = f"{first}.__class__ is h_dict and ({found} := {again}.get({name!a})).__class__ is FT"
        slow = f"h_own_method({again}, {name!a}, {quoted(text)})"
        return Code(f"{mark(position)}({found} if {test} else {slow})({arguments})", kinds)

    def _math(self, node: Node) -> Code | None:
        """Math.floor and Math.abs of one plain argument."""
        arguments = node[4]
        if len(arguments) != 1 or arguments[0][0] == "spread" or node[2] not in ("floor", "abs"):
            return None
        function = self.constants.member("Math", node[2])
        if function is None:
            return None
        code = self.code(arguments[0])
        first, again = self.hold(Code(as_value(code), value_kinds(code), code.simple and code.kinds != INTEGER))
        slow = f"{mark(node[5])}{function}({again})"
        if node[2] == "abs":
            fast, test = f"h_abs({again})", f"{first}.__class__ is h_float"
        else:
            fast, test = f"{again} // 1.0", f"{first}.__class__ is h_float and -9e15 < {again} < 9e15"
        return Code(f"({fast} if {test} else {slow})", NUMBER)

    def _call_index(self, node: Node) -> Code:
        target, key = self.value(node[1]), self.value(node[2])
        arguments = self.arguments(node[4])
        return Code(f"{mark(node[5])}h_indexed_method({target}, {key}, {quoted(node[3])})({arguments})")

    def _new(self, node: Node) -> Code:
        kinds = self.analysis.kinds(self.function_id, node)
        if node[1][0] == "global":
            constructor = self.constants.constructor(node[1][1])
            if constructor is not None:
                return Code(f"{mark(node[4])}{constructor}({self.arguments(node[3])})", kinds)
        constructor = self.value(node[1])
        arguments = self.arguments(node[3])
        comma = ", " if node[3] else ""
        return Code(f"{mark(node[4])}h_construct({constructor}, {quoted(node[2])}{comma}{arguments})", kinds)

    # -- literals --

    def _array(self, node: Node) -> Code:
        spreads = sum(item[0] == "spread" for item in node[1])
        if spreads > 1:
            return Code(f"{mark(node[2])}h_array({self.arguments(node[1], 'h_spread')})", ARRAY)
        return Code(f"{mark(node[2])}[{self.arguments(node[1], 'h_spread')}]", ARRAY)

    def _object(self, node: Node) -> Code:
        texts = []
        for entry in node[1]:
            if entry[0] == "property":
                texts.append(f"{entry[1]!a}: {self.value(entry[2])}")
            elif entry[0] == "computed":
                key = self._to_text(self.code(entry[1]), "h_to_property_key")
                texts.append(f"{key.text}: {self.value(entry[2])}")
            else:
                code = self.code(entry[1])
                first, again = self.hold(Code(as_value(code), code.kinds, code.simple))
                texts.append(f"**({again} if {first}.__class__ is h_dict else h_spread_object({again}))")
        return Code(f"{mark(node[2])}{{{', '.join(texts)}}}", OBJECT)

    def _closure(self, node: Node) -> Code:
        cells = []
        for capture in self.analysis.functions[node[1]]["captures"]:
            if capture[0] == "slot":
                cells.append(f"s{capture[1]}")
            elif capture[0] == "capture":
                cells.append(f"c{capture[1]}")
            else:
                cells.append("[U]")
        maker = f"n_{node[1]}" if "[U]" in cells else f"m_{node[1]}"
        return Code(f"{maker}({', '.join(cells)})", FUNCTION)

    # -- iteration and destructuring --

    def _iterator(self, node: Node) -> Code:
        return Code(f"{mark(node[3])}h_for_of_iterator({self.value(node[1])}, {quoted(node[2])})")

    def _iter_step(self, node: Node) -> Code:
        return Code(f"((s{node[2]} := s{node[1]}.step()) is not h_DONE)", BOOLEAN)

    def _iter_next(self, node: Node) -> Code:
        name = self.temporary()
        return Code(f"({name} if ({name} := s{node[1]}.step()) is not h_DONE else U)")

    def _iter_rest(self, node: Node) -> Code:
        return Code(f"h_rest(s{node[1]})", ARRAY)

    def _for_in_keys(self, node: Node) -> Code:
        return Code(f"h_for_in_keys({self.value(node[1])})", ARRAY)

    def _for_in_has(self, node: Node) -> Code:
        return Code(f"h_for_in_has(s{node[1]}, s{node[2]})", BOOLEAN)

    def _object_rest(self, node: Node) -> Code:
        keys = ", ".join(self.value(key) for key in node[2])
        return Code(f"h_object_rest({self.value(node[1])}, [{keys}])", OBJECT)
