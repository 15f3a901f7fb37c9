"""Expressions and patterns; the base of the parser in ``parser``.

Precedence climbing with a loop for left-associative operators and for chains of members and calls, so that
``a + b + c + …`` of any length costs no recursion. Nesting is counted in ``expression_depth``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from rhythm.language import nodes
from rhythm.language.diagnostics import Report
from rhythm.language.nodes import EXPRESSION_NESTING_MAX
from rhythm.language.numbers import number_to_string
from rhythm.language.parser_tokens import CONTINUATIONS, OPERAND, ParseError, TokenReader
from rhythm.language.tokens import (
    END,
    KEYWORDS,
    NAME,
    NUMBER,
    PUNCTUATOR,
    RESERVED,
    STRING,
    TEMPLATE,
    TEMPLATE_HEAD,
    TEMPLATE_TAIL,
    Token,
)

_BINARY: Final = {
    "??": 1, "||": 2, "&&": 3, "|": 4, "^": 5, "&": 6,
    "==": 7, "!=": 7, "===": 7, "!==": 7,
    "<": 8, ">": 8, "<=": 8, ">=": 8, "in": 8, "instanceof": 8,
    "<<": 9, ">>": 9, ">>>": 9, "+": 10, "-": 10, "*": 11, "/": 11, "%": 11, "**": 12,
}  # fmt: skip
_ASSIGNMENTS: Final = frozenset("= += -= *= /= %= **= <<= >>= >>>= &= |= ^= &&= ||= ??=".split())
_UNARY: Final = frozenset(["-", "+", "!", "~"])
_UNARY_WORDS: Final = frozenset(["typeof", "void", "delete"])
AWAIT_ELSEWHERE: Final = "`await` stands in a function that is not async"
ASYNC_MISSING: Final = "write `async` before the function"
#: Words that belong to a statement whose beginning is missing -> message, hint.
_MISPLACED: Final = {
    "else": ("`else` has no `if` before it", "remove what ends the `if`: a `;`, or a `}` too many"),
    "catch": ("`catch` has no `try` before it", "write `try { … } catch (error) { … }`"),
    "finally": ("`finally` has no `try` before it", "write `try { … } finally { … }`"),
    "case": ("`case` stands outside a switch", "put it into `switch (value) { … }`"),
    "default": ("`default` stands outside a switch", "put it into `switch (value) { … }`"),
}


class ExpressionParser(TokenReader):
    """Expressions and patterns."""

    in_parameters = False

    def __init__(self, report: Report, tokens: list[Token]) -> None:
        super().__init__(report, tokens)
        self.is_async = False
        self.await_reserved = True  # a name only in functions that are not async
        self.in_function = False
        self.expression_depth = 0
        self.block_depth = 0

    # --- functions: in the statement parser ---------------------------------------------------------------------------

    if TYPE_CHECKING:

        def block(self) -> nodes.BlockStatement: ...
        def function_rest(self, *, is_async: bool) -> tuple[list[nodes.Pattern], nodes.BlockStatement]: ...
        @contextmanager
        def function(self, *, is_async: bool) -> Iterator[None]: ...

    @contextmanager
    def parameters(self) -> Iterator[None]:
        before, self.in_parameters = self.in_parameters, True
        try:
            yield
        finally:
            self.in_parameters = before

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, *, no_in: bool = False) -> nodes.Expression:
        first = self.assignment(no_in=no_in)
        if not self.at_punctuator(","):
            return first
        expressions = [first]
        while self.eat(","):
            expressions.append(self.assignment(no_in=no_in))
        return nodes.SequenceExpression(first.start, expressions[-1].end, expressions)

    def assignment(self, *, no_in: bool = False) -> nodes.Expression:
        self.expression_depth += 1
        if self.expression_depth > EXPRESSION_NESTING_MAX:
            raise self.too_deep("expressions")
        result = self.assignment_inside(no_in)
        self.expression_depth -= 1
        return result

    def assignment_inside(self, no_in: bool) -> nodes.Expression:
        token = self.token
        if token.kind == NAME:
            arrow = self.arrow_from_name(no_in)
            if arrow is not None:
                return arrow
        elif token.kind == PUNCTUATOR and token.value in ("(", "[", "{"):
            close = self.matching[self.index]
            after = self.tokens[close + 1] if close > 0 else None
            if after is not None and after.kind == PUNCTUATOR:
                if token.value == "(" and after.value == "=>" and not after.newline:
                    return self.arrow(token.start, no_in, is_async=False)
                if token.value != "(" and after.value == "=":
                    pattern = self.assignment_target()
                    self.expect("=")
                    right = self.assignment(no_in=no_in)
                    return nodes.AssignmentExpression(token.start, right.end, "=", pattern, right)
        left = self.conditional(no_in)
        if self.token.kind == PUNCTUATOR and self.token.value in _ASSIGNMENTS:
            operator = str(self.token.value)
            after = self.peek()
            if operator == "=" and after.value == ">" and after.kind == PUNCTUATOR:
                raise self.fail("F101", "`= >` is no arrow", hint="write `=>`, without a space")
            self.check_target(left)
            self.advance()
            right = self.assignment(no_in=no_in)
            assert isinstance(left, nodes.Pattern), "checked above"
            return nodes.AssignmentExpression(token.start, right.end, operator, left, right)
        if self.at_punctuator("=>"):
            raise self.fail("F101", "`=>` cannot stand here", hint="parameters stand in parentheses, on the same line")
        return left

    def arrow_from_name(self, no_in: bool) -> nodes.Expression | None:
        token, following = self.token, self.peek()
        if following.kind == PUNCTUATOR and following.value == "=>" and not following.newline:
            return self.arrow(token.start, no_in, is_async=False)
        if token.value == "async" and not following.newline:
            if following.kind == NAME:
                after = self.peek(2)
                if after.kind == PUNCTUATOR and after.value == "=>" and not after.newline:
                    self.advance()
                    return self.arrow(token.start, no_in, is_async=True)
            elif following.kind == PUNCTUATOR and following.value == "(":
                close = self.matching[self.index + 1]
                if close > 0 and self.tokens[close + 1].value == "=>" and not self.tokens[close + 1].newline:
                    self.advance()
                    return self.arrow(token.start, no_in, is_async=True)
        elif token.value == "yield":
            raise self.fail(
                "F205", "generators are not supported yet", hint="return an array, or use an async function"
            )
        return None

    def arrow(self, start: int, no_in: bool, *, is_async: bool) -> nodes.Expression:
        outer_reserved = self.await_reserved
        with self.function(is_async=is_async):
            params: list[nodes.Pattern]
            with self.parameters():
                self.await_reserved = is_async or outer_reserved  # the parameters still belong to what is around
                if self.token.kind == NAME:
                    params = [self.binding_identifier()]
                else:
                    params = self.parameter_list()
            self.await_reserved = is_async
            self.expect("=>")
            body: nodes.BlockStatement | nodes.Expression
            body = self.block() if self.at_punctuator("{") else self.assignment(no_in=no_in)
        self.check_directive(params, body)
        return nodes.ArrowFunctionExpression(start, body.end, params, body, is_async)

    def check_directive(self, params: list[nodes.Pattern], body: nodes.Node) -> None:
        """Refuses "use strict" in a function whose parameters are more than plain names, as JavaScript does."""
        if not isinstance(body, nodes.BlockStatement) or all(isinstance(param, nodes.Identifier) for param in params):
            return
        for item in body.body:
            expression = item.expression if isinstance(item, nodes.ExpressionStatement) else None
            if not isinstance(expression, nodes.Literal) or not isinstance(expression.value, str):
                return
            if self.report.source[item.start :].startswith(("'use strict'", '"use strict"')):
                self.report.error(
                    "F101",
                    '"use strict" cannot stand in a function with such parameters',
                    expression.start,
                    expression.end,
                    "remove it: flows are always strict",
                )

    def conditional(self, no_in: bool) -> nodes.Expression:
        test = self.binary(0, no_in)
        if not self.at_punctuator("?"):
            return test
        self.advance()
        self.expression_depth += 1  # counts twice: each becomes a statement when it is lowered
        consequent = self.assignment()
        self.expect(":")
        alternate = self.assignment(no_in=no_in)
        self.expression_depth -= 1
        return nodes.ConditionalExpression(test.start, alternate.end, test, consequent, alternate)

    def binary(self, minimum: int, no_in: bool) -> nodes.Expression:
        start = self.token.start
        parenthesised = self.at_punctuator("(")
        left = self.unary()
        unary_before = isinstance(left, nodes.UnaryExpression | nodes.AwaitExpression) and not parenthesised
        mixed: str | None = None  # the unparenthesised logical operator that made `left`
        while True:
            token = self.token
            if token.kind != PUNCTUATOR and not (token.kind == NAME and token.value in ("in", "instanceof")):
                return left
            operator = str(token.value)
            precedence = _BINARY.get(operator)
            if precedence is None or precedence <= minimum or (no_in and operator == "in"):
                return left
            if operator in CONTINUATIONS:
                self.warn_continuation(token)
            if operator == "**" and unary_before:
                raise self.fail(
                    "F114", "a unary operator before ** needs parentheses", hint="write (-a) ** b or -(a ** b)"
                )
            self.advance()
            right_start = self.token.start
            self.expression_depth += 1
            if self.expression_depth > EXPRESSION_NESTING_MAX:
                raise self.too_deep("expressions")
            right = self.binary(precedence - 1 if operator == "**" else precedence, no_in)
            self.expression_depth -= 1
            if operator in ("??", "||", "&&"):
                bare = right.start == right_start  # what stands in parentheses begins behind them
                inner = right.operator if bare and isinstance(right, nodes.LogicalExpression) else None
                if any(other is not None and (other == "??") != (operator == "??") for other in (mixed, inner)):
                    raise self.fail(
                        "F113",
                        "?? cannot be mixed with || and && without parentheses",
                        hint="write (a ?? b) || c",
                        token=token,
                    )
                mixed = operator
                left = nodes.LogicalExpression(start, right.end, operator, left, right)
            else:
                mixed = None
                left = nodes.BinaryExpression(start, right.end, operator, left, right)
            unary_before = False

    def unary(self) -> nodes.Expression:
        token = self.token
        if token.kind == PUNCTUATOR:
            if token.value in _UNARY:
                return self.unary_operator(token)
            if token.value in ("++", "--"):
                self.advance()
                argument = self.nested_unary()
                self.check_simple_target(argument)
                return nodes.UpdateExpression(token.start, argument.end, str(token.value), True, argument)
        elif token.kind == NAME:
            if token.value in _UNARY_WORDS:
                return self.unary_operator(token)
            if token.value == "await" and (self.await_reserved or self.at_awaited()):
                return self.await_expression(token)
        return self.postfix()

    def nested_unary(self) -> nodes.Expression:
        self.expression_depth += 1
        if self.expression_depth > EXPRESSION_NESTING_MAX:
            raise self.too_deep("expressions")
        result = self.unary()
        self.expression_depth -= 1
        return result

    def unary_operator(self, token: Token) -> nodes.Expression:
        self.advance()
        argument = self.nested_unary()
        if token.value == "delete" and isinstance(argument, nodes.Identifier):
            self.report.error(
                "F121", "a variable cannot be deleted", token.start, argument.end, "delete works on properties"
            )
        return nodes.UnaryExpression(token.start, argument.end, str(token.value), argument)

    def at_awaited(self) -> bool:
        """Whether an operand stands behind this `await`: where it is a name, somebody forgot `async`."""
        following = self.peek()
        if following.newline or following.kind == END:
            return False
        if following.kind == PUNCTUATOR:
            return following.value in ("{", "!", "~")
        return not (following.kind == NAME and following.value in ("in", "instanceof", "of"))

    def await_expression(self, token: Token) -> nodes.Expression:
        if self.in_parameters:
            raise self.fail(
                "F106", "`await` cannot stand in a parameter's default", hint="await in the function's body"
            )
        if not self.is_async:
            if self.in_function:
                raise self.fail("F106", AWAIT_ELSEWHERE, hint=ASYNC_MISSING)
            raise self.fail("F405", "`await` cannot stand at the top level", hint="await inside the workflow")
        self.advance()
        argument = self.nested_unary()
        return nodes.AwaitExpression(token.start, argument.end, argument)

    def postfix(self) -> nodes.Expression:
        expression = self.member_chain()
        token = self.token
        if token.kind == PUNCTUATOR and token.value in ("++", "--") and not token.newline:
            self.check_simple_target(expression)
            self.advance()
            return nodes.UpdateExpression(expression.start, token.end, str(token.value), False, expression)
        return expression

    def member_chain(self) -> nodes.Expression:
        token = self.token
        if token.kind == NAME and token.value == "new":
            return self.chain(self.new_expression(), token.start)
        return self.chain(self.primary(), token.start)

    def chain(self, expression: nodes.Expression, start: int) -> nodes.Expression:
        optional = 0
        while True:
            token = self.token
            if token.kind == PUNCTUATOR:
                value = token.value
                if value == ".":
                    self.advance()
                    name = self.property_name()
                    expression = nodes.MemberExpression(start, name.end, expression, name, False)
                    continue
                if value == "?.":
                    optional += 2  # counts twice, as a condition does
                    self.expression_depth += 2
                    if self.expression_depth > EXPRESSION_NESTING_MAX:
                        raise self.fail(
                            "F110",
                            f"a chain has at most {EXPRESSION_NESTING_MAX // 2} links with `?.`",
                            hint="put parts into variables",
                        )
                    self.advance()
                    expression = self.optional_link(expression, start)
                    continue
                if value in ("[", "("):
                    self.warn_continuation(token)
                    if value == "[":
                        self.advance()
                        key = self.expression()
                        end = self.token.end
                        self.expect("]")
                        expression = nodes.MemberExpression(start, end, expression, key, True)
                    else:
                        arguments, end = self.arguments()
                        expression = nodes.CallExpression(start, end, expression, arguments)
                    continue
            elif token.kind in (TEMPLATE, TEMPLATE_HEAD):
                raise self.fail(
                    "F208", "tagged templates are not supported", hint="call a function with an ordinary template"
                )
            break
        self.expression_depth -= optional
        if optional:
            return nodes.ChainExpression(start, expression.end, expression)
        return expression

    def optional_link(self, expression: nodes.Expression, start: int) -> nodes.Expression:
        if self.at_punctuator("("):
            arguments, end = self.arguments()
            return nodes.CallExpression(start, end, expression, arguments, True)
        if self.eat("["):
            key = self.expression()
            end = self.token.end
            self.expect("]")
            return nodes.MemberExpression(start, end, expression, key, True, True)
        if self.token.kind in (TEMPLATE, TEMPLATE_HEAD):
            raise self.fail(
                "F208", "tagged templates are not supported", hint="call a function with an ordinary template"
            )
        name = self.property_name()
        return nodes.MemberExpression(start, name.end, expression, name, False, True)

    def property_name(self) -> nodes.Identifier:
        token = self.token
        if token.kind != NAME:
            raise self.unexpected("a property name")
        self.advance()
        return nodes.Identifier(token.start, token.end, str(token.value))

    def new_expression(self) -> nodes.Expression:
        start = self.token.start
        self.advance()
        if self.at_punctuator("."):
            end = self.peek().end if self.peek().kind == NAME else self.token.end
            self.report.error("F202", "`new.target` is not supported", start, end, "use functions that return objects")
            raise ParseError
        token = self.token
        if token.kind == NAME and token.value == "new":
            self.expression_depth += 1
            if self.expression_depth > EXPRESSION_NESTING_MAX:
                raise self.too_deep("expressions")
            callee = self.new_expression()
            self.expression_depth -= 1
        elif token.kind == NAME and token.value == "await" and self.await_reserved:
            raise self.fail("F101", "`await` cannot stand behind `new`", hint="put it into parentheses")
        else:
            callee = self.primary()
        while True:
            if self.eat("."):
                name = self.property_name()
                callee = nodes.MemberExpression(token.start, name.end, callee, name, False)
            elif self.eat("["):
                key = self.expression()
                end = self.token.end
                self.expect("]")
                callee = nodes.MemberExpression(token.start, end, callee, key, True)
            else:
                break
        self.refuse_type_arguments()
        if self.at_punctuator("?."):
            raise self.unexpected("the constructor's arguments")
        arguments: list[nodes.Expression | nodes.SpreadElement] = []
        end = callee.end
        if self.at_punctuator("("):
            arguments, end = self.arguments()
        return nodes.NewExpression(start, end, callee, arguments)

    def arguments(self) -> tuple[list[nodes.Expression | nodes.SpreadElement], int]:
        self.expect("(")
        arguments: list[nodes.Expression | nodes.SpreadElement] = []
        while not self.at_punctuator(")"):
            arguments.append(self.spread_or_assignment())
            if not self.eat(","):
                break
        end = self.token.end
        self.expect(")")
        return arguments, end

    def spread_or_assignment(self) -> nodes.Expression | nodes.SpreadElement:
        start = self.token.start
        if self.eat("..."):
            argument = self.assignment()
            return nodes.SpreadElement(start, argument.end, argument)
        return self.assignment()

    # --- primary expressions ------------------------------------------------------------------------------------------

    def primary(self) -> nodes.Expression:
        token = self.token
        kind = token.kind
        if kind == NAME:
            return self.word()
        if kind in (NUMBER, STRING):
            self.advance()
            return nodes.Literal(token.start, token.end, token.value)
        if kind == TEMPLATE:
            self.advance()
            return nodes.TemplateLiteral(token.start, token.end, [str(token.value)], [])
        if kind == TEMPLATE_HEAD:
            return self.template()
        if kind == PUNCTUATOR:
            if token.value == "(":
                self.advance()
                expression = self.expression()
                self.expect(")")
                return expression
            if token.value == "[":
                return self.array()
            if token.value == "{":
                return self.object()
        raise self.unexpected(OPERAND)

    def word(self) -> nodes.Expression:
        token = self.token
        word = str(token.value)
        if word == "function":
            return self.function_expression(token.start, is_async=False)
        if word == "async":
            following = self.peek()
            if following.kind == NAME and following.value == "function" and not following.newline:
                self.advance()
                return self.function_expression(token.start, is_async=True)
        elif word in ("true", "false", "null"):
            self.advance()
            return nodes.Literal(token.start, token.end, {"true": True, "false": False, "null": None}[word])
        elif word in ("this", "super"):
            raise self.fail("F202", f"`{word}` is not supported", hint="use objects and closures")
        elif word == "class":
            raise self.fail(
                "F203",
                "classes are not supported yet",
                hint="use functions that return objects; for errors `Object.assign(new Error(message), { name })`",
            )
        elif word == "import":
            raise self.refuse_module()
        elif word == "await" and self.await_reserved:
            return self.await_expression(token)
        self.refuse_reserved(token, as_binding=False)
        self.advance()
        return nodes.Identifier(token.start, token.end, word)

    def refuse_module(self) -> ParseError:
        hint = "put the functions into this file; libraries are for tasks"
        if self.at_word("export"):
            hint = "leave out `export`: the file's name is the workflow's name"
        return self.fail("F210", "import and export are not supported yet", hint=hint)

    def refuse_reserved(self, token: Token, *, as_binding: bool) -> None:
        word = str(token.value)
        if word == "arguments" and not as_binding:
            raise self.fail("F213", "`arguments` is not supported", hint="use a rest parameter: (...values)")
        if not as_binding and word in _MISPLACED:
            message, hint = _MISPLACED[word]
            raise self.fail("F101", message, hint=hint)
        if as_binding and word in ("const", "let") and self.tokens[self.index - 1].value == ",":
            raise self.fail("F115", f"`{word}` is a reserved word", hint=f"leave out the second `{word}`")
        if word == "yield" and not as_binding:
            raise self.fail(
                "F205", "generators are not supported yet", hint="return an array, or use an async function"
            )
        reserved = self.await_reserved if word == "await" else word in RESERVED
        if reserved or (as_binding and word in ("eval", "arguments")):
            beginning = word in KEYWORDS and not as_binding
            hint = "something is missing before it" if beginning else "choose another name"
            if beginning and word == "if":
                hint = "write `condition ? one : other`"
            raise self.fail("F115", f"`{word}` is a reserved word", hint=hint)

    def function_expression(self, start: int, *, is_async: bool) -> nodes.Expression:
        self.advance()
        self.refuse_generator()
        name: nodes.Identifier | None = None
        if self.token.kind == NAME:
            outer_reserved, self.await_reserved = self.await_reserved, is_async
            name = self.binding_identifier()
            self.await_reserved = outer_reserved
        params, body = self.function_rest(is_async=is_async)
        return nodes.FunctionExpression(start, body.end, name, params, body, is_async)

    def template(self) -> nodes.Expression:
        start = self.token.start
        quasis = [str(self.token.value)]
        expressions: list[nodes.Expression] = []
        while True:
            self.advance()
            expressions.append(self.expression())
            token = self.token
            if token.kind not in (TEMPLATE_TAIL, "template middle"):
                raise self.unexpected("`}`")
            quasis.append(str(token.value))
            if token.kind == TEMPLATE_TAIL:
                self.advance()
                return nodes.TemplateLiteral(start, token.end, quasis, expressions)

    def array(self) -> nodes.Expression:
        start = self.token.start
        self.advance()
        elements: list[nodes.Expression | nodes.SpreadElement] = []
        while not self.at_punctuator("]"):
            if self.at_punctuator(","):
                raise self.fail("F209", "arrays with holes are not supported", hint="write undefined or null")
            elements.append(self.spread_or_assignment())
            if not self.eat(","):
                break
        end = self.token.end
        self.expect("]")
        return nodes.ArrayExpression(start, end, elements)

    def object(self) -> nodes.Expression:
        start = self.token.start
        self.advance()
        properties: list[nodes.Property | nodes.SpreadElement] = []
        while not self.at_punctuator("}"):
            properties.append(self.property())
            if not self.eat(","):
                break
        end = self.token.end
        self.expect("}")
        return nodes.ObjectExpression(start, end, properties)

    def property(self) -> nodes.Property | nodes.SpreadElement:
        token = self.token
        if self.eat("..."):
            argument = self.assignment()
            return nodes.SpreadElement(token.start, argument.end, argument)
        self.refuse_generator()
        following = self.peek()
        is_async = False
        names_property = following.kind == PUNCTUATOR and following.value in (",", ":", "(", "}", "=")
        if token.kind == NAME and not names_property:
            if token.value in ("get", "set"):
                raise self.fail("F204", "getters and setters are not supported", hint="use a method")
            if token.value == "async" and not following.newline:
                is_async = True
                self.advance()
                self.refuse_generator()
        first = self.token
        key, computed = self.property_key()
        if is_async or self.at_punctuator("("):
            params, body = self.function_rest(is_async=is_async)
            function = nodes.FunctionExpression(first.start, body.end, None, params, body, is_async)
            self.refuse_proto(key, computed)
            return nodes.Property(token.start, body.end, key, function, computed, False, True)
        if self.eat(":"):
            self.refuse_proto(key, computed)
            value = self.assignment()
            return nodes.Property(token.start, value.end, key, value, computed)
        if computed or first.kind != NAME:
            raise self.unexpected("`:`")
        self.refuse_reserved(first, as_binding=False)
        if self.at_punctuator("="):
            raise self.fail("F101", "`=` belongs to a pattern, not to an object", hint="write `name: value`")
        name = nodes.Identifier(first.start, first.end, str(first.value))
        assert isinstance(key, nodes.Identifier), "a plain name"
        return nodes.Property(token.start, first.end, key, name, False, True)

    def refuse_proto(self, key: nodes.Expression, computed: bool) -> None:
        plain = isinstance(key, nodes.Identifier) and key.name == "__proto__"
        if not computed and (plain or (isinstance(key, nodes.Literal) and key.value == "__proto__")):
            raise self.fail_at(key, "F219", "`__proto__` is not supported", "use plain objects")

    def property_key(self) -> tuple[nodes.Expression, bool]:
        token = self.token
        if token.kind == NAME:
            self.advance()
            return nodes.Identifier(token.start, token.end, str(token.value)), False
        if token.kind == STRING:
            self.advance()
            return nodes.Literal(token.start, token.end, token.value), False
        if token.kind == NUMBER:
            self.advance()
            return nodes.Literal(token.start, token.end, number_to_string(float(token.value))), False
        if self.eat("["):
            key = self.assignment()
            self.expect("]")
            return key, True
        raise self.unexpected("a property")

    # --- patterns -----------------------------------------------------------------------------------------------------

    def binding_identifier(self) -> nodes.Identifier:
        token = self.token
        if token.kind != NAME:
            raise self.unexpected("a name")
        self.refuse_reserved(token, as_binding=True)
        self.advance()
        return nodes.Identifier(token.start, token.end, str(token.value))

    def parameter_list(self) -> list[nodes.Pattern]:
        self.refuse_type_arguments()
        self.expect("(")
        params: list[nodes.Pattern] = []
        while not self.at_punctuator(")"):
            start = self.token.start
            if self.eat("..."):
                target = self.binding_target()
                params.append(nodes.RestElement(start, target.end, target))
                self.refuse_type()
                self.refuse_after_rest(")")
                break
            target = self.binding_target()
            self.refuse_type()
            params.append(self.with_default(target))
            if not self.eat(","):
                break
        self.expect(")")
        seen: set[str] = set()
        for name in nodes.pattern_names(params):
            if name.name in seen:
                text = f"the parameter `{name.name}` is named twice"
                self.report.error("F109", text, name.start, name.end, "choose another name")
            seen.add(name.name)
        return params

    def refuse_after_rest(self, close: str) -> None:
        if self.at_punctuator(","):
            hint = "move it to the end, and leave out the comma behind it"
            raise self.fail("F118", "a rest element stands in last place", hint=hint)
        if self.at_punctuator("="):
            raise self.fail("F118", "a rest element has no default", hint="leave out the `=` and the value")
        if not self.at_punctuator(close):
            raise self.unexpected(f"`{close}`")

    def with_default(self, target: nodes.Pattern) -> nodes.Pattern:
        if self.eat("="):
            default = self.assignment()
            return nodes.AssignmentPattern(target.start, default.end, target, default)
        return target

    def binding_target(self) -> nodes.Pattern:
        return self.target(binding=True)

    def assignment_target(self) -> nodes.Pattern:
        return self.target(binding=False)

    def target(self, *, binding: bool) -> nodes.Pattern:
        if self.token.kind == PUNCTUATOR and self.token.value in ("[", "{"):
            self.expression_depth += 1
            if self.expression_depth > EXPRESSION_NESTING_MAX:
                raise self.too_deep("patterns")
            pattern = self.array_pattern(binding) if self.token.value == "[" else self.object_pattern(binding)
            self.expression_depth -= 1
            return pattern
        if binding:
            return self.binding_identifier()
        expression = self.member_chain()
        self.check_target(expression)
        assert isinstance(expression, nodes.Pattern), "checked above"
        return expression

    def array_pattern(self, binding: bool) -> nodes.Pattern:
        start = self.token.start
        self.advance()
        elements: list[nodes.Pattern | None] = []
        while not self.at_punctuator("]"):
            if self.eat(","):
                elements.append(None)
                continue
            rest = self.token.start
            if self.eat("..."):
                target = self.target(binding=binding)
                elements.append(nodes.RestElement(rest, target.end, target))
                self.refuse_after_rest("]")
                break
            elements.append(self.with_default(self.target(binding=binding)))
            if not self.at_punctuator("]"):
                self.expect(",")
        end = self.token.end
        self.expect("]")
        return nodes.ArrayPattern(start, end, elements)

    def object_pattern(self, binding: bool) -> nodes.Pattern:
        start = self.token.start
        self.advance()
        properties: list[nodes.AssignmentProperty | nodes.RestElement] = []
        while not self.at_punctuator("}"):
            token = self.token
            if self.eat("..."):
                target = self.target(binding=binding)
                if not isinstance(target, nodes.Identifier | nodes.MemberExpression):
                    raise self.fail_at(target, "F118", "a rest element of an object is a plain name", "write `...rest`")
                properties.append(nodes.RestElement(token.start, target.end, target))
                self.refuse_after_rest("}")
                break
            key, computed = self.property_key()
            if self.eat(":"):
                self.refuse_proto(key, computed)
                value = self.with_default(self.target(binding=binding))
                properties.append(nodes.AssignmentProperty(token.start, value.end, key, value, computed))
            elif computed or token.kind != NAME:
                raise self.unexpected("`:`")
            else:
                self.refuse_reserved(token, as_binding=binding)
                name = nodes.Identifier(token.start, token.end, str(token.value))
                if not binding:
                    self.check_assignable(name)
                assert isinstance(key, nodes.Identifier), "a plain name"
                value = self.with_default(name)
                properties.append(nodes.AssignmentProperty(token.start, value.end, key, value, False, True))
            if not self.eat(","):
                break
        end = self.token.end
        self.expect("}")
        return nodes.ObjectPattern(start, end, properties)

    def check_target(self, expression: nodes.Expression) -> None:
        if isinstance(expression, nodes.Identifier):
            self.check_assignable(expression)
        elif not isinstance(expression, nodes.MemberExpression):
            self.fail_target(expression)

    def check_simple_target(self, expression: nodes.Expression) -> None:
        self.check_target(expression)

    def check_assignable(self, name: nodes.Identifier) -> None:
        if name.name in ("eval", "arguments"):
            raise self.fail_at(name, "F115", f"`{name.name}` cannot be assigned to", "choose another name")

    def fail_target(self, expression: nodes.Expression) -> NoReturn:
        hint = "a name or a property stands on the left of an assignment"
        if isinstance(expression, nodes.ChainExpression):
            hint = "test with `if (a?.b) a.b = …`"
        raise self.fail_at(expression, "F107", "this cannot be assigned to", hint)
