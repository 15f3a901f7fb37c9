"""The pieces of generated text: codes, positions, run-time objects by number, counters.

A `Code` is the text of one expression and what is known about its value. `mark` and `Constants` are how positions and
builtins get into text without program data getting there. `find_counters` picks the slots that generated code keeps as
Python ints.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from rhythm.language.codegen_tree import ANY, INTEGER, NUMBER, Function, Node
from rhythm.language.codegen_types import Analysis

COUNT_STEP_MAX: Final = 1 << 20  #: Largest step of a counter; no activation lives long enough to reach 2**53 with it.
COUNT_START_MAX: Final = 1 << 31  #: Largest constant assigned to a counter.

MARK: Final = "\x01"  #: Before a position in the text of an expression.
MARK_END: Final = "\x02"


class Code(NamedTuple):
    """Text of one expression."""

    text: str
    kinds: int = ANY  #: Mask of codegen_types, or INTEGER alone.
    simple: bool = False  #: A name or a constant: may be written several times.


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
        return value[1] in ("+", "-") and value[2] == ["slot", slot] and is_step(value[3])
    return False


def _never_falls(value: Node) -> bool:
    kind = value[0]
    if kind == "number":
        return bool(value[1] >= 0)
    if kind == "unary":
        return bool(value[1] == "inc")
    return bool(value[1] == "+" and value[3][1] >= 0)


def is_step(node: Node) -> bool:
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


def quoted(text: str | None) -> str:
    """Text of a string constant, or None: ASCII whatever the string holds."""
    return ascii(text)
