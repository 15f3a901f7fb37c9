"""What running a piece of the IR can do to properties that somebody else reads.

    Effects(analysis).of(function id, statements) -> names of the properties it may write, or None: anything

There are no getters, proxies or user iterators in the language, so other flow code runs only where it is called, where
an operand that may be an object is turned into a primitive, and at an await. Whatever is not known to be harmless is
None, so an answer is never wrong, only dull.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rhythm.language.codegen_tree import (
    ARRAY,
    BOOLEAN,
    MATH_FUNCTIONS,
    NULL,
    NUMBER,
    NUMBER_METHODS,
    STRING,
    STRING_METHODS,
    UNDEFINED,
    Node,
    bodies,
    statement_expressions,
    statements_of,
    sub_expressions,
)
from rhythm.language.codegen_types import Analysis

PRIMITIVE: Final = NUMBER | STRING | BOOLEAN | NULL | UNDEFINED

#: Expressions that do nothing to properties, whatever their operands are.
_HARMLESS: Final = frozenset(
    """number nan infinity string true false null undefined slot cell capture checked global ready assign
    and or coalesce conditional sequence get_member array closure instanceof
    iterator iter_step iter_next iter_rest for_in_keys for_in_has object_rest""".split()
)
#: Expressions that turn some operands into primitives: the indexes of those operands.
_CONVERTS: Final[dict[str, tuple[int, ...]]] = {"binary": (2, 3), "unary": (2,), "get_index": (2,), "in": (1,)}
_COMPARES_IDENTITY: Final = frozenset(["===", "!==", "!", "typeof", "nullish"])
#: Methods of arrays that call nothing and convert nothing.
_ARRAY_METHODS: Final = frozenset(["push", "pop", "shift", "unshift", "reverse"])
_CALLBACK_METHODS: Final = frozenset(["map", "filter", "forEach", "some", "every", "find", "findIndex", "reduce"])
_GLOBAL_FUNCTIONS: Final = frozenset(["Number", "String", "Boolean", "parseInt", "parseFloat", "isNaN", "isFinite"])


class Effects:
    """The answers for one program."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self._functions: dict[int, frozenset[str] | None] = {}

    def of(self, function_id: int, statements: Iterable[Node]) -> frozenset[str] | None:
        """Names of the properties that the statements may write; None: anything may happen."""
        names: set[str] = set()
        pending = list(statements)
        while pending:
            statement = pending.pop()
            if statement[0] == "await":
                return None
            for body in bodies(statement):
                pending.extend(body)
            for expression in statement_expressions(statement):
                if not self._visit(function_id, expression, names):
                    return None
        return frozenset(names)

    def _of_function(self, function_id: int) -> frozenset[str] | None:
        if function_id not in self._functions:
            self._functions[function_id] = frozenset()  # For calls of itself, which add nothing.
            function = self.analysis.functions[function_id]
            found = self.of(function_id, statements_of(function)) if function["kind"] == "sync" else None
            self._functions[function_id] = found
        return self._functions[function_id]

    def _visit(self, function_id: int, node: Node, names: set[str]) -> bool:
        """Adds what an expression may write to `names`; False when anything may happen."""
        pending = [node]
        while pending:
            node = pending.pop()
            if not self._is_known(function_id, node, names):
                return False
            pending.extend(sub_expressions(node))
        return True

    def _is_known(self, function_id: int, node: Node, names: set[str]) -> bool:
        kind = node[0]
        if kind in _HARMLESS:
            return True
        if kind in _CONVERTS:
            identity = kind in ("binary", "unary") and node[1] in _COMPARES_IDENTITY
            return identity or self._primitive(function_id, [node[index] for index in _CONVERTS[kind]])
        if kind == "template":
            return self._primitive(function_id, sub_expressions(node))
        if kind == "object":
            return self._primitive(function_id, [entry[1] for entry in node[1] if entry[0] == "computed"])
        if kind == "set_member":
            names.add(node[2])
            return True
        if kind == "set_index":
            is_array = self.analysis.kinds(function_id, node[1]) == ARRAY
            return is_array and self._primitive(function_id, [node[2]])
        if kind == "call":
            return self._knows_call(function_id, node, names)
        return kind == "call_method" and self._knows_method(function_id, node, names)

    def _knows_call(self, function_id: int, node: Node, names: set[str]) -> bool:
        callee, arguments = node[1], node[3]
        if callee[0] == "global":
            return callee[1] in _GLOBAL_FUNCTIONS and self._primitive(function_id, arguments)
        target = self.analysis.known_function(function_id, callee)
        return target is not None and self._adds(self._of_function(target), names)

    def _knows_method(self, function_id: int, node: Node, names: set[str]) -> bool:
        receiver, name, arguments = node[1], node[2], node[4]
        if receiver[0] == "global":
            is_math = receiver[1] == "Math" and name in MATH_FUNCTIONS
            return is_math and self._primitive(function_id, arguments)
        kinds = self.analysis.kinds(function_id, receiver)
        if kinds == ARRAY:
            if name in _CALLBACK_METHODS and arguments and arguments[0][0] == "closure":
                return self._adds(self._of_function(arguments[0][1]), names)
            return name in _ARRAY_METHODS
        methods = STRING_METHODS if kinds == STRING else NUMBER_METHODS if kinds == NUMBER else ()
        return name in methods and self._primitive(function_id, arguments)

    def _adds(self, found: frozenset[str] | None, names: set[str]) -> bool:
        if found is None:
            return False
        names.update(found)
        return True

    def _primitive(self, function_id: int, nodes: Iterable[Node]) -> bool:
        kinds = self.analysis.kinds
        return all(node[0] != "spread" and not kinds(function_id, node) & ~PRIMITIVE for node in nodes)
