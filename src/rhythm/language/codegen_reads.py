"""Property reads as statements in front of the statement that needs them.

`o.n` inside an expression needs two tests; as a statement it needs none:

    try: t1 = s3['n']
    except h_MISS: t1 = h_get_member(s3, 'n', 'o')

A Python subscription of a dict by str, or of a list or str by a natural int, is JavaScript's read or raises one
of h_MISS (KeyError, IndexError, TypeError), whatever the operands are. `hoist` takes an expression, writes such
statements for the reads that are evaluated whenever it is, and gives back the expression with `ready` nodes in their
places. It keeps the order of everything that can be observed: what is evaluated before a hoisted read and could have
an effect, or could see one, is moved to a temporary first. Reads whose property is likely to be missing (`o.n ?? d`,
`if (o.n)`, `o.n === undefined`) stay where they are, because a raised exception costs ten tests.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rhythm.language.codegen_expressions import ExpressionWriter
from rhythm.language.codegen_text import Code, Constants, as_value, mark, value_kinds
from rhythm.language.codegen_tree import (
    ARRAY,
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    UNDEFINED,
    Function,
    Node,
    sub_expressions,
)
from rhythm.language.codegen_types import Analysis

PRIMITIVE: Final = NUMBER | STRING | BOOLEAN | NULL | UNDEFINED

#: Fields with sub-expressions that are evaluated whenever the expression is, in order. Argument lists are -index.
_ALWAYS: Final[dict[str, tuple[int, ...]]] = {
    "binary": (2, 3),
    "unary": (2,),
    "in": (1, 2),
    "instanceof": (1, 2),
    "and": (1,),
    "or": (1,),
    "coalesce": (1,),
    "conditional": (1,),
    "assign": (2,),
    "get_member": (1,),
    "get_index": (1, 2),
    "set_member": (1, 3),
    "set_index": (1, 2, 3),
    "call": (1, -3),
    "call_method": (1, -4),
    "new": (1, -3),
    "array": (-1,),
}
_NAMES: Final = frozenset(
    {"slot", "number", "string", "true", "false", "null", "undefined", "nan", "infinity", "ready"}
)
#: Operators that turn undefined into NaN; `+` only beside a number.
_TO_NUMBERS: Final = frozenset(["+", "-", "*", "/", "%", "<", ">", "<=", ">="])
_INERT: Final = _NAMES | {"cell", "capture", "checked", "global"}


class Line(NamedTuple):
    """One line of generated text; marks inside it become further lines."""

    indent: int
    text: str
    position: int


class ReadWriter(ExpressionWriter):
    """Writes lines, and reads of properties as lines of their own."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        super().__init__(analysis, function, constants)
        self.lines: list[Line] = []
        self.indent = 0
        self.position: int = function["pos"][0] * 1_000_000 + function["pos"][1]
        self._reads: dict[int, bool] = {}

    def emit(self, text: str) -> None:
        """One line at the present indent and position."""
        self.lines.append(Line(self.indent, text, self.position))

    def _ready(self, node: Node) -> Code:
        code: Code = node[1]
        return code

    def is_inert(self, node: Node) -> bool:
        """True when evaluating the expression cannot run flow code or assign anything."""
        kind = node[0]
        if kind in _INERT:
            return True
        if kind in ("template", "binary", "unary"):
            return all(
                self.is_inert(item) and not self.analysis.kinds(self.function_id, item) & ~PRIMITIVE
                for item in sub_expressions(node)
            )
        if kind == "get_index":
            key = self.analysis.kinds(self.function_id, node[2])
            return self.is_inert(node[1]) and self.is_inert(node[2]) and not key & ~PRIMITIVE
        return bool(kind == "get_member" and self.is_inert(node[1]))

    def has_reads(self, node: Node) -> bool:
        """Whether `hoist` would find a read in an expression of the function."""
        if node[0] in _INERT:
            return False
        found = self._reads.get(id(node))
        if found is None:
            found = self.is_hoisted(node) or any(self.has_reads(child) for child in self._always(node))
            self._reads[id(node)] = found
        return found

    def is_hoisted(self, node: Node) -> bool:
        """Whether an expression is one that is written as statements."""
        return self._is_read(node)

    def _is_read(self, node: Node) -> bool:
        kind = node[0]
        if kind == "get_member":
            if node[1][0] == "global" or node[2] in ("length", "__proto__"):
                return False
            if self.analysis.has_always(self.function_id, node[1], node[2]):
                return False
            return bool(self.analysis.kinds(self.function_id, node[1]) & OBJECT)
        if kind != "get_index" or node[1][0] == "global":
            return False
        kinds = self.analysis.kinds(self.function_id, node[1])
        if self.integer_or_none(node[2]) is not None:
            return bool(kinds & (ARRAY | STRING)) and self.is_natural(node[2])
        return bool(kinds & OBJECT) and self.analysis.kinds(self.function_id, node[2]) == STRING

    def _always(self, node: Node) -> list[Node]:
        """Sub-expressions that are evaluated whenever the expression is and may be moved in front of it, in order."""
        kind = node[0]
        children: list[Node] = []
        for field in _ALWAYS.get(kind, ()):
            if field >= 0:
                children.append(node[field])
            elif kind != "call_method" or self._looks_up_first(node[1]):
                for item in node[-field]:
                    if item[0] == "spread":
                        return children
                    children.append(item)
        return children

    def _looks_up_first(self, receiver: Node) -> bool:
        """True when looking up a method on the receiver cannot be told from looking it up after the arguments."""
        if receiver[0] == "global":
            return True
        return self.analysis.kinds(self.function_id, receiver) in (ARRAY, STRING)

    def hoist(self, node: Node, *, presence: bool = False) -> Node:
        """Write the reads of an expression as statements; return what is left. `presence`: only truthiness matters."""
        if not self.has_reads(node):
            return node
        kind = node[0]
        children = self._always(node)
        tested = kind in ("and", "or", "coalesce", "conditional") or _tests_presence(node)
        ready: list[Node] = []
        for index, child in enumerate(children):
            item = self._hoist_number(node, child) or self.hoist(child, presence=tested)
            later = children[index + 1 :]
            if any(self.has_reads(other) for other in later) and not self._can_wait(item, later):
                item = ["ready", self._moved(item)]
            ready.append(item)
        if self.is_hoisted(node) and not (presence and self._is_read(node)):
            return ["ready", self.write_hoisted(node, ready)]
        return _rebuilt(node, ready)

    def _hoist_number(self, node: Node, child: Node) -> Node | None:
        """`a[i]` as an operand of arithmetic, `a` holding only numbers: undefined, beyond its end, is NaN there."""
        if node[0] != "binary" or node[1] not in _TO_NUMBERS or child[0] != "get_index" or not self._is_read(child):
            return None
        other = node[3] if child is node[2] else node[2]
        if node[1] == "+" and self.analysis.kinds(self.function_id, other) & ~(NUMBER | UNDEFINED):
            return None
        if self.has_reads(child[1]) or not self.analysis.holds_numbers(self.function_id, child[1]):
            return None
        index = self.integer_or_none(child[2])
        target = self.code(child[1])
        if index is None or not target.simple:
            return None
        name = self.temporary()
        self.emit(f"try: {name} = {target.text}[{index}]")
        self.emit(f"except h_MISS: {name} = h_nan")
        return ["ready", Code(name, NUMBER, True)]

    def _can_wait(self, node: Node, later: list[Node]) -> bool:
        """Whether an operand may be evaluated after statements for later operands have run."""
        if not self.is_inert(node):
            return False
        if node[0] in _NAMES and node[0] != "slot":
            return True
        return all(self.is_inert(other) for other in later)

    def _moved(self, node: Node) -> Code:
        code = self.code(node)
        if node[0] == "slot":
            code = Code(code.text, code.kinds)  # A later operand assigns it.
        if code.simple:
            return code
        name = self.temporary()
        self.emit(f"{name} = {as_value(code)}")
        return Code(name, value_kinds(code), True)

    def write_hoisted(self, node: Node, ready: list[Node]) -> Code:
        """Statements for a hoisted expression whose operands are `ready`; its result."""
        target = self.code(ready[0])
        receiver = as_value(target)
        if not target.simple or target.kinds == INTEGER:
            receiver = self.temporary()
            self.emit(f"{receiver} = {as_value(target)}")
        where = ascii(node[3])
        if node[0] == "get_member":
            key = ascii(node[2])
            slow = f"h_get_member({receiver}, {key}, {where})"
        else:
            index = self.integer_or_none(node[2])
            if index is not None:
                key = index
                slow = f"h_get_index({receiver}, {index} + 0.0, {where})"
            else:
                code = self.code(ready[1])
                key = code.text
                if not code.simple:
                    key = self.temporary()
                    self.emit(f"{key} = {code.text}")
                slow = f"h_get_index({receiver}, {key}, {where})"
        name = self.temporary()
        self.emit(f"try: {name} = {receiver}[{key}]")
        self.emit(f"except h_MISS: {name} = {mark(node[4])}{slow}")
        return Code(name, self.analysis.kinds(self.function_id, node), True)


def _tests_presence(node: Node) -> bool:
    """Whether an operation asks if its operand is there at all."""
    if node[0] == "unary":
        return node[1] in ("!", "nullish", "typeof")
    if node[0] != "binary" or node[1] not in ("===", "!==", "==", "!="):
        return False
    return node[2][0] in ("null", "undefined") or node[3][0] in ("null", "undefined")


def _rebuilt(node: Node, ready: list[Node]) -> Node:
    """The expression with its first always-evaluated sub-expressions replaced."""
    result = list(node)
    pending = list(reversed(ready))
    for field in _ALWAYS[node[0]]:
        if field >= 0:
            result[field] = pending.pop()
        else:
            items = list(result[-field])
            for index in range(len(items)):
                if not pending:
                    break
                items[index] = pending.pop()
            result[-field] = items
    return result
