"""Source text to tokens: one regular expression, one pass.

A stack of braces tells the ``}`` that ends a template's substitution from other ones. A ``/`` where an operand is
expected starts a regular expression, which flows do not support: it becomes one REGEX token, so that what stands in it
confuses nobody. What cannot be read becomes a BAD token with its diagnostic reported; the lexer never raises.
"""

from __future__ import annotations

import re
from typing import Final

from rhythm.language.diagnostics import Report
from rhythm.language.tokens import (
    BAD,
    END,
    KEYWORDS,
    NAME,
    NUMBER,
    PRIVATE,
    PUNCTUATOR,
    REGEX,
    STRING,
    TEMPLATE,
    TEMPLATE_HEAD,
    TEMPLATE_MIDDLE,
    TEMPLATE_TAIL,
    Token,
)
from rhythm.language.units import to_units

_DIGITS = r"[0-9](?:_?[0-9])*"
#: Beyond ASCII, neither white space nor the end of a line: `name` says where such a name ends.
_WIDE = r"[^\x00-\x7f\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
_TOKEN: Final = re.compile(
    rf"""
    (?P<space>[ \t\v\f\u00a0\ufeff\u1680\u2000-\u200a\u202f\u205f\u3000]+)
  | (?P<line>\r\n|[\n\r\u2028\u2029])
  | (?P<comment>//[^\n\r\u2028\u2029]*)
  | (?P<block>/\*(?:[^*]|\*(?!/))*+(?P<closed>\*/)?)
  | (?P<name>(?:[A-Za-z_$]|{_WIDE})(?:[A-Za-z0-9_$]|{_WIDE})*)
  | (?P<number>(?:0[xX](?:[0-9a-fA-F](?:_?[0-9a-fA-F])*)?|0[oO](?:[0-7](?:_?[0-7])*)?|0[bB](?:[01](?:_?[01])*)?
      |(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?)(?P<junk>(?:\w|\$)+)?)
  | (?P<string>"(?:[^"\\\n\r]|\\(?:\r\n|[\s\S]))*+"|'(?:[^'\\\n\r]|\\(?:\r\n|[\s\S]))*+')
  | (?P<template>`)
  | (?P<private>\#(?:\w|\$)+)
  | (?P<punctuator>>>>=|\.\.\.|===|!==|\*\*=|<<=|>>=|>>>|&&=|\|\|=|\?\?=|=>|==|!=|<=|>=|&&|\|\||\?\?|\?\.(?![0-9])
      |\+\+|--|\+=|-=|\*=|/=|%=|&=|\|=|\^=|<<|>>|\*\*|[{{}}()\[\];,<>+\-*/%&|^!~?:=.@])
    """,
    re.VERBOSE,
)
_TEMPLATE_TEXT: Final = re.compile(r"(?:[^`\\$]|\\[\s\S]|\$(?!\{))*+")
_REGEX: Final = re.compile(r"/(?:[^/\\\[\n\r]|\\[^\n\r]|\[(?:[^\]\\\n\r]|\\[^\n\r])*+\])++/[A-Za-z]*")
#: Slashes that begin no regular expression after all, before we stop looking: each look reads on to the line's end.
_REGEX_MISSES_MAX: Final = 16
_REST_OF_LINE: Final = re.compile(r"[^\n\r\u2028\u2029]*")
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<simple>[bfnrtv0](?![0-9])|[bfnrtv])|x(?P<hex>[0-9a-fA-F]{2})|u(?P<unicode>[0-9a-fA-F]{4})"
    r"|u\{(?P<point>[0-9a-fA-F]+)\}|(?P<line>\r\n|[\n\r\u2028\u2029])|(?P<other>[^xu0-9]))"
)
_SIMPLE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
#: Python's names stay names when they are normalised, which leaves these letters out; JavaScript has them.
_NOT_NORMAL: Final = (
    "\u037a\u0e33\u0eb3\u309b\u309c\ufc5e\ufc5f\ufc60\ufc61\ufc62\ufc63\ufdfa\ufdfb\ufe70\ufe72\ufe74\ufe76\ufe78"
    "\ufe7a\ufe7c\ufe7e\uff9e\uff9f"
)
#: Characters that word processors and other keyboards write -> what to write.
_LOOKALIKES: Final = {
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", 'strings have straight quotes: "'),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u00b4", "strings have straight quotes: '"),
    **dict.fromkeys("\u2013\u2014\u2212", "write `-`"),
    "\u00d7": "write `*`", "\u00f7": "write `/`", "\u2260": "write `!==`", "\u2264": "write `<=`",
    "\u2265": "write `>=`", "\u2192": "write `=>`", "\u21d2": "write `=>`", "\u2026": "write `...`",
    "\uff1b": "write `;`", "\uff0c": "write `,`",
    "\uff08": "write `(`", "\uff09": "write `)`", "\uff1a": "write `:`", "\uff1d": "write `=`", "\u037e": "write `;`",
}  # fmt: skip
#: A slash after one of these words starts a regular expression; after other words it divides.
_OPERAND_FOLLOWS: Final = KEYWORDS - {"await", "this", "super", "null", "true", "false"} | {"of", "yield"}


def tokenize(report: Report) -> list[Token]:
    """The tokens of the report's source, the last one of kind END."""
    return _Lexer(report).run()


class _Lexer:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.source = report.source
        self.tokens: list[Token] = []
        self.braces: list[bool] = []  # True: this brace opened a template's substitution
        self.templates: list[int] = []  # where the templates begin whose substitution this is
        self.newline = True
        self.regex_misses = 0

    def run(self) -> list[Token]:
        source, length, offset = self.source, len(self.source), 0
        if source.startswith("#!"):
            end = self.line_end(0)
            self.report.error("F220", "a flow file has no hashbang line", 0, end, "remove this line")
            offset = end
        match_at = _TOKEN.match
        while offset < length:
            match = match_at(source, offset)
            if match is None:
                end = self.bad_character(offset)
                self.add(BAD, "", offset, end)
                offset = end
                continue
            kind = match.lastgroup
            end = match.end()
            if kind == "space" or kind == "comment":
                pass
            elif kind == "line":
                self.newline = True
            elif kind == "name":
                self.name(match[0], offset, end)
            elif kind == "punctuator":
                end = self.punctuator(match[0], offset, end)
            elif kind == "string":
                self.add(STRING, self.cooked(match[0][1:-1], offset + 1), offset, end)
            elif kind == "number" or kind == "junk":
                self.number(match, offset, end)
            elif kind == "template":
                end = self.template(offset, end, TEMPLATE, TEMPLATE_HEAD)
            elif kind == "private":
                self.add(PRIVATE, match[0], offset, end)
            else:
                self.block_comment(match, offset, end)
            offset = end
        self.add(END, "", length, length)
        return self.tokens

    def add(self, kind: str, value: str | float, start: int, end: int) -> None:
        self.tokens.append(Token(kind, value, start, end, self.newline))
        self.newline = False

    def line_end(self, offset: int) -> int:
        match = _REST_OF_LINE.match(self.source, offset)
        return match.end() if match else offset

    def bad_character(self, offset: int) -> int:
        character = self.source[offset]
        if character in "\"'":
            end = self.line_end(offset)
            self.report.error("F102", "this string has no end on its line", offset, end, f"close it with {character}")
        elif character == "\\":
            end = offset + 1
            text = "a backslash cannot stand here"
            self.report.error("F105", text, offset, end, "names have no escapes; a string has them inside its quotes")
        elif character == "#":
            end = offset + 1
            self.report.error("F105", "`#` cannot stand here", offset, end, "comments begin with //")
        else:
            end = offset + 1
            shown = character if character.isprintable() else f"U+{ord(character):04X}"
            hint = _LOOKALIKES.get(character) or (
                "put it into quotes" if character.isprintable() else "delete it; it is invisible"
            )
            last = self.report.diagnostics[-1] if self.report.diagnostics else None
            if last is None or last.hint != hint or "\n" in self.source[last.end : offset]:  # “…” is one
                self.report.error("F105", f"the character {shown} cannot stand here", offset, end, hint)
        return end

    def name(self, text: str, start: int, end: int) -> None:
        if not text.isascii():
            length = next((i for i in range(len(text)) if not _in_name(text[i], first=i == 0)), len(text))
            if length < len(text):
                self.bad_character(start + length)
            text = to_units(text[:length])
        self.add(NAME if text else BAD, text, start, end)

    def block_comment(self, match: re.Match[str], start: int, end: int) -> None:
        if match["closed"] is None:
            self.report.error("F102", "this comment has no end", start, start + 2, "close it with */")
            self.report.cut_off = start
        text = match[0]
        if "\n" in text or "\r" in text or "\u2028" in text or "\u2029" in text:
            self.newline = True

    def number(self, match: re.Match[str], start: int, end: int) -> None:
        text, junk = match["number"], match["junk"]
        if junk is not None:
            text = text[: -len(junk)]
        value = 0.0
        if junk == "n":
            self.report.error(
                "F207", "BigInt numbers are not supported yet", start, end, "keep money in whole cents and ids in text"
            )
        elif junk is not None or text[1:] in tuple("xXoObB"):
            hint = "an underscore stands between two digits" if "_" in (junk or "") else "names begin with a letter"
            self.report.error("F103", "this is not a number", start, end, hint)
        elif len(text) > 1 and text[0] == "0" and text[1] in "0123456789_":
            self.report.error(
                "F103", "a number cannot begin with a further 0", start, end, "octal numbers are written 0o17"
            )
        else:
            value = number_value(text.replace("_", ""))
        self.add(NUMBER, value, start, end)

    def punctuator(self, text: str, start: int, end: int) -> int:
        if text == "{":
            self.braces.append(False)
        elif text == "}":
            if self.braces and self.braces.pop():
                return self.template(start, end, TEMPLATE_TAIL, TEMPLATE_MIDDLE)
        elif text in ("/", "/=") and self.regex_misses < _REGEX_MISSES_MAX and self.operand_expected():
            match = _REGEX.match(self.source, start)
            if match is not None:
                self.add(REGEX, match[0], start, match.end())
                return match.end()
            self.regex_misses += 1
        elif (text == "<" and self.source.startswith("<!--", start)) or (
            text == "--" and self.newline and self.source.startswith("-->", start)
        ):
            end = self.line_end(start)
            self.report.error("F220", "HTML comments are not supported", start, end, "comments begin with //")
            return end
        self.add(PUNCTUATOR, text, start, end)
        return end

    def operand_expected(self) -> bool:
        if not self.tokens:
            return True
        last = self.tokens[-1]
        if last.kind == PUNCTUATOR:
            return last.value not in (")", "]", "}", "++", "--")
        if last.kind == NAME:
            after_dot = (
                len(self.tokens) > 1 and self.tokens[-2].value in (".", "?.") and self.tokens[-2].kind == PUNCTUATOR
            )
            return last.value in _OPERAND_FOLLOWS and not after_dot and (last.value != "of" or self.operand_before_of())
        return last.kind in (TEMPLATE_HEAD, TEMPLATE_MIDDLE)

    def operand_before_of(self) -> bool:
        """Whether the `of` just read stands behind what a loop assigns to; elsewhere it is a name."""
        before = self.tokens[-2] if len(self.tokens) > 1 else None
        return before is not None and (
            (before.kind == NAME and before.value not in KEYWORDS)
            or (before.kind == PUNCTUATOR and before.value in (")", "]", "}"))
        )

    def template(self, start: int, end: int, closed: str, opened: str) -> int:
        match = _TEMPLATE_TEXT.match(self.source, end)
        assert match is not None, "the pattern matches the empty text"
        text = match[0].replace("\r\n", "\n").replace("\r", "\n")
        stop = match.end()
        begin = self.templates.pop() if closed == TEMPLATE_TAIL else start
        if self.source.startswith("`", stop):
            self.add(closed, self.cooked(text, end), start, stop + 1)
            return stop + 1
        if self.source.startswith("${", stop):
            self.add(opened, self.cooked(text, end), start, stop + 2)
            self.braces.append(True)
            self.templates.append(begin)
            return stop + 2
        self.report.error("F102", "this template has no end", begin, begin + 1, "close it with a backtick")
        self.report.cut_off = begin
        self.add(BAD, "", start, len(self.source))
        return len(self.source)

    def cooked(self, text: str, start: int) -> str:
        """The value of the text between quotes."""
        if "\\" in text:
            parts: list[str] = []
            offset = 0
            while True:
                slash = text.find("\\", offset)
                if slash < 0:
                    parts.append(text[offset:])
                    break
                parts.append(text[offset:slash])
                match = _ESCAPE.match(text, slash)
                value = None if match is None else _escape_value(match)
                if match is None or value is None:
                    self.report.error(
                        "F104",
                        "this escape is malformed",
                        start + slash,
                        start + slash + 2,
                        "a backslash is written \\\\",
                    )
                    offset = slash + 2
                else:
                    parts.append(value)
                    offset = match.end()
            text = "".join(parts)
        return to_units(text)


def _in_name(character: str, *, first: bool) -> bool:
    """Whether a character may stand in a name (ID_Start, ID_Continue), or begin it."""
    if character in "$\u200c\u200d":
        return character == "$" or not first
    return (character if first else f"a{character}").isidentifier() or character in _NOT_NORMAL


def _escape_value(match: re.Match[str]) -> str | None:
    kind = match.lastgroup
    if kind == "simple":
        return _SIMPLE[match["simple"]]
    if kind == "other":
        return match["other"]
    if kind == "line":
        return ""
    if kind == "point":
        digits = match["point"].lstrip("0")
        code = int(digits or "0", 16) if len(digits) <= 6 else 0x110000
        return chr(code) if code <= 0x10FFFF else None
    return chr(int(match["hex"] or match["unicode"], 16))


def number_value(text: str) -> float:
    """The double of a number's text without separators."""
    prefix = text[:2].lower()
    if prefix in ("0x", "0o", "0b"):
        whole = int(text[2:], {"0x": 16, "0o": 8, "0b": 2}[prefix])
        try:
            return float(whole)
        except OverflowError:
            return float("inf")
    return float(text)
