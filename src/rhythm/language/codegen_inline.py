"""Array methods with a short callback, written as a loop where they are called.

`a.map(x => x * 2)` calls one Python function per element, which costs more than the callback does. When the callback is
a function literal whose body is one expression, and the receiver is an array, the loop is written in place:

    t3 = h_len(t1)
    t2 = []
    for t4 in h_islice(t1, t3):
        t2.append(t4 * 2.0 if t4.__class__ is h_float else h_mul(t4, 2.0))
    if h_len(t2) < t3: h_holes('map')

A map or filter whose expression needs no statement and no temporary becomes a comprehension, which is a third faster
than a loop that appends; the names it uses become cells of Python, so it is not worth it with more of them.

What the program can observe stays the same: the length is read first, elements when their turn comes. A receiver
that only may be an array is tested, and the method is called as usual when it is something else. Only the stack of an
error tells the difference: the callback is not a line of its own.
"""

from __future__ import annotations

from typing import Final

from rhythm.language.codegen_reads import ReadWriter
from rhythm.language.codegen_text import Code, Constants, as_value, value_kinds
from rhythm.language.codegen_tree import ANY, ARRAY, BOOLEAN, NUMBER, UNDEFINED, Function, Node, sub_expressions
from rhythm.language.codegen_types import Analysis

CALLBACK_NODES_MAX: Final = 60  #: Expression nodes of a callback that is written in place.
#: Expressions that may make the array shorter; coercions of objects may, too, but never do.
_EFFECTS: Final = frozenset(["call", "call_method", "call_index", "new", "set_member", "set_index"])

#: Method -> most parameters of the callback, arguments of the call, kinds of the result.
_METHODS: Final[dict[str, tuple[int, int, int]]] = {
    "map": (2, 1, ARRAY),
    "filter": (2, 1, ARRAY),
    "forEach": (2, 1, UNDEFINED),
    "some": (2, 1, BOOLEAN),
    "every": (2, 1, BOOLEAN),
    "find": (2, 1, ANY),
    "reduce": (2, 2, ANY),
}
#: Expressions that need the callback's own slots or make closures of its own.
_NOT_INLINE: Final = frozenset(
    ["closure", "cell", "iterator", "iter_step", "iter_next", "iter_rest", "for_in_keys", "for_in_has"]
)


class InlineWriter(ReadWriter):
    """Writes reads and short callbacks as statements in front of the statement that needs them."""

    def __init__(self, analysis: Analysis, function: Function, constants: Constants) -> None:
        super().__init__(analysis, function, constants)
        self._callbacks: dict[int, bool] = {}

    def is_hoisted(self, node: Node) -> bool:
        """Reads, and calls with a callback that can be written in place."""
        return super().is_hoisted(node) or self._is_inline(node)

    def write_hoisted(self, node: Node, ready: list[Node]) -> Code:
        """Statements for a hoisted expression whose operands are `ready`; its result."""
        return self._write_loop(node, ready) if node[0] == "call_method" else super().write_hoisted(node, ready)

    def _is_inline(self, node: Node) -> bool:
        if node[0] != "call_method" or node[2] not in _METHODS or node[1][0] == "global":
            return False
        most, count, _ = _METHODS[node[2]]
        arguments = node[4]
        if len(arguments) != count or arguments[0][0] != "closure" or arguments[-1][0] == "spread":
            return False
        if not self.analysis.kinds(self.function_id, node[1]) & ARRAY:
            return False
        callback = self.analysis.functions[arguments[0][1]]
        return len(callback["params"]) <= most and self._is_short(callback)

    def _is_short(self, callback: Function) -> bool:
        found = self._callbacks.get(callback["id"])
        if found is None:
            found = self._callbacks[callback["id"]] = _is_one_expression(callback)
        return found

    def _write_loop(self, node: Node, ready: list[Node]) -> Code:
        name, arguments, position = node[2], node[4], self.position
        kinds = self.analysis.kinds(self.function_id, node)
        target = self.code(ready[0])
        array = target.text
        if not target.simple:
            array = self.temporary()
            self.emit(f"{array} = {as_value(target)}")
        start = self.value(arguments[1]) if len(ready) < 2 and len(arguments) > 1 else None
        if len(ready) > 1:
            start = self.value(ready[-1])
        result = self.temporary()
        if start is not None:
            self.emit(f"{result} = {start}")
        known = value_kinds(target) == ARRAY
        if not known:
            self.emit(f"if {array}.__class__ is h_list:")
            self.indent += 1
        self._write_turns(name, self.analysis.functions[arguments[0][1]], array, result)
        if not known:
            self.indent -= 1
            self.position = position
            rest = [["ready", Code(result, ANY, True)]] if start is not None else []
            call = ["call_method", ["ready", Code(array, ANY, True)], name, node[3], [arguments[0], *rest], node[5]]
            self.emit(f"else: {result} = {self.value(call)}")
            kinds = ANY
        self.position = position
        return Code(result, kinds, True)

    def _write_turns(self, name: str, callback: Function, array: str, result: str) -> None:
        length, item = self.temporary(), self.temporary()
        params = callback["params"]
        kinds = [self.analysis.kinds(callback["id"], ["slot", slot]) for slot in params]
        place = 1 if name == "reduce" else 0
        names = [Code(item, kinds[place] if place < len(kinds) else ANY, True)]
        if name == "reduce":
            names.insert(0, Code(result, kinds[0] if kinds else ANY, True))
        self.emit(f"{length} = h_len({array})")
        index = ""
        if len(params) > 1 and name != "reduce":
            index = self.temporary()
            names.append(Code(index, NUMBER, True))
            self.emit(f"{index} = -1.0")
        first = {"map": "[]", "filter": "[]", "forEach": "U", "find": "U", "some": "False", "every": "True"}.get(name)
        if first is not None:
            self.emit(f"{result} = {first}")
        body = callback["body"][0]
        # find, unlike the others, also sees the places of elements that its callback takes away
        each = "h_each" if name == "find" and not _EFFECTS.isdisjoint(_kinds(body[1])) else "h_islice"
        turns = f"for {item} in {each}({array}, {length})"
        start = len(self.lines)
        self.emit(f"{turns}:")
        self.indent += 1
        if index:
            self.emit(f"{index} += 1.0")
        self.position = body[2]
        writer = _CallbackWriter(self, callback, dict(zip(params, names, strict=False)))
        node = writer.hoist(body[1], presence=name not in ("map", "reduce"))
        plain = len(self.lines) == start + 1
        if name in ("map", "filter"):
            text = writer.value(node) if name == "map" else writer.test(node)
            if plain and ":=" not in text:
                del self.lines[start - 1 :]  # The empty list and the loop.
                self.indent -= 1
                whole = f"{text} {turns}" if name == "map" else f"{item} {turns} if {text}"
                self.emit(f"{result} = [{whole}]")
                self.indent += 1
            else:
                self.emit(f"{result}.append({text})" if name == "map" else f"if {text}: {result}.append({item})")
        elif name == "forEach":
            self.emit(writer.value(node))
        elif name == "reduce":
            self.emit(f"{result} = {writer.value(node)}")
        else:
            found = {"some": "True", "every": "False", "find": item}[name]
            self.emit(f"if {'not ' if name == 'every' else ''}{writer.test(node)}:")
            self.indent += 1
            self.emit(f"{result} = {found}")
            self.emit("break")
            self.indent -= 1
        self.indent -= 1
        if name == "map":
            self.emit(f"if h_len({result}) < {length}: h_holes()")
        elif name == "find" and each == "h_islice":
            self.emit(f"else: h_same_length({array}, {length})")


class _CallbackWriter(ReadWriter):
    """Writes the expression of a callback into the function that makes it."""

    def __init__(self, outer: InlineWriter, callback: Function, names: dict[int, Code]) -> None:
        super().__init__(outer.analysis, callback, outer.constants)
        self.outer = outer
        self.names = names
        self.lines = outer.lines
        self.indent = outer.indent
        self.position = outer.position

    def temporary(self) -> str:
        """A temporary of the outer function's statement."""
        return self.outer.temporary()

    def _slot(self, node: Node) -> Code:
        return self.names[node[1]]

    def _capture(self, node: Node) -> Code:
        return self.outer.code(self._outer_variable(node))

    def _assign(self, node: Node) -> Code:
        code = self.code(node[2])
        cell = self.outer.cell_name(self._outer_variable(node[1]))
        return Code(f"h_put({cell}, {as_value(code)})", value_kinds(code))

    def _outer_variable(self, node: Node) -> Node:
        kind, index = self.function["captures"][node[1]]
        return ["cell" if kind == "slot" else "capture", index]


def _kinds(node: Node) -> set[str]:
    """The kinds of an expression and of all its parts."""
    kinds = set()
    pending = [node]
    while pending:
        node = pending.pop()
        kinds.add(node[0])
        pending.extend(sub_expressions(node))
    return kinds


def _is_one_expression(callback: Function) -> bool:
    """Whether a function is nothing but one expression over its parameters and captures."""
    body = callback["body"]
    if callback["kind"] != "sync" or callback["rest"] is not None or callback["cells"] or len(body) != 1:
        return False
    if body[0][0] != "return" or ["self"] in callback["captures"]:
        return False
    params = set(callback["params"])
    count = 0
    pending = [body[0][1]]
    while pending:
        node = pending.pop()
        count += 1
        if count > CALLBACK_NODES_MAX or node[0] in _NOT_INLINE:
            return False
        if node[0] == "slot" and node[1] not in params:
            return False
        if node[0] == "assign" and node[1][0] != "capture":
            return False
        pending.extend(sub_expressions(node))
    return True
