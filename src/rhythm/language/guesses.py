"""What somebody probably meant who wrote a token that cannot stand where it does.

    guess(tokens, index, wanted) -> Guess | None     code, message (None: as it is) and hint

Looks at the tokens around one problem only, so it can tell what the grammar cannot: other languages' words, TypeScript,
JSX, a bracket or a comma that is missing. A guess changes what is said about a program, never whether it is refused.
Rules are tried in order; the first that fits counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rhythm.language.diagnostics import closest
from rhythm.language.tokens import (
    END,
    KEYWORDS,
    NAME,
    NUMBER,
    PUNCTUATOR,
    STRING,
    TEMPLATE,
    TEMPLATE_HEAD,
    TEMPLATE_TAIL,
    Token,
)

BACK_MAX: Final = 5_000  #: Tokens that are looked at before the problem, for the bracket that is open.
LINE_MAX: Final = 1_000  #: Characters of a line whose beginning is looked for.
TYPE_TOKENS_MAX: Final = 60  #: Tokens of one list of type arguments.

TYPESCRIPT: Final = "TypeScript syntax is not supported"
JSX: Final = "JSX is not supported"
#: Words that begin a declaration of TypeScript when a name follows on the same line.
TYPESCRIPT_STATEMENTS: Final = frozenset(
    "interface enum type declare namespace abstract public private protected readonly".split()
)
#: Words of other languages between two expressions -> what to write.
_INFIX: Final = {"and": "&&", "or": "||", "is": "===", "mod": "%", "div": "/", "eq": "===", "ne": "!=="}
#: Words of other languages before something -> what to write.
_PREFIX: Final = {
    "not": "write `!`",
    **dict.fromkeys(("elif", "elsif", "elseif", "elsef"), "write `else if (…)`"),
    **dict.fromkeys(("def", "fn", "func", "fun", "sub", "proc"), "write `function name(…) { … }`"),
    "lambda": "write `(x) => …`",
    "raise": "write `throw new Error(…)`",
    "except": "write `catch (error) { … }`",
    "unless": "write `if (!…)`",
    "until": "write `while (!…)`",
    **dict.fromkeys(("foreach", "foreeach"), "write `for (const item of list) { … }`"),
    **dict.fromkeys(("print", "echo"), "write `console.log(…)`"),
    "using": "write `const`, and `try { … } finally { … }`",
    **dict.fromkeys(("val", "dim", "int", "string", "auto"), "write `const` or `let`"),
    "goto": "write a loop with a label, or a function",
    "then": "leave out `then`: write `if (condition) { … }`",
    "match": "write `switch (…) { case …: }`",
    "from": "flows import nothing: put the functions into this file",
    "pass": "an empty block is `{ }`",
}
#: Words that begin statements, for those who mistyped one.
_STATEMENT_WORDS: Final = sorted(
    KEYWORDS & set("await break case catch class const continue else finally for function if return switch throw try "
                   "while".split()) | {"let", "async", "workflow"}
)  # fmt: skip
_BEFORE_ANGLE: Final = {
    "-": "an arrow is written `=>`, a property `a.b`",
    "=": "an arrow is written `=>`",
    "<": "write `!==`",
}
_OPENING: Final = {")": "(", "]": "[", "}": "{"}
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_CONDITIONS: Final = frozenset({"if", "while", "switch", "for", "catch"})


@dataclass(frozen=True, slots=True)
class Guess:
    """What to say about the problem."""

    hint: str
    message: str = ""  #: "": what was expected and what was found
    code: str = "F101"
    unbalanced: bool = False  #: A bracket is missing, or there is one too many.


@dataclass(frozen=True, slots=True)
class _Place:
    """The token that cannot stand here, and those around it."""

    tokens: Sequence[Token]
    index: int
    wanted: str  #: as in the message: "`)`", "an expression", "the end of the statement"
    line_of: Callable[[int], int]  #: of an offset
    source: str

    def at(self, ahead: int) -> Token:
        return self.tokens[min(max(self.index + ahead, 0), len(self.tokens) - 1)]

    @property
    def token(self) -> Token:
        return self.at(0)

    @property
    def before(self) -> Token:
        return self.at(-1)

    @property
    def ends(self) -> bool:
        """Whether something complete stands before: a statement, an argument, an element might end here."""
        return self.index > 0 and _ends_operand(self.before)


def guess(tokens: Sequence[Token], index: int, wanted: str, line_of: Callable[[int], int], source: str) -> Guess | None:
    """What was probably meant at the token of this index, where ``wanted`` was expected. None: no idea."""
    place = _Place(tokens, index, wanted, line_of, source)
    for rule in _RULES:
        found = rule(place)
        if found is not None:
            return found
    return None


def type_arguments_end(tokens: Sequence[Token], index: int) -> int:
    """Whether ``<`` begins what can only be type arguments, as in ``<string, number>(``: where they end, else 0."""
    depth = 0
    for position in range(index, min(index + TYPE_TOKENS_MAX, len(tokens) - 1)):
        token = tokens[position]
        if token.kind == NAME or token.kind == STRING:
            continue
        if token.kind != PUNCTUATOR or token.value not in ("<", ">", ">>", ",", ".", "[", "]", "|"):
            return 0
        depth += {"<": 1, ">": -1, ">>": -2}.get(str(token.value), 0)
        if depth <= 0:
            return position if _is(tokens[position + 1], "(") else 0
    return 0


def unclosed_block(tokens: Sequence[Token], matching: Sequence[int], source: str) -> int | None:
    """Where a brace probably lacks its partner: the last whose partner begins a line that is indented otherwise."""
    found = None
    for index, token in enumerate(tokens):
        if _is(token, "{") and matching[index] > index:
            close = tokens[matching[index]]
            if close.newline:
                one, other = _indentation(source, token.start), _indentation(source, close.start)
                found = token.start if None not in (one, other) and one != other else found
    return found


def _indentation(source: str, offset: int) -> str | None:
    """The space at the beginning of the line; None when that is far away."""
    start = source.rfind("\n", max(offset - LINE_MAX, 0), offset) + 1
    if start == 0 and offset > LINE_MAX:
        return None
    line = source[start : offset + 1]
    return line[: len(line) - len(line.lstrip())]


# --- tokens -----------------------------------------------------------------------------------------------------------


def _is(token: Token, value: str) -> bool:
    return token.kind == PUNCTUATOR and token.value == value


def _ends_operand(token: Token) -> bool:
    if token.kind == NAME:
        return token.value not in KEYWORDS or token.value in ("this", "null", "true", "false", "super")
    if token.kind == PUNCTUATOR:
        return token.value in (")", "]", "}")
    return token.kind in (NUMBER, STRING, TEMPLATE, TEMPLATE_TAIL)


def _begins_operand(token: Token) -> bool:
    if token.kind == NAME:
        return token.value not in ("in", "instanceof", "else", "catch", "finally", "case", "default")
    return token.kind in (NUMBER, STRING, TEMPLATE, TEMPLATE_HEAD) or (token.kind == PUNCTUATOR and token.value == "{")


def _open_bracket(place: _Place) -> int | None:
    """The index of the innermost bracket that is open before the problem."""
    depth = 0
    for index in range(place.index - 1, max(place.index - BACK_MAX, 0) - 1, -1):
        token = place.tokens[index]
        if token.kind != PUNCTUATOR:
            continue
        if token.value in _OPENING:
            depth += 1
        elif token.value in _CLOSING:
            if depth == 0:
                return index
            depth -= 1
    return None


def _opening_of(place: _Place, back: int) -> int | None:
    """The index of the bracket that a closing one before the problem belongs to."""
    depth = 0
    for index in range(place.index - back, max(place.index - BACK_MAX, 0) - 1, -1):
        token = place.tokens[index]
        if token.kind == PUNCTUATOR and token.value in _OPENING:
            depth += 1
        elif token.kind == PUNCTUATOR and token.value in _CLOSING:
            depth -= 1
            if depth == 0:
                return index
    return None


# --- rules ------------------------------------------------------------------------------------------------------------


def _typescript(place: _Place) -> Guess | None:
    token, before, after = place.token, place.before, place.at(1)
    if not place.ends or token.newline:
        return None
    if token.kind == NAME and token.value in ("as", "satisfies") and (after.kind == NAME or _is(after, "{")):
        return _of_typescript(f"leave out `{token.value}` and the type")
    if _is(token, "!") and token.start == before.end and (not _begins_operand(after) or after.newline):
        return _of_typescript("leave out the `!`")
    if _is(token, ":") and after.kind == NAME:
        earlier = place.at(-2)
        in_parentheses = before.kind == NAME and (_is(earlier, "(") or _is(earlier, ",")) and place.wanted == "`)`"
        if in_parentheses or (_is(before, ")") and place.wanted == "the end of the statement"):
            return _of_typescript("leave out the `:` and the type")
    if _is(token, "?") and _is(after, ":") and place.wanted == "`)`":
        return _of_typescript("leave out the `?` and the type, or give a default: `(b = 1)`")
    return None


def _of_typescript(hint: str) -> Guess:
    return Guess(hint, TYPESCRIPT, "F221")


def _markup(place: _Place) -> Guess | None:
    if not _is(place.token, "<") or place.wanted != "an expression":
        return None
    after = place.at(1)
    last = place.at(2)
    if after.kind == NAME and (_is(last, ",") or last.value == "extends"):
        return _of_typescript("leave out the types in `< >`")
    if after.kind == NAME and _is(last, ">") and "</" not in place.source and "/>" not in place.source:
        return _of_typescript("leave out the type in `< >`")
    if after.kind == NAME or _is(after, ">"):
        return Guess("return data; a task may make text of it", JSX, "F222")
    return None


def _other_languages(place: _Place) -> Guess | None:
    token, before = place.token, place.before
    if token.kind == NAME and place.ends and not token.newline:
        if token.value in _INFIX:
            return Guess(f"write `{_INFIX[str(token.value)]}`")
        if token.value == "if":
            return Guess("write `condition ? one : other`, or the `if` first")
        if token.value == "then":
            return Guess("leave it out: write `if (condition) { … }`")
    if before.kind == NAME and not token.newline and before.value in _PREFIX:
        return Guess(_PREFIX[str(before.value)])
    adjacent = token.start == before.end
    if _is(token, ">") and place.wanted == "an expression" and adjacent and before.value in _BEFORE_ANGLE:
        return Guess(_BEFORE_ANGLE[str(before.value)])
    if _is(token, ":") and _is(before, "?"):
        return Guess("write `a ?? b`, or `a ? a : b`")
    if _is(token, ":") and _is(before, ")") and place.at(1).newline:
        return Guess("a block stands in braces: `{ … }`")
    if place.wanted == "the end of the statement" and adjacent:
        if before.kind == STRING and token.kind == NAME:
            return Guess("a quote inside a string has a backslash before it: `\\'`")
        if before.kind == NAME and token.kind == STRING and before.value in ("f", "F", "r", "b"):
            return Guess("text with values in it is a template, in backticks: `${value}`")
    return None


def _workflow_shape(place: _Place) -> Guess | None:
    token, before = place.token, place.before
    if before.kind == NAME and before.value == "workflow" and token.kind == NAME:
        return Guess("the file's name is the workflow's name: write `workflow(ctx, inputs) { … }`")
    if before.kind == NAME and before.value == "workflow" and _is(token, "{"):
        return Guess("write `workflow(ctx, inputs) { … }`")
    if token.kind == NAME and token.value == "workflow" and before.value == "async":
        return Guess("leave out `async`, or write `async function workflow(ctx, inputs) { … }`")
    if _is(token, "=>") and place.wanted == "`{`":
        return Guess("leave out the `=>`")
    return None


def _condition(place: _Place) -> Guess | None:
    if place.wanted == "`(`" and place.before.kind == NAME and place.before.value in _CONDITIONS:
        word = place.before.value
        inside = {"for": "const item of list", "catch": "error"}.get(str(word), "condition")
        return Guess(f"write `{word} ({inside})`, with the parentheses")
    if place.wanted == "`(`":
        return Guess("the parameters stand in parentheses: `function name(…) { … }`")
    if place.wanted == "`;`" and not place.token.newline:
        return Guess("the three parts of a `for` have `;` between them")
    if place.wanted == "`case` or `default`":
        return Guess("a switch holds `case value:` and `default:`, with the statements behind them")
    if place.wanted == "the constructor's arguments":
        return Guess("write `new Name(…)`, without `?.`")
    if place.wanted == "`while`":
        return Guess("a `do` ends with `while (condition)`")
    if place.wanted == "`catch` or `finally`":
        return Guess("add `catch (error) { … }`")
    if place.wanted == "`{`" and place.before.value == "catch":
        return Guess("write `catch (error) { … }`, with the parentheses")
    if place.wanted == "`{`" and _is(place.before, ")"):
        return Guess("a function's body stands in braces: `{ … }`")
    if place.wanted == "`:`":
        return _colon(place)
    return None


def _colon(place: _Place) -> Guess | None:
    for index in range(place.index - 1, max(place.index - TYPE_TOKENS_MAX, 0) - 1, -1):
        token = place.tokens[index]
        if token.kind == NAME and token.value in ("case", "default"):
            return Guess(f"write `:` at the end of the `{token.value}`")
        if _is(token, "?"):
            return Guess("write both values: `condition ? one : other`")
        if _is(token, "{") or _is(token, ","):
            return Guess("write `name: value`")
    return None


def _body(place: _Place) -> Guess | None:
    """``(a) { … }`` and ``name(a) { … }``"""
    if not _is(place.token, "{") or not _is(place.before, ")") or place.wanted != "the end of the statement":
        return None
    opening = _opening_of(place, 1)
    if opening is None:
        return None
    named = place.tokens[opening - 1] if opening else place.tokens[0]
    if opening and named.kind == NAME and named.value != "async":
        word = str(named.value)
        if word in _PREFIX:
            return Guess(_PREFIX[word])
        meant = closest(word, _STATEMENT_WORDS) if not _follows_function_word(place, opening) else None
        return Guess(f"did you mean `{meant}`?" if meant else f"a function is written `function {word}(…) {{ … }}`")
    return Guess("an arrow function has `=>` before its `{`")


def _follows_function_word(place: _Place, opening: int) -> bool:
    return opening >= 2 and place.tokens[opening - 2].value in ("function", "new")


def _closes_nothing(place: _Place) -> Guess | None:
    token = place.token
    if place.wanted != "an expression" or token.kind != PUNCTUATOR or token.value not in _OPENING:
        return None
    opening = _open_bracket(place)
    if opening is None:
        return Guess(
            "remove it, or look for the bracket that is missing before", "this bracket closes nothing", unbalanced=True
        )
    if place.tokens[opening].value != _OPENING[str(token.value)]:
        return _to_close(place, opening)
    return None


def _missing_bracket(place: _Place) -> Guess | None:
    wanted = place.wanted.strip("`")
    if wanted not in _OPENING:
        return None
    token = place.token
    opening = _open_bracket(place)
    if opening is not None and _is(token, "{") and _begins_statement(place, opening):
        return _to_close(place, opening)
    if _is(token, ";") and not place.at(1).newline:
        return Guess("write a comma instead")
    if place.ends and _begins_operand(token) and not (token.newline and token.value in _STATEMENT_WORDS):
        return Guess("a comma or an operator is missing before it")
    if opening is not None and place.tokens[opening].value == _OPENING[wanted]:
        return _to_close(place, opening)
    return None


def _begins_statement(place: _Place, opening: int) -> bool:
    """Whether this bracket is that of ``if (…) {`` or ``function name(…) {``."""
    before, earlier = place.tokens[max(opening - 1, 0)], place.tokens[max(opening - 2, 0)]
    return before.kind == NAME and (before.value in _CONDITIONS or "function" in (before.value, earlier.value))


def _to_close(place: _Place, opening: int) -> Guess:
    bracket = place.tokens[opening]
    line = place.line_of(bracket.start)
    where = f" of line {line}" if place.token.kind == END or line != place.line_of(place.token.start) else ""
    return Guess(f"close the `{bracket.value}`{where}", unbalanced=True)


def _end_of_statement(place: _Place) -> Guess | None:
    if place.wanted != "the end of the statement":
        return None
    before, earlier = place.before, place.at(-2)
    if before.kind == NAME and (before.newline or earlier.value in (";", "}", "{", ")") or place.index == 1):
        meant = closest(str(before.value), _STATEMENT_WORDS) if before.value not in _STATEMENT_WORDS else None
        if meant:
            return Guess(f"did you mean `{meant}`?")
    if place.token.value == "else":
        return Guess("end what stands before it with `;`, or put it into `{ … }`")
    if _begins_operand(place.token):
        return Guess("begin a new line, or write `;` or an operator before it")
    return Guess("remove it, or write what is missing before it")


def _name(place: _Place) -> Guess | None:
    if place.wanted == "an expression" and _is(place.token, "=") and _is(place.before, "}"):
        return Guess("put it into parentheses: `({ a, b } = value)`")
    if place.wanted == "an expression":
        return Guess("a value is missing here")
    if place.wanted == "a property name":
        return Guess("the name of a property is missing here")
    if place.wanted == "a property":
        return Guess("write `name: value`, or leave this out")
    if place.wanted != "a name":
        return None
    before = place.before
    if before.value == "function" and _is(place.token, "("):
        return Guess("give the function a name, or write an arrow function: `() => { … }`")
    return Guess("names begin with a letter, `_` or `$`" if place.token.kind == NUMBER else "a name is missing here")


def _anything(place: _Place) -> Guess | None:
    if place.token.kind == END:
        return Guess("a bracket is missing before the end")
    if place.wanted == "`{`":
        return Guess("a block stands in braces: `{ … }`")
    if place.wanted.startswith("`"):
        return Guess(f"write {place.wanted} before it, or remove it")
    return None


_RULES: Final = (
    _typescript, _markup, _workflow_shape, _other_languages, _condition, _body, _closes_nothing, _missing_bracket,
    _end_of_statement, _name, _anything,
)  # fmt: skip
