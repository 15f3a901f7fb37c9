"""Operators, variables and tests of the IR as Python text.

The first layer of the expression writer: everything whose operands are only numbers, strings, booleans and what is
turned into them. Each operator is written in line for the kinds that are usual behind a guard, or without one where
the analysis knows the kinds, and else is a call of a helper. See codegen_expressions for the rules of the text.
"""

from __future__ import annotations

from typing import Final

from rhythm.language.codegen_text import (
    Code,
    Constants,
    as_value,
    find_counters,
    float_text,
    is_literal,
    is_step,
    mark,
    number_text,
    quoted,
    value_kinds,
)
from rhythm.language.codegen_tree import (
    ANY,
    ARRAY,
    BOOLEAN,
    FUNCTION,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    UNDEFINED,
    Function,
    Node,
)
from rhythm.language.codegen_types import Analysis

#: operator -> helper of the general case.
_ARITHMETIC: Final = {"+": "h_add", "-": "h_sub", "*": "h_mul", "/": "h_div", "%": "h_mod", "**": "h_power"}
_BITWISE: Final = {"&": "h_bit_and", "|": "h_bit_or", "^": "h_bit_xor", "<<": "h_shl", ">>": "h_shr", ">>>": "h_ushr"}
_ORDER: Final = {"<": "h_lt", ">": "h_gt", "<=": "h_le", ">=": "h_ge"}
#: typeof results that one class test decides.
_TYPEOF_CLASS: Final = {"number": "h_float", "string": "h_str", "boolean": "h_bool", "undefined": "h_Undefined"}

_TRUE: Final = Code("True", BOOLEAN, True)
_FALSE: Final = Code("False", BOOLEAN, True)

JOINED_INLINE_MAX: Final = 5  #: Parts of a template that are joined before their length is known, short ones apart.
_SHORT: Final = NUMBER | BOOLEAN | NULL | UNDEFINED  #: Kinds of values whose texts are short.


class OperatorWriter:
    """Writes operators, variables and tests."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        self.analysis = analysis
        self.function = function
        self.function_id: int = function["id"]
        self.constants = constants
        self.integers, self.naturals = find_counters(analysis, function)
        self._temporaries = 0
        self.reserved = 0  #: Temporaries that outlive the statement being written.

    # -- entry points --

    def value(self, node: Node) -> str:
        """Text that evaluates the expression to a flow value."""
        return as_value(self.code(node))

    def code(self, node: Node) -> Code:
        """The expression, possibly as a Python int (kinds INTEGER)."""
        method = getattr(self, "_" + node[0])
        result: Code = method(node)
        return result

    def test(self, node: Node) -> str:
        """Text of a Python condition: whether the value is truthy."""
        kind = node[0]
        if kind == "unary" and node[1] == "!":
            return f"(not {self.test(node[2])})"
        if kind in ("and", "or"):
            return f"({self.test(node[1])} {kind} {self.test(node[2])})"
        code = self.code(node)
        kinds = code.kinds
        if kinds in (BOOLEAN, STRING, INTEGER):
            return code.text
        first, again = self.hold(code)
        if kinds == NUMBER:
            return f"({first} and {again} == {again})"
        if kinds & BOOLEAN:
            return f"({first} is True or {again} is not False and h_truthy({again}))"
        return f"h_truthy({code.text})"

    def temporary(self) -> str:
        """A fresh temporary of the present statement."""
        self._temporaries += 1
        return f"t{self._temporaries}"

    def hold(self, code: Code, *later: str) -> tuple[str, str]:
        """(text that evaluates it, text to use its value again), unless `later`, evaluated in between, assigns it."""
        if code.simple and not any(f"({code.text} :=" in text for text in later):
            return code.text, code.text
        name = self.temporary()
        return f"({name} := {code.text})", name

    # -- constants and variables --

    def _number(self, node: Node) -> Code:
        return Code(number_text(node[1]), NUMBER, True)

    def _nan(self, node: Node) -> Code:
        return Code("h_nan", NUMBER, True)

    def _infinity(self, node: Node) -> Code:
        return Code("h_inf", NUMBER, True)

    def _string(self, node: Node) -> Code:
        return Code(ascii(node[1]), STRING, True)

    def _true(self, node: Node) -> Code:
        return _TRUE

    def _false(self, node: Node) -> Code:
        return _FALSE

    def _null(self, node: Node) -> Code:
        return Code("None", NULL, True)

    def _undefined(self, node: Node) -> Code:
        return Code("U", UNDEFINED, True)

    def _slot(self, node: Node) -> Code:
        if node[1] in self.integers:
            return Code(f"s{node[1]}", INTEGER, True)
        return Code(f"s{node[1]}", self.analysis.kinds(self.function_id, node), True)

    def _cell(self, node: Node) -> Code:
        return Code(f"s{node[1]}[0]", self.analysis.kinds(self.function_id, node))

    def _capture(self, node: Node) -> Code:
        return Code(f"c{node[1]}[0]", self.analysis.kinds(self.function_id, node))

    def _global(self, node: Node) -> Code:
        name = self.constants.value(node[1])
        if name is None:
            return Code(f"h_missing_global({node[1]!a})")
        return Code(name, ANY, True)

    def _checked(self, node: Node) -> Code:
        code = self.code(node[1])
        first, again = self.hold(code)
        text = f"({again} if {first} is not h_TDZ else {mark(node[3])}h_tdz({node[2]!a}))"
        return Code(text, code.kinds)

    def _assign(self, node: Node) -> Code:
        target = node[1]
        if target[0] == "slot":
            if target[1] in self.integers:
                return Code(f"(s{target[1]} := {self.integer(node[2])})", INTEGER)
            code = self.code(node[2])
            return Code(f"(s{target[1]} := {as_value(code)})", value_kinds(code))
        code = self.code(node[2])
        return Code(f"h_put({self.cell_name(target)}, {as_value(code)})", value_kinds(code))

    def cell_name(self, target: Node) -> str:
        """Name of the cell of a `cell` or `capture` variable."""
        return f"s{target[1]}" if target[0] == "cell" else f"c{target[1]}"

    def integer(self, node: Node) -> str:
        """Text of an expression known to be a counter, as a Python int. See find_counters."""
        kind = node[0]
        if kind == "number":
            return repr(int(node[1]))
        if kind == "unary":
            return f"({self.integer(node[2])} {'+' if node[1] == 'inc' else '-'} 1)"
        if kind == "binary":
            return f"({self.integer(node[2])} {node[1]} {self.integer(node[3])})"
        code = self.code(node)
        assert code.kinds == INTEGER, "a counter is assigned something else"
        return code.text

    def integer_or_none(self, node: Node) -> str | None:
        """Like `integer`, for a counter or a counter plus or minus a constant; None for anything else."""
        if node[0] == "slot" and node[1] in self.integers:
            return f"s{node[1]}"
        if node[0] == "binary" and node[1] in "+-" and is_step(node[3]):
            base = self.integer_or_none(node[2])
            if base is not None:
                return f"({base} {node[1]} {int(node[3][1])})"
        if node[0] == "number" and is_step(node):
            return repr(int(node[1]))
        return None

    def is_natural(self, node: Node) -> bool:
        """True when the counter expression cannot be negative."""
        if node[0] == "slot":
            return node[1] in self.naturals
        if node[0] == "number":
            return bool(node[1] >= 0)
        return node[0] == "binary" and node[1] == "+" and self.is_natural(node[2]) and node[3][1] >= 0

    # -- operators --

    def _unary(self, node: Node) -> Code:
        operator, operand = node[1], node[2]
        if operator == "!":
            return Code(f"(not {self.test(operand)})", BOOLEAN)
        if operator == "-" and operand[0] == "number":
            return Code(number_text(-operand[1]), NUMBER, True)
        code = self.code(operand)
        if operator == "nullish":
            if not value_kinds(code) & (NULL | UNDEFINED):
                return _FALSE if code.simple else Code(f"({code.text} is None)", BOOLEAN)
            first, again = self.hold(code)
            return Code(f"({first} is None or {again} is U)", BOOLEAN)
        if operator == "typeof":
            return Code(f"h_typeof({as_value(code)})", STRING)
        if operator in ("string", "key"):
            return self._to_text(code, "h_to_string" if operator == "string" else "h_to_property_key")
        if operator in ("inc", "dec"):
            sign = "+" if operator == "inc" else "-"
            if value_kinds(code) == NUMBER:
                return Code(f"({code.text} {sign} 1.0)", NUMBER)
            first, again = self.hold(code)
            slow = f"h_to_number({again}) {sign} 1.0"
            return Code(f"({again} {sign} 1.0 if {first}.__class__ is h_float else {slow})", NUMBER)
        text = as_value(code)
        known = value_kinds(code) == NUMBER
        if operator == "-":
            return Code(f"(-{text})" if known else f"h_neg({text})", NUMBER)
        if operator == "+":
            return code if known else Code(f"h_to_number({text})", NUMBER)
        return Code(f"h_bit_not({text})", NUMBER)

    def _to_text(self, code: Code, helper: str) -> Code:
        kinds = value_kinds(code)
        if kinds == STRING:
            return code
        if code.kinds == INTEGER:
            return Code(f"h_str({code.text})", STRING)
        if kinds == NUMBER:
            return Code(f"h_number_to_string({code.text})", STRING)
        first, again = self.hold(code)
        return Code(f"({again} if {first}.__class__ is h_str else {helper}({again}))", STRING)

    def _binary(self, node: Node) -> Code:
        operator = node[1]
        if operator in _ORDER:
            return self._compare(node)
        if operator in ("===", "!=="):
            return self._strict(node)
        if operator in ("==", "!="):
            return self._loose(node)
        if operator in _BITWISE:
            return self._bitwise(node)
        left, right = self.code(node[2]), self.code(node[3])
        if operator == "+" and STRING in (left.kinds, right.kinds):
            return self._concatenate(left, right)
        if operator == "+":
            kinds = self.analysis.kinds(self.function_id, node)
        else:
            kinds = NUMBER
        left, right = _floats(left, right)
        if operator == "**":
            return Code(f"h_power({as_value(left)}, {as_value(right)})", NUMBER)
        if operator == "%":
            return self._remainder(left, right, node[3])
        if operator == "/" and not _is_nonzero(node[3]):
            first_left, left_again, first_right, right_again, guard = self._pair(left, right)
            del first_left, first_right
            condition = f"{guard} and {right_again}" if guard else right_again
            slow = f"h_div({float_text(left, left_again)}, {float_text(right, right_again)})"
            return Code(f"({left_again} / {right_again} if {condition} else {slow})", NUMBER)
        return self._guarded(left, right, operator, _ARITHMETIC[operator], kinds)

    def _guarded(self, left: Code, right: Code, operator: str, helper: str, kinds: int) -> Code:
        """`left operator right` for two numbers, else the helper."""
        if value_kinds(left) == NUMBER and value_kinds(right) == NUMBER:
            return Code(f"({left.text} {operator} {right.text})", kinds)
        if not value_kinds(left) & NUMBER or not value_kinds(right) & NUMBER:
            return Code(f"{helper}({as_value(left)}, {as_value(right)})", kinds)
        _, left_again, _, right_again, guard = self._pair(left, right)
        slow = f"{helper}({float_text(left, left_again)}, {float_text(right, right_again)})"
        return Code(f"({left_again} {operator} {right_again} if {guard} else {slow})", kinds)

    def _pair(self, left: Code, right: Code) -> tuple[str, str, str, str, str]:
        """(evaluate left, again, evaluate right, again, guard): the guard evaluates both and holds for two numbers.

        When it would be empty (both are known numbers and simple) it is "".
        """
        left_known, right_known = value_kinds(left) == NUMBER, value_kinds(right) == NUMBER
        left_first, left_again = self.hold(left, right.text)
        right_first, right_again = self.hold(right)
        if left_known and right_known and left.simple and right.simple:
            guard = ""
        elif left_known and left_first is left_again:
            guard = f"{right_first}.__class__ is h_float" if not right_known else _evaluate(right_first)
        elif right_known and right.simple:
            guard = f"{left_first}.__class__ is h_float" if not left_known else _evaluate(left_first)
        else:
            left_class = f"{left_first}.__class__" if left.kinds != INTEGER else f"({left_first} + 0.0).__class__"
            right_class = f"{right_first}.__class__" if right.kinds != INTEGER else f"({right_first} + 0.0).__class__"
            guard = f"{left_class} is {right_class} is h_float"
        return left_first, left_again, right_first, right_again, guard

    def _remainder(self, left: Code, right: Code, right_node: Node) -> Code:
        # Python's % has the sign of the divisor: equal only for a positive dividend and divisor.
        if value_kinds(left) == NUMBER and _is_positive(right_node):
            first, left_again = self.hold(left)
            right_again, condition = right.text, f"{first} > 0.0"
        else:
            _, left_again, _, right_again, guard = self._pair(left, right)
            positive = f"{left_again} > 0.0" if _is_positive(right_node) else f"{left_again} > 0.0 < {right_again}"
            condition = f"{guard} and {positive}" if guard else positive
        slow = f"h_mod({float_text(left, left_again)}, {float_text(right, right_again)})"
        return Code(f"({left_again} % {right_again} if {condition} else {slow})", NUMBER)

    def _concatenate(self, left: Code, right: Code) -> Code:
        left_kinds, right_kinds = value_kinds(left), value_kinds(right)
        if left_kinds == NUMBER:
            left = self._to_text(left, "h_to_string")
        elif right_kinds == NUMBER:
            right = self._to_text(right, "h_to_string")
        elif left_kinds != STRING or right_kinds != STRING:
            left_first, left_again = self.hold(left, right.text)
            right_first, right_again = self.hold(right)
            if left_kinds == STRING:
                if left_first is not left_again:
                    guard = f"{left_first}.__class__ is {right_first}.__class__"
                else:
                    guard = f"{right_first}.__class__ is h_str"
            elif right.simple:
                guard = f"{left_first}.__class__ is h_str"
            else:
                guard = f"{left_first}.__class__ is {right_first}.__class__"
            joined = self.temporary()
            fast = f"{guard} and h_len({joined} := {left_again} + {right_again}) <= h_STRING_MAX"
            return Code(f"({joined} if {fast} else h_add({left_again}, {right_again}))", STRING)
        joined = self.temporary()
        text = f"({joined} if h_len({joined} := {left.text} + {right.text}) <= h_STRING_MAX else h_long({joined}))"
        return Code(text, STRING)

    def _compare(self, node: Node) -> Code:
        operator = node[1]
        helper = _ORDER[operator]
        left_node, right_node = node[2], node[3]
        if right_node[0] == "get_member" and right_node[2] == "length" and right_node[1][0] != "global":
            left = self.code(left_node)
            if value_kinds(left) == NUMBER and left.simple:
                code = self.code(right_node)
                if code.kinds == INTEGER:
                    return Code(f"({left.text} {operator} {code.text})", BOOLEAN)
                if f"({left.text} :=" not in code.text:
                    return self._compare_length(left, operator, right_node)
        left, right = self.code(left_node), self.code(right_node)
        if left.kinds == INTEGER and right_node[0] == "number" and right_node[1].is_integer():
            right = Code(repr(int(right_node[1])), INTEGER, True)
        return self._guarded(left, right, operator, helper, BOOLEAN)

    def _compare_length(self, left: Code, operator: str, node: Node) -> Code:
        first, again = self.hold(self.code(node[1]))
        kind = self.temporary()
        length = f"{mark(node[4])}h_get_member({again}, 'length', {quoted(node[3])})"
        slow = f"{_ORDER[operator]}({as_value(left)}, {length})"
        fast = f"{left.text} {operator} h_len({again})"
        test = f"({kind} := {first}.__class__) is h_list or {kind} is h_str"
        return Code(f"({fast} if {test} else {slow})", BOOLEAN)

    def _strict(self, node: Node) -> Code:
        negate = node[1] == "!=="
        left_node, right_node = node[2], node[3]
        if right_node[0] == "unary" and right_node[1] == "typeof" and left_node[0] == "string":
            left_node, right_node = right_node, left_node
        if left_node[0] == "unary" and left_node[1] == "typeof" and right_node[0] == "string":
            tested = _TYPEOF_CLASS.get(right_node[1])
            if tested is not None:
                text = as_value(self.code(left_node[2]))
                return Code(f"({text}.__class__ is {'not ' if negate else ''}{tested})", BOOLEAN)
        text = self._divisible(left_node) if right_node[0] == "number" and right_node[1] == 0 else ""
        if not text:
            text = self._strict_text(self.code(left_node), self.code(right_node))
        return Code(f"(not {text})" if negate else text, BOOLEAN)

    def _divisible(self, node: Node) -> str:
        """Text of `x % constant === 0`; "" for anything else.

        A quotient of a double from 1 to 2**53 and a whole constant is whole only where nothing is left: two doubles in
        that range never differ by less than what rounding the quotient to a whole number takes. Twice as fast as
        the remainder, which is C's fmod.
        """
        if node[0] != "binary" or node[1] != "%" or not (is_step(node[3]) and _is_positive(node[3])):
            return ""
        left, right = self.code(node[2]), self.code(node[3])
        if left.kinds == INTEGER:
            return f"({left.text} % {int(node[3][1])} == 0)"
        if not left.kinds & NUMBER:
            return ""
        first, again = self.hold(left)
        guard = f"{first}.__class__ is h_float and " if left.kinds != NUMBER else ""
        inside = f"1.0 <= {again if guard else first} < 9007199254740992.0"
        slow = f"h_mod({again}, {right.text}) == 0.0"
        return f"(({again} / {right.text}).is_integer() if {guard}{inside} else {slow})"

    def _strict_text(self, left: Code, right: Code) -> str:
        left_kinds, right_kinds = value_kinds(left), value_kinds(right)
        if left_kinds == right_kinds == NUMBER or STRING in (left_kinds, right_kinds):
            return f"({left.text} == {right.text})"
        if not left_kinds & right_kinds:
            # Never equal. Python would warn about `is` with a number.
            return "False" if left.simple and right.simple else f"h_false({as_value(left)}, {as_value(right)})"
        identical = NULL | UNDEFINED | BOOLEAN | ARRAY | OBJECT | FUNCTION
        if not left_kinds & ~identical or not right_kinds & ~identical:
            return f"({as_value(left)} is {as_value(right)})"
        # A boolean equals 0.0 or 1.0 in Python, so the class of the operand that may be one is tested.
        if left_kinds == NUMBER:
            first, again = self.hold(right)
            if left.simple and right.simple:
                return f"({right.text}.__class__ is h_float and {left.text} == {right.text})"
            return f"({left.text} == {first} and {again}.__class__ is h_float)"
        if right_kinds == NUMBER:
            first, again = self.hold(left, right.text)
            return f"({first} == {right.text} and {again}.__class__ is h_float)"
        left_first, left_again = self.hold(left, right.text)
        right_first, right_again = self.hold(right)
        kind = self.temporary()
        test = (
            f"({kind} := {left_first}.__class__) is {right_first}.__class__ and ({kind} is h_str or {kind} is h_float)"
        )
        return f"({left_again} == {right_again} if {test} else {left_again} is {right_again})"

    def _loose(self, node: Node) -> Code:
        negate = node[1] == "!="
        left, right = self.code(node[2]), self.code(node[3])
        for tested, other in ((left, right), (right, left)):
            if other.kinds in (NULL, UNDEFINED) and other.simple:
                if is_literal(tested):
                    return _TRUE if negate else _FALSE
                first, again = self.hold(tested)
                text = f"({first} is None or {again} is U)"
                return Code(f"(not {text})" if negate else text, BOOLEAN)
        left_kinds, right_kinds = value_kinds(left), value_kinds(right)
        if left_kinds == right_kinds and left_kinds in (NUMBER, STRING):
            return Code(f"({left.text} {'!=' if negate else '=='} {right.text})", BOOLEAN)
        text = f"h_eq({as_value(left)}, {as_value(right)})"
        return Code(f"(not {text})" if negate else text, BOOLEAN)

    def _bitwise(self, node: Node) -> Code:
        left, right = self.code(node[2]), self.code(node[3])
        return Code(f"{_BITWISE[node[1]]}({as_value(left)}, {as_value(right)})", NUMBER)

    def _in(self, node: Node) -> Code:
        key, target = self.value(node[1]), self.value(node[2])
        return Code(f"{mark(node[3])}h_has_property({key}, {target})", BOOLEAN)

    def _instanceof(self, node: Node) -> Code:
        value, constructor = self.value(node[1]), self.value(node[2])
        return Code(f"{mark(node[3])}h_instance_of({value}, {constructor})", BOOLEAN)

    def _and(self, node: Node) -> Code:
        return self._choice(node, "and")

    def _or(self, node: Node) -> Code:
        return self._choice(node, "or")

    def _choice(self, node: Node, operator: str) -> Code:
        kinds = self.analysis.kinds(self.function_id, node)
        left = self.code(node[1])
        right = self.value(node[2])
        if left.kinds in (BOOLEAN, STRING):
            return Code(f"({left.text} {operator} {right})", kinds)
        first, again = self.hold(Code(as_value(left), value_kinds(left), left.simple and left.kinds != INTEGER))
        if value_kinds(left) == NUMBER:
            test = f"{first} and {again} == {again}"
        else:
            test = f"{first} is True or {again} is not False and h_truthy({again})"
        if operator == "and":
            return Code(f"({right} if {test} else {again})", kinds)
        return Code(f"({again} if {test} else {right})", kinds)

    def _coalesce(self, node: Node) -> Code:
        kinds = self.analysis.kinds(self.function_id, node)
        left = self.code(node[1])
        if not value_kinds(left) & (NULL | UNDEFINED):
            return Code(as_value(left), value_kinds(left))
        first, again = self.hold(left)
        return Code(f"({again} if {first} is not None and {again} is not U else {self.value(node[2])})", kinds)

    def _conditional(self, node: Node) -> Code:
        test = self.test(node[1])
        chosen, other = self.code(node[2]), self.code(node[3])
        kinds = value_kinds(chosen) | value_kinds(other)
        return Code(f"({as_value(chosen)} if {test} else {as_value(other)})", kinds)

    def _sequence(self, node: Node) -> Code:
        codes = [self.code(item) for item in node[1]]
        if len(codes) == 1:
            return codes[0]
        texts = ", ".join(as_value(code) for code in codes)
        return Code(f"({texts})[-1]", value_kinds(codes[-1]))

    def _template(self, node: Node) -> Code:
        parts = [
            Code(ascii(part), STRING, True) if part.__class__ is str else self._to_text(self.code(part), "h_to_string")
            for part in node[1]
            if part != ""
        ]
        if not parts:
            return Code("''", STRING, True)
        if len(parts) == 1:
            return parts[0]
        kinds = self.analysis.kinds
        items = [item for item in node[1] if item.__class__ is not str]
        if sum(1 for item in items if kinds(self.function_id, item) & ~_SHORT) > JOINED_INLINE_MAX:
            return Code(f"h_join_texts(({', '.join(part.text for part in parts)}))", STRING)
        joined = self.temporary()
        total = " + ".join(part.text for part in parts) if len(parts) < 4 else _join(parts)
        return Code(f"({joined} if h_len({joined} := {total}) <= h_STRING_MAX else h_long({joined}))", STRING)


def _evaluate(first: str) -> str:
    """A condition that evaluates a known number and always holds."""
    return f"({first} is not None)"


def _floats(left: Code, right: Code) -> tuple[Code, Code]:
    """Operands of an arithmetic operation: at least one of two counters must be a float for a float result."""
    if left.kinds == INTEGER and right.kinds == INTEGER:
        return Code(f"({left.text} + 0.0)", NUMBER), right
    return left, right


def _is_nonzero(node: Node) -> bool:
    return bool(node[0] == "number" and node[1])


def _is_positive(node: Node) -> bool:
    return bool(node[0] == "number" and node[1] > 0)


def _join(parts: list[Code]) -> str:
    return f"''.join(({', '.join(part.text for part in parts)}))"
