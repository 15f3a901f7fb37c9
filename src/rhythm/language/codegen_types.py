"""What the code generator knows about a program before it writes a line: kinds of values, known functions.

One flow-insensitive pass over the IR collects every assignment to every variable (a captured variable is one variable,
whichever function touches it), and a work list then grows, from nothing, the set of kinds each variable, function
result and expression can have. Sets are bit masks. Whatever is not understood is ANY, so an answer is never wrong,
only dull. What arrays and objects can hold is followed by codegen_contents. Questions that are answered:

    kinds(f, expression)     the kinds of value it can give
    known_function(f, e)     the one flow function an expression can be, its variable being set to closures of it only
    escapes                  functions whose value is used for anything but direct calls and callbacks that are
                             followed; the others have parameters whose kinds are those of the arguments
    has_always(f, e, name)   whether an expression gives objects only, which all have the property

Nothing here looks at values from outside: parameters of functions that escape, results of awaits and of host calls are
ANY. A snapshot can only hold what the same program has put in it, so what is proved here holds after a resume as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rhythm.language.codegen_contents import Contents
from rhythm.language.codegen_tree import (
    ANY,
    ARRAY,
    BOOLEAN,
    FUNCTION,
    MATH_CONSTANTS,
    MATH_FUNCTIONS,
    NULL,
    NUMBER,
    NUMBER_METHODS,
    OBJECT,
    OTHER,
    STRING,
    STRING_METHODS,
    UNDEFINED,
    Function,
    Key,
    Node,
    statement_expressions,
    statements_of,
    sub_expressions,
)
from rhythm.language.values_types import OBJECT_PROTOTYPE_NAMES

_NOTHING: Final = NULL | UNDEFINED  #: Reading a property of these throws.

_CONSTANTS: Final[dict[str, int]] = {
    "number": NUMBER,
    "nan": NUMBER,
    "infinity": NUMBER,
    "string": STRING,
    "template": STRING,
    "true": BOOLEAN,
    "false": BOOLEAN,
    "in": BOOLEAN,
    "instanceof": BOOLEAN,
    "delete_member": BOOLEAN,
    "delete_index": BOOLEAN,
    "iter_step": BOOLEAN,
    "for_in_has": BOOLEAN,
    "null": NULL,
    "undefined": UNDEFINED,
    "new": OTHER,
    "iterator": OTHER,
    "array": ARRAY,
    "iter_rest": ARRAY,
    "for_in_keys": ARRAY,
    "object": OBJECT,
    "object_rest": OBJECT,
    "closure": FUNCTION,
}
_UNARY: Final[dict[str, int]] = {
    "-": NUMBER,
    "+": NUMBER,
    "~": NUMBER,
    "inc": NUMBER,
    "dec": NUMBER,
    "!": BOOLEAN,
    "nullish": BOOLEAN,
    "typeof": STRING,
    "string": STRING,
    "key": STRING,
}
_COMPARISONS: Final = frozenset(["<", ">", "<=", ">=", "==", "!=", "===", "!=="])

_GLOBAL_CALLS: Final[dict[str, int]] = {
    "Number": NUMBER,
    "parseInt": NUMBER,
    "parseFloat": NUMBER,
    "String": STRING,
    "Boolean": BOOLEAN,
    "isNaN": BOOLEAN,
    "isFinite": BOOLEAN,
}
_STATIC_CALLS: Final[dict[tuple[str, str], int]] = {
    ("Date", "now"): NUMBER,
    ("Object", "keys"): ARRAY,
    ("Object", "values"): ARRAY,
    ("Object", "entries"): ARRAY,
    ("Array", "isArray"): BOOLEAN,
    ("Array", "of"): ARRAY,
    ("String", "fromCharCode"): STRING,
    ("Number", "isInteger"): BOOLEAN,
    ("Number", "parseFloat"): NUMBER,
    ("Number", "parseInt"): NUMBER,
}
_ARRAY_METHODS: Final[dict[str, int]] = {
    **dict.fromkeys(["push", "unshift", "indexOf", "lastIndexOf", "findIndex", "findLastIndex"], NUMBER),
    **dict.fromkeys(
        ["map", "filter", "slice", "concat", "flat", "flatMap", "reverse", "sort", "splice", "fill"], ARRAY
    ),
    **dict.fromkeys(["some", "every", "includes"], BOOLEAN),
    "join": STRING,
}


class Analysis:
    """The answers for one program. See the head of this file."""

    def __init__(self, program: dict[str, Any]) -> None:
        self.functions: list[Function] = program["functions"]
        count = len(self.functions)
        self.kind_of: dict[Key, int] = {}
        self.returns: list[int] = [0] * count
        self.known: dict[Key, int] = {}
        self.returned: set[Key] = set()  #: Known variables that hold what a call has returned: any closure of it.
        self.escapes: set[int] = {0}
        #: Least and greatest number of arguments at the direct calls of each function; spread calls count as escapes.
        self.argument_counts: dict[int, tuple[int, int]] = {}
        self.index_slots: list[set[int]] = [set() for _ in range(count)]
        self._creators: list[int] = [0] * count
        self._self_captures: set[Key] = set()
        self._sources: dict[tuple[int, int], Key] = {}
        self._assignments: list[tuple[Key | int, int, Node | int]] = []
        self._results: dict[int, list[Node | int]] = {}
        self._by_function: dict[int, list[tuple[Key, Node | int]]] = {}
        self._calls: list[tuple[int, int, Node]] = []
        self._find_creators()
        self._collect()
        self._find_known()
        last = self.functions[0]["body"][-1:]
        #: The workflow's function: its result leaves the program.
        self.workflow = last[0][1][1] if last and last[0][0] == "return" and last[0][1][0] == "closure" else -1
        self.contents = Contents(self)
        for function in self.functions:
            for statement in statements_of(function):
                self.contents.statement(function["id"], statement)
        self.contents.settle()
        self._solve()

    # -- variables --

    def key(self, function_id: int, var: Node) -> Key:
        """The variable a `slot`, `cell` or `capture` node names."""
        if var[0] != "capture":
            return (function_id, var[1])
        return self._capture_key(function_id, var[1])

    def _capture_key(self, function_id: int, index: int) -> Key:
        found = self._sources.get((function_id, index))
        if found is not None:
            return found
        here, position = function_id, index
        while True:
            capture = self.functions[here]["captures"][position]
            if capture[0] == "self":
                key = (here, -1 - position)
                break
            creator = self._creators[here]
            if capture[0] == "slot":
                key = (creator, capture[1])
                break
            here, position = creator, capture[1]
        self._sources[(function_id, index)] = key
        return key

    def _find_creators(self) -> None:
        for function in self.functions:
            for index, capture in enumerate(function["captures"]):
                if capture[0] == "self":
                    self._self_captures.add((function["id"], -1 - index))
            for statement in statements_of(function):
                pending = list(statement_expressions(statement))
                while pending:
                    node = pending.pop()
                    if node[0] == "closure":
                        self._creators[node[1]] = function["id"]
                    else:
                        pending.extend(sub_expressions(node))

    def assignments_of(self, function_id: int) -> list[tuple[Key, Node | int]]:
        """(variable, expression or mask) of every assignment to a variable of the function."""
        return self._by_function.get(function_id, [])

    # -- collecting --

    def _collect(self) -> None:
        for function in self.functions:
            function_id = function["id"]
            if function["rest"] is not None:
                self._assign((function_id, function["rest"]), function_id, ARRAY)
            for statement in statements_of(function):
                self._collect_statement(function_id, statement)
                pending = list(statement_expressions(statement))
                while pending:
                    node = pending.pop()
                    kind = node[0]
                    if kind == "assign":
                        self._assign(self.key(function_id, node[1]), function_id, node[2])
                    elif kind == "iter_step":
                        self._assign((function_id, node[2]), function_id, ANY)
                    elif kind in ("get_index", "set_index"):
                        self._note_index(function_id, node[2])
                    pending.extend(sub_expressions(node))

    def _note_index(self, function_id: int, node: Node) -> None:
        if node[0] == "binary" and node[1] in "+-" and node[3][0] == "number":
            node = node[2]
        if node[0] == "slot":
            self.index_slots[function_id].add(node[1])

    def _assign(self, key: Key | int, function_id: int, value: Node | int) -> None:
        self._assignments.append((key, function_id, value))
        if isinstance(key, int):
            self._results.setdefault(key, []).append(value)
        else:
            self._by_function.setdefault(key[0], []).append((key, value))

    def _collect_statement(self, function_id: int, statement: Node) -> None:
        kind = statement[0]
        if kind == "set":
            self._assign(self.key(function_id, statement[1]), function_id, statement[2])
        elif kind == "bind":
            self._assign((function_id, statement[1]), function_id, statement[2])
        elif kind == "return":
            self._assign(function_id, function_id, statement[1])
        elif kind == "for_of":
            self._assign((function_id, statement[2]), function_id, ["element_of", statement[3]])
        elif kind == "try" or (kind == "await" and statement[2] is not None):
            self._assign((function_id, statement[2]), function_id, ANY)
        elif kind == "unpack":
            for slot in statement[1]:
                if slot is not None:
                    self._assign((function_id, slot), function_id, ["element_or_missing", statement[3]])
            if statement[2] is not None:
                self._assign((function_id, statement[2]), function_id, ARRAY)

    # -- known functions --

    def _find_known(self) -> None:
        self.known = self._known_by(self._closure_of)
        for key in self._self_captures:
            self.known[key] = key[0]
        returned = {function["id"]: self._closure_returned(function) for function in self.functions}
        if any(target is not None for target in returned.values()):

            def closure_of(function_id: int, value: Node | int) -> int | None:
                if isinstance(value, list) and value[0] == "call":
                    callee = self.known_function(function_id, value[1])
                    return None if callee is None else returned[callee]
                return self._closure_of(function_id, value)

            more = self._known_by(closure_of)
            self.returned = set(more) - set(self.known)
            self.known = more | self.known

    def _known_by(self, closure_of: Callable[[int, Node | int], int | None]) -> dict[Key, int]:
        """Variables with one assignment, which gives a closure of one function."""
        closures: dict[Key, int] = {}
        spoiled: set[Key] = set()
        for function in self.functions:
            spoiled.update((function["id"], slot) for slot in function["params"])
        for key, function_id, value in self._assignments:
            if isinstance(key, int):
                continue
            target = None if key in closures else closure_of(function_id, value)
            if target is None:
                spoiled.add(key)
            else:
                closures[key] = target
        return {key: target for key, target in closures.items() if key not in spoiled}

    def _closure_of(self, function_id: int, value: Node | int) -> int | None:
        return value[1] if isinstance(value, list) and value[0] == "closure" else None

    def _closure_returned(self, function: Function) -> int | None:
        """The function a sync function always returns a closure of."""
        results = self._results.get(function["id"], [])
        targets = {self._closure_of(function["id"], value) for value in results}
        if len(targets) != 1 or function["kind"] != "sync" or _may_run_off(function["body"]):
            return None
        return targets.pop()

    def known_function(self, function_id: int, node: Node) -> int | None:
        """The id of the only function a variable can hold once it is initialised, or None."""
        kind = node[0]
        if kind == "checked":
            node = node[1]
        elif kind not in ("slot", "cell", "capture"):
            return None
        return self.known.get(self.key(function_id, node))

    def note_call(self, target: int, function_id: int, arguments: list[Node]) -> None:
        """A direct call of a known function, found while following values."""
        if any(argument[0] == "spread" for argument in arguments):
            self.escapes.add(target)
        self._calls.append((target, function_id, arguments))
        low, high = self.argument_counts.get(target, (len(arguments), 0))
        self.argument_counts[target] = (min(low, len(arguments)), max(high, len(arguments)))

    # -- kinds --

    def _solve(self) -> None:
        kind_of = self.kind_of
        for function in self.functions:
            function_id = function["id"]
            if function_id in self.escapes:
                kind_of.update(((function_id, slot), ANY) for slot in function["params"])
        for key in self._self_captures:
            kind_of[key] = FUNCTION
        equations = list(self._assignments)
        for target, caller, arguments in self._calls:
            if target in self.escapes:
                continue
            for index, slot in enumerate(self.functions[target]["params"]):
                value = arguments[index] if index < len(arguments) else UNDEFINED
                equations.append(((target, slot), caller, value))
        equations += [(f["id"], f["id"], UNDEFINED) for f in self.functions if _may_run_off(f["body"])]
        equations += self.contents.equations()
        self._run(equations)
        for function in self.functions:
            for slot in function.get("types", {}).get("numbers", ()):
                kind_of[(function["id"], slot)] = NUMBER

    def _run(self, equations: list[tuple[Key | int, int, Node | int]]) -> None:
        readers: dict[Key | int, set[int]] = {}
        pending = list(range(len(equations) - 1, -1, -1))
        queued = set(pending)
        while pending:
            index = pending.pop()
            queued.discard(index)
            target, function_id, value = equations[index]
            reads: list[Key | int] = []  # Not the same each time: what is read may depend on what is known.
            kinds = value if isinstance(value, int) else self._kinds(function_id, value, reads)
            for read in reads:
                readers.setdefault(read, set()).add(index)
            old = self.returns[target] if isinstance(target, int) else self.kind_of.get(target, 0)
            if kinds | old == old:
                continue
            if isinstance(target, int):
                self.returns[target] = kinds | old
            else:
                self.kind_of[target] = kinds | old
            for reader in readers.get(target, ()):
                if reader not in queued:
                    queued.add(reader)
                    pending.append(reader)

    def kinds(self, function_id: int, node: Node) -> int:
        """Mask of the kinds of value the expression can give. Never empty."""
        return self._kinds(function_id, node, None) or ANY

    def _kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        kind = node[0]
        constant = _CONSTANTS.get(kind)
        if constant is not None:
            return constant
        if kind == "ready":
            return int(node[1].kinds) & ANY or NUMBER
        if kind in ("slot", "cell", "capture"):
            key = self.key(function_id, node)
            if reads is not None:
                reads.append(key)
            return self._variable_kinds(key)
        if kind == "binary":
            return self._binary_kinds(function_id, node, reads)
        if kind == "unary":
            return _UNARY[node[1]]
        if kind == "checked":
            return self._kinds(function_id, node[1], reads)
        if kind == "assign":
            return self._kinds(function_id, node[2], reads)
        if kind in ("set_member", "set_index"):
            return self._kinds(function_id, node[3], reads)
        if kind in ("and", "or", "coalesce"):
            left = self._kinds(function_id, node[1], reads)
            if kind == "coalesce" or kind == "or":
                left &= ~(NULL | UNDEFINED)
            else:
                left &= ~(ARRAY | OBJECT | FUNCTION)
            return left | self._kinds(function_id, node[2], reads)
        if kind == "conditional":
            return self._kinds(function_id, node[2], reads) | self._kinds(function_id, node[3], reads)
        if kind == "sequence":
            return self._kinds(function_id, node[1][-1], reads)
        if kind == "get_member":
            return self._member_kinds(function_id, node, reads)
        if kind == "get_index":
            return self._index_kinds(function_id, node, reads)
        if kind in ("element_of", "element_or_missing"):
            found = self._element_kinds(function_id, node[1], reads, characters=True)
            return found | UNDEFINED if kind == "element_or_missing" else found
        if kind == "result_of":
            if reads is not None:
                reads.append(node[1])
            return self.returns[node[1]]
        if kind == "call":
            return self._call_kinds(function_id, node, reads)
        if kind == "call_method":
            return self._method_kinds(function_id, node, reads)
        return ANY

    def _binary_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        operator = node[1]
        if operator in _COMPARISONS:
            return BOOLEAN
        if operator != "+":
            return NUMBER
        left = self._kinds(function_id, node[2], reads)
        right = self._kinds(function_id, node[3], reads)
        if not left or not right:
            return 0  # Not known yet; the operands are visited again when they grow.
        if left == STRING or right == STRING:
            return STRING
        numeric = NUMBER | BOOLEAN | NULL | UNDEFINED
        return NUMBER if not (left | right) & ~numeric else NUMBER | STRING

    def _member_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        if node[1][0] == "global":
            return NUMBER if node[1][1] == "Math" and node[2] in MATH_CONSTANTS else ANY
        kinds = self._kinds(function_id, node[1], reads)
        if node[2] == "length" and not kinds & ~(ARRAY | STRING):
            return NUMBER if kinds else 0
        if kinds & ~(OBJECT | _NOTHING):
            return ANY
        holder = self.contents.property_of(function_id, node[1], node[2])
        if holder is None:
            return ANY
        found = self._held(holder, reads)
        if self.contents.has_always(function_id, node[1], node[2]):
            return found
        return ANY if node[2] in OBJECT_PROTOTYPE_NAMES else found | UNDEFINED

    def has_always(self, function_id: int, node: Node, name: str) -> bool:
        """Whether an expression gives objects only, all of which have the property at any time."""
        return self.kinds(function_id, node) == OBJECT and self.contents.has_always(function_id, node, name)

    def holds_numbers(self, function_id: int, node: Node) -> bool:
        """Whether an expression gives arrays only, whose elements are all numbers."""
        kinds = self.kinds(function_id, node)
        return kinds == ARRAY and self._element_kinds(function_id, node, None, characters=False) == NUMBER

    def _held(self, holder: int, reads: list[Key | int] | None) -> int:
        """Kinds of what a holder of contents holds."""
        key = (-1 - holder, 0)
        if reads is not None:
            reads.append(key)
        return self.kind_of.get(key, 0)

    def _element_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None, *, characters: bool) -> int:
        """Kinds of the elements of what an expression gives; `characters`: those of a string are elements too."""
        kinds = self._kinds(function_id, node, reads)
        if kinds & ~(ARRAY | STRING | _NOTHING) or (kinds & STRING and not characters):
            return ANY
        found = STRING if kinds & STRING else 0
        if kinds & ARRAY:
            holder = self.contents.element_of(function_id, node)
            if holder is None:
                return ANY
            found |= self._held(holder, reads)
        return found

    def _index_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        key = self._kinds(function_id, node[2], reads)
        if key & ~NUMBER:
            return ANY
        return self._element_kinds(function_id, node[1], reads, characters=True) | UNDEFINED

    def _call_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        callee = node[1]
        if callee[0] == "global":
            return _GLOBAL_CALLS.get(callee[1], ANY)
        target = self.known_function(function_id, callee)
        if target is None:
            return ANY
        if self.functions[target]["kind"] == "async":
            return OTHER
        if reads is not None:
            reads.append(target)
        return self._result_kinds(function_id, node, target)

    def _variable_kinds(self, key: Key) -> int:
        return self.kind_of.get(key, 0)

    def _result_kinds(self, function_id: int, call: Node, target: int) -> int:
        return self.returns[target]

    def _method_kinds(self, function_id: int, node: Node, reads: list[Key | int] | None) -> int:
        receiver, name = node[1], node[2]
        if receiver[0] == "global":
            is_math = receiver[1] == "Math" and name in MATH_FUNCTIONS
            return NUMBER if is_math else _STATIC_CALLS.get((receiver[1], name), ANY)
        kinds = self._kinds(function_id, receiver, reads)
        if not kinds:
            return 0
        if kinds == STRING:
            return STRING_METHODS.get(name, ANY)
        if kinds == ARRAY:
            if name in ("pop", "shift", "at", "find"):
                return self._element_kinds(function_id, receiver, reads, characters=False) | UNDEFINED
            if name == "reduce" and node[4] and node[4][0][0] == "closure" and node[4][0][1] in self.contents.callbacks:
                start = node[4][1] if len(node[4]) > 1 else ["element_of", receiver]
                result = ["result_of", node[4][0][1]]
                return self._kinds(function_id, start, reads) | self._kinds(function_id, result, reads)
            return _ARRAY_METHODS.get(name, ANY)
        if kinds == NUMBER and name in NUMBER_METHODS:
            return STRING
        return ANY


class NumericView(Analysis):
    """The analysis of one function for calls whose arguments for some parameters are numbers."""

    def __init__(self, base: Analysis, function_id: int, parameters: list[int]) -> None:
        self.__dict__.update(base.__dict__)
        self._function_id = function_id
        self._positions = [base.functions[function_id]["params"].index(slot) for slot in parameters]
        self._result = 0
        self._overlay: dict[Key, int] = {(function_id, slot): NUMBER for slot in parameters}
        cells = set(base.functions[function_id]["cells"])
        params = set(base.functions[function_id]["params"])
        assignments = [item for item in base.assignments_of(function_id) if item[0][1] not in cells]
        for key, _ in assignments:
            if key[1] not in params:
                self._overlay.setdefault(key, 0)
        assignments = [item for item in assignments if item[0] in self._overlay]
        results = base._results.get(function_id, [])
        self._result = UNDEFINED if _may_run_off(base.functions[function_id]["body"]) else 0
        changed = True
        while changed:
            changed = False
            for key, value in assignments:
                kinds = self._overlay[key] | self._value_kinds(value)
                if kinds != self._overlay[key]:
                    self._overlay[key] = kinds
                    changed = True
            for value in results:
                kinds = self._result | self._value_kinds(value)
                if kinds != self._result:
                    self._result = kinds
                    changed = True

    def _value_kinds(self, value: Node | int) -> int:
        return value if isinstance(value, int) else self._kinds(self._function_id, value, None)

    def _variable_kinds(self, key: Key) -> int:
        found = self._overlay.get(key)
        return self.kind_of.get(key, 0) if found is None else found

    def _result_kinds(self, function_id: int, call: Node, target: int) -> int:
        arguments = call[3]
        if target != self._function_id or function_id != target or any(item[0] == "spread" for item in arguments):
            return self.returns[target]
        for position in self._positions:
            kinds = self._kinds(function_id, arguments[position], None) if position < len(arguments) else UNDEFINED
            if kinds & ~NUMBER:
                return self.returns[target]
        return self._result


def _may_run_off(body: list[Node]) -> bool:
    """False when a body certainly ends in return or throw."""
    while body:
        last = body[-1]
        if last[0] in ("return", "throw"):
            return False
        if last[0] != "if" or not last[2]:
            return True
        if any(_may_run_off(arm[1]) for arm in last[1]):
            return True
        body = last[2]
    return True
