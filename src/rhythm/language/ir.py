"""The flow IR, version 1: what a definition is compiled to, stored as, and run from.

The lowering (`lower.py`) writes it, the code generator reads it, the database keeps it for as long as an execution
needs it. It is plain JSON data: dicts, lists, str, int, float, bool, None. This file is its grammar; `FORMAT` is its
fingerprint.

    program   = {"v": 1, "name": str, "functions": [function, ...], "module": 0, "globals": [name, ...]}
    function  = {
        "id":       int          its index in "functions"; the function that creates a closure has a smaller id
        "name":     str          for stack traces; "" when there is none
        "kind":     "sync" | "async"
        "params":   [slot, ...]  plain slots filled from positional arguments; missing ones are undefined
        "rest":     slot | None  a plain slot that receives the further arguments as an array; without it they are lost
        "slots":    [str, ...]   source name of each slot, "" for a temporary
        "cells":    [slot, ...]  slots that hold a cell (one-element list) instead of a value; ascending
        "captures": [["slot", cell slot] | ["capture", index] | ["self"], ...]
                                 where the cells of a closure come from, seen from the function that creates it;
                                 "self" is a new cell that holds the closure itself (a named function expression)
        "labels":   int          number of labels; each is defined by at most one statement
        "awaits":   [{"live": [slot, ...], "pos": [line, column], "text": str}, ...]   indexed by await id
        "body":     [statement, ...]     running off its end returns undefined
        "pos":      [line, column]
        "types":    optional, see below
    }
    statement, expression = [kind, field, ...]    tables STATEMENTS and EXPRESSIONS

The module (function 0, sync, no parameters, no captures) initialises the top-level bindings and returns the closure of
the workflow. Top-level bindings that functions use are cells of the module like any other captured variable.

Evaluation order. Fields are evaluated left to right, each exactly once, before the operation itself, unless the table
says otherwise. An operand is *read* when it is reached: in `["binary", "+", x, y]` a y that assigns to x does not
change the left operand. Whatever the lowering has put in a temporary stays there; the generator never reorders effects.
A method (`call_method`, `call_index`) is looked up on its receiver before its arguments are evaluated, so a null or
undefined receiver throws first; whether the result can be called is tested after them.

Awaits are statements, so an expression never suspends. A rejected promise throws where the await stands. No `for_of`
contains an await (such loops use `iterator` and `iter_step`). There is no `finally` and no `switch`: they are lowered
to `try`, `block` and `if`; the completion record of a finally is two ordinary slots (kind: a number, value), which are
initialised before the `try` and so may be live at an await.

Slots. Every plain slot is assigned before it is read on every path (the lowering clears the rest at function entry),
and so is every slot in a `live` list. A plain slot may hold the TDZ mark (statement `tdz`); it is only read through
`checked` then, but may be live at an await, as may iterators. A cell slot is filled by `fresh`, `bind` or `copy`
before it is used.
`live` names, ascending, the slots whose values are still needed after the await (not its own result slot). For a cell
slot the cell itself is kept. Numbers in slots are floats, always.

Variables: var = ["slot", plain slot] | ["cell", cell slot] | ["capture", index]; each is also an expression, an
unchecked read. Writing through `set` and `assign` is unchecked as well; where a check is needed, a `checked` read
precedes it.

Positions are `line * 1_000_000 + column`, both from 1 (`pack_position`, `unpack_position`). Operations that often throw
carry their own; an operation without one belongs to the position of its statement.
Texts are the source text of a callee, receiver or iterable, as used in error messages, or None when it has no short
one. Strings are UTF-16 code units: no character above U+FFFF.

Types (hints; leaving the field out is always right):
    "types": {"numbers": [slot, ...], "integers": [slot, ...]}       plain slots, ascending
    numbers    every value ever stored in the slot is a number (float)
    integers   besides, it is always a whole number of at most 2**53 in magnitude and never -0, every assignment to it
               being a constant, another integer slot, or an `inc`, `dec`, `+` or `-` of such: the generator may keep it
               as a Python int and must turn it into a float wherever it leaves the slot as a value (including at an
               await)
A captured variable is never listed.

Hash. `content_hash` is over the canonical bytes, which include positions and texts: an edit of comments or white space
that moves code may change it. Equal bytes are equal programs; nothing else is promised.

Failure: `validate` raises IRError for anything this grammar does not allow. It never recurses, and is to be called on
every IR that comes from outside before anything is generated from it. What it does not prove is that slots are assigned
before they are read and that `live` is complete: generated code then fails inside the engine, it never escapes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

from rhythm.language.recursion import recursion_room

VERSION: Final = 1  #: `v` of every program written by this code. Bump it when FORMAT changes in any way.

# Limits.
EXPRESSION_DEPTH_MAX: Final = 60  #: Nesting of expression nodes; the lowering spills deeper ones to temporaries.
#: Nesting of statement lists: 64 source blocks, some of which lower to several, and 250 conditions.
STATEMENT_DEPTH_MAX: Final = 500
JSON_DEPTH_MAX: Final = 4_000  #: Nesting of lists in the bytes.
FUNCTIONS_MAX: Final = 20_000
SLOTS_MAX: Final = 100_000  #: Per function.
NODES_MAX: Final = 2_000_000  #: Statements and expressions per program.
TEXT_UNITS_MAX: Final = 1 << 20  #: Any one string.
BYTES_MAX: Final = 64 << 20  #: Size of a stored program.
POSITION_LINE: Final = 1_000_000

Json = Any
Node = list[Any]
Function = dict[str, Any]
Program = dict[str, Any]

BINARY_OPERATORS: Final = frozenset("+ - * / % ** & | ^ << >> >>> < > <= >= == != === !==".split())
UNARY_OPERATORS: Final = {
    "-": "numeric negation",
    "+": "ToNumber",
    "~": "bitwise not",
    "!": "logical not, a boolean",
    "typeof": "the type's name",
    "inc": "ToNumber(x) + 1",
    "dec": "ToNumber(x) - 1",
    "nullish": "true when x is null or undefined, a boolean",
    "string": "ToString, as in a template",
    "key": "ToPropertyKey, a string",
}

# Field types:
#   expr expr? exprs        expression, or None, or a list of them
#   arguments               list of expressions, each may also be ["spread", expr, text]
#   parts                   list of str | expression (template)
#   entries                 list of ["property", name, expr] | ["computed", key expr, expr] | ["spread", expr]
#   var                     ["slot", s] | ["cell", s] | ["capture", i]
#   slot slot? slots slots? plain slot; or None; list of plain slots; list whose members may be None
#   cell cells              cell slot; list of cell slots
#   body                    list of statements
#   arms                    list of [test expr, [statement, ...]], at least one
#   name text               str; str or None
#   position                packed position
EXPRESSIONS: Final[dict[str, tuple[str, ...]]] = {
    # constants
    "number": ("number",),  # a finite double, written as a float
    "nan": (),  # NaN
    "infinity": (),  # Infinity (the negative one is a unary "-")
    "string": ("name",),  # a string constant
    "true": (),  # true
    "false": (),  # false
    "null": (),  # null
    "undefined": (),  # undefined
    # variables
    "slot": ("slot",),  # value of a plain slot
    "cell": ("cell",),  # value inside the cell held by a cell slot
    "capture": ("capture",),  # value inside a captured cell
    "global": ("global",),  # a builtin by name; the name is listed in program "globals"
    "checked": ("var", "name", "position"),  # value of var; ReferenceError "Cannot access 'name' ..." on the TDZ mark
    "assign": ("var", "expr"),  # stores the value; the value is the result
    # operators
    "binary": ("binary", "expr", "expr"),  # BINARY_OPERATORS; both operands are evaluated, then coerced
    "unary": ("unary", "expr"),  # UNARY_OPERATORS
    "in": ("expr", "expr", "position"),  # key, object
    "instanceof": ("expr", "expr", "position"),  # value, constructor
    "and": ("expr", "expr"),  # a && b: b is evaluated only if a is truthy
    "or": ("expr", "expr"),  # a || b
    "coalesce": ("expr", "expr"),  # a ?? b
    "conditional": ("expr", "expr", "expr"),  # test ? a : b
    "sequence": ("exprs",),  # evaluates all, at least one; the result is the last
    "template": ("parts",),  # concatenation; every expression becomes a string as soon as it is evaluated
    # properties; text is that of the object
    "get_member": ("expr", "name", "text", "position"),  # o.name
    "get_index": ("expr", "expr", "text", "position"),  # o[key]
    "set_member": ("expr", "name", "expr", "text", "position"),  # o.name = value; the result is the value
    "set_index": ("expr", "expr", "expr", "text", "position"),  # o[key] = value; the result is the value
    "delete_member": ("expr", "name", "text", "position"),  # delete o.name
    "delete_index": ("expr", "expr", "text", "position"),  # delete o[key]
    # calls; text is that of the callee, for a method the whole chain "o.name"
    "call": ("expr", "text", "arguments", "position"),  # f(...)
    "call_method": ("expr", "name", "text", "arguments", "position"),  # o.name(...)
    "call_index": ("expr", "expr", "text", "arguments", "position"),  # o[key](...)
    "new": ("expr", "text", "arguments", "position"),  # new f(...)
    # literals
    "array": ("arguments", "position"),  # [a, ...b]
    "object": ("entries", "position"),  # {a: 1, [k]: 2, ...o}; in order, a computed key becomes a key before its value
    "closure": ("function",),  # new closure of a function, with cells as its "captures" say
    # iteration and destructuring
    "iterator": ("expr", "text", "position"),  # serialisable iterator over the value; TypeError when not iterable
    "iter_step": ("slot", "slot"),  # iterator, target: next value to target and true, or false (target then is void)
    "iter_next": ("slot",),  # next value of the iterator in the slot, undefined when it has ended
    "iter_rest": ("slot",),  # array of all its remaining values
    "for_in_keys": ("expr",),  # array of the keys for-in visits; empty for null and undefined
    "for_in_has": ("slot", "slot"),  # object, key: true while the key has not been deleted from the object
    "object_rest": ("expr", "exprs"),  # new object without the listed keys; the keys are strings
}

STATEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "expr": ("expr", "position"),  # evaluates and drops
    "set": ("var", "expr", "position"),  # stores a value
    "bind": ("cell", "expr", "position"),  # evaluates, then puts a new cell with the value into the cell slot
    "fresh": ("cells",),  # new cells holding the TDZ mark
    "copy": ("cells",),  # new cells with the values of the present ones (next iteration of a for loop)
    "tdz": ("slots",),  # plain slots get the TDZ mark
    "if": ("arms", "body", "position"),  # the first arm whose test is truthy, else the last body (may be empty)
    "loop": ("label", "expr?", "body", "body", "position"),  # label, test, body, update: while (test) { body; update };
    # no test: forever. `continue` goes to the update, then the test. The update may break to this label or leave
    # the loop in any other way, but not continue it
    "for_of": (
        "label",
        "slot",
        "expr",
        "text",
        "body",
        "position",
    ),  # target, iterable; arrays are live. No await inside
    "block": ("label", "body"),  # `break` to its label leaves it
    "break": ("label",),  # to an enclosing block, loop or for_of
    "continue": ("label",),  # of an enclosing loop or for_of
    "return": ("expr", "position"),  # in an async function: resolves its promise
    "throw": ("expr", "position"),  # throws the value
    "try": ("body", "slot", "body"),  # body, slot of the thrown value, handler. Only flow exceptions are caught
    "await": ("await", "slot?", "expr", "position"),  # suspends until the value settles; the result goes to the slot
    "unpack": ("slots?", "slot?", "expr", "text", "position"),  # targets, rest, iterable: first values, undefined when
    # there are fewer, to the targets; all further ones as an array to rest, if there is one. Steps no further than
    # needed
    "check_object": (
        "expr",
        "text",
        "text",
        "position",
    ),  # value, its text, first key: TypeError when the value is null or
    # undefined, "Cannot destructure property 'key' of 'text' as it is undefined."
}

FORMAT: Final = hashlib.sha256(
    json.dumps(
        [sorted(EXPRESSIONS.items()), sorted(STATEMENTS.items()), sorted(BINARY_OPERATORS), sorted(UNARY_OPERATORS)]
    ).encode()
).hexdigest()[:16]  #: Fingerprint of the tables above.


class IRError(Exception):
    """This is not a valid flow IR."""


def pack_position(line: int, column: int) -> int:
    """One integer for a line and column, both from 1."""
    return line * POSITION_LINE + column


def unpack_position(position: int) -> tuple[int, int]:
    """(line, column) of a packed position."""
    return divmod(position, POSITION_LINE)


def capture_name(program: Program, function_id: int, index: int) -> str:
    """Source name of a captured variable."""
    function = program["functions"][function_id]
    while True:
        capture = function["captures"][index]
        if capture[0] == "self":
            return str(function["name"])
        function = program["functions"][_creator(program, function["id"])]
        if capture[0] == "slot":
            return str(function["slots"][capture[1]])
        index = capture[1]


def _creator(program: Program, function_id: int) -> int:
    needle = ["closure", function_id]
    for function in program["functions"][:function_id]:
        pending: list[Json] = [function["body"]]
        while pending:
            item = pending.pop()
            if item == needle:
                return int(function["id"])
            if type(item) is list:
                pending.extend(part for part in item if type(part) is list)
    raise IRError(f"function {function_id} is never created")


def to_bytes(program: Program) -> bytes:
    """Canonical bytes of a program: ASCII JSON, sorted keys, no white space."""
    with recursion_room(JSON_DEPTH_MAX):
        text = json.dumps(program, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def from_bytes(data: bytes) -> Program:
    """The validated program in these bytes. Raises IRError for anything else."""
    if len(data) > BYTES_MAX:
        raise IRError("the IR is too large")
    with recursion_room(JSON_DEPTH_MAX):
        try:
            program = json.loads(data)
            # The JSON decoder joins escaped surrogate pairs; the IR keeps code units.
            if _ASTRAL.search(data):
                program = _split_surrogates(program)
        except (ValueError, RecursionError) as error:
            raise IRError(f"not JSON: {type(error).__name__}") from None
    validate(program)
    return program  # type: ignore[no-any-return]  # json.loads returns Any; validate has checked the shape


def content_hash(program: Program) -> str:
    """Hex SHA-256 of the canonical bytes: the identity of a definition's code."""
    return hashlib.sha256(to_bytes(program)).hexdigest()


_ASTRAL = re.compile(rb"\\u[dD][89abAB]|[\xf0-\xf7]")


def _split_surrogates(data: Json) -> Json:
    if isinstance(data, str):
        if any(unit > "\uffff" for unit in data):
            return _units(data)
        return data
    if isinstance(data, list):
        return [_split_surrogates(item) for item in data]
    if isinstance(data, dict):
        return {_split_surrogates(key): _split_surrogates(value) for key, value in data.items()}
    return data


def _units(text: str) -> str:
    out: list[str] = []
    for character in text:
        code = ord(character)
        if code > 0xFFFF:
            code -= 0x10000
            out.append(chr(0xD800 + (code >> 10)) + chr(0xDC00 + (code & 0x3FF)))
        else:
            out.append(character)
    return "".join(out)


def validate(data: Json) -> None:
    """Checks untrusted data against the grammar. Raises IRError naming the first violation."""
    _require(type(data) is dict, "a program is an object")
    _keys(data, "program", {"v", "name", "functions", "module", "globals"})
    _require(type(data["v"]) is int and data["v"] == VERSION, "unknown IR version")
    _text(data["name"], "program name")
    _require(type(data["module"]) is int and data["module"] == 0, "the module is function 0")
    names = data["globals"]
    _require(type(names) is list and len(names) <= FUNCTIONS_MAX, "globals is a list")
    for name in names:
        _text(name, "global")
    _require(names == sorted(set(names)), "globals are sorted and unique")
    functions = data["functions"]
    _require(type(functions) is list and 0 < len(functions) <= FUNCTIONS_MAX, "functions is a list with the module")
    for index, function in enumerate(functions):
        _check_record(function, index)
    _require(
        functions[0]["kind"] == "sync"
        and not functions[0]["params"]
        and functions[0]["rest"] is None
        and not functions[0]["captures"],
        "the module is sync, without parameters and captures",
    )
    creators: dict[int, int] = {}
    budget = [NODES_MAX]
    for function in functions:
        _Checker(functions, function, frozenset(names), creators, budget).check()
    for index in range(1, len(functions)):
        _require(index in creators, f"function {index} is never created")


def _refuse(message: str) -> NoReturn:
    raise IRError(message)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise IRError(message)


def _keys(data: dict[Any, Any], what: str, required: set[str], optional: frozenset[str] = frozenset()) -> None:
    present = set(data)
    _require(required <= present and present <= required | optional, f"wrong keys in {what}")


def _text(value: Json, what: str) -> None:
    _require(type(value) is str and len(value) <= TEXT_UNITS_MAX, f"{what} is not a string")
    _require(value.isascii() or max(value) <= "\uffff", f"{what} is not in UTF-16 units")


def _index(value: Json, bound: int, what: str) -> int:
    if type(value) is not int or not 0 <= value < bound:
        raise IRError(f"{what} is not an index below {bound}")
    return value


def _slot_list(value: Json, bound: int, what: str, *, ascending: bool) -> None:
    _require(type(value) is list, f"{what} is not a list")
    for slot in value:
        _index(slot, bound, what)
    if ascending:
        _require(value == sorted(set(value)), f"{what} is not ascending")
    else:
        _require(len(set(value)) == len(value), f"{what} has duplicates")


def _position_pair(value: Json) -> None:
    _require(type(value) is list and len(value) == 2, "a position is [line, column]")
    for part in value:
        _index(part, 1 << 31, "position")


_FUNCTION_KEYS = {
    "id",
    "name",
    "kind",
    "params",
    "rest",
    "slots",
    "cells",
    "captures",
    "labels",
    "awaits",
    "body",
    "pos",
}


def _check_record(function: Json, index: int) -> None:
    """Everything of a function but its body and where its captures lead."""
    _require(type(function) is dict, "a function is an object")
    _keys(function, "function", _FUNCTION_KEYS, frozenset({"types"}))
    _require(type(function["id"]) is int and function["id"] == index, "a function's id is its index")
    _text(function["name"], "function name")
    _require(function["kind"] in ("sync", "async"), "a function is sync or async")
    slots = function["slots"]
    _require(type(slots) is list and len(slots) <= SLOTS_MAX, "slots is a list")
    for name in slots:
        _text(name, "slot name")
    count = len(slots)
    _slot_list(function["cells"], count, "cells", ascending=True)
    _slot_list(function["params"], count, "params", ascending=False)
    plain = [*function["params"]]
    if function["rest"] is not None:
        plain.append(_index(function["rest"], count, "rest"))
    _require(len(set(plain)) == len(plain), "parameters share a slot")
    captures = function["captures"]
    _require(type(captures) is list and len(captures) <= SLOTS_MAX, "captures is a list")
    for capture in captures:
        _require(type(capture) is list and len(capture) > 0, "a capture is a list")
        if capture[0] == "self":
            _require(len(capture) == 1, "wrong capture")
        else:
            _require(capture[0] in ("slot", "capture") and len(capture) == 2, "wrong capture")
            _index(capture[1], SLOTS_MAX, "capture")
    _index(function["labels"], SLOTS_MAX, "labels")
    awaits = function["awaits"]
    _require(type(awaits) is list and len(awaits) <= SLOTS_MAX, "awaits is a list")
    _require(not awaits or function["kind"] == "async", "a sync function awaits")
    for entry in awaits:
        _require(type(entry) is dict, "an await is an object")
        _keys(entry, "await", {"live", "pos", "text"})
        _slot_list(entry["live"], count, "live", ascending=True)
        _position_pair(entry["pos"])
        _text(entry["text"], "await text")
    _position_pair(function["pos"])
    types = function.get("types")
    if types is not None:
        _require(type(types) is dict, "types is an object")
        _keys(types, "types", {"numbers", "integers"})
        _slot_list(types["numbers"], count, "numbers", ascending=True)
        _slot_list(types["integers"], count, "integers", ascending=True)
        plain += types["numbers"]
        _require(set(types["integers"]) <= set(types["numbers"]), "integers are numbers")
    _require(not set(plain) & set(function["cells"]), "a parameter or typed slot is a cell")


_Labels = frozenset[int]


class _Checker:
    """Checks the body of one function with a work list of its own, so that depth costs no Python stack."""

    def __init__(
        self,
        functions: list[Function],
        function: Function,
        names: frozenset[str],
        creators: dict[int, int],
        budget: list[int],
    ) -> None:
        self.functions = functions
        self.function = function
        self.names = names
        self.creators = creators
        self.budget = budget
        self.slot_count = len(function["slots"])
        self.cells = frozenset(function["cells"])
        self.labels: set[int] = set()
        self.awaits: set[int] = set()
        self.expressions: list[tuple[Json, int]] = []
        #: Bodies to check: statements, depth, labels to break to, labels to continue, inside a for_of.
        self.bodies: list[tuple[Json, int, _Labels, _Labels, bool]] = []
        self.context: tuple[int, _Labels, _Labels, bool] = (0, frozenset(), frozenset(), False)
        self.fields: dict[str, Callable[[Json], None]] = {
            "body": self.body,
            "var": self.variable,
            "slot": self.plain_slot,
            "cell": self.cell_slot,
            "capture": self.capture,
            "global": self.global_name,
            "function": self.closure,
            "arms": self.arms,
            "await": self.await_id,
            "label": self.jump,
            "cells": self.cell_slots,
            "slots": self.plain_slots,
            "slots?": self.optional_slots,
            "slot?": self.optional_slot,
            "name": lambda value: _text(value, "name"),
            "text": lambda value: None if value is None else _text(value, "text"),
            "position": self.iterator_position,
            "number": self.number,
            "binary": lambda value: _require(type(value) is str and value in BINARY_OPERATORS, "unknown operator"),
            "unary": lambda value: _require(type(value) is str and value in UNARY_OPERATORS, "unknown operator"),
        }

    def check(self) -> None:
        self.bodies.append((self.function["body"], 1, frozenset(), frozenset(), False))
        while self.bodies:
            body, depth, breaks, continues, in_for_of = self.bodies.pop()
            _require(type(body) is list, "a body is a list")
            _require(depth <= STATEMENT_DEPTH_MAX, "statements are nested too deeply")
            for statement in body:
                self.context = (depth, breaks, continues, in_for_of)
                self.statement(statement)
                while self.expressions:
                    self.expression(*self.expressions.pop())
        _require(len(self.awaits) == len(self.function["awaits"]), "an await of the table is missing")

    def spend(self) -> None:
        self.budget[0] -= 1
        _require(self.budget[0] >= 0, "the program is too large")

    def node(self, node: Json, table: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        self.spend()
        _require(type(node) is list and len(node) > 0 and type(node[0]) is str, "a node is a list with a kind")
        fields = table.get(node[0])
        if fields is None:
            _refuse(f"unknown kind {node[0][:40]!r}")
        _require(len(node) == len(fields) + 1, f"{node[0]} has the wrong number of fields")
        return fields

    def statement(self, statement: Json) -> None:
        fields = self.node(statement, STATEMENTS)
        kind = statement[0]
        depth, breaks, continues, in_for_of = self.context
        if kind in ("loop", "for_of", "block"):
            label = _index(statement[1], self.function["labels"], "label")
            _require(label not in self.labels, "a label is defined twice")
            self.labels.add(label)
            inner = breaks | {label}
            if kind == "block":
                self.bodies.append((statement[2], depth + 1, inner, continues, in_for_of))
            elif kind == "loop":
                if statement[2] is not None:
                    self.expressions.append((statement[2], 1))
                self.bodies.append((statement[3], depth + 1, inner, continues | {label}, in_for_of))
                self.bodies.append((statement[4], depth + 1, inner, continues, in_for_of))
                self.fields["position"](statement[5])
            else:
                self.plain_slot(statement[2])
                self.expressions.append((statement[3], 1))
                self.fields["text"](statement[4])
                self.bodies.append((statement[5], depth + 1, inner, continues | {label}, True))
                self.fields["position"](statement[6])
            return
        if kind == "continue":
            _require(type(statement[1]) is int and statement[1] in continues, "continue without its loop")
            return
        for field, value in zip(fields, statement[1:], strict=True):
            self.field(field, value, 1)

    def expression(self, expression: Json, depth: int) -> None:
        _require(depth <= EXPRESSION_DEPTH_MAX, "expressions are nested too deeply")
        fields = self.node(expression, EXPRESSIONS)
        if expression[0] == "sequence":
            _require(bool(expression[1]), "an empty sequence")
        if expression[0] == "global":
            self.global_name(expression[1])
            return
        for field, value in zip(fields, expression[1:], strict=True):
            self.field(field, value, depth + 1)

    def field(self, field: str, value: Json, depth: int) -> None:
        if field == "expr" or (field == "expr?" and value is not None):
            self.expressions.append((value, depth))
        elif field in ("exprs", "arguments", "parts", "entries"):
            self.items(field, value, depth)
        elif field != "expr?":
            self.fields[field](value)

    def items(self, field: str, value: Json, depth: int) -> None:
        _require(type(value) is list, f"{field} is not a list")
        for item in value:
            if field == "parts" and type(item) is str:
                _text(item, "part")
                continue
            _require(type(item) is list and len(item) > 0, "a node is a list with a kind")
            if field == "entries":
                self.entry(item, depth)
            elif field == "arguments" and item[0] == "spread":
                self.spend()
                _require(len(item) == 3, "wrong spread")
                self.fields["text"](item[2])
                self.expressions.append((item[1], depth))
            else:
                self.expressions.append((item, depth))

    def entry(self, item: Json, depth: int) -> None:
        self.spend()
        kind = item[0]
        if kind == "property" and len(item) == 3:
            _text(item[1], "property name")
            self.expressions.append((item[2], depth))
        elif kind == "computed" and len(item) == 3:
            self.expressions.append((item[1], depth))
            self.expressions.append((item[2], depth))
        elif kind == "spread" and len(item) == 2:
            self.expressions.append((item[1], depth))
        else:
            _refuse("wrong object entry")

    def body(self, value: Json) -> None:
        depth, breaks, continues, in_for_of = self.context
        self.bodies.append((value, depth + 1, breaks, continues, in_for_of))

    def arms(self, value: Json) -> None:
        _require(type(value) is list and len(value) > 0, "an if has an arm")
        for arm in value:
            _require(type(arm) is list and len(arm) == 2, "an arm is a test and a body")
            self.expressions.append((arm[0], 1))
            self.body(arm[1])

    def await_id(self, value: Json) -> None:
        index = _index(value, len(self.function["awaits"]), "await id")
        _require(index not in self.awaits, "an await id is used twice")
        _require(not self.context[3], "an await inside for_of")
        self.awaits.add(index)

    def jump(self, value: Json) -> None:
        _require(type(value) is int and value in self.context[1], "break without its label")

    def variable(self, value: Json) -> None:
        _require(type(value) is list and len(value) == 2 and type(value[0]) is str, "wrong variable")
        if value[0] == "slot":
            self.plain_slot(value[1])
        elif value[0] == "cell":
            self.cell_slot(value[1])
        elif value[0] == "capture":
            self.capture(value[1])
        else:
            _refuse("wrong variable")

    def plain_slot(self, value: Json) -> None:
        _require(_index(value, self.slot_count, "slot") not in self.cells, "a cell slot used as a plain slot")

    def cell_slot(self, value: Json) -> None:
        _require(_index(value, self.slot_count, "slot") in self.cells, "a plain slot used as a cell slot")

    def capture(self, value: Json) -> None:
        _index(value, len(self.function["captures"]), "capture")

    def iterator_position(self, value: Json) -> None:
        _index(value, 1 << 62, "position")

    def plain_slots(self, value: Json) -> None:
        _slot_list(value, self.slot_count, "slots", ascending=False)
        for slot in value:
            self.plain_slot(slot)

    def optional_slots(self, value: Json) -> None:
        _require(type(value) is list, "slots is not a list")
        for slot in value:
            self.optional_slot(slot)

    def optional_slot(self, value: Json) -> None:
        if value is not None:
            self.plain_slot(value)

    def cell_slots(self, value: Json) -> None:
        _slot_list(value, self.slot_count, "cells", ascending=False)
        for slot in value:
            self.cell_slot(slot)

    def number(self, value: Json) -> None:
        _require(type(value) is float and math.isfinite(value), "a number is a finite float")

    def global_name(self, value: Json) -> None:
        _require(type(value) is str and value in self.names, "a global is not listed")

    def closure(self, value: Json) -> None:
        """A function is created by one function only, an earlier one, and takes its cells from there."""
        index = _index(value, len(self.functions), "function")
        creator = self.function["id"]
        _require(creator < index, "a function is created by a later one")
        known = self.creators.setdefault(index, creator)
        _require(known == creator, "a function is created by two functions")
        for capture in self.functions[index]["captures"]:
            if capture[0] == "slot":
                self.cell_slot(capture[1])
            elif capture[0] == "capture":
                self.capture(capture[1])
