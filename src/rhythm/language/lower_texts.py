"""Expressions as V8 shows them in the messages of errors.

V8 prints the tree again instead of quoting the source: `o['x']` is `o.x`, `f(1)` is `f(...)`, `(a+b)` is `(a + b)`,
and what it cannot print is `(intermediate value)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rhythm.language import nodes
from rhythm.language.numbers import number_to_string

UNPRINTED: Final = "(intermediate value)"
UNPRINTED_DEFAULT: Final = UNPRINTED * 3  #: A parameter with a default is a condition with three parts.
TEXT_LENGTH_MAX: Final = 200  #: Longest text kept for a message.
_DEPTH_MAX: Final = 40  #: Nesting that is printed.
_ELEMENTS_MAX: Final = 40  #: Elements of an array that are printed.


class PresentMember(nodes.MemberExpression):
    """A member whose ``?.`` has found an object. Its text still shows the mark."""

    __slots__ = ()


def text_of(node: nodes.Node) -> str:
    """The text of a callee, of the value of an object pattern, of an operand."""
    text = _print(node, 0)
    return text if len(text) <= TEXT_LENGTH_MAX else UNPRINTED


def text_of_iterable(node: nodes.Node) -> str:
    """The text of what for-of or a spread in an array goes over: a call may have failed to give it."""
    if isinstance(node, nodes.CallExpression):
        return f"{text_of(node.callee)} is not a function or its return value"
    return text_of(node)


def text_of_pattern_value(node: nodes.Node) -> str | None:
    """The text of what an array pattern declares names from. V8 knows it only when its place is its beginning."""
    if isinstance(node, nodes.Identifier | nodes.Literal | nodes.UnaryExpression | nodes.ObjectExpression) or (
        isinstance(node, nodes.CallExpression) and isinstance(node.callee, nodes.Identifier)
    ):
        return text_of_iterable(node)
    return UNPRINTED if isinstance(node, nodes.AwaitExpression) else None


def _print(node: nodes.Node, depth: int) -> str:
    if depth > _DEPTH_MAX:
        return UNPRINTED
    depth += 1
    if isinstance(node, nodes.Identifier):
        return node.name
    if isinstance(node, nodes.Literal):
        return _literal(node.value)
    if isinstance(node, nodes.MemberExpression):
        mark = "?." if node.optional or isinstance(node, PresentMember) else ""
        return _print(node.object, depth) + _key(node, mark, depth)
    if isinstance(node, nodes.CallExpression):
        return f"{_print(node.callee, depth)}(...)"
    if isinstance(node, nodes.SpreadElement):
        return f"(...{_print(node.argument, depth)})"
    if isinstance(node, nodes.ArrayExpression):
        return f"[{','.join(_print(item, depth) for item in node.elements[:_ELEMENTS_MAX])}]"
    if isinstance(node, nodes.ObjectExpression):
        return "{" + UNPRINTED * min(len(node.properties), _ELEMENTS_MAX) + "}"
    if isinstance(node, nodes.ConditionalExpression):
        return UNPRINTED * 3
    return _operation(node, depth)


def _operation(node: nodes.Node, depth: int) -> str:
    if isinstance(node, nodes.BinaryExpression | nodes.LogicalExpression):
        return f"({f' {node.operator} '.join(_print(item, depth) for item in _operands(node))})"
    if isinstance(node, nodes.SequenceExpression):
        return f"({' , '.join(_print(item, depth) for item in node.expressions[:_ELEMENTS_MAX])})"
    if isinstance(node, nodes.UnaryExpression):
        inner = _print(node.argument, depth)
        if node.operator == "-" and isinstance(node.argument, nodes.Literal):
            return f"-{inner}"
        space = " " if node.operator.isalpha() else ""
        return f"({node.operator}{space}{inner})"
    if isinstance(node, nodes.UpdateExpression):
        inner = _print(node.argument, depth)
        return f"({node.operator}{inner})" if node.prefix else f"({inner}{node.operator})"
    if isinstance(node, nodes.AssignmentExpression) and not isinstance(node.left, nodes.ArrayPattern):
        return _print(node.left, depth)
    if isinstance(node, nodes.TemplateLiteral):
        if not node.expressions:
            return _literal(node.quasis[0])
        return "".join(_print(item, depth) for item in node.expressions[:_ELEMENTS_MAX])
    return UNPRINTED


def _literal(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else number_to_string(float(str(value)))


def _key(node: nodes.MemberExpression, mark: str, depth: int) -> str:
    key = node.property
    if not node.computed:
        assert isinstance(key, nodes.Identifier), "plain names are identifiers"
        return f"{mark or '.'}{key.name}"
    name = key.value if isinstance(key, nodes.Literal) else None
    if isinstance(key, nodes.TemplateLiteral) and not key.expressions:
        name = key.quasis[0]
    if isinstance(name, str):
        return f"{mark or '.'}{name}"
    return f"{mark}[{_print(key, depth)}]"


def _operands(node: nodes.BinaryExpression | nodes.LogicalExpression) -> Sequence[nodes.Node]:
    """V8 keeps a run of the same operator together."""
    operands: list[nodes.Node] = [node.right]
    left: nodes.Node = node.left
    while left.__class__ is node.__class__ and getattr(left, "operator", "") == node.operator:
        assert isinstance(left, nodes.BinaryExpression | nodes.LogicalExpression), "it has an operator"
        operands.append(left.right)
        left = left.left
    return [left, *reversed(operands)][:_ELEMENTS_MAX]
