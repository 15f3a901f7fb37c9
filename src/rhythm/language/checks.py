"""Checks of single expressions and statements: JavaScript that flows do not have, and what is probably a mistake.

The resolver calls them when the names inside are resolved. Warnings never stop a program; refusals are only made where
the source shows for certain what is meant, everything else is left to the run time.
"""

from __future__ import annotations

from typing import Final

from rhythm.language import names, nodes
from rhythm.language.diagnostics import Report
from rhythm.language.reachability import never_goes_past

_FUNCTION_MEMBERS: Final = {
    "call": "call it directly",
    "apply": "call it with `f(...values)`",
    "bind": "write an arrow function",
    "length": "keep the number in a constant",
    "name": "keep the name in a constant",
    "toString": "functions have no text",
}
#: Methods of arrays that ask their function whether something is so.
_TESTING: Final = frozenset("filter find findIndex findLast findLastIndex some every".split())
_COMBINATORS: Final = frozenset("all allSettled any race".split())
_PROMISE_STEPS_MAX: Final = 5  #: names and reactions that are followed to find a promise
_WRAPPERS: Final = frozenset({"String", "Number", "Boolean"})


class Checks:
    """Mixed into the resolver."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.needed: list[list[list[nodes.Identifier]]] = []  # names by part, of patterns where order matters

    # --- what an expression surely is ---------------------------------------------------------------------------------

    def global_name(self, node: nodes.Node) -> str | None:
        """The name, when the node is an unshadowed builtin name."""
        if isinstance(node, nodes.Identifier) and node.binding is None:
            return node.name
        return None

    def is_function(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.FunctionExpression | nodes.ArrowFunctionExpression):
            return True
        if isinstance(node, nodes.Identifier):
            binding = node.binding
            if binding is None:
                return node.name in names.GLOBAL_NAMES - {"Math", "JSON", "console", "NaN", "Infinity", "undefined"}
            if binding.kind in ("function", "function-name"):
                return not binding.assigned
            return binding.kind == "const" and isinstance(
                binding.initialiser, nodes.FunctionExpression | nodes.ArrowFunctionExpression
            )
        return False

    def is_builtin_function(self, node: nodes.Node) -> bool:
        """``Math.max``, ``Object.keys`` and the like."""
        return (
            isinstance(node, nodes.MemberExpression)
            and not node.computed
            and self.global_name(node.object) in names.GLOBAL_NAMES - names.HOST_FUNCTIONS - {"undefined"}
        )

    def is_async_function(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.FunctionExpression | nodes.ArrowFunctionExpression):
            return node.is_async
        if isinstance(node, nodes.Identifier) and node.binding is not None and not node.binding.assigned:
            binding = node.binding
            if binding.kind == "function":  # of several with one name, the last counts
                named = (f for f in reversed(binding.scope.functions) if f.id.name == binding.name)
                declaration = next(named, None)
                return declaration is not None and declaration.is_async
            return (
                binding.kind == "const"
                and isinstance(binding.initialiser, nodes.FunctionExpression | nodes.ArrowFunctionExpression)
                and binding.initialiser.is_async
            )
        return False

    def is_promise(self, node: nodes.Node, depth: int = 0) -> bool:
        """Whether a value is surely a promise, as far as the source shows within a few steps."""
        if depth >= _PROMISE_STEPS_MAX:
            return False
        if isinstance(node, nodes.NewExpression):
            return self.global_name(node.callee) == "Promise"
        if isinstance(node, nodes.CallExpression):
            callee = node.callee
            if isinstance(callee, nodes.MemberExpression) and not callee.computed:
                name = getattr(callee.property, "name", "")
                if self.global_name(callee.object) == "Promise":
                    return name in names.PROMISE_STATICS
                return name in names.PROMISE_METHODS and self.is_promise(callee.object, depth + 1)
            return self.global_name(callee) in names.PROMISE_FUNCTIONS or self.is_async_function(callee)
        if isinstance(node, nodes.Identifier) and node.binding is not None:
            binding = node.binding
            return (
                binding.kind == "const"
                and binding.initialiser is not None
                and self.is_promise(binding.initialiser, depth + 1)
            )
        return False

    # --- refusals -----------------------------------------------------------------------------------------------------

    def check_member(self, node: nodes.MemberExpression) -> None:
        key = node.property
        if node.computed:
            self.check_data_use(node.object)
        if not node.computed:
            name = key.name if isinstance(key, nodes.Identifier) else None
        else:
            name = key.value if isinstance(key, nodes.Literal) and isinstance(key.value, str) else None
        if name is None:
            return
        owner = self.global_name(node.object)
        if owner is not None:
            if (owner, name) in names.OUT_STATICS:
                hint = names.OUT_STATICS[owner, name]
                self.report.error("F214", f"`{owner}.{name}` is not available in flows", node.start, node.end, hint)
                return
        if name in names.OUT_MEMBERS:
            code = "F219" if name == "__proto__" else "F214"
            self.report.error(code, f"`.{name}` is not available in flows", key.start, key.end, names.OUT_MEMBERS[name])
        elif name in _FUNCTION_MEMBERS and self.is_function(node.object):
            self.report.error(
                "F214",
                f"`.{name}` of a function is not available in flows",
                key.start,
                key.end,
                _FUNCTION_MEMBERS[name],
            )
        elif name in ("call", "apply", "bind") and self.is_builtin_function(node.object):
            hint = _FUNCTION_MEMBERS[name]
            self.report.error("F214", f"`.{name}` of a function is not available in flows", key.start, key.end, hint)
        elif not node.computed and self.is_promise(node.object) and name not in names.PROMISE_METHODS:
            self.warn_promise(node.object)

    def check_pattern_key(self, key: nodes.Node) -> None:
        name = key.name if isinstance(key, nodes.Identifier) else key.value if isinstance(key, nodes.Literal) else None
        if isinstance(name, str) and name in ("constructor", "__proto__", "prototype"):
            code = "F219" if name == "__proto__" else "F214"
            self.report.error(code, f"`{name}` is not available in flows", key.start, key.end, names.OUT_MEMBERS[name])

    def check_assigned_member(self, node: nodes.MemberExpression) -> None:
        owner = self.global_name(node.object)
        if owner in names.GLOBAL_NAMES - {"NaN", "Infinity", "undefined"}:
            text = f"`{owner}` is a builtin, and its properties cannot be assigned to"
            self.report.error("F305", text, node.start, node.end, "keep the value in a variable")

    def check_call(self, node: nodes.CallExpression) -> None:
        callee = node.callee
        if not isinstance(callee, nodes.MemberExpression) or callee.computed or not node.arguments:
            return
        assert isinstance(callee.property, nodes.Identifier), "a plain name"
        name, first = callee.property.name, node.arguments[0]
        if name == "forEach" and self.is_async_function(first):
            self.report.warning(
                "W111",
                "`forEach` does not wait for an async function",
                first.start,
                first.end,
                "write `for (const item of list) { … }`, or `await Promise.all(list.map(…))`",
            )
        elif name in _TESTING and self.is_async_function(first):
            self.report.warning(
                "W102",
                f"`{name}` takes the promise of an async function as true",
                first.start,
                first.end,
                "wait for the answers first: `await Promise.all(list.map(…))`",
            )
        elif self.global_name(callee.object) == "Promise" and name in _COMBINATORS:
            if len(node.arguments) > 1 or self.is_promise(first):
                self.report.warning(
                    "W113",
                    f"`Promise.{name}` takes one list of promises",
                    first.start,
                    node.arguments[-1].end,
                    f"write `Promise.{name}([ … ])`",
                )

    def check_arrow(self, node: nodes.ArrowFunctionExpression) -> None:
        """``x => { a: 1 }`` is a block with a label."""
        body = node.body
        if isinstance(body, nodes.BlockStatement) and len(body.body) == 1:
            (only,) = body.body
            if isinstance(only, nodes.LabeledStatement) and isinstance(only.body, nodes.ExpressionStatement):
                self.report.warning(
                    "W112",
                    "this is a block with a label, not an object",
                    body.start,
                    body.start + 1,
                    "write `({ … })`, with parentheses",
                )

    def check_new(self, node: nodes.NewExpression) -> None:
        callee = node.callee
        name = self.global_name(callee)
        if name in names.CONSTRUCTORS or name in ("Array", "Object"):
            return
        if name in _WRAPPERS:
            self.report.error(
                "F216", f"`new {name}` is not supported", node.start, callee.end, f"write `{name}(value)`"
            )
        elif name is not None and name not in names.GLOBAL_NAMES:
            return  # reported as a name
        elif (
            name is not None
            or isinstance(callee, nodes.Identifier | nodes.MemberExpression)
            or self.is_function(callee)
        ):
            self.report.error(
                "F216",
                "`new` is only for Error kinds, Map, Set, Date and Promise",
                node.start,
                callee.end,
                "call a function that returns an object",
            )

    def check_binary(self, node: nodes.BinaryExpression) -> None:
        sides: list[nodes.Expression] = []
        if (
            node.operator == "instanceof"
            and isinstance(node.right, nodes.Identifier)
            and node.right.binding is not None
            and self.is_function(node.right)
        ):
            self.report.error(
                "F216",
                "`instanceof` works with builtin constructors only",
                node.right.start,
                node.right.end,
                "keep a field that says what it is",
            )
        elif node.operator in ("==", "!=", "===", "!=="):
            left, right = _static_type(node.left), _static_type(node.right)
            literal = isinstance(node.left, nodes.Literal) or isinstance(node.right, nodes.Literal)
            if literal and left and right and left != right and "null" not in (left, right):
                self.report.warning(
                    "W107",
                    f"a {left} is compared with a {right}",
                    node.start,
                    node.end,
                    "compare values of the same type",
                )
            sides = [node.left, node.right] if literal else []
        if node.operator not in ("==", "!=", "===", "!==", "instanceof", "in"):
            sides = [node.left, node.right]
        for side in sides:
            self.check_data_use(side)

    def check_logical(self, node: nodes.LogicalExpression) -> None:
        if node.operator == "??":
            self.check_data_use(node.left)
        elif self.is_promise(node.left):
            self.warn_always_true(node.left)

    # --- warnings -----------------------------------------------------------------------------------------------------

    def warn_promise(self, node: nodes.Node) -> None:
        self.report.warning(
            "W103", "this is a promise, not yet its value", node.start, node.end, "write `await` before it"
        )

    def warn_always_true(self, node: nodes.Node) -> None:
        self.report.warning("W102", "a promise is always true", node.start, node.end, "write `await` before it")

    def warn_declared_twice(self, name: nodes.Identifier, existing: nodes.Binding) -> None:
        line, _ = self.report.lines.position(existing.declaration.start)
        text = f"the function `{name.name}` is already declared in line {line}; only the last one counts"
        self.report.warning("W110", text, name.start, name.end, "remove one of them")

    def check_taken_apart(self, target: nodes.Node, value: nodes.Node) -> None:
        if isinstance(target, nodes.ArrayPattern | nodes.ObjectPattern):
            self.check_data_use(value)

    def check_data_use(self, node: nodes.Node) -> None:
        if self.is_promise(node):
            self.warn_promise(node)

    def check_condition(self, test: nodes.Expression) -> None:
        if self.is_promise(test):
            self.warn_always_true(test)
        elif isinstance(test, nodes.AssignmentExpression) and test.operator == "=":
            before = self.report.source[: test.start].rstrip()
            if not before.endswith("(("):
                self.report.warning(
                    "W106", "an assignment is used as a condition", test.start, test.end, "write `===` to compare"
                )

    def check_reachable(self, body: list[nodes.Statement]) -> None:
        last = next((item for item in body if never_goes_past(item)), None)
        if last is None:
            return
        rest = body[body.index(last) + 1 :]
        # A function is made before anything runs, and a `break` behind a `return` is a habit that harms nobody.
        harmless = (nodes.FunctionDeclaration, nodes.EmptyStatement, nodes.ErrorNode, nodes.BreakStatement)
        following = next((item for item in rest if not isinstance(item, harmless)), None)
        if following is None:
            return
        text, hint = "this is never reached", "remove it"
        if (
            isinstance(last, nodes.ReturnStatement)
            and last.argument is None
            and following is rest[0]
            and last.end != following.start
            and isinstance(following, nodes.BlockStatement | nodes.ExpressionStatement)
            and self.report.source[last.end - 1] != ";"
        ):
            text = "this is never reached: `return` ends with its line"
            hint = "begin the value on the line of `return`"
        self.report.warning("W105", text, following.start, following.end, hint)

    def check_cases(self, node: nodes.SwitchStatement) -> None:
        seen: set[tuple[str, object]] = set()
        kind = _static_type(node.discriminant)
        for case in node.cases:
            test = case.test
            if not isinstance(test, nodes.Literal):
                continue
            key = (type(test.value).__name__, test.value)
            if key in seen:
                self.report.warning("W108", "this case stands above already", test.start, test.end, "remove it")
            seen.add(key)
            own = _static_type(test)
            if kind and own and kind != own:
                self.report.warning("W108", f"a {kind} never equals a {own}", test.start, test.end, "remove it")

    def note_needed(self, pattern: nodes.Pattern) -> None:
        """Remembers the parts of a declared pattern that may be there for the sake of others."""
        for part in nodes.patterns_within(pattern):
            if isinstance(part, nodes.ArrayPattern):  # to get at a later element
                self.needed.append([[*nodes.pattern_names([item])] for item in part.elements])
            elif part.properties and isinstance(
                part.properties[-1], nodes.RestElement
            ):  # to leave them out of the rest
                for item in part.properties[:-1]:
                    names_of_rest = [*nodes.pattern_names([part.properties[-1]])]
                    self.needed.append([[*nodes.pattern_names([item])], names_of_rest])

    def needed_bindings(self) -> set[nodes.Binding]:
        """The bindings that stand in a pattern before one that is read."""
        found: set[nodes.Binding] = set()
        for parts in self.needed:
            is_read = False
            for names_of_part in reversed(parts):
                bindings = [name.binding for name in names_of_part if name.binding is not None]
                if any(binding.reads for binding in bindings):
                    is_read = True
                elif is_read:
                    found.update(bindings)
        return found

    def check_unused(self, functions: list[nodes.FunctionInfo]) -> None:
        needed = self.needed_bindings()
        for function in functions:
            for binding in function.bindings:
                if binding.reads or binding.kind not in ("let", "const", "function") or binding.name.startswith("_"):
                    continue
                if (
                    binding in needed or binding.awaited
                ):  # the name says what was waited for; without it the await would have to stay
                    continue
                what = "function" if binding.kind == "function" else "variable"
                self.report.warning(
                    "W104",
                    f"the {what} `{binding.name}` is never used",
                    binding.declaration.start,
                    binding.declaration.end,
                    "remove it, or begin its name with _",
                )


def _static_type(node: nodes.Node) -> str | None:
    """The type an expression always has, for a few kinds of expression."""
    if isinstance(node, nodes.Literal):
        value = node.value
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "boolean"
        return "number" if isinstance(value, float) else "string"
    if isinstance(node, nodes.TemplateLiteral):
        return "string"
    if isinstance(node, nodes.UnaryExpression):
        return {"typeof": "string", "!": "boolean", "-": "number", "+": "number", "~": "number"}.get(node.operator)
    if isinstance(node, nodes.BinaryExpression):
        if node.operator in ("<", ">", "<=", ">=", "==", "!=", "===", "!==", "in", "instanceof"):
            return "boolean"
        return "number" if node.operator in ("-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>", ">>>") else None
    return None
