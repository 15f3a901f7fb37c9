"""What is wrong with text that is not JSON, in V8's words.

Runs only after the decoder has refused the text, and reads it again in the order of V8's parser, which decides what is
missed and where. It never recurses.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

_CONTEXT: Final = 10  #: Characters that are shown on each side of an unexpected one.
_SPECIAL: Final = frozenset(["NaN", "Infinity", "undefined", "[object Object]"])
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DIGITS: Final = re.compile(r"[0-9]*")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_HEX: Final = re.compile(r"[0-9a-fA-F]{0,4}")

_PROPERTY_OR_END: Final = "Expected property name or '}' in JSON at position"
_PROPERTY: Final = "Expected double-quoted property name in JSON at position"
_COLON: Final = "Expected ':' after property name in JSON at position"
_COMMA_OR_BRACE: Final = "Expected ',' or '}' after property value in JSON at position"
_COMMA_OR_BRACKET: Final = "Expected ',' or ']' after array element in JSON at position"
_TRAILING: Final = "Unexpected non-whitespace character after JSON at position"
_STRING_END: Final = "Unterminated string in JSON at position"
_CONTROL: Final = "Bad control character in string literal in JSON at position"
_ESCAPE: Final = "Bad escaped character in JSON at position"
_UNICODE: Final = "Bad Unicode escape in JSON at position"
_MINUS: Final = "No number after minus sign in JSON at position"
_FRACTION: Final = "Unterminated fractional number in JSON at position"
_EXPONENT: Final = "Exponent part is missing a number in JSON at position"


def message(text: str) -> str:
    """The message of the SyntaxError for text (UTF-16 units) that is not JSON."""
    try:
        _Reader(text).read()
    except _Found as found:
        return str(found)
    raise AssertionError("only text that cannot be decoded is read again")


class _Found(Exception):
    pass


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def read(self) -> None:
        """Reads one value after the other; ``open`` holds the brackets they stand in."""
        open_: list[str] = []
        while True:
            opened = self.value()
            if opened:
                open_.append(opened)
                continue
            while True:
                if not open_:
                    if self.peek():
                        self.fail(_TRAILING)
                    return
                if self.take(","):
                    if open_[-1] == "{":
                        self.key(_PROPERTY)
                    break
                if not self.take("}" if open_[-1] == "{" else "]"):
                    self.fail(_COMMA_OR_BRACE if open_[-1] == "{" else _COMMA_OR_BRACKET)
                open_.pop()

    def value(self) -> str:
        """Reads a value; of an array or object that is not empty only the beginning, and returns its bracket."""
        first = self.peek()
        if first == '"':
            self.string()
        elif first and first in "-0123456789":
            self.number()
        elif first in _LITERALS:
            self.literal(_LITERALS[first])
        elif first == "{":
            self.at += 1
            if not self.take("}"):
                self.key(_PROPERTY_OR_END)
                return "{"
        elif first == "[":
            self.at += 1
            if not self.take("]"):
                return "["
        else:
            self.unexpected()
        return ""

    def key(self, otherwise: str) -> None:
        if self.peek() != '"':
            self.fail(otherwise)
        self.string()
        if not self.take(":"):
            if otherwise is _PROPERTY:  # V8 has words for the first property only
                self.unexpected()
            self.fail(_COLON)

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        self.skip(_SPACE)
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> bool:
        found = self.peek() == wanted
        self.at += found
        return found

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        assert match is not None, "the patterns match nothing as well"
        self.at = match.end()
        return len(match[0])

    def string(self) -> None:
        self.at += 1
        while True:
            self.skip(_PLAIN)
            character = self.text[self.at : self.at + 1]
            if character == '"':
                self.at += 1
                return
            if character != "\\":
                self.fail(_CONTROL if character else _STRING_END)
            self.at += 1
            escaped = self.text[self.at : self.at + 1]
            if not escaped or escaped > "\xff":
                self.unexpected()
            if escaped not in '"\\/bfnrtu':
                self.fail(_ESCAPE)
            self.at += 1
            if escaped == "u" and self.skip(_HEX) < 4:
                self.fail(_UNICODE)

    def number(self) -> None:
        if self.text[self.at] == "-":
            self.at += 1
        if self.text[self.at : self.at + 1] == "0":
            self.at += 1
            if self.text[self.at : self.at + 1] in tuple("0123456789"):
                self.unexpected()
        elif not self.skip(_DIGITS):
            self.fail(_MINUS)
        if self.text[self.at : self.at + 1] == ".":
            self.at += 1
            if not self.skip(_DIGITS):
                self.fail(_FRACTION)
        if self.text[self.at : self.at + 1] in ("e", "E"):
            self.at += 1
            if self.text[self.at : self.at + 1] in ("+", "-"):
                self.at += 1
            if not self.skip(_DIGITS):
                self.fail(_EXPONENT)

    def literal(self, word: str) -> None:
        for character in word:
            if self.text[self.at : self.at + 1] != character:
                self.unexpected()
            self.at += 1

    def fail(self, message: str) -> NoReturn:
        raise _Found(f"{message} {self.at}")

    def unexpected(self) -> NoReturn:
        """What stands here cannot stand here."""
        text, at = self.text, self.at
        character = text[at : at + 1]
        if not character:
            raise _Found("Unexpected end of JSON input")
        if character == '"' or character in "-0123456789":
            what = "string" if character == '"' else "number"
            self.fail(f"Unexpected {what} in JSON at position")
        if text in _SPECIAL:
            raise _Found(f'"{text}" is not valid JSON')
        if len(text) <= 2 * _CONTEXT:
            shown = f'"{text}"'
        elif at < _CONTEXT:
            shown = f'"{text[: at + _CONTEXT]}"...'
        elif at < len(text) - _CONTEXT:
            shown = f'..."{text[at - _CONTEXT : at + _CONTEXT]}"...'
        else:
            shown = f'..."{text[at - _CONTEXT :]}"'
        raise _Found(f"Unexpected token '{character}', {shown} is not valid JSON")
