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

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rhythm.language.codegen_types import (
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
    Analysis,
    Function,
    Node,
)

COUNT_STEP_MAX: Final = 1 << 20  #: Largest step of a counter; no activation lives long enough to reach 2**53 with it.
COUNT_START_MAX: Final = 1 << 31  #: Largest constant assigned to a counter.

MARK: Final = "\x01"  #: Before a position in the text of an expression.
MARK_END: Final = "\x02"


class Code(NamedTuple):
    """Text of one expression."""

    text: str
    kinds: int = ANY  #: Mask of codegen_types, or INTEGER alone.
    simple: bool = False  #: A name or a constant: may be written several times.


#: operator -> helper of the general case.
_ARITHMETIC: Final = {"+": "h_add", "-": "h_sub", "*": "h_mul", "/": "h_div", "%": "h_mod", "**": "h_power"}
_BITWISE: Final = {"&": "h_bit_and", "|": "h_bit_or", "^": "h_bit_xor", "<<": "h_shl", ">>": "h_shr", ">>>": "h_ushr"}
_ORDER: Final = {"<": "h_lt", ">": "h_gt", "<=": "h_le", ">=": "h_ge"}
#: typeof results that one class test decides.
_TYPEOF_CLASS: Final = {"number": "h_float", "string": "h_str", "boolean": "h_bool", "undefined": "h_Undefined"}

_TRUE: Final = Code("True", BOOLEAN, True)
_FALSE: Final = Code("False", BOOLEAN, True)


def mark(position: int) -> str:
    """Start of an operation that can throw: its text must directly follow."""
    return f"{MARK}{position}{MARK_END}"


class Constants:
    """Run-time objects that generated text refers to by number; they become globals of the generated module."""

    def __init__(self, names: dict[str, Any], methods: dict[type, dict[str, Any]]) -> None:
        self.names = names  #: Builtins by name, as flow code sees them.
        self.methods = methods  #: Builtin methods by class of the receiver, then name.
        self.bound: dict[str, Any] = {}
        self._numbers: dict[tuple[str, str], str] = {}

    def value(self, name: str) -> str | None:
        """Name of the global that holds the builtin `name`, or None when there is no such builtin."""
        if name not in self.names:
            return None
        return self._bind(("value", name), "g", self.names[name])

    def function(self, name: str) -> str | None:
        """Name of the Python function behind the builtin function `name`; None when it is not a function."""
        call = getattr(self.names.get(name), "call", None)
        return None if call is None else self._bind(("call", name), "b", call)

    def member(self, owner: str, name: str) -> str | None:
        """Name of the Python function behind `owner.name` of the builtins; None when there is none."""
        members = getattr(self.names.get(owner), "members", None)
        call = getattr(members.get(name), "call", None) if members is not None else None
        return None if call is None else self._bind((f"member {owner}", name), "b", call)

    def member_number(self, owner: str, name: str) -> float | None:
        """The number `owner.name` of the builtins (Math.PI), or None."""
        members = getattr(self.names.get(owner), "members", None)
        found = members.get(name) if members is not None else None
        return found if found.__class__ is float and math.isfinite(found) else None

    def constructor(self, name: str) -> str | None:
        """Name of the Python function behind `new name(...)`; None when it is not a constructor."""
        construct = getattr(self.names.get(name), "construct", None)
        return None if construct is None else self._bind(("new", name), "b", construct)

    def method(self, receiver: type, name: str) -> str | None:
        """Name of the Python function behind a builtin method; it takes the receiver first."""
        function = self.methods.get(receiver, {}).get(name)
        return None if function is None else self._bind((f"method {receiver.__name__}", name), "b", function)

    def method_table(self, name: str) -> str | None:
        """Name of a dict class -> builtin method `name`, for receivers without own properties; None when empty."""
        table = {
            receiver: methods[name]
            for receiver, methods in self.methods.items()
            if name in methods and receiver.__name__ not in ("dict", "JSError")
        }
        return self._bind(("table", name), "d", table) if table else None

    def _bind(self, key: tuple[str, str], letter: str, value: Any) -> str:
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = f"{letter}{len(self._numbers)}"
            self.bound[found] = value
        return found


class ExpressionWriter:
    """Writes the expressions of one function. The statement writers derive from it."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        self.analysis = analysis
        self.function = function
        self.function_id: int = function["id"]
        self.constants = constants
        self.integers, self.naturals = find_counters(analysis, function)
        self._temporaries = 0

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
        if node[0] == "binary" and node[1] in "+-" and _is_step(node[3]):
            base = self.integer_or_none(node[2])
            if base is not None:
                return f"({base} {node[1]} {int(node[3][1])})"
        if node[0] == "number" and _is_step(node):
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
                return self._compare_length(left, operator, right_node)
        left, right = self.code(left_node), self.code(right_node)
        if left.kinds == INTEGER and right_node[0] == "number" and right_node[1].is_integer():
            right = Code(repr(int(right_node[1])), INTEGER, True)
        return self._guarded(left, right, operator, helper, BOOLEAN)

    def _compare_length(self, left: Code, operator: str, node: Node) -> Code:
        first, again = self.hold(self.code(node[1]))
        kind = self.temporary()
        slow = f"{_ORDER[operator]}({as_value(left)}, {mark(node[4])}h_get_member({again}, 'length', {_text(node[3])}))"
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
        left, right = self.code(left_node), self.code(right_node)
        text = self._strict_text(left, right)
        return Code(f"(not {text})" if negate else text, BOOLEAN)

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
        joined = self.temporary()
        total = " + ".join(part.text for part in parts) if len(parts) < 4 else _join(parts)
        return Code(f"({joined} if h_len({joined} := {total}) <= h_STRING_MAX else h_long({joined}))", STRING)

    # -- properties --

    def _get_member(self, node: Node) -> Code:
        target, name, position = node[1], node[2], node[4]
        if target[0] == "global":
            number = self.constants.member_number(target[1], name)
            if number is not None:
                return Code(number_text(number), NUMBER, True)
            return Code(f"{mark(position)}h_get_member({self.value(target)}, {name!a}, {_text(node[3])})")
        code = self.code(target)
        if name == "length":
            if not value_kinds(code) & ~(ARRAY | STRING):
                return Code(f"h_len({code.text})", INTEGER)
            first, again = self.hold(code)
            kind = self.temporary()
            slow = f"{mark(position)}h_get_member({again}, 'length', {_text(node[3])})"
            test = f"({kind} := {first}.__class__) is h_list or {kind} is h_str"
            return Code(f"(h_len({again}) + 0.0 if {test} else {slow})")
        text = as_value(code)
        if not value_kinds(code) & OBJECT or name == "__proto__":
            return Code(f"{mark(position)}h_get_member({text}, {name!a}, {_text(node[3])})")
        first, again = self.hold(Code(text, code.kinds, code.simple))
        key = ascii(name)
        slow = f"{mark(position)}h_get_member({again}, {key}, {_text(node[3])})"
        guard = f"{key} in {first}" if code.kinds == OBJECT else f"{first}.__class__ is h_dict and {key} in {again}"
        return Code(f"({again}[{key}] if {guard} else {slow})")

    def _get_index(self, node: Node) -> Code:
        position = node[4]
        target, index = self.code(node[1]), self.integer_or_none(node[2])
        if index is not None:
            first, again = self.hold(target)
            inside = f"{index} < h_len({again})" if self.is_natural(node[2]) else f"-1 < {index} < h_len({again})"
            slow = f"{mark(position)}h_get_index({again}, {index} + 0.0, {_text(node[3])})"
            if target.kinds in (ARRAY, STRING) and target.simple:
                test = inside
            else:
                tested = "h_str" if target.kinds == STRING else "h_list"
                test = f"{first}.__class__ is {tested} and {inside}"
            return Code(f"({again}[{index}] if {test} else {slow})")
        key = self.code(node[2])
        key = Code(as_value(key), value_kinds(key), key.simple)
        if not (key.kinds & STRING and target.kinds & OBJECT) and not (key.kinds & NUMBER and target.kinds & ARRAY):
            return Code(f"{mark(position)}h_get_index({as_value(target)}, {key.text}, {_text(node[3])})")
        first, again = self.hold(Code(as_value(target), value_kinds(target), target.simple), key.text)
        key_first, key_again = self.hold(key)
        slow = f"{mark(position)}h_get_index({again}, {key_again}, {_text(node[3])})"
        both = ""  # Evaluates both operands; whatever makes it false leads to the helper.
        if key_first is not key_again:
            if is_literal(target):
                return Code(f"{mark(position)}h_get_index({target.text}, {key.text}, {_text(node[3])})")
            both = f"{first} is not {key_first} and "
        elif first is not again:
            both = f"{first} is not None and "
        number = self.temporary()
        from_dict = f"{again}.__class__ is h_dict and {key_again} in {again}"
        whole = f"-1.0 < {key_again} < h_len({again}) and ({number} := h_int({key_again})) == {key_again}"
        from_list = f"{again}.__class__ is h_list and {whole}"
        if key.kinds == NUMBER:
            return Code(f"({again}[{number}] if {both}{from_list} else {slow})")
        if key.kinds == STRING:
            return Code(f"({again}[{key_again}] if {both}{from_dict} else {slow})")
        from_dict = f"{key_again}.__class__ is h_str and {from_dict}"
        from_list = f"{key_again}.__class__ is h_float and {from_list}"
        other = f"{again}[{number}] if {from_list} else {slow}"
        return Code(f"({again}[{key_again}] if {both}{from_dict} else {other})")

    def _set_member(self, node: Node) -> Code:
        target, value = self.value(node[1]), self.code(node[3])
        text = f"{mark(node[5])}h_set_member({target}, {node[2]!a}, {as_value(value)}, {_text(node[4])})"
        return Code(text, value_kinds(value))

    def _set_index(self, node: Node) -> Code:
        target, key, value = self.value(node[1]), self.value(node[2]), self.code(node[3])
        text = f"{mark(node[5])}h_set_index({target}, {key}, {as_value(value)}, {_text(node[4])})"
        return Code(text, value_kinds(value))

    def _delete_member(self, node: Node) -> Code:
        return Code(f"{mark(node[4])}h_delete_member({self.value(node[1])}, {node[2]!a}, {_text(node[3])})", BOOLEAN)

    def _delete_index(self, node: Node) -> Code:
        target, key = self.value(node[1]), self.value(node[2])
        return Code(f"{mark(node[4])}h_delete_index({target}, {key}, {_text(node[3])})", BOOLEAN)

    # -- calls --

    def arguments(self, nodes: Sequence[Node]) -> str:
        """Text of an argument list, without brackets."""
        texts = []
        for node in nodes:
            if node[0] == "spread":
                texts.append(f"*{self._spread(node[1], node[2])}")
            else:
                texts.append(self.value(node))
        return ", ".join(texts)

    def _spread(self, node: Node, text: str | None) -> str:
        code = self.code(node)
        if code.kinds == ARRAY:
            return code.text
        first, again = self.hold(code)
        return f"({again} if {first}.__class__ is h_list else h_spread({again}, {_text(text)}))"

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
        if known == self.function_id and callee[0] == "capture" and self.function["kind"] == "sync":
            # Its own variable can hold no other closure than this one: one look-up less.
            return Code(f"{mark(position)}f{known}({arguments})", kinds)
        if known is not None:
            return Code(f"{mark(position)}{code.text}({arguments})", kinds)
        first, again = self.hold(Code(as_value(code), code.kinds, code.simple))
        chosen = f"({again} if {first}.__class__ is FT else h_callee({again}, {_text(text)}))"
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
        slow = f"h_method({again}, {name!a}, {_text(text)})"
        table = self.constants.method_table(name)
        if table is not None:
            # Builtin methods take the receiver first.
            chosen = f"({table}.get({first}.__class__) or {slow})"
            return Code(f"{mark(position)}{chosen}({again}{comma}{arguments})", kinds)
        found = self.temporary()
        test = f"{first}.__class__ is h_dict and ({found} := {again}.get({name!a})).__class__ is FT"
        slow = f"h_own_method({again}, {name!a}, {_text(text)})"
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
        return Code(f"{mark(node[5])}h_indexed_method({target}, {key}, {_text(node[3])})({arguments})")

    def _new(self, node: Node) -> Code:
        kinds = self.analysis.kinds(self.function_id, node)
        if node[1][0] == "global":
            constructor = self.constants.constructor(node[1][1])
            if constructor is not None:
                return Code(f"{mark(node[4])}{constructor}({self.arguments(node[3])})", kinds)
        constructor = self.value(node[1])
        arguments = self.arguments(node[3])
        comma = ", " if node[3] else ""
        return Code(f"{mark(node[4])}h_construct({constructor}, {_text(node[2])}{comma}{arguments})", kinds)

    # -- literals --

    def _array(self, node: Node) -> Code:
        return Code(f"{mark(node[2])}[{self.arguments(node[1])}]", ARRAY)

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
        return Code(f"{mark(node[3])}h_for_of_iterator({self.value(node[1])}, {_text(node[2])})")

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


# -- counters --------------------------------------------------------------------------------------------------------


def find_counters(analysis: Analysis, function: Function) -> tuple[frozenset[int], frozenset[int]]:
    """(slots kept as Python ints, those of them that are never negative).

    A counter is used as an index somewhere and only ever assigned a small whole constant, itself plus or minus a
    small constant, a length, or another counter's value.
    """
    function_id = function["id"]
    cells = set(function["cells"])
    candidates = analysis.index_slots[function_id] - cells - set(function["params"]) - {function["rest"]}
    if not candidates:
        return frozenset(), frozenset()
    values: dict[int, list[Any]] = {}
    for (_, slot), value in analysis.assignments_of(function_id):
        if slot in candidates:
            values.setdefault(slot, []).append(value)
    counters = {slot for slot, assigned in values.items() if all(_counts(slot, value) for value in assigned)}
    naturals = {slot for slot in counters if all(_never_falls(value) for value in values[slot])}
    return frozenset(counters), frozenset(naturals)


def _counts(slot: int, value: Any) -> bool:
    """Whether an assignment of this value keeps the slot a counter."""
    if not isinstance(value, list):
        return False
    kind = value[0]
    if kind == "number":
        return _is_small(value[1], COUNT_START_MAX)
    if kind == "unary":
        return value[1] in ("inc", "dec") and value[2] == ["slot", slot]
    if kind == "binary":
        return value[1] in ("+", "-") and value[2] == ["slot", slot] and _is_step(value[3])
    return False


def _never_falls(value: Node) -> bool:
    kind = value[0]
    if kind == "number":
        return bool(value[1] >= 0)
    if kind == "unary":
        return bool(value[1] == "inc")
    return bool(value[1] == "+" and value[3][1] >= 0)


def _is_step(node: Node) -> bool:
    """A whole constant small enough to be a counter's step; -0 is not one."""
    return node[0] == "number" and _is_small(node[1], COUNT_STEP_MAX)


def _is_small(number: float, limit: int) -> bool:
    return bool(number.is_integer() and abs(number) <= limit and (number or math.copysign(1.0, number) > 0))


# -- text ------------------------------------------------------------------------------------------------------------


def value_kinds(code: Code) -> int:
    """The kinds of the flow value a code stands for."""
    return NUMBER if code.kinds == INTEGER else code.kinds


def as_value(code: Code) -> str:
    """Text of the flow value: a Python int becomes a float."""
    return f"({code.text} + 0.0)" if code.kinds == INTEGER else code.text


def float_text(code: Code, text: str) -> str:
    """`text`, which stands for `code` again, as a flow value."""
    return f"{text} + 0.0" if code.kinds == INTEGER else text


def is_literal(code: Code) -> bool:
    """True for the text of a number or a string."""
    return code.simple and not code.text[0].isalpha()


def number_text(number: float) -> str:
    """Text of a finite double; a negative one in brackets."""
    text = float.__repr__(number)
    assert math.isfinite(number), "numbers in the IR are finite"
    return f"({text})" if text[0] == "-" else text


def _text(text: str | None) -> str:
    return ascii(text)


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
