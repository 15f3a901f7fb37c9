"""The tree of a flow IR for the code generator: walking it, and kinds of values as bit masks.

Nothing here knows a program; see codegen_types for what is known about one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Node = list[Any]
Function = dict[str, Any]
#: A variable: function id, slot (or -1 - capture index for a closure's own name). Contents: -1 - holder, 0.
Key = tuple[int, int]

NUMBER: Final = 1
STRING: Final = 2
BOOLEAN: Final = 4
UNDEFINED: Final = 8
NULL: Final = 16
ARRAY: Final = 32
OBJECT: Final = 64
FUNCTION: Final = 128  #: A flow function; builtin functions are OTHER.
OTHER: Final = 256
ANY: Final = 511
INTEGER: Final = 512  #: Only in generated code: a number held as a Python int. Never in the answers of codegen_types.

#: Methods of strings and the kinds of their results.
STRING_METHODS: Final[dict[str, int]] = {
    **dict.fromkeys(["charCodeAt", "indexOf", "lastIndexOf"], NUMBER),
    **dict.fromkeys(
        [
            "charAt",
            "concat",
            "padEnd",
            "padStart",
            "repeat",
            "replace",
            "replaceAll",
            "slice",
            "substring",
            "substr",
            "toLowerCase",
            "toUpperCase",
            "trim",
            "trimEnd",
            "trimStart",
            "toString",
        ],
        STRING,
    ),
    **dict.fromkeys(["endsWith", "includes", "startsWith"], BOOLEAN),
    "split": ARRAY,
}
#: What Math has; its other members are inherited or missing.
MATH_FUNCTIONS: Final = frozenset(
    "abs acos acosh asin asinh atan atan2 atanh cbrt ceil clz32 cos cosh exp expm1 floor fround hypot imul log log10 "
    "log1p log2 max min pow random round sign sin sinh sqrt tan tanh trunc".split()
)
MATH_CONSTANTS: Final = frozenset("E LN10 LN2 LOG10E LOG2E PI SQRT1_2 SQRT2".split())
NUMBER_METHODS: Final = frozenset({"toFixed", "toString", "toPrecision", "toExponential"})


def sub_expressions(node: Node) -> Iterator[Node]:
    """The direct sub-expressions of an expression, spreads and object entries opened."""
    if node[0] == "template":
        yield from (part for part in node[1] if part.__class__ is list)
        return
    for field in node[1:]:
        if field.__class__ is not list or not field:  # A `ready` node holds a Code, which is no list.
            continue
        if field[0].__class__ is str:
            yield field
            continue
        for item in field:
            if item.__class__ is not list or not item:
                continue
            kind = item[0]
            if kind == "spread":
                yield item[1]
            elif kind == "property":
                yield item[2]
            elif kind == "computed":
                yield item[1]
                yield item[2]
            else:
                yield item


def bodies(statement: Node) -> Iterator[list[Node]]:
    """The statement lists directly inside a statement."""
    kind = statement[0]
    if kind == "if":
        for arm in statement[1]:
            yield arm[1]
        yield statement[2]
    elif kind == "loop":
        yield statement[3]
        yield statement[4]
    elif kind == "for_of":
        yield statement[5]
    elif kind == "block":
        yield statement[2]
    elif kind == "try":
        yield statement[1]
        yield statement[3]


#: Index of the expression in a statement, for those that have one; `if` has one per arm.
_EXPRESSION_FIELD: Final = {
    "expr": 1,
    "set": 2,
    "bind": 2,
    "loop": 2,
    "for_of": 3,
    "return": 1,
    "throw": 1,
    "await": 3,
    "unpack": 3,
    "check_object": 1,
}


def statement_expressions(statement: Node) -> Iterator[Node]:
    """The expressions of a statement itself, not those of statements inside it."""
    kind = statement[0]
    if kind == "if":
        for arm in statement[1]:
            yield arm[0]
    elif kind in _EXPRESSION_FIELD:
        expression = statement[_EXPRESSION_FIELD[kind]]
        if expression is not None:
            yield expression


def statements_of(function: Function) -> Iterator[Node]:
    """Every statement of a function, outer before inner."""
    pending = list(reversed(function["body"]))
    while pending:
        statement = pending.pop()
        yield statement
        for body in bodies(statement):
            pending.extend(reversed(body))
