"""What the source shows about a value, without running anything.

    read(node) -> Known    a constant, or only its kind, or the members of an object or array as far as they stand there

Only what no run can change counts: literals, constants that hold one (``const LIMIT = 5``), and the kind of what an
operator gives (a template is a string, so is ``ready ? "yes" : "no"``). Objects and arrays are read where they are
written, never through a variable, since they can be changed on the way. Everything else is "unknown", which is never an
error and never safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from rhythm.language import nodes
from rhythm.language.units import join_surrogates

DEPTH_MAX: Final = 40  #: Levels of objects and arrays that are read; deeper ones are unknown.
CONSTANTS_MAX: Final = 5  #: Constants that are followed one after the other.

Kind = Literal["unknown", "undefined", "null", "boolean", "number", "string", "object", "array", "function"]

_OPERATORS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>", ">>>"), "number"),
    **dict.fromkeys(("<", ">", "<=", ">=", "==", "!=", "===", "!==", "in", "instanceof"), "boolean"),
}
_UNARY: Final[dict[str, Kind]] = {
    "-": "number", "+": "number", "~": "number", "!": "boolean", "delete": "boolean", "typeof": "string",
    "void": "undefined",
}  # fmt: skip
_FUNCTIONS: Final = (nodes.FunctionExpression, nodes.ArrowFunctionExpression)


@dataclass(frozen=True, slots=True)
class Member:
    """A property of an object literal: the span of its name, and its value."""

    start: int
    end: int
    value: Known


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one value, and its span."""

    start: int
    end: int
    kind: Kind = "unknown"
    exact: bool = False  #: ``value`` is the value itself; only for strings, numbers, booleans and null.
    value: str | float | bool | None = None  #: Strings hold whole characters, not UTF-16 units.
    members: dict[str, Member] = field(default_factory=dict)  #: Of objects, in order.
    items: tuple[Known, ...] = ()  #: Of arrays.
    is_open: bool = False  #: Something is spread into it or named by an expression: there may be more than is known.


def read(node: nodes.Node) -> Known:
    """What the source shows about the value of an expression. Never raises."""
    return _read(node, 0)


def _read(node: nodes.Node, depth: int) -> Known:
    start, end = node.start, node.end
    if isinstance(node, nodes.Literal):
        return _exact(start, end, node.value)
    if isinstance(node, nodes.TemplateLiteral):
        return Known(start, end, "string") if node.expressions else _exact(start, end, node.quasis[0])
    if isinstance(node, nodes.ObjectExpression):
        return _object(node, depth + 1) if depth < DEPTH_MAX else Known(start, end)
    if isinstance(node, nodes.ArrayExpression):
        return _array(node, depth + 1) if depth < DEPTH_MAX else Known(start, end)
    if isinstance(node, nodes.Identifier):
        return _name(node)
    if isinstance(node, nodes.UnaryExpression):
        return _unary(node)
    if isinstance(node, nodes.BinaryExpression):
        return Known(start, end, "string" if _is_text(node) else _OPERATORS.get(node.operator, "unknown"))
    if isinstance(node, nodes.ConditionalExpression):
        return _either(node, depth + 1) if depth < DEPTH_MAX else Known(start, end)
    return Known(start, end, "function" if isinstance(node, _FUNCTIONS) else "unknown")


def _either(node: nodes.ConditionalExpression, depth: int) -> Known:
    """What both values have in common: their kind, if it is a simple one."""
    one, other = _read(node.consequent, depth), _read(node.alternate, depth)
    same = one.kind == other.kind and one.kind in ("string", "number", "boolean", "null", "function")
    return Known(node.start, node.end, one.kind if same else "unknown")


def _exact(start: int, end: int, value: str | float | bool | None) -> Known:
    if isinstance(value, str):
        return Known(start, end, "string", True, join_surrogates(value))
    kind: Kind = "null" if value is None else "boolean" if isinstance(value, bool) else "number"
    return Known(start, end, kind, True, value)


def _name(node: nodes.Identifier) -> Known:
    start, end = node.start, node.end
    target: nodes.Node = node
    for _ in range(CONSTANTS_MAX):
        if not isinstance(target, nodes.Identifier):
            break
        binding = target.binding
        if binding is None:
            return Known(start, end, "undefined" if target.name == "undefined" else "unknown")
        if binding.kind == "function" and not binding.assigned:
            return Known(start, end, "function")
        if binding.kind != "const" or binding.initialiser is None:
            return Known(start, end)
        target = binding.initialiser
    if isinstance(target, nodes.Literal):
        return _exact(start, end, target.value)
    if isinstance(target, nodes.TemplateLiteral) and not target.expressions:
        return _exact(start, end, target.quasis[0])
    return Known(start, end, "function" if isinstance(target, _FUNCTIONS) else "unknown")


def _unary(node: nodes.UnaryExpression) -> Known:
    start, end, argument = node.start, node.end, node.argument
    if node.operator in ("-", "+") and isinstance(argument, nodes.Literal) and type(argument.value) is float:
        return _exact(start, end, -argument.value if node.operator == "-" else argument.value)
    return Known(start, end, _UNARY.get(node.operator, "unknown"))


def _is_text(node: nodes.Expression) -> bool:
    """Whether this surely gives a string: a sum with a string somewhere at its end or start."""
    while isinstance(node, nodes.BinaryExpression) and node.operator == "+":  # grows to the left without limit
        if _is_string(node.right):
            return True
        node = node.left
    return _is_string(node)


def _is_string(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateLiteral) or (isinstance(node, nodes.Literal) and isinstance(node.value, str))


def _object(node: nodes.ObjectExpression, depth: int) -> Known:
    members: dict[str, Member] = {}
    is_open = False
    for item in node.properties:
        name = None if isinstance(item, nodes.SpreadElement) else property_name(item)
        if isinstance(item, nodes.SpreadElement) or name is None:
            is_open = True  # what comes here may replace the value of any name before it
            for earlier, member in members.items():
                members[earlier] = Member(member.start, member.end, Known(member.value.start, member.value.end))
            continue
        if name == "toJSON":
            return Known(node.start, node.end)
        value = Known(item.start, item.end, "function") if item.method else _read(item.value, depth)
        members[name] = Member(item.key.start, item.key.end, value)
    return Known(node.start, node.end, "object", members=members, is_open=is_open)


def property_name(item: nodes.Property) -> str | None:
    """The name of a property of an object literal; None when an expression gives it."""
    if isinstance(item.key, nodes.Identifier) and not item.computed:
        return join_surrogates(item.key.name)
    if isinstance(item.key, nodes.Literal) and isinstance(item.key.value, str):
        return join_surrogates(item.key.value)
    return None


def _array(node: nodes.ArrayExpression, depth: int) -> Known:
    items: list[Known] = []
    for element in node.elements:
        if isinstance(element, nodes.SpreadElement):
            return Known(node.start, node.end, "array", items=tuple(items), is_open=True)
        items.append(_read(element, depth))
    return Known(node.start, node.end, "array", items=tuple(items))
