"""What each name means: scopes, bindings, captures, and whether a variable is surely initialised where it is read.

One walk in the order of evaluation. On entering a scope all its names are declared (let, const, functions), then the
bodies of its functions are visited, because they may run before anything else in it, then its statements. A binding
counts as initialised once the walk has passed its declaration. A reference before that is checked at run time
(``Identifier.tdz``): in the same function it can only throw, which deserves a warning; in an inner function it throws
if that runs too early. Names declared in a switch are the exception: control may jump past them, so only references in
the same case, behind the declaration, are sure.

Refusals that need to know what a name is bound to are here as well (const, builtins, new, the shape of the file);
those that look at single expressions are in ``checks``. Nothing here raises for any tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rhythm.language import names, nodes
from rhythm.language.checks import Checks
from rhythm.language.diagnostics import Report, closest
from rhythm.language.nodes import Binding, BindingKind, FunctionInfo, Scope, ScopeKind
from rhythm.language.parser_expressions import ASYNC_MISSING, AWAIT_ELSEWHERE
from rhythm.language.recursion import recursion_room

WORKFLOW_PARAMETERS_MAX: Final = 2
_SUGGESTIONS_MAX: Final = 20  #: names of one file that are compared with others
_VISIBLE_MAX: Final = 1_000  #: names of one scope that may be suggested


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the resolver found, besides what it wrote into the tree."""

    workflow: nodes.WorkflowDeclaration | None
    functions: list[FunctionInfo]  #: all, the file's own first, outer before inner


def resolve(file: nodes.File, report: Report) -> Resolution:
    """Resolves the names of a file; problems go to the report."""
    with recursion_room():
        return _Resolver(file, report).run()


class _Resolver(Checks):
    def __init__(self, file: nodes.File, report: Report) -> None:
        super().__init__(report)
        self.file = file
        self.functions: list[FunctionInfo] = []
        self.scope: Scope = None  # type: ignore[assignment]  # set before the first use, in run()
        self.info: FunctionInfo = None  # type: ignore[assignment]  # as above
        self.clock = 0  # evaluation order
        self.loop_depth = 0
        self.cases: tuple[nodes.SwitchCase, ...] = ()  # those of this function being visited, outer before inner
        self.switch_cases: dict[Binding, nodes.SwitchCase] = {}  # where a switch's names are declared
        self.suggestions = 0
        self.name_argument: nodes.Node | None = None  # the last one that names a task, workflow or signal
        self.undefined: set[tuple[str, int]] = set()  # names and their lines that are reported
        self.unsure_names: set[str] = set()  # seen in parts that could not be parsed
        self.unclear = False
        self.top_level = True

    # --- file ---------------------------------------------------------------------------------------------------------

    def run(self) -> Resolution:
        file = self.file
        self.info = file.info = FunctionInfo(file, None, "", False)
        self.functions.append(self.info)
        workflows = [item for item in file.body if isinstance(item, nodes.WorkflowDeclaration)]
        self.check_shape(workflows)
        with self.new_scope("file") as scope:
            file.scope = scope
            self.declare_list(file.body)
            self.hoist(scope)
            for item in file.body:
                if not isinstance(item, nodes.WorkflowDeclaration):
                    self.statement(item)
            self.check_top_level(workflows)
            self.top_level = False
            for workflow in workflows:
                self.visit_workflow(workflow)
        self.check_unused(self.functions)
        return Resolution(workflows[0] if workflows else None, self.functions)

    def check_shape(self, workflows: list[nodes.WorkflowDeclaration]) -> None:
        for extra in workflows[1:]:
            self.report.error(
                "F402", "a file has one workflow", extra.start, extra.start + 8, "move this one to a file of its own"
            )
        for workflow in workflows:
            params = workflow.params
            if len(params) > WORKFLOW_PARAMETERS_MAX:
                surplus = params[WORKFLOW_PARAMETERS_MAX]
                self.report.error(
                    "F403",
                    "a workflow has at most two parameters",
                    surplus.start,
                    params[-1].end,
                    "write workflow(ctx, inputs)",
                )

    def check_top_level(self, workflows: list[nodes.WorkflowDeclaration]) -> None:
        broken = any(isinstance(item, nodes.ErrorNode) for item in self.file.body)
        if not workflows and not broken and not any(d.severity == "error" for d in self.report.diagnostics):
            start = end = 0
            hint = "add `workflow(ctx, inputs) { … }`"
            if (named := self.meant_as_workflow()) is not None:
                start, end = named.start, named.end
                hint = "write `workflow(ctx, inputs) { … }`, or `async function workflow(ctx, inputs) { … }`"
            self.report.error("F401", "this file has no workflow", start, end, hint)
        allowed = (
            nodes.VariableDeclaration,
            nodes.FunctionDeclaration,
            nodes.WorkflowDeclaration,
            nodes.EmptyStatement,
            nodes.ErrorNode,
            nodes.ReturnStatement,  # refused by the parser
        )
        for item in self.file.body:
            if not isinstance(item, allowed) and not self.has_error_in(item):
                self.report.error(
                    "F404",
                    "only functions and constants stand beside the workflow",
                    item.start,
                    item.end,
                    "move this into the workflow",
                )

    def has_error_in(self, item: nodes.Statement) -> bool:
        return any(d.severity == "error" and item.start <= d.start < item.end for d in self.report.diagnostics)

    def meant_as_workflow(self) -> nodes.Identifier | None:
        """The name of a function or constant that is called workflow."""
        for item in self.file.body:
            if isinstance(item, nodes.FunctionDeclaration) and item.id.name == "workflow":
                return item.id
            if isinstance(item, nodes.LabeledStatement) and item.label.name == "workflow":
                return item.label
            if isinstance(item, nodes.VariableDeclaration):
                for declared in item.declarations:
                    if isinstance(declared.id, nodes.Identifier) and declared.id.name == "workflow":
                        return declared.id
        return None

    def visit_workflow(self, node: nodes.WorkflowDeclaration) -> None:
        node.info = FunctionInfo(node, self.info, "workflow", True)
        node.scope = self.visit_function(node.info, node.params, node.body)

    # --- scopes -------------------------------------------------------------------------------------------------------

    @contextmanager
    def new_scope(self, kind: ScopeKind) -> Iterator[Scope]:
        outer = self.scope
        self.scope = Scope(kind, outer, self.info, loop_fresh=self.loop_depth > 0)
        try:
            yield self.scope
        finally:
            self.scope = outer

    def declare(self, name: nodes.Identifier, kind: BindingKind) -> Binding:
        scope = self.scope
        existing = scope.bindings.get(name.name)
        clash = existing
        if kind == "function" and scope.kind in ("body", "file"):
            # Directly in a function, a function declaration is a kind of var: it may stand twice, and hide a parameter.
            if existing is not None and existing.kind == "function":
                self.warn_declared_twice(name, existing)
                name.binding = existing
                return existing
        elif (
            clash is None
            and kind != "param"
            and scope.kind == "body"
            and scope.parent is not None
            and scope.parent.kind == "params"
        ):
            clash = scope.parent.bindings.get(name.name)
        if clash is None and scope.kind == "block" and scope.parent is not None and scope.parent.kind == "catch":
            clash = scope.parent.bindings.get(name.name)
        if clash is not None:
            if not (kind == "param" and clash.kind == "param"):  # the parser has refused that
                line, _ = self.report.lines.position(clash.declaration.start)
                text = f"`{name.name}` is already declared in line {line}"
                self.report.error("F303", text, name.start, name.end, "choose another name")
            if existing is not None:
                name.binding = existing
                return existing
        binding = Binding(name.name, kind, scope, self.info, name, loop_fresh=scope.loop_fresh)
        scope.bindings[name.name] = binding
        self.info.bindings.append(binding)
        name.binding = binding
        return binding

    def declare_list(self, body: list[nodes.Statement]) -> None:
        """Declares the names of the declarations that stand directly in a list of statements."""
        for item in body:
            if isinstance(item, nodes.VariableDeclaration):
                self.declare_variables(item)
            elif isinstance(item, nodes.FunctionDeclaration):
                binding = self.declare(item.id, "function")
                binding.initialised_at = self.tick()
                self.scope.functions.append(item)
            elif isinstance(item, nodes.ErrorNode):
                self.unsure_names |= item.names

    def declare_variables(self, declaration: nodes.VariableDeclaration) -> None:
        for declarator in declaration.declarations:
            self.note_needed(declarator.id)
            for name in nodes.pattern_names([declarator.id]):
                binding = self.declare(name, declaration.kind)
                if declarator.id is name:
                    binding.initialiser = declarator.init
                binding.awaited = isinstance(declarator.init, nodes.AwaitExpression)
                if self.scope.kind == "switch":
                    self.switch_cases[binding] = self.cases[-1]

    def hoist(self, scope: Scope) -> None:
        for function in scope.functions:
            self.visit_function_node(function, function.id.name)

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def initialise(self, target: nodes.Pattern) -> None:
        """Marks the names of a declared pattern as initialised; visits its defaults and keys in order."""
        if isinstance(target, nodes.Identifier):
            if target.binding is not None and target.binding.initialised_at < 0:
                target.binding.initialised_at = self.tick()
        else:
            self.pattern(target, self.initialise)

    def pattern(self, target: nodes.Pattern, leaf: object) -> None:
        """Walks a pattern in order of evaluation, giving names and members to ``leaf``."""
        assert callable(leaf), "a method of ours"
        if isinstance(target, nodes.AssignmentPattern):
            name = target.left.name if isinstance(target.left, nodes.Identifier) else ""
            self.expression(target.right, name)
            leaf(target.left)
        elif isinstance(target, nodes.RestElement):
            leaf(target.argument)
        elif isinstance(target, nodes.ArrayPattern):
            for element in target.elements:
                if element is not None:
                    leaf(element)
        elif isinstance(target, nodes.ObjectPattern):
            for item in target.properties:
                if isinstance(item, nodes.RestElement):
                    leaf(item.argument)
                    continue
                if item.computed:
                    self.expression(item.key)
                else:
                    self.check_pattern_key(item.key)
                leaf(item.value)

    def assign_to(self, target: nodes.Pattern) -> None:
        """Visits the target of an assignment."""
        if isinstance(target, nodes.Identifier):
            self.write(target)
        elif isinstance(target, nodes.MemberExpression):
            self.member(target)
            self.check_assigned_member(target)
        else:
            self.pattern(target, self.assign_to)

    # --- references ---------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> Binding | None:
        scope: Scope | None = self.scope
        while scope is not None:
            binding = scope.bindings.get(name)
            if binding is not None:
                return binding
            scope = scope.parent
        return None

    def read(self, node: nodes.Identifier, *, typeof: bool = False, called: str = "") -> None:
        binding = self.lookup(node.name)
        if binding is None:
            self.unbound(node, typeof=typeof, called=called)
            return
        binding.reads += 1
        self.refer(node, binding)

    def write(self, node: nodes.Identifier) -> None:
        binding = self.lookup(node.name)
        if binding is None:
            if node.name in names.GLOBAL_NAMES:
                self.report.error(
                    "F305",
                    f"`{node.name}` is a builtin and cannot be assigned to",
                    node.start,
                    node.end,
                    "choose another name",
                )
            else:
                self.unbound(node)
            return
        self.refer(node, binding)
        binding.assigned = True
        if binding.kind == "const":
            line, _ = self.report.lines.position(binding.declaration.start)
            self.report.error(
                "F302",
                f"`{node.name}` is a constant, declared in line {line}",
                node.start,
                node.end,
                "declare it with `let`",
            )
        elif binding.kind == "function-name":
            text = f"`{node.name}` is the function's own name and cannot be assigned to"
            self.report.error("F302", text, node.start, node.end, "keep the value in a variable of another name")

    def refer(self, node: nodes.Identifier, binding: Binding) -> None:
        node.binding = binding
        same_function = binding.function is self.info
        if not same_function:
            binding.captured = True
            info: FunctionInfo | None = self.info
            while info is not None and info is not binding.function:
                if binding not in info.captures:
                    info.captures.append(binding)
                info = info.parent
        initialised = binding.initialised_at >= 0
        if initialised and binding in self.switch_cases:
            initialised = self.switch_cases[binding] in self.cases
        if initialised:
            return
        if same_function and binding not in self.switch_cases:
            text = f"`{node.name}` is used before its declaration, which throws a ReferenceError"
            self.report.warning("W109", text, node.start, node.end, "move the declaration up")
        node.tdz = True
        binding.needs_tdz = True

    def unbound(self, node: nodes.Identifier, *, typeof: bool = False, called: str = "") -> None:
        name = node.name
        if name in names.GLOBAL_NAMES:
            if self.top_level and self.info is self.file.info and name in names.HOST_FUNCTIONS:
                self.report.error(
                    "F405",
                    f"`{name}` cannot be used before the workflow runs",
                    node.start,
                    node.end,
                    "use it inside the workflow",
                )
            return
        if name == "await" and not typeof:  # read as a name, because the function is not async
            self.report.error("F106", AWAIT_ELSEWHERE, node.start, node.end, ASYNC_MISSING)
            return
        earlier = names.EARLIER.get(name)
        if earlier is not None:
            self.report.error("F406", f"`{name}` is not a name of this language", node.start, node.end, earlier)
        elif name in names.OUT_NAMES:
            self.report.error(
                "F215", f"`{name}` is not available in flows", node.start, node.end, names.OUT_NAMES[name]
            )
        elif not typeof and name not in self.unsure_names:
            line, _ = self.report.lines.position(node.start)
            if (name, line) not in self.undefined:  # once is enough for `for (i = 0; i < 3; i++)`
                self.undefined.add((name, line))
                hint = names.FOREIGN_NAMES.get(name) or self.suggestion(name, called=called)
                if node is self.name_argument:
                    hint = f'write the name in quotes: `"{name}"`'
                self.report.error("F301", f"`{name}` is not defined", node.start, node.end, hint)

    def suggestion(self, name: str, *, called: str) -> str:
        if called and name.endswith("Error") and name not in names.ERROR_KINDS:
            return f'write `Object.assign(new Error(message), {{ name: "{name}" }})`'
        self.suggestions += 1
        if self.suggestions <= _SUGGESTIONS_MAX:
            visible: set[str] = set(names.GLOBAL_NAMES)
            scope: Scope | None = self.scope
            while scope is not None:
                visible.update(itertools.islice(scope.bindings, _VISIBLE_MAX))
                scope = scope.parent
            similar = closest(name, visible)
            if similar:
                return f"did you mean `{similar}`?"
        if called == "new":
            return "`new` is for Error kinds, Map, Set, Date and Promise; call a function that returns an object"
        if called:
            return f'declare a function of this name; a task is called by `task("{name}", {{ … }})`'
        return "declare it with `let` or `const`"

    # --- functions ----------------------------------------------------------------------------------------------------

    def visit_function_node(self, node: nodes.FunctionNode, name: str) -> None:
        own_name = node.id if isinstance(node, nodes.FunctionExpression) else None
        if own_name is None:
            node.info = FunctionInfo(node, self.info, name, node.is_async)
            node.scope = self.visit_function(node.info, node.params, node.body)
            return
        assert isinstance(node, nodes.FunctionExpression), "only these have names of their own"
        node.info = FunctionInfo(node, self.info, own_name.name, node.is_async)
        with self.new_scope("function-name") as scope:
            scope.function = node.info
            node.name_scope = scope
            binding = Binding(own_name.name, "function-name", scope, node.info, own_name)
            binding.initialised_at = self.tick()
            scope.bindings[own_name.name] = binding
            own_name.binding = binding
            node.scope = self.visit_function(node.info, node.params, node.body)

    def visit_function(
        self, info: FunctionInfo, params: list[nodes.Pattern], body: nodes.BlockStatement | nodes.Expression
    ) -> Scope:
        outer = (self.info, self.loop_depth, self.cases)
        self.info, self.loop_depth, self.cases = info, 0, ()
        self.functions.append(info)
        try:
            with self.new_scope("params") as scope:
                for name in nodes.pattern_names(params):
                    self.declare(name, "param")
                simple = all(isinstance(param, nodes.Identifier) for param in params)
                for param in params:
                    if simple:
                        self.initialise(param)
                for param in params:
                    if not simple:
                        self.initialise(param)
                if isinstance(body, nodes.BlockStatement):
                    self.block(body, "body")
                else:
                    self.expression(body)
            return scope
        finally:
            self.info, self.loop_depth, self.cases = outer

    # --- statements ---------------------------------------------------------------------------------------------------

    def block(self, node: nodes.BlockStatement, kind: ScopeKind = "block") -> None:
        with self.new_scope(kind) as scope:
            node.scope = scope
            self.declare_list(node.body)
            self.hoist(scope)
            self.statements(node.body)

    def statements(self, body: list[nodes.Statement]) -> None:
        self.check_reachable(body)
        for item in body:
            self.statement(item)

    @contextmanager
    def looping(self) -> Iterator[None]:
        self.loop_depth += 1
        try:
            yield
        finally:
            self.loop_depth -= 1

    def statement(self, node: nodes.Statement | None) -> None:
        while isinstance(node, nodes.IfStatement):
            self.condition(node.test)
            self.statement(node.consequent)
            node = node.alternate
        if node is None:
            return
        method = _STATEMENTS.get(node.__class__)
        if method is not None:
            getattr(self, method)(node)

    def condition(self, test: nodes.Expression) -> None:
        self.expression(test)
        self.check_condition(test)

    def expression_statement(self, node: nodes.ExpressionStatement) -> None:
        self.expression(node.expression)

    def variable_declaration(self, node: nodes.VariableDeclaration) -> None:
        for declarator in node.declarations:
            name = declarator.id.name if isinstance(declarator.id, nodes.Identifier) else ""
            if declarator.init is not None:
                self.expression(declarator.init, name)
                self.check_taken_apart(declarator.id, declarator.init)
            self.initialise(declarator.id)

    def return_statement(self, node: nodes.ReturnStatement) -> None:
        if node.argument is not None:
            self.expression(node.argument)

    def throw_statement(self, node: nodes.ThrowStatement) -> None:
        self.expression(node.argument)

    def for_statement(self, node: nodes.ForStatement) -> None:
        with self.new_scope("for") as scope:
            node.scope = scope
            if isinstance(node.init, nodes.VariableDeclaration):
                self.declare_variables(node.init)
                scope.copied_per_round = node.init.kind == "let"
                self.variable_declaration(node.init)
            elif node.init is not None:
                self.expression(node.init)
            with self.looping():
                for binding in scope.bindings.values():
                    binding.loop_fresh = True
                if node.test is not None:
                    self.condition(node.test)
                self.statement(node.body)
                if node.update is not None:
                    self.expression(node.update)

    def for_each(self, node: nodes.ForOfStatement | nodes.ForInStatement) -> None:
        left = node.left
        if not isinstance(left, nodes.VariableDeclaration):
            self.expression(node.right)
            self.check_data_use(node.right)
            with self.looping():
                self.assign_to(left)
                self.statement(node.body)
            return
        # The names exist while the right side is evaluated, but cannot be used there.
        with self.new_scope("for") as head:
            node.head_scope = head
            outer_bindings = len(self.info.bindings)
            self.declare_variables(left)
            self.expression(node.right)
            self.check_data_use(node.right)
            del self.info.bindings[outer_bindings:]
        with self.looping(), self.new_scope("for") as scope:
            node.scope = scope
            self.declare_variables(left)
            self.variable_declaration(left)
            self.statement(node.body)

    def while_statement(self, node: nodes.WhileStatement) -> None:
        with self.looping():
            self.condition(node.test)
            self.statement(node.body)

    def do_statement(self, node: nodes.DoWhileStatement) -> None:
        with self.looping():
            self.statement(node.body)
            self.condition(node.test)

    def try_statement(self, node: nodes.TryStatement) -> None:
        self.block(node.block)
        if node.handler is not None:
            with self.new_scope("catch") as scope:
                node.handler.scope = scope
                if node.handler.param is not None:
                    for name in nodes.pattern_names([node.handler.param]):
                        self.declare(name, "catch")
                    self.initialise(node.handler.param)
                self.block(node.handler.body)
        if node.finalizer is not None:
            self.block(node.finalizer)

    def switch_statement(self, node: nodes.SwitchStatement) -> None:
        self.expression(node.discriminant)
        self.check_data_use(node.discriminant)
        self.check_cases(node)
        outer = self.cases
        with self.new_scope("switch") as scope:
            node.scope = scope
            for case in node.cases:
                self.cases = (*outer, case)
                self.declare_list(case.consequent)
            self.cases = outer
            self.hoist(scope)
            for case in node.cases:
                if case.test is not None:
                    self.expression(case.test)
            for case in node.cases:
                self.cases = (*outer, case)
                self.statements(case.consequent)
        self.cases = outer

    def labeled_statement(self, node: nodes.LabeledStatement) -> None:
        self.statement(node.body)

    def stray_workflow(self, node: nodes.WorkflowDeclaration) -> None:
        self.visit_workflow(node)

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, node: nodes.Node, name: str = "") -> None:
        """Visits an expression; ``name`` is that of the variable or property it becomes, for functions."""
        if isinstance(node, nodes.Identifier):
            self.read(node)
            return
        if isinstance(node, nodes.FunctionExpression | nodes.ArrowFunctionExpression):
            if isinstance(node, nodes.ArrowFunctionExpression):
                self.check_arrow(node)
            self.visit_function_node(node, name)
            return
        method = _EXPRESSIONS.get(node.__class__)
        if method is not None:
            getattr(self, method)(node)

    def binary(self, node: nodes.BinaryExpression | nodes.LogicalExpression) -> None:
        chain: list[nodes.BinaryExpression | nodes.LogicalExpression] = [node]
        while isinstance(chain[-1].left, nodes.BinaryExpression | nodes.LogicalExpression):
            chain.append(chain[-1].left)
        self.expression(chain[-1].left)
        for item in reversed(chain):
            self.expression(item.right)
            if isinstance(item, nodes.BinaryExpression):
                self.check_binary(item)
            else:
                self.check_logical(item)

    def chain(self, node: nodes.Expression) -> None:
        """Members, calls and optional chains, however long."""
        links: list[nodes.Expression] = []
        current = node
        while True:
            links.append(current)
            if isinstance(current, nodes.MemberExpression):
                current = current.object
            elif isinstance(current, nodes.CallExpression):
                current = current.callee
            elif isinstance(current, nodes.ChainExpression):
                current = current.expression
            else:
                break
        if links[-1] is not node:
            base = links.pop()
            if isinstance(base, nodes.Identifier):
                self.read(base, called="call" if isinstance(links[-1], nodes.CallExpression) else "")
            else:
                self.expression(base)
        for link in reversed(links):
            if isinstance(link, nodes.MemberExpression):
                if link.computed:
                    self.expression(link.property)
                self.check_member(link)
            elif isinstance(link, nodes.CallExpression):
                if link.arguments and self.global_name(link.callee) in names.NAMED_FUNCTIONS:
                    self.name_argument = link.arguments[0]
                for argument in link.arguments:
                    self.spread_or_expression(argument)
                self.check_call(link)

    def member(self, node: nodes.MemberExpression) -> None:
        self.chain(node)

    def spread_or_expression(self, node: nodes.Node) -> None:
        self.expression(node.argument if isinstance(node, nodes.SpreadElement) else node)
        if isinstance(node, nodes.SpreadElement):
            self.check_data_use(node.argument)

    def template(self, node: nodes.TemplateLiteral) -> None:
        for part in node.expressions:
            self.expression(part)
            self.check_data_use(part)

    def array(self, node: nodes.ArrayExpression) -> None:
        for element in node.elements:
            self.spread_or_expression(element)

    def object(self, node: nodes.ObjectExpression) -> None:
        for item in node.properties:
            if isinstance(item, nodes.SpreadElement):
                self.spread_or_expression(item)
                continue
            if item.computed:
                self.expression(item.key)
            key = item.key
            name = (
                ""
                if item.computed
                else key.name
                if isinstance(key, nodes.Identifier)
                else str(getattr(key, "value", ""))
            )
            self.expression(item.value, name)

    def unary(self, node: nodes.UnaryExpression) -> None:
        if node.operator == "typeof" and isinstance(node.argument, nodes.Identifier):
            self.read(node.argument, typeof=True)
            return
        self.expression(node.argument)
        if node.operator == "!":
            self.check_condition(node.argument)
        elif node.operator in ("-", "+", "~"):
            self.check_data_use(node.argument)

    def update(self, node: nodes.UpdateExpression) -> None:
        if isinstance(node.argument, nodes.Identifier):
            self.write(node.argument)
            if node.argument.binding is not None:
                node.argument.binding.reads += 1
        else:
            self.expression(node.argument)

    def assignment(self, node: nodes.AssignmentExpression) -> None:
        left = node.left
        name = left.name if isinstance(left, nodes.Identifier) else ""
        if node.operator != "=":
            if isinstance(left, nodes.Identifier):
                self.read(left)
            self.assign_to(left)
            self.expression(node.right, name)
        elif isinstance(left, nodes.Identifier):
            self.expression(node.right, name)
            self.assign_to(left)
        elif isinstance(left, nodes.MemberExpression):
            self.assign_to(left)
            self.expression(node.right)
        else:
            self.expression(node.right)
            self.check_taken_apart(left, node.right)
            self.assign_to(left)

    def conditional(self, node: nodes.ConditionalExpression) -> None:
        self.condition(node.test)
        self.expression(node.consequent)
        self.expression(node.alternate)

    def new(self, node: nodes.NewExpression) -> None:
        if isinstance(node.callee, nodes.Identifier):
            self.read(node.callee, called="new")
        else:
            self.expression(node.callee)
        for argument in node.arguments:
            self.spread_or_expression(argument)
        self.check_new(node)

    def sequence(self, node: nodes.SequenceExpression) -> None:
        for part in node.expressions:
            self.expression(part)

    def await_expression(self, node: nodes.AwaitExpression) -> None:
        self.info.contains_await = True
        self.expression(node.argument)


_STATEMENTS: Final[dict[type[nodes.Node], str]] = {
    nodes.BlockStatement: "block",
    nodes.ExpressionStatement: "expression_statement",
    nodes.VariableDeclaration: "variable_declaration",
    nodes.ReturnStatement: "return_statement",
    nodes.ThrowStatement: "throw_statement",
    nodes.ForStatement: "for_statement",
    nodes.ForOfStatement: "for_each",
    nodes.ForInStatement: "for_each",
    nodes.WhileStatement: "while_statement",
    nodes.DoWhileStatement: "do_statement",
    nodes.TryStatement: "try_statement",
    nodes.SwitchStatement: "switch_statement",
    nodes.LabeledStatement: "labeled_statement",
    nodes.WorkflowDeclaration: "stray_workflow",
}
_EXPRESSIONS: Final[dict[type[nodes.Node], str]] = {
    nodes.TemplateLiteral: "template",
    nodes.ArrayExpression: "array",
    nodes.ObjectExpression: "object",
    nodes.UnaryExpression: "unary",
    nodes.UpdateExpression: "update",
    nodes.BinaryExpression: "binary",
    nodes.LogicalExpression: "binary",
    nodes.AssignmentExpression: "assignment",
    nodes.ConditionalExpression: "conditional",
    nodes.MemberExpression: "chain",
    nodes.CallExpression: "chain",
    nodes.ChainExpression: "chain",
    nodes.NewExpression: "new",
    nodes.SequenceExpression: "sequence",
    nodes.AwaitExpression: "await_expression",
}
