"""Statements: scopes, loops, jumps, switch, and finally.

``finally`` becomes a completion record of two slots: what to do after the finalizer (0: go on, 1: throw, 2: return,
from 3: one of the jumps that leave the ``try``) and the value thrown or returned. A jump that leaves a ``try`` with a
finalizer stores its number and breaks to the finalizer; behind it the jump is made again, from there.

``switch`` becomes the number of the first body to run, found by testing the cases in order, and then the bodies one
after the other, each skipped while its number is too small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rhythm.language import nodes
from rhythm.language.ir import Node
from rhythm.language.lower_patterns import PatternLowering
from rhythm.language.lower_texts import text_of, text_of_iterable, text_of_pattern_value
from rhythm.language.nodes import Scope

_GO_ON: Final = 0.0
_THROW: Final = 1.0
_RETURN: Final = 2.0
_FIRST_JUMP: Final = 3


@dataclass(slots=True, eq=False)
class Target:
    """A statement that break or continue may name."""

    names: tuple[str, ...]
    break_label: int
    continue_label: int | None = None  #: loops only
    plain_break: bool = False  #: loops and switches: break without a label means it


@dataclass(slots=True, eq=False)
class Finally:
    """A try whose finalizer jumps out of it must run."""

    label: int
    kind_slot: int
    value_slot: int
    returns: bool = False
    jumps: list[tuple[str, Target]] = field(default_factory=list)


class StatementLowering(PatternLowering):
    """Statements of one function."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.targets: list[Target | Finally] = []
        self.pending_names: tuple[str, ...] = ()

    # --- scopes -------------------------------------------------------------------------------------------------------

    def enter(self, scope: Scope) -> None:
        """Makes the slots of a scope's names, the cells that must exist from its beginning, and its functions."""
        fresh: list[int] = []
        marked: list[int] = []
        for binding in scope.bindings.values():
            if binding.kind == "function-name":
                continue
            slot = self.slot_of.get(binding)
            if slot is None:
                slot = self.allocate(binding)
            if slot in self.cells:
                if binding.needs_tdz or binding.kind == "function":
                    fresh.append(slot)
            elif binding.needs_tdz:
                marked.append(slot)
        if fresh:
            self.emit("fresh", fresh)
        if marked:
            self.emit("tdz", marked)
        for function in scope.functions:
            declared = function.id.binding
            assert declared is not None, "declared functions are bound"
            self.emit("set", self.variable(declared), self.closure(function), self.position(function))

    def statements(self, body: list[nodes.Statement]) -> None:
        for item in body:
            self.statement(item)

    def statement(self, node: nodes.Statement) -> None:
        method = _METHODS.get(node.__class__)
        if method is not None:
            getattr(self, method)(node)

    def body_of(self, node: nodes.Statement) -> list[Node]:
        return self.collect(lambda: self.statement(node))

    def take_names(self) -> tuple[str, ...]:
        names, self.pending_names = self.pending_names, ()
        return names

    # --- plain statements ---------------------------------------------------------------------------------------------

    def expression_statement(self, node: nodes.ExpressionStatement) -> None:
        self.discard(node.expression)

    def block(self, node: nodes.BlockStatement) -> None:
        assert node.scope is not None, "blocks are resolved"
        names = self.take_names()
        if names:
            self.labelled(names, node, lambda: self.block_inside(node))
        else:
            self.block_inside(node)

    def block_inside(self, node: nodes.BlockStatement) -> None:
        assert node.scope is not None, "blocks are resolved"
        self.enter(node.scope)
        self.statements(node.body)

    def labelled(self, names: tuple[str, ...], node: nodes.Node, fill: Any) -> None:
        label = self.new_label()
        self.targets.append(Target(names, label))
        body = self.collect(fill)
        self.targets.pop()
        self.emit("block", label, body)

    def variable_declaration(self, node: nodes.VariableDeclaration) -> None:
        for declarator in node.declarations:
            target = declarator.id
            if declarator.init is None:
                if isinstance(target, nodes.Identifier):
                    self.initialise(target, ["undefined"])
                continue
            value = self.expression(declarator.init)
            if isinstance(target, nodes.Identifier):
                self.initialise(target, value)
            else:
                is_array = isinstance(target, nodes.ArrayPattern)
                text = text_of_pattern_value(declarator.init) if is_array else text_of(declarator.init)
                self.declare_pattern(target, value, text)

    def function_declaration(self, node: nodes.FunctionDeclaration) -> None:
        """Made at the scope's entry."""

    def if_statement(self, node: nodes.IfStatement) -> None:
        names = self.take_names()
        if names:
            self.labelled(names, node, lambda: self.if_statement(node))
            return
        arms: list[Any] = []
        position = self.position(node)
        current: nodes.Statement | None = node
        while isinstance(current, nodes.IfStatement):
            if arms and self.needs_statements(current.test):
                break
            test = self.expression(current.test)
            arms.append([test, self.body_of(current.consequent)])
            current = current.alternate
        rest = self.body_of(current) if current is not None else []
        self.emit("if", arms, rest, position)

    def return_statement(self, node: nodes.ReturnStatement) -> None:
        value: Node = ["undefined"] if node.argument is None else self.expression(node.argument)
        self.leave_by_return(value, self.position(node))

    def throw_statement(self, node: nodes.ThrowStatement) -> None:
        self.emit("throw", self.expression(node.argument), self.position(node))

    def labeled_statement(self, node: nodes.LabeledStatement) -> None:
        self.pending_names = (*self.pending_names, node.label.name)
        if isinstance(node.body, _TAKES_NAMES):
            self.statement(node.body)
        else:
            names = self.take_names()
            self.labelled(names, node, lambda: self.statement(node.body))

    # --- jumps --------------------------------------------------------------------------------------------------------

    def break_statement(self, node: nodes.BreakStatement) -> None:
        self.jump("break", self.find(node.label, loop=False))

    def continue_statement(self, node: nodes.ContinueStatement) -> None:
        self.jump("continue", self.find(node.label, loop=True))

    def find(self, label: nodes.Identifier | None, *, loop: bool) -> Target:
        for target in reversed(self.targets):
            if not isinstance(target, Target):
                continue
            if label is not None:
                if label.name in target.names:
                    return target
            elif target.continue_label is not None if loop else target.plain_break:
                return target
        raise AssertionError("the parser has checked that jumps have targets")

    def jump(self, kind: str, target: Target) -> None:
        for outer in reversed(self.targets):
            if outer is target:
                break
            if isinstance(outer, Finally):
                if (kind, target) not in outer.jumps:
                    outer.jumps.append((kind, target))
                number = float(_FIRST_JUMP + outer.jumps.index((kind, target)))
                self.emit("set", ["slot", outer.kind_slot], ["number", number], 0)
                self.emit("break", outer.label)
                return
        if kind == "break":
            self.emit("break", target.break_label)
        else:
            self.emit("continue", target.continue_label)

    def leave_by_return(self, value: Node, position: int) -> None:
        for outer in reversed(self.targets):
            if isinstance(outer, Finally):
                outer.returns = True
                self.emit("set", ["slot", outer.value_slot], value, position)
                self.emit("set", ["slot", outer.kind_slot], ["number", _RETURN], position)
                self.emit("break", outer.label)
                return
        self.emit("return", value, position)

    # --- try ----------------------------------------------------------------------------------------------------------

    def try_statement(self, node: nodes.TryStatement) -> None:
        names = self.take_names()
        if names:
            self.labelled(names, node, lambda: self.try_statement(node))
            return
        if node.finalizer is None:
            self.try_catch(node)
            return
        position = self.position(node)
        record = Finally(self.new_label(), self.new_slot(""), self.new_slot(""))
        self.temporaries -= {record.kind_slot, record.value_slot}
        self.emit("set", ["slot", record.kind_slot], ["number", _GO_ON], position)
        self.emit("set", ["slot", record.value_slot], ["undefined"], position)
        self.targets.append(record)
        inside = self.try_catch if node.handler is not None else self.try_block
        body = self.collect(lambda: inside(node))
        self.targets.pop()
        caught = self.new_slot("")
        handler = [
            ["set", ["slot", record.value_slot], ["slot", caught], position],
            ["set", ["slot", record.kind_slot], ["number", _THROW], position],
        ]
        self.emit("block", record.label, [["try", body, caught, handler]])
        self.block(node.finalizer)
        self.dispatch(record, position)

    def try_block(self, node: nodes.TryStatement) -> None:
        self.block(node.block)

    def try_catch(self, node: nodes.TryStatement) -> None:
        clause = node.handler
        assert clause is not None and clause.scope is not None, "there is a handler, and it is resolved"
        scope = clause.scope
        body = self.collect(lambda: self.block(node.block))
        caught = self.new_slot("")

        def handle() -> None:
            self.enter(scope)
            if clause.param is not None:
                text = ".catch" if isinstance(clause.param, nodes.ObjectPattern) else None  # V8's name of such a value
                self.declare_pattern(clause.param, ["slot", caught], text)
            self.block(clause.body)

        self.emit("try", body, caught, self.collect(handle))

    def dispatch(self, record: Finally, position: int) -> None:
        """What to do after a finalizer."""

        def is_kind(number: float) -> Node:
            return ["binary", "===", ["slot", record.kind_slot], ["number", number]]

        value: Node = ["slot", record.value_slot]
        arms: list[Any] = [[is_kind(_THROW), [["throw", value, position]]]]
        if record.returns:
            arms.append([is_kind(_RETURN), self.collect(lambda: self.leave_by_return(value, position))])
        for index, (kind, target) in enumerate(record.jumps):
            leave = self.collect(lambda kind=kind, target=target: self.jump(kind, target))  # type: ignore[misc]  # bound now
            arms.append([is_kind(float(_FIRST_JUMP + index)), leave])
        self.emit("if", arms, [], position)

    # --- loops --------------------------------------------------------------------------------------------------------

    def loop_target(self) -> Target:
        label = self.new_label()
        return Target(self.take_names(), label, label, plain_break=True)

    def loop_body(self, target: Target, node: nodes.Statement) -> list[Node]:
        self.targets.append(target)
        body = self.body_of(node)
        self.targets.pop()
        return body

    def leave_unless(self, test: nodes.Expression, target: Target) -> None:
        value = self.expression(test)
        self.emit("if", [[["unary", "!", value], [["break", target.break_label]]]], [], self.position(test))

    def while_statement(self, node: nodes.WhileStatement) -> None:
        target = self.loop_target()
        position = self.position(node)
        if not self.needs_statements(node.test):
            test = self.expression(node.test)
            self.emit("loop", target.break_label, test, self.loop_body(target, node.body), [], position)
            return
        head = self.collect(lambda: self.leave_unless(node.test, target))
        body = self.loop_body(target, node.body)
        self.emit("loop", target.break_label, None, [*head, *body], [], position)

    def do_statement(self, node: nodes.DoWhileStatement) -> None:
        target = self.loop_target()
        body = self.loop_body(target, node.body)
        update = self.collect(lambda: self.leave_unless(node.test, target))
        self.emit("loop", target.break_label, None, body, update, self.position(node))

    def for_statement(self, node: nodes.ForStatement) -> None:
        assert node.scope is not None, "loops are resolved"
        target = self.loop_target()
        position = self.position(node)
        self.enter(node.scope)
        if isinstance(node.init, nodes.VariableDeclaration):
            self.variable_declaration(node.init)
        elif node.init is not None:
            self.discard(node.init)
        copied = []
        if node.scope.copied_per_round:
            copied = [self.slot_of[binding] for binding in node.scope.bindings.values() if binding.captured]
        if copied:
            self.emit("copy", copied)
        test: Node | None = None
        head: list[Node] = []
        if node.test is not None:
            if self.needs_statements(node.test):
                tested = node.test
                head = self.collect(lambda: self.leave_unless(tested, target))
            else:
                test = self.expression(node.test)
        body = self.loop_body(target, node.body)
        update: list[Node] = [["copy", copied]] if copied else []
        if node.update is not None:
            step = node.update
            update += self.collect(lambda: self.discard(step))
        self.emit("loop", target.break_label, test, [*head, *body], update, position)

    def for_of(self, node: nodes.ForOfStatement) -> None:
        target = self.loop_target()
        position = self.position(node)
        self.enter_head(node)
        iterable = self.expression(node.right)
        text = None if isinstance(node.right, nodes.ChainExpression) else text_of_iterable(node.right)
        slot = self.new_slot("")
        body = self.round(node, target, slot)
        if not _contains_await(body):
            self.emit("for_of", target.break_label, slot, iterable, text, body, position)
            return
        self.emit_iterator(target, slot, ["iterator", iterable, text, position], body, position)

    def enter_head(self, node: nodes.ForOfStatement | nodes.ForInStatement) -> None:
        """The declared names exist while the right side is evaluated, and throw there."""
        if node.head_scope is not None and any(b.needs_tdz for b in node.head_scope.bindings.values()):
            self.enter(node.head_scope)

    def emit_iterator(self, target: Target, slot: int, iterator: Node, body: list[Node], position: int) -> None:
        held = self.new_slot("")
        self.emit("set", ["slot", held], iterator, position)
        self.emit("loop", target.break_label, ["iter_step", held, slot], body, [], position)

    def for_in(self, node: nodes.ForInStatement) -> None:
        target = self.loop_target()
        position = self.position(node)
        self.enter_head(node)
        owner = self.spill_always(self.expression(node.right), node.right)
        slot = self.new_slot("")
        skip = [
            "if",
            [[["unary", "!", ["for_in_has", owner[1], slot]], [["continue", target.continue_label]]]],
            [],
            position,
        ]
        body = [skip, *self.round(node, target, slot)]
        keys: Node = ["for_in_keys", owner]
        if _contains_await(body):
            self.emit_iterator(target, slot, ["iterator", keys, None, position], body, position)
        else:
            self.emit("for_of", target.break_label, slot, keys, None, body, position)

    def round(self, node: nodes.ForOfStatement | nodes.ForInStatement, target: Target, slot: int) -> list[Node]:
        """The body of one round: the value goes to its names, then the statements."""

        def fill() -> None:
            value: Node = ["slot", slot]
            if isinstance(node.left, nodes.VariableDeclaration):
                assert node.scope is not None, "loops are resolved"
                self.enter(node.scope)
                self.declare_pattern(node.left.declarations[0].id, value, ".for")  # V8's name of such a value
            else:
                self.assign_pattern(node.left, value, None, nested=True)
            self.statement(node.body)

        self.targets.append(target)
        body = self.collect(fill)
        self.targets.pop()
        return body

    # --- switch -------------------------------------------------------------------------------------------------------

    def switch_statement(self, node: nodes.SwitchStatement) -> None:
        assert node.scope is not None, "switches are resolved"
        names = self.take_names()
        label = self.new_label()
        target = Target(names, label, None, plain_break=True)
        value = self.spill(self.expression(node.discriminant), node.discriminant)
        scope = node.scope
        self.targets.append(target)

        def fill() -> None:
            self.enter(scope)
            first = self.new_slot("")
            self.temporaries.discard(first)
            default = next((index for index, case in enumerate(node.cases) if case.test is None), len(node.cases))
            self.choose_case(node, value, first, default)
            for index, case in enumerate(node.cases):
                body = self.collect(lambda case=case: self.statements(case.consequent))  # type: ignore[misc]  # bound now
                if body:
                    reached: Node = ["binary", "<=", ["slot", first], ["number", float(index)]]
                    self.emit("if", [[reached, body]], [], self.position(case))

        body = self.collect(fill)
        self.targets.pop()
        self.emit("block", label, body)

    def choose_case(self, node: nodes.SwitchStatement, value: Node, first: int, default: int) -> None:
        tests = [(index, case) for index, case in enumerate(node.cases) if case.test is not None]
        if not any(case.test is not None and self.needs_statements(case.test) for _, case in tests):
            arms = []
            for index, case in tests:
                assert case.test is not None, "filtered above"
                matches: Node = ["binary", "===", value, self.expression(case.test)]
                arms.append([matches, [["set", ["slot", first], ["number", float(index)], self.position(case)]]])
            otherwise: Node = ["set", ["slot", first], ["number", float(default)], self.position(node)]
            if arms:
                self.emit("if", arms, [otherwise], self.position(node))
            else:
                self.out.append(otherwise)
            return
        found = self.new_label()

        def fill() -> None:
            for index, case in tests:
                assert case.test is not None, "filtered above"
                matches: Node = ["binary", "===", value, self.expression(case.test)]
                arm = [["set", ["slot", first], ["number", float(index)], self.position(case)], ["break", found]]
                self.emit("if", [[matches, arm]], [], self.position(case))
            self.emit("set", ["slot", first], ["number", float(default)], self.position(node))

        self.emit("block", found, self.collect(fill))


def _contains_await(body: list[Node]) -> bool:
    """Whether an await statement is among the statements, at any depth."""
    rest: list[Any] = [body]
    while rest:
        item = rest.pop()
        if item and isinstance(item, list):
            if item[0] == "await":
                return True
            rest.extend(part for part in item if part.__class__ is list)
    return False


_TAKES_NAMES: Final = (
    nodes.BlockStatement,
    nodes.ForStatement,
    nodes.ForOfStatement,
    nodes.ForInStatement,
    nodes.WhileStatement,
    nodes.DoWhileStatement,
    nodes.SwitchStatement,
    nodes.TryStatement,
    nodes.IfStatement,
    nodes.LabeledStatement,
)
_METHODS: Final[dict[type[nodes.Node], str]] = {
    nodes.ExpressionStatement: "expression_statement",
    nodes.BlockStatement: "block",
    nodes.VariableDeclaration: "variable_declaration",
    nodes.FunctionDeclaration: "function_declaration",
    nodes.ReturnStatement: "return_statement",
    nodes.IfStatement: "if_statement",
    nodes.ForStatement: "for_statement",
    nodes.ForOfStatement: "for_of",
    nodes.ForInStatement: "for_in",
    nodes.WhileStatement: "while_statement",
    nodes.DoWhileStatement: "do_statement",
    nodes.BreakStatement: "break_statement",
    nodes.ContinueStatement: "continue_statement",
    nodes.ThrowStatement: "throw_statement",
    nodes.TryStatement: "try_statement",
    nodes.SwitchStatement: "switch_statement",
    nodes.LabeledStatement: "labeled_statement",
}
