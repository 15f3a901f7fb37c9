"""Tokens to syntax tree: statements, patterns and the shape of a file. Expressions are in ``parser_expressions``.

Recursive descent for statements, precedence climbing for expressions. There is no cover grammar: bracket pairs are
matched beforehand, so one look behind the matching bracket tells an arrow function's parameters or a destructuring
assignment from an expression.

Semicolons are inserted as ECMAScript says: before a token that cannot go on, when a line break or ``}`` stands before
it, at the end, and after ``do … while (…)``; ``return``, ``break``, ``continue``, ``throw``, ``++``, ``--`` and ``=>``
do not reach across a line break. A line that begins like a continuation and is one gets a warning.

Tolerant: a problem inside a statement is reported, the statement becomes an ErrorNode, and parsing goes on at the
next token that can begin a statement. It never raises for any text, and every step consumes a token.

Early errors of strict mode that need no names are found here; those about names in the resolver.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rhythm.language import nodes
from rhythm.language.diagnostics import Diagnostic, Report, closest
from rhythm.language.guesses import TYPESCRIPT, TYPESCRIPT_STATEMENTS, unclosed_block
from rhythm.language.lexer import tokenize
from rhythm.language.nodes import STATEMENT_NESTING_MAX
from rhythm.language.parser_expressions import ExpressionParser
from rhythm.language.parser_tokens import ParseError
from rhythm.language.recursion import recursion_room
from rhythm.language.tokens import BAD, END, NAME, PUNCTUATOR, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE_LENGTH_MAX: Final = 256 * 1024  #: characters of one file

_LOOP: Final = "write `for (const item of list) { … }`"
_STATEMENT_WORDS: Final = frozenset(
    "let const var function async if for while do switch try return throw break continue class import export workflow "
    "debugger with".split()
)


@dataclass(frozen=True, slots=True)
class ParseResult:
    """The tree of a file, and what is wrong with it."""

    program: nodes.File
    diagnostics: list[Diagnostic]


def parse(source: str, filename: str) -> ParseResult:
    """Parses a file. Never raises; a tree with an ErrorNode comes with an error diagnostic."""
    report = Report(source, filename)
    return ParseResult(parse_into(report), report.diagnostics)


def parse_into(report: Report) -> nodes.File:
    """Parses the report's source; problems go to the report."""
    if len(report.source) > SOURCE_LENGTH_MAX:
        report.error("F111", f"a flow file has at most {SOURCE_LENGTH_MAX:,} characters", 0, 0, "move work into tasks")
        return nodes.File(0, len(report.source), [])
    tokens = tokenize(report)
    with recursion_room():
        return Parser(report, tokens).file()


class Parser(ExpressionParser):
    """The statements; see the module's text."""

    def __init__(self, report: Report, tokens: list[Token]) -> None:
        super().__init__(report, tokens)
        self.labels: list[tuple[str, bool]] = []  # name, whether it labels a loop
        self.in_loop = False
        self.in_switch = False
        self.statement_depth = 0

    # --- file ---------------------------------------------------------------------------------------------------------

    def file(self) -> nodes.File:
        body: list[nodes.Statement] = []
        if self.at_punctuator("```") or self.report.source.lstrip().startswith("```"):
            self.report.error(
                "F406",
                "front matter between triple backticks is not supported",
                0,
                3,
                "pass options where you start it",
            )
        while self.token.kind != END:
            before = self.index
            if self.token.kind == PUNCTUATOR and self.token.value in (")", "]", "}"):
                self.stray_bracket()
                continue
            body.append(self.guarded(self.top_level_item))
            if self.index == before:
                self.advance()
        return nodes.File(0, len(self.report.source), body)

    def stray_bracket(self) -> None:
        """Goes on behind a bracket that closes nothing; where another mistake stands before it, that is why."""
        token = self.token
        if not self.report.has_error("F1"):
            hint = "remove it, or look for the bracket that is missing before"
            self.report.error("F101", "this bracket closes nothing", token.start, token.end, hint)
        self.report.unbalanced = True
        self.advance()

    def top_level_item(self) -> nodes.Statement:
        token = self.token
        if token.kind == NAME and token.value == "workflow":
            after = self.peek()
            if after.kind == PUNCTUATOR and after.value == "(":
                self.advance()
                return self.workflow(token.start)
        if token.kind == NAME and token.value == "async":
            function, name = self.peek(), self.peek(2)
            if function.value == "function" and not function.newline and name.kind == NAME and name.value == "workflow":
                self.advance()
                self.advance()
                self.advance()
                return self.workflow(token.start)
        return self.statement(declaration=True)

    def workflow(self, start: int) -> nodes.WorkflowDeclaration:
        params, body = self.function_rest(is_async=True)
        return nodes.WorkflowDeclaration(start, body.end, params, body)

    # --- statements ---------------------------------------------------------------------------------------------------

    def guarded(self, parse_one: object) -> nodes.Statement:
        """Parses one statement; after a problem goes on behind it."""
        start = self.token.start
        first = self.index
        depth = self.expression_depth
        try:
            return parse_one()  # type: ignore[operator,no-any-return]  # one of our own bound methods
        except ParseError:
            self.expression_depth = depth
            self.resynchronise(first)
            names = frozenset(
                str(t.value) for t in self.tokens[first : self.index] if t.kind == NAME and isinstance(t.value, str)
            )
            end = self.tokens[max(first, self.index - 1)].end
            return nodes.ErrorNode(start, max(end, start), names)

    def resynchronise(self, first: int) -> None:
        """Moves to where a statement may begin: behind a semicolon, or at a statement's word on a new line."""
        if self.index == first:
            self.advance()
        inside = (i for i in range(first, self.index) if self.matching[i] >= self.index)
        # A semicolon ends the statement all the same, unless it stands for a comma: {a: 1; b: 2}
        ends = self.at_punctuator(";") and self.peek().newline
        opened = None if ends else next(inside, None)
        if opened is not None:  # the problem is inside brackets that this statement opened: go on behind them
            self.jump(self.matching[opened])
            self.advance()
        while self.token.kind != END:
            token = self.token
            if token.kind == PUNCTUATOR:
                if token.value == ";":
                    self.advance()
                    return
                if token.value == "}":
                    return
                if token.value in ("{", "(", "[") and self.matching[self.index] > self.index:
                    inside_new_line = token.newline and token.value == "{"
                    if inside_new_line:
                        return
                    self.jump(self.matching[self.index])
            elif token.kind == NAME and token.newline and token.value in _STATEMENT_WORDS:
                return
            self.advance()

    def statement_list(self) -> list[nodes.Statement]:
        body: list[nodes.Statement] = []
        while not self.at_punctuator("}") and self.token.kind != END:
            before = self.index
            body.append(self.guarded(self.list_item))
            if self.index == before:
                self.advance()
        return body

    def list_item(self) -> nodes.Statement:
        return self.statement(declaration=True)

    def substatement(self, what: str) -> nodes.Statement:
        """A statement where a declaration may not stand."""
        token = self.token
        result = self.statement(declaration=False)
        if isinstance(result, nodes.VariableDeclaration | nodes.FunctionDeclaration):
            self.report.error(
                "F119", f"a declaration cannot be the body of {what}", token.start, token.end, "put it into { … }"
            )
        return result

    def statement(self, *, declaration: bool) -> nodes.Statement:
        self.statement_depth += 1
        if self.statement_depth > STATEMENT_NESTING_MAX * 2:
            self.statement_depth -= 1
            raise self.fail(
                "F110", f"blocks nest at most {STATEMENT_NESTING_MAX} deep", hint="move the inner part into a function"
            )
        outer_start, self.statement_start = self.statement_start, self.token.start
        try:
            return self.statement_inside()
        finally:
            self.statement_depth -= 1
            self.statement_start = outer_start

    def statement_inside(self) -> nodes.Statement:
        token = self.token
        if token.kind == PUNCTUATOR:
            if token.value == "{":
                return self.block()
            if token.value == ";":
                self.advance()
                return nodes.EmptyStatement(token.start, token.end)
            if token.value == "@":
                raise self.fail("F218", "decorators are not supported", hint="call a function")
        elif token.kind == NAME:
            following = self.peek()
            if (
                token.value in TYPESCRIPT_STATEMENTS
                and following.kind == NAME
                and not following.newline
                and following.value not in ("in", "instanceof")
            ):
                raise self.fail("F221", TYPESCRIPT, hint="leave this out: flows are JavaScript, without types")
            method = _STATEMENTS.get(str(token.value))
            if method is not None:
                result = getattr(self, method)()
                if result is not None:
                    assert isinstance(result, nodes.Statement), "statement methods give statements"
                    return result
            if following.kind == PUNCTUATOR and following.value == ":" and token.value not in ("default", "case"):
                return self.labeled()
        return self.expression_statement()

    def expression_statement(self) -> nodes.Statement:
        start = self.token.start
        expression = self.expression()
        if (
            isinstance(expression, nodes.CallExpression)
            and isinstance(expression.callee, nodes.Identifier)
            and expression.callee.name == "workflow"
            and self.at_punctuator("{")
        ):
            raise self.fail("F402", "a workflow stands at the top level of the file", hint="use a function here")
        end = self.semicolon(expression.end)
        return nodes.ExpressionStatement(start, end, expression)

    def block(self) -> nodes.BlockStatement:
        start = self.token.start
        self.expect("{")
        self.block_depth += 1
        if self.block_depth > STATEMENT_NESTING_MAX:
            self.block_depth -= 1
            raise self.fail(
                "F110", f"blocks nest at most {STATEMENT_NESTING_MAX} deep", hint="move the inner part into a function"
            )
        try:
            body = self.statement_list()
        finally:
            self.block_depth -= 1
        end = self.token.end
        if self.token.kind == END:
            self.report_unclosed(start)
        else:
            self.advance()
        return nodes.BlockStatement(start, end, body)

    def report_unclosed(self, start: int) -> None:
        """Reports that a block has no end, unless a bracket inside it is said to be wrong already."""
        if self.report.cut_off is not None or self.report.has_error("F101", start):
            return
        self.report.unbalanced = True
        hint = "a `}` is missing, here or inside"
        inside = unclosed_block(self.tokens, self.matching, self.report.source)
        if inside is not None:
            line, _ = self.report.lines.position(inside)
            hint = f"a `}}` is missing, probably that of the `{{` in line {line}"
        self.report.error("F101", "the file ends before this block does", start, start + 1, hint)

    def let_statement(self) -> nodes.Statement | None:
        following = self.peek()
        if self.token.value == "let" and not (
            (following.kind == NAME and following.value not in ("in", "instanceof", "of"))
            or (following.kind == PUNCTUATOR and following.value in ("[", "{"))
            or (following.kind == NAME and following.value == "of")
        ):
            return None
        declaration = self.variable_declaration(in_for=False)
        declaration.end = self.semicolon(declaration.end)
        return declaration

    def var_statement(self) -> nodes.Statement:
        word = self.token
        self.report.error("F201", "`var` is not supported", word.start, word.end, "write `let` or `const`")
        declaration = self.variable_declaration(in_for=False)
        declaration.end = self.semicolon(declaration.end)
        return declaration

    def variable_declaration(self, *, in_for: bool) -> nodes.VariableDeclaration:
        word = self.token
        self.advance()
        declarations: list[nodes.VariableDeclarator] = []
        while True:
            start = self.token.start
            target = self.binding_target()
            self.refuse_type()
            init: nodes.Expression | None = None
            if self.eat("="):
                init = self.assignment(no_in=in_for)
            end = init.end if init is not None else target.end
            declarations.append(nodes.VariableDeclarator(start, end, target, init))
            if not self.eat(","):
                break
        kind: Literal["let", "const"] = "const" if word.value == "const" else "let"
        result = nodes.VariableDeclaration(word.start, declarations[-1].end, kind, declarations)
        if self.at_punctuator(";") or self.at_statement_end() or (in_for and not self.at_for_separator()):
            for declarator in declarations:
                self.check_initialised(kind, declarator)
        return result

    def at_for_separator(self) -> bool:
        return self.token.kind == NAME and self.token.value in ("of", "in")

    def check_initialised(self, kind: str, declarator: nodes.VariableDeclarator) -> None:
        if declarator.init is not None:
            return
        if not isinstance(declarator.id, nodes.Identifier):
            self.report.error(
                "F112", "a pattern needs a value to take apart", declarator.start, declarator.end, "add `= value`"
            )
        elif kind == "const":
            self.report.error(
                "F112",
                f"`const {declarator.id.name}` has no value",
                declarator.start,
                declarator.end,
                "add `= value`, or write `let`",
            )

    def function_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        return self.function_declaration(start, is_async=False)

    def async_statement(self) -> nodes.Statement | None:
        following = self.peek()
        if following.kind == NAME and following.value == "function" and not following.newline:
            start = self.token.start
            self.advance()
            self.advance()
            return self.function_declaration(start, is_async=True)
        return None

    def function_declaration(self, start: int, *, is_async: bool) -> nodes.FunctionDeclaration:
        self.refuse_generator()
        name = self.binding_identifier()
        params, body = self.function_rest(is_async=is_async)
        return nodes.FunctionDeclaration(start, body.end, name, params, body, is_async)

    def class_statement(self) -> nodes.Statement:
        raise self.fail(
            "F203",
            "classes are not supported yet",
            hint="use functions that return objects; for errors `Object.assign(new Error(message), { name })`",
        )

    def import_statement(self) -> nodes.Statement:
        raise self.refuse_module()

    def with_statement(self) -> nodes.Statement:
        raise self.fail("F211", "`with` is not supported", hint="name the object")

    def debugger_statement(self) -> nodes.Statement:
        raise self.fail("F212", "`debugger` is not supported", hint="use console.log")

    def if_statement(self) -> nodes.Statement:
        first: nodes.IfStatement | None = None
        last: nodes.IfStatement | None = None
        while True:
            start = self.token.start
            self.advance()
            self.expect("(")
            test = self.expression()
            self.expect(")")
            consequent = self.substatement("if")
            node = nodes.IfStatement(start, consequent.end, test, consequent, None)
            if last is not None:
                last.alternate = node
            first, last = first or node, node
            if not self.at_word("else"):
                break
            self.advance()
            if not self.at_word("if"):
                last.alternate = self.substatement("else")
                last.end = last.alternate.end
                break
        first.end = last.end
        return first

    @contextmanager
    def loop_body(self) -> Iterator[None]:
        before, self.in_loop = self.in_loop, True
        try:
            yield
        finally:
            self.in_loop = before

    def for_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        if self.at_word("await"):
            raise self.fail("F217", "`for await` is not supported yet", hint="await inside the loop")
        self.expect("(")
        init: nodes.VariableDeclaration | nodes.Expression | None = None
        if self.at_word("var"):
            self.report.error(
                "F201", "`var` is not supported", self.token.start, self.token.end, "write `let` or `const`"
            )
            init = self.variable_declaration(in_for=True)
        elif self.at_word("const") or (self.at_word("let") and self.peek().value not in (";", "=", "in", ".", ")")):
            init = self.variable_declaration(in_for=True)
        elif not self.at_punctuator(";"):
            target = self.for_target()
            if target is not None:
                return self.for_each(start, target)
            first = self.token
            init = self.expression(no_in=True)
            if self.at_for_separator():
                if isinstance(init, nodes.Identifier) and first.value == "async" and self.at_word("of"):
                    raise self.fail("F101", "`for (async of` is not JavaScript", hint="rename `async`", token=first)
                if not isinstance(init, nodes.Identifier | nodes.MemberExpression):
                    raise self.fail_at(init, "F107", "this cannot be assigned to", _LOOP)
                return self.for_each(start, init)
        if isinstance(init, nodes.VariableDeclaration) and self.at_for_separator():
            if len(init.declarations) != 1 or init.declarations[0].init is not None:
                raise self.fail_at(init, "F101", "a loop over values declares one name, without a value", _LOOP)
            return self.for_each(start, init)
        self.expect(";")
        test = None if self.at_punctuator(";") else self.expression()
        self.expect(";")
        update = None if self.at_punctuator(")") else self.expression()
        self.expect(")")
        with self.loop_body():
            body = self.substatement("a loop")
        return nodes.ForStatement(start, body.end, init, test, update, body)

    def for_target(self) -> nodes.Pattern | None:
        """The pattern of ``for ([a, b] of …)``, or None when an expression stands here."""
        if self.token.kind == PUNCTUATOR and self.token.value in ("[", "{"):
            close = self.matching[self.index]
            if close > 0 and self.tokens[close + 1].value in ("of", "in") and self.tokens[close + 1].kind == NAME:
                return self.assignment_target()
        return None

    def for_each(
        self, start: int, left: nodes.VariableDeclaration | nodes.Pattern | nodes.Expression
    ) -> nodes.Statement:
        of = self.token.value == "of"
        self.advance()
        right = self.assignment() if of else self.expression()
        self.expect(")")
        if isinstance(left, nodes.Identifier):
            self.check_assignable(left)
        with self.loop_body():
            body = self.substatement("a loop")
        kind = nodes.ForOfStatement if of else nodes.ForInStatement
        assert isinstance(left, nodes.VariableDeclaration | nodes.Pattern), "checked by the callers"
        return kind(start, body.end, left, right, body)

    def while_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        self.expect("(")
        test = self.expression()
        self.expect(")")
        with self.loop_body():
            body = self.substatement("a loop")
        return nodes.WhileStatement(start, body.end, test, body)

    def do_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        with self.loop_body():
            body = self.substatement("a loop")
        if not self.at_word("while"):
            raise self.unexpected("`while`")
        self.advance()
        self.expect("(")
        test = self.expression()
        end = self.token.end
        self.expect(")")
        self.eat(";")
        return nodes.DoWhileStatement(start, end, body, test)

    def return_statement(self) -> nodes.Statement:
        word = self.token
        self.advance()
        if not self.in_function and not self.report.has_error("F101"):
            self.report.error("F116", "`return` outside a function", word.start, word.end, "put it into the workflow")
        argument = None if self.at_statement_end() else self.expression()
        end = self.semicolon(word.end if argument is None else argument.end)
        return nodes.ReturnStatement(word.start, end, argument)

    def throw_statement(self) -> nodes.Statement:
        word = self.token
        self.advance()
        if self.token.newline:
            hint = "move it up to the line of `throw`"
            raise self.fail("F117", "what is thrown must stand on the same line as `throw`", hint=hint)
        argument = self.expression()
        return nodes.ThrowStatement(word.start, self.semicolon(argument.end), argument)

    def break_statement(self) -> nodes.Statement:
        word, label = self.jump_target()
        if label is None and not (self.in_loop or self.in_switch):
            self.report.error(
                "F108", "`break` outside a loop or switch", word.start, word.end, "a function is left with `return`"
            )
        elif label is not None and all(name != label.name for name, _ in self.labels):
            self.refuse_label(f"there is no label `{label.name}` here", label)
        return nodes.BreakStatement(word.start, self.semicolon(label.end if label else word.end), label)

    def continue_statement(self) -> nodes.Statement:
        word, label = self.jump_target()
        if label is None and not self.in_loop:
            self.report.error(
                "F108", "`continue` outside a loop", word.start, word.end, "a function is left with `return`"
            )
        elif label is not None and (label.name, True) not in self.labels:
            self.refuse_label(f"there is no loop with the label `{label.name}` here", label)
        return nodes.ContinueStatement(word.start, self.semicolon(label.end if label else word.end), label)

    def refuse_label(self, message: str, label: nodes.Identifier) -> None:
        meant = closest(label.name, [name for name, _ in self.labels])
        hint = f"did you mean `{meant}`?" if meant else f"write `{label.name}:` before the loop around this"
        self.report.error("F108", message, label.start, label.end, hint)

    def jump_target(self) -> tuple[Token, nodes.Identifier | None]:
        word = self.token
        self.advance()
        token = self.token
        if token.kind == NAME and not token.newline and not self.at_statement_end():
            self.advance()
            return word, nodes.Identifier(token.start, token.end, str(token.value))
        return word, None

    def labeled(self) -> nodes.Statement:
        token = self.token
        label = self.binding_identifier()
        self.expect(":")
        if any(name == label.name for name, _ in self.labels):
            text = f"the label `{label.name}` is already used around this"
            self.report.error("F108", text, label.start, label.end, "choose another label")
        probe = self.index
        while self.tokens[probe].kind == NAME and self.tokens[probe + 1].value == ":":
            probe += 2
        is_loop = self.tokens[probe].kind == NAME and self.tokens[probe].value in ("for", "while", "do")
        if (
            self.tokens[probe].kind == NAME
            and self.tokens[probe].value in ("function", "async")
            and (self.tokens[probe].value == "function" or self.tokens[probe + 1].value == "function")
        ):
            raise self.fail("F119", "a function cannot have a label", hint="remove the label")
        self.labels.append((label.name, is_loop))
        try:
            body = self.substatement("a label")
        finally:
            self.labels.pop()
        return nodes.LabeledStatement(token.start, body.end, label, body)

    def switch_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        self.expect("(")
        discriminant = self.expression()
        self.expect(")")
        self.expect("{")
        cases: list[nodes.SwitchCase] = []
        before, self.in_switch = self.in_switch, True
        self.block_depth += 1
        try:
            has_default = False
            while not self.at_punctuator("}"):
                case = self.switch_case()
                if case.test is None:
                    if has_default:
                        end = case.start + len("default")
                        text = "a switch has at most one default"
                        self.report.error("F120", text, case.start, end, "put both into one")
                    has_default = True
                cases.append(case)
        finally:
            self.in_switch = before
            self.block_depth -= 1
        end = self.token.end
        self.expect("}")
        return nodes.SwitchStatement(start, end, discriminant, cases)

    def switch_case(self) -> nodes.SwitchCase:
        token = self.token
        test: nodes.Expression | None = None
        if self.at_word("case"):
            self.advance()
            test = self.expression()
        elif self.at_word("default"):
            self.advance()
        else:
            raise self.unexpected("`case` or `default`")
        self.expect(":")
        body: list[nodes.Statement] = []
        while not (
            self.at_punctuator("}") or self.at_word("case") or self.at_word("default") or self.token.kind == END
        ):
            before = self.index
            body.append(self.guarded(self.list_item))
            if self.index == before:
                self.advance()
        return nodes.SwitchCase(token.start, body[-1].end if body else token.end, test, body)

    def try_statement(self) -> nodes.Statement:
        start = self.token.start
        self.advance()
        block = self.block()
        handler: nodes.CatchClause | None = None
        finalizer: nodes.BlockStatement | None = None
        if self.at_word("catch"):
            catch = self.token
            self.advance()
            param: nodes.Pattern | None = None
            if self.eat("("):
                param = self.binding_target()
                self.expect(")")
            body = self.block()
            handler = nodes.CatchClause(catch.start, body.end, param, body)
        if self.at_word("finally"):
            self.advance()
            finalizer = self.block()
        if handler is None and finalizer is None:
            raise self.unexpected("`catch` or `finally`")
        end = (finalizer or handler or block).end
        return nodes.TryStatement(start, end, block, handler, finalizer)

    # --- functions ----------------------------------------------------------------------------------------------------

    def function_rest(self, *, is_async: bool) -> tuple[list[nodes.Pattern], nodes.BlockStatement]:
        """Parameters in parentheses and a body in braces."""
        with self.function(is_async=is_async):
            with self.parameters():
                params = self.parameter_list()
            self.refuse_type()
            if not self.at_punctuator("{"):
                raise self.unexpected("`{`")
            body = self.block()
            self.check_directive(params, body)
            return params, body

    @contextmanager
    def function(self, *, is_async: bool) -> Iterator[None]:
        before = (self.is_async, self.in_function, self.in_loop, self.in_switch, self.labels, self.in_parameters)
        reserved = self.await_reserved
        self.is_async, self.in_function, self.in_loop, self.in_switch = is_async, True, False, False
        self.labels, self.in_parameters, self.await_reserved = [], False, is_async
        try:
            yield
        finally:
            self.is_async, self.in_function, self.in_loop, self.in_switch, self.labels, self.in_parameters = before
            self.await_reserved = reserved

    # --- semicolons ---------------------------------------------------------------------------------------------------

    def at_statement_end(self) -> bool:
        token = self.token
        return token.newline or token.kind == END or (token.kind == PUNCTUATOR and token.value in (";", "}"))

    def semicolon(self, end: int) -> int:
        """Takes the semicolon, or sees that one is inserted; returns the statement's end."""
        token = self.token
        if token.kind == PUNCTUATOR and token.value == ";":
            self.advance()
            return token.end
        if self.at_statement_end():
            return end
        if token.kind == BAD:
            raise ParseError
        raise self.unexpected("the end of the statement")


_STATEMENTS: Final = {
    "let": "let_statement",
    "const": "let_statement",
    "var": "var_statement",
    "function": "function_statement",
    "async": "async_statement",
    "class": "class_statement",
    "import": "import_statement",
    "export": "import_statement",
    "with": "with_statement",
    "debugger": "debugger_statement",
    "if": "if_statement",
    "for": "for_statement",
    "while": "while_statement",
    "do": "do_statement",
    "return": "return_statement",
    "throw": "throw_statement",
    "break": "break_statement",
    "continue": "continue_statement",
    "switch": "switch_statement",
    "try": "try_statement",
}
