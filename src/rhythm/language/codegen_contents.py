"""Which arrays and objects of a program nobody but its own, visible code can reach, and what they can hold.

Variables, results and contents that may hold the same array or object are put in one class (unification, as in
Steensgaard's points-to analysis: one pass, nearly linear). A class has one holder for all its elements, one for every
property name, and is *open* when any of its members may reach code that is not followed: unknown functions, builtins
that keep or hand on what they are given, promises, thrown values, the outside. What is stored into a class that is not
open is collected as equations for codegen_types, which then knows the kinds of its elements and properties.

    prices = []; prices.push(i * 2)          elements of the class of `prices`: NUMBER
    points.push({x: i, y: 0}); points[0].x   property x of the class of the elements of `points`: NUMBER, always there

What is not followed makes a class open, so an answer is never wrong, only dull. What has no class (None) is a primitive
or a function. Functions are followed on the way: those whose value is used for anything but direct calls, and callbacks
of array methods on arrays that are not followed, are added to `Analysis.escapes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rhythm.language.codegen_tree import ARRAY, NUMBER, STRING, STRING_METHODS, UNDEFINED, Key, Node, sub_expressions
from rhythm.language.values_types import METHODS

if TYPE_CHECKING:
    from rhythm.language.codegen_types import Analysis

OPEN: Final = 0  #: The class of everything that is not followed.

#: Builtin functions that only look at their arguments, and give a primitive; that copy them, and give a promise.
_LOOKING_FUNCTIONS: Final = frozenset(["Number", "String", "Boolean", "parseInt", "parseFloat", "isNaN", "isFinite"])
_COPYING_FUNCTIONS: Final = frozenset(["task", "child", "sleep", "signal"])
_LOOKING_OWNERS: Final = frozenset(["Math", "Number", "console"])
_LOOKING_MEMBERS: Final = frozenset([("Array", "isArray"), ("Date", "now")])
#: Methods of arrays that give back no element and keep nothing; those that give one; those that give the same class.
_LOOKING: Final = frozenset(["includes", "indexOf", "lastIndexOf", "join", "toString"])
_TAKING: Final = frozenset(["pop", "shift", "at"])
_SAME: Final = frozenset(["slice", "reverse", "sort"])
_STORING: Final = frozenset(["push", "unshift"])
#: Methods with a callback -> what its parameters are.
CALLBACKS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(["map", "filter", "forEach", "some", "every", "find", "findIndex"], ("element", "index", "array")),
    "reduce": ("result", "element", "index", "array"),
    "sort": ("element", "element"),
}


class Contents:
    """The classes of one program. Collects, unifies, then answers `of` and the equations."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.parents: list[int] = [OPEN]
        self.elements: list[int] = [OPEN]  #: Holder of elements, and of properties with computed names; -1: none.
        self.properties: list[dict[str, int]] = [{}]
        self.always: list[frozenset[str] | None] = [None]  #: Names all its objects are made with; None: no object.
        self.computed: list[bool] = [True]  #: Read or written under computed names.
        self.variables: dict[Any, int] = {}  #: By key of a variable, or ("result", function id).
        self.made: dict[int, int] = {}  #: By id() of the node that makes an array or object.
        self.stored: list[tuple[int, int, Any]] = []  #: (holder, function id, expression or mask).
        self.callbacks: dict[int, tuple[int, int, Node]] = {}  #: Callback id -> receiver, function id, call.
        self._method_calls: list[tuple[int, tuple[int, ...]]] = []  #: Receivers and what follows.
        self._merges = 0

    # -- classes --

    def find(self, item: int) -> int:
        """The representative of a class."""
        parents = self.parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def fresh(self, always: frozenset[str] | None = None) -> int:
        """A class of its own."""
        item = len(self.parents)
        self.parents.append(item)
        self.elements.append(-1)
        self.properties.append({})
        self.always.append(always)
        self.computed.append(False)
        return item

    def union(self, left: int | None, right: int | None) -> int | None:
        """One class for both; None is nothing."""
        if left is None or right is None:
            return right if left is None else left
        pending = [(left, right)]
        while pending:
            one, other = pending.pop()
            one, other = self.find(one), self.find(other)
            if one == other:
                continue
            if one > other:
                one, other = other, one  # OPEN stays its own representative.
            self.parents[other] = one
            self._merges += 1
            pending.extend(self._merge(one, other))
        return self.find(left)

    def _merge(self, one: int, other: int) -> list[tuple[int, int]]:
        rest: list[tuple[int, int]] = []
        if self.elements[other] >= 0:
            if self.elements[one] >= 0:
                rest.append((self.elements[one], self.elements[other]))
            else:
                self.elements[one] = self.elements[other]
        mine = self.properties[one]
        for name, holder in self.properties[other].items():
            if one == OPEN:
                rest.append((OPEN, holder))
            elif name in mine:
                rest.append((mine[name], holder))
            else:
                mine[name] = holder
        names = self.always[other]
        if names is not None:
            present = self.always[one]
            self.always[one] = names if present is None else present & names
        self.computed[one] = self.computed[one] or self.computed[other]
        return rest

    def is_open(self, item: int) -> bool:
        """Whether members of a class may reach code that is not followed."""
        return self.find(item) == OPEN

    def element(self, item: int) -> int:
        """The holder of a class's elements."""
        item = self.find(item)
        if self.elements[item] < 0:
            self.elements[item] = self.fresh()
        return self.elements[item]

    def property(self, item: int, name: str) -> int:
        """The holder of one property of a class's objects."""
        item = self.find(item)
        if item == OPEN:
            return OPEN
        holder = self.properties[item].get(name)
        if holder is None:
            holder = self.properties[item][name] = self.fresh()
        return holder

    def variable(self, key: Any) -> int:
        """The class of a variable."""
        found = self.variables.get(key)
        if found is None:
            found = self.variables[key] = self.fresh()
        return found

    def _open(self, item: int | None) -> None:
        if item is not None:
            self.union(OPEN, item)

    # -- collecting --

    def open_function(self, function_id: int) -> None:
        """Nobody knows who calls it with what, and what becomes of its results."""
        function = self.analysis.functions[function_id]
        for slot in function["params"]:
            self._open(self.variable((function_id, slot)))
        if function["rest"] is not None:
            self._open(self.variable((function_id, function["rest"])))
        if function_id != self.analysis.workflow:  # Its result is copied when it has ended.
            self._open(self.variable(("result", function_id)))

    def statement(self, function_id: int, statement: Node) -> None:
        """Follow the values of one statement (not of those inside it)."""
        kind = statement[0]
        if kind == "set" or kind == "bind":
            variable = statement[1] if kind == "set" else ["cell", statement[1]]
            key = self.analysis.key(function_id, variable)
            if statement[2][0] != "closure" or key not in self.analysis.known:
                self.union(self.variable(key), self.visit(function_id, statement[2]))
        elif kind == "if":
            for arm in statement[1]:
                self.visit(function_id, arm[0])
        elif kind == "loop":
            if statement[2] is not None:
                self.visit(function_id, statement[2])
        elif kind == "for_of":
            self._each(self.variable((function_id, statement[2])), self.visit(function_id, statement[3]))
        elif kind == "unpack":
            self._unpack(function_id, statement)
        elif kind == "return":
            self.union(self.variable(("result", function_id)), self.visit(function_id, statement[1]))
        elif kind == "await":
            self._open(self.visit(function_id, statement[3]))
            if statement[2] is not None:
                self._open(self.variable((function_id, statement[2])))
        elif kind == "throw":
            self._open(self.visit(function_id, statement[1]))
        elif kind == "try":
            self._open(self.variable((function_id, statement[2])))
        elif kind in ("expr", "check_object"):
            self.visit(function_id, statement[1])

    def _each(self, target: int, iterated: int | None) -> None:
        if iterated is not None:
            self.union(target, self.element(iterated))

    def _unpack(self, function_id: int, statement: Node) -> None:
        iterated = self.visit(function_id, statement[3])
        for slot in statement[1]:
            if slot is not None:
                self._each(self.variable((function_id, slot)), iterated)
        if statement[2] is not None:
            self.union(self.variable((function_id, statement[2])), OPEN if iterated is None else iterated)

    def visit(self, function_id: int, node: Node) -> int | None:
        """Follow the values of an expression; the class of what it gives."""
        method = VISITS.get(node[0])
        if method is not None:
            found: int | None = method(self, function_id, node)
            return found
        for child in sub_expressions(node):
            self.visit(function_id, child)
        return None

    def _variable(self, function_id: int, node: Node) -> int | None:
        key = self.analysis.key(function_id, node)
        target = self.analysis.known.get(key)
        if target is not None:
            self.analysis.escapes.add(target)
        return self.variable(key)

    def _checked(self, function_id: int, node: Node) -> int | None:
        return self._variable(function_id, node[1])

    def _assign(self, function_id: int, node: Node) -> int | None:
        key = self.analysis.key(function_id, node[1])
        return self.union(self.variable(key), self.visit(function_id, node[2]))

    def _global(self, function_id: int, node: Node) -> int | None:
        return OPEN

    def _either(self, function_id: int, node: Node) -> int | None:
        return self.union(self.visit(function_id, node[1]), self.visit(function_id, node[2]))

    def _conditional(self, function_id: int, node: Node) -> int | None:
        self.visit(function_id, node[1])
        return self.union(self.visit(function_id, node[2]), self.visit(function_id, node[3]))

    def _sequence(self, function_id: int, node: Node) -> int | None:
        return [self.visit(function_id, item) for item in node[1]][-1]

    def _get_member(self, function_id: int, node: Node) -> int | None:
        owner = self.visit(function_id, node[1])
        return None if owner is None else self._named(owner, node[2])

    def _named(self, owner: int, name: str) -> int:
        """The holder of a property: names that are indexes go with the elements."""
        if name[:1].isdigit():
            self.computed[self.find(owner)] = True
            return self.element(owner)
        return self.property(owner, name)

    def _set_member(self, function_id: int, node: Node) -> int | None:
        owner, value = self.visit(function_id, node[1]), self.visit(function_id, node[3])
        if owner is not None:
            self._store(self._named(owner, node[2]), function_id, node[3], value)
        return value

    def _get_index(self, function_id: int, node: Node) -> int | None:
        owner = self.visit(function_id, node[1])
        self.visit(function_id, node[2])
        if owner is None:
            return None
        self.computed[self.find(owner)] = True
        return self.element(owner)

    def _set_index(self, function_id: int, node: Node) -> int | None:
        owner = self.visit(function_id, node[1])
        self.visit(function_id, node[2])
        value = self.visit(function_id, node[3])
        if owner is not None:
            self.computed[self.find(owner)] = True
            self._store(self.element(owner), function_id, node[3], value)
        return value

    def _delete_member(self, function_id: int, node: Node) -> int | None:
        owner = self.visit(function_id, node[1])
        if owner is not None:
            item = self.find(owner)
            self.always[item] = (self.always[item] or frozenset()) - {node[2]}  # A merge adds no name.
        return None

    def _delete_index(self, function_id: int, node: Node) -> int | None:
        self._open(self.visit(function_id, node[1]))
        self.visit(function_id, node[2])
        return None

    def _store(self, holder: int, function_id: int, node: Any, value: int | None) -> None:
        self.union(holder, value)
        self.stored.append((holder, function_id, node))

    def _array(self, function_id: int, node: Node) -> int | None:
        item = self.fresh()
        self.made[id(node)] = item
        for element in node[1]:
            self._store_argument(item, function_id, element)
        return item

    def _store_argument(self, item: int, function_id: int, argument: Node) -> None:
        """An element of an array literal, or an argument of push."""
        if argument[0] != "spread":
            self._store(self.element(item), function_id, argument, self.visit(function_id, argument))
            return
        spread = self.visit(function_id, argument[1])
        holder = self.element(item)
        if spread is not None:
            self.union(holder, self.element(spread))
        self.stored.append((holder, function_id, ["element_of", argument[1]]))

    def _object(self, function_id: int, node: Node) -> int | None:
        names = [entry[1] for entry in node[1] if entry[0] == "property"]
        item = self.fresh(frozenset(name for name in names if not name[:1].isdigit()))
        self.made[id(node)] = item
        for entry in node[1]:
            if entry[0] == "property":
                value = self.visit(function_id, entry[2])
                self._store(self._named(item, entry[1]), function_id, entry[2], value)
            elif entry[0] == "computed":
                self.visit(function_id, entry[1])
                self.computed[self.find(item)] = True
                self._store(self.element(item), function_id, entry[2], self.visit(function_id, entry[2]))
            else:
                source = self.visit(function_id, entry[1])
                self.union(item, OPEN if source is None else source)
        return self.find(item)

    def _closure(self, function_id: int, node: Node) -> int | None:
        self.analysis.escapes.add(node[1])
        return None

    def _iterated(self, function_id: int, node: Node) -> int | None:
        found = self.visit(function_id, node[1])
        return OPEN if found is None else found  # Characters of a string are no objects, but their array is one.

    def _iter_step(self, function_id: int, node: Node) -> int | None:
        self._each(self.variable((function_id, node[2])), self.variable((function_id, node[1])))
        return None

    def _iter_next(self, function_id: int, node: Node) -> int | None:
        return self.element(self.variable((function_id, node[1])))

    def _iter_rest(self, function_id: int, node: Node) -> int | None:
        return self.variable((function_id, node[1]))

    def _for_in_keys(self, function_id: int, node: Node) -> int | None:
        self.visit(function_id, node[1])
        return OPEN

    def _object_rest(self, function_id: int, node: Node) -> int | None:
        for key in node[2]:
            self.visit(function_id, key)
        source = self.visit(function_id, node[1])
        return self.union(OPEN if source is None else source, self.fresh(frozenset()))

    def _unknown(self, function_id: int, node: Node) -> int | None:
        """An operation that may keep or hand on all its operands."""
        for child in sub_expressions(node):
            self._open(self.visit(function_id, child))
        return OPEN

    # -- calls --

    def _call(self, function_id: int, node: Node) -> int | None:
        callee, arguments = node[1], node[3]
        if callee[0] == "global" and (callee[1] in _LOOKING_FUNCTIONS or callee[1] in _COPYING_FUNCTIONS):
            self._look(function_id, arguments)
            return OPEN if callee[1] in _COPYING_FUNCTIONS else None
        target = self.analysis.known_function(function_id, callee)
        if target is None:
            self._open(self.visit(function_id, callee))
            self._open_all(function_id, arguments)
            return OPEN
        self.analysis.note_call(target, function_id, arguments)
        if target in self.analysis.escapes:
            self._open_all(function_id, arguments)
            return OPEN
        function = self.analysis.functions[target]
        params = function["params"]
        for index, argument in enumerate(arguments):
            value = self.visit(function_id, argument)
            if index < len(params):
                self.union(self.variable((target, params[index])), value)
            elif function["rest"] is not None:
                self._open(value)
        if function["rest"] is not None:
            self._open(self.variable((target, function["rest"])))
        result = self.variable(("result", target))
        if function["kind"] == "async":
            self._open(result)
        return result

    def _look(self, function_id: int, arguments: list[Node]) -> list[int]:
        """Visit arguments of a builtin that keeps and hands on nothing; their classes."""
        found = [self.visit(function_id, item[1] if item[0] == "spread" else item) for item in arguments]
        return [item for item in found if item is not None]

    def _open_all(self, function_id: int, arguments: list[Node]) -> None:
        for item in self._look(function_id, arguments):
            self._open(item)

    def _call_method(self, function_id: int, node: Node) -> int | None:
        receiver, name, arguments = node[1], node[2], node[4]
        if receiver[0] == "global":
            return self._call_member(function_id, node)
        item = self.visit(function_id, receiver)
        if item is not None and self.find(item) == OPEN:
            self._open_all(function_id, arguments)
            return OPEN
        if item is None:
            item = self.fresh()
        if name in CALLBACKS and self._calls_back(node):
            return self._callback(function_id, item, node)
        if name in _STORING:
            for argument in arguments:
                self._store_argument(item, function_id, argument)
            return self._builtin(item, self.element(item), given=None)
        if name in _LOOKING or name in _TAKING or _is_of_strings(name) or (name in _SAME and not _compares(node)):
            given: int | None = None
            if name == "split":
                given = self._strings(node)
            elif name in _TAKING or name in _SAME:
                given = self.element(item) if name in _TAKING else item
            return self._builtin(item, *self._look(function_id, arguments), given=given)
        if name in METHODS[list]:
            self._open(item)
        self._open_all(function_id, arguments)
        return OPEN

    def _call_member(self, function_id: int, node: Node) -> int | None:
        owner, name, arguments = node[1][1], node[2], node[4]
        looks = owner in _LOOKING_OWNERS or (owner, name) in _LOOKING_MEMBERS
        if looks or (owner == "JSON" and name == "stringify" and len(arguments) == 1):
            self._look(function_id, arguments)
            return None
        if owner == "Object" and name == "keys":
            self._look(function_id, arguments)
            return self._strings(node)
        self._open_all(function_id, arguments)
        return OPEN

    def _strings(self, node: Node) -> int:
        """The class of a new array of strings."""
        item = self.made[id(node)] = self.fresh()
        self.stored.append((self.element(item), 0, STRING))
        return item

    def _builtin(self, item: int, *touched: int, given: int | None) -> int | None:
        """A call of an array's or a string's own method: if `item` turns out to have objects, all that is off."""
        self._method_calls.append((item, touched if given is None else (*touched, given)))
        return given

    def _calls_back(self, node: Node) -> bool:
        """Whether a call is one of an array method with a function literal that can be followed."""
        arguments = node[4]
        if not 0 < len(arguments) <= (2 if node[2] == "reduce" else 1) or arguments[0][0] != "closure":
            return False
        callback = self.analysis.functions[arguments[0][1]]
        return callback["kind"] == "sync" and callback["rest"] is None and arguments[-1][0] != "spread"

    def _callback(self, function_id: int, item: int, node: Node) -> int | None:
        name, callback = node[2], node[4][0][1]
        self.callbacks[callback] = (item, function_id, node)
        result = self.variable(("result", callback))
        given: int | None = None
        if name == "map":
            given = self.made[id(node)] = self.fresh()
            self._store(self.element(given), function_id, ["result_of", callback], result)
        elif name in ("filter", "sort"):
            given = item
        elif name == "find":
            given = self.element(item)
        elif name == "reduce":
            start = self.visit(function_id, node[4][1]) if len(node[4]) > 1 else self.element(item)
            given = self.union(start, result)
        what = {"element": self.element(item), "array": item, "result": given}
        for slot, kind in zip(self.analysis.functions[callback]["params"], CALLBACKS[name], strict=False):
            self.union(self.variable((callback, slot)), what.get(kind))
        return self._builtin(item, self.element(item), result, given=given)

    # -- the end of collecting --

    def settle(self) -> None:
        """Open what turned out not to be followed: objects that may have methods of their own, and computed names."""
        opened: set[int] = set()
        while True:
            before = len(opened), len(self.analysis.escapes), self._merges
            for function_id in self.analysis.escapes - opened:
                opened.add(function_id)
                self.open_function(function_id)
            for item in range(1, len(self.parents)):
                if self.parents[item] == item and self.computed[item] and self.properties[item]:
                    if self.always[item] is not None:
                        self._open(item)
            for item, touched in self._method_calls:
                if self.is_open(item) or self.always[self.find(item)] is not None:
                    self._open(item)
                    for other in touched:
                        self._open(other)
            for callback, (item, _, _) in list(self.callbacks.items()):
                if self.is_open(item):
                    self.analysis.escapes.add(callback)
                    del self.callbacks[callback]
            if before == (len(opened), len(self.analysis.escapes), self._merges):
                return

    def equations(self) -> list[tuple[Key, int, Any]]:
        """(contents or parameter of a callback, function id, expression or mask) of everything stored there."""
        found: list[tuple[Key, int, Any]] = []
        for holder, function_id, node in self.stored:
            found.append(((-1 - self.find(holder), 0), function_id, node))
        for callback, (_, function_id, node) in self.callbacks.items():
            element = ["element_of", node[1]]
            places = CALLBACKS[node[2]]
            for index, slot in enumerate(self.analysis.functions[callback]["params"]):
                key = (callback, slot)
                what = places[index] if index < len(places) else "nothing"
                if what == "element":
                    found.append((key, function_id, element))
                    if node[2].startswith("find"):
                        found.append((key, function_id, UNDEFINED))  # It also visits what is no longer there.
                elif what == "result":
                    found.append((key, function_id, node[4][1] if len(node[4]) > 1 else element))
                    found.append((key, function_id, ["result_of", callback]))
                else:
                    found.append((key, function_id, {"index": NUMBER, "array": ARRAY}.get(what, UNDEFINED)))
        return found

    # -- answers --

    def of(self, function_id: int, node: Node) -> int | None:
        """The class of what an expression gives, once everything is settled; None when there is none."""
        kind = node[0]
        if kind in ("slot", "cell", "capture"):
            found = self.variables.get(self.analysis.key(function_id, node))
        elif kind in ("array", "object"):
            found = self.made.get(id(node))
        elif kind == "checked":
            return self.of(function_id, node[1])
        elif kind == "get_index":
            return self.element_of(function_id, node[1])
        elif kind == "get_member":
            return self.property_of(function_id, node[1], node[2])
        elif kind == "call":
            target = self.analysis.known_function(function_id, node[1])
            found = None if target is None else self.variables.get(("result", target))
        elif kind == "call_method":
            if node[2] in ("filter", *_SAME):
                return self.of(function_id, node[1])
            found = self.made.get(id(node))
        else:
            return None
        return None if found is None else self.find(found)

    def element_of(self, function_id: int, node: Node) -> int | None:
        """The holder of the elements of what an expression gives; None when they are not followed."""
        owner = self.of(function_id, node)
        if owner is None or owner == OPEN or self.elements[owner] < 0:
            return None
        return self.find(self.elements[owner])

    def property_of(self, function_id: int, node: Node, name: str) -> int | None:
        """The holder of a property of what an expression gives; None when it is not followed."""
        owner = self.of(function_id, node)
        if owner is None or owner == OPEN or self.always[owner] is None or name[:1].isdigit():
            return None
        holder = self.properties[owner].get(name)
        return None if holder is None else self.find(holder)

    def has_always(self, function_id: int, node: Node, name: str) -> bool:
        """Whether every object that an expression gives has the property, at any time."""
        owner = self.of(function_id, node)
        return owner is not None and owner != OPEN and name in (self.always[owner] or ())


#: Expressions that give on or keep what they are given; others look at their operands only.
VISITS: Final = {
    "slot": Contents._variable,
    "cell": Contents._variable,
    "capture": Contents._variable,
    "checked": Contents._checked,
    "assign": Contents._assign,
    "and": Contents._either,
    "or": Contents._either,
    "coalesce": Contents._either,
    "conditional": Contents._conditional,
    "sequence": Contents._sequence,
    "get_member": Contents._get_member,
    "set_member": Contents._set_member,
    "get_index": Contents._get_index,
    "set_index": Contents._set_index,
    "delete_member": Contents._delete_member,
    "delete_index": Contents._delete_index,
    "array": Contents._array,
    "object": Contents._object,
    "closure": Contents._closure,
    "iterator": Contents._iterated,
    "iter_step": Contents._iter_step,
    "iter_next": Contents._iter_next,
    "iter_rest": Contents._iter_rest,
    "for_in_keys": Contents._for_in_keys,
    "object_rest": Contents._object_rest,
    "call": Contents._call,
    "call_method": Contents._call_method,
    "call_index": Contents._unknown,
    "new": Contents._unknown,
    "global": Contents._global,
}


def _is_of_strings(name: str) -> bool:
    """Whether a name is one of a method of strings, and of no method of arrays."""
    return name in STRING_METHODS and name not in METHODS[list]


def _compares(node: Node) -> bool:
    return bool(node[2] == "sort" and node[4])
