"""The tokens of a source as the parser reads them: where it stands, what it expected, and what is wrong.

The base of the parser in ``parser_expressions``. Brackets are matched once, beforehand.
"""

from __future__ import annotations

from typing import Final

from rhythm.language import nodes
from rhythm.language.diagnostics import Report
from rhythm.language.guesses import TYPESCRIPT, guess, type_arguments_end
from rhythm.language.nodes import EXPRESSION_NESTING_MAX
from rhythm.language.tokens import BAD, END, NAME, PRIVATE, PUNCTUATOR, REGEX, TEMPLATE_HEAD, TEMPLATE_TAIL, Token

#: At the beginning of a line, these go on with the line before where an expression may go on.
CONTINUATIONS: Final = frozenset(["(", "[", "+", "-", "/"])
#: Behind these a brace opens an object, not a block.
_OBJECT_FOLLOWS: Final = frozenset(["(", "[", ",", "=", "?", "??", "||", "&&", "return", "..."])
OPERAND: Final = "an expression"  #: what `unexpected` wants where a slash can only begin a regular expression


class ParseError(Exception):
    """A problem that is already reported; the statement around it is given up."""


class TokenReader:
    """A place in the tokens of one source."""

    def __init__(self, report: Report, tokens: list[Token]) -> None:
        self.report = report
        self.tokens = tokens
        self.index = 0
        self.token = tokens[0]
        self.matching, self.openers = _brackets(tokens)
        self.statement_start = 0  # offset of the innermost statement that is being parsed

    # --- tokens -------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        if self.index + 1 < len(self.tokens):
            self.index += 1
            self.token = self.tokens[self.index]

    def jump(self, index: int) -> None:
        self.index = index
        self.token = self.tokens[index]

    def peek(self, ahead: int = 1) -> Token:
        return self.tokens[min(self.index + ahead, len(self.tokens) - 1)]

    def at_punctuator(self, value: str) -> bool:
        return self.token.kind == PUNCTUATOR and self.token.value == value

    def at_word(self, value: str) -> bool:
        return self.token.kind == NAME and self.token.value == value

    def eat(self, value: str) -> bool:
        if self.token.kind == PUNCTUATOR and self.token.value == value:
            self.advance()
            return True
        return False

    def expect(self, value: str) -> None:
        if not self.eat(value):
            raise self.unexpected(f"`{value}`")

    # --- errors -------------------------------------------------------------------------------------------------------

    def fail(self, code: str, message: str, *, hint: str = "", token: Token | None = None) -> ParseError:
        where = token or self.token
        self.report.error(code, message, where.start, where.end, hint)
        return ParseError()

    def fail_at(self, node: nodes.Node, code: str, message: str, hint: str = "") -> ParseError:
        self.report.error(code, message, node.start, node.end, hint)
        return ParseError()

    def unexpected(self, wanted: str) -> ParseError:
        token = self.token
        if token.kind == BAD or (token.kind == END and self.report.has_error("F101")):
            return ParseError()  # said already, or an echo
        if token.kind == REGEX or (wanted == OPERAND and token.kind == PUNCTUATOR and token.value in ("/", "/=")):
            return self.regex()
        if token.kind == PRIVATE:
            return self.fail("F218", "private names are not supported", hint="use closures")
        message = f"expected {wanted}, but the file ends here"
        if token.kind != END:
            shown = self.report.source[token.start : min(token.end, token.start + 40)]
            message = f"expected {wanted}, found `{shown}`"
        meant = None
        if self.report.left["error"]:  # guessing takes time
            line_of = lambda offset: self.report.lines.position(offset)[0]  # noqa: E731
            meant = guess(self.tokens, self.index, wanted, line_of, self.report.source)
        if meant is None:
            return self.fail("F101", message)
        self.report.unbalanced = self.report.unbalanced or meant.unbalanced
        return self.fail(meant.code, meant.message or message, hint=meant.hint)

    def refuse_type(self) -> None:
        """Refuses the type that TypeScript has after a name or a list of parameters."""
        token, after = self.token, self.peek()
        if token.kind != PUNCTUATOR or token.newline or (token.value == ":" and after.newline):
            return
        if token.value == ":" or (token.value in ("?", "!") and after.value == ":" and after.kind == PUNCTUATOR):
            raise self.fail("F221", TYPESCRIPT, hint="leave out the `:` and the type")

    def refuse_type_arguments(self) -> None:
        """Refuses ``<T>`` behind the name of a function that is declared or constructed."""
        if self.at_punctuator("<") and type_arguments_end(self.tokens, self.index):
            raise self.fail("F221", TYPESCRIPT, hint="leave out the types in `< >`")

    def too_deep(self, what: str) -> ParseError:
        return self.fail("F110", f"{what} nest at most {EXPRESSION_NESTING_MAX} deep", hint="put parts into variables")

    def regex(self) -> ParseError:
        return self.fail(
            "F206",
            "regular expressions are not supported yet",
            hint="use string methods such as includes, startsWith, split, or a task",
        )

    def refuse_generator(self) -> None:
        if self.at_punctuator("*"):
            raise self.fail(
                "F205", "generators are not supported yet", hint="return an array, or use an async function"
            )

    # --- lines that go on ---------------------------------------------------------------------------------------------

    def warn_continuation(self, token: Token) -> None:
        """Warns of a line that goes on with the statement before it, where nobody may see that."""
        if token.newline and not self.in_brackets() and (token.value in ("(", "[") or not self.is_indented(token)):
            self.report.warning(
                "W101",
                f"this line begins with `{token.value}` and continues the one before",
                token.start,
                token.end,
                "end the line before with ; if that is not meant",
            )

    def in_brackets(self) -> bool:
        """Whether the innermost open bracket around the current token is one in which no statement can end."""
        opener = self.openers.get(self.index, -1)
        if opener < 0 or self.tokens[opener].value != "{":
            return opener >= 0
        before = self.tokens[opener - 1]  # of an object, not of a block
        return before.value in _OBJECT_FOLLOWS and before.kind in (PUNCTUATOR, NAME)

    def is_indented(self, token: Token) -> bool:
        """Whether the line of a token is indented more than the first one of its statement."""
        source = self.report.source
        first, line = (source.rfind("\n", 0, offset) + 1 for offset in (self.statement_start, token.start))
        own = token.start - line
        return bool(source[first : first + own].lstrip())


def _brackets(tokens: list[Token]) -> tuple[list[int], dict[int, int]]:
    """For each opening bracket the index of the closing one, 0 where there is none or for other tokens.

    And for each token at the beginning of a line that may go on with the one before: the innermost bracket around it.
    """
    matching = [0] * len(tokens)
    openers: dict[int, int] = {}
    open_brackets: list[tuple[int, str]] = []
    pairs = {"(": ")", "[": "]", "{": "}"}
    for index, token in enumerate(tokens):
        if token.newline and token.value in CONTINUATIONS and open_brackets:
            openers[index] = open_brackets[-1][0]
        if token.kind == TEMPLATE_HEAD:
            open_brackets.append((index, "`"))
        elif token.kind == TEMPLATE_TAIL:
            if open_brackets and open_brackets[-1][1] == "`":
                open_brackets.pop()
        elif token.kind == PUNCTUATOR:
            if token.value in pairs:
                open_brackets.append((index, pairs[str(token.value)]))
            elif open_brackets and token.value == open_brackets[-1][1]:
                matching[open_brackets.pop()[0]] = index
    return matching, openers
